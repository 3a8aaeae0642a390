/* Lines, tail and file of a job's output: see output.h. */
#include "launch/output.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int output_file_new(const char *path)
{
    auto_free char *old = mem_printf("%s.1", path);
    if (rename(path, old) < 0 && errno != ENOENT)
        return -1;
    return open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static void file_open(struct output *o)
{
    o->fd = output_file_new(o->path);
    o->file_n = 0;
}

static void file_close(struct output *o)
{
    if (o->fd >= 0)
        close(o->fd);
    o->fd = -1;
}

static void file_add(struct output *o, const char *p, size_t n)
{
    if (o->fd >= 0 && o->file_n + n > OUTPUT_FILE_MAX) {
        file_close(o);
        file_open(o);
    }
    while (o->fd >= 0 && n > 0) {
        ssize_t w = write(o->fd, p, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0) {
            file_close(o);
            return;
        }
        p += w;
        n -= (size_t)w;
        o->file_n += (size_t)w;
    }
}

void output_init(struct output *o, const char *path, size_t tail_max)
{
    *o = (struct output){.fd = -1, .tail_max = tail_max ? tail_max : 64u * 1024};
    o->tail = mem_calloc(2, o->tail_max);
    if (path) {
        o->path = mem_strdup(path);
        file_open(o);
    }
}

void output_release(struct output *o)
{
    file_close(o);
    free(o->tail);
    free(o->path);
    *o = (struct output){.fd = -1};
}

static void tail_add(struct output *o, const char *p, size_t n)
{
    if (n > o->tail_max) {
        p += n - o->tail_max;
        n = o->tail_max;
    }
    if (o->tail_n + n > 2 * o->tail_max) {
        size_t keep = o->tail_max - n;
        memmove(o->tail, o->tail + o->tail_n - keep, keep);
        o->tail_n = keep;
    }
    memcpy(o->tail + o->tail_n, p, n);
    o->tail_n += n;
}

struct str output_tail(const struct output *o)
{
    size_t n = o->tail_n < o->tail_max ? o->tail_n : o->tail_max;
    struct str t = {o->tail + o->tail_n - n, n};
    if (o->tail_n <= o->tail_max)
        return t;
    const char *nl = memchr(t.p, '\n', t.n); /* begin with a whole line */
    return nl && (size_t)(nl + 1 - t.p) < t.n ? (struct str){nl + 1, t.n - (size_t)(nl + 1 - t.p)} : t;
}

static void line_end(struct output *o, void (*fn)(void *arg, struct str line), void *arg)
{
    size_t n = o->line_n;
    o->line_n = 0;
    o->line_cut = false;
    if (n > 0 && o->line[n - 1] == '\r')
        n--;
    if (fn)
        fn(arg, (struct str){o->line, n});
}

void output_add(struct output *o, const char *p, size_t n, void (*fn)(void *arg, struct str line), void *arg)
{
    tail_add(o, p, n);
    file_add(o, p, n);
    while (n > 0) {
        const char *nl = memchr(p, '\n', n);
        size_t piece = nl ? (size_t)(nl - p) : n;
        size_t room = sizeof o->line - o->line_n;
        size_t take = piece < room ? piece : room;
        memcpy(o->line + o->line_n, p, take);
        o->line_n += take;
        o->line_cut |= take < piece;
        p += piece;
        n -= piece;
        if (nl) {
            line_end(o, fn, arg);
            p++;
            n--;
        }
    }
}

void output_flush(struct output *o, void (*fn)(void *arg, struct str line), void *arg)
{
    if (o->line_n > 0)
        line_end(o, fn, arg);
}
