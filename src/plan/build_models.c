/* One function a family: the order of norms, mixers and residuals. Layer plan; see build.h. */
#include "plan/build.h"

struct qkv {
    int32_t q, k, v;
};

static int32_t clamp(struct build *b, int32_t cur)
{
    return b->f->clamps_qkv ? graph_unary(b->g, OP_CLAMP, cur) : cur;
}

/* One norm over all heads, or one a head? */
static bool norms_all_heads(const struct build *b, uint32_t il)
{
    const struct layer_facts *lf = &b->f->layers[il];
    int32_t q = lf->tensor[ROLE_Q_NORM], k = lf->tensor[ROLE_K_NORM];
    return q >= 0 && k >= 0 && lf->n_head > 1 && b->f->weights[q].t->ne[0] != lf->d_k;
}

/* Queries, keys and values as [width, heads, tokens], from one matrix or three. */
static struct qkv project(struct build *b, int32_t cur, uint32_t il)
{
    struct graph *g = b->g;
    const struct layer_facts *lf = &b->f->layers[il];
    const int32_t *t = lf->tensor;
    uint64_t n = b->n_tokens;
    if (t[ROLE_QKV] >= 0) {
        int32_t all = clamp(b, build_product_bias(b, t[ROLE_QKV], t[ROLE_QKV_B], cur));
        uint64_t row = g->t[all].nb[1];
        if (b->f->arch->flags & MID_RESIDUAL_FIRST) /* openelm: in heads before it is parted */
            all = graph_reshape(g, all, lf->d_k, lf->n_head + 2ull * lf->n_head_kv, n, 1);
        uint64_t kw = 4ull * lf->d_k, vw = 4ull * lf->d_v;
        uint64_t k_at = kw * lf->n_head, v_at = k_at + kw * lf->n_head_kv;
        return (struct qkv){graph_view(g, all, lf->d_k, lf->n_head, n, 1, kw, row, row * n, 0),
                            graph_view(g, all, lf->d_k, lf->n_head_kv, n, 1, kw, row, row * n, k_at),
                            graph_view(g, all, lf->d_v, lf->n_head_kv, n, 1, vw, row, row * n, v_at)};
    }
    int32_t q = clamp(b, build_product_bias(b, t[ROLE_Q], t[ROLE_Q_B], cur));
    int32_t k = clamp(b, build_product_bias(b, t[ROLE_K], t[ROLE_K_B], cur));
    int32_t v = clamp(b, build_product_bias(b, t[ROLE_V], t[ROLE_V_B], cur));
    if (norms_all_heads(b, il)) {
        q = build_norm(b, q, t[ROLE_Q_NORM], t[ROLE_Q_NORM_B]);
        k = build_norm(b, k, t[ROLE_K_NORM], t[ROLE_K_NORM_B]);
    }
    return (struct qkv){graph_reshape(g, q, lf->d_k, lf->n_head, n, 1),
                        graph_reshape(g, k, lf->d_k, lf->n_head_kv, n, 1),
                        graph_reshape(g, v, lf->d_v, lf->n_head_kv, n, 1)};
}

static void turn(struct build *b, struct qkv *x, uint32_t il)
{
    x->q = build_rope(b, x->q, il);
    x->k = build_rope(b, x->k, il);
}

/* A gate on what the heads give: one a value, or one a head. */
static int32_t open_gate(struct build *b, int32_t heads, int32_t in, uint32_t il)
{
    struct graph *g = b->g;
    const struct layer_facts *lf = &b->f->layers[il];
    uint64_t width = g->t[heads].ne[0], n = b->n_tokens;
    int32_t gate = graph_unary(g, OP_UNARY, build_product(b, lf->tensor[ROLE_ATTN_GATE], in));
    if (g->t[gate].ne[0] == width)
        return graph_binary(g, OP_MUL, heads, gate);
    int32_t each = graph_reshape(g, heads, width / lf->n_head, lf->n_head, n, 1);
    each = graph_binary(g, OP_MUL, each, graph_reshape(g, gate, 1, lf->n_head, n, 1));
    return graph_reshape(g, each, width, n, 1, 1);
}

/* From what the heads give to what the residual gets; in: what attention read. */
static int32_t attended(struct build *b, int32_t heads, int32_t in, uint32_t il)
{
    const int32_t *t = b->f->layers[il].tensor;
    if (t[ROLE_ATTN_GATE] >= 0)
        heads = open_gate(b, heads, in, il);
    if (t[ROLE_ATTN_SUB_NORM] >= 0)
        heads = build_norm(b, heads, t[ROLE_ATTN_SUB_NORM], -1);
    int32_t cur = build_product_bias(b, t[ROLE_O], t[ROLE_O_B], heads);
    return b->f->scales_attends ? graph_unary(b->g, OP_SCALE, cur) : cur;
}

