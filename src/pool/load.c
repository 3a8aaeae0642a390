/* From demand to a running instance: see pool_priv.h.
 *
 *   load_begin       the preparation starts (prepare.c)
 *   load_try_room    the planner is asked: room, victims that make it, a wait, or never
 *   load_room_made   the victims are gone: the process starts
 *   load_ready       GET /health said 200: everybody who waited is served
 *   load_failed      another port, the next step of the ladder, or back-off
 *
 * A failure is kept with its cause: until its back-off is over a request is refused with that cause at once.
 */
#include "pool/tenant.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- demand ---- */

static void fail_entry(struct entry *e, enum rc rc, const struct err *err);

void load_warm_up(struct pool *p)
{
    if (!p->default_caps && !p->stopping && p->n_entries > 0)
        (void)prep_start(p, NULL);
}

void load_begin(struct entry *e)
{
    e->demand = DEMAND_PREPARING;
    e->told_waiting = false;
    if (e->yielded.what == YIELDED_AWAY)
        e->yielded.what = YIELDED_NOT;
    e->prep = prep_start(e->pool, e);
}

void load_unprepared(struct entry *e, enum rc rc, const struct err *err)
{
    struct plan_reason r[2];
    e->demand = DEMAND_NONE;
    e->pool->count.load_failures++;
    backoff_failed(e);
    reason_set(&r[0], rc_word(rc), "%s", err->message);
    decide(e->pool, "fail", e, NULL, r, 1 + backoff_reason(e, &r[1]), NULL, 0);
    fail_entry(e, rc, err);
}

static void blocked_add(struct entry *e)
{
    struct entry **at = &e->pool->blocked_first;
    while (*at)
        at = &(*at)->next_blocked;
    *at = e;
    e->next_blocked = NULL;
    e->demand = DEMAND_BLOCKED;
    e->blocked_ms = e->pool->deps.now_ms();
    pool_retime(e->pool);
}

bool load_time_is_up(const struct entry *e)
{
    uint64_t patience = e->pool->opt.patience_ms;
    return e->demand == DEMAND_BLOCKED && patience && e->pool->deps.now_ms() - e->blocked_ms >= patience;
}

void blocked_remove(struct entry *e)
{
    for (struct entry **at = &e->pool->blocked_first; *at; at = &(*at)->next_blocked)
        if (*at == e) {
            *at = e->next_blocked;
            e->next_blocked = NULL;
            break;
        }
    pool_retime(e->pool);
}

void load_drop(struct entry *e)
{
    if (e->prep) {
        e->prep->entry = NULL;
        e->prep = NULL;
    }
    if (e->demand == DEMAND_BLOCKED)
        blocked_remove(e);
    if (e->demand != DEMAND_PLACED)
        e->demand = DEMAND_NONE;
}

/* ---- failure ---- */

uint32_t load_retry_after_s(const struct entry *e)
{
    uint64_t left = backoff_left_ms(e);
    if (left)
        return (uint32_t)((left + 999) / 1000);
    if (e->current && e->current->plan.speed.load_seconds > 1)
        return e->current->plan.speed.load_seconds < 300 ? (uint32_t)e->current->plan.speed.load_seconds
                                                         : 300;
    return 1;
}

/* Everything that keeps a load from coming about is the server's trouble, not the request's: only "never
 * fits" and "nobody can load this" keep their own code. */
static enum rc client_code(enum rc rc)
{
    return rc == RC_NO_FIT || rc == RC_UNSUPPORTED ? rc : RC_BACKEND;
}

/* Those who wait are told, and when to ask again if it is held back. */
static void fail_entry(struct entry *e, enum rc rc, const struct err *err)
{
    struct err told = *err;
    e->cause = *err;
    e->cause.code = rc;
    err_prefix(&told, "model %s could not be loaded", e->id);
    if (!seats_other_serves(e))
        wait_fail_all(e, client_code(rc), &told, backoff_left_ms(e) ? load_retry_after_s(e) : 0);
}

/* ---- room ---- */

static uint64_t reserve_total(const struct reserve *r)
{
    uint64_t bytes = r->host_bytes;
    for (size_t d = 0; d < r->n; d++)
        bytes += r->rows[d].bytes;
    return bytes;
}

