/* The file: opening, checking, migrating, trimming, moving a corrupt one aside. Layer store; the writer's
 * thread (or store_open before it starts).
 *
 * A step of the schema, once released, is never changed: a new one is added. PRAGMA user_version counts the
 * steps that a file has seen. */
#include "store/store_priv.h"

#include "base/clock.h"
#include "base/mem.h"
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

const char *const store_migrations[] = {
    /* 1 */
    "CREATE TABLE requests (id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, model TEXT, "
    "instance TEXT, path TEXT, outcome TEXT, status INTEGER, streamed INTEGER, prompt_tokens INTEGER, "
    "completion_tokens INTEGER, cached_tokens INTEGER, request_bytes INTEGER, response_bytes INTEGER, "
    "wait_us INTEGER, ttfb_us INTEGER, total_us INTEGER, overhead_us INTEGER);"
    "CREATE TABLE decisions (id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, kind TEXT, "
    "model TEXT, instance TEXT, reasons TEXT, plan TEXT, seconds REAL);"
    "CREATE TABLE measures (id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, model TEXT, "
    "model_path TEXT, runtime TEXT, device TEXT, predicted_bytes INTEGER, measured_bytes INTEGER);",
    /* 2: what `why MODEL` and the request log ask for; the life of instances */
    "CREATE INDEX decisions_model ON decisions (model, id);"
    "CREATE INDEX requests_model ON requests (model, id);"
    "CREATE TABLE instances (id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, instance TEXT, "
    "model TEXT, model_path TEXT, state TEXT, pid INTEGER, port INTEGER, cause TEXT);",
    /* 3: what loads and requests teach, and what `bench` measured */
    "CREATE TABLE lessons (id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, kind TEXT, "
    "model TEXT, runtime TEXT, device TEXT, architecture TEXT, quantization TEXT, flash_attn INTEGER, "
    "value REAL, size REAL);"
    "CREATE TABLE figures (id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, machine TEXT, "
    "device TEXT, name TEXT, value REAL);",
    /* 4: who asked, how fast the answer came; texts where a key allows them */
    "ALTER TABLE requests ADD COLUMN key TEXT;"
    "ALTER TABLE requests ADD COLUMN request_id TEXT;"
    "ALTER TABLE requests ADD COLUMN prefill_tps REAL;"
    "ALTER TABLE requests ADD COLUMN decode_tps REAL;"
    "CREATE INDEX requests_key ON requests (key, id);"
    "CREATE TABLE captures (id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, request_id TEXT, "
    "key TEXT, model TEXT, path TEXT, request TEXT, response TEXT);",
    /* 5: which model was asked for and what the answer cost; sums of spending, one row a server */
    "ALTER TABLE requests ADD COLUMN asked TEXT;"
    "ALTER TABLE requests ADD COLUMN cost REAL;"
    "CREATE TABLE spending (id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, "
    "upstream TEXT UNIQUE ON CONFLICT REPLACE, day INTEGER, month INTEGER, in_day REAL, in_month REAL);",
};
const int store_version = (int)TABLE_COUNT(store_migrations);

/* A check reads the whole file; past this size the schema and the pages in use must do. */
#define CHECK_MAX_BYTES (64 * MIB)
#define TRIM_ROWS       2000

bool store_db_is_corrupt(int sqlite_rc)
{
    int primary = sqlite_rc & 0xff;
    return primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB;
}

static enum rc db_error(struct store *s, int sqlite_rc, const char *what, struct err *err)
{
    int primary = sqlite_rc & 0xff;
    enum rc code = store_db_is_corrupt(sqlite_rc) ? RC_INVALID : primary == SQLITE_FULL ? RC_LIMIT : RC_IO;
    const char *why = s->db ? sqlite3_errmsg(s->db) : sqlite3_errstr(sqlite_rc);
    enum rc rc = err_set(err, code, "history file %s: %s: %s", s->path, what, why);
    if (primary == SQLITE_FULL)
        err_hint(err, "make room on its disk; history is kept in memory until then");
    else if (code == RC_IO)
        err_hint(err, "check the directory's permissions, or choose another with --state-dir");
    return rc;
}

