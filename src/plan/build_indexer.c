/* Sparse attention as DeepSeek has it: a small attention of its own, the indexer, says for each query which
 * keys of the cache are worth reading, and the mask hides all others. Its keys have a cache beside the large
 * one. Layers without an indexer use the choice of the layer before. Layer plan; see build.h. */
#include "plan/build.h"

/* Inputs of one kind are made once for all layers. */
static int32_t once(struct build *b, int32_t *id, uint32_t type, uint64_t a, uint64_t c, uint64_t d,
                    uint64_t e)
{
    if (*id < 0)
        *id = graph_input(b->g, type, a, c, d, e);
    return *id;
}

static int32_t turn(struct build *b, int32_t cur)
{
    uint64_t width = b->f->indexer.width;
    return graph_mul_mat(b->g, once(b, &b->index.turn, GGML_F32, width, width, 1, 1), cur);
}

/* This batch's keys go into the cache, which is the result, [width, 1, cells, streams]. */
static int32_t stored_keys(struct build *b, int32_t cur, uint32_t il)
{
    struct graph *g = b->g;
    const struct layout *l = b->l;
    const int32_t *t = b->f->layers[il].tensor;
    uint64_t width = b->f->indexer.width, n = b->n_tokens, cells = l->cells, streams = l->n_streams;
    int32_t k = graph_unary(g, OP_NORM, build_product(b, t[ROLE_INDEXER_K], cur));
    k = graph_binary(g, OP_MUL, k, build_weight(b, t[ROLE_INDEXER_K_NORM]));
    k = graph_binary(g, OP_ADD, k, build_weight(b, t[ROLE_INDEXER_K_NORM_B]));
    k = turn(b, build_rope(b, graph_reshape(g, k, width, 1, n, 1), il));
    int dev = layout_cache_device(l, il);
    const uint64_t ne[4] = {width, cells, streams, 1};
    int32_t cache = graph_stored(g, l->p->type_k, ne, dev, dev == layout_host(l) ? GF_HOST : 0u);
    int32_t rows = graph_view(g, k, width, n, 1, 1, 4 * width, 4 * width * n, 4 * width * n, 0);
    int32_t into = streams > 1 ? graph_reshape(g, cache, width, cells * streams, 1, 1) : cache;
    graph_expand(g, graph_set_rows(g, into, rows, once(b, &b->index.rows, GGML_I64, n, 1, 1, 1)));
    uint64_t row = g->t[cache].nb[1];
    return graph_view(g, cache, width, 1, cells, streams, row, row, row * cells, 0);
}

int32_t build_indexer(struct build *b, int32_t cur, int32_t narrow, uint32_t il)
{
    struct graph *g = b->g;
    const struct indexer_facts *x = &b->f->indexer;
    const int32_t *t = b->f->layers[il].tensor;
    uint64_t n = b->n_tokens, cells = b->l->cells, streams = b->l->n_streams, each = n / streams;
    if (t[ROLE_INDEXER_K] < 0)
        return b->index.chosen;
    int32_t q = build_product(b, t[ROLE_INDEXER_Q], narrow);
    q = turn(b, build_rope(b, graph_reshape(g, q, x->width, x->heads, n, 1), il));
    int32_t keys = stored_keys(b, cur, il);
    int32_t weights = build_product(b, t[ROLE_INDEXER_WEIGHTS], cur);
    uint64_t row = 4ull * x->width, token = row * x->heads, w = 4ull * x->heads;
    q = graph_view(g, q, x->width, x->heads, each, streams, row, token, token * each, 0);
    weights = graph_view(g, weights, x->heads, each, 1, streams, w, w * each, w * each, 0);
    weights = graph_unary(g, OP_SCALE, weights);
    int32_t scores = graph_new(g, OP_LIGHTNING_INDEXER, GGML_F32, cells, each, 1, streams);
    graph_src(g, scores, q);
    graph_src(g, scores, keys);
    graph_src(g, scores, weights);
    graph_src(g, scores, once(b, &b->index.mask, GGML_F16, cells, each, 1, streams));
    int32_t top = graph_new(g, OP_TOP_K, GGML_I32, cells < x->top_k ? cells : x->top_k, each, 1, streams);
    graph_src(g, top, scores);
    b->index.chosen = graph_unary(g, OP_CONT, top);
    return b->index.chosen;
}

int32_t build_chosen_mask(struct build *b, int32_t mask)
{
    struct graph *g = b->g;
    struct gtensor m = g->t[mask], c = g->t[b->index.chosen];
    int32_t all = graph_unary(g, OP_FILL, mask);
    all = graph_view(g, all, 1, m.ne[0], m.ne[1], m.ne[3], m.nb[0], m.nb[1], m.nb[2], 0);
    int32_t chosen =
        graph_view(g, b->index.chosen, c.ne[0], c.ne[1], c.ne[3], 1, c.nb[1], c.nb[2], c.nb[3] * c.ne[3], 0);
    /* made on the spot: neither filled from outside nor stored */
    int32_t zeros = graph_unary(g, OP_FILL, graph_new(g, OP_NONE, GGML_F32, 1, c.ne[0], c.ne[1], c.ne[3]));
    int32_t open = graph_set_rows(g, all, zeros, chosen);
    struct gtensor o = g->t[open];
    open = graph_view(g, open, o.ne[1], o.ne[2], 1, o.ne[3], o.nb[2], o.nb[3], o.nb[3], 0);
    return graph_binary(g, OP_ADD, open, mask);
}
