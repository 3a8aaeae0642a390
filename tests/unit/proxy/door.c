/* The server under test: see door.h. Test program; the loop thread and the test's thread share struct door
 * under its mutex. */
#include "door.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_S 20

struct door_wait {
    route_cb cb;
    void *arg;
};

enum order { NOTHING, GRANT, REFUSE, ANSWER, DRAIN, ABORT };

struct door {
    struct door_setup setup;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uv_loop_t loop;
    uv_async_t async;
    struct http_server *server;
    struct http_route routes[24];
    size_t n_routes;
    uint16_t port, backend_port;
    int backend, filler[4]; /* connections that fill the backlog; -1 = none */
    bool started, failed, draining;
    enum order order;
    bool order_done;
    unsigned counts[DOOR_COUNTS];
    struct door_record record;
    char asked[256];
    struct door_wait *waits[64];
    size_t n_waits;
    struct http_exchange *later;
    struct http_exchange *streams[8];
    uint64_t leases_out;
    struct http_counters counters;
};

struct door_setup door_default(void)
{
    struct door_setup s = {.route = DOOR_GRANT, .refuse_code = RC_NOT_FOUND};
    http_options_default(&s.opt);
    s.opt.allowed_hosts = "a,door";
    s.opt.retry_max = 0; /* the tests of retries set it */
    return s;
}

struct auth_spec door_key(const char *secret)
{
    struct auth_spec s = {.name = "test", .source = "test", .models = "", .scopes = AUTH_INFER};
    assert_true(auth_digest(str_from(secret), STR(""), s.hash));
    for (size_t i = 0; i < AUTH_ID_CHARS / 2; i++)
        (void)snprintf(s.id + 2 * i, 3, "%02x", s.hash[i]);
    return s;
}

static void bump(struct door *d, enum door_count what)
{
    pthread_mutex_lock(&d->lock);
    d->counts[what]++;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
}

unsigned door_count(struct door *d, enum door_count what)
{
    pthread_mutex_lock(&d->lock);
    unsigned n = d->counts[what];
    pthread_mutex_unlock(&d->lock);
    return n;
}

static void wait_changed(struct door *d)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += LIMIT_S;
    int r = pthread_cond_timedwait(&d->changed, &d->lock, &until);
    if (r == ETIMEDOUT) {
        pthread_mutex_unlock(&d->lock);
        fail_msg("what the test waits for does not happen");
    }
}

void door_wait(struct door *d, enum door_count what, unsigned at_least)
{
    pthread_mutex_lock(&d->lock);
    while (d->counts[what] < at_least)
        wait_changed(d);
    pthread_mutex_unlock(&d->lock);
}

/* ---- the route ---- */

static void fill_lease(struct door *d, struct route_lease *l)
{
    memset(l, 0, sizeof *l);
    (void)snprintf(l->host, sizeof l->host, "127.0.0.1");
    l->port = d->backend_port;
    (void)snprintf(l->model, sizeof l->model, "%s", d->setup.canonical ? d->setup.canonical : "canon");
    (void)snprintf(l->instance, sizeof l->instance, "inst-1");
    l->replace_model = d->setup.replace_model;
    l->ref = d;
    l->speaks = d->setup.speaks;
    l->timeout_ms = d->setup.timeout_ms;
    l->drain = d->setup.drain;
    if (d->setup.wake) {
        l->wake_member = ",\"wake\":1";
        l->wake_event = "\"dawn\"";
    }
    if (d->setup.collect)
        l->collect_members = "\"stream\":true,\"wake\":1,";
    d->leases_out++;
}

