/* One relayed request: lease, connection, sending, and every way in which it can end. Layer proxy; loop
 * thread only.
 *
 * The request's bytes are kept until the answer's first byte, so that it can be sent again when that is safe:
 * when no connection could be made, or when a connection that had served before died without a single byte of
 * an answer (the backend closed it while our request was under way). Nothing else is ever repeated.
 * Invariants: leased ⇔ the route waits for one release; wait ≠ NULL ⇔ it may call us back or be cancelled. */
#include "proxy/proxy_priv.h"

#include "base/clock.h"
#include "base/mem.h"
#include "proxy/put.h"

#include <errno.h>
#include <string.h>

/* A request's head, and its body if that is small. */
#define REQUEST_BLOCK (MSG_BYTES + 8192u)

static void acquire(struct conn *c);
static void connect_upstream(struct conn *c, bool fresh);

/* ---- the end of things ---- */

static void give_lease_back(struct conn *c, enum route_end end)
{
    if (!c->leased)
        return;
    c->leased = false;
    c->s->count.relaying--;
    c->s->opt.route.release(c->s->opt.route.ctx, &c->lease, c->lease_broken ? ROUTE_END_BROKEN : end);
}

void relay_fail(struct conn *c, int status, const char *outcome, const struct err *err)
{
    give_lease_back(c, ROUTE_END_LEFT); /* if it is not broken, the backend has no part in this */
    c->s->count.upstream_errors += status >= 502;
    c->outcome = outcome;
    conn_deadline(c, 0);
    c->phase = PHASE_LOCAL;
    errors_reply(c, status, err, 0);
}

static void drop_upstream(struct conn *c)
{
    struct up *u = c->up;
    if (!u)
        return;
    c->up = NULL;
    u->c = NULL;
    up_close(u);
}

void relay_leave(struct conn *c, int status, const char *outcome, const struct err *err)
{
    drop_upstream(c);
    relay_fail(c, status, outcome, err);
}

void relay_break_off(struct conn *c)
{
    drop_upstream(c);
    give_lease_back(c, ROUTE_END_LEFT);
}

void relay_cancel(struct conn *c, enum phase was)
{
    if (was == PHASE_TRANSLATE)
        translate_cancel(c);
    if (was == PHASE_LEASE && c->wait) {
        void *wait = c->wait;
        c->wait = NULL;
        c->s->count.waiting--;
        c->s->opt.route.cancel(c->s->opt.route.ctx, wait);
    }
    drop_upstream(c);
    give_lease_back(c, ROUTE_END_LEFT);
}

void relay_record(struct conn *c)
{
    struct http_server *s = c->s;
    if (c->recorded || !s->opt.record)
        return;
    c->recorded = true;
    struct buf response = {0};
    capture_response(c, &response);
    uint64_t now = clock_mono_us(), total = now - c->t_head;
    uint64_t upstream = c->t_sent && c->t_upstream_end > c->t_sent ? c->t_upstream_end - c->t_sent : 0;
    const struct http_record r = {
        .wall_ms = c->wall_ms,
        .model = *c->lease.model ? c->lease.model : c->model_text,
        .instance = c->lease.instance,
        .path = c->route->path,
        .status = c->status,
        .outcome = c->outcome         ? c->outcome
                   : c->status >= 500 ? "upstream_error"
                                      : "ok",
        .streamed = c->streamed,
        .request_bytes = c->request_bytes,
        .response_bytes = c->response_bytes,
        .prompt_tokens = c->usage.prompt_tokens,
        .completion_tokens = c->usage.completion_tokens,
        .cached_tokens = c->usage.cached_tokens,
        .tokens_known = c->usage.known,
        .timing_prompt_tokens = c->usage.timing.prompt_tokens,
        .timing_prompt_us = c->usage.timing.prompt_us,
        .timing_decode_tokens = c->usage.timing.decode_tokens,
        .timing_decode_us = c->usage.timing.decode_us,
        .wait_us = c->t_wait_us,
        .ttfb_us = c->t_body ? c->t_body - c->t_head : 0,
        .total_us = total,
        .overhead_us = total > c->t_wait_us + upstream ? total - c->t_wait_us - upstream : 0,
        .request_id = c->id_text,
        .key_id = str_from(c->key ? c->key->spec.id : ""),
        .request_text = capture_request(c),
        .response_text = buf_str(&response),
    };
    s->opt.record(s->opt.record_arg, &r);
    buf_release(&response);
}

