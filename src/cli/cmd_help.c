/* arriero help [COMMAND]: the tables of commands and options as text, or as JSON for other programs. */
#include "cli/cli_priv.h"

static void add_command(yyjson_mut_doc *doc, yyjson_mut_val *list, const struct cli_command *cmd)
{
    yyjson_mut_val *c = yyjson_mut_arr_add_obj(doc, list);
    yyjson_mut_obj_add_str(doc, c, "name", cmd->name);
    yyjson_mut_obj_add_str(doc, c, "group", cmd->group);
    yyjson_mut_obj_add_str(doc, c, "synopsis", cmd->synopsis ? cmd->synopsis : "");
    yyjson_mut_obj_add_str(doc, c, "summary", cmd->summary);
    yyjson_mut_val *options = yyjson_mut_obj_add_arr(doc, c, "options");
    for (const struct cli_option *o = cmd->options; o && o->type != CLI_END; o++) {
        yyjson_mut_val *v = yyjson_mut_arr_add_obj(doc, options);
        yyjson_mut_obj_add_str(doc, v, "name", o->name);
        if (o->metavar)
            yyjson_mut_obj_add_str(doc, v, "metavar", o->metavar);
        yyjson_mut_obj_add_bool(doc, v, "repeats", o->type == CLI_LIST);
        yyjson_mut_obj_add_str(doc, v, "help", o->help ? o->help : "");
    }
}

static int run(struct cli_call *call)
{
    const struct cli_command *one = call->n_args ? cli_find(call->args[0]) : NULL;
    size_t n;
    const struct cli_command *const *commands = cli_commands(&n);
    if (call->n_args && !one) {
        struct err err;
        const char *names[128];
        for (size_t i = 0; i < n && i < 128; i++)
            names[i] = commands[i]->name;
        const char *near = options_nearest(str_from(call->args[0]), names, n < 128 ? n : 128);
        enum rc rc = err_set(&err, RC_INVALID, "there is no command \"%s\"", call->args[0]);
        if (near && rc != RC_OK)
            err_hint(&err, "did you mean: arriero help %s?", near);
        else
            err_hint(&err, "all commands: arriero help");
        return cli_usage(call, &err);
    }
    if (call->json) {
        yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
        yyjson_mut_val *root = yyjson_mut_obj(doc);
        yyjson_mut_doc_set_root(doc, root);
        yyjson_mut_val *list = yyjson_mut_obj_add_arr(doc, root, "commands");
        for (size_t i = 0; i < n; i++)
            if (one ? commands[i] == one : !commands[i]->hidden)
                add_command(doc, list, commands[i]);
        return cli_print_json(doc);
    }
    struct buf out = {0};
    if (one)
        help_command(one, &out);
    else
        help_overview(&out);
    output_buf(&out);
    return 0;
}

const struct cli_command cmd_help = {
    .name = "help",
    .group = "Help",
    .synopsis = "[COMMAND]",
    .summary = "list the commands, or explain one",
    .max_args = 1,
    .run = run,
};
