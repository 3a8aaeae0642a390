/* Connections to backends: a pool of idle ones per address, port, and who must be there. Layer proxy; loop
 * thread only.
 *
 * An idle connection stays registered for reading, so that a backend's close or an unasked-for byte takes it
 * out of the pool; the check with MSG_PEEK before reuse closes the window of the current turn. The latest
 * parked is taken first: the others age out after upstream_idle_ms, which is shorter than the keep-alive of
 * every server that we know. */
#include "proxy/proxy_priv.h"

#include "base/mem.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void on_up(uv_poll_t *poll, int status, int events);

/* One that was made under other certificates, or for another name, is another one. */
static bool is_endpoint(const struct endpoint *e, const struct up_target *to)
{
    return e->port == to->port && !strcmp(e->host, to->host) && e->tls == to->tls &&
           (!e->tls || !strcmp(e->name, to->name));
}

static struct endpoint *endpoint_of(struct http_server *s, const struct up_target *to)
{
    for (struct endpoint *e = s->endpoints; e; e = e->next)
        if (is_endpoint(e, to))
            return e;
    struct endpoint *e = mem_new(struct endpoint);
    (void)snprintf(e->host, sizeof e->host, "%s", to->host);
    e->port = to->port;
    e->tls = tls_context_hold(to->tls);
    if (e->tls)
        e->name = mem_strdup(to->name);
    e->next = s->endpoints;
    s->endpoints = e;
    return e;
}

static void endpoint_free(struct endpoint *e)
{
    tls_context_free(e->tls);
    free(e->name);
    free(e);
}

static void endpoint_drop_if_unused(struct http_server *s, struct endpoint *e)
{
    if (e->n_idle || e->n_busy)
        return;
    for (struct endpoint **at = &s->endpoints; *at; at = &(*at)->next) {
        if (*at != e)
            continue;
        *at = e->next;
        endpoint_free(e);
        return;
    }
}

void upstream_free_endpoints(struct http_server *s)
{
    while (s->endpoints) {
        struct endpoint *e = s->endpoints;
        s->endpoints = e->next;
        endpoint_free(e);
    }
}

void up_watch(struct up *u, bool read, bool write)
{
    sock_want(&u->sock, (read ? UV_READABLE : 0) | (write ? UV_WRITABLE : 0), on_up);
}

static void unpool(struct up *u)
{
    if (u->state != UP_IDLE)
        return;
    if (u->idle_prev)
        u->idle_prev->idle_next = u->idle_next;
    else
        u->end->idle = u->idle_next;
    if (u->idle_next)
        u->idle_next->idle_prev = u->idle_prev;
    u->idle_next = u->idle_prev = NULL;
    u->end->n_idle--;
    u->end->n_busy++;
    u->state = UP_BUSY;
    wheel_clear(&u->timer);
}

static void on_closed(uv_handle_t *h)
{
    struct up *u = h->data;
    struct http_server *s = u->s;
    free(u);
    server_handle_closed(s);
}

void up_close(struct up *u)
{
    if (u->sock.fd < 0)
        return;
    struct http_server *s = u->s;
    unpool(u);
    batch_forget_up(u);
    u->end->n_busy--;
    endpoint_drop_if_unused(s, u->end);
    u->end = NULL;
    u->c = NULL;
    wheel_remove(&s->wheel, &u->timer);
    u->prev->next = u->next;
    u->next->prev = u->prev;
    msg_put(s, u->in);
    u->in = NULL;
    free(u->pending);
    u->pending = NULL;
    sock_close(&u->sock, false, on_closed);
}

static void on_timer(struct wheel_entry *e)
{
    struct up *u = container_of(e, struct up, timer);
    if (u->state == UP_IDLE)
        up_close(u);
    else
        limit_ran_out(u);
}

void upstream_park(struct up *u)
{
    struct http_server *s = u->s;
    if (s->draining || u->end->n_idle >= UPSTREAM_IDLE) {
        up_close(u);
        return;
    }
    u->c = NULL;
    u->state = UP_IDLE;
    u->idle_prev = NULL;
    u->idle_next = u->end->idle;
    if (u->idle_next)
        u->idle_next->idle_prev = u;
    u->end->idle = u;
    u->end->n_idle++;
    u->end->n_busy--;
    up_watch(u, true, false);
    wheel_set(&s->wheel, &u->timer, s->opt.upstream_idle_ms);
}

