/* Limits of a key: see limit.h. Layer proxy; loop thread only. Invariant: |level| ≤ what a minute gives, so
 * the products below stay within 63 bits (10⁹ a minute × 6·10⁷ µs, a few times). */
#include "proxy/limit.h"

#define ONE       INT64_C(60000000) /* one request or token, in the unit of level */
#define MINUTE_US UINT64_C(60000000)

static int64_t full(const struct limit_bucket *b)
{
    return (int64_t)b->per_minute * ONE;
}

static int64_t level_at(const struct limit_bucket *b, uint64_t now_us)
{
    uint64_t passed = now_us > b->at_us ? now_us - b->at_us : 0;
    if (passed > 2 * MINUTE_US) /* pays the deepest debt and fills the bucket */
        passed = 2 * MINUTE_US;
    int64_t level = b->level + (int64_t)passed * b->per_minute;
    return level < full(b) ? level : full(b);
}

/* Nobody is locked out for longer than a minute. */
static int64_t bounded_debt(const struct limit_bucket *b, int64_t level)
{
    return level > -full(b) ? level : -full(b);
}

static void settle(struct limit_bucket *b, uint64_t now_us)
{
    b->level = level_at(b, now_us);
    b->at_us = now_us;
}

static void set(struct limit_bucket *b, uint32_t per_minute, uint64_t now_us)
{
    if (per_minute > LIMIT_MAX_PER_MINUTE)
        per_minute = LIMIT_MAX_PER_MINUTE;
    settle(b, now_us);
    int64_t spent = full(b) - b->level;
    b->per_minute = per_minute;
    b->level = bounded_debt(b, full(b) - spent);
}

static void take(struct limit_bucket *b, uint64_t n, uint64_t now_us)
{
    if (!b->per_minute)
        return;
    settle(b, now_us);
    int64_t cost = n < (uint64_t)b->per_minute * 2 ? (int64_t)n * ONE : 2 * full(b);
    b->level = bounded_debt(b, b->level - cost);
}

/* Until the level has reached `want`. */
static uint64_t until(const struct limit_bucket *b, int64_t want, uint64_t now_us)
{
    int64_t missing = want - level_at(b, now_us);
    return missing > 0 ? (uint64_t)((missing + b->per_minute - 1) / b->per_minute) : 0;
}

void limits_set(struct limits *l, uint32_t requests, uint32_t tokens, uint32_t concurrency, uint64_t now_us)
{
    set(&l->requests, requests, now_us);
    set(&l->tokens, tokens, now_us);
    l->concurrency = concurrency;
}

enum limit_kind limits_begin(struct limits *l, uint64_t now_us, uint64_t *ret_wait_us)
{
    uint64_t requests = l->requests.per_minute ? until(&l->requests, ONE, now_us) : 0;
    uint64_t tokens = l->tokens.per_minute ? until(&l->tokens, ONE, now_us) : 0;
    *ret_wait_us = requests > tokens ? requests : tokens;
    if (tokens && tokens >= requests)
        return LIMIT_TOKENS;
    if (requests)
        return LIMIT_REQUESTS;
    if (l->concurrency && l->running >= l->concurrency) {
        *ret_wait_us = l->mean_us / l->concurrency; /* one of those that run ends on average after so long */
        return LIMIT_CONCURRENCY;
    }
    take(&l->requests, 1, now_us);
    l->running++;
    return LIMIT_NONE;
}

void limits_end(struct limits *l, uint64_t tokens, uint64_t begin_us, uint64_t now_us)
{
    uint64_t took = now_us > begin_us ? now_us - begin_us : 0;
    l->running--;
    take(&l->tokens, tokens, now_us);
    l->mean_us = l->mean_us ? l->mean_us - l->mean_us / 8 + took / 8 : took;
}

uint64_t limit_left(const struct limit_bucket *b, uint64_t now_us)
{
    int64_t level = level_at(b, now_us);
    return level > 0 ? (uint64_t)(level / ONE) : 0;
}

uint64_t limit_reset_us(const struct limit_bucket *b, uint64_t now_us)
{
    return b->per_minute ? until(b, full(b), now_us) : 0;
}
