/* The pool's side of rebalancing: what it tells the planner of its instances, and the answer as JSON. What is
 * worth a move is the planner's business (tests/unit/plan/test_pack.c). */
#include "fake.h"

#include <stdio.h>
#include <string.h>

static struct { /* the latest question */
    struct plan_machine machine;
    struct plan_loaded loaded[4];
    struct plan plans[4];
    size_t n;
} asked;

static void on_rebalance(const struct plan_machine *machine, const struct plan_loaded *loaded, size_t n,
                         struct plan_delta *d)
{
    asked.machine = *machine;
    asked.n = n;
    for (size_t i = 0; i < n && i < TABLE_COUNT(asked.loaded); i++) {
        asked.loaded[i] = loaded[i];
        asked.plans[i] = *loaded[i].plan;
    }
    if (n == 0 || !loaded[0].movable)
        return;
    d->n_moves = 1;
    d->moves[0] = (struct plan_move){.index = 0,
                                     .used = {0},
                                     .n_used = 1,
                                     .layers_gpu = 33,
                                     .bytes = 700 * MIB,
                                     .reload_seconds = 1.5,
                                     .tps_before = 10,
                                     .tps_after = 25};
    d->moved_bytes = 700 * MIB;
    d->cost_seconds = 1.5;
    d->gain_tps = 7.5;
    d->freed_bytes = -5;
}

static int setup(void **state)
{
    if (fake_setup(state) != 0)
        return -1;
    struct fake *f = *state;
    f->on_rebalance = on_rebalance;
    memset(&asked, 0, sizeof asked);
    f->inventory.n_devices = 2;
    for (size_t i = 0; i < 2; i++) {
        struct hw_device *d = &f->inventory.devices[i];
        *d = (struct hw_device){
            .valid = HW_MEMORY | HW_UUID, .total_bytes = 8000 * MIB, .free_bytes = 7000 * MIB};
        snprintf(d->name, sizeof d->name, "CUDA%zu", i);
        snprintf(d->uuid, sizeof d->uuid, "GPU-%zu", i);
        snprintf(f->caps.devices[i].name, sizeof f->caps.devices[i].name, "CUDA%zu", i);
    }
    f->caps.n_devices = 2;
    return 0;
}

/* As if it had been placed on the card with that UUID when it was the runtime's first one. */
static void put_on(struct pool_instance *i, const char *uuid)
{
    struct plan_device *d = &i->machine.devices[0];
    i->machine.n_devices = 1;
    plan_device_named(d, STR("CUDA0"), 8000 * MIB, 7000 * MIB);
    snprintf(d->uuid, sizeof d->uuid, "%s", uuid);
    i->plan.n_used = 1;
    i->plan.used[0] = 0;
    i->plan.estimate.layers_gpu = 20;
}

static yyjson_mut_val *question(struct fake *f, yyjson_mut_doc *doc)
{
    yyjson_mut_val *o = pool_rebalance(f->pool, doc);
    yyjson_mut_doc_set_root(doc, o);
    return o;
}

static bool is_text(yyjson_mut_val *o, const char *member, const char *text)
{
    return yyjson_mut_equals_str(yyjson_mut_obj_get(o, member), text);
}

static void test_nothing_loaded(void **state)
{
    struct fake *f = *state;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = question(f, doc);
    assert_int_equal(yyjson_mut_get_uint(yyjson_mut_obj_get(o, "loaded")), 0);
    assert_int_equal(yyjson_mut_arr_size(yyjson_mut_obj_get(o, "moves")), 0);
    assert_int_equal(asked.n, 0);
    yyjson_mut_doc_free(doc);
}

static void test_a_move(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    for (int i = 0; i < 3; i++) { /* three requests of a, one of b */
        ask(f, "a", &a);
        must_get(&a);
        give_back(&a, false);
    }
    ask(f, "b", &b);
    must_get(&b);
    put_on(instance_of(f, "a"), "GPU-1");
    yyjson_mut_val *o = question(f, doc);
    assert_int_equal(asked.machine.n_devices, 2);
    assert_int_equal(asked.n, 2);
    assert_int_equal(asked.plans[0].used[0], 1); /* by its UUID, wherever it stands now */
    assert_true(asked.loaded[0].movable && !asked.loaded[1].movable);
    assert_true(asked.loaded[0].use > 0.74 && asked.loaded[0].use < 0.76);
    assert_int_equal(yyjson_mut_get_uint(yyjson_mut_obj_get(o, "loaded")), 2);
    yyjson_mut_val *move = yyjson_mut_arr_get_first(yyjson_mut_obj_get(o, "moves"));
    assert_true(is_text(move, "model", "a"));
    yyjson_mut_val *from = yyjson_mut_obj_get(move, "from"), *to = yyjson_mut_obj_get(move, "to");
    assert_true(
        yyjson_mut_equals_str(yyjson_mut_arr_get_first(yyjson_mut_obj_get(from, "devices")), "CUDA1"));
    assert_true(yyjson_mut_equals_str(yyjson_mut_arr_get_first(yyjson_mut_obj_get(to, "devices")), "CUDA0"));
    assert_int_equal(yyjson_mut_get_uint(yyjson_mut_obj_get(from, "layers_gpu")), 20);
    assert_int_equal(yyjson_mut_get_uint(yyjson_mut_obj_get(to, "layers_gpu")), 33);
    yyjson_mut_val *cost = yyjson_mut_obj_get(o, "cost"), *gain = yyjson_mut_obj_get(o, "gain");
    assert_true(yyjson_mut_get_uint(yyjson_mut_obj_get(cost, "bytes")) == 700 * MIB);
    assert_true(yyjson_mut_get_real(yyjson_mut_obj_get(gain, "decode_tps")) > 7.4);
    assert_int_equal(yyjson_mut_get_sint(yyjson_mut_obj_get(gain, "freed_bytes")), -5);
    yyjson_mut_val *fixed = yyjson_mut_arr_get_first(yyjson_mut_obj_get(o, "fixed"));
    assert_true(is_text(fixed, "model", "b") && is_text(fixed, "why", "busy"));
    yyjson_mut_doc_free(doc);
}

/* Neither a pinned model moves, nor one whose card is not there any more, of which nothing can be told. */
static void test_who_stays(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    struct err err;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    ask(f, "a", &a);
    must_get(&a);
    ask(f, "b", &b);
    must_get(&b);
    give_back(&a, false);
    give_back(&b, false);
    assert_int_equal(pool_pin(f->pool, STR("a"), true, &err), RC_OK);
    put_on(instance_of(f, "b"), "GPU-9");
    yyjson_mut_val *o = question(f, doc);
    assert_int_equal(asked.n, 1);
    assert_false(asked.loaded[0].movable);
    assert_true(asked.loaded[0].use > 0.99);
    assert_true(is_text(yyjson_mut_arr_get_first(yyjson_mut_obj_get(o, "fixed")), "why", "pinned"));
    assert_int_equal(yyjson_mut_arr_size(yyjson_mut_obj_get(o, "moves")), 0);
    yyjson_mut_doc_free(doc);
}

#define REBALANCE(name) cmocka_unit_test_setup_teardown(name, setup, fake_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        REBALANCE(test_nothing_loaded),
        REBALANCE(test_a_move),
        REBALANCE(test_who_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
