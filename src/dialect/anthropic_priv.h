/* What the files of Anthropic's dialect share. Layer dialect; pure. */
#ifndef DIALECT_ANTHROPIC_PRIV_H
#define DIALECT_ANTHROPIC_PRIV_H

#include "dialect/dialect.h"

enum anthropic_block { ANTHROPIC_NONE, ANTHROPIC_TEXT, ANTHROPIC_THINKING, ANTHROPIC_TOOL };

/* An answer under way. */
struct anthropic {
    struct buf model; /* as the client named it */
    struct buf stops; /* its stop sequences, each with a NUL behind it */
    bool templated;   /* count_tokens: the template was applied, tokens come next */
    /* of a stream */
    bool begun;
    enum anthropic_block open;
    uint32_t index;   /* of the block that is open, or comes next */
    uint32_t n_calls; /* tools whose blocks were begun */
};

/* anthropic_ask.c: the client's body in OpenAI's words. */
enum rc anthropic_ask(const struct dialect_terms *terms, yyjson_val *body, struct dialect_ask *ret,
                      struct err *err);
enum rc anthropic_ask_count(const struct dialect_terms *terms, yyjson_val *body, struct dialect_ask *ret,
                            struct err *err);

/* anthropic_answer.c */
bool anthropic_delta(void *state, const struct completion *sum, const struct chunk_choice *in,
                     struct buf *out);
void anthropic_end(void *state, const struct completion *sum, struct buf *out);
void anthropic_broken(void *state, const struct dialect_error *e, struct buf *out);
void anthropic_plain(void *state, const struct completion *sum, struct buf *out);

/* anthropic.c */
void anthropic_put_error(const struct dialect_error *e, struct buf *out); /* without a line's end */

#endif
