/* Requests in a dialect that the backend does not speak, through the door: what the backend is asked, what
 * the client gets, and every way in which it can end. */
#include "door.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
#define TAIL        ",\"created\":7,\"id\":\"chatcmpl-9\",\"model\":\"f\"}\n\n"
#define DELTA(d)    "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{" d "}}]" TAIL
#define START       DELTA("\"role\":\"assistant\",\"content\":null")
#define TEXT        DELTA("\"content\":\"hi\"")
#define FINISH      "data: {\"choices\":[{\"finish_reason\":\"stop\",\"index\":0,\"delta\":{}}]" TAIL
#define USAGE       "data: {\"choices\":[],\"usage\":{\"completion_tokens\":2,\"prompt_tokens\":5}" TAIL
#define DONE_MARK   "data: [DONE]\n\n"
#define WHOLE       START TEXT FINISH USAGE DONE_MARK

#define PLAIN "{\"model\":\"m\",\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"
#define STREAMED                                                                                             \
    "{\"model\":\"m\",\"max_tokens\":5,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}" \
    "]}"
#define ASKED                                                                                                \
    "{\"model\":\"canon\",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"messages\":["        \
    "{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":5}"

static void post(int fd, const char *version, const char *path, const char *body)
{
    struct buf b = {0};
    assert_true(buf_printf(
        &b, "POST %s HTTP/%s\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n%s", path,
        version, strlen(body), body));
    client_send_n(fd, b.data, b.n);
    buf_release(&b);
}

static void send_chunk(int fd, const char *text)
{
    char size[24];
    (void)snprintf(size, sizeof size, "%zx\r\n", strlen(text));
    client_send(fd, size);
    client_send(fd, text);
    client_send(fd, "\r\n");
}

struct scene {
    struct door *d;
    int fd, back;
};

static struct scene scene_start(const char *version, const char *body)
{
    struct door_setup setup = door_default();
    setup.speaks = DIALECT_BIT(OPENAI) | DIALECT_BIT(LLAMACPP);
    struct scene s = {.d = door_start(&setup), .back = -1};
    s.fd = client_connect(s.d);
    post(s.fd, version, "/v1/messages", body);
    return s;
}

static void backend_gets(struct scene *s, const char *line, const char *body)
{
    if (s->back < 0)
        s->back = backend_accept(s->d);
    struct buf got = backend_request(s->back);
    assert_true(!strncmp(got.data, line, strlen(line)));
    assert_non_null(strstr(got.data, "\r\nContent-Type: application/json\r\n"));
    assert_null(strstr(got.data, "text/plain"));
    assert_string_equal(strstr(got.data, "\r\n\r\n") + 4, body);
    buf_release(&got);
}

static void scene_end(struct scene *s, const char *outcome, unsigned broken)
{
    door_wait(s->d, DOOR_RELEASED, 1);
    door_wait(s->d, DOOR_RECORDS, 1);
    assert_string_equal(door_record(s->d).outcome, outcome);
    assert_int_equal(door_count(s->d, DOOR_BROKEN), broken);
    if (s->back >= 0)
        close(s->back);
    close(s->fd);
    door_stop(s->d, false);
}

