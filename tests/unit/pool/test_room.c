/* Memory: who leaves for whom, who waits, who is never touched, and the machine that a load sees. */
#include "fake.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static void load(struct fake *f, const char *id, struct answer *a)
{
    ask(f, id, a);
    must_get(a);
    fake_advance_ms(1000);
}

static void use_once(struct fake *f, const char *id)
{
    struct answer a;
    load(f, id, &a);
    give_back(&a, false);
}

static void test_the_longest_idle_leaves(void **state)
{
    struct fake *f = *state;
    struct answer c;
    use_once(f, "a");
    use_once(f, "b");
    use_once(f, "a"); /* b is now the one that was used least recently */
    ask(f, "c", &c);
    must_get(&c);
    assert_true(decided(f, "evict b"));
    assert_false(decided(f, "evict a"));
    assert_non_null(instance_of(f, "a"));
    fake_settle(f);
    assert_null(instance_of(f, "b"));
    assert_int_equal(f->max_alive, 2); /* the next one started when the memory was free */
    struct pool_counters n;
    pool_counters(f->pool, &n);
    assert_int_equal(n.evictions, 1);
}

static void test_room_without_eviction(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    ask(f, "a", &a); /* two loads side by side */
    ask(f, "b", &b);
    must_get(&a);
    must_get(&b);
    assert_int_equal(times_decided(f, "evict a") + times_decided(f, "evict b"), 0);
}

static void test_busy_ones_are_waited_for(void **state)
{
    struct fake *f = *state;
    struct answer a, b, c;
    load(f, "a", &a);
    load(f, "b", &b);
    ask(f, "c", &c);
    fake_settle(f);
    pool_inventory_changed(f->pool);
    fake_settle(f);
    assert_false(c.told);
    assert_true(decided(f, "wait c"));
    assert_int_equal(times_decided(f, "wait c"), 1);
    assert_int_equal(fake_model(f, "c")->started, 0);
    give_back(&b, false);
    must_get(&c);
    assert_true(decided(f, "evict b"));
    assert_false(decided(f, "evict a"));
    assert_int_equal(instance_of(f, "a")->busy, 1);
}

static void test_loading_ones_are_waited_for(void **state)
{
    struct fake *f = *state;
    struct answer a, b, c;
    fake_script(f, "a", (enum behaviour[]){CHILD_HANG}, 1);
    fake_script(f, "b", (enum behaviour[]){CHILD_HANG}, 1);
    ask(f, "a", &a);
    ask(f, "b", &b);
    fake_settle(f);
    ask(f, "c", &c);
    fake_settle(f);
    assert_true(decided(f, "wait c"));
    assert_int_equal(instance_of(f, "a")->state, POOL_STARTING);
    assert_int_equal(instance_of(f, "b")->state, POOL_STARTING);
    fake_kill(f, "b", SIGSEGV);
    must_get(&c);
    pool_cancel(f->pool, a.wait);
}

static void test_blocked_load_ends_with_its_last_waiter(void **state)
{
    struct fake *f = *state;
    struct answer a, b, c;
    load(f, "a", &a);
    load(f, "b", &b);
    ask(f, "c", &c);
    fake_settle(f);
    pool_cancel(f->pool, c.wait);
    fake_settle(f);
    give_back(&b, false);
    fake_settle(f);
    assert_int_equal(fake_model(f, "c")->started, 0);
    assert_non_null(instance_of(f, "b"));
}

