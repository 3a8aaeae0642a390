/* Reading the history as JSON: rows still in memory first, then those in the file, newest first. Layer store;
 * blocking; a connection of its own for each call. */
#include "store/store_priv.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FLUSH_MS  2000
#define LIMIT_MAX 10000

static void put_json_cell(struct buf *out, struct str text)
{
    /* What was stored is a text that somebody built: a broken one must not break the whole answer. */
    yyjson_doc *doc = text.n ? yyjson_read(text.p, text.n, 0) : NULL;
    if (doc)
        buf_put_str(out, text);
    else
        buf_puts(out, "null");
    yyjson_doc_free(doc);
}

static void put_cell(struct buf *out, enum store_kind kind, const struct store_cell *c)
{
    if (c->type == STORE_CELL_NULL)
        buf_puts(out, "null");
    else if (kind == STORE_TEXT)
        buf_put_json(out, c->s);
    else if (kind == STORE_JSON)
        put_json_cell(out, c->s);
    else if (kind == STORE_BOOL)
        buf_puts(out, c->i ? "true" : "false");
    else if (c->type == STORE_CELL_REAL)
        buf_printf(out, "%.6g", c->d);
    else
        buf_printf(out, "%lld", (long long)c->i);
}

static void put_row(struct buf *out, const struct store_table *t, const struct store_cell *cells, bool first)
{
    char when[40];
    buf_puts(out, first ? "{\"at\":\"" : ",{\"at\":\"");
    buf_puts(out, clock_rfc3339(cells[0].i, when, sizeof when));
    buf_puts(out, "\"");
    for (size_t i = 0; i < t->n_columns; i++) {
        buf_printf(out, ",\"%s\":", t->columns[i].name);
        put_cell(out, t->columns[i].kind, &cells[i]);
    }
    buf_puts(out, "}");
}

static size_t model_column(const struct store_table *t)
{
    for (size_t i = 0; i < t->n_columns; i++)
        if (strcmp(t->columns[i].name, "model") == 0)
            return i;
    return 0;
}

/* With the lock: rows of the table that wait in memory. The lists run from old to new, so they are turned
 * round. */
static unsigned put_waiting(struct store *s, enum store_table_id id, struct str model, unsigned limit,
                            struct buf *out)
{
    const struct store_table *t = &store_tables[id];
    size_t column = model_column(t);
    unsigned n = 0;
    struct store_queue *lane = &s->lanes[id == STORE_REQUESTS ? STORE_LANE_REQUESTS : STORE_LANE_REST];
    const struct store_row **rows = mem_try_array(lane->n ? lane->n : 1, sizeof(*rows));
    size_t found = 0;
    for (const struct store_row *row = lane->head; rows && row; row = row->next)
        if (row->table == id && (model.n == 0 || str_eq(row->cells[column].s, model)))
            rows[found++] = row;
    for (; found > 0 && n < limit; n++)
        put_row(out, t, rows[--found]->cells, n == 0);
    free(rows);
    return n;
}

/* Fixes one moment: between batches, with the lock held, a row is either in memory or in the transaction that
 * begins here, never in both. */
static unsigned begin_and_put_waiting(struct store *s, sqlite3 *db, enum store_table_id id, struct str model,
                                      unsigned limit, struct buf *out)
{
    auto_free char *touch = mem_printf("SELECT id FROM %s LIMIT 1", store_tables[id].name);
    pthread_mutex_lock(&s->lock);
    while (s->batch.n > 0)
        pthread_cond_wait(&s->done, &s->lock);
    if (db && sqlite3_exec(db, "BEGIN", NULL, NULL, NULL) == SQLITE_OK)
        sqlite3_exec(db, touch, NULL, NULL, NULL); /* a failure shows again in the real query */
    unsigned n = put_waiting(s, id, model, limit, out);
    pthread_mutex_unlock(&s->lock);
    return n;
}

