/* OpenAI's responses API, translated to and from chat completions. */
#include "drive.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#define PATH   "/v1/responses"
#define HI     "\"input\":\"hi\""
#define HI_ASK "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static const struct {
    const char *body, *want;
} asks[] = {
    {"{\"model\":\"x\",\"stream\":true,\"store\":true," HI
     ",\"max_output_tokens\":4,\"temperature\":0,\"seed\":7}",
     "{" HI_ASK ",\"max_tokens\":4,\"temperature\":0,\"seed\":7}"},
    {"{" HI ",\"instructions\":\"be brief\",\"reasoning\":{\"effort\":\"low\"}}",
     "{\"messages\":[{\"role\":\"system\",\"content\":\"be brief\"},{\"role\":\"user\",\"content\":\"hi\"}],"
     "\"reasoning_effort\":\"low\"}"},
    {"{\"input\":[{\"role\":\"developer\",\"content\":\"d\"},{\"type\":\"message\",\"role\":\"user\","
     "\"content\":[{\"type\":"
     "\"input_text\",\"text\":\"see\"},{\"type\":\"input_image\",\"image_url\":\"http://x/"
     "y\"}]},{\"type\":\"reasoning\","
     "\"summary\":[{\"type\":\"summary_text\",\"text\":\"hm\"}]},{\"type\":\"message\",\"role\":"
     "\"assistant\",\"content\":[{"
     "\"type\":\"output_text\",\"text\":\"ok\"}]},{\"type\":\"function_call\",\"call_id\":\"c1\",\"name\":"
     "\"f\",\"arguments\":"
     "\"{}\"},{\"type\":\"function_call\",\"call_id\":\"c2\",\"name\":\"g\",\"arguments\":\"{}\"},{\"type\":"
     "\"function_call_output\",\"call_id\":\"c1\",\"output\":\"rain\"},{\"type\":\"function_call_output\","
     "\"call_id\":\"c2\","
     "\"output\":[{\"type\":\"input_text\",\"text\":\"sun\"}]}]}",
     "{\"messages\":[{\"role\":\"system\",\"content\":\"d\"},{\"role\":\"user\",\"content\":[{\"type\":"
     "\"text\",\"text\":"
     "\"see\"},{\"type\":\"image_url\",\"image_url\":{\"url\":\"http://x/"
     "y\"}}]},{\"role\":\"assistant\",\"reasoning_content\":"
     "\"hm\",\"content\":[{\"type\":\"text\",\"text\":\"ok\"}],\"tool_calls\":[{\"id\":\"c1\",\"type\":"
     "\"function\",\"function\":{"
     "\"name\":\"f\",\"arguments\":\"{}\"}},{\"id\":\"c2\",\"type\":\"function\",\"function\":{\"name\":"
     "\"g\",\"arguments\":"
     "\"{}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"rain\"},{\"role\":\"tool\",\"tool_"
     "call_id\":\"c2\","
     "\"content\":\"sun\"}]}"},
    {"{" HI ",\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"description\":\"d\",\"parameters\":{},"
     "\"strict\":true},{\"type\":"
     "\"function\",\"name\":\"g\",\"parameters\":{}}],\"tool_choice\":{\"type\":\"function\",\"name\":\"g\"},"
     "\"parallel_tool_calls\":false}",
     "{" HI_ASK
     ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"g\",\"parameters\":{}}}],\"tool_choice\":"
     "\"required\",\"parallel_tool_calls\":false}"},
    {"{" HI ",\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\"n\",\"schema\":{},\"strict\":true}}}",
     "{" HI_ASK ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":{}"
     ",\"strict\":true}}}"},
    {"{" HI ",\"text\":{\"format\":{\"type\":\"text\"}},\"previous_response_id\":null,\"background\":false}",
     "{" HI_ASK "}"},
};

