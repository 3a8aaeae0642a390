/* What the files of Ollama's dialect share. Layer dialect; private to them.
 *
 *   ollama.c        its calls, errors
 *   ollama_ask.c    a request: what is common to all, then one function a call
 *   ollama_chat.c   messages with images, tools and their calls
 *   ollama_answer.c answers: NDJSON or one object, embeddings */
#ifndef DIALECT_OLLAMA_H
#define DIALECT_OLLAMA_H

#include "dialect/dialect.h"

/* What is remembered of a request until its answer. */
struct ollama {
    bool generate;       /* text in "response"; else messages */
    bool load, unload;   /* no answer is asked for: the model is to be ready, or to leave */
    bool one;            /* of embeddings: a single one, in the older form */
    uint64_t dimensions; /* of embeddings; 0 = all */
    char model[256];     /* as the client wrote it */
};

/* ---- ollama_ask.c ---- */
enum rc ollama_ask_chat(const struct dialect_terms *terms, yyjson_val *body, struct dialect_ask *ret,
                        struct err *err);
enum rc ollama_ask_generate(const struct dialect_terms *terms, yyjson_val *body, struct dialect_ask *ret,
                            struct err *err);
enum rc ollama_ask_embed(const struct dialect_terms *terms, yyjson_val *body, struct dialect_ask *ret,
                         struct err *err);
enum rc ollama_ask_embeddings(const struct dialect_terms *terms, yyjson_val *body, struct dialect_ask *ret,
                              struct err *err);

/* ---- ollama_chat.c ---- */
/* "messages":[…] of an array of messages that is not empty. */
enum rc ollama_put_messages(yyjson_val *messages, struct buf *out, struct err *err);
/* The same of a prompt with its system text and images (NULL = none). */
enum rc ollama_put_prompt(struct str system, struct str prompt, yyjson_val *images, struct buf *out,
                          struct err *err);
void ollama_put_value(struct buf *out, yyjson_val *v); /* as JSON */
void ollama_member(struct buf *out, const char *name); /* its name in an object that is being written */

/* ---- ollama_answer.c ---- */
bool ollama_delta(void *state, const struct completion *sum, const struct chunk_choice *in, struct buf *out);
void ollama_end(void *state, const struct completion *sum, struct buf *out);
void ollama_broken(void *state, const struct dialect_error *e, struct buf *out);
void ollama_plain(void *state, const struct completion *sum, struct buf *out);
/* The document of /v1/embeddings, or that of /infill. */
enum dialect_step ollama_embedded(void *state, const struct completion *sum, yyjson_val *root,
                                  struct dialect_ask *next, struct buf *out);
enum dialect_step ollama_filled_in(void *state, const struct completion *sum, yyjson_val *root,
                                   struct dialect_ask *next, struct buf *out);
void ollama_plain_embedding(void *state, const struct completion *sum, struct buf *out); /* of nothing */

/* ---- ollama.c ---- */
void ollama_put_error(const struct dialect_error *e, struct buf *out);

#endif
