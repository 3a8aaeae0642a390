/* Reads the YAML text of a configuration. Layer daemon; pure.
 *
 * Two passes over libyaml: events first, which refuse what a configuration does not need and what a hostile
 * one would use (anchors, aliases, tags, depth, number of nodes, further documents); then the document, whose
 * nodes carry line and column. */
#include "daemon/config_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#define MAX_DEPTH 16
#define MAX_NODES 100000
#define MAX_PAIRS 4096 /* of one mapping: duplicates are looked for pair by pair */

struct reader {
    struct config *c;
    yaml_document_t *doc;
    const char *name, *base_dir;
    struct config_errors *all; /* NULL: the first one ends the reading */
    struct err *err;
};

__attribute__((format(printf, 4, 5))) static enum rc fail_at(struct err *err, const char *name,
                                                             yaml_mark_t at, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(err, RC_INVALID, "%s:%zu:%zu: %s", name, at.line + 1, at.column + 1, text);
}

static enum rc parser_error(const yaml_parser_t *p, const char *name, struct err *err)
{
    if (p->error == YAML_MEMORY_ERROR)
        return err_set(err, RC_NOMEM, "%s: memory is short", name);
    yaml_mark_t at = p->error == YAML_READER_ERROR ? p->mark : p->problem_mark;
    enum rc rc = fail_at(err, name, at, "%s%s%s", p->problem ? p->problem : "not YAML", p->context ? " " : "",
                         p->context ? p->context : "");
    err_hint(err,
             "look at this place and the line before: colons, brackets, quotes; spaces indent, tabs do not");
    return rc;
}

/* What a single event may not be; NULL if it is fine. */
static const char *objection(const yaml_event_t *e, unsigned *depth, unsigned *nodes, unsigned *documents)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (e->type) {
    case YAML_ALIAS_EVENT: return "aliases (*name) are not supported";
    case YAML_DOCUMENT_START_EVENT: return ++*documents > 1 ? "only one document is allowed" : NULL;
    case YAML_SCALAR_EVENT:
        anchor = e->data.scalar.anchor;
        tag = e->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = e->data.sequence_start.anchor;
        tag = e->data.sequence_start.tag;
        ++*depth;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = e->data.mapping_start.anchor;
        tag = e->data.mapping_start.tag;
        ++*depth;
        break;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT: --*depth; return NULL;
    default: return NULL;
    }
    if (anchor)
        return "anchors (&name) are not supported";
    if (tag)
        return "tags (!name) are not supported";
    if (*depth > MAX_DEPTH)
        return "nested too deeply";
    return ++*nodes > MAX_NODES ? "too many values" : NULL;
}

static enum rc check_events(struct str text, const char *name, struct err *err)
{
    yaml_parser_t p;
    if (!yaml_parser_initialize(&p))
        return err_set(err, RC_NOMEM, "memory is short");
    yaml_parser_set_input_string(&p, (const unsigned char *)text.p, text.n);
    unsigned depth = 0, nodes = 0, documents = 0;
    enum rc rc = RC_OK;
    for (bool end = false; rc == RC_OK && !end;) {
        yaml_event_t e;
        if (!yaml_parser_parse(&p, &e)) {
            rc = parser_error(&p, name, err);
            break;
        }
        const char *why = objection(&e, &depth, &nodes, &documents);
        if (why)
            rc = fail_at(err, name, e.start_mark, "%s", why);
        end = e.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&e);
    }
    yaml_parser_delete(&p);
    return rc;
}

static struct str scalar_text(const yaml_node_t *n)
{
    return (struct str){(const char *)n->data.scalar.value, n->data.scalar.length};
}

static bool is_null(const yaml_node_t *n)
{
    struct str s = scalar_text(n);
    return n->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (s.n == 0 || str_eq_c(s, "~") || str_eq_c(s, "null") || str_eq_c(s, "Null") ||
            str_eq_c(s, "NULL"));
}

/* Types that a quoted scalar may not stand for: "8080" in quotes is a text, not a number. */
static bool wants_plain(enum config_type type)
{
    return type == CONFIG_BOOL || type == CONFIG_SWITCH || type == CONFIG_U32 || type == CONFIG_I32 ||
           type == CONFIG_NUMBER;
}

static enum rc wrong_kind(struct reader *r, const yaml_node_t *n, const char *path, enum config_type type)
{
    static const char *const words[] = {"nothing", "a single value", "a list", "a mapping"};
    return fail_at(r->err, r->name, n->start_mark, "%s must be %s, not %s", path, config_type_words(type),
                   words[n->type <= YAML_MAPPING_NODE ? n->type : 0]);
}

