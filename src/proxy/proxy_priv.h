/* What the files of the HTTP server share. Layer proxy; loop thread only.
 *
 * struct conn is one client connection with the one request it is answering (struct http_exchange is the same
 * object as the public header sees it); struct up is one connection to a backend. A request's bytes live in a
 * struct msg from the first byte until they can no longer be needed (for a relayed request: until the
 * answer's first byte); an idle connection and a running stream own none.
 *
 * Lifetime: conn_close and up_close take an object out of every list at once; its memory goes away in the
 * next turn of the loop, so callers further up the stack may still look at `phase` or `sock.fd`. */
#ifndef PROXY_PRIV_H
#define PROXY_PRIV_H

#include "dialect/answer.h"
#include "dialect/backend.h"
#include "proxy/account.h"
#include "proxy/auth.h"
#include "proxy/body_form.h"
#include "proxy/body_model.h"
#include "proxy/head.h"
#include "proxy/http.h"
#include "proxy/put.h"
#include "proxy/sock.h"
#include "proxy/wheel.h"

#include <llhttp.h>
#include <sys/uio.h>

#define MSG_BYTES       16384u /* inline; also the limit of a head */
#define MSG_POOL        64u    /* free ones kept */
#define READ_BYTES      65536u /* one read of an answer */
#define READ_HEADROOM   32u    /* before it: a chunk's size line */
#define READ_TAILROOM   16u    /* after it: CRLF and the last chunk */
#define ARENA_BYTES     ((size_t)512 * 1024)
#define BATCH_MAX       64u /* sends that wait for the end of a turn */
#define SCRATCH_BYTES   65536u
#define SEGMENTS        1024u
#define BODY_READ_BYTES ((size_t)256 * 1024)
#define STREAM_PENDING  ((size_t)1024 * 1024)
#define LINGER_MS       2000u
#define LINGER_BYTES    ((size_t)4 * 1024 * 1024)
#define UPSTREAM_IDLE   256u /* kept per endpoint */
#define RELAY_PIECES    6    /* of a request: its head, and a body with two edits */

/* One incoming message: bytes, and the table of its head. */
struct msg {
    struct msg *next;
    char *data; /* own, or a malloc'd block of cap bytes */
    size_t n, cap, parsed;
    size_t head_n; /* where the body starts; 0 while the head is incomplete */
    size_t body_n; /* decoded bytes of the body from head_n on */
    struct head head;
    char own[MSG_BYTES];
};

enum phase {
    PHASE_HEAD, /* idle, or a head is arriving */
    PHASE_BODY,
    PHASE_LOCAL,     /* a local function owes the answer */
    PHASE_STREAM,    /* a local function streams */
    PHASE_TRANSLATE, /* the request is put into the backend's words, off the loop */
    PHASE_PARTS,     /* embed.c asks for its parts */
    PHASE_PUT,       /* embed_put.c makes the answer of them */
    PHASE_LEASE,     /* the route makes us wait */
    PHASE_BACKOFF,   /* it was not served; it is asked again after a while */
    PHASE_CONNECT,   /* to the backend */
    PHASE_SEND,      /* the request is going out */
    PHASE_PREFILL,   /* sent; no complete head of an answer yet */
    PHASE_RELAY,     /* the answer is passing through */
    PHASE_FLUSH,     /* the answer is complete; bytes are pending */
    PHASE_LINGER,    /* last word said; input is discarded until the client closes */
    PHASE_CLOSED
};

struct conn;

struct refusal {
    int status; /* 0 = none */
    enum rc code;
    const char *text;                                   /* static; NULL with 413: names the limit on bodies */
    const char *hint;                                   /* static, or NULL */
    void (*say)(const struct conn *c, struct err *err); /* in place of text and hint, or NULL */
    uint32_t retry_after_s;                             /* 0 = not told */
};

struct endpoint;

