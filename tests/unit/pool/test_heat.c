/* Devices that are too hot: the steps, what they do to requests and loads, and the way back. */
#include "fake.h"

#include <stdio.h>
#include <string.h>

/* ---- pure ---- */

static void test_steps_follow_each_other_in_time(void **state)
{
    (void)state;
    static const struct {
        enum pool_heat_level level;
        unsigned step;
        uint64_t since, next;
    } rows[] = {
        {POOL_HEAT_NONE, 0, 0, 0}, {POOL_HEAT_NONE, 0, 99, 0}, {POOL_HEAT_WARM, 0, 99, 0},
        {POOL_HEAT_HOT, 0, 0, 1},  {POOL_HEAT_HOT, 1, 9, 1},   {POOL_HEAT_HOT, 1, 10, 2},
        {POOL_HEAT_HOT, 2, 10, 3}, {POOL_HEAT_HOT, 3, 99, 3},  {POOL_HEAT_WARM, 3, 99, 3},
        {POOL_HEAT_NONE, 3, 9, 3}, {POOL_HEAT_NONE, 3, 10, 2}, {POOL_HEAT_NONE, 1, 10, 0},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        const struct heat_row row = {.now.level = rows[i].level, .step = rows[i].step, .moved_ms = 1000};
        assert_int_equal(heat_next(&row, 10, 1000 + rows[i].since), rows[i].next);
    }
}

static void test_every_step_asks_for_no_more_than_the_one_before(void **state)
{
    (void)state;
    for (uint32_t slots = 0; slots <= 64; slots++) {
        assert_int_equal(heat_share(0, slots), slots);
        for (unsigned s = 1; s <= HEAT_STEPS; s++) {
            assert_true(heat_share(s, slots) <= heat_share(s - 1, slots));
            assert_int_equal(heat_share(s, slots) > 0, slots > 0); /* nobody is shut out */
        }
    }
    for (unsigned s = 1; s <= HEAT_STEPS; s++)
        assert_true(heat_gap_ms(s) >= heat_gap_ms(s - 1) && heat_slowness(s) > heat_slowness(s - 1));
    assert_int_equal(heat_gap_ms(0), 0);
    assert_true(heat_slowness(0) == 1 && heat_gap_ms(HEAT_STEPS) <= 1000);
    assert_int_equal(heat_share(1, 4), 2);
    assert_int_equal(heat_share(2, 4), 1);
    assert_int_equal(heat_share(3, 16), 1);
}

/* ---- requests ---- */

static void heat_is(struct fake *f, enum pool_heat_level level, unsigned celsius)
{
    const struct pool_device_heat h = {
        .device = "Host", .level = level, .celsius = celsius, .critical_c = 90};
    pool_heat(f->pool, &h, 1);
}

static void to_step(struct fake *f, unsigned step)
{
    heat_is(f, POOL_HEAT_HOT, 91);
    while (pool_heat_step(f->pool, "Host") < step) {
        fake_advance_ms(f->opt.heat_dwell_ms);
        heat_is(f, POOL_HEAT_HOT, 92);
    }
}

/* Model a, loaded, nobody in its slots. */
static void load(struct fake *f, uint32_t slots)
{
    struct answer a;
    f->slots = slots;
    ask(f, "a", &a);
    must_get(&a);
    give_back(&a, false);
    fake_settle(f);
}

static void test_a_step_halves_what_runs_at_a_time(void **state)
{
    struct fake *f = *state;
    struct answer a[4];
    load(f, 4);
    to_step(f, 1);
    assert_true(decided(f, "heat a"));
    for (int i = 0; i < 4; i++)
        ask(f, "a", &a[i]);
    assert_int_equal(a[0].first, POOL_GRANTED);
    assert_int_equal(a[1].first, POOL_GRANTED);
    assert_int_equal(a[2].first, POOL_WAITING);
    assert_int_equal(a[3].first, POOL_WAITING); /* and nobody was refused */
    give_back(&a[0], false);
    must_get(&a[2]);
    fake_settle(f);
    assert_false(a[3].told);
    give_back(&a[1], false);
    must_get(&a[3]);
    give_back(&a[2], false);
    give_back(&a[3], false);
}