static void test_patience_lets_a_waiting_model_in(void **state)
{
    struct fake *f = *state;
    struct answer a, a2, b, c;
    f->models[1].bytes = f->models[0].bytes = 400 * MIB;
    load(f, "a", &a);
    load(f, "b", &b);
    ask(f, "c", &c);
    fake_settle(f);
    fake_advance_ms(f->opt.patience_ms);
    pool_inventory_changed(f->pool);
    fake_settle(f);
    assert_int_equal(times_decided(f, "evict a") + times_decided(f, "evict b"), 1);
    struct answer *mine = decided(f, "evict a") ? &a : &b;
    const char *id = mine == &a ? "a" : "b";
    assert_int_equal(instance_of(f, id)->state, POOL_DRAINING);
    assert_false(c.told); /* the request in flight ends in its own time */
    assert_int_equal(f->n_jobs, 2);
    ask(f, id, &a2); /* a new one does not keep it alive */
    assert_int_equal(a2.first, POOL_WAITING);
    fake_settle(f);
    give_back(mine, false);
    must_get(&c);
    assert_false(a2.told);
    give_back(&c, false); /* then it is the other's turn again */
    must_get(&a2);
}

static void test_no_patience(void **state)
{
    struct fake *f = *state;
    struct answer a, b, c;
    f->opt.patience_ms = 0;
    fake_options(f);
    load(f, "a", &a);
    load(f, "b", &b);
    ask(f, "c", &c);
    fake_settle(f);
    fake_advance_ms(1000000);
    pool_inventory_changed(f->pool);
    fake_settle(f);
    assert_int_equal(instance_of(f, "a")->state, POOL_READY);
    assert_int_equal(instance_of(f, "b")->state, POOL_READY);
    assert_false(c.told);
}

static void test_pinned_ones_stay(void **state)
{
    struct fake *f = *state;
    struct answer c;
    struct err err;
    use_once(f, "a");
    use_once(f, "b");
    assert_int_equal(pool_pin(f->pool, STR("a"), true, &err), RC_OK);
    assert_int_equal(pool_pin(f->pool, STR("b"), true, &err), RC_OK);
    ask(f, "c", &c);
    until_told(&c);
    assert_int_equal(c.rc, RC_NO_FIT);
    assert_non_null(strstr(c.err.message, "pinned models (a, b)"));
    assert_int_equal(pool_pin(f->pool, STR("b"), false, &err), RC_OK);
    ask(f, "c", &c);
    must_get(&c);
    assert_true(decided(f, "evict b"));
    assert_int_equal(pool_pin(f->pool, STR("zzz"), true, &err), RC_NOT_FOUND);
}

/* An operator's word outlives a reload that says nothing new of it, and holds for every instance of the
 * model. */
static void test_a_pin_holds(void **state)
{
    struct fake *f = *state;
    struct answer b, c;
    struct err err;
    assert_int_equal(pool_pin(f->pool, STR("a"), true, &err), RC_OK);
    f->settings[0].instances_min = f->settings[0].instances_max = 2;
    f->settings[0].settings_hash = 2;
    fake_set_models(f, f->n_models);
    use_once(f, "a");
    fake_settle(f);
    assert_int_equal(f->n_alive, 2);
    ask(f, "b", &b);
    until_told(&b);
    assert_int_equal(b.rc, RC_NO_FIT);
    f->settings[0].pin = true; /* now the settings say it, too, and then no longer */
    f->settings[0].settings_hash = 3;
    fake_set_models(f, f->n_models);
    f->settings[0].pin = false;
    f->settings[0].settings_hash = 4;
    fake_set_models(f, f->n_models);
    use_once(f, "a");
    ask(f, "c", &c);
    must_get(&c);
    assert_true(decided(f, "evict a"));
}

static void test_budget_bounds_own_use(void **state)
{
    struct fake *f = *state;
    struct answer b;
    snprintf(f->opt.budgets[0].device, sizeof f->opt.budgets[0].device, "Host");
    f->opt.budgets[0].bytes = 500 * MIB;
    f->opt.n_budgets = 1;
    fake_options(f);
    for (int i = 0; i < 3; i++) { /* one at a time, in turns */
        use_once(f, "a");
        ask(f, "b", &b);
        must_get(&b);
        give_back(&b, false);
        fake_advance_ms(10);
    }
    assert_int_equal(f->max_alive, 1);
    assert_int_equal(times_decided(f, "evict a"), 3);
    assert_int_equal(times_decided(f, "evict b"), 2);
}

