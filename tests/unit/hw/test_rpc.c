/* Workers of llama.cpp's RPC backend: sizes, a worker that serves another, one that is not there, hostile
 * answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "hw/hw_priv.h"
#include "worker.h"

#define GIB (UINT64_C(1) << 30)

struct world {
    void *adapter;
    struct hw_inventory inv;
};

static void open_with(struct world *w, const char *const *endpoints, size_t n)
{
    const struct hw_roots roots = {.proc = "/proc", .sys = "/sys", .rpc = endpoints, .n_rpc = n};
    struct err err;
    *w = (struct world){0};
    assert_int_equal(hw_adapter_rpc.open(&roots, &w->adapter, &err), RC_OK);
}

static void sample(struct world *w)
{
    w->inv.n_devices = w->inv.n_notes = 0;
    hw_adapter_rpc.sample(w->adapter, &w->inv);
}

/* The question rests a while between two answers: asks until it has been put again. */
static void sample_until(struct world *w, bool in_use, uint64_t free_bytes)
{
    for (int i = 0; i < 1000; i++) {
        sample(w);
        if (w->inv.devices[0].in_use == in_use && w->inv.devices[0].free_bytes == free_bytes)
            return;
        usleep(10000);
    }
    fail_msg("in use %d, %llu bytes free", w->inv.devices[0].in_use,
             (unsigned long long)w->inv.devices[0].free_bytes);
}

static void test_sizes(void **state)
{
    (void)state;
    struct world w;
    struct worker a = {.devices = 2, .free_bytes = 5 * GIB, .total_bytes = 8 * GIB};
    struct worker b = {.devices = 1, .free_bytes = 9 * GIB, .total_bytes = 6 * GIB, .plain_hello = true};
    worker_start(&a);
    worker_start(&b);
    const char *const endpoints[] = {a.endpoint, "no endpoint", b.endpoint};
    open_with(&w, endpoints, 3);
    for (int i = 0; i < 100 && (i == 0 || w.inv.devices[2].lost); i++)
        sample(&w); /* the older greeting is the second to be tried */
    assert_int_equal(w.inv.n_devices, 3);
    const struct hw_device *d = w.inv.devices;
    assert_string_equal(d[0].name, "RPC0");
    assert_string_equal(d[1].name, "RPC1");
    assert_string_equal(d[2].name, "RPC2");
    assert_int_equal(d[1].total_bytes, 8 * GIB);
    assert_int_equal(d[1].free_bytes, 5 * GIB);
    assert_int_equal(d[1].used_bytes, 3 * GIB);
    assert_true(strstr(d[1].uuid, a.endpoint) == d[1].uuid);
    assert_string_equal(d[1].uuid + strlen(a.endpoint), "/1");
    assert_string_equal(d[2].uuid, b.endpoint);
    assert_int_equal(d[2].free_bytes, 6 * GIB); /* never more than there is */
    assert_false(d[0].in_use || d[0].lost || d[2].lost);
    a.free_bytes = 4 * GIB; /* another took some */
    sample_until(&w, false, 4 * GIB);
    hw_adapter_rpc.close(w.adapter);
    worker_stop(&a);
    worker_stop(&b);
    assert_int_equal(a.abandoned + b.abandoned, 0);
}

static void test_a_busy_worker_is_left_in_peace(void **state)
{
    (void)state;
    struct world w;
    struct worker a = {.devices = 1, .free_bytes = GIB, .total_bytes = GIB};
    worker_start(&a);
    const char *const endpoints[] = {a.endpoint};
    open_with(&w, endpoints, 1);
    sample(&w);
    assert_false(w.inv.devices[0].in_use);
    int client = worker_connect(&a);
    sample_until(&w, true, GIB); /* its sizes are the last known */
    assert_true(w.inv.devices[0].valid & HW_MEMORY);
    assert_false(w.inv.devices[0].lost);
    close(client);
    sample_until(&w, false, GIB);
    client = worker_connect(&a);
    sample_until(&w, true, GIB);
    hw_adapter_rpc.close(w.adapter); /* with a knock unanswered */
    open_with(&w, endpoints, 1);
    sample(&w); /* it never told its size to this one */
    assert_true(w.inv.devices[0].in_use && !w.inv.devices[0].lost);
    assert_false(w.inv.devices[0].valid & HW_MEMORY);
    assert_non_null(strstr(w.inv.notes[0], "serves another client"));
    hw_adapter_rpc.close(w.adapter);
    close(client);
    worker_stop(&a);
    assert_int_equal(a.abandoned, 0);
}

static void test_absent_and_hostile(void **state)
{
    (void)state;
    struct world w;
    struct worker gone = {.devices = 1}, none = {.devices = 0}, many = {.devices = 4000000000u},
                  lies = {.devices = 1, .lies = true, .free_bytes = 1, .total_bytes = 2};
    struct worker *all[] = {&gone, &none, &many, &lies};
    const char *endpoints[4];
    for (size_t i = 0; i < 4; i++) {
        worker_start(all[i]);
        endpoints[i] = all[i]->endpoint;
    }
    worker_stop(&gone);
    open_with(&w, endpoints, 4);
    sample(&w);
    assert_int_equal(w.inv.n_devices, 4); /* each keeps its place */
    assert_int_equal(w.inv.n_notes, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_true(w.inv.devices[i].lost);
        assert_false(w.inv.devices[i].valid & HW_MEMORY);
        assert_true(strstr(w.inv.notes[i], endpoints[i]) != NULL);
    }
    hw_adapter_rpc.close(w.adapter);
    for (size_t i = 1; i < 4; i++)
        worker_stop(all[i]);
}

static void test_endpoints(void **state)
{
    (void)state;
    const char *const good[] = {"127.0.0.1:50052", "gpu-box.lan:1", "h:65535"};
    const char *const bad[] = {"", ":1", "h:", "h:0", "h:65536", "h:x", "h", "a:1,b:2", "::1:50052"};
    for (size_t i = 0; i < TABLE_COUNT(good); i++)
        assert_true(hw_rpc_endpoint_ok(str_from(good[i])));
    for (size_t i = 0; i < TABLE_COUNT(bad); i++)
        assert_false(hw_rpc_endpoint_ok(str_from(bad[i])));
    char longest[200];
    memset(longest, 'a', sizeof longest);
    memcpy(longest + sizeof longest - 3, ":1", 3);
    assert_false(hw_rpc_endpoint_ok(str_from(longest)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_a_busy_worker_is_left_in_peace),
        cmocka_unit_test(test_absent_and_hostile),
        cmocka_unit_test(test_endpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
