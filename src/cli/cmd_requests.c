/* arriero requests: the request log, one request with its texts, sums. Layer cli; main thread. */
#include "cli/control.h"

#include "base/mem.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct options {
    const char *model, *key, *outcome, *since, *by;
    uint32_t limit;
    bool failed;
};

static const struct cli_option options[] = {
    {"model", 'm', CLI_STR, offsetof(struct options, model), "MODEL", "only those for this model", NULL},
    {"key", 'k', CLI_STR, offsetof(struct options, key), "KEY", "only those of this key (id or name)", NULL},
    {"outcome", 0, CLI_STR, offsetof(struct options, outcome), "WORD",
     "only those that ended so: ok, client_closed, truncated, upstream_error, refused, timeout", NULL},
    {"failed", 0, CLI_FLAG, offsetof(struct options, failed), NULL, "only those that did not end well", NULL},
    {"since", 's', CLI_STR, offsetof(struct options, since), "TIME", "of the last 30m, 24h, 7d …", NULL},
    {"limit", 'n', CLI_U32, offsetof(struct options, limit), "N", "how many (default 20)", NULL},
    {"by", 0, CLI_STR, offsetof(struct options, by), "WHAT", "sum: by key (the default), model or both",
     NULL},
    {.type = CLI_END},
};

static void defaults(void *options_)
{
    *(struct options *)options_ = (struct options){.limit = 20};
}

static void add_query(struct buf *path, const char *name, const char *value)
{
    if (!value)
        return;
    buf_printf(path, "%c%s=", strchr(path->data, '?') ? '&' : '?', name);
    client_escape(path, str_from(value));
}

static enum rc get(const struct cli_call *call, struct buf *path, yyjson_doc **ret_doc, struct err *err)
{
    const struct options *o = call->options;
    char limit[16];
    snprintf(limit, sizeof limit, "%u", o->limit);
    add_query(path, "model", o->model);
    add_query(path, "key", o->key);
    add_query(path, "outcome", o->outcome);
    add_query(path, "since", o->since);
    add_query(path, "by", o->by);
    add_query(path, "failed", o->failed ? "1" : NULL);
    add_query(path, "limit", limit);
    enum rc rc = control_get(call, path->data, ret_doc, err);
    buf_release(path);
    return rc;
}

/* A number, or "-" where it is not known. */
static void number_cell(struct cli_table *t, yyjson_val *o, const char *name, double scale, int decimals)
{
    yyjson_val *v = yyjson_obj_get(o, name);
    char text[32];
    snprintf(text, sizeof text, "-");
    if (yyjson_is_num(v))
        snprintf(text, sizeof text, "%.*f", decimals, yyjson_get_num(v) / scale);
    cli_table_cell(t, "%s", text);
}

static void text_cell(struct cli_table *t, yyjson_val *o, const char *name)
{
    struct str s = json_str(o, name, STR(""));
    cli_table_cell(t, "%.*s", s.n ? (int)s.n : 1, s.n ? s.p : "-");
}

/* ---- the list ---- */

static int list(struct cli_call *call)
{
    static const char *const headings[] = {"TIME", "ID",       "MODEL",    "KEY",   "ENDED",  "READ",
                                           "NEW",  "QUEUE MS", "FIRST MS", "TOK/S", "SECONDS"};
    struct buf path = {0};
    yyjson_doc *doc;
    yyjson_val *r;
    struct err err;
    size_t i, n;
    buf_puts(&path, "/requests");
    if (get(call, &path, &doc, &err) != RC_OK)
        return cli_fail(call, &err);
    if (call->json)
        return control_print(doc);
    yyjson_val *rows = yyjson_obj_get(yyjson_doc_get_root(doc), "requests");
    if (yyjson_arr_size(rows) == 0) {
        puts("No such request was recorded.");
        yyjson_doc_free(doc);
        return 0;
    }
    struct cli_table *t = cli_table_new(headings, TABLE_COUNT(headings));
    yyjson_arr_foreach(rows, i, n, r)
    {
        char at[40];
        cli_table_cell(t, "%s", control_time(json_str(r, "at", STR("")), at, sizeof at));
        text_cell(t, r, "request_id");
        text_cell(t, r, "model");
        text_cell(t, r, "key");
        text_cell(t, r, "outcome");
        number_cell(t, r, "prompt_tokens", 1, 0);
        number_cell(t, r, "completion_tokens", 1, 0);
        number_cell(t, r, "wait_us", 1000, 0);
        number_cell(t, r, "ttfb_us", 1000, 0);
        number_cell(t, r, "decode_tps", 1, 1);
        number_cell(t, r, "total_us", 1e6, 1);
    }
    cli_table_print(t);
    yyjson_doc_free(doc);
    return 0;
}

/* ---- one ---- */

