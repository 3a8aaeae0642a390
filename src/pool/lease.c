/* Leases: which instance serves a request, who has to wait, and what is known when one ends. See pool_priv.h.
 *
 * An instance takes as many requests at a time as it has slots, and `surplus` more that wait inside the
 * runtime; all others stand in the model's line, where they can be ordered, counted and cancelled. */
#include "pool/pool_priv.h"

#include <stdio.h>
#include <string.h>

#define PREFIX_SLACK                                                                                         \
    2u /* requests that the holder of a prompt's beginning may have more than the least busy one */
#define GUESS_TOKENS 256u /* of an answer, until a request was measured */
#define RETRY_MAX_S  3600u
#define UNLOADED_MS  10000u /* a load of which nothing is known yet */

/* ---- instances ---- */

/* As many as it is sent at a time now; 0 = not known: no bound. */
static uint32_t slots_of(const struct pool_instance *i)
{
    return heat_slots(i);
}

static bool is_ready(const struct pool_instance *i)
{
    return i && i->state == POOL_READY && !i->suspect;
}

static bool has_room(const struct pool_instance *i)
{
    uint32_t slots = slots_of(i), all = i->plan.estimate.params.parallel;
    return slots == 0 || i->slots < (slots < all ? slots : all + i->pool->opt.surplus);
}

bool lease_is_ready(const struct entry *e)
{
    for (const struct entry *s = e->lead; s; s = s->twin)
        if (is_ready(s->current))
            return true;
    return false;
}

/* Failures count as requests: one that fails fast would look idle and attract more. So do steps for heat. */
static uint32_t load_of(const struct pool_instance *i)
{
    const struct heat_row *hot = heat_of(i);
    return i->slots + i->breaker.failures + (hot ? hot->step : 0);
}

/* Of two that are equally busy the one that was idle for longer: what it still remembers of a conversation is
 * the least likely to be asked for. */
static bool comes_before(const struct pool_instance *a, const struct pool_instance *b)
{
    if (load_of(a) != load_of(b))
        return load_of(a) < load_of(b);
    if (a->last_used_ms != b->last_used_ms)
        return a->last_used_ms < b->last_used_ms;
    return a->leases < b->leases;
}

struct pool_instance *lease_pick(const struct entry *e, const struct prefix *prefix, bool light)
{
    const struct entry *lead = e->lead;
    uint64_t now = lead->pool->deps.now_ms(), holder = 0;
    struct pool_instance *best = NULL, *held = NULL;
    if (prefix && lead->prefixes)
        holder = prefix_find(lead->prefixes, prefix, NULL);
    for (const struct entry *s = lead; s; s = s->twin) {
        struct pool_instance *i = s->current;
        if (!is_ready(i) || !breaker_lets(&i->breaker, now) ||
            (!light && (!has_room(i) || heat_pauses(i, now))))
            continue;
        if (!best || comes_before(i, best))
            best = i;
        if (i->serial == holder)
            held = i;
    }
    if (held && load_of(held) <= load_of(best) + PREFIX_SLACK) {
        lead->pool->count.prefix_hits++;
        return held;
    }
    return best;
}

void lease_describe(const struct pool_instance *i, struct pool_lease *l)
{
    *l = (struct pool_lease){.port = i->port,
                             .serial = i->serial,
                             .wake_member = i->pool->deps.runtime->wake_member,
                             .wake_event = i->pool->deps.runtime->wake_event,
                             .collect_members = i->pool->deps.runtime->collect_members,
                             .speaks = i->pool->deps.runtime->speaks};
    snprintf(l->instance, sizeof l->instance, "%s", i->id);
    snprintf(l->model, sizeof l->model, "%s", i->model);
    snprintf(l->host, sizeof l->host, "127.0.0.1");
}

void lease_fill(struct pool_instance *i, bool light, struct pool_lease *l)
{
    uint64_t now = i->pool->deps.now_ms();
    lease_describe(i, l);
    l->light = light;
    l->since_ms = now;
    i->busy++;
    i->slots += !light;
    i->leases++;
    i->granted_ms = light ? i->granted_ms : now;
    i->last_used_ms = now;
    i->returned |= i->rested;
    breaker_sent(&i->breaker, now);
    if (i->busy > 1)
        i->crowded_ms = i->last_used_ms;
    if (i->timer_for == TIMER_TTL) {
        uv_timer_stop(&i->timer);
        i->timer_for = TIMER_NONE;
    }
}

/* ---- how long it takes ---- */

