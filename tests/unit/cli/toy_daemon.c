/* A daemon for tests of commands: see toy_daemon.h. */
#include "toy_daemon.h"

#include "cli/cli.h"

#include <arpa/inet.h>
#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static bool whole(const struct buf *b)
{
    const char *end = b->data ? strstr(b->data, "\r\n\r\n") : NULL;
    const char *length = b->data ? strstr(b->data, "Content-Length: ") : NULL;
    if (!end)
        return false;
    return b->n >= (size_t)(end + 4 - b->data) + (length && length < end ? (size_t)atol(length + 16) : 0);
}

static void send_text(int fd, const char *text)
{
    size_t n = strlen(text);
    while (n) {
        ssize_t sent = send(fd, text, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        text += sent;
        n -= (size_t)sent;
    }
}

static void hang(struct toy_daemon *d, int fd)
{
    char byte;
    send_text(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
                  "data: {\"choices\":[{\"delta\":{\"content\":\"begun\"}}]}\n\n");
    ssize_t n = write(d->hang_fd, &(uint64_t){1}, 8);
    assert(n == 8);
    while (recv(fd, &byte, 1, 0) > 0)
        ;
    buf_puts(&d->requests, "GONE\n");
}

static void answer(struct toy_daemon *d, int fd)
{
    struct buf request = {0};
    char bytes[4096];
    ssize_t n;
    while (!whole(&request) && (n = recv(fd, bytes, sizeof bytes, 0)) > 0)
        buf_append(&request, bytes, (size_t)n);
    const struct toy_answer *a = d->answers;
    while (a->request && !str_starts(buf_str(&request), a->request))
        a++;
    struct buf reply = {0};
    if (!a->request) {
        send_text(fd, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    } else if (strcmp(a->body, "@HANG") == 0) {
        hang(d, fd);
    } else {
        buf_printf(&reply, "HTTP/1.1 %d Toy\r\nContent-Length: %zu\r\n\r\n", a->status, strlen(a->body));
        buf_puts(&reply, a->body);
        send_text(fd, reply.data);
    }
    buf_put_str(&d->requests, buf_str(&request));
    buf_puts(&d->requests, "\n");
    buf_release(&reply);
    buf_release(&request);
}

static void *serve(void *arg)
{
    struct toy_daemon *d = arg;
    for (;;) {
        struct pollfd fds[] = {{.fd = d->stop_fd, .events = POLLIN},
                               {.fd = d->unix_fd, .events = POLLIN},
                               {.fd = d->tcp_fd, .events = POLLIN}};
        if (poll(fds, 3, -1) < 0)
            continue;
        if (fds[0].revents)
            return NULL;
        int fd = accept(fds[1].revents ? d->unix_fd : d->tcp_fd, NULL, NULL);
        if (fd < 0)
            continue;
        answer(d, fd);
        close(fd);
    }
}

void toy_daemon_start(struct toy_daemon *d, const struct toy_answer *answers)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof in;
    *d = (struct toy_daemon){.answers = answers};
    snprintf(d->dir, sizeof d->dir, "/tmp/arriero-test-XXXXXX");
    char *made = mkdtemp(d->dir);
    assert(made);
    snprintf(d->path, sizeof d->path, "%s/sock", d->dir);
    memcpy(un.sun_path, d->path, sizeof d->path);
    d->unix_fd = socket(AF_UNIX, SOCK_STREAM, 0);
    d->tcp_fd = socket(AF_INET, SOCK_STREAM, 0);
    d->stop_fd = eventfd(0, EFD_CLOEXEC);
    d->hang_fd = eventfd(0, EFD_CLOEXEC);
    int bad = bind(d->unix_fd, (struct sockaddr *)&un, sizeof un);
    bad |= bind(d->tcp_fd, (struct sockaddr *)&in, sizeof in);
    bad |= getsockname(d->tcp_fd, (struct sockaddr *)&in, &len);
    bad |= listen(d->unix_fd, 8) | listen(d->tcp_fd, 8);
    bad |= pthread_create(&d->thread, NULL, serve, d);
    assert(bad == 0);
    d->port = ntohs(in.sin_port);
}

void toy_daemon_stop(struct toy_daemon *d)
{
    ssize_t n = write(d->stop_fd, &(uint64_t){1}, 8);
    assert(n == 8);
    pthread_join(d->thread, NULL);
    close(d->unix_fd);
    close(d->tcp_fd);
    close(d->stop_fd);
    close(d->hang_fd);
    unlink(d->path);
    rmdir(d->dir);
}

/* What a redirected descriptor got, from its start. */
static void slurp(int fd, struct buf *out)
{
    char bytes[4096];
    ssize_t n;
    buf_clear(out);
    lseek(fd, 0, SEEK_SET);
    while ((n = read(fd, bytes, sizeof bytes)) > 0)
        buf_append(out, bytes, (size_t)n);
    buf_puts(out, ""); /* never NULL */
    close(fd);
}

static int temporary(void)
{
    char name[] = "/tmp/arriero-out-XXXXXX";
    int fd = mkstemp(name);
    assert(fd >= 0);
    unlink(name);
    return fd;
}

int toy_run(struct buf *out, struct buf *err, const char *const *words)
{
    char *argv[32];
    int argc = 0, files[2] = {temporary(), temporary()};
    fflush(stdout);
    fflush(stderr);
    int saved[2] = {dup(1), dup(2)};
    for (; words[argc] && argc < 31; argc++)
        argv[argc] = strdup(words[argc]);
    argv[argc] = NULL;
    dup2(files[0], 1);
    dup2(files[1], 2);
    int status = cli_main(argc, argv);
    fflush(stdout);
    fflush(stderr);
    dup2(saved[0], 1);
    dup2(saved[1], 2);
    close(saved[0]);
    close(saved[1]);
    slurp(files[0], out);
    slurp(files[1], err);
    for (int i = 0; i < argc; i++)
        free(argv[i]);
    return status;
}
