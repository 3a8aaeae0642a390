/* Loading a configuration: defaults, file, environment, flags, then what must hold between keys. Layer
 * daemon. */
#include "daemon/config_priv.h"

#include "hw/hw.h"
#include "os/file.h"
#include "plan/plan.h"
#include "proxy/sock.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define FILE_MAX  MIB
#define ARENA_MAX (64 * MIB)

void config_note(struct config *c, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    char *copy = arena_strndup(&c->arena, text, strlen(text));
    if (!c->notes)
        c->notes = arena_array(&c->arena, 64, sizeof *c->notes);
    if (copy && c->notes && c->n_notes < 64)
        c->notes[c->n_notes++] = copy;
}

bool config_keep_error(struct config_errors *all, const struct err *err)
{
    if (!all || all->n == CONFIG_MAX_ERRORS)
        return false;
    all->list[all->n++] = *err;
    return true;
}

static struct config *config_empty(void)
{
    struct config *c = mem_new(struct config);
    c->arena.cap_bytes = ARENA_MAX;
    c->file = "";
    c->origin = mem_calloc(config_n_origins(), 1);
    return c;
}

void config_free(struct config *c)
{
    if (!c)
        return;
    free(c->origin);
    arena_release(&c->arena);
    free(c);
}

static enum rc set_default(struct config *c, const struct config_key *key, const struct config_target *t,
                           struct err *err)
{
    if (key->type >= CONFIG_BUDGETS ||
        ((key->type == CONFIG_LIST || key->type == CONFIG_PATHS) && !key->def[0]))
        return RC_OK;
    return config_set_text(c, t, str_from(key->def), NULL, err);
}

static enum rc set_defaults(struct config *c, struct err *err)
{
    enum rc rc = RC_OK;
    for (size_t i = 0; i < config_n_keys && rc == RC_OK; i++)
        rc = set_default(c, &config_keys[i], &(struct config_target){.key = &config_keys[i], .base = c}, err);
    for (size_t i = 0; i < config_n_model_keys && rc == RC_OK; i++)
        rc = set_default(c, &config_model_keys[i],
                         &(struct config_target){.key = &config_model_keys[i], .base = &c->defaults}, err);
    c->plain = c->defaults;
    return rc;
}

/* ---- environment and flags ---- */

static bool is_list(const struct config_key *key)
{
    return config_key_is_list(key);
}

static enum rc set_one(struct config *c, const struct config_target *t, struct str text, struct err *err)
{
    if (t->key->type == CONFIG_BUDGETS) { /* Host=600MiB */
        struct str device = str_cut(&text, '=');
        return config_add_budget(c, str_trim(device), str_trim(text), err);
    }
    return config_set_text(c, t, str_trim(text), NULL, err);
}

static enum rc set_from_env(struct config *c, const struct config_target *t, const char *value,
                            struct err *err)
{
    struct str rest = str_from(value);
    bool paths = t->key->type == CONFIG_PATHS;
    if (t->key->type == CONFIG_BUDGETS)
        c->n_budgets = 0;
    else if (is_list(t->key))
        config_list_clear(t);
    else
        return set_one(c, t, rest, err);
    while (rest.n) {
        struct str item = str_trim(str_cut(&rest, paths ? ':' : ','));
        enum rc rc = item.n ? set_one(c, t, item, err) : RC_OK;
        if (rc != RC_OK)
            return rc;
    }
    return RC_OK;
}

struct environment {
    const char *(*get)(void *arg, const char *name);
    void *arg;
};

static enum rc read_variable(struct config *c, const struct environment *env, const char *prefix,
                             const char *path, struct err *err)
{
    char name[160], full[160];
    config_env_name(prefix, path, name, sizeof name);
    const char *value = env->get(env->arg, name);
    if (!value || !value[0])
        return RC_OK;
    struct config_target t;
    snprintf(full, sizeof full, "%s%s", prefix, path);
    for (char *p = full; *p; p++) /* "DEFAULTS_" stands for "defaults." */
        *p = *p == '_' && p == full + strlen(prefix) - 1 ? '.' : *p;
    if (!config_resolve(c, str_from(full), &t) || t.key->type >= CONFIG_DEFAULTS)
        return RC_OK;
    enum rc rc = set_from_env(c, &t, value, err);
    if (rc != RC_OK && (t.key->flags & CONFIG_ENV_ONLY))
        return err_set(err, RC_INVALID, "environment variable %s is not %s", name,
                       config_type_words(t.key->type));
    if (rc != RC_OK)
        err_prefix(err, "environment variable %s", name);
    else
        c->origin[t.origin] = CONFIG_FROM_ENV;
    return rc;
}

