/* The inventory as JSON, one form for the command, the control API and the page. Layer hw; pure.
 * A field that is not known is null, never zero: the rows below pair every name with its validity bit. */
#include "hw/hw_priv.h"

#include "base/json.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum kind { KIND_U32, KIND_U64, KIND_MIB, KIND_BOOL, KIND_DOUBLE, KIND_INT, KIND_TEXT };

struct member {
    const char *key;
    enum kind kind;
    size_t offset;
    uint32_t bit; /* 0 = always known; text: known unless empty */
};

#define DEV(field)  offsetof(struct hw_device, field)
#define HOST(field) offsetof(struct hw_host, field)

static const struct member device_members[] = {
    {"index", KIND_U32, DEV(index), 0},
    {"device", KIND_TEXT, DEV(name), 0},
    {"name", KIND_TEXT, DEV(model), 0},
    {"uuid", KIND_TEXT, DEV(uuid), HW_UUID},
    {"pci", KIND_TEXT, DEV(pci), HW_PCI},
    {"lost", KIND_BOOL, DEV(lost), 0},
    {"in_use", KIND_BOOL, DEV(in_use), HW_IN_USE},
    {"mig", KIND_BOOL, DEV(mig), 0},
    {"unified_memory", KIND_BOOL, DEV(unified_memory), 0},
    {"memory_total_mb", KIND_MIB, DEV(total_bytes), HW_MEMORY},
    {"memory_used_mb", KIND_MIB, DEV(used_bytes), HW_MEMORY},
    {"memory_free_mb", KIND_MIB, DEV(free_bytes), HW_MEMORY},
    {"memory_total_bytes", KIND_U64, DEV(total_bytes), HW_MEMORY},
    {"memory_used_bytes", KIND_U64, DEV(used_bytes), HW_MEMORY},
    {"memory_free_bytes", KIND_U64, DEV(free_bytes), HW_MEMORY},
    {"memory_reserved_bytes", KIND_U64, DEV(reserved_bytes), HW_MEMORY},
    {"utilization_gpu", KIND_U32, DEV(util_pct), HW_UTIL},
    {"utilization_mem", KIND_U32, DEV(mem_busy_pct), HW_MEM_BUSY},
    {"temperature_c", KIND_U32, DEV(temperature_c), HW_TEMPERATURE},
    {"temperature_slowdown_c", KIND_U32, DEV(temp_slowdown_c), HW_TEMP_SLOWDOWN},
    {"power_mw", KIND_U32, DEV(power_mw), HW_POWER},
    {"power_limit_mw", KIND_U32, DEV(power_limit_mw), HW_POWER_LIMIT},
    {"power_default_mw", KIND_U32, DEV(power_default_mw), HW_POWER_DEFAULT},
    {"clock_sm_mhz", KIND_U32, DEV(clock_sm_mhz), HW_CLOCKS},
    {"clock_mem_mhz", KIND_U32, DEV(clock_mem_mhz), HW_CLOCKS},
    {"throttle_reasons", KIND_U64, DEV(throttle_reasons), HW_THROTTLE},
    {"pcie_gen", KIND_U32, DEV(pcie_gen), HW_PCIE},
    {"pcie_width", KIND_U32, DEV(pcie_width), HW_PCIE},
    {"pcie_gen_max", KIND_U32, DEV(pcie_gen_max), HW_PCIE_MAX},
    {"pcie_width_max", KIND_U32, DEV(pcie_width_max), HW_PCIE_MAX},
    {"pcie_rx_kbps", KIND_U32, DEV(pcie_rx_kbps), HW_PCIE_RATE},
    {"pcie_tx_kbps", KIND_U32, DEV(pcie_tx_kbps), HW_PCIE_RATE},
    {"bus_width_bits", KIND_U32, DEV(bus_width_bits), HW_BUS_WIDTH},
    {"bandwidth_gbps", KIND_DOUBLE, DEV(bandwidth_gbps), HW_BANDWIDTH},
    {"numa_node", KIND_INT, DEV(numa_node), HW_NUMA},
    {"bar1_total_bytes", KIND_U64, DEV(bar1_total_bytes), HW_BAR1},
    {"bar1_used_bytes", KIND_U64, DEV(bar1_used_bytes), HW_BAR1},
    {"persistence_mode", KIND_BOOL, DEV(persistence), HW_PERSISTENCE},
};

