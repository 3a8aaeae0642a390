/* A relayed request's lease: what is asked of the route, the wait for it, and its return. Layer proxy; loop
 * thread only.
 *
 * Invariants: leased ⇔ the route waits for one release; wait ≠ NULL ⇔ it may call us back or be cancelled. */
#include "proxy/proxy_priv.h"

#include "base/clock.h"
#include "base/mem.h"

/* ---- giving it back ---- */

static uint32_t to_u32(uint64_t v)
{
    return v < UINT32_MAX ? (uint32_t)v : UINT32_MAX;
}

static void tell_tokens(struct conn *c)
{
    c->lease.prompt_tokens = to_u32(c->usage.prompt_tokens);
    c->lease.answer_tokens = to_u32(c->usage.completion_tokens);
    c->lease.cached_tokens = to_u32(c->usage.cached_tokens);
}

void relay_give_back(struct conn *c, enum route_end end)
{
    if (!c->leased)
        return;
    c->leased = false;
    c->s->count.relaying--;
    tell_tokens(c);
    c->s->opt.route.release(c->s->opt.route.ctx, &c->lease, c->lease_broken ? ROUTE_END_BROKEN : end);
}

void relay_stop_waiting(struct conn *c)
{
    void *wait = c->wait;
    if (!wait)
        return;
    c->wait = NULL;
    c->s->count.waiting--;
    c->s->opt.route.cancel(c->s->opt.route.ctx, wait);
}

/* ---- getting it ---- */

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
    relay_say_error(c, status, &err, r->retry_after_s);
}

/* The model is ready, and that was all that was asked for. */
static void answer_without_backend(struct conn *c)
{
    struct buf body = {0};
    made_answer_now(c, &body);
    relay_give_back(c, ROUTE_END_FINE);
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
        relay_connect(c, false);
}

static void granted(struct conn *c)
{
    struct err err;
    c->leased = true;
    c->address = 0;
    c->s->count.relaying++;
    if (c->told)
        progress_tell(c);
    if (c->phase == PHASE_CLOSED)
        return;
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

/* Anybody may stand back; to go ahead of others is for keys with
 * a priority, and for those who need no key. */
enum route_priority relay_priority(const struct conn *c)
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

/* The APIs that have such a request. What is handed on as it is, or has no name here, is for instances. */
static unsigned answered_by(const struct conn *c)
{
    const struct dialect_ask *asked = made_ask(c);
    bool known = asked || (c->call && !c->forwarded);
    return known ? dialect_answered_by(c->route->dialect, c->call, asked) : 0;
}

/* What makes no tokens: looks, templates, counts, and requests that only want the model ready. */
static bool needs_no_slot(const struct conn *c)
{
    const struct dialect_call *call = c->call;
    return c->method != HTTP_POST || made_nothing(c) || (call && call->light);
}

void relay_acquire(struct conn *c)
{
    struct route_refusal refusal;
    refusal.retry_after_s = 0;
    (void)err_set(&refusal.err, RC_INTERNAL, "the request was refused");
    const struct route_request req = {.model = c->model,
                                      .key_id = str_from(c->key ? c->key->spec.id : ""),
                                      .priority = relay_priority(c),
                                      .observe = c->observe,
                                      .wish = &c->wish,
                                      .body_bytes = c->in->body_n,
                                      .prompt = prompt_of(c),
                                      .waited_ms = (uint32_t)(c->t_wait_us / 1000),
                                      .light = needs_no_slot(c),
                                      .answered_by = answered_by(c),
                                      .path = c->path.n ? c->path : made_target(c),
                                      .tried = c->tried};
    const struct route_ops *ops = &c->s->opt.route;
    progress_begin(c);
    c->attempts++;
    c->phase = PHASE_LEASE;
    c->wait = NULL;
    switch (ops->acquire(ops->ctx, &req, on_lease, c, &c->lease, &c->wait, &refusal)) {
    case ROUTE_GRANTED: granted(c); break;
    case ROUTE_WAITING:
        c->t_wait_from = clock_mono_us();
        c->s->count.waiting++;
        progress_tell(c);
        break;
    case ROUTE_REFUSED: refused(c, &refusal); break;
    }
}

/* The model is known, and the request is in words in which it can be asked for. */
static void set_out(struct conn *c)
{
    if (made_embed(c))
        embed_begin(c);
    else
        relay_acquire(c);
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
    switch (translate_request(c, true, set_out, &err)) {
    case TRANSLATE_READY: set_out(c); break;
    case TRANSLATE_LATER: break;
    case TRANSLATE_REFUSED: relay_fail(c, rc_http_status(err.code), "refused", &err); break;
    }
}
