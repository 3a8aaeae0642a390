/* The parts that need no sockets: the model finder, accounting, deadlines, the header table. */
#include "proxy/account.h"
#include "proxy/body_model.h"
#include "proxy/head.h"
#include "proxy/wheel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

/* ---- the model finder ---- */

static const struct {
    const char *text;
    const char *model; /* NULL = refused; "" = none */
    const char *says;
} bodies[] = {
    {"{\"model\":\"a\"}", "a", ""},
    {" {\"x\":[{\"model\":\"no\"},\"model\"], \"model\" :\t\"yes\"}\n", "yes", ""},
    {"{\"x\":\"\\\"model\\\":\\\"no\\\"\",\"model\":\"b\"}", "b", ""},
    {"{\"mod\\u0065l\":\"\\ud83d\\ude00\\u20ac\\t\\/\"}", "😀€\t/", ""},
    {"{\"Model\":\"a\",\"model \":\"b\",\"mode\":\"c\"}", "", ""},
    {"{}", "", ""},
    {"{\"model\":\"a\",\"model\":\"a\"}", NULL, "more than once"},
    {"{\"model\":1}", NULL, "not a string"},
    {"{\"model\":{\"model\":\"a\"}}", NULL, "not a string"},
    {"{\"model\":[\"a\"]}", NULL, "not a string"},
    {"{\"model\":true}", NULL, "not a string"},
    {"\"model\"", NULL, "not an object"},
    {"17", NULL, "not an object"},
    {"-0.5e-7", NULL, "not an object"},
    {"{\"a\":1", NULL, "cut off"},
    {"{\"a\":\"", NULL, "cut off"},
    {"{\"a\":1}x", NULL, "after its end"},
    {"{\"a\":1]", NULL, "closes nothing"},
    {"{\"a\":01}", NULL, "malformed number"},
    {"{\"a\":1.}", NULL, "malformed number"},
    {"{\"a\":1,}", NULL, "quoted name"},
    {"[1,]", NULL, "no JSON value"},
    {"{\"a\":nulL}", NULL, "no JSON value"},
    {"{\"a\"=1}", NULL, "without a colon"},
    {"[1 2]", NULL, "lacks a comma"},
    {"{\"a\":\"\x01\"}", NULL, "control character"},
    {"{\"a\":\"\\q\"}", NULL, "unknown escape"},
    {"{\"a\":\"\\u12g4\"}", NULL, "hexadecimal"},
    {"{\"a\":\"\\ud800x\"}", NULL, "surrogate"},
    {"{\"a\":\"\\udc00\"}", NULL, "surrogate"},
    {"{\"a\":\"\xed\xa0\x80\"}", NULL, "UTF-8"},
    {"{\"a\":\"\xc0\xaf\"}", NULL, "UTF-8"},
    {"", NULL, "no body"},
};

static void check_body(size_t row, size_t step)
{
    const char *text = bodies[row].text;
    size_t n = strlen(text);
    struct body_model m;
    struct err err = {.message = ""};
    body_model_init(&m);
    for (size_t end = step; end < n; end += step) { /* every piece in memory of its own */
        char *part = malloc(end);
        assert_non_null(part);
        memcpy(part, text, end);
        bool fine = body_model_scan(&m, part, end);
        free(part);
        if (!fine)
            break;
    }
    enum rc rc = body_model_end(&m, text, n, &err);
    if (!bodies[row].model) {
        assert_int_equal(rc, RC_INVALID);
        if (!strstr(err.message, bodies[row].says))
            fail_msg("%s: %s", text, err.message);
        return;
    }
    char name[64] = "";
    size_t name_n = 0;
    assert_int_equal(rc, RC_OK);
    assert_int_equal(body_model_text(&m.value[BODY_MODEL], text, name, sizeof name, &name_n),
                     *bodies[row].model != 0);
    assert_string_equal(name, bodies[row].model);
}

static void test_bodies(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        for (size_t step = 1; step <= strlen(bodies[i].text) + 1; step++)
            check_body(i, step);
}

