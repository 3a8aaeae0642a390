/* Measurements of the host: that products are right in the form this processor uses, that figures are there,
 * that breaking off and bad input end as promised. No figure is compared with a limit: it is the machine's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "hw/bench.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void products_are_right(void **state)
{
    (void)state;
    enum { N = 64 };
    static float a[N * N], b[N * N], c[N * N];
    static uint8_t u[N * N];
    static int8_t s[N * N];
    static int32_t t[N * N];
    for (int i = 0; i < N * N; i++) {
        a[i] = (float)(i % 13) - 6;
        b[i] = (float)(i % 7) - 3;
        u[i] = (uint8_t)(i * 31 % 128);
        s[i] = (int8_t)(i * 17 % 255 - 127);
    }
    hw_bench_fp32_product(a, b, c, N);
    hw_bench_int8_product(u, s, t, N);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            float f = 0;
            int32_t d = 0;
            for (int k = 0; k < N; k++) {
                f += a[i * N + k] * b[k * N + j];
                d += u[i * N + k] * s[j * N + k];
            }
            assert_true(fabsf(f - c[i * N + j]) < 1e-3f);
            assert_int_equal(d, t[i * N + j]);
        }
}

struct seen {
    unsigned calls;
    unsigned cancel_after; /* 0 = never */
    bool memory, products;
};

static bool cancelled(void *arg)
{
    struct seen *s = arg;
    return ++s->calls == s->cancel_after || (s->cancel_after && s->calls > s->cancel_after);
}

static void progress(void *arg, const char *what, double share)
{
    struct seen *s = arg;
    assert_true(share >= 0 && share <= 1);
    s->memory |= !strcmp(what, "memory");
    s->products |= strstr(what, "products") != NULL;
}

static void the_host_is_measured(void **state)
{
    (void)state;
    struct seen seen = {0};
    const struct hw_bench_control control = {cancelled, progress, &seen, 0.001};
    struct hw_bench_host h;
    struct err err;
    assert_int_equal(hw_bench_host(3, 1024 * MIB, &control, &h, &err), RC_OK);
    assert_int_equal(h.n_steps, 3);
    assert_int_equal(h.steps[0].threads, 1);
    assert_int_equal(h.steps[1].threads, 2);
    assert_int_equal(h.steps[2].threads, 3);
    assert_int_equal(h.buffer_bytes, 128 * MIB);
    assert_true(h.read_core_gbps > 0 && h.read_gbps >= h.read_core_gbps);
    assert_true(h.fp32_core_gflops > 0 && h.fp32_gflops > 0 && h.int8_core_gops > 0 && h.int8_gops > 0);
    assert_non_null(h.fp32_form);
    assert_non_null(h.int8_form);
    assert_true(seen.memory && seen.products);
}

static void breaking_off_leaves_nothing(void **state)
{
    (void)state;
    for (unsigned after = 1; after < 40; after += 6) {
        struct seen seen = {.cancel_after = after};
        const struct hw_bench_control control = {cancelled, progress, &seen, 0.001};
        struct hw_bench_host h = {.n_steps = 99};
        struct err err;
        enum rc rc = hw_bench_host(2, 1024 * MIB, &control, &h, &err);
        assert_true(rc == RC_CANCELLED || rc == RC_OK);
        if (rc == RC_CANCELLED)
            assert_int_equal(h.n_steps, 99);
        if (after == 1)
            assert_int_equal(rc, RC_CANCELLED);
    }
}

static void too_little_memory_is_said(void **state)
{
    (void)state;
    struct hw_bench_host h;
    struct err err;
    assert_int_equal(hw_bench_host(1, 100 * MIB, NULL, &h, &err), RC_NOMEM);
    assert_non_null(strstr(err.message, "100 MiB"));
}

static char *file_of(uint64_t bytes)
{
    const char *dir = getenv("TMPDIR");
    char *path = mem_printf("%s/bench-XXXXXX", dir ? dir : "/tmp");
    int fd = mkstemp(path);
    char piece[4096];
    memset(piece, 7, sizeof piece);
    assert_true(fd >= 0);
    for (uint64_t at = 0; at < bytes; at += sizeof piece)
        assert_int_equal(write(fd, piece, sizeof piece), (ssize_t)sizeof piece);
    close(fd);
    return path;
}

static void a_file_is_read_within_its_bound(void **state)
{
    (void)state;
    char *path = file_of(24 * MIB), *brief = file_of(1 * MIB);
    struct hw_bench_disk d = {0};
    struct err err;
    assert_int_equal(hw_bench_disk(path, 16 * MIB, NULL, &d, &err), RC_OK);
    assert_int_equal(d.bytes, 16 * MIB);
    assert_true(d.read_gbps > 0);
    assert_int_equal(hw_bench_disk(path, 0, NULL, &d, &err), RC_OK);
    assert_int_equal(d.bytes, 24 * MIB);
    assert_int_equal(hw_bench_disk(brief, 0, NULL, &d, &err), RC_INVALID);
    assert_non_null(strstr(err.message, brief));
    struct seen seen = {.cancel_after = 2};
    const struct hw_bench_control control = {cancelled, NULL, &seen, 0};
    assert_int_equal(hw_bench_disk(path, 0, &control, &d, &err), RC_CANCELLED);
    unlink(path);
    unlink(brief);
    assert_int_equal(hw_bench_disk(path, 0, NULL, &d, &err), RC_IO);
    assert_int_equal(hw_bench_disk("/dev/zero", 0, NULL, &d, &err), RC_INVALID);
    free(path);
    free(brief);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_right),
        cmocka_unit_test(the_host_is_measured),
        cmocka_unit_test(breaking_off_leaves_nothing),
        cmocka_unit_test(too_little_memory_is_said),
        cmocka_unit_test(a_file_is_read_within_its_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
