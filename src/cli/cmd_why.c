/* arriero why [MODEL]: what was decided, and the reasons, in sentences. */
#include "cli/control.h"

#include "base/mem.h"

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

/* The same again, but for when it was. */
static bool is_repeat(yyjson_val *a, yyjson_val *b)
{
    static const char *const members[] = {"kind", "model"};
    for (size_t i = 0; i < TABLE_COUNT(members); i++)
        if (!str_eq(json_str(a, members[i], STR("")), json_str(b, members[i], STR(""))))
            return false;
    return yyjson_equals(yyjson_obj_get(a, "reasons"), yyjson_obj_get(b, "reasons")) &&
           json_double(a, "seconds", 0) == 0 && json_double(b, "seconds", 0) == 0;
}

/* From old to new; what happened several times in a row is told once, with the time of the last. */
static void put_decisions(yyjson_val *decisions, struct buf *out)
{
    size_t width = control_width(), times = 1;
    for (size_t i = yyjson_arr_size(decisions); i-- > 0;) {
        yyjson_val *d = yyjson_arr_get(decisions, i);
        if (i > 0 && is_repeat(d, yyjson_arr_get(decisions, i - 1))) {
            times++;
            continue;
        }
        buf_puts(out, "\n");
        control_decision(out, d, width);
        if (times > 1)
            buf_printf(out, "    (%zu times in a row)\n", times);
        times = 1;
    }
}

static int run(struct cli_call *call)
{
    const struct options *o = call->options;
    struct buf path = {0}, out = {0}, text = {0};
    yyjson_doc *doc;
    struct err err;
    buf_printf(&path, "/why?limit=%u", o->limit);
    if (call->n_args) {
        buf_puts(&path, "&model=");
        client_escape(&path, str_from(call->args[0]));
    }
    enum rc rc = control_get(call, path.data, &doc, &err);
    buf_release(&path);
    if (rc != RC_OK)
        return cli_fail(call, &err);
    if (call->json)
        return control_print(doc);
    yyjson_val *root = yyjson_doc_get_root(doc);
    text_put_safe(&text, json_str(root, "summary", STR("?")), false);
    help_fill(&out, text.data ? text.data : "", 0, control_width());
    put_decisions(yyjson_obj_get(root, "decisions"), &out);
    buf_release(&text);
    output_buf(&out);
    yyjson_doc_free(doc);
    return 0;
}

const struct cli_command cmd_why = {
    .name = "why",
    .group = "Look",
    .synopsis = "[MODEL] [-n N]",
    .summary = "explain where a model is, and why, and what was decided before",
    .details = "First a paragraph on how things stand: where the model is or why it is not loaded, what it "
               "displaced or "
               "what displaced it, what failed and what was tried. Then the latest decisions with their "
               "reasons, from old "
               "to new. Without MODEL it tells of all; a device, as CUDA0 or Host, may be named too. The "
               "history is kept "
               "over restarts of the daemon. A name that no model has, and none had, ends with status 1 and "
               "the nearest "
               "names.",
    .options_size = sizeof(struct options),
    .defaults = defaults,
    .options = options,
    .max_args = 1,
    .run = run,
};
