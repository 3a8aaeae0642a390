/* The HTTP client against a server of one connection that says exactly what each case needs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cli/client.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* One connection: reads the request to its end, sends the pieces, then waits for the client to close if
 * `hold`. */
struct server {
    int listener;
    char dir[64], path[96];
    uint16_t port;             /* of TCP */
    const char *const *pieces; /* ends with NULL */
    bool hold;
    int poke_fd; /* written once the pieces are sent; -1 = none */
    struct buf request;
    bool saw_close;
    pthread_t thread;
};

static bool request_is_whole(const struct buf *b)
{
    const char *end = b->data ? strstr(b->data, "\r\n\r\n") : NULL, *length;
    if (!end)
        return false;
    length = strstr(b->data, "Content-Length: ");
    size_t body = length && length < end ? (size_t)atol(length + 16) : 0;
    return b->n >= (size_t)(end + 4 - b->data) + body;
}

static void *serve(void *arg)
{
    struct server *s = arg;
    int fd = accept(s->listener, NULL, NULL);
    char bytes[4096];
    ssize_t n;
    while (!request_is_whole(&s->request) && (n = recv(fd, bytes, sizeof bytes, 0)) > 0)
        buf_append(&s->request, bytes, (size_t)n);
    for (size_t i = 0; s->pieces && s->pieces[i]; i++)
        if (send(fd, s->pieces[i], strlen(s->pieces[i]), MSG_NOSIGNAL) < 0)
            break;
    if (s->poke_fd >= 0)
        (void)!write(s->poke_fd, &(uint64_t){1}, 8);
    if (s->hold)
        s->saw_close = recv(fd, bytes, sizeof bytes, 0) <= 0;
    close(fd);
    return NULL;
}

