/* Inventory of the machine: GPUs by vendor adapters (hw.def), CPU and RAM. Layer hw; a struct hw belongs to
 * one thread at a time (the sampler's, or a command's main thread); a struct hw_inventory is a plain value.
 * Missing data is distinct from zero: every optional field has a validity bit. */
#ifndef HW_HW_H
#define HW_HW_H

#include "base/err.h"
#include "base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define HW_MAX_DEVICES   16
#define HW_MAX_PROCESSES 64

enum hw_field { /* bits of hw_device.valid */
                HW_MEMORY = 1 << 0,
                HW_UTIL = 1 << 1,
                HW_TEMPERATURE = 1 << 2,
                HW_POWER = 1 << 3,
                HW_POWER_LIMIT = 1 << 4,
                HW_CLOCKS = 1 << 5,
                HW_THROTTLE = 1 << 6,
                HW_PCIE = 1 << 7,
                HW_COMPUTE_CAP = 1 << 8,
                HW_BUS_WIDTH = 1 << 9,
                HW_PROCESSES = 1 << 10,
                HW_TEMP_SLOWDOWN = 1 << 11,
                HW_NUMA = 1 << 12,
                HW_UUID = 1 << 13,
                HW_BANDWIDTH = 1 << 14,
                HW_PCIE_MAX = 1 << 15,
                HW_MEM_BUSY = 1 << 16,
                HW_PCI = 1 << 17,
                HW_BAR1 = 1 << 18,
                HW_POWER_DEFAULT = 1 << 19,
                HW_PERSISTENCE = 1 << 20,
                HW_PCIE_RATE = 1 << 21,
                HW_IN_USE = 1 << 22,
};

struct hw_process {
    pid_t pid;
    uint64_t bytes;    /* device memory; meaningful if bytes_valid */
    bool bytes_valid;  /* false under WDDM/WSL */
    unsigned util_pct; /* share of recent time a kernel of it ran; meaningful if util_valid */
    bool util_valid;
};

struct hw_device {
    char name[16];      /* as llama.cpp spells it, in the runtime's order: "CUDA0", "ROCm0", "Vulkan0" */
    const char *vendor; /* adapter's name: "nvidia" (static) */
    char model[96];     /* "NVIDIA GeForce RTX 4090" */
    char uuid[96];
    char pci[32];        /* "0000:01:00.0" */
    unsigned index;      /* the vendor library's index */
    uint32_t valid;      /* enum hw_field bits */
    bool unified_memory; /* shares the host's RAM (GB10, integrated) */
    bool mig;
    uint64_t total_bytes, used_bytes, free_bytes;
    unsigned util_pct, mem_busy_pct; /* share of time a kernel ran; of time memory was accessed (not fill) */
    unsigned temperature_c, temp_slowdown_c;
    unsigned power_mw, power_limit_mw;
    unsigned clock_sm_mhz, clock_mem_mhz, clock_mem_max_mhz;
    uint64_t throttle_reasons; /* NVML's bits */
    unsigned pcie_gen, pcie_width, pcie_gen_max, pcie_width_max;
    unsigned cc_major, cc_minor;
    unsigned bus_width_bits;
    double bandwidth_gbps; /* GB/s: 2 × max memory clock × bus width / 8, or a table of names */
    int numa_node;
    struct hw_process processes[HW_MAX_PROCESSES];
    size_t n_processes;
    bool in_use; /* an RPC worker serves a client now, and it takes one at a time; its sizes are the last
                    known */
    bool lost;   /* fell off the bus or needs a reset: only the identity is valid */
    uint64_t reserved_bytes; /* the driver's own, in neither used nor free; 0 when it is part of used */
    uint64_t bar1_total_bytes, bar1_used_bytes;
    unsigned power_default_mw;           /* the limit it came with */
    bool persistence;                    /* the driver stays loaded without clients */
    unsigned pcie_rx_kbps, pcie_tx_kbps; /* KB/s; only with hw_options.pcie_rate */
    /* Of a wish for its limit: what the closing sets it back to, 0 = we did not change it; and why it was not
     * fulfilled, with the remedy, "" = it was, or there is none. */
    unsigned power_restore_mw;
    char power_note[200];
    uint64_t last_xid;  /* NVIDIA's number of the last critical error since hw_open */
    unsigned xid_count; /* how many since hw_open; 0 = last_xid means nothing */
};

