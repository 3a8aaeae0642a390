/* GPU measurements against fake libraries: figures that are known, functions that lack or fail, memory that
 * is short; and that nothing is left allocated in any case. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "hw/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char leaks[64];

static int fresh(void **state)
{
    (void)state;
    unsetenv("TOY_CUDA_FAIL");
    unsetenv("TOY_CUDA_GPUS");
    unsetenv("TOY_CUDA_FREE_MIB");
    snprintf(leaks, sizeof leaks, "/tmp/toy-cuda-leaks-XXXXXX");
    int fd = mkstemp(leaks);
    if (fd < 0)
        return -1;
    close(fd);
    setenv("TOY_CUDA_LEAKS", leaks, 1);
    return 0;
}

static int gone(void **state)
{
    (void)state;
    return unlink(leaks);
}

/* How many contexts were given back; none with anything left. */
static unsigned contexts_given_back(void)
{
    FILE *f = fopen(leaks, "r");
    unsigned n = 0;
    size_t bytes;
    int events, pinned, device;
    assert_non_null(f);
    while (fscanf(f, "%zu %d %d %d", &bytes, &events, &pinned, &device) == 4) {
        assert_int_equal(bytes, 0);
        assert_int_equal(events, 0);
        assert_int_equal(pinned, 0);
        n++;
    }
    fclose(f);
    return n;
}

static struct hw_bench_gpu gpus[HW_BENCH_GPUS];
static size_t n_gpus;

static enum rc ask(const char *cuda, const char *cublas, struct err *err)
{
    const struct hw_bench_gpu_options opt = {.cuda_path = cuda ? cuda : getenv("TOY_CUDA"),
                                             .cublas_path = cublas ? cublas : getenv("TOY_CUBLAS"),
                                             .copy_mib = 64};
    const struct hw_bench_control control = {.seconds = 0.001};
    n_gpus = 99;
    return hw_bench_gpus(&opt, &control, gpus, &n_gpus, err);
}

static void near(double a, double b)
{
    if (fabs(a / b - 1) > 1e-3)
        fail_msg("%g is not %g", a, b);
}

static void known_rates_are_found(void **state)
{
    (void)state;
    struct err err;
    setenv("TOY_CUDA_GPUS", "2", 1);
    assert_int_equal(ask(NULL, NULL, &err), RC_OK);
    assert_int_equal(n_gpus, 2);
    for (int i = 0; i < 2; i++) {
        near(gpus[i].copy_gbps, 100);
        near(gpus[i].to_device_gbps, 10);
        near(gpus[i].from_device_gbps, 5);
        near(gpus[i].gemm_ms, 2);
        near(gpus[i].gemm_tflops, 2 * 4096.0 * 4096 * 4096 / 2e-3 * 1e-12);
        assert_string_equal(gpus[i].note, "");
        assert_int_equal(gpus[i].total_bytes, 16384ull << 20);
    }
    assert_string_equal(gpus[1].name, "Toy GPU 1");
    assert_string_equal(gpus[1].uuid, "GPU-01112131-4151-6171-8191-a1b1c1d1e1f1");
    assert_int_equal(contexts_given_back(), 2);
}

static void without_cublas_the_rest_is_measured(void **state)
{
    (void)state;
    struct err err;
    assert_int_equal(ask(NULL, "/nonexistent/libcublas.so", &err), RC_OK);
    near(gpus[0].copy_gbps, 100);
    assert_true(gpus[0].gemm_tflops == 0);
    assert_non_null(strstr(gpus[0].note, "cuBLAS"));
    assert_int_equal(ask(NULL, getenv("TOY_CUBLAS_BROKEN"), &err), RC_OK);
    assert_non_null(strstr(gpus[0].note, "cublasGemmEx"));
    assert_int_equal(contexts_given_back(), 2);
}

