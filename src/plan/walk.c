/* The walk over all layers. Layer plan; pure; see walk.h. */
#include "plan/walk.h"

#include "plan/graph.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof((struct walk *)0)->pools / sizeof(struct pool) == GRAPH_MAX_BACKENDS, "one a backend");

#define MAX_STATES 96 /* a walk that needs more does not repeat itself */
#define MAX_HANDED 32 /* cells that one layer hands on to the next */

struct walker {
    struct walk *w;
    struct trace *t;
    const struct walk_layers *l;
    int n_backends;
    int16_t state;              /* -1: before the first layer */
    bool loaded;                /* the pools are in that state */
    int32_t handed[MAX_HANDED]; /* by the segment replayed last: cells */
    uint32_t n_handed;
};

void walk_release(struct walk *w)
{
    for (size_t b = 0; b < GRAPH_MAX_BACKENDS; b++)
        pool_drop(&w->pools[b]);
    free(w->states);
    free(w->words);
    free(w->next);
    *w = (struct walk){0};
}

static bool replay(struct walk *w, struct trace *t, int32_t segment)
{
    for (int32_t i = segment ? t->ends[segment - 1] : 0; i < t->ends[segment]; i++) {
        int32_t e = t->events[i];
        struct trace_cell *c = &t->cells[e < 0 ? ~e : e];
        struct pool *p = &w->pools[c->buffer];
        if (!(e < 0 ? pool_give(p, c->at, c->bytes) : pool_take(p, c->bytes, &c->at)))
            return false;
    }
    return true;
}

/* ---- is the trace fit to be repeated? ---- */

struct span { /* of the layers that a segment stands for */
    uint16_t n, first, last;
};

static void find_spans(const struct walk_layers *l, struct span *ret)
{
    memset(ret, 0, (l->n_segments + 1) * sizeof *ret);
    for (uint32_t il = 0; il < l->n; il++) {
        struct span *s = &ret[l->segment[il]];
        s->first = s->n ? s->first : (uint16_t)il;
        s->last = (uint16_t)il;
        s->n++;
    }
    ret[l->n_segments] =
        (struct span){1, (uint16_t)l->n, (uint16_t)l->n}; /* what comes after the last layer */
}

/* A copy that is never given back is one more for every layer that makes one: the layer that reads it first.
 */
static bool makes_copies(const struct trace_cell *c, const struct span *span)
{
    return c->copied && c->died == TRACE_NEVER && c->first >= 0 && span[c->first].n != 1;
}

static bool strays(const struct trace_cell *c, const struct walk_layers *l)
{
    return c->born < (int32_t)l->n_segments && l->confined[c->born] >= 0 && c->buffer != l->confined[c->born];
}

/* What lasts is born and dies in layers that stand for themselves alone, and is read only by layers between
 * them. */
static bool repeatable(const struct trace *t, const struct walk_layers *l)
{
    struct span span[GRAPH_MAX_MARKS + 1];
    if (t->n_segments != (int32_t)l->n_segments + 1 || l->n_segments > GRAPH_MAX_MARKS)
        return false;
    find_spans(l, span);
    for (int32_t i = 0; i < t->n_cells; i++) {
        const struct trace_cell *c = &t->cells[i];
        if (makes_copies(c, span) || strays(c, l))
            return false;
        if (trace_lasts(t, c) && (span[c->born].n != 1 || (c->died != TRACE_NEVER && span[c->died].n != 1)))
            return false;
    }
    for (int32_t i = 0; i < t->n_reads; i++) {
        const struct trace_cell *c = &t->cells[t->reads[i].cell];
        const struct span *s = &span[t->reads[i].segment];
        if (trace_lasts(t, c) && s->n &&
            (s->first < span[c->born].first || (c->died != TRACE_NEVER && s->last > span[c->died].last)))
            return false;
    }
    return true;
}

/* ---- states ---- */

static void *grown(void *p, size_t *cap, size_t n, size_t size)
{
    if (n <= *cap)
        return p;
    *cap = n + n / 2 + 64;
    return mem_realloc(p, *cap, size);
}

static bool list_handed(struct walker *r, int32_t segment)
{
    /* cells are in the order of their birth: those of the segment are together */
    int32_t from = segment ? r->t->ends[segment - 1] : 0;
    r->n_handed = 0;
    for (int32_t i = from; i < r->t->ends[segment]; i++) {
        int32_t e = r->t->events[i];
        if (e < 0 || r->t->cells[e].died != segment + 1 || trace_lasts(r->t, &r->t->cells[e]))
            continue;
        if (r->n_handed == MAX_HANDED)
            return false;
        r->handed[r->n_handed++] = e;
    }
    return true;
}

