/* Requests that are told how far they are while they wait: for a slot, for a load, for their prompt to be
 * read. Layer proxy; loop thread only.
 *
 * Only streams that ask for it (X-Arriero-Progress: 1, or "loading_state":true in the body) are told. The
 * first word takes the answer's head with it, so what goes wrong behind it is told within the stream. A wait
 * that is no longer than a tick, and for no lease, is not worth a word: its answer keeps its own head.
 * Invariants: told ⇒ the client has a head with status 200 and an unended stream; nothing is told once a byte
 * of the backend's answer went out. */
#include "proxy/proxy_priv.h"

#include "base/clock.h"
#include "base/mem.h"

#include <string.h>

#define TICK_MS       500u
#define KEEP_ALIVE_MS 10000u /* the same again, for whoever closes silent connections */

struct progress {
    struct wheel_entry timer;
    struct conn *c;
    struct dialect_progress said;
    uint64_t said_ms; /* loop time */
};

/* ---- who asks ---- */

static bool is_true(const struct conn *c, enum body_member which)
{
    const struct body_value *v = &c->scan.value[which];
    return v->n == 4 && c->scan.seen[which] == 1 && !memcmp(c->in->data + c->in->head_n + v->at, "true", 4);
}

static bool asks(const struct conn *c)
{
    struct str field = head_get(&c->in->head, c->in->data, HDR_X_ARRIERO_PROGRESS);
    if (str_eq_c(field, "1") || str_ieq(field, STR("true")))
        return true;
    return c->scan_json && is_true(c, BODY_LOADING_STATE);
}

static bool streams(const struct conn *c)
{
    if (made_translated(c))
        return made_streams(c) && !made_nothing(c);
    return c->scan_json && is_true(c, BODY_STREAM);
}

/* ---- what is known ---- */

enum { HAS_LEASE = ROUTE_STAGES, PAUSING, SENT };

static const char *const states[] = {
    [ROUTE_QUEUED] = "queued",   [ROUTE_PLANNING] = "planning",
    [ROUTE_BLOCKED] = "blocked", [ROUTE_MAKING_ROOM] = "making_room",
    [ROUTE_LOADING] = "loading", [HAS_LEASE] = "ready",
    [PAUSING] = "retrying",      [SENT] = "reading",
};

static void look(const struct conn *c, struct dialect_progress *ret)
{
    const struct route_ops *ops = &c->s->opt.route;
    struct route_view v = {.stage = ROUTE_QUEUED};
    uint64_t waited_us = c->t_wait_us;
    unsigned state = c->phase == PHASE_BACKOFF ? PAUSING : c->phase < PHASE_CONNECT ? HAS_LEASE : SENT;
    *ret = (struct dialect_progress){
        .state = states[state], .model = c->model, .instance = str_from(c->leased ? c->lease.instance : "")};
    if (c->wait) {
        waited_us += clock_mono_us() - c->t_wait_from;
        if (ops->look)
            ops->look(ops->ctx, c->wait, &v);
        ret->state = states[v.stage];
        ret->position = v.position;
        ret->expected_known = v.expected_known;
        ret->expected_ms = v.expected_ms;
        ret->percent_known = v.stage == ROUTE_LOADING;
        ret->percent = v.percent;
    }
    ret->waited_ms = waited_us / 1000;
    ret->now_us = server_wall_ms(c->s, clock_mono_us()) * 1000;
}

static bool same(const struct dialect_progress *a, const struct dialect_progress *b)
{
    return a->state == b->state && a->position == b->position && a->percent == b->percent;
}

/* ---- telling ---- */

/* Whether a piece of ours may stand in the stream now. Where the backend's head was passed on, its framing is
 * known to be ours only while events are held back. */
static bool may_tell(const struct conn *c)
{
    if (c->ghost || conn_pending(c) || c->t_body || c->phase > PHASE_RELAY)
        return false;
    return c->phase < PHASE_RELAY || c->told || (c->held && !c->awake);
}

static void tell(struct progress *p, const struct dialect_progress *now)
{
    struct conn *c = p->c;
    struct buf out = {0};
    char head[2048] = "";
    size_t head_n = 0;
    p->said = *now;
    p->said.model = p->said.instance = (struct str){"", 0};
    p->said_ms = uv_now(c->s->loop);
    (void)buf_append(&out, (const char[READ_HEADROOM]){0}, READ_HEADROOM);
    c->call->progress(now, &out);
    if (c->phase < PHASE_RELAY && !c->told) {
        const char *type = c->call->stream_type ? c->call->stream_type : "text/event-stream";
        c->told = c->streamed = true;
        head_n = local_stream_head(c, 200, type, head, sizeof head);
    }
    struct str piece = response_stream_piece(c, &out, false);
    struct iovec iov[2] = {{head, head_n}, {(void *)(uintptr_t)piece.p, piece.n}};
    (void)conn_write(c, iov, 2);
    buf_release(&out);
}

static void on_tick(struct wheel_entry *e)
{
    struct progress *p = container_of(e, struct progress, timer);
    struct conn *c = p->c;
    struct dialect_progress now;
    uint64_t quiet_ms = uv_now(c->s->loop) - p->said_ms;
    if (c->t_body || c->ghost || c->phase > PHASE_RELAY)
        return;
    wheel_set(&c->s->wheel, e, TICK_MS);
    look(c, &now);
    if (may_tell(c) && (!same(&now, &p->said) || quiet_ms >= KEEP_ALIVE_MS))
        tell(p, &now); /* the last thing done: c may be closed by it */
}

void progress_begin(struct conn *c)
{
    if (c->progress || c->forwarded || c->method != HTTP_POST || !c->call || !c->call->progress || !asks(c) ||
        !streams(c))
        return;
    struct progress *p = c->progress = mem_new(struct progress);
    p->c = c;
    p->timer.fn = on_tick;
    p->said.state = "";
    p->said_ms = uv_now(c->s->loop);
    wheel_set(&c->s->wheel, &p->timer, TICK_MS);
}

void progress_tell(struct conn *c)
{
    struct dialect_progress now;
    if (!c->progress || !may_tell(c))
        return;
    look(c, &now);
    if (!same(&now, &c->progress->said))
        tell(c->progress, &now);
}

void progress_release(struct conn *c)
{
    if (!c->progress)
        return;
    wheel_remove(&c->s->wheel, &c->progress->timer);
    free(c->progress);
    c->progress = NULL;
}
