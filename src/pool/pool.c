/* The pool's public entry points: leases, commands, stopping, and the turn that does what was put off. See
 * pool.h and pool_priv.h. */
#include "pool/tenant.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

/* ---- making and freeing ---- */

void pool_options_default(struct pool_options *o)
{
    *o = (struct pool_options){
        .host_reserve_bytes = UINT64_MAX,
        .load_timeout_ms = 300 * 1000,
        .drain_timeout_ms = 30 * 1000,
        .stop_timeout_ms = 10 * 1000,
        .max_waiting = 512,
        .max_overtaken = 64,
        .starvation_ms = 30 * 1000,
        .patience_ms = 15 * 1000,
        .min_residence_ms = UINT64_MAX,
        .kv_quota = UINT64_MAX,
        .kv_save_ms = 2000,
        .kv_min_tokens = 256,
        .yields = true,
        .yield_after_ms = 2 * 1000,
        .oom_score_adj = 500,
        .heat_dwell_ms = 10 * 1000,
    };
}

static void take_options(struct pool *p, const struct pool_options *opt)
{
    char *binary = opt->runtime_binary ? mem_strdup(opt->runtime_binary) : NULL;
    char *dir = opt->log_dir ? mem_strdup(opt->log_dir) : NULL;
    char *roster = opt->roster_dir ? mem_strdup(opt->roster_dir) : NULL;
    bool same =
        binary && p->runtime_binary ? strcmp(binary, p->runtime_binary) == 0 : binary == p->runtime_binary;
    if (!same)
        free(take_ptr(p->default_caps));
    free(p->runtime_binary);
    free(p->log_dir);
    free(p->roster_dir);
    p->runtime_binary = binary;
    p->log_dir = dir;
    p->roster_dir = roster;
    p->opt = *opt;
    p->opt.runtime_binary = binary;
    p->opt.log_dir = dir;
    p->opt.roster_dir = roster;
}

static void on_recheck(uv_timer_t *t)
{
    pool_kick(t->data);
}

enum rc pool_new_with(const struct pool_options *opt, const struct pool_deps *deps, struct pool **ret_pool,
                      struct err *err)
{
    if (!opt->loop || !opt->hooks.inventory)
        return err_set(err, RC_INVALID, "a pool needs a loop and an inventory");
    struct pool *p = mem_new(struct pool);
    p->deps = *deps;
    p->loop = opt->loop;
    take_options(p, opt);
    (void)uv_random(NULL, NULL, &p->seed, sizeof p->seed, 0,
                    NULL); /* without one prompts' hashes can be foreseen */
    if (p->deps.oom_count)
        p->deps.oom_count(&p->oom);
    kv_begin(p);
    p->probes = probe_cache_new(p);
    p->tenants = tenants_new(p);
    uv_idle_init(p->loop, &p->idle);
    uv_timer_init(p->loop, &p->timer);
    p->idle.data = p->timer.data = p;
    p->handles = 2;
    *ret_pool = p;
    return RC_OK;
}

void pool_set_options(struct pool *p, const struct pool_options *opt)
{
    struct pool_hooks hooks = p->opt.hooks;
    take_options(p, opt);
    p->opt.hooks = hooks;
    p->opt.loop = p->loop;
    kv_options(p);
    load_warm_up(p);
    p->room_changed = true;
    pool_kick(p);
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    models_release(p);
    tenants_free(p->tenants);
    probe_cache_free(p->probes);
    kv_end(p);
    free(p->default_caps);
    free(p->runtime_binary);
    free(p->log_dir);
    free(p->roster_dir);
    free(p);
}

/* ---- the turn ---- */

static void unloads_look(struct pool *p, uint64_t gone_serial)
{
    for (struct unload_op **at = &p->unloads; *at;) {
        struct unload_op *op = *at;
        for (size_t k = 0; k < op->n; k++)
            if (op->serials[k] == gone_serial)
                op->serials[k--] = op->serials[--op->n];
        if (op->n > 0) {
            at = &op->next;
            continue;
        }
        *at = op->next;
        if (op->done)
            op->done(op->arg, RC_OK, NULL);
        free(op->serials);
        free(op);
        at = &p->unloads; /* the callback may have added or ended others */
    }
}

