/* Exact memory: figures that llama-fit-params 0.7.0 gave for the same questions, rules of caches and layouts,
 * and what must be refused. */
#include "plan_test.h"

#include "plan/memory.h"

#include <stdio.h>
#include <string.h>

struct golden {
    const struct shape *shape;
    struct plan_params p;
    const char *devices[4]; /* names; 24000 MiB each */
    uint64_t bytes[4][3];   /* weights, cache, compute of each device, then of the host */
    uint64_t repack;
};

static void check_golden(const struct golden *g)
{
    struct plan_device d[4];
    size_t n = 0;
    while (n < 3 && g->devices[n]) {
        d[n] = device(g->devices[n], 24000);
        n++;
    }
    struct model *m = shape_model(g->shape);
    struct plan_estimate e;
    struct err err;
    assert_int_equal(plan_estimate(m, &g->p, d, n, &e, &err), RC_OK);
    assert_int_equal(e.n_parts, n + 1);
    for (size_t i = 0; i <= n; i++) {
        assert_int_equal(e.parts[i].model_bytes, g->bytes[i][0]);
        assert_int_equal(e.parts[i].context_bytes, g->bytes[i][1]);
        assert_int_equal(e.parts[i].compute_bytes, g->bytes[i][2]);
    }
    assert_int_equal(e.parts[n].repack_bytes, g->repack);
    model_unref(m);
}

static void test_goldens_llama(void **state)
{
    (void)state;
    struct golden g = {&shape_llama_8b, tool_params(32768), {NULL}, {{4912898304, 4294967296, 346574848}}, 0};
    check_golden(&g);
    g = (struct golden){
        &shape_llama_8b, tool_params(16384), {NULL}, {{4912898304, 2147483648, 329797632}}, 3359637504};
    g.p.repack = true;
    check_golden(&g);
    g = (struct golden){&shape_llama_8b,
                        tool_params(131072),
                        {"RPC0"},
                        {{4617396480, 17179869184, 430456832}, {295501824, 0, 167792640}},
                        0};
    check_golden(&g);
    g = (struct golden){&shape_llama_8b,
                        tool_params(32768),
                        {"RPC0"},
                        {{4617396480, 4294967296, 2260742144}, {295501824, 0, 104873984}},
                        0};
    g.p.flash_attn = false;
    check_golden(&g);
    g = (struct golden){&shape_llama_8b,
                        tool_params(131072),
                        {"RPC0"},
                        {{4617396480, 6979321856, 430538752}, {295501824, 0, 167874560}},
                        0};
    g.p.type_k = GGML_Q8_0;
    g.p.type_v = GGML_Q4_0;
    check_golden(&g);
}

static void test_goldens_layout(void **state)
{
    (void)state;
    struct golden g = {&shape_llama_8b,
                       tool_params(32768),
                       {"RPC0"},
                       {{4617396480, 0, 296228864}, {295501824, 4294967296, 67129344}},
                       0};
    g.p.kv_offload = false;
    check_golden(&g);
    g = (struct golden){&shape_llama_8b,
                        tool_params(32768),
                        {"RPC0"},
                        {{2401460480, 2013265920, 271056896}, {2511438080, 2281701376, 163598336}},
                        0};
    g.p.gpu_layers = 16;
    check_golden(&g);
    g = (struct golden){&shape_llama_8b,
                        tool_params(16384),
                        {"RPC0", "RPC1"},
                        {{3246326016, 1677721600, 1157857280},
                         {1371070720, 469762048, 1621295104},
                         {295501824, 0, 604307456}},
                        0};
    g.p.ubatch = 2048;
    g.p.tensor_split[0] = 3;
    g.p.tensor_split[1] = 1;
    g.p.n_tensor_split = 2;
    check_golden(&g);
    g = (struct golden){&shape_llama_8b,
                        tool_params(16384),
                        {"Vulkan0"},
                        {{0, 0, 727166976}, {4912898304, 2147483648, 50352128}},
                        0};
    g.p.gpu_layers = 0;
    check_golden(&g);
}

