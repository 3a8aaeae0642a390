/* A libcuda.so.1 and a libcublas.so for tests, in one file: TOY_CUBLAS gives the second. No driver, no card:
 * memory is counted, times follow from fixed rates so that the figures are known. Driven by the environment:
 *
 *   TOY_CUDA_GPUS N         devices (default 1)      TOY_CUDA_FREE_MIB N   free of 16384 (default 16000)
 *   TOY_CUDA_FAIL NAME=CODE that function answers CODE
 *   TOY_CUDA_LEAKS FILE     at each release of a context: what is still allocated, one number a line
 *
 * 100 GB/s of device memory, 10 to the GPU, 5 from it, a product takes 2 ms. With TOY_BROKEN a symbol lacks.
 * The declarations are deliberately its own and not those of src/hw. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC diagnostic ignored "-Wmissing-prototypes"

static int fails(const char *name)
{
    const char *f = getenv("TOY_CUDA_FAIL");
    size_t n = strlen(name);
    return f && !strncmp(f, name, n) && f[n] == '=' ? atoi(f + n + 1) : 0;
}

#define FAILS(name)                                                                                          \
    do {                                                                                                     \
        int code = fails(name);                                                                              \
        if (code)                                                                                            \
            return code;                                                                                     \
    } while (0)

#ifdef TOY_CUBLAS

int cublasCreate_v2(void **h)
{
    FAILS("cublasCreate_v2");
    *h = malloc(1);
    return 0;
}

int cublasDestroy_v2(void *h)
{
    free(h);
    return 0;
}

#ifndef TOY_BROKEN
int cublasGemmEx(void *h, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int type_a,
                 int lda, const void *b, int type_b, int ldb, const void *beta, void *c, int type_c, int ldc,
                 int compute, int algorithm)
{
    FAILS("cublasGemmEx");
    float one, zero;
    memcpy(&one, alpha, sizeof one);
    memcpy(&zero, beta, sizeof zero);
    if (!h || ta || tb || m != 4096 || n != 4096 || k != 4096 || type_a != 2 || type_b != 2 || type_c != 2 ||
        lda != 4096 || ldb != 4096 || ldc != 4096 || compute != 68 || algorithm != -1 || one != 1 ||
        zero != 0 || !a || !b || !c)
        return 7;
    const char *clock = getenv("TOY_CUDA_CLOCK"); /* an address: both libraries tick the same clock */
    if (clock)
        *(double *)(uintptr_t)strtoull(clock, NULL, 16) += 2.0;
    return 0;
}
#endif

#else

static double clock_ms;
static size_t allocated;
static int events, pinned;

int cuInit(unsigned flags)
{
    char address[32];
    FAILS("cuInit");
    snprintf(address, sizeof address, "%llx", (unsigned long long)(uintptr_t)&clock_ms);
    setenv("TOY_CUDA_CLOCK", address, 1);
    return flags ? 1 : 0;
}

int cuDeviceGetCount(int *n)
{
    FAILS("cuDeviceGetCount");
    *n = getenv("TOY_CUDA_GPUS") ? atoi(getenv("TOY_CUDA_GPUS")) : 1;
    return 0;
}

int cuDeviceGet(int *d, int ordinal)
{
    FAILS("cuDeviceGet");
    *d = 10 + ordinal; /* no number is an index */
    return 0;
}

int cuDeviceGetName(char *out, int cap, int d)
{
    snprintf(out, (size_t)cap, "Toy GPU %d", d - 10);
    return 0;
}

int cuDeviceGetUuid_v2(unsigned char out[16], int d)
{
    for (int i = 0; i < 16; i++)
        out[i] = (unsigned char)(i * 16 + d - 10);
    return 0;
}

int cuDevicePrimaryCtxRetain(void **c, int d)
{
    FAILS("cuDevicePrimaryCtxRetain");
    *c = (void *)(uintptr_t)d;
    return 0;
}

int cuDevicePrimaryCtxRelease_v2(int d)
{
    const char *path = getenv("TOY_CUDA_LEAKS");
    FILE *f = path ? fopen(path, "a") : NULL;
    if (f) {
        fprintf(f, "%zu %d %d %d\n", allocated, events, pinned, d);
        fclose(f);
    }
    return 0;
}

int cuCtxSetCurrent(void *c)
{
    (void)c;
    FAILS("cuCtxSetCurrent");
    return 0;
}

int cuCtxSynchronize(void)
{
    return 0;
}

int cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
    FAILS("cuMemGetInfo_v2");
    *total = (size_t)16384 << 20;
    *free_bytes = (size_t)(getenv("TOY_CUDA_FREE_MIB") ? atoi(getenv("TOY_CUDA_FREE_MIB")) : 16000) << 20;
    return 0;
}

/* Nothing is there: only the numbers matter. The size is kept in the address's upper half. */
int cuMemAlloc_v2(unsigned long long *p, size_t bytes)
{
    FAILS("cuMemAlloc_v2");
    allocated += bytes;
    *p = bytes;
    return 0;
}

int cuMemFree_v2(unsigned long long p)
{
    allocated -= (size_t)p;
    return 0;
}

int cuMemAllocHost_v2(void **p, size_t bytes)
{
    FAILS("cuMemAllocHost_v2");
    *p = malloc(bytes);
    pinned++;
    return *p ? 0 : 2;
}

int cuMemFreeHost(void *p)
{
    free(p);
    pinned--;
    return 0;
}

int cuMemsetD8_v2(unsigned long long p, unsigned char value, size_t n)
{
    (void)value;
    return p && n ? 0 : 1;
}

int cuMemcpyHtoDAsync_v2(unsigned long long to, const void *from, size_t bytes, void *stream)
{
    FAILS("cuMemcpyHtoDAsync_v2");
    clock_ms += (double)bytes / 10e6;
    return to && from && !stream ? 0 : 1;
}

int cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, size_t bytes, void *stream)
{
    clock_ms += (double)bytes / 5e6;
    return to && from && !stream ? 0 : 1;
}

int cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, size_t bytes, void *stream)
{
    FAILS("cuMemcpyDtoDAsync_v2");
    clock_ms += 2.0 * (double)bytes / 100e6;
    return to && from && !stream ? 0 : 1;
}

int cuEventCreate(double **e, unsigned flags)
{
    FAILS("cuEventCreate");
    *e = calloc(1, sizeof(double));
    events++;
    return flags ? 1 : 0;
}

int cuEventRecord(double *e, void *stream)
{
    *e = clock_ms;
    return stream ? 1 : 0;
}

int cuEventSynchronize(double *e)
{
    return e ? 0 : 1;
}

#ifndef TOY_BROKEN
int cuEventElapsedTime(float *ms, const double *from, const double *to)
{
    *ms = (float)(*to - *from);
    return 0;
}
#endif

int cuEventDestroy_v2(double *e)
{
    free(e);
    events--;
    return 0;
}

int cuGetErrorString(int code, const char **words)
{
    *words = code == 2 ? "out of memory" : "a toy's error";
    return 0;
}

#endif
