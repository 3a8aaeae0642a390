/* OpenAI's chats, and those of other dialects, at a backend that speaks Anthropic's API only. */
#include "drive.h"

#include "dialect/backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#define CHAT     "/v1/chat/completions"
#define SPEAKS   DIALECT_BIT(ANTHROPIC)
#define SAYS(m)  "{\"messages\":[" m "]}"
#define USER     "{\"role\":\"user\",\"content\":\"hi\"}"
#define BLOCK    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]}"
#define GETS(m)  "{\"messages\":[" m "],\"max_tokens\":4096}"
#define AND(m)   "{\"messages\":[" USER "]," m "}"
#define GIVES(m) "{\"messages\":[" BLOCK "]," m "}"

static const struct dialect_call *call_at(const char *path)
{
    const struct dialect_call *call = drive_call(path);
    return call->ask ? call : call->remade;
}

static enum rc ask_backend(const char *path, const char *body, struct dialect_ask *ask, struct err *err)
{
    enum rc rc = drive_ask(call_at(path), body, SPEAKS, ask, err);
    return rc == RC_OK ? dialect_ask_as(ask, SPEAKS, err) : rc;
}

/* ---- requests ---- */

static const struct {
    const char *body, *want;
} asks[] = {
    {SAYS(USER), GETS(BLOCK)},
    {"{\"model\":\"x\",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"messages\":[" USER "]}",
     GETS(BLOCK)},
    {SAYS("{\"role\":\"system\",\"content\":\"be brief\"}," USER ","
          "{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":\"really\"}]}"),
     "{\"messages\":[" BLOCK "],\"max_tokens\":4096,\"system\":[{\"type\":\"text\",\"text\":\"be brief\"},"
     "{\"type\":\"text\",\"text\":\"really\"}]}"},
    {SAYS("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"\"},{\"type\":\"image_url\","
          "\"image_url\":{\"url\":\"data:image/png;base64,QUJD\"}},{\"type\":\"image_url\",\"image_url\":"
          "{\"url\":\"https://x/y\"}},{\"type\":\"file\",\"file\":{\"file_data\":"
          "\"data:application/pdf;base64,QQ==\"}}]}"),
     GETS("{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"source\":{\"type\":\"base64\","
          "\"media_type\":\"image/png\",\"data\":\"QUJD\"}},{\"type\":\"image\",\"source\":{\"type\":\"url\","
          "\"url\":\"https://x/y\"}},{\"type\":\"document\",\"source\":{\"type\":\"base64\","
          "\"media_type\":\"application/pdf\",\"data\":\"QQ==\"}}]}")},
    {SAYS(
         USER
         ",{\"role\":\"assistant\",\"content\":\"I look\",\"reasoning_content\":\"hm\",\"tool_calls\":["
         "{\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"}},"
         "{\"id\":\"b\",\"type\":\"function\",\"function\":{\"name\":\"g\",\"arguments\":\"\"}}]},"
         "{\"role\":\"tool\",\"tool_call_id\":\"a\",\"content\":\"rain\"},"
         "{\"role\":\"tool\",\"tool_call_id\":\"b\",\"content\":[{\"type\":\"text\",\"text\":\"sun\"}]}"
         "," USER),
     GETS(BLOCK ",{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"I look\"},"
                "{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\",\"input\":{\"x\":1}},"
                "{\"type\":\"tool_use\",\"id\":\"b\",\"name\":\"g\",\"input\":{}}]},"
                "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"a\",\"content\":"
                "[{\"type\":\"text\",\"text\":\"rain\"}]},{\"type\":\"tool_result\",\"tool_use_id\":\"b\","
                "\"content\":[{\"type\":\"text\",\"text\":\"sun\"}]},{\"type\":\"text\",\"text\":\"hi\"}]}")},
    {SAYS(USER ",{\"role\":\"assistant\",\"content\":null}," USER),
     GETS("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"},{\"type\":\"text\",\"text\":"
          "\"hi\"}]}")},
    {AND("\"max_tokens\":7,\"max_completion_tokens\":5,\"temperature\":1.5,\"top_p\":0.5,\"top_k\":3"),
     GIVES("\"max_tokens\":5,\"temperature\":1,\"top_p\":0.5,\"top_k\":3")},
    {AND("\"max_tokens\":7,\"temperature\":0.25,\"stop\":\"END\",\"user\":\"u\",\"seed\":1,\"n\":1,"
         "\"logprobs\":false,\"cache_prompt\":true,\"frequency_penalty\":0.5"),
     GIVES("\"max_tokens\":7,\"temperature\":0.25,\"stop_sequences\":[\"END\"],\"metadata\":{\"user_id\":"
           "\"u\"}")},
    {AND("\"max_tokens\":7,\"stop\":[\"a\",\"b\"],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":"
         "\"f\",\"description\":\"d\",\"parameters\":{\"type\":\"object\",\"properties\":{}}}},{\"type\":"
         "\"function\",\"function\":{\"name\":\"g\"}}],\"parallel_tool_calls\":false"),
     GIVES("\"max_tokens\":7,\"stop_sequences\":[\"a\",\"b\"],\"tools\":[{\"name\":\"f\",\"description\":"
           "\"d\",\"input_schema\":{\"type\":\"object\",\"properties\":{}}},{\"name\":\"g\",\"input_schema\":"
           "{\"type\":\"object\"}}],\"tool_choice\":{\"type\":\"auto\",\"disable_parallel_tool_use\":true}")},
    {AND("\"max_tokens\":7,\"tools\":[],\"parallel_tool_calls\":false,\"tool_choice\":\"none\""),
     GIVES("\"max_tokens\":7,\"tool_choice\":{\"type\":\"none\"}")},
    {AND("\"max_tokens\":7,\"tool_choice\":\"required\""),
     GIVES("\"max_tokens\":7,\"tool_choice\":{\"type\":\"any\"}")},
    {AND("\"max_tokens\":7,\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}}"),
     GIVES("\"max_tokens\":7,\"tool_choice\":{\"type\":\"tool\",\"name\":\"f\"}")},
    {AND("\"max_tokens\":7,\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\","
         "\"schema\":{\"type\":\"object\"}}}"),
     GIVES("\"max_tokens\":7,\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":{\"type\":"
           "\"object\"}}}")},
    {AND("\"max_tokens\":7,\"response_format\":{\"type\":\"text\"}"), GIVES("\"max_tokens\":7")},
};

