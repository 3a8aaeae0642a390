/* Ollama's dialect: what its requests become, and what its clients get of every split of a stream. */
#include "base/mem.h"
#include "dialect/answer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

enum { CHAT, GENERATE, EMBED, EMBEDDINGS }; /* in the order of the table */

#define NOW_US 1700000000000000 /* 2023-11-14T22:13:20Z */
#define AT     "\"model\":\"m:1\",\"created_at\":\"2023-11-14T22:13:20.000Z\""
#define COUNTED                                                                                              \
    ",\"total_duration\":5000000000,\"load_duration\":2000000,\"prompt_eval_count\":5,"                      \
    "\"prompt_eval_duration\":1250000,\"eval_count\":2,\"eval_duration\":3500000"

static const struct dialect_call *call_of(unsigned call)
{
    return &dialect_at(DIALECT_OLLAMA)->calls[call];
}

static enum rc ask(unsigned call, const char *body, struct dialect_ask *ret, struct err *err)
{
    const struct dialect_terms terms = {.model = STR("m:1")};
    yyjson_doc *doc = NULL;
    *ret = (struct dialect_ask){.reply = DIALECT_EVENTS};
    assert_int_equal(json_parse(str_from(body), "the test", &doc, err), RC_OK);
    enum rc rc = call_of(call)->ask(&terms, yyjson_doc_get_root(doc), ret, err);
    yyjson_doc_free(doc);
    return rc;
}

/* Path, body; the body is JSON. */
/* What is to be embedded, as one request. */
static void put_whole(const struct embed_ask *e, struct buf *out)
{
    buf_printf(out, "{%.*s\"input\":[", (int)e->rest.n, e->rest.n ? e->rest.data : "");
    embed_put_inputs(e, 0, e->n, out);
    buf_puts(out, "]}");
}

static void becomes(unsigned call, const char *body, const char *path, const char *want)
{
    struct dialect_ask a;
    struct err err;
    if (ask(call, body, &a, &err) != RC_OK)
        fail_msg("%s: %s", body, err.message);
    assert_string_equal(a.path, path);
    if (a.embed)
        put_whole(a.embed, &a.body);
    assert_string_equal(a.body.data, want);
    yyjson_doc *doc = yyjson_read(a.body.data, a.body.n, 0);
    assert_non_null(doc);
    yyjson_doc_free(doc);
    dialect_ask_release(call_of(call), &a);
}

static void refused(unsigned call, const char *body, enum rc rc, const char *word)
{
    struct dialect_ask a;
    struct err err = {0};
    assert_int_equal(ask(call, body, &a, &err), rc);
    if (!strstr(err.message, word))
        fail_msg("\"%s\" is not in \"%s\"", word, err.message);
    dialect_ask_release(call_of(call), &a);
}

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static void test_chat(void **state)
{
    (void)state;
    const char *chat = "/v1/chat/completions";
    becomes(CHAT, "{\"model\":\"m\"," USER "}", chat, "{" USER "}");
    becomes(CHAT, "{\"messages\":[{\"role\":\"System\",\"content\":\"a\\n\\u00e9\"},{\"role\":\"user\"}]}",
            chat,
            "{\"messages\":[{\"role\":\"system\",\"content\":\"a\\n\xc3\xa9\"},{\"role\":\"user\","
            "\"content\":\"\"}]}");
    becomes(CHAT, "{\"format\":\"json\"," USER "}", chat,
            "{\"response_format\":{\"type\":\"json_object\"}," USER "}");
    becomes(
        CHAT, "{\"format\":{\"type\":\"object\"}," USER "}", chat,
        "{\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"answer\",\"strict\":true,"
        "\"schema\":{\"type\":\"object\"}}}," USER "}");
    becomes(CHAT, "{\"format\":\"\",\"think\":null," USER "}", chat, "{" USER "}");
    becomes(CHAT, "{\"think\":false," USER "}", chat,
            "{\"chat_template_kwargs\":{\"enable_thinking\":false}," USER "}");
    becomes(CHAT, "{\"think\":\"max\"," USER "}", chat,
            "{\"chat_template_kwargs\":{\"enable_thinking\":true,\"reasoning_effort\":\"high\"}," USER "}");
    becomes(CHAT, "{\"tools\":[{\"type\":\"function\"}]," USER "}", chat,
            "{" USER ",\"tools\":[{\"type\":\"function\"}]}");
    becomes(CHAT, "{\"tools\":[]," USER "}", chat, "{" USER "}");
}