int32_t build_attend(struct build *b, int32_t cur, uint32_t il)
{
    const int32_t *t = b->f->layers[il].tensor;
    struct qkv x;
    if (b->f->latent.rank)
        build_latent(b, cur, il, &x.q, &x.k, &x.v);
    else
        x = project(b, cur, il);
    bool rotated = b->f->layers[il].rotated && !b->f->latent.rank,
         rope_first = b->f->arch->flags & ROPE_FIRST;
    bool all_heads = norms_all_heads(b, il);
    if (rotated && rope_first)
        turn(b, &x, il);
    if (t[ROLE_Q_NORM] >= 0 && !all_heads)
        x.q = build_head_norm(b, x.q, t[ROLE_Q_NORM], t[ROLE_Q_NORM_B]);
    bool k_bare = t[ROLE_Q_NORM] >= 0 && (b->f->arch->flags & BARE_NORMS);
    if ((t[ROLE_K_NORM] >= 0 || k_bare) && !all_heads)
        x.k = build_head_norm(b, x.k, t[ROLE_K_NORM], t[ROLE_K_NORM_B]);
    if (rotated && !rope_first)
        turn(b, &x, il);
    if (rotated && b->f->bare_qk_norm) {
        x.q = build_norm(b, x.q, -1, -1);
        x.k = build_norm(b, x.k, -1, -1);
    }
    if (b->f->scales_by_position || (!rotated && (b->f->arch->flags & SCALES_UNTURNED)))
        x.q = graph_binary(b->g, OP_MUL, x.q, build_position_scale(b));
    if (b->f->arch->flags & SCALES_Q)
        x.q = graph_unary(b->g, OP_SCALE, x.q);
    return attended(b, build_attention_heads(b, x.q, x.k, x.v, il), cur, il);
}

static int32_t attn_norm(struct build *b, int32_t state, uint32_t il)
{
    bool normed_already = b->f->headless && layer_weight(b, il, ROLE_ATTN_NORM) < 0;
    if ((b->f->arch->flags & NORMS_AFTER) || b->f->norms_results || normed_already)
        return state;
    return build_norm(b, state, layer_weight(b, il, ROLE_ATTN_NORM), layer_weight(b, il, ROLE_ATTN_NORM_B));
}

/* The norm behind attention, unless that weight is the one before the feed-forward block; ROLE_NONE. */
static enum role norm_behind(const struct build *b, const int32_t *t, enum role before_ffn)
{
    bool after = b->f->arch->flags & NORMS_AFTER;
    if (b->f->norms_results)
        return ROLE_ATTN_NORM;
    static const enum role names[] = {ROLE_POST_ATTN_NORM, ROLE_ATTN_OUT_NORM};
    for (size_t i = 0; i < TABLE_COUNT(names); i++)
        if (t[names[i]] >= 0 && (after || names[i] != before_ffn))
            return names[i];
    return ROLE_NONE;
}

/* The norm behind the feed-forward block; ROLE_NONE. */
static enum role last_norm(const struct build *b, const int32_t *t)
{
    if (b->f->norms_results)
        return ROLE_FFN_NORM;
    if (t[ROLE_POST_FFN_NORM] >= 0)
        return ROLE_POST_FFN_NORM;
    return t[ROLE_LAYER_OUT_NORM] >= 0 ? ROLE_LAYER_OUT_NORM : ROLE_NONE;
}

