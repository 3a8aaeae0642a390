/* Victims: none without need, the cheapest set with it, checked against all sets; busy ones never.
 * "test_plan_pack N SEED" asks about every cheaper set on N machines of 8 GPUs with 16 instances. */
#include "plan_test.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct plan_machine machine(size_t gpus, uint64_t total_mib, uint64_t free_mib)
{
    static const char *const names[] = {"CUDA0", "CUDA1", "CUDA2", "CUDA3",
                                        "CUDA4", "CUDA5", "CUDA6", "CUDA7"};
    struct plan_machine m = {0};
    m.host.total_bytes = m.host.free_bytes = 64000 * MIB;
    m.host.cores = 8;
    for (size_t i = 0; i < gpus; i++) {
        m.devices[m.n_devices] = device(names[i], total_mib);
        m.devices[m.n_devices++].free_bytes = free_mib * MIB;
    }
    return m;
}

static struct plan_resident resident(const char *id, size_t dev, uint64_t mib, uint64_t idle_s, double reload,
                                     bool evictable)
{
    struct plan_resident r = {
        .id = id, .idle_ms = idle_s * 1000, .reload_seconds = reload, .evictable = evictable};
    r.device_bytes[dev] = mib * MIB;
    return r;
}

static struct plan_policy on_gpu(uint32_t ctx)
{
    struct plan_policy p;
    plan_policy_default(&p);
    p.ctx = ctx;
    return p;
}

static void test_no_need(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_1b);
    struct plan_machine mach = machine(1, 24000, 8000);
    struct plan_policy pol = on_gpu(4096);
    struct plan_resident r = resident("a", 0, 8000, 3600, 5, true);
    struct plan_victims v = {.n = 9};
    struct plan *p = mem_calloc(1, sizeof *p);
    assert_int_equal(plan_pack(m, &pol, &mach, &r, 1, p, &v, NULL), RC_OK);
    assert_int_equal(v.n, 0);
    assert_int_equal(p->n_used, 1);
    free(p);
    model_unref(m);
}

static void test_cheapest(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_8b);
    struct plan_machine mach = machine(1, 24000, 2000);
    struct plan_policy pol = on_gpu(8192);
    struct plan_resident r[] = {
        resident("fresh", 0, 12000, 1, 30, true),
        resident("stale", 0, 7000, 7200, 10, true),
        resident("busy", 0, 12000, 0, 1, false),
        resident("small", 0, 500, 7200, 1, true),
    };
    struct plan_victims v;
    struct plan *p = mem_calloc(1, sizeof *p);
    assert_int_equal(plan_pack(m, &pol, &mach, r, 4, p, &v, NULL), RC_OK);
    assert_int_equal(v.n, 1); /* 7000 are enough; the small one need not go, the fresh one costs more */
    assert_int_equal(v.index[0], 1);
    assert_int_equal(p->estimate.layers_cpu, 0);
    r[1].priority = 9; /* now it is dear */
    assert_int_equal(plan_pack(m, &pol, &mach, r, 4, p, &v, NULL), RC_OK);
    assert_int_equal(v.n, 1);
    assert_int_equal(v.index[0], 0);
    free(p);
    model_unref(m);
}

static void test_blocked(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_8b);
    struct plan_machine mach = machine(1, 24000, 2000);
    struct plan_policy pol = on_gpu(8192);
    pol.allow_cpu = false;
    struct plan_resident r[] = {resident("busy", 0, 20000, 0, 1, false),
                                resident("small", 0, 500, 7200, 1, true)};
    struct plan_victims v = {.n = 9};
    struct plan *p = mem_calloc(1, sizeof *p);
    struct err err;
    assert_int_equal(plan_pack(m, &pol, &mach, r, 2, p, &v, &err), RC_NO_FIT);
    assert_int_equal(v.n, 0);
    assert_non_null(strstr(err.hint, "cannot be stopped"));
    pol.allow_cpu = true; /* stopping the small one would not help: it runs on the host and nobody leaves */
    assert_int_equal(plan_pack(m, &pol, &mach, r, 2, p, &v, &err), RC_OK);
    assert_int_equal(v.n, 0);
    free(p);
    model_unref(m);
}

