/* See tenant.h. */
#include "pool/tenant.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SHRINK_PLANS   3            /* the planner is asked for so many smaller placements in a look */
#define SHRINK_LEAST   (64 * MIB)   /* less is no reason to load again */
#define SHRINK_REST_MS (60u * 1000) /* one that has just been loaded in less is not loaded in less yet */
#define LIST_REST_MS   1000u        /* a list of processes is good for so long */
#define CALM_FACTOR    10 /* memory is taken back when there has been room for so many times yield_after */

struct since { /* how long a device has been short */
    char name[24];
    uint64_t ms; /* 0 = it is not */
};

struct tenants {
    struct pool *pool;
    enum yield_level kernel, by_free, told;
    struct since since[HW_MAX_DEVICES + 1];
    struct tenant_list host; /* as last listed */
    bool listing;
    uint64_t listed_ms; /* 0 = never */
    unsigned reloads;   /* seats that wait for the end of their process */
};

struct listing { /* the work pool's; freed behind it */
    uv_work_t req;
    struct pool *pool;
    pid_t skip[PLAN_MAX_RESIDENTS + 1];
    size_t n_skip;
    struct tenant_list list;
};

struct tenants *tenants_new(struct pool *p)
{
    struct tenants *t = mem_new(struct tenants);
    t->pool = p;
    return t;
}

void tenants_free(struct tenants *t)
{
    free(t);
}

/* ---- pressure ---- */

static enum yield_level level_of(const struct tenants *t)
{
    return t->kernel > t->by_free ? t->kernel : t->by_free;
}

static void tell_level(struct tenants *t, const struct gauge *host)
{
    enum yield_level now = level_of(t);
    struct plan_reason r[2];
    if (now == t->told)
        return;
    t->told = now;
    reason_set(&r[0], yield_level_word(now), "memory pressure on the host: %s%s", yield_level_word(now),
               t->kernel == now && now != YIELD_CALM ? ", as the kernel tells" : "");
    tenant_reason(t->pool, host, &t->host, &r[1]);
    decide(t->pool, "pressure", NULL, NULL, r, now == YIELD_CALM ? 1 : 2, NULL, 0);
}

/* What the free memory tells rises at once and falls when nothing is short any more. */
static void note_level(struct tenants *t, const struct gauge *host)
{
    uint64_t margin = host->margin_bytes ? host->margin_bytes : host->total_bytes / 16;
    enum yield_level l = yield_level_of(host->slack_bytes, margin);
    if (host->slack_bytes >= 0 || l > t->by_free)
        t->by_free = l;
    tell_level(t, host);
}

/* ---- when ---- */

static struct since *since_of(struct tenants *t, size_t row, const char *name)
{
    struct since *s = &t->since[row];
    if (strcmp(s->name, name) != 0) { /* a device came or went */
        *s = (struct since){0};
        snprintf(s->name, sizeof s->name, "%s", name);
    }
    return s;
}

/* Bytes to free by row of the gauges; false: nothing is due. */
static bool find_short(struct tenants *t, const struct gauges *g, uint64_t *ret_short, bool *ret_any)
{
    const struct pool *p = t->pool;
    uint64_t now = p->deps.now_ms();
    bool due = false;
    *ret_any = false;
    for (size_t k = 0; k < g->n; k++) {
        const struct gauge *row = &g->rows[k];
        struct since *s = since_of(t, k, row->name);
        enum yield_level l = row->host ? level_of(t) : YIELD_CALM;
        uint64_t for_ms = s->ms ? now - s->ms : 0;
        enum yield_when when =
            yield_when(row->slack_bytes, row->margin_bytes, l, for_ms, p->opt.yield_after_ms);
        ret_short[k] = when == YIELD_NOW ? gauge_short(row) : 0;
        due |= when == YIELD_NOW;
        *ret_any |= row->slack_bytes < 0;
        s->ms = when == YIELD_REST ? 0 : s->ms ? s->ms : now;
    }
    return due;
}

/* ---- who ---- */

struct candidates {
    struct pool_instance *instance[PLAN_MAX_RESIDENTS];
    struct yield_resident rows[PLAN_MAX_RESIDENTS];
    size_t n;
};

/* All that it has and would touch yet. */
static void frees_all(const struct pool_instance *i, const struct gauges *g, uint64_t *ret)
{
    for (size_t k = 0; k < g->n; k++)
        ret[k] = gauge_of(&g->rows[k], &i->reserve);
}

