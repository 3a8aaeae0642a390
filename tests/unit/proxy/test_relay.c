/* Relayed requests, whole and streamed: what goes up, what comes down, what is recorded. */
#include "door.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ASK "{\"model\":\"m\",\"stream\":false}"

static void test_plain(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.opt.cors_origin = "http://evil.example";
    struct door *d = door_start(&setup);
    int fd = client_connect(d), back = -1;
    for (unsigned i = 1; i <= 3; i++) { /* one client connection, one backend connection */
        client_post(fd,
                    "X-Custom: yes\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nAccept-Encoding: gzip\r\n"
                    "TE: trailers\r\nUpgrade: h2c\r\nProxy-Authorization: x\r\nAuthorization: Bearer t\r\n"
                    "Origin: http://evil.example\r\nX-Request-Id: id-7\r\n",
                    ASK);
        if (back < 0)
            back = backend_accept(d);
        struct buf got = backend_request(back);
        assert_non_null(strstr(got.data, "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:"));
        assert_non_null(strstr(got.data, "X-Custom: yes\r\n"));
        assert_non_null(strstr(got.data, "Authorization: Bearer t\r\n")); /* no keys of ours: the backend's */
        assert_non_null(strstr(got.data, "Accept-Encoding: identity\r\n"));
        assert_non_null(strstr(got.data, "X-Request-Id: id-7\r\n"));
        assert_non_null(strstr(got.data, "\r\n\r\n" ASK));
        static const char *const gone[] = {"Hop",    "gzip", "TE:",        "Upgrade",
                                           "Proxy-", "evil", "Connection", "Host: door"};
        for (size_t k = 0; k < sizeof gone / sizeof *gone; k++)
            assert_null(strstr(got.data, gone[k]));
        buf_release(&got);
        backend_answer(back, OK_JSON);
        struct answer a = client_answer(fd, false);
        assert_int_equal(a.status, 200);
        assert_string_equal(a.body.data, OK_JSON);
        assert_true(answer_has(&a, "Content-Type: application/json"));
        assert_true(answer_has(&a, "X-Request-Id: id-7") && answer_has(&a, "X-Arriero-Instance: inst-1"));
        answer_release(&a);
        door_wait(d, DOOR_RELEASED, i);
        door_wait(d, DOOR_RECORDS, i);
        struct door_record r = door_record(d);
        assert_string_equal(r.outcome, "ok");
        assert_string_equal(r.model, "canon");
        assert_string_equal(r.path, "/v1/chat/completions");
        assert_int_equal(r.r.status, 200);
        assert_true(r.r.tokens_known);
        assert_int_equal(r.r.prompt_tokens, 7);
        assert_int_equal(r.r.completion_tokens, 3);
        assert_int_equal(r.r.cached_tokens, 2);
        assert_true(r.r.total_us >= r.r.ttfb_us && r.r.ttfb_us > 0 && r.r.request_bytes > sizeof ASK);
    }
    assert_true(backend_is_quiet(d));
    char model[64];
    door_asked(d, model, sizeof model);
    assert_string_equal(model, "m");
    close(fd);
    close(back);
    door_stop(d, false);
}

