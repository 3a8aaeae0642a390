/* Families beside the plain transformer: recurrent layers, hybrids, encoders. Small models of each; figures
 * that follow from the rules by hand (docs of facts_recurrent.c and kv.c), equality of the shortened graph
 * with the whole one, and files that lack what their family needs. Exact sizes of public models:
 * tests/oracle.
 */
#include "plan_test.h"

#include "gguf_write.h"
#include "plan/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EMBD   256
#define LAYERS 24
#define VOCAB  512
#define FF     768

struct small {
    const char *arch;
    void (*layer)(struct gguf_write *w, int il);
    void (*keys)(struct gguf_write *w, const struct small *s);
    const char *without; /* a tensor of layer 1 that is left out */
    uint32_t groups, pooling;
    bool classifier;
};

static void key(struct gguf_write *w, const struct small *s, const char *name, uint32_t v)
{
    char full[96];
    snprintf(full, sizeof full, "%s.%s", s->arch, name);
    gguf_write_u32(w, full, v);
}

static const char *left_out; /* of the model being written; a test runs in one thread */

static void put(struct gguf_write *w, int il, const char *name, uint64_t a, uint64_t b, uint64_t c)
{
    char full[96];
    uint64_t ne[4] = {a, b, c, 0};
    if (il == 1 && left_out && !strcmp(left_out, name))
        return;
    if (il < 0)
        snprintf(full, sizeof full, "%s", name);
    else
        snprintf(full, sizeof full, "blk.%d.%s", il, name);
    gguf_write_tensor(w, full, b && strcmp(name, "ssm_conv1d.weight") ? GGML_F16 : GGML_F32, ne);
}

static void attention(struct gguf_write *w, int il)
{
    put(w, il, "attn_q.weight", EMBD, EMBD, 0);
    put(w, il, "attn_k.weight", EMBD, 128, 0);
    put(w, il, "attn_v.weight", EMBD, 128, 0);
    put(w, il, "attn_output.weight", EMBD, EMBD, 0);
}

static void ffn(struct gguf_write *w, int il)
{
    put(w, il, "ffn_norm.weight", EMBD, 0, 0);
    put(w, il, "ffn_gate.weight", EMBD, FF, 0);
    put(w, il, "ffn_up.weight", EMBD, FF, 0);
    put(w, il, "ffn_down.weight", FF, EMBD, 0);
}

/* one layer in four attends */
static void lfm2_layer(struct gguf_write *w, int il)
{
    put(w, il, "attn_norm.weight", EMBD, 0, 0);
    if (il % 4 == 3) {
        attention(w, il);
    } else {
        put(w, il, "shortconv.conv.weight", 3, EMBD, 0);
        put(w, il, "shortconv.in_proj.weight", EMBD, 3 * EMBD, 0);
        put(w, il, "shortconv.out_proj.weight", EMBD, EMBD, 0);
    }
    ffn(w, il);
}

static void lfm2_keys(struct gguf_write *w, const struct small *s)
{
    key(w, s, "shortconv.l_cache", 3);
    put(w, -1, "token_embd_norm.weight", EMBD, 0, 0);
}

/* both in every layer: 8 heads of 64, states of 128, `groups` groups */
static void falcon_layer(struct gguf_write *w, int il)
{
    put(w, il, "attn_norm.weight", EMBD, 0, 0);
    attention(w, il);
    put(w, il, "ssm_in.weight", EMBD, 2 * 512 + 2 * 128 + 8, 0);
    put(w, il, "ssm_conv1d.weight", 4, 512 + 2 * 128, 0);
    put(w, il, "ssm_conv1d.bias", 512 + 2 * 128, 0, 0);
    put(w, il, "ssm_dt.bias", 8, 0, 0);
    put(w, il, "ssm_a", 1, 8, 0);
    put(w, il, "ssm_d", 1, 8, 0);
    put(w, il, "ssm_out.weight", 512, EMBD, 0);
    ffn(w, il);
}

