/* Free blocks of one buffer: best fit, growth, chunks, merging, states that are saved and loaded. */
#include "plan/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct pool_place taken(struct pool *p, uint64_t size)
{
    struct pool_place at = {0};
    assert_true(pool_take(p, size, &at));
    return at;
}

static void test_best_fit(void **state)
{
    (void)state;
    struct pool p = {0};
    pool_reset(&p, UINT64_MAX);
    struct pool_place a = taken(&p, 100), b = taken(&p, 10), c = taken(&p, 50), d = taken(&p, 10);
    assert_int_equal(d.offset, 160);
    assert_true(pool_give(&p, a, 100));
    assert_true(pool_give(&p, c, 50));
    assert_int_equal(taken(&p, 40).offset, c.offset); /* the smaller of two holes */
    assert_int_equal(taken(&p, 60).offset, a.offset);
    assert_int_equal(taken(&p, 60).offset, 170); /* none fits: growth */
    assert_int_equal(pool_bytes(&p), 230);
    assert_true(pool_give(&p, b, 10));
    assert_int_equal(pool_bytes(&p), 230); /* the highest end stays */
    pool_drop(&p);
}

static void test_merging(void **state)
{
    (void)state;
    struct pool p = {0};
    pool_reset(&p, UINT64_MAX);
    struct pool_place a = taken(&p, 32), b = taken(&p, 32), c = taken(&p, 32), d = taken(&p, 32);
    assert_true(pool_give(&p, a, 32) && pool_give(&p, c, 32) && pool_give(&p, b, 32));
    assert_int_equal(taken(&p, 96).offset, 0);
    assert_int_equal(d.offset, 96);
    pool_drop(&p);
}

/* A block larger than the limit gets a chunk of its own; a pool has an end. */
static void test_chunks(void **state)
{
    (void)state;
    struct pool p = {0};
    struct pool_place at;
    pool_reset(&p, 100);
    assert_int_equal(taken(&p, 80).chunk, 0);
    assert_int_equal(taken(&p, 80).chunk, 1);
    assert_int_equal(taken(&p, 300).chunk, 2);
    assert_int_equal(taken(&p, 20).chunk, 0);
    assert_int_equal(pool_bytes(&p), 100 + 80 + 300);
    for (int c = 3; c < POOL_CHUNKS; c++)
        taken(&p, 90);
    assert_false(pool_take(&p, (uint64_t)INT64_MAX, &at));
    pool_drop(&p);
}

static void test_too_many_holes(void **state)
{
    (void)state;
    struct pool p = {0};
    struct pool_place at[2 * POOL_FREE + 2];
    size_t n = sizeof at / sizeof *at, given = 0;
    pool_reset(&p, UINT64_MAX);
    for (size_t i = 0; i < n; i++)
        at[i] = taken(&p, 8);
    for (size_t i = 0; i < n; i += 2)
        given += pool_give(&p, at[i], 8);
    assert_int_equal(given, POOL_FREE - 1); /* the room to grow is one of them */
    pool_drop(&p);
}

/* Equal numbers, equal future: random births and deaths after a state go the same way after it was loaded. */
static void test_states(void **state)
{
    (void)state;
    const uint64_t limits[] = {UINT64_MAX, 4096};
    for (size_t k = 0; k < 2; k++) {
        struct pool p = {0}, q = {0};
        struct pool_place at[64];
        uint64_t size[64], words[256];
        srand(7);
        pool_reset(&p, limits[k]);
        pool_reset(&q, limits[k]);
        for (int i = 0; i < 64; i++)
            at[i] = taken(&p, size[i] = 32ull * (uint64_t)(rand() % 9));
        for (int i = 0; i < 64; i += 3)
            assert_true(pool_give(&p, at[i], size[i]));
        size_t n = pool_words(&p);
        assert_true(n <= 256);
        assert_ptr_equal(pool_save(&p, words), words + n);
        assert_ptr_equal(pool_restore(&q, words), words + n);
        for (int i = 0; i < 64; i += 3) {
            struct pool_place a = taken(&p, 32ull * (uint64_t)(i % 7)),
                              b = taken(&q, 32ull * (uint64_t)(i % 7));
            assert_int_equal(a.offset, b.offset);
            assert_int_equal(a.chunk, b.chunk);
        }
        pool_drop(&p);
        pool_drop(&q);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_best_fit),       cmocka_unit_test(test_merging), cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_too_many_holes), cmocka_unit_test(test_states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
