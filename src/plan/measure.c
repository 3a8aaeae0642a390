/* The compute buffers of a layout: how much of the graph is built for them, and what is remembered for the
 * next question. Layer plan; pure; see memory.h. */
#include "plan/memory.h"

/* Whatever decides how much of a graph must be built, but for sizes. A hint only: results do not depend on
 * it. */
static uint64_t likeness(const struct layout *l)
{
    const struct plan_params *p = l->p;
    uint64_t h = facts_mix((uint64_t)l->n_devices << 16 | (uint64_t)l->flash_attn << 8 | p->kv_offload,
                           (uint64_t)(p->n_cpu_moe > 0) << 32 | p->n_overrides);
    for (uint32_t il = 0; il < l->f->n_layer_run; il++)
        if (il == 0 || l->layer_device[il] != l->layer_device[il - 1])
            h = h * 31 + (uint64_t)(uint8_t)l->layer_device[il];
    return facts_mix(h, l->n_streams);
}

/* States are read by all layers but the last, so one way more of choosing is always needed. */
static enum build_choice least_choice(const struct facts *f)
{
    if (f->indexer.heads) /* each layer has a tensor that lives from the start */
        return BUILD_ALL;
    /* products that leave every layer for the host make its buffer larger than one layer of each kind shows
     */
    if (f->arch->flags & EXACT_EXPERTS)
        return BUILD_ALL;
    return f->state_r || f->state_s ? BUILD_LAST : BUILD_FEW;
}

struct measuring {
    struct estimator *e;
    const struct graph_backend *backends;
    int n;
    bool whole;
};

/* Builds and schedules the graph. */
static void make_graph(const struct measuring *q, enum build_choice choice)
{
    struct estimator *e = q->e;
    for (;;) {
        build_graph(&e->build, &e->graph);
        graph_schedule(&e->graph, q->backends, q->n, e->layout.pipelined ? GRAPH_MAX_COPIES : 1);
        if (!e->graph.refused || !e->build.trusts)
            return;
        e->refusals = true;
        build_choose(&e->build, &e->layout, choice, true);
    }
}

/* The layers of the choice, with the trace of a record if there is one. */
static enum walk_result measure_choice(const struct measuring *q, enum build_choice choice,
                                       uint64_t *ret_bytes)
{
    struct estimator *e = q->e;
    e->refusals = e->refusals || e->graph.refused;
    build_choose(&e->build, &e->layout, choice, e->refusals);
    struct record *known = q->whole ? NULL : records_find(&e->records, &e->build, choice);
    bool applies = known && record_apply(known, &e->build, &e->graph, q->backends);
    if (!applies)
        make_graph(q, choice);
    const struct walk_layers layers = {.segment = e->build.segment,
                                       .n = e->build.n_walk,
                                       .confined = e->build.confined,
                                       .n_segments = e->build.n_emit};
    const struct walk_layers *left_out = layers.n_segments < e->layout.f->n_layer_run ? &layers : NULL;
    e->records.served += applies;
    if (applies)
        return walk_run(&e->graph.walk, &known->trace, q->backends, q->n, left_out, ret_bytes);
    enum walk_result done = graph_measure(&e->graph, q->backends, q->n, left_out, ret_bytes);
    if (done == WALK_DONE && !q->whole && records_met(&e->records, &e->build, choice))
        records_keep(&e->records, &e->build, choice, &e->graph, q->backends);
    return done;
}

enum rc estimator_measure(struct estimator *e, bool whole, uint64_t *ret_bytes, struct err *err)
{
    struct layout *l = &e->layout;
    struct graph_backend backends[LAYOUT_MAX_BACKENDS];
    for (int d = 0; d < l->n_devices; d++)
        backends[d] = backend_graph(l->devices[d].backend);
    backends[l->n_devices] =
        backend_graph_host(l->n_devices == 0, l->n_devices ? l->devices[0].backend : PLAN_CUDA);
    /* layers that run several times read weights that may lie on another layer's device */
    whole = whole || l->f->n_layer > l->f->n_stored;
    struct measuring q = {.e = e, .backends = backends, .n = l->n_devices + 1, .whole = whole};
    uint64_t like = likeness(l);
    enum build_choice choice = whole ? BUILD_ALL : like == e->choice_of ? e->choice : least_choice(l->f);
    enum walk_result done;
    while ((done = measure_choice(&q, choice, ret_bytes)) == WALK_UNSETTLED && choice < BUILD_ALL)
        choice++;
    if (e->graph.lacks_tensor)
        return err_set(err, RC_INVALID, "%s lacks a tensor that the architecture '%s' needs", l->f->m->path,
                       l->f->m->architecture);
    if (done != WALK_DONE)
        return err_set(err, RC_LIMIT, "the graph of %s passes the planner's bounds", l->f->m->path);
    for (int d = 0; d < l->n_devices; d++)
        ret_bytes[d] = ret_bytes[e->build.like_device[d]];
    if (!whole) {
        e->choice = choice;
        e->choice_of = like;
    }
    return RC_OK;
}
