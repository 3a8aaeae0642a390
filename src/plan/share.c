/* A share of the layers or experts on the host. Layer plan; pure; see place_priv.h.
 *
 * What the host takes is one number on one of three chains (enum chain). The devices' memory falls with it
 * nearly in a straight line, and the host's grows: if the host cannot hold what the most that fits the
 * devices leaves it, nothing of the chain fits. A layout without its graphs costs a twentieth of an estimate,
 * so the most that fits is first found with the graphs of the latest estimate on the same chain, and only
 * then estimated: it must fit, and one more must not, not even with graphs a tenth smaller. Points that could
 * not win are not estimated at all. */
#include "plan/place_priv.h"

#include <string.h>

#define KV_WORTH (1 / 1.1) /* a smaller cache must pay for itself: a tenth faster at least */
/* A further device is worth a little time while a part of the model lies in the host's memory, which is then
 * free for other uses; where power counts, it must pay for itself. */
#define GPU_WORTH      1.05
#define GPU_WORTH_WATT 0.95
#define HOST_WORTH     0.9 /* and leaving the devices idle */

/* What goes to the host: the experts of leading layers; all experts and leading layers whole; leading layers
 * whole. Without experts only the last. */
enum chain { CHAIN_EXPERTS, CHAIN_BOTH, CHAIN_LAYERS, CHAINS };

struct chain_search {
    struct search *s;
    enum chain chain;
    struct plan_estimate like; /* graphs as they were there; n_parts 0 = none yet */
};

static double score(const struct search *s, const struct attempt *a)
{
    double worth = a->n_used ? 1 : HOST_WORTH;
    double gpu = s->policy->strategy == PLAN_POWER_EFFICIENT ? GPU_WORTH_WATT : GPU_WORTH;
    for (uint32_t i = 1; i < a->n_used; i++)
        worth *= gpu;
    for (uint32_t i = 0; i < a->kv; i++)
        worth *= KV_WORTH;
    return worth * a->speed.decode_tps;
}

/* n more on the devices is n less on the host. */
static void set_amount(const struct chain_search *c, struct attempt *a, uint32_t n)
{
    uint32_t layers = c->s->est->facts.n_layer;
    a->params.n_tensor_split = 0;
    a->params.n_cpu_moe = c->chain == CHAIN_EXPERTS ? layers - n : c->chain == CHAIN_BOTH ? layers : 0;
    a->params.gpu_layers = c->chain == CHAIN_EXPERTS ? PLAN_ALL_LAYERS : (int32_t)n;
}

/* Slack of the devices with n on them, if their graphs took `sure` of what they took in c->like. */
static int64_t slack_like(const struct chain_search *c, struct attempt *a, uint32_t n, double sure)
{
    set_amount(c, a, n);
    if (!try_sizes(c->s, a))
        return INT64_MIN / 2;
    for (size_t i = 0; i < a->estimate.n_parts && c->like.n_parts; i++)
        a->estimate.parts[i].compute_bytes = (uint64_t)(sure * (double)c->like.parts[i].compute_bytes);
    return try_device_slack(c->s, a);
}

/* The most in [lo, hi) with slack under that assumption; hi if lo has none. */
static uint32_t guess(const struct chain_search *c, struct attempt *a, uint32_t lo, uint32_t hi)
{
    uint32_t none = hi;
    int64_t at_lo = slack_like(c, a, lo, 1), at_hi;
    if (at_lo < 0)
        return none;
    if (hi - 1 == lo || (at_hi = slack_like(c, a, hi - 1, 1)) >= 0)
        return hi - 1;
    hi--;
    for (unsigned step = 0; hi - lo > 1; step++) {
        uint32_t n = try_cross(lo, hi, at_lo, at_hi, step % 3 == 2 && hi - lo > 4);
        int64_t at = slack_like(c, a, n, 1);
        if (at >= 0) {
            lo = n;
            at_lo = at;
        } else {
            hi = n;
            at_hi = at;
        }
    }
    return lo;
}

/* Who is short of memory. */
enum { SHORT_DEVICES = 1, SHORT_HOST = 2 };

static unsigned ask(struct chain_search *c, struct attempt *a, uint32_t n)
{
    set_amount(c, a, n);
    if (!try_sizes(c->s, a))
        return SHORT_DEVICES | SHORT_HOST; /* refused, whatever n is */
    if (try_may_fit(c->s, a)) {
        bool fits = try_fits(c->s, a);
        c->like = a->estimate;
        if (fits)
            return 0;
    }
    if (try_host_slack(c->s, a) >= 0)
        return SHORT_DEVICES;
    return SHORT_HOST | (try_device_slack(c->s, a) < 0 ? SHORT_DEVICES : 0);
}

