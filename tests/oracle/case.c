#include "case.h"

#include "builders.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define CASE(name_, for_, ...) {.name = name_, .for_what = for_, ##__VA_ARGS__},
static const struct case_row rows[] = {
#include "cases.def"
};
#undef CASE

static const uint32_t contexts[] = {2048, 4096, 8192, 12288, 16384, 32768, 65536};
static const uint32_t ubatches[] = {32, 128, 256, 1024, 2048};
static const char *const cache_types[] = {"q8_0", "q4_0", "q5_1", "iq4_nl", "q5_0", "q4_1"};
static const uint32_t device_mib[] = {24000, 16000, 12000, 8000, 6000};

/* A number drawn for one value of one case. */
static uint64_t draw(const struct shape *s, const struct case_row *r, const char *what)
{
    uint64_t h = str_hash(str_from(s->name), 1);
    return str_hash(str_from(what), str_hash(str_from(r->name), h)) >> 8;
}
#define PICK(list, s, r, what) (list)[draw(s, r, what) % TABLE_COUNT(list)]

static bool is_encoder(const struct shape *s)
{
    return s->build == shape_bert || s->build == shape_modern_bert || s->build == shape_euro_bert ||
           s->build == shape_t5_encoder;
}

static bool is_wanted(const struct shape *s, const struct case_row *r)
{
    if (r->for_what == FOR_ONE)
        return !strcmp(s->name, r->shape);
    if ((r->for_what == FOR_CAUSAL && is_encoder(s)) || (r->for_what == FOR_EXPERTS && !s->experts) ||
        (r->for_what == FOR_WINDOW && !s->window) || (r->for_what == FOR_ENCODER && !is_encoder(s)))
        return false;
    /* its values reach the cache as rows of all heads, which llama.cpp takes for heads of one token */
    if (!strcmp(s->arch, "plm") && !r->flash_off)
        return false;
    /* slots with caches of their own must share its micro-batches evenly; the refusal is a case of its own */
    if ((s->build == shape_kimi_linear || s->build == shape_minimax_01) && !strcmp(r->name, "gpu1-short-np3"))
        return false;
    /* 32 must divide the rows of a quantised cache */
    if (r->quant_kv && (shape_dim(s) % 32 || !s->heads))
        return false;
    return r->every < 2 || draw(s, r, "every") % r->every == 0;
}

static uint32_t type_of(const char *word)
{
    uint32_t type = GGML_F16;
    if (word && !ggml_type_from(str_from(word), &type))
        fprintf(stderr, "oracle: no type %s\n", word);
    return type;
}

static void set_cache(struct plan_params *p, const struct shape *s, const struct case_row *r)
{
    p->type_k = type_of(r->quant_kv ? PICK(cache_types, s, r, "k") : r->type_k);
    p->type_v = type_of(r->quant_kv ? PICK(cache_types, s, r, "v") : r->type_v);
    if (!r->refused && s->build == shape_mla) /* one cache serves both */
        p->type_v = p->type_k;
    if (r->quant_kv && !strcmp(s->arch, "grok")) /* without flash attention values stay plain */
        p->type_v = GGML_F16;
    p->ctx = r->ctx ? r->ctx : PICK(contexts, s, r, "ctx");
    if (p->ctx > s->ctx)
        p->ctx = s->ctx;
    p->parallel = r->parallel ? r->parallel : 1;
    p->kv_unified = r->unified || (s->build == shape_t5 && !r->refused);
    p->kv_offload = !r->no_kv_offload;
    p->swa_full = r->swa_full;
}

static void set_placement(struct oracle_case *c, const struct shape *s, const struct case_row *r)
{
    struct plan_params *p = &c->params;
    c->n_devices = r->rpc + r->vulkan;
    size_t first = draw(s, r, "size") % TABLE_COUNT(device_mib);
    for (size_t i = 0; i < c->n_devices; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s%zu", r->vulkan ? "Vulkan" : "RPC", i);
        uint64_t mib = device_mib[(first + 2 * i) % TABLE_COUNT(device_mib)];
        plan_device_named(&c->devices[i], str_from(name), mib * MIB, mib * MIB);
    }
    p->gpu_layers = r->layers == LAYERS_SOME ? (int32_t)(1 + draw(s, r, "layers") % s->layers) : r->layers;
    for (size_t i = 0; i < c->n_devices; i++) {
        p->tensor_split[i] = r->split[i];
        if (r->split[i] > 0)
            p->n_tensor_split = (uint32_t)c->n_devices;
    }
    p->n_cpu_moe = !r->cpu_moe                 ? 0
                   : r->cpu_moe == EXPERTS_ALL ? s->layers
                                               : 1 + (uint32_t)(draw(s, r, "experts") % (s->layers - 1));
    if (r->override) {
        const char *eq = strrchr(r->override, '=');
        snprintf(p->overrides[0].pattern, sizeof p->overrides[0].pattern, "%.*s", (int)(eq - r->override),
                 r->override);
        snprintf(p->overrides[0].buffer, sizeof p->overrides[0].buffer, "%s", eq + 1);
        p->n_overrides = 1;
    }
}

static void put_layers(const struct plan_params *p, const char *flag, struct buf *out)
{
    if (p->gpu_layers == PLAN_ALL_LAYERS)
        buf_printf(out, " %s all", flag);
    else
        buf_printf(out, " %s %d", flag, p->gpu_layers);
}

static void put_split(const struct oracle_case *c, const char *flag, struct buf *out)
{
    for (size_t i = 0; c->params.n_tensor_split && i < c->n_devices; i++)
        buf_printf(out, "%s%s%g", i ? "," : " ", i ? "" : flag, (double)c->params.tensor_split[i]);
}

