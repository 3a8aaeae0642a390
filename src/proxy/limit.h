/* What one key may ask for: requests a minute, tokens a minute, requests at a time. Layer proxy; loop thread
 * only; no clock of its own: every call is told the time.
 *
 * A minute's amount is a bucket that fills evenly and holds a minute's worth at most, so a key may spend it
 * at once and then gets it back bit by bit. Requests are paid for when they come; tokens when the answer
 * tells how many there were, so that bucket may be in debt: what comes next is refused until the debt is
 * paid. */
#ifndef PROXY_LIMIT_H
#define PROXY_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#define LIMIT_MAX_PER_MINUTE 1000000000u

struct limit_bucket {
    uint32_t per_minute; /* 0 = no limit */
    int64_t level;       /* in 1/60,000,000: what one a minute gives in a microsecond */
    uint64_t at_us;      /* when level was right */
};

enum limit_kind { LIMIT_NONE, LIMIT_REQUESTS, LIMIT_TOKENS, LIMIT_CONCURRENCY };

struct limits {
    struct limit_bucket requests, tokens;
    uint32_t concurrency; /* 0 = no limit */
    uint32_t running;
    uint64_t mean_us; /* how long its latest requests took; 0 = unknown */
};

/* Sets what is allowed. What was spent stays spent: a key that is changed gets no new minute. */
void limits_set(struct limits *l, uint32_t requests, uint32_t tokens, uint32_t concurrency, uint64_t now_us);
/* LIMIT_NONE: the request counts as running until limits_end. Else which limit forbids it, and when it may be
 * asked again; nothing was taken. */
enum limit_kind limits_begin(struct limits *l, uint64_t now_us, uint64_t *ret_wait_us);
/* A request that began at begin_us has ended, and took so many tokens. */
void limits_end(struct limits *l, uint64_t tokens, uint64_t begin_us, uint64_t now_us);

/* What is left now (0 in debt), and how long until it is all there again. */
uint64_t limit_left(const struct limit_bucket *b, uint64_t now_us);
uint64_t limit_reset_us(const struct limit_bucket *b, uint64_t now_us);

#endif
