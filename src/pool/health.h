/* GET of a path, for its status code alone: how servers are asked whether they are well. Layer pool; loop
 * thread. Each question is a connection of its own that ends by answer, error or HEALTH_LIMIT_MS. */
#ifndef POOL_HEALTH_H
#define POOL_HEALTH_H

#include <stdint.h>
#include <uv.h>

#define HEALTH_LIMIT_MS 2000u
#define HEALTH_UNASKED  (-2) /* the question could not be put: we are short of descriptors or memory */

struct health;
typedef void (*health_cb)(void *arg, int http_status); /* -1: no answer */
/* address: numeric, IPv4 or IPv6; path: up to 200 bytes of an origin-form target. cb is called once, never
 * inside this call; the question is gone then. */
struct health *health_get(uv_loop_t *loop, const char *address, uint16_t port, const char *path, health_cb cb,
                          void *arg);
void health_cancel(struct health *h); /* no callback; NULL is fine */

#endif
