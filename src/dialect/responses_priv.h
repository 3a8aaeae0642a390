/* What the files of the responses API share. Layer dialect; pure. */
#ifndef DIALECT_RESPONSES_PRIV_H
#define DIALECT_RESPONSES_PRIV_H

#include "dialect/dialect.h"

/* An answer under way. */
struct responses {
    struct buf model; /* as the client named it */
    struct buf echo;  /* ,"member":value of the request's members that an answer repeats */
    /* of a stream */
    bool begun;
    uint64_t sequence; /* number of the next event */
    uint32_t *items;   /* by output_index: what it is, see responses_answer.c */
    uint32_t n_items;
};

/* responses_ask.c */
enum rc responses_ask(const struct dialect_terms *terms, yyjson_val *body, struct dialect_ask *ret,
                      struct err *err);

/* responses_answer.c */
bool responses_delta(void *state, const struct completion *sum, const struct chunk_choice *in,
                     struct buf *out);
void responses_end(void *state, const struct completion *sum, struct buf *out);
void responses_broken(void *state, const struct dialect_error *e, struct buf *out);
void responses_plain(void *state, const struct completion *sum, struct buf *out);

#endif