/* What runs when it becomes hot is let run. */
static void test_nothing_is_taken_back(void **state)
{
    struct fake *f = *state;
    struct answer a[4], late;
    load(f, 4);
    for (int i = 0; i < 4; i++)
        ask(f, "a", &a[i]);
    to_step(f, 1);
    assert_int_equal(instance_of(f, "a")->slots, 4);
    ask(f, "a", &late);
    assert_int_equal(late.first, POOL_WAITING);
    give_back(&a[0], false);
    give_back(&a[1], false);
    fake_settle(f);
    assert_false(late.told); /* two still run */
    give_back(&a[2], false);
    must_get(&late);
    give_back(&a[3], false);
    give_back(&late, false);
}

static void test_further_steps_space_requests_out(void **state)
{
    struct fake *f = *state;
    struct answer a, b, count;
    load(f, 4);
    to_step(f, HEAT_STEPS);
    fake_advance_ms(heat_gap_ms(HEAT_STEPS));
    ask(f, "a", &a);
    assert_int_equal(a.first, POOL_GRANTED);
    give_back(&a, false);
    ask(f, "a", &b);
    assert_int_equal(b.first, POOL_WAITING);
    const struct pool_request light = {.model = STR("a"), .light = true};
    ask_as(f, &light, &count); /* counting tokens heats nothing */
    assert_int_equal(count.first, POOL_GRANTED);
    give_back(&count, false);
    fake_settle(f);
    assert_false(b.told);
    fake_advance_ms(heat_gap_ms(HEAT_STEPS));
    must_get(&b); /* by the clock alone: no other event */
    give_back(&b, false);
}

static void test_up_again_step_by_step(void **state)
{
    struct fake *f = *state;
    load(f, 4);
    to_step(f, HEAT_STEPS);
    assert_int_equal(times_decided(f, "heat a"), HEAT_STEPS);
    fake_advance_ms(f->opt.heat_dwell_ms);
    heat_is(f, POOL_HEAT_WARM, 87);
    assert_int_equal(pool_heat_step(f->pool, "Host"), HEAT_STEPS); /* not yet cool */
    for (unsigned s = HEAT_STEPS; s > 0; s--) {
        heat_is(f, POOL_HEAT_NONE, 70);
        assert_int_equal(pool_heat_step(f->pool, "Host"), s - 1);
        heat_is(f, POOL_HEAT_NONE, 70);
        assert_int_equal(pool_heat_step(f->pool, "Host"), s - 1);
        fake_advance_ms(f->opt.heat_dwell_ms);
    }
    assert_int_equal(times_decided(f, "cool a"), HEAT_STEPS);
    assert_non_null(strstr(f->reasons.data, "cool a heat_over\n"));
    assert_int_equal(heat_slots(instance_of(f, "a")), 4);
    struct pool_counters c;
    pool_counters(f->pool, &c);
    assert_int_equal(c.heat_steps, HEAT_STEPS);
}

static void test_who_waits_is_served_when_it_has_cooled(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    load(f, 2);
    to_step(f, 1);
    ask(f, "a", &a);
    ask(f, "a", &b);
    assert_int_equal(b.first, POOL_WAITING);
    fake_advance_ms(f->opt.heat_dwell_ms);
    heat_is(f, POOL_HEAT_NONE, 70);
    must_get(&b);
    give_back(&a, false);
    give_back(&b, false);
}

/* A device that the instance does not compute on is none of its business. */
static void test_another_device(void **state)
{
    struct fake *f = *state;
    const struct pool_device_heat h = {
        .device = "CUDA0", .level = POOL_HEAT_HOT, .celsius = 99, .critical_c = 90};
    load(f, 4);
    pool_heat(f->pool, &h, 1);
    assert_int_equal(pool_heat_step(f->pool, "CUDA0"), 1);
    assert_int_equal(heat_slots(instance_of(f, "a")), 4);
    assert_false(decided(f, "heat a"));
}

