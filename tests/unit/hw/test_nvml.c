/* The NVIDIA adapter against the toy library: what drivers say, and what they do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "hw/nvml_api.h"
#include "tree.h"

static const char full_card[] =
    "gpu\nname NVIDIA GeForce RTX 4090\nuuid GPU-aaaa-0001\npci 0000:01:00\ncc 8 9\n"
    "memory 24564 300 1000\nutil 37 12\ntemperature 61 90\npower 120500 450000 450000\n"
    "clocks 2520 10251 10501\nbus 384\npcie 3 8 4 16\nthrottle 4\nbar1 256 5\n"
    "persistence 1\ntraffic 700 300\n";

struct world {
    struct tree t;
    struct hw_inventory inv;
};

static int setup(void **state)
{
    struct world *w = mem_new(struct world);
    char path[160];
    tree_make(&w->t);
    tree_put_host(&w->t, 65536, 60000);
    (void)snprintf(path, sizeof(path), "%s/scenario", w->t.root);
    (void)setenv("ARRIERO_TOY_NVML", path, 1);
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

#define scenario(w, ...) tree_put(&(w)->t, "scenario", __VA_ARGS__)

static struct hw *open_with(struct world *w, const char *variable)
{
    const char *library = getenv(variable);
    assert_non_null(library);
    return tree_open(&w->t, library, &w->inv);
}

static void sample_once(struct world *w)
{
    hw_close(open_with(w, "TOY_NVML"));
}

static void resample(struct world *w, struct hw *hw)
{
    struct err err;
    assert_int_equal(hw_sample(hw, &w->inv, &err), RC_OK);
}

static bool noted(const struct world *w, const char *part)
{
    for (size_t i = 0; i < w->inv.n_notes; i++)
        if (strstr(w->inv.notes[i], part))
            return true;
    return false;
}

static void one_card(void **state)
{
    struct world *w = *state;
    scenario(w, "driver 550.54.15\ncuda 12040\n%s", full_card);
    sample_once(w);
    const struct hw_device *d = &w->inv.devices[0];
    assert_int_equal(w->inv.n_devices, 1);
    assert_int_equal(w->inv.n_notes, 0);
    assert_string_equal(w->inv.driver, "NVIDIA 550.54.15");
    assert_int_equal(w->inv.cuda_version, 12040);
    assert_string_equal(d->name, "CUDA0");
    assert_string_equal(d->vendor, "nvidia");
    assert_string_equal(d->model, "NVIDIA GeForce RTX 4090");
    assert_string_equal(d->uuid, "GPU-aaaa-0001");
    assert_string_equal(d->pci, "0000:01:00.0");
    assert_int_equal(d->total_bytes, 24564 * MIB);
    assert_int_equal(d->reserved_bytes, 300 * MIB);
    assert_int_equal(d->used_bytes, 1000 * MIB);
    assert_int_equal(d->free_bytes, (24564 - 1300) * MIB);
    assert_int_equal(d->util_pct, 37);
    assert_int_equal(d->mem_busy_pct, 12);
    assert_int_equal(d->temperature_c, 61);
    assert_int_equal(d->temp_slowdown_c, 90);
    assert_int_equal(d->power_mw, 120500);
    assert_int_equal(d->power_limit_mw, 450000);
    assert_int_equal(d->power_default_mw, 450000);
    assert_int_equal(d->clock_sm_mhz, 2520);
    assert_int_equal(d->clock_mem_mhz, 10251);
    assert_int_equal(d->clock_mem_max_mhz, 10501);
    assert_int_equal(d->bus_width_bits, 384);
    assert_true(d->bandwidth_gbps > 1008.0 && d->bandwidth_gbps < 1008.2);
    assert_int_equal(d->pcie_gen, 3);
    assert_int_equal(d->pcie_width, 8);
    assert_int_equal(d->pcie_gen_max, 4);
    assert_int_equal(d->pcie_width_max, 16);
    assert_int_equal(d->throttle_reasons, 4);
    assert_int_equal(d->cc_major, 8);
    assert_int_equal(d->cc_minor, 9);
    assert_int_equal(d->bar1_total_bytes, 256 * MIB);
    assert_int_equal(d->bar1_used_bytes, 5 * MIB);
    assert_true(d->persistence);
    assert_int_equal(d->n_processes, 0);
    /* all bits but the two that this machine cannot have */
    assert_int_equal(d->valid, 0x3fffff & ~(HW_NUMA | HW_PCIE_RATE));
}