/* Tells operators whose unloads are complete. An instance is gone when its process is reaped. */
static void unloads_finish(struct pool *p)
{
    for (struct unload_op *op = p->unloads; op;) {
        uint64_t gone = 0;
        for (size_t k = 0; k < op->n && !gone; k++) {
            bool alive = false;
            for (const struct pool_instance *i = p->instances; i; i = i->next)
                alive |= i->serial == op->serials[k] && (i->state == POOL_DRAINING || i->jobs_closing > 0);
            if (!alive)
                gone = op->serials[k];
        }
        if (gone || op->n == 0) {
            unloads_look(p, gone);
            op = p->unloads;
        } else {
            op = op->next;
        }
    }
}

static void start_those_with_room(struct pool *p)
{
    for (bool again = true; again;) { /* the list may change with every launch */
        again = false;
        for (struct pool_instance *i = p->instances; i && !again; i = i->next)
            if (i->state == POOL_PLANNED && !p->stopping && load_may_start(i)) {
                load_room_made(i);
                again = true;
            }
    }
}

/* The planner is asked again only when its answer may be another one. */
static void look_at_blocked(struct pool *p)
{
    if (!p->blocked_first)
        return;
    uint64_t sample = p->opt.hooks.inventory(p->opt.hooks.arg)->ended_ms;
    bool changed = p->room_changed || sample != p->looked_ms || residence_ended_since(p, p->looked_at_ms);
    p->room_changed = false;
    p->looked_ms = sample;
    p->looked_at_ms = p->deps.now_ms();
    size_t n = 0;
    for (const struct entry *e = p->blocked_first; e; e = e->next_blocked)
        n++;
    for (struct entry *e = p->blocked_first; e && n > 0; n--) {
        struct entry *next = e->next_blocked;
        if (!wait_count(e))
            load_drop(e); /* nobody waits for it any more */
        else if (changed || load_time_is_up(e) || load_sample_is_late(e))
            load_try_room(e);
        /* callbacks may have changed the list: go on only if the next one still is in it */
        struct entry *found = p->blocked_first;
        while (found && found != next)
            found = found->next_blocked;
        e = found;
    }
}

static void on_pool_closed(uv_handle_t *h)
{
    struct pool *p = h->data;
    if (--p->handles == 0 && p->stopped)
        p->stopped(p->stopped_arg); /* may free the pool */
}

static void end_if_stopped(struct pool *p)
{
    if (!p->stopping || p->instances || p->n_work > 0 || p->unloads || p->told_stopped)
        return;
    p->told_stopped = true;
    uv_close((uv_handle_t *)&p->idle, on_pool_closed);
    uv_close((uv_handle_t *)&p->timer, on_pool_closed);
}

/* Somebody has a free slot, is ready, or may be asked again. */
static void look_at_waiting(struct pool *p)
{
    for (size_t k = 0; p->n_waiting > 0 && k < p->n_entries; k++) {
        wait_expire(p->entries[k]);
        if (k < p->n_entries) /* a callback may have replaced the set */
            wait_serve(p->entries[k]);
        if (k < p->n_entries && !p->stopping)
            lease_resume(p->entries[k]);
    }
}

static void drop_records(struct pool *p)
{
    for (size_t k = 0; k < p->n_entries; k++)
        for (struct entry *s = p->entries[k]; s; s = s->twin)
            if (s->record)
                instance_detach(s->record);
}

static void pool_turn(struct pool *p)
{
    look_at_waiting(p);
    start_those_with_room(p);
    tenants_turn(p->tenants);
    if (!p->stopping)
        look_at_blocked(p);
    if (p->stopping) /* failed ones are shown no longer */
        drop_records(p);
    unloads_finish(p);
    instance_sweep(p);
    pool_retime(p);
    end_if_stopped(p);
}

static void on_idle(uv_idle_t *h)
{
    struct pool *p = h->data;
    p->idle_on = false;
    uv_idle_stop(h);
    pool_turn(p);
}

