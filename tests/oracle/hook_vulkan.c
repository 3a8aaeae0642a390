/* Preloaded with hook.c: gives Vulkan's software device (lavapipe) the limits of a graphics card, or ggml
 * would think that products of large matrices do not fit into its buffers and leave them to the host.
 *
 * Layouts are those of the Vulkan specification: VkPhysicalDeviceProperties2 and the two structures of limits
 * that may be chained to it. */
#include <dlfcn.h>
#include <stdint.h>
#include <string.h>

struct chained {
    int32_t type;
    struct chained *next;
};
struct properties2 {
    struct chained head;
    uint32_t versions[5]; /* API, driver, vendor, device, kind */
    char name[256];
    uint8_t uuid[16];
    _Alignas(8) uint32_t limits[8]; /* the first of many; the last of these is maxStorageBufferRange */
};
struct maintenance3 {
    struct chained head;
    uint32_t max_descriptors;
    uint64_t max_allocation;
};
struct maintenance4 {
    struct chained head;
    uint64_t max_buffer;
};
enum { MAINTENANCE3 = 1000168000, MAINTENANCE4 = 1000413001 };
#define CARD_MAX 0xffffffffu

typedef void (*function)(void);
typedef function (*get_function)(void *instance, const char *name);

static void (*real_properties)(void *device, struct properties2 *p);

static void properties(void *device, struct properties2 *p)
{
    real_properties(device, p);
    p->limits[7] = CARD_MAX;
    for (struct chained *c = p->head.next; c; c = c->next) {
        if (c->type == MAINTENANCE3)
            ((struct maintenance3 *)c)->max_allocation = CARD_MAX;
        if (c->type == MAINTENANCE4)
            ((struct maintenance4 *)c)->max_buffer = CARD_MAX;
    }
}

function vkGetInstanceProcAddr(void *instance, const char *name);
function vkGetInstanceProcAddr(void *instance, const char *name)
{
    get_function real;
    *(void **)&real = dlsym(RTLD_NEXT, "vkGetInstanceProcAddr");
    if (!real) { /* the library came with a backend, outside the search order */
        void *vulkan = dlopen("libvulkan.so.1", RTLD_NOW);
        *(void **)&real = vulkan ? dlsym(vulkan, "vkGetInstanceProcAddr") : NULL;
    }
    function f = real ? real(instance, name) : NULL;
    if (!f || strncmp(name, "vkGetPhysicalDeviceProperties2", 30))
        return f;
    *(function *)&real_properties = f;
    return (function)properties;
}
