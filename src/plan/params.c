/* Parameters: defaults, and what the runtime makes of them. Layer plan; pure but for plan_isa_here, which
 * asks the processor. Sources: llama.cpp's documented defaults and rules of context and batch sizes, checked
 * against llama-fit-params. */
#include "plan/layout.h"

#include <inttypes.h>
#include <math.h>

unsigned plan_isa_here(void)
{
    unsigned isa = 0;
#if defined __x86_64__ || defined __i386__
    if (__builtin_cpu_supports("avx2"))
        isa |= PLAN_AVX2;
    if (__builtin_cpu_supports("avx512f"))
        isa |= PLAN_AVX512;
#elif defined __ARM_FEATURE_DOTPROD
    isa |= PLAN_NEON_DOTPROD;
#if defined __ARM_FEATURE_MATMUL_INT8
    isa |= PLAN_NEON_I8MM;
#endif
#endif
    return isa;
}

void plan_params_default(struct plan_params *p)
{
    *p = (struct plan_params){.batch = 2048,
                              .ubatch = 512,
                              .parallel = 4,
                              .kv_unified = true,
                              .flash_attn = true,
                              .type_k = GGML_F16,
                              .type_v = GGML_F16,
                              .gpu_layers = PLAN_ALL_LAYERS,
                              .kv_offload = true,
                              .repack = true,
                              .mmap = true,
                              .outputs = PLAN_OUTPUTS_SLOTS,
                              .pins = true,
                              .host_isa = plan_isa_here()};
}

void plan_extras_default(struct plan_extras *x)
{
    *x = (struct plan_extras){.draft_tokens = 3,
                              .draft_type_k = GGML_F16,
                              .draft_type_v = GGML_F16,
                              .draft_gpu_layers = PLAN_ALL_LAYERS};
}

size_t plan_adapter_path(const char *word, float *ret_scale)
{
    const char *colon = strrchr(word, ':');
    double scale = 1;
    bool scaled = colon && colon > word && str_double(str_from(colon + 1), &scale);
    *ret_scale = scaled ? (float)scale : 1;
    return scaled ? (size_t)(colon - word) : strlen(word);
}

#define MAX_SEQS  256 /* the runtime's bound on slots */
#define MAX_CTX   (1u << 28)
#define MAX_BATCH (1u << 20)
#define MAX_DRAFT 1024

static bool cache_type_ok(uint32_t type)
{
    static const uint32_t allowed[] = {GGML_F32,  GGML_F16,    GGML_BF16, GGML_Q8_0, GGML_Q4_0,
                                       GGML_Q4_1, GGML_IQ4_NL, GGML_Q5_0, GGML_Q5_1};
    for (size_t i = 0; i < TABLE_COUNT(allowed); i++)
        if (allowed[i] == type)
            return true;
    return false;
}

static bool quantised(uint32_t type)
{
    const struct ggml_type_info *info = ggml_type_info(type);
    return info && info->block > 1;
}

static const char *type_word(uint32_t type)
{
    const struct ggml_type_info *info = ggml_type_info(type);
    return info ? info->word : "unknown";
}

