/* Tokens for bytes and back, what to prune, machines out of profiles, what was rejected, and files in smaller
 * quantisations. */
#include "plan_test.h"

#include "hw/profiles/profiles.h"

#include <string.h>

static void test_inverse(void **state)
{
    (void)state;
    static const struct shape *const shapes[] = {&shape_llama_8b, &shape_gemma2_9b, &shape_qwen3_30b};
    for (size_t i = 0; i < TABLE_COUNT(shapes); i++) {
        struct model *m = shape_model(shapes[i]);
        struct plan_device gpu = device("CUDA0", 80000);
        for (unsigned on_host = 0; on_host < 2; on_host++) {
            struct plan_params p;
            struct plan_need need, more;
            uint32_t ctx;
            plan_params_default(&p);
            size_t n = on_host ? 0 : 1;
            for (uint32_t tokens = 1000; tokens < m->context_train; tokens = tokens * 5 / 2) {
                assert_int_equal(plan_predict_memory(m, &p, &gpu, n, tokens, &need, NULL), RC_OK);
                uint64_t bytes = on_host ? need.host_bytes : need.device_bytes;
                assert_int_equal(need.ctx, (tokens + 255) / 256 * 256);
                assert_true(need.device_bytes + need.host_bytes ==
                            need.model_bytes + need.context_bytes + need.compute_bytes + need.overhead_bytes);
                /* what was predicted holds as much, and one step more does not fit into it */
                assert_int_equal(plan_suggest_context(m, &p, &gpu, n, bytes, &ctx, NULL), RC_OK);
                assert_true(ctx >= need.ctx);
                assert_int_equal(plan_predict_memory(m, &p, &gpu, n, ctx, &more, NULL), RC_OK);
                assert_true((on_host ? more.host_bytes : more.device_bytes) <= bytes);
                if (ctx + 256 > m->context_train)
                    continue;
                assert_int_equal(plan_predict_memory(m, &p, &gpu, n, ctx + 256, &more, NULL), RC_OK);
                assert_true((on_host ? more.host_bytes : more.device_bytes) > bytes);
            }
            assert_int_equal(plan_suggest_context(m, &p, &gpu, n, 1 * MIB, &ctx, NULL), RC_OK);
            assert_int_equal(ctx, 0);
        }
        model_unref(m);
    }
}

static void test_errors(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_1b);
    struct plan_params p;
    struct plan_need need = {.ctx = 7};
    uint32_t ctx = 7;
    struct err err;
    plan_params_default(&p);
    p.parallel = 0;
    assert_int_equal(plan_predict_memory(m, &p, NULL, 0, 4096, &need, &err), RC_INVALID);
    assert_int_equal(need.ctx, 7); /* untouched */
    assert_int_equal(plan_suggest_context(m, &p, NULL, 0, 1ull << 40, &ctx, &err), RC_INVALID);
    assert_int_equal(ctx, 7);
    assert_non_null(strstr(err.message, "slots"));
    model_unref(m);
}

static void test_prune(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_8b);
    struct plan_device gpu = device("CUDA0", 24000);
    struct plan_params p;
    struct plan_prune a;
    struct plan_kv_use use = {.tokens_used = 1000};
    plan_params_default(&p);
    p.ctx = 32768;
    assert_int_equal(plan_recommend_prune(m, &p, &gpu, 1, &use, &a, NULL), RC_OK);
    assert_int_equal(a.what, PLAN_PRUNE_NONE);
    use.tokens_used = 31000;
    use.idle_tokens = 20000;
    assert_int_equal(plan_recommend_prune(m, &p, &gpu, 1, &use, &a, NULL), RC_OK);
    assert_int_equal(a.what, PLAN_PRUNE_IDLE_SLOTS);
    assert_int_equal(a.frees_tokens, 20000);
    use.idle_tokens = 0;
    assert_int_equal(plan_recommend_prune(m, &p, &gpu, 1, &use, &a, NULL), RC_OK);
    assert_int_equal(a.what, PLAN_PRUNE_SHIFT);
    /* 4 GiB of f16: q8_0 frees some 1.9, q4_0 some 2.9 */
    const struct {
        uint64_t mib;
        enum plan_prune_kind what;
        uint32_t type;
    } rows[] = {{1500, PLAN_PRUNE_KV_TYPE, GGML_Q8_0},
                {2500, PLAN_PRUNE_KV_TYPE, GGML_Q4_0},
                {3500, PLAN_PRUNE_CONTEXT, GGML_F16},
                {9000, PLAN_PRUNE_IMPOSSIBLE, GGML_F16}};
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        use = (struct plan_kv_use){.short_bytes = rows[i].mib * MIB};
        assert_int_equal(plan_recommend_prune(m, &p, &gpu, 1, &use, &a, NULL), RC_OK);
        assert_int_equal(a.what, rows[i].what);
        assert_int_equal(a.kv_type, rows[i].type);
        if (a.what == PLAN_PRUNE_IMPOSSIBLE)
            continue;
        struct plan_need before, after;
        struct plan_params q = p;
        q.type_k = q.type_v = a.kv_type;
        assert_true(a.restart);
        assert_int_equal(plan_predict_memory(m, &p, &gpu, 1, p.ctx, &before, NULL), RC_OK);
        assert_int_equal(plan_predict_memory(m, &q, &gpu, 1, a.ctx, &after, NULL), RC_OK);
        assert_true(before.device_bytes - after.device_bytes == a.frees_bytes);
        assert_true(a.frees_bytes >= use.short_bytes);
    }
    model_unref(m);
}

