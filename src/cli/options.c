/* Options from tables: see cli.h. Layer cli; main thread; pure functions over argv, nothing is printed here.
 *
 * --name value, --name=value, -n value, -nvalue, -abc for flags, "--" ends the options. A value that is
 * missing because another option follows is an error, not a value. The last of repeated options wins, lists
 * collect. */
#include "cli/cli_priv.h"

#include <stddef.h>
#include <string.h>

const struct cli_option cli_global_options[] = {
    {"json", 0, CLI_FLAG, offsetof(struct cli_globals, json), NULL, "print JSON instead of text"},
    {"socket", 0, CLI_STR, offsetof(struct cli_globals, socket), "PATH",
     "the daemon's control socket (else $ARRIERO_SOCKET, else the usual place)"},
    {"help", 'h', CLI_FLAG, offsetof(struct cli_globals, help), NULL, "show help and end"},
    {"version", 'V', CLI_FLAG, offsetof(struct cli_globals, version), NULL, "show the version and end"},
    {.type = CLI_END},
};

bool option_takes_value(const struct cli_option *o)
{
    return o->type != CLI_FLAG && o->type != CLI_NO_FLAG;
}

/* A distance that a slip of the finger explains: one in three letters, and one in any word. */
static unsigned tolerance(size_t n)
{
    return n < 6 ? 1 + (n > 3) : (unsigned)(n / 3);
}

const char *options_nearest(struct str word, const char *const *names, size_t n)
{
    const char *best = NULL;
    unsigned best_distance = tolerance(word.n) + 1;
    for (size_t i = 0; i < n; i++) {
        struct str name = str_from(names[i]);
        unsigned d = str_distance(word, name);
        /* A beginning of a name is a better guess than any slip of the finger. */
        if (word.n >= 2 && name.n > word.n && str_ieq((struct str){name.p, word.n}, word))
            d = 1;
        if (d < best_distance) {
            best_distance = d;
            best = names[i];
        }
    }
    return best;
}

static enum rc bad_value(const struct cli_option *o, struct str value, const char *want, struct err *err)
{
    enum rc rc =
        err_set(err, RC_INVALID, "--%s got \"%.*s\", which is not %s", o->name, STR_ARG(value), want);
    err_hint(err, "write --%s %s", o->name, o->metavar ? o->metavar : "VALUE");
    return rc;
}

static enum rc set_u32(const struct cli_option *o, struct str value, void *field, struct err *err)
{
    uint64_t v;
    if (!str_u64(value, &v) || v > UINT32_MAX)
        return bad_value(o, value, "a whole number from 0 to 4294967295", err);
    *(uint32_t *)field = (uint32_t)v;
    return RC_OK;
}

static enum rc set_tokens(const struct cli_option *o, struct str value, void *field, struct err *err)
{
    uint64_t v;
    if (!str_tokens(value, &v) || v > UINT32_MAX)
        return bad_value(o, value, "a number of tokens such as 4096 or 4k", err);
    *(uint32_t *)field = (uint32_t)v;
    return RC_OK;
}

static enum rc set_i32_all(const struct cli_option *o, struct str value, void *field, struct err *err)
{
    int64_t v = -1;
    if (!str_eq_c(value, "all") && (!str_i64(value, &v) || v < -1 || v > INT32_MAX))
        return bad_value(o, value, "a whole number or \"all\"", err);
    *(int32_t *)field = (int32_t)v;
    return RC_OK;
}

static enum rc set_mib(const struct cli_option *o, struct str value, void *field, struct err *err)
{
    uint64_t v;
    bool ok = str_u64(value, &v) ? !__builtin_mul_overflow(v, 1024u * 1024u, &v) : str_bytes(value, &v);
    if (!ok)
        return bad_value(o, value, "a size in MiB, or with a unit as in 24GiB", err);
    *(uint64_t *)field = v;
    return RC_OK;
}

static enum rc set_on_off(const struct cli_option *o, struct str value, void *field, struct err *err)
{
    bool on = str_ieq(value, STR("on"));
    if (!on && !str_ieq(value, STR("off")))
        return bad_value(o, value, "on or off", err);
    *(bool *)field = on;
    return RC_OK;
}

