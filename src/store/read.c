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
    else if (kind == STORE_TEXT || kind == STORE_LONG)
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

static const struct store_column *find_column(const struct store_table *t, const char *name)
{
    for (size_t i = 0; i < t->n_columns; i++)
        if (strcmp(t->columns[i].name, name) == 0)
            return &t->columns[i];
    return NULL;
}

/* The filter's texts with the columns they are for. */
#define FILTER_TEXTS 4
struct condition {
    const char *column;
    struct str text;
};

static void conditions_of(const struct store_filter *f, struct condition *ret)
{
    ret[0] = (struct condition){"model", f->model};
    ret[1] = (struct condition){"key", f->key};
    ret[2] = (struct condition){"outcome", f->outcome};
    ret[3] = (struct condition){"request_id", f->request_id};
}

static bool row_fits(const struct store_table *t, const struct store_cell *cells,
                     const struct store_filter *f)
{
    struct condition c[FILTER_TEXTS];
    conditions_of(f, c);
    for (size_t i = 0; i < FILTER_TEXTS; i++) {
        const struct store_column *column = c[i].text.n ? find_column(t, c[i].column) : NULL;
        if (column && !str_eq(cells[column - t->columns].s, c[i].text))
            return false;
    }
    const struct store_column *outcome = f->failed ? find_column(t, "outcome") : NULL;
    return cells[0].i >= f->since_ms && !(outcome && str_eq_c(cells[outcome - t->columns].s, "ok"));
}

/* With the lock: rows of the table that wait in memory. The lists run from old to new, so they are turned
 * round. */
static unsigned put_waiting(struct store *s, enum store_table_id id, const struct store_filter *f,
                            struct buf *out)
{
    const struct store_table *t = &store_tables[id];
    unsigned n = 0;
    struct store_queue *lane = &s->lanes[store_lane(id)];
    const struct store_row **rows = mem_try_array(lane->n ? lane->n : 1, sizeof(*rows));
    size_t found = 0;
    for (const struct store_row *row = lane->head; rows && row; row = row->next)
        if (row->table == id && row_fits(t, row->cells, f))
            rows[found++] = row;
    for (; found > 0 && n < f->limit; n++)
        put_row(out, t, rows[--found]->cells, n == 0);
    free(rows);
    return n;
}

/* Fixes one moment: between batches, with the lock held, a row is either in memory or in the transaction that
 * begins here, never in both. */
