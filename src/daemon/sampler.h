/* The sampler: a thread that reads the machine every interval and on demand, and hands immutable snapshots to
 * the loop. Layer daemon; loop thread only but for its own thread. */
#ifndef DAEMON_SAMPLER_H
#define DAEMON_SAMPLER_H

#include "hw/hw.h"

#include <uv.h>

struct sampler;
/* Opens the adapters and takes the first sample in the calling thread, then starts the thread. fresh(arg) is
 * called on the loop when there is a newer snapshot. */
enum rc sampler_start(uv_loop_t *loop, const struct hw_options *options, uint64_t interval_ms,
                      void (*fresh)(void *arg), void *arg, struct sampler **ret_sampler, struct err *err);
void sampler_set_interval(struct sampler *s, uint64_t interval_ms);
/* Asks for a sample soon. */
void sampler_want(struct sampler *s);
/* The latest snapshot; it stays valid until the next call of this function. */
const struct hw_inventory *sampler_latest(struct sampler *s);
/* Ends the thread (waits for a sample under way) and closes the handle; the memory is freed when the loop has
 * closed it. NULL is fine. */
void sampler_stop(struct sampler *s);

#endif
