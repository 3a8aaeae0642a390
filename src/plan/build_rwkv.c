/* RWKV of the sixth and seventh generation, and transformers whose attention was replaced by theirs. Layer
 * plan; see build.h. Each layer mixes a token with the one before it (the last of the batch is stored), then
 * runs a state over the batch; tokens are arranged as [width, tokens of a sequence, sequences]. */
#include "plan/build.h"

/* ---- the token before ---- */

struct shift {
    int32_t stored, rows; /* [width, shifts, sequences] */
    uint64_t shifts;      /* 2: before time mixing and before channel mixing; 1: the first alone */
};

static struct shift load_shift(struct build *b, uint32_t il)
{
    struct shift s = {.shifts = b->f->state_r / b->f->n_embd};
    int32_t used = build_states_load(b, il, b->f->state_r, &s.stored);
    s.rows = graph_reshape(b->g, used, b->f->n_embd, s.shifts, b->n_seqs, 1);
    return s;
}

/* Each token's predecessor: the stored one, then all but the last. */
static int32_t previous(struct build *b, const struct shift *s, uint64_t which, int32_t cur)
{
    struct graph *g = b->g;
    uint64_t width = b->f->n_embd, n = b->n_tokens / b->n_seqs;
    int32_t before = s->rows;
    if (s->shifts > 1)
        before = graph_view(g, s->rows, width, 1, b->n_seqs, 1, g->t[s->rows].nb[1], g->t[s->rows].nb[2],
                            g->t[s->rows].nb[3], 4 * width * which);
    struct gtensor t = g->t[cur];
    int32_t rest = graph_view(g, cur, width, n - 1, b->n_seqs, 1, t.nb[1], t.nb[2], t.nb[3], 0);
    int32_t id = graph_new(g, OP_CONCAT, GGML_F32, width, n, b->n_seqs, 1);
    graph_src(g, id, before);
    graph_src(g, id, rest);
    return id;
}

static int32_t last_token(struct build *b, int32_t cur)
{
    struct gtensor t = b->g->t[cur];
    return graph_view(b->g, cur, t.ne[0], 1, t.ne[2], 1, t.nb[1], t.nb[2], t.nb[3], (t.ne[1] - 1) * t.nb[1]);
}

static void store_shift(struct build *b, const struct shift *s, int32_t tokens)
{
    uint64_t n = b->f->state_r * b->n_seqs;
    int32_t flat = graph_view(b->g, tokens, n, 1, 1, 1, 4 * n, 4 * n, 4 * n, 0);
    build_states_store(b, flat, s->stored, n);
}

/* ---- small parts ---- */

static int32_t flat(struct build *b, int32_t cur)
{
    return graph_reshape(b->g, cur, b->g->t[cur].ne[0], b->n_tokens, 1, 1);
}

static int32_t heads(struct build *b, int32_t cur)
{
    uint64_t size = b->f->ssm_state;
    return graph_reshape(b->g, cur, size, b->f->n_embd / size, b->n_tokens, 1);
}

static int32_t times(struct build *b, int32_t cur, int32_t weight)
{
    return graph_binary(b->g, OP_MUL, cur, build_weight(b, weight));
}

static int32_t plus(struct build *b, int32_t cur, int32_t weight)
{
    return graph_binary(b->g, OP_ADD, cur, build_weight(b, weight));
}

static int32_t curve(struct build *b, int32_t cur) /* any function of single elements */
{
    return graph_unary(b->g, OP_UNARY, cur);
}

/* The i-th of several mixtures that were made at once. */
static int32_t mixture(struct build *b, int32_t all, uint64_t i)
{
    uint64_t width = b->f->n_embd, n = b->n_tokens, row = 4 * width;
    return graph_view(b->g, all, width, n, 1, 1, row, row * n, row * n, i * row * n);
}

/* Makes the operation over the state, stores the new one, and returns the outputs, one row. */
static int32_t run_state(struct build *b, int32_t op, int32_t stored)
{
    struct graph *g = b->g;
    uint64_t out = (uint64_t)b->f->n_embd * b->n_tokens, n = b->f->state_s * b->n_seqs;
    int32_t state = graph_view(g, op, n, 1, 1, 1, 4 * n, 4 * n, 4 * n, 4 * out);
    build_states_store(b, state, stored, n);
    return graph_view(g, op, out, 1, 1, 1, 4 * out, 4 * out, 4 * out, 0);
}

static int32_t state_op(struct build *b, enum graph_op op)
{
    return graph_new(b->g, op, GGML_F32, b->f->n_embd, b->n_tokens + (uint64_t)b->f->ssm_state * b->n_seqs, 1,
                     1);
}

