/* Making tensors of the compute graph and ordering them. Layer plan; see graph.h. */
#include "plan/graph.h"

#include <stddef.h>
#include <string.h>

static const bool op_inplace[OP_COUNT] = {
#define GRAPH_OP(name, inplace, view) [OP_##name] = inplace,
#include "plan/ops.def"
#undef GRAPH_OP
};

bool graph_op_inplace(uint8_t op)
{
    return op_inplace[op];
}

void graph_reset(struct graph *g)
{
    if (!g->t) { /* index 0 can always be read */
        g->cap_t = 512;
        g->t = mem_calloc((size_t)g->cap_t, sizeof *g->t);
    }
    g->n_t = g->n_nodes = g->n_leafs = g->n_order = g->n_first = g->n_splits = g->n_asked = 0;
    g->failed = g->lacks_tensor = g->refused = false;
}

void graph_release(struct graph *g)
{
    free(g->t);
    free(g->nodes);
    free(g->leafs);
    free(g->order);
    free(g->first);
    free(g->scratch);
    free(g->asked);
    trace_release(&g->trace);
    walk_release(&g->walk);
    *g = (struct graph){0};
}

#define GRAPH_LIMIT (1 << 20) /* tensors: far above any real graph */

/* Whole blocks; their sizes are powers of two (types.c), and a division would take half of a tensor's time.
 */
static uint64_t blocks_of(const struct ggml_type_info *info, uint64_t elements)
{
    return elements >> __builtin_ctz(info->block);
}

/* A tensor without a shape, which the caller gives it; NULL on failure. Field by field: clearing it first, or
 * copies of arrays, take as long as all else here. */
static struct gtensor *tensor_add(struct graph *g, enum graph_op op, uint32_t type)
{
    if (g->n_t == g->cap_t) {
        int32_t cap = g->cap_t ? g->cap_t * 2 : 512;
        if (cap > GRAPH_LIMIT) {
            g->failed = true;
            return NULL;
        }
        g->t = mem_realloc(g->t, (size_t)cap, sizeof *g->t);
        g->cap_t = cap;
    }
    struct gtensor *t = &g->t[g->n_t++];
    t->view_offs = 0;
    memset(t->src, 0xff, sizeof t->src);
    t->view_src = t->copy_of = t->copy_head = t->copy_next = -1;
    t->weight = 0;
    t->op = (uint8_t)op;
    t->type = (uint8_t)type;
    t->flags = 0;
    t->buf = t->backend = -1;
    return t;
}

static void set_elements(struct gtensor *t, uint64_t ne0, uint64_t ne1, uint64_t ne2, uint64_t ne3)
{
    t->ne[0] = ne0;
    t->ne[1] = ne1;
    t->ne[2] = ne2;
    t->ne[3] = ne3;
}

/* Rows follow each other: every byte from first to last is the tensor's. */
static void set_shape(struct gtensor *t, const struct ggml_type_info *info, uint64_t ne0, uint64_t ne1,
                      uint64_t ne2, uint64_t ne3)
{
    uint64_t n = blocks_of(info, ne0) * info->block_bytes;
    set_elements(t, ne0, ne1, ne2, ne3);
    t->nb[0] = info->block_bytes;
    t->nb[1] = n;
    t->nb[2] = n *= ne1;
    t->nb[3] = n *= ne2;
    t->bytes = n * ne3;
}

/* … or as strides have it. */
static void set_span(struct gtensor *t, const struct ggml_type_info *info)
{
    bool plain = info->block == 1;
    uint64_t n = plain ? info->block_bytes + (t->ne[0] - 1) * t->nb[0] : blocks_of(info, t->ne[0] * t->nb[0]);
    for (int i = 1; i < 4; i++)
        n += (t->ne[i] - 1) * t->nb[i];
    t->bytes = t->ne[0] && t->ne[1] && t->ne[2] && t->ne[3] ? n : 0;
}

