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
/* Where samples come from, if not from the machine. The thread calls sample; close is called once, by whoever
 * of the loop and the thread is the last. */
struct sampler_source {
    void *arg;
    enum rc (*sample)(void *arg, struct hw_inventory *ret_inventory, struct err *err);
    void (*close)(void *arg); /* also when the start fails */
    uint64_t stop_wait_ms;    /* how long sampler_stop waits for a sample under way; 0 = 2 s */
};
enum rc sampler_start_with(uv_loop_t *loop, const struct sampler_source *source, uint64_t interval_ms,
                           void (*fresh)(void *arg), void *arg, struct sampler **ret_sampler,
                           struct err *err);
void sampler_set_interval(struct sampler *s, uint64_t interval_ms);
/* Asks for a sample soon. */
void sampler_want(struct sampler *s);
/* The latest snapshot; it stays valid until the next call of this function. */
const struct hw_inventory *sampler_latest(struct sampler *s);
/* Ends the thread and closes the handle; the memory is freed when the loop has closed it. A sample under way
 * is waited for, but not for ever: a thread that hangs in a driver's library is left behind with what it
 * uses, and the answer is false: the source is not closed. NULL is fine. */
bool sampler_stop(struct sampler *s);

#endif