static void test_asks(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof asks / sizeof *asks; i++)
        drive_expect_ask(PATH, asks[i].body, DIALECT_BIT(OPENAI), asks[i].want);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *body, *text;
    } cases[] = {
        {"{}", "input: this member is required"},
        {"{\"input\":7}", "input: a text or a list"},
        {"{\"input\":[7]}", "input.0: an item with a type"},
        {"{\"input\":[{\"type\":\"item_reference\",\"id\":\"x\"}]}",
         "input.0: an item of type \"item_reference\""},
        {"{\"input\":[{\"role\":\"tool\",\"content\":\"\"}]}", "input.0: its role"},
        {"{\"input\":[{\"role\":\"user\"}]}", "input.0: a text or a list of parts"},
        {"{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_file\"}]}]}",
         "a part of type \"input_file\""},
        {"{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_image\",\"file_id\":\"f\"}]}]}",
         "files are not stored"},
        {"{" HI ",\"max_output_tokens\":0}", "max_output_tokens: a whole number"},
        {"{" HI ",\"tools\":[{\"type\":\"web_search\"}]}", "tools.0: a tool of type \"web_search\""},
        {"{" HI ",\"tools\":[{\"type\":\"function\"}]}", "tools.0: a function has a name"},
        {"{" HI ",\"tools\":{}}", "tools: a list"},
        {"{" HI ",\"tool_choice\":\"all\"}", "tool_choice: \"auto\""},
        {"{" HI ",\"text\":{\"format\":{\"type\":\"xml\"}}}", "text: its format"},
        {"{" HI ",\"previous_response_id\":\"r\"}", "previous_response_id: answers are not stored"},
        {"{" HI ",\"background\":true}", "background: answers are not stored"},
        {"{" HI ",\"temperature\":\"hot\"}", "temperature: a number"},
        {"{" HI ",\"stream\":1}", "stream: true or false"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        drive_expect_refusal(PATH, cases[i].body, RC_INVALID, cases[i].text);
}

/* ---- answers ---- */

#define TAIL      ",\"created\":7,\"id\":\"chatcmpl-9\",\"model\":\"f\"}\n\n"
#define DELTA(d)  "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{" d "}}]" TAIL
#define FINISH(f) "data: {\"choices\":[{\"finish_reason\":\"" f "\",\"index\":0,\"delta\":{}}]" TAIL
#define USAGE                                                                                                \
    "data: "                                                                                                 \
    "{\"choices\":[],\"usage\":{\"completion_tokens\":2,\"prompt_tokens\":5,\"prompt_tokens_details\":"      \
    "{\"cached_tokens\":4}}" TAIL
#define DONE_MARK "data: [DONE]\n\n"
#define STREAM                                                                                               \
    DELTA("\"reasoning_content\":\"hm\"")                                                                    \
    DELTA("\"content\":\"h\\u00e9\"")                                                                        \
    DELTA("\"content\":\"y\"") DELTA(                                                                        \
        "\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]")     \
        DELTA("\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"}\"}},{\"index\":1,\"function\":{" \
              "\"name\":"                                                                                    \
              "\"g\"}}]")
#define ECHO                                                                                                 \
    "\"model\":\"m\",\"instructions\":null,\"max_output_tokens\":null,\"metadata\":{},\"parallel_tool_"      \
    "calls\":true,"                                                                                          \
    "\"reasoning\":null,\"temperature\":0,\"text\":{\"format\":{\"type\":\"text\"}},\"tool_choice\":"        \
    "\"auto\",\"tools\":[],"                                                                                 \
    "\"top_p\":null,\"previous_response_id\":null,\"store\":false"
#define RESPONSE(status, why, output, usage)                                                                 \
    "{\"id\":\"resp_9\",\"object\":\"response\",\"created_at\":7,\"status\":\"" status "\",\"error\":null,"  \
    "\"incomplete_details\":" why "," ECHO ",\"output\":[" output "],\"usage\":" usage "}"
#define USED                                                                                                 \
    "{\"input_tokens\":5,\"input_tokens_details\":{\"cached_tokens\":4},\"output_tokens\":2,\"output_"       \
    "tokens_details\":"                                                                                      \
    "{\"reasoning_tokens\":0},\"total_tokens\":7}"
#define ITEM(id, status, rest) "{\"id\":\"" id "\",\"status\":\"" status "\"," rest "}"
#define THOUGHT(status, text)                                                                                \
    ITEM("rs_9", status, "\"type\":\"reasoning\",\"summary\":[],\"content\":[" text "]")
#define SAID(status, text)                                                                                   \
    ITEM("msg_9", status, "\"type\":\"message\",\"role\":\"assistant\",\"content\":[" text "]")
#define CALLED(i, status, id, name, args)                                                                    \
    ITEM("fc_9_" i, status,                                                                                  \
         "\"type\":\"function_call\",\"call_id\":\"" id "\",\"name\":\"" name "\",\"arguments\":\"" args     \
         "\"")
#define THOUGHT_PART(t) "{\"type\":\"reasoning_text\",\"text\":\"" t "\"}"
#define SAID_PART(t)    "{\"type\":\"output_text\",\"annotations\":[],\"logprobs\":[],\"text\":\"" t "\"}"
#define ITEMS                                                                                                \
    THOUGHT("completed", THOUGHT_PART("hm"))                                                                 \
    "," SAID("completed", SAID_PART("héy")) "," CALLED("0", "completed", "c", "f", "{}") "," CALLED(         \
        "1", "completed", "call_fc_9_1", "g", "")
#define EVENT(name, n, rest)                                                                                 \
    "event: " name "\ndata: {\"type\":\"" name "\",\"sequence_number\":" #n rest "}\n\n"
#define AT(i, id)   ",\"output_index\":" #i ",\"item_id\":\"" id "\""
#define PART(i, id) AT(i, id) ",\"content_index\":0"