/* What each part of a stream touches lies together, from the end of sock on. */
struct conn {
    struct conn *next, *prev;
    struct wheel_entry timer;
    llhttp_t parser;
    struct msg *in;
    size_t discarded;
    bool control, local_peer; /* of the listener; a Unix socket, which needs no key */
    bool processing;
    bool errand;  /* a request of our own: it has no socket, see errand.c */
    bool greeted; /* its first bytes, or the end of its TLS handshake, have come */
    bool owed;    /* gone, but a local function still holds the exchange: its answer frees it */
    bool closed;  /* the handle is closed: only `owed` keeps the memory */
    struct sock sock;
    struct http_server *s;
    uint8_t phase; /* enum phase */
    bool input_paused, half_closed;
    bool broken;   /* the socket is unusable */
    bool ghost;    /* the client is gone, its answer is read to the end all the same; nothing is written */
    uint32_t late; /* see batch.c */
    struct str late_bytes;
    size_t out_n, out_at, out_cap; /* pending output */
    char *out;
    /* ---- the request; zeroed from here on for each one ---- */
    bool complete;        /* the whole request was read */
    bool cut_event;       /* the last read of a stream ended inside an event */
    const char *end_mark; /* of an answer that passes through; NULL = its framing alone tells its end */
    bool saw_end;         /* it is in the last event */
    bool keep_alive, http10, head_only, expect, streamed;
    bool scan_json, scan_form; /* the model is looked for in the body, as `scan` or `form`; not both */
    bool scan_ahead;           /* a body that may be forwarded is scanned, whatever it turns out to be */
    uint8_t method;            /* llhttp_method_t */
    int status;
    struct up *up;
    struct account_tail *tail;
    struct buf *held;          /* see prefill.c; NULL = no event is dropped */
    struct made *made;         /* see made.c; NULL = the answer passes through */
    struct progress *progress; /* see progress.c; NULL = the client does not ask how far it is */
    bool told;                 /* the client has the answer's head already, from progress.c */
    bool awake;                /* the answer has begun: nothing is held any more */
    uint64_t response_bytes;
    uint64_t t_body; /* these: monotonic µs; 0 = not reached; t_wait_us is a length */
    uint64_t t_head, t_wait_from, t_wait_us, t_sent, t_upstream_end;
    struct refusal refusal;
    bool refusal_waits; /* for the end of the request: the connection can be kept */
    unsigned allow;     /* methods of the path, for a 405 */
    const struct http_route *route;
    const struct dialect_call *call; /* of what is relayed; NULL = none that is known */
    struct str target, path, query;  /* in `in`, or path in path_buf */
    char *path_buf;
    uint64_t content_length; /* declared; UINT64_MAX = chunked */
    uint64_t request_bytes;
    const char *outcome;
    char id_text[40];
    struct auth_key *key; /* see admit.c; NULL = none was asked for */
    bool admitted;
    int32_t priority;
    struct capture *capture; /* see capture.c; NULL = nothing is kept */
    int64_t wall_ms;
    void (*abort_fn)(void *arg);
    void *abort_arg;
    /* relay */
    struct translation *job;
    struct embed *embed;      /* in PHASE_PARTS: what came of it so far */
    struct embed_put *put;    /* in PHASE_PUT */
    struct dialect_wish wish; /* beside an answer; it outlives a translation that no backend needs */
    void *wait;
    bool leased, lease_broken, recorded;
    bool forwarded, observe; /* by a local function, see forward.c */
    uint8_t attempts;        /* without a pause */
    uint8_t retries;         /* after pauses */
    uint8_t address;         /* of the lease's, which is tried */
    uint32_t tried;          /* choices that the route shall not offer again */
    struct account usage;
    struct str model;
    /* ---- not zeroed as a whole: see request_reset ---- */
    union {
        struct body_model scan;
        struct body_form form;
    };
    struct route_lease lease;
    char model_text[256];
};

/* To users a request is an opaque http_exchange; here it is its connection. */
static inline struct conn *conn_of(const struct http_exchange *ex)
{
    return (struct conn *)(uintptr_t)ex;
}
static inline struct http_exchange *exchange_of(struct conn *c)
{
    return (struct http_exchange *)(void *)c;
}

/* Whether its answer comes from an instance, so that it is accounted for. */
static inline bool conn_relays(const struct conn *c)
{
    return c->forwarded || (c->route && !c->route->local);
}

