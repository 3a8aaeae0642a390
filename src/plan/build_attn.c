/* Attention over the cache. Layer plan; see build.h. */
#include "plan/build.h"

/* A model made for two lengths of context has factors for each. */
static int32_t rope_factors(const struct build *b)
{
    const int32_t *t = b->f->global;
    if (t[ROLE_ROPE_FREQS] >= 0)
        return t[ROLE_ROPE_FREQS];
    return t[b->l->n_ctx_seq > b->f->ctx_short ? ROLE_ROPE_LONG : ROLE_ROPE_SHORT];
}

int32_t build_rope(struct build *b, int32_t cur, uint32_t il)
{
    struct graph *g = b->g;
    int32_t id = graph_binary(g, OP_ROPE, cur, build_positions(b));
    g->t[id].nb[0] = 4; /* the result is contiguous even when cur is a view with gaps */
    int32_t factors = b->f->layers[il].plain_rope ? -1 : rope_factors(b);
    if (factors >= 0) {
        int dev = b->l->layer_device[il];
        const struct tensor *t = b->f->weights[factors].t;
        if (b->rope_factors[dev] < 0)
            b->rope_factors[dev] = graph_stored(
                g, t->type, t->ne, dev, GF_WEIGHT | GF_SHARED | (dev == layout_host(b->l) ? GF_HOST : 0u));
        graph_src(g, id, b->rope_factors[dev]);
    }
    return id;
}

/* Widest Hadamard matrix for keys: the largest power of two that divides the head. */
static uint32_t rotation(uint32_t width)
{
    uint32_t n = 64;
    while (width % (n * 2) == 0)
        n *= 2;
    return n;
}

static bool contiguous_rows(const struct gtensor *t)
{
    return t->nb[2] == t->nb[1] * t->ne[1];
}

static int32_t rotate(struct build *b, int32_t cur, int32_t *matrix, uint32_t n)
{
    struct graph *g = b->g;
    if (*matrix < 0)
        *matrix = graph_input(g, GGML_F32, n, n, 1, 1);
    uint64_t ne[4];
    for (int i = 0; i < 4; i++)
        ne[i] = g->t[cur].ne[i];
    uint64_t rows = ne[0] * ne[1] * ne[2] * ne[3] / n;
    int32_t flat;
    if (contiguous_rows(&g->t[cur])) {
        flat = graph_reshape(g, cur, n, rows, 1, 1);
    } else { /* part of a fused product that no rotary positions have copied */
        flat = graph_new(g, OP_CONT, GGML_F32, n, rows, 1, 1);
        graph_src(g, flat, cur);
    }
    return graph_reshape(g, graph_mul_mat(g, *matrix, flat), ne[0], ne[1], ne[2], ne[3]);
}

struct cache {             /* one layer's, as stored */
    int32_t k, v;          /* k: -1 when nothing is kept; v: -1 when the values are a part of the keys */
    uint64_t k_row, v_row; /* elements */
    uint64_t cells, streams;
    int side; /* 1 = the sliding cache, 2 = none: an encoder's result */
    bool v_transposed;
};

static struct cache cache_of(struct build *b, uint32_t il)
{
    const struct layout *l = b->l;
    const struct layer_facts *lf = &b->f->layers[b->f->layers[il].cache_layer];
    struct cache c = {
        .side = lf->sliding, .streams = l->n_streams, .v_transposed = !l->flash_attn && !b->f->latent.cached};
    c.cells = lf->sliding ? l->cells_window : l->cells;
    if (!lf->cached || (b->f->arch->flags & IDLE_CACHE))
        return (struct cache){
            .k = -1, .v = -1, .side = lf->sliding, .streams = 1, .cells = pad_to(b->n_tokens, 256)};
    c.k_row = (uint64_t)lf->n_head_kv * lf->d_k;
    c.v_row = c.v_transposed ? b->f->v_width_max : (uint64_t)lf->n_head_kv * lf->d_v;
    int dev = layout_cache_device(l, b->f->layers[il].cache_layer);
    unsigned flags = dev == layout_host(l) ? GF_HOST : 0u;
    const uint64_t k_ne[4] = {c.k_row, c.cells, c.streams, 1}, v_ne[4] = {c.v_row, c.cells, c.streams, 1};
    c.k = graph_stored(b->g, l->p->type_k, k_ne, dev, flags);
    c.v = b->f->latent.cached ? -1 : graph_stored(b->g, l->p->type_v, v_ne, dev, flags);
    return c;
}

