/* Every adapter of the table keeps the contract of hw_priv.h; then AMD through its files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "hw/hw_priv.h"
#include "tree.h"
#include "worker.h"

struct world {
    struct tree t;
    struct hw_inventory inv;
};

static int setup(void **state)
{
    struct world *w = mem_new(struct world);
    tree_make(&w->t);
    tree_put_host(&w->t, 65536, 60000);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    tree_remove(&w->t);
    free(w);
    return 0;
}

#define PCI(address, file) "sys/bus/pci/devices/" address "/" file

static void put_amd(const struct tree *t)
{
    tree_put(t, PCI("0000:03:00.0", "vendor"), "0x1002\n");
    tree_put(t, PCI("0000:03:00.0", "class"), "0x030000\n");
    tree_put(t, PCI("0000:03:00.0", "device"), "0x744c\n");
    tree_put(t, PCI("0000:03:00.0", "unique_id"), "a1b2c3d4e5f60718\n");
    tree_put(t, PCI("0000:03:00.0", "mem_info_vram_total"), "25753026560\n");
    tree_put(t, PCI("0000:03:00.0", "mem_info_vram_used"), "1073741824\n");
    tree_put(t, PCI("0000:03:00.0", "gpu_busy_percent"), "42\n");
    tree_put(t, PCI("0000:03:00.0", "mem_busy_percent"), "7\n");
    tree_put(t, PCI("0000:03:00.0", "current_link_speed"), "16.0 GT/s PCIe\n");
    tree_put(t, PCI("0000:03:00.0", "current_link_width"), "16\n");
    tree_put(t, PCI("0000:03:00.0", "max_link_speed"), "2.5 GT/s PCIe\n");
    tree_put(t, PCI("0000:03:00.0", "max_link_width"), "8\n");
    tree_put(t, PCI("0000:03:00.0", "numa_node"), "1\n");
    tree_put(t, PCI("0000:03:00.0", "hwmon/hwmon3/temp1_input"), "58000\n");
    tree_put(t, PCI("0000:03:00.0", "hwmon/hwmon3/temp1_crit"), "100000\n");
    tree_put(t, PCI("0000:03:00.0", "hwmon/hwmon3/power1_average"), "215000000\n");
    tree_put(t, PCI("0000:03:00.0", "hwmon/hwmon3/power1_cap"), "303000000\n");
    tree_put(t, PCI("0000:03:00.0", "hwmon/hwmon3/freq1_input"), "2304000000\n");
    tree_put(t, PCI("0000:03:00.0", "hwmon/hwmon3/freq2_input"), "1249000000\n");
}

static void put_second_amd(const struct tree *t)
{
    tree_put(t, PCI("0000:83:00.0", "vendor"), "0x1002\n");
    tree_put(t, PCI("0000:83:00.0", "class"), "0x120000\n");
    tree_put(t, PCI("0000:83:00.0", "device"), "0x74a1\n");
    tree_put(t, PCI("0000:83:00.0", "product_name"), "AMD Instinct MI300X\n");
    tree_put(t, PCI("0000:83:00.0", "mem_info_vram_total"), "206141652992\n");
    tree_put(t, PCI("0000:83:00.0", "mem_info_vram_used"), "300000000\n");
    tree_put(t, PCI("0000:83:00.0", "hwmon/hwmon9/power1_input"), "140000000\n");
}

/* All vendors at once: what each adapter sees must be told apart and well formed. */
static void conformance(void **state)
{
    struct world *w = *state;
    size_t n;
    const struct hw_adapter *const *table = hw_adapters(&n);
    char scenario[160];
    struct worker worker = {.devices = 1, .free_bytes = 90, .total_bytes = 100};
    worker_start(&worker);
    const char *workers[] = {worker.endpoint};
    struct hw_roots roots = {
        .proc = w->t.proc, .sys = w->t.sys, .nvml = getenv("TOY_NVML"), .rpc = workers, .n_rpc = 1};
    put_amd(&w->t);
    tree_put(&w->t, "scenario", "gpu\nname A\nuuid GPU-a\npci 0:1:0\nmemory 1000 0 10\n");
    (void)snprintf(scenario, sizeof(scenario), "%s/scenario", w->t.root);
    (void)setenv("ARRIERO_TOY_NVML", scenario, 1);
    assert_true(n >= 2);
    for (size_t i = 0; i < n; i++) {
        void *adapter = NULL;
        struct err err = {0};
        assert_non_null(table[i]->name);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(table[i]->name, table[k]->name);
        table[i]->close(NULL);
        assert_int_equal(table[i]->open(&roots, &adapter, &err), RC_OK);
        for (int round = 0; round < 2; round++) {
            w->inv.n_devices = 0;
            table[i]->sample(adapter, &w->inv);
            assert_int_equal(w->inv.n_devices, 1);
            const struct hw_device *d = &w->inv.devices[0];
            assert_string_equal(d->vendor, table[i]->name);
            assert_true(d->name[0] && d->model[0]);
            assert_true(d->valid & HW_MEMORY);
            assert_true(d->total_bytes >= d->free_bytes && d->free_bytes > 0);
        }
        w->inv.n_devices = HW_MAX_DEVICES; /* no room */
        table[i]->sample(adapter, &w->inv);
        assert_int_equal(w->inv.n_devices, HW_MAX_DEVICES);
        table[i]->close(adapter);
    }
    worker_stop(&worker);
}