static enum rc read_environment(struct config *c, const struct environment *env, struct err *err)
{
    enum rc rc = RC_OK;
    for (size_t i = 0; i < config_n_aliases && rc == RC_OK; i++)
        rc = read_variable(c, env, "", config_aliases[i].name, err);
    for (size_t i = 0; i < config_n_keys && rc == RC_OK; i++)
        rc = read_variable(c, env, "", config_keys[i].path, err);
    for (size_t i = 0; i < config_n_model_keys && rc == RC_OK; i++)
        if (!(config_model_keys[i].flags & CONFIG_ONLY_MODEL))
            rc = read_variable(c, env, "defaults_", config_model_keys[i].path, err);
    return rc == RC_OK ? config_roles_environment(c, env->get, env->arg, err) : rc;
}

static enum rc read_flags(struct config *c, const struct config_request *req, struct err *err)
{
    for (size_t i = 0; i < req->n_flags; i++) {
        const struct config_flag *f = &req->flags[i];
        struct config_target t;
        if (!config_resolve(c, str_from(f->path), &t))
            return err_set(err, RC_INTERNAL, "no configuration key is called %s", f->path);
        if (is_list(t.key) && c->origin[t.origin] != CONFIG_FROM_FLAG)
            config_list_clear(&t);
        if (t.key->type == CONFIG_BUDGETS && c->origin[t.origin] != CONFIG_FROM_FLAG)
            c->n_budgets = 0;
        c->origin[t.origin] = CONFIG_FROM_FLAG;
        enum rc rc = set_one(c, &t, str_from(f->value), err);
        if (rc != RC_OK)
            return rc;
    }
    return RC_OK;
}

/* ---- what must hold between keys ---- */

void config_model_inherit(struct config_model *m, const struct config_model *base)
{
    for (size_t i = 0; i < config_n_model_keys; i++)
        if (!(m->set & (1ull << i)) && !(config_model_keys[i].flags & CONFIG_ONLY_MODEL))
            config_value_copy(&config_model_keys[i], m, base);
}

static void inherit(struct config *c)
{
    for (size_t m = 0; m < c->n_models; m++)
        config_model_inherit(&c->models[m].m, &c->defaults);
}

struct name {
    const char *text;
    const struct config_entry *owner;
};

static int by_text(const void *a, const void *b)
{
    return strcmp(((const struct name *)a)->text, ((const struct name *)b)->text);
}

static enum rc check_names(const struct config *c, const char *file, struct err *err)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n_models; i++)
        n += 1 + c->models[i].m.aliases.n;
    auto_free struct name *names = mem_try_array(n ? n : 1, sizeof *names);
    if (!names)
        return err_set(err, RC_NOMEM, "%s: too many names of models", file);
    n = 0;
    for (size_t i = 0; i < c->n_models; i++) {
        names[n++] = (struct name){c->models[i].id, &c->models[i]};
        for (size_t k = 0; k < c->models[i].m.aliases.n; k++)
            names[n++] = (struct name){c->models[i].m.aliases.items[k], &c->models[i]};
    }
    qsort(names, n, sizeof *names, by_text);
    for (size_t i = 1; i < n; i++)
        if (strcmp(names[i - 1].text, names[i].text) == 0) {
            const struct config_entry *late = names[i].owner, *early = names[i - 1].owner;
            unsigned line = late->line > early->line ? late->line : early->line;
            enum rc rc =
                err_set(err, RC_INVALID, "%s:%u:1: the name %.80s belongs to two models, %.80s and %.80s",
                        file, line, names[i].text, early->id, late->id);
            err_hint(err, "aliases and ids must be unique");
            return rc;
        }
    return RC_OK;
}

static enum rc check_models(const struct config *c, const char *file, struct err *err)
{
    for (size_t i = 0; i < c->n_models; i++) {
        const struct config_model *m = &c->models[i].m;
        if (m->adapters.n > PLAN_MAX_ADAPTERS)
            return err_set(err, RC_LIMIT, "%s:%u:1: %.80s has %zu adapters: at most %d", file,
                           c->models[i].line, c->models[i].id, m->adapters.n, PLAN_MAX_ADAPTERS);
        if (m->draft_max && m->draft_min > m->draft_max)
            return err_set(err, RC_INVALID, "%s:%u:1: %.80s: draft_min is more than draft_max", file,
                           c->models[i].line, c->models[i].id);
    }
    return RC_OK;
}

