/* Which instances must leave so that a model gets its place: the cheapest set. Layer plan; pure.
 *
 * The cost of stopping an instance is the time to bring it back, weighed by how soon that is likely to be
 * wanted (reuse.h) and by its priority. A set is worth its cost only if it lifts the answer
 * a class: from not fitting, or a smaller file, or from the host, or from a shared placement, to a better
 * one. Sets are asked in the order of their cost, so the first that reaches the class that all evictable
 * instances together would give is the cheapest. A set that frees no more anywhere than one already refused
 * is refused without asking. Beyond EXACT evictable instances the cheapest ones are added until the class is
 * reached and then taken back one by one, dearest first. */
#include "plan/place_priv.h"
#include "plan/reuse.h"

#include "base/mem.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

#define EXACT   16
#define START_S 10.0 /* beside the reload: see plan_resident_cost */

double plan_resident_cost(const struct plan_resident *r)
{
    static const struct reuse never;
    double reload = START_S + (r->reload_seconds > 0 ? r->reload_seconds : 0);
    double wanted = r->wanted > 0 ? r->wanted : reuse_chance(&never, (double)r->idle_ms / 1000);
    double weight = 1;
    for (int p = r->priority; p > 0 && weight < 1e12; p--)
        weight *= 4;
    for (int p = r->priority; p < 0 && weight > 1e-12; p++)
        weight /= 4;
    return reload * wanted * weight;
}

/* ---- classes of answers: lower is better ---- */

enum { ON_DEVICES, SHARED, ON_HOST, PLACES, NOWHERE = PLACES * (PLAN_MAX_ALTERNATIVES + 1) };
typedef uint32_t answer; /* a place, plus PLACES for every smaller file that was passed over */

struct packing {
    const struct model *m;
    const struct plan_policy *policy;
    const struct plan_machine *machine;
    const struct plan_resident *residents;
    size_t n;
    uint32_t can[PLAN_MAX_RESIDENTS]; /* evictable, cheapest first */
    double cost[PLAN_MAX_RESIDENTS];  /* of can[i] */
    uint32_t n_can;
    struct plan *plan; /* the latest answer */
    struct placer placer;
    struct err err;
};

static uint64_t plus(uint64_t a, uint64_t b, uint64_t limit)
{
    uint64_t sum;
    if (__builtin_add_overflow(a, b, &sum) || (limit && sum > limit))
        return limit ? limit : UINT64_MAX;
    return sum;
}

static answer classify(const struct plan *p, const struct plan_machine *machine)
{
    if (!p->fits)
        return NOWHERE;
    answer file = (answer)(p->smaller - PLAN_AS_ASKED) * PLACES;
    if (machine->n_devices == 0)
        return file + ON_DEVICES;
    if (p->n_used == 0)
        return file + ON_HOST;
    return file + (p->estimate.layers_cpu || p->estimate.params.n_cpu_moe ? SHARED : ON_DEVICES);
}

/* The answer with the set's memory given back. RC_NO_FIT is an answer; anything else is an error. */
static enum rc answer_with(struct packing *k, uint64_t set, answer *ret)
{
    struct plan_machine machine = *k->machine;
    for (uint32_t i = 0; i < k->n_can; i++) {
        if (!(set >> i & 1))
            continue;
        const struct plan_resident *r = &k->residents[k->can[i]];
        for (size_t d = 0; d < machine.n_devices; d++)
            machine.devices[d].free_bytes =
                plus(machine.devices[d].free_bytes, r->device_bytes[d], machine.devices[d].total_bytes);
        machine.host.free_bytes = plus(machine.host.free_bytes, r->host_bytes, machine.host.total_bytes);
    }
    enum rc rc = placer_place(&k->placer, k->m, k->policy, &machine, k->plan, &k->err);
    if (rc && rc != RC_NO_FIT)
        return rc;
    *ret = rc ? NOWHERE : classify(k->plan, &machine);
    return RC_OK;
}

static void collect(struct packing *k)
{
    for (size_t i = 0; i < k->n && i < PLAN_MAX_RESIDENTS; i++) {
        if (!k->residents[i].evictable)
            continue;
        double c = plan_resident_cost(&k->residents[i]);
        uint32_t at = k->n_can++;
        for (; at > 0 && k->cost[at - 1] > c; at--) {
            k->cost[at] = k->cost[at - 1];
            k->can[at] = k->can[at - 1];
        }
        k->cost[at] = c;
        k->can[at] = (uint32_t)i;
    }
}

/* ---- sets in the order of their cost ---- */

struct set_cost {
    uint64_t set;
    double cost;
};

static int by_cost(const void *a, const void *b)
{
    const struct set_cost *x = a, *y = b;
    if (x->cost != y->cost)
        return x->cost < y->cost ? -1 : 1;
    return x->set < y->set ? -1 : x->set > y->set;
}

struct freed {
    uint64_t bytes[PLAN_MAX_DEVICES + 1];
};

static void freed_by(const struct packing *k, uint64_t set, struct freed *ret)
{
    *ret = (struct freed){0};
    for (uint32_t i = 0; i < k->n_can; i++) {
        if (!(set >> i & 1))
            continue;
        const struct plan_resident *r = &k->residents[k->can[i]];
        for (size_t d = 0; d < k->machine->n_devices; d++)
            ret->bytes[d] = plus(ret->bytes[d], r->device_bytes[d], 0);
        ret->bytes[PLAN_MAX_DEVICES] = plus(ret->bytes[PLAN_MAX_DEVICES], r->host_bytes, 0);
    }
}

