/* The backend of the proxy benchmark: one thread, epoll. Answers every POST with a canned chat completion
 * (about 1.4 KB), or, when the body says "stream":true, with events of about 230 bytes every "interval_ms"
 * until the client leaves, or, with "whole":N, until a completion of N events is whole. "reply_bytes":N asks
 * for a longer answer. Prints its port. Usage: bench_backend */
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

#define MAX_CONNS 65536
#define IN_BYTES  8192
#define TICK_MS   1

struct conn {
    int fd;
    size_t n, skip; /* skip: bytes of a large body still to come */
    bool streaming;
    uint32_t interval, due, left; /* left: events until the stream ends; 0 = it does not */
    size_t want;                  /* bytes of an answer still to send */
    char in[IN_BYTES];
};

static struct conn *conns[MAX_CONNS];
static char reply[2048], event[512], last[512], filler[65536];
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
    memset(filler, 'x', sizeof filler);
}

static void drop(struct conn *c)
{
    conns[c->fd] = NULL;
    close(c->fd);
    free(c);
}

/* The rest of a long answer, as far as the socket takes it. */
static void send_more(int ep, struct conn *c)
{
    while (c->want) {
        ssize_t r = send(c->fd, filler, c->want < sizeof filler ? c->want : sizeof filler, MSG_NOSIGNAL);
        if (r < 0 && errno == EAGAIN)
            break;
        if (r < 0)
            return;
        c->want -= (size_t)r;
    }
    struct epoll_event ev = {.events = EPOLLIN | (c->want ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
}

static uint32_t number(const char *body, const char *key, uint32_t otherwise)
{
    const char *p = strstr(body, key);
    return p ? (uint32_t)strtoul(p + strlen(key), NULL, 10) : otherwise;
}

static void answer(int ep, struct conn *c, const char *body, uint32_t now)
{
    if (strstr(body, "\"stream\":true")) {
        static const char head[] = "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/event-stream\r\n"
                                   "Transfer-Encoding: chunked\r\n\r\n";
        (void)send(c->fd, head, sizeof head - 1, MSG_NOSIGNAL);
        c->streaming = true;
        c->left = number(body, "\"whole\":", 0);
        c->interval = number(body, "\"interval_ms\":", c->left ? 1 : 20);
        c->due = now + 1 + (uint32_t)c->fd % c->interval; /* spread over the interval */
        return;
    }
    uint32_t bytes = number(body, "\"reply_bytes\":", 0);
    if (!bytes) {
        (void)send(c->fd, reply, reply_n, MSG_NOSIGNAL);
        return;
    }
    char head[256];
    int n = snprintf(
        head, sizeof head,
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %u\r\n\r\n", bytes);
    (void)send(c->fd, head, (size_t)n, MSG_NOSIGNAL | MSG_MORE);
    c->want = bytes;
    send_more(ep, c);
}

/* Takes complete requests off the input. */
static void parse(int ep, struct conn *c, uint32_t now)
{
    for (;;) {
        size_t gone = c->n < c->skip ? c->n : c->skip;
        c->skip -= gone;
        memmove(c->in, c->in + gone, c->n - gone);
        c->n -= gone;
        c->in[c->n] = '\0';
        char *end = strstr(c->in, "\r\n\r\n");
        if (!end)
            return;
        const char *length = strcasestr(c->in, "\r\ncontent-length:");
        size_t body = length && length < end ? strtoul(length + 17, NULL, 10) : 0,
               head = (size_t)(end + 4 - c->in);
        if (head + body < IN_BYTES && c->n < head + body)
            return;
        answer(ep, c, end + 4, now);
        c->skip = head + body;
    }
}

static void readable(int ep, struct conn *c, uint32_t now)
{
    ssize_t r = recv(c->fd, c->in + c->n, IN_BYTES - 1 - c->n, 0);
    if (r <= 0) {
        if (r == 0 || errno != EAGAIN)
            drop(c);
        return;
    }
    c->n += (size_t)r;
    parse(ep, c, now);
}

static void tick(uint32_t now, int highest)
{
    for (int fd = 0; fd <= highest; fd++) {
        struct conn *c = conns[fd];
        if (!c || !c->streaming || c->due > now)
            continue;
        c->due += c->interval;
        if (c->left == 1) {
            c->streaming = false;
            (void)send(fd, last, last_n, MSG_NOSIGNAL | MSG_DONTWAIT);
            continue;
        }
        c->left -= c->left > 0;
        if (send(fd, event, event_n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN)
            drop(c);
    }
}

int main(void)
{
    make_texts();
    int l = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1, ep = epoll_create1(0), highest = 0;
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    setsockopt(l, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(l, (struct sockaddr *)&sa, sizeof sa) || listen(l, 4096) ||
        getsockname(l, (struct sockaddr *)&sa, &len))
        return 1;
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec every = {{0, TICK_MS * 1000000}, {0, TICK_MS * 1000000}};
    timerfd_settime(timer, 0, &every, NULL);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &l}, evs[256];
    epoll_ctl(ep, EPOLL_CTL_ADD, l, &ev);
    ev.data.ptr = &timer;
    epoll_ctl(ep, EPOLL_CTL_ADD, timer, &ev);
    printf("%u\n", ntohs(sa.sin_port));
    fflush(stdout);
    uint32_t now = 0;
    for (;;) {
        int n = epoll_wait(ep, evs, 256, -1);
        bool ticked = false;
        for (int i = 0; i < n; i++) {
            if (evs[i].data.ptr == &timer) {
                uint64_t times = 0;
                ticked = read(timer, &times, sizeof times) == sizeof times;
                now += (uint32_t)times;
            } else if (evs[i].data.ptr == &l) {
                int fd;
                while ((fd = accept4(l, NULL, NULL, SOCK_NONBLOCK)) >= 0 && fd < MAX_CONNS) {
                    conns[fd] = calloc(1, sizeof *conns[fd]);
                    if (!conns[fd])
                        return 1;
                    conns[fd]->fd = fd;
                    highest = fd > highest ? fd : highest;
                    ev = (struct epoll_event){.events = EPOLLIN, .data.ptr = conns[fd]};
                    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
                }
            } else if (evs[i].events & EPOLLOUT) {
                send_more(ep, evs[i].data.ptr);
            } else {
                readable(ep, evs[i].data.ptr, now);
            }
        }
        if (ticked)
            tick(now, highest);
    }
}
