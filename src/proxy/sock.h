/* A non-blocking socket watched on the loop, with or without TLS. Layer proxy; loop thread only.
 *
 * uv_poll_t rather than uv_tcp_t: the proxy decides which system calls are made (one recv and one send per
 * event), a hang-up is seen even while nothing is read (UV_DISCONNECT), and no buffer or request object
 * belongs to an event. The watcher stays registered as it is unless the mask really changes, so the common
 * path has no epoll_ctl. */
#ifndef PROXY_SOCK_H
#define PROXY_SOCK_H

#include "base/err.h"
#include "proxy/tls.h"

#include <stdbool.h>
#include <sys/socket.h>
#include <uv.h>

struct sock {
    uv_poll_t poll;  /* poll.data belongs to the owner */
    int fd;          /* -1 once closed */
    int mask;        /* UV_READABLE | … now watched */
    int wanted;      /* what the owner asked for */
    struct tls *tls; /* owned; NULL = none */
};

/* Takes fd over (also on failure, when it is closed). Nothing is watched yet. 0 or a negative errno. */
int sock_open(struct sock *s, uv_loop_t *loop, int fd);
void sock_want(struct sock *s, int mask, uv_poll_cb cb);
/* The events that the owner asked for, out of those that libuv told. */
static inline int sock_events(const struct sock *s, int events)
{
    return __builtin_expect(s->tls != NULL, 0) ? tls_events(s->tls, s->wanted, events) : events;
}
/* After an event was dealt with: reads and writes may have changed what TLS waits for. */
static inline void sock_settle(struct sock *s, uv_poll_cb cb)
{
    if (__builtin_expect(s->tls != NULL, 0))
        sock_want(s, s->wanted, cb);
}
/* As recv and send; interrupted calls are repeated. */
static inline ssize_t sock_recv(struct sock *s, void *p, size_t n)
{
    return __builtin_expect(s->tls != NULL, 0) ? tls_recv(s->tls, p, n) : recv(s->fd, p, n, 0);
}
ssize_t sock_send(struct sock *s, const struct iovec *iov, int n);
/* Nothing to read and not closed: what an idle connection must look like. */
bool sock_is_quiet(struct sock *s);
/* A stream begins to be read: what comes in small pieces is acknowledged every other time, not with each
 * read, for an acknowledgement costs a packet. The kernel goes back by itself where the pieces come slowly.
 */
void sock_ack_seldom(struct sock *s);
/* No more will be sent; the peer is told. */
void sock_end(struct sock *s);
/* Goes on without TLS, which has failed: what comes is to be dropped. */
void sock_drop_tls(struct sock *s);
/* libuv stops the watcher by itself before it reports an error. */
void sock_stopped(struct sock *s);
/* Closes the descriptor now and the handle in the next turn: closed frees the memory. abort sends RST. */
void sock_close(struct sock *s, bool abort, uv_close_cb closed);

/* Parses "127.0.0.1:80", "[::1]:80", ":80" (loopback), "*:80" (every address), with http:// or https:// in
 * front or without. */
enum rc sock_parse_address(const char *text, struct sockaddr_storage *ret_sa, socklen_t *ret_len,
                           struct err *err);
/* Numeric host and port to an address; false if host is not numeric. */
bool sock_numeric(const char *host, uint16_t port, struct sockaddr_storage *ret_sa, socklen_t *ret_len);
/* "127.0.0.1:80" into out. */
void sock_format(const struct sockaddr_storage *sa, char *out, size_t cap);

#endif
