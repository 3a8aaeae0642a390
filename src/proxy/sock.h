/* A non-blocking socket watched on the loop. Layer proxy; loop thread only.
 *
 * uv_poll_t rather than uv_tcp_t: the proxy decides which system calls are made (one recv and one send per
 * event), a hang-up is seen even while nothing is read (UV_DISCONNECT), and no buffer or request object
 * belongs to an event. The watcher stays registered as it is unless the mask really changes, so the common
 * path has no epoll_ctl. */
#ifndef PROXY_SOCK_H
#define PROXY_SOCK_H

#include "base/err.h"

#include <stdbool.h>
#include <sys/socket.h>
#include <uv.h>

struct sock {
    uv_poll_t poll; /* poll.data belongs to the owner */
    int fd;         /* -1 once closed */
    int mask;       /* UV_READABLE | … now watched */
};

/* Takes fd over (also on failure, when it is closed). Nothing is watched yet. 0 or a negative errno. */
int sock_open(struct sock *s, uv_loop_t *loop, int fd);
void sock_want(struct sock *s, int mask, uv_poll_cb cb);
/* libuv stops the watcher by itself before it reports an error. */
void sock_stopped(struct sock *s);
/* Closes the descriptor now and the handle in the next turn: closed frees the memory. abort sends RST. */
void sock_close(struct sock *s, bool abort, uv_close_cb closed);

/* Parses "127.0.0.1:80", "[::1]:80", ":80" (loopback), "*:80" (every address). */
enum rc sock_parse_address(const char *text, struct sockaddr_storage *ret_sa, socklen_t *ret_len,
                           struct err *err);
/* Numeric host and port to an address; false if host is not numeric. */
bool sock_numeric(const char *host, uint16_t port, struct sockaddr_storage *ret_sa, socklen_t *ret_len);
/* "127.0.0.1:80" into out. */
void sock_format(const struct sockaddr_storage *sa, char *out, size_t cap);

#endif
