/* Which device takes which layers. Layer plan; pure; see place_priv.h.
 *
 * Layers lie on devices in order, so a split is a cut of the row of layers into one piece a device. The bytes
 * of every layer are measured by asking the estimator for a layout with one layer a device; then dynamic
 * programming over (device, layers placed) finds the cut of least cost in which every piece fits:
 *
 *     cost = Σ seconds of a piece on its device + ε × Σ piece² / room
 *
 * The second term spreads pieces in proportion to the room where the first does not care. A device's graph
 * differs a little from piece to piece, so it is first taken for somewhat smaller than any that was seen; the
 * answer is estimated in full, and the pieces that it shows are known from then on. */
#include "plan/place_priv.h"

#include <float.h>
#include <string.h>

#define ROUNDS 24
#define EVEN   1e-4 /* weight of even filling, against reading everything once */
#define SURE   0.4  /* of the smallest graph seen on a device: none is smaller */
#define SURE_1 0.1  /* the same for a single layer, which may be the output alone */

bool split_matters(const struct search *s, const struct attempt *a)
{
    double least = DBL_MAX, most = 0;
    for (uint32_t i = 0; i < a->n_used; i++) {
        double b = sets_bandwidth(&s->machine->devices[a->used[i]]);
        least = b < least ? b : least;
        most = b > most ? b : most;
    }
    return a->n_used > 1 && most > 1.05 * least;
}

bool split_may_help(const struct attempt *a)
{
    uint64_t graphs = 0;
    for (uint32_t i = 0; i < a->n_used; i++)
        graphs += a->estimate.parts[i].compute_bytes;
    return (double)a->slack + (double)graphs >= 0; /* none takes less than nothing */
}

/* ---- bytes of each layer ---- */

static bool known(const struct layer_sizes *t, const struct plan_params *p, enum plan_backend backend,
                  bool timed)
{
    return t->n > 0 && (t->timed || !timed) && t->gpu_layers == p->gpu_layers &&
           t->n_cpu_moe == p->n_cpu_moe && t->ctx == p->ctx && t->ubatch == p->ubatch &&
           t->type_k == p->type_k && t->type_v == p->type_v && t->backend == backend;
}

/* A window of layers: all before it on the first device, one on each of the next, all behind it on the last.
 */
static bool measure_window(struct search *s, const struct layer_sizes *t, const struct plan_params *params,
                           uint32_t device, uint32_t from, uint32_t n, struct plan_estimate *ret,
                           struct speed_seconds *ret_token)
{
    struct plan_device devices[PLAN_MAX_DEVICES];
    struct plan_params p = *params;
    uint32_t n_devices = n + 2;
    for (uint32_t i = 0; i < n_devices; i++) {
        devices[i] = s->machine->devices[device];
        p.tensor_split[i] = 1;
    }
    p.n_tensor_split = n_devices;
    p.tensor_split[0] = (float)from;
    p.tensor_split[n + 1] = (float)(t->n - from - n);
    if (estimator_sizes(s->est, &p, devices, n_devices, ret, NULL) != RC_OK)
        return false;
    if (t->timed)
        speed_decode(&s->est->layout, s->machine, speed_depth(&s->est->layout), ret_token);
    return true;
}

bool split_measure(struct search *s, const struct plan_params *p, uint32_t device, bool timed,
                   struct layer_sizes *t)
{
    struct plan_estimate e;
    enum plan_backend backend = s->machine->devices[device].backend;
    if (known(t, p, backend, timed))
        return true;
    uint32_t layers = s->est->facts.n_layer + 1,
             n = p->gpu_layers == PLAN_ALL_LAYERS || (uint32_t)p->gpu_layers > layers
                     ? layers
                     : (uint32_t)p->gpu_layers;
    *t = (struct layer_sizes){.n = n,
                              .timed = timed,
                              .gpu_layers = p->gpu_layers,
                              .n_cpu_moe = p->n_cpu_moe,
                              .ctx = p->ctx,
                              .ubatch = p->ubatch,
                              .type_k = p->type_k,
                              .type_v = p->type_v,
                              .backend = backend};
    struct speed_seconds token = {0};
    t->bandwidth = sets_bandwidth(&s->machine->devices[device]);
    for (uint32_t from = 0; from < n; from += PLAN_MAX_DEVICES - 2) {
        uint32_t k = n - from < PLAN_MAX_DEVICES - 2 ? n - from : PLAN_MAX_DEVICES - 2;
        if (!measure_window(s, t, p, device, from, k, &e, &token)) {
            t->n = 0;
            return false;
        }
        for (uint32_t i = 0; i < k; i++) {
            const struct plan_part *part = &e.parts[i + 1];
            t->bytes[from + i + 1] = t->bytes[from + i] + part->model_bytes + part->context_bytes;
            t->seconds[from + i + 1] = t->seconds[from + i] + token.variable[i + 1];
        }
    }
    return true;
}

/* Each device takes as many as it can: nothing places more. */
bool split_could_fit(const struct search *s, const struct layer_sizes *t, const uint32_t *devices, uint32_t n)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < n && at < t->n; i++) {
        uint64_t room = minus(try_room(s, devices[i]), s->machine->devices[devices[i]].overhead_bytes);
        uint32_t lo = at, hi = t->n; /* lo is within the room */
        while (lo < hi) {
            uint32_t mid = hi - (hi - lo) / 2;
            if (t->bytes[mid] - t->bytes[at] <= room)
                lo = mid;
            else
                hi = mid - 1;
        }
        at = lo;
    }
    return at == t->n;
}

/* ---- the cheapest cut ---- */

struct piece { /* of a cut that was estimated */
    uint32_t from, to;
    uint64_t beside; /* graph and overhead */
};