enum up_state { UP_CONNECTING, UP_HANDSHAKE, UP_BUSY, UP_IDLE };
enum up_framing { FRAME_NONE, FRAME_LENGTH, FRAME_CHUNKED, FRAME_EOF };

struct up {
    struct endpoint *end;
    struct up *next, *prev; /* of all, for shutting down */
    struct up *idle_next, *idle_prev;
    struct wheel_entry timer; /* idle: when it is closed; busy: a limit of its answer */
    struct msg *in;           /* while the answer's head is incomplete */
    uint64_t length;          /* of a length-delimited answer */
    /* what is left of a request that the socket did not take at once */
    char *pending; /* head, spliced name, small body */
    struct iovec iov[RELAY_PIECES];
    int n_iov;     /* 0 = all sent */
    uint32_t late; /* see batch.c */
    struct sock sock;
    struct http_server *s;
    struct conn *c;         /* whose request it carries; NULL when idle */
    uint8_t state, framing; /* enum up_state, enum up_framing */
    bool reused, got_bytes, head_done, message_done, interim, keep_alive;
    bool cut;                     /* the answer came before all of the request was sent */
    bool raw_ok, in_chunk, clean; /* see response_frame.c */
    bool limited;                 /* see relay_limit.c, as the next two: loop time, ms */
    uint64_t sent_ms, heard_ms;   /* heard_ms 0 = nothing of the answer came yet */
    llhttp_t parser;
};

struct endpoint {
    struct endpoint *next;
    char host[46];
    uint16_t port;
    struct tls_context *tls; /* held; NULL = without TLS */
    char *name;              /* whom the certificate must be for; owned; NULL without TLS */
    struct up *idle;         /* latest first */
    uint32_t n_idle, n_busy;
};

struct listener {
    struct listener *next;
    struct sock sock;
    struct http_server *s;
    bool control, is_unix, tls, paused;
    struct wheel_entry retry; /* of accepting, when descriptors ran out */
    char address[128];
};

struct segment {
    char *p;
    size_t n;
};

struct http_server {
    uv_loop_t *loop;
    struct http_options opt;
    char *cors_origin, *allowed_hosts;
    struct tls_context *tls; /* NULL = no listener needs it */
    struct auth *auth;
    struct wheel wheel;
    struct listener *listeners;
    size_t n_listeners;
    struct conn conns; /* list head (only next and prev are used) */
    struct up ups;     /* list head */
    struct endpoint *endpoints;
    struct msg *free_msgs;
    uint32_t n_free_msgs;
    uint32_t handles; /* open or closing */
    bool draining, timer_closed;
    void (*closed)(void *arg);
    void *closed_arg;
    struct http_counters count;
    struct embed_line *embed_lines;
    uint64_t id_seed;
    uint64_t id_count;
    size_t *route_n; /* length of each route's path, without the star of a prefix */
    char date[32];
    int64_t date_s;
    int64_t wall_offset_us; /* wall clock − monotonic clock, when last looked at */
    uint64_t wall_checked_us;
    struct segment segments[SEGMENTS];
    uint32_t n_segments;
    const char *payload_end; /* of the last segment, where llhttp found it */
    uv_check_t check;
    bool deferring;
    uint32_t n_late_conns, n_late_ups;
    struct conn *late_conns[BATCH_MAX];
    struct up *late_ups[BATCH_MAX];
    size_t arena_at;
    char scratch[SCRATCH_BYTES];
    char arena[ARENA_BYTES];
};

/* ---- server.c ---- */
struct msg *msg_get(struct http_server *s);
void msg_put(struct http_server *s, struct msg *m); /* NULL is fine */
/* Room for `total` bytes; false when memory is short. Accounts for bodies in flight. */
bool msg_grow(struct http_server *s, struct msg *m, size_t total);
void server_handle_closed(struct http_server *s);
void server_drain_step(struct http_server *s); /* after a connection left */
void server_resume_listeners(struct http_server *s);
const char *server_date(struct http_server *s);
int64_t server_wall_ms(struct http_server *s, uint64_t mono_us);

