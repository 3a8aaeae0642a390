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
        uint64_t row = g->t[all].nb[1], kw = 4ull * lf->d_k, vw = 4ull * lf->d_v;
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

static int32_t attend(struct build *b, int32_t cur, uint32_t il)
{
    const int32_t *t = b->f->layers[il].tensor;
    struct qkv x = project(b, cur, il);
    bool rotated = b->f->layers[il].rotated, rope_first = b->f->arch->flags & ROPE_FIRST;
    bool all_heads = norms_all_heads(b, il);
    if (rotated && rope_first)
        turn(b, &x, il);
    if (t[ROLE_Q_NORM] >= 0 && !all_heads)
        x.q = build_norm(b, x.q, t[ROLE_Q_NORM], t[ROLE_Q_NORM_B]);
    if (t[ROLE_K_NORM] >= 0 && !all_heads)
        x.k = build_norm(b, x.k, t[ROLE_K_NORM], t[ROLE_K_NORM_B]);
    if (rotated && !rope_first)
        turn(b, &x, il);
    if (b->f->scales_by_position)
        x.q = graph_binary(b->g, OP_MUL, x.q, build_position_scale(b));
    if (b->f->arch->flags & SCALES_Q)
        x.q = graph_unary(b->g, OP_SCALE, x.q);
    return build_attention(b, x.q, x.k, x.v, il);
}

static int32_t attn_norm(struct build *b, int32_t state, uint32_t il)
{
    if (b->f->arch->flags & NORMS_AFTER)
        return state;
    return build_norm(b, state, layer_weight(b, il, ROLE_ATTN_NORM), layer_weight(b, il, ROLE_ATTN_NORM_B));
}

/* The feed-forward block reads what attention added up. Its norm may have the name of one after attention. */
static int32_t serial_ffn(struct build *b, int32_t cur, int32_t residual, uint32_t il)
{
    struct graph *g = b->g;
    const int32_t *t = b->f->layers[il].tensor;
    bool after = b->f->arch->flags & NORMS_AFTER;
    enum role norm = facts_ffn_norm(&b->f->layers[il]);
    if (t[ROLE_POST_ATTN_NORM] >= 0 && (after || norm != ROLE_POST_ATTN_NORM))
        cur = build_norm(b, cur, t[ROLE_POST_ATTN_NORM], -1);
    if (b->f->scales_residual)
        cur = graph_unary(g, OP_SCALE, cur);
    int32_t mid = graph_binary(g, OP_ADD, cur, residual);
    cur = mid;
    if (!after)
        cur = build_norm(b, mid, t[norm], t[ROLE_FFN_NORM_B]);
    cur = build_ffn(b, cur, il);
    if (t[ROLE_POST_FFN_NORM] >= 0)
        cur = build_norm(b, cur, t[ROLE_POST_FFN_NORM], -1);
    if (b->f->scales_residual)
        cur = graph_unary(g, OP_SCALE, cur);
    return b->f->arch->flags & RESIDUAL_FIRST ? graph_binary(g, OP_ADD, mid, cur)
                                              : graph_binary(g, OP_ADD, cur, mid);
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
    int32_t state = build_embeddings(b);
    for (uint32_t i = 0; i < b->n_emit; i++) {
        uint32_t il = b->emit[i];
        const int32_t *t = b->f->layers[il].tensor;
        int32_t residual = state;
        int32_t normed = attn_norm(b, state, il), read = normed;
        if (t[ROLE_ATTN_NORM_2] >= 0)
            read = build_norm(b, state, t[ROLE_ATTN_NORM_2], t[ROLE_ATTN_NORM_2_B]);
        int32_t cur = attend(b, read, il);
        if (il == b->f->n_layer_run - 1) {
            cur = graph_get_rows(g, cur, build_out_rows(b));
            residual = graph_get_rows(g, residual, build_out_rows(b));
            if (b->f->parallel && t[ROLE_FFN_NORM] < 0)
                normed = graph_get_rows(g, normed, build_out_rows(b));
        }
        state =
            b->f->parallel ? parallel_ffn(b, cur, residual, normed, il) : serial_ffn(b, cur, residual, il);
        if (il < b->f->deepstack)
            state = graph_binary(g, OP_ADD, state, build_input_part(b, il + 1));
        build_layer_end(b, state);
    }
    build_head(b, state);
}

