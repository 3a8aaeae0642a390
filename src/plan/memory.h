/* An estimator keeps one model's facts and the graph's memory over many estimates, as a search needs. Layer
 * plan, internal; one thread at a time. */
#ifndef PLAN_MEMORY_H
#define PLAN_MEMORY_H

#include "plan/record.h"

struct estimator {
    struct facts facts;
    struct layout layout;
    struct build build;
    struct graph graph;
    struct records records;
    enum build_choice choice; /* that the last question needed: where the next one alike begins */
    uint64_t choice_of;       /* … and what it was like */
    bool refusals;            /* devices refused operations of this model: the next question expects it */
    struct extras *extras;    /* NULL until parameters name some */
};

/* Borrows the model until released. Errors as plan_estimate's. */
enum rc estimator_init(struct estimator *e, const struct model *m, struct err *err);
/* whole: no layer is left out of the graph (slower, the same result). */
enum rc estimator_run(struct estimator *e, const struct plan_params *p, const struct plan_device *devices,
                      size_t n_devices, bool whole, struct plan_estimate *ret_estimate, struct err *err);
/* As estimator_run without the graph: compute_bytes are 0. A few microseconds; for searches. */
enum rc estimator_sizes(struct estimator *e, const struct plan_params *p, const struct plan_device *devices,
                        size_t n_devices, struct plan_estimate *ret_estimate, struct err *err);
/* measure.c: bytes of each backend's compute buffer under the estimator's layout. */
enum rc estimator_measure(struct estimator *e, bool whole, uint64_t *ret_bytes, struct err *err);
void estimator_release(struct estimator *e);

#endif