/* The pools and what was handed on, as numbers behind all others. */
static size_t write_state(struct walker *r)
{
    struct walk *w = r->w;
    size_t n = 1 + 4 * r->n_handed;
    for (int b = 0; b < r->n_backends; b++)
        n += pool_words(&w->pools[b]);
    w->words = grown(w->words, &w->cap_words, w->n_words + n, sizeof *w->words);
    uint64_t *out = w->words + w->n_words;
    *out++ = r->n_handed;
    for (uint32_t i = 0; i < r->n_handed; i++) {
        const struct trace_cell *c = &r->t->cells[r->handed[i]];
        *out++ = c->bytes;
        *out++ = (uint64_t)c->buffer;
        *out++ = (uint64_t)c->at.chunk;
        *out++ = c->at.offset;
    }
    for (int b = 0; b < r->n_backends; b++)
        out = pool_save(&w->pools[b], out);
    return n;
}

/* The state that the pools are in, a new one if need be; -1: there are too many. */
static int16_t find_state(struct walker *r)
{
    struct walk *w = r->w;
    size_t n = write_state(r), row = r->l->n_segments;
    for (size_t i = 0; i < w->n_states; i++)
        if (w->states[i].n_words == n &&
            !memcmp(w->words + w->states[i].words, w->words + w->n_words, n * sizeof *w->words))
            return (int16_t)i;
    if (w->n_states == MAX_STATES)
        return -1;
    w->states = grown(w->states, &w->cap_states, w->n_states + 1, sizeof *w->states);
    w->states[w->n_states] = (struct walk_state){.words = w->n_words, .n_words = n};
    w->next = grown(w->next, &w->cap_next, (w->n_states + 1) * row, sizeof *w->next);
    memset(w->next + w->n_states * row, 0xff, row * sizeof *w->next);
    w->n_words += n;
    return (int16_t)w->n_states++;
}

/* Puts the pools into the walker's state, and what was handed on where the segment expects it. False: it
 * expects something else. */
static bool enter(struct walker *r, int32_t segment)
{
    if (r->state < 0)
        return segment == 0;
    const uint64_t *in = r->w->words + r->w->states[r->state].words;
    uint64_t n = *in++;
    if (segment == 0 || !list_handed(r, segment - 1) || n != r->n_handed)
        return false;
    for (uint32_t i = 0; i < r->n_handed; i++, in += 4) {
        struct trace_cell *c = &r->t->cells[r->handed[i]];
        if (c->bytes != in[0] || (uint64_t)c->buffer != in[1])
            return false;
        c->at = (struct pool_place){.chunk = (int)in[2], .offset = in[3]};
    }
    for (int b = 0; b < r->n_backends && !r->loaded; b++)
        in = pool_restore(&r->w->pools[b], in);
    return true;
}

static enum walk_result step(struct walker *r, int32_t segment)
{
    if (!enter(r, segment))
        return WALK_UNSETTLED;
    if (!replay(r->w, r->t, segment))
        return WALK_FAILED;
    if (!list_handed(r, segment))
        return WALK_UNSETTLED;
    int16_t from = r->state;
    r->state = find_state(r);
    r->loaded = true;
    if (r->state < 0)
        return WALK_UNSETTLED;
    if (from >= 0)
        r->w->next[(size_t)from * r->l->n_segments + (size_t)segment] = r->state;
    return WALK_DONE;
}

static enum walk_result walk_layers(struct walker *r)
{
    for (uint32_t il = 0; il < r->l->n; il++) {
        uint16_t segment = r->l->segment[il];
        int16_t known = r->state < 0 ? -1 : r->w->next[(size_t)r->state * r->l->n_segments + segment];
        if (known >= 0) {
            r->loaded = r->loaded && known == r->state;
            r->state = known;
            continue;
        }
        enum walk_result done = step(r, segment);
        if (done != WALK_DONE)
            return done;
    }
    /* what comes after the last layer */
    if (!enter(r, (int32_t)r->l->n_segments))
        return WALK_UNSETTLED;
    return replay(r->w, r->t, (int32_t)r->l->n_segments) ? WALK_DONE : WALK_FAILED;
}

enum walk_result walk_run(struct walk *w, struct trace *t, const struct graph_backend *backends, int n,
                          const struct walk_layers *layers, uint64_t *ret_bytes)
{
    enum walk_result done = WALK_DONE;
    struct walker r = {.w = w, .t = t, .l = layers, .n_backends = n, .state = -1};
    w->n_states = w->n_words = 0;
    for (int b = 0; b < n; b++)
        pool_reset(&w->pools[b], backends[b].max_chunk);
    if (!layers) {
        for (int32_t s = 0; s < t->n_segments && done == WALK_DONE; s++)
            done = replay(w, t, s) ? WALK_DONE : WALK_FAILED;
    } else {
        done = repeatable(t, layers) ? walk_layers(&r) : WALK_UNSETTLED;
    }
    for (int b = 0; b < n; b++)
        ret_bytes[b] = pool_bytes(&w->pools[b]);
    return done;
}