/* The file that was asked for is worth an eviction; what is not to be had by one comes in a smaller file. */
static void test_smaller_file(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_70b), *small = shape_model(&shape_llama_8b);
    const struct model *const files[] = {small};
    struct plan_machine mach = machine(1, 64000, 20000);
    struct plan_policy pol = on_gpu(8192);
    struct plan_resident r[] = {resident("r", 0, 40000, 7200, 10, true)};
    struct plan_victims v;
    struct plan *p = mem_calloc(1, sizeof *p);
    pol.allow_cpu = false;
    pol.smaller = files;
    pol.n_smaller = 1;
    assert_int_equal(plan_pack(m, &pol, &mach, r, 1, p, &v, NULL), RC_OK);
    assert_int_equal(v.n, 1);
    assert_int_equal(p->smaller, PLAN_AS_ASKED);
    r[0].evictable = false;
    assert_int_equal(plan_pack(m, &pol, &mach, r, 1, p, &v, NULL), RC_OK);
    assert_int_equal(v.n, 0);
    assert_int_equal(p->smaller, 0);
    r[0].evictable = true; /* it would go, and the large file not fit all the same */
    mach.devices[0].total_bytes = 30000 * MIB;
    r[0].device_bytes[0] = 10000 * MIB;
    assert_int_equal(plan_pack(m, &pol, &mach, r, 1, p, &v, NULL), RC_OK);
    assert_int_equal(v.n, 0);
    assert_int_equal(p->smaller, 0);
    free(p);
    model_unref(m);
    model_unref(small);
}

static bool fits_with(const struct model *m, const struct plan_policy *pol, const struct plan_machine *mach,
                      const struct plan_resident *r, size_t n, unsigned set)
{
    struct plan_machine k = *mach;
    struct plan *p = mem_calloc(1, sizeof *p);
    for (size_t i = 0; i < n; i++)
        for (size_t d = 0; d < k.n_devices && set >> i & 1; d++)
            k.devices[d].free_bytes += r[i].device_bytes[d];
    bool ok = plan_place(m, pol, &k, p, NULL) == RC_OK;
    free(p);
    return ok;
}

static double cost(const struct plan_resident *r, size_t n, unsigned set)
{
    double c = 0; /* equal idleness: the numbers and the times to reload decide */
    for (size_t i = 0; i < n; i++)
        c += set >> i & 1 ? 10 + r[i].reload_seconds : 0;
    return c;
}

/* Against every set of up to seven instances on two GPUs. */
static void test_optimal(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_8b);
    struct plan_policy pol = on_gpu(8192);
    pol.allow_cpu = false;
    uint64_t seed = 12345;
    for (unsigned round = 0; round < 6; round++) {
        struct plan_machine mach = machine(2, 16000, 1000);
        struct plan_resident r[7];
        size_t n = 3 + round % 5;
        for (size_t i = 0; i < n; i++) {
            seed = seed * 6364136223846793005ull + 1442695040888963407ull;
            r[i] = resident("r", seed >> 33 & 1, 1500 + (seed >> 40) % 3500, 600,
                            1 + (double)((seed >> 20) % 40), true);
        }
        double best = -1;
        for (unsigned set = 0; set < 1u << n; set++)
            if ((best < 0 || cost(r, n, set) < best) && fits_with(m, &pol, &mach, r, n, set))
                best = cost(r, n, set);
        struct plan_victims v;
        struct plan *p = mem_calloc(1, sizeof *p);
        enum rc rc = plan_pack(m, &pol, &mach, r, n, p, &v, NULL);
        free(p);
        if (best < 0) {
            assert_int_equal(rc, RC_NO_FIT);
            continue;
        }
        assert_int_equal(rc, RC_OK);
        unsigned chosen = 0;
        for (uint32_t i = 0; i < v.n; i++)
            chosen |= 1u << v.index[i];
        assert_true(cost(r, n, chosen) <= best + 1e-9);
    }
    model_unref(m);
}

