/* Sending a request again that was not served. Layer proxy; loop thread only. When that may be is decided in
 * retry.h; here is what has to be given back and called for it. */
#include "proxy/proxy_priv.h"

#include "base/clock.h"
#include "base/mem.h"
#include "proxy/retry.h"

/* Of the time that the answer has. */
static uint64_t left_ms(const struct conn *c)
{
    uint64_t total = c->lease.timeout_ms ? c->lease.timeout_ms : c->s->opt.total_ms;
    uint64_t spent = (clock_mono_us() - c->t_head) / 1000;
    return !total ? UINT64_MAX : spent < total ? total - spent : 0;
}

static struct retry_plan decide(const struct conn *c, enum retry_failure failure, int status,
                                uint64_t retry_after_s)
{
    const struct http_options *o = &c->s->opt;
    const struct retry_limits limits = {
        .max = o->retry_max, .base_ms = o->retry_base_ms, .longest_ms = o->retry_longest_ms};
    const struct retry_case it = {.failure = failure,
                                  .status = status,
                                  .retry_after_s = retry_after_s,
                                  .elsewhere = c->lease.remote != NULL,
                                  .others = c->lease.more,
                                  .attempts = c->attempts,
                                  .pauses = c->retries,
                                  .left_ms = left_ms(c),
                                  .seed = str_hash(str_from(c->id_text), 0)};
    return retry_decide(&limits, &it);
}

/* ---- the steps; the lease was given back, but for RETRY_FRESH ---- */

static void pause_first(struct conn *c, uint64_t ms)
{
    c->retries++;
    c->attempts = 0;
    c->phase = PHASE_BACKOFF;
    c->t_wait_from = clock_mono_us();
    conn_deadline(c, ms);
}

static void take_step(struct conn *c, const struct retry_plan *p)
{
    c->s->count.retried++;
    switch (p->step) {
    case RETRY_NOT: break;
    case RETRY_AT_ONCE: relay_acquire(c); break;
    case RETRY_FRESH:
        c->attempts++;
        relay_connect(c, true);
        break;
    case RETRY_OTHERS:
        c->tried |= c->lease.choice;
        relay_acquire(c);
        break;
    case RETRY_LATER: pause_first(c, p->pause_ms); break;
    }
}

void retry_now(struct conn *c)
{
    conn_deadline(c, 0);
    c->t_wait_us += clock_mono_us() - c->t_wait_from;
    relay_acquire(c);
}

/* ---- what failed ---- */

bool retry_unsent(struct conn *c, bool untrusted)
{
    const struct retry_plan p = decide(c, untrusted ? RETRY_UNTRUSTED : RETRY_UNREACHED, 0, 0);
    if (p.step == RETRY_NOT)
        return false;
    relay_give_back(c, ROUTE_END_BROKEN);
    take_step(c, &p);
    return true;
}

bool retry_closed(struct conn *c, bool unanswered)
{
    const struct retry_plan p = decide(c, unanswered && !c->ghost ? RETRY_CLOSED : RETRY_BEGUN, 0, 0);
    if (p.step == RETRY_NOT)
        return false;
    take_step(c, &p);
    return true;
}

/* Seconds only: dates are as good as the clocks on both sides. */
static uint64_t asked_pause_s(const struct up *u)
{
    uint64_t s = 0;
    struct str text = head_get(&u->in->head, u->in->data, HDR_RETRY_AFTER);
    return str_u64(str_trim(text), &s) && s < 86400 ? s : 0;
}

bool retry_unserved(struct up *u)
{
    struct conn *c = u->c;
    int status = llhttp_get_status_code(&u->parser);
    if (!retry_says_unserved(status))
        return false;
    bool whole = c->in && !c->ghost && !c->forwarded && !u->n_iov; /* we have it, and it was all sent */
    const struct retry_plan p = decide(c, whole ? RETRY_ANSWERED : RETRY_BEGUN, status, asked_pause_s(u));
    if (p.rest_s)
        c->lease.rest_s = p.rest_s;
    if (p.step == RETRY_NOT)
        return false;
    c->up = NULL;
    u->c = NULL;
    up_close(u);
    relay_give_back(c, status >= 500 ? ROUTE_END_FAILED : ROUTE_END_FINE);
    take_step(c, &p);
    return true;
}
