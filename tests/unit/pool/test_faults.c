/* What goes wrong outside: runtimes that hang when they are asked, victims that hang while they leave, clocks
 * that jump, ports that clash, logs that tell too much. */
#include "fake.h"

#include <stdio.h>
#include <string.h>

/* ---- probes ---- */

static bool all_told(struct fake *f, void *arg)
{
    (void)f;
    const struct answer *list = arg;
    return list[0].told && list[1].told && list[2].told;
}

static unsigned probes(const struct fake *f)
{
    return __atomic_load_n(&f->probes, __ATOMIC_SEQ_CST);
}

static void test_a_failed_probe_answers_the_queue(void **state)
{
    struct fake *f = *state;
    struct answer all[3], late;
    fake_settle(f);
    f->bad_probe = true;
    for (size_t i = 0; i < 3; i++) { /* another runtime than the one that is known by now */
        f->settings[i].runtime_binary = "/bin/false";
        f->settings[i].settings_hash = 2;
    }
    fake_set_models(f, f->n_models);
    unsigned before = probes(f);
    for (size_t i = 0; i < 3; i++)
        ask(f, f->settings[i].id, &all[i]);
    fake_run_until(f, all_told, all);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(all[i].rc, RC_BACKEND);
        assert_non_null(strstr(all[i].err.message, "did not end within"));
    }
    assert_int_equal(probes(f) - before, 1);
    fake_advance_ms(1000); /* over with the back-off of one failure, but the probe has just failed */
    ask(f, "a", &late);
    until_told(&late);
    assert_int_equal(late.rc, RC_BACKEND);
    assert_int_equal(probes(f) - before, 1);
    f->bad_probe = false; /* not for ever */
    fake_advance_ms(POOL_PROBE_KEEP_MS);
    ask(f, "a", &late);
    must_get(&late);
    assert_int_equal(probes(f) - before, 2);
}

static void test_a_new_binary_is_probed_anew(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    char path[] = "/tmp/arr-probe-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    f->settings[0].runtime_binary = f->settings[1].runtime_binary = path;
    f->settings[0].settings_hash = f->settings[1].settings_hash = 2;
    fake_settle(f);
    fake_set_models(f, f->n_models);
    f->bad_probe = true;
    ask(f, "a", &a);
    until_told(&a);
    assert_int_equal(a.rc, RC_BACKEND);
    f->bad_probe = false;
    assert_int_equal(write(fd, "new", 3), 3); /* somebody put another one there */
    ask(f, "b", &b);
    must_get(&b);
    close(fd);
    unlink(path);
}

static void work(uv_work_t *w)
{
    (void)w;
}

static void after_work(uv_work_t *w, int status)
{
    assert_int_equal(status, 0);
    *(bool *)w->data = true;
}

static bool is_set(struct fake *f, void *arg)
{
    (void)f;
    return *(bool *)arg;
}

static bool probe_begun(struct fake *f, void *arg)
{
    return probes(f) > *(unsigned *)arg;
}

/* Those who wait for a probe hold no thread: other work goes on. */
static void test_waiting_for_a_probe_holds_no_thread(void **state)
{
    struct fake *f = *state;
    struct answer all[3], more[3];
    uv_sem_t gate;
    bool done = false;
    uv_work_t other = {.data = &done};
    fake_settle(f);
    uv_sem_init(&gate, 0);
    f->probe_gate = &gate;
    for (size_t i = 0; i < 4; i++) {
        f->settings[i].runtime_binary = "/bin/cat";
        f->settings[i].settings_hash = 2;
        fake_model(f, f->settings[i].id)->bytes = 1 * MIB;
    }
    fake_set_models(f, f->n_models);
    unsigned before = probes(f);
    for (size_t i = 0; i < 3; i++)
        ask(f, f->settings[i].id, &all[i]);
    fake_run_until(f, probe_begun, &before);
    for (size_t i = 0; i < 3; i++) /* a second preparation of each: the first one nobody wants any more */
        pool_unload(f->pool, str_from(f->settings[i].id), true, NULL, NULL);
    for (size_t i = 0; i < 3; i++)
        ask(f, f->settings[i].id, &more[i]);
    uv_queue_work(&f->loop, &other, work, after_work);
    fake_run_until(f, is_set, &done);
    assert_int_equal(probes(f) - before, 1);
    uv_sem_post(&gate);
    for (size_t i = 0; i < 3; i++)
        must_get(&more[i]);
    assert_int_equal(probes(f) - before, 1);
    fake_settle(f);
    f->probe_gate = NULL;
    uv_sem_destroy(&gate);
}

