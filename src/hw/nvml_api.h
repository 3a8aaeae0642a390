/* NVIDIA's management library as far as it is used here: its functions as slots, the few structures they
 * fill, and the loader. Layer hw, private to the nvidia adapter and to the fake library of the tests.
 *
 * Declared from the interface that NVML documents (API versions 11 to 13); a driver keeps every version of a
 * function it ever had, so an old program works with a new library and the other way round as long as missing
 * symbols are expected. Thread: any (NVML locks inside); calls may block for milliseconds. */
#ifndef HW_NVML_API_H
#define HW_NVML_API_H

#include "hw/hw_priv.h"

enum nvml_return {
    NVML_OK = 0,
    NVML_INVALID_ARGUMENT = 2,
    NVML_NOT_SUPPORTED = 3,
    NVML_NO_PERMISSION = 4,
    NVML_NOT_FOUND = 6,
    NVML_INSUFFICIENT_SIZE = 7,
    NVML_DRIVER_NOT_LOADED = 9,
    NVML_TIMEOUT = 10,
    NVML_LIBRARY_NOT_FOUND = 12,
    NVML_FUNCTION_NOT_FOUND = 13,
    NVML_GPU_IS_LOST = 15,
    NVML_RESET_REQUIRED = 16,
    NVML_OPERATING_SYSTEM = 17, /* the device node is blocked by a control group */
    NVML_VERSION_MISMATCH = 18, /* of library and kernel module */
    NVML_MEMORY = 20,
    NVML_UNKNOWN = 999,
};

#define NVML_NOT_AVAILABLE UINT64_MAX /* in a 64-bit field: the driver does not know */

enum { NVML_SENSOR_GPU = 0, NVML_THRESHOLD_SLOWDOWN = 1 };
enum { NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2 };
enum { NVML_PCIE_TX = 0, NVML_PCIE_RX = 1 };
#define NVML_EVENT_XID 0x8ull

typedef struct nvml_device *nvml_device;
typedef struct nvml_events *nvml_events;

struct nvml_pci {
    char bus_id_v2[16]; /* all of the text in the older version of the function */
    unsigned domain, bus, device, pci_device_id, subsystem_id;
    char bus_id[32];
};

struct nvml_memory_v1 {
    unsigned long long total, free, used; /* used includes what the driver reserves */
};

struct nvml_memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

struct nvml_utilization {
    unsigned gpu, memory; /* % of time a kernel ran; % of time memory was accessed */
};

struct nvml_bar1 {
    unsigned long long total, free, used;
};

struct nvml_temperature_v1 {
    unsigned version;
    int sensor;
    int celsius;
};

struct nvml_process_v1 {
    unsigned pid;
    unsigned long long bytes;
};

struct nvml_process_v2 {
    unsigned pid;
    unsigned long long bytes;
    unsigned gpu_instance, compute_instance;
};

/* What the version 3 functions of the 535 drivers wrote: 8 bytes more, under an unchanged name. */
struct nvml_process_v3 {
    struct nvml_process_v2 base;
    unsigned long long protected_bytes;
};

struct nvml_process_use {
    unsigned pid;
    unsigned long long timestamp_us;
    unsigned sm, memory, encoder, decoder; /* % */
};

