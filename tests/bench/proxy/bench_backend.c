/* The backend of the proxy benchmark: one thread, epoll. Answers every POST, once all of its body came, with
 * a canned chat completion (about 1.4 KB), or, when the body says "stream":true, with events of about 230
 * bytes every "interval_ms" until the client leaves, or, with "whole":N, until a completion of N events is
 * whole. "reply_bytes":N asks for a longer answer. These wishes must stand in the body's first 6 KB. A GET is
 * answered as llama-server's /health is. Prints its port.
 * Usage: bench_backend [--port PORT] [ARGUMENT…]   the others are ignored: it passes for a llama-server */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define IN_BYTES 8192
#define TICK_MS  1
#define SLOTS    4096u /* of the calendar of events, a tick each: no interval is longer */

struct conn {
    struct conn *next, *prev; /* in the calendar, while it streams; else NULL */
    int fd;
    size_t n, skip;               /* skip: bytes of a large body still to come, whose answer waits for them */
    uint32_t interval, due, left; /* left: events until the stream ends; 0 = it does not */
    uint32_t reply_bytes;
    bool asks_stream, is_get;
    size_t want; /* bytes of an answer still to send */
    char in[IN_BYTES];
};

static struct conn calendar[SLOTS]; /* heads of circles */
static char reply[2048], event[512], last[512], block[262144];
static size_t reply_n, event_n, last_n;

static void make_texts(void)
{
    char body[1600], text[1100];
    memset(text, 'a', sizeof text);
    for (size_t i = 5; i < sizeof text; i += 6)
        text[i] = ' ';
    text[sizeof text - 1] = '\0';
    int n = snprintf(
        body, sizeof body,
        "{\"choices\":[{\"finish_reason\":\"stop\",\"index\":0,\"message\":{\"role\":\"assistant\","
        "\"content\":\"%s\"}}],\"created\":1700000000,\"model\":\"m\",\"object\":\"chat.completion\","
        "\"usage\":{\"completion_tokens\":180,\"prompt_tokens\":25,\"total_tokens\":205},\"id\":\"chatcmpl-"
        "1\"}",
        text);
    reply_n = (size_t)snprintf(
        reply, sizeof reply,
        "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: application/json; charset=utf-8\r\n"
        "Keep-Alive: timeout=60\r\nContent-Length: %d\r\n\r\n%s",
        n, body);
    char data[400];
    int m = snprintf(
        data, sizeof data,
        "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":\" token\"}}],"
        "\"created\":1700000000,\"id\":\"chatcmpl-abcdefghijklmnopqrstuvwxyz012345\",\"model\":\"m\","
        "\"system_fingerprint\":\"b1-0000000\",\"object\":\"chat.completion.chunk\"}\n\n");
    event_n = (size_t)snprintf(event, sizeof event, "%x\r\n%s\r\n", (unsigned)m, data);
    m = snprintf(
        data, sizeof data,
        "data: {\"choices\":[{\"finish_reason\":\"stop\",\"index\":0,\"delta\":{}}],\"created\":1}\n\n"
        "data: {\"choices\":[],\"usage\":{\"completion_tokens\":32,\"prompt_tokens\":211}}\n\n"
        "data: [DONE]\n\n");
    last_n = (size_t)snprintf(last, sizeof last, "%x\r\n%s\r\n0\r\n\r\n", (unsigned)m, data);
}

/* ---- the calendar ---- */

static void unschedule(struct conn *c)
{
    if (!c->next)
        return;
    c->prev->next = c->next;
    c->next->prev = c->prev;
    c->next = c->prev = NULL;
}

static void schedule(struct conn *c, uint32_t due)
{
    struct conn *head = &calendar[due % SLOTS];
    c->due = due;
    c->next = head;
    c->prev = head->prev;
    c->prev->next = c;
    head->prev = c;
}

static void drop(struct conn *c)
{
    unschedule(c);
    close(c->fd);
    free(c);
}

/* ---- answers ---- */

