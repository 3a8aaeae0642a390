/* Instances that outlive the daemon: see pool_priv.h and docs/adr/0024-instances-outlive-the-daemon.md. Layer
 * pool; loop thread, but for the reading of facts.
 *
 * Before a detached server can do anything it is on the roster; it is taken off when its process is over. At
 * the end the pool lets go of it. The next pool finds it: as one of its own instances, STARTING, whose
 * process is there already, so that its memory is reserved from then on and requests for its model wait. When
 * its model's file has been read and the server answers 200 it is READY. What is not taken over is an
 * instance too, without a model, that drains. */
#include "pool/pool_priv.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

bool adopt_detaches(const struct pool *p)
{
    return p->roster_dir && p->deps.launch->adopt && p->deps.launch->leave;
}

/* ---- the roster ---- */

static const char *file_name(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    return slash ? slash + 1 : "";
}

static struct roster_row *row_of(const struct pool_instance *i, pid_t pid)
{
    struct roster_row *r = mem_new(struct roster_row);
    r->pid = pid;
    process_boot_id(r->boot, sizeof r->boot);
    snprintf(r->id, sizeof r->id, "%s", i->id);
    snprintf(r->model, sizeof r->model, "%s", i->model);
    if (i->entry) {
        r->seat = i->entry->seat;
        r->settings_hash = i->entry->settings_hash;
    }
    snprintf(r->path, sizeof r->path, "%s", i->facts && i->facts->path ? i->facts->path : "?");
    snprintf(r->log, sizeof r->log, "%s", file_name(i->log_path));
    snprintf(r->version, sizeof r->version, "%s", i->version);
    r->port = i->port;
    r->smaller = i->plan.smaller >= 0;
    r->load_seconds = i->load_seconds;
    for (size_t k = 0; i->argv && i->argv[k] && k < TABLE_COUNT(r->argv); k++)
        r->argv[r->n_argv++] = mem_strdup(i->argv[k]);
    r->plan = i->plan;
    r->machine = i->machine;
    r->reserve = i->reserve;
    r->measured = i->measured;
    return r;
}

enum rc adopt_write(void *instance, pid_t pid, struct err *err)
{
    struct pool_instance *i = instance;
    struct roster_row *r = row_of(i, pid);
    enum rc rc = process_start_ticks(pid, &r->start_ticks)
                     ? roster_save(i->pool->roster_dir, r, err)
                     : err_set(err, RC_IO, "cannot look at process %ld", (long)pid);
    if (rc == RC_OK)
        i->written_pid = pid;
    roster_row_free(r);
    return rc;
}

/* A row that cannot be written anew stays as it was: then the server is taken over as one that loads. */
void adopt_rewrite(struct pool_instance *i)
{
    if (!i->written_pid || i->was_ready)
        return;
    struct roster_row *r = row_of(i, i->written_pid);
    r->ready = true;
    if (process_start_ticks(r->pid, &r->start_ticks) && process_command_hash(r->pid, &r->command_hash))
        (void)!roster_save(i->pool->roster_dir, r, NULL);
    roster_row_free(r);
}

void adopt_forget(struct pool_instance *i)
{
    if (i->written_pid && i->pool->roster_dir)
        roster_drop(i->pool->roster_dir, i->written_pid);
    i->written_pid = 0;
}

/* ---- leaving ---- */

bool adopt_may_leave(const struct pool_instance *i)
{
    return i->written_pid && i->job && adopt_detaches(i->pool) && !i->pool->keep_none &&
           (i->state == POOL_READY || i->state == POOL_STARTING);
}

/* ---- taking over ---- */

/* The model's files, read on the work pool; the instance may be gone by the end. */
struct takeover {
    uv_work_t req;
    struct pool *pool;
    uint64_t serial;
    char *path;
    struct pool_files *files;
    struct model *facts;
    struct beside beside;
    enum rc rc;
    struct err err;
};

static void read_files(uv_work_t *req)
{
    struct takeover *t = req->data;
    t->rc = t->pool->deps.facts(t->path, &t->facts, &t->err);
    if (t->rc == RC_OK)
        t->rc = beside_read(t->pool, t->files, &t->beside, &t->err);
}

static struct pool_instance *find(struct pool *p, uint64_t serial)
{
    struct pool_instance *i = p->instances;
    while (i && i->serial != serial)
        i = i->next;
    return i;
}

/* It is stopped, and its model is loaded again if somebody waits for it. */
static void give_up(struct pool_instance *i, const char *code, const char *why)
{
    struct plan_reason r;
    struct entry *e = i->entry;
    reason_set(&r, code, "%s", why);
    decide(i->pool, "unload", e, i, &r, 1, NULL, 0);
    instance_detach(i);
    instance_stop(i, STOP_TERM);
    if (e && wait_count(e) && !i->pool->stopping)
        seats_load(e);
}