static void test_depth(void **state)
{
    (void)state;
    char text[2 * BODY_MODEL_DEPTH + 16];
    for (size_t depth = BODY_MODEL_DEPTH; depth <= BODY_MODEL_DEPTH + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        struct body_model m;
        body_model_init(&m);
        assert_int_equal(body_model_scan(&m, text, 2 * depth), depth == BODY_MODEL_DEPTH);
    }
}

static void test_names(void **state)
{
    (void)state;
    struct body_model m;
    char out[8];
    size_t n = 0;
    static const char text[] = "{\"model\":\"abcdefgh\",\"stream\":true}";
    body_model_init(&m);
    assert_int_equal(body_model_end(&m, text, sizeof text - 1, NULL), RC_OK);
    assert_false(body_model_text(&m.value[BODY_MODEL], text, out, sizeof out, &n)); /* too long */
    assert_memory_equal(text + m.value[BODY_MODEL].at, "\"abcdefgh\"", m.value[BODY_MODEL].n);
    assert_memory_equal(text + m.value[BODY_STREAM].at, "true", m.value[BODY_STREAM].n);
    static const char nul[] = "{\"model\":\"a\\u0000b\"}";
    body_model_init(&m);
    assert_int_equal(body_model_end(&m, nul, sizeof nul - 1, NULL), RC_OK);
    assert_false(body_model_text(&m.value[BODY_MODEL], nul, out, sizeof out, &n));
}

/* ---- accounting ---- */

static const struct {
    const char *tail;
    bool known;
    unsigned prompt, completion, cached;
} tails[] = {
    {"…\"usage\":{\"completion_tokens\":5,\"prompt_tokens\":9,\"prompt_tokens_details\":{\"cached_tokens\":4}"
     "},\"id\":\"x\"}",
     true, 9, 5, 4},
    {"data: {\"usage\": {\"prompt_tokens\": 9, \"completion_tokens\": 5}}\n\ndata: [DONE]\n\n", true, 9, 5,
     0},
    {"{\"usage\":{\"input_tokens\":9,\"cache_read_input_tokens\":3,\"output_tokens\":5}}", true, 12, 5, 3},
    {"data: "
     "{\"message\":{\"usage\":{\"input_tokens\":9,\"cache_read_input_tokens\":3,\"output_tokens\":0}}}\n\n"
     "data: {\"usage\":{\"output_tokens\":5}}\n\n",
     true, 12, 5, 3},
    {"{\"timings\":{\"cache_n\":20,\"prompt_n\":1,\"prompt_ms\":1.5,\"predicted_n\":7}}", true, 21, 7, 20},
    {"{\"usage\":null,\"timings\":{\"prompt_n\":3,\"predicted_n\":7}}", true, 3, 7, 0},
    {"{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}} "
     "{\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":3}}",
     true, 2, 3, 0},
    {"{\"content\":\"\\\"usage\\\":{\\\"prompt_tokens\\\":5}\"}", false, 0, 0, 0},
    {"{\"usage\":{\"prompt_tokens\":12", false, 0, 0, 0}, /* cut: more digits may follow */
    {"{\"usage\":{\"prompt_tokens\":99999999999999999999999}}", false, 0, 0, 0},
    {"{\"usage\":7}", false, 0, 0, 0},
    {"\"usage\"", false, 0, 0, 0},
    {"\"usage\":", false, 0, 0, 0},
    {"", false, 0, 0, 0},
};

static void test_account(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        struct account a;
        size_t n = strlen(tails[i].tail);
        char *copy = malloc(n ? n : 1);
        assert_non_null(copy);
        memcpy(copy, tails[i].tail, n);
        account_read((struct str){copy, n}, &a);
        free(copy);
        assert_int_equal(a.known, tails[i].known);
        assert_int_equal(a.prompt_tokens, tails[i].prompt);
        assert_int_equal(a.completion_tokens, tails[i].completion);
        assert_int_equal(a.cached_tokens, tails[i].cached);
    }
}

