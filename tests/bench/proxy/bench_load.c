/* Load for the proxy benchmark: one thread, epoll; measures a window after a warm-up, and the CPU time that
 * the proxy's process used in it (user and system, from /proc/PID/stat; in clock ticks, as the kernel counts
 * them).
 *
 * Usage: bench_load rps PORT CONNECTIONS SECONDS PID [REPLY_BYTES]   1 KB POSTs, each after its answer
 *        bench_load sse PORT STREAMS SECONDS PID INTERVAL_MS         streams of events
 * PID 0 measures no process. Prints one JSON object. */
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
#include <time.h>
#include <unistd.h>

#define WARM_UP_US 300000
#define MAX_TIMES  4000000

struct conn {
    int fd;
    uint64_t sent_at;
    size_t head_n, left; /* of the answer that is being read */
    bool in_body;
    char head[2048];
};

static char request[2048];
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

struct usage {
    uint64_t user, sys; /* clock ticks: sampled, for their ratio */
    uint64_t run_ns;    /* on the processor, exact */
};

static struct usage usage_of(int pid)
{
    struct usage u = {0, 0, 0};
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = pid ? fopen(path, "r") : NULL;
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = '\0';
    const char *p = strrchr(text, ')');
    unsigned long long user = 0, sys = 0;
    if (p && sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &sys) == 2)
        u = (struct usage){user, sys, 0};
    snprintf(path, sizeof path, "/proc/%d/schedstat", pid);
    f = pid ? fopen(path, "r") : NULL;
    unsigned long long run = 0;
    if (f && fscanf(f, "%llu", &run) == 1)
        u.run_ns = run;
    if (f)
        fclose(f);
    return u;
}

static long rss_kib(int pid)
{
    char path[64], line[256];
    long kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *f = pid ? fopen(path, "r") : NULL;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmRSS: %ld", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib;
}

static void make_request(bool stream, unsigned interval, unsigned reply_bytes)
{
    char content[700], body[1100];
    memset(content, 'q', sizeof content);
    for (size_t i = 4; i < sizeof content; i += 5)
        content[i] = ' ';
    content[sizeof content - 1] = '\0';
    char more[64] = "";
    if (stream)
        snprintf(more, sizeof more, ",\"stream\":true,\"interval_ms\":%u", interval);
    else if (reply_bytes)
        snprintf(more, sizeof more, ",\"reply_bytes\":%u", reply_bytes);
    int n = snprintf(
        body, sizeof body,
        "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
        "{\"role\":\"user\",\"content\":\"%s\"}],\"temperature\":0.7,\"max_tokens\":256,\"top_p\":0.9%s}",
        content, more);
    request_n = (size_t)snprintf(
        request, sizeof request,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n"
        "Content-Type: application/json\r\nUser-Agent: bench/1.0\r\n"
        "Authorization: Bearer none\r\nAccept-Encoding: gzip, deflate\r\n"
        "Content-Length: %d\r\n\r\n%s",
        n, body);
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

static void ask(struct conn *c)
{
    c->sent_at = now_us();
    c->head_n = 0;
    c->in_body = false;
    if (send(c->fd, request, request_n, MSG_NOSIGNAL) != (ssize_t)request_n)
        errors++;
}

static void finished(struct conn *c)
{
    done++;
    if (n_times < MAX_TIMES)
        times[n_times++] = (uint32_t)(now_us() - c->sent_at);
    ask(c);
}

static void on_answer(struct conn *c)
{
    static char block[65536];
    if (c->in_body) {
        ssize_t r = recv(c->fd, block, sizeof block, 0);
        if (r <= 0) {
            errors++;
            return;
        }
        c->left -= (size_t)r;
    } else {
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
    if (!c->left)
        finished(c);
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
    uint64_t now = now_us(), late = now - c->sent_at;
    if (c->in_body && late > interval_us && late - interval_us > most_late_us)
        most_late_us = late - interval_us;
    for (const char *p = block; (p = memmem(p, (size_t)(block + r - p), "data: ", 6)); p += 6) {
        done++;
        c->in_body = true;
        c->sent_at = now;
    }
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    if (argc < 6)
        return 2;
    bool stream = !strcmp(argv[1], "sse");
    uint16_t port = (uint16_t)atoi(argv[2]);
    int n_conns = atoi(argv[3]), pid = atoi(argv[5]), ep = epoll_create1(0);
    uint64_t window_us = (uint64_t)(atof(argv[4]) * 1e6);
    unsigned extra = argc > 6 ? (unsigned)atoi(argv[6]) : 0;
    times = malloc(MAX_TIMES * sizeof *times);
    if (!times)
        return 1;
    make_request(stream, extra, stream ? 0 : extra);
    for (int i = 0; i < n_conns; i++)
        ask(connect_one(ep, port));
    uint64_t start = now_us() + WARM_UP_US + (stream ? (uint64_t)n_conns * 100 : 0), end = 0;
    struct usage before = {0, 0, 0};
    struct epoll_event evs[512];
    for (;;) {
        int n = epoll_wait(ep, evs, 512, 100);
        for (int i = 0; i < n; i++) {
            if (stream)
                on_events(evs[i].data.ptr, extra * 1000u);
            else
                on_answer(evs[i].data.ptr);
        }
        uint64_t now = now_us();
        if (!end && now >= start) {
            before = usage_of(pid);
            start = now;
            end = now + window_us;
            done = n_times = most_late_us = 0;
        } else if (end && now >= end) {
            end = now;
            break;
        }
    }
    struct usage after = usage_of(pid);
    double tick_us = 1e6 / (double)sysconf(_SC_CLK_TCK), user = (double)(after.user - before.user) * tick_us,
           sys = (double)(after.sys - before.sys) * tick_us;
    if (after.run_ns > before.run_ns && user + sys > 0) {
        double scale = (double)(after.run_ns - before.run_ns) / 1e3 / (user + sys);
        user *= scale;
        sys *= scale;
    }
    qsort(times, n_times, sizeof *times, by_value);
    printf("{\"seconds\":%.3f,\"count\":%llu,\"errors\":%llu,\"user_us\":%.0f,\"sys_us\":%.0f,\"p50_us\":%u,"
           "\"p99_us\":%u,"
           "\"rss_kib\":%ld,\"most_late_us\":%llu}\n",
           (double)(end - start) / 1e6, (unsigned long long)done, (unsigned long long)errors, user, sys,
           n_times ? times[n_times / 2] : 0, n_times ? times[n_times * 99 / 100] : 0, rss_kib(pid),
           (unsigned long long)most_late_us);
    return 0;
}
