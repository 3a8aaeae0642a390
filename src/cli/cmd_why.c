/* arriero why [MODEL]: what was decided, and the reasons, in sentences. */
#include "cli/control.h"

#include <stddef.h>

struct options {
    uint32_t limit;
};

static const struct cli_option options[] = {
    {"limit", 'n', CLI_U32, offsetof(struct options, limit), "N", "how many decisions (default 10)"},
    {.type = CLI_END},
};

static void defaults(void *options_)
{
    *(struct options *)options_ = (struct options){.limit = 10};
}

/* Nothing was decided about it: is there such a model at all? */
static enum rc check_model(const struct cli_call *call, struct err *err)
{
    struct buf path = {0};
    yyjson_doc *doc = NULL;
    buf_puts(&path, "/models?model=");
    client_escape(&path, str_from(call->args[0]));
    enum rc rc = control_get(call, path.data, &doc, err);
    buf_release(&path);
    yyjson_doc_free(doc);
    return rc;
}

static int run(struct cli_call *call)
{
    const struct options *o = call->options;
    struct buf path = {0}, out = {0};
    yyjson_doc *doc;
    struct err err;
    buf_printf(&path, "/decisions?limit=%u", o->limit);
    if (call->n_args) {
        buf_puts(&path, "&model=");
        client_escape(&path, str_from(call->args[0]));
    }
    enum rc rc = control_get(call, path.data, &doc, &err);
    buf_release(&path);
    if (rc != RC_OK)
        return cli_fail(call, &err);
    yyjson_val *decisions = yyjson_obj_get(yyjson_doc_get_root(doc), "decisions"), *d;
    if (call->n_args && yyjson_arr_size(decisions) == 0 && check_model(call, &err) != RC_OK) {
        yyjson_doc_free(doc);
        return cli_fail(call, &err);
    }
    if (call->json)
        return control_print(doc);
    size_t width = control_width(), i, n;
    yyjson_arr_foreach(decisions, i, n, d)
    {
        if (i)
            buf_puts(&out, "\n");
        control_decision(&out, d, width);
    }
    if (n == 0)
        buf_printf(&out, "Nothing has been decided%s yet.\n", call->n_args ? " about this model" : "");
    output_buf(&out);
    yyjson_doc_free(doc);
    return 0;
}

const struct cli_command cmd_why = {
    .name = "why",
    .group = "Look",
    .synopsis = "[MODEL] [-n N]",
    .summary = "explain the latest decisions: where a model went, and why",
    .details =
        "The newest decision comes first. The history is kept over restarts of the daemon. A name that "
        "no model has, and none had, ends with status 1 and the nearest names.",
    .options_size = sizeof(struct options),
    .defaults = defaults,
    .options = options,
    .max_args = 1,
    .run = run,
};
