/* The life of instances: one load for many, failure and back-off, the ladder, crashes, timeouts, stopping. */
#include "fake.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static void test_twenty_waiters_one_load(void **state)
{
    struct fake *f = *state;
    struct answer a[20], late;
    for (int i = 0; i < 20; i++) {
        ask(f, "a", &a[i]);
        assert_int_equal(a[i].first, POOL_WAITING);
    }
    for (int i = 0; i < 20; i++) {
        must_get(&a[i]);
        assert_int_equal(a[i].order, i + 1); /* first come, first served */
        assert_int_equal(a[i].lease.port, a[0].lease.port);
        assert_string_equal(a[i].lease.model, "a");
    }
    assert_int_equal(fake_model(f, "a")->started, 1);
    ask(f, "a", &late);
    assert_int_equal(late.first, POOL_GRANTED);
    struct pool_counters c;
    pool_counters(f->pool, &c);
    assert_int_equal(c.loads, 1);
    assert_int_equal(c.waits, 20);
    assert_int_equal(c.leases, 21);
    assert_int_equal(c.waiting, 0);
    assert_int_equal(c.instances[POOL_READY], 1);
    give_back(&late, false);
    give_back(&late, false); /* a lease that was given back counts once */
    for (int i = 0; i < 20; i++)
        give_back(&a[i], false);
    pool_counters(f->pool, &c);
    assert_int_equal(c.leases, 0);
    assert_string_equal(f->decisions.data, "load a\nready a\n");
    assert_true(f->samples_wanted > 0);
    assert_int_equal(f->probes, 1);
}

static void test_cancelled_waiters_are_not_called(void **state)
{
    struct fake *f = *state;
    struct answer a[3];
    for (int i = 0; i < 3; i++)
        ask(f, "a", &a[i]);
    pool_cancel(f->pool, a[1].wait);
    must_get(&a[0]);
    must_get(&a[2]);
    assert_false(a[1].told);
    assert_int_equal(instance_of(f, "a")->busy, 2);
}

static void test_load_goes_on_without_waiters(void **state)
{
    struct fake *f = *state;
    struct answer a;
    ask(f, "a", &a);
    pool_cancel(f->pool, a.wait);
    ask(f, "a", &a);
    must_get(&a);
    assert_int_equal(fake_model(f, "a")->started, 1);
}

static void test_waiting_is_bounded(void **state)
{
    struct fake *f = *state;
    struct answer a, b, c;
    f->opt.max_waiting = 2;
    fake_options(f);
    ask(f, "a", &a);
    ask(f, "a", &b);
    ask(f, "a", &c);
    assert_int_equal(c.first, POOL_REFUSED);
    assert_int_equal(c.rc, RC_TOO_MANY);
    assert_true(c.retry_after_s >= 1 && c.err.hint[0]);
    must_get(&b);
}

static bool one_waits_less(struct fake *f, void *arg)
{
    (void)arg;
    struct pool_counters c;
    pool_counters(f->pool, &c);
    return c.waiting == 0;
}

static void test_queue_wait_ends_a_wait(void **state)
{
    struct fake *f = *state;
    struct answer a;
    fake_script(f, "a", (enum behaviour[]){CHILD_HANG}, 1);
    f->opt.queue_wait_ms = 5000;
    fake_options(f);
    ask(f, "a", &a);
    fake_settle(f);
    assert_false(a.told);
    fake_advance_ms(5000);
    fake_run_until(f, one_waits_less, NULL);
    assert_int_equal(a.rc, RC_BUSY);
    assert_true(a.retry_after_s >= 1);
    assert_int_equal(instance_of(f, "a")->state, POOL_STARTING); /* the load goes on */
}

/* ---- failure ---- */

