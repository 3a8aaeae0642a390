/* Estimates of models that the input makes up. The first byte chooses: 0 to 127, the input picks an
 * architecture, dimensions, devices and parameters, and a whole model is written from them; from 128 on, what
 * follows the sixteen bytes of parameters is the head of a GGUF file, hostile or not. Every answer is a named
 * error or an estimate whose figures are sane, and the shortened graph answers as the whole one does. */
#include "gguf/model_priv.h"
#include "plan/memory.h"
#include "plan/projector.h"

#include "gguf_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HOLE (1ull << 44) /* the file that follows a head, as far as its size is asked */

static void must(bool ok)
{
    if (!ok)
        abort();
}

struct bytes {
    const uint8_t *p;
    size_t n;
};

static unsigned take(struct bytes *b)
{
    unsigned v = b->n ? *b->p : 0;
    if (b->n) {
        b->p++;
        b->n--;
    }
    return v;
}

static unsigned take16(struct bytes *b)
{
    unsigned low = take(b);
    return low | take(b) << 8;
}

/* ---- a made-up model ---- */

static const char *const arches[] = {
#define ARCH(name, family, flags) name,
#include "plan/architectures.def"
#undef ARCH
};

/* Sizes that tensors are made of. */
enum size { NONE, EMBD, HEADS, KV, FF, VOCAB, EXPERTS, INNER, STATE, CONV, RANK, RANK2, SIZES };

/* Tensors that architectures ask for: the first of each pair of dimensions is read, the second written. Those
 * of the first group are nearly always there, the others as bits of the input say. */
static const struct {
    const char *name;
    enum size ne[3];
    bool usual;
} names[] = {
    {"attn_norm", {EMBD}, true},
    {"attn_q", {EMBD, HEADS}, true},
    {"attn_k", {EMBD, KV}, true},
    {"attn_v", {EMBD, KV}, true},
    {"attn_output", {HEADS, EMBD}, true},
    {"ffn_norm", {EMBD}, true},
    {"ffn_up", {EMBD, FF}, true},
    {"ffn_down", {FF, EMBD}, true},
    {"ffn_gate", {EMBD, FF}, true},
    {"attn_qkv", {EMBD, HEADS}, false},
    {"attn_q_norm", {KV}, false},
    {"attn_k_norm", {KV}, false},
    {"ffn_gate_inp", {EMBD, EXPERTS}, false},
    {"ffn_up_exps", {EMBD, FF, EXPERTS}, false},
    {"ffn_down_exps", {FF, EMBD, EXPERTS}, false},
    {"ffn_gate_exps", {EMBD, FF, EXPERTS}, false},
    {"ffn_up_shexp", {EMBD, FF}, false},
    {"ffn_down_shexp", {FF, EMBD}, false},
    {"ffn_gate_shexp", {EMBD, FF}, false},
    {"post_attention_norm", {EMBD}, false},
    {"post_ffw_norm", {EMBD}, false},
    {"ssm_in", {EMBD, INNER}, false},
    {"ssm_conv1d", {CONV, INNER}, false},
    {"ssm_x", {INNER, STATE}, false},
    {"ssm_dt", {RANK2, INNER}, false},
    {"ssm_a", {STATE, INNER}, false},
    {"ssm_d", {INNER}, false},
    {"ssm_out", {INNER, EMBD}, false},
    {"attn_sinks", {HEADS}, false},
    {"attn_output_norm", {EMBD}, false},
    {"layer_output_norm", {EMBD}, false},
    {"attn_kv_a_mqa", {EMBD, RANK}, false},
    {"attn_kv_b", {RANK, HEADS}, false},
    {"attn_q_a", {EMBD, RANK}, false},
    {"attn_q_b", {RANK, HEADS}, false},
    {"attn_kv_a_norm", {RANK}, false},
    {"attn_q_a_norm", {RANK}, false},
};