void relay_answer_done(struct conn *c)
{
    struct up *u = c->up;
    c->up = NULL;
    u->c = NULL;
    if (u->keep_alive)
        upstream_park(u);
    else
        up_close(u);
    give_lease_back(c, c->status >= 500 && c->status != 501 ? ROUTE_END_FAILED : ROUTE_END_FINE);
}

void relay_again(struct up *u)
{
    struct conn *c = u->c;
    c->up = NULL;
    u->c = NULL;
    msg_put(u->s, u->in);
    u->in = NULL;
    if (u->keep_alive)
        upstream_park(u);
    else
        up_close(u);
    connect_upstream(c, false);
}

/* ---- sending ---- */

/* Where the door has keys, they are no business of the backend. */
static void dropped_fields(const struct conn *c, bool drop[HDR_COUNT])
{
    drop[HDR_AUTHORIZATION] = drop[HDR_X_API_KEY] = auth_needed(c->s->auth);
    drop[HDR_CONTENT_TYPE] = made_translated(c);
}

static void put_request_head(struct conn *c, struct put *w, uint64_t body_n)
{
    const struct msg *m = c->in;
    bool drop[HDR_COUNT] = {false};
    dropped_fields(c, drop);
    put_cstr(w, request_method_name(c));
    put_lit(w, " ");
    put_str(w, made_target(c));
    put_lit(w, " HTTP/1.1\r\nHost: ");
    bool v6 = strchr(c->lease.host, ':') != NULL;
    if (v6)
        put_lit(w, "[");
    put_cstr(w, c->lease.host);
    if (v6)
        put_lit(w, "]");
    put_lit(w, ":");
    put_u64(w, c->lease.port);
    put_lit(w, "\r\n");
    head_copy(&m->head, m->data, HEAD_TO_UPSTREAM, drop, w);
    if (drop[HDR_CONTENT_TYPE])
        put_lit(w, "Content-Type: application/json\r\n");
    put_lit(w, "Accept-Encoding: identity\r\nX-Request-Id: ");
    put_cstr(w, c->id_text);
    if (body_n || c->method == HTTP_POST || c->method == HTTP_PUT) {
        put_lit(w, "\r\nContent-Length: ");
        put_u64(w, body_n);
    }
    put_lit(w, "\r\n\r\n");
}

/* The body, and the changes that it needs in the order of their places; returns how many. */
static int edits_of(struct conn *c, struct put *text, struct edit edits[2], struct str *ret_body)
{
    const struct msg *m = c->in;
    int n = 0;
    *ret_body = (struct str){m->data + m->head_n, m->body_n};
    if (made_translated(c)) {
        *ret_body = made_body(c);
        made_body_edit(c, text, &edits[0]);
        return 1;
    }
    if (c->scan_json && (prefill_edit(c, &edits[0]) || made_splice(c, &edits[0])))
        n++;
    if (model_edit(c, text, &edits[n]))
        n++;
    if (n == 2 && edits[1].at < edits[0].at) {
        struct edit first = edits[1];
        edits[1] = edits[0];
        edits[0] = first;
    }
    return n;
}

static void request_sent(struct conn *c)
{
    c->phase = PHASE_PREFILL;
    c->t_sent = clock_mono_us();
}

/* Sends what the iovecs hold; true when all of it went out. */
static bool send_iov(struct up *u)
{
    struct iovec *v = u->iov;
    ssize_t r = sock_send(&u->sock, v, u->n_iov);
    if (r < 0 && errno != EAGAIN) {
        relay_upstream_died(u, errno);
        return false;
    }
    size_t sent = r < 0 ? 0 : (size_t)r;
    while (u->n_iov && sent >= v->iov_len) {
        sent -= v->iov_len;
        u->n_iov--;
        memmove(v, v + 1, (size_t)u->n_iov * sizeof *v);
    }
    if (u->n_iov) {
        v->iov_base = (char *)v->iov_base + sent;
        v->iov_len -= sent;
    }
    return !u->n_iov;
}

static bool in_block(const struct http_server *s, const struct iovec *v)
{
    const char *p = v->iov_base;
    return v->iov_len && p >= s->arena && p < s->arena + ARENA_BYTES;
}