static void test_foreign_memory_is_seen(void **state)
{
    struct fake *f = *state;
    struct answer a;
    f->inventory.host.usable_free_bytes = 100 * MIB;
    ask(f, "a", &a);
    until_told(&a);
    assert_int_equal(a.rc, RC_NO_FIT);
    f->inventory.host.usable_free_bytes = 500 * MIB;
    ask(f, "a", &a);
    must_get(&a);
}

static bool is_decided(struct fake *f, void *line)
{
    return strstr(f->decisions.data, line) != NULL;
}

/* c makes room by ending a; that huge needs the room of all is no reason to refuse it. */
static void test_who_needs_all_waits_for_who_makes_room(void **state)
{
    struct fake *f = *state;
    struct answer c, huge;
    f->models[3].bytes = 900 * MIB;
    fake_script(f, "a", (enum behaviour[]){CHILD_STUBBORN}, 1);
    f->opt.stop_timeout_ms = 300;
    fake_options(f);
    use_once(f, "a");
    use_once(f, "b");
    ask(f, "c", &c);
    fake_run_until(f, is_decided, "evict a\n");
    ask(f, "huge", &huge);
    fake_run_until(f, is_decided, "wait huge\n");
    must_get(&c);
    assert_false(huge.told);
    give_back(&c, false);
    must_get(&huge);
}

static void test_room_is_made_by_one_at_a_time(void **state)
{
    struct fake *f = *state;
    struct answer c, huge;
    f->models[3].bytes = 900 * MIB;
    fake_script(f, "a", (enum behaviour[]){CHILD_STUBBORN}, 1);
    f->opt.stop_timeout_ms = 300;
    fake_options(f);
    use_once(f, "a");
    use_once(f, "b");
    ask(f, "huge", &huge); /* evicts both; a takes its time */
    fake_run_until(f, is_decided, "evict b\n");
    ask(f, "c", &c);
    must_get(&huge);
    assert_int_equal(fake_model(f, "c")->started, 0);
    give_back(&huge, false);
    must_get(&c);
    assert_string_equal(f->decisions.data + strlen("load a\nready a\nload b\nready b\n"),
                        "load huge\nevict a\nevict b\nwait c\nready huge\nload c\nevict huge\nready c\n");
}

/* ---- the machine ---- */

static void machine(struct fake *f, const struct runtime_caps *caps, struct plan_machine *m)
{
    admit_machine(f->pool, caps, NULL, m);
}

static void test_host_view(void **state)
{
    struct fake *f = *state;
    struct plan_machine m;
    struct answer a;
    machine(f, NULL, &m);
    assert_int_equal(m.n_devices, 0);
    assert_true(m.host.total_bytes == 1000 * MIB && m.host.free_bytes == 1000 * MIB);
    assert_int_equal(m.host.cores, 2);
    f->opt.host_reserve_bytes = UINT64_MAX; /* the default: an eighth of a small host */
    fake_options(f);
    machine(f, NULL, &m);
    assert_true(m.host.free_bytes == 875 * MIB);
    f->opt.host_reserve_bytes = 100 * MIB;
    fake_options(f);
    load(f, "a", &a);
    uint64_t own = instance_of(f, "a")->reserve.host_bytes;
    assert_true(own >= 400 * MIB);
    machine(f, NULL, &m); /* the sample is older than the load */
    assert_true(m.host.free_bytes == 900 * MIB - own);
    fake_sample(f); /* it shows all of it */
    f->inventory.host.usable_free_bytes = 600 * MIB;
    machine(f, NULL, &m);
    assert_true(m.host.free_bytes == 500 * MIB);
    f->inventory.host.usable_free_bytes =
        1000 * MIB; /* it shows less than was predicted: the prediction counts */
    machine(f, NULL, &m);
    assert_true(m.host.free_bytes == 900 * MIB - own);
    f->inventory.host.usable_free_bytes = 50 * MIB;
    machine(f, NULL, &m);
    assert_int_equal(m.host.free_bytes, 0);
}