static enum rc add_to_list(const struct cli_option *o, const char *value, struct cli_list *list,
                           struct err *err)
{
    if (list->n == CLI_LIST_MAX) {
        enum rc rc = err_set(err, RC_INVALID, "--%s is given more than %d times", o->name, CLI_LIST_MAX);
        err_hint(err, "a configuration file takes any number");
        return rc;
    }
    list->items[list->n++] = value;
    return RC_OK;
}

static enum rc set_value(const struct cli_option *o, void *base, const char *value, struct err *err)
{
    void *field = (char *)base + o->offset;
    struct str s = str_from(value);
    enum rc rc;
    switch (o->type) {
    case CLI_FLAG: *(bool *)field = true; return RC_OK;
    case CLI_NO_FLAG: *(bool *)field = false; return RC_OK;
    case CLI_STR: *(const char **)field = value; return RC_OK;
    case CLI_U32: return set_u32(o, s, field, err);
    case CLI_TOKENS: return set_tokens(o, s, field, err);
    case CLI_I32_ALL: return set_i32_all(o, s, field, err);
    case CLI_U64_MIB: return set_mib(o, s, field, err);
    case CLI_ON_OFF: return set_on_off(o, s, field, err);
    case CLI_LIST: return add_to_list(o, value, field, err);
    case CLI_CUSTOM:
        rc = o->parse(s, field, err);
        if (rc != RC_OK)
            err_prefix(err, "--%s", o->name);
        return rc;
    case CLI_END: break;
    }
    return err_set(err, RC_INTERNAL, "--%s has no type", o->name);
}

/* Where an option was found and which memory its offset counts from. */
struct found {
    const struct cli_option *option;
    void *base;
};

struct scan {
    const struct cli_command *cmd; /* NULL before the command's name */
    void *options;
    struct cli_globals *globals;
    int argc, at;
    char **argv;
};

static struct found look_up(const struct scan *s, struct str name, char short_name)
{
    const struct {
        const struct cli_option *table;
        void *base;
    } places[] = {{s->cmd ? s->cmd->options : NULL, s->options}, {cli_global_options, s->globals}};
    for (size_t p = 0; p < 2; p++)
        for (const struct cli_option *o = places[p].table; o && o->type != CLI_END; o++)
            if (short_name ? o->short_name == short_name : str_eq_c(name, o->name))
                return (struct found){o, places[p].base};
    return (struct found){NULL, NULL};
}

static enum rc unknown_option(const struct scan *s, struct str spelled, struct str name, struct err *err)
{
    const char *names[128];
    size_t n = 0;
    for (const struct cli_option *o = s->cmd ? s->cmd->options : NULL; o && o->type != CLI_END && n < 100;
         o++)
        names[n++] = o->name;
    for (const struct cli_option *o = cli_global_options; o->type != CLI_END; o++)
        names[n++] = o->name;
    const char *near = name.n > 1 ? options_nearest(name, names, n) : NULL;
    const char *cmd = s->cmd ? s->cmd->name : "";
    const char *space = s->cmd ? " " : "";
    enum rc rc = err_set(err, RC_INVALID, "unknown option %.*s of arriero%s%s", STR_ARG(spelled), space, cmd);
    if (near)
        err_hint(err, "did you mean --%s? All options: arriero help%s%s", near, space, cmd);
    else
        err_hint(err, "all options: arriero help%s%s", space, cmd);
    return rc;
}

/* The value of the option at s->at: attached (not NULL), or the next argument, which is then consumed. */
static enum rc take_value(struct scan *s, const struct cli_option *o, const char *attached,
                          const char **ret_value, struct err *err)
{
    if (attached) {
        *ret_value = attached;
        return RC_OK;
    }
    const char *next = s->at + 1 < s->argc ? s->argv[s->at + 1] : NULL;
    if (!next || (next[0] == '-' && next[1] == '-')) {
        enum rc rc = err_set(err, RC_INVALID, "--%s needs a value", o->name);
        err_hint(err, "write --%s %s%s", o->name, o->metavar ? o->metavar : "VALUE",
                 next ? "; a value that starts with two dashes is written --NAME=VALUE" : "");
        return rc;
    }
    s->at++;
    *ret_value = next;
    return RC_OK;
}