void pool_kick(struct pool *p)
{
    if (p->idle_on || p->told_stopped)
        return;
    p->idle_on = true;
    uv_idle_start(&p->idle, on_idle);
}

static bool has_open_breaker(const struct pool *p)
{
    for (const struct pool_instance *i = p->instances; i; i = i->next)
        if (i->breaker.open)
            return true;
    return false;
}

static bool waits_for_disk(const struct pool *p)
{
    for (const struct pool_instance *i = p->instances; i; i = i->next)
        if (i->state == POOL_PLANNED && i->told_waiting)
            return true;
    return false;
}

void pool_retime(struct pool *p)
{
    bool wanted = p->blocked_first || waits_for_disk(p) ||
                  (p->n_waiting > 0 && (p->opt.queue_wait_ms || has_open_breaker(p) || heat_has_pauses(p)));
    if (wanted == p->timer_on || p->told_stopped)
        return;
    p->timer_on = wanted;
    if (wanted)
        uv_timer_start(&p->timer, on_recheck, POOL_RECHECK_MS, POOL_RECHECK_MS);
    else
        uv_timer_stop(&p->timer);
}

void pool_inventory_changed(struct pool *p)
{
    if (p->instances && p->deps.oom_count)
        p->deps.oom_count(&p->oom);
    lesson_sampled(p);
    tenants_look(p->tenants);
    if (p->blocked_first)
        pool_kick(p);
}

/* Its memory is free from now on: for the load that it made room for, and for the view until the next sample.
 */
void pool_gone(struct pool *p, struct pool_instance *i)
{
    p->launches++;
    if (i->room_for) {
        if (i->room_for->victims_left > 0)
            i->room_for->victims_left--;
        i->room_for = NULL;
    }
    for (struct pool_instance *v = p->instances; v; v = v->next)
        if (v->room_for == i)
            v->room_for = NULL;
    if (i->ready_ms > 0) { /* before that the view did not count on it being in a sample */
        struct gone *oldest = &p->gone[0];
        for (size_t k = 1; k < POOL_GONE; k++)
            if (p->gone[k].ended_ms < oldest->ended_ms)
                oldest = &p->gone[k];
        oldest->ready_ms = i->ready_ms;
        oldest->ended_ms = p->deps.now_ms();
        oldest->freed = i->reserve;
        oldest->freed.host_bytes =
            i->anon_bytes < i->reserve.host_bytes ? i->anon_bytes : i->reserve.host_bytes;
    }
    if (p->opt.hooks.want_sample)
        p->opt.hooks.want_sample(p->opt.hooks.arg);
    p->room_changed = true;
    pool_kick(p);
}

/* ---- operator's commands ---- */

enum rc pool_refuse_stopping(struct err *err)
{
    return err_set(err, RC_BUSY, "the daemon is stopping");
}

void pool_load(struct pool *p, struct str model, pool_done_cb cb, void *arg)
{
    struct err err;
    struct entry *e = entry_find(p, model);
    if (p->stopping || !e) {
        if (p->stopping)
            (void)pool_refuse_stopping(&err);
        else
            (void)entry_unknown(p, model, &err);
        if (cb)
            cb(arg, err.code, &err);
        return;
    }
    if (lease_is_ready(e)) {
        if (cb)
            cb(arg, RC_OK, NULL);
        return;
    }
    for (struct entry *s = e; s;
         s = s->twin) { /* somebody looks after it: no back-off, from the top of the ladder */
        s->retry_at_ms = 0;
        if (s->demand == DEMAND_NONE)
            backoff_clear(s);
    }
    (void)wait_add(e, NULL, cb, arg);
    seats_load(e);
}

static void cancel_demand(struct entry *e)
{
    struct err err;
    for (struct entry *s = e; s; s = s->twin) {
        load_drop(s);
        tenants_forget(s);
        s->cause = (struct err){0};
        backoff_clear(s);
    }
    enum rc rc = err_set(&err, RC_BUSY, "model %s was unloaded while it was asked for", e->id);
    wait_fail_all(e, rc, &err, 1);
}

