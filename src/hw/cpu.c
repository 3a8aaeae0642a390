/* The host: CPU model, the CPUs this process may use, memory and swap, under the limits of its control
 * groups. Layer hw; one thread at a time.
 *
 * Model, topology, affinity and CPU quota are read once at open; memory at every sample, through a descriptor
 * that stays open. Everything comes from the roots given, affinity too (Cpus_allowed_list of
 * /proc/self/status), so that a directory tree can stand for another machine. */
#include "hw/hw_priv.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct hw_cpu {
    struct hw_host fixed; /* what does not change */
    int meminfo;
    struct hw_cgroup *cgroup;
};

/* ARM cores have no name in /proc/cpuinfo, only numbers: implementer 0x41 (Arm) and these parts. Source:
 * Arm's technical reference manuals, register MIDR_EL1. */
static const struct {
    unsigned part;
    const char *name;
} arm_parts[] = {
    {0xd03, "Cortex-A53"},  {0xd05, "Cortex-A55"},    {0xd08, "Cortex-A72"},   {0xd0b, "Cortex-A76"},
    {0xd0c, "Neoverse N1"}, {0xd40, "Neoverse V1"},   {0xd42, "Cortex-A78AE"}, {0xd49, "Neoverse N2"},
    {0xd4f, "Neoverse V2"}, {0xd83, "Neoverse V3AE"}, {0xd84, "Neoverse V3"},  {0xd85, "Cortex-X925"},
    {0xd87, "Cortex-A725"}, {0xd8e, "Neoverse N3"},
};

/* What one pass over /proc/cpuinfo gives. */
struct cpuinfo {
    char model[96], hardware[96];
    unsigned arm_part, arm_implementer;
    struct hw_set processors;
    struct hw_set cores; /* package × 256 + core: the fallback without sysfs */
};

static void copy_str(char *out, size_t cap, struct str s)
{
    size_t n = s.n < cap - 1 ? s.n : cap - 1;
    memcpy(out, s.p, n);
    out[n] = '\0';
}

static void cpuinfo_line(struct cpuinfo *info, struct str key, struct str value, unsigned *package)
{
    static const char *const model_keys[] = {"model name", "cpu model", "cpu"};
    uint64_t number = 0;
    bool is_number = str_u64(value, &number);
    for (size_t i = 0; i < TABLE_COUNT(model_keys); i++)
        if (str_eq_c(key, model_keys[i]) && !info->model[0] && !is_number)
            copy_str(info->model, sizeof(info->model), value);
    if ((str_eq_c(key, "Model") || str_eq_c(key, "Hardware")) && !info->hardware[0])
        copy_str(info->hardware, sizeof(info->hardware), value);
    if (str_eq_c(key, "processor") && is_number && number < HW_SET_BITS)
        hw_set_add(&info->processors, (unsigned)number);
    if (str_eq_c(key, "physical id") && is_number)
        *package = (unsigned)(number % 16);
    if (str_eq_c(key, "core id") && is_number)
        hw_set_add(&info->cores, *package * 256 + (unsigned)(number % 256));
    if (value.n > 2 && str_starts(value, "0x") && str_starts(key, "CPU ")) {
        char hex[16];
        copy_str(hex, sizeof(hex), value);
        unsigned bits = (unsigned)strtoul(hex, NULL, 16);
        if (str_eq_c(key, "CPU part") && !info->arm_part)
            info->arm_part = bits;
        if (str_eq_c(key, "CPU implementer") && !info->arm_implementer)
            info->arm_implementer = bits;
    }
}

/* By lines: the file has a kilobyte and more for every CPU. */
static void cpuinfo_read(const struct hw_roots *roots, struct cpuinfo *info)
{
    char path[HW_PATH], line[4096];
    unsigned package = 0;
    FILE *f = hw_path(path, "%s/cpuinfo", roots->proc) ? fopen(path, "re") : NULL;
    if (!f)
        return;
    while (fgets(line, sizeof(line), f)) {
        struct str value = str_from(line);
        struct str key = str_trim(str_cut(&value, ':'));
        cpuinfo_line(info, key, str_trim(value), &package);
    }
    (void)fclose(f);
}

