/* Memory that others take: who yields, when, and what comes back. */
#include "fake.h"
#include "pool/tenant.h"

#include <stdio.h>
#include <string.h>

/* Of 1000 MiB 100 are kept free; a tenant has `tenant` of them, our instances what they were placed with. */
static void see(struct fake *f, uint64_t tenant_mib)
{
    uint64_t used = tenant_mib * MIB;
    for (struct pool_instance *i = f->pool->instances; i; i = i->next) {
        i->anon_bytes = i->ready_ms ? i->reserve.host_bytes : 0; /* as /proc would tell at its end */
        used += instance_holds_memory(i) ? i->anon_bytes : 0;
    }
    fake_advance_ms(10);
    f->inventory.host.usable_free_bytes = used < 1000 * MIB ? 1000 * MIB - used : 0;
    f->others[0] = (struct proc_use){.pid = 77, .name = "python", .bytes = tenant_mib * MIB};
    f->n_others = tenant_mib > 0;
    fake_sample(f);
    fake_advance_ms(1); /* what follows is later than the sample */
    pool_inventory_changed(f->pool);
    fake_settle(f);
}

static void see_for(struct fake *f, uint64_t tenant_mib, uint64_t ms)
{
    see(f, tenant_mib);
    fake_advance_ms(ms);
    see(f, tenant_mib);
}

static void use_once(struct fake *f, const char *id)
{
    struct answer a;
    ask(f, id, &a);
    must_get(&a);
    fake_advance_ms(1000);
    give_back(&a, false);
    see(f, 0);
}

static bool reason_has(const struct fake *f, const char *text)
{
    return f->reasons.data && strstr(f->reasons.data, text) != NULL;
}

static int setup(void **state)
{
    int r = fake_setup(state);
    struct fake *f = *state;
    f->opt.host_reserve_bytes = 100 * MIB;
    fake_options(f);
    return r;
}

static void test_nothing_short(void **state)
{
    struct fake *f = *state;
    use_once(f, "a");
    use_once(f, "b"); /* 200 free, 100 of them kept */
    see_for(f, 100, 60000);
    see_for(f, 112, 60000); /* a little less than is kept is let be */
    assert_non_null(instance_of(f, "a"));
    assert_non_null(instance_of(f, "b"));
    assert_false(decided(f, "pressure "));
}

static void test_a_shallow_shortage_may_pass(void **state)
{
    struct fake *f = *state;
    use_once(f, "a");
    use_once(f, "b");
    see_for(f, 140, 1900);
    see_for(f, 100, 60000);
    see_for(f, 140, 1900); /* it counts anew */
    assert_false(decided(f, "evict a") || decided(f, "evict b"));
    fake_advance_ms(200);
    see(f, 140);
    assert_true(decided(f, "evict a")); /* it has been idle for longer */
    assert_false(decided(f, "evict b"));
    assert_true(reason_has(f, "evict a memory_taken"));
    assert_true(reason_has(f, "evict a yields"));
    struct pool_counters n;
    pool_counters(f->pool, &n);
    assert_int_equal(n.yields[YIELD_EVICT], 1);
    assert_int_equal(n.evictions, 1);
    see_for(f, 140, 60000); /* then nothing is short */
    assert_non_null(instance_of(f, "b"));
}

static void test_a_deep_one_does_not_wait(void **state)
{
    struct fake *f = *state;
    use_once(f, "a");
    use_once(f, "b");
    see(f, 170);
    assert_int_equal(times_decided(f, "evict a") + times_decided(f, "evict b"), 1);
    assert_true(decided(f, "pressure "));
    see(f, 0);
    assert_int_equal(times_decided(f, "pressure "), 2); /* calm again */
    assert_true(reason_has(f, "calm"));
}

static void test_who_leaves_is_not_counted_twice(void **state)
{
    struct fake *f = *state;
    fake_script(f, "a", (enum behaviour[]){CHILD_STUBBORN}, 1);
    use_once(f, "a");
    use_once(f, "b");
    see(f, 170);
    assert_true(decided(f, "evict a"));
    assert_int_equal(instance_of(f, "a")->state, POOL_DRAINING);
    see_for(f, 170, 5000); /* it is slow to end: its memory is on its way all the same */
    assert_false(decided(f, "evict b"));
    fake_kill(f, "a", 9);
    fake_settle(f);
    pool_inventory_changed(f->pool); /* the sample is older than its end */
    fake_settle(f);
    assert_false(decided(f, "evict b"));
}

