/* Which tensor lives how long. Layer plan; pure; see trace.h. Every tensor is born when its node is reached
 * and dies after its last reader; an operation that may work in place takes over a dying source of the same
 * layout. Source: ggml's public behaviour (ggml-alloc.h), checked against llama-fit-params. */
#include "plan/trace.h"

#include "plan/graph.h"

#include <stdlib.h>
#include <string.h>

struct tracer {
    struct trace *t;
    struct graph *g;
    const struct graph_backend *backends;
    int32_t segment;
};

void trace_release(struct trace *t)
{
    free(t->uses);
    free(t->cells);
    free(t->events);
    free(t->reads);
    free(t->ends);
    *t = (struct trace){0};
}

static void *grown(void *p, int32_t *cap, int32_t n, size_t size)
{
    if (n <= *cap)
        return p;
    *cap = n + n / 2 + 256;
    return mem_realloc(p, (size_t)*cap, size);
}

/* A cell is born and dies once, and every tensor has one at most: room is made before. */
static void make_room(struct trace *t, const struct graph *g)
{
    t->uses = grown(t->uses, &t->cap_uses, g->n_t, sizeof *t->uses);
    t->cells = grown(t->cells, &t->cap_cells, g->n_t, sizeof *t->cells);
    t->events = grown(t->events, &t->cap_events, 2 * g->n_t, sizeof *t->events);
    t->ends = grown(t->ends, &t->cap_ends, g->n_t + 1, sizeof *t->ends);
    t->n_cells = t->n_events = t->n_reads = t->n_segments = 0;
    for (int32_t i = 0; i < g->n_t; i++)
        t->uses[i] = (struct trace_use){.cell = -1};
}

/* Keys and values that are not in half precision already; values that are part of the keys are copied once.
 */
static uint64_t with_halved_caches(const struct graph *g, const struct gtensor *t)
{
    const struct gtensor *k = &g->t[t->src[1]], *v = &g->t[t->src[2]];
    bool part = v->view_src >= 0 && v->view_src == k->view_src && v->view_offs == k->view_offs;
    uint64_t n = t->bytes;
    for (int i = 0; i < 2; i++) {
        const struct gtensor *c = i ? v : k;
        if (c->type != GGML_F16 && !(i && part))
            n = ((n + 127) & ~127ull) + 2 * c->ne[0] * c->ne[1] * c->ne[2] * c->ne[3];
    }
    return n;
}

uint64_t trace_bytes(const struct graph *g, const struct graph_backend *b, int32_t id, bool copy)
{
    const struct gtensor *t = &g->t[id];
    bool halves = t->op == OP_FLASH_ATTN && b->halves_caches && !copy;
    uint64_t n = halves ? with_halved_caches(g, t) : t->bytes, pad;
    if (b->pads_rows && t->type != GGML_F32 && t->ne[0] % 512) {
        const struct ggml_type_info *info = ggml_type_info(t->type);
        if (info && info->block > 1 && ggml_row_bytes(t->type, 512 - t->ne[0] % 512, &pad))
            n += pad;
    }
    return (n + b->alignment - 1) & ~((uint64_t)b->alignment - 1);
}

/* Views own nothing, so nothing is taken over through them. */
static bool take_over(struct tracer *r, int32_t id, struct trace_use *use)
{
    const struct gtensor *t = &r->g->t[id];
    for (int i = 0; i < GRAPH_MAX_SRC && t->src[i] >= 0; i++) {
        struct trace_use *u = &r->t->uses[t->src[i]];
        const struct gtensor *p = &r->g->t[t->src[i]];
        if (u->cell < 0 || u->children != 1 || u->views != 0 || (p->flags & GF_OUTPUT) ||
            !graph_ask(r->g, r->backends, ASKED_LAYOUT, id, t->src[i]))
            continue;
        use->cell = u->cell;
        u->cell = -1;
        return true;
    }
    return false;
}

static void place(struct tracer *r, int32_t id, int buffer)
{
    const struct gtensor *t = &r->g->t[id];
    struct trace_use *use = &r->t->uses[id];
    if (use->cell >= 0 || t->buf >= 0 || t->view_src >= 0)
        return;
    if (graph_op_inplace(t->op) && take_over(r, id, use))
        return;
    use->cell = r->t->n_cells++;
    r->t->cells[use->cell] = (struct trace_cell){.bytes = trace_bytes(r->g, &r->backends[buffer], id, false),
                                                 .born = r->segment,
                                                 .died = TRACE_NEVER,
                                                 .read = r->segment,
                                                 .first = -1,
                                                 .copy_of = -1,
                                                 .lasting = t->flags & GF_INPUT,
                                                 .tensor = id,
                                                 .buffer = buffer};
    r->t->events[r->t->n_events++] = use->cell;
}

