/* A circuit breaker: keeps requests from a backend that answers nothing but errors. Layer pool; pure: the
 * clock is passed in; one owner.
 *
 *   closed     BREAKER_FAILURES failures in a row, with no success between them, open it
 *   open       nobody is let through, for 1 s, twice as long after each further failure, at most 30 s
 *   half open  the time is over: one request is let through; its end closes or opens it again
 *
 * A failure is an answer of 500 to 504 but 501, or a connection that could not be made or died. A client that
 * leaves tells nothing, whatever its answer had become. */
#ifndef POOL_BREAKER_H
#define POOL_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#define BREAKER_FAILURES 5u
#define BREAKER_FIRST_MS 1000u
#define BREAKER_MAX_MS   30000u

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN, BREAKER_STATES };
const char *breaker_state_word(enum breaker_state s); /* "closed", "open", "half_open" */

enum breaker_end { BREAKER_SUCCESS, BREAKER_FAILURE, BREAKER_NOTHING };

struct breaker {        /* all zero is closed */
    uint64_t until_ms;  /* open so long */
    uint32_t failures;  /* in a row */
    uint32_t trips;     /* since the last success */
    bool open, probing; /* probing: the one request is on its way */
};

enum breaker_state breaker_state(const struct breaker *b, uint64_t now_ms);
/* Whether a request may be sent now. */
bool breaker_lets(const struct breaker *b, uint64_t now_ms);
/* A request that it lets through is sent. */
void breaker_sent(struct breaker *b, uint64_t now_ms);
/* A request that was sent has ended. spread: any number, so that not all come back at once: moves the end of
 * the time by up to a quarter. True if this opened it. */
bool breaker_ended(struct breaker *b, enum breaker_end end, uint64_t now_ms, uint64_t spread);
/* Until it may let somebody through; 0 = now. */
uint64_t breaker_wait_ms(const struct breaker *b, uint64_t now_ms);

#endif
