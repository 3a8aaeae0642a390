/* Bytes of the weights on each device. Layer plan; see layout.h. Sources: llama.cpp's placement rules
 * (ESTIMATE: the layer's device, expert and tensor overrides, host memory classes), checked against
 * llama-fit-params. */
#include "plan/layout.h"
#include "plan/pattern.h"

#include <stdio.h>
#include <string.h>

/* A tensor on the host is packed again when its operation is a product, its type has a packed kernel on this
 * processor and its rows divide into groups of eight (four for some). */
static bool repackable(const struct tensor *t, enum role_kind kind, unsigned isa)
{
    static const struct {
        uint32_t type;
        unsigned isa, rows;
    } kernels[] = {
        {GGML_Q4_0, PLAN_AVX2, 8},          {GGML_Q4_K, PLAN_AVX2, 8},
        {GGML_IQ4_NL, PLAN_AVX2, 8},        {GGML_MXFP4, PLAN_AVX2, 8},
        {GGML_Q2_K, PLAN_AVX512, 8},        {GGML_Q4_0, PLAN_NEON_DOTPROD, 4},
        {GGML_Q4_K, PLAN_NEON_DOTPROD, 8},  {GGML_Q5_K, PLAN_NEON_DOTPROD, 8},
        {GGML_Q6_K, PLAN_NEON_DOTPROD, 8},  {GGML_IQ4_NL, PLAN_NEON_DOTPROD, 4},
        {GGML_MXFP4, PLAN_NEON_DOTPROD, 4}, {GGML_Q8_0, PLAN_NEON_DOTPROD, 4},
    };
    if (!(kind == KIND_PRODUCT && t->n_dims == 2) && !(kind == KIND_EXPERTS && t->n_dims == 3))
        return false;
    for (size_t i = 0; i < TABLE_COUNT(kernels); i++)
        if (kernels[i].type == t->type && (isa & kernels[i].isa) && t->ne[1] % kernels[i].rows == 0)
            return true;
    return false;
}

struct overrides {
    regex_t re[PLAN_MAX_OVERRIDES];
    int device[PLAN_MAX_OVERRIDES];
    uint32_t n;
};

static int buffer_device(const struct layout *l, const char *name)
{
    if (!strcmp(name, "CPU"))
        return layout_host(l);
    for (int d = 0; d < l->n_devices; d++)
        if (!strcmp(l->devices[d].name, name))
            return d;
    return -1;
}

static enum rc overrides_init(struct overrides *o, const struct layout *l, struct err *err)
{
    o->n = 0;
    for (uint32_t i = 0; i < l->p->n_overrides && i < PLAN_MAX_OVERRIDES; i++) {
        int dev = buffer_device(l, l->p->overrides[i].buffer);
        if (dev < 0)
            return err_set(err, RC_INVALID, "no device named '%s' for the tensor override '%s'",
                           l->p->overrides[i].buffer, l->p->overrides[i].pattern);
        enum rc rc = pattern_compile(&o->re[i], l->p->overrides[i].pattern, err);
        if (rc)
            return rc;
        o->device[i] = dev;
        o->n++;
    }
    return RC_OK;
}

static void overrides_release(struct overrides *o)
{
    for (uint32_t i = 0; i < o->n; i++)
        regfree(&o->re[i]);
}

static int overridden(const struct overrides *o, const struct weight_facts *w)
{
    for (uint32_t i = 0; i < o->n; i++)
        if (!regexec(&o->re[i], w->t->name, 0, NULL, 0))
            return o->device[i];
    return -1;
}

/* Host weights lie in the first device's pinned memory, if it has some, unless they were sent to the CPU. */
static uint32_t host_alignment(const struct layout *l, bool forced)
{
    return forced ? 32
                  : backend_graph_host(l->n_devices == 0, l->n_devices ? l->devices[0].backend : PLAN_CUDA)
                        .alignment;
}

/* Bytes a buffer of `dev` spends on the tensor. */
static uint64_t stored_bytes(const struct layout *l, int dev, bool forced, const struct tensor *t)
{
    return dev == layout_host(l) ? backend_host_bytes(host_alignment(l, forced), t)
                                 : backend_stored_bytes(l->devices[dev].backend, t);
}

static void count(struct layout *l, int dev, bool forced, bool repacked, const struct tensor *t)
{
    uint64_t n = stored_bytes(l, dev, forced, t);
    l->model_bytes[dev] += n;
    if (repacked)
        l->repack_bytes += n;
}