static void find_candidates(const struct pool *p, const struct gauges *g, struct candidates *c)
{
    c->n = 0;
    for (struct pool_instance *i = p->instances; i && c->n < PLAN_MAX_RESIDENTS; i = i->next) {
        if (i->state != POOL_READY || i->suspect || !i->entry)
            continue;
        struct yield_resident *r = &c->rows[c->n];
        struct plan_resident cost = {0};
        admit_resident(i, &cost);
        *r = (struct yield_resident){.busy = i->busy > 0, .pinned = i->entry->lead->pinned};
        r->can[YIELD_EVICT] = true;
        r->cost[YIELD_EVICT] = plan_resident_cost(&cost);
        frees_all(i, g, r->frees[YIELD_EVICT]);
        /* Its conversations are read again, but it is there when it is wanted. */
        cost.reload_seconds = 0;
        r->cost[YIELD_SHRINK] = plan_resident_cost(&cost);
        c->instance[c->n++] = i;
    }
}

/* The machine as the instance would find it if it alone left and the margins were kept. */
static void machine_without(struct pool *p, const struct pool_instance *i, const struct gauges *g,
                            struct plan_machine *m)
{
    const struct entry *e = i->entry;
    admit_machine(p, e->caps ? e->caps : p->default_caps, e->policy.device, m);
    for (size_t k = 0; k < g->n; k++) {
        const struct gauge *row = &g->rows[k];
        int64_t left = row->slack_bytes + (int64_t)gauge_of(row, &i->reserve);
        uint64_t free_bytes = left > 0 ? (uint64_t)left : 0;
        if (row->host)
            m->host.free_bytes = free_bytes;
        for (size_t d = 0; !row->host && d < m->n_devices; d++)
            if (strcmp(device_key(&m->devices[d]), row->key) == 0) /* the planner keeps the margin itself */
                m->devices[d].free_bytes = free_bytes + row->margin_bytes;
    }
}

/* Whether it would run as well in less memory, and what that frees by row. */
static bool would_shrink(struct pool *p, const struct pool_instance *i, const struct gauges *g,
                         const uint64_t *short_bytes, uint64_t *ret_frees)
{
    struct err err;
    struct plan_machine *m = mem_new(struct plan_machine);
    struct plan *plan = mem_new(struct plan);
    struct reserve less;
    bool helps = false;
    machine_without(p, i, g, m);
    if (admit_place_alone(i, m, plan, &less, &err) == RC_OK && plan->smaller == PLAN_AS_ASKED &&
        plan->estimate.layers_gpu >= i->plan.estimate.layers_gpu)
        for (size_t k = 0; k < g->n; k++) {
            uint64_t was = gauge_of(&g->rows[k], &i->reserve), is = gauge_of(&g->rows[k], &less);
            ret_frees[k] = was > is ? was - is : 0;
            helps |= short_bytes[k] && ret_frees[k] >= SHRINK_LEAST;
        }
    free(plan);
    free(m);
    return helps;
}

/* Others that grow step by step do not have it loaded again and again. */
static bool may_shrink(const struct pool_instance *i)
{
    bool small = i->entry->yielded.what == YIELDED_SMALL;
    return i->facts && !(small && i->pool->deps.now_ms() - i->ready_ms < SHRINK_REST_MS);
}

/* Asks for the cheapest idle ones, for each question takes the planner's time on the loop. */
static void find_shrinks(struct pool *p, const struct gauges *g, const uint64_t *short_bytes,
                         struct candidates *c)
{
    bool asked[PLAN_MAX_RESIDENTS] = {false};
    for (int n = 0; n < SHRINK_PLANS; n++) {
        size_t at = c->n;
        for (size_t k = 0; k < c->n; k++)
            if (!asked[k] && !c->rows[k].busy && may_shrink(c->instance[k]) &&
                (at == c->n || c->rows[k].cost[YIELD_EVICT] < c->rows[at].cost[YIELD_EVICT]))
                at = k;
        if (at == c->n)
            return;
        asked[at] = true;
        c->rows[at].can[YIELD_SHRINK] =
            would_shrink(p, c->instance[at], g, short_bytes, c->rows[at].frees[YIELD_SHRINK]);
    }
}

/* ---- the steps ---- */

static void reason_use(const struct pool_instance *i, uint64_t frees, bool small, struct plan_reason *r)
{
    char size[24];
    (void)str_human_bytes(frees, size, sizeof size);
    if (i->busy)
        reason_set(r, "yields", "it takes no new requests, ends its %u, and gives %s back", i->busy, size);
    else
        reason_set(r, small ? "yields_some" : "yields", "idle for %" PRIu64 " s; it gives %s back%s",
                   (i->pool->deps.now_ms() - i->last_used_ms) / 1000, size,
                   small ? " and is loaded again in less memory" : "");
}

