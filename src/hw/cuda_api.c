/* Loading NVIDIA's driver library and cuBLAS: see cuda_api.h. Layer hw. */
#include "hw/cuda_api.h"

#include "base/mem.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct symbol {
    const char *name;
    size_t slot;
    bool optional;
};

#define CUDA(name, member, optional)                                                                         \
    {                                                                                                        \
        name, offsetof(struct cuda_api, member), optional                                                    \
    }
#define CUBLAS(name, member, optional)                                                                       \
    {                                                                                                        \
        name, offsetof(struct cublas_api, member), optional                                                  \
    }

static const struct symbol cuda_symbols[] = {
    CUDA("cuInit", init, false),
    CUDA("cuDeviceGetCount", count, false),
    CUDA("cuDeviceGet", device, false),
    CUDA("cuDeviceGetName", name, false),
    CUDA("cuDeviceGetUuid_v2", uuid, true),
    CUDA("cuDevicePrimaryCtxRetain", context_retain, false),
    CUDA("cuDevicePrimaryCtxRelease_v2", context_release, false),
    CUDA("cuCtxSetCurrent", context_set, false),
    CUDA("cuCtxSynchronize", synchronize, false),
    CUDA("cuMemGetInfo_v2", memory, false),
    CUDA("cuMemAlloc_v2", alloc, false),
    CUDA("cuMemFree_v2", release, false),
    CUDA("cuMemAllocHost_v2", host_alloc, false),
    CUDA("cuMemFreeHost", host_release, false),
    CUDA("cuMemsetD8_v2", set8, false),
    CUDA("cuMemcpyHtoDAsync_v2", to_device, false),
    CUDA("cuMemcpyDtoHAsync_v2", from_device, false),
    CUDA("cuMemcpyDtoDAsync_v2", copy, false),
    CUDA("cuEventCreate", event_new, false),
    CUDA("cuEventRecord", event_record, false),
    CUDA("cuEventSynchronize", event_wait, false),
    CUDA("cuEventElapsedTime", event_ms, false),
    CUDA("cuEventDestroy_v2", event_free, false),
    CUDA("cuGetErrorString", error_words, true),
};

static const struct symbol cublas_symbols[] = {
    CUBLAS("cublasCreate_v2", create, false),
    CUBLAS("cublasDestroy_v2", destroy, false),
    CUBLAS("cublasGemmEx", gemm, false),
};

static const char *const cuda_names[] = {"libcuda.so.1", "libcuda.so", NULL};
static const char *const cublas_names[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so.11",
                                           "/usr/local/cuda/lib64/libcublas.so", NULL};

static void *open_library(const char *path, const char *const *names)
{
    if (path && path[0])
        return dlopen(path, RTLD_NOW | RTLD_LOCAL);
    for (size_t i = 0; names[i]; i++) {
        void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (library)
            return library;
    }
    return NULL;
}

static enum rc fill(void *library, const struct symbol *symbols, size_t n, const char *what, void *api,
                    struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        void *address = dlsym(library, symbols[i].name);
        if (!address && !symbols[i].optional)
            return err_set(err, RC_UNSUPPORTED, "%s lacks %s", what, symbols[i].name);
        memcpy((char *)api + symbols[i].slot, &address, sizeof address); /* no cast of data to code */
    }
    return RC_OK;
}

enum rc cuda_load(const char *path, struct cuda_api *ret_api, struct err *err)
{
    struct cuda_api api = {0};
    void *library = open_library(path, cuda_names);
    if (!library) {
        enum rc rc = err_set(err, RC_NOT_FOUND, "there is no NVIDIA driver library (libcuda.so.1) here");
        err_hint(err, "install the driver; in a container, pass the GPU in: --gpus all");
        return rc;
    }
    enum rc rc =
        fill(library, cuda_symbols, TABLE_COUNT(cuda_symbols), "the NVIDIA driver library", &api, err);
    if (rc != RC_OK) {
        err_hint(err, "a newer driver has it");
        dlclose(library);
        return rc;
    }
    *ret_api = api;
    return RC_OK;
}

enum rc cublas_load(const char *path, struct cublas_api *ret_api, struct err *err)
{
    struct cublas_api api = {0};
    void *library = open_library(path, cublas_names);
    if (!library) {
        enum rc rc = err_set(err, RC_NOT_FOUND, "there is no cuBLAS (libcublas.so.11 to 13) here");
        err_hint(err, "CUDA's runtime packages bring it; LD_LIBRARY_PATH may name its folder");
        return rc;
    }
    enum rc rc = fill(library, cublas_symbols, TABLE_COUNT(cublas_symbols), "cuBLAS", &api, err);
    if (rc != RC_OK) {
        dlclose(library);
        return rc;
    }
    *ret_api = api;
    return RC_OK;
}

char *cuda_words(const struct cuda_api *api, int code, char *out, size_t cap)
{
    const char *words = NULL;
    if (!api->error_words || api->error_words(code, &words) != CUDA_OK || !words)
        words = "error";
    snprintf(out, cap, "%s (%d)", words, code);
    return out;
}
