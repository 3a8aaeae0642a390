/* Following a log file: see follow.h. */
#include "launch/follow.h"

#include "base/mem.h"
#include "launch/output.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BUDGET (256u * 1024) /* bytes a turn of the loop */
#define FLOOD       4u            /* times OUTPUT_FILE_MAX: so large it may become while it is read */

struct follow {
    char *path;
    int fd;
    uint64_t at; /* read so far */
    follow_fn fn;
    void *arg;
    uv_fs_event_t watch;
    uv_timer_t timer; /* instead of the watch, and for what is left over */
    bool watched;
    unsigned handles;
    void (*closed)(void *arg);
    void *closed_arg;
};

static void on_timer(uv_timer_t *t);

/* Whether the path still names the file that we read: another run of the same model may have moved it away.
 */
static bool is_named(const struct follow *f)
{
    struct stat ours, named;
    return fstat(f->fd, &ours) == 0 && stat(f->path, &named) == 0 && ours.st_dev == named.st_dev &&
           ours.st_ino == named.st_ino;
}

static bool copy_to(int from, const char *path)
{
    char chunk[65536];
    off_t at = 0;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return false;
    for (;;) {
        ssize_t n = pread(from, chunk, sizeof chunk, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0 || write(fd, chunk, (size_t)n) != n)
            break; /* a full disk: the new file matters more than the old one */
        at += n;
    }
    close(fd);
    return true;
}

static void rotate(struct follow *f)
{
    auto_free char *old = mem_printf("%s.1", f->path);
    if (!is_named(f) || !copy_to(f->fd, old))
        return;
    if (ftruncate(f->fd, 0) == 0)
        f->at = 0;
}

/* Somebody else has cut it: what it holds now is new. */
static bool was_cut(struct follow *f)
{
    struct stat st;
    if (fstat(f->fd, &st) != 0 || (uint64_t)st.st_size >= f->at)
        return false;
    f->at = 0;
    return st.st_size > 0;
}

static bool is_closing(const struct follow *f)
{
    return uv_is_closing((const uv_handle_t *)&f->watch);
}

bool follow_read(struct follow *f)
{
    char chunk[16384];
    size_t budget = READ_BUDGET;
    while (budget > 0 && !is_closing(f)) {
        ssize_t n = pread(f->fd, chunk, sizeof chunk, (off_t)f->at);
        if ((n < 0 && errno == EINTR) || (n == 0 && was_cut(f)))
            continue;
        if (n <= 0)
            break;
        f->at += (size_t)n;
        budget -= (size_t)n < budget ? (size_t)n : budget;
        f->fn(f->arg, chunk, (size_t)n);
    }
    /* Nothing unread is cut away, but for a writer that is faster than we are. */
    if (f->at > (budget > 0 ? 1u : FLOOD) * OUTPUT_FILE_MAX && !is_closing(f))
        rotate(f);
    return budget == 0;
}

/* What a flood leaves over is read in the next turn, so that it does not stall the others. */
static void on_look(struct follow *f)
{
    if (follow_read(f) && !is_closing(f))
        uv_timer_start(&f->timer, on_timer, 0, f->watched ? 0 : FOLLOW_LOOK_MS);
}

static void on_change(uv_fs_event_t *w, const char *name, int events, int status)
{
    (void)name;
    (void)events;
    (void)status;
    on_look(w->data);
}

static void on_timer(uv_timer_t *t)
{
    on_look(t->data);
}

static int open_log(const char *path, uint64_t *ret_bytes, struct err *err)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        (void)err_sys(err, errno == ENOENT ? RC_NOT_FOUND : RC_IO, "cannot open %s", path);
        return -1;
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        (void)err_set(err, RC_IO, "%s is not a regular file", path);
        close(fd);
        return -1;
    }
    *ret_bytes = (uint64_t)st.st_size;
    return fd;
}

enum rc follow_start(uv_loop_t *loop, const char *path, uint64_t from, follow_fn fn, void *arg,
                     struct follow **ret_follow, struct err *err)
{
    uint64_t bytes = 0;
    struct err why;
    int fd = open_log(path, &bytes, &why);
    if (fd < 0) {
        if (err)
            *err = why;
        return why.code;
    }
    struct follow *f = mem_new(struct follow);
    f->path = mem_strdup(path);
    f->fd = fd;
    f->at = from < bytes ? from : bytes;
    f->fn = fn;
    f->arg = arg;
    uv_fs_event_init(loop, &f->watch);
    uv_timer_init(loop, &f->timer);
    f->watch.data = f->timer.data = f;
    f->handles = 2;
    f->watched = uv_fs_event_start(&f->watch, on_change, path, 0) == 0;
    /* What was written before the watch is told by nobody. */
    uv_timer_start(&f->timer, on_timer, 0, f->watched ? 0 : FOLLOW_LOOK_MS);
    *ret_follow = f;
    return RC_OK;
}

static void on_closed(uv_handle_t *h)
{
    struct follow *f = h->data;
    if (--f->handles > 0)
        return;
    void (*closed)(void *) = f->closed;
    void *arg = f->closed_arg;
    close(f->fd);
    free(f->path);
    free(f);
    if (closed)
        closed(arg);
}

void follow_close(struct follow *f, void (*closed)(void *arg), void *arg)
{
    f->closed = closed;
    f->closed_arg = arg;
    uv_close((uv_handle_t *)&f->watch, on_closed);
    uv_close((uv_handle_t *)&f->timer, on_closed);
}
