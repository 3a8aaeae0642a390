/* Loads NVIDIA's management library: where it may be, which symbols, and what its refusals mean for a person.
 * Layer hw, thread of the owner; blocks while the driver starts. No NVIDIA header or library is needed to
 * build. */
#include "hw/nvml_api.h"

#include "base/mem.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define NVIDIA_VENDOR 0x10de

#define SLOT(field) offsetof(struct nvml_api, field)

static const struct nvml_symbol symbols[] = {
    {"nvmlInit_v2", SLOT(init), true},
    {"nvmlShutdown", SLOT(shutdown), true},
    {"nvmlSystemGetDriverVersion", SLOT(driver_version), false},
    {"nvmlSystemGetCudaDriverVersion_v2", SLOT(cuda_version), false},
    {"nvmlSystemGetCudaDriverVersion", SLOT(cuda_version), false},
    {"nvmlDeviceGetCount_v2", SLOT(count), true},
    {"nvmlDeviceGetHandleByIndex_v2", SLOT(handle), true},
    {"nvmlDeviceGetName", SLOT(name), true},
    {"nvmlDeviceGetUUID", SLOT(uuid), false},
    {"nvmlDeviceGetPciInfo_v3", SLOT(pci), false},
    {"nvmlDeviceGetPciInfo_v2", SLOT(pci), false},
    {"nvmlDeviceGetMemoryInfo", SLOT(memory_v1), true},
    {"nvmlDeviceGetMemoryInfo_v2", SLOT(memory_v2), false},
    {"nvmlDeviceGetUtilizationRates", SLOT(utilization), false},
    {"nvmlDeviceGetTemperature", SLOT(temperature), false},
    {"nvmlDeviceGetTemperatureV", SLOT(temperature_v), false},
    {"nvmlDeviceGetTemperatureThreshold", SLOT(temperature_limit), false},
    {"nvmlDeviceGetPowerUsage", SLOT(power), false},
    {"nvmlDeviceGetEnforcedPowerLimit", SLOT(power_limit), false},
    {"nvmlDeviceGetPowerManagementDefaultLimit", SLOT(power_default), false},
    {"nvmlDeviceGetPowerManagementLimit", SLOT(power_wanted), false},
    {"nvmlDeviceGetPowerManagementLimitConstraints", SLOT(power_range), false},
    {"nvmlDeviceSetPowerManagementLimit", SLOT(power_set), false},
    {"nvmlDeviceGetClockInfo", SLOT(clock), false},
    {"nvmlDeviceGetMaxClockInfo", SLOT(clock_max), false},
    {"nvmlDeviceGetMemoryBusWidth", SLOT(bus_width), false},
    {"nvmlDeviceGetCudaComputeCapability", SLOT(compute_capability), false},
    {"nvmlDeviceGetCurrPcieLinkGeneration", SLOT(pcie_gen), false},
    {"nvmlDeviceGetCurrPcieLinkWidth", SLOT(pcie_width), false},
    {"nvmlDeviceGetMaxPcieLinkGeneration", SLOT(pcie_gen_max), false},
    {"nvmlDeviceGetMaxPcieLinkWidth", SLOT(pcie_width_max), false},
    {"nvmlDeviceGetPcieThroughput", SLOT(pcie_throughput), false},
    {"nvmlDeviceGetBAR1MemoryInfo", SLOT(bar1), false},
    {"nvmlDeviceGetPersistenceMode", SLOT(persistence), false},
    {"nvmlDeviceGetCurrentClocksEventReasons", SLOT(throttle), false},
    {"nvmlDeviceGetCurrentClocksThrottleReasons", SLOT(throttle), false},
    {"nvmlDeviceGetComputeRunningProcesses_v3", SLOT(processes[NVML_COMPUTE]), false},
    {"nvmlDeviceGetComputeRunningProcesses_v2", SLOT(processes[NVML_COMPUTE]), false},
    {"nvmlDeviceGetComputeRunningProcesses", SLOT(processes_v1[NVML_COMPUTE]), false},
    {"nvmlDeviceGetGraphicsRunningProcesses_v3", SLOT(processes[NVML_GRAPHICS]), false},
    {"nvmlDeviceGetGraphicsRunningProcesses_v2", SLOT(processes[NVML_GRAPHICS]), false},
    {"nvmlDeviceGetGraphicsRunningProcesses", SLOT(processes_v1[NVML_GRAPHICS]), false},
    {"nvmlDeviceGetMPSComputeRunningProcesses_v3", SLOT(processes[NVML_MPS]), false},
    {"nvmlDeviceGetMPSComputeRunningProcesses_v2", SLOT(processes[NVML_MPS]), false},
    {"nvmlDeviceGetMPSComputeRunningProcesses", SLOT(processes_v1[NVML_MPS]), false},
    {"nvmlDeviceGetProcessUtilization", SLOT(process_use), false},
    {"nvmlDeviceGetMigMode", SLOT(mig_mode), false},
    {"nvmlDeviceGetMaxMigDeviceCount", SLOT(mig_max), false},
    {"nvmlDeviceGetMigDeviceHandleByIndex", SLOT(mig_handle), false},
    {"nvmlDeviceGetNumaNodeId", SLOT(numa_node), false},
    {"nvmlEventSetCreate", SLOT(events_new), false},
    {"nvmlEventSetFree", SLOT(events_free), false},
    {"nvmlDeviceRegisterEvents", SLOT(events_add), false},
    {"nvmlEventSetWait_v2", SLOT(events_wait), false},
    {"nvmlEventSetWait", SLOT(events_wait), false},
};

