/* How servers are asked whether they are well: GET of a path, for its status code alone. Layer pool; loop
 * thread. */
#ifndef POOL_HEALTH_H
#define POOL_HEALTH_H

#include "pool/call.h"

#define HEALTH_LIMIT_MS 2000u
#define HEALTH_UNASKED  CALL_UNASKED

/* See call_start and call_cancel. */
static inline struct call *health_get(uv_loop_t *loop, const char *address, uint16_t port, const char *path,
                                      call_cb cb, void *arg)
{
    const struct call_spec spec = {
        .address = address, .port = port, .method = "GET", .path = path, .limit_ms = HEALTH_LIMIT_MS};
    return call_start(loop, &spec, cb, arg);
}

#endif