static void find_model(const struct hw_roots *roots, struct cpuinfo *info, char *out, size_t cap)
{
    char path[HW_PATH];
    if (!info->model[0] && info->arm_implementer == 0x41)
        for (size_t i = 0; i < TABLE_COUNT(arm_parts); i++)
            if (arm_parts[i].part == info->arm_part)
                copy_str(info->model, sizeof(info->model), str_from(arm_parts[i].name));
    if (!info->model[0] && !info->hardware[0] && hw_path(path, "%s/device-tree/model", roots->proc))
        (void)hw_text_line(path, info->hardware, sizeof(info->hardware));
    copy_str(out, cap, str_from(info->model[0] ? info->model : info->hardware));
}

static void allowed_cpus(const struct hw_roots *roots, const struct cpuinfo *info, struct hw_set *ret_set)
{
    char path[HW_PATH], text[16384];
    struct hw_set online, allowed;
    if (!hw_path(path, "%s/devices/system/cpu/online", roots->sys) || !hw_set_read(path, &online) ||
        hw_set_count(&online) == 0)
        online = info->processors;
    if (hw_path(path, "%s/self/status", roots->proc) && hw_text_read(path, text, sizeof(text))) {
        const char *line = strstr(text, "\nCpus_allowed_list:");
        struct str list = str_from(line ? strchr(line, ':') + 1 : "");
        struct str first = str_trim(str_cut(&list, '\n'));
        if (first.n && hw_set_parse(first, &allowed)) {
            struct hw_set both = online;
            hw_set_intersect(&both, &allowed);
            if (hw_set_count(&both))
                online = both;
        }
    }
    *ret_set = online;
}

/* Leaves the performance cores where a machine mixes kinds: matrix products are cut into equal shares, so a
 * slow core holds up all others. Intel lists its kinds as two PMUs; ARM gives every CPU a capacity, and a
 * core under three quarters of the largest counts as slow. */
static void performance_cpus(const struct hw_roots *roots, struct hw_set *cpus)
{
    char path[HW_PATH];
    struct hw_set fast, both = *cpus;
    if (hw_path(path, "%s/devices/cpu_core/cpus", roots->sys) && hw_set_read(path, &fast)) {
        hw_set_intersect(&both, &fast);
    } else {
        uint64_t capacity, largest = 0;
        for (int pass = 0; pass < 2; pass++) {
            for (unsigned i = 0; i < HW_SET_BITS; i++) {
                if (!hw_set_has(cpus, i) ||
                    !hw_path(path, "%s/devices/system/cpu/cpu%u/cpu_capacity", roots->sys, i) ||
                    !hw_text_u64(path, &capacity))
                    continue;
                if (pass == 0 && capacity > largest)
                    largest = capacity;
                if (pass == 1 && capacity < largest / 4 * 3)
                    both.words[i / 64] &= ~(UINT64_C(1) << (i % 64));
            }
            if (largest == 0)
                return;
        }
    }
    if (hw_set_count(&both))
        *cpus = both;
}

/* Cores are told apart by the first CPU of their list of siblings. */
static unsigned count_cores(const struct hw_roots *roots, const struct hw_set *cpus,
                            const struct cpuinfo *info)
{
    static const char *const names[] = {"core_cpus_list", "thread_siblings_list"}; /* new name, old name */
    struct hw_set cores = {0};
    for (unsigned i = 0; i < HW_SET_BITS; i++) {
        if (!hw_set_has(cpus, i))
            continue;
        for (size_t k = 0; k < TABLE_COUNT(names); k++) {
            char path[HW_PATH], line[512];
            if (!hw_path(path, "%s/devices/system/cpu/cpu%u/topology/%s", roots->sys, i, names[k]) ||
                !hw_text_line(path, line, sizeof(line)))
                continue;
            uint64_t first;
            if (str_u64((struct str){line, strspn(line, "0123456789")}, &first) && first < HW_SET_BITS) {
                hw_set_add(&cores, (unsigned)first);
                break;
            }
        }
    }
    unsigned n = hw_set_count(&cores), logical = hw_set_count(cpus);
    if (n == 0)
        n = hw_set_count(&info->cores);
    return n && n < logical ? n : logical;
}

