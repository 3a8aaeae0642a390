/* The configuration's part for servers elsewhere. Layer daemon; pure. The keys: upstreams.def. */
#include "daemon/config_priv.h"

#include "daemon/url.h"
#include "runtime/runtime.h"

#include <string.h>

const struct config_key config_upstream_keys[] = {
#define UPSTREAM_KEY(path, type, field, def, lo, hi, choices, flags, help)                                   \
    {path, CONFIG_##type, offsetof(struct config_upstream, field), def, lo, hi, choices, flags, help},
#include "daemon/upstreams.def"
};
const size_t config_n_upstream_keys = TABLE_COUNT(config_upstream_keys);

const struct config_key config_remote_keys[] = {
#define REMOTE_KEY(path, type, field, def, lo, hi, choices, flags, help)                                     \
    {path, CONFIG_##type, offsetof(struct config_remote, field), def, lo, hi, choices, flags, help},
#include "daemon/upstreams.def"
};
const size_t config_n_remote_keys = TABLE_COUNT(config_remote_keys);

static bool is_name(struct str name)
{
    for (size_t i = 0; i < name.n; i++) {
        char ch = (char)(name.p[i] | 0x20);
        if (!(ch >= 'a' && ch <= 'z') && !(name.p[i] >= '0' && name.p[i] <= '9') && name.p[i] != '-' &&
            name.p[i] != '_' && name.p[i] != '.')
            return false;
    }
    return name.n > 0 && name.n <= 40;
}

enum rc config_upstream_add(struct config *c, struct str name, unsigned line,
                            struct config_upstream **ret_upstream, struct err *err)
{
    if (!is_name(name))
        return err_set(err, RC_INVALID,
                       "an upstream's name has 1 to 40 letters, digits, dashes, dots or underscores");
    if ((c->n_upstreams & (c->n_upstreams - 1)) == 0) { /* full at each power of two */
        struct config_upstream *more =
            arena_array(&c->arena, c->n_upstreams ? 2 * c->n_upstreams : 1, sizeof *more);
        if (!more)
            return err_set(err, RC_LIMIT, "too many upstreams");
        if (c->n_upstreams)
            memcpy(more, c->upstreams, c->n_upstreams * sizeof *more);
        c->upstreams = more;
    }
    struct config_upstream *u = &c->upstreams[c->n_upstreams];
    *u = (struct config_upstream){.name = arena_strndup(&c->arena, name.p, name.n), .line = line};
    if (!u->name)
        return err_set(err, RC_LIMIT, "too many upstreams");
    for (size_t i = 0; i < config_n_upstream_keys; i++) {
        const struct config_target t = {.key = &config_upstream_keys[i], .base = u};
        enum rc rc =
            config_key_is_list(t.key) ? RC_OK : config_set_text(c, &t, str_from(t.key->def), NULL, err);
        if (rc != RC_OK)
            return rc;
    }
    c->n_upstreams++;
    *ret_upstream = u;
    return RC_OK;
}

struct config_remote *config_remote_add(struct config *c, struct config_remotes *list, struct str name)
{
    if ((list->n & (list->n - 1)) == 0) { /* full at each power of two */
        struct config_remote *more = arena_array(&c->arena, list->n ? 2 * list->n : 1, sizeof *more);
        if (!more)
            return NULL;
        if (list->n)
            memcpy(more, list->items, list->n * sizeof *more);
        list->items = more;
    }
    struct config_remote *m = &list->items[list->n];
    *m = (struct config_remote){.name = arena_strndup(&c->arena, name.p, name.n), .remote = ""};
    if (!m->name)
        return NULL;
    list->n++;
    return m;
}

static bool resolve(const struct config_key *keys, size_t n, void *base, uint64_t *set, struct str name,
                    struct config_target *ret_target)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq_c(name, keys[i].path)) {
            *ret_target = (struct config_target){
                .key = &keys[i], .base = base, .set = set, .bit = 1ull << i, .origin = SIZE_MAX};
            return true;
        }
    return false;
}

bool config_resolve_upstream(struct config_upstream *u, struct str name, struct config_target *ret_target)
{
    return resolve(config_upstream_keys, config_n_upstream_keys, u, &u->set, name, ret_target);
}

bool config_resolve_remote(struct config_remote *m, struct str name, struct config_target *ret_target)
{
    return resolve(config_remote_keys, config_n_remote_keys, m, &m->set, name, ret_target);
}

static const char *nearest(const struct config_key *keys, size_t n, struct str name)
{
    const char *best = NULL;
    unsigned least = (unsigned)(name.n < 8 ? 2 : name.n / 3) + 1;
    for (size_t i = 0; i < n; i++) {
        unsigned d = str_distance(name, str_from(keys[i].path));
        if (d < least) {
            least = d;
            best = keys[i].path;
        }
    }
    return best;
}

const char *config_upstream_nearest(struct str name)
{
    return nearest(config_upstream_keys, config_n_upstream_keys, name);
}

const char *config_remote_nearest(struct str name)
{
    return nearest(config_remote_keys, config_n_remote_keys, name);
}

