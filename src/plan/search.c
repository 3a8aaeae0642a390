/* The best point of the space: what is given up first, and the best of what is left. Layer plan; pure; see
 * place_priv.h and plan_place in plan.h.
 *
 * Order: everything on devices with the usual micro-batch, with a small one, a share of the layers or the
 * experts on the host (or all of them) at the context that is wanted, at half of it, and so on. Inside a step
 * points are compared by the strategy's keys, dearest first, so each key is settled before the next is looked
 * at, and a point is estimated only if it could still win. */
#include "plan/place_priv.h"

#include <stdio.h>
#include <string.h>

/* ---- everything on devices ---- */

/* Is it known what n devices must hold, where they take all layers? */
static bool is_bounded(const struct search *s, const uint32_t *devices, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct backend_traits *b = backend_traits(s->machine->devices[devices[i]].backend);
        if (b->max_tensor != UINT64_MAX ||
            (b->refuses && s->est->facts.ssm_inner)) /* weights may stay behind */
            return false;
    }
    return n > 0 && s->least_bytes > 0;
}

/* What n devices lack, by a lower bound, where they take all layers. */
static uint64_t short_bytes(const struct search *s, const uint32_t *devices, uint32_t n)
{
    uint64_t room = 0;
    if (!is_bounded(s, devices, n))
        return 0;
    for (uint32_t i = 0; i < n; i++)
        room += minus(try_room(s, devices[i]), s->machine->devices[devices[i]].overhead_bytes);
    return minus(s->least_bytes, room < s->vram_limit ? room : s->vram_limit);
}

uint64_t search_short_bytes(const struct search *s)
{
    return short_bytes(s, s->order, s->n_order);
}

/* No cut of the row of layers gives each device, or some of them, what it has room for. The slot is of
 * search.cuts. */
static bool no_cut(struct search *s, const struct plan_params *p, uint32_t slot, const uint32_t *devices,
                   uint32_t n)
{
    if (!is_bounded(s, devices, n))
        return false;
    for (uint32_t i = 1; i < n; i++)
        if (s->machine->devices[devices[i]].backend != s->machine->devices[devices[0]].backend)
            return false;
    return split_measure(s, p, devices[0], false, &s->cuts[slot]) &&
           !split_could_fit(s, &s->cuts[slot], devices, n);
}

/* The same for a point before it is estimated. */
static bool too_much(struct search *s, const struct attempt *a)
{
    return a->n_used > 1 && no_cut(s, &a->params, a->kv, a->used, a->n_used);
}

static bool hopeless(struct search *s, const struct device_set *set)
{
    return short_bytes(s, set->used, set->n) > 0 || no_cut(s, &s->slim, CUT_SLIM, set->used, set->n);
}

/* Not even all candidates together can take all layers. */
static bool all_hopeless(struct search *s)
{
    uint32_t devices[PLAN_MAX_DEVICES], n = sets_all(s, devices);
    return search_short_bytes(s) > 0 || no_cut(s, &s->slim, CUT_SLIM, devices, n);
}

static uint32_t rank_of(const struct search *s, const struct attempt *a)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < a->n_used; i++)
        sum += s->rank[a->used[i]];
    return sum;
}

/* x before y, both on as many devices and with context enough. */
static bool better_full(const struct search *s, const struct attempt *x, const struct attempt *y)
{
    if (s->policy->strategy == PLAN_POWER_EFFICIENT) {
        double wx = sets_watts(s, x->used, x->n_used), wy = sets_watts(s, y->used, y->n_used);
        if (wx < wy || wx > wy)
            return wx < wy;
    }
    if (x->kv != y->kv)
        return x->kv < y->kv;
    if (x->params.ctx != y->params.ctx)
        return x->params.ctx > y->params.ctx;
    if (try_pace(x) != try_pace(y))
        return try_pace(x) > try_pace(y);
    return rank_of(s, x) < rank_of(s, y);
}

/* The plainest cache that reaches lo, as far as hi. */
static bool plainest(struct search *s, const struct device_set *set, uint32_t lo, uint32_t hi,
                     struct attempt *ret)
{
    for (uint32_t kv = 0; kv < s->n_kv; kv++) {
        try_start(s, set, kv, ret);
        ret->params.ctx = lo;
        if (!too_much(s, ret) && try_reach(s, ret, lo, hi)) {
            try_decode(s, ret);
            return true;
        }
        if (kv == 0 && s->n_kv > 1) { /* is it worth asking the others? */
            struct attempt last;
            try_start(s, set, s->n_kv - 1, &last);
            last.params.ctx = lo;
            if (too_much(s, &last) || !try_fits(s, &last))
                return false;
        }
    }
    return false;
}

