/* Files beside the model: projectors, adapters, drafts, and what the host keeps. The figures are those that
 * llama-server 0.7.0 logged for the same files ("model size", "compute buffer size" at warm-up, "LoRA buffer
 * size", and the buffers of a draft), in MiB with two decimals. */
#include "plan_test.h"

#include "gguf_write.h"
#include "plan/memory.h"
#include "plan/projector.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct model *saved(struct gguf_write *w)
{
    char path[512];
    const char *tmp = getenv("TMPDIR");
    struct model *m = NULL;
    struct err err;
    snprintf(path, sizeof path, "%s/extras-%ld.gguf", tmp ? tmp : "/tmp", (long)getpid());
    assert_int_equal(gguf_write_save(w, path, &err), RC_OK);
    if (model_open(path, &m, &err))
        fail_msg("%s", err.message);
    unlink(path);
    gguf_write_release(w);
    *w = (struct gguf_write){0};
    return m;
}

static void tensor(struct gguf_write *w, const char *name, uint32_t type, uint64_t a, uint64_t b, uint64_t c,
                   uint64_t d)
{
    gguf_write_tensor(w, name, type, (const uint64_t[4]){a, b, c, d});
}

__attribute__((format(printf, 6, 7))) static void named(struct gguf_write *w, uint32_t type, uint64_t a,
                                                        uint64_t b, int il, const char *fmt, ...)
{
    char name[96];
    va_list ap;
    (void)il;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    tensor(w, name, type, a, b, 0, 0);
}

/* ---- projectors: four blocks, 256 wide, four heads ---- */

#define WIDE   256
#define BLOCKS 4

enum shape_trait { JOINED = 1, GATED = 2, PLAIN = 4, NO_K_BIAS = 8 };

static void blocks(struct gguf_write *w, char prefix, uint64_t ff, unsigned traits)
{
    for (int i = 0; i < BLOCKS; i++) {
        for (int k = 1; k <= 2; k++) {
            named(w, GGML_F32, WIDE, 0, i, "%c.blk.%d.ln%d.weight", prefix, i, k);
            if (!(traits & GATED))
                named(w, GGML_F32, WIDE, 0, i, "%c.blk.%d.ln%d.bias", prefix, i, k);
        }
        const char *const heads[] = {"attn_q", "attn_k", "attn_v"};
        for (int k = 0; k < 3 && !(traits & JOINED); k++) {
            named(w, GGML_F16, WIDE, WIDE, i, "%c.blk.%d.%s.weight", prefix, i, heads[k]);
            if (!(traits & PLAIN) && !(k == 1 && traits & NO_K_BIAS))
                named(w, GGML_F32, WIDE, 0, i, "%c.blk.%d.%s.bias", prefix, i, heads[k]);
        }
        if (traits & JOINED) {
            named(w, GGML_F16, WIDE, 3 * WIDE, i, "%c.blk.%d.attn_qkv.weight", prefix, i);
            named(w, GGML_F32, 3 * WIDE, 0, i, "%c.blk.%d.attn_qkv.bias", prefix, i);
        }
        const struct {
            const char *name;
            uint64_t in, out;
        } rest[] = {
            {"attn_out", WIDE, WIDE}, {"ffn_up", WIDE, ff}, {"ffn_down", ff, WIDE}, {"ffn_gate", WIDE, ff}};
        for (int k = 0; k < (traits & GATED ? 4 : 3); k++) {
            named(w, GGML_F16, rest[k].in, rest[k].out, i, "%c.blk.%d.%s.weight", prefix, i, rest[k].name);
            if (!(traits & PLAIN))
                named(w, GGML_F32, rest[k].out, 0, i, "%c.blk.%d.%s.bias", prefix, i, rest[k].name);
        }
    }
}

