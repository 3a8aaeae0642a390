/* What adapters add to the products of the weights they change: a narrow product, a wide one, a scale, a sum.
 * Layer plan; see build.h. */
#include "plan/build.h"
#include "plan/extras.h"

static int32_t matrix(struct build *b, int32_t weight, const struct tensor *t)
{
    int dev = layout_weight(b->l, (uint32_t)weight).device;
    return graph_stored(b->g, t->type, t->ne, dev, GF_WEIGHT | (dev == layout_host(b->l) ? GF_HOST : 0u));
}

int32_t build_adapted(struct build *b, int32_t weight, int32_t cur, int32_t chosen, int32_t out)
{
    const struct layout *l = b->l;
    for (uint32_t k = 0; k < l->n_adapters && weight >= 0; k++) {
        const struct adapter_pair *p = &l->adapters[(size_t)k * l->f->n_weights + (size_t)weight];
        if (!p->a)
            continue;
        int32_t a = matrix(b, weight, p->a), wide = matrix(b, weight, p->b), delta;
        delta = chosen >= 0 ? graph_mul_mat_id(b->g, wide, graph_mul_mat_id(b->g, a, cur, chosen), chosen)
                            : graph_mul_mat(b->g, wide, graph_mul_mat(b->g, a, cur));
        out = graph_binary(b->g, OP_ADD, out, graph_unary(b->g, OP_SCALE, delta));
    }
    return out;
}
