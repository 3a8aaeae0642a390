/* arriero ps: the instances, one line each, and the upstreams. Layer cli; main thread. */
#include "cli/control.h"

#include "base/mem.h"

/* "1/4 (+2) errors": under way, of how many (0 = no bound), waiting, and whether it is left alone. */
static void add_busy(struct cli_table *t, yyjson_val *v, const char *busy_name, const char *bound_name)
{
    struct buf cell = {0};
    uint64_t busy = json_u64(v, busy_name, 0), bound = json_u64(v, bound_name, 0);
    uint64_t waiting = json_u64(v, "waiting", 0);
    buf_printf(&cell, bound ? "%llu/%llu" : "%llu", (unsigned long long)busy, (unsigned long long)bound);
    if (waiting)
        buf_printf(&cell, " (+%llu)", (unsigned long long)waiting);
    if (!str_eq_c(json_str(v, "breaker", STR("closed")), "closed"))
        buf_puts(&cell, " errors");
    yyjson_val *heat = yyjson_obj_get(v, "heat");
    if (yyjson_is_obj(heat))
        buf_printf(&cell, " hot: %llu at a time", (unsigned long long)json_u64(heat, "slots_at_once", 0));
    cli_table_cell(t, "%s", cell.data);
    buf_release(&cell);
}

static void add_idle(struct cli_table *t, yyjson_val *v, bool known)
{
    char time[24];
    cli_table_cell(t, "%s", known ? control_duration(json_u64(v, "idle_ms", 0), time, sizeof time) : "-");
}

static void add_instance(struct cli_table *t, yyjson_val *v)
{
    struct buf cell = {0};
    struct str model = json_str(v, "model", STR("?")), state = json_str(v, "state", STR("?"));
    uint64_t pid = json_u64(v, "pid", 0), port = json_u64(v, "port", 0);
    uint64_t ctx = json_u64(yyjson_obj_get(v, "params"), "ctx", 0);
    cli_table_cell(t, "%.*s", STR_ARG(model));
    double progress = json_double(v, "progress", 0);
    buf_put_str(&cell, state);
    if (str_eq_c(state, "starting") && progress > 0 && progress <= 1)
        buf_printf(&cell, " %.0f%%", progress * 100);
    if (json_bool(v, "pinned", false))
        buf_puts(&cell, ", pinned");
    if (json_bool(v, "adopted", false))
        buf_puts(&cell, ", adopted");
    cli_table_cell(t, "%s", cell.data);
    cli_table_cell(t, pid ? "%llu" : "-", (unsigned long long)pid);
    cli_table_cell(t, port ? "%llu" : "-", (unsigned long long)port);
    buf_clear(&cell);
    control_devices(v, &cell);
    cli_table_cell(t, "%s", cell.data);
    cli_table_cell(t, ctx ? "%llu" : "-", (unsigned long long)ctx);
    add_busy(t, v, "busy", "slots");
    add_idle(t, v, !json_u64(v, "busy", 0) && str_eq_c(state, "ready"));
    buf_release(&cell);
}

static void add_upstream(struct cli_table *t, yyjson_val *v)
{
    struct buf cell = {0};
    size_t i, n;
    yyjson_val *model;
    cli_table_cell(t, "%.*s", STR_ARG(json_str(v, "name", STR("?"))));
    cli_table_cell(t, "%.*s", STR_ARG(json_str(v, "state", STR("?"))));
    cli_table_cell(t, "%.*s", STR_ARG(json_str(v, "url", STR("?"))));
    add_busy(t, v, "running", "max_concurrency");
    add_idle(t, v, yyjson_is_uint(yyjson_obj_get(v, "idle_ms")));
    yyjson_arr_foreach(yyjson_obj_get(v, "models"), i, n, model)
        buf_printf(&cell, "%s%s", i ? ", " : "", yyjson_is_str(model) ? yyjson_get_str(model) : "?");
    cli_table_cell(t, "%s", cell.n ? cell.data : "-");
    buf_release(&cell);
}

