/* What the proxy knows of the world behind it: an abstract route. Layer proxy; loop thread only. The daemon
 * implements it over the pool. */
#ifndef PROXY_ROUTE_H
#define PROXY_ROUTE_H

#include "base/err.h"
#include "base/str.h"
#include "dialect/dialect.h"

#include <stdbool.h>
#include <stdint.h>

enum route_priority { ROUTE_HIGH, ROUTE_NORMAL, ROUTE_LOW };

struct route_request {
    struct str model;  /* as the client wrote it, unescaped; empty = none given */
    struct str key_id; /* of the authenticated key; empty without keys */
    bool observe;      /* it only looks: nothing is loaded for it, and it does not count as use */
    const struct dialect_wish *wish; /* borrowed during the call; NULL = none */
    enum route_priority priority;
    uint64_t body_bytes;
    struct str prompt;    /* the raw text of the body in which the prompt begins; may be empty; borrowed */
    uint32_t waited_ms;   /* by earlier attempts of this request */
    bool light;           /* it makes no tokens: no slot is taken */
    unsigned answered_by; /* DIALECT_BITs of servers elsewhere that can answer it; 0 = it is for instances */
    struct str path;      /* as the client asked at, for messages; borrowed */
    uint32_t tried;       /* choices (see the lease) that are not to be asked again */
};

#define ROUTE_ADDRESSES 8u

/* A server beyond this machine. Only what is listed here of a request's head goes there, and of its answer's
 * head comes back; see header.def. Borrowed until the lease is given back. */
struct route_remote {
    struct tls_context *tls; /* see tls.h; NULL = without TLS */
    const char *name;        /* its host's: for SNI and certificate */
    uint16_t port;
    char host_field[300]; /* of Host */
    const char *path;     /* takes the place of /v1 in front of a path */
    const char *auth;     /* a whole line of the head with the key, "\r\n" included; NULL = none */
    const char *version;  /* of Anthropic's API, where the client tells none; NULL = it has none */
    const char *model;    /* what the model is called there */
    char address[ROUTE_ADDRESSES][46]; /* numeric; tried in this order */
    uint32_t n_addresses;
};

struct route_lease {
    char host[46]; /* numeric address */
    uint16_t port;
    char model[192];    /* canonical id, for the record and for the upstream's "model" field */
    bool replace_model; /* splice `model` into the body in place of the client's spelling */
    char instance[96];
    void *ref;                                  /* the implementor's */
    uint32_t queue_position, queue_expected_ms; /* in line when it came; 0 = it was served at once */
    /* A backend that writes nothing while it reads a prompt does not notice that its client left. Static
     * texts, or both NULL: what is put behind "stream":true in a body to make it write (,"name":value), and a
     * text by which the events are known that it then sends before those of the answer: they are dropped. */
    const char *wake_member, *wake_event;
    /* The same for requests that do not stream: members, beginning with "stream":true, each with a comma
     * behind it, with which it answers in events that a plain answer can be made of (see made.c). NULL =
     * it is not asked to. */
    const char *collect_members;
    unsigned speaks; /* DIALECT_BITs: requests in others are translated; 0 = not known, all are passed on */
    uint64_t timeout_ms; /* of a whole answer; 0 = that of http_options */
    uint32_t dimensions; /* that embeddings must have; 0 = any */
    bool drain;          /* an answer that has begun is read to its end though its client left */
    const struct route_remote *remote; /* NULL = an instance of this machine */
    uint32_t choice; /* a bit for the place that the model has among those that may serve the request … */
    bool more;       /* … and whether others of them were not asked yet */
    uint32_t
        rest_s; /* set before the lease is given back: the backend asked for so long a rest; 0 = it did not */
    /* Set before it is given back: tokens, as the backend told; 0 = none, or it did not. */
    uint32_t prompt_tokens, answer_tokens, cached_tokens;
};

/* What a waiting request waits for. */
enum route_stage {
    ROUTE_QUEUED,      /* the model is ready: for a slot */
    ROUTE_PLANNING,    /* its file is read, its place is planned */
    ROUTE_BLOCKED,     /* others hold the memory that it needs */
    ROUTE_MAKING_ROOM, /* others leave */
    ROUTE_LOADING,
    ROUTE_STAGES
};
struct route_view {
    enum route_stage stage;
    uint32_t position;    /* in line, 1 is next; 0 = in none */
    uint64_t expected_ms; /* until it is served */
    bool expected_known;
    unsigned percent; /* of ROUTE_LOADING */
};

struct route_refusal {
    struct err err;         /* code gives the HTTP status (rc_http_status) */
    uint32_t retry_after_s; /* 0 = no Retry-After */
};

/* How the use of a lease ended. */
enum route_end {
    ROUTE_END_FINE,
    ROUTE_END_LEFT,   /* the client went away first */
    ROUTE_END_FAILED, /* the upstream answered with a status from 500 on */
    ROUTE_END_BROKEN  /* it could not be reached, or died before its answer ended */
};

enum route_answer { ROUTE_GRANTED, ROUTE_WAITING, ROUTE_REFUSED };
/* Exactly one of lease and refusal is not NULL; both are borrowed during the call. Never called inside
 * acquire, nor after cancel. */
typedef void (*route_cb)(void *arg, const struct route_lease *lease, const struct route_refusal *refusal);

struct route_ops {
    void *ctx;
    enum route_answer (*acquire)(void *ctx, const struct route_request *req, route_cb cb, void *arg,
                                 struct route_lease *ret_lease, void **ret_wait,
                                 struct route_refusal *ret_refusal);
    void (*cancel)(void *ctx, void *wait);
    /* How far what waits is; ret as initialised stays where nothing is known. May be NULL itself. */
    void (*look)(void *ctx, void *wait, struct route_view *ret);
    void (*release)(void *ctx, struct route_lease *lease, enum route_end end); /* gives it back, once */
    /* The id of the model that is meant by this name, or by none; NULL if there is none. *ret_is_name: the
     * name is its id or an alias, letter by letter, and not just a spelling that finds it. May be NULL
     * itself. */
    const char *(*resolve)(void *ctx, struct str model, bool *ret_is_name);
};

#endif
