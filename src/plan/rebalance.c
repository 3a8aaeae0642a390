/* Would the loaded models run faster elsewhere? Layer plan; pure; see plan.h. Placements are made one by one
 * as models come, so after some have gone a model may sit on a worse place than it could have now. Each
 * movable model is planned again with its own memory given back, alone and then all of them together, those
 * in most use first; the change that gains most is the answer. Nothing may lose context, and below a
 * twentieth of the tokens a second a change is not worth its reloads. */
#include "plan/plan.h"

#include "base/mem.h"

#include <string.h>

#define WORTH 1.05

struct balancing {
    const struct plan_machine *machine;
    const struct plan_loaded *loaded;
    size_t n;
    struct plan *plan; /* scratch */
};

static void add_back(struct plan_machine *m, const struct plan *p, bool take)
{
    const struct plan_estimate *e = &p->estimate;
    for (size_t i = 0; i < e->n_parts; i++) {
        bool host = e->parts[i].kind == PLAN_HOST;
        uint64_t *free_bytes = host ? &m->host.free_bytes : &m->devices[p->used[i]].free_bytes,
                 total = host ? m->host.total_bytes : m->devices[p->used[i]].total_bytes,
                 bytes = plan_part_total(&e->parts[i]);
        if (take)
            *free_bytes = *free_bytes > bytes ? *free_bytes - bytes : 0;
        else
            *free_bytes = total - *free_bytes > bytes ? *free_bytes + bytes : total;
    }
}

static uint64_t device_bytes(const struct plan *p)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < p->n_used; i++)
        sum += plan_part_total(&p->estimate.parts[i]);
    return sum;
}

static bool same_place(const struct plan *a, const struct plan *b)
{
    const struct plan_params *p = &a->estimate.params, *q = &b->estimate.params;
    return a->n_used == b->n_used && !memcmp(a->used, b->used, a->n_used * sizeof *a->used) &&
           p->gpu_layers == q->gpu_layers && p->n_cpu_moe == q->n_cpu_moe && p->ctx == q->ctx &&
           p->type_k == q->type_k;
}

/* Told by the same machine for both places: what was learned since the load must not look like a gain. */
static double tps_now(const struct balancing *b, const struct plan_loaded *l)
{
    struct plan_speed s;
    plan_speed(l->m, &l->plan->estimate, b->machine, &s);
    return s.decode_tps;
}

/* Places the models of the list again, in its order. False: one of them would lose. */
static bool try_moving(struct balancing *b, const uint32_t *list, uint32_t n, struct plan_delta *ret)
{
    struct plan_machine m = *b->machine;
    *ret = (struct plan_delta){0};
    for (uint32_t i = 0; i < n; i++)
        add_back(&m, b->loaded[list[i]].plan, false);
    for (uint32_t i = 0; i < n; i++) {
        const struct plan_loaded *l = &b->loaded[list[i]];
        struct plan_policy policy = *l->policy;
        policy.ctx = l->plan->estimate.params.ctx; /* what it has, it keeps */
        policy.ctx_min = policy.ctx;
        if (plan_place(l->m, &policy, &m, b->plan, NULL) != RC_OK)
            return false;
        add_back(&m, b->plan, true);
        if (same_place(b->plan, l->plan))
            continue;
        struct plan_move *to = &ret->moves[ret->n_moves++];
        *to = (struct plan_move){.index = list[i],
                                 .n_used = b->plan->n_used,
                                 .layers_gpu = b->plan->estimate.layers_gpu,
                                 .n_cpu_moe = b->plan->estimate.params.n_cpu_moe,
                                 .bytes = device_bytes(b->plan),
                                 .reload_seconds = b->plan->speed.load_seconds,
                                 .tps_before = tps_now(b, l),
                                 .tps_after = b->plan->speed.decode_tps};
        memcpy(to->used, b->plan->used, b->plan->n_used * sizeof *to->used);
        ret->cost_seconds += to->reload_seconds;
        ret->moved_bytes += to->bytes;
        ret->gain_tps += l->use * (to->tps_after - to->tps_before);
        ret->freed_bytes += (int64_t)device_bytes(l->plan) - (int64_t)to->bytes;
    }
    return true;
}

void plan_rebalance(const struct plan_machine *machine, const struct plan_loaded *loaded, size_t n,
                    struct plan_delta *ret_delta)
{
    uint32_t all[PLAN_MAX_RESIDENTS], n_all = 0;
    double now = 0;
    *ret_delta = (struct plan_delta){0};
    struct balancing b = {
        .machine = machine, .loaded = loaded, .n = n, .plan = mem_calloc(1, sizeof *b.plan)};
    struct plan_delta *next = mem_calloc(1, sizeof *next);
    for (uint32_t i = 0; i < n && i < PLAN_MAX_RESIDENTS; i++) {
        now += loaded[i].use * tps_now(&b, &loaded[i]);
        if (!loaded[i].movable)
            continue;
        uint32_t at = n_all++;
        for (; at > 0 && loaded[all[at - 1]].use < loaded[i].use; at--)
            all[at] = all[at - 1];
        all[at] = i;
    }
    for (uint32_t i = 0; i <= n_all && n_all; i++) { /* each alone, then all */
        bool ok = i < n_all ? try_moving(&b, &all[i], 1, next) : try_moving(&b, all, n_all, next);
        if (ok && now + next->gain_tps >= WORTH * now && next->gain_tps > ret_delta->gain_tps)
            *ret_delta = *next;
    }
    free(next);
    free(b.plan);
}
