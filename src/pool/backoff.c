/* After a failure a model is left alone for a while: 1 s, twice as long after each further failure, 5 minutes
 * at most. Layer pool; loop thread. See pool_priv.h.
 *
 * The time ends early by a success, by other settings, by an operator's word (pool_load, pool_forgive), and
 * when the model's file has changed since: a request that is refused meanwhile has the file looked at, in the
 * work pool and at most once a second, so that the next one finds the way free. */
#include "pool/pool_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LOOK_MS 1000u /* between two looks at a file */

/* ---- how long ---- */

static uint64_t pause_ms(unsigned failures)
{
    unsigned steps = failures > 0 ? failures - 1 : 0;
    uint64_t ms = steps < 16 ? (uint64_t)POOL_BACKOFF_MS << steps : POOL_BACKOFF_MAX;
    return ms < POOL_BACKOFF_MAX ? ms : POOL_BACKOFF_MAX;
}

static void hold(struct entry *e)
{
    e->retry_at_ms = e->failures ? e->pool->deps.now_ms() + pause_ms(e->failures) : 0;
    e->failed_wall_ms = e->pool->deps.wall_ms();
}

void backoff_failed(struct entry *e)
{
    e->failures++;
    hold(e);
}

void backoff_crashed(struct entry *e)
{
    uint64_t now = e->pool->deps.now_ms();
    e->crashes = e->crashes > 0 && now - e->crashed_ms < POOL_CRASH_MEMORY ? e->crashes + 1 : 1;
    e->crashed_ms = now;
    /* Once may be bad luck: the next request loads it again at once. A series is held back. */
    e->failures = e->crashes - 1;
    hold(e);
}

void backoff_clear(struct entry *e)
{
    e->failures = e->crashes = e->ladder = 0;
    e->retry_at_ms = 0;
}

uint64_t backoff_left_ms(const struct entry *e)
{
    uint64_t now = e->pool->deps.now_ms();
    return e->retry_at_ms > now ? e->retry_at_ms - now : 0;
}

size_t backoff_reason(const struct entry *e, struct plan_reason *ret)
{
    uint64_t ms = backoff_left_ms(e);
    if (!ms)
        return 0;
    reason_set(ret, "held_back",
               "failure %u in a row: no further try for %" PRIu64 ".%" PRIu64
               " s, but by an operator's load or "
               "reset, or a changed file",
               e->failures, ms / 1000, ms % 1000 / 100);
    return 1;
}

/* ---- early ends ---- */

/* All seats of the model; false if none was held back or had anything behind it. */
static bool forgive(struct entry *lead, const char *code, const char *why)
{
    unsigned failures = 0, steps = 0;
    uint64_t left = 0;
    for (struct entry *s = lead; s; s = s->twin) {
        uint64_t ms = backoff_left_ms(s);
        failures += s->failures + s->crashes;
        steps += s->demand == DEMAND_NONE ? s->ladder : 0;
        left = ms > left ? ms : left;
        if (s->current && s->current->breaker.open) {
            s->current->breaker = (struct breaker){0};
            failures++;
        }
        if (s->demand == DEMAND_NONE)
            backoff_clear(s);
    }
    if (!failures && !steps)
        return false;
    struct plan_reason r;
    reason_set(&r, code,
               "%s: it was held back for %" PRIu64 ".%" PRIu64 " s more; the next request tries at once", why,
               left / 1000, left % 1000 / 100);
    decide(lead->pool, "reset", lead, NULL, &r, 1, NULL, 0);
    return true;
}

enum rc pool_forgive(struct pool *p, struct str model, uint32_t *ret_n, struct err *err)
{
    struct entry *one = model.n ? entry_find(p, model) : NULL;
    if (model.n && !one)
        return entry_unknown(p, model, err);
    uint32_t n = 0;
    for (size_t k = 0; k < p->n_entries; k++)
        if (!one || one == p->entries[k])
            n += forgive(p->entries[k], "asked", "a reset was asked for");
    p->room_changed = true;
    pool_kick(p);
    *ret_n = n;
    return RC_OK;
}

/* ---- the file ---- */

struct look {
    uv_fs_t req;
    struct pool *pool;
    char *model;
};

static void on_stat(uv_fs_t *req)
{
    struct look *l = req->data;
    struct pool *p = l->pool;
    const uv_timespec_t *at = &req->statbuf.st_ctim;
    struct entry *e = entry_find(p, str_from(l->model));
    p->n_work--;
    if (e)
        e->looking = false;
    /* the change of the inode, not of the contents: a file that was put there by renaming keeps its date */
    if (e && req->result == 0 && !p->stopping && backoff_left_ms(e) &&
        (int64_t)at->tv_sec * 1000 + at->tv_nsec / 1000000 > e->failed_wall_ms)
        (void)forgive(e, "file_changed", "its file has changed since the failure");
    pool_kick(p);
    uv_fs_req_cleanup(req);
    free(l->model);
    free(l);
}

void backoff_look(struct entry *lead)
{
    struct pool *p = lead->pool;
    uint64_t now = p->deps.now_ms();
    if (lead->looking || p->stopping || (lead->looked_ms && now - lead->looked_ms < LOOK_MS))
        return;
    struct look *l = mem_new(struct look);
    l->pool = p;
    l->model = mem_strdup(lead->id);
    l->req.data = l;
    lead->looked_ms = now;
    if (uv_fs_stat(p->loop, &l->req, lead->path, on_stat) != 0) {
        free(l->model);
        free(l);
        return;
    }
    lead->looking = true;
    p->n_work++;
}
