/* Power limits of NVIDIA's cards: see nvml_api.h and hw_power_apply. Layer hw; the thread that opens the
 * handle. */
#include "hw/nvml_api.h"

struct limited { /* one card, for the functions below */
    const struct nvml_api *api;
    nvml_device device;
};

static int range(void *arg, unsigned *ret_least_mw, unsigned *ret_most_mw)
{
    const struct limited *l = arg;
    return l->api->power_range ? l->api->power_range(l->device, ret_least_mw, ret_most_mw)
                               : NVML_FUNCTION_NOT_FOUND;
}

static int get(void *arg, unsigned *ret_mw)
{
    const struct limited *l = arg;
    return l->api->power_wanted ? l->api->power_wanted(l->device, ret_mw) : NVML_FUNCTION_NOT_FOUND;
}

static int set(void *arg, unsigned mw)
{
    const struct limited *l = arg;
    return l->api->power_set ? l->api->power_set(l->device, mw) : NVML_FUNCTION_NOT_FOUND;
}

static bool is_denied(int code)
{
    return code == NVML_NO_PERMISSION;
}

static const struct hw_power_driver driver = {.range = range,
                                              .get = get,
                                              .set = set,
                                              .words = nvml_words,
                                              .is_denied = is_denied,
                                              .tool = "nvidia-smi -pl"};

void nvml_power_apply(const struct nvml_api *api, const struct hw_roots *roots, nvml_device device,
                      struct hw_device *d)
{
    struct limited l = {api, device};
    if (!d->mig) /* an instance has no limit of its own */
        hw_power_apply(roots, &driver, &l, d);
}

void nvml_power_restore(const struct nvml_api *api, nvml_device device, const struct hw_device *d)
{
    if (d->power_restore_mw)
        (void)api->power_set(device, d->power_restore_mw);
}
