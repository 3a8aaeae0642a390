/* Feed-forward blocks: gated, fused, sequential; routed and shared experts. Layer plan; see build.h. */
#include "plan/build.h"

static int32_t activate(struct build *b, int32_t up)
{
    up = graph_unary(b->g, OP_UNARY, up);
    return b->f->arch->flags & SQUARES ? graph_unary(b->g, OP_SQR, up) : up;
}

/* What a down matrix reads, from one product: gate and up side by side, or up alone. */
static int32_t gated_or_activated(struct build *b, int32_t up, int32_t down)
{
    struct graph *g = b->g;
    uint64_t width = b->f->weights[down].t->ne[0];
    if (g->t[up].ne[0] != 2 * width)
        return activate(b, up);
    int32_t mid = graph_new(g, OP_GLU, GGML_F32, width, g->t[up].ne[1], 1, 1);
    graph_src(g, mid, up);
    return mid;
}

static int32_t gated(struct build *b, int32_t cur, const int32_t *t, enum role gate, enum role up,
                     enum role down)
{
    struct graph *g = b->g;
    int32_t u = build_product(b, t[up], cur);
    int32_t mid = graph_binary(g, OP_GLU, build_product(b, t[gate], cur), u);
    return build_product(b, t[down], mid);
}

int32_t build_dense(struct build *b, int32_t cur, uint32_t il)
{
    struct graph *g = b->g;
    const int32_t *t = b->f->layers[il].tensor;
    if (t[ROLE_GATE] >= 0 && t[ROLE_GATE_B] < 0 && t[ROLE_UP_B] < 0 && t[ROLE_DOWN_B] < 0 &&
        t[ROLE_FFN_SUB_NORM] < 0)
        return gated(b, cur, t, ROLE_GATE, ROLE_UP, ROLE_DOWN);
    int32_t up = build_product_bias(b, t[ROLE_UP], t[ROLE_UP_B], cur), mid;
    if (t[ROLE_GATE] >= 0)
        mid = graph_binary(g, OP_GLU, build_product_bias(b, t[ROLE_GATE], t[ROLE_GATE_B], cur), up);
    else
        mid = gated_or_activated(b, up, t[ROLE_DOWN]);
    if (t[ROLE_FFN_SUB_NORM] >= 0)
        mid = build_norm(b, mid, t[ROLE_FFN_SUB_NORM], -1);
    return build_product_bias(b, t[ROLE_DOWN], t[ROLE_DOWN_B], mid);
}

/* One factor a chosen expert. */
static int32_t scales_of(struct build *b, int32_t weight, int32_t chosen, uint64_t n)
{
    struct graph *g = b->g;
    uint64_t experts = b->f->n_expert;
    int32_t row = graph_reshape(g, build_weight(b, weight), 1, experts, 1, 1);
    int32_t each = graph_new(g, OP_REPEAT, GGML_F32, 1, experts, n, 1);
    graph_src(g, each, row);
    return graph_get_rows(g, each, chosen);
}

static int32_t experts_product(struct build *b, int32_t weight, int32_t bias, int32_t cur, int32_t chosen)
{
    int32_t out = graph_mul_mat_id(b->g, build_weight(b, weight), cur, chosen);
    int32_t scale = build_scale(b, weight);
    if (scale >= 0)
        out = graph_binary(b->g, OP_MUL, out, scales_of(b, scale, chosen, b->g->t[cur].ne[2]));
    cur = b->l->n_adapters ? build_adapted(b, weight, cur, chosen, out) : out;
    if (bias >= 0) {
        cur = graph_binary(b->g, OP_ADD_ID, cur, build_weight(b, bias));
        graph_src(b->g, cur, chosen);
    }
    return cur;
}

/* The matrices of routed experts: indices of weights, -1 = none. */
struct expert_set {
    int32_t gate, gate_b, up, up_b, gate_up, down, down_b;
};

static struct expert_set experts_of(const int32_t *t)
{
    return (struct expert_set){.gate = t[ROLE_GATE_EXPS],
                               .gate_b = t[ROLE_GATE_EXPS_B],
                               .up = t[ROLE_UP_EXPS],
                               .up_b = t[ROLE_UP_EXPS_B],
                               .gate_up = t[ROLE_GATE_UP_EXPS],
                               .down = t[ROLE_DOWN_EXPS],
                               .down_b = t[ROLE_DOWN_EXPS_B]};
}

static struct expert_set chunks_of(const int32_t *t)
{
    return (struct expert_set){.gate = t[ROLE_GATE_CHEXPS],
                               .gate_b = -1,
                               .up = t[ROLE_UP_CHEXPS],
                               .up_b = -1,
                               .gate_up = -1,
                               .down = t[ROLE_DOWN_CHEXPS],
                               .down_b = -1};
}

/* What the down matrices read: gated, from two matrices or one, or activated. */
static int32_t experts_middle(struct build *b, int32_t rows, const struct expert_set *e, int32_t chosen)
{
    struct graph *g = b->g;
    if (e->gate_up >= 0) {
        int32_t both = experts_product(b, e->gate_up, -1, rows, chosen);
        struct gtensor x = g->t[both];
        uint64_t half = x.ne[0] / 2;
        int32_t gate = graph_view(g, both, half, x.ne[1], x.ne[2], 1, x.nb[1], x.nb[2], x.nb[3], 0);
        int32_t up = graph_view(g, both, half, x.ne[1], x.ne[2], 1, x.nb[1], x.nb[2], x.nb[3], 4 * half);
        int32_t mid = graph_new(g, OP_GLU, GGML_F32, half, x.ne[1], x.ne[2], 1);
        graph_src(g, mid, gate);
        graph_src(g, mid, up);
        return mid;
    }
    int32_t up = experts_product(b, e->up, e->up_b, rows, chosen);
    if (e->gate >= 0)
        return graph_binary(g, OP_GLU, experts_product(b, e->gate, e->gate_b, rows, chosen), up);
    return activate(b, up);
}

