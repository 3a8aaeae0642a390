/* Server: options, listeners, shared buffers, drain. Layer proxy; loop thread only. Invariant: `handles`
 * counts every libuv handle that is open or closing (the wheel's timer included); when it reaches zero while
 * draining, the owner is told and may free the server. */
#include "proxy/proxy_priv.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ACCEPTS_PER_EVENT 64
#define BACKLOG           4096
#define ACCEPT_RETRY_MS   100u

void http_options_default(struct http_options *o)
{
    *o = (struct http_options){
        .max_body_bytes = 64 * MIB,
        .body_budget_bytes = 512 * MIB,
        .retry_max = 3,
        .retry_base_ms = 1000,
        .retry_longest_ms = 30000,
        .header_timeout_ms = 15000,
        .idle_timeout_ms = 75000,
        .connect_timeout_ms = 5000,
        .upstream_idle_ms = 4000,
        .write_timeout_ms = 60000,
        .max_connections = 16384,
        .embed_batch = 32,
        .embed_join_ms = 2,
        .collect_plain = true,
    };
}

/* ---- shared buffers ---- */

struct msg *msg_get(struct http_server *s)
{
    struct msg *m = s->free_msgs;
    if (m) {
        s->free_msgs = m->next;
        s->n_free_msgs--;
    } else {
        m = mem_realloc(NULL, 1, sizeof *m);
        m->data = m->own;
        m->cap = sizeof m->own;
    }
    m->n = m->parsed = m->head_n = m->body_n = 0;
    head_reset(&m->head);
    return m;
}

static void msg_shrink(struct http_server *s, struct msg *m)
{
    if (m->data == m->own)
        return;
    s->count.body_bytes_in_flight -= m->cap;
    free(m->data);
    m->data = m->own;
    m->cap = sizeof m->own;
}

void msg_put(struct http_server *s, struct msg *m)
{
    if (!m)
        return;
    msg_shrink(s, m);
    if (s->n_free_msgs >= MSG_POOL) {
        free(m);
        return;
    }
    m->next = s->free_msgs;
    s->free_msgs = m;
    s->n_free_msgs++;
}

bool msg_grow(struct http_server *s, struct msg *m, size_t total)
{
    if (total <= m->cap)
        return true;
    bool own = m->data == m->own;
    char *p = realloc(own ? NULL : m->data, total);
    if (!p)
        return false;
    if (own)
        memcpy(p, m->own, m->n);
    s->count.body_bytes_in_flight += total - (own ? 0 : m->cap);
    m->data = p;
    m->cap = total;
    return true;
}

/* The wall clock is read once a second; in between it runs with the monotonic one. */
int64_t server_wall_ms(struct http_server *s, uint64_t mono_us)
{
    if (!s->wall_checked_us || mono_us - s->wall_checked_us > 1000000) {
        s->wall_offset_us = clock_wall_ms() * 1000 - (int64_t)mono_us;
        s->wall_checked_us = mono_us;
    }
    return ((int64_t)mono_us + s->wall_offset_us) / 1000;
}

