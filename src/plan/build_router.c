/* How tokens choose their experts. Layer plan; see build.h. */
#include "plan/build.h"

/* The numbers of the `n` largest of each row. */
static int32_t largest(struct build *b, int32_t a, uint64_t n)
{
    struct graph *g = b->g;
    struct gtensor t = g->t[a];
    int32_t sorted = graph_new(g, OP_ARGSORT, GGML_I32, t.ne[0], t.ne[1], t.ne[2], t.ne[3]);
    graph_src(g, sorted, a);
    t = g->t[sorted];
    return graph_view(g, sorted, n, t.ne[1], t.ne[2], t.ne[3], t.nb[1], t.nb[2], t.nb[3], 0);
}

static int32_t sum_rows(struct build *b, int32_t a)
{
    struct graph *g = b->g;
    struct gtensor t = g->t[a];
    int32_t sum = graph_new(g, OP_SUM_ROWS, GGML_F32, 1, t.ne[1], t.ne[2], t.ne[3]);
    graph_src(g, sum, a);
    return sum;
}

/* Experts outside the best groups lose their chance. A group is as good as its two best experts. */
static int32_t best_groups(struct build *b, int32_t probs)
{
    struct graph *g = b->g;
    uint64_t n = g->t[probs].ne[1], experts = b->f->n_expert, groups = b->f->router.groups;
    uint64_t each = experts / groups;
    int32_t grouped = graph_reshape(g, probs, each, groups, n, 1);
    int32_t rows = graph_reshape(g, grouped, 1, each, groups, n);
    int32_t top = graph_get_rows(g, rows, largest(b, grouped, 2));
    int32_t sums = sum_rows(b, graph_reshape(g, top, 2, groups, n, 1));
    int32_t best = largest(b, graph_reshape(g, sums, groups, n, 1, 1), b->f->router.groups_used);
    int32_t kept = graph_get_rows(g, grouped, best);
    int32_t none = graph_unary(g, OP_FILL, grouped);
    return graph_reshape(g, graph_set_rows(g, none, kept, best), experts, n, 1, 1);
}

static int32_t weigh(struct build *b, int32_t weights, uint64_t used, uint64_t n)
{
    struct graph *g = b->g;
    const struct router_facts *r = &b->f->router;
    if (r->late)
        weights = graph_reshape(g, graph_unary(g, OP_SOFT_MAX, graph_reshape(g, weights, used, n, 1, 1)), 1,
                                used, n, 1);
    if (r->norm) {
        int32_t flat = graph_reshape(g, weights, used, n, 1, 1);
        int32_t clamped = graph_unary(g, OP_CLAMP, sum_rows(b, flat));
        weights = graph_reshape(g, graph_binary(g, OP_DIV, flat, clamped), 1, used, n, 1);
    }
    if (r->scaled)
        weights = graph_unary(g, OP_SCALE, weights);
    return weights;
}

int32_t build_router_logits(struct build *b, int32_t routed, uint32_t il)
{
    const int32_t *t = b->f->layers[il].tensor;
    return build_product_bias(b, t[ROLE_ROUTER], t[ROLE_ROUTER_B], routed);
}

static int32_t cast(struct build *b, int32_t a, uint32_t type)
{
    struct gtensor t = b->g->t[a];
    int32_t id = graph_new(b->g, OP_CPY, type, t.ne[0], t.ne[1], t.ne[2], t.ne[3]);
    graph_src(b->g, id, a);
    graph_src(b->g, id, id);
    return id;
}

/* Numbers of experts become those of their groups. There is no division of whole numbers. */
static int32_t group_numbers(struct build *b, int32_t chosen)
{
    return cast(b, graph_unary(b->g, OP_SCALE, cast(b, chosen, GGML_F32)), GGML_I32);
}

struct routing build_router(struct build *b, int32_t logits, uint32_t il, uint32_t experts)
{
    struct graph *g = b->g;
    const int32_t *t = b->f->layers[il].tensor;
    const struct router_facts *r = &b->f->router;
    uint64_t n = g->t[logits].ne[1], used = b->f->n_expert_used < experts ? b->f->n_expert_used : experts;
    int32_t probs = logits, choice = logits;
    if (!r->late)
        probs = graph_unary(g, r->sigmoid ? OP_UNARY : OP_SOFT_MAX, probs);
    if (!r->early)
        choice = probs;
    if (t[ROLE_EXP_PROBS_B] >= 0)
        choice = graph_binary(g, OP_ADD, probs, build_weight(b, t[ROLE_EXP_PROBS_B]));
    if (r->gates)
        choice = graph_unary(g, OP_UNARY, logits);
    if (r->groups)
        choice = best_groups(b, choice);
    int32_t chosen = largest(b, choice, used);
    if (experts != b->f->n_expert)
        chosen = group_numbers(b, chosen);
    int32_t weights = graph_get_rows(g, graph_reshape(g, probs, 1, b->f->n_expert, n, 1), chosen);
    weights = weigh(b, weights, used, n);
    graph_expand(g, weights);
    return (struct routing){.chosen = chosen, .weights = weights};
}
