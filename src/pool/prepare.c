/* What a load must know first: see pool_priv.h. Layer pool; loop thread, but for find_work and facts_work.
 *
 *   find_work    work pool: where the runtime is, and which file that is
 *   on_probed    what it can do (probe.c); nobody waits in a thread for a probe of another's
 *   facts_work   work pool: the model's facts and those of the files beside it
 *   finish       the entry is told, if it still wants to know */
#include "os/pagecache.h"
#include "pool/pool_priv.h"

#include <string.h>
#include <sys/stat.h>

static void queue(struct prep *w, uv_work_cb work, uv_after_work_cb after)
{
    if (uv_queue_work(w->pool->loop, &w->req, work, after) != 0)
        abort(); /* only for a NULL callback */
}

/* Was it the runtime of every model that names none of its own? NULL means the one that is found by itself.
 */
static bool is_default_runtime(const struct prep *w)
{
    const char *own = w->pool->runtime_binary;
    if (!w->binary || !own)
        return !w->binary && !own;
    return strcmp(w->binary, own) == 0;
}

static void finish(struct prep *w)
{
    struct pool *p = w->pool;
    struct entry *e = w->entry;
    p->n_work--;
    if (e) {
        e->prep = NULL;
        if (w->rc == RC_OK) {
            if (e->facts)
                p->deps.facts_unref(e->facts);
            e->facts = take_ptr(w->facts);
            free(e->caps);
            e->caps = take_ptr(w->caps);
            beside_release(p, &e->beside);
            e->beside = w->beside;
            w->beside = (struct beside){0};
            smaller_release(p, &e->smaller);
            e->smaller = w->smaller;
            w->smaller.n = 0;
            e->file_cached = w->file_cached;
            load_try_room(e);
        } else {
            load_unprepared(e, w->rc, &w->err);
        }
    }
    if (w->facts)
        p->deps.facts_unref(w->facts);
    beside_release(p, &w->beside);
    smaller_release(p, &w->smaller);
    strings_free(w->smaller_paths, w->n_smaller_paths);
    free(w->caps);
    free(w->path);
    free(w->files);
    free(w->binary);
    free(w);
    pool_kick(p);
}

/* One that cannot be read is none. */
void smaller_read(const struct pool *p, char *const *paths, size_t n, struct smaller *ret)
{
    ret->n = 0;
    for (size_t i = 0; i < n && ret->n < TABLE_COUNT(ret->list); i++)
        if (p->deps.facts(paths[i], &ret->list[ret->n], NULL) == RC_OK)
            ret->n++;
}

void smaller_release(const struct pool *p, struct smaller *s)
{
    while (s->n > 0)
        p->deps.facts_unref(s->list[--s->n]);
}

static void facts_work(uv_work_t *req)
{
    struct prep *w = req->data;
    w->rc = w->pool->deps.facts(w->path, &w->facts, &w->err);
    if (w->rc != RC_OK)
        return;
    (void)pagecache_share(w->path, &w->file_cached, NULL); /* 0 where nobody may know */
    smaller_read(w->pool, w->smaller_paths, w->n_smaller_paths, &w->smaller);
    w->rc = beside_read(w->pool, w->files, &w->beside, &w->err);
}

static void facts_read(uv_work_t *req, int status)
{
    (void)status;
    finish(req->data);
}

static void on_probed(void *arg, enum rc rc, const struct runtime_caps *caps, const struct err *err)
{
    struct prep *w = arg;
    struct pool *p = w->pool;
    w->rc = rc;
    if (rc == RC_OK) {
        w->caps = mem_new(struct runtime_caps);
        *w->caps = *caps;
        if (is_default_runtime(w)) {
            free(p->default_caps);
            p->default_caps = mem_new(struct runtime_caps);
            *p->default_caps = *caps;
        }
    } else {
        w->err = *err;
    }
    if (rc == RC_OK && w->entry)
        queue(w, facts_work, facts_read);
    else
        finish(w);
}

static void find_work(uv_work_t *req)
{
    struct prep *w = req->data;
    struct stat st;
    w->rc = w->pool->deps.find_runtime(w->binary, w->key.binary, sizeof w->key.binary, &w->err);
    if (w->rc != RC_OK || stat(w->key.binary, &st) != 0)
        return;
    w->key.known = true;
    w->key.size = st.st_size;
    w->key.mtime = st.st_mtim;
}

static void found(uv_work_t *req, int status)
{
    struct prep *w = req->data;
    (void)status;
    if (w->rc == RC_OK && !w->pool->stopping && (w->entry || w->warm_up))
        probe_ask(w->pool->probes, &w->key, on_probed, w);
    else
        finish(w);
}

struct prep *prep_start(struct pool *p, struct entry *e)
{
    struct prep *w = mem_new(struct prep);
    const char *binary = e && e->binary ? e->binary : p->runtime_binary;
    w->pool = p;
    w->entry = e;
    w->warm_up = !e;
    w->path = e ? mem_strdup(e->path) : NULL;
    w->files = e ? files_copy(e->files) : NULL;
    w->binary = binary ? mem_strdup(binary) : NULL;
    w->n_smaller_paths = e ? e->n_smaller_paths : 0;
    w->smaller_paths = strings_copy((const char *const *)(e ? e->smaller_paths : NULL), w->n_smaller_paths);
    w->req.data = w;
    p->n_work++;
    queue(w, find_work, found);
    return w;
}
