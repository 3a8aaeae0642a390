/* The roles of the configuration while the daemon runs: whether those who play them can be asked, and whether
 * their limits of memory go together. Layer daemon; loop thread.
 *
 * Who plays a role is one model; of its instances the one that fares best counts. A model that is loaded on
 * demand only (preload: false) can be asked while it is not loaded. One that a server elsewhere has fares as
 * that server does, and takes nothing of a GPU here. */
#include "daemon/daemon_priv.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

#define LIMIT_SHARE 0.95 /* of a GPU: the driver and others need some of it */

enum fare { FARE_HEALTHY, FARE_UNLOADED, FARE_LOADING, FARE_UNHEALTHY };
static const char *const fare_words[] = {"healthy", "unloaded", "loading", "unhealthy"};
static const char *const state_words[] = {"healthy", "healthy", "degraded", "down"};

struct player {
    const struct config_role *role;
    const char *model;                 /* NULL = there is no such */
    const struct remote_model *remote; /* NULL = it is one of ours */
    const char *ill;                   /* why the server elsewhere is not well */
    enum fare fare;
    uint32_t instances, ready;
    bool on_demand;
    char failed[POOL_ID_MAX]; /* an instance that failed */
};

/* ---- how they fare ---- */

static enum fare fare_of(const struct pool_view *v)
{
    static const enum fare of_state[POOL_STATES] = {
        [POOL_PLANNED] = FARE_LOADING,   [POOL_STARTING] = FARE_LOADING, [POOL_READY] = FARE_HEALTHY,
        [POOL_DRAINING] = FARE_UNLOADED, [POOL_STOPPED] = FARE_UNLOADED, [POOL_FAILED] = FARE_UNHEALTHY};
    bool refuses = v->state == POOL_READY && strcmp(v->breaker, "open") == 0;
    return refuses ? FARE_UNHEALTHY : of_state[v->state];
}

static void take_instance(void *arg, const struct pool_view *v)
{
    static const int rank[] = {
        [FARE_HEALTHY] = 3, [FARE_LOADING] = 2, [FARE_UNHEALTHY] = 1, [FARE_UNLOADED] = 0};
    struct player *p = arg;
    if (!p->model || strcmp(v->model, p->model) != 0 || v->state == POOL_STOPPED)
        return;
    enum fare fare = fare_of(v);
    p->instances++;
    p->ready += fare == FARE_HEALTHY;
    if (rank[fare] > rank[p->fare])
        p->fare = fare;
    if (fare == FARE_UNHEALTHY)
        snprintf(p->failed, sizeof p->failed, "%s", v->instance);
}

static struct player player_elsewhere(const struct config_role *role, const struct remote_model *m)
{
    static const enum fare fares[] = {
        [REMOTE_UNKNOWN] = FARE_LOADING, [REMOTE_WELL] = FARE_HEALTHY, [REMOTE_ILL] = FARE_UNHEALTHY};
    struct player p = {.role = role, .model = m->id, .remote = m};
    p.fare = fares[remote_watch(m, &p.ill)];
    return p;
}

static struct player player_of(struct daemon *d, const struct config_role *role)
{
    const struct remote_model *elsewhere = remote_find(d->remotes, str_from(role->id));
    if (elsewhere)
        return player_elsewhere(role, elsewhere);
    const struct model_group *g = model_set_group(d->set, str_from(role->id));
    const char *model = pool_resolve(d->pool, str_from(g && g->members->n ? g->members->items[0] : role->id));
    struct player p = {.role = role, .model = model, .fare = model ? FARE_UNLOADED : FARE_UNHEALTHY};
    p.on_demand = !config_model_for(d->config, str_from(role->id))->preload;
    pool_each(d->pool, take_instance, &p);
    return p;
}

static bool can_be_asked(const struct player *p)
{
    return p->fare == FARE_HEALTHY || (p->fare == FARE_UNLOADED && p->on_demand);
}

static enum roles_state state_of(const struct player *players, size_t n)
{
    size_t well = 0;
    for (size_t i = 0; i < n; i++)
        well += can_be_asked(&players[i]);
    return n == 0 ? ROLES_NONE : well == n ? ROLES_HEALTHY : well ? ROLES_DEGRADED : ROLES_DOWN;
}

static size_t all_players(struct daemon *d, struct player ret[CONFIG_MAX_ROLES])
{
    for (size_t i = 0; i < d->config->n_roles; i++)
        ret[i] = player_of(d, &d->config->roles[i]);
    return d->config->n_roles;
}

