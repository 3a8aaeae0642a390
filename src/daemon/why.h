/* Why a model is where it is, in sentences: composed of its decisions and of what it is now. Layer daemon;
 * pure: no I/O, no clock, any thread.
 *
 * Decisions are the objects that the history gives (store_decisions_json), the newest first; a reason may
 * name the model that a decision was made for ("model"). Nothing of them is trusted to be there. */
#ifndef DAEMON_WHY_H
#define DAEMON_WHY_H

#include "base/json.h"

#include <stdbool.h>
#include <stdint.h>

struct why_now { /* a model as it is; texts are the caller's, "" = none */
    const char *model;
    const char
        *state; /* "unloaded", or a word of the pool for its instance; "" = no such model is known now */
    const char *devices; /* "CUDA0 4.6 GiB, Host 310 MiB" */
    uint64_t since_ms;   /* its instance is in this state for so long */
    uint64_t busy, slots, waiting;
    double progress;     /* of its load, 0 … 1 */
    double load_seconds; /* predicted; 0 = not known */
    bool pinned;
    const char *cause; /* of its latest failure */
    const char *heat;  /* "Host is at 92 °C: at most 2 requests at a time" */
};

/* One paragraph: the situation first, then how it came to that. */
void why_summary(const struct why_now *now, yyjson_val *decisions, int64_t wall_ms, struct buf *out);
/* The same for all models: n of them, those that are unloaded left out. */
void why_summary_all(const struct why_now *list, size_t n, struct buf *out);
/* One decision as a sentence: "slow was unloaded: idle for 12 s; its 45 MiB make room for slow-b, which needs
 * 45 MiB." */
void why_sentence(yyjson_val *decision, struct buf *out);
/* What a kind of decision means for its model: "was unloaded"; the kind itself where it has no words. */
struct str why_verb(struct str kind);

#endif
