/* Unit tests of requests to servers: whole answers, broken ones, those that are too long or never come. */
#include "pool/call.h"

#include "base/buf.h"
#include "base/mem.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

struct world {
    uv_loop_t loop;
    uv_tcp_t server, peer;
    uv_write_t write;
    uv_timer_t later;
    uint16_t port;
    struct str pieces[2]; /* of the answer; the second is sent in another turn */
    bool keep_open, peer_open;
    char request[1024];
    size_t request_n;
    struct call *call;
    int told; /* callbacks */
    int status;
    char body[256];
};

static void on_alloc(uv_handle_t *h, size_t n, uv_buf_t *b)
{
    struct world *w = h->data;
    (void)n;
    *b = uv_buf_init(w->request + w->request_n, (unsigned)(sizeof w->request - 1 - w->request_n));
}

static void end_peer(struct world *w)
{
    if (w->peer_open)
        uv_close((uv_handle_t *)&w->peer, NULL);
    w->peer_open = false;
}

static void on_written(uv_write_t *q, int status)
{
    struct world *w = q->data;
    (void)status;
    if (!w->pieces[0].n && !w->pieces[1].n && !w->keep_open)
        end_peer(w);
}

static void send_piece(struct world *w, int i)
{
    uv_buf_t b = uv_buf_init((char *)(uintptr_t)w->pieces[i].p, (unsigned)w->pieces[i].n);
    w->pieces[i].n = 0;
    w->write.data = w;
    assert_int_equal(uv_write(&w->write, (uv_stream_t *)&w->peer, &b, 1, on_written), 0);
}

static void on_later(uv_timer_t *t)
{
    struct world *w = t->data;
    if (w->peer_open)
        send_piece(w, 1);
}

static void on_request(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    struct world *w = s->data;
    (void)b;
    if (n < 0) {
        end_peer(w);
        return;
    }
    w->request_n += (size_t)n;
    if (!w->pieces[0].n)
        return;
    send_piece(w, 0);
    if (w->pieces[1].n)
        uv_timer_start(&w->later, on_later, 5, 0);
}

static void on_connection(uv_stream_t *s, int status)
{
    struct world *w = s->data;
    assert_int_equal(status, 0);
    uv_tcp_init(s->loop, &w->peer);
    w->peer.data = w;
    w->peer_open = true;
    assert_int_equal(uv_accept(s, (uv_stream_t *)&w->peer), 0);
    uv_read_start((uv_stream_t *)&w->peer, on_alloc, on_request);
}

static int setup(void **state)
{
    struct world *w = mem_new(struct world);
    struct sockaddr_in at;
    int n = sizeof at;
    uv_loop_init(&w->loop);
    uv_tcp_init(&w->loop, &w->server);
    uv_timer_init(&w->loop, &w->later);
    w->server.data = w->later.data = w;
    uv_ip4_addr("127.0.0.1", 0, &at);
    assert_int_equal(uv_tcp_bind(&w->server, (struct sockaddr *)&at, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&w->server, 4, on_connection), 0);
    assert_int_equal(uv_tcp_getsockname(&w->server, (struct sockaddr *)&at, &n), 0);
    w->port = ntohs(at.sin_port);
    uv_unref((uv_handle_t *)&w->server);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    end_peer(w);
    uv_close((uv_handle_t *)&w->server, NULL);
    uv_close((uv_handle_t *)&w->later, NULL);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    free(w);
    return 0;
}

static void on_told(void *arg, int status)
{
    struct world *w = arg;
    struct str body = call_body(w->call);
    w->told++;
    w->status = status;
    assert_true(body.n < sizeof w->body);
    if (body.n)
        memcpy(w->body, body.p, body.n);
    w->body[body.n] = '\0';
    w->call = NULL;
}

static void begin(struct world *w, size_t max_body, const char *body)
{
    const struct call_spec spec = {.address = "127.0.0.1",
                                   .port = w->port,
                                   .method = body ? "POST" : "GET",
                                   .path = "/x?y=z",
                                   .body = body,
                                   .limit_ms = 5000,
                                   .max_body = max_body};
    w->call = call_start(&w->loop, &spec, on_told, w);
    assert_int_equal(w->told, 0);
}