static void test_images(void **state)
{
    (void)state;
#define IMAGE(type, data)                                                                                    \
    ",{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/" type ";base64," data "\"}}"
    becomes(CHAT,
            "{\"messages\":[{\"role\":\"user\",\"content\":\"see\",\"images\":[\"iVBORw0KGgoA\",\"/9j/x\","
            "\"data:image/webp;base64,UklGRx\"]}]}",
            "/v1/chat/completions",
            "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"see\"}" IMAGE(
                "png", "iVBORw0KGgoA") IMAGE("jpeg", "/9j/x") IMAGE("webp", "UklGRx") "]}]}");
    becomes(GENERATE, "{\"prompt\":\"see\",\"images\":[\"R0lGODlh\"]}", "/v1/chat/completions",
            "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"see\"}" IMAGE(
                "gif", "R0lGODlh") "]}]}");
    refused(CHAT, "{\"messages\":[{\"role\":\"user\",\"images\":[7]}]}", RC_INVALID, "messages[0].images");
    refused(GENERATE, "{\"prompt\":\"a\",\"raw\":true,\"images\":[\"x\"]}", RC_UNSUPPORTED, "images");
}

static void test_tools_and_their_results(void **state)
{
    (void)state;
    becomes(CHAT,
            "{\"messages\":[{\"role\":\"assistant\",\"thinking\":\"so\",\"tool_calls\":["
            "{\"function\":{\"name\":\"a\",\"arguments\":{\"x\":[1,\"\\\"\"]}}},"
            "{\"id\":\"own\",\"function\":{\"name\":\"b\"}}]},"
            "{\"role\":\"tool\",\"tool_name\":\"b\",\"content\":\"2\"},"
            "{\"role\":\"tool\",\"content\":\"1\"},"
            "{\"role\":\"tool\",\"tool_call_id\":\"else\",\"content\":\"3\"}]}",
            "/v1/chat/completions",
            "{\"messages\":[{\"role\":\"assistant\",\"content\":\"\",\"reasoning_content\":\"so\",\"tool_"
            "calls\":["
            "{\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"a\","
            "\"arguments\":\"{\\\"x\\\":[1,\\\"\\\\\\\"\\\"]}\"}},"
            "{\"id\":\"own\",\"type\":\"function\",\"function\":{\"name\":\"b\",\"arguments\":\"{}\"}}]},"
            "{\"role\":\"tool\",\"content\":\"2\",\"tool_call_id\":\"own\",\"name\":\"b\"},"
            "{\"role\":\"tool\",\"content\":\"1\",\"tool_call_id\":\"call_1\"},"
            "{\"role\":\"tool\",\"content\":\"3\",\"tool_call_id\":\"else\"}]}");
    refused(CHAT, "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"name\":\"a\"}]}]}", RC_INVALID,
            "messages[0].tool_calls");
    struct buf many = {0};
    buf_puts(&many, "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[");
    for (int i = 0; i < 1025; i++)
        buf_printf(&many, "%s{\"function\":{\"name\":\"f\"}}", i ? "," : "");
    buf_puts(&many, "]}]}");
    refused(CHAT, many.data, RC_LIMIT, "calls of tools");
    buf_release(&many);
}

static void test_options(void **state)
{
    (void)state;
    struct dialect_ask a;
    struct err err;
    const char *body =
        "{\"options\":{\"seed\":-1,\"temperature\":0.5,\"top_k\":40.9,\"num_predict\":16,\"stop\":"
        "\"x\",\"repeat_penalty\":1,\"num_ctx\":8192,\"num_gpu\":99,\"use_mmap\":true,"
        "\"unknown\":{},\"min_p\":null}," USER "}";
    becomes(CHAT, body, "/v1/chat/completions",
            "{\"temperature\":0.5,\"top_k\":40,\"seed\":-1,\"max_tokens\":16,\"stop\":\"x\",\"repeat_"
            "penalty\":1," USER "}");
    assert_int_equal(ask(CHAT, body, &a, &err), RC_OK);
    assert_int_equal(a.wish.context, 8192);
    dialect_ask_release(call_of(CHAT), &a);
    becomes(CHAT, "{\"options\":{\"num_predict\":-1,\"stop\":[\"a\",\"b\"]}," USER "}",
            "/v1/chat/completions", "{\"stop\":[\"a\",\"b\"]," USER "}");
    refused(CHAT, "{\"options\":[]," USER "}", RC_INVALID, "\"options\"");
    refused(CHAT, "{\"options\":{\"top_p\":\"1\"}," USER "}", RC_INVALID,
            "option \"top_p\" must be a number");
    refused(CHAT, "{\"options\":{\"seed\":true}," USER "}", RC_INVALID,
            "option \"seed\" must be a whole number");
    refused(CHAT, "{\"options\":{\"seed\":1e300}," USER "}", RC_INVALID, "\"seed\"");
    refused(CHAT, "{\"options\":{\"stop\":[1]}," USER "}", RC_INVALID, "option \"stop\"");
    refused(CHAT, "{\"options\":{\"num_gpu\":\"all\"}," USER "}", RC_INVALID, "\"num_gpu\"");
}