static void test_room_of_a_plan(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_8b);
    struct plan_machine mach = {0};
    struct plan_policy pol;
    struct plan *plan = mem_calloc(1, sizeof *plan);
    uint32_t room;
    mach.host.total_bytes = mach.host.free_bytes = 32000 * MIB;
    mach.host.cores = 8;
    mach.devices[mach.n_devices++] = device("CUDA0", 12000);
    plan_policy_default(&pol);
    pol.ctx = 8192;
    assert_int_equal(plan_place(m, &pol, &mach, plan, NULL), RC_OK);
    assert_int_equal(plan_room_tokens(m, plan, &mach, pol.margin_bytes, &room, NULL), RC_OK);
    assert_true(room > 8192);
    pol.ctx = room; /* it is as long as that, and no longer */
    pol.kv_type_fixed = true;
    pol.type_k = pol.type_v = GGML_F16;
    assert_int_equal(plan_place(m, &pol, &mach, plan, NULL), RC_OK);
    assert_int_equal(plan->estimate.params.ctx, room);
    pol.ctx = room + 256;
    assert_int_equal(plan_place(m, &pol, &mach, plan, NULL), RC_OK);
    assert_int_equal(plan->estimate.params.ctx, room);
    free(plan);
    model_unref(m);
}

/* ---- profiles ---- */

static void test_profiles(void **state)
{
    (void)state;
    size_t n, cards = 0;
    const struct hw_profile *list = hw_profiles(&n);
    for (size_t i = 0; i < n; i++) {
        const struct hw_profile *p = &list[i];
        struct plan_machine m;
        cards += p->kind == HW_PROFILE_CARD || p->kind == HW_PROFILE_UNIFIED;
        assert_ptr_equal(hw_profile_find(str_from(p->name)), p); /* names are unique */
        assert_true(p->title[0] != '\0');
        assert_int_equal(plan_machine_profiles(str_from(p->name), &m, NULL), RC_OK);
        assert_true(m.host.free_bytes > 0 && m.host.cores > 0 && m.host.bandwidth_gbps > 0);
        for (size_t d = 0; d < m.n_devices; d++) {
            assert_true(m.devices[d].free_bytes > 0 && m.devices[d].free_bytes <= m.devices[d].total_bytes);
            assert_true(m.devices[d].bandwidth_gbps >= 60 && m.devices[d].tflops > 1);
            assert_true(m.devices[d].power_w >= 20 && m.devices[d].link_gbps > 5);
        }
    }
    assert_true(cards >= 60);
}

static void test_what_if(void **state)
{
    (void)state;
    struct plan_machine m;
    assert_int_equal(plan_machine_profiles(STR("rtx4090-laptop-16g, 2x3090,RX7900XTX"), &m, NULL), RC_OK);
    assert_int_equal(m.n_devices, 4);
    assert_string_equal(m.devices[0].name, "CUDA0");
    assert_string_equal(m.devices[2].name, "CUDA2");
    assert_string_equal(m.devices[3].name, "ROCm0");
    assert_string_equal(m.devices[1].model, "NVIDIA GeForce RTX 3090");
    assert_int_equal(plan_machine_profiles(STR("7900xtx,desktop-32g"), &m, NULL), RC_OK);
    assert_int_equal(m.host.total_bytes, 32768 * MIB);
    assert_int_equal(plan_machine_profiles(STR("dgx-h100"), &m, NULL), RC_OK);
    assert_int_equal(m.n_devices, 8);
    static const char *const wrong[] = {"",         "rtx9999",          "0x3090",  "65x3090",
                                        "99x3090",  "2xm1-16g",         "17x3090", "desktop-32g,laptop-64g",
                                        "3090,,t4", "2xdgx-h100,server"};
    for (size_t i = 0; i < TABLE_COUNT(wrong); i++) {
        struct err err = {0};
        struct plan_machine untouched = {.n_devices = 3};
        assert_int_equal(plan_machine_profiles(str_from(wrong[i]), &untouched, &err), RC_INVALID);
        assert_int_equal(untouched.n_devices, 3);
        assert_true(err.message[0] != '\0');
    }
    struct err err;
    assert_int_equal(plan_machine_profiles(STR("rtx409"), &m, &err), RC_INVALID);
    assert_non_null(strstr(err.hint, "rtx4090"));
    assert_int_equal(plan_machine_profiles(STR("2x9090"), &m, &err), RC_INVALID);
    assert_non_null(strstr(err.hint, "did you mean rtx")); /* the maker's prefix may be left out */
}

