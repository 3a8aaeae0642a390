/* arriero logs MODEL: the end of what a model's server wrote. Layer cli; main thread. */
#include "cli/control.h"

#include "base/mem.h"

#include <stddef.h>

struct options {
    uint32_t lines;
};

static const struct cli_option options[] = {
    {"lines", 'n', CLI_U32, offsetof(struct options, lines), "N",
     "how many lines (default 50; 0 = all that is kept)"},
    {.type = CLI_END},
};

static void defaults(void *options_)
{
    *(struct options *)options_ = (struct options){.lines = 50};
}

/* The last `lines` lines of text; 0 = all. */
static struct str last_lines(struct str text, uint32_t lines)
{
    size_t at = text.n;
    if (lines == 0)
        return text;
    if (at && text.p[at - 1] == '\n')
        at--;
    for (; at > 0; at--)
        if (text.p[at - 1] == '\n' && --lines == 0)
            break;
    return (struct str){text.p + at, text.n - at};
}

static int run(struct cli_call *call)
{
    const struct options *o = call->options;
    struct buf path = {0}, out = {0};
    yyjson_doc *doc;
    struct err err;
    buf_puts(&path, "/logs?id=");
    client_escape(&path, str_from(call->args[0]));
    enum rc rc = control_get(call, path.data, &doc, &err);
    buf_release(&path);
    if (rc != RC_OK)
        return cli_fail(call, &err);
    if (call->json)
        return control_print(doc);
    struct str log = last_lines(json_str(yyjson_doc_get_root(doc), "log", STR("")), o->lines);
    text_put_safe(&out, log, true);
    if (log.n && !str_ends(log, "\n"))
        buf_puts(&out, "\n");
    output_buf(&out);
    yyjson_doc_free(doc);
    return 0;
}

const struct cli_command cmd_logs = {
    .name = "logs",
    .group = "Look",
    .synopsis = "MODEL [-n N]",
    .summary = "show what a model's server wrote",
    .details = "MODEL may also be the id of an instance, as arriero ps --json has it.",
    .options_size = sizeof(struct options),
    .defaults = defaults,
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
