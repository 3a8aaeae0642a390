/* The JSON form: names that are a contract, null for what is not known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "hw/hw.h"

struct parsed {
    struct buf text;
    yyjson_doc *doc;
    yyjson_val *root;
};

static void write_and_parse(const struct hw_inventory *inv, struct parsed *p)
{
    struct err err;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_doc_set_root(doc, hw_json(doc, inv));
    assert_int_equal(json_write(doc, false, &p->text, &err), RC_OK);
    yyjson_mut_doc_free(doc);
    assert_int_equal(json_parse(buf_str(&p->text), "inventory", &p->doc, &err), RC_OK);
    p->root = yyjson_doc_get_root(p->doc);
}

static void release(struct parsed *p)
{
    yyjson_doc_free(p->doc);
    buf_release(&p->text);
}

static yyjson_val *member(yyjson_val *obj, const char *key)
{
    yyjson_val *v = yyjson_obj_get(obj, key);
    if (!v)
        fail_msg("no member %s", key);
    return v;
}

static void everything_known(void **state)
{
    (void)state;
    struct hw_inventory *inv = mem_new(struct hw_inventory);
    struct parsed p = {0};
    struct hw_device *d = &inv->devices[0];
    *d = (struct hw_device){.name = "CUDA0",
                            .vendor = "nvidia",
                            .model = "NVIDIA L4",
                            .uuid = "GPU-1",
                            .pci = "0000:01:00.0",
                            .index = 3,
                            .valid = UINT32_MAX,
                            .total_bytes = 1000 * MIB + 5,
                            .used_bytes = 250 * MIB,
                            .free_bytes = 750 * MIB,
                            .util_pct = 0,
                            .mem_busy_pct = 9,
                            .temperature_c = 44,
                            .throttle_reasons = 0x44,
                            .cc_major = 8,
                            .cc_minor = 9,
                            .numa_node = 1,
                            .bandwidth_gbps = 300.5,
                            .last_xid = 79,
                            .xid_count = 2,
                            .n_processes = 2};
    d->processes[0] = (struct hw_process){.pid = 7, .bytes = 3 * MIB, .bytes_valid = true};
    d->processes[1] = (struct hw_process){.pid = 8, .util_pct = 4, .util_valid = true};
    inv->n_devices = 1;
    inv->cuda_version = 12040;
    inv->host =
        (struct hw_host){.model = "CPU", .logical_cpus = 8, .cgroup_limit_bytes = 9, .cgroup_used_bytes = 4};
    strcpy(inv->driver, "NVIDIA 550");
    strcpy(inv->notes[0], "a note");
    inv->n_notes = 1;
    write_and_parse(inv, &p);
    yyjson_val *g = yyjson_arr_get(member(p.root, "gpus"), 0);
    assert_int_equal(yyjson_get_uint(member(g, "index")), 3);
    assert_string_equal(yyjson_get_str(member(g, "name")), "NVIDIA L4");
    assert_string_equal(yyjson_get_str(member(g, "device")), "CUDA0");
    assert_string_equal(yyjson_get_str(member(g, "uuid")), "GPU-1");
    assert_int_equal(yyjson_get_uint(member(g, "memory_total_mb")), 1000);
    assert_int_equal(yyjson_get_uint(member(g, "memory_used_mb")), 250);
    assert_int_equal(yyjson_get_uint(member(g, "memory_free_mb")), 750);
    assert_int_equal(yyjson_get_uint(member(g, "memory_total_bytes")), 1000 * MIB + 5);
    assert_int_equal(yyjson_get_uint(member(g, "utilization_gpu")), 0);
    assert_true(yyjson_is_uint(member(g, "utilization_gpu"))); /* known to be zero */
    assert_int_equal(yyjson_get_uint(member(g, "utilization_mem")), 9);
    assert_int_equal(yyjson_get_uint(member(g, "temperature_c")), 44);
    assert_true(yyjson_get_real(member(g, "memory_fill_pct")) > 24.9);
    assert_true(yyjson_get_real(member(g, "memory_fill_pct")) < 25.1);
    assert_string_equal(yyjson_get_str(member(g, "compute_capability")), "8.9");
    assert_int_equal(yyjson_get_uint(member(g, "last_xid")), 79);
    assert_int_equal(yyjson_arr_size(member(g, "throttled_by")), 2);
    yyjson_val *processes = member(g, "processes");
    yyjson_val *known = yyjson_arr_get(processes, 0), *other = yyjson_arr_get(processes, 1);
    assert_int_equal(yyjson_get_uint(member(known, "used_memory_mb")), 3);
    assert_true(yyjson_is_null(member(known, "utilization_gpu")));
    assert_true(yyjson_is_null(member(other, "used_memory_mb")));
    assert_true(yyjson_is_null(member(other, "used_memory_bytes")));
    assert_int_equal(yyjson_get_uint(member(other, "utilization_gpu")), 4);
    yyjson_val *h = member(p.root, "host");
    assert_string_equal(yyjson_get_str(member(h, "cpu")), "CPU");
    assert_int_equal(yyjson_get_uint(member(h, "cgroup_limit_bytes")), 9);
    assert_int_equal(yyjson_get_uint(member(h, "cgroup_used_bytes")), 4);
    assert_true(yyjson_is_null(member(h, "bandwidth_gbps")));
    assert_string_equal(yyjson_get_str(member(p.root, "driver")), "NVIDIA 550");
    assert_string_equal(yyjson_get_str(member(p.root, "cuda_version")), "12.4");
    assert_string_equal(yyjson_get_str(yyjson_arr_get(member(p.root, "notes"), 0)), "a note");
    release(&p);
    free(inv);
}

