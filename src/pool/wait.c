/* Callers that wait for a model: see pool_priv.h. Each is told once, then forgotten; a callback may cancel
 * others or ask again, so the list is looked at anew after every call. */
#include "pool/pool_priv.h"

#include <stdio.h>
#include <string.h>

struct pool_wait *wait_add(struct entry *e, pool_acquire_cb acquire, pool_done_cb done, void *arg)
{
    struct pool_wait *w = mem_new(struct pool_wait);
    w->entry = e;
    w->acquire = acquire;
    w->done = done;
    w->arg = arg;
    w->since_ms = e->pool->deps.now_ms();
    w->round = e->round;
    w->prev = e->wait_last;
    if (e->wait_last)
        e->wait_last->next = w;
    else
        e->wait_first = w;
    e->wait_last = w;
    e->n_waiting++;
    pool_retime(e->pool);
    return w;
}

static void unlink_wait(struct pool_wait *w)
{
    struct entry *e = w->entry;
    if (w->prev)
        w->prev->next = w->next;
    else
        e->wait_first = w->next;
    if (w->next)
        w->next->prev = w->prev;
    else
        e->wait_last = w->prev;
    e->n_waiting--;
}

void wait_remove(struct pool_wait *w)
{
    struct pool *p = w->entry->pool;
    unlink_wait(w);
    free(w);
    pool_retime(p);
}

void lease_describe(const struct pool_instance *i, struct pool_lease *l)
{
    *l = (struct pool_lease){.port = i->port,
                             .serial = i->serial,
                             .wake_member = i->pool->deps.runtime->wake_member,
                             .wake_event = i->pool->deps.runtime->wake_event,
                             .collect_members = i->pool->deps.runtime->collect_members,
                             .speaks = i->pool->deps.runtime->speaks};
    snprintf(l->instance, sizeof l->instance, "%s", i->id);
    snprintf(l->model, sizeof l->model, "%s", i->model);
    snprintf(l->host, sizeof l->host, "127.0.0.1");
}

void lease_fill(struct pool_instance *i, struct pool_lease *l)
{
    lease_describe(i, l);
    i->busy++;
    i->leases++;
    i->last_used_ms = i->pool->deps.now_ms();
    if (i->busy > 1)
        i->crowded_ms = i->last_used_ms;
    if (i->timer_for == TIMER_TTL) {
        uv_timer_stop(&i->timer);
        i->timer_for = TIMER_NONE;
    }
}

/* The callbacks run with w already unlinked; the entry may be gone after any of them. The analyser does not
 * see that unlink_wait moves wait_first on, so the loops below look to it as if they met a freed w again. */
static void tell(struct pool_wait *w, enum rc rc, const struct pool_lease *lease, const struct err *err,
                 uint32_t retry_after_s)
{
    if (w->acquire)
        w->acquire(w->arg, rc, lease, err, retry_after_s);
    else if (w->done)
        w->done(w->arg, rc, err);
    free(w);
}

void wait_grant_all(struct entry *e)
{
    struct pool_instance *i = e->current;
    while (i->state == POOL_READY && !i->suspect && i->entry == e && e->wait_first) {
        struct pool_wait *w = e->wait_first;
        struct pool_lease lease;
        unlink_wait(w); /* NOLINT(clang-analyzer-unix.Malloc) */
        if (w->acquire) {
            lease_fill(i, &lease);
            tell(w, RC_OK, &lease, NULL, 0);
        } else {
            tell(w, RC_OK, NULL, NULL, 0);
        }
    }
    pool_retime(i->pool);
}

/* Callers that ask again during a callback start anew and must not be failed here. */
void wait_fail_all(struct entry *e, enum rc rc, const struct err *err, uint32_t retry_after_s)
{
    struct pool *p = e->pool;
    uint64_t round = e->round++;
    struct err copy = *err;
    copy.code = rc;
    while (e->wait_first && e->wait_first->round <= round) { /* NOLINT(clang-analyzer-unix.Malloc) */
        struct pool_wait *w = e->wait_first;
        unlink_wait(w);
        tell(w, rc, NULL, &copy, retry_after_s);
    }
    pool_retime(p);
}

void wait_expire(struct entry *e)
{
    struct pool *p = e->pool;
    uint64_t limit = p->opt.queue_wait_ms, now = p->deps.now_ms();
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
    while (limit && e->wait_first && now - e->wait_first->since_ms >= limit) {
        struct pool_wait *w = e->wait_first;
        struct err err;
        unlink_wait(w);
        enum rc rc = err_set(&err, RC_BUSY, "model %s was not ready within %llu s", e->id,
                             (unsigned long long)(limit / 1000));
        err_hint(&err, "ask again: the load goes on; queue_wait sets how long a request waits");
        p->count.refused++;
        tell(w, rc, NULL, &err, load_retry_after_s(e));
    }
}
