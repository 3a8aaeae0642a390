/* The states of instances: every change that is allowed happens in one of these stories, each with its
 * reason; and how a model that failed comes to be tried again. */
#include "fake.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool is_planned(struct fake *f, void *arg)
{
    const struct pool_instance *i = instance_of(f, arg);
    return i && i->state == POOL_PLANNED;
}

static bool is_starting(struct fake *f, void *arg)
{
    const struct pool_instance *i = instance_of(f, arg);
    return i && i->state == POOL_STARTING;
}

static void unload(struct fake *f, const char *id)
{
    pool_unload(f->pool, str_from(id), false, NULL, NULL);
    fake_settle(f);
}

/* Loaded, and idle. */
static void load(struct fake *f, const char *id)
{
    struct answer a;
    ask(f, id, &a);
    must_get(&a);
    give_back(&a, false);
}

static void load_and_unload(struct fake *f)
{
    load(f, "a");
    unload(f, "a");
}

static void fail_and_crash(struct fake *f)
{
    struct answer a;
    fake_script(f, "a", (enum behaviour[]){CHILD_DIES}, 1);
    ask(f, "a", &a);
    until_told(&a);
    fake_advance_ms(POOL_BACKOFF_MAX);
    load(f, "a");
    fake_kill(f, "a", SIGSEGV);
    fake_settle(f);
}

static void unload_while_it_loads(struct fake *f)
{
    struct answer a;
    fake_script(f, "a", (enum behaviour[]){CHILD_HANG}, 1);
    ask(f, "a", &a);
    fake_run_until(f, is_starting, (void *)(uintptr_t) "a");
    unload(f, "a");
    assert_true(a.told && a.rc == RC_BUSY);
}

static void refuse_to_launch(struct fake *f)
{
    struct answer a;
    f->bad_command = true;
    ask(f, "a", &a);
    until_told(&a);
    assert_int_equal(a.rc, RC_BACKEND);
    f->bad_command = false;
    pool_unload(f->pool, STR("a"), false, NULL, NULL);
    fake_settle(f);
}

/* Its victim does not leave, and nobody wants it any more. */
static void unload_while_it_waits_for_a_victim(struct fake *f)
{
    struct answer c;
    fake_script(f, "a", (enum behaviour[]){CHILD_STUBBORN}, 1);
    load(f, "a");
    fake_advance_ms(1000);
    load(f, "b");
    ask(f, "c", &c);
    fake_run_until(f, is_planned, (void *)(uintptr_t) "c");
    unload(f, "c");
    assert_true(c.told);
}

static void test_every_change_has_a_reason(void **state)
{
    struct fake *f = *state;
    load_and_unload(f);
    fail_and_crash(f);
    unload_while_it_loads(f);
    refuse_to_launch(f);
    unload_while_it_waits_for_a_victim(f);
    assert_true(f->seen[POOL_STATES][POOL_PLANNED]);
    for (int from = 0; from < POOL_STATES; from++)
        for (int to = 0; to < POOL_STATES; to++)
            if (state_may_follow((enum pool_state)from, (enum pool_state)to) && !f->seen[from][to])
                fail_msg("nothing here went from %s to %s", pool_state_word((enum pool_state)from),
                         pool_state_word((enum pool_state)to));
    assert_non_null(strstr(f->changes.data, "a planned placed\na starting launched\na ready healthy\n"
                                            "a draining asked\na stopped ended\n"));
    assert_non_null(strstr(f->changes.data, "a failed crashed\n"));
    assert_non_null(strstr(f->changes.data, "a draining evicted_for\n"));
    assert_false(state_may_follow(POOL_STOPPED, POOL_READY));
    assert_false(state_may_follow(POOL_STATES, POOL_PLANNED));
}

/* ---- tried again ---- */

static void fail_once(struct fake *f)
{
    struct answer a;
    fake_script(f, "a", (enum behaviour[]){CHILD_DIES}, 1);
    ask(f, "a", &a);
    until_told(&a);
    assert_int_equal(a.rc, RC_BACKEND);
    ask(f, "a", &a);
    assert_int_equal(a.first, POOL_REFUSED);
}

