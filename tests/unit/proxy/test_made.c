/* Answers made at the door: plain ones of streams, with every way in which a stream can go wrong. */
#include "door.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TAIL ",\"created\":7,\"id\":\"c1\",\"model\":\"m\",\"system_fingerprint\":\"b1\"}\n\n"
#define CHAT(i, delta)                                                                                       \
    "data: {\"choices\":[{\"finish_reason\":null,\"index\":" #i ",\"delta\":{" delta "}}]" TAIL
#define FINISH(i, why)                                                                                       \
    "data: {\"choices\":[{\"finish_reason\":\"" why "\",\"index\":" #i ",\"delta\":{}}]" TAIL
#define USAGE(n)                                                                                             \
    "data: {\"choices\":[],\"usage\":{\"completion_tokens\":" #n                                             \
    ",\"prompt_tokens\":5},\"timings\":{\"prompt_ms\":1.25}" TAIL
#define DONE_MARK "data: [DONE]\n\n"
#define START     CHAT(0, "\"role\":\"assistant\",\"content\":null")
#define SMALL                                                                                                \
    START CHAT(0, "\"content\":\"h\\u00e9\"") CHAT(0, "\"content\":\"llo\\n\"") FINISH(0, "stop") USAGE(2)   \
        DONE_MARK
#define REST                                                                                                 \
    "],\"created\":7,\"model\":\"m\",\"system_fingerprint\":\"b1\",\"object\":\"chat.completion\","          \
    "\"usage\":{\"completion_tokens\":2,\"prompt_tokens\":5},\"id\":\"c1\",\"timings\":{\"prompt_ms\":1.25}" \
    "}"
#define SMALL_PLAIN                                                                                          \
    "{\"choices\":[{\"finish_reason\":\"stop\",\"index\":0,\"message\":{\"role\":\"assistant\","             \
    "\"content\":\"héllo\\n\"}}" REST

#define STREAM_HEAD                                                                                          \
    "HTTP/1.1 200 OK\r\nServer: s\r\nContent-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n"           \
    "Transfer-Encoding: chunked\r\n\r\n"
#define WOKEN "{\"stream\":true,\"wake\":1,\"model\":\"m\",\"messages\":[]}"

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

static struct scene scene_start(struct door_setup *setup)
{
    setup->collect = true;
    struct scene s = {.d = door_start(setup)};
    s.fd = client_connect(s.d);
    client_post(s.fd, "", "{\"model\":\"m\",\"messages\":[]}");
    s.back = backend_accept(s.d);
    struct buf got = backend_request(s.back);
    assert_non_null(strstr(got.data, "\r\n\r\n" WOKEN));
    buf_release(&got);
    return s;
}

static void scene_end(struct scene *s, const char *outcome, unsigned broken)
{
    door_wait(s->d, DOOR_RELEASED, 1);
    door_wait(s->d, DOOR_RECORDS, 1);
    assert_string_equal(door_record(s->d).outcome, outcome);
    assert_false(door_record(s->d).r.streamed);
    assert_int_equal(door_count(s->d, DOOR_BROKEN), broken);
    assert_int_equal(door_counters(s->d).body_bytes_in_flight, 0);
    close(s->fd);
    if (s->back >= 0)
        close(s->back);
    door_stop(s->d, false);
}