/* Norm of each head, as every generation has it; models made of transformers have none. */
static int32_t norm_heads(struct build *b, int32_t out, const int32_t *t)
{
    if (t[ROLE_TIME_LN] < 0 || t[ROLE_TIME_LN_B] < 0)
        return graph_reshape(b->g, out, b->f->n_embd, b->n_tokens, 1, 1);
    int32_t cur = graph_unary(b->g, OP_NORM, heads(b, out));
    cur = graph_reshape(b->g, cur, b->f->n_embd, b->n_tokens, 1, 1);
    return plus(b, times(b, cur, t[ROLE_TIME_LN]), t[ROLE_TIME_LN_B]);
}

static int32_t output(struct build *b, int32_t cur, const int32_t *t)
{
    cur = build_product(b, t[ROLE_TIME_OUT], cur);
    return graph_reshape(b->g, cur, b->f->n_embd, b->n_tokens / b->n_seqs, b->n_seqs, 1);
}

/* ---- sixth generation ---- */

/* Five mixtures of each token with the one before, weighed by the token itself: decay, key, value,
 * receptance, gate. */
static int32_t mixtures6(struct build *b, int32_t cur, int32_t before, const int32_t *t)
{
    struct graph *g = b->g;
    uint64_t width = b->f->n_embd, n = b->n_tokens;
    const struct tensor *w2 = b->f->weights[t[ROLE_TIME_W2]].t;
    int32_t change = flat(b, graph_binary(g, OP_SUB, before, cur));
    cur = flat(b, cur);
    int32_t x = graph_binary(g, OP_ADD, times(b, change, t[ROLE_TIME_LERP_X]), cur);
    x = curve(b, build_product(b, t[ROLE_TIME_W1], x));
    x = graph_reshape(g, x, w2->ne[0], 1, 5, n);
    x = graph_unary(g, OP_CONT, graph_permute(g, x, 0, 1, 3, 2));
    int32_t each = graph_reshape(g, build_weight(b, t[ROLE_TIME_W2]), w2->ne[0], w2->ne[1], 1, 5);
    x = graph_mul_mat(g, each, x);
    x = plus(b, x, t[ROLE_TIME_LERP_FUSED]);
    x = graph_binary(g, OP_MUL, x, graph_reshape(g, change, width, 1, n, 1));
    return graph_binary(g, OP_ADD, x, graph_reshape(g, cur, width, 1, n, 1));
}

/* Keys or values, once for each of the heads that share them. */
static int32_t shared_heads(struct build *b, int32_t cur)
{
    struct graph *g = b->g;
    uint64_t size = b->f->ssm_state, all = b->f->n_embd / size, have = g->t[cur].ne[0] / size;
    if (have == 0 || have == all)
        return heads(b, cur);
    int32_t many = graph_new(g, OP_REPEAT, GGML_F32, size, all / have, have, b->n_tokens);
    graph_src(g, many, graph_reshape(g, cur, size, 1, have, b->n_tokens));
    return heads(b, many);
}

static int32_t time_mix6(struct build *b, int32_t cur, int32_t before, uint32_t il)
{
    struct graph *g = b->g;
    const int32_t *t = b->f->layers[il].tensor;
    bool gated = t[ROLE_TIME_FIRST] < 0; /* made of a transformer */
    int32_t stored, state, x = mixtures6(b, cur, before, t);
    int32_t r = build_product_bias(b, t[ROLE_TIME_R], t[ROLE_TIME_R_B], mixture(b, x, 3));
    int32_t k = build_product_bias(b, t[ROLE_TIME_K], t[ROLE_TIME_K_B], mixture(b, x, 1));
    int32_t v = build_product_bias(b, t[ROLE_TIME_V], t[ROLE_TIME_V_B], mixture(b, x, 2));
    int32_t gate = curve(b, build_product(b, t[ROLE_TIME_G], mixture(b, x, 4)));
    k = shared_heads(b, k);
    v = shared_heads(b, v);
    r = heads(b, r);
    int32_t w = curve(b, build_product(b, t[ROLE_TIME_DECAY_W1], mixture(b, x, 0)));
    w = plus(b, build_product(b, t[ROLE_TIME_DECAY_W2], w), t[ROLE_TIME_DECAY]);
    w = heads(b, curve(b, curve(b, curve(b, w))));
    if (gated)
        k = graph_binary(g, OP_SUB, k, graph_binary(g, OP_MUL, k, w));
    state = build_states_load(b, il, b->f->state_s, &stored);
    int32_t op = state_op(b, gated ? OP_GLA : OP_WKV6);
    graph_src(g, op, k);
    graph_src(g, op, v);
    graph_src(g, op, r);
    if (!gated)
        graph_src(g, op, build_weight(b, t[ROLE_TIME_FIRST]));
    graph_src(g, op, w);
    graph_src(g, op, state);
    cur = norm_heads(b, run_state(b, op, stored), t);
    return output(b, graph_binary(g, OP_MUL, cur, gate), t);
}