/* ---- batch.c ---- */
/* n bytes of the turn's block, at most READ_BYTES and its rooms; flushes first if they are not there. */
char *batch_room(struct http_server *s, size_t n);
void batch_keep(struct http_server *s, const char *end); /* up to there it is in use until the flush */
void batch_begin(struct http_server *s);                 /* in the poll phase: the flush follows */
/* Puts off a send; false if it must be done now. bytes lie in the turn's block. */
bool batch_conn(struct conn *c, struct str bytes);
bool batch_up(struct up *u); /* of u->iov */
void batch_forget_conn(struct conn *c);
void batch_forget_up(struct up *u);
void batch_flush_conn(struct conn *c);
void batch_flush(struct http_server *s);

/* ---- conn.c ---- */
void conn_accept(struct listener *l, int fd);
/* Sends or queues; false when the connection is gone (conn_lost was called). */
bool conn_write(struct conn *c, const struct iovec *iov, int n);
/* The same; the last of iov is the content of *own, which is taken where that saves copying it. */
bool conn_write_taking(struct conn *c, const struct iovec *iov, int n, struct buf *own);
/* The answer is complete: goes on to the next request or closes, at once or when pending bytes are out. */
void conn_answered(struct conn *c);
/* The client is gone, or its answer broke: cancels what is under way and closes. abort sends RST. */
void conn_lost(struct conn *c, const char *outcome, bool abort);
void conn_process(struct conn *c);
/* Puts a conn without a socket into the list. */
void conn_open_errand(struct conn *c, struct http_server *s);
void conn_watch(struct conn *c); /* sets the poll mask that the phase needs */
void conn_deadline(struct conn *c, uint64_t after_ms);
static inline size_t conn_pending(const struct conn *c)
{
    return c->out_n - c->out_at;
}
/* A local function is done with the exchange of a client that is gone. True if it was gone. */
bool conn_settle(struct conn *c);
/* Gives the request's bytes back unless pipelined input follows them. */
void conn_release_input(struct conn *c);

/* ---- request.c ---- */
void request_reset(struct conn *c); /* ready for the next one */
/* Parses what is buffered: sets phase BODY, or dispatches, or refuses. */
void request_parse(struct conn *c);
const char *request_method_name(const struct conn *c);

/* ---- dispatch.c ---- */
/* Route, method, key, size: called when the head is complete. Sets c->refusal if the request is refused. */
void dispatch_head(struct conn *c);
/* Called when the whole request is there. */
void dispatch_request(struct conn *c);

/* The call at a path; NULL if there is none. */
const struct dialect_call *dispatch_call(const struct http_server *s, struct str path);
/* How often the query has the key. */
size_t dispatch_query_count(const struct conn *c, const char *key);

/* ---- admit.c ---- */
/* Finds the key and what it may do: sets c->key, or a refusal. Called with the head complete and the route
 * found. */
void admit_head(struct conn *c);
/* Whether the key may use c->model, and may ask now; false: answered. */
bool admit_model(struct conn *c);
/* Pays for the request and lets the key go. May be called more than once. */
void admit_end(struct conn *c);
/* The fields that tell what is left of the key's limits. */
void admit_fields(const struct conn *c, struct put *w);

/* ---- capture.c ---- */
void capture_begin(struct conn *c); /* if the key allows it */
void capture_sent(struct conn *c, const struct iovec *iov, int n);
struct str capture_request(const struct conn *c);
void capture_response(const struct conn *c, struct buf *out); /* its body, without framing */
void capture_end(struct conn *c);

/* ---- local.c, errors.c ---- */
/* Status line and the fields that every answer of our own has, ending before the empty line. */
size_t local_head(struct conn *c, int status, const char *content_type, char *out, size_t cap);
/* The same of a stream, complete. */
size_t local_stream_head(struct conn *c, int status, const char *content_type, char *out, size_t cap);
/* Fields for browsers, if the request has an Origin that may read us. */
size_t local_cors(const struct conn *c, char *out, size_t cap);
bool local_origin_allowed(const struct conn *c);
void local_preflight(struct conn *c);
void local_allow(unsigned methods, struct put *w); /* the field Allow, at most 64 bytes */
void local_reply(struct conn *c, int status, const char *content_type, const char *more_fields,
                 struct str body);
