/* One instance: states, process, timers, end. See pool_priv.h.
 *
 * Its timer serves one purpose at a time, told by timer_for. It is freed by instance_sweep, from the idle
 * handle, when it is over and every handle of it is closed: never inside a callback of its own. Leases name
 * it by its serial number, so those that are still out do not keep it. */
#include "pool/pool_priv.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define LOADED 0.98 /* progress at the log's last lines before it is ready */

bool instance_holds_memory(const struct pool_instance *i)
{
    return i->state != POOL_STOPPED && (i->state != POOL_FAILED || i->jobs_dying > 0);
}

/* ---- birth ---- */

struct pool_instance *instance_blank(struct pool *p, const char *id, const char *model)
{
    struct pool_instance *i = mem_new(struct pool_instance), **at = &p->instances;
    i->pool = p;
    i->serial = ++p->next_serial;
    snprintf(i->id, sizeof i->id, "%s", id);
    snprintf(i->model, sizeof i->model, "%s", model);
    i->last_used_ms = p->deps.now_ms();
    i->keep_ms = UINT64_MAX;
    uv_timer_init(p->loop, &i->timer);
    i->timer.data = i;
    i->timer_open = true;
    while (*at)
        at = &(*at)->next;
    *at = i;
    return i;
}

struct pool_instance *instance_new(struct entry *e, const struct admission *a)
{
    char id[POOL_ID_MAX];
    struct pool *p = e->pool;
    snprintf(id, sizeof id, "%.80s#%u", e->id, ++e->lead->serial);
    struct pool_instance *i = instance_blank(p, id, e->id);
    i->entry = e;
    i->keep_ms = e->ttl_ms ? e->ttl_ms : UINT64_MAX;
    /* the next load reads them anew: the files may have changed */
    i->facts = a->plan.smaller >= 0 ? take_ptr(e->smaller.list[a->plan.smaller]) : take_ptr(e->facts);
    if (e->facts)
        p->deps.facts_unref(take_ptr(e->facts));
    for (uint32_t k = 0; k < e->smaller.n; k++)
        if (e->smaller.list[k])
            p->deps.facts_unref(e->smaller.list[k]);
    e->smaller.n = 0;
    i->beside = e->beside;
    e->beside = (struct beside){0};
    i->plan = a->plan;
    i->plan.estimate.params.extras = beside_extras(e->files, &i->beside, &i->extras) ? &i->extras : NULL;
    i->machine = a->machine;
    i->reserve = a->reserve;
    instance_because(i, "placed", "a place was found for it");
    instance_born(i);
    return i;
}

/* ---- timer ---- */

static void on_timer(uv_timer_t *t);

static void set_timer(struct pool_instance *i, enum timer_for what, uint64_t ms)
{
    i->timer_for = what;
    if (what == TIMER_NONE)
        uv_timer_stop(&i->timer);
    else
        uv_timer_start(&i->timer, on_timer, ms, 0);
}

static void on_timer_closed(uv_handle_t *h)
{
    struct pool_instance *i = h->data;
    i->timer_open = false;
    pool_kick(i->pool);
}

static void close_timer(struct pool_instance *i)
{
    i->timer_for = TIMER_NONE;
    if (!uv_is_closing((uv_handle_t *)&i->timer))
        uv_close((uv_handle_t *)&i->timer, on_timer_closed);
}

/* ---- process ---- */

/* Each process of an instance is told as gone once: one that ended by itself when it was reaped, one that was
 * killed when its job is closed. The instance may run another one by then, after a port clash. */
static void on_job_closed(void *arg)
{
    struct pool_instance *i = arg;
    i->jobs_closing--;
    i->pool->room_changed = true;
    pool_kick(i->pool);
}

static void on_killed_closed(void *arg)
{
    struct pool_instance *i = arg;
    i->jobs_dying--;
    pool_gone(i->pool, i);
    on_job_closed(i);
}

static void forget_argv(struct pool_instance *i)
{
    for (size_t k = 0; i->argv && i->argv[k]; k++)
        free(i->argv[k]);
    free(i->argv);
    i->argv = NULL;
}

/* Keeps the last words and lets the launcher forget the job, which kills what still runs: over tells that
 * nothing does. */
