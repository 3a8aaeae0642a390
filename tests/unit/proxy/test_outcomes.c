/* The table of faults: for every way in which an answer reaches a client (passed on, collected, translated;
 * whole or streamed) and everything that a backend can do wrong, what the client gets, what is recorded, and
 * that the lease comes back. A backend that stops after byte N is tried at every N with ARRIERO_TORTURE set,
 * else at every 13th. */
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

/* What the backend says: one JSON document, or events. */
#define TAIL     ",\"created\":7,\"id\":\"c-9\",\"model\":\"f\"}\n\n"
#define DELTA(d) "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{" d "}}]" TAIL
#define EVENTS                                                                                               \
    DELTA("\"role\":\"assistant\",\"content\":null")                                                         \
    DELTA("\"content\":\"hello\"")                                                                           \
    "data: {\"choices\":[{\"finish_reason\":\"stop\",\"index\":0,\"delta\":{}}]" TAIL                        \
    "data: {\"choices\":[],\"usage\":{\"completion_tokens\":2,\"prompt_tokens\":5}" TAIL "data: [DONE]\n\n"
#define DOCUMENT "{\"choices\":[{\"message\":{\"content\":\"hello\"}}]}"
#define SSE      "Content-Type: text/event-stream\r\n"

/* ---- the ways ---- */

enum how { PASSED, MADE };

static const struct way {
    const char *name, *path, *body;
    enum how how;
    bool events;   /* the backend answers with events */
    bool streamed; /* the client is answered with a stream */
    bool translated, collected;
    const char *end;   /* what only a whole answer holds */
    const char *error; /* how an error begins in this dialect */
} ways[] = {
#define CHAT(stream)                                                                                         \
    "{\"model\":\"m\",\"max_tokens\":9,\"stream\":" stream                                                   \
    ",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"
#define OPENAI_ERROR    "{\"error\":{\"message\":\""
#define ANTHROPIC_ERROR "{\"type\":\"error\",\"error\":{\"type\":\""
    {"openai, passed, whole", "/v1/chat/completions", CHAT("false"), PASSED, false, false, false, false,
     "hello\"}}]}", OPENAI_ERROR},
    {"openai, passed, streamed", "/v1/chat/completions", CHAT("true"), PASSED, true, true, false, false,
     "data: [DONE]\n\n", OPENAI_ERROR},
    {"openai, collected", "/v1/chat/completions", CHAT("false"), MADE, true, false, false, true, "hello",
     OPENAI_ERROR},
    {"anthropic, whole", "/v1/messages", CHAT("false"), MADE, true, false, true, false, "hello",
     ANTHROPIC_ERROR},
    {"anthropic, streamed", "/v1/messages", CHAT("true"), MADE, true, true, true, false, "message_stop",
     ANTHROPIC_ERROR},
    {"ollama, whole", "/api/chat", CHAT("false"), MADE, true, false, true, false, "hello", "{\"error\":\""},
    {"ollama, streamed", "/api/chat", CHAT("true"), MADE, true, true, true, false, "\"done\":true",
     "{\"error\":\""},
};
#define WAYS (sizeof ways / sizeof *ways)

struct scene {
    const struct way *way;
    struct door *d;
    int fd, back;
    unsigned ended, broken; /* requests so far, and leases called broken */
};

static struct scene scene_open_with(const struct way *way, struct door_setup setup)
{
    setup.speaks = way->translated ? DIALECT_BIT(OPENAI) : 0;
    setup.collect = way->collected;
    return (struct scene){.way = way, .d = door_start(&setup), .fd = -1, .back = -1};
}

static struct scene scene_open(const struct way *way)
{
    return scene_open_with(way, door_default());
}

static void ask(struct scene *s)
{
    struct buf b = {0};
    assert_true(
        buf_printf(&b,
                   "POST %s HTTP/1.1\r\nHost: door\r\nContent-Type: application/json\r\nContent-Length: "
                   "%zu\r\n\r\n%s",
                   s->way->path, strlen(s->way->body), s->way->body));
    if (s->fd < 0)
        s->fd = client_connect(s->d);
    client_send_n(s->fd, b.data, b.n);
    buf_release(&b);
}

