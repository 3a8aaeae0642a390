/* Coarse deadlines for many sockets: a wheel of slots and one libuv timer, set to the earliest slot in use,
 * so that an idle server sleeps. Layer proxy; loop thread only.
 *
 * Moving a deadline later costs two stores: the entry stays in its slot and is moved when that slot comes up.
 * Deadlines fire late by up to WHEEL_TICK_MS, never early. */
#ifndef PROXY_WHEEL_H
#define PROXY_WHEEL_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define WHEEL_TICK_MS 32u
#define WHEEL_SLOTS   512u

struct wheel_entry {
    struct wheel_entry *next, *prev; /* NULL = not linked */
    uint64_t deadline_ms;            /* loop time; 0 = none */
    uint64_t tick;                   /* of the slot it is linked in */
    void (*fn)(struct wheel_entry *e);
};

struct wheel {
    uv_timer_t timer;
    uint64_t armed_tick; /* 0 = the timer is not running */
    uint64_t done_tick;  /* every slot up to here was looked at */
    uint64_t used[WHEEL_SLOTS / 64];
    struct wheel_entry slots[WHEEL_SLOTS];
};

void wheel_init(struct wheel *w, uv_loop_t *loop, void *owner);
/* Calls e->fn(e) once after_ms from now; replaces an earlier deadline. The entry may free itself in fn. */
void wheel_set(struct wheel *w, struct wheel_entry *e, uint64_t after_ms);
void wheel_clear(
    struct wheel_entry *e); /* forgets the deadline; the entry stays linked until its slot comes up */
void wheel_remove(struct wheel *w, struct wheel_entry *e); /* unlinks it: before its memory goes away */

#endif