static void take_step(struct tenants *t, struct pool_instance *i, enum yield_kind kind, const uint64_t *frees,
                      const struct gauges *g, const uint64_t *short_bytes)
{
    struct pool *p = t->pool;
    struct entry *e = i->entry;
    struct plan_reason r[HW_MAX_DEVICES + 2];
    bool small = kind == YIELD_SHRINK;
    uint64_t sum = 0;
    size_t n = 0;
    for (size_t k = 0; k < g->n; k++) {
        if (!short_bytes[k] || !frees[k])
            continue;
        sum += frees[k];
        tenant_reason(p, &g->rows[k], &t->host, &r[n++]);
    }
    reason_use(i, sum, small, &r[n++]);
    p->count.yields[kind]++;
    p->count.evictions += !small;
    decide(p, small ? "shrink" : "evict", e, i, r, n, NULL, 0);
    e->yielded = (struct yielded){.what = small             ? YIELDED_RELOAD
                                          : e->lead->pinned ? YIELDED_AWAY
                                                            : YIELDED_NOT,
                                  .then = YIELDED_SMALL,
                                  .serial = i->serial,
                                  .bytes = i->reserve};
    t->reloads += small;
    instance_detach(i);
    instance_stop(i, STOP_DRAIN);
}

static void act(struct tenants *t)
{
    struct pool *p = t->pool;
    uint64_t short_bytes[HW_MAX_DEVICES + 1];
    struct yield_step steps[PLAN_MAX_RESIDENTS];
    struct gauges g;
    bool any;
    gauges_read(p, &g);
    if (p->stopping || !find_short(t, &g, short_bytes, &any))
        return;
    struct candidates *c = mem_new(struct candidates);
    find_candidates(p, &g, c);
    find_shrinks(p, &g, short_bytes, c);
    size_t n = yield_choose(short_bytes, g.n, c->rows, c->n, level_of(t), steps);
    for (size_t k = 0; k < n; k++)
        take_step(t, c->instance[steps[k].resident], steps[k].kind,
                  c->rows[steps[k].resident].frees[steps[k].kind], &g, short_bytes);
    free(c);
}

/* ---- naming others ---- */

static void list_work(uv_work_t *req)
{
    struct listing *l = req->data;
    l->list.n = l->pool->deps.largest(l->skip, l->n_skip, l->list.rows, TABLE_COUNT(l->list.rows));
}

static void listed(uv_work_t *req, int status)
{
    struct listing *l = req->data;
    struct pool *p = l->pool;
    (void)status;
    p->n_work--;
    p->tenants->listing = false;
    p->tenants->listed_ms = p->deps.now_ms();
    p->tenants->host = l->list;
    free(l);
    act(p->tenants);
    pool_kick(p);
}

static void begin(struct tenants *t)
{
    struct pool *p = t->pool;
    if (t->listing)
        return;
    if (t->listed_ms && p->deps.now_ms() - t->listed_ms < LIST_REST_MS) {
        act(t);
        return;
    }
    struct listing *l = mem_new(struct listing);
    l->pool = p;
    l->req.data = l;
    l->skip[l->n_skip++] = getpid();
    for (const struct pool_instance *i = p->instances; i && l->n_skip < TABLE_COUNT(l->skip); i = i->next)
        if (i->job)
            l->skip[l->n_skip++] = p->deps.launch->pid(i->job);
    t->listing = true;
    p->n_work++;
    if (uv_queue_work(p->loop, &l->req, list_work, listed) != 0)
        abort(); /* only for a NULL callback */
}

/* ---- taking back ---- */

static void load_modestly(struct entry *e)
{
    e->modest = true;
    load_begin(e);
}

/* Its process is gone, and a sample tells what is free since: an older one may show its memory as used or as
 * free, and the reload is to fit what is left exactly. */
static bool is_gone(struct pool *p, struct yielded *y)
{
    for (const struct pool_instance *i = p->instances; i; i = i->next)
        if (i->serial == y->serial && instance_holds_memory(i))
            return false;
    if (!y->gone_ms) {
        y->gone_ms = p->deps.now_ms();
        if (p->opt.hooks.want_sample)
            p->opt.hooks.want_sample(p->opt.hooks.arg);
    }
    return p->opt.hooks.inventory(p->opt.hooks.arg)->begun_ms >= y->gone_ms;
}

void tenants_turn(struct tenants *t)
{
    struct pool *p = t->pool;
    for (size_t k = 0; t->reloads > 0 && !p->stopping && k < p->n_entries; k++)
        for (struct entry *s = p->entries[k]; s; s = s->twin) {
            if (s->yielded.what != YIELDED_RELOAD || !is_gone(p, &s->yielded))
                continue;
            t->reloads--;
            s->yielded.what = s->yielded.then;
            if (s->demand == DEMAND_NONE)
                load_modestly(s);
        }
}

/* What a load would take beside what is loaded, and a band above it, is free. */
static bool has_room(const struct gauges *g, const struct reserve *wanted, const struct reserve *has)
{
    for (size_t k = 0; k < g->n; k++) {
        uint64_t more = gauge_of(&g->rows[k], wanted), held = has ? gauge_of(&g->rows[k], has) : 0;
        more = more > held ? more - held : 0;
        if (more && g->rows[k].slack_bytes < (int64_t)(more + g->rows[k].margin_bytes / 4))
            return false;
    }
    return true;
}

