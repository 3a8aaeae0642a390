/* plan/reuse.c: chances that follow habits. */
#include "plan/plan.h"
#include "plan/reuse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>

static struct reuse every(double gap_s, unsigned times)
{
    struct reuse r = {0};
    for (unsigned i = 0; i < times; i++)
        reuse_seen(&r, gap_s);
    return r;
}

static void test_never_used(void **state)
{
    (void)state;
    struct reuse r = {0};
    double before = reuse_chance(&r, 0);
    assert_true(before == 1);
    for (double idle = 1; idle < 1e9; idle *= 3) { /* nothing but the pause is known */
        double now = reuse_chance(&r, idle);
        assert_true(now > 0 && now < before);
        before = now;
    }
}

static void test_bounds(void **state)
{
    (void)state;
    struct reuse r = {0};
    static const double gaps[] = {0, 0.5, 1, 59, 1e3, 1e5, 1e7, 1e300};
    for (size_t i = 0; i < sizeof gaps / sizeof *gaps; i++) {
        reuse_seen(&r, gaps[i]);
        for (size_t k = 0; k < sizeof gaps / sizeof *gaps; k++) {
            double c = reuse_chance(&r, gaps[k]);
            assert_true(c >= 0 && c <= 1);
        }
    }
}

static void test_nonsense(void **state)
{
    (void)state;
    struct reuse r = every(60, 10), same = r;
    reuse_seen(&r, -1);
    reuse_seen(&r, NAN);
    reuse_seen(&r, INFINITY);
    assert_memory_equal(&r, &same, sizeof r);
    assert_true(reuse_chance(&r, NAN) == reuse_chance(&r, 0));
    assert_true(reuse_chance(&r, -5) == reuse_chance(&r, 0));
}

/* A job of every hour: right after it the next is far away, an hour later it is near. */
static void test_every_hour(void **state)
{
    (void)state;
    struct reuse hourly = every(3600, 100), busy = every(30, 100);
    assert_true(reuse_chance(&hourly, 60) < 0.15);
    assert_true(reuse_chance(&hourly, 3500) > 3 * reuse_chance(&hourly, 60));
    /* fifty minutes after its latest use the one of every hour is wanted sooner than the one that is used
     * every half minute when it is used at all: its user has left */
    assert_true(reuse_chance(&hourly, 3000) > 2 * reuse_chance(&busy, 3000));
    assert_true(reuse_chance(&busy, 20) > reuse_chance(&hourly, 20));
}

static void test_habits_change(void **state)
{
    (void)state;
    struct reuse r = every(20, 2000);
    double before = reuse_chance(&r, 600);
    for (unsigned i = 0; i < 2000; i++)
        reuse_seen(&r, 900);
    assert_true(reuse_chance(&r, 600) > 1.5 * before);
}

static void test_cost(void **state)
{
    (void)state;
    struct plan_resident r = {.idle_ms = 600000, .reload_seconds = 5};
    double c = plan_resident_cost(&r);
    assert_true(fabs(c - 15 * 300.0 / 900) < 1e-9);
    r.wanted = 0.5;
    assert_true(fabs(plan_resident_cost(&r) - 7.5) < 1e-9);
    r.priority = 2;
    assert_true(fabs(plan_resident_cost(&r) - 16 * 7.5) < 1e-9);
    r.reload_seconds = 20;
    assert_true(fabs(plan_resident_cost(&r) - 16 * 15) < 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_never_used),    cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_nonsense),      cmocka_unit_test(test_every_hour),
        cmocka_unit_test(test_habits_change), cmocka_unit_test(test_cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
