/* Reasons in sentences: each situation, each decision, and histories that lack or hold anything. */
#include "daemon/why.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW   1800000000000ll
#define AT(s) "\"at_ms\":" #s

static struct why_now is(const char *state)
{
    return (struct why_now){.model = "slow", .state = state, .devices = "", .cause = "", .heat = ""};
}

static yyjson_doc *parse(const char *json)
{
    yyjson_doc *doc;
    struct err err;
    assert_int_equal(json_parse(str_from(json), "decisions", &doc, &err), RC_OK);
    return doc;
}

static void says(const struct why_now *now, const char *decisions, const char *wanted)
{
    struct buf out = {0};
    yyjson_doc *doc = parse(decisions);
    why_summary(now, yyjson_doc_get_root(doc), NOW, &out);
    assert_string_equal(out.data, wanted);
    yyjson_doc_free(doc);
    buf_release(&out);
}

#define READY              "{\"kind\":\"ready\",\"seconds\":4," AT(1799999000000) "}"
#define REASON(code, text) "[{\"code\":\"" code "\",\"text\":\"" text "\"}]"

static void test_unloaded(void **state)
{
    (void)state;
    static const struct {
        const char *decisions, *wanted;
    } rows[] = {
        {"[]", "slow is not loaded: nobody has asked for it yet; a request loads it."},
        {"[{\"kind\":\"evict\"," AT(
             1799999820000) ",\"reasons\":[{\"code\":\"evicted_for\",\"text\":\"idle\","
                            "\"model\":\"slow-b\"}]}," READY "]",
         "slow is not loaded: it left 3 min ago to make room for slow-b; it would take 4.0 s to load again."},
        {"[{\"kind\":\"evict\"," AT(1799999999999) "}]",
         "slow is not loaded: it left just now to make room for another model; a request loads it."},
        {"[{\"kind\":\"unload\"," AT(1799999990000) ",\"reasons\":" REASON(
             "asked", "unload was asked for") "}," READY "]",
         "slow is not loaded: it was unloaded 10 s ago, as was asked for; it would take 4.0 s to load "
         "again."},
        {"[{\"kind\":\"unload\"," AT(1799999990000) ",\"reasons\":" REASON("ttl", "idle for 60 s") "}," READY
                                                                                                   "]",
         "slow is not loaded: it was unloaded 10 s ago, idle for 60 s; it would take 4.0 s to load again."},
        {"[{\"kind\":\"unload\"," AT(1799992800000) ",\"reasons\":" REASON("daemon_stops",
                                                                           "the daemon stops") "}]",
         "slow is not loaded: the daemon stopped 2 h ago; a request loads it."},
        {"[{\"kind\":\"unload\"," AT(1799990000000) ",\"reasons\":" REASON("context",
                                                                           "a client needs more.") "}]",
         "slow is not loaded: it was unloaded 2 h ago: a client needs more; a request loads it."},
        {"[{\"kind\":\"crash\"," AT(1799999940000) ",\"reasons\":" REASON(
             "crashed", "signal 9 ended it.") "}," READY "]",
         "slow is not loaded: it crashed 60 s ago: signal 9 ended it; it would take 4.0 s to load again."},
        {"[{\"kind\":\"crash\"," AT(1799999940000) "},{\"kind\":\"load\"},{\"kind\":\"crash\"}]",
         "slow is not loaded: it crashed 60 s ago (2 times in a row); a request loads it."},
        {"[{\"kind\":\"refuse\"," AT(1799999940000) ",\"reasons\":" REASON("no_fit",
                                                                           "RAM is 3 GiB short") "}]",
         "slow is not loaded: it was refused 60 s ago: RAM is 3 GiB short; a request loads it."},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        struct why_now now = is("unloaded");
        says(&now, rows[i].decisions, rows[i].wanted);
    }
}

static void test_predicted_load(void **state)
{
    (void)state;
    struct why_now now = is("unloaded");
    now.load_seconds = 0.85;
    says(&now, "[]", "slow is not loaded: nobody has asked for it yet; it would take 850 ms to load.");
}

static void test_ready(void **state)
{
    (void)state;
    struct why_now now = is("ready");
    now.devices = "Host (45 MiB)";
    now.since_ms = 300000;
    now.slots = 4;
    now.busy = 1;
    says(&now, "[]", "slow runs on Host (45 MiB), for 5 min; 1 of 4 slots are busy.");
    now.waiting = 7;
    now.pinned = true;
    says(&now, "[]", "slow runs on Host (45 MiB), for 5 min; 1 of 4 slots are busy, 7 wait; it is pinned.");
}

