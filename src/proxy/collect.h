/* Makes one plain answer of a streamed completion: the JSON that llama.cpp's server writes itself when it is
 * not asked to stream. Layer proxy; one owner, any thread.
 *
 * Nothing is made up: an answer is whole only when the end mark came and every choice told why it finished.
 */
#ifndef PROXY_COLLECT_H
#define PROXY_COLLECT_H

#include "base/buf.h"

enum collect_form { COLLECT_NONE, COLLECT_CHAT, COLLECT_TEXT };

enum collect_state {
    COLLECT_MORE,
    COLLECT_DONE,   /* the end mark came: collect_answer */
    COLLECT_ERROR,  /* the backend reported an error: collect_error */
    COLLECT_BROKEN, /* an event that is none of a completion's */
    COLLECT_LARGE   /* more than max bytes */
};

struct collect;

struct collect *collect_new(enum collect_form form, size_t max);
/* Takes the next bytes of the stream. The first state other than COLLECT_MORE stays. */
enum collect_state collect_feed(struct collect *c, struct str bytes);
/* Appends the plain answer; false if it is not whole. */
bool collect_answer(const struct collect *c, struct buf *out);
/* Appends {"error":…} as the backend sent it; returns the HTTP status that it names, or 500. */
int collect_error(const struct collect *c, struct buf *out);
/* Bytes of memory in use. */
size_t collect_bytes(const struct collect *c);
void collect_free(struct collect *c); /* NULL is fine */

#endif
