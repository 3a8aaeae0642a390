/* The table of keys and finding a key by its name. Layer daemon; pure. */
#include "daemon/config_priv.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

const struct config_key config_keys[] = {
#define KEY(path, type, field, def, lo, hi, choices, flags, help)                                            \
    {path, CONFIG_##type, offsetof(struct config, field), def, lo, hi, choices, flags, help},
#include "daemon/config.def"
};
const size_t config_n_keys = TABLE_COUNT(config_keys);

const struct config_key config_model_keys[] = {
#define MODEL_KEY(path, type, field, def, lo, hi, choices, flags, help)                                      \
    {path, CONFIG_##type, offsetof(struct config_model, field), def, lo, hi, choices, flags, help},
#include "daemon/config.def"
};
const size_t config_n_model_keys = TABLE_COUNT(config_model_keys);
_Static_assert(TABLE_COUNT(config_model_keys) <= 64, "config_model.set has 64 bits");

const struct config_key config_role_keys[] = {
#define ROLE_KEY(path, type, field, def, lo, hi, choices, flags, help)                                       \
    {path, CONFIG_##type, offsetof(struct config_role, field), def, lo, hi, choices, flags, help},
#include "daemon/config.def"
};
const size_t config_n_role_keys = TABLE_COUNT(config_role_keys);

const struct config_alias config_aliases[] = {
#define ALIAS(path, target) {path, target},
#include "daemon/config.def"
};
const size_t config_n_aliases = TABLE_COUNT(config_aliases);

const struct config_alias config_model_aliases[] = {
#define MODEL_ALIAS(path, target) {path, target},
#include "daemon/config.def"
};
const size_t config_n_model_aliases = TABLE_COUNT(config_model_aliases);

const struct config_alias config_ignored[] = {
#define IGNORED(path, why) {path, why},
#include "daemon/config.def"
};
const size_t config_n_ignored = TABLE_COUNT(config_ignored);

static const struct config_key *find(const struct config_key *keys, size_t n, struct str path)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq_c(path, keys[i].path))
            return &keys[i];
    return NULL;
}

static const char *alias_of(const struct config_alias *aliases, size_t n, struct str name)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq_c(name, aliases[i].name))
            return aliases[i].target;
    return NULL;
}

bool config_resolve_model(struct config_model *m, struct str name, struct config_target *ret_target)
{
    const struct config_key *key = find(config_model_keys, config_n_model_keys, name);
    if (!key) {
        const char *other = alias_of(config_model_aliases, config_n_model_aliases, name);
        if (other)
            key = find(config_model_keys, config_n_model_keys, str_from(other));
    }
    if (!key)
        return false;
    *ret_target = (struct config_target){
        .key = key,
        .base = m,
        .set = &m->set,
        .bit = 1ull << (key - config_model_keys),
        .origin = SIZE_MAX,
    };
    return true;
}

bool config_key_is_of_roles(const struct config_key *key)
{
    static const char *const others[] = {"path", "aliases", "members"};
    for (size_t i = 0; i < TABLE_COUNT(others); i++)
        if (strcmp(key->path, others[i]) == 0)
            return false;
    return true;
}

bool config_resolve_role(struct config_role *r, struct str name, struct config_target *ret_target)
{
    const struct config_key *key = find(config_role_keys, config_n_role_keys, name);
    if (!key)
        return config_resolve_model(&r->m, name, ret_target) && config_key_is_of_roles(ret_target->key);
    *ret_target = (struct config_target){
        .key = key, .base = r, .set = &r->set, .bit = 1ull << (key - config_role_keys), .origin = SIZE_MAX};
    return true;
}