/* The rest of a long answer, as far as the socket takes it. */
static void send_more(int ep, struct conn *c)
{
    while (c->want) {
        ssize_t r = send(c->fd, block, c->want < sizeof block ? c->want : sizeof block, MSG_NOSIGNAL);
        if (r < 0 && errno == EAGAIN)
            break;
        c->want = r < 0 ? 0 : c->want - (size_t)r; /* an error is told by the next read */
    }
    struct epoll_event ev = {.events = EPOLLIN | (c->want ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
}

static uint32_t number(const char *body, const char *key, uint32_t otherwise)
{
    const char *p = strstr(body, key);
    return p ? (uint32_t)strtoul(p + strlen(key), NULL, 10) : otherwise;
}

static void note_wishes(struct conn *c, const char *body)
{
    c->is_get = !strncmp(c->in, "GET ", 4);
    c->asks_stream = strstr(body, "\"stream\":true") != NULL;
    c->left = number(body, "\"whole\":", 0);
    c->interval = number(body, "\"interval_ms\":", c->left ? 1 : 20);
    if (!c->interval || c->interval >= SLOTS)
        c->interval = 1;
    c->reply_bytes = number(body, "\"reply_bytes\":", 0);
}

static void answer(int ep, struct conn *c, uint32_t now)
{
    static const char stream_head[] =
        "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/event-stream\r\n"
        "Transfer-Encoding: chunked\r\n\r\n";
    static const char healthy[] =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n"
        "{\"status\":\"ok\"}";
    if (c->is_get) {
        (void)send(c->fd, healthy, sizeof healthy - 1, MSG_NOSIGNAL);
    } else if (c->asks_stream) {
        (void)send(c->fd, stream_head, sizeof stream_head - 1, MSG_NOSIGNAL);
        schedule(c, now + 1 + (uint32_t)c->fd % c->interval); /* spread over the interval */
    } else if (c->reply_bytes) {
        char head[256];
        int n = snprintf(head, sizeof head,
                         "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
                         "Content-Length: %u\r\n\r\n",
                         c->reply_bytes);
        (void)send(c->fd, head, (size_t)n, MSG_NOSIGNAL | MSG_MORE);
        c->want = c->reply_bytes;
        send_more(ep, c);
    } else {
        (void)send(c->fd, reply, reply_n, MSG_NOSIGNAL);
    }
}

/* ---- requests ---- */

static size_t body_length(const char *head, const char *end)
{
    const char *length = strcasestr(head, "\r\ncontent-length:");
    return length && length < end ? strtoul(length + 17, NULL, 10) : 0;
}

static void take(struct conn *c, size_t n)
{
    memmove(c->in, c->in + n, c->n - n);
    c->n -= n;
}

/* Takes complete requests off the input; of a large one its head, when the wishes are there. */
static void parse(int ep, struct conn *c, uint32_t now)
{
    for (;;) {
        c->in[c->n] = '\0';
        char *end = strstr(c->in, "\r\n\r\n");
        if (!end)
            return;
        size_t head = (size_t)(end + 4 - c->in), all = head + body_length(c->in, end);
        if (c->n < all && c->n < IN_BYTES - 1)
            return;
        note_wishes(c, end + 4);
        if (c->n < all) {
            c->skip = all - c->n;
            c->n = 0;
            return;
        }
        take(c, all);
        answer(ep, c, now);
    }
}

static void readable(int ep, struct conn *c, uint32_t now)
{
    bool skips = c->skip > 0;
    size_t room = skips ? c->skip < sizeof block ? c->skip : sizeof block : IN_BYTES - 1 - c->n;
    ssize_t r = recv(c->fd, skips ? block : c->in + c->n, room, 0);
    if (r <= 0) {
        if (r == 0 || errno != EAGAIN)
            drop(c);
        return;
    }
    if (!skips) {
        c->n += (size_t)r;
        parse(ep, c, now);
        return;
    }
    c->skip -= (size_t)r;
    if (!c->skip)
        answer(ep, c, now);
}

/* The events that are due at this tick. */
static void tick(uint32_t now)
{
    struct conn *head = &calendar[now % SLOTS];
    for (struct conn *c = head->next, *next = c->next; c != head; c = next, next = c->next) {
        if (c->due != now)
            continue;
        unschedule(c);
        if (c->left == 1) {
            (void)send(c->fd, last, last_n, MSG_NOSIGNAL | MSG_DONTWAIT);
            continue;
        }
        c->left -= c->left > 0;
        if (send(c->fd, event, event_n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN)
            drop(c);
        else
            schedule(c, now + c->interval);
    }
}

/* ---- the loop ---- */

static bool accept_all(int ep, int l)
{
    int fd;
    while ((fd = accept4(l, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct conn *c = calloc(1, sizeof *c);
        if (!c)
            return false;
        c->fd = fd;
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
    }
    return true;
}

static int listen_on(uint16_t port)
{
    int l = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(l, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(l, (struct sockaddr *)&sa, len) || listen(l, 4096) ||
        getsockname(l, (struct sockaddr *)&sa, &len))
        return -1;
    printf("%u\n", ntohs(sa.sin_port));
    fflush(stdout);
    return l;
}

static uint32_t ticks(int timer)
{
    uint64_t times = 0;
    return read(timer, &times, sizeof times) == sizeof times ? (uint32_t)times : 0;
}

int main(int argc, char **argv)
{
    uint16_t port = 0;
    for (int i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], "--port"))
            port = (uint16_t)atoi(argv[i + 1]);
    make_texts();
    for (unsigned i = 0; i < SLOTS; i++)
        calendar[i].next = calendar[i].prev = &calendar[i];
    int l = listen_on(port), ep = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (l < 0)
        return 1;
    struct itimerspec every = {{0, TICK_MS * 1000000}, {0, TICK_MS * 1000000}};
    timerfd_settime(timer, 0, &every, NULL);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &l}, evs[256];
    epoll_ctl(ep, EPOLL_CTL_ADD, l, &ev);
    ev.data.ptr = &timer;
    epoll_ctl(ep, EPOLL_CTL_ADD, timer, &ev);
    for (uint32_t now = 0;;) {
        uint32_t passed = 0;
        int n = epoll_wait(ep, evs, 256, -1);
        for (int i = 0; i < n; i++) {
            if (evs[i].data.ptr == &timer)
                passed = ticks(timer);
            else if (evs[i].data.ptr == &l && !accept_all(ep, l))
                return 1;
            else if (evs[i].data.ptr != &l && evs[i].events & EPOLLOUT)
                send_more(ep, evs[i].data.ptr);
            else if (evs[i].data.ptr != &l)
                readable(ep, evs[i].data.ptr, now);
        }
        for (; passed; passed--)
            tick(++now);
    }
}
