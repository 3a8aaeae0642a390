/* What fits on one set of devices. Layer plan; pure; see place_priv.h. Memory grows with the context
 * nearly in a straight line, so the longest one is found by false position and then checked on both sides. */
#include "plan/place_priv.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

bool has_experts(const struct search *s)
{
    return s->est->facts.n_expert > 0;
}

uint64_t try_room(const struct search *s, uint32_t device)
{
    return minus(s->machine->devices[device].free_bytes, s->margin);
}

/* Words are kept of whatever came nearest. */
static bool nearer(struct search *s, uint64_t by)
{
    if (s->shortfall[0] && by >= s->short_by)
        return false;
    s->short_by = by;
    return true;
}

static const char *at_least(bool sizes)
{
    return sizes ? "at least " : "";
}

/* sizes: what is needed is known without the graphs. */
static void note_part(struct search *s, const struct plan_part *p, uint64_t room, bool sizes)
{
    char need[32], have[32];
    if (nearer(s, plan_part_total(p) - room))
        snprintf(s->shortfall, sizeof s->shortfall, "%s needs %s%s and has %s",
                 p->kind == PLAN_HOST ? "RAM" : p->name, at_least(sizes),
                 str_human_bytes(plan_part_total(p), need, sizeof need),
                 str_human_bytes(room, have, sizeof have));
}

static void note_limit(struct search *s, uint64_t vram, bool sizes)
{
    char need[32], have[32];
    if (nearer(s, vram - s->vram_limit))
        snprintf(s->shortfall, sizeof s->shortfall, "it takes %s%s of device memory and the limit is %s",
                 at_least(sizes), str_human_bytes(vram, need, sizeof need),
                 str_human_bytes(s->vram_limit, have, sizeof have));
}

static int64_t left(uint64_t room, uint64_t need)
{
    return room > need ? (int64_t)(room - need > INT64_MAX ? INT64_MAX : room - need)
                       : -(int64_t)(need - room > INT64_MAX ? INT64_MAX : need - room);
}

int64_t try_host_slack(const struct search *s, const struct attempt *a)
{
    return left(s->machine->host.free_bytes, plan_part_total(&a->estimate.parts[a->estimate.n_parts - 1]));
}

int64_t try_device_slack(const struct search *s, const struct attempt *a)
{
    uint64_t vram = 0, rooms = 0;
    for (uint32_t i = 0; i < a->n_used; i++) {
        vram += plan_part_total(&a->estimate.parts[i]);
        rooms += try_room(s, a->used[i]);
    }
    int64_t limit = left(s->vram_limit, vram), all = left(rooms, vram);
    return limit < all ? limit : all;
}

int64_t try_slack(const struct search *s, const struct attempt *a)
{
    int64_t ram = try_host_slack(s, a), devices = a->n_used ? try_device_slack(s, a) : ram;
    return ram < devices ? ram : devices;
}

/* single: no other split could help. */
static bool judge(struct search *s, const struct attempt *a, bool single, bool sizes)
{
    const struct plan_estimate *e = &a->estimate;
    const struct plan_part *host = &e->parts[e->n_parts - 1];
    bool over = plan_part_total(host) > s->machine->host.free_bytes;
    uint64_t vram = 0;
    if (over)
        note_part(s, host, s->machine->host.free_bytes, sizes);
    for (uint32_t i = 0; i < a->n_used; i++) {
        uint64_t room = try_room(s, a->used[i]), need = plan_part_total(&e->parts[i]);
        vram += need;
        if (need <= room || !single)
            continue;
        over = true;
        note_part(s, &e->parts[i], room, sizes);
    }
    if (vram > s->vram_limit) {
        over = true;
        note_limit(s, vram, sizes);
    }
    return !over;
}

bool try_judge(struct search *s, struct attempt *a)
{
    a->slack = try_slack(s, a);
    return judge(s, a, true, false);
}

bool try_may_fit(struct search *s, const struct attempt *a)
{
    return judge(s, a, a->n_used < 2, true);
}