static void test_both_leave_for_a_large_one(void **state)
{
    struct fake *f = *state;
    use_once(f, "a");
    use_once(f, "b");
    see(f, 700);
    assert_true(decided(f, "evict a"));
    see(f, 700); /* how much was short is seen only now */
    assert_true(decided(f, "evict b"));
}

static void test_off(void **state)
{
    struct fake *f = *state;
    f->opt.yields = false;
    fake_options(f);
    use_once(f, "a");
    see_for(f, 900, 60000);
    assert_non_null(instance_of(f, "a"));
    assert_false(decided(f, "evict a"));
}

static void test_a_load_is_no_shortage(void **state)
{
    struct fake *f = *state;
    struct answer b;
    use_once(f, "a");
    fake_script(f, "b", (enum behaviour[]){CHILD_HANG}, 1);
    ask(f, "b", &b);
    fake_settle(f);
    see_for(f, 0, 60000); /* 600 free, of which b will take 400 */
    see_for(f, 90, 60000);
    assert_non_null(instance_of(f, "a"));
    see(f, 160); /* what it will take is not there any more: the idle one leaves, not the load */
    assert_true(decided(f, "evict a"));
    assert_int_equal(instance_of(f, "b")->state, POOL_STARTING);
    pool_cancel(f->pool, b.wait);
}

static void test_busy_ones_end_first(void **state)
{
    struct fake *f = *state;
    struct answer a;
    ask(f, "a", &a);
    must_get(&a);
    see_for(f, 560, 60000); /* 40 free */
    assert_int_equal(instance_of(f, "a")->state, POOL_READY);
    assert_true(decided(f, "pressure "));
    give_back(&a, false);
    see(f, 560);
    assert_true(decided(f, "evict a"));
}

static void test_busy_ones_drain_when_it_is_critical(void **state)
{
    struct fake *f = *state;
    struct answer a, again;
    ask(f, "a", &a);
    must_get(&a);
    see(f, 590); /* 10 free */
    assert_true(reason_has(f, "critical"));
    assert_int_equal(instance_of(f, "a")->state, POOL_DRAINING);
    assert_true(f->n_alive == 1); /* its request goes on */
    ask(f, "a", &again);
    assert_int_equal(again.first, POOL_WAITING);
    see(f, 400);
    give_back(&a, false);
    must_get(&again); /* loaded again, in the room that its end left */
}

static void test_pinned_ones_are_last(void **state)
{
    struct fake *f = *state;
    f->settings[0].pin = true;
    f->settings[0].settings_hash = 2;
    fake_set_models(f, f->n_models);
    use_once(f, "a");
    use_once(f, "b");
    see_for(f, 160, 60000);
    assert_true(decided(f, "evict b"));
    see_for(f, 560, 60000); /* warn: 40 free */
    assert_non_null(instance_of(f, "a"));
    pool_pressure(f->pool, YIELD_CRITICAL);
    fake_settle(f);
    assert_true(decided(f, "evict a"));
    assert_int_equal(fake_model(f, "a")->started, 1);
    pool_pressure(f->pool, YIELD_CALM);
    see_for(f, 560, 60000);
    assert_int_equal(fake_model(f, "a")->started, 1);
    see(f, 0);
    fake_advance_ms(19000);
    see(f, 0);
    assert_int_equal(fake_model(f, "a")->started, 1); /* the tenant may come back */
    fake_advance_ms(2000);
    see(f, 0);
    assert_int_equal(fake_model(f, "a")->started, 2); /* pinned: nobody need ask */
    assert_int_equal(fake_model(f, "b")->started, 1);
    assert_non_null(instance_of(f, "a"));
}