static const char events[] = EVENT(
    "response.created", 0,
    ",\"response\":" RESPONSE("in_progress", "null", "",
                              "null")) EVENT("response.in_progress", 1,
                                             ",\"response\":" RESPONSE(
                                                 "in_progress", "null", "",
                                                 "null")) EVENT("response.output_item.added", 2,
                                                                ",\"output_index\":0,\"item\":" THOUGHT(
                                                                    "in_progress", ""))
    EVENT("response.content_part.added", 3, PART(0, "rs_9") ",\"part\":" THOUGHT_PART("")) EVENT(
        "response.reasoning_text.delta",
        4,
        PART(0,
             "rs_9") ",\"delta\":\"hm\"") EVENT("response.output_item.added", 5,
                                                ",\"output_index\":1,\"item\":" SAID("in_progress", ""))
        EVENT("response.content_part.added", 6, PART(1, "msg_9") ",\"part\":" SAID_PART("")) EVENT(
            "response.output_text.delta",
            7, PART(1, "msg_9") ",\"logprobs\":[],\"delta\":\"hé\"")
            EVENT("response.output_text.delta", 8, PART(1, "msg_9") ",\"logprobs\":[],\"delta\":\"y\"") EVENT(
                "response.output_item.added",
                9, ",\"output_index\":2,\"item\":" CALLED("0", "in_progress", "c", "f", ""))
                EVENT("response.function_call_arguments.delta", 10, AT(2, "fc_9_0") ",\"delta\":\"{\"") EVENT(
                    "response.function_call_arguments.delta", 11, AT(2, "fc_9_0") ",\"delta\":\"}\"")
                    EVENT("response.output_item.added", 12,
                          ",\"output_index\":3,\"item\":" CALLED("1", "in_progress", "call_fc_9_1", "g", ""))
                        EVENT("response.reasoning_text.done", 13, PART(0, "rs_9") ",\"text\":\"hm\"") EVENT(
                            "response.content_part.done", 14, PART(0, "rs_9") ",\"part\":" THOUGHT_PART("hm"))
                            EVENT("response.output_item.done", 15,
                                  ",\"output_index\":0,\"item\":" THOUGHT("completed", THOUGHT_PART("hm")))
                                EVENT("response.output_text.done", 16,
                                      PART(1, "msg_9") ",\"logprobs\":[],\"text\":\"héy\"")
                                    EVENT("response.content_part.done", 17,
                                          PART(1, "msg_9") ",\"part\":" SAID_PART("héy"))
                                        EVENT("response.output_item.done", 18,
                                              ",\"output_index\":1,\"item\":" SAID("completed",
                                                                                   SAID_PART("héy")))
                                            EVENT("response.function_call_arguments.done", 19,
                                                  AT(2, "fc_9_0") ",\"name\":\"f\",\"arguments\":\"{}\"")
                                                EVENT("response.output_item.done", 20,
                                                      ",\"output_index\":2,\"item\":" CALLED("0", "completed",
                                                                                             "c", "f", "{}"))
                                                    EVENT(
                                                        "response.function_call_arguments.done", 21,
                                                        AT(3, "fc_9_1") ",\"name\":\"g\",\"arguments\":\"\"")
                                                        EVENT("response.output_item.done", 22,
                                                              ",\"output_index\":3,\"item\":" CALLED(
                                                                  "1", "completed", "call_fc_9_1", "g", ""))
                                                            EVENT("response.completed", 23,
                                                                  ",\"response\":" RESPONSE(
                                                                      "completed", "null", ITEMS, USED));

static void test_answers(void **state)
{
    (void)state;
    drive_expect(PATH, "{" HI ",\"temperature\":0,\"stream\":true}",
                 STREAM FINISH("tool_calls") USAGE DONE_MARK, ANSWER_DONE, events);
    drive_expect(PATH, "{" HI ",\"temperature\":0}", STREAM FINISH("tool_calls") USAGE DONE_MARK, ANSWER_DONE,
                 RESPONSE("completed", "null", ITEMS, USED));
    drive_expect(PATH, "{" HI ",\"temperature\":0}",
                 DELTA("\"content\":\"a\"") FINISH("length") USAGE DONE_MARK, ANSWER_DONE,
                 RESPONSE("incomplete", "{\"reason\":\"max_output_tokens\"}",
                          SAID("incomplete", SAID_PART("a")), USED));
    drive_expect(PATH, "{" HI ",\"temperature\":0}", STREAM USAGE DONE_MARK, ANSWER_BROKEN, "");
}

static void test_broken(void **state)
{
    (void)state;
    const struct dialect_call *call = drive_call(PATH);
    struct dialect_ask ask;
    struct err err;
    struct buf out = {0};
    assert_int_equal(drive_ask(call, "{" HI ",\"stream\":true}", 1, &ask, &err), RC_OK);
    const struct dialect_error e = {
        .status = 502, .code = RC_BACKEND, .message = STR("it died"), .hint = STR("see")};
    call->broken(ask.state, &e, &out);
    assert_string_equal(out.data, EVENT("error", 0,
                                        ",\"code\":\"backend_failed\",\"param\":null,\"message\":\"it died\","
                                        "\"hint\":\"see\""));
    buf_release(&out);
    dialect_ask_release(call, &ask);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_asks),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
