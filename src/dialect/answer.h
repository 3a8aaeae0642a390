/* One answer that is made here of what a backend sends, in the client's dialect. Layer dialect; one owner,
 * any thread. Reading events, limits and the order of the translator's steps are here; what the bytes mean to
 * the client is the call's (dialect.h).
 *
 *   answer_new → answer_head → answer_feed … → answer_end
 *
 * Nothing is made up: an answer is whole only when the end mark came and every choice told why it finished.
 */
#ifndef DIALECT_ANSWER_H
#define DIALECT_ANSWER_H

#include "dialect/dialect.h"

enum answer_state {
    ANSWER_MORE,   /* of answer_feed: go on */
    ANSWER_DONE,   /* `out` has the rest: the answer is whole */
    ANSWER_AGAIN,  /* of answer_end: the ask has become another request, whose answer is a new one */
    ANSWER_ERROR,  /* the backend reported an error: answer_error */
    ANSWER_BROKEN, /* not whole, or nothing of the kind that was asked for: answer_why */
    ANSWER_LARGE   /* more than `max` bytes */
};

struct answer;

/* ask stays the caller's and outlives the answer; max bounds what is kept; times as in struct completion. */
struct answer *answer_new(const struct dialect_call *call, struct dialect_ask *ask, size_t max,
                          int64_t begun_us, int64_t waited_us);
/* The backend's head. False: it is an answer as it stands, to be passed on (calls without a translator, of
 * which no stream is asked). */
bool answer_head(struct answer *a, int status, struct str content_type);
/* Takes the next bytes of the body; appends what the client gets now. The first state other than ANSWER_MORE
 * stays; nothing is taken in after it. */
enum answer_state answer_feed(struct answer *a, struct str bytes, int64_t now_us, struct buf *out);
/* The body is complete, or there is none (DIALECT_NOTHING). Never ANSWER_MORE. */
enum answer_state answer_end(struct answer *a, int64_t now_us, struct buf *out);
/* Whether something of the answer itself came; reports of a prompt's progress are none. */
bool answer_has_begun(const struct answer *a);
/* What is wrong with an ANSWER_BROKEN, to be put behind "the backend of model X"; static. */
const char *answer_why(const struct answer *a);
/* The backend's own error: status, message, given; borrowed from the answer. */
void answer_error(const struct answer *a, struct dialect_error *ret);
/* Usage and timings as the backend told them: {"usage":…,"timings":…}. */
void answer_put_usage(const struct answer *a, struct buf *out);
size_t answer_bytes(const struct answer *a); /* of memory in use */
void answer_free(struct answer *a);          /* NULL is fine */

#endif
