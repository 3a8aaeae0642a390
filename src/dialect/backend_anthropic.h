/* What the files of Anthropic's side as a backend share. Layer dialect; pure. */
#ifndef DIALECT_BACKEND_ANTHROPIC_H
#define DIALECT_BACKEND_ANTHROPIC_H

#include "dialect/backend.h"

extern const struct dialect_backend dialect_anthropic_backend;

/* backend_anthropic_ask.c: see dialect_backend.ask */
enum rc backend_anthropic_ask(struct dialect_ask *ask, struct err *err);

#endif