/* The same with a body that may be large: its memory is taken rather than copied, *body is empty then. */
void local_reply_taking(struct conn *c, int status, const char *content_type, const char *more_fields,
                        struct buf *body);
const char *errors_reason(int status);
void errors_reply(struct conn *c, int status, const struct err *err, uint32_t retry_after_s);
void errors_refuse(struct conn *c,
                   const struct refusal *r); /* answers and closes if the input is not consumed */

/* ---- relay_lease.c ---- */
void relay_begin(struct conn *c);
void relay_start(struct conn *c);   /* the same with c->model found already */
void relay_acquire(struct conn *c); /* asks the route; goes on to the backend when it has a lease */
void relay_stop_waiting(struct conn *c);
void relay_give_back(struct conn *c, enum route_end end); /* the lease, if there is one */

/* What the client asks for, as far as it may. */
enum route_priority relay_priority(const struct conn *c);

/* ---- errand.c ---- */
/* A request of our own for a client: relayed like the client's, with the same route, key and wish, but it is
 * neither recorded nor charged. */
struct errand_end {
    int status;             /* 0 = it broke off */
    const struct conn *c;   /* its lease and its times */
    struct str error;       /* the body, if status is not 200 */
    uint32_t retry_after_s; /* 0 = not told */
};
/* ends: called once, possibly inside this call, unless it is cancelled. model is copied; *ask is taken over.
 * Returns NULL if it has ended. */
struct errand *errand_start(struct conn *client, struct str model, const struct dialect_call *call,
                            struct dialect_ask *ask, void (*ends)(void *arg, const struct errand_end *end),
                            void *arg);
void errand_cancel(struct errand *e);
void errand_written(struct conn *c, const struct iovec *iov, int n); /* what a client would have got */
void errand_closed(struct conn *c);                                  /* its conn is in no list any more */

/* ---- embed.c ---- */
/* Asks for what made_embed tells, in parts, and answers. */
void embed_begin(struct conn *c);
void embed_cancel(struct conn *c); /* the client left */

/* ---- embed_put.c ---- */
struct embed_vectors {
    char **items; /* JSON texts, owned */
    size_t n;
    size_t counted; /* of their bytes, among those of bodies in flight */
    struct embed_sum sum;
    uint32_t batches;
};
/* Answers with these, which it takes over; large answers are made off the loop. */
void embed_put_start(struct conn *c, const struct embed_vectors *v);
void embed_put_cancel(struct conn *c);         /* the client left meanwhile */
void embed_free_items(char **items, size_t n); /* NULL is fine */

/* ---- relay.c ---- */
/* Takes a connection to the lease's backend and sends the request. fresh: none that served before. */
void relay_connect(struct conn *c, bool fresh);
void relay_connected(struct up *u);
/* The upstream connection failed or ended before its answer did; sys_errno 0 = a FIN. */
void relay_upstream_died(struct up *u, int sys_errno);
void relay_answer_done(struct conn *c); /* upstream's part is over: gives lease and connection back */
void relay_cancel(struct conn *c, enum phase was); /* the client is gone */
/* The client is told of an error: with a status, or within its stream if that has a head already. */
void relay_say_error(struct conn *c, int status, const struct err *err, uint32_t retry_after_s);
void relay_fail(struct conn *c, int status, const char *outcome, const struct err *err);
/* The same, leaving the backend in the middle of its answer. */
void relay_leave(struct conn *c, int status, const char *outcome, const struct err *err);
/* Leaves the backend, whose answer the client has in part. */
void relay_break_off(struct conn *c);
void relay_again(struct up *u); /* this answer is read: another request goes out on the same lease */
void relay_timeout(struct conn *c);
/* A limit of the answer ran out: *err says which, end is what the route is told. */
void relay_too_late(struct up *u, enum route_end end, const struct err *err);

/* ---- relay_send.c ---- */
void relay_send(struct conn *c);
void relay_send_now(struct up *u);
void relay_continue_send(struct up *u);

