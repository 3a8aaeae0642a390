/* One HTTP request to a server of ours or of others, on the loop. Layer pool; loop thread. Each is a
 * connection of its own that ends by answer, error or its limit of time. What is answered in chunks is not
 * understood: servers are asked here for short documents only. */
#ifndef POOL_CALL_H
#define POOL_CALL_H

#include "base/str.h"

#include <stdint.h>
#include <uv.h>

#define CALL_UNASKED (-2) /* it could not be put: we are short of descriptors or memory */

struct call_spec {
    const char *address; /* numeric, IPv4 or IPv6 */
    uint16_t port;
    const char *method, *path; /* path: an origin-form target */
    const char *body;          /* JSON; NULL = none */
    uint64_t limit_ms;
    size_t max_body; /* of the answer's; 0 = its status alone is of interest, and is told at once */
};

struct call;
typedef void (*call_cb)(void *arg,
                        int http_status); /* -1: no answer, or none that is whole within the bounds */
/* cb is called once, never inside this call; the call is gone then. Texts are copied. */
struct call *call_start(uv_loop_t *loop, const struct call_spec *spec, call_cb cb, void *arg);
/* The answer's body; inside the callback only. Borrowed. */
struct str call_body(const struct call *c);
void call_cancel(struct call *c); /* no callback; NULL is fine */

#endif