static void test_limits(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_1b);
    struct plan_machine mach = machine(1, 8000, 8000);
    struct plan_policy pol = on_gpu(4096);
    struct plan_victims v;
    struct plan *p = mem_calloc(1, sizeof *p);
    struct plan_resident r[PLAN_MAX_RESIDENTS + 1];
    memset(r, 0, sizeof r);
    assert_int_equal(plan_pack(m, &pol, &mach, r, PLAN_MAX_RESIDENTS + 1, p, &v, NULL), RC_LIMIT);
    assert_int_equal(plan_pack(m, &pol, &mach, NULL, 0, p, &v, NULL), RC_OK);
    free(p);
    model_unref(m);
}

/* ---- against every set ---- */

static uint64_t rnd_state = 88172645463325252ull;
static uint64_t rnd(uint64_t n)
{
    rnd_state ^= rnd_state << 13;
    rnd_state ^= rnd_state >> 7;
    rnd_state ^= rnd_state << 17;
    return rnd_state % n;
}

static int class_of(const struct model *m, const struct plan_policy *pol, const struct plan_machine *mach,
                    const struct plan_resident *r, uint32_t n, uint32_t set, struct plan *p)
{
    struct plan_machine with = *mach;
    for (uint32_t i = 0; i < n; i++)
        for (size_t d = 0; d < with.n_devices && set >> i & 1; d++)
            with.devices[d].free_bytes += r[i].device_bytes[d];
    for (uint32_t i = 0; i < n; i++)
        with.host.free_bytes += set >> i & 1 ? r[i].host_bytes : 0;
    if (plan_place(m, pol, &with, p, NULL) != RC_OK)
        return 3;
    return p->n_used == 0 ? 2 : p->estimate.layers_cpu || p->estimate.params.n_cpu_moe ? 1 : 0;
}

/* The victims cost no more than the cheapest of all sets that reach the class which all of them would. */
static void test_random_sets(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_8b);
    struct plan *p = mem_calloc(1, sizeof *p);
    unsigned with_victims = 0, for_a_share = 0, in_ram = 0;
    for (unsigned round = 0; round < 120; round++) {
        uint32_t gpus = (uint32_t)rnd(3), n = 1 + (uint32_t)rnd(5), best_set = 0;
        struct plan_machine mach = machine(gpus, 12000, 500 + rnd(3000));
        struct plan_policy pol = on_gpu(4096);
        struct plan_resident r[8];
        pol.allow_cpu = rnd(3) != 0;
        bool small = gpus && rnd(3) == 0; /* no more than a share of the layers has its place */
        if (small || !gpus)
            mach.host.free_bytes = (1500 + rnd(2500)) * MIB;
        for (uint32_t i = 0; i < n; i++) {
            r[i] = resident("r", gpus ? rnd(gpus) : 0, small ? 200 + rnd(900) : 800 + rnd(3500), rnd(4000),
                            1 + (double)rnd(40), rnd(5) != 0);
            r[i].priority = (int)rnd(3);
            if (!gpus) {
                r[i].host_bytes = r[i].device_bytes[0];
                r[i].device_bytes[0] = 0;
            }
        }
        uint32_t all = 0;
        for (uint32_t i = 0; i < n; i++)
            all |= (uint32_t)r[i].evictable << i;
        int now = class_of(m, &pol, &mach, r, n, 0, p), goal = class_of(m, &pol, &mach, r, n, all, p);
        double best = 1e300;
        for (uint32_t set = 0; set <= all && goal < now; set++) {
            double sum = 0;
            if ((set & ~all) || class_of(m, &pol, &mach, r, n, set, p) > goal)
                continue;
            for (uint32_t i = 0; i < n; i++)
                sum += set >> i & 1 ? plan_resident_cost(&r[i]) : 0;
            best_set = sum < best ? set : best_set;
            best = sum < best ? sum : best;
        }
        struct plan_victims v;
        enum rc rc = plan_pack(m, &pol, &mach, r, n, p, &v, NULL);
        assert_int_equal(rc, (goal < now ? goal : now) == 3 ? RC_NO_FIT : RC_OK);
        double paid = 0;
        for (uint32_t i = 0; !rc && i < v.n; i++) {
            assert_true(r[v.index[i]].evictable);
            paid += plan_resident_cost(&r[v.index[i]]);
        }
        if (rc || goal >= now) {
            assert_true(rc || v.n == 0);
            continue;
        }
        with_victims++;
        for_a_share += goal == 1;
        in_ram += !gpus;
        assert_true(best_set != 0 && paid <= best * (1 + 1e-9));
    }
    print_message("%u with victims, %u of them for a share, %u in RAM alone\n", with_victims, for_a_share,
                  in_ram);
    assert_true(with_victims > 10 && for_a_share > 3 && in_ram > 3);
    free(p);
    model_unref(m);
}