static void test_more_devices_than_there_can_be(void **state)
{
    struct fake *f = *state;
    struct pool_device_heat h[HEAT_MAX_DEVICES + 3];
    for (size_t i = 0; i < TABLE_COUNT(h); i++) {
        h[i] = (struct pool_device_heat){.level = POOL_HEAT_HOT, .celsius = 99, .critical_c = 90};
        snprintf(h[i].device, sizeof h[i].device, "CUDA%zu", i);
    }
    pool_heat(f->pool, h, TABLE_COUNT(h));
    assert_int_equal(pool_heat_step(f->pool, "CUDA0"), 1);
    assert_int_equal(pool_heat_step(f->pool, h[HEAT_MAX_DEVICES].device), 0);
}

static void test_views_tell_it(void **state)
{
    struct fake *f = *state;
    load(f, 4);
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *i = yyjson_mut_arr_get_first(pool_json(f->pool, doc));
    assert_true(yyjson_mut_is_null(yyjson_mut_obj_get(i, "heat")));
    to_step(f, 2);
    i = yyjson_mut_arr_get_first(pool_json(f->pool, doc));
    yyjson_mut_val *heat = yyjson_mut_obj_get(i, "heat");
    assert_string_equal(yyjson_mut_get_str(yyjson_mut_obj_get(heat, "device")), "Host");
    assert_int_equal(yyjson_mut_get_uint(yyjson_mut_obj_get(heat, "step")), 2);
    assert_int_equal(yyjson_mut_get_uint(yyjson_mut_obj_get(heat, "slots_at_once")), 1);
    assert_int_equal(yyjson_mut_get_uint(yyjson_mut_obj_get(heat, "gap_ms")), heat_gap_ms(2));
    assert_int_equal(yyjson_mut_get_uint(yyjson_mut_obj_get(i, "slots")), 4);
    yyjson_mut_doc_free(doc);
}

/* ---- loads: a planner with two devices, which takes the one that it is told is faster ---- */

struct two {
    unsigned asked;
    struct plan_policy policies[4];
    bool only_first; /* the second has no room */
    bool refuses_less;
} two;

static enum rc pack_on_devices(const struct model *m, const struct plan_policy *policy,
                               const struct plan_machine *machine, const struct plan_resident *residents,
                               size_t n_residents, struct plan *plan, struct plan_victims *victims,
                               struct err *err)
{
    (void)m, (void)residents, (void)n_residents;
    assert_int_equal(machine->n_devices, 2);
    if (two.asked < TABLE_COUNT(two.policies))
        two.policies[two.asked] = *policy;
    two.asked++;
    if (two.refuses_less && (policy->gpu_layers_fixed || policy->ubatch))
        return err_set(err, RC_NO_FIT, "not like this");
    double first = machine->devices[0].taught.decode_factor,
           second = machine->devices[1].taught.decode_factor;
    uint32_t k = !two.only_first && first > (second > 0 ? second : 1) ? 1 : 0;
    uint32_t layers = policy->gpu_layers_fixed ? (uint32_t)policy->gpu_layers : 33;
    victims->n = 0;
    *plan = (struct plan){.fits = true, .smaller = PLAN_AS_ASKED, .n_used = 1, .used = {k}, .n_reasons = 1};
    reason_set(&plan->reasons[0], "single_gpu", "all of it on %s", machine->devices[k].name);
    plan->estimate = (struct plan_estimate){.n_parts = 2, .layers_gpu = layers, .layers_cpu = 33 - layers};
    plan->estimate.parts[0] = (struct plan_part){.kind = PLAN_GPU, .model_bytes = 100 * MIB};
    memcpy(plan->estimate.parts[0].name, machine->devices[k].name, sizeof plan->estimate.parts[0].name);
    plan->estimate.parts[1] = (struct plan_part){.name = "Host", .kind = PLAN_HOST};
    plan->estimate.params =
        (struct plan_params){.ctx = 4096, .parallel = 4, .ubatch = policy->ubatch ? policy->ubatch : 512};
    return RC_OK;
}

static void gpu_is(struct fake *f, unsigned step)
{
    struct pool_device_heat h = {.device = "CUDA0", .level = POOL_HEAT_HOT, .celsius = 94, .critical_c = 90};
    while (pool_heat_step(f->pool, "CUDA0") < step) {
        pool_heat(f->pool, &h, 1);
        fake_advance_ms(f->opt.heat_dwell_ms);
    }
}

