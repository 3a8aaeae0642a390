/* The writer thread: takes rows in batches, one transaction each. Layer store; its own thread.
 *
 * Rows of requests wait flush_ms for company, so that a busy proxy costs a transaction a batch and not one a
 * request; other rows are written at once. After a failure the rows stay in memory and the next attempt comes
 * retry_ms later; a store that closes makes one last attempt. */
#include "store/store_priv.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BATCH_ROWS    512
#define TRIM_EVERY_MS (3600u * 1000u)

static void deadline_in(uint32_t ms, struct timespec *ret_when)
{
    clock_gettime(CLOCK_MONOTONIC, ret_when);
    ret_when->tv_sec += ms / 1000;
    ret_when->tv_nsec += (long)(ms % 1000) * 1000000;
    if (ret_when->tv_nsec >= 1000000000) {
        ret_when->tv_sec++;
        ret_when->tv_nsec -= 1000000000;
    }
}

static uint32_t queued(const struct store *s)
{
    return s->lanes[STORE_LANE_REQUESTS].n + s->lanes[STORE_LANE_REST].n;
}

/* With the lock: sleeps until there is a batch worth writing. False: closing and nothing is left. */
static bool wait_for_rows(struct store *s)
{
    while (queued(s) == 0 && !s->closing)
        pthread_cond_wait(&s->work, &s->lock);
    uint32_t pause = s->failing ? s->opt.retry_ms : s->opt.flush_ms;
    struct timespec until;
    deadline_in(pause, &until);
    while (!s->closing && (s->failing || (!s->urgent && queued(s) < BATCH_ROWS)))
        if (pthread_cond_timedwait(&s->work, &s->lock, &until) != 0)
            break;
    s->urgent = false;
    return queued(s) > 0;
}

static void take_batch(struct store *s)
{
    static const int order[] = {STORE_LANE_REST, STORE_LANE_REQUESTS};
    for (size_t i = 0; i < 2; i++) {
        struct store_row *row;
        while (s->batch.n < BATCH_ROWS && (row = store_queue_pop(&s->lanes[order[i]])))
            store_queue_push(&s->batch, row);
    }
}

static int insert_row(struct store *s, const struct store_row *row)
{
    sqlite3_stmt *q = s->insert[row->table];
    for (int i = 0; i < (int)store_tables[row->table].n_columns; i++) {
        const struct store_cell *c = &row->cells[i];
        int rc = SQLITE_OK;
        switch (c->type) {
        case STORE_CELL_NULL: rc = sqlite3_bind_null(q, i + 1); break;
        case STORE_CELL_INT: rc = sqlite3_bind_int64(q, i + 1, c->i); break;
        case STORE_CELL_REAL: rc = sqlite3_bind_double(q, i + 1, c->d); break;
        case STORE_CELL_TEXT: rc = sqlite3_bind_text(q, i + 1, c->s.p, (int)c->s.n, SQLITE_STATIC); break;
        }
        if (rc != SQLITE_OK)
            return rc;
    }
    int rc = sqlite3_step(q);
    sqlite3_reset(q);
    sqlite3_clear_bindings(q);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int write_batch(struct store *s)
{
    int rc = sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    for (const struct store_row *row = s->batch.head; row && rc == SQLITE_OK; row = row->next)
        rc = insert_row(s, row);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL);
    if (rc != SQLITE_OK && !sqlite3_get_autocommit(s->db))
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

/* One attempt, without the lock. Text of a failure goes to message. */
static bool attempt(struct store *s, bool *ret_replaced, char *message, size_t cap)
{
    struct err err;
    message[0] = '\0';
    if (!s->db && store_db_open(s, ret_replaced, &err) != RC_OK) {
        snprintf(message, cap, "%s", err.message);
        return false;
    }
    int rc = write_batch(s);
    if (rc == SQLITE_OK)
        return true;
    snprintf(message, cap, "cannot write history to %s: %s", s->path, sqlite3_errmsg(s->db));
    int primary = rc & 0xff;
    if (store_db_is_corrupt(rc)) {
        store_db_close(s);
        if (store_db_aside(s->path, &err) != RC_OK) {
            snprintf(message, cap, "%s", err.message);
            return false;
        }
        *ret_replaced = true;
        if (store_db_open(s, ret_replaced, &err) == RC_OK && write_batch(s) == SQLITE_OK)
            return true;
    } else if (primary == SQLITE_READONLY || primary == SQLITE_IOERR || primary == SQLITE_CANTOPEN) {
        store_db_close(s); /* the file may be gone or come back as another one */
    }
    return false;
}

static void trim_if_due(struct store *s)
{
    uint64_t now = clock_mono_ms();
    if (!s->db || now < s->trim_due_ms)
        return;
    s->trim_due_ms = now + TRIM_EVERY_MS;
    int rc = store_db_trim(s);
    if (rc != SQLITE_OK)
        log_debug("store: cannot trim %s: %s", s->path, sqlite3_errstr(rc));
}

static void settle(struct store *s, bool ok, bool replaced, const char *message)
{
    s->health.writable = ok;
    s->health.replaced |= replaced;
    s->failing = !ok;
    snprintf(s->health.message, sizeof s->health.message, "%s", message);
    if (ok) {
        s->health.written += s->batch.n;
        s->settled += s->batch.n;
        store_queue_clear(&s->batch);
        if (s->health.replaced && !message[0])
            snprintf(s->health.message, sizeof s->health.message,
                     "the history file was corrupt; it was moved aside and a new one begun");
        return;
    }
    /* Back to the head of their lanes, in order. */
    struct store_queue back[STORE_LANES];
    for (int i = 0; i < STORE_LANES; i++)
        store_queue_init(&back[i]);
    struct store_row *row;
    while ((row = store_queue_pop(&s->batch)))
        store_queue_push(&back[store_lane((enum store_table_id)row->table)], row);
    for (int i = 0; i < STORE_LANES; i++)
        store_queue_prepend(&s->lanes[i], &back[i]);
}

void *store_writer(void *store)
{
    struct store *s = store;
    char message[512];
    trim_if_due(s);
    pthread_mutex_lock(&s->lock);
    while (wait_for_rows(s)) {
        bool last = s->closing, replaced = false;
        take_batch(s);
        pthread_mutex_unlock(&s->lock);
        bool ok = attempt(s, &replaced, message, sizeof message);
        if (ok)
            trim_if_due(s);
        pthread_mutex_lock(&s->lock);
        settle(s, ok, replaced, message);
        pthread_cond_broadcast(&s->done);
        if (last && !ok)
            break; /* nowhere left to put them: store_health told so before */
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}
