/* The servers of a configuration: see remote.h. Layer daemon. Keys are read here and kept in one place, from
 * which they are cleared; nothing else ever sees them but the head of a request. */
#include "daemon/remote_priv.h"

#include "os/file.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define KEY_MAX 8192u

/* ---- keys ---- */

static bool is_key(struct str key)
{
    for (size_t i = 0; i < key.n; i++)
        if (key.p[i] <= 0x20 || key.p[i] >= 0x7f)
            return false;
    return key.n > 0;
}

static enum rc key_from_file(const char *path, struct buf *out, struct err *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return err_sys(err, RC_IO, "cannot read the key file %s", path);
    if (st.st_mode & 007) {
        enum rc rc = err_set(err, RC_DENIED, "everybody can read the key file %s", path);
        err_hint(err, "chmod 600 %s", path);
        return rc;
    }
    return file_read(path, KEY_MAX, out, err);
}

static enum rc read_key(const struct config_upstream *u, const char *(*get)(const char *name),
                        struct buf *out, struct err *err)
{
    if (u->key_file[0])
        return key_from_file(u->key_file, out, err);
    const char *value = get(u->key_env);
    if (value && value[0]) {
        (void)buf_puts(out, value);
        return RC_OK;
    }
    enum rc rc = err_set(err, RC_BACKEND, "the environment variable %s, its key, is not set", u->key_env);
    err_hint(err, "set %s for the daemon and restart it, or use key_file", u->key_env);
    return rc;
}

static enum rc make_auth(struct remote *r, const struct config_upstream *u,
                         const char *(*get)(const char *name), struct err *err)
{
    struct buf text = {.max = KEY_MAX};
    if (!u->key_env[0] && !u->key_file[0])
        return RC_OK;
    enum rc rc = read_key(u, get, &text, err);
    struct str key = str_trim(buf_str(&text));
    const char *field = r->speaks & DIALECT_BIT(ANTHROPIC) ? "x-api-key: " : "Authorization: Bearer ";
    if (rc == RC_OK && is_key(key))
        r->auth = mem_printf("%s%.*s\r\n", field, STR_ARG(key));
    else if (rc == RC_OK)
        rc = err_set(err, RC_INVALID, "its key in %s is not one word of printable characters",
                     u->key_file[0] ? u->key_file : u->key_env);
    if (text.data)
        explicit_bzero(text.data, text.cap);
    buf_release(&text);
    return rc;
}

/* ---- servers ---- */

struct remote *remote_hold(struct remote *r)
{
    r->refs++;
    return r;
}

void remote_state_drop(struct remote_state *s)
{
    if (!s || --s->refs > 0)
        return;
    remote_check_end(s);
    free(s);
}

void remote_drop(struct remote *r)
{
    if (!r || --r->refs > 0)
        return;
    if (r->auth)
        explicit_bzero(r->auth, strlen(r->auth));
    free(r->auth);
    tls_context_free(r->tls);
    remote_state_drop(r->state);
    arena_release(&r->arena);
    free(r);
}

static bool add_model(struct remote *r, const struct config_remote *from)
{
    struct remote_model *m = &r->models[r->n_models];
    const char *remote = from->remote[0] ? from->remote : from->name;
    *m = (struct remote_model){.id = arena_printf(&r->arena, "%s/%s", r->name, from->name),
                               .remote = arena_strndup(&r->arena, remote, strlen(remote)),
                               .price_input = from->price_input,
                               .price_output = from->price_output,
                               .of = r};
    if (!m->id || !m->remote)
        return false;
    m->name = m->id + strlen(r->name) + 1;
    r->n_models++;
    return true;
}

/* The roles that the model plays. */
static bool add_roles(struct remote *r, struct remote_model *m, const struct config *c)
{
    const char **names = arena_array(&r->arena, c->n_roles + 1, sizeof *names);
    size_t n = 0;
    for (size_t i = 0; names && i < c->n_roles; i++)
        if (strcmp(c->roles[i].id, m->id) == 0)
            if (!(names[n++] = arena_strndup(&r->arena, c->roles[i].name, strlen(c->roles[i].name))))
                return false;
    m->roles = (struct config_list){names, n};
    return names != NULL;
}

static bool fill(struct remote *r, const struct config_upstream *u, const struct config *c)
{
    r->name = arena_strndup(&r->arena, u->name, strlen(u->name));
    r->shown_url = arena_strndup(&r->arena, u->url, strlen(u->url));
    r->models = arena_array(&r->arena, u->models.n ? u->models.n : 1, sizeof *r->models);
    bool fine = r->name && r->shown_url && r->models;
    for (size_t i = 0; fine && i < u->models.n; i++)
        fine = add_model(r, &u->models.items[i]) && add_roles(r, &r->models[i], c);
    r->timeout_ms = (uint32_t)u->timeout;
    r->max_running = u->max_concurrency;
    r->limits = (struct spend_limits){u->spend_per_day, u->spend_per_month};
    return fine;
}