/* ---- health ---- */

/* Why it cannot be asked, in the words of the instance that failed. */
static const char *why(struct daemon *d, const struct player *p, yyjson_mut_doc *doc)
{
    size_t i, n;
    yyjson_mut_val *v;
    if (p->remote)
        return p->ill;
    if (!p->model)
        return "no model of that name is served";
    yyjson_mut_arr_foreach(pool_json(d->pool, doc), i, n, v)
    {
        const char *id = yyjson_mut_get_str(yyjson_mut_obj_get(v, "id"));
        yyjson_mut_val *text = yyjson_mut_obj_get(yyjson_mut_obj_get(v, "last_error"), "message");
        if (id && strcmp(id, p->failed) == 0 && text)
            return yyjson_mut_get_str(text);
    }
    return "its instance answers with errors only";
}

static yyjson_mut_val *player_json(struct daemon *d, const struct player *p, yyjson_mut_doc *doc)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    const struct config_model *m = config_model_for(d->config, str_from(p->role->id));
    yyjson_mut_obj_add_str(doc, o, "status", fare_words[p->fare]);
    yyjson_mut_obj_add_bool(doc, o, "healthy", can_be_asked(p));
    yyjson_mut_obj_add_strcpy(doc, o, "role", p->role->name);
    yyjson_mut_obj_add_strcpy(doc, o, "model", p->model ? p->model : p->role->id);
    if (p->remote) {
        yyjson_mut_obj_add_strcpy(doc, o, "host", remote_url(p->remote));
    } else {
        yyjson_mut_obj_add_uint(doc, o, "instances", p->instances);
        yyjson_mut_obj_add_uint(doc, o, "ready", p->ready);
        if (m->device[0])
            yyjson_mut_obj_add_strcpy(doc, o, "device", m->device);
        if (m->vram_limit != UINT64_MAX)
            yyjson_mut_obj_add_uint(doc, o, "vram_limit_bytes", m->vram_limit);
    }
    if (p->role->dimensions)
        yyjson_mut_obj_add_uint(doc, o, "dimensions", p->role->dimensions);
    if (p->fare == FARE_UNHEALTHY)
        yyjson_mut_obj_add_strcpy(doc, o, "error", why(d, p, doc));
    return o;
}

enum roles_state roles_health(struct daemon *d, yyjson_mut_doc *doc, yyjson_mut_val *o)
{
    static const struct {
        const char *role, *member;
    } members[] = {
#define ROLE_HEALTH(role, member) {role, member},
#include "daemon/roles.def"
    };
    struct player players[CONFIG_MAX_ROLES] = {0};
    size_t n = all_players(d, players);
    enum roles_state state = state_of(players, n);
    yyjson_mut_obj_add_str(doc, o, "status", state_words[state]);
    for (size_t k = 0; k < TABLE_COUNT(members); k++) {
        yyjson_mut_val *v = yyjson_mut_null(doc); /* nobody was to play it */
        for (size_t i = 0; i < n; i++)
            if (strcmp(players[i].role->name, members[k].role) == 0)
                v = yyjson_mut_bool(doc, can_be_asked(&players[i]));
        yyjson_mut_obj_add_val(doc, o, members[k].member, v);
    }
    yyjson_mut_val *details = yyjson_mut_obj_add_obj(doc, o, "details");
    for (size_t i = 0; i < n; i++) {
        auto_free char *name = mem_printf("%s_llm", players[i].role->name);
        yyjson_mut_obj_add(details, yyjson_mut_strcpy(doc, name), player_json(d, &players[i], doc));
    }
    return state;
}

void roles_answer(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    yyjson_mut_val *root;
    yyjson_mut_doc *doc = doc_new(&root);
    d->doing = "GET /orchestrator/health";
    (void)roles_health(d, doc, root);
    reply_doc(ex, doc);
}

/* ---- events ---- */

