/* Dialects: the words in which clients ask and are answered. Layer dialect; pure, no state of its own, any
 * thread.
 *
 * A dialect (dialect.def, one file each) exports one const table: how its errors look, and its calls. A call
 * that the backend speaks itself, or that has no translator, is relayed as it is. Else its translator is
 * used: `ask` makes the request of OpenAI's form that the backend gets, and the other functions make the
 * client's answer of what the backend sends back. They see events that are read already (completion.h,
 * chunk.h); reading, limits and the order of the steps are answer.c's.
 *
 * Never made up: an end. `end` and `plain` are called only when the backend's end mark came and every choice
 * told why it finished. */
#ifndef DIALECT_DIALECT_H
#define DIALECT_DIALECT_H

#include "base/json.h"
#include "dialect/chunk.h"
#include "dialect/completion.h"
#include "dialect/embed.h"

enum dialect_id {
#define DIALECT(ID, symbol) DIALECT_##ID,
#include "dialect/dialect.def"
#undef DIALECT
    DIALECTS
};
#define DIALECT_BIT(ID) (1u << DIALECT_##ID)

/* What went wrong, for a client. Slices are borrowed; those that are empty are left out. */
struct dialect_error {
    int status; /* HTTP's */
    enum rc code;
    struct str message, hint, request_id;
    struct str given; /* the backend's own error as JSON */
};

/* How far a request is that waits for its answer. Slices are borrowed; those that are empty are left out. */
struct dialect_progress {
    const char *state; /* one word; static */
    struct str model;  /* as the client wrote it */
    struct str instance;
    uint32_t position; /* in line; 0 = in none */
    uint64_t waited_ms, expected_ms;
    unsigned percent; /* of a load */
    bool expected_known, percent_known;
    int64_t now_us; /* Unix time */
};

/* What a client asks of the model beside an answer. */
struct dialect_wish {
    bool keep_given;
    int64_t keep_ms;  /* the model stays loaded so long after the answer; -1 = for ever */
    bool leave;       /* with DIALECT_NOTHING: it is not to be loaded, but to leave if it is */
    uint64_t context; /* tokens; 0 = none asked for */
};

/* What a translator may know when it is asked; borrowed during the call. */
struct dialect_terms {
    unsigned speaks;       /* DIALECT_BITs of the backend; 0 = not chosen yet (calls marked early) */
    struct str model;      /* as the client wrote it; empty = none given */
    struct str request_id; /* as the client sees it in X-Request-Id */
    int64_t now_us;        /* Unix time */
};

enum dialect_reply {
    DIALECT_EVENTS,   /* the backend streams a completion, with usage at the end */
    DIALECT_DOCUMENT, /* it answers with one JSON document */
    DIALECT_NOTHING   /* it is not asked: the model has to be ready, no more */
};

struct dialect_backend;

/* A request for the backend, as a translator made it. */
struct dialect_ask {
    const char *path; /* static */
    enum dialect_reply reply;
    struct buf body; /* a JSON object with at least one member, without model, stream and stream_options */
    bool stream;     /* the client wants the stream form */
    bool as_is;      /* nothing else is set: the backend gets what the client sent */
    struct embed_ask *embed; /* set: `body` is not, for this may be sent in parts. Their answers make OpenAI's
                              * document, which `document` gets, or the client if there is no such function */
    struct dialect_wish wish;
    const struct dialect_backend *via; /* its path and body are this one's (backend.h); NULL = OpenAI's */
    void *state;                       /* the translator's; freed by call->free */
};

enum dialect_step {
    DIALECT_DONE,  /* the answer is in `out` */
    DIALECT_AGAIN, /* *next has path and body of another request, whose document comes next */
    DIALECT_BROKEN /* the document is not what was asked for */
};

struct dialect_call {
    const char
        *path; /* exact; all calls are POST, with a JSON object or, of those without a translator, a form */
    /* Asked before a model is chosen, for the sake of its wishes; else once the backend is known not to speak
     * the dialect. */
    bool early;
    bool light;                           /* makes no tokens: needs no slot of an instance */
    const char *stream_type, *plain_type; /* Content-Type of either form; NULL = there is no such form */

    /* Reads the client's body, which is an object. RC_INVALID and its like name the member and say what
     * fits; *ret is zeroed before, and released by the caller whatever comes of it. May be long (large
     * bodies are read off the loop). NULL = this call has no translator. */
    enum rc (*ask)(const struct dialect_terms *terms, yyjson_val *body, struct dialect_ask *ret,
                   struct err *err);

    /* Where the requests that `ask` makes go, of calls that are not early; NULL = `ask` says it. Static. */
    const char *into;

    bool keep_text; /* the end of a stream tells the whole text again: it is kept in the meantime */

    /* ---- the stream form: each appends what the client gets now, which may be nothing ---- */
    /* A piece of the only choice. `sum` has what is known of the whole (not the text): id, model, tokens.
     * False if it cannot be part of such an answer. */
    bool (*delta)(void *state, const struct completion *sum, const struct chunk_choice *in, struct buf *out);
    void (*end)(void *state, const struct completion *sum, struct buf *out);
    /* Something broke after the stream began: its last words. Calls without a translator have it too if they
     * have `progress`; their state is NULL, as is any other one's of which no request was translated. */
    void (*broken)(void *state, const struct dialect_error *e, struct buf *out);
    /* Text of the last event of every whole stream that passes through; NULL = their framing alone tells. */
    const char *end_mark;
    /* A piece of a stream that has not begun, for clients that ask how far their request is. NULL = the call
     * cannot tell. */
    void (*progress)(const struct dialect_progress *p, struct buf *out);

    /* ---- the plain form ---- */
    void (*plain)(void *state, const struct completion *sum, struct buf *out);

    /* ---- calls whose backend answers with a document ---- */
    enum dialect_step (*document)(void *state, const struct completion *sum, yyjson_val *root,
                                  struct dialect_ask *next, struct buf *out);

    void (*free)(void *state); /* NULL is fine, both as state and as function */

    /* Of a call that is OpenAI's own, and so relayed: what makes its answers where the backend speaks no
     * OpenAI; NULL = nothing does. */
    const struct dialect_call *remade;
};

struct dialect {
    const char *name; /* as the configuration spells it */
    /* The body of an error answer. */
    void (*put_error)(const struct dialect_error *e, struct buf *out);
    const struct dialect_call *calls;
    size_t n_calls;
};

/* In the order of dialect.def. */
const struct dialect *dialect_at(enum dialect_id id);
/* By name; DIALECTS if there is none. */
enum dialect_id dialect_find(struct str name);
/* The dialects (DIALECT_BITs) of backends that can answer a call of this dialect: its own, and those that
 * have what it is translated into. asked: its translation, or NULL = there is none yet. call: NULL with asked
 * only. */
unsigned dialect_answered_by(enum dialect_id id, const struct dialect_call *call,
                             const struct dialect_ask *asked);
void dialect_ask_release(const struct dialect_call *call, struct dialect_ask *ask);

#endif
