/* Streams that ask how far they are while they wait: what they are told, that the answer behind it is the
 * same as ever, and that what goes wrong is told within the stream, which then breaks off. */
#include "door.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TAIL ",\"created\":7,\"id\":\"c-9\",\"model\":\"f\"}\n\n"
#define EVENTS                                                                                               \
    "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":\"hello\"}}]" TAIL       \
    "data: {\"choices\":[{\"finish_reason\":\"stop\",\"index\":0,\"delta\":{}}]" TAIL                        \
    "data: {\"choices\":[],\"usage\":{\"completion_tokens\":2,\"prompt_tokens\":5}" TAIL "data: [DONE]\n\n"
#define ANTHROPIC_EVENTS                                                                                     \
    "event: message_delta\ndata: "                                                                           \
    "{\"type\":\"message_delta\",\"usage\":{\"input_tokens\":5,\"output_tokens\":2}}\n\n"                    \
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
#define SSE_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
#define CHAT                                                                                                 \
    "{\"model\":\"m\",\"max_tokens\":9,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}" \
    "]}"
#define ASKING "X-Arriero-Progress: 1\r\n"

static const struct way {
    const char *name, *path, *body;
    bool translated;
    const char *told;  /* how a piece of progress begins */
    const char *error; /* how the last words begin */
    const char *end;   /* what only a whole answer holds */
    const char *type;
} ways[] = {
    {"openai", "/v1/chat/completions", CHAT, false, ": arriero {\"state\":\"",
     "data: {\"error\":{\"message\":\"", "data: [DONE]\n\n", "text/event-stream"},
    {"llama.cpp", "/completion", CHAT, false, ": arriero {\"state\":\"", "data: {\"error\":{\"message\":\"",
     "data: [DONE]\n\n", "text/event-stream"},
    {"responses", "/v1/responses", "{\"model\":\"m\",\"stream\":true,\"input\":\"hi\"}", true,
     ": arriero {\"state\":\"", "event: error\ndata: {\"type\":\"error\"", "response.completed",
     "text/event-stream"},
    {"anthropic", "/v1/messages", CHAT, true,
     "event: ping\ndata: {\"type\":\"ping\",\"arriero\":{\"state\":\"",
     "event: error\ndata: {\"type\":\"error\"", "message_stop", "text/event-stream"},
    {"anthropic, passed", "/v1/messages", CHAT, false,
     "event: ping\ndata: {\"type\":\"ping\",\"arriero\":{\"state\":\"",
     "event: error\ndata: {\"type\":\"error\"", "\"message_stop\"}\n\n", "text/event-stream"},
    {"ollama", "/api/chat", CHAT, true,
     "\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":false,\"arriero\":{\"state\":\"",
     "{\"error\":\"", "\"done\":true", "application/x-ndjson"},
    {"ollama, generate", "/api/generate", "{\"model\":\"m\",\"prompt\":\"hi\"}", true,
     "\"response\":\"\",\"done\":false,\"arriero\":{\"state\":\"", "{\"error\":\"", "\"done\":true",
     "application/x-ndjson"},
};
#define WAYS (sizeof ways / sizeof *ways)

static struct door *open_door(const struct way *w, enum door_route route)
{
    struct door_setup setup = door_default();
    setup.route = route;
    setup.speaks = w->translated ? DIALECT_BIT(OPENAI) : 0;
    setup.view = (struct route_view){
        .stage = ROUTE_QUEUED, .position = 3, .expected_known = true, .expected_ms = 4200};
    return door_start(&setup);
}

static void ask(int fd, const struct way *w, const char *version, const char *fields, const char *body)
{
    struct buf b = {0};
    assert_true(buf_printf(&b,
                           "POST %s HTTP/%s\r\nHost: door\r\n%sContent-Type: application/json\r\n"
                           "Content-Length: %zu\r\n\r\n%s",
                           w->path, version, fields, strlen(body), body));
    client_send_n(fd, b.data, b.n);
    buf_release(&b);
}

static bool holds(const struct answer *a, const char *text)
{
    return a->body.n && memmem(a->body.data, a->body.n, text, strlen(text));
}

static void backend_sends(int back, const char *head, const char *body)
{
    struct buf got = backend_request(back);
    buf_release(&got);
    client_send(back, head);
    client_send(back, body);
}

static const char *events_of(const struct way *w)
{
    return w->translated || strcmp(w->path, "/v1/messages") != 0 ? EVENTS : ANTHROPIC_EVENTS;
}