static void backend_reads(struct scene *s)
{
    if (s->back < 0)
        s->back = backend_accept(s->d);
    struct buf got = backend_request(s->back);
    buf_release(&got);
}

/* Both connections end; the next request has new ones. */
static void part(struct scene *s)
{
    if (s->back >= 0)
        close(s->back);
    if (s->fd >= 0)
        close(s->fd);
    s->fd = s->back = -1;
}

static void expect_record(struct scene *s, const char *what, const char *outcome, bool broken)
{
    s->ended++;
    s->broken += broken;
    door_wait(s->d, DOOR_RECORDS, s->ended);
    door_wait(s->d, DOOR_RELEASED, s->ended);
    if (strcmp(door_record(s->d).outcome, outcome) != 0)
        fail_msg("%s, %s: %s instead of %s", s->way->name, what, door_record(s->d).outcome, outcome);
    assert_int_equal(door_count(s->d, DOOR_BROKEN), s->broken);
}

static void scene_close(struct scene *s)
{
    part(s);
    struct http_counters n = door_counters(s->d);
    assert_int_equal(n.body_bytes_in_flight, 0);
    assert_int_equal(n.waiting, 0);
    door_stop(s->d, false);
}

static struct buf chunk(const char *text)
{
    struct buf b = {0};
    assert_true(buf_printf(&b, "%zx\r\n%s\r\n", strlen(text), text));
    return b;
}

/* The answer as a backend sends it: a chunk an event, or a document with its length. */
static struct buf good_answer(const struct way *way, size_t *ret_head, size_t *ret_done)
{
    struct buf b = {0};
    if (!way->events) {
        assert_true(
            buf_printf(&b, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                       strlen(DOCUMENT)));
        *ret_head = b.n;
        assert_true(buf_puts(&b, DOCUMENT));
        *ret_done = b.n;
        return b;
    }
    assert_true(buf_puts(&b, "HTTP/1.1 200 OK\r\n" SSE "Transfer-Encoding: chunked\r\n\r\n"));
    *ret_head = b.n;
    for (const char *at = EVENTS; *at;) {
        const char *end = strstr(at, "\n\n") + 2;
        char event[512] = "";
        memcpy(event, at, (size_t)(end - at));
        struct buf c = chunk(event);
        assert_true(buf_append(&b, c.data, c.n));
        buf_release(&c);
        at = end;
    }
    *ret_done = b.n - 2; /* the end mark is there: what is still to come is framing */
    assert_true(buf_puts(&b, "0\r\n\r\n"));
    if (way->how == PASSED)
        *ret_done = b.n;
    return b;
}

static bool begins_with(const struct answer *a, const char *text)
{
    return a->body.n >= strlen(text) && !memcmp(a->body.data, text, strlen(text));
}

static bool holds(const struct answer *a, const char *text)
{
    return a->body.n && memmem(a->body.data, a->body.n, text, strlen(text));
}

/* ---- a backend that stops after byte N ---- */

/* Whether the payload of the chunks that are there ends behind an event, or has not begun. */
static bool between_events(const char *p, size_t n)
{
    bool between = true;
    while (n) {
        char *end;
        size_t size = strtoul(p, &end, 16), head = (size_t)(end - p) + 2;
        if (head >= n || size == 0)
            break;
        p += head;
        n -= head;
        between = n >= size;
        n -= n < size + 2 ? n : size + 2;
        p += size + 2;
    }
    return between;
}

