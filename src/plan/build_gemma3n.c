/* Gemma 3n: four streams of states, of which each layer computes the first and predicts and corrects the
 * others; a low-rank branch beside attention. Layer plan; see build.h. */
#include "plan/build.h"

#define STREAMS 4

/* Stream `first` and the `n` - 1 behind it, of a [embd, tokens, streams] tensor. */
static int32_t streams(struct build *b, int32_t all, uint64_t first, uint64_t n)
{
    const struct gtensor t = b->g->t[all];
    return graph_view(b->g, all, t.ne[0], t.ne[1], n, 1, t.nb[1], t.nb[2], n > 1 ? t.nb[2] * n : t.nb[2],
                      first * t.nb[2]);
}

static int32_t join(struct build *b, int32_t first, int32_t rest)
{
    const struct gtensor t = b->g->t[first];
    int32_t id = graph_new(b->g, OP_CONCAT, GGML_F32, t.ne[0], t.ne[1], STREAMS, 1);
    graph_src(b->g, id, first);
    graph_src(b->g, id, rest);
    return id;
}

static int32_t repeat(struct build *b, int32_t a, uint64_t times)
{
    const struct gtensor t = b->g->t[a];
    int32_t id = graph_new(b->g, OP_REPEAT, GGML_F32, t.ne[0], t.ne[1], times, 1);
    graph_src(b->g, id, a);
    return id;
}

static int32_t rows_to_one(struct build *b, enum graph_op op, int32_t a)
{
    const struct gtensor t = b->g->t[a];
    int32_t id = graph_new(b->g, op, GGML_F32, 1, t.ne[1], t.ne[2], t.ne[3]);
    graph_src(b->g, id, a);
    return id;
}

static int32_t magnitude(struct build *b, int32_t a)
{
    struct graph *g = b->g;
    return graph_unary(g, OP_SQRT, rows_to_one(b, OP_SUM_ROWS, graph_unary(g, OP_SQR, a)));
}

/* The other streams are projections of one, made as long as it is. */
static int32_t other_streams(struct build *b, int32_t matrix, int32_t from, int32_t as_long_as)
{
    struct graph *g = b->g;
    int32_t added = build_product(b, matrix, from);
    int32_t scaled = graph_binary(g, OP_MUL, added, magnitude(b, as_long_as));
    return graph_binary(g, OP_DIV, scaled, magnitude(b, added));
}

static int32_t modalities(struct build *b, int32_t cur, const int32_t *t)
{
    struct graph *g = b->g;
    cur = graph_unary(g, OP_SCALE, build_norm(b, cur, t[ROLE_ALTUP_ROUTER_NORM], -1));
    return graph_unary(g, OP_UNARY, build_product(b, t[ROLE_ALTUP_ROUTER], cur));
}

static int32_t predict(struct build *b, int32_t all, const int32_t *t)
{
    struct graph *g = b->g;
    int32_t mixed = modalities(b, streams(b, all, 0, 1), t);
    int32_t coefficients =
        graph_reshape(g, build_product(b, t[ROLE_ALTUP_PREDICT], mixed), STREAMS, STREAMS, b->n_tokens, 1);
    int32_t by_token = graph_unary(g, OP_CONT, graph_permute(g, all, 1, 2, 0, 3));
    int32_t made = graph_mul_mat(g, by_token, coefficients);
    made = graph_unary(g, OP_CONT, graph_permute(g, made, 0, 2, 1, 3));
    return graph_binary(g, OP_ADD, made, all);
}

static int32_t correct(struct build *b, int32_t predictions, int32_t computed, const int32_t *t)
{
    struct graph *g = b->g;
    int32_t mixed = modalities(b, computed, t);
    int32_t innovation = graph_binary(g, OP_SUB, computed, streams(b, predictions, 0, 1));
    int32_t coefficients = graph_unary(g, OP_SCALE, build_product(b, t[ROLE_ALTUP_CORRECT], mixed));
    int32_t each = graph_new(g, OP_CONT, GGML_F32, 1, b->n_tokens, STREAMS, 1);
    graph_src(g, each, graph_transpose(g, coefficients));
    int32_t change = graph_binary(g, OP_MUL, repeat(b, innovation, STREAMS), each);
    return graph_binary(g, OP_ADD, change, predictions);
}

static int32_t low_rank(struct build *b, int32_t cur, const int32_t *t)
{
    int32_t narrow = build_product(b, t[ROLE_LAUREL_L], cur);
    int32_t wide = build_norm(b, build_product(b, t[ROLE_LAUREL_R], narrow), t[ROLE_LAUREL_NORM], -1);
    return graph_binary(b->g, OP_ADD, wide, cur);
}

