/* When a failed request is sent again: bounds of pauses, what the server asks for, and what is never
 * repeated. */
#include "proxy/retry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct retry_limits usual = {.max = 3, .base_ms = 1000, .longest_ms = 30000};

static struct retry_case unserved(int status, uint64_t retry_after_s)
{
    return (struct retry_case){.failure = RETRY_ANSWERED,
                               .status = status,
                               .retry_after_s = retry_after_s,
                               .attempts = 1,
                               .left_ms = UINT64_MAX,
                               .seed = 7};
}

static struct retry_case failed(enum retry_failure failure)
{
    return (struct retry_case){.failure = failure, .attempts = 1, .left_ms = UINT64_MAX, .seed = 7};
}

static enum retry_step step_of(const struct retry_case *c)
{
    return retry_decide(&usual, c).step;
}

/* ---- pauses ---- */

static void test_pauses_double_within_bounds(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 1000; seed++)
        for (uint32_t n = 0; n < 70; n++) {
            uint64_t most = n < 5 ? 1000ull << n : 30000, ms = retry_pause_ms(&usual, n, seed);
            assert_in_range(ms, most - most / 2, most);
            assert_int_equal(ms, retry_pause_ms(&usual, n, seed)); /* the same request waits the same */
        }
}

/* Those who were sent away together do not come back together. */
static void test_pauses_are_spread(void **state)
{
    (void)state;
    enum { PARTS = 10, ASKED = 10000 };
    unsigned count[PARTS] = {0}, same = 0;
    for (uint64_t seed = 0; seed < ASKED; seed++) {
        uint64_t ms = retry_pause_ms(&usual, 0, seed), part = (ms - 500) * PARTS / 501;
        count[part < PARTS ? part : PARTS - 1]++;
        same += ms == retry_pause_ms(&usual, 0, seed + 1);
    }
    for (unsigned i = 0; i < PARTS; i++)
        assert_in_range(count[i], ASKED / PARTS * 8 / 10, ASKED / PARTS * 12 / 10);
    assert_true(same < ASKED / 100);
}

