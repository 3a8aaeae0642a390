/* TLS over OpenSSL: see tls.h. Layer proxy.
 *
 * OpenSSL keeps its errors in a queue of the thread; it is emptied before each call, so that what stands
 * there afterwards belongs to the call. Partial writes are on: a send returns what was taken, as the kernel
 * does. */
#include "proxy/tls.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <uv.h>

#define RECORD_BYTES 16384u

struct tls {
    SSL *ssl;
    int fd;
    bool read_needs_write, write_needs_read, failed, asked_in_plain;
    char why[96];
};

/* The library's name for a context is enough of a type for us. */
static SSL_CTX *ctx_of(struct tls_context *c)
{
    return (SSL_CTX *)(void *)c;
}

/* ---- contexts ---- */

static enum rc tls_error(struct err *err, enum rc code, const char *what, const char *file)
{
    unsigned long e = ERR_peek_last_error();
    const char *why = e ? ERR_reason_error_string(e) : NULL;
    enum rc rc =
        err_set(err, code, "%s %s: %s", what, file, why ? why : "the crypto library does not say why");
    ERR_clear_error();
    return rc;
}

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *in,
                           unsigned in_n, void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1";
    unsigned char *chosen = NULL;
    (void)ssl;
    (void)arg;
    if (SSL_select_next_proto(&chosen, out_n, ours, sizeof ours - 1, in, in_n) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL; /* who insists on another protocol would not understand us */
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *context_new(const SSL_METHOD *method)
{
    SSL_CTX *c = SSL_CTX_new(method);
    if (!c)
        return NULL;
    (void)SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION);
    (void)SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    /* Buffers of idle connections go back: a stream must not cost 32 KB more for being encrypted. */
    (void)SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    return c;
}

static enum rc check_key_file(const char *key_file, struct err *err)
{
    struct stat st;
    if (stat(key_file, &st) != 0)
        return err_sys(err, RC_IO, "cannot read the private key %s", key_file);
    if (!(st.st_mode & 007))
        return RC_OK;
    enum rc rc = err_set(err, RC_DENIED, "everybody can read the private key %s", key_file);
    err_hint(err, "chmod 600 %s", key_file);
    return rc;
}

enum rc tls_context_server(const char *cert_file, const char *key_file, struct tls_context **ret_context,
                           struct err *err)
{
    enum rc rc = check_key_file(key_file, err);
    if (rc != RC_OK)
        return rc;
    ERR_clear_error();
    SSL_CTX *c = context_new(TLS_server_method());
    if (!c)
        return tls_error(err, RC_NOMEM, "cannot prepare", "TLS");
    if (SSL_CTX_use_certificate_chain_file(c, cert_file) != 1) {
        rc = tls_error(err, RC_INVALID, "cannot use the certificate", cert_file);
        err_hint(err, "give a PEM file with the certificate first and those that sign it behind it");
    } else if (SSL_CTX_use_PrivateKey_file(c, key_file, SSL_FILETYPE_PEM) != 1 ||
               SSL_CTX_check_private_key(c) != 1) {
        rc = tls_error(err, RC_INVALID, "cannot use the private key", key_file);
        err_hint(err, "give the PEM file of the key, without a passphrase, that belongs to %s", cert_file);
    }
    if (rc != RC_OK) {
        SSL_CTX_free(c);
        return rc;
    }
    SSL_CTX_set_alpn_select_cb(c, choose_protocol, NULL);
    (void)SSL_CTX_set_session_id_context(c, (const unsigned char *)"arriero", 7);
    *ret_context = (struct tls_context *)(void *)c;
    return RC_OK;
}

enum rc tls_context_client(const char *ca_file, struct tls_context **ret_context, struct err *err)
{
    static const unsigned char ours[] = "\x08http/1.1";
    ERR_clear_error();
    SSL_CTX *c = context_new(TLS_client_method());
    if (!c)
        return tls_error(err, RC_NOMEM, "cannot prepare", "TLS");
    int ok = ca_file ? SSL_CTX_load_verify_file(c, ca_file) : SSL_CTX_set_default_verify_paths(c);
    if (ok != 1) {
        enum rc rc =
            tls_error(err, RC_INVALID, "cannot use the certificates of", ca_file ? ca_file : "the system");
        err_hint(err, "give a PEM file of the certificates that are trusted");
        SSL_CTX_free(c);
        return rc;
    }
    SSL_CTX_set_verify(c, SSL_VERIFY_PEER, NULL);
    (void)SSL_CTX_set_alpn_protos(c, ours, sizeof ours - 1);
    *ret_context = (struct tls_context *)(void *)c;
    return RC_OK;
}