void case_estimate_args(const struct oracle_case *c, struct buf *out)
{
    const struct plan_params *p = &c->params;
    buf_printf(
        out,
        "--ctx %u --ubatch %u --batch %u --flash-attn %s --cache-type-k %s --cache-type-v %s --parallel %u",
        p->ctx, p->ubatch, p->batch, p->flash_attn ? "on" : "off", ggml_type_info(p->type_k)->word,
        ggml_type_info(p->type_v)->word, p->parallel);
    buf_puts(out, p->kv_unified ? " --kv-unified" : "");
    if (!p->pins) /* else all is as in llama-server */
        buf_printf(out, " --outputs %s", p->outputs == PLAN_OUTPUTS_SLOTS ? "slots" : "batch");
    if (c->n_devices)
        put_layers(p, "--gpu-layers", out);
    put_split(c, "--tensor-split ", out);
    if (p->n_cpu_moe)
        buf_printf(out, " --n-cpu-moe %u", p->n_cpu_moe);
    if (p->n_overrides)
        buf_printf(out, " --override-tensor '%s=%s'", p->overrides[0].pattern, p->overrides[0].buffer);
    buf_puts(out, p->kv_offload ? "" : " --no-kv-offload");
    buf_puts(out, p->repack ? "" : " --no-repack");
    buf_puts(out, p->swa_full ? " --swa-full" : "");
    buf_puts(out, p->embedding ? " --embedding" : "");
    for (size_t i = 0; i < c->n_devices; i++)
        buf_printf(out, " --device %s:%llu", c->devices[i].name,
                   (unsigned long long)(c->devices[i].total_bytes / MIB));
}

void case_oracle_args(const struct oracle_case *c, struct buf *out)
{
    const struct plan_params *p = &c->params;
    buf_printf(out, "-c %u -ub %u -b %u -fa %s -ctk %s -ctv %s -np %u", p->ctx, p->ubatch, p->batch,
               p->flash_attn ? "on" : "off", ggml_type_info(p->type_k)->word, ggml_type_info(p->type_v)->word,
               p->parallel);
    if (c->row->rpc) {
        for (size_t i = 0; i < c->n_devices; i++)
            buf_printf(out, "%s{rpc%zu}", i ? "," : " --rpc ", i);
    }
    if (c->n_devices)
        put_layers(p, "-ngl", out);
    put_split(c, "-ts ", out);
    if (p->n_cpu_moe)
        buf_printf(out, " -ncmoe %u", p->n_cpu_moe);
    if (p->n_overrides)
        buf_printf(out, " -ot '%s=%s'", p->overrides[0].pattern, p->overrides[0].buffer);
    buf_puts(out, p->kv_offload ? "" : " -nkvo");
    buf_puts(out, p->repack ? "" : " --no-repack");
    buf_puts(out, p->swa_full ? " --swa-full" : "");
    buf_puts(out, " --fit-print on");
}

void case_oracle_env(const struct oracle_case *c, struct buf *out)
{
    const struct plan_params *p = &c->params;
    buf_puts(out, "ORACLE_SIZES=");
    for (size_t i = 0; i < c->n_devices; i++)
        buf_printf(out, "%s%s:%llu", i ? "," : "", c->devices[i].name,
                   (unsigned long long)(c->devices[i].total_bytes / MIB));
    if (p->outputs == PLAN_OUTPUTS_SLOTS)
        buf_printf(out, " ORACLE_OUTPUTS=%u", p->parallel);
    buf_puts(out, p->kv_unified ? " ORACLE_UNIFIED=1" : "");
    buf_puts(out, p->embedding ? " ORACLE_EMBEDDING=1" : "");
    buf_puts(out, p->pins ? " ORACLE_PINS=1" : "");
    if (c->row->vulkan)
        buf_printf(out, " GGML_VK_VISIBLE_DEVICES=%s", c->row->vulkan == 2 ? "0,0" : "0");
    else
        buf_puts(out, " GGML_VK_VISIBLE_DEVICES=");
}

static void fill(struct oracle_case *c, const struct shape *s, const struct case_row *r)
{
    struct plan_params *p = &c->params;
    *c = (struct oracle_case){.shape = s, .row = r};
    snprintf(c->id, sizeof c->id, "%s.%s", s->name, r->name);
    plan_params_default(p);
    set_cache(p, s, r);
    set_placement(c, s, r);
    p->ubatch = r->ubatch ? r->ubatch : r->vary_ubatch ? PICK(ubatches, s, r, "ubatch") : 512;
    p->batch = r->batch ? r->batch : 2048;
    p->flash_attn = !r->flash_off;
    p->repack = r->repack;
    p->embedding = r->embedding;
    p->pins = r->pins;
    p->outputs = r->slots ? PLAN_OUTPUTS_SLOTS : PLAN_OUTPUTS_BATCH;
    struct buf asked = {0};
    case_oracle_env(c, &asked);
    case_oracle_args(c, &asked);
    c->key = (uint32_t)str_hash(buf_str(&asked), 0);
    buf_release(&asked);
}

struct oracle_case *cases_make(size_t *ret_n)
{
    struct oracle_case *all = mem_calloc(n_shapes * TABLE_COUNT(rows), sizeof *all);
    size_t n = 0;
    for (size_t i = 0; i < n_shapes; i++)
        for (size_t j = 0; j < TABLE_COUNT(rows); j++)
            if (is_wanted(&shapes[i], &rows[j]))
                fill(&all[n++], &shapes[i], &rows[j]);
    *ret_n = n;
    return all;
}
