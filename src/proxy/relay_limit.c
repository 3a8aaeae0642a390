/* The limits on the time of one answer: to its first byte, between two pieces of it, of all of it. Layer
 * proxy; loop thread only.
 *
 * The connection's timer, which is free while it is busy, stands at the first of the limits that can run out;
 * each piece moves it on. The time in which the client takes nothing is not the backend's. Invariant:
 * u->limited ⇒ some limit holds for the request that u carries. */
#include "proxy/proxy_priv.h"

#include "base/mem.h"

/* What ran out is told in these words. */
static const struct limit_words {
    const char *what, *hint;
    enum route_end end; /* a backend that is silent is looked after; one that is slow has failed */
} words[] = {
    [ANSWER_FIRST_BYTE] = {"sent no byte of an answer within",
                           "limits.first_byte sets how long; a long prompt may need more", ROUTE_END_BROKEN},
    [ANSWER_EVENT_GAP] = {"stopped in the middle of its answer for",
                          "limits.event_gap sets how long it may be silent", ROUTE_END_BROKEN},
    [ANSWER_TOTAL] = {"did not complete its answer within",
                      "the model's timeout, or limits.total, sets how long it may take; ask for fewer tokens",
                      ROUTE_END_FAILED},
};

/* 0 = there is none. */
static uint64_t limit_of(const struct up *u, enum answer_limit which)
{
    const struct http_options *o = &u->s->opt;
    const uint64_t door[] = {[ANSWER_FIRST_BYTE] = u->heard_ms ? 0 : o->first_byte_ms,
                             [ANSWER_EVENT_GAP] = u->heard_ms ? o->event_gap_ms : 0,
                             [ANSWER_TOTAL] = o->total_ms};
    uint64_t own = u->c->lease.timeout_ms;
    return which == ANSWER_TOTAL && own ? own : door[which];
}

/* The limit that runs out first, and when; false if there is none. */
static bool first_of(const struct up *u, enum answer_limit *ret_which, uint64_t *ret_ms)
{
    *ret_ms = UINT64_MAX;
    for (unsigned i = 0; i < TABLE_COUNT(words); i++) {
        uint64_t limit = limit_of(u, (enum answer_limit)i);
        uint64_t at = (i == ANSWER_EVENT_GAP ? u->heard_ms : u->sent_ms) + limit;
        if (!limit || at >= *ret_ms)
            continue;
        *ret_ms = at;
        *ret_which = (enum answer_limit)i;
    }
    return *ret_ms != UINT64_MAX;
}

static void arm(struct up *u)
{
    enum answer_limit which;
    uint64_t at, now = uv_now(u->s->loop);
    if (first_of(u, &which, &at))
        wheel_set(&u->s->wheel, &u->timer, at > now ? at - now : 0);
    else
        wheel_clear(&u->timer); /* a reload took it away */
}

void limit_begin(struct up *u)
{
    enum answer_limit which;
    uint64_t at;
    u->sent_ms = uv_now(u->s->loop);
    u->heard_ms = 0;
    u->limited = u->s->opt.first_byte_ms || u->s->opt.event_gap_ms || first_of(u, &which, &at);
    if (u->limited)
        arm(u);
}

void limit_heard(struct up *u)
{
    u->heard_ms = uv_now(u->s->loop);
    arm(u);
}

void limit_ran_out(struct up *u)
{
    enum answer_limit which;
    uint64_t at;
    struct err err;
    if (!u->c || !first_of(u, &which, &at))
        return;
    if (which != ANSWER_TOTAL && conn_pending(u->c)) {
        limit_heard(u);
        return;
    }
    const struct limit_words *w = &words[which];
    uint64_t ms = limit_of(u, which);
    (void)err_set(&err, RC_TIMEOUT, "the backend of model %s %s %llu.%llu s", u->c->lease.model, w->what,
                  (unsigned long long)(ms / 1000), (unsigned long long)(ms % 1000 / 100));
    err_hint(&err, "%s", w->hint);
    relay_too_late(u, w->end, &err);
}
