/* Roles in the configuration: read from the environment, and joined with the models that play them. Layer
 * daemon; pure.
 *
 * A role is another name of a model, and settings of it. Joining gives the model's entry that name and those
 * settings, so that nobody after it has to know of roles: a role of a file's path is a model of its own. What
 * the file said stays in `written`. */
#include "daemon/config_priv.h"

#include "daemon/url.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *preset, *role, *key, *value;
} fillings[] = {
#define ROLE_PRESET(preset, role, key, value) {preset, role, key, value},
#include "daemon/roles.def"
#define ROLE_DEFAULT(role, key, value) {"", role, key, value},
#include "daemon/roles.def"
};

static const struct {
    const char *name, *role, *key, *unit;
} variables[] = {
#define ROLE_ENV(name, role, key, unit) {name, role, key, unit},
#include "daemon/roles.def"
};

const struct config_role *config_role(const struct config *c, struct str name)
{
    for (size_t i = 0; i < c->n_roles; i++)
        if (str_eq_c(name, c->roles[i].name))
            return &c->roles[i];
    return NULL;
}

uint32_t config_dimensions(const struct config *c, struct str id)
{
    for (size_t i = 0; i < c->n_roles; i++)
        if (c->roles[i].dimensions && str_eq_c(id, c->roles[i].id))
            return c->roles[i].dimensions;
    return 0;
}

enum rc config_role_add(struct config *c, struct str name, unsigned line, struct config_role **ret_role,
                        struct err *err)
{
    const struct config_role *known = config_role(c, name);
    if (known) {
        *ret_role = &c->roles[known - c->roles];
        return RC_OK;
    }
    if (name.n == 0 || name.n > 64)
        return err_set(err, RC_INVALID, "a role's name must have 1 to 64 characters");
    if (c->n_roles == CONFIG_MAX_ROLES)
        return err_set(err, RC_LIMIT, "more than %d roles", CONFIG_MAX_ROLES);
    if (!c->roles)
        c->roles = arena_array(&c->arena, CONFIG_MAX_ROLES, sizeof *c->roles);
    char *copy = arena_strndup(&c->arena, name.p, name.n);
    if (!c->roles || !copy)
        return err_set(err, RC_LIMIT, "the configuration is too large");
    struct config_role *r = *ret_role = &c->roles[c->n_roles++];
    *r = (struct config_role){.name = copy, .line = line, .model = "", .host = ""};
    return RC_OK;
}

/* ---- the environment ---- */

static enum rc read_variable(struct config *c, size_t i, const char *name, const char *value, struct err *err)
{
    struct config_role *r = NULL;
    struct config_target t;
    char text[4200];
    enum rc rc = config_role_add(c, str_from(variables[i].role), 0, &r, err);
    if (rc != RC_OK)
        return rc;
    if (!config_resolve_role(r, str_from(variables[i].key), &t))
        return err_set(err, RC_INTERNAL, "no role has the key %s", variables[i].key);
    snprintf(text, sizeof text, "%s%s", value, variables[i].unit);
    rc = config_set_text(c, &t, str_trim(str_from(text)), NULL, err);
    if (rc != RC_OK)
        err_prefix(err, "environment variable %s", name);
    return rc;
}

enum rc config_roles_environment(struct config *c, const char *(*get)(void *arg, const char *name), void *arg,
                                 struct err *err)
{
    static const char *const prefixes[] = {"NEURALCURSOR_", "ARRIERO_"}; /* the later one wins */
    struct config_target roles;
    bool any = false;
    for (size_t p = 0; p < TABLE_COUNT(prefixes); p++)
        for (size_t i = 0; i < TABLE_COUNT(variables); i++) {
            char name[80];
            snprintf(name, sizeof name, "%s%s", prefixes[p], variables[i].name);
            const char *value = get(arg, name);
            enum rc rc = value && value[0] ? read_variable(c, i, name, value, err) : RC_OK;
            if (rc != RC_OK)
                return rc;
            any |= value && value[0];
        }
    if (any && config_resolve(c, STR("roles"), &roles))
        c->origin[roles.origin] = CONFIG_FROM_ENV;
    return RC_OK;
}

/* ---- joining ---- */

