/* Tokens for bytes and bytes for tokens. Layer plan; pure; see plan.h. Memory grows with the context, so the
 * inverse is found by bisection over estimates in steps of 256 tokens; every answer is checked from both
 * sides by the estimate itself. */
#include "plan/plan.h"

#include "base/mem.h"
#include "plan/memory.h"

#include <stdio.h>

#define STEP 256

static void add_up(const struct plan_estimate *e, struct plan_need *ret)
{
    *ret = (struct plan_need){.ctx = e->params.ctx};
    for (size_t i = 0; i < e->n_parts; i++) {
        const struct plan_part *p = &e->parts[i];
        ret->model_bytes += p->model_bytes;
        ret->context_bytes += p->context_bytes;
        ret->compute_bytes += p->compute_bytes;
        ret->overhead_bytes += p->overhead_bytes;
        if (p->kind == PLAN_HOST)
            ret->host_bytes += plan_part_total(p);
        else
            ret->device_bytes += plan_part_total(p);
    }
}

enum rc plan_predict_memory(const struct model *m, const struct plan_params *params,
                            const struct plan_device *devices, size_t n_devices, uint32_t tokens,
                            struct plan_need *ret_need, struct err *err)
{
    struct plan_params p = *params;
    struct plan_estimate e;
    p.ctx = tokens;
    enum rc rc = plan_estimate(m, &p, devices, n_devices, &e, err);
    if (!rc)
        add_up(&e, ret_need);
    return rc;
}

/* ---- the inverse ---- */

struct question {
    const struct model *m;
    const struct plan_device *devices;
    size_t n_devices;
    struct plan_params params;
    bool (*fits)(const struct plan_estimate *e, const void *arg);
    const void *arg;
};

static enum rc ask(const struct question *q, struct estimator *est, uint32_t ctx, bool *ret_fits,
                   struct err *err)
{
    struct plan_params p = q->params;
    struct plan_estimate e;
    p.ctx = ctx;
    enum rc rc = estimator_run(est, &p, q->devices, q->n_devices, false, &e, err);
    *ret_fits = !rc && q->fits(&e, q->arg);
    return rc;
}

/* The longest context up to `most` that fits, 0 if not even one step does. */
static enum rc longest(const struct question *q, uint32_t most, uint32_t *ret_ctx, struct err *err)
{
    struct estimator est;
    bool fits = false;
    uint32_t lo = 0, hi = most / STEP + 1;
    enum rc rc = estimator_init(&est, q->m, err);
    if (rc)
        return rc;
    while (!rc && hi - lo > 1) {
        uint32_t n = lo + (hi - lo) / 2;
        rc = ask(q, &est, n * STEP, &fits, err);
        if (fits)
            lo = n;
        else
            hi = n;
    }
    estimator_release(&est);
    if (!rc)
        *ret_ctx = lo * STEP;
    return rc;
}

static bool within(const struct plan_estimate *e, const void *arg)
{
    struct plan_need need;
    add_up(e, &need);
    return (e->n_parts > 1 ? need.device_bytes : need.host_bytes) <= *(const uint64_t *)arg;
}

#define CTX_MAX (1u << 24)

static uint32_t most_of(const struct model *m)
{
    return m->context_train ? m->context_train : CTX_MAX;
}

enum rc plan_suggest_context(const struct model *m, const struct plan_params *params,
                             const struct plan_device *devices, size_t n_devices, uint64_t available_bytes,
                             uint32_t *ret_ctx, struct err *err)
{
    const struct question q = {.m = m,
                               .devices = devices,
                               .n_devices = n_devices,
                               .params = *params,
                               .fits = within,
                               .arg = &available_bytes};
    return longest(&q, most_of(m), ret_ctx, err);
}

struct rooms {
    uint64_t bytes[PLAN_MAX_DEVICES + 1]; /* the host's last */
};

static bool within_rooms(const struct plan_estimate *e, const void *arg)
{
    const struct rooms *r = arg;
    for (size_t i = 0; i < e->n_parts; i++)
        if (plan_part_total(&e->parts[i]) > r->bytes[i])
            return false;
    return true;
}

enum rc plan_room_tokens(const struct model *m, const struct plan *plan, const struct plan_machine *machine,
                         uint64_t margin_bytes, uint32_t *ret_ctx, struct err *err)
{
    struct plan_device devices[PLAN_MAX_DEVICES];
    struct rooms rooms;
    for (uint32_t i = 0; i < plan->n_used; i++) {
        devices[i] = machine->devices[plan->used[i]];
        rooms.bytes[i] = devices[i].free_bytes > margin_bytes ? devices[i].free_bytes - margin_bytes : 0;
    }
    const struct plan_part *host = &plan->estimate.parts[plan->estimate.n_parts - 1];
    rooms.bytes[plan->n_used] =
        machine->host.free_bytes > host->overhead_bytes ? machine->host.free_bytes - host->overhead_bytes : 0;
    const struct question q = {.m = m,
                               .devices = devices,
                               .n_devices = plan->n_used,
                               .params = plan->estimate.params,
                               .fits = within_rooms,
                               .arg = &rooms};
    return longest(&q, most_of(m), ret_ctx, err);
}