/* ---- victims ---- */

/* a and b are busy, c has waited long enough for one of them to leave: returns the lease that keeps it. */
static struct answer *victim_of_patience(struct fake *f, struct answer *a, struct answer *b, struct answer *c)
{
    ask(f, "a", a);
    must_get(a);
    ask(f, "b", b);
    must_get(b);
    ask(f, "c", c);
    fake_settle(f);
    fake_advance_ms(f->opt.patience_ms);
    pool_inventory_changed(f->pool);
    fake_settle(f);
    return decided(f, "evict a") ? a : b;
}

static void test_a_hung_victim_is_ended(void **state)
{
    struct fake *f = *state;
    struct answer a, b, c;
    struct answer *held = victim_of_patience(f, &a, &b, &c);
    char crash[16];
    snprintf(crash, sizeof crash, "crash %s", held == &a ? "a" : "b");
    assert_false(c.told);
    fake_mute(f, held == &a ? "a" : "b");
    must_get(&c); /* though the lease is never given back */
    assert_true(decided(f, crash));
    assert_null(instance_of(f, held == &a ? "a" : "b"));
    give_back(held, true);
    struct pool_counters n;
    pool_counters(f->pool, &n);
    assert_int_equal(n.crashes, 1);
}

static bool was_looked_at(struct fake *f, void *arg)
{
    return f->ticks >= *(uint64_t *)arg;
}

/* All HTTP threads of a llama-server may carry streams: then it computes, though it answers no check. */
static void test_a_victim_that_computes_gets_time(void **state)
{
    struct fake *f = *state;
    struct answer a, b, c;
    struct answer *held = victim_of_patience(f, &a, &b, &c);
    const char *id = held == &a ? "a" : "b";
    f->computes = true;
    fake_mute(f, id);
    uint64_t looks = f->ticks + POOL_CHECK_TRIES + 2;
    fake_run_until(f, was_looked_at, &looks);
    assert_non_null(instance_of(f, id));
    assert_false(c.told);
    fake_advance_ms(f->opt.load_timeout_ms); /* but not for ever */
    must_get(&c);
    assert_null(instance_of(f, id));
    give_back(held, true);
}

/* ---- clocks ---- */

static void test_admission_knows_no_wall_clock(void **state)
{
    struct fake *f = *state;
    struct plan_machine m;
    struct answer a;
    ask(f, "a", &a);
    must_get(&a);
    uint64_t own = instance_of(f, "a")->reserve.host_bytes;
    f->wall_shift = -3600 * 1000; /* somebody sets the clock back */
    fake_advance_ms(1000);
    fake_sample(f);
    f->inventory.host.usable_free_bytes = 600 * MIB;
    admit_machine(f->pool, NULL, NULL, &m);
    assert_true(m.host.free_bytes == (1000 * MIB - own < 600 * MIB ? 1000 * MIB - own : 600 * MIB));
    give_back(&a, false);
    pool_unload(f->pool, STR("a"), true, NULL, NULL);
    fake_settle(f);
    f->wall_shift = 3600 * 1000; /* and forward */
    fake_advance_ms(1000);
    fake_sample(f);
    f->inventory.host.usable_free_bytes = 500 * MIB;
    admit_machine(f->pool, NULL, NULL, &m);
    assert_true(m.host.free_bytes == 500 * MIB); /* what has gone is not counted twice */
}

/* ---- ports ---- */

static bool is_second_up(struct fake *f, void *arg)
{
    return fake_model(f, arg)->started == 2 && instance_of(f, arg) && instance_of(f, arg)->jobs_closing == 0;
}

static void test_a_port_clash_does_not_end_the_second_process(void **state)
{
    struct fake *f = *state;
    struct answer a;
    fake_script(f, "a", (enum behaviour[]){CHILD_DIES_PORT, CHILD_READY}, 2);
    ask(f, "a", &a);
    fake_run_until(f, is_second_up, "a");
    must_get(&a);
    fake_settle(f);
    /* What is told as gone asks for a sample: once the first process, once the load that became ready. */
    assert_int_equal(f->samples_wanted, 2);
    fake_advance_ms(1);
    fake_mute(f, "a");
    struct pool_instance *i = instance_of(f, "a");
    i->anon_bytes = 7;
    give_back(&a, true);
    ask(f, "a", &a); /* the mute one is killed: its memory is free when it is gone, and told so */
    must_get(&a);
    assert_int_equal(f->pool->gone[0].freed.host_bytes, 7);
    assert_true(f->pool->gone[0].ended_ms > 0);
}