static void falcon_keys(struct gguf_write *w, const struct small *s)
{
    key(w, s, "ssm.conv_kernel", 4);
    key(w, s, "ssm.inner_size", 512);
    key(w, s, "ssm.state_size", 128);
    key(w, s, "ssm.time_step_rank", 8);
    key(w, s, "ssm.group_count", s->groups);
    put(w, -1, "output_norm.weight", EMBD, 0, 0);
}

static void bert_layer(struct gguf_write *w, int il)
{
    attention(w, il);
    put(w, il, "attn_output_norm.weight", EMBD, 0, 0);
    put(w, il, "attn_output_norm.bias", EMBD, 0, 0);
    put(w, il, "ffn_up.weight", EMBD, FF, 0);
    put(w, il, "ffn_down.weight", FF, EMBD, 0);
    put(w, il, "layer_output_norm.weight", EMBD, 0, 0);
    put(w, il, "layer_output_norm.bias", EMBD, 0, 0);
}

static void bert_keys(struct gguf_write *w, const struct small *s)
{
    key(w, s, "pooling_type", s->pooling);
    put(w, -1, "token_types.weight", EMBD, 2, 0);
    put(w, -1, "token_embd_norm.weight", EMBD, 0, 0);
    put(w, -1, "token_embd_norm.bias", EMBD, 0, 0);
    if (s->classifier)
        put(w, -1, "cls.output.weight", EMBD, 4, 0);
}

/* A decoder and its encoder; the first layer's biases of distance serve all. */
static void t5_layer(struct gguf_write *w, int il)
{
    static const char *const square[] = {"attn_q",       "attn_k",       "attn_v",       "attn_o",
                                         "cross_attn_q", "cross_attn_k", "cross_attn_v", "cross_attn_o"};
    char name[64];
    for (int half = 0; half < 2; half++) {
        for (size_t i = 0; i < (half ? 4 : TABLE_COUNT(square)); i++) {
            snprintf(name, sizeof name, "%s.blk.%d.%s.weight", half ? "enc" : "dec", il, square[i]);
            if (il != 1 || !left_out || strcmp(left_out, square[i]) != 0)
                put(w, -1, name, EMBD, strstr(name, "_k.") || strstr(name, "_v.") ? 128 : EMBD, 0);
        }
        const char *const norms[] = {"attn_norm", "ffn_norm", half ? NULL : "cross_attn_norm"};
        for (size_t i = 0; i < TABLE_COUNT(norms) && norms[i]; i++) {
            snprintf(name, sizeof name, "%s.blk.%d.%s.weight", half ? "enc" : "dec", il, norms[i]);
            put(w, -1, name, EMBD, 0, 0);
        }
        snprintf(name, sizeof name, "%s.blk.%d.ffn_up.weight", half ? "enc" : "dec", il);
        put(w, -1, name, EMBD, FF, 0);
        snprintf(name, sizeof name, "%s.blk.%d.ffn_down.weight", half ? "enc" : "dec", il);
        put(w, -1, name, FF, EMBD, 0);
        snprintf(name, sizeof name, "%s.blk.0.attn_rel_b.weight", half ? "enc" : "dec");
        if (il == 0)
            put(w, -1, name, 4, 32, 0);
    }
}

static void t5_keys(struct gguf_write *w, const struct small *s)
{
    key(w, s, "attention.relative_buckets_count", 32);
    put(w, -1, "dec.output_norm.weight", EMBD, 0, 0);
    put(w, -1, "enc.output_norm.weight", EMBD, 0, 0);
}