/* On the fewest devices that reach lo. */
static bool on_fewest(struct search *s, uint32_t from, uint32_t to, uint32_t lo, uint32_t hi,
                      struct attempt *ret)
{
    struct device_set sets[PLACE_MAX_SETS];
    struct attempt next;
    for (uint32_t n = from; n <= to; n++) {
        bool found = false;
        uint32_t n_sets = sets_of(s, n, sets);
        for (uint32_t i = 0; i < n_sets; i++) {
            if (hopeless(s, &sets[i]) || !plainest(s, &sets[i], lo, hi, &next))
                continue;
            if (!found || better_full(s, &next, ret))
                *ret = next;
            found = true;
        }
        if (found)
            return true;
    }
    return false;
}

/* The longest context of all; then the plainest cache that holds as much, on the fewest devices. */
static bool longest(struct search *s, uint32_t from, uint32_t to, uint32_t lo, uint32_t hi,
                    struct attempt *ret)
{
    struct device_set sets[PLACE_MAX_SETS];
    struct attempt next;
    uint32_t most = 0;
    for (uint32_t n = to + 1; n-- > from;) {
        uint32_t n_sets = sets_of(s, n, sets);
        for (uint32_t i = 0; i < n_sets; i++) {
            for (uint32_t kv = s->n_kv; kv-- > 0 && most < hi && !hopeless(s, &sets[i]);) {
                uint32_t more = most ? (most / PLACE_CTX_STEP + 1) * PLACE_CTX_STEP : lo;
                try_start(s, &sets[i], kv, &next);
                next.params.ctx = more < hi ? more : hi;
                if (!too_much(s, &next) && try_reach(s, &next, next.params.ctx, hi))
                    most = next.params.ctx;
            }
        }
    }
    for (uint32_t kv = 0; kv < s->n_kv && most; kv++) {
        for (uint32_t n = from; n <= to; n++) {
            bool found = false;
            uint32_t n_sets = sets_of(s, n, sets);
            for (uint32_t i = 0; i < n_sets; i++) {
                try_start(s, &sets[i], kv, &next);
                next.params.ctx = most;
                if (hopeless(s, &sets[i]) || too_much(s, &next) || !try_fits(s, &next))
                    continue;
                try_decode(s, &next);
                if (!found || better_full(s, &next, ret))
                    *ret = next;
                found = true;
            }
            if (found)
                return true;
        }
    }
    return false;
}

/* The set that decodes fastest with the plainest cache; then the largest micro-batch, then the longest
 * context that leave it as fast. */
static bool widest(struct search *s, uint32_t n, struct attempt *ret)
{
    struct device_set sets[PLACE_MAX_SETS];
    struct attempt next;
    uint32_t n_sets = sets_of(s, n, sets), ubatch = s->base.ubatch, kv = ret->kv;
    bool found = false;
    s->least_pace = try_pace(ret);
    bool fixed = s->policy->ubatch || s->policy->ladder || ubatch <= PLACE_UB_SMALL;
    for (uint32_t ub = fixed ? ubatch : PLACE_UB_LARGE; ub >= ubatch && !found; ub /= 2) {
        for (uint32_t i = 0; i < n_sets; i++) {
            try_start(s, &sets[i], kv, &next);
            next.params.ubatch = ub;
            if (hopeless(s, &sets[i]) || !try_reach(s, &next, s->comfort_ctx, s->want_ctx))
                continue;
            if (!found || better_full(s, &next, ret))
                *ret = next;
            found = true;
        }
    }
    s->least_pace = INT32_MIN;
    return found;
}

static bool fastest(struct search *s, uint32_t from, uint32_t to, struct attempt *ret)
{
    struct device_set sets[PLACE_MAX_SETS];
    struct attempt next;
    for (uint32_t kv = 0; kv < s->n_kv; kv++) {
        bool found = false;
        for (uint32_t n = from; n <= to; n++) {
            uint32_t n_sets = sets_of(s, n, sets);
            for (uint32_t i = 0; i < n_sets; i++) {
                try_start(s, &sets[i], kv, &next);
                next.params.ctx = s->comfort_ctx;
                if (hopeless(s, &sets[i]) || too_much(s, &next) || !try_fits(s, &next))
                    continue;
                try_decode(s, &next);
                if (!found || try_pace(&next) > try_pace(ret))
                    *ret = next;
                found = true;
            }
        }
        if (found)
            return widest(s, ret->n_used, ret);
    }
    return false;
}

/* Could *a fit with graphs hardly smaller than those of a neighbour on the same devices? */
static bool may_fit_like(struct search *s, const struct attempt *like, struct attempt *a)
{
    a->params.ctx = s->least_ctx;
    if (!try_sizes(s, a))
        return false;
    for (size_t i = 0; i < a->estimate.n_parts; i++)
        a->estimate.parts[i].compute_bytes =
            (uint64_t)(PLACE_GRAPH_SURE * (double)like->estimate.parts[i].compute_bytes);
    return try_slack(s, a) >= 0;
}

