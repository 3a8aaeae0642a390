/* Embeddings in parts: what the backend is sent for whom, and what each client gets of it. A vector tells
 * the text that it belongs to, so that order and owner show. The time for joining is longer than any test: a
 * batch sets out when it is full, or when the one before is back. */
#include "door.h"

#include "base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NEVER_MS 3600000u

static struct door *start(uint32_t batch, uint32_t join_ms)
{
    struct door_setup s = door_default();
    s.opt.embed_batch = batch;
    s.opt.embed_join_ms = join_ms;
    return door_start(&s);
}

/* ---- the client ---- */

/* Each text is a number, which its vector begins with. */
static int ask(struct door *d, const char *texts, const char *members)
{
    struct buf b = {0};
    char body[512];
    int fd = client_connect(d);
    (void)snprintf(body, sizeof body, "{\"model\":\"m\",\"input\":%s%s}", texts, members);
    assert_true(buf_printf(&b,
                           "POST /v1/embeddings HTTP/1.1\r\nHost: door\r\nContent-Type: application/json\r\n"
                           "Content-Length: %zu\r\n\r\n%s",
                           strlen(body), body));
    client_send_n(fd, b.data, b.n);
    buf_release(&b);
    return fd;
}

static void expect_vectors(int fd, const int *numbers, size_t n, uint64_t tokens)
{
    struct answer a = client_answer(fd, false);
    assert_int_equal(a.status, 200);
    yyjson_doc *doc = yyjson_read(a.body.data, a.body.n, 0);
    yyjson_val *root = yyjson_doc_get_root(doc), *data = yyjson_obj_get(root, "data");
    assert_int_equal(yyjson_arr_size(data), n);
    for (size_t i = 0; i < n; i++) {
        yyjson_val *v = yyjson_arr_get(data, i);
        assert_int_equal(yyjson_get_uint(yyjson_obj_get(v, "index")), i);
        assert_int_equal(yyjson_get_int(yyjson_arr_get_first(yyjson_obj_get(v, "embedding"))), numbers[i]);
    }
    assert_int_equal(yyjson_get_uint(yyjson_obj_get(root, "dimensions")), 2);
    assert_int_equal(yyjson_get_uint(yyjson_obj_get(yyjson_obj_get(root, "usage"), "prompt_tokens")), tokens);
    yyjson_doc_free(doc);
    answer_release(&a);
    close(fd);
}

static void expect_error(int fd, int status, const char *says)
{
    struct answer a = client_answer(fd, false);
    assert_true(buf_append(&a.body, "", 1));
    if (a.status != status || !strstr(a.body.data, says))
        fail_msg("%d: %s", a.status, a.body.data);
    answer_release(&a);
    close(fd);
}

/* ---- the backend ---- */

struct batch {
    int fd;
    int numbers[16];
    size_t n;
};

static struct batch take_batch(struct door *d)
{
    struct batch b = {.fd = backend_accept(d)};
    struct buf request = backend_request(b.fd);
    ptrdiff_t at = str_find(buf_str(&request), STR("\r\n\r\n"));
    assert_true(at > 0 && str_starts(buf_str(&request), "POST /v1/embeddings "));
    yyjson_doc *doc = yyjson_read(request.data + at + 4, request.n - (size_t)at - 4, 0);
    yyjson_val *input = yyjson_obj_get(yyjson_doc_get_root(doc), "input"), *v;
    size_t i, max;
    assert_true(yyjson_arr_size(input) > 0 && yyjson_arr_size(input) <= 16);
    yyjson_arr_foreach(input, i, max, v)
    {
        b.numbers[b.n++] = atoi(yyjson_get_str(v));
    }
    yyjson_doc_free(doc);
    buf_release(&request);
    return b;
}

static bool has(const struct batch *b, int number)
{
    for (size_t i = 0; i < b->n; i++)
        if (b->numbers[i] == number)
            return true;
    return false;
}

/* Each batch has a connection of its own. */
static void send_answer(struct batch *b, const char *status, const char *json)
{
    struct buf out = {0};
    assert_true(buf_printf(&out,
                           "HTTP/1.1 %s\r\nContent-Type: application/json\r\nConnection: close\r\n"
                           "Content-Length: %zu\r\n\r\n%s",
                           status, strlen(json), json));
    client_send_n(b->fd, out.data, out.n);
    buf_release(&out);
    close(b->fd);
}

/* 3 tokens a text; count: how many of the vectors are sent. */
static void send_vectors(struct batch *b, size_t count, unsigned dimensions)
{
    struct buf out = {0};
    assert_true(buf_printf(
        &out, "{\"object\":\"list\",\"model\":\"x\",\"usage\":{\"prompt_tokens\":%zu},\"data\":[", 3 * b->n));
    for (size_t i = 0; i < count; i++) {
        assert_true(buf_printf(&out, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":[%d",
                               i ? "," : "", i, b->numbers[i]));
        for (unsigned k = 1; k < dimensions; k++)
            assert_true(buf_puts(&out, ",0.5"));
        assert_true(buf_puts(&out, "]}"));
    }
    assert_true(buf_puts(&out, "]}"));
    send_answer(b, "200 OK", out.data);
    buf_release(&out);
}