static void end_job(struct pool_instance *i, bool over)
{
    call_cancel(take_ptr(i->health));
    kv_stop(i);
    if (!i->job)
        return;
    struct str tail = i->pool->deps.launch->log_tail(i->job);
    free(i->log_tail);
    i->log_tail = mem_strndup(tail.p ? tail.p : "", tail.n);
    i->jobs_closing++;
    i->jobs_dying += !over;
    i->pool->deps.launch->close(take_ptr(i->job), over ? on_job_closed : on_killed_closed, i);
    adopt_forget(i);
}

/* The child has names of its own for some devices; the plan knows them by their names here. */
static void name_measured(struct pool_instance *i)
{
    bool named[PLAN_MAX_DEVICES + 1] = {false};
    char child[24];
    for (uint32_t k = 0; k < i->plan.n_used; k++) {
        runtime_log_device(&i->machine, &i->plan, k, child, sizeof child);
        for (size_t m = 0; m < i->measured.n_parts; m++)
            if (!named[m] && strcmp(i->measured.parts[m].name, child) == 0) {
                named[m] = true;
                snprintf(i->measured.parts[m].name, sizeof i->measured.parts[m].name, "%s",
                         i->machine.devices[i->plan.used[k]].name);
                break;
            }
    }
}

static void on_load_health(void *arg, int status)
{
    struct pool_instance *i = arg;
    i->health = NULL;
    if (i->state != POOL_STARTING)
        return;
    if (status != 200 && i->was_ready) {
        if (adopt_is_patient(i, status))
            set_timer(i, TIMER_PROBE, POOL_CHECK_MS);
        else
            adopt_failed(i);
        return;
    }
    if (status != 200) {
        /* No event tells that it is ready but its log, which another build may word otherwise. */
        i->probe_ms = i->probe_ms * 2 < POOL_PROBE_MAX_MS ? i->probe_ms * 2 : POOL_PROBE_MAX_MS;
        set_timer(i, TIMER_PROBE, i->progress >= LOADED ? POOL_PROBE_SOON_MS : i->probe_ms);
        return;
    }
    set_timer(i, TIMER_NONE, 0);
    i->progress = 1;
    i->last_used_ms = i->pool->deps.now_ms();
    if (!i->was_ready) {
        i->ready_ms = i->last_used_ms;
        i->load_seconds = (double)(i->last_used_ms - i->start_ms) / 1000;
        name_measured(i);
    }
    instance_because(i, "healthy", "it answers its health check, %.2f s after %s",
                     (double)(i->last_used_ms - i->start_ms) / 1000,
                     i->was_ready ? "it was found" : "its start");
    instance_set_state(i, POOL_READY);
    adopt_rewrite(i);
    load_ready(i);
}

static void probe_load(struct pool_instance *i)
{
    if (!i->health)
        i->health = health_get(i->pool->loop, "127.0.0.1", i->port, i->pool->deps.runtime->health_path,
                               on_load_health, i);
}

static void on_line(void *arg, struct str line)
{
    struct pool_instance *i = arg;
    const struct pool_hooks *hooks = &i->pool->opt.hooks;
    if (hooks->line)
        hooks->line(hooks->arg, i->model, i->id, line);
    if (i->state != POOL_STARTING)
        return;
    i->progress_ms = i->pool->deps.now_ms();
    double progress = i->pool->deps.runtime->log_line(line, &i->measured);
    if (progress > i->progress)
        i->progress = progress;
    if (progress >= LOADED && i->timer_for == TIMER_PROBE)
        set_timer(i, TIMER_PROBE, 0); /* loaded or listening: ask now */
}

static void time_out(struct pool_instance *i)
{
    struct err cause;
    uint64_t ms = i->pool->opt.load_timeout_ms;
    (void)err_set(&cause, RC_TIMEOUT, "no progress for %llu s while loading (at %.0f %%)",
                  (unsigned long long)(ms / 1000), i->progress * 100);
    err_hint(&cause, "see where it stands: arriero logs %s; load_timeout sets how long to wait", i->model);
    load_failed(i, RUNTIME_FAIL_TIMEOUT, &cause);
}