static void keys(struct gguf_write *w, const char *type, const char *kind, uint32_t ff)
{
    char key[96];
    const struct {
        const char *suffix;
        uint32_t v;
    } numbers[] = {{"embedding_length", WIDE},
                   {"feed_forward_length", ff},
                   {"block_count", BLOCKS},
                   {"attention.head_count", 4},
                   {"projection_dim", 256}};
    gguf_write_str(w, "general.architecture", "clip");
    gguf_write_str(w, "general.type", "mmproj");
    snprintf(key, sizeof key, "clip.has_%s_encoder", kind);
    gguf_write_bool(w, key, true);
    gguf_write_str(w, "clip.projector_type", type);
    for (size_t i = 0; i < TABLE_COUNT(numbers); i++) {
        snprintf(key, sizeof key, "clip.%s.%s", kind, numbers[i].suffix);
        gguf_write_u32(w, key, numbers[i].v);
    }
}

static void image_keys(struct gguf_write *w, const char *type, uint32_t ff, uint32_t side, uint32_t patch)
{
    keys(w, type, "vision", ff);
    gguf_write_u32(w, "clip.vision.image_size", side);
    gguf_write_u32(w, "clip.vision.patch_size", patch);
    tensor(w, "v.patch_embd.weight", GGML_F16, patch, patch, 3, WIDE);
}

static struct model *gemma3(void)
{
    struct gguf_write w = {0};
    image_keys(&w, "gemma3", 4 * WIDE, 896, 14);
    named(&w, GGML_F32, WIDE, 0, 0, "v.patch_embd.bias");
    named(&w, GGML_F32, WIDE, 4096, 0, "v.position_embd.weight");
    named(&w, GGML_F32, WIDE, 0, 0, "v.post_ln.weight");
    named(&w, GGML_F32, WIDE, 0, 0, "v.post_ln.bias");
    named(&w, GGML_F32, 256, WIDE, 0, "mm.input_projection.weight");
    named(&w, GGML_F32, WIDE, 0, 0, "mm.soft_emb_norm.weight");
    blocks(&w, 'v', 4 * WIDE, 0);
    return saved(&w);
}

static struct model *qwen3vl(bool deep)
{
    struct gguf_write w = {0};
    uint64_t dim = deep ? 64 : 256;
    image_keys(&w, "qwen3vl_merger", 4 * WIDE, 768, 16);
    gguf_write_u32(&w, "clip.vision.spatial_merge_size", 2);
    tensor(&w, "v.patch_embd.weight.1", GGML_F16, 16, 16, 3, WIDE);
    named(&w, GGML_F32, WIDE, 0, 0, "v.patch_embd.bias");
    named(&w, GGML_F32, WIDE, 2304, 0, "v.position_embd.weight");
    named(&w, GGML_F32, WIDE, 0, 0, "v.post_ln.weight");
    named(&w, GGML_F32, WIDE, 0, 0, "v.post_ln.bias");
    named(&w, GGML_F16, 4 * WIDE, 4 * WIDE, 0, "mm.0.weight");
    named(&w, GGML_F32, 4 * WIDE, 0, 0, "mm.0.bias");
    named(&w, GGML_F16, 4 * WIDE, dim, 0, "mm.2.weight");
    named(&w, GGML_F32, dim, 0, 0, "mm.2.bias");
    blocks(&w, 'v', 4 * WIDE, JOINED);
    for (int i = 0; i < 3 && deep; i++) {
        named(&w, GGML_F32, 4 * WIDE, 0, i, "v.deepstack.%d.norm.weight", i);
        named(&w, GGML_F32, 4 * WIDE, 0, i, "v.deepstack.%d.norm.bias", i);
        named(&w, GGML_F16, 4 * WIDE, 4 * WIDE, i, "v.deepstack.%d.fc1.weight", i);
        named(&w, GGML_F32, 4 * WIDE, 0, i, "v.deepstack.%d.fc1.bias", i);
        named(&w, GGML_F16, 4 * WIDE, dim, i, "v.deepstack.%d.fc2.weight", i);
        named(&w, GGML_F32, dim, 0, i, "v.deepstack.%d.fc2.bias", i);
    }
    return saved(&w);
}