static void test_splice(void **state)
{
    (void)state;
    static const struct {
        const char *sent, *asked, *received;
    } rows[] = {
        {"{\"model\":\"a\",\"n\":1}", "a", "{\"model\":\"q\\\"\\\\x\",\"n\":1}"},
        {"{\"n\":[{\"model\":\"no\"}], \"mod\\u0065l\" : \"a\\/\\u00e9\" }", "a/é",
         "{\"n\":[{\"model\":\"no\"}], \"mod\\u0065l\" : \"q\\\"\\\\x\" }"},
        {"{\"n\":1}", "", "{\"model\":\"q\\\"\\\\x\",\"n\":1}"},
        {"{ }", "", "{\"model\":\"q\\\"\\\\x\" }"},
    };
    struct door_setup setup = door_default();
    setup.replace_model = true;
    setup.canonical = "q\"\\x";
    struct door *d = door_start(&setup);
    int fd = client_connect(d), back = -1;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        client_post(fd, "", rows[i].sent);
        if (back < 0)
            back = backend_accept(d);
        struct buf got = backend_request(back);
        assert_string_equal(strstr(got.data, "\r\n\r\n") + 4, rows[i].received);
        buf_release(&got);
        char model[64];
        door_asked(d, model, sizeof model);
        assert_string_equal(model, rows[i].asked);
        backend_answer(back, "{}");
        struct answer a = client_answer(fd, false);
        assert_int_equal(a.status, 200);
        answer_release(&a);
    }
    close(fd);
    close(back);
    door_stop(d, false);
}

static void test_large_body_splice(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.replace_model = true;
    struct door *d = door_start(&setup);
    struct buf body = {0};
    assert_true(buf_puts(&body, "{\"messages\":\""));
    for (int i = 0; i < 400000; i++)
        assert_true(buf_printf(&body, "word%07d ", i));
    assert_true(buf_puts(&body, "\",\"model\":\"alias\",\"end\":1}"));
    int fd = client_connect(d);
    client_post(fd, "", body.data);
    int back = backend_accept(d);
    struct buf got = backend_request(back);
    const char *received = strstr(got.data, "\r\n\r\n") + 4;
    const char *tail = "\",\"model\":\"canon\",\"end\":1}";
    size_t same = body.n - strlen("\",\"model\":\"alias\",\"end\":1}");
    assert_int_equal(strlen(received), same + strlen(tail));
    assert_memory_equal(received, body.data, same);
    assert_string_equal(received + same, tail);
    backend_answer(back, OK_JSON);
    struct answer a = client_answer(fd, false);
    assert_int_equal(a.status, 200);
    answer_release(&a);
    assert_int_equal(door_counters(d).body_bytes_in_flight, 0);
    buf_release(&got);
    buf_release(&body);
    close(fd);
    close(back);
    door_stop(d, false);
}

static void test_bad_bodies(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        int status;
        const char *says;
    } rows[] = {
        {"{\"model\":\"a\"", 400, "cut off"},
        {"", 400, "no body"},
        {"[1]", 400, "not an object"},
        {"{\"model\":\"a\",\"model\":\"a\"}", 400, "more than once"},
        {"{\"model\":\"a\",\"mod\\u0065l\":\"a\"}", 400, "more than once"},
        {"{\"model\":5}", 400, "not a string"},
        {"{\"model\":null}", 400, "not a string"},
        {"{\"model\":\"\\u0000\"}", 400, "no usable name"},
        {"{\"a\":\"\xff\"}", 400, "UTF-8"},
        {"{\"a\":tru}", 400, "no JSON value"},
        {"{\"n\":1}", 400, "names no model"},
        {"{\"model\":\"a\"}", 404, "no model named a"},
    };
    struct door_setup setup = door_default();
    setup.route = DOOR_REFUSE;
    struct door *d = door_start(&setup);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int fd = client_connect(d);
        client_post(fd, "", rows[i].body);
        struct answer a = client_answer(fd, false);
        if (a.status != rows[i].status || !strstr(a.body.data, rows[i].says))
            fail_msg("%s: %d %s", rows[i].body, a.status, a.body.data);
        answer_release(&a);
        close(fd);
        door_wait(d, DOOR_RECORDS, (unsigned)i + 1);
        assert_string_equal(door_record(d).outcome, "refused");
    }
    /* What is malformed early is refused without waiting for the rest. */
    int fd = client_connect(d);
    client_send(fd,
                "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n{nonsense");
    struct answer a = client_answer(fd, false);
    assert_int_equal(a.status, 400);
    answer_release(&a);
    close(fd);
    door_stop(d, false);
}