static void nothing_there(void **state)
{
    struct world *w = *state;
    size_t n;
    const struct hw_adapter *const *table = hw_adapters(&n);
    struct hw_roots roots = {.proc = w->t.proc, .sys = w->t.sys, .nvml = "/nonexistent/libnvidia-ml.so.1"};
    for (size_t i = 0; i < n; i++) {
        void *adapter = (void *)1;
        struct err err = {0};
        assert_true(table[i]->open(&roots, &adapter, &err) != RC_OK);
        assert_true(err.message[0]);
        assert_ptr_equal(adapter, (void *)1); /* untouched */
    }
    hw_close(tree_open(&w->t, "/nonexistent/libnvidia-ml.so.1", &w->inv));
    assert_int_equal(w->inv.n_devices, 0);
    assert_int_equal(w->inv.n_notes, n);
}

static void amd_cards(void **state)
{
    struct world *w = *state;
    put_second_amd(&w->t);
    put_amd(&w->t);
    struct hw *hw = tree_open(&w->t, NULL, &w->inv);
    assert_int_equal(w->inv.n_devices, 2);
    const struct hw_device *d = &w->inv.devices[0], *e = &w->inv.devices[1];
    assert_string_equal(d->name, "ROCm0");
    assert_string_equal(d->pci, "0000:03:00.0");
    assert_string_equal(d->uuid, "GPU-a1b2c3d4e5f60718");
    assert_string_equal(d->model, "AMD GPU [1002:744c]");
    assert_int_equal(d->total_bytes, 25753026560);
    assert_int_equal(d->free_bytes, 25753026560 - 1073741824);
    assert_int_equal(d->util_pct, 42);
    assert_int_equal(d->mem_busy_pct, 7);
    assert_int_equal(d->temperature_c, 58);
    assert_int_equal(d->temp_slowdown_c, 100);
    assert_int_equal(d->power_mw, 215000);
    assert_int_equal(d->power_limit_mw, 303000);
    assert_int_equal(d->clock_sm_mhz, 2304);
    assert_int_equal(d->clock_mem_mhz, 1249);
    assert_int_equal(d->pcie_gen, 4);
    assert_int_equal(d->pcie_width, 16);
    assert_int_equal(d->pcie_gen_max, 1);
    assert_int_equal(d->numa_node, 1);
    assert_int_equal(d->valid, HW_MEMORY | HW_UTIL | HW_MEM_BUSY | HW_TEMPERATURE | HW_TEMP_SLOWDOWN |
                                   HW_POWER | HW_POWER_LIMIT | HW_CLOCKS | HW_PCIE | HW_PCIE_MAX | HW_NUMA |
                                   HW_UUID | HW_PCI);
    assert_string_equal(e->name, "ROCm1");
    assert_string_equal(e->model, "AMD Instinct MI300X");
    assert_int_equal(e->power_mw, 140000);
    assert_int_equal(e->valid, HW_MEMORY | HW_POWER | HW_PCI);
    tree_put(&w->t, PCI("0000:03:00.0", "mem_info_vram_used"), "2147483648\n");
    tree_put(&w->t, PCI("0000:83:00.0", "mem_info_vram_used"), "garbage\n");
    struct err err;
    assert_int_equal(hw_sample(hw, &w->inv, &err), RC_OK);
    assert_int_equal(d->used_bytes, 2147483648);
    assert_string_equal(e->model, "AMD Instinct MI300X");
    assert_false(e->valid & HW_MEMORY);
    assert_int_equal(e->total_bytes, 0);
    assert_non_null(strstr(w->inv.notes[0], "ROCm1 at 0000:83:00.0 no longer answers"));
    hw_close(hw);
}

