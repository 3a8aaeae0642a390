/* Callers that wait for a model: see pool_priv.h. Requests stand in the model's line, for a slot of a ready
 * instance; those that only want it loaded stand beside it. Each is told once, then forgotten; a callback may
 * cancel others or ask again, so the lists are looked at anew after every call. */
#include "pool/pool_priv.h"

#include <stdio.h>
#include <string.h>

static struct pool_wait *wait_of(const struct line_spot *s)
{
    return container_of((struct line_spot *)(uintptr_t)s, struct pool_wait, spot);
}

uint32_t wait_count(const struct entry *e)
{
    return e->lead->n_waiting;
}

static struct pool_wait *wait_new(struct entry *lead, void *arg)
{
    struct pool_wait *w = mem_new(struct pool_wait);
    w->entry = lead;
    w->arg = arg;
    w->since_ms = lead->pool->deps.now_ms();
    w->round = lead->round;
    lead->n_waiting++;
    lead->pool->n_waiting++;
    return w;
}

struct pool_wait *wait_add(struct entry *e, pool_acquire_cb acquire, pool_done_cb done, void *arg)
{
    struct entry *lead = e->lead;
    struct pool_wait *w = wait_new(lead, arg);
    w->acquire = acquire;
    w->done = done;
    w->prev = lead->wait_last;
    if (lead->wait_last)
        lead->wait_last->next = w;
    else
        lead->wait_first = w;
    lead->wait_last = w;
    pool_retime(lead->pool);
    return w;
}

/* Four characters a token, as in English text; LINE_COST_TOKENS of them are one unit of a turn. */
static uint32_t cost_of(uint64_t prompt_bytes)
{
    uint64_t units = 1 + prompt_bytes / 4 / WAIT_COST_TOKENS;
    return units < LINE_COST_MAX ? (uint32_t)units : LINE_COST_MAX;
}

struct pool_wait *wait_in_line(struct entry *e, const struct pool_request *r, pool_acquire_cb acquire,
                               void *arg)
{
    struct entry *lead = e->lead;
    struct pool_wait *w = wait_new(lead, arg);
    w->acquire = acquire;
    w->since_ms -= r->waited_ms < w->since_ms ? r->waited_ms : w->since_ms;
    if (!lead->line)
        lead->line = line_new();
    line_add(lead->line, &w->spot, r->key, r->band, cost_of(r->prompt_bytes), lead->pool->deps.now_ms());
    pool_retime(lead->pool);
    return w;
}

static void unlink_wait(struct pool_wait *w)
{
    struct entry *e = w->entry;
    e->n_waiting--;
    e->pool->n_waiting--;
    if (w->spot.flow) {
        line_remove(e->line, &w->spot);
        return;
    }
    if (w->prev)
        w->prev->next = w->next;
    else
        e->wait_first = w->next;
    if (w->next)
        w->next->prev = w->prev;
    else
        e->wait_last = w->prev;
}

void wait_drop(struct pool_wait *w)
{
    free(w->prefix);
    free(w);
}

struct pool_wait *wait_aside(struct entry *e, pool_acquire_cb acquire, void *arg)
{
    struct pool_wait *w = mem_new(struct pool_wait);
    w->entry = e->lead;
    w->acquire = acquire;
    w->arg = arg;
    return w;
}

void wait_remove(struct pool_wait *w)
{
    struct pool *p = w->entry->pool;
    unlink_wait(w);
    wait_drop(w);
    pool_retime(p);
}

/* The callbacks run with w already unlinked; the entry may be gone after any of them. The analyser does not
 * see that unlink_wait moves wait_first on, so the loops below look to it as if they met a freed w again. */
void wait_tell(struct pool_wait *w, enum rc rc, const struct pool_lease *lease, const struct err *err,
               uint32_t retry_after_s)
{
    if (w->acquire)
        w->acquire(w->arg, rc, lease, err, retry_after_s);
    else if (w->done)
        w->done(w->arg, rc, err);
    wait_drop(w);
}