static enum route_answer acquire(void *ctx, const struct route_request *req, route_cb cb, void *arg,
                                 struct route_lease *ret_lease, void **ret_wait,
                                 struct route_refusal *ret_refusal)
{
    struct door *d = ctx;
    pthread_mutex_lock(&d->lock);
    (void)snprintf(d->asked, sizeof d->asked, "%.*s", (int)req->model.n, req->model.n ? req->model.p : "");
    pthread_mutex_unlock(&d->lock);
    enum route_answer answer = ROUTE_GRANTED;
    if (d->setup.route == DOOR_REFUSE) {
        (void)err_set(&ret_refusal->err, d->setup.refuse_code, "no model named %s", d->asked);
        ret_refusal->retry_after_s = d->setup.retry_after_s;
        answer = ROUTE_REFUSED;
    } else if (d->setup.route == DOOR_WAIT) {
        struct door_wait *w = mem_new(struct door_wait);
        w->cb = cb;
        w->arg = arg;
        d->waits[d->n_waits++] = w;
        *ret_wait = w;
        answer = ROUTE_WAITING;
    } else {
        fill_lease(d, ret_lease);
    }
    if (req->wish && req->wish->keep_given)
        bump(d, DOOR_WISHES);
    bump(d, DOOR_ACQUIRED);
    return answer;
}

static void cancel(void *ctx, void *wait)
{
    struct door *d = ctx;
    for (size_t i = 0; i < d->n_waits; i++)
        if (d->waits[i] == wait) {
            free(wait);
            d->waits[i] = d->waits[--d->n_waits];
            bump(d, DOOR_CANCELLED);
            return;
        }
    abort(); /* cancels what does not wait */
}

static void look(void *ctx, void *wait, struct route_view *ret)
{
    struct door *d = ctx;
    (void)wait;
    pthread_mutex_lock(&d->lock);
    *ret = d->setup.view;
    pthread_mutex_unlock(&d->lock);
}

void door_show(struct door *d, struct route_view view)
{
    pthread_mutex_lock(&d->lock);
    d->setup.view = view;
    pthread_mutex_unlock(&d->lock);
}

static void release(void *ctx, struct route_lease *lease, enum route_end end)
{
    struct door *d = ctx;
    if (lease->ref != d || !d->leases_out)
        abort();
    d->leases_out--;
    bump(d, DOOR_RELEASED);
    if (end == ROUTE_END_BROKEN)
        bump(d, DOOR_BROKEN);
    if (end == ROUTE_END_FAILED)
        bump(d, DOOR_FAILED);
}

static void on_record(void *arg, const struct http_record *r)
{
    struct door *d = arg;
    pthread_mutex_lock(&d->lock);
    struct door_record *to = &d->record;
    to->r = *r;
    (void)snprintf(to->model, sizeof to->model, "%s", r->model);
    (void)snprintf(to->instance, sizeof to->instance, "%s", r->instance);
    (void)snprintf(to->path, sizeof to->path, "%s", r->path);
    (void)snprintf(to->outcome, sizeof to->outcome, "%s", r->outcome);
    (void)snprintf(to->request_id, sizeof to->request_id, "%s", r->request_id);
    (void)snprintf(to->key_id, sizeof to->key_id, "%.*s", (int)r->key_id.n, r->key_id.n ? r->key_id.p : "");
    pthread_mutex_unlock(&d->lock);
    bump(d, DOOR_RECORDS);
}

struct door_record door_record(struct door *d)
{
    pthread_mutex_lock(&d->lock);
    struct door_record r = d->record;
    pthread_mutex_unlock(&d->lock);
    return r;
}

void door_asked(struct door *d, char *out, size_t cap)
{
    pthread_mutex_lock(&d->lock);
    (void)snprintf(out, cap, "%s", d->asked);
    pthread_mutex_unlock(&d->lock);
}

/* ---- local routes ---- */

static void on_hello(void *arg, struct http_exchange *ex)
{
    (void)arg;
    char who[64];
    if (!http_query(ex, "who", who, sizeof who))
        (void)snprintf(who, sizeof who, "world");
    char text[160];
    struct str h = http_header(ex, "x-test");
    int n = snprintf(text, sizeof text, "hello %s%.*s", who, STR_ARG(h));
    http_reply(ex, 200, "text/plain", (struct str){text, (size_t)n});
}

