/* A request on its way to the backend: its head, written anew, and the client's body with its changes. Layer
 * proxy; loop thread only.
 *
 * The bytes stay where they are until the answer's first one, so that they can be sent again. What the socket
 * does not take at once is listed in u->iov. */
#include "proxy/proxy_priv.h"

#include "base/clock.h"
#include "base/mem.h"
#include "proxy/put.h"

#include <errno.h>
#include <string.h>

/* A request's head, and its body if that is small. */
#define REQUEST_BLOCK (MSG_BYTES + 8192u)

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

void relay_send(struct conn *c)
{
    struct up *u = c->up;
    char name_text[1024];
    struct put name = {name_text, name_text + sizeof name_text, false};
    struct edit edits[2];
    struct str body;
    prefill_release(c); /* of another lease */
    int n_edits = edits_of(c, &name, edits, &body);
    made_start(c);
    limit_begin(u);
    size_t body_n = body.n;
    for (int i = 0; i < n_edits; i++)
        body_n += edits[i].text.n - edits[i].n;
    char *block = batch_room(c->s, REQUEST_BLOCK);
    struct put w = {block, block + REQUEST_BLOCK, false};
    if (c->lease.remote)
        remote_put_head(c, &w, body_n);
    else
        put_request_head(c, &w, body_n);
    size_t head_n = (size_t)(w.p - block);
    if (w.over || name.over) {
        struct err err;
        (void)err_set(&err, RC_LIMIT, "the request's head is too large to be passed on");
        relay_leave(c, 431, "refused", &err);
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