/* What was read is made one: roles and models joined, gaps filled from the defaults. */
static enum rc complete(struct config *c, const char *file, struct err *err)
{
    enum rc rc = config_roles_join(c, file, err);
    if (rc == RC_OK)
        inherit(c);
    return rc;
}

static enum rc check_addresses(const struct config *c, struct err *err)
{
    const struct config_list *lists[] = {&c->listen, &c->control_listen};
    struct sockaddr_storage sa;
    socklen_t n;
    if (c->listen.n == 0)
        return err_set(err, RC_INVALID, "listen names no address");
    if (c->listen.n > 8)
        return err_set(err, RC_LIMIT, "listen names more than 8 addresses");
    for (size_t l = 0; l < TABLE_COUNT(lists); l++)
        for (size_t i = 0; i < lists[l]->n; i++) {
            enum rc rc = sock_parse_address(lists[l]->items[i], &sa, &n, err);
            if (rc != RC_OK)
                return rc;
        }
    return RC_OK;
}

static enum rc check_workers(const struct config *c, struct err *err)
{
    for (size_t i = 0; i < c->rpc.n; i++) {
        if (hw_rpc_endpoint_ok(str_from(c->rpc.items[i])))
            continue;
        enum rc rc = err_set(err, RC_INVALID, "rpc: \"%.80s\" is no HOST:PORT", c->rpc.items[i]);
        err_hint(err, "as in 192.168.1.20:50052, where a ggml-rpc-server listens");
        return rc;
    }
    return RC_OK;
}

static enum rc check_tls(const struct config *c, struct err *err)
{
    if (!c->tls_cert[0] == !c->tls_key[0])
        return RC_OK;
    enum rc rc = err_set(err, RC_INVALID, "tls.%s is set, and tls.%s is not", c->tls_cert[0] ? "cert" : "key",
                         c->tls_cert[0] ? "key" : "cert");
    err_hint(err, "name both files, or none");
    return rc;
}

enum rc config_power(const char *item, struct str *ret_device, unsigned *ret_watts, struct err *err)
{
    struct str watts = str_from(item), device = str_trim(str_cut(&watts, '='));
    uint64_t n;
    if (device.n && str_u64(str_trim(watts), &n) && n >= 1 && n <= 10000) {
        *ret_device = device;
        *ret_watts = (unsigned)n;
        return RC_OK;
    }
    enum rc rc = err_set(err, RC_INVALID, "power.limit_w: %.80s is no device with a number of watts", item);
    err_hint(err, "power: {allow: true, limit_w: {CUDA0: 250}}");
    return rc;
}

static enum rc check_power(const struct config *c, struct err *err)
{
    struct str device;
    unsigned watts;
    enum rc rc = RC_OK;
    for (size_t i = 0; i < c->power_limit_w.n && rc == RC_OK; i++)
        rc = config_power(c->power_limit_w.items[i], &device, &watts, err);
    return rc;
}

static enum rc check(const struct config *c, const char *file, struct err *err)
{
    enum rc rc = check_addresses(c, err);
    if (rc == RC_OK)
        rc = check_workers(c, err);
    if (rc == RC_OK)
        rc = check_tls(c, err);
    if (rc == RC_OK)
        rc = check_power(c, err);
    if (rc != RC_OK)
        return rc;
    if (c->body_budget < c->max_body) {
        rc = err_set(err, RC_INVALID, "limits.body_budget is less than limits.max_body");
        err_hint(err, "raise the first or lower the second");
        return rc;
    }
    if (c->warn_fill > c->critical_fill || c->warn_temperature > c->critical_temperature)
        return err_set(err, RC_INVALID, "a warning threshold lies above its critical one");
    rc = check_models(c, file, err);
    return rc ? rc : check_names(c, file, err);
}

/* ---- loading ---- */

static const char *plain_getenv(void *arg, const char *name)
{
    (void)arg;
    return getenv(name);
}

