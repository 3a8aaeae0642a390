/* Shared by the files of hw/ and by their tests: the adapter contract and small readers of /proc and /sys
 * text. Layer hw; everything here runs on the thread that owns the struct hw and may block on the kernel or a
 * driver. */
#ifndef HW_HW_PRIV_H
#define HW_HW_PRIV_H

#include "hw/hw.h"

#include "base/str.h"

#include <sys/types.h>

/* Where the machine is read from; the strings live as long as the struct hw. */
struct hw_roots {
    const char *proc;    /* never NULL, no trailing slash */
    const char *sys;     /* never NULL, no trailing slash */
    const char *hwmon;   /* NULL = sys/class/hwmon */
    const char *nvml;    /* NULL = the usual names */
    const char *visible; /* NULL = all; see hw_options.visible_devices */
    bool pcie_rate;
    const char *const *rpc;
    size_t n_rpc;
    const struct hw_power_wish *power;
    size_t n_power;
};

/* A vendor. One const table a file, one row in hw.def. All slots are required.
 *   open    finds the vendor's library and devices. RC_OK hands over *ret_state. RC_NOT_FOUND: nothing of
 * this vendor is here (noted only when no GPU is found at all). Any other code: something is here but cannot
 * be used (always noted). The message says what, the hint what to do. May block for a second (driver start).
 *   sample  appends its devices to inv->devices, never past HW_MAX_DEVICES, in the vendor's runtime order;
 * inv->host is already filled. A device that fails keeps name, model, uuid, pci, index and loses its validity
 * bits; a reason may be added with hw_note. Devices never change place between samples. close   takes NULL.
 */
struct hw_adapter {
    const char *name;
    enum rc (*open)(const struct hw_roots *roots, void **ret_state, struct err *err);
    void (*sample)(void *state, struct hw_inventory *inv);
    void (*close)(void *state);
};

#define HW_ADAPTER(id) extern const struct hw_adapter hw_adapter_##id;
#include "hw/hw.def"
#undef HW_ADAPTER

/* Every adapter in the order of hw.def, which is the order of the inventory. */
const struct hw_adapter *const *hw_adapters(size_t *ret_n);

/* Adds a note; notes past the inventory's room are dropped, a text already there is not repeated. */
__attribute__((format(printf, 2, 3))) void hw_note(struct hw_inventory *inv, const char *fmt, ...);

/* ---- host (cpu.c, cgroup.c) ---- */
struct hw_cpu;
enum rc hw_cpu_open(const struct hw_roots *roots, struct hw_cpu **ret_cpu, struct err *err);
/* RC_IO when /proc/meminfo cannot be read; *ret_host is untouched then. */
enum rc hw_cpu_sample(struct hw_cpu *cpu, struct hw_host *ret_host, struct err *err);
void hw_cpu_close(struct hw_cpu *cpu);

struct hw_cgroup;
/* Finds the process's own control groups (v1, v2 or both); never fails, no group means no limit. */
struct hw_cgroup *hw_cgroup_open(const struct hw_roots *roots);
/* The CPUs that the tightest quota allows, rounded up; UINT_MAX when there is none. */
unsigned hw_cgroup_cpus(const struct hw_cgroup *cg);
/* Over every ancestor: the smallest limit, the smallest headroom, and limit and use of the group that has it.
 * All UINT64_MAX (use: 0) without a limit. */
struct hw_cgroup_memory {
    uint64_t limit_bytes, used_bytes; /* of the group with the least headroom */
    uint64_t lowest_limit_bytes, headroom_bytes;
};
struct hw_cgroup_memory hw_cgroup_memory(const struct hw_cgroup *cg);
void hw_cgroup_close(struct hw_cgroup *cg);

/* ---- the processors' temperature (hwmon.c) ---- */
struct hw_sensors;
struct hw_sensors *hw_sensors_open(const struct hw_roots *roots); /* never fails: there may be none */
void hw_sensors_sample(const struct hw_sensors *s, struct hw_host *host);
void hw_sensors_close(struct hw_sensors *s);