/* Latent rows of 64 + 32, and an indexer of 2 heads of 32 in every second layer. */
static void sparse_layer(struct gguf_write *w, int il)
{
    put(w, il, "attn_norm.weight", EMBD, 0, 0);
    put(w, il, "attn_q_a.weight", EMBD, 128, 0);
    put(w, il, "attn_q_a_norm.weight", 128, 0, 0);
    put(w, il, "attn_q_b.weight", 128, 4 * 96, 0);
    put(w, il, "attn_kv_a_mqa.weight", EMBD, 64 + 32, 0);
    put(w, il, "attn_kv_a_norm.weight", 64, 0, 0);
    put(w, il, "attn_k_b.weight", 64, 64, 4);
    put(w, il, "attn_v_b.weight", 64, 64, 4);
    put(w, il, "attn_output.weight", 4 * 64, EMBD, 0);
    if (il % 2 == 0) {
        put(w, il, "indexer.attn_k.weight", EMBD, 32, 0);
        put(w, il, "indexer.attn_q_b.weight", 128, 64, 0);
        put(w, il, "indexer.proj.weight", EMBD, 2, 0);
        put(w, il, "indexer.k_norm.weight", 32, 0, 0);
        put(w, il, "indexer.k_norm.bias", 32, 0, 0);
    }
    ffn(w, il);
}

static void sparse_keys(struct gguf_write *w, const struct small *s)
{
    key(w, s, "attention.kv_lora_rank", 64);
    key(w, s, "attention.key_length", 96);
    key(w, s, "attention.value_length", 64);
    key(w, s, "attention.key_length_mla", 96);
    key(w, s, "attention.value_length_mla", 64);
    key(w, s, "rope.dimension_count", 32);
    key(w, s, "attention.indexer.head_count", s->groups);
    key(w, s, "attention.indexer.key_length", 32);
    key(w, s, "attention.indexer.top_k", 256);
    put(w, -1, "output_norm.weight", EMBD, 0, 0);
}

static void drafting_keys(struct gguf_write *w, const struct small *s)
{
    lfm2_keys(w, s);
    key(w, s, "nextn_predict_layers", 2);
}

/* One layer in four attends to latent rows of 64 + 32; the others keep three tails and a state of 4 heads
 * of 64. */
static void kimi_layer(struct gguf_write *w, int il)
{
    static const char *const wide[] = {"attn_q.weight", "attn_k.weight", "attn_v.weight", "ssm_f_b.weight",
                                       "ssm_g_b.weight"};
    put(w, il, "attn_norm.weight", EMBD, 0, 0);
    put(w, il, "attn_output.weight", 256, EMBD, 0);
    if (il % 4 == 3) {
        put(w, il, "attn_q.weight", EMBD, 4 * 96, 0);
        put(w, il, "attn_kv_a_mqa.weight", EMBD, 64 + 32, 0);
        put(w, il, "attn_kv_a_norm.weight", 64, 0, 0);
        put(w, il, "attn_k_b.weight", 64, 64, 4);
        put(w, il, "attn_v_b.weight", 64, 64, 4);
    } else {
        for (size_t i = 0; i < TABLE_COUNT(wide); i++)
            put(w, il, wide[i], i < 3 ? EMBD : 64, 256, 0);
        put(w, il, "ssm_conv1d_q.weight", 4, 1, 256);
        put(w, il, "ssm_conv1d_k.weight", 4, 1, 256);
        put(w, il, "ssm_conv1d_v.weight", 4, 1, 256);
        put(w, il, "ssm_f_a.weight", EMBD, 64, 0);
        put(w, il, "ssm_g_a.weight", EMBD, 64, 0);
        put(w, il, "ssm_beta.weight", EMBD, 4, 0);
        put(w, il, "ssm_a", 1, 4, 0);
        put(w, il, "ssm_dt.bias", 256, 0, 0);
        put(w, il, "ssm_norm.weight", 64, 0, 0);
    }
    ffn(w, il);
}

static void kimi_keys(struct gguf_write *w, const struct small *s)
{
    key(w, s, "attention.kv_lora_rank", 64);
    key(w, s, "attention.key_length", 96);
    key(w, s, "attention.value_length", 64);
    key(w, s, "attention.key_length_mla", 96);
    key(w, s, "attention.value_length_mla", 64);
    key(w, s, "rope.dimension_count", 32);
    key(w, s, "ssm.conv_kernel", 4);
    if (s->groups)
        key(w, s, "kda.head_dim", s->groups);
    put(w, -1, "output_norm.weight", EMBD, 0, 0);
}

