/* NVIDIA's driver library and cuBLAS as far as the measurements use them: functions as slots, and the loader.
 * Layer hw, private to bench_gpu.c and to the fake libraries of the tests.
 *
 * Declared from the CUDA driver API (12, 13; the _v2 names have been stable since 4.0) and the cuBLAS API (11
 * to 13; the enumerations of 11 on). Thread: a context is current for one thread; all calls block. */
#ifndef HW_CUDA_API_H
#define HW_CUDA_API_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { CUDA_OK = 0, CUDA_OUT_OF_MEMORY = 2, CUDA_NO_DEVICE = 100, CUDA_INVALID_DEVICE = 101 };
enum { CUBLAS_OK = 0, CUBLAS_N = 0, CUBLAS_R_16F = 2, CUBLAS_COMPUTE_32F = 68, CUBLAS_GEMM_DEFAULT = -1 };

typedef int cuda_device;
typedef uint64_t cuda_ptr;
typedef struct cuda_context *cuda_context;
typedef struct cuda_event *cuda_event;
typedef struct cuda_stream *cuda_stream; /* NULL = the default stream */
typedef struct cublas_context *cublas_handle;

struct cuda_uuid {
    unsigned char bytes[16];
};

struct cuda_api {
    int (*init)(unsigned flags);
    int (*count)(int *n);
    int (*device)(cuda_device *d, int ordinal);
    int (*name)(char *out, int cap, cuda_device d);
    int (*uuid)(struct cuda_uuid *out, cuda_device d); /* may be NULL */
    int (*context_retain)(cuda_context *c, cuda_device d);
    int (*context_release)(cuda_device d);
    int (*context_set)(cuda_context c);
    int (*synchronize)(void);
    int (*memory)(size_t *free_bytes, size_t *total_bytes);
    int (*alloc)(cuda_ptr *p, size_t bytes);
    int (*release)(cuda_ptr p);
    int (*host_alloc)(void **p, size_t bytes);
    int (*host_release)(void *p);
    int (*set8)(cuda_ptr p, unsigned char value, size_t n);
    int (*to_device)(cuda_ptr to, const void *from, size_t bytes, cuda_stream s);
    int (*from_device)(void *to, cuda_ptr from, size_t bytes, cuda_stream s);
    int (*copy)(cuda_ptr to, cuda_ptr from, size_t bytes, cuda_stream s);
    int (*event_new)(cuda_event *e, unsigned flags);
    int (*event_record)(cuda_event e, cuda_stream s);
    int (*event_wait)(cuda_event e);
    int (*event_ms)(float *ms, cuda_event from, cuda_event to);
    int (*event_free)(cuda_event e);
    int (*error_words)(int code, const char **words); /* may be NULL */
};

struct cublas_api {
    int (*create)(cublas_handle *h);
    int (*destroy)(cublas_handle h);
    int (*gemm)(cublas_handle h, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a,
                int type_a, int lda, const void *b, int type_b, int ldb, const void *beta, void *c,
                int type_c, int ldc, int compute, int algorithm);
};

/* path NULL = the usual names. The library stays loaded until the process ends: drivers do not survive their
 * own unloading. RC_NOT_FOUND: no such library; RC_UNSUPPORTED: a function is missing (named). */
enum rc cuda_load(const char *path, struct cuda_api *ret_api, struct err *err);
enum rc cublas_load(const char *path, struct cublas_api *ret_api, struct err *err);
/* "out of memory (2)". out has at least 96 bytes; returns out. */
char *cuda_words(const struct cuda_api *api, int code, char *out, size_t cap);

#endif