/* Could n on the devices win against *best? */
static bool could_win(const struct chain_search *c, struct attempt *a, uint32_t n, const struct attempt *best)
{
    set_amount(c, a, n);
    try_best_decode(c->s, a);
    return score(c->s, a) > score(c->s, best);
}

enum outcome { NOTHING_FITS, CANNOT_WIN, FOUND };

/* Makes *ret the most of the chain that fits. */
static enum outcome most_of(struct chain_search *c, struct attempt *ret, uint32_t lo, uint32_t hi,
                            const struct attempt *best)
{
    struct attempt next = *ret;
    enum outcome found = NOTHING_FITS;
    while (lo < hi) {
        uint32_t n = guess(c, &next, lo, hi);
        if (n == hi)
            n = lo; /* even the least seems too much: the least decides */
        if (best && !could_win(c, &next, n + 1 < hi ? n + 1 : n, best))
            return found == FOUND ? FOUND : CANNOT_WIN;
        unsigned is_short = ask(c, &next, n);
        if (is_short & SHORT_DEVICES)
            hi = n;
        if (is_short == SHORT_DEVICES)
            continue;
        if (!is_short) {
            *ret = next;
            found = FOUND;
        }
        lo = n + 1; /* less would leave the host more */
        if (lo < hi && slack_like(c, &next, lo, PLACE_GRAPH_SURE) < 0)
            break;
    }
    return found;
}

static void offer(struct search *s, struct attempt *a, struct attempt *best, bool *found)
{
    try_decode(s, a);
    if (!*found || score(s, a) > score(s, best))
        *best = *a;
    *found = true;
}

/* Where devices are slower than the host, less on them is faster: the other end of the chain. */
static bool least_of(struct chain_search *c, struct attempt *a, uint32_t lo, const struct attempt *best)
{
    return could_win(c, a, lo, best) && ask(c, a, lo) == 0;
}

static void share_on(struct search *s, const struct device_set *set, uint32_t ctx, struct attempt *best,
                     bool *found)
{
    uint32_t layers = s->est->facts.n_layer;
    bool by_experts[MAX_KV_CHOICES] = {false}; /* the experts alone make room enough: the layers stay */
    struct attempt next;
    for (unsigned chain = has_experts(s) ? CHAIN_EXPERTS : CHAIN_LAYERS; chain < CHAINS; chain++) {
        struct chain_search c = {.s = s, .chain = (enum chain)chain};
        for (uint32_t kv = 0; kv < s->n_kv; kv++) {
            if (chain == CHAIN_BOTH && by_experts[kv])
                continue;
            try_start(s, set, kv, &next);
            next.params.ctx = ctx;
            uint32_t lo = chain == CHAIN_EXPERTS ? 0 : set->n, hi = layers + (chain != CHAIN_EXPERTS);
            if (lo >= hi) /* one layer at least on every device */
                continue;
            enum outcome o = most_of(&c, &next, lo, hi, *found ? best : NULL);
            by_experts[kv] = chain == CHAIN_EXPERTS && o != NOTHING_FITS;
            if (o == FOUND || (*found && least_of(&c, &next, lo, best)))
                offer(s, &next, best, found);
            if (o == FOUND && least_of(&c, &next, lo, best))
                offer(s, &next, best, found);
        }
    }
}

static void on_host(struct search *s, uint32_t ctx, struct attempt *best, bool *found)
{
    const struct device_set none = {.n = 0};
    struct attempt next;
    for (uint32_t kv = 0; kv < s->n_kv; kv++) {
        try_start(s, &none, kv, &next);
        next.params.ctx = ctx;
        try_decode(s, &next);
        if ((!*found || score(s, &next) > score(s, best)) && try_sizes(s, &next) && try_may_fit(s, &next) &&
            try_fits(s, &next))
            offer(s, &next, best, found);
    }
}

static bool share_at(struct search *s, uint32_t ctx, struct attempt *ret)
{
    struct device_set sets[PLACE_MAX_SETS];
    bool found = false;
    if (s->any) /* is any share better than that? */
        on_host(s, ctx, ret, &found);
    for (uint32_t n = sets_limit(s); n > 0; n--) {
        uint32_t n_sets = sets_of(s, n, sets);
        for (uint32_t i = 0; i < n_sets; i++) {
            share_on(s, &sets[i], ctx, ret, &found);
            if (s->any && found && ret->n_used)
                return true;
        }
    }
    if (!s->any)
        on_host(s, ctx, ret, &found);
    return found;
}

bool share_best(struct search *s, struct attempt *ret)
{
    uint32_t ctx = s->ctx_given ? s->want_ctx : s->comfort_ctx;
    for (;; ctx = ctx / 2 > s->least_ctx ? ctx / 2 : s->least_ctx) {
        if (share_at(s, ctx, ret))
            return true;
        if (ctx <= s->least_ctx)
            return false;
    }
}
