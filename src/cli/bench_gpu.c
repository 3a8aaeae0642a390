/* arriero bench gpu. Layer cli; main thread. */
#include "cli/bench.h"

#include "base/mem.h"

#include <stdlib.h>

static void add_rate(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *name, double value)
{
    if (value > 0)
        yyjson_mut_obj_add_real(doc, o, name, value);
    else
        yyjson_mut_obj_add_null(doc, o, name);
}

static yyjson_mut_doc *as_json(const struct hw_bench_gpu *gpus, size_t n, bool saved)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(doc, root, "gpus");
    for (size_t i = 0; i < n; i++) {
        const struct hw_bench_gpu *g = &gpus[i];
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, list);
        json_add_str(doc, o, "name", str_from(g->name));
        json_add_str(doc, o, "uuid", str_from(g->uuid));
        yyjson_mut_obj_add_uint(doc, o, "total_bytes", g->total_bytes);
        yyjson_mut_obj_add_uint(doc, o, "free_bytes", g->free_bytes);
        add_rate(doc, o, "copy_gbps", g->copy_gbps);
        add_rate(doc, o, "to_device_gbps", g->to_device_gbps);
        add_rate(doc, o, "from_device_gbps", g->from_device_gbps);
        yyjson_mut_obj_add_uint(doc, o, "gemm_size", HW_BENCH_GEMM);
        add_rate(doc, o, "gemm_ms", g->gemm_ms);
        add_rate(doc, o, "gemm_fp16_tflops", g->gemm_tflops);
        json_add_str(doc, o, "note", str_from(g->note));
    }
    yyjson_mut_obj_add_bool(doc, root, "saved", saved);
    return doc;
}

static void cell(struct cli_table *t, double value, int digits, const char *unit)
{
    if (value > 0)
        cli_table_cell(t, "%.*f %s", digits, value, unit);
    else
        cli_table_cell(t, "-");
}

static void print(const struct hw_bench_gpu *gpus, size_t n)
{
    static const char *const headings[] = {"GPU", "MEMORY", "TO GPU", "FROM GPU", "4096³ FP16", "RATE"};
    struct cli_table *t = cli_table_new(headings, TABLE_COUNT(headings));
    for (size_t i = 0; i < n; i++) {
        cli_table_cell(t, "%s", gpus[i].name);
        cell(t, gpus[i].copy_gbps, 0, "GB/s");
        cell(t, gpus[i].to_device_gbps, 1, "GB/s");
        cell(t, gpus[i].from_device_gbps, 1, "GB/s");
        cell(t, gpus[i].gemm_ms, 2, "ms");
        cell(t, gpus[i].gemm_tflops, 1, "TFLOP/s");
    }
    cli_table_print(t);
    struct buf text = {0}, safe = {0};
    for (size_t i = 0; i < n; i++)
        if (gpus[i].note[0])
            buf_printf(&text, "Note: %s: %s\n", gpus[i].name, gpus[i].note);
    text_put_safe(&safe, buf_str(&text), true);
    buf_release(&text);
    output_buf(&safe);
}

static bool save(const struct hw_bench_gpu *gpus, size_t n, struct err *err)
{
    struct bench_figure figures[4 * HW_BENCH_GPUS];
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (!gpus[i].uuid[0])
            continue;
        figures[k++] = (struct bench_figure){gpus[i].uuid, "copy_gbps", gpus[i].copy_gbps};
        figures[k++] = (struct bench_figure){gpus[i].uuid, "to_device_gbps", gpus[i].to_device_gbps};
        figures[k++] = (struct bench_figure){gpus[i].uuid, "from_device_gbps", gpus[i].from_device_gbps};
        figures[k++] = (struct bench_figure){gpus[i].uuid, "fp16_tflops", gpus[i].gemm_tflops};
    }
    return bench_save(figures, k, err);
}

int bench_gpu(struct cli_call *call)
{
    const struct bench_options *o = call->options;
    const struct hw_bench_gpu_options opt = {.cuda_path = getenv("ARRIERO_CUDA"),
                                             .cublas_path = getenv("ARRIERO_CUBLAS")};
    struct hw_bench_gpu *gpus = mem_calloc(HW_BENCH_GPUS, sizeof *gpus);
    struct bench_watch watch;
    struct err err, why;
    size_t n = 0;
    bench_watch_start(&watch);
    const struct hw_bench_control control = bench_control(&watch);
    enum rc rc = hw_bench_gpus(&opt, &control, gpus, &n, &err);
    bench_watch_stop(&watch);
    if (rc != RC_OK || watch.ended) {
        free(gpus);
        return bench_fail(call, &watch, &err);
    }
    bool saved = !o->no_save && save(gpus, n, &why), any = false;
    for (size_t i = 0; i < n; i++)
        any |= gpus[i].copy_gbps > 0 || gpus[i].gemm_tflops > 0;
    int status = 0;
    if (call->json) {
        status = cli_print_json(as_json(gpus, n, saved));
    } else {
        print(gpus, n);
        if (saved && any)
            printf("\nKept for the planner.\n");
    }
    if (!o->no_save && !saved)
        bench_warn(&why);
    free(gpus);
    return any ? status : 1;
}
