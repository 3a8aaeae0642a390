/* The breaker: see breaker.h. Layer pool; pure. */
#include "pool/breaker.h"

const char *breaker_state_word(enum breaker_state s)
{
    static const char *const words[BREAKER_STATES] = {
        [BREAKER_CLOSED] = "closed", [BREAKER_OPEN] = "open", [BREAKER_HALF_OPEN] = "half_open"};
    return (unsigned)s < BREAKER_STATES ? words[s] : "unknown";
}

enum breaker_state breaker_state(const struct breaker *b, uint64_t now_ms)
{
    if (!b->open)
        return BREAKER_CLOSED;
    return now_ms < b->until_ms ? BREAKER_OPEN : BREAKER_HALF_OPEN;
}

bool breaker_lets(const struct breaker *b, uint64_t now_ms)
{
    return !b->open || (now_ms >= b->until_ms && !b->probing);
}

void breaker_sent(struct breaker *b, uint64_t now_ms)
{
    if (breaker_state(b, now_ms) == BREAKER_HALF_OPEN)
        b->probing = true;
}

static uint64_t open_ms(uint32_t trips, uint64_t spread)
{
    uint64_t ms = BREAKER_FIRST_MS;
    while (trips-- > 0 && ms < BREAKER_MAX_MS)
        ms *= 2;
    if (ms > BREAKER_MAX_MS)
        ms = BREAKER_MAX_MS;
    return ms - ms / 4 + spread % (ms / 2 + 1);
}

/* What was sent before it opened and fails now tells nothing new: only the probe opens it again. */
bool breaker_ended(struct breaker *b, enum breaker_end end, uint64_t now_ms, uint64_t spread)
{
    switch (end) {
    case BREAKER_SUCCESS: *b = (struct breaker){0}; return false;
    case BREAKER_NOTHING: b->probing = false; return false;
    case BREAKER_FAILURE: break;
    }
    if (b->open ? !b->probing : ++b->failures < BREAKER_FAILURES)
        return false;
    b->open = true;
    b->probing = false;
    b->until_ms = now_ms + open_ms(b->trips, spread);
    b->trips++;
    return true;
}

uint64_t breaker_wait_ms(const struct breaker *b, uint64_t now_ms)
{
    return b->open && now_ms < b->until_ms ? b->until_ms - now_ms : 0;
}