static void test_refusal_with_retry(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.route = DOOR_REFUSE;
    setup.refuse_code = RC_BUSY;
    setup.retry_after_s = 12;
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_post(fd, "", ASK);
    struct answer a = client_answer(fd, false);
    assert_int_equal(a.status, 503);
    assert_true(answer_has(&a, "Retry-After: 12"));
    answer_release(&a);
    client_send(fd, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"); /* the connection is fine */
    a = client_answer(fd, false);
    assert_int_equal(a.status, 200);
    answer_release(&a);
    close(fd);
    door_stop(d, false);
}

static void test_waiting(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.route = DOOR_WAIT;
    struct door *d = door_start(&setup);
    int one = client_connect(d), two = client_connect(d);
    client_post(one, "", ASK);
    door_wait(d, DOOR_ACQUIRED, 1);
    assert_int_equal(door_counters(d).waiting, 1);
    door_grant(d);
    int back = backend_accept(d);
    struct buf got = backend_request(back);
    buf_release(&got);
    backend_answer(back, OK_JSON);
    struct answer a = client_answer(one, false);
    assert_int_equal(a.status, 200);
    answer_release(&a);
    client_post(two, "", ASK);
    door_wait(d, DOOR_ACQUIRED, 2);
    door_refuse(d);
    a = client_answer(two, false);
    assert_int_equal(a.status, 502);
    assert_true(answer_has(&a, "Retry-After: 9"));
    assert_non_null(strstr(a.body.data, "did not start"));
    answer_release(&a);
    close(one);
    close(two);
    close(back);
    door_stop(d, false);
}

#define STREAM_HEAD                                                                                          \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: "       \
    "keep-alive\r\n"                                                                                         \
    "Access-Control-Allow-Origin: *\r\n\r\n"

/* Each piece is seen by the client before the next is sent. */
static void test_stream_step_by_step(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_post(fd, "", ASK);
    int back = backend_accept(d);
    struct buf got = backend_request(back);
    buf_release(&got);
    client_send(back, STREAM_HEAD);
    char head[4096] = "";
    size_t n = 0;
    while (n < 4 || memcmp(head + n - 4, "\r\n\r\n", 4) != 0)
        client_read_n(fd, head + n++, 1);
    head[n] = '\0';
    assert_non_null(strstr(head, "Transfer-Encoding: chunked\r\n"));
    assert_non_null(strstr(head, "X-Accel-Buffering: no\r\n"));
    assert_null(strstr(head, "Access-Control"));
    client_send(back, "9\r\ndata: 1\n\n\r\n");
    client_read_until(fd, "9\r\ndata: 1\n\n\r\n");
    client_send(back, "9\r\ndata: 2\n\n\r\n9\r\ndata: 3\n\n\r\n");
    client_read_until(fd, "data: 3\n\n\r\n");
    client_send(back, "16;ext=1\r\ndata: 4"); /* half a chunk, with an extension: framed anew */
    client_read_until(fd, "7\r\ndata: 4\r\n");
    client_send(back, "56789012345678");
    client_read_until(fd, "e\r\n56789012345678\r\n");
    client_send(back, "\n");
    client_read_until(fd, "1\r\n\n\r\n");
    client_send(back, "\r\n");
    client_send(back, "0");
    client_send(back, "a\r\n0123456789\r\n");
    client_read_until(fd, "a\r\n0123456789\r\n");
    client_send(back, "9\r\ndata: 5\n\n\r\n");
    client_read_until(fd, "9\r\ndata: 5\n\n\r\n");
    client_send(back, "3c\r\ndata: {\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":4}}\n\n\r\n"
                      "e\r\ndata: [DONE]\n\n\r\n0\r\nTrailer: x\r\n\r\n");
    client_read_until(fd, "\r\n0\r\n\r\n");
    door_wait(d, DOOR_RECORDS, 1);
    struct door_record r = door_record(d);
    assert_string_equal(r.outcome, "ok");
    assert_true(r.r.streamed && r.r.tokens_known);
    assert_int_equal(r.r.prompt_tokens, 11);
    assert_int_equal(r.r.completion_tokens, 4);
    /* Both connections are as good as new. */
    client_post(fd, "", ASK);
    got = backend_request(back);
    buf_release(&got);
    backend_answer(back, "{}");
    struct answer a = client_answer(fd, false);
    assert_int_equal(a.status, 200);
    answer_release(&a);
    close(fd);
    close(back);
    door_stop(d, false);
}