const char *server_date(struct http_server *s)
{
    int64_t now = clock_wall_ms() / 1000;
    if (now != s->date_s) {
        struct tm tm;
        time_t t = (time_t)now;
        (void)gmtime_r(&t, &tm);
        (void)strftime(s->date, sizeof s->date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
        s->date_s = now;
    }
    return s->date;
}

/* ---- life ---- */

static void free_strings(struct http_server *s)
{
    free(s->cors_origin);
    free(s->allowed_hosts);
}

static void keep_strings(struct http_server *s, const struct http_options *opt)
{
    s->cors_origin = mem_strdup(opt->cors_origin ? opt->cors_origin : "loopback");
    s->allowed_hosts = mem_strdup(opt->allowed_hosts ? opt->allowed_hosts : "");
}

static void on_check(uv_check_t *check)
{
    struct http_server *s = check->data;
    batch_flush(s);
    s->deferring = false;
}

enum rc http_server_new(const struct http_options *opt, struct http_server **ret_server, struct err *err)
{
    struct auth *auth = NULL;
    enum rc rc = auth_new(&auth, err);
    if (rc)
        return rc;
    auth_set(auth, opt->keys, opt->n_keys, opt->keys_required, clock_mono_us());
    struct http_server *s = mem_new(struct http_server);
    s->loop = opt->loop;
    s->opt = *opt;
    s->opt.keys = NULL;
    s->opt.tls = NULL;
    s->tls = tls_context_hold(opt->tls);
    keep_strings(s, opt);
    s->auth = auth;
    s->route_n = mem_calloc(opt->n_routes + 1, sizeof *s->route_n);
    for (size_t i = 0; i < opt->n_routes; i++)
        s->route_n[i] = strlen(opt->routes[i].path);
    s->conns.next = s->conns.prev = &s->conns;
    s->ups.next = s->ups.prev = &s->ups;
    if (getrandom(&s->id_seed, sizeof s->id_seed, GRND_NONBLOCK) != (ssize_t)sizeof s->id_seed)
        s->id_seed = clock_mono_us() ^ (uint64_t)getpid() << 40;
    uv_update_time(s->loop);
    wheel_init(&s->wheel, s->loop, s);
    (void)uv_check_init(s->loop, &s->check);
    s->check.data = s;
    (void)uv_check_start(&s->check, on_check);
    uv_unref((uv_handle_t *)&s->check); /* alone it keeps no loop running */
    s->handles = 2;
    /* A write to a connection that the peer closed must fail, not kill the process. */
    (void)signal(SIGPIPE, SIG_IGN);
    *ret_server = s;
    return RC_OK;
}

void http_server_configure(struct http_server *s, const struct http_options *opt)
{
    struct http_options now = *opt;
    auth_set(s->auth, opt->keys, opt->n_keys, opt->keys_required, clock_mono_us());
    free_strings(s);
    keep_strings(s, opt);
    now.keys = NULL;
    now.tls = NULL;
    if (opt->tls) { /* connections that there are keep theirs */
        tls_context_free(s->tls);
        s->tls = tls_context_hold(opt->tls);
    }
    now.loop = s->opt.loop;
    now.routes = s->opt.routes;
    now.n_routes = s->opt.n_routes;
    now.route = s->opt.route;
    now.record = s->opt.record;
    now.record_arg = s->opt.record_arg;
    s->opt = now;
}

void http_server_counters(const struct http_server *s, struct http_counters *ret)
{
    *ret = s->count;
}

const struct auth_key *http_server_key(const struct http_server *s, size_t i)
{
    return auth_key_at(s->auth, i);
}

/* ---- listeners ---- */

static void on_listener(uv_poll_t *poll, int status, int events)
{
    (void)events;
    struct listener *l = poll->data;
    if (status < 0) {
        sock_stopped(&l->sock);
        sock_want(&l->sock, UV_READABLE, on_listener);
        return;
    }
    for (int i = 0; i < ACCEPTS_PER_EVENT; i++) {
        struct http_server *s = l->s;
        int fd = s->count.connections < s->opt.max_connections
                     ? accept4(l->sock.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
                     : (errno = EMFILE, -1);
        if (fd >= 0) {
            conn_accept(l, fd);
            continue;
        }
        /* Out of descriptors or of places: those who wait stay in the backlog until a connection ends. Others
         * of the process, or of the machine, may hold the descriptors, so it is also tried again by and by.
         */
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            l->paused = true;
            sock_want(&l->sock, 0, on_listener);
            wheel_set(&s->wheel, &l->retry, ACCEPT_RETRY_MS);
        }
        if (errno != ECONNABORTED && errno != EINTR)
            return;
    }
}

static void resume(struct listener *l)
{
    if (!l->paused)
        return;
    l->paused = false;
    wheel_clear(&l->retry);
    sock_want(&l->sock, UV_READABLE, on_listener);
}

static void on_retry(struct wheel_entry *e)
{
    resume(container_of(e, struct listener, retry));
}

void server_resume_listeners(struct http_server *s)
{
    for (struct listener *l = s->listeners; l; l = l->next)
        resume(l);
}

static enum rc start_listener(struct http_server *s, struct listener *l, int fd, struct err *err)
{
    if (listen(fd, BACKLOG) != 0) {
        enum rc rc = err_sys(err, errno == EADDRINUSE ? RC_BUSY : RC_IO, "cannot listen on %s", l->address);
        (void)close(fd);
        return rc;
    }
    int r = sock_open(&l->sock, s->loop, fd);
    if (r < 0)
        return err_set(err, RC_IO, "cannot watch the listener on %s: %s", l->address, uv_strerror(r));
    l->sock.poll.data = l;
    l->retry.fn = on_retry;
    s->handles++;
    struct listener **end = &s->listeners;
    while (*end)
        end = &(*end)->next;
    *end = l;
    s->n_listeners++;
    sock_want(&l->sock, UV_READABLE, on_listener);
    return RC_OK;
}

static enum rc bind_error(int fd, const char *address, struct err *err)
{
    enum rc code = errno == EADDRINUSE ? RC_BUSY : errno == EACCES ? RC_DENIED : RC_IO;
    enum rc rc = err_sys(err, code, "cannot listen on %s", address);
    if (code == RC_BUSY)
        err_hint(err, "another program has that port: stop it, or choose another with --listen ADDRESS:PORT");
    if (code == RC_DENIED)
        err_hint(err, "ports below 1024 need a privilege: choose a higher one");
    (void)close(fd);
    return rc;
}

enum rc http_listen_tcp(struct http_server *s, const char *address, unsigned flags, struct err *err)
{
    struct sockaddr_storage sa;
    socklen_t len = 0;
    enum rc rc = sock_parse_address(address, &sa, &len, err);
    if (rc)
        return rc;
    if (flags & HTTP_LISTEN_TLS && !s->tls)
        return err_set(err, RC_INVALID, "%s is to speak TLS, and there is no certificate", address);
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(err, RC_IO, "cannot make a socket for %s", address);
    /* Accepted sockets inherit these: no system call per connection. */
    const int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    if (sa.ss_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, (const struct sockaddr *)&sa, len) != 0)
        return bind_error(fd, address, err);
    struct listener *l = mem_new(struct listener);
    l->s = s;
    l->control = flags & HTTP_LISTEN_CONTROL;
    l->tls = flags & HTTP_LISTEN_TLS;
    len = sizeof sa;
    if (getsockname(fd, (struct sockaddr *)&sa, &len) == 0)
        sock_format(&sa, l->address, sizeof l->address);
    rc = start_listener(s, l, fd, err);
    if (rc)
        free(l);
    return rc;
}

