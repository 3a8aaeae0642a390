/* The daemon: configuration, wiring of the modules, the loop, the control API. Layer daemon; the main thread.
 */
#ifndef DAEMON_DAEMON_H
#define DAEMON_DAEMON_H

#include "daemon/config.h"

struct daemon_options {
    struct config_request
        config; /* kept: SIGHUP loads it again. Strings are borrowed until daemon_run returns */
    /* Called once when requests are served; summary: a few lines for a person. May be NULL. */
    void (*ready)(void *arg, struct str summary);
    void *arg;
};

/* Runs until SIGTERM, SIGINT or a fatal error; RC_OK after an orderly end. No child is left then, but for
 * instances that outlive the daemon (detach in the configuration; not after SIGINT).
 * Errors at start: the configuration's, RC_BUSY (port, socket or state directory in use), RC_DENIED
 * (listening beyond loopback without keys). */
enum rc daemon_run(const struct daemon_options *opt, struct err *err);

#endif
