/* Placement: the order of preference on none, one, two and four unequal GPUs, limits, the ladder, and what is
 * said when nothing fits. */
#include "plan_test.h"

#include <string.h>

static struct plan_machine host_only(uint64_t ram_mib)
{
    struct plan_machine m = {0};
    m.host.total_bytes = m.host.free_bytes = ram_mib * MIB;
    m.host.cores = 8;
    return m;
}

static void add(struct plan_machine *m, const char *name, uint64_t mib)
{
    m->devices[m->n_devices++] = device(name, mib);
}

static struct plan_policy policy(uint32_t ctx)
{
    struct plan_policy p;
    plan_policy_default(&p);
    p.ctx = ctx;
    return p;
}

static bool has_reason(const struct plan *p, const char *code)
{
    for (uint32_t i = 0; i < p->n_reasons; i++)
        if (!strcmp(p->reasons[i].code, code))
            return true;
    return false;
}

static struct plan place(const struct model *m, const struct plan_policy *pol,
                         const struct plan_machine *mach)
{
    struct plan *p = mem_calloc(1, sizeof *p), copy;
    struct err err = {0};
    if (plan_place(m, pol, mach, p, &err))
        fail_msg("%s", err.message);
    assert_true(p->fits);
    /* what is promised is what is there */
    for (uint32_t i = 0; i < p->n_used; i++)
        assert_true(plan_part_total(&p->estimate.parts[i]) + pol->margin_bytes <=
                    mach->devices[p->used[i]].free_bytes);
    assert_true(plan_part_total(&p->estimate.parts[p->n_used]) <= mach->host.free_bytes);
    assert_true(p->speed.decode_tps > 0 && p->speed.prefill_tps > 0 && p->speed.load_seconds > 0);
    copy = *p;
    free(p);
    return copy;
}

static void test_no_gpu(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_1b);
    struct plan_machine mach = host_only(16000);
    struct plan_policy pol = policy(8192);
    struct plan p = place(m, &pol, &mach);
    assert_int_equal(p.n_used, 0);
    assert_int_equal(p.estimate.params.ctx, 8192);
    assert_int_equal(p.estimate.params.gpu_layers, 0);
    assert_true(has_reason(&p, "cpu_no_gpu"));
    model_unref(m);
}

/* One batch is one look at the clients, unless several GPUs work on its parts at the same time. */
static void test_batches(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_8b);
    struct plan_machine one = host_only(32000), two = host_only(32000);
    add(&one, "CUDA0", 24000);
    add(&two, "CUDA0", 5000);
    add(&two, "CUDA1", 5000);
    struct plan_policy pol = policy(8192);
    struct plan p = place(m, &pol, &one);
    assert_int_equal(p.estimate.params.batch, p.estimate.params.ubatch);
    p = place(m, &pol, &two);
    assert_int_equal(p.n_used, 2);
    assert_int_equal(p.estimate.params.batch, 2048);
    pol.batch = 1024;
    p = place(m, &pol, &one);
    assert_int_equal(p.estimate.params.batch, 1024);
    pol.batch = 0;
    pol.embedding = true;
    p = place(m, &pol, &one);
    assert_int_equal(p.estimate.params.batch, 2048);
    assert_true(p.estimate.params.pool_last);
    model_unref(m);
}

static void test_single_gpu_first(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_8b);
    struct plan_machine mach = host_only(32000);
    add(&mach, "CUDA0", 8000);
    add(&mach, "CUDA1", 24000);
    add(&mach, "CUDA2", 12000);
    add(&mach, "CUDA3", 16000);
    struct plan_policy pol = policy(8192);
    struct plan p = place(m, &pol, &mach);
    assert_int_equal(p.n_used, 1);
    assert_int_equal(p.used[0], 1); /* the most free memory */
    assert_int_equal(p.estimate.layers_cpu, 0);
    assert_true(has_reason(&p, "single_gpu"));
    pol.strategy = PLAN_POWER_EFFICIENT; /* the smallest that holds it */
    p = place(m, &pol, &mach);
    assert_int_equal(p.n_used, 1);
    assert_int_equal(p.used[0], 0);
    pol = policy(8192);
    pol.device = "CUDA2";
    p = place(m, &pol, &mach);
    assert_int_equal(p.used[0], 2);
    model_unref(m);
}