static uint64_t ready_slots(const struct entry *lead)
{
    uint64_t n = 0;
    for (const struct entry *s = lead; s; s = s->twin)
        if (is_ready(s->current))
            n += slots_of(s->current) ? slots_of(s->current) : UINT32_MAX;
    return n;
}

/* As measured, else what the plan expects of a middling answer. */
uint64_t lease_service_ms(const struct entry *lead)
{
    if (lead->service_us)
        return lead->service_us / 1000 + 1;
    for (const struct entry *s = lead; s; s = s->twin)
        if (s->current && s->current->plan.speed.decode_tps > 0)
            return (uint64_t)(GUESS_TOKENS * 1000 / s->current->plan.speed.decode_tps) + 1;
    return 1000;
}

uint64_t lease_load_left_ms(const struct entry *lead)
{
    uint64_t best = UINT64_MAX, now = lead->pool->deps.now_ms();
    for (const struct entry *s = lead; s; s = s->twin) {
        const struct pool_instance *i = s->current;
        uint64_t left = s->demand == DEMAND_NONE ? UNLOADED_MS : 1000;
        if (is_ready(i))
            return 0;
        if (i && i->plan.speed.load_seconds > 0) {
            uint64_t whole = (uint64_t)(i->plan.speed.load_seconds * 1000);
            uint64_t spent = i->start_ms ? now - i->start_ms : 0;
            left = spent + 1000 < whole ? whole - spent : 1000;
        } else if (s->retry_at_ms > now) {
            left = s->retry_at_ms - now;
        }
        best = left < best ? left : best;
    }
    return best;
}

static uint32_t to_u32(uint64_t v)
{
    return v < UINT32_MAX ? (uint32_t)v : UINT32_MAX;
}

uint32_t lease_expected_ms(const struct entry *e, size_t ahead)
{
    const struct entry *lead = e->lead;
    uint64_t load = lease_load_left_ms(lead), slots = ready_slots(lead), before = ahead + 1;
    if (load > 0) { /* all slots are free when it is there */
        uint32_t parallel = lead->policy.parallel ? lead->policy.parallel : 4;
        before = ahead < parallel ? 0 : ahead + 1 - parallel;
        slots = parallel;
    }
    return to_u32(load + before * lease_service_ms(lead) / (slots ? slots : 1));
}

/* A place in the line gets free with every grant; who was sent away before takes the earlier ones. */
uint32_t lease_retry_after_s(const struct entry *e)
{
    const struct entry *lead = e->lead;
    uint64_t slots = ready_slots(lead);
    uint64_t ms = lease_load_left_ms(lead) +
                  ((uint64_t)lead->turned_away + 1) * lease_service_ms(lead) / (slots ? slots : 1);
    uint64_t s = ms / 1000 + (ms % 1000 > 0);
    return s < 1 ? 1 : s < RETRY_MAX_S ? (uint32_t)s : RETRY_MAX_S;
}

/* ---- asking ---- */

static enum pool_answer refuse_full(struct entry *lead, uint32_t *ret_retry_after_s, struct err *err)
{
    (void)err_set(err, RC_TOO_MANY, "%u requests wait for model %s already", lead->n_waiting, lead->id);
    err_hint(err, "ask again later; max_waiting sets how many may wait");
    *ret_retry_after_s = lease_retry_after_s(lead);
    lead->turned_away++;
    lead->pool->count.refused++;
    if (!lead->told_full) {
        struct plan_reason r;
        reason_set(&r, "queue_full", "%u requests wait already, as many as max_waiting allows",
                   lead->n_waiting);
        decide(lead->pool, "refuse", lead, NULL, &r, 1, NULL, 0);
    }
    lead->told_full = true;
    return POOL_REFUSED;
}

/* After a failure the model is left alone for a while: the cause is told at once. */
static bool in_back_off(struct entry *e, struct err *err)
{
    if (!backoff_left_ms(e))
        return false;
    backoff_look(e);
    (void)err_set(err, RC_BACKEND, "model %s is held back for %u s after a failure: %.300s", e->id,
                  load_retry_after_s(e), e->cause.message);
    err_hint(err, "%s", e->cause.hint);
    return true;
}

/* Every instance that is there answers with errors, and none is on its way. */
static bool is_tripped(const struct entry *lead, uint32_t *ret_retry_after_s, struct err *err)
{
    uint64_t now = lead->pool->deps.now_ms(), wait = UINT64_MAX;
    for (const struct entry *s = lead; s; s = s->twin) {
        if (s->demand == DEMAND_NONE)
            continue;
        if (!is_ready(s->current) || breaker_lets(&s->current->breaker, now))
            return false;
        uint64_t ms = breaker_wait_ms(&s->current->breaker, now);
        wait = ms < wait ? ms : wait;
    }
    if (wait == UINT64_MAX)
        return false;
    *ret_retry_after_s = (uint32_t)(wait / 1000 + 1);
    (void)err_set(err, RC_BACKEND,
                  "model %s answered its last requests with errors and is left alone for %u s", lead->id,
                  *ret_retry_after_s);
    err_hint(err, "see what it wrote: arriero logs %s", lead->id);
    return true;
}