/* Those beside the line take no slot. */
static void serve_load(struct entry *lead)
{
    struct pool_instance *i = lease_pick(lead, NULL, true);
    while (i && lead->wait_first) {
        struct pool_wait *w = lead->wait_first;
        struct pool_lease lease;
        unlink_wait(w); /* NOLINT(clang-analyzer-unix.Malloc) */
        if (w->acquire)
            lease_fill(i, true, &lease);
        wait_tell(w, RC_OK, w->acquire ? &lease : NULL, NULL, 0);
        if (!i->entry || i->entry->lead != lead)
            return;
        i = lease_pick(lead, NULL, true);
    }
}

static void serve_line(struct entry *lead)
{
    struct pool *p = lead->pool;
    const struct line_bounds bounds = {p->opt.starvation_ms, p->opt.max_overtaken};
    while (line_length(lead->line) > 0) {
        struct pool_instance *i = lease_pick(lead, NULL, false);
        if (!i)
            return;
        struct line_spot *s = line_take(lead->line, &bounds, p->deps.now_ms());
        struct pool_wait *w = wait_of(s);
        struct pool_lease lease;
        lead->n_waiting--;
        p->n_waiting--;
        p->count.line_grants[w->band]++;
        if (lead->turned_away > 0)
            lead->turned_away--;
        if (w->prefix && lead->prefixes)
            prefix_put(lead->prefixes, w->prefix, i->serial);
        lease_fill(i, false, &lease);
        lease.position = w->position;
        lease.expected_ms = w->expected_ms;
        if (w->prefix && kv_starts(i, w->prefix, &lease))
            (void)kv_restore(i, &lease, w);
        else
            wait_tell(w, RC_OK, &lease, NULL, 0);
        if (!i->entry || i->entry->lead != lead)
            return;
    }
    lead->told_full = false;
}

void wait_serve(struct entry *e)
{
    struct pool *p = e->pool;
    struct entry *lead = e->lead;
    if (lead->n_waiting == 0)
        return;
    if (lead->wait_first)
        serve_load(lead);
    if (entry_is_known(p, lead))
        serve_line(lead);
    pool_retime(p);
}

/* Callers that ask again during a callback start anew and must not be failed here. */
static struct pool_wait *first_of(const struct entry *e, uint64_t round)
{
    const struct pool_wait *first = e->wait_first;
    if (first && first->round <= round) /* NOLINT(clang-analyzer-unix.Malloc) */
        return e->wait_first;
    struct line_spot *s = line_oldest(e->line);
    return s && wait_of(s)->round <= round ? wait_of(s) : NULL;
}

void wait_fail_all(struct entry *e, enum rc rc, const struct err *err, uint32_t retry_after_s)
{
    struct pool *p = e->pool;
    struct entry *lead = e->lead;
    struct pool_wait *w;
    uint64_t round = lead->round++;
    struct err copy = *err;
    copy.code = rc;
    while ((w = first_of(lead, round))) { /* NOLINT(clang-analyzer-unix.Malloc) */
        unlink_wait(w);
        wait_tell(w, rc, NULL, &copy, retry_after_s);
    }
    pool_retime(p);
}

/* Not by order of arrival: who asks again after a failed attempt has waited before. */
static struct pool_wait *expired(const struct entry *e, uint64_t limit, uint64_t now)
{
    for (struct pool_wait *w = e->wait_first; w; w = w->next)
        if (now - w->since_ms >= limit)
            return w;
    for (struct line_spot *s = line_oldest(e->line); s; s = s->newer)
        if (now - wait_of(s)->since_ms >= limit)
            return wait_of(s);
    return NULL;
}

void wait_expire(struct entry *lead)
{
    struct pool *p = lead->pool;
    struct pool_wait *w;
    uint64_t limit = p->opt.queue_wait_ms;
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
    while (limit && lead->n_waiting && (w = expired(lead, limit, p->deps.now_ms()))) {
        struct err err;
        bool loaded = lease_is_ready(lead);
        uint32_t retry = lease_retry_after_s(lead);
        unlink_wait(w);
        enum rc rc = err_set(&err, RC_BUSY,
                             loaded ? "model %s had no free slot within %llu s"
                                    : "model %s was not ready within %llu s",
                             lead->id, (unsigned long long)(limit / 1000));
        err_hint(
            &err,
            loaded
                ? "ask again later; queue_wait sets how long a request waits, parallel how many run at a time"
                : "ask again: the load goes on; queue_wait sets how long a request waits");
        p->count.refused++;
        wait_tell(w, rc, NULL, &err, retry);
    }
}