static void probe_tick(struct pool_instance *i)
{
    uint64_t stamp, now = i->pool->deps.now_ms();
    pid_t pid = i->job ? i->pool->deps.launch->pid(i->job) : 0;
    if (pid > 0 && i->pool->deps.liveness(pid, &stamp) && stamp != i->liveness) {
        i->liveness = stamp;
        i->progress_ms = now;
    }
    if (now - i->progress_ms >= i->pool->opt.load_timeout_ms)
        time_out(i);
    else
        probe_load(i);
}

/* The last line of a log often is not the one that tells why. */
static void hint_log(const struct pool_instance *i, struct err *cause)
{
    char known[sizeof cause->hint];
    snprintf(known, sizeof known, "%s", cause->hint);
    err_hint(cause, "%s%ssee what it wrote: arriero logs %s", known, known[0] ? "; " : "", i->model);
}

/* Did the kernel take it because memory ran out? */
static enum oom_verdict oom_of(const struct pool_instance *i)
{
    const struct pool_deps *deps = &i->pool->deps;
    struct oom_count now;
    if (!deps->oom_count)
        return OOM_UNKNOWN;
    deps->oom_count(&now);
    enum oom_verdict v = oom_judge(&i->pool->oom, &now, false);
    return v >= OOM_SOMEONE && deps->oom_named(i->pid) ? OOM_NAMED : v;
}

static void on_exited(void *arg, int wait_status)
{
    struct pool_instance *i = arg;
    struct err cause = {0};
    set_timer(i, TIMER_NONE, 0);
    struct death death = {.wait_status = wait_status, .oom = oom_of(i)};
    death.told = i->pool->deps.runtime->classify(wait_status, i->pool->deps.launch->log_tail(i->job), &cause);
    i->failure = death_explain(&death, &cause);
    bool wanted = i->state == POOL_DRAINING;
    hint_log(i, &cause);
    pool_gone(i->pool, i);
    end_job(i, true);
    if (wanted) {
        instance_because(i, "ended", "its process has ended%s", i->kill_sent ? ", killed" : "");
        instance_set_state(i, POOL_STOPPED);
    } else if (i->state == POOL_STARTING) {
        load_failed(i, i->failure, &cause);
    } else if (i->state == POOL_READY) {
        load_crashed(i, &cause);
    }
    pool_kick(i->pool);
}

/* A file name from an id that holds "/" and ":"; instances of one model at a time do not share one. */
static char *log_path_for(const struct pool *p, const struct entry *e)
{
    if (!p->log_dir)
        return NULL;
    char *path = e->seat ? mem_printf("%s/%s.%u.log", p->log_dir, e->id, e->seat + 1)
                         : mem_printf("%s/%s.log", p->log_dir, e->id);
    for (char *c = path + strlen(p->log_dir) + 1; *c; c++)
        if (*c == '/' || *c == ':' || (unsigned char)*c < 0x20)
            *c = '_';
    return path;
}

static const struct launch_events events = {.line = on_line, .exited = on_exited};

/* One that cannot be written down is started all the same, and dies with us. */
static enum rc start_job(struct pool_instance *i, struct launch_spec *spec, struct err *err)
{
    struct pool *p = i->pool;
    struct plan_reason r;
    enum rc rc = p->deps.launch->start(p->loop, spec, &events, i, &i->job, err);
    if (rc != RC_IO || !spec->detach)
        return rc;
    adopt_forget(i);
    reason_set(&r, "not_written", "%.200s", err->message);
    decide(p, "attach", i->entry, i, &r, 1, NULL, 0);
    spec->detach = false;
    return p->deps.launch->start(p->loop, spec, &events, i, &i->job, err);
}

