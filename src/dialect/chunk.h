/* One event of a streamed completion, in OpenAI's form as llama.cpp's server writes it. Layer dialect; any
 * thread. What reads such a stream, to collect or to translate it, works on these views. */
#ifndef DIALECT_CHUNK_H
#define DIALECT_CHUNK_H

#include "base/json.h"

#define CHUNK_CHOICES_MAX 256u
#define CHUNK_CALLS_MAX   1024u

enum chunk_kind {
    CHUNK_BAD,   /* no JSON object, or not of this form */
    CHUNK_DONE,  /* the end mark */
    CHUNK_ERROR, /* `error` tells */
    CHUNK_DELTA
};

/* Borrowed from doc, which the struct owns; slices are empty and pointers NULL where the event has no such
 * member. */
struct chunk {
    enum chunk_kind kind;
    yyjson_doc *doc;
    struct str id, model, fingerprint;
    uint64_t created;
    yyjson_val *choices;                            /* an array */
    yyjson_val *usage, *timings, *progress, *error; /* progress: llama.cpp's, of the prompt */
};

struct chunk_choice {
    uint32_t index;
    struct str role, content, reasoning, refusal; /* of the delta; content: of a text completion its text */
    struct str finish;                            /* empty: goes on */
    struct str stop;                              /* the stop sequence that ended it (vLLM tells) */
    yyjson_val *calls;                            /* an array */
};

struct chunk_call {
    uint32_t index;
    struct str id, type, name, arguments; /* arguments: a piece of the text */
};

/* Always to be released, whatever kind it is. */
void chunk_read(struct str data, struct chunk *ret);
void chunk_release(struct chunk *c);
/* One of `choices`, one of `calls`; false if it is not of the form. */
bool chunk_choice_read(yyjson_val *v, struct chunk_choice *ret);
bool chunk_call_read(yyjson_val *v, struct chunk_call *ret);

#endif
