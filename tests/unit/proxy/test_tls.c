/* TLS at the door and towards backends: every exchange goes through a pump, which is a TLS client made of the
 * same piece that the proxy uses, between a plain socket of the test and the door. */
#include "door.h"

#include "base/mem.h"
#include "proxy/tls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ASK "{\"model\":\"m\"}"

/* ---- certificates ---- */

struct files {
    char dir[32], cert[64], key[64];
};

static EVP_PKEY *new_key(void)
{
    EVP_PKEY *k = EVP_EC_gen("P-256");
    assert_non_null(k);
    return k;
}

/* A self-signed certificate for a name or an address ("DNS:localhost", "IP:127.0.0.1"), good from now for so
 * many seconds. */
static void write_pair(const struct files *f, const char *names, long seconds)
{
    EVP_PKEY *key = new_key();
    X509 *x = X509_new();
    assert_non_null(x);
    (void)X509_set_version(x, 2);
    (void)ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    (void)X509_gmtime_adj(X509_getm_notBefore(x), -86400);
    (void)X509_gmtime_adj(X509_getm_notAfter(x), seconds);
    (void)X509_set_pubkey(x, key);
    X509_NAME *name = X509_get_subject_name(x);
    (void)X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1, 0);
    (void)X509_set_issuer_name(x, name);
    X509_EXTENSION *alt = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, names);
    X509_EXTENSION *ca = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE");
    assert_true(alt && ca && X509_add_ext(x, alt, -1) && X509_add_ext(x, ca, -1));
    assert_true(X509_sign(x, key, EVP_sha256()) > 0);
    FILE *out = fopen(f->cert, "w");
    assert_true(out && PEM_write_X509(out, x) == 1);
    fclose(out);
    out = fopen(f->key, "w");
    assert_true(out && fchmod(fileno(out), 0600) == 0 &&
                PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL) == 1);
    fclose(out);
    X509_EXTENSION_free(alt);
    X509_EXTENSION_free(ca);
    X509_free(x);
    EVP_PKEY_free(key);
}

static struct files make_pair(const char *names, long seconds)
{
    struct files f = {.dir = "/tmp/arriero-tls-XXXXXX"};
    assert_non_null(mkdtemp(f.dir));
    (void)snprintf(f.cert, sizeof f.cert, "%s/cert.pem", f.dir);
    (void)snprintf(f.key, sizeof f.key, "%s/key.pem", f.dir);
    write_pair(&f, names, seconds);
    return f;
}

static void remove_pair(const struct files *f)
{
    unlink(f->cert);
    unlink(f->key);
    rmdir(f->dir);
}

static struct tls_context *server_context(const struct files *f)
{
    struct tls_context *c = NULL;
    struct err err;
    if (tls_context_server(f->cert, f->key, &c, &err) != RC_OK)
        fail_msg("%s", err.message);
    return c;
}

static struct tls_context *client_context(const char *ca_file)
{
    struct tls_context *c = NULL;
    struct err err;
    if (tls_context_client(ca_file, &c, &err) != RC_OK)
        fail_msg("%s", err.message);
    return c;
}

/* ---- the pump ---- */

struct pump {
    pthread_t thread;
    int plain, outer;        /* the pump's end of the test's socket; the connection to the door */
    size_t max_write;        /* so many bytes of the door's at a time; 0 = all */
    struct tls_context *ctx; /* borrowed */
    const char *host;
    char why[96];
    int error;
    bool established, goodbye;
};

struct way { /* bytes on their way from one side to the other */
    char data[16384];
    size_t n, at;
    bool ended;
};

static bool moved(struct way *w, ssize_t r, bool reading)
{
    if (r < 0)
        return errno == EAGAIN;
    if (reading)
        w->n = (size_t)r, w->at = 0;
    else
        w->at += (size_t)r;
    return true;
}

