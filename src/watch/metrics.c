/* Metrics: see metrics.h. Layer watch; one owner. Families have few series, so a series is found by a scan
 * over hashes. */
#include "watch/metrics.h"

#include "base/mem.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum metric_type { COUNTER, GAUGE, HISTOGRAM_SECONDS, HISTOGRAM_OVERHEAD };

static const struct {
    const char *name, *labels, *help;
    enum metric_type type;
} families[METRIC_COUNT] = {
#define METRIC(id, name, type, labels, help) {name, labels, help, type},
#include "watch/metrics.def"
#undef METRIC
};

static const double seconds_bounds[] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
                                        2.5,   5,    10,    30,   60,  120,  300, 600};
static const double overhead_bounds[] = {0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005,
                                         0.01,    0.02,    0.05,   0.1,    0.25,   0.5,   0.75,  1};
#define BOUNDS 16
_Static_assert(TABLE_COUNT(seconds_bounds) == BOUNDS && TABLE_COUNT(overhead_bounds) == BOUNDS, "one size");

#define LABEL_MAX 256

struct series {
    uint64_t hash;
    char *labels[METRICS_MAX_LABELS];
    double value;      /* of a histogram: the sum */
    uint64_t *buckets; /* BOUNDS + 1, not cumulative; histograms only */
};

struct family {
    struct series *series;
    size_t n, cap;
    size_t n_labels;
};

struct metrics {
    struct family families[METRIC_COUNT];
};

static bool is_histogram(enum metric id)
{
    return families[id].type >= HISTOGRAM_SECONDS;
}

static const double *bounds_of(enum metric id)
{
    return families[id].type == HISTOGRAM_SECONDS ? seconds_bounds : overhead_bounds;
}

struct metrics *metrics_new(void)
{
    struct metrics *m = mem_new(struct metrics);
    for (size_t i = 0; i < METRIC_COUNT; i++) {
        struct str rest = str_from(families[i].labels);
        while (rest.n && m->families[i].n_labels < METRICS_MAX_LABELS) {
            str_cut(&rest, ',');
            m->families[i].n_labels++;
        }
    }
    return m;
}

void metrics_clear(struct metrics *m, enum metric id)
{
    struct family *f = &m->families[id];
    for (size_t i = 0; i < f->n; i++) {
        for (size_t k = 0; k < f->n_labels; k++)
            free(f->series[i].labels[k]);
        free(f->series[i].buckets);
    }
    f->n = 0;
}

void metrics_free(struct metrics *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < METRIC_COUNT; i++) {
        metrics_clear(m, (enum metric)i);
        free(m->families[i].series);
    }
    free(m);
}

static struct str label_of(const char *const *labels, size_t i)
{
    struct str s = labels ? str_from(labels[i]) : STR("");
    if (s.n > LABEL_MAX)
        s.n = LABEL_MAX;
    return s;
}

static uint64_t hash_of(const struct family *f, const char *const *labels)
{
    uint64_t h = 1;
    for (size_t i = 0; i < f->n_labels && i < METRICS_MAX_LABELS; i++)
        h = str_hash(label_of(labels, i), h);
    return h;
}

static struct series *find(const struct family *f, const char *const *labels)
{
    uint64_t hash = hash_of(f, labels);
    for (size_t i = 0; i < f->n; i++) {
        if (f->series[i].hash != hash)
            continue;
        bool same = true;
        for (size_t k = 0; k < f->n_labels && same; k++)
            same = str_eq_c(label_of(labels, k), f->series[i].labels[k]);
        if (same)
            return &f->series[i];
    }
    return NULL;
}

static struct series *series_of(struct metrics *m, enum metric id, const char *const *labels)
{
    static const char *const other[METRICS_MAX_LABELS] = {"other", "other", "other"};
    struct family *f = &m->families[id];
    struct series *s = find(f, labels);
    if (s)
        return s;
    if (f->n_labels && f->n >= METRICS_MAX_SERIES - 1) {
        labels = other;
        s = find(f, labels);
        if (s)
            return s;
    }
    if (f->n == f->cap) {
        f->cap = f->cap ? 2 * f->cap : 1;
        f->series = mem_realloc(f->series, f->cap, sizeof *f->series);
    }
    s = &f->series[f->n++];
    *s = (struct series){.hash = hash_of(f, labels)};
    for (size_t i = 0; i < f->n_labels && i < METRICS_MAX_LABELS; i++) {
        struct str text = label_of(labels, i);
        s->labels[i] = mem_strndup(text.p ? text.p : "", text.n);
    }
    if (is_histogram(id))
        s->buckets = mem_calloc(BOUNDS + 1, sizeof *s->buckets);
    return s;
}

