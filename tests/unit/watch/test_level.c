/* Levels: thresholds, hysteresis, dwell, what a device says itself, and rules from its own limit. */
#include "watch/level.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct level_rule rule = {.warn = 85, .critical = 90, .back = 5, .dwell_ms = 10000};

static bool step(struct level_state *s, double value, uint64_t now_ms)
{
    const struct level_reading r = {.known = true, .value = value};
    return level_step(s, &rule, &r, now_ms);
}

static void test_up_at_once(void **state)
{
    (void)state;
    struct level_state s = {0};
    assert_false(step(&s, 84.9, 0));
    assert_true(step(&s, 85, 1));
    assert_int_equal(s.level, LEVEL_WARN);
    assert_false(step(&s, 89, 2));
    assert_true(step(&s, 90, 3));
    assert_int_equal(s.level, LEVEL_CRITICAL);
    struct level_state two = {0};
    assert_true(step(&two, 120, 0)); /* over both */
    assert_int_equal(two.level, LEVEL_CRITICAL);
}

static void test_down_after_the_dwell(void **state)
{
    (void)state;
    struct level_state s = {0};
    (void)step(&s, 91, 0);
    assert_false(step(&s, 85, 1000)); /* 90 - 5 is not below */
    assert_false(step(&s, 84, 2000));
    assert_false(step(&s, 84, 11999));
    assert_true(step(&s, 84, 12000));
    assert_int_equal(s.level, LEVEL_WARN);
    assert_false(step(&s, 79, 13000));
    assert_false(step(&s, 79, 22999));
    assert_true(step(&s, 79, 23000));
    assert_int_equal(s.level, LEVEL_NORMAL);
}

static void test_a_swing_begins_the_dwell_anew(void **state)
{
    (void)state;
    struct level_state s = {0};
    (void)step(&s, 91, 0);
    for (uint64_t t = 1000; t < 100000; t += 1000)
        assert_false(step(&s, t % 5000 ? 84 : 86, t));
    assert_int_equal(s.level, LEVEL_CRITICAL);
}

/* It falls to the highest level of those it was at meanwhile, not to that of the last reading. */
static void test_the_highest_of_the_dwell_counts(void **state)
{
    (void)state;
    struct level_state s = {0};
    (void)step(&s, 91, 0);
    assert_false(step(&s, 70, 1000));
    assert_false(step(&s, 83, 5000));
    assert_true(step(&s, 70, 11000));
    assert_int_equal(s.level, LEVEL_WARN);
}

static void test_a_missing_reading(void **state)
{
    (void)state;
    struct level_state s = {0};
    const struct level_reading none = {.known = false, .least = LEVEL_CRITICAL};
    assert_false(level_step(&s, &rule, &none, 0));
    (void)step(&s, 91, 0);
    assert_false(step(&s, 70, 1000));
    assert_false(level_step(&s, &rule, &none, 2000));
    assert_int_equal(s.level, LEVEL_CRITICAL);
    assert_false(step(&s, 70, 20000));
    assert_true(step(&s, 70, 30000));
    assert_int_equal(s.level, LEVEL_NORMAL);
}

static void test_what_the_device_says_itself(void **state)
{
    (void)state;
    struct level_state s = {0};
    struct level_reading r = {.known = true, .value = 70, .least = LEVEL_WARN};
    assert_true(level_step(&s, &rule, &r, 0));
    assert_int_equal(s.level, LEVEL_WARN);
    r.least = LEVEL_CRITICAL;
    assert_true(level_step(&s, &rule, &r, 1));
    assert_int_equal(s.level, LEVEL_CRITICAL);
    assert_false(level_step(&s, &rule, &r, 60000));
    r.least = LEVEL_NORMAL;
    assert_false(level_step(&s, &rule, &r, 60000));
    assert_true(level_step(&s, &rule, &r, 70000));
    assert_int_equal(s.level, LEVEL_NORMAL);
}

static void test_a_devices_own_limit(void **state)
{
    (void)state;
    static const struct {
        unsigned limit;
        bool processor;
        double warn, critical;
    } rows[] = {
        {0, false, 85, 90},   {0, true, 85, 90},   {87, false, 82, 87}, {90, false, 85, 90},
        {95, false, 85, 90},  {100, true, 85, 95}, {95, true, 80, 90},  {105, true, 90, 100},
        {49, false, 85, 90},  {3, true, 85, 90},   {151, true, 85, 90}, {50, false, 45, 50},
        {4000, true, 85, 90},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct level_rule r = level_temperature(&rule, rows[i].limit, rows[i].processor);
        assert_true(r.warn == rows[i].warn && r.critical == rows[i].critical);
        assert_true(r.back == rule.back && r.dwell_ms == rule.dwell_ms);
    }
}

/* Whatever comes: a change is told exactly when the level changes, it never rises below its threshold, and it
 * never falls before the dwell is over. */
static void test_random_walks(void **state)
{
    (void)state;
    unsigned seed = 7;
    for (int walk = 0; walk < 200; walk++) {
        struct level_state s = {0};
        double value = 80;
        uint64_t now = 0, last_high = 0;
        for (int i = 0; i < 500; i++) {
            enum level before = s.level;
            value += (double)(rand_r(&seed) % 7) - 3;
            now += 500 + (unsigned)rand_r(&seed) % 3000;
            bool told = step(&s, value, now);
            assert_int_equal(told, s.level != before);
            if (s.level > before)
                assert_true(value >= (s.level == LEVEL_CRITICAL ? rule.critical : rule.warn));
            double floor = before == LEVEL_CRITICAL ? rule.critical - rule.back : rule.warn - rule.back;
            if (s.level < before)
                assert_true(now - last_high >= rule.dwell_ms && value < floor);
            double next = s.level == LEVEL_CRITICAL ? rule.critical - rule.back : rule.warn - rule.back;
            if (value >= next || s.level != before)
                last_high = now;
        }
    }
}

static void test_words(void **state)
{
    (void)state;
    assert_string_equal(level_word(LEVEL_CRITICAL), "critical");
    assert_string_equal(level_word((enum level)99), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_up_at_once),
        cmocka_unit_test(test_down_after_the_dwell),
        cmocka_unit_test(test_a_swing_begins_the_dwell_anew),
        cmocka_unit_test(test_the_highest_of_the_dwell_counts),
        cmocka_unit_test(test_a_missing_reading),
        cmocka_unit_test(test_what_the_device_says_itself),
        cmocka_unit_test(test_a_devices_own_limit),
        cmocka_unit_test(test_random_walks),
        cmocka_unit_test(test_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