static const struct member host_members[] = {
    {"cpu", KIND_TEXT, HOST(model), 0},
    {"logical_cpus", KIND_U32, HOST(logical_cpus), 0},
    {"physical_cores", KIND_U32, HOST(physical_cores), 0},
    {"numa_nodes", KIND_U32, HOST(numa_nodes), 0},
    {"ram_total_bytes", KIND_U64, HOST(ram_total_bytes), 0},
    {"ram_available_bytes", KIND_U64, HOST(ram_available_bytes), 0},
    {"swap_total_bytes", KIND_U64, HOST(swap_total_bytes), 0},
    {"swap_free_bytes", KIND_U64, HOST(swap_free_bytes), 0},
    {"usable_total_bytes", KIND_U64, HOST(usable_total_bytes), 0},
    {"usable_free_bytes", KIND_U64, HOST(usable_free_bytes), 0},
    {"temperature_c", KIND_U32, HOST(temperature_c), HW_TEMPERATURE},
    {"temperature_slowdown_c", KIND_U32, HOST(temp_slowdown_c), HW_TEMP_SLOWDOWN},
};

/* NVML's bits; idle (1), application clocks (2) and display clocks (0x100) slow nothing that was wanted. */
static const struct {
    uint64_t bit;
    const char *word;
    enum hw_heat
        heat; /* hw_slowdown stands for the heat or the power of its hardware: told apart by others */
} throttle_words[] = {
    {0x4, "power_cap", HW_HEAT_NONE},   {0x8, "hw_slowdown", HW_HEAT_NONE},
    {0x10, "sync_boost", HW_HEAT_NONE}, {0x20, "sw_thermal", HW_HEAT_SOFT},
    {0x40, "hw_thermal", HW_HEAT_HARD}, {0x80, "power_brake", HW_HEAT_NONE},
};

/* Names come from firmware and files: anything but printable ASCII becomes '?', so that the text is always
 * valid. */