static struct model *qwen25vl(void)
{
    struct gguf_write w = {0};
    image_keys(&w, "qwen2.5vl_merger", 3 * WIDE, 560, 14);
    tensor(&w, "v.patch_embd.weight.1", GGML_F16, 14, 14, 3, WIDE);
    named(&w, GGML_F32, WIDE, 0, 0, "v.post_ln.weight");
    named(&w, GGML_F16, 4 * WIDE, 4 * WIDE, 0, "mm.0.weight");
    named(&w, GGML_F32, 4 * WIDE, 0, 0, "mm.0.bias");
    named(&w, GGML_F16, 4 * WIDE, 256, 0, "mm.2.weight");
    named(&w, GGML_F32, 256, 0, 0, "mm.2.bias");
    blocks(&w, 'v', 3 * WIDE, GATED);
    return saved(&w);
}

static struct model *idefics3(void)
{
    struct gguf_write w = {0};
    image_keys(&w, "idefics3", 4 * WIDE, 512, 16);
    gguf_write_u32(&w, "clip.vision.projector.scale_factor", 4);
    named(&w, GGML_F32, WIDE, 0, 0, "v.patch_embd.bias");
    named(&w, GGML_F32, WIDE, 1024, 0, "v.position_embd.weight");
    named(&w, GGML_F32, WIDE, 0, 0, "v.post_ln.weight");
    named(&w, GGML_F32, WIDE, 0, 0, "v.post_ln.bias");
    named(&w, GGML_F16, 16 * WIDE, 256, 0, "mm.model.fc.weight");
    blocks(&w, 'v', 4 * WIDE, 0);
    return saved(&w);
}

static struct model *qwen2a(void)
{
    struct gguf_write w = {0};
    keys(&w, "qwen2a", "audio", 4 * WIDE);
    gguf_write_u32(&w, "clip.audio.num_mel_bins", 128);
    tensor(&w, "a.conv1d.1.weight", GGML_F16, 3, 128, WIDE, 0);
    named(&w, GGML_F32, 1, WIDE, 0, "a.conv1d.1.bias");
    tensor(&w, "a.conv1d.2.weight", GGML_F16, 3, WIDE, WIDE, 0);
    named(&w, GGML_F32, 1, WIDE, 0, "a.conv1d.2.bias");
    named(&w, GGML_F32, WIDE, 1500, 0, "a.position_embd.weight");
    named(&w, GGML_F32, WIDE, 0, 0, "a.post_ln.weight");
    named(&w, GGML_F32, WIDE, 0, 0, "a.post_ln.bias");
    named(&w, GGML_F16, WIDE, 256, 0, "mm.a.fc.weight");
    named(&w, GGML_F32, 256, 0, 0, "mm.a.fc.bias");
    blocks(&w, 'a', 4 * WIDE, NO_K_BIAS);
    return saved(&w);
}

static void assert_mib(uint64_t bytes, double logged)
{
    double mib = (double)bytes / (double)MIB;
    if (fabs(mib - logged) > 0.0101)
        fail_msg("%.3f MiB where %.2f were logged", mib, logged);
}

/* model: "model size"; warm: what is reserved at the start, in RAM. */
static void check_projector(struct model *m, double model, double warm, uint64_t least_growth)
{
    struct projector_facts f;
    struct projector_bytes b;
    struct graph g = {0};
    struct err err;
    assert_int_equal(projector_read(&f, m, &err), RC_OK);
    assert_true(f.checked);
    assert_int_equal(projector_measure(&f, true, PLAN_CUDA, &g, &b, &err), RC_OK);
    assert_mib(b.model, model);
    assert_mib(b.warm, warm);
    assert_int_equal(b.host, 0);
    assert_true(b.compute >= b.warm + least_growth);
    assert_int_equal(projector_measure(&f, false, PLAN_CUDA, &g, &b, &err), RC_OK);
    assert_true(b.host > 0 && b.compute > 0); /* the picture itself comes from the host */
    graph_release(&g);
    model_unref(m);
}

