/* The best placement for one model: one device first, then the fewest, then a share of the layers, then the
 * host. Layer plan; pure. Devices beyond the first step are taken only when they are needed for the wish, a
 * shorter context only when no set of devices reaches it. The strategies differ in what they wish for and in
 * what they give up first; see resolve(). */
#include "plan/place_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const strategy_words[PLAN_STRATEGIES] = {"max-performance", "fit-vram", "balanced",
                                                            "power-efficient", "max-context"};

const char *plan_strategy_word(enum plan_strategy s)
{
    return s < PLAN_STRATEGIES ? strategy_words[s] : "unknown";
}

bool plan_strategy_from(struct str word, enum plan_strategy *ret_strategy, uint64_t *ret_limit_bytes)
{
    struct str rest = word, head = str_cut(&rest, ':');
    for (unsigned i = 0; i < PLAN_STRATEGIES; i++) {
        if (!str_eq_c(head, strategy_words[i]))
            continue;
        if (i == PLAN_FIT_VRAM) {
            uint64_t mib;
            if (!str_u64(rest, &mib) || mib == 0 || mib > UINT64_MAX / MIB)
                return false;
            *ret_limit_bytes = mib * MIB;
        } else if (head.n != word.n) {
            return false;
        }
        *ret_strategy = (enum plan_strategy)i;
        return true;
    }
    return false;
}

#define DEFAULT_MARGIN (256 * MIB)
#define DEFAULT_FLOOR  4096
#define COMFORT        16384
#define COMFORT_FAST   8192 /* speed first: room goes to larger micro-batches and plain caches */