/* Norms without weights; the embeddings are added again behind each layer. */
static void talkie_layer(struct gguf_write *w, int il)
{
    attention(w, il);
    put(w, il, "attn_q_norm.weight", 1, 4, 0);
    put(w, il, "ffn_gate.weight", EMBD, FF, 0);
    put(w, il, "ffn_up.weight", EMBD, FF, 0);
    put(w, il, "ffn_down.weight", FF, EMBD, 0);
    put(w, il, "layer_output_scale.weight", 1, 0, 0);
}

static void talkie_keys(struct gguf_write *w, const struct small *s)
{
    key(w, s, "rope.dimension_count", 64);
    put(w, -1, "output.weight", EMBD, VOCAB, 0);
}

static const struct small talkie = {"talkie", talkie_layer, talkie_keys, NULL, 0, 0, false};
static const struct small kimi = {"kimi-linear", kimi_layer, kimi_keys, NULL, 64, 0, false};
static const struct small t5 = {"t5", t5_layer, t5_keys, NULL, 0, 0, false};
static const struct small sparse = {"glm-dsa", sparse_layer, sparse_keys, NULL, 2, 0, false};
static const struct small lfm2 = {"lfm2", lfm2_layer, lfm2_keys, NULL, 0, 0, false};
static const struct small drafting = {"lfm2", lfm2_layer, drafting_keys, NULL, 0, 0, false};
static const struct small falcon = {"falcon-h1", falcon_layer, falcon_keys, NULL, 1, 0, false};
static const struct small bert = {"bert", bert_layer, bert_keys, NULL, 0, 1, false};

static struct model *make(const struct small *s)
{
    struct gguf_write w = {0};
    struct model *m = NULL;
    struct err err;
    char path[512];
    const char *tmp = getenv("TMPDIR");
    left_out = s->without;
    gguf_write_str(&w, "general.architecture", s->arch);
    key(&w, s, "block_count", LAYERS);
    key(&w, s, "context_length", 32768);
    key(&w, s, "embedding_length", EMBD);
    key(&w, s, "vocab_size", VOCAB);
    key(&w, s, "attention.head_count", 4);
    key(&w, s, "attention.head_count_kv", 2);
    s->keys(&w, s);
    put(&w, -1, "token_embd.weight", EMBD, VOCAB, 0);
    for (int il = 0; il < LAYERS; il++)
        s->layer(&w, il);
    snprintf(path, sizeof path, "%s/families-%ld.gguf", tmp ? tmp : "/tmp", (long)getpid());
    assert_int_equal(gguf_write_save(&w, path, &err), RC_OK);
    if (model_open(path, &m, &err))
        fail_msg("%s", err.message);
    unlink(path);
    gguf_write_release(&w);
    return m;
}

static struct plan_estimate estimated(const struct small *s, const struct plan_params *p)
{
    struct model *m = make(s);
    struct plan_estimate e;
    struct err err;
    if (plan_estimate(m, p, NULL, 0, &e, &err))
        fail_msg("%s", err.message);
    model_unref(m);
    return e;
}

static void refused(const struct small *s, const struct plan_params *p, enum rc want, const char *word)
{
    struct model *m = make(s);
    struct plan_estimate e;
    struct err err;
    assert_int_equal(plan_estimate(m, p, NULL, 0, &e, &err), want);
    if (!strstr(err.message, word))
        fail_msg("'%s' is not named: %s", word, err.message);
    model_unref(m);
}

