/* Names and those who stand in: see choice.h. Layer daemon; pure. */
#include "daemon/choice.h"

static void add(struct choice *c, struct str name)
{
    for (size_t i = 0; i < c->n; i++)
        if (str_eq(c->names[i], name))
            return;
    if (c->n < CHOICE_MAX)
        c->names[c->n++] = name;
}

/* A group that stands in does so with all its members. */
static void add_named(const struct model_set *s, struct choice *c, const struct config_list *names)
{
    for (size_t i = 0; i < names->n; i++) {
        const struct model_group *g = model_set_group(s, str_from(names->items[i]));
        if (!g)
            add(c, str_from(names->items[i]));
        for (size_t k = 0; g && k < g->members->n; k++)
            add(c, str_from(g->members->items[k]));
    }
}

static enum rc nothing_named(const struct model_set *s, struct err *err)
{
    enum rc rc = err_set(err, RC_INVALID, "the request names no model");
    err_hint(err, "add \"model\" to the body, or set default_model; GET /v1/models lists %zu",
             s->n + s->n_groups);
    return rc;
}

struct str choice_meant(const struct model_set *s, struct str asked)
{
    if (asked.n)
        return asked;
    return str_from(s->config->default_model[0] ? s->config->default_model
                    : s->n == 1                 ? s->models[0].id
                                                : "");
}

enum rc choice_make(const struct model_set *s, struct str asked, const char *known, struct choice *ret,
                    struct err *err)
{
    struct choice c = {.n = 0};
    asked = choice_meant(s, asked);
    if (!asked.n)
        return nothing_named(s, err);
    const struct model_group *g = model_set_group(s, asked);
    if (g) {
        add_named(s, &c, g->members);
        c.n_members = c.n;
        add_named(s, &c, g->fallback);
    } else {
        add(&c, asked);
        c.n_members = 1;
        if (s->has_fallbacks && known)
            add_named(s, &c, &config_model_for(s->config, str_from(known))->fallback);
    }
    *ret = c;
    return RC_OK;
}

bool choice_goes_on(enum rc rc)
{
    return rc == RC_NO_FIT || rc == RC_BACKEND || rc == RC_UNSUPPORTED || rc == RC_TOO_MANY ||
           rc == RC_NOT_FOUND;
}