static void two_devices(struct fake *f)
{
    two = (struct two){0};
    f->caps.n_devices = 2;
    for (unsigned k = 0; k < 2; k++) {
        snprintf(f->caps.devices[k].name, sizeof f->caps.devices[k].name, "CUDA%u", k);
        f->caps.devices[k].total_bytes = f->caps.devices[k].free_bytes = 1000 * MIB;
    }
    f->pool->deps.pack = pack_on_devices;
    fake_model(f, "a")->facts.path = (char *)(uintptr_t) "a";
}

static void set_settings(struct fake *f)
{
    f->settings[0].settings_hash++;
    fake_set_models(f, 1);
}

static const char *device_of(struct fake *f)
{
    return instance_of(f, "a")->reserve.rows[0].name;
}

static void test_a_load_goes_elsewhere(void **state)
{
    struct fake *f = *state;
    struct answer a;
    two_devices(f);
    gpu_is(f, 1);
    ask(f, "a", &a);
    must_get(&a);
    assert_string_equal(device_of(f), "CUDA1");
    assert_int_equal(two.asked, 1);
    give_back(&a, false);
}

static void test_a_load_without_a_choice_asks_less_of_it(void **state)
{
    struct fake *f = *state;
    struct answer a;
    two_devices(f);
    two.only_first = true;
    f->settings[0].policy.allow_cpu = true;
    set_settings(f);
    gpu_is(f, HEAT_STEPS);
    ask(f, "a", &a);
    must_get(&a);
    assert_string_equal(device_of(f), "CUDA0");
    const struct plan_estimate *e = &instance_of(f, "a")->plan.estimate;
    assert_int_equal(e->layers_gpu, 25);
    assert_int_equal(e->layers_cpu, 8);
    assert_int_equal(e->params.ubatch, 128);
    assert_non_null(strstr(f->reasons.data, "load a heat_less\n"));
    give_back(&a, false);
}

static void test_settings_are_not_touched(void **state)
{
    struct fake *f = *state;
    struct answer a;
    two_devices(f);
    two.only_first = true;
    f->settings[0].policy.ubatch = 512;
    f->settings[0].policy.gpu_layers = 33;
    f->settings[0].policy.gpu_layers_fixed = true;
    set_settings(f);
    gpu_is(f, HEAT_STEPS);
    ask(f, "a", &a);
    must_get(&a);
    assert_int_equal(two.asked, 1);
    assert_int_equal(instance_of(f, "a")->plan.estimate.params.ubatch, 512);
    give_back(&a, false);
}

static void test_less_that_does_not_fit_is_left(void **state)
{
    struct fake *f = *state;
    struct answer a;
    two_devices(f);
    two.only_first = two.refuses_less = true;
    gpu_is(f, HEAT_STEPS);
    ask(f, "a", &a);
    must_get(&a); /* loaded all the same */
    assert_int_equal(instance_of(f, "a")->plan.estimate.layers_gpu, 33);
    assert_null(strstr(f->reasons.data, "heat_less"));
    give_back(&a, false);
}

#define WITH_POOL(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps_follow_each_other_in_time),
        cmocka_unit_test(test_every_step_asks_for_no_more_than_the_one_before),
        WITH_POOL(test_a_step_halves_what_runs_at_a_time),
        WITH_POOL(test_nothing_is_taken_back),
        WITH_POOL(test_further_steps_space_requests_out),
        WITH_POOL(test_up_again_step_by_step),
        WITH_POOL(test_who_waits_is_served_when_it_has_cooled),
        WITH_POOL(test_another_device),
        WITH_POOL(test_more_devices_than_there_can_be),
        WITH_POOL(test_views_tell_it),
        WITH_POOL(test_a_load_goes_elsewhere),
        WITH_POOL(test_a_load_without_a_choice_asks_less_of_it),
        WITH_POOL(test_settings_are_not_touched),
        WITH_POOL(test_less_that_does_not_fit_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