static void test_the_kernel_hastens(void **state)
{
    struct fake *f = *state;
    use_once(f, "a");
    use_once(f, "b");
    see(f, 140);
    assert_false(decided(f, "evict a"));
    unsigned before = f->samples_wanted;
    pool_pressure(f->pool, YIELD_WARN);
    fake_settle(f);
    assert_true(decided(f, "evict a"));
    assert_true(decided(f, "pressure "));
    assert_true(f->samples_wanted > before);
    pool_pressure(f->pool, YIELD_WARN);
    fake_settle(f);
    assert_int_equal(times_decided(f, "pressure "), 1);
}

static void test_one_is_loaded_again_in_less(void **state)
{
    struct fake *f = *state;
    struct answer a;
    fake_model(f, "a")->least = 200 * MIB;
    use_once(f, "a");
    see(f, 600); /* 0 free: 100 short */
    assert_true(decided(f, "shrink a"));
    assert_false(decided(f, "evict a"));
    assert_true(reason_has(f, "shrink a yields_some"));
    fake_settle(f);
    see(f, 600);
    assert_int_equal(fake_model(f, "a")->started, 2); /* nobody asked for it */
    assert_int_equal(instance_of(f, "a")->reserve.host_bytes, 300 * MIB);
    see_for(f, 600, 60000);
    assert_int_equal(times_decided(f, "shrink a"), 1);
    ask(f, "a", &a);
    must_get(&a);
    give_back(&a, false);
    see(f, 600);
    assert_false(decided(f, "grow a"));
    see_for(f, 100, 60000);
    assert_true(decided(f, "grow a"));
    fake_settle(f);
    see(f, 100);
    assert_int_equal(fake_model(f, "a")->started, 3);
    assert_int_equal(instance_of(f, "a")->reserve.host_bytes, 400 * MIB);
    see_for(f, 100, 60000);
    assert_int_equal(times_decided(f, "grow a"), 1);
}

static void test_who_grows_step_by_step(void **state)
{
    struct fake *f = *state;
    fake_model(f, "a")->least = 100 * MIB;
    use_once(f, "a");
    see(f, 600);
    see(f, 600);
    assert_int_equal(instance_of(f, "a")->reserve.host_bytes, 300 * MIB);
    see(f, 700); /* it would do with 200, but was loaded a moment ago */
    assert_int_equal(times_decided(f, "shrink a"), 1);
    assert_true(decided(f, "evict a"));
    see(f, 700);
    use_once(f, "a");
    fake_advance_ms(60000);
    see(f, 800);
    assert_int_equal(times_decided(f, "shrink a"), 2);
}

static void test_nothing_grows_that_is_not_used(void **state)
{
    struct fake *f = *state;
    fake_model(f, "a")->least = 200 * MIB;
    use_once(f, "a");
    see(f, 600);
    see(f, 600);
    see_for(f, 0, 60000);
    assert_true(decided(f, "shrink a"));
    assert_false(decided(f, "grow a"));
}

static void test_a_request_takes_over_a_reload(void **state)
{
    struct fake *f = *state;
    struct answer a;
    fake_model(f, "a")->least = 200 * MIB;
    fake_script(f, "a", (enum behaviour[]){CHILD_STUBBORN}, 1);
    use_once(f, "a");
    see(f, 600);
    assert_true(decided(f, "shrink a"));
    ask(f, "a", &a); /* before its process is gone */
    assert_int_equal(a.first, POOL_WAITING);
    fake_kill(f, "a", 9);
    see(f, 600);
    must_get(&a);
    assert_int_equal(fake_model(f, "a")->started, 2);
    give_back(&a, false);
}

static void test_no_room_for_a_reload(void **state)
{
    struct fake *f = *state;
    fake_model(f, "a")->least = 200 * MIB;
    fake_script(f, "a", (enum behaviour[]){CHILD_STUBBORN}, 1);
    use_once(f, "a");
    use_once(f, "b");
    see(f, 200);
    assert_true(decided(f, "shrink a"));
    see(f, 500);
    instance_of(f, "a")->anon_bytes = 0; /* others took at once what it gave back */
    fake_kill(f, "a", 9);
    fake_settle(f);
    see(f, 500);
    assert_true(decided(f, "unload a"));
    assert_true(reason_has(f, "unload a no_room"));
    assert_int_equal(fake_model(f, "a")->started, 1);
    fake_settle(f);
}

