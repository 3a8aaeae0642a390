/* The HTTP/1.1 server of data plane and control API: libuv streams, llhttp. Layer proxy; loop thread only.
 *
 * A server listens on TCP addresses and Unix sockets; each request is matched against the route table by
 * method and path. A local route is answered by a function with a whole body (bounded); a relay route is
 * streamed to an upstream found through struct route_ops. */
#ifndef PROXY_HTTP_H
#define PROXY_HTTP_H

#include "base/buf.h"
#include "base/err.h"
#include "dialect/dialect.h"
#include "proxy/auth.h"
#include "proxy/route.h"
#include "proxy/tls.h"

#include <uv.h>

struct http_server;
struct http_exchange; /* one request and its answer; valid until replied or aborted */

enum http_method_set { HTTP_M_GET = 1, HTTP_M_POST = 2, HTTP_M_DELETE = 4, HTTP_M_PUT = 8 };

/* Answers a local route. The exchange's request parts are valid until the answer; the function must cause
 * exactly one http_reply*, now or later (see http_on_abort). */
typedef void (*http_local_fn)(void *arg, struct http_exchange *ex);

struct http_route {
    const char *path; /* exact, or a prefix when it ends with "/" + "*" : "/api/arriero/v1/instances/" "*" */
    unsigned methods; /* enum http_method_set bits; HEAD is answered wherever GET is */
    http_local_fn local; /* NULL = relay */
    void *arg;
    bool control;                    /* only on listeners marked control */
    bool open;                       /* answered without a key even where keys are set (health checks) */
    bool forwards;                   /* a local one that may call http_forward with a body */
    bool scoped;                     /* a local one that a key for some models only may use: it heeds them */
    enum dialect_id dialect;         /* of its errors, and of what is relayed */
    const struct dialect_call *call; /* of a relay that backends may not speak; NULL = passed on as it is */
};

/* One finished (or broken) relayed request, for accounting; borrowed during the call. */
struct http_record {
    int64_t wall_ms;              /* start */
    const char *model, *instance; /* "" if it never got one */
    const char *asked;            /* the model's name as the client wrote it; "" = none */
    const char *path;
    int status;          /* sent to the client; 0 = nothing was sent */
    const char *outcome; /* "ok", "client_closed", "truncated", "upstream_error", "refused", "timeout" */
    bool streamed;
    uint64_t request_bytes, response_bytes;
    uint64_t prompt_tokens, completion_tokens, cached_tokens; /* from usage/timings; 0 if not told */
    bool tokens_known;
    /* the runtime's own clock, see account.h; zeros if it told none */
    uint64_t timing_prompt_tokens, timing_prompt_us, timing_decode_tokens, timing_decode_us;
    uint64_t wait_us; /* for the lease */
    uint64_t ttfb_us; /* client's head complete → first byte of the answer's body */
    uint64_t total_us;
    uint64_t overhead_us;                   /* total − waiting for lease and upstream */
    const char *request_id;                 /* X-Request-Id, as the client saw it */
    struct str key_id;                      /* as in struct route_request */
    struct str request_text, response_text; /* empty unless the key allows captures; bounded, not redacted */
};

struct http_options {
    uv_loop_t *loop;
    const struct http_route *routes; /* borrowed, constant */
    size_t n_routes;
    struct route_ops route;
    uint64_t max_body_bytes;     /* default 64 MiB; 413 names it */
    uint64_t body_budget_bytes;  /* over all requests in flight; default 512 MiB; 503 past it */
    uint64_t header_timeout_ms;  /* default 15 s for a head, and between body reads */
    uint64_t idle_timeout_ms;    /* keep-alive; default 75 s */
    uint64_t connect_timeout_ms; /* upstream; default 5 s */
    uint64_t upstream_idle_ms;   /* reuse of upstream connections; default 4 s */
    /* Of an answer, 0 = none (default): from the request to the first byte of its body, between two pieces,
     * from the request to its end (a lease may have one of its own). Waiting for the lease does not count. */
    uint64_t first_byte_ms, event_gap_ms, total_ms;
    void (*record)(void *arg, const struct http_record *r); /* may be NULL */
    void *record_arg;
    const struct auth_spec *keys; /* see auth.h; borrowed during the call */
    size_t n_keys;
    struct tls_context *tls; /* of listeners with TLS; borrowed during the call; NULL = as before */
    bool keys_required;      /* a key is asked for even if there is none */
    uint64_t
        write_timeout_ms; /* a client that takes no byte of a pending answer so long is cut; default 60 s */
    bool half_close_keep; /* a client's FIN after its request is not a disconnect; default false */
    /* Both separated by commas, see guard.h; they bind requests that need no key. */
    const char *cors_origin;   /* pages that may ask; NULL = "loopback", "" = none */
    const char *allowed_hosts; /* names in Host beside addresses and localhost; NULL = none */
    /* A request that was not served is sent again: so often, after a pause of retry_base_ms, twice that and
     * so on, at most retry_longest_ms. Defaults: 3, 1 s, 30 s. */
    uint32_t retry_max;
    uint64_t retry_base_ms, retry_longest_ms;
    bool collect_plain;       /* plain answers are collected where the lease can, see route.h; default true */
    uint32_t embed_batch;     /* texts of one request to an instance; default 32 */
    uint64_t embed_join_ms;   /* texts of several requests are gathered so long; 0 = not; default 2 ms */
    uint32_t max_connections; /* further ones wait in the backlog; default 16384 */
};
void http_options_default(struct http_options *o);