static unsigned begin_and_put_waiting(struct store *s, sqlite3 *db, enum store_table_id id,
                                      const struct store_filter *f, struct buf *out)
{
    auto_free char *touch = mem_printf("SELECT id FROM %s LIMIT 1", store_tables[id].name);
    pthread_mutex_lock(&s->lock);
    while (s->batch.n > 0)
        pthread_cond_wait(&s->done, &s->lock);
    if (db && sqlite3_exec(db, "BEGIN", NULL, NULL, NULL) == SQLITE_OK)
        sqlite3_exec(db, touch, NULL, NULL, NULL); /* a failure shows again in the real query */
    unsigned n = put_waiting(s, id, f, out);
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

/* Binds the texts of the conditions that the statement has, in their order. */
static int bind_texts(sqlite3_stmt *q, const struct store_table *t, const struct condition *c)
{
    int rc = SQLITE_OK;
    for (int i = 0, at = 1; i < FILTER_TEXTS && rc == SQLITE_OK; i++)
        if (c[i].text.n && find_column(t, c[i].column))
            rc = sqlite3_bind_text(q, at++, c[i].text.p, (int)c[i].text.n, SQLITE_STATIC);
    return rc;
}

static int prepare_written(sqlite3 *db, const struct store_table *t, const struct store_filter *f,
                           unsigned limit, sqlite3_stmt **ret_q)
{
    struct buf sql = {.max = 2048};
    struct condition c[FILTER_TEXTS];
    conditions_of(f, c);
    buf_puts(&sql, "SELECT ");
    for (size_t i = 0; i < t->n_columns; i++)
        buf_printf(&sql, "%s%s", i ? "," : "", t->columns[i].name);
    buf_printf(&sql, " FROM %s WHERE at_ms >= %lld", t->name, (long long)f->since_ms);
    for (size_t i = 0; i < FILTER_TEXTS; i++)
        if (c[i].text.n && find_column(t, c[i].column))
            buf_printf(&sql, " AND %s = ?", c[i].column);
    if (f->failed && find_column(t, "outcome"))
        buf_puts(&sql, " AND outcome <> 'ok'");
    buf_printf(&sql, " ORDER BY id DESC LIMIT %u", limit);
    int rc = sqlite3_prepare_v2(db, sql.data, -1, ret_q, NULL);
    buf_release(&sql);
    return rc == SQLITE_OK ? bind_texts(*ret_q, t, c) : rc;
}

static int put_written(sqlite3 *db, const struct store_table *t, const struct store_filter *f, unsigned skip,
                       struct buf *out)
{
    sqlite3_stmt *q = NULL;
    int rc = prepare_written(db, t, f, f->limit - skip, &q);
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

static int open_file(const struct store *s, sqlite3 **ret_db)
{
    int rc = sqlite3_open_v2(s->path, ret_db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK)
        return rc;
    sqlite3_busy_timeout(*ret_db, 2000);
    /* the slow part of an opening */
    return sqlite3_exec(*ret_db, "SELECT count(*) FROM sqlite_master", NULL, NULL, NULL);
}

static enum rc find_rows(struct store *s, enum store_table_id id, const struct store_filter *wanted,
                         struct buf *out, struct err *err)
{
    struct store_filter filter = *wanted;
    const struct store_filter *f = &filter;
    if (filter.limit > LIMIT_MAX)
        filter.limit = LIMIT_MAX;
    (void)store_flush(s, FLUSH_MS);
    buf_puts(out, "[");
    sqlite3 *db = NULL;
    int rc = open_file(s, &db);
    unsigned n = begin_and_put_waiting(s, rc == SQLITE_OK ? db : NULL, id, f, out);
    if (rc == SQLITE_OK)
        rc = put_written(db, &store_tables[id], f, n, out);
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

static enum rc rows_json(struct store *s, enum store_table_id id, struct str model, unsigned limit,
                         struct buf *out, struct err *err)
{
    const struct store_filter f = {.model = model, .limit = limit, .since_ms = INT64_MIN};
    return find_rows(s, id, &f, out, err);
}

enum rc store_find_requests(struct store *s, const struct store_filter *f, struct buf *out, struct err *err)
{
    return find_rows(s, STORE_REQUESTS, f, out, err);
}

enum rc store_find_captures(struct store *s, const struct store_filter *f, struct buf *out, struct err *err)
{
    return find_rows(s, STORE_CAPTURES, f, out, err);
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

/* ---- sums ---- */

static void put_sum(sqlite3_stmt *q, bool first, struct buf *out)
{
    buf_puts(out, first ? "{" : ",{");
    for (int i = 0; i < sqlite3_column_count(q); i++) {
        struct store_cell cell;
        cell_from(q, i, &cell);
        buf_printf(out, "%s\"%s\":", i ? "," : "", sqlite3_column_name(q, i));
        put_cell(out, cell.type == STORE_CELL_TEXT ? STORE_TEXT : STORE_I64, &cell);
    }
    buf_puts(out, "}");
}

enum rc store_usage_json(struct store *s, bool by_key, bool by_model, int64_t since_ms, struct buf *out,
                         struct err *err)
{
    auto_free char *sql = mem_printf(
        "SELECT %s AS key, %s AS model, count(*) AS requests, CAST(total(outcome = 'ok') AS INTEGER) AS ok, "
        "CAST(total(prompt_tokens) AS INTEGER) AS prompt_tokens, "
        "CAST(total(completion_tokens) AS INTEGER) AS completion_tokens, "
        "CAST(total(cached_tokens) AS INTEGER) AS cached_tokens, "
        "avg(wait_us) / 1000 AS wait_ms, avg(ttfb_us) / 1000 AS ttft_ms, "
        "avg(overhead_us) / 1000 AS overhead_ms, avg(decode_tps) AS decode_tps, "
        "total(total_us) / 1000 AS busy_ms FROM requests WHERE at_ms >= %lld GROUP BY 1, 2 "
        "ORDER BY 3 DESC LIMIT 1000",
        by_key ? "ifnull(key, '')" : "NULL", by_model ? "model" : "NULL", (long long)since_ms);
    sqlite3 *db = NULL;
    sqlite3_stmt *q = NULL;
    (void)store_flush(s, FLUSH_MS);
    int rc = open_file(s, &db);
    if (rc == SQLITE_OK)
        rc = sqlite3_prepare_v2(db, sql, -1, &q, NULL);
    buf_puts(out, "[");
    for (bool first = true; rc == SQLITE_OK && (rc = sqlite3_step(q)) == SQLITE_ROW; first = false) {
        put_sum(q, first, out);
        rc = SQLITE_OK;
    }
    buf_puts(out, "]");
    bool done = rc == SQLITE_DONE;
    char why[160];
    snprintf(why, sizeof why, "%s", db ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
    sqlite3_finalize(q);
    sqlite3_close(db);
    if (!done)
        return err_set(err, RC_IO, "cannot read the history in %s: %s", s->path, why);
    return out->failed ? err_set(err, RC_NOMEM, "the history's answer is too large") : RC_OK;
}