static void test_how_long_it_stays(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool given;
        int64_t ms;
    } rows[] = {{"0", true, 0},           {"300", true, 300000},       {"1.5", true, 1500},
                {"-1", true, -1},         {"\"5m\"", true, 300000},    {"\"1h30m\"", true, 5400000},
                {"\"250ms\"", true, 250}, {"\"-1s\"", true, -1},       {"\"0\"", true, 0},
                {"\"-1\"", true, -1},     {"\"90\"", true, 90000},     {"\"1m0.5s\"", true, 60500},
                {"null", false, 0},       {"\"10\xc2\xb5s\"", true, 0}};
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        struct dialect_ask a;
        struct err err;
        auto_free char *body = mem_printf("{\"keep_alive\":%s," USER "}", rows[i].text);
        assert_int_equal(ask(CHAT, body, &a, &err), RC_OK);
        assert_int_equal(a.wish.keep_given, rows[i].given);
        assert_int_equal(a.wish.keep_ms, rows[i].ms);
        dialect_ask_release(call_of(CHAT), &a);
    }
    static const char *const bad[] = {"\"\"",  "\"soon\"", "\"5\xc2\xb5\"", "\"m\"", "true",
                                      "\"-\"", "\"1x\"",   "\"5m!\"",       "{}"};
    for (size_t i = 0; i < TABLE_COUNT(bad); i++) {
        auto_free char *body = mem_printf("{\"keep_alive\":%s," USER "}", bad[i]);
        refused(CHAT, body, RC_INVALID, "keep_alive");
    }
}

static void test_generate(void **state)
{
    (void)state;
    becomes(GENERATE, "{\"prompt\":\"p\",\"system\":\"s\"}", "/v1/chat/completions",
            "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"p\"}]}");
    becomes(GENERATE, "{\"prompt\":\"p\",\"raw\":true,\"options\":{\"seed\":7}}", "/v1/completions",
            "{\"seed\":7,\"prompt\":\"p\"}");
    becomes(GENERATE, "{\"prompt\":\"a\",\"suffix\":\"b\",\"context\":[]}", "/infill",
            "{\"input_prefix\":\"a\",\"input_suffix\":\"b\"}");
    refused(GENERATE, "{\"prompt\":1}", RC_INVALID, "\"prompt\" must be a text");
    refused(GENERATE, "{\"prompt\":\"p\",\"template\":\"t\"}", RC_UNSUPPORTED, "template");
    refused(GENERATE, "{\"prompt\":\"p\",\"context\":[1]}", RC_UNSUPPORTED, "context");
    refused(GENERATE, "{\"prompt\":\"p\",\"stream\":1}", RC_INVALID, "\"stream\" must be true or false");
    refused(GENERATE, "{\"prompt\":\"p\",\"raw\":\"yes\"}", RC_INVALID, "\"raw\"");
}

static void test_what_else_is_wrong(void **state)
{
    (void)state;
    refused(CHAT, "{\"messages\":{}}", RC_INVALID, "\"messages\" must be a list");
    refused(CHAT, "{\"messages\":[7]}", RC_INVALID, "messages[0] must be an object");
    refused(CHAT, "{\"messages\":[{\"role\":\"user\"},{\"content\":\"\"}]}", RC_INVALID, "messages[1].role");
    refused(CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[]}]}", RC_INVALID, "messages[0].content");
    refused(CHAT, "{\"tools\":{}," USER "}", RC_INVALID, "\"tools\" must be");
    refused(CHAT, "{\"think\":7," USER "}", RC_INVALID, "\"think\"");
    refused(CHAT, "{\"think\":\"hard\"," USER "}", RC_INVALID, "\"think\"");
    refused(CHAT, "{\"format\":7," USER "}", RC_INVALID, "\"format\"");
    refused(CHAT, "{\"format\":\"xml\"," USER "}", RC_INVALID, "\"format\"");
    refused(CHAT, "{\"logprobs\":true," USER "}", RC_UNSUPPORTED, "logprobs");
    refused(EMBED, "{\"input\":[1]}", RC_INVALID, "\"input\"");
    refused(EMBED, "{\"input\":\"a\",\"dimensions\":-1}", RC_INVALID, "\"dimensions\"");
    refused(EMBEDDINGS, "{\"prompt\":[]}", RC_INVALID, "\"prompt\"");
}

