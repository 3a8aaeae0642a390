/* Unit tests of the index of kept conversations: finding, giving way, makers, its text and damage to that. */
#include "pool/kv_index.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static struct kv_index *ix;
static uint64_t gone[64];
static size_t n_gone;

static void on_gone(void *arg, uint64_t file)
{
    assert_ptr_equal(arg, &ix);
    gone[n_gone++] = file;
}

static int setup(void **state)
{
    (void)state;
    n_gone = 0;
    ix = kv_index_new(42);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kv_index_free(ix);
    return 0;
}

/* A prompt of n blocks that goes on from another one behind `same` of its blocks. */
static struct prefix prompt(uint32_t n, uint32_t same, uint64_t other)
{
    struct prefix p = {.n = n};
    for (uint32_t i = 0; i < n; i++)
        p.hash[i] = 1000 + i + (i < same ? 0 : other << 32);
    return p;
}

static uint64_t add(uint64_t key, struct prefix p, uint64_t bytes, uint64_t used, uint32_t tokens)
{
    struct kv_row r = {.key = key,
                       .maker = 9,
                       .file = kv_index_next_file(ix),
                       .bytes = bytes,
                       .sum = 77,
                       .used = used,
                       .tokens = tokens,
                       .model = "m",
                       .prefix = p};
    kv_index_add(ix, &r, 1000, on_gone, &ix);
    return r.file;
}

static void test_the_longest_beginning_is_found(void **state)
{
    (void)state;
    uint32_t blocks = 0;
    struct prefix p = prompt(10, 10, 0), other = prompt(3, 0, 5);
    uint64_t a = add(1, prompt(7, 5, 8), 10, 1, 100), b = add(1, prompt(9, 6, 3), 10, 1, 200);
    add(2, prompt(9, 9, 0), 10, 1, 300);
    const struct kv_row *r = kv_index_find(ix, 1, &p, &blocks);
    assert_non_null(r);
    assert_int_equal(r->file, b);
    assert_int_equal(blocks, 6); /* not what it has behind them */
    struct prefix branch = prompt(10, 5, 9);
    r = kv_index_find(ix, 1, &branch, &blocks);
    assert_int_equal(r->file, a); /* as good as the other one, and less to read */
    assert_int_equal(blocks, 5);
    assert_null(kv_index_find(ix, 1, &other, &blocks));
    assert_null(kv_index_find(ix, 3, &p, &blocks));
}

static void test_a_longer_one_covers_the_shorter(void **state)
{
    (void)state;
    uint64_t a = add(1, prompt(4, 3, 5), 10, 1, 100); /* its last block holds the end of its text */
    uint64_t branch = add(1, prompt(6, 2, 6), 10, 1, 150);
    add(2, prompt(4, 4, 0), 10, 1, 100);
    uint64_t b = add(1, prompt(8, 8, 0), 10, 2, 200);
    assert_int_equal(n_gone, 1);
    assert_int_equal(gone[0], a);
    assert_non_null(kv_index_of_file(ix, branch));
    assert_non_null(kv_index_of_file(ix, b));
    assert_int_equal(kv_index_n(ix), 3);
    assert_int_equal(kv_index_bytes(ix), 30);
}

static void test_the_quota_takes_what_was_unused_for_longest(void **state)
{
    (void)state;
    uint64_t a = add(1, prompt(2, 0, 1), 400, 1, 10), b = add(1, prompt(2, 0, 2), 400, 2, 10);
    kv_index_touch(ix, a, 3);
    uint64_t c = add(1, prompt(2, 0, 3), 400, 4, 10);
    assert_int_equal(n_gone, 1);
    assert_int_equal(gone[0], b);
    uint64_t d = add(1, prompt(2, 0, 4), 1001, 5, 10); /* alone too large: the others stay */
    assert_int_equal(n_gone, 2);
    assert_int_equal(gone[1], d);
    assert_int_equal(kv_index_n(ix), 2);
    kv_index_trim(ix, 0, on_gone, &ix);
    assert_int_equal(n_gone, 4);
    assert_int_equal(gone[2], a);
    assert_int_equal(gone[3], c);
    assert_false(kv_index_drop(ix, a));
}

static void test_no_more_rows_than_there_is_room_for(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < KV_ROWS_MAX + 3; i++)
        add(i, prompt(1, 1, 0), 1, i, 10);
    assert_int_equal(kv_index_n(ix), KV_ROWS_MAX);
    assert_int_equal(n_gone, 3);
    assert_int_equal(gone[0], 1);
}

static void test_makers(void **state)
{
    (void)state;
    assert_false(kv_index_judge(ix, 5, false));
    assert_false(kv_index_judge(ix, 5, true)); /* not in a row */
    assert_false(kv_index_judge(ix, 5, false));
    assert_false(kv_index_is_off(ix, 5));
    assert_true(kv_index_judge(ix, 5, false));
    assert_true(kv_index_is_off(ix, 5));
    assert_false(kv_index_judge(ix, 5, false)); /* told once */
    assert_false(kv_index_is_off(ix, 6));
    for (uint64_t m = 100; m < 100 + KV_MAKERS_MAX; m++)
        assert_false(kv_index_judge(ix, m, false));
    assert_false(kv_index_is_off(ix, 5)); /* the oldest is forgotten */
    kv_index_pardon(ix);
    assert_false(kv_index_judge(ix, 163, false));
}

