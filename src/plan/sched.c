/* Where the scheduler computes every node, where it cuts the graph, and which tensors it copies between
 * backends. Layer plan; see graph.h. The passes follow ggml_backend_sched's documented order of rules: stored
 * tensors and weights pull their operations; devices spread over unassigned neighbours before the host does;
 * each change of backend starts a split; a source on another backend is copied at the start of the split that
 * first needs it. */
#include "plan/graph.h"

struct sched {
    struct graph *g;
    const struct graph_backend *backends;
    int host; /* index of the host's backend, the last */
    int n_copies;
    int n_split_inputs;
};

static bool supports(const struct sched *s, int backend, int32_t t)
{
    const struct graph_backend *b = &s->backends[backend];
    if (b->max_tensor == UINT64_MAX && !b->refuses)
        return true;
    if (graph_ask(s->g, s->backends, ASKED_KERNEL, t, backend))
        return true;
    s->g->refused = true;
    return false;
}

static bool takes_over(const struct sched *s, int backend, int32_t t)
{
    return s->backends[backend].offload_batch && graph_ask(s->g, s->backends, ASKED_ROWS, t, backend) &&
           supports(s, backend, t);
}

static int backend_from_current(const struct sched *s, int32_t id)
{
    const struct gtensor *all = s->g->t, *t = &all[id];
    if (t->buf >= 0)
        return t->buf;
    if (t->view_src >= 0 && all[t->view_src].buf >= 0)
        return all[t->view_src].buf;
    if (t->flags & GF_INPUT)
        return s->host;
    if (t->op == OP_ROPE || t->op == OP_FLASH_ATTN) /* their weights are too small to decide */
        return -1;
    for (int i = 0; i < GRAPH_MAX_SRC && t->src[i] >= 0; i++) {
        const struct gtensor *src = &all[t->src[i]];
        if (!(src->flags & GF_WEIGHT))
            continue;
        if (src->buf == s->host && (src->flags & GF_HOST))
            for (int b = 0; b < s->host; b++)
                if (takes_over(s, b, id))
                    return b;
        return src->buf == s->host || supports(s, src->buf, id) ? src->buf : -1;
    }
    return -1;
}

/* Spreads the last backend seen over unassigned nodes; devices_only: the host interrupts and is not spread.
 */
static void spread(const struct sched *s, bool down, bool devices_only)
{
    struct graph *g = s->g;
    int cur = -1;
    for (int32_t k = 0; k < g->n_nodes; k++) {
        int32_t id = g->nodes[down ? k : g->n_nodes - 1 - k];
        struct gtensor *t = &g->t[id];
        if (graph_op_view(t->op))
            continue;
        if (t->backend >= 0)
            cur = devices_only && t->backend == s->host ? -1 : t->backend;
        else if (cur >= 0 && supports(s, cur, id))
            t->backend = (int8_t)cur;
    }
}

static bool readable(const struct sched *s, const struct gtensor *t, int backend);

/* Nodes that no neighbour's backend could take go where most of their sources can be read. */
static void assign_rest(const struct sched *s)
{
    struct graph *g = s->g;
    for (int32_t i = 0; i < g->n_nodes; i++) {
        struct gtensor *t = &g->t[g->nodes[i]];
        int best = -1, backend = -1;
        for (int b = 0; b <= s->host && t->backend < 0 && !graph_op_view(t->op); b++) {
            int n = 0;
            for (int j = 0; j < GRAPH_MAX_SRC && t->src[j] >= 0; j++) {
                const struct gtensor *src = &g->t[t->src[j]];
                bool known = src->backend >= 0 || (src->view_src >= 0 && g->t[src->view_src].backend >= 0);
                n += known && readable(s, src, b);
            }
            if (n > best && supports(s, b, g->nodes[i])) {
                best = n;
                backend = b;
            }
        }
        if (best >= 0)
            t->backend = (int8_t)backend;
    }
}

