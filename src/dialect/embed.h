/* A request for embeddings taken apart, and its answer put together: so that many texts can be asked for in
 * several requests, and texts of several clients in one. Layer dialect; pure, any thread.
 *
 * In OpenAI's form. Inputs are kept as the JSON text that the client wrote; a list of numbers is one input
 * (tokens), a list of anything else is a list of inputs. */
#ifndef DIALECT_EMBED_H
#define DIALECT_EMBED_H

#include "base/json.h"

struct embed_ask {
    struct buf text; /* the inputs' JSON, one behind the other */
    struct embed_span {
        size_t at, n; /* of text, in bytes */
    } * inputs;
    size_t n;            /* of inputs; at least 1 */
    struct buf rest;     /* the other members, each with a comma behind it; without model, input, stream */
    uint64_t dimensions; /* that were asked for; 0 = none */
};

/* Takes input and the other members of body (NULL = none) apart. NULL: it is no request that could be, and to
 * be passed on for the backend to say what is wrong with it. */
struct embed_ask *embed_ask_new(yyjson_val *input, yyjson_val *body);
void embed_ask_free(struct embed_ask *a); /* NULL is fine */

/* Appends n inputs from the one at `from` on, with commas between them. */
void embed_put_inputs(const struct embed_ask *a, size_t from, size_t n, struct buf *out);

/* The vectors of an answer in the order of their indexes, as JSON texts into ret_items (n places; to be
 * freed, each). False, with nothing in ret_items, if they are not n, not each once, or not of one size.
 * *ret_dimensions: how many numbers each has. */
bool embed_read(yyjson_val *root, size_t n, char **ret_items, size_t *ret_dimensions);

struct embed_sum {
    struct str model;
    size_t dimensions;
    uint64_t tokens; /* of all inputs */
};
/* The answer to a client: OpenAI's list, with "dimensions" beside the model. */
void embed_put_answer(const struct embed_sum *sum, char *const *items, size_t n, struct buf *out);

#endif