static void answer_batch(struct batch *b)
{
    send_vectors(b, b->n, 2);
}

#define TOO_LONG                                                                                             \
    "{\"error\":{\"code\":400,\"message\":\"the text is too long\",\"type\":\"invalid_request_error\"}}"

/* ---- one request in parts ---- */

static void many_texts_are_split_and_put_in_order(void **state)
{
    (void)state;
    struct door *d = start(2, 0);
    struct batch b[3];
    static const int numbers[] = {10, 11, 12, 13, 14};
    int fd = ask(d, "[\"10\",\"11\",\"12\",\"13\",\"14\"]", "");
    size_t sizes[3] = {0};
    for (size_t i = 0; i < 3; i++) {
        b[i] = take_batch(d);
        sizes[b[i].n]++;
    }
    assert_true(sizes[2] == 2 && sizes[1] == 1);
    for (size_t i = 3; i-- > 0;) /* the last one first */
        answer_batch(&b[i]);
    expect_vectors(fd, numbers, 5, 15);
    door_wait(d, DOOR_RECORDS, 1);
    assert_int_equal(door_record(d).r.prompt_tokens, 15);
    assert_int_equal(door_count(d, DOOR_ACQUIRED), 3); /* each takes its turn */
    door_stop(d, false);
}

/* ---- large answers, put together off the loop ---- */

#define LARGE 150000u /* numbers of a vector: 600 KB */

static int ask_for_large(struct door *d, unsigned dimensions)
{
    int fd = ask(d, "[\"1\",\"2\",\"3\"]", "");
    for (int i = 0; i < 3; i++) {
        struct batch b = take_batch(d);
        send_vectors(&b, b.n, dimensions);
    }
    return fd;
}

static void a_large_answer_is_whole(void **state)
{
    (void)state;
    struct door *d = start(1, 0);
    struct answer a = client_answer(ask_for_large(d, LARGE), false);
    assert_int_equal(a.status, 200);
    assert_true(a.body.n > (size_t)3 * LARGE * 4);
    yyjson_doc *doc = yyjson_read(a.body.data, a.body.n, 0);
    yyjson_val *root = yyjson_doc_get_root(doc), *data = yyjson_obj_get(root, "data"), *v;
    size_t i, n;
    assert_int_equal(yyjson_get_uint(yyjson_obj_get(root, "dimensions")), LARGE);
    assert_int_equal(yyjson_arr_size(data), 3);
    yyjson_arr_foreach(data, i, n, v)
    {
        yyjson_val *vector = yyjson_obj_get(v, "embedding");
        assert_int_equal(yyjson_arr_size(vector), LARGE);
        assert_int_equal(yyjson_get_int(yyjson_arr_get_first(vector)), i + 1);
        assert_true(yyjson_get_real(yyjson_arr_get_last(vector)) == 0.5);
    }
    yyjson_doc_free(doc);
    answer_release(&a);
    door_wait(d, DOOR_RECORDS, 1);
    assert_int_equal(door_record(d).r.prompt_tokens, 9);
    door_stop(d, false);
}

/* Whatever has been done of it by then. */
static void who_leaves_a_large_answer_harms_nobody(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        struct door *d = start(1, 0);
        client_reset(ask_for_large(d, LARGE));
        door_wait(d, DOOR_RECORDS, 1);
        door_stop(d, false);
    }
}

static void a_large_answer_past_the_limit_is_refused(void **state)
{
    (void)state;
    struct door_setup s = door_default();
    s.opt.embed_batch = 1;
    s.opt.embed_join_ms = 0;
    s.opt.max_body_bytes = 3u * LARGE * 4; /* each part is smaller */
    struct door *d = door_start(&s);
    expect_error(ask_for_large(d, LARGE), 413, "the embeddings are larger than the limit of bodies");
    door_stop(d, false);
}

static void a_backend_that_dies_between_batches_fails_the_request(void **state)
{
    (void)state;
    struct door *d = start(1, 0);
    int fd = ask(d, "[\"1\",\"2\"]", "");
    struct batch first = take_batch(d), second = take_batch(d);
    answer_batch(&first);
    client_reset(second.fd);
    expect_error(fd, 502, "error");
    door_wait(d, DOOR_BROKEN, 1);
    fd = ask(d, "[\"3\",\"4\"]", ""); /* the other way round: what is left is not waited for */
    first = take_batch(d);
    second = take_batch(d);
    client_reset(first.fd);
    expect_error(fd, 502, "error");
    (void)client_at_eof(second.fd);
    close(second.fd);
    door_stop(d, false);
}

static void vectors_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct door *d = start(1, 0);
    int fd = ask(d, "[\"1\",\"2\"]", "");
    struct batch a = take_batch(d), b = take_batch(d);
    send_vectors(&a, 1, 2);
    send_vectors(&b, 1, 3);
    expect_error(fd, 502, "not all the same dimensions");
    fd = ask(d, "[\"1\"]", ",\"dimensions\":9");
    a = take_batch(d);
    answer_batch(&a);
    expect_error(fd, 400, "2 dimensions, not of 9");
    fd = ask(d, "[\"1\"]", "");
    a = take_batch(d);
    send_vectors(&a, 0, 2);
    expect_error(fd, 502, "error");
    door_stop(d, false);
}