static void test_goldens_families(void **state)
{
    (void)state;
    struct golden g = {&shape_qwen3_30b,
                       tool_params(4096),
                       {"Vulkan0"},
                       {{9599105024, 402653184, 1678303232}, {8951611392, 0, 83968000}},
                       0};
    g.p.ubatch = 2048;
    g.p.n_cpu_moe = 24;
    check_golden(&g);
    g = (struct golden){&shape_gemma2_9b,
                        tool_params(32768),
                        {"RPC0"},
                        {{5755000832, 6429868032, 591945728}, {752640000, 0, 67661824}},
                        0};
    check_golden(&g);
    g = (struct golden){&shape_gemma2_9b,
                        tool_params(32768),
                        {"RPC0"},
                        {{5755000832, 11274289152, 620781568}, {752640000, 0, 96497664}},
                        0};
    g.p.swa_full = true;
    check_golden(&g);
    g = (struct golden){&shape_mamba_2b,
                        tool_params(131072),
                        {"RPC0"},
                        {{1623412000, 24903680, 123951168}, {105588000, 0, 20981792}},
                        0};
    check_golden(&g);
    g = (struct golden){
        &shape_qwen3_30b, tool_params(32768), {NULL}, {{18550716416, 3221225472, 125847584}}, 14084997120};
    g.p.repack = g.p.kv_unified = true;
    g.p.parallel = 4;
    g.p.outputs = PLAN_OUTPUTS_SLOTS;
    check_golden(&g);
}

/* A shortened graph needs what the whole one needs. */
static void test_short_equals_whole(void **state)
{
    (void)state;
    const struct shape *shapes[] = {&shape_llama_1b, &shape_qwen2_half, &shape_qwen3_30b, &shape_gemma2_9b,
                                    &shape_mamba_2b};
    const char *names[] = {"RPC", "Vulkan", "CUDA"};
    for (size_t s = 0; s < TABLE_COUNT(shapes); s++) {
        struct model *m = shape_model(shapes[s]);
        struct estimator est;
        assert_int_equal(estimator_init(&est, m, NULL), RC_OK);
        for (unsigned k = 0; k < 48; k++) {
            struct plan_device d[2];
            char name[2][16];
            for (unsigned i = 0; i < 2; i++) {
                snprintf(name[i], sizeof name[i], "%s%u", names[k % 3], i);
                d[i] = device(name[i], 8000 + 4000 * i);
            }
            struct plan_params p = tool_params(512u << (k % 6));
            p.ubatch = 128u << (k % 4);
            p.gpu_layers = k % 5 == 4 ? 7 : k % 5 == 3 ? 0 : PLAN_ALL_LAYERS;
            p.flash_attn = k % 7 != 6;
            p.parallel = 1 + k % 4;
            p.kv_unified = k % 8 < 4;
            p.kv_offload = k % 11 != 10;
            struct plan_estimate a, b;
            assert_int_equal(estimator_run(&est, &p, d, k % 3, false, &a, NULL), RC_OK);
            assert_int_equal(estimator_run(&est, &p, d, k % 3, true, &b, NULL), RC_OK);
            for (size_t i = 0; i < a.n_parts; i++)
                assert_int_equal(a.parts[i].compute_bytes, b.parts[i].compute_bytes);
        }
        estimator_release(&est);
        model_unref(m);
    }
}

/* Also where the last layer whose experts are in RAM lies at the end of a device: the next one's first
 * operations follow the host, and it stands for no other device. */
static void test_experts_up_to_a_device(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_qwen3_30b);
    struct estimator est;
    assert_int_equal(estimator_init(&est, m, NULL), RC_OK);
    for (uint32_t k = 0; k < 2 * m->n_layer; k++) {
        const struct plan_device d[] = {device("CUDA0", 8000), device("CUDA1", 8000), device("CUDA2", 8000),
                                        device("CUDA3", 8000)};
        struct plan_params p = tool_params(2048);
        p.n_cpu_moe = k / 2;
        p.batch = p.ubatch = k % 2 ? 1 : 64;
        struct plan_estimate a, b;
        assert_int_equal(estimator_run(&est, &p, d, 4, false, &a, NULL), RC_OK);
        assert_int_equal(estimator_run(&est, &p, d, 4, true, &b, NULL), RC_OK);
        for (size_t i = 0; i < a.n_parts; i++)
            assert_int_equal(a.parts[i].compute_bytes, b.parts[i].compute_bytes);
    }
    estimator_release(&est);
    model_unref(m);
}

static struct plan_estimate estimate_ok(const struct model *m, const struct plan_params *p,
                                        const struct plan_device *d, size_t n)
{
    struct plan_estimate e;
    struct err err = {0};
    if (plan_estimate(m, p, d, n, &e, &err))
        fail_msg("%s", err.message);
    return e;
}

