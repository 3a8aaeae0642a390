/* Parts shared by the families' graphs. Layer plan; see build.h. */
#include "plan/build.h"
#include "plan/extras.h"

#include <string.h>

/* A weight that an earlier turn of the layers read, or -1. */
static int32_t weight_so_far(const struct build *b, int32_t weight)
{
    const struct graph *g = b->g;
    for (int32_t i = 0; b->turn && i < g->n_t; i++)
        if (g->t[i].weight == weight + 1)
            return i;
    return -1;
}

int32_t build_weight(struct build *b, int32_t weight)
{
    const struct layout *l = b->l;
    if (weight < 0) { /* the checks of the facts know what nearly every model needs, not all */
        b->g->failed = b->g->lacks_tensor = true;
        return 0;
    }
    int32_t id = weight_so_far(b, weight);
    if (id >= 0)
        return id;
    const struct tensor *t = b->f->weights[weight].t;
    struct weight_place p = layout_weight(l, (uint32_t)weight);
    unsigned flags = GF_WEIGHT | (p.device == layout_host(l) && !p.repacked ? GF_HOST : 0u);
    id = graph_stored(b->g, t->type, t->ne, p.device, flags);
    b->g->t[id].weight = weight + 1;
    return id;
}

int32_t build_product(struct build *b, int32_t weight, int32_t cur)
{
    int32_t out = graph_mul_mat(b->g, build_weight(b, weight), cur);
    int32_t scale = build_scale(b, weight);
    if (scale >= 0)
        out = graph_binary(b->g, OP_MUL, out, build_weight(b, scale));
    return b->l->n_adapters ? build_adapted(b, weight, cur, -1, out) : out;
}

int32_t build_product_bias(struct build *b, int32_t weight, int32_t bias, int32_t cur)
{
    cur = build_product(b, weight, cur);
    return bias < 0 ? cur : graph_binary(b->g, OP_ADD, cur, build_weight(b, bias));
}

/* Left to itself, the scheduler computes a layer's first norm where the layer before it lies. */
static void pin(struct build *b, int32_t norm, uint32_t il)
{
    if (b->l->pins_norms)
        b->g->t[norm].backend = b->l->layer_device[il];
}

static void pin_norm(struct build *b, int32_t norm, int32_t weight)
{
    int32_t il = weight < 0 ? -1 : b->f->weights[weight].layer;
    if (il >= 0 && (uint32_t)il < b->f->n_layer)
        pin(b, norm, b->turn + (uint32_t)il);
}

static int32_t norm(struct build *b, bool centered, int32_t cur, int32_t weight, int32_t bias)
{
    cur = graph_unary(b->g, centered ? OP_NORM : OP_RMS_NORM, cur);
    pin_norm(b, cur, weight);
    if (weight >= 0)
        cur = graph_binary(b->g, OP_MUL, cur, build_weight(b, weight));
    if (bias >= 0)
        cur = graph_binary(b->g, OP_ADD, cur, build_weight(b, bias));
    return cur;
}

int32_t build_norm(struct build *b, int32_t cur, int32_t weight, int32_t bias)
{
    return norm(b, b->f->arch->flags & LAYER_NORM, cur, weight, bias);
}

int32_t build_turn_norm(struct build *b, int32_t cur, uint32_t il)
{
    cur = build_norm(b, cur, b->f->global[ROLE_OUTPUT_NORM], -1);
    pin(b, b->g->t[cur].src[0], il);
    return cur;
}

int32_t build_head_norm(struct build *b, int32_t cur, int32_t weight, int32_t bias)
{
    return norm(b, b->f->arch->flags & (LAYER_NORM | CENTERED_QK), cur, weight, bias);
}

int32_t build_positions(struct build *b)
{
    if (b->positions < 0)
        b->positions = graph_input(b->g, GGML_I32, (uint64_t)b->n_tokens * b->f->positions, 1, 1, 1);
    return b->positions;
}

static int32_t widen(struct build *b, int32_t embd, uint64_t width)
{
    if (width == b->f->n_embd)
        return embd;
    graph_expand(b->g, embd);
    int32_t wide = graph_new(b->g, OP_PAD, GGML_F32, width, b->n_tokens, 1, 1);
    graph_src(b->g, wide, embd);
    return wide;
}

