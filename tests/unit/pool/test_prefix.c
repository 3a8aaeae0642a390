/* Prompts' beginnings: hashes of blocks, and the table that remembers who holds them. */
#include "pool/prefix.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#define TEXT ((size_t)400 * 1024)

static char *text_of(unsigned seed)
{
    char *p = mem_calloc(TEXT, 1);
    for (size_t i = 0; i < TEXT; i++)
        p[i] = (char)('a' + (seed = seed * 1103515245u + 12345u) / 65536u % 26);
    return p;
}

static void test_blocks_and_their_bound(void **state)
{
    (void)state;
    char *p = text_of(1);
    struct prefix x;
    static const struct {
        size_t bytes;
        uint32_t blocks;
    } rows[] = {{0, 0},
                {255, 0},
                {256, 1},
                {511, 1},
                {512, 2},
                {64 * 256, 64},
                {64 * 256 + 4095, 64},
                {64 * 256 + 4096, 65},
                {TEXT, PREFIX_MAX}};
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        prefix_of((struct str){p, rows[i].bytes}, 7, &x);
        assert_int_equal(x.n, rows[i].blocks);
    }
    free(p);
}

static void test_equal_beginnings_and_nothing_else(void **state)
{
    (void)state;
    char *p = text_of(2), *q = text_of(2);
    struct prefix a, b;
    for (size_t at = 0; at < 64 * 256; at += 97) { /* a change at `at` changes the blocks from there on */
        q[at] ^= 1;
        prefix_of((struct str){p, 64 * 256}, 5, &a);
        prefix_of((struct str){q, 64 * 256}, 5, &b);
        for (uint32_t i = 0; i < a.n; i++)
            assert_true((a.hash[i] == b.hash[i]) == (i < at / 256));
        q[at] ^= 1;
    }
    prefix_of((struct str){p, 1024}, 5, &a);
    prefix_of((struct str){p, 1024}, 6, &b); /* another seed, other hashes */
    for (uint32_t i = 0; i < a.n; i++)
        assert_true(a.hash[i] != b.hash[i]);
    memmove(q + 256, p, 256); /* blocks that change places */
    memmove(q, p + 256, 256);
    prefix_of((struct str){q, 512}, 5, &b);
    assert_true(a.hash[0] != b.hash[0] && a.hash[1] != b.hash[1]);
    free(p);
    free(q);
}

static void test_longest_beginning_wins(void **state)
{
    (void)state;
    char *p = text_of(3), *q = text_of(3), *r = text_of(4);
    struct prefix a, b, c;
    struct prefix_table *t = prefix_table_new();
    uint32_t blocks = 0;
    memset(q + 2048, 'x', 4096);
    prefix_of((struct str){p, 8192}, 1, &a);
    prefix_of((struct str){q, 4096}, 1, &b); /* shares 2048 bytes with a */
    prefix_of((struct str){r, 4096}, 1, &c);
    assert_int_equal(prefix_find(t, &a, &blocks), 0);
    prefix_put(t, &a, 11);
    assert_int_equal(prefix_find(t, &b, &blocks), 11);
    assert_int_equal(blocks, 8);
    assert_int_equal(prefix_find(t, &c, NULL), 0);
    prefix_put(t, &b, 12); /* what both share was sent to 12 last, what only a has to 11 */
    assert_int_equal(prefix_find(t, &a, &blocks), 11);
    assert_int_equal(blocks, 32);
    assert_int_equal(prefix_find(t, &b, &blocks), 12);
    a.n = 8;
    assert_int_equal(prefix_find(t, &a, NULL), 12);
    prefix_table_free(t);
    free(p);
    free(q);
    free(r);
}

static void test_old_ones_give_way(void **state)
{
    (void)state;
    struct prefix_table *t = prefix_table_new();
    struct prefix kept = {.n = 1, .hash = {0x1234567890abcdefu}}, other = {.n = 1};
    prefix_put(t, &kept, 1);
    for (uint64_t i = 1; i <= 3; i++) { /* of the same set */
        other.hash[0] = kept.hash[0] + i;
        prefix_put(t, &other, 10 + i);
    }
    prefix_put(t, &kept, 1); /* used again */
    for (uint64_t i = 4; i <= 6; i++) {
        other.hash[0] = kept.hash[0] + i;
        prefix_put(t, &other, 10 + i);
        assert_int_equal(prefix_find(t, &kept, NULL), 1);
    }
    other.hash[0] = kept.hash[0] + 1;
    assert_int_equal(prefix_find(t, &other, NULL), 0);
    other.hash[0] = kept.hash[0] + 7;
    prefix_put(t, &other, 17);
    assert_int_equal(prefix_find(t, &kept, NULL), 0);
    prefix_table_free(t);
}

static void test_what_two_have_in_common(void **state)
{
    (void)state;
    char *p = text_of(1), *q = text_of(1);
    struct prefix x, y;
    static const struct {
        size_t differs;
        uint32_t common;
    } rows[] = {
        {0, 0}, {255, 0}, {256, 1}, {1000, 3}, {64 * 256, 64}, {64 * 256 + 5000, 65}, {TEXT - 1, PREFIX_MAX}};
    prefix_of((struct str){p, TEXT}, 7, &x);
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        q[rows[i].differs] ^= 1;
        prefix_of((struct str){q, TEXT}, 7, &y);
        q[rows[i].differs] ^= 1;
        assert_int_equal(prefix_common(&x, &y), rows[i].common);
        assert_true(prefix_bytes(rows[i].common) <= rows[i].differs + (rows[i].differs == 0));
    }
    prefix_of((struct str){p, 1000}, 7, &y);
    assert_int_equal(prefix_common(&x, &y), 3);
    assert_int_equal(prefix_common(&y, &x), 3);
    assert_int_equal(prefix_bytes(0), 0);
    assert_int_equal(prefix_bytes(66), 64 * 256 + 2 * 4096);
    free(p);
    free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_two_have_in_common),
        cmocka_unit_test(test_blocks_and_their_bound),
        cmocka_unit_test(test_equal_beginnings_and_nothing_else),
        cmocka_unit_test(test_longest_beginning_wins),
        cmocka_unit_test(test_old_ones_give_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