/* Keys: a small number times a step, now and then anything. */
static const struct {
    const char *suffix;
    unsigned most, step, least;
    bool usual;
} keys[] = {
    {"block_count", 12, 1, 1, true},
    {"context_length", 32, 512, 1, true},
    {"embedding_length", 8, 64, 1, true},
    {"feed_forward_length", 8, 64, 1, true},
    {"attention.head_count", 8, 1, 1, true},
    {"attention.head_count_kv", 2, 1, 1, true},
    {"attention.key_length", 4, 32, 1, false},
    {"attention.value_length", 4, 32, 1, false},
    {"attention.sliding_window", 8, 256, 1, false},
    {"expert_count", 8, 1, 1, false},
    {"expert_used_count", 3, 1, 1, false},
    {"vocab_size", 16, 32, 1, true},
    {"ssm.conv_kernel", 4, 1, 1, false},
    {"ssm.inner_size", 8, 64, 1, false},
    {"ssm.state_size", 4, 16, 1, false},
    {"ssm.time_step_rank", 8, 4, 1, false},
    {"ssm.group_count", 3, 1, 0, false},
    {"pooling_type", 5, 1, 0, false},
    {"full_attention_interval", 4, 1, 0, false},
    {"attention.kv_lora_rank", 4, 64, 1, false},
    {"attention.q_lora_rank", 4, 64, 1, false},
    {"attention.key_length_mla", 4, 32, 1, false},
    {"attention.value_length_mla", 4, 32, 1, false},
    {"leading_dense_block_count", 4, 1, 0, false},
    {"rope.dimension_count", 4, 16, 1, false},
    {"expert_feed_forward_length", 4, 64, 1, false},
    {"expert_shared_feed_forward_length", 4, 64, 1, false},
};
enum {
    K_BLOCKS,
    K_CTX,
    K_EMBD,
    K_FF,
    K_HEADS,
    K_KV,
    K_KEY,
    K_VALUE,
    K_WINDOW,
    K_EXPERTS,
    K_USED,
    K_VOCAB,
    K_CONV,
    K_INNER,
    K_STATE,
    K_RANK
};

static uint64_t key_value(struct bytes *b, size_t i)
{
    unsigned v = take(b);
    if (v >= 252)
        return (uint64_t)take16(b) << take(b) % 20;
    return (uint64_t)(v % keys[i].most + keys[i].least) * keys[i].step;
}

static void one_tensor(struct gguf_write *w, struct bytes *b, const char *name, const uint64_t *sizes,
                       const enum size *of)
{
    static const uint32_t types[] = {GGML_F32,  GGML_F16,  GGML_Q8_0, GGML_Q4_0,
                                     GGML_Q4_K, GGML_Q6_K, GGML_MXFP4};
    uint64_t ne[4] = {0}, row;
    unsigned how = take(b);
    for (int i = 0; i < 3; i++)
        ne[i] = of[i] ? sizes[of[i]] : 0;
    if (how >= 250)
        ne[how % 2] = take16(b);
    ne[0] = ne[0] ? ne[0] : 1;
    uint32_t type = ne[1] ? types[how % TABLE_COUNT(types)] : GGML_F32;
    if (!ggml_row_bytes(type, ne[0], &row))
        type = GGML_F32;
    gguf_write_tensor(w, name, type, ne);
}

static void tensors(struct gguf_write *w, struct bytes *b, const uint64_t *v)
{
    uint64_t present = 0, d = v[K_KEY] ? v[K_KEY] : v[K_HEADS] ? v[K_EMBD] / v[K_HEADS] : 1;
    const uint64_t sizes[SIZES] = {[EMBD] = v[K_EMBD],   [HEADS] = v[K_HEADS] * d, [KV] = v[K_KV] * d,
                                   [FF] = v[K_FF],       [VOCAB] = v[K_VOCAB],     [EXPERTS] = v[K_EXPERTS],
                                   [INNER] = v[K_INNER], [STATE] = v[K_STATE],     [CONV] = v[K_CONV],
                                   [RANK] = 64,          [RANK2] = v[K_RANK]};
    static const enum size table[3] = {EMBD, VOCAB}, row[3] = {EMBD};
    char name[96];
    for (int i = 0; i < 5; i++)
        present = present << 8 | take(b);
    unsigned rare = take(b);
    for (uint64_t il = 0; il < v[K_BLOCKS] && il < 24; il++) {
        for (size_t k = 0; k < TABLE_COUNT(names); k++) {
            if (names[k].usual ? rare == k : !(present >> k % 40 & 1))
                continue;
            snprintf(name, sizeof name, "blk.%llu.%s%s", (unsigned long long)il, names[k].name,
                     strcmp(names[k].name, "ssm_a") && strcmp(names[k].name, "ssm_d") ? ".weight" : "");
            one_tensor(w, b, name, sizes, names[k].ne);
        }
    }
    one_tensor(w, b, "token_embd.weight", sizes, table);
    one_tensor(w, b, "output_norm.weight", sizes, row);
    if (present & 1)
        one_tensor(w, b, "output.weight", sizes, table);
}

