/* What is kept of a graph for the next question alike. Layer plan; pure; see record.h. */
#include "plan/record.h"

#include <stdlib.h>
#include <string.h>

static void record_release(struct record *r)
{
    free(r->words);
    graph_release(&r->sizes);
    trace_release(&r->trace);
    free(r->size_of);
    free(r->asked);
    *r = (struct record){0};
}

void records_release(struct records *rs)
{
    for (size_t i = 0; i < RECORDS; i++)
        record_release(&rs->kept[i]);
    free(rs->words);
    free(rs->map);
    free(rs->seen);
    *rs = (struct records){0};
}

/* ---- which structure ---- */

/* Whatever the tensors that are made anew do not show: they are compared, the other layers are not. */
static void list_words(struct records *rs, const struct build *b, enum build_choice choice)
{
    const struct layout *l = b->l;
    const struct plan_params *p = l->p;
    const uint64_t whole[] = {(uint64_t)choice << 32 | (uint64_t)b->expects_refusals << 16 | b->trusts,
                              (uint64_t)p->kv_offload << 40 | (uint64_t)l->flash_attn << 32 |
                                  (uint64_t)l->pins_norms << 24 | (uint64_t)l->pins_scores << 16 |
                                  (uint64_t)l->pipelined << 8 | p->repack,
                              (uint64_t)p->host_isa << 32 | (uint64_t)p->type_k << 16 | p->type_v,
                              (uint64_t)l->n_seqs << 32 | l->n_streams,
                              (uint64_t)(uint8_t)l->output_device << 8 | l->output_repacked,
                              (uint64_t)l->n_devices << 32 | b->n_emit};
    rs->n_words = TABLE_COUNT(whole) + (size_t)l->n_devices + b->n_emit;
    if (rs->cap_words < rs->n_words) {
        rs->cap_words = rs->n_words + 64;
        rs->words = mem_realloc(rs->words, rs->cap_words, sizeof *rs->words);
    }
    memcpy(rs->words, whole, sizeof whole);
    uint64_t *out = rs->words + TABLE_COUNT(whole);
    for (int d = 0; d < l->n_devices; d++)
        *out++ = l->devices[d].backend;
    memcpy(out, b->sign, b->n_emit * sizeof *out);
}

static struct record *with_words(struct records *rs)
{
    for (size_t i = 0; i < RECORDS; i++) {
        struct record *r = &rs->kept[i];
        if (r->n_places && r->n_words == rs->n_words &&
            !memcmp(r->words, rs->words, rs->n_words * sizeof *r->words))
            return r;
    }
    return NULL;
}

struct record *records_find(struct records *rs, const struct build *b, enum build_choice choice)
{
    list_words(rs, b, choice);
    struct record *r = with_words(rs);
    if (r)
        r->used = ++rs->turn;
    return r;
}

bool records_met(struct records *rs, const struct build *b, enum build_choice choice)
{
    uint64_t h = 0;
    list_words(rs, b, choice);
    for (size_t i = 0; i < rs->n_words; i++)
        h = facts_mix(h, rs->words[i]);
    for (uint32_t i = 0; i < RECORDS_MET && i < rs->n_met; i++)
        if (rs->met[i] == h)
            return true;
    rs->met[rs->n_met++ % RECORDS_MET] = h;
    return false;
}

static struct record *oldest(struct records *rs)
{
    struct record *old = &rs->kept[0];
    for (size_t i = 1; i < RECORDS; i++)
        if (rs->kept[i].used < old->used)
            old = &rs->kept[i];
    return old;
}

/* ---- layers that are like others ---- */

struct layers { /* a graph and how it was built */
    const struct graph *g;
    const struct build *b;
    int32_t n_built;
    bool types; /* the types of all weights matter: some device refuses tensors by their bytes */
};

struct range { /* tensors: a layer's, with what is made on the way to it */
    const struct layers *of;
    const struct gtensor *t;
    int32_t from, n;
};

/* i: the layer's place in emit; behind the last one: what comes after them. */
static struct range range_of(const struct layers *of, uint32_t i)
{
    int32_t from = i ? of->b->ends[i - 1] : 0, to = i < of->b->n_ends ? of->b->ends[i] : of->n_built;
    return (struct range){.of = of, .t = of->g->t, .from = from, .n = to - from};
}

/* Before the scheduler put copies in its place. */
static int32_t original(const struct graph *g, int32_t id)
{
    while (id >= 0 && g->t[id].copy_of >= 0)
        id = g->t[id].copy_of;
    return id;
}

/* The type of a weight that is read where it lies shows nowhere. */
static bool same_shape(const struct gtensor *a, const struct gtensor *b, bool types)
{
    bool stays = !types && (a->flags & b->flags & GF_WEIGHT) && a->copy_head < 0 && b->copy_head < 0;
    return a->op == b->op && !memcmp(a->ne, b->ne, sizeof a->ne) &&
           (stays || (a->type == b->type && a->bytes == b->bytes && !memcmp(a->nb, b->nb, sizeof a->nb)));
}

