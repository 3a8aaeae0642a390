/* What a model brings along: a projector, adapters, a draft model. Layer plan, internal; belongs to one
 * estimator. Everything derived from the files is kept, so that a search pays for it once. */
#ifndef PLAN_EXTRAS_H
#define PLAN_EXTRAS_H

#include "plan/layout.h"
#include "plan/projector.h"

struct extras;

/* The two matrices that an adapter puts beside one weight: the product of the weight gets b(a(x)) added. */
struct adapter_pair {
    const struct tensor *a, *b;
};

/* Reads the adapters that p names, once for the same list: their pairs are then in l->adapters while the
 * graph is built. *x is made at need; NULL stays when p names nothing.
 * RC_INVALID: made for another model; RC_UNSUPPORTED: no adapter of this kind. */
enum rc extras_prepare(struct extras **x, const struct facts *f, const struct plan_params *p,
                       struct layout *l, struct err *err);
/* Adds the bytes of everything that l->p names to an estimate filled from l. */
enum rc extras_add(struct extras *x, const struct layout *l, bool with_graph, struct graph *g,
                   struct plan_estimate *e, struct err *err);
void extras_free(struct extras *x);

#endif