/* Sends what u->iov holds. What the socket does not take now goes out later; what of it lies in the turn's
 * block gets a place of its own. */
void relay_send_now(struct up *u)
{
    struct conn *c = u->c;
    if (send_iov(u)) {
        request_sent(c);
        return;
    }
    if (c->up != u) /* it died */
        return;
    size_t n = 0;
    for (int i = 0; i < u->n_iov; i++)
        n += in_block(c->s, &u->iov[i]) ? u->iov[i].iov_len : 0;
    char *to = u->pending = mem_calloc(n, 1);
    for (int i = 0; i < u->n_iov; i++) {
        if (!in_block(c->s, &u->iov[i]))
            continue;
        memcpy(to, u->iov[i].iov_base, u->iov[i].iov_len);
        u->iov[i].iov_base = to;
        to += u->iov[i].iov_len;
    }
    up_watch(u, true, true);
}

static void add_piece(struct up *u, const char *p, size_t n)
{
    if (n)
        u->iov[u->n_iov++] = (struct iovec){(void *)(uintptr_t)p, n};
}

/* Puts the body with its edits behind the head that w holds; true if all of it is there. If it does not fit,
 * u->iov lists the pieces. */
static bool put_body(struct up *u, struct put *w, size_t head_n, size_t body_n, struct str body,
                     const struct edit *edits, int n_edits)
{
    bool whole = (size_t)(w->end - w->p) >= body_n; /* one block is cheaper than a list */
    u->n_iov = 0;
    if (!whole)
        add_piece(u, w->p - head_n, head_n);
    size_t at = 0;
    for (int i = 0; i <= n_edits; i++) {
        struct edit e = i < n_edits ? edits[i] : (struct edit){.at = body.n};
        if (whole)
            put_bytes(w, body.p + at, e.at - at);
        else
            add_piece(u, body.p + at, e.at - at);
        const char *text = w->p; /* the edit's own text does not outlive the call */
        put_str(w, e.text);
        if (!whole)
            add_piece(u, text, e.text.n);
        at = e.at + e.n;
    }
    return whole;
}

static void send_request(struct conn *c)
{
    struct up *u = c->up;
    char name_text[1024];
    struct put name = {name_text, name_text + sizeof name_text, false};
    struct edit edits[2];
    struct str body;
    int n_edits = edits_of(c, &name, edits, &body);
    made_start(c);
    size_t body_n = body.n;
    for (int i = 0; i < n_edits; i++)
        body_n += edits[i].text.n - edits[i].n;
    char *block = batch_room(c->s, REQUEST_BLOCK);
    struct put w = {block, block + REQUEST_BLOCK, false};
    put_request_head(c, &w, body_n);
    size_t head_n = (size_t)(w.p - block);
    if (w.over || name.over) {
        struct err err;
        (void)err_set(&err, RC_LIMIT, "the request's head is too large to be passed on");
        drop_upstream(c);
        relay_fail(c, 431, "refused", &err);
        return;
    }
    c->phase = PHASE_SEND;
    if (!put_body(u, &w, head_n, body_n, body, edits, n_edits)) {
        relay_send_now(u);
        return;
    }
    add_piece(u, block, (size_t)(w.p - block));
    if (batch_up(u))
        batch_keep(c->s, w.p);
    else
        relay_send_now(u);
}

void relay_continue_send(struct up *u)
{
    struct conn *c = u->c;
    if (!c || !u->n_iov || !send_iov(u) || u->c != c)
        return;
    free(u->pending);
    u->pending = NULL;
    up_watch(u, true, false);
    if (c->phase == PHASE_SEND)
        request_sent(c);
}

/* ---- connecting ---- */

static void connect_failed(struct conn *c, int sys_errno);

static void connect_upstream(struct conn *c, bool fresh)
{
    struct up *u = upstream_get(c->s, c->lease.host, c->lease.port, fresh);
    if (!u) {
        connect_failed(c, errno);
        return;
    }
    c->up = u;
    u->c = c;
    if (u->state == UP_CONNECTING) {
        c->phase = PHASE_CONNECT;
        conn_deadline(c, c->s->opt.connect_timeout_ms);
    } else {
        send_request(c);
    }
}

void relay_connected(struct up *u)
{
    conn_deadline(u->c, 0);
    send_request(u->c);
}

