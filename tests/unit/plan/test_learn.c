/* What loads and requests teach: the table, its robust figures, samples from timings, and what reaches a
 * plan. */
#include "plan_test.h"
#include "shapes.h"

#include "plan/learn.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct learn_sample sample(enum learn_kind kind, double value, double size)
{
    return (struct learn_sample){
        .kind = kind,
        .key = {.runtime = "0.7.0", .device = "Card", .architecture = "llama", .quantization = "Q4_0"},
        .value = value,
        .size = size};
}

static struct plan_learned *table(void)
{
    return mem_new(struct plan_learned);
}

static void words_go_both_ways(void **state)
{
    (void)state;
    for (unsigned k = 0; k < LEARN_KINDS; k++) {
        enum learn_kind back = LEARN_KINDS;
        assert_true(learn_kind_from(str_from(learn_kind_word((enum learn_kind)k)), &back));
        assert_int_equal(back, k);
    }
    enum learn_kind untouched = LEARN_LOAD;
    assert_false(learn_kind_from(STR("speed"), &untouched));
    assert_int_equal(untouched, LEARN_LOAD);
    assert_string_equal(learn_kind_word(LEARN_KINDS), "unknown");
}

static void one_odd_sample_moves_nothing(void **state)
{
    (void)state;
    struct plan_learned *l = table();
    struct learn_sample s = sample(LEARN_DECODE, 0, 1e9);
    for (int i = 0; i < 10; i++) {
        s.value = 1.20 + 0.001 * i;
        assert_true(learn_add(l, &s));
    }
    s.value = 60;
    assert_true(learn_add(l, &s));
    struct learn_figure f = learn_lookup(l, LEARN_DECODE, &s.key, 1e9);
    assert_int_equal(f.n, 11);
    assert_true(f.value > 1.2 && f.value < 1.21);
    free(l);
}

static void senseless_samples_are_refused(void **state)
{
    (void)state;
    struct plan_learned *l = table();
    const struct learn_sample bad[] = {sample(LEARN_DECODE, NAN, 1),   sample(LEARN_DECODE, INFINITY, 1),
                                       sample(LEARN_DECODE, 0, 1),     sample(LEARN_DECODE, -1, 1),
                                       sample(LEARN_PREFILL, 1000, 1), sample(LEARN_PREFILL, 1, NAN),
                                       sample(LEARN_OVERHEAD, -1, 1),  sample(LEARN_OVERHEAD, 1e18, 1),
                                       sample(LEARN_KINDS, 1, 1),      sample(LEARN_LOAD, 1, -5)};
    for (size_t i = 0; i < TABLE_COUNT(bad); i++)
        assert_false(learn_add(l, &bad[i]));
    assert_int_equal(l->n_rows, 0);
    free(l);
}

static void the_ring_forgets_the_oldest(void **state)
{
    (void)state;
    struct plan_learned *l = table();
    struct learn_sample s = sample(LEARN_PREFILL, 5, 1e9);
    for (int i = 0; i < 100; i++)
        assert_true(learn_add(l, &s));
    s.value = 2;
    for (int i = 0; i < LEARN_RING; i++)
        assert_true(learn_add(l, &s));
    struct learn_figure f = learn_lookup(l, LEARN_PREFILL, &s.key, 1e9);
    assert_int_equal(f.n, LEARN_RING);
    assert_true(f.value == 2.0 && f.spread == 0);
    assert_int_equal(l->rows[0].seen, 100 + LEARN_RING);
    free(l);
}

static void models_of_like_size_count_more(void **state)
{
    (void)state;
    struct plan_learned *l = table();
    struct learn_sample s = sample(LEARN_DECODE, 1, 1e8);
    for (int i = 0; i < 4; i++)
        assert_true(learn_add(l, &s));
    s.value = 3;
    s.size = 1e10;
    for (int i = 0; i < 4; i++)
        assert_true(learn_add(l, &s));
    assert_true(learn_lookup(l, LEARN_DECODE, &s.key, 1.5e8).value == 1.0);
    assert_true(learn_lookup(l, LEARN_DECODE, &s.key, 8e9).value == 3.0);
    free(l);
}