static void test_asks(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof asks / sizeof *asks; i++) {
        struct dialect_ask ask;
        struct err err;
        if (ask_backend(CHAT, asks[i].body, &ask, &err) != RC_OK)
            fail_msg("%s was refused: %s", asks[i].body, err.message);
        assert_string_equal(ask.path, "/v1/messages");
        yyjson_doc *got = yyjson_read(ask.body.data, ask.body.n, 0),
                   *want = yyjson_read(asks[i].want, strlen(asks[i].want), 0);
        assert_non_null(want);
        if (!yyjson_equals(yyjson_doc_get_root(got), yyjson_doc_get_root(want)))
            fail_msg("%s\nbecame %s\nnot    %s", asks[i].body, ask.body.data, asks[i].want);
        yyjson_doc_free(got);
        yyjson_doc_free(want);
        dialect_ask_release(call_at(CHAT), &ask);
    }
}

static const struct {
    const char *body;
    enum rc rc;
    const char *says;
} refusals[] = {
    {"{}", RC_INVALID, "messages: this member is required"},
    {"{\"messages\":7}", RC_INVALID, "messages: a list of messages"},
    {SAYS("{\"role\":\"robot\",\"content\":\"x\"}"), RC_INVALID, "messages.0: its role is"},
    {SAYS("{\"role\":\"user\",\"content\":5}"), RC_INVALID, "messages.0: a text or a list of parts"},
    {SAYS("{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\"}]}"), RC_INVALID, "\"input_audio\""},
    {SAYS("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}"), RC_INVALID, "an image has a url"},
    {SAYS("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:x\"}}]}"),
     RC_INVALID, "a data URL has the form"},
    {SAYS("{\"role\":\"user\",\"content\":[{\"type\":\"file\",\"file\":{\"file_id\":\"x\"}}]}"), RC_INVALID,
     "file_data"},
    {SAYS("{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"[1\"}}]}"),
     RC_INVALID, "no JSON object"},
    {AND("\"max_tokens\":0"), RC_INVALID, "max_tokens: a whole number"},
    {AND("\"temperature\":\"hot\""), RC_INVALID, "temperature: a number"},
    {AND("\"stop\":7"), RC_INVALID, "stop: "},
    {AND("\"tools\":{}"), RC_INVALID, "tools: a list"},
    {AND("\"tools\":[{\"type\":\"web_search\"}]"), RC_INVALID, "tools.0: a tool is a function"},
    {AND("\"tool_choice\":\"maybe\""), RC_INVALID, "tool_choice: it is"},
    {AND("\"response_format\":{\"type\":\"json_object\"}"), RC_INVALID, "response_format: "},
    {AND("\"n\":2"), RC_INVALID, "n: this backend makes one answer"},
    {AND("\"logprobs\":true"), RC_INVALID, "logprobs: "},
};

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct dialect_ask ask;
        struct err err = {.message = ""};
        assert_int_equal(ask_backend(CHAT, refusals[i].body, &ask, &err), refusals[i].rc);
        if (!strstr(err.message, refusals[i].says))
            fail_msg("%s: \"%s\" does not say \"%s\"", refusals[i].body, err.message, refusals[i].says);
        assert_null(ask.via);
        dialect_ask_release(call_at(CHAT), &ask);
    }
}