static enum rc set_scalar(struct reader *r, const struct config_target *t, const yaml_node_t *n,
                          const char *path)
{
    if (n->type != YAML_SCALAR_NODE)
        return wrong_kind(r, n, path, t->key->type);
    if (is_null(n))
        return fail_at(r->err, r->name, n->start_mark, "%s has no value: %s is expected", path,
                       config_type_words(t->key->type));
    struct str text = scalar_text(n);
    bool quoted = n->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    if (quoted && wants_plain(t->key->type) && !str_eq_c(text, "auto")) {
        enum rc rc = fail_at(r->err, r->name, n->start_mark, "%s must be %s, not a text in quotes", path,
                             config_type_words(t->key->type));
        err_hint(r->err, "write it without quotes");
        return rc;
    }
    struct err inner = {0};
    enum rc rc = config_set_text(r->c, t, text, r->base_dir, &inner);
    if (rc != RC_OK) {
        rc = fail_at(r->err, r->name, n->start_mark, "%s", inner.message);
        err_hint(r->err, "%s", inner.hint);
    }
    return rc;
}

static enum rc set_remotes(struct reader *r, struct config_remotes *list, const yaml_node_t *map,
                           const char *path);
static enum rc set_named(struct reader *r, const struct config_target *t, const yaml_node_t *map,
                         const char *path);

static enum rc set_value(struct reader *r, const struct config_target *t, const yaml_node_t *n,
                         const char *path)
{
    if (t->key->flags & CONFIG_ENV_ONLY) {
        char env[128];
        config_env_name("", t->key->path, env, sizeof env);
        enum rc rc = fail_at(r->err, r->name, n->start_mark, "%s may not stand in a file", path);
        err_hint(r->err, "put the keys into a file of their own named by api_keys_file, or into %s", env);
        return rc;
    }
    if (t->origin != SIZE_MAX)
        r->c->origin[t->origin] = CONFIG_FROM_FILE;
    if (!config_key_is_list(t->key))
        return set_scalar(r, t, n, path);
    config_list_clear(t);
    if (n->type == YAML_MAPPING_NODE && t->key->type == CONFIG_REMOTES)
        return set_remotes(r, (struct config_remotes *)(void *)((char *)t->base + t->key->offset), n, path);
    if (n->type == YAML_MAPPING_NODE && t->key->flags & CONFIG_NAMED)
        return set_named(r, t, n, path);
    if (n->type != YAML_SEQUENCE_NODE) /* one value for a list of one */
        return set_scalar(r, t, n, path);
    for (yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top; i++) {
        enum rc rc = set_scalar(r, t, yaml_document_get_node(r->doc, *i), path);
        if (rc != RC_OK && !config_keep_error(r->all, r->err))
            return rc;
    }
    return RC_OK;
}

/* Checks a pair's key: a scalar that has not been there before. */
static enum rc pair_key(struct reader *r, const yaml_node_t *map, const yaml_node_pair_t *pair,
                        struct str *ret_key)
{
    const yaml_node_t *k = yaml_document_get_node(r->doc, pair->key);
    if (k->type != YAML_SCALAR_NODE)
        return fail_at(r->err, r->name, k->start_mark, "a key must be a single word");
    struct str key = scalar_text(k);
    if (memchr(key.p, '\0', key.n))
        return fail_at(r->err, r->name, k->start_mark, "a key contains a zero byte");
    for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < pair; p++) {
        const yaml_node_t *other = yaml_document_get_node(r->doc, p->key);
        if (str_eq(scalar_text(other), key))
            return fail_at(r->err, r->name, k->start_mark, "the key %.*s stands twice (first in line %zu)",
                           (int)(key.n < 80 ? key.n : 80), key.p, other->start_mark.line + 1);
    }
    *ret_key = key;
    return RC_OK;
}

typedef enum rc (*pair_fn)(struct reader *r, struct str key, const yaml_node_t *k, const yaml_node_t *v,
                           void *arg);

static enum rc each_pair(struct reader *r, const yaml_node_t *map, const char *path, enum config_type type,
                         pair_fn fn, void *arg)
{
    if (map->type == YAML_SCALAR_NODE && is_null(map))
        return RC_OK; /* a section whose lines are all commented out */
    if (map->type != YAML_MAPPING_NODE)
        return wrong_kind(r, map, path, type);
    if (map->data.mapping.pairs.top - map->data.mapping.pairs.start > MAX_PAIRS)
        return fail_at(r->err, r->name, map->start_mark, "more than %d keys in one mapping", MAX_PAIRS);
    for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        struct str key = {NULL, 0};
        enum rc rc = pair_key(r, map, p, &key);
        if (rc == RC_OK)
            rc = fn(r, key, yaml_document_get_node(r->doc, p->key), yaml_document_get_node(r->doc, p->value),
                    arg);
        if (rc != RC_OK && !config_keep_error(r->all, r->err))
            return rc;
    }
    return RC_OK;
}