struct hw_host {
    char model[96];
    /* Usable by this process: affinity and CPU quota cut all three. On machines with two kinds of cores
     * physical_cores counts the fast kind only. */
    unsigned logical_cpus, physical_cores, numa_nodes;
    uint64_t ram_total_bytes, ram_available_bytes; /* the machine's */
    uint64_t swap_total_bytes, swap_free_bytes;
    /* Of the process's control group, or the ancestor of it, that has the least room left; the usable sizes
     * heed all of them. Use is without page cache that goes first when memory is short. */
    uint64_t cgroup_limit_bytes; /* UINT64_MAX = none */
    uint64_t cgroup_used_bytes;
    uint64_t usable_total_bytes; /* min of the two worlds: what plans may use at most */
    uint64_t usable_free_bytes;
    double bandwidth_gbps; /* 0 = not measured */
    uint32_t valid;        /* HW_TEMPERATURE, HW_TEMP_SLOWDOWN */
    /* Of the hottest processor, and where the first one slows itself down. */
    unsigned temperature_c, temp_slowdown_c;
};

struct hw_inventory {
    int64_t wall_ms;
    /* On the monotonic clock, for comparisons: the reading began and had ended. What changed between the two
     * may be in it or not. */
    uint64_t begun_ms, ended_ms;
    struct hw_host host;
    struct hw_device devices[HW_MAX_DEVICES];
    size_t n_devices;
    char driver[64];       /* "NVIDIA 550.54.15", "" when none */
    unsigned cuda_version; /* 12040 = 12.4; 0 unknown */
    char notes[4][192];    /* why a vendor's library could not be used; shown by `arriero gpus` */
    size_t n_notes;
};

/* A limit on a device's power, held from the opening to the closing of the handle. Needs the right to set it.
 */
struct hw_power_wish {
    const char *device; /* name or UUID */
    unsigned limit_mw;
    unsigned restore_mw; /* what the closing sets it back to; 0 = what it was at the opening */
};

struct hw_options {
    const char *proc_root;       /* NULL = "/proc" */
    const char *sys_root;        /* NULL = "/sys" */
    const char *hwmon_path;      /* where sensors are looked for; NULL or "" = class/hwmon of sys_root */
    const char *nvml_path;       /* NULL or "" = the usual names; a path is loaded as it is (tests) */
    const char *visible_devices; /* NULL = every GPU; else a list as in CUDA_VISIBLE_DEVICES (UUIDs or their
                                  * beginnings, or numbers in PCI order): the others are left out and the
                                  * names renumbered */
    const char *const *rpc;      /* HOST:PORT of workers of llama.cpp's RPC backend; copied */
    size_t n_rpc;
    bool pcie_rate;                    /* measure PCIe traffic too: 20 ms and more a GPU and sample */
    const struct hw_power_wish *power; /* copied */
    size_t n_power;
};

struct hw;
/* Opens every adapter that works here; a missing library or driver is a note, not an error. */
enum rc hw_open(const struct hw_options *opt, struct hw **ret_hw, struct err *err);
/* Fills *ret_inventory; a device that fails keeps its identity and loses its validity bits. */
enum rc hw_sample(struct hw *hw, struct hw_inventory *ret_inventory, struct err *err);
void hw_close(struct hw *hw);
/* "HOST:PORT"? Anything else in hw_options.rpc is passed over. */
bool hw_rpc_endpoint_ok(struct str text);

/* The inventory as a new object of doc; what is not known is null. The field names of one GPU and of the host
 * are a contract of `arriero gpus --json` and of the control API. Sizes in *_bytes, and in MiB in
 * memory_*_mb. */
struct yyjson_mut_doc;
struct yyjson_mut_val;
struct yyjson_mut_val *hw_json(struct yyjson_mut_doc *doc, const struct hw_inventory *inv);

/* A word for each reason that is set, as "power_cap, hw_thermal"; "" for none. Idle and application clocks,
 * which are no throttling, are left out. */
char *hw_throttle_words(uint64_t reasons, char *out, size_t cap);

/* Whether a device says that it slows itself down for heat: by its own control (SOFT), or because a sensor of
 * its hardware orders it (HARD), which comes later. */
enum hw_heat { HW_HEAT_NONE, HW_HEAT_SOFT, HW_HEAT_HARD };
enum hw_heat hw_heat_of(const struct hw_device *d);

#endif