/* ---- seventh generation ---- */

/* w0 + w2 f(w1 x); f may be nothing */
static int32_t low_rank(struct build *b, int32_t x, int32_t w1, int32_t w2, int32_t w0, bool curved)
{
    x = build_product(b, w1, x);
    if (curved)
        x = curve(b, x);
    x = build_product(b, w2, x);
    return w0 < 0 ? x : plus(b, x, w0);
}

/* Mixtures with learnt weights: receptance, decay, key, value, rate, and gate if there is one. */
static int32_t mixtures7(struct build *b, int32_t cur, int32_t before, const int32_t *t)
{
    struct graph *g = b->g;
    int32_t change = graph_binary(g, OP_SUB, before, cur);
    struct gtensor c = g->t[change];
    int32_t many = graph_new(g, OP_REPEAT, GGML_F32, c.ne[0], c.ne[1], c.ne[2], t[ROLE_TIME_G1] >= 0 ? 6 : 5);
    graph_src(g, many, change);
    return graph_binary(g, OP_ADD, times(b, many, t[ROLE_TIME_LERP_FUSED]), cur);
}

struct wkv7 {
    int32_t r, k, v; /* as heads */
    int32_t op, stored;
};

static struct wkv7 run_wkv7(struct build *b, int32_t x, int32_t *first_v, uint32_t il)
{
    struct graph *g = b->g;
    const int32_t *t = b->f->layers[il].tensor;
    struct wkv7 s;
    int32_t r = build_product(b, t[ROLE_TIME_R], mixture(b, x, 0));
    int32_t w = low_rank(b, mixture(b, x, 1), t[ROLE_TIME_W1], t[ROLE_TIME_W2], t[ROLE_TIME_W0], true);
    w = curve(b, graph_unary(g, OP_SCALE, curve(b, w)));
    int32_t k = build_product(b, t[ROLE_TIME_K], mixture(b, x, 2)), from = mixture(b, x, 3);
    int32_t v = build_product(b, t[ROLE_TIME_V], from);
    if (*first_v < 0) {
        *first_v = v;
    } else { /* some of the first layer's values */
        int32_t share = curve(b, low_rank(b, from, t[ROLE_TIME_V1], t[ROLE_TIME_V2], t[ROLE_TIME_V0], false));
        int32_t more = graph_binary(g, OP_MUL, graph_binary(g, OP_SUB, *first_v, v), share);
        v = graph_binary(g, OP_ADD, v, more);
    }
    int32_t rate = low_rank(b, mixture(b, x, 4), t[ROLE_TIME_A1], t[ROLE_TIME_A2], t[ROLE_TIME_A0], false);
    rate = curve(b, rate);
    int32_t kk = graph_unary(g, OP_L2_NORM, heads(b, times(b, k, t[ROLE_TIME_K_K])));
    int32_t ka = times(b, k, t[ROLE_TIME_K_A]);
    int32_t change = graph_binary(g, OP_SUB, graph_binary(g, OP_MUL, rate, ka), ka);
    s.r = heads(b, r);
    s.k = heads(b, graph_binary(g, OP_ADD, k, change));
    s.v = heads(b, v);
    int32_t state = build_states_load(b, il, b->f->state_s, &s.stored);
    s.op = state_op(b, OP_WKV7);
    graph_src(g, s.op, s.r);
    graph_src(g, s.op, heads(b, w));
    graph_src(g, s.op, s.k);
    graph_src(g, s.op, s.v);
    graph_src(g, s.op, curve(b, kk));
    graph_src(g, s.op, graph_binary(g, OP_MUL, kk, heads(b, rate)));
    graph_src(g, s.op, state);
    return s;
}

static int32_t time_mix7(struct build *b, int32_t cur, int32_t before, int32_t *first_v, uint32_t il)
{
    struct graph *g = b->g;
    const int32_t *t = b->f->layers[il].tensor;
    uint64_t size = b->f->ssm_state, count = b->f->n_embd / size;
    int32_t x = mixtures7(b, cur, before, t);
    struct wkv7 s = run_wkv7(b, x, first_v, il);
    cur = norm_heads(b, run_state(b, s.op, s.stored), t);
    int32_t weights = graph_reshape(g, build_weight(b, t[ROLE_TIME_R_K]), size, count, 1, 1);
    int32_t rk = graph_binary(g, OP_MUL, graph_binary(g, OP_MUL, s.k, s.r), weights);
    int32_t sum = graph_new(g, OP_SUM_ROWS, GGML_F32, 1, count, b->n_tokens, 1);
    graph_src(g, sum, rk);
    int32_t bonus = graph_binary(g, OP_MUL, s.v, sum);
    cur = graph_binary(g, OP_ADD, cur, graph_reshape(g, bonus, b->f->n_embd, b->n_tokens, 1, 1));
    if (t[ROLE_TIME_G1] >= 0)
        cur = graph_binary(g, OP_MUL, cur,
                           low_rank(b, mixture(b, x, 5), t[ROLE_TIME_G1], t[ROLE_TIME_G2], -1, true));
    return output(b, cur, t);
}