/* The same place within both, or tensors of one shape outside. */
static bool same_source(struct range a, int32_t s, struct range b, int32_t t)
{
    s = original(a.of->g, s);
    t = original(b.of->g, t);
    if (s < 0 || t < 0)
        return s == t;
    if (s >= a.from || t >= b.from)
        return s - a.from == t - b.from;
    return same_shape(&a.t[s], &b.t[t], a.of->types);
}

/* Do both consist of the same operations on tensors of the same shapes? */
static bool same_layer(struct range a, struct range b)
{
    const unsigned kinds = GF_WEIGHT | GF_INPUT | GF_SHARED | GF_MARK | GF_EXACT;
    if (a.n != b.n)
        return false;
    for (int32_t i = 0; i < a.n; i++) {
        const struct gtensor *s = &a.t[a.from + i], *t = &b.t[b.from + i];
        if (!same_shape(s, t, a.of->types) || (s->flags & kinds) != (t->flags & kinds) ||
            !same_source(a, s->view_src, b, t->view_src))
            return false;
        for (int j = 0; j < GRAPH_MAX_SRC && (s->src[j] >= 0 || t->src[j] >= 0); j++)
            if (!same_source(a, s->src[j], b, t->src[j]))
                return false;
    }
    return true;
}

/* Each place in emit → that of the layer that it is like. What surrounds the layers is made with the first
 * and the last one. */
static void find_likes(const struct layers *all, uint16_t *ret_like)
{
    const struct build *b = all->b;
    for (uint32_t i = 0; i < b->n_emit; i++) {
        uint64_t form = b->f->layers[b->emit[i]].form;
        uint32_t like = i + 1 == b->n_emit ? i : 1;
        while (like < i && (ret_like[like] != like || b->f->layers[b->emit[like]].form != form ||
                            !same_layer(range_of(all, i), range_of(all, like))))
            like++;
        ret_like[i] = (uint16_t)(i ? like : 0);
    }
}

/* Leaves b with the layers that were built. */
static void build_places(const struct record *r, struct build *b, struct graph *g)
{
    const uint16_t *emit = b->emit;
    for (uint32_t i = 0; i < r->n_places; i++)
        b->anew[i] = emit[r->place[i]];
    b->emit = b->anew;
    b->n_emit = r->n_places;
    build_graph(b, g);
}

static void make_map(struct records *rs, int32_t n)
{
    if (rs->cap_map >= n)
        return;
    rs->cap_map = n + n / 2;
    rs->map = mem_realloc(rs->map, (size_t)rs->cap_map, sizeof *rs->map);
}

/* Builds the layers that are like no other, and maps the whole graph onto them. False: by themselves they are
 * others. */
static bool build_sizes(struct records *rs, struct record *r, const struct layers *all)
{
    uint16_t like[FACTS_MAX_LAYERS], at[FACTS_MAX_LAYERS];
    const struct build *b = all->b;
    struct build part = *b;
    find_likes(all, like);
    r->n_places = 0;
    for (uint32_t i = 0; i < b->n_emit; i++) {
        at[i] = (uint16_t)(like[i] == i ? r->n_places : at[like[i]]);
        if (like[i] == i)
            r->place[r->n_places++] = (uint16_t)i;
    }
    build_places(r, &part, &r->sizes);
    if (r->sizes.failed || part.n_ends != part.n_emit)
        return false;
    const struct layers some = {.g = &r->sizes, .b = &part, .n_built = r->sizes.n_t};
    make_map(rs, all->g->n_t);
    for (uint32_t i = 0; i <= b->n_emit; i++) {
        uint32_t k = i < b->n_emit ? at[i] : part.n_emit;
        struct range from = range_of(all, i), to = range_of(&some, k);
        if ((i == b->n_emit || like[i] == i) && !same_layer(from, to))
            return false;
        for (int32_t j = 0; j < from.n; j++)
            rs->map[from.from + j] = to.from + j;
    }
    return true;
}

/* ---- what is kept ---- */

/* The first one that answers questions alike. */
static int32_t backend_like(const struct graph_backend *backends, int32_t b)
{
    for (int32_t i = 0; i < b; i++)
        if (backends[i].max_tensor == backends[b].max_tensor && backends[i].refuses == backends[b].refuses &&
            backends[i].offload_batch == backends[b].offload_batch)
            return i;
    return b;
}

/* The place of the question in the set of those seen: its own, or a free one. */
static uint64_t *seen_at(struct records *rs, const struct graph_asked *q, uint64_t key)
{
    size_t at = (size_t)facts_mix(q->question, key) & (rs->cap_seen - 1);
    while (rs->seen[at] && rs->seen[at] >> 1 != key)
        at = (at + 1) & (rs->cap_seen - 1);
    return &rs->seen[at];
}

