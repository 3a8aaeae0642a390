/* One turn's output, sent together. Layer proxy; loop thread only.
 *
 * What the sockets that became readable in one turn of the loop brought is kept until all of them were read,
 * and is then sent in one go. A send wakes the receiving process; sends close behind each other find it
 * awake, which costs the kernel a third of what a wake-up for each of them does (figures:
 * docs/benchmarks.md). The bytes lie in one block that starts anew with each turn, so a small batch stays in
 * the cache. Nothing waits longer than the turn: the batch goes out when it is full, or in the check phase,
 * which follows the poll phase at once. Invariant: late != 0 ⇔ the object is in its list; deferring is true
 * in the poll phase only. */
#include "proxy/proxy_priv.h"

char *batch_room(struct http_server *s, size_t n)
{
    if (ARENA_BYTES - s->arena_at < n)
        batch_flush(s);
    return s->arena + s->arena_at;
}

void batch_keep(struct http_server *s, const char *end)
{
    size_t at = ((size_t)(end - s->arena) + 63) & ~(size_t)63;
    if (at > s->arena_at)
        s->arena_at = at < ARENA_BYTES ? at : ARENA_BYTES;
}

void batch_begin(struct http_server *s)
{
    s->deferring = !s->timer_closed;
}

bool batch_conn(struct conn *c, struct str bytes)
{
    struct http_server *s = c->s;
    if (!s->deferring || conn_pending(c) || s->n_late_conns == BATCH_MAX)
        return false;
    c->late_bytes = bytes;
    s->late_conns[s->n_late_conns++] = c;
    c->late = s->n_late_conns;
    return true;
}

bool batch_up(struct up *u)
{
    struct http_server *s = u->s;
    if (!s->deferring || s->n_late_ups == BATCH_MAX)
        return false;
    s->late_ups[s->n_late_ups++] = u;
    u->late = s->n_late_ups;
    return true;
}

void batch_forget_conn(struct conn *c)
{
    if (c->late)
        c->s->late_conns[c->late - 1] = NULL;
    c->late = 0;
}

void batch_forget_up(struct up *u)
{
    if (u->late)
        u->s->late_ups[u->late - 1] = NULL;
    u->late = 0;
}

void batch_flush_conn(struct conn *c)
{
    if (!c->late)
        return;
    batch_forget_conn(c);
    response_send(c, &(struct iovec){(void *)(uintptr_t)c->late_bytes.p, c->late_bytes.n}, 1);
}

void batch_flush(struct http_server *s)
{
    bool deferring = s->deferring;
    s->deferring = false; /* what follows from a send is sent at once */
    for (uint32_t i = 0; i < s->n_late_ups; i++) {
        struct up *u = s->late_ups[i];
        if (!u)
            continue;
        batch_forget_up(u); /* a failed send may end in another flush */
        relay_send_now(u);
    }
    s->n_late_ups = 0;
    for (uint32_t i = 0; i < s->n_late_conns; i++)
        if (s->late_conns[i])
            batch_flush_conn(s->late_conns[i]);
    s->n_late_conns = 0;
    s->arena_at = 0;
    s->deferring = deferring;
}
