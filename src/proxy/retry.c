/* The rules of sending again: see retry.h. Layer proxy; pure. */
#include "proxy/retry.h"

#include "base/mem.h"

#define FRESH_ATTEMPTS 3u /* connections that were closed under the request, in a row */
#define ROUTE_ATTEMPTS 2u /* instances that could not be reached, in a row */

bool retry_says_unserved(int status)
{
    static const int statuses[] = {429, 503, 529};
    for (size_t i = 0; i < TABLE_COUNT(statuses); i++)
        if (statuses[i] == status)
            return true;
    return false;
}

/* splitmix64's finisher: neighbouring seeds give pauses that have nothing in common. */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

uint64_t retry_pause_ms(const struct retry_limits *l, uint32_t n, uint64_t seed)
{
    uint64_t ms = l->base_ms;
    for (uint32_t i = 0; i < n && ms < l->longest_ms; i++)
        ms = ms > l->longest_ms / 2 ? l->longest_ms : ms * 2;
    ms = ms < l->longest_ms ? ms : l->longest_ms;
    return ms - mix(seed + n) % (ms / 2 + 1);
}

static struct retry_plan later(const struct retry_limits *l, const struct retry_case *c, uint64_t ms)
{
    bool may = c->pauses < l->max && ms <= l->longest_ms && ms < c->left_ms;
    return may ? (struct retry_plan){.step = RETRY_LATER, .pause_ms = ms} : (struct retry_plan){0};
}

/* Nothing was sent: whoever else may serve it is as good. */
static struct retry_plan unreached(const struct retry_limits *l, const struct retry_case *c)
{
    if (!c->elsewhere && c->attempts < ROUTE_ATTEMPTS)
        return (struct retry_plan){.step = RETRY_AT_ONCE};
    if (c->others)
        return (struct retry_plan){.step = RETRY_OTHERS};
    return later(l, c, retry_pause_ms(l, c->pauses, c->seed));
}

/* The server is there and will have room: it is waited for, others are asked when that takes too long. */
static struct retry_plan answered(const struct retry_limits *l, const struct retry_case *c)
{
    if (!retry_says_unserved(c->status))
        return (struct retry_plan){.step = RETRY_NOT};
    uint64_t ms = retry_pause_ms(l, c->pauses, c->seed);
    uint64_t asked_ms = c->retry_after_s < UINT32_MAX ? c->retry_after_s * 1000 : UINT64_MAX;
    ms = asked_ms > ms ? asked_ms : ms;
    struct retry_plan p = later(l, c, ms);
    if (p.step == RETRY_NOT && c->others)
        p.step = RETRY_OTHERS;
    if (ms > l->longest_ms)
        p.rest_s = c->retry_after_s < UINT32_MAX ? (uint32_t)c->retry_after_s : UINT32_MAX;
    return p;
}

struct retry_plan retry_decide(const struct retry_limits *l, const struct retry_case *c)
{
    switch (c->failure) {
    case RETRY_UNREACHED: return unreached(l, c);
    case RETRY_UNTRUSTED: return (struct retry_plan){.step = c->others ? RETRY_OTHERS : RETRY_NOT};
    case RETRY_CLOSED:
        return (struct retry_plan){.step = c->attempts < FRESH_ATTEMPTS ? RETRY_FRESH : RETRY_NOT};
    case RETRY_ANSWERED: return answered(l, c);
    case RETRY_BEGUN:
    case RETRY_FAILURES: break;
    }
    return (struct retry_plan){.step = RETRY_NOT};
}
