/* Parsing of command lines: every type, every error, names that are nearly right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cli/cli_priv.h"

#include "base/mem.h"

#include <string.h>

struct values {
    bool flag, cache, fast;
    const char *name;
    uint32_t count;
    int32_t layers;
    uint64_t size;
    struct cli_list dirs;
    int custom;
};

static enum rc parse_custom(struct str value, void *field, struct err *err)
{
    if (str_eq_c(value, "seven"))
        *(int *)field = 7;
    else
        return err_set(err, RC_INVALID, "not seven");
    return RC_OK;
}

static const struct cli_option table[] = {
    {"flag", 'f', CLI_FLAG, offsetof(struct values, flag), NULL, "a flag"},
    {"no-cache", 0, CLI_NO_FLAG, offsetof(struct values, cache), NULL, "off"},
    {"fast", 0, CLI_ON_OFF, offsetof(struct values, fast), "on|off", "either"},
    {"name", 'n', CLI_STR, offsetof(struct values, name), "NAME", "text"},
    {"count", 'c', CLI_U32, offsetof(struct values, count), "N", "number"},
    {"layers", 'l', CLI_I32_ALL, offsetof(struct values, layers), "N|all", "layers"},
    {"size", 0, CLI_U64_MIB, offsetof(struct values, size), "MIB", "size"},
    {"dir", 'd', CLI_LIST, offsetof(struct values, dirs), "DIR", "list"},
    {"custom", 0, CLI_CUSTOM, offsetof(struct values, custom), "X", "own parser", parse_custom},
    {.type = CLI_END},
};

static const struct cli_command command = {
    .name = "test",
    .synopsis = "A [B]",
    .summary = "a command",
    .options_size = sizeof(struct values),
    .options = table,
    .max_args = 2,
};

struct parsed {
    struct values v;
    struct cli_call call;
    struct cli_globals globals;
    struct err err;
    enum rc rc;
};

static struct parsed *parse(const struct cli_command *cmd, const char *line)
{
    static struct parsed p; /* one a test at a time */
    static char words[4096];
    char *argv[256];
    int argc = 0;
    p = (struct parsed){.v = {.cache = true}};
    p.call.options = &p.v;
    snprintf(words, sizeof words, "%s", line);
    for (char *w = strtok(words, " "); w && argc < 256; w = strtok(NULL, " "))
        argv[argc++] = w;
    p.rc = options_parse(cmd, argc, argv, &p.call, &p.globals, &p.err);
    return &p;
}

static void test_all_types(void **state)
{
    (void)state;
    struct parsed *p =
        parse(&command, "one --flag --no-cache --fast on --name=a=b --count 4294967295 --layers all "
                        "--size 24GiB -d x --dir y --custom seven two");
    assert_int_equal(p->rc, RC_OK);
    assert_true(p->v.flag);
    assert_false(p->v.cache);
    assert_true(p->v.fast);
    assert_string_equal(p->v.name, "a=b");
    assert_int_equal(p->v.count, UINT32_MAX);
    assert_int_equal(p->v.layers, -1);
    assert_int_equal(p->v.size, 24ull << 30);
    assert_int_equal(p->v.dirs.n, 2);
    assert_string_equal(p->v.dirs.items[0], "x");
    assert_string_equal(p->v.dirs.items[1], "y");
    assert_int_equal(p->v.custom, 7);
    assert_int_equal(p->call.n_args, 2);
    assert_string_equal(p->call.args[0], "one");
    assert_string_equal(p->call.args[1], "two");
}

static void test_spellings(void **state)
{
    (void)state;
    assert_int_equal(parse(&command, "-fc7")->v.count, 7);
    assert_true(parse(&command, "-fc7")->v.flag);
    assert_int_equal(parse(&command, "-c 7")->v.count, 7);
    assert_int_equal(parse(&command, "--layers 12")->v.layers, 12);
    assert_int_equal(parse(&command, "-l -1")->v.layers, -1);
    assert_int_equal(parse(&command, "--size 1536")->v.size, 1536ull << 20);
    assert_int_equal(parse(&command, "--size 0")->v.size, 0);
    assert_false(parse(&command, "--fast OFF")->v.fast);
    assert_int_equal(parse(&command, "--count 1 --count 2")->v.count, 2); /* the last wins */
    struct parsed *p = parse(&command, "--name= -- --flag -");
    assert_int_equal(p->rc, RC_OK);
    assert_string_equal(p->v.name, "");
    assert_false(p->v.flag);
    assert_int_equal(p->call.n_args, 2);
    assert_string_equal(p->call.args[0], "--flag");
    assert_string_equal(p->call.args[1], "-");
}