static int32_t flat_rows(struct build *b, int32_t cur)
{
    struct gtensor t = b->g->t[cur];
    return graph_view(b->g, cur, t.ne[0] * t.ne[1], t.ne[2], 1, 1, t.nb[2], t.nb[2] * t.ne[2],
                      t.nb[2] * t.ne[2], 0);
}

static void store_k(struct build *b, const struct cache *c, int32_t k)
{
    struct graph *g = b->g;
    if (b->k_rows[c->side] < 0)
        b->k_rows[c->side] = graph_input(g, GGML_I64, b->n_tokens, 1, 1, 1);
    int32_t values = flat_rows(b, k), into = c->k;
    if (c->streams > 1)
        into = graph_reshape(g, into, c->k_row, c->cells * c->streams, 1, 1);
    graph_expand(g, graph_set_rows(g, into, values, b->k_rows[c->side]));
}

static void store_v(struct build *b, const struct cache *c, int32_t v)
{
    struct graph *g = b->g;
    uint64_t rows = c->v_transposed ? (uint64_t)b->n_tokens * b->f->v_width_max : b->n_tokens;
    if (b->v_rows[c->side] < 0)
        b->v_rows[c->side] = graph_input(g, GGML_I64, rows, 1, 1, 1);
    struct gtensor t = g->t[v];
    int32_t values, into = c->v;
    if (!c->v_transposed) {
        values = flat_rows(b, v);
        if (c->streams > 1)
            into = graph_reshape(g, into, c->v_row, c->cells * c->streams, 1, 1);
    } else {
        uint64_t width = t.ne[0] * t.ne[1];
        if (contiguous_rows(&t)) {
            values = graph_reshape(g, v, width, t.ne[2], 1, 1);
        } else {
            values = graph_new(g, OP_CONT, GGML_F32, width, t.ne[2], 1, 1);
            graph_src(g, values, v);
        }
        values = graph_reshape(g, values, 1, width * t.ne[2], 1, 1);
        into = graph_reshape(g, into, 1, c->v_row * c->cells * c->streams, 1, 1);
    }
    graph_expand(g, graph_set_rows(g, into, values, b->v_rows[c->side]));
}

static int32_t mask_of(struct build *b, const struct cache *c)
{
    if (b->mask[c->side] < 0)
        b->mask[c->side] = graph_input(b->g, b->l->flash_attn ? GGML_F16 : GGML_F32, c->cells,
                                       b->n_tokens / c->streams, 1, c->streams);
    return b->mask[c->side];
}

/* What attention may read: of sparse attention, what the indexer chose. */
static int32_t visible(struct build *b, const struct cache *c)
{
    int32_t mask = mask_of(b, c);
    return b->f->indexer.heads ? build_chosen_mask(b, mask) : mask;
}

static int32_t view_k(struct build *b, const struct cache *c, const struct layer_facts *lf)
{
    struct graph *g = b->g;
    uint64_t head = 0, row = g->t[c->k].nb[1];
    if (!ggml_row_bytes(b->l->p->type_k, lf->d_k, &head))
        g->failed = true;
    return graph_view(g, c->k, lf->d_k, lf->n_head_kv, c->cells, c->streams, head, row, row * c->cells, 0);
}

static int32_t view_v(struct build *b, const struct cache *c, const struct layer_facts *lf)
{
    struct graph *g = b->g;
    uint64_t head = 0, row = g->t[c->v].nb[1];
    if (!c->v_transposed) {
        if (!ggml_row_bytes(b->l->p->type_v, lf->d_v, &head))
            g->failed = true;
        return graph_view(g, c->v, lf->d_v, lf->n_head_kv, c->cells, c->streams, head, row, row * c->cells,
                          0);
    }
    uint64_t element = g->t[c->v].nb[0], column = element * c->cells;
    return graph_view(g, c->v, c->cells, lf->n_head_kv, lf->d_v, c->streams, column * lf->d_v, column,
                      column * c->v_row, 0);
}

