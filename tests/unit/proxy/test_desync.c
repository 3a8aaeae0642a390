/* Framings on which two readers may disagree: "Transfer-Encoding: chunked" with one byte put in or taken out,
 * beside a Content-Length. Whatever the mutation, either the request is refused and nothing of it reaches the
 * backend, or the backend gets one request framed by its length alone, and the byte behind it is read as the
 * next request. */
#include "door.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define BODY "{\"model\":\"m\",\"a\":\"0\"}"

static const char field[] = "Transfer-Encoding: chunked";

/* Sends `line` as a field of its own beside the length. */
static void send_request(int fd, const char *line, size_t n)
{
    struct buf b = {0};
    assert_true(buf_printf(&b, "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n",
                           sizeof BODY - 1));
    assert_true(buf_append(&b, line, n));
    assert_true(buf_puts(&b, "\r\n\r\n" BODY));
    client_send_n(fd, b.data, b.n);
    buf_release(&b);
}

static size_t count(const struct buf *b, const char *lower)
{
    size_t n = 0, len = strlen(lower);
    for (size_t i = 0; i + len <= b->n; i++)
        n += !strncasecmp(b->data + i, lower, len);
    return n;
}

/* The backend has one request, with the client's body and no trace of another framing. */
static void expect_plain(int back, const char *line, size_t n)
{
    struct buf got = backend_request(back);
    const char *end = memmem(got.data, got.n, "\r\n\r\n", 4);
    struct buf head = {.data = got.data, .n = (size_t)(end - got.data)};
    bool control = false; /* that a reader could take for an end of a line, or skip */
    for (size_t i = 0; i < head.n; i++)
        control |= (unsigned char)head.data[i] < 0x20 && !memchr("\r\n\t", head.data[i], 3);
    if (control || count(&head, "\ncontent-length:") != 1 || count(&head, "\ntransfer-encoding:") ||
        count(&head, "\n") != count(&head, "\r\n") || count(&head, "\r") != count(&head, "\r\n") ||
        strcmp(end + 4, BODY) != 0)
        fail_msg("%.*s: the backend gets %s", (int)n, line, got.data);
    buf_release(&got);
}

static void try_line(struct door *d, const char *line, size_t n, unsigned *passed)
{
    int fd = client_connect(d);
    send_request(fd, line, n);
    /* Either an answer of the door or a request at the backend: the lease tells which. */
    struct answer a = {0};
    unsigned before = *passed;
    char first;
    while (door_count(d, DOOR_ACQUIRED) == before && recv(fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) <= 0)
        (void)door_counters(d); /* one turn of the loop */
    if (door_count(d, DOOR_ACQUIRED) > before) {
        (*passed)++;
        int back = backend_accept(d);
        expect_plain(back, line, n);
        backend_answer(back, OK_JSON);
        a = client_answer(fd, false);
        assert_int_equal(a.status, 200);
        close(back);
    } else {
        a = client_answer(fd, false);
        if (a.status != 400 && a.status != 501)
            fail_msg("%.*s: %d", (int)n, line, a.status);
        assert_true(answer_has(&a, "Connection: close"));
        assert_true(backend_is_quiet(d));
    }
    answer_release(&a);
    close(fd);
    door_wait(d, DOOR_RELEASED, *passed);
}

/* A byte put in at each place where readers are known to differ; with ARRIERO_TORTURE at every place. */
static void test_bytes_put_in(void **state)
{
    (void)state;
    static const size_t edges[] = {0, 8, 17, 18, 19, sizeof field - 1};
    bool all = getenv("ARRIERO_TORTURE") != NULL;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    unsigned passed = 0;
    for (size_t e = 0; all ? e < sizeof field : e < sizeof edges / sizeof *edges; e++)
        for (unsigned byte = 0; byte < 256; byte += all || byte < 0x30 || byte >= 0x7e ? 1 : 13) {
            size_t at = all ? e : edges[e];
            char line[sizeof field + 1];
            memcpy(line, field, at);
            line[at] = (char)byte;
            memcpy(line + at + 1, field + at, sizeof field - 1 - at);
            try_line(d, line, sizeof field, &passed);
        }
    assert_true(passed > 0); /* names that are none of ours pass: both outcomes were seen */
    door_stop(d, false);
}

static void test_known_ones(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "Transfer-Encoding: chunked",
        "transfer-encoding:chunked",
        "TRANSFER-ENCODING: CHUNKED",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked;q=0.5",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: chunked\r\n , identity",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding\r\n : chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\r\n\tTransfer-Encoding: chunked",
        "Content-Length: 5",
        "Content-Length: 21\r\nContent-Length: 21",
        "Content-Length : 5",
        "Content-Length: 21, 5",
        "Content-Length: 0x15",
        "Content-Length: ",
    };
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    unsigned passed = 0;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        try_line(d, lines[i], strlen(lines[i]), &passed);
    assert_int_equal(passed, 0);
    door_stop(d, false);
}

/* What stands between a chunk's size and its data, and where the size ends. */
static void test_chunks(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "15 \r\n" BODY "\r\n0\r\n\r\n",    "15\t\r\n" BODY "\r\n0\r\n\r\n",
        " 15\r\n" BODY "\r\n0\r\n\r\n",    "0x15\r\n" BODY "\r\n0\r\n\r\n",
        "+15\r\n" BODY "\r\n0\r\n\r\n",    "-15\r\n" BODY "\r\n0\r\n\r\n",
        "15\n" BODY "\r\n0\r\n\r\n",       "15\r" BODY "\r\n0\r\n\r\n",
        "15\r\n" BODY "\n0\r\n\r\n",       "15\r\n" BODY "0\r\n\r\n",
        "15;\n" BODY "\r\n0\r\n\r\n",      "15;a\rb\r\n" BODY "\r\n0\r\n\r\n",
        "\r\n15\r\n" BODY "\r\n0\r\n\r\n", "15\r\n" BODY "\r\n0\n\r\n",
        "g\r\n" BODY "\r\n0\r\n\r\n",
    };
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct buf b = {0};
        assert_true(buf_printf(
            &b, "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%s",
            bodies[i]));
        struct answer a = client_ask(d, b.data);
        if (a.status != 400)
            fail_msg("%s: %d", bodies[i], a.status);
        answer_release(&a);
        buf_release(&b);
    }
    assert_int_equal(door_count(d, DOOR_ACQUIRED), 0);
    assert_true(backend_is_quiet(d));
    door_stop(d, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_put_in),
        cmocka_unit_test(test_known_ones),
        cmocka_unit_test(test_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
