/* Configuration and catalog: read on the work pool, applied on the loop. Layer daemon.
 *
 * A reload that fails changes nothing. One that comes while another is under way is done after it, once. */
#include "daemon/daemon_priv.h"

#include "base/log.h"
#include "daemon/notify.h"

#include <stdio.h>
#include <string.h>

#define SPENT_MAX 64

struct spent {
    char name[48];
    struct spend sums;
};

struct reload {
    uv_work_t work;
    struct daemon *d;
    bool first;
    const struct config *base; /* the running one, for a first reading of the catalog */
    /* results */
    struct config *config; /* NULL when first */
    struct key_set given, ring;
    struct tls_context *tls;
    uint64_t ring_serial; /* the daemon's, before the file was read */
    struct catalog *catalog;
    struct model_set *set;
    struct remote_set *remotes;
    struct roster *roster;         /* of the first one */
    struct spent spent[SPENT_MAX]; /* of an earlier run, for the first set */
    size_t n_spent;
    struct buf models_json;
    char runtime_path[512];
    struct err runtime_err;
    enum rc rc;
    struct err err;
};

static enum rc read_ring(struct reload *r)
{
    char path[4300];
    keyring_path(r->config, path, sizeof path);
    return keyring_read(path, &r->ring, &r->err);
}

static void on_spent(void *arg, const struct store_spending *p)
{
    struct reload *r = arg;
    if (r->n_spent == SPENT_MAX)
        return;
    struct spent *s = &r->spent[r->n_spent++];
    (void)snprintf(s->name, sizeof s->name, "%s", p->upstream);
    s->sums = (struct spend){p->day, p->month, p->in_day, p->in_month};
}

static enum rc read_world(struct reload *r)
{
    enum rc rc = RC_OK;
    if (!r->first) {
        rc = config_load(&r->d->opt->config, &r->config, &r->err);
        if (rc == RC_OK)
            rc = keys_load(r->config, &r->given, &r->err);
        if (rc == RC_OK)
            rc = read_ring(r);
        if (rc == RC_OK)
            rc = daemon_load_tls(r->config, &r->tls, &r->err);
        if (rc != RC_OK)
            return rc;
    }
    const struct config *c = r->first ? r->base : r->config;
    const struct catalog_options options = {
        .dirs = c->models_dirs.items, .n_dirs = c->models_dirs.n, .usual_caches = c->usual_caches};
    rc = catalog_scan(&options, &r->catalog, &r->err);
    if (rc == RC_OK)
        rc = model_set_build(c, r->catalog, &r->set, &r->err);
    if (r->first && r->d->roster_dir[0])
        r->roster = roster_scan(r->d->roster_dir);
    if (r->first) /* a history that cannot be read is told elsewhere */
        (void)!store_read_spending(r->d->history_path, on_spent, r, &(struct err){0});
    if (rc == RC_OK)
        rc = remote_set_build(c, NULL, &r->remotes, &r->err);
    if (rc != RC_OK)
        return rc;
    model_set_list_json(r->set, r->remotes, &r->models_json);
    r->runtime_path[0] = '\0';
    (void)!runtime_find_llama_server(c->llama_server[0] ? c->llama_server : NULL, r->runtime_path,
                                     sizeof r->runtime_path, &r->runtime_err);
    return RC_OK;
}

static void on_work(uv_work_t *work)
{
    struct reload *r = work->data;
    r->rc = read_world(r);
}

static void discard(struct reload *r)
{
    model_set_free(r->set);
    remote_set_free(r->remotes);
    roster_free(r->roster);
    catalog_free(r->catalog);
    config_free(r->config);
    tls_context_free(r->tls);
    key_set_release(&r->given);
    key_set_release(&r->ring);
    buf_release(&r->models_json);
    free(r);
}

/* A key that was revoked while this reload read the old file must not come back: then it is read again. */
static void apply_keys(struct reload *r, struct key_set *ret_old_given, struct key_set *ret_old_ring)
{
    struct daemon *d = r->d;
    *ret_old_given = d->given;
    d->given = r->given;
    r->given = (struct key_set){0};
    if (r->ring_serial != d->ring_serial) {
        d->reload_again = true;
        return;
    }
    *ret_old_ring = d->ring;
    d->ring = r->ring;
    r->ring = (struct key_set){0};
}