static void tell_evictions(struct entry *e, const struct admission *a)
{
    char size[24], room[24];
    for (size_t k = 0; k < a->n_victims; k++) {
        struct pool_instance *v = a->victims[k];
        if (v->state != POOL_READY)
            continue;
        uint64_t bytes = reserve_total(&v->reserve), need = reserve_total(&a->reserve);
        struct plan_reason r;
        if (a->patience)
            reason_set(&r, "turn_of_another",
                       "%s waited long enough: %s takes no new requests, ends its %u, and gives "
                       "%s",
                       e->id, v->model, v->busy, str_human_bytes(bytes, size, sizeof size));
        else
            reason_set(&r, "evicted_for", "idle for %" PRIu64 " s; its %s make room for %s, which needs %s",
                       (e->pool->deps.now_ms() - v->last_used_ms) / 1000,
                       str_human_bytes(bytes, size, sizeof size), e->id,
                       str_human_bytes(need, room, sizeof room));
        e->pool->count.evictions++;
        decide_for(e->pool, "evict", v, &r, e->id);
    }
}

bool load_may_start(struct pool_instance *i)
{
    struct plan_reason r;
    if (i->victims_left > 0)
        return false;
    bool may = disk_has_turn(i);
    if (!may && !i->told_waiting) {
        i->told_waiting = true;
        reason_set(&r, "waits_for_disk", "there is room for %s, but %s", i->model,
                   i->pool->opt.loads_at_once ? "limits.loads_at_once allows no further load now"
                                              : "the disk is busy with other loads");
        decide(i->pool, "wait", i->entry, i, &r, 1, NULL, 0);
    }
    return may;
}

/* The plan's reasons, and who leaves for it. */
static void tell_load(struct entry *e, struct pool_instance *i, const struct admission *a)
{
    struct plan_reason reasons[PLAN_MAX_REASONS + PLAN_MAX_RESIDENTS];
    char size[24];
    size_t n = 0;
    for (; n < i->plan.n_reasons; n++)
        reasons[n] = i->plan.reasons[n];
    for (size_t k = 0; k < a->n_victims; k++) {
        const struct pool_instance *v = a->victims[k];
        uint64_t bytes = reserve_total(&v->reserve);
        if (v->state == POOL_READY && v->busy > 0)
            reason_set(&reasons[n++], "displaces",
                       "%s had to leave when its %u requests had ended: it held %s", v->model, v->busy,
                       str_human_bytes(bytes, size, sizeof size));
        else if (v->state == POOL_READY)
            reason_set(&reasons[n++], "displaces", "%s, idle for %" PRIu64 " s, had to leave: it held %s",
                       v->model, (e->pool->deps.now_ms() - v->last_used_ms) / 1000,
                       str_human_bytes(bytes, size, sizeof size));
    }
    decide(e->pool, "load", e, i, reasons, n, &i->plan, 0);
}

static void place(struct entry *e, const struct admission *a)
{
    if (e->demand == DEMAND_BLOCKED)
        blocked_remove(e);
    if (e->record)
        instance_detach(e->record);
    struct pool_instance *i = instance_new(e, a);
    e->current = i;
    e->demand = DEMAND_PLACED;
    tell_load(e, i, a);
    tell_evictions(e, a);
    for (size_t k = 0; k < a->n_victims; k++) {
        struct pool_instance *v = a->victims[k];
        v->room_for = i;
        i->victims_left++;
        if (v->state == POOL_DRAINING)
            continue; /* on its way out already */
        residence_left_for(v, i);
        instance_detach(v);
        instance_stop(v, STOP_DRAIN);
    }
    if (load_may_start(i))
        load_room_made(i);
    else
        pool_retime(e->pool);
}

static void wait_for_room(struct entry *e, const struct admission *a, const struct err *why)
{
    e->wants = a->reserve;
    if (e->demand != DEMAND_BLOCKED)
        blocked_add(e);
    if (e->told_waiting)
        return;
    e->told_waiting = true;
    struct plan_reason r;
    reason_set(&r, "waits_for_room", "%s", why->message);
    decide(e->pool, "wait", e, NULL, &r, 1, NULL, 0);
}

/* What was free on the devices of a load that ran out of memory. */
static void note_short(struct entry *e, const struct pool_instance *i)
{
    e->short_of.at_ms = e->pool->deps.now_ms();
    e->short_of.told = i->reserve;
    for (size_t k = 0; k < e->short_of.told.n; k++)
        for (size_t d = 0; d < i->machine.n_devices; d++)
            if (strcmp(e->short_of.told.rows[k].name, i->machine.devices[d].name) == 0)
                e->short_of.told.rows[k].bytes = i->machine.devices[d].free_bytes;
}

/* Did somebody take memory on one of them between plan and load? */
static bool was_taken(struct entry *e)
{
    struct plan_machine *m = mem_new(struct plan_machine);
    bool taken = false;
    admit_machine(e->pool, e->caps, e->policy.device, m);
    for (size_t k = 0; k < e->short_of.told.n; k++) {
        bool there = false;
        for (size_t d = 0; d < m->n_devices; d++) {
            bool same = strcmp(e->short_of.told.rows[k].name, m->devices[d].name) == 0;
            there |= same;
            taken |= same && m->devices[d].free_bytes + MIB <= e->short_of.told.rows[k].bytes;
        }
        taken |= !there;
    }
    free(m);
    return taken;
}

