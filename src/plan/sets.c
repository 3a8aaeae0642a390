/* Sets of devices worth asking. Layer plan; pure; see place_priv.h. Of all sets of one size those are left
 * out that another one betters in every place: of devices that compute alike, the one with more room and more
 * bandwidth holds whatever the other holds. Cards of one kind so count once. */
#include "plan/place_priv.h"

#include <string.h>

double sets_bandwidth(const struct plan_device *d)
{
    double nominal = d->bandwidth_gbps > 0 ? d->bandwidth_gbps : backend_traits(d->backend)->bandwidth_gbps;
    return d->taught.decode_factor > 0 ? nominal / d->taught.decode_factor : nominal;
}

/* The cost of running one device: its watts, or its size where not all are known. */
static double frugality(const struct search *s, uint32_t device)
{
    bool known = true;
    for (size_t i = 0; i < s->machine->n_devices; i++)
        known = known && s->machine->devices[i].power_w > 0;
    const struct plan_device *d = &s->machine->devices[device];
    return known ? d->power_w : (double)d->total_bytes / (double)MIB;
}

double sets_watts(const struct search *s, const uint32_t *used, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += frugality(s, used[i]);
    return sum;
}

static bool before(const struct search *s, uint32_t a, uint32_t b)
{
    const struct plan_device *x = &s->machine->devices[a], *y = &s->machine->devices[b];
    double bx = sets_bandwidth(x), by = sets_bandwidth(y), fx = frugality(s, a), fy = frugality(s, b);
    if (s->policy->strategy == PLAN_MAX_PERFORMANCE && (bx > 1.1 * by || by > 1.1 * bx))
        return bx > by;
    if (s->policy->strategy == PLAN_POWER_EFFICIENT && (fx < fy || fx > fy))
        return fx < fy;
    return x->free_bytes > y->free_bytes;
}

enum rc sets_candidates(struct search *s, struct err *err)
{
    for (uint32_t i = 0; i < s->machine->n_devices; i++) {
        if (s->policy->device && !plan_device_is(&s->machine->devices[i], s->policy->device))
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
    for (uint32_t i = 0; i < s->n_order; i++)
        s->rank[s->order[i]] = i;
    if (s->policy->device && s->n_order == 0) {
        enum rc rc =
            err_set(err, RC_NOT_FOUND, "%s is pinned to device '%s', which has no free memory or is not here",
                    s->m->name, s->policy->device);
        err_hint(err, "arriero gpus lists the devices");
        return rc;
    }
    return RC_OK;
}

uint32_t sets_all(const struct search *s, uint32_t ret[PLAN_MAX_DEVICES])
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->machine->n_devices; i++)
        for (uint32_t j = 0; j < s->n_order; j++)
            if (s->order[j] == i)
                ret[n++] = i;
    return n;
}

uint32_t sets_limit(const struct search *s)
{
    return s->policy->max_gpus && s->policy->max_gpus < s->n_order ? s->policy->max_gpus : s->n_order;
}

/* x can do all that y can. Cards must be asked in the runtime's order: the last one also holds the output. */
static bool betters(const struct search *s, const struct device_set *x, const struct device_set *y)
{
    for (uint32_t i = 0; i < x->n; i++) {
        const struct plan_device *a = &s->machine->devices[x->used[i]], *b = &s->machine->devices[y->used[i]];
        if (a->backend != b->backend || sets_bandwidth(a) < sets_bandwidth(b) || a->tflops < b->tflops ||
            minus(try_room(s, x->used[i]), a->overhead_bytes) <
                minus(try_room(s, y->used[i]), b->overhead_bytes) ||
            a->free_bytes < b->free_bytes || a->overhead_bytes > b->overhead_bytes)
            return false;
        if (s->policy->strategy == PLAN_POWER_EFFICIENT &&
            frugality(s, x->used[i]) > frugality(s, y->used[i]))
            return false;
    }
    return true;
}

/* A draft that has a device to itself needs it among those of the model. */
static bool has_draft_device(const struct search *s, const struct device_set *set)
{
    const struct plan_extras *x = s->base.extras;
    if (!x || !x->draft || !x->draft_device)
        return true;
    for (uint32_t i = 0; i < set->n; i++)
        if (plan_device_is(&s->machine->devices[set->used[i]], x->draft_device))
            return true;
    return false;
}

static void insert(const struct search *s, const struct device_set *new, struct device_set *list, uint32_t *n)
{
    uint32_t kept = 0;
    if (!has_draft_device(s, new))
        return;
    for (uint32_t i = 0; i < *n; i++)
        if (betters(s, &list[i], new))
            return;
    for (uint32_t i = 0; i < *n; i++)
        if (!betters(s, new, &list[i]))
            list[kept++] = list[i];
    if (kept < PLACE_MAX_SETS)
        list[kept++] = *new;
    *n = kept;
}

/* The first n of the preferred order, as a set in the machine's order. */
static void preferred(const struct search *s, uint32_t n, struct device_set *ret)
{
    ret->n = n;
    memcpy(ret->used, s->order, n * sizeof *ret->used);
    for (uint32_t i = 1; i < n; i++) {
        uint32_t d = ret->used[i], at = i;
        for (; at > 0 && ret->used[at - 1] > d; at--)
            ret->used[at] = ret->used[at - 1];
        ret->used[at] = d;
    }
}

#define MAX_SUBSETS 20000u /* walked; more than 16 choose 8 */

uint32_t sets_of(const struct search *s, uint32_t n, struct device_set ret[PLACE_MAX_SETS])
{
    struct device_set set = {.n = n};
    uint32_t count = 0, walked = 0, pick[PLAN_MAX_DEVICES], sorted[PLAN_MAX_DEVICES];
    if (n == 0) {
        ret[0] = set;
        return 1;
    }
    uint32_t m = sets_all(s, sorted);
    if (n > m)
        return 0;
    preferred(s, n, &set);
    insert(s, &set, ret, &count);
    for (uint32_t i = 0; i < n; i++)
        pick[i] = i;
    for (; walked < MAX_SUBSETS && count < PLACE_MAX_SETS; walked++) {
        for (uint32_t i = 0; i < n; i++)
            set.used[i] = sorted[pick[i]];
        insert(s, &set, ret, &count);
        uint32_t at = n;
        while (at > 0 && pick[at - 1] == m - n + at - 1)
            at--;
        if (at == 0)
            break;
        pick[at - 1]++;
        for (uint32_t i = at; i < n; i++)
            pick[i] = pick[i - 1] + 1;
    }
    return count;
}
