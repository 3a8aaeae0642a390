/* Steps down after a load that ran out of memory though the plan said that it fits. Layer plan; pure; see
 * place_priv.h. The rungs stand in the order in which quality is given up: a smaller cache, a shorter
 * context, a smaller micro-batch, the least context, fewer layers (or more experts in RAM), the host alone. A
 * rung that would change nothing, or that the policy forbids, is passed over; each one taken needs less of
 * the devices than the one before. Between the last two stands a smaller file of the same model: plan_place's
 * business. */
#include "plan/place_priv.h"

static bool lower_kv(struct search *s, struct attempt *a, uint32_t type)
{
    if (s->policy->kv_type_fixed || a->params.type_k == type || a->params.type_k == GGML_Q4_0)
        return false;
    for (uint32_t i = 0; i < s->n_kv; i++) {
        if (s->kv[i].k == type) {
            a->params.type_k = a->params.type_v = type;
            a->kv = i;
            return true;
        }
    }
    return false;
}

static bool to_q8(struct search *s, struct attempt *a)
{
    return a->params.type_k == GGML_F16 && lower_kv(s, a, GGML_Q8_0);
}

static bool to_q4(struct search *s, struct attempt *a)
{
    return lower_kv(s, a, GGML_Q4_0);
}

static bool half_ctx(struct search *s, struct attempt *a)
{
    uint32_t ctx = a->params.ctx, half = ctx / 2;
    a->params.ctx = half > s->least_ctx ? half : s->least_ctx;
    return a->params.ctx < ctx;
}

static bool small_ubatch(struct search *s, struct attempt *a)
{
    (void)s;
    bool smaller = a->params.ubatch > PLACE_UB_SMALL;
    a->params.ubatch = PLACE_UB_SMALL;
    return smaller;
}

static bool least_ctx(struct search *s, struct attempt *a)
{
    bool shorter = s->least_ctx < a->params.ctx;
    a->params.ctx = s->least_ctx;
    return shorter;
}

static bool may_leave_devices(const struct search *s, const struct attempt *a)
{
    return a->n_used > 0 && s->policy->allow_cpu && !s->policy->gpu_layers_fixed;
}

/* One part in `of` of what is left on the devices moves to the host: experts first. */
static bool lower_layers(struct search *s, struct attempt *a, uint32_t of)
{
    uint32_t all = s->est->facts.n_layer, have = a->estimate.layers_gpu;
    if (!may_leave_devices(s, a))
        return false;
    if (has_experts(s) && a->params.n_cpu_moe < all) {
        a->params.n_cpu_moe += (all - a->params.n_cpu_moe + of - 1) / of;
        return true;
    }
    a->params.gpu_layers = (int32_t)(have - have / of);
    return have / of > 0;
}

static bool fewer_layers(struct search *s, struct attempt *a)
{
    return lower_layers(s, a, 4);
}

static bool half_layers(struct search *s, struct attempt *a)
{
    return lower_layers(s, a, 2);
}

static bool host_only(struct search *s, struct attempt *a)
{
    if (!may_leave_devices(s, a) || s->keep_devices)
        return false;
    a->n_used = 0;
    a->params.gpu_layers = 0;
    a->params.n_cpu_moe = 0;
    return true;
}

static const struct rung {
    const char *words;
    bool (*step)(struct search *s, struct attempt *a); /* false: it changes nothing, or is not allowed */
} rungs[] = {
    {"the cache as q8_0", to_q8},
    {"the cache as q4_0", to_q4},
    {"half the context", half_ctx},
    {"micro-batches of 128 tokens", small_ubatch},
    {"the least context", least_ctx},
    {"a quarter fewer layers (or experts) on the GPUs", fewer_layers},
    {"half the layers (or experts) on the GPUs", half_layers},
    {"the CPU alone", host_only},
};

uint32_t ladder_descend(struct search *s, struct attempt *a, uint32_t steps)
{
    uint32_t done = 0;
    for (size_t r = 0; r < TABLE_COUNT(rungs) && done < steps; r++) {
        struct attempt next = *a;
        if (!rungs[r].step(s, &next) || !try_fits(s, &next))
            continue;
        *a = next;
        done++;
        reason_add(s->out, "ladder", "After a failed load, step %u: %s.", done, rungs[r].words);
    }
    return done;
}