/* The values of latent attention: the first part of each key. */
static int32_t part_of_keys(struct build *b, int32_t keys)
{
    struct gtensor t = b->g->t[keys];
    return graph_view(b->g, keys, b->f->latent.rank, t.ne[1], t.ne[2], t.ne[3], t.nb[1], t.nb[2], t.nb[3], 0);
}

static bool latent(const struct build *b, const struct cache *c)
{
    return c->k >= 0 && c->v < 0 && b->f->latent.cached;
}

/* This batch's own keys or values, for as many tokens as a cache would have cells. */
static int32_t padded(struct build *b, int32_t a, uint64_t cells)
{
    struct gtensor t = b->g->t[a];
    int32_t id = graph_new(b->g, OP_PAD, GGML_F32, t.ne[0], t.ne[1], cells, t.ne[3]);
    graph_src(b->g, id, a);
    return graph_permute(b->g, id, 0, 2, 1, 3);
}

/* In half precision. The copy's target is the operation's own result. */
static int32_t half(struct build *b, int32_t a)
{
    struct gtensor t = b->g->t[a];
    int32_t id = graph_new(b->g, OP_CPY, GGML_F16, t.ne[0], t.ne[1], t.ne[2], t.ne[3]);
    graph_src(b->g, id, a);
    graph_src(b->g, id, id);
    return id;
}

/* What attention gives for latent values becomes a head's values. */
static int32_t expand_values(struct build *b, int32_t cur, uint32_t il)
{
    return graph_mul_mat(b->g, build_weight(b, layer_weight(b, il, ROLE_V_LATENT)), cur);
}

/* Scores that get something for the distance of their tokens are made in full. */
static bool has_position_bias(const struct build *b, const struct cache *c)
{
    return b->f->arch->family == FAMILY_T5 && c->side == 0;
}

static int32_t scores(struct build *b, const struct cache *c, int32_t q, int32_t k, int32_t v, uint32_t il)
{
    struct graph *g = b->g;
    if (c->v < 0 || !c->v_transposed) /* the values of latent attention are part of the keys */
        v = graph_unary(g, OP_CONT, graph_transpose(g, v));
    int32_t kq = graph_mul_mat(g, k, q);
    if (b->f->arch->flags & SCORE_CAP) {
        kq = graph_unary(g, OP_SCALE, kq);
        kq = graph_unary(g, OP_UNARY, kq);
        kq = graph_unary(g, OP_SCALE, kq);
    }
    if (has_position_bias(b, c))
        kq = graph_binary(g, OP_ADD, kq, build_position_bias(b, c->cells, il));
    kq = graph_binary(g, OP_SOFT_MAX, kq, visible(b, c));
    int32_t sinks = layer_weight(b, il, ROLE_SINKS);
    if (sinks >= 0)
        graph_src(g, kq, build_weight(b, sinks));
    int32_t kqv = graph_mul_mat(g, v, kq);
    if (latent(b, c))
        kqv = expand_values(b, kqv, il);
    int32_t merged = graph_permute(g, kqv, 0, 2, 1, 3);
    struct gtensor t = g->t[merged];
    int32_t cur = graph_new(g, OP_CONT, GGML_F32, t.ne[0] * t.ne[1], t.ne[2] * t.ne[3], 1, 1);
    graph_src(g, cur, merged);
    if (b->l->pins_scores)
        g->t[cur].backend = (int8_t)layout_host(b->l);
    return cur;
}