static bool append(struct buf *out, uint64_t v, size_t n)
{
    return buf_append(out, &v, n);
}

/* The head as gguf_write_save would write it; the weights are a hole. */
static void made_up(struct bytes *b, struct buf *out)
{
    struct gguf_write w = {0};
    const char *arch = arches[take16(b) % TABLE_COUNT(arches)];
    uint64_t v[TABLE_COUNT(keys)] = {0};
    char key[128];
    gguf_write_str(&w, "general.architecture", arch);
    for (size_t i = 0; i < TABLE_COUNT(keys); i++) {
        v[i] = key_value(b, i);
        if (keys[i].usual ? take(b) == 255 : take(b) % 3 == 0)
            continue;
        snprintf(key, sizeof key, "%s.%s", arch, keys[i].suffix);
        gguf_write_u32(&w, key, (uint32_t)v[i]);
    }
    tensors(&w, b, v);
    must(buf_append(out, "GGUF", 4) && append(out, 3, 4) && append(out, w.n_tensors, 8) &&
         append(out, w.n_keys, 8) && buf_append(out, w.keys.data, w.keys.n) &&
         buf_append(out, w.infos.data, w.infos.n));
    gguf_write_release(&w);
}

/* ---- the question ---- */

static void devices(struct bytes *b, struct plan_device *d, size_t *ret_n)
{
    static const char *const stems[] = {"CUDA", "Vulkan", "RPC", "ROCm", "Metal", "SYCL"};
    size_t n = take(b) % 5;
    for (size_t i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof name, "%s%zu", stems[take(b) % TABLE_COUNT(stems)], i);
        uint64_t total = (uint64_t)take16(b) << (take(b) % 48), free_bytes = (uint64_t)take16(b)
                                                                             << (take(b) % 48);
        plan_device_named(&d[i], str_from(name), total, free_bytes);
    }
    *ret_n = n;
}

static void params(struct bytes *b, struct plan_params *p)
{
    static const uint32_t types[] = {GGML_F16,  GGML_F32,    GGML_BF16, GGML_Q8_0,
                                     GGML_Q4_0, GGML_IQ4_NL, GGML_Q4_K, 200};
    static const char *const patterns[] = {"exps=CPU",  "(a|b)*c{3}", "blk\\.\\d+\\.ffn", "(", "a{999}",
                                           "((a*)*)*b", "\\1"};
    plan_params_default(p);
    unsigned bits = take16(b);
    p->ctx = take16(b) << take(b) % 4;
    p->batch = take16(b);
    p->ubatch = take16(b) % 1024;
    p->parallel = take(b) % 9;
    p->kv_unified = bits & 1;
    p->flash_attn = bits & 2;
    p->kv_offload = bits & 4;
    p->repack = bits & 8;
    p->swa_full = bits & 16;
    p->embedding = bits & 32;
    p->outputs = bits & 64 ? PLAN_OUTPUTS_BATCH : PLAN_OUTPUTS_SLOTS;
    p->type_k = types[take(b) % TABLE_COUNT(types)];
    p->type_v = types[take(b) % TABLE_COUNT(types)];
    p->gpu_layers = (int32_t)take(b) % 32 - 2;
    p->n_cpu_moe = bits & 128 ? take(b) : 0;
    p->host_isa = bits >> 8 & 15;
    p->n_tensor_split = bits & 4096 ? take(b) % 5 : 0;
    for (uint32_t i = 0; i < p->n_tensor_split && i < PLAN_MAX_DEVICES; i++)
        p->tensor_split[i] = (float)take(b) - 1;
    if (bits & 8192) {
        snprintf(p->overrides[0].pattern, sizeof p->overrides[0].pattern, "%s",
                 patterns[take(b) % TABLE_COUNT(patterns)]);
        snprintf(p->overrides[0].buffer, sizeof p->overrides[0].buffer, "%s", take(b) % 2 ? "CPU" : "CUDA0");
        p->n_overrides = 1;
    }
}