static void test_errors(void **state)
{
    (void)state;
    struct buf out = {0};
    struct dialect_error e = {.status = 404, .message = STR("no \"m\""), .hint = STR("try n")};
    dialect_at(DIALECT_OLLAMA)->put_error(&e, &out);
    assert_string_equal(out.data, "{\"error\":\"no \\\"m\\\" (try n)\"}\n");
    buf_release(&out);
}

/* ---- answers ---- */

#define EVENT(choices, more)                                                                                 \
    "data: {\"choices\":[" choices "],\"created\":7,\"id\":\"c\",\"model\":\"M\"" more "}\n\n"
#define DELTA(delta) EVENT("{\"finish_reason\":null,\"index\":0,\"delta\":{" delta "}}", "")
#define FINISH(why)  EVENT("{\"finish_reason\":\"" why "\",\"index\":0,\"delta\":{}}", "")
#define USAGE                                                                                                \
    EVENT("", ",\"usage\":{\"completion_tokens\":2,\"prompt_tokens\":5},\"timings\":{\"prompt_ms\":1.25,"    \
              "\"predicted_ms\":3.5}")
#define MARK          "data: [DONE]\n\n"
#define CALL(i, more) DELTA("\"tool_calls\":[{\"index\":" #i "," more "}]")

#define WORDS                                                                                                \
    DELTA("\"role\":\"assistant\",\"content\":null")                                                         \
    DELTA("\"reasoning_content\":\"hm\"") DELTA("\"content\":\"h\\u00e9\"") DELTA("\"content\":\"\\n!\"")
#define CALLS                                                                                                \
    CALL(0, "\"id\":\"i\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\"\"}") \
    CALL(0, "\"function\":{\"arguments\":\":1}\"}")                                                          \
    CALL(1, "\"function\":{\"name\":\"g\",\"arguments\":\"7\"}")

/* The answer to body, of a stream fed in steps. */
static enum answer_state answer(unsigned call, const char *body, const char *type, const char *stream,
                                size_t step, struct buf *out)
{
    struct dialect_ask a;
    struct err err;
    assert_int_equal(ask(call, body, &a, &err), RC_OK);
    struct answer *made = answer_new(call_of(call), &a, 100000, NOW_US - 5000000, 2000);
    if (a.reply != DIALECT_NOTHING)
        assert_true(answer_head(made, 200, str_from(type)));
    for (size_t at = 0, n = strlen(stream); at < n; at += step) {
        auto_free char *piece = mem_strndup(stream + at, n - at < step ? n - at : step);
        (void)answer_feed(made, str_from(piece), NOW_US, out);
    }
    enum answer_state state = answer_end(made, NOW_US, out);
    answer_free(made);
    dialect_ask_release(call_of(call), &a);
    return state;
}

static void gives(unsigned call, const char *body, const char *type, const char *stream, const char *want)
{
    size_t n = strlen(stream);
    for (size_t step = 1; step <= n + 1; step = step < 40 ? step + 1 : step * 2) {
        struct buf out = {0};
        assert_int_equal(answer(call, body, type, stream, step, &out), ANSWER_DONE);
        assert_string_equal(out.data, want);
        buf_release(&out);
    }
}

#define EVENTS   "text/event-stream"
#define DOCUMENT "application/json"
#define ASK      "{" USER "}"
#define ASK_ONE  "{\"stream\":false," USER "}"

static void test_a_stream_of_words(void **state)
{
    (void)state;
    gives(CHAT, ASK, EVENTS, WORDS FINISH("stop") USAGE MARK,
          "{" AT
          ",\"message\":{\"role\":\"assistant\",\"content\":\"\",\"thinking\":\"hm\"},\"done\":false}\n"
          "{" AT ",\"message\":{\"role\":\"assistant\",\"content\":\"h\xc3\xa9\"},\"done\":false}\n"
          "{" AT ",\"message\":{\"role\":\"assistant\",\"content\":\"\\n!\"},\"done\":false}\n"
          "{" AT ",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":"
          "\"stop\"" COUNTED "}\n");
    gives(GENERATE, "{\"prompt\":\"p\"}", EVENTS, WORDS FINISH("length") USAGE MARK,
          "{" AT ",\"response\":\"\",\"thinking\":\"hm\",\"done\":false}\n"
          "{" AT ",\"response\":\"h\xc3\xa9\",\"done\":false}\n"
          "{" AT ",\"response\":\"\\n!\",\"done\":false}\n"
          "{" AT ",\"response\":\"\",\"done\":true,\"done_reason\":\"length\"" COUNTED "}\n");
}

