/* The search against exhaustive enumeration: hundreds of random small models on none to three random devices
 * under random policies. Every point of the space told in plan.h is estimated, unless its dearest keys
 * already lose, and the answer of plan_place must be as good: the same keys, or for shares the same score.
 * Seeds are fixed; "test_plan_search N SEED" runs others. */
#include "plan_test.h"

#include "plan/memory.h"
#include "plan/speed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed_state;

static uint64_t rnd(uint64_t n) /* 0 … n-1 */
{
    seed_state ^= seed_state << 13;
    seed_state ^= seed_state >> 7;
    seed_state ^= seed_state << 17;
    return seed_state % n;
}

static uint32_t pick(const uint32_t *list, size_t n)
{
    return list[rnd(n)];
}
#define PICK(...) pick((const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / 4)

struct instance {
    struct shape shape;
    struct model *m;
    struct estimator est;
    struct plan_machine mach;
    struct plan_policy pol;
    /* as the space has it */
    uint32_t want, comfort, least, base_ub, n_kv, kv[3], layers;
};

/* ---- a random question ---- */

static void random_shape(struct shape *s)
{
    bool experts = rnd(3) == 0;
    uint32_t head = 64, heads = PICK(4, 8);
    *s = (struct shape){.arch = experts  ? "qwen3moe"
                                : rnd(2) ? "llama"
                                         : "qwen2",
                        .layers = 2 + (uint32_t)rnd(4),
                        .embd = PICK(256, 512, 768),
                        .heads = heads,
                        .heads_kv = PICK(2, 4),
                        .head = head,
                        .ff = PICK(512, 1024, 2048),
                        .vocab = PICK(1000, 8000, 32000),
                        .ctx = PICK(1024, 2048, 4096, 6000, 8192, 20480)};
    s->tied = rnd(2);
    s->bias = !strcmp(s->arch, "qwen2");
    if (!experts)
        return;
    s->qk_norm = true;
    s->experts = PICK(4, 8);
    s->used = 2;
    s->ff_exp = PICK(256, 512);
}

static void random_devices(struct instance *x, uint64_t whole)
{
    uint32_t n = (uint32_t)rnd(4);
    static const char *const stems[] = {"CUDA", "CUDA", "CUDA", "ROCm", "RPC", "Vulkan"};
    const char *stem = stems[rnd(TABLE_COUNT(stems))];
    bool alike = rnd(3) == 0, watts = rnd(2), slow = rnd(3) == 0;
    x->mach.n_devices = n;
    for (uint32_t i = 0; i < n; i++) {
        struct plan_device *d = &x->mach.devices[i];
        char name[24];
        snprintf(name, sizeof name, "%s%u", stem, i % 10);
        /* one draw a statement: the order within an expression is the compiler's */
        uint64_t share = 10 + rnd(130), parts = rnd(2) ? n : 1, bytes = whole * share / 100 / parts;
        plan_device_named(d, str_from(name), bytes, bytes);
        d->overhead_bytes = rnd(3) * 100000;
        d->bandwidth_gbps = slow ? PICK(20, 40, 90) : PICK(0, 300, 300, 600, 1000);
        d->power_w = watts ? PICK(75, 150, 350) : 0;
        if (alike && i)
            *d = (struct plan_device){.backend = d->backend,
                                      .total_bytes = x->mach.devices[0].total_bytes,
                                      .free_bytes = x->mach.devices[0].free_bytes,
                                      .overhead_bytes = x->mach.devices[0].overhead_bytes,
                                      .bandwidth_gbps = x->mach.devices[0].bandwidth_gbps};
        if (alike)
            memcpy(d->name, name, sizeof name);
    }
    x->mach.host.total_bytes = x->mach.host.free_bytes = whole * (rnd(4) ? 400 : 20 + rnd(150)) / 100;
    x->mach.host.cores = PICK(2, 8);
}