static enum rc launch_with(struct pool_instance *i, struct arena *arena, struct err *err)
{
    struct entry *e = i->entry;
    struct pool *p = i->pool;
    struct runtime_command command = {0};
    const struct runtime_caps *caps = e->caps ? e->caps : p->default_caps;
    snprintf(i->version, sizeof i->version, "%s", caps ? caps->version : "");
    struct runtime_job job = {.model = i->facts,
                              .model_path = i->plan.smaller >= 0 ? i->facts->path : e->path,
                              .mmproj_path = e->files->mmproj,
                              .extras = i->plan.estimate.params.extras,
                              .served_name = e->id,
                              .plan = &i->plan,
                              .machine = &i->machine,
                              .host = "127.0.0.1",
                              .slot_save_path = kv_launching(i),
                              .embedding = e->embedding,
                              .extra_args = (const char *const *)e->extra_args,
                              .n_extra_args = e->n_extra_args};
    enum rc rc = port_choose(job.host, &job.port, err);
    if (rc == RC_OK)
        rc = p->deps.runtime->command(caps, &job, arena, &command, err);
    if (rc != RC_OK)
        return rc;
    size_t n = 0;
    while (command.argv[n])
        n++;
    forget_argv(i);
    i->argv = mem_calloc(n + 1, sizeof *i->argv);
    for (size_t k = 0; k < n; k++)
        i->argv[k] = runtime_shown_arg(command.argv, k); /* only ever shown */
    free(i->log_path);
    i->log_path = log_path_for(p, e);
    struct launch_spec spec = {.argv = command.argv,
                               .env = command.env,
                               .log_path = i->log_path,
                               .detach = adopt_detaches(p) && i->log_path,
                               .known = adopt_write,
                               .oom_score_adj = p->opt.oom_score_adj};
    i->port = job.port;
    return start_job(i, &spec, err);
}

enum rc instance_take_over(struct pool_instance *i, const struct launch_found *found, struct err *err)
{
    struct pool *p = i->pool;
    enum rc rc = p->deps.launch->adopt(p->loop, found, &events, i, &i->job, err);
    if (rc != RC_OK)
        return rc;
    i->pid = found->pid;
    instance_because(i, "found", "process %ld of an earlier daemon runs", (long)found->pid);
    instance_set_state(i, POOL_STARTING);
    i->start_ms = i->progress_ms = p->deps.now_ms();
    i->probe_ms = POOL_PROBE_MIN_MS;
    return RC_OK;
}

void instance_probe(struct pool_instance *i)
{
    set_timer(i, TIMER_PROBE, 0);
}

enum rc instance_launch(struct pool_instance *i, struct err *err)
{
    struct arena arena = {0};
    i->measured = (struct runtime_measured){0};
    i->progress = 0;
    enum rc rc = launch_with(i, &arena, err);
    arena_release(&arena);
    if (rc != RC_OK)
        return rc;
    if (i->state == POOL_PLANNED) {
        instance_because(i, "launched", "there is room for it: its process was started");
        instance_set_state(i, POOL_STARTING);
    }
    i->pid = i->pool->deps.launch->pid(i->job);
    if (i->pool->deps.oom_count)
        i->pool->deps.oom_count(&i->pool->oom);
    i->start_ms = i->progress_ms = i->pool->deps.now_ms();
    i->probe_ms = POOL_PROBE_MIN_MS;
    lesson_launched(i);
    set_timer(i, TIMER_PROBE, POOL_PROBE_MIN_MS);
    return RC_OK;
}

/* ---- end ---- */

void instance_detach(struct pool_instance *i)
{
    struct entry *e = i->entry;
    i->entry = NULL;
    if (!e)
        return;
    if (e->record == i)
        e->record = NULL;
    if (e->current != i)
        return;
    e->current = NULL;
    e->demand = DEMAND_NONE;
}

/* It goes on without us. */
static void let_go(struct pool_instance *i)
{
    call_cancel(take_ptr(i->health));
    kv_stop(i);
    set_timer(i, TIMER_NONE, 0);
    i->jobs_closing++;
    i->pool->deps.launch->leave(take_ptr(i->job), on_job_closed, i);
    instance_because(i, "left_running", "process %ld goes on without this daemon", (long)i->written_pid);
    instance_set_state(i, POOL_STOPPED);
    pool_kick(i->pool);
}

static void terminate(struct pool_instance *i, int signo)
{
    if (i->leaving && i->job) {
        let_go(i);
        return;
    }
    uint64_t anon;
    pid_t pid = i->job ? i->pool->deps.launch->pid(i->job) : 0;
    if (pid > 0 && i->pool->deps.anon_bytes(pid, &anon))
        i->anon_bytes = anon;
    call_cancel(take_ptr(i->health));
    kv_stop(i);
    if (signo == SIGKILL ? i->kill_sent : i->term_sent)
        return;
    i->term_sent = true;
    i->kill_sent |= signo == SIGKILL;
    if (i->job)
        i->pool->deps.launch->signal(i->job, signo);
    if (signo == SIGKILL)
        set_timer(i, TIMER_NONE, 0);
    else
        set_timer(i, TIMER_KILL, i->pool->opt.stop_timeout_ms);
}