/* CUDA numbers by PCI address; the library here does not. */
static void order(void **state)
{
    struct world *w = *state;
    scenario(w, "gpu\nname C\nuuid GPU-c\npci 0000:81:00\nmemory 48000 0 0\n"
                "gpu\nname A\nuuid GPU-a\npci 0000:01:00\nmemory 12000 0 0\n"
                "gpu\nname D\nuuid GPU-d\npci 0001:01:00\nmemory 24000 0 0\n"
                "gpu\nname B\nuuid GPU-b\npci 0000:01:01\nmemory 8000 0 0\n");
    tree_put(&w->t, "sys/bus/pci/devices/0000:81:00.0/numa_node", "1\n");
    tree_put(&w->t, "sys/bus/pci/devices/0000:01:00.0/numa_node", "-1\n");
    sample_once(w);
    assert_int_equal(w->inv.n_devices, 4);
    for (unsigned i = 0; i < 4; i++) {
        char name[16], model[2] = {(char)('A' + i), 0};
        (void)snprintf(name, sizeof(name), "CUDA%u", i);
        assert_string_equal(w->inv.devices[i].name, name);
        assert_string_equal(w->inv.devices[i].model, model);
    }
    assert_int_equal(w->inv.devices[0].index, 1); /* the library's own */
    assert_int_equal(w->inv.devices[2].total_bytes, 48000 * MIB);
    assert_int_equal(w->inv.devices[2].numa_node, 1);
    assert_true(w->inv.devices[2].valid & HW_NUMA);
    assert_false(w->inv.devices[0].valid & HW_NUMA);
}

static void many_cards(void **state)
{
    struct world *w = *state;
    for (unsigned n = 1; n <= 18; n++) {
        char text[2048] = "";
        for (unsigned i = 0; i < n; i++) {
            size_t at = strlen(text);
            (void)snprintf(text + at, sizeof(text) - at, "gpu\nname G\npci 0:%x:0\nmemory %u 0 0\n", i + 1,
                           1000 + i);
        }
        scenario(w, "%s", text);
        sample_once(w);
        assert_int_equal(w->inv.n_devices, n < HW_MAX_DEVICES ? n : HW_MAX_DEVICES);
        for (unsigned i = 0; i < w->inv.n_devices; i++)
            assert_int_equal(w->inv.devices[i].total_bytes, (1000 + i) * MIB);
        assert_true(noted(w, "left out") == (n > HW_MAX_DEVICES));
    }
}

/* A row of the table, the function that feeds it refused: one bit goes, and no other. */
static void one_reading_missing(void **state)
{
    static const struct {
        const char *function;
        uint32_t bits;
    } rows[] = {
        {"nvmlDeviceGetUtilizationRates", HW_UTIL | HW_MEM_BUSY},
        {"nvmlDeviceGetPowerUsage", HW_POWER},
        {"nvmlDeviceGetEnforcedPowerLimit", HW_POWER_LIMIT},
        {"nvmlDeviceGetPowerManagementDefaultLimit", HW_POWER_DEFAULT},
        {"nvmlDeviceGetClockInfo", HW_CLOCKS},
        {"nvmlDeviceGetCurrPcieLinkWidth", HW_PCIE},
        {"nvmlDeviceGetCurrPcieLinkGeneration", HW_PCIE},
        {"nvmlDeviceGetMaxPcieLinkGeneration", HW_PCIE_MAX},
        {"nvmlDeviceGetCudaComputeCapability", HW_COMPUTE_CAP},
        {"nvmlDeviceGetCurrentClocksEventReasons", HW_THROTTLE},
        {"nvmlDeviceGetTemperatureThreshold", HW_TEMP_SLOWDOWN},
        {"nvmlDeviceGetBAR1MemoryInfo", HW_BAR1},
        {"nvmlDeviceGetPersistenceMode", HW_PERSISTENCE},
        {"nvmlDeviceGetComputeRunningProcesses_v3", HW_PROCESSES},
        {"nvmlDeviceGetMemoryBusWidth", HW_BUS_WIDTH}, /* bandwidth comes from the table then */
        {"nvmlDeviceGetUUID", HW_UUID},
        {"nvmlDeviceGetPciInfo_v3", HW_PCI},
    };
    struct world *w = *state;
    scenario(w, "%s", full_card);
    sample_once(w);
    uint32_t all = w->inv.devices[0].valid;
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        scenario(w, "%sfail %s 3\n", full_card, rows[i].function);
        sample_once(w);
        assert_int_equal(w->inv.n_devices, 1);
        if (w->inv.devices[0].valid != (all & ~rows[i].bits))
            fail_msg("%s: bits %x", rows[i].function, w->inv.devices[0].valid);
        assert_int_equal(w->inv.n_notes, 0);
    }
}

