/* arriero plan MODEL --live: would the daemon load it now, where, who leaves for it, in how long. Layer cli;
 * main thread; asks the daemon, which knows what is loaded and who waits; starts nothing. */
#include "cli/plan_live.h"

#include "base/mem.h"
#include "cli/control.h"
#include "cli/plan_show.h"

#include <string.h>

static const char *said(yyjson_val *o, const char *key, char *out, size_t cap)
{
    struct str s = json_str(o, key, STR("?"));
    snprintf(out, cap, "%.*s", (int)(s.n < cap ? s.n : cap - 1), s.p);
    return out;
}

static const char *seconds(double s, char *out, size_t cap)
{
    bool sane = s >= 0 && s < 1e9;
    return control_duration(sane ? (uint64_t)(s * 1000 + 0.5) : 0, out, cap);
}

/* "b, c" */
static void put_models(struct buf *out, yyjson_val *list)
{
    size_t i, n;
    yyjson_val *v;
    char name[200];
    yyjson_arr_foreach(list, i, n, v)
        buf_printf(out, "%s%s", i ? ", " : "", said(v, "model", name, sizeof name));
}

/* The first sentence: what would happen. */
static void put_answer(struct buf *out, const char *model, yyjson_val *root)
{
    struct buf line = {0};
    char why[600];
    yyjson_val *live = yyjson_obj_get(root, "live"), *evicts = yyjson_obj_get(live, "evicts");
    struct str answer = json_str(live, "answer", STR("?"));
    buf_printf(&line, "%s ", model);
    if (str_eq_c(answer, "ready")) {
        buf_puts(&line, "is loaded and answers.");
    } else if (str_eq_c(answer, "loading")) {
        buf_puts(&line, "is being loaded.");
    } else if (str_eq_c(answer, "now") && yyjson_arr_size(evicts) == 0) {
        buf_puts(&line, "would be loaded at once; nobody has to leave for it.");
    } else if (str_eq_c(answer, "now")) {
        buf_puts(&line, "would be loaded now, in the place of ");
        put_models(&line, evicts);
        buf_puts(&line, ".");
    } else {
        buf_printf(&line, "would %s: %s.", str_eq_c(answer, "later") ? "have to wait" : "be refused",
                   said(yyjson_obj_get(root, "error"), "message", why, sizeof why));
    }
    plan_show_wrapped(out, "", line.data);
    buf_release(&line);
}

static void put_parts(struct buf *out, yyjson_val *root)
{
    struct plan_part parts[PLAN_MAX_DEVICES + 1];
    size_t i, n, count = 0;
    uint64_t host_free = 0;
    yyjson_val *d, *devices = yyjson_obj_get(root, "devices");
    yyjson_arr_foreach(devices, i, n, d)
    {
        if (count == TABLE_COUNT(parts))
            break;
        bool host = str_eq_c(json_str(d, "kind", STR("")), "host");
        struct plan_part *p = &parts[count++];
        *p = (struct plan_part){.kind = host ? PLAN_HOST : PLAN_GPU,
                                .free_bytes = json_u64(d, "free_bytes", 0),
                                .model_bytes = json_u64(d, "model_bytes", 0),
                                .context_bytes = json_u64(d, "context_bytes", 0),
                                .compute_bytes = json_u64(d, "compute_bytes", 0),
                                .overhead_bytes = json_u64(d, "overhead_bytes", 0)};
        (void)said(d, "name", p->name, sizeof p->name);
        host_free = host ? p->free_bytes : host_free;
    }
    if (count == 0)
        return;
    buf_puts(out, "\n");
    plan_show_parts(out, parts, count, host_free);
}

