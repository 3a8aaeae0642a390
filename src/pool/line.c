/* The waiting line: see line.h. Layer pool; pure.
 *
 * A band is a wheel of LINE_ROUNDS buckets, one a round; `round` is the one that is served, a bit in `filled`
 * tells that a bucket has flows. A flow lies in the bucket of the round in which it may be granted next; one
 * without spots is a debt, and is freed when its round comes. Invariants: a flow is in exactly one bucket and
 * in the table; it is in the list of turns while it has spots. */
#include "pool/line.h"

#include "base/mem.h"

#include <string.h>

#define LINE_ROUNDS (LINE_COST_MAX + 1)

struct line_flow {
    struct line_flow *chain;           /* of the table */
    struct line_flow *prev, *next;     /* of its bucket */
    struct line_flow *earlier, *later; /* of the turns */
    struct line_spot *first, *last;
    size_t n;
    uint64_t key;
    uint64_t head_ms, head_grants; /* when its first spot became that, by both measures */
    uint8_t band, round;
};

struct bucket {
    struct line_flow *first, *last;
};

struct wheel {
    struct bucket buckets[LINE_ROUNDS];
    uint64_t filled;
    unsigned round;
    size_t n; /* spots */
};

struct line {
    struct wheel wheels[LINE_BANDS];
    struct line_spot *oldest, *newest;
    struct line_flow *turn_first, *turn_last; /* flows with spots, by when their first became that */
    struct line_flow **table;
    size_t n_table, n_flows; /* n_table: a power of two */
    size_t n;
    uint64_t grants;
};

const char *line_band_word(enum line_band b)
{
    static const char *const words[LINE_BANDS] = {
        [LINE_HIGH] = "high", [LINE_NORMAL] = "normal", [LINE_LOW] = "low"};
    return (unsigned)b < LINE_BANDS ? words[b] : "unknown";
}

struct line *line_new(void)
{
    struct line *l = mem_new(struct line);
    l->n_table = 16;
    l->table = mem_calloc(l->n_table, sizeof(struct line_flow *));
    return l;
}

/* ---- the table of flows ---- */

static size_t slot_of(const struct line *l, uint64_t key, unsigned band)
{
    return (size_t)((key ^ band) * 0x9e3779b97f4a7c15u >> 32) & (l->n_table - 1);
}

static struct line_flow *table_find(const struct line *l, uint64_t key, unsigned band)
{
    struct line_flow *f = l->table[slot_of(l, key, band)];
    while (f && (f->key != key || f->band != band))
        f = f->chain;
    return f;
}

static void table_put(struct line *l, struct line_flow *f)
{
    struct line_flow **at = &l->table[slot_of(l, f->key, f->band)];
    f->chain = *at;
    *at = f;
}

static void table_grow(struct line *l)
{
    struct line_flow **old = l->table;
    size_t n_old = l->n_table;
    l->n_table *= 2;
    l->table = mem_calloc(l->n_table, sizeof(struct line_flow *));
    for (size_t i = 0; i < n_old; i++)
        for (struct line_flow *f = old[i], *next; f; f = next) {
            next = f->chain;
            table_put(l, f);
        }
    free(old);
}

static void table_drop(struct line *l, const struct line_flow *f)
{
    struct line_flow **at = &l->table[slot_of(l, f->key, f->band)];
    while (*at != f)
        at = &(*at)->chain;
    *at = f->chain;
}

/* ---- buckets: rounds of a band ---- */

static void bucket_put(struct wheel *w, struct line_flow *f, unsigned round)
{
    struct bucket *b = &w->buckets[round];
    f->round = (uint8_t)round;
    f->next = NULL;
    f->prev = b->last;
    if (b->last)
        b->last->next = f;
    else
        b->first = f;
    b->last = f;
    w->filled |= UINT64_C(1) << round;
}

static void bucket_drop(struct wheel *w, struct line_flow *f)
{
    struct bucket *b = &w->buckets[f->round];
    if (f->prev)
        f->prev->next = f->next;
    else
        b->first = f->next;
    if (f->next)
        f->next->prev = f->prev;
    else
        b->last = f->prev;
    if (!b->first)
        w->filled &= ~(UINT64_C(1) << f->round);
}

/* Rounds from the one that is served to the flow's. */
static unsigned rounds_off(const struct wheel *w, const struct line_flow *f)
{
    return (f->round + LINE_ROUNDS - w->round) % LINE_ROUNDS;
}

/* ---- turns: flows by how long their first spot has been that ---- */

static void turn_drop(struct line *l, struct line_flow *f)
{
    if (f->earlier)
        f->earlier->later = f->later;
    else
        l->turn_first = f->later;
    if (f->later)
        f->later->earlier = f->earlier;
    else
        l->turn_last = f->earlier;
}

static void turn_put(struct line *l, struct line_flow *f, uint64_t now_ms)
{
    f->head_ms = now_ms;
    f->head_grants = l->grants;
    f->later = NULL;
    f->earlier = l->turn_last;
    if (l->turn_last)
        l->turn_last->later = f;
    else
        l->turn_first = f;
    l->turn_last = f;
}

/* ---- flows ---- */

static struct line_flow *flow_get(struct line *l, uint64_t key, unsigned band)
{
    struct line_flow *f = table_find(l, key, band);
    if (f)
        return f;
    if (l->n_flows == l->n_table)
        table_grow(l);
    f = mem_new(struct line_flow);
    f->key = key;
    f->band = (uint8_t)band;
    table_put(l, f);
    l->n_flows++;
    bucket_put(&l->wheels[band], f, l->wheels[band].round);
    return f;
}