/* NAME: VALUE as the item NAME=VALUE. */
static enum rc named_pair(struct reader *r, struct str key, const yaml_node_t *k, const yaml_node_t *v,
                          void *arg)
{
    const struct config_target *t = arg;
    struct err inner = {0};
    if (v->type != YAML_SCALAR_NODE || is_null(v))
        return wrong_kind(r, v, t->key->path, CONFIG_STRING);
    auto_free char *text = mem_printf("%.*s=%.*s", STR_ARG(key), STR_ARG(scalar_text(v)));
    if (config_set_text(r->c, t, str_from(text), r->base_dir, &inner) == RC_OK)
        return RC_OK;
    return fail_at(r->err, r->name, k->start_mark, "%s", inner.message);
}

static enum rc set_named(struct reader *r, const struct config_target *t, const yaml_node_t *map,
                         const char *path)
{
    struct config_target target = *t;
    return each_pair(r, map, path, CONFIG_LIST, named_pair, &target);
}

static enum rc unknown_key(struct reader *r, const yaml_node_t *k, struct str section,
                           enum config_names names, const char *where)
{
    struct str key = scalar_text(k);
    enum rc rc = fail_at(r->err, r->name, k->start_mark, "unknown key %.*s%s%s",
                         (int)(key.n < 80 ? key.n : 80), key.p, where[0] ? " in " : "", where);
    const char *near = config_nearest(section, key, names);
    if (near)
        err_hint(r->err, "did you mean %s?", near);
    else
        err_hint(r->err, "`arriero config keys` lists every key");
    return rc;
}

static enum rc budget_pair(struct reader *r, struct str key, const yaml_node_t *k, const yaml_node_t *v,
                           void *arg)
{
    (void)arg;
    if (v->type != YAML_SCALAR_NODE)
        return wrong_kind(r, v, "budget", CONFIG_BYTES);
    struct err inner = {0};
    enum rc rc = config_add_budget(r->c, key, scalar_text(v), &inner);
    if (rc != RC_OK) {
        rc = fail_at(r->err, r->name, rc == RC_INVALID ? v->start_mark : k->start_mark, "%s", inner.message);
        err_hint(r->err, "%s", inner.hint);
    }
    return rc;
}

struct model_section {
    struct config_model *m;
    const char *path; /* "models.ID" or "defaults" */
    bool defaults;
};

static enum rc model_pair(struct reader *r, struct str key, const yaml_node_t *k, const yaml_node_t *v,
                          void *arg)
{
    const struct model_section *s = arg;
    struct config_target t;
    if (!config_resolve_model(s->m, key, &t))
        return unknown_key(r, k, STR(""), CONFIG_NAMES_MODEL, s->path);
    char path[192];
    snprintf(path, sizeof path, "%s.%s", s->path, t.key->path);
    if (t.set && (*t.set & t.bit))
        return fail_at(r->err, r->name, k->start_mark, "%s stands twice, once under another name", path);
    if (s->defaults) {
        if (t.key->flags & CONFIG_ONLY_MODEL) {
            enum rc rc = fail_at(r->err, r->name, k->start_mark, "%s belongs to one model, not into defaults",
                                 t.key->path);
            err_hint(r->err, "put it under models: and the model's id");
            return rc;
        }
        t.origin = config_n_keys + (size_t)(t.key - config_model_keys);
    }
    return set_value(r, &t, v, path);
}

static enum rc models_pair(struct reader *r, struct str key, const yaml_node_t *k, const yaml_node_t *v,
                           void *arg)
{
    (void)arg;
    if (key.n == 0 || key.n > 190)
        return fail_at(r->err, r->name, k->start_mark, "a model's id must have 1 to 190 characters");
    struct config *c = r->c;
    if ((c->n_models & (c->n_models - 1)) == 0) {
        struct config_entry *more = arena_array(&c->arena, c->n_models ? 2 * c->n_models : 1, sizeof *more);
        if (!more)
            return err_set(r->err, RC_LIMIT, "%s: too many models", r->name);
        if (c->n_models)
            memcpy(more, c->models, c->n_models * sizeof *more);
        c->models = more;
    }
    struct config_entry *e = &c->models[c->n_models];
    *e = (struct config_entry){.id = arena_strndup(&c->arena, key.p, key.n),
                               .line = (unsigned)k->start_mark.line + 1};
    e->m.path = e->m.mmproj = e->m.draft = "";
    if (!e->id)
        return err_set(r->err, RC_LIMIT, "%s: too many models", r->name);
    char path[160];
    snprintf(path, sizeof path, "models.%.*s", (int)(key.n < 120 ? key.n : 120), key.p);
    c->n_models++;
    return each_pair(r, v, path, CONFIG_DEFAULTS, model_pair, &(struct model_section){&e->m, path, false});
}