static void test_calls_without_counterpart(void **state)
{
    (void)state;
    struct dialect_ask ask;
    struct err err;
    assert_int_equal(ask_backend("/api/embed", "{\"input\":\"x\"}", &ask, &err), RC_UNSUPPORTED);
    assert_non_null(strstr(err.message, "chats only"));
    dialect_ask_release(call_at("/api/embed"), &ask);
    assert_null(drive_call("/v1/embeddings")->remade);
}

static void test_openai_backends_need_nothing(void **state)
{
    (void)state;
    assert_null(dialect_backend(0));
    assert_null(dialect_backend(DIALECT_BIT(OPENAI)));
    assert_null(dialect_backend(DIALECT_BIT(OPENAI) | DIALECT_BIT(ANTHROPIC)));
    assert_int_equal(dialect_backend(DIALECT_BIT(ANTHROPIC))->id, DIALECT_ANTHROPIC);
}

/* ---- answers ---- */

#define EVENT(name, rest) "event: " name "\ndata: {\"type\":\"" name "\"" rest "}\n\n"
#define START                                                                                                \
    EVENT("message_start",                                                                                   \
          ",\"message\":{\"id\":\"msg_01\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"c-1\","   \
          "\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":10,"                              \
          "\"cache_creation_input_tokens\":2,\"cache_read_input_tokens\":5,\"output_tokens\":1}}")           \
    EVENT("ping", "")
#define TEXT(i, text)                                                                                        \
    EVENT("content_block_start", ",\"index\":" i ",\"content_block\":{\"type\":\"text\",\"text\":\"\"}")     \
    EVENT("content_block_delta",                                                                             \
          ",\"index\":" i ",\"delta\":{\"type\":\"text_delta\",\"text\":\"" text "\"}")                      \
    EVENT("content_block_stop", ",\"index\":" i)
#define STOP(reason)                                                                                         \
    EVENT("message_delta", ",\"delta\":{\"stop_reason\":\"" reason "\",\"stop_sequence\":null},\"usage\":{"  \
                           "\"output_tokens\":7}")                                                           \
    EVENT("message_stop", "")
#define TOOL(i, id, name)                                                                                    \
    EVENT("content_block_start", ",\"index\":" i ",\"content_block\":{\"type\":\"tool_use\",\"id\":\"" id    \
                                 "\",\"name\":\"" name "\",\"input\":{}}")
#define INPUT(i, json)                                                                                       \
    EVENT("content_block_delta",                                                                             \
          ",\"index\":" i ",\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"" json "\"}")
#define ASK(more) "{\"messages\":[" USER "]" more "}"
#define CHUNK(rest)                                                                                          \
    "data: {\"id\":\"chatcmpl-msg_01\",\"object\":\"chat.completion.chunk\",\"created\":0,\"model\":"        \
    "\"c-1\",\"choices\":" rest "}\n\n"
#define DELTA(rest) CHUNK("[{\"index\":0,\"delta\":{" rest "},\"finish_reason\":null}]")
#define ENDS(word)  CHUNK("[{\"index\":0,\"delta\":{},\"finish_reason\":\"" word "\"}]")
#define USAGE                                                                                                \
    "{\"prompt_tokens\":17,\"completion_tokens\":7,\"total_tokens\":24,\"prompt_tokens_details\":{"          \
    "\"cached_tokens\":5}}"
