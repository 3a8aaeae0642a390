/* Measurements of the machine: memory, products, disk, GPU. Layer hw; blocking, for a command's main thread;
 * each takes a second or two, can be broken off between two short passes, and keeps the best pass, so that
 * other work on the machine delays the answer more than it spoils it. */
#ifndef HW_BENCH_H
#define HW_BENCH_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hw_bench_control { /* may be NULL as a whole; members may be NULL */
    bool (*cancelled)(void *arg);
    void (*progress)(void *arg, const char *what, double share); /* 0 … 1 of this measurement */
    void *arg;
    double seconds; /* for each figure; 0 = 0.4 */
};

/* ---- host ---- */

#define HW_BENCH_STEPS 16
struct hw_bench_host {
    struct {
        unsigned threads;
        double read_gbps; /* GB/s, sequential reads of a buffer far larger than the caches */
    } steps[HW_BENCH_STEPS];
    size_t n_steps;
    uint64_t buffer_bytes;
    double read_core_gbps, read_gbps; /* one thread; the best of all counts */
    unsigned read_threads;            /* the count of the best */
    /* products of small matrices that stay in the core's cache: what a core can compute, not what a model
     * gets */
    double fp32_core_gflops, fp32_gflops; /* 2 operations a multiply-add; one thread, all threads */
    double int8_core_gops, int8_gops;     /* 8-bit integers summed in 32 bits, 2 operations a product */
    const char *fp32_form, *int8_form;    /* instructions used: "avx512", "avx512-vnni" … (static) */
    unsigned threads;                     /* of the figures of all threads */
};
/* max_threads: the CPUs that this process may use. free_bytes bounds the buffer to an eighth of it.
 * RC_CANCELLED; RC_NOMEM when there is no room for the smallest buffer (64 MiB) or no thread starts. */
enum rc hw_bench_host(unsigned max_threads, uint64_t free_bytes, const struct hw_bench_control *control,
                      struct hw_bench_host *ret_host, struct err *err);

/* One product of n × n matrices, computed by the fastest form that this processor has; for tests. c[i][j] is
 * Σ a[i][k]·b[k][j] (fp32), Σ a[i][k]·b[j][k] (int8, a 0 … 127). n is a multiple of 64, at most 256. */
void hw_bench_fp32_product(const float *a, const float *b, float *c, size_t n);
void hw_bench_int8_product(const uint8_t *a, const int8_t *b, int32_t *c, size_t n);

/* ---- disk ---- */

struct hw_bench_disk {
    double read_gbps;
    uint64_t bytes; /* that were read */
    bool direct;    /* past the page cache; false: the file system cannot, pages were dropped before */
};
/* Reads the file from its start, 4 MiB at a time, at most max_bytes (0 = 1 GiB) or three seconds. Nothing is
 * written. RC_IO, RC_CANCELLED, RC_INVALID (a file shorter than 16 MiB says nothing). */
enum rc hw_bench_disk(const char *path, uint64_t max_bytes, const struct hw_bench_control *control,
                      struct hw_bench_disk *ret_disk, struct err *err);

/* ---- GPUs (NVIDIA, through the driver's and cuBLAS's own libraries) ---- */

#define HW_BENCH_GPUS 16
#define HW_BENCH_GEMM 4096
struct hw_bench_gpu {
    char name[96], uuid[96];
    uint64_t total_bytes, free_bytes;
    double copy_gbps;                        /* device memory, bytes read + written */
    double to_device_gbps, from_device_gbps; /* pinned host memory */
    double gemm_ms, gemm_tflops;             /* 4096³ in half precision, sums in single; 0 = no cuBLAS */
    char note[160];                          /* why a figure is missing; "" when none is */
};
struct hw_bench_gpu_options {
    const char *cuda_path, *cublas_path; /* NULL = the usual names; a path is loaded as it is (tests) */
    unsigned copy_mib;                   /* of each of two buffers; 0 = 256 */
};
/* Every GPU that the driver shows, in PCI order. A GPU without room for the buffers keeps its name and a
 * note. RC_NOT_FOUND: no driver, or a driver that sees no GPU; RC_UNSUPPORTED: a driver too old or broken;
 * RC_CANCELLED. */
enum rc hw_bench_gpus(const struct hw_bench_gpu_options *opt, const struct hw_bench_control *control,
                      struct hw_bench_gpu ret_gpus[HW_BENCH_GPUS], size_t *ret_n, struct err *err);

#endif