struct role_section {
    struct config_role *role;
    const char *path; /* "roles.NAME" */
};

static enum rc role_pair(struct reader *r, struct str key, const yaml_node_t *k, const yaml_node_t *v,
                         void *arg)
{
    const struct role_section *s = arg;
    struct config_target t;
    if (!config_resolve_role(s->role, key, &t))
        return unknown_key(r, k, STR(""), CONFIG_NAMES_ROLE, s->path);
    char path[192];
    snprintf(path, sizeof path, "%s.%s", s->path, t.key->path);
    if (*t.set & t.bit)
        return fail_at(r->err, r->name, k->start_mark, "%s stands twice, once under another name", path);
    return set_value(r, &t, v, path);
}

static enum rc roles_pair(struct reader *r, struct str key, const yaml_node_t *k, const yaml_node_t *v,
                          void *arg)
{
    struct config_role *role = NULL;
    struct err inner = {0};
    (void)arg;
    if (config_role_add(r->c, key, (unsigned)k->start_mark.line + 1, &role, &inner) != RC_OK)
        return fail_at(r->err, r->name, k->start_mark, "%s", inner.message);
    char path[160];
    snprintf(path, sizeof path, "roles.%s", role->name);
    return each_pair(r, v, path, CONFIG_DEFAULTS, role_pair, &(struct role_section){role, path});
}

/* path: with the key itself. near: NULL = none is. */
static enum rc unknown_below(struct reader *r, const yaml_node_t *k, const char *path, const char *near)
{
    enum rc rc = fail_at(r->err, r->name, k->start_mark, "unknown key %s", path);
    if (near)
        err_hint(r->err, "did you mean %s?", near);
    else
        err_hint(r->err, "`arriero config keys` lists every key");
    return rc;
}

struct remotes_section {
    struct config_remotes *list;
    const char *path; /* "upstreams.NAME.models" */
};

static enum rc remote_key_pair(struct reader *r, struct str key, const yaml_node_t *k, const yaml_node_t *v,
                               void *arg)
{
    const struct remotes_section *s = arg;
    struct config_remote *m = &s->list->items[s->list->n - 1];
    struct config_target t;
    char path[192];
    snprintf(path, sizeof path, "%s.%.60s.%.*s", s->path, m->name, (int)(key.n < 40 ? key.n : 40), key.p);
    if (config_resolve_remote(m, key, &t))
        return set_value(r, &t, v, path);
    return unknown_below(r, k, path, config_remote_nearest(key));
}

/* NAME: what it is called there, or its settings. */
static enum rc remote_pair(struct reader *r, struct str key, const yaml_node_t *k, const yaml_node_t *v,
                           void *arg)
{
    const struct remotes_section *s = arg;
    struct config_remote *m = key.n ? config_remote_add(r->c, s->list, key) : NULL;
    struct config_target t;
    char path[160];
    if (!m)
        return fail_at(r->err, r->name, k->start_mark,
                       key.n ? "%s: too many models" : "%s: a model has no name", s->path);
    snprintf(path, sizeof path, "%s.%.60s", s->path, m->name);
    if (v->type != YAML_SCALAR_NODE || is_null(v))
        return each_pair(r, v, path, CONFIG_DEFAULTS, remote_key_pair, arg);
    (void)config_resolve_remote(m, STR("name"), &t);
    t.set = NULL; /* the short form is no setting */
    return set_scalar(r, &t, v, path);
}

static enum rc set_remotes(struct reader *r, struct config_remotes *list, const yaml_node_t *map,
                           const char *path)
{
    return each_pair(r, map, path, CONFIG_REMOTES, remote_pair, &(struct remotes_section){list, path});
}

static enum rc upstream_pair(struct reader *r, struct str key, const yaml_node_t *k, const yaml_node_t *v,
                             void *arg)
{
    struct config_upstream *u = arg;
    struct config_target t;
    char path[160];
    snprintf(path, sizeof path, "upstreams.%s.%.*s", u->name, (int)(key.n < 60 ? key.n : 60), key.p);
    if (config_resolve_upstream(u, key, &t))
        return set_value(r, &t, v, path);
    return unknown_below(r, k, path, config_upstream_nearest(key));
}

