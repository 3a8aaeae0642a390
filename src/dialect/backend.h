/* Backends that do not speak OpenAI's API: the second half of a translation. Layer dialect; pure, any thread.
 *
 * What a client asks is put into OpenAI's words first (dialect.h), and what comes back is read as OpenAI's
 * events. For a backend with words of its own `ask` changes the request once more, and `event` makes OpenAI's
 * events of its events, one by one. So each dialect of clients meets each kind of backend without knowing it.
 */
#ifndef DIALECT_BACKEND_H
#define DIALECT_BACKEND_H

#include "dialect/dialect.h"

struct dialect_backend {
    enum dialect_id id;
    const char *path;    /* static: OpenAI's, of the only requests that it has a counterpart of */
    const char *members; /* static: what goes in front of the body, behind the model's name */
    /* ask->path and ask->body, of OpenAI's form, become the backend's. RC_INVALID names the member that has
     * no counterpart; RC_UNSUPPORTED: it has none of such calls; RC_NOMEM. */
    enum rc (*ask)(struct dialect_ask *ask, struct err *err);
    void *(*open)(void); /* the reading of one answer */
    /* Appends what an event is in OpenAI's words: no, one or several texts of events, a line each. False: it
     * is no event of such an answer. */
    bool (*event)(void *state, struct str data, struct buf *out);
    void (*close)(void *state); /* NULL is fine */
};

/* What stands between OpenAI's words and a backend that speaks these dialects (DIALECT_BITs); NULL = nothing:
 * it speaks OpenAI's, or nothing is known of it. */
const struct dialect_backend *dialect_backend(unsigned speaks);
/* Puts a translated request into the words of a backend that speaks these; nothing to do for OpenAI's. */
enum rc dialect_ask_as(struct dialect_ask *ask, unsigned speaks, struct err *err);

#endif