static void test_account_timings(void **state)
{
    (void)state;
    static const struct {
        const char *tail;
        unsigned prompt, prompt_us, decode, decode_us;
    } rows[] = {
        {"\"timings\":{\"cache_n\":20,\"prompt_n\":3,\"prompt_ms\":1.5,\"prompt_per_token_ms\":0.5,"
         "\"predicted_n\":7,\"predicted_ms\":70.125}}",
         3, 1500, 7, 70125},
        {"\"usage\":{\"prompt_tokens\":23,\"completion_tokens\":7},\"timings\":{\"prompt_n\":3,"
         "\"prompt_ms\":2,\"predicted_n\":7,\"predicted_ms\":70}}",
         3, 2000, 7, 70000},
        /* a draft model helped */
        {"\"timings\":{\"prompt_n\":3,\"prompt_ms\":2,\"predicted_n\":7,\"predicted_ms\":70,\"draft_n\":9}}",
         0, 0, 0, 0},
        {"\"timings\":{\"prompt_n\":3,\"prompt_ms\":2,\"predicted_n\":7,\"predicted_ms\":70", 0, 0, 0, 0},
        {"\"timings\":{\"prompt_n\":3,\"prompt_ms\":-2,\"predicted_n\":7,\"predicted_ms\":1.2.3}}", 0, 0, 0,
         0},
        {"\"timings\":{\"prompt_n\":3,\"prompt_ms\":1e9,\"predicted_n\":7,\"predicted_ms\":9999999999999999}"
         "}",
         0, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct account a;
        size_t n = strlen(rows[i].tail);
        char *copy = malloc(n);
        assert_non_null(copy);
        memcpy(copy, rows[i].tail, n);
        account_read((struct str){copy, n}, &a);
        free(copy);
        assert_int_equal(a.timing.prompt_tokens, rows[i].prompt);
        assert_int_equal(a.timing.prompt_us, rows[i].prompt_us);
        assert_int_equal(a.timing.decode_tokens, rows[i].decode);
        assert_int_equal(a.timing.decode_us, rows[i].decode_us);
    }
}

static void test_account_window(void **state)
{
    (void)state;
    static struct account_tail t;
    static char text[3 * ACCOUNT_WINDOW], scratch[ACCOUNT_WINDOW];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)('a' + i * 7 % 26);
    for (size_t step = 1; step <= sizeof text; step = step * 3 + 1) {
        t.total = 0;
        for (size_t at = 0; at < sizeof text; at += step) {
            size_t n = sizeof text - at < step ? sizeof text - at : step;
            account_tail_feed(&t, text + at, n);
            struct str s = account_tail_str(&t, scratch);
            size_t end = at + n, want = end < ACCOUNT_WINDOW ? end : ACCOUNT_WINDOW;
            assert_int_equal(s.n, want);
            assert_memory_equal(s.p, text + end - want, want);
        }
    }
}

static void test_account_wants(void **state)
{
    (void)state;
    for (size_t pad = 0; pad < 70; pad++) { /* at every place of a block of sixteen */
        char text[128];
        memset(text, '"', sizeof text);
        memcpy(text + pad, "\"usage\"", 7);
        assert_true(account_wants((struct str){text, pad + 7}));
        assert_false(account_wants((struct str){text, pad + 6}));
        memcpy(text + pad, "\"timings\"", 9);
        assert_true(account_wants((struct str){text, pad + 9}));
        memcpy(text + pad, "\"timingz\"", 9);
        assert_false(account_wants((struct str){text, sizeof text}));
    }
}

/* ---- deadlines ---- */

struct alarm {
    struct wheel_entry e;
    struct wheel *w;
    uint64_t at, due, again_ms;
    unsigned fired;
};

static void on_alarm(struct wheel_entry *e)
{
    struct alarm *a = (struct alarm *)e;
    a->fired++;
    a->at = uv_now(a->w->timer.loop);
    assert_true(a->at >= a->due);
    if (a->again_ms) {
        a->due = a->at + a->again_ms;
        wheel_set(a->w, &a->e, a->again_ms);
        a->again_ms = 0;
    }
}

static void on_timer_closed(uv_handle_t *h)
{
    (void)h;
}