/* ---- rejected, smaller files ---- */

static bool has(const struct plan_reason *list, uint32_t n, const char *code, const char *words)
{
    for (uint32_t i = 0; i < n; i++)
        if (!strcmp(list[i].code, code) && strstr(list[i].text, words))
            return true;
    return false;
}

/* 70B in 4 bits on a laptop's 16 GB: partial offload, its speed told, and why nothing better is possible. */
static void test_rejected(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_70b);
    struct plan_machine mach;
    struct plan_policy pol;
    struct plan *p = mem_calloc(1, sizeof *p);
    plan_policy_default(&pol);
    assert_int_equal(plan_machine_profiles(STR("rtx4090-laptop-16g"), &mach, NULL), RC_OK);
    assert_int_equal(plan_place(m, &pol, &mach, p, NULL), RC_OK);
    plan_rejected(m, &pol, &mach, p);
    assert_true(p->estimate.layers_gpu > 15 && p->estimate.layers_gpu < 40);
    /* bound by the slower memory: some 27 GB at 77 GB/s */
    assert_true(p->speed.decode_tps > 1 && p->speed.decode_tps < 4);
    assert_true(has(p->rejected, p->n_rejected, "full_offload", "CUDA0 would need"));
    assert_true(has(p->rejected, p->n_rejected, "ctx", "131072"));
    assert_true(has(p->rejected, p->n_rejected, "cpu", "tokens/s instead of"));
    assert_int_equal(plan_machine_profiles(STR("2x3090"), &mach, NULL), RC_OK);
    assert_int_equal(plan_place(m, &pol, &mach, p, NULL), RC_OK);
    plan_rejected(m, &pol, &mach, p);
    assert_int_equal(p->n_used, 2);
    assert_true(has(p->rejected, p->n_rejected, "single_gpu", "alone"));
    free(p);
    model_unref(m);
}

/* When nothing fits, or no step of the ladder is left, a smaller file of the model takes its place. */
static void test_smaller_file(void **state)
{
    (void)state;
    struct model *big = shape_model(&shape_llama_70b), *small = shape_model(&shape_llama_8b);
    const struct model *const files[] = {small};
    struct plan_machine mach = {0};
    struct plan_policy pol;
    struct plan *p = mem_calloc(1, sizeof *p);
    struct err err;
    mach.host.total_bytes = mach.host.free_bytes = 8000 * MIB;
    mach.host.cores = 8;
    mach.devices[mach.n_devices++] = device("CUDA0", 8000);
    plan_policy_default(&pol);
    assert_int_equal(plan_place(big, &pol, &mach, p, &err), RC_NO_FIT);
    assert_int_equal(p->smaller, PLAN_AS_ASKED);
    pol.smaller = files;
    pol.n_smaller = 1;
    assert_int_equal(plan_place(big, &pol, &mach, p, &err), RC_OK);
    assert_int_equal(p->smaller, 0);
    assert_true(p->fits && has(p->reasons, p->n_reasons, "smaller_quantization", "takes its place"));
    /* by failed loads: the first file gives all but the host, then the second all with it */
    mach.host.total_bytes = mach.host.free_bytes = 128000 * MIB;
    uint32_t steps = 0, changed = 0;
    for (; steps < 32; steps++) {
        pol.ladder = steps;
        enum rc rc = plan_place(big, &pol, &mach, p, &err);
        if (rc)
            break;
        if (p->smaller == 0 && !changed)
            changed = steps;
        if (!changed)
            assert_true(p->n_used == 1);
    }
    assert_true(changed > 2 && steps > changed + 3 && steps < 32);
    assert_non_null(strstr(err.hint, "the CPU alone")); /* every step is told */
    assert_non_null(strstr(err.hint, "half the context"));
    free(p);
    model_unref(big);
    model_unref(small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inverse),  cmocka_unit_test(test_errors),
        cmocka_unit_test(test_prune),    cmocka_unit_test(test_room_of_a_plan),
        cmocka_unit_test(test_profiles), cmocka_unit_test(test_what_if),
        cmocka_unit_test(test_rejected), cmocka_unit_test(test_smaller_file),
    };
    return cmocka_run_group_tests_name("plan_room", tests, NULL, NULL);
}