void plan_policy_default(struct plan_policy *p)
{
    *p = (struct plan_policy){
        .strategy = PLAN_BALANCED, .kv_floor = GGML_Q4_0, .allow_cpu = true, .margin_bytes = DEFAULT_MARGIN};
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Would the runtime take a cache of this type? Blocks must divide the heads; a quantised V cache needs flash
 * attention. */
static bool kv_possible(const struct search *s, uint32_t type)
{
    const struct facts *f = &s->est.facts;
    const struct ggml_type_info *info = ggml_type_info(type);
    if (!info || (info->block > 1 && !s->base.flash_attn))
        return false;
    for (uint32_t il = 0; il < f->n_layer; il++)
        if (f->layers[il].cached && (f->layers[il].d_k % info->block || f->layers[il].d_v % info->block))
            return false;
    return true;
}

/* f16, q8_0, q4_0 down to the floor; max-context starts at q8_0: room for tokens is what it wants. */
static void resolve_kv(struct search *s)
{
    static const uint32_t types[] = {GGML_F16, GGML_Q8_0, GGML_Q4_0};
    const struct plan_policy *p = s->policy;
    if (p->kv_type_fixed) {
        s->kv[s->n_kv++] = (struct kv_choice){p->type_k, p->type_v};
        return;
    }
    for (size_t i = 0; i < TABLE_COUNT(types); i++) {
        if (i == 0 || kv_possible(s, types[i]))
            s->kv[s->n_kv++] = (struct kv_choice){types[i], types[i]};
        if (types[i] == p->kv_floor || (i == 1 && p->kv_floor != GGML_Q4_0))
            break;
        if (!s->est.facts.caches)
            break;
    }
}

static void resolve(struct search *s)
{
    const struct plan_policy *p = s->policy;
    uint32_t trained = s->m->context_train ? s->m->context_train : DEFAULT_FLOOR;
    s->ctx_given = p->ctx != 0;
    s->want_ctx = p->ctx ? p->ctx : trained;
    s->least_ctx = least(p->ctx_min ? p->ctx_min : DEFAULT_FLOOR, p->ctx ? p->ctx : trained);
    s->margin = p->margin_bytes;
    s->vram_limit = p->vram_limit_bytes ? p->vram_limit_bytes : UINT64_MAX;
    if (p->base)
        s->base = *p->base;
    else
        plan_params_default(&s->base);
    s->base.gpu_layers = PLAN_ALL_LAYERS;
    s->base.n_tensor_split = 0;
    s->base.parallel = p->parallel ? p->parallel : 4;
    s->base.batch = p->batch ? p->batch : 2048;
    s->base.ubatch = p->ubatch ? p->ubatch : 512;
    s->base.embedding = s->base.embedding || p->embedding;
    resolve_kv(s);
    if (!s->ctx_given && p->strategy == PLAN_POWER_EFFICIENT)
        s->want_ctx = least(trained, 8192);
    if (p->strategy == PLAN_MAX_CONTEXT && !p->ubatch)
        s->base.ubatch = 256;
    uint32_t comfort = p->strategy == PLAN_MAX_PERFORMANCE ? COMFORT_FAST : COMFORT;
    if (s->ctx_given || p->strategy == PLAN_MAX_CONTEXT)
        comfort = s->want_ctx;
    s->comfort_ctx = least(s->want_ctx, comfort);
    if (s->comfort_ctx < s->least_ctx)
        s->comfort_ctx = s->least_ctx;
}

/* ---- candidates ---- */

static bool is_pinned_device(const struct plan_device *d, const char *wanted)
{
    return !strcmp(d->name, wanted) || (d->uuid[0] && !strcmp(d->uuid, wanted));
}

static bool before(const struct search *s, uint32_t a, uint32_t b)
{
    const struct plan_device *x = &s->machine->devices[a], *y = &s->machine->devices[b];
    if (s->policy->strategy == PLAN_MAX_PERFORMANCE && x->bandwidth_gbps > 0 && y->bandwidth_gbps > 0 &&
        (x->bandwidth_gbps > 1.1 * y->bandwidth_gbps || y->bandwidth_gbps > 1.1 * x->bandwidth_gbps))
        return x->bandwidth_gbps > y->bandwidth_gbps;
    if (s->policy->strategy == PLAN_POWER_EFFICIENT)
        return x->total_bytes < y->total_bytes ||
               (x->total_bytes == y->total_bytes && x->free_bytes > y->free_bytes);
    return x->free_bytes > y->free_bytes;
}

static enum rc candidates(struct search *s, struct err *err)
{
    for (uint32_t i = 0; i < s->machine->n_devices; i++) {
        if (s->policy->device && !is_pinned_device(&s->machine->devices[i], s->policy->device))
            continue;
        if (s->machine->devices[i].free_bytes == 0)
            continue;
        uint32_t at = s->n_order++;
        while (at > 0 && before(s, i, s->order[at - 1])) {
            s->order[at] = s->order[at - 1];
            at--;
        }
        s->order[at] = i;
    }
    if (s->policy->device && s->n_order == 0) {
        enum rc rc =
            err_set(err, RC_NOT_FOUND, "%s is pinned to device '%s', which has no free memory or is not here",
                    s->m->name, s->policy->device);
        err_hint(err, "arriero gpus lists the devices");
        return rc;
    }
    return RC_OK;
}

/* The runtime numbers devices in the machine's order, whatever order they were preferred in. */
static uint32_t take(const struct search *s, uint32_t n, uint32_t *used)
{
    memcpy(used, s->order, n * sizeof *used);
    for (uint32_t i = 1; i < n; i++) {
        uint32_t d = used[i], at = i;
        for (; at > 0 && used[at - 1] > d; at--)
            used[at] = used[at - 1];
        used[at] = d;
    }
    return n;
}

static uint32_t gpu_limit(const struct search *s)
{
    return s->policy->max_gpus && s->policy->max_gpus < s->n_order ? s->policy->max_gpus : s->n_order;
}

/* ---- steps ---- */

static bool full_on(struct search *s, uint32_t n, uint32_t floor, struct attempt *ret)
{
    uint32_t used[PLAN_MAX_DEVICES];
    if (n == 1) { /* each alone, in the order of preference */
        for (uint32_t i = 0; i < s->n_order; i++)
            if (try_full(s, &s->order[i], 1, floor, ret))
                return true;
        return false;
    }
    take(s, n, used);
    return try_full(s, used, n, floor, ret);
}

/* All layers on one device, or on the fewest, for the longest of three contexts that any of them reaches. */
static bool find_full(struct search *s, struct attempt *ret)
{
    const uint32_t floors[] = {s->want_ctx, s->comfort_ctx, s->least_ctx};
    uint32_t last = 0;
    for (size_t k = 0; k < TABLE_COUNT(floors); k++) {
        if (floors[k] == last)
            continue;
        last = floors[k];
        /* without a wish, a comfortable context on fewer devices beats the trained one on more */
        if (k == 0 && !s->ctx_given && s->policy->strategy != PLAN_MAX_CONTEXT && floors[1] != floors[0])
            continue;
        for (uint32_t n = 1; n <= gpu_limit(s); n++)
            if (full_on(s, n, floors[k], ret))
                return true;
    }
    return false;
}

static bool find_partial(struct search *s, struct attempt *ret)
{
    uint32_t used[PLAN_MAX_DEVICES];
    struct attempt one;
    bool found = false;
    for (uint32_t n = 1; n <= gpu_limit(s); n = n < gpu_limit(s) ? gpu_limit(s) : n + 1) {
        take(s, n, used);
        if (try_partial(s, used, n, &one) &&
            (!found || one.speed.decode_tps > 1.05 * ret->speed.decode_tps)) {
            *ret = one;
            found = true;
        }
    }
    return found;
}

static bool find(struct search *s, struct attempt *ret)
{
    uint32_t used[PLAN_MAX_DEVICES];
    if (s->policy->gpu_layers_fixed) {
        for (uint32_t n = s->n_order ? 1 : 0; n <= gpu_limit(s); n++) {
            take(s, n, used);
            if (try_fixed(s, used, n, ret))
                return true;
            reason_add(s->out, "tried_fixed", "%d layers on %u GPUs: %s.", s->policy->gpu_layers, n,
                       s->shortfall);
        }
        return false;
    }
    if (s->n_order) {
        if (find_full(s, ret))
            return true;
        reason_add(s->out, "tried_full", "All layers on up to %u GPU%s with at least %u tokens: %s.",
                   gpu_limit(s), gpu_limit(s) == 1 ? "" : "s", s->least_ctx, s->shortfall);
    }
    if (!s->policy->allow_cpu)
        return false;
    if (s->n_order) {
        if (find_partial(s, ret))
            return true;
        reason_add(s->out, "tried_partial", "A share of the %s on the GPU: %s.",
                   has_experts(s) ? "experts" : "layers", s->shortfall);
    }
    if (try_host(s, ret))
        return true;
    reason_add(s->out, "tried_cpu", "Everything in RAM with %u tokens: %s.", s->least_ctx, s->shortfall);
    return false;
}

/* ---- after failed loads ---- */

enum rung {
    RUNG_Q8,
    RUNG_Q4,
    RUNG_HALF_CTX,
    RUNG_UBATCH,
    RUNG_LEAST_CTX,
    RUNG_LAYERS,
    RUNG_HALF_LAYERS,
    RUNG_CPU,
    RUNGS
};

static bool lower_kv(struct search *s, struct attempt *a, uint32_t type)
{
    if (s->policy->kv_type_fixed || !s->est.facts.caches || a->params.type_k == type ||
        a->params.type_k == GGML_Q4_0)
        return false;
    for (uint32_t i = 0; i < s->n_kv; i++) {
        if (s->kv[i].k == type) {
            a->params.type_k = a->params.type_v = type;
            return true;
        }
    }
    return false;
}

static bool lower_layers(struct search *s, struct attempt *a, uint32_t of)
{
    if (a->n_used == 0 || !s->policy->allow_cpu || s->policy->gpu_layers_fixed)
        return false;
    uint32_t all = s->est.facts.n_layer;
    a->params.n_tensor_split = 0;
    if (has_experts(s) && a->params.n_cpu_moe < all) {
        a->params.n_cpu_moe += (all - a->params.n_cpu_moe + of - 1) / of;
        return true;
    }
    uint32_t have = a->estimate.layers_gpu;
    a->params.gpu_layers = (int32_t)(have - have / of);
    return have / of > 0;
}

/* One step down; false if it would change nothing or is not allowed. */
static bool step_down(struct search *s, struct attempt *a, enum rung r)
{
    uint32_t ctx = a->params.ctx;
    switch (r) {
    case RUNG_Q8: return a->params.type_k == GGML_F16 && lower_kv(s, a, GGML_Q8_0);
    case RUNG_Q4: return lower_kv(s, a, GGML_Q4_0);
    case RUNG_HALF_CTX:
        a->params.ctx = ctx / 2 > s->least_ctx ? ctx / 2 : s->least_ctx;
        return a->params.ctx < ctx;
    case RUNG_UBATCH:
        if (a->params.ubatch <= 128)
            return false;
        a->params.ubatch = 128;
        return true;
    case RUNG_LEAST_CTX: a->params.ctx = s->least_ctx; return s->least_ctx < ctx;
    case RUNG_LAYERS: return lower_layers(s, a, 4);
    case RUNG_HALF_LAYERS: return lower_layers(s, a, 2);
    case RUNG_CPU:
        if (a->n_used == 0 || !s->policy->allow_cpu || s->policy->gpu_layers_fixed)
            return false;
        a->n_used = 0;
        a->params.gpu_layers = 0;
        a->params.n_cpu_moe = 0;
        a->params.n_tensor_split = 0;
        return true;
    case RUNGS: break;
    }
    return false;
}

static bool descend(struct search *s, struct attempt *a)
{
    static const char *const words[RUNGS] = {"cache as q8_0",        "cache as q4_0", "half the context",
                                             "micro-batches of 128", "least context", "fewer GPU layers",
                                             "half the GPU layers",  "CPU only"};
    uint32_t done = 0;
    for (unsigned r = 0; r < RUNGS && done < s->policy->ladder; r++) {
        struct attempt next = *a;
        if (!step_down(s, &next, (enum rung)r) || !try_fits(s, &next))
            continue;
        *a = next;
        done++;
        reason_add(s->out, "ladder", "After a failed load, step %u of %u: %s.", done, s->policy->ladder,
                   words[r]);
    }
    return done == s->policy->ladder;
}

/* ---- the answer ---- */

/* Prompts are read faster in larger parts, if there is room for their work beside the context. */
static void widen(struct search *s, struct attempt *a)
{
    if (s->policy->strategy != PLAN_MAX_PERFORMANCE || s->policy->ubatch || s->policy->ladder || !a->n_used)
        return;
    for (uint32_t ubatch = 2048; ubatch > s->base.ubatch; ubatch /= 2) {
        struct attempt next = *a;
        next.params.ubatch = ubatch;
        if (try_fits(s, &next)) {
            *a = next;
            reason_add(s->out, "ubatch", "Prompts are read %u tokens at a time, since there is room for it.",
                       ubatch);
            return;
        }
    }
}

static void fill(struct search *s, const struct attempt *a)
{
    struct plan *out = s->out;
    out->fits = true;
    out->estimate = a->estimate;
    /* A server looks at its clients between two batches: only several GPUs, which work on the parts of one
     * batch at the same time, repay a longer one. It changes no byte. */
    struct plan_params *p = &out->estimate.params;
    if (!s->policy->batch && !p->embedding && a->n_used <= 1)
        p->batch = p->ubatch;
    out->n_used = a->n_used;
    memcpy(out->used, a->used, a->n_used * sizeof *a->used);
    out->speed = a->speed;
    reasons_of(s, a);
}

static enum rc no_fit(struct search *s, struct err *err)
{
    if (s->shortfall[0] == '\0')
        snprintf(s->shortfall, sizeof s->shortfall, "no step could be tried");
    enum rc rc = err_set(err, RC_NO_FIT, "%s does not fit: %s", s->m->name, s->shortfall);
    err_hint(err, "free memory, allow a shorter context, or use a smaller quantisation");
    return rc;
}

static enum rc run(struct search *s, struct err *err)
{
    resolve(s);
    enum rc rc = candidates(s, err);
    if (rc)
        return rc;
    /* what the runtime refuses, no search can mend */
    struct plan_estimate probe;
    struct plan_params p = s->base;
    p.ctx = s->least_ctx;
    p.type_k = s->kv[0].k;
    p.type_v = s->kv[0].v;
    rc = estimator_run(&s->est, &p, NULL, 0, false, &probe, err);
    if (rc)
        return rc;
    struct attempt *a = mem_calloc(1, sizeof *a);
    if (!find(s, a)) {
        rc = no_fit(s, err);
    } else if (!descend(s, a)) {
        rc = err_set(err, RC_NO_FIT, "%s: no step is left after %u failed loads", s->m->name,
                     s->policy->ladder);
    } else {
        widen(s, a);
        try_speed(s, a);
        fill(s, a);
    }
    free(a);
    return rc;
}

enum rc plan_place(const struct model *m, const struct plan_policy *policy,
                   const struct plan_machine *machine, struct plan *ret_plan, struct err *err)
{
    struct search *s = mem_calloc(1, sizeof *s);
    *s = (struct search){.m = m, .policy = policy, .machine = machine, .out = ret_plan};
    enum rc rc = estimator_init(&s->est, m, err);
    if (!rc) {
        *ret_plan = (struct plan){.strategy = policy->strategy};
        rc = run(s, err);
        estimator_release(&s->est);
    }
    free(s);
    return rc;
}

void plan_alternatives(const struct model *m, const struct plan_policy *policy,
                       const struct plan_machine *machine, struct plan *plan)
{
    plan->n_alternatives = 0;
    struct plan *other = mem_calloc(1, sizeof *other);
    for (unsigned i = 0; i < PLAN_STRATEGIES; i++) {
        struct plan_policy p = *policy;
        p.strategy = (enum plan_strategy)i;
        if (p.strategy == policy->strategy || (p.strategy == PLAN_FIT_VRAM && !p.vram_limit_bytes))
            continue;
        struct plan_alternative *alt = &plan->alternatives[plan->n_alternatives++];
        struct err err;
        alt->strategy = p.strategy;
        alt->fits = plan_place(m, &p, machine, other, &err) == RC_OK;
        const struct plan_params *q = &other->estimate.params;
        if (!alt->fits)
            snprintf(alt->text, sizeof alt->text, "%.190s", err.message);
        else
            snprintf(alt->text, sizeof alt->text,
                     "%u GPU%s, %u of %u layers, %u tokens, cache %s, %.1f tokens/s", other->n_used,
                     other->n_used == 1 ? "" : "s", other->estimate.layers_gpu,
                     other->estimate.layers_gpu + other->estimate.layers_cpu, q->ctx, kv_word(q->type_k),
                     other->speed.decode_tps);
    }
    free(other);
}