static void grow(struct tenants *t, struct entry *e)
{
    struct pool_instance *i = e->current;
    struct plan_reason r;
    reason_set(&r, "memory_is_back", "others gave memory back: it is loaded again with what it had before");
    decide(t->pool, "grow", e, i, &r, 1, NULL, 0);
    e->yielded = (struct yielded){.what = YIELDED_RELOAD, .then = YIELDED_NOT, .serial = i->serial};
    t->reloads++;
    instance_detach(i);
    instance_stop(i, STOP_DRAIN);
}

/* There has been room for long enough: others that come and go would have it come and go with them. */
static bool has_lasting_room(struct entry *e, const struct gauges *g, const struct reserve *has)
{
    const struct pool *p = e->pool;
    uint64_t now = p->deps.now_ms();
    if (!g || !has_room(g, &e->yielded.bytes, has)) {
        e->yielded.room_ms = 0;
        return false;
    }
    if (!e->yielded.room_ms)
        e->yielded.room_ms = now;
    return now - e->yielded.room_ms >= CALM_FACTOR * p->opt.yield_after_ms;
}

/* g: NULL while something is short. */
static bool takes_back(struct tenants *t, struct entry *e, const struct gauges *g)
{
    struct pool_instance *i = e->current;
    if (e->yielded.what == YIELDED_AWAY && has_lasting_room(e, g, NULL) && e->demand == DEMAND_NONE) {
        load_modestly(e);
        return true;
    }
    if (e->yielded.what != YIELDED_SMALL || !i || i->state != POOL_READY ||
        !has_lasting_room(e, g, &i->reserve))
        return false;
    if (i->busy > 0 || i->suspect || i->leases == 0 || wait_count(e) > 0)
        return false;
    grow(t, e);
    return true;
}

static void take_back(struct tenants *t, const struct gauges *g)
{
    struct pool *p = t->pool;
    for (size_t k = 0; k < p->n_entries; k++)
        for (struct entry *s = p->entries[k]; s; s = s->twin)
            if (takes_back(t, s, g))
                return; /* one at a time: the gauges are as they were */
}

void tenants_forget(struct entry *e)
{
    if (e->yielded.what == YIELDED_RELOAD)
        e->pool->tenants->reloads--;
    e->yielded.what = YIELDED_NOT;
    e->modest = false;
}

void tenants_no_room(struct entry *e)
{
    struct plan_reason r;
    reason_set(&r, "no_room", "others hold its memory: it is loaded again when it is asked for%s",
               e->lead->pinned ? ", or when there is room" : "");
    decide(e->pool, "unload", e, NULL, &r, 1, NULL, 0);
    e->yielded.what = e->lead->pinned ? YIELDED_AWAY : YIELDED_NOT;
}

/* ---- looks ---- */

void tenants_look(struct tenants *t)
{
    struct pool *p = t->pool;
    uint64_t short_bytes[HW_MAX_DEVICES + 1];
    struct gauges g;
    bool any;
    if (p->stopping || !p->opt.yields)
        return;
    gauges_read(p, &g);
    note_level(t, &g.rows[g.n - 1]);
    bool due = find_short(t, &g, short_bytes, &any);
    if (t->reloads > 0)
        pool_kick(p);
    take_back(t, any || t->told != YIELD_CALM ? NULL : &g);
    if (due)
        begin(t);
}

void pool_pressure(struct pool *p, enum yield_level level)
{
    if (p->tenants->kernel == level)
        return;
    p->tenants->kernel = level;
    tenants_look(p->tenants);
    if (p->opt.hooks.want_sample)
        p->opt.hooks.want_sample(p->opt.hooks.arg);
}

yyjson_mut_val *pool_memory_json(struct pool *p, yyjson_mut_doc *doc)
{
    struct gauges g;
    gauges_read(p, &g);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_obj_add_str(doc, o, "pressure", yield_level_word(level_of(p->tenants)));
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(doc, o, "devices");
    for (size_t k = 0; k < g.n; k++)
        yyjson_mut_arr_append(list, tenant_json(p, &g.rows[k], &p->tenants->host, doc));
    return o;
}

enum yield_level pool_memory(struct pool *p, void (*fn)(void *arg, const struct pool_gauge *g), void *arg)
{
    struct gauges g;
    gauges_read(p, &g);
    for (size_t k = 0; k < g.n; k++) {
        const struct pool_gauge row = {.device = g.rows[k].name,
                                       .foreign_bytes = g.rows[k].foreign_bytes,
                                       .short_bytes = gauge_short(&g.rows[k])};
        fn(arg, &row);
    }
    return level_of(p->tenants);
}
