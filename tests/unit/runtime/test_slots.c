/* What llama-server tells of its slots, and how it is asked about them. The texts are those of 0.7.0,
 * shortened. */
#include "runtime/llamacpp_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static const char list[] = "[{\"id\":0,\"n_ctx\":8192,\"speculative\":false,\"is_processing\":false},"
                           "{\"id\":1,\"n_ctx\":8192,\"speculative\":false,\"is_processing\":true,\"id_"
                           "task\":0,\"n_prompt_tokens\":1491,"
                           "\"n_prompt_tokens_processed\":1491,\"n_prompt_tokens_cache\":0,\"params\":{"
                           "\"seed\":4294967295,\"samplers\":[\"top_k\"]},"
                           "\"next_token\":[{\"has_next_token\":true,\"n_decoded\":3}]},"
                           "{\"id\":2,\"is_processing\":false,\"id_task\":77,\"n_prompt_tokens\":12}]";

static void test_the_list(void **state)
{
    (void)state;
    struct runtime_slot s[4];
    size_t n = 0;
    assert_true(llamacpp_slots.read_list(((struct str){list, sizeof list - 1}), s, 4, &n));
    assert_int_equal(n, 3);
    assert_false(s[0].busy);
    assert_int_equal(s[0].request, 0); /* never used */
    assert_int_equal(s[0].tokens, 0);
    assert_true(s[1].busy);
    assert_true(s[1].request > 0 && s[2].request > s[1].request);
    assert_int_equal(s[1].tokens, 1491);
    assert_int_equal(s[2].id, 2);
    assert_true(llamacpp_slots.read_list(((struct str){list, sizeof list - 1}), s, 2, &n)); /* more than can be used */
    assert_int_equal(n, 2);
    assert_true(llamacpp_slots.read_list(STR("[]"), s, 2, &n));
    assert_int_equal(n, 0);
}

static void test_what_is_no_list(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", "{}", "[1]", "[{\"id\":-1}]", "[{\"id\":99999999999}]", "[{\"id\":0}", "null"};
    struct runtime_slot s[4];
    size_t n = 9;
    for (size_t i = 0; i < TABLE_COUNT(bad); i++)
        assert_false(llamacpp_slots.read_list(str_from(bad[i]), s, 4, &n));
    assert_int_equal(n, 9);
    assert_true(
        llamacpp_slots.read_list(STR("[{\"id\":0,\"n_prompt_tokens\":-5,\"id_task\":-1}]"), s, 4, &n));
    assert_int_equal(s[0].tokens, 0);
    assert_int_equal(s[0].request, 0);
    assert_true(s[0].busy); /* it does not say that it is not */
}

static void test_asking(void **state)
{
    (void)state;
    char path[64], body[64], small[8];
    assert_true(llamacpp_slots.ask(true, 3, "x.kv", path, sizeof path, body, sizeof body));
    assert_string_equal(path, "/slots/3?action=save");
    assert_string_equal(body, "{\"filename\":\"x.kv\"}");
    assert_true(llamacpp_slots.ask(false, 0, "x.kv", path, sizeof path, body, sizeof body));
    assert_string_equal(path, "/slots/0?action=restore");
    assert_false(llamacpp_slots.ask(false, 0, "x.kv", small, sizeof small, body, sizeof body));
    assert_false(llamacpp_slots.ask(false, 0, "x.kv", path, sizeof path, small, sizeof small));
}

static void test_what_was_done(void **state)
{
    (void)state;
    uint32_t tokens = 0;
    uint64_t bytes = 0;
    assert_true(llamacpp_slots.read_done(STR("{\"id_slot\":0,\"filename\":\"x\",\"n_saved\":1491,\"n_"
                                             "written\":34357604,\"timings\":{\"save_ms\":154.1}}"),
                                         &tokens, &bytes));
    assert_int_equal(tokens, 1491);
    assert_int_equal(bytes, 34357604);
    assert_true(llamacpp_slots.read_done(STR("{\"n_restored\":7,\"n_read\":9}"), &tokens, &bytes));
    assert_int_equal(tokens, 7);
    assert_int_equal(bytes, 9);
    static const char *const bad[] = {"",
                                      "[]",
                                      "{}",
                                      "{\"n_saved\":0,\"n_written\":5}",
                                      "{\"n_saved\":5}",
                                      "{\"n_restored\":99999999999,\"n_read\":9}"};
    for (size_t i = 0; i < TABLE_COUNT(bad); i++)
        assert_false(llamacpp_slots.read_done(str_from(bad[i]), &tokens, &bytes));
    assert_int_equal(tokens, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_list),
        cmocka_unit_test(test_what_is_no_list),
        cmocka_unit_test(test_asking),
        cmocka_unit_test(test_what_was_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