static void test_fewest_gpus(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_70b);
    struct plan_machine mach = host_only(128000);
    add(&mach, "CUDA0", 16000);
    add(&mach, "CUDA1", 24000);
    add(&mach, "CUDA2", 24000);
    add(&mach, "CUDA3", 12000);
    struct plan_policy pol = policy(4096);
    struct plan p = place(m, &pol, &mach);
    assert_int_equal(p.n_used, 2);
    assert_int_equal(p.used[0], 1);
    assert_int_equal(p.used[1], 2);
    assert_true(has_reason(&p, "multi_gpu"));
    pol.ctx = 32768; /* needs the third */
    p = place(m, &pol, &mach);
    assert_int_equal(p.estimate.layers_cpu, 0);
    assert_true(p.n_used >= 2);
    pol.max_gpus = 1;
    p = place(m, &pol, &mach);
    assert_int_equal(p.n_used, 1);
    assert_true(p.estimate.layers_cpu > 0);
    model_unref(m);
}

/* 70B in 4 bits on a card of 16 GB: a share of the layers, told with its speed. */
static void test_partial(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_70b);
    struct plan_machine mach = host_only(64000);
    add(&mach, "CUDA0", 16384);
    struct plan_policy pol = policy(32768);
    struct plan p = place(m, &pol, &mach);
    assert_int_equal(p.n_used, 1);
    assert_in_range(p.estimate.layers_gpu, 18, 30);
    assert_int_equal(p.estimate.layers_gpu + p.estimate.layers_cpu, 81);
    assert_int_equal(p.estimate.params.ctx, 32768);
    assert_true(has_reason(&p, "partial_offload") && has_reason(&p, "tried_full"));
    /* one layer more would not fit */
    struct plan_params more = p.estimate.params;
    more.gpu_layers++;
    struct plan_estimate e;
    assert_int_equal(plan_estimate(m, &more, mach.devices, 1, &e, NULL), RC_OK);
    assert_true(plan_part_total(&e.parts[0]) + pol.margin_bytes > mach.devices[0].free_bytes);
    pol.allow_cpu = false;
    struct plan none;
    struct err err;
    assert_int_equal(plan_place(m, &pol, &mach, &none, &err), RC_NO_FIT);
    model_unref(m);
}

static void test_experts(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_qwen3_30b);
    struct plan_machine mach = host_only(64000);
    add(&mach, "CUDA0", 12288);
    struct plan_policy pol = policy(16384);
    struct plan p = place(m, &pol, &mach);
    assert_int_equal(p.estimate.layers_cpu, 0); /* layers stay; experts go */
    assert_in_range(p.estimate.params.n_cpu_moe, 10, 30);
    assert_true(has_reason(&p, "experts_on_cpu"));
    struct plan_params fewer = p.estimate.params;
    fewer.n_cpu_moe--;
    struct plan_estimate e;
    assert_int_equal(plan_estimate(m, &fewer, mach.devices, 1, &e, NULL), RC_OK);
    assert_true(plan_part_total(&e.parts[0]) + pol.margin_bytes > mach.devices[0].free_bytes);
    model_unref(m);
}

/* A given context is kept by quantising the cache before it is shortened. */
static void test_cache_before_context(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_8b);
    struct plan_machine mach = host_only(64000);
    add(&mach, "CUDA0", 8000);
    struct plan_policy pol = policy(32768);
    struct plan p = place(m, &pol, &mach);
    assert_int_equal(p.estimate.params.ctx, 32768);
    assert_int_equal(p.estimate.params.type_k, GGML_Q8_0);
    assert_true(has_reason(&p, "kv_q8_0"));
    pol.kv_floor = GGML_F16; /* not allowed: the context gives way */
    p = place(m, &pol, &mach);
    assert_int_equal(p.estimate.params.type_k, GGML_F16);
    assert_true(p.estimate.params.ctx < 32768);
    assert_true(has_reason(&p, "ctx_shortened"));
    model_unref(m);
}