static void test_projectors_as_logged(void **state)
{
    (void)state;
    check_projector(gemma3(), 10.59, 28.00, 0);
    check_projector(idefics3(), 9.43, 7.00, 0);
    check_projector(qwen3vl(false), 11.56, 57.99, 32 * MIB); /* pictures may be twice as large */
    check_projector(qwen3vl(true), 17.59, 74.39, 32 * MIB);
    check_projector(qwen25vl(), 9.63, 230.16, 128 * MIB);
    check_projector(qwen2a(), 8.20, 10.25, 0);
}

static void refused(struct gguf_write *w, const char *word)
{
    struct model *m = saved(w);
    struct projector_facts f;
    struct err err = {0};
    assert_int_equal(projector_read(&f, m, &err), RC_INVALID);
    if (!strstr(err.message, word))
        fail_msg("\"%s\" does not say %s", err.message, word);
    model_unref(m);
}

static void test_bad_projectors(void **state)
{
    (void)state;
    struct gguf_write w = {0};
    gguf_write_str(&w, "general.architecture", "clip");
    refused(&w, "neither an encoder");
    keys(&w, "gemma3", "vision", 4 * WIDE);
    refused(&w, "clip.vision.patch_size is missing");
    keys(&w, "gemma3", "vision", 4 * WIDE);
    gguf_write_u32(&w, "clip.vision.patch_size", 0);
    refused(&w, "patch_size is 0");
    keys(&w, "gemma3", "vision", 4 * WIDE);
    gguf_write_u32(&w, "clip.vision.patch_size", 64);
    gguf_write_u32(&w, "clip.vision.image_size", 32);
    refused(&w, "no patch");
    keys(&w, "qwen2a", "audio", 4 * WIDE);
    refused(&w, "num_mel_bins is missing");
    struct model *llama = shape_model(&shape_llama_1b);
    struct projector_facts f;
    struct err err;
    assert_int_equal(projector_read(&f, llama, &err), RC_INVALID);
    assert_non_null(strstr(err.message, "is no projector"));
    model_unref(llama);
}

/* ---- the models of the logs: F32, 384 tokens ---- */

