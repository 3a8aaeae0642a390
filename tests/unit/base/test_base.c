/* Tests of src/base: errors, slices, buffers, arenas, JSON glue. */
#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void test_err(void **state)
{
    (void)state;
    struct err e;
    assert_int_equal(err_set(&e, RC_NOT_FOUND, "no model \"%s\"", "x"), RC_NOT_FOUND);
    err_hint(&e, "try %d", 2);
    err_prefix(&e, "load");
    assert_string_equal(e.message, "load: no model \"x\"");
    assert_string_equal(e.hint, "try 2");
    assert_int_equal(e.sys_errno, 0);
    errno = ENOENT;
    assert_int_equal(err_sys(&e, RC_IO, "cannot open %s", "/f"), RC_IO);
    assert_int_equal(e.sys_errno, ENOENT);
    assert_non_null(strstr(e.message, "No such file"));
    assert_int_equal(err_set(NULL, RC_BUSY, "x"), RC_BUSY);
    assert_string_equal(rc_word(RC_NO_FIT), "does_not_fit");
    assert_int_equal(rc_http_status(RC_NOT_FOUND), 404);
    char longer[2000];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(err_set(&e, RC_IO, "%s", longer), RC_IO);
    err_prefix(&e, "%s", longer);
    assert_int_equal(strlen(e.message), sizeof e.message - 1);
}

static void test_numbers(void **state)
{
    (void)state;
    uint64_t u = 7;
    int64_t i = 7;
    double d = 7;
    assert_true(str_u64(STR("18446744073709551615"), &u) && u == UINT64_MAX);
    assert_false(str_u64(STR("18446744073709551616"), &u));
    assert_false(str_u64(STR(""), &u));
    assert_false(str_u64(STR("1x"), &u));
    assert_false(str_u64(STR("-1"), &u));
    assert_true(str_i64(STR("-9223372036854775808"), &i) && i == INT64_MIN);
    assert_false(str_i64(STR("9223372036854775808"), &i));
    assert_true(str_double(STR("2.5"), &d) && d == 2.5);
    assert_false(str_double(STR("nan"), &d));
    assert_true(str_tokens(STR("4096"), &u) && u == 4096);
    assert_true(str_tokens(STR("4k"), &u) && u == 4096);
    assert_true(str_tokens(STR("128K"), &u) && u == 131072);
    assert_true(str_tokens(STR("1M"), &u) && u == 1048576);
    assert_false(str_tokens(STR("k"), &u) || str_tokens(STR(""), &u) || str_tokens(STR("1.5k"), &u) ||
                 str_tokens(STR("-1k"), &u) || str_tokens(STR("99999999999999999M"), &u));
    assert_true(str_bytes(STR("1.5 GiB"), &u) && u == 1610612736);
    assert_true(str_bytes(STR("600MB"), &u) && u == 600000000);
    assert_true(str_bytes(STR("8G"), &u) && u == 8ull << 30);
    assert_false(str_bytes(STR("8 parsecs"), &u));
    assert_false(str_bytes(STR("99999999999T"), &u));
    assert_true(str_duration_ms(STR("500ms"), &u) && u == 500);
    assert_true(str_duration_ms(STR("5m"), &u) && u == 300000);
}

static void test_slices(void **state)
{
    (void)state;
    struct str s = STR("a,b,,c");
    assert_true(str_eq(str_cut(&s, ','), STR("a")));
    assert_true(str_eq(str_cut(&s, ','), STR("b")));
    assert_true(str_eq(str_cut(&s, ','), STR("")));
    assert_true(str_eq(str_cut(&s, ','), STR("c")));
    assert_int_equal(s.n, 0);
    assert_true(str_eq(str_trim(STR(" \tx y\n")), STR("x y")));
    assert_int_equal(str_find(STR("hello"), STR("ll")), 2);
    assert_int_equal(str_find(STR("hello"), STR("x")), -1);
    assert_int_equal(str_distance(STR("contxet"), STR("context")), 1);
    assert_int_equal(str_distance(STR("ABC"), STR("abc")), 0);
    assert_int_equal(str_distance(STR(""), STR("abc")), 3);
    char out[32];
    assert_string_equal(str_human_bytes(1536, out, sizeof out), "1.5 KiB");
    assert_string_equal(str_human_bytes(17, out, sizeof out), "17 B");
}

