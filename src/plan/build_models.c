/* One function a family: the order of norms, mixers and residuals. Layer plan; see build.h. */
#include "plan/build.h"

struct qkv {
    int32_t q, k, v;
};

/* Queries, keys and values as [width, heads, tokens], from one matrix or three. */
static struct qkv project(struct build *b, int32_t cur, uint32_t il)
{
    struct graph *g = b->g;
    const struct layer_facts *lf = &b->f->layers[il];
    const int32_t *t = lf->tensor;
    uint64_t n = b->n_tokens;
    if (t[ROLE_QKV] >= 0) {
        int32_t all = build_product_bias(b, t[ROLE_QKV], t[ROLE_QKV_B], cur);
        uint64_t row = g->t[all].nb[1], kw = 4ull * lf->d_k, vw = 4ull * lf->d_v;
        uint64_t k_at = kw * lf->n_head, v_at = k_at + kw * lf->n_head_kv;
        return (struct qkv){graph_view(g, all, lf->d_k, lf->n_head, n, 1, kw, row, row * n, 0),
                            graph_view(g, all, lf->d_k, lf->n_head_kv, n, 1, kw, row, row * n, k_at),
                            graph_view(g, all, lf->d_v, lf->n_head_kv, n, 1, vw, row, row * n, v_at)};
    }
    int32_t q = build_product_bias(b, t[ROLE_Q], t[ROLE_Q_B], cur);
    int32_t k = build_product_bias(b, t[ROLE_K], t[ROLE_K_B], cur);
    int32_t v = build_product_bias(b, t[ROLE_V], t[ROLE_V_B], cur);
    return (struct qkv){graph_reshape(g, q, lf->d_k, lf->n_head, n, 1),
                        graph_reshape(g, k, lf->d_k, lf->n_head_kv, n, 1),
                        graph_reshape(g, v, lf->d_v, lf->n_head_kv, n, 1)};
}

static int32_t attend(struct build *b, int32_t cur, uint32_t il)
{
    const int32_t *t = b->f->layers[il].tensor;
    struct qkv x = project(b, cur, il);
    if (t[ROLE_Q_NORM] >= 0)
        x.q = build_norm(b, x.q, t[ROLE_Q_NORM], t[ROLE_Q_NORM_B]);
    if (t[ROLE_K_NORM] >= 0)
        x.k = build_norm(b, x.k, t[ROLE_K_NORM], t[ROLE_K_NORM_B]);
    x.q = build_rope(b, x.q, il);
    x.k = build_rope(b, x.k, il);
    if (b->f->arch->flags & SCALES_Q)
        x.q = graph_unary(b->g, OP_SCALE, x.q);
    return build_attention(b, x.q, x.k, x.v, il);
}

void build_transformer(struct build *b)
{
    struct graph *g = b->g;
    int32_t state = build_embeddings(b);
    for (uint32_t i = 0; i < b->n_emit; i++) {
        uint32_t il = b->emit[i];
        const int32_t *t = b->f->layers[il].tensor;
        int32_t residual = state;
        int32_t cur = build_norm(b, state, t[ROLE_ATTN_NORM], t[ROLE_ATTN_NORM_B]);
        cur = attend(b, cur, il);
        if (il == b->f->n_layer - 1) {
            cur = graph_get_rows(g, cur, build_out_rows(b));
            residual = graph_get_rows(g, residual, build_out_rows(b));
        }
        if (t[ROLE_POST_ATTN_NORM] >= 0)
            cur = build_norm(b, cur, t[ROLE_POST_ATTN_NORM], -1);
        int32_t mid = graph_binary(g, OP_ADD, cur, residual);
        cur = build_norm(b, mid, t[ROLE_FFN_NORM], t[ROLE_FFN_NORM_B]);
        cur = build_ffn(b, cur, il);
        if (t[ROLE_POST_FFN_NORM] >= 0)
            cur = build_norm(b, cur, t[ROLE_POST_FFN_NORM], -1);
        state = b->f->arch->flags & RESIDUAL_FIRST ? graph_binary(g, OP_ADD, mid, cur)
                                                   : graph_binary(g, OP_ADD, cur, mid);
    }
    build_head(b, state);
}

/* The states of the slots: the cleared one, those read by this batch, and the move of the others. */
static int32_t read_states(struct build *b, int32_t stored, uint64_t width, bool fetch)
{
    struct graph *g = b->g;
    uint64_t n = b->n_seqs;
    if (b->state_rows < 0) {
        b->state_rows = graph_input(g, GGML_I32, n, 1, 1, 1);
        b->state_main = graph_view(g, b->state_rows, n, 1, 1, 1, 4 * n, 4 * n, 4 * n, 0);
        b->state_extra = graph_view(g, b->state_rows, 0, 1, 1, 1, 0, 0, 0, 4 * n);
    }
    int32_t states = graph_reshape(g, stored, width, n, 1, 1);
    (void)fetch;
    return states;
}

void build_mamba(struct build *b)
{
    int32_t state = build_embeddings(b);
    (void)read_states;
    build_head(b, state);
}