/* Where drivers put it; a plain name is looked up by the loader. */
static const char *const library_names[] = {
    "libnvidia-ml.so.1",
    "/usr/lib/wsl/lib/libnvidia-ml.so.1",
    "/run/opengl-driver/lib/libnvidia-ml.so.1",
    "/usr/local/nvidia/lib64/libnvidia-ml.so.1",
    "/usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.1",
};

static const struct {
    int code;
    const char *words, *hint;
} meanings[] = {
    {NVML_INVALID_ARGUMENT, "the driver does not know the device", NULL},
    {NVML_NOT_SUPPORTED, "not supported", NULL},
    {NVML_NO_PERMISSION, "no permission", "check the access rights of /dev/nvidia*"},
    {NVML_NOT_FOUND, "not found", NULL},
    {NVML_DRIVER_NOT_LOADED, "the NVIDIA driver is not loaded",
     "load it with: modprobe nvidia; after a kernel update rebuild it, and with Secure Boot check its "
     "signature"},
    {NVML_TIMEOUT, "the driver did not answer in time", NULL},
    {NVML_LIBRARY_NOT_FOUND, "a part of the NVIDIA driver is missing", "reinstall the NVIDIA driver"},
    {NVML_GPU_IS_LOST, "the GPU has fallen off the bus",
     "look for Xid in the kernel log; a reboot brings it back"},
    {NVML_RESET_REQUIRED, "the GPU needs a reset", "stop its users and run: nvidia-smi --gpu-reset"},
    {NVML_OPERATING_SYSTEM, "access to the GPU is blocked by a control group",
     "give the container or the service the /dev/nvidia* devices"},
    {NVML_VERSION_MISMATCH, "the NVIDIA library and the loaded kernel module have different versions",
     "the driver was updated while it was in use: reboot"},
    {NVML_MEMORY, "the driver is out of memory", NULL},
};

const struct nvml_symbol *nvml_symbols(size_t *ret_n)
{
    *ret_n = TABLE_COUNT(symbols);
    return symbols;
}

const char *nvml_words(int code, char *out, size_t cap)
{
    for (size_t i = 0; i < TABLE_COUNT(meanings); i++)
        if (meanings[i].code == code)
            return meanings[i].words;
    (void)snprintf(out, cap, "error %d of the NVIDIA library", code);
    return out;
}

static const char *hint_of(int code)
{
    for (size_t i = 0; i < TABLE_COUNT(meanings); i++)
        if (meanings[i].code == code && meanings[i].hint)
            return meanings[i].hint;
    return "nvidia-smi may say more";
}