static void test_speeds(void **state)
{
    (void)state;
    assert_int_equal(kv_index_speeds(ix).read_bps, 0);
    kv_index_learn(ix, false, 1000, 1); /* too small to tell */
    assert_int_equal(kv_index_speeds(ix).read_bps, 0);
    kv_index_learn(ix, false, 4000000, 1000);
    kv_index_learn(ix, true, 8000000, 0);
    assert_int_equal(kv_index_speeds(ix).read_bps, 4000000);
    assert_int_equal(kv_index_speeds(ix).write_bps, 8000000000);
    kv_index_learn(ix, false, 8000000, 1000);
    assert_int_equal(kv_index_speeds(ix).read_bps, 5000000);
}

static struct buf printed(void)
{
    struct buf b = {0};
    assert_int_equal(kv_index_print(ix, &b, NULL), RC_OK);
    return b;
}

static void test_a_restart_reads_it_again(void **state)
{
    (void)state;
    uint32_t blocks = 0;
    struct kv_index *again = NULL;
    struct prefix p = prompt(PREFIX_MAX, PREFIX_MAX, 0);
    uint64_t file = add(0xfedcba9876543210u, p, 500, 17, 1234);
    (void)kv_index_judge(ix, 5, false);
    (void)kv_index_judge(ix, 5, false);
    kv_index_learn(ix, true, 4000000, 1000);
    struct buf b = printed();
    assert_int_equal(kv_index_parse(buf_str(&b), &again, NULL), RC_OK);
    const struct kv_row *r = kv_index_find(again, 0xfedcba9876543210u, &p, &blocks);
    assert_non_null(r);
    assert_int_equal(blocks, PREFIX_MAX);
    assert_int_equal(r->file, file);
    assert_int_equal(r->bytes, 500);
    assert_int_equal(r->sum, 77);
    assert_int_equal(r->used, 17);
    assert_int_equal(r->tokens, 1234);
    assert_string_equal(r->model, "m");
    assert_int_equal(kv_index_seed(again), 42);
    assert_true(kv_index_is_off(again, 5));
    assert_int_equal(kv_index_speeds(again).write_bps, 4000000);
    assert_true(kv_index_next_file(again) > file);
    struct buf second = {0};
    kv_index_free(again);
    assert_int_equal(kv_index_parse(buf_str(&b), &again, NULL), RC_OK);
    assert_int_equal(kv_index_print(again, &second, NULL), RC_OK);
    assert_string_equal(b.data, second.data);
    kv_index_free(again);
    buf_release(&b);
    buf_release(&second);
}

/* Every text in which one place was changed is refused, or is another index: never one that is not whole. */
static void test_damage_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
    } changes[] = {
        {"\"version\":1", "\"version\":2"},
        {"\"seed\":\"000000000000002a\"", "\"seed\":\"2a\""},
        {"\"seed\":\"000000000000002a\"", "\"seed\":\"00000000000000zz\""},
        {"\"rows\":[", "\"rows\":[1,"},
        {"\"rows\":[", "\"row\":["},
        {"\"makers\":[", "\"makers\":[{},"},
        {"\"bytes\":500", "\"bytes\":-1"},
        {"\"bytes\":500", "\"bytes\":99999999999999999"},
        {"\"tokens\":7", "\"tokens\":0"},
        {"\"tokens\":7", "\"tokens\":4294967296"},
        {"\"file\":\"0000000000000001\"", "\"file\":\"0000000000000000\""},
        {"\"file\":\"0000000000000001\"", "\"file\":\"00000000000000ff\""},
        {"\"blocks\":\"", "\"blocks\":\"0"},
        {"\"blocks\":\"", "\"block\":\""},
        {"\"strikes\":1", "\"strikes\":3"},
    };
    add(1, prompt(2, 2, 0), 500, 1, 7);
    (void)kv_index_judge(ix, 5, false);
    struct buf b = printed();
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        struct kv_index *out = NULL;
        struct buf bad = {0};
        struct err err;
        ptrdiff_t at = str_find(buf_str(&b), str_from(changes[i].from));
        assert_true(at >= 0);
        buf_append(&bad, b.data, (size_t)at);
        buf_puts(&bad, changes[i].to);
        buf_puts(&bad, b.data + at + strlen(changes[i].from));
        if (kv_index_parse(buf_str(&bad), &out, &err) != RC_INVALID)
            fail_msg("%s was taken", changes[i].to);
        assert_null(out);
        assert_true(err.message[0]);
        buf_release(&bad);
    }
    for (size_t n = 0; n < b.n - 1; n++) {
        struct kv_index *out = NULL;
        assert_int_not_equal(kv_index_parse((struct str){b.data, n}, &out, NULL), RC_OK);
    }
    buf_release(&b);
}

static void test_the_same_file_twice_is_refused(void **state)
{
    (void)state;
    struct kv_index *out = NULL;
    add(1, prompt(2, 2, 0), 500, 1, 7);
    add(2, prompt(2, 2, 0), 500, 1, 7);
    struct buf b = printed();
    ptrdiff_t at = str_find(buf_str(&b), STR("\"file\":\"0000000000000002\""));
    assert_true(at > 0);
    b.data[at + 23] = '1';
    assert_int_equal(kv_index_parse(buf_str(&b), &out, NULL), RC_INVALID);
    buf_release(&b);
}

static void test_what_is_too_long_is_refused(void **state)
{
    (void)state;
    struct kv_index *out = NULL;
    assert_int_equal(kv_index_parse((struct str){"x", KV_INDEX_BYTES + 1}, &out, NULL), RC_LIMIT);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_longest_beginning_is_found),
        TEST(test_a_longer_one_covers_the_shorter),
        TEST(test_the_quota_takes_what_was_unused_for_longest),
        TEST(test_no_more_rows_than_there_is_room_for),
        TEST(test_makers),
        TEST(test_speeds),
        TEST(test_a_restart_reads_it_again),
        TEST(test_damage_is_refused),
        TEST(test_the_same_file_twice_is_refused),
        TEST(test_what_is_too_long_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