static void test_answer(void **state)
{
    (void)state;
    for (int split = 0; split < 2; split++) {
        struct door_setup setup = door_default();
        struct scene s = scene_start(&setup);
        client_send(s.back, STREAM_HEAD);
        if (split)
            for (size_t at = 0; at < sizeof SMALL - 1; at += 11) {
                char part[12] = "";
                memcpy(part, SMALL + at, sizeof SMALL - 1 - at < 11 ? sizeof SMALL - 1 - at : 11);
                send_chunk(s.back, part);
            }
        else
            send_chunk(s.back, SMALL);
        client_send(s.back, "0\r\n\r\n");
        struct answer a = client_answer(s.fd, false);
        assert_int_equal(a.status, 200);
        assert_string_equal(a.body.data, SMALL_PLAIN);
        assert_true(answer_has(&a, "Content-Type: application/json; charset=utf-8"));
        assert_true(answer_has(&a, "Server: s") && answer_has(&a, "X-Arriero-Instance: inst-1"));
        assert_null(strstr(a.head, "event-stream"));
        assert_null(strstr(a.head, "Accel"));
        assert_null(strstr(a.head, "chunked"));
        answer_release(&a);
        door_wait(s.d, DOOR_RECORDS, 1);
        assert_int_equal(door_record(s.d).r.prompt_tokens, 5);
        assert_int_equal(door_record(s.d).r.completion_tokens, 2);
        assert_true(door_record(s.d).r.ttfb_us > 0);
        /* both connections go on */
        client_post(s.fd, "", "{\"model\":\"m\",\"stream\":false,\"messages\":[]}");
        struct buf got = backend_request(s.back);
        assert_non_null(
            strstr(got.data, "\r\n\r\n{\"model\":\"m\",\"stream\":true,\"wake\":1,\"messages\":[]}"));
        buf_release(&got);
        backend_answer(s.back, OK_JSON); /* a backend that does not stream all the same */
        a = client_answer(s.fd, false);
        assert_string_equal(a.body.data, OK_JSON);
        answer_release(&a);
        door_wait(s.d, DOOR_RELEASED, 2);
        door_wait(s.d, DOOR_RECORDS, 2);
        scene_end(&s, "ok", 0);
    }
}

/* An answer without a length ends with the connection. */
static void test_answer_until_the_end(void **state)
{
    (void)state;
    for (int whole = 0; whole < 2; whole++) {
        struct door_setup setup = door_default();
        struct scene s = scene_start(&setup);
        client_send(s.back, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        client_send(s.back, whole ? SMALL : START);
        close(s.back);
        s.back = -1;
        struct answer a = client_answer(s.fd, false);
        assert_int_equal(a.status, whole ? 200 : 502);
        answer_release(&a);
        scene_end(&s, whole ? "ok" : "truncated", !whole);
    }
}

static void test_error_before_and_within(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct scene s = scene_start(&setup);
    client_send(s.back, "HTTP/1.1 400 Bad Request\r\nContent-Length: 11\r\n\r\n{\"error\":1}");
    struct answer a = client_answer(s.fd, false);
    assert_int_equal(a.status, 400);
    assert_string_equal(a.body.data, "{\"error\":1}");
    answer_release(&a);
    scene_end(&s, "ok", 0);
    for (int end = 0; end < 2; end++) {
        s = scene_start(&setup);
        client_send(s.back, STREAM_HEAD);
        send_chunk(s.back, START "data: {\"error\":{\"code\":500,\"message\":\"no memory\"}}\n\n");
        if (end)
            client_send(s.back, "0\r\n\r\n");
        a = client_answer(s.fd, false);
        assert_int_equal(a.status, 500);
        assert_string_equal(a.body.data, "{\"error\":{\"code\":500,\"message\":\"no memory\"}}");
        answer_release(&a);
        scene_end(&s, "upstream_error", 0);
    }
}

static void test_cut_off(void **state)
{
    (void)state;
    static const char *const streams[] = {START, START CHAT(0, "\"content\":\"h\""), "data: {\"cho", "",
                                          START FINISH(0, "stop")};
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) {
        for (int how = 0; how < 3; how++) {
            struct door_setup setup = door_default();
            struct scene s = scene_start(&setup);
            client_send(s.back, STREAM_HEAD);
            if (*streams[i])
                send_chunk(s.back, streams[i]);
            if (how == 0) { /* the framing is whole, the answer is not */
                client_send(s.back, "0\r\n\r\n");
            } else if (how == 1) {
                close(s.back);
                s.back = -1;
            } else {
                client_reset(s.back);
                s.back = -1;
            }
            struct answer a = client_answer(s.fd, false);
            assert_int_equal(a.status, 502);
            assert_non_null(strstr(a.body.data, "\"error\""));
            answer_release(&a);
            scene_end(&s, "truncated", 1);
        }
    }
}

static void test_limits(void **state)
{
    (void)state;
    char text[6000];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    struct buf b = {0};
    assert_true(
        buf_printf(&b, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"}}]}\n\n", text));
    for (int budget = 0; budget < 2; budget++) {
        struct door_setup setup = door_default();
        setup.opt.max_body_bytes = budget ? 100000 : 5000;
        setup.opt.body_budget_bytes = budget ? 6000 : 100000;
        struct scene s = scene_start(&setup);
        client_send(s.back, STREAM_HEAD);
        send_chunk(s.back, b.data);
        struct answer a = client_answer(s.fd, false);
        assert_int_equal(a.status, budget ? 503 : 502);
        assert_non_null(strstr(a.body.data, budget ? "in flight" : "larger than the limit"));
        answer_release(&a);
        (void)client_at_eof(s.back); /* which frees its slot */
        scene_end(&s, budget ? "refused" : "upstream_error", 0);
    }
    buf_release(&b);
}

