/* Load for the proxy benchmark: one thread, epoll; measures a window after a warm-up, and the CPU time that
 * the proxy's process used in it (all threads, from /proc/PID/task; their split into user and system comes
 * from clock ticks).
 *
 * Usage: bench_load rps PORT CONNECTIONS SECONDS PID [SETTING]…   POSTs, each after the last one's answer
 *        bench_load sse PORT STREAMS SECONDS PID [SETTING]…       streams of events
 * Settings: body=BYTES (of a request; at least and by default about 1 KB), reply=BYTES (that are asked for),
 * interval=MS (of events), pause=MS (before the next request), model=NAME. PID 0 measures no process. Prints
 * one JSON object; p50 and p99 are of a request's time, or of how late an event is, which is its distance to
 * the one before less the interval. */
#include <arpa/inet.h>
#include <dirent.h>
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
#include <time.h>
#include <unistd.h>

#define WARM_UP_US   300000
#define STREAM_UP_US 400 /* and so much for each stream */
#define MAX_TIMES    4000000

struct settings {
    const char *model;
    size_t body, reply;
    unsigned interval, pause;
};

struct conn {
    int fd;
    uint64_t sent_at;    /* a stream's last event */
    uint64_t ask_at;     /* in a pause: when it ends */
    size_t unsent;       /* bytes of the request */
    size_t head_n, left; /* of the answer that is being read */
    bool in_body;
    char head[2048];
};

static struct conn **conns;
static int n_conns;
static char *request;
static size_t request_n;
static uint32_t *times;
static size_t n_times;
static uint64_t done, errors, most_late_us;

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

/* ---- the process that is measured ---- */

struct usage {
    uint64_t user, sys; /* clock ticks: sampled, for their ratio */
    uint64_t run_ns;    /* on the processor, exact */
};

static size_t read_text(const char *path, char *text, size_t cap)
{
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, cap - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = '\0';
    return n;
}

static uint64_t run_ns(int pid)
{
    char path[64], text[128];
    uint64_t sum = 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        int tid = atoi(e->d_name);
        snprintf(path, sizeof path, "/proc/%d/task/%d/schedstat", pid, tid);
        if (tid && read_text(path, text, sizeof text))
            sum += strtoull(text, NULL, 10);
    }
    if (d)
        closedir(d);
    return sum;
}

static struct usage usage_of(int pid)
{
    struct usage u = {0, 0, 0};
    char path[64], text[1024];
    if (!pid)
        return u;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    (void)read_text(path, text, sizeof text);
    const char *p = strrchr(text, ')');
    unsigned long long user = 0, sys = 0;
    if (p && sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &sys) == 2)
        u = (struct usage){user, sys, run_ns(pid)};
    return u;
}

static long rss_kib(int pid)
{
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    const char *p = pid && read_text(path, text, sizeof text) ? strstr(text, "VmRSS:") : NULL;
    return p ? strtol(p + 6, NULL, 10) : 0;
}

/* ---- requests ---- */

/* What is asked for stands before the text, which is as long as the body is to be. */
static void make_request(bool stream, const struct settings *set)
{
    char wishes[512], head[512];
    int n = snprintf(wishes, sizeof wishes,
                     "{\"model\":\"%s\",\"temperature\":0.7,\"max_tokens\":256,\"top_p\":0.9", set->model);
    if (stream)
        n += snprintf(wishes + n, sizeof wishes - (size_t)n, ",\"stream\":true,\"interval_ms\":%u",
                      set->interval);
    else if (set->reply)
        n += snprintf(wishes + n, sizeof wishes - (size_t)n, ",\"reply_bytes\":%zu", set->reply);
    n += snprintf(wishes + n, sizeof wishes - (size_t)n,
                  ",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
                  "{\"role\":\"user\",\"content\":\"");
    static const char end[] = "\"}]}";
    size_t text_n = set->body > 924 ? set->body - 224 : 700, body_n = (size_t)n + text_n + sizeof end - 1;
    int head_n =
        snprintf(head, sizeof head,
                 "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n"
                 "Content-Type: application/json\r\nUser-Agent: bench/1.0\r\n"
                 "Authorization: Bearer none\r\nAccept-Encoding: gzip, deflate\r\n"
                 "Content-Length: %zu\r\n\r\n",
                 body_n);
    request_n = (size_t)head_n + body_n;
    request = malloc(request_n);
    if (!request)
        exit(1);
    memcpy(request, head, (size_t)head_n);
    memcpy(request + head_n, wishes, (size_t)n);
    char *text = request + head_n + n;
    for (size_t i = 0; i < text_n; i++)
        text[i] = i % 5 == 4 ? ' ' : 'q';
    memcpy(text + text_n, end, sizeof end - 1);
}