struct cut {
    uint32_t n; /* devices */
    uint64_t room[PLAN_MAX_DEVICES];
    double slower[PLAN_MAX_DEVICES]; /* than the device that was measured with */
    struct piece known[PLAN_MAX_DEVICES][ROUNDS + 1];
    uint32_t n_known;
    bool by_bytes; /* every device holds its piece, but all together take too much: the least bytes count */
    uint64_t overhead[PLAN_MAX_DEVICES], graph[PLAN_MAX_DEVICES]; /* the smallest seen */
    uint16_t from[PLAN_MAX_DEVICES][FACTS_MAX_LAYERS + 2];        /* where the device's piece begins */
};

static void learn(struct cut *c, const struct attempt *a, const float *split)
{
    uint32_t at = 0;
    for (uint32_t d = 0; d < c->n; d++) {
        const struct plan_part *p = &a->estimate.parts[d];
        uint32_t to = at + (uint32_t)split[d];
        c->known[d][c->n_known] = (struct piece){at, to, p->compute_bytes + p->overhead_bytes};
        c->overhead[d] = p->overhead_bytes;
        if (!c->n_known || p->compute_bytes < c->graph[d])
            c->graph[d] = p->compute_bytes;
        at = to;
    }
    c->n_known++;
}

/* Bytes beside a piece's layers: as seen, else the least that they can be. */
static uint64_t beside_of(const struct cut *c, uint32_t d, uint32_t from, uint32_t to)
{
    for (uint32_t k = 0; k < c->n_known; k++)
        if (c->known[d][k].from == from && c->known[d][k].to == to)
            return c->known[d][k].beside;
    return c->overhead[d] + (uint64_t)((to - from == 1 ? SURE_1 : SURE) * (double)c->graph[d]);
}

/* best[j]: the cost of the first j layers on the devices so far. */
static void add_device(const struct layer_sizes *t, struct cut *c, uint32_t d, const double *before,
                       double *best)
{
    uint64_t most = minus(c->room[d], c->overhead[d]);
    double even = EVEN * t->seconds[t->n] / ((double)t->bytes[t->n] + 1) / ((double)most + 1);
    for (uint32_t j = 0; j <= t->n; j++) {
        best[j] = DBL_MAX;
        bool last = d == c->n - 1;
        if (j < d + 1 || (last && j < t->n) || j > t->n - (c->n - 1 - d))
            continue;
        for (uint32_t i = j; i-- > d;) { /* one layer at least on every device */
            uint64_t bytes = t->bytes[j] - t->bytes[i];
            if (bytes > most)
                break;
            double x = (double)bytes,
                   cost = before[i] + (t->seconds[j] - t->seconds[i]) * c->slower[d] + even * x * x;
            if (before[i] >= DBL_MAX || (!c->by_bytes && cost >= best[j]))
                continue;
            uint64_t beside = beside_of(c, d, i, j);
            if (c->by_bytes)
                cost = before[i] + (double)beside;
            if (cost >= best[j] || beside > c->room[d] || bytes > c->room[d] - beside)
                continue;
            best[j] = cost;
            c->from[d][j] = (uint16_t)i;
        }
    }
}

static bool cheapest(const struct layer_sizes *t, struct cut *c, float *ret_split)
{
    double cost[2][FACTS_MAX_LAYERS + 2];
    if (t->n < c->n)
        return false;
    for (uint32_t j = 0; j <= t->n; j++)
        cost[0][j] = j ? DBL_MAX : 0;
    for (uint32_t d = 0; d < c->n; d++)
        add_device(t, c, d, cost[d % 2], cost[(d + 1) % 2]);
    if (cost[c->n % 2][t->n] >= DBL_MAX)
        return false;
    uint32_t j = t->n;
    for (uint32_t d = c->n; d-- > 0;) {
        ret_split[d] = (float)(j - c->from[d][j]);
        j = c->from[d][j];
    }
    return true;
}

static bool is_known(const struct cut *c, const float *split)
{
    for (uint32_t k = 0; k < c->n_known; k++) {
        bool same = true;
        for (uint32_t d = 0; d < c->n; d++)
            same &= c->known[d][k].to - c->known[d][k].from == (uint32_t)split[d];
        if (same)
            return true;
    }
    return false;
}

static bool pieces_fit(const struct search *s, const struct attempt *a)
{
    for (uint32_t d = 0; d < a->n_used; d++)
        if (plan_part_total(&a->estimate.parts[d]) > try_room(s, a->used[d]))
            return false;
    return true;
}

bool split_best(struct search *s, struct attempt *a)
{
    struct cut c;
    if (!split_measure(s, &a->params, a->used[0], true, &s->sizes))
        return false;
    c.n = a->n_used;
    c.n_known = 0;
    c.by_bytes = a->slack < 0 && pieces_fit(s, a);
    for (uint32_t d = 0; d < c.n; d++) {
        c.room[d] = try_room(s, a->used[d]);
        c.slower[d] = s->sizes.bandwidth / sets_bandwidth(&s->machine->devices[a->used[d]]);
    }
    learn(&c, a, a->estimate.params.tensor_split);
    for (unsigned round = 0; round < ROUNDS; round++) {
        if (!cheapest(&s->sizes, &c, a->params.tensor_split))
            return false;
        if (is_known(&c, a->params.tensor_split))
            return false; /* what was seen to be too much is the best there is */
        a->params.n_tensor_split = c.n;
        if (!try_estimate(s, a))
            return false;
        if (try_judge(s, a))
            return true;
        c.by_bytes |= a->slack < 0 && pieces_fit(s, a);
        learn(&c, a, a->params.tensor_split);
    }
    return false;
}