static void put_evicted(struct buf *out, yyjson_val *evicts)
{
    size_t i, n;
    yyjson_val *v;
    yyjson_arr_foreach(evicts, i, n, v)
    {
        struct buf line = {0};
        char name[200], size[24], time[24], back[24];
        unsigned busy = (unsigned)json_u64(v, "busy", 0);
        buf_printf(&line, "%s gives %s; ", said(v, "model", name, sizeof name),
                   str_human_bytes(json_u64(v, "bytes", 0), size, sizeof size));
        if (busy > 0)
            buf_printf(&line, "%u request%s run there now", busy, busy == 1 ? "" : "s");
        else if (str_eq_c(json_str(v, "state", STR("")), "ready"))
            buf_printf(&line, "idle for %s", control_duration(json_u64(v, "idle_ms", 0), time, sizeof time));
        else
            buf_printf(&line, "%s now", said(v, "state", time, sizeof time));
        buf_printf(&line, "; loading it again takes %s",
                   seconds(json_double(v, "reload_seconds", 0), back, sizeof back));
        if (i == 0)
            buf_puts(out, "\nLeaves\n");
        plan_show_wrapped(out, "  ", line.data);
        buf_release(&line);
    }
}

static void put_times(struct buf *out, yyjson_val *live)
{
    struct buf line = {0};
    char a[24], b[24];
    yyjson_val *wait = yyjson_obj_get(live, "wait_seconds"), *ready = yyjson_obj_get(live, "ready_seconds");
    double waits = yyjson_get_num(wait), drain = json_double(live, "drain_seconds", 0);
    unsigned position = (unsigned)json_u64(live, "position", 0);
    if (yyjson_is_null(ready))
        buf_puts(&line, "When it would be ready nobody can tell (limits.patience is 0)");
    else
        buf_printf(&line, "Ready in about %s", seconds(yyjson_get_num(ready), a, sizeof a));
    buf_printf(&line, ": ");
    if (position > 0 && !yyjson_is_null(wait))
        buf_printf(&line, "its turn comes within %s, ", seconds(waits, a, sizeof a));
    if (position > 1)
        buf_printf(&line, "behind %u other%s, ", position - 1, position == 2 ? "" : "s");
    if (drain > 0)
        buf_printf(&line, "%s until requests under way have ended, ", seconds(drain, a, sizeof a));
    buf_printf(&line, "%s to load, with %.0f %% of the file in memory already.",
               seconds(json_double(live, "load_seconds", 0), b, sizeof b),
               100 * json_double(live, "file_cached", 0));
    buf_puts(out, "\n");
    plan_show_wrapped(out, "", line.data);
    buf_release(&line);
}

static void put_reasons(struct buf *out, yyjson_val *root, bool never)
{
    size_t i, n;
    yyjson_val *v, *reasons = yyjson_obj_get(root, "reasons");
    char text[300];
    yyjson_arr_foreach(reasons, i, n, v)
    {
        if (i == 0)
            buf_puts(out, never ? "\nTried\n" : "\nWhy there\n");
        plan_show_wrapped(out, "  ", said(v, "text", text, sizeof text));
    }
}

int plan_live_run(struct cli_call *call, yyjson_mut_doc *question)
{
    yyjson_doc *doc;
    struct err err;
    if (control_post(call, "/plan", question, CLIENT_TIMEOUT_MS, &doc, &err) != RC_OK)
        return cli_fail(call, &err);
    yyjson_val *root = yyjson_doc_get_root(doc), *live = yyjson_obj_get(root, "live");
    struct str answer = json_str(live, "answer", STR("?"));
    bool never = str_eq_c(answer, "never"), there = str_eq_c(answer, "ready");
    if (call->json) {
        (void)control_print(doc);
        return never;
    }
    struct buf text = {0}, safe = {0};
    put_answer(&text, call->args[0], root);
    if (!never)
        put_parts(&text, root);
    put_evicted(&text, yyjson_obj_get(live, "evicts"));
    if (!never && !there)
        put_times(&text, live);
    put_reasons(&text, root, never);
    text_put_safe(&safe, buf_str(&text), true); /* names come from files */
    buf_release(&text);
    output_buf(&safe);
    yyjson_doc_free(doc);
    return never;
}
