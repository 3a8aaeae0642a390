/* A libnvidia-ml.so for tests: GPUs from a scenario file, no driver and no card. For unit tests by its path,
 * for flow tests through the program's ARRIERO_NVML.
 *
 * The file is named by $ARRIERO_TOY_NVML and read again when it changes (looked at when memory is asked for),
 * so that a test can take a card away from a running program. One statement a line, '#' starts a comment:
 *
 *   driver 550.54.15 | cuda 12040 | init CODE      answers about the whole; init's return code
 *   wsl                                            the lists of processes are empty
 *   process_size 24|32                             what an entry of the version 3 process lists takes
 *   gpu                                            a card begins; what follows is about it
 *   name TEXT | uuid TEXT | pci 0000:01:00 | cc 8 9 | bus BITS | node N
 *   memory TOTAL_MIB RESERVED_MIB USED_MIB         used_curve MIB…: one step each time memory is read, the
 * last stays unified                                        no memory of its own: the memory functions are
 * not supported util GPU MEMORY | temperature C SLOWDOWN_C | power MW LIMIT_MW DEFAULT_MW | clocks SM MEMORY
 * MEMORY_MAX pcie GEN WIDTH GEN_MAX WIDTH_MAX | throttle HEX | bar1 TOTAL_MIB USED_MIB | persistence 0|1 |
 * traffic RX TX process PID MIB|na compute|graphics|mps [SHARE] processes N FIRST_PID MIB N compute processes
 *   power_range LEAST_MW MOST_MW                  limits that may be set; without it none may. What is set
 * holds until the library is shut down, and each call is a line "set INDEX MW" of the file that
 * $ARRIERO_TOY_NVML_CALLS names xid NUMBER                                     an event, delivered once each
 * time the file is read lost [AFTER]                                   GPU_IS_LOST from now, or after so many
 * readings of memory fail FUNCTION CODE                             that function answers CODE for this card
 *   mig                                            MIG mode; then: instance UUID TOTAL_MIB USED_MIB NAME…
 *
 * Compiled with TOY_OLD it lacks what drivers before 2021 lack; with TOY_BROKEN it lacks what every driver
 * has. The declarations are deliberately its own and not those of src/hw: a wrong layout there shows as a
 * wrong figure. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* The callers' prototypes come from dlsym. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"

#define MAX_GPUS      24
#define MAX_PROCESSES 400
#define MAX_INSTANCES 8
#define MAX_FAILURES  16
#define MAX_STEPS     32
#define MEGA          (1024ull * 1024ull)
#define UNKNOWN64     0xffffffffffffffffull

enum {
    OK = 0,
    UNINITIALIZED = 1,
    INVALID = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    TOO_SMALL = 7,
    TIMEOUT = 10
};
enum { LOST = 15, WRONG_VERSION = 25 };

struct process {
    unsigned pid, share;
    unsigned long long bytes;
    char kind; /* 'c', 'g' or 'm' */
};

struct instance {
    char uuid[96], name[96];
    unsigned long long total, used;
};

struct failure {
    char function[64];
    int code;
};

struct gpu {
    char name[96], uuid[96];
    unsigned domain, bus, slot, major, minor, bus_width, node;
    unsigned long long total, reserved, used, steps[MAX_STEPS];
    unsigned n_steps, readings, lost_after, xid;
    unsigned util[2], temperature[2], power[3], clocks[3], pcie[4], bar1[2], traffic[2], persistence;
    unsigned power_range[2], power_set;
    unsigned long long throttle;
    int unified, lost, mig, watched, has_node;
    struct process processes[MAX_PROCESSES];
    unsigned n_processes;
    struct instance instances[MAX_INSTANCES];
    unsigned n_instances;
    struct failure failures[MAX_FAILURES];
    unsigned n_failures;
};

struct device { /* what a handle points to */
    struct gpu *gpu;
    struct instance *instance; /* NULL: the whole card */
};