/* The set points into config and catalog: the old three go together, after the pool has the new ones. */
static void apply(struct reload *r)
{
    struct daemon *d = r->d;
    struct model_set *old_set = d->set;
    struct catalog *old_catalog = d->catalog;
    struct config *old_config = r->config ? d->config : NULL;
    struct remote_set *old_remotes = d->remotes;
    d->set = take_ptr(r->set);
    if (r->roster)
        d->roster = take_ptr(r->roster);
    d->remotes = take_ptr(r->remotes);
    remote_set_start(d->remotes, d->loop, old_remotes);
    d->roles_stale = true;
    for (size_t i = 0; !old_remotes && i < r->n_spent; i++)
        remote_restore(d->remotes, r->spent[i].name, &r->spent[i].sums);
    d->catalog = take_ptr(r->catalog);
    buf_release(&d->models_json);
    d->models_json = r->models_json;
    r->models_json = (struct buf){0};
    snprintf(d->runtime_path, sizeof d->runtime_path, "%s", r->runtime_path);
    d->runtime_err = r->runtime_err;
    if (r->config) {
        struct key_set old_given = {0}, old_ring = {0};
        const char *keys[16];
        size_t n = config_restart_keys(d->config, r->config, keys, TABLE_COUNT(keys));
        for (size_t i = 0; i < n; i++)
            log_warn("%s has changed: that needs a restart", keys[i]);
        d->config = take_ptr(r->config);
        apply_keys(r, &old_given, &old_ring);
        tls_context_free(d->tls);
        d->tls = take_ptr(r->tls);
        struct pool_options pool_opt;
        struct http_options http_opt;
        daemon_pool_options(d, &pool_opt);
        daemon_http_options(d, &http_opt);
        pool_set_options(d->pool, &pool_opt);
        http_server_configure(d->server, &http_opt);
        sampler_set_interval(d->sampler, d->config->sample_interval);
        key_set_release(&old_given);
        key_set_release(&old_ring);
    }
    if (d->pool)
        pool_set_models(d->pool, d->set->models, d->set->n);
    model_set_free(old_set);
    remote_set_free(old_remotes);
    catalog_free(old_catalog);
    config_free(old_config);
}

static void log_result(struct daemon *d, bool first)
{
    for (size_t i = 0; i < d->config->n_notes; i++)
        log_warn("%s", d->config->notes[i]);
    for (size_t i = 0; d->roster && i < d->roster->n_notes; i++)
        log_warn("%s", d->roster->notes[i]);
    for (size_t i = 0; i < d->set->n_warnings; i++)
        log_warn("%s", d->set->warnings[i]);
    for (size_t i = 0; i < remote_set_n(d->remotes); i++)
        if (remote_problem(d->remotes, i))
            log_err(LOG_WARN, "upstreams", remote_problem(d->remotes, i));
    if (!first)
        log_info("reloaded: %zu models", d->set->n);
}

static void after_work(uv_work_t *work, int status)
{
    struct reload *r = work->data;
    struct daemon *d = r->d;
    bool first = r->first;
    (void)status;
    d->reload = NULL;
    d->doing = "applying a reload";
    if (d->stopping) {
        discard(r);
        return;
    }
    if (r->rc == RC_OK)
        r->rc = roles_check_limits(first ? d->config : r->config, sampler_latest(d->sampler), &r->err);
    if (r->rc == RC_OK) {
        apply(r);
        log_result(d, first);
    } else if (!first) {
        log_err(LOG_ERROR, "the reload failed, the old settings stay", &r->err);
    }
    struct err err = r->err;
    enum rc rc = r->rc;
    discard(r);
    if (first && rc == RC_OK)
        rc = daemon_begin_serving(d, &err);
    if (first && rc != RC_OK) {
        d->failure = rc;
        d->failure_err = err;
        daemon_stop(d, true);
        return;
    }
    if (!first)
        notify_send("READY=1\nSTATUS=%zu models", d->set->n);
    if (d->reload_again) {
        d->reload_again = false;
        reload_begin(d, false);
    }
}

void reload_begin(struct daemon *d, bool first)
{
    if (d->stopping)
        return;
    if (d->reload) {
        d->reload_again = true;
        return;
    }
    struct reload *r = mem_new(struct reload);
    r->d = d;
    r->first = first;
    r->ring_serial = d->ring_serial;
    r->base = d->config;
    r->work.data = r;
    d->reload = r;
    if (!first) {
        log_info("reloading configuration and models");
        notify_reloading();
    }
    uv_queue_work(d->loop, &r->work, on_work, after_work);
}

bool reload_busy(const struct daemon *d)
{
    return d->reload != NULL;
}