/* Takes one step on each way; false at the end. */
static bool pump_step(struct pump *p, struct tls *t, struct way *up, struct way *down)
{
    if (up->at == up->n && !up->ended) {
        ssize_t r = recv(p->plain, up->data, sizeof up->data, MSG_DONTWAIT);
        if (r == 0 || (r < 0 && errno != EAGAIN)) {
            up->ended = true;
            tls_goodbye(t);
            (void)shutdown(p->outer, SHUT_WR);
        }
        up->n = up->at = 0;
        if (r > 0)
            up->n = (size_t)r;
    }
    if (up->at < up->n) {
        struct iovec v[2] = {{up->data + up->at, 1}, {up->data + up->at + 1, up->n - up->at - 1}};
        if (!moved(up, tls_send(t, v, v[1].iov_len ? 2 : 1), false)) {
            p->error = errno;
            return false;
        }
    }
    if (down->at == down->n) {
        ssize_t r = tls_recv(t, down->data, p->max_write ? p->max_write : sizeof down->data);
        if (r == 0) {
            p->goodbye = true;
            return false;
        }
        down->n = down->at = 0;
        if (!moved(down, r, true)) {
            p->error = errno;
            return false;
        }
    }
    if (down->at < down->n) {
        ssize_t r = send(p->plain, down->data + down->at, down->n - down->at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (!moved(down, r, false))
            return false;
    }
    return true;
}

static void *pump_run(void *arg)
{
    struct pump *p = arg;
    struct way *up = mem_new(struct way), *down = mem_new(struct way);
    struct tls *t = tls_connect(p->ctx, p->outer, p->host);
    while (t && pump_step(p, t, up, down)) {
        p->established |= tls_established(t);
        bool want_up = up->at == up->n && !up->ended, want_down = down->at == down->n;
        int wanted = (want_down || up->at < up->n ? UV_READABLE : 0) | (up->at < up->n ? UV_WRITABLE : 0);
        int mask = tls_mask(t, wanted);
        struct pollfd fds[2] = {
            {.fd = p->plain, .events = (short)((want_up ? POLLIN : 0) | (want_down ? 0 : POLLOUT))},
            {.fd = p->outer,
             .events = (short)((mask & UV_READABLE ? POLLIN : 0) | (mask & UV_WRITABLE ? POLLOUT : 0))}};
        if (poll(fds, 2, 20000) <= 0)
            break;
    }
    if (t)
        (void)snprintf(p->why, sizeof p->why, "%s", tls_why(t));
    tls_free(t);
    close(p->outer);
    (void)shutdown(p->plain, SHUT_RDWR);
    free(up);
    free(down);
    return NULL;
}

/* The test's end of a plain socket that leads through TLS to the door; the pump takes so many bytes of the
 * door's at a time, 0 = all. */
static int pump_start_by(struct pump *p, struct door *d, struct tls_context *ctx, const char *host,
                         size_t max_write)
{
    int pair[2];
    *p = (struct pump){.ctx = ctx, .host = host, .outer = client_connect(d), .max_write = max_write};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(fcntl(p->outer, F_SETFL, O_NONBLOCK), 0);
    p->plain = pair[1];
    assert_int_equal(pthread_create(&p->thread, NULL, pump_run, p), 0);
    return pair[0];
}

static int pump_start(struct pump *p, struct door *d, struct tls_context *ctx, const char *host)
{
    return pump_start_by(p, d, ctx, host, 0);
}

static void pump_end(struct pump *p, int fd)
{
    close(fd);
    pthread_join(p->thread, NULL);
    close(p->plain);
}

/* ---- a door with a certificate ---- */

struct scene {
    struct files files;
    struct tls_context *server, *client;
    struct door *d;
};

static struct scene begin(void)
{
    struct scene s = {.files = make_pair("DNS:localhost,IP:127.0.0.1", 86400)};
    struct door_setup setup = door_default();
    s.server = server_context(&s.files);
    s.client = client_context(s.files.cert);
    setup.opt.tls = s.server;
    s.d = door_start(&setup);
    return s;
}

static void end(struct scene *s)
{
    door_stop(s->d, false);
    tls_context_free(s->server);
    tls_context_free(s->client);
    remove_pair(&s->files);
}

static void test_exchange(void **state)
{
    (void)state;
    struct scene s = begin();
    struct pump p;
    static const char *const hosts[] = {"localhost", "127.0.0.1"};
    for (size_t i = 0; i < 2; i++) {
        int fd = pump_start(&p, s.d, s.client, hosts[i]);
        client_send(fd, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        struct answer a = client_answer(fd, false);
        assert_int_equal(a.status, 200);
        answer_release(&a);
        client_send(fd, "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        a = client_answer(fd, false);
        assert_int_equal(a.status, 200);
        answer_release(&a);
        assert_true(client_at_eof(fd));
        pump_end(&p, fd);
        assert_true(p.established && p.goodbye); /* the end was said, not cut */
    }
    end(&s);
}

/* Requests that come in one record: what is decrypted and not read yet makes no event of the socket. */
static void test_pipelined(void **state)
{
    (void)state;
    struct scene s = begin();
    struct pump p;
    enum { N = 2000 };
    struct buf all = {0};
    for (int i = 0; i < N; i++)
        (void)buf_puts(&all,
                       "GET /hello HTTP/1.1\r\nHost: a\r\nX-Some: filling of a line of this length\r\n\r\n");
    int fd = pump_start(&p, s.d, s.client, "localhost");
    client_send_n(fd, all.data, all.n);
    for (int i = 0; i < N; i++) {
        struct answer a = client_answer(fd, false);
        assert_int_equal(a.status, 200);
        answer_release(&a);
    }
    pump_end(&p, fd);
    buf_release(&all);
    end(&s);
}

/* Large bodies both ways; the client reads 100 bytes at a time. */
static void test_bodies(void **state)
{
    (void)state;
    struct scene s = begin();
    struct pump p;
    size_t n = 3 * MIB + 17;
    char *body = mem_calloc(n + 1, 1), head[128];
    static const char start[] = "{\"model\":\"m\",\"x\":\"";
    memset(body, 'x', n);
    memcpy(body, start, sizeof start - 1);
    memcpy(body + n - 2, "\"}", 2);
    int fd = pump_start_by(&p, s.d, s.client, "localhost", 100);
    (void)snprintf(head, sizeof head,
                   "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", n);
    client_send(fd, head);
    client_send_n(fd, body, n);
    int back = backend_accept(s.d);
    struct buf got = backend_request(back);
    assert_true(got.n > n && memcmp(got.data + got.n - n, body, n) == 0);
    buf_release(&got);
    backend_answer(back, body);
    struct answer a = client_answer(fd, false);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body.n, n);
    assert_memory_equal(a.body.data, body, n);
    answer_release(&a);
    pump_end(&p, fd);
    close(back);
    free(body);
    end(&s);
}

/* A client that goes is noticed, and the backend with it. */
static void test_cancel(void **state)
{
    (void)state;
    struct scene s = begin();
    struct pump p;
    int fd = pump_start(&p, s.d, s.client, "localhost");
    client_post(fd, "", ASK);
    int back = backend_accept(s.d);
    struct buf got = backend_request(back);
    buf_release(&got);
    pump_end(&p, fd);
    char ch;
    assert_int_equal(recv(back, &ch, 1, 0), 0); /* our connection to it is closed */
    door_wait(s.d, DOOR_RECORDS, 1);
    assert_string_equal(door_record(s.d).outcome, "client_closed");
    close(back);
    end(&s);
}

/* A record that was changed on its way, in the middle of a body: the request is in the history. */
static void test_broken_record(void **state)
{
    (void)state;
    static const char record[] = "\x17\x03\x03\x00\x18 no cipher made this one";
    struct scene s = begin();
    struct pump p;
    int fd = pump_start(&p, s.d, s.client, "localhost");
    client_send(fd, "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                    "Content-Length: 100\r\n\r\n");
    client_read_until(fd, "100 Continue\r\n\r\n"); /* nothing of the pump's is under way */
    client_send_n(p.outer, record, sizeof record - 1);
    door_wait(s.d, DOOR_RECORDS, 1);
    assert_string_equal(door_record(s.d).outcome, "client_closed");
    assert_string_equal(door_record(s.d).path, "/v1/chat/completions");
    pump_end(&p, fd);
    end(&s);
}

/* Records that bring no bytes do not keep an idle connection. */
static void test_idle(void **state)
{
    (void)state;
    struct files files = make_pair("DNS:localhost", 86400);
    struct tls_context *server = server_context(&files);
    struct door_setup setup = door_default();
    setup.opt.tls = server;
    setup.opt.idle_timeout_ms = 100;
    struct door *d = door_start(&setup);
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(ctx);
    struct pollfd end = {.fd = client_connect(d), .events = POLLIN};
    assert_true(ssl && SSL_set_fd(ssl, end.fd) && SSL_connect(ssl) == 1);
    char byte;
    bool closed = false;
    for (int i = 0; i < 400 && !closed; i++) {
        assert_int_equal(SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
        if (SSL_do_handshake(ssl) != 1)
            break;
        while (!closed && poll(&end, 1, 50) > 0) /* tickets first, at the end FIN */
            closed = recv(end.fd, &byte, 1, 0) <= 0;
    }
    assert_true(closed);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    close(end.fd);
    door_stop(d, false);
    tls_context_free(server);
    remove_pair(&files);
}

/* Who speaks HTTP to the port is told; who says nonsense is let go; who says nothing has a time limit. */
static void test_strangers(void **state)
{
    (void)state;
    struct files files = make_pair("DNS:localhost", 86400);
    struct tls_context *server = server_context(&files);
    struct door_setup setup = door_default();
    setup.opt.tls = server;
    setup.opt.header_timeout_ms = 100;
    struct door *d = door_start(&setup);
    struct answer a = client_ask(d, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(a.status, 400);
    assert_non_null(strstr(a.body.data, "write https"));
    answer_release(&a);
    int fd = client_connect(d);
    char bytes[64];
    client_send_n(fd, "\x16\x03\x01\xff\xff nonsense", 14);
    while (recv(fd, bytes, sizeof bytes, 0) > 0)
        continue;
    close(fd);
    fd = client_connect(d);
    assert_int_equal(recv(fd, bytes, sizeof bytes, 0), 0); /* after the time limit */
    close(fd);
    door_stop(d, false);
    tls_context_free(server);
    remove_pair(&files);
}

/* Whom a client does not trust it does not talk to, and says why. */
static void test_trust(void **state)
{
    (void)state;
    static const struct {
        const char *names, *host, *why;
        long seconds;
        bool own_ca;
    } rows[] = {
        {"DNS:localhost", "localhost", "self-signed", 86400, false},
        {"DNS:localhost", "localhost", "expired", -10, true},
        {"DNS:other.example", "localhost", "mismatch", 86400, true},
        {"IP:127.0.0.2", "127.0.0.1", "mismatch", 86400, true},
        {"DNS:localhost", "localhost", "", 86400, true},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        struct files files = make_pair(rows[i].names, rows[i].seconds), other = make_pair("DNS:x", 86400);
        struct tls_context *server = server_context(&files);
        struct tls_context *client = client_context(rows[i].own_ca ? files.cert : other.cert);
        struct door_setup setup = door_default();
        setup.opt.tls = server;
        struct door *d = door_start(&setup);
        struct pump p;
        int fd = pump_start(&p, d, client, rows[i].host);
        if (rows[i].why[0]) {
            char ch;
            assert_int_equal(recv(fd, &ch, 1, 0), 0);
        } else {
            client_send(fd, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
            struct answer a = client_answer(fd, false);
            assert_int_equal(a.status, 200);
            answer_release(&a);
        }
        pump_end(&p, fd);
        if (rows[i].why[0] && (p.error != EPROTO || !strstr(p.why, rows[i].why)))
            fail_msg("row %zu: %s", i, p.why);
        door_stop(d, false);
        tls_context_free(server);
        tls_context_free(client);
        remove_pair(&files);
        remove_pair(&other);
    }
}

static void test_contexts(void **state)
{
    (void)state;
    struct files a = make_pair("DNS:a", 86400), b = make_pair("DNS:b", 86400);
    struct tls_context *c = NULL;
    struct err err;
    assert_int_equal(tls_context_server("/nowhere/cert.pem", a.key, &c, &err), RC_INVALID);
    assert_non_null(strstr(err.message, "/nowhere/cert.pem"));
    assert_int_equal(tls_context_server(a.cert, "/nowhere/key.pem", &c, &err), RC_IO);
    assert_int_equal(tls_context_server(a.cert, b.key, &c, &err), RC_INVALID);
    assert_non_null(strstr(err.message, b.key));
    assert_int_equal(chmod(a.key, 0644), 0);
    assert_int_equal(tls_context_server(a.cert, a.key, &c, &err), RC_DENIED);
    assert_non_null(strstr(err.hint, "chmod 600"));
    assert_int_equal(tls_context_client("/nowhere/ca.pem", &c, &err), RC_INVALID);
    assert_null(c);
    assert_int_equal(tls_context_client(NULL, &c, &err), RC_OK);
    struct tls_context *again = tls_context_hold(c);
    tls_context_free(c);
    tls_context_free(again);
    tls_context_free(NULL);
    tls_free(NULL);
    remove_pair(&a);
    remove_pair(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exchange), cmocka_unit_test(test_pipelined),     cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_cancel),   cmocka_unit_test(test_strangers),     cmocka_unit_test(test_trust),
        cmocka_unit_test(test_contexts), cmocka_unit_test(test_broken_record), cmocka_unit_test(test_idle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