/* ---- state-space layers ---- */

static void state_inputs(struct build *b)
{
    struct graph *g = b->g;
    uint64_t n = b->n_seqs;
    if (b->state_rows >= 0)
        return;
    b->state_rows = graph_input(g, GGML_I32, n, 1, 1, 1);
    b->state_main = graph_view(g, b->state_rows, n, 1, 1, 1, 4 * n, 4 * n, 4 * n, 0);
    b->state_extra = graph_view(g, b->state_rows, n - 1, 1, 1, 1, 4 * n, 4 * n, 4 * n, 4);
}

/* A layer's stored states as rows, the first of which a new sequence finds cleared. */
static int32_t stored_states(struct build *b, uint32_t il, uint64_t width, int32_t *ret_stored)
{
    struct graph *g = b->g;
    int dev = layout_cache_device(b->l, il);
    const uint64_t ne[4] = {width, b->n_seqs, 1, 1};
    *ret_stored = graph_stored(g, GGML_F32, ne, dev, dev == layout_host(b->l) ? GF_HOST : 0u);
    int32_t rows = graph_reshape(g, *ret_stored, width, b->n_seqs, 1, 1);
    int32_t first = graph_view(g, rows, width, 1, 1, 1, 4 * width, 4 * width, 4 * width, 0);
    int32_t cleared = graph_view(g, first, width, 1, 1, 1, 4 * width, 4 * width, 4 * width, 0);
    g->t[cleared].op = OP_SCALE;
    graph_expand(g, cleared);
    return rows;
}

static int32_t flat_view(struct build *b, int32_t a, uint64_t n, uint64_t rows, uint64_t offset)
{
    return graph_view(b->g, a, n, rows, 1, 1, 4 * n, 4 * n * rows, 4 * n * rows, offset);
}

/* States of sequences that take no part in this batch stay where they are: an empty move in the worst case.
 */
static void keep_others(struct build *b, int32_t from, int32_t stored, uint64_t width, uint64_t from_row)
{
    int32_t rest = flat_view(b, from, width, 0, from_row * width * 4);
    int32_t into = flat_view(b, stored, width, 0, b->n_seqs * width * 4);
    graph_expand(b->g, graph_cpy(b->g, rest, into));
}

static void store_states(struct build *b, int32_t from, int32_t stored, uint64_t n)
{
    graph_expand(b->g, graph_cpy(b->g, from, flat_view(b, stored, n, 1, 0)));
}

/* The last inputs of the previous batch, joined with this one's, pass a short convolution. */
static int32_t convolve(struct build *b, int32_t x, uint32_t il)
{
    struct graph *g = b->g;
    const struct facts *f = b->f;
    uint64_t s = b->n_seqs, n = b->n_tokens / s, tail = f->ssm_conv - 1, inner = f->ssm_inner;
    uint64_t width = tail * inner;
    int32_t stored, rows = stored_states(b, il, width, &stored);
    int32_t states = graph_get_rows(g, rows, b->state_rows);
    int32_t used = flat_view(b, states, width, s, 0);
    graph_expand(g, used);
    keep_others(b, states, stored, width, s);
    int32_t before = graph_reshape(g, used, tail, inner, s, 1);
    int32_t joined = graph_new(g, OP_CONCAT, GGML_F32, tail + n, inner, s, 1);
    graph_src(g, joined, before);
    graph_src(g, joined, graph_transpose(g, x));
    uint64_t row = g->t[joined].nb[1], seq = g->t[joined].nb[2];
    int32_t last = graph_view(g, joined, tail, inner, s, 1, row, seq, seq * s, 4 * n);
    store_states(b, last, stored, width * s);
    return joined;
}

struct ssm {
    int32_t x, y;
};