static void test_wheel(void **state)
{
    (void)state;
    static struct wheel w;
    static const uint64_t after[] = {1, 31, 32, 33, 64, 100, 150, 20000};
    uv_loop_t loop;
    struct alarm a[8] = {0}, moved = {0}, cleared = {0}, removed = {0}, twice = {0};
    assert_int_equal(uv_loop_init(&loop), 0);
    wheel_init(&w, &loop, NULL);
    uint64_t now = uv_now(&loop);
    for (size_t i = 0; i < 8; i++) {
        a[i] = (struct alarm){.e.fn = on_alarm, .w = &w, .due = now + after[i]};
        wheel_set(&w, &a[i].e, after[i]);
    }
    moved = (struct alarm){.e.fn = on_alarm, .w = &w, .due = now + 120};
    wheel_set(&w, &moved.e, 40);
    wheel_set(&w, &moved.e, 15000);
    wheel_set(&w, &moved.e, 120); /* later and earlier again */
    cleared = removed = twice = moved;
    cleared.e = removed.e = twice.e = (struct wheel_entry){.fn = on_alarm};
    wheel_set(&w, &cleared.e, 50);
    wheel_clear(&cleared.e);
    wheel_set(&w, &removed.e, 50);
    wheel_remove(&w, &removed.e);
    wheel_remove(&w, &removed.e);
    twice.due = now + 10;
    twice.again_ms = 90;
    wheel_set(&w, &twice.e, 10);
    while (!a[6].fired || !moved.fired || twice.fired < 2)
        assert_int_not_equal(uv_run(&loop, UV_RUN_ONCE), 0);
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(a[i].fired, 1);
    assert_int_equal(a[7].fired, 0);
    assert_int_equal(moved.fired, 1);
    assert_int_equal(cleared.fired + removed.fired, 0);
    wheel_remove(&w, &a[7].e);
    uv_close((uv_handle_t *)&w.timer, on_timer_closed);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* ---- the header table ---- */

static void add(struct head *h, const char *base, const char *name, const char *value)
{
    const char *n = strstr(base, name), *v = strstr(n, value);
    assert_int_equal(head_name(h, base, n, 2), HEAD_FINE); /* in two spans, as reads cut them */
    assert_int_equal(head_name(h, base, n + 2, strlen(name) - 2), HEAD_FINE);
    head_name_end(h);
    assert_int_equal(head_value(h, base, v, strlen(value)), HEAD_FINE);
}

static void test_head(void **state)
{
    (void)state;
    static const char text[] = "HOST: a\nconnection:  close, X-Hop \nx-hop: 1\nX-Other: 2\nTE: x\n";
    static struct head h;
    head_reset(&h);
    add(&h, text, "HOST", "a");
    add(&h, text, "connection", "  close, X-Hop ");
    add(&h, text, "x-hop", "1");
    add(&h, text, "X-Other", "2");
    add(&h, text, "TE", "x");
    head_close(&h, text);
    assert_true(str_eq_c(head_get(&h, text, HDR_HOST), "a"));
    assert_true(str_eq_c(head_get(&h, text, HDR_CONNECTION), "close, X-Hop"));
    assert_true(str_eq_c(head_find(&h, text, "x-other"), "2"));
    assert_int_equal(head_find(&h, text, "x-none").n, 0);
    static const bool passes[] = {false, false, false, true, false};
    for (uint32_t i = 0; i < h.n; i++)
        assert_int_equal(head_passes(&h, text, i, HEAD_TO_UPSTREAM), passes[i]);
    assert_int_equal(head_name(&h, text, text, 1), HEAD_FINE);
    assert_int_equal(head_name(&h, text, text + 5, 1), HEAD_BROKEN); /* a gap */
    head_reset(&h);
    assert_int_equal(head_value(&h, text, text, 1), HEAD_BROKEN);
    for (unsigned i = 0; i < HEAD_MAX_FIELDS; i++) {
        assert_int_equal(head_name(&h, text, text, 1), HEAD_FINE);
        head_name_end(&h);
    }
    assert_int_equal(head_name(&h, text, text, 1), HEAD_TOO_MANY);
    /* header.def is sorted by length, which the search relies on. */
    static const char *const names[] = {
#define HDR(id, name, request, response) name,
#include "proxy/header.def"
#undef HDR
    };
    for (size_t i = 1; i < sizeof names / sizeof *names; i++)
        assert_true(strlen(names[i - 1]) <= strlen(names[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_account),
        cmocka_unit_test(test_account_timings),
        cmocka_unit_test(test_account_window),
        cmocka_unit_test(test_account_wants),
        cmocka_unit_test(test_wheel),
        cmocka_unit_test(test_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