/* NVML's state is global too. */
static struct gpu gpus[MAX_GPUS];
static struct device wholes[MAX_GPUS], parts[MAX_GPUS][MAX_INSTANCES];
static unsigned n_gpus;
static int initialized, init_code, wsl, process_size = 24;
static char driver[80], scenario_path[512];
static int cuda;
static struct timespec scenario_time;
static off_t scenario_length;

/* ---- the scenario ---- */

static void numbers(const char *args, unsigned *out, int n)
{
    for (int i = 0; i < n; i++) {
        char *end;
        unsigned long value = strtoul(args, &end, 10);
        if (end == args)
            return;
        out[i] = (unsigned)value;
        args = end;
    }
}

static void add_process(struct gpu *g, unsigned pid, unsigned long long bytes, char kind, unsigned share)
{
    if (g->n_processes < MAX_PROCESSES)
        g->processes[g->n_processes++] = (struct process){pid, share, bytes, kind};
}

static void parse_process(struct gpu *g, const char *args)
{
    unsigned pid = 0, share = 101; /* none */
    char amount[32] = "", kind[16] = "c";
    if (sscanf(args, "%u %31s %15s %u", &pid, amount, kind, &share) < 2)
        return;
    add_process(g, pid, strcmp(amount, "na") == 0 ? UNKNOWN64 : strtoull(amount, NULL, 10) * MEGA, kind[0],
                share);
}

static void parse_curve(struct gpu *g, const char *args)
{
    char *end;
    for (g->n_steps = 0; g->n_steps < MAX_STEPS; g->n_steps++, args = end) {
        g->steps[g->n_steps] = strtoull(args, &end, 10) * MEGA;
        if (end == args)
            return;
    }
}

static void parse_card(struct gpu *g, const char *key, const char *args)
{
    unsigned n[3] = {0};
    struct instance *part = &g->instances[g->n_instances];
    static const struct {
        const char *key;
        size_t offset;
        int n;
    } plain[] = {
        {"bus", offsetof(struct gpu, bus_width), 1},
        {"util", offsetof(struct gpu, util), 2},
        {"temperature", offsetof(struct gpu, temperature), 2},
        {"power", offsetof(struct gpu, power), 3},
        {"power_range", offsetof(struct gpu, power_range), 2},
        {"clocks", offsetof(struct gpu, clocks), 3},
        {"pcie", offsetof(struct gpu, pcie), 4},
        {"bar1", offsetof(struct gpu, bar1), 2},
        {"traffic", offsetof(struct gpu, traffic), 2},
        {"persistence", offsetof(struct gpu, persistence), 1},
        {"xid", offsetof(struct gpu, xid), 1},
        {"cc", offsetof(struct gpu, major), 2},
    };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strcmp(key, plain[i].key) == 0)
            numbers(args, (unsigned *)((char *)g + plain[i].offset), plain[i].n);
    if (strcmp(key, "name") == 0)
        (void)snprintf(g->name, sizeof g->name, "%s", args);
    else if (strcmp(key, "uuid") == 0)
        (void)snprintf(g->uuid, sizeof g->uuid, "%s", args);
    else if (strcmp(key, "pci") == 0)
        (void)sscanf(args, "%x:%x:%x", &g->domain, &g->bus, &g->slot);
    else if (strcmp(key, "node") == 0) {
        g->has_node = 1;
        numbers(args, &g->node, 1);
    } else if (strcmp(key, "memory") == 0) {
        numbers(args, n, 3);
        g->total = n[0] * MEGA;
        g->reserved = n[1] * MEGA;
        g->used = n[2] * MEGA;
    } else if (strcmp(key, "used_curve") == 0)
        parse_curve(g, args);
    else if (strcmp(key, "unified") == 0)
        g->unified = 1;
    else if (strcmp(key, "throttle") == 0)
        g->throttle = strtoull(args, NULL, 16);
    else if (strcmp(key, "process") == 0)
        parse_process(g, args);
    else if (strcmp(key, "processes") == 0) {
        numbers(args, n, 3);
        for (unsigned i = 0; i < n[0]; i++)
            add_process(g, n[1] + i, n[2] * MEGA, 'c', 101);
    } else if (strcmp(key, "lost") == 0) {
        g->lost = 1;
        numbers(args, &g->lost_after, 1);
    } else if (strcmp(key, "fail") == 0 && g->n_failures < MAX_FAILURES) {
        if (sscanf(args, "%63s %d", g->failures[g->n_failures].function, &g->failures[g->n_failures].code) ==
            2)
            g->n_failures++;
    } else if (strcmp(key, "mig") == 0)
        g->mig = 1;
    else if (strcmp(key, "instance") == 0 && g->n_instances < MAX_INSTANCES &&
             sscanf(args, "%95s %llu %llu %95[^\n]", part->uuid, &part->total, &part->used, part->name) ==
                 4) {
        part->total *= MEGA;
        part->used *= MEGA;
        g->n_instances++;
    }
}