/* 6 of 24 layers keep 2 x 128 halves a cell; 18 keep 2 x 256 floats a slot. */
static void test_hybrid_context(void **state)
{
    (void)state;
    struct plan_params p = tool_params(4096);
    const uint64_t cells = 6ull * 2 * 128 * 2 * 4096, states = 18ull * 2 * EMBD * 4;
    assert_int_equal(estimated(&lfm2, &p).parts[0].context_bytes, cells + states);
    p.ctx = 8192;
    assert_int_equal(estimated(&lfm2, &p).parts[0].context_bytes, 2 * cells + states);
    p.parallel = 4;
    p.kv_unified = true;
    assert_int_equal(estimated(&lfm2, &p).parts[0].context_bytes, 2 * cells + 4 * states);
}

/* Every layer keeps both: a tail of 3 inputs of 512 + 2 x 128 channels, and 128 x 512 of state. */
static void test_both_in_a_layer(void **state)
{
    (void)state;
    struct plan_params p = tool_params(2048);
    const uint64_t cells = 24ull * 2 * 128 * 2 * 2048, states = 24ull * (3 * 768 + 128 * 512) * 4;
    assert_int_equal(estimated(&falcon, &p).parts[0].context_bytes, cells + states);
}

/* Leaving equal layers out changes nothing, on the host, on a device, and on two. */
static void test_shortened(void **state)
{
    (void)state;
    const struct small *all[] = {&lfm2, &falcon, &bert, &t5, &sparse, &kimi, &talkie};
    struct plan_device d[2] = {device("RPC0", 8000), device("Vulkan0", 4000)};
    for (size_t i = 0; i < TABLE_COUNT(all); i++) {
        struct model *m = make(all[i]);
        struct estimator e;
        struct err err;
        assert_int_equal(estimator_init(&e, m, &err), RC_OK);
        for (size_t n = 0; n <= 2; n++) {
            struct plan_params p = tool_params(2048);
            struct plan_estimate whole, part;
            assert_int_equal(estimator_run(&e, &p, d, n, true, &whole, &err), RC_OK);
            assert_int_equal(estimator_run(&e, &p, d, n, false, &part, &err), RC_OK);
            for (size_t k = 0; k <= n; k++)
                assert_int_equal(whole.parts[k].compute_bytes, part.parts[k].compute_bytes);
        }
        estimator_release(&e);
        model_unref(m);
    }
}

static void test_encoder(void **state)
{
    (void)state;
    struct plan_params p = tool_params(512);
    struct plan_estimate e = estimated(&bert, &p);
    assert_int_equal(e.parts[0].context_bytes, 0);
    p.embedding = true;
    struct small other = bert;
    uint64_t mean = estimated(&bert, &p).parts[0].compute_bytes;
    other.pooling = 2;
    assert_true(estimated(&other, &p).parts[0].compute_bytes <= mean);
    other.pooling = 4; /* ranks, but nothing says how */
    refused(&other, &p, RC_UNSUPPORTED, "pooled");
    other.classifier = true;
    assert_true(estimated(&other, &p).parts[0].model_bytes > e.parts[0].model_bytes);
}

/* Slots with caches of their own have no graph; flash attention or not, scores are made in full. */
static void test_encoder_decoder(void **state)
{
    (void)state;
    struct plan_params p = tool_params(512);
    const uint64_t cells = 24ull * 512 * 2 * 128 * 2;
    assert_int_equal(estimated(&t5, &p).parts[0].context_bytes, cells);
    p.parallel = 2;
    p.kv_unified = false;
    refused(&t5, &p, RC_INVALID, "T5");
    p.kv_unified = true;
    assert_int_equal(estimated(&t5, &p).parts[0].context_bytes, cells);
}

/* Two heads of 96 halves a cell, and one of 32 where keys are chosen. */
static void test_sparse(void **state)
{
    (void)state;
    struct plan_params p = tool_params(1024);
    assert_int_equal(estimated(&sparse, &p).parts[0].context_bytes, (24ull * 2 * 96 + 12 * 32) * 2 * 1024);
    struct small s = sparse;
    s.groups = 0;
    refused(&s, &p, RC_INVALID, "indexer.head_count");
}