static void test_buf(void **state)
{
    (void)state;
    struct buf b = {.max = 10};
    assert_true(buf_puts(&b, "12345"));
    assert_false(buf_puts(&b, "123456"));
    assert_true(b.failed);
    assert_string_equal(b.data, "12345");
    assert_false(buf_puts(&b, "1"));
    buf_release(&b);
    struct buf c = {0};
    for (int i = 0; i < 1000; i++)
        assert_true(buf_printf(&c, "%d,", i));
    assert_true(str_ends(buf_str(&c), "998,999,"));
    buf_consume(&c, c.n - 4);
    assert_string_equal(c.data, "999,");
    buf_clear(&c);
    assert_true(buf_put_json(&c, STR("a\"b\\\n\x01é")));
    assert_string_equal(c.data, "\"a\\\"b\\\\\\n\\u0001é\"");
    buf_release(&c);
}

static void test_arena(void **state)
{
    (void)state;
    struct arena a = {.cap_bytes = 100000};
    unsigned char *p = arena_alloc(&a, 3);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 16, 0);
    assert_int_equal(p[0] | p[1] | p[2], 0);
    assert_non_null(arena_alloc(&a, 50000));
    assert_null(arena_alloc(&a, 60000));
    assert_null(arena_array(&a, SIZE_MAX / 2, 3));
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_string_equal(arena_printf(&a, "%s-%d", "x", 5), "x-5");
    arena_release(&a);
    assert_int_equal(a.used_bytes, 0);
}

static void test_json(void **state)
{
    (void)state;
    yyjson_doc *doc;
    struct err e;
    assert_int_equal(json_parse(STR("{\"a\":1,\"s\":\"x\",\"b\":true}"), "body", &doc, &e), RC_OK);
    yyjson_val *o = yyjson_doc_get_root(doc);
    assert_int_equal(json_u64(o, "a", 9), 1);
    assert_int_equal(json_u64(o, "s", 9), 9);
    assert_true(str_eq(json_str(o, "s", STR("")), STR("x")));
    assert_true(json_bool(o, "b", false));
    yyjson_doc_free(doc);
    static const char text[] = "{\"a\":18446744073709551615,\"d\":-2.5e1,\"z\":0}";
    doc = yyjson_read(text, sizeof text - 1, YYJSON_READ_NUMBER_AS_RAW);
    o = yyjson_doc_get_root(doc);
    assert_true(json_u64(o, "a", 9) == UINT64_MAX);
    assert_true(json_double(o, "d", 9) == -25);
    assert_int_equal(json_u64(o, "d", 9), 9);
    assert_int_equal(json_u64(o, "z", 9), 0);
    yyjson_doc_free(doc);
    assert_int_equal(json_parse(STR("{\"a\":1,}"), "request body", &doc, &e), RC_INVALID);
    assert_non_null(strstr(e.message, "request body is not valid JSON"));
    assert_int_equal(json_parse(STR(""), "request body", &doc, &e), RC_INVALID);
}

static void test_json_of_any_bytes(void **state)
{
    (void)state;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, o);
    assert_true(json_add_str(doc, o, "path", STR("a\xff/\xc3\xa9\xe2\x82")));
    struct buf out = {0};
    struct err e;
    assert_int_equal(json_write(doc, false, &out, &e), RC_OK);
    assert_string_equal(out.data, "{\"path\":\"a\xef\xbf\xbd/\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\"}");
    buf_release(&out);
    yyjson_mut_doc_free(doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_err),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_slices),
        cmocka_unit_test(test_buf),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_json_of_any_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