static enum rc check_ranges(const struct plan_params *p, struct err *err)
{
    if (p->parallel == 0 || p->parallel > MAX_SEQS)
        return err_set(err, RC_INVALID, "%u slots: the runtime takes 1 to %d", p->parallel, MAX_SEQS);
    if (p->ubatch == 0 || p->batch == 0 || p->batch > MAX_BATCH || p->ubatch > MAX_BATCH)
        return err_set(err, RC_INVALID, "a batch of %u in parts of %u is out of range", p->batch, p->ubatch);
    if (p->ctx > MAX_CTX)
        return err_set(err, RC_INVALID, "a context of %u tokens is out of range", p->ctx);
    if (p->gpu_layers < PLAN_ALL_LAYERS)
        return err_set(err, RC_INVALID, "%d layers on the GPU: expected a number or all", p->gpu_layers);
    if (!cache_type_ok(p->type_k) || !cache_type_ok(p->type_v))
        return err_set(err, RC_INVALID, "a cache of %s and %s is not supported by the runtime",
                       type_word(p->type_k), type_word(p->type_v));
    if (p->extras && p->extras->draft_tokens > MAX_DRAFT)
        return err_set(err, RC_INVALID, "a draft of %u tokens: at most %d", p->extras->draft_tokens,
                       MAX_DRAFT);
    if (p->n_tensor_split > PLAN_MAX_DEVICES)
        return err_set(err, RC_INVALID, "a tensor split of %u parts: at most %d", p->n_tensor_split,
                       PLAN_MAX_DEVICES);
    for (uint32_t i = 0; i < p->n_tensor_split; i++)
        if (!isfinite(p->tensor_split[i]) || p->tensor_split[i] < 0)
            return err_set(err, RC_INVALID, "part %u of the tensor split is not a positive number", i + 1);
    return RC_OK;
}

static enum rc check_devices(const struct plan_params *p, const struct plan_device *devices, size_t n,
                             struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        const struct plan_device *d = &devices[i];
        if (d->total_bytes > PLAN_MAX_DEVICE_BYTES || d->free_bytes > PLAN_MAX_DEVICE_BYTES ||
            (d->free_bytes && !d->total_bytes))
            return err_set(err, RC_INVALID,
                           "the device %s has %" PRIu64 " bytes, %" PRIu64 " of them free: no device has",
                           d->name, d->total_bytes, d->free_bytes);
        if (d->overhead_bytes > PLAN_MAX_DEVICE_BYTES)
            return err_set(err, RC_INVALID, "an overhead of %" PRIu64 " bytes on %s is out of range",
                           d->overhead_bytes, d->name);
    }
    if (p->n_tensor_split == 0 || p->n_tensor_split == n)
        return RC_OK;
    enum rc rc = err_set(err, RC_INVALID, "a tensor split of %u parts does not match %zu device%s",
                         p->n_tensor_split, n, n == 1 ? "" : "s");
    err_hint(err, "give one share for each device, 0 for one that gets no layers");
    return rc;
}

static enum rc check_pooling(const struct layout *l, struct err *err)
{
    bool ranks = l->f->pooling == 4 && (l->f->global[ROLE_CLS] >= 0 || l->f->global[ROLE_CLS_OUT] >= 0);
    if (!l->p->embedding || l->f->pooling <= 3 || ranks)
        return RC_OK;
    enum rc rc = err_set(err, RC_UNSUPPORTED, "no estimate for embeddings of %s pooled with method %u",
                         l->f->m->path, l->f->pooling);
    err_hint(err, "load with --force to measure");
    return rc;
}

static enum rc check_cache_types(const struct layout *l, struct err *err)
{
    const struct plan_params *p = l->p;
    if (!l->f->caches)
        return RC_OK;
    if (p->flash_attn && l->f->flashless && quantised(p->type_v)) {
        enum rc rc = err_set(err, RC_INVALID,
                             "a V cache of type %s needs flash attention, which the runtime has none of for "
                             "the architecture '%s'",
                             type_word(p->type_v), l->f->m->architecture);
        err_hint(err, "use --cache-type-v f16");
        return rc;
    }
    if (!p->flash_attn && quantised(p->type_v)) {
        enum rc rc =
            err_set(err, RC_INVALID, "a V cache of type %s needs flash attention", type_word(p->type_v));
        err_hint(err, "use --flash-attn on, or --cache-type-v f16");
        return rc;
    }
    if (l->f->latent.cached && p->type_k != p->type_v)
        return err_set(err, RC_INVALID,
                       "one cache serves keys and values of %s: its types must be equal, not %s and %s",
                       l->f->m->path, type_word(p->type_k), type_word(p->type_v));
    const struct ggml_type_info *k = ggml_type_info(p->type_k), *v = ggml_type_info(p->type_v);
    bool blocks = k && v && (k->block > 1 || v->block > 1);
    for (uint32_t il = 0; il < l->f->n_layer_run && blocks; il++) {
        const struct layer_facts *lf = &l->f->layers[il];
        if (lf->cached && (lf->d_k % k->block || lf->d_v % v->block))
            return err_set(
                err, RC_INVALID,
                "heads of %u and %u values cannot be cached as %s and %s: the blocks do not divide them",
                lf->d_k, lf->d_v, k->word, v->word);
    }
    return RC_OK;
}