static void test_strategies_differ(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_8b);
    struct plan_machine mach = host_only(64000);
    add(&mach, "CUDA0", 12000);
    add(&mach, "CUDA1", 10000);
    struct plan_policy pol = policy(0);
    struct plan balanced = place(m, &pol, &mach);
    pol.strategy = PLAN_MAX_CONTEXT;
    struct plan longest = place(m, &pol, &mach);
    assert_true(longest.estimate.params.ctx > balanced.estimate.params.ctx);
    pol.strategy = PLAN_POWER_EFFICIENT;
    struct plan frugal = place(m, &pol, &mach);
    assert_true(frugal.estimate.params.ctx <= balanced.estimate.params.ctx);
    assert_int_equal(frugal.n_used, 1);
    assert_int_equal(frugal.used[0], 1);
    pol.strategy = PLAN_FIT_VRAM;
    pol.vram_limit_bytes = 7000 * MIB;
    struct plan capped = place(m, &pol, &mach);
    uint64_t vram = 0;
    for (uint32_t i = 0; i < capped.n_used; i++)
        vram += plan_part_total(&capped.estimate.parts[i]);
    assert_true(vram <= 7000 * MIB);
    plan_alternatives(m, &pol, &mach, &capped);
    assert_int_equal(capped.n_alternatives, PLAN_STRATEGIES - 1);
    for (uint32_t i = 0; i < capped.n_alternatives; i++)
        assert_true(capped.alternatives[i].fits && capped.alternatives[i].text[0]);
    model_unref(m);
}

/* Six cards could hold the sum, and none of them a whole number of layers near enough to its room. */
static void test_whole_layers(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_70b);
    struct plan_machine mach = host_only(64000), one = host_only(64000);
    struct plan_policy pol = policy(4096);
    static const char *const names[] = {"CUDA0", "CUDA1", "CUDA2", "CUDA3", "CUDA4", "CUDA5"};
    struct err err = {0};
    uint64_t whole = 0;
    add(&one, "CUDA0", 80000);
    struct plan all = place(m, &pol, &one);
    for (uint32_t i = 0; i < all.n_used; i++)
        whole += all.estimate.parts[i].model_bytes + all.estimate.parts[i].overhead_bytes;
    bool told = false, fits = false;
    pol.allow_cpu = false;
    for (uint64_t mib = whole / MIB / 6; mib < whole / MIB / 4 && !fits; mib += 50) {
        struct plan *p = mem_calloc(1, sizeof *p);
        mach.n_devices = 0;
        for (size_t i = 0; i < 6; i++)
            add(&mach, names[i], mib);
        fits = plan_place(m, &pol, &mach, p, &err) == RC_OK;
        told |= !fits && strstr(err.message, "whole layers cannot fill") != NULL;
        free(p);
    }
    assert_true(fits && told);
    model_unref(m);
}

static void test_no_fit(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_70b);
    struct plan_machine mach = host_only(8000);
    add(&mach, "CUDA0", 8000);
    struct plan_policy pol = policy(0);
    struct plan p;
    struct err err;
    assert_int_equal(plan_place(m, &pol, &mach, &p, &err), RC_NO_FIT);
    assert_false(p.fits);
    assert_true(has_reason(&p, "tried_full") && has_reason(&p, "tried_partial") &&
                has_reason(&p, "tried_cpu"));
    assert_non_null(strstr(err.message, "GiB"));
    assert_true(err.hint[0]);
    pol.device = "CUDA9";
    assert_int_equal(plan_place(m, &pol, &mach, &p, &err), RC_NOT_FOUND);
    assert_non_null(strstr(err.message, "CUDA9"));
    model_unref(m);
}

/* Each failed load takes a step that needs less on the device, down to the host, and then there is none. */
static void test_ladder(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_8b);
    struct plan_machine mach = host_only(64000);
    add(&mach, "CUDA0", 24000);
    struct plan_policy pol = policy(32768);
    uint64_t before = UINT64_MAX;
    uint32_t steps = 0;
    for (;; steps++) {
        struct plan *p = mem_calloc(1, sizeof *p);
        struct err err;
        pol.ladder = steps;
        enum rc rc = plan_place(m, &pol, &mach, p, &err);
        uint64_t now = p->n_used ? plan_part_total(&p->estimate.parts[0]) : 0;
        bool told = steps == 0 || has_reason(p, "ladder");
        free(p);
        if (rc == RC_NO_FIT)
            break;
        assert_int_equal(rc, RC_OK);
        assert_true(told);
        assert_true(now < before || now == 0);
        before = now;
        assert_true(steps < 16);
    }
    assert_int_equal(before, 0); /* the last step was the host */
    assert_in_range(steps, 5, 12);
    model_unref(m);
}