static void put_failure(struct buf *out, struct str name, yyjson_val *error)
{
    struct str message = json_str(error, "message", STR("")), hint = json_str(error, "hint", STR(""));
    if (!message.n)
        return;
    buf_puts(out, "\n");
    text_put_safe(out, name, false);
    buf_puts(out, ": ");
    text_put_safe(out, message, false);
    if (hint.n) {
        buf_puts(out, "\n  hint: ");
        text_put_safe(out, hint, false);
    }
    buf_puts(out, "\n");
}

/* Of a model that is held back after its failures. */
static void put_next_try(struct buf *out, yyjson_val *v)
{
    char time[24];
    uint64_t left = json_u64(v, "retry_in_ms", 0);
    if (!left)
        return;
    buf_printf(out, "  next try: in %s at the earliest (failure %llu in a row); at once with: arriero reset ",
               control_duration(left, time, sizeof time), (unsigned long long)json_u64(v, "failures", 1));
    text_put_safe(out, json_str(v, "model", STR("?")), false);
    buf_puts(out, "\n");
}

/* A table of what is listed; behind it the causes of failures, which are worth more than a column. */
static void put_list(yyjson_val *list, const char *const *headings, size_t n_headings,
                     void (*add_row)(struct cli_table *t, yyjson_val *v), const char *name_of)
{
    size_t i, n;
    yyjson_val *v;
    struct buf out = {0};
    struct cli_table *t = cli_table_new(headings, n_headings);
    yyjson_arr_foreach(list, i, n, v)
    {
        add_row(t, v);
        put_failure(&out, json_str(v, name_of, STR("?")), yyjson_obj_get(v, "last_error"));
        put_next_try(&out, v);
    }
    cli_table_print(t);
    output_buf(&out);
}

static int run(struct cli_call *call)
{
    static const char *const instance_headings[] = {"MODEL",   "STATE",   "PID",  "PORT",
                                                    "DEVICES", "CONTEXT", "BUSY", "IDLE"};
    static const char *const upstream_headings[] = {"UPSTREAM", "STATE", "URL", "BUSY", "IDLE", "MODELS"};
    yyjson_doc *doc;
    struct err err;
    if (control_get(call, "/instances", &doc, &err) != RC_OK)
        return cli_fail(call, &err);
    if (call->json)
        return control_print(doc);
    yyjson_val *root = yyjson_doc_get_root(doc), *instances = yyjson_obj_get(root, "instances");
    yyjson_val *upstreams = yyjson_obj_get(root, "upstreams");
    if (yyjson_arr_size(instances) == 0)
        puts("Nothing is loaded. A request loads its model, and so does: arriero load MODEL");
    else
        put_list(instances, instance_headings, TABLE_COUNT(instance_headings), add_instance, "model");
    if (yyjson_arr_size(upstreams) > 0) {
        puts("");
        put_list(upstreams, upstream_headings, TABLE_COUNT(upstream_headings), add_upstream, "name");
    }
    yyjson_doc_free(doc);
    return 0;
}

const struct cli_command cmd_ps = {
    .name = "ps",
    .group = "Look",
    .synopsis = "",
    .summary = "list loaded models and upstreams: state, devices, memory, use",
    .details =
        "DEVICES is the memory that was measured on each device after the load, or the prediction until "
        "then. adopted: an earlier daemon started it. BUSY counts running requests and slots, as 2/4, with "
        "those that wait in line as (+N), and says "
        "errors while an instance that answers with nothing else is left alone, and hot with what it is sent "
        "at "
        "a time while a device of it is too hot. IDLE is the time since the last request.\n\nA second table "
        "has the servers elsewhere that the configuration names, if any: "
        "BUSY counts "
        "the requests under way there, of max_concurrency where that is set. What was spent there tells: "
        "arriero status.",
    .run = run,
};
