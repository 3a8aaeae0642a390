/* The tables of the history as data, and rows made from the public structs. Layer store; pure. */
#include "store/store_priv.h"

#include "base/mem.h"

#include <stddef.h>
#include <string.h>

static const struct store_column request_columns[] = {
#define COLUMN_REQUEST(column, kind, field) {#column, STORE_##kind, offsetof(struct store_request, field)},
#include "store/tables.def"
};
static const struct store_column decision_columns[] = {
#define COLUMN_DECISION(column, kind, field) {#column, STORE_##kind, offsetof(struct store_decision, field)},
#include "store/tables.def"
};
static const struct store_column measure_columns[] = {
#define COLUMN_MEASURE(column, kind, field) {#column, STORE_##kind, offsetof(struct store_measure, field)},
#include "store/tables.def"
};
static const struct store_column instance_columns[] = {
#define COLUMN_INSTANCE(column, kind, field) {#column, STORE_##kind, offsetof(struct store_instance, field)},
#include "store/tables.def"
};

static const struct store_column lesson_columns[] = {
#define COLUMN_LESSON(column, kind, field) {#column, STORE_##kind, offsetof(struct store_lesson, field)},
#include "store/tables.def"
};
static const struct store_column figure_columns[] = {
#define COLUMN_FIGURE(column, kind, field) {#column, STORE_##kind, offsetof(struct store_figure, field)},
#include "store/tables.def"
};

static const struct store_column spending_columns[] = {
#define COLUMN_SPENDING(column, kind, field) {#column, STORE_##kind, offsetof(struct store_spending, field)},
#include "store/tables.def"
};

static const struct store_column capture_columns[] = {
#define COLUMN_CAPTURE(column, kind, field) {#column, STORE_##kind, offsetof(struct store_capture, field)},
#include "store/tables.def"
};

#define AGES(field) offsetof(struct store_options, field)
#define STAYS       0
#define TABLE(word, columns, limit, ages)                                                                    \
    {                                                                                                        \
        word, columns, TABLE_COUNT(columns), offsetof(struct store_options, limit), ages                     \
    }
const struct store_table store_tables[STORE_TABLES] = {
    [STORE_REQUESTS] = TABLE("requests", request_columns, max_requests, AGES(max_age_ms)),
    [STORE_DECISIONS] = TABLE("decisions", decision_columns, max_decisions, AGES(max_age_ms)),
    [STORE_MEASURES] = TABLE("measures", measure_columns, max_measures, AGES(max_age_ms)),
    [STORE_INSTANCES] = TABLE("instances", instance_columns, max_instances, AGES(max_age_ms)),
    [STORE_LESSONS] = TABLE("lessons", lesson_columns, max_lessons, STAYS),
    [STORE_FIGURES] = TABLE("figures", figure_columns, max_figures, STAYS),
    [STORE_SPENDING] = TABLE("spending", spending_columns, max_spending, STAYS),
    [STORE_CAPTURES] = TABLE("captures", capture_columns, max_captures, AGES(capture_age_ms)),
};
_Static_assert(TABLE_COUNT(request_columns) <= STORE_MAX_COLUMNS, "STORE_MAX_COLUMNS is too small");

/* A text of one cell is cut at so many bytes; a JSON text that is longer is left out as a whole. */
#define TEXT_MAX   1024
#define LONG_BYTES (64 * 1024)
#define JSON_MAX   (64 * 1024)

static struct str text_of(enum store_kind kind, const void *field)
{
    struct str s = str_from(*(const char *const *)field);
    if (kind == STORE_JSON && s.n > JSON_MAX)
        return (struct str){NULL, 0};
    size_t most = kind == STORE_TEXT ? TEXT_MAX : LONG_BYTES;
    if (kind != STORE_JSON && s.n > most)
        s.n = most;
    return s;
}

static int64_t clamp_u64(uint64_t v)
{
    return v > INT64_MAX ? INT64_MAX : (int64_t)v;
}

static struct store_cell cell_of(const struct store_column *c, const void *record)
{
    const void *field = (const char *)record + c->offset;
    struct store_cell cell = {.type = STORE_CELL_INT};
    switch (c->kind) {
    case STORE_I64: cell.i = *(const int64_t *)field; break;
    case STORE_U64: cell.i = clamp_u64(*(const uint64_t *)field); break;
    case STORE_INT: cell.i = *(const int *)field; break;
    case STORE_BOOL: cell.i = *(const bool *)field; break;
    case STORE_TOKENS:
        if (((const struct store_request *)record)->tokens_known)
            cell.i = clamp_u64(*(const uint64_t *)field);
        else
            cell.type = STORE_CELL_NULL;
        break;
    case STORE_RATE:
        cell.d = *(const double *)field;
        cell.type = cell.d > 0 ? STORE_CELL_REAL : STORE_CELL_NULL;
        break;
    case STORE_REAL:
        cell.type = STORE_CELL_REAL;
        cell.d = *(const double *)field;
        break;
    case STORE_TEXT:
    case STORE_LONG:
    case STORE_JSON:
        cell.s = text_of(c->kind, field);
        cell.type = cell.s.p ? STORE_CELL_TEXT : STORE_CELL_NULL;
        break;
    }
    return cell;
}

struct store_row *store_row_from(enum store_table_id table, const void *record)
{
    const struct store_table *t = &store_tables[table];
    struct store_cell cells[STORE_MAX_COLUMNS];
    size_t size = sizeof(struct store_row) + t->n_columns * sizeof *cells;
    size_t text_at = size;
    for (size_t i = 0; i < t->n_columns; i++) {
        cells[i] = cell_of(&t->columns[i], record);
        size += cells[i].s.n;
    }
    struct store_row *row = malloc(size);
    if (!row)
        return NULL;
    row->next = NULL;
    row->bytes = size;
    row->table = (uint8_t)table;
    for (size_t i = 0; i < t->n_columns; i++) {
        if (cells[i].s.n) {
            memcpy((char *)row + text_at, cells[i].s.p, cells[i].s.n);
            cells[i].s.p = (char *)row + text_at;
            text_at += cells[i].s.n;
        }
        row->cells[i] = cells[i];
    }
    /* An empty text keeps a pointer of the caller: point it at something that lives on. */
    for (size_t i = 0; i < t->n_columns; i++)
        if (row->cells[i].type == STORE_CELL_TEXT && row->cells[i].s.n == 0)
            row->cells[i].s.p = "";
    return row;
}

void store_queue_init(struct store_queue *q)
{
    *q = (struct store_queue){.tail = &q->head};
}

void store_queue_push(struct store_queue *q, struct store_row *row)
{
    row->next = NULL;
    *q->tail = row;
    q->tail = &row->next;
    q->n++;
    q->bytes += row->bytes;
}

struct store_row *store_queue_pop(struct store_queue *q)
{
    struct store_row *row = q->head;
    if (!row)
        return NULL;
    q->head = row->next;
    if (!q->head)
        q->tail = &q->head;
    q->n--;
    q->bytes -= row->bytes;
    return row;
}

void store_queue_prepend(struct store_queue *q, struct store_queue *front)
{
    if (!front->head)
        return;
    *front->tail = q->head;
    if (!q->head)
        q->tail = front->tail;
    q->head = front->head;
    q->n += front->n;
    q->bytes += front->bytes;
    store_queue_init(front);
}

void store_queue_clear(struct store_queue *q)
{
    struct store_row *row;
    while ((row = store_queue_pop(q)))
        free(row);
}