bool config_resolve(struct config *c, struct str path, struct config_target *ret_target)
{
    const struct config_key *key = find(config_keys, config_n_keys, path);
    if (key) {
        *ret_target = (struct config_target){.key = key, .base = c, .origin = (size_t)(key - config_keys)};
        return true;
    }
    if (str_starts(path, "defaults.")) {
        struct str name = {path.p + 9, path.n - 9};
        struct config_target t;
        if (!config_resolve_model(&c->defaults, name, &t) || (t.key->flags & CONFIG_ONLY_MODEL))
            return false;
        t.origin = config_n_keys + (size_t)(t.key - config_model_keys);
        *ret_target = t;
        return true;
    }
    const char *other = alias_of(config_aliases, config_n_aliases, path);
    return other && config_resolve(c, str_from(other), ret_target);
}

size_t config_n_origins(void)
{
    return config_n_keys + config_n_model_keys;
}

static bool below(const char *path, struct str section)
{
    size_t n = strlen(path);
    return n > section.n + 1 && memcmp(path, section.p, section.n) == 0 && path[section.n] == '.';
}

bool config_is_section(struct str path)
{
    for (size_t i = 0; i < config_n_keys; i++)
        if (below(config_keys[i].path, path))
            return true;
    for (size_t i = 0; i < config_n_aliases; i++)
        if (below(config_aliases[i].name, path))
            return true;
    for (size_t i = 0; i < config_n_ignored; i++)
        if (below(config_ignored[i].name, path))
            return true;
    return false;
}

const char *config_ignored_why(struct str path)
{
    return alias_of(config_ignored, config_n_ignored, path);
}

struct nearest {
    struct str name, section;
    const char *best;
    unsigned distance;
};

/* Offers a full path: compared by what follows the section, or as a whole if it lies elsewhere. */
static void offer(struct nearest *n, const char *path)
{
    const char *word = path;
    if (n->section.n) {
        if (below(path, n->section))
            word = path + n->section.n + 1;
        else if (strrchr(path, '.'))
            word = strrchr(path, '.') + 1;
    }
    unsigned d = str_distance(n->name, str_from(word));
    const char *last = strrchr(path, '.');
    if (last && !n->section.n) { /* a key written without its section */
        unsigned e = str_distance(n->name, str_from(last + 1)) + 1;
        d = e < d ? e : d;
    }
    if (d < n->distance) {
        n->distance = d;
        n->best = below(path, n->section) ? word : path;
    }
}

const char *config_nearest(struct str section, struct str name, enum config_names names)
{
    unsigned allowed = (unsigned)(name.n < 4 ? 1 : name.n < 8 ? 2 : name.n / 3);
    struct nearest n = {.name = name, .section = section, .distance = allowed + 1};
    if (names != CONFIG_NAMES_TOP) {
        bool role = names == CONFIG_NAMES_ROLE;
        for (size_t i = 0; role && i < config_n_role_keys; i++)
            offer(&n, config_role_keys[i].path);
        for (size_t i = 0; i < config_n_model_keys; i++)
            if (!role || config_key_is_of_roles(&config_model_keys[i]))
                offer(&n, config_model_keys[i].path);
        return n.best;
    }
    for (size_t i = 0; i < config_n_keys; i++)
        offer(&n, config_keys[i].path);
    for (size_t i = 0; i < config_n_aliases; i++)
        offer(&n, config_aliases[i].name);
    if (!n.best && !section.n) { /* a model's key at the top level belongs into defaults */
        static const char *const in_defaults[] = {
#define MODEL_KEY(path, type, field, def, lo, hi, choices, flags, help) "defaults." path,
#include "daemon/config.def"
        };
        for (size_t i = 0; i < TABLE_COUNT(in_defaults); i++)
            if (!(config_model_keys[i].flags & CONFIG_ONLY_MODEL))
                offer(&n, in_defaults[i]);
    }
    return n.best;
}

void config_env_name(const char *prefix, const char *path, char *out, size_t cap)
{
    snprintf(out, cap, "ARRIERO_%s%s", prefix, path);
    for (char *p = out; *p; p++)
        *p = *p == '.' ? '_' : (char)toupper((unsigned char)*p);
}