struct nvml_event {
    nvml_device device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

/* A structure that carries its own size: the library refuses one it does not know. */
#define NVML_STRUCT(type, version) ((unsigned)sizeof(type) | (unsigned)(version) << 24)

_Static_assert(sizeof(struct nvml_pci) == 68, "nvmlPciInfo_t");
_Static_assert(sizeof(struct nvml_memory_v1) == 24, "nvmlMemory_t");
_Static_assert(sizeof(struct nvml_memory_v2) == 40, "nvmlMemory_v2_t");
_Static_assert(sizeof(struct nvml_temperature_v1) == 12, "nvmlTemperature_v1_t");
_Static_assert(sizeof(struct nvml_process_v1) == 16, "nvmlProcessInfo_v1_t");
_Static_assert(sizeof(struct nvml_process_v2) == 24, "nvmlProcessInfo_v2_t");
_Static_assert(sizeof(struct nvml_process_v3) == 32, "what drivers 535 wrote");
_Static_assert(sizeof(struct nvml_process_use) == 32, "nvmlProcessUtilizationSample_t");
_Static_assert(sizeof(struct nvml_event) == 32, "nvmlEventData_t");

typedef int nvml_get_u32(nvml_device device, unsigned *ret);
typedef int nvml_get_u32_of(nvml_device device, int which, unsigned *ret);
typedef int nvml_get_text(nvml_device device, char *ret, unsigned cap);
typedef int nvml_get_processes(nvml_device device, unsigned *count, void *ret);

enum { NVML_COMPUTE, NVML_GRAPHICS, NVML_MPS, NVML_PROCESS_KINDS };

/* Slots are NULL when the library lacks the function, except those that the table in nvml_api.c calls
 * required. */
struct nvml_api {
    int (*init)(void);
    int (*shutdown)(void);
    int (*driver_version)(char *ret, unsigned cap);
    int (*cuda_version)(int *ret);
    int (*count)(unsigned *ret);
    int (*handle)(unsigned index, nvml_device *ret);
    nvml_get_text *name, *uuid;
    int (*pci)(nvml_device device, struct nvml_pci *ret);
    int (*memory_v1)(nvml_device device, struct nvml_memory_v1 *ret);
    int (*memory_v2)(nvml_device device, struct nvml_memory_v2 *ret);
    int (*utilization)(nvml_device device, struct nvml_utilization *ret);
    nvml_get_u32_of *temperature, *temperature_limit, *clock, *clock_max, *pcie_throughput;
    int (*temperature_v)(nvml_device device, struct nvml_temperature_v1 *ret);
    nvml_get_u32 *power, *power_limit, *power_default, *bus_width, *pcie_gen, *pcie_width, *pcie_gen_max,
        *pcie_width_max, *persistence, *numa_node, *mig_max;
    nvml_get_u32
        *power_wanted; /* the limit that was set; power_limit is the one enforced, from whatever cause */
    int (*power_range)(nvml_device device, unsigned *ret_least_mw, unsigned *ret_most_mw);
    int (*power_set)(nvml_device device, unsigned mw);
    int (*compute_capability)(nvml_device device, int *ret_major, int *ret_minor);
    int (*bar1)(nvml_device device, struct nvml_bar1 *ret);
    int (*throttle)(nvml_device device, unsigned long long *ret);
    nvml_get_processes *processes[NVML_PROCESS_KINDS], *processes_v1[NVML_PROCESS_KINDS];
    int (*process_use)(nvml_device device, struct nvml_process_use *ret, unsigned *count,
                       unsigned long long since_us);
    int (*mig_mode)(nvml_device device, unsigned *ret_current, unsigned *ret_pending);
    int (*mig_handle)(nvml_device device, unsigned index, nvml_device *ret);
    int (*events_new)(nvml_events *ret);
    int (*events_free)(nvml_events events);
    int (*events_add)(nvml_device device, unsigned long long types, nvml_events events);
    int (*events_wait)(nvml_events events, struct nvml_event *ret, unsigned timeout_ms);
};

/* One row a symbol; several rows of one slot are versions of a function, the best first. */
struct nvml_symbol {
    const char *name;
    size_t slot;
    bool required;
};
const struct nvml_symbol *nvml_symbols(size_t *ret_n);

/* Loads the library, fills the slots and initialises it. RC_NOT_FOUND: no library and no NVIDIA card;
 * RC_UNSUPPORTED: a card or a library is there, but they do not work (message and hint say why).
 * *ret_library is for nvml_unload. */
enum rc nvml_load(const struct hw_roots *roots, struct nvml_api *ret_api, void **ret_library,
                  struct err *err);
void nvml_unload(struct nvml_api *api, void *library);
/* "the GPU is lost" for a return code; "error 999" for one without words. out has room for cap bytes. */
const char *nvml_words(int code, char *out, size_t cap);

/* ---- power limits (nvml_power.c) ---- */
/* At the opening, for each card: hw_power_apply. At the closing, before nvml_unload: what it was. */
void nvml_power_apply(const struct nvml_api *api, const struct hw_roots *roots, nvml_device device,
                      struct hw_device *d);
void nvml_power_restore(const struct nvml_api *api, nvml_device device, const struct hw_device *d);

/* ---- processes (nvml_process.c) ---- */
/* Buffers kept between samples; zero to begin with. */
struct nvml_process_reader {
    unsigned char *list; /* room for `list_cap` of the largest process structure */
    unsigned list_cap;
    struct nvml_process_use *use;
    unsigned use_cap;
};
/* Compute, graphics and MPS users of the device into d->processes, one entry a pid; sets HW_PROCESSES when
 * the list of compute processes could be read (with `doubtful`, only when it also has entries: under WSL it
 * is always empty). */
void nvml_read_processes(const struct nvml_api *api, struct nvml_process_reader *reader, nvml_device device,
                         bool doubtful, struct hw_device *d);
/* The share of recent time of each process already in d; *since_us is kept for the next call. */
void nvml_read_process_use(const struct nvml_api *api, struct nvml_process_reader *reader, nvml_device device,
                           int64_t wall_ms, unsigned long long *since_us, struct hw_device *d);
void nvml_process_release(struct nvml_process_reader *reader);

#endif