static struct model *tiny(uint32_t layers, uint64_t embd, uint64_t kv, uint64_t ff, uint32_t heads,
                          uint32_t heads_kv)
{
    struct gguf_write w = {0};
    gguf_write_str(&w, "general.architecture", "llama");
    gguf_write_str(&w, "general.type", "model");
    gguf_write_u32(&w, "llama.block_count", layers);
    gguf_write_u32(&w, "llama.context_length", 8192);
    gguf_write_u32(&w, "llama.embedding_length", (uint32_t)embd);
    gguf_write_u32(&w, "llama.feed_forward_length", (uint32_t)ff);
    gguf_write_u32(&w, "llama.attention.head_count", heads);
    gguf_write_u32(&w, "llama.attention.head_count_kv", heads_kv);
    gguf_write_f32(&w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gguf_write_u32(&w, "llama.vocab_size", 384);
    named(&w, GGML_F32, embd, 384, 0, "token_embd.weight");
    named(&w, GGML_F32, embd, 0, 0, "output_norm.weight");
    named(&w, GGML_F32, embd, 384, 0, "output.weight");
    for (int i = 0; i < (int)layers; i++) {
        named(&w, GGML_F32, embd, 0, i, "blk.%d.attn_norm.weight", i);
        named(&w, GGML_F32, embd, 0, i, "blk.%d.ffn_norm.weight", i);
        named(&w, GGML_F32, embd, embd, i, "blk.%d.attn_q.weight", i);
        named(&w, GGML_F32, embd, kv, i, "blk.%d.attn_k.weight", i);
        named(&w, GGML_F32, embd, kv, i, "blk.%d.attn_v.weight", i);
        named(&w, GGML_F32, embd, embd, i, "blk.%d.attn_output.weight", i);
        named(&w, GGML_F32, embd, ff, i, "blk.%d.ffn_gate.weight", i);
        named(&w, GGML_F32, embd, ff, i, "blk.%d.ffn_up.weight", i);
        named(&w, GGML_F32, ff, embd, i, "blk.%d.ffn_down.weight", i);
    }
    return saved(&w);
}

static struct model *main_model(void)
{
    return tiny(6, 256, 128, 512, 8, 4);
}

static struct model *draft_model(void)
{
    return tiny(3, 128, 64, 256, 4, 2);
}

static void adapter_keys(struct gguf_write *w, const char *arch, const char *kind)
{
    gguf_write_str(w, "general.architecture", arch);
    gguf_write_str(w, "general.type", "adapter");
    gguf_write_str(w, "adapter.type", kind);
    gguf_write_f32(w, "adapter.lora.alpha", 16);
}

static struct model *adapter(void)
{
    struct gguf_write w = {0};
    adapter_keys(&w, "llama", "lora");
    const struct {
        const char *name;
        uint64_t in, out;
    } of[] = {{"attn_q", 256, 256}, {"attn_v", 256, 128}, {"ffn_down", 512, 256}};
    for (int i = 0; i < 6; i++)
        for (size_t k = 0; k < TABLE_COUNT(of); k++) {
            named(&w, GGML_F32, of[k].in, 8, i, "blk.%d.%s.weight.lora_a", i, of[k].name);
            named(&w, GGML_F32, 8, of[k].out, i, "blk.%d.%s.weight.lora_b", i, of[k].name);
        }
    return saved(&w);
}

static struct plan_params server_params(uint32_t slots, bool unified)
{
    struct plan_params p;
    plan_params_default(&p);
    p.ctx = 4096;
    p.parallel = slots;
    p.kv_unified = unified;
    p.repack = false;
    return p;
}

static void test_adapters_follow_their_layers(void **state)
{
    (void)state;
    struct model *m = main_model(), *a = adapter();
    struct plan_params p = server_params(4, false);
    struct plan_extras x;
    struct plan_estimate e;
    struct err err;
    struct plan_device d[2] = {device("RPC0", 24105), device("RPC1", 24105)};
    plan_extras_default(&x);
    x.adapters[x.n_adapters++] = a;
    p.extras = &x;
    assert_int_equal(plan_estimate(m, &p, NULL, 0, &e, &err), RC_OK);
    assert_mib(e.parts[0].adapter_bytes, 0.30);
    assert_mib(e.parts[0].model_bytes, 14.26 + 0.30);
    assert_mib(e.parts[0].compute_bytes, 6.52);
    p = server_params(2, false);
    p.extras = &x;
    p.n_tensor_split = 2;
    p.tensor_split[0] = 3;
    p.tensor_split[1] = 4;
    assert_int_equal(plan_estimate(m, &p, d, 2, &e, &err), RC_OK);
    assert_mib(e.parts[0].adapter_bytes, 0.15);
    assert_mib(e.parts[1].adapter_bytes, 0.15);
    assert_mib(e.parts[0].model_bytes, 6.76 + 0.15);
    assert_mib(e.parts[1].model_bytes, 7.13 + 0.15);
    assert_true(e.parts[0].compute_bytes >= (uint64_t)(18.54 * (double)MIB));
    assert_true(e.parts[1].compute_bytes >= (uint64_t)(14.03 * (double)MIB));
    model_unref(a);
    model_unref(m);
}

static void bad_adapter(struct model *m, struct gguf_write *w, enum rc want, const char *word)
{
    struct model *a = saved(w);
    struct plan_params p = server_params(1, true);
    struct plan_extras x;
    struct plan_estimate e;
    struct err err = {0};
    plan_extras_default(&x);
    x.adapters[x.n_adapters++] = a;
    p.extras = &x;
    assert_int_equal(plan_estimate(m, &p, NULL, 0, &e, &err), want);
    if (!strstr(err.message, word))
        fail_msg("\"%s\" does not say %s", err.message, word);
    model_unref(a);
}

static void test_bad_adapters(void **state)
{
    (void)state;
    struct model *m = main_model();
    struct gguf_write w = {0};
    adapter_keys(&w, "llama", "lora");
    bad_adapter(m, &w, RC_INVALID, "changes no tensor");
    adapter_keys(&w, "llama", "other");
    bad_adapter(m, &w, RC_UNSUPPORTED, "only lora is known");
    adapter_keys(&w, "qwen2", "lora");
    bad_adapter(m, &w, RC_INVALID, "is for the architecture 'qwen2'");
    adapter_keys(&w, "llama", "lora");
    named(&w, GGML_F32, 256, 8, 0, "blk.%d.attn_q.weight.lora_a", 0);
    bad_adapter(m, &w, RC_INVALID, "only one of its two matrices");
    adapter_keys(&w, "llama", "lora");
    named(&w, GGML_F32, 256, 8, 0, "blk.%d.attn_q.weight.lora_a", 9);
    bad_adapter(m, &w, RC_INVALID, "has no tensor blk.9.attn_q.weight");
    adapter_keys(&w, "llama", "lora");
    named(&w, GGML_F32, 512, 8, 0, "blk.0.attn_q.weight.lora_a");
    named(&w, GGML_F32, 8, 256, 0, "blk.0.attn_q.weight.lora_b");
    bad_adapter(m, &w, RC_INVALID, "do not fit");
    adapter_keys(&w, "llama", "lora");
    named(&w, GGML_F32, 256, 8, 0, "blk.0.attn_q.weight");
    bad_adapter(m, &w, RC_INVALID, "is no part of an adapter");
    model_unref(m);
}

static void test_a_draft_beside_the_model(void **state)
{
    (void)state;
    struct model *m = main_model(), *draft = draft_model();
    struct plan_params p = server_params(2, true);
    struct plan_extras x;
    struct plan_estimate e, alone;
    struct err err;
    struct plan_device d[2] = {device("RPC0", 24105), device("RPC1", 24105)};
    plan_extras_default(&x);
    x.draft = draft;
    x.draft_gpu_layers = 2;
    x.draft_type_k = GGML_Q8_0;
    p.gpu_layers = 3;
    p.n_tensor_split = 2;
    p.tensor_split[0] = p.tensor_split[1] = 1;
    assert_int_equal(plan_estimate(m, &p, d, 2, &alone, &err), RC_OK);
    p.extras = &x;
    assert_int_equal(plan_estimate(m, &p, d, 2, &e, &err), RC_OK);
    assert_mib(e.parts[0].model_bytes, 4.50 + 0.56);
    assert_mib(e.parts[1].model_bytes, 0.38 + 0.19);
    assert_mib(e.parts[0].context_bytes, 4.00 + 0.77);
    assert_mib(e.parts[2].context_bytes, 8.00 + 1.53);
    assert_mib(e.parts[0].compute_bytes, 8.01 + 5.01);
    assert_mib(e.parts[2].compute_bytes, 9.52 + 6.77);
    assert_true(e.parts[0].draft_bytes > 0 && e.parts[1].draft_bytes > 0);
    assert_int_equal(alone.parts[0].draft_bytes, 0);
    /* each slot keeps the rows of every guess: 2 slots of 1 + 3, and 2 of the draft's own */
    assert_int_equal(e.parts[2].output_bytes, (2 * 4 + 2) * 384 * 4);
    assert_int_equal(alone.parts[2].output_bytes, 2 * 384 * 4);
    model_unref(draft);
    model_unref(m);
}

/* The draft on the second device alone: all that it takes is there, or in RAM. */
static void test_a_draft_on_its_own_device(void **state)
{
    (void)state;
    struct model *m = main_model(), *draft = draft_model();
    struct plan_params p = server_params(2, true), q;
    struct plan_extras x;
    struct plan_estimate e, alone, own;
    struct err err;
    struct plan_device d[2] = {device("RPC0", 24105), device("RPC1", 24105)};
    plan_extras_default(&x);
    x.draft = draft;
    x.draft_device = "RPC1";
    p.gpu_layers = 3;
    p.n_tensor_split = 2;
    p.tensor_split[0] = p.tensor_split[1] = 1;
    q = p;
    q.gpu_layers = PLAN_ALL_LAYERS;
    q.n_tensor_split = 0;
    assert_int_equal(plan_estimate(m, &p, d, 2, &alone, &err), RC_OK);
    assert_int_equal(plan_estimate(draft, &q, &d[1], 1, &own, &err), RC_OK);
    p.extras = &x;
    assert_int_equal(plan_estimate(m, &p, d, 2, &e, &err), RC_OK);
    assert_int_equal(e.parts[0].draft_bytes, 0);
    assert_int_equal(plan_part_total(&e.parts[0]), plan_part_total(&alone.parts[0]));
    /* its own, and what more rows of logits take in the model's graph */
    assert_true(plan_part_total(&e.parts[1]) - plan_part_total(&alone.parts[1]) >= e.parts[1].draft_bytes);
    assert_int_equal(e.parts[1].draft_bytes, plan_part_total(&own.parts[0]));
    assert_true(e.parts[2].draft_bytes > 0);
    x.draft_device = "CUDA7";
    assert_int_equal(plan_estimate(m, &p, d, 2, &e, &err), RC_INVALID);
    assert_string_equal(err.message,
                        "the draft model: its device 'CUDA7' is none of those that the model uses");
    p.n_tensor_split = 0;
    assert_int_equal(plan_estimate(m, &p, NULL, 0, &e, &err), RC_OK); /* all of it in RAM */
    struct plan_machine mach = {.devices = {d[0], d[1]}, .n_devices = 2};
    struct plan_policy pol;
    struct plan *plan = mem_calloc(1, sizeof *plan);
    mach.host.total_bytes = mach.host.free_bytes = 8000 * MIB;
    plan_policy_default(&pol);
    pol.base = &p;
    assert_int_equal(plan_place(m, &pol, &mach, plan, &err), RC_NOT_FOUND);
    assert_non_null(strstr(err.message, "is to use device 'CUDA7', which is not here"));
    x.draft_device = "RPC1"; /* one device would do, and it must be this one */
    assert_int_equal(plan_place(m, &pol, &mach, plan, &err), RC_OK);
    assert_int_equal(plan->n_used, 1);
    assert_int_equal(plan->used[0], 1);
    bool told = false;
    for (uint32_t i = 0; i < plan->n_reasons; i++)
        told |= !strcmp(plan->reasons[i].code, "draft") && strstr(plan->reasons[i].text, "up to 3 tokens");
    assert_true(told);
    free(plan);
    model_unref(draft);
    model_unref(m);
}

static void test_adapter_paths(void **state)
{
    (void)state;
    float scale;
    assert_int_equal(plan_adapter_path("/m/a.gguf", &scale), 9);
    assert_true(scale == 1.0f);
    assert_int_equal(plan_adapter_path("/m/a.gguf:0.5", &scale), 9);
    assert_true(scale == 0.5f);
    assert_int_equal(plan_adapter_path("/m/a:b.gguf", &scale), 11); /* no number: a part of the name */
    assert_true(scale == 1.0f);
    assert_int_equal(plan_adapter_path(":1", &scale), 2);
    assert_int_equal(plan_adapter_path("a:-2", &scale), 1);
    assert_true(scale == -2.0f);
}

static void test_extras_in_an_estimate(void **state)
{
    (void)state;
    struct model *m = main_model(), *mm = gemma3();
    struct plan_params p = server_params(4, true);
    struct plan_extras x;
    struct plan_estimate without, with;
    struct err err;
    struct plan_device d[2] = {device("CUDA0", 24000), device("CUDA1", 24000)};
    assert_int_equal(plan_estimate(m, &p, d, 2, &without, &err), RC_OK);
    plan_extras_default(&x);
    x.projector = mm;
    p.extras = &x;
    assert_int_equal(plan_estimate(m, &p, d, 2, &with, &err), RC_OK);
    /* whole on the first device; its parts are in the sums and apart */
    assert_true(with.parts[0].has_projector && !with.parts[1].has_projector && !with.parts[2].has_projector);
    assert_int_equal(plan_part_total(&with.parts[0]) - plan_part_total(&without.parts[0]),
                     with.parts[0].projector_bytes);
    assert_int_equal(plan_part_total(&with.parts[1]), plan_part_total(&without.parts[1]));
    assert_true(with.parts[2].projector_bytes > 0);
    x.projector_on_host = true;
    assert_int_equal(plan_estimate(m, &p, d, 2, &with, &err), RC_OK);
    assert_true(with.parts[2].has_projector && !with.parts[0].projector_bytes);
    x.projector = m;
    assert_int_equal(plan_estimate(m, &p, d, 2, &with, &err), RC_INVALID);
    assert_non_null(strstr(err.message, "is no projector"));
    model_unref(mm);
    model_unref(m);
}

static void test_the_host_has_bounds(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_gemma2_9b);
    struct plan_params p = server_params(4, true);
    struct plan_estimate e;
    struct err err;
    assert_int_equal(plan_estimate(m, &p, NULL, 0, &e, &err), RC_OK);
    struct plan_part *h = &e.parts[0];
    /* 21 sliding layers of 8 heads of 256, keys and values in f16 */
    assert_int_equal(h->checkpoint_bytes, 21ull * 4096 * 8 * 256 * 2 * 2);
    assert_int_equal(h->output_bytes, 4ull * 256000 * 4);
    assert_int_equal(h->overhead_bytes, h->output_bytes);
    plan_host_bounds(&e, 0);
    assert_int_equal(h->checkpoints, 0);
    assert_int_equal(h->prompt_cache_bytes, 0);
    assert_int_equal(plan_host_later_bytes(&e), 0);
    uint64_t least = 64 * 8 * MIB;
    plan_host_bounds(&e, least);
    assert_int_equal(h->prompt_cache_bytes, 64 * MIB);
    plan_host_bounds(&e, least - 1);
    assert_int_equal(h->prompt_cache_bytes, 0);
    plan_host_bounds(&e, UINT64_MAX / 4);
    assert_int_equal(h->checkpoints, 8);
    assert_int_equal(h->prompt_cache_bytes, 8192 * MIB);
    for (uint64_t left = 0; left < 1ull << 40; left = left * 2 + 1) {
        plan_host_bounds(&e, left);
        assert_true(plan_host_later_bytes(&e) <= left / 4);
    }
    e.params.embedding = true;
    plan_host_bounds(&e, UINT64_MAX / 4);
    assert_int_equal(h->prompt_cache_bytes, 0);
    model_unref(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_projectors_as_logged),         cmocka_unit_test(test_bad_projectors),
        cmocka_unit_test(test_adapters_follow_their_layers), cmocka_unit_test(test_bad_adapters),
        cmocka_unit_test(test_a_draft_on_its_own_device),    cmocka_unit_test(test_adapter_paths),
        cmocka_unit_test(test_a_draft_beside_the_model),     cmocka_unit_test(test_extras_in_an_estimate),
        cmocka_unit_test(test_the_host_has_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
