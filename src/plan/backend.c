/* Kinds of devices. Layer plan; see backend.h. */
#include "plan/backend.h"

#include <string.h>

static const struct backend_traits traits[] = {
#define BACKEND(id, stem, kind, align, chunk, batch, reorders, pads, pinned, overhead, gbps, tflops, link)   \
    [PLAN_##id] = {stem,     kind,     align,  (chunk) ? (chunk) : UINT64_MAX,                               \
                   batch,    reorders, pads,   pinned,                                                       \
                   overhead, gbps,     tflops, link},
#include "plan/backends.def"
#undef BACKEND
};

const struct backend_traits *backend_traits(enum plan_backend b)
{
    return &traits[(size_t)b < TABLE_COUNT(traits) ? b : PLAN_CUDA];
}

struct graph_backend backend_graph(enum plan_backend b)
{
    const struct backend_traits *t = backend_traits(b);
    return (struct graph_backend){.alignment = t->alignment,
                                  .max_chunk = t->max_chunk,
                                  .offload_batch = t->offload_batch,
                                  .reorders = t->reorders,
                                  .pads_rows = t->pads_rows};
}

struct graph_backend backend_graph_host(bool pinned)
{
    return (struct graph_backend){.alignment = pinned ? 64 : 32, .max_chunk = UINT64_MAX};
}

void plan_device_named(struct plan_device *d, struct str name, uint64_t total_bytes, uint64_t free_bytes)
{
    *d = (struct plan_device){.backend = PLAN_CUDA, .total_bytes = total_bytes, .free_bytes = free_bytes};
    size_t n = name.n < sizeof d->name - 1 ? name.n : sizeof d->name - 1;
    memcpy(d->name, name.p, n);
    for (size_t i = 0; i < TABLE_COUNT(traits); i++) {
        size_t stem = strlen(traits[i].stem);
        if (name.n >= stem && str_ieq((struct str){name.p, stem}, str_from(traits[i].stem)))
            d->backend = (enum plan_backend)i;
    }
    d->overhead_bytes = backend_traits(d->backend)->overhead_mib * MIB;
}