static void on_echo(void *arg, struct http_exchange *ex)
{
    (void)arg;
    http_reply(ex, 200, "application/octet-stream", http_body(ex));
}

static void on_item(void *arg, struct http_exchange *ex)
{
    (void)arg;
    struct buf b = {0};
    (void)buf_put_str(&b, http_method(ex));
    (void)buf_puts(&b, " ");
    (void)buf_put_str(&b, http_path(ex));
    http_reply(ex, 200, "text/plain", buf_str(&b));
    buf_release(&b);
}

/* /up/MODEL/PATH is PATH of an instance of MODEL; /up/MODEL lacks its slash. */
static void on_up(void *arg, struct http_exchange *ex)
{
    (void)arg;
    struct str rest = http_path(ex), model;
    size_t prefix = sizeof "/up/" - 1;
    rest = (struct str){rest.p + prefix, rest.n - prefix};
    const char *slash = memchr(rest.p, '/', rest.n);
    model = (struct str){rest.p, slash ? (size_t)(slash - rest.p) : rest.n};
    if (slash)
        http_forward(ex, &(struct http_forward){.model = model, .skip = prefix + model.n});
    else if (model.n > 1)
        http_redirect(ex, 308, http_path(ex));
    else
        http_redirect(ex, 308, STR("/up/a b\r\nX: \xc3\xa9/"));
}

static void on_error(void *arg, struct http_exchange *ex)
{
    (void)arg;
    struct err err;
    (void)err_set(&err, RC_BUSY, "the \"thing\" is busy");
    err_hint(&err, "wait");
    http_reply_err(ex, &err, 7);
}

static void left(void *arg)
{
    struct door *d = arg;
    d->later = NULL;
    bump(d, DOOR_ABORTED);
}

static void on_later(void *arg, struct http_exchange *ex)
{
    struct door *d = arg;
    d->later = ex;
    http_on_abort(ex, left, d);
    bump(d, DOOR_LATER);
}

/* Forgets to ask for the abort: the server must cope. */
static void on_careless(void *arg, struct http_exchange *ex)
{
    struct door *d = arg;
    d->later = ex;
    bump(d, DOOR_LATER);
}

/* Answers when the test has let go, before the loop can notice that the client left. */
static void on_held(void *arg, struct http_exchange *ex)
{
    struct door *d = arg;
    bump(d, DOOR_LATER);
    door_wait(d, DOOR_LET_GO, 1);
    http_reply(ex, 200, "text/plain", STR("to nobody"));
}

void door_let_go(struct door *d)
{
    bump(d, DOOR_LET_GO);
}

static void on_stream(void *arg, struct http_exchange *ex)
{
    (void)arg;
    http_stream_start(ex, 200, "text/event-stream");
    (void)http_stream_write(ex, STR("data: 1\n\n"));
    (void)http_stream_write(ex, STR("data: 2\n\n"));
    http_stream_end(ex);
}

static void stream_left(void *arg)
{
    bump(arg, DOOR_ABORTED);
}

/* Streams until it is told that the client does not keep up. */
static void on_flood(void *arg, struct http_exchange *ex)
{
    struct door *d = arg;
    static const char block[65536] = {'x'};
    http_stream_start(ex, 200, "text/plain");
    http_on_abort(ex, stream_left, d);
    for (int i = 0; i < 4096; i++)
        if (!http_stream_write(ex, (struct str){block, sizeof block})) {
            http_stream_end(ex);
            bump(d, DOOR_STREAM_ENDS);
            return;
        }
    http_stream_end(ex);
}

static void on_open_stream(void *arg, struct http_exchange *ex)
{
    struct door *d = arg;
    http_stream_start(ex, 200, "text/plain");
    http_on_abort(ex, stream_left, d);
    if (!http_stream_write(ex, STR("first\n")))
        http_stream_end(ex);
}

