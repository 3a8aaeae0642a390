/* TLS on a non-blocking socket, for both sides of the proxy and for the command line's client: OpenSSL reads
 * and writes the descriptor itself, so nothing is copied twice and nobody needs to know which kind of
 * connection it is but sock.c. Layer proxy. Contexts are made anywhere (files are read) and shared; a
 * connection belongs to the loop thread.
 *
 * TLS 1.2 and 1.3, no renegotiation, no compression; ALPN names http/1.1. The handshake happens inside the
 * first reads and writes. A peer that ends without close_notify is reported as a reset, never as an end. */
#ifndef PROXY_TLS_H
#define PROXY_TLS_H

#include "base/err.h"

#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

struct tls_context; /* certificates and rules of many connections */
struct tls;         /* one connection */

/* A server's: certificate chain and private key as PEM. RC_IO, RC_INVALID (no certificate or key, or they do
 * not belong together), RC_DENIED (others may read the key). Blocking. */
enum rc tls_context_server(const char *cert_file, const char *key_file, struct tls_context **ret_context,
                           struct err *err);
/* A client's: peers must show a certificate that ca_file vouches for (NULL: the system's store), for the name
 * that tls_connect is given. Blocking. */
enum rc tls_context_client(const char *ca_file, struct tls_context **ret_context, struct err *err);
/* From now on any certificate will do: for a command whose user says so, never for what a daemon does by
 * itself. */
void tls_context_accept_any(struct tls_context *c);
struct tls_context *tls_context_hold(struct tls_context *c); /* one more owner; NULL is fine */
void tls_context_free(struct tls_context *c);                /* one owner less; NULL is fine */

/* fd stays the caller's. NULL when memory is short. */
struct tls *tls_accept(struct tls_context *c, int fd);
/* host: the name in the certificate, sent as SNI unless it is an address. */
struct tls *tls_connect(struct tls_context *c, int fd, const char *host);
/* Says goodbye if the handshake was through, without waiting. Not for a connection that is to be reset. */
void tls_goodbye(struct tls *t);
void tls_free(struct tls *t); /* NULL is fine */

/* As recv and sendmsg on a non-blocking socket: -1 with errno EAGAIN means wait for what tls_mask says. Other
 * values of errno: that of the socket, ECONNRESET (cut off), EPROTO (not TLS, or no trust; see tls_why).
 * tls_recv gives 0 for the peer's goodbye. After EAGAIN a send is repeated with the same bytes in front. */
ssize_t tls_recv(struct tls *t, void *p, size_t n);
ssize_t tls_send(struct tls *t, const struct iovec *iov, int n);
/* Whether bytes were decrypted that nobody has read yet: no event of the socket will tell of them. */
bool tls_pending(const struct tls *t);
/* What the socket has to be watched for (UV_READABLE, UV_WRITABLE) if the owner wants these. */
int tls_mask(const struct tls *t, int wanted);
/* The events to tell an owner who wants these, when the socket has those. */
int tls_events(const struct tls *t, int wanted, int events);
/* Goes on with the handshake alone: 0 = it is through, EAGAIN = wait for what tls_mask says to a reader, else
 * as with tls_recv. */
int tls_handshake(struct tls *t);
bool tls_established(const struct tls *t);
/* True while nothing was received but handshake and tickets. Consumes those. */
bool tls_is_quiet(struct tls *t);
/* Why it failed with EPROTO, in words: "certificate has expired". Borrowed; "" = it did not. */
const char *tls_why(const struct tls *t);
/* Whether that was the peer's certificate. */
bool tls_distrusted(const struct tls *t);

#endif