static const char *plain_getenv(const char *name)
{
    return getenv(name);
}

static struct remote *server_new(const struct config *c, const struct config_upstream *u,
                                 const char *(*get)(const char *name))
{
    struct remote *r = mem_new(struct remote);
    enum dialect_id dialect = dialect_find(str_from(u->dialect));
    r->refs = 1;
    r->arena.cap_bytes = 4 * MIB;
    r->dialect = dialect_at(dialect)->name;
    r->speaks = 1u << dialect;
    r->state = mem_new(struct remote_state);
    r->state->refs = 1;
    snprintf(r->state->name, sizeof r->state->name, "%s", u->name);
    if (!fill(r, u, c)) {
        remote_drop(r);
        return NULL;
    }
    enum rc rc = url_parse(str_from(u->url), &r->url, &r->problem);
    if (rc == RC_OK && r->url.tls)
        rc = tls_context_client(u->ca_file[0] ? u->ca_file : NULL, &r->tls, &r->problem);
    if (rc == RC_OK)
        rc = make_auth(r, u, get, &r->problem);
    if (rc != RC_OK) {
        r->problem.code = RC_BACKEND; /* whatever it is, the client cannot mend it */
        err_prefix(&r->problem, "upstream %s cannot be used", u->name);
    }
    return r;
}

enum rc remote_set_build(const struct config *c, const char *(*getenv_fn)(const char *name),
                         struct remote_set **ret_set, struct err *err)
{
    struct remote_set *s = mem_new(struct remote_set);
    s->servers = mem_calloc(c->n_upstreams + 1, sizeof(*s->servers));
    for (size_t i = 0; i < c->n_upstreams; i++) {
        struct remote *r = server_new(c, &c->upstreams[i], getenv_fn ? getenv_fn : plain_getenv);
        if (!r) {
            remote_set_free(s);
            return err_set(err, RC_NOMEM, "memory is short for the models of upstream %s",
                           c->upstreams[i].name);
        }
        r->max_waiting = c->max_waiting;
        r->queue_wait_ms = (uint32_t)c->queue_wait; /* bounded to a day */
        s->servers[s->n++] = r;
        s->n_models += r->n_models;
    }
    *ret_set = s;
    return RC_OK;
}

void remote_set_start(struct remote_set *s, uv_loop_t *loop, struct remote_set *old)
{
    for (size_t i = 0; i < s->n; i++) {
        struct remote *r = s->servers[i];
        for (size_t k = 0; old && k < old->n; k++) {
            struct remote_state *before = old->servers[k]->state;
            if (strcmp(before->name, r->name) != 0)
                continue;
            before->refs++;
            remote_state_drop(r->state);
            r->state = before;
            remote_check_end(before); /* its address may be another one now */
        }
        r->state->loop = loop;
    }
}

void remote_set_free(struct remote_set *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n; i++)
        remote_drop(s->servers[i]);
    free(s->servers);
    free(s);
}

/* ---- finding ---- */

size_t remote_set_models(const struct remote_set *s)
{
    return s->n_models;
}

const struct remote_model *remote_set_model(const struct remote_set *s, size_t i)
{
    for (size_t k = 0; k < s->n; k++) {
        if (i < s->servers[k]->n_models)
            return &s->servers[k]->models[i];
        i -= s->servers[k]->n_models;
    }
    return NULL;
}

static bool is_called(const struct remote_model *m, struct str name)
{
    for (size_t i = 0; i < m->roles.n; i++)
        if (str_eq_c(name, m->roles.items[i]))
            return true;
    return str_eq_c(name, m->id);
}

const struct remote_model *remote_find(const struct remote_set *s, struct str id)
{
    for (size_t i = 0; i < s->n_models; i++)
        if (is_called(remote_set_model(s, i), id))
            return remote_set_model(s, i);
    return NULL;
}

const struct remote_model *remote_find_name(const struct remote_set *s, struct str name)
{
    for (size_t i = 0; i < s->n_models; i++)
        if (str_eq_c(name, remote_set_model(s, i)->name))
            return remote_set_model(s, i);
    return NULL;
}

size_t remote_set_n(const struct remote_set *s)
{
    return s->n;
}

const struct err *remote_problem(const struct remote_set *s, size_t i)
{
    const struct err *problem = &s->servers[i]->problem;
    return problem->message[0] ? problem : NULL;
}
