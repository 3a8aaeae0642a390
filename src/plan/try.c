/* What fits on one set of devices. Layer plan; pure; see place_priv.h. Memory grows with the context, with
 * the number of layers on a device and with every expert moved to it, so each limit is found by bisection. */
#include "plan/place_priv.h"

#include <stdio.h>
#include <string.h>

bool has_experts(const struct search *s)
{
    return s->est.facts.n_expert > 0;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static void note_short(struct search *s, const struct plan_part *p, uint64_t room)
{
    char need[32], have[32];
    snprintf(s->shortfall, sizeof s->shortfall, "%s needs %s and has %s", p->name,
             str_human_bytes(plan_part_total(p), need, sizeof need),
             str_human_bytes(room, have, sizeof have));
}

/* Room that a plan may fill on each device, and over all of them. */
static bool judge(struct search *s, const struct attempt *a)
{
    const struct plan_estimate *e = &a->estimate;
    uint64_t vram = 0;
    for (uint32_t i = 0; i < a->n_used; i++) {
        uint64_t room = minus(s->machine->devices[a->used[i]].free_bytes, s->margin);
        uint64_t need = plan_part_total(&e->parts[i]);
        vram += need;
        if (need > room) {
            note_short(s, &e->parts[i], room);
            return false;
        }
    }
    if (vram > s->vram_limit) {
        char need[32], have[32];
        snprintf(s->shortfall, sizeof s->shortfall, "it takes %s of device memory and the limit is %s",
                 str_human_bytes(vram, need, sizeof need), str_human_bytes(s->vram_limit, have, sizeof have));
        return false;
    }
    const struct plan_part *host = &e->parts[e->n_parts - 1];
    if (plan_part_total(host) > s->machine->host.free_bytes) {
        note_short(s, host, s->machine->host.free_bytes);
        return false;
    }
    return true;
}

static void devices_of(const struct search *s, const struct attempt *a, struct plan_device *ret)
{
    for (uint32_t i = 0; i < a->n_used; i++)
        ret[i] = s->machine->devices[a->used[i]];
}

static bool estimate(struct search *s, struct attempt *a)
{
    struct plan_device devices[PLAN_MAX_DEVICES];
    devices_of(s, a, devices);
    s->evaluations++;
    if (estimator_run(&s->est, &a->params, devices, a->n_used, false, &a->estimate, NULL) != RC_OK)
        return false;
    plan_host_overhead(&s->machine->host, &a->estimate);
    return true;
}

void try_speed(struct search *s, struct attempt *a)
{
    struct plan_device devices[PLAN_MAX_DEVICES];
    struct plan_estimate sizes;
    devices_of(s, a, devices);
    if (estimator_sizes(&s->est, &a->params, devices, a->n_used, &sizes, NULL) == RC_OK)
        speed_of(&s->est.layout, s->machine, &a->speed);
}

/* Shares by free memory can overfill the last device, which also holds the output: layers move from the
 * device that is over to the one with the most room left. */
static bool balance(struct search *s, struct attempt *a)
{
    float *split = a->params.tensor_split;
    uint32_t layers = s->est.facts.n_layer + 1;
    for (uint32_t i = 0; i < a->n_used; i++)
        split[i] = a->estimate.params.tensor_split[i];
    a->params.n_tensor_split = a->n_used;
    for (uint32_t step = 0; step < layers; step++) {
        uint32_t over = 0, spare = 0;
        int64_t worst = INT64_MAX, best = INT64_MIN;
        for (uint32_t i = 0; i < a->n_used; i++) {
            int64_t left = (int64_t)minus(s->machine->devices[a->used[i]].free_bytes, s->margin) -
                           (int64_t)plan_part_total(&a->estimate.parts[i]);
            if (left < worst) {
                worst = left;
                over = i;
            }
            if (left > best) {
                best = left;
                spare = i;
            }
        }
        int64_t layer =
            (int64_t)(a->estimate.parts[over].model_bytes + a->estimate.parts[over].context_bytes) /
            (split[over] > 0 ? (int64_t)split[over] : 1);
        if (worst >= 0 || best < layer || split[over] < 1)
            return worst >= 0 && judge(s, a);
        split[over] -= 1;
        split[spare] += 1;
        if (!estimate(s, a))
            return false;
    }
    return judge(s, a);
}

bool try_fits(struct search *s, struct attempt *a)
{
    if (!estimate(s, a))
        return false;
    if (judge(s, a))
        return true;
    return a->n_used > 1 && balance(s, a);
}

static void start(struct search *s, const uint32_t *used, uint32_t n_used, struct attempt *a)
{
    memset(a, 0, sizeof *a);
    a->params = s->base;
    a->n_used = n_used;
    if (n_used > 0)
        for (uint32_t i = 0; i < n_used; i++)
            a->used[i] = used[i];
}

static bool with_ctx(struct search *s, struct attempt *a, uint32_t ctx)
{
    a->params.ctx = ctx;
    a->params.n_tensor_split = 0;
    return try_fits(s, a);
}

/* ---- the largest of something ---- */

#define CTX_STEP 256

enum amount { AMOUNT_CTX, AMOUNT_LAYERS, AMOUNT_EXPERTS };

static void set_amount(const struct search *s, struct attempt *a, enum amount what, uint32_t n)
{
    a->params.n_tensor_split = 0;
    if (what == AMOUNT_CTX)
        a->params.ctx = n * CTX_STEP;
    else if (what == AMOUNT_LAYERS)
        a->params.gpu_layers = (int32_t)n;
    else
        a->params.n_cpu_moe = s->est.facts.n_layer - n;
}

/* Would it fit if the graph took what it took in `like`? Exact but for that; over several devices the sum
 * decides, since layers can be moved between them. */
static bool likely(struct search *s, struct attempt *a, const struct plan_estimate *like)
{
    struct plan_device devices[PLAN_MAX_DEVICES];
    struct plan_estimate e;
    uint64_t need = 0, room = 0;
    devices_of(s, a, devices);
    if (estimator_sizes(&s->est, &a->params, devices, a->n_used, &e, NULL) != RC_OK)
        return false;
    for (uint32_t i = 0; i < a->n_used; i++) {
        need += plan_part_total(&e.parts[i]) + like->parts[i].compute_bytes;
        room += minus(devices[i].free_bytes, s->margin);
    }
    uint64_t host = plan_part_total(&e.parts[a->n_used]) + like->parts[a->n_used].compute_bytes;
    return need <= room && need <= s->vram_limit && host <= s->machine->host.free_bytes;
}

static uint32_t guess(struct search *s, struct attempt *a, enum amount what, uint32_t lo, uint32_t hi,
                      const struct plan_estimate *like)
{
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;
        set_amount(s, a, what, mid);
        if (likely(s, a, like))
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* The largest amount in [lo, hi) that fits. *a holds the attempt at lo, which fits; hi does not. Sizes are
 * bisected without the graph, and each guess is then tried in full; near the end neighbours are tried. */
static void maximise(struct search *s, struct attempt *a, enum amount what, uint32_t lo, uint32_t hi)
{
    struct attempt best = *a, next = *a;
    struct plan_estimate like = a->estimate;
    while (hi - lo > 1) {
        uint32_t n = guess(s, &next, what, lo, hi, &like);
        if (n == lo)
            n = lo + 1;
        set_amount(s, &next, what, n);
        bool fits = try_fits(s, &next);
        like = next.estimate;
        if (fits) {
            lo = n;
            best = next;
        } else {
            hi = n;
        }
    }
    *a = best;
}

static void set_kv(struct attempt *a, struct kv_choice kv)
{
    a->params.type_k = kv.k;
    a->params.type_v = kv.v;
}

/* *a fits with its context; makes that the longest up to the wish. */
static bool longest(struct search *s, struct attempt *a)
{
    struct attempt all = *a;
    if (a->params.ctx >= s->want_ctx)
        return true;
    if (with_ctx(s, &all, s->want_ctx))
        *a = all;
    else
        maximise(s, a, AMOUNT_CTX, a->params.ctx / CTX_STEP, s->want_ctx / CTX_STEP + 1);
    return true;
}

bool try_full(struct search *s, const uint32_t *used, uint32_t n_used, uint32_t least, struct attempt *ret)
{
    start(s, used, n_used, ret);
    set_kv(ret, s->kv[s->n_kv - 1]);
    if (!with_ctx(s, ret, least))
        return false;
    /* a wish is kept by a smaller cache type; the trained length alone is no reason for one */
    uint32_t tries = s->ctx_given || s->policy->strategy == PLAN_MAX_CONTEXT ? s->n_kv : 0;
    for (uint32_t i = 0; i < tries; i++) {
        set_kv(ret, s->kv[i]);
        if (with_ctx(s, ret, s->want_ctx))
            return true;
    }
    /* the wish is too long for every type: the plainest type that reaches the bound, as long as it goes, or
     * where length is all that counts, the smallest type */
    for (uint32_t i = s->policy->strategy == PLAN_MAX_CONTEXT ? s->n_kv - 1 : 0; i < s->n_kv; i++) {
        set_kv(ret, s->kv[i]);
        if (with_ctx(s, ret, least))
            return longest(s, ret);
    }
    return false;
}

static bool dense_partial(struct search *s, struct attempt *a)
{
    set_amount(s, a, AMOUNT_LAYERS, 1);
    if (!try_fits(s, a))
        return false;
    maximise(s, a, AMOUNT_LAYERS, 1, s->est.facts.n_layer + 1);
    return true;
}

/* The fewest leading layers whose experts the host takes, with all layers on the devices. */
static bool expert_partial(struct search *s, struct attempt *a)
{
    a->params.gpu_layers = PLAN_ALL_LAYERS;
    set_amount(s, a, AMOUNT_EXPERTS, 0);
    if (!try_fits(s, a))
        return dense_partial(s, a);
    maximise(s, a, AMOUNT_EXPERTS, 0, s->est.facts.n_layer);
    return true;
}

static bool partial_with(struct search *s, const uint32_t *used, uint32_t n_used, struct kv_choice kv,
                         uint32_t ctx, struct attempt *ret)
{
    start(s, used, n_used, ret);
    set_kv(ret, kv);
    ret->params.ctx = ctx;
    bool ok = has_experts(s) ? expert_partial(s, ret) : dense_partial(s, ret);
    if (ok)
        try_speed(s, ret);
    return ok;
}

bool try_partial(struct search *s, const uint32_t *used, uint32_t n_used, struct attempt *ret)
{
    struct attempt best, next;
    bool found = false;
    uint32_t ctx = s->ctx_given ? s->want_ctx : s->comfort_ctx;
    for (;;) {
        for (uint32_t i = 0; i < s->n_kv; i++) {
            /* a smaller cache must pay for itself: a tenth faster at least */
            if (partial_with(s, used, n_used, s->kv[i], ctx, &next) &&
                (!found || next.speed.decode_tps > 1.1 * best.speed.decode_tps)) {
                best = next;
                found = true;
            }
        }
        if (found || ctx <= s->least_ctx)
            break;
        ctx = ctx / 2 > s->least_ctx ? ctx / 2 : s->least_ctx;
    }
    if (found)
        *ret = best;
    return found;
}

bool try_host(struct search *s, struct attempt *ret)
{
    uint32_t wish = s->want_ctx;
    if (!s->ctx_given && s->want_ctx > s->comfort_ctx)
        s->want_ctx = s->comfort_ctx; /* without a wish the host is not filled with cache */
    bool ok = try_full(s, NULL, 0, s->least_ctx, ret);
    s->want_ctx = wish;
    if (ok) {
        ret->params.gpu_layers = 0;
        try_speed(s, ret);
    }
    return ok;
}

bool try_fixed(struct search *s, const uint32_t *used, uint32_t n_used, struct attempt *ret)
{
    if (s->policy->gpu_layers == 0)
        return try_host(s, ret);
    int32_t before = s->base.gpu_layers;
    s->base.gpu_layers = s->policy->gpu_layers;
    bool ok = try_full(s, used, n_used, s->least_ctx, ret);
    s->base.gpu_layers = before;
    return ok;
}
