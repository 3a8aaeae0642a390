/* Anthropic's messages API, translated to and from OpenAI's. */
#include "drive.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#define MESSAGES      "/v1/messages"
#define COUNT         "/v1/messages/count_tokens"
#define HI            "\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define HI_ASK        "\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define SAYS(content) "{\"max_tokens\":5,\"messages\":[{\"role\":\"assistant\",\"content\":" content "}]}"
#define ASKS(content) "{\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":" content "}]}"

/* ---- requests ---- */

static const struct {
    const char *body, *want;
} asks[] = {
    {"{\"model\":\"x\",\"stream\":true,\"stream_options\":{}," HI "}", "{" HI_ASK "}"},
    {"{" HI ",\"temperature\":0.5,\"top_p\":1,\"top_k\":3,\"seed\":7,\"service_tier\":\"auto\",\"stop_"
     "sequences\":null}",
     "{" HI_ASK ",\"temperature\":0.5,\"top_p\":1,\"top_k\":3,\"seed\":7}"},
    {"{" HI ",\"stop_sequences\":[\"a\",\"b\"],\"metadata\":{\"user_id\":\"u\"}}",
     "{" HI_ASK ",\"stop\":[\"a\",\"b\"],\"user\":\"u\"}"},
    {"{" HI ",\"system\":\"be brief\"}", "{\"max_tokens\":5,\"messages\":[{\"role\":\"system\",\"content\":"
                                         "\"be brief\"},{\"role\":\"user\",\"content\":"
                                         "\"hi\"}]}"},
    {"{" HI ",\"system\":[{\"type\":\"text\",\"text\":\"a\",\"cache_control\":{}},{\"type\":\"text\","
     "\"text\":\"b\"}]}",
     "{\"max_tokens\":5,\"messages\":[{\"role\":\"system\",\"content\":\"a\\nb\"},{\"role\":\"user\","
     "\"content\":\"hi\"}"
     "]}"},
    {ASKS(
         "[{\"type\":\"text\",\"text\":\"see\"},{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_"
         "type\":"
         "\"image/png\",\"data\":\"QUJD\"}},{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":\"http:/"
         "/x/y\"}},"
         "{\"type\":\"document\",\"source\":{\"type\":\"text\",\"data\":\"doc\"}}]"),
     ASKS("[{\"type\":\"text\",\"text\":\"see\"},{\"type\":\"image_url\",\"image_url\":{\"url\":"
          "\"data:image/png;base64,QUJD\"}},{\"type\":\"image_url\",\"image_url\":{\"url\":\"http://x/y\"}},"
          "{\"type\":\"text\",\"text\":\"doc\"}]")},
    {SAYS("[{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":\"s\"},{\"type\":\"redacted_thinking\","
          "\"data\":"
          "\"x\"},{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"},{\"type\":\"tool_"
          "use\",\"id\":"
          "\"t1\",\"name\":\"f\",\"input\":{\"c\":[1,\"é\"]}},{\"type\":\"tool_use\",\"id\":\"t2\",\"name\":"
          "\"g\"}]"),
     "{\"max_tokens\":5,\"messages\":[{\"role\":\"assistant\",\"content\":\"a\\nb\",\"reasoning_content\":"
     "\"hm\","
     "\"tool_calls\":[{\"id\":\"t1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":"
     "\"{\\\"c\\\":[1,\\\"é\\\"]}\"}},{\"id\":\"t2\",\"type\":\"function\",\"function\":{\"name\":\"g\","
     "\"arguments\":"
     "\"{}\"}}]}]}"},
    {ASKS("[{\"type\":\"text\",\"text\":\"so?\"},{\"type\":\"tool_result\",\"tool_use_id\":\"t1\","
          "\"content\":\"rain\"},"
          "{\"type\":\"tool_result\",\"tool_use_id\":\"t2\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{"
          "\"type\":"
          "\"text\",\"text\":\"b\"},{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":\"u\"}}]},"
          "{\"type\":\"tool_result\",\"tool_use_id\":\"t3\"}]"),
     "{\"max_tokens\":5,\"messages\":[{\"role\":\"tool\",\"tool_call_id\":\"t1\",\"content\":\"rain\"},{"
     "\"role\":\"tool\","
     "\"tool_call_id\":\"t2\",\"content\":\"a\\nb\"},{\"role\":\"tool\",\"tool_call_id\":\"t3\",\"content\":"
     "\"\"},"
     "{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"u\"}},{\"type\":"
     "\"text\",\"text\":"
     "\"so?\"}]}]}"},
    {"{" HI ",\"tools\":[{\"name\":\"f\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"},"
     "\"cache_control\":{}},"
     "{\"type\":\"custom\",\"name\":\"g\",\"input_schema\":{}}],\"tool_choice\":{\"type\":\"any\","
     "\"disable_parallel_tool_use\":true}}",
     "{" HI_ASK
     ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":"
     "{\"type\":\"object\"}}},{\"type\":\"function\",\"function\":{\"name\":\"g\",\"parameters\":{}}}],"
     "\"tool_choice\":"
     "\"required\",\"parallel_tool_calls\":false}"},
    {"{" HI
     ",\"tools\":[{\"name\":\"f\",\"input_schema\":{}},{\"name\":\"g\",\"input_schema\":{}}],\"tool_choice\":"
     "{\"type\":\"tool\",\"name\":\"g\"}}",
     "{" HI_ASK
     ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"g\",\"parameters\":{}}}],\"tool_choice\":"
     "\"required\"}"},
    {"{" HI ",\"tools\":[],\"tool_choice\":{\"type\":\"none\"}}", "{" HI_ASK ",\"tool_choice\":\"none\"}"},
    {"{" HI ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024}}",
     "{" HI_ASK ",\"chat_template_kwargs\":{\"enable_thinking\":true},\"thinking_budget_tokens\":1024}"},
    {"{" HI ",\"thinking\":{\"type\":\"disabled\"}}",
     "{" HI_ASK ",\"chat_template_kwargs\":{\"enable_thinking\":false}}"},
    {"{" HI ",\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":{\"type\":\"object\"}}}}",
     "{" HI_ASK
     ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"answer\",\"strict\":true,"
     "\"schema\":{\"type\":\"object\"}}}}"},
};

