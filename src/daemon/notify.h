/* sd_notify(3) without the library: datagrams to $NOTIFY_SOCKET. Layer daemon; main thread. Everything is a
 * no-op when the service manager does not listen. */
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

/* "READY=1\nSTATUS=…"; true if it was sent. */
__attribute__((format(printf, 1, 2))) bool notify_send(const char *fmt, ...);
/* READY, STOPPING or RELOADING with the monotonic time that the manager asks for. */
bool notify_reloading(void);
/* Interval in which WATCHDOG=1 must be sent, from $WATCHDOG_USEC and $WATCHDOG_PID; 0 = no watchdog. */
uint64_t notify_watchdog_ms(void);
/* True if systemd started this very process and leaves its children alone when it ends: the unit tells its
 * KillMode in $ARRIERO_KILL_MODE. */
bool notify_unit_spares_children(void);
/* True if stderr is the journal ($JOURNAL_STREAM). */
bool notify_stderr_is_journal(void);

#endif