static struct conn *connect_one(int ep, uint16_t port)
{
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    struct conn *c = calloc(1, sizeof *c);
    if (!c)
        exit(1);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (struct sockaddr *)&sa, sizeof sa) != 0) {
        perror("connect");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev);
    return c;
}

/* Sends what the socket takes; the rest when it can be written again. */
static void send_more(int ep, struct conn *c, bool was_waiting)
{
    ssize_t r = send(c->fd, request + request_n - c->unsent, c->unsent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (r < 0 && errno != EAGAIN) {
        perror("send");
        exit(1);
    }
    c->unsent -= r > 0 ? (size_t)r : 0;
    if (was_waiting == (c->unsent > 0))
        return;
    struct epoll_event ev = {.events = EPOLLIN | (c->unsent ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
}

static void ask(int ep, struct conn *c)
{
    c->sent_at = now_us();
    c->head_n = 0;
    c->in_body = false;
    c->unsent = request_n;
    send_more(ep, c, false);
}

/* ---- answers ---- */

static void note(uint64_t us)
{
    if (n_times < MAX_TIMES)
        times[n_times++] = (uint32_t)us;
}

static void read_head(struct conn *c)
{
    ssize_t r = recv(c->fd, c->head + c->head_n, sizeof c->head - 1 - c->head_n, 0);
    if (r <= 0) {
        fprintf(stderr, "the connection ended\n");
        exit(1);
    }
    c->head_n += (size_t)r;
    c->head[c->head_n] = '\0';
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end)
        return;
    const char *length = strcasestr(c->head, "content-length:");
    if (strncmp(c->head, "HTTP/1.1 200", 12) != 0 || !length) {
        fprintf(stderr, "not an answer: %.200s\n", c->head);
        exit(1);
    }
    c->in_body = true;
    c->left = strtoul(length + 15, NULL, 10) - (c->head_n - (size_t)(end + 4 - c->head));
}

/* The requests whose pause is over. */
static void ask_on(int ep)
{
    uint64_t now = now_us();
    for (int i = 0; i < n_conns; i++) {
        if (!conns[i]->ask_at || conns[i]->ask_at > now)
            continue;
        conns[i]->ask_at = 0;
        ask(ep, conns[i]);
    }
}

static void on_answer(int ep, struct conn *c, unsigned pause)
{
    static char block[262144];
    if (!c->in_body) {
        read_head(c);
    } else {
        ssize_t r = recv(c->fd, block, c->left < sizeof block ? c->left : sizeof block, 0);
        errors += r <= 0;
        c->left -= r > 0 ? (size_t)r : c->left;
    }
    if (!c->in_body || c->left)
        return;
    done++;
    note(now_us() - c->sent_at);
    if (pause)
        c->ask_at = now_us() + pause * 1000u;
    else
        ask(ep, c);
}

/* Events are counted by their prefix; one that is cut by a read counts when its prefix is whole in one. */
static void on_events(struct conn *c, uint64_t interval_us)
{
    static char block[65536];
    ssize_t r = recv(c->fd, block, sizeof block - 1, 0);
    if (r <= 0) {
        fprintf(stderr, "a stream ended\n");
        exit(1);
    }
    uint64_t now = now_us(), apart = now - c->sent_at, late = apart > interval_us ? apart - interval_us : 0;
    if (c->in_body) {
        note(late);
        most_late_us = late > most_late_us ? late : most_late_us;
    }
    for (const char *p = block; (p = memmem(p, (size_t)(block + r - p), "data: ", 6)); p += 6) {
        done++;
        c->in_body = true;
        c->sent_at = now;
    }
}

/* ---- the window ---- */

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void print_result(double seconds, const struct usage *before, int pid)
{
    struct usage after = usage_of(pid);
    double tick_us = 1e6 / (double)sysconf(_SC_CLK_TCK), user = (double)(after.user - before->user) * tick_us,
           sys = (double)(after.sys - before->sys) * tick_us;
    if (after.run_ns > before->run_ns && user + sys > 0) {
        double scale = (double)(after.run_ns - before->run_ns) / 1e3 / (user + sys);
        user *= scale;
        sys *= scale;
    }
    qsort(times, n_times, sizeof *times, by_value);
    printf("{\"seconds\":%.3f,\"count\":%llu,\"errors\":%llu,\"user_us\":%.0f,\"sys_us\":%.0f,\"p50_us\":%u,"
           "\"p99_us\":%u,\"rss_kib\":%ld,\"most_late_us\":%llu}\n",
           seconds, (unsigned long long)done, (unsigned long long)errors, user, sys,
           n_times ? times[n_times / 2] : 0, n_times ? times[n_times * 99 / 100] : 0, rss_kib(pid),
           (unsigned long long)most_late_us);
}

static void run(int ep, bool stream, const struct settings *set, int pid, uint64_t warm_us,
                uint64_t window_us)
{
    uint64_t start = now_us() + warm_us, end = 0;
    struct usage before = {0, 0, 0};
    struct epoll_event evs[512];
    for (;;) {
        int n = epoll_wait(ep, evs, 512, set->pause ? 1 : 100);
        for (int i = 0; i < n; i++) {
            struct conn *c = evs[i].data.ptr;
            if (evs[i].events & EPOLLOUT)
                send_more(ep, c, true);
            if (evs[i].events & ~(uint32_t)EPOLLOUT && stream)
                on_events(c, set->interval * 1000u);
            else if (evs[i].events & ~(uint32_t)EPOLLOUT)
                on_answer(ep, c, set->pause);
        }
        if (set->pause)
            ask_on(ep);
        uint64_t now = now_us();
        if (!end && now >= start) {
            before = usage_of(pid);
            start = now;
            end = now + window_us;
            done = n_times = most_late_us = 0;
        } else if (end && now >= end) {
            print_result((double)(now - start) / 1e6, &before, pid);
            return;
        }
    }
}

static bool take_setting(struct settings *set, char *text)
{
    char *value = strchr(text, '=');
    if (!value)
        return false;
    *value++ = '\0';
    if (!strcmp(text, "body"))
        set->body = strtoul(value, NULL, 10);
    else if (!strcmp(text, "reply"))
        set->reply = strtoul(value, NULL, 10);
    else if (!strcmp(text, "interval"))
        set->interval = (unsigned)atoi(value);
    else if (!strcmp(text, "pause"))
        set->pause = (unsigned)atoi(value);
    else if (!strcmp(text, "model"))
        set->model = value;
    else
        return false;
    return true;
}

int main(int argc, char **argv)
{
    struct settings set = {.model = "m", .interval = 20};
    if (argc < 6)
        return 2;
    for (int i = 6; i < argc; i++)
        if (!take_setting(&set, argv[i]))
            return 2;
    bool stream = !strcmp(argv[1], "sse");
    int ep = epoll_create1(0);
    n_conns = atoi(argv[3]);
    times = malloc(MAX_TIMES * sizeof *times);
    conns = calloc((size_t)n_conns, sizeof *conns);
    if (!times || !conns || ep < 0)
        return 1;
    make_request(stream, &set);
    for (int i = 0; i < n_conns; i++)
        ask(ep, conns[i] = connect_one(ep, (uint16_t)atoi(argv[2])));
    uint64_t warm_us = WARM_UP_US + (stream ? (uint64_t)n_conns * STREAM_UP_US : 0);
    run(ep, stream, &set, atoi(argv[5]), warm_us, (uint64_t)(atof(argv[4]) * 1e6));
    return 0;
}
