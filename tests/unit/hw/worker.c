/* A toy worker of llama.cpp's RPC backend; see worker.h. */
#include "worker.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* All n bytes; false when the client leaves or the worker is to stop. */
static bool take(struct worker *w, int fd, void *out, size_t n)
{
    for (size_t got = 0; got < n;) {
        struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = w->stop[0], .events = POLLIN}};
        if (poll(p, 2, -1) < 0 || p[1].revents)
            return false;
        ssize_t r = recv(fd, (char *)out + got, n - got, 0);
        if (r <= 0)
            return false;
        got += (size_t)r;
    }
    return true;
}

static bool give(struct worker *w, int fd, const void *bytes, uint64_t n)
{
    char gone;
    if (recv(fd, &gone, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
        w->abandoned++; /* here the real one is killed by SIGPIPE */
    return send(fd, &n, sizeof n, MSG_NOSIGNAL) == sizeof n && send(fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n;
}

static bool answer(struct worker *w, int fd, unsigned char command)
{
    const unsigned char hello[28] = {8};
    const uint64_t memory[3] = {w->free_bytes, w->total_bytes, 0};
    switch (command) {
    case 14: w->greeted++; return give(w, fd, hello, w->plain_hello ? 3 : sizeof hello);
    case 15: return give(w, fd, &w->devices, 4);
    case 11: return give(w, fd, memory, w->lies ? sizeof memory : 16);
    default: return false;
    }
}

static void serve(struct worker *w, int fd)
{
    unsigned char command, body[64];
    uint64_t n;
    bool first = true;
    while (take(w, fd, &command, 1)) {
        if (first && command != 14)
            return;
        if (!take(w, fd, &n, sizeof n) || n > sizeof body || !take(w, fd, body, n))
            return;
        if (first && n != (w->plain_hello ? 0 : 24))
            return;
        if (!answer(w, fd, command))
            return;
        first = false;
    }
}

static void *run(void *arg)
{
    struct worker *w = arg;
    for (;;) {
        struct pollfd p[2] = {{.fd = w->listener, .events = POLLIN}, {.fd = w->stop[0], .events = POLLIN}};
        if (poll(p, 2, -1) < 0 || p[1].revents)
            return NULL;
        int fd = accept(w->listener, NULL, NULL);
        if (fd < 0)
            return NULL;
        serve(w, fd);
        close(fd);
    }
}

void worker_start(struct worker *w)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    w->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (w->listener < 0 || pipe(w->stop) != 0 || bind(w->listener, (struct sockaddr *)&a, n) != 0 ||
        listen(w->listener, 1) != 0 || getsockname(w->listener, (struct sockaddr *)&a, &n) != 0 ||
        pthread_create(&w->thread, NULL, run, w) != 0)
        abort();
    snprintf(w->endpoint, sizeof w->endpoint, "127.0.0.1:%u", ntohs(a.sin_port));
}

void worker_stop(struct worker *w)
{
    if (write(w->stop[1], "", 1) != 1)
        abort();
    pthread_join(w->thread, NULL);
    close(w->listener);
    close(w->stop[0]);
    close(w->stop[1]);
}

int worker_connect(const struct worker *w)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    a.sin_port = htons((uint16_t)strtoul(strchr(w->endpoint, ':') + 1, NULL, 10));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) != 0)
        abort();
    return fd;
}