/* What the client has of an answer that ended too early; returns whether it had begun. */
static bool expect_cut(const struct scene *s, const struct answer *a, bool head_came, bool between, size_t at)
{
    const struct way *w = s->way;
    bool words = w->streamed && (w->how == MADE || between);
    if (w->how == MADE && w->streamed && holds(a, w->end))
        fail_msg("%s, byte %zu: a cut answer looks whole: %s", w->name, at, a->body.data);
    if (a->status == 502) {
        if (a->broken || !begins_with(a, w->error) || (w->how == PASSED && head_came))
            fail_msg("%s, byte %zu: %s", w->name, at, a->body.data);
        return false;
    }
    if (a->status != 200 || !head_came || !a->broken || (w->how == MADE && !w->streamed))
        fail_msg("%s, byte %zu: %d, %s", w->name, at, a->status, a->broken ? "broken" : "whole");
    if (w->how == PASSED && a->reset == words)
        fail_msg("%s, byte %zu: %s", w->name, at,
                 words ? "no time for the last words" : "closed as if it were whole");
    if (words != holds(a, w->error))
        fail_msg("%s, byte %zu: %s last words: %s", w->name, at, words ? "no" : "unwanted", a->body.data);
    return true;
}

static void stop_at(struct scene *s, const struct buf *answer, size_t head_n, size_t done, size_t at,
                    bool reset, bool *begun)
{
    ask(s);
    backend_reads(s);
    client_send_n(s->back, answer->data, at);
    if (reset)
        client_reset(s->back);
    else
        close(s->back);
    s->back = -1;
    struct answer a = client_answer(s->fd, false);
    char what[32];
    (void)snprintf(what, sizeof what, "byte %zu", at);
    if (at >= done) {
        if (a.status != 200 || a.broken || !holds(&a, s->way->end))
            fail_msg("%s, byte %zu of %zu: not whole", s->way->name, at, answer->n);
        expect_record(s, what, "ok", false);
    } else {
        bool came = at >= head_n;
        bool has = expect_cut(s, &a, came, came && between_events(answer->data + head_n, at - head_n), at);
        if (*begun && !has)
            fail_msg("%s, byte %zu: fewer bytes had begun the answer already", s->way->name, at);
        *begun = has;
        expect_record(s, what, at >= head_n ? "truncated" : "upstream_error", true);
    }
    answer_release(&a);
    part(s);
}

static void test_stops_at_every_byte(void **state)
{
    (void)state;
    size_t step = getenv("ARRIERO_TORTURE") ? 1 : 13;
    for (size_t w = 0; w < WAYS; w++) {
        struct scene s = scene_open(&ways[w]);
        size_t head_n = 0, done = 0;
        struct buf answer = good_answer(&ways[w], &head_n, &done);
        for (int reset = 0; reset < 2; reset++) {
            bool begun = false;
            for (size_t at = 0; at <= answer.n; at += step)
                stop_at(&s, &answer, head_n, done, at, reset, &begun);
            stop_at(&s, &answer, head_n, done, done - 1, reset, &begun);
            stop_at(&s, &answer, head_n, done, done, reset, &begun);
        }
        buf_release(&answer);
        scene_close(&s);
    }
}

/* ---- answers that are wrong, or only strange ---- */

enum get { WHOLE, BAD_GATEWAY, CUT, TOLD, STATUS_500 }; /* TOLD: cut, with the last words */

