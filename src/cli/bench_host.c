/* arriero bench host. Layer cli; main thread. */
#include "cli/bench.h"

#include "base/mem.h"
#include "gguf/catalog.h"
#include "hw/hw.h"

#include <stdlib.h>
#include <string.h>

struct result {
    struct hw_bench_host host;
    struct hw_bench_disk disk;
    char model[96], file[4096]; /* of the processor; what was read, "" = nothing */
    struct err disk_err;
};

/* False when there is no model. */
static bool largest_model(const struct cli_call *call, char *ret_path, size_t cap)
{
    struct catalog *c = NULL;
    const struct catalog_entry *best = NULL;
    if (shelf_scan(call, true, &c, NULL) != RC_OK)
        return false;
    for (size_t i = 0; i < c->n; i++)
        if (!best || c->entries[i].file_bytes > best->file_bytes)
            best = &c->entries[i];
    if (best)
        snprintf(ret_path, cap, "%s", best->path);
    catalog_free(c);
    return best != NULL;
}

static enum rc find_host(struct hw_host *ret, struct err *err)
{
    struct hw *hw = NULL;
    struct hw_inventory *inv = mem_new(struct hw_inventory);
    enum rc rc = hw_open(NULL, &hw, err);
    if (rc == RC_OK)
        rc = hw_sample(hw, inv, err);
    if (rc == RC_OK)
        *ret = inv->host;
    hw_close(hw);
    free(inv);
    return rc;
}

static enum rc measure(const struct cli_call *call, const struct hw_bench_control *control, struct result *r,
                       struct err *err)
{
    const struct bench_options *o = call->options;
    struct hw_host host;
    enum rc rc = find_host(&host, err);
    if (rc != RC_OK)
        return rc;
    snprintf(r->model, sizeof r->model, "%s", host.model);
    rc = hw_bench_host(host.logical_cpus, host.usable_free_bytes, control, &r->host, err);
    if (rc != RC_OK)
        return rc;
    if (o->file)
        snprintf(r->file, sizeof r->file, "%s", o->file);
    else if (!largest_model(call, r->file, sizeof r->file))
        return RC_OK;
    rc = hw_bench_disk(r->file, 0, control, &r->disk, &r->disk_err);
    if (rc == RC_CANCELLED || (rc != RC_OK && o->file)) {
        *err = r->disk_err;
        return rc;
    }
    return RC_OK; /* a model on no disk worth the name spoils nothing */
}

static yyjson_mut_doc *as_json(const struct result *r, bool saved)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, o);
    const struct hw_bench_host *h = &r->host;
    json_add_str(doc, o, "processor", str_from(r->model));
    yyjson_mut_val *memory = yyjson_mut_obj_add_obj(doc, o, "memory");
    yyjson_mut_obj_add_real(doc, memory, "read_gbps", h->read_gbps);
    yyjson_mut_obj_add_uint(doc, memory, "read_threads", h->read_threads);
    yyjson_mut_obj_add_real(doc, memory, "read_core_gbps", h->read_core_gbps);
    yyjson_mut_obj_add_uint(doc, memory, "buffer_bytes", h->buffer_bytes);
    yyjson_mut_val *steps = yyjson_mut_obj_add_arr(doc, memory, "steps");
    for (size_t i = 0; i < h->n_steps; i++) {
        yyjson_mut_val *s = yyjson_mut_arr_add_obj(doc, steps);
        yyjson_mut_obj_add_uint(doc, s, "threads", h->steps[i].threads);
        yyjson_mut_obj_add_real(doc, s, "read_gbps", h->steps[i].read_gbps);
    }
    yyjson_mut_val *products = yyjson_mut_obj_add_obj(doc, o, "products");
    yyjson_mut_obj_add_uint(doc, products, "threads", h->threads);
    yyjson_mut_obj_add_str(doc, products, "fp32_form", h->fp32_form);
    yyjson_mut_obj_add_real(doc, products, "fp32_core_gflops", h->fp32_core_gflops);
    yyjson_mut_obj_add_real(doc, products, "fp32_gflops", h->fp32_gflops);
    yyjson_mut_obj_add_str(doc, products, "int8_form", h->int8_form);
    yyjson_mut_obj_add_real(doc, products, "int8_core_gops", h->int8_core_gops);
    yyjson_mut_obj_add_real(doc, products, "int8_gops", h->int8_gops);
    if (r->disk.bytes) {
        yyjson_mut_val *disk = yyjson_mut_obj_add_obj(doc, o, "disk");
        json_add_str(doc, disk, "file", str_from(r->file));
        yyjson_mut_obj_add_real(doc, disk, "read_gbps", r->disk.read_gbps);
        yyjson_mut_obj_add_uint(doc, disk, "bytes", r->disk.bytes);
        yyjson_mut_obj_add_bool(doc, disk, "direct", r->disk.direct);
    } else {
        yyjson_mut_obj_add_null(doc, o, "disk");
    }
    yyjson_mut_obj_add_bool(doc, o, "saved", saved);
    return doc;
}

