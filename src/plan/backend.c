/* Kinds of devices. Layer plan; see backend.h. */
#include "plan/backend.h"

#include <string.h>

/* The kernels of chosen experts round what they multiply to half precision or eight bits. */
static bool rounds_experts(const struct gtensor *t)
{
    return t->op == OP_MUL_MAT_ID && (t->flags & GF_EXACT);
}

/* Only heads of some widths (the second kind) have a kernel. */
static bool vulkan_refuses_scan(const struct gtensor *state, const struct gtensor *a)
{
    return a->ne[0] != 1 || (state->ne[0] != 128 && state->ne[0] != 256) || state->ne[1] % 16;
}

/* No kernel for exact products of experts, for selective scans of the first kind, for gated linear attention
 * of heads other than 64, for attention over caches of which one alone is bf16, for products of one matrix
 * with several in the fourth dimension, nor for those with quantised matrices whose rows have gaps (the heads
 * of a quantised cache without flash attention). */
static bool vulkan_refuses(const struct graph *g, const struct gtensor *t)
{
    if (t->op == OP_GLA)
        return g->t[t->src[0]].ne[0] != 64;
    if (t->op == OP_SSM_SCAN)
        return vulkan_refuses_scan(&g->t[t->src[0]], &g->t[t->src[3]]);
    if (t->op == OP_FLASH_ATTN) {
        const struct gtensor *k = &g->t[t->src[1]], *v = &g->t[t->src[2]];
        return (k->type == GGML_BF16) != (v->type == GGML_BF16) || k->ne[0] % 8 || v->ne[0] % 8;
    }
    if (t->op != OP_MUL_MAT || t->src[0] < 0)
        return rounds_experts(t);
    const struct gtensor *a = &g->t[t->src[0]];
    if (a->ne[3] != g->t[t->src[1]].ne[3])
        return true;
    const struct ggml_type_info *info = ggml_type_info(a->type);
    return info && info->block > 1 && a->nb[1] != a->ne[0] / info->block * info->block_bytes;
}

/* Widths of heads that flash attention has a kernel for, and how many heads must share a key's (0 = any). */
static bool cuda_attends(const struct gtensor *q, const struct gtensor *k, const struct gtensor *v)
{
    static const struct {
        uint16_t k, v, shared;
    } heads[] = {{40, 40, 0},   {64, 64, 0},   {72, 72, 0},   {80, 80, 0},    {96, 96, 0},   {112, 112, 0},
                 {128, 128, 0}, {256, 256, 0}, {192, 128, 8}, {320, 256, 32}, {512, 512, 2}, {576, 512, 2}};
    static const uint32_t types[] = {GGML_F32, GGML_F16, GGML_BF16, GGML_Q4_0, GGML_Q8_0};
    bool known = false;
    for (size_t i = 0; i < TABLE_COUNT(types); i++)
        known = known || types[i] == k->type;
    if (!known || k->type != v->type || k->ne[2] == 0)
        return false;
    uint64_t shared = q->ne[2] / k->ne[2];
    for (size_t i = 0; i < TABLE_COUNT(heads); i++)
        if (heads[i].k == k->ne[0] && heads[i].v == v->ne[0])
            return !heads[i].shared ||
                   (k->ne[1] % 256 == 0 && shared >= 2 &&
                    (heads[i].shared == 2 || shared % heads[i].shared == 0)); /* 2: two or more */
    return false;
}

static bool cuda_scans(const struct gtensor *state, const struct gtensor *a, const struct gtensor *in)
{
    if (a->ne[0] == 1)
        return (state->ne[0] == 128 || state->ne[0] == 256) && state->ne[1] % 16 == 0;
    return state->ne[0] == 16 && state->ne[1] == 1 && state->ne[2] % 128 == 0 && (!in || in->ne[1] == 1);
}