/* Packing happens only where no device offers pinned memory: that class is asked first. */
static bool packs(const struct layout *l)
{
    return l->p->repack && !(l->n_devices && backend_traits(l->devices[0].backend)->pinned_host);
}

/* Rope factors belong to the layers: each buffer with layers has one copy. */
static void per_layer_copies(struct layout *l, uint32_t i)
{
    bool seen[LAYOUT_MAX_BACKENDS] = {false};
    l->weight_device[i] = l->layer_device[0];
    for (uint32_t il = 0; il < l->f->n_layer_run; il++) {
        int dev = l->layer_device[il];
        if (!seen[dev])
            count(l, dev, false, false, l->f->weights[i].t);
        seen[dev] = true;
    }
}

/* Would the device run the scan that reads this weight? Asked with the model's own shapes. */
static bool takes_scan(const struct layout *l, const struct backend_traits *b, const struct tensor *w)
{
    const struct facts *f = l->f;
    uint64_t heads = w->ne[1] ? w->ne[1] : 1;
    struct gtensor t[] = {
        {.op = OP_SSM_SCAN, .src = {1, 1, 1, 2, -1}},
        {.ne = {w->ne[0] == 1 ? f->ssm_state : w->ne[0], f->ssm_inner / heads, heads, 1}},
        {.ne = {w->ne[0], heads, 1, 1}},
    };
    struct graph g = {.t = t, .n_t = TABLE_COUNT(t)};
    return !b->refuses || !b->refuses(&g, &t[0]);
}

/* A device holds only what it can compute with. */
static bool device_takes(const struct layout *l, int dev, const struct weight_facts *w)
{
    const struct backend_traits *b = backend_traits(l->devices[dev].backend);
    bool scanned = w->role == ROLE_SSM_A && w->layer >= 0 && w->layer < (int32_t)l->f->n_layer &&
                   l->f->layers[w->layer].mixer != MIXER_DELTA;
    return w->t->bytes <= b->max_tensor && (!scanned || takes_scan(l, b, w->t));
}

static void place_weight(struct layout *l, const struct overrides *o, uint32_t i)
{
    const struct weight_facts *w = &l->f->weights[i];
    int host = layout_host(l), dev = host;
    if (w->layer == LAYER_UNLOADED) {
        l->weight_device[i] = (int8_t)host;
        return;
    }
    if (w->per_layer_copy) {
        per_layer_copies(l, i);
        return;
    }
    if (w->layer != LAYER_INPUT)
        dev = l->layer_device[w->layer];
    int forced = overridden(o, w);
    if (forced < 0 && w->offloadable_experts && w->layer >= 0 && (uint32_t)w->layer < l->p->n_cpu_moe)
        forced = host;
    if (forced >= 0)
        dev = forced;
    if (dev != host && !device_takes(l, dev, w))
        dev = host;
    l->weight_device[i] = (int8_t)dev;
    l->weight_repacked[i] =
        dev == host && packs(l) && repackable(w->t, role_kind((enum role)w->role), l->p->host_isa);
    count(l, dev, forced >= 0, l->weight_repacked[i], w->t);
}

/* A model without an output matrix uses its embeddings again: the same memory only if both want the same
 * buffer. */
static void place_tied_output(struct layout *l)
{
    int32_t i = l->f->global[ROLE_TOKEN_EMBD];
    const struct tensor *t = l->f->weights[i].t;
    int dev = l->layer_device[l->f->n_layer];
    bool repacked = dev == layout_host(l) && packs(l) && repackable(t, KIND_PRODUCT, l->p->host_isa);
    l->output_device = (int8_t)dev;
    l->output_repacked = repacked;
    if (dev != l->weight_device[i] || repacked || l->f->copies_tied)
        count(l, dev, false, repacked, t);
}

enum rc layout_weights(struct layout *l, struct err *err)
{
    struct overrides o;
    enum rc rc = overrides_init(&o, l, err);
    if (!rc) {
        for (uint32_t i = 0; i < l->f->n_weights; i++) {
            l->weight_repacked[i] = false;
            place_weight(l, &o, i);
        }
        if (l->f->tied) {
            place_tied_output(l);
        } else if (!l->f->headless) {
            int32_t i = l->f->global[ROLE_OUTPUT];
            l->output_device = l->weight_device[i];
            l->output_repacked = l->weight_repacked[i];
        }
    }
    overrides_release(&o);
    return rc;
}
