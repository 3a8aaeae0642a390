/* What the files of servers elsewhere share. Layer daemon; loop thread. */
#ifndef DAEMON_REMOTE_PRIV_H
#define DAEMON_REMOTE_PRIV_H

#include "daemon/remote.h"

#include "daemon/url.h"
#include "pool/breaker.h"
#include "pool/health.h"
#include "proxy/tls.h"

#define REMOTE_ADDRESS_MS 60000u /* how long an address is believed */
#define REMOTE_CHECK_MS   2000u  /* a server that plays a role is asked how it is so often */

/* What goes on over reloads; counted by servers, leases and the question for an address. */
struct remote_state {
    uint32_t refs;
    char name[48];
    uv_loop_t *loop;
    struct breaker breaker;
    struct spend spend;
    uint64_t rest_until_ms; /* it asked for */
    uint32_t running, n_waiting;
    uint64_t requests, failures;
    uint64_t service_us, used_ms; /* of a request that ended well, learned; 0 = none was seen, never used */
    struct err last_error;        /* of an answer that never came; message empty = none */
    struct remote_wait *first, *last;
    /* addresses */
    uv_getaddrinfo_t question;
    bool asking;
    char asked_host[254]; /* that the addresses are of */
    uint64_t known_ms;    /* when they were told; 0 = never */
    char address[ROUTE_ADDRESSES][46];
    uint32_t n_addresses;
    /* how it is, for who watches it */
    enum remote_fare fare;
    uint64_t check_due_ms;
    struct call *check; /* the question under way */
    uint32_t check_at;  /* the address that is asked */
    uint16_t check_port;
    char check_path[176]; /* of the list of models */
    bool check_models;    /* that is asked for, for /health says nothing */
    char ill[200];        /* why it is not well */
};

struct remote {
    uint32_t refs;
    struct remote_state *state;
    struct arena arena;
    const char *name, *shown_url, *dialect;
    struct url url;
    struct tls_context *tls; /* NULL = none */
    char *auth;              /* a line of a head with the key, or NULL; cleared before it is freed */
    unsigned speaks;
    uint32_t timeout_ms, max_running, max_waiting, queue_wait_ms; /* 0 = no bound; but max_waiting */
    struct spend_limits limits;
    struct err problem; /* message empty = it can be used */
    struct remote_model *models;
    size_t n_models;
};

struct remote_set {
    struct remote **servers;
    size_t n;
    size_t n_models;
};

struct remote *remote_hold(struct remote *r);
void remote_drop(struct remote *r);
void remote_state_drop(struct remote_state *s);

/* remote.c: addresses. Whether one is known; asks for it, and when they come the waiting requests go on. */
bool remote_address_known(struct remote *r);
enum rc remote_address_ask(struct remote *r, struct err *err);
/* remote_wait.c. A new one stands at the end of the line; telling one takes it out of the line and frees it.
 */
struct remote_wait *remote_wait_new(const struct remote_model *m, uint32_t waited_ms, remote_cb cb,
                                    void *arg);
const struct remote_model *remote_wait_model(const struct remote_wait *w);
void remote_wait_tell(struct remote_wait *w, struct remote_lease *lease, const struct err *err,
                      uint32_t retry_after_s);
/* When a place is expected to get free, at least 1. */
uint32_t remote_retry_after_s(const struct remote *r);
/* A request took so long from its lease to its good end. */
void remote_learn_service(struct remote_state *s, uint64_t ms);
/* remote_health.c: no question is under way any more, and the next one is due. */
void remote_check_end(struct remote_state *s);

#endif