static void fill_call(struct http_route *r)
{
    for (unsigned id = 0; id < DIALECTS; id++) {
        const struct dialect *dialect = dialect_at((enum dialect_id)id);
        for (size_t i = 0; i < dialect->n_calls; i++)
            if (!strcmp(dialect->calls[i].path, r->path)) {
                r->dialect = (enum dialect_id)id;
                r->call = &dialect->calls[i];
            }
    }
}

static void fill_routes(struct door *d)
{
    const struct http_route routes[] = {
        {"/hello", HTTP_M_GET, on_hello, d, false, true},
        {"/echo", HTTP_M_POST | HTTP_M_PUT, on_echo, d, false, false},
        {"/item/*", HTTP_M_GET | HTTP_M_DELETE, on_item, d, false, false},
        {"/error", HTTP_M_GET, on_error, d, false, false},
        {"/later", HTTP_M_GET, on_later, d, false, false},
        {"/careless", HTTP_M_GET, on_careless, d, false, false},
        {"/held", HTTP_M_GET, on_held, d, false, false},
        {"/stream", HTTP_M_GET, on_stream, d, false, false},
        {"/flood", HTTP_M_GET, on_flood, d, false, false},
        {"/open", HTTP_M_GET, on_open_stream, d, false, false},
        {"/secret", HTTP_M_GET, on_item, d, true, false},
        {"/v1/chat/completions", HTTP_M_POST, NULL, NULL, false, false},
        {"/v1/messages", HTTP_M_POST, NULL, NULL, false, false},
        {"/v1/completions", HTTP_M_POST, NULL, NULL, false, false},
        {"/props", HTTP_M_GET, NULL, NULL, false, false},
        {"/up/*", HTTP_M_GET | HTTP_M_POST, on_up, d, false, false, .forwards = true},
        {"/infill", HTTP_M_POST, NULL, NULL, false, false},
        {"/v1/audio/transcriptions", HTTP_M_POST, NULL, NULL, false, false},
        {"/api/chat", HTTP_M_POST, NULL, NULL, false, false},
        {"/v1/messages/count_tokens", HTTP_M_POST, NULL, NULL, false, false},
        {"/v1/responses", HTTP_M_POST, NULL, NULL, false, false},
        {"/api/generate", HTTP_M_POST, NULL, NULL, false, false},
        {"/completion", HTTP_M_POST, NULL, NULL, false, false},
        {"/v1/embeddings", HTTP_M_POST, NULL, NULL, false, false},
    };
    _Static_assert(sizeof routes <= sizeof d->routes, "room for all");
    memcpy(d->routes, routes, sizeof routes);
    d->n_routes = TABLE_COUNT(routes);
    for (size_t i = 0; i < d->n_routes; i++)
        fill_call(&d->routes[i]);
}

/* OWNER/m is a spelling of m. */
static const char *resolve(void *ctx, struct str model, bool *ret_is_name)
{
    const struct door *d = ctx;
    *ret_is_name = str_eq_c(model, "m");
    return str_eq_c(model, "unknown") ? NULL : d->setup.canonical ? d->setup.canonical : "canon";
}

/* ---- the loop thread ---- */

static void on_closed(void *arg)
{
    struct door *d = arg;
    uv_close((uv_handle_t *)&d->async, NULL);
}

static void settle(struct door *d, bool grant)
{
    struct door_wait *waits[64];
    size_t n = d->n_waits;
    memcpy(waits, d->waits, sizeof waits);
    d->n_waits = 0;
    for (size_t i = 0; i < n; i++) {
        struct route_lease lease;
        struct route_refusal refusal = {.retry_after_s = 9};
        (void)err_set(&refusal.err, RC_BACKEND, "the model did not start");
        if (grant)
            fill_lease(d, &lease);
        waits[i]->cb(waits[i]->arg, grant ? &lease : NULL, grant ? NULL : &refusal);
        free(waits[i]);
    }
}

