/* Tables and terminal text: alignment, widths of characters, cutting, and what must never reach a terminal.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cli/cli_priv.h"

#include "base/mem.h"

#include <string.h>

static void assert_safe(struct str raw, bool newlines, const char *want)
{
    struct buf out = {0};
    text_put_safe(&out, raw, newlines);
    assert_string_equal(out.data ? out.data : "", want);
    buf_release(&out);
}

static void test_safe_text(void **state)
{
    (void)state;
    assert_safe(STR("plain"), false, "plain");
    assert_safe(STR("naïve 日本 🦙"), false, "naïve 日本 🦙");
    assert_safe(STR("a\033[2Jb"), false, "a [2Jb"); /* an escape sequence */
    assert_safe(STR("a\xc2\x9b"
                    "2Jb"),
                false, "a 2Jb"); /* the same as a C1 control */
    assert_safe(STR("a\nb\tc\rd"), false, "a b c d");
    assert_safe(STR("a\nb\tc\rd"), true, "a\nb\tc d");
    assert_safe(STR("x\xe2\x80\xaey"), false, "x y"); /* right-to-left override */
    assert_safe(STR("a\0b"), false, "a b");
    assert_safe(STR("\xff\xc0\x80"), false, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    assert_safe(STR("\xed\xa0\x80"), false, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); /* a surrogate */
    assert_safe(STR("\xf4\x90\x80\x80"), false, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    assert_safe(STR("cut \xe6\x97"), false, "cut \xef\xbf\xbd\xef\xbf\xbd");
    assert_safe((struct str){NULL, 0}, false, "");
}

static void test_widths(void **state)
{
    (void)state;
    assert_int_equal(text_width(STR("")), 0);
    assert_int_equal(text_width(STR("abc…")), 4);
    assert_int_equal(text_width(STR("é")), 1);
    assert_int_equal(text_width(STR("e\xcc\x81")), 1); /* with a combining accent */
    assert_int_equal(text_width(STR("日本")), 4);
    assert_int_equal(text_width(STR("🦙")), 2);
    assert_int_equal(text_fit(STR("abcdef"), 3), 3);
    assert_int_equal(text_fit(STR("日本"), 3), 3); /* half a character does not fit */
    assert_int_equal(text_fit(STR("e\xcc\x81x"), 1), 3);
    assert_int_equal(text_fit(STR("ab"), 10), 2);
}

static void assert_table(struct cli_table *t, size_t width, bool color, const char *want)
{
    struct buf out = {0};
    cli_table_render(t, width, color, &out);
    assert_string_equal(out.data ? out.data : "", want);
    buf_release(&out);
    cli_table_free(t);
}

static struct cli_table *sample(void)
{
    static const char *const headings[] = {"NAME", "SIZE", "NOTE"};
    struct cli_table *t = cli_table_new(headings, 3);
    cli_table_cell(t, "%s", "alpha");
    cli_table_cell(t, "%d", 5);
    cli_table_cell(t, "%s", "first");
    cli_table_cell(t, "%s", "日本");
    cli_table_cell(t, "%d", 12345);
    cli_table_cell(t, "%s", "");
    cli_table_cell(t, "%s", "7b");
    cli_table_cell(t, "-");
    cli_table_cell(t, "%s", "last one");
    return t;
}

static void test_alignment(void **state)
{
    (void)state;
    assert_table(sample(), 0, false,
                 "NAME    SIZE  NOTE\n"
                 "alpha      5  first\n"
                 "日本   12345  \n"
                 "7b         -  last one\n");
    assert_table(sample(), 0, true,
                 "\033[1mNAME    SIZE  NOTE\033[0m\n"
                 "alpha      5  first\n"
                 "日本   12345  \n"
                 "7b         -  last one\n");
}

static void test_cutting(void **state)
{
    (void)state;
    static const char *const headings[] = {"MODEL", "N"};
    struct cli_table *t = cli_table_new(headings, 2);
    cli_table_cell(t, "%s", "a-very-long-name-of-a-model");
    cli_table_cell(t, "%d", 1234567);
    assert_table(t, 20, false,
                 "MODEL              N\n"
                 "a-very-lon…  1234567\n");
    t = cli_table_new(headings, 2);
    cli_table_cell(t, "%s", "日本語日本語日本語");
    cli_table_cell(t, "%d", 1);
    assert_table(t, 10, false,
                 "MODEL    N\n"
                 "日本語…  1\n");
    /* narrower than the least: the least stays, rather than nothing */
    t = cli_table_new(headings, 2);
    cli_table_cell(t, "%s", "abcdefgh");
    cli_table_cell(t, "%d", 1);
    assert_table(t, 1, false,
                 "MODEL   N\n"
                 "abcde…  1\n");
}

static void test_hostile_cells(void **state)
{
    (void)state;
    static const char *const headings[] = {"MODEL"};
    struct cli_table *t = cli_table_new(headings, 1);
    cli_table_cell(t, "%s", "x\033]0;owned\a\ny");
    assert_table(t, 0, false, "MODEL\nx ]0;owned  y\n");
    auto_free char *huge = mem_calloc(100001, 1);
    memset(huge, 'x', 100000);
    t = cli_table_new(headings, 1);
    cli_table_cell(t, "%s", huge);
    struct buf out = {0};
    cli_table_render(t, 0, false, &out);
    assert_int_equal(out.n, strlen("MODEL\n") + 16 * 1024 + 1);
    buf_release(&out);
    cli_table_free(t);
    cli_table_free(NULL);
}

static void test_empty_and_ragged(void **state)
{
    (void)state;
    static const char *const headings[] = {"A", "B"};
    assert_table(cli_table_new(headings, 2), 0, false, "A  B\n");
    struct cli_table *t = cli_table_new(headings, 2);
    cli_table_cell(t, "x");
    assert_table(t, 0, false, "A  B\nx  \n");
    assert_table(cli_table_new(headings, 0), 0, false, "");
}

static void test_fill(void **state)
{
    (void)state;
    struct buf out = {0};
    help_fill(&out, "one two three four\n\n  kept as it is\nfive", 2, 12);
    assert_string_equal(out.data, "  one two\n  three four\n\n    kept as it is\n  five\n");
    buf_clear(&out);
    help_fill(&out, "averyveryverylongword x", 4, 10);
    assert_string_equal(out.data, "    averyveryverylongword\n    x\n");
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safe_text),     cmocka_unit_test(test_widths),
        cmocka_unit_test(test_alignment),     cmocka_unit_test(test_cutting),
        cmocka_unit_test(test_hostile_cells), cmocka_unit_test(test_empty_and_ragged),
        cmocka_unit_test(test_fill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