/* What we lack ourselves is no failure of the backend, whose other requests go on. */
static bool is_our_own_want(int sys_errno)
{
    return sys_errno == EMFILE || sys_errno == ENFILE || sys_errno == ENOMEM || sys_errno == ENOBUFS;
}

/* Nothing was sent, so any request may try again; the route may then know of another instance. */
static void connect_failed(struct conn *c, int sys_errno)
{
    struct err err;
    conn_deadline(c, 0);
    if (is_our_own_want(sys_errno)) {
        errno = sys_errno;
        (void)err_sys(&err, RC_BUSY, "no connection to the backend can be made now");
        err_hint(&err, "raise the daemon's limit of open files, or lower max_connections to half of it");
        relay_fail(c, 503, "refused", &err);
        return;
    }
    errno = sys_errno;
    (void)err_sys(&err, sys_errno == ETIMEDOUT ? RC_TIMEOUT : RC_BACKEND,
                  "cannot connect to the backend of model %s", c->lease.model);
    err_hint(&err, "see the instance's log: arriero logs %s", c->lease.model);
    if (c->attempts < 2) {
        c->s->count.retried++;
        give_lease_back(c, ROUTE_END_BROKEN);
        acquire(c);
        return;
    }
    c->lease_broken = true;
    relay_fail(c, sys_errno == ETIMEDOUT ? 504 : 502, "upstream_error", &err);
}

void relay_timeout(struct conn *c)
{
    drop_upstream(c);
    connect_failed(c, ETIMEDOUT);
}

/* The client has a part of the answer. */
static void broke_off(struct conn *c)
{
    struct err err;
    c->lease_broken = true;
    c->s->count.upstream_errors++;
    if (!c->made) {
        drop_upstream(c);
        conn_lost(c, "truncated", true);
        return;
    }
    (void)err_set(&err, RC_BACKEND, "the backend of model %s broke its answer off", c->lease.model);
    err_hint(&err, "see the instance's log: arriero logs %s", c->lease.model);
    made_broken(c, "truncated", &err);
}

void relay_upstream_died(struct up *u, int sys_errno)
{
    struct conn *c = u->c;
    if (u->head_done && made_is_done(c)) {
        response_end_made(u);
        return;
    }
    bool connecting = u->state == UP_CONNECTING, begun = c->made && u->head_done,
         again = u->reused && !u->got_bytes && c->attempts < RELAY_ATTEMPTS;
    c->t_upstream_end = clock_mono_us();
    if (c->phase == PHASE_RELAY) {
        broke_off(c);
        return;
    }
    drop_upstream(c);
    if (connecting) {
        connect_failed(c, sys_errno);
        return;
    }
    if (again) {
        c->attempts++;
        c->s->count.retried++;
        connect_upstream(c, true);
        return;
    }
    struct err err;
    (void)err_set(&err, RC_BACKEND, "the backend of model %s %s before %s", c->lease.model,
                  sys_errno ? "broke the connection" : "closed the connection",
                  begun ? "its answer was whole" : "it answered");
    err_hint(&err, "see the instance's log: arriero logs %s", c->lease.model);
    c->lease_broken = true;
    relay_fail(c, 502, begun ? "truncated" : "upstream_error", &err);
}

/* ---- the lease ---- */

static void refused(struct conn *c, const struct route_refusal *r)
{
    struct err err = r->err;
    int status = rc_http_status(err.code);
    if (err.code == RC_NOT_FOUND && !c->model.n) {
        (void)err_set(&err, RC_INVALID, "the request names no model");
        err_hint(&err, "add \"model\" to the request; GET /v1/models lists what there is");
        status = 400;
    }
    c->outcome = "refused";
    c->phase = PHASE_LOCAL;
    errors_reply(c, status, &err, r->retry_after_s);
}

/* The model is ready, and that was all that was asked for. */
static void answer_without_backend(struct conn *c)
{
    struct buf body = {0};
    made_answer_now(c, &body);
    give_lease_back(c, ROUTE_END_FINE);
    c->phase = PHASE_LOCAL;
    local_reply(c, 200, made_type(c), "", buf_str(&body));
    buf_release(&body);
}

/* The request is in words that the backend understands. */
static void go_to_backend(struct conn *c)
{
    if (made_nothing(c))
        answer_without_backend(c);
    else
        connect_upstream(c, false);
}

