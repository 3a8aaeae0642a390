/* Recurrent models and hybrids of them with attention: one mixer a layer (or two beside each other), with or
 * without a feed-forward block behind. Layer plan; see build.h. */
#include "plan/build.h"

/* The query matrix holds a gate for each head: [query, gate] of every head in turn. */
static int32_t gated_attention(struct build *b, int32_t cur, uint32_t il)
{
    struct graph *g = b->g;
    const struct layer_facts *lf = &b->f->layers[il];
    const int32_t *t = lf->tensor;
    uint64_t n = b->n_tokens, d = lf->d_k, heads = lf->n_head;
    uint64_t each = 8 * d, row = each * heads;
    int32_t both = build_product(b, t[ROLE_Q], cur);
    if (b->f->positions == 1) /* the older of the two models that do this */
        both = graph_reshape(g, both, 2 * d, heads, n, 1);
    int32_t q = graph_view(g, both, d, heads, n, 1, each, row, row * n, 0);
    int32_t k = graph_reshape(g, build_product(b, t[ROLE_K], cur), d, lf->n_head_kv, n, 1);
    int32_t v = graph_reshape(g, build_product(b, t[ROLE_V], cur), lf->d_v, lf->n_head_kv, n, 1);
    q = build_rope(b, build_norm(b, q, t[ROLE_Q_NORM], -1), il);
    k = build_rope(b, build_norm(b, k, t[ROLE_K_NORM], -1), il);
    int32_t y = build_attention_heads(b, q, k, v, il);
    int32_t gate = graph_new(g, OP_CONT, GGML_F32, d * heads, n, 1, 1);
    graph_src(g, gate, graph_view(g, both, d, heads, n, 1, each, row, row * n, 4 * d));
    y = graph_binary(g, OP_MUL, y, graph_unary(g, OP_UNARY, gate));
    return build_product(b, t[ROLE_O], y);
}

static int32_t attend(struct build *b, int32_t cur, uint32_t il)
{
    const struct layer_facts *lf = &b->f->layers[il];
    int32_t q = lf->tensor[ROLE_Q];
    if (q >= 0 && b->f->weights[q].t->ne[1] == 2ull * lf->d_k * lf->n_head)
        return gated_attention(b, cur, il);
    return build_attend(b, cur, il);
}

static int32_t normed(struct build *b, int32_t state, uint32_t il)
{
    return build_norm(b, state, layer_weight(b, il, ROLE_ATTN_NORM), -1);
}

static int32_t mix(struct build *b, int32_t cur, uint32_t il)
{
    switch (b->f->layers[il].mixer) {
    case MIXER_MAMBA: return build_mamba(b, cur, il);
    case MIXER_MAMBA_STEPS: return build_mamba_steps(b, cur, il);
    case MIXER_MAMBA2: return build_mamba2(b, cur, il);
    case MIXER_CONV: return build_short_conv(b, cur, il);
    case MIXER_DELTA: graph_expand(b->g, cur); return build_delta_net(b, cur, il);
    case MIXER_KDA: graph_expand(b->g, cur); return build_kimi_delta(b, cur, il);
    case MIXER_LIGHTNING: return build_lightning(b, cur, il);
    case MIXER_NONE: return build_ffn(b, cur, il);
    default: return attend(b, cur, il);
    }
}

/* A block's result and what it is added to. */
static int32_t add(struct build *b, int32_t cur, int32_t residual)
{
    if (b->f->scales_residual)
        cur = graph_unary(b->g, OP_SCALE, cur);
    if (b->f->arch->flags & NORMED_RESIDUAL)
        residual = graph_unary(b->g, OP_SCALE, residual);
    return b->f->arch->flags & RESIDUAL_FIRST ? graph_binary(b->g, OP_ADD, residual, cur)
                                              : graph_binary(b->g, OP_ADD, cur, residual);
}

static int32_t mixed(struct build *b, int32_t state, uint32_t il)
{
    struct graph *g = b->g;
    const struct layer_facts *lf = &b->f->layers[il];
    bool last = il == b->f->n_layer_run - 1, beside = lf->cached && lf->recurrent;
    if (beside) {
        int32_t heads = attend(b, normed(b, state, il), il);
        int32_t sum = add(b, graph_binary(g, OP_ADD, heads, mix(b, normed(b, state, il), il)), state);
        return last ? graph_get_rows(g, sum, build_out_rows(b)) : sum;
    }
    int32_t read = normed(b, state, il), cur = mix(b, read, il);
    if (b->f->arch->flags & NORMED_RESIDUAL)
        state = read;
    if (last) {
        cur = graph_get_rows(g, cur, build_out_rows(b));
        state = graph_get_rows(g, state, build_out_rows(b));
    }
    if (lf->tensor[ROLE_FFN_NORM] >= 0 && lf->tensor[ROLE_POST_ATTN_NORM] >= 0)
        cur = build_norm(b, cur, lf->tensor[ROLE_POST_ATTN_NORM], -1);
    return add(b, cur, state);
}

static int32_t feed(struct build *b, int32_t state, enum role norm, uint32_t il)
{
    const int32_t *t = b->f->layers[il].tensor;
    int32_t read = build_norm(b, state, t[norm], -1), cur = build_ffn(b, read, il);
    if (b->f->arch->flags & NORMED_RESIDUAL)
        state = read;
    if (t[ROLE_POST_FFN_NORM] >= 0)
        cur = build_norm(b, cur, t[ROLE_POST_FFN_NORM], -1);
    return add(b, cur, state);
}

void build_hybrid(struct build *b)
{
    int32_t state = build_embeddings(b);
    for (uint32_t i = 0; i < b->n_emit; i++) {
        uint32_t il = b->emit[i];
        const struct layer_facts *lf = &b->f->layers[il];
        state = mixed(b, state, il);
        enum role norm = facts_ffn_norm(lf);
        if (norm != ROLE_NONE && lf->mixer != MIXER_NONE)
            state = feed(b, state, norm, il);
        build_layer_end(b, state);
    }
    build_head(b, state);
}
