/* The proxy's abstract route over the pool. Layer daemon; loop thread.
 *
 * A granted lease keeps the pool's lease in `ref`, with what the client wishes for the time after it, until
 * it is given back. A waiting request is a struct waiting: it ends with the pool's callback or with cancel,
 * whichever comes first; unloading cannot be cancelled, so there it ends with the callback. */
#include "daemon/daemon_priv.h"

#include <stdio.h>
#include <string.h>

/* How long the instance is to stay after the answer; see pool_keep. */
struct keep {
    bool given;
    uint64_t ms;
};

struct held { /* route_lease.ref */
    struct pool_lease lease;
    struct keep keep;
};

struct waiting {
    struct daemon *d;
    struct pool_wait *wait; /* NULL: for an unload */
    route_cb cb;
    void *arg;
    bool cancelled;
    struct keep keep;
    char asked[256]; /* the client's spelling, to tell whether it must be replaced */
};

static struct keep keep_of(const struct dialect_wish *wish)
{
    if (!wish || !wish->keep_given)
        return (struct keep){false, 0};
    return (struct keep){true, wish->keep_ms < 0 ? UINT64_MAX : (uint64_t)wish->keep_ms};
}

/* The runtime's own, unless the configuration says otherwise; OpenAI's all of them speak. */
static unsigned speaks(const struct config_list *configured, unsigned own)
{
    unsigned bits = DIALECT_BIT(OPENAI);
    for (size_t i = 0; i < configured->n; i++)
        bits |= 1u << dialect_find(str_from(configured->items[i]));
    return configured->n ? bits : own;
}

static void lease_from(const struct daemon *d, const struct pool_lease *from, struct str asked,
                       struct keep keep, struct route_lease *ret)
{
    struct held *own = mem_new(struct held);
    *own = (struct held){.lease = *from, .keep = keep};
    *ret = (struct route_lease){.port = from->port,
                                .ref = own,
                                .wake_member = from->wake_member,
                                .wake_event = from->wake_event,
                                .collect_members = from->collect_members,
                                .speaks = speaks(&d->config->dialects, from->speaks)};
    snprintf(ret->host, sizeof ret->host, "%s", from->host);
    snprintf(ret->model, sizeof ret->model, "%s", from->model);
    snprintf(ret->instance, sizeof ret->instance, "%s", from->instance);
    ret->replace_model = asked.n > 0 && !str_eq_c(asked, from->model);
}

static void on_acquired(void *arg, enum rc rc, const struct pool_lease *lease, const struct err *err,
                        uint32_t retry_after_s)
{
    struct waiting *w = arg;
    w->d->doing = "a lease for a waiting request";
    if (rc == RC_OK) {
        struct route_lease out;
        lease_from(w->d, lease, str_from(w->asked), w->keep, &out);
        w->cb(w->arg, &out, NULL);
    } else {
        struct route_refusal refusal = {.err = *err, .retry_after_s = retry_after_s};
        w->cb(w->arg, NULL, &refusal);
    }
    free(w);
}

/* Without a model in the request the only one there is will do. */
static bool choose_model(struct daemon *d, struct str *model, struct err *err)
{
    if (model->n)
        return true;
    if (d->set->n == 1) {
        *model = str_from(d->set->models[0].id);
        return true;
    }
    enum rc rc = err_set(err, RC_INVALID, "the request names no model");
    err_hint(err, "add \"model\" to the body; GET /v1/models lists %zu", d->set->n);
    return rc == RC_OK;
}

/* A look takes what is ready, and gives nothing back. */
static enum route_answer observe(struct daemon *d, struct str model, struct str asked,
                                 struct route_lease *ret_lease, struct route_refusal *ret_refusal)
{
    struct pool_lease lease;
    if (!pool_observe(d->pool, model, &lease, &ret_refusal->err)) {
        ret_refusal->retry_after_s = 0;
        return ROUTE_REFUSED;
    }
    lease_from(d, &lease, asked, (struct keep){false, 0}, ret_lease);
    return ROUTE_GRANTED;
}