/* The feed-forward block reads what attention added up. Its norm may have the name of one after attention. */
static int32_t serial_ffn(struct build *b, int32_t cur, int32_t residual, int32_t logits, uint32_t il)
{
    struct graph *g = b->g;
    const int32_t *t = b->f->layers[il].tensor;
    bool after = b->f->arch->flags & NORMS_AFTER;
    enum role norm = facts_ffn_norm(&b->f->layers[il]);
    enum role behind = norm_behind(b, t, norm);
    if (behind != ROLE_NONE && !(b->f->arch->flags & WHOLE_NORM))
        cur = build_norm(b, cur, t[behind], -1);
    if (b->f->scales_residual)
        cur = graph_unary(g, OP_SCALE, cur);
    int32_t mid = b->f->arch->flags & MID_RESIDUAL_FIRST ? graph_binary(g, OP_ADD, residual, cur)
                                                         : graph_binary(g, OP_ADD, cur, residual);
    if (after)
        cur = mid;
    else if (!b->f->norms_results) /* there the block reads what attention gave, without the residual */
        cur = build_norm(b, mid, norm == ROLE_NONE ? -1 : t[norm], t[ROLE_FFN_NORM_B]);
    cur = build_ffn_routed(b, cur, logits, il);
    enum role last = last_norm(b, t);
    if (last != ROLE_NONE)
        cur = build_norm(b, cur, t[last], -1);
    if (b->f->scales_residual)
        cur = graph_unary(g, OP_SCALE, cur);
    cur = b->f->arch->flags & RESIDUAL_FIRST ? graph_binary(g, OP_ADD, mid, cur)
                                             : graph_binary(g, OP_ADD, cur, mid);
    if (t[ROLE_EXPS_NORM] < 0)
        return cur;
    int32_t in = build_norm(b, residual, t[ROLE_EXPS_NORM], -1); /* experts read what attention read */
    return graph_binary(g, OP_ADD, build_experts(b, in, build_router_logits(b, in, il), il), cur);
}

/* The feed-forward block reads what attention read, or the layer's input behind a norm of its own. */
static int32_t parallel_ffn(struct build *b, int32_t attended, int32_t residual, int32_t normed, uint32_t il)
{
    struct graph *g = b->g;
    const int32_t *t = b->f->layers[il].tensor;
    int32_t in =
        t[ROLE_FFN_NORM] >= 0 ? build_norm(b, residual, t[ROLE_FFN_NORM], t[ROLE_FFN_NORM_B]) : normed;
    int32_t cur = build_ffn(b, in, il);
    if (b->f->arch->flags & RESIDUAL_FIRST)
        return graph_binary(g, OP_ADD, graph_binary(g, OP_ADD, attended, cur), residual);
    bool joined = b->f->arch->flags & JOINED_FIRST;
    cur = graph_binary(g, OP_ADD, cur, joined ? attended : residual);
    return graph_binary(g, OP_ADD, cur, joined ? residual : attended);
}

void build_transformer(struct build *b)
{
    struct graph *g = b->g;
    int32_t state = build_embeddings(b), skipped = state, logits = -1;
    for (uint32_t i = 0; i < b->n_emit; i++) {
        uint32_t il = b->emit[i], stored = b->f->n_stored;
        const int32_t *t = b->f->layers[il].tensor;
        int32_t residual = state;
        b->turn = il - il % stored;
        int32_t normed = attn_norm(b, state, il), read = normed;
        if (t[ROLE_ATTN_NORM_2] >= 0)
            read = build_norm(b, state, t[ROLE_ATTN_NORM_2], t[ROLE_ATTN_NORM_2_B]);
        if (b->f->arch->flags & ROUTES_INPUT)
            logits = build_router_logits(b, state, il);
        int32_t cur = build_attend(b, read, il);
        if (b->f->arch->flags & WHOLE_NORM)
            cur = build_norm(b, cur, t[ROLE_POST_ATTN_NORM], -1);
        if (il == b->f->n_layer_run - 1 && !(b->f->arch->flags & ALL_ROWS)) {
            cur = graph_get_rows(g, cur, build_out_rows(b));
            residual = graph_get_rows(g, residual, build_out_rows(b));
            if (logits >= 0)
                logits = graph_get_rows(g, logits, build_out_rows(b));
            if (t[ROLE_LAYER_SCALE] >= 0)
                skipped = graph_get_rows(g, skipped, build_out_rows(b));
            if (b->f->parallel && t[ROLE_FFN_NORM] < 0)
                normed = graph_get_rows(g, normed, build_out_rows(b));
        }
        state = b->f->parallel ? parallel_ffn(b, cur, residual, normed, il)
                               : serial_ffn(b, cur, residual, logits, il);
        if (t[ROLE_LAYER_SCALE] >= 0) /* the embeddings come back */
            state = graph_binary(g, OP_ADD, state,
                                 graph_binary(g, OP_MUL, skipped, build_weight(b, t[ROLE_LAYER_SCALE])));
        if (il < b->f->deepstack)
            state = graph_binary(g, OP_ADD, state, build_input_part(b, il + 1));
        if (b->f->norms_turns && (il + 1) % stored == 0 && il + 1 < b->f->n_layer)
            state = build_turn_norm(b, state, il);
        build_layer_end(b, state);
    }
    b->turn = 0;
    build_head(b, state);
}