static void test_both_forms(void **state)
{
    (void)state;
    for (size_t step = 1; step < 2000; step = step * 3 + 5) {
        struct scene s = scene_start("1.1", STREAMED);
        backend_gets(&s, "POST /v1/chat/completions HTTP/1.1\r\n", ASKED);
        client_send(s.back, EVENTS_HEAD);
        for (size_t at = 0; at < sizeof WHOLE - 1; at += step) {
            char part[2048] = "";
            memcpy(part, WHOLE + at, sizeof WHOLE - 1 - at < step ? sizeof WHOLE - 1 - at : step);
            send_chunk(s.back, part);
        }
        client_send(s.back, "0\r\n\r\n");
        struct answer a = client_answer(s.fd, false);
        assert_int_equal(a.status, 200);
        assert_false(a.broken);
        assert_true(answer_has(&a, "Content-Type: text/event-stream; charset=utf-8"));
        assert_true(answer_has(&a, "X-Accel-Buffering: no") && answer_has(&a, "X-Arriero-Instance: inst-1"));
        assert_int_equal(strncmp(a.body.data, "event: message_start\n", 21), 0);
        assert_non_null(strstr(a.body.data, "\"text\":\"hi\""));
        assert_true(str_ends(buf_str(&a.body), "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
        answer_release(&a);
        door_wait(s.d, DOOR_RECORDS, 1);
        assert_true(door_record(s.d).r.streamed);
        assert_int_equal(door_record(s.d).r.prompt_tokens, 5);
        assert_int_equal(door_record(s.d).r.completion_tokens, 2);
        assert_string_equal(door_record(s.d).path, "/v1/messages");
        /* both connections go on */
        post(s.fd, "1.1", "/v1/messages", PLAIN);
        backend_gets(&s, "POST /v1/chat/completions HTTP/1.1\r\n", ASKED);
        client_send(s.back, EVENTS_HEAD);
        send_chunk(s.back, WHOLE);
        client_send(s.back, "0\r\n\r\n");
        a = client_answer(s.fd, false);
        assert_int_equal(a.status, 200);
        assert_true(answer_has(&a, "Content-Type: application/json"));
        assert_non_null(strstr(a.body.data, "\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]"));
        answer_release(&a);
        door_wait(s.d, DOOR_RECORDS, 2);
        assert_false(door_record(s.d).r.streamed);
        assert_int_equal(door_record(s.d).r.completion_tokens, 2);
        assert_int_equal(door_counters(s.d).body_bytes_in_flight, 0);
        door_wait(s.d, DOOR_RELEASED, 2);
        scene_end(&s, "ok", 0);
    }
}

/* Each event reaches the client without waiting for the next. */
static void test_at_once(void **state)
{
    (void)state;
    struct scene s = scene_start("1.1", STREAMED);
    backend_gets(&s, "POST ", ASKED);
    client_send(s.back, EVENTS_HEAD);
    send_chunk(s.back, START TEXT);
    client_read_until(s.fd, "\"text\":\"hi\"");
    send_chunk(s.back, DELTA("\"content\":\"ho\""));
    client_read_until(s.fd, "\"text\":\"ho\"");
    send_chunk(s.back, FINISH USAGE DONE_MARK);
    client_read_until(s.fd, "message_stop\"}\n\n");
    client_send(s.back, "0\r\n\r\n");
    client_read_until(s.fd, "0\r\n\r\n");
    scene_end(&s, "ok", 0);
}

/* HTTP/1.0 has no chunks: the end is that of the connection, and a broken one is a reset. */
static void test_http10(void **state)
{
    (void)state;
    for (int whole = 0; whole < 2; whole++) {
        struct scene s = scene_start("1.0", STREAMED);
        backend_gets(&s, "POST ", ASKED);
        client_send(s.back, EVENTS_HEAD);
        send_chunk(s.back, START TEXT);
        client_read_until(s.fd, "\"text\":\"hi\"}}\n\n");
        if (whole) {
            send_chunk(s.back, FINISH USAGE DONE_MARK);
            client_read_until(s.fd, "message_stop\"}\n\n");
            client_send(s.back, "0\r\n\r\n");
            assert_true(client_at_eof(s.fd));
        } else {
            client_reset(s.back);
            s.back = -1;
            door_wait(s.d, DOOR_RECORDS, 1);
        }
        scene_end(&s, whole ? "ok" : "truncated", !whole);
    }
}

/* Before the client has a head: an honest status, in its dialect. */
static void test_faults_before(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        int status;
        const char *text, *outcome;
        unsigned broken;
    } cases[] = {
        {"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 32\r\n\r\n"
         "{\"error\":{\"message\":\"too long\"}}",
         400,
         "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"too "
         "long\"},\"request_id\":\"",
         "ok", 0},
        {"HTTP/1.1 500 x\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b", 500, "api_error",
         "upstream_error", 0},
        {"HTTP/1.1 503 x\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", 503, "\"overloaded_error\"",
         "upstream_error", 0},
        {"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", 502,
         "something else than a stream", "truncated", 1},
        {"HTTP/1.1 204 No Content\r\n\r\n", 502, "neither", "truncated", 1},
        {EVENTS_HEAD "60\r\ndata: {\"error\":{\"code\":500,\"message\":\"no memory for that many tokens at "
                     "once, sorry, friend\"}}\n\n\r\n"
                     "0\r\n\r\n",
         500, "{\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"no memory",
         "upstream_error", 0},
        {EVENTS_HEAD "0\r\n\r\n", 502, "\"type\":\"error\"", "truncated", 1},
        {EVENTS_HEAD "5\r\nabc", 502, "\"type\":\"error\"", "truncated", 1},
        {"", 502, "\"type\":\"error\"", "upstream_error", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int streamed = 0; streamed < 2; streamed++) {
            struct scene s = scene_start("1.1", streamed ? STREAMED : PLAIN);
            backend_gets(&s, "POST ", ASKED);
            client_send(s.back, cases[i].bytes);
            (void)shutdown(s.back, SHUT_WR);
            struct answer a = client_answer(s.fd, false);
            assert_int_equal(a.status, cases[i].status);
            if (!strstr(a.body.data, cases[i].text))
                fail_msg("%s does not hold %s", a.body.data, cases[i].text);
            assert_true(answer_has(&a, "Content-Type: application/json"));
            assert_null(strstr(a.head, "Content-Encoding")); /* of a body that the client does not get */
            answer_release(&a);
            scene_end(&s, cases[i].outcome, cases[i].broken);
        }
}

/* After it: the dialect's error event. One that the backend told ends the stream in order; else it breaks
 * off. */
static void test_faults_within(void **state)
{
    (void)state;
    static const struct {
        const char *chunk; /* NULL = the connection is reset */
        bool end, broken;
        const char *outcome;
    } cases[] = {
        {"data: {\"error\":{\"code\":500,\"message\":\"no memory\"}}\n\n", false, false, "upstream_error"},
        {"data: {\"choices\":1}\n\n", false, true, "truncated"},
        {DONE_MARK, false, true, "truncated"},
        {FINISH, true, true, "truncated"},
        {NULL, false, true, "truncated"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct scene s = scene_start("1.1", STREAMED);
        backend_gets(&s, "POST ", ASKED);
        client_send(s.back, EVENTS_HEAD);
        send_chunk(s.back, START TEXT);
        char head[16];
        assert_int_equal(recv(s.fd, head, sizeof head, MSG_PEEK), sizeof head); /* it is begun */
        if (cases[i].chunk) {
            send_chunk(s.back, cases[i].chunk);
        } else {
            client_reset(s.back);
            s.back = -1;
        }
        if (cases[i].end)
            client_send(s.back, "0\r\n\r\n");
        struct answer a = client_answer(s.fd, false);
        assert_int_equal(a.status, 200);
        assert_int_equal(a.broken, cases[i].broken);
        assert_false(a.reset);
        assert_non_null(strstr(a.body.data, "event: error\ndata: {\"type\":\"error\""));
        assert_null(strstr(a.body.data, "message_stop"));
        answer_release(&a);
        scene_end(&s, cases[i].outcome, cases[i].broken);
    }
}

/* The end mark came: what is missing is framing only. */
static void test_reset_behind_the_end(void **state)
{
    (void)state;
    for (int streamed = 0; streamed < 2; streamed++) {
        struct scene s = scene_start("1.1", streamed ? STREAMED : PLAIN);
        backend_gets(&s, "POST ", ASKED);
        client_send(s.back, EVENTS_HEAD);
        send_chunk(s.back, WHOLE);
        if (streamed)
            client_read_until(s.fd, "message_stop\"}\n\n");
        (void)shutdown(s.back, SHUT_WR);
        if (streamed) {
            client_read_until(s.fd, "0\r\n\r\n");
        } else {
            struct answer a = client_answer(s.fd, false);
            assert_int_equal(a.status, 200);
            answer_release(&a);
        }
        scene_end(&s, "ok", 0);
    }
}

static void test_leave(void **state)
{
    (void)state;
    for (int begun = 0; begun < 3; begun++) {
        struct scene s = scene_start("1.1", begun == 2 ? PLAIN : STREAMED);
        backend_gets(&s, "POST ", ASKED);
        if (begun) {
            client_send(s.back, EVENTS_HEAD);
            send_chunk(s.back, START TEXT);
            if (begun == 1)
                client_read_until(s.fd, "\"text\":\"hi\"");
        }
        close(s.fd);
        (void)client_at_eof(s.back);
        s.fd = dup(s.back);
        door_wait(s.d, DOOR_RECORDS, 1);
        assert_int_equal(door_counters(s.d).body_bytes_in_flight, 0);
        scene_end(&s, "client_closed", 0);
    }
}

static void test_refused(void **state)
{
    (void)state;
    struct scene s = scene_start("1.1", "{\"model\":\"m\",\"messages\":[]}");
    struct answer a = client_answer(s.fd, false);
    assert_int_equal(a.status, 400);
    assert_non_null(strstr(a.body.data, "\"message\":\"max_tokens: this member is required\""));
    answer_release(&a);
    assert_true(backend_is_quiet(s.d));
    scene_end(&s, "refused", 0);
}

/* What has no translator is refused where the backend does not speak it. */
static void test_unspoken(void **state)
{
    (void)state;
    for (int spoken = 0; spoken < 2; spoken++) {
        struct door_setup setup = door_default();
        setup.speaks = DIALECT_BIT(OPENAI) | (spoken ? DIALECT_BIT(LLAMACPP) : 0);
        struct scene s = {.d = door_start(&setup), .back = -1};
        s.fd = client_connect(s.d);
        post(s.fd, "1.1", "/infill", "{\"model\":\"m\"}");
        if (spoken) {
            s.back = backend_accept(s.d);
            struct buf got = backend_request(s.back);
            assert_non_null(strstr(got.data, "{\"model\":\"m\"}"));
            buf_release(&got);
            backend_answer(s.back, OK_JSON);
        }
        struct answer a = client_answer(s.fd, false);
        assert_int_equal(a.status, spoken ? 200 : 501);
        assert_true(spoken || strstr(a.body.data, "the backend of model canon does not answer at /infill"));
        answer_release(&a);
        scene_end(&s, spoken ? "ok" : "refused", 0);
    }
}

/* Two requests on one lease. */
static void test_counting(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.speaks = DIALECT_BIT(OPENAI) | DIALECT_BIT(LLAMACPP);
    struct scene s = {.d = door_start(&setup), .back = -1};
    s.fd = client_connect(s.d);
    post(s.fd, "1.1", "/v1/messages/count_tokens",
         "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
    backend_gets(&s, "POST /apply-template HTTP/1.1\r\n",
                 "{\"model\":\"canon\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
    backend_answer(s.back, "{\"prompt\":\"<hi>\"}");
    backend_gets(&s, "POST /tokenize HTTP/1.1\r\n",
                 "{\"model\":\"canon\",\"add_special\":true,\"parse_special\":true,\"content\":\"<hi>\"}");
    backend_answer(s.back, "{\"tokens\":[7,8]}");
    struct answer a = client_answer(s.fd, false);
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body.data, "{\"input_tokens\":2}");
    answer_release(&a);
    scene_end(&s, "ok", 0);
}

/* Off the loop, with a client that stays and one that leaves. */
static void test_large(void **state)
{
    (void)state;
    static char text[600001];
    memset(text, 'x', sizeof text - 1);
    struct buf body = {0};
    assert_true(
        buf_printf(&body, "{\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}", text));
    for (int stays = 0; stays < 2; stays++) {
        struct scene s = scene_start("1.1", body.data);
        if (stays) {
            s.back = backend_accept(s.d);
            struct buf got = backend_request(s.back);
            assert_non_null(strstr(got.data, text));
            buf_release(&got);
            client_send(s.back, EVENTS_HEAD);
            send_chunk(s.back, WHOLE);
            client_send(s.back, "0\r\n\r\n");
            struct answer a = client_answer(s.fd, false);
            assert_int_equal(a.status, 200);
            answer_release(&a);
        } else {
            close(s.fd);
            s.fd = -1;
        }
        door_wait(s.d, DOOR_RECORDS, 1);
        door_wait(s.d, DOOR_RELEASED, door_count(s.d, DOOR_ACQUIRED));
        if (s.fd >= 0)
            close(s.fd);
        if (s.back >= 0)
            close(s.back);
        door_stop(s.d, false);
    }
    buf_release(&body);
}

/* A client that does not read holds the backend up. */
static void test_back_pressure(void **state)
{
    (void)state;
    struct scene s = scene_start("1.1", STREAMED);
    backend_gets(&s, "POST ", ASKED);
    struct buf chunk = {0};
    char size[24];
    for (int i = 0; i < 100; i++)
        assert_true(buf_puts(&chunk, TEXT));
    (void)snprintf(size, sizeof size, "%zx\r\n", chunk.n);
    client_send(s.back, EVENTS_HEAD);
    size_t sent = 0, limit = 64u << 20;
    for (bool room = true; room && sent < limit;) { /* a whole chunk a time, until nothing moves any more */
        struct buf framed = {0};
        assert_true(buf_printf(&framed, "%s%s\r\n", size, chunk.data));
        size_t at = 0;
        for (int turns = 0; at < framed.n && turns < 64;) {
            ssize_t r = send(s.back, framed.data + at, framed.n - at, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (r > 0) {
                at += (size_t)r;
                turns = 0;
            } else {
                turns++;
                (void)door_counters(s.d); /* one turn of the loop */
            }
        }
        sent += at;
        room = at == framed.n;
        buf_release(&framed);
    }
    assert_true(sent < limit);
    assert_true(door_counters(s.d).body_bytes_in_flight < 1u << 20);
    close(s.fd);
    door_wait(s.d, DOOR_RECORDS, 1);
    s.fd = dup(s.back);
    buf_release(&chunk);
    scene_end(&s, "client_closed", 0);
}

/* No connection can be made, so a second lease is asked for: the client's wishes are still known, whether the
 * backend speaks the dialect or not. */
static void test_wishes_of_a_second_lease(void **state)
{
    (void)state;
    static const unsigned speaks[] = {DIALECT_BIT(OPENAI), DIALECT_BIT(OPENAI) | DIALECT_BIT(OLLAMA)};
    for (size_t i = 0; i < 2; i++) {
        struct door_setup setup = door_default();
        setup.speaks = speaks[i];
        setup.dead_port = true;
        struct door *d = door_start(&setup);
        int fd = client_connect(d);
        post(fd, "1.1", "/api/chat",
             "{\"model\":\"m\",\"keep_alive\":60,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
        struct answer a = client_answer(fd, false);
        assert_int_equal(a.status, 502);
        answer_release(&a);
        assert_int_equal(door_count(d, DOOR_ACQUIRED), 2);
        assert_int_equal(door_count(d, DOOR_WISHES), 2);
        close(fd);
        door_stop(d, false);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_forms),
        cmocka_unit_test(test_at_once),
        cmocka_unit_test(test_http10),
        cmocka_unit_test(test_faults_before),
        cmocka_unit_test(test_faults_within),
        cmocka_unit_test(test_reset_behind_the_end),
        cmocka_unit_test(test_leave),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_unspoken),
        cmocka_unit_test(test_counting),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_wishes_of_a_second_lease),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
