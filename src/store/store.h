/* History in SQLite: instances, requests (counts and times; texts only as captures, where a key allows them),
 * decisions with reasons. Layer store;
 * posts may come from the loop thread and never block: one writer thread owns the connection, a bounded queue
 * drops the oldest rows of requests first and counts them. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct store;

struct store_options {
    uint32_t queue_rows;     /* rows kept in memory at most; past it the oldest requests go first */
    uint64_t queue_bytes;    /* and their memory */
    uint32_t flush_ms;       /* a request's row waits so long for company; other rows are written at once */
    uint32_t retry_ms;       /* after a failed write */
    uint64_t max_age_ms;     /* older rows are deleted; 0 = kept */
    uint64_t capture_age_ms; /* the same for captures */
    uint64_t max_requests;   /* rows kept in each table; 0 = no limit */
    uint64_t max_captures;
    uint64_t max_decisions;
    uint64_t max_measures;
    uint64_t max_instances;
    uint64_t max_lessons; /* these two tables do not age */
    uint64_t max_figures;
    uint64_t max_spending; /* rows: servers; does not age */
    uint32_t max_pages;    /* SQLite's max_page_count: a cap on the file, 4 KiB a page; 0 = none */
};
void store_options_default(struct store_options *o);

/* Opens or creates the file (WAL), migrates it, starts the writer. A corrupt file is moved aside
 * ("history.db.corrupt-TIME") and a new one begun; if nothing can be written the store works in memory only
 * and store_health says why; it tries the file again every retry_ms. Fails only when not even that is
 * possible. */
enum rc store_open(const char *path, struct store **ret_store, struct err *err);
enum rc store_open_with(const char *path, const struct store_options *opt, struct store **ret_store,
                        struct err *err);
void store_close(struct store *s); /* writes what is queued; blocking; NULL is fine */

struct store_request {
    int64_t wall_ms;
    const char *model, *instance, *path, *outcome; /* copied */
    int status;
    bool streamed;
    uint64_t prompt_tokens, completion_tokens, cached_tokens;
    bool tokens_known;
    uint64_t request_bytes, response_bytes;
    uint64_t wait_us, ttfb_us, total_us, overhead_us;
    const char *key, *request_id;   /* copied; key "" = none */
    double prefill_tps, decode_tps; /* 0 = unknown */
    const char *asked;              /* copied; the model's name as the client wrote it */
    double cost;                    /* 0 = nothing, or not known */
};
void store_post_request(struct store *s, const struct store_request *r);

struct store_capture { /* texts of a request and its answer, as far as they may be kept */
    int64_t wall_ms;
    const char *request_id, *key, *model, *path, *request, *response; /* copied; the last two cut at 64 KiB */
};
void store_post_capture(struct store *s, const struct store_capture *c);

struct store_decision {
    int64_t wall_ms;
    const char *kind, *model, *instance; /* copied */
    const char *reasons_json;            /* array of {code,text}, the first with the model that it was for */
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

struct store_instance { /* one change of an instance's state */
    int64_t wall_ms;
    const char *instance, *model, *model_path, *state; /* copied */
    int64_t pid;
    int port;
    const char *cause; /* why; "" or NULL if none */
};
void store_post_instance(struct store *s, const struct store_instance *i);

struct store_lesson { /* one thing that a load or a request taught; the planner's learn.h knows the words */
    int64_t wall_ms;
    const char *kind, *model, *runtime, *device, *architecture, *quantization; /* copied */
    bool flash_attn;
    double value, size;
};
void store_post_lesson(struct store *s, const struct store_lesson *l);

struct store_figure { /* one figure that was measured on a machine */
    int64_t wall_ms;
    const char *machine, *device, *name; /* copied; device "host" or a GPU's UUID */
    double value;
};
void store_post_figure(struct store *s, const struct store_figure *f);

struct store_spending { /* what was spent at a server elsewhere so far; a later row replaces the earlier one
                         */
    int64_t wall_ms;
    const char *upstream; /* copied */
    int64_t day, month;   /* that the sums are of; the daemon's spend.h knows the words */
    double in_day, in_month;
};
void store_post_spending(struct store *s, const struct store_spending *p);
/* As with lessons. */
enum rc store_read_spending(const char *path, void (*fn)(void *arg, const struct store_spending *p),
                            void *arg, struct err *err);

/* What was learned, straight from the file: blocking, read only, no store needed. Oldest first, the newest
 * STORE_LEARNED_MAX. Strings are borrowed during the call and never NULL. A file of an older schema has none:
 * RC_OK. RC_NOT_FOUND: no file yet; RC_INVALID: it is corrupt; RC_IO. */
#define STORE_LEARNED_MAX 10000
enum rc store_read_lessons(const char *path, void (*fn)(void *arg, const struct store_lesson *l), void *arg,
                           struct err *err);
/* The figures of one machine, the newer of two with the same name last. */
enum rc store_read_figures(const char *path, const char *machine,
                           void (*fn)(void *arg, const struct store_figure *f), void *arg, struct err *err);

/* Waits until everything posted before the call is written or has failed to be, at most timeout_ms. False:
 * not written (yet). Blocking; not for the loop thread. */
bool store_flush(struct store *s, uint32_t timeout_ms);

/* Blocking reads on a connection of their own, after a flush; rows that could not be written are included.
 * Call them on the work pool or in a command. Newest first; each appends a JSON array to out. model "" = all.
 * Every object has the columns of tables.def and "at" (RFC 3339). */
enum rc store_decisions_json(struct store *s, struct str model, unsigned limit, struct buf *out,
                             struct err *err);
enum rc store_requests_json(struct store *s, struct str model, unsigned limit, struct buf *out,
                            struct err *err);

struct store_filter { /* texts: "" = any */
    struct str model, key, outcome, request_id;
    bool failed;      /* only those whose outcome is not "ok" */
    int64_t since_ms; /* only those from then on */
    unsigned limit;   /* at most 10000 */
};
enum rc store_find_requests(struct store *s, const struct store_filter *f, struct buf *out, struct err *err);
enum rc store_find_captures(struct store *s, const struct store_filter *f, struct buf *out, struct err *err);
/* Sums by key, by model, or by both (by_key, by_model), the most requests first: an array of {"key", "model",
 * "requests", "ok", "prompt_tokens", "completion_tokens", "cached_tokens", "wait_ms", "ttft_ms" and
 * "overhead_ms" (means), "decode_tps" (mean, null if unknown), "busy_ms" (sum of times)}. Rows that could not
 * be written are not counted. */
enum rc store_usage_json(struct store *s, bool by_key, bool by_model, int64_t since_ms, struct buf *out,
                         struct err *err);
enum rc store_measures_json(struct store *s, struct str model, unsigned limit, struct buf *out,
                            struct err *err);
enum rc store_instances_json(struct store *s, struct str model, unsigned limit, struct buf *out,
                             struct err *err);

struct store_health {
    bool writable;     /* false: full disk, read-only file, memory only */
    bool replaced;     /* the file was corrupt and has been moved aside */
    char message[512]; /* "" when all is well */
    uint64_t queued, written, dropped;
};
void store_health(struct store *s, struct store_health *ret); /* thread-safe, never blocks long */

#endif
