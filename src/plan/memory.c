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

/* Whatever decides how much of a graph must be built, but for sizes. A hint only: results do not depend on
 * it. */
static uint64_t likeness(const struct layout *l)
{
    const struct plan_params *p = l->p;
    uint64_t h = facts_mix((uint64_t)l->n_devices << 16 | (uint64_t)l->flash_attn << 8 | p->kv_offload,
                           (uint64_t)p->n_cpu_moe << 32 | p->n_overrides);
    for (uint32_t il = 0; il < l->f->n_layer_run; il++)
        h = h * 31 + (uint64_t)(uint8_t)l->layer_device[il];
    return facts_mix(h, l->n_streams);
}

/* States are read by all layers but the last, so one way more of choosing is always needed. */
static enum build_choice least_choice(const struct facts *f)
{
    if (f->indexer.heads) /* each layer has a tensor that lives from the start */
        return BUILD_ALL;
    return f->state_r || f->state_s ? BUILD_LAST : BUILD_FEW;
}

/* Builds and schedules the graph. */
static void make_graph(struct estimator *e, const struct graph_backend *backends, enum build_choice choice)
{
    const struct layout *l = &e->layout;
    do {
        e->refusals = e->refusals || e->graph.refused;
        build_graph(&e->build, &e->graph, l, choice, e->refusals);
        graph_schedule(&e->graph, backends, l->n_devices + 1, l->pipelined ? GRAPH_MAX_COPIES : 1);
    } while (e->graph.refused && e->build.trusts);
}

static enum rc measure_graph(struct estimator *e, bool whole, uint64_t *ret_bytes, struct err *err)
{
    struct layout *l = &e->layout;
    struct graph_backend backends[LAYOUT_MAX_BACKENDS];
    for (int d = 0; d < l->n_devices; d++)
        backends[d] = backend_graph(l->devices[d].backend);
    backends[l->n_devices] =
        backend_graph_host(l->n_devices == 0, l->n_devices ? l->devices[0].backend : PLAN_CUDA);
    uint64_t like = likeness(l);
    enum build_choice choice = whole ? BUILD_ALL : like == e->choice_of ? e->choice : least_choice(l->f);
    for (;; choice++) {
        make_graph(e, backends, choice);
        if (e->graph.lacks_tensor)
            return err_set(err, RC_INVALID, "%s lacks a tensor that the architecture '%s' needs",
                           l->f->m->path, l->f->m->architecture);
        struct walk_layers layers = {.segment = e->build.segment,
                                     .n = e->build.n_walk,
                                     .confined = e->build.confined,
                                     .n_segments = e->build.n_emit};
        bool left_out = layers.n_segments < l->f->n_layer_run;
        enum walk_result done =
            graph_measure(&e->graph, backends, l->n_devices + 1, left_out ? &layers : NULL, ret_bytes);
        if (done == WALK_FAILED)
            return err_set(err, RC_LIMIT, "the graph of %s passes the planner's bounds", l->f->m->path);
        if (done == WALK_DONE)
            break;
    }
    for (int d = 0; d < l->n_devices; d++)
        ret_bytes[d] = ret_bytes[e->build.like_device[d]];
    if (!whole) {
        e->choice = choice;
        e->choice_of = like;
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
        rc = measure_graph(e, whole, compute, err);
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