/* ---- 16 instances on 8 GPUs ---- */

#define LARGE_GPUS 8
#define LARGE_N    16
static uint64_t n_large = 2, first_large = 1, most_asked = 20;

struct priced {
    uint32_t set;
    double price;
};

static int by_price(const void *a, const void *b)
{
    double x = ((const struct priced *)a)->price, y = ((const struct priced *)b)->price;
    return (x > y) - (x < y);
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

struct large {
    const struct model *m;
    struct plan_machine mach;
    struct plan_policy pol;
    struct plan_resident r[LARGE_N];
    struct plan *plan;
};

static void large_init(struct large *x, uint64_t seed)
{
    rnd_state = seed * 0x9e3779b97f4a7c15ull;
    for (unsigned i = 0; i < 8; i++)
        (void)rnd(2);
    x->mach = machine(LARGE_GPUS, 12000, 0);
    x->pol = on_gpu(4096);
    x->pol.allow_cpu = rnd(3) != 0;
    for (uint32_t i = 0; i < LARGE_N; i++) {
        uint64_t mib = 1000 + rnd(4500);
        x->r[i] = resident("r", rnd(LARGE_GPUS), mib, rnd(4000), 1 + (double)rnd(40), rnd(8) != 0);
        x->r[i].priority = (int)rnd(3);
        if (rnd(4) == 0) /* over two cards */
            x->r[i].device_bytes[rnd(LARGE_GPUS)] += mib / 2 * MIB;
    }
    for (size_t d = 0; d < LARGE_GPUS; d++) {
        uint64_t used = 0;
        for (uint32_t i = 0; i < LARGE_N; i++)
            used += x->r[i].device_bytes[d];
        x->mach.devices[d].free_bytes = rnd(2000) * MIB;
        x->mach.devices[d].total_bytes = used + x->mach.devices[d].free_bytes;
    }
}

/* No set that costs less than the victims reaches the class, by asking: for all of them, or for most_asked,
 * evenly spread over their prices. Returns how many were asked. */
static uint32_t must_be_cheapest(struct large *x, uint32_t all, int goal, uint32_t chosen)
{
    struct priced *sets = mem_calloc(1u << LARGE_N, sizeof *sets);
    uint32_t n = 0, asked = 0;
    for (uint32_t set = 0; set < 1u << LARGE_N; set++) {
        if (set & ~all)
            continue;
        sets[n] = (struct priced){.set = set};
        for (uint32_t i = 0; i < LARGE_N; i++)
            sets[n].price += set >> i & 1 ? plan_resident_cost(&x->r[i]) : 0;
        n++;
    }
    qsort(sets, n, sizeof *sets, by_price);
    double paid = 0;
    for (uint32_t i = 0; i < LARGE_N; i++)
        paid += chosen >> i & 1 ? plan_resident_cost(&x->r[i]) : 0;
    uint32_t cheaper = 0;
    while (cheaper < n && sets[cheaper].price < paid * (1 - 1e-9))
        cheaper++;
    uint32_t step = cheaper > most_asked ? cheaper / (uint32_t)most_asked : 1;
    for (uint32_t k = 0; k < cheaper; k += step, asked++)
        if (class_of(x->m, &x->pol, &x->mach, x->r, LARGE_N, sets[k].set, x->plan) <= goal)
            fail_msg("the set %x costs %.3f, the victims %x %.3f", sets[k].set, sets[k].price, chosen, paid);
    free(sets);
    return asked;
}

static void test_sixteen_on_eight(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_8b);
    struct large x = {.m = m, .plan = mem_calloc(1, sizeof *x.plan)};
    uint64_t asked = 0, with_victims = 0;
    double longest = 0, sum = 0;
    for (uint64_t i = 0; i < n_large; i++) {
        struct plan_victims v = {.n = 0};
        large_init(&x, first_large + i);
        double start = now_ms();
        enum rc rc = plan_pack(x.m, &x.pol, &x.mach, x.r, LARGE_N, x.plan, &v, NULL);
        double took = now_ms() - start;
        longest = took > longest ? took : longest;
        sum += took;
        uint32_t all = 0, chosen = 0;
        for (uint32_t k = 0; k < LARGE_N; k++)
            all |= (uint32_t)x.r[k].evictable << k;
        for (uint32_t k = 0; !rc && k < v.n; k++)
            chosen |= 1u << v.index[k];
        int now = class_of(x.m, &x.pol, &x.mach, x.r, LARGE_N, 0, x.plan),
            goal = class_of(x.m, &x.pol, &x.mach, x.r, LARGE_N, all, x.plan);
        assert_int_equal(rc, (goal < now ? goal : now) == 3 ? RC_NO_FIT : RC_OK);
        assert_int_equal(chosen & ~all, 0);
        if (rc || goal >= now) {
            assert_int_equal(chosen, 0);
            continue;
        }
        with_victims++;
        assert_true(class_of(x.m, &x.pol, &x.mach, x.r, LARGE_N, chosen, x.plan) <= goal);
        asked += must_be_cheapest(&x, all, goal, chosen);
    }
    print_message(
        "%llu machines, %llu with victims, %llu cheaper sets asked, %.2f ms on average, %.2f at most\n",
        (unsigned long long)n_large, (unsigned long long)with_victims, (unsigned long long)asked,
        sum / (double)n_large, longest);
    free(x.plan);
    model_unref(m);
}