/* In chunks, of which one holds two halves of events. */
static void backend_streams(int back, const struct way *w)
{
    struct buf b = {0};
    const char *events = events_of(w);
    size_t n = strlen(events), half = n / 2;
    assert_true(buf_printf(&b, "%zx\r\n%.*s\r\n%zx\r\n%s\r\n0\r\n\r\n", half, (int)half, events, n - half,
                           events + half));
    backend_sends(back, SSE_HEAD "Transfer-Encoding: chunked\r\n\r\n", b.data);
    buf_release(&b);
}

/* From "queued" to the end; then the connection serves another request. */
static void test_ways(void **state)
{
    (void)state;
    for (size_t i = 0; i < WAYS; i++) {
        const struct way *w = &ways[i];
        struct door *d = open_door(w, DOOR_WAIT);
        char text[128];
        int fd = client_connect(d), back = -1;
        for (unsigned turn = 1; turn <= 2; turn++) {
            ask(fd, w, "1.1", ASKING, w->body);
            door_wait(d, DOOR_ACQUIRED, turn);
            door_grant(d);
            back = back < 0 ? backend_accept(d) : back;
            backend_streams(back, w);
            struct answer a = client_answer(fd, false);
            (void)snprintf(text, sizeof text, "%squeued\",", w->told);
            if (a.status != 200 || a.broken || !holds(&a, text) || !holds(&a, w->end))
                fail_msg("%s: %d, %s", w->name, a.status, a.body.n ? a.body.data : "");
            assert_true(holds(&a, "\"model\":\"m\""));
            assert_true(holds(&a, ",\"position\":3,\"expected_s\":4.2,\"waited_s\":"));
            (void)snprintf(text, sizeof text, "%sready\",", w->told);
            assert_true(holds(&a, text));
            assert_true(holds(&a, "\"instance\":\"inst-1\""));
            assert_non_null(strstr(a.head, w->type));
            assert_true(answer_has(&a, "X-Accel-Buffering: no"));
            if (!w->translated) /* behind what was told the answer is the backend's own */
                assert_string_equal(a.body.data + a.body.n - strlen(events_of(w)), events_of(w));
            answer_release(&a);
            door_wait(d, DOOR_RECORDS, turn);
            assert_string_equal(door_record(d).outcome, "ok");
            assert_int_equal(door_record(d).r.completion_tokens, 2);
        }
        close(fd);
        close(back);
        door_stop(d, false);
    }
}

/* Every change is told, once. */
static void test_changes(void **state)
{
    (void)state;
    static const struct {
        struct route_view view;
        const char *text;
    } rows[] = {
        {{.stage = ROUTE_QUEUED, .position = 2},
         "{\"state\":\"queued\",\"model\":\"m\",\"position\":2,\"waited_s\""},
        {{.stage = ROUTE_PLANNING}, "{\"state\":\"planning\",\"model\":\"m\",\"waited_s\""},
        {{.stage = ROUTE_BLOCKED}, "{\"state\":\"blocked\""},
        {{.stage = ROUTE_MAKING_ROOM}, "{\"state\":\"making_room\""},
        {{.stage = ROUTE_LOADING, .percent = 7},
         "{\"state\":\"loading\",\"model\":\"m\",\"percent\":7,\"waited_s\""},
        {{.stage = ROUTE_LOADING, .percent = 42}, "\"percent\":42"},
    };
    struct door *d = open_door(&ways[0], DOOR_WAIT);
    int fd = client_connect(d);
    ask(fd, &ways[0], "1.1", ASKING, CHAT);
    client_read_until(fd, "\"position\":3");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        door_show(d, rows[i].view);
        client_read_until(fd, rows[i].text);
    }
    close(fd); /* it gives up its place */
    door_wait(d, DOOR_CANCELLED, 1);
    door_wait(d, DOOR_RECORDS, 1);
    assert_string_equal(door_record(d).outcome, "client_closed");
    door_stop(d, false);
}