static void test_asks(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof asks / sizeof *asks; i++)
        drive_expect_ask(MESSAGES, asks[i].body, DIALECT_BIT(OPENAI) | DIALECT_BIT(LLAMACPP), asks[i].want);
    /* what only llama.cpp's server knows is kept from others */
    drive_expect_ask(MESSAGES, "{" HI ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":9}}",
                     DIALECT_BIT(OPENAI), "{" HI_ASK ",\"chat_template_kwargs\":{\"enable_thinking\":true}}");
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *body, *text;
    } cases[] = {
        {"{\"messages\":[]}", "max_tokens: this member is required"},
        {"{\"max_tokens\":5}", "messages: this member is required"},
        {"{\"max_tokens\":0,\"messages\":[]}", "max_tokens: a whole number"},
        {"{\"max_tokens\":\"5\",\"messages\":[]}", "max_tokens: a whole number"},
        {"{\"max_tokens\":5,\"messages\":[]}", "messages: a list"},
        {"{\"max_tokens\":5,\"messages\":{}}", "messages: a list"},
        {"{\"max_tokens\":5,\"messages\":[1]}", "messages.0: its role"},
        {"{\"max_tokens\":5,\"messages\":[{\"role\":\"tool\",\"content\":\"\"}]}", "messages.0: its role"},
        {"{\"max_tokens\":5,\"messages\":[{\"role\":\"user\"}]}", "messages.0: a text or a list"},
        {SAYS("7"), "messages.0: a text or a list"},
        {ASKS("[{\"type\":\"video\"}]"), "messages.0.content.0: blocks of type \"video\""},
        {ASKS("[{}]"), "messages.0.content.0: a block with a type"},
        {ASKS("[\"x\"]"), "messages.0.content.0: a block with a type"},
        {ASKS("[{\"type\":\"image\"}]"), "the source of an image"},
        {ASKS("[{\"type\":\"document\",\"source\":{\"type\":\"base64\"}}]"), "blocks of type \"document\""},
        {ASKS("[{\"type\":\"tool_result\",\"content\":[{\"type\":\"search_result\"}]}]"),
         "\"search_result\""},
        {SAYS("[{\"type\":\"image\"}]"), "messages.0.content.0: blocks of type \"image\""},
        {"{" HI ",\"system\":[{\"type\":\"image\"}]}", "system: blocks of type \"image\""},
        {"{" HI ",\"stream\":1}", "stream: true or false"},
        {"{" HI ",\"temperature\":\"hot\"}", "temperature: a number"},
        {"{" HI ",\"stop_sequences\":\"a\"}", "stop_sequences: a list"},
        {"{" HI ",\"stop_sequences\":[1]}", "stop_sequences: a list"},
        {"{" HI ",\"tools\":{}}", "tools: a list"},
        {"{" HI ",\"tools\":[{\"name\":\"f\"}]}", "tools.0: a tool has a name"},
        {"{" HI ",\"tools\":[{\"type\":\"web_search_20250305\",\"name\":\"s\"}]}", "web_search_20250305"},
        {"{" HI ",\"tools\":[{\"name\":\"f\",\"input_schema\":{}}],\"tool_choice\":{\"type\":\"tool\","
         "\"name\":\"g\"}}",
         "tool_choice names none"},
        {"{" HI ",\"tool_choice\":\"auto\"}", "tool_choice: its type"},
        {"{" HI ",\"thinking\":{\"type\":\"maybe\"}}", "thinking: its type"},
        {"{" HI ",\"output_config\":{\"format\":{\"type\":\"xml\"}}}", "output_config: its format"},
        {"{" HI ",\"mcp_servers\":[{}]}", "mcp_servers: tools of other servers"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        drive_expect_refusal(MESSAGES, cases[i].body, RC_INVALID, cases[i].text);
}

/* ---- answers ---- */

#define TAIL      ",\"created\":7,\"id\":\"chatcmpl-9\",\"model\":\"file.gguf\"}\n\n"
#define DELTA(d)  "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{" d "}}]" TAIL
#define FINISH(f) "data: {\"choices\":[{\"finish_reason\":\"" f "\",\"index\":0,\"delta\":{}}]" TAIL
#define PROGRESS                                                                                             \
    "data: "                                                                                                 \
    "{\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null}}" \
    "],"                                                                                                     \
    "\"prompt_progress\":{\"total\":34,\"cache\":4,\"processed\":34,\"time_ms\":9}" TAIL
#define USAGE                                                                                                \
    "data: "                                                                                                 \
    "{\"choices\":[],\"usage\":{\"completion_tokens\":6,\"prompt_tokens\":34,\"prompt_tokens_details\":"     \
    "{\"cached_tokens\":4}},\"timings\":{\"cache_n\":4,\"prompt_ms\":1.5}" TAIL
#define DONE_MARK         "data: [DONE]\n\n"
#define EVENT(name, rest) "event: " name "\ndata: {\"type\":\"" name "\"" rest "}\n\n"
#define HEAD              "\"id\":\"msg_9\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":["
#define USED(n)                                                                                              \
    "\"usage\":{\"input_tokens\":30,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":4,"        \
    "\"output_tokens\":" #n "}"
#define STARTED                                                                                              \
    EVENT("message_start",                                                                                   \
          ",\"message\":{" HEAD "],\"stop_reason\":null,\"stop_sequence\":null," USED(0) "}")                \
    EVENT("ping", "")
#define BLOCK(i, what) EVENT("content_block_start", ",\"index\":" #i ",\"content_block\":{" what "}")
#define PIECE(i, kind, what)                                                                                 \
    EVENT("content_block_delta", ",\"index\":" #i ",\"delta\":{\"type\":\"" kind "\"," what "}")
#define STOPPED(i)     EVENT("content_block_stop", ",\"index\":" #i)
#define ENDED(stop)    EVENT("message_delta", ",\"delta\":{" stop "}," USED(6)) EVENT("message_stop", "")
#define STREAMED       "{\"stream\":true," HI "}"
#define PLAIN          "{" HI "}"
#define TEXT_BLOCK     "\"type\":\"text\",\"text\":\"\""
#define THINKING_BLOCK "\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\""
#define CALL(i, rest)  DELTA("\"tool_calls\":[{\"index\":" #i "," rest "}]")

static const struct {
    const char *stream, *events, *message;
} answers[] = {
    {PROGRESS PROGRESS DELTA("\"role\":\"assistant\",\"content\":null") DELTA("\"content\":\"h\\u00e9\"")
         DELTA("\"content\":\"llo\\n\"") FINISH("stop") USAGE DONE_MARK,
     STARTED BLOCK(0, TEXT_BLOCK) PIECE(0, "text_delta", "\"text\":\"hé\"")
         PIECE(0, "text_delta", "\"text\":\"llo\\n\"") STOPPED(0)
             ENDED("\"stop_reason\":\"end_turn\",\"stop_sequence\":null"),
     "{" HEAD
     "{\"type\":\"text\",\"text\":\"héllo\\n\"}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null," USED(
         6) "}"},
    /* thoughts, then text */
    {PROGRESS DELTA("\"reasoning_content\":\"hm\"") DELTA("\"content\":\"yes\"") FINISH("length")
         USAGE DONE_MARK,
     STARTED BLOCK(0, THINKING_BLOCK) PIECE(0, "thinking_delta", "\"thinking\":\"hm\"") STOPPED(0)
         BLOCK(1, TEXT_BLOCK) PIECE(1, "text_delta", "\"text\":\"yes\"") STOPPED(1)
             ENDED("\"stop_reason\":\"max_tokens\",\"stop_sequence\":null"),
     "{" HEAD
     "{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":\"\"},{\"type\":\"text\",\"text\":\"yes\"}],"
     "\"stop_reason\":\"max_tokens\",\"stop_sequence\":null," USED(6) "}"},
    /* a name that grows, arguments in pieces, a call without any, one without an id */
    {PROGRESS CALL(0, "\"id\":\"t0\",\"type\":\"function\",\"function\":{\"name\":\"get\"}")
         CALL(0, "\"id\":\"t0\",\"function\":{\"name\":\"get_it\",\"arguments\":\"{\\\"a\\\"\"}")
             CALL(0, "\"function\":{\"arguments\":\":1}\"}")
                 CALL(1, "\"id\":\"t1\",\"function\":{\"name\":\"bare\"}")
                     CALL(2, "\"function\":{\"name\":\"last\",\"arguments\":\"{}\"}") FINISH("tool_calls")
                         USAGE DONE_MARK,
     STARTED BLOCK(0, "\"type\":\"tool_use\",\"id\":\"t0\",\"name\":\"get_it\",\"input\":{}")
         PIECE(0, "input_json_delta", "\"partial_json\":\"{\\\"a\\\"\"")
             PIECE(0, "input_json_delta", "\"partial_json\":\":1}\"") STOPPED(0)
                 BLOCK(1, "\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"bare\",\"input\":{}") STOPPED(1)
                     BLOCK(2, "\"type\":\"tool_use\",\"id\":\"toolu_9_2\",\"name\":\"last\",\"input\":{}")
                         PIECE(2, "input_json_delta", "\"partial_json\":\"{}\"") STOPPED(2)
                             ENDED("\"stop_reason\":\"tool_use\",\"stop_sequence\":null"),
     "{" HEAD "{\"type\":\"tool_use\",\"id\":\"t0\",\"name\":\"get_it\",\"input\":{\"a\":1}},{\"type\":"
     "\"tool_use\",\"id\":"
     "\"t1\",\"name\":\"bare\",\"input\":{}},{\"type\":\"tool_use\",\"id\":\"toolu_9_2\",\"name\":\"last\","
     "\"input\":{}}],"
     "\"stop_reason\":\"tool_use\",\"stop_sequence\":null," USED(6) "}"},
    /* nothing said; arguments that the limit cut */
    {PROGRESS FINISH("stop") USAGE DONE_MARK,
     STARTED ENDED("\"stop_reason\":\"end_turn\",\"stop_sequence\":null"),
     "{" HEAD "],\"stop_reason\":\"end_turn\",\"stop_sequence\":null," USED(6) "}"},
    {PROGRESS CALL(0, "\"id\":\"t\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\"}") FINISH("length")
         USAGE DONE_MARK,
     STARTED BLOCK(0, "\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":{}")
         PIECE(0, "input_json_delta", "\"partial_json\":\"{\\\"a\"") STOPPED(0)
             ENDED("\"stop_reason\":\"max_tokens\",\"stop_sequence\":null"),
     "{" HEAD "{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":{\"partial_json\":\"{\\\"a\"}}],"
     "\"stop_reason\":"
     "\"max_tokens\",\"stop_sequence\":null," USED(6) "}"},
};

static void test_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        drive_expect(MESSAGES, STREAMED, answers[i].stream, ANSWER_DONE, answers[i].events);
        drive_expect(MESSAGES, PLAIN, answers[i].stream, ANSWER_DONE, answers[i].message);
    }
}

/* vLLM tells which stop sequence it was. */
static void test_stop_sequence(void **state)
{
    (void)state;
    static const char stream[] =
        PROGRESS DELTA("\"content\":\"a\"") "data: "
                                            "{\"choices\":[{\"finish_reason\":\"stop\",\"stop_reason\":\"b\","
                                            "\"index\":0,\"delta\":{}}]" TAIL USAGE DONE_MARK;
    drive_expect(
        MESSAGES, "{\"stop_sequences\":[\"x\",\"b\"]," HI "}", stream, ANSWER_DONE,
        "{" HEAD
        "{\"type\":\"text\",\"text\":\"a\"}],\"stop_reason\":\"stop_sequence\",\"stop_sequence\":\"b\"," USED(
            6) "}");
    drive_expect(
        MESSAGES, PLAIN, stream, ANSWER_DONE,
        "{" HEAD
        "{\"type\":\"text\",\"text\":\"a\"}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null," USED(
            6) "}");
}

/* No end is made up, and nothing that cannot be part of a message is taken. */
static void test_not_whole(void **state)
{
    (void)state;
    static const char begun[] = STARTED BLOCK(0, TEXT_BLOCK) PIECE(0, "text_delta", "\"text\":\"a\"");
    static const char *const rest[] = {
        "",
        DONE_MARK,
        USAGE DONE_MARK,
        "data: {\"choices\":\n\n",
        FINISH("stop") USAGE,
        "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"b\"}}]}\n\n"};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) {
        struct buf b = {0};
        assert_true(buf_printf(&b, "%s%s%s", PROGRESS, DELTA("\"content\":\"a\""), rest[i]));
        drive_expect(MESSAGES, STREAMED, b.data, ANSWER_BROKEN, begun);
        buf_clear(&b);
        assert_true(buf_printf(&b, "%s%s%s", PROGRESS, DELTA("\"content\":\"a\""), i == 5 ? "" : rest[i]));
        drive_expect(MESSAGES, PLAIN, b.data, ANSWER_BROKEN, "");
        buf_release(&b);
    }
    /* a piece of a call that was left for the next */
    drive_expect(MESSAGES, STREAMED,
                 PROGRESS CALL(0, "\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}")
                     CALL(1, "\"id\":\"b\",\"function\":{\"name\":\"g\",\"arguments\":\"{\"}")
                         CALL(0, "\"function\":{\"arguments\":\"}\"}"),
                 ANSWER_BROKEN,
                 STARTED BLOCK(0, "\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\",\"input\":{}")
                     PIECE(0, "input_json_delta", "\"partial_json\":\"{\"") STOPPED(0)
                         BLOCK(1, "\"type\":\"tool_use\",\"id\":\"b\",\"name\":\"g\",\"input\":{}")
                             PIECE(1, "input_json_delta", "\"partial_json\":\"{\""));
}

static void test_errors(void **state)
{
    (void)state;
    const struct dialect_call *call = drive_call(MESSAGES);
    struct dialect_ask ask;
    struct err err;
    struct buf out = {0};
    struct dialect_error e;
    assert_int_equal(drive_ask(call, STREAMED, 1, &ask, &err), RC_OK);
    struct answer *a = answer_new(call, &ask, 1 << 20, 0, 0);
    assert_true(answer_head(a, 200, STR("text/event-stream")));
    assert_int_equal(
        answer_feed(a, STR("data: {\"error\":{\"code\":503,\"message\":\"no memory\"}}\n\n"), 0, &out),
        ANSWER_ERROR);
    answer_error(a, &e);
    assert_int_equal(e.status, 503);
    call->broken(ask.state, &e, &out);
    assert_string_equal(out.data,
                        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\","
                        "\"message\":\"no memory\"}}\n\n");
    answer_free(a);
    /* errors before an answer: OpenAI's form, FastAPI's, vLLM's older one, a page, nothing */
    static const struct {
        const char *body, *message;
    } bodies[] = {{"{\"error\":{\"message\":\"too long\"}}", "too long"},
                  {"{\"error\":\"short\"}", "short"},
                  {"{\"object\":\"error\",\"message\":\"no such\"}", "no such"},
                  {"<p>\xff</p>\n", "<p> </p> "},
                  {"{\"detail\":1}", "the backend reported an error and gave no reason"},
                  {"", "the backend reported an error and gave no reason"}};
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        a = answer_new(call, &ask, 1 << 20, 0, 0);
        buf_clear(&out);
        assert_true(answer_head(a, 400, STR("application/json")));
        assert_int_equal(answer_feed(a, str_from(bodies[i].body), 0, &out), ANSWER_MORE);
        assert_int_equal(answer_end(a, 0, &out), ANSWER_ERROR);
        answer_error(a, &e);
        assert_int_equal(e.status, 400);
        assert_true(str_eq_c(e.message, bodies[i].message));
        assert_int_equal(out.n, 0);
        answer_free(a);
    }
    /* a backend that does not stream although it was asked to */
    a = answer_new(call, &ask, 1 << 20, 0, 0);
    assert_true(answer_head(a, 200, STR("application/json")));
    assert_int_equal(answer_end(a, 0, &out), ANSWER_BROKEN);
    assert_non_null(strstr(answer_why(a), "something else than a stream"));
    answer_free(a);
    dialect_ask_release(call, &ask);
    buf_release(&out);
}

