/* How far a request is that waits for its answer, in forms that clients skip who do not look for it. Layer
 * dialect; pure.
 *
 * The official clients of OpenAI and Anthropic drop comment lines of a stream and events called "ping"; those
 * of Ollama take a piece without text for what it is. */
#ifndef DIALECT_PROGRESS_H
#define DIALECT_PROGRESS_H

#include "dialect/dialect.h"

/* {"state":…} and what else is known, without a newline. */
void progress_put_json(const struct dialect_progress *p, struct buf *out);
/* A comment line of server-sent events: ": arriero {…}". */
void progress_put_comment(const struct dialect_progress *p, struct buf *out);

#endif
