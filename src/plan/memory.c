/* Exact memory of one model under one set of parameters: weights and caches from their sizes, the compute
 * buffers from a replay of the graph. Layer plan; pure. */
#include "plan/build.h"

#include <stdio.h>
#include <string.h>

#include "plan/extras.h"
#include "plan/memory.h"

void estimator_release(struct estimator *e)
{
    facts_release(&e->facts);
    free(e->layout.places);
    graph_release(&e->graph);
    records_release(&e->records);
    extras_free(e->extras);
    *e = (struct estimator){0};
}

enum rc estimator_init(struct estimator *e, const struct model *m, struct err *err)
{
    *e = (struct estimator){0};
    enum rc rc = facts_init(&e->facts, m, err);
    if (rc)
        return rc;
    size_t n = e->facts.n_weights ? e->facts.n_weights : 1;
    e->layout.places = mem_try_array(n, sizeof *e->layout.places);
    if (!e->layout.places) {
        estimator_release(e);
        return err_set(err, RC_NOMEM, "no memory to plan %s", m->path);
    }
    return RC_OK;
}

static void resolve_params(const struct layout *l, struct plan_params *ret)
{
    *ret = *l->p;
    ret->flash_attn = l->flash_attn;
    ret->ctx = l->n_ctx;
    ret->batch = l->n_batch;
    ret->ubatch = l->n_ubatch;
    ret->gpu_layers = l->n_devices ? l->gpu_layers : 0;
    layout_shares(l, ret);
}

static void fill(const struct estimator *e, const uint64_t *compute, struct plan_estimate *ret)
{
    const struct layout *l = &e->layout;
    *ret = (struct plan_estimate){.n_parts = (size_t)l->n_devices + 1};
    resolve_params(l, &ret->params);
    for (int d = 0; d <= l->n_devices; d++) {
        struct plan_part *p = &ret->parts[d];
        if (d < l->n_devices) {
            memcpy(p->name, l->devices[d].name, sizeof p->name);
            p->kind = backend_traits(l->devices[d].backend)->kind;
            p->total_bytes = l->devices[d].total_bytes;
            p->free_bytes = l->devices[d].free_bytes;
            p->overhead_bytes = l->devices[d].overhead_bytes;
            p->overhead_spread_bytes = l->devices[d].taught.overhead_spread_bytes;
            p->overhead_loads = l->devices[d].taught.overhead_loads;
        } else {
            snprintf(p->name, sizeof p->name, "Host");
            p->kind = PLAN_HOST;
            p->repack_bytes = l->repack_bytes;
        }
        p->model_bytes = l->model_bytes[d];
        p->context_bytes = l->context_bytes[d];
        p->compute_bytes = compute[d];
    }
    host_parts(l, &ret->parts[l->n_devices]);
    for (uint32_t il = 0; il <= l->f->n_layer; il++) {
        if (l->layer_device[il] == layout_host(l))
            ret->layers_cpu++;
        else
            ret->layers_gpu++;
    }
}

static enum rc lay_out(struct estimator *e, const struct plan_params *p, const struct plan_device *devices,
                       size_t n_devices, struct err *err)
{
    enum rc rc = extras_prepare(&e->extras, &e->facts, p, &e->layout, err);
    return rc ? rc : layout_init(&e->layout, &e->facts, p, devices, n_devices, err);
}

/* The outputs are untouched unless everything could be counted. */
static enum rc finish(struct estimator *e, const uint64_t *compute, bool with_graph,
                      struct plan_estimate *ret_estimate, struct err *err)
{
    if (!e->layout.p->extras) {
        fill(e, compute, ret_estimate);
        return RC_OK;
    }
    struct plan_estimate with;
    fill(e, compute, &with);
    enum rc rc = extras_add(e->extras, &e->layout, with_graph, &e->graph, &with, err);
    if (!rc)
        *ret_estimate = with;
    return rc;
}

enum rc estimator_run(struct estimator *e, const struct plan_params *p, const struct plan_device *devices,
                      size_t n_devices, bool whole, struct plan_estimate *ret_estimate, struct err *err)
{
    uint64_t compute[LAYOUT_MAX_BACKENDS] = {0};
    enum rc rc = lay_out(e, p, devices, n_devices, err);
    if (!rc)
        rc = estimator_measure(e, whole, compute, err);
    return rc ? rc : finish(e, compute, true, ret_estimate, err);
}

enum rc estimator_sizes(struct estimator *e, const struct plan_params *p, const struct plan_device *devices,
                        size_t n_devices, struct plan_estimate *ret_estimate, struct err *err)
{
    static const uint64_t none[LAYOUT_MAX_BACKENDS];
    enum rc rc = lay_out(e, p, devices, n_devices, err);
    return rc ? rc : finish(e, none, false, ret_estimate, err);
}

enum rc plan_estimate(const struct model *m, const struct plan_params *p, const struct plan_device *devices,
                      size_t n_devices, struct plan_estimate *ret_estimate, struct err *err)
{
    struct estimator e;
    enum rc rc = estimator_init(&e, m, err);
    if (rc)
        return rc;
    rc = estimator_run(&e, p, devices, n_devices, false, ret_estimate, err);
    estimator_release(&e);
    return rc;
}
