/* Sending a request again that was not served. Layer proxy; loop thread only.
 *
 * Only where no byte of it can have been worked on: no connection could be made, or the head of the answer
 * says so itself (a limit, no room). First those are asked that may serve it as well; where there is nobody
 * else, the same is done again after a pause, at most retry_max times, and never past the time that the
 * answer has. A pause doubles each time and is shortened by a random part, so that those who were sent away
 * together do not come back together; it is at least what Retry-After asks for. */
#include "proxy/proxy_priv.h"

#include "base/clock.h"
#include "base/mem.h"

/* Answers by which a server says that it has not begun. */
static bool says_unserved(int status)
{
    static const int statuses[] = {429, 503, 529};
    for (size_t i = 0; i < TABLE_COUNT(statuses); i++)
        if (statuses[i] == status)
            return true;
    return false;
}

static uint64_t pause_ms(const struct conn *c)
{
    const struct http_options *o = &c->s->opt;
    uint64_t ms = o->retry_base_ms;
    for (uint8_t i = 0; i < c->retries && ms < o->retry_longest_ms; i++)
        ms *= 2;
    ms = ms < o->retry_longest_ms ? ms : o->retry_longest_ms;
    struct str id = str_from(c->id_text);
    return ms - str_hash(id, c->retries) % (ms / 2 + 1);
}

/* Whether the answer could still come in time. */
static bool in_time(const struct conn *c, uint64_t more_ms)
{
    uint64_t total = c->lease.timeout_ms ? c->lease.timeout_ms : c->s->opt.total_ms;
    return !total || (clock_mono_us() - c->t_head) / 1000 + more_ms < total;
}

static bool pause_then_retry(struct conn *c, uint64_t ms)
{
    if (c->retries >= c->s->opt.retry_max || ms > c->s->opt.retry_longest_ms || !in_time(c, ms))
        return false;
    c->retries++;
    c->attempts = 0;
    c->s->count.retried++;
    c->phase = PHASE_BACKOFF;
    c->t_wait_from = clock_mono_us();
    conn_deadline(c, ms);
    return true;
}

void retry_now(struct conn *c)
{
    conn_deadline(c, 0);
    c->t_wait_us += clock_mono_us() - c->t_wait_from;
    relay_acquire(c);
}

static void ask_others(struct conn *c)
{
    c->tried |= c->lease.choice;
    c->s->count.retried++;
    relay_acquire(c);
}

bool retry_unsent(struct conn *c)
{
    bool more = c->lease.more;
    uint64_t ms = pause_ms(c);
    bool may = c->retries < c->s->opt.retry_max && in_time(c, ms);
    if (!more && !may)
        return false;
    relay_give_back(c, ROUTE_END_BROKEN);
    if (more)
        ask_others(c);
    else
        (void)pause_then_retry(c, ms);
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
    if (!says_unserved(status) || !c->in || c->ghost || c->forwarded || u->n_iov)
        return false;
    uint64_t asked = asked_pause_s(u), ms = pause_ms(c), longest = c->s->opt.retry_longest_ms;
    ms = asked * 1000 > ms ? asked * 1000 : ms;
    bool more = c->lease.more, again = c->retries < c->s->opt.retry_max && ms <= longest && in_time(c, ms);
    if (ms > longest)
        c->lease.rest_s = (uint32_t)asked;
    if (!more && !again)
        return false;
    c->up = NULL;
    u->c = NULL;
    up_close(u);
    relay_give_back(c, status >= 500 ? ROUTE_END_FAILED : ROUTE_END_FINE);
    if (again)
        (void)pause_then_retry(c, ms);
    else
        ask_others(c);
    return true;
}