static int query_int(sqlite3 *db, const char *sql, int64_t *ret_value)
{
    sqlite3_stmt *q = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &q, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(q);
        if (rc == SQLITE_ROW)
            *ret_value = sqlite3_column_int64(q, 0);
    }
    int fin = sqlite3_finalize(q);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : fin != SQLITE_OK ? fin : rc;
}

static int check(sqlite3 *db, const char *path)
{
    int64_t ignored = 0;
    int rc = query_int(db, "SELECT count(*) FROM sqlite_master", &ignored);
    struct stat st;
    if (rc != SQLITE_OK || stat(path, &st) != 0 || (uint64_t)st.st_size > CHECK_MAX_BYTES)
        return rc;
    sqlite3_stmt *q = NULL;
    rc = sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &q, NULL);
    if (rc == SQLITE_OK && (rc = sqlite3_step(q)) == SQLITE_ROW) {
        const unsigned char *word = sqlite3_column_text(q, 0);
        rc = word && strcmp((const char *)word, "ok") == 0 ? SQLITE_OK : SQLITE_CORRUPT;
    }
    sqlite3_finalize(q);
    return rc;
}

static enum rc migrate(struct store *s, struct err *err)
{
    int64_t version = 0;
    int rc = query_int(s->db, "PRAGMA user_version", &version);
    if (rc != SQLITE_OK)
        return db_error(s, rc, "cannot read its version", err);
    if (version > store_version) {
        enum rc e = err_set(err, RC_UNSUPPORTED,
                            "history file %s was written by a newer version (schema %lld, known %d)", s->path,
                            (long long)version, store_version);
        err_hint(err, "update arriero, or move the file away");
        return e;
    }
    for (int64_t step = version < 0 ? 0 : version; step < store_version; step++) {
        auto_free char *sql = mem_printf("BEGIN IMMEDIATE; %s PRAGMA user_version=%lld; COMMIT;",
                                         store_migrations[step], (long long)step + 1);
        rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
        if (rc != SQLITE_OK) {
            enum rc e = db_error(s, rc, "cannot migrate it", err);
            sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
            return e;
        }
    }
    return RC_OK;
}

static enum rc prepare(struct store *s, struct err *err)
{
    for (size_t t = 0; t < STORE_TABLES; t++) {
        struct buf sql = {.max = 4096}, marks = {.max = 256};
        buf_printf(&sql, "INSERT INTO %s (", store_tables[t].name);
        for (size_t i = 0; i < store_tables[t].n_columns; i++) {
            buf_printf(&sql, "%s%s", i ? "," : "", store_tables[t].columns[i].name);
            buf_puts(&marks, i ? ",?" : "?");
        }
        buf_printf(&sql, ") VALUES (%s)", marks.data ? marks.data : "");
        int rc = sqlite3_prepare_v3(s->db, sql.data ? sql.data : "", -1, SQLITE_PREPARE_PERSISTENT,
                                    &s->insert[t], NULL);
        buf_release(&sql);
        buf_release(&marks);
        if (rc != SQLITE_OK)
            return db_error(s, rc, "its tables are not as expected", err);
    }
    return RC_OK;
}

/* SQLite would make the file readable by all. A file that exists is not touched: closing a second descriptor
 * of it would drop the locks that this process holds on it. */
static void create_private(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
}

static enum rc try_open(struct store *s, int *ret_sqlite, struct err *err)
{
    create_private(s->path);
    int rc = sqlite3_open_v2(s->path, &s->db,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc == SQLITE_OK) {
        sqlite3_extended_result_codes(s->db, 1);
        sqlite3_busy_timeout(s->db, 2000);
        rc = check(s->db, s->path);
    }
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(s->db,
                          "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA temp_store=MEMORY;"
                          "PRAGMA journal_size_limit=4194304; PRAGMA cache_size=-2048;",
                          NULL, NULL, NULL);
    if (rc == SQLITE_OK && s->opt.max_pages) {
        auto_free char *sql = mem_printf("PRAGMA max_page_count=%u", s->opt.max_pages);
        rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
    }
    *ret_sqlite = rc;
    if (rc != SQLITE_OK)
        return db_error(s, rc, "cannot open it", err);
    enum rc e = migrate(s, err);
    if (e == RC_OK)
        e = prepare(s, err);
    if (e != RC_OK)
        *ret_sqlite = sqlite3_errcode(s->db);
    return e;
}

