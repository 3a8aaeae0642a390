/* The store's public calls: posts into bounded lanes, flush, health, open and close. Layer store; any thread.
 */
#include "store/store_priv.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

void store_options_default(struct store_options *o)
{
    *o = (struct store_options){
        .queue_rows = 16384,
        .queue_bytes = 16 * MIB,
        .flush_ms = 200,
        .retry_ms = 5000,
        .max_age_ms = 90ull * 24 * 3600 * 1000,
        .capture_age_ms = 24ull * 3600 * 1000,
        .max_requests = 200000,
        .max_captures = 2000,
        .max_decisions = 50000,
        .max_measures = 20000,
        .max_instances = 50000,
        .max_lessons = 20000,
        .max_figures = 2000,
        .max_spending = 1000000, /* rows are replaced, so ids grow with every one */
    };
}

static enum rc init_locks(struct store *s, struct err *err)
{
    pthread_condattr_t attr;
    if (pthread_condattr_init(&attr) != 0)
        return err_set(err, RC_NOMEM, "cannot make the store's condition variables");
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    bool ok = pthread_mutex_init(&s->lock, NULL) == 0;
    ok = ok && pthread_cond_init(&s->work, &attr) == 0;
    ok = ok && pthread_cond_init(&s->done, &attr) == 0;
    pthread_condattr_destroy(&attr);
    return ok ? RC_OK : err_set(err, RC_NOMEM, "cannot make the store's condition variables");
}

static void destroy(struct store *s)
{
    store_db_close(s);
    for (int i = 0; i < STORE_LANES; i++)
        store_queue_clear(&s->lanes[i]);
    store_queue_clear(&s->batch);
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->done);
    pthread_mutex_destroy(&s->lock);
    free(s->path);
    free(s);
}

enum rc store_open_with(const char *path, const struct store_options *opt, struct store **ret_store,
                        struct err *err)
{
    struct store *s = mem_new(struct store);
    s->path = mem_strdup(path);
    s->opt = *opt;
    for (int i = 0; i < STORE_LANES; i++)
        store_queue_init(&s->lanes[i]);
    store_queue_init(&s->batch);
    enum rc rc = init_locks(s, err);
    if (rc != RC_OK) {
        free(s->path);
        free(s);
        return rc;
    }
    struct err open_err;
    bool replaced = false;
    s->health.writable = store_db_open(s, &replaced, &open_err) == RC_OK;
    s->health.replaced = replaced;
    s->failing = !s->health.writable;
    if (s->failing)
        snprintf(s->health.message, sizeof s->health.message, "%s", open_err.message);
    else if (replaced)
        snprintf(s->health.message, sizeof s->health.message,
                 "the history file was corrupt; it was moved aside and a new one begun");
    int e = pthread_create(&s->thread, NULL, store_writer, s);
    if (e != 0) {
        destroy(s);
        errno = e;
        return err_sys(err, RC_NOMEM, "cannot start the history's writer thread");
    }
    *ret_store = s;
    return RC_OK;
}

enum rc store_open(const char *path, struct store **ret_store, struct err *err)
{
    struct store_options opt;
    store_options_default(&opt);
    return store_open_with(path, &opt, ret_store, err);
}

void store_close(struct store *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    destroy(s);
}

/* With the lock: makes room by dropping the oldest request, else the oldest of the rest. */
static void drop_past_bounds(struct store *s)
{
    struct store_queue *requests = &s->lanes[STORE_LANE_REQUESTS], *rest = &s->lanes[STORE_LANE_REST];
    while (requests->n + rest->n > s->opt.queue_rows || requests->bytes + rest->bytes > s->opt.queue_bytes) {
        struct store_row *row = store_queue_pop(requests);
        if (!row)
            row = store_queue_pop(rest);
        if (!row)
            return;
        free(row);
        s->health.dropped++;
        s->settled++;
    }
}

static void post(struct store *s, enum store_table_id table, const void *record)
{
    struct store_row *row = store_row_from(table, record);
    bool request = store_lane(table) == STORE_LANE_REQUESTS;
    pthread_mutex_lock(&s->lock);
    s->posted++;
    if (!row) {
        s->health.dropped++;
        s->settled++;
        pthread_mutex_unlock(&s->lock);
        return;
    }
    struct store_queue *lane = &s->lanes[request ? STORE_LANE_REQUESTS : STORE_LANE_REST];
    bool was_empty = s->lanes[STORE_LANE_REQUESTS].n + s->lanes[STORE_LANE_REST].n == 0;
    store_queue_push(lane, row);
    drop_past_bounds(s);
    /* The writer sleeps through its flush or retry pause: wake it only from idleness, or when there is a
     * reason. */
    bool wake = was_empty || (!request && !s->urgent) || lane->n % 512 == 0;
    s->urgent |= !request;
    if (wake)
        pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
}

void store_post_request(struct store *s, const struct store_request *r)
{
    post(s, STORE_REQUESTS, r);
}

void store_post_capture(struct store *s, const struct store_capture *c)
{
    post(s, STORE_CAPTURES, c);
}

void store_post_decision(struct store *s, const struct store_decision *d)
{
    post(s, STORE_DECISIONS, d);
}

void store_post_measure(struct store *s, const struct store_measure *m)
{
    post(s, STORE_MEASURES, m);
}

void store_post_instance(struct store *s, const struct store_instance *i)
{
    post(s, STORE_INSTANCES, i);
}

void store_post_lesson(struct store *s, const struct store_lesson *l)
{
    post(s, STORE_LESSONS, l);
}

void store_post_spending(struct store *s, const struct store_spending *p)
{
    post(s, STORE_SPENDING, p);
}

void store_post_figure(struct store *s, const struct store_figure *f)
{
    post(s, STORE_FIGURES, f);
}

bool store_flush(struct store *s, uint32_t timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&s->lock);
    uint64_t target = s->posted;
    if (s->settled < target) {
        s->urgent = true;
        pthread_cond_signal(&s->work);
    }
    /* While it fails, rows stay in memory, where the readers find them once no batch is under way. */
    while (s->settled < target && !(s->failing && s->batch.n == 0))
        if (pthread_cond_timedwait(&s->done, &s->lock, &until) != 0)
            break;
    bool written = s->settled >= target;
    pthread_mutex_unlock(&s->lock);
    return written;
}

void store_health(struct store *s, struct store_health *ret)
{
    pthread_mutex_lock(&s->lock);
    *ret = s->health;
    ret->queued = (uint64_t)s->lanes[STORE_LANE_REQUESTS].n + s->lanes[STORE_LANE_REST].n + s->batch.n;
    pthread_mutex_unlock(&s->lock);
}
