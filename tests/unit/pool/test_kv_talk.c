/* Unit tests of the conversations of an instance: which go on, which slot holds which. */
#include "pool/kv_talk.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct prefix prompt(uint32_t n, uint64_t who)
{
    struct prefix p = {.n = n};
    for (uint32_t i = 0; i < n; i++)
        p.hash[i] = who * 1000 + i + 1;
    return p;
}

static uint64_t had(struct kv_talks *t, uint32_t n, uint64_t who, uint32_t tokens, uint32_t answer)
{
    struct prefix p = prompt(n, who);
    uint64_t serial = kv_talks_begin(t, &p);
    kv_talks_end(t, serial, tokens, answer);
    return serial;
}

static size_t count(const struct kv_talks *t)
{
    size_t n = 0;
    for (size_t i = 0; i < KV_TALKS; i++)
        n += t->list[i].serial != 0;
    return n;
}

static int setup(void **state)
{
    *state = mem_new(struct kv_talks);
    return 0;
}

static int teardown(void **state)
{
    free(*state);
    return 0;
}

static void test_what_goes_on_is_the_same(void **state)
{
    struct kv_talks *t = *state;
    had(t, 4, 1, 100, 10);
    had(t, 6, 1, 150, 10); /* longer */
    had(t, 3, 2, 80, 5);
    assert_int_equal(count(t), 2);
    struct prefix p = prompt(9, 1), q = prompt(9, 3);
    assert_int_equal(kv_talks_common(t, &p), 6);
    assert_int_equal(kv_talks_common(t, &q), 0);
    p.hash[5] = 7; /* where the end of its text was */
    uint64_t serial = kv_talks_begin(t, &p);
    assert_int_equal(count(t), 2);
    assert_int_equal(kv_talks_common(t, &p), 9);
    /* another branch while that one runs */
    struct prefix branch = prompt(8, 1);
    (void)kv_talks_begin(t, &branch);
    assert_int_equal(count(t), 3);
    kv_talks_end(t, serial, 0, 0);
    kv_talks_end(t, 999, 5, 5); /* nobody's */
}

static void test_the_oldest_gives_way(void **state)
{
    struct kv_talks *t = *state;
    for (uint64_t who = 1; who <= KV_TALKS + 1; who++)
        had(t, 2, who, 10, 1);
    struct prefix first = prompt(2, 1), second = prompt(2, 2);
    assert_int_equal(kv_talks_common(t, &first), 0);
    assert_int_equal(kv_talks_common(t, &second), 2);
    for (uint64_t who = 100; who < 100 + KV_TALKS; who++) {
        struct prefix p = prompt(2, who);
        (void)kv_talks_begin(t, &p);
    }
    struct prefix more = prompt(2, 1000);
    assert_int_not_equal(kv_talks_begin(t, &more), 0); /* all run: it is not noted */
    assert_int_equal(kv_talks_common(t, &more), 0);
}

static void test_slots_by_their_tokens(void **state)
{
    struct kv_talks *t = *state;
    struct kv_pick out[4];
    had(t, 4, 1, 100, 10);
    had(t, 4, 2, 300, 20);
    had(t, 4, 3, 0, 0); /* its answer broke off */
    struct prefix running = prompt(4, 4);
    (void)kv_talks_begin(t, &running);
    const struct runtime_slot slots[] = {
        {0, false, 7, 319}, /* what was asked and answered, less the last token */
        {1, false, 5, 100}, /* what was asked */
        {2, true, 9, 110},
        {3, false, 0, 0},
    };
    assert_int_equal(kv_talks_match(t, slots, 4, out), 2);
    assert_int_equal(out[0].slot.id, 0);
    assert_int_equal(out[0].talk->prefix.hash[0], 2001);
    assert_int_equal(out[1].slot.id, 1);
    assert_int_equal(out[1].talk->prefix.hash[0], 1001);
}

static void test_equal_ones_by_their_order(void **state)
{
    struct kv_talks *t = *state;
    struct kv_pick out[3];
    had(t, 4, 1, 100, 10);
    had(t, 4, 2, 100, 10);
    const struct runtime_slot slots[] = {{0, false, 5, 110}, {1, false, 9, 110}, {2, false, 11, 55}};
    assert_int_equal(kv_talks_match(t, slots, 3, out), 2);
    assert_int_equal(out[0].slot.id, 1);
    assert_int_equal(out[0].talk->prefix.hash[0], 2001);
    assert_int_equal(out[1].slot.id, 0);
    assert_int_equal(out[1].talk->prefix.hash[0], 1001);
    assert_int_equal(kv_talks_match(t, slots, 0, out), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_goes_on_is_the_same),
        TEST(test_the_oldest_gives_way),
        TEST(test_slots_by_their_tokens),
        TEST(test_equal_ones_by_their_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
