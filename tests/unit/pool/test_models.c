/* The set of models: names, replacing the set, unloading, views and logs. */
#include "fake.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static void on_done(void *arg, enum rc rc, const struct err *err)
{
    (void)err;
    *(int *)arg = rc;
}

static bool is_done(struct fake *f, void *arg)
{
    (void)f;
    return *(int *)arg != 1;
}

static void load(struct fake *f, const char *id, struct answer *a)
{
    ask(f, id, a);
    must_get(a);
}

static void test_names(void **state)
{
    struct fake *f = *state;
    struct answer a;
    const char *aliases[] = {"org/Alpha:Q4", "b"}; /* the second is another model's id */
    f->settings[0].aliases = aliases;
    f->settings[0].n_aliases = 2;
    f->settings[0].settings_hash = 2;
    fake_set_models(f, f->n_models);
    assert_string_equal(pool_resolve(f->pool, STR("org/Alpha:Q4")), "a");
    assert_string_equal(pool_resolve(f->pool, STR("b")), "b");
    assert_null(pool_resolve(f->pool, STR("")));
    assert_string_equal(pool_resolve(f->pool, STR("alpha")), "a"); /* as people type it */
    assert_string_equal(pool_resolve(f->pool, STR("ORG/alpha-gguf:q4")), "a");
    assert_null(pool_resolve(f->pool, STR("other/alpha:Q4")));
    assert_null(pool_resolve(f->pool, STR("alp")));
    ask(f, "org/Alpha:Q5", &a);
    assert_int_equal(a.first, POOL_REFUSED);
    assert_int_equal(a.rc, RC_NOT_FOUND);
    assert_non_null(strstr(a.err.hint, "\"org/Alpha:Q4\""));
    ask(f, "alph", &a); /* a part of a name, in another case */
    assert_non_null(strstr(a.err.hint, "org/Alpha:Q4"));
    char longest[4096];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    ask(f, longest, &a);
    assert_int_equal(a.rc, RC_NOT_FOUND);
    assert_non_null(strstr(a.err.hint, "/v1/models"));
    load(f, "org/Alpha:Q4", &a);
    assert_string_equal(a.lease.model, "a");
}

/* Settings without another hash: they apply to what runs. */
static void test_live_settings_reach_a_running_instance(void **state)
{
    struct fake *f = *state;
    struct answer a;
    const char *aliases[] = {"fresh"};
    load(f, "a", &a);
    struct pool_instance *i = instance_of(f, "a");
    f->settings[0].aliases = aliases;
    f->settings[0].n_aliases = 1;
    f->settings[0].priority = 9;
    f->settings[0].pin = true;
    f->settings[0].ttl_ms = 5000;
    f->settings[0].instances_max = 3;
    fake_set_models(f, f->n_models);
    assert_ptr_equal(instance_of(f, "a"), i);
    assert_int_equal(i->state, POOL_READY);
    assert_string_equal(pool_resolve(f->pool, STR("fresh")), "a");
    assert_int_equal(i->entry->priority, 9);
    assert_true(i->entry->lead->pinned);
    assert_int_equal(i->keep_ms, 5000);
    assert_non_null(i->entry->twin);
    assert_string_equal(i->entry->twin->path, "/m/a");
    give_back(&a, false);
    assert_int_equal(i->timer_for, TIMER_TTL);
    f->settings[0].ttl_ms = 0;
    fake_set_models(f, f->n_models);
    assert_int_equal(i->timer_for, TIMER_NONE);
    i->kept = true; /* a client's wish stands */
    i->keep_ms = 60000;
    f->settings[0].ttl_ms = 7000;
    fake_set_models(f, f->n_models);
    assert_int_equal(i->keep_ms, 60000);
    assert_string_equal(f->decisions.data, "load a\nready a\n");
}

static bool are_two_ready(struct fake *f, void *arg)
{
    struct pool_counters c;
    (void)arg;
    pool_counters(f->pool, &c);
    return c.instances[POOL_READY] == 2;
}

