/* arriero unload MODEL…: stops models and frees their memory. */
#include "cli/control.h"

#include <stddef.h>

struct options {
    bool force, all;
};

static const struct cli_option options[] = {
    {"force", 'f', CLI_FLAG, offsetof(struct options, force), NULL,
     "stop at once, even with requests running"},
    {"all", 'a', CLI_FLAG, offsetof(struct options, all), NULL, "every loaded model"},
    {.type = CLI_END},
};

/* model "" is all of them. */
static int unload(struct cli_call *call, const char *model)
{
    const struct options *o = call->options;
    yyjson_doc *doc;
    yyjson_mut_val *root;
    struct err err;
    yyjson_mut_doc *body = control_body(model, &root);
    yyjson_mut_obj_add_bool(body, root, "force", o->force);
    if (control_post(call, "/unload", body, CONTROL_NO_TIMEOUT, &doc, &err) != RC_OK)
        return cli_fail(call, &err);
    if (call->json)
        return control_print(doc);
    yyjson_doc_free(doc);
    struct buf out = {0};
    text_put_safe(&out, model[0] ? str_from(model) : STR("every model"), false);
    buf_puts(&out, " is unloaded\n");
    output_buf(&out);
    return 0;
}

static int run(struct cli_call *call)
{
    const struct options *o = call->options;
    struct err err;
    if (o->all == (call->n_args > 0)) {
        enum rc rc = err_set(&err, RC_INVALID, o->all ? "--all takes no model" : "which model?");
        if (rc != RC_OK)
            err_hint(&err, "usage: arriero unload MODEL…, or arriero unload --all");
        return cli_usage(call, &err);
    }
    if (o->all)
        return unload(call, "");
    int status = 0;
    for (size_t i = 0; i < call->n_args; i++)
        status |= unload(call, call->args[i]);
    return status;
}

const struct cli_command cmd_unload = {
    .name = "unload",
    .group = "Run",
    .synopsis = "MODEL… | --all",
    .summary = "stop models and free their memory",
    .details =
        "Running requests end first; new ones wait or load the model again. With --force they are cut off.",
    .options_size = sizeof(struct options),
    .options = options,
    .max_args = CLI_MAX_POSITIONAL,
    .run = run,
};