static const struct fault {
    const char *name;
    const char *document, *events; /* to ways that expect the one or the other; NULL = left out */
    enum get passed, made;         /* what clients get */
} faults[] = {
#define HEAD_OK "HTTP/1.1 200 OK\r\n"
#define CHUNKED "Transfer-Encoding: chunked\r\n\r\n"
    {"1xx answers before it",
     "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" HEAD_OK "\r\n" DOCUMENT,
     "HTTP/1.1 102 Processing\r\n\r\n" HEAD_OK SSE "\r\n" EVENTS, WHOLE, WHOLE},
    {"HTTP/1.0 without a length", "HTTP/1.0 200 OK\r\n\r\n" DOCUMENT, "HTTP/1.0 200 OK\r\n" SSE "\r\n" EVENTS,
     WHOLE, WHOLE},
    {"trailers", HEAD_OK CHUNKED "2d\r\n" DOCUMENT "\r\n0\r\nX-T: 1\r\n\r\n", NULL, WHOLE, WHOLE},
    {"a chunk extension", HEAD_OK CHUNKED "2d;a=\"b\"\r\n" DOCUMENT "\r\n0\r\n\r\n", NULL, WHOLE, WHOLE},
    {"chunk sizes with zeros in front", HEAD_OK CHUNKED "0002d\r\n" DOCUMENT "\r\n000\r\n\r\n", NULL, WHOLE,
     WHOLE},
    {"more than its length", HEAD_OK "Content-Length: 45\r\n\r\n" DOCUMENT "HTTP/1.1 200 OK\r\n\r\nevil",
     NULL, WHOLE, WHOLE},
    {"less than its length", HEAD_OK "Content-Length: 46\r\n\r\n" DOCUMENT, NULL, CUT, CUT},
    {"no end mark", NULL, HEAD_OK SSE "\r\n" DELTA("\"content\":\"x\""), CUT, CUT},
    {"no end mark, and the last chunk", NULL, HEAD_OK SSE CHUNKED "9\r\ndata: 1\n\n\r\n0\r\n\r\n", TOLD, CUT},
    {"an event cut in two, and the last chunk", NULL, HEAD_OK SSE CHUNKED "5\r\ndata:\r\n0\r\n\r\n", CUT,
     CUT},
    {"the end mark in two chunks", NULL, HEAD_OK SSE CHUNKED "a\r\ndata: [DON\r\n4\r\nE]\n\n\r\n0\r\n\r\n",
     WHOLE, CUT},
    {"an error of its own", "HTTP/1.1 500 x\r\nContent-Length: 2\r\n\r\n{}",
     "HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n", STATUS_500, STATUS_500},
    {"an empty answer", "", "", BAD_GATEWAY, BAD_GATEWAY},
    {"another protocol", "SSH-2.0-x\r\n\r\n", "SSH-2.0-x\r\n\r\n", BAD_GATEWAY, BAD_GATEWAY},
    {"HTTP/0.9", DOCUMENT, EVENTS, BAD_GATEWAY, BAD_GATEWAY},
    {"a version that there is not", "HTTP/3.7 200 OK\r\n\r\n", "HTTP/3.7 200 OK\r\n\r\n", BAD_GATEWAY,
     BAD_GATEWAY},
    {"a status of two digits", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", BAD_GATEWAY, BAD_GATEWAY},
    {"101", "HTTP/1.1 101 x\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
     "HTTP/1.1 101 x\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", BAD_GATEWAY, BAD_GATEWAY},
    {"length and chunks", HEAD_OK "Content-Length: 5\r\n" CHUNKED "0\r\n\r\n",
     HEAD_OK SSE "Content-Length: 5\r\n" CHUNKED "0\r\n\r\n", BAD_GATEWAY, BAD_GATEWAY},
    {"two lengths", HEAD_OK "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
     HEAD_OK SSE "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", BAD_GATEWAY, BAD_GATEWAY},
    {"a length that is none", HEAD_OK "Content-Length: -1\r\n\r\n", HEAD_OK SSE "Content-Length: 1e3\r\n\r\n",
     BAD_GATEWAY, BAD_GATEWAY},
    {"a transfer coding that nobody asked for", HEAD_OK "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
     HEAD_OK SSE "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", BAD_GATEWAY, BAD_GATEWAY},
    {"a bare line feed in the head", HEAD_OK "X: a\nContent-Length: 0\r\n\r\n",
     HEAD_OK "X: a\nContent-Length: 0\r\n\r\n", BAD_GATEWAY, BAD_GATEWAY},
    {"a field without a name", HEAD_OK ": x\r\n\r\n", HEAD_OK SSE ": x\r\n\r\n", BAD_GATEWAY, BAD_GATEWAY},
    {"events that are compressed", NULL,
     HEAD_OK SSE "Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x01", WHOLE, BAD_GATEWAY},
    {"no JSON in an event", NULL, HEAD_OK SSE "\r\ndata: {nonsense\n\n" EVENTS, WHOLE, BAD_GATEWAY},
};

static void expect_get(struct scene *s, const struct fault *f, const struct answer *a, enum get get)
{
    const struct way *w = s->way;
    bool fine = false;
    switch (get) {
    case WHOLE:
        fine = a->status == 200 && !a->broken && !holds(a, "evil") &&
               (holds(a, w->end) || answer_has(a, "Content-Encoding: gzip"));
        break;
    case BAD_GATEWAY: fine = a->status == 502 && !a->broken && begins_with(a, w->error); break;
    case CUT:
        fine = w->how == PASSED             ? a->status == 200 && a->reset
               : !w->streamed || !a->broken ? a->status == 502 && begins_with(a, w->error)
                                            : a->status == 200 && holds(a, w->error);
        break;
    case TOLD: fine = a->status == 200 && a->broken && !a->reset && holds(a, w->error); break;
    case STATUS_500:
        fine = a->status == 500 && !a->broken && (!w->translated || begins_with(a, w->error));
        break;
    }
    if (!fine)
        fail_msg("%s, %s: %d, %s: %s", w->name, f->name, a->status, a->broken ? "broken" : "whole",
                 a->body.n ? a->body.data : "");
}

static void suffer(struct scene *s, const struct fault *f)
{
    const char *bytes = s->way->events ? f->events : f->document;
    enum get get = s->way->how == PASSED ? f->passed : f->made;
    if (!bytes)
        return;
    ask(s);
    backend_reads(s);
    client_send(s->back, bytes);
    (void)shutdown(s->back, SHUT_WR);
    struct answer a = client_answer(s->fd, false);
    expect_get(s, f, &a, get);
    answer_release(&a);
    s->ended++;
    door_wait(s->d, DOOR_RECORDS, s->ended);
    door_wait(s->d, DOOR_RELEASED, s->ended); /* whatever came of it, the slot is free */
    bool called_ok = !strcmp(door_record(s->d).outcome, "ok");
    if (called_ok != (get == WHOLE))
        fail_msg("%s, %s: recorded as %s", s->way->name, f->name, door_record(s->d).outcome);
    /* A connection on which an answer was wrong is not used again. */
    close(s->back);
    s->back = -1;
    part(s);
}

static void test_faults(void **state)
{
    (void)state;
    for (size_t w = 0; w < WAYS; w++) {
        struct scene s = scene_open(&ways[w]);
        for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
            suffer(&s, &faults[i]);
        scene_close(&s);
    }
}

static void test_a_head_without_end(void **state)
{
    (void)state;
    struct buf head = {0};
    assert_true(buf_puts(&head, HEAD_OK "X: "));
    while (head.n < 20000)
        assert_true(buf_puts(&head, "0123456789"));
    for (size_t w = 0; w < WAYS; w++) {
        struct scene s = scene_open(&ways[w]);
        ask(&s);
        backend_reads(&s);
        client_send_n(s.back, head.data, head.n);
        struct answer a = client_answer(s.fd, false);
        assert_int_equal(a.status, 502);
        assert_true(begins_with(&a, ways[w].error));
        answer_release(&a);
        expect_record(&s, "a head without end", "upstream_error", true);
        scene_close(&s);
    }
    buf_release(&head);
}

/* ---- a backend that waits ---- */

/* The client leaves while nothing comes: before the answer, in its head, in its middle. */
static void test_stalls(void **state)
{
    (void)state;
    for (size_t w = 0; w < WAYS; w++) {
        struct scene s = scene_open(&ways[w]);
        size_t head_n = 0, done = 0;
        struct buf answer = good_answer(&ways[w], &head_n, &done);
        const size_t stops[] = {0, head_n / 2, head_n, (head_n + done) / 2};
        for (size_t i = 0; i < sizeof stops / sizeof *stops; i++)
            for (int reset = 0; reset < 2; reset++) {
                ask(&s);
                backend_reads(&s);
                client_send_n(s.back, answer.data, stops[i]);
                if (reset)
                    client_reset(s.fd);
                else
                    close(s.fd);
                s.fd = -1;
                (void)client_at_eof(s.back); /* the backend is told at once */
                expect_record(&s, "a stall", "client_closed", false);
                part(&s);
            }
        buf_release(&answer);
        scene_close(&s);
    }
}

/* ---- limits of time ---- */

enum stop { NOTHING_SENT, IN_HEAD, BEHIND_HEAD, BEFORE_END };

/* Where the backend falls silent, and which limit ends that. A client that has nothing gets a 504. */
static void test_limits(void **state)
{
    (void)state;
    static const struct limit {
        const char *name, *message;
        uint64_t first_byte_ms, event_gap_ms, total_ms, timeout_ms;
        enum stop stop;
        bool broken; /* what the route is told: else failed */
    } limits[] = {
        {"no first byte", "sent no byte of an answer", .first_byte_ms = 20, .stop = NOTHING_SENT,
         .broken = true},
        {"no first byte, in the head", "sent no byte of an answer", .first_byte_ms = 20, .stop = IN_HEAD,
         .broken = true},
        {"no first byte, behind the head", "sent no byte of an answer", .first_byte_ms = 20,
         .stop = BEHIND_HEAD, .broken = true},
        {"a gap", "stopped in the middle of its answer", .event_gap_ms = 20, .stop = BEFORE_END,
         .broken = true},
        {"the total, nothing sent", "did not complete its answer", .total_ms = 20, .stop = NOTHING_SENT},
        {"the total", "did not complete its answer", .total_ms = 20, .stop = BEFORE_END},
        {"the model's own", "did not complete its answer", .total_ms = 3600000, .timeout_ms = 20,
         .stop = BEFORE_END},
    };
    for (size_t w = 0; w < WAYS; w++)
        for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
            const struct limit *l = &limits[i];
            struct door_setup setup = door_default();
            setup.opt.first_byte_ms = l->first_byte_ms;
            setup.opt.event_gap_ms = l->event_gap_ms;
            setup.opt.total_ms = l->total_ms;
            setup.timeout_ms = l->timeout_ms;
            struct scene s = scene_open_with(&ways[w], setup);
            size_t head_n = 0, done = 0;
            struct buf answer = good_answer(&ways[w], &head_n, &done);
            const size_t stops[] = {0, head_n / 2, head_n, done - 1};
            ask(&s);
            backend_reads(&s);
            client_send_n(s.back, answer.data, stops[l->stop]);
            struct answer a = client_answer(s.fd, false);
            bool begun = l->stop >= (ways[w].how == PASSED ? BEHIND_HEAD : BEFORE_END);
            bool streamed = begun && ways[w].streamed, passed = begun && ways[w].how == PASSED && !streamed;
            bool fine = passed     ? a.status == 200 && a.reset
                        : streamed ? a.status == 200 && a.broken && holds(&a, ways[w].error)
                                   : a.status == 504 && !a.broken && begins_with(&a, ways[w].error);
            if (!fine || (!passed && !holds(&a, l->message)))
                fail_msg("%s, %s: %d, %s: %s", ways[w].name, l->name, a.status, a.broken ? "broken" : "whole",
                         a.body.n ? a.body.data : "");
            answer_release(&a);
            (void)client_at_eof(s.back); /* the backend is left */
            expect_record(&s, l->name, "timeout", l->broken);
            assert_int_equal(door_count(s.d, DOOR_FAILED), !l->broken);
            buf_release(&answer);
            scene_close(&s);
        }
}