static void test_fewer_instances_end_the_spare_ones(void **state)
{
    struct fake *f = *state;
    struct answer a;
    f->settings[0].instances_min = f->settings[0].instances_max = 2;
    f->settings[0].settings_hash = 2;
    fake_set_models(f, f->n_models);
    ask(f, "a", &a);
    must_get(&a);
    give_back(&a, false); /* else the one that serves it would wait for its end */
    fake_run_until(f, are_two_ready, NULL);
    struct pool_instance *first = f->pool->entries[0]->current;
    f->settings[0].instances_min = f->settings[0].instances_max = 1;
    fake_set_models(f, f->n_models);
    fake_settle(f);
    assert_int_equal(f->n_alive, 1);
    assert_ptr_equal(f->pool->entries[0]->current, first);
    assert_int_equal(first->state, POOL_READY);
    assert_int_equal(times_decided(f, "unload a"), 1);
}

static void test_quantisations_that_are_not_told(void **state)
{
    struct fake *f = *state;
    static const char *const names[][1] = {
        {"repo/Beta-GGUF:Q8_0"}, {"repo/Beta-GGUF:Q4_K_M"}, {"gamma.Q5_K_M"}};
    for (size_t i = 0; i < 3; i++) {
        f->settings[i].aliases = names[i];
        f->settings[i].n_aliases = 1;
        f->settings[i].settings_hash = 2;
    }
    fake_set_models(f, f->n_models);
    assert_string_equal(pool_resolve(f->pool, STR("repo/beta:q8_0")), "a");
    assert_string_equal(pool_resolve(f->pool, STR("repo/Beta")), "b"); /* of several the usual one */
    assert_string_equal(pool_resolve(f->pool, STR("Beta-GGUF")), "b");
    assert_string_equal(pool_resolve(f->pool, STR("someone/Gamma-GGUF:Q5_K_M")),
                        "c"); /* the file tells no owner */
    assert_null(pool_resolve(f->pool, STR("gamma:Q4_K_M")));
    assert_null(pool_resolve(f->pool, STR("else/Beta:Q8_0")));
    f->settings[1].aliases = (const char *const[]){"repo/Beta-GGUF:Q6_K"};
    f->settings[1].settings_hash = 3;
    fake_set_models(f, f->n_models);
    assert_null(pool_resolve(f->pool, STR("repo/Beta"))); /* two, and neither is usual */
}

static void test_no_models(void **state)
{
    struct fake *f = *state;
    struct answer a;
    fake_set_models(f, 0);
    ask(f, "a", &a);
    assert_int_equal(a.rc, RC_NOT_FOUND);
    assert_non_null(strstr(a.err.hint, "--models"));
}

static void test_unchanged_models_are_not_touched(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    load(f, "a", &a);
    load(f, "b", &b);
    f->settings[1].settings_hash = 2;
    fake_set_models(f, f->n_models);
    fake_settle(f);
    assert_int_equal(instance_of(f, "a")->state, POOL_READY);
    assert_int_equal(instance_of(f, "b")->state, POOL_DRAINING); /* its request ends first */
    assert_true(decided(f, "unload b"));
    assert_false(decided(f, "unload a"));
    struct answer b2;
    f->inventory.host.usable_free_bytes = f->inventory.host.usable_total_bytes = 1300 * MIB;
    load(f, "b", &b2);
    assert_string_not_equal(b2.lease.instance, b.lease.instance);
    give_back(&b, false);
    fake_settle(f);
    assert_int_equal(f->n_jobs, 2);
}

static void test_changed_while_it_loads(void **state)
{
    struct fake *f = *state;
    struct answer a;
    const char *extra[] = {"--new"};
    fake_script(f, "a", (enum behaviour[]){CHILD_HANG}, 1);
    ask(f, "a", &a);
    fake_settle(f);
    f->settings[0].settings_hash = 2;
    f->settings[0].extra_args = extra;
    f->settings[0].n_extra_args = 1;
    fake_set_models(f, f->n_models);
    must_get(&a); /* who waited gets the model with its new settings */
    assert_string_equal(instance_of(f, "a")->argv[3], "--new");
}