static void test_odd_limits(void **state)
{
    (void)state;
    static const struct retry_limits rows[] = {{3, 0, 30000}, {3, 0, 0}, {3, 1, 0}, {3, 30000, 1}, {3, 1, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (uint32_t n = 0; n < 5; n++)
            assert_true(retry_pause_ms(&rows[i], n, 3) <= rows[i].longest_ms);
    const struct retry_limits huge = {UINT32_MAX, UINT64_MAX / 2 + 1, UINT64_MAX};
    assert_true(retry_pause_ms(&huge, UINT32_MAX, 3) >= UINT64_MAX / 2);
    const struct retry_limits none = {0, 1000, 30000};
    const struct retry_case c = unserved(503, 0);
    assert_int_equal(retry_decide(&none, &c).step, RETRY_NOT);
}

static void test_what_the_server_asks_for(void **state)
{
    (void)state;
    struct retry_case c = unserved(429, 7);
    struct retry_plan p = retry_decide(&usual, &c);
    assert_int_equal(p.step, RETRY_LATER);
    assert_int_equal(p.pause_ms, 7000);
    assert_int_equal(p.rest_s, 0);
    c = unserved(503, 30); /* as long as a pause may be */
    assert_int_equal(retry_decide(&usual, &c).pause_ms, 30000);
    c = unserved(503, 1); /* less than the pause that it would be */
    c.pauses = 2;
    p = retry_decide(&usual, &c);
    assert_int_equal(p.pause_ms, retry_pause_ms(&usual, 2, 7));
    assert_true(p.pause_ms >= 2000);
    c = unserved(429, 31); /* too long: it is left alone, others are asked */
    p = retry_decide(&usual, &c);
    assert_int_equal(p.step, RETRY_NOT);
    assert_int_equal(p.rest_s, 31);
    c.others = true;
    p = retry_decide(&usual, &c);
    assert_int_equal(p.step, RETRY_OTHERS);
    assert_int_equal(p.rest_s, 31);
    c = unserved(429, UINT64_MAX);
    assert_int_equal(retry_decide(&usual, &c).step, RETRY_NOT);
    assert_int_equal(retry_decide(&usual, &c).rest_s, UINT32_MAX);
}

static void test_tries_and_time_are_bounded(void **state)
{
    (void)state;
    struct retry_case c = unserved(503, 0);
    for (c.pauses = 0; c.pauses < 3; c.pauses++)
        assert_int_equal(step_of(&c), RETRY_LATER);
    assert_int_equal(step_of(&c), RETRY_NOT);
    c.others = true; /* they cost no pause */
    assert_int_equal(step_of(&c), RETRY_OTHERS);
    c = unserved(503, 5);
    c.left_ms = 5000; /* it would be over when it began */
    assert_int_equal(step_of(&c), RETRY_NOT);
    c.left_ms = 5001;
    assert_int_equal(step_of(&c), RETRY_LATER);
    c = failed(RETRY_UNREACHED);
    c.elsewhere = true;
    c.left_ms = 0;
    assert_int_equal(step_of(&c), RETRY_NOT);
}

/* ---- what may be sent again at all ---- */

/* Nothing else says that the request was not begun, whatever it is. */
static void test_only_three_statuses(void **state)
{
    (void)state;
    for (int status = 0; status < 1000; status++) {
        bool may = status == 429 || status == 503 || status == 529;
        struct retry_case c = unserved(status, 0);
        assert_int_equal(retry_says_unserved(status), may);
        assert_int_equal(step_of(&c), may ? RETRY_LATER : RETRY_NOT);
        c.others = true;
        assert_int_equal(step_of(&c), may ? RETRY_LATER : RETRY_NOT);
    }
}

static void test_never_after_the_first_byte(void **state)
{
    (void)state;
    for (int status = 0; status < 1000; status++)
        for (unsigned bits = 0; bits < 8; bits++) {
            const struct retry_case c = {.failure = RETRY_BEGUN,
                                         .status = status,
                                         .retry_after_s = bits & 1,
                                         .elsewhere = bits & 2,
                                         .others = bits & 4,
                                         .attempts = 1,
                                         .left_ms = UINT64_MAX};
            assert_int_equal(step_of(&c), RETRY_NOT);
        }
}

static void test_connections(void **state)
{
    (void)state;
    static const struct {
        enum retry_failure failure;
        bool elsewhere, others;
        uint32_t attempts;
        enum retry_step step;
    } rows[] = {
        {RETRY_UNREACHED, false, false, 1, RETRY_AT_ONCE}, /* the route may know another instance */
        {RETRY_UNREACHED, false, true, 1, RETRY_AT_ONCE},  {RETRY_UNREACHED, false, true, 2, RETRY_OTHERS},
        {RETRY_UNREACHED, false, false, 2, RETRY_LATER},   {RETRY_UNREACHED, true, true, 1, RETRY_OTHERS},
        {RETRY_UNREACHED, true, false, 1, RETRY_LATER},    {RETRY_UNTRUSTED, true, true, 1, RETRY_OTHERS},
        {RETRY_UNTRUSTED, true, false, 1, RETRY_NOT}, /* it will not be in a second */
        {RETRY_CLOSED, false, true, 1, RETRY_FRESH},       {RETRY_CLOSED, true, true, 2, RETRY_FRESH},
        {RETRY_CLOSED, true, true, 3, RETRY_NOT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct retry_case c = failed(rows[i].failure);
        c.elsewhere = rows[i].elsewhere;
        c.others = rows[i].others;
        c.attempts = rows[i].attempts;
        assert_int_equal(step_of(&c), rows[i].step);
    }
}

/* However it fails, a request comes to an end: pauses and attempts only grow. */
static void test_it_ends(void **state)
{
    (void)state;
    for (unsigned failure = 0; failure < RETRY_FAILURES; failure++) {
        struct retry_case c = failed((enum retry_failure)failure);
        c.status = 503;
        unsigned steps = 0;
        for (enum retry_step s; (s = step_of(&c)) != RETRY_NOT; steps++) {
            c.attempts = s == RETRY_LATER ? 1 : c.attempts + 1;
            c.pauses += s == RETRY_LATER;
            assert_true(steps < 20);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pauses_double_within_bounds),
        cmocka_unit_test(test_pauses_are_spread),
        cmocka_unit_test(test_odd_limits),
        cmocka_unit_test(test_what_the_server_asks_for),
        cmocka_unit_test(test_tries_and_time_are_bounded),
        cmocka_unit_test(test_only_three_statuses),
        cmocka_unit_test(test_never_after_the_first_byte),
        cmocka_unit_test(test_connections),
        cmocka_unit_test(test_it_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
