/* The address of a server elsewhere. Layer daemon; pure. */
#ifndef DAEMON_URL_H
#define DAEMON_URL_H

#include "base/err.h"
#include "base/str.h"

struct url {
    bool tls;
    char host[254]; /* a name or a numeric address, without brackets */
    uint16_t port;
    char path[160]; /* as it was given, without a slash at its end; may be empty */
};

/* "https://api.example.com/v1", "http://[::1]:8080". RC_INVALID: another scheme, a user, a query, a name that
 * is none. */
enum rc url_parse(struct str text, struct url *ret, struct err *err);
/* Whether the host is this machine by its address or as localhost. */
bool url_is_loopback(const struct url *u);

#endif