static void test_removed_while_it_is_asked_for(void **state)
{
    struct fake *f = *state;
    struct answer a, huge;
    fake_script(f, "a", (enum behaviour[]){CHILD_HANG}, 1);
    ask(f, "a", &a);
    fake_settle(f);
    ask(f, "huge", &huge); /* still being prepared */
    pool_set_models(f->pool, f->settings + 1, 2);
    assert_int_equal(a.rc, RC_NOT_FOUND);
    assert_int_equal(huge.rc, RC_NOT_FOUND);
    fake_settle(f);
    assert_int_equal(f->n_jobs, 0);
    ask(f, "a", &a);
    assert_int_equal(a.first, POOL_REFUSED);
}

static void test_same_id_twice_counts_once(void **state)
{
    struct fake *f = *state;
    f->settings[1].id = "a";
    fake_set_models(f, f->n_models);
    pool_set_models(f->pool, NULL, 0);
    fake_set_models(f, f->n_models);
    assert_int_equal(f->pool->n_entries, 3);
    f->settings[1].id = "b";
}

static void test_unload(void **state)
{
    struct fake *f = *state;
    struct answer a, b, w;
    int rc = 1, all = 1;
    load(f, "a", &a);
    load(f, "b", &b);
    pool_unload(f->pool, STR("a"), false, on_done, &rc);
    fake_settle(f);
    assert_int_equal(rc, 1); /* until the lease is back */
    give_back(&a, false);
    fake_run_until(f, is_done, &rc);
    assert_int_equal(rc, RC_OK);
    fake_script(f, "c", (enum behaviour[]){CHILD_HANG}, 1);
    ask(f, "c", &w);
    fake_settle(f);
    pool_unload(f->pool, STR(""), true, on_done, &all); /* everything, though b is busy and c loads */
    assert_int_equal(w.rc, RC_BUSY);
    fake_run_until(f, is_done, &all);
    assert_int_equal(all, RC_OK);
    assert_int_equal(f->n_jobs, 0);
    give_back(&b, true);
    rc = 1;
    pool_unload(f->pool, STR("a"), false, on_done, &rc); /* nothing to do */
    fake_run_until(f, is_done, &rc);
    assert_int_equal(rc, RC_OK);
    pool_unload(f->pool, STR("nope"), false, on_done, &rc);
    assert_int_equal(rc, RC_NOT_FOUND);
}

static void test_unload_clears_a_failure(void **state)
{
    struct fake *f = *state;
    struct answer a;
    fake_script(f, "a", (enum behaviour[]){CHILD_DIES}, 1);
    ask(f, "a", &a);
    until_told(&a);
    pool_unload(f->pool, STR("a"), false, NULL, NULL);
    ask(f, "a", &a);
    must_get(&a);
}

static yyjson_doc *view(struct fake *f, yyjson_mut_val *(*of)(struct pool *p, yyjson_mut_doc *doc))
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_doc_set_root(doc, of(f->pool, doc));
    yyjson_doc *out = yyjson_mut_doc_imut_copy(doc, NULL);
    yyjson_mut_doc_free(doc);
    assert_non_null(out);
    return out;
}

static yyjson_val *find_by(yyjson_doc *doc, const char *key, const char *value)
{
    size_t i, n;
    yyjson_val *o;
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, n, o)
    {
        if (str_eq_c(json_str(o, key, STR("")), value))
            return o;
    }
    return NULL;
}

