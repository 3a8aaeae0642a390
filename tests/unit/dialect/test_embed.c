/* Unit tests of embeddings taken apart and put together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/mem.h"
#include "dialect/embed.h"

#include <string.h>

static struct embed_ask *take_apart(const char *body)
{
    yyjson_doc *doc = yyjson_read(body, strlen(body), 0);
    yyjson_val *root = yyjson_doc_get_root(doc);
    struct embed_ask *a = embed_ask_new(yyjson_obj_get(root, "input"), root);
    yyjson_doc_free(doc);
    return a;
}

static void expect_inputs(const char *body, size_t from, size_t n, const char *want)
{
    struct embed_ask *a = take_apart(body);
    struct buf out = {0};
    assert_non_null(a);
    embed_put_inputs(a, from, n, &out);
    assert_string_equal(out.data, want);
    buf_release(&out);
    embed_ask_free(a);
}

static void inputs_keep_their_order_and_kind(void **state)
{
    (void)state;
    expect_inputs("{\"input\":\"one \\u00e9\"}", 0, 1, "\"one \xc3\xa9\"");
    expect_inputs("{\"input\":[\"a\",\"b\",\"c\"]}", 1, 2, "\"b\",\"c\"");
    expect_inputs("{\"input\":[1,2,3]}", 0, 1, "[1,2,3]"); /* the tokens of one text */
    expect_inputs("{\"input\":[[1,2],\"b\",[3]]}", 0, 3, "[1,2],\"b\",[3]");
    expect_inputs("{\"input\":[1,\"b\"]}", 0, 1, "[1,\"b\"]"); /* mixed: one, too */
}

static void other_members_stay(void **state)
{
    (void)state;
    struct embed_ask *a = take_apart(
        "{\"model\":\"m\",\"dimensions\":8,\"input\":\"x\",\"stream\":false,\"user\":{\"a\":[1]}}");
    assert_int_equal(a->n, 1);
    assert_int_equal(a->dimensions, 8);
    assert_string_equal(a->rest.data, "\"dimensions\":8,\"user\":{\"a\":[1]},");
    embed_ask_free(a);
}

static void what_cannot_be_taken_apart_is_left(void **state)
{
    (void)state;
    static const char *const bodies[] = {"{}",
                                         "{\"input\":[]}",
                                         "{\"input\":7}",
                                         "{\"input\":null}",
                                         "{\"input\":{\"a\":1}}",
                                         "{\"content\":\"x\"}"};
    for (size_t i = 0; i < TABLE_COUNT(bodies); i++)
        assert_null(take_apart(bodies[i]));
    embed_ask_free(NULL);
}

static bool read_answer(const char *text, size_t n, char **items, size_t *dimensions)
{
    yyjson_doc *doc = yyjson_read(text, strlen(text), 0);
    bool ok = embed_read(yyjson_doc_get_root(doc), n, items, dimensions);
    yyjson_doc_free(doc);
    return ok;
}

static void vectors_are_put_in_the_order_of_their_indexes(void **state)
{
    (void)state;
    char *items[2];
    size_t dimensions = 0;
    struct buf out = {0};
    assert_true(
        read_answer("{\"data\":[{\"index\":1,\"embedding\":[3,4]},{\"index\":0,\"embedding\":[-0.1,2e-05]}]}",
                    2, items, &dimensions));
    assert_int_equal(dimensions, 2);
    embed_put_answer(&(struct embed_sum){STR("m\""), dimensions, 9}, items, 2, &out);
    assert_string_equal(
        out.data,
        "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":[-0.1,0.00002]},"
        "{\"object\":\"embedding\",\"index\":1,\"embedding\":[3,4]}],\"model\":\"m\\\"\",\"dimensions\":2,"
        "\"usage\":{\"prompt_tokens\":9,\"total_tokens\":9}}");
    buf_release(&out);
    free(items[0]);
    free(items[1]);
}

static void base64_has_dimensions_too(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t want; /* 0 = none */
    } rows[] = {{"AACAPw==", 1}, {"AACAPwAAgD8=", 2}, {"AACAPwAAgD8AAIA/", 3}, {"AACAPw=", 0}, {"", 0},
                {"====", 0},     {"AAAA", 0}};
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        char *item[1];
        size_t dimensions = 0;
        auto_free char *text = mem_printf("{\"data\":[{\"embedding\":\"%s\"}]}", rows[i].text);
        assert_int_equal(read_answer(text, 1, item, &dimensions), rows[i].want > 0);
        assert_int_equal(dimensions, rows[i].want);
        free(item[0]);
    }
}

static void answers_that_are_none_are_refused(void **state)
{
    (void)state;
    static const char *const answers[] = {
        "7",
        "{}",
        "{\"data\":[]}",
        "{\"data\":[{\"embedding\":[1]}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":0,\"embedding\":[1]}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":2,\"embedding\":[1]}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":1,\"embedding\":[1,2]}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":1,\"embedding\":[]}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":1}]}"};
    for (size_t i = 0; i < TABLE_COUNT(answers); i++) {
        char *items[2];
        size_t dimensions = 0;
        if (read_answer(answers[i], 2, items, &dimensions))
            fail_msg("taken: %s", answers[i]);
        assert_null(items[0]);
        assert_null(items[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inputs_keep_their_order_and_kind),
        cmocka_unit_test(other_members_stay),
        cmocka_unit_test(what_cannot_be_taken_apart_is_left),
        cmocka_unit_test(vectors_are_put_in_the_order_of_their_indexes),
        cmocka_unit_test(base64_has_dimensions_too),
        cmocka_unit_test(answers_that_are_none_are_refused),
    };
    return cmocka_run_group_tests_name("dialect_embed", tests, NULL, NULL);
}