static void flow_free(struct line *l, struct line_flow *f)
{
    table_drop(l, f);
    bucket_drop(&l->wheels[f->band], f);
    l->n_flows--;
    free(f);
}

static void forget_all(struct line *l)
{
    for (size_t i = 0; i < l->n_table; i++)
        while (l->table[i])
            flow_free(l, l->table[i]);
}

/* Takes a spot out of its flow and out of the line. */
static void unlink_spot(struct line *l, struct line_spot *s)
{
    struct line_flow *f = s->flow;
    if (s->prev)
        s->prev->next = s->next;
    else
        f->first = s->next;
    if (s->next)
        s->next->prev = s->prev;
    else
        f->last = s->prev;
    if (s->older)
        s->older->newer = s->newer;
    else
        l->oldest = s->newer;
    if (s->newer)
        s->newer->older = s->older;
    else
        l->newest = s->older;
    f->n--;
    l->wheels[f->band].n--;
    l->n--;
    s->flow = NULL;
    s->prev = s->next = s->older = s->newer = NULL;
}

/* ---- what is offered ---- */

void line_free(struct line *l)
{
    if (!l)
        return;
    forget_all(l);
    free(l->table);
    free(l);
}

void line_add(struct line *l, struct line_spot *s, uint64_t key, enum line_band band, uint32_t cost,
              uint64_t now_ms)
{
    struct line_flow *f = flow_get(l, key, band);
    *s = (struct line_spot){.prev = f->last,
                            .older = l->newest,
                            .flow = f,
                            .cost = (uint8_t)(cost < 1               ? 1
                                              : cost > LINE_COST_MAX ? LINE_COST_MAX
                                                                     : cost)};
    if (f->last)
        f->last->next = s;
    else
        f->first = s;
    f->last = s;
    if (l->newest)
        l->newest->newer = s;
    else
        l->oldest = s;
    l->newest = s;
    if (f->n++ == 0)
        turn_put(l, f, now_ms);
    l->wheels[band].n++;
    l->n++;
}

void line_remove(struct line *l, struct line_spot *s)
{
    struct line_flow *f = s->flow;
    unlink_spot(l, s);
    if (f->n > 0)
        return; /* the next one takes over the turn: who gives up loses nothing for its key */
    turn_drop(l, f);
    if (l->n == 0)
        forget_all(l);
}

static struct line_flow *overdue(const struct line *l, const struct line_bounds *b, uint64_t now_ms)
{
    struct line_flow *f = l->turn_first;
    if (b->max_ms && now_ms - f->head_ms >= b->max_ms)
        return f;
    return b->max_grants && l->grants - f->head_grants >= b->max_grants ? f : NULL;
}

/* The first flow with spots in the rounds to come; debts on the way are paid. */
static struct line_flow *next_of(struct line *l, struct wheel *w)
{
    for (;;) {
        uint64_t filled = w->filled >> w->round;
        if (w->round)
            filled |= w->filled << (LINE_ROUNDS - w->round);
        w->round = (w->round + (unsigned)__builtin_ctzll(filled)) % LINE_ROUNDS;
        struct line_flow *f = w->buckets[w->round].first;
        if (f->n > 0)
            return f;
        flow_free(l, f);
    }
}

static struct line_flow *next_flow(struct line *l, const struct line_bounds *b, uint64_t now_ms)
{
    struct line_flow *f = overdue(l, b, now_ms);
    struct wheel *w = l->wheels;
    if (f)
        return f;
    while (w->n == 0)
        w++;
    return next_of(l, w);
}

struct line_spot *line_take(struct line *l, const struct line_bounds *bounds, uint64_t now_ms)
{
    if (l->n == 0)
        return NULL;
    struct line_flow *f = next_flow(l, bounds, now_ms);
    struct wheel *w = &l->wheels[f->band];
    struct line_spot *s = f->first;
    unsigned off = rounds_off(w, f) + s->cost;
    unlink_spot(l, s);
    l->grants++;
    bucket_drop(w, f);
    bucket_put(w, f, (w->round + (off < LINE_COST_MAX ? off : LINE_COST_MAX)) % LINE_ROUNDS);
    turn_drop(l, f);
    if (f->n > 0)
        turn_put(l, f, now_ms);
    if (l->n == 0)
        forget_all(l);
    return s;
}

size_t line_length(const struct line *l)
{
    return l ? l->n : 0;
}

size_t line_band_length(const struct line *l, enum line_band band)
{
    return l ? l->wheels[band].n : 0;
}

struct line_spot *line_oldest(const struct line *l)
{
    return l ? l->oldest : NULL;
}

enum line_band line_band_of(const struct line_spot *s)
{
    return (enum line_band)s->flow->band;
}

size_t line_ahead(const struct line *l, const struct line_spot *s)
{
    const struct line_flow *own = s->flow;
    size_t before = 0, n = 0;
    for (const struct line_spot *k = s->prev; k; k = k->prev)
        before++;
    for (unsigned b = 0; b < own->band; b++)
        n += l->wheels[b].n;
    bool earlier = true; /* whose turn came first is granted once more before it */
    for (const struct line_flow *f = l->turn_first; f; f = f->later) {
        size_t share = before + earlier;
        if (f == own)
            earlier = false;
        else if (f->band == own->band)
            n += f->n < share ? f->n : share;
    }
    return n + before;
}