int32_t graph_new(struct graph *g, enum graph_op op, uint32_t type, uint64_t ne0, uint64_t ne1, uint64_t ne2,
                  uint64_t ne3)
{
    const struct ggml_type_info *info = ggml_type_info(type);
    struct gtensor *t = info && !g->failed ? tensor_add(g, op, type) : NULL;
    if (!t) {
        g->failed = true;
        return 0;
    }
    set_shape(t, info, ne0, ne1, ne2, ne3);
    return (int32_t)(t - g->t);
}

int32_t graph_input(struct graph *g, uint32_t type, uint64_t ne0, uint64_t ne1, uint64_t ne2, uint64_t ne3)
{
    int32_t id = graph_new(g, OP_NONE, type, ne0, ne1, ne2, ne3);
    g->t[id].flags = GF_INPUT;
    return id;
}

int32_t graph_stored(struct graph *g, uint32_t type, const uint64_t ne[4], int buf, unsigned flags)
{
    int32_t id = graph_new(g, OP_NONE, type, ne[0], ne[1], ne[2], ne[3]);
    g->t[id].buf = (int8_t)buf;
    g->t[id].flags = (uint8_t)flags;
    return id;
}

/* A builder that got no tensor where it counted on one ends the graph, and reads the first tensor instead. */
static int32_t known(struct graph *g, int32_t a)
{
    if (a >= 0 && a < g->n_t)
        return a;
    g->failed = true;
    return 0;
}

void graph_src(struct graph *g, int32_t t, int32_t src)
{
    src = known(g, src);
    for (int i = 0; i < GRAPH_MAX_SRC; i++) {
        if (g->t[t].src[i] < 0) {
            g->t[t].src[i] = src;
            return;
        }
    }
    g->failed = true;
}

int32_t graph_unary(struct graph *g, enum graph_op op, int32_t a)
{
    a = known(g, a);
    const struct gtensor *s = &g->t[a];
    int32_t id = graph_new(g, op, s->type, s->ne[0], s->ne[1], s->ne[2], s->ne[3]);
    graph_src(g, id, a);
    return id;
}

int32_t graph_binary(struct graph *g, enum graph_op op, int32_t a, int32_t b)
{
    int32_t id = graph_unary(g, op, a);
    graph_src(g, id, b);
    return id;
}

/* Without a shape; on failure the first tensor, which nobody reads any more. */
static struct gtensor *view_of(struct graph *g, enum graph_op op, int32_t a, uint64_t offset,
                               const struct ggml_type_info **ret_info)
{
    a = known(g, a);
    *ret_info = ggml_type_info(g->t[a].type);
    struct gtensor *t = *ret_info && !g->failed ? tensor_add(g, op, g->t[a].type) : NULL;
    if (!t) {
        g->failed = true;
        *ret_info = ggml_type_info(GGML_F32);
        return g->t;
    }
    const struct gtensor *s = &g->t[a];
    t->view_src = s->view_src >= 0 ? s->view_src : a;
    t->view_offs = s->view_offs + offset;
    t->src[0] = a;
    return t;
}

int32_t graph_view(struct graph *g, int32_t a, uint64_t ne0, uint64_t ne1, uint64_t ne2, uint64_t ne3,
                   uint64_t nb1, uint64_t nb2, uint64_t nb3, uint64_t offset)
{
    const struct ggml_type_info *info;
    struct gtensor *t = view_of(g, OP_VIEW, a, offset, &info);
    set_elements(t, ne0, ne1, ne2, ne3);
    t->nb[0] = info->block_bytes;
    t->nb[1] = nb1;
    t->nb[2] = nb2;
    t->nb[3] = nb3;
    set_span(t, info);
    return (int32_t)(t - g->t);
}

int32_t graph_reshape(struct graph *g, int32_t a, uint64_t ne0, uint64_t ne1, uint64_t ne2, uint64_t ne3)
{
    const struct ggml_type_info *info;
    struct gtensor *t = view_of(g, OP_RESHAPE, a, 0, &info);
    set_shape(t, info, ne0, ne1, ne2, ne3);
    return (int32_t)(t - g->t);
}

