/* Text tables: see cli.h. Layer cli; main thread; a table has one owner, who prints it. */
#include "cli/cli_priv.h"

#include "base/mem.h"

#include <stdarg.h>
#include <string.h>

enum { GAP = 2, LEAST_WIDTH = 6, MAX_COLUMNS = 32, MAX_CELL_BYTES = 16 * 1024 };

struct cli_table {
    size_t n_columns, n_cells, cap;
    char **cells; /* safe text, row by row; the headings are row 0 */
};

static void add(struct cli_table *t, struct str raw)
{
    struct buf safe = {0};
    text_put_safe(&safe, raw, false);
    if (t->n_cells == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 64;
        t->cells = mem_realloc(t->cells, t->cap, sizeof *t->cells);
    }
    t->cells[t->n_cells++] = buf_take(&safe);
}

struct cli_table *cli_table_new(const char *const *headings, size_t n_columns)
{
    struct cli_table *t = mem_new(struct cli_table);
    t->n_columns = n_columns < MAX_COLUMNS ? n_columns : MAX_COLUMNS;
    for (size_t i = 0; i < t->n_columns; i++)
        add(t, str_from(headings[i]));
    return t;
}

void cli_table_cell(struct cli_table *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *text;
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0) {
        add(t, STR("?"));
        return;
    }
    add(t, (struct str){text, (size_t)n < MAX_CELL_BYTES ? (size_t)n : MAX_CELL_BYTES});
    free(text);
}

void cli_table_free(struct cli_table *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_cells; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t);
}

struct layout {
    size_t width[MAX_COLUMNS];
    bool right[MAX_COLUMNS];
};

static void measure(const struct cli_table *t, struct layout *l)
{
    for (size_t c = 0; c < t->n_columns; c++) {
        bool numbers = false, words = false;
        l->width[c] = 0;
        for (size_t i = c; i < t->n_cells; i += t->n_columns) {
            struct str cell = str_from(t->cells[i]);
            size_t w = text_width(cell);
            if (w > l->width[c])
                l->width[c] = w;
            if (i == c || cell.n == 0 || str_eq_c(cell, "-"))
                continue;
            if (cell.p[0] >= '0' && cell.p[0] <= '9')
                numbers = true;
            else
                words = true;
        }
        l->right[c] = c > 0 && numbers && !words;
    }
}

/* Takes columns from the widest column until the row fits; numbers are never cut while words can be. */
static void shrink(const struct cli_table *t, struct layout *l, size_t max_width)
{
    size_t total = GAP * (t->n_columns - 1);
    for (size_t c = 0; c < t->n_columns; c++)
        total += l->width[c];
    while (total > max_width) {
        size_t widest = MAX_COLUMNS;
        for (size_t c = 0; c < t->n_columns; c++)
            if (!l->right[c] && l->width[c] > LEAST_WIDTH &&
                (widest == MAX_COLUMNS || l->width[c] > l->width[widest]))
                widest = c;
        if (widest == MAX_COLUMNS)
            return;
        l->width[widest]--;
        total--;
    }
}

static void put_cell(struct buf *out, struct str cell, size_t width, bool right, bool last)
{
    size_t w = text_width(cell);
    bool cut = w > width;
    if (cut) {
        cell.n = text_fit(cell, width ? width - 1 : 0);
        w = text_width(cell) + 1;
    }
    size_t pad = width > w ? width - w : 0;
    if (right)
        buf_printf(out, "%*s", (int)pad, "");
    buf_put_str(out, cell);
    if (cut)
        buf_puts(out, "…");
    if (!right && !last)
        buf_printf(out, "%*s", (int)pad, "");
    if (!last)
        buf_printf(out, "%*s", GAP, "");
}

void cli_table_render(const struct cli_table *t, size_t max_width, bool color, struct buf *out)
{
    struct layout l;
    if (t->n_columns == 0)
        return;
    measure(t, &l);
    if (max_width)
        shrink(t, &l, max_width);
    for (size_t row = 0; row < t->n_cells; row += t->n_columns) {
        bool heading = row == 0 && color;
        if (heading)
            buf_puts(out, "\033[1m");
        for (size_t c = 0; c < t->n_columns && row + c < t->n_cells; c++)
            put_cell(out, str_from(t->cells[row + c]), l.width[c], l.right[c], c + 1 == t->n_columns);
        if (heading)
            buf_puts(out, "\033[0m");
        buf_puts(out, "\n");
    }
}

void cli_table_print(struct cli_table *t)
{
    struct buf out = {0};
    cli_table_render(t, output_width(), output_wants_color(stdout), &out);
    output_buf(&out);
    cli_table_free(t);
}
