/* Server-sent events in pieces of every size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/sse.h"

#include <stdlib.h>
#include <string.h>

struct seen {
    struct buf text; /* "event=data;" of every event */
    int stop_after;  /* 0 = never */
};

static bool record(void *arg, struct str event, struct str data)
{
    struct seen *s = arg;
    buf_printf(&s->text, "%.*s=%.*s;", STR_ARG(event), STR_ARG(data));
    return --s->stop_after != 0;
}

/* The same text whole, and in pieces of 1, 2, 3 and 7 bytes. */
static void assert_events(struct str text, const char *want)
{
    static const size_t sizes[] = {1u << 20, 1, 2, 3, 7};
    for (size_t k = 0; k < TABLE_COUNT(sizes); k++) {
        struct sse sse = {0};
        struct seen seen = {0};
        for (size_t at = 0; at < text.n; at += sizes[k]) {
            struct str piece = {text.p + at, text.n - at < sizes[k] ? text.n - at : sizes[k]};
            assert_int_equal(sse_feed(&sse, piece, record, &seen, NULL), RC_OK);
        }
        assert_string_equal(seen.text.data ? seen.text.data : "", want);
        buf_release(&seen.text);
        sse_release(&sse);
    }
}

static void test_events(void **state)
{
    (void)state;
    assert_events(STR("data: a\n\ndata: b\n\n"), "message=a;message=b;");
    assert_events(STR("data: a\r\n\r\ndata: b\r\n\r\n"), "message=a;message=b;");
    assert_events(STR("data: a\r\rdata: b\r\r"), "message=a;message=b;");
    assert_events(STR("data: a\ndata:b\ndata:  c\n\n"), "message=a\nb\n c;");
    assert_events(STR("event: x\ndata: 1\n\ndata: 2\n\n"), "x=1;message=2;");
    assert_events(STR(": comment\nid: 7\nretry: 10\nunknown\n\ndata\n\n"), "message=;");
    assert_events(STR("\xef\xbb\xbf"
                      "data: bom\n\n"),
                  "message=bom;");
    assert_events(STR("data: {\"a\": \"b:c\"}\n\n"), "message={\"a\": \"b:c\"};");
    assert_events(STR("data: unfinished\n"), ""); /* no empty line: no event */
    assert_events(STR("event: lost\n\ndata: a\n\n"), "message=a;");
    assert_events(STR("\n\n\n"), "");
}

static void test_stop(void **state)
{
    (void)state;
    struct sse sse = {0};
    struct seen seen = {.stop_after = 1};
    assert_int_equal(sse_feed(&sse, STR("data: a\n\ndata: b\n\n"), record, &seen, NULL), RC_CANCELLED);
    assert_string_equal(seen.text.data, "message=a;");
    buf_release(&seen.text);
    sse_release(&sse);
}

static void test_limits(void **state)
{
    (void)state;
    const size_t n = 1u << 20;
    auto_free char *block = mem_calloc(1, n);
    struct seen seen = {0};
    struct sse sse = {0};
    enum rc rc = RC_OK;
    size_t fed = 0;
    memset(block, 'x', n);
    /* one line without an end */
    while (rc == RC_OK && fed < 2 * SSE_EVENT_MAX) {
        rc = sse_feed(&sse, (struct str){block, n}, record, &seen, NULL);
        fed += n;
    }
    assert_int_equal(rc, RC_LIMIT);
    assert_int_equal(fed, SSE_EVENT_MAX + n);
    sse_release(&sse);
    /* many lines of one event */
    memcpy(block, "data:", 5);
    block[n - 1] = '\n';
    for (rc = RC_OK, fed = 0; rc == RC_OK && fed < 2 * SSE_EVENT_MAX; fed += n)
        rc = sse_feed(&sse, (struct str){block, n}, record, &seen, NULL);
    assert_int_equal(rc, RC_LIMIT);
    assert_null(seen.text.data);
    sse_release(&sse);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
