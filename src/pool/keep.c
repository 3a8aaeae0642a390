/* How long an instance stays loaded, and looks at it that do not count as use: see pool.h. */
#include "pool/pool_priv.h"

#include <stdio.h>

void pool_keep(struct pool *p, const struct pool_lease *lease, uint64_t ms)
{
    struct pool_instance *i = p->instances;
    while (i && i->serial != lease->serial)
        i = i->next;
    if (!i || (ms < i->keep_ms && i->entry && i->entry->pinned))
        return;
    i->keep_ms = ms;
    i->kept = true;
    if (i->state == POOL_READY && i->busy == 0)
        instance_idle(i);
}

bool pool_observe(struct pool *p, struct str model, struct pool_lease *ret_lease, struct err *err)
{
    const struct entry *e = entry_find(p, model);
    if (!e) {
        (void)entry_unknown(p, model, err);
        return false;
    }
    const struct pool_instance *i = e->current;
    if (!i || i->state != POOL_READY) {
        (void)err_set(err, RC_INVALID, "model %s is not loaded", e->id);
        err_hint(err, "load it first: arriero load %s, POST /models/load, or ask with autoload=true", e->id);
        return false;
    }
    lease_describe(i, ret_lease);
    ret_lease->serial = 0; /* nothing is to be given back */
    return true;
}
