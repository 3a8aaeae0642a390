/* History in SQLite: instances, requests (counts and times, no text), decisions with reasons. Layer store;
 * posts may come from the loop thread and never block: one writer thread owns the connection, a bounded queue
 * drops the oldest rows of requests first and counts them. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct store;

/* Opens or creates the file (WAL), migrates it, starts the writer. A corrupt file is moved aside
 * ("history.db.corrupt-TIME") and a new one begun; if nothing can be written the store works in memory only
 * and store_health says why. Fails only when not even that is possible. */
enum rc store_open(const char *path, struct store **ret_store, struct err *err);
void store_close(struct store *s); /* writes what is queued; blocking */

struct store_request {
    int64_t wall_ms;
    const char *model, *instance, *path, *outcome; /* copied */
    int status;
    bool streamed;
    uint64_t prompt_tokens, completion_tokens, cached_tokens;
    bool tokens_known;
    uint64_t request_bytes, response_bytes;
    uint64_t wait_us, ttfb_us, total_us, overhead_us;
};
void store_post_request(struct store *s, const struct store_request *r);

struct store_decision {
    int64_t wall_ms;
    const char *kind, *model, *instance; /* copied */
    const char *reasons_json;            /* array of {code,text} */
    const char *plan_json;               /* or NULL */
    double seconds;
};
void store_post_decision(struct store *s, const struct store_decision *d);

struct store_measure { /* predicted and measured bytes of a device after a load */
    int64_t wall_ms;
    const char *model, *model_path, *runtime, *device; /* copied */
    uint64_t predicted_bytes, measured_bytes;
};
void store_post_measure(struct store *s, const struct store_measure *m);

/* Blocking reads on a connection of their own: call them on the work pool or in a command. Newest first; each
 * appends a JSON array to out. model "" = all. */
enum rc store_decisions_json(struct store *s, struct str model, unsigned limit, struct buf *out,
                             struct err *err);
enum rc store_requests_json(struct store *s, struct str model, unsigned limit, struct buf *out,
                            struct err *err);

struct store_health {
    bool writable;     /* false: full disk, read-only file, memory only */
    bool replaced;     /* the file was corrupt and has been moved aside */
    char message[256]; /* "" when all is well */
    uint64_t queued, written, dropped;
};
void store_health(struct store *s, struct store_health *ret); /* thread-safe, never blocks long */

#endif
