/* The circuit breaker, with a clock of its own. */
#include "pool/breaker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define MIDDLE(ms) ((ms) / 4) /* a spread that leaves the time as it is */

static void fail_times(struct breaker *b, unsigned times, uint64_t now)
{
    for (unsigned i = 0; i < times; i++) {
        breaker_sent(b, now);
        (void)breaker_ended(b, BREAKER_FAILURE, now, MIDDLE(1000));
    }
}

static void test_opens_after_failures_in_a_row(void **state)
{
    (void)state;
    struct breaker b = {0};
    fail_times(&b, BREAKER_FAILURES - 1, 100);
    assert_true(breaker_lets(&b, 100));
    assert_false(breaker_ended(&b, BREAKER_SUCCESS, 100, 0)); /* one success forgets them */
    fail_times(&b, BREAKER_FAILURES - 1, 100);
    assert_false(
        breaker_ended(&b, BREAKER_NOTHING, 100, 0)); /* a client that left neither adds nor forgets */
    assert_int_equal(breaker_state(&b, 100), BREAKER_CLOSED);
    assert_true(breaker_ended(&b, BREAKER_FAILURE, 100, MIDDLE(1000)));
    assert_int_equal(breaker_state(&b, 100), BREAKER_OPEN);
    assert_false(breaker_lets(&b, 1099));
    assert_int_equal(breaker_wait_ms(&b, 100), 1000);
    assert_int_equal(breaker_wait_ms(&b, 1100), 0);
}

static void test_half_open_lets_one_through(void **state)
{
    (void)state;
    struct breaker b = {0};
    fail_times(&b, BREAKER_FAILURES, 0);
    assert_int_equal(breaker_state(&b, 1000), BREAKER_HALF_OPEN);
    assert_true(breaker_lets(&b, 1000));
    breaker_sent(&b, 1000);
    assert_false(breaker_lets(&b, 1001)); /* not a second one */
    assert_false(breaker_ended(&b, BREAKER_NOTHING, 1002, 0));
    assert_true(breaker_lets(&b, 1002)); /* its client left: it told nothing */
    breaker_sent(&b, 1002);
    assert_false(breaker_ended(&b, BREAKER_SUCCESS, 1003, 0));
    assert_int_equal(breaker_state(&b, 1003), BREAKER_CLOSED);
    fail_times(&b, BREAKER_FAILURES - 1, 1003); /* all is forgotten */
    assert_true(breaker_lets(&b, 1003));
}

static void test_a_failing_probe_doubles_the_time(void **state)
{
    (void)state;
    struct breaker b = {0};
    static const uint64_t expected[] = {2000, 4000, 8000, 16000, 30000, 30000, 30000};
    uint64_t now = 0;
    fail_times(&b, BREAKER_FAILURES, now);
    now = 1000;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        assert_true(breaker_lets(&b, now));
        breaker_sent(&b, now);
        assert_true(breaker_ended(&b, BREAKER_FAILURE, now, MIDDLE(expected[i])));
        assert_int_equal(breaker_wait_ms(&b, now), expected[i]);
        now += expected[i];
    }
}

/* Requests that were on their way when it opened fail too: that does not keep it open for longer. */
static void test_late_failures_tell_nothing_new(void **state)
{
    (void)state;
    struct breaker b = {0};
    fail_times(&b, BREAKER_FAILURES, 0);
    for (uint64_t t = 1; t < 500; t++)
        assert_false(breaker_ended(&b, BREAKER_FAILURE, t, 0));
    assert_int_equal(breaker_wait_ms(&b, 500), 500);
    assert_false(breaker_ended(&b, BREAKER_SUCCESS, 600, 0)); /* but a success tells that it works */
    assert_true(breaker_lets(&b, 600));
}

static void test_spread_stays_within_a_quarter(void **state)
{
    (void)state;
    uint64_t least = UINT64_MAX, most = 0;
    for (uint64_t spread = 0; spread < 5000; spread++) {
        struct breaker b = {0};
        fail_times(&b, BREAKER_FAILURES - 1, 0);
        assert_true(breaker_ended(&b, BREAKER_FAILURE, 0, spread));
        uint64_t ms = breaker_wait_ms(&b, 0);
        least = ms < least ? ms : least;
        most = ms > most ? ms : most;
    }
    assert_int_equal(least, 750);
    assert_int_equal(most, 1250);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens_after_failures_in_a_row),
        cmocka_unit_test(test_half_open_lets_one_through),
        cmocka_unit_test(test_a_failing_probe_doubles_the_time),
        cmocka_unit_test(test_late_failures_tell_nothing_new),
        cmocka_unit_test(test_spread_stays_within_a_quarter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
