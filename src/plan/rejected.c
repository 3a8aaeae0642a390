/* What was not chosen, and why: each alternative to a plan is estimated in its place. Layer plan; pure; see
 * plan.h. For people, not for the search: a few estimates more. */
#include "plan/plan.h"

#include "base/mem.h"
#include "plan/learn.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct counter {
    const struct model *m;
    const struct plan_policy *policy;
    const struct plan_machine *machine;
    struct plan *plan;
    struct plan_estimate e;
};

__attribute__((format(printf, 3, 4))) static void reject(struct plan *p, const char *code, const char *fmt,
                                                         ...)
{
    va_list ap;
    if (p->n_rejected == PLAN_MAX_REJECTED)
        return;
    struct plan_reason *r = &p->rejected[p->n_rejected++];
    r->code = code;
    va_start(ap, fmt);
    vsnprintf(r->text, sizeof r->text, fmt, ap);
    va_end(ap);
}

static uint64_t room_of(const struct counter *c, const struct plan_part *p)
{
    uint64_t free_bytes = p->kind == PLAN_HOST ? c->machine->host.free_bytes : p->free_bytes,
             margin = p->kind == PLAN_HOST ? 0 : c->policy->margin_bytes;
    return free_bytes > margin ? free_bytes - margin : 0;
}

/* The part of c->e that is most over its room; NULL if all fit. */
static const struct plan_part *most_short(const struct counter *c)
{
    const struct plan_part *worst = NULL;
    uint64_t most = 0;
    for (size_t i = 0; i < c->e.n_parts; i++) {
        const struct plan_part *p = &c->e.parts[i];
        uint64_t need = plan_part_total(p), room = room_of(c, p);
        if (need <= room || need - room <= most)
            continue;
        most = need - room;
        worst = p;
    }
    return worst;
}

static bool estimate(struct counter *c, const struct plan_params *p, const uint32_t *used, uint32_t n)
{
    struct plan_device devices[PLAN_MAX_DEVICES] = {0};
    for (uint32_t i = 0; i < n; i++)
        devices[i] = c->machine->devices[used[i]];
    if (plan_estimate(c->m, p, devices, n, &c->e, NULL) != RC_OK)
        return false;
    plan_host_overhead(&c->machine->host, &c->e);
    return true;
}

/* "…: CUDA0 would need 31.2 GiB and has 23.4 GiB." if it does not fit; or by its speed if it does. */
static void weigh(struct counter *c, const char *code, const char *what)
{
    const struct plan_part *p = most_short(c);
    char need[32], have[32];
    if (p) {
        reject(c->plan, code, "%s: %s would need %s and has %s.", what,
               p->kind == PLAN_HOST ? "RAM" : p->name, str_human_bytes(plan_part_total(p), need, sizeof need),
               str_human_bytes(room_of(c, p), have, sizeof have));
        return;
    }
    struct plan_speed speed;
    plan_speed(c->m, &c->e, c->machine, &speed);
    if (speed.decode_tps > 0)
        reject(c->plan, code, "%s: %.1f tokens/s instead of %.1f.", what, speed.decode_tps,
               c->plan->speed.decode_tps);
}

static void against_one(struct counter *c, struct plan_params p)
{
    uint32_t best = c->plan->used[0];
    char what[64];
    for (uint32_t i = 1; i < c->plan->n_used; i++)
        if (c->machine->devices[c->plan->used[i]].free_bytes > c->machine->devices[best].free_bytes)
            best = c->plan->used[i];
    p.n_tensor_split = 0;
    snprintf(what, sizeof what, "%s alone", c->machine->devices[best].name);
    if (estimate(c, &p, &best, 1))
        weigh(c, "single_gpu", what);
}

static void against_plain_cache(struct counter *c, struct plan_params p)
{
    p.type_k = p.type_v = GGML_F16;
    if (estimate(c, &p, c->plan->used, c->plan->n_used))
        weigh(c, "kv_f16", "The cache as f16");
}

static void against_wish(struct counter *c, struct plan_params p)
{
    char what[64];
    p.ctx = c->policy->ctx ? c->policy->ctx : c->m->context_train;
    snprintf(what, sizeof what, "The whole context of %u tokens", p.ctx);
    if (estimate(c, &p, c->plan->used, c->plan->n_used) && most_short(c))
        weigh(c, "ctx", what);
}

static void against_whole(struct counter *c, struct plan_params p)
{
    p.gpu_layers = PLAN_ALL_LAYERS;
    p.n_cpu_moe = 0;
    p.n_tensor_split = 0;
    if (estimate(c, &p, c->plan->used, c->plan->n_used) && most_short(c))
        weigh(c, "full_offload", "All layers and experts on the GPU");
}

static void against_host(struct counter *c, struct plan_params p)
{
    p.gpu_layers = 0;
    p.n_cpu_moe = 0;
    p.n_tensor_split = 0;
    if (estimate(c, &p, NULL, 0))
        weigh(c, "cpu", "The CPU alone");
}

static void against_more(struct counter *c, struct plan_params p)
{
    uint32_t all[PLAN_MAX_DEVICES], n = 0;
    char what[64];
    for (uint32_t i = 0; i < c->machine->n_devices; i++)
        if (c->machine->devices[i].free_bytes > 0)
            all[n++] = i;
    if (n <= c->plan->n_used || c->policy->device || (c->policy->max_gpus && n > c->policy->max_gpus))
        return;
    p.n_tensor_split = 0;
    snprintf(what, sizeof what, n == 2 ? "Both GPUs" : "All %u GPUs", n);
    if (estimate(c, &p, all, n) && !most_short(c))
        weigh(c, "more_gpus", what);
}

void plan_rejected(const struct model *m, const struct plan_policy *policy,
                   const struct plan_machine *machine, struct plan *plan)
{
    plan->n_rejected = 0;
    if (!plan->fits)
        return;
    struct counter *c = mem_calloc(1, sizeof *c);
    *c = (struct counter){.m = m, .policy = policy, .machine = machine, .plan = plan};
    const struct plan_params *p = &plan->estimate.params;
    uint32_t wish = policy->ctx ? policy->ctx : m->context_train;
    bool shared = plan->n_used && (plan->estimate.layers_cpu || p->n_cpu_moe);
    if (plan->n_used > 1)
        against_one(c, *p);
    if (shared)
        against_whole(c, *p);
    if (!policy->kv_type_fixed && p->type_k != GGML_F16)
        against_plain_cache(c, *p);
    if (p->ctx < wish)
        against_wish(c, *p);
    if (plan->n_used)
        against_more(c, *p);
    if (plan->n_used && policy->allow_cpu)
        against_host(c, *p);
    free(c);
}