static void finish(struct world *w)
{
    while (w->told == 0)
        uv_run(&w->loop, UV_RUN_ONCE);
    end_peer(w);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_int_equal(w->told, 1);
}

static void test_a_whole_answer(void **state)
{
    struct world *w = *state;
    w->pieces[0] = STR("HTTP/1.1 201 Made\r\nA: b\r\ncontent-LENGTH: 5\r\n\r\nhel");
    w->pieces[1] = STR("lo and more");
    w->keep_open = true; /* its length tells its end */
    begin(w, 100, "{\"a\":1}");
    finish(w);
    assert_int_equal(w->status, 201);
    assert_string_equal(w->body, "hello");
    assert_non_null(strstr(w->request, "POST /x?y=z HTTP/1.1\r\nHost: 127.0.0.1\r\n"));
    assert_non_null(
        strstr(w->request, "Content-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\":1}"));
}

static void test_an_answer_that_ends_with_its_connection(void **state)
{
    struct world *w = *state;
    w->pieces[0] = STR("HTTP/1.0 200 OK\r\n\r\nall");
    begin(w, 100, NULL);
    finish(w);
    assert_int_equal(w->status, 200);
    assert_string_equal(w->body, "all");
    assert_non_null(strstr(w->request, "GET /x?y=z HTTP/1.1\r\n"));
    assert_null(strstr(w->request, "Content-"));
}

static void test_the_status_alone(void **state)
{
    struct world *w = *state;
    w->pieces[0] = STR("HTTP/1.1 503 Loading\r\nConte");
    w->keep_open = true;
    begin(w, 0, NULL);
    finish(w);
    assert_int_equal(w->status, 503);
    assert_string_equal(w->body, "");
}

static void test_what_is_no_answer(void **state)
{
    struct world *w = *state;
    static const char *const bad[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n0123456789012345678901234567890",
    };
    for (size_t i = 0; i < TABLE_COUNT(bad); i++) {
        w->pieces[0] = str_from(bad[i]);
        w->told = 0;
        begin(w, 30, NULL);
        finish(w);
        assert_int_equal(w->status, -1);
    }
}

static void test_a_head_without_end(void **state)
{
    struct world *w = *state;
    static char head[64 * 1024];
    memset(head, 'a', sizeof head);
    memcpy(head, "HTTP/1.1 200 OK\r\nX: ", 20);
    w->pieces[0] = (struct str){head, sizeof head};
    begin(w, 1u << 20, NULL);
    finish(w);
    assert_int_equal(w->status, -1);
}

static void test_nobody_listens(void **state)
{
    struct world *w = *state;
    const struct call_spec spec = {
        .address = "no address", .port = 1, .method = "GET", .path = "/", .limit_ms = 5000};
    w->call = call_start(&w->loop, &spec, on_told, w);
    assert_int_equal(w->told, 0); /* never inside */
    finish(w);
    assert_int_equal(w->status, -1);
}

static void test_silence_and_cancelling(void **state)
{
    struct world *w = *state;
    struct call_spec spec = {.address = "127.0.0.1",
                             .port = w->port,
                             .method = "GET",
                             .path = "/",
                             .limit_ms = 20,
                             .max_body = 10};
    w->call = call_start(&w->loop, &spec, on_told, w);
    finish(w);
    assert_int_equal(w->status, -1);
    spec.limit_ms = 600000;
    w->told = 0;
    call_cancel(call_start(&w->loop, &spec, on_told, w));
    call_cancel(NULL);
    end_peer(w);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_int_equal(w->told, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_whole_answer),         TEST(test_an_answer_that_ends_with_its_connection),
        TEST(test_the_status_alone),       TEST(test_what_is_no_answer),
        TEST(test_a_head_without_end),     TEST(test_nobody_listens),
        TEST(test_silence_and_cancelling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
