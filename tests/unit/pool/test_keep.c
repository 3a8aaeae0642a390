/* Unit tests of how long instances stay, of looks that are no use, and of names with Ollama's tag. */
#include "fake.h"

#include <string.h>

static bool is_gone(struct fake *f, void *arg)
{
    return !instance_of(f, arg);
}

static void test_a_wish_replaces_the_ttl(void **state)
{
    struct fake *f = *state;
    struct answer a;
    f->settings[0].ttl_ms = 1;
    f->settings[0].settings_hash = 77;
    fake_set_models(f, 3);
    ask(f, "a", &a);
    must_get(&a);
    pool_keep(f->pool, &a.lease, UINT64_MAX);
    give_back(&a, false);
    fake_advance_ms(100000);
    fake_settle(f);
    assert_non_null(instance_of(f, "a"));
    assert_int_equal(instance_of(f, "a")->timer_for, TIMER_NONE);
    ask(f, "a", &a);
    must_get(&a);
    pool_keep(f->pool, &a.lease, 0);
    fake_settle(f);
    assert_non_null(instance_of(f, "a")); /* it is in use */
    give_back(&a, false);
    fake_run_until(f, is_gone, (void *)(uintptr_t) "a");
    assert_non_null(strstr(f->reasons.data, "unload a keep_alive"));
}

static void test_a_wish_does_not_outlive_its_instance(void **state)
{
    struct fake *f = *state;
    struct answer a;
    ask(f, "a", &a);
    must_get(&a);
    pool_keep(f->pool, &a.lease, 0);
    give_back(&a, false);
    fake_run_until(f, is_gone, (void *)(uintptr_t) "a");
    ask(f, "a", &a);
    must_get(&a);
    assert_true(instance_of(f, "a")->keep_ms == UINT64_MAX);
    give_back(&a, false);
    pool_keep(f->pool, &a.lease, 0); /* given back: nothing to keep */
    fake_settle(f);
    assert_non_null(instance_of(f, "a"));
}

static void test_what_is_pinned_leaves_no_sooner(void **state)
{
    struct fake *f = *state;
    struct answer a;
    struct err err;
    ask(f, "a", &a);
    must_get(&a);
    assert_int_equal(pool_pin(f->pool, STR("a"), true, &err), RC_OK);
    pool_keep(f->pool, &a.lease, 0);
    give_back(&a, false);
    fake_settle(f);
    assert_non_null(instance_of(f, "a"));
    assert_true(instance_of(f, "a")->keep_ms == UINT64_MAX);
}

static void test_a_look_is_no_use(void **state)
{
    struct fake *f = *state;
    struct answer a;
    struct pool_lease lease;
    struct err err;
    assert_false(pool_observe(f->pool, STR("a"), &lease, &err));
    assert_int_equal(err.code, RC_INVALID);
    assert_non_null(strstr(err.message, "not loaded"));
    assert_false(pool_observe(f->pool, STR("nothing"), &lease, &err));
    assert_int_equal(err.code, RC_NOT_FOUND);
    fake_settle(f);
    assert_null(instance_of(f, "a"));
    ask(f, "a", &a);
    must_get(&a);
    give_back(&a, false);
    uint64_t used = instance_of(f, "a")->last_used_ms;
    fake_advance_ms(1000);
    assert_true(pool_observe(f->pool, STR("a"), &lease, &err));
    assert_int_equal(lease.port, a.lease.port);
    assert_int_equal(instance_of(f, "a")->busy, 0);
    pool_release(f->pool, &lease, false);
    assert_int_equal(instance_of(f, "a")->last_used_ms, used);
}

static void test_a_tag_may_be_added_or_left_out(void **state)
{
    struct fake *f = *state;
    static const char *const aliases[] = {"name:latest"};
    f->settings[1].aliases = aliases;
    f->settings[1].n_aliases = 1;
    f->settings[1].settings_hash = 78;
    fake_set_models(f, 3);
    assert_string_equal(pool_resolve(f->pool, STR("a:latest")), "a");
    assert_string_equal(pool_resolve(f->pool, STR("name")), "b");
    assert_string_equal(pool_resolve(f->pool, STR("name:latest")), "b");
    assert_null(pool_resolve(f->pool, STR("a:other")));
    assert_null(pool_resolve(f->pool, STR("a:latest:latest")));
    assert_null(pool_resolve(f->pool, STR(":latest")));
    assert_null(pool_resolve(f->pool, STR("")));
}

static uint32_t context_of(struct fake *f, const char *id)
{
    return instance_of(f, id)->plan.estimate.params.ctx;
}

static void use(struct fake *f, const char *id)
{
    struct answer a;
    ask(f, id, &a);
    must_get(&a);
    give_back(&a, false);
    fake_settle(f);
}

static void test_context_is_a_wish(void **state)
{
    struct fake *f = *state;
    struct answer a;
    fake_model(f, "a")->facts.context_train = 32768;
    use(f, "a");
    uint64_t serial = instance_of(f, "a")->serial;
    pool_widen(f->pool, STR("a"), 4096); /* it has as much */
    pool_widen(f->pool, STR("nothing"), 8192);
    fake_settle(f);
    assert_int_equal(instance_of(f, "a")->serial, serial);
    ask(f, "a", &a);
    must_get(&a);
    pool_widen(f->pool, STR("a"), 8192); /* it is in use */
    give_back(&a, false);
    fake_settle(f);
    assert_int_equal(instance_of(f, "a")->serial, serial);
    pool_widen(f->pool, STR("a"), 8192);
    use(f, "a");
    assert_int_equal(context_of(f, "a"), 8192);
    assert_non_null(strstr(f->reasons.data, "unload a context"));
    pool_widen(f->pool, STR("a"), 1000000); /* no more than it was trained for */
    use(f, "a");
    assert_int_equal(context_of(f, "a"), 32768);
    serial = instance_of(f, "a")->serial;
    pool_widen(f->pool, STR("a"), 2000000);
    fake_settle(f);
    assert_int_equal(instance_of(f, "a")->serial, serial);
}

static void test_nobody_leaves_for_context(void **state)
{
    struct fake *f = *state;
    fake_model(f, "a")->facts.context_train = 32768;
    f->settings[1].policy.ctx = 2048;
    f->settings[1].settings_hash = 79;
    fake_set_models(f, 3);
    fake_model(f, "b")->facts.context_train = 32768;
    fake_options(f); /* asks the runtime what it can do */
    use(f, "b");
    pool_widen(f->pool, STR("c"), 16384); /* before its first load */
    use(f, "c");
    assert_int_equal(context_of(f, "c"), 16384);
    uint64_t serial = instance_of(f, "b")->serial;
    pool_widen(f->pool, STR("b"), 8192); /* the settings say how much */
    fake_settle(f);
    assert_int_equal(instance_of(f, "b")->serial, serial);
    pool_widen(f->pool, STR("a"), 16384); /* there is no room for a third one but by eviction */
    unsigned asked = f->n_asked;
    pool_widen(f->pool, STR("a"), 20000); /* nor is the planner asked again */
    assert_int_equal(f->n_asked, asked);
    use(f, "a");
    assert_int_equal(context_of(f, "a"), 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_wish_replaces_the_ttl, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_a_wish_does_not_outlive_its_instance, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_what_is_pinned_leaves_no_sooner, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_a_look_is_no_use, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_context_is_a_wish, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_nobody_leaves_for_context, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_a_tag_may_be_added_or_left_out, fake_setup, fake_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