static void test_strategy_words(void **state)
{
    (void)state;
    enum plan_strategy s;
    uint64_t limit = 0;
    assert_true(plan_strategy_from(STR("balanced"), &s, &limit));
    assert_int_equal(s, PLAN_BALANCED);
    assert_true(plan_strategy_from(STR("fit-vram:8000"), &s, &limit));
    assert_int_equal(s, PLAN_FIT_VRAM);
    assert_int_equal(limit, 8000 * MIB);
    assert_false(plan_strategy_from(STR("fit-vram"), &s, &limit));
    assert_false(plan_strategy_from(STR("fit-vram:0"), &s, &limit));
    assert_false(plan_strategy_from(STR("fit-vram:x"), &s, &limit));
    assert_false(plan_strategy_from(STR("balanced:1"), &s, &limit));
    assert_false(plan_strategy_from(STR("fast"), &s, &limit));
    for (unsigned i = 0; i < PLAN_STRATEGIES; i++)
        assert_true(plan_strategy_word((enum plan_strategy)i)[0] != '\0');
}

static void test_json_names(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_1b);
    struct plan_machine mach = host_only(16000);
    add(&mach, "CUDA0", 8000);
    struct plan_policy pol = policy(4096);
    struct plan p = place(m, &pol, &mach);
    plan_alternatives(m, &pol, &mach, &p);
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = plan_json(doc, m, &p);
    const char *top[] = {"model",       "devices", "params",          "fits",    "strategy", "layers",
                         "kv_location", "speed",   "utilization_pct", "victims", "reasons",  "alternatives"};
    for (size_t i = 0; i < TABLE_COUNT(top); i++)
        assert_non_null(yyjson_mut_obj_get(root, top[i]));
    const char *model[] = {"architecture", "name",          "quantization", "parameters",
                           "layers",       "context_train", "file_bytes"};
    for (size_t i = 0; i < TABLE_COUNT(model); i++)
        assert_non_null(yyjson_mut_obj_get(yyjson_mut_obj_get(root, "model"), model[i]));
    yyjson_mut_val *devices = yyjson_mut_obj_get(root, "devices");
    assert_int_equal(yyjson_mut_arr_size(devices), 2);
    const char *part[] = {"name",        "kind",          "total_bytes",   "free_bytes",
                          "model_bytes", "context_bytes", "compute_bytes", "overhead_bytes"};
    for (size_t i = 0; i < TABLE_COUNT(part); i++)
        assert_non_null(yyjson_mut_obj_get(yyjson_mut_arr_get_first(devices), part[i]));
    yyjson_mut_val *host = yyjson_mut_arr_get_last(devices);
    assert_string_equal(yyjson_mut_get_str(yyjson_mut_obj_get(host, "name")), "Host");
    assert_string_equal(yyjson_mut_get_str(yyjson_mut_obj_get(host, "kind")), "host");
    assert_non_null(yyjson_mut_obj_get(host, "repack_bytes"));
    assert_string_equal(yyjson_mut_get_str(yyjson_mut_obj_get(root, "kv_location")), "gpu");
    const char *layers[] = {"gpu", "cpu", "npu"};
    for (size_t i = 0; i < TABLE_COUNT(layers); i++)
        assert_non_null(yyjson_mut_obj_get(yyjson_mut_obj_get(root, "layers"), layers[i]));
    yyjson_mut_doc_free(doc);
    model_unref(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_gpu),
        cmocka_unit_test(test_single_gpu_first),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_fewest_gpus),
        cmocka_unit_test(test_partial),
        cmocka_unit_test(test_experts),
        cmocka_unit_test(test_cache_before_context),
        cmocka_unit_test(test_strategies_differ),
        cmocka_unit_test(test_whole_layers),
        cmocka_unit_test(test_no_fit),
        cmocka_unit_test(test_ladder),
        cmocka_unit_test(test_strategy_words),
        cmocka_unit_test(test_json_names),
    };
    return cmocka_run_group_tests_name("plan_place", tests, NULL, NULL);
}