static void an_unseen_key_takes_the_nearest(void **state)
{
    (void)state;
    struct plan_learned *l = table();
    struct learn_sample s = sample(LEARN_DECODE, 1.5, 1e9);
    assert_true(learn_add(l, &s));
    struct learn_key k = s.key;
    snprintf(k.runtime, sizeof k.runtime, "0.8.0");
    assert_int_equal(learn_lookup(l, LEARN_DECODE, &k, 1e9).n, 1);
    snprintf(k.architecture, sizeof k.architecture, "qwen3");
    assert_int_equal(learn_lookup(l, LEARN_DECODE, &k, 1e9).n, 1);
    snprintf(k.device, sizeof k.device, "Other card");
    assert_int_equal(learn_lookup(l, LEARN_DECODE, &k, 1e9).n, 0);
    k = s.key;
    snprintf(k.quantization, sizeof k.quantization, "Q8_0");
    assert_int_equal(learn_lookup(l, LEARN_DECODE, &k, 1e9).n, 0);
    assert_int_equal(learn_lookup(l, LEARN_PREFILL, &s.key, 1e9).n, 0);
    assert_int_equal(learn_lookup(NULL, LEARN_DECODE, &s.key, 1e9).n, 0);
    free(l);
}

static void a_full_table_replaces_what_is_longest_unused(void **state)
{
    (void)state;
    struct plan_learned *l = table();
    struct learn_sample s = sample(LEARN_DECODE, 1.5, 1e9);
    for (int i = 0; i < LEARN_ROWS; i++) {
        snprintf(s.key.device, sizeof s.key.device, "card %d", i);
        assert_true(learn_add(l, &s));
    }
    snprintf(s.key.device, sizeof s.key.device, "card 0");
    assert_true(learn_add(l, &s));
    snprintf(s.key.device, sizeof s.key.device, "card new");
    assert_true(learn_add(l, &s));
    assert_int_equal(l->n_rows, LEARN_ROWS);
    assert_int_equal(learn_lookup(l, LEARN_DECODE, &s.key, 1e9).n, 1);
    snprintf(s.key.device, sizeof s.key.device, "card 0");
    assert_int_equal(learn_lookup(l, LEARN_DECODE, &s.key, 1e9).n, 2);
    snprintf(s.key.device, sizeof s.key.device, "card 1");
    assert_int_equal(learn_lookup(l, LEARN_DECODE, &s.key, 1e9).n, 0);
    free(l);
}

/* ---- overheads ---- */

static struct plan_machine machine_with(const char *card)
{
    struct plan_machine m = {.n_devices = 1};
    plan_device_named(&m.devices[0], STR("CUDA0"), 24000 * MIB, 24000 * MIB);
    snprintf(m.devices[0].model, sizeof m.devices[0].model, "%s", card);
    m.host.total_bytes = m.host.free_bytes = 64000 * MIB;
    m.host.cores = 8;
    snprintf(m.host.model, sizeof m.host.model, "CPU");
    return m;
}

static void the_default_holds_until_enough_loads(void **state)
{
    (void)state;
    struct model *model = shape_model(&shape_llama_1b);
    struct plan_learned *l = table();
    struct learn_sample s = sample(LEARN_OVERHEAD, 0, 1e9);
    s.key.quantization[0] = '\0';
    s.key.flash_attn = true;
    for (int i = 0; i < 12; i++) {
        struct plan_machine m = machine_with("Card");
        uint64_t standard = m.devices[0].overhead_bytes;
        s.value = (double)((300 + (uint64_t)i) * MIB);
        assert_true(learn_add(l, &s));
        plan_machine_learn(&m, l, "0.7.0", model, true);
        assert_int_equal(m.devices[0].taught.overhead_loads, i + 1);
        if (i + 1 < LEARN_ENOUGH)
            assert_int_equal(m.devices[0].overhead_bytes, standard);
        else
            assert_int_equal(m.devices[0].overhead_bytes, (300 + (uint64_t)i) * MIB);
    }
    /* without flash attention nothing is known */
    struct plan_machine m = machine_with("Card");
    plan_machine_learn(&m, l, "0.7.0", model, false);
    assert_int_equal(m.devices[0].taught.overhead_loads, 0);
    free(l);
    model_unref(model);
}