static void devices_of(const struct search *s, const struct attempt *a, struct plan_device *ret)
{
    for (uint32_t i = 0; i < a->n_used; i++)
        ret[i] = s->machine->devices[a->used[i]];
}

bool try_estimate(struct search *s, struct attempt *a)
{
    struct plan_device devices[PLAN_MAX_DEVICES];
    devices_of(s, a, devices);
    s->evaluations++;
    if (estimator_run(s->est, &a->params, devices, a->n_used, false, &a->estimate, NULL) != RC_OK)
        return false;
    plan_host_overhead(&s->machine->host, &a->estimate);
    return true;
}

bool try_sizes(struct search *s, struct attempt *a)
{
    struct plan_device devices[PLAN_MAX_DEVICES];
    devices_of(s, a, devices);
    if (estimator_sizes(s->est, &a->params, devices, a->n_used, &a->estimate, NULL) != RC_OK)
        return false;
    plan_host_overhead(&s->machine->host, &a->estimate);
    return true;
}

void try_speed(struct search *s, struct attempt *a)
{
    struct plan_device devices[PLAN_MAX_DEVICES];
    struct plan_estimate sizes;
    devices_of(s, a, devices);
    if (estimator_sizes(s->est, &a->params, devices, a->n_used, &sizes, NULL) == RC_OK)
        speed_of(&s->est->layout, s->machine, &a->speed);
}

void try_decode(struct search *s, struct attempt *a)
{
    struct plan_device devices[PLAN_MAX_DEVICES];
    struct plan_estimate sizes;
    devices_of(s, a, devices);
    if (estimator_sizes(s->est, &a->params, devices, a->n_used, &sizes, NULL) == RC_OK)
        a->speed.decode_tps = speed_decode_tps(&s->est->layout, s->machine);
}

void try_best_decode(struct search *s, struct attempt *a)
{
    struct plan_device devices[PLAN_MAX_DEVICES];
    struct plan_estimate sizes;
    double bandwidth = 0, tflops = 0;
    devices_of(s, a, devices);
    for (uint32_t i = 0; i < a->n_used; i++) {
        double b = sets_bandwidth(&devices[i]);
        bandwidth = b > bandwidth ? b : bandwidth;
        tflops = devices[i].tflops > tflops ? devices[i].tflops : tflops;
    }
    for (uint32_t i = 0; i < a->n_used; i++) {
        devices[i].bandwidth_gbps = bandwidth;
        devices[i].tflops = tflops;
        devices[i].taught = (struct plan_taught){0};
    }
    if (estimator_sizes(s->est, &a->params, devices, a->n_used, &sizes, NULL) == RC_OK)
        a->speed.decode_tps = speed_decode_tps(&s->est->layout, s->machine);
}

int32_t try_pace(const struct attempt *a)
{
    return a->speed.decode_tps > 0 ? (int32_t)floor(log2(a->speed.decode_tps) * 16) : INT32_MIN;
}

static bool fits_somehow(struct search *s, struct attempt *a)
{
    a->params.n_tensor_split = 0;
    if (!try_estimate(s, a)) {
        a->slack = INT64_MIN / 2;
        return false;
    }
    bool fits = try_judge(s, a);
    if (a->n_used < 2 || (fits && !split_matters(s, a)) || !split_may_help(a))
        return fits;
    struct attempt shared = *a; /* by free memory */
    if (split_best(s, a))
        return true;
    *a = shared;
    return fits;
}

bool try_fits(struct search *s, struct attempt *a)
{
    if (!fits_somehow(s, a))
        return false;
    if (s->least_pace == INT32_MIN)
        return true;
    try_decode(s, a);
    return try_pace(a) >= s->least_pace;
}

void try_start(const struct search *s, const struct device_set *set, uint32_t kv, struct attempt *a)
{
    memset(a, 0, sizeof *a);
    a->params = s->base;
    a->params.type_k = s->kv[kv].k;
    a->params.type_v = s->kv[kv].v;
    a->kv = kv;
    a->n_used = set->n;
    memcpy(a->used, set->used, set->n * sizeof *a->used);
    if (set->n == 0) {
        a->params.gpu_layers = 0;
        a->params.n_cpu_moe = 0;
    }
}