/* A whole evening: loaded, displaced, loaded again after two tries, at the cost of the other. */
static void test_ready_after_an_evening(void **state)
{
    (void)state;
    struct why_now now = is("ready");
    now.devices = "Host (45 MiB)";
    now.since_ms = 2000;
    now.slots = 4;
    says(
        &now,
        "[" READY
        ",{\"kind\":\"load\",\"reasons\":[{\"code\":\"cpu_no_gpu\",\"text\":\"There is no GPU, so the CPU "
        "runs all 4 layers.\"},{\"code\":\"displaces\",\"text\":\"slow-b, idle for 3 s, had to leave: it held 45 "
        "MiB\"}]},"
        "{\"kind\":\"ladder\"},{\"kind\":\"fail\"," AT(
            1799999000000) "},{\"kind\":\"load\"},{\"kind\":\"ladder\"},"
                           "{\"kind\":\"evict\"," AT(
                               1799999520000) ",\"reasons\":[{\"model\":\"slow-b\"}]},"
                                              "{\"kind\":\"ready\"},{\"kind\":\"ladder\"}]",
        "slow runs on Host (45 MiB), for 2 s; 0 of 4 slots are busy. There is no GPU, so the CPU runs all 4 "
        "layers. To "
        "make room, slow-b, idle for 3 s, had to leave: it held 45 MiB. 2 loads before ran out of memory and "
        "were tried "
        "again with less. Before that, its load failed 16 min ago.");
}

static void test_heat(void **state)
{
    (void)state;
    struct why_now now = is("ready");
    now.heat = "Host is at 92 °C, so it is sent at most 2 requests at a time";
    says(&now, "[]", "slow runs, for 0 s. Host is at 92 °C, so it is sent at most 2 requests at a time.");
}

static void test_on_the_way(void **state)
{
    (void)state;
    struct why_now now = is("starting");
    now.devices = "CUDA0 (4.6 GiB)";
    now.since_ms = 2500;
    now.progress = 0.43;
    now.load_seconds = 12;
    says(&now,
         "[{\"kind\":\"load\",\"reasons\":[{\"code\":\"displaces\",\"text\":\"b "
         "leaves\"},{\"code\":\"displaces\","
         "\"text\":\"c leaves\"}]}]",
         "slow is being loaded on CUDA0 (4.6 GiB), for 2 s, 43 % done; about 12 s are expected. To make "
         "room, b leaves; c "
         "leaves.");
    now = is("planned");
    says(&now,
         "[{\"kind\":\"wait\"," AT(1799999996000) ",\"reasons\":" REASON("waits_for_room",
                                                                         "busy: slow-b") "}]",
         "slow has waited for memory for 4 s: busy: slow-b.");
    says(&now,
         "[{\"kind\":\"load\",\"reasons\":[{\"code\":\"displaces\",\"text\":\"b "
         "leaves\"}]},{\"kind\":\"wait\"}]",
         "slow is placed, and starts when others have left. To make room, b leaves.");
    says(&now, "[]", "slow is looked at, to be loaded.");
    now = is("draining");
    now.busy = 2;
    says(&now, "[{\"kind\":\"evict\"," AT(1799999998000) ",\"reasons\":[{\"model\":\"b\"}]}]",
         "slow is on its way out, to make room for b; 2 of its requests still run.");
}

static void test_failed(void **state)
{
    (void)state;
    struct why_now now = is("failed");
    now.cause = "out of memory";
    says(&now, "[]", "slow is not loaded: out of memory.");
    says(&now,
         "[{\"kind\":\"fail\"," AT(1799999880000) ",\"reasons\":" REASON(
             "exit",
             "it ended with status 1") "},"
                                       "{\"kind\":\"ladder\"},{\"kind\":\"fail\"},{\"kind\":\"load\"}]",
         "slow is not loaded: its load failed 2 min ago: it ended with status 1 (2 times in a row). 1 load "
         "before ran out of "
         "memory and was tried again with less.");
    now.cause = "";
    says(&now, "[]", "slow is not loaded: it failed.");
}

static void test_no_model(void **state)
{
    (void)state;
    struct why_now now = is("");
    now.model = "CUDA0";
    says(&now, "[]", "CUDA0 has no decisions yet.");
    says(&now,
         "[{\"kind\":\"thermal_critical\"," AT(1799999970000) ",\"reasons\":" REASON(
             "x", "CUDA0 is at 91 °C.") "}]",
         "CUDA0 is too hot, 30 s ago: CUDA0 is at 91 °C.");
    now = is("napping"); /* of a later version */
    says(&now, "[]", "slow is napping.");
}

