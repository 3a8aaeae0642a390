/* A server under test: it runs on a loop thread of its own, while the test plays the client and the backend
 * with blocking sockets, so that every fault happens at the byte that the test chooses. Waits end on events;
 * a limit of twenty seconds only turns a hang into a failure. */
#ifndef TESTS_DOOR_H
#define TESTS_DOOR_H

#include "base/buf.h"
#include "proxy/http.h"

enum door_route { DOOR_GRANT, DOOR_WAIT, DOOR_REFUSE };

/* A key that somebody chose, with the scope infer and no limits. */
struct auth_spec door_key(const char *secret);

struct door;

struct door_setup {
    struct http_options opt; /* loop, routes, hooks are filled in */
    enum door_route route;
    bool replace_model;
    bool wake;       /* leases ask for "wake":1 and drop events with "dawn" */
    bool collect;    /* leases have collect_members */
    unsigned speaks; /* of leases, as the next two */
    uint64_t timeout_ms;
    bool drain;
    struct route_view view; /* of what waits */
    const char *canonical;  /* model of the lease; NULL = "canon" */
    enum rc refuse_code;
    uint32_t retry_after_s;
    const char *unix_path; /* also listen there, as control */
    bool dead_port;        /* leases point to a port where nobody listens */
    bool full_backlog;     /* … to one where no handshake completes */
};
struct door_setup door_default(void);
struct door *door_start(const struct door_setup *setup);
/* Drains (abort: cuts), waits for the end, checks that every lease came back, frees. */
void door_stop(struct door *d, bool abort);
uint16_t door_port(const struct door *d);

/* What happened so far. */
enum door_count {
    DOOR_ACQUIRED,
    DOOR_RELEASED,
    DOOR_BROKEN, /* leases that came back so */
    DOOR_FAILED,
    DOOR_CANCELLED,
    DOOR_RECORDS,
    DOOR_ABORTED,     /* local exchanges whose client left */
    DOOR_LATER,       /* requests to /later so far */
    DOOR_STREAM_ENDS, /* /stream told that its client is too slow or gone */
    DOOR_WISHES,      /* acquires that tell how long the model is to stay */
    DOOR_LET_GO,      /* /held may answer */
    DOOR_COUNTS
};
unsigned door_count(struct door *d, enum door_count what);
void door_wait(struct door *d, enum door_count what, unsigned at_least);
struct http_counters door_counters(struct door *d);

/* The last record; strings are copies that live with the door. */
struct door_record {
    char model[128], instance[64], path[64], outcome[32], request_id[64], key_id[16];
    struct http_record r;
};
struct door_record door_record(struct door *d);
/* The model of the last acquire. */
void door_asked(struct door *d, char *out, size_t cap);
void door_show(struct door *d, struct route_view view); /* how far what waits is */
void door_grant(struct door *d);                        /* what waits gets its lease */
void door_refuse(struct door *d);                       /* what waits is refused */
void door_answer_later(struct door *d);                 /* /later gets its reply */
void door_drain(struct door *d);                        /* without waiting */
void door_let_go(struct door *d);                       /* /held answers */

/* ---- the client ---- */
int client_connect(struct door *d);
int client_connect_unix(const char *path);
void client_send(int fd, const char *text);
void client_send_n(int fd, const void *p, size_t n);
/* POST /v1/chat/completions with this body and further header lines ("" or "Name: value\r\n…"). */
void client_post(int fd, const char *fields, const char *body);
void client_reset(int fd); /* closes with RST */

struct answer {
    int status;
    char head[8192];
    struct buf body; /* decoded */
    bool broken;     /* ended before its framing said so */
    bool reset;      /* by RST */
};
/* Reads one answer as a strict client would. head_only for HEAD. */
struct answer client_answer(int fd, bool head_only);
void answer_release(struct answer *a);
bool answer_has(const struct answer *a, const char *field_line); /* "Name: value" among the head's lines */
/* Sends, reads one answer on a connection of its own, closes. */
struct answer client_ask(struct door *d, const char *request);
bool client_at_eof(int fd); /* the next read gives FIN (true) or RST (false) */
/* Exactly n raw bytes. */
void client_read_n(int fd, char *out, size_t n);
void client_read_until(int fd, const char *text); /* up to and including it */

/* ---- the backend ---- */
int backend_accept(struct door *d);
bool backend_is_quiet(struct door *d); /* nobody waits to be accepted */
/* Reads one request: head and body (by Content-Length). Owned. */
struct buf backend_request(int fd);
void backend_close_listener(struct door *d);

#define OK_JSON                                                                                              \
    "{\"choices\":[{\"message\":{\"content\":\"hi\"}}],\"usage\":{\"prompt_tokens\":7,\"completion_"         \
    "tokens\":3,"                                                                                            \
    "\"prompt_tokens_details\":{\"cached_tokens\":2}},\"id\":\"x\"}"
/* A whole JSON answer with the right Content-Length. */
void backend_answer(int fd, const char *json);

#endif