/* Limits that do not run out change nothing. */
static void test_within_limits(void **state)
{
    (void)state;
    for (size_t w = 0; w < WAYS; w++) {
        struct door_setup setup = door_default();
        setup.opt.first_byte_ms = setup.opt.event_gap_ms = setup.opt.total_ms = 3600000;
        struct scene s = scene_open_with(&ways[w], setup);
        size_t head_n = 0, done = 0;
        struct buf answer = good_answer(&ways[w], &head_n, &done);
        for (int turn = 0; turn < 2; turn++) {
            ask(&s);
            backend_reads(&s);
            client_send_n(s.back, answer.data, answer.n);
            struct answer a = client_answer(s.fd, false);
            assert_int_equal(a.status, 200);
            assert_true(holds(&a, ways[w].end));
            answer_release(&a);
            expect_record(&s, "within the limits", "ok", false);
        }
        buf_release(&answer);
        scene_close(&s);
    }
}

/* ---- a client that leaves, and a model whose answers are read to their end ---- */

static void test_drain(void **state)
{
    (void)state;
    for (size_t w = 0; w < WAYS; w++) {
        struct door_setup setup = door_default();
        setup.drain = true;
        struct scene s = scene_open_with(&ways[w], setup);
        size_t head_n = 0, done = 0;
        struct buf answer = good_answer(&ways[w], &head_n, &done);
        const size_t stops[] = {0, head_n / 2, head_n, (head_n + done) / 2, done - 1};
        uint64_t left = 0;
        for (size_t i = 0; i < sizeof stops / sizeof *stops; i++)
            for (int reset = 0; reset < 2; reset++) {
                ask(&s);
                backend_reads(&s); /* on the connection of the request before: it was not cut */
                client_send_n(s.back, answer.data, stops[i]);
                if (reset)
                    client_reset(s.fd);
                else
                    close(s.fd);
                s.fd = -1;
                left++;
                while (door_counters(s.d).client_aborts < left) /* each look is a turn of the loop */
                    continue;
                assert_int_equal(door_count(s.d, DOOR_RELEASED), s.ended); /* the slot is in use yet */
                client_send_n(s.back, answer.data + stops[i], answer.n - stops[i]);
                expect_record(&s, "a client that left", "client_closed", false);
                if (ways[w].events)
                    assert_int_equal(door_record(s.d).r.completion_tokens, 2);
            }
        assert_int_equal(door_count(s.d, DOOR_FAILED), 0);
        assert_int_equal(door_counters(s.d).connections, 0);
        buf_release(&answer);
        scene_close(&s);
    }
}