static void parse_line(char *line)
{
    char *key = line + strspn(line, " \t");
    key[strcspn(key, "#\r\n")] = '\0';
    size_t n = strcspn(key, " \t");
    char *args = key + n;
    if (*args)
        *args++ = '\0';
    args += strspn(args, " \t");
    for (size_t end = strlen(args); end && (args[end - 1] == ' ' || args[end - 1] == '\t');)
        args[--end] = '\0';
    if (n == 0)
        return;
    if (strcmp(key, "gpu") == 0 && n_gpus < MAX_GPUS) {
        struct gpu *g = &gpus[n_gpus++];
        memset(g, 0, sizeof *g);
    } else if (strcmp(key, "driver") == 0)
        (void)snprintf(driver, sizeof driver, "%s", args);
    else if (strcmp(key, "cuda") == 0)
        cuda = atoi(args);
    else if (strcmp(key, "init") == 0)
        init_code = atoi(args);
    else if (strcmp(key, "wsl") == 0)
        wsl = 1;
    else if (strcmp(key, "process_size") == 0)
        process_size = atoi(args);
    else if (n_gpus)
        parse_card(&gpus[n_gpus - 1], key, args);
}

static void load_scenario(void)
{
    char line[1024];
    struct stat st;
    int watched[MAX_GPUS];
    unsigned readings[MAX_GPUS], power_set[MAX_GPUS];
    for (int i = 0; i < MAX_GPUS; i++) {
        watched[i] = gpus[i].watched;
        readings[i] = gpus[i].readings;
        power_set[i] = gpus[i].power_set;
    }
    FILE *f = fopen(scenario_path, "re");
    if (!f || fstat(fileno(f), &st) != 0) {
        if (f)
            (void)fclose(f);
        init_code = 9; /* DRIVER_NOT_LOADED */
        return;
    }
    n_gpus = 0;
    init_code = wsl = cuda = 0;
    process_size = 24;
    driver[0] = '\0';
    while (fgets(line, sizeof line, f))
        parse_line(line);
    (void)fclose(f);
    scenario_time = st.st_mtim;
    scenario_length = st.st_size;
    for (int i = 0; i < MAX_GPUS; i++) {
        gpus[i].watched = watched[i];
        gpus[i].readings = readings[i];
        gpus[i].power_set = power_set[i];
        wholes[i] = (struct device){&gpus[i], NULL};
        for (int k = 0; k < MAX_INSTANCES; k++)
            parts[i][k] = (struct device){&gpus[i], &gpus[i].instances[k]};
    }
}

/* ---- the library ---- */

int nvmlInit_v2(void)
{
    const char *path = getenv("ARRIERO_TOY_NVML");
    (void)snprintf(scenario_path, sizeof scenario_path, "%s", path ? path : "");
    memset(gpus, 0, sizeof gpus);
    load_scenario();
    initialized = init_code == OK;
    return init_code;
}

int nvmlShutdown(void)
{
    initialized = 0;
    return OK;
}

#ifndef TOY_BROKEN

static void reload_scenario(void)
{
    struct stat st;
    if (stat(scenario_path, &st) == 0 &&
        (st.st_mtim.tv_sec != scenario_time.tv_sec || st.st_mtim.tv_nsec != scenario_time.tv_nsec ||
         st.st_size != scenario_length))
        load_scenario();
}

