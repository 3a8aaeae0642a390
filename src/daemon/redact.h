/* Leaves out of a text what should not be kept: secrets by their looks, and pictures. Layer daemon; pure. */
#ifndef DAEMON_REDACT_H
#define DAEMON_REDACT_H

#include "base/buf.h"

/* Appends the text. A word that looks like a key, or stands behind "Bearer ", becomes [secret left out]; one
 * of more than 256 characters, such as base64, becomes [N characters left out]. */
void redact(struct str text, struct buf *out);

#endif