/* Who does not ask, or does not stream, is told nothing: the answer's head is the first that comes. */
static void test_not_asked(void **state)
{
    (void)state;
    static const struct {
        const char *fields, *body;
        bool told;
    } rows[] = {
        {"", CHAT, false},
        {"X-Arriero-Progress: 0\r\n", CHAT, false},
        {"X-Arriero-Progress: \r\n", CHAT, false},
        {ASKING, "{\"model\":\"m\",\"messages\":[]}", false},
        {ASKING, "{\"model\":\"m\",\"stream\":false,\"messages\":[]}", false},
        {"", "{\"model\":\"m\",\"stream\":true,\"loading_state\":false}", false},
        {"", "{\"model\":\"m\",\"stream\":true,\"options\":{\"loading_state\":true}}", false},
        {"", "{\"model\":\"m\",\"stream\":true,\"loading_state\":true}", true},
        {"X-Arriero-Progress: true\r\n", CHAT, true},
    };
    struct door *d = open_door(&ways[0], DOOR_WAIT);
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        int fd = client_connect(d);
        ask(fd, &ways[0], "1.1", rows[i].fields, rows[i].body);
        door_wait(d, DOOR_ACQUIRED, i + 1);
        door_grant(d);
        int back = backend_accept(d);
        backend_streams(back, &ways[0]);
        struct answer a = client_answer(fd, false);
        if (rows[i].told != holds(&a, "arriero") ||
            rows[i].told == answer_has(&a, "X-Arriero-Instance: inst-1"))
            fail_msg("row %u: %s", i, a.body.data);
        answer_release(&a);
        close(fd);
        close(back);
    }
    door_stop(d, false);
}

/* What goes wrong behind the first word: the dialect's error, a stream that breaks off, an honest record. */
static void expect_last_words(struct door *d, const struct way *w, int fd, const char *what,
                              const char *message, const char *outcome, unsigned n)
{
    struct answer a = client_answer(fd, false);
    if (a.status != 200 || !a.broken || !holds(&a, w->error) || holds(&a, w->end) || !holds(&a, message))
        fail_msg("%s, %s: %d, %s: %s", w->name, what, a.status, a.broken ? "broken" : "whole",
                 a.body.n ? a.body.data : "");
    answer_release(&a);
    close(fd);
    door_wait(d, DOOR_RECORDS, n);
    if (strcmp(door_record(d).outcome, outcome) != 0)
        fail_msg("%s, %s: recorded as %s", w->name, what, door_record(d).outcome);
}

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < WAYS; i++) {
        struct door *d = open_door(&ways[i], DOOR_WAIT);
        int fd = client_connect(d);
        ask(fd, &ways[i], "1.1", ASKING, ways[i].body);
        client_read_until(fd, "\r\n\r\n");
        client_read_until(fd, "queued");
        close(fd);
        door_wait(d, DOOR_CANCELLED, 1);
        fd = client_connect(d);
        ask(fd, &ways[i], "1.1", ASKING, ways[i].body);
        door_wait(d, DOOR_ACQUIRED, 2);
        door_refuse(d);
        expect_last_words(d, &ways[i], fd, "a refusal", "", "refused", 2);
        door_stop(d, false);
    }
}

/* A backend's answer that cannot follow the head that the client has. */
static void test_bad_answers(void **state)
{
    (void)state;
    static const struct {
        const char *name, *head, *body, *message, *outcome;
        bool failed, broken; /* what the route is told */
    } rows[] = {
        {"500", "HTTP/1.1 500 x\r\nContent-Length: 33\r\n\r\n", "{\"error\":{\"message\":\"no memory\"}}",
         "no memory", "upstream_error", true, false},
        {"500 in chunks", "HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n",
         "21\r\n{\"error\":{\"message\":\"no memory\"}}\r\n0\r\n\r\n", "no memory", "upstream_error", true,
         false},
        {"400", "HTTP/1.1 400 x\r\nContent-Length: 33\r\n\r\n", "{\"error\":{\"message\":\"too large\"}}",
         "too large", "upstream_error", false, false},
        {"no stream", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n", "{}",
         "something else than a stream", "truncated", false, true},
        {"204", "HTTP/1.1 204 No Content\r\n\r\n", "", "neither success nor error", "truncated", false, true},
        {"compressed", SSE_HEAD "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n", "xx", "", "truncated",
         false, true},
        {"nonsense", "SSH-2.0\r\n\r\n", "", "before it answered", "upstream_error", false, true},
        {"a cut head", "HTTP/1.1 200 OK\r\nConte", "", "before it answered", "upstream_error", false, true},
        {"only a head", SSE_HEAD "Transfer-Encoding: chunked\r\n\r\n", "", "", "truncated", false, true},
    };
    for (size_t i = 0; i < WAYS; i++) {
        struct door *d = open_door(&ways[i], DOOR_WAIT);
        unsigned failed = 0, broken = 0;
        for (unsigned k = 0; k < sizeof rows / sizeof *rows; k++) {
            if (ways[i].translated && !strcmp(rows[k].name, "compressed"))
                continue; /* events all the same: that no event can be read is another test's */
            int fd = client_connect(d);
            unsigned n = door_count(d, DOOR_ACQUIRED) + 1;
            ask(fd, &ways[i], "1.1", ASKING, ways[i].body);
            door_wait(d, DOOR_ACQUIRED, n);
            door_grant(d);
            int back = backend_accept(d);
            backend_sends(back, rows[k].head, rows[k].body);
            close(back);
            expect_last_words(d, &ways[i], fd, rows[k].name, rows[k].message, rows[k].outcome, n);
            failed += rows[k].failed;
            broken += rows[k].broken;
            door_wait(d, DOOR_RELEASED, n);
            if (door_count(d, DOOR_FAILED) != failed || door_count(d, DOOR_BROKEN) != broken)
                fail_msg("%s, %s: the route was told something else", ways[i].name, rows[k].name);
        }
        door_stop(d, false);
    }
}