static void test_globals(void **state)
{
    (void)state;
    struct parsed *p = parse(&command, "--json --socket /tmp/x one");
    assert_int_equal(p->rc, RC_OK);
    assert_true(p->globals.json);
    assert_string_equal(p->globals.socket, "/tmp/x");
    assert_int_equal(p->call.n_args, 1);
    /* help wins over what is wrong behind it */
    assert_int_equal(parse(&command, "-h --nonsense")->rc, RC_OK);
    assert_true(parse(&command, "-h --nonsense")->globals.help);

    struct cli_globals g = {0};
    int used = -1;
    char *argv[] = {(char[]){"--json"}, (char[]){"ps"}, (char[]){"--help"}};
    assert_int_equal(options_parse_globals(3, argv, &g, &used, NULL), RC_OK);
    assert_int_equal(used, 1);
    assert_true(g.json);
    assert_false(g.help);
}

static void assert_error(const char *line, const char *message, const char *hint)
{
    struct parsed *p = parse(&command, line);
    assert_int_equal(p->rc, RC_INVALID);
    if (!strstr(p->err.message, message) || !strstr(p->err.hint, hint))
        fail_msg("%s: got \"%s\", hint \"%s\"", line, p->err.message, p->err.hint);
}

static void test_errors(void **state)
{
    (void)state;
    assert_error("--flga", "unknown option --flga", "did you mean --flag?");
    assert_error("--jsno", "unknown option --jsno", "did you mean --json?");
    assert_error("--flga=x", "unknown option --flga of", "--flag");
    assert_error("--zzzzzzzz", "unknown option --zzzzzzzz", "all options: arriero help test");
    assert_error("-x", "unknown option -x", "arriero help test");
    assert_error("-fx", "unknown option -x", "arriero help test");
    assert_error("--flag=yes", "takes no value", "alone");
    assert_error("--count", "--count needs a value", "--count N");
    assert_error("--name --flag", "--name needs a value", "--NAME=VALUE");
    assert_error("--count -3", "not a whole number", "--count N");
    assert_error("--count 4294967296", "not a whole number", "--count N");
    assert_error("--count 1k", "not a whole number", "--count N");
    assert_error("--count=", "not a whole number", "--count N");
    assert_error("--layers -2", "or \"all\"", "N|all");
    assert_error("--layers 2147483648", "or \"all\"", "N|all");
    assert_error("--size 12parsec", "a size in MiB", "--size MIB");
    assert_error("--size 99999999999999999999", "a size in MiB", "--size MIB");
    assert_error("--size 18446744073709551615", "a size in MiB", "--size MIB");
    assert_error("--fast maybe", "on or off", "on|off");
    assert_error("--custom eight", "--custom: not seven", "");
    assert_error("a b c", "does not take the argument \"c\"", "usage: arriero test A [B]");
}

static void test_counts(void **state)
{
    (void)state;
    struct cli_command strict = command;
    strict.min_args = 1;
    struct parsed *p = parse(&strict, "--flag");
    assert_int_equal(p->rc, RC_INVALID);
    assert_non_null(strstr(p->err.message, "needs an argument"));
    strict.max_args = CLI_MAX_POSITIONAL;
    char line[512] = "";
    for (int i = 0; i < CLI_MAX_POSITIONAL + 1; i++)
        strcat(line, "w ");
    p = parse(&strict, line);
    assert_int_equal(p->rc, RC_INVALID);
    assert_non_null(strstr(p->err.message, "more than 64 arguments"));
    char many[1024] = "";
    for (int i = 0; i < CLI_LIST_MAX; i++)
        strcat(many, "-d x ");
    assert_int_equal(parse(&command, many)->v.dirs.n, CLI_LIST_MAX);
    strcat(many, "-d x");
    assert_int_equal(parse(&command, many)->rc, RC_INVALID);
}

static void test_no_options(void **state)
{
    (void)state;
    static const struct cli_command bare = {.name = "bare", .summary = "nothing"};
    assert_int_equal(parse(&bare, "--json")->rc, RC_OK);
    assert_int_equal(parse(&bare, "--flag")->rc, RC_INVALID);
    assert_int_equal(parse(&bare, "x")->rc, RC_INVALID);
}

static void test_nearest(void **state)
{
    (void)state;
    static const char *const names[] = {"serve", "status", "models", "unload", "load", "ps"};
    const size_t n = TABLE_COUNT(names);
    assert_string_equal(options_nearest(STR("sevre"), names, n), "serve");
    assert_string_equal(options_nearest(STR("STATUS"), names, n), "status");
    assert_string_equal(options_nearest(STR("stat"), names, n), "status");
    assert_string_equal(options_nearest(STR("laod"), names, n), "load");
    assert_string_equal(options_nearest(STR("modles"), names, n), "models");
    assert_null(options_nearest(STR("xyzzy"), names, n));
    assert_null(options_nearest(STR("frobnicate"), names, n));
    assert_null(options_nearest(STR("anything"), NULL, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_types), cmocka_unit_test(test_spellings), cmocka_unit_test(test_globals),
        cmocka_unit_test(test_errors),    cmocka_unit_test(test_counts),    cmocka_unit_test(test_no_options),
        cmocka_unit_test(test_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
