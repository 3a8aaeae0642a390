#include "graph_print.h"

#include "plan/memory.h"

#include <inttypes.h>

static const char *const names[OP_COUNT] = {
#define GRAPH_OP(name, inplace, view) [OP_##name] = #name,
#include "plan/ops.def"
#undef GRAPH_OP
};

static void put_shape(FILE *out, const struct gtensor *t)
{
    fprintf(out, "%s[%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 "]", ggml_type_info(t->type)->word,
            t->ne[0], t->ne[1], t->ne[2], t->ne[3]);
}

/* A tensor is written before it is read, so its number is that of its place in the order. */
static void put_node(FILE *out, const struct graph *g, const int32_t *place, int32_t i, int32_t id, int host)
{
    const struct gtensor *t = &g->t[id];
    fprintf(out, "%d %s%s ", i, names[t->op], t->flags & GF_OUTPUT ? "!" : "");
    put_shape(out, t);
    for (int j = 0; j < GRAPH_MAX_SRC && t->src[j] >= 0; j++) {
        const struct gtensor *s = &g->t[t->src[j]];
        if (place[t->src[j]] >= 0) {
            fprintf(out, " %d", place[t->src[j]]);
            continue;
        }
        fprintf(out, " %c{}", s->flags & GF_INPUT ? 'i' : 'w');
        put_shape(out, s);
    }
    if (t->view_src >= 0)
        fprintf(out, " nb %" PRIu64 ",%" PRIu64 ",%" PRIu64 " @%" PRIu64, t->nb[1], t->nb[2], t->nb[3],
                t->view_offs);
    if (t->backend == host)
        fprintf(out, " # host\n");
    else
        fprintf(out, " # %d\n", t->backend);
}

enum rc graph_print(const struct oracle_case *c, const struct model *m, FILE *out, struct err *err)
{
    struct estimator e;
    struct plan_estimate result;
    enum rc rc = estimator_init(&e, m, err);
    if (rc)
        return rc;
    rc = estimator_run(&e, &c->params, c->devices, c->n_devices, true, &result, err);
    if (!rc) {
        const struct graph *g = &e.graph;
        int32_t *place = mem_calloc((size_t)g->n_t + 1, sizeof *place);
        for (int32_t i = 0; i < g->n_t; i++)
            place[i] = -1;
        int32_t n = 0;
        for (int32_t i = 0; i < g->n_order; i++) {
            int32_t id = g->order[i].tensor;
            if (g->t[id].op == OP_NONE) /* copies, and what keeps a source alive */
                continue;
            put_node(out, g, place, n, id, layout_host(&e.layout));
            place[id] = n++;
        }
        free(place);
    }
    estimator_release(&e);
    return rc;
}
