/* Lightning attention: no softmax, so the keys and values of all tokens before add up to one square a head,
 * which fades with every token. A batch attends to the square, and within itself in full. Layer plan; see
 * build.h. */
#include "plan/build.h"

enum { FADING_QUERIES, FADING_KEYS, FADING_PAIRS };

/* Inputs, the same for every layer: how much a token, or a pair of them, has faded; raised to a layer's own
 * rate. */
static int32_t faded(struct build *b, unsigned what)
{
    struct graph *g = b->g;
    uint64_t s = b->n_seqs, n = b->n_tokens / s, heads = b->f->ssm_rank;
    if (b->fading[what] < 0)
        b->fading[what] = what == FADING_PAIRS ? graph_input(g, GGML_F32, n, n, heads, s)
                                               : graph_input(g, GGML_F32, 1, heads, n, s);
    return graph_unary(g, OP_UNARY, graph_unary(g, OP_SCALE, b->fading[what]));
}

static int32_t rates(struct build *b)
{
    if (b->slopes < 0)
        b->slopes = graph_input(b->g, GGML_F32, b->f->ssm_rank, 1, 1, 1);
    return graph_unary(b->g, OP_SCALE, b->slopes);
}

static int32_t by_head(struct build *b, int32_t a)
{
    return graph_permute(b->g, a, 0, 2, 1, 3);
}

/* [tokens, width, heads, sequences], contiguous */
static int32_t columns(struct build *b, int32_t a)
{
    return graph_unary(b->g, OP_CONT, graph_permute(b->g, a, 1, 2, 0, 3));
}

/* The square after this batch. */
static int32_t next_square(struct build *b, int32_t square, int32_t rate, int32_t k, int32_t v_columns)
{
    struct graph *g = b->g;
    int32_t kept = graph_unary(g, OP_UNARY, graph_unary(g, OP_SCALE, rate));
    kept = graph_binary(g, OP_MUL, square, graph_reshape(g, kept, 1, 1, b->f->ssm_rank, 1));
    int32_t k_columns = columns(b, graph_binary(g, OP_MUL, k, faded(b, FADING_KEYS)));
    return graph_binary(g, OP_ADD, kept, graph_mul_mat(g, k_columns, v_columns));
}

/* What the heads give, [width, tokens, heads, sequences]: of the square, and of the batch itself. */
static int32_t attend(struct build *b, int32_t square, int32_t q, int32_t k, int32_t *v)
{
    struct graph *g = b->g;
    int32_t before =
        graph_mul_mat(g, square, by_head(b, graph_binary(g, OP_MUL, q, faded(b, FADING_QUERIES))));
    int32_t scores = graph_mul_mat(g, by_head(b, k), by_head(b, q));
    scores = graph_binary(g, OP_MUL, scores, faded(b, FADING_PAIRS));
    *v = columns(b, *v);
    return graph_binary(g, OP_ADD, before, graph_mul_mat(g, *v, scores));
}

int32_t build_lightning(struct build *b, int32_t cur, uint32_t il)
{
    struct graph *g = b->g;
    const struct facts *f = b->f;
    const int32_t *t = f->layers[il].tensor;
    uint64_t s = b->n_seqs, n = b->n_tokens / s, width = f->ssm_state, heads = f->ssm_rank;
    int32_t tails, stored;
    build_states_load(b, il, f->state_r, &tails); /* empty: the store of states has room for tails */
    int32_t rate = rates(b);
    cur = graph_reshape(g, cur, g->t[cur].ne[0], n, 1, s);
    int32_t qkv = graph_unary(g, OP_UNARY, build_product(b, t[ROLE_QKV], cur));
    qkv = graph_reshape(g, qkv, 3 * width, heads, n, s);
    struct gtensor x = g->t[qkv];
    int32_t part[3];
    for (unsigned i = 0; i < 3; i++)
        part[i] = graph_view(g, qkv, width, heads, n, s, x.nb[1], x.nb[2], x.nb[3], i * 4 * width);
    int32_t state = build_states_load(b, il, f->state_s, &stored);
    int32_t square = graph_reshape(g, state, width, width, heads, s);
    int32_t y = attend(b, square, part[0], part[1], &part[2]);
    graph_expand(g, y);
    build_states_store(b, next_square(b, square, rate, part[1], part[2]), stored, f->state_s * s);
    y = graph_unary(g, OP_CONT, by_head(b, y));
    y = build_norm(b, graph_reshape(g, y, width * heads, n, 1, s), t[ROLE_ATTN_NORM_2], -1);
    int32_t gate = graph_unary(g, OP_UNARY, build_product(b, t[ROLE_ATTN_GATE], cur));
    y = build_product(b, t[ROLE_O], graph_binary(g, OP_MUL, gate, y));
    return graph_reshape(g, y, f->n_embd, n * s, 1, 1);
}
