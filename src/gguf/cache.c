/* The process-wide cache of opened models, keyed by path, size and time of every file. Layer gguf; any
 * thread: one lock, never held while a file is read. Holds a reference to each model; the least recently used
 * goes first. */
#include "gguf/model_priv.h"

#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#define CACHE_MODELS 512u
#define CACHE_BYTES  (64 * MIB)

struct entry {
    char *path; /* as asked for */
    struct model *model;
    uint64_t used; /* the clock at its last use */
};

static struct {
    pthread_mutex_t lock;
    struct entry entries[CACHE_MODELS];
    size_t n;
    uint64_t clock, bytes;
} cache = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t weight(const struct model *m)
{
    return m->priv->arena.used_bytes;
}

static void drop(size_t i)
{
    cache.bytes -= weight(cache.entries[i].model);
    free(cache.entries[i].path);
    model_unref(cache.entries[i].model);
    cache.entries[i] = cache.entries[--cache.n];
}

/* Whether every file of the model is still the one that was read. */
static bool is_current(const struct model *m)
{
    for (uint32_t i = 0; i < m->n_files; i++) {
        const struct model_file *f = &m->priv->files[i];
        struct stat st;
        if (stat(f->path, &st) || (uint64_t)st.st_size != f->size || st.st_dev != f->dev ||
            st.st_ino != f->ino ||
            (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec != f->mtime_ns)
            return false;
    }
    return true;
}

static size_t find(const char *path)
{
    size_t i = 0;
    while (i < cache.n && strcmp(cache.entries[i].path, path))
        i++;
    return i;
}

static struct model *look_up(const char *path)
{
    struct model *m = NULL;
    pthread_mutex_lock(&cache.lock);
    size_t i = find(path);
    if (i < cache.n) {
        cache.entries[i].used = ++cache.clock;
        m = model_ref(cache.entries[i].model);
    }
    pthread_mutex_unlock(&cache.lock);
    return m;
}

static void insert(const char *path, struct model *m)
{
    pthread_mutex_lock(&cache.lock);
    size_t i = find(path);
    if (i < cache.n)
        drop(i);
    while (cache.n && (cache.n == CACHE_MODELS || cache.bytes + weight(m) > CACHE_BYTES)) {
        size_t oldest = 0;
        for (i = 1; i < cache.n; i++)
            if (cache.entries[i].used < cache.entries[oldest].used)
                oldest = i;
        drop(oldest);
    }
    cache.entries[cache.n++] = (struct entry){mem_strdup(path), model_ref(m), ++cache.clock};
    cache.bytes += weight(m);
    pthread_mutex_unlock(&cache.lock);
}

enum rc model_open_cached(const char *path, struct model **ret_model, struct err *err)
{
    /* A relative path means another file after a chdir. */
    if (path[0] != '/')
        return model_open(path, ret_model, err);
    struct model *m = look_up(path);
    if (m && is_current(m)) {
        *ret_model = m;
        return RC_OK;
    }
    model_unref(m);
    enum rc rc = model_open(path, &m, err);
    if (rc)
        return rc;
    insert(path, m);
    *ret_model = m;
    return RC_OK;
}

void model_cache_clear(void)
{
    pthread_mutex_lock(&cache.lock);
    while (cache.n)
        drop(cache.n - 1);
    pthread_mutex_unlock(&cache.lock);
}
