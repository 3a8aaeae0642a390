/* Drives a translator as the door does: the client's body in, the backend's stream in, the client's answer
 * out. */
#ifndef TESTS_DRIVE_H
#define TESTS_DRIVE_H

#include "dialect/answer.h"

/* The call at the path, of whatever dialect; NULL if there is none. */
const struct dialect_call *drive_call(const char *path);
/* Asks; the body that the backend would get into *ret (NULL = not wanted). The model is "m", the time 0. */
enum rc drive_ask(const struct dialect_call *call, const char *body, unsigned speaks, struct dialect_ask *ask,
                  struct err *err);
/* The backend's head (200, events) and its bytes in steps of `step`; what the client gets is appended to out.
 */
enum answer_state drive_answer(const struct dialect_call *call, struct dialect_ask *ask, const char *stream,
                               size_t step, struct buf *out);
/* Asks, answers and checks the outcome, at every step from 1 to 64 and at once. want: the whole answer. */
void drive_expect(const char *path, const char *body, const char *stream, enum answer_state state,
                  const char *want);
/* The request that becomes of the body, as JSON that is equal but for the order of members. */
void drive_expect_ask(const char *path, const char *body, unsigned speaks, const char *want);
/* The body is refused with a message that contains the text. */
void drive_expect_refusal(const char *path, const char *body, enum rc rc, const char *text);

#endif