static void bandwidth(void **state)
{
    struct world *w = *state;
    scenario(w, "%sfail nvmlDeviceGetMemoryBusWidth 3\n", full_card);
    sample_once(w);
    assert_true(w->inv.devices[0].bandwidth_gbps == 1008);
    scenario(w, "gpu\nname NVIDIA Unheard Of\nmemory 1000 0 0\n");
    sample_once(w);
    assert_false(w->inv.devices[0].valid & HW_BANDWIDTH);
    static const struct {
        const char *name;
        double gbps;
    } names[] = {
        {"NVIDIA GeForce RTX 3080 Ti", 912},
        {"NVIDIA GeForce RTX 3080", 760},
        {"NVIDIA A10", 600},
        {"NVIDIA A100-SXM4-40GB", 1555},
        {"NVIDIA A100-SXM4-80GB", 2039},
        {"Tesla V100-SXM2-16GB", 900},
        {"NVIDIA GeForce RTX 3080 Laptop GPU", 0},
        {"NVIDIA GB10", 273},
        {"", 0},
        {"NVIDIA A1000", 0},
    };
    for (size_t i = 0; i < TABLE_COUNT(names); i++)
        if (hw_bandwidth_of(names[i].name) != names[i].gbps)
            fail_msg("%s: %f", names[i].name, hw_bandwidth_of(names[i].name));
}

static void lost_card(void **state)
{
    struct world *w = *state;
    scenario(w, "%sgpu\nname Second\nuuid GPU-second\npci 0000:02:00\nmemory 8000 0 0\n", full_card);
    struct hw *hw = open_with(w, "TOY_NVML");
    assert_false(w->inv.devices[0].lost);
    scenario(w, "%slost\ngpu\nname Second\nuuid GPU-second\npci 0000:02:00\nmemory 8000 0 100\n", full_card);
    resample(w, hw);
    const struct hw_device *d = &w->inv.devices[0];
    assert_int_equal(w->inv.n_devices, 2);
    assert_true(d->lost);
    assert_int_equal(d->valid, HW_UUID | HW_PCI);
    assert_string_equal(d->name, "CUDA0");
    assert_string_equal(d->model, "NVIDIA GeForce RTX 4090");
    assert_int_equal(d->total_bytes, 0);
    assert_int_equal(d->n_processes, 0);
    assert_true(noted(w, "fallen off the bus"));
    assert_string_equal(w->inv.devices[1].name, "CUDA1");
    assert_true(w->inv.devices[1].valid & HW_MEMORY);
    scenario(w, "%sgpu\nname Second\nuuid GPU-second\npci 0000:02:00\nmemory 8000 0 100\n", full_card);
    resample(w, hw); /* came back */
    assert_false(w->inv.devices[0].lost);
    assert_int_equal(w->inv.devices[0].total_bytes, 24564 * MIB);
    assert_int_equal(w->inv.n_notes, 0);
    hw_close(hw);
}

/* Lost in the middle of a sample, at each function in turn: never half a card. */
static void lost_anywhere(void **state)
{
    static const char *const functions[] = {
        "nvmlDeviceGetMemoryInfo_v2",     "nvmlDeviceGetTemperature", "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetPowerUsage",        "nvmlDeviceGetClockInfo",   "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetCurrPcieLinkWidth",
    };
    struct world *w = *state;
    for (size_t i = 0; i < TABLE_COUNT(functions); i++)
        for (int code = 15; code <= 16; code++) {
            scenario(w, "%sfail %s %d\n", full_card, functions[i], code);
            sample_once(w);
            assert_true(w->inv.devices[0].lost);
            assert_int_equal(w->inv.devices[0].valid, HW_UUID | HW_PCI);
            assert_int_equal(w->inv.devices[0].total_bytes, 0);
        }
}

