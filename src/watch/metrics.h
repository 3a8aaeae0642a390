/* Metrics in Prometheus' text format. Layer watch; one owner (the loop thread), no locking.
 *
 * Families come from metrics.def. A series is made by its first value; a family holds METRICS_MAX_SERIES of
 * them, further label values share one series whose labels are "other", so that hostile model names cannot
 * fill memory. */
#ifndef WATCH_METRICS_H
#define WATCH_METRICS_H

#include "base/buf.h"

#define METRICS_MAX_SERIES 256
#define METRICS_MAX_LABELS 3

enum metric {
#define METRIC(id, name, type, labels, help) METRIC_##id,
#include "watch/metrics.def"
#undef METRIC
    METRIC_COUNT
};

struct metrics;
struct metrics *metrics_new(void);
void metrics_free(struct metrics *m); /* NULL is fine */

/* labels: as many values as the family has names, in their order; NULL for a family without labels, a NULL
 * value counts as "". All are copied. Counters: adds value, negative or not finite is ignored. */
void metrics_add(struct metrics *m, enum metric id, const char *const *labels, double value);
/* Gauges; also counters that are kept elsewhere and only told here. */
void metrics_set(struct metrics *m, enum metric id, const char *const *labels, double value);
void metrics_observe(struct metrics *m, enum metric id, const char *const *labels,
                     double value); /* histograms */
/* Forgets the series of a family that is told anew for each scrape. */
void metrics_clear(struct metrics *m, enum metric id);
/* Current value of a counter or gauge; 0 if there is none. For tests and summaries. */
double metrics_value(const struct metrics *m, enum metric id, const char *const *labels);

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"
/* Appends families that have series, with HELP and TYPE. */
void metrics_text(const struct metrics *m, struct buf *out);
/* A Markdown table of every family. */
void metrics_reference(struct buf *out);

#endif
