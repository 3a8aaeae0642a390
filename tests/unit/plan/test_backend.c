/* What kinds of devices compute and what they leave to the host; CUDA's copies of quantised caches. */
#include "plan_test.h"

#include "plan/backend.h"

static bool refused(enum plan_backend b, struct gtensor *t, size_t n)
{
    struct graph g = {.t = t, .n_t = (int32_t)n};
    bool (*refuses)(const struct graph *, const struct gtensor *) = backend_traits(b)->refuses;
    return refuses && refuses(&g, &t[0]);
}

struct attention {
    uint64_t k, v, heads, shared; /* widths; heads of keys; query heads a key head */
    uint8_t type_k, type_v;
    bool cuda; /* has a kernel */
};

static bool attention_refused(enum plan_backend b, const struct attention *a)
{
    struct gtensor t[] = {
        {.op = OP_FLASH_ATTN, .src = {1, 2, 3, -1}},
        {.ne = {a->k, 512, a->heads * a->shared, 1}, .type = GGML_F32},
        {.ne = {a->k, 4096, a->heads, 1}, .type = a->type_k},
        {.ne = {a->v, 4096, a->heads, 1}, .type = a->type_v},
    };
    return refused(b, t, TABLE_COUNT(t));
}

static void test_attention(void **state)
{
    (void)state;
    static const struct attention rows[] = {
        {128, 128, 8, 4, GGML_F16, GGML_F16, true},        {128, 128, 8, 4, GGML_Q8_0, GGML_Q8_0, true},
        {128, 128, 8, 4, GGML_Q4_0, GGML_Q4_0, true},      {128, 128, 8, 4, GGML_BF16, GGML_BF16, true},
        {128, 128, 8, 4, GGML_Q8_0, GGML_F16, false},      {128, 128, 8, 4, GGML_Q5_1, GGML_Q5_1, false},
        {128, 128, 8, 4, GGML_IQ4_NL, GGML_IQ4_NL, false}, {64, 64, 2, 1, GGML_F16, GGML_F16, true},
        {160, 160, 8, 4, GGML_F16, GGML_F16, false},       {192, 192, 8, 8, GGML_F16, GGML_F16, false},
        {192, 128, 8, 8, GGML_F16, GGML_F16, true},        {192, 128, 8, 4, GGML_F16, GGML_F16, false},
        {320, 256, 1, 32, GGML_F16, GGML_F16, true},       {320, 256, 1, 16, GGML_F16, GGML_F16, false},
        {512, 512, 2, 4, GGML_F16, GGML_F16, true},        {512, 512, 8, 1, GGML_F16, GGML_F16, false},
        {576, 512, 1, 16, GGML_F16, GGML_F16, true},       {576, 512, 1, 1, GGML_F16, GGML_F16, false},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        assert_int_equal(attention_refused(PLAN_CUDA, &rows[i]), !rows[i].cuda);
        assert_int_equal(attention_refused(PLAN_ROCM, &rows[i]), !rows[i].cuda);
        assert_false(attention_refused(PLAN_RPC, &rows[i]));
    }
}

static bool scan_refused(uint64_t state, uint64_t width, uint64_t heads, uint64_t a, uint64_t groups)
{
    struct gtensor t[] = {
        {.op = OP_SSM_SCAN, .src = {1, 2, 2, 3, 4, 4, -1}},
        {.ne = {state, width, heads, 1}},
        {.ne = {width, heads, 1, 1}},
        {.ne = {a, heads, 1, 1}},
        {.ne = {state, groups, 1, 1}},
    };
    return refused(PLAN_CUDA, t, TABLE_COUNT(t));
}

