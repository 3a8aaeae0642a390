/* Requests for embeddings, in parts: many texts of one request go to the model in batches, a few texts of
 * several requests in one. Layer proxy; loop thread only.
 *
 * A line is what may be joined: the same model, key, band and members. While nothing of it is under way, a
 * request sets out at once, so that one alone is never delayed; else its texts wait until a batch is full,
 * the last batch is back, or embed_join_ms have passed. Texts of several requests take turns. Each batch is
 * an errand (errand.c), with a lease of its own.
 *
 * A client that leaves is taken out of the batches under way, which go on for the others; a batch for nobody
 * is cancelled. One that the backend refuses is asked for again, each client's part alone: a text that is too
 * long harms nobody else. Invariant: every unfinished request is in its line's list; it is queued there while
 * texts of it are unsent; `line` of a flight outlives it. */
#include "proxy/proxy_priv.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define PARTS_MAX  64u /* of one batch */
#define FLYING_MAX 4u  /* batches of a line under way: enough for several instances */

struct embed { /* one client's request */
    struct embed *next;
    struct conn *c;
    struct embed_line *line;
    const struct embed_ask *ask;
    char **items; /* the vectors, as they come */
    size_t sent, back;
    uint32_t batches;
    size_t counted; /* bytes, among those of bodies in flight */
    struct embed_sum sum;
};

struct part {
    struct embed *of; /* NULL: the client is gone */
    size_t from, n;
};

struct flight {
    struct flight *next;
    struct embed_line *line;
    struct errand *errand;
    struct part parts[PARTS_MAX];
    size_t n_parts, n;
    char **items; /* what came, n of them; NULL = nothing */
    size_t dimensions;
    uint64_t tokens;
};

struct embed_line {
    struct embed_line *next;
    struct http_server *s;
    struct embed *first; /* with unsent texts, in the order of their turns */
    struct flight *flights;
    uint32_t n_flying;
    bool due;
    unsigned held; /* it is being worked at up the stack: not pumped, not dropped */
    uv_timer_t timer;
    /* what its requests have in common */
    char model[256];
    const struct auth_key *key;
    enum route_priority priority;
    struct dialect_wish wish;
    struct buf rest;
};

static void pump(struct embed_line *l);

/* ---- lines ---- */

static bool same_wish(const struct dialect_wish *a, const struct dialect_wish *b)
{
    return a->keep_given == b->keep_given && a->keep_ms == b->keep_ms && a->context == b->context;
}

static bool belongs(const struct embed_line *l, const struct conn *c, const struct embed_ask *a)
{
    return l->key == c->key && l->priority == relay_priority(c) && str_eq_c(c->model, l->model) &&
           same_wish(&l->wish, &c->wish) && str_eq(buf_str(&l->rest), buf_str(&a->rest));
}

static struct embed_line *line_of(struct conn *c, const struct embed_ask *a)
{
    struct http_server *s = c->s;
    for (struct embed_line *l = s->embed_lines; l; l = l->next)
        if (belongs(l, c, a))
            return l;
    struct embed_line *l = mem_new(struct embed_line);
    l->s = s;
    (void)uv_timer_init(s->loop, &l->timer);
    l->timer.data = l;
    s->handles++;
    (void)snprintf(l->model, sizeof l->model, "%.*s", STR_ARG(c->model));
    l->key = c->key ? auth_hold(c->key) : NULL;
    l->priority = relay_priority(c);
    l->wish = c->wish;
    (void)buf_put_str(&l->rest, buf_str(&a->rest));
    l->next = s->embed_lines;
    s->embed_lines = l;
    return l;
}

static void on_line_closed(uv_handle_t *h)
{
    struct embed_line *l = h->data;
    struct http_server *s = l->s;
    buf_release(&l->rest);
    free(l);
    server_handle_closed(s);
}

static void drop_line(struct embed_line *l)
{
    for (struct embed_line **at = &l->s->embed_lines; *at; at = &(*at)->next)
        if (*at == l) {
            *at = l->next;
            break;
        }
    if (l->key)
        auth_release((struct auth_key *)(uintptr_t)l->key);
    uv_close((uv_handle_t *)&l->timer, on_line_closed);
}

