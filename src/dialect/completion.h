/* A completion as far as its events have told it, in OpenAI's terms. Layer dialect; one owner, any thread.
 *
 * Of several choices, usage and timings are the first one's, as in llama.cpp's plain answers; in a stream
 * they come in an event of their own right behind the end of the choice that they belong to. */
#ifndef DIALECT_COMPLETION_H
#define DIALECT_COMPLETION_H

#include "base/buf.h"
#include "dialect/chunk.h"

struct completion_call {
    struct buf id, type, name, arguments;
};

struct completion_choice {
    bool seen;
    struct buf role, finish;
    struct buf stop;                        /* the stop sequence that ended it, where the backend tells */
    struct buf content, reasoning, refusal; /* empty where text is not kept */
    struct completion_call *calls;
    uint32_t n_calls;
};

/* Numbers of usage and timings; zero where they were not told. */
struct completion_counts {
    bool known;                                   /* usage was told */
    uint64_t prompt_tokens, cached_tokens;        /* cached ones are part of the prompt's */
    uint64_t completion_tokens, reasoning_tokens; /* thought ones are part of the completion's */
    uint64_t prompt_us, decode_us;                /* llama.cpp's own clock */
};

struct completion {
    bool keep_text; /* set by the owner before the first event */
    size_t max;     /* bytes kept at most, likewise */
    size_t n;
    bool large; /* max was met */
    struct completion_choice *choices;
    uint32_t n_choices;
    uint32_t last, usage_of; /* choice that came last, that usage and timings are of */
    struct buf id, model, fingerprint;
    struct buf usage, timings; /* JSON objects */
    struct completion_counts counts;
    uint64_t created;
    /* Set by the owner: Unix time of the request, of what is being told now; how long it waited for a model.
     */
    int64_t begun_us, now_us, waited_us;
};

void completion_init(struct completion *c, bool keep_text, size_t max);
void completion_release(struct completion *c);
/* Takes an event in. False if it is not of the form. */
bool completion_take(struct completion *c, const struct chunk *in);
/* Of an answer that does not come in events; either may be NULL. */
void completion_take_usage(struct completion *c, yyjson_val *usage, yyjson_val *timings);
/* Whether there are choices, and each has told why it finished. */
bool completion_whole(const struct completion *c);
/* The backend's id without the name of its kind, for ids of ours; what would need quoting is left out. */
void completion_put_id(const struct completion *c, struct buf *out);
size_t completion_bytes(const struct completion *c); /* of memory, without *c itself */

#endif
