/* The folder of kept conversations: see kv_store.h. Layer pool. */
#include "pool/kv_store.h"

#include "base/mem.h"
#include "os/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define INDEX_NAME "index.json"
#define LOCK_NAME  "lock"
#define SUFFIX     ".kv"
#define CHUNK      (1u << 20)
#define QUOTA_MOST (4ull << 30)
#define FREE_SHARE 20u /* of what is free and ours, a part of so many */

struct kv_store {
    char *dir, *index_path;
    int lock_fd;
    struct kv_index *index;
    uv_loop_t *loop;
    struct kv_store_events events;
    bool changed;     /* the index */
    uint64_t *doomed; /* files to be removed */
    size_t n_doomed;
    /* work under way: one at a time, with what was to be done when it began */
    uv_work_t work;
    bool working;
    struct buf text; /* n 0 = the index need not be written */
    uint64_t *removing;
    size_t n_removing;
    enum rc rc;
    struct err err;
};

/* ---- opening ---- */

char *kv_store_name(uint64_t file, char out[KV_FILE_NAME])
{
    snprintf(out, KV_FILE_NAME, "%016llx" SUFFIX, (unsigned long long)file);
    return out;
}

/* States tell what was said: nobody else may read them. */
static enum rc check_private(const char *dir, struct err *err)
{
    struct stat st;
    if (stat(dir, &st) < 0)
        return err_sys(err, RC_IO, "cannot use the directory %s", dir);
    if (st.st_uid == geteuid() && (st.st_mode & 077) == 0)
        return RC_OK;
    enum rc rc = err_set(err, RC_DENIED, "%s, where conversations are to be kept, is open to others", dir);
    err_hint(err, "chmod 700 %s, or name another folder: kv.dir in the configuration", dir);
    return rc;
}

static enum rc lock(struct kv_store *s, struct err *err)
{
    auto_free char *path = mem_printf("%s/" LOCK_NAME, s->dir);
    s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->lock_fd < 0)
        return err_sys(err, RC_IO, "cannot open %s", path);
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return RC_OK;
    enum rc rc = err_set(err, RC_BUSY, "another daemon keeps its conversations in %s", s->dir);
    err_hint(err, "give this one a folder of its own: kv.dir in the configuration");
    return rc;
}

static void load_index(struct kv_store *s, uint64_t seed)
{
    struct buf text = {0};
    if (file_read(s->index_path, KV_INDEX_BYTES, &text, NULL) != RC_OK ||
        kv_index_parse(buf_str(&text), &s->index, NULL) != RC_OK)
        s->index = kv_index_new(seed);
    buf_release(&text);
}

static bool is_known(const struct kv_store *s, const char *name)
{
    char own[KV_FILE_NAME];
    const struct kv_row *r;
    for (size_t i = 0; (r = kv_index_at(s->index, i)); i++)
        if (strcmp(kv_store_name(r->file, own), name) == 0)
            return true;
    return strcmp(name, LOCK_NAME) == 0 || strcmp(name, INDEX_NAME) == 0;
}

/* Ours by name: a folder that holds other things keeps them. */
static bool is_ours(const char *name)
{
    struct str s = str_from(name);
    return (s.n == KV_FILE_NAME - 1 && str_ends(s, SUFFIX)) || str_starts(s, INDEX_NAME ".");
}

static void sweep(const struct kv_store *s)
{
    DIR *d = opendir(s->dir);
    if (!d)
        return;
    for (const struct dirent *e; (e = readdir(d));)
        if (is_ours(e->d_name) && !is_known(s, e->d_name))
            (void)unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
}

/* Rows whose file is gone, or has another size. */
static void drop_lost(struct kv_store *s)
{
    const struct kv_row *r;
    for (size_t i = 0; (r = kv_index_at(s->index, i));) {
        struct stat st;
        char name[KV_FILE_NAME];
        auto_free char *path = mem_printf("%s/%s", s->dir, kv_store_name(r->file, name));
        if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == r->bytes)
            i++;
        else
            (void)kv_index_drop(s->index, r->file); /* another takes its place */
    }
}

enum rc kv_store_open(const char *dir, uint64_t seed, uv_loop_t *loop, const struct kv_store_events *events,
                      struct kv_store **ret_store, struct err *err)
{
    enum rc rc = file_mkdirs(dir, 0700, err);
    if (rc != RC_OK)
        return rc;
    struct kv_store *s = mem_new(struct kv_store);
    s->lock_fd = -1;
    s->loop = loop;
    s->events = *events;
    s->dir = mem_strdup(dir);
    s->index_path = mem_printf("%s/" INDEX_NAME, dir);
    rc = check_private(dir, err);
    if (rc == RC_OK)
        rc = lock(s, err);
    if (rc != RC_OK) {
        kv_store_close(s);
        return rc;
    }
    load_index(s, seed);
    drop_lost(s);
    sweep(s);
    *ret_store = s;
    return RC_OK;
}

