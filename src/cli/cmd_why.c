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

/* The kinds of decisions as they read for people; another kind is shown as it is. */
static const struct {
    const char *kind, *text;
} kinds[] = {
    {"load", "was placed"},     {"ready", "became ready"},  {"evict", "was unloaded to make room"},
    {"unload", "was unloaded"}, {"fail", "failed to load"}, {"ladder", "is tried again with less"},
    {"refuse", "was refused"},  {"crash", "crashed"},
};

static void put_decision(struct buf *out, yyjson_val *d, size_t width)
{
    char time[40], duration[24];
    struct str kind = json_str(d, "kind", STR("?")), text = kind;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (str_eq_c(kind, kinds[i].kind))
            text = str_from(kinds[i].text);
    struct str instance = json_str(d, "instance", STR("")), model = json_str(d, "model", instance);
    buf_printf(out, "%s  ", control_time(json_str(d, "at", STR("?")), time, sizeof time));
    text_put_safe(out, model.n ? model : STR("?"), false);
    buf_puts(out, " ");
    text_put_safe(out, text, false);
    double seconds = json_double(d, "seconds", 0);
    if (seconds >= 0.001 && seconds < 1e9)
        buf_printf(out, " after %s", control_duration((uint64_t)(seconds * 1000), duration, sizeof duration));
    buf_puts(out, "\n");
    size_t i, n;
    yyjson_val *r, *reasons = yyjson_obj_get(d, "reasons");
    yyjson_arr_foreach(reasons, i, n, r)
    {
        struct buf line = {0};
        text_put_safe(&line, json_str(r, "text", json_str(r, "code", STR("?"))), false);
        help_fill(out, line.data ? line.data : "", 4, width);
        buf_release(&line);
    }
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
    if (call->json)
        return control_print(doc);
    yyjson_val *decisions = yyjson_obj_get(yyjson_doc_get_root(doc), "decisions"), *d;
    size_t width = output_width(), i, n;
    if (width == 0 || width > 110)
        width = 110;
    yyjson_arr_foreach(decisions, i, n, d)
    {
        if (i)
            buf_puts(&out, "\n");
        put_decision(&out, d, width);
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
    .details = "The newest decision comes first. The history is kept over restarts of the daemon.",
    .options_size = sizeof(struct options),
    .defaults = defaults,
    .options = options,
    .max_args = 1,
    .run = run,
};