static void unqueue(struct embed *r)
{
    for (struct embed **at = &r->line->first; *at; at = &(*at)->next)
        if (*at == r) {
            *at = r->next;
            r->next = NULL;
            return;
        }
}

static void queue(struct embed *r)
{
    struct embed **at = &r->line->first;
    while (*at)
        at = &(*at)->next;
    *at = r;
}

/* ---- the end of a request ---- */

static bool is_for_nobody(const struct flight *f)
{
    for (size_t i = 0; i < f->n_parts; i++)
        if (f->parts[i].of)
            return false;
    return true;
}

static void free_flight(struct flight *f)
{
    struct embed_line *l = f->line;
    for (struct flight **at = &l->flights; *at; at = &(*at)->next)
        if (*at == f) {
            *at = f->next;
            break;
        }
    l->n_flying--;
    embed_free_items(f->items, f->n);
    free(f);
}

/* Leaves the line: nothing of it is asked for any more. */
static void detach(struct embed *r)
{
    struct embed_line *l = r->line;
    unqueue(r);
    for (struct flight *f = l->flights, *next; f; f = next) {
        next = f->next;
        for (size_t i = 0; i < f->n_parts; i++)
            if (f->parts[i].of == r)
                f->parts[i].of = NULL;
        if (f->errand && is_for_nobody(f)) {
            errand_cancel(f->errand);
            free_flight(f);
        }
    }
    r->c->embed = NULL;
    r->c->s->count.body_bytes_in_flight -= r->counted;
    embed_free_items(r->items, r->ask->n);
    free(r);
}

void embed_cancel(struct conn *c)
{
    struct embed_line *l = c->embed->line;
    detach(c->embed);
    pump(l);
}

static void fail(struct embed *r, const struct err *err)
{
    struct conn *c = r->c;
    detach(r);
    relay_fail(c, rc_http_status(err->code), "upstream_error", err);
}

/* What the backend, or the route, says of a part is said of the whole. */
static void pass_on_error(struct embed *r, const struct errand_end *end)
{
    struct conn *c = r->c;
    struct err err;
    char fields[48] = "";
    if (!end->error.n) {
        (void)err_set(&err, RC_BACKEND, "the backend of model %s broke its answer off", c->lease.model);
        err_hint(&err, "see the instance's log: arriero logs %s", c->lease.model);
        fail(r, &err);
        return;
    }
    if (end->retry_after_s)
        (void)snprintf(fields, sizeof fields, "Retry-After: %u\r\n", end->retry_after_s);
    detach(r);
    c->s->count.upstream_errors += end->status >= 502;
    c->outcome = end->c->outcome;
    c->phase = PHASE_LOCAL;
    local_reply(c, end->status, "application/json", fields, end->error);
}

static enum rc check_dimensions(const struct embed *r, struct err *err)
{
    const struct route_lease *lease = &r->c->lease;
    size_t got = r->sum.dimensions;
    enum rc rc = RC_OK;
    if (r->ask->dimensions && r->ask->dimensions != got) {
        rc = err_set(err, RC_INVALID, "model %s gives embeddings of %zu dimensions, not of %llu",
                     lease->model, got, (unsigned long long)r->ask->dimensions);
        err_hint(err, "leave \"dimensions\" out, or ask a model that can shorten them");
    } else if (lease->dimensions && lease->dimensions != got) {
        rc =
            err_set(err, RC_BACKEND, "model %s gives embeddings of %zu dimensions; the configuration says %u",
                    lease->model, got, lease->dimensions);
        err_hint(err, "set the role's dimensions to %zu, or give it the model that was meant", got);
    }
    return rc;
}

static void answer(struct embed *r)
{
    struct conn *c = r->c;
    struct err err;
    c->t_upstream_end = clock_mono_us();
    if (check_dimensions(r, &err) != RC_OK) {
        fail(r, &err);
        return;
    }
    const struct embed_vectors v = {.items = take_ptr(r->items),
                                    .n = r->ask->n,
                                    .counted = r->counted,
                                    .sum = r->sum,
                                    .batches = r->batches};
    r->counted = 0;
    detach(r);
    embed_put_start(c, &v);
}

