/* The model of a form: what is found, what is refused, in pieces of every size; and through the door. */
#include "door.h"
#include "proxy/body_form.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TYPE        "multipart/form-data; boundary=B-1"
#define FIELD(name) "--B-1\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n"
#define MODEL       FIELD("model")
#define SOUND                                                                                                \
    "--B-1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: "           \
    "audio/wav\r\n\r\n\0\1\r\n--\r\n--B\r\n\xff\r\n"
#define LAST "--B-1--\r\n"

#define TEXT(literal) literal, sizeof(literal) - 1

static const struct {
    const char *type, *body;
    size_t n;
    const char *model; /* "" = none given; NULL = refused */
    const char *says;
} forms[] = {
    {TYPE, TEXT(MODEL "a\r\n" SOUND LAST), "a", NULL},
    {TYPE, TEXT(SOUND MODEL "some/m:q4\r\n" LAST), "some/m:q4", NULL},
    {TYPE, TEXT(SOUND LAST), "", NULL},
    {TYPE, TEXT(LAST), "", NULL},
    {TYPE, TEXT("a preamble\r\n" MODEL "a\r\n--B-1--"), "a", NULL},
    {TYPE, TEXT(FIELD("Model") "no\r\n" MODEL "a\r\n" LAST "an epilogue\r\n" MODEL "b\r\n"), "a", NULL},
    {"Multipart/Form-Data; charset=utf-8 ; BOUNDARY=\"B-1\"", TEXT(MODEL "a\r\n" LAST), "a", NULL},
    {TYPE,
     TEXT("--B-1\r\nContent-Type: text/plain\r\ncontent-disposition:form-data;name=model\r\n\r\na\r\n" LAST),
     "a", NULL},
    {TYPE, TEXT(MODEL "a\r\n" MODEL "a\r\n" LAST), NULL, "more than once"},
    {TYPE, TEXT(MODEL "a\r\n" SOUND MODEL "b\r\n" LAST), NULL, "more than once"},
    {TYPE, TEXT("--B-1\r\nContent-Disposition: form-data; name=\"model\"; filename=\"m\"\r\n\r\na\r\n" LAST),
     NULL, "a file in the field"},
    {TYPE, TEXT(MODEL "a\r\n"), NULL, "cut off"},
    {TYPE, TEXT(MODEL "a\r\n--B-1"), NULL, "cut off"},
    {TYPE, TEXT(""), NULL, "cut off"},
    {TYPE, TEXT("no form at all"), NULL, "cut off"},
    {TYPE, TEXT(MODEL "a\r\n--B-12\r\n" LAST), NULL, "only begins like its boundary"},
    {TYPE, TEXT(MODEL "a\r\n--B-1 \r\n" LAST), NULL, "only begins like its boundary"},
    {TYPE, TEXT("--B-1\r\n--B-1--\r\n"), NULL, "malformed head"},
    {TYPE, TEXT("--B-1\r\n\r\na\r\n" LAST), NULL, "malformed head"},
    {TYPE, TEXT("--B-1\r\nContent-Type: text/plain\r\n\r\na\r\n" LAST), NULL, "without a name"},
    {TYPE, TEXT("--B-1\r\nContent-Disposition: form-data;\r\n name=\"model\"\r\n\r\na\r\n" LAST), NULL,
     "malformed"},
    {TYPE, TEXT("--B-1\r\nContent-Disposition: form-data; name=\"x\"; name=\"model\"\r\n\r\na\r\n" LAST),
     NULL, "malformed name"},
    {TYPE, TEXT("--B-1\r\nContent-Disposition: form-data; name=\"mo\\del\"\r\n\r\na\r\n" LAST), NULL,
     "malformed name"},
    {TYPE, TEXT("--B-1\r\nContent-Disposition: form-data; name=\"model\r\n\r\na\r\n" LAST), NULL,
     "Content-Disposition"},
    {TYPE, TEXT("--B-1\r\nContent-Disposition: attachment; name=\"model\"\r\n\r\na\r\n" LAST), NULL,
     "Content-Disposition"},
    {"multipart/form-data", TEXT(MODEL "a\r\n" LAST), NULL, "no usable boundary"},
    {"multipart/form-data; boundary=", TEXT(MODEL "a\r\n" LAST), NULL, "no usable boundary"},
    {"multipart/form-data; boundary=\"B-1", TEXT(MODEL "a\r\n" LAST), NULL, "no usable boundary"},
    {"multipart/form-data; boundary=B-1; boundary=B-2", TEXT(MODEL "a\r\n" LAST), NULL,
     "more than one boundary"},
    {"multipart/form-data; boundary=0123456789012345678901234567890123456789012345678901234567890123456789x",
     TEXT(LAST), NULL, "no usable boundary"},
    {"multipart/mixed; boundary=B-1", TEXT(MODEL "a\r\n" LAST), NULL, "other than form-data"},
};

