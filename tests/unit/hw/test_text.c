/* Kernel text: number lists, key lookups, hostile content. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "hw/hw_priv.h"
#include "tree.h"

static void lists(void **state)
{
    (void)state;
    struct hw_set set;
    assert_true(hw_set_parse(STR("0-3,8,10-11\n"), &set));
    assert_int_equal(hw_set_count(&set), 7);
    assert_true(hw_set_has(&set, 8));
    assert_false(hw_set_has(&set, 9));
    assert_true(hw_set_parse(STR(""), &set)); /* the kernel's empty list */
    assert_int_equal(hw_set_count(&set), 0);
    assert_true(hw_set_parse(STR("63-64,127-128"), &set));
    assert_int_equal(hw_set_count(&set), 4);
}

static void hostile_lists(void **state)
{
    (void)state;
    struct hw_set set = {{5}};
    static const char *const bad[] = {"a", "1-b", "1,,2", "-3", "0x3", "1-2-3", "99999999999999999999"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_false(hw_set_parse(str_from(bad[i]), &set));
        assert_int_equal(set.words[0], 5); /* untouched */
    }
    assert_true(hw_set_parse(STR("4000-18446744073709551615"), &set)); /* ends at the last number known */
    assert_int_equal(hw_set_count(&set), HW_SET_BITS - 4000);
    assert_true(hw_set_parse(STR("18446744073709551614-18446744073709551615,9-2"), &set));
    assert_int_equal(hw_set_count(&set), 0);
    assert_false(hw_set_has(&set, HW_SET_BITS + 1));
}

static void keys(void **state)
{
    (void)state;
    uint64_t value = 7;
    const char *text = "anon 5\ninactive_file 4096\nMemTotal:   12 kB\nlast 9";
    assert_true(hw_text_find_u64(text, "inactive_file", &value));
    assert_int_equal(value, 4096);
    assert_true(hw_text_find_u64(text, "MemTotal", &value));
    assert_int_equal(value, 12);
    assert_true(hw_text_find_u64(text, "last", &value));
    assert_int_equal(value, 9);
    assert_false(hw_text_find_u64(text, "active_file", &value)); /* not the end of another key */
    assert_false(hw_text_find_u64(text, "Mem", &value));
    assert_false(hw_text_find_u64("x max\n", "x", &value));
    assert_false(hw_text_find_u64("", "x", &value));
    assert_int_equal(value, 9);
}

static void files(void **state)
{
    (void)state;
    struct tree t;
    char text[8], path[HW_PATH], deep[HW_PATH + 10];
    uint64_t value = 1;
    tree_make(&t);
    tree_put(&t, "a", "  12345678901234567890 \n");
    assert_true(hw_path(path, "%s/a", t.root));
    assert_true(hw_text_read(path, text, sizeof(text)));
    assert_string_equal(text, "  12345"); /* cut, terminated */
    assert_true(hw_text_u64(path, &value));
    assert_int_equal(value, 12345678901234567890u);
    tree_put(&t, "a", "-1\n");
    assert_false(hw_text_u64(path, &value));
    tree_put(&t, "a", "\n\n");
    assert_false(hw_text_line(path, text, sizeof(text)));
    assert_false(hw_text_read("/nonexistent", text, sizeof(text)));
    assert_false(hw_text_read(t.root, text, sizeof(text))); /* a directory */
    memset(deep, 'x', sizeof(deep));
    deep[sizeof(deep) - 1] = '\0';
    assert_false(hw_path(path, "%s", deep));
    tree_remove(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists),
        cmocka_unit_test(hostile_lists),
        cmocka_unit_test(keys),
        cmocka_unit_test(files),
    };
    return cmocka_run_group_tests_name("hw_text", tests, NULL, NULL);
}