void metrics_add(struct metrics *m, enum metric id, const char *const *labels, double value)
{
    if (value >= 0 && isfinite(value))
        series_of(m, id, labels)->value += value;
}

void metrics_set(struct metrics *m, enum metric id, const char *const *labels, double value)
{
    series_of(m, id, labels)->value = value;
}

void metrics_observe(struct metrics *m, enum metric id, const char *const *labels, double value)
{
    if (!(value >= 0) || !isfinite(value) || !is_histogram(id))
        return;
    struct series *s = series_of(m, id, labels);
    const double *bounds = bounds_of(id);
    size_t i = 0;
    while (i < BOUNDS && value > bounds[i])
        i++;
    assert(s->buckets);
    s->buckets[i]++;
    s->value += value;
}

double metrics_value(const struct metrics *m, enum metric id, const char *const *labels)
{
    const struct series *s = find(&m->families[id], labels);
    return s ? s->value : 0;
}

/* ---- text ---- */

static void put_value(struct buf *out, double v)
{
    if (v == floor(v) && fabs(v) < 1e15)
        buf_printf(out, " %.0f\n", v);
    else
        buf_printf(out, " %.15g\n", v);
}

static void put_label_value(struct buf *out, const char *s)
{
    for (; *s; s++)
        if (*s == '\\' || *s == '"')
            buf_printf(out, "\\%c", *s);
        else if (*s == '\n')
            buf_puts(out, "\\n");
        else
            buf_append(out, s, 1);
}

/* {a="x",b="y"} with le="…" at the end if it is given; nothing when there is no label at all. */
static void put_labels(struct buf *out, enum metric id, const struct series *s, const char *le)
{
    struct str rest = str_from(families[id].labels);
    if (!rest.n && !le)
        return;
    buf_puts(out, "{");
    for (size_t i = 0; rest.n; i++) {
        struct str name = str_cut(&rest, ',');
        buf_printf(out, "%s%.*s=\"", i ? "," : "", STR_ARG(name));
        put_label_value(out, s->labels[i]);
        buf_puts(out, "\"");
    }
    if (le)
        buf_printf(out, "%sle=\"%s\"", families[id].labels[0] ? "," : "", le);
    buf_puts(out, "}");
}

static void put_histogram(struct buf *out, enum metric id, const struct series *s)
{
    const char *name = families[id].name;
    uint64_t sum = 0;
    for (size_t i = 0; i <= BOUNDS; i++) {
        char le[32] = "+Inf";
        if (i < BOUNDS)
            snprintf(le, sizeof le, "%.6g", bounds_of(id)[i]);
        sum += s->buckets[i];
        buf_printf(out, "%s_bucket", name);
        put_labels(out, id, s, le);
        put_value(out, (double)sum);
    }
    buf_printf(out, "%s_sum", name);
    put_labels(out, id, s, NULL);
    put_value(out, s->value);
    buf_printf(out, "%s_count", name);
    put_labels(out, id, s, NULL);
    put_value(out, (double)sum);
}

static const char *type_word(enum metric id)
{
    return families[id].type == COUNTER ? "counter" : families[id].type == GAUGE ? "gauge" : "histogram";
}

void metrics_text(const struct metrics *m, struct buf *out)
{
    for (size_t i = 0; i < METRIC_COUNT; i++) {
        enum metric id = (enum metric)i;
        const struct family *f = &m->families[i];
        if (f->n == 0)
            continue;
        buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", families[i].name, families[i].help, families[i].name,
                   type_word(id));
        for (size_t k = 0; k < f->n; k++) {
            if (is_histogram(id)) {
                put_histogram(out, id, &f->series[k]);
                continue;
            }
            buf_puts(out, families[i].name);
            put_labels(out, id, &f->series[k], NULL);
            put_value(out, f->series[k].value);
        }
    }
}

void metrics_reference(struct buf *out)
{
    buf_puts(out, "| Name | Type | Labels | Meaning |\n|---|---|---|---|\n");
    for (size_t i = 0; i < METRIC_COUNT; i++)
        buf_printf(out, "| `%s` | %s | %s | %s |\n", families[i].name, type_word((enum metric)i),
                   families[i].labels, families[i].help);
}