/* The backend breaks off, and the daemon ends, while an answer is read for nobody. */
static void test_drain_ends(void **state)
{
    (void)state;
    for (size_t w = 0; w < WAYS; w++)
        for (int abort = 0; abort < 2; abort++) {
            struct door_setup setup = door_default();
            setup.drain = true;
            struct scene s = scene_open_with(&ways[w], setup);
            size_t head_n = 0, done = 0;
            struct buf answer = good_answer(&ways[w], &head_n, &done);
            ask(&s);
            backend_reads(&s);
            client_send_n(s.back, answer.data, head_n);
            close(s.fd);
            s.fd = -1;
            while (door_counters(s.d).client_aborts < 1)
                continue;
            if (!abort) {
                part(&s);
                door_wait(s.d, DOOR_RECORDS, 1);
                door_wait(s.d, DOOR_BROKEN, 1);
            }
            buf_release(&answer);
            door_stop(s.d, abort); /* checks that the lease came back */
            part(&s);
        }
}

/* The connection that served before is closed as the next request arrives: it is sent again, once, on a new
 * one. */
static void test_keep_alive_race(void **state)
{
    (void)state;
    for (size_t w = 0; w < WAYS; w++)
        for (int reset = 0; reset < 2; reset++) {
            struct scene s = scene_open(&ways[w]);
            size_t head_n = 0, done = 0;
            struct buf answer = good_answer(&ways[w], &head_n, &done);
            for (int turn = 0; turn < 2; turn++) {
                ask(&s);
                backend_reads(&s);
                if (turn) {
                    if (reset)
                        client_reset(s.back);
                    else
                        close(s.back);
                    s.back = -1;
                    backend_reads(&s);
                }
                client_send_n(s.back, answer.data, answer.n);
                struct answer a = client_answer(s.fd, false);
                assert_int_equal(a.status, 200);
                assert_true(holds(&a, ways[w].end));
                answer_release(&a);
                expect_record(&s, "keep-alive", "ok", false);
            }
            assert_int_equal(door_counters(s.d).retried, 1);
            buf_release(&answer);
            scene_close(&s);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stops_at_every_byte), cmocka_unit_test(test_faults),
        cmocka_unit_test(test_a_head_without_end),  cmocka_unit_test(test_stalls),
        cmocka_unit_test(test_keep_alive_race),     cmocka_unit_test(test_limits),
        cmocka_unit_test(test_within_limits),       cmocka_unit_test(test_drain),
        cmocka_unit_test(test_drain_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
