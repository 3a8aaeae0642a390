/* Pieces of error answers that dialects share. Layer dialect; pure. */
#ifndef DIALECT_ERRORS_H
#define DIALECT_ERRORS_H

#include "dialect/dialect.h"

struct error_type {
    int status;
    const char *word;
};

/* The word for the status; where the table has none, that of the first row for 4xx, of the second for 5xx. */
const char *error_type_of(const struct error_type *table, size_t n, int status);
/* ,"name":"text", or nothing for an empty text. */
void error_put_member(struct buf *out, const char *name, struct str text);

/* OpenAI's form: {"error":{"message","type","code","param","hint"}}. */
void dialect_put_openai_error(const struct dialect_error *e, struct buf *out);
/* The same as an event of a stream: a call's `broken`. */
void dialect_put_error_event(void *state, const struct dialect_error *e, struct buf *out);

#endif