void instance_saved(struct pool_instance *i)
{
    terminate(i, SIGTERM);
}

/* Nobody uses it any more. */
static void leave(struct pool_instance *i)
{
    if (i->term_sent)
        return;
    if (!i->leaving && kv_leave(i))  /* one that goes on keeps its conversations itself */
        set_timer(i, TIMER_NONE, 0); /* what it waits for has an end of its own */
    else
        terminate(i, SIGTERM);
}

void instance_stop(struct pool_instance *i, enum stop_mode mode)
{
    switch (i->state) {
    case POOL_PLANNED:
        instance_set_state(i, POOL_STOPPED);
        pool_gone(i->pool, i);
        break;
    case POOL_STARTING:
    case POOL_READY: instance_set_state(i, POOL_DRAINING); break;
    case POOL_FAILED: instance_detach(i); break;
    case POOL_DRAINING:
    case POOL_STOPPED:
    case POOL_STATES: break;
    }
    pool_kick(i->pool);
    if (i->state != POOL_DRAINING)
        return;
    if (mode == STOP_KILL)
        terminate(i, SIGKILL);
    else if (mode == STOP_TERM)
        terminate(i, SIGTERM);
    else if (i->busy == 0)
        leave(i);
    else if (i->room_for) /* requests in flight may end in their own time, if the server lives */
        set_timer(i, TIMER_CHECK, POOL_VICTIM_MS);
    else if (!i->term_sent)
        set_timer(i, TIMER_DRAIN, i->pool->opt.drain_timeout_ms);
}

void instance_fail(struct pool_instance *i, const struct err *cause)
{
    i->cause = *cause;
    set_timer(i, TIMER_NONE, 0);
    end_job(i, false);
    instance_set_state(i, POOL_FAILED);
    struct entry *e = i->entry;
    if (e && e->current == i) {
        e->current = NULL;
        e->demand = DEMAND_NONE;
        if (e->record)
            instance_detach(e->record);
        e->record = i;
    }
    pool_kick(i->pool);
}

/* ---- use ---- */

void instance_idle(struct pool_instance *i)
{
    if (i->state == POOL_DRAINING && i->busy == 0)
        leave(i);
    i->rested |= i->state == POOL_READY && i->busy == 0;
    if (i->state == POOL_READY && i->busy == 0 && !i->suspect && i->entry)
        set_timer(i, i->keep_ms == UINT64_MAX ? TIMER_NONE : TIMER_TTL, i->keep_ms);
}

static void healthy(struct pool_instance *i)
{
    i->suspect = false;
    i->check_failures = 0;
    if (i->state == POOL_DRAINING) {
        set_timer(i, TIMER_CHECK, POOL_VICTIM_MS);
        return;
    }
    i->pool->room_changed = true;
    if (i->entry)
        wait_serve(i->entry);
    if (i->state == POOL_READY && i->busy == 0)
        instance_idle(i);
    pool_kick(i->pool);
}

/* A server whose few HTTP threads all carry streams answers no health check either: as long as it computes,
 * it is given what a load may take without a sign of progress. */
static bool is_hung(struct pool_instance *i)
{
    struct pool *p = i->pool;
    uint64_t ticks, now = p->deps.now_ms();
    pid_t pid = i->job ? p->deps.launch->pid(i->job) : 0;
    if (pid > 0 && p->deps.cpu_ticks(pid, &ticks) && ticks != i->check_ticks) {
        i->check_ticks = ticks;
        i->check_failures = 0;
        return now - i->check_ok_ms >= p->opt.load_timeout_ms;
    }
    return ++i->check_failures >= POOL_CHECK_TRIES;
}

/* It was to leave when its requests have ended, and they never will: they break off with it. */
static void end_hung_victim(struct pool_instance *i, const struct err *cause)
{
    struct plan_reason r;
    i->pool->count.crashes++;
    reason_set(&r, "hung", "%s; its %u requests are broken off", cause->message, i->busy);
    decide(i->pool, "crash", NULL, i, &r, 1, &i->plan, 0);
    terminate(i, SIGKILL);
}