static void random_policy(struct instance *x, uint64_t whole)
{
    struct plan_policy *p = &x->pol;
    plan_policy_default(p);
    p->strategy = (enum plan_strategy)rnd(PLAN_STRATEGIES);
    p->margin_bytes = rnd(2) * 1000000;
    p->ctx = rnd(2) ? 0 : PICK(1024, 2000, 4096, 9000);
    p->ctx_min = PICK(0, 512, 1000, 1024);
    p->kv_floor = PICK(GGML_F16, GGML_Q8_0, GGML_Q4_0, GGML_Q4_0);
    p->allow_cpu = rnd(4) != 0;
    p->max_gpus = rnd(4) ? 0 : 1 + (uint32_t)rnd(3);
    if (rnd(6) == 0 || p->strategy == PLAN_FIT_VRAM)
        p->vram_limit_bytes = whole * (30 + rnd(120)) / 100;
    if (rnd(6) == 0)
        p->ubatch = PICK(64, 256, 512);
    if (rnd(8) == 0) {
        p->kv_type_fixed = true;
        p->type_k = p->type_v = PICK(GGML_F16, GGML_Q8_0);
    }
    if (rnd(8) == 0) {
        p->gpu_layers_fixed = true;
        p->gpu_layers = (int32_t)rnd(x->shape.layers + 2);
    }
}

static uint32_t less(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void resolve_space(struct instance *x)
{
    static const uint32_t types[] = {GGML_F16, GGML_Q8_0, GGML_Q4_0};
    const struct plan_policy *p = &x->pol;
    uint32_t trained = x->shape.ctx;
    x->layers = x->shape.layers;
    x->want = p->ctx ? p->ctx : p->strategy == PLAN_POWER_EFFICIENT ? less(trained, 8192) : trained;
    x->least = less(p->ctx_min ? p->ctx_min : 4096, p->ctx ? p->ctx : trained);
    x->comfort = p->ctx || p->strategy == PLAN_MAX_CONTEXT ? x->want
                 : p->strategy == PLAN_MAX_PERFORMANCE     ? less(x->want, 8192)
                                                           : less(x->want, 16384);
    if (x->comfort < x->least)
        x->comfort = x->least;
    x->base_ub = p->ubatch ? p->ubatch : p->strategy == PLAN_MAX_CONTEXT ? 256 : 512;
    x->n_kv = 0;
    for (size_t i = 0; i < TABLE_COUNT(types); i++) {
        x->kv[x->n_kv++] = p->kv_type_fixed ? p->type_k : types[i];
        if (p->kv_type_fixed || types[i] == p->kv_floor)
            break;
    }
}

static void instance_init(struct instance *x)
{
    struct plan_estimate e;
    struct plan_params p;
    struct plan_device big = device("CUDA0", 1 << 20);
    big.overhead_bytes = 0;
    memset(x, 0, sizeof *x);
    random_shape(&x->shape);
    x->m = shape_model(&x->shape);
    assert_int_equal(estimator_init(&x->est, x->m, NULL), RC_OK);
    plan_params_default(&p);
    p.ctx = less(x->shape.ctx, 8192);
    assert_int_equal(plan_estimate(x->m, &p, &big, 1, &e, NULL), RC_OK);
    uint64_t whole = plan_part_total(&e.parts[0]) + plan_part_total(&e.parts[1]);
    random_devices(x, whole);
    random_policy(x, whole);
    resolve_space(x);
}

static void instance_release(struct instance *x)
{
    estimator_release(&x->est);
    model_unref(x->m);
}

/* ---- one point ---- */

#define KEYS 8
struct point {
    uint32_t used[3], n, kv, ub, ctx;
    uint32_t layers, experts; /* on the devices; experts in RAM */
    uint32_t split[3];
    bool whole; /* a point of the first two steps */
    double tps;
    double keys[KEYS]; /* larger is better, dearest first */
};

static double watts(const struct instance *x, const struct point *p)
{
    bool known = true;
    double sum = 0;
    for (size_t i = 0; i < x->mach.n_devices; i++)
        known = known && x->mach.devices[i].power_w > 0;
    for (uint32_t i = 0; i < p->n; i++)
        sum += known ? x->mach.devices[p->used[i]].power_w
                     : (double)(x->mach.devices[p->used[i]].total_bytes / MIB);
    return sum;
}

static double pace(double tps)
{
    return floor(log2(tps) * 16);
}

/* Keys of a whole point. known_speed: false while only what needs no estimate is compared; the speed is then
 * taken to be boundless. */
static void rate_whole(const struct instance *x, struct point *p, bool known_speed)
{
    bool usual = p->ub >= x->base_ub, length = x->pol.strategy == PLAN_MAX_CONTEXT;
    bool enough = !length && p->ctx >= x->comfort;
    double speed = known_speed ? pace(p->tps) : 1e9, n = -(double)p->n, kv = -(double)p->kv, ctx = p->ctx,
           w = x->pol.strategy == PLAN_POWER_EFFICIENT ? -watts(x, p) : 0;
    double *k = p->keys;
    k[0] = usual ? 2 : p->ub >= 128;
    k[1] = enough;
    if (!enough) {
        memcpy(k + 2, (double[]){ctx, kv, n, w, speed, 0}, 6 * sizeof *k);
    } else if (x->pol.strategy == PLAN_MAX_PERFORMANCE && p->n) {
        memcpy(k + 2, (double[]){kv, speed, n, p->ub, ctx, 0}, 6 * sizeof *k);
    } else {
        memcpy(k + 2, (double[]){n, w, kv, ctx, speed, 0}, 6 * sizeof *k);
    }
}

static double score(const struct instance *x, const struct point *p)
{
    double gpu = x->pol.strategy == PLAN_POWER_EFFICIENT ? 0.95 : 1.05;
    return p->tps * (p->n ? pow(gpu, p->n - 1) : 0.9) / pow(1.1, p->kv);
}

static int compare(const struct point *a, const struct point *b)
{
    for (int i = 0; i < KEYS; i++)
        if (a->keys[i] < b->keys[i] || a->keys[i] > b->keys[i])
            return a->keys[i] > b->keys[i] ? 1 : -1;
    return 0;
}

static bool feasible(struct instance *x, struct point *p)
{
    struct plan_params q;
    struct plan_estimate e;
    struct plan_device devices[3];
    struct plan_speed speed;
    plan_params_default(&q);
    q.ctx = p->ctx;
    q.ubatch = p->ub;
    q.type_k = q.type_v = x->kv[p->kv];
    q.gpu_layers = (int32_t)p->layers;
    q.n_cpu_moe = p->experts;
    q.n_tensor_split = p->n > 1 ? p->n : 0;
    for (uint32_t i = 0; i < p->n; i++) {
        devices[i] = x->mach.devices[p->used[i]];
        q.tensor_split[i] = (float)p->split[i];
    }
    if (estimator_run(&x->est, &q, devices, p->n, false, &e, NULL))
        return false;
    uint64_t vram = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        vram += plan_part_total(&e.parts[i]);
        if (plan_part_total(&e.parts[i]) + x->pol.margin_bytes > devices[i].free_bytes)
            return false;
    }
    speed_of(&x->est.layout, &x->mach, &speed);
    p->tps = speed.decode_tps;
    return plan_part_total(&e.parts[p->n]) <= x->mach.host.free_bytes &&
           (!x->pol.vram_limit_bytes || vram <= x->pol.vram_limit_bytes);
}

