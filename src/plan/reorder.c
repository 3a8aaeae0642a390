/* The order in which a Vulkan device runs the nodes of a split. Layer plan; see graph.h.
 *
 * The device gathers, from the next 20 nodes, those that need no other of them, so that they can overlap; it
 * keeps together what its fused kernels expect (a norm, its weight and what is added, a product and its
 * addition, rotary positions or a bare norm and the write into the cache, the choice of experts). Views
 * follow at the end of a set. What lives how long follows from this order. Source: the rules of ggml's Vulkan
 * backend, checked against llama-fit-params. */
#include "plan/graph.h"

#include <string.h>

#define WINDOW  20
#define NEAR    15
#define MAX_SET 128

struct reorder {
    struct graph *g;
    const int32_t *node; /* nodes of the split */
    int32_t n;
    bool *used;
    const uint32_t *needs; /* of each node: bit k = it needs the one k + 1 places before it */
    int32_t *out;
    int32_t n_out;
    int32_t set[MAX_SET];
    int32_t n_set;
    int32_t first; /* first node not placed yet */
};

static const struct gtensor *at(const struct reorder *r, int32_t i)
{
    return &r->g->t[r->node[i]];
}

static uint8_t op_of(const struct reorder *r, int32_t i)
{
    return at(r, i)->op;
}

static bool is_empty(uint8_t op)
{
    return op == OP_NONE || graph_op_view(op);
}

static int32_t root_of(const struct graph *g, int32_t t)
{
    return g->t[t].view_src >= 0 ? g->t[t].view_src : t;
}

static bool any_root(const struct graph *g, const struct gtensor *t, int32_t root)
{
    for (int s = 0; s < GRAPH_MAX_SRC && t->src[s] >= 0; s++)
        if (root_of(g, t->src[s]) == root)
            return true;
    return false;
}

/* By a source, or by memory: both are views of one tensor, a node before writes into a tensor that i reads,
 * or i into one that it reads. */
static uint32_t needs_of(const struct reorder *r, int32_t i)
{
    const struct graph *g = r->g;
    const struct gtensor *t = at(r, i);
    int32_t own = root_of(g, r->node[i]), into = is_empty(t->op) ? -1 : t->view_src;
    uint32_t needs = 0;
    for (int32_t k = 0; k < WINDOW && k < i; k++) {
        int32_t id = r->node[i - 1 - k], root = root_of(g, id);
        const struct gtensor *o = &g->t[id];
        bool yes =
            root == own || (into >= 0 && any_root(g, o, into)) || (!is_empty(o->op) && any_root(g, t, root));
        for (int s = 0; s < GRAPH_MAX_SRC && t->src[s] >= 0 && !yes; s++)
            yes = t->src[s] == id;
        needs |= (uint32_t)yes << k;
    }
    return needs;
}

/* Within the window. */
static bool depends(const struct reorder *r, int32_t i, int32_t on)
{
    return r->needs[i] >> (i - 1 - on) & 1;
}

static const uint8_t patterns[][11] = {
    {OP_SOFT_MAX, OP_RESHAPE, OP_ARGSORT, OP_VIEW, OP_GET_ROWS, OP_RESHAPE, OP_SUM_ROWS, OP_CLAMP, OP_DIV,
     OP_RESHAPE},
    {OP_UNARY, OP_RESHAPE, OP_ADD, OP_ARGSORT, OP_VIEW, OP_GET_ROWS, OP_RESHAPE, OP_SUM_ROWS, OP_CLAMP,
     OP_DIV, OP_RESHAPE},
    {OP_SOFT_MAX, OP_RESHAPE, OP_ARGSORT, OP_VIEW, OP_GET_ROWS},
    {OP_ARGSORT, OP_VIEW, OP_GET_ROWS, OP_RESHAPE, OP_SOFT_MAX, OP_RESHAPE},
    {OP_RMS_NORM, OP_MUL, OP_ADD, OP_MUL},
    {OP_RMS_NORM, OP_MUL, OP_ADD},
    {OP_RMS_NORM, OP_MUL, OP_ROPE, OP_VIEW, OP_SET_ROWS},
    {OP_RMS_NORM, OP_VIEW, OP_SET_ROWS},
    {OP_ROPE, OP_VIEW, OP_SET_ROWS},
};

