/* Bandwidth and half-precision products of NVIDIA GPUs: see bench.h. Layer hw; blocking.
 *
 * Safe beside other work: every buffer is bounded, free memory is asked first and half of it is left alone,
 * the primary context is given back, and each figure is a few milliseconds of work repeated for a fraction of
 * a second. Times are the device's own (events), the best of several. */
#include "hw/bench_priv.h"
#include "hw/cuda_api.h"

#include "base/mem.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COPY_MIB   256u
#define WARM_UPS   2
#define MOST_RUNS  200
#define GEMM_BYTES (2ull * HW_BENCH_GEMM * HW_BENCH_GEMM)
#define GEMM_EXTRA (64 * MIB) /* cuBLAS's own workspace */
#define KEPT_FREE  2          /* of the free memory at most one part in so many is taken */

struct session {
    const struct cuda_api *api;
    const struct cublas_api *cublas; /* NULL = none */
    const struct hw_bench_control *control;
    cuda_event from, to;
    cuda_ptr a, b, c;
    void *host;
    size_t bytes; /* of a and b */
    cublas_handle blas;
};

static void note(struct hw_bench_gpu *g, const char *what, const char *why)
{
    if (!g->note[0])
        snprintf(g->note, sizeof g->note, "%.40s: %.110s", what, why);
}

static void note_code(const struct session *s, struct hw_bench_gpu *g, const char *what, int code)
{
    char words[96];
    note(g, what, cuda_words(s->api, code, words, sizeof words));
}

/* One run of the work between two events; its code, and milliseconds. */
static int timed(struct session *s, int (*work)(struct session *), float *ret_ms)
{
    int code = s->api->event_record(s->from, NULL);
    if (code == CUDA_OK)
        code = work(s);
    if (code == CUDA_OK)
        code = s->api->event_record(s->to, NULL);
    if (code == CUDA_OK)
        code = s->api->event_wait(s->to);
    return code == CUDA_OK ? s->api->event_ms(ret_ms, s->from, s->to) : code;
}

/* The best of the runs that fit the time; 0 after an error, which is noted. */
static double best_ms(struct session *s, struct hw_bench_gpu *g, const char *what,
                      int (*work)(struct session *))
{
    double best = 0, start = bench_now();
    bench_progress(s->control, what, 0);
    for (int i = 0; i < MOST_RUNS; i++) {
        float ms = 0;
        if (bench_cancelled(s->control))
            return 0;
        int code = timed(s, work, &ms);
        if (code != CUDA_OK) {
            note_code(s, g, what, code);
            return 0;
        }
        if (i >= WARM_UPS && ms > 0 && (best <= 0 || (double)ms < best))
            best = (double)ms;
        if (i >= WARM_UPS + 2 && bench_now() - start > bench_seconds(s->control))
            break;
    }
    return best;
}

static int work_copy(struct session *s)
{
    return s->api->copy(s->b, s->a, s->bytes, NULL);
}

static int work_to(struct session *s)
{
    return s->api->to_device(s->a, s->host, s->bytes, NULL);
}

static int work_from(struct session *s)
{
    return s->api->from_device(s->host, s->a, s->bytes, NULL);
}

static void *address(cuda_ptr p)
{
    return (void *)(uintptr_t)p;
}