static void clear_seen(struct records *rs, int32_t n)
{
    size_t cap = 64;
    while (cap < 2 * (size_t)n)
        cap *= 2;
    if (rs->cap_seen < cap) {
        rs->seen = mem_realloc(rs->seen, cap, sizeof *rs->seen);
        rs->cap_seen = cap;
    }
    memset(rs->seen, 0, rs->cap_seen * sizeof *rs->seen);
}

static bool answers_hold(const struct record *r, const struct graph *g, const struct graph_backend *backends)
{
    for (int32_t i = 0; i < r->n_asked; i++) {
        const struct graph_asked *q = &r->asked[i];
        if (graph_answer(g, backends, (enum graph_question)q->question, q->a, q->b) != q->yes)
            return false;
    }
    return true;
}

/* False: layers that are like each other have other answers. */
static bool keep_questions(struct records *rs, struct record *r, const struct graph *g,
                           const struct graph_backend *backends)
{
    clear_seen(rs, g->n_asked);
    if (r->cap_asked < g->n_asked) {
        r->cap_asked = g->n_asked;
        r->asked = mem_realloc(r->asked, (size_t)r->cap_asked, sizeof *r->asked);
    }
    r->n_asked = 0;
    for (int32_t i = 0; i < g->n_asked; i++) {
        struct graph_asked q = g->asked[i];
        q.a = rs->map[original(g, q.a)];
        q.b = q.question == ASKED_LAYOUT ? rs->map[original(g, q.b)] : backend_like(backends, q.b);
        uint64_t key = (uint64_t)(q.question + 1u) << 60 | (uint64_t)(uint32_t)q.a << 30 | (uint32_t)q.b;
        uint64_t *seen = seen_at(rs, &q, key), told = key << 1 | q.yes;
        if (*seen && *seen != told)
            return false;
        if (!*seen)
            r->asked[r->n_asked++] = q;
        *seen = told;
    }
    return answers_hold(r, &r->sizes, backends);
}

static uint64_t cell_bytes(const struct record *r, const struct graph *g,
                           const struct graph_backend *backends, int32_t cell)
{
    int32_t of = r->size_of[cell];
    return trace_bytes(g, &backends[r->trace.cells[cell].buffer], of < 0 ? ~of : of, of < 0);
}

/* False: the sizes of the layers that were made again are not those of the graph. */
static bool keep_cells(struct records *rs, struct record *r, const struct graph *g,
                       const struct graph_backend *backends)
{
    if (r->cap_size_of < r->trace.n_cells) {
        r->cap_size_of = r->trace.n_cells;
        r->size_of = mem_realloc(r->size_of, (size_t)r->cap_size_of, sizeof *r->size_of);
    }
    for (int32_t i = 0; i < r->trace.n_cells; i++) {
        const struct trace_cell *c = &r->trace.cells[i];
        int32_t of = rs->map[original(g, c->tensor)];
        r->size_of[i] = g->t[c->tensor].copy_of < 0 ? of : ~of;
        if (cell_bytes(r, &r->sizes, backends, i) != c->bytes)
            return false;
    }
    return true;
}

void records_keep(struct records *rs, struct build *b, enum build_choice choice, struct graph *g,
                  const struct graph_backend *backends)
{
    struct record *r = records_find(rs, b, choice);
    if (b->l->n_adapters || b->n_ends != b->n_emit || !b->n_emit)
        return;
    if (!r)
        r = oldest(rs);
    r->used = ++rs->turn;
    if (r->cap_words < rs->n_words) {
        r->cap_words = rs->n_words;
        r->words = mem_realloc(r->words, r->cap_words, sizeof *r->words);
    }
    memcpy(r->words, rs->words, rs->n_words * sizeof *r->words);
    r->n_words = rs->n_words;
    struct trace spare = r->trace;
    r->trace = g->trace;
    g->trace = spare;
    struct layers all = {.g = g, .b = b, .n_built = g->n_built};
    for (int d = 0; d < b->l->n_devices; d++)
        all.types = all.types || backends[d].max_tensor != UINT64_MAX;
    if (!build_sizes(rs, r, &all) || !keep_cells(rs, r, g, backends) || !keep_questions(rs, r, g, backends))
        r->n_places = 0;
}

bool record_apply(struct record *r, struct build *b, struct graph *g, const struct graph_backend *backends)
{
    const uint16_t *emit = b->emit;
    uint32_t n_emit = b->n_emit;
    build_places(r, b, g);
    b->emit = emit;
    b->n_emit = n_emit;
    if (g->failed || !graph_alike(g, &r->sizes) || !answers_hold(r, g, backends))
        return false;
    for (int32_t i = 0; i < r->trace.n_cells; i++)
        r->trace.cells[i].bytes = cell_bytes(r, g, backends, i);
    return true;
}
