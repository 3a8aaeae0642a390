/* How long an instance keeps its place against models that wait: see pool_priv.h. Layer pool; loop thread.
 *
 * From when it is ready an instance has a term: the option min_residence_ms, or as long as its load took and
 * at least TERM_LEAST_MS; never longer than waiting models are patient. Within its term
 *
 *   - one in use is not asked to leave, however long others have waited: every swap is followed by service
 *     that is worth it, in which all that wait for the model are served together (ABCABC becomes AABBCC);
 *   - an idle one leaves at once, unless its model came back too soon: it was asked for again while the
 *     instance that it had left for was still loading or at its first work, so that keeping it would have
 *     spared both a swap. Then it stays its term without use, too, until it does so in vain.
 *
 * With a term from the configuration an idle one always stays it. A model that has waited longer than the
 * patience takes the place of idle ones all the same. */
#include "pool/pool_priv.h"

#define TERM_LEAST_MS 10000u

uint64_t residence_term_ms(const struct pool_instance *i)
{
    const struct pool_options *o = &i->pool->opt;
    uint64_t ms = o->min_residence_ms;
    if (ms == UINT64_MAX) {
        uint64_t load_ms = i->load_seconds > 0 ? (uint64_t)(i->load_seconds * 1000) : 0;
        ms = load_ms > TERM_LEAST_MS ? load_ms : TERM_LEAST_MS;
    }
    return o->patience_ms && ms > o->patience_ms ? o->patience_ms : ms;
}

/* 0 = it has none. */
static uint64_t end_ms(const struct pool_instance *i)
{
    return i->state == POOL_READY ? i->ready_ms + residence_term_ms(i) : 0;
}

uint64_t residence_left_ms(const struct pool_instance *i)
{
    uint64_t now = i->pool->deps.now_ms(), end = end_ms(i);
    return end > now ? end - now : 0;
}

bool residence_keeps_idle(const struct pool_instance *i)
{
    bool always = i->pool->opt.min_residence_ms != UINT64_MAX;
    return (always || (i->entry && i->entry->lead->came_back)) && residence_left_ms(i) > 0;
}

bool residence_ended_since(const struct pool *p, uint64_t since_ms)
{
    uint64_t now = p->deps.now_ms();
    for (const struct pool_instance *i = p->instances; i; i = i->next) {
        uint64_t end = end_ms(i);
        if (end > since_ms && end <= now)
            return true;
    }
    return false;
}

void residence_left_for(struct pool_instance *i, const struct pool_instance *other)
{
    struct entry *lead = i->entry ? i->entry->lead : NULL;
    if (!lead)
        return;
    if (!i->returned) /* it stayed in vain, if it stayed */
        lead->came_back = false;
    lead->left_for = other->serial;
    lead->left_ms = i->pool->deps.now_ms();
    lead->left_term_ms = residence_term_ms(i);
}

/* It has not done yet what it was loaded for. */
static bool is_at_work(const struct pool *p, uint64_t serial)
{
    for (const struct pool_instance *i = p->instances; i; i = i->next)
        if (i->serial == serial)
            return i->state == POOL_PLANNED || i->state == POOL_STARTING ||
                   (i->state == POOL_READY && !i->rested);
    return false;
}

void residence_wanted(struct entry *lead)
{
    const struct pool *p = lead->pool;
    if (lead->left_for && p->deps.now_ms() - lead->left_ms < lead->left_term_ms &&
        is_at_work(p, lead->left_for))
        lead->came_back = true;
    lead->left_for = 0;
}
