/* arriero pin MODEL: keeps a model from being unloaded for others. */
#include "cli/control.h"

#include <stddef.h>

struct options {
    bool on;
};

static const struct cli_option options[] = {
    {"off", 0, CLI_NO_FLAG, offsetof(struct options, on), NULL, "let it be unloaded again"},
    {.type = CLI_END},
};

static void defaults(void *options_)
{
    *(struct options *)options_ = (struct options){.on = true};
}

static int run(struct cli_call *call)
{
    const struct options *o = call->options;
    yyjson_doc *doc;
    yyjson_mut_val *root;
    struct err err;
    yyjson_mut_doc *body = control_body(call->args[0], &root);
    yyjson_mut_obj_add_bool(body, root, "on", o->on);
    if (control_post(call, "/pin", body, CLIENT_TIMEOUT_MS, &doc, &err) != RC_OK)
        return cli_fail(call, &err);
    if (call->json)
        return control_print(doc);
    yyjson_doc_free(doc);
    struct buf out = {0};
    text_put_safe(&out, str_from(call->args[0]), false);
    buf_puts(&out, o->on ? " is pinned: it makes room for no other model\n"
                         : " is no longer pinned: it may be unloaded when another model needs room\n");
    output_buf(&out);
    return 0;
}

const struct cli_command cmd_pin = {
    .name = "pin",
    .group = "Run",
    .synopsis = "MODEL [--off]",
    .summary = "keep a model loaded, whatever else is asked for",
    .details =
        "A pinned model is never unloaded to make room. It is not loaded by this: see arriero help load. The "
        "configuration's own setting counts again after a restart of the daemon.",
    .options_size = sizeof(struct options),
    .defaults = defaults,
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