static void check(const struct plan_estimate *e)
{
    uint64_t total = 0;
    must(e->n_parts >= 1 && e->n_parts <= PLAN_MAX_DEVICES + 1);
    for (size_t i = 0; i < e->n_parts; i++) {
        const struct plan_part *p = &e->parts[i];
        must(p->model_bytes < 1ull << 62 && p->context_bytes < 1ull << 62 && p->compute_bytes < 1ull << 62);
        must(p->repack_bytes <= p->model_bytes && (p->kind == PLAN_HOST) == (i + 1 == e->n_parts));
        total += p->model_bytes;
    }
    must(total > 0); /* never an estimate of nothing */
}

static bool same(const struct plan_estimate *a, const struct plan_estimate *b)
{
    for (size_t i = 0; i < a->n_parts; i++)
        if (plan_part_total(&a->parts[i]) != plan_part_total(&b->parts[i]))
            return false;
    return a->n_parts == b->n_parts;
}

static void check_error(enum rc rc, const struct err *err)
{
    must(rc == err->code && err->message[0]);
    must(rc == RC_INVALID || rc == RC_UNSUPPORTED || rc == RC_LIMIT);
}

static void estimate(const struct model *m, struct bytes *b)
{
    struct plan_params p;
    struct plan_device d[PLAN_MAX_DEVICES];
    struct plan_estimate e, whole;
    struct estimator est;
    struct err err = {0};
    size_t n;
    devices(b, d, &n);
    params(b, &p);
    enum rc rc = estimator_init(&est, m, &err);
    if (rc) {
        check_error(rc, &err);
        return;
    }
    rc = estimator_run(&est, &p, d, n, false, &e, &err);
    if (rc) {
        check_error(rc, &err);
    } else {
        check(&e);
        must(estimator_run(&est, &p, d, n, true, &whole, &err) == RC_OK && same(&e, &whole));
    }
    estimator_release(&est);
}

static void project(const struct model *m)
{
    struct projector_facts f;
    struct projector_bytes b;
    struct graph g = {0};
    struct err err = {0};
    enum rc rc = projector_read(&f, m, &err);
    if (!rc)
        rc = projector_measure(&f, false, PLAN_VULKAN, &g, &b, &err);
    if (rc)
        check_error(rc, &err);
    graph_release(&g);
}

struct head_source {
    struct gguf_source src; /* first */
    size_t n;
};

/* The head, then a hole that reads as zeros. */
static ssize_t read_head(const struct gguf_source *src, void *out, size_t n, uint64_t offset)
{
    const struct head_source *h = (const struct head_source *)src;
    size_t here = offset < h->n ? h->n - (size_t)offset : 0;
    here = here < n ? here : n;
    memset(out, 0, n);
    memcpy(out, (const char *)src->memory + (here ? offset : 0), here);
    return (ssize_t)n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes b = {data, size}, head;
    struct buf out = {0};
    struct head_source file;
    struct model *m = NULL;
    struct err err = {0};
    if (take(&b) < 128) {
        made_up(&b, &out);
        head = (struct bytes){(const uint8_t *)out.data, out.n};
    } else {
        head = b;
        size_t skip = b.n < 16 ? b.n : 16;
        head.p += skip;
        head.n -= skip;
    }
    gguf_source_memory(head.p ? head.p : (const uint8_t *)"", head.n, &file.src);
    file.n = head.n;
    file.src.read_at = read_head;
    file.src.size += HOLE; /* a head asks for its weights' sizes only */
    enum rc rc = model_from_source(&file.src, "fuzz.gguf", &m, &err);
    if (!rc) {
        if (!strcmp(m->architecture, "clip"))
            project(m);
        else
            estimate(m, &b);
        model_unref(m);
    }
    buf_release(&out);
    return 0;
}