/* One chunked answer cut into reads of every size arrives unchanged. */
static void test_stream_in_pieces(void **state)
{
    (void)state;
    static const char text[] =
        STREAM_HEAD "5\r\nhello\r\n1\r\n \r\n00b\r\nwide\r\nworld\r\n10;a=b\r\n0123456789abcdef\r\n"
                    "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d), back = -1;
    for (size_t step = 1; step <= sizeof text; step += step < 40 ? 1 : 13) {
        client_post(fd, "", ASK);
        if (back < 0)
            back = backend_accept(d);
        struct buf got = backend_request(back);
        buf_release(&got);
        for (size_t i = 0; i < sizeof text - 1; i += step)
            client_send_n(back, text + i, sizeof text - 1 - i < step ? sizeof text - 1 - i : step);
        struct answer a = client_answer(fd, false);
        assert_false(a.broken);
        assert_string_equal(a.body.data, "hello wide\r\nworld0123456789abcdefdata: [DONE]\n\n");
        answer_release(&a);
    }
    close(fd);
    close(back);
    door_stop(d, false);
}

/* A body without a byte is still a whole answer. */
static void test_empty_bodies(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "HTTP/1.1 200 OK\r\nX-Long-Enough: to be noticed\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Long-Enough: to be noticed\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Long-Enough: to be noticed\r\nConnection: close\r\n\r\n",
    };
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int fd = client_connect(d);
        client_post(fd, "", ASK);
        int back = backend_accept(d);
        struct buf got = backend_request(back);
        buf_release(&got);
        client_send(back, rows[i]);
        close(back);
        struct answer a = client_answer(fd, false);
        assert_int_equal(a.status, 200);
        assert_true(answer_has(&a, "X-Long-Enough: to be noticed"));
        assert_false(a.broken);
        assert_int_equal(a.body.n, 0);
        close(fd);
    }
    door_stop(d, false);
}

static void test_http10_client(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_send(fd, "POST /v1/chat/completions HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}");
    int back = backend_accept(d);
    struct buf got = backend_request(back);
    buf_release(&got);
    client_send(back, STREAM_HEAD "5\r\nhello\r\n6\r\n[DONE]\r\n0\r\n\r\n");
    struct answer a = client_answer(fd, false);
    assert_null(strstr(a.head, "chunked"));
    assert_string_equal(a.body.data, "hello[DONE]");
    assert_false(a.broken);
    answer_release(&a);
    close(fd);
    close(back);
    door_stop(d, false);
}