#define DONE "data: [DONE]\n\n"

static void expect(const char *path, const char *body, const char *stream, enum answer_state want_state,
                   const char *want)
{
    for (size_t step = 1; step <= 65; step++) {
        struct dialect_ask ask;
        struct err err;
        struct buf out = {0};
        assert_int_equal(ask_backend(path, body, &ask, &err), RC_OK);
        assert_int_equal(drive_answer(call_at(path), &ask, stream, step == 65 ? SIZE_MAX / 2 : step, &out),
                         want_state);
        assert_string_equal(out.data ? out.data : "", want);
        buf_release(&out);
        dialect_ask_release(call_at(path), &ask);
    }
}

static void test_a_stream(void **state)
{
    (void)state;
    expect(CHAT, ASK(",\"stream\":true"), START TEXT("0", "Hé") STOP("end_turn"), ANSWER_DONE,
           DELTA("\"role\":\"assistant\"") DELTA("\"content\":\"Hé\"") ENDS("stop") DONE);
    expect(CHAT, ASK(",\"stream\":true,\"stream_options\":{\"include_usage\":true}"),
           START TEXT("0", "a") TEXT("1", "b") STOP("max_tokens"), ANSWER_DONE,
           DELTA("\"role\":\"assistant\"") DELTA("\"content\":\"a\"") DELTA("\"content\":\"b\"")
               ENDS("length") CHUNK("[],\"usage\":" USAGE) DONE);
}

static void test_thoughts_and_tools(void **state)
{
    (void)state;
    static const char stream[] = START EVENT(
        "content_block_start", ",\"index\":0,\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\"}")
        EVENT("content_block_delta",
              ",\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"hm\"}")
            EVENT("content_block_delta",
                  ",\"index\":0,\"delta\":{\"type\":\"signature_delta\",\"signature\":\"x\"}")
                EVENT("content_block_stop", ",\"index\":0") EVENT("news", ",\"of\":\"a later version\"")
                    TOOL("1", "t1", "f") INPUT("1", "") INPUT("1", "{\\\"x\\\":") INPUT("1", "1}")
                        EVENT("content_block_stop", ",\"index\":1") TOOL("2", "t2", "g")
                            EVENT("content_block_stop", ",\"index\":2") STOP("tool_use");
    expect(CHAT, ASK(",\"stream\":true"), stream, ANSWER_DONE,
           DELTA("\"role\":\"assistant\"") DELTA("\"reasoning_content\":\"hm\"") DELTA(
               "\"tool_calls\":[{\"index\":0,\"id\":\"t1\",\"type\":\"function\",\"function\":{\"name\":"
               "\"f\",\"arguments\":\"\"}}]")
               DELTA("\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"x\\\":\"}}]")
                   DELTA("\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"1}\"}}]")
                       DELTA("\"tool_calls\":[{\"index\":1,\"id\":\"t2\",\"type\":\"function\","
                             "\"function\":{\"name\":\"g\",\"arguments\":\"\"}}]")
                           DELTA("\"tool_calls\":[{\"index\":1,\"function\":{\"arguments\":\"{}\"}}]")
                               ENDS("tool_calls") DONE);
    expect(
        CHAT, ASK(""), stream, ANSWER_DONE,
        "{\"choices\":[{\"finish_reason\":\"tool_calls\",\"index\":0,\"message\":{\"role\":\"assistant\","
        "\"content\":\"\",\"reasoning_content\":\"hm\",\"tool_calls\":[{\"type\":\"function\",\"function\":"
        "{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"},\"id\":\"t1\"},{\"type\":\"function\","
        "\"function\":{\"name\":\"g\",\"arguments\":\"{}\"},\"id\":\"t2\"}]}}],\"created\":0,\"model\":"
        "\"c-1\",\"object\":\"chat.completion\",\"usage\":" USAGE ",\"id\":\"msg_01\"}");
}

static const struct {
    const char *reason, *finish;
} reasons[] = {{"end_turn", "stop"},       {"stop_sequence", "stop"},
               {"max_tokens", "length"},   {"model_context_window_exceeded", "length"},
               {"tool_use", "tool_calls"}, {"refusal", "content_filter"},
               {"pause_turn", "stop"}};

