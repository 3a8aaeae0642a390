/* The files that run beside a model: projector, adapters, draft. See pool_priv.h. Layer pool; beside_read is
 * work for the work pool and touches only what it is given; the rest belongs to the loop thread. */
#include "pool/pool_priv.h"

#include <string.h>

static size_t room(const char *s)
{
    return s ? strlen(s) + 1 : 0;
}

static const char *put(char **at, const char *s)
{
    char *copy = s ? memcpy(*at, s, room(s)) : NULL;
    *at += room(s);
    return copy;
}

struct pool_files *files_copy(const struct pool_files *f)
{
    size_t n = sizeof *f + room(f->mmproj) + room(f->draft) + room(f->draft_device);
    for (uint32_t i = 0; i < f->n_adapters; i++)
        n += room(f->adapters[i]);
    struct pool_files *copy = mem_calloc(1, n);
    char *at = (char *)(copy + 1);
    *copy = *f;
    copy->mmproj = put(&at, f->mmproj);
    copy->draft = put(&at, f->draft);
    copy->draft_device = put(&at, f->draft_device);
    for (uint32_t i = 0; i < f->n_adapters; i++)
        copy->adapters[i] = put(&at, f->adapters[i]);
    return copy;
}

static enum rc read_one(const struct pool *p, const char *path, const char *what, struct model **ret,
                        struct err *err)
{
    enum rc rc = p->deps.facts(path, ret, err);
    if (rc)
        err_prefix(err, "%s", what);
    return rc;
}

enum rc beside_read(const struct pool *p, const struct pool_files *f, struct beside *ret_beside,
                    struct err *err)
{
    struct beside b = {.known = true};
    enum rc rc = RC_OK;
    if (f->mmproj)
        rc = read_one(p, f->mmproj, "the projector", &b.projector, err);
    if (!rc && f->draft)
        rc = read_one(p, f->draft, "the draft model", &b.draft, err);
    for (uint32_t i = 0; i < f->n_adapters && !rc; i++) {
        rc = read_one(p, f->adapters[i], "the adapter", &b.adapters[i], err);
        b.n_adapters += rc == RC_OK;
    }
    if (rc)
        beside_release(p, &b);
    *ret_beside = b;
    return rc;
}

void beside_release(const struct pool *p, struct beside *b)
{
    if (b->projector)
        p->deps.facts_unref(b->projector);
    if (b->draft)
        p->deps.facts_unref(b->draft);
    for (uint32_t i = 0; i < b->n_adapters; i++)
        p->deps.facts_unref(b->adapters[i]);
    *b = (struct beside){0};
}

bool beside_extras(const struct pool_files *f, const struct beside *b, struct plan_extras *x)
{
    plan_extras_default(x);
    x->projector = b->projector;
    x->n_adapters = b->n_adapters;
    for (uint32_t i = 0; i < b->n_adapters; i++) {
        x->adapters[i] = b->adapters[i];
        x->adapter_scale[i] = f->adapter_scale[i];
    }
    x->draft = b->draft;
    if (f->draft_tokens)
        x->draft_tokens = f->draft_tokens;
    x->draft_least = f->draft_least;
    x->draft_gpu_layers = f->draft_gpu_layers;
    x->draft_device = f->draft_device;
    return b->projector || b->n_adapters || b->draft;
}

void beside_policy(const struct plan_extras *extras, struct plan_policy *policy, struct plan_params *base)
{
    if (policy->base)
        *base = *policy->base;
    else
        plan_params_default(base);
    base->extras = extras;
    policy->base = base;
}