static void test_failure_backs_off_and_doubles(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    enum behaviour dies[16];
    for (int i = 0; i < 16; i++)
        dies[i] = CHILD_DIES;
    fake_script(f, "a", dies, 16);
    uint32_t expected[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300};
    for (size_t i = 0; i < TABLE_COUNT(expected); i++) {
        ask(f, "a", &a);
        ask(f, "a", &b);
        assert_int_equal(a.first, POOL_WAITING);
        until_told(&a);
        until_told(&b);
        assert_int_equal(a.rc, RC_BACKEND);
        assert_int_equal(b.rc, RC_BACKEND);
        assert_int_equal(a.retry_after_s, expected[i]);
        assert_non_null(strstr(a.err.message, "child ended with"));
        fake_advance_ms(expected[i] * 1000ull - 1);
        ask(f, "a", &a); /* still held back: the cause is told at once, nothing is started */
        assert_int_equal(a.first, POOL_REFUSED);
        assert_int_equal(a.rc, RC_BACKEND);
        assert_int_equal(a.retry_after_s, 1);
        assert_non_null(strstr(a.err.message, "child ended with"));
        fake_advance_ms(1);
    }
    assert_int_equal(fake_model(f, "a")->started, TABLE_COUNT(expected));
    f->models[0].at = f->models[0].n_script; /* now it would work */
    ask(f, "a", &a);
    must_get(&a);
    give_back(&a, false);
    fake_kill(f, "a", SIGSEGV); /* a success forgot the failures: this is a first crash */
    fake_settle(f);
    ask(f, "a", &a);
    must_get(&a);
}

static void on_done(void *arg, enum rc rc, const struct err *err)
{
    assert_true((rc == RC_OK) == (err == NULL));
    *(int *)arg = rc;
}

static bool is_done(struct fake *f, void *arg)
{
    (void)f;
    return *(int *)arg != 1;
}

static void test_operator_load_resets_back_off(void **state)
{
    struct fake *f = *state;
    struct answer a;
    int rc = 1;
    fake_script(f, "a", (enum behaviour[]){CHILD_DIES, CHILD_DIES}, 2);
    ask(f, "a", &a);
    until_told(&a);
    pool_load(f->pool, STR("a"), on_done, &rc);
    fake_run_until(f, is_done, &rc);
    assert_int_equal(rc, RC_BACKEND);
    rc = 1;
    pool_load(f->pool, STR("a"), on_done, &rc);
    fake_run_until(f, is_done, &rc);
    assert_int_equal(rc, RC_OK);
    rc = 1;
    pool_load(f->pool, STR("a"), on_done, &rc); /* loaded already */
    assert_int_equal(rc, RC_OK);
    pool_load(f->pool, STR("nothing"), on_done, &rc);
    assert_int_equal(rc, RC_NOT_FOUND);
    assert_int_equal(fake_model(f, "a")->started, 3);
}

static void test_memory_takes_steps_down(void **state)
{
    struct fake *f = *state;
    struct answer a;
    f->fresh = true;
    fake_script(f, "a", (enum behaviour[]){CHILD_DIES_MEMORY, CHILD_DIES_MEMORY}, 2);
    ask(f, "a", &a);
    must_get(&a);
    assert_int_equal(times_decided(f, "ladder a"), 2);
    assert_int_equal(f->n_asked, 3);
    assert_int_equal(f->ladders_asked[0], 0);
    assert_int_equal(f->ladders_asked[1], 1);
    assert_int_equal(f->ladders_asked[2], 2);
    assert_true(instance_of(f, "a")->plan.estimate.parts[0].model_bytes == 100 * MIB);
    give_back(&a, false);
    fake_kill(f, "a", SIGKILL);
    fake_settle(f);
    ask(f, "a", &a);
    must_get(&a);
    assert_int_equal(f->ladders_asked[3], 2); /* what worked is tried first */
}

/* What somebody took between plan and load is no reason for a step down: the plan is made anew for the rest.
 */
static void test_memory_taken_meanwhile(void **state)
{
    struct fake *f = *state;
    struct answer a;
    struct pool_counters n;
    f->caps.rpc = true;
    f->inventory.devices[0] = (struct hw_device){.name = "RPC0",
                                                 .uuid = "10.0.0.1:50052",
                                                 .valid = HW_MEMORY | HW_UUID,
                                                 .total_bytes = 900 * MIB,
                                                 .free_bytes = 900 * MIB};
    f->inventory.n_devices = 1;
    fake_script(f, "a", (enum behaviour[]){CHILD_HANG}, 1);
    ask(f, "a", &a);
    fake_settle(f);
    struct pool_instance *i = instance_of(f, "a");
    i->reserve.rows[i->reserve.n++] =
        (struct reserve_row){.key = "10.0.0.1:50052", .name = "RPC0", .bytes = 900 * MIB};
    fake_advance_ms(5);
    struct err cause;
    (void)err_set(&cause, RC_NOMEM, "out of memory");
    load_failed(i, RUNTIME_FAIL_MEMORY, &cause);
    fake_settle(f);
    assert_null(instance_of(f, "a")); /* it waits for a sample of after that */
    f->inventory.devices[0].free_bytes = 500 * MIB;
    fake_sample(f);
    pool_inventory_changed(f->pool);
    must_get(&a);
    assert_int_equal(f->ladders_asked[f->n_asked - 1], 0);
    pool_counters(f->pool, &n);
    assert_int_equal(n.ladder_steps, 1);
    give_back(&a, false);
}