static void test_reasons(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        char stream[4096], want[4096];
        (void)snprintf(stream, sizeof stream,
                       START EVENT("message_delta", ",\"delta\":{\"stop_reason\":\"%s\"}")
                           EVENT("message_stop", ""),
                       reasons[i].reason);
        (void)snprintf(want, sizeof want, DELTA("\"role\":\"assistant\"") ENDS("%s") DONE, reasons[i].finish);
        expect(CHAT, ASK(",\"stream\":true"), stream, ANSWER_DONE, want);
    }
}

/* The other dialects go through OpenAI's words. */
static void test_ollama_meets_anthropic(void **state)
{
    (void)state;
    struct dialect_ask ask;
    struct err err;
    struct buf out = {0};
    assert_int_equal(
        ask_backend("/api/chat", "{\"model\":\"m\",\"stream\":false,\"messages\":[" USER "]}", &ask, &err),
        RC_OK);
    assert_int_equal(
        drive_answer(call_at("/api/chat"), &ask, START TEXT("0", "yes") STOP("end_turn"), SIZE_MAX / 2, &out),
        ANSWER_DONE);
    assert_non_null(strstr(out.data, "\"content\":\"yes\""));
    assert_non_null(strstr(out.data, "\"prompt_eval_count\":17"));
    buf_release(&out);
    dialect_ask_release(call_at("/api/chat"), &ask);
}

static void test_faults(void **state)
{
    (void)state;
    static const char half[] = DELTA("\"role\":\"assistant\"") DELTA("\"content\":\"a\"");
    /* an end that nobody told is none */
    expect(CHAT, ASK(",\"stream\":true"), START TEXT("0", "a"), ANSWER_BROKEN, half);
    expect(CHAT, ASK(",\"stream\":true"), START TEXT("0", "a") EVENT("message_stop", ""), ANSWER_BROKEN,
           half);
    expect(CHAT, ASK(",\"stream\":true"),
           START TEXT("0", "a") EVENT("error", ",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Over"
                                               "loaded\"}"),
           ANSWER_ERROR, half);
    static const char *const bad[] = {"data: {\n\n",
                                      "data: []\n\n",
                                      START START,
                                      TEXT("0", "x"),
                                      EVENT("message_start", ",\"message\":7"),
                                      EVENT("message_stop", "")};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct dialect_ask ask;
        struct err err;
        struct buf out = {0};
        assert_int_equal(ask_backend(CHAT, ASK(""), &ask, &err), RC_OK);
        assert_int_equal(drive_answer(call_at(CHAT), &ask, bad[i], SIZE_MAX / 2, &out), ANSWER_BROKEN);
        buf_release(&out);
        dialect_ask_release(call_at(CHAT), &ask);
    }
}

static void test_an_error_in_a_stream_has_its_status(void **state)
{
    (void)state;
    struct dialect_ask ask;
    struct err err;
    struct buf out = {0};
    struct dialect_error e;
    static const char stream[] =
        EVENT("error", ",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}");
    assert_int_equal(ask_backend(CHAT, ASK(""), &ask, &err), RC_OK);
    struct answer *a = answer_new(call_at(CHAT), &ask, 1 << 20, 0, 0);
    assert_true(answer_head(a, 200, STR("text/event-stream")));
    assert_int_equal(answer_feed(a, str_from(stream), 0, &out), ANSWER_ERROR);
    answer_error(a, &e);
    assert_int_equal(e.status, 529);
    assert_true(str_eq_c(e.message, "Overloaded"));
    answer_free(a);
    buf_release(&out);
    dialect_ask_release(call_at(CHAT), &ask);
}

/* ---- who can answer what ---- */

