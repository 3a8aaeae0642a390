/* Watching the loop: a turn that works longer than 20 ms is logged with what it ran, and the service manager
 * hears that the loop still turns. Layer daemon; loop thread.
 *
 * A turn is the time between two prepare phases less the time that the loop slept in its poll
 * (uv_metrics_idle_time), so that callbacks of the poll phase count too. */
#include "daemon/daemon_priv.h"

#include "base/clock.h"
#include "base/log.h"
#include "daemon/notify.h"

static void on_prepare(uv_prepare_t *h)
{
    struct daemon *d = h->data;
    uint64_t now = uv_hrtime() / 1000, idle = uv_metrics_idle_time(d->loop);
    uint64_t turn = now - d->turn_start_us, slept = (idle - d->idle_before_ns) / 1000;
    uint64_t worked = turn > slept ? turn - slept : 0;
    if (worked > DAEMON_SLOW_TURN_US && d->turn_start_us) {
        d->slow_turns++;
        if (d->serving) /* the first turns read the world */
            log_warn("the loop was busy for %llu ms in one turn (%s)", (unsigned long long)worked / 1000,
                     d->doing ? d->doing : "unknown work");
    }
    d->turn_start_us = now;
    d->idle_before_ns = idle;
    d->doing = NULL;
    if (d->roles_stale) {
        roles_look(d);
        preload_look(d);
    }
}

static void on_tick(uv_timer_t *h)
{
    struct daemon *d = h->data;
    uint64_t now = clock_mono_ms();
    struct store_health health;
    store_health(d->store, &health);
    if (health.writable != d->store_was_writable) {
        d->store_was_writable = health.writable;
        if (health.writable)
            log_info("history is written again");
        else
            log_warn("history is kept in memory only: %s", health.message);
    }
    roles_look(d);
    preload_look(d);
    if (d->notify_every_ms && now >= d->notify_due_ms) {
        notify_send("WATCHDOG=1");
        d->notify_due_ms = now + d->notify_every_ms;
    }
}

void watchdog_start(struct daemon *d)
{
    d->notify_every_ms = notify_watchdog_ms();
    uint64_t every = d->notify_every_ms && d->notify_every_ms < 1000 ? d->notify_every_ms : 1000;
    uv_prepare_init(d->loop, &d->prepare);
    d->prepare.data = d;
    uv_prepare_start(&d->prepare, on_prepare);
    uv_timer_init(d->loop, &d->tick);
    d->tick.data = d;
    uv_timer_start(&d->tick, on_tick, every, every);
}

void watchdog_stop(struct daemon *d)
{
    uv_close((uv_handle_t *)&d->prepare, NULL);
    uv_close((uv_handle_t *)&d->tick, NULL);
}
