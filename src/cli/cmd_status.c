/* arriero status: the daemon in a few lines. Layer cli; main thread. */
#include "cli/control.h"

#include "base/mem.h"

#include <stdio.h>

static void put_line(struct buf *out, const char *name, struct str value)
{
    buf_printf(out, "%-10s", name);
    text_put_safe(out, value, false);
    buf_puts(out, "\n");
}

static void put_head(struct buf *out, yyjson_val *status)
{
    char time[24];
    size_t i, n;
    yyjson_val *v, *listen = yyjson_obj_get(status, "listen");
    struct buf line = {0};
    buf_printf(&line, "arriero %.*s", STR_ARG(json_str(status, "version", STR("?"))));
    if (json_u64(status, "pid", 0))
        buf_printf(&line, ", pid %llu", (unsigned long long)json_u64(status, "pid", 0));
    if (yyjson_obj_get(status, "uptime_ms"))
        buf_printf(&line, ", up %s", control_duration(json_u64(status, "uptime_ms", 0), time, sizeof time));
    put_line(out, "daemon", buf_str(&line));
    yyjson_arr_foreach(listen, i, n, v)
    {
        buf_clear(&line);
        const char *at = yyjson_is_str(v) ? yyjson_get_str(v) : "?";
        buf_printf(&line, "%s%s/v1", str_starts(str_from(at), "https://") ? "" : "http://", at);
        put_line(out, i ? "" : "address", buf_str(&line));
    }
    buf_release(&line);
}

/* The number of models, and of instances by state: "12 known; 2 ready, 1 failed". */
static void put_models(struct buf *out, yyjson_val *status, yyjson_val *instances)
{
    static const char *const states[] = {"planned", "starting", "ready", "draining", "stopped", "failed"};
    struct buf line = {0};
    size_t i, n, shown = 0;
    yyjson_val *v;
    buf_printf(&line, "%llu known; ", (unsigned long long)json_u64(status, "models", 0));
    for (size_t s = 0; s < TABLE_COUNT(states); s++) {
        unsigned count = 0;
        yyjson_arr_foreach(instances, i, n, v) count += str_eq_c(json_str(v, "state", STR("")), states[s]);
        if (count)
            buf_printf(&line, "%s%u %s", shown++ ? ", " : "", count, states[s]);
    }
    if (!shown)
        buf_puts(&line, "none loaded");
    put_line(out, "models", buf_str(&line));
    buf_release(&line);
}

static void put_instances(struct buf *out, yyjson_val *instances)
{
    size_t i, n, shown = 0;
    yyjson_val *v;
    struct buf line = {0};
    yyjson_arr_foreach(instances, i, n, v)
    {
        struct str state = json_str(v, "state", STR("?"));
        if (str_eq_c(state, "stopped"))
            continue;
        buf_clear(&line);
        buf_printf(&line, "%.*s %.*s", STR_ARG(json_str(v, "model", STR("?"))), STR_ARG(state));
        if (!str_eq_c(state, "failed")) {
            buf_puts(&line, ": ");
            control_devices(v, &line);
            control_learned(v, &line);
            buf_printf(&line, ", %llu running", (unsigned long long)json_u64(v, "busy", 0));
            if (json_u64(v, "slots", 0))
                buf_printf(&line, " on %llu slots", (unsigned long long)json_u64(v, "slots", 0));
        }
        if (json_u64(v, "waiting", 0))
            buf_printf(&line, ", %llu waiting", (unsigned long long)json_u64(v, "waiting", 0));
        put_line(out, shown++ ? "" : "loaded", buf_str(&line));
    }
    buf_release(&line);
}

static void put_memory_line(struct buf *out, const char *heading, struct str device, uint64_t free_bytes,
                            uint64_t total_bytes)
{
    char free_[24], total[24];
    struct buf line = {0};
    buf_printf(&line, "%.*s: %s of %s free", STR_ARG(device),
               str_human_bytes(free_bytes, free_, sizeof free_),
               str_human_bytes(total_bytes, total, sizeof total));
    put_line(out, heading, buf_str(&line));
    buf_release(&line);
}

static void put_memory(struct buf *out, yyjson_val *machine)
{
    size_t i, n, shown = 0;
    yyjson_val *v, *host = yyjson_obj_get(machine, "host");
    yyjson_arr_foreach(yyjson_obj_get(machine, "gpus"), i, n, v)
    {
        if (!json_u64(v, "memory_total_bytes", 0))
            continue;
        put_memory_line(out, shown++ ? "" : "memory", json_str(v, "device", STR("?")),
                        json_u64(v, "memory_free_bytes", 0), json_u64(v, "memory_total_bytes", 0));
    }
    if (json_u64(host, "usable_total_bytes", 0))
        put_memory_line(out, shown ? "" : "memory", STR("Host"), json_u64(host, "usable_free_bytes", 0),
                        json_u64(host, "usable_total_bytes", 0));
}