/* ---- what to give up ---- */

static uint64_t device_need(const struct plan_need *n, size_t n_devices)
{
    return n_devices ? n->device_bytes : n->host_bytes;
}

static const char *word_of(uint32_t type)
{
    const struct ggml_type_info *info = ggml_type_info(type);
    return info ? info->word : "unknown";
}

/* A plainer cache first, then a shorter context with the cache as it is. */
static enum rc give_bytes(const struct model *m, const struct plan_params *p,
                          const struct plan_device *devices, size_t n, uint64_t short_bytes,
                          struct plan_prune *ret, struct err *err)
{
    static const uint32_t types[] = {GGML_Q8_0, GGML_Q4_0};
    struct plan_need now, then;
    char size[32];
    enum rc rc = plan_predict_memory(m, p, devices, n, p->ctx, &now, err);
    if (rc)
        return rc;
    uint64_t have = device_need(&now, n), goal = have > short_bytes ? have - short_bytes : 0;
    for (size_t i = 0; i < TABLE_COUNT(types); i++) {
        struct plan_params lower = *p;
        lower.type_k = lower.type_v = types[i];
        if (p->type_k == types[i] || p->type_k == GGML_Q4_0 ||
            plan_predict_memory(m, &lower, devices, n, p->ctx, &then, NULL) || device_need(&then, n) > goal)
            continue;
        *ret = (struct plan_prune){.what = PLAN_PRUNE_KV_TYPE,
                                   .ctx = p->ctx,
                                   .kv_type = types[i],
                                   .frees_bytes = have - device_need(&then, n),
                                   .restart = true};
        snprintf(ret->text, sizeof ret->text, "Load it again with the cache as %s: that frees %s.",
                 word_of(types[i]), str_human_bytes(ret->frees_bytes, size, sizeof size));
        return RC_OK;
    }
    uint32_t ctx = 0;
    rc = plan_suggest_context(m, p, devices, n, goal, &ctx, err);
    if (rc)
        return rc;
    if (ctx >= p->ctx)
        ctx = 0;
    *ret = (struct plan_prune){.what = ctx ? PLAN_PRUNE_CONTEXT : PLAN_PRUNE_IMPOSSIBLE,
                               .ctx = ctx,
                               .kv_type = p->type_k,
                               .restart = ctx > 0};
    if (ctx && !(rc = plan_predict_memory(m, p, devices, n, ctx, &then, err)))
        ret->frees_bytes = have - device_need(&then, n);
    snprintf(ret->text, sizeof ret->text,
             ctx ? "Load it again with a context of %u tokens: that frees %s."
                 : "No cache is small enough: even %u tokens leave it %s short.",
             ctx, str_human_bytes(ctx ? ret->frees_bytes : short_bytes, size, sizeof size));
    return rc;
}

enum rc plan_recommend_prune(const struct model *m, const struct plan_params *params,
                             const struct plan_device *devices, size_t n_devices,
                             const struct plan_kv_use *use, struct plan_prune *ret_prune, struct err *err)
{
    double threshold = use->threshold > 0 ? use->threshold : 0.9;
    if (use->short_bytes)
        return give_bytes(m, params, devices, n_devices, use->short_bytes, ret_prune, err);
    *ret_prune = (struct plan_prune){.what = PLAN_PRUNE_NONE, .ctx = params->ctx, .kv_type = params->type_k};
    if (use->tokens_used < threshold * params->ctx) {
        snprintf(ret_prune->text, sizeof ret_prune->text, "Nothing to do: %u of %u tokens are in use.",
                 use->tokens_used, params->ctx);
    } else if (use->idle_tokens) {
        ret_prune->what = PLAN_PRUNE_IDLE_SLOTS;
        ret_prune->frees_tokens = use->idle_tokens;
        snprintf(ret_prune->text, sizeof ret_prune->text, "Erase the idle slots: that frees %u of %u tokens.",
                 use->idle_tokens, params->ctx);
    } else {
        ret_prune->what = PLAN_PRUNE_SHIFT;
        ret_prune->frees_tokens = use->tokens_used / 2;
        snprintf(ret_prune->text, sizeof ret_prune->text,
                 "Drop the older half of the conversation: that frees %u of %u tokens.",
                 ret_prune->frees_tokens, params->ctx);
    }
    return RC_OK;
}