int32_t build_input_part(struct build *b, uint32_t part)
{
    int32_t from = part ? b->first_part : b->wide_input;
    uint64_t row = b->g->t[from].nb[1], n = b->n_tokens;
    return graph_view(b->g, from, b->f->n_embd, n, 1, 1, row, row * n, row * n, 4ull * b->f->n_embd * part);
}

/* Three ways in are reserved at once: token ids, embeddings given by the caller, and both mixed. Text uses
 * the first, but all keep their memory. Models with matrices of their own for
 * pictures do not mix. */
int32_t build_token_rows(struct build *b)
{
    struct graph *g = b->g;
    uint32_t n = b->n_tokens;
    uint64_t width = (uint64_t)b->f->n_embd * (1 + b->f->deepstack);
    b->token_embd = build_weight(b, b->f->global[ROLE_TOKEN_EMBD]);
    int32_t ids = graph_input(g, GGML_I32, n, 1, 1, 1);
    int32_t embd = widen(b, graph_get_rows(g, b->token_embd, ids), width);
    if (b->f->arch->flags & IDS_ONLY) {
        graph_expand(g, embd);
        graph_expand(g, graph_input(g, GGML_F32, width, n, 1, 1));
        return embd;
    }
    int32_t mixed_ids = graph_input(g, GGML_I32, n, 1, 1, 1);
    int32_t mixed = widen(b, graph_get_rows(g, b->token_embd, mixed_ids), width);
    int32_t given = graph_input(g, GGML_F32, width, n, 1, 1);
    int32_t slots = graph_input(g, GGML_I64, n, 1, 1, 1);
    int32_t written = graph_set_rows(g, graph_unary(g, OP_DUP, given), mixed, slots);
    graph_expand(g, embd);
    graph_expand(g, mixed);
    graph_expand(g, graph_input(g, GGML_F32, width, n, 1, 1));
    graph_expand(g, written);
    if (b->f->deepstack) {
        b->wide_input = embd;
        embd = b->first_part = build_input_part(b, 0);
    }
    return embd;
}

int32_t build_embeddings(struct build *b)
{
    struct graph *g = b->g;
    int32_t embd = build_token_rows(b);
    if (b->f->scales_input)
        embd = graph_unary(g, OP_SCALE, embd);
    if (b->f->arch->flags & (SCALES_BY_KEY | SCALES_ENDS)) /* not left to the first layer */
        graph_expand(g, embd);
    if (b->f->arch->flags & ROWS_SCALED)
        embd = graph_binary(g, OP_MUL, embd, graph_input(g, GGML_F32, 1, b->n_tokens, 1, 1));
    if (b->f->global[ROLE_POSITIONS] >= 0)
        embd = graph_binary(
            g, OP_ADD, embd,
            graph_get_rows(g, build_weight(b, b->f->global[ROLE_POSITIONS]), build_positions(b)));
    if (b->f->global[ROLE_EMBD_NORM] >= 0)
        embd = build_norm(b, embd, b->f->global[ROLE_EMBD_NORM], b->f->global[ROLE_EMBD_NORM_B]);
    if (b->f->arch->flags & NORMS_INPUT)
        embd = build_norm(b, embd, -1, -1);
    return embd;
}

int32_t build_position_scale(struct build *b)
{
    if (b->position_scale < 0)
        b->position_scale = graph_input(b->g, GGML_F32, 1, 1, b->n_tokens, 1);
    return b->position_scale;
}

int32_t build_out_rows(struct build *b)
{
    if (b->out_rows < 0)
        b->out_rows = graph_input(b->g, GGML_I32, b->l->n_outputs, 1, 1, 1);
    return b->out_rows;
}