static void assign(const struct sched *s)
{
    struct graph *g = s->g;
    for (int32_t i = 0; i < g->n_leafs; i++)
        g->t[g->leafs[i]].backend = (int8_t)backend_from_current(s, g->leafs[i]);
    for (int32_t i = 0; i < g->n_nodes; i++) {
        struct gtensor *t = &g->t[g->nodes[i]];
        if (t->backend < 0)
            t->backend = (int8_t)backend_from_current(s, g->nodes[i]);
    }
    spread(s, true, true);
    spread(s, false, true);
    spread(s, true, false);
    spread(s, false, false);
    assign_rest(s);
    for (int32_t i = 0; i < g->n_nodes; i++) {
        struct gtensor *t = &g->t[g->nodes[i]];
        if (t->view_src >= 0 && t->backend < 0)
            t->backend = g->t[t->view_src].backend;
        for (int j = 0; j < GRAPH_MAX_SRC && t->src[j] >= 0; j++) {
            struct gtensor *src = &g->t[t->src[j]];
            if (src->backend < 0)
                src->backend = src->view_src >= 0 ? g->t[src->view_src].backend : t->backend;
        }
        if (t->backend < 0)
            t->backend = 0;
    }
}

/* May `backend` read t where it lies? Buffers are shared by nobody but their own backend here. */
static bool readable(const struct sched *s, const struct gtensor *t, int backend)
{
    const struct gtensor *root = t->view_src >= 0 ? &s->g->t[t->view_src] : t;
    if (root->buf >= 0)
        return root->buf == backend;
    int at = t->backend >= 0 ? t->backend : root->backend;
    return at == backend;
}

static int32_t duplicate(struct graph *g, int32_t src, unsigned flags)
{
    struct gtensor t = g->t[src];
    int32_t id = graph_new(g, OP_NONE, t.type, t.ne[0], t.ne[1], t.ne[2], t.ne[3]);
    for (int i = 0; i < 4; i++)
        g->t[id].nb[i] = t.nb[i];
    g->t[id].bytes = t.bytes;
    g->t[id].flags = (uint8_t)flags;
    g->t[id].copy_of = src;
    return id;
}

static void order_add(struct graph *g, struct graph_node **list, int32_t *n, int32_t *cap, int32_t tensor,
                      int backend)
{
    if (g->failed)
        return;
    if (*n == *cap) {
        *cap = *cap ? *cap * 2 : 1024;
        *list = mem_realloc(*list, (size_t)*cap, sizeof **list);
    }
    (*list)[(*n)++] = (struct graph_node){.tensor = tensor, .backend = (int8_t)backend};
}

static int32_t copy_on(const struct graph *g, int32_t tensor, int backend)
{
    for (int32_t c = g->t[tensor].copy_head; c >= 0; c = g->t[c].copy_next)
        if (g->t[c].backend == backend)
            return c;
    return -1;
}

/* With several copies every graph input exists once a copy, so that the next batch can be filled in
 * meanwhile. */
static void multiply_input(struct sched *s, int32_t src)
{
    struct graph *g = s->g;
    int backend = g->t[src].backend;
    g->t[src].flags |= GF_INPUT | GF_OUTPUT;
    order_add(g, &g->first, &g->n_first, &g->cap_first, src, backend);
    for (int c = 1; c < s->n_copies; c++) {
        int32_t id = duplicate(g, src, GF_INPUT | GF_OUTPUT);
        g->t[id].backend = (int8_t)backend;
        order_add(g, &g->first, &g->n_first, &g->cap_first, id, backend);
    }
}

struct split_input {
    int32_t source, copy;
};

/* A copy of src on `backend` for the split that begins here; returns the copy to read. */
static int32_t copy_to(struct sched *s, int32_t src, int backend, struct split_input *ret_new)
{
    struct graph *g = s->g;
    int32_t have = copy_on(g, src, backend);
    ret_new->copy = -1;
    if (have >= 0)
        return have;
    int32_t first = -1;
    for (int c = 0; c < s->n_copies; c++) {
        int32_t id = duplicate(g, src, s->n_copies > 1 ? GF_INPUT | GF_OUTPUT : 0);
        g->t[id].backend = (int8_t)backend;
        if (c == 0)
            first = id;
    }
    g->t[first].copy_next = g->t[src].copy_head;
    g->t[src].copy_head = first;
    s->n_split_inputs++;
    *ret_new = (struct split_input){.source = src, .copy = first};
    return first;
}

static bool needs_new_split(const struct sched *s, const struct gtensor *t, int cur)
{
    if (s->n_split_inputs == 0)
        return false;
    for (int j = 0; j < GRAPH_MAX_SRC && t->src[j] >= 0; j++) {
        const struct gtensor *src = &s->g->t[t->src[j]];
        /* a fresh split lets the memory of the previous weights' copies be used again */
        if ((src->flags & GF_WEIGHT) && src->backend != cur && !readable(s, src, cur))
            return true;
    }
    return false;
}