static void files_read(uv_work_t *req, int status)
{
    struct takeover *t = req->data;
    struct pool *p = t->pool;
    struct pool_instance *i = find(p, t->serial);
    (void)status;
    p->n_work--;
    if (i && i->state == POOL_STARTING && i->entry) {
        if (t->rc == RC_OK) {
            i->facts = take_ptr(t->facts);
            i->beside = t->beside;
            t->beside = (struct beside){0};
            i->plan.estimate.params.extras =
                beside_extras(i->entry->files, &i->beside, &i->extras) ? &i->extras : NULL;
            instance_probe(i);
        } else {
            give_up(i, "file_gone", t->err.message);
        }
    }
    if (t->facts)
        p->deps.facts_unref(t->facts);
    beside_release(p, &t->beside);
    free(t->files);
    free(t->path);
    free(t);
    pool_kick(p);
}

static void begin_reading(struct pool_instance *i, const struct roster_row *row)
{
    struct takeover *t = mem_new(struct takeover);
    struct entry *e = i->entry;
    t->req.data = t;
    t->pool = i->pool;
    t->serial = i->serial;
    t->path = mem_strdup(row->smaller ? row->path : e->path);
    t->files = files_copy(e->files);
    t->pool->n_work++;
    if (uv_queue_work(t->pool->loop, &t->req, read_files, files_read) != 0)
        abort(); /* only for a NULL callback */
}

bool adopt_is_patient(struct pool_instance *i, int status)
{
    return status == HEALTH_UNASKED || ++i->check_failures < POOL_CHECK_TRIES;
}

void adopt_failed(struct pool_instance *i)
{
    give_up(i, "unwell", "it was left running, and answers no health check");
}

/* The seat that takes it; NULL: none does, and why. */
static struct entry *seat_for(struct pool *p, const struct roster_row *row, const char **ret_why)
{
    struct entry *lead = entry_find(p, str_from(row->model)), *found = NULL;
    *ret_why = NULL;
    if (!p->opt.roster_dir)
        *ret_why = "instances no longer outlive the daemon (detach is off)";
    else if (!lead || strcmp(lead->id, row->model) != 0)
        *ret_why = "its model is no longer configured";
    else if (lead->settings_hash != row->settings_hash)
        *ret_why = "its model's settings or file changed while no daemon ran";
    for (struct entry *s = *ret_why ? NULL : lead; s; s = s->twin)
        if (s->demand == DEMAND_NONE && !s->current && (!found || s->seat == row->seat))
            found = s;
    if (!found && !*ret_why)
        *ret_why = "fewer instances of its model are wanted";
    return found;
}

static void fill(struct pool_instance *i, struct roster_row *row)
{
    const struct pool *p = i->pool;
    i->adopted = true;
    i->was_ready = row->ready;
    i->written_pid = row->pid;
    i->port = row->port;
    i->plan = row->plan;
    i->machine = row->machine;
    i->reserve = row->reserve;
    i->measured = row->measured;
    i->load_seconds = row->load_seconds;
    /* Its memory was in use before any sample of ours; what loading taught is known to the history. */
    i->ready_ms = row->ready ? 1 : 0;
    i->weighed = true;
    snprintf(i->version, sizeof i->version, "%s", row->version);
    i->argv = mem_calloc(row->n_argv + 1, sizeof *i->argv);
    memcpy(i->argv, row->argv, row->n_argv * sizeof *i->argv);
    row->n_argv = 0;
    if (row->log[0] && p->log_dir)
        i->log_path = mem_printf("%s/%s", p->log_dir, row->log);
    i->plan.n_reasons = 1;
    reason_set(&i->plan.reasons[0], "adopted",
               "an earlier daemon left it running as process %ld; nothing is loaded", (long)row->pid);
}

/* The next instance of the model gets a number of its own. */
static void count_on(struct pool *p, const struct roster_row *row)
{
    struct entry *e = entry_find(p, str_from(row->model));
    const char *mark = strrchr(row->id, '#');
    uint64_t n;
    if (e && mark && str_u64(str_from(mark + 1), &n) && n < UINT32_MAX && n > e->lead->serial)
        e->lead->serial = (uint32_t)n;
}

static void take(struct pool *p, struct roster_row *row)
{
    const char *why;
    struct err err;
    struct entry *e = seat_for(p, row, &why);
    struct pool_instance *i = instance_blank(p, row->id, row->model);
    fill(i, row);
    instance_because(i, "found", "an earlier daemon left it running as process %ld", (long)row->pid);
    instance_born(i);
    const struct launch_found found = {
        .pid = row->pid, .start_ticks = row->start_ticks, .log_path = i->log_path, .replay = !row->ready};
    if (instance_take_over(i, &found, &err) != RC_OK) { /* it has ended since it was found */
        adopt_forget(i);
        instance_because(i, "ended", "it has ended since it was found");
        instance_set_state(i, POOL_STOPPED);
        return;
    }
    count_on(p, row);
    if (!e) {
        give_up(i, "not_adopted", why);
        return;
    }
    i->entry = e;
    i->keep_ms = e->ttl_ms ? e->ttl_ms : UINT64_MAX;
    e->current = i;
    e->demand = DEMAND_PLACED;
    begin_reading(i, row);
}

void pool_adopt(struct pool *p, struct roster *roster)
{
    for (size_t k = 0; roster && k < roster->n; k++) {
        if (p->deps.launch->adopt)
            take(p, roster->rows[k]);
    }
    roster_free(roster);
    pool_kick(p);
}