/* ---- relay_limit.c ---- */
enum answer_limit { ANSWER_FIRST_BYTE, ANSWER_EVENT_GAP, ANSWER_TOTAL };
void limit_begin(struct up *u); /* a request is about to be sent */
void limit_heard(struct up *u); /* of those that are limited: a piece of the answer came */
void limit_ran_out(struct up *u);

/* ---- relay_record.c ---- */
void relay_record(struct conn *c); /* accounts for a request that ended */

/* ---- relay_retry.c: each says whether the request goes on, there, elsewhere or later; see retry.h ---- */
/* No connection could be made, and nothing was sent. The lease was given back then. untrusted: for TLS's
 * sake. */
bool retry_unsent(struct conn *c, bool untrusted);
/* The connection, which is gone, ended before the answer. unanswered: it had served before, and no byte came.
 */
bool retry_closed(struct conn *c, bool unanswered);
/* The head of an answer is there. u is gone if it is left for another try. */
bool retry_unserved(struct up *u);
void retry_now(struct conn *c); /* the pause is over */

/* ---- relay_remote.c: a request to a server beyond this machine, and what may come back ---- */
void remote_put_head(struct conn *c, struct put *w, uint64_t body_n);
/* Fields of an answer that the client does not get. */
void remote_hide_fields(bool drop[HDR_COUNT]);
/* What the model is called where the request goes. */
const char *relay_model_there(const struct conn *c);

/* ---- upstream.c ---- */
struct up_target {
    const char *host; /* numeric */
    uint16_t port;
    struct tls_context *tls; /* NULL = without TLS */
    const char *name;        /* in the certificate; with TLS only */
};
/* An idle connection that is alive, or a new one being made; NULL with errno when none can be made. */
struct up *upstream_get(struct http_server *s, const struct up_target *to, bool fresh);
void upstream_park(struct up *u);
void up_close(struct up *u);
void up_watch(struct up *u, bool read, bool write);
void upstream_free_endpoints(struct http_server *s);

/* A change of the body: text in place of n bytes at `at`. */
struct edit {
    size_t at, n;
    struct str text;
};

/* ---- model.c ---- */
/* The name of the model that the request asks for, into c->model; empty if it names none. False: *err says
 * what is wrong with the body or the query. */
bool model_find(struct conn *c, struct err *err);
/* The change that puts the lease's name in its place; its text goes into `text`. False if none is needed. */
bool model_edit(const struct conn *c, struct put *text, struct edit *ret);

/* ---- translate.c ---- */
enum translate_step { TRANSLATE_READY, TRANSLATE_LATER, TRANSLATE_REFUSED };
/* Translates the request of a call that wants it before a model is chosen (early), or that the lease's
 * backend does not speak. READY: go on, translated or as it is; LATER: go_on is called when it is; REFUSED:
 * *err says why. */
enum translate_step translate_request(struct conn *c, bool early, void (*go_on)(struct conn *c),
                                      struct err *err);
void translate_cancel(struct conn *c); /* the client left meanwhile */

/* ---- made.c ---- */
struct made;
/* ---- its request ---- */
/* The answer will be made, of what comes for this request; takes *ask over. */
void made_take(struct conn *c, const struct dialect_call *call, struct dialect_ask *ask);
/* The change of the client's own body that asks for a stream where it asked for none; false if there is none.
 * If there is, a plain answer will be made. */
bool made_splice(struct conn *c, struct edit *ret);
/* Whether the backend gets a request of our own: then where, its body, the change that it needs (its text
 * goes into `text`), and whether the backend is asked at all. */
bool made_translated(const struct conn *c);
const struct dialect_ask *made_ask(const struct conn *c); /* that request; NULL = the client's own */
/* The backend whose words it is in; NULL = OpenAI's. */
const struct dialect_backend *made_via(const struct conn *c);
struct str made_target(const struct conn *c); /* of any request: the client's own, if it is not ours */
struct str made_body(const struct conn *c);
void made_body_edit(struct conn *c, struct put *text, struct edit *ret);
bool made_nothing(const struct conn *c);
/* What is to be embedded, if the request may be sent in parts; NULL = not. */
const struct embed_ask *made_embed(const struct conn *c);
/* The client's answer of OpenAI's whole document, of which *doc may be used up; false if none can be made of
 * it. Any thread, if m was taken from its conn. */