/* "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue …", or "… Open Kernel Module for x86_64
 * 550.…": the first word with a digit and a dot. "" when the module is not loaded. */
static void module_version(const struct hw_roots *roots, char *out, size_t cap)
{
    char path[HW_PATH], text[512];
    out[0] = '\0';
    if (!hw_path(path, "%s/driver/nvidia/version", roots->proc) || !hw_text_line(path, text, sizeof(text)))
        return;
    struct str rest = str_from(text);
    while (rest.n) {
        struct str word = str_cut(&rest, ' ');
        if (word.n > 3 && word.n < cap && word.p[0] >= '0' && word.p[0] <= '9' &&
            memchr(word.p, '.', word.n)) {
            memcpy(out, word.p, word.n);
            out[word.n] = '\0';
            return;
        }
    }
}

static enum rc no_library(const struct hw_roots *roots, struct err *err)
{
    struct hw_pci card;
    enum rc rc;
    if (roots->nvml) {
        const char *why = dlerror();
        return err_set(err, RC_UNSUPPORTED, "cannot load %.200s: %.200s", roots->nvml,
                       why ? why : "unknown reason");
    }
    if (hw_pci_find(roots, NVIDIA_VENDOR, &card, 1) == 0)
        return err_set(err, RC_NOT_FOUND,
                       "no NVIDIA card on the PCI bus, and libnvidia-ml.so.1 is not installed");
    if (strcmp(card.driver, "nouveau") == 0)
        rc = err_set(err, RC_UNSUPPORTED, "the card at %s runs on nouveau, which cannot compute",
                     card.address);
    else
        rc = err_set(err, RC_UNSUPPORTED, "a card is at %s but libnvidia-ml.so.1 is not installed",
                     card.address);
    err_hint(err, "install the NVIDIA driver");
    return rc;
}

static void *open_library(const struct hw_roots *roots)
{
    if (roots->nvml)
        return dlopen(roots->nvml, RTLD_NOW | RTLD_LOCAL);
    for (size_t i = 0; i < TABLE_COUNT(library_names); i++) {
        void *library = dlopen(library_names[i], RTLD_NOW | RTLD_LOCAL);
        if (library)
            return library;
    }
    return NULL;
}

/* The first symbol found fills a slot; returns the name of a required one that is missing, or NULL. */
static const char *fill_slots(void *library, struct nvml_api *api)
{
    for (size_t i = 0; i < TABLE_COUNT(symbols); i++) {
        char *slot = (char *)api + symbols[i].slot;
        void *address;
        memcpy(&address, slot, sizeof(address)); /* a function pointer and a void * have one size in POSIX */
        if (address)
            continue;
        address = dlsym(library, symbols[i].name);
        if (!address && symbols[i].required)
            return symbols[i].name;
        memcpy(slot, &address, sizeof(address));
    }
    return NULL;
}

enum rc nvml_load(const struct hw_roots *roots, struct nvml_api *ret_api, void **ret_library, struct err *err)
{
    struct nvml_api api = {0};
    void *library = open_library(roots);
    if (!library)
        return no_library(roots, err);
    const char *missing = fill_slots(library, &api);
    if (missing) {
        (void)dlclose(library);
        enum rc rc = err_set(err, RC_UNSUPPORTED, "libnvidia-ml.so.1 has no %s", missing);
        err_hint(err, "update the NVIDIA driver");
        return rc;
    }
    int code = api.init();
    if (code != NVML_OK) {
        char words[64], module[32];
        (void)dlclose(library);
        module_version(roots, module, sizeof(module));
        enum rc rc = err_set(err, RC_UNSUPPORTED, "%s%s%s", nvml_words(code, words, sizeof(words)),
                             module[0] ? "; kernel module " : "", module);
        err_hint(err, "%s", hint_of(code));
        return rc;
    }
    *ret_api = api;
    *ret_library = library;
    return RC_OK;
}

void nvml_unload(struct nvml_api *api, void *library)
{
    if (!library)
        return;
    (void)api->shutdown();
    (void)dlclose(library);
}