static void test_reset_lets_it_be_tried_at_once(void **state)
{
    struct fake *f = *state;
    struct err err;
    uint32_t n = 9;
    fail_once(f);
    assert_true(reasoned(f, "fail a held_back"));
    assert_int_equal(pool_forgive(f->pool, STR("nobody"), &n, &err), RC_NOT_FOUND);
    assert_int_equal(n, 9);
    assert_int_equal(pool_forgive(f->pool, STR("b"), &n, &err), RC_OK);
    assert_int_equal(n, 0);
    assert_int_equal(pool_forgive(f->pool, STR("a"), &n, &err), RC_OK);
    assert_int_equal(n, 1);
    assert_true(reasoned(f, "reset a asked"));
    assert_int_equal(fake_model(f, "a")->started, 1); /* nothing is loaded by it */
    load(f, "a");
    assert_int_equal(pool_forgive(f->pool, STR(""), &n, &err), RC_OK);
    assert_int_equal(n, 0); /* a success left nothing behind */
}

static void test_reset_of_all_closes_breakers_too(void **state)
{
    struct fake *f = *state;
    struct answer a;
    struct err err;
    uint32_t n = 0;
    fail_once(f);
    for (unsigned i = 0; i < BREAKER_FAILURES; i++) {
        ask(f, "b", &a);
        must_get(&a);
        end(&a, POOL_END_FAILED);
    }
    ask(f, "b", &a);
    assert_int_equal(a.first, POOL_REFUSED);
    assert_int_equal(pool_forgive(f->pool, STR(""), &n, &err), RC_OK);
    assert_int_equal(n, 2);
    ask(f, "b", &a);
    assert_int_equal(a.first, POOL_GRANTED);
}

static void test_views_tell_when(void **state)
{
    struct fake *f = *state;
    fail_once(f);
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *i = yyjson_mut_arr_get_first(pool_json(f->pool, doc));
    yyjson_mut_val *m = yyjson_mut_arr_get_first(pool_models_json(f->pool, doc));
    assert_true(yyjson_mut_get_uint(yyjson_mut_obj_get(i, "retry_in_ms")) == POOL_BACKOFF_MS);
    assert_true(yyjson_mut_get_uint(yyjson_mut_obj_get(i, "failures")) == 1);
    assert_string_equal(yyjson_mut_get_str(yyjson_mut_obj_get(i, "failure")), "exit");
    assert_true(yyjson_mut_get_uint(yyjson_mut_obj_get(m, "retry_in_ms")) == POOL_BACKOFF_MS);
    fake_advance_ms(POOL_BACKOFF_MS);
    m = yyjson_mut_arr_get_first(pool_models_json(f->pool, doc));
    assert_true(yyjson_mut_is_null(yyjson_mut_obj_get(m, "retry_in_ms")));
    yyjson_mut_doc_free(doc);
}

static bool is_looked_at(struct fake *f, void *arg)
{
    (void)arg;
    return f->pool->n_work == 0;
}

/* The clock of these tests stands near the epoch, a file's does not: made after the failure. */
static void test_a_changed_file_is_tried_again(void **state)
{
    struct fake *f = *state;
    struct answer a;
    char path[] = "/tmp/arr-state-XXXXXX";
    fail_once(f);
    fake_run_until(f, is_looked_at, NULL); /* there is no /m/a */
    ask(f, "a", &a);
    assert_int_equal(a.first, POOL_REFUSED);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    struct entry *e = entry_find(f->pool, STR("a"));
    char *own = e->path;
    e->path = path;
    e->looked_ms = 0;
    ask(f, "a", &a);
    assert_int_equal(a.first, POOL_REFUSED);
    ask(f, "a", &a); /* one look at a time */
    assert_int_equal(f->pool->n_work, 1);
    fake_run_until(f, is_looked_at, NULL);
    assert_true(reasoned(f, "reset a file_changed"));
    e->path = own;
    unlink(path);
    load(f, "a");
}

/* ---- causes of death ---- */

static void test_a_kill_is_told_from_want_of_memory(void **state)
{
    struct fake *f = *state;
    f->oom = (struct oom_count){.machine = 7, .machine_known = true};
    load(f, "a");
    fake_kill(f, "a", SIGKILL);
    fake_settle(f);
    assert_true(reasoned(f, "crash a signal"));
    load(f, "a");
    pool_inventory_changed(f->pool);
    f->oom.machine = 8;
    f->oom_named = true;
    fake_kill(f, "a", SIGKILL);
    fake_settle(f);
    assert_true(reasoned(f, "crash a memory"));
}

#define STATE(t) cmocka_unit_test_setup_teardown(t, fake_setup, fake_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STATE(test_every_change_has_a_reason),        STATE(test_reset_lets_it_be_tried_at_once),
        STATE(test_reset_of_all_closes_breakers_too), STATE(test_views_tell_when),
        STATE(test_a_changed_file_is_tried_again),    STATE(test_a_kill_is_told_from_want_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