static void release(struct tracer *r, int32_t id)
{
    struct trace_use *u = &r->t->uses[id];
    if (u->cell < 0 || (r->g->t[id].flags & GF_OUTPUT))
        return;
    r->t->cells[u->cell].died = r->segment;
    r->t->events[r->t->n_events++] = ~u->cell;
    u->cell = -1;
}

static void note_read(struct tracer *r, int32_t id)
{
    struct trace *t = r->t;
    int32_t root = r->g->t[id].view_src, cell = t->uses[root < 0 ? id : root].cell;
    if (cell < 0)
        return;
    if (t->cells[cell].first < 0)
        t->cells[cell].first = r->segment;
    if (t->cells[cell].read == r->segment)
        return;
    t->cells[cell].read = r->segment;
    t->reads = grown(t->reads, &t->cap_reads, t->n_reads + 1, sizeof *t->reads);
    t->reads[t->n_reads++] = (struct trace_read){.cell = cell, .segment = r->segment};
}

static void drop_source(struct tracer *r, int32_t id)
{
    struct trace_use *u = &r->t->uses[id];
    note_read(r, id);
    if (--u->children != 0 || u->views != 0)
        return;
    int32_t root = r->g->t[id].view_src;
    if (root < 0) {
        release(r, id);
        return;
    }
    struct trace_use *owner = &r->t->uses[root];
    owner->views--;
    if (owner->views == 0 && owner->children == 0)
        release(r, root);
}

/* The graph's inputs are born first, in the order in which they are read. */
static void count_uses(struct tracer *r)
{
    const struct graph *g = r->g;
    for (int32_t i = 0; i < g->n_order; i++) {
        const struct graph_node *n = &g->order[i];
        const struct gtensor *t = &g->t[n->tensor];
        if (t->view_src >= 0 && t->op != OP_NONE)
            r->t->uses[t->view_src].views++;
        if (t->flags & GF_INPUT)
            place(r, n->tensor, n->backend);
        for (int j = 0; j < GRAPH_MAX_SRC && t->src[j] >= 0; j++) {
            r->t->uses[t->src[j]].children++;
            if (g->t[t->src[j]].flags & GF_INPUT)
                place(r, t->src[j], n->backend);
        }
    }
}

/* The node before a copy holds its source alive until then. A copy serves all that comes after it. */
static void note_copy(struct tracer *r, int32_t source, int32_t copy)
{
    const struct gtensor *s = &r->g->t[source];
    int32_t root = s->view_src < 0 ? source : s->view_src, cell = r->t->uses[copy].cell;
    if (cell < 0)
        return;
    struct trace_cell *c = &r->t->cells[cell];
    c->copied = true;
    c->copy_of = r->t->uses[root].cell;
    c->lasting = c->lasting || (r->g->t[root].flags & (GF_INPUT | GF_SHARED));
}

static bool holds_source(const struct gtensor *t)
{
    return t->op == OP_NONE && t->view_src >= 0 && t->src[0] >= 0;
}

void trace_make(struct trace *t, struct graph *g, const struct graph_backend *backends)
{
    struct tracer r = {.t = t, .g = g, .backends = backends};
    int32_t held = -1;
    make_room(t, g);
    for (int32_t i = 0; i < g->n_first; i++)
        place(&r, g->first[i].tensor, g->first[i].backend);
    count_uses(&r);
    for (int32_t i = 0; i < g->n_order; i++) {
        int32_t id = g->order[i].tensor;
        const struct gtensor *n = &g->t[id];
        for (int j = 0; j < GRAPH_MAX_SRC && n->src[j] >= 0; j++)
            if (t->uses[n->src[j]].cell < 0)
                place(&r, n->src[j], g->order[i].backend);
        place(&r, id, g->order[i].backend);
        if (n->op == OP_NONE && n->view_src < 0 && held >= 0)
            note_copy(&r, held, id);
        held = holds_source(n) ? n->src[0] : -1;
        for (int j = 0; j < GRAPH_MAX_SRC && n->src[j] >= 0; j++)
            drop_source(&r, n->src[j]);
        if (n->flags & GF_MARK) {
            t->ends[t->n_segments++] = t->n_events;
            r.segment++;
        }
    }
    t->ends[t->n_segments++] = t->n_events;
}