static void put_text(struct buf *out, const char *heading, struct str text)
{
    buf_printf(out, "\n%s\n", heading);
    if (text.n)
        text_put_safe(out, text, true);
    else
        buf_puts(out, "(nothing)");
    buf_puts(out, "\n");
}

static int show(struct cli_call *call)
{
    struct buf path = {0}, out = {0};
    yyjson_doc *doc;
    yyjson_val *key, *v, *c;
    struct err err;
    size_t i, n;
    buf_puts(&path, "/requests/");
    client_escape(&path, str_from(call->args[1]));
    if (get(call, &path, &doc, &err) != RC_OK)
        return cli_fail(call, &err);
    if (call->json)
        return control_print(doc);
    yyjson_val *root = yyjson_doc_get_root(doc), *captures = yyjson_obj_get(root, "captures");
    yyjson_obj_foreach(yyjson_obj_get(root, "request"), i, n, key, v)
    {
        buf_printf(&out, "%-18s", yyjson_get_str(key));
        if (yyjson_is_str(v))
            text_put_safe(&out, (struct str){yyjson_get_str(v), yyjson_get_len(v)}, false);
        else if (yyjson_is_bool(v))
            buf_puts(&out, yyjson_get_bool(v) ? "yes" : "no");
        else if (yyjson_is_real(v))
            buf_printf(&out, "%.2f", yyjson_get_real(v));
        else if (yyjson_is_num(v))
            buf_printf(&out, "%llu", (unsigned long long)yyjson_get_uint(v));
        else
            buf_puts(&out, "-");
        buf_puts(&out, "\n");
    }
    yyjson_arr_foreach(captures, i, n, c)
    {
        put_text(&out, "Asked:", json_str(c, "request", STR("")));
        put_text(&out, "Answered:", json_str(c, "response", STR("")));
    }
    if (n == 0)
        buf_puts(&out, "\nIts texts were not kept (arriero key add --captures keeps those of a key).\n");
    output_buf(&out);
    yyjson_doc_free(doc);
    return 0;
}

/* ---- sums ---- */

static int sum(struct cli_call *call)
{
    static const char *const headings[] = {"KEY",    "MODEL", "REQUESTS", "OK",    "READ",
                                           "CACHED", "NEW",   "FIRST MS", "TOK/S", "SECONDS"};
    struct buf path = {0};
    yyjson_doc *doc;
    yyjson_val *r;
    struct err err;
    size_t i, n;
    buf_puts(&path, "/usage");
    if (get(call, &path, &doc, &err) != RC_OK)
        return cli_fail(call, &err);
    if (call->json)
        return control_print(doc);
    struct cli_table *t = cli_table_new(headings, TABLE_COUNT(headings));
    yyjson_arr_foreach(yyjson_obj_get(yyjson_doc_get_root(doc), "usage"), i, n, r)
    {
        text_cell(t, r, "key");
        text_cell(t, r, "model");
        number_cell(t, r, "requests", 1, 0);
        number_cell(t, r, "ok", 1, 0);
        number_cell(t, r, "prompt_tokens", 1, 0);
        number_cell(t, r, "cached_tokens", 1, 0);
        number_cell(t, r, "completion_tokens", 1, 0);
        number_cell(t, r, "ttft_ms", 1, 0);
        number_cell(t, r, "decode_tps", 1, 1);
        number_cell(t, r, "busy_ms", 1000, 1);
    }
    cli_table_print(t);
    yyjson_doc_free(doc);
    return 0;
}

static const struct {
    const char *verb;
    size_t args;
    int (*run)(struct cli_call *call);
} verbs[] = {{"list", 1, list}, {"show", 2, show}, {"sum", 1, sum}};

static int run(struct cli_call *call)
{
    struct err err;
    if (call->n_args == 0)
        return list(call);
    for (size_t i = 0; i < TABLE_COUNT(verbs); i++)
        if (strcmp(call->args[0], verbs[i].verb) == 0 && call->n_args == verbs[i].args)
            return verbs[i].run(call);
    err.code = err_set(&err, RC_INVALID, "\"%s\" is nothing to do with requests", call->args[0]);
    err_hint(&err, "arriero requests, arriero requests show ID, or arriero requests sum");
    return cli_usage(call, &err);
}

const struct cli_command cmd_requests = {
    .name = "requests",
    .group = "Look",
    .synopsis = "[list | show ID | sum]",
    .summary = "list the latest requests: who asked what model, tokens, times",
    .details = "list shows the newest first: tokens that were read and newly written, the time in the queue, "
               "to the first "
               "byte and in all, tokens a second. show tells everything of one request, which is named by "
               "what its answer "
               "has in X-Request-Id, and its texts if its key was made with --captures. sum adds up the "
               "requests of a "
               "time by key, by model or by both.",
    .options_size = sizeof(struct options),
    .defaults = defaults,
    .options = options,
    .max_args = 2,
    .run = run,
};
