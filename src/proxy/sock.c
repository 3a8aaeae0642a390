/* Sockets on the loop: see sock.h. Layer proxy; loop thread only. */
#include "proxy/sock.h"

#include "base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int sock_open(struct sock *s, uv_loop_t *loop, int fd)
{
    int r = uv_poll_init(loop, &s->poll, fd);
    if (r < 0) {
        (void)close(fd);
        s->fd = -1;
        return r;
    }
    s->fd = fd;
    s->mask = s->wanted = 0;
    s->tls = NULL;
    return 0;
}

void sock_want(struct sock *s, int mask, uv_poll_cb cb)
{
    s->wanted = mask;
    if (s->tls)
        mask = tls_mask(s->tls, mask);
    if (mask == s->mask || s->fd < 0)
        return;
    s->mask = mask;
    if (mask)
        (void)uv_poll_start(&s->poll, mask, cb);
    else
        (void)uv_poll_stop(&s->poll);
}

void sock_stopped(struct sock *s)
{
    s->mask = 0;
}

ssize_t sock_send(struct sock *s, const struct iovec *iov, int n)
{
    struct msghdr mh = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)n};
    ssize_t r;
    if (s->tls)
        return tls_send(s->tls, iov, n);
    do {
        r = n == 1 ? send(s->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL)
                   : sendmsg(s->fd, &mh, MSG_NOSIGNAL);
    } while (r < 0 && errno == EINTR);
    return r;
}

bool sock_is_quiet(struct sock *s)
{
    char byte;
    if (s->tls)
        return tls_is_quiet(s->tls);
    return recv(s->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

void sock_ack_seldom(struct sock *s)
{
    const int off = 0;
    (void)setsockopt(s->fd, IPPROTO_TCP, TCP_QUICKACK, &off, sizeof off);
}

void sock_end(struct sock *s)
{
    if (s->tls)
        tls_goodbye(s->tls);
    (void)shutdown(s->fd, SHUT_WR);
}

void sock_drop_tls(struct sock *s)
{
    tls_goodbye(s->tls);
    tls_free(s->tls);
    s->tls = NULL;
}

void sock_close(struct sock *s, bool abort, uv_close_cb closed)
{
    if (s->fd < 0)
        return;
    if (abort) {
        const struct linger now = {.l_onoff = 1, .l_linger = 0};
        (void)setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    } else if (s->tls) {
        tls_goodbye(s->tls);
    }
    tls_free(s->tls);
    s->tls = NULL;
    uv_close((uv_handle_t *)&s->poll, closed);
    (void)close(s->fd);
    s->fd = -1;
    s->mask = 0;
}

bool sock_numeric(const char *host, uint16_t port, struct sockaddr_storage *ret_sa, socklen_t *ret_len)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
        memcpy(ret_sa, &v4, sizeof v4);
        *ret_len = sizeof v4;
        return true;
    }
    if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
        memcpy(ret_sa, &v6, sizeof v6);
        *ret_len = sizeof v6;
        return true;
    }
    return false;
}

enum rc sock_parse_address(const char *text, struct sockaddr_storage *ret_sa, socklen_t *ret_len,
                           struct err *err)
{
    char host[64] = "127.0.0.1";
    if (str_starts(str_from(text), "http://") || str_starts(str_from(text), "https://"))
        text = strstr(text, "//") + 2;
    const char *colon = strrchr(text, ':');
    uint64_t port = 0;
    if (!colon || !str_u64(str_from(colon + 1), &port) || port > 65535) {
        enum rc rc = err_set(err, RC_INVALID, "listen address \"%s\" has no valid port", text);
        err_hint(err, "write ADDRESS:PORT, for example 127.0.0.1:8080 or [::1]:8080");
        return rc;
    }
    size_t n = (size_t)(colon - text);
    if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
        text++;
        n -= 2;
    }
    if (n == 1 && *text == '*')
        (void)snprintf(host, sizeof host, "0.0.0.0");
    else if (n == 9 && !memcmp(text, "localhost", 9))
        n = 0;
    else if (n > 0 && n < sizeof host)
        (void)snprintf(host, sizeof host, "%.*s", (int)n, text);
    if (n >= sizeof host || !sock_numeric(host, (uint16_t)port, ret_sa, ret_len)) {
        enum rc rc =
            err_set(err, RC_INVALID, "listen address \"%.*s\" is not a numeric address", (int)n, text);
        err_hint(err, "write a numeric address such as 127.0.0.1, 0.0.0.0 or [::1]");
        return rc;
    }
    return RC_OK;
}

void sock_format(const struct sockaddr_storage *sa, char *out, size_t cap)
{
    char host[INET6_ADDRSTRLEN] = "";
    if (sa->ss_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, sa, sizeof v4);
        (void)inet_ntop(AF_INET, &v4.sin_addr, host, sizeof host);
        (void)snprintf(out, cap, "%s:%u", host, ntohs(v4.sin_port));
    } else {
        struct sockaddr_in6 v6;
        memcpy(&v6, sa, sizeof v6);
        (void)inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof host);
        (void)snprintf(out, cap, "[%s]:%u", host, ntohs(v6.sin6_port));
    }
}
