/* See pressure.h. Each source is one descriptor and what a sign of it means; the table below is all of them.
 */
#include "daemon/pressure.h"

#include "base/buf.h"
#include "base/mem.h"
#include "os/file.h"
#include "os/pressure.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WINDOW_MS 2000u
#define HOLD_MS   10000u
#define PATH_CAP  1200

enum source_id { MACHINE_SOME, MACHINE_FULL, GROUP_SOME, GROUP_FULL, GROUP_EVENTS, SOURCES };

static const struct {
    enum pressure_place place;
    bool full;
    enum yield_level level; /* of a trigger; those of events depend on which */
} kinds[SOURCES] = {
    [MACHINE_SOME] = {PRESSURE_MACHINE, false, YIELD_WARN},
    [MACHINE_FULL] = {PRESSURE_MACHINE, true, YIELD_CRITICAL},
    [GROUP_SOME] = {PRESSURE_GROUP, false, YIELD_WARN},
    [GROUP_FULL] = {PRESSURE_GROUP, true, YIELD_CRITICAL},
    [GROUP_EVENTS] = {PRESSURE_EVENTS, false, YIELD_WARN},
};

struct source {
    struct pressure *owner;
    uv_poll_t poll;
    int fd; /* -1 = none */
    bool polled;
};

struct pressure {
    struct pressure_options opt;
    struct source sources[SOURCES];
    char stalls[2][PATH_CAP], events[PATH_CAP]; /* "" = none; of the machine and of the group */
    struct pressure_events seen;
    uv_timer_t timer; /* reads what has no trigger; ends a level that has not been told again */
    uint64_t until_ms[YIELD_LEVELS];
    enum yield_level level;
    bool any_trigger, read_stalls;
    unsigned handles;
};

/* ---- the level ---- */

static void on_timer(uv_timer_t *t);

static void plan_timer(struct pressure *p, uint64_t now)
{
    uint64_t next = UINT64_MAX;
    for (int l = YIELD_WARN; l < YIELD_LEVELS; l++)
        if (p->until_ms[l] > now && p->until_ms[l] - now < next)
            next = p->until_ms[l] - now;
    if (p->read_stalls && next > WINDOW_MS)
        next = WINDOW_MS;
    if (next == UINT64_MAX)
        uv_timer_stop(&p->timer);
    else
        uv_timer_start(&p->timer, on_timer, next, 0);
}

static void settle(struct pressure *p, bool sign)
{
    uint64_t now = uv_now(p->opt.loop);
    enum yield_level level = YIELD_CALM;
    for (int l = YIELD_WARN; l < YIELD_LEVELS; l++)
        if (p->until_ms[l] > now)
            level = (enum yield_level)l;
    bool changed = level != p->level;
    p->level = level;
    plan_timer(p, now);
    if (changed || sign)
        p->opt.told(p->opt.arg, level);
}

static void note(struct pressure *p, enum yield_level level)
{
    if (level > YIELD_CALM)
        p->until_ms[level] = uv_now(p->opt.loop) + HOLD_MS;
}

/* ---- reading ---- */

static bool read_events(const char *path, struct pressure_events *ret)
{
    struct buf b = {0};
    bool ok = path[0] && file_read(path, 4096, &b, NULL) == RC_OK && pressure_events_parse(buf_str(&b), ret);
    buf_release(&b);
    return ok;
}

static enum yield_level events_level(struct pressure *p)
{
    struct pressure_events e, was = p->seen;
    if (!read_events(p->events, &e))
        return YIELD_CALM;
    p->seen = e;
    if (e.oom > was.oom || e.oom_kill > was.oom_kill)
        return YIELD_CRITICAL;
    return e.high > was.high || e.max > was.max ? YIELD_WARN : YIELD_CALM;
}

static enum yield_level stalls_level(const struct pressure *p, const char *path)
{
    struct buf b = {0};
    struct pressure_stall s;
    enum yield_level l = YIELD_CALM;
    if (path[0] && file_read(path, 4096, &b, NULL) == RC_OK && pressure_parse(buf_str(&b), &s)) {
        if (p->opt.some_pct > 0 && s.some_pct >= p->opt.some_pct)
            l = YIELD_WARN;
        if (p->opt.full_pct > 0 && s.full_pct >= p->opt.full_pct)
            l = YIELD_CRITICAL;
    }
    buf_release(&b);
    return l;
}