/* Length of the first pattern that begins at i with unplaced nodes; 0 if none does. */
static int32_t pattern_at(const struct reorder *r, int32_t i)
{
    uint8_t op = op_of(r, i);
    if (op != OP_SOFT_MAX && op != OP_UNARY && op != OP_ARGSORT && op != OP_ROPE && op != OP_RMS_NORM)
        return 0;
    for (size_t p = 0; p < TABLE_COUNT(patterns); p++) {
        int32_t k = 0, len = 0;
        if (patterns[p][0] != op)
            continue;
        while (len < (int32_t)sizeof patterns[p] && patterns[p][len] != OP_NONE)
            len++;
        while (k < len && i + k < r->n && op_of(r, i + k) == patterns[p][k] && !r->used[i + k])
            k++;
        if (k == len)
            return len;
    }
    return 0;
}

static void set_add(struct reorder *r, int32_t i)
{
    if (r->n_set == MAX_SET)
        r->g->failed = true;
    else
        r->set[r->n_set++] = i;
}

static void skip_used(struct reorder *r)
{
    while (r->first < r->n && r->used[r->first])
        r->first++;
}

/* j directly after the set's last node c may join it when one kernel does both. */
static bool fuses(const struct reorder *r, int32_t c, int32_t j)
{
    static const uint8_t pairs[][2] = {
        {OP_RMS_NORM, OP_MUL}, {OP_MUL_MAT, OP_ADD},  {OP_MUL_MAT_ID, OP_ADD_ID}, {OP_MUL_MAT_ID, OP_MUL},
        {OP_ADD, OP_ADD},      {OP_SSM_CONV, OP_ADD}, {OP_SSM_CONV, OP_UNARY},    {OP_UNARY, OP_MUL}};
    if (j != c + 1 || c != r->set[r->n_set - 1])
        return false;
    for (size_t i = 0; i < TABLE_COUNT(pairs); i++)
        if (op_of(r, c) == pairs[i][0] && op_of(r, j) == pairs[i][1])
            return true;
    return false;
}

static bool ready(const struct reorder *r, int32_t j)
{
    for (int32_t c = r->first; c < j; c++)
        if (!r->used[c] && depends(r, j, c) && !fuses(r, c, j))
            return false;
    return true;
}

static int32_t last_before(const struct reorder *r, int32_t j, int32_t reach)
{
    return j + reach < r->n ? j + reach : r->n;
}

/* Node k of `op` whose first source is j, and whose second needs nothing new; -1 if there is none near. */
static int32_t consumer(const struct reorder *r, int32_t j, uint8_t op, bool check_second)
{
    for (int32_t k = j + 1; k < last_before(r, j, NEAR); k++) {
        const struct gtensor *t = at(r, k);
        if (t->op != op || t->src[0] != r->node[j])
            continue;
        if (!check_second || t->src[1] < 0)
            return k;
        int32_t second = t->src[1];
        bool placed = r->g->t[second].op == OP_NONE;
        for (int32_t i = 0; i < r->n_out && !placed; i++)
            placed = r->out[i] == second;
        if (placed)
            return k;
    }
    return -1;
}

static void pull(struct reorder *r, int32_t k)
{
    if (k < 0)
        return;
    set_add(r, k);
    r->used[k] = true;
}

static int32_t rope_after_norm(struct reorder *r, int32_t j)
{
    for (int32_t k = j + 1; k < last_before(r, j, NEAR); k++) {
        const struct gtensor *t = at(r, k);
        if (t->op == OP_ROPE && t->src[0] == r->node[j] && r->g->t[t->src[1]].op == OP_NONE &&
            (t->src[2] < 0 || r->g->t[t->src[2]].op == OP_NONE)) {
            pull(r, k);
            return k;
        }
    }
    return j;
}

static void cache_write_after(struct reorder *r, int32_t i)
{
    int32_t view = -1;
    for (int32_t k = i + 1; k < last_before(r, i, 10); k++) {
        if (view < 0 && op_of(r, k) == OP_VIEW && at(r, k)->src[0] == r->node[i]) {
            view = k;
        } else if (view >= 0 && op_of(r, k) == OP_SET_ROWS && at(r, k)->src[0] == r->node[view]) {
            pull(r, view);
            pull(r, k);
            return;
        }
    }
}

/* The product of an activation with something that is there already; -1 if there is none near. */
static int32_t product_of(const struct reorder *r, int32_t j)
{
    for (int32_t k = j + 1; k < last_before(r, j, NEAR); k++) {
        const struct gtensor *t = at(r, k);
        if (t->op != OP_MUL || (t->src[0] != r->node[j] && t->src[1] != r->node[j]))
            continue;
        int32_t other = t->src[0] == r->node[j] ? t->src[1] : t->src[0];
        bool placed = r->g->t[other].op == OP_NONE;
        for (int32_t i = 0; i < r->n_out && !placed; i++)
            placed = r->out[i] == other;
        return placed && !r->used[k] ? k : -1;
    }
    return -1;
}

