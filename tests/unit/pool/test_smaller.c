/* A smaller file of the same model: when it takes the place of the one that was asked for, and when not. */
#include "fake.h"

#include <stdio.h>
#include <string.h>

static const char *const missing_then_c[] = {"/m/nowhere", "/m/c"};

/* huge has a smaller file, c; one that cannot be read is none. */
static void with_smaller(struct fake *f, size_t i)
{
    f->settings[i].smaller = missing_then_c;
    f->settings[i].n_smaller = TABLE_COUNT(missing_then_c);
    fake_set_models(f, f->n_models);
}

static bool told_why(const struct fake *f, const char *line)
{
    struct str rest = buf_str(&f->reasons);
    while (rest.n > 0)
        if (str_eq_c(str_cut(&rest, '\n'), line))
            return true;
    return false;
}

static bool shows(struct fake *f, const char *id, const char *path, bool smaller)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *list = pool_json(f->pool, doc), *o;
    size_t at, n;
    bool found = false;
    yyjson_mut_arr_foreach(list, at, n, o) found |=
        yyjson_mut_equals_str(yyjson_mut_obj_get(o, "model"), id) &&
        yyjson_mut_equals_str(yyjson_mut_obj_get(o, "path"), path) &&
        yyjson_mut_get_bool(yyjson_mut_obj_get(o, "smaller")) == smaller;
    yyjson_mut_doc_free(doc);
    return found;
}

static void test_nothing_else_fits(void **state)
{
    struct fake *f = *state;
    struct answer a;
    with_smaller(f, 3);
    ask(f, "huge", &a);
    must_get(&a);
    assert_string_equal(f->launched, "/m/c");
    assert_string_equal(a.lease.model, "huge"); /* it keeps its name */
    assert_true(told_why(f, "load huge smaller_quantization"));
    assert_true(shows(f, "huge", "/m/c", true));
    struct pool_counters n;
    pool_counters(f->pool, &n);
    assert_int_equal(n.refused, 0);
}

/* What was found on disk touches nothing that runs: no other settings, no drain. */
static void test_found_while_it_runs(void **state)
{
    struct fake *f = *state;
    struct answer a;
    ask(f, "a", &a);
    must_get(&a);
    with_smaller(f, 0);
    fake_settle(f);
    assert_int_equal(instance_of(f, "a")->state, POOL_READY);
    assert_true(shows(f, "a", "/m/a", false));
}

/* Room that others will give back is waited for: the file that was asked for comes first. */
static void test_patience_comes_first(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    f->models[1].bytes = 900 * MIB;
    f->models[2].bytes = 100 * MIB;
    with_smaller(f, 1);
    ask(f, "a", &a);
    must_get(&a);
    ask(f, "b", &b); /* the smaller file would fit beside a */
    fake_settle(f);
    assert_false(b.told);
    assert_true(told_why(f, "wait b waits_for_room"));
    give_back(&a, false);
    must_get(&b);
    assert_string_equal(f->launched, "/m/b");
    assert_false(told_why(f, "load b smaller_quantization"));
}

/* A pinned model will never give its memory back. */
static void test_beside_a_pinned_model(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    struct err err;
    f->models[1].bytes = 900 * MIB;
    f->models[2].bytes = 100 * MIB;
    with_smaller(f, 1);
    ask(f, "a", &a);
    must_get(&a);
    assert_int_equal(pool_pin(f->pool, STR("a"), true, &err), RC_OK);
    ask(f, "b", &b);
    must_get(&b);
    assert_string_equal(f->launched, "/m/c");
}

/* After loads that ran out of memory it is a rung of the ladder, with rungs of its own below it. */
static void test_a_rung_of_the_ladder(void **state)
{
    struct fake *f = *state;
    struct answer a;
    f->rungs = 1;
    f->fresh = true;
    with_smaller(f, 0);
    fake_script(f, "a", (enum behaviour[]){CHILD_DIES_MEMORY, CHILD_DIES_MEMORY, CHILD_DIES_MEMORY}, 3);
    ask(f, "a", &a);
    must_get(&a);
    assert_int_equal(fake_model(f, "a")->started, 4);
    assert_string_equal(f->launched, "/m/c");
    assert_true(told_why(f, "load a smaller_quantization"));
    assert_int_equal(times_decided(f, "ladder a"), 3);
}

static void test_the_question_alone(void **state)
{
    struct fake *f = *state;
    struct err err;
    yyjson_mut_val *plan = NULL;
    with_smaller(f, 3);
    fake_settle(f);
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    if (pool_plan(f->pool, STR("huge"), NULL, doc, &plan, &err) != RC_OK)
        fail_msg("%s", err.message);
    assert_true(yyjson_mut_get_bool(yyjson_mut_obj_get(plan, "fits")));
    yyjson_mut_doc_free(doc);
    assert_int_equal(fake_model(f, "c")->references, 0);
}

#define SMALLER(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SMALLER(test_nothing_else_fits),    SMALLER(test_found_while_it_runs),
        SMALLER(test_patience_comes_first), SMALLER(test_beside_a_pinned_model),
        SMALLER(test_a_rung_of_the_ladder), SMALLER(test_the_question_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