/* ---- all points ---- */

struct hunt {
    struct instance *x;
    struct point best;
    bool found;
    uint64_t estimates;
};

static void consider(struct hunt *h, struct point *p)
{
    if (p->whole) {
        rate_whole(h->x, p, false);
        if (h->found && compare(p, &h->best) <= 0)
            return;
    }
    h->estimates++;
    if (!feasible(h->x, p))
        return;
    if (p->whole)
        rate_whole(h->x, p, true);
    else
        p->keys[0] = score(h->x, p);
    if (h->found && compare(p, &h->best) <= 0)
        return;
    h->best = *p;
    h->found = true;
}

/* Every way to cut p->layers into p->n pieces, none empty. */
static void each_split(struct hunt *h, struct point *p, uint32_t at, uint32_t left)
{
    if (p->n == 0) {
        consider(h, p);
        return;
    }
    if (at >= TABLE_COUNT(p->split))
        return;
    if (at + 1 == p->n) {
        p->split[at] = left;
        if (left)
            consider(h, p);
        return;
    }
    for (uint32_t n = 1; n < left; n++) {
        p->split[at] = n;
        each_split(h, p, at + 1, left - n);
    }
}

static void each_set(struct hunt *h, const struct point *like, uint32_t least,
                     void (*then)(struct hunt *, struct point *))
{
    uint32_t m = (uint32_t)h->x->mach.n_devices, most = h->x->pol.max_gpus ? h->x->pol.max_gpus : m;
    for (uint32_t mask = 0; mask < 1u << m; mask++) {
        struct point p = *like;
        p.n = 0;
        for (uint32_t i = 0; i < m; i++)
            if (mask >> i & 1)
                p.used[p.n++] = i;
        if (p.n >= least && (p.n <= most || p.n == 0))
            then(h, &p);
    }
}