static void test_one_object(void **state)
{
    (void)state;
    gives(CHAT, ASK_ONE, EVENTS, WORDS FINISH("stop") USAGE MARK,
          "{" AT ",\"message\":{\"role\":\"assistant\",\"content\":\"h\xc3\xa9\\n!\",\"thinking\":\"hm\"},"
          "\"done\":true,"
          "\"done_reason\":\"stop\"" COUNTED "}\n");
    gives(GENERATE, "{\"prompt\":\"p\",\"stream\":false}", EVENTS, WORDS FINISH("stop") USAGE MARK,
          "{" AT
          ",\"response\":\"h\xc3\xa9\\n!\",\"thinking\":\"hm\",\"done\":true,\"done_reason\":\"stop\"" COUNTED
          "}\n");
}

#define TOLD                                                                                                 \
    ",\"tool_calls\":[{\"id\":\"i\",\"function\":{\"index\":0,\"name\":\"f\",\"arguments\":{\"a\":1}}},"     \
    "{\"function\":{\"index\":1,\"name\":\"g\",\"arguments\":{\"text\":\"7\"}}}]"

static void test_calls_of_tools(void **state)
{
    (void)state;
    gives(CHAT, ASK, EVENTS, CALLS FINISH("tool_calls") USAGE MARK,
          "{" AT ",\"message\":{\"role\":\"assistant\",\"content\":\"\"" TOLD "},\"done\":false}\n"
          "{" AT ",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":"
          "\"stop\"" COUNTED "}\n");
    gives(CHAT, ASK_ONE, EVENTS, CALLS FINISH("tool_calls") USAGE MARK,
          "{" AT ",\"message\":{\"role\":\"assistant\",\"content\":\"\"" TOLD
          "},\"done\":true,\"done_reason\":\"stop\"" COUNTED "}\n");
}

static void test_no_end_is_made_up(void **state)
{
    (void)state;
    static const char *const streams[] = {
        "", WORDS, WORDS FINISH("stop"), WORDS FINISH("stop") USAGE, WORDS MARK, WORDS "data: {\"x\"\n\n"};
    for (size_t i = 0; i < TABLE_COUNT(streams); i++)
        for (size_t k = 0; k < 2; k++) {
            struct buf out = {0};
            assert_int_equal(answer(CHAT, k ? ASK : ASK_ONE, EVENTS, streams[i], 7, &out), ANSWER_BROKEN);
            assert_true(!out.n || !strstr(out.data, "\"done\":true"));
            buf_release(&out);
        }
    struct buf out = {0};
    struct dialect_error e = {.message = STR("it died")};
    call_of(CHAT)->broken(NULL, &e, &out);
    assert_string_equal(out.data, "{\"error\":\"it died\"}\n");
    buf_release(&out);
}

static void test_nothing_is_asked(void **state)
{
    (void)state;
    static const struct {
        unsigned call;
        const char *body;
        bool leave;
        const char *want;
    } rows[] = {
        {CHAT, "{}", false,
         "{" AT
         ",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":\"load\"}\n"},
        {CHAT, "{\"messages\":[],\"keep_alive\":0}", true,
         "{" AT ",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":"
         "\"unload\"}\n"},
        {GENERATE, "{\"prompt\":\"\",\"keep_alive\":\"5m\"}", false,
         "{" AT ",\"response\":\"\",\"done\":true,\"done_reason\":\"load\"}\n"},
        {GENERATE, "{\"keep_alive\":\"0s\"}", true,
         "{" AT ",\"response\":\"\",\"done\":true,\"done_reason\":\"unload\"}\n"},
        {EMBED, "{\"input\":[]}", false, "{\"model\":\"m:1\",\"embeddings\":[]}\n"},
        {EMBEDDINGS, "{\"prompt\":\"\"}", false, "{\"embedding\":[]}\n"},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        struct dialect_ask a;
        struct err err;
        struct buf out = {0};
        assert_int_equal(ask(rows[i].call, rows[i].body, &a, &err), RC_OK);
        assert_int_equal(a.reply, DIALECT_NOTHING);
        assert_int_equal(a.wish.leave, rows[i].leave);
        dialect_ask_release(call_of(rows[i].call), &a);
        assert_int_equal(answer(rows[i].call, rows[i].body, "", "", 1, &out), ANSWER_DONE);
        assert_string_equal(out.data, rows[i].want);
        buf_release(&out);
    }
}

