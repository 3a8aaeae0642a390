/* Whether a request that failed is sent again, to whom, and after how long. Layer proxy; pure.
 *
 * Only what cannot have been worked on is ever sent again: no connection could be made; a connection that had
 * served before was closed without a byte of an answer, which is how a server ends an idle one just as we use
 * it; or the head of the answer says itself that the request was not begun (429, 503, 529). So no request
 * needs to be idempotent. Nothing is sent again once a byte of another answer came. */
#ifndef PROXY_RETRY_H
#define PROXY_RETRY_H

#include <stdbool.h>
#include <stdint.h>

enum retry_failure {
    RETRY_UNREACHED, /* no connection could be made: nothing was sent */
    RETRY_UNTRUSTED, /* nor will one be in a second */
    RETRY_CLOSED,    /* the connection had served before, and ended without a byte of an answer */
    RETRY_ANSWERED,  /* the head of an answer is there, and all of the request was sent */
    RETRY_BEGUN,     /* anything else: it may have been worked on */
    RETRY_FAILURES
};

struct retry_case {
    enum retry_failure failure;
    int status;             /* of RETRY_ANSWERED */
    uint64_t retry_after_s; /* that the answer asks for; 0 = none */
    bool elsewhere;         /* it went to a server beyond this machine */
    bool others;            /* somebody else may serve it as well */
    uint32_t attempts;      /* so far, without a pause between them; at least 1 */
    uint32_t pauses;        /* so far */
    uint64_t left_ms;       /* of the time that the answer has; UINT64_MAX = no limit */
    uint64_t seed;          /* of the request: the random part of its pauses comes from it */
};

struct retry_limits {
    uint32_t max; /* pauses of a request */
    uint64_t base_ms, longest_ms;
};

enum retry_step {
    RETRY_NOT,
    RETRY_AT_ONCE, /* by the same route: an instance may have moved */
    RETRY_FRESH,   /* to the same server, over a new connection */
    RETRY_OTHERS,  /* to somebody else */
    RETRY_LATER    /* after the pause */
};

struct retry_plan {
    enum retry_step step;
    uint64_t pause_ms; /* of RETRY_LATER */
    uint32_t rest_s;   /* the server asks to be left alone for longer than any pause; 0 = it does not */
};

/* The n-th pause (from 0): base_ms, doubled each time, at most longest_ms, less a random part of up to a
 * half, so that those who were sent away together do not come back together. */
uint64_t retry_pause_ms(const struct retry_limits *l, uint32_t n, uint64_t seed);

/* A status by which a server says that it has not begun. */
bool retry_says_unserved(int status);
struct retry_plan retry_decide(const struct retry_limits *l, const struct retry_case *c);

#endif