static void nothing_known(void **state)
{
    (void)state;
    static const char *const fixed[] = {"vendor", "index", "device",         "name",
                                        "lost",   "mig",   "unified_memory", "xid_count"};
    struct hw_inventory *inv = mem_new(struct hw_inventory);
    struct parsed p = {0};
    inv->devices[0] = (struct hw_device){
        .name = "CUDA0", .vendor = "nvidia", .model = "X", .total_bytes = 5, .n_processes = 1, .lost = true};
    inv->n_devices = 1;
    inv->host.cgroup_limit_bytes = UINT64_MAX;
    write_and_parse(inv, &p);
    yyjson_val *g = yyjson_arr_get(member(p.root, "gpus"), 0), *key;
    yyjson_obj_iter it = yyjson_obj_iter_with(g);
    size_t n = 0, n_null = 0;
    while ((key = yyjson_obj_iter_next(&it))) {
        bool is_fixed = false;
        for (size_t i = 0; i < TABLE_COUNT(fixed); i++)
            is_fixed |= strcmp(yyjson_get_str(key), fixed[i]) == 0;
        if (yyjson_is_null(yyjson_obj_iter_get_val(key)) == is_fixed)
            fail_msg("%s", yyjson_get_str(key));
        n++;
        n_null += !is_fixed;
    }
    assert_int_equal(n - n_null, TABLE_COUNT(fixed));
    assert_true(n_null > 30);
    assert_true(yyjson_is_null(member(p.root, "driver")));
    assert_true(yyjson_is_null(member(p.root, "cuda_version")));
    assert_true(yyjson_is_null(member(member(p.root, "host"), "cpu")));
    assert_true(yyjson_is_null(member(member(p.root, "host"), "cgroup_limit_bytes")));
    release(&p);
    free(inv);
}

/* Names come from firmware and files: they must never make the document unwritable. */
static void strange_names(void **state)
{
    (void)state;
    struct hw_inventory *inv = mem_new(struct hw_inventory);
    struct parsed p = {0};
    inv->devices[0] = (struct hw_device){.name = "CUDA0", .vendor = "nvidia", .model = "a\xff\"b\n\xc3"};
    inv->n_devices = 1;
    strcpy(inv->host.model, "\x80 CPU");
    strcpy(inv->notes[0], "cut \xe2\x82");
    inv->n_notes = 1;
    write_and_parse(inv, &p);
    assert_string_equal(yyjson_get_str(member(yyjson_arr_get(member(p.root, "gpus"), 0), "name")), "a?\"b??");
    assert_string_equal(yyjson_get_str(member(member(p.root, "host"), "cpu")), "? CPU");
    release(&p);
    free(inv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_known),
        cmocka_unit_test(nothing_known),
        cmocka_unit_test(strange_names),
    };
    return cmocka_run_group_tests_name("hw_json", tests, NULL, NULL);
}
