/* Server-sent events, read from pieces of any size. Layer base; one owner, no state of its own. The format is
 * that of the HTML standard, section "Server-sent events": lines end with CR, LF or both, an empty line ends
 * an event. */
#ifndef BASE_SSE_H
#define BASE_SSE_H

#include "base/buf.h"
#include "base/err.h"

#define SSE_EVENT_MAX ((size_t)8 << 20) /* bytes of one event's data, and of one line */

/* event: its name, "message" if it has none. False ends the reading. Both are borrowed during the call. */
typedef bool (*sse_event_fn)(void *arg, struct str event, struct str data);

struct sse { /* zeroed = ready */
    struct buf line, data, event;
    bool has_data, after_cr, begun;
};

/* RC_OK, RC_CANCELLED when fn returned false, RC_LIMIT when an event is too long. */
enum rc sse_feed(struct sse *s, struct str piece, sse_event_fn fn, void *arg, struct err *err);
void sse_release(struct sse *s);

#endif