static void on_left(void *arg, enum rc rc, const struct err *err)
{
    struct waiting *w = arg;
    w->d->doing = "a request that unloads its model";
    if (w->cancelled) {
        free(w);
    } else if (rc != RC_OK) {
        on_acquired(w, rc, NULL, err, 0);
    } else {
        struct pool_lease gone = {.speaks = DIALECT_BIT(OPENAI)}; /* nothing will be asked of it */
        snprintf(gone.model, sizeof gone.model, "%.191s", w->asked);
        on_acquired(w, RC_OK, &gone, NULL, 0);
    }
}

/* The client wants no answer, but that the model leaves. */
static enum route_answer leave(struct waiting *w, struct str model, void **ret_wait,
                               struct route_refusal *ret_refusal)
{
    struct pool_lease unused;
    const char *known = pool_resolve(w->d->pool, model);
    if (!known) {
        (void)pool_observe(w->d->pool, model, &unused, &ret_refusal->err);
        ret_refusal->retry_after_s = 0;
        free(w);
        return ROUTE_REFUSED;
    }
    snprintf(w->asked, sizeof w->asked, "%s", known);
    w->keep.given = false;
    *ret_wait = w;
    pool_unload(w->d->pool, str_from(known), false, on_left, w);
    return ROUTE_WAITING;
}

static enum route_answer acquire(void *ctx, const struct route_request *req, route_cb cb, void *arg,
                                 struct route_lease *ret_lease, void **ret_wait,
                                 struct route_refusal *ret_refusal)
{
    struct daemon *d = ctx;
    struct str model = req->model;
    d->doing = "a request's route";
    struct waiting *w = mem_new(struct waiting);
    *w = (struct waiting){.d = d, .cb = cb, .arg = arg, .keep = keep_of(req->wish)};
    snprintf(w->asked, sizeof w->asked, "%.*s", STR_ARG(req->model));
    struct route_refusal refusal = {.retry_after_s = 0};
    if (!choose_model(d, &model, &refusal.err)) {
        *ret_refusal = refusal;
        free(w);
        return ROUTE_REFUSED;
    }
    if (req->observe) {
        free(w);
        return observe(d, model, req->model, ret_lease, ret_refusal);
    }
    if (req->wish && req->wish->leave)
        return leave(w, model, ret_wait, ret_refusal);
    if (req->wish && req->wish->context)
        pool_widen(d->pool, model, req->wish->context);
    struct pool_lease lease;
    enum pool_answer answer =
        pool_acquire(d->pool, model, on_acquired, w, &lease, &w->wait, &refusal.retry_after_s, &refusal.err);
    if (answer == POOL_WAITING) {
        *ret_wait = w;
        return ROUTE_WAITING;
    }
    if (answer == POOL_GRANTED)
        lease_from(d, &lease, str_from(w->asked), w->keep, ret_lease);
    else
        *ret_refusal = refusal;
    free(w);
    return answer == POOL_GRANTED ? ROUTE_GRANTED : ROUTE_REFUSED;
}

static void cancel(void *ctx, void *wait)
{
    struct daemon *d = ctx;
    struct waiting *w = wait;
    w->cancelled = true;
    if (!w->wait)
        return;
    pool_cancel(d->pool, w->wait);
    free(w);
}

static void release(void *ctx, struct route_lease *lease, bool broken)
{
    struct daemon *d = ctx;
    struct held *own = lease->ref;
    lease->ref = NULL;
    if (own->keep.given)
        pool_keep(d->pool, &own->lease, own->keep.ms);
    pool_release(d->pool, &own->lease, broken);
    free(own);
}

static const char *resolve(void *ctx, struct str model)
{
    struct daemon *d = ctx;
    return choose_model(d, &model, NULL) ? pool_resolve(d->pool, model) : NULL;
}

void route_ops_init(struct daemon *d, struct route_ops *ret_ops)
{
    *ret_ops = (struct route_ops){
        .ctx = d, .acquire = acquire, .cancel = cancel, .resolve = resolve, .release = release};
}