static int32_t output_matrix(struct build *b)
{
    const struct layout *l = b->l;
    int32_t embd = b->f->global[ROLE_TOKEN_EMBD];
    if (!b->f->tied)
        return build_weight(b, b->f->global[ROLE_OUTPUT]);
    if (l->output_device == layout_weight(l, (uint32_t)embd).device && !l->output_repacked)
        return b->token_embd;
    const struct tensor *t = b->f->weights[embd].t;
    unsigned flags = GF_WEIGHT | (l->output_device == layout_host(l) && !l->output_repacked ? GF_HOST : 0u);
    return graph_stored(b->g, t->type, t->ne, l->output_device, flags);
}

/* Numbers of the tokens that stand for parts of pictures. */
enum { FIRST_PICTURE = 4, END_PICTURE = 8196 };

/* The least of all values, set over the logits of parts of pictures. */
static int32_t hide_pictures(struct build *b, int32_t logits)
{
    struct graph *g = b->g;
    int32_t least =
        graph_unary(g, OP_CLAMP, graph_new(g, OP_NONE, GGML_F32, END_PICTURE - FIRST_PICTURE, 1, 1, 1));
    return graph_binary(g, OP_SET, logits, least);
}

void build_head(struct build *b, int32_t cur)
{
    struct graph *g = b->g;
    if (b->f->arch->flags & KEEPS_STATE)
        g->t[cur].flags |= GF_OUTPUT;
    cur = build_norm(b, cur, b->f->global[ROLE_OUTPUT_NORM], b->f->global[ROLE_OUTPUT_NORM_B]);
    g->t[cur].flags |= GF_OUTPUT;
    if (b->f->headless || build_pooling(b)) {
        build_embedding(b, cur);
        return;
    }
    if ((b->f->arch->flags & STATES_ONLY) && b->l->p->embedding) {
        graph_expand(g, cur);
        return;
    }
    if (b->f->scales_head)
        cur = graph_unary(g, OP_SCALE, cur);
    int32_t logits = graph_mul_mat(g, output_matrix(b), cur);
    cur = b->f->tied || !b->l->n_adapters ? logits
                                          : build_adapted(b, b->f->global[ROLE_OUTPUT], cur, -1, logits);
    if (b->f->global[ROLE_OUTPUT_B] >= 0)
        cur = graph_binary(g, OP_ADD, cur, build_weight(b, b->f->global[ROLE_OUTPUT_B]));
    if (b->f->scales_logits)
        cur = graph_unary(g, OP_SCALE, cur);
    if (b->f->caps_logits) {
        cur = graph_unary(g, OP_SCALE, cur);
        cur = graph_unary(g, OP_UNARY, cur);
        cur = graph_unary(g, OP_SCALE, cur);
    }
    if (b->f->arch->flags & HIDES_PICTURES)
        cur = hide_pictures(b, cur);
    g->t[cur].flags |= GF_OUTPUT;
    graph_expand(g, cur);
}

static void forget_inputs(struct build *b)
{
    b->positions = b->out_rows = b->position_scale = -1;
    b->state_rows = b->state_main = b->state_extra = -1;
    b->distances = b->encoded = -1;
    b->slopes = b->fading[0] = b->fading[1] = b->fading[2] = -1;
    b->turn = 0;
    b->token_embd = b->wide_input = b->first_part = 0;
    for (int i = 0; i < 2; i++)
        b->k_rows[i] = b->v_rows[i] = b->k_rot[i] = b->v_rot[i] = -1;
    for (int i = 0; i < 3; i++)
        b->mask[i] = -1;
    b->index.rows = b->index.mask = b->index.turn = b->index.chosen = -1;
    memset(b->rope_factors, 0xff, sizeof b->rope_factors);
}

void build_graph(struct build *b, struct graph *g)
{
    static void (*const of_family[])(struct build *) = {
        [FAMILY_TRANSFORMER] = build_transformer,
        [FAMILY_HYBRID] = build_hybrid,
        [FAMILY_RWKV] = build_rwkv,
        [FAMILY_BERT] = build_bert,
        [FAMILY_T5] = build_t5,
        [FAMILY_GEMMA3N] = build_gemma3n,
        [FAMILY_GEMMA4] = build_gemma4,
    };
    forget_inputs(b);
    b->n_ends = 0;
    b->g = g;
    graph_reset(g);
    of_family[b->f->arch->family](b);
}
