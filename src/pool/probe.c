/* What runtimes can do, asked once: see pool_priv.h. Layer pool; loop thread, but for the probe itself, which
 * runs on the work pool and touches only its own row.
 *
 * A binary is known by path, size and mtime. However many loads ask about it, it is probed once at a time,
 * and those who wait hold no thread of the work pool. A server that hangs takes seconds to give up on: its
 * failure is kept for POOL_PROBE_KEEP_MS from its end, so that those who come soon after are answered at
 * once. */
#include "pool/pool_priv.h"

#include <string.h>

#define ROWS_KEPT   8 /* known binaries; those being asked for are not bounded by it */
#define AT_ONE_TIME 2 /* so that several that hang leave the work pool threads for other work */

struct probe_wait {
    struct probe_wait *next;
    probe_cb cb;
    void *arg;
};

enum row_state { ROW_QUEUED, ROW_RUNNING, ROW_KNOWN, ROW_FAILED };

struct row {
    struct row *next; /* the one asked for latest first */
    struct probe_cache *cache;
    uv_work_t req;
    struct probe_key key;
    enum row_state state;
    struct probe_wait *first;
    struct runtime_caps caps; /* ROW_KNOWN */
    enum rc rc;               /* ROW_FAILED */
    struct err err;
    uint64_t ended_ms;
};

struct probe_cache {
    struct pool *pool;
    struct row *rows;
    unsigned running;
};

struct probe_cache *probe_cache_new(struct pool *p)
{
    struct probe_cache *c = mem_new(struct probe_cache);
    c->pool = p;
    return c;
}

void probe_cache_free(struct probe_cache *c)
{
    while (c && c->rows) {
        struct row *r = c->rows;
        c->rows = r->next;
        free(r);
    }
    free(c);
}

static bool is_same(const struct probe_key *a, const struct probe_key *b)
{
    return strcmp(a->binary, b->binary) == 0 && a->size == b->size && a->mtime.tv_sec == b->mtime.tv_sec &&
           a->mtime.tv_nsec == b->mtime.tv_nsec;
}

static bool is_worth_keeping(const struct row *r)
{
    if (r->state == ROW_FAILED)
        return r->cache->pool->deps.now_ms() - r->ended_ms < POOL_PROBE_KEEP_MS;
    return r->state != ROW_KNOWN || r->key.known; /* a file that could not be looked at may change unseen */
}

/* Forgets failures of old and the binaries that were asked for the longest ago. */
static void trim(struct probe_cache *c)
{
    size_t kept = 0;
    for (struct row **at = &c->rows; *at;) {
        struct row *r = *at;
        bool over = r->state == ROW_KNOWN || r->state == ROW_FAILED;
        if (over && (!is_worth_keeping(r) || kept >= ROWS_KEPT)) {
            *at = r->next;
            free(r);
            continue;
        }
        kept += over;
        at = &r->next;
    }
}

static struct row *find(struct probe_cache *c, const struct probe_key *key)
{
    for (struct row **at = &c->rows; *at; at = &(*at)->next) {
        struct row *r = *at;
        if (!is_same(&r->key, key))
            continue;
        *at = r->next;
        r->next = c->rows;
        c->rows = r;
        return r;
    }
    return NULL;
}

static void start_next(struct probe_cache *c);

static void probe_work(uv_work_t *req)
{
    struct row *r = req->data;
    r->rc = r->cache->pool->deps.runtime->probe(r->key.binary, &r->caps, &r->err);
}

/* Callbacks may ask again: they find the row in its new state. */
static void tell_all(struct row *r)
{
    struct probe_wait *w = r->first;
    struct err err = r->err;
    struct runtime_caps *caps = NULL;
    enum rc rc = r->rc;
    if (rc == RC_OK) {
        caps = mem_new(struct runtime_caps);
        *caps = r->caps;
    }
    r->first = NULL;
    while (w) {
        struct probe_wait *next = w->next;
        w->cb(w->arg, rc, caps, &err);
        free(w);
        w = next;
    }
    free(caps);
}

static void probe_done(uv_work_t *req, int status)
{
    struct row *r = req->data;
    struct probe_cache *c = r->cache;
    (void)status; /* probes are never cancelled */
    c->running--;
    c->pool->n_work--;
    r->state = r->rc == RC_OK ? ROW_KNOWN : ROW_FAILED;
    r->ended_ms = c->pool->deps.now_ms();
    tell_all(r);
    start_next(c);
    pool_kick(c->pool);
}

static void start_next(struct probe_cache *c)
{
    struct row *oldest = NULL; /* the last of the list was asked for first */
    for (struct row *r = c->rows; r; r = r->next)
        if (r->state == ROW_QUEUED)
            oldest = r;
    if (!oldest || c->running >= AT_ONE_TIME)
        return;
    oldest->state = ROW_RUNNING;
    c->running++;
    c->pool->n_work++;
    if (uv_queue_work(c->pool->loop, &oldest->req, probe_work, probe_done) != 0)
        abort(); /* only for a NULL callback */
}

void probe_ask(struct probe_cache *c, const struct probe_key *key, probe_cb cb, void *arg)
{
    trim(c);
    struct row *r = find(c, key);
    if (r && (r->state == ROW_KNOWN || r->state == ROW_FAILED)) {
        struct err err = r->err;
        struct runtime_caps caps = r->caps;
        cb(arg, r->rc, r->rc == RC_OK ? &caps : NULL, &err);
        return;
    }
    if (!r) {
        r = mem_new(struct row);
        r->cache = c;
        r->key = *key;
        r->req.data = r;
        r->next = c->rows;
        c->rows = r;
    }
    struct probe_wait *w = mem_new(struct probe_wait), **at = &r->first;
    *w = (struct probe_wait){.cb = cb, .arg = arg};
    while (*at)
        at = &(*at)->next;
    *at = w;
    start_next(c);
}

/* What has not begun fails at once; a probe under way ends by its own deadline. */
void probe_cache_close(struct probe_cache *c)
{
    for (struct row *r = c->rows; r; r = r->next) {
        if (r->state != ROW_QUEUED)
            continue;
        r->state = ROW_FAILED;
        r->ended_ms = c->pool->deps.now_ms();
        r->rc = err_set(&r->err, RC_BUSY, "the daemon is stopping");
    }
    for (bool again = true; again;) { /* callbacks may change the list */
        again = false;
        for (struct row *r = c->rows; r && !again; r = r->next)
            if (r->state == ROW_FAILED && r->first) {
                tell_all(r);
                again = true;
            }
    }
}