/* ---- what comes back ---- */

static enum dialect_step take_document(void *state, const struct completion *sum, yyjson_val *root,
                                       struct dialect_ask *next, struct buf *out)
{
    struct flight *f = state;
    char **items = mem_calloc(f->n, sizeof *items);
    (void)next;
    (void)out;
    if (!embed_read(root, f->n, items, &f->dimensions)) {
        free((void *)items);
        return DIALECT_BROKEN;
    }
    f->items = items;
    f->tokens = sum->counts.prompt_tokens;
    return DIALECT_DONE;
}

static size_t bytes_of(const struct part *p)
{
    const struct embed_span *first = &p->of->ask->inputs[p->from], *last = first + p->n - 1;
    return last->at + last->n - first->at;
}

/* The backend tells the tokens of all: each client has the share of its text. Over all of them the sum is
 * right. */
static void share_tokens(const struct flight *f)
{
    uint64_t bytes = 0, tokens = f->tokens;
    for (size_t i = 0; i < f->n_parts; i++)
        bytes += f->parts[i].of ? bytes_of(&f->parts[i]) : 0;
    for (size_t i = 0; i < f->n_parts; i++) {
        const struct part *p = &f->parts[i];
        if (!p->of)
            continue;
        size_t mine = bytes_of(p);
        uint64_t share = bytes ? (uint64_t)((double)tokens * (double)mine / (double)bytes + 0.5) : 0;
        share = share < tokens ? share : tokens;
        p->of->sum.tokens += share;
        tokens -= share;
        bytes -= mine;
    }
}

/* False if there is no room for it beside all other bodies. */
static bool take_part(const struct flight *f, const struct part *p, size_t at)
{
    struct embed *r = p->of;
    struct http_server *s = r->c->s;
    for (size_t i = 0; i < p->n; i++) {
        size_t n = strlen(f->items[at + i]);
        r->items[p->from + i] = f->items[at + i];
        f->items[at + i] = NULL;
        r->counted += n;
        s->count.body_bytes_in_flight += n;
    }
    r->back += p->n;
    r->batches++;
    return s->count.body_bytes_in_flight <= s->opt.body_budget_bytes;
}

static void note_lease(struct embed *r, const struct conn *errand)
{
    struct conn *c = r->c;
    if (!errand->lease.model[0])
        return;
    c->lease = errand->lease;
    c->lease.ref = NULL; /* it was given back */
    if (errand->t_wait_us > c->t_wait_us)
        c->t_wait_us = errand->t_wait_us;
}

static void take_vectors(struct flight *f)
{
    struct err err;
    size_t at = 0;
    share_tokens(f);
    for (size_t i = 0; i < f->n_parts; at += f->parts[i++].n) {
        struct embed *r = f->parts[i].of;
        if (!r)
            continue;
        bool room = take_part(f, &f->parts[i], at),
             even = !r->sum.dimensions || r->sum.dimensions == f->dimensions;
        r->sum.dimensions = f->dimensions;
        f->parts[i].of = NULL;
        if (!room) {
            (void)err_set(&err, RC_BUSY, "too many large bodies are in flight");
            err_hint(&err, "ask again, or raise limits.body_budget");
            fail(r, &err);
        } else if (!even) { /* another model stood in for a part of it */
            (void)err_set(&err, RC_BACKEND, "the embeddings of model %.*s have not all the same dimensions",
                          STR_ARG(r->c->model));
            fail(r, &err);
        } else if (r->back == r->ask->n) {
            answer(r);
        }
    }
}

static void take_off(struct embed_line *l, const struct part *parts, size_t n);

static void on_end(void *arg, const struct errand_end *end)
{
    struct flight *f = arg;
    struct embed_line *l = f->line;
    struct part alone[PARTS_MAX];
    size_t n = 0;
    bool whole = end->status == 200 && f->items;
    f->errand = NULL;
    l->held++;
    for (size_t i = 0; i < f->n_parts; i++)
        if (f->parts[i].of)
            note_lease(f->parts[i].of, end->c);
    if (whole)
        take_vectors(f);
    else if (f->n_parts == 1 && f->parts[0].of)
        pass_on_error(f->parts[0].of, end);
    for (size_t i = 0; i < f->n_parts && !whole && f->n_parts > 1; i++)
        if (f->parts[i].of)
            alone[n++] = f->parts[i];
    free_flight(f);
    for (size_t i = 0; i < n; i++)
        take_off(l, &alone[i], 1);
    l->held--;
    pump(l);
}

