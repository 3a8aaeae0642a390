/* Servers elsewhere (upstreams): which there are, what may be asked of them, and leases on them. Layer
 * daemon; the loop thread, but for remote_set_build.
 *
 * A set is what one configuration says and does not change. What goes on (breaker, spending, requests under
 * way, addresses) is a state by name, which the set of a reload takes over. Leases and waits hold the server
 * that they were given for, whatever becomes of its set. A server whose key or certificates cannot be read is
 * there and refuses: local models do not depend on it. */
#ifndef DAEMON_REMOTE_H
#define DAEMON_REMOTE_H

#include "base/json.h"
#include "daemon/config.h"
#include "daemon/spend.h"
#include "pool/pool.h"
#include "proxy/route.h"

struct remote;
struct remote_set;
struct remote_wait;

struct remote_model {
    const char *id;                   /* "openai/fast": by which it is known here */
    const char *name;                 /* "fast" */
    const char *remote;               /* "gpt-4o-mini": what it is called there */
    struct config_list roles;         /* that it plays: names of it too */
    double price_input, price_output; /* of a million tokens; 0 = none */
    struct remote *of;
};

/* ---- the set ---- */

/* Reads keys and certificates; blocking, any thread. getenv: NULL = getenv(3). RC_NOMEM only. */
enum rc remote_set_build(const struct config *c, const char *(*getenv_fn)(const char *name),
                         struct remote_set **ret_set, struct err *err);
/* From now on it is used on this loop. old: its states go on in the new one; NULL = none. */
void remote_set_start(struct remote_set *s, uv_loop_t *loop, struct remote_set *old);
void remote_set_free(struct remote_set *s); /* NULL is fine; leases may outlive it */

size_t remote_set_models(const struct remote_set *s);
const struct remote_model *remote_set_model(const struct remote_set *s, size_t i);
/* By id or role, letter by letter; NULL if there is none. */
const struct remote_model *remote_find(const struct remote_set *s, struct str id);
/* By the name alone, of the first server that has it. */
const struct remote_model *remote_find_name(const struct remote_set *s, struct str name);
/* Why one of its servers cannot be used now, for the i-th server; NULL = it can. */
const struct err *remote_problem(const struct remote_set *s, size_t i);
size_t remote_set_n(const struct remote_set *s);

/* ---- how one is ---- */

enum remote_fare { REMOTE_UNKNOWN, REMOTE_WELL, REMOTE_ILL };
/* How the server of a model is, and why it is ill (*ret_why, borrowed until the next turn). It is asked for
 * GET /health, or for its models where it has no such page, by who calls this every few seconds: 5xx and no
 * answer are ill. One with TLS is judged by the requests that it gets, as is one whose breaker is open. */
enum remote_fare remote_watch(const struct remote_model *m, const char **ret_why);
/* The address as it was configured. */
const char *remote_url(const struct remote_model *m);
/* No question of any server goes on; before the loop ends. NULL is fine. */
void remote_set_stop(struct remote_set *s);

/* ---- leases ---- */

struct remote_lease {
    struct route_remote out; /* what the proxy needs; valid until release */
    const struct remote_model *model;
    const char *name; /* the server's */
    bool priced;      /* its tokens cost something */
    unsigned speaks;
    uint32_t timeout_ms;
    uint32_t position, expected_ms; /* in line when it came; 0 = there was none */
    uint64_t since_ms;              /* of clock_mono_ms */
};
struct remote_request {
    unsigned answered_by; /* DIALECT_BITs of APIs that have such a request */
    struct str path;      /* for messages; borrowed during the call */
    uint32_t waited_ms;   /* by earlier attempts */
};
/* lease NULL: err and retry_after_s tell why. Never called inside remote_acquire. */
typedef void (*remote_cb)(void *arg, struct remote_lease *lease, const struct err *err,
                          uint32_t retry_after_s);
/* GRANTED: *ret_lease, to be given back with remote_release. WAITING: for an address or for its turn, until
 * the callback or remote_cancel; limits.queue_wait ends it with RC_BUSY. REFUSED: RC_UNSUPPORTED (its API has
 * no such request), RC_BACKEND (no key, breaker, no address), RC_TOO_MANY (it asked for a rest, too many
 * wait, the spending limit is reached: the message has the time of its reset). */
enum pool_answer remote_acquire(const struct remote_model *m, const struct remote_request *q, remote_cb cb,
                                void *arg, struct remote_lease **ret_lease, struct remote_wait **ret_wait,
                                uint32_t *ret_retry_after_s, struct err *err);
void remote_cancel(struct remote_wait *w);
/* Its place in line, 1 is next (0: it waits for the address only), and how long that is expected to take. */
void remote_look(const struct remote_wait *w, uint32_t *ret_position, uint64_t *ret_expected_ms);
/* rest_s: it asked not to be asked again for so long; 0 = it did not. */
void remote_release(struct remote_lease *l, enum route_end end, uint32_t rest_s);

/* ---- spending ---- */

/* Counts tokens; the price of them, 0 where no prices are known. *ret_name, *ret_sums: what is to be kept. */
double remote_charge(const struct remote_model *m, uint64_t prompt_tokens, uint64_t completion_tokens,
                     int64_t wall_ms, const char **ret_name, struct spend *ret_sums);
/* What an earlier run kept. */
void remote_restore(struct remote_set *s, const char *name, const struct spend *sums);

/* ---- views ---- */

/* Array of servers: name, url, dialect, models, prices (by model: input, output), state ("ready", "resting",
 * "unusable"), breaker, running, max_concurrency, waiting, requests, failures, idle_ms, spent_day,
 * spent_month, limit_day, limit_month, last_error (of the time since the last good answer). Never a key. */
yyjson_mut_val *remote_set_json(const struct remote_set *s, yyjson_mut_doc *doc);
/* OpenAI's object of a model. */
yyjson_mut_val *remote_model_json(const struct remote_model *m, yyjson_mut_doc *doc);

#endif