static void on_timer(uv_timer_t *t)
{
    struct pressure *p = t->data;
    if (p->read_stalls) {
        note(p, stalls_level(p, p->stalls[0]));
        note(p, stalls_level(p, p->stalls[1]));
        note(p, events_level(p));
    }
    settle(p, false);
}

/* ---- triggers ---- */

static void on_sign(uv_poll_t *h, int status, int events)
{
    struct source *s = h->data;
    struct pressure *p = s->owner;
    size_t id = (size_t)(s - p->sources);
    if (status < 0 || !(events & UV_PRIORITIZED)) { /* the group is gone */
        uv_poll_stop(h);
        return;
    }
    note(p, id == GROUP_EVENTS ? events_level(p) : kinds[id].level);
    settle(p, true);
}

static int open_source(const struct pressure *p, size_t id)
{
    double pct = kinds[id].full ? p->opt.full_pct : p->opt.some_pct;
    const char *path = p->stalls[kinds[id].place == PRESSURE_GROUP];
    if (id == GROUP_EVENTS)
        return p->events[0] ? open(p->events, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    if (!path[0] || pct <= 0)
        return -1;
    return pressure_arm(path, kinds[id].full, (unsigned)(pct * WINDOW_MS / 100), WINDOW_MS);
}

static void arm(struct pressure *p, size_t id)
{
    struct source *s = &p->sources[id];
    s->owner = p;
    s->fd = open_source(p, id);
    s->poll.data = s;
    if (s->fd < 0)
        return;
    if (uv_poll_init(p->opt.loop, &s->poll, s->fd) != 0) { /* a file that cannot be polled */
        close(s->fd);
        s->fd = -1;
        return;
    }
    s->polled = true;
    p->handles++;
    if (uv_poll_start(&s->poll, UV_PRIORITIZED, on_sign) == 0 && id != GROUP_EVENTS)
        p->any_trigger = true;
}

struct pressure *pressure_start(const struct pressure_options *opt)
{
    struct pressure *p = mem_new(struct pressure);
    const char *proc = opt->proc_root ? opt->proc_root : "/proc",
               *sys = opt->sys_root ? opt->sys_root : "/sys";
    p->opt = *opt;
    if (!pressure_find(proc, sys, PRESSURE_MACHINE, p->stalls[0], PATH_CAP))
        p->stalls[0][0] = '\0';
    if (!pressure_find(proc, sys, PRESSURE_GROUP, p->stalls[1], PATH_CAP))
        p->stalls[1][0] = '\0';
    if (!pressure_find(proc, sys, PRESSURE_EVENTS, p->events, PATH_CAP) || !read_events(p->events, &p->seen))
        p->events[0] = '\0';
    uv_timer_init(p->opt.loop, &p->timer);
    p->timer.data = p;
    p->handles = 1;
    for (size_t id = 0; id < SOURCES; id++)
        arm(p, id);
    p->read_stalls = !p->any_trigger && (p->stalls[0][0] || p->stalls[1][0]);
    if (p->read_stalls)
        uv_timer_start(&p->timer, on_timer, 0, 0);
    return p;
}

const char *pressure_way(const struct pressure *p)
{
    return p->any_trigger ? "triggers" : p->read_stalls ? "polled" : "none";
}

enum yield_level pressure_level(const struct pressure *p)
{
    return p->level;
}

static void on_closed(uv_handle_t *h)
{
    struct pressure *p = h->data;
    if (--p->handles == 0)
        free(p);
}

static void on_source_closed(uv_handle_t *h)
{
    struct source *s = h->data;
    h->data = s->owner;
    on_closed(h);
}

/* A descriptor goes behind its handle: closing the handle takes its number out of the loop's set. */
void pressure_stop(struct pressure *p)
{
    if (!p)
        return;
    for (size_t id = 0; id < SOURCES; id++) {
        struct source *s = &p->sources[id];
        if (s->polled)
            uv_close((uv_handle_t *)&s->poll, on_source_closed);
        if (s->fd >= 0)
            close(s->fd);
    }
    uv_close((uv_handle_t *)&p->timer, on_closed);
}