static void gpu(struct fake *f, size_t i, const char *name, const char *uuid, uint64_t total, uint64_t left)
{
    struct hw_device *d = &f->inventory.devices[i];
    *d = (struct hw_device){.valid = HW_MEMORY | HW_UUID, .total_bytes = total, .free_bytes = left};
    snprintf(d->name, sizeof d->name, "%s", name);
    snprintf(d->uuid, sizeof d->uuid, "%s", uuid);
    snprintf(d->model, sizeof d->model, "Toy %zu", i);
    f->inventory.n_devices = i + 1;
}

static void cap(struct runtime_caps *c, const char *name, const char *description)
{
    size_t i = c->n_devices++;
    snprintf(c->devices[i].name, sizeof c->devices[i].name, "%s", name);
    snprintf(c->devices[i].description, sizeof c->devices[i].description, "%s", description);
    c->devices[i].total_bytes = 8000 * MIB;
    c->devices[i].free_bytes = 7000 * MIB;
}

static void on_unloaded(void *arg, enum rc rc, const struct err *err)
{
    (void)err;
    *(bool *)arg = rc == RC_OK;
}

/* A worker serves one client: taken by one of ours or another's it has no room, whatever it told before. */
static void test_worker_view(void **state)
{
    struct fake *f = *state;
    struct plan_machine m;
    struct answer a;
    struct runtime_caps caps = {0};
    gpu(f, 0, "RPC0", "10.0.0.1:50052/0", 8000 * MIB, 7000 * MIB);
    gpu(f, 1, "RPC1", "10.0.0.1:50052/1", 8000 * MIB, 6000 * MIB);
    gpu(f, 2, "RPC2", "10.0.0.2:50052", 4000 * MIB, 4000 * MIB);
    machine(f, &caps, &m);
    assert_int_equal(m.n_devices, 0); /* a runtime that knows no workers */
    caps.rpc = true;
    machine(f, &caps, &m);
    assert_int_equal(m.n_devices, 3);
    assert_int_equal(m.devices[1].backend, PLAN_RPC);
    assert_true(m.devices[1].free_bytes == 6000 * MIB);
    f->inventory.devices[2].in_use = true;
    machine(f, &caps, &m);
    assert_int_equal(m.devices[2].free_bytes, 0);
    f->inventory.devices[2].lost = true;
    machine(f, &caps, &m);
    assert_int_equal(m.n_devices, 2);
    load(f, "a", &a);
    struct reserve *r = &instance_of(f, "a")->reserve;
    r->rows[r->n++] = (struct reserve_row){.key = "10.0.0.1:50052/1", .name = "RPC1", .bytes = 6000 * MIB};
    machine(f, &caps, &m); /* nor has its other device */
    assert_int_equal(m.devices[0].free_bytes, 0);
    assert_int_equal(m.devices[1].free_bytes, 0);
    f->inventory.devices[0].in_use = f->inventory.devices[1].in_use = true; /* by ours, until just now */
    give_back(&a, false);
    bool done = false;
    pool_unload(f->pool, STR("a"), false, on_unloaded, &done);
    fake_settle(f);
    assert_true(done);
    machine(f, &caps, &m);
    assert_true(m.devices[0].free_bytes == 7000 * MIB);
}