/* ---- power limits (power.c) ---- */
/* What a device's driver can do; code 0 = done, any other one is put into words by words(). Any thread. */
struct hw_power_driver {
    int (*range)(void *arg, unsigned *ret_least_mw, unsigned *ret_most_mw); /* NULL = not told */
    int (*get)(void *arg, unsigned *ret_mw);
    int (*set)(void *arg, unsigned mw);
    const char *(*words)(int code, char *out, size_t cap);
    bool (*is_denied)(int code);
    const char *tool; /* that sets it; NULL = none is known */
};
/* Fulfils the wish for this device, if there is one: sets power_restore_mw or power_note of d. */
void hw_power_apply(const struct hw_roots *roots, const struct hw_power_driver *driver, void *arg,
                    struct hw_device *d);

/* ---- text of the kernel (text.c) ---- */
#define HW_PATH 512
/* The path from format; false when it does not fit. */
__attribute__((format(printf, 2, 3))) bool hw_path(char ret_path[HW_PATH], const char *fmt, ...);
int hw_text_open(const char *path); /* -1 when it cannot be read; close-on-exec */
/* The file from its start into out, NUL-terminated, cut at cap - 1; false on a read error or fd < 0. */
bool hw_text_pread(int fd, char *out, size_t cap);
bool hw_text_read(const char *path, char *out, size_t cap);
/* First line without white space at its ends. */
bool hw_text_line(const char *path, char *out, size_t cap);
bool hw_text_write(const char *path, const char *text); /* errno says why not */
bool hw_text_u64(const char *path, uint64_t *ret_value);
/* A line "key value" or "key: value"; the value is its first word as a number. */
bool hw_text_find_u64(const char *text, const char *key, uint64_t *ret_value);

/* A set of CPU or node numbers, as the kernel's lists ("0-3,8") give it. Numbers past the end are ignored. */
#define HW_SET_BITS 4096
struct hw_set {
    uint64_t words[HW_SET_BITS / 64];
};
bool hw_set_parse(struct str text, struct hw_set *ret_set); /* false on anything that is not a list */
bool hw_set_read(const char *path, struct hw_set *ret_set);
void hw_set_add(struct hw_set *set, unsigned number);
bool hw_set_has(const struct hw_set *set, unsigned number);
unsigned hw_set_count(const struct hw_set *set);
void hw_set_intersect(struct hw_set *set, const struct hw_set *other);

/* ---- PCI bus (pci.c) ---- */
struct hw_pci {
    char address[32]; /* "0000:01:00.0" */
    char driver[32];  /* kernel driver bound to it, "" when none */
    unsigned device_id;
};
/* Display and accelerator devices (classes 03xx, 12xx) of a vendor, sorted by address; returns how many were
 * written. */
size_t hw_pci_find(const struct hw_roots *roots, unsigned vendor_id, struct hw_pci *ret_list, size_t cap);

/* ---- workers of llama.cpp's RPC backend (rpc.c) ---- */
struct hw_rpc_told {
    unsigned n_devices;                                               /* 1 to HW_MAX_DEVICES */
    uint64_t total_bytes[HW_MAX_DEVICES], free_bytes[HW_MAX_DEVICES]; /* free ≤ total */
};
/* Reads the answer to a greeting that was sent on this non-blocking socket, and asks for the rest; each
 * answer is waited for a second at most. NULL: *ret is what it told. Else why not (static), *ret is as it
 * was; *ret_greeted: whether the greeting was understood. */
const char *hw_rpc_read(int fd, bool *ret_greeted, struct hw_rpc_told *ret);

/* ---- memory bandwidth (bandwidth.c) ---- */
/* GB/s of a card by its name, as its specification is generally known; 0 when unknown. */
double hw_bandwidth_of(const char *model);

#endif