static int32_t flash(struct build *b, const struct cache *c, int32_t q, int32_t k, int32_t v, uint32_t il)
{
    struct graph *g = b->g;
    if (g->t[k].type == GGML_F32) /* this batch's own, or a cache's */
        k = half(b, k);
    if (g->t[v].type == GGML_F32)
        v = half(b, v);
    int32_t cur =
        graph_new(g, OP_FLASH_ATTN, GGML_F32, g->t[v].ne[0], g->t[q].ne[2], g->t[q].ne[1], g->t[q].ne[3]);
    graph_src(g, cur, q);
    graph_src(g, cur, k);
    graph_src(g, cur, v);
    graph_src(g, cur, visible(b, c));
    int32_t sinks = layer_weight(b, il, ROLE_SINKS);
    if (sinks >= 0)
        graph_src(g, cur, build_weight(b, sinks));
    if (latent(b, c)) {
        cur = expand_values(b, graph_permute(g, cur, 0, 2, 1, 3), il);
        cur = graph_unary(g, OP_CONT, graph_permute(g, cur, 0, 2, 1, 3));
    }
    struct gtensor t = g->t[cur];
    return graph_reshape(g, cur, t.ne[0] * t.ne[1], t.ne[2] * t.ne[3], 1, 1);
}

static int32_t attend(struct build *b, const struct cache *c, int32_t q, int32_t k, int32_t v, uint32_t il)
{
    int32_t cur =
        b->l->flash_attn && !has_position_bias(b, c) ? flash(b, c, q, k, v, il) : scores(b, c, q, k, v, il);
    graph_expand(b->g, cur);
    return cur;
}

int32_t build_attention_heads(struct build *b, int32_t q, int32_t k, int32_t v, uint32_t il)
{
    struct graph *g = b->g;
    const struct layer_facts *lf = &b->f->layers[il];
    struct cache c = cache_of(b, il);
    bool own = lf->cache_layer == il;
    if (b->l->k_rotated[c.side])
        q = rotate(b, q, &b->k_rot[c.side], rotation(lf->d_k));
    if (b->l->k_rotated[c.side] && own)
        k = rotate(b, k, &b->k_rot[c.side], rotation(lf->d_k));
    if (b->l->v_rotated[c.side] && own)
        v = rotate(b, v, &b->v_rot[c.side], 64);
    graph_expand(g, q);
    /* caches with a window expand the keys first, the plain cache the values */
    if (own) {
        graph_expand(g, b->f->window || c.k < 0 ? k : v);
        graph_expand(g, b->f->window || c.k < 0 ? v : k);
    }
    if (own && c.k >= 0)
        store_k(b, &c, k);
    if (own && c.v >= 0)
        store_v(b, &c, v);
    struct gtensor t = g->t[q];
    uint64_t n = t.ne[2] / c.streams;
    int32_t heads = graph_view(g, q, t.ne[0], t.ne[1], n, c.streams, t.nb[1], t.nb[2], t.nb[2] * n, 0);
    heads = graph_permute(g, heads, 0, 2, 1, 3);
    int32_t keys, values;
    if (c.k >= 0) {
        int32_t stored = view_k(b, &c, lf);
        keys = graph_permute(g, stored, 0, 2, 1, 3);
        values = graph_permute(g, c.v < 0 ? part_of_keys(b, stored) : view_v(b, &c, lf), 0, 2, 1, 3);
    } else {
        keys = padded(b, k, c.cells);
        values = padded(b, v, c.cells);
    }
    int32_t cur = attend(b, &c, heads, keys, values, il);
    if (b->l->v_rotated[c.side])
        cur = rotate(b, cur, &b->v_rot[c.side], 64);
    return cur;
}

int32_t build_attention_cross(struct build *b, int32_t q, int32_t k, int32_t v, uint32_t il)
{
    struct graph *g = b->g;
    struct cache c = {.k = -1, .v = -1, .side = 2, .streams = 1, .cells = g->t[k].ne[2]};
    graph_expand(g, q);
    graph_expand(g, k);
    graph_expand(g, v);
    struct gtensor t = g->t[q];
    int32_t heads = graph_view(g, q, t.ne[0], t.ne[1], t.ne[2], 1, t.nb[1], t.nb[2], t.nb[3], 0);
    heads = graph_permute(g, heads, 0, 2, 1, 3);
    return attend(b, &c, heads, graph_permute(g, k, 0, 2, 1, 3), graph_permute(g, v, 0, 2, 1, 3), il);
}

int32_t build_attention(struct build *b, int32_t q, int32_t k, int32_t v, uint32_t il)
{
    int32_t cur = build_attention_heads(b, q, k, v, il);
    return build_product_bias(b, layer_weight(b, il, ROLE_O), layer_weight(b, il, ROLE_O_B), cur);
}