static void granted(struct conn *c)
{
    struct err err;
    c->leased = true;
    c->s->count.relaying++;
    switch (translate_request(c, false, go_to_backend, &err)) {
    case TRANSLATE_READY: go_to_backend(c); break;
    case TRANSLATE_LATER: break;
    case TRANSLATE_REFUSED: relay_fail(c, rc_http_status(err.code), "refused", &err); break;
    }
}

static void on_lease(void *arg, const struct route_lease *lease, const struct route_refusal *refusal)
{
    struct conn *c = arg;
    c->wait = NULL;
    c->s->count.waiting--;
    c->t_wait_us += clock_mono_us() - c->t_wait_from;
    if (!lease) {
        refused(c, refusal);
        return;
    }
    c->lease = *lease;
    granted(c);
}

/* What the client asks for, as far as it may: anybody may stand back; to go ahead of others is for keys with
 * a priority, and for those who need no key. */
static enum route_priority priority_of(const struct conn *c)
{
    static const char *const words[] = {
        [ROUTE_HIGH] = "high", [ROUTE_NORMAL] = "normal", [ROUTE_LOW] = "low"};
    enum route_priority own = c->priority > 0 ? ROUTE_HIGH : c->priority < 0 ? ROUTE_LOW : ROUTE_NORMAL;
    enum route_priority best = c->key ? own : ROUTE_HIGH;
    if (!c->in->head.seen[HDR_X_ARRIERO_PRIORITY])
        return own;
    struct str asked = head_get(&c->in->head, c->in->data, HDR_X_ARRIERO_PRIORITY);
    for (unsigned i = best; i < TABLE_COUNT(words); i++)
        if (str_ieq(asked, str_from(words[i])))
            return (enum route_priority)i;
    return own;
}

/* The text in which a conversation begins. */
static struct str prompt_of(const struct conn *c)
{
    static const enum body_member members[] = {BODY_MESSAGES, BODY_PROMPT};
    for (size_t i = 0; c->scan_json && i < TABLE_COUNT(members); i++) {
        const struct body_value *v = &c->scan.value[members[i]];
        if (v->n)
            return (struct str){c->in->data + c->in->head_n + v->at, v->n};
    }
    return (struct str){"", 0};
}

/* What makes no tokens: looks, templates, counts, and requests that only want the model ready. */
static bool needs_no_slot(const struct conn *c)
{
    const struct dialect_call *call = c->call;
    return c->method != HTTP_POST || made_nothing(c) || (call && call->light);
}

static void acquire(struct conn *c)
{
    struct route_refusal refusal;
    refusal.retry_after_s = 0;
    (void)err_set(&refusal.err, RC_INTERNAL, "the request was refused");
    const struct route_request req = {.model = c->model,
                                      .key_id = str_from(c->key ? c->key->spec.id : ""),
                                      .priority = priority_of(c),
                                      .observe = c->observe,
                                      .wish = made_wish(c),
                                      .body_bytes = c->in->body_n,
                                      .prompt = prompt_of(c),
                                      .waited_ms = (uint32_t)(c->t_wait_us / 1000),
                                      .light = needs_no_slot(c)};
    const struct route_ops *ops = &c->s->opt.route;
    c->attempts++;
    c->phase = PHASE_LEASE;
    c->wait = NULL;
    switch (ops->acquire(ops->ctx, &req, on_lease, c, &c->lease, &c->wait, &refusal)) {
    case ROUTE_GRANTED: granted(c); break;
    case ROUTE_WAITING:
        c->t_wait_from = clock_mono_us();
        c->s->count.waiting++;
        break;
    case ROUTE_REFUSED: refused(c, &refusal); break;
    }
}

void relay_begin(struct conn *c)
{
    struct err err;
    if (!model_find(c, &err)) {
        c->outcome = "refused";
        errors_reply(c, 400, &err, 0);
        return;
    }
    relay_start(c);
}

void relay_start(struct conn *c)
{
    struct err err;
    if (!admit_model(c))
        return;
    capture_begin(c);
    c->s->count.relayed_total++;
    switch (translate_request(c, true, acquire, &err)) {
    case TRANSLATE_READY: acquire(c); break;
    case TRANSLATE_LATER: break;
    case TRANSLATE_REFUSED: relay_fail(c, rc_http_status(err.code), "refused", &err); break;
    }
}