uint64_t pool_expected_ms(const struct pool *p, struct str model)
{
    const struct entry *e = entry_find(p, model);
    struct err err;
    uint32_t after;
    if (!e || is_tripped(e, &after, &err) || (!seats_are_wanted(e) && !seats_may_load(e)))
        return UINT64_MAX;
    const struct pool_instance *i = line_length(e->line) ? NULL : lease_pick(e, NULL, false);
    if (i) /* at once: less than any wait, more the busier it is */
        return (uint64_t)load_of(i) * 1000 / (slots_of(i) ? slots_of(i) : 1000);
    return 1000 + (uint64_t)lease_expected_ms(e, line_length(e->line));
}

/* False: refused. */
static bool may_wait(struct entry *lead, uint32_t *ret_retry_after_s, struct err *err)
{
    struct pool *p = lead->pool;
    if (is_tripped(lead, ret_retry_after_s, err)) {
        p->count.refused++;
        return false;
    }
    if (!seats_are_wanted(lead) && !seats_may_load(lead) && in_back_off(lead, err)) {
        *ret_retry_after_s = load_retry_after_s(lead);
        p->count.refused++;
        return false;
    }
    if (lead->n_waiting < p->opt.max_waiting)
        return true;
    (void)refuse_full(lead, ret_retry_after_s, err);
    return false;
}

void lease_resume(struct entry *lead)
{
    struct err err;
    if (lead->n_waiting == 0 || seats_are_wanted(lead))
        return;
    if (!seats_may_load(lead) && in_back_off(lead, &err))
        wait_fail_all(lead, RC_BACKEND, &err, load_retry_after_s(lead));
    else
        seats_load(lead);
}

static struct pool_wait *stand_in_line(struct entry *lead, const struct pool_request *r,
                                       const struct prefix *prefix, pool_acquire_cb cb, void *arg)
{
    struct pool_wait *w = wait_in_line(lead, r, cb, arg);
    size_t ahead = line_ahead(lead->line, &w->spot);
    w->band = r->band;
    w->position = to_u32(ahead + 1);
    w->expected_ms = lease_expected_ms(lead, ahead);
    if (prefix) {
        w->prefix = mem_new(struct prefix);
        *w->prefix = *prefix;
    }
    return w;
}

/* A request came: how long was the model without one? */
static void note_use(struct entry *lead)
{
    uint64_t now = lead->pool->deps.now_ms();
    bool in_use = lead->n_waiting > 0;
    for (const struct entry *s = lead; s && !in_use; s = s->twin)
        in_use = s->current && s->current->busy > 0;
    residence_wanted(lead);
    if (lead->used_ms)
        reuse_seen(&lead->reuse, in_use ? 0 : (double)(now - lead->used_ms) / 1000);
    lead->used_ms = now;
}

enum pool_answer pool_acquire(struct pool *p, const struct pool_request *r, pool_acquire_cb cb, void *arg,
                              struct pool_lease *ret_lease, struct pool_wait **ret_wait,
                              uint32_t *ret_retry_after_s, struct err *err)
{
    struct prefix prefix, *known = NULL;
    *ret_retry_after_s = 0;
    if (p->stopping) {
        (void)pool_refuse_stopping(err);
        return POOL_REFUSED;
    }
    struct entry *e = entry_find(p, r->model);
    if (!e) {
        (void)entry_unknown(p, r->model, err);
        return POOL_REFUSED;
    }
    if (!r->light)
        note_use(e);
    if (!r->light && r->prompt.n >= PREFIX_SHORT && (e->prefixes || kv_is_kept(e))) {
        prefix_of(r->prompt, p->seed, &prefix);
        known = &prefix;
    }
    struct pool_instance *i = r->light || !line_length(e->line) ? lease_pick(e, known, r->light) : NULL;
    if (i) {
        if (known && e->prefixes)
            prefix_put(e->prefixes, known, i->serial);
        lease_fill(i, r->light, ret_lease);
        if (!known || !kv_starts(i, known, ret_lease))
            return POOL_GRANTED;
        *ret_wait = kv_restore(i, ret_lease, wait_aside(e, cb, arg));
        return POOL_WAITING;
    }
    if (!may_wait(e, ret_retry_after_s, err))
        return POOL_REFUSED;
    *ret_wait = r->light ? wait_add(e, cb, NULL, arg) : stand_in_line(e, r, known, cb, arg);
    p->count.waits++;
    seats_load(e);
    return POOL_WAITING;
}