/* Nobody listens: the route is asked again, and that the second one waits is told on the same stream. */
static void test_second_attempt(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.route = DOOR_WAIT;
    setup.dead_port = true;
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    ask(fd, &ways[0], "1.1", ASKING, CHAT);
    for (unsigned n = 1; n <= 2; n++) {
        door_wait(d, DOOR_ACQUIRED, n);
        door_grant(d);
    }
    expect_last_words(d, &ways[0], fd, "nobody listens", "cannot connect", "upstream_error", 1);
    door_stop(d, false);
}

/* Events with a length become chunks, for chunks were promised; to HTTP/1.0 nothing was. */
static void test_framings(void **state)
{
    (void)state;
    for (int old = 0; old < 2; old++) {
        struct door *d = open_door(&ways[0], DOOR_WAIT);
        char head[160];
        (void)snprintf(head, sizeof head, SSE_HEAD "Content-Length: %zu\r\n\r\n", strlen(EVENTS));
        int fd = client_connect(d);
        ask(fd, &ways[0], old ? "1.0" : "1.1", ASKING, CHAT);
        door_wait(d, DOOR_ACQUIRED, 1);
        door_grant(d);
        int back = backend_accept(d);
        backend_sends(back, head, EVENTS);
        struct answer a = client_answer(fd, false);
        assert_int_equal(a.status, 200);
        assert_false(a.broken);
        assert_string_equal(a.body.data + a.body.n - strlen(EVENTS), EVENTS);
        assert_int_equal(answer_has(&a, "Transfer-Encoding: chunked"), !old);
        answer_release(&a);
        close(fd);
        close(back);
        door_stop(d, false);
    }
}

/* While a backend reads a prompt: nothing of it yet, its head only, events that are dropped. */
static void test_reading(void **state)
{
    (void)state;
    static const char *const begun[] = {"", SSE_HEAD
                                        "Transfer-Encoding: chunked\r\n\r\n10\r\ndata: {\"dawn\"}\n\n\r\n"};
    for (size_t i = 0; i < sizeof begun / sizeof *begun; i++) {
        struct door_setup setup = door_default();
        setup.wake = true;
        struct door *d = door_start(&setup);
        int fd = client_connect(d);
        char chunk[1024];
        ask(fd, &ways[0], "1.1", ASKING, CHAT);
        int back = backend_accept(d);
        backend_sends(back, begun[i], "");
        client_read_until(fd, ": arriero {\"state\":\"reading\"");
        client_read_until(fd, "\n\n\r\n");
        (void)snprintf(chunk, sizeof chunk, "%s%zx\r\n%s\r\n0\r\n\r\n",
                       *begun[i] ? "" : SSE_HEAD "Transfer-Encoding: chunked\r\n\r\n", strlen(EVENTS),
                       EVENTS);
        client_send(back, chunk);
        char rest[sizeof chunk];
        int n = snprintf(chunk, sizeof chunk, "%zx\r\n%s\r\n0\r\n\r\n", strlen(EVENTS), EVENTS);
        client_read_n(fd, rest, (size_t)n);
        assert_memory_equal(rest, chunk, (size_t)n);
        close(fd);
        close(back);
        door_stop(d, false);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ways),        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_not_asked),   cmocka_unit_test(test_refused),
        cmocka_unit_test(test_bad_answers), cmocka_unit_test(test_second_attempt),
        cmocka_unit_test(test_framings),    cmocka_unit_test(test_reading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