struct join {
    struct config *c;
    const char *file;
    struct config_entry *entries;
    size_t n;
    uint64_t *by_role;                  /* beside entries: the bits that roles have set … */
    const struct config_role **players; /* … and which role was the first */
    struct err *err;
};

static bool is_named(const struct config_entry *e, const char *name)
{
    for (size_t i = 0; i < e->m.aliases.n; i++)
        if (strcmp(e->m.aliases.items[i], name) == 0)
            return true;
    return strcmp(e->id, name) == 0;
}

/* The entry of the model that plays the role, made if there is none; path: it is a file's. */
static size_t entry_of(struct join *j, const struct config_role *r, const char *model, bool path)
{
    for (size_t i = 0; i < j->n && !path; i++)
        if (is_named(&j->entries[i], model))
            return i;
    struct config_entry *e = &j->entries[j->n];
    *e = (struct config_entry){.id = path ? r->name : model, .line = r->line, .role = r->name};
    e->m.path = path ? model : "";
    e->m.mmproj = e->m.draft = "";
    return j->n++;
}

static enum rc add_name(struct join *j, struct config_entry *e, const char *name)
{
    if (is_named(e, name))
        return RC_OK;
    struct config_list *list = &e->m.aliases;
    const char **items = arena_array(&j->c->arena, list->n + 1, sizeof *items);
    if (!items)
        return err_set(j->err, RC_LIMIT, "%s: the configuration is too large", j->file);
    if (list->n)
        memcpy(items, list->items, list->n * sizeof *items);
    items[list->n] = name;
    *list = (struct config_list){items, list->n + 1};
    return RC_OK;
}

static enum rc take_settings(struct join *j, size_t at, const struct config_role *r)
{
    struct config_model *m = &j->entries[at].m;
    for (size_t i = 0; i < config_n_model_keys; i++) {
        uint64_t bit = 1ull << i;
        if (!(r->m.set & bit))
            continue;
        if ((j->by_role[at] & bit) && !config_value_equal(&config_model_keys[i], m, &r->m)) {
            enum rc rc = err_set(j->err, RC_INVALID,
                                 "%s:%u:1: the roles %s and %s are both played by %.80s, and "
                                 "want another %s of it",
                                 j->file, r->line, j->players[at]->name, r->name, j->entries[at].id,
                                 config_model_keys[i].path);
            err_hint(j->err, "say it in one of them, or give one role a model of its own");
            return rc;
        }
        config_value_copy(&config_model_keys[i], m, &r->m);
        m->set |= bit;
        j->by_role[at] |= bit;
    }
    return RC_OK;
}

/* What neither role nor model says. */
static enum rc fill(struct join *j, struct config_model *m, const struct config_role *r)
{
    for (size_t i = 0; i < TABLE_COUNT(fillings); i++) {
        struct config_target t;
        bool fits = (!fillings[i].preset[0] || strcmp(fillings[i].preset, j->c->roles_preset) == 0) &&
                    (strcmp(fillings[i].role, "*") == 0 || strcmp(fillings[i].role, r->name) == 0);
        if (!fits)
            continue;
        if (!config_resolve_model(m, str_from(fillings[i].key), &t))
            return err_set(j->err, RC_INTERNAL, "no model has the key %s", fillings[i].key);
        enum rc rc =
            *t.set & t.bit ? RC_OK : config_set_text(j->c, &t, str_from(fillings[i].value), NULL, j->err);
        if (rc != RC_OK)
            return rc;
    }
    return RC_OK;
}

/* ---- hosts ---- */

/* The server as an upstream of the role's name; *ret_model is what its model is called here. */
static enum rc add_host(struct join *j, const struct config_role *r, const char **ret_model)
{
    struct config *c = j->c;
    struct config_upstream *u = NULL;
    struct url url;
    struct arena *a = &c->arena;
    for (size_t i = 0; i < c->n_upstreams; i++)
        if (strcmp(c->upstreams[i].name, r->name) == 0) {
            (void)err_set(j->err, RC_INVALID, "an upstream is called %s too", r->name);
            err_hint(j->err, "write roles.%s.model: %s/MODEL and no host, or rename the upstream", r->name,
                     r->name);
            return RC_INVALID;
        }
    enum rc rc = config_upstream_add(c, str_from(r->name), r->line, &u, j->err);
    if (rc != RC_OK)
        return rc;
    u->role = r->name;
    u->url = arena_printf(a, "%s%s", strstr(r->host, "://") ? "" : "http://", r->host);
    *ret_model = arena_printf(a, "%s/%s", r->name, r->model);
    if (!config_remote_add(c, &u->models, str_from(r->model)) || !u->url || !*ret_model)
        return err_set(j->err, RC_LIMIT, "the configuration is too large");
    return url_parse(str_from(u->url), &url, j->err);
}

