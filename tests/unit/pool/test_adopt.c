/* Instances that outlive the pool: on the roster before they start, off it at their end, left at the stop,
 * and what the next pool makes of them. Written down as this very process, which lives. */
#include "fake.h"

#include "os/file.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char dir[64], logs[80];

static int setup(void **state)
{
    snprintf(dir, sizeof dir, "/tmp/arr-roster-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(logs, sizeof logs, "%s/logs", dir);
    fake_setup(state);
    struct fake *f = *state;
    f->opt.roster_dir = dir;
    f->opt.log_dir = logs;
    fake_options(f);
    return 0;
}

static int teardown(void **state)
{
    fake_teardown(state);
    char path[128];
    snprintf(path, sizeof path, "%s/%ld.json", dir, (long)getpid());
    (void)!unlink(path);
    assert_int_equal(rmdir(dir), 0); /* and nothing else was left there */
    return 0;
}

static char *row_path(char *out, size_t cap)
{
    snprintf(out, cap, "%s/%ld.json", dir, (long)getpid());
    return out;
}

static bool is_written(void)
{
    char path[128];
    return file_exists(row_path(path, sizeof path));
}

static struct roster_row *row(void)
{
    char path[128];
    struct buf text = {0};
    struct err err;
    struct roster_row *r;
    assert_int_equal(file_read(row_path(path, sizeof path), 0, &text, &err), RC_OK);
    if (roster_parse(buf_str(&text), &r, &err) != RC_OK)
        fail_msg("%s", err.message);
    buf_release(&text);
    return r;
}

static void load(struct fake *f, const char *id)
{
    struct answer a;
    ask(f, id, &a);
    must_get(&a);
    give_back(&a, false);
}

static bool is_adopted(struct fake *f, void *arg)
{
    (void)arg;
    return decided(f, "adopt a");
}

/* Model a was loaded by a pool that has gone. */
static void leave_a(struct fake *f)
{
    load(f, "a");
    fake_stop(f);
    assert_int_equal(f->n_left, 1);
    assert_true(is_written());
    buf_clear(&f->decisions);
    buf_clear(&f->reasons);
}

static void adopt(struct fake *f)
{
    fake_new_pool(f);
    pool_adopt(f->pool, roster_scan(dir));
}

static void test_it_is_written_before_it_starts_and_again_when_it_is_ready(void **state)
{
    struct fake *f = *state;
    struct answer a;
    fake_script(f, "a", (enum behaviour[]){CHILD_HANG}, 1);
    ask(f, "a", &a);
    fake_settle(f);
    struct roster_row *r = row();
    assert_false(r->ready);
    assert_string_equal(r->model, "a");
    assert_int_equal(r->reserve.host_bytes, instance_of(f, "a")->reserve.host_bytes);
    assert_true(r->reserve.host_bytes >= 400 * MIB);
    assert_int_equal(r->port, fake_model(f, "a")->ports[0]);
    roster_row_free(r);
    pool_unload(f->pool, STR("a"), true, NULL, NULL);
    fake_settle(f);
    assert_false(is_written());
    load(f, "b");
    r = row();
    assert_true(r->ready && r->command_hash);
    assert_string_equal(r->path, "/m/b");
    assert_string_equal(r->log, "b.log");
    roster_row_free(r);
    fake_kill(f, "b", 9);
    fake_settle(f);
    assert_false(is_written());
}

static void test_without_a_roster_nothing_is_left(void **state)
{
    struct fake *f = *state;
    f->opt.roster_dir = NULL;
    fake_options(f);
    load(f, "a");
    assert_false(is_written());
    fake_stop(f);
    assert_int_equal(f->n_left, 0);
    assert_true(decided(f, "unload a"));
}

static void test_what_cannot_be_written_down_is_started_all_the_same(void **state)
{
    struct fake *f = *state;
    f->opt.roster_dir = "/nowhere/at/all";
    fake_options(f);
    load(f, "a");
    assert_true(decided(f, "attach a"));
    fake_stop(f);
    assert_int_equal(f->n_left, 0);
}

static void test_the_next_pool_takes_it_over_without_a_load(void **state)
{
    struct fake *f = *state;
    struct answer a;
    struct pool_counters c;
    leave_a(f);
    adopt(f);
    assert_int_equal(instance_of(f, "a")->state, POOL_STARTING);
    assert_true(instance_of(f, "a")->reserve.host_bytes >= 400 * MIB); /* from the first moment */
    ask(f, "a", &a);
    must_get(&a);
    assert_int_equal(a.lease.port, f->left.port);
    assert_string_equal(a.lease.instance, "a#1");
    assert_int_equal(fake_model(f, "a")->started, 1);
    pool_counters(f->pool, &c);
    assert_int_equal(c.loads, 0);
    assert_int_equal(c.adoptions, 1);
    assert_string_equal(f->decisions.data, "adopt a\n");
    struct pool_instance *i = instance_of(f, "a");
    assert_true(i->adopted && i->facts && i->plan.estimate.n_parts == 1);
    assert_int_equal(i->measured.parts[0].model_bytes, 399 * MIB);
    give_back(&a, false);
    /* it lives as any other: it is left again, and again taken over */
    fake_stop(f);
    assert_int_equal(f->n_left, 2);
    adopt(f);
    fake_run_until(f, is_adopted, NULL);
    /* or it is unloaded, and gone for good */
    pool_unload(f->pool, STR(""), false, NULL, NULL);
    fake_settle(f);
    assert_int_equal(f->n_alive, 0);
    assert_false(is_written());
    load(f, "a");
    assert_string_equal(instance_of(f, "a")->id, "a#2");
}

static void test_it_leaves_for_others_as_any_other(void **state)
{
    struct fake *f = *state;
    leave_a(f);
    adopt(f);
    fake_run_until(f, is_adopted, NULL);
    fake_sample(f);
    f->inventory.host.usable_free_bytes = 600 * MIB; /* the sample shows what it takes */
    load(f, "b");
    f->inventory.host.usable_free_bytes = 200 * MIB;
    fake_advance_ms(10);
    fake_sample(f);
    load(f, "c");
    assert_true(decided(f, "evict a") || decided(f, "evict b"));
}

static void test_changed_settings_end_it(void **state)
{
    struct fake *f = *state;
    leave_a(f);
    f->settings[0].settings_hash = 2;
    adopt(f);
    fake_settle(f);
    assert_string_equal(f->reasons.data, "unload a not_adopted\n");
    assert_int_equal(f->n_adopted, 1);
    assert_int_equal(f->n_alive, 0); /* it was asked to end */
    assert_false(is_written());
    load(f, "a");
    assert_int_equal(fake_model(f, "a")->started, 2);
}

static void test_a_model_that_is_gone_ends_it(void **state)
{
    struct fake *f = *state;
    leave_a(f);
    f->settings[0] = f->settings[1];
    adopt(f);
    fake_settle(f);
    assert_string_equal(f->reasons.data, "unload a not_adopted\n");
    assert_int_equal(f->n_alive, 0);
}

static void test_a_roster_that_is_off_ends_it(void **state)
{
    struct fake *f = *state;
    leave_a(f);
    f->opt.roster_dir = NULL;
    adopt(f);
    fake_settle(f);
    assert_string_equal(f->reasons.data, "unload a not_adopted\n");
    assert_int_equal(f->n_alive, 0);
}

static void test_a_stubborn_one_is_killed(void **state)
{
    struct fake *f = *state;
    leave_a(f);
    f->settings[0].settings_hash = 2;
    f->left.behaviour = CHILD_STUBBORN;
    f->opt.stop_timeout_ms = 20;
    adopt(f);
    fake_settle(f);
    while (f->n_alive)
        uv_run(&f->loop, UV_RUN_ONCE);
    fake_settle(f);
    assert_false(is_written());
}

static bool is_given_up(struct fake *f, void *arg)
{
    (void)arg;
    return decided(f, "unload a");
}

static void test_one_that_answers_no_health_check_is_replaced(void **state)
{
    struct fake *f = *state;
    struct answer a;
    leave_a(f);
    f->left.behaviour = CHILD_HANG;
    adopt(f);
    ask(f, "a", &a);
    fake_run_until(f, is_given_up, NULL);
    must_get(&a); /* who waited for it gets another */
    assert_int_equal(fake_model(f, "a")->started, 2);
    assert_non_null(strstr(f->reasons.data, "unload a unwell\n"));
}

static void test_one_that_ended_meanwhile_is_forgotten(void **state)
{
    struct fake *f = *state;
    leave_a(f);
    f->left.gone = true;
    adopt(f);
    fake_settle(f);
    assert_false(is_written());
    load(f, "a");
}

static void test_a_file_that_is_gone_ends_it(void **state)
{
    struct fake *f = *state;
    leave_a(f);
    f->bad_facts = true;
    adopt(f);
    fake_run_until(f, is_given_up, NULL);
    fake_settle(f);
    assert_string_equal(f->reasons.data, "unload a file_gone\n");
    assert_int_equal(f->n_alive, 0);
}

static void test_one_that_was_loading_goes_on_loading(void **state)
{
    struct fake *f = *state;
    struct answer a;
    struct pool_counters c;
    fake_script(f, "a", (enum behaviour[]){CHILD_HANG}, 1);
    ask(f, "a", &a);
    fake_settle(f);
    fake_stop(f);
    assert_int_equal(f->n_left, 1);
    assert_int_equal(a.rc, RC_BUSY);
    adopt(f);
    ask(f, "a", &a);
    must_get(&a);
    assert_int_equal(fake_model(f, "a")->started, 1);
    pool_counters(f->pool, &c);
    assert_int_equal(c.loads, 1);
    struct roster_row *r = row();
    assert_true(r->ready); /* the next one finds it so */
    roster_row_free(r);
}

static void test_a_busy_one_is_left_when_its_requests_have_ended(void **state)
{
    struct fake *f = *state;
    struct answer a;
    ask(f, "a", &a);
    must_get(&a);
    pool_stop(f->pool, false, NULL, NULL);
    for (int i = 0; i < 3; i++)
        uv_run(&f->loop, UV_RUN_NOWAIT);
    assert_int_equal(f->n_left, 0);
    give_back(&a, false);
    assert_int_equal(f->n_left, 1);
}

static void test_a_hurry_leaves_a_busy_one_at_once(void **state)
{
    struct fake *f = *state;
    struct answer a;
    ask(f, "a", &a);
    must_get(&a);
    pool_stop(f->pool, true, NULL, NULL);
    assert_int_equal(f->n_left, 1);
}

static void test_an_operator_may_keep_none(void **state)
{
    struct fake *f = *state;
    load(f, "a");
    pool_keep_none(f->pool);
    fake_stop(f);
    assert_int_equal(f->n_left, 0);
    assert_int_equal(f->n_alive, 0);
    assert_false(is_written());
}

int main(void)
{
#define ADOPT(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        ADOPT(test_it_is_written_before_it_starts_and_again_when_it_is_ready),
        ADOPT(test_without_a_roster_nothing_is_left),
        ADOPT(test_what_cannot_be_written_down_is_started_all_the_same),
        ADOPT(test_the_next_pool_takes_it_over_without_a_load),
        ADOPT(test_it_leaves_for_others_as_any_other),
        ADOPT(test_changed_settings_end_it),
        ADOPT(test_a_model_that_is_gone_ends_it),
        ADOPT(test_a_roster_that_is_off_ends_it),
        ADOPT(test_a_stubborn_one_is_killed),
        ADOPT(test_one_that_answers_no_health_check_is_replaced),
        ADOPT(test_one_that_ended_meanwhile_is_forgotten),
        ADOPT(test_a_file_that_is_gone_ends_it),
        ADOPT(test_one_that_was_loading_goes_on_loading),
        ADOPT(test_a_busy_one_is_left_when_its_requests_have_ended),
        ADOPT(test_a_hurry_leaves_a_busy_one_at_once),
        ADOPT(test_an_operator_may_keep_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