enum rc store_db_aside(const char *path, struct err *err)
{
    char when[32];
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(when, sizeof when, "%Y%m%dT%H%M%SZ", &tm);
    auto_free char *to = mem_printf("%s.corrupt-%s", path, when);
    for (unsigned i = 2; file_exists(to) && i < 1000; i++) {
        free(to);
        to = mem_printf("%s.corrupt-%s-%u", path, when, i);
    }
    if (rename(path, to) != 0)
        return err_sys(err, RC_IO, "cannot move the corrupt history file %s aside", path);
    static const char *const journals[] = {"-wal", "-shm", "-journal"};
    for (size_t i = 0; i < TABLE_COUNT(journals); i++) {
        auto_free char *journal = mem_printf("%s%s", path, journals[i]);
        /* A journal left beside a new file would be replayed into it. */
        if (unlink(journal) != 0 && errno != ENOENT)
            return err_sys(err, RC_IO, "cannot remove %s", journal);
    }
    return RC_OK;
}

enum rc store_db_open(struct store *s, bool *ret_replaced, struct err *err)
{
    auto_free char *dir = mem_strdup(s->path);
    char *slash = strrchr(dir, '/');
    if (slash && slash != dir) {
        *slash = '\0';
        enum rc rc = file_mkdirs(dir, 0700, err);
        if (rc != RC_OK)
            return rc;
    }
    int sqlite_rc = SQLITE_OK;
    enum rc rc = try_open(s, &sqlite_rc, err);
    if (rc == RC_OK)
        return RC_OK;
    store_db_close(s);
    if (!store_db_is_corrupt(sqlite_rc))
        return rc;
    rc = store_db_aside(s->path, err);
    if (rc != RC_OK)
        return rc;
    *ret_replaced = true;
    rc = try_open(s, &sqlite_rc, err);
    if (rc != RC_OK)
        store_db_close(s);
    return rc;
}

void store_db_close(struct store *s)
{
    for (size_t t = 0; t < STORE_TABLES; t++) {
        sqlite3_finalize(s->insert[t]);
        s->insert[t] = NULL;
    }
    sqlite3_close(s->db);
    s->db = NULL;
}

static uint64_t option_at(const struct store *s, size_t offset)
{
    return *(const uint64_t *)(const void *)((const char *)&s->opt + offset);
}

static int trim_table(struct store *s, const struct store_table *t, int *ret_changes)
{
    uint64_t age = t->max_age_offset ? option_at(s, t->max_age_offset) : 0;
    int64_t oldest_ms = age ? clock_wall_ms() - (int64_t)age : INT64_MIN;
    uint64_t max_rows = option_at(s, t->max_rows_offset);
    struct buf sql = {.max = 1024};
    buf_printf(&sql,
               "DELETE FROM %s WHERE id IN (SELECT id FROM %s WHERE id <= (SELECT max(id) FROM %s) - %lld OR "
               "at_ms < %lld ORDER BY id LIMIT %d)",
               t->name, t->name, t->name, max_rows ? (long long)max_rows : (long long)INT64_MAX / 2,
               (long long)oldest_ms, TRIM_ROWS);
    int rc = sqlite3_exec(s->db, sql.data, NULL, NULL, NULL);
    *ret_changes = rc == SQLITE_OK ? sqlite3_changes(s->db) : 0;
    buf_release(&sql);
    return rc;
}

int store_db_trim(struct store *s)
{
    for (size_t t = 0; t < STORE_TABLES; t++) {
        int changes = TRIM_ROWS;
        while (changes >= TRIM_ROWS) {
            int rc = trim_table(s, &store_tables[t], &changes);
            if (rc != SQLITE_OK)
                return rc;
        }
    }
    return SQLITE_OK;
}