struct made_terms {
    size_t max;                          /* bytes */
    int64_t begun_us, waited_us, now_us; /* as in struct completion */
};
bool made_document(struct made *m, const struct made_terms *terms, struct buf *doc, struct buf *out);
void made_start(
    struct conn *c); /* a request is about to be sent: what comes back is read from its beginning */
/* ---- its answer ---- */
/* The answer where the backend is not asked. */
void made_answer_now(struct conn *c, struct buf *out);
/* The head is there: whether the answer is made; if not, it passes through from here on. */
bool made_begin(struct up *u);
bool made_until_eof(const struct conn *c); /* its end is that of the connection */
bool made_is_done(const struct conn *c);   /* the end mark came: what is still to come is framing */
bool made_has_begun(const struct conn *c); /* something of the answer itself came */
bool made_streams(const struct conn *c);   /* the client gets the stream form */
const char *made_type(const struct conn *c);
enum made_step {
    MADE_MORE,  /* `out` goes to the client, if there is anything */
    MADE_WHOLE, /* it is the last */
    MADE_AGAIN, /* another request must be sent: relay_again */
    MADE_FAILED /* the request was failed or its stream broken off; u is gone */
};
/* Whatever comes of this answer, it is none that can be passed on: the rest of it is read for its reason. */
void made_expect_error(struct up *u);
/* Takes what the server's segments hold. status is what the client's head says, if it has none yet. */
enum made_step made_feed(struct up *u, struct buf *out, int *ret_status);
/* A stream that the client has the head of, made or passed on, ends here with the dialect's last words. */
void made_broken(struct conn *c, const char *outcome, const struct err *err);
void made_account(struct conn *c); /* tokens and times, for the record */
void made_release(struct conn *c);
void made_free(struct http_server *s, struct made *m); /* NULL is fine */

/* ---- prefill.c ---- */
/* The change that makes a stream report its progress; false if there is none. If there is, events will be
 * dropped. */
bool prefill_edit(struct conn *c, struct edit *ret);
/* Leaves in the server's segments what of the read's payload belongs to the answer. */
void prefill_filter(struct up *u);
void prefill_release(struct conn *c);

/* ---- progress.c ---- */
void progress_begin(struct conn *c); /* about to ask for a lease: if the client wants to know how far it is */
void progress_tell(struct conn *c);  /* what it does not know yet; c may be closed by it */
void progress_release(struct conn *c);

/* ---- response.c ---- */
void response_readable(struct up *u);
/* An answer made here is whole but for the backend's framing, which will not come. */
void response_end_made(struct up *u);
/* Ends a stream made here with its last words (READ_HEADROOM bytes in), and with a connection that breaks
 * off. */
void response_break_off(struct conn *c, const char *outcome, struct buf *last_words);
/* The content of `out` (READ_HEADROOM bytes in), framed in place as the next piece of the client's stream. */
struct str response_stream_piece(const struct conn *c, struct buf *out, bool last);
/* Sends a part of an answer and takes the step that follows from it. */
void response_send(struct conn *c, const struct iovec *iov, int n);

/* ---- response_parse.c ---- */
void response_start(struct up *u); /* the next bytes are those of a new answer */
/* Whole chunks and nothing else, checked byte by byte: true, and their payloads are the segments. */
bool response_take_chunks(struct up *u, char *p, size_t n);
void response_compact(struct http_server *s); /* makes one segment of all */

/* ---- response_head.c ---- */
void response_put_head(struct up *u, struct put *w);
void response_put_lease(const struct conn *c, struct put *w); /* the fields that tell of the lease */

/* ---- response_frame.c ---- */
/* The bytes that go out for the segments of one read, contiguous. raw covers the read. */
struct str response_frame(struct up *u, struct str raw, bool first);
/* The payload as one chunk, in place, and behind it the last one; it has READ_HEADROOM and READ_TAILROOM. */
struct str response_frame_chunk(struct str payload, bool last);

/* ---- response_count.c ---- */
void response_count(struct up *u, bool first); /* what the segments hold */
void response_count_end(struct conn *c);       /* the whole is there: into c->usage */

#endif