static void test_leave(void **state)
{
    (void)state;
    for (int begun = 0; begun < 2; begun++) {
        struct door_setup setup = door_default();
        struct scene s = scene_start(&setup);
        if (begun) {
            client_send(s.back, STREAM_HEAD);
            send_chunk(s.back, START);
        }
        close(s.fd);
        (void)client_at_eof(s.back);
        door_wait(s.d, DOOR_RECORDS, 1);
        assert_int_equal(door_record(s.d).r.status, 0);
        s.fd = dup(s.back);
        scene_end(&s, "client_closed", 0);
    }
}

/* What goes through as it is: the reasons are in option.def and made.c. */
static void test_untouched(void **state)
{
    (void)state;
    static const struct {
        const char *path, *body;
        bool switched_off, taken;
    } cases[] = {
        {"/v1/chat/completions", "{\"model\":\"m\"}", true, false},
        {"/v1/chat/completions", "{\"model\":\"m\"}", false, true},
        {"/v1/completions", "{ \"model\":\"m\"}", false, true},
        {"/v1/chat/completions", "{}", false, false},
        {"/v1/chat/completions", "{\"model\":\"m\",\"stream\":true}", false, false},
        {"/v1/chat/completions", "{\"model\":\"m\",\"stream\":null}", false, false},
        {"/v1/chat/completions", "{\"model\":\"m\",\"stream\":false,\"stream\":false}", false, false},
        {"/v1/chat/completions", "{\"model\":\"m\",\"logprobs\":true}", false, false},
        {"/v1/chat/completions", "{\"model\":\"m\",\"logpr\\u006fbs\":true}", false, false},
        {"/v1/chat/completions", "{\"model\":\"m\",\"logprobs\":false,\"top_logprobs\":null}", false, true},
        {"/v1/chat/completions", "{\"model\":\"m\",\"a\":{\"logprobs\":true},\"b\":[\"n_probs\",{}]}", false,
         true},
        {"/v1/completions", "{\"model\":\"m\",\"n_probs\":2}", false, false},
        {"/v1/completions", "{\"model\":\"m\",\"stream_options\":null}", false, false},
        {"/v1/completions", "{\"model\":\"m\",\"return_progress\":false}", false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct door_setup setup = door_default();
        setup.collect = true;
        setup.opt.collect_plain = !cases[i].switched_off;
        struct door *d = door_start(&setup);
        int fd = client_connect(d);
        struct buf b = {0};
        assert_true(buf_printf(&b, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n%s",
                               cases[i].path, strlen(cases[i].body), cases[i].body));
        client_send(fd, b.data);
        int back = backend_accept(d);
        struct buf got = backend_request(back);
        bool same = strstr(got.data, cases[i].body) && !strstr(got.data, "wake");
        if (same == cases[i].taken)
            fail_msg("%s became %s", cases[i].body, got.data);
        buf_release(&got);
        buf_release(&b);
        backend_answer(back, OK_JSON);
        struct answer a = client_answer(fd, false);
        assert_string_equal(a.body.data, OK_JSON);
        answer_release(&a);
        close(fd);
        close(back);
        door_stop(d, false);
    }
}

/* The model's name is put in at the same place. */
static void test_with_model(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.collect = setup.replace_model = true;
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_post(fd, "", "{ \"messages\":[]}");
    int back = backend_accept(d);
    struct buf got = backend_request(back);
    assert_non_null(
        strstr(got.data, "\r\n\r\n{\"stream\":true,\"wake\":1,\"model\":\"canon\", \"messages\":[]}"));
    buf_release(&got);
    close(back);
    close(fd);
    door_wait(d, DOOR_RELEASED, 1);
    door_stop(d, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answer),
        cmocka_unit_test(test_answer_until_the_end),
        cmocka_unit_test(test_error_before_and_within),
        cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_leave),
        cmocka_unit_test(test_untouched),
        cmocka_unit_test(test_with_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