/* Layers that only draft are not loaded: where all others are on a device, the host reads nothing. */
static void test_drafting_speed(void **state)
{
    (void)state;
    struct model *m = make(&drafting);
    struct plan_params p = tool_params(1024);
    struct plan_machine machine = {.n_devices = 1, .devices = {device("CUDA0", 8000)}};
    struct plan_estimate e;
    struct plan_speed slow, fast;
    assert_int_equal(plan_estimate(m, &p, machine.devices, 1, &e, NULL), RC_OK);
    machine.host.cores = 4;
    machine.host.bandwidth_gbps = 1;
    plan_speed(m, &e, &machine, &slow);
    machine.host.bandwidth_gbps = 100;
    plan_speed(m, &e, &machine, &fast);
    assert_true(slow.decode_tps > 0);
    assert_true(fast.decode_tps - slow.decode_tps <= 1e-9 * fast.decode_tps);
    model_unref(m);
}

/* Two heads of 96 halves a cell in 6 layers; 18 keep three tails of 3 inputs and 64 x 64 floats a head. The
 * runtime cannot part a batch unevenly among slots with caches of their own. */
static void test_kimi(void **state)
{
    (void)state;
    struct plan_params p = tool_params(1536);
    const uint64_t cells = 6ull * 2 * 96 * 2 * 1536, states = 18ull * (3 * 3 * 256 + 64 * 256) * 4;
    assert_int_equal(estimated(&kimi, &p).parts[0].context_bytes, cells + states);
    p.parallel = 3;
    p.kv_unified = true;
    assert_int_equal(estimated(&kimi, &p).parts[0].context_bytes, cells + 3 * states);
    p.kv_unified = false;
    refused(&kimi, &p, RC_INVALID, "3 slots");
    p.ubatch = 510;
    assert_int_equal(estimated(&kimi, &p).parts[0].context_bytes, cells + 3 * states);
    struct small s = kimi;
    s.groups = 0;
    refused(&s, &p, RC_INVALID, "kda.head_dim");
}

static void test_missing(void **state)
{
    (void)state;
    static const struct {
        const struct small *s;
        const char *name;
    } rows[] = {{&lfm2, "shortconv.in_proj.weight"},
                {&lfm2, "attn_norm.weight"},
                {&lfm2, "ffn_up.weight"},
                {&falcon, "ssm_out.weight"},
                {&falcon, "attn_k.weight"},
                {&falcon, "ssm_conv1d.weight"},
                {&t5, "cross_attn_k"},
                {&sparse, "attn_k_b.weight"},
                {&talkie, "attn_k.weight"},
                {&talkie, "ffn_down.weight"},
                {&kimi, "attn_v.weight"},
                {&kimi, "ssm_conv1d_k.weight"},
                {&kimi, "ssm_g_b.weight"},
                {&bert, "layer_output_norm.weight"},
                {&bert, "attn_q.weight"},
                {&bert, "ffn_down.weight"}};
    struct plan_params p = tool_params(512);
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        struct small s = *rows[i].s;
        s.without = rows[i].name;
        refused(&s, &p, RC_INVALID, "families-");
    }
}

/* Groups and heads that do not divide each other would be divided by. */
static void test_hostile_groups(void **state)
{
    (void)state;
    struct plan_params p = tool_params(512);
    struct small s = falcon;
    s.groups = 0;
    refused(&s, &p, RC_INVALID, "group_count");
    s.groups = 3;
    refused(&s, &p, RC_INVALID, "groups");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hybrid_context),  cmocka_unit_test(test_both_in_a_layer),
        cmocka_unit_test(test_shortened),       cmocka_unit_test(test_encoder),
        cmocka_unit_test(test_missing),         cmocka_unit_test(test_hostile_groups),
        cmocka_unit_test(test_encoder_decoder), cmocka_unit_test(test_sparse),
        cmocka_unit_test(test_drafting_speed),  cmocka_unit_test(test_kimi),

    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