static int32_t run_experts(struct build *b, int32_t cur, const struct expert_set *e, struct routing r)
{
    struct graph *g = b->g;
    int32_t chosen = r.chosen, weights = r.weights;
    uint64_t n = g->t[cur].ne[1], width = g->t[cur].ne[0], used = g->t[chosen].ne[0];
    int32_t rows = graph_reshape(g, cur, width, 1, n, 1);
    if (b->f->router.early) {
        int32_t each = graph_new(g, OP_REPEAT, GGML_F32, width, used, n, 1);
        graph_src(g, each, rows);
        rows = graph_binary(g, OP_MUL, each, weights);
    }
    int32_t mid = experts_middle(b, rows, e, chosen);
    int32_t down = experts_product(b, e->down, e->down_b, mid, chosen);
    if ((b->f->arch->flags & EXACT_EXPERTS) && g->t[down].op == OP_MUL_MAT_ID)
        g->t[down].flags |=
            GF_EXACT; /* not behind a scale or an adapter: the runtime asks its last operation */
    int32_t weighted = b->f->router.early ? down : graph_binary(g, OP_MUL, down, weights);
    graph_expand(g, weighted);
    uint64_t row = g->t[weighted].nb[1], token = g->t[weighted].nb[2];
    int32_t first = -1;
    for (uint64_t i = 0; i < used; i++) {
        int32_t part = graph_view(g, weighted, width, n, 1, 1, token, token * n, token * n, i * row);
        graph_expand(g, part);
        first = first < 0 ? part : first;
    }
    int32_t sum = first; /* the parts were made one after the other */
    for (int32_t i = 1; i < (int32_t)used; i++)
        sum = graph_binary(g, OP_ADD, sum, first + i);
    if (used == 1)
        sum = graph_unary(g, OP_CONT, first);
    graph_expand(g, sum); /* before a next layer's states are read */
    return sum;
}

int32_t build_experts(struct build *b, int32_t cur, int32_t logits, uint32_t il)
{
    const int32_t *t = b->f->layers[il].tensor;
    struct expert_set own = experts_of(t);
    int32_t out = run_experts(b, cur, &own, build_router(b, logits, il, b->f->n_expert));
    if (!b->f->n_chunk)
        return out;
    /* what the small experts read is what the large ones gave */
    struct expert_set chunks = chunks_of(t);
    int32_t more = run_experts(b, out, &chunks, build_router(b, logits, il, b->f->n_chunk));
    return graph_binary(b->g, OP_ADD, out, graph_unary(b->g, OP_SCALE, more));
}

/* An expert that every token passes, behind a gate of its own. */
static int32_t shared_expert(struct build *b, int32_t cur, const int32_t *t)
{
    struct graph *g = b->g;
    int32_t out;
    if (t[ROLE_GATE_SHEXP] >= 0) {
        out = gated(b, cur, t, ROLE_GATE_SHEXP, ROLE_UP_SHEXP, ROLE_DOWN_SHEXP);
    } else {
        int32_t up = build_product(b, t[ROLE_UP_SHEXP], cur);
        out = build_product(b, t[ROLE_DOWN_SHEXP], gated_or_activated(b, up, t[ROLE_DOWN_SHEXP]));
    }
    if (t[ROLE_ROUTER_SHEXP] < 0)
        return out;
    int32_t gate = build_product(b, t[ROLE_ROUTER_SHEXP], cur);
    int32_t open = graph_unary(g, OP_UNARY, gate);
    if (!(b->f->arch->flags & GATE_OPENS))
        open = graph_binary(g, OP_DIV, open, gate);
    return graph_binary(g, OP_MUL, out, open);
}

int32_t build_ffn_routed(struct build *b, int32_t cur, int32_t logits, uint32_t il)
{
    struct graph *g = b->g;
    const int32_t *t = b->f->layers[il].tensor;
    if (t[ROLE_ROUTER] < 0 || t[ROLE_EXPS_NORM] >= 0) /* experts that have a norm stand apart */
        return build_dense(b, cur, il);
    int32_t out = build_experts(b, cur, logits < 0 ? build_router_logits(b, cur, il) : logits, il);
    if (t[ROLE_UP_SHEXP] >= 0 && t[ROLE_DOWN_SHEXP] >= 0) {
        out = graph_binary(g, OP_ADD, out, shared_expert(b, cur, t));
        if (b->f->arch->flags & HALVES_SHARED)
            out = graph_unary(g, OP_SCALE, out);
    } else if (t[ROLE_UP] >= 0 && t[ROLE_DOWN] >= 0) { /* a dense block beside the experts */
        out = graph_unary(g, OP_SCALE, graph_binary(g, OP_ADD, build_dense(b, cur, il), out));
    }
    return out;
}

int32_t build_ffn(struct build *b, int32_t cur, uint32_t il)
{
    return build_ffn_routed(b, cur, -1, il);
}