/* What a role may ask of a server that others run: how long and how many at a time. The rest of its settings
 * are told to be in vain. */
static void set_host(struct join *j, const struct config_role *r, const struct config_model *m)
{
    static const char *const heeded[] = {"timeout", "parallel", "fallback", "preload", "embedding"};
    struct config_upstream *u = &j->c->upstreams[j->c->n_upstreams - 1];
    struct buf vain = {0};
    u->timeout = m->timeout;
    for (size_t i = 0; i < config_n_model_keys; i++) {
        const char *key = config_model_keys[i].path;
        bool heeds = false;
        for (size_t k = 0; k < TABLE_COUNT(heeded); k++)
            heeds |= strcmp(key, heeded[k]) == 0;
        if (!(r->m.set & 1ull << i))
            continue;
        if (strcmp(key, "parallel") == 0)
            u->max_concurrency = m->parallel;
        if (!heeds)
            (void)buf_printf(&vain, "%s%s", vain.n ? ", " : "", key);
    }
    if (vain.n)
        config_note(j->c, "roles.%s: no effect of %s, for %s serves it", r->name, vain.data, u->url);
    buf_release(&vain);
}

/* ---- a role ---- */

static enum rc nobody(struct join *j, const struct config_role *r)
{
    enum rc rc = err_set(j->err, RC_INVALID, "%s:%u:1: nobody plays the role %s", j->file, r->line, r->name);
    if (r->host[0])
        err_hint(j->err, "set roles.%s.model to the name that %s has for its model", r->name, r->host);
    else
        err_hint(j->err, "set roles.%s.model to a model's id, or to the path of its file", r->name);
    return rc;
}

static enum rc join_role(struct join *j, struct config_role *r)
{
    const char *model = r->model;
    if (!model[0])
        return nobody(j, r);
    enum rc rc = r->host[0] ? add_host(j, r, &model) : RC_OK;
    if (rc != RC_OK) {
        err_prefix(j->err, "%s:%u:1: roles.%s.host", j->file, r->line, r->name);
        return rc;
    }
    size_t at = entry_of(j, r, model, !r->host[0] && config_is_model_path(str_from(model)));
    struct config_entry *e = &j->entries[at];
    r->id = e->id;
    if (!j->players[at])
        j->players[at] = r;
    rc = add_name(j, e, r->name);
    if (rc == RC_OK)
        rc = take_settings(j, at, r);
    if (rc == RC_OK)
        rc = fill(j, &e->m, r);
    if (rc == RC_OK && r->host[0])
        set_host(j, r, &e->m);
    return rc;
}

enum rc config_roles_join(struct config *c, const char *file, struct err *err)
{
    c->written = c->models;
    c->n_written = c->n_models;
    if (!c->n_roles)
        return RC_OK;
    size_t most = c->n_models + c->n_roles;
    struct join j = {.c = c, .file = file, .n = c->n_models, .err = err};
    j.entries = arena_array(&c->arena, most, sizeof *j.entries);
    j.by_role = arena_array(&c->arena, most, sizeof *j.by_role);
    j.players = arena_array(&c->arena, most, sizeof(*j.players));
    if (!j.entries || !j.by_role || !j.players)
        return err_set(err, RC_LIMIT, "%s: too many models", file);
    if (c->n_models)
        memcpy(j.entries, c->models, c->n_models * sizeof *j.entries);
    for (size_t i = 0; i < c->n_roles; i++) {
        enum rc rc = join_role(&j, &c->roles[i]);
        if (rc != RC_OK)
            return rc;
    }
    c->models = j.entries;
    c->n_models = j.n;
    return RC_OK;
}