static void whole_on(struct hunt *h, struct point *p)
{
    struct instance *x = h->x;
    uint32_t ubs[] = {2048, 1024, x->base_ub, 128, 64};
    uint32_t hi = x->mach.n_devices == 0 || p->layers == 0
                      ? (x->pol.ctx || x->pol.strategy == PLAN_MAX_CONTEXT ? x->want : x->comfort)
                      : x->want;
    bool wide = x->pol.strategy == PLAN_MAX_PERFORMANCE && !x->pol.ubatch && p->n;
    for (size_t u = wide ? 0 : 2; u < TABLE_COUNT(ubs); u++) {
        if (u >= 3 && (x->pol.ubatch || x->base_ub <= ubs[u]))
            continue;
        if (u == 4 && (x->pol.allow_cpu || !p->n))
            continue;
        for (p->kv = 0; p->kv < x->n_kv; p->kv++) {
            for (uint32_t ctx = hi; ctx >= x->least;) {
                p->ub = ubs[u];
                p->ctx = ctx;
                /* larger micro-batches are a wish of the comfortable only */
                if (u >= 2 || ctx >= x->comfort)
                    each_split(h, p, 0, p->layers);
                uint32_t next = (ctx - 1) / 256 * 256;
                ctx = ctx == x->least ? 0 : next > x->least ? next : x->least;
            }
        }
    }
}

static void share_on(struct hunt *h, struct point *p)
{
    uint32_t l = h->x->layers;
    for (p->kv = 0; p->kv < h->x->n_kv; p->kv++) {
        if (p->n == 0) {
            p->layers = p->experts = 0;
            consider(h, p);
            continue;
        }
        for (uint32_t n = 1; n <= l; n++) {
            p->layers = n;
            p->experts = 0;
            each_split(h, p, 0, p->layers);
            if (!h->x->shape.experts)
                continue;
            p->experts = l;
            each_split(h, p, 0, p->layers);
            p->layers = l + 1;
            p->experts = n;
            each_split(h, p, 0, p->layers);
        }
    }
}

static void exhaust(struct hunt *h)
{
    struct instance *x = h->x;
    const struct plan_policy *pol = &x->pol;
    bool host = x->mach.n_devices == 0 || (pol->gpu_layers_fixed && pol->gpu_layers == 0);
    struct point p = {.whole = true,
                      .layers = host                    ? 0
                                : pol->gpu_layers_fixed ? (uint32_t)pol->gpu_layers
                                                        : x->layers + 1};
    if (host) {
        if (pol->allow_cpu && (!pol->gpu_layers_fixed || pol->gpu_layers == 0))
            whole_on(h, &p);
        return;
    }
    each_set(h, &p, 1, whole_on);
    if (h->found || pol->gpu_layers_fixed || !pol->allow_cpu)
        return;
    for (uint32_t ctx = pol->ctx ? x->want : x->comfort;;) {
        p = (struct point){.ub = x->base_ub, .ctx = ctx};
        each_set(h, &p, 0, share_on);
        if (h->found || ctx <= x->least)
            return;
        ctx = ctx / 2 > x->least ? ctx / 2 : x->least;
    }
}

/* ---- comparison ---- */

static void describe(const struct instance *x, const struct point *p, const char *who)
{
    print_message(
        "  %s: n %u [%u %u %u] split %u,%u,%u kv %u ub %u ctx %u layers %u experts %u tps %.4f whole %d\n",
        who, p->n, p->used[0], p->used[1], p->used[2], p->split[0], p->split[1], p->split[2], p->kv, p->ub,
        p->ctx, p->layers, p->experts, p->tps, p->whole);
    if (strcmp(who, "plan"))
        return;
    print_message("  %s L%u ctx %u strategy %s given %u min %u margin %llu limit %llu host %llu\n",
                  x->shape.arch, x->layers, x->shape.ctx, plan_strategy_word(x->pol.strategy), x->pol.ctx,
                  x->pol.ctx_min, (unsigned long long)x->pol.margin_bytes,
                  (unsigned long long)x->pol.vram_limit_bytes, (unsigned long long)x->mach.host.free_bytes);
    for (size_t i = 0; i < x->mach.n_devices; i++)
        print_message("  %s free %llu bandwidth %.0f watts %.0f\n", x->mach.devices[i].name,
                      (unsigned long long)x->mach.devices[i].free_bytes, x->mach.devices[i].bandwidth_gbps,
                      x->mach.devices[i].power_w);
}

