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

/* Rope factors belong to the layers that read them: each buffer with such layers has one copy. */
static void per_layer_copies(struct layout *l, uint32_t i)
{
    bool seen[LAYOUT_MAX_BACKENDS] = {false};
    for (uint32_t il = 0; il < l->f->n_layer_run; il++) {
        int dev = l->layer_device[il];
        if (seen[dev] || l->f->layers[il].plain_rope)
            continue;
        count(l, dev, false, false, l->f->weights[i].t);
        seen[dev] = true;
    }
}

/* The expert matrices of the first layers, which --n-cpu-moe moves. */
static bool moved(const struct layout *l, const struct weight_facts *w)
{
    return w->offloadable_experts && w->layer >= 0 && (uint32_t)w->layer < l->p->n_cpu_moe;
}

/* By rule; overridden: the device that an override names, or -1. */
static struct weight_place place_of(const struct layout *l, const struct weight_facts *w, int overridden)
{
    int host = layout_host(l), dev = host;
    struct weight_place p = {.device = (int8_t)host};
    if (w->layer == LAYER_UNLOADED)
        return p;
    if (w->per_layer_copy) {
        p.device = l->layer_device[0];
        return p;
    }
    if (w->layer != LAYER_INPUT)
        dev = l->layer_device[w->layer];
    int forced = overridden < 0 && moved(l, w) ? host : overridden;
    if (forced >= 0)
        dev = forced;
    if (dev != host && !facts_device_takes(l->f, w, backend_traits(l->devices[dev].backend)))
        dev = host;
    p.device = (int8_t)dev;
    p.forced = forced >= 0;
    p.repacked = dev == host && packs(l) && repackable(w->t, role_kind((enum role)w->role), l->p->host_isa);
    return p;
}

struct weight_place layout_weight(const struct layout *l, uint32_t i)
{
    return l->p->n_overrides ? l->places[i] : place_of(l, &l->f->weights[i], -1);
}

static void count_weight(struct layout *l, uint32_t i)
{
    const struct weight_facts *w = &l->f->weights[i];
    if (w->per_layer_copy) {
        per_layer_copies(l, i);
    } else if (w->layer != LAYER_UNLOADED) {
        struct weight_place p = layout_weight(l, i);
        count(l, p.device, p.forced, p.repacked, w->t);
    }
}

static unsigned host_store(const struct layout *l, bool forced)
{
    return host_alignment(l, forced) == 64 ? FACTS_HOST_64 : FACTS_HOST_32;
}

/* A layer whose weights lie by rule: the sums of its class. False if it must be counted weight by weight. */
static bool count_class(struct layout *l, uint32_t il)
{
    const struct layer_class *c = &l->f->classes[l->f->layers[il].cls];
    int host = layout_host(l), dev = l->layer_device[il];
    bool experts_moved = il < l->p->n_cpu_moe;
    if (dev == host ? packs(l) : c->in[l->devices[dev].backend].some_refused || (experts_moved && packs(l)))
        return false;
    unsigned store = dev == host ? host_store(l, false) : l->devices[dev].backend;
    l->model_bytes[dev] += c->in[store].plain;
    if (experts_moved)
        l->model_bytes[host] += c->in[host_store(l, true)].experts;
    else
        l->model_bytes[dev] += c->in[store].experts;
    return true;
}

static void count_weights(struct layout *l)
{
    const struct facts *f = l->f;
    for (uint32_t il = 0; il < f->n_layer_run; il++) {
        const struct layer_facts *lf = &f->layers[il];
        if (!l->p->n_overrides && count_class(l, il))
            continue;
        for (uint32_t k = 0; k < lf->n_own; k++)
            count_weight(l, f->by_layer[lf->first_own + k]);
    }
    for (uint32_t k = f->first_outside; k < f->n_weights; k++)
        count_weight(l, f->by_layer[k]);
}

/* A model without an output matrix uses its embeddings again: the same memory only if both want the same
 * buffer. */
static void place_tied_output(struct layout *l)
{
    int32_t i = l->f->global[ROLE_TOKEN_EMBD];
    const struct tensor *t = l->f->weights[i].t;
    if (l->f->arch->flags & READS_EMBEDDINGS) {
        l->output_device = (int8_t)layout_weight(l, (uint32_t)i).device;
        l->output_repacked = false;
        return;
    }
    int dev = l->layer_device[l->f->n_layer];
    bool repacked = dev == layout_host(l) && packs(l) && repackable(t, KIND_PRODUCT, l->p->host_isa);
    l->output_device = (int8_t)dev;
    l->output_repacked = repacked;
    if (dev != layout_weight(l, (uint32_t)i).device || repacked || l->f->copies_tied)
        count(l, dev, false, repacked, t);
}

static void place_overridden(struct layout *l, const struct overrides *o)
{
    for (uint32_t i = 0; i < l->f->n_weights; i++)
        l->places[i] = place_of(l, &l->f->weights[i], overridden(o, &l->f->weights[i]));
}

enum rc layout_weights(struct layout *l, struct err *err)
{
    struct overrides o;
    enum rc rc = overrides_init(&o, l, err);
    if (!rc) {
        if (l->p->n_overrides)
            place_overridden(l, &o);
        count_weights(l);
        if (l->f->tied) {
            place_tied_output(l);
        } else if (!l->f->headless) {
            struct weight_place p = layout_weight(l, (uint32_t)l->f->global[ROLE_OUTPUT]);
            l->output_device = p.device;
            l->output_repacked = p.repacked;
        }
    }
    overrides_release(&o);
    return rc;
}
