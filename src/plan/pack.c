/* Which instances must leave so that a model gets its place: the cheapest set. Layer plan; pure.
 *
 * The cost of stopping an instance is the time to bring it back, weighed by how soon that is likely to be
 * wanted (reuse.h) and by its priority. A set is worth its cost only if it lifts the answer
 * a class: from not fitting, or a smaller file, or from the host, or from a shared placement, to a better
 * one. Sets are asked in the order of their cost, so the first that reaches the class that all evictable
 * instances together would give is the cheapest; only the class is asked for, the chosen set alone is placed.
 * A set that frees no more anywhere than one already refused, or less in all than one lacked by the sums, is
 * refused without asking. Beyond EXACT evictable instances the cheapest ones are added until the class is
 * reached and then taken back one by one, dearest first. */
#include "plan/place_priv.h"
#include "plan/reuse.h"

#include "base/mem.h"

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

struct packing {
    const struct model *m;
    const struct plan_policy *policy;
    const struct plan_machine *machine;
    const struct plan_resident *residents;
    size_t n;
    uint32_t can[PLAN_MAX_RESIDENTS]; /* evictable, cheapest first */
    double cost[PLAN_MAX_RESIDENTS];  /* of can[i] */
    uint32_t n_can;
    struct placer placer;
    struct err *err;
};

static uint64_t plus(uint64_t a, uint64_t b, uint64_t limit)
{
    uint64_t sum;
    if (__builtin_add_overflow(a, b, &sum) || (limit && sum > limit))
        return limit ? limit : UINT64_MAX;
    return sum;
}

/* The machine with the set's memory given back. */
static void without(const struct packing *k, uint64_t set, struct plan_machine *ret)
{
    *ret = *k->machine;
    for (uint32_t i = 0; i < k->n_can; i++) {
        if (!(set >> i & 1))
            continue;
        const struct plan_resident *r = &k->residents[k->can[i]];
        for (size_t d = 0; d < ret->n_devices; d++)
            ret->devices[d].free_bytes =
                plus(ret->devices[d].free_bytes, r->device_bytes[d], ret->devices[d].total_bytes);
        ret->host.free_bytes = plus(ret->host.free_bytes, r->host_bytes, ret->host.total_bytes);
    }
}

static enum rc class_with(struct packing *k, uint64_t set, answer_class worst, answer_class *ret,
                          uint64_t *ret_short_bytes)
{
    struct plan_machine machine;
    without(k, set, &machine);
    return placer_class(&k->placer, k->m, k->policy, &machine, worst, ret, ret_short_bytes, k->err);
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

struct freed {
    uint64_t bytes[PLAN_MAX_DEVICES + 1]; /* by device, then of the host */
    uint64_t of_devices;                  /* together */
};

static void freed_by(const struct packing *k, uint64_t set, struct freed *ret)
{
    size_t n = k->machine->n_devices;
    memset(ret->bytes, 0, (n + 1) * sizeof *ret->bytes);
    ret->of_devices = 0;
    for (; set; set &= set - 1) {
        const struct plan_resident *r = &k->residents[k->can[__builtin_ctzll(set)]];
        for (size_t d = 0; d < n; d++)
            ret->bytes[d] = plus(ret->bytes[d], r->device_bytes[d], 0);
        ret->bytes[n] = plus(ret->bytes[n], r->host_bytes, 0);
    }
    for (size_t d = 0; d < n; d++)
        ret->of_devices = plus(ret->of_devices, ret->bytes[d], 0);
}

/* Refused sets, as what they freed; only those that no other covers are kept. */
struct refused {
    struct freed *list;
    size_t n, cap, places; /* devices and the host */
    uint64_t least_bytes;  /* what frees less of all devices together is refused */
};

static bool no_more_than(const struct refused *r, const struct freed *a, const struct freed *b)
{
    if (a->of_devices > b->of_devices)
        return false;
    for (size_t i = 0; i < r->places; i++)
        if (a->bytes[i] > b->bytes[i])
            return false;
    return true;
}

static bool is_refused(const struct refused *r, const struct freed *f)
{
    if (f->of_devices < r->least_bytes)
        return true;
    for (size_t i = 0; i < r->n; i++)
        if (no_more_than(r, f, &r->list[i]))
            return true;
    return false;
}

static void refuse(struct refused *r, const struct freed *f, uint64_t short_bytes)
{
    uint64_t least = short_bytes ? plus(f->of_devices, short_bytes, 0) : 0;
    r->least_bytes = least > r->least_bytes ? least : r->least_bytes;
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++)
        if (!no_more_than(r, &r->list[i], f))
            r->list[n++] = r->list[i];
    r->n = n;
    if (r->n == r->cap) {
        r->cap = r->cap ? r->cap * 2 : 64;
        r->list = mem_realloc(r->list, r->cap, sizeof *r->list);
    }
    r->list[r->n++] = *f;
}

static double cost_of(const struct packing *k, uint64_t set)
{
    double sum = 0;
    for (; set; set &= set - 1)
        sum += k->cost[__builtin_ctzll(set)];
    return sum;
}

struct set_cost {
    uint32_t set;
    double cost;
};

/* Every set once, cheapest first, made as they are asked for: each is followed by itself with the instance
 * next to its dearest, beside that one or in its place, neither of which is cheaper. A heap. */
struct by_cost {
    struct set_cost heap[1 << EXACT]; /* each set taken leaves two for one: never more than there are */
    uint32_t n;
};

static bool cheaper(const struct set_cost *x, const struct set_cost *y)
{
    return x->cost < y->cost || (!(y->cost < x->cost) && x->set < y->set);
}

