/* Answers made of events: what every dialect shares, and OpenAI's plain form. */
#include "base/mem.h"
#include "dialect/answer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

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

enum form { CHAT_FORM, TEXT_FORM };

static const struct dialect_call *call_of(enum form form)
{
    return &dialect_at(DIALECT_OPENAI)->calls[form];
}

/* Fed in steps; the state, and the answer if there is one. */
static enum answer_state make(enum form form, const char *stream, size_t step, size_t max, struct buf *out)
{
    struct dialect_ask ask = {.reply = DIALECT_EVENTS};
    struct answer *a = answer_new(call_of(form), &ask, max, 0, 0);
    enum answer_state state = ANSWER_MORE;
    buf_clear(out);
    assert_true(answer_head(a, 200, STR("text/event-stream")));
    for (size_t at = 0, n = strlen(stream); at < n; at += step)
        state = answer_feed(a, (struct str){stream + at, n - at < step ? n - at : step}, 0, out);
    assert_true(answer_bytes(a) > 0);
    assert_int_equal(out->n, 0);
    enum answer_state end = answer_end(a, 0, out);
    assert_true(state == ANSWER_MORE || end == state);
    if (end == ANSWER_ERROR) {
        struct dialect_error e;
        answer_error(a, &e);
        dialect_at(DIALECT_OPENAI)->put_error(&e, out);
        assert_true(buf_printf(out, "%d ", e.status));
    } else {
        assert_true((out->n > 0) == (end == ANSWER_DONE));
    }
    answer_free(a);
    return end;
}

static void expect(enum form form, const char *stream, const char *want)
{
    struct buf b = {0};
    static const size_t steps[] = {1, 7, 100000};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        assert_int_equal(make(form, stream, steps[i], 100000, &b), *want ? ANSWER_DONE : ANSWER_BROKEN);
        assert_string_equal(b.n ? b.data : "", want);
        yyjson_doc *doc = yyjson_read(b.data, b.n, 0);
        assert_true(!b.n || doc);
        yyjson_doc_free(doc);
    }
    buf_release(&b);
}

static void test_chat(void **state)
{
    (void)state;
    expect(CHAT_FORM, SMALL, SMALL_PLAIN);
    /* what was thought, and a refusal */
    expect(CHAT_FORM,
           START CHAT(0, "\"reasoning_content\":\"a\"") CHAT(0, "\"reasoning_content\":\"b\"")
               CHAT(0, "\"refusal\":\"no\"") FINISH(0, "length") USAGE(2) DONE_MARK,
           "{\"choices\":[{\"finish_reason\":\"length\",\"index\":0,\"message\":{\"role\":\"assistant\","
           "\"content\":\"\",\"reasoning_content\":\"ab\",\"refusal\":\"no\"}}" REST);
    /* the choices interleaved, the second one done first: usage is the first one's */
    expect(CHAT_FORM,
           CHAT(1, "\"content\":\"B\"") START CHAT(0, "\"content\":\"A\"") FINISH(1, "stop") USAGE(9)
               FINISH(0, "length") USAGE(2) DONE_MARK,
           "{\"choices\":[{\"finish_reason\":\"length\",\"index\":0,\"message\":{\"role\":\"assistant\","
           "\"content\":\"A\"}},{\"finish_reason\":\"stop\",\"index\":1,\"message\":{\"role\":\"assistant\","
           "\"content\":\"B\"}}" REST);
}

static void test_tools(void **state)
{
    (void)state;
    expect(
        CHAT_FORM,
        START CHAT(0, "\"tool_calls\":[{\"index\":0,\"id\":\"t0\",\"type\":\"function\",\"function\":{"
                      "\"name\":\"get\"}}]")
            CHAT(0, "\"tool_calls\":[{\"index\":0,\"id\":\"t0\",\"type\":\"function\",\"function\":{\"name\":"
                    "\"get_it\",\"arguments\":\"{\\\"a\\\"\"}}]")
                CHAT(0, "\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\":1}\"}}]") CHAT(
                    0,
                    "\"tool_calls\":[{\"index\":1,\"function\":{\"name\":\"other\",\"arguments\":\"{}\"}}]")
                    FINISH(0, "tool_calls") USAGE(2) DONE_MARK,
        "{\"choices\":[{\"finish_reason\":\"tool_calls\",\"index\":0,\"message\":{\"role\":\"assistant\","
        "\"content\":\"\",\"tool_calls\":[{\"type\":\"function\",\"function\":{\"name\":\"get_it\","
        "\"arguments\":\"{\\\"a\\\":1}\"},\"id\":\"t0\"},{\"type\":\"function\",\"function\":"
        "{\"name\":\"other\",\"arguments\":\"{}\"}}]}}" REST);
}

static void test_text(void **state)
{
    (void)state;
    expect(TEXT_FORM,
           "data: {\"choices\":[{\"text\":\"a\",\"index\":0,\"logprobs\":null,\"finish_reason\":null}]" TAIL
           "data: "
           "{\"choices\":[{\"text\":\"b\",\"index\":0,\"finish_reason\":\"stop\"}],\"usage\":{\"n\":1}" TAIL
               DONE_MARK,
           "{\"choices\":[{\"text\":\"ab\",\"index\":0,\"logprobs\":null,\"finish_reason\":\"stop\"}],"
           "\"created\":7,\"model\":\"m\",\"system_fingerprint\":\"b1\",\"object\":\"text_completion\","
           "\"usage\":{\"n\":1},\"id\":\"c1\"}");
}