/* What stops a call: not initialised, a device that is gone, a lost card, a failure that the scenario orders.
 */
static int gate(const struct device *d, const char *function)
{
    if (!initialized)
        return UNINITIALIZED;
    if (!d || !d->gpu || d->gpu >= gpus + n_gpus)
        return INVALID;
    if (d->gpu->lost && d->gpu->readings >= d->gpu->lost_after)
        return LOST;
    for (unsigned i = 0; i < d->gpu->n_failures; i++)
        if (strcmp(d->gpu->failures[i].function, function) == 0)
            return d->gpu->failures[i].code;
    return OK;
}

/* Functions that know whole cards only. */
static int gate_whole(const struct device *d, const char *function)
{
    int code = gate(d, function);
    return code == OK && d->instance ? INVALID : code;
}

int nvmlSystemGetDriverVersion(char *out, unsigned cap)
{
    return snprintf(out, cap, "%s", driver) < (int)cap ? OK : TOO_SMALL;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    *count = n_gpus;
    return initialized ? OK : UNINITIALIZED;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **out)
{
    if (index >= n_gpus)
        return INVALID;
    int code = gate(&wholes[index], __func__);
    if (code == OK)
        *out = &wholes[index];
    return code;
}

int nvmlDeviceGetName(struct device *d, char *out, unsigned cap)
{
    int code = gate(d, __func__);
    if (code == OK && snprintf(out, cap, "%s", d->instance ? d->instance->name : d->gpu->name) >= (int)cap)
        code = TOO_SMALL;
    return code;
}

int nvmlDeviceGetUUID(struct device *d, char *out, unsigned cap)
{
    int code = gate(d, __func__);
    if (code == OK && snprintf(out, cap, "%s", d->instance ? d->instance->uuid : d->gpu->uuid) >= (int)cap)
        code = TOO_SMALL;
    return code;
}

struct pci {
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char text[32];
};

#ifndef TOY_OLD
int nvmlDeviceGetPciInfo_v3(struct device *d, struct pci *out)
{
    int code = gate_whole(d, __func__);
    if (code != OK)
        return code;
    *out =
        (struct pci){.domain = d->gpu->domain, .bus = d->gpu->bus, .device = d->gpu->slot, .id = 0x268410de};
    (void)snprintf(out->text, sizeof out->text, "%08X:%02X:%02X.0", out->domain, out->bus, out->device);
    return OK;
}
#else
int nvmlDeviceGetPciInfo_v2(struct device *d, struct pci *out)
{
    int code = gate_whole(d, __func__);
    if (code != OK)
        return code;
    out->domain = d->gpu->domain; /* no long text in this version */
    out->bus = d->gpu->bus;
    out->device = d->gpu->slot;
    (void)snprintf(out->legacy, sizeof out->legacy, "%04X:%02X:%02X.0", out->domain & 0xffff, out->bus & 0xff,
                   out->device & 0xff);
    return OK;
}
#endif

static void amounts(const struct device *d, unsigned long long *total, unsigned long long *reserved,
                    unsigned long long *used)
{
    const struct gpu *g = d->gpu;
    *total = d->instance ? d->instance->total : g->total;
    *reserved = d->instance ? 0 : g->reserved;
    *used = d->instance ? d->instance->used : g->used;
    if (!d->instance && g->n_steps)
        *used = g->steps[g->readings < g->n_steps ? g->readings : g->n_steps - 1];
}

static int memory_gate(struct device *d, const char *function)
{
    if (initialized)
        reload_scenario();
    int code = gate(d, function);
    return code == OK && d->gpu->unified ? NOT_SUPPORTED : code;
}

struct memory1 {
    unsigned long long total, free, used;
};

int nvmlDeviceGetMemoryInfo(struct device *d, struct memory1 *out)
{
    unsigned long long reserved;
    int code = memory_gate(d, __func__);
    if (code != OK)
        return code;
    amounts(d, &out->total, &reserved, &out->used);
    out->used += reserved;
    out->free = out->total - out->used;
    d->gpu->readings++;
    return OK;
}

#ifndef TOY_OLD
struct memory2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