static void more_than_the_default_counts_at_once(void **state)
{
    (void)state;
    struct model *model = shape_model(&shape_llama_1b);
    struct plan_learned *l = table();
    struct plan_machine m = machine_with("Card");
    struct learn_sample s = sample(LEARN_OVERHEAD, 900.0 * MIB, 1e9);
    s.key.quantization[0] = '\0';
    s.key.flash_attn = true;
    assert_true(learn_add(l, &s));
    plan_machine_learn(&m, l, "0.7.0", model, true);
    assert_int_equal(m.devices[0].overhead_bytes, 900 * MIB);
    assert_int_equal(m.host.overhead_bytes, 0);
    struct plan_policy policy;
    struct plan *plan = mem_new(struct plan);
    plan_policy_default(&policy);
    policy.ctx = 4096;
    assert_int_equal(plan_place(model, &policy, &m, plan, NULL), RC_OK);
    assert_int_equal(plan->estimate.parts[0].overhead_bytes, 900 * MIB);
    assert_int_equal(plan->estimate.parts[0].overhead_loads, 1);
    bool told = false;
    for (uint32_t i = 0; i < plan->n_reasons; i++)
        told |= strstr(plan->reasons[i].text, "from 1 load.") != NULL;
    assert_true(told);
    free(plan);
    free(l);
    model_unref(model);
}

static void a_load_teaches_what_lies_beside_the_parts(void **state)
{
    (void)state;
    struct model *model = shape_model(&shape_llama_1b);
    struct plan_machine m = machine_with("Card");
    struct plan_params p;
    struct plan_estimate e;
    struct learn_sample s;
    plan_params_default(&p);
    p.ctx = 4096;
    p.gpu_layers = PLAN_ALL_LAYERS;
    assert_int_equal(plan_estimate(model, &p, m.devices, 1, &e, NULL), RC_OK);
    uint64_t parts = e.parts[0].model_bytes + e.parts[0].context_bytes + e.parts[0].compute_bytes;
    assert_true(learn_from_load(model, &e, 0, &m, "0.7.0", parts + 333 * MIB, &s));
    assert_int_equal(s.kind, LEARN_OVERHEAD);
    assert_true(s.value == 333.0 * MIB);
    assert_string_equal(s.key.device, "Card");
    assert_true(s.key.flash_attn);
    assert_true(learn_from_load(model, &e, 0, &m, "0.7.0", parts / 2, &s));
    assert_true(s.value == 0.0);
    /* the kernel counts mapped weights apart */
    const struct plan_part *host = &e.parts[1];
    uint64_t own = host->repack_bytes + host->context_bytes + host->compute_bytes;
    assert_true(learn_from_load(model, &e, 1, &m, "0.7.0", own + 50 * MIB, &s));
    assert_true(s.value == 50.0 * MIB);
    assert_string_equal(s.key.device, "CPU");
    assert_false(learn_from_load(model, &e, 2, &m, "0.7.0", 1, &s));
    assert_false(learn_from_load(model, &e, 0, &m, "0.7.0", 0, &s));
    m.devices[0].model[0] = '\0';
    assert_false(learn_from_load(model, &e, 0, &m, "0.7.0", parts, &s));
    model_unref(model);
}

/* ---- speeds ---- */