static void on_order(uv_async_t *a)
{
    struct door *d = a->data;
    pthread_mutex_lock(&d->lock);
    enum order order = d->order;
    d->order = NOTHING;
    pthread_mutex_unlock(&d->lock);
    if (order == GRANT || order == REFUSE)
        settle(d, order == GRANT);
    if (order == ANSWER && d->later) {
        struct http_exchange *ex = d->later;
        d->later = NULL;
        http_reply(ex, 200, "text/plain", STR("at last"));
    }
    if (order == DRAIN)
        http_server_drain(d->server, on_closed, d);
    if (order == ABORT) {
        http_server_drain(d->server, on_closed, d);
        http_server_abort(d->server);
    }
    pthread_mutex_lock(&d->lock);
    http_server_counters(d->server, &d->counters);
    d->order_done = true;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
}

static void *run(void *arg)
{
    struct door *d = arg;
    struct err err;
    uv_loop_init(&d->loop);
    uv_async_init(&d->loop, &d->async, on_order);
    d->async.data = d;
    struct http_options opt = d->setup.opt;
    fill_routes(d);
    opt.loop = &d->loop;
    opt.routes = d->routes;
    opt.n_routes = d->n_routes;
    opt.route = (struct route_ops){
        .ctx = d, .acquire = acquire, .cancel = cancel, .look = look, .release = release, .resolve = resolve};
    opt.record = on_record;
    opt.record_arg = d;
    bool fine = http_server_new(&opt, &d->server, &err) == RC_OK;
    fine = fine && http_listen_tcp(d->server, "127.0.0.1:0", opt.tls ? HTTP_LISTEN_TLS : 0, &err) == RC_OK;
    if (fine && d->setup.unix_path)
        fine = http_listen_unix(d->server, d->setup.unix_path, true, &err) == RC_OK;
    pthread_mutex_lock(&d->lock);
    if (fine)
        d->port = (uint16_t)atoi(strrchr(http_server_address(d->server, 0), ':') + 1);
    else
        fprintf(stderr, "%s\n", err.message);
    d->started = true;
    d->failed = !fine;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
    if (fine)
        uv_run(&d->loop, UV_RUN_DEFAULT);
    http_server_free(d->server);
    if (uv_loop_close(&d->loop) != 0)
        abort();
    return NULL;
}

static int listen_backend(uint16_t *ret_port, int backlog)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(listen(fd, backlog), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    *ret_port = ntohs(sa.sin_port);
    return fd;
}

void backend_close_listener(struct door *d)
{
    if (d->backend >= 0)
        close(d->backend);
    d->backend = -1;
}

static int fill_backlog(uint16_t port)
{
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    (void)connect(fd, (struct sockaddr *)&sa, sizeof sa);
    return fd;
}

struct door *door_start(const struct door_setup *setup)
{
    struct door *d = mem_new(struct door);
    d->setup = *setup;
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->changed, NULL);
    d->backend = listen_backend(&d->backend_port, setup->full_backlog ? 0 : 64);
    for (size_t i = 0; i < TABLE_COUNT(d->filler); i++)
        d->filler[i] = setup->full_backlog ? fill_backlog(d->backend_port) : -1;
    if (setup->dead_port)
        backend_close_listener(d);
    assert_int_equal(pthread_create(&d->thread, NULL, run, d), 0);
    pthread_mutex_lock(&d->lock);
    while (!d->started)
        wait_changed(d);
    bool failed = d->failed;
    pthread_mutex_unlock(&d->lock);
    assert_false(failed);
    return d;
}

static void give_order(struct door *d, enum order order)
{
    pthread_mutex_lock(&d->lock);
    d->order = order;
    d->order_done = false;
    uv_async_send(&d->async);
    while (!d->order_done)
        wait_changed(d);
    pthread_mutex_unlock(&d->lock);
}

void door_grant(struct door *d)
{
    give_order(d, GRANT);
}

void door_refuse(struct door *d)
{
    give_order(d, REFUSE);
}

void door_answer_later(struct door *d)
{
    give_order(d, ANSWER);
}

void door_drain(struct door *d)
{
    d->draining = true;
    give_order(d, DRAIN);
}