int nvmlDeviceGetMemoryInfo_v2(struct device *d, struct memory2 *out)
{
    int code = memory_gate(d, __func__);
    if (code != OK)
        return code;
    if (out->version != (40u | 2u << 24))
        return WRONG_VERSION;
    amounts(d, &out->total, &out->reserved, &out->used);
    out->free = out->total - out->reserved - out->used;
    d->gpu->readings++;
    return OK;
}
#endif

int nvmlDeviceGetUtilizationRates(struct device *d, unsigned out[2])
{
    int code = gate(d, __func__);
    if (code == OK && d->instance)
        return NOT_SUPPORTED;
    if (code == OK)
        memcpy(out, d->gpu->util, sizeof d->gpu->util);
    return code;
}

#define GET_U32(function, value)                                                                             \
    int function(struct device *d, unsigned *out)                                                            \
    {                                                                                                        \
        int code = gate_whole(d, __func__);                                                                  \
        if (code == OK)                                                                                      \
            *out = (value);                                                                                  \
        return code;                                                                                         \
    }

GET_U32(nvmlDeviceGetPowerUsage, d->gpu->power[0])
static unsigned power_limit(const struct gpu *g)
{
    return g->power_set ? g->power_set : g->power[1];
}

GET_U32(nvmlDeviceGetEnforcedPowerLimit, power_limit(d->gpu))
GET_U32(nvmlDeviceGetPowerManagementLimit, power_limit(d->gpu))
GET_U32(nvmlDeviceGetPowerManagementDefaultLimit, d->gpu->power[2])
GET_U32(nvmlDeviceGetCurrPcieLinkGeneration, d->gpu->pcie[0])
GET_U32(nvmlDeviceGetCurrPcieLinkWidth, d->gpu->pcie[1])
GET_U32(nvmlDeviceGetMaxPcieLinkGeneration, d->gpu->pcie[2])
GET_U32(nvmlDeviceGetMaxPcieLinkWidth, d->gpu->pcie[3])
GET_U32(nvmlDeviceGetPersistenceMode, d->gpu->persistence)

int nvmlDeviceGetPowerManagementLimitConstraints(struct device *d, unsigned *least, unsigned *most)
{
    int code = gate_whole(d, __func__);
    if (code == OK && d->gpu->power_range[1] == 0)
        code = NOT_SUPPORTED;
    if (code == OK) {
        *least = d->gpu->power_range[0];
        *most = d->gpu->power_range[1];
    }
    return code;
}

int nvmlDeviceSetPowerManagementLimit(struct device *d, unsigned mw)
{
    int code = gate_whole(d, __func__);
    if (code == OK && d->gpu->power_range[1] == 0)
        return NOT_SUPPORTED;
    if (code == OK && (mw < d->gpu->power_range[0] || mw > d->gpu->power_range[1]))
        return INVALID;
    if (code != OK)
        return code;
    d->gpu->power_set = mw;
    const char *path = getenv("ARRIERO_TOY_NVML_CALLS");
    FILE *f = path ? fopen(path, "ae") : NULL;
    if (f) {
        (void)fprintf(f, "set %d %u\n", (int)(d->gpu - gpus), mw);
        (void)fclose(f);
    }
    return OK;
}

int nvmlDeviceGetTemperature(struct device *d, int sensor, unsigned *out)
{
    int code = gate_whole(d, __func__);
    if (code == OK && sensor != 0)
        return INVALID;
    if (code == OK)
        *out = d->gpu->temperature[0];
    return code;
}

int nvmlDeviceGetTemperatureThreshold(struct device *d, int which, unsigned *out)
{
    int code = gate_whole(d, __func__);
    if (code == OK)
        *out = which == 1 ? d->gpu->temperature[1] : d->gpu->temperature[1] + 3;
    return code;
}

int nvmlDeviceGetClockInfo(struct device *d, int which, unsigned *out)
{
    int code = gate_whole(d, __func__);
    if (code == OK)
        *out = d->gpu->clocks[which == 2 ? 1 : 0];
    return code;
}