void tls_context_accept_any(struct tls_context *c)
{
    SSL_CTX_set_verify(ctx_of(c), SSL_VERIFY_NONE, NULL);
}

struct tls_context *tls_context_hold(struct tls_context *c)
{
    if (c)
        (void)SSL_CTX_up_ref(ctx_of(c));
    return c;
}

void tls_context_free(struct tls_context *c)
{
    SSL_CTX_free(ctx_of(c));
}

/* ---- connections ---- */

static struct tls *connection_new(struct tls_context *c, int fd)
{
    struct tls *t = mem_new(struct tls);
    t->fd = fd;
    t->ssl = SSL_new(ctx_of(c));
    if (!t->ssl || SSL_set_fd(t->ssl, fd) != 1) {
        tls_free(t);
        return NULL;
    }
    return t;
}

struct tls *tls_accept(struct tls_context *c, int fd)
{
    struct tls *t = connection_new(c, fd);
    if (t)
        SSL_set_accept_state(t->ssl);
    return t;
}

static bool is_address(const char *host)
{
    unsigned char address[16];
    return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

struct tls *tls_connect(struct tls_context *c, int fd, const char *host)
{
    struct tls *t = connection_new(c, fd);
    if (!t)
        return NULL;
    bool address = is_address(host);
    X509_VERIFY_PARAM *p = SSL_get0_param(t->ssl);
    int ok = address ? X509_VERIFY_PARAM_set1_ip_asc(p, host) : X509_VERIFY_PARAM_set1_host(p, host, 0);
    if (ok == 1 && !address)
        ok = (int)SSL_set_tlsext_host_name(t->ssl, host);
    if (ok != 1) {
        tls_free(t);
        return NULL;
    }
    X509_VERIFY_PARAM_set_hostflags(p, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    SSL_set_connect_state(t->ssl);
    return t;
}

/* Who speaks HTTP to a TLS port deserves a word that he understands. */
static void answer_in_plain(const struct tls *t)
{
    static const char text[] = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
                               "Content-Length: 44\r\n\r\nThis port speaks TLS: write https, not http\n";
    (void)send(t->fd, text, sizeof text - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void tls_goodbye(struct tls *t)
{
    if (t->asked_in_plain)
        answer_in_plain(t);
    if (t->failed || !SSL_is_init_finished(t->ssl))
        return;
    ERR_clear_error();
    (void)SSL_shutdown(t->ssl);
    ERR_clear_error();
}

void tls_free(struct tls *t)
{
    if (!t)
        return;
    SSL_free(t->ssl);
    free(t);
}

static void note_why(struct tls *t)
{
    unsigned long e = ERR_peek_error();
    long verified = SSL_get_verify_result(t->ssl);
    const char *why = e ? ERR_reason_error_string(e) : NULL;
    if (verified != X509_V_OK)
        why = X509_verify_cert_error_string(verified);
    t->asked_in_plain = ERR_GET_REASON(e) == SSL_R_HTTP_REQUEST;
    snprintf(t->why, sizeof t->why, "%s", why ? why : "broken TLS");
    ERR_clear_error();
}

/* What a call that moved nothing means, as errno. 0 = the peer's goodbye. */
static int trouble(struct tls *t, int result, int sys_errno, bool *needs_other, int other)
{
    switch (SSL_get_error(t->ssl, result)) {
    case SSL_ERROR_WANT_READ: *needs_other = other == SSL_ERROR_WANT_READ; return EAGAIN;
    case SSL_ERROR_WANT_WRITE: *needs_other = other == SSL_ERROR_WANT_WRITE; return EAGAIN;
    case SSL_ERROR_ZERO_RETURN: return 0;
    case SSL_ERROR_SYSCALL: t->failed = true; return sys_errno ? sys_errno : ECONNRESET;
    default:
        t->failed = true;
        if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
            ERR_clear_error();
            return ECONNRESET;
        }
        note_why(t);
        return EPROTO;
    }
}

ssize_t tls_recv(struct tls *t, void *p, size_t n)
{
    size_t got = 0;
    if (t->failed) {
        errno = EPROTO;
        return -1;
    }
    ERR_clear_error();
    errno = 0;
    t->read_needs_write = false;
    int r = SSL_read_ex(t->ssl, p, n, &got);
    if (r == 1)
        return (ssize_t)got;
    int e = trouble(t, r, errno, &t->read_needs_write, SSL_ERROR_WANT_WRITE);
    if (!e)
        return 0;
    errno = e;
    return -1;
}

/* One record: 1, or 0 with the trouble in *ret_errno. */
static bool send_record(struct tls *t, const void *p, size_t n, size_t *ret_sent, int *ret_errno)
{
    ERR_clear_error();
    errno = 0;
    t->write_needs_read = false;
    int r = SSL_write_ex(t->ssl, p, n, ret_sent);
    if (r == 1)
        return true;
    int e = trouble(t, r, errno, &t->write_needs_read, SSL_ERROR_WANT_READ);
    *ret_errno = e ? e : EPIPE;
    *ret_sent = 0;
    return false;
}

/* Small pieces are put together: a head and a body in two records would be two system calls. */
static size_t gather(const struct iovec *iov, int n, size_t skip, char *out)
{
    size_t got = 0;
    for (int i = 0; i < n && got < RECORD_BYTES; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        size_t part = iov[i].iov_len - skip;
        if (part > RECORD_BYTES - got)
            part = RECORD_BYTES - got;
        memcpy(out + got, (const char *)iov[i].iov_base + skip, part);
        got += part;
        skip = 0;
    }
    return got;
}

ssize_t tls_send(struct tls *t, const struct iovec *iov, int n)
{
    char record[RECORD_BYTES];
    size_t total = 0, sent = 0;
    int e = 0;
    if (t->failed) {
        errno = EPROTO;
        return -1;
    }
    for (int i = 0; i < n; i++)
        total += iov[i].iov_len;
    while (sent < total) {
        size_t part = 0;
        const char *p = record;
        size_t have = RECORD_BYTES;
        if (n == 1) {
            p = (const char *)iov->iov_base + sent;
            have = total - sent < RECORD_BYTES ? total - sent : RECORD_BYTES;
        } else {
            have = gather(iov, n, sent, record);
        }
        if (!send_record(t, p, have, &part, &e))
            break;
        sent += part;
    }
    if (sent || !total)
        return (ssize_t)sent;
    errno = e;
    return -1;
}

bool tls_pending(const struct tls *t)
{
    return !t->failed && SSL_pending(t->ssl) > 0;
}

/* Decrypted bytes make no event: one is had by asking whether the socket can be written, which it can. */
static bool reads_on_writable(const struct tls *t)
{
    return t->read_needs_write || tls_pending(t);
}

int tls_mask(const struct tls *t, int wanted)
{
    int mask = wanted;
    if (wanted & UV_READABLE && reads_on_writable(t))
        mask |= UV_WRITABLE;
    if (wanted & UV_WRITABLE && t->write_needs_read)
        mask |= UV_READABLE;
    return mask;
}

int tls_events(const struct tls *t, int wanted, int events)
{
    int told = events & ~(UV_READABLE | UV_WRITABLE);
    bool readable = events & UV_READABLE || (events & UV_WRITABLE && reads_on_writable(t));
    bool writable = events & UV_WRITABLE || (events & UV_READABLE && t->write_needs_read);
    if (readable && wanted & UV_READABLE)
        told |= UV_READABLE;
    if (writable && wanted & UV_WRITABLE)
        told |= UV_WRITABLE;
    return told;
}

int tls_handshake(struct tls *t)
{
    if (t->failed)
        return EPROTO;
    ERR_clear_error();
    errno = 0;
    t->read_needs_write = false;
    int r = SSL_do_handshake(t->ssl);
    if (r == 1)
        return 0;
    int e = trouble(t, r, errno, &t->read_needs_write, SSL_ERROR_WANT_WRITE);
    return e ? e : ECONNRESET;
}

bool tls_established(const struct tls *t)
{
    return SSL_is_init_finished(t->ssl);
}

bool tls_is_quiet(struct tls *t)
{
    char byte;
    size_t n = 0;
    if (t->failed)
        return false;
    ERR_clear_error();
    int r = SSL_peek_ex(t->ssl, &byte, 1, &n);
    return r != 1 && SSL_get_error(t->ssl, r) == SSL_ERROR_WANT_READ;
}

const char *tls_why(const struct tls *t)
{
    return t->why;
}

bool tls_distrusted(const struct tls *t)
{
    return t->failed && SSL_get_verify_result(t->ssl) != X509_V_OK;
}
