/* What is left out of the texts that are kept. */
#include "daemon/redact.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

static void secrets_go(void **state)
{
    (void)state;
    static const struct {
        const char *text, *left;
    } rows[] = {
        {"", ""},
        {"hello, world", "hello, world"},
        {"key sk-0123456789abcdef.", "key [secret left out]"},
        {"{\"k\":\"arr_0badcafe_secretsecret\"}", "{\"k\":\"[secret left out]\"}"},
        {"Authorization: Bearer abcdefgh", "Authorization: Bearer [secret left out]"},
        {"bearer of news", "bearer of news"},
        {"sk-short", "sk-short"},
        {"a task-list of sk-", "a task-list of sk-"},
        {"\xff\xfe", "\xff\xfe"},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        struct buf out = {0};
        redact(str_from(rows[i].text), &out);
        assert_string_equal(out.data ? out.data : "", rows[i].left);
        buf_release(&out);
    }
}

static void long_words_go(void **state)
{
    (void)state;
    char text[400];
    struct buf out = {0};
    memset(text, 'A', sizeof text);
    memcpy(text, "data:image/png;base64,", 22);
    redact((struct str){text, sizeof text}, &out);
    assert_string_equal(out.data, "data:image/png;base64,[378 characters left out]");
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(secrets_go), cmocka_unit_test(long_words_go)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