static void memory_unreadable(void **state)
{
    struct world *w = *state;
    scenario(w, "%sfail nvmlDeviceGetMemoryInfo_v2 999\nfail nvmlDeviceGetMemoryInfo 999\n", full_card);
    sample_once(w);
    assert_false(w->inv.devices[0].valid & HW_MEMORY);
    assert_false(w->inv.devices[0].lost);
    assert_true(w->inv.devices[0].valid & HW_TEMPERATURE);
    assert_true(noted(w, "error 999"));
    scenario(w, "%sfail nvmlDeviceGetMemoryInfo_v2 13\n", full_card); /* version 1 steps in */
    sample_once(w);
    assert_true(w->inv.devices[0].valid & HW_MEMORY);
    assert_int_equal(w->inv.devices[0].used_bytes, 1300 * MIB);
    assert_int_equal(w->inv.devices[0].reserved_bytes, 0);
}

static void temperature_by_the_newer_call(void **state)
{
    struct world *w = *state;
    scenario(w, "%sfail nvmlDeviceGetTemperature 13\n", full_card);
    sample_once(w);
    assert_true(w->inv.devices[0].valid & HW_TEMPERATURE);
    assert_int_equal(w->inv.devices[0].temperature_c, 61);
}

static void old_driver(void **state)
{
    struct world *w = *state;
    scenario(w, "driver 418.87\ncuda 10010\n%sprocess 77 900 compute\nprocess 78 100 graphics\nxid 31\n",
             full_card);
    hw_close(open_with(w, "TOY_NVML_OLD"));
    const struct hw_device *d = &w->inv.devices[0];
    assert_int_equal(w->inv.n_devices, 1);
    assert_int_equal(w->inv.cuda_version, 10010);
    assert_string_equal(d->pci, "0000:01:00.0");
    assert_int_equal(d->total_bytes, 24564 * MIB);
    assert_int_equal(d->used_bytes, 1300 * MIB); /* this version counts what is reserved as used */
    assert_int_equal(d->throttle_reasons, 4);
    assert_int_equal(d->n_processes, 2);
    assert_int_equal(d->processes[0].pid, 77);
    assert_int_equal(d->processes[0].bytes, 900 * MIB);
    assert_false(d->processes[0].util_valid);
    assert_false(d->valid & HW_BUS_WIDTH);
    assert_true(d->valid & HW_BANDWIDTH);
    assert_int_equal(d->last_xid, 31);
}

static const struct hw_process *process(const struct hw_device *d, pid_t pid)
{
    for (size_t i = 0; i < d->n_processes; i++)
        if (d->processes[i].pid == pid)
            return &d->processes[i];
    fail_msg("no process %d", (int)pid);
    return NULL;
}

/* 32 bytes an entry is what drivers 535 wrote under the name of a 24-byte function. */
static void processes(void **state)
{
    struct world *w = *state;
    for (int size = 24; size <= 32; size += 8) {
        scenario(w,
                 "process_size %d\n%sprocess 100 2048 compute 55\nprocess 101 na compute\nprocess 102 64 "
                 "graphics\n"
                 "process 100 2040 graphics\nprocess 103 10 mps 0\nprocess 104 99999999 compute\nprocess 0 5 "
                 "compute\n",
                 size, full_card);
        sample_once(w);
        const struct hw_device *d = &w->inv.devices[0];
        assert_true(d->valid & HW_PROCESSES);
        assert_int_equal(d->n_processes, 5);
        assert_int_equal(process(d, 100)->bytes, 2048 * MIB); /* in two lists, once */
        assert_true(process(d, 100)->util_valid);
        assert_int_equal(process(d, 100)->util_pct, 55); /* not the junk that came with it */
        assert_false(process(d, 101)->bytes_valid);
        assert_false(process(d, 101)->util_valid);
        assert_int_equal(process(d, 102)->bytes, 64 * MIB);
        assert_true(process(d, 103)->util_valid);
        assert_int_equal(process(d, 103)->util_pct, 0);
        assert_false(process(d, 104)->bytes_valid); /* more than the card has */
    }
}

