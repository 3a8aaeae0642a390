/* T5: an encoder alone, or a decoder that also reads what its encoder made; of the two the runtime reserves
 * the decoder. Scores get a bias for the distance of their tokens, from a table that the first layer holds
 * for all. Layer plan; see build.h. */
#include "plan/build.h"

int32_t build_position_bias(struct build *b, uint64_t cells, uint32_t il)
{
    struct graph *g = b->g;
    int32_t table = layer_weight(b, il, ROLE_POSITION_BIAS);
    uint64_t n = b->n_tokens, others = b->f->headless ? n : cells;
    if (b->distances < 0)
        b->distances = graph_input(g, GGML_I32, others, n, 1, 1);
    int32_t flat = graph_reshape(g, b->distances, others * n, 1, 1, 1);
    int32_t bias =
        graph_get_rows(g, build_weight(b, table < 0 ? layer_weight(b, 0, ROLE_POSITION_BIAS) : table), flat);
    bias = graph_reshape(g, bias, g->t[bias].ne[0], others, n, 1);
    bias = graph_unary(g, OP_CONT, graph_permute(g, bias, 2, 0, 1, 3));
    if (!b->f->headless)
        return bias;
    struct gtensor t = g->t[bias];
    int32_t wide = graph_new(g, OP_PAD, GGML_F32, cells, t.ne[1], t.ne[2], 1);
    graph_src(g, wide, bias);
    return wide;
}

/* Keys or values of what the encoder made, [width, heads, places]. */
static int32_t encoded_heads(struct build *b, int32_t weight, uint64_t width, uint64_t heads)
{
    struct graph *g = b->g;
    uint64_t places = b->f->m->context_train;
    if (b->encoded < 0)
        b->encoded = graph_input(g, GGML_F32, b->f->n_embd, places, 1, 1);
    return graph_reshape(g, build_product(b, weight, b->encoded), width, heads, places, 1);
}

static int32_t cross_attend(struct build *b, int32_t cur, uint32_t il)
{
    const struct layer_facts *lf = &b->f->layers[il];
    const int32_t *t = lf->tensor;
    int32_t q = build_product(b, t[ROLE_CROSS_Q], cur);
    q = graph_reshape(b->g, q, lf->d_k, lf->n_head, b->n_tokens, 1);
    int32_t k = encoded_heads(b, t[ROLE_CROSS_K], lf->d_k, lf->n_head_kv);
    int32_t v = encoded_heads(b, t[ROLE_CROSS_V], lf->d_v, lf->n_head_kv);
    return build_product(b, t[ROLE_CROSS_O], build_attention_cross(b, q, k, v, il));
}

void build_t5(struct build *b)
{
    struct graph *g = b->g;
    int32_t state = build_embeddings(b);
    for (uint32_t i = 0; i < b->n_emit; i++) {
        uint32_t il = b->emit[i];
        const int32_t *t = b->f->layers[il].tensor;
        int32_t cur = build_attend(b, build_norm(b, state, t[ROLE_ATTN_NORM], -1), il);
        if (t[ROLE_CROSS_Q] >= 0) {
            state = graph_binary(g, OP_ADD, cur, state);
            cur = cross_attend(b, build_norm(b, state, t[ROLE_CROSS_NORM], -1), il);
        }
        if (il == b->f->n_layer_run - 1) {
            cur = graph_get_rows(g, cur, build_out_rows(b));
            state = graph_get_rows(g, state, build_out_rows(b));
        }
        int32_t mid = graph_binary(g, OP_ADD, cur, state);
        state = graph_binary(g, OP_ADD, build_ffn(b, build_norm(b, mid, t[ROLE_FFN_NORM], -1), il), mid);
        build_layer_end(b, state);
    }
    build_head(b, state);
}