static void cpu_estimate(const struct model *model, struct plan_estimate *ret)
{
    struct plan_params p;
    plan_params_default(&p);
    p.ctx = 4096;
    assert_int_equal(plan_estimate(model, &p, NULL, 0, ret, NULL), RC_OK);
}

static void timings_correct_the_prediction(void **state)
{
    (void)state;
    struct model *model = shape_model(&shape_llama_1b), *other = shape_model(&shape_llama_8b);
    struct plan_machine m = machine_with("Card");
    struct plan_estimate e;
    struct learn_sample s[2];
    double prefill, decode, again_p, again_d;
    m.n_devices = 0;
    cpu_estimate(model, &e);
    plan_seconds(model, &e, &m, 0, 512, 100, &prefill, &decode);
    assert_true(prefill > 0 && decode > 0);
    struct plan_timing t = {.prompt_tokens = 512,
                            .prompt_seconds = 3 * prefill,
                            .decode_tokens = 100,
                            .decode_seconds = 1.5 * decode};
    struct plan_learned *l = table();
    assert_int_equal(learn_from_request(model, &e, &m, "0.7.0", &t, s), 2);
    assert_true(learn_add(l, &s[0]) && learn_add(l, &s[1]));
    struct plan_machine taught = m;
    plan_machine_learn(&taught, l, "0.7.0", model, true);
    plan_seconds(model, &e, &taught, 0, 512, 100, &again_p, &again_d);
    assert_true(fabs(again_p / (3 * prefill) - 1) < 1e-6);
    assert_true(fabs(again_d / (1.5 * decode) - 1) < 1e-6);
    struct plan_speed speed;
    plan_speed(model, &e, &taught, &speed);
    assert_int_equal(speed.decode_samples, 1);
    assert_int_equal(speed.prefill_samples, 1);
    /* the same sample from a machine that has learned: still the same ratio, not the ratio of ratios */
    struct learn_sample later[2];
    assert_int_equal(learn_from_request(model, &e, &taught, "0.7.0", &t, later), 2);
    assert_true(fabs(later[0].value / s[0].value - 1) < 1e-9);
    /* another model of the same kind profits */
    cpu_estimate(other, &e);
    double plain, better;
    plan_seconds(other, &e, &m, 0, 512, 0, &plain, &decode);
    plan_machine_learn(&m, l, "0.7.0", other, true);
    plan_seconds(other, &e, &m, 0, 512, 0, &better, &decode);
    assert_true(better > 2.5 * plain && better < 3.5 * plain);
    free(l);
    model_unref(model);
    model_unref(other);
}

static void short_requests_teach_nothing(void **state)
{
    (void)state;
    struct model *model = shape_model(&shape_llama_1b);
    struct plan_machine m = machine_with("Card");
    struct plan_estimate e;
    struct learn_sample s[2];
    m.n_devices = 0;
    cpu_estimate(model, &e);
    const struct plan_timing brief = {.prompt_tokens = LEARN_MIN_PROMPT - 1,
                                      .prompt_seconds = 1,
                                      .decode_tokens = LEARN_MIN_DECODE - 1,
                                      .decode_seconds = 1};
    assert_int_equal(learn_from_request(model, &e, &m, "0.7.0", &brief, s), 0);
    const struct plan_timing decode_only = {
        .prompt_tokens = 5, .prompt_seconds = 1, .decode_tokens = LEARN_MIN_DECODE, .decode_seconds = 1};
    assert_int_equal(learn_from_request(model, &e, &m, "0.7.0", &decode_only, s), 1);
    assert_int_equal(s[0].kind, LEARN_DECODE);
    const struct plan_timing hostile = {
        .prompt_tokens = UINT64_MAX, .prompt_seconds = 1, .decode_tokens = UINT64_MAX, .decode_seconds = -1};
    assert_int_equal(learn_from_request(model, &e, &m, "0.7.0", &hostile, s), 0);
    m.host.model[0] = '\0'; /* nowhere to file it */
    assert_int_equal(learn_from_request(model, &e, &m, "0.7.0", &decode_only, s), 0);
    model_unref(model);
}

