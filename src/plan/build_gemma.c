/* Gemma's later graphs: embeddings that each layer has of its own, layers that read the cache of others,
 * values that are normed keys, experts beside a dense block. Layer plan; see build.h. */
#include "plan/build.h"

/* ---- embeddings a layer ---- */

/* Rows of the table for this batch, all layers side by side. */
int32_t build_layer_rows(struct build *b)
{
    int32_t ids = graph_input(b->g, GGML_I32, b->n_tokens, 1, 1, 1);
    return graph_get_rows(b->g, build_weight(b, b->f->global[ROLE_LAYER_EMBD]), ids);
}

int32_t build_layer_inputs(struct build *b, int32_t selected, int32_t state)
{
    struct graph *g = b->g;
    uint64_t width = b->f->layer_embd, layers = b->f->n_layer, n = b->n_tokens;
    int32_t from = graph_unary(g, OP_SCALE, build_product(b, b->f->global[ROLE_LAYER_EMBD_PROJ], state));
    from = build_norm(b, graph_reshape(g, from, width, layers, n, 1), b->f->global[ROLE_LAYER_EMBD_NORM], -1);
    int32_t sum = graph_unary(g, OP_SCALE, graph_binary(g, OP_ADD, from, selected));
    return graph_unary(g, OP_CONT, graph_permute(g, sum, 0, 2, 1, 3));
}

int32_t build_layer_input(struct build *b, int32_t inputs, uint32_t il)
{
    uint64_t row = b->g->t[inputs].nb[1], layer = b->g->t[inputs].nb[2], n = b->n_tokens;
    return graph_view(b->g, inputs, b->f->layer_embd, n, 1, 1, row, row * n, row * n, il * layer);
}

/* ---- gemma4 ---- */

static int32_t heads_of(struct build *b, int32_t cur, uint32_t width, uint32_t heads)
{
    return graph_reshape(b->g, cur, width, heads, b->n_tokens, 1);
}

int32_t build_gemma_attention(struct build *b, int32_t cur, uint32_t il)
{
    const struct layer_facts *lf = &b->f->layers[il];
    const int32_t *t = lf->tensor;
    int32_t q = heads_of(b, build_product(b, t[ROLE_Q], cur), lf->d_k, lf->n_head), k = -1, v = -1;
    q = build_rope(b, build_norm(b, q, t[ROLE_Q_NORM], -1), il);
    if (lf->cached) {
        int32_t flat = build_product(b, t[ROLE_K], cur);
        k = build_norm(b, heads_of(b, flat, lf->d_k, lf->n_head_kv), t[ROLE_K_NORM], -1);
        k = build_rope(b, k, il);
        if (t[ROLE_V] >= 0)
            flat = build_product(b, t[ROLE_V], cur);
        v = build_norm(b, heads_of(b, flat, lf->d_v, lf->n_head_kv), -1, -1);
    }
    return build_attention(b, q, k, v, il);
}

/* A dense block and experts, side by side, each behind norms of its own. */
static int32_t gemma4_experts(struct build *b, int32_t mid, uint32_t il)
{
    struct graph *g = b->g;
    const int32_t *t = b->f->layers[il].tensor;
    int32_t routed = graph_unary(g, OP_SCALE, build_norm(b, mid, -1, -1));
    routed = graph_binary(g, OP_MUL, routed, build_weight(b, t[ROLE_ROUTER_SCALE]));
    int32_t read = build_norm(b, mid, t[ROLE_PRE_EXPS_NORM], -1);
    int32_t chosen = build_experts(b, read, build_router_logits(b, routed, il), il);
    int32_t dense = build_dense(b, build_norm(b, mid, t[ROLE_FFN_NORM], -1), il);
    dense = build_norm(b, dense, t[ROLE_POST_DENSE_NORM], -1);
    return graph_binary(g, OP_ADD, dense, build_norm(b, chosen, t[ROLE_POST_EXPS_NORM], -1));
}

static int32_t add_layer_input(struct build *b, int32_t cur, int32_t inputs, bool last, uint32_t il)
{
    struct graph *g = b->g;
    const int32_t *t = b->f->layers[il].tensor;
    int32_t gate = graph_unary(g, OP_UNARY, build_product(b, t[ROLE_LAYER_INPUT_GATE], cur));
    int32_t part = build_layer_input(b, inputs, il);
    if (last)
        part = graph_get_rows(g, part, build_out_rows(b));
    int32_t add = build_product(b, t[ROLE_LAYER_INPUT_PROJ], graph_binary(g, OP_MUL, gate, part));
    return graph_binary(g, OP_ADD, cur, build_norm(b, add, t[ROLE_LAYER_INPUT_NORM], -1));
}

static int32_t gemma4_layer(struct build *b, int32_t state, int32_t inputs, uint32_t il)
{
    struct graph *g = b->g;
    const int32_t *t = b->f->layers[il].tensor;
    bool last = il == b->f->n_layer_run - 1;
    int32_t cur = build_gemma_attention(b, build_norm(b, state, t[ROLE_ATTN_NORM], -1), il), residual = state;
    if (last) {
        cur = graph_get_rows(g, cur, build_out_rows(b));
        residual = graph_get_rows(g, residual, build_out_rows(b));
    }
    int32_t mid = graph_binary(g, OP_ADD, build_norm(b, cur, t[ROLE_POST_ATTN_NORM], -1), residual);
    if (t[ROLE_ROUTER] >= 0)
        cur = gemma4_experts(b, mid, il);
    else
        cur = build_dense(b, build_norm(b, mid, t[ROLE_FFN_NORM], -1), il);
    cur = graph_binary(g, OP_ADD, build_norm(b, cur, t[ROLE_POST_FFN_NORM], -1), mid);
    if (inputs >= 0)
        cur = add_layer_input(b, cur, inputs, last, il);
    if (t[ROLE_LAYER_SCALE] >= 0)
        cur = graph_binary(g, OP_MUL, cur, build_weight(b, t[ROLE_LAYER_SCALE]));
    return cur;
}

void build_gemma4(struct build *b)
{
    struct graph *g = b->g;
    int32_t selected = -1, inputs = -1;
    if (b->f->layer_embd) {
        selected = build_layer_rows(b);
        graph_expand(g, selected);
    }
    int32_t state = build_embeddings(b);
    if (b->f->layer_embd) {
        selected = graph_reshape(g, graph_unary(g, OP_SCALE, selected), b->f->layer_embd, b->f->n_layer,
                                 b->n_tokens, 1);
        inputs = build_layer_inputs(b, selected, state);
    }
    for (uint32_t i = 0; i < b->n_emit; i++) {
        state = gemma4_layer(b, state, inputs, b->emit[i]);
        build_layer_end(b, state);
    }
    build_head(b, state);
}