/* ---- several requests in one ---- */

/* While the first is under way, two clients fill a batch of 3: clients[1] asks for 21 and 22, clients[2] for
 * 31. */
static struct door *start_joined(int clients[3], struct batch *ret_first, struct batch *ret_joined)
{
    struct door *d = start(3, NEVER_MS);
    clients[0] = ask(d, "[\"11\"]", "");
    *ret_first = take_batch(d);
    assert_int_equal(ret_first->n, 1); /* one alone is not delayed */
    clients[1] = ask(d, "[\"21\",\"22\"]", "");
    clients[2] = ask(d, "[\"31\"]", "");
    *ret_joined = take_batch(d);
    assert_int_equal(ret_joined->n, 3);
    assert_true(has(ret_joined, 21) && has(ret_joined, 22) && has(ret_joined, 31));
    return d;
}

static const int of_first[] = {11}, of_second[] = {21, 22}, of_third[] = {31};

static void two_clients_share_a_batch(void **state)
{
    (void)state;
    struct batch first, joined;
    int fd[3];
    struct door *d = start_joined(fd, &first, &joined);
    answer_batch(&joined);
    expect_vectors(fd[1], of_second, 2, 6);
    expect_vectors(fd[2], of_third, 1, 3);
    answer_batch(&first);
    expect_vectors(fd[0], of_first, 1, 3);
    assert_int_equal(door_count(d, DOOR_ACQUIRED), 2);
    door_stop(d, false);
    d = start(3, NEVER_MS); /* what is not full goes when the one before is back */
    fd[0] = ask(d, "[\"11\"]", "");
    first = take_batch(d);
    fd[1] = ask(d, "[\"21\",\"22\"]", "");
    answer_batch(&first);
    expect_vectors(fd[0], of_first, 1, 3);
    joined = take_batch(d);
    answer_batch(&joined);
    expect_vectors(fd[1], of_second, 2, 6);
    door_stop(d, false);
}

static void other_members_are_not_joined(void **state)
{
    (void)state;
    struct door *d = start(3, NEVER_MS);
    struct batch first, other;
    int fd[2] = {ask(d, "[\"11\"]", ",\"encoding_format\":\"float\""), -1};
    first = take_batch(d);
    fd[1] = ask(d, "[\"21\",\"22\"]", ",\"user\":\"other\"");
    other = take_batch(d); /* a line of its own: at once */
    answer_batch(&other);
    expect_vectors(fd[1], of_second, 2, 6);
    answer_batch(&first);
    expect_vectors(fd[0], of_first, 1, 3);
    door_stop(d, false);
}

static void who_leaves_harms_nobody_else(void **state)
{
    (void)state;
    struct batch first, joined;
    int fd[3];
    struct door *d = start_joined(fd, &first, &joined);
    client_reset(fd[1]);
    door_wait(d, DOOR_RECORDS, 1);
    assert_string_equal(door_record(d).outcome, "client_closed");
    answer_batch(&joined);
    expect_vectors(fd[2], of_third, 1, 9); /* nobody else is left to pay */
    client_reset(fd[0]);
    door_wait(d, DOOR_RECORDS, 3);
    char byte;
    assert_true(recv(first.fd, &byte, 1, 0) <= 0); /* a batch for nobody is cancelled */
    close(first.fd);
    door_stop(d, false);
}

static void a_refused_batch_is_asked_for_apart(void **state)
{
    (void)state;
    struct batch first, joined;
    int fd[3];
    struct door *d = start_joined(fd, &first, &joined);
    send_answer(&joined, "400 Bad Request", TOO_LONG);
    for (int i = 0; i < 2; i++) {
        struct batch alone = take_batch(d);
        assert_true(has(&alone, 31) ? alone.n == 1 : alone.n == 2);
        if (has(&alone, 31))
            send_answer(&alone, "400 Bad Request", TOO_LONG);
        else
            answer_batch(&alone);
    }
    expect_vectors(fd[1], of_second, 2, 6);
    expect_error(fd[2], 400, "the text is too long");
    answer_batch(&first);
    expect_vectors(fd[0], of_first, 1, 3);
    door_stop(d, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_texts_are_split_and_put_in_order),
        cmocka_unit_test(a_large_answer_is_whole),
        cmocka_unit_test(who_leaves_a_large_answer_harms_nobody),
        cmocka_unit_test(a_large_answer_past_the_limit_is_refused),
        cmocka_unit_test(a_backend_that_dies_between_batches_fails_the_request),
        cmocka_unit_test(vectors_that_do_not_fit_are_refused),
        cmocka_unit_test(two_clients_share_a_batch),
        cmocka_unit_test(other_members_are_not_joined),
        cmocka_unit_test(who_leaves_harms_nobody_else),
        cmocka_unit_test(a_refused_batch_is_asked_for_apart),
    };
    return cmocka_run_group_tests_name("proxy_embed", tests, NULL, NULL);
}