static void server_start(struct server *s, bool tcp)
{
    if (tcp) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t len = sizeof in;
        s->listener = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(bind(s->listener, (struct sockaddr *)&in, sizeof in), 0);
        assert_int_equal(getsockname(s->listener, (struct sockaddr *)&in, &len), 0);
        s->port = ntohs(in.sin_port);
    } else {
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        snprintf(s->dir, sizeof s->dir, "/tmp/arriero-test-XXXXXX");
        assert_non_null(mkdtemp(s->dir));
        snprintf(s->path, sizeof s->path, "%s/sock", s->dir);
        snprintf(un.sun_path, sizeof un.sun_path, "%s", s->path);
        s->listener = socket(AF_UNIX, SOCK_STREAM, 0);
        assert_int_equal(bind(s->listener, (struct sockaddr *)&un, sizeof un), 0);
    }
    assert_int_equal(listen(s->listener, 1), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void server_stop(struct server *s)
{
    pthread_join(s->thread, NULL);
    close(s->listener);
    if (s->path[0]) {
        unlink(s->path);
        rmdir(s->dir);
    }
    buf_release(&s->request);
}

static bool collect(void *arg, struct str piece)
{
    return buf_put_str(arg, piece);
}

static bool stop_at_once(void *arg, struct str piece)
{
    (void)piece;
    ++*(int *)arg;
    return false;
}

/* One GET whose answer is the pieces; what it gave is in *out and *err. */
static enum rc get(const char *const *pieces, struct buf *out, struct err *err)
{
    struct server s = {.pieces = pieces, .poke_fd = -1};
    struct client_address a;
    struct client_request r = {.method = "GET", .path = "/x?y=1", .cancel_fd = -1};
    server_start(&s, false);
    assert_int_equal(client_address_control(s.path, &a, err), RC_OK);
    enum rc rc = client_stream(&a, &r, collect, out, err);
    assert_true(str_starts(buf_str(&s.request), "GET /x?y=1 HTTP/1.1\r\nHost: localhost\r\n"));
    server_stop(&s);
    return rc;
}

#define PIECES(...) ((const char *const[]){__VA_ARGS__, NULL})

static void assert_body(const char *const *pieces, const char *want)
{
    struct buf out = {0};
    struct err err = {0};
    if (get(pieces, &out, &err) != RC_OK)
        fail_msg("%s", err.message);
    assert_string_equal(out.data ? out.data : "", want);
    buf_release(&out);
}

static void test_bodies(void **state)
{
    (void)state;
    assert_body(PIECES("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), "hello");
    assert_body(PIECES("HTTP/1.1 200 OK\r\nContent-Le", "ngth: 5\r\n\r\nhe", "llo"), "hello");
    assert_body(PIECES("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "2;x=y\r\nd",
                       "e\r\n0\r\nTrailer: v\r\n\r\n"),
                "abcde");
    assert_body(PIECES("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", "until", " the end"), "until the end");
    assert_body(PIECES("HTTP/1.1 204 No Content\r\n\r\n"), "");
    assert_body(PIECES("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), "ok");
}

static void assert_broken(const char *const *pieces, enum rc want, const char *message)
{
    struct buf out = {0};
    struct err err = {0};
    enum rc rc = get(pieces, &out, &err);
    if (rc != want || !strstr(err.message, message))
        fail_msg("rc %d, \"%s\" instead of %d, \"%s\"", rc, err.message, want, message);
    buf_release(&out);
}

static void test_broken_answers(void **state)
{
    (void)state;
    auto_free char *long_head = mem_calloc(1, 200 * 1024);
    strcpy(long_head, "HTTP/1.1 200 OK\r\nX: ");
    memset(long_head + strlen(long_head), 'x', 100 * 1024);
    assert_broken(PIECES(""), RC_BACKEND, "broke off");
    assert_broken(PIECES("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"), RC_BACKEND, "broke off");
    assert_broken(PIECES("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"), RC_BACKEND,
                  "broke off");
    assert_broken(PIECES("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), RC_BACKEND,
                  "broke off");
    assert_broken(PIECES("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"),
                  RC_BACKEND, "broke off");
    assert_broken(PIECES("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), RC_BACKEND,
                  "broke off");
    assert_broken(PIECES("SSH-2.0-OpenSSH_9\r\n"), RC_BACKEND, "broke off");
    assert_broken(PIECES("HTTP/1.1 200"), RC_BACKEND, "broke off");
    assert_broken(PIECES(long_head), RC_BACKEND, "head is too long");
}

static void test_errors_of_the_daemon(void **state)
{
    (void)state;
    struct buf out = {0};
    struct err err = {0};
    assert_int_equal(
        get(PIECES(
                "HTTP/1.1 404 Not Found\r\n\r\n"
                "{\"error\":{\"message\":\"no model x\",\"hint\":\"did you mean y?\",\"code\":\"n_fnd\"}}  "),
            &out, &err),
        RC_NOT_FOUND);
    assert_string_equal(err.message, "no model x");
    assert_string_equal(err.hint, "did you mean y?");
    assert_int_equal(out.n, 0); /* an error's body is no answer */
    assert_int_equal(
        get(PIECES("HTTP/1.1 500 No\r\n\r\n", "{\"error\":{\"message\":\"m\",\"code\":\"does_not_fit\"}}"),
            &out, &err),
        RC_NO_FIT);
    assert_int_equal(get(PIECES("HTTP/1.1 503 Busy\r\n\r\n", "{\"error\":\"plain\"}"), &out, &err), RC_NOMEM);
    assert_string_equal(err.message, "plain");
    assert_string_equal(err.hint, "");
    assert_int_equal(get(PIECES("HTTP/1.1 418 Teapot\r\nContent-Length: 5\r\n\r\n<tea>"), &out, &err),
                     RC_BACKEND);
    assert_non_null(strstr(err.message, "answered /x?y=1 with status 418"));
    assert_int_equal(
        get(PIECES("HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n"), &out, &err),
        RC_BACKEND);
    buf_release(&out);
}

static void test_post(void **state)
{
    (void)state;
    struct server s = {.pieces = PIECES("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"ok\": true}"),
                       .poke_fd = -1};
    struct client_address a;
    yyjson_doc *doc;
    char url[64];
    struct client_request r = {
        .method = "POST", .path = "/v1/x", .body = STR("{\"a\":1}"), .bearer = "sk-1", .cancel_fd = -1};
    server_start(&s, true);
    snprintf(url, sizeof url, "http://127.0.0.1:%u/base/", s.port);
    assert_int_equal(client_address_url(url, &a, NULL), RC_OK);
    assert_int_equal(client_json(&a, &r, &doc, NULL), RC_OK);
    assert_true(json_bool(yyjson_doc_get_root(doc), "ok", false));
    yyjson_doc_free(doc);
    pthread_join(s.thread, NULL);
    assert_true(str_starts(buf_str(&s.request), "POST /base/v1/x HTTP/1.1\r\n"));
    assert_non_null(strstr(s.request.data, "Authorization: Bearer sk-1\r\n"));
    assert_non_null(strstr(s.request.data, "Content-Length: 7\r\n"));
    assert_true(str_ends(buf_str(&s.request), "\r\n\r\n{\"a\":1}"));
    close(s.listener);
    buf_release(&s.request);
}

static void test_not_json(void **state)
{
    (void)state;
    struct server s = {.pieces = PIECES("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n<>"), .poke_fd = -1};
    struct client_address a;
    struct err err;
    yyjson_doc *doc = NULL;
    struct client_request r = {.method = "GET", .path = "/", .cancel_fd = -1};
    server_start(&s, false);
    assert_int_equal(client_address_control(s.path, &a, NULL), RC_OK);
    assert_int_equal(client_json(&a, &r, &doc, &err), RC_INVALID);
    assert_null(doc);
    assert_non_null(strstr(err.message, "is not valid JSON"));
    server_stop(&s);
}

static void test_nobody_there(void **state)
{
    (void)state;
    struct client_address a;
    struct err err = {0};
    struct client_request r = {.method = "GET", .path = "/", .cancel_fd = -1};
    assert_int_equal(client_address_control("/nonexistent/arriero.sock", &a, &err), RC_OK);
    assert_int_equal(client_stream(&a, &r, collect, NULL, &err), RC_NOT_FOUND);
    assert_string_equal(err.message, "no daemon answers at /nonexistent/arriero.sock");
    assert_string_equal(err.hint, "start it with: arriero serve");
    /* a port that was ours a moment ago and has no listener */
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof in;
    char url[64];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    snprintf(url, sizeof url, "127.0.0.1:%u", ntohs(in.sin_port));
    assert_int_equal(client_address_url(url, &a, &err), RC_OK);
    assert_int_equal(client_stream(&a, &r, collect, NULL, &err), RC_NOT_FOUND);
    assert_non_null(strstr(err.message, "no daemon answers at http://127.0.0.1:"));
    close(fd);
}

static void test_deadline(void **state)
{
    (void)state;
    struct server s = {.pieces = PIECES("HTTP/1.1 200 OK\r\n"), .hold = true, .poke_fd = -1};
    struct client_address a;
    struct err err = {0};
    struct buf out = {0};
    struct client_request r = {.method = "GET", .path = "/", .timeout_ms = 20, .cancel_fd = -1};
    server_start(&s, false);
    assert_int_equal(client_address_control(s.path, &a, NULL), RC_OK);
    assert_int_equal(client_stream(&a, &r, collect, &out, &err), RC_TIMEOUT);
    pthread_join(s.thread, NULL);
    assert_true(s.saw_close);
    s.thread = pthread_self();
    close(s.listener);
    unlink(s.path);
    rmdir(s.dir);
    buf_release(&s.request);
}

static void test_cancel(void **state)
{
    (void)state;
    struct server s = {.pieces = PIECES("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart"),
                       .hold = true,
                       .poke_fd = eventfd(0, EFD_CLOEXEC)};
    struct client_address a;
    struct err err = {0};
    struct buf out = {0};
    struct client_request r = {.method = "GET", .path = "/", .cancel_fd = s.poke_fd};
    server_start(&s, false);
    assert_int_equal(client_address_control(s.path, &a, NULL), RC_OK);
    assert_int_equal(client_stream(&a, &r, collect, &out, &err), RC_CANCELLED);
    pthread_join(s.thread, NULL);
    assert_true(s.saw_close); /* the daemon sees that nobody waits any more */
    close(s.poke_fd);
    close(s.listener);
    unlink(s.path);
    rmdir(s.dir);
    buf_release(&s.request);
    buf_release(&out);
}

static void test_reader_stops(void **state)
{
    (void)state;
    struct server s = {
        .pieces = PIECES("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\npart"), .hold = true, .poke_fd = -1};
    struct client_address a;
    int calls = 0;
    struct client_request r = {.method = "GET", .path = "/", .cancel_fd = -1};
    server_start(&s, false);
    assert_int_equal(client_address_control(s.path, &a, NULL), RC_OK);
    assert_int_equal(client_stream(&a, &r, stop_at_once, &calls, NULL), RC_OK);
    assert_int_equal(calls, 1);
    server_stop(&s);
}

static void test_addresses(void **state)
{
    (void)state;
    struct client_address a;
    struct err err;
    static const struct {
        const char *url, *host, *port, *base;
        bool tls;
    } good[] = {
        {"http://127.0.0.1:11435", "127.0.0.1", "11435", ""},
        {"localhost:8080/", "localhost", "8080", ""},
        {"http://h/a/b/", "h", "80", "/a/b"},
        {"http://[::1]:9/v1", "::1", "9", "/v1"},
        {"[::1]", "::1", "80", ""},
        {"https://h", "h", "443", "", true},
        {"https://[::1]:8443/v1/", "::1", "8443", "/v1", true},
    };
    for (size_t i = 0; i < TABLE_COUNT(good); i++) {
        assert_int_equal(client_address_url(good[i].url, &a, &err), RC_OK);
        assert_string_equal(a.host, good[i].host);
        assert_string_equal(a.port, good[i].port);
        assert_string_equal(a.base, good[i].base);
        assert_false(a.local);
        assert_int_equal(a.tls, good[i].tls);
        assert_false(a.unchecked);
    }
    static const char *const bad[] = {"",          "http://",  ":80",         "h:0",      "h:65536",
                                      "h:x",       "[::1]x",   "ho st:80",    "h:80/a b", "h:80/\r\nX: y",
                                      "http://:1", "https://", "https://h:0", "ftp://h"};
    for (size_t i = 0; i < TABLE_COUNT(bad); i++)
        assert_int_equal(client_address_url(bad[i], &a, &err), RC_INVALID);
    char path[200];
    memset(path, 'p', sizeof path);
    path[199] = '\0';
    assert_int_equal(client_address_control(path, &a, &err), RC_LIMIT);
    assert_non_null(strstr(err.hint, "--socket"));
    setenv("XDG_RUNTIME_DIR", "/run/user/1", 1);
    assert_int_equal(client_address_control(NULL, &a, &err), RC_OK);
    assert_true(str_ends(str_from(a.path), "/arriero.sock"));
}

static void test_escape(void **state)
{
    (void)state;
    struct buf out = {0};
    client_escape(&out, STR("a/b c&d=ü~-_.\0"));
    assert_string_equal(out.data, "a%2Fb%20c%26d%3D%C3%BC~-_.%00");
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_broken_answers),
        cmocka_unit_test(test_errors_of_the_daemon),
        cmocka_unit_test(test_post),
        cmocka_unit_test(test_not_json),
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_reader_stops),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_escape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