void kv_store_close(struct kv_store *s)
{
    if (!s)
        return;
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    kv_index_free(s->index);
    buf_release(&s->text);
    free(s->doomed);
    free(s->removing);
    free(s->dir);
    free(s->index_path);
    free(s);
}

const char *kv_store_dir(const struct kv_store *s)
{
    return s->dir;
}

struct kv_index *kv_store_index(struct kv_store *s)
{
    return s->index;
}

uint64_t kv_store_quota(const struct kv_store *s, uint64_t quota)
{
    struct statvfs v;
    if (quota != UINT64_MAX)
        return quota;
    if (statvfs(s->dir, &v) != 0)
        return QUOTA_MOST;
    uint64_t share = ((uint64_t)v.f_bavail * v.f_frsize + kv_index_bytes(s->index)) / FREE_SHARE;
    return share < QUOTA_MOST ? share : QUOTA_MOST;
}

/* ---- what is done on the work pool ---- */

static void remove_one(const struct kv_store *s, uint64_t file)
{
    char name[KV_FILE_NAME];
    auto_free char *path = mem_printf("%s/%s", s->dir, kv_store_name(file, name));
    (void)unlink(path);
}

/* The index goes first: a file that it names and that is gone is worse than one that it does not name. */
static void do_work(uv_work_t *req)
{
    struct kv_store *s = req->data;
    s->rc = s->text.n ? file_write_atomic(s->index_path, buf_str(&s->text), 0600, &s->err) : RC_OK;
    for (size_t i = 0; i < s->n_removing; i++)
        remove_one(s, s->removing[i]);
}

static void begin_work(struct kv_store *s);

static void work_done(uv_work_t *req, int status)
{
    struct kv_store *s = req->data;
    struct kv_store_events events = s->events;
    struct err err = s->err;
    bool failed = s->rc != RC_OK;
    (void)status;
    s->working = false;
    begin_work(s); /* what came up meanwhile */
    events.ended(events.arg, failed ? &err : NULL);
}

static void begin_work(struct kv_store *s)
{
    if (s->working || (!s->changed && s->n_doomed == 0))
        return;
    buf_clear(&s->text);
    if (s->changed && kv_index_print(s->index, &s->text, NULL) != RC_OK)
        buf_clear(&s->text); /* for lack of memory: the one that is there goes on to be true */
    free(s->removing);
    s->removing = take_ptr(s->doomed);
    s->n_removing = s->n_doomed;
    s->n_doomed = 0;
    s->changed = false;
    s->working = true;
    s->work.data = s;
    s->events.begun(s->events.arg);
    if (uv_queue_work(s->loop, &s->work, do_work, work_done) != 0)
        abort(); /* it fails for a missing function only */
}

void kv_store_changed(struct kv_store *s)
{
    s->changed = true;
    begin_work(s);
}

void kv_store_remove(struct kv_store *s, uint64_t file)
{
    s->doomed = mem_realloc(s->doomed, s->n_doomed + 1, sizeof *s->doomed);
    s->doomed[s->n_doomed++] = file;
    begin_work(s);
}

/* ---- sums ---- */

static ptrdiff_t read_full(int fd, char *p, size_t n)
{
    size_t got = 0;
    while (got < n) {
        ssize_t r = read(fd, p + got, n - got);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -1;
        if (r == 0)
            break;
        got += (size_t)r;
    }
    return (ptrdiff_t)got;
}

enum rc kv_store_sum(const struct kv_store *s, uint64_t file, uint64_t *ret_bytes, uint64_t *ret_sum,
                     struct err *err)
{
    char name[KV_FILE_NAME];
    auto_free char *path = mem_printf("%s/%s", s->dir, kv_store_name(file, name));
    auto_free char *chunk = mem_try_array(CHUNK, 1);
    if (!chunk)
        return err_set(err, RC_NOMEM, "no memory to read %s", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return err_sys(err, errno == ENOENT ? RC_NOT_FOUND : RC_IO, "cannot open %s", path);
    uint64_t bytes = 0, sum = 1;
    ptrdiff_t n;
    while ((n = read_full(fd, chunk, CHUNK)) > 0) {
        size_t padded = ((size_t)n + 15) / 16 * 16;
        memset(chunk + n, 0, padded - (size_t)n);
        sum = prefix_chain(chunk, padded, sum);
        bytes += (uint64_t)n;
    }
    enum rc rc = n < 0 ? err_sys(err, RC_IO, "cannot read %s", path) : RC_OK;
    close(fd);
    if (rc != RC_OK)
        return rc;
    *ret_bytes = bytes;
    *ret_sum = prefix_chain((char *)(uint64_t[2]){bytes, 0}, 16, sum);
    return RC_OK;
}