static void test_context_rules(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_1b);
    struct plan_params p = tool_params(5000);
    struct plan_estimate e = estimate_ok(m, &p, NULL, 0);
    assert_int_equal(e.params.ctx, 5120); /* padded to 256 */
    assert_int_equal(e.parts[0].context_bytes, 5120ull * 16 * 2 * 512 * 2);
    p.parallel = 3; /* a cache each: a third of 5120, padded again */
    e = estimate_ok(m, &p, NULL, 0);
    assert_int_equal(e.params.ctx, 1792 * 3);
    p.kv_unified = true;
    e = estimate_ok(m, &p, NULL, 0);
    assert_int_equal(e.params.ctx, 5120);
    p = tool_params(0);
    e = estimate_ok(m, &p, NULL, 0);
    assert_int_equal(e.params.ctx, 131072);
    p = tool_params(100); /* the batch is bounded by the context as asked */
    e = estimate_ok(m, &p, NULL, 0);
    assert_int_equal(e.params.batch, 100);
    assert_int_equal(e.params.ubatch, 100);
    model_unref(m);
}

static void test_cache_types(void **state)
{
    (void)state;
    const struct {
        uint32_t type;
        uint64_t row; /* 512 values */
    } types[] = {{GGML_F16, 1024}, {GGML_BF16, 1024}, {GGML_F32, 2048},   {GGML_Q8_0, 544}, {GGML_Q5_1, 384},
                 {GGML_Q5_0, 352}, {GGML_Q4_1, 320},  {GGML_IQ4_NL, 288}, {GGML_Q4_0, 288}};
    struct model *m = shape_model(&shape_llama_1b);
    for (size_t i = 0; i < TABLE_COUNT(types); i++) {
        struct plan_params p = tool_params(1024);
        p.type_k = types[i].type;
        struct plan_estimate e = estimate_ok(m, &p, NULL, 0);
        assert_int_equal(e.parts[0].context_bytes, 1024 * 16 * (types[i].row + 1024));
    }
    model_unref(m);
}

/* Layers by cumulative shares; the output is counted first; a tied output is a second copy on the device. */
static void test_layers(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_1b);
    struct plan_device d[2] = {device("CUDA0", 8000), device("CUDA1", 4000)};
    struct plan_params p = tool_params(2048);
    for (int32_t n = 0; n <= 17; n++) {
        p.gpu_layers = n;
        struct plan_estimate e = estimate_ok(m, &p, d, 1);
        assert_int_equal(e.layers_gpu, n);
        assert_int_equal(e.layers_cpu, 17 - n);
        assert_int_equal(e.parts[0].context_bytes, n > 1 ? (uint64_t)(n - 1) * 2048 * 2048 : 0);
    }
    p.gpu_layers = 1;
    struct plan_estimate e = estimate_ok(m, &p, d, 1);
    const struct tensor *embd = model_tensor(m, "token_embd.weight");
    assert_true(e.parts[0].model_bytes >= embd->bytes);
    assert_true(e.parts[0].model_bytes < embd->bytes + MIB);
    p.gpu_layers = PLAN_ALL_LAYERS;
    e = estimate_ok(m, &p, d, 2);
    assert_int_equal(e.params.tensor_split[0] + e.params.tensor_split[1], 17);
    assert_int_equal(e.params.tensor_split[0],
                     12);                /* 8000 of 12000 of 17, rounded up by the first that passes */
    struct plan_params again = e.params; /* the resolved parameters give the same layout */
    struct plan_estimate e2 = estimate_ok(m, &again, d, 2);
    for (size_t i = 0; i < e.n_parts; i++)
        assert_int_equal(plan_part_total(&e.parts[i]), plan_part_total(&e2.parts[i]));
    model_unref(m);
}

static void test_overrides(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_qwen3_30b);
    struct plan_device d = device("CUDA0", 32000);
    struct plan_params moe = tool_params(4096), ot = moe;
    moe.n_cpu_moe = 48;
    struct plan_estimate a = estimate_ok(m, &moe, &d, 1);
    snprintf(ot.overrides[0].pattern, sizeof ot.overrides[0].pattern, "\\.\\d*\\.?ffn_(?:up|down|gate)_exps");
    snprintf(ot.overrides[0].buffer, sizeof ot.overrides[0].buffer, "CPU");
    ot.n_overrides = 1;
    struct plan_estimate b = estimate_ok(m, &ot, &d, 1);
    assert_int_equal(a.parts[0].model_bytes, b.parts[0].model_bytes);
    assert_int_equal(a.parts[1].model_bytes, b.parts[1].model_bytes);
    struct err err;
    snprintf(ot.overrides[0].buffer, sizeof ot.overrides[0].buffer, "CUDA7");
    assert_int_equal(plan_estimate(m, &ot, &d, 1, &b, &err), RC_INVALID);
    assert_non_null(strstr(err.message, "CUDA7"));
    snprintf(ot.overrides[0].buffer, sizeof ot.overrides[0].buffer, "CPU");
    snprintf(ot.overrides[0].pattern, sizeof ot.overrides[0].pattern, "(");
    assert_int_equal(plan_estimate(m, &ot, &d, 1, &b, &err), RC_INVALID);
    model_unref(m);
}

