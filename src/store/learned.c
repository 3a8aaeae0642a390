/* What was learned and measured, read from the file: see store.h. Layer store; blocking; any thread, with or
 * without a store on the same file. */
#include "store/store_priv.h"

#include "os/file.h"

#include <stdio.h>
#include <string.h>

static enum rc failed(sqlite3 *db, int code, const char *path, struct err *err)
{
    bool corrupt = store_db_is_corrupt(code);
    enum rc rc = err_set(err, corrupt ? RC_INVALID : RC_IO, "cannot read what was learned from %s: %s", path,
                         db ? sqlite3_errmsg(db) : sqlite3_errstr(code));
    err_hint(err, "%s",
             corrupt ? "the daemon moves a corrupt file aside when it starts"
                     : "check the permissions of the file and its directory");
    return rc;
}

static const char *text(sqlite3_stmt *q, int column)
{
    const char *s = (const char *)sqlite3_column_text(q, column);
    return s ? s : "";
}

static bool has_table(sqlite3 *db, const char *table, int *ret_code)
{
    sqlite3_stmt *q = NULL;
    int rc = sqlite3_prepare_v2(db, "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1", -1, &q,
                                NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_bind_text(q, 1, table, -1, SQLITE_STATIC);
    bool found = false;
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(q);
        found = rc == SQLITE_ROW;
        rc = rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
    }
    sqlite3_finalize(q);
    *ret_code = rc;
    return found;
}

/* Calls fn for each row of the query, which has at most one parameter. */
static enum rc each_row(const char *path, const char *table, const char *sql, const char *parameter,
                        void (*fn)(void *arg, sqlite3_stmt *q), void *arg, struct err *err)
{
    if (!file_exists(path))
        return err_set(err, RC_NOT_FOUND, "there is no history in %s yet", path);
    sqlite3 *db = NULL;
    sqlite3_stmt *q = NULL;
    int rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
    bool known = false;
    if (rc == SQLITE_OK) {
        sqlite3_busy_timeout(db, 2000);
        known = has_table(db, table, &rc);
    }
    if (rc == SQLITE_OK && known)
        rc = sqlite3_prepare_v2(db, sql, -1, &q, NULL);
    if (rc == SQLITE_OK && known && parameter)
        rc = sqlite3_bind_text(q, 1, parameter, -1, SQLITE_STATIC);
    while (rc == SQLITE_OK && known) {
        rc = sqlite3_step(q);
        if (rc == SQLITE_DONE)
            break;
        if (rc != SQLITE_ROW)
            continue;
        fn(arg, q);
        rc = SQLITE_OK;
    }
    sqlite3_finalize(q);
    enum rc out = rc == SQLITE_OK || rc == SQLITE_DONE ? RC_OK : failed(db, rc, path, err);
    sqlite3_close(db);
    return out;
}

struct lessons {
    void (*fn)(void *arg, const struct store_lesson *l);
    void *arg;
};

static void on_lesson(void *arg, sqlite3_stmt *q)
{
    const struct lessons *to = arg;
    to->fn(to->arg, &(struct store_lesson){.wall_ms = sqlite3_column_int64(q, 0),
                                           .kind = text(q, 1),
                                           .model = text(q, 2),
                                           .runtime = text(q, 3),
                                           .device = text(q, 4),
                                           .architecture = text(q, 5),
                                           .quantization = text(q, 6),
                                           .flash_attn = sqlite3_column_int(q, 7) != 0,
                                           .value = sqlite3_column_double(q, 8),
                                           .size = sqlite3_column_double(q, 9)});
}

enum rc store_read_lessons(const char *path, void (*fn)(void *arg, const struct store_lesson *l), void *arg,
                           struct err *err)
{
    char sql[256];
    snprintf(
        sql, sizeof sql,
        "SELECT at_ms, kind, model, runtime, device, architecture, quantization, flash_attn, value, size "
        "FROM (SELECT * FROM lessons ORDER BY id DESC LIMIT %d) ORDER BY id",
        STORE_LEARNED_MAX);
    return each_row(path, "lessons", sql, NULL, on_lesson, &(struct lessons){fn, arg}, err);
}

struct figures {
    void (*fn)(void *arg, const struct store_figure *f);
    void *arg;
};

static void on_figure(void *arg, sqlite3_stmt *q)
{
    const struct figures *to = arg;
    to->fn(to->arg, &(struct store_figure){.wall_ms = sqlite3_column_int64(q, 0),
                                           .machine = text(q, 1),
                                           .device = text(q, 2),
                                           .name = text(q, 3),
                                           .value = sqlite3_column_double(q, 4)});
}

enum rc store_read_figures(const char *path, const char *machine,
                           void (*fn)(void *arg, const struct store_figure *f), void *arg, struct err *err)
{
    return each_row(path, "figures",
                    "SELECT at_ms, machine, device, name, value FROM figures WHERE machine = ?1 ORDER BY id",
                    machine, on_figure, &(struct figures){fn, arg}, err);
}

struct sums {
    void (*fn)(void *arg, const struct store_spending *p);
    void *arg;
};

static void on_sum(void *arg, sqlite3_stmt *q)
{
    const struct sums *to = arg;
    to->fn(to->arg, &(struct store_spending){.wall_ms = sqlite3_column_int64(q, 0),
                                             .upstream = text(q, 1),
                                             .day = sqlite3_column_int64(q, 2),
                                             .month = sqlite3_column_int64(q, 3),
                                             .in_day = sqlite3_column_double(q, 4),
                                             .in_month = sqlite3_column_double(q, 5)});
}

enum rc store_read_spending(const char *path, void (*fn)(void *arg, const struct store_spending *p),
                            void *arg, struct err *err)
{
    return each_row(path, "spending",
                    "SELECT at_ms, upstream, day, month, in_day, in_month FROM spending ORDER BY id", NULL,
                    on_sum, &(struct sums){fn, arg}, err);
}
