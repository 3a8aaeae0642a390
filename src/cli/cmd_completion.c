/* arriero completion SHELL: a script that completes commands, options and models, made from the tables. Layer
 * cli; main thread.
 *
 * "arriero completion models" is what those scripts call for the names of models: it asks the daemon and is
 * silent when there is none. */
#include "cli/control.h"

#include "base/mem.h"
#include "hw/profiles/profiles.h"

#include <string.h>

enum { MODELS_TIMEOUT_MS = 1000, MAX_SHOWN = 64 };

enum value_kind { VALUE_NONE, VALUE_ANY, VALUE_FILE, VALUE_DIR, VALUE_MODEL, VALUE_PROFILE, VALUE_ON_OFF };

/* What a metavar stands for. */
static enum value_kind kind_of(const char *metavar, enum cli_type type)
{
    static const struct {
        const char *metavar;
        enum value_kind kind;
    } table[] = {{"DIR", VALUE_DIR}, {"FILE", VALUE_FILE},         {"PATH", VALUE_FILE},
                 {"F", VALUE_FILE},  {"PROFILE,…", VALUE_PROFILE}, {"MODEL", VALUE_MODEL}};
    if (type == CLI_FLAG || type == CLI_NO_FLAG)
        return VALUE_NONE;
    if (type == CLI_ON_OFF)
        return VALUE_ON_OFF;
    for (size_t i = 0; metavar && i < TABLE_COUNT(table); i++)
        if (strcmp(metavar, table[i].metavar) == 0)
            return table[i].kind;
    return VALUE_ANY;
}

/* Whether the first argument is a model: "MODEL …", "[MODEL]". */
static bool takes_model(const struct cli_command *cmd)
{
    struct str s = str_from(cmd->synopsis);
    return str_starts(s, "MODEL") || str_starts(s, "[MODEL]") || strcmp(cmd->name, "logs") == 0;
}

/* ---- bash ---- */

static void bash_options(struct buf *out, const struct cli_option *table)
{
    for (const struct cli_option *o = table; o && o->type != CLI_END; o++) {
        buf_printf(out, " --%s", o->name);
        if (o->short_name)
            buf_printf(out, " -%c", o->short_name);
    }
}

static void bash_values(struct buf *out, const struct cli_command *cmd, const struct cli_option *table)
{
    static const char *const action[] = {
        [VALUE_ANY] = "return",
        [VALUE_FILE] = "COMPREPLY=($(compgen -f -- \"$cur\")); return",
        [VALUE_DIR] = "COMPREPLY=($(compgen -d -- \"$cur\")); return",
        [VALUE_MODEL] = "COMPREPLY=($(compgen -W \"$(arriero completion models)\" -- \"$cur\")); return",
        [VALUE_PROFILE] = "COMPREPLY=($(compgen -W \"$(arriero completion profiles)\" -- \"$cur\")); return",
        [VALUE_ON_OFF] = "COMPREPLY=($(compgen -W 'on off' -- \"$cur\")); return",
    };
    for (const struct cli_option *o = table; o && o->type != CLI_END; o++) {
        enum value_kind kind = kind_of(o->metavar, o->type);
        if (kind == VALUE_NONE)
            continue;
        buf_printf(out, "        %s:--%s", cmd ? cmd->name : "*", o->name);
        if (o->short_name)
            buf_printf(out, "|%s:-%c", cmd ? cmd->name : "*", o->short_name);
        buf_printf(out, ") %s ;;\n", action[kind]);
    }
}

static void write_bash(struct buf *out, const struct cli_command *const *commands, size_t n)
{
    buf_puts(out, "# bash completion of arriero: arriero completion bash\n"
                  "_arriero() {\n"
                  "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} cmd='' i\n"
                  "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
                  "        [[ ${COMP_WORDS[i]} == -* ]] || { cmd=${COMP_WORDS[i]}; break; }\n"
                  "    done\n"
                  "    COMPREPLY=()\n"
                  "    case $cmd:$prev in\n");
    for (size_t i = 0; i < n; i++)
        bash_values(out, commands[i], commands[i]->options);
    bash_values(out, NULL, cli_global_options);
    buf_puts(out, "    esac\n    case $cmd in\n        '') COMPREPLY=($(compgen -W '");
    for (size_t i = 0; i < n; i++)
        buf_printf(out, "%s ", commands[i]->name);
    buf_puts(out, "--help --version' -- \"$cur\")) ;;\n");
    for (size_t i = 0; i < n; i++) {
        buf_printf(out,
                   "        %s)\n            if [[ $cur == -* ]]; then\n"
                   "                COMPREPLY=($(compgen -W '",
                   commands[i]->name);
        bash_options(out, commands[i]->options);
        buf_puts(out, " --json --socket --help' -- \"$cur\"))\n");
        if (takes_model(commands[i]))
            buf_puts(out, "            else\n                COMPREPLY=($(compgen -W \"$(arriero completion "
                          "models)\" -- "
                          "\"$cur\"))\n");
        buf_puts(out, "            fi ;;\n");
    }
    buf_puts(out, "    esac\n}\ncomplete -o default -F _arriero arriero\n");
}