/* ---- logs ---- */

static void test_a_log_may_name_every_device_twice(void **state)
{
    struct fake *f = *state;
    struct answer a;
    f->n_parts = PLAN_MAX_DEVICES + 1;
    ask(f, "a", &a);
    must_get(&a);
    assert_true(decided(f, "ready a"));
}

static void test_no_view_shows_a_secret(void **state)
{
    struct fake *f = *state;
    struct answer a;
    static const char *const extra[] = {"--api-key=s3cret"};
    f->settings[0].extra_args = extra;
    f->settings[0].n_extra_args = 1;
    f->settings[0].settings_hash = 2;
    fake_set_models(f, f->n_models);
    ask(f, "a", &a);
    must_get(&a);
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    struct buf out = {0};
    struct err err;
    yyjson_mut_doc_set_root(doc, pool_json(f->pool, doc));
    assert_int_equal(json_write(doc, false, &out, &err), RC_OK);
    assert_non_null(strstr(out.data, "--api-key=***"));
    assert_null(strstr(out.data, "s3cret"));
    buf_release(&out);
    yyjson_mut_doc_free(doc);
}

static void test_the_hint_is_the_command(void **state)
{
    struct fake *f = *state;
    struct answer a;
    fake_script(f, "a", (enum behaviour[]){CHILD_DIES}, 1);
    ask(f, "a", &a);
    until_told(&a);
    assert_int_equal(a.rc, RC_BACKEND);
    assert_non_null(strstr(a.err.hint, "arriero logs a"));
}

static bool two_more_probes(struct fake *f, void *arg)
{
    return probes(f) == *(unsigned *)arg + 2;
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

/* The daemon's stop is no failure of a model, least of all of one whose runtime was still to be asked. */
static void test_a_stop_answers_who_waits_for_a_probe(void **state)
{
    static const char *const runtimes[] = {"/bin/false", "/bin/echo", "/bin/cat"};
    struct fake *f = *state;
    struct answer all[3];
    uv_sem_t gate;
    fake_settle(f);
    uv_sem_init(&gate, 0);
    f->probe_gate = &gate;
    for (size_t i = 0; i < 3; i++) {
        f->settings[i].runtime_binary = runtimes[i];
        f->settings[i].settings_hash = 2;
    }
    fake_set_models(f, f->n_models);
    unsigned before = probes(f);
    for (size_t i = 0; i < 3; i++)
        ask(f, f->settings[i].id, &all[i]);
    fake_run_until(f, two_more_probes, &before);
    for (size_t i = 0; i < 2; i++) { /* the third one has found its runtime by then, and queues */
        bool done = false;
        uv_work_t other = {.data = &done};
        uv_queue_work(&f->loop, &other, work, after_work);
        fake_run_until(f, is_set, &done);
    }
    pool_stop(f->pool, false, on_stop, f);
    for (size_t i = 0; i < 3; i++) {
        assert_true(all[i].told);
        assert_int_equal(all[i].rc, RC_BUSY);
        assert_string_equal(all[i].err.message, "the daemon is stopping");
    }
    assert_false(decided(f, "fail a") || decided(f, "fail b") || decided(f, "fail c"));
    for (size_t i = 0; i < 8; i++)
        uv_sem_post(&gate);
    fake_run_until(f, is_stopped, NULL);
    uv_sem_destroy(&gate);
}

#define FAULT(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAULT(test_a_failed_probe_answers_the_queue),
        FAULT(test_a_new_binary_is_probed_anew),
        FAULT(test_waiting_for_a_probe_holds_no_thread),
        FAULT(test_a_stop_answers_who_waits_for_a_probe),
        FAULT(test_a_hung_victim_is_ended),
        FAULT(test_a_victim_that_computes_gets_time),
        FAULT(test_admission_knows_no_wall_clock),
        FAULT(test_a_port_clash_does_not_end_the_second_process),
        FAULT(test_a_log_may_name_every_device_twice),
        FAULT(test_no_view_shows_a_secret),
        FAULT(test_the_hint_is_the_command),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