/* Gates below a bound, which is so many deviations above their mean, are cut to zero. */
static int32_t cut(struct build *b, int32_t gate)
{
    struct graph *g = b->g;
    int32_t mean = rows_to_one(b, OP_MEAN, gate);
    int32_t sum = rows_to_one(b, OP_SUM_ROWS, graph_unary(g, OP_SQR, graph_binary(g, OP_SUB, gate, mean)));
    int32_t deviation = graph_unary(g, OP_SQRT, graph_unary(g, OP_SCALE, sum));
    int32_t bound = graph_binary(g, OP_ADD, mean, graph_unary(g, OP_SCALE, deviation));
    return graph_unary(g, OP_UNARY, graph_binary(g, OP_SUB, gate, bound));
}

static int32_t feed_forward(struct build *b, int32_t cur, uint32_t il)
{
    struct graph *g = b->g;
    const int32_t *t = b->f->layers[il].tensor;
    int32_t up = build_product(b, t[ROLE_UP], cur), gate = build_product(b, t[ROLE_GATE], cur);
    if (b->f->layers[il].sparse)
        gate = cut(b, gate);
    int32_t mid = graph_binary(g, OP_MUL, up, graph_unary(g, OP_UNARY, gate));
    return build_product(b, t[ROLE_DOWN], mid);
}

/* What the first stream adds to the others. */
static int32_t first_prediction(struct build *b, int32_t corrected, int32_t inputs, uint32_t il)
{
    struct graph *g = b->g;
    const int32_t *t = b->f->layers[il].tensor;
    int32_t first =
        graph_binary(g, OP_MUL, streams(b, corrected, 0, 1), build_weight(b, t[ROLE_ALTUP_CORRECT_SCALE]));
    int32_t gate = graph_unary(g, OP_UNARY, build_product(b, t[ROLE_LAYER_INPUT_GATE], first));
    int32_t mid = graph_binary(g, OP_MUL, gate, build_layer_input(b, inputs, il));
    return build_norm(b, build_product(b, t[ROLE_LAYER_INPUT_PROJ], mid), t[ROLE_LAYER_INPUT_NORM], -1);
}

static int32_t gemma3n_layer(struct build *b, int32_t all, int32_t inputs, uint32_t il)
{
    struct graph *g = b->g;
    const int32_t *t = b->f->layers[il].tensor;
    int32_t predictions = predict(b, all, t), active = streams(b, predictions, 0, 1);
    int32_t normed = build_norm(b, active, t[ROLE_ATTN_NORM], -1);
    int32_t cur = build_norm(b, build_gemma_attention(b, normed, il), t[ROLE_POST_ATTN_NORM], -1);
    cur = graph_binary(g, OP_ADD, cur, active);
    int32_t mid = graph_unary(g, OP_SCALE, graph_binary(g, OP_ADD, cur, low_rank(b, normed, t)));
    cur = feed_forward(b, build_norm(b, mid, t[ROLE_FFN_NORM], -1), il);
    cur = graph_binary(g, OP_ADD, build_norm(b, cur, t[ROLE_POST_FFN_NORM], -1), mid);
    int32_t corrected = correct(b, predictions, cur, t);
    int32_t first = streams(b, corrected, 0, 1), rest = streams(b, corrected, 1, STREAMS - 1);
    return join(b, first, graph_binary(g, OP_ADD, rest, first_prediction(b, corrected, inputs, il)));
}

static int32_t merge(struct build *b, int32_t all)
{
    struct graph *g = b->g;
    int32_t cur = streams(b, all, 0, 1), rest = streams(b, all, 1, STREAMS - 1);
    int32_t others = other_streams(b, b->f->global[ROLE_ALTUP_UNEMBD], rest, streams(b, all, 0, 1));
    for (uint64_t i = 0; i < STREAMS - 1; i++)
        cur = graph_binary(g, OP_ADD, cur, streams(b, others, i, 1));
    return graph_unary(g, OP_SCALE, cur);
}

void build_gemma3n(struct build *b)
{
    struct graph *g = b->g;
    int32_t state = build_embeddings(b);
    graph_expand(g, state);
    int32_t rows = graph_reshape(g, build_layer_rows(b), b->f->layer_embd, b->f->n_layer, b->n_tokens, 1);
    rows = graph_unary(g, OP_SCALE, rows);
    graph_expand(g, rows);
    int32_t inputs = build_layer_inputs(b, rows, state);
    int32_t from = repeat(b, state, STREAMS - 1);
    int32_t all = join(b, state, other_streams(b, b->f->global[ROLE_ALTUP_PROJ], from, state));
    for (uint32_t i = 0; i < b->n_emit; i++) {
        all = gemma3n_layer(b, all, inputs, b->emit[i]);
        build_layer_end(b, all);
    }
    build_head(b, graph_get_rows(g, merge(b, all), build_out_rows(b)));
}