static void amd_without_driver(void **state)
{
    struct world *w = *state;
    tree_put(&w->t, PCI("0000:03:00.0", "vendor"), "0x1002\n");
    tree_put(&w->t, PCI("0000:03:00.0", "class"), "0x030000\n");
    tree_put(&w->t, PCI("0000:03:00.1", "vendor"), "0x1002\n");
    tree_put(&w->t, PCI("0000:03:00.1", "class"), "0x040300\n"); /* its audio */
    hw_close(tree_open(&w->t, "/nonexistent/libnvidia-ml.so.1", &w->inv));
    assert_int_equal(w->inv.n_devices, 0);
    assert_int_equal(w->inv.n_notes, 3);
    assert_non_null(strstr(w->inv.notes[2], "0000:03:00.0 is not driven by amdgpu"));
}

static void pci_bus(void **state)
{
    struct world *w = *state;
    struct hw_roots roots = {.proc = w->t.proc, .sys = w->t.sys};
    struct hw_pci list[4];
    assert_int_equal(hw_pci_find(&roots, 0x10de, list, 4), 0);
    tree_put(&w->t, PCI("0000:81:00.0", "vendor"), "0x10de\n");
    tree_put(&w->t, PCI("0000:81:00.0", "class"), "0x030200\n");
    tree_put(&w->t, PCI("0000:01:00.0", "vendor"), "0x10de\n");
    tree_put(&w->t, PCI("0000:01:00.0", "class"), "0x030000\n");
    tree_link(&w->t, PCI("0000:01:00.0", "driver"), "../../../bus/pci/drivers/nouveau");
    tree_put(&w->t, PCI("0000:02:00.0", "vendor"), "10de hostile\n");
    tree_put(&w->t, PCI("0000:02:00.0", "class"), "0x030000\n");
    tree_put(&w->t, PCI("0000:01:00.0.and.a.name.that.is.far.too.long", "vendor"), "0x10de\n");
    assert_int_equal(hw_pci_find(&roots, 0x10de, list, 4), 2);
    assert_string_equal(list[0].address, "0000:01:00.0");
    assert_string_equal(list[0].driver, "nouveau");
    assert_string_equal(list[1].address, "0000:81:00.0");
    assert_string_equal(list[1].driver, "");
    assert_int_equal(hw_pci_find(&roots, 0x10de, list, 1), 1);
}

static void notes(void **state)
{
    struct world *w = *state;
    char longer[400];
    memset(longer, 'n', sizeof(longer));
    longer[sizeof(longer) - 1] = '\0';
    for (int i = 0; i < 3; i++)
        hw_note(&w->inv, "the same");
    assert_int_equal(w->inv.n_notes, 1);
    hw_note(&w->inv, "%s", longer);
    assert_int_equal(strlen(w->inv.notes[1]), sizeof(w->inv.notes[1]) - 1);
    for (int i = 0; i < 20; i++)
        hw_note(&w->inv, "%d", i);
    assert_int_equal(w->inv.n_notes, 4);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(conformance), T(nothing_there), T(amd_cards), T(amd_without_driver), T(pci_bus), T(notes),
    };
    return cmocka_run_group_tests_name("hw_adapters", tests, NULL, NULL);
}