static void check_form(size_t row, size_t step)
{
    struct body_form f;
    struct err err = {.message = ""};
    size_t n = forms[row].n;
    (void)body_form_init(&f, str_from(forms[row].type));
    for (size_t end = step; end < n; end += step) { /* every piece in memory of its own */
        char *part = malloc(end);
        assert_non_null(part);
        memcpy(part, forms[row].body, end);
        bool fine = body_form_scan(&f, part, end);
        free(part);
        if (!fine)
            break;
    }
    enum rc rc = body_form_end(&f, forms[row].body, n, &err);
    if (!forms[row].model) {
        if (rc != RC_INVALID || !strstr(err.message, forms[row].says))
            fail_msg("row %zu: %s", row, err.message);
        assert_true(err.hint[0] != '\0');
        return;
    }
    char name[64] = "";
    size_t name_n = 0;
    if (rc != RC_OK)
        fail_msg("row %zu, step %zu: %s", row, step, err.message);
    assert_int_equal(f.model_seen, *forms[row].model != 0);
    assert_int_equal(body_form_text(&f, forms[row].body, name, sizeof name, &name_n), f.model_seen);
    assert_string_equal(name, forms[row].model);
}

static void test_forms(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        for (size_t step = 1; step <= forms[i].n + 1; step++)
            check_form(i, step);
}

static void test_limits(void **state)
{
    (void)state;
    struct buf b = {0};
    struct body_form f;
    struct err err = {.message = ""};
    for (unsigned i = 0; i < BODY_FORM_PARTS + 1; i++)
        assert_true(buf_puts(&b, FIELD("x") "1\r\n"));
    assert_true(body_form_init(&f, STR(TYPE)));
    assert_int_equal(body_form_end(&f, b.data, b.n, &err), RC_INVALID);
    assert_non_null(strstr(err.message, "too many parts"));
    buf_clear(&b);
    assert_true(buf_printf(
        &b, "--B-1\r\nX: %0*d\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n" LAST, 5000, 0));
    assert_true(body_form_init(&f, STR(TYPE)));
    assert_int_equal(body_form_end(&f, b.data, b.n, &err), RC_INVALID);
    assert_non_null(strstr(err.message, "malformed head"));
    buf_release(&b);
}

static void test_texts(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        size_t n;
        bool fine;
    } rows[] = {
        {TEXT(MODEL "abc\r\n" LAST), true},   {TEXT(MODEL "abcd\r\n" LAST), false},
        {TEXT(MODEL "\r\n" LAST), false},     {TEXT(MODEL "a\0\r\n" LAST), false},
        {TEXT(MODEL "a\nb\r\n" LAST), false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct body_form f;
        struct err err;
        char out[4];
        size_t n;
        assert_true(body_form_init(&f, STR(TYPE)));
        assert_int_equal(body_form_end(&f, rows[i].body, rows[i].n, &err), RC_OK);
        assert_int_equal(body_form_text(&f, rows[i].body, out, sizeof out, &n), rows[i].fine);
    }
}

/* ---- through the door ---- */

static void post_form(int fd, const char *target, const char *body, size_t n)
{
    struct buf b = {0};
    assert_true(buf_printf(
        &b, "POST %s HTTP/1.1\r\nHost: door\r\nContent-Type: " TYPE "\r\nContent-Length: %zu\r\n\r\n", target,
        n));
    assert_true(buf_append(&b, body, n));
    client_send_n(fd, b.data, b.n);
    buf_release(&b);
}

