/* The sampler: snapshots reach the loop, and a driver that hangs does not keep the daemon from ending. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/mem.h"
#include "daemon/sampler.h"

struct machine {
    uv_mutex_t lock;
    uv_sem_t begun, go_on, closed;
    unsigned samples;
    bool hangs, fails; /* from the second sample on */
};

static enum rc sample(void *arg, struct hw_inventory *inv, struct err *err)
{
    struct machine *m = arg;
    uv_mutex_lock(&m->lock);
    unsigned n = ++m->samples;
    bool hangs = m->hangs && n > 1, fails = m->fails && n > 1;
    uv_mutex_unlock(&m->lock);
    if (hangs) {
        uv_sem_post(&m->begun);
        uv_sem_wait(&m->go_on);
    }
    if (fails)
        return err_set(err, RC_IO, "the driver is gone");
    inv->wall_ms = n;
    return RC_OK;
}

static void close_machine(void *arg)
{
    uv_sem_post(&((struct machine *)arg)->closed);
}

static struct machine *machine_new(void)
{
    struct machine *m = mem_new(struct machine);
    uv_mutex_init(&m->lock);
    uv_sem_init(&m->begun, 0);
    uv_sem_init(&m->go_on, 0);
    uv_sem_init(&m->closed, 0);
    return m;
}

static void machine_free(struct machine *m)
{
    uv_mutex_destroy(&m->lock);
    uv_sem_destroy(&m->begun);
    uv_sem_destroy(&m->go_on);
    uv_sem_destroy(&m->closed);
    free(m);
}

static void on_fresh(void *arg)
{
    ++*(unsigned *)arg;
}

static struct sampler *start(uv_loop_t *loop, struct machine *m, unsigned *fresh)
{
    struct sampler *s = NULL;
    struct err err;
    const struct sampler_source source = {
        .arg = m, .sample = sample, .close = close_machine, .stop_wait_ms = 20};
    assert_int_equal(uv_loop_init(loop), 0);
    if (sampler_start_with(loop, &source, 1, on_fresh, fresh, &s, &err) != RC_OK)
        fail_msg("%s", err.message);
    return s;
}

static void end(uv_loop_t *loop)
{
    uv_run(loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(loop), 0);
}

static void test_snapshots_reach_the_loop(void **state)
{
    (void)state;
    uv_loop_t loop;
    unsigned fresh = 0;
    struct machine *m = machine_new();
    struct sampler *s = start(&loop, m, &fresh);
    const struct hw_inventory *first = sampler_latest(s);
    assert_int_equal(first->wall_ms, 1); /* the first sample was taken in the start */
    sampler_want(s);
    while (fresh == 0)
        uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(first->wall_ms, 1); /* what is lent stays */
    assert_true(sampler_latest(s)->wall_ms > 1);
    sampler_stop(s);
    end(&loop);
    assert_int_equal(uv_sem_trywait(&m->closed), 0); /* once, at the end */
    assert_int_not_equal(uv_sem_trywait(&m->closed), 0);
    machine_free(m);
}

static void test_a_failed_sample_keeps_the_last_good_one(void **state)
{
    (void)state;
    uv_loop_t loop;
    unsigned fresh = 0;
    struct machine *m = machine_new();
    m->fails = m->hangs = true;
    struct sampler *s = start(&loop, m, &fresh);
    for (int i = 0; i < 3; i++) {
        uv_sem_wait(&m->begun);
        uv_sem_post(&m->go_on);
    }
    assert_int_equal(sampler_latest(s)->wall_ms, 1);
    uv_sem_post(&m->go_on);
    uv_sem_post(&m->go_on);
    sampler_stop(s);
    end(&loop);
    assert_int_equal(fresh, 0);
    uv_sem_wait(&m->closed);
    machine_free(m);
}

static void test_a_hanging_driver_does_not_keep_the_daemon(void **state)
{
    (void)state;
    uv_loop_t loop;
    unsigned fresh = 0;
    struct machine *m = machine_new();
    m->hangs = true;
    struct sampler *s = start(&loop, m, &fresh);
    uv_sem_wait(&m->begun);
    sampler_stop(s); /* returns, though the sample has not */
    end(&loop);
    assert_int_not_equal(uv_sem_trywait(&m->closed), 0); /* nothing is taken from beneath the thread */
    for (int i = 0; i < 8; i++)
        uv_sem_post(&m->go_on); /* the driver wakes up after all */
    uv_sem_wait(&m->closed);    /* the thread clears up by itself */
    assert_int_equal(fresh, 0);
    machine_free(m);
}

static void test_a_machine_that_cannot_be_read(void **state)
{
    (void)state;
    uv_loop_t loop;
    unsigned fresh = 0;
    struct err err;
    struct sampler *s = NULL;
    struct machine *m = machine_new();
    const struct sampler_source source = {.arg = m, .sample = sample, .close = close_machine};
    m->fails = true;
    m->samples = 1;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(sampler_start_with(&loop, &source, 1, on_fresh, &fresh, &s, &err), RC_IO);
    assert_null(s);
    assert_int_equal(uv_sem_trywait(&m->closed), 0);
    end(&loop);
    sampler_stop(NULL);
    machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshots_reach_the_loop),
        cmocka_unit_test(test_a_failed_sample_keeps_the_last_good_one),
        cmocka_unit_test(test_a_hanging_driver_does_not_keep_the_daemon),
        cmocka_unit_test(test_a_machine_that_cannot_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