int32_t graph_permute(struct graph *g, int32_t a, int a0, int a1, int a2, int a3)
{
    const struct ggml_type_info *info;
    struct gtensor *t = view_of(g, OP_PERMUTE, a, 0, &info);
    const struct gtensor *s = &g->t[known(g, a)];
    const int axis[4] = {a0, a1, a2, a3};
    for (int i = 0; i < 4; i++) {
        t->ne[axis[i]] = s->ne[i];
        t->nb[axis[i]] = s->nb[i];
    }
    set_span(t, info);
    return (int32_t)(t - g->t);
}

int32_t graph_transpose(struct graph *g, int32_t a)
{
    int32_t id = graph_permute(g, a, 1, 0, 2, 3);
    g->t[id].op = OP_TRANSPOSE;
    return id;
}

int32_t graph_mul_mat(struct graph *g, int32_t a, int32_t b)
{
    a = known(g, a);
    b = known(g, b);
    int32_t id =
        graph_new(g, OP_MUL_MAT, GGML_F32, g->t[a].ne[1], g->t[b].ne[1], g->t[b].ne[2], g->t[b].ne[3]);
    graph_src(g, id, a);
    graph_src(g, id, b);
    return id;
}

int32_t graph_mul_mat_id(struct graph *g, int32_t a, int32_t b, int32_t ids)
{
    a = known(g, a);
    b = known(g, b);
    ids = known(g, ids);
    int32_t id = graph_new(g, OP_MUL_MAT_ID, GGML_F32, g->t[a].ne[1], g->t[ids].ne[0], g->t[b].ne[2], 1);
    graph_src(g, id, a);
    graph_src(g, id, b);
    graph_src(g, id, ids);
    return id;
}

int32_t graph_get_rows(struct graph *g, int32_t a, int32_t rows)
{
    a = known(g, a);
    rows = known(g, rows);
    uint32_t type = g->t[a].type == GGML_I32 ? GGML_I32 : GGML_F32;
    int32_t id =
        graph_new(g, OP_GET_ROWS, type, g->t[a].ne[0], g->t[rows].ne[0], g->t[rows].ne[1], g->t[rows].ne[2]);
    graph_src(g, id, a);
    graph_src(g, id, rows);
    return id;
}

/* The result is a view of `dst`, as for every operation that writes into a tensor of others. */
static int32_t writes_into(struct graph *g, enum graph_op op, int32_t dst)
{
    const struct ggml_type_info *info;
    struct gtensor *t = view_of(g, op, dst, 0, &info);
    const struct gtensor *s = &g->t[known(g, dst)];
    for (int i = 0; i < 4; i++) {
        t->ne[i] = s->ne[i];
        t->nb[i] = s->nb[i];
    }
    set_span(t, info);
    t->src[0] = -1;
    return (int32_t)(t - g->t);
}

int32_t graph_set_rows(struct graph *g, int32_t dst, int32_t values, int32_t rows)
{
    int32_t id = writes_into(g, OP_SET_ROWS, dst);
    graph_src(g, id, values);
    graph_src(g, id, rows);
    graph_src(g, id, dst);
    return id;
}

int32_t graph_cpy(struct graph *g, int32_t from, int32_t to)
{
    int32_t id = writes_into(g, OP_CPY, to);
    graph_src(g, id, from);
    graph_src(g, id, to);
    return id;
}

static void list_add(struct graph *g, int32_t **list, int32_t *n, int32_t *cap, int32_t value)
{
    if (g->failed)
        return;
    if (*n == *cap) {
        *cap = *cap ? *cap * 2 : 512;
        *list = mem_realloc(*list, (size_t)*cap, sizeof **list);
    }
    (*list)[(*n)++] = value;
}

