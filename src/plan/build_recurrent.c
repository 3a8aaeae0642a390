/* Blocks that keep states: selective scans of both kinds, short convolutions, gated delta nets. Layer plan;
 * see build.h. Every block reads the states of its batch's sequences, leaves those of others in place, and
 * writes the new ones back; tokens are arranged as [width, tokens of a sequence, sequences]. */
#include "plan/build.h"

static int32_t state_rows(struct build *b)
{
    struct graph *g = b->g;
    uint64_t n = b->n_seqs;
    if (b->state_rows < 0) {
        b->state_rows = graph_input(g, GGML_I32, n, 1, 1, 1);
        b->state_main = graph_view(g, b->state_rows, n, 1, 1, 1, 4 * n, 4 * n, 4 * n, 0);
        b->state_extra = graph_view(g, b->state_rows, n - 1, 1, 1, 1, 4 * n, 4 * n, 4 * n, 4);
    }
    return b->state_rows;
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

void build_states_store(struct build *b, int32_t from, int32_t stored, uint64_t n)
{
    graph_expand(b->g, graph_cpy(b->g, from, flat_view(b, stored, n, 1, 0)));
}

int32_t build_states_load(struct build *b, uint32_t il, uint64_t width, int32_t *ret_stored)
{
    struct graph *g = b->g;
    int32_t rows = stored_states(b, il, width, ret_stored);
    int32_t states = graph_get_rows(g, rows, state_rows(b));
    int32_t used = flat_view(b, states, width, b->n_seqs, 0);
    graph_expand(g, used);
    keep_others(b, states, *ret_stored, width, b->n_seqs);
    return used;
}

/* The tail of each sequence's inputs. Read before the block's own norm is made. */
struct tail {
    int32_t stored, before; /* [tail, channels, sequences] */
    uint64_t n, channels;
    uint64_t at, row; /* bytes before it in a stored row, and of that row */
};

static struct tail load_tail(struct build *b, uint32_t il, uint64_t channels)
{
    struct tail t = {.n = b->f->ssm_conv - 1, .channels = channels};
    t.row = 4 * t.n * channels;
    int32_t used = build_states_load(b, il, t.n * channels, &t.stored);
    t.before = graph_reshape(b->g, used, t.n, channels, b->n_seqs, 1);
    return t;
}

/* The inputs behind their tail, [tail + tokens, channels, sequences]; the new tail is stored. */
static int32_t join_tail(struct build *b, const struct tail *t, int32_t x)
{
    struct graph *g = b->g;
    uint64_t s = b->n_seqs, n = b->n_tokens / s;
    int32_t joined = graph_new(g, OP_CONCAT, GGML_F32, t->n + n, t->channels, s, 1);
    graph_src(g, joined, t->before);
    graph_src(g, joined, graph_transpose(g, x));
    uint64_t row = g->t[joined].nb[1], seq = g->t[joined].nb[2];
    int32_t last = graph_view(g, joined, t->n, t->channels, s, 1, row, seq, seq * s, 4 * n);
    int32_t into =
        graph_view(g, t->stored, t->n * t->channels, s, 1, 1, t->row, t->row * s, t->row * s, t->at);
    graph_expand(g, graph_cpy(g, last, into));
    return joined;
}

static int32_t convolve_with(struct build *b, int32_t joined, uint64_t channels, int32_t matrix)
{
    int32_t x = graph_new(b->g, OP_SSM_CONV, GGML_F32, channels, b->n_tokens / b->n_seqs, b->n_seqs, 1);
    graph_src(b->g, x, joined);
    graph_src(b->g, x, matrix);
    return x;
}

static int32_t convolve(struct build *b, int32_t joined, uint64_t channels, int32_t weight)
{
    return convolve_with(b, joined, channels, build_weight(b, weight));
}

static int32_t convolve_biased(struct build *b, int32_t joined, uint64_t channels, const int32_t *t)
{
    int32_t x = convolve(b, joined, channels, t[ROLE_SSM_CONV]);
    if (t[ROLE_SSM_CONV_B] >= 0)
        x = graph_binary(b->g, OP_ADD, x, build_weight(b, t[ROLE_SSM_CONV_B]));
    return graph_unary(b->g, OP_UNARY, x);
}

/* [width, tokens of a sequence, sequences] of a product with `offset` bytes before each token's part. */
static int32_t token_part(struct build *b, int32_t a, uint64_t width, uint64_t offset)
{
    uint64_t row = b->g->t[a].nb[1], seq = b->g->t[a].nb[2], s = b->n_seqs;
    return graph_view(b->g, a, width, b->n_tokens / s, s, 1, row, seq, seq * s, offset);
}

/* … split into heads: [width, heads, tokens of a sequence, sequences] */
static int32_t head_part(struct build *b, int32_t a, uint64_t width, uint64_t heads, uint64_t offset)
{
    const struct gtensor *t = &b->g->t[a];
    return graph_view(b->g, a, width, heads, b->n_tokens / b->n_seqs, b->n_seqs, 4 * width, t->nb[1],
                      t->nb[2], offset);
}

/* ---- selective scans ---- */

struct scan { /* sources in the operation's order */
    int32_t x, dt, a, in, out;
    uint64_t width, heads; /* of a head; heads */
};

/* The scan over this batch; its result holds the outputs, then the new states, which are stored. */
static int32_t run_scan(struct build *b, const struct scan *c, int32_t rows, int32_t stored)
{
    struct graph *g = b->g;
    const struct facts *f = b->f;
    uint64_t s = b->n_seqs, n = b->n_tokens / s, width = f->state_s;
    int32_t y = graph_new(g, OP_SSM_SCAN, GGML_F32, f->ssm_inner * n * s + width * s, 1, 1, 1);
    graph_src(g, y, graph_reshape(g, rows, f->ssm_state, c->width, c->heads, s));
    graph_src(g, y, c->x);
    graph_src(g, y, c->dt);
    graph_src(g, y, c->a);
    graph_src(g, y, c->in);
    graph_src(g, y, c->out);
    graph_src(g, y, b->state_main);
    graph_expand(g, y);
    keep_others(b, graph_get_rows(g, rows, b->state_extra), stored, width, s - 1);
    build_states_store(b, flat_view(b, y, width * s, 1, 4 * f->ssm_inner * n * s), stored, width * s);
    return y;
}

/* The step and the scan's two vectors may be normed on their way. */
static int32_t scan_vector(struct build *b, int32_t part, int32_t norm)
{
    return norm >= 0 || b->f->ssm_normed ? build_norm(b, part, norm, -1) : part;
}

/* The step, input and output of the state come from the convolved input itself. */
int32_t build_mamba(struct build *b, int32_t cur, uint32_t il)
{
    struct graph *g = b->g;
    const struct facts *f = b->f;
    const int32_t *t = f->layers[il].tensor;
    uint64_t s = b->n_seqs, n = b->n_tokens / s, inner = f->ssm_inner, state = f->ssm_state,
             rank = f->ssm_rank;
    struct tail tail = load_tail(b, il, inner);
    int32_t xz = build_product(b, t[ROLE_SSM_IN], graph_reshape(g, cur, f->n_embd, n, s, 1));
    int32_t joined = join_tail(b, &tail, token_part(b, xz, inner, 0));
    int32_t stored, rows = stored_states(b, il, f->state_s, &stored);
    int32_t x = convolve_biased(b, joined, inner, t);
    int32_t db = build_product(b, t[ROLE_SSM_X], x);
    uint64_t row = g->t[db].nb[1], seq = g->t[db].nb[2];
    int32_t dt = scan_vector(b, token_part(b, db, rank, 0), t[ROLE_SSM_DT_NORM]);
    if (g->t[dt].op == OP_VIEW)
        dt = graph_unary(g, OP_CONT, dt);
    dt = build_product_bias(b, t[ROLE_SSM_DT], t[ROLE_SSM_DT_B], dt);
    int32_t in = graph_view(g, db, state, 1, n, s, 4 * state, row, seq, 4 * rank);
    int32_t out = graph_view(g, db, state, 1, n, s, 4 * state, row, seq, 4 * (rank + state));
    struct scan c = {.x = graph_reshape(g, x, 1, inner, n, s),
                     .dt = dt,
                     .a = build_weight(b, t[ROLE_SSM_A]),
                     .in = scan_vector(b, in, t[ROLE_SSM_B_NORM]),
                     .out = scan_vector(b, out, t[ROLE_SSM_C_NORM]),
                     .width = 1,
                     .heads = inner};
    int32_t scanned = run_scan(b, &c, rows, stored);
    int32_t y = graph_view(g, scanned, inner, n, s, 1, 4 * inner, 4 * inner * n, 4 * inner * n * s, 0);
    y = graph_binary(g, OP_ADD, y, graph_binary(g, OP_MUL, x, build_weight(b, t[ROLE_SSM_D])));
    y = graph_binary(g, OP_GLU, graph_unary(g, OP_CONT, token_part(b, xz, inner, 4 * inner)), y);
    return graph_reshape(g, build_product(b, t[ROLE_SSM_OUT], y), f->n_embd, n * s, 1, 1);
}

/* Gate and inputs lie side by side in each head. */
int32_t build_mamba_steps(struct build *b, int32_t cur, uint32_t il)
{
    struct graph *g = b->g;
    const struct facts *f = b->f;
    const int32_t *t = f->layers[il].tensor;
    uint64_t s = b->n_seqs, n = b->n_tokens / s, inner = f->ssm_inner, heads = f->ssm_rank,
             width = inner / heads, state = f->ssm_state, steps = f->weights[t[ROLE_SSM_DT]].t->ne[0];
    struct tail tail = load_tail(b, il, inner);
    int32_t zx = build_product(b, t[ROLE_SSM_IN], graph_reshape(g, cur, f->n_embd, n, s, 1));
    int32_t both = graph_new(g, OP_CONT, GGML_F32, 2 * width, heads, n, s);
    graph_src(g, both, graph_permute(g, zx, 0, 2, 1, 3));
    uint64_t head = 8 * width, token = head * heads;
    int32_t x = graph_new(g, OP_CONT, GGML_F32, inner, n, s, 1);
    graph_src(g, x, graph_view(g, both, width, heads, n, s, head, token, token * n, 4 * width));
    int32_t joined = join_tail(b, &tail, x);
    int32_t stored, rows = stored_states(b, il, f->state_s, &stored);
    x = graph_unary(g, OP_UNARY, convolve(b, joined, inner, t[ROLE_SSM_CONV]));
    int32_t db = build_product(b, t[ROLE_SSM_X], x);
    int32_t dt = build_norm(b, token_part(b, db, steps, 8 * state), t[ROLE_SSM_DT_NORM], -1);
    dt = build_product_bias(b, t[ROLE_SSM_DT], t[ROLE_SSM_DT_B], dt);
    int32_t in = build_norm(b, token_part(b, db, state, 0), t[ROLE_SSM_B_NORM], -1);
    int32_t out = build_norm(b, token_part(b, db, state, 4 * state), t[ROLE_SSM_C_NORM], -1);
    struct scan c = {.x = head_part(b, x, width, heads, 0),
                     .dt = dt,
                     .a = graph_reshape(g, build_weight(b, t[ROLE_SSM_A]), 1, heads, 1, 1),
                     .in = head_part(b, in, state, 1, 0),
                     .out = head_part(b, out, state, 1, 0),
                     .width = width,
                     .heads = heads};
    int32_t scanned = run_scan(b, &c, rows, stored);
    int32_t z = graph_unary(g, OP_CONT, graph_view(g, both, width, heads, n, s, head, token, token * n, 0));
    int32_t y = graph_view(g, scanned, width, heads, n, s, 4 * width, 4 * inner, 4 * inner * n, 0);
    int32_t d = graph_reshape(g, build_weight(b, t[ROLE_SSM_D]), 1, heads, 1, 1);
    y = graph_binary(g, OP_ADD, y, graph_binary(g, OP_MUL, c.x, d));
    y = graph_binary(g, OP_GLU, z, y);
    y = graph_view(g, y, inner, n, s, 1, 4 * inner, 4 * inner * n, 4 * inner * n * s, 0);
    return graph_reshape(g, build_product(b, t[ROLE_SSM_OUT], y), f->n_embd, n * s, 1, 1);
}

/* One product gives the gate, the convolution's inputs and the steps; groups of heads share their vectors. */
int32_t build_mamba2(struct build *b, int32_t cur, uint32_t il)
{
    struct graph *g = b->g;
    const struct facts *f = b->f;
    const int32_t *t = f->layers[il].tensor;
    uint64_t s = b->n_seqs, n = b->n_tokens / s, inner = f->ssm_inner, heads = f->ssm_rank,
             groups = f->ssm_group, width = inner / heads, vectors = groups * f->ssm_state,
             channels = inner + 2 * vectors;
    struct tail tail = load_tail(b, il, channels);
    int32_t all = build_product(b, t[ROLE_SSM_IN], cur);
    all = graph_reshape(g, all, g->t[all].ne[0], n, s, 1);
    int32_t joined = join_tail(b, &tail, token_part(b, all, channels, 4 * inner));
    int32_t stored, rows = stored_states(b, il, f->state_s, &stored);
    int32_t x = convolve_biased(b, joined, channels, t);
    int32_t dt = graph_unary(g, OP_CONT, token_part(b, all, heads, 4 * (inner + channels)));
    struct scan c = {.x = head_part(b, x, width, heads, 0),
                     .dt = graph_binary(g, OP_ADD, dt, build_weight(b, t[ROLE_SSM_DT_B])),
                     .a = build_weight(b, t[ROLE_SSM_A]),
                     .in = head_part(b, x, f->ssm_state, groups, 4 * inner),
                     .out = head_part(b, x, f->ssm_state, groups, 4 * (inner + vectors)),
                     .width = width,
                     .heads = heads};
    int32_t scanned = run_scan(b, &c, rows, stored);
    int32_t y = graph_view(g, scanned, width, heads, n, s, 4 * width, 4 * inner, 4 * inner * n, 0);
    y = graph_binary(g, OP_ADD, y, graph_binary(g, OP_MUL, c.x, build_weight(b, t[ROLE_SSM_D])));
    y = graph_binary(g, OP_GLU, graph_unary(g, OP_CONT, head_part(b, all, width, heads, 0)), y);
    if (t[ROLE_SSM_NORM] >= 0)
        y = build_norm(b, graph_reshape(g, y, inner / groups, groups, n, s), t[ROLE_SSM_NORM], -1);
    y = graph_reshape(g, y, inner, n * s, 1, 1);
    return build_product(b, t[ROLE_SSM_OUT], y);
}

/* ---- the others ---- */

int32_t build_short_conv(struct build *b, int32_t cur, uint32_t il)
{
    struct graph *g = b->g;
    const int32_t *t = b->f->layers[il].tensor;
    uint64_t s = b->n_seqs, n = b->n_tokens / s, width = b->f->n_embd;
    struct tail tail = load_tail(b, il, width);
    int32_t all = build_product(b, t[ROLE_CONV_IN], graph_reshape(g, cur, width, n, s, 1));
    int32_t x = graph_binary(g, OP_MUL, token_part(b, all, width, 0), token_part(b, all, width, 8 * width));
    int32_t joined = join_tail(b, &tail, x);
    int32_t y = graph_binary(g, OP_MUL, token_part(b, all, width, 4 * width),
                             convolve(b, joined, width, t[ROLE_CONV]));
    return graph_reshape(g, build_product(b, t[ROLE_CONV_OUT], y), width, n * s, 1, 1);
}

struct rates { /* of a delta net's state, [1, heads, tokens of a sequence, sequences] */
    int32_t decay, learning;
};

/* From one matrix whose columns alternate by key head, or from two. */
static struct rates delta_rates(struct build *b, int32_t cur, const int32_t *t)
{
    struct graph *g = b->g;
    uint64_t s = b->n_seqs, n = b->n_tokens / s, heads = b->f->ssm_rank, keys = b->f->ssm_group;
    int32_t a, beta;
    if (t[ROLE_SSM_BA] >= 0) {
        uint64_t each = heads / keys;
        int32_t ba = graph_reshape(g, build_product(b, t[ROLE_SSM_BA], cur), 2 * each, keys, n, s);
        struct gtensor d = g->t[ba];
        int32_t part = graph_view(g, ba, each, keys, n, s, d.nb[1], d.nb[2], d.nb[3], 4 * each);
        a = graph_new(g, OP_CONT, GGML_F32, heads, n, s, 1);
        graph_src(g, a, part);
        beta = graph_view(g, ba, each, keys, n, s, d.nb[1], d.nb[2], d.nb[3], 0);
        beta = graph_reshape(g, graph_unary(g, OP_UNARY, beta), 1, heads, n, s);
    } else {
        a = graph_reshape(g, build_product(b, t[ROLE_SSM_ALPHA], cur), heads, n, s, 1);
        beta = graph_reshape(g, build_product(b, t[ROLE_SSM_BETA], cur), 1, heads, n, s);
        beta = graph_unary(g, OP_UNARY, beta);
    }
    a = graph_unary(g, OP_UNARY, graph_binary(g, OP_ADD, a, build_weight(b, t[ROLE_SSM_DT_B])));
    a = graph_binary(g, OP_MUL, a, build_weight(b, t[ROLE_SSM_A]));
    return (struct rates){graph_reshape(g, a, 1, heads, n, s), beta};
}

static int32_t unit_length(struct build *b, int32_t heads)
{
    return graph_unary(b->g, OP_SCALE, graph_unary(b->g, OP_RMS_NORM, heads));
}

/* Queries or keys of the convolved inputs, normed; once for each value head if their matrices were sorted by
 * key head. */
static int32_t delta_heads(struct build *b, int32_t x, uint64_t offset, bool repeated)
{
    struct graph *g = b->g;
    uint64_t s = b->n_seqs, n = b->n_tokens / s, width = b->f->ssm_state, keys = b->f->ssm_group,
             heads = b->f->ssm_rank;
    int32_t part = unit_length(b, head_part(b, x, width, keys, offset));
    if (!repeated || heads == keys)
        return part;
    int32_t many = graph_new(g, OP_REPEAT, GGML_F32, width, heads / keys, keys, n * s);
    graph_src(g, many, graph_reshape(g, part, width, 1, keys, n * s));
    return graph_reshape(g, many, width, heads, n, s);
}

struct net { /* q, k, v: [width, heads, tokens of a sequence, sequences] */
    int32_t q, k, v;
    struct rates rates;
    int32_t state;
};

/* The net over this batch; its result holds the outputs, which are returned as a view in heads, then the new
 * states, which are stored. */
static int32_t run_net(struct build *b, const struct net *c, int32_t stored)
{
    struct graph *g = b->g;
    const struct facts *f = b->f;
    uint64_t s = b->n_seqs, n = b->n_tokens / s, inner = f->ssm_inner, heads = f->ssm_rank,
             width = inner / heads, square = 4 * width * width;
    int32_t net = graph_new(g, OP_DELTA_NET, GGML_F32, inner, n * s + width * s, 1, 1);
    graph_src(g, net, c->q);
    graph_src(g, net, c->k);
    graph_src(g, net, c->v);
    graph_src(g, net, c->rates.decay);
    graph_src(g, net, c->rates.learning);
    graph_src(g, net, graph_reshape(g, c->state, width, width, heads, s));
    int32_t last =
        graph_view(g, net, width, width, heads, s, 4 * width, square, square * heads, 4 * inner * n * s);
    build_states_store(b, last, stored, f->state_s * s);
    return graph_view(g, net, width, heads, n, s, 4 * width, 4 * inner, 4 * inner * n, 0);
}

int32_t build_delta_net(struct build *b, int32_t cur, uint32_t il)
{
    struct graph *g = b->g;
    const struct facts *f = b->f;
    const int32_t *t = f->layers[il].tensor;
    uint64_t s = b->n_seqs, n = b->n_tokens / s, inner = f->ssm_inner, heads = f->ssm_rank,
             width = inner / heads, keys = (uint64_t)f->ssm_state * f->ssm_group, channels = inner + 2 * keys;
    struct tail tail = load_tail(b, il, channels);
    int32_t qkv = graph_reshape(g, build_product(b, t[ROLE_QKV], cur), channels, n, s, 1);
    int32_t joined = join_tail(b, &tail, qkv);
    int32_t stored, state = build_states_load(b, il, f->state_s, &stored);
    int32_t x = graph_unary(g, OP_UNARY, convolve(b, joined, channels, t[ROLE_SSM_CONV]));
    bool sorted = t[ROLE_SSM_BA] >= 0;
    struct rates r = delta_rates(b, cur, t);
    struct net net = {.q = delta_heads(b, x, 0, sorted),
                      .k = delta_heads(b, x, 4 * keys, sorted),
                      .v = head_part(b, x, width, heads, 8 * keys),
                      .rates = r,
                      .state = state};
    int32_t y = run_net(b, &net, stored);
    y = build_norm(b, y, t[ROLE_SSM_NORM], -1);
    int32_t gate = graph_reshape(g, build_product(b, t[ROLE_ATTN_GATE], cur), width, heads, n, s);
    y = graph_binary(g, OP_MUL, y, graph_unary(g, OP_UNARY, gate));
    y = build_product(b, t[ROLE_SSM_OUT], graph_reshape(g, y, inner, n, s, 1));
    return graph_reshape(g, y, f->n_embd, n * s, 1, 1);
}

/* ---- Kimi: queries, keys and values are convolved one by one, and each value is forgotten at its own rate
 * ---- */

/* Queries, keys or values (part 0, 1 or 2) in heads. */
static int32_t kimi_heads(struct build *b, struct tail tails, unsigned part, int32_t cur, const int32_t *t)
{
    static const struct {
        enum role product, conv;
    } parts[] = {{ROLE_Q, ROLE_SSM_CONV_Q}, {ROLE_K, ROLE_SSM_CONV_K}, {ROLE_V, ROLE_SSM_CONV_V}};
    struct graph *g = b->g;
    uint64_t s = b->n_seqs, n = b->n_tokens / s, inner = b->f->ssm_inner, row = 4 * tails.n;
    tails.at = part * tails.n * inner * 4;
    tails.before = graph_view(g, tails.before, tails.n, inner, s, 1, row, tails.row, tails.row * s, tails.at);
    int32_t x = graph_reshape(g, build_product(b, t[parts[part].product], cur), inner, n, s, 1);
    int32_t joined = join_tail(b, &tails, x);
    int32_t matrix = graph_reshape(g, build_weight(b, t[parts[part].conv]), b->f->ssm_conv, inner, 1, 1);
    x = graph_reshape(g, convolve_with(b, joined, inner, matrix), inner, n * s, 1, 1);
    return graph_reshape(g, graph_unary(g, OP_UNARY, x), b->f->ssm_state, b->f->ssm_rank, n, s);
}

static struct rates kimi_rates(struct build *b, int32_t cur, const int32_t *t)
{
    struct graph *g = b->g;
    uint64_t s = b->n_seqs, n = b->n_tokens / s, width = b->f->ssm_state, heads = b->f->ssm_rank;
    int32_t a = build_product(b, t[ROLE_SSM_F_B], build_product(b, t[ROLE_SSM_F_A], cur));
    a = graph_unary(g, OP_UNARY, graph_binary(g, OP_ADD, a, build_weight(b, t[ROLE_SSM_DT_B])));
    a = graph_reshape(g, a, width, heads, n * s, 1);
    a = graph_binary(g, OP_MUL, a, graph_reshape(g, build_weight(b, t[ROLE_SSM_A]), 1, heads, 1, 1));
    int32_t beta = graph_reshape(g, build_product(b, t[ROLE_SSM_BETA], cur), 1, heads, n, s);
    return (struct rates){graph_reshape(g, a, width, heads, n, s), graph_unary(g, OP_UNARY, beta)};
}

int32_t build_kimi_delta(struct build *b, int32_t cur, uint32_t il)
{
    struct graph *g = b->g;
    const struct facts *f = b->f;
    const int32_t *t = f->layers[il].tensor;
    uint64_t n = b->n_tokens, inner = f->ssm_inner, width = f->ssm_state, heads = f->ssm_rank;
    struct tail tails = {.n = f->ssm_conv - 1, .channels = inner, .row = 4 * f->state_r};
    tails.before = build_states_load(b, il, f->state_r, &tails.stored);
    int32_t q = kimi_heads(b, tails, 0, cur, t), k = kimi_heads(b, tails, 1, cur, t),
            v = kimi_heads(b, tails, 2, cur, t);
    int32_t stored, state = build_states_load(b, il, f->state_s, &stored);
    struct net net = {.q = unit_length(b, q),
                      .k = unit_length(b, k),
                      .v = v,
                      .rates = kimi_rates(b, cur, t),
                      .state = state};
    int32_t y = graph_unary(g, OP_CONT, run_net(b, &net, stored));
    /* the gate reads through views, which a device that reorders does not run before the net */
    int32_t read = graph_reshape(g, cur, f->n_embd, n / b->n_seqs, b->n_seqs, 1);
    read = graph_reshape(g, read, f->n_embd, n, 1, 1);
    int32_t gate = build_product(b, t[ROLE_SSM_G_B], build_product(b, t[ROLE_SSM_G_A], read));
    gate = graph_unary(g, OP_UNARY, graph_reshape(g, gate, width, heads, n, 1));
    y = build_norm(b, graph_reshape(g, y, width, heads, n, 1), t[ROLE_SSM_NORM], -1);
    y = graph_binary(g, OP_MUL, y, gate);
    int32_t flat = graph_new(g, OP_CONT, GGML_F32, inner, n, 1, 1);
    graph_src(g, flat, y);
    return build_product(b, t[ROLE_O], flat);
}