static void print(const struct result *r)
{
    static const char *const headings[] = {"MEASURED", "ONE THREAD", "BEST", "HOW"};
    const struct hw_bench_host *h = &r->host;
    struct buf text = {0};
    text_put_safe(&text, str_from(r->model[0] ? r->model : "unknown processor"), false);
    buf_puts(&text, "\n\n");
    output_buf(&text);
    struct cli_table *t = cli_table_new(headings, TABLE_COUNT(headings));
    cli_table_cell(t, "memory read");
    cli_table_cell(t, "%.1f GB/s", h->read_core_gbps);
    cli_table_cell(t, "%.1f GB/s", h->read_gbps);
    cli_table_cell(t, "%u threads, a buffer of %llu MiB", h->read_threads,
                   (unsigned long long)(h->buffer_bytes / MIB));
    cli_table_cell(t, "products, fp32");
    cli_table_cell(t, "%.0f GFLOP/s", h->fp32_core_gflops);
    cli_table_cell(t, "%.0f GFLOP/s", h->fp32_gflops);
    cli_table_cell(t, "%u threads, %s, matrices in the core's cache", h->threads, h->fp32_form);
    cli_table_cell(t, "products, int8");
    cli_table_cell(t, "%.0f GOP/s", h->int8_core_gops);
    cli_table_cell(t, "%.0f GOP/s", h->int8_gops);
    cli_table_cell(t, "%u threads, %s, summed in 32 bits", h->threads, h->int8_form);
    if (r->disk.bytes) {
        cli_table_cell(t, "disk read");
        cli_table_cell(t, "%.2f GB/s", r->disk.read_gbps);
        cli_table_cell(t, "-");
        cli_table_cell(t, "%llu MiB %s", (unsigned long long)(r->disk.bytes / MIB),
                       r->disk.direct ? "past the page cache" : "after dropping them from the page cache");
    }
    cli_table_print(t);
    if (h->n_steps > 2) {
        printf("\nMemory by threads:");
        for (size_t i = 0; i < h->n_steps; i++)
            printf("%s %u: %.1f", i ? "," : "", h->steps[i].threads, h->steps[i].read_gbps);
        printf(" GB/s\n");
    }
}

int bench_host(struct cli_call *call)
{
    const struct bench_options *o = call->options;
    struct result *r = mem_new(struct result);
    struct bench_watch watch;
    struct err err, why;
    bench_watch_start(&watch);
    const struct hw_bench_control control = bench_control(&watch);
    enum rc rc = measure(call, &control, r, &err);
    bench_watch_stop(&watch);
    if (rc != RC_OK || watch.ended) {
        free(r);
        return bench_fail(call, &watch, &err);
    }
    const struct bench_figure figures[] = {{"host", "read_gbps", r->host.read_gbps},
                                           {"host", "read_core_gbps", r->host.read_core_gbps},
                                           {"host", "fp32_core_gflops", r->host.fp32_core_gflops},
                                           {"host", "int8_core_gops", r->host.int8_core_gops},
                                           {"host", "disk_gbps", r->disk.read_gbps}};
    bool saved = !o->no_save && bench_save(figures, TABLE_COUNT(figures), &why);
    int status = 0;
    if (call->json) {
        status = cli_print_json(as_json(r, saved));
    } else {
        print(r);
        if (saved)
            printf("\nKept for the planner.\n");
    }
    if (!o->no_save && !saved)
        bench_warn(&why);
    free(r);
    return status;
}