static void test_who_can_answer(void **state)
{
    (void)state;
    enum { O = DIALECT_BIT(OPENAI), A = DIALECT_BIT(ANTHROPIC), L = DIALECT_BIT(LLAMACPP) };
    static const struct {
        enum dialect_id id;
        const char *path, *body; /* body: of an early call, which is translated first */
        unsigned with;
    } rows[] = {
        {DIALECT_OPENAI, CHAT, NULL, O | A},
        {DIALECT_OPENAI, "/chat/completions", NULL, O | A},
        {DIALECT_OPENAI, "/v1/completions", NULL, O},
        {DIALECT_OPENAI, "/v1/embeddings", "{\"input\":\"a\"}", O},
        {DIALECT_OPENAI, "/v1/rerank", NULL, O},
        {DIALECT_OPENAI, "/v1/audio/transcriptions", NULL, O},
        {DIALECT_RESPONSES, "/v1/responses", NULL, O | A | DIALECT_BIT(RESPONSES)},
        {DIALECT_ANTHROPIC, "/v1/messages", NULL, O | A},
        {DIALECT_ANTHROPIC, "/v1/messages/count_tokens", NULL, A | L},
        {DIALECT_LLAMACPP, "/completion", NULL, L},
        {DIALECT_OLLAMA, "/api/chat", "{\"messages\":[" USER "]}", O | A | DIALECT_BIT(OLLAMA)},
        {DIALECT_OLLAMA, "/api/generate", "{\"prompt\":\"a\"}", O | A | DIALECT_BIT(OLLAMA)},
        {DIALECT_OLLAMA, "/api/generate", "{\"prompt\":\"a\",\"raw\":true}", O | DIALECT_BIT(OLLAMA)},
        {DIALECT_OLLAMA, "/api/generate", "{\"prompt\":\"a\",\"suffix\":\"b\"}", L | DIALECT_BIT(OLLAMA)},
        {DIALECT_OLLAMA, "/api/generate", "{\"prompt\":\"\"}", ~0u}, /* nobody is asked */
        {DIALECT_OLLAMA, "/api/embed", "{\"input\":\"a\"}", O | DIALECT_BIT(OLLAMA)},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct dialect_call *call = drive_call(rows[i].path);
        struct dialect_ask ask = {.path = NULL};
        struct err err;
        if (rows[i].body)
            assert_int_equal(drive_ask(call, rows[i].body, 0, &ask, &err), RC_OK);
        assert_int_equal(dialect_answered_by(rows[i].id, call, rows[i].body ? &ask : NULL), rows[i].with);
        dialect_ask_release(call, &ask);
    }
}

/* What the tables say of a translation is what it does; what it becomes for another backend changes nothing.
 */
static void test_who_can_answer_a_translation(void **state)
{
    (void)state;
    static const struct {
        enum dialect_id id;
        const char *path, *body;
    } rows[] = {
        {DIALECT_OPENAI, CHAT, SAYS(USER)},
        {DIALECT_RESPONSES, "/v1/responses", "{\"input\":\"hi\"}"},
        {DIALECT_ANTHROPIC, "/v1/messages", "{\"max_tokens\":1,\"messages\":[" USER "]}"},
        {DIALECT_ANTHROPIC, "/v1/messages/count_tokens", "{\"messages\":[" USER "]}"},
        {DIALECT_OLLAMA, "/api/chat", "{\"messages\":[" USER "]}"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct dialect_call *row = drive_call(rows[i].path), *call = call_at(rows[i].path);
        struct dialect_ask ask = {.path = NULL};
        struct err err;
        assert_int_equal(drive_ask(call, rows[i].body, DIALECT_BIT(LLAMACPP), &ask, &err), RC_OK);
        unsigned who = dialect_answered_by(rows[i].id, row, &ask);
        if (!row->early)
            assert_int_equal(dialect_answered_by(rows[i].id, row, NULL), who);
        if (who & SPEAKS && who & DIALECT_BIT(OPENAI)) {
            assert_int_equal(dialect_ask_as(&ask, SPEAKS, &err), RC_OK);
            assert_string_equal(ask.path, "/v1/messages");
            assert_int_equal(dialect_answered_by(rows[i].id, row, &ask), who);
        }
        dialect_ask_release(call, &ask);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_asks),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_calls_without_counterpart),
        cmocka_unit_test(test_openai_backends_need_nothing),
        cmocka_unit_test(test_who_can_answer),
        cmocka_unit_test(test_who_can_answer_a_translation),
        cmocka_unit_test(test_a_stream),
        cmocka_unit_test(test_thoughts_and_tools),
        cmocka_unit_test(test_reasons),
        cmocka_unit_test(test_ollama_meets_anthropic),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_an_error_in_a_stream_has_its_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