enum rc http_server_new(const struct http_options *opt, struct http_server **ret_server, struct err *err);
enum http_listen { HTTP_LISTEN_CONTROL = 1, HTTP_LISTEN_TLS = 2 };
/* "127.0.0.1:8080", "[::1]:8080", ":0" picks a port (see http_server_address). flags: enum http_listen.
 * RC_BUSY names a port in use; RC_INVALID: TLS without a context. */
enum rc http_listen_tcp(struct http_server *s, const char *address, unsigned flags, struct err *err);
/* Mode 0600; a stale socket file is replaced, a living one is RC_BUSY. */
enum rc http_listen_unix(struct http_server *s, const char *path, bool control, struct err *err);
/* "127.0.0.1:41873" of the i-th listener; "" past the end. Borrowed. */
const char *http_server_address(const struct http_server *s, size_t i);
/* "http" or "https" of the i-th listener, "" of a Unix socket and past the end. */
const char *http_server_scheme(const struct http_server *s, size_t i);

/* ---- local routes ---- */
struct str http_method(const struct http_exchange *ex);
struct str http_path(const struct http_exchange *ex);   /* decoded path without query */
struct str http_target(const struct http_exchange *ex); /* path and query as they came */
bool http_query(const struct http_exchange *ex, const char *key, char *out,
                size_t cap);                                                    /* decoded; false = absent */
struct str http_header(const struct http_exchange *ex, const char *lower_name); /* empty = absent */
struct str http_body(const struct http_exchange *ex);
void http_reply(struct http_exchange *ex, int status, const char *content_type, struct str body);
/* Whether the one who asks may use the model; true where no key was asked for. */
bool http_may_use(const struct http_exchange *ex, struct str model);
/* Whether there may be models that the one who asks may not use. */
bool http_key_is_limited(const struct http_exchange *ex);
/* Whether the request came with a key that is valid; false where none was asked for. */
bool http_is_keyed(const struct http_exchange *ex);
/* {"error":{"message","type","code","param":null,"hint"}} with the status of the code. */
void http_reply_err(struct http_exchange *ex, const struct err *err, uint32_t retry_after_s);
/* 301, 302, 307 or 308; location is a path of this server. */
void http_redirect(struct http_exchange *ex, int status, struct str location);
/* In place of an answer: hands the request on to an instance, as a relayed route does, with the words of the
 * client's. To be called by the local function itself, not later; of a body only where the route says
 * `forwards`. */
struct http_forward {
    struct str model; /* as the client wrote it; copied */
    size_t skip;      /* bytes of http_path that the backend does not see; what is left begins with a slash */
    bool observe;     /* see route_request */
};
void http_forward(struct http_exchange *ex, const struct http_forward *how);
/* Called when the client goes away before the answer; the exchange is gone after it. */
void http_on_abort(struct http_exchange *ex, void (*fn)(void *arg), void *arg);
/* A long-lived answer (SSE, log tail): head now, chunks later, end. stream_write returns false when the
 * client is too slow (over 1 MiB unsent) or gone, or asked for the head only: the caller ends it, soon; no
 * abort callback follows a false. A client that leaves between writes is told through http_on_abort, and the
 * exchange is gone: do not end it then. */
void http_stream_start(struct http_exchange *ex, int status, const char *content_type);
bool http_stream_write(struct http_exchange *ex, struct str bytes);
void http_stream_end(struct http_exchange *ex);

struct http_counters {
    uint64_t connections_total, requests_total, relayed_total, client_aborts, upstream_errors, retried;
    uint32_t connections, relaying, waiting;
    uint64_t body_bytes_in_flight;
};
void http_server_counters(const struct http_server *s, struct http_counters *ret);
/* The i-th key in use with what it has spent; NULL past the end. Borrowed until the loop goes on. */
const struct auth_key *http_server_key(const struct http_server *s, size_t i);

/* Replaces limits and keys of a running server (loop, routes and hooks ignored). */
void http_server_configure(struct http_server *s, const struct http_options *opt);
/* Closes the listeners; ends idle connections; busy ones end after their answer. closed(arg) when none is
 * left. */
void http_server_drain(struct http_server *s, void (*closed)(void *arg), void *arg);
/* Aborts what is left; then closed. */
void http_server_abort(struct http_server *s);
void http_server_free(struct http_server *s); /* after closed; NULL is fine */

#endif