int nvmlDeviceGetMaxClockInfo(struct device *d, int which, unsigned *out)
{
    int code = gate_whole(d, __func__);
    if (code == OK && which == 2 && d->gpu->clocks[2] == 0)
        return NOT_SUPPORTED;
    if (code == OK)
        *out = which == 2 ? d->gpu->clocks[2] : d->gpu->clocks[0] + 100;
    return code;
}

int nvmlDeviceGetCudaComputeCapability(struct device *d, int *major, int *minor)
{
    int code = gate_whole(d, __func__);
    if (code == OK) {
        *major = (int)d->gpu->major;
        *minor = (int)d->gpu->minor;
    }
    return code;
}

int nvmlDeviceGetPcieThroughput(struct device *d, int which, unsigned *out)
{
    int code = gate_whole(d, __func__);
    if (code == OK)
        *out = d->gpu->traffic[which == 1 ? 0 : 1]; /* NVML: 0 is what the GPU sends, 1 what it receives */
    return code;
}

int nvmlDeviceGetBAR1MemoryInfo(struct device *d, unsigned long long out[3])
{
    int code = gate_whole(d, __func__);
    if (code == OK) {
        out[0] = d->gpu->bar1[0] * MEGA;
        out[2] = d->gpu->bar1[1] * MEGA;
        out[1] = out[0] - out[2];
    }
    return code;
}

static int throttle(struct device *d, unsigned long long *out, const char *function)
{
    int code = gate_whole(d, function);
    if (code == OK)
        *out = d->gpu->throttle;
    return code;
}

/* Entries of `size` bytes: number, then memory at 8, then what newer versions add. */
static int list(struct device *d, unsigned *count, unsigned char *out, char kind, size_t size,
                const char *function)
{
    unsigned n = 0;
    int code = gate(d, function);
    if (code != OK)
        return code;
    if (d->instance && kind == 'g')
        return NOT_SUPPORTED;
    for (unsigned i = 0; !wsl && i < d->gpu->n_processes; i++)
        n += d->gpu->processes[i].kind == kind;
    if (n > *count) {
        *count = n;
        return TOO_SMALL;
    }
    *count = n;
    for (unsigned i = 0; n && i < d->gpu->n_processes; i++) {
        static const unsigned none = 0xffffffffu;
        static const unsigned long long zero = 0;
        const struct process *p = &d->gpu->processes[i];
        if (p->kind != kind)
            continue;
        memcpy(out, &p->pid, 4);
        memcpy(out + 8, &p->bytes, 8);
        if (size >= 24) {
            memcpy(out + 16, &none, 4);
            memcpy(out + 20, &none, 4);
        }
        if (size >= 32)
            memcpy(out + 24, &zero, 8);
        out += size;
    }
    return OK;
}

#define PROCESSES(function, kind, size)                                                                      \
    int function(struct device *d, unsigned *count, void *out)                                               \
    {                                                                                                        \
        return list(d, count, out, kind, (size_t)(size), __func__);                                          \
    }

PROCESSES(nvmlDeviceGetComputeRunningProcesses, 'c', 16)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses, 'g', 16)

struct event {
    struct device *device;
    unsigned long long type, data;
    unsigned instance, compute;
};

static int next_event(struct event *out)
{
    for (unsigned i = 0; i < n_gpus; i++)
        if (gpus[i].watched && gpus[i].xid) {
            *out = (struct event){&wholes[i], 8, gpus[i].xid, 0xffffffffu, 0xffffffffu};
            gpus[i].xid = 0;
            return OK;
        }
    return TIMEOUT;
}

int nvmlEventSetCreate(void **out)
{
    *out = gpus;
    return OK;
}

int nvmlEventSetFree(void *set)
{
    for (unsigned i = 0; i < MAX_GPUS; i++)
        gpus[i].watched = 0;
    return set == gpus ? OK : INVALID;
}

int nvmlDeviceRegisterEvents(struct device *d, unsigned long long types, void *set)
{
    int code = gate_whole(d, __func__);
    if (code == OK && (types != 8 || set != gpus))
        return INVALID;
    if (code == OK)
        d->gpu->watched = 1;
    return code;
}

