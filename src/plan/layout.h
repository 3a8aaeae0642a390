/* Where everything of one model goes under one set of parameters: layers and weights over devices, the
 * caches, and which values the runtime makes of the parameters. Layer plan, internal; a layout is filled anew
 * for each estimate. */
#ifndef PLAN_LAYOUT_H
#define PLAN_LAYOUT_H

#include "plan/backend.h"
#include "plan/facts.h"
#include "plan/plan.h"

#define LAYOUT_MAX_BACKENDS (PLAN_MAX_DEVICES + 1)

struct weight_place {
    int8_t device; /* that holds it, n_devices = host */
    bool forced;   /* there by an option, not by its layer */
    bool repacked;
};

struct layout {
    const struct facts *f;
    const struct plan_params *p; /* as asked */
    const struct plan_device *devices;
    int n_devices; /* that take part; the host's index is n_devices */
    /* as the runtime resolves them */
    uint32_t n_ctx, n_ctx_seq, n_streams, n_seqs, n_batch, n_ubatch, n_tokens, n_outputs;
    uint32_t cells, cells_window; /* of each stream; window: layers that slide */
    int32_t gpu_layers;
    bool flash_attn; /* as asked, unless the model cannot */
    bool full_offload;
    bool pipelined;
    bool has_overrides;
    bool pins_norms, pins_scores; /* norms run where their layer lies; scores beside a cache on the host */
    bool k_rotated[2],
        v_rotated[2]; /* quantised caches are written through a Hadamard product; [1]: the sliding cache */
    int8_t layer_device[FACTS_MAX_LAYERS + 1]; /* [n_layer] = the output's */
    /* weights */
    struct weight_place *places; /* [n_weights], valid only with overrides: see layout_weight */
    int8_t output_device;        /* where the output matrix lies (a tied one may be a second copy) */
    bool output_repacked;
    uint64_t model_bytes[LAYOUT_MAX_BACKENDS];
    uint64_t repack_bytes;
    uint64_t context_bytes[LAYOUT_MAX_BACKENDS];
    uint64_t checkpoint_bytes; /* of one slot: sliding and recurrent layers */
    /* adapters: n_weights pairs of each in turn (extras.h); set before layout_init and kept by it */
    const struct adapter_pair *adapters;
    uint32_t n_adapters;
};

/* Memory of `places` is the caller's. RC_INVALID for combinations the runtime refuses. */
enum rc layout_init(struct layout *l, const struct facts *f, const struct plan_params *p,
                    const struct plan_device *devices, size_t n_devices, struct err *err);
/* host.c: what lies on the host beside the three parts; compute_bytes is set before. */
void host_parts(const struct layout *l, struct plan_part *host);
/* layout.c's steps */
enum rc layout_weights(struct layout *l, struct err *err);
enum rc layout_cache(struct layout *l, struct err *err);

/* Where a weight lies; of one that every buffer has a copy of, the first layer's. */
struct weight_place layout_weight(const struct layout *l, uint32_t weight);

/* The split as layers a device: the same layout for whoever repeats it. */
void layout_shares(const struct layout *l, struct plan_params *p);

static inline int layout_host(const struct layout *l)
{
    return l->n_devices;
}
/* Device whose memory holds layer il's cache. */
static inline int layout_cache_device(const struct layout *l, uint32_t il)
{
    return l->p->kv_offload ? l->layer_device[il] : l->n_devices;
}
static inline uint32_t pad_to(uint32_t n, uint32_t to)
{
    return (uint32_t)(((uint64_t)n + to - 1) / to * to);
}

#endif