static enum pool_stage stage_of(const struct entry *seat)
{
    const struct pool_instance *i = seat->current;
    if (is_ready(i))
        return POOL_QUEUED;
    switch (seat->demand) {
    case DEMAND_BLOCKED: return POOL_BLOCKED;
    case DEMAND_PLACED: return i && i->state == POOL_STARTING ? POOL_LOADING : POOL_MAKING_ROOM;
    case DEMAND_NONE:
    case DEMAND_PREPARING: break;
    }
    return POOL_PLANNING;
}

/* Of several seats the one that is nearest to serving counts. */
void pool_look(const struct pool_wait *w, struct pool_look *ret)
{
    static const uint8_t nearness[] = {[POOL_PLANNING] = 0,
                                       [POOL_BLOCKED] = 1,
                                       [POOL_MAKING_ROOM] = 2,
                                       [POOL_LOADING] = 3,
                                       [POOL_QUEUED] = 4};
    if (w->restore) { /* its entry may be gone */
        *ret = (struct pool_look){.stage = POOL_LOADING};
        return;
    }
    size_t ahead = w->spot.flow ? line_ahead(w->entry->line, &w->spot) : 0;
    *ret = (struct pool_look){.stage = POOL_PLANNING,
                              .position = w->spot.flow ? to_u32(ahead + 1) : 0,
                              .expected_ms = lease_expected_ms(w->entry, ahead)};
    for (const struct entry *s = w->entry->lead; s; s = s->twin) {
        enum pool_stage stage = stage_of(s);
        if (nearness[stage] < nearness[ret->stage])
            continue;
        ret->stage = stage;
        if (stage == POOL_LOADING && s->current->progress > ret->progress)
            ret->progress = s->current->progress;
    }
}

void pool_cancel(struct pool *p, struct pool_wait *w)
{
    if (w->restore)
        kv_restore_cancel(w);
    else
        wait_remove(w);
    if (p->blocked_first)
        pool_kick(p);
}

/* ---- the end of a lease ---- */

static void learn_service(struct entry *lead, uint64_t ms)
{
    uint64_t us = ms * 1000 + 500;
    lead->service_us = lead->service_us ? (lead->service_us * 7 + us) / 8 : us;
}

static void tell_tripped(struct pool_instance *i)
{
    struct plan_reason r;
    uint64_t now = i->pool->deps.now_ms();
    i->pool->count.trips++;
    reason_set(&r, "breaker_open", "it answered %u requests in a row with errors: none is sent for %.1f s",
               i->breaker.failures, (double)breaker_wait_ms(&i->breaker, now) / 1000);
    decide(i->pool, "breaker", NULL, i, &r, 1, NULL, 0);
}

void pool_release(struct pool *p, struct pool_lease *lease, enum pool_end end)
{
    static const enum breaker_end ends[] = {[POOL_END_FINE] = BREAKER_SUCCESS,
                                            [POOL_END_LEFT] = BREAKER_NOTHING,
                                            [POOL_END_FAILED] = BREAKER_FAILURE,
                                            [POOL_END_BROKEN] = BREAKER_FAILURE};
    struct pool_instance *i = p->instances;
    while (i && i->serial != lease->serial)
        i = i->next;
    lease->serial = 0;
    if (!i || i->busy == 0)
        return; /* it has ended in the meantime */
    uint64_t now = p->deps.now_ms();
    kv_ended(i, lease, end);
    i->last_used_ms = now;
    if (i->entry && !lease->light)
        i->entry->lead->used_ms = now;
    if (i->busy-- > 1)
        i->crowded_ms = now;
    i->slots -= !lease->light && i->slots > 0;
    if (!lease->light && end == POOL_END_FINE && i->entry)
        learn_service(i->entry->lead, now - lease->since_ms);
    /* that tokens can be counted does not show that any can be made */
    enum breaker_end told = lease->light && end == POOL_END_FINE ? BREAKER_NOTHING : ends[end];
    if (breaker_ended(&i->breaker, told, now, now * 0x9e3779b97f4a7c15u >> 17))
        tell_tripped(i);
    if (end == POOL_END_BROKEN)
        instance_check(i);
    if (i->busy == 0) {
        instance_idle(i);
        p->room_changed = true; /* others may wait for it to be idle */
    }
    if (i->busy == 0 || p->n_waiting > 0)
        pool_kick(p);
}