static void unload_seat(struct entry *s, bool force)
{
    struct pool_instance *i = s->current;
    struct plan_reason r;
    if (s->record)
        instance_detach(s->record);
    if (!i)
        return;
    reason_set(&r, "asked", "unload was asked for%s", force ? ", by force" : "");
    decide(s->pool, "unload", s, i, &r, 1, NULL, 0);
    instance_detach(i);
    instance_stop(i, force ? STOP_TERM : STOP_DRAIN);
}

static void unload_entry(struct entry *e, bool force, struct unload_op *op)
{
    struct pool *p = e->pool;
    for (struct entry *s = e; s; s = s->twin)
        unload_seat(s, force);
    for (struct pool_instance *k = p->instances; k; k = k->next) {
        if (strcmp(k->model, e->id) != 0 || k->state != POOL_DRAINING)
            continue;
        if (force)
            instance_stop(k, STOP_TERM);
        op->serials = mem_realloc(op->serials, op->n + 1, sizeof *op->serials);
        op->serials[op->n++] = k->serial;
    }
}

void pool_unload(struct pool *p, struct str model, bool force, pool_done_cb cb, void *arg)
{
    struct err err;
    struct entry *one = model.n ? entry_find(p, model) : NULL;
    if (model.n && !one) {
        (void)entry_unknown(p, model, &err);
        if (cb)
            cb(arg, err.code, &err);
        return;
    }
    struct unload_op *op = mem_new(struct unload_op);
    op->done = cb;
    op->arg = arg;
    size_t n = one ? 1 : p->n_entries;
    struct entry **list = mem_calloc(n + 1, sizeof *list);
    for (size_t k = 0; k < n; k++) {
        list[k] = one ? one : p->entries[k];
        unload_entry(list[k], force, op);
    }
    op->next = p->unloads;
    p->unloads = op;
    for (size_t k = 0; k < n; k++)
        cancel_demand(list[k]);
    free(list);
    pool_kick(p);
}

enum rc pool_pin(struct pool *p, struct str model, bool on, struct err *err)
{
    struct entry *e = entry_find(p, model);
    if (!e)
        return entry_unknown(p, model, err);
    e->pinned = on;
    p->room_changed = true;
    pool_kick(p);
    return RC_OK;
}

/* ---- stopping ---- */

void pool_keep_none(struct pool *p)
{
    p->keep_none = true;
}

static void tell_stop(struct pool_instance *i)
{
    struct plan_reason r;
    if (i->state == POOL_FAILED || i->state == POOL_STOPPED || i->state == POOL_DRAINING)
        return;
    i->leaving = adopt_may_leave(i);
    if (i->leaving)
        reason_set(&r, "left_running", "the daemon stops, process %ld goes on: the next daemon takes it over",
                   (long)i->written_pid);
    else
        reason_set(&r, "daemon_stops", "the daemon stops");
    decide(i->pool, i->leaving ? "detach" : "unload", i->entry, i, &r, 1, NULL, 0);
}

void pool_stop(struct pool *p, bool hurry, void (*stopped)(void *arg), void *arg)
{
    bool first = !p->stopping;
    p->stopping = true;
    p->hurry |= hurry;
    if (stopped) {
        p->stopped = stopped;
        p->stopped_arg = arg;
    }
    for (size_t k = 0; first && k < p->n_entries; k++) {
        struct err err;
        for (struct entry *s = p->entries[k]; s; s = s->twin)
            load_drop(s);
        (void)pool_refuse_stopping(&err);
        wait_fail_all(p->entries[k], RC_BUSY, &err, 0);
    }
    probe_cache_close(p->probes); /* behind the answers: to a load it would be a failure of its model */
    for (struct pool_instance *i = p->instances; i; i = i->next) {
        if (first)
            tell_stop(i);
        i->room_for = NULL;
        instance_detach(i);
        instance_stop(i, p->hurry ? STOP_KILL : STOP_DRAIN);
    }
    pool_kick(p);
}