/* ---- layers ---- */

static int32_t channel_mix(struct build *b, int32_t cur, int32_t before, const int32_t *t)
{
    struct graph *g = b->g;
    int32_t change = graph_binary(g, OP_SUB, before, cur), open = -1;
    if (t[ROLE_CHANNEL_R] >= 0) {
        int32_t x = graph_binary(g, OP_ADD, times(b, change, t[ROLE_CHANNEL_LERP_R]), cur);
        open = curve(b, build_product(b, t[ROLE_CHANNEL_R], x));
    }
    int32_t k = graph_binary(g, OP_ADD, times(b, change, t[ROLE_CHANNEL_LERP_K]), cur);
    k = graph_unary(g, OP_SQR, curve(b, build_product(b, t[ROLE_CHANNEL_K], k)));
    int32_t v = build_product(b, t[ROLE_CHANNEL_V], k);
    return open < 0 ? v : graph_binary(g, OP_MUL, open, v);
}

static int32_t of_outputs(struct build *b, int32_t cur, uint32_t il)
{
    return il == b->f->n_layer_run - 1 ? graph_get_rows(b->g, cur, build_out_rows(b)) : cur;
}

static int32_t mix_channels(struct build *b, int32_t sum, const struct shift *s, int32_t normed, uint32_t il)
{
    struct graph *g = b->g;
    const int32_t *t = b->f->layers[il].tensor;
    int32_t cur = build_norm(b, sum, t[ROLE_ATTN_NORM_2], t[ROLE_ATTN_NORM_2_B]);
    int32_t both = graph_new(g, OP_CONCAT, GGML_F32, b->f->n_embd, 2, b->n_seqs, 1);
    graph_src(g, both, last_token(b, normed));
    graph_src(g, both, last_token(b, cur));
    store_shift(b, s, both);
    int32_t before = of_outputs(b, flat(b, previous(b, s, 1, cur)), il);
    int32_t mixed = channel_mix(b, of_outputs(b, flat(b, cur), il), before, t);
    int32_t state = graph_binary(g, OP_ADD, mixed, of_outputs(b, flat(b, sum), il));
    uint32_t every = b->f->rescale_every;
    return every && (il + 1) % every == 0 ? graph_unary(g, OP_SCALE, state) : state;
}

/* The feed-forward block of the transformer that the model was made of. */
static int32_t keep_ffn(struct build *b, int32_t sum, uint32_t il)
{
    const int32_t *t = b->f->layers[il].tensor;
    sum = of_outputs(b, flat(b, sum), il);
    int32_t cur = build_ffn(b, build_norm(b, sum, t[ROLE_FFN_NORM], -1), il);
    return graph_binary(b->g, OP_ADD, cur, sum);
}

void build_rwkv(struct build *b)
{
    struct graph *g = b->g;
    int32_t state = build_embeddings(b), first_v = -1;
    for (uint32_t i = 0; i < b->n_emit; i++) {
        uint32_t il = b->emit[i];
        const struct layer_facts *lf = &b->f->layers[il];
        const int32_t *t = lf->tensor;
        int32_t in = graph_reshape(g, state, b->f->n_embd, b->n_tokens / b->n_seqs, b->n_seqs, 1);
        struct shift s = load_shift(b, il);
        int32_t normed = build_norm(b, in, t[ROLE_ATTN_NORM], t[ROLE_ATTN_NORM_B]);
        int32_t before = previous(b, &s, 0, normed);
        int32_t cur = lf->mixer == MIXER_RWKV6 ? time_mix6(b, normed, before, il)
                                               : time_mix7(b, normed, before, &first_v, il);
        bool whole = t[ROLE_CHANNEL_K] >= 0;
        if (!whole)
            store_shift(b, &s, last_token(b, normed));
        int32_t sum = graph_binary(g, OP_ADD, cur, in);
        state = whole ? mix_channels(b, sum, &s, normed, il) : keep_ffn(b, sum, il);
        build_layer_end(b, state);
    }
    build_head(b, state);
}