/* Any cache with the least context, the smallest first. */
static bool any_kv(struct search *s, const struct device_set *set, uint32_t hi, struct attempt *ret)
{
    struct attempt smallest;
    for (uint32_t kv = s->n_kv; kv-- > 0;) {
        bool first = kv == s->n_kv - 1;
        try_start(s, set, kv, ret);
        if (!first && !may_fit_like(s, &smallest, ret))
            continue;
        if (try_least(s, ret, s->least_ctx, hi))
            return true;
        if (first)
            smallest = *ret;
    }
    return false;
}

/* Any point at all: of each number of devices first those with the most room, then the others. */
static bool any_full(struct search *s, uint32_t from, uint32_t to, uint32_t hi, struct attempt *ret)
{
    struct device_set sets[PLACE_MAX_SETS];
    for (unsigned others = 0; others < 2; others++) {
        for (uint32_t n = from; n <= to; n++) {
            uint32_t n_sets = sets_of(s, n, sets);
            for (uint32_t i = others; i < (others ? n_sets : 1); i++)
                if (!hopeless(s, &sets[i]) && any_kv(s, &sets[i], hi, ret))
                    return true;
        }
    }
    return false;
}

/* All layers (or as many as the policy fixes) on `from` to `to` devices. */
static bool full(struct search *s, uint32_t from, uint32_t to, struct attempt *ret)
{
    bool by_length = s->policy->strategy == PLAN_MAX_CONTEXT;
    /* the host is not filled with cache that nobody asked for */
    uint32_t hi = to > 0 || s->ctx_given || by_length ? s->want_ctx : s->comfort_ctx;
    if (s->any)
        return any_full(s, from, to, hi, ret);
    if (!by_length) {
        bool found = s->policy->strategy == PLAN_MAX_PERFORMANCE && to > 0
                         ? fastest(s, from, to, ret)
                         : on_fewest(s, from, to, s->comfort_ctx, hi, ret);
        if (found)
            return true;
    }
    return longest(s, from, to, s->least_ctx, hi, ret);
}

/* The usual micro-batch, else smaller ones. If any point will do, the smallest alone is asked: what fits with
 * a larger one fits with it. */
static bool full_or_small(struct search *s, uint32_t from, uint32_t to, struct attempt *ret)
{
    const uint32_t small[] = {PLACE_UB_SMALL, PLACE_UB_LEAST};
    bool last_resort = !s->policy->allow_cpu && from > 0;
    uint32_t usual = s->base.ubatch, tries[1 + TABLE_COUNT(small)] = {usual}, n = 1;
    for (size_t i = 0; !s->policy->ubatch && i < (last_resort ? 2u : 1u); i++)
        if (usual > small[i])
            tries[n++] = small[i];
    bool found = false;
    for (uint32_t i = s->any ? n - 1 : 0; i < n && !found; i++) {
        s->base.ubatch = tries[i];
        found = full(s, from, to, ret);
    }
    s->base.ubatch = usual;
    return found;
}

/* ---- all steps ---- */

static void step_over(struct search *s)
{
    s->shortfall[0] = '\0';
    s->short_by = 0;
}

static void tell_full(struct search *s)
{
    uint32_t n = sets_limit(s);
    if (!s->shortfall[0]) {
        char need[32], have[32];
        uint64_t room = 0;
        for (uint32_t i = 0; i < s->n_order; i++)
            room += try_room(s, s->order[i]);
        snprintf(s->shortfall, sizeof s->shortfall, "the weights and the smallest cache take %s, and %s %s",
                 str_human_bytes(s->least_bytes, need, sizeof need),
                 search_short_bytes(s) ? "there is room for" : "whole layers cannot fill all of the",
                 str_human_bytes(room < s->vram_limit ? room : s->vram_limit, have, sizeof have));
    }
    if (s->policy->gpu_layers_fixed)
        reason_add(s->out, "tried_fixed", "%d layers on up to %u GPU%s: %s.", s->policy->gpu_layers, n,
                   n == 1 ? "" : "s", s->shortfall);
    else
        reason_add(s->out, "tried_full", "All layers on up to %u GPU%s with at least %u tokens: %s.", n,
                   n == 1 ? "" : "s", s->least_ctx, s->shortfall);
}

bool search_best(struct search *s, struct attempt *ret)
{
    bool fixed = s->policy->gpu_layers_fixed, on_host = fixed && s->policy->gpu_layers == 0;
    if (s->n_order && !on_host) {
        if (!all_hopeless(s) && full_or_small(s, 1, sets_limit(s), ret))
            return true;
        tell_full(s);
    }
    if (fixed && !on_host)
        return false;
    if (!s->policy->allow_cpu || s->only_devices)
        return false;
    step_over(s);
    if (s->n_order == 0 || on_host) {
        if (full_or_small(s, 0, 0, ret))
            return true;
    } else {
        if (share_best(s, ret))
            return true;
        reason_add(s->out, "tried_partial", "A share of the %s on the GPU: %s.",
                   has_experts(s) ? "experts" : "layers", s->shortfall);
    }
    reason_add(s->out, "tried_cpu", "Everything in RAM with %u tokens: %s.", s->least_ctx, s->shortfall);
    return false;
}
