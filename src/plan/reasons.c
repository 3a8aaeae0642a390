/* Words for decisions. Layer plan; pure. Codes are stable and short; texts are whole sentences with their
 * numbers. */
#include "plan/place_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void reason_add(struct plan *p, const char *code, const char *fmt, ...)
{
    if (p->n_reasons == PLAN_MAX_REASONS)
        return;
    struct plan_reason *r = &p->reasons[p->n_reasons++];
    r->code = code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->text, sizeof r->text, fmt, ap);
    va_end(ap);
}

const char *kv_word(uint32_t type)
{
    const struct ggml_type_info *info = ggml_type_info(type);
    return info ? info->word : "unknown";
}

static void device_reasons(struct plan *out, const struct attempt *a)
{
    const struct plan_estimate *e = &a->estimate;
    for (uint32_t i = 0; i < a->n_used; i++) {
        const struct plan_part *p = &e->parts[i];
        char need[32], have[32];
        str_human_bytes(plan_part_total(p), need, sizeof need);
        str_human_bytes(p->free_bytes, have, sizeof have);
        reason_add(out, "device", "%s takes %s of the %s that are free.", p->name, need, have);
    }
}

/* Where the figures beside the predicted parts come from. */
static void learned_reasons(struct plan *out, const struct attempt *a)
{
    const struct plan_estimate *e = &a->estimate;
    for (size_t i = 0; i < e->n_parts; i++) {
        const struct plan_part *p = &e->parts[i];
        char bytes[32], spread[32];
        if (p->overhead_loads == 0)
            continue;
        reason_add(out, "overhead", "%s: %s beside the parts above, ± %s, from %u load%s.", p->name,
                   str_human_bytes(p->overhead_bytes, bytes, sizeof bytes),
                   str_human_bytes(p->overhead_spread_bytes, spread, sizeof spread), p->overhead_loads,
                   p->overhead_loads == 1 ? "" : "s");
    }
    uint32_t n = a->speed.decode_samples > a->speed.prefill_samples ? a->speed.decode_samples
                                                                    : a->speed.prefill_samples;
    if (n > 0)
        reason_add(out, "speed_learned", "The speeds are corrected by the timings of %u request%s.", n,
                   n == 1 ? "" : "s");
}

static void layer_reasons(struct search *s, const struct attempt *a)
{
    struct plan *out = s->out;
    const struct plan_estimate *e = &a->estimate;
    uint32_t all = s->est->facts.n_layer;
    if (a->n_used == 0) {
        if (s->machine->n_devices == 0)
            reason_add(out, "cpu_no_gpu", "There is no GPU, so the CPU runs all %u layers.", all);
        else
            reason_add(
                out, "cpu",
                "No share of the model fits on the GPUs with a context of %u tokens, so the CPU runs it.",
                e->params.ctx);
    } else if (e->layers_cpu > 0) {
        reason_add(out, "partial_offload", "%u of %u layers fit on the GPU; the other %u stay in RAM.",
                   e->layers_gpu, all + 1, e->layers_cpu);
    } else if (a->params.n_cpu_moe > 0) {
        reason_add(out, "experts_on_cpu",
                   "All layers are on the GPU, but the experts of the first %u of %u layers stay in RAM.",
                   a->params.n_cpu_moe, all);
    } else if (a->n_used == 1) {
        reason_add(out, "single_gpu", "All %u layers and the cache fit on %s alone.", all, e->parts[0].name);
    } else {
        reason_add(out, "multi_gpu", "No single GPU holds it; %u GPUs are the fewest that do.", a->n_used);
    }
}

/* What runs beside the model, with what it takes of the figures above. */
static void beside_reasons(struct plan *out, const struct attempt *a)
{
    const struct plan_extras *x = a->params.extras;
    const struct plan_estimate *e = &a->estimate;
    uint64_t projector = 0, adapters = 0, draft = 0;
    char bytes[32];
    if (!x)
        return;
    for (size_t i = 0; i < e->n_parts; i++) {
        projector += e->parts[i].projector_bytes;
        adapters += e->parts[i].adapter_bytes;
        draft += e->parts[i].draft_bytes;
    }
    if (x->projector)
        reason_add(out, "projector", "Its projector takes %s.",
                   str_human_bytes(projector, bytes, sizeof bytes));
    if (x->n_adapters)
        reason_add(out, "adapters", "%u adapter%s %s of it.", x->n_adapters,
                   x->n_adapters == 1 ? " takes" : "s take", str_human_bytes(adapters, bytes, sizeof bytes));
    if (x->draft)
        reason_add(out, "draft", "%.80s guesses up to %u tokens ahead and takes %s of it.", x->draft->name,
                   x->draft_tokens, str_human_bytes(draft, bytes, sizeof bytes));
}

void reasons_of(struct search *s, const struct attempt *a)
{
    struct plan *out = s->out;
    const struct plan_params *p = &a->estimate.params;
    layer_reasons(s, a);
    device_reasons(out, a);
    if (a->params.ctx < s->want_ctx && s->ctx_given)
        reason_add(out, "ctx_shortened",
                   "The context is %u tokens instead of the %u asked for: more does not fit.", p->ctx,
                   s->want_ctx);
    else if (a->params.ctx < s->want_ctx)
        reason_add(out, "ctx_shortened", "The context is %u tokens of the %u the model was trained for.",
                   p->ctx, s->want_ctx);
    else
        reason_add(out, "ctx", "The context is %u tokens.", p->ctx);
    if (!s->policy->kv_type_fixed && (a->params.type_k != GGML_F16 || a->params.type_v != GGML_F16))
        reason_add(out, a->params.type_k == GGML_Q8_0 ? "kv_q8_0" : "kv_q4_0",
                   "The cache is stored as %s, which takes %.0f %% less than f16.", kv_word(a->params.type_k),
                   a->params.type_k == GGML_Q8_0 ? 46.9 : 71.9);
    if (!p->kv_offload)
        reason_add(out, "kv_host", "The cache lies in RAM.");
    const struct plan_part *host = &a->estimate.parts[a->estimate.n_parts - 1];
    char need[32];
    reason_add(out, "host", "RAM holds %s of it.", str_human_bytes(plan_part_total(host), need, sizeof need));
    reason_add(out, "speed",
               "About %.1f tokens/s when writing and %.0f when reading a prompt; %.1f s to load.",
               a->speed.decode_tps, a->speed.prefill_tps, a->speed.load_seconds);
    beside_reasons(out, a);
    learned_reasons(out, a);
}
