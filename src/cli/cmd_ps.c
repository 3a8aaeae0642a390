/* arriero ps: the instances, one line each. */
#include "cli/control.h"

#include "base/mem.h"

static void add_row(struct cli_table *t, yyjson_val *v)
{
    char time[24];
    struct buf cell = {0};
    struct str model = json_str(v, "model", STR("?")), state = json_str(v, "state", STR("?"));
    uint64_t pid = json_u64(v, "pid", 0), port = json_u64(v, "port", 0), busy = json_u64(v, "busy", 0);
    uint64_t waiting = json_u64(v, "waiting", 0), ctx = json_u64(yyjson_obj_get(v, "params"), "ctx", 0);
    cli_table_cell(t, "%.*s", STR_ARG(model));
    double progress = json_double(v, "progress", 0);
    buf_put_str(&cell, state);
    if (str_eq_c(state, "starting") && progress > 0 && progress <= 1)
        buf_printf(&cell, " %.0f%%", progress * 100);
    if (json_bool(v, "pinned", false))
        buf_puts(&cell, ", pinned");
    cli_table_cell(t, "%s", cell.data);
    cli_table_cell(t, pid ? "%llu" : "-", (unsigned long long)pid);
    cli_table_cell(t, port ? "%llu" : "-", (unsigned long long)port);
    buf_clear(&cell);
    control_devices(v, &cell);
    cli_table_cell(t, "%s", cell.data);
    cli_table_cell(t, ctx ? "%llu" : "-", (unsigned long long)ctx);
    uint64_t slots = json_u64(v, "slots", 0);
    buf_clear(&cell);
    buf_printf(&cell, slots ? "%llu/%llu" : "%llu", (unsigned long long)busy, (unsigned long long)slots);
    if (waiting)
        buf_printf(&cell, " (+%llu)", (unsigned long long)waiting);
    if (!str_eq_c(json_str(v, "breaker", STR("closed")), "closed"))
        buf_puts(&cell, " errors");
    cli_table_cell(t, "%s", cell.data);
    if (busy || !str_eq_c(state, "ready"))
        cli_table_cell(t, "-");
    else
        cli_table_cell(t, "%s", control_duration(json_u64(v, "idle_ms", 0), time, sizeof time));
    buf_release(&cell);
}

/* A failure's cause is worth more than a column. */
static void put_failures(yyjson_val *instances)
{
    size_t i, n;
    yyjson_val *v;
    struct buf out = {0};
    yyjson_arr_foreach(instances, i, n, v)
    {
        yyjson_val *e = yyjson_obj_get(v, "last_error");
        struct str message = json_str(e, "message", STR("")), hint = json_str(e, "hint", STR(""));
        if (!message.n)
            continue;
        buf_puts(&out, "\n");
        text_put_safe(&out, json_str(v, "model", STR("?")), false);
        buf_puts(&out, ": ");
        text_put_safe(&out, message, false);
        if (hint.n) {
            buf_puts(&out, "\n  hint: ");
            text_put_safe(&out, hint, false);
        }
        buf_puts(&out, "\n");
    }
    output_buf(&out);
}

static int run(struct cli_call *call)
{
    static const char *const headings[] = {"MODEL",   "STATE",   "PID",  "PORT",
                                           "DEVICES", "CONTEXT", "BUSY", "IDLE"};
    yyjson_doc *doc;
    struct err err;
    size_t i, n;
    yyjson_val *v;
    if (control_get(call, "/instances", &doc, &err) != RC_OK)
        return cli_fail(call, &err);
    if (call->json)
        return control_print(doc);
    yyjson_val *instances = yyjson_obj_get(yyjson_doc_get_root(doc), "instances");
    if (yyjson_arr_size(instances) == 0) {
        puts("Nothing is loaded. A request loads its model, and so does: arriero load MODEL");
    } else {
        struct cli_table *t = cli_table_new(headings, TABLE_COUNT(headings));
        yyjson_arr_foreach(instances, i, n, v) add_row(t, v);
        cli_table_print(t);
        put_failures(instances);
    }
    yyjson_doc_free(doc);
    return 0;
}

const struct cli_command cmd_ps = {
    .name = "ps",
    .group = "Look",
    .synopsis = "",
    .summary = "list the loaded models: state, devices, memory, use",
    .details =
        "DEVICES is the memory that was measured on each device after the load, or the prediction until "
        "then. "
        "BUSY counts running requests and slots, as 2/4, with those that wait in line as (+N), and says "
        "errors "
        "while an instance that answers with nothing else is left alone. IDLE is the time since the "
        "last request.",
    .run = run,
};
