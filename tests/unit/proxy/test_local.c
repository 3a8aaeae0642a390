/* Local routes, refusals, limits and the smuggling rules, through real sockets. */
#include "door.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void expect_answer(struct door *d, const char *request, int status, const char *in_body)
{
    struct answer a = client_ask(d, request);
    if (a.status != status || (in_body && (!a.body.data || !strstr(a.body.data, in_body))))
        fail_msg("%.60s… gave %d %s, not %d with %s", request, a.status, a.body.data ? a.body.data : "",
                 status, in_body);
    assert_false(a.broken);
    answer_release(&a);
}

static void test_replies(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    expect_answer(d, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", 200, "hello world");
    expect_answer(d, "GET /hello?x=1&who=J%6fe+B HTTP/1.1\r\nHost: a\r\nX-Test:  !\r\n\r\n", 200,
                  "hello Joe B!");
    expect_answer(d, "GET http://a:1/hello HTTP/1.1\r\nHost: a\r\n\r\n", 200, "hello world");
    expect_answer(d, "GET /%68ello HTTP/1.1\r\nHost: a\r\n\r\n", 200, "hello world");
    expect_answer(d, "GET /hello HTTP/1.0\r\n\r\n", 200, "hello world");
    expect_answer(d, "DELETE /item/a%2Fb/c HTTP/1.1\r\nHost: a\r\n\r\n", 200, "DELETE /item/a/b/c");
    expect_answer(d, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde", 200, "abcde");
    expect_answer(d,
                  "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
                  "chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n",
                  200, "abcde");
    struct answer a = client_ask(d, "GET /error HTTP/1.1\r\nHost: a\r\nX-Request-Id: my-1.x\r\n\r\n");
    assert_int_equal(a.status, 503);
    assert_true(answer_has(&a, "Retry-After: 7") && answer_has(&a, "X-Request-Id: my-1.x"));
    assert_string_equal(a.body.data,
                        "{\"error\":{\"message\":\"the \\\"thing\\\" is busy\",\"type\":\"overloaded_error\","
                        "\"code\":\"busy\",\"param\":null,\"hint\":\"wait\"}}\n");
    answer_release(&a);
    door_stop(d, false);
}

static void test_head_and_options(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_send(fd, "HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    struct answer a = client_answer(fd, true);
    assert_int_equal(a.status, 200);
    assert_true(answer_has(&a, "Content-Length: 11"));
    client_send(fd, "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: a\r\nOrigin: http://localhost:3000\r\n"
                    "Access-Control-Request-Method: POST\r\n\r\n");
    a = client_answer(fd, false);
    assert_int_equal(a.status, 204);
    assert_true(answer_has(&a, "Access-Control-Allow-Origin: http://localhost:3000"));
    assert_true(answer_has(&a, "Allow: POST, OPTIONS"));
    client_send(fd,
                "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: a\r\nOrigin: http://evil.example\r\n\r\n");
    a = client_answer(fd, false);
    assert_int_equal(a.status, 204);
    assert_null(strstr(a.head, "Access-Control"));
    client_send(fd, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    a = client_answer(fd, false);
    assert_int_equal(a.status, 204);
    close(fd);
    door_stop(d, false);
}

static void test_pipelined_in_order(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    struct buf b = {0};
    for (int i = 0; i < 500; i++)
        assert_true(buf_printf(&b, "GET /hello?who=%d HTTP/1.1\r\nHost: a\r\n\r\n", i));
    client_send_n(fd, b.data, b.n);
    for (int i = 0; i < 500; i++) {
        char want[32];
        (void)snprintf(want, sizeof want, "hello %d", i);
        struct answer a = client_answer(fd, false);
        assert_string_equal(a.body.data, want);
        answer_release(&a);
    }
    close(fd);
    buf_release(&b);
    door_stop(d, false);
}

/* The head in pieces of every size; two requests behind each other in odd pieces. */
static void test_split_heads(void **state)
{
    (void)state;
    static const char text[] =
        "POST /echo HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nEmpty:\r\nContent-Length: 4\r\n\r\nbodyGET /hello "
        "HTTP/1.1\r\nHost: a\r\n\r\n";
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    for (size_t step = 1; step < sizeof text; step += 7) {
        int fd = client_connect(d);
        for (size_t i = 0; i < sizeof text - 1; i += step)
            client_send_n(fd, text + i, sizeof text - 1 - i < step ? sizeof text - 1 - i : step);
        struct answer a = client_answer(fd, false);
        assert_string_equal(a.body.data, "body");
        answer_release(&a);
        a = client_answer(fd, false);
        assert_string_equal(a.body.data, "hello world");
        answer_release(&a);
        close(fd);
    }
    door_stop(d, false);
}

static const struct {
    const char *request;
    int status;
} refused[] = {
    /* what a lenient front would let pass to a strict back, or the other way round */
    {"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     400},
    {"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
     400},
    {"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400},
    {"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", 400},
    {"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400},
    {"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400},
    {"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 501},
    {"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
    {"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
     "chunked\r\n\r\n0\r\n\r\n",
     400},
    {"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
    {"POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
    {"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
    {"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400},
    {"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400},
    {"GET /hello HTTP/1.1\r\n\r\n", 400},
    {"GET /hello HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400},
    {"GET /hello HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
    {"GET /hello HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
    {"GET /hello HTTP/1.1\r\nHost:\r\n\r\n", 400},
    {"GET /hello HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n", 400},
    {"GET /hello HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n", 400},
    {"GET /hello HTTP/1.1\r\nHost: a\r\nX: a\001b\r\n\r\n", 400},
    {"GET /hello HTTP/2.0\r\nHost: a\r\n\r\n", 505},
    {"GET /hello HTTP/1.2\r\nHost: a\r\n\r\n", 505},
    {"GET /hello HTTP/0.9\r\nHost: a\r\n\r\n", 505},
    {"GET /hello\r\n\r\n", 400},
    {"GET /hello\r\nHost: a\r\n\r\n", 400},
    {"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405},
    {"NONSENSE /hello HTTP/1.1\r\nHost: a\r\n\r\n", 501},
    {"GET hello HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET /item/../hello HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET /item/%2e%2e/hello HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET /he%00llo HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET /he%zzllo HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404},
    {"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n", 404},
    {"DELETE /hello HTTP/1.1\r\nHost: a\r\n\r\n", 405},
    {"PATCH /hello HTTP/1.1\r\nHost: a\r\n\r\n", 405},
    {"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n", 417},
};

static void test_refusals(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        expect_answer(d, refused[i].request, refused[i].status, "{\"error\":{\"message\":\"");
    struct answer a = client_ask(d, "DELETE /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(answer_has(&a, "Allow: GET, HEAD, OPTIONS"));
    answer_release(&a);
    assert_int_equal(door_count(d, DOOR_ACQUIRED), 0);
    door_stop(d, false);
}

/* A refusal that says nothing about the framing leaves the connection usable. */
static void test_refusal_keeps_connection(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_send(fd, "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    struct answer a = client_answer(fd, false), b = client_answer(fd, false);
    assert_int_equal(a.status, 404);
    assert_int_equal(b.status, 200);
    answer_release(&a);
    answer_release(&b);
    close(fd);
    door_stop(d, false);
}

static void test_head_limits(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    struct buf b = {0};
    assert_true(buf_puts(&b, "GET /hello HTTP/1.1\r\nHost: a\r\nX: "));
    while (b.n < 40000)
        assert_true(buf_puts(&b, "0123456789"));
    expect_answer(d, b.data, 431, "16 KiB");
    buf_clear(&b);
    assert_true(buf_puts(&b, "GET /hello HTTP/1.1\r\nHost: a\r\n"));
    for (int i = 0; i < 120; i++)
        assert_true(buf_printf(&b, "X-%d: 1\r\n", i));
    assert_true(buf_puts(&b, "\r\n"));
    expect_answer(d, b.data, 431, "100 header fields");
    buf_release(&b);
    door_stop(d, false);
}

static void test_body_limits(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.opt.max_body_bytes = 100000;
    setup.opt.body_budget_bytes = 60000;
    struct door *d = door_start(&setup);
    expect_answer(d, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\n\r\n", 413, "100000 bytes");
    expect_answer(d, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n186a1\r\n", 413,
                  "100000 bytes");
    struct answer a = client_ask(d, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n");
    assert_int_equal(a.status, 503);
    assert_true(answer_has(&a, "Retry-After: 1"));
    answer_release(&a);
    /* The same limits when no length was declared. */
    struct buf b = {0};
    assert_true(buf_puts(&b, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
    for (int i = 0; i < 200; i++)
        assert_true(buf_printf(&b, "200\r\n%0512d\r\n", i));
    assert_true(buf_puts(&b, "0\r\n\r\n"));
    expect_answer(d, b.data, 503, "in flight");
    assert_int_equal(door_counters(d).body_bytes_in_flight, 0);
    door_stop(d, false);
    setup.opt.body_budget_bytes = 1000000;
    d = door_start(&setup);
    expect_answer(d, b.data, 413, "100000 bytes");
    assert_int_equal(door_counters(d).body_bytes_in_flight, 0);
    buf_release(&b);
    door_stop(d, false);
}

static void test_errors_of_the_dialect(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.opt.max_body_bytes = 100;
    setup.route = DOOR_REFUSE;
    struct door *d = door_start(&setup);
    expect_answer(
        d,
        "POST /v1/messages HTTP/1.1\r\nHost: a\r\nX-Request-Id: r1\r\nContent-Length: "
        "13\r\n\r\n{\"model\":\"m\"}",
        404,
        "{\"type\":\"error\",\"error\":{\"type\":\"not_found_error\",\"message\":\"no model named m\"},"
        "\"request_id\":\"r1\"}");
    expect_answer(d, "POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n", 413,
                  "{\"type\":\"error\",\"error\":{\"type\":\"request_too_large\"");
    expect_answer(d, "POST /v1/messages HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 1\r\n\r\n1", 403,
                  "{\"type\":\"error\",\"error\":{\"type\":\"permission_error\"");
    expect_answer(d, "GET /v1/messages HTTP/1.1\r\nHost: a\r\n\r\n", 405, "{\"error\":{\"message\"");
    door_stop(d, false);
}

/* A relayed body is looked at while it comes, and the limit is told all the same. */
static void test_relayed_body_limits(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.opt.max_body_bytes = 100000;
    struct door *d = door_start(&setup);
    static const char head[] =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (int size = 512; size <= 65536; size *= 128) {
        struct buf b = {0};
        assert_true(buf_puts(&b, head));
        assert_true(buf_puts(&b, "15\r\n{\"model\":\"m\",\"prompt\"\r\n2\r\n:\"\r\n"));
        for (int i = 0; i < 300000 / size + 1; i++)
            assert_true(buf_printf(&b, "%x\r\n%0*d\r\n", (unsigned)size, size, i));
        assert_true(buf_puts(&b, "2\r\n\"}\r\n0\r\n\r\n"));
        expect_answer(d, b.data, 413, "100000 bytes");
        buf_release(&b);
    }
    struct buf b = {0};
    assert_true(buf_printf(&b, "%sfffffffffffffffff\r\n{", head)); /* more than any number holds */
    expect_answer(d, b.data, 413, "100000 bytes");
    buf_release(&b);
    assert_int_equal(door_counters(d).body_bytes_in_flight, 0);
    door_stop(d, false);
}

static void test_large_chunked_body(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    struct buf b = {0}, want = {0};
    assert_true(buf_puts(&b, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
    for (int i = 0; i < 3000; i++) {
        int n = 1 + i % 700;
        assert_true(buf_printf(&b, "%x\r\n%0*d\r\n", n < 6 ? 6 : n, n < 6 ? 6 : n, i));
        assert_true(buf_printf(&want, "%0*d", n < 6 ? 6 : n, i));
    }
    assert_true(buf_puts(&b, "0\r\n\r\n"));
    struct answer a = client_ask(d, b.data);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body.n, want.n);
    assert_memory_equal(a.body.data, want.data, want.n);
    answer_release(&a);
    buf_release(&b);
    buf_release(&want);
    door_stop(d, false);
}

static void test_expect(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.opt.max_body_bytes = 10;
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_send(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    char go[25];
    client_read_n(fd, go, sizeof go);
    assert_memory_equal(go, "HTTP/1.1 100 Continue\r\n\r\n", sizeof go);
    client_send(fd, "body");
    struct answer a = client_answer(fd, false);
    assert_string_equal(a.body.data, "body");
    answer_release(&a);
    close(fd);
    /* No invitation for what will be refused. */
    expect_answer(d, "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n",
                  413, "limit");
    door_stop(d, false);
}

static void test_timeouts(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.opt.header_timeout_ms = 50;
    setup.opt.idle_timeout_ms = 50;
    struct door *d = door_start(&setup);
    expect_answer(d, "GET /hello HTTP/1.1\r\nHo", 408, "head did not arrive");
    expect_answer(d, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab", 408,
                  "body did not arrive");
    int fd = client_connect(d); /* never says a word */
    assert_true(client_at_eof(fd));
    close(fd);
    fd = client_connect(d);
    client_send(fd, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    struct answer a = client_answer(fd, false);
    assert_int_equal(a.status, 200);
    answer_release(&a);
    assert_true(client_at_eof(fd)); /* idle after an answer */
    close(fd);
    door_stop(d, false);
}

static void test_listeners(void **state)
{
    (void)state;
    char path[64];
    (void)snprintf(path, sizeof path, "/tmp/arriero-test-%d.sock", (int)getpid());
    struct door_setup setup = door_default();
    setup.unix_path = path;
    struct auth_spec key = door_key("key-one");
    setup.opt.keys = &key; /* a Unix socket is protected by its mode, and needs no key */
    setup.opt.n_keys = 1;
    struct door *d = door_start(&setup);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    int fd = client_connect_unix(path);
    client_send(fd, "GET /secret HTTP/1.1\r\nHost: a\r\n\r\n");
    struct answer a = client_answer(fd, false);
    assert_int_equal(a.status, 200);
    answer_release(&a);
    close(fd);
    /* A second server finds the port and the socket in use. */
    uv_loop_t loop;
    struct http_server *s = NULL;
    struct err err;
    assert_int_equal(uv_loop_init(&loop), 0);
    struct http_options opt;
    http_options_default(&opt);
    opt.loop = &loop;
    assert_int_equal(http_server_new(&opt, &s, &err), RC_OK);
    char address[32];
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", door_port(d));
    assert_int_equal(http_listen_tcp(s, address, false, &err), RC_BUSY);
    assert_non_null(strstr(err.message, address));
    assert_int_equal(http_listen_unix(s, path, true, &err), RC_BUSY);
    assert_int_equal(http_listen_tcp(s, "nonsense", false, &err), RC_INVALID);
    assert_int_equal(http_listen_tcp(s, "example.com:80", false, &err), RC_INVALID);
    assert_int_equal(http_listen_tcp(s, "127.0.0.1:70000", false, &err), RC_INVALID);
    http_server_drain(s, NULL, NULL);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    http_server_free(s);
    assert_int_equal(uv_loop_close(&loop), 0);
    door_stop(d, false);
    assert_int_not_equal(stat(path, &st), 0); /* removed */
}

static void test_stale_socket(void **state)
{
    (void)state;
    char path[64];
    (void)snprintf(path, sizeof path, "/tmp/arriero-stale-%d.sock", (int)getpid());
    struct door_setup setup = door_default();
    setup.unix_path = path;
    struct door *d = door_start(&setup);
    char keep[80];
    (void)snprintf(keep, sizeof keep, "%s.keep", path);
    assert_int_equal(link(path, keep), 0); /* survives the orderly end, as after a crash */
    door_stop(d, false);
    assert_int_equal(rename(keep, path), 0);
    d = door_start(&setup);
    int fd = client_connect_unix(path);
    client_send(fd, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    struct answer a = client_answer(fd, false);
    assert_int_equal(a.status, 200);
    answer_release(&a);
    close(fd);
    door_stop(d, false);
}

static void test_later_and_abort(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_send(fd, "GET /later HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    door_wait(d, DOOR_LATER, 1);
    door_answer_later(d);
    struct answer a = client_answer(fd, false), b = client_answer(fd, false);
    assert_string_equal(a.body.data, "at last");
    assert_string_equal(b.body.data, "hello world");
    answer_release(&a);
    answer_release(&b);
    client_send(fd, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    door_wait(d, DOOR_LATER, 2);
    close(fd);
    door_wait(d, DOOR_ABORTED, 1);
    /* Whoever did not ask to be told may still answer. */
    fd = client_connect(d);
    client_send(fd, "GET /careless HTTP/1.1\r\nHost: a\r\n\r\n");
    door_wait(d, DOOR_LATER, 3);
    close(fd);
    while (door_counters(d).connections)
        continue;
    door_answer_later(d);
    door_stop(d, false);
}

/* The send fails inside the reply: nobody owes anything any more, so everything is freed (leaks are told). */
static void test_client_gone_before_the_reply(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_send(fd, "GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    door_wait(d, DOOR_LATER, 1);
    client_reset(fd);
    door_let_go(d);
    while (door_counters(d).connections)
        continue;
    assert_int_equal(door_counters(d).client_aborts, 1);
    door_stop(d, false);
}

static void test_streams(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_send(fd, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    struct answer a = client_answer(fd, false);
    assert_string_equal(a.body.data, "data: 1\n\ndata: 2\n\n");
    assert_true(answer_has(&a, "X-Accel-Buffering: no"));
    answer_release(&a);
    client_send(fd, "GET /stream HTTP/1.0\r\n\r\n");
    a = client_answer(fd, false);
    assert_string_equal(a.body.data, "data: 1\n\ndata: 2\n\n");
    assert_null(strstr(a.head, "chunked"));
    answer_release(&a);
    close(fd);
    /* Who does not read is cut off, visibly. */
    fd = client_connect(d);
    client_send(fd, "GET /flood HTTP/1.1\r\nHost: a\r\n\r\n");
    door_wait(d, DOOR_STREAM_ENDS, 1);
    a = client_answer(fd, false);
    assert_true(a.broken);
    answer_release(&a);
    close(fd);
    assert_int_equal(door_count(d, DOOR_ABORTED), 0);
    /* Whoever leaves between two writes is noticed. */
    fd = client_connect(d);
    client_send(fd, "GET /open HTTP/1.1\r\nHost: a\r\n\r\n");
    client_read_until(fd, "first\n\r\n");
    close(fd);
    door_wait(d, DOOR_ABORTED, 1);
    door_stop(d, false);
}

/* The head of a stream that does not end is a whole answer: the connection goes on. */
static void test_head_of_an_open_stream(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_send(fd, "HEAD /open HTTP/1.1\r\nHost: a\r\n\r\n");
    struct answer a = client_answer(fd, true);
    assert_int_equal(a.status, 200);
    client_send(fd, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    a = client_answer(fd, false);
    assert_string_equal(a.body.data, "hello world");
    answer_release(&a);
    close(fd);
    assert_int_equal(door_count(d, DOOR_ABORTED), 0);
    door_stop(d, false);
}

static void test_abort_with_open_stream(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_send(fd, "GET /open HTTP/1.1\r\nHost: a\r\n\r\n");
    client_read_until(fd, "first\n\r\n");
    door_stop(d, true);
    close(fd);
}

static void test_drain(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int idle = client_connect(d), busy = client_connect(d);
    client_send(busy, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    door_wait(d, DOOR_LATER, 1);
    while (door_counters(d).connections < 2)
        continue;
    door_drain(d);
    assert_true(client_at_eof(idle));
    door_answer_later(d);
    struct answer a = client_answer(busy, false);
    assert_string_equal(a.body.data, "at last");
    assert_true(answer_has(&a, "Connection: close"));
    assert_true(client_at_eof(busy));
    answer_release(&a);
    close(idle);
    close(busy);
    door_stop(d, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_head_and_options),
        cmocka_unit_test(test_pipelined_in_order),
        cmocka_unit_test(test_split_heads),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_refusal_keeps_connection),
        cmocka_unit_test(test_head_limits),
        cmocka_unit_test(test_body_limits),
        cmocka_unit_test(test_errors_of_the_dialect),
        cmocka_unit_test(test_relayed_body_limits),
        cmocka_unit_test(test_large_chunked_body),
        cmocka_unit_test(test_expect),
        cmocka_unit_test(test_timeouts),
        cmocka_unit_test(test_listeners),
        cmocka_unit_test(test_stale_socket),
        cmocka_unit_test(test_later_and_abort),
        cmocka_unit_test(test_client_gone_before_the_reply),
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_head_of_an_open_stream),
        cmocka_unit_test(test_abort_with_open_stream),
        cmocka_unit_test(test_drain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