#define VECTORS(more)                                                                                        \
    "{\"data\":[{\"index\":0,\"embedding\":[0.5,-0.25,1]},{\"index\":1,\"embedding\":[3,4,12]}]" more "}"
#define TIMED ",\"total_duration\":5000000000,\"load_duration\":2000000,\"prompt_eval_count\":6}\n"

static void test_embeddings(void **state)
{
    (void)state;
    becomes(EMBED, "{\"input\":[\"a\",\"b\"],\"options\":{\"seed\":1}}", "/v1/embeddings",
            "{\"encoding_format\":\"float\",\"input\":[\"a\",\"b\"]}");
    becomes(EMBEDDINGS, "{\"prompt\":\"a\"}", "/v1/embeddings",
            "{\"encoding_format\":\"float\",\"input\":[\"a\"]}");
    gives(EMBED, "{\"input\":[\"a\",\"b\"]}", DOCUMENT, VECTORS(",\"usage\":{\"prompt_tokens\":6}"),
          "{\"model\":\"m:1\",\"embeddings\":[[0.5,-0.25,1],[3,4,12]]" TIMED);
    gives(EMBED, "{\"input\":[\"a\",\"b\"],\"dimensions\":2}", DOCUMENT,
          VECTORS(",\"usage\":{\"prompt_tokens\":6}"),
          "{\"model\":\"m:1\",\"embeddings\":[[0.894427191,-0.447213595],[0.6,0.8]]" TIMED);
    gives(EMBEDDINGS, "{\"prompt\":\"a\"}", DOCUMENT, "{\"data\":[{\"embedding\":[1,2]}]}",
          "{\"embedding\":[1,2]}\n");
    static const char *const bad[] = {"{}",
                                      "{\"data\":[]}",
                                      "{\"data\":[{\"index\":1,\"embedding\":[1]}]}",
                                      "{\"data\":[{\"embedding\":[]}]}",
                                      "{\"data\":[{\"embedding\":\"x\"}]}",
                                      "7",
                                      ""};
    for (size_t i = 0; i < TABLE_COUNT(bad); i++) {
        struct buf out = {0};
        assert_int_equal(answer(EMBED, "{\"input\":\"a\"}", DOCUMENT, bad[i], 3, &out), ANSWER_BROKEN);
        buf_release(&out);
    }
    struct buf out = {0};
    assert_int_equal(answer(EMBED, "{\"input\":\"a\",\"dimensions\":1}", DOCUMENT,
                            "{\"data\":[{\"embedding\":[1,\"x\"]}]}", 3, &out),
                     ANSWER_BROKEN);
    buf_release(&out);
}

static void test_a_hole_is_filled(void **state)
{
    (void)state;
    gives(GENERATE, "{\"prompt\":\"a\",\"suffix\":\"b\"}", DOCUMENT,
          "{\"content\":\"x\",\"stop_type\":\"limit\",\"tokens_evaluated\":5,\"tokens_predicted\":2,"
          "\"timings\":{\"prompt_ms\":1.25,\"predicted_ms\":3.5}}",
          "{" AT ",\"response\":\"x\",\"done\":true,\"done_reason\":\"length\"" COUNTED "}\n");
    struct buf out = {0};
    assert_int_equal(answer(GENERATE, "{\"suffix\":\"b\"}", DOCUMENT, "{\"content\":7}", 99, &out),
                     ANSWER_BROKEN);
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat),
        cmocka_unit_test(test_images),
        cmocka_unit_test(test_tools_and_their_results),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_how_long_it_stays),
        cmocka_unit_test(test_generate),
        cmocka_unit_test(test_what_else_is_wrong),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_a_stream_of_words),
        cmocka_unit_test(test_one_object),
        cmocka_unit_test(test_calls_of_tools),
        cmocka_unit_test(test_no_end_is_made_up),
        cmocka_unit_test(test_nothing_is_asked),
        cmocka_unit_test(test_embeddings),
        cmocka_unit_test(test_a_hole_is_filled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
