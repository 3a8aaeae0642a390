/* What clients wish of an instance beside an answer: how long it stays, how much context it has; and looks at
 * it that do not count as use. See pool.h. */
#include "pool/pool_priv.h"

#include <stdio.h>

#define USUAL_FLOOR 4096u /* loads have so much anyway, see plan_policy.ctx_min */

void pool_keep(struct pool *p, const struct pool_lease *lease, uint64_t ms)
{
    struct pool_instance *i = p->instances;
    while (i && i->serial != lease->serial)
        i = i->next;
    if (!i || (ms < i->keep_ms && i->entry && i->entry->lead->pinned))
        return;
    i->keep_ms = ms;
    i->kept = true;
    if (i->state == POOL_READY && i->busy == 0)
        instance_idle(i);
}

bool pool_observe(struct pool *p, struct str model, struct pool_lease *ret_lease, struct err *err)
{
    const struct entry *e = entry_find(p, model);
    if (!e) {
        (void)entry_unknown(p, model, err);
        return false;
    }
    const struct pool_instance *i = NULL;
    for (const struct entry *s = e; s && !(i && i->state == POOL_READY); s = s->twin)
        i = s->current;
    if (!i || i->state != POOL_READY) {
        (void)err_set(err, RC_INVALID, "model %s is not loaded", e->id);
        err_hint(err, "load it first: arriero load %s, POST /models/load, or ask with autoload=true", e->id);
        return false;
    }
    lease_describe(i, ret_lease);
    ret_lease->serial = 0; /* nothing is to be given back */
    return true;
}

/* ---- context ---- */

/* Tokens that one conversation may have. */
static uint32_t slot_tokens(const struct pool_instance *i)
{
    const struct plan_params *p = &i->plan.estimate.params;
    return p->kv_unified || p->parallel == 0 ? p->ctx : p->ctx / p->parallel;
}

/* Whether it could be loaded so now, in its own place, without others having to leave. */
static bool would_fit(struct pool *p, const struct entry *e, uint32_t tokens)
{
    struct err err;
    struct plan_policy policy = e->policy;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *plan = NULL;
    policy.ctx_min = tokens;
    bool fits = pool_plan(p, str_from(e->id), &policy, doc, &plan, &err) == RC_OK &&
                yyjson_mut_get_bool(yyjson_mut_obj_get(plan, "fits")) &&
                !yyjson_mut_get_bool(yyjson_mut_obj_get(plan, "waits")) &&
                yyjson_mut_arr_size(yyjson_mut_obj_get(plan, "victims")) == 0;
    yyjson_mut_doc_free(doc);
    return fits;
}

/* A client that asks again and again is not worth a plan each time, as long as nothing came or went. */
static bool was_denied(const struct entry *e, uint32_t tokens)
{
    return e->ctx_denied.tokens && tokens >= e->ctx_denied.tokens &&
           e->ctx_denied.launches == e->pool->launches;
}

void pool_widen(struct pool *p, struct str model, uint64_t tokens)
{
    struct entry *e = entry_find(p, model);
    if (!e || e->twin || e->policy.ctx || e->n_waiting || e->demand == DEMAND_PREPARING ||
        e->demand == DEMAND_BLOCKED)
        return;
    struct pool_instance *i = e->current;
    struct plan_reason r;
    if (i && (i->state != POOL_READY || i->suspect || i->busy || e->pinned))
        return;
    uint32_t most = i && i->facts ? i->facts->context_train : UINT32_MAX;
    uint32_t wanted = tokens < most ? (uint32_t)tokens : most;
    if ((i ? slot_tokens(i) : USUAL_FLOOR) >= wanted || e->ctx_floor >= wanted || was_denied(e, wanted))
        return;
    if (!would_fit(p, e, wanted)) {
        e->ctx_denied.tokens = wanted;
        e->ctx_denied.launches = p->launches;
        return;
    }
    e->ctx_floor = wanted;
    if (!i)
        return;
    reason_set(&r, "context", "a client needs %u tokens of context, it has %u", wanted, slot_tokens(i));
    decide(p, "unload", e, i, &r, 1, NULL, 0);
    instance_detach(i);
    instance_stop(i, STOP_DRAIN);
}