struct http_counters door_counters(struct door *d)
{
    give_order(d, NOTHING);
    return d->counters;
}

void door_stop(struct door *d, bool abort)
{
    if (!d->draining)
        give_order(d, abort ? ABORT : DRAIN);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += LIMIT_S;
    int r = pthread_timedjoin_np(d->thread, NULL, &until);
    if (r != 0)
        fail_msg("the server does not end");
    assert_int_equal(d->leases_out, 0);
    assert_int_equal(d->n_waits, 0);
    for (size_t i = 0; i < TABLE_COUNT(d->filler); i++)
        if (d->filler[i] >= 0)
            close(d->filler[i]);
    backend_close_listener(d);
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->changed);
    free(d);
}

uint16_t door_port(const struct door *d)
{
    return d->port;
}

/* ---- sockets of the test ---- */

static void limit(int fd)
{
    const struct timeval t = {.tv_sec = LIMIT_S};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
}

int client_connect(struct door *d)
{
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_port = htons(d->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    limit(fd);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}

int client_connect_unix(const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    (void)snprintf(sa.sun_path, sizeof sa.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    limit(fd);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}

void client_send_n(int fd, const void *p, size_t n)
{
    const char *at = p;
    while (n) {
        ssize_t r = send(fd, at, n, MSG_NOSIGNAL);
        assert_true(r > 0);
        at += r;
        n -= (size_t)r;
    }
}

void client_send(int fd, const char *text)
{
    client_send_n(fd, text, strlen(text));
}

void client_post(int fd, const char *fields, const char *body)
{
    struct buf b = {0};
    assert_true(
        buf_printf(&b,
                   "POST /v1/chat/completions HTTP/1.1\r\nHost: door\r\nContent-Type: application/json\r\n"
                   "%sContent-Length: %zu\r\n\r\n%s",
                   fields, strlen(body), body));
    client_send_n(fd, b.data, b.n);
    buf_release(&b);
}

void client_reset(int fd)
{
    const struct linger now = {1, 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

/* 1 = a byte, 0 = FIN, -1 = RST. */
static int read_byte(int fd, char *ret)
{
    ssize_t r = recv(fd, ret, 1, 0);
    if (r < 0 && errno == EAGAIN)
        fail_msg("the peer says nothing");
    return r < 0 ? -1 : (int)r;
}

static bool read_line(int fd, char *out, size_t cap, struct answer *a)
{
    size_t n = 0;
    for (;;) {
        char ch = 0;
        int r = read_byte(fd, &ch);
        if (r <= 0) {
            a->broken = true;
            a->reset = r < 0;
            return false;
        }
        assert_true(n + 1 < cap);
        out[n++] = ch;
        out[n] = '\0';
        if (n >= 2 && out[n - 2] == '\r' && ch == '\n')
            return true;
    }
}

static bool read_exact(int fd, struct answer *a, size_t n)
{
    char block[16384];
    while (n) {
        ssize_t r = recv(fd, block, n < sizeof block ? n : sizeof block, 0);
        if (r < 0 && errno == EAGAIN)
            fail_msg("the peer says nothing");
        if (r <= 0) {
            a->broken = true;
            a->reset = r < 0;
            return false;
        }
        assert_true(buf_append(&a->body, block, (size_t)r));
        n -= (size_t)r;
    }
    return true;
}

static void read_chunks(int fd, struct answer *a)
{
    char line[64];
    for (;;) {
        if (!read_line(fd, line, sizeof line, a))
            return;
        char *end = NULL;
        size_t n = strtoul(line, &end, 16);
        assert_true(end != line && !strcmp(end, "\r\n"));
        if (n && !read_exact(fd, a, n))
            return;
        if (!read_line(fd, line, sizeof line, a))
            return;
        assert_string_equal(line, "\r\n"); /* also behind the last chunk: no trailers */
        if (!n)
            return;
    }
}

static const char *find_field(const char *head, const char *name)
{
    for (const char *p = strstr(head, "\r\n"); p; p = strstr(p + 2, "\r\n"))
        if (!strncasecmp(p + 2, name, strlen(name)) && p[2 + strlen(name)] == ':')
            return p + 2 + strlen(name) + 2;
    return NULL;
}

bool answer_has(const struct answer *a, const char *line)
{
    for (const char *p = strstr(a->head, "\r\n"); p; p = strstr(p + 2, "\r\n"))
        if (!strncasecmp(p + 2, line, strlen(line)) && !strncmp(p + 2 + strlen(line), "\r\n", 2))
            return true;
    return false;
}

struct answer client_answer(int fd, bool head_only)
{
    struct answer a = {0};
    size_t n = 0;
    do {
        size_t from = n;
        if (!read_line(fd, a.head + n, sizeof a.head - n, &a))
            return a;
        n += strlen(a.head + from);
    } while (n < 4 || strcmp(a.head + n - 4, "\r\n\r\n") != 0);
    assert_int_equal(sscanf(a.head, "HTTP/1.1 %d ", &a.status), 1);
    const char *length = find_field(a.head, "Content-Length"),
               *coding = find_field(a.head, "Transfer-Encoding");
    assert_false(length && coding);
    if (head_only || a.status == 204 || a.status == 304)
        return a;
    if (coding) {
        read_chunks(fd, &a);
    } else if (length) {
        (void)read_exact(fd, &a, strtoul(length, NULL, 10));
    } else {
        (void)read_exact(fd, &a, SIZE_MAX);
        a.broken = a.reset; /* delimited by FIN */
    }
    return a;
}

void answer_release(struct answer *a)
{
    buf_release(&a->body);
}

struct answer client_ask(struct door *d, const char *request)
{
    int fd = client_connect(d);
    client_send(fd, request);
    struct answer a = client_answer(fd, false);
    close(fd);
    return a;
}

bool client_at_eof(int fd)
{
    char ch;
    int r = read_byte(fd, &ch);
    assert_true(r <= 0);
    return r == 0;
}

void client_read_n(int fd, char *out, size_t n)
{
    while (n) {
        ssize_t r = recv(fd, out, n, 0);
        assert_true(r > 0);
        out += r;
        n -= (size_t)r;
    }
}

void client_read_until(int fd, const char *text)
{
    size_t n = strlen(text), have = 0;
    char last[256];
    assert_true(n < sizeof last);
    for (;;) {
        if (have == n)
            memmove(last, last + 1, --have);
        client_read_n(fd, last + have++, 1);
        if (have == n && !memcmp(last, text, n))
            return;
    }
}

/* ---- the backend ---- */

int backend_accept(struct door *d)
{
    struct pollfd p = {.fd = d->backend, .events = POLLIN};
    assert_int_equal(poll(&p, 1, LIMIT_S * 1000), 1);
    int fd = accept4(d->backend, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fd >= 0);
    limit(fd);
    return fd;
}

bool backend_is_quiet(struct door *d)
{
    struct pollfd p = {.fd = d->backend, .events = POLLIN};
    return poll(&p, 1, 0) == 0;
}

struct buf backend_request(int fd)
{
    struct answer a = {0};
    struct buf b = {0};
    char line[20000];
    size_t length = 0;
    do {
        assert_true(read_line(fd, line, sizeof line, &a));
        assert_true(buf_puts(&b, line));
        if (!strncasecmp(line, "content-length:", 15))
            length = strtoul(line + 15, NULL, 10);
    } while (strcmp(line, "\r\n") != 0);
    if (length)
        assert_true(read_exact(fd, &a, length));
    assert_true(!length || buf_append(&b, a.body.data, a.body.n));
    buf_release(&a.body);
    return b;
}

void backend_answer(int fd, const char *json)
{
    struct buf b = {0};
    assert_true(
        buf_printf(&b, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                   strlen(json), json));
    client_send_n(fd, b.data, b.n);
    buf_release(&b);
}