/* The depth is bounded: a builder expands layer by layer, so a chain is a layer long. */
void graph_expand(struct graph *g, int32_t t)
{
    t = known(g, t);
    if (g->failed || (g->t[t].flags & GF_VISITED))
        return;
    g->t[t].flags |= GF_VISITED;
    for (int i = 0; i < GRAPH_MAX_SRC && g->t[t].src[i] >= 0; i++)
        graph_expand(g, g->t[t].src[i]);
    if (g->t[t].op == OP_NONE)
        list_add(g, &g->leafs, &g->n_leafs, &g->cap_leafs, t);
    else
        list_add(g, &g->nodes, &g->n_nodes, &g->cap_nodes, t);
}

/* ---- questions about sizes ---- */

bool graph_alike(const struct graph *a, const struct graph *b)
{
    enum { from = offsetof(struct gtensor, src), to = offsetof(struct gtensor, backend) + 1 };
    if (a->n_t != b->n_t || a->n_nodes != b->n_nodes || a->n_leafs != b->n_leafs ||
        memcmp(a->nodes, b->nodes, (size_t)a->n_nodes * sizeof *a->nodes) != 0 ||
        memcmp(a->leafs, b->leafs, (size_t)a->n_leafs * sizeof *a->leafs) != 0)
        return false;
    for (int32_t i = 0; i < a->n_t; i++)
        if (memcmp((const char *)&a->t[i] + from, (const char *)&b->t[i] + from, to - from) != 0)
            return false;
    return true;
}

static bool same_layout(const struct gtensor *a, const struct gtensor *b)
{
    return a->type == b->type && !memcmp(a->ne, b->ne, sizeof a->ne) && !memcmp(a->nb, b->nb, sizeof a->nb);
}

static bool has_kernel(const struct graph *g, const struct graph_backend *b, const struct gtensor *t)
{
    if (b->max_tensor != UINT64_MAX) {
        if (t->bytes > b->max_tensor)
            return false;
        for (int i = 0; i < GRAPH_MAX_SRC && t->src[i] >= 0; i++)
            if (g->t[t->src[i]].bytes > b->max_tensor)
                return false;
    }
    return !b->refuses || !b->refuses(g, t);
}

/* Rows a device would compute; products move to a device for large batches only. */
static uint64_t batch_size(const struct gtensor *t)
{
    switch (t->op) {
    case OP_GET_ROWS: return 0;
    case OP_MUL_MAT: return t->ne[1];
    case OP_MUL_MAT_ID:
    case OP_ROPE: return t->ne[2];
    default: return t->ne[1] * t->ne[2] * t->ne[3];
    }
}

bool graph_answer(const struct graph *g, const struct graph_backend *backends, enum graph_question question,
                  int32_t a, int32_t b)
{
    const struct gtensor *t = &g->t[a];
    switch (question) {
    case ASKED_LAYOUT: return same_layout(t, &g->t[b]);
    case ASKED_KERNEL: return has_kernel(g, &backends[b], t);
    case ASKED_ROWS: return batch_size(t) >= backends[b].offload_batch;
    }
    return false;
}

bool graph_ask(struct graph *g, const struct graph_backend *backends, enum graph_question question, int32_t a,
               int32_t b)
{
    bool yes = graph_answer(g, backends, question, a, b);
    if (g->n_asked == g->cap_asked) {
        g->cap_asked = g->cap_asked ? g->cap_asked * 2 : 512;
        g->asked = mem_realloc(g->asked, (size_t)g->cap_asked, sizeof *g->asked);
    }
    g->asked[g->n_asked++] = (struct graph_asked){.a = a, .b = b, .question = (uint8_t)question, .yes = yes};
    return yes;
}

enum walk_result graph_measure(struct graph *g, const struct graph_backend *backends, int n_backends,
                               const struct walk_layers *layers, uint64_t *ret_bytes)
{
    if (g->failed)
        return WALK_FAILED;
    trace_make(&g->trace, g, backends);
    return walk_run(&g->walk, &g->trace, backends, n_backends, layers, ret_bytes);
}
