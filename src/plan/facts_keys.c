/* What a model's keys and its architecture's row say about the graph beyond shapes: constants that are
 * multiplied in (a constant of 1 or none costs no operation), how experts are chosen, positions. Layer plan;
 * see facts.h. */
#include "plan/facts.h"

#include <string.h>

static double key_f64(const struct model *m, const char *suffix)
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
    double scale = key_f64(m, "expert_weights_scale");
    f->router = (struct router_facts){
        .sigmoid = gating ? gating == GATING_SIGMOID : (f->arch->flags & SIGMOID) != 0,
        .late = gating ? gating == GATING_SOFTMAX_LATE : (f->arch->flags & SOFTMAX_LATE) != 0,
        .early = (f->arch->flags & EARLY_WEIGHTS) != 0,
        .gates = (f->arch->flags & CHUNKED) != 0,
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
    uint64_t flags = f->arch->flags;
    bool all = flags & SCALES_ALL, by_key = flags & SCALES_BY_KEY;
    all = all || flags & SCALES_HEAD;
    f->scales_input =
        all || (flags & (SCALES_INPUT | SCALES_ENDS)) || (by_key && key_f64(f->m, "embedding_scale") != 0);
    f->scales_residual = all || (by_key && key_f64(f->m, "residual_scale") != 0);
    f->scales_head = flags & SCALES_HEAD;
    f->scales_logits = (flags & (SCALES_ALL | SCALES_ENDS)) || (by_key && key_f64(f->m, "logit_scale") != 0);
    f->scales_by_position = key_f64(f->m, "attention.temperature_scale") != 0;
    f->bare_qk_norm = (f->arch->flags & BARE_QK_NORM) && f->n_expert != 128; /* not in the largest Llama 4 */
    f->clamps_qkv = key_f64(f->m, "attention.clamp_kqv") > 0;
    f->flashless = flags & FLASHLESS;
    f->caps_logits =
        (flags & LOGIT_CAP) || ((flags & CAP_BY_KEY) && key_f64(f->m, "final_logit_softcapping") != 0);
    f->norms_turns = !key_u32(f->m, "skip_loop_final_norm", 1);
    uint64_t swin;
    f->norms_results = model_arch_u64(f->m, "swin_norm", &swin) && swin != 0;
    double values = key_f64(f->m, "attention.value_scale");
    f->scales_attends = values != 0 && values != 1;
}

static enum rc latent_keys(struct facts *f, struct err *err)
{
    const struct model *m = f->m;
    uint32_t rank = key_u32(m, "attention.kv_lora_rank", 65536);
    if (!rank)
        return RC_OK;
    uint32_t k = key_u32(m, "attention.key_length_mla", 65536),
             v = key_u32(m, "attention.value_length_mla", 65536);
    f->latent = (struct latent_facts){.rank = rank, .rope = key_u32(m, "rope.dimension_count", 65536)};
    f->latent.cached = k && v;
    if (!f->latent.cached) {
        uint32_t heads = key_u32(m, "attention.head_count", 4096);
        k = key_u32(m, "attention.key_length", 65536);
        v = key_u32(m, "attention.value_length", 65536);
        if (!v && heads)
            v = f->n_embd / heads;
    }
    if (!f->latent.rope || f->latent.rope >= k || !v)
        return err_set(err, RC_INVALID,
                       "%s: heads of %u values, of which %u are rotated, make no latent attention", m->path,
                       k, f->latent.rope);
    f->latent.nope = k - f->latent.rope;
    f->latent.v = v;
    return RC_OK;
}

static enum rc indexer_keys(struct facts *f, struct err *err)
{
    struct indexer_facts *x = &f->indexer;
    if (!(f->arch->flags & INDEXED))
        return RC_OK;
    enum rc rc = arch_need_u32(f->m, "attention.indexer.head_count", 4096, &x->heads, err);
    if (!rc)
        rc = arch_need_u32(f->m, "attention.indexer.key_length", 8192, &x->width, err);
    if (!rc)
        rc = arch_need_u32(f->m, "attention.indexer.top_k", UINT32_MAX, &x->top_k, err);
    if (!rc && !f->latent.cached)
        rc = err_set(err, RC_INVALID, "%s: sparse attention without a latent cache", f->m->path);
    return rc;
}

enum rc facts_keys(struct facts *f, struct err *err)
{
    router_keys(f);
    scale_keys(f);
    f->ctx_short = key_u32(f->m, "rope.scaling.original_context_length", UINT32_MAX);
    if (!f->ctx_short)
        f->ctx_short = f->m->context_train;
    uint64_t section;
    bool sections = (f->arch->flags & POSITIONS_BY_KEY) &&
                    model_arch_layer_u64(f->m, "rope.dimension_sections", 0, &section) && section != 0;
    f->positions = (f->arch->flags & FOUR_POSITIONS) || sections ? 4 : 1;
    uint64_t causal;
    f->causal =
        !(f->arch->flags & UNCACHED) && (!model_arch_u64(f->m, "attention.causal", &causal) || causal != 0);
    f->layer_embd = key_u32(f->m, "embedding_length_per_layer_input", 65536);
    f->deepstack = f->arch->flags & FOUR_POSITIONS ? key_u32(f->m, "n_deepstack_layers", f->n_layer) : 0;
    enum rc rc = latent_keys(f, err);
    return rc ? rc : indexer_keys(f, err);
}