/* ---- zsh and fish quote in single quotes ---- */

static void put_quoted(struct buf *out, const char *s, const char *also_escape)
{
    for (; s && *s; s++) {
        if (*s == '\'')
            buf_puts(out, "'\\''");
        else if (also_escape && strchr(also_escape, *s))
            buf_printf(out, "\\%c", *s);
        else
            buf_append(out, s, 1);
    }
}

static void zsh_option(struct buf *out, const struct cli_option *o)
{
    static const char *const action[] = {
        [VALUE_ANY] = ":",
        [VALUE_FILE] = ":_files",
        [VALUE_DIR] = ":_files -/",
        [VALUE_MODEL] = ":_arriero_models",
        [VALUE_PROFILE] = ":_arriero_profiles",
        [VALUE_ON_OFF] = ":(on off)",
    };
    enum value_kind kind = kind_of(o->metavar, o->type);
    for (int form = 0; form < (o->short_name ? 2 : 1); form++) {
        buf_puts(out, " \\\n                '");
        if (o->type == CLI_LIST)
            buf_puts(out, "*");
        if (form == 0)
            buf_printf(out, "--%s%s[", o->name, kind == VALUE_NONE ? "" : "=");
        else
            buf_printf(out, "-%c[", o->short_name);
        put_quoted(out, o->help, "[]\\:");
        buf_puts(out, "]");
        if (kind != VALUE_NONE) {
            buf_puts(out, ":");
            put_quoted(out, o->metavar ? o->metavar : "value", ":\\");
            buf_puts(out, action[kind]);
        }
        buf_puts(out, "'");
    }
}

static void write_zsh(struct buf *out, const struct cli_command *const *commands, size_t n)
{
    buf_puts(out,
             "#compdef arriero\n# zsh completion of arriero: arriero completion zsh\n"
             "_arriero_models() {\n    local -a names\n    names=(${(f)\"$(arriero completion models)\"})\n"
             "    compadd -a names\n}\n"
             "_arriero_profiles() {\n    local -a names\n"
             "    names=(${(f)\"$(arriero completion profiles)\"})\n    compadd -a names\n}\n"
             "_arriero() {\n    local line state\n    local -a commands\n    commands=(\n");
    for (size_t i = 0; i < n; i++) {
        buf_printf(out, "        '%s:", commands[i]->name);
        put_quoted(out, commands[i]->summary, ":\\");
        buf_puts(out, "'\n");
    }
    buf_puts(out, "    )\n    _arguments -C '1: :->command' '*::arg:->args'\n    case $state in\n"
                  "    command) _describe command commands ;;\n    args)\n        case $line[1] in\n");
    for (size_t i = 0; i < n; i++) {
        buf_printf(out, "        %s)\n            _arguments", commands[i]->name);
        for (const struct cli_option *o = commands[i]->options; o && o->type != CLI_END; o++)
            zsh_option(out, o);
        for (const struct cli_option *o = cli_global_options; o->type != CLI_END; o++)
            zsh_option(out, o);
        buf_printf(out, " \\\n                '*:argument:%s'\n            ;;\n",
                   takes_model(commands[i]) ? "_arriero_models" : "_files");
    }
    buf_puts(out, "        esac ;;\n    esac\n}\n_arriero \"$@\"\n");
}

static void fish_option(struct buf *out, const char *condition, const struct cli_option *o)
{
    static const char *const action[] = {
        [VALUE_NONE] = "",
        [VALUE_ANY] = " -x",
        [VALUE_FILE] = " -r -F",
        [VALUE_DIR] = " -x -a '(__fish_complete_directories)'",
        [VALUE_MODEL] = " -x -a '(arriero completion models)'",
        [VALUE_PROFILE] = " -x -a '(arriero completion profiles)'",
        [VALUE_ON_OFF] = " -x -a 'on off'",
    };
    buf_printf(out, "complete -c arriero%s -l %s", condition, o->name);
    if (o->short_name)
        buf_printf(out, " -s %c", o->short_name);
    buf_printf(out, "%s -d '", action[kind_of(o->metavar, o->type)]);
    for (const char *s = o->help ? o->help : ""; *s; s++) {
        if (*s == '\'' || *s == '\\')
            buf_puts(out, "\\");
        buf_append(out, s, 1);
    }
    buf_puts(out, "'\n");
}