/* What others have, where that matters: something is short, or the host is pressed. */
static void put_others(struct buf *out, yyjson_val *memory)
{
    char missing[24], kept[24], foreign[24];
    size_t i, n, k, m, shown = 0;
    yyjson_val *v, *o;
    struct str pressure = json_str(memory, "pressure", STR("calm"));
    struct buf line = {0};
    yyjson_arr_foreach(yyjson_obj_get(memory, "devices"), i, n, v)
    {
        if (!json_u64(v, "short_bytes", 0))
            continue;
        buf_clear(&line);
        buf_printf(&line, "%.*s: %s short of the %s kept free; others have %s",
                   STR_ARG(json_str(v, "name", STR("?"))),
                   str_human_bytes(json_u64(v, "short_bytes", 0), missing, sizeof missing),
                   str_human_bytes(json_u64(v, "kept_free_bytes", 0), kept, sizeof kept),
                   str_human_bytes(json_u64(v, "foreign_bytes", 0), foreign, sizeof foreign));
        yyjson_arr_foreach(yyjson_obj_get(v, "others"), k, m, o)
            buf_printf(&line, "%s%.*s (%llu) %s", k ? ", " : ": ", STR_ARG(json_str(o, "name", STR("?"))),
                       (unsigned long long)json_u64(o, "pid", 0),
                       str_human_bytes(json_u64(o, "bytes", 0), foreign, sizeof foreign));
        put_line(out, shown++ ? "" : "short", buf_str(&line));
    }
    if (!str_eq_c(pressure, "calm"))
        put_line(out, "pressure", pressure);
    buf_release(&line);
}

static void put_spent(struct buf *line, yyjson_val *v, const char *what, double spent)
{
    char limit_name[24];
    (void)snprintf(limit_name, sizeof limit_name, "limit_%s", what);
    double limit = json_double(v, limit_name, 0);
    if (limit > 0)
        buf_printf(line, ", %.4g of %.4g spent this %s", spent, limit, what);
    else if (spent > 0)
        buf_printf(line, ", %.4g spent this %s", spent, what);
}

/* Servers elsewhere: whether they answer, and what was spent there. */
static void put_upstreams(struct buf *out, yyjson_val *upstreams)
{
    size_t i, n;
    yyjson_val *v;
    struct buf line = {0};
    yyjson_arr_foreach(upstreams, i, n, v)
    {
        struct str breaker = json_str(v, "breaker", STR("closed"));
        buf_clear(&line);
        buf_printf(&line, "%.*s %.*s", STR_ARG(json_str(v, "name", STR("?"))),
                   STR_ARG(json_str(v, "state", STR("?"))));
        if (!str_eq_c(breaker, "closed"))
            buf_printf(&line, ", breaker %.*s", STR_ARG(breaker));
        buf_printf(&line, ", %llu running, %llu requests", (unsigned long long)json_u64(v, "running", 0),
                   (unsigned long long)json_u64(v, "requests", 0));
        put_spent(&line, v, "day", json_double(v, "spent_day", 0));
        put_spent(&line, v, "month", json_double(v, "spent_month", 0));
        put_line(out, i ? "" : "upstreams", buf_str(&line));
    }
    buf_release(&line);
}

/* What is not as it should be, in the daemon's own words. */
static void put_warnings(struct buf *out, yyjson_val *status)
{
    size_t i, n;
    yyjson_val *v;
    struct str history = json_str(yyjson_obj_get(status, "history"), "message", STR(""));
    if (history.n)
        put_line(out, "history", history);
    yyjson_arr_foreach(yyjson_obj_get(status, "warnings"), i, n, v)
    {
        if (yyjson_is_str(v))
            put_line(out, i ? "" : "warning", (struct str){yyjson_get_str(v), yyjson_get_len(v)});
    }
}

static int run(struct cli_call *call)
{
    yyjson_doc *doc;
    struct err err;
    struct buf out = {0};
    if (control_get(call, "/status", &doc, &err) != RC_OK)
        return cli_fail(call, &err);
    if (call->json)
        return control_print(doc);
    yyjson_val *status = yyjson_doc_get_root(doc), *instances = yyjson_obj_get(status, "instances");
    put_head(&out, status);
    put_models(&out, status, instances);
    put_instances(&out, instances);
    put_memory(&out, yyjson_obj_get(status, "machine"));
    put_others(&out, yyjson_obj_get(status, "memory"));
    put_upstreams(&out, yyjson_obj_get(status, "upstreams"));
    put_warnings(&out, status);
    output_buf(&out);
    yyjson_doc_free(doc);
    return 0;
}

const struct cli_command cmd_status = {
    .name = "status",
    .group = "Look",
    .synopsis = "",
    .summary = "say how the daemon is: address, models, memory",
    .details = "Ends with 1 when no daemon answers, so that scripts can wait for one.",
    .run = run,
};