bool load_sample_is_late(const struct entry *e)
{
    return e->short_of.at_ms && e->pool->deps.now_ms() - e->short_of.at_ms >= POOL_SAMPLE_MS;
}

/* A load that ran out of memory is planned anew with a sample of after that: if memory was taken meanwhile,
 * for what is left, and the step down is taken back. False: there is no such sample yet. */
static bool has_looked_again(struct entry *e)
{
    struct pool *p = e->pool;
    const struct hw_inventory *inv = p->opt.hooks.inventory(p->opt.hooks.arg);
    if (e->short_of.at_ms == 0)
        return true;
    if (inv->begun_ms < e->short_of.at_ms && p->opt.hooks.want_sample && !load_sample_is_late(e)) {
        p->opt.hooks.want_sample(p->opt.hooks.arg);
        return false;
    }
    e->short_of.at_ms = 0;
    if (e->ladder > 0 && e->short_of.taken_back < POOL_MAX_LADDER && was_taken(e)) {
        e->ladder--;
        e->short_of.taken_back++;
    }
    return true;
}

/* What never fits is refused anew each time. What was tried in every way and failed is a failure: it is left
 * alone for a while, and begins from the top then. */
static void refuse(struct entry *e, struct plan *plan, struct err *err)
{
    bool tried = e->ladder > 0 && err->code == RC_NO_FIT;
    if (tried) {
        char text[sizeof err->message];
        snprintf(text, sizeof text, "%s", err->message);
        (void)err_set(err, RC_NO_FIT, "%.200s; the latest: %.260s", text, e->cause.message);
        err_hint(err, "%s", e->cause.hint);
    }
    if (tried || err->code != RC_NO_FIT || seats_is_extra(e)) {
        backoff_failed(e);
        if (plan->n_reasons < PLAN_MAX_REASONS)
            plan->n_reasons += (uint32_t)backoff_reason(e, &plan->reasons[plan->n_reasons]);
    }
    if (tried)
        e->ladder = 0;
    decide(e->pool, "refuse", e, NULL, plan->reasons, plan->n_reasons, NULL, 0);
    fail_entry(e, err->code, err);
}

void load_try_room(struct entry *e)
{
    struct pool *p = e->pool;
    struct err err = {0};
    struct plan_policy policy = e->policy;
    if (!has_looked_again(e)) {
        if (e->demand != DEMAND_BLOCKED)
            blocked_add(e);
        return;
    }
    struct admission *a = mem_new(struct admission);
    bool modest = e->modest && !wait_count(e);
    e->modest = modest;
    policy.ladder = e->ladder;
    if (e->ctx_floor > policy.ctx_min)
        policy.ctx_min = e->ctx_floor;
    enum admit answer = heat_admit(e, &policy, a, &err);
    e->modest = false;
    if (modest && answer != ADMIT_GO) {
        free(a);
        load_drop(e);
        tenants_no_room(e);
        return;
    }
    switch (answer) {
    case ADMIT_GO: place(e, a); break;
    case ADMIT_WAIT: wait_for_room(e, a, &err); break;
    case ADMIT_REFUSE:
        if (e->ctx_floor) { /* it fitted when it was asked for: a wish, and no condition */
            e->ctx_floor = 0;
            free(a);
            load_try_room(e);
            return;
        }
        if (e->demand == DEMAND_BLOCKED)
            blocked_remove(e);
        e->demand = DEMAND_NONE;
        p->count.refused++;
        refuse(e, &a->plan, &err);
        break;
    }
    free(a);
}

void load_room_made(struct pool_instance *i)
{
    struct err err;
    if (instance_launch(i, &err) == RC_OK)
        return;
    load_failed(i, RUNTIME_FAIL_EXEC, &err);
}

/* ---- the end of a load ---- */

static void reason_measured(struct plan_reason *r, const struct plan_part *predicted,
                            const struct plan_part *measured)
{
    char want[24], got[24];
    /* The log tells the three parts; what a runtime takes beside them it does not. */
    uint64_t w = predicted->model_bytes + predicted->context_bytes + predicted->compute_bytes;
    uint64_t g = measured->model_bytes + measured->context_bytes + measured->compute_bytes;
    double off = w ? ((double)g - (double)w) * 100 / (double)w : 0.0;
    if (off > -0.05 && off < 0.05)
        off = 0.0; /* not "-0.0" */
    reason_set(r, "measured", "%s: predicted %s, measured %s (%+.1f %%)", predicted->name,
               str_human_bytes(w, want, sizeof want), str_human_bytes(g, got, sizeof got), off);
}