static void write_fish(struct buf *out, const struct cli_command *const *commands, size_t n)
{
    buf_puts(out, "# fish completion of arriero: arriero completion fish\ncomplete -c arriero -f\n");
    for (const struct cli_option *o = cli_global_options; o->type != CLI_END; o++)
        fish_option(out, "", o);
    for (size_t i = 0; i < n; i++) {
        const struct cli_command *cmd = commands[i];
        buf_printf(out, "complete -c arriero -n __fish_use_subcommand -a %s -d '", cmd->name);
        for (const char *s = cmd->summary; *s; s++) {
            if (*s == '\'' || *s == '\\')
                buf_puts(out, "\\");
            buf_append(out, s, 1);
        }
        buf_puts(out, "'\n");
        auto_free char *condition = mem_printf(" -n '__fish_seen_subcommand_from %s'", cmd->name);
        if (takes_model(cmd))
            buf_printf(out, "complete -c arriero%s -a '(arriero completion models)'\n", condition);
        for (const struct cli_option *o = cmd->options; o && o->type != CLI_END; o++)
            fish_option(out, condition, o);
    }
}

/* ---- the names of the daemon's models, one a line ---- */

static int list_models(const struct cli_call *call)
{
    struct client_address address;
    struct client_request r = {
        .method = "GET", .path = CONTROL_API "/models", .timeout_ms = MODELS_TIMEOUT_MS, .cancel_fd = -1};
    yyjson_doc *doc;
    struct buf out = {0};
    size_t i, n;
    yyjson_val *v;
    if (client_address_control(call->socket, &address, NULL) != RC_OK ||
        client_json(&address, &r, &doc, NULL) != RC_OK)
        return 1; /* a shell that completes wants no message */
    yyjson_arr_foreach(yyjson_obj_get(yyjson_doc_get_root(doc), "models"), i, n, v)
    {
        struct str id = json_str(v, "id", STR(""));
        if (id.n)
            text_put_safe(&out, id, false), buf_puts(&out, "\n");
    }
    output_buf(&out);
    yyjson_doc_free(doc);
    return 0;
}

static int list_profiles(void)
{
    struct buf out = {0};
    size_t n;
    const struct hw_profile *list = hw_profiles(&n);
    for (size_t i = 0; i < n; i++)
        buf_printf(&out, "%s\n", list[i].name);
    output_buf(&out);
    return 0;
}

static const struct {
    const char *shell;
    void (*write)(struct buf *out, const struct cli_command *const *commands, size_t n);
} shells[] = {{"bash", write_bash}, {"zsh", write_zsh}, {"fish", write_fish}};

static int run(struct cli_call *call)
{
    const struct cli_command *shown[MAX_SHOWN];
    size_t n, n_shown = 0;
    const struct cli_command *const *commands = cli_commands(&n);
    if (strcmp(call->args[0], "models") == 0)
        return list_models(call);
    if (strcmp(call->args[0], "profiles") == 0)
        return list_profiles();
    for (size_t i = 0; i < n && n_shown < MAX_SHOWN; i++)
        if (!commands[i]->hidden)
            shown[n_shown++] = commands[i];
    for (size_t i = 0; i < TABLE_COUNT(shells); i++)
        if (strcmp(call->args[0], shells[i].shell) == 0) {
            struct buf out = {0};
            shells[i].write(&out, shown, n_shown);
            output_buf(&out);
            return 0;
        }
    struct err err;
    enum rc rc = err_set(&err, RC_INVALID, "no completion for the shell \"%s\"", call->args[0]);
    if (rc != RC_OK)
        err_hint(&err, "there is one for bash, zsh and fish");
    return cli_usage(call, &err);
}

const struct cli_command cmd_completion = {
    .name = "completion",
    .group = "Help",
    .synopsis = "bash|zsh|fish",
    .summary = "print a script that completes commands in a shell",
    .details = "make install puts the scripts where the shells look. For one session:\n\n"
               "  source <(arriero completion bash)",
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