/* ---- the model itself ---- */

static void depth_and_slower_memory_cost(void **state)
{
    (void)state;
    struct model *model = shape_model(&shape_llama_8b);
    struct plan_machine m = machine_with("Card");
    struct plan_estimate e;
    double p, near, far, slow;
    m.n_devices = 0;
    m.host.bandwidth_gbps = 40;
    m.host.bandwidth_core_gbps = 12;
    cpu_estimate(model, &e);
    plan_seconds(model, &e, &m, 0, 0, 16, &p, &near);
    plan_seconds(model, &e, &m, 4000, 0, 16, &p, &far);
    assert_true(far > near);
    m.host.bandwidth_gbps = 20;
    plan_seconds(model, &e, &m, 0, 0, 16, &p, &slow);
    assert_true(slow > 1.5 * near);
    model_unref(model);
}

static void active_experts_only_are_read(void **state)
{
    (void)state;
    struct model *model = shape_model(&shape_qwen3_30b);
    struct plan_machine m = machine_with("Card");
    struct plan_estimate e;
    double prefill, decode;
    m.n_devices = 0;
    cpu_estimate(model, &e);
    plan_seconds(model, &e, &m, 0, 0, 1, &prefill, &decode);
    double whole = (double)model->tensor_bytes / (1e9 * 60);
    assert_true(decode < whole);
    model_unref(model);
}

static void the_page_cache_makes_loading_faster(void **state)
{
    (void)state;
    struct model *model = shape_model(&shape_llama_8b);
    struct plan_machine m = machine_with("Card");
    struct plan_estimate e;
    struct plan_speed cold, half, warm;
    m.n_devices = 0;
    m.host.disk_gbps = 0.5;
    cpu_estimate(model, &e);
    plan_speed(model, &e, &m, &cold);
    m.host.file_cached = 0.5;
    plan_speed(model, &e, &m, &half);
    m.host.file_cached = 1;
    plan_speed(model, &e, &m, &warm);
    assert_true(warm.load_seconds < half.load_seconds && half.load_seconds < cold.load_seconds);
    m.host.file_cached = 7; /* nonsense is taken as all */
    plan_speed(model, &e, &m, &half);
    assert_true(half.load_seconds == warm.load_seconds);
    assert_true(plan_disk_share(model, &m.host, warm.load_seconds) == 0);
    m.host.file_cached = 0;
    double reading = (double)model->tensor_bytes / 0.5e9;
    assert_true(plan_disk_share(model, &m.host, reading) == 1);
    assert_true(plan_disk_share(model, &m.host, 2 * reading) == 0.5);
    assert_true(plan_disk_share(model, &m.host, 0) == 1); /* faster than it can be */
    model_unref(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_go_both_ways),
        cmocka_unit_test(one_odd_sample_moves_nothing),
        cmocka_unit_test(senseless_samples_are_refused),
        cmocka_unit_test(the_ring_forgets_the_oldest),
        cmocka_unit_test(models_of_like_size_count_more),
        cmocka_unit_test(an_unseen_key_takes_the_nearest),
        cmocka_unit_test(a_full_table_replaces_what_is_longest_unused),
        cmocka_unit_test(the_default_holds_until_enough_loads),
        cmocka_unit_test(more_than_the_default_counts_at_once),
        cmocka_unit_test(a_load_teaches_what_lies_beside_the_parts),
        cmocka_unit_test(timings_correct_the_prediction),
        cmocka_unit_test(short_requests_teach_nothing),
        cmocka_unit_test(depth_and_slower_memory_cost),
        cmocka_unit_test(active_experts_only_are_read),
        cmocka_unit_test(the_page_cache_makes_loading_faster),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