/* ROCm's kernels are compiled from the same source. */
static bool cuda_refuses(const struct graph *g, const struct gtensor *t)
{
    const struct gtensor *a = &g->t[t->src[0] >= 0 ? t->src[0] : 0]; /* the ops below have one */
    if (t->op == OP_FLASH_ATTN)
        return !cuda_attends(a, &g->t[t->src[1]], &g->t[t->src[2]]);
    if (t->op == OP_SSM_SCAN)
        return !cuda_scans(a, &g->t[t->src[3]], t->src[4] >= 0 ? &g->t[t->src[4]] : NULL);
    if (t->op == OP_SSM_CONV)
        return a->ne[1] % 128 != 0;
    return rounds_experts(t);
}

static const struct backend_traits traits[] = {
#define LIMIT(n) ((n) ? (uint64_t)(n) : UINT64_MAX)
#define BACKEND(id, stem, kind, align, chunk, tensor, refuses, batch, reorders, pads, halves, pinned,        \
                overhead, gbps, tflops, link)                                                                \
    [PLAN_##id] = {stem, kind,   align,  LIMIT(chunk), LIMIT(tensor), refuses, batch, reorders,              \
                   pads, halves, pinned, overhead,     gbps,          tflops,  link},
#include "plan/backends.def"
#undef BACKEND
};

const struct backend_traits *backend_traits(enum plan_backend b)
{
    return &traits[(size_t)b < TABLE_COUNT(traits) ? b : PLAN_CUDA];
}

struct graph_backend backend_graph(enum plan_backend b)
{
    const struct backend_traits *t = backend_traits(b);
    return (struct graph_backend){.alignment = t->alignment,
                                  .max_chunk = t->max_chunk,
                                  .offload_batch = t->offload_batch,
                                  .reorders = t->reorders,
                                  .pads_rows = t->pads_rows,
                                  .halves_caches = t->halves_caches,
                                  .max_tensor = t->max_tensor,
                                  .refuses = t->refuses};
}

/* In the first device's pinned memory, whose largest allocation is the device's; its alignment is 64 where
 * the driver maps it (Vulkan), else the host's own. */
struct graph_backend backend_graph_host(bool no_device, enum plan_backend first)
{
    const struct backend_traits *t = no_device ? NULL : backend_traits(first);
    bool mapped = t && t->pinned_host && t->max_chunk != UINT64_MAX;
    return (struct graph_backend){.alignment = mapped ? 64 : 32,
                                  .max_chunk = mapped ? t->max_chunk : UINT64_MAX,
                                  .max_tensor = UINT64_MAX};
}

uint64_t backend_host_bytes(uint32_t alignment, const struct tensor *t)
{
    return (t->bytes + alignment - 1) & ~((uint64_t)alignment - 1); /* a power of two */
}

uint64_t backend_stored_bytes(enum plan_backend b, const struct tensor *t)
{
    const struct backend_traits *traits_of = backend_traits(b);
    uint64_t n = t->bytes, pad;
    if (traits_of->pads_rows && t->ne[0] % 512) {
        const struct ggml_type_info *info = ggml_type_info(t->type);
        if (info && info->block > 1 && ggml_row_bytes(t->type, 512 - t->ne[0] % 512, &pad))
            n += pad;
    }
    return (n + traits_of->alignment - 1) & ~((uint64_t)traits_of->alignment - 1);
}

void plan_device_named(struct plan_device *d, struct str name, uint64_t total_bytes, uint64_t free_bytes)
{
    *d = (struct plan_device){.backend = PLAN_CUDA, .total_bytes = total_bytes, .free_bytes = free_bytes};
    size_t n = name.n < sizeof d->name - 1 ? name.n : sizeof d->name - 1;
    memcpy(d->name, name.p, n);
    for (size_t i = 0; i < TABLE_COUNT(traits); i++) {
        size_t stem = strlen(traits[i].stem);
        if (name.n >= stem && str_ieq((struct str){name.p, stem}, str_from(traits[i].stem)))
            d->backend = (enum plan_backend)i;
    }
    d->overhead_bytes = backend_traits(d->backend)->overhead_mib * MIB;
}

bool plan_device_is(const struct plan_device *d, const char *wanted)
{
    return !strcmp(d->name, wanted) || (d->uuid[0] && !strcmp(d->uuid, wanted));
}
