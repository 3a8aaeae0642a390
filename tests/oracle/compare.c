#include "compare.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

static const struct plan_part *find_part(const struct plan_estimate *e, const char *name)
{
    bool host = !strcmp(name, "Host");
    for (size_t i = 0; i < e->n_parts; i++)
        if (host ? e->parts[i].kind == PLAN_HOST : !strcmp(e->parts[i].name, name))
            return &e->parts[i];
    return NULL;
}

static void subtract(const struct plan_estimate *e, const struct golden *g, struct comparison *ret)
{
    for (size_t i = 0; i < g->n_devices && i < TABLE_COUNT(ret->devices); i++) {
        struct device_error *d = &ret->devices[ret->n_devices++];
        const struct plan_part *p = find_part(e, g->devices[i].name);
        uint64_t ours[PARTS] = {p ? p->model_bytes : 0, p ? p->context_bytes : 0, p ? p->compute_bytes : 0};
        snprintf(d->name, sizeof d->name, "%s", g->devices[i].name);
        for (int part = 0; part < PARTS; part++) {
            d->want[part] = g->devices[i].bytes[part];
            d->error[part] = (int64_t)ours[part] - (int64_t)d->want[part];
        }
    }
}

void compare(const struct oracle_case *c, const struct model *m, const struct golden *g, unsigned isa,
             struct comparison *ret)
{
    struct plan_estimate e;
    struct err err;
    struct plan_params p = c->params;
    *ret = (struct comparison){.c = c};
    p.host_isa = isa;
    enum rc rc = plan_estimate(m, &p, c->devices, c->n_devices, &e, &err);
    bool refused = g->refused[0];
    if (rc)
        snprintf(ret->why, sizeof ret->why, "%.250s", err.message);
    else if (refused)
        snprintf(ret->why, sizeof ret->why, "llama.cpp: %s", g->refused);
    if (rc == RC_UNSUPPORTED)
        ret->outcome = NO_ESTIMATE;
    else if (rc)
        ret->outcome = refused ? BOTH_REFUSED : ONLY_WE_REFUSE;
    else if (refused)
        ret->outcome = ONLY_IT_REFUSES;
    else
        subtract(&e, g, ret);
}

bool comparison_exact(const struct comparison *c, int part)
{
    for (size_t i = 0; i < c->n_devices; i++)
        if (2 * llabs(c->devices[i].error[part]) >= (long long)MIB)
            return false;
    return true;
}

bool comparison_equal(const struct comparison *c)
{
    for (size_t i = 0; i < c->n_devices; i++)
        for (int part = 0; part < PARTS; part++)
            if (c->devices[i].error[part])
                return false;
    return true;
}

uint64_t comparison_under(const struct comparison *c)
{
    int64_t worst = 0;
    for (size_t i = 0; i < c->n_devices; i++) {
        const int64_t *e = c->devices[i].error;
        int64_t total = e[PART_MODEL] + e[PART_CONTEXT] + e[PART_COMPUTE];
        if (-total > worst)
            worst = -total;
    }
    return (uint64_t)worst;
}