/* CUDA pads quantised rows to 512 values and everything to 128 bytes; RPC and the host do not. */
static void test_cuda_padding(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_qwen2_half); /* 896 = 512 + 384 values a row */
    struct plan_device cuda = device("CUDA0", 8000), rpc = device("RPC0", 8000);
    struct plan_params p = tool_params(1024);
    struct plan_estimate a = estimate_ok(m, &p, &cuda, 1), b = estimate_ok(m, &p, &rpc, 1);
    uint64_t more = 0;
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const struct tensor *t = &m->tensors[i];
        uint64_t pad = 0, bytes = t->bytes;
        const struct ggml_type_info *info = ggml_type_info(t->type);
        if (info->block > 1 && t->ne[0] % 512)
            assert_true(ggml_row_bytes(t->type, 512 - t->ne[0] % 512, &pad));
        more += (bytes + pad + 127) / 128 * 128 - (bytes + 31) / 32 * 32;
    }
    assert_int_equal(a.parts[0].model_bytes - b.parts[0].model_bytes, more);
    assert_true(more > 0);
    model_unref(m);
}

static void refused(const struct model *m, const struct plan_params *p, const struct plan_device *d, size_t n,
                    enum rc want, const char *word)
{
    struct plan_estimate e;
    struct err err = {0};
    assert_int_equal(plan_estimate(m, p, d, n, &e, &err), want);
    if (!strstr(err.message, word))
        fail_msg("\"%s\" does not say \"%s\"", err.message, word);
}

static void test_refusals(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_8b);
    struct plan_device d[2] = {device("CUDA0", 8000), device("CUDA1", 0)};
    struct plan_params p = tool_params(8192);
    p.flash_attn = false;
    p.type_v = GGML_Q8_0;
    refused(m, &p, NULL, 0, RC_INVALID, "flash attention");
    p = tool_params(8192);
    p.parallel = 300;
    refused(m, &p, NULL, 0, RC_INVALID, "300");
    p.parallel = 0;
    refused(m, &p, NULL, 0, RC_INVALID, "slots");
    p = tool_params(8192);
    p.type_k = GGML_Q6_K;
    refused(m, &p, NULL, 0, RC_INVALID, "cache");
    p.type_k = 9999;
    refused(m, &p, NULL, 0, RC_INVALID, "cache");
    p = tool_params(UINT32_MAX);
    refused(m, &p, NULL, 0, RC_INVALID, "context");
    p = tool_params(8192);
    p.ubatch = 0;
    refused(m, &p, NULL, 0, RC_INVALID, "batch");
    p = tool_params(8192);
    p.gpu_layers = -7;
    refused(m, &p, NULL, 0, RC_INVALID, "-7");
    p = tool_params(8192);
    p.n_tensor_split = 1;
    p.tensor_split[0] = -1;
    refused(m, &p, d, 1, RC_INVALID, "split");
    p = tool_params(8192);
    d[0].free_bytes = 0;
    refused(m, &p, d, 2, RC_INVALID, "free memory");
    model_unref(m);
}

static void test_unknown_architecture(void **state)
{
    (void)state;
    struct shape s = shape_llama_1b;
    s.arch = "nosuch";
    struct model *m = shape_model(&s);
    struct plan_params p = tool_params(4096);
    struct plan_estimate e;
    struct err err;
    assert_int_equal(plan_estimate(m, &p, NULL, 0, &e, &err), RC_UNSUPPORTED);
    assert_string_equal(err.message, "no estimate for architecture 'nosuch'");
    assert_string_equal(err.hint, "load with --force to measure");
    model_unref(m);
}

static void test_bad_shapes(void **state)
{
    (void)state;
    struct plan_params p = tool_params(4096);
    struct shape s = shape_llama_1b;
    s.no_heads = true;
    struct model *m = shape_model(&s);
    refused(m, &p, NULL, 0, RC_INVALID, "heads");
    model_unref(m);
    s = shape_llama_1b;
    s.heads_kv = 7; /* does not divide the heads */
    m = shape_model(&s);
    refused(m, &p, NULL, 0, RC_INVALID, "heads");
    model_unref(m);
    s = shape_qwen3_30b;
    s.used = 200; /* more than there are */
    m = shape_model(&s);
    refused(m, &p, NULL, 0, RC_INVALID, "experts");
    model_unref(m);
    s = shape_mamba_2b;
    s.ssm_state = 0;
    struct err err;
    if (!shape_try(&s, &m, &err)) {
        refused(m, &p, NULL, 0, RC_INVALID, "ssm");
        model_unref(m);
    }
}