/* Selective scan: the step, input and output of the state come from the convolved input itself. */
static struct ssm scan(struct build *b, int32_t joined, uint32_t il)
{
    struct graph *g = b->g;
    const struct facts *f = b->f;
    const int32_t *t = f->layers[il].tensor;
    uint64_t s = b->n_seqs, n = b->n_tokens / s, inner = f->ssm_inner, state = f->ssm_state,
             rank = f->ssm_rank;
    uint64_t width = state * inner;
    int32_t stored, rows = stored_states(b, il, width, &stored);
    int32_t x = graph_new(g, OP_SSM_CONV, GGML_F32, inner, n, s, 1);
    graph_src(g, x, joined);
    graph_src(g, x, build_weight(b, t[ROLE_SSM_CONV]));
    x = graph_unary(g, OP_UNARY, graph_binary(g, OP_ADD, x, build_weight(b, t[ROLE_SSM_CONV_B])));
    int32_t db = build_product(b, t[ROLE_SSM_X], x);
    uint64_t row = g->t[db].nb[1], seq = g->t[db].nb[2];
    int32_t dt = graph_unary(g, OP_CONT, graph_view(g, db, rank, n, s, 1, row, seq, seq * s, 0));
    dt = build_product_bias(b, t[ROLE_SSM_DT], t[ROLE_SSM_DT_B], dt);
    int32_t y = graph_new(g, OP_SSM_SCAN, GGML_F32, inner * n * s + width * s, 1, 1, 1);
    graph_src(g, y, graph_reshape(g, rows, state, 1, inner, s));
    graph_src(g, y, graph_reshape(g, x, 1, inner, n, s));
    graph_src(g, y, dt);
    graph_src(g, y, build_weight(b, t[ROLE_SSM_A]));
    graph_src(g, y, graph_view(g, db, state, 1, n, s, 4 * state, row, seq, 4 * rank));
    graph_src(g, y, graph_view(g, db, state, 1, n, s, 4 * state, row, seq, 4 * (rank + state)));
    graph_src(g, y, b->state_main);
    graph_expand(g, y);
    keep_others(b, graph_get_rows(g, rows, b->state_extra), stored, width, s - 1);
    store_states(b, flat_view(b, y, width * s, 1, 4 * inner * n * s), stored, width * s);
    return (struct ssm){x, y};
}

static int32_t mamba_layer(struct build *b, int32_t cur, uint32_t il)
{
    struct graph *g = b->g;
    const struct facts *f = b->f;
    const int32_t *t = f->layers[il].tensor;
    uint64_t s = b->n_seqs, n = b->n_tokens / s, inner = f->ssm_inner;
    state_inputs(b);
    cur = build_norm(b, cur, t[ROLE_ATTN_NORM], -1);
    int32_t xz = build_product(b, t[ROLE_SSM_IN], graph_reshape(g, cur, f->n_embd, n, s, 1));
    uint64_t row = g->t[xz].nb[1], seq = g->t[xz].nb[2];
    int32_t x = graph_view(g, xz, inner, n, s, 1, row, seq, seq * s, 0);
    int32_t z = graph_view(g, xz, inner, n, s, 1, row, seq, seq * s, 4 * inner);
    struct ssm h = scan(b, convolve(b, x, il), il);
    int32_t y = graph_view(g, h.y, inner, n, s, 1, 4 * inner, 4 * inner * n, 4 * inner * n * s, 0);
    y = graph_binary(g, OP_ADD, y, graph_binary(g, OP_MUL, h.x, build_weight(b, t[ROLE_SSM_D])));
    y = graph_binary(g, OP_GLU, graph_unary(g, OP_CONT, z), y);
    return graph_reshape(g, build_product(b, t[ROLE_SSM_OUT], y), f->n_embd, n * s, 1, 1);
}

void build_mamba(struct build *b)
{
    struct graph *g = b->g;
    int32_t state = build_embeddings(b);
    for (uint32_t i = 0; i < b->n_emit; i++) {
        uint32_t il = b->emit[i];
        int32_t cur = mamba_layer(b, state, il), residual = state;
        if (il == b->f->n_layer - 1) {
            cur = graph_get_rows(g, cur, build_out_rows(b));
            residual = graph_get_rows(g, residual, build_out_rows(b));
        }
        state = graph_binary(g, OP_ADD, cur, residual);
        build_layer_end(b, state);
    }
    build_head(b, state);
}
