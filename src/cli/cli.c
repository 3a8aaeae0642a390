/* main(): finds the command, parses its options, runs it. See cli.h. Layer cli; main thread. */
#include "cli/cli_priv.h"

#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CLI_COMMAND(name) extern const struct cli_command cmd_##name;
#include "cli/commands.def"
#undef CLI_COMMAND

enum {
    N_COMMANDS = 0
#define CLI_COMMAND(name) +1
#include "cli/commands.def"
#undef CLI_COMMAND
};

static const struct cli_command *const commands[N_COMMANDS] = {
#define CLI_COMMAND(name) &cmd_##name,
#include "cli/commands.def"
#undef CLI_COMMAND
};

const struct cli_command *const *cli_commands(size_t *ret_n)
{
    *ret_n = N_COMMANDS;
    return commands;
}

const struct cli_command *cli_find(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

static int unknown_command(const struct cli_call *call, const char *word)
{
    const char *names[N_COMMANDS];
    size_t n = 0;
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (!commands[i]->hidden)
            names[n++] = commands[i]->name;
    const char *near = options_nearest(str_from(word), names, n);
    struct err err;
    enum rc rc = err_set(&err, RC_INVALID, "there is no command \"%s\"", word);
    if (near)
        err_hint(&err, "did you mean: arriero %s? All commands: arriero help", near);
    else
        err_hint(&err, "all commands: arriero help");
    (void)rc;
    return cli_usage(call, &err);
}

static int show_help(const struct cli_command *cmd)
{
    struct buf out = {0};
    if (cmd)
        help_command(cmd, &out);
    else
        help_overview(&out);
    output_buf(&out);
    return 0;
}

/* What was written may still sit in stdio's buffer: a full disk shows only here. */
static int finish(const struct cli_call *call, int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    struct err err;
    enum rc rc = err_sys(&err, RC_IO, "cannot write to standard output");
    (void)rc;
    struct cli_call plain = *call;
    plain.json = false;
    return status ? status : cli_fail(&plain, &err);
}

/* --json anywhere on the line makes even a usage error JSON. */
static bool wants_json(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--json") == 0)
            return true;
    return false;
}

static int run_command(const struct cli_command *cmd, int argc, char **argv, struct cli_call *call,
                       struct cli_globals *globals)
{
    struct err err;
    auto_free void *options = mem_calloc(1, cmd->options_size);
    call->command = cmd;
    call->options = options;
    if (cmd->defaults)
        cmd->defaults(options);
    if (options_parse(cmd, argc, argv, call, globals, &err) != RC_OK)
        return cli_usage(call, &err);
    if (globals->help)
        return show_help(cmd);
    call->json = globals->json;
    if (globals->version)
        return cli_find("version")->run(call);
    if (globals->socket)
        call->socket = globals->socket;
    return cmd->run(call);
}

int cli_main(int argc, char **argv)
{
    struct cli_globals globals = {0};
    struct cli_call call = {.json = wants_json(argc, argv), .color = output_wants_color(stdout)};
    struct err err;
    int used = 0;
    const char *socket = getenv("ARRIERO_SOCKET");
    call.socket = socket && socket[0] ? socket : NULL;
    if (options_parse_globals(argc - 1, argv + 1, &globals, &used, &err) != RC_OK)
        return finish(&call, cli_usage(&call, &err));
    argc -= 1 + used;
    argv += 1 + used;
    if (globals.help)
        return finish(&call, show_help(argc > 0 ? cli_find(argv[0]) : NULL));
    const char *name = globals.version ? "version" : argc > 0 ? argv[0] : NULL;
    if (!name) {
        struct buf out = {0};
        help_overview(&out);
        fwrite(out.data, 1, out.n, stderr);
        buf_release(&out);
        return 2;
    }
    const struct cli_command *cmd = cli_find(name);
    if (!cmd)
        return finish(&call, unknown_command(&call, name));
    if (globals.version)
        argc = 1;
    return finish(&call, run_command(cmd, argc - 1, argv + 1, &call, &globals));
}