/* The field routes, the name is replaced in place, all other bytes pass untouched. */
static void test_door(void **state)
{
    (void)state;
    static const struct {
        const char *target, *body;
        size_t n;
        const char *asked, *received;
        size_t received_n;
    } rows[] = {
        {"/v1/audio/transcriptions", TEXT(MODEL "a\r\n" SOUND LAST), "a", TEXT(MODEL "canon\r\n" SOUND LAST)},
        {"/v1/audio/transcriptions?model=q", TEXT(SOUND MODEL "a b\r\n" LAST), "a b",
         TEXT(SOUND MODEL "canon\r\n" LAST)},
        {"/v1/audio/transcriptions?model=q", TEXT(SOUND LAST), "q", TEXT(MODEL "canon\r\n" SOUND LAST)},
        {"/v1/audio/transcriptions", TEXT("pre\r\n" SOUND LAST), "",
         TEXT("pre\r\n" MODEL "canon\r\n" SOUND LAST)},
    };
    struct door_setup setup = door_default();
    setup.replace_model = true;
    struct door *d = door_start(&setup);
    int fd = client_connect(d), back = -1;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        post_form(fd, rows[i].target, rows[i].body, rows[i].n);
        if (back < 0)
            back = backend_accept(d);
        struct buf got = backend_request(back);
        const char *at = memmem(got.data, got.n, "\r\n\r\n", 4);
        assert_non_null(at);
        assert_int_equal(got.n - (size_t)(at + 4 - got.data), rows[i].received_n);
        assert_memory_equal(at + 4, rows[i].received, rows[i].received_n);
        assert_non_null(strstr(got.data, "Content-Type: " TYPE "\r\n"));
        buf_release(&got);
        char model[64];
        door_asked(d, model, sizeof model);
        assert_string_equal(model, rows[i].asked);
        backend_answer(back, "{\"text\":\"hi\"}");
        struct answer a = client_answer(fd, false);
        assert_int_equal(a.status, 200);
        answer_release(&a);
    }
    close(fd);
    close(back);
    door_stop(d, false);
}

/* What is wrong is told as early as it is known, and reaches nobody. */
static void test_door_refuses(void **state)
{
    (void)state;
    static const struct {
        const char *target, *body;
        size_t n;
        const char *says;
    } rows[] = {
        {"/v1/audio/transcriptions", TEXT(MODEL "a\r\n" MODEL "b\r\n" LAST), "more than once"},
        {"/v1/audio/transcriptions", TEXT(MODEL "a\r\n"), "cut off"},
        {"/v1/audio/transcriptions", TEXT(MODEL "\r\n" LAST), "no usable name"},
        {"/v1/audio/transcriptions?model=a&model=b", TEXT(SOUND LAST),
         "query has \\\"model\\\" more than once"},
        {"/v1/audio/transcriptions?model=%zz", TEXT(SOUND LAST), "no usable name"},
    };
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int fd = client_connect(d);
        post_form(fd, rows[i].target, rows[i].body, rows[i].n);
        struct answer a = client_answer(fd, false);
        if (a.status != 400 || !strstr(a.body.data, rows[i].says))
            fail_msg("row %zu: %d %s", i, a.status, a.body.data);
        answer_release(&a);
        close(fd);
    }
    int fd = client_connect(d);
    client_send(fd, "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\nContent-Type: " TYPE
                    "\r\nContent-Length: 1000000\r\n\r\n--B-1\r\n--B-1");
    client_send(fd, "\r\nx");
    struct answer a = client_answer(fd, false);
    assert_int_equal(a.status, 400);
    answer_release(&a);
    close(fd);
    a = client_ask(d, "GET /props?model=a&model=b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(a.status, 400);
    answer_release(&a);
    assert_int_equal(door_count(d, DOOR_ACQUIRED), 0);
    assert_true(backend_is_quiet(d));
    door_stop(d, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms), cmocka_unit_test(test_limits),       cmocka_unit_test(test_texts),
        cmocka_unit_test(test_door),  cmocka_unit_test(test_door_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