/* ---- what goes out ---- */

static enum rc never_asked(const struct dialect_terms *terms, yyjson_val *body, struct dialect_ask *ret,
                           struct err *err)
{
    (void)terms;
    (void)body;
    (void)ret;
    return err_set(err, RC_INTERNAL, "a part of a request is no request of its own");
}

static const struct dialect_call part_call = {
    .path = "/v1/embeddings", .ask = never_asked, .document = take_document};

static void take_off(struct embed_line *l, const struct part *parts, size_t n)
{
    struct flight *f = mem_new(struct flight);
    struct dialect_ask ask = {.path = part_call.path, .reply = DIALECT_DOCUMENT, .wish = l->wish, .state = f};
    f->line = l;
    f->next = l->flights;
    l->flights = f;
    l->n_flying++;
    (void)buf_puts(&ask.body, "{");
    (void)buf_put_str(&ask.body, buf_str(&l->rest));
    (void)buf_puts(&ask.body, "\"input\":[");
    for (size_t i = 0; i < n; i++) {
        const struct part *p = &parts[i];
        (void)buf_puts(&ask.body, i ? "," : "");
        embed_put_inputs(p->of->ask, p->from, p->n, &ask.body);
        f->parts[f->n_parts++] = *p;
        f->n += p->n;
        if (!p->of->c->t_sent)
            p->of->c->t_sent = clock_mono_us();
    }
    (void)buf_puts(&ask.body, "]}");
    struct conn *client = parts[0].of->c;
    struct errand *e = errand_start(client, client->model, &part_call, &ask, on_end, f);
    if (e) /* else f is gone */
        f->errand = e;
}

/* Texts of the requests whose turn it is, at most a batch; a request that has more goes behind the others. */
static void send_batch(struct embed_line *l)
{
    struct part parts[PARTS_MAX];
    size_t n = 0, room = l->s->opt.embed_batch;
    bool joins = l->s->opt.embed_join_ms > 0;
    while (room && l->first && n < (joins ? PARTS_MAX : 1)) {
        struct embed *r = l->first;
        size_t left = r->ask->n - r->sent, some = left < room ? left : room;
        parts[n++] = (struct part){r, r->sent, some};
        r->sent += some;
        room -= some;
        unqueue(r);
        if (r->sent < r->ask->n)
            queue(r);
    }
    take_off(l, parts, n);
}

static size_t unsent(const struct embed_line *l)
{
    size_t n = 0;
    for (const struct embed *r = l->first; r; r = r->next)
        n += r->ask->n - r->sent;
    return n;
}

static void on_due(uv_timer_t *timer)
{
    struct embed_line *l = timer->data;
    l->due = true;
    pump(l);
}

static bool is_time(const struct embed_line *l)
{
    const struct http_options *o = &l->s->opt;
    return !l->n_flying || l->due || !o->embed_join_ms || unsent(l) >= o->embed_batch;
}

static void pump(struct embed_line *l)
{
    if (l->held)
        return;
    l->held++;
    while (l->first && l->n_flying < FLYING_MAX && is_time(l))
        send_batch(l);
    l->held--;
    if (!l->first)
        l->due = false;
    if (!l->first && !l->flights)
        drop_line(l);
    else if (l->first && !l->due && !uv_is_active((uv_handle_t *)&l->timer))
        (void)uv_timer_start(&l->timer, on_due, l->s->opt.embed_join_ms, 0);
}

void embed_begin(struct conn *c)
{
    const struct embed_ask *a = made_embed(c);
    struct embed *r = mem_new(struct embed);
    *r = (struct embed){.c = c, .ask = a, .line = line_of(c, a), .items = mem_calloc(a->n, sizeof *r->items)};
    c->embed = r;
    c->phase = PHASE_PARTS;
    queue(r);
    pump(r->line);
}