static void cell_from(sqlite3_stmt *q, int column, struct store_cell *ret)
{
    *ret = (struct store_cell){.type = STORE_CELL_NULL};
    switch (sqlite3_column_type(q, column)) {
    case SQLITE_INTEGER:
        ret->type = STORE_CELL_INT;
        ret->i = sqlite3_column_int64(q, column);
        break;
    case SQLITE_FLOAT:
        ret->type = STORE_CELL_REAL;
        ret->d = sqlite3_column_double(q, column);
        break;
    case SQLITE_TEXT:
        ret->type = STORE_CELL_TEXT;
        ret->s.p = (const char *)sqlite3_column_text(q, column);
        ret->s.n = (size_t)sqlite3_column_bytes(q, column);
        break;
    default: break;
    }
}

static int put_written(sqlite3 *db, const struct store_table *t, struct str model, unsigned skip,
                       unsigned limit, struct buf *out)
{
    struct buf sql = {.max = 1024};
    buf_puts(&sql, "SELECT ");
    for (size_t i = 0; i < t->n_columns; i++)
        buf_printf(&sql, "%s%s", i ? "," : "", t->columns[i].name);
    buf_printf(&sql, " FROM %s %s ORDER BY id DESC LIMIT %u", t->name, model.n ? "WHERE model = ?1" : "",
               limit);
    sqlite3_stmt *q = NULL;
    int rc = sqlite3_prepare_v2(db, sql.data, -1, &q, NULL);
    buf_release(&sql);
    if (rc == SQLITE_OK && model.n)
        rc = sqlite3_bind_text(q, 1, model.p, (int)model.n, SQLITE_STATIC);
    bool first = skip == 0;
    while (rc == SQLITE_OK) {
        int step = sqlite3_step(q);
        if (step != SQLITE_ROW) {
            rc = step == SQLITE_DONE ? SQLITE_OK : step;
            break;
        }
        struct store_cell cells[STORE_MAX_COLUMNS] = {0};
        for (size_t i = 0; i < t->n_columns; i++)
            cell_from(q, (int)i, &cells[i]);
        put_row(out, t, cells, first);
        first = false;
    }
    sqlite3_finalize(q);
    return rc;
}

static enum rc rows_json(struct store *s, enum store_table_id id, struct str model, unsigned limit,
                         struct buf *out, struct err *err)
{
    limit = limit > LIMIT_MAX ? LIMIT_MAX : limit;
    (void)store_flush(s, FLUSH_MS);
    buf_puts(out, "[");
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(s->path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc == SQLITE_OK) {
        sqlite3_busy_timeout(db, 2000);
        rc = sqlite3_exec(db, "SELECT count(*) FROM sqlite_master", NULL, NULL,
                          NULL); /* the slow part of an opening */
    }
    unsigned n = begin_and_put_waiting(s, rc == SQLITE_OK ? db : NULL, id, model, limit, out);
    if (rc == SQLITE_OK)
        rc = put_written(db, &store_tables[id], model, n, limit - n, out);
    char why[160];
    snprintf(why, sizeof why, "%s", db ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
    sqlite3_close(db);
    buf_puts(out, "]");
    struct store_health health;
    store_health(s, &health);
    /* Without a file that works, what is in memory is the whole history. */
    if (rc != SQLITE_OK && health.writable)
        return err_set(err, RC_IO, "cannot read the history in %s: %s", s->path, why);
    return out->failed ? err_set(err, RC_NOMEM, "the history's answer is too large") : RC_OK;
}

enum rc store_decisions_json(struct store *s, struct str model, unsigned limit, struct buf *out,
                             struct err *err)
{
    return rows_json(s, STORE_DECISIONS, model, limit, out, err);
}

enum rc store_requests_json(struct store *s, struct str model, unsigned limit, struct buf *out,
                            struct err *err)
{
    return rows_json(s, STORE_REQUESTS, model, limit, out, err);
}

enum rc store_measures_json(struct store *s, struct str model, unsigned limit, struct buf *out,
                            struct err *err)
{
    return rows_json(s, STORE_MEASURES, model, limit, out, err);
}

enum rc store_instances_json(struct store *s, struct str model, unsigned limit, struct buf *out,
                             struct err *err)
{
    return rows_json(s, STORE_INSTANCES, model, limit, out, err);
}