static void tell(struct daemon *d, enum roles_state state, const struct player *players, size_t n)
{
    static const char *const codes[] = {"role_healthy", "role_unloaded", "role_loading", "role_unhealthy"};
    struct plan_reason reasons[CONFIG_MAX_ROLES] = {0};
    const char *first = NULL;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    for (size_t i = 0; i < n; i++) {
        const struct player *p = &players[i];
        const char *model = p->model ? p->model : p->role->id, *status = fare_words[p->fare];
        reasons[i].code = codes[p->fare];
        snprintf(reasons[i].text, sizeof reasons[i].text, "%s, played by %s, is %s%s%s", p->role->name, model,
                 status, p->fare == FARE_UNHEALTHY ? ": " : "",
                 p->fare == FARE_UNHEALTHY ? why(d, p, doc) : "");
        if (!first && !can_be_asked(p))
            first = model;
    }
    const struct pool_decision event = {.wall_ms = clock_wall_ms(),
                                        .kind = state == ROLES_HEALTHY ? "llm_healthy" : "llm_degraded",
                                        .model = first ? first : "",
                                        .instance = "",
                                        .reasons = reasons,
                                        .n_reasons = n};
    events_decision(d, &event);
    yyjson_mut_doc_free(doc);
}

void roles_look(struct daemon *d)
{
    struct player players[CONFIG_MAX_ROLES] = {0};
    d->roles_stale = false;
    if (!d->config->n_roles || !d->pool || d->stopping)
        return;
    size_t n = all_players(d, players);
    enum roles_state now = state_of(players, n);
    bool broken = false;
    for (size_t i = 0; i < n; i++)
        broken |= players[i].fare == FARE_UNHEALTHY;
    if (now == d->roles_told || (d->roles_told == ROLES_NONE && now != ROLES_HEALTHY && !broken))
        return; /* what has not been loaded yet is no news */
    bool silent = d->roles_told == ROLES_NONE && now == ROLES_HEALTHY;
    d->roles_told = now;
    if (!silent)
        tell(d, now, players, n);
}

/* ---- limits ---- */

static bool is_on(const struct config *c, const struct config_role *role, const struct hw_device *g)
{
    const char *name = config_model_for(c, str_from(role->id))->device;
    return name[0] && !config_is_upstream_model(c, str_from(role->id)) &&
           (strcmp(g->name, name) == 0 || ((g->valid & HW_UUID) && strcmp(g->uuid, name) == 0));
}

/* Several roles of one model have one limit. */
static bool is_repeated(const struct config *c, size_t role)
{
    for (size_t i = 0; i < role; i++)
        if (strcmp(c->roles[i].id, c->roles[role].id) == 0)
            return true;
    return false;
}

static enum rc check_device(const struct config *c, const struct hw_device *g, struct err *err)
{
    struct buf who = {0};
    double sum = 0;
    char a[24], b[24];
    enum rc rc = RC_OK;
    for (size_t i = 0; i < c->n_roles; i++) {
        const struct config_model *m = config_model_for(c, str_from(c->roles[i].id));
        if (!is_on(c, &c->roles[i], g) || m->vram_limit == UINT64_MAX || is_repeated(c, i))
            continue;
        sum += (double)m->vram_limit;
        buf_printf(&who, "%s%s", who.n ? " and " : "", c->roles[i].name);
    }
    if (sum > LIMIT_SHARE * (double)g->total_bytes) {
        rc = err_set(err, RC_INVALID, "the roles %s may take %s of %s together, which has %s", who.data,
                     str_human_bytes((uint64_t)sum, a, sizeof a), g->name,
                     str_human_bytes(g->total_bytes, b, sizeof b));
        err_hint(err,
                 "lower their vram_limit so that they sum to %.0f percent of it at most, or move one to "
                 "another device",
                 LIMIT_SHARE * 100);
    }
    buf_release(&who);
    return rc;
}

enum rc roles_check_limits(const struct config *c, const struct hw_inventory *inv, struct err *err)
{
    for (size_t i = 0; i < inv->n_devices; i++) {
        enum rc rc = inv->devices[i].valid & HW_MEMORY ? check_device(c, &inv->devices[i], err) : RC_OK;
        if (rc != RC_OK)
            return rc;
    }
    return RC_OK;
}

yyjson_mut_val *roles_machine_json(const struct config *c, const struct hw_inventory *inv,
                                   yyjson_mut_doc *doc)
{
    yyjson_mut_val *o = hw_json(doc, inv), *g;
    size_t k, n;
    yyjson_mut_arr_foreach(yyjson_mut_obj_get(o, "gpus"), k, n, g)
    {
        yyjson_mut_val *names = yyjson_mut_obj_add_arr(doc, g, "roles");
        for (size_t i = 0; i < c->n_roles; i++)
            if (is_on(c, &c->roles[i], &inv->devices[k]))
                yyjson_mut_arr_add_strcpy(doc, names, c->roles[i].name);
    }
    return o;
}