static void no_driver_and_no_gpu_have_their_word(void **state)
{
    (void)state;
    struct err err;
    assert_int_equal(ask("/nonexistent/libcuda.so.1", NULL, &err), RC_NOT_FOUND);
    assert_non_null(strstr(err.message, "libcuda"));
    assert_int_equal(ask(getenv("TOY_CUDA_BROKEN"), NULL, &err), RC_UNSUPPORTED);
    assert_non_null(strstr(err.message, "cuEventElapsedTime"));
    setenv("TOY_CUDA_GPUS", "0", 1);
    assert_int_equal(ask(NULL, NULL, &err), RC_NOT_FOUND);
    assert_non_null(strstr(err.hint, "CUDA_VISIBLE_DEVICES"));
    setenv("TOY_CUDA_FAIL", "cuInit=100", 1);
    assert_int_equal(ask(NULL, NULL, &err), RC_NOT_FOUND);
    setenv("TOY_CUDA_FAIL", "cuInit=999", 1);
    assert_int_equal(ask(NULL, NULL, &err), RC_UNSUPPORTED);
    assert_non_null(strstr(err.message, "a toy's error (999)"));
    assert_int_equal(n_gpus, 99);
}

static void each_failure_is_noted_and_leaves_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *fail, *note;
        bool copies, gemm;
    } rows[] = {
        {"cuDevicePrimaryCtxRetain=2", "context: out of memory (2)", false, false},
        {"cuCtxSetCurrent=1", "context", false, false},
        {"cuMemGetInfo_v2=1", "memory", false, false},
        {"cuEventCreate=1", "buffers", false, false},
        {"cuMemAlloc_v2=2", "buffers: out of memory (2)", false, false},
        {"cuMemAllocHost_v2=2", "pinned host memory: out of memory (2)", true, true},
        {"cuMemcpyDtoDAsync_v2=719", "device memory: a toy's error (719)", false, true},
        {"cuMemcpyHtoDAsync_v2=1", "transfer to the GPU", true, true},
        {"cublasCreate_v2=1", "cuBLAS status 1", true, false},
        {"cublasGemmEx=13", "product in half precision", true, false},
    };
    struct err err;
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        setenv("TOY_CUDA_FAIL", rows[i].fail, 1);
        assert_int_equal(ask(NULL, NULL, &err), RC_OK);
        if (!strstr(gpus[0].note, rows[i].note))
            fail_msg("%s: %s", rows[i].fail, gpus[0].note);
        assert_int_equal(gpus[0].copy_gbps > 0, rows[i].copies);
        assert_int_equal(gpus[0].gemm_tflops > 0, rows[i].gemm);
    }
    assert_int_equal(contexts_given_back(), TABLE_COUNT(rows) - 1); /* one was never had */
}

static void a_full_card_is_left_alone(void **state)
{
    (void)state;
    struct err err;
    setenv("TOY_CUDA_FREE_MIB", "400", 1);
    assert_int_equal(ask(NULL, NULL, &err), RC_OK);
    assert_non_null(strstr(gpus[0].note, "400 MiB free are too few"));
    assert_true(gpus[0].copy_gbps == 0 && gpus[0].gemm_tflops == 0);
    assert_int_equal(contexts_given_back(), 1);
}

static bool at_once(void *arg)
{
    return ++*(int *)arg > 3;
}

static void breaking_off_gives_all_back(void **state)
{
    (void)state;
    struct err err;
    int calls = 0;
    const struct hw_bench_gpu_options opt = {.cuda_path = getenv("TOY_CUDA"),
                                             .cublas_path = getenv("TOY_CUBLAS")};
    const struct hw_bench_control control = {.cancelled = at_once, .arg = &calls};
    size_t n = 7;
    assert_int_equal(hw_bench_gpus(&opt, &control, gpus, &n, &err), RC_CANCELLED);
    assert_int_equal(n, 7);
    assert_int_equal(contexts_given_back(), 1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, fresh, gone)
    const struct CMUnitTest tests[] = {
        T(known_rates_are_found),
        T(without_cublas_the_rest_is_measured),
        T(no_driver_and_no_gpu_have_their_word),
        T(each_failure_is_noted_and_leaves_nothing),
        T(a_full_card_is_left_alone),
        T(breaking_off_gives_all_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