void load_ready(struct pool_instance *i)
{
    struct pool *p = i->pool;
    struct entry *e = i->entry;
    struct plan_reason reasons[PLAN_MAX_DEVICES + 1];
    size_t n = 0;
    const struct plan_estimate *est = &i->plan.estimate;
    for (size_t k = 0; k < est->n_parts; k++)
        for (size_t m = 0; m < i->measured.n_parts && n < TABLE_COUNT(reasons); m++)
            if (strcmp(est->parts[k].name, i->measured.parts[m].name) == 0)
                reason_measured(&reasons[n++], &est->parts[k], &i->measured.parts[m]);
    e->failures = 0;
    e->retry_at_ms = 0;
    e->short_of.taken_back = 0;
    e->cause = (struct err){0};
    if (i->was_ready) {
        p->count.adoptions++;
        decide(p, "adopt", e, i, i->plan.reasons, i->plan.n_reasons, &i->plan, 0);
    } else {
        e->loads++;
        p->count.loads++;
        decide(p, "ready", e, i, reasons, n, &i->plan, i->load_seconds);
        lesson_ready(i);
    }
    if (p->opt.hooks.want_sample)
        p->opt.hooks.want_sample(p->opt.hooks.arg);
    wait_serve(e);
    if (i->state == POOL_READY && i->busy == 0)
        instance_idle(i);
    pool_kick(p);
}

/* A step down after a load that ran out of memory: the next attempt begins. */
static void step_down(struct pool_instance *i, const struct err *cause)
{
    struct entry *e = i->entry;
    struct pool *p = e->pool;
    struct plan_reason r;
    e->ladder++;
    e->cause = *cause;
    p->count.ladder_steps++;
    reason_set(&r, "out_of_memory", "step %u after: %s", e->ladder, cause->message);
    decide(p, "ladder", e, i, &r, 1, &i->plan, 0);
    instance_fail(i, cause);
    note_short(e, i);
    e->record = NULL; /* the next attempt stands for it */
    i->entry = NULL;
    load_begin(e);
}

void load_failed(struct pool_instance *i, enum runtime_failure failure, const struct err *cause)
{
    struct entry *e = i->entry;
    struct pool *p = i->pool;
    struct err err = *cause;
    if (e && failure == RUNTIME_FAIL_PORT && !i->adopted && ++i->port_tries < POOL_PORT_TRIES &&
        instance_launch(i, &err) == RC_OK)
        return; /* the same load goes on */
    p->count.load_failures++;
    bool again = e && failure == RUNTIME_FAIL_MEMORY && e->ladder < POOL_MAX_LADDER;
    struct plan_reason r[2];
    size_t n = 1;
    reason_set(&r[0], runtime_failure_word(failure), "%s", err.message);
    if (e && !again) {
        backoff_failed(e);
        n += backoff_reason(e, &r[1]);
    }
    decide(p, "fail", e, i, r, n, &i->plan, 0);
    if (again) {
        step_down(i, &err);
        return;
    }
    if (!e) {
        instance_fail(i, &err);
        return;
    }
    if (failure == RUNTIME_FAIL_MEMORY)
        err_hint(&err, "%u ways to load it were tried; free memory, or use a smaller quantisation",
                 e->ladder + 1);
    instance_fail(i, &err);
    fail_entry(e, RC_BACKEND, &err);
}

static const char *kind_of_death(enum runtime_failure f)
{
    switch (f) {
    case RUNTIME_FAIL_NONE: return "its process ran, but was of no use any more";
    case RUNTIME_FAIL_MEMORY: return "it ran out of memory";
    case RUNTIME_FAIL_SIGNAL: return "a signal ended it, and not for want of memory";
    default: return "it ended by itself";
    }
}

void load_crashed(struct pool_instance *i, const struct err *cause)
{
    struct pool *p = i->pool;
    struct entry *e = i->entry;
    struct plan_reason r[3];
    size_t n = 2;
    p->count.crashes++;
    reason_set(&r[0], "crashed", "%s", cause->message);
    reason_set(&r[1], runtime_failure_word(i->failure), "%s", kind_of_death(i->failure));
    if (e) {
        backoff_crashed(e);
        n += backoff_reason(e, &r[2]);
    }
    decide(p, "crash", e, i, r, n, &i->plan, 0);
    instance_fail(i, cause);
    if (!e)
        return;
    e->cause = *cause;
    if (!wait_count(e) || seats_other_serves(e) || p->stopping)
        return;
    if (backoff_left_ms(e)) {
        struct err told = *cause;
        err_prefix(&told, "model %s crashed %u times", e->id, e->crashes);
        wait_fail_all(e, RC_BACKEND, &told, load_retry_after_s(e));
    } else {
        load_begin(e);
    }
}