/* A pooled model keeps a row a slot instead of logits; a mean needs the states once more, turned; ways of
 * pooling without a model of their graph are refused. */
static void test_pooling(void **state)
{
    (void)state;
    struct shape s = shape_qwen2_half;
    s.pooling = 3;
    struct model *m = shape_model(&s);
    struct plan_params p = tool_params(4096);
    uint64_t text = estimate_ok(m, &p, NULL, 0).parts[0].compute_bytes;
    p.embedding = true;
    uint64_t pooled = estimate_ok(m, &p, NULL, 0).parts[0].compute_bytes;
    assert_true(pooled + 151936ull * 512 * 4 / 2 < text);
    model_unref(m);
    s.pooling = 0; /* the server is told to */
    m = shape_model(&s);
    assert_true(estimate_ok(m, &p, NULL, 0).parts[0].compute_bytes >= text);
    p.pool_last = true;
    assert_int_equal(estimate_ok(m, &p, NULL, 0).parts[0].compute_bytes, pooled);
    model_unref(m);
    s.pooling = 1;
    m = shape_model(&s);
    uint64_t mean = estimate_ok(m, &p, NULL, 0).parts[0].compute_bytes;
    assert_true(mean >= pooled && mean < text);
    model_unref(m);
    s.pooling = 7;
    m = shape_model(&s);
    refused(m, &p, NULL, 0, RC_UNSUPPORTED, "pooled");
    model_unref(m);
}

/* More context, more layers or a wider type never take less in all. */
static void test_monotone(void **state)
{
    (void)state;
    const struct shape *shapes[] = {&shape_llama_1b, &shape_qwen3_30b, &shape_gemma2_9b};
    struct plan_device d = device("CUDA0", 48000);
    for (size_t s = 0; s < TABLE_COUNT(shapes); s++) {
        struct model *m = shape_model(shapes[s]);
        uint64_t before = 0, host_before = UINT64_MAX;
        for (uint32_t ctx = 256; ctx <= 65536; ctx += ctx < 4096 ? 256 : 4096) {
            struct plan_params p = tool_params(ctx);
            struct plan_estimate e = estimate_ok(m, &p, &d, 1);
            assert_true(plan_part_total(&e.parts[0]) >= before);
            before = plan_part_total(&e.parts[0]);
        }
        for (int32_t n = 0; n <= (int32_t)m->n_layer + 1; n++) {
            struct plan_params p = tool_params(4096);
            p.gpu_layers = n;
            struct plan_estimate e = estimate_ok(m, &p, &d, 1);
            assert_true(e.parts[1].model_bytes + e.parts[1].context_bytes <= host_before);
            host_before = e.parts[1].model_bytes + e.parts[1].context_bytes;
        }
        model_unref(m);
    }
}

static void test_device_names(void **state)
{
    (void)state;
    const struct {
        const char *name;
        enum plan_backend backend;
    } names[] = {{"CUDA0", PLAN_CUDA}, {"ROCm1", PLAN_ROCM},  {"Vulkan0", PLAN_VULKAN}, {"SYCL0", PLAN_SYCL},
                 {"RPC0", PLAN_RPC},   {"Metal", PLAN_METAL}, {"GPU7", PLAN_CUDA}};
    for (size_t i = 0; i < TABLE_COUNT(names); i++) {
        struct plan_device d = device(names[i].name, 100);
        assert_int_equal(d.backend, names[i].backend);
        assert_string_equal(d.name, names[i].name);
        assert_int_equal(d.free_bytes, 100 * MIB);
    }
    assert_int_equal(device("RPC0", 1).overhead_bytes, 0);
    assert_int_equal(device("Vulkan0", 1).overhead_bytes, 0);
    assert_true(device("CUDA0", 1).overhead_bytes > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens_llama),
        cmocka_unit_test(test_goldens_layout),
        cmocka_unit_test(test_goldens_families),
        cmocka_unit_test(test_short_equals_whole),
        cmocka_unit_test(test_experts_up_to_a_device),
        cmocka_unit_test(test_context_rules),
        cmocka_unit_test(test_cache_types),
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_cuda_padding),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_unknown_architecture),
        cmocka_unit_test(test_bad_shapes),
        cmocka_unit_test(test_monotone),
        cmocka_unit_test(test_pooling),
        cmocka_unit_test(test_device_names),
    };
    return cmocka_run_group_tests_name("plan_memory", tests, NULL, NULL);
}