static void test_sentences(void **state)
{
    (void)state;
    static const struct {
        const char *decision, *wanted;
    } rows[] = {
        {"{}", "? ?."},
        {"{\"model\":\"a\",\"kind\":\"load\"}", "a was placed."},
        {"{\"model\":\"a\",\"kind\":\"ready\",\"seconds\":1.25}", "a became ready after 1.2 s."},
        {"{\"model\":\"a\",\"kind\":\"ready\",\"seconds\":-1}", "a became ready."},
        {"{\"model\":\"a\",\"kind\":\"ready\",\"seconds\":90}", "a became ready after 90 s."},
        {"{\"instance\":\"a#1\",\"kind\":\"crash\",\"reasons\":[{\"text\":\"one.\"},{\"code\":\"two\"},{}]}",
         "a#1 crashed: one; two."},
        {"{\"model\":\"a\",\"kind\":\"evict\",\"reasons\":[{\"text\":\"idle for 3 s; its 45 MiB make room "
         "for b\"}]}",
         "a was unloaded to make room: idle for 3 s; its 45 MiB make room for b."},
        {"{\"model\":\"a\",\"kind\":\"novel\"}", "a novel."},
        {"{\"model\":3,\"kind\":[],\"reasons\":{\"a\":1},\"seconds\":\"x\"}", "? ?."},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        struct buf out = {0};
        yyjson_doc *doc = parse(rows[i].decision);
        why_sentence(yyjson_doc_get_root(doc), &out);
        assert_string_equal(out.data, rows[i].wanted);
        yyjson_doc_free(doc);
        buf_release(&out);
    }
}

static void test_all_models(void **state)
{
    (void)state;
    struct buf out = {0};
    struct why_now list[] = {is("unloaded"), is("ready"), is("planned"), is("failed")};
    why_summary_all(list, 1, &out);
    assert_string_equal(out.data, "Nothing is loaded.");
    buf_clear(&out);
    list[1].model = "a";
    list[1].devices = "Host (45 MiB)";
    list[2].model = "b";
    list[2].waiting = 2;
    list[3].model = "c";
    why_summary_all(list, TABLE_COUNT(list), &out);
    assert_string_equal(out.data, "a runs on Host (45 MiB); b waits, 2 requests wait; c failed to load.");
    buf_release(&out);
}

/* Whatever the history holds, there is an answer. */
static void test_hostile_histories(void **state)
{
    (void)state;
    static const char *const states[] = {"unloaded", "failed",   "ready", "starting",
                                         "planned",  "draining", "",      "x"};
    static const char *const histories[] = {
        "null",
        "{}",
        "3",
        "[null,3,\"x\",[],{}]",
        "[{\"kind\":null,\"reasons\":3}]",
        "[{\"kind\":\"evict\",\"reasons\":[3]}]",
        "[{\"kind\":\"evict\",\"reasons\":[{\"model\":7}]}]",
        "[{\"kind\":\"fail\",\"at_ms\":-5},{\"kind\":\"fail\",\"at_ms\":9223372036854775807}]",
        "[{\"kind\":\"ready\",\"seconds\":1e300},{\"kind\":\"unload\",\"reasons\":[{\"code\":\"ttl\"}]}]",
        "[{\"kind\":\"load\",\"reasons\":[{\"code\":\"displaces\"}]},{\"kind\":\"wait\",\"reasons\":[]}]",
    };
    for (size_t s = 0; s < TABLE_COUNT(states); s++)
        for (size_t h = 0; h < TABLE_COUNT(histories); h++) {
            struct buf out = {0};
            struct why_now now = is(states[s]);
            now.progress = -1;
            now.load_seconds = -3;
            yyjson_doc *doc = parse(histories[h]);
            why_summary(&now, yyjson_doc_get_root(doc), NOW, &out);
            assert_true(out.n > 4 && memcmp(out.data, "slow", 4) == 0 && out.data[out.n - 1] == '.');
            yyjson_doc_free(doc);
            buf_release(&out);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unloaded),
        cmocka_unit_test(test_predicted_load),
        cmocka_unit_test(test_ready),
        cmocka_unit_test(test_ready_after_an_evening),
        cmocka_unit_test(test_heat),
        cmocka_unit_test(test_on_the_way),
        cmocka_unit_test(test_failed),
        cmocka_unit_test(test_no_model),
        cmocka_unit_test(test_sentences),
        cmocka_unit_test(test_all_models),
        cmocka_unit_test(test_hostile_histories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