static void take(struct reorder *r, int32_t j)
{
    uint8_t op = op_of(r, j), before = j > 0 ? op_of(r, j - 1) : (uint8_t)OP_NONE;
    int32_t writer = j;
    set_add(r, j);
    if (op == OP_MUL && before == OP_RMS_NORM)
        writer = rope_after_norm(r, j);
    if (op_of(r, writer) == OP_ROPE || op_of(r, writer) == OP_RMS_NORM)
        cache_write_after(r, writer);
    if (op == OP_ADD_ID && before == OP_MUL_MAT_ID)
        pull(r, consumer(r, j, OP_MUL, true));
    if (op == OP_ADD && before == OP_MUL_MAT)
        pull(r, consumer(r, j, OP_ADD, true));
    if (op == OP_ADD && before == OP_SSM_CONV)
        pull(r, consumer(r, j, OP_UNARY, false));
    if (op == OP_UNARY)
        pull(r, product_of(r, j));
}

static bool in_set(const struct reorder *r, int32_t c)
{
    for (int32_t i = 0; i < r->n_set; i++)
        if (r->set[i] == c)
            return true;
    return false;
}

static void take_views(struct reorder *r)
{
    if (op_of(r, r->set[r->n_set - 1]) == OP_ADD)
        return; /* an addition waits for its norm or its second addition */
    for (int32_t j = r->first + 1; j < last_before(r, r->first, WINDOW); j++) {
        if (r->used[j] || !is_empty(op_of(r, j)))
            continue;
        bool ok = true;
        for (int32_t c = r->first; c < j && ok; c++)
            ok = r->used[c] || !depends(r, j, c) || in_set(r, c);
        if (ok)
            set_add(r, j);
    }
}

static void emit(struct reorder *r, int32_t i)
{
    r->out[r->n_out++] = r->node[i];
    r->used[i] = true;
}

static void next_set(struct reorder *r)
{
    r->n_set = 0;
    set_add(r, r->first);
    for (int32_t j = r->first + 1; j < last_before(r, r->first, WINDOW); j++)
        if (!r->used[j] && !is_empty(op_of(r, j)) && !pattern_at(r, j) && ready(r, j))
            take(r, j);
    take_views(r);
    for (int32_t i = 0; i < r->n_set; i++)
        emit(r, r->set[i]);
}

/* The kernel that chooses experts reads the scores while it writes the weights: they must not share memory,
 * so the scores are kept alive by a reader after the last of its nodes. */
static void keep_scores(struct reorder *r, int32_t i)
{
    struct graph *g = r->g;
    int32_t scores = at(r, i)->src[0];
    if (op_of(r, i) == OP_ROPE || op_of(r, i) == OP_RMS_NORM || scores < 0)
        return;
    int32_t reader = graph_new(g, OP_NONE, GGML_I8, 0, 1, 1, 1);
    g->t[reader].view_src = g->t[scores].view_src >= 0 ? g->t[scores].view_src : scores;
    g->t[reader].src[0] = scores;
    g->t[reader].backend = g->t[r->node[i]].backend;
    r->out[r->n_out++] = reader;
}

int32_t graph_reorder(struct graph *g, int32_t from, int32_t to)
{
    int32_t n = to - from;
    if (g->failed)
        return 0;
    if (g->cap_scratch < n * 4) { /* nodes and readers, what nodes need, flags */
        g->scratch = mem_realloc(g->scratch, (size_t)n * 4, sizeof *g->scratch);
        g->cap_scratch = n * 4;
    }
    uint32_t *needs = (uint32_t *)g->scratch + 2 * (size_t)n;
    struct reorder r = {.g = g,
                        .node = g->nodes + from,
                        .n = n,
                        .out = g->scratch,
                        .needs = needs,
                        .used = (bool *)(g->scratch + 3 * (size_t)n)};
    memset(r.used, 0, (size_t)n * sizeof *r.used);
    for (int32_t i = 0; i < n; i++)
        needs[i] = needs_of(&r, i);
    while (r.first < n && !g->failed) {
        int32_t len = pattern_at(&r, r.first);
        for (int32_t k = 0; k < len; k++)
            emit(&r, r.first + k);
        if (len)
            keep_scores(&r, r.first);
        else
            next_set(&r);
        skip_used(&r);
    }
    return g->failed ? 0 : r.n_out;
}