static enum rc parse_long(struct scan *s, struct err *err)
{
    struct str spelled = str_from(s->argv[s->at]), rest = {spelled.p + 2, spelled.n - 2};
    struct str name = str_cut(&rest, '=');
    const char *attached = name.p[name.n] == '=' ? name.p + name.n + 1 : NULL;
    struct found f = look_up(s, name, 0);
    if (!f.option)
        return unknown_option(s, (struct str){spelled.p, name.n + 2}, name, err);
    const char *value = NULL;
    if (option_takes_value(f.option)) {
        enum rc rc = take_value(s, f.option, attached, &value, err);
        if (rc != RC_OK)
            return rc;
    } else if (attached) {
        enum rc rc = err_set(err, RC_INVALID, "--%s takes no value", f.option->name);
        err_hint(err, "write --%s alone", f.option->name);
        return rc;
    }
    return set_value(f.option, f.base, value, err);
}

static enum rc parse_short(struct scan *s, struct err *err)
{
    for (const char *p = s->argv[s->at] + 1; *p; p++) {
        struct found f = look_up(s, (struct str){NULL, 0}, *p);
        if (!f.option) {
            char spelled[3] = {'-', *p, 0};
            return unknown_option(s, str_from(spelled), (struct str){p, 1}, err);
        }
        const char *value = NULL;
        bool takes = option_takes_value(f.option);
        if (takes) {
            enum rc rc = take_value(s, f.option, p[1] ? p + 1 : NULL, &value, err);
            if (rc != RC_OK)
                return rc;
        }
        enum rc rc = set_value(f.option, f.base, value, err);
        if (rc != RC_OK || takes)
            return rc;
    }
    return RC_OK;
}

static enum rc check_count(const struct cli_command *cmd, const struct cli_call *call, struct err *err)
{
    const char *synopsis = cmd->synopsis ? cmd->synopsis : "";
    if (call->n_args < cmd->min_args) {
        enum rc rc = err_set(err, RC_INVALID, "arriero %s needs %s", cmd->name,
                             cmd->min_args == 1 ? "an argument" : "more arguments");
        err_hint(err, "usage: arriero %s %s", cmd->name, synopsis);
        return rc;
    }
    if (call->n_args > cmd->max_args) {
        enum rc rc = err_set(err, RC_INVALID, "arriero %s does not take the argument \"%s\"", cmd->name,
                             call->args[cmd->max_args]);
        err_hint(err, "usage: arriero %s %s", cmd->name, synopsis);
        return rc;
    }
    return RC_OK;
}

enum rc options_parse(const struct cli_command *cmd, int argc, char **argv, struct cli_call *call,
                      struct cli_globals *globals, struct err *err)
{
    struct scan s = {.cmd = cmd, .options = call->options, .globals = globals, .argc = argc, .argv = argv};
    bool options_over = false;
    for (; s.at < argc; s.at++) {
        const char *arg = argv[s.at];
        enum rc rc = RC_OK;
        if (options_over || arg[0] != '-' || arg[1] == '\0') {
            if (call->n_args == CLI_MAX_POSITIONAL) {
                rc = err_set(err, RC_INVALID, "more than %d arguments", CLI_MAX_POSITIONAL);
                err_hint(err, "put a text of several words between quotes");
                return rc;
            }
            call->args[call->n_args++] = arg;
        } else if (strcmp(arg, "--") == 0) {
            options_over = true;
        } else {
            rc = arg[1] == '-' ? parse_long(&s, err) : parse_short(&s, err);
        }
        if (rc != RC_OK)
            return rc;
        if (globals->help) /* whatever else is wrong with the line, its writer asked for help */
            return RC_OK;
    }
    return check_count(cmd, call, err);
}

enum rc options_parse_globals(int argc, char **argv, struct cli_globals *globals, int *ret_used,
                              struct err *err)
{
    struct scan s = {.globals = globals, .argc = argc, .argv = argv};
    for (; s.at < argc && argv[s.at][0] == '-' && argv[s.at][1]; s.at++) {
        enum rc rc = argv[s.at][1] == '-' ? parse_long(&s, err) : parse_short(&s, err);
        if (rc != RC_OK)
            return rc;
    }
    *ret_used = s.at;
    return RC_OK;
}
