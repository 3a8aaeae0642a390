/* The tables of commands and options themselves, and what is made from them: help, man page, exit statuses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cli/cli_priv.h"
#include "cli/man.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static size_t field_size(enum cli_type type)
{
    static const size_t sizes[] = {
        [CLI_FLAG] = sizeof(bool),    [CLI_NO_FLAG] = sizeof(bool),         [CLI_STR] = sizeof(char *),
        [CLI_U32] = sizeof(uint32_t), [CLI_I32_ALL] = sizeof(int32_t),      [CLI_U64_MIB] = sizeof(uint64_t),
        [CLI_ON_OFF] = sizeof(bool),  [CLI_LIST] = sizeof(struct cli_list), [CLI_CUSTOM] = 1,
    };
    return sizes[type];
}

static void check_option(const struct cli_command *cmd, const struct cli_option *o)
{
    assert_non_null(o->name);
    assert_true(o->name[0] != '-');
    assert_true(o->help && o->help[0]);
    assert_true(o->offset + field_size(o->type) <= cmd->options_size);
    assert_int_equal(option_takes_value(o), o->metavar != NULL);
    assert_int_equal(o->type == CLI_CUSTOM, o->parse != NULL);
    for (const struct cli_option *other = cmd->options; other != o; other++) {
        assert_string_not_equal(other->name, o->name);
        assert_true(!o->short_name || other->short_name != o->short_name);
    }
}

static void test_tables(void **state)
{
    (void)state;
    size_t n;
    const struct cli_command *const *commands = cli_commands(&n);
    assert_true(n > 0);
    for (size_t i = 0; i < n; i++) {
        const struct cli_command *cmd = commands[i];
        print_message("  %s\n", cmd->name);
        assert_ptr_equal(cli_find(cmd->name), cmd); /* no earlier one has the name */
        assert_true(cmd->group && cmd->group[0]);
        assert_true(cmd->summary && cmd->summary[0] && strlen(cmd->summary) <= 66); /* fits behind its name */
        assert_false(str_ends(str_from(cmd->summary), "."));
        assert_non_null(cmd->run);
        assert_true(cmd->min_args <= cmd->max_args);
        for (const struct cli_option *o = cmd->options; o && o->type != CLI_END; o++)
            check_option(cmd, o);
    }
    assert_null(cli_find("nonsense"));
}

static void test_help_of_all(void **state)
{
    (void)state;
    size_t n;
    const struct cli_command *const *commands = cli_commands(&n);
    struct buf overview = {0}, page = {0};
    help_overview(&overview);
    man_program(&page);
    for (size_t i = 0; i < n; i++) {
        struct buf help = {0};
        auto_free char *heading = mem_printf("\n  %s ", commands[i]->name);
        assert_int_equal(strstr(overview.data, heading) != NULL, !commands[i]->hidden);
        help_command(commands[i], &help);
        for (struct str rest = buf_str(&help); rest.n;) {
            struct str line = str_cut(&rest, '\n');
            if (!str_starts(line, "arriero ") && !str_starts(line, "    ") && text_width(line) > 80)
                fail_msg("%s: \"%.*s\" is wider than a terminal", commands[i]->name, STR_ARG(line));
        }
        for (const struct cli_option *o = commands[i]->options; o && o->type != CLI_END; o++) {
            auto_free char *spelled = mem_printf("--%s", o->name);
            assert_non_null(strstr(help.data, spelled));
        }
        buf_release(&help);
    }
    assert_true(str_starts(buf_str(&page), ".\\\""));
    buf_release(&overview);
    buf_release(&page);
}

static void test_roff(void **state)
{
    (void)state;
    struct buf out = {0};
    man_text(&out, ".dot 'quote \\back a-b\n'start");
    assert_string_equal(out.data, "\\&.dot 'quote \\eback a\\-b\n\\&'start");
    buf_clear(&out);
    man_paragraphs(&out, "one\n\n  example\n  .more\n\ntwo");
    assert_string_equal(out.data, ".PP\none\n.PP\n.RS 4\n.EX\nexample\n\\&.more\n.EE\n.RE\n.PP\ntwo\n");
    buf_release(&out);
}

static int run_line(const char *a, const char *b, const char *c)
{
    char *argv[] = {mem_strdup("arriero"), NULL, NULL, NULL, NULL};
    const char *words[] = {a, b, c};
    int argc = 1;
    for (size_t i = 0; i < TABLE_COUNT(words) && words[i]; i++)
        argv[argc++] = mem_strdup(words[i]);
    int status = cli_main(argc, argv);
    for (int i = 0; i < argc; i++)
        free(argv[i]);
    return status;
}

static void test_exit_statuses(void **state)
{
    (void)state;
    setenv("ARRIERO_SOCKET", "/nonexistent/arriero.sock", 1);
    assert_int_equal(run_line("version", NULL, NULL), 0);
    assert_int_equal(run_line("--version", NULL, NULL), 0);
    assert_int_equal(run_line("ps", "--version", NULL), 0);
    assert_int_equal(run_line("help", NULL, NULL), 0);
    assert_int_equal(run_line("--help", "ps", NULL), 0);
    assert_int_equal(run_line("ps", "--help", NULL), 0);
    assert_int_equal(run_line("help", "ps", "--json"), 0);
    assert_int_equal(run_line(NULL, NULL, NULL), 2);
    assert_int_equal(run_line("nonsense", NULL, NULL), 2);
    assert_int_equal(run_line("nonsense", "--json", NULL), 2);
    assert_int_equal(run_line("--nonsense", NULL, NULL), 2);
    assert_int_equal(run_line("ps", "--nonsense", NULL), 2);
    assert_int_equal(run_line("ps", "extra", NULL), 2);
    assert_int_equal(run_line("load", NULL, NULL), 2);
    assert_int_equal(run_line("unload", NULL, NULL), 2);
    assert_int_equal(run_line("unload", "--all", "x"), 2);
    assert_int_equal(run_line("help", "nonsense", NULL), 2);
    assert_int_equal(run_line("completion", "tcsh", NULL), 2);
    assert_int_equal(run_line("ask", "--temperature", "warm"), 2);
    /* no daemon */
    assert_int_equal(run_line("ps", NULL, NULL), 1);
    assert_int_equal(run_line("load", "x", "--json"), 1);
    assert_int_equal(run_line("completion", "models", NULL), 1);
    assert_int_equal(run_line("ps", "--socket", "/nonexistent/other.sock"), 1);
    assert_int_equal(run_line("ask", "--url=https://127.0.0.1", "x"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_help_of_all),
        cmocka_unit_test(test_roff),
        cmocka_unit_test(test_exit_statuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