#ifdef TOY_OLD

int nvmlSystemGetCudaDriverVersion(int *out)
{
    *out = cuda;
    return OK;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(struct device *d, unsigned long long *out)
{
    return throttle(d, out, __func__);
}

int nvmlEventSetWait(void *set, struct event *out, unsigned timeout_ms)
{
    return set == gpus && timeout_ms == 0 ? next_event(out) : INVALID;
}

#else

int nvmlSystemGetCudaDriverVersion_v2(int *out)
{
    *out = cuda;
    return OK;
}

int nvmlDeviceGetCurrentClocksEventReasons(struct device *d, unsigned long long *out)
{
    return throttle(d, out, __func__);
}

int nvmlEventSetWait_v2(void *set, struct event *out, unsigned timeout_ms)
{
    return set == gpus && timeout_ms == 0 ? next_event(out) : INVALID;
}

GET_U32(nvmlDeviceGetMemoryBusWidth, d->gpu->bus_width)

int nvmlDeviceGetNumaNodeId(struct device *d, unsigned *out)
{
    int code = gate_whole(d, __func__);
    if (code == OK && !d->gpu->has_node)
        return NOT_SUPPORTED;
    if (code == OK)
        *out = d->gpu->node;
    return code;
}

struct temperature {
    unsigned version;
    int sensor, celsius;
};

int nvmlDeviceGetTemperatureV(struct device *d, struct temperature *out)
{
    int code = gate_whole(d, __func__);
    if (code == OK && out->version != (12u | 1u << 24))
        return WRONG_VERSION;
    if (code == OK)
        out->celsius = (int)d->gpu->temperature[0];
    return code;
}

PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, 'c', 24)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, 'g', 24)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2, 'm', 24)
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, 'c', process_size)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, 'g', process_size)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, 'm', process_size)

struct share {
    unsigned pid;
    unsigned long long stamp_us;
    unsigned sm, memory, encoder, decoder;
};

/* With every answer come an entry that was never filled and one with an old time, as real drivers send. */
int nvmlDeviceGetProcessUtilization(struct device *d, struct share *out, unsigned *count,
                                    unsigned long long since_us)
{
    struct timespec now;
    unsigned n = 2;
    int code = gate_whole(d, __func__);
    if (code != OK)
        return code;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    unsigned long long now_us =
        (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000;
    for (unsigned i = 0; i < d->gpu->n_processes; i++)
        n += d->gpu->processes[i].share <= 100;
    if (n == 2)
        return NOT_FOUND;
    if (n > *count) {
        *count = n;
        return TOO_SMALL;
    }
    *count = n;
    for (unsigned i = 0; i < d->gpu->n_processes; i++)
        if (d->gpu->processes[i].share <= 100)
            *out++ = (struct share){d->gpu->processes[i].pid, now_us, d->gpu->processes[i].share, 1, 0, 0};
    *out++ = (struct share){d->gpu->processes[0].pid, now_us, 4000000000u, 1, 1, 1};
    *out = (struct share){d->gpu->processes[0].pid, since_us > 5 ? since_us - 5 : 0, 99, 1, 1, 1};
    return OK;
}

int nvmlDeviceGetMigMode(struct device *d, unsigned *current, unsigned *pending)
{
    int code = gate_whole(d, __func__);
    if (code == OK)
        *current = *pending = (unsigned)d->gpu->mig;
    return code;
}

int nvmlDeviceGetMaxMigDeviceCount(struct device *d, unsigned *out)
{
    int code = gate_whole(d, __func__);
    if (code == OK)
        *out = d->gpu->mig ? MAX_INSTANCES : 0;
    return code;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct device *d, unsigned index, struct device **out)
{
    int code = gate_whole(d, __func__);
    if (code != OK)
        return code;
    /* Numbers have holes: only the odd ones are taken. */
    if (index % 2 == 0 || index / 2 >= d->gpu->n_instances)
        return NOT_FOUND;
    *out = &parts[d - wholes][index / 2];
    return OK;
}

#endif /* TOY_OLD */
#endif /* TOY_BROKEN */
