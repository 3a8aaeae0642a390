/* arriero logs MODEL: the end of what a model's server wrote. Layer cli; main thread. */
#include "cli/control.h"

#include "base/mem.h"

#include <stddef.h>
#include <stdio.h>

struct options {
    uint32_t lines;
    bool follow;
};

static const struct cli_option options[] = {
    {"lines", 'n', CLI_U32, offsetof(struct options, lines), "N",
     "how many lines (default 50; 0 = all that is kept)"},
    {"follow", 'f', CLI_FLAG, offsetof(struct options, follow), NULL,
     "go on with what is written from now on, until Ctrl-C"},
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

static void put_log(struct str log, uint32_t lines)
{
    struct buf out = {0};
    log = last_lines(log, lines);
    text_put_safe(&out, log, true);
    if (log.n && !str_ends(log, "\n"))
        buf_puts(&out, "\n");
    output_buf(&out);
}

/* First the end of what was written before, then line by line. */
static bool on_event(void *arg, struct str event, struct str data)
{
    const struct cli_call *call = arg;
    const struct options *o = call->options;
    yyjson_doc *doc;
    if (json_parse(data, "an event", &doc, NULL) != RC_OK)
        return true;
    yyjson_val *root = yyjson_doc_get_root(doc);
    if (call->json)
        printf("%.*s\n", STR_ARG(data));
    else if (str_eq_c(event, "log"))
        put_log(json_str(root, "log", STR("")), o->lines);
    else if (str_eq_c(event, "line"))
        put_log(json_str(root, "line", STR("")), 0);
    yyjson_doc_free(doc);
    return true;
}

static int run(struct cli_call *call)
{
    const struct options *o = call->options;
    struct buf path = {0};
    yyjson_doc *doc;
    struct err err;
    buf_puts(&path, "/logs?id=");
    client_escape(&path, str_from(call->args[0]));
    if (o->follow) {
        buf_puts(&path, "&follow=1");
        int status = control_follow(call, path.data, on_event, call);
        buf_release(&path);
        return status;
    }
    enum rc rc = control_get(call, path.data, &doc, &err);
    buf_release(&path);
    if (rc != RC_OK)
        return cli_fail(call, &err);
    if (call->json)
        return control_print(doc);
    put_log(json_str(yyjson_doc_get_root(doc), "log", STR("")), o->lines);
    yyjson_doc_free(doc);
    return 0;
}

const struct cli_command cmd_logs = {
    .name = "logs",
    .group = "Look",
    .synopsis = "MODEL [-n N] [-f]",
    .summary = "show what a model's server wrote",
    .details =
        "MODEL may also be the id of an instance, as arriero ps --json has it. With --follow a model that is "
        "not loaded yet is waited for, and its log goes on over reloads; with --json each line is an object.",
    .options_size = sizeof(struct options),
    .defaults = defaults,
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