static void test_an_unload_is_final(void **state)
{
    struct fake *f = *state;
    fake_model(f, "a")->least = 200 * MIB;
    fake_script(f, "a", (enum behaviour[]){CHILD_STUBBORN}, 1);
    use_once(f, "a");
    see(f, 600);
    assert_true(decided(f, "shrink a"));
    pool_unload(f->pool, STR("a"), true, NULL, NULL);
    fake_kill(f, "a", 9);
    see_for(f, 0, 60000);
    assert_int_equal(fake_model(f, "a")->started, 1);
}

/* A device: the driver names the others. */
static void test_a_gpu(void **state)
{
    struct fake *f = *state;
    use_once(f, "a");
    use_once(f, "b");
    struct hw_device *g = &f->inventory.devices[0];
    *g = (struct hw_device){.name = "CUDA0",
                            .valid = HW_MEMORY | HW_UUID | HW_PROCESSES,
                            .uuid = "GPU-1",
                            .total_bytes = 1000 * MIB,
                            .free_bytes = 400 * MIB,
                            .n_processes = 2,
                            .processes = {{.pid = 4242, .bytes = 500 * MIB, .bytes_valid = true},
                                          {.pid = 99, .bytes = 100 * MIB, .bytes_valid = true}}};
    f->inventory.n_devices = 1;
    struct pool_instance *a = instance_of(f, "a");
    a->reserve.rows[a->reserve.n++] =
        (struct reserve_row){.key = "GPU-1", .name = "CUDA0", .bytes = 500 * MIB};
    a->entry->policy.margin_bytes = 256 * MIB;
    a->plan.estimate.layers_gpu = 1; /* the planner of these tests has none: that is no way to shrink */
    see_for(f, 0, 60000);
    assert_non_null(instance_of(f, "a"));
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = pool_memory_json(f->pool, doc);
    yyjson_mut_val *row = yyjson_mut_arr_get(yyjson_mut_obj_get(o, "devices"), 0);
    assert_string_equal(yyjson_mut_get_str(yyjson_mut_obj_get(o, "pressure")), "calm");
    assert_string_equal(yyjson_mut_get_str(yyjson_mut_obj_get(row, "name")), "CUDA0");
    assert_int_equal(yyjson_mut_get_uint(yyjson_mut_obj_get(row, "own_bytes")), 500 * MIB);
    assert_int_equal(yyjson_mut_get_uint(yyjson_mut_obj_get(row, "foreign_bytes")), 100 * MIB);
    assert_int_equal(yyjson_mut_get_uint(yyjson_mut_obj_get(row, "kept_free_bytes")), 256 * MIB);
    yyjson_mut_val *others = yyjson_mut_obj_get(row, "others");
    assert_int_equal(yyjson_mut_arr_size(others), 1);
    assert_string_equal(yyjson_mut_get_str(yyjson_mut_obj_get(yyjson_mut_arr_get(others, 0), "name")),
                        "tenant-99");
    yyjson_mut_doc_free(doc);
    g->free_bytes = 50 * MIB;
    g->processes[1].bytes = 450 * MIB;
    see(f, 0);
    assert_true(decided(f, "evict a")); /* b has nothing there */
    assert_false(decided(f, "evict b"));
    assert_false(decided(f, "pressure ")); /* which is of the host */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_short, setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_a_shallow_shortage_may_pass, setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_a_deep_one_does_not_wait, setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_who_leaves_is_not_counted_twice, setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_both_leave_for_a_large_one, setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_off, setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_a_load_is_no_shortage, setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_busy_ones_end_first, setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_busy_ones_drain_when_it_is_critical, setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_pinned_ones_are_last, setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_the_kernel_hastens, setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_one_is_loaded_again_in_less, setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_who_grows_step_by_step, setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_nothing_grows_that_is_not_used, setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_a_request_takes_over_a_reload, setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_no_room_for_a_reload, setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_an_unload_is_final, setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_a_gpu, setup, fake_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