static bool no_more_than(const struct freed *a, const struct freed *b)
{
    for (size_t d = 0; d <= PLAN_MAX_DEVICES; d++)
        if (a->bytes[d] > b->bytes[d])
            return false;
    return true;
}

/* Refused sets, as what they freed; only those that no other covers are kept. */
struct refused {
    struct freed *list;
    size_t n, cap;
};

static bool is_refused(const struct refused *r, const struct freed *f)
{
    for (size_t i = 0; i < r->n; i++)
        if (no_more_than(f, &r->list[i]))
            return true;
    return false;
}

static void refuse(struct refused *r, const struct freed *f)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++)
        if (!no_more_than(&r->list[i], f))
            r->list[n++] = r->list[i];
    r->n = n;
    if (r->n == r->cap) {
        r->cap = r->cap ? r->cap * 2 : 64;
        r->list = mem_realloc(r->list, r->cap, sizeof *r->list);
    }
    r->list[r->n++] = *f;
}

static enum rc cheapest_exact(struct packing *k, answer goal, uint64_t *ret_set)
{
    size_t n = (size_t)1 << k->n_can;
    struct set_cost *sets = mem_try_array(n, sizeof *sets);
    if (!sets)
        return err_set(&k->err, RC_NOMEM, "no memory to choose what to unload");
    for (size_t s = 0; s < n; s++) {
        sets[s].set = s;
        for (uint32_t i = 0; i < k->n_can; i++)
            sets[s].cost += s >> i & 1 ? k->cost[i] : 0;
    }
    qsort(sets, n, sizeof *sets, by_cost);
    struct refused refused = {0};
    enum rc rc = RC_OK;
    for (size_t i = 0; i < n && !rc; i++) {
        struct freed f;
        freed_by(k, sets[i].set, &f);
        if (is_refused(&refused, &f))
            continue;
        answer got;
        rc = answer_with(k, sets[i].set, &got);
        if (!rc && got <= goal) {
            *ret_set = sets[i].set;
            break;
        }
        refuse(&refused, &f);
    }
    free(refused.list);
    free(sets);
    return rc;
}

static enum rc cheapest_greedy(struct packing *k, answer goal, uint64_t *ret_set)
{
    uint64_t set = 0;
    answer got = NOWHERE;
    for (uint32_t i = 0; i < k->n_can; i++) {
        set |= 1ull << i;
        enum rc rc = answer_with(k, set, &got);
        if (rc)
            return rc;
        if (got <= goal)
            break;
    }
    for (uint32_t i = k->n_can; i-- > 0;) {
        if (!(set >> i & 1))
            continue;
        enum rc rc = answer_with(k, set & ~(1ull << i), &got);
        if (rc)
            return rc;
        if (got <= goal)
            set &= ~(1ull << i);
    }
    *ret_set = set;
    return answer_with(k, set, &got);
}

static enum rc choose(struct packing *k, uint64_t *ret_set)
{
    answer now, goal;
    uint64_t all = k->n_can == 64 ? UINT64_MAX : (1ull << k->n_can) - 1;
    *ret_set = 0;
    enum rc rc = answer_with(k, 0, &now);
    if (rc || now == ON_DEVICES || k->n_can == 0)
        return rc;
    rc = answer_with(k, all, &goal);
    if (rc)
        return rc;
    if (goal >= now) /* stopping them all would not help */
        return answer_with(k, 0, &now);
    if (k->n_can > EXACT)
        return cheapest_greedy(k, goal, ret_set);
    return cheapest_exact(k, goal, ret_set);
}

static enum rc blocked(struct packing *k, struct err *err)
{
    size_t busy = 0;
    for (size_t i = 0; i < k->n; i++)
        busy += !k->residents[i].evictable;
    if (err)
        *err = k->err;
    if (k->n && err)
        err_hint(err, "%zu loaded model%s cannot be stopped now (busy, loading or pinned)%s", busy,
                 busy == 1 ? "" : "s", k->n_can ? "; stopping the others would not make enough room" : "");
    return RC_NO_FIT;
}

enum rc plan_pack(const struct model *m, const struct plan_policy *policy, const struct plan_machine *machine,
                  const struct plan_resident *residents, size_t n_residents, struct plan *ret_plan,
                  struct plan_victims *ret_victims, struct err *err)
{
    if (n_residents > PLAN_MAX_RESIDENTS)
        return err_set(err, RC_LIMIT, "%zu loaded models: at most %d can be weighed", n_residents,
                       PLAN_MAX_RESIDENTS);
    struct packing *k = mem_calloc(1, sizeof *k);
    *k = (struct packing){.m = m,
                          .policy = policy,
                          .machine = machine,
                          .residents = residents,
                          .n = n_residents,
                          .plan = mem_calloc(1, sizeof *ret_plan)};
    collect(k);
    uint64_t set = 0;
    enum rc rc = choose(k, &set);
    if (rc) {
        if (err)
            *err = k->err;
    } else {
        *ret_plan = *k->plan;
        if (!k->plan->fits)
            rc = blocked(k, err);
        ret_victims->n = 0;
        for (uint32_t i = 0; i < k->n_can && !rc; i++)
            if (set >> i & 1)
                ret_victims->index[ret_victims->n++] = k->can[i];
    }
    placer_release(&k->placer);
    free(k->plan);
    free(k);
    return rc;
}