/* ---- rebalancing ---- */

/* A model shared with the host while another filled the card: once that is gone, it should come back whole.
 */
static void test_rebalance(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_8b);
    struct plan_machine full = machine(1, 12000, 4000), live = machine(1, 12000, 12000);
    struct plan_policy pol = on_gpu(4096);
    struct plan *running = mem_calloc(1, sizeof *running);
    struct plan_delta *d = mem_calloc(1, sizeof *d);
    assert_int_equal(plan_place(m, &pol, &full, running, NULL), RC_OK);
    assert_true(running->estimate.layers_cpu > 0);
    live.devices[0].free_bytes -= plan_part_total(&running->estimate.parts[0]);
    live.host.free_bytes -= plan_part_total(&running->estimate.parts[1]);
    struct plan_loaded l = {.m = m, .policy = &pol, .plan = running, .use = 1, .movable = true};
    plan_rebalance(&live, &l, 1, d);
    assert_int_equal(d->n_moves, 1);
    assert_int_equal(d->moves[0].layers_gpu, 33);
    assert_true(d->gain_tps > 0 && d->cost_seconds > 0 && d->freed_bytes < 0);
    assert_true(d->moves[0].tps_after > 1.5 * d->moves[0].tps_before);
    l.movable = false;
    plan_rebalance(&live, &l, 1, d);
    assert_int_equal(d->n_moves, 0);
    /* where it is best already, it stays */
    l.movable = true;
    struct plan_machine roomy = machine(1, 12000, 12000);
    assert_int_equal(plan_place(m, &pol, &roomy, running, NULL), RC_OK);
    roomy.devices[0].free_bytes -= plan_part_total(&running->estimate.parts[0]);
    plan_rebalance(&roomy, &l, 1, d);
    assert_int_equal(d->n_moves, 0);
    plan_rebalance(&roomy, NULL, 0, d);
    assert_int_equal(d->n_moves, 0);
    free(d);
    free(running);
    model_unref(m);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        n_large = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        first_large = strtoull(argv[2], NULL, 10);
    if (argc > 1)
        most_asked = UINT32_MAX;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sixteen_on_eight), cmocka_unit_test(test_random_sets),
        cmocka_unit_test(test_rebalance),        cmocka_unit_test(test_smaller_file),
        cmocka_unit_test(test_no_need),          cmocka_unit_test(test_cheapest),
        cmocka_unit_test(test_blocked),          cmocka_unit_test(test_optimal),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests_name("plan_pack", tests, NULL, NULL);
}