/* Nodes that have a CPU of ours: memory-only nodes (device memory, CXL) are not counted. */
static unsigned count_nodes(const struct hw_roots *roots, const struct hw_set *cpus)
{
    char path[HW_PATH];
    struct hw_set nodes, node_cpus;
    unsigned n = 0;
    if (!hw_path(path, "%s/devices/system/node/online", roots->sys) || !hw_set_read(path, &nodes))
        return 1;
    for (unsigned i = 0; i < HW_SET_BITS; i++) {
        if (!hw_set_has(&nodes, i) ||
            !hw_path(path, "%s/devices/system/node/node%u/cpulist", roots->sys, i) ||
            !hw_set_read(path, &node_cpus))
            continue;
        hw_set_intersect(&node_cpus, cpus);
        n += hw_set_count(&node_cpus) > 0;
    }
    return n ? n : 1;
}

static void read_topology(const struct hw_roots *roots, unsigned quota, struct hw_host *host)
{
    struct cpuinfo info = {0};
    struct hw_set cpus;
    cpuinfo_read(roots, &info);
    find_model(roots, &info, host->model, sizeof(host->model));
    allowed_cpus(roots, &info, &cpus);
    unsigned logical = hw_set_count(&cpus);
    host->numa_nodes = count_nodes(roots, &cpus);
    performance_cpus(roots, &cpus);
    unsigned physical = count_cores(roots, &cpus, &info);
    if (logical == 0)
        logical = physical = 1; /* we are running on something */
    host->logical_cpus = logical < quota ? logical : quota;
    host->physical_cores = physical < quota ? physical : quota;
}

enum rc hw_cpu_open(const struct hw_roots *roots, struct hw_cpu **ret_cpu, struct err *err)
{
    char path[HW_PATH];
    if (!hw_path(path, "%s/meminfo", roots->proc))
        return err_set(err, RC_LIMIT, "the path of /proc is too long: %.100s…", roots->proc);
    int meminfo = hw_text_open(path);
    if (meminfo < 0) {
        enum rc rc = err_sys(err, RC_IO, "cannot read %s", path);
        err_hint(err, "is /proc mounted?");
        return rc;
    }
    struct hw_cpu *cpu = mem_new(struct hw_cpu);
    cpu->meminfo = meminfo;
    cpu->cgroup = hw_cgroup_open(roots);
    read_topology(roots, hw_cgroup_cpus(cpu->cgroup), &cpu->fixed);
    *ret_cpu = cpu;
    return RC_OK;
}

static uint64_t meminfo_bytes(const char *text, const char *key, uint64_t fallback)
{
    uint64_t kib, bytes;
    if (!hw_text_find_u64(text, key, &kib) || __builtin_mul_overflow(kib, 1024, &bytes))
        return fallback;
    return bytes;
}

enum rc hw_cpu_sample(struct hw_cpu *cpu, struct hw_host *ret_host, struct err *err)
{
    char text[4096];
    if (!hw_text_pread(cpu->meminfo, text, sizeof(text)))
        return err_sys(err, RC_IO, "cannot read /proc/meminfo");
    struct hw_host host = cpu->fixed;
    host.ram_total_bytes = meminfo_bytes(text, "MemTotal", 0);
    if (host.ram_total_bytes == 0)
        return err_set(err, RC_IO, "/proc/meminfo has no MemTotal");
    /* Kernels before 3.14 have no MemAvailable. */
    uint64_t fallback = meminfo_bytes(text, "MemFree", 0) + meminfo_bytes(text, "Cached", 0);
    host.ram_available_bytes = meminfo_bytes(text, "MemAvailable", fallback);
    if (host.ram_available_bytes > host.ram_total_bytes)
        host.ram_available_bytes = host.ram_total_bytes;
    host.swap_total_bytes = meminfo_bytes(text, "SwapTotal", 0);
    host.swap_free_bytes = meminfo_bytes(text, "SwapFree", 0);

    struct hw_cgroup_memory group = hw_cgroup_memory(cpu->cgroup);
    host.cgroup_limit_bytes = group.limit_bytes;
    host.cgroup_used_bytes = group.used_bytes;
    host.usable_total_bytes =
        group.lowest_limit_bytes < host.ram_total_bytes ? group.lowest_limit_bytes : host.ram_total_bytes;
    host.usable_free_bytes =
        group.headroom_bytes < host.ram_available_bytes ? group.headroom_bytes : host.ram_available_bytes;
    *ret_host = host;
    return RC_OK;
}

void hw_cpu_close(struct hw_cpu *cpu)
{
    if (!cpu)
        return;
    close(cpu->meminfo);
    hw_cgroup_close(cpu->cgroup);
    free(cpu);
}
