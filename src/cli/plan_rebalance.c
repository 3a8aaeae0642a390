/* arriero plan --rebalance: which loaded models would be better placed elsewhere. Layer cli; main thread;
 * asks the daemon, which knows what is loaded; moves nothing. */
#include "cli/plan_rebalance.h"

#include "base/mem.h"
#include "cli/control.h"

static void put_devices(struct buf *out, yyjson_val *place)
{
    size_t i, n;
    yyjson_val *d, *devices = yyjson_obj_get(place, "devices");
    yyjson_arr_foreach(devices, i, n, d)
    {
        buf_puts(out, i ? "+" : "");
        text_put_safe(out, (struct str){yyjson_get_str(d), yyjson_get_len(d)}, false);
    }
    if (yyjson_arr_size(devices) == 0)
        buf_puts(out, "CPU");
}

static void add_row(struct cli_table *t, yyjson_val *move)
{
    struct buf cell = {0};
    char size[24];
    yyjson_val *from = yyjson_obj_get(move, "from"), *to = yyjson_obj_get(move, "to");
    struct str model = json_str(move, "model", STR("?"));
    cli_table_cell(t, "%.*s", STR_ARG(model));
    put_devices(&cell, from);
    buf_puts(&cell, " -> ");
    put_devices(&cell, to);
    cli_table_cell(t, "%s", cell.data);
    cli_table_cell(t, "%llu -> %llu", (unsigned long long)json_u64(from, "layers_gpu", 0),
                   (unsigned long long)json_u64(to, "layers_gpu", 0));
    cli_table_cell(t, "%.1f -> %.1f", json_double(from, "decode_tps", 0), json_double(to, "decode_tps", 0));
    cli_table_cell(t, "%s in %.1f s", str_human_bytes(json_u64(move, "bytes", 0), size, sizeof size),
                   json_double(move, "reload_seconds", 0));
    buf_release(&cell);
}

static void put_sums(yyjson_val *root)
{
    char moved[24], size[24];
    yyjson_val *cost = yyjson_obj_get(root, "cost"), *gain = yyjson_obj_get(root, "gain");
    int64_t freed = yyjson_get_sint(yyjson_obj_get(gain, "freed_bytes"));
    uint64_t bytes = freed < 0 ? (uint64_t)0 - (uint64_t)freed : (uint64_t)freed;
    printf("\nCost: %s loaded again, %.1f s. Gain: %.1f tokens/s, weighed by use; %s of device memory %s.\n",
           str_human_bytes(json_u64(cost, "bytes", 0), moved, sizeof moved), json_double(cost, "seconds", 0),
           json_double(gain, "decode_tps", 0), str_human_bytes(bytes, size, sizeof size),
           freed < 0 ? "more is taken" : "are freed");
    puts(
        "A model moves when it is loaded again: unload all of these, then load them (arriero unload, load).");
}

static void put_fixed(yyjson_val *root)
{
    size_t i, n;
    yyjson_val *v, *fixed = yyjson_obj_get(root, "fixed");
    struct buf out = {0};
    yyjson_arr_foreach(fixed, i, n, v)
    {
        buf_puts(&out, i ? ", " : "Not moved: ");
        text_put_safe(&out, json_str(v, "model", STR("?")), false);
        buf_puts(&out, " (");
        text_put_safe(&out, json_str(v, "why", STR("?")), false);
        buf_puts(&out, ")");
    }
    buf_puts(&out, out.n ? ".\n" : "");
    output_buf(&out);
}

int plan_rebalance_run(struct cli_call *call)
{
    static const char *const headings[] = {"MODEL", "DEVICES", "LAYERS ON GPUS", "TOKENS/S", "RELOAD"};
    yyjson_doc *doc;
    struct err err;
    size_t i, n;
    yyjson_val *v;
    if (control_get(call, "/rebalance", &doc, &err) != RC_OK)
        return cli_fail(call, &err);
    if (call->json)
        return control_print(doc);
    yyjson_val *root = yyjson_doc_get_root(doc), *moves = yyjson_obj_get(root, "moves");
    unsigned long long loaded = json_u64(root, "loaded", 0);
    if (yyjson_arr_size(moves) == 0) {
        printf("No model would run faster elsewhere: %llu loaded.\n", loaded);
    } else {
        printf("%zu of %llu loaded models would run faster elsewhere:\n\n", yyjson_arr_size(moves), loaded);
        struct cli_table *t = cli_table_new(headings, TABLE_COUNT(headings));
        yyjson_arr_foreach(moves, i, n, v) add_row(t, v);
        cli_table_print(t);
        put_sums(root);
    }
    put_fixed(root);
    yyjson_doc_free(doc);
    return 0;
}