static void test_get_head_and_close_delimited(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_send(fd, "GET /props?model=some%2Fm&x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    int back = backend_accept(d);
    struct buf got = backend_request(back);
    assert_non_null(strstr(got.data, "GET /props?model=some%2Fm&x=1 HTTP/1.1\r\n"));
    assert_null(strstr(got.data, "Content-Length"));
    buf_release(&got);
    char model[64];
    door_asked(d, model, sizeof model);
    assert_string_equal(model, "some/m");
    client_send(back,
                "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.0 200 OK\r\nX: 1\r\n\r\nuntil the end");
    close(back);
    struct answer a = client_answer(fd, false);
    assert_string_equal(a.body.data, "until the end");
    assert_false(a.broken);
    assert_true(answer_has(&a, "X: 1"));
    assert_null(strstr(a.head, "Link"));
    answer_release(&a);
    client_send(fd, "HEAD /props HTTP/1.1\r\nHost: a\r\n\r\n");
    back = backend_accept(d);
    got = backend_request(back);
    assert_non_null(strstr(got.data, "HEAD /props"));
    buf_release(&got);
    client_send(back, "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n");
    a = client_answer(fd, true);
    assert_true(answer_has(&a, "Content-Length: 1234"));
    client_send(fd, "GET /props HTTP/1.1\r\nHost: a\r\n\r\n");
    got = backend_request(back); /* the same connection */
    buf_release(&got);
    client_send(back, "HTTP/1.1 304 Not Modified\r\nContent-Length: 55\r\n\r\n");
    a = client_answer(fd, false);
    assert_int_equal(a.status, 304);
    close(fd);
    close(back);
    door_stop(d, false);
}

static void test_keys(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    const struct auth_spec keys[] = {door_key("key-one"), door_key("key-two")};
    setup.opt.keys = keys;
    setup.opt.n_keys = 2;
    struct door *d = door_start(&setup);
    static const char *const wrong[] = {"", "Authorization: Bearer key-three\r\n",
                                        "Authorization: Basic key-one\r\n", "Authorization: Bearer \r\n",
                                        "x-api-key: key-on\r\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int fd = client_connect(d);
        client_post(fd, wrong[i], ASK);
        struct answer a = client_answer(fd, false);
        assert_int_equal(a.status, 401);
        assert_true(answer_has(&a, "WWW-Authenticate: Bearer"));
        answer_release(&a);
        close(fd);
    }
    assert_int_equal(door_count(d, DOOR_ACQUIRED), 0);
    struct answer a = client_ask(d, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"); /* an open route */
    assert_int_equal(a.status, 200);
    answer_release(&a);
    a = client_ask(d, "GET /error HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(a.status, 401);
    answer_release(&a);
    static const char *const right[] = {"Authorization: Bearer key-one\r\n",
                                        "authorization: bearer  key-two\r\n", "X-Api-Key: key-two\r\n"};
    int back = -1;
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        int fd = client_connect(d);
        client_post(fd, right[i], ASK);
        if (back < 0)
            back = backend_accept(d);
        struct buf got = backend_request(back);
        assert_null(strstr(got.data, "key-")); /* ours, not the backend's */
        buf_release(&got);
        backend_answer(back, OK_JSON);
        a = client_answer(fd, false);
        assert_int_equal(a.status, 200);
        answer_release(&a);
        close(fd);
        door_wait(d, DOOR_RECORDS, (unsigned)(i + 1 + 5));
        assert_memory_equal(door_record(d).key_id, keys[i > 0].id, 8);
    }
    close(back);
    door_stop(d, false);
}

/* Sends what is pending of text without blocking; false when nothing could be sent. */
static bool send_some(int fd, const struct buf *text, size_t *at)
{
    ssize_t r = send(fd, text->data + *at, text->n - *at, MSG_NOSIGNAL | MSG_DONTWAIT);
    *at += r > 0 ? (size_t)r : 0;
    return r > 0;
}

/* A client that does not read holds the backend back; nothing is lost, and what waits in the proxy is
 * bounded. */
static void test_back_pressure(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_post(fd, "", ASK);
    int back = backend_accept(d);
    struct buf got = backend_request(back), text = {0}, down = {0}, payload = {0};
    buf_release(&got);
    assert_true(buf_puts(&text, STREAM_HEAD));
    while (text.n < 64u << 20) {
        assert_true(buf_puts(&text, "4000\r\n"));
        for (int i = 0; i < 0x400; i++)
            assert_true(buf_puts(&text, "0123456789abcde\n"));
        assert_true(buf_puts(&text, "\r\n"));
    }
    static const char end[] = "10\r\n data: [DONE] \n\n\r\n0\r\n\r\n";
    assert_true(buf_puts(&text, end));
    /* Fill every buffer between here and the client, until a turn of the loop makes no more room. */
    size_t at = 0;
    do {
        while (send_some(back, &text, &at))
            continue;
        (void)door_counters(d);
    } while (send_some(back, &text, &at));
    assert_true(at < 32u << 20);
    /* The client reads, the rest follows. */
    char in[65536];
    while (down.n < 7 || memcmp(down.data + down.n - 7, "\r\n0\r\n\r\n", 7) != 0) {
        (void)send_some(back, &text, &at);
        ssize_t r = recv(fd, in, sizeof in, 0);
        assert_true(r > 0);
        assert_true(buf_append(&down, in, (size_t)r));
    }
    assert_int_equal(at, text.n);
    const char *p = strstr(down.data, "\r\n\r\n") + 4;
    for (size_t n = 1; n; p += n + 2) {
        char *behind = NULL;
        n = strtoul(p, &behind, 16);
        assert_memory_equal(behind, "\r\n", 2);
        p = behind + 2;
        assert_memory_equal(p + n, "\r\n", 2);
        assert_true(buf_append(&payload, p, n));
    }
    size_t head = strlen(STREAM_HEAD), blocks = (text.n - head - strlen(end)) / (0x4000 + 8);
    assert_int_equal(payload.n, blocks * 0x4000 + 16);
    for (size_t i = 0; i + 16 < payload.n; i += 16)
        assert_memory_equal(payload.data + i, "0123456789abcde\n", 16);
    buf_release(&text);
    buf_release(&down);
    buf_release(&payload);
    close(fd);
    close(back);
    door_stop(d, false);
}

/* Answers that come before the request was sent in full. */
static void test_early_answer(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    struct buf body = {0};
    assert_true(buf_puts(&body, "{\"model\":\"m\",\"x\":\""));
    while (body.n < 12u << 20)
        assert_true(buf_puts(&body, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"));
    assert_true(buf_puts(&body, "\"}"));
    int fd = client_connect(d);
    client_post(fd, "", body.data);
    int back = backend_accept(d);
    client_read_until(back, "\r\n\r\n"); /* and reads no more */
    client_send(back, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
    struct answer a = client_answer(fd, false);
    assert_int_equal(a.status, 413);
    assert_string_equal(a.body.data, "no");
    answer_release(&a);
    close(back);
    /* The client's connection is fine, the backend's is not used again. */
    client_post(fd, "", ASK);
    back = backend_accept(d);
    struct buf got = backend_request(back);
    buf_release(&got);
    backend_answer(back, OK_JSON);
    a = client_answer(fd, false);
    assert_int_equal(a.status, 200);
    answer_release(&a);
    buf_release(&body);
    close(fd);
    close(back);
    door_stop(d, false);
}

/* Many streams at once, more than a turn's batch: every byte reaches its own client, in order. */
static void test_many_streams(void **state)
{
    (void)state;
    enum { STREAMS = 150, ROUNDS = 20 };
    static int fds[STREAMS], backs[STREAMS];
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    for (int i = 0; i < STREAMS; i++) {
        fds[i] = client_connect(d);
        client_post(fds[i], "", ASK);
        backs[i] = backend_accept(d);
        struct buf got = backend_request(backs[i]);
        buf_release(&got);
        client_send(backs[i], STREAM_HEAD);
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < STREAMS; i++) {
            char event[64], chunk[96];
            int n = snprintf(event, sizeof event, "data: %d of stream %d\n\n", round, i);
            (void)snprintf(chunk, sizeof chunk, "%x\r\n%s\r\n%s", (unsigned)n, event,
                           round == ROUNDS - 1 ? "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n" : "");
            client_send(backs[i], chunk);
        }
    for (int i = 0; i < STREAMS; i++) {
        struct buf want = {0};
        for (int round = 0; round < ROUNDS; round++)
            assert_true(buf_printf(&want, "data: %d of stream %d\n\n", round, i));
        assert_true(buf_puts(&want, "data: [DONE]\n\n"));
        struct answer a = client_answer(fds[i], false);
        assert_false(a.broken);
        assert_string_equal(a.body.data, want.data);
        answer_release(&a);
        buf_release(&want);
        close(fds[i]);
        close(backs[i]);
    }
    door_stop(d, false);
}

static void test_pipelined_relays(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d), back = -1;
    for (int i = 0; i < 3; i++)
        client_post(fd, "", ASK);
    client_send(fd, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    for (int i = 0; i < 3; i++) {
        if (back < 0)
            back = backend_accept(d);
        struct buf got = backend_request(back);
        buf_release(&got);
        char text[32];
        (void)snprintf(text, sizeof text, "{\"n\":%d}", i);
        backend_answer(back, text);
        struct answer a = client_answer(fd, false);
        assert_string_equal(a.body.data, text);
        answer_release(&a);
    }
    struct answer a = client_answer(fd, false);
    assert_string_equal(a.body.data, "hello world");
    answer_release(&a);
    close(fd);
    close(back);
    door_stop(d, false);
}

/* What makes the backend write during the prompt goes up only where a stream is asked for. */
static void test_wake_member(void **state)
{
    (void)state;
    static const struct {
        const char *sent, *received;
    } rows[] = {
        {"{\"model\":\"m\",\"stream\":true,\"n\":1}",
         "{\"model\":\"canon\",\"stream\":true,\"wake\":1,\"n\":1}"},
        {"{\"stream\" : true}", "{\"model\":\"canon\",\"stream\" : true,\"wake\":1}"},
        {"{\"stream\": true ,\"model\":\"m\"}", "{\"stream\": true,\"wake\":1 ,\"model\":\"canon\"}"},
        {"{\"model\":\"m\",\"stream\":false}", "{\"model\":\"canon\",\"stream\":false}"},
        {"{\"model\":\"m\",\"stream\":true,\"wake\":0}", "{\"model\":\"canon\",\"stream\":true,\"wake\":0}"},
    };
    struct door_setup setup = door_default();
    setup.replace_model = setup.wake = true;
    struct door *d = door_start(&setup);
    int fd = client_connect(d), back = -1;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        client_post(fd, "X-Conversation-Id: 7\r\n", rows[i].sent);
        if (back < 0)
            back = backend_accept(d);
        struct buf got = backend_request(back);
        assert_string_equal(strstr(got.data, "\r\n\r\n") + 4, rows[i].received);
        assert_null(strcasestr(got.data, "x-conversation-id"));
        buf_release(&got);
        backend_answer(back, "{}");
        struct answer a = client_answer(fd, false);
        assert_string_equal(a.body.data, "{}");
        answer_release(&a);
    }
    close(fd);
    close(back);
    door_stop(d, false);
}

/* A large body with both edits goes out in pieces. */
static void test_wake_member_in_a_large_body(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.replace_model = setup.wake = true;
    struct door *d = door_start(&setup);
    enum { FILL = 3000000 };
    char *fill = malloc(FILL + 1);
    memset(fill, 'x', FILL);
    fill[FILL] = '\0';
    struct buf body = {0}, want = {0};
    buf_printf(&body, "{\"a\":\"%s\",\"stream\":true,\"b\":\"%s\",\"model\":\"m\"}", fill, fill);
    buf_printf(&want, "{\"a\":\"%s\",\"stream\":true,\"wake\":1,\"b\":\"%s\",\"model\":\"canon\"}", fill,
               fill);
    int fd = client_connect(d);
    client_post(fd, "", body.data);
    int back = backend_accept(d);
    struct buf got = backend_request(back);
    assert_true(strcmp(strstr(got.data, "\r\n\r\n") + 4, want.data) == 0);
    backend_answer(back, "{}");
    struct answer a = client_answer(fd, false);
    assert_int_equal(a.status, 200);
    answer_release(&a);
    buf_release(&got);
    buf_release(&body);
    buf_release(&want);
    free(fill);
    close(fd);
    close(back);
    door_stop(d, false);
}

#define CHUNK(n, text) n "\r\n" text "\r\n"

/* The reports are dropped wherever reads cut them; everything from the answer's first event on passes. */
static void test_wake_events_are_dropped(void **state)
{
    (void)state;
    static const char text[] =
        STREAM_HEAD CHUNK("10", "data: \"dawn\" 1\n\n") CHUNK("10", "data: \"dawn\" 2\n\n")
            CHUNK("9", "data: \"da") CHUNK("7", "wn\" 3\n\n") CHUNK("b", "data: one\n\n")
                CHUNK("11", "data: \"dawn\" no\n\n") CHUNK("e", "data: [DONE]\n\n") "0\r\n\r\n";
    struct door_setup setup = door_default();
    setup.wake = true;
    struct door *d = door_start(&setup);
    int fd = client_connect(d), back = -1;
    for (size_t step = 1; step <= sizeof text; step += step < 40 ? 1 : 13) {
        client_post(fd, "", "{\"stream\":true}");
        if (back < 0)
            back = backend_accept(d);
        struct buf got = backend_request(back);
        buf_release(&got);
        for (size_t i = 0; i < sizeof text - 1; i += step)
            client_send_n(back, text + i, sizeof text - 1 - i < step ? sizeof text - 1 - i : step);
        struct answer a = client_answer(fd, false);
        assert_false(a.broken);
        assert_string_equal(a.body.data, "data: one\n\ndata: \"dawn\" no\n\ndata: [DONE]\n\n");
        answer_release(&a);
    }
    close(fd);
    close(back);
    door_stop(d, false);
}

/* A stream of reports only, an error, and a backend that dies among its reports. */
static void test_wake_ends(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.wake = true;
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_post(fd, "", "{\"stream\":true}");
    int back = backend_accept(d);
    struct buf got = backend_request(back);
    buf_release(&got);
    client_send(back, STREAM_HEAD CHUNK("10", "data: \"dawn\" 1\n\n") CHUNK("6", "[DONE]") "0\r\n\r\n");
    struct answer a = client_answer(fd, false);
    assert_false(a.broken);
    assert_string_equal(a.body.data, "[DONE]");
    answer_release(&a);
    client_post(fd, "", "{\"stream\":true}");
    got = backend_request(back);
    buf_release(&got);
    client_send(back, "HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n" CHUNK(
                          "6", "\"dawn\"") "0\r\n\r\n");
    a = client_answer(fd, false);
    assert_int_equal(a.status, 400);
    assert_string_equal(a.body.data, "\"dawn\"");
    answer_release(&a);
    client_post(fd, "", "{\"stream\":true}");
    got = backend_request(back);
    buf_release(&got);
    client_send(back, STREAM_HEAD CHUNK("10", "data: \"dawn\" 1\n\n"));
    close(back);
    a = client_answer(fd, false);
    assert_true(a.broken);
    answer_release(&a);
    close(fd);
    door_stop(d, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wake_member),
        cmocka_unit_test(test_wake_member_in_a_large_body),
        cmocka_unit_test(test_wake_events_are_dropped),
        cmocka_unit_test(test_wake_ends),
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_splice),
        cmocka_unit_test(test_large_body_splice),
        cmocka_unit_test(test_bad_bodies),
        cmocka_unit_test(test_refusal_with_retry),
        cmocka_unit_test(test_waiting),
        cmocka_unit_test(test_stream_step_by_step),
        cmocka_unit_test(test_stream_in_pieces),
        cmocka_unit_test(test_empty_bodies),
        cmocka_unit_test(test_http10_client),
        cmocka_unit_test(test_get_head_and_close_delimited),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_early_answer),
        cmocka_unit_test(test_pipelined_relays),
        cmocka_unit_test(test_many_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