/* A socket file that nobody answers on is left over from a process that died. */
static enum rc clear_stale(const struct sockaddr_un *sa, struct err *err)
{
    struct stat st;
    if (lstat(sa->sun_path, &st) != 0)
        return RC_OK;
    if (!S_ISSOCK(st.st_mode))
        return err_set(err, RC_EXISTS, "%s is there and is not a socket", sa->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(err, RC_IO, "cannot make a socket for %s", sa->sun_path);
    int r = connect(fd, (const struct sockaddr *)sa, sizeof *sa);
    int why = errno;
    (void)close(fd);
    if (r == 0 || why == EAGAIN) {
        enum rc rc = err_set(err, RC_BUSY, "another process listens on %s", sa->sun_path);
        err_hint(err, "stop it first, or choose another socket");
        return rc;
    }
    if (why == ECONNREFUSED && unlink(sa->sun_path) != 0)
        return err_sys(err, RC_DENIED, "cannot replace the stale socket %s", sa->sun_path);
    return RC_OK;
}

enum rc http_listen_unix(struct http_server *s, const char *path, bool control, struct err *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    size_t n = strlen(path);
    if (!n || n >= sizeof sa.sun_path)
        return err_set(err, RC_INVALID, "socket path \"%s\" must have 1 to %zu bytes", path,
                       sizeof sa.sun_path - 1);
    memcpy(sa.sun_path, path, n);
    enum rc rc = clear_stale(&sa, err);
    if (rc)
        return rc;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(err, RC_IO, "cannot make a socket for %s", path);
    (void)fchmod(fd, 0600); /* before bind: the file never has another mode */
    if (bind(fd, (const struct sockaddr *)&sa, sizeof sa) != 0)
        return bind_error(fd, path, err);
    (void)chmod(path, 0600);
    struct listener *l = mem_new(struct listener);
    l->s = s;
    l->control = control;
    l->is_unix = true;
    (void)snprintf(l->address, sizeof l->address, "%s", path);
    rc = start_listener(s, l, fd, err);
    if (rc)
        free(l);
    return rc;
}

const char *http_server_address(const struct http_server *s, size_t i)
{
    const struct listener *l = s->listeners;
    while (l && i--)
        l = l->next;
    return l ? l->address : "";
}

const char *http_server_scheme(const struct http_server *s, size_t i)
{
    const struct listener *l = s->listeners;
    while (l && i--)
        l = l->next;
    return !l || l->is_unix ? "" : l->tls ? "https" : "http";
}

/* ---- the end ---- */

void server_handle_closed(struct http_server *s)
{
    if (--s->handles || !s->draining || !s->closed)
        return;
    void (*closed)(void *) = s->closed;
    s->closed = NULL;
    closed(s->closed_arg);
}

static void on_listener_closed(uv_handle_t *h)
{
    struct listener *l = h->data;
    struct http_server *s = l->s;
    free(l);
    server_handle_closed(s);
}

static void on_timer_closed(uv_handle_t *h)
{
    server_handle_closed(h->data);
}

/* The wheel is needed as long as there are connections. */
static void close_timer_when_last(struct http_server *s)
{
    if (s->timer_closed || !s->draining || s->conns.next != &s->conns)
        return;
    while (s->ups.next != &s->ups)
        up_close(s->ups.next);
    s->timer_closed = true;
    s->deferring = false;
    uv_close((uv_handle_t *)&s->check, on_timer_closed);
    uv_close((uv_handle_t *)&s->wheel.timer, on_timer_closed);
}

void http_server_drain(struct http_server *s, void (*closed)(void *arg), void *arg)
{
    if (closed) {
        s->closed = closed;
        s->closed_arg = arg;
    }
    s->draining = true;
    while (s->listeners) {
        struct listener *l = s->listeners;
        s->listeners = l->next;
        if (l->is_unix)
            (void)unlink(l->address);
        wheel_remove(&s->wheel, &l->retry);
        sock_close(&l->sock, false, on_listener_closed);
    }
    for (struct conn *c = s->conns.next, *next = c->next; c != &s->conns; c = next, next = c->next)
        if (c->phase == PHASE_HEAD && (!c->in || !c->in->n))
            conn_lost(c, NULL, false);
    server_drain_step(s);
}

void server_drain_step(struct http_server *s)
{
    close_timer_when_last(s);
}

void http_server_abort(struct http_server *s)
{
    http_server_drain(s, NULL, NULL);
    while (s->conns.next != &s->conns)
        conn_lost(s->conns.next, "client_closed", true);
    server_drain_step(s);
}

void http_server_free(struct http_server *s)
{
    if (!s)
        return;
    while (s->free_msgs) {
        struct msg *m = s->free_msgs;
        s->free_msgs = m->next;
        free(m);
    }
    upstream_free_endpoints(s);
    free(s->route_n);
    free_strings(s);
    tls_context_free(s->tls);
    auth_free(s->auth);
    free(s);
}