static void test_scans(void **state)
{
    (void)state;
    assert_false(scan_refused(16, 1, 4096, 16, 1)); /* one state a channel */
    assert_true(scan_refused(32, 1, 4096, 32, 1));
    assert_true(scan_refused(16, 1, 4000, 16, 1));
    assert_false(scan_refused(128, 64, 80, 1, 8)); /* heads */
    assert_false(scan_refused(256, 64, 24, 1, 1));
    assert_true(scan_refused(64, 64, 80, 1, 8));
    assert_true(scan_refused(128, 40, 80, 1, 8));
    struct gtensor conv[] = {{.op = OP_SSM_CONV, .src = {1, -1}}, {.ne = {515, 2048, 1, 1}}};
    assert_false(refused(PLAN_CUDA, conv, 2));
    conv[1].ne[1] = 2000;
    assert_true(refused(PLAN_CUDA, conv, 2));
}

static bool experts_refused(enum plan_backend b, enum graph_op op, unsigned flags)
{
    struct gtensor t[] = {
        {.op = op, .flags = (uint8_t)flags, .src = {1, 2, 3, -1}},
        {.ne = {2048, 4096, 128, 1}, .nb = {210, 1680, 6881280, 880803840}, .type = GGML_Q6_K},
        {.ne = {2048, 4, 512, 1}, .type = GGML_F32},
        {.ne = {4, 512, 1, 1}, .type = GGML_I32},
    };
    return refused(b, t, TABLE_COUNT(t));
}

static void test_exact_experts(void **state)
{
    (void)state;
    static const enum plan_backend rounding[] = {PLAN_CUDA, PLAN_ROCM, PLAN_VULKAN};
    for (size_t i = 0; i < TABLE_COUNT(rounding); i++) {
        assert_true(experts_refused(rounding[i], OP_MUL_MAT_ID, GF_EXACT));
        assert_false(experts_refused(rounding[i], OP_MUL_MAT_ID, 0));
        assert_false(experts_refused(rounding[i], OP_MUL_MAT, GF_EXACT)); /* plain products have a kernel */
    }
    assert_false(experts_refused(PLAN_RPC, OP_MUL_MAT_ID, GF_EXACT));
}

static struct plan_estimate estimate_with(const struct model *m, const char *name, uint32_t type)
{
    struct plan_params p = tool_params(65536);
    struct plan_device d = device(name, 48000);
    struct plan_estimate e;
    struct err err;
    p.outputs = PLAN_OUTPUTS_SLOTS;
    p.type_k = p.type_v = type;
    assert_int_equal(plan_estimate(m, &p, &d, 1, &e, &err), RC_OK);
    return e;
}

/* One layer's keys and values, 8 heads of 128 each, in half precision. */
static void test_halved_caches(void **state)
{
    (void)state;
    const uint64_t copy = 65536ull * 8 * 128 * 2 * 2;
    struct model *m = shape_model(&shape_llama_8b);
    static const char *const halving[] = {"CUDA0", "ROCm0"};
    for (size_t i = 0; i < TABLE_COUNT(halving); i++) {
        struct plan_estimate plain = estimate_with(m, halving[i], GGML_F16),
                             packed = estimate_with(m, halving[i], GGML_Q8_0),
                             brain = estimate_with(m, halving[i], GGML_BF16);
        assert_true(plain.parts[0].compute_bytes < copy);
        assert_true(packed.parts[0].compute_bytes > copy);
        assert_true(brain.parts[0].compute_bytes > copy);
        assert_true(packed.parts[0].context_bytes < plain.parts[0].context_bytes);
    }
    assert_true(estimate_with(m, "RPC0", GGML_Q8_0).parts[0].compute_bytes < copy + copy / 2);
    /* no kernel for it: attention on the host needs no copy on the device */
    struct plan_estimate host = estimate_with(m, "CUDA0", GGML_Q5_1);
    assert_true(host.parts[0].compute_bytes < copy);
    model_unref(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_exact_experts),
        cmocka_unit_test(test_scans),
        cmocka_unit_test(test_halved_caches),
    };
    return cmocka_run_group_tests_name("plan_backend", tests, NULL, NULL);
}