/* A driver that hangs keeps no load waiting for a sample. */
static void test_no_sample_after_a_failure(void **state)
{
    struct fake *f = *state;
    struct answer a;
    f->opt.patience_ms = 0;
    fake_options(f);
    fake_advance_ms(5);
    fake_script(f, "a", (enum behaviour[]){CHILD_DIES_MEMORY}, 1);
    ask(f, "a", &a);
    fake_settle(f);
    assert_true(decided(f, "ladder a"));
    assert_false(a.told);
    fake_advance_ms(POOL_SAMPLE_MS);
    must_get(&a);
    assert_int_equal(f->ladders_asked[1], 1);
    give_back(&a, false);
}

static void test_the_ladder_ends(void **state)
{
    struct fake *f = *state;
    struct answer a;
    enum behaviour dies[POOL_MAX_LADDER + 2];
    f->fresh = true;
    for (size_t i = 0; i < TABLE_COUNT(dies); i++)
        dies[i] = CHILD_DIES_MEMORY;
    fake_script(f, "a", dies, TABLE_COUNT(dies));
    ask(f, "a", &a);
    until_told(&a);
    assert_int_equal(a.rc, RC_BACKEND);
    assert_int_equal(fake_model(f, "a")->started, POOL_MAX_LADDER + 1);
    assert_non_null(strstr(a.err.hint, "17 ways"));
    assert_true(a.retry_after_s > 0);
}

static void test_a_taken_port_is_replaced(void **state)
{
    struct fake *f = *state;
    struct answer a;
    fake_script(f, "a", (enum behaviour[]){CHILD_DIES_PORT, CHILD_DIES_PORT}, 2);
    ask(f, "a", &a);
    must_get(&a);
    assert_int_equal(fake_model(f, "a")->started, 3);
    assert_int_equal(a.lease.port, fake_model(f, "a")->ports[2]);
    assert_string_equal(f->decisions.data, "load a\nready a\n");
}

static void test_ports_are_not_tried_forever(void **state)
{
    struct fake *f = *state;
    struct answer a;
    fake_script(f, "a",
                (enum behaviour[]){CHILD_DIES_PORT, CHILD_DIES_PORT, CHILD_DIES_PORT, CHILD_DIES_PORT}, 4);
    ask(f, "a", &a);
    until_told(&a);
    assert_int_equal(a.rc, RC_BACKEND);
    assert_int_equal(fake_model(f, "a")->started, POOL_PORT_TRIES);
}

static void test_a_load_that_hangs_times_out(void **state)
{
    struct fake *f = *state;
    struct answer a;
    fake_script(f, "a", (enum behaviour[]){CHILD_HANG}, 1);
    ask(f, "a", &a);
    fake_settle(f);
    assert_false(a.told);
    fake_advance_ms(f->opt.load_timeout_ms);
    until_told(&a);
    assert_int_equal(a.rc, RC_BACKEND);
    assert_non_null(strstr(a.err.message, "no progress for 300 s"));
    assert_true(decided(f, "fail a"));
    fake_settle(f);
    assert_int_equal(f->n_jobs, 0); /* killed */
}

static void test_bad_file_and_missing_runtime(void **state)
{
    struct fake *f = *state;
    struct answer a;
    f->bad_facts = true;
    ask(f, "a", &a);
    until_told(&a);
    assert_int_equal(a.rc, RC_BACKEND); /* the server's trouble, not the client's */
    assert_non_null(strstr(a.err.message, "shorter than its tensors"));
    f->bad_facts = false;
    f->no_runtime = true;
    ask(f, "b", &a);
    until_told(&a);
    assert_int_equal(a.rc, RC_BACKEND);
    assert_string_equal(a.err.hint, "install it");
    f->no_runtime = false;
    fake_advance_ms(1000);
    ask(f, "b", &a);
    must_get(&a);
}

