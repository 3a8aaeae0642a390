/* arriero config: check a configuration, print the effective one, its schema, its keys. Layer cli; main
 * thread; needs no daemon. */
#include "cli/cli_priv.h"

#include "base/mem.h"
#include "daemon/config.h"

#include <stddef.h>
#include <string.h>

struct config_options {
    const char *config;
    bool man, markdown;
};

static const struct cli_option options[] = {
    {"config", 'c', CLI_STR, offsetof(struct config_options, config), "FILE", "the file to print", NULL},
    {"man", 0, CLI_FLAG, offsetof(struct config_options, man), NULL, "keys: as a manual page", NULL},
    {"markdown", 0, CLI_FLAG, offsetof(struct config_options, markdown), NULL, "keys: as Markdown", NULL},
    {.type = CLI_END},
};

/* All of them, as if each had been the only one; with --json the first as `error`, all as `errors`. */
static int fail_all(const struct cli_call *call, const struct config_errors *all)
{
    if (!call->json) {
        for (size_t i = 0; i < all->n; i++)
            (void)cli_fail(call, &all->list[i]);
        return 1;
    }
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_val(doc, root, "error", json_err(doc, &all->list[0]));
    yyjson_mut_val *errors = yyjson_mut_obj_add_arr(doc, root, "errors");
    for (size_t i = 0; i < all->n; i++)
        yyjson_mut_arr_append(errors, json_err(doc, &all->list[i]));
    (void)cli_print_json(doc);
    return 1;
}

static int check(struct cli_call *call, const char *file)
{
    struct config_errors *all = mem_new(struct config_errors);
    const struct config_request req = {.file = file, .errors = all};
    struct config *c = NULL;
    struct err err;
    if (config_load(&req, &c, &err) != RC_OK) {
        int status = fail_all(call, all);
        free(all);
        return status;
    }
    free(all);
    if (call->json) {
        yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
        yyjson_mut_val *root = yyjson_mut_obj(doc);
        yyjson_mut_doc_set_root(doc, root);
        yyjson_mut_obj_add_bool(doc, root, "ok", true);
        yyjson_mut_obj_add_strcpy(doc, root, "file", c->file);
        yyjson_mut_obj_add_uint(doc, root, "models", c->n_models);
        yyjson_mut_val *notes = yyjson_mut_obj_add_arr(doc, root, "notes");
        for (size_t i = 0; i < c->n_notes; i++)
            yyjson_mut_arr_add_strcpy(doc, notes, c->notes[i]);
        config_free(c);
        return cli_print_json(doc);
    }
    for (size_t i = 0; i < c->n_notes; i++)
        printf("note: %s\n", c->notes[i]);
    if (c->file[0])
        printf("%s is in order: %zu model%s settings of %s own\n", c->file, c->n_models,
               c->n_models == 1 ? " has" : "s have", c->n_models == 1 ? "its" : "their");
    else
        printf("there is no configuration file; the defaults are in order\n");
    config_free(c);
    return 0;
}

static int print(struct cli_call *call, const char *file)
{
    const struct config_request req = {.file = file};
    struct config *c = NULL;
    struct err err;
    if (config_load(&req, &c, &err) != RC_OK)
        return cli_fail(call, &err);
    if (call->json) {
        yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
        yyjson_mut_doc_set_root(doc, config_json(c, doc, true));
        config_free(c);
        return cli_print_json(doc);
    }
    struct buf out = {0};
    buf_printf(&out, "# %s%s\n", c->file[0] ? "effective configuration with " : "effective configuration",
               c->file);
    enum rc rc = config_yaml(c, &out, &err);
    config_free(c);
    output_buf(&out);
    return rc == RC_OK ? 0 : cli_fail(call, &err);
}

static int schema(struct cli_call *call)
{
    (void)call;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_doc_set_root(doc, config_schema(doc));
    return cli_print_json(doc);
}

static int keys(struct cli_call *call)
{
    const struct config_options *o = call->options;
    struct buf out = {0};
    if (call->json)
        return schema(call);
    config_reference(o->man        ? CONFIG_REFERENCE_MAN
                     : o->markdown ? CONFIG_REFERENCE_MARKDOWN
                                   : CONFIG_REFERENCE_TEXT,
                     &out);
    output_buf(&out);
    return 0;
}

static int run(struct cli_call *call)
{
    const struct config_options *o = call->options;
    const char *what = call->args[0], *file = call->n_args > 1 ? call->args[1] : o->config;
    struct err err;
    if (strcmp(what, "check") == 0)
        return check(call, file);
    if (strcmp(what, "print") == 0)
        return print(call, file);
    if (strcmp(what, "schema") == 0 && call->n_args == 1)
        return schema(call);
    if (strcmp(what, "keys") == 0 && call->n_args == 1)
        return keys(call);
    err.code = err_set(&err, RC_INVALID, "\"%s\" is not something to do with a configuration", what);
    err_hint(&err, "arriero config check|print|schema|keys");
    return cli_usage(call, &err);
}

const struct cli_command cmd_config = {
    .name = "config",
    .group = "Daemon",
    .synopsis = "check [FILE] | print [FILE] | schema | keys",
    .summary = "check a configuration, print the effective one, list every key",
    .details =
        "check reads FILE (or the usual file) as the daemon would and names every mistake that it finds with "
        "its "
        "line and column. print shows every setting as it holds, from flag, environment, file or default; "
        "with --json "
        "also where each comes from. schema is a JSON Schema for editors. keys tells every key, its type, "
        "its "
        "default and its meaning.",
    .options_size = sizeof(struct config_options),
    .options = options,
    .min_args = 1,
    .max_args = 2,
    .run = run,
};