#define MAX_SPLIT_INPUTS 512
struct cut { /* the split being collected */
    int32_t start;
    int backend;
    struct split_input inputs[MAX_SPLIT_INPUTS];
    int n_inputs;
};

/* Inputs first (the source is kept alive until it is copied), then the nodes. */
static void close_split(struct sched *s, const struct cut *cut, int32_t end)
{
    struct graph *g = s->g;
    for (int i = 0; i < cut->n_inputs; i++) {
        int32_t src = cut->inputs[i].source;
        int32_t dep = graph_new(g, OP_NONE, GGML_I8, 0, 1, 1, 1);
        g->t[dep].view_src = g->t[src].view_src >= 0 ? g->t[src].view_src : src;
        g->t[dep].src[0] = src;
        order_add(g, &g->order, &g->n_order, &g->cap_order, dep, g->t[src].backend);
        order_add(g, &g->order, &g->n_order, &g->cap_order, cut->inputs[i].copy, cut->backend);
    }
    int32_t n = end - cut->start;
    bool reorders = s->backends[cut->backend].reorders;
    if (reorders)
        n = graph_reorder(g, cut->start, end);
    const int32_t *nodes = reorders ? g->scratch : g->nodes + cut->start;
    for (int32_t i = 0; i < n; i++)
        order_add(g, &g->order, &g->n_order, &g->cap_order, nodes[i], g->t[nodes[i]].backend);
    g->n_splits++;
}

static void place_sources(struct sched *s, int32_t node, struct cut *cut)
{
    struct graph *g = s->g;
    for (int j = 0; j < GRAPH_MAX_SRC && g->t[node].src[j] >= 0; j++) {
        int32_t src = g->t[node].src[j];
        if (g->t[src].backend == cut->backend || readable(s, &g->t[src], cut->backend))
            continue;
        struct split_input added;
        int32_t copy = copy_to(s, src, cut->backend, &added);
        if (added.copy >= 0) {
            if (cut->n_inputs == MAX_SPLIT_INPUTS) {
                g->failed = true;
                return;
            }
            cut->inputs[cut->n_inputs++] = added;
        }
        g->t[node].src[j] = copy;
    }
}

/* Copies that outlive their split are allocated before everything else, after the graph's own inputs. */
static void first_copies(struct sched *s)
{
    struct graph *g = s->g;
    for (int32_t i = 0; i < g->n_order; i++) {
        const struct gtensor *t = &g->t[g->order[i].tensor];
        if (t->op == OP_NONE && t->view_src < 0)
            for (int c = 0; c < s->n_copies; c++)
                order_add(g, &g->first, &g->n_first, &g->cap_first, g->order[i].tensor + c,
                          g->order[i].backend);
    }
}

void graph_schedule(struct graph *g, const struct graph_backend *backends, int n_backends, int n_copies)
{
    struct sched s = {.g = g, .backends = backends, .host = n_backends - 1, .n_copies = n_copies};
    g->n_built = g->n_t;
    if (g->failed || !g->n_nodes)
        return;
    for (int32_t i = 0; i < g->n_t; i++)
        if (g->t[i].buf >= 0)
            g->t[i].backend = g->t[i].buf;
    assign(&s);
    for (int32_t i = 0; i < g->n_leafs && n_copies > 1; i++)
        if (g->t[g->leafs[i]].flags & GF_INPUT)
            multiply_input(&s, g->leafs[i]);
    struct cut cut;
    cut.start = 0;
    cut.n_inputs = 0;
    cut.backend = -1;
    for (int32_t i = 0; i < g->n_nodes && !g->failed; i++) {
        int32_t node = g->nodes[i];
        if (graph_op_view(g->t[node].op))
            continue;
        int backend = g->t[node].backend;
        if (cut.backend < 0) {
            cut.backend = backend;
        } else if (backend != cut.backend || needs_new_split(&s, &g->t[node], cut.backend)) {
            close_split(&s, &cut, i);
            cut.start = i;
            cut.backend = backend;
            cut.n_inputs = 0;
            s.n_split_inputs = 0;
        }
        place_sources(&s, node, &cut);
    }
    if (cut.backend >= 0)
        close_split(&s, &cut, g->n_nodes);
    if (n_copies > 1)
        first_copies(&s);
    for (int32_t i = 0; i < g->n_leafs; i++)
        order_add(g, &g->first, &g->n_first, &g->cap_first, g->leafs[i], g->t[g->leafs[i]].backend);
}