static void crowd(void **state)
{
    struct world *w = *state;
    scenario(w, "%sprocesses 300 1000 1\nprocess 5000 700 graphics\n", full_card);
    sample_once(w);
    const struct hw_device *d = &w->inv.devices[0];
    assert_int_equal(d->n_processes, HW_MAX_PROCESSES);
    assert_int_equal(process(d, 5000)->bytes, 700 * MIB); /* the largest stay */
}

static void wsl(void **state)
{
    struct world *w = *state;
    tree_put(&w->t, "proc/sys/kernel/osrelease", "5.15.146.1-Microsoft-standard-WSL2\n");
    scenario(w, "wsl\n%sprocess 100 2048 compute\n", full_card);
    sample_once(w);
    assert_int_equal(w->inv.devices[0].n_processes, 0);
    assert_false(w->inv.devices[0].valid & HW_PROCESSES); /* an empty list means nothing there */
    assert_true(w->inv.devices[0].valid & HW_MEMORY);
    scenario(w, "%sprocess 100 na compute\n", full_card);
    sample_once(w);
    assert_true(w->inv.devices[0].valid & HW_PROCESSES);
    assert_false(w->inv.devices[0].processes[0].bytes_valid);
}

static void unified_memory(void **state)
{
    struct world *w = *state;
    scenario(w, "gpu\nname NVIDIA GB10\nuuid GPU-gb10\npci 000f:01:00\ncc 12 1\nunified\n"
                "process 100 2048 compute\n");
    sample_once(w);
    const struct hw_device *d = &w->inv.devices[0];
    assert_true(d->unified_memory);
    assert_true(d->valid & HW_MEMORY);
    assert_int_equal(d->total_bytes, 65536 * MIB);
    assert_int_equal(d->free_bytes, 60000 * MIB);
    assert_int_equal(d->used_bytes, 5536 * MIB);
    assert_true(d->bandwidth_gbps == 273);
    assert_string_equal(d->pci, "000f:01:00.0");
    assert_int_equal(d->processes[0].bytes, 2048 * MIB);
    scenario(w, "gpu\nname NVIDIA GB10\nmemory 0 0 0\n"); /* other drivers answer zero */
    sample_once(w);
    assert_true(w->inv.devices[0].unified_memory);
    assert_int_equal(w->inv.devices[0].total_bytes, 65536 * MIB);
}

static void mig(void **state)
{
    struct world *w = *state;
    scenario(
        w, "gpu\nname NVIDIA A100-SXM4-40GB\nuuid GPU-big\npci 0000:41:00\ncc 8 0\nmemory 40960 0 0\n"
           "clocks 1410 1215 1215\nbus 5120\ntemperature 50 90\npower 90000 400000 400000\nthrottle 8\nmig\n"
           "instance MIG-one 4864 100 NVIDIA A100-SXM4-40GB MIG 1g.5gb\n"
           "instance MIG-two 19968 300 NVIDIA A100-SXM4-40GB MIG 3g.20gb\nprocess 9 50 compute\nxid 94\n"
           "gpu\nname NVIDIA T4\nuuid GPU-t4\npci 0000:42:00\nmemory 15360 0 0\n");
    sample_once(w);
    assert_int_equal(w->inv.n_devices, 3); /* the card itself is not one of them */
    const struct hw_device *one = &w->inv.devices[0], *two = &w->inv.devices[1];
    assert_string_equal(one->name, "CUDA0");
    assert_string_equal(one->uuid, "MIG-one");
    assert_string_equal(one->model, "NVIDIA A100-SXM4-40GB MIG 1g.5gb");
    assert_true(one->mig && two->mig && !w->inv.devices[2].mig);
    assert_int_equal(one->total_bytes, 4864 * MIB);
    assert_int_equal(two->used_bytes, 300 * MIB);
    assert_int_equal(two->temperature_c, 50);
    assert_int_equal(two->throttle_reasons, 8);
    assert_int_equal(two->cc_major, 8);
    assert_false(one->valid & (HW_POWER | HW_UTIL)); /* the card's, not the instance's */
    assert_true(one->bandwidth_gbps > 194 && one->bandwidth_gbps < 195);
    assert_true(two->bandwidth_gbps > 777 && two->bandwidth_gbps < 778);
    assert_int_equal(one->last_xid, 94);
    assert_int_equal(one->processes[0].pid, 9);
    assert_string_equal(w->inv.devices[2].name, "CUDA2");
    scenario(w, "gpu\nname NVIDIA A100\npci 0:41:0\nmemory 40960 0 0\nmig\n");
    sample_once(w);
    assert_int_equal(w->inv.n_devices, 0);
    assert_true(noted(w, "MIG mode without an instance"));
}

