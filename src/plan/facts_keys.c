/* What a model's keys and its architecture's row say about the graph beyond shapes: constants that are
 * multiplied in (a constant of 1 or none costs no operation), how experts are chosen, positions. Layer plan;
 * see facts.h. */
#include "plan/facts.h"

#include <string.h>

static double arch_f64(const struct model *m, const char *suffix)
{
    double v;
    return model_arch_f64(m, suffix, &v) ? v : 0;
}

static uint32_t key_u32(const struct model *m, const char *suffix, uint32_t most)
{
    uint64_t v;
    return model_arch_u64(m, suffix, &v) && v <= most ? (uint32_t)v : 0;
}

/* Values of expert_gating_func. */
enum { GATING_SIGMOID = 2, GATING_SOFTMAX_LATE = 3 };

static void router_keys(struct facts *f)
{
    const struct model *m = f->m;
    uint32_t gating = key_u32(m, "expert_gating_func", 16);
    double scale = arch_f64(m, "expert_weights_scale");
    f->router = (struct router_facts){
        .sigmoid = gating ? gating == GATING_SIGMOID : (f->arch->flags & SIGMOID) != 0,
        .late = gating ? gating == GATING_SOFTMAX_LATE : (f->arch->flags & SOFTMAX_LATE) != 0,
        .norm = (f->arch->flags & ROUTER_NORM) || key_u32(m, "expert_weights_norm", 1),
        .scaled = scale != 0 && scale != 1};
    uint32_t groups = key_u32(m, "expert_group_count", 4096);
    if (groups > 1 && f->n_expert % groups == 0 && f->n_expert / groups > 1) {
        f->router.groups = groups;
        f->router.groups_used = key_u32(m, "expert_group_used_count", groups);
    }
    if (f->router.groups_used == 0)
        f->router.groups = 0;
}

static void scale_keys(struct facts *f)
{
    uint32_t flags = f->arch->flags;
    bool all = flags & SCALES_ALL, by_key = flags & SCALES_BY_KEY;
    f->scales_input = all || (flags & SCALES_INPUT) || (by_key && arch_f64(f->m, "embedding_scale") != 0);
    f->scales_residual = all || (by_key && arch_f64(f->m, "residual_scale") != 0);
    f->scales_logits = all || (by_key && arch_f64(f->m, "logit_scale") != 0);
    f->scales_by_position = arch_f64(f->m, "attention.temperature_scale") != 0;
    f->clamps_qkv = arch_f64(f->m, "attention.clamp_kqv") > 0;
}

void facts_keys(struct facts *f)
{
    router_keys(f);
    scale_keys(f);
    f->ctx_short = key_u32(f->m, "rope.scaling.original_context_length", UINT32_MAX);
    if (!f->ctx_short)
        f->ctx_short = f->m->context_train;
    f->positions = f->arch->flags & FOUR_POSITIONS ? 4 : 1;
    f->deepstack = f->arch->flags & FOUR_POSITIONS ? key_u32(f->m, "n_deepstack_layers", f->n_layer) : 0;
}