/* Slots with caches of their own that end the runtime in an assertion. */
static enum rc check_slots(const struct layout *l, struct err *err)
{
    enum rc rc = RC_OK;
    if (l->n_streams > 1 && l->f->arch->family == FAMILY_T5 && !l->f->headless) {
        rc = err_set(err, RC_INVALID,
                     "%u slots with caches of their own: the runtime has none of them for T5", l->n_streams);
        err_hint(err, "use --kv-unified");
    } else if (l->n_streams > 1 && l->f->arch->flags & EVEN_SLOTS && l->n_tokens % l->n_streams) {
        rc = err_set(
            err, RC_INVALID,
            "%u slots with caches of their own do not share a batch of %u tokens evenly, which %s needs",
            l->n_streams, l->n_tokens, l->f->arch->name);
        err_hint(err, "use --kv-unified, or --ubatch %u",
                 l->n_tokens / l->n_streams ? l->n_tokens / l->n_streams * l->n_streams : l->n_streams);
    }
    return rc;
}

/* Of a model that attends backwards only the batch is bounded by the context as asked; then the context is
 * padded, and it bounds what is computed at once. */
static enum rc resolve_context(struct layout *l, struct err *err)
{
    const struct plan_params *p = l->p;
    uint32_t ctx = p->ctx ? p->ctx : l->f->m->context_train;
    if (ctx == 0)
        return err_set(err, RC_INVALID, "%s names no context length: give one", l->f->m->path);
    l->n_seqs = p->parallel;
    l->n_batch = l->f->causal && ctx < p->batch ? ctx : p->batch;
    l->n_ubatch = p->ubatch < l->n_batch ? p->ubatch : l->n_batch;
    l->n_ctx = pad_to(ctx, 256);
    l->n_streams = p->kv_unified ? 1 : l->n_seqs;
    l->n_ctx_seq = p->kv_unified ? l->n_ctx : pad_to(l->n_ctx / l->n_seqs, 256);
    if (l->n_ctx_seq == 0)
        return err_set(err, RC_INVALID, "a context of %u tokens leaves nothing for each of %u slots", ctx,
                       l->n_seqs);
    l->n_ctx = l->n_ctx_seq * l->n_streams;
    l->n_tokens = l->n_ctx < l->n_ubatch ? l->n_ctx : l->n_ubatch;
    enum rc rc = check_slots(l, err);
    if (rc)
        return rc;
    /* every slot keeps a row for each token that a draft guessed, and one for the next */
    uint32_t rows = p->extras && p->extras->draft ? 1 + p->extras->draft_tokens : 1;
    uint32_t outputs =
        p->outputs == PLAN_OUTPUTS_BATCH || l->f->arch->family == FAMILY_T5 ? l->n_batch : l->n_seqs * rows;
    l->n_outputs = l->n_tokens < outputs ? l->n_tokens : outputs;
    l->n_tokens = (l->n_tokens + l->n_seqs - 1) / l->n_seqs * l->n_seqs;
    l->cells = l->n_ctx_seq;
    uint64_t window = (uint64_t)l->f->window * (p->kv_unified ? l->n_seqs : 1) + l->n_ubatch;
    if (window > l->cells)
        window = l->cells;
    l->cells_window = p->swa_full ? l->cells : pad_to((uint32_t)window, 256);
    return RC_OK;
}