static void throttled(void **state)
{
    struct world *w = *state;
    char words[128];
    scenario(w, "gpu\nname A\nmemory 1000 0 0\nthrottle e8\ntemperature 93 90\n");
    sample_once(w);
    assert_int_equal(w->inv.devices[0].throttle_reasons, 0xe8);
    assert_string_equal(hw_throttle_words(0xe8, words, sizeof(words)),
                        "hw_slowdown, sw_thermal, hw_thermal, power_brake");
    assert_string_equal(hw_throttle_words(0x1 | 0x2 | 0x100, words, sizeof(words)), "");
    assert_string_equal(hw_throttle_words(0x4, words, sizeof(words)), "power_cap");
    assert_int_equal(strlen(hw_throttle_words(0xff, words, 12)), 11);
}

static void events(void **state)
{
    struct world *w = *state;
    scenario(w, "%sgpu\nname B\npci 0:9:0\nmemory 1000 0 0\nxid 79\n", full_card);
    struct hw *hw = open_with(w, "TOY_NVML");
    assert_int_equal(w->inv.devices[0].xid_count, 0);
    assert_int_equal(w->inv.devices[1].xid_count, 1);
    assert_int_equal(w->inv.devices[1].last_xid, 79);
    resample(w, hw);
    assert_int_equal(w->inv.devices[1].xid_count, 1); /* kept, not counted again */
    assert_int_equal(w->inv.devices[1].last_xid, 79);
    hw_close(hw);
}

static void curve(void **state)
{
    struct world *w = *state;
    scenario(w, "gpu\nname A\nmemory 1000 0 0\nused_curve 10 500 900\n");
    struct hw *hw = open_with(w, "TOY_NVML");
    assert_int_equal(w->inv.devices[0].used_bytes, 10 * MIB);
    resample(w, hw);
    assert_int_equal(w->inv.devices[0].used_bytes, 500 * MIB);
    resample(w, hw);
    resample(w, hw);
    assert_int_equal(w->inv.devices[0].used_bytes, 900 * MIB);
    hw_close(hw);
}

static void pcie_rate(void **state)
{
    struct world *w = *state;
    struct hw_options opt = {
        .proc_root = w->t.proc, .sys_root = w->t.sys, .nvml_path = getenv("TOY_NVML"), .pcie_rate = true};
    struct hw *hw;
    struct err err;
    scenario(w, "%s", full_card);
    assert_int_equal(hw_open(&opt, &hw, &err), RC_OK);
    resample(w, hw);
    assert_true(w->inv.devices[0].valid & HW_PCIE_RATE);
    assert_int_equal(w->inv.devices[0].pcie_rx_kbps, 700);
    assert_int_equal(w->inv.devices[0].pcie_tx_kbps, 300);
    hw_close(hw);
}

