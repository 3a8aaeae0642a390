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

static const struct small lfm2 = {"lfm2", lfm2_layer, lfm2_keys, NULL, 0, 0, false};
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
    const struct small *all[] = {&lfm2, &falcon, &bert};
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

static void test_missing(void **state)
{
    (void)state;
    static const struct {
        const struct small *s;
        const char *name;
    } rows[] = {
        {&lfm2, "shortconv.in_proj.weight"}, {&lfm2, "attn_norm.weight"}, {&lfm2, "ffn_up.weight"},
        {&falcon, "ssm_out.weight"},         {&falcon, "attn_k.weight"},  {&falcon, "ssm_conv1d.weight"},
        {&bert, "layer_output_norm.weight"}, {&bert, "attn_q.weight"},    {&bert, "ffn_down.weight"}};
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
        cmocka_unit_test(test_hybrid_context), cmocka_unit_test(test_both_in_a_layer),
        cmocka_unit_test(test_shortened),      cmocka_unit_test(test_encoder),
        cmocka_unit_test(test_missing),        cmocka_unit_test(test_hostile_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