static bool is_watched(const struct pool_instance *i)
{
    if (i->state == POOL_READY)
        return true;
    return i->state == POOL_DRAINING && !i->term_sent && i->timer_for != TIMER_DRAIN;
}

static void on_check(void *arg, int status)
{
    struct pool_instance *i = arg;
    i->health = NULL;
    if (!is_watched(i))
        return;
    if (status == 200) {
        healthy(i);
        return;
    }
    if (status == HEALTH_UNASKED || !is_hung(i)) {
        set_timer(i, TIMER_CHECK, POOL_CHECK_MS);
        return;
    }
    struct err cause;
    (void)err_set(&cause, RC_BACKEND, "%s answers no health check any more", i->id);
    err_hint(&cause, "see what it wrote: arriero logs %s; it is started again when it is asked for",
             i->model);
    if (i->state == POOL_DRAINING)
        end_hung_victim(i, &cause);
    else
        load_crashed(i, &cause); /* kills it */
}

void instance_check(struct pool_instance *i)
{
    if (!is_watched(i) || i->health)
        return;
    if (!i->suspect) {
        uint64_t ticks;
        pid_t pid = i->job ? i->pool->deps.launch->pid(i->job) : 0;
        i->check_failures = 0;
        i->check_ok_ms = i->pool->deps.now_ms();
        if (pid > 0 && i->pool->deps.cpu_ticks(pid, &ticks))
            i->check_ticks = ticks;
    }
    i->suspect = true;
    set_timer(i, TIMER_NONE, 0);
    i->health =
        health_get(i->pool->loop, "127.0.0.1", i->port, i->pool->deps.runtime->health_path, on_check, i);
}

static void unload_idle(struct pool_instance *i)
{
    struct plan_reason r;
    reason_set(&r, i->kept ? "keep_alive" : "ttl", "idle for %llu s%s",
               (unsigned long long)(i->keep_ms / 1000), i->kept ? ", as a client asked" : "");
    decide(i->pool, "unload", i->entry, i, &r, 1, NULL, 0);
    instance_detach(i);
    instance_stop(i, STOP_DRAIN);
}

static void on_timer(uv_timer_t *t)
{
    struct pool_instance *i = t->data;
    enum timer_for what = i->timer_for;
    i->timer_for = TIMER_NONE;
    switch (what) {
    case TIMER_NONE: break;
    case TIMER_PROBE:
        i->timer_for = TIMER_PROBE; /* stays armed in meaning: a log line may hasten the next question */
        probe_tick(i);
        break;
    case TIMER_TTL: unload_idle(i); break;
    case TIMER_DRAIN: terminate(i, SIGTERM); break;
    case TIMER_KILL: terminate(i, SIGKILL); break;
    case TIMER_CHECK: instance_check(i); break;
    }
}

/* ---- sweeping ---- */

static void instance_free(struct pool_instance *i)
{
    forget_argv(i);
    free(i->log_path);
    free(i->log_tail);
    kv_release(i);
    if (i->facts)
        i->pool->deps.facts_unref(i->facts);
    beside_release(i->pool, &i->beside);
    free(i);
}

/* Failed ones stay while their model shows them as its record. */
static bool is_over(const struct pool_instance *i)
{
    if (i->job || i->jobs_closing > 0 || i->health || kv_is_busy(i))
        return false;
    return i->state == POOL_STOPPED || (i->state == POOL_FAILED && !i->entry);
}

static void keep_log(struct pool_instance *i)
{
    struct entry *e = entry_find(i->pool, str_from(i->model));
    if (!e || !i->log_tail)
        return;
    free(e->last_log);
    e->last_log = take_ptr(i->log_tail);
}

void instance_sweep(struct pool *p)
{
    for (struct pool_instance **at = &p->instances; *at;) {
        struct pool_instance *i = *at;
        if (!is_over(i)) {
            at = &i->next;
            continue;
        }
        if (i->timer_open) {
            close_timer(i);
            at = &i->next;
            continue;
        }
        keep_log(i);
        *at = i->next;
        instance_free(i);
    }
}
