/* Driving translators: see drive.h. */
#include "drive.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

const struct dialect_call *drive_call(const char *path)
{
    for (unsigned id = 0; id < DIALECTS; id++) {
        const struct dialect *d = dialect_at((enum dialect_id)id);
        for (size_t i = 0; i < d->n_calls; i++)
            if (!strcmp(d->calls[i].path, path))
                return &d->calls[i];
    }
    return NULL;
}

enum rc drive_ask(const struct dialect_call *call, const char *body, unsigned speaks, struct dialect_ask *ask,
                  struct err *err)
{
    yyjson_doc *doc = yyjson_read(body, strlen(body), YYJSON_READ_NOFLAG);
    if (!doc)
        fail_msg("no JSON: %s", body);
    const struct dialect_terms terms = {.speaks = speaks, .model = STR("m"), .request_id = STR("req-1")};
    *ask = (struct dialect_ask){.reply = DIALECT_EVENTS};
    enum rc rc = call->ask(&terms, yyjson_doc_get_root(doc), ask, err);
    yyjson_doc_free(doc);
    return rc;
}

enum answer_state drive_answer(const struct dialect_call *call, struct dialect_ask *ask, const char *stream,
                               size_t step, struct buf *out)
{
    struct answer *a = answer_new(call, ask, 1 << 20, 0, 0);
    assert_true(answer_head(a, 200, STR("text/event-stream")));
    for (size_t at = 0, n = strlen(stream); at < n; at += step)
        (void)answer_feed(a, (struct str){stream + at, n - at < step ? n - at : step}, 0, out);
    enum answer_state state = answer_end(a, 0, out);
    answer_free(a);
    return state;
}

void drive_expect(const char *path, const char *body, const char *stream, enum answer_state want_state,
                  const char *want)
{
    const struct dialect_call *call = drive_call(path);
    for (size_t step = 1; step <= 65; step++) {
        struct dialect_ask ask;
        struct err err;
        struct buf out = {0};
        if (drive_ask(call, body, DIALECT_BIT(OPENAI), &ask, &err) != RC_OK)
            fail_msg("%s was refused: %s", body, err.message);
        enum answer_state state = drive_answer(call, &ask, stream, step == 65 ? SIZE_MAX / 2 : step, &out);
        assert_int_equal(state, want_state);
        assert_string_equal(out.data ? out.data : "", want);
        buf_release(&out);
        dialect_ask_release(call, &ask);
    }
}

void drive_expect_ask(const char *path, const char *body, unsigned speaks, const char *want)
{
    const struct dialect_call *call = drive_call(path);
    struct dialect_ask ask;
    struct err err;
    if (drive_ask(call, body, speaks, &ask, &err) != RC_OK)
        fail_msg("%s was refused: %s", body, err.message);
    yyjson_doc *got = yyjson_read(ask.body.data, ask.body.n, 0),
               *expected = yyjson_read(want, strlen(want), 0);
    assert_non_null(expected);
    if (!yyjson_equals(yyjson_doc_get_root(got), yyjson_doc_get_root(expected)))
        fail_msg("%s\nbecame %s\nnot    %s", body, ask.body.data, want);
    yyjson_doc_free(got);
    yyjson_doc_free(expected);
    dialect_ask_release(call, &ask);
}

void drive_expect_refusal(const char *path, const char *body, enum rc rc, const char *text)
{
    const struct dialect_call *call = drive_call(path);
    struct dialect_ask ask;
    struct err err = {.message = ""};
    assert_int_equal(drive_ask(call, body, DIALECT_BIT(OPENAI), &ask, &err), rc);
    if (!strstr(err.message, text))
        fail_msg("%s: \"%s\" does not say \"%s\"", body, err.message, text);
    dialect_ask_release(call, &ask);
}
