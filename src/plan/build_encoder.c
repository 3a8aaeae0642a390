/* BERT and its relatives, whose norms follow the sums, and how an embedding is made of the tokens' states.
 * Layer plan; see build.h. */
#include "plan/build.h"

static int32_t bert_inputs(struct build *b)
{
    struct graph *g = b->g;
    const struct facts *f = b->f;
    int32_t place = -1;
    if (f->global[ROLE_POSITIONS] >= 0) {
        place = graph_get_rows(g, build_weight(b, f->global[ROLE_POSITIONS]), build_positions(b));
        graph_expand(g, place);
    }
    int32_t cur = build_token_rows(b);
    if (f->global[ROLE_TOKEN_TYPES] >= 0) {
        int32_t types = build_weight(b, f->global[ROLE_TOKEN_TYPES]);
        uint64_t row = g->t[types].nb[1];
        cur = graph_binary(g, OP_ADD, cur, graph_view(g, types, f->n_embd, 1, 1, 1, row, row, row, 0));
    }
    if (place >= 0)
        cur = graph_binary(g, OP_ADD, place, cur);
    return build_norm(b, cur, f->global[ROLE_EMBD_NORM], f->global[ROLE_EMBD_NORM_B]);
}

void build_bert(struct build *b)
{
    struct graph *g = b->g;
    int32_t state = bert_inputs(b);
    for (uint32_t i = 0; i < b->n_emit; i++) {
        uint32_t il = b->emit[i];
        const int32_t *t = b->f->layers[il].tensor;
        int32_t cur = build_attend(b, state, il);
        if (il == b->f->n_layer_run - 1) {
            cur = graph_get_rows(g, cur, build_out_rows(b));
            state = graph_get_rows(g, state, build_out_rows(b));
        }
        int32_t sum = graph_binary(g, OP_ADD, cur, state);
        int32_t mid = build_norm(b, sum, t[ROLE_ATTN_OUT_NORM], t[ROLE_ATTN_OUT_NORM_B]);
        if (t[ROLE_ATTN_NORM_2] >= 0) /* of the whole sum so far */
            mid = build_norm(b, graph_binary(g, OP_ADD, mid, state), t[ROLE_ATTN_NORM_2],
                             t[ROLE_ATTN_NORM_2_B]);
        cur = graph_binary(g, OP_ADD, build_ffn(b, mid, il), mid);
        state = build_norm(b, cur, t[ROLE_LAYER_OUT_NORM], t[ROLE_LAYER_OUT_NORM_B]);
        build_layer_end(b, state);
    }
    build_embedding(b, state);
}

/* ---- embeddings ---- */

enum { POOLING_NONE, POOLING_MEAN, POOLING_FIRST, POOLING_LAST, POOLING_RANK };

uint32_t build_pooling(const struct build *b)
{
    if (!b->l->p->embedding)
        return POOLING_NONE;
    return b->f->pooling == POOLING_NONE && b->l->p->pool_last ? POOLING_LAST : b->f->pooling;
}

/* A classifier of one hidden layer, or its last layer alone. */
static int32_t rank(struct build *b, int32_t cur)
{
    const int32_t *t = b->f->global;
    if (t[ROLE_CLS] >= 0)
        cur = graph_unary(b->g, OP_UNARY, build_product_bias(b, t[ROLE_CLS], t[ROLE_CLS_B], cur));
    if (t[ROLE_CLS_OUT] >= 0)
        cur = build_product_bias(b, t[ROLE_CLS_OUT], t[ROLE_CLS_OUT_B], cur);
    return cur;
}

void build_embedding(struct build *b, int32_t state)
{
    struct graph *g = b->g;
    g->t[state].flags |= GF_OUTPUT;
    graph_expand(g, state);
    uint32_t pooling = build_pooling(b);
    if (pooling == POOLING_NONE)
        return;
    int32_t cur;
    if (pooling == POOLING_MEAN) {
        int32_t columns = graph_unary(g, OP_CONT, graph_transpose(g, state));
        cur = graph_mul_mat(g, columns, graph_input(g, GGML_F32, b->n_tokens, b->n_seqs, 1, 1));
    } else {
        cur = graph_get_rows(g, state, graph_input(g, GGML_I32, b->n_seqs, 1, 1, 1));
    }
    if (b->f->pooling == POOLING_RANK)
        cur = rank(b, cur);
    g->t[cur].flags |= GF_OUTPUT;
    graph_expand(g, cur);
}