static void test_what_never_fits(void **state)
{
    struct fake *f = *state;
    struct answer a;
    for (int i = 0; i < 2; i++) { /* no back-off: the answer is not a failure that may pass by itself */
        ask(f, "huge", &a);
        assert_int_equal(a.first, POOL_WAITING);
        until_told(&a);
        assert_int_equal(a.rc, RC_NO_FIT);
        assert_non_null(strstr(a.err.message, "huge needs 4000000 MiB"));
        assert_true(a.err.hint[0]);
        assert_int_equal(a.retry_after_s, 0);
    }
    assert_int_equal(fake_model(f, "huge")->started, 0);
    assert_int_equal(times_decided(f, "refuse huge"), 2);
}

/* ---- crashes ---- */

static bool has_record(struct fake *f, void *arg)
{
    return entry_find(f->pool, str_from(arg))->record != NULL;
}

static void test_first_crash_reloads_at_once_a_series_waits(void **state)
{
    struct fake *f = *state;
    struct answer a;
    ask(f, "a", &a);
    must_get(&a);
    fake_kill(f, "a", SIGKILL);
    fake_run_until(f, has_record, "a");
    assert_true(decided(f, "crash a"));
    give_back(&a, true); /* the broken lease comes back later than the end */
    ask(f, "a", &a);
    must_get(&a);
    give_back(&a, false);
    fake_advance_ms(1000);
    fake_kill(f, "a", SIGKILL);
    fake_run_until(f, has_record, "a");
    ask(f, "a", &a);
    assert_int_equal(a.first, POOL_REFUSED);
    assert_int_equal(a.retry_after_s, 1);
    fake_advance_ms(1000);
    ask(f, "a", &a);
    must_get(&a);
    give_back(&a, false);
    fake_advance_ms(POOL_CRASH_MEMORY); /* long after: a first crash again */
    fake_kill(f, "a", SIGKILL);
    fake_run_until(f, has_record, "a");
    ask(f, "a", &a);
    must_get(&a);
    struct pool_counters c;
    pool_counters(f->pool, &c);
    assert_int_equal(c.crashes, 3);
    assert_int_equal(c.loads, 4);
}

static void test_broken_lease_checks_health_first(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    ask(f, "a", &a);
    must_get(&a);
    give_back(&a, true);
    ask(f, "a", &b); /* held until it is known whether the server lives */
    assert_int_equal(b.first, POOL_WAITING);
    must_get(&b);
    assert_int_equal(fake_model(f, "a")->started, 1);
    give_back(&b, true);
    ask(f, "a", &b);
    assert_int_equal(b.first, POOL_WAITING);
    fake_kill(f, "a", SIGKILL); /* it was dead indeed: who waits gets the next one */
    must_get(&b);
    assert_int_equal(fake_model(f, "a")->started, 2);
}

static void test_a_mute_server_is_replaced(void **state)
{
    struct fake *f = *state;
    struct answer a;
    ask(f, "a", &a);
    must_get(&a);
    fake_mute(f, "a");
    give_back(&a, true);
    ask(f, "a", &a);
    must_get(&a);
    assert_int_equal(fake_model(f, "a")->started, 2);
    assert_true(decided(f, "crash a"));
    assert_int_equal(f->max_alive, 1); /* the mute one was killed first */
}

/* ---- stopping ---- */

static bool is_gone(struct fake *f, void *arg)
{
    return instance_of(f, arg) == NULL;
}

static void test_idle_unload(void **state)
{
    struct fake *f = *state;
    struct answer a;
    f->settings[0].ttl_ms = 1;
    f->settings[0].settings_hash = 2;
    fake_set_models(f, f->n_models);
    ask(f, "a", &a);
    must_get(&a);
    fake_settle(f);
    assert_int_equal(instance_of(f, "a")->state, POOL_READY); /* not while it is used */
    give_back(&a, false);
    fake_run_until(f, is_gone, "a");
    assert_string_equal(f->decisions.data, "load a\nready a\nunload a\n");
    ask(f, "a", &a);
    must_get(&a);
}

static void test_a_stubborn_child_is_killed(void **state)
{
    struct fake *f = *state;
    int rc = 1;
    struct answer a;
    f->opt.stop_timeout_ms = 1;
    fake_options(f);
    fake_script(f, "a", (enum behaviour[]){CHILD_STUBBORN}, 1);
    ask(f, "a", &a);
    must_get(&a);
    give_back(&a, false);
    pool_unload(f->pool, STR("a"), false, on_done, &rc);
    fake_run_until(f, is_done, &rc);
    assert_int_equal(rc, RC_OK);
    assert_int_equal(f->n_jobs, 0);
}