static enum rc upstreams_pair(struct reader *r, struct str key, const yaml_node_t *k, const yaml_node_t *v,
                              void *arg)
{
    struct config_upstream *u = NULL;
    struct err inner = {0};
    char path[80];
    (void)arg;
    if (config_upstream_add(r->c, key, (unsigned)k->start_mark.line + 1, &u, &inner) != RC_OK)
        return fail_at(r->err, r->name, k->start_mark, "%s", inner.message);
    snprintf(path, sizeof path, "upstreams.%s", u->name);
    enum rc rc = each_pair(r, v, path, CONFIG_DEFAULTS, upstream_pair, u);
    if (rc != RC_OK || config_upstream_end(u, &inner) == RC_OK)
        return rc;
    rc = fail_at(r->err, r->name, k->start_mark, "%s", inner.message);
    err_hint(r->err, "%s", inner.hint);
    return rc;
}

static enum rc top_pair(struct reader *r, struct str key, const yaml_node_t *k, const yaml_node_t *v,
                        void *arg);

static enum rc mapping_value(struct reader *r, const struct config_key *key, const yaml_node_t *v)
{
    r->c->origin[key - config_keys] = CONFIG_FROM_FILE;
    if (key->type == CONFIG_BUDGETS)
        return each_pair(r, v, key->path, key->type, budget_pair, NULL);
    if (key->type == CONFIG_MODELS)
        return each_pair(r, v, key->path, key->type, models_pair, NULL);
    if (key->type == CONFIG_ROLES)
        return each_pair(r, v, key->path, key->type, roles_pair, NULL);
    if (key->type == CONFIG_UPSTREAMS)
        return each_pair(r, v, key->path, key->type, upstreams_pair, NULL);
    return each_pair(r, v, key->path, key->type, model_pair,
                     &(struct model_section){&r->c->defaults, "defaults", true});
}

/* arg: the section's path, "" at the top. */
static enum rc top_pair(struct reader *r, struct str key, const yaml_node_t *k, const yaml_node_t *v,
                        void *arg)
{
    const char *section = arg;
    char path[192];
    int n = snprintf(path, sizeof path, "%s%s%.*s", section, section[0] ? "." : "", STR_ARG(key));
    if (n < 0 || (size_t)n >= sizeof path || (key.n && memchr(key.p, '.', key.n)))
        return unknown_key(r, k, str_from(section), CONFIG_NAMES_TOP, section);
    const char *ignored = config_ignored_why(str_from(path));
    if (ignored) {
        config_note(r->c, "%s:%zu:%zu: %s has no effect: %s", r->name, k->start_mark.line + 1,
                    k->start_mark.column + 1, path, ignored);
        return RC_OK;
    }
    struct config_target t;
    if (config_resolve(r->c, str_from(path), &t)) {
        if (t.key->type >= CONFIG_BUDGETS)
            return mapping_value(r, t.key, v);
        if (t.origin != SIZE_MAX && r->c->origin[t.origin] == CONFIG_FROM_FILE)
            return fail_at(r->err, r->name, k->start_mark, "%s stands twice, once under another name", path);
        return set_value(r, &t, v, path);
    }
    if (!section[0] && config_is_section(str_from(path)))
        return each_pair(r, v, path, CONFIG_DEFAULTS, top_pair, path);
    return unknown_key(r, k, str_from(section), CONFIG_NAMES_TOP, section);
}

enum rc config_read_yaml(struct config *c, struct str text, const char *name, const char *base_dir,
                         struct config_errors *all, struct err *err)
{
    struct err own; /* what is kept must be there, even if the caller wants no words */
    enum rc rc = check_events(text, name, err);
    if (rc != RC_OK)
        return rc;
    yaml_parser_t p;
    yaml_document_t doc;
    if (!yaml_parser_initialize(&p))
        return err_set(err, RC_NOMEM, "memory is short");
    yaml_parser_set_input_string(&p, (const unsigned char *)text.p, text.n);
    if (!yaml_parser_load(&p, &doc)) {
        rc = parser_error(&p, name, err);
        yaml_parser_delete(&p);
        return rc;
    }
    struct reader r = {
        .c = c, .doc = &doc, .name = name, .base_dir = base_dir, .all = all, .err = err ? err : &own};
    const yaml_node_t *root = yaml_document_get_root_node(&doc);
    if (root) /* an empty file is a configuration without wishes */
        rc = each_pair(&r, root, "the configuration", CONFIG_DEFAULTS, top_pair, "");
    yaml_document_delete(&doc);
    yaml_parser_delete(&p);
    return rc;
}