/* ---- the longest context ---- */

uint32_t try_cross(uint32_t lo, uint32_t hi, int64_t at_lo, int64_t at_hi, bool middle)
{
    uint32_t n = lo + (hi - lo) / 2;
    if (!middle && at_lo >= 0 && at_hi < 0 && at_hi > INT64_MIN / 4)
        n = lo + (uint32_t)((double)(hi - lo) * ((double)at_lo / ((double)at_lo - (double)at_hi)));
    return n <= lo ? lo + 1 : n >= hi ? hi - 1 : n;
}

/* Graphs are not strictly in line: where so little is missing that theirs may shrink by it, a few steps more
 * are tried. *a fits with one step less than hi, which is short by at_hi. */
static void look_beyond(struct search *s, struct attempt *a, uint32_t hi, uint32_t end, int64_t at_hi)
{
    struct attempt next = *a;
    double graphs = 0, step = 0;
    for (size_t i = 0; i < a->estimate.n_parts; i++) {
        graphs += (double)a->estimate.parts[i].compute_bytes;
        step += (double)a->estimate.parts[i].context_bytes;
    }
    step *= (double)PLACE_CTX_STEP / a->params.ctx;
    for (uint32_t n = hi + 1; n < end && n <= hi + 4; n++) {
        if ((double)at_hi - (n - hi) * step < -graphs / 16)
            return;
        next.params.ctx = n * PLACE_CTX_STEP;
        if (!try_fits(s, &next))
            continue;
        *a = next;
        hi = n;
        at_hi = next.slack;
    }
}

/* The same from below: *a does not fit with lo; makes it the first context behind that does. */
static bool climb(struct search *s, struct attempt *a, uint32_t lo, uint32_t hi)
{
    struct attempt next = *a;
    double graphs = 0;
    for (size_t i = 0; i < a->estimate.n_parts; i++)
        graphs += (double)a->estimate.parts[i].compute_bytes;
    for (uint32_t n = lo / PLACE_CTX_STEP + 1; n <= lo / PLACE_CTX_STEP + 4 && n * PLACE_CTX_STEP < hi; n++) {
        if ((double)next.slack < -graphs / 2)
            return false;
        next.params.ctx = n * PLACE_CTX_STEP;
        if (!try_fits(s, &next))
            continue;
        *a = next;
        return true;
    }
    return false;
}

/* In steps; *a fits with lo, hi does not and is short by at_hi. */
static void narrow(struct search *s, struct attempt *a, uint32_t lo, uint32_t hi, int64_t at_hi)
{
    struct attempt next = *a;
    uint32_t end = hi;
    for (unsigned step = 0; hi - lo > 1; step++) {
        uint32_t n = try_cross(lo, hi, a->slack, at_hi, step % 3 == 2 && hi - lo > 4);
        next.params.ctx = n * PLACE_CTX_STEP;
        if (try_fits(s, &next)) {
            lo = n;
            *a = next;
        } else {
            hi = n;
            at_hi = next.slack;
        }
    }
    look_beyond(s, a, hi, end, at_hi);
}

bool try_least(struct search *s, struct attempt *a, uint32_t lo, uint32_t hi)
{
    a->params.ctx = lo;
    return try_fits(s, a) || climb(s, a, lo, hi);
}

bool try_reach(struct search *s, struct attempt *a, uint32_t lo, uint32_t hi)
{
    struct attempt over = *a;
    over.params.ctx = hi;
    if (try_fits(s, &over)) {
        *a = over;
        return true;
    }
    if (lo >= hi || !try_least(s, a, lo, hi))
        return false;
    narrow(s, a, a->params.ctx / PLACE_CTX_STEP, (hi + PLACE_CTX_STEP - 1) / PLACE_CTX_STEP, over.slack);
    return true;
}