static void heap_add(struct by_cost *h, struct set_cost new)
{
    uint32_t at = h->n++;
    for (; at > 0 && cheaper(&new, &h->heap[(at - 1) / 2]); at = (at - 1) / 2)
        h->heap[at] = h->heap[(at - 1) / 2];
    h->heap[at] = new;
}

static struct set_cost heap_take(struct by_cost *h)
{
    struct set_cost first = h->heap[0], last = h->heap[--h->n];
    uint32_t at = 0;
    for (uint32_t child; (child = 2 * at + 1) < h->n; at = child) {
        if (child + 1 < h->n && cheaper(&h->heap[child + 1], &h->heap[child]))
            child++;
        if (!cheaper(&h->heap[child], &last))
            break;
        h->heap[at] = h->heap[child];
    }
    h->heap[at] = last;
    return first;
}

static uint32_t next_set(const struct packing *k, struct by_cost *h)
{
    uint32_t set = heap_take(h).set, top = set ? 32 - (uint32_t)__builtin_clz(set) : 0;
    if (top < k->n_can) {
        uint32_t more = set | 1u << top;
        heap_add(h, (struct set_cost){more, cost_of(k, more)});
        if (set) {
            uint32_t instead = more & ~(1u << (top - 1));
            heap_add(h, (struct set_cost){instead, cost_of(k, instead)});
        }
    }
    return set;
}

static enum rc cheapest_exact(struct packing *k, answer_class goal, uint64_t *ret_set)
{
    struct by_cost *sets = mem_try_array(1, sizeof *sets);
    if (!sets)
        return err_set(k->err, RC_NOMEM, "no memory to choose what to unload");
    sets->n = 0;
    heap_add(sets, (struct set_cost){0, 0});
    struct refused refused = {.places = k->machine->n_devices + 1};
    enum rc rc = RC_OK;
    while (sets->n > 0 && !rc) {
        uint32_t set = next_set(k, sets);
        struct freed f;
        freed_by(k, set, &f);
        if (is_refused(&refused, &f))
            continue;
        answer_class got;
        uint64_t short_bytes;
        rc = class_with(k, set, goal, &got, &short_bytes);
        if (!rc && got <= goal) {
            *ret_set = set;
            break;
        }
        if (!rc)
            refuse(&refused, &f, goal == ON_DEVICES ? short_bytes : 0);
    }
    free(refused.list);
    free(sets);
    return rc;
}

static enum rc cheapest_greedy(struct packing *k, answer_class goal, uint64_t *ret_set)
{
    uint64_t set = 0;
    answer_class got = NOWHERE;
    uint64_t unused;
    enum rc rc = class_with(k, 0, goal, &got, &unused);
    for (uint32_t i = 0; i < k->n_can && !rc && got > goal; i++) {
        set |= 1ull << i;
        rc = class_with(k, set, goal, &got, &unused);
    }
    for (uint32_t i = k->n_can; i-- > 0 && !rc;) {
        if (!(set >> i & 1))
            continue;
        rc = class_with(k, set & ~(1ull << i), goal, &got, &unused);
        if (!rc && got <= goal)
            set &= ~(1ull << i);
    }
    *ret_set = set;
    return rc;
}

/* The cheapest set that reaches the class which all together would: none, where that is no better. */
static enum rc choose(struct packing *k, uint64_t *ret_set)
{
    uint64_t all = k->n_can == 64 ? UINT64_MAX : (1ull << k->n_can) - 1;
    answer_class goal;
    uint64_t unused;
    *ret_set = 0;
    if (k->n_can == 0)
        return RC_OK;
    enum rc rc = class_with(k, all, NOWHERE, &goal, &unused);
    if (rc || goal == NOWHERE)
        return rc;
    return k->n_can > EXACT ? cheapest_greedy(k, goal, ret_set) : cheapest_exact(k, goal, ret_set);
}

static void tell_blocked(const struct packing *k)
{
    size_t busy = 0;
    for (size_t i = 0; i < k->n; i++)
        busy += !k->residents[i].evictable;
    if (k->n)
        err_hint(k->err, "%zu loaded model%s cannot be stopped now (busy, loading or pinned)%s", busy,
                 busy == 1 ? "" : "s", k->n_can ? "; stopping the others would not make enough room" : "");
}

enum rc plan_pack(const struct model *m, const struct plan_policy *policy, const struct plan_machine *machine,
                  const struct plan_resident *residents, size_t n_residents, struct plan *ret_plan,
                  struct plan_victims *ret_victims, struct err *err)
{
    if (n_residents > PLAN_MAX_RESIDENTS)
        return err_set(err, RC_LIMIT, "%zu loaded models: at most %d can be weighed", n_residents,
                       PLAN_MAX_RESIDENTS);
    struct err unread;
    struct packing *k = mem_calloc(1, sizeof *k);
    *k = (struct packing){.m = m,
                          .policy = policy,
                          .machine = machine,
                          .residents = residents,
                          .n = n_residents,
                          .err = err ? err : &unread};
    collect(k);
    uint64_t set = 0;
    enum rc rc = choose(k, &set);
    if (!rc) {
        struct plan_machine freed;
        without(k, set, &freed);
        rc = placer_place(&k->placer, m, policy, &freed, ret_plan, k->err);
        if (rc == RC_NO_FIT)
            tell_blocked(k);
        ret_victims->n = 0;
        for (uint32_t i = 0; i < k->n_can && !rc; i++)
            if (set >> i & 1)
                ret_victims->index[ret_victims->n++] = k->can[i];
    }
    placer_release(&k->placer);
    free(k);
    return rc;
}