static void visible(void **state)
{
    static const struct {
        const char *list, *models; /* in the order of the inventory */
    } rows[] = {
        {"0", "A"},
        {"2,0", "AC"},
        {"1,7,2", "B"},
        {"GPU-cc", "C"},
        {"GPU-bbbb-0002,GPU-aa", "AB"},
        {"", ""},
        {"-1", ""},
        {"NoDevFiles", ""},
        {"GPU-", ""},
        {"GPU", ""},
        {" 1 , 2 ", "BC"},
        {"0,0,1", "AB"},
        {"MIG-x,0", ""},
    };
    struct world *w = *state;
    scenario(w, "gpu\nname A\nuuid GPU-aaaa-0001\npci 0:1:0\nmemory 1 0 0\ngpu\nname B\nuuid "
                "GPU-bbbb-0002\npci 0:2:0\n"
                "memory 1 0 0\ngpu\nname C\nuuid GPU-cccc-0003\npci 0:3:0\nmemory 1 0 0\n");
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        struct hw_options opt = {.proc_root = w->t.proc,
                                 .sys_root = w->t.sys,
                                 .nvml_path = getenv("TOY_NVML"),
                                 .visible_devices = rows[i].list};
        struct hw *hw;
        struct err err;
        char models[HW_MAX_DEVICES + 1] = "";
        assert_int_equal(hw_open(&opt, &hw, &err), RC_OK);
        resample(w, hw);
        for (size_t k = 0; k < w->inv.n_devices; k++) {
            char name[16];
            (void)snprintf(name, sizeof(name), "CUDA%u", (unsigned)k);
            assert_string_equal(w->inv.devices[k].name, name);
            strcat(models, w->inv.devices[k].model);
        }
        if (strcmp(models, rows[i].models) != 0)
            fail_msg("\"%s\" gives \"%s\"", rows[i].list, models);
        assert_true(noted(w, "hidden") == (strlen(models) < 3));
        hw_close(hw);
    }
}

static void refusals(void **state)
{
    static const struct {
        int code;
        const char *words, *hint;
    } rows[] = {
        {9, "not loaded", "modprobe"},
        {18, "different versions; kernel module 535.54.03", "reboot"},
        {4, "no permission", "/dev/nvidia"},
        {999, "error 999", "nvidia-smi"},
    };
    struct world *w = *state;
    tree_put(&w->t, "proc/driver/nvidia/version",
             "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue Jun  6 22:20:39 UTC 2023\nGCC "
             "version: 12\n");
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        scenario(w, "init %d\n%s", rows[i].code, full_card);
        sample_once(w);
        assert_int_equal(w->inv.n_devices, 0);
        assert_true(noted(w, rows[i].words));
        assert_true(noted(w, rows[i].hint));
    }
    scenario(w, "driver 550\n");
    sample_once(w);
    assert_true(noted(w, "sees no GPU"));
    scenario(w, "%sgpu\nname B\npci 0:2:0\nmemory 5 0 0\nfail nvmlDeviceGetHandleByIndex_v2 17\n", full_card);
    sample_once(w);
    assert_int_equal(w->inv.n_devices, 1);
    assert_true(noted(w, "GPU 1 is left out: access to the GPU is blocked by a control group"));
}

static void libraries(void **state)
{
    struct world *w = *state;
    scenario(w, "%s", full_card);
    hw_close(open_with(w, "TOY_NVML_BROKEN"));
    assert_int_equal(w->inv.n_devices, 0);
    assert_true(noted(w, "has no nvmlSystemGet") || noted(w, "has no nvmlDeviceGetCount_v2"));
    tree_put(&w->t, "not-elf", "hello");
    char path[160];
    (void)snprintf(path, sizeof(path), "%s/not-elf", w->t.root);
    hw_close(tree_open(&w->t, path, &w->inv));
    assert_int_equal(w->inv.n_devices, 0);
    assert_true(noted(w, "cannot load"));
}

/* The names of the table against what the toy, written from NVIDIA's documentation, exports. */
static void symbols(void **state)
{
    (void)state;
    size_t n;
    const struct nvml_symbol *table = nvml_symbols(&n);
    assert_true(n > 40);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(strncmp(table[i].name, "nvml", 4), 0);
        assert_true(table[i].slot < sizeof(struct nvml_api) && table[i].slot % sizeof(void *) == 0);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(table[i].name, table[k].name);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(one_card),
        T(order),
        T(many_cards),
        T(one_reading_missing),
        T(bandwidth),
        T(lost_card),
        T(lost_anywhere),
        T(memory_unreadable),
        T(temperature_by_the_newer_call),
        T(old_driver),
        T(processes),
        T(crowd),
        T(wsl),
        T(unified_memory),
        T(mig),
        T(throttled),
        T(events),
        T(curve),
        T(pcie_rate),
        T(visible),
        T(refusals),
        T(libraries),
        T(symbols),
    };
    return cmocka_run_group_tests_name("hw_nvml", tests, NULL, NULL);
}