static enum rc read_file(struct config *c, const char *path, struct config_errors *all, struct err *err)
{
    struct buf text = {0};
    enum rc rc = file_read(path, FILE_MAX, &text, err);
    if (rc != RC_OK) {
        err_prefix(err, "configuration");
        if (rc == RC_NOT_FOUND || rc == RC_IO)
            err_hint(err, "arriero config print shows what holds without a file, in the form of one");
        return rc;
    }
    char dir[4096];
    char *full = realpath(path, NULL);
    snprintf(dir, sizeof dir, "%s", full ? full : path);
    free(full);
    char *slash = strrchr(dir, '/');
    if (slash)
        *(slash == dir ? slash + 1 : slash) = '\0';
    c->file = arena_strndup(&c->arena, path, strlen(path));
    rc = c->file ? config_read_yaml(c, buf_str(&text), path, slash ? dir : NULL, all, err)
                 : err_set(err, RC_NOMEM, "memory is short");
    buf_release(&text);
    return rc;
}

static enum rc read_request(struct config *c, const struct config_request *req, struct err *err)
{
    struct environment env = {req->getenv ? req->getenv : plain_getenv, req->arg};
    char usual[4096];
    const char *file = req->file;
    if (!file && !req->no_file)
        file = env.get(env.arg, "ARRIERO_CONFIG");
    if ((!file || !file[0]) && !req->no_file) {
        char dir[3900];
        file_dir(FILE_DIR_CONFIG, dir, sizeof dir);
        snprintf(usual, sizeof usual, "%s/config.yaml", dir);
        file = file_exists(usual) ? usual : NULL;
    }
    /* Each step stands on its own: with a list of errors the later ones are tried after one that failed. */
    struct config_errors *all = req->errors;
    enum rc rc = set_defaults(c, err);
    if (rc == RC_OK && file && !req->no_file)
        rc = read_file(c, file, all, err);
    if (rc == RC_OK || config_keep_error(all, err))
        rc = read_environment(c, &env, err);
    if (rc == RC_OK || config_keep_error(all, err))
        rc = read_flags(c, req, err);
    if (rc == RC_OK || config_keep_error(all, err)) {
        const char *name = c->file[0] ? c->file : "configuration";
        rc = complete(c, name, err);
        if (rc == RC_OK)
            rc = check(c, name, err);
    }
    if (rc != RC_OK)
        (void)config_keep_error(all, err);
    if (!all || all->n == 0)
        return rc;
    *err = all->list[0];
    return err->code;
}

enum rc config_load(const struct config_request *req, struct config **ret_config, struct err *err)
{
    struct config *c = config_empty();
    struct err own;
    enum rc rc = read_request(c, req, err ? err : &own);
    if (rc == RC_OK)
        *ret_config = c;
    else
        config_free(c);
    return rc;
}

enum rc config_parse(struct str text, const char *name, struct config **ret_config, struct err *err)
{
    struct config *c = config_empty();
    enum rc rc =
        text.n > FILE_MAX ? err_set(err, RC_LIMIT, "%s is larger than 1 MiB", name) : set_defaults(c, err);
    if (rc == RC_OK)
        rc = config_read_yaml(c, text, name, NULL, NULL, err);
    if (rc == RC_OK)
        rc = complete(c, name, err);
    if (rc == RC_OK)
        rc = check(c, name, err);
    if (rc == RC_OK)
        *ret_config = c;
    else
        config_free(c);
    return rc;
}

const struct config_model *config_model_for(const struct config *c, struct str id)
{
    for (size_t i = 0; i < c->n_models; i++)
        if (str_eq_c(id, c->models[i].id))
            return &c->models[i].m;
    return &c->defaults;
}

uint64_t config_model_hash(const struct config *c, const struct config_model *m)
{
    uint64_t h = 7;
    for (size_t i = 0; i < config_n_model_keys; i++) {
        const struct config_key *key = &config_model_keys[i];
        uint64_t value = config_value_hash(key, m);
        if ((key->flags & CONFIG_LIVE) || value == config_value_hash(key, &c->plain))
            continue;
        h = str_hash(str_from(key->path), h);
        h = str_hash((struct str){(const char *)&value, sizeof value}, h);
    }
    return h;
}

size_t config_restart_keys(const struct config *a, const struct config *b, const char **out, size_t max)
{
    size_t n = 0;
    for (size_t i = 0; i < config_n_keys; i++)
        if ((config_keys[i].flags & CONFIG_RESTART) && !config_value_equal(&config_keys[i], a, b) && n < max)
            out[n++] = config_keys[i].path;
    return n;
}