static struct up *take_idle(struct endpoint *e)
{
    struct up *u = e->idle;
    unpool(u);
    if (!sock_is_quiet(&u->sock)) {
        up_close(u);
        return NULL;
    }
    u->reused = true;
    response_start(u);
    return u;
}

static struct up *connect_new(struct http_server *s, const struct up_target *to)
{
    struct sockaddr_storage sa;
    socklen_t len = 0;
    if (!sock_numeric(to->host, to->port, &sa, &len)) {
        errno = EADDRNOTAVAIL;
        return NULL;
    }
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return NULL;
    const int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    bool now = connect(fd, (const struct sockaddr *)&sa, len) == 0;
    if (!now && errno != EINPROGRESS) {
        int why = errno;
        (void)close(fd);
        errno = why;
        return NULL;
    }
    struct up *u = mem_new(struct up);
    int r = sock_open(&u->sock, s->loop, fd);
    if (r < 0) {
        free(u);
        errno = -r;
        return NULL;
    }
    u->sock.poll.data = u;
    u->s = s;
    u->state = !now ? UP_CONNECTING : to->tls ? UP_HANDSHAKE : UP_BUSY;
    u->timer.fn = on_timer;
    u->end = endpoint_of(s, to);
    u->end->n_busy++;
    u->prev = s->ups.prev;
    u->next = &s->ups;
    u->prev->next = u;
    s->ups.prev = u;
    s->handles++;
    response_start(u);
    up_watch(u, now, u->state != UP_BUSY);
    return u;
}

struct up *upstream_get(struct http_server *s, const struct up_target *to, bool fresh)
{
    for (struct endpoint *e = s->endpoints; e && !fresh;) {
        if (!is_endpoint(e, to)) {
            e = e->next;
            continue;
        }
        if (!e->idle)
            break;
        struct up *u = take_idle(e);
        if (u)
            return u;
        e = s->endpoints; /* closing may have dropped it */
    }
    return connect_new(s, to);
}

static int socket_error(const struct up *u)
{
    int e = 0;
    socklen_t len = sizeof e;
    return getsockopt(u->sock.fd, SOL_SOCKET, SO_ERROR, &e, &len) == 0 ? e : errno;
}

/* A reset comes behind bytes that were received in order: they are still passed on. */
static void read_out(struct up *u)
{
    while (u->sock.fd >= 0 && u->c && !conn_pending(u->c))
        response_readable(u);
    if (u->sock.fd < 0)
        return;
    if (u->c)
        relay_upstream_died(u, ECONNRESET);
    else
        up_close(u);
}

/* Nothing of a request is sent before the other side has shown who it is. */
static void shake_hands(struct up *u)
{
    if (!u->sock.tls)
        u->sock.tls = tls_connect(u->end->tls, u->sock.fd, u->end->name);
    int e = u->sock.tls ? tls_handshake(u->sock.tls) : ENOMEM;
    if (e && e != EAGAIN) {
        relay_upstream_died(u, e);
        return;
    }
    up_watch(u, true, false);
    if (e)
        return;
    u->state = UP_BUSY;
    relay_connected(u);
}

static void up_event(struct up *u, int status, int events)
{
    if (u->state <= UP_HANDSHAKE) {
        int e = socket_error(u);
        if (e || status < 0) {
            relay_upstream_died(u, e ? e : ECONNREFUSED);
            return;
        }
        if (u->end->tls) {
            u->state = UP_HANDSHAKE;
            shake_hands(u);
            return;
        }
        u->state = UP_BUSY;
        up_watch(u, true, false);
        relay_connected(u);
        return;
    }
    if (status < 0) {
        read_out(u);
        return;
    }
    if (events & UV_WRITABLE)
        relay_continue_send(u);
    if (u->sock.fd >= 0 && events & UV_READABLE)
        response_readable(u);
}

static void on_up(uv_poll_t *poll, int status, int events)
{
    struct up *u = poll->data;
    batch_begin(u->s);
    if (status < 0)
        sock_stopped(&u->sock);
    up_event(u, status, sock_events(&u->sock, events));
    sock_settle(&u->sock, on_up);
}
