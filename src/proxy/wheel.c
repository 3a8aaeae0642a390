/* Deadlines: see wheel.h. Layer proxy; loop thread only. Invariant: a linked entry's slot is never later than
 * its deadline, and the timer is armed for the earliest used slot or an earlier one. */
#include "proxy/wheel.h"

#include <assert.h>
#include <string.h>

static void link_at(struct wheel *w, struct wheel_entry *e, uint64_t tick)
{
    struct wheel_entry *head = &w->slots[tick % WHEEL_SLOTS], *last = head->prev;
    assert(last); /* slots are circles */
    e->tick = tick;
    e->next = head;
    e->prev = last;
    last->next = e;
    head->prev = e;
    w->used[tick % WHEEL_SLOTS / 64] |= UINT64_C(1) << (tick % 64);
}

static void unlink_entry(struct wheel *w, struct wheel_entry *e)
{
    struct wheel_entry *head = &w->slots[e->tick % WHEEL_SLOTS];
    assert(e->prev && e->next);
    e->prev->next = e->next;
    e->next->prev = e->prev;
    e->next = e->prev = NULL;
    if (head->next == head)
        w->used[e->tick % WHEEL_SLOTS / 64] &= ~(UINT64_C(1) << (e->tick % 64));
}

/* The first used slot after `from`, or 0 when the wheel is empty. */
static uint64_t next_used(const struct wheel *w, uint64_t from)
{
    for (uint64_t t = from + 1; t <= from + WHEEL_SLOTS;) {
        uint64_t word = w->used[t % WHEEL_SLOTS / 64] >> (t % 64);
        if (word) {
            t += (uint64_t)__builtin_ctzll(word);
            return t <= from + WHEEL_SLOTS ? t : 0;
        }
        t += 64 - t % 64;
    }
    return 0;
}

static void on_timer(uv_timer_t *timer);

static void arm(struct wheel *w, uint64_t tick)
{
    uint64_t at = tick * WHEEL_TICK_MS, now = uv_now(w->timer.loop);
    w->armed_tick = tick;
    (void)uv_timer_start(&w->timer, on_timer, at > now ? at - now : 0, 0);
}

static uint64_t tick_of(uint64_t deadline_ms)
{
    return (deadline_ms + WHEEL_TICK_MS - 1) / WHEEL_TICK_MS;
}

static void place(struct wheel *w, struct wheel_entry *e)
{
    uint64_t tick = tick_of(e->deadline_ms), last = w->done_tick + WHEEL_SLOTS - 1;
    if (tick > last)
        tick = last;
    if (tick <= w->done_tick)
        tick = w->done_tick + 1;
    link_at(w, e, tick);
    if (!w->armed_tick || tick < w->armed_tick)
        arm(w, tick);
}

static void run_slot(struct wheel *w, uint64_t tick, uint64_t now)
{
    struct wheel_entry *head = &w->slots[tick % WHEEL_SLOTS];
    /* What fires may link and unlink others, so the list is drained from its head; entries that must stay are
     * placed in later slots (done_tick is this one). */
    while (head->next != head) {
        struct wheel_entry *e = head->next;
        unlink_entry(w, e);
        if (!e->deadline_ms)
            continue;
        if (e->deadline_ms > now) {
            place(w, e);
            continue;
        }
        e->deadline_ms = 0;
        e->fn(e);
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct wheel *w = (struct wheel *)((char *)timer - offsetof(struct wheel, timer));
    uint64_t now = uv_now(timer->loop), now_tick = now / WHEEL_TICK_MS;
    w->armed_tick = 1; /* armed for the past: nothing arms while slots run */
    while (w->done_tick < now_tick) {
        uint64_t t = next_used(w, w->done_tick);
        if (!t || t > now_tick) {
            w->done_tick = now_tick;
            break;
        }
        w->done_tick = t;
        run_slot(w, t, now);
    }
    w->armed_tick = 0;
    uint64_t t = next_used(w, w->done_tick);
    if (t && !uv_is_closing((const uv_handle_t *)timer))
        arm(w, t);
}

void wheel_init(struct wheel *w, uv_loop_t *loop, void *owner)
{
    memset(w, 0, sizeof *w);
    (void)uv_timer_init(loop, &w->timer);
    w->timer.data = owner;
    w->done_tick = uv_now(loop) / WHEEL_TICK_MS;
    for (unsigned i = 0; i < WHEEL_SLOTS; i++)
        w->slots[i].next = w->slots[i].prev = &w->slots[i];
}

void wheel_set(struct wheel *w, struct wheel_entry *e, uint64_t after_ms)
{
    uint64_t now = uv_now(w->timer.loop);
    e->deadline_ms = now + after_ms;
    if (e->next && e->tick <= tick_of(e->deadline_ms))
        return;
    if (e->next)
        unlink_entry(w, e);
    if (!w->armed_tick) /* the wheel stood still: catch up */
        w->done_tick = now / WHEEL_TICK_MS;
    place(w, e);
}

void wheel_clear(struct wheel_entry *e)
{
    e->deadline_ms = 0;
}

void wheel_remove(struct wheel *w, struct wheel_entry *e)
{
    if (e->next)
        unlink_entry(w, e);
    e->deadline_ms = 0;
}