/* Done, but not whole: no answer is made of it. */
static void test_not_whole(void **state)
{
    (void)state;
    expect(CHAT_FORM, DONE_MARK, "");
    expect(CHAT_FORM, START DONE_MARK, "");
    expect(CHAT_FORM, START USAGE(2) DONE_MARK, "");
    expect(CHAT_FORM, FINISH(1, "stop") USAGE(2) DONE_MARK, ""); /* the first choice is missing */
    expect(CHAT_FORM, START FINISH(0, "") DONE_MARK, "");
    struct buf b = {0};
    assert_int_equal(make(CHAT_FORM, START FINISH(0, "stop") USAGE(2), 9, 1000, &b), ANSWER_BROKEN);
    assert_int_equal(b.n, 0);
    buf_release(&b);
}

static void test_broken(void **state)
{
    (void)state;
    static const char *const streams[] = {
        "data: {\n\n",
        "data: []\n\n",
        "data: {}\n\n",
        "data: {\"choices\":{}}\n\n",
        "data: {\"choices\":[1]}\n\n",
        "data: {\"choices\":[{\"index\":-1}]}\n\n",
        "data: {\"choices\":[{\"index\":256}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":1024}]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[1]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}\n\n",
    };
    struct buf b = {0};
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
        if (make(CHAT_FORM, streams[i], 5, 1000, &b) != ANSWER_BROKEN)
            fail_msg("%s was taken", streams[i]);
    assert_int_equal(make(CHAT_FORM, "data: {\"error\":{\"code\":503,\"m\":1}}\n\n", 4, 1000, &b),
                     ANSWER_ERROR);
    assert_string_equal(b.data, "{\"error\":{\"code\":503,\"m\":1}}503 ");
    assert_int_equal(make(CHAT_FORM, START "data: {\"error\":\"x\"}\n\n", 4, 1000, &b), ANSWER_ERROR);
    assert_string_equal(b.data, "{\"error\":\"x\"}500 ");
    assert_int_equal(make(CHAT_FORM, "data: {\"error\":{\"code\":200}}\n\n", 4, 1000, &b), ANSWER_ERROR);
    assert_string_equal(b.data, "{\"error\":{\"code\":200}}500 ");
    assert_int_equal(make(CHAT_FORM, SMALL, 4, 20, &b), ANSWER_LARGE);
    buf_release(&b);
    answer_free(NULL);
}

/* Heads: only a stream of events is made into an answer; calls without a translator pass anything else on. */
static void test_heads(void **state)
{
    (void)state;
    struct dialect_ask ask = {.reply = DIALECT_EVENTS};
    struct answer *a = answer_new(call_of(CHAT_FORM), &ask, 1000, 0, 0);
    assert_false(answer_head(a, 400, STR("application/json")));
    assert_false(answer_head(a, 200, STR("application/json")));
    assert_false(answer_head(a, 200, STR("")));
    assert_true(answer_head(a, 200, STR("Text/Event-Stream; charset=utf-8")));
    answer_free(a);
}

static void test_dialects(void **state)
{
    (void)state;
    for (unsigned id = 0; id < DIALECTS; id++) {
        const struct dialect *d = dialect_at((enum dialect_id)id);
        assert_int_equal(dialect_find(str_from(d->name)), id);
        assert_true(d->n_calls > 0);
        for (size_t i = 0; i < d->n_calls; i++) {
            const struct dialect_call *c = &d->calls[i];
            assert_true(c->path[0] == '/');
            assert_true(!c->delta == !c->stream_type && !c->delta == !c->end);
            assert_true(!c->progress == !c->broken && (!c->delta || c->broken));
            assert_true(!c->plain || c->plain_type);
            assert_true(!c->early || c->ask);
        }
        struct buf b = {0};
        const struct dialect_error e = {.status = 404,
                                        .code = RC_NOT_FOUND,
                                        .message = STR("no \"x\""),
                                        .hint = STR("h"),
                                        .request_id = STR("r")};
        d->put_error(&e, &b);
        yyjson_doc *doc = yyjson_read(b.data, b.n, 0);
        assert_non_null(doc);
        assert_non_null(strstr(b.data, "no \\\"x\\\""));
        yyjson_doc_free(doc);
        buf_release(&b);
    }
    assert_int_equal(dialect_find(STR("klingon")), DIALECTS);
}

/* Tokens that every event tells anew take the room of one telling. */
static void test_what_is_told_again_takes_no_more_room(void **state)
{
    (void)state;
    static const char timings[] = "{\"prompt_ms\":1.25,\"predicted_n\":12}";
    struct completion c;
    completion_init(&c, true, 256);
    yyjson_doc *doc = yyjson_read(timings, sizeof timings - 1, 0);
    for (int i = 0; i < 100; i++)
        completion_take_usage(&c, NULL, yyjson_doc_get_root(doc));
    assert_false(c.large);
    assert_int_equal(c.n, sizeof timings - 1);
    yyjson_doc_free(doc);
    completion_release(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat),      cmocka_unit_test(test_tools),
        cmocka_unit_test(test_text),      cmocka_unit_test(test_broken),
        cmocka_unit_test(test_not_whole), cmocka_unit_test(test_heads),
        cmocka_unit_test(test_dialects),  cmocka_unit_test(test_what_is_told_again_takes_no_more_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
