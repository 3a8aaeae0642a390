/* Latent attention: queries, keys and values come from narrow rows (DeepSeek's MLA). Either the narrow row
 * itself is cached and queries are turned to match it, or full keys and values are. Layer plan; see build.h.
 */
#include "plan/build.h"

static int32_t queries(struct build *b, int32_t cur, uint32_t il)
{
    const int32_t *t = b->f->layers[il].tensor;
    if (t[ROLE_Q_A] < 0)
        return build_product(b, t[ROLE_Q], cur);
    int32_t narrow = build_norm(b, build_product(b, t[ROLE_Q_A], cur), t[ROLE_Q_A_NORM], -1);
    if (b->f->indexer.heads)
        build_indexer(b, cur, narrow, il);
    return build_product(b, t[ROLE_Q_LATENT], narrow);
}

static int32_t turned(struct build *b, int32_t cur, uint32_t il)
{
    return b->f->layers[il].rotated ? build_rope(b, cur, il) : cur;
}

/* The rotated part of each head. */
static int32_t rotated_part(struct build *b, int32_t cur, uint64_t heads, uint64_t head_bytes,
                            uint64_t offset, uint32_t il)
{
    struct graph *g = b->g;
    uint64_t n = b->n_tokens, row = heads * head_bytes;
    int32_t part = graph_view(g, cur, b->f->latent.rope, heads, n, 1, head_bytes, row, row * n, offset);
    return turned(b, part, il);
}

static int32_t concat(struct build *b, int32_t a, int32_t c)
{
    struct gtensor x = b->g->t[a];
    int32_t id = graph_new(b->g, OP_CONCAT, GGML_F32, x.ne[0] + b->g->t[c].ne[0], x.ne[1], x.ne[2], x.ne[3]);
    graph_src(b->g, id, a);
    graph_src(b->g, id, c);
    return id;
}

/* Queries as wide as the cached row. */
static int32_t absorbed_queries(struct build *b, int32_t q, uint32_t il)
{
    struct graph *g = b->g;
    const struct latent_facts *l = &b->f->latent;
    uint64_t n = b->n_tokens, heads = b->f->layers[il].n_head, head = 4ull * (l->nope + l->rope),
             row = heads * head;
    int32_t plain = graph_view(g, q, l->nope, heads, n, 1, head, row, row * n, 0);
    int32_t matched =
        build_product(b, layer_weight(b, il, ROLE_K_LATENT), graph_permute(g, plain, 0, 2, 1, 3));
    return concat(b, graph_permute(g, matched, 0, 2, 1, 3),
                  rotated_part(b, q, heads, head, 4ull * l->nope, il));
}

/* Full keys and values out of the narrow row. */
static void full_heads(struct build *b, int32_t narrow, int32_t rotated, uint32_t il, int32_t *ret_k,
                       int32_t *ret_v)
{
    struct graph *g = b->g;
    const struct latent_facts *l = &b->f->latent;
    uint64_t n = b->n_tokens, heads = b->f->layers[il].n_head, head = 4ull * (l->nope + l->v),
             row = heads * head;
    int32_t kv = build_product(b, layer_weight(b, il, ROLE_KV_LATENT), narrow);
    int32_t v = graph_view(g, kv, l->v, heads, n, 1, head, row, row * n, 4ull * l->nope);
    *ret_v = graph_unary(g, OP_CONT, v);
    int32_t plain = graph_view(g, kv, l->nope, heads, n, 1, head, row, row * n, 0);
    int32_t each = graph_new(g, OP_REPEAT, GGML_F32, l->rope, heads, n, 1);
    graph_src(g, each, rotated);
    *ret_k = concat(b, plain, each);
}

void build_latent(struct build *b, int32_t cur, uint32_t il, int32_t *ret_q, int32_t *ret_k, int32_t *ret_v)
{
    struct graph *g = b->g;
    const struct latent_facts *l = &b->f->latent;
    const int32_t *t = b->f->layers[il].tensor;
    uint64_t n = b->n_tokens, heads = b->f->layers[il].n_head, row = 4ull * (l->rank + l->rope);
    int32_t q = queries(b, cur, il);
    if (!b->f->indexer.heads)
        q = graph_reshape(g, q, l->nope + l->rope, heads, n, 1);
    *ret_q = l->cached ? absorbed_queries(b, q, il) : turned(b, q, il);
    int32_t both = build_product(b, t[ROLE_KV_A], cur);
    int32_t narrow = graph_view(g, both, l->rank, n, 1, 1, row, row * n, row * n, 0);
    narrow = build_norm(b, narrow, t[ROLE_KV_A_NORM], -1);
    int32_t rotated = rotated_part(b, both, 1, row, 4ull * l->rank, il);
    if (l->cached) {
        *ret_v = graph_reshape(g, narrow, l->rank, 1, n, 1);
        *ret_k = concat(b, *ret_v, rotated);
    } else {
        full_heads(b, narrow, rotated, il, ret_k, ret_v);
    }
}
