/* Which pages and names may reach a door that asks for no key. Layer proxy; no state; any thread.
 *
 * A web page can make its visitor's browser send requests to this machine. Two marks give it away: the Origin
 * that browsers add, and, where the page's own name was made to resolve to our address (DNS rebinding), that
 * name in Host. Nobody else's name resolves to an address that is written as digits, so such a Host is fine.
 */
#ifndef PROXY_GUARD_H
#define PROXY_GUARD_H

#include "base/str.h"

#include <stdbool.h>

/* An IP address, localhost and what ends in .localhost (RFC 6761), or one of the names, separated by commas;
 * "*" among them is any. A port behind it does not matter. */
bool guard_host(struct str host, struct str names);
/* Whether the page's origin is one of those allowed, separated by commas: "loopback" (served by this
 * machine), "*" (any), or an origin as browsers write it. */
bool guard_origin(struct str origin, struct str allowed);
/* Whether a page of others may have caused a request that bears no Origin, as their images and forms make a
 * browser send it. site is Sec-Fetch-Site: browsers send it over HTTPS and to loopback only, and elsewhere
 * say nothing that tells a page from its user. All of them begin User-Agent with Mozilla/, and no page can
 * take that away. */
bool guard_may_be_page(struct str site, struct str user_agent);
/* Whether the page came from the very host and port that the request went to. */
bool guard_same_host(struct str origin, struct str host);

#endif