static yyjson_mut_val *plain_text(yyjson_mut_doc *doc, const char *text)
{
    char plain[256];
    size_t n = 0;
    for (; n < sizeof(plain) && text[n]; n++)
        plain[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
    return yyjson_mut_strncpy(doc, plain, n);
}

static void add_member(yyjson_mut_doc *doc, yyjson_mut_val *obj, const struct member *m, const void *base,
                       bool known)
{
    const void *p = (const char *)base + m->offset;
    yyjson_mut_val *value = NULL;
    uint64_t wide;
    if (m->kind == KIND_TEXT)
        known = known && *(const char *)p;
    if (!known) {
        (void)yyjson_mut_obj_add_null(doc, obj, m->key);
        return;
    }
    switch (m->kind) {
    case KIND_U32: value = yyjson_mut_uint(doc, *(const unsigned *)p); break;
    case KIND_U64: value = yyjson_mut_uint(doc, *(const uint64_t *)p); break;
    case KIND_MIB:
        wide = *(const uint64_t *)p;
        value = yyjson_mut_uint(doc, wide / MIB);
        break;
    case KIND_BOOL: value = yyjson_mut_bool(doc, *(const bool *)p); break;
    case KIND_DOUBLE: value = yyjson_mut_real(doc, *(const double *)p); break;
    case KIND_INT: value = yyjson_mut_sint(doc, *(const int *)p); break;
    case KIND_TEXT: value = plain_text(doc, p); break;
    }
    (void)yyjson_mut_obj_add_val(doc, obj, m->key, value);
}

static void add_throttle(yyjson_mut_doc *doc, yyjson_mut_val *obj, const struct hw_device *d)
{
    if (!(d->valid & HW_THROTTLE)) {
        (void)yyjson_mut_obj_add_null(doc, obj, "throttled_by");
        return;
    }
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(doc, obj, "throttled_by");
    for (size_t i = 0; i < TABLE_COUNT(throttle_words); i++)
        if (d->throttle_reasons & throttle_words[i].bit)
            (void)yyjson_mut_arr_add_str(doc, list, throttle_words[i].word);
}

static void add_processes(yyjson_mut_doc *doc, yyjson_mut_val *obj, const struct hw_device *d)
{
    static const struct member members[] = {
        {"used_memory_mb", KIND_MIB, offsetof(struct hw_process, bytes), 0},
        {"used_memory_bytes", KIND_U64, offsetof(struct hw_process, bytes), 0},
    };
    static const struct member use = {"utilization_gpu", KIND_U32, offsetof(struct hw_process, util_pct), 0};
    if (!(d->valid & HW_PROCESSES)) {
        (void)yyjson_mut_obj_add_null(doc, obj, "processes");
        return;
    }
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(doc, obj, "processes");
    for (size_t i = 0; i < d->n_processes; i++) {
        const struct hw_process *p = &d->processes[i];
        yyjson_mut_val *entry = yyjson_mut_arr_add_obj(doc, list);
        (void)yyjson_mut_obj_add_int(doc, entry, "pid", p->pid);
        for (size_t k = 0; k < TABLE_COUNT(members); k++)
            add_member(doc, entry, &members[k], p, p->bytes_valid);
        add_member(doc, entry, &use, p, p->util_valid);
    }
}

static void add_device(yyjson_mut_doc *doc, yyjson_mut_val *list, const struct hw_device *d)
{
    char text[16];
    yyjson_mut_val *obj = yyjson_mut_arr_add_obj(doc, list);
    (void)yyjson_mut_obj_add_str(doc, obj, "vendor", d->vendor);
    for (size_t i = 0; i < TABLE_COUNT(device_members); i++) {
        const struct member *m = &device_members[i];
        add_member(doc, obj, m, d, !m->bit || (d->valid & m->bit));
    }
    if (d->valid & HW_MEMORY && d->total_bytes)
        (void)yyjson_mut_obj_add_real(doc, obj, "memory_fill_pct",
                                      100.0 * (double)(d->total_bytes - d->free_bytes) /
                                          (double)d->total_bytes);
    else
        (void)yyjson_mut_obj_add_null(doc, obj, "memory_fill_pct");
    if (d->valid & HW_COMPUTE_CAP) {
        (void)snprintf(text, sizeof(text), "%u.%u", d->cc_major % 1000, d->cc_minor % 1000);
        (void)yyjson_mut_obj_add_strcpy(doc, obj, "compute_capability", text);
    } else {
        (void)yyjson_mut_obj_add_null(doc, obj, "compute_capability");
    }
    if (d->xid_count)
        (void)yyjson_mut_obj_add_uint(doc, obj, "last_xid", d->last_xid);
    else
        (void)yyjson_mut_obj_add_null(doc, obj, "last_xid");
    (void)yyjson_mut_obj_add_uint(doc, obj, "xid_count", d->xid_count);
    add_throttle(doc, obj, d);
    add_processes(doc, obj, d);
}

static void add_host(yyjson_mut_doc *doc, yyjson_mut_val *root, const struct hw_host *host)
{
    static const struct member limit[] = {
        {"cgroup_limit_bytes", KIND_U64, HOST(cgroup_limit_bytes), 0},
        {"cgroup_used_bytes", KIND_U64, HOST(cgroup_used_bytes), 0},
    };
    static const struct member bandwidth = {"bandwidth_gbps", KIND_DOUBLE, HOST(bandwidth_gbps), 0};
    yyjson_mut_val *obj = yyjson_mut_obj_add_obj(doc, root, "host");
    for (size_t i = 0; i < TABLE_COUNT(host_members); i++)
        add_member(doc, obj, &host_members[i], host,
                   !host_members[i].bit || (host->valid & host_members[i].bit));
    for (size_t i = 0; i < TABLE_COUNT(limit); i++)
        add_member(doc, obj, &limit[i], host, host->cgroup_limit_bytes != UINT64_MAX);
    add_member(doc, obj, &bandwidth, host, host->bandwidth_gbps > 0);
}

yyjson_mut_val *hw_json(yyjson_mut_doc *doc, const struct hw_inventory *inv)
{
    char version[24];
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_val *gpus = yyjson_mut_obj_add_arr(doc, root, "gpus");
    for (size_t i = 0; i < inv->n_devices; i++)
        add_device(doc, gpus, &inv->devices[i]);
    add_host(doc, root, &inv->host);
    if (inv->driver[0])
        (void)yyjson_mut_obj_add_val(doc, root, "driver", plain_text(doc, inv->driver));
    else
        (void)yyjson_mut_obj_add_null(doc, root, "driver");
    if (inv->cuda_version) {
        (void)snprintf(version, sizeof(version), "%u.%u", inv->cuda_version / 1000,
                       inv->cuda_version % 1000 / 10);
        (void)yyjson_mut_obj_add_strcpy(doc, root, "cuda_version", version);
    } else {
        (void)yyjson_mut_obj_add_null(doc, root, "cuda_version");
    }
    yyjson_mut_val *notes = yyjson_mut_obj_add_arr(doc, root, "notes");
    for (size_t i = 0; i < inv->n_notes; i++)
        (void)yyjson_mut_arr_append(notes, plain_text(doc, inv->notes[i]));
    (void)yyjson_mut_obj_add_sint(doc, root, "time_ms", inv->wall_ms);
    return root;
}

char *hw_throttle_words(uint64_t reasons, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; i < TABLE_COUNT(throttle_words); i++) {
        if (!(reasons & throttle_words[i].bit) || n >= cap)
            continue;
        int wrote = snprintf(out + n, cap - n, "%s%s", n ? ", " : "", throttle_words[i].word);
        n += wrote > 0 ? (size_t)wrote : 0;
    }
    return out;
}

enum hw_heat hw_heat_of(const struct hw_device *d)
{
    enum hw_heat heat = HW_HEAT_NONE;
    for (size_t i = 0; (d->valid & HW_THROTTLE) && i < TABLE_COUNT(throttle_words); i++)
        if ((d->throttle_reasons & throttle_words[i].bit) && throttle_words[i].heat > heat)
            heat = throttle_words[i].heat;
    return heat;
}