static void test_counting(void **state)
{
    (void)state;
    const struct dialect_call *call = drive_call(COUNT);
    struct dialect_ask ask;
    struct err err;
    struct buf out = {0};
    drive_expect_refusal(COUNT, PLAIN, RC_UNSUPPORTED, "cannot count tokens");
    assert_int_equal(drive_ask(call, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}",
                               DIALECT_BIT(OPENAI) | DIALECT_BIT(LLAMACPP), &ask, &err),
                     RC_OK);
    assert_string_equal(ask.path, "/apply-template");
    assert_int_equal(ask.reply, DIALECT_DOCUMENT);
    static const struct {
        const char *answer;
        enum answer_state state;
    } steps[] = {{"{\"prompt\":\"<a>\\nhi\"}", ANSWER_AGAIN}, {"{\"tokens\":[1,2,3]}", ANSWER_DONE}};
    for (size_t i = 0; i < 2; i++) {
        struct answer *a = answer_new(call, &ask, 1 << 20, 0, 0);
        assert_true(answer_head(a, 200, STR("application/json")));
        assert_int_equal(answer_feed(a, str_from(steps[i].answer), 0, &out), ANSWER_MORE);
        assert_int_equal(answer_end(a, 0, &out), steps[i].state);
        answer_free(a);
        assert_string_equal(ask.path, "/tokenize");
        assert_string_equal(ask.body.data,
                            "{\"add_special\":true,\"parse_special\":true,\"content\":\"<a>\\nhi\"}");
    }
    assert_string_equal(out.data, "{\"input_tokens\":3}");
    static const char *const bad[] = {"", "[]", "{", "{}", "{\"prompt\":1}", "{\"tokens\":{}}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct answer *a = answer_new(call, &ask, 1 << 20, 0, 0);
        assert_true(answer_head(a, 200, STR("application/json")));
        (void)answer_feed(a, str_from(bad[i]), 0, &out);
        assert_int_equal(answer_end(a, 0, &out), ANSWER_BROKEN);
        answer_free(a);
    }
    dialect_ask_release(call, &ask);
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_asks),     cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_answers),  cmocka_unit_test(test_not_whole),
        cmocka_unit_test(test_errors),   cmocka_unit_test(test_stop_sequence),
        cmocka_unit_test(test_counting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