static void test_json(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    load(f, "a", &a);
    fake_script(f, "b", (enum behaviour[]){CHILD_DIES}, 1);
    ask(f, "b", &b);
    until_told(&b);
    yyjson_doc *doc = view(f, pool_json);
    yyjson_val *o = find_by(doc, "model", "a");
    assert_non_null(o);
    assert_true(str_eq_c(json_str(o, "state", STR("")), "ready"));
    assert_true(str_eq_c(json_str(o, "id", STR("")), a.lease.instance));
    assert_int_equal(json_u64(o, "port", 0), a.lease.port);
    assert_int_equal(json_u64(o, "pid", 0), 4242);
    assert_int_equal(json_u64(o, "busy", 0), 1);
    yyjson_val *host = yyjson_arr_get(yyjson_obj_get(o, "devices"), 0);
    assert_int_equal(json_u64(host, "predicted_bytes", 0), 400 * MIB);
    assert_int_equal(json_u64(yyjson_obj_get(host, "measured"), "total_bytes", 0), 399 * MIB);
    assert_true(yyjson_is_null(yyjson_obj_get(o, "last_error")));
    o = find_by(doc, "model", "b");
    assert_true(str_eq_c(json_str(o, "state", STR("")), "failed"));
    assert_true(json_str(yyjson_obj_get(o, "last_error"), "message", STR("")).n > 0);
    yyjson_doc_free(doc);
    doc = view(f, pool_models_json);
    assert_int_equal(yyjson_arr_size(yyjson_doc_get_root(doc)), 4);
    assert_true(str_eq_c(json_str(find_by(doc, "id", "a"), "state", STR("")), "ready"));
    assert_true(str_eq_c(json_str(find_by(doc, "id", "b"), "state", STR("")), "failed"));
    assert_true(str_eq_c(json_str(find_by(doc, "id", "c"), "state", STR("")), "unloaded"));
    yyjson_doc_free(doc);
    fake_advance_ms(1000); /* the next load takes the failed one's place */
    ask(f, "b", &b);
    must_get(&b);
    doc = view(f, pool_json);
    assert_int_equal(yyjson_arr_size(yyjson_doc_get_root(doc)), 2);
    assert_true(str_eq_c(json_str(find_by(doc, "model", "b"), "state", STR("")), "ready"));
    yyjson_doc_free(doc);
}

static void count(void *arg, const struct pool_view *v)
{
    assert_true(strncmp(v->instance, v->model, strlen(v->model)) == 0 && v->plan->fits);
    assert_int_equal(v->state, POOL_READY);
    assert_int_equal(v->busy, 1);
    assert_string_equal(v->breaker, "closed");
    strcat(arg, v->model);
}

static void test_each_in_order(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    char seen[16] = "";
    load(f, "b", &b);
    load(f, "a", &a);
    pool_each(f->pool, count, seen);
    assert_string_equal(seen, "ab");
}

static void test_logs_outlive_the_process(void **state)
{
    struct fake *f = *state;
    struct answer a;
    struct str tail;
    struct err err;
    assert_int_equal(pool_log(f->pool, STR("a"), &tail, &err), RC_NOT_FOUND);
    assert_non_null(strstr(err.message, "no log yet"));
    assert_int_equal(pool_log(f->pool, STR("nope"), &tail, &err), RC_NOT_FOUND);
    fake_script(f, "a", (enum behaviour[]){CHILD_DIES_PORT, CHILD_DIES_PORT, CHILD_DIES_PORT}, 3);
    ask(f, "a", &a);
    until_told(&a);
    assert_int_equal(pool_log(f->pool, STR("a"), &tail, &err), RC_OK);
    assert_true(str_eq_c(tail, "port taken"));
    fake_advance_ms(1000);
    load(f, "a", &a);
    assert_int_equal(pool_log(f->pool, str_from(a.lease.instance), &tail, &err), RC_OK);
    assert_true(str_eq_c(tail, "log"));
    give_back(&a, false);
    pool_unload(f->pool, STR("a"), false, NULL, NULL);
    fake_settle(f);
    assert_null(instance_of(f, "a"));
    assert_int_equal(pool_log(f->pool, STR("a"), &tail, &err), RC_OK);
    assert_true(str_eq_c(tail, "log"));
}

#define MODELS(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        MODELS(test_names),
        MODELS(test_live_settings_reach_a_running_instance),
        MODELS(test_fewer_instances_end_the_spare_ones),
        MODELS(test_quantisations_that_are_not_told),
        MODELS(test_no_models),
        MODELS(test_unchanged_models_are_not_touched),
        MODELS(test_changed_while_it_loads),
        MODELS(test_removed_while_it_is_asked_for),
        MODELS(test_same_id_twice_counts_once),
        MODELS(test_unload),
        MODELS(test_unload_clears_a_failure),
        MODELS(test_json),
        MODELS(test_each_in_order),
        MODELS(test_logs_outlive_the_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