static int work_gemm(struct session *s)
{
    const float one = 1, zero = 0;
    const int n = HW_BENCH_GEMM;
    int code = s->cublas->gemm(s->blas, CUBLAS_N, CUBLAS_N, n, n, n, &one, address(s->a), CUBLAS_R_16F, n,
                               address(s->b), CUBLAS_R_16F, n, &zero, address(s->c), CUBLAS_R_16F, n,
                               CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    return code == CUBLAS_OK ? CUDA_OK : 100000 + code; /* beyond the driver's own codes */
}

static double gbps(size_t bytes, double ms)
{
    return ms > 0 ? (double)bytes / ms * 1e-6 : 0;
}

static void measure_copies(struct session *s, struct hw_bench_gpu *g)
{
    int code = s->api->host_alloc(&s->host, s->bytes);
    g->copy_gbps = gbps(2 * s->bytes, best_ms(s, g, "device memory", work_copy)); /* reads and writes */
    if (code != CUDA_OK) {
        s->host = NULL;
        note_code(s, g, "pinned host memory", code);
        return;
    }
    memset(s->host, 1, s->bytes);
    g->to_device_gbps = gbps(s->bytes, best_ms(s, g, "transfer to the GPU", work_to));
    g->from_device_gbps = gbps(s->bytes, best_ms(s, g, "transfer from the GPU", work_from));
}

static void measure_gemm(struct session *s, struct hw_bench_gpu *g)
{
    if (s->bytes < GEMM_BYTES || !s->cublas)
        return;
    int code = s->api->alloc(&s->c, GEMM_BYTES);
    if (code != CUDA_OK) {
        note_code(s, g, "matrices", code);
        return;
    }
    /* 0x2c2c is a small number in half precision; zeros would need less power than real weights. */
    if (s->api->set8(s->a, 0x2c, GEMM_BYTES) != CUDA_OK || s->api->set8(s->b, 0x2c, GEMM_BYTES) != CUDA_OK) {
        note(g, "matrices", "cannot be filled");
        return;
    }
    code = s->cublas->create(&s->blas);
    if (code != CUBLAS_OK) {
        char why[48];
        s->blas = NULL;
        snprintf(why, sizeof why, "cuBLAS status %d", code);
        note(g, "cublasCreate", why);
        return;
    }
    g->gemm_ms = best_ms(s, g, "product in half precision", work_gemm);
    double n = HW_BENCH_GEMM;
    g->gemm_tflops = g->gemm_ms > 0 ? 2 * n * n * n / g->gemm_ms * 1e-9 : 0;
}

static void clean_up(struct session *s)
{
    (void)s->api->synchronize();
    if (s->blas)
        (void)s->cublas->destroy(s->blas);
    if (s->host)
        (void)s->api->host_release(s->host);
    const cuda_ptr all[] = {s->a, s->b, s->c};
    for (size_t i = 0; i < TABLE_COUNT(all); i++)
        if (all[i])
            (void)s->api->release(all[i]);
    if (s->from)
        (void)s->api->event_free(s->from);
    if (s->to)
        (void)s->api->event_free(s->to);
}

/* With the device's context current. */
static void measure(struct session *s, size_t want, struct hw_bench_gpu *g)
{
    size_t free_bytes = 0, total = 0;
    int code = s->api->memory(&free_bytes, &total);
    if (code != CUDA_OK) {
        note_code(s, g, "memory", code);
        return;
    }
    g->free_bytes = free_bytes;
    g->total_bytes = total;
    s->bytes = want;
    if ((2 * want + GEMM_BYTES + GEMM_EXTRA) > free_bytes / KEPT_FREE) {
        char have[32], text[64];
        snprintf(text, sizeof text, "%s free are too few to measure beside other work",
                 str_human_bytes(free_bytes, have, sizeof have));
        note(g, "memory", text);
        return;
    }
    code = s->api->event_new(&s->from, 0);
    if (code == CUDA_OK)
        code = s->api->event_new(&s->to, 0);
    if (code == CUDA_OK)
        code = s->api->alloc(&s->a, want);
    if (code == CUDA_OK)
        code = s->api->alloc(&s->b, want);
    if (code != CUDA_OK) {
        note_code(s, g, "buffers", code);
        return;
    }
    measure_copies(s, g);
    measure_gemm(s, g);
}

static void identify(const struct cuda_api *api, cuda_device d, struct hw_bench_gpu *g)
{
    struct cuda_uuid u;
    if (api->name(g->name, (int)sizeof g->name, d) != CUDA_OK || !g->name[0])
        snprintf(g->name, sizeof g->name, "NVIDIA GPU");
    g->name[sizeof g->name - 1] = '\0';
    if (!api->uuid || api->uuid(&u, d) != CUDA_OK)
        return;
    const unsigned char *b = u.bytes;
    snprintf(g->uuid, sizeof g->uuid,
             "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2],
             b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

static void measure_device(struct session s, int ordinal, size_t want, struct hw_bench_gpu *g)
{
    cuda_device d;
    cuda_context context = NULL;
    int code = s.api->device(&d, ordinal);
    if (code != CUDA_OK) {
        snprintf(g->name, sizeof g->name, "GPU %d", ordinal);
        note_code(&s, g, "device", code);
        return;
    }
    identify(s.api, d, g);
    code = s.api->context_retain(&context, d);
    if (code != CUDA_OK) {
        note_code(&s, g, "context", code);
        return;
    }
    code = s.api->context_set(context);
    if (code == CUDA_OK)
        measure(&s, want, g);
    else
        note_code(&s, g, "context", code);
    clean_up(&s);
    (void)s.api->context_set(NULL);
    (void)s.api->context_release(d);
}

static enum rc count_devices(const struct cuda_api *api, int *ret_n, struct err *err)
{
    char words[96];
    setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 0); /* the order of the inventory */
    int code = api->init(0), n = 0;
    if (code == CUDA_OK)
        code = api->count(&n);
    if (code == CUDA_NO_DEVICE || (code == CUDA_OK && n <= 0)) {
        enum rc rc = err_set(err, RC_NOT_FOUND, "the NVIDIA driver sees no GPU");
        err_hint(err, "CUDA_VISIBLE_DEVICES may hide it; in a container, pass it in: --gpus all");
        return rc;
    }
    if (code != CUDA_OK)
        return err_set(err, RC_UNSUPPORTED, "the NVIDIA driver cannot be used: %s",
                       cuda_words(api, code, words, sizeof words));
    *ret_n = n < HW_BENCH_GPUS ? n : HW_BENCH_GPUS;
    return RC_OK;
}

enum rc hw_bench_gpus(const struct hw_bench_gpu_options *opt, const struct hw_bench_control *control,
                      struct hw_bench_gpu ret_gpus[HW_BENCH_GPUS], size_t *ret_n, struct err *err)
{
    struct cuda_api cuda;
    struct cublas_api cublas;
    struct err why;
    int n = 0;
    enum rc rc = cuda_load(opt ? opt->cuda_path : NULL, &cuda, err);
    if (rc == RC_OK)
        rc = count_devices(&cuda, &n, err);
    if (rc != RC_OK)
        return rc;
    bool has_blas = cublas_load(opt ? opt->cublas_path : NULL, &cublas, &why) == RC_OK;
    size_t want = (opt && opt->copy_mib ? opt->copy_mib : COPY_MIB) * MIB;
    struct hw_bench_gpu *list = mem_calloc(HW_BENCH_GPUS, sizeof *list);
    for (int i = 0; i < n && !bench_cancelled(control); i++) {
        const struct session s = {.api = &cuda, .cublas = has_blas ? &cublas : NULL, .control = control};
        measure_device(s, i, want, &list[i]);
        if (!has_blas)
            note(&list[i], "product in half precision", why.message);
    }
    if (bench_cancelled(control)) {
        rc = bench_cancel(err);
    } else {
        memcpy(ret_gpus, list, (size_t)n * sizeof *list);
        *ret_n = (size_t)n;
    }
    free(list);
    return rc;
}
