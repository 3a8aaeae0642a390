/* Shared by the files of the store. A table is a row of the const array store_tables; a row on its way to the
 * file is one allocation: header, cells in the order of the columns, texts.
 *
 * Threads: `lock` guards everything below it in struct store; `db` and `insert` belong to the writer thread
 * (and to store_open before that thread starts). */
#ifndef STORE_STORE_PRIV_H
#define STORE_STORE_PRIV_H

#include "store/store.h"

#include <pthread.h>
#include <sqlite3.h>

enum store_kind {
    STORE_I64,
    STORE_U64,
    STORE_INT,
    STORE_BOOL,
    STORE_REAL,
    STORE_RATE, /* a double that is NULL when it is 0 */
    STORE_TEXT,
    STORE_LONG, /* a text of up to 64 KiB */
    STORE_JSON,
    STORE_TOKENS
};

struct store_column {
    const char *name;
    enum store_kind kind;
    size_t offset; /* of the field in the public struct */
};

enum store_table_id {
    STORE_REQUESTS,
    STORE_DECISIONS,
    STORE_MEASURES,
    STORE_INSTANCES,
    STORE_LESSONS,
    STORE_FIGURES,
    STORE_CAPTURES,
    STORE_SPENDING,
    STORE_TABLES
};

#define STORE_MAX_COLUMNS 24

struct store_table {
    const char *name;
    const struct store_column *columns;
    size_t n_columns;
    size_t max_rows_offset; /* of its limit in struct store_options */
    size_t max_age_offset;  /* of the age past which rows are deleted; 0 = they stay */
};
extern const struct store_table store_tables[STORE_TABLES];

enum store_cell_type { STORE_CELL_NULL, STORE_CELL_INT, STORE_CELL_REAL, STORE_CELL_TEXT };
struct store_cell {
    enum store_cell_type type;
    int64_t i;
    double d;
    struct str s;
};

struct store_row {
    struct store_row *next;
    size_t bytes;
    uint8_t table; /* enum store_table_id */
    struct store_cell cells[];
};

struct store_queue { /* first in, first out */
    struct store_row *head, **tail;
    uint32_t n;
    uint64_t bytes;
};
void store_queue_init(struct store_queue *q);
void store_queue_push(struct store_queue *q, struct store_row *row);
struct store_row *store_queue_pop(struct store_queue *q);                   /* NULL when empty */
void store_queue_prepend(struct store_queue *q, struct store_queue *front); /* empties front */
void store_queue_clear(struct store_queue *q);

enum { STORE_LANE_REQUESTS, STORE_LANE_REST, STORE_LANES };
/* What comes with every request may be dropped first. */
static inline int store_lane(enum store_table_id table)
{
    return table == STORE_REQUESTS || table == STORE_CAPTURES ? STORE_LANE_REQUESTS : STORE_LANE_REST;
}

struct store {
    char *path;
    struct store_options opt;
    pthread_t thread;
    /* the writer's own */
    sqlite3 *db;
    sqlite3_stmt *insert[STORE_TABLES];
    uint64_t trim_due_ms;

    pthread_mutex_t lock;
    pthread_cond_t work; /* something for the writer */
    pthread_cond_t done; /* a batch is written or has failed */
    struct store_queue lanes[STORE_LANES];
    struct store_queue batch; /* being written */
    uint64_t posted, settled; /* sequence numbers of rows; settled: written or dropped */
    bool urgent, closing;
    bool failing; /* the last attempt failed: what is queued waits for the next */
    struct store_health health;
};

/* tables.c: NULL only when memory is short. The row is owned by the caller. */
struct store_row *store_row_from(enum store_table_id table, const void *record);

/* schema.c */
extern const char *const store_migrations[];
extern const int store_version;
/* Opens, checks, migrates; *ret_replaced when a corrupt file was moved aside. Sets s->db and s->insert. */
enum rc store_db_open(struct store *s, bool *ret_replaced, struct err *err);
void store_db_close(struct store *s);
/* Moves the file and its journals aside. */
enum rc store_db_aside(const char *path, struct err *err);
bool store_db_is_corrupt(int sqlite_rc);
/* Deletes rows over the limits, in short transactions; SQLite's code. */
int store_db_trim(struct store *s);

/* writer.c */
void *store_writer(void *store);

#endif