static enum rc check_url(const struct config_upstream *u, struct err *err)
{
    struct url url;
    if (!u->url[0]) {
        enum rc rc = err_set(err, RC_INVALID, "upstreams.%s has no url", u->name);
        err_hint(err, "add url: https://HOST");
        return rc;
    }
    enum rc rc = url_parse(str_from(u->url), &url, err);
    if (rc != RC_OK) {
        err_prefix(err, "upstreams.%s.url", u->name);
        return rc;
    }
    if (url.tls || url_is_loopback(&url) || (!u->key_env[0] && !u->key_file[0]))
        return RC_OK;
    rc = err_set(err, RC_INVALID, "upstreams.%s would send its key to %s without encryption", u->name,
                 url.host);
    err_hint(err, "write https:// in its url, or leave out its key");
    return rc;
}

/* Keys of the same name: what the upstream says goes for its models that say nothing. */
static void inherit(struct config_upstream *u)
{
    for (size_t i = 0; i < config_n_remote_keys; i++) {
        struct config_target from;
        if (!config_resolve_upstream(u, str_from(config_remote_keys[i].path), &from))
            continue;
        for (size_t k = 0; k < u->models.n; k++)
            if (!(u->models.items[k].set & 1ull << i))
                memcpy((char *)&u->models.items[k] + config_remote_keys[i].offset,
                       (const char *)u + from.key->offset, sizeof(double));
    }
}

/* A price of 0 that was given is one. */
static bool has_price(const struct config_remote *m)
{
    bool given = false;
    for (size_t i = 0; i < config_n_remote_keys; i++)
        given |= m->set & 1ull << i && config_remote_keys[i].type == CONFIG_NUMBER;
    return given || m->price_input > 0 || m->price_output > 0;
}

static enum rc check_prices(const struct config_upstream *u, struct err *err)
{
    const char *lacks = NULL;
    size_t n = 0;
    for (size_t i = 0; i < u->models.n; i++)
        if (!has_price(&u->models.items[i])) {
            lacks = u->models.items[i].name;
            n++;
        }
    if (!n || (u->spend_per_day <= 0 && u->spend_per_month <= 0))
        return RC_OK;
    enum rc rc =
        n == u->models.n
            ? err_set(err, RC_INVALID, "upstreams.%s limits what is spent, and knows no prices", u->name)
            : err_set(err, RC_INVALID,
                      "upstreams.%s limits what is spent, and knows no price of its model %s", u->name,
                      lacks);
    err_hint(err, "add price_input and price_output, for a million tokens, to the upstream or to its models");
    return rc;
}

enum rc config_upstream_end(struct config_upstream *u, struct err *err)
{
    inherit(u);
    enum rc rc = check_url(u, err);
    if (rc != RC_OK)
        return rc;
    if (u->key_env[0] && u->key_file[0])
        return err_set(err, RC_INVALID, "upstreams.%s has both key_env and key_file", u->name);
    if (u->key_env[0] && !runtime_is_secret(str_from(u->key_env))) {
        rc = err_set(err, RC_INVALID,
                     "upstreams.%s.key_env: the name %s does not say that it is a secret, so the "
                     "servers of models would inherit it",
                     u->name, u->key_env);
        err_hint(err, "call the variable %s_API_KEY, or anything that ends in _KEY, _TOKEN or _SECRET",
                 u->key_env);
        return rc;
    }
    if (!u->models.n) {
        rc = err_set(err, RC_INVALID, "upstreams.%s lists no models", u->name);
        err_hint(err, "add models: [NAME, …]: nothing else is asked for there");
        return rc;
    }
    return check_prices(u, err);
}

bool config_is_upstream_model(const struct config *c, struct str id)
{
    const struct config_role *role = config_role(c, id);
    if (role)
        id = str_from(role->id);
    for (size_t i = 0; i < c->n_upstreams; i++) {
        const struct config_upstream *u = &c->upstreams[i];
        size_t n = strlen(u->name);
        if (id.n <= n || memcmp(id.p, u->name, n) != 0 || id.p[n] != '/')
            continue;
        for (size_t k = 0; k < u->models.n; k++)
            if (str_eq_c((struct str){id.p + n + 1, id.n - n - 1}, u->models.items[k].name))
                return true;
    }
    return false;
}

yyjson_mut_val *config_upstreams_json(const struct config *c, yyjson_mut_doc *doc)
{
    yyjson_mut_val *all = yyjson_mut_obj(doc);
    for (size_t i = 0; i < c->n_upstreams; i++) {
        const struct config_upstream *u = &c->upstreams[i];
        if (u->role)
            continue;
        yyjson_mut_val *o = yyjson_mut_obj(doc);
        for (size_t k = 0; k < config_n_upstream_keys; k++)
            if (u->set & 1ull << k)
                yyjson_mut_obj_add(o, yyjson_mut_str(doc, config_upstream_keys[k].path),
                                   config_value_json(&config_upstream_keys[k], u, doc));
        yyjson_mut_obj_add(all, yyjson_mut_strcpy(doc, u->name), o);
    }
    return all;
}