static void on_stop(void *arg)
{
    ((struct fake *)arg)->stopped = true;
}

static bool is_stopped(struct fake *f, void *arg)
{
    (void)arg;
    return f->stopped;
}

static void test_stop_waits_for_leases(void **state)
{
    struct fake *f = *state;
    struct answer a, b, c;
    fake_script(f, "b", (enum behaviour[]){CHILD_HANG}, 1);
    ask(f, "a", &a);
    must_get(&a);
    ask(f, "b", &b);
    fake_settle(f);
    pool_stop(f->pool, false, on_stop, f);
    until_told(&b);
    assert_int_equal(b.rc, RC_BUSY);
    ask(f, "a", &c);
    assert_int_equal(c.first, POOL_REFUSED);
    assert_int_equal(c.rc, RC_BUSY);
    fake_settle(f);
    assert_false(f->stopped);
    assert_int_equal(instance_of(f, "a")->state, POOL_DRAINING);
    give_back(&a, false);
    fake_run_until(f, is_stopped, NULL);
}

static void test_stop_in_a_hurry(void **state)
{
    struct fake *f = *state;
    struct answer a;
    fake_script(f, "a", (enum behaviour[]){CHILD_STUBBORN}, 1);
    ask(f, "a", &a);
    must_get(&a);
    pool_stop(f->pool, false, on_stop, f);
    pool_stop(f->pool, true, NULL, NULL); /* the first callback counts */
    fake_settle(f);
    give_back(&a, true);
    fake_run_until(f, is_stopped, NULL);
}

static void test_stop_during_preparation(void **state)
{
    struct fake *f = *state;
    struct answer a;
    ask(f, "a", &a); /* the work pool reads its facts right now */
    pool_stop(f->pool, true, on_stop, f);
    assert_true(a.told);
    fake_run_until(f, is_stopped, NULL);
    assert_int_equal(fake_model(f, "a")->started, 0);
}

static void test_drain_has_an_end(void **state)
{
    struct fake *f = *state;
    struct answer a;
    int rc = 1;
    f->opt.drain_timeout_ms = 1;
    fake_options(f);
    ask(f, "a", &a);
    must_get(&a);
    pool_unload(f->pool, STR("a"), false, on_done, &rc);
    fake_run_until(f, is_done, &rc); /* though the lease is out */
    give_back(&a, true);
}

static void test_state_words(void **state)
{
    (void)state;
    for (int s = 0; s < POOL_STATES; s++)
        assert_true(strlen(pool_state_word((enum pool_state)s)) > 3);
    assert_string_equal(pool_state_word(POOL_STATES), "unknown");
}

static void test_options_are_checked(void **state)
{
    (void)state;
    struct pool_options o;
    struct pool *p = NULL;
    struct err err;
    pool_options_default(&o);
    assert_int_equal(pool_new_with(&o, &(struct pool_deps){0}, &p, &err), RC_INVALID);
    assert_null(p);
    pool_free(NULL);
}

#define LIFE(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIFE(test_twenty_waiters_one_load),
        LIFE(test_cancelled_waiters_are_not_called),
        LIFE(test_load_goes_on_without_waiters),
        LIFE(test_waiting_is_bounded),
        LIFE(test_queue_wait_ends_a_wait),
        LIFE(test_failure_backs_off_and_doubles),
        LIFE(test_operator_load_resets_back_off),
        LIFE(test_memory_takes_steps_down),
        LIFE(test_memory_taken_meanwhile),
        LIFE(test_no_sample_after_a_failure),
        LIFE(test_the_ladder_ends),
        LIFE(test_a_taken_port_is_replaced),
        LIFE(test_ports_are_not_tried_forever),
        LIFE(test_a_load_that_hangs_times_out),
        LIFE(test_bad_file_and_missing_runtime),
        LIFE(test_what_never_fits),
        LIFE(test_first_crash_reloads_at_once_a_series_waits),
        LIFE(test_broken_lease_checks_health_first),
        LIFE(test_a_mute_server_is_replaced),
        LIFE(test_idle_unload),
        LIFE(test_a_stubborn_child_is_killed),
        LIFE(test_stop_waits_for_leases),
        LIFE(test_stop_in_a_hurry),
        LIFE(test_stop_during_preparation),
        LIFE(test_drain_has_an_end),
        cmocka_unit_test(test_state_words),
        cmocka_unit_test(test_options_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