/* Layers go to devices by cumulative shares in single precision, counted from the first offloaded one. */
static enum rc split_layers(struct layout *l, struct err *err)
{
    const struct plan_params *p = l->p;
    int32_t n = (int32_t)l->f->n_layer;
    l->gpu_layers = p->gpu_layers == PLAN_ALL_LAYERS || p->gpu_layers > n + 1 ? n + 1 : p->gpu_layers;
    l->full_offload = l->gpu_layers > n;
    float share[PLAN_MAX_DEVICES] = {0}, sum = 0;
    bool given = false;
    for (uint32_t i = 0; i < p->n_tensor_split; i++)
        given = given || p->tensor_split[i] > 0;
    for (int i = 0; i < l->n_devices; i++) {
        float part =
            given ? (i < (int)p->n_tensor_split ? p->tensor_split[i] : 0) : (float)l->devices[i].free_bytes;
        share[i] = sum += part;
    }
    if (l->n_devices && !(sum > 0))
        return err_set(err, RC_INVALID, "no device has free memory to split the layers by");
    for (int i = 0; i < l->n_devices; i++)
        share[i] /= sum;
    int32_t start = n + 1 - l->gpu_layers > 0 ? n + 1 - l->gpu_layers : 0;
    int d = 0; /* shares are cumulative: never back */
    for (int32_t il = 0; il <= n; il++) {
        int8_t dev = (int8_t)layout_host(l);
        if (l->n_devices && il >= start && il - start < l->gpu_layers) {
            float at = (float)(il - start) / (float)l->gpu_layers;
            while (d < l->n_devices - 1 && !(at < share[d]))
                d++;
            dev = (int8_t)d;
        }
        l->layer_device[il] = dev;
    }
    l->has_overrides = p->n_cpu_moe > 0 || p->n_overrides > 0;
    l->pins_norms = p->pins && (l->full_offload || l->n_tokens < 32);
    l->pins_scores = p->pins && !p->kv_offload;
    l->pipelined = l->n_devices > 1 && l->full_offload && p->kv_offload && !l->has_overrides;
    return RC_OK;
}

void layout_shares(const struct layout *l, struct plan_params *p)
{
    p->n_tensor_split = l->n_devices > 1 ? (uint32_t)l->n_devices : 0;
    for (uint32_t d = 0; d < p->n_tensor_split; d++)
        p->tensor_split[d] = 0;
    for (uint32_t il = 0; il <= l->f->n_layer && p->n_tensor_split; il++)
        if (l->layer_device[il] < l->n_devices)
            p->tensor_split[l->layer_device[il]] += 1;
}

enum rc layout_init(struct layout *l, const struct facts *f, const struct plan_params *p,
                    const struct plan_device *devices, size_t n_devices, struct err *err)
{
    *l = (struct layout){.f = f,
                         .p = p,
                         .flash_attn = p->flash_attn && !f->flashless,
                         .devices = devices,
                         .n_devices = (int)n_devices,
                         .places = l->places,
                         .adapters = l->adapters,
                         .n_adapters = l->n_adapters};
    if (n_devices > PLAN_MAX_DEVICES)
        return err_set(err, RC_INVALID, "%zu devices: at most %d", n_devices, PLAN_MAX_DEVICES);
    enum rc rc = check_ranges(p, err);
    if (!rc)
        rc = check_devices(p, devices, n_devices, err);
    if (!rc)
        rc = check_pooling(l, err);
    if (!rc)
        rc = check_cache_types(l, err);
    if (!rc)
        rc = resolve_context(l, err);
    if (!rc)
        rc = split_layers(l, err);
    if (!rc)
        rc = layout_weights(l, err);
    if (!rc)
        rc = layout_cache(l, err);
    return rc;
}