/* The plan as a point of the space, judged by the same eyes. */
static void point_of(struct instance *x, const struct plan *plan, struct point *p)
{
    const struct plan_params *q = &plan->estimate.params;
    uint32_t all = x->pol.gpu_layers_fixed ? (uint32_t)x->pol.gpu_layers : x->layers + 1;
    *p = (struct point){.n = plan->n_used,
                        .ub = q->ubatch,
                        .ctx = q->ctx,
                        .layers = (uint32_t)q->gpu_layers,
                        .experts = q->n_cpu_moe};
    for (uint32_t i = 0; i < p->n; i++) {
        p->used[i] = plan->used[i];
        p->split[i] = q->n_tensor_split ? (uint32_t)q->tensor_split[i] : p->layers;
    }
    while (p->kv < x->n_kv && x->kv[p->kv] != q->type_k)
        p->kv++;
    assert_in_range(p->kv, 0, x->n_kv - 1);
    p->whole = x->mach.n_devices == 0 || (p->layers == all && p->experts == 0);
    assert_true(feasible(x, p));
}

static bool as_good(const struct instance *x, const struct point *got, const struct point *best)
{
    struct point b = *best;
    if (got->whole != b.whole || (got->ctx + 255) / 256 != (b.ctx + 255) / 256)
        return false;
    if (!b.whole)
        return score(x, got) >= 0.999 * score(x, &b);
    /* a rounding away from the next step of the speed is no difference */
    if (fabs(got->tps - b.tps) < 1e-3 * b.tps)
        b.tps = got->tps;
    struct point g = *got;
    b.ub = b.ub < b.ctx ? b.ub : b.ctx; /* as the runtime has it: no longer than the context */
    b.ctx = g.ctx;                      /* padded */
    rate_whole(x, &b, true);
    rate_whole(x, &g, true);
    return compare(&g, &b) == 0;
}

static bool check(struct instance *x, uint64_t seed, uint64_t *estimates)
{
    struct hunt h = {.x = x};
    struct plan *plan = mem_calloc(1, sizeof *plan);
    struct point got;
    struct err err;
    exhaust(&h);
    enum rc rc = plan_place(x->m, &x->pol, &x->mach, plan, &err);
    bool ok = rc == (h.found ? RC_OK : RC_NO_FIT);
    if (!ok)
        print_message("seed %llu: plan says %s, exhaustive search %s\n", (unsigned long long)seed,
                      rc ? err.message : "fits", h.found ? "fits" : "no fit");
    if (rc == RC_OK)
        point_of(x, plan, &got);
    if (ok && h.found && !as_good(x, &got, &h.best)) {
        print_message("seed %llu:\n", (unsigned long long)seed);
        ok = false;
    }
    if (!ok && rc == RC_OK)
        describe(x, &got, "plan");
    if (!ok && h.found)
        describe(x, &h.best, "exhaustive");
    *estimates += h.estimates;
    free(plan);
    return ok;
}

static uint64_t first_seed = 1, n_seeds = 400;

/* Where answers differed once, from 20,000 seeds: contexts or splits whose graph is smaller than that of
 * less; the last two, shares where RAM must be relieved as much as the device can bear. */
static const uint64_t found_seeds[] = {1018, 1496, 3620, 3682, 4026, 4546, 4831, 5185, 6660, 7327};

static void test_equals_exhaustive(void **state)
{
    (void)state;
    uint64_t bad = 0, estimates = 0;
    for (uint64_t i = 0; i < n_seeds + TABLE_COUNT(found_seeds); i++) {
        struct instance x;
        uint64_t seed = i < n_seeds ? first_seed + i : found_seeds[i - n_seeds];
        seed_state = seed * 0x9e3779b97f4a7c15ull;
        instance_init(&x);
        bad += !check(&x, seed, &estimates);
        instance_release(&x);
    }
    print_message("%llu instances, %llu estimates by enumeration, %llu differ\n",
                  (unsigned long long)(n_seeds + TABLE_COUNT(found_seeds)), (unsigned long long)estimates,
                  (unsigned long long)bad);
    assert_int_equal(bad, 0);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        n_seeds = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        first_seed = strtoull(argv[2], NULL, 10);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_equals_exhaustive)};
    return cmocka_run_group_tests_name("plan_search", tests, NULL, NULL);
}
