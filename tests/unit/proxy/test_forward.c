/* Unit tests of local functions that hand their request on to an instance, and of redirects. */
#include "door.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Sends the request; what the backend gets of it begins with this line and ends with this body. */
static void hands_on(struct door *d, const char *request, const char *line, const char *body)
{
    int fd = client_connect(d);
    client_send(fd, request);
    int up = backend_accept(d);
    struct buf got = backend_request(up);
    if (strncmp(got.data, line, strlen(line)) != 0 || !str_ends(buf_str(&got), body))
        fail_msg("%s gave %s", request, got.data);
    backend_answer(up, OK_JSON);
    struct answer a = client_answer(fd, false);
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body.data, OK_JSON);
    answer_release(&a);
    buf_release(&got);
    close(up);
    close(fd);
}

#define HEADER " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"

static void test_the_rest_of_the_path_goes_on(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    char asked[64];
    hands_on(d, "GET /up/m/props?x=%20y" HEADER "\r\n", "GET /props?x=%20y HTTP/1.1\r\n", "\r\n\r\n");
    door_asked(d, asked, sizeof asked);
    assert_string_equal(asked, "m");
    hands_on(d, "GET /%75p/or%67%3aq/%61/b" HEADER "\r\n", "GET /%61/b HTTP/1.1\r\n", "\r\n\r\n");
    door_asked(d, asked, sizeof asked);
    assert_string_equal(asked, "org:q");
    hands_on(d, "GET /up/m/" HEADER "\r\n", "GET / HTTP/1.1\r\n", "\r\n\r\n");
    hands_on(d, "GET /up/m%2Fa%2Fb" HEADER "\r\n", "GET /a%2Fb HTTP/1.1\r\n", "\r\n\r\n");
    hands_on(d, "POST /up/m/x" HEADER "Content-Length: 4\r\n\r\n{no]", "POST /x HTTP/1.1\r\n", "{no]");
    door_wait(d, DOOR_RECORDS, 5);
    struct door_record r = door_record(d);
    assert_string_equal(r.path, "/up/*");
    assert_string_equal(r.outcome, "ok");
    assert_int_equal(door_counters(d).relayed_total, 5);
    door_stop(d, false);
}

/* A client that leaves is to be noticed here as soon as at the paths that are relayed. */
static void test_a_stream_is_woken(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.wake = true;
    struct door *d = door_start(&setup);
    hands_on(d, "POST /up/m/v1/chat/completions" HEADER "Content-Length: 15\r\n\r\n{\"stream\":true}",
             "POST /v1/chat/completions HTTP/1.1\r\n", "{\"stream\":true,\"wake\":1}");
    door_stop(d, false);
}

/* A body that comes in pieces is looked at as it comes; one that is no JSON passes all the same. */
static void test_a_body_in_pieces(void **state)
{
    (void)state;
    static const struct {
        const char *body, *passed;
    } rows[] = {{"{\"stream\":true}", "{\"stream\":true,\"wake\":1}"},
                {"{\"stream\":]}xyz", "{\"stream\":]}xyz"}};
    struct door_setup setup = door_default();
    setup.wake = true;
    struct door *d = door_start(&setup);
    for (size_t i = 0; i < 2; i++) {
        int fd = client_connect(d);
        client_send(fd, "POST /up/m/v1/chat/completions HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                        "Transfer-Encoding: chunked\r\n\r\n");
        client_read_until(fd, "100 Continue\r\n\r\n");
        for (const char *p = rows[i].body; *p; p++) {
            char piece[] = "1\r\n?\r\n";
            piece[3] = *p;
            client_send(fd, piece);
        }
        client_send(fd, "0\r\n\r\n");
        int up = backend_accept(d);
        struct buf got = backend_request(up);
        assert_true(str_ends(buf_str(&got), rows[i].passed));
        buf_release(&got);
        backend_answer(up, OK_JSON);
        struct answer a = client_answer(fd, false);
        assert_int_equal(a.status, 200);
        answer_release(&a);
        close(up);
        close(fd);
    }
    door_stop(d, false);
}

static void test_a_client_that_leaves(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.route = DOOR_WAIT;
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_send(fd, "GET /up/m/x" HEADER "\r\n");
    door_wait(d, DOOR_ACQUIRED, 1);
    close(fd);
    door_wait(d, DOOR_CANCELLED, 1);
    door_wait(d, DOOR_RECORDS, 1);
    assert_string_equal(door_record(d).outcome, "client_closed");
    door_stop(d, false);
}

static void test_a_refusal(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.route = DOOR_REFUSE;
    setup.refuse_code = RC_NOT_FOUND;
    struct door *d = door_start(&setup);
    struct answer a = client_ask(d, "GET /up/m/x" HEADER "\r\n");
    assert_int_equal(a.status, 404);
    answer_release(&a);
    door_stop(d, false);
}

static void test_a_redirect_adds_no_field(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    struct answer a = client_ask(d, "GET /up/m" HEADER "\r\n");
    assert_int_equal(a.status, 308);
    assert_true(answer_has(&a, "Location: /up/a%20b%0D%0AX:%20%C3%A9/"));
    assert_int_equal(a.body.n, 0);
    answer_release(&a);
    door_stop(d, false);
}

static void test_a_redirect_to_a_long_place(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    char path[4096] = "/up/", request[4200], field[4200];
    memset(path + 4, 'm', sizeof path - 5);
    (void)snprintf(request, sizeof request, "GET %s" HEADER "\r\n", path);
    (void)snprintf(field, sizeof field, "Location: %s", path);
    struct answer a = client_ask(d, request);
    assert_int_equal(a.status, 308);
    assert_true(answer_has(&a, field));
    answer_release(&a);
    door_stop(d, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_rest_of_the_path_goes_on),
        cmocka_unit_test(test_a_stream_is_woken),
        cmocka_unit_test(test_a_body_in_pieces),
        cmocka_unit_test(test_a_client_that_leaves),
        cmocka_unit_test(test_a_refusal),
        cmocka_unit_test(test_a_redirect_adds_no_field),
        cmocka_unit_test(test_a_redirect_to_a_long_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
