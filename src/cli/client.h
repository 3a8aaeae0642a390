/* A small HTTP/1.1 client: one request a connection, over the control socket, TCP, or TLS (proxy/tls.h, which
 * speaks to upstreams too). Layer cli; main thread; blocking, with a deadline and a descriptor that cancels.
 * Answers are parsed by llhttp in its strict mode.
 *
 * A certificate is checked, for the host of the address, before a byte of a request is sent: against the
 * system's store, or the file that the address names. */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"

#define CLIENT_BASE_MAX   256
#define CLIENT_PATH_MAX   108                /* of a Unix socket, by the kernel */
#define CLIENT_BODY_MAX   ((size_t)64 << 20) /* of an answer that is collected */
#define CLIENT_HEADER_MAX ((size_t)64 << 10)
#define CLIENT_TIMEOUT_MS 30000u /* what a question to the daemon may take */

struct client_address {
    bool local; /* a Unix socket at `path`; else TCP */
    bool tls;
    bool unchecked;      /* with tls: any certificate will do; by the user's own word only */
    const char *ca_file; /* with tls: who vouches, PEM; NULL = the system's store. Borrowed */
    char path[CLIENT_PATH_MAX];
    char host[CLIENT_BASE_MAX]; /* name or number, IPv6 without brackets */
    char port[8];
    char base[CLIENT_BASE_MAX]; /* what an URL had behind the port: "" or "/x", no final slash */
};

/* "http://127.0.0.1:11435", "127.0.0.1:11435", "https://[::1]:8080/base". The port defaults to 80, with https
 * to 443. RC_INVALID. */
enum rc client_address_url(const char *url, struct client_address *ret_address, struct err *err);
/* The control socket: path, or the usual place when NULL. RC_LIMIT when the path is too long for a socket. */
enum rc client_address_control(const char *path, struct client_address *ret_address, struct err *err);

struct client_request {
    const char *method, *path; /* path with its query, already escaped */
    struct str body;           /* JSON; empty = none */
    const char *bearer;        /* API key or NULL */
    uint32_t timeout_ms;       /* for the whole exchange; 0 = no limit */
    int cancel_fd;             /* readable = give up with RC_CANCELLED; -1 = none */
};

/* A piece of a good answer's body (status 2xx), as it arrives. False ends the exchange without an error. */
typedef bool (*client_body_fn)(void *arg, struct str piece);

/* RC_OK when the body of a 2xx answer ended properly or fn ended it. A daemon that is not there: RC_NOT_FOUND
 * with the hint to start it. An answer with another status is an error with the daemon's own message, hint
 * and code. RC_TIMEOUT, RC_CANCELLED, RC_BACKEND (a broken answer), RC_IO; with TLS RC_DENIED (a certificate
 * that is not trusted) and RC_INVALID (the other end speaks no TLS, or ca_file is none). */
enum rc client_stream(const struct client_address *a, const struct client_request *r, client_body_fn fn,
                      void *arg, struct err *err);
/* Collects the body (at most CLIENT_BODY_MAX) and parses it. ret_doc is freed with yyjson_doc_free. */
enum rc client_json(const struct client_address *a, const struct client_request *r, yyjson_doc **ret_doc,
                    struct err *err);
/* Appends s with everything but unreserved characters escaped, for a query. */
void client_escape(struct buf *out, struct str s);

#endif