static void test_gpu_view(void **state)
{
    struct fake *f = *state;
    struct plan_machine m;
    struct runtime_caps caps = {0};
    gpu(f, 0, "CUDA0", "GPU-a", 24000 * MIB, 20000 * MIB);
    gpu(f, 1, "CUDA1", "GPU-b", 24000 * MIB, 10000 * MIB);
    machine(f, &caps, &m);
    assert_int_equal(m.n_devices, 0); /* a CPU build of the runtime uses no GPU */
    cap(&caps, "CUDA1", "x");
    cap(&caps, "Vulkan0", "Toy 0 (Mesa)");
    cap(&caps, "Vulkan1", "llvmpipe (LLVM 15.0.6, 256 bits)");
    cap(&caps, "SYCL0", "unknown to the inventory");
    machine(f, &caps, &m);
    assert_int_equal(m.n_devices, 3);
    assert_string_equal(m.devices[0].uuid, "GPU-b");
    assert_true(m.devices[0].free_bytes == 10000 * MIB);
    assert_string_equal(m.devices[1].name, "Vulkan0");
    assert_string_equal(m.devices[1].uuid, "GPU-a");
    assert_true(m.devices[1].free_bytes == 20000 * MIB);
    assert_string_equal(m.devices[2].name, "SYCL0");
    assert_true(m.devices[2].free_bytes == 7000 * MIB);
    admit_machine(f->pool, &caps, "Vulkan1", &m);
    assert_int_equal(m.n_devices, 4); /* asked for by name */
    f->inventory.devices[1].lost = true;
    snprintf(f->opt.budgets[0].device, sizeof f->opt.budgets[0].device, "Vulkan0");
    f->opt.budgets[0].bytes = 3000 * MIB;
    f->opt.n_budgets = 1;
    fake_options(f);
    machine(f, &caps, &m);
    assert_int_equal(m.n_devices, 2);
    assert_true(m.devices[0].free_bytes == 3000 * MIB);
}

static void test_gpu_reservations(void **state)
{
    struct fake *f = *state;
    struct plan_machine m;
    struct runtime_caps caps = {0};
    struct answer a;
    gpu(f, 0, "CUDA0", "GPU-a", 24000 * MIB, 20000 * MIB);
    cap(&caps, "CUDA0", "x");
    load(f, "a", &a);
    struct reserve *r = &instance_of(f, "a")->reserve; /* as if it had been placed there */
    r->n = 1;
    snprintf(r->rows[0].key, sizeof r->rows[0].key, "GPU-a");
    r->rows[0].bytes = 5000 * MIB;
    machine(f, &caps, &m);
    assert_true(m.devices[0].free_bytes == 15000 * MIB); /* not in the sample yet */
    fake_sample(f);
    fake_advance_ms(1);
    f->inventory.devices[0].free_bytes = 15500 * MIB;
    machine(f, &caps, &m);
    assert_true(m.devices[0].free_bytes == 15500 * MIB); /* in it */
    give_back(&a, false);
    pool_unload(f->pool, STR("a"), true, NULL, NULL);
    fake_settle(f);
    assert_null(instance_of(f, "a"));
    machine(f, &caps, &m);
    assert_true(m.devices[0].free_bytes == 20500 * MIB); /* gone, though the sample still shows it */
    fake_advance_ms(10);
    fake_sample(f);
    f->inventory.devices[0].free_bytes = 20000 * MIB;
    machine(f, &caps, &m);
    assert_true(m.devices[0].free_bytes == 20000 * MIB);
}

#define ROOM(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROOM(test_the_longest_idle_leaves),
        ROOM(test_room_without_eviction),
        ROOM(test_busy_ones_are_waited_for),
        ROOM(test_loading_ones_are_waited_for),
        ROOM(test_blocked_load_ends_with_its_last_waiter),
        ROOM(test_patience_lets_a_waiting_model_in),
        ROOM(test_no_patience),
        ROOM(test_pinned_ones_stay),
        ROOM(test_a_pin_holds),
        ROOM(test_budget_bounds_own_use),
        ROOM(test_foreign_memory_is_seen),
        ROOM(test_who_needs_all_waits_for_who_makes_room),
        ROOM(test_room_is_made_by_one_at_a_time),
        ROOM(test_host_view),
        ROOM(test_gpu_view),
        ROOM(test_worker_view),
        ROOM(test_gpu_reservations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
