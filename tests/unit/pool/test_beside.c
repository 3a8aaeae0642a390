/* Files beside a model: read before the load, counted by the planner, handed to the runtime, let go of. */
#include "fake.h"

#include <stdio.h>
#include <string.h>

static void with_files(struct fake *f)
{
    f->settings[0].files = (struct pool_files){.mmproj = "/m/b",
                                               .adapters = {"/m/c", "/m/b"},
                                               .adapter_scale = {1, 0.5f},
                                               .n_adapters = 2,
                                               .draft = "/m/c",
                                               .draft_tokens = 8,
                                               .draft_least = 2,
                                               .draft_gpu_layers = PLAN_ALL_LAYERS,
                                               .draft_device = "CUDA1"};
    f->settings[0].settings_hash++;
    fake_set_models(f, f->n_models);
}

static const char all[] = "projector /m/b, adapter /m/c*1, adapter /m/b*0.5, draft /m/c 8 2 -1 CUDA1";

static void test_planned_and_launched(void **state)
{
    struct fake *f = *state;
    struct answer a;
    with_files(f);
    ask(f, "a", &a);
    must_get(&a);
    assert_string_equal(f->planned_beside, all);
    assert_string_equal(f->launched_beside, all);
    give_back(&a, false);
    ask(f, "b", &a); /* that of another brings none */
    must_get(&a);
    assert_string_equal(f->planned_beside, "");
    assert_string_equal(f->launched_beside, "");
    give_back(&a, false);
}

/* The question without the load reads them for itself. */
static void test_dry_run(void **state)
{
    struct fake *f = *state;
    struct err err;
    yyjson_mut_val *o;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    with_files(f);
    fake_settle(f); /* the runtime's probe */
    assert_int_equal(pool_plan(f->pool, STR("a"), NULL, doc, &o, &err), RC_OK);
    assert_string_equal(f->planned_beside, all);
    f->settings[0].files.adapters[1] = "/m/nowhere";
    f->settings[0].settings_hash++;
    fake_set_models(f, f->n_models);
    assert_int_equal(pool_plan(f->pool, STR("a"), NULL, doc, &o, &err), RC_NOT_FOUND);
    assert_string_equal(err.message, "the adapter: /m/nowhere is not there");
    yyjson_mut_doc_free(doc);
}

static void test_one_that_cannot_be_read(void **state)
{
    struct fake *f = *state;
    struct answer a;
    with_files(f);
    f->settings[0].files.draft = "/m/nowhere";
    f->settings[0].settings_hash++;
    fake_set_models(f, f->n_models);
    ask(f, "a", &a);
    until_told(&a);
    assert_int_equal(a.rc, RC_BACKEND);
    assert_string_equal(a.err.message,
                        "model a could not be loaded: the draft model: /m/nowhere is not there");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_planned_and_launched, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_dry_run, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_one_that_cannot_be_read, fake_setup, fake_teardown),
    };
    return cmocka_run_group_tests_name("pool_beside", tests, NULL, NULL);
}
