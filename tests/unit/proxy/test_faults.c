/* Everything that goes wrong: clients that leave in every phase, backends that die at every byte, races of
 * kept-alive connections. Each fault has one expected outcome for the client, the lease and the record. */
#include "door.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define ASK         "{\"model\":\"m\"}"
#define STREAM_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

static void leave(int fd, bool reset)
{
    if (reset)
        client_reset(fd);
    else
        close(fd);
}

/* ---- the client leaves ---- */

static void test_leave_while_waiting(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.route = DOOR_WAIT;
    struct door *d = door_start(&setup);
    for (unsigned i = 0; i < 2; i++) {
        int fd = client_connect(d);
        client_post(fd, "", ASK);
        door_wait(d, DOOR_ACQUIRED, i + 1);
        leave(fd, i);
        door_wait(d, DOOR_CANCELLED, i + 1);
        door_wait(d, DOOR_RECORDS, i + 1);
        assert_string_equal(door_record(d).outcome, "client_closed");
    }
    struct http_counters n = door_counters(d);
    assert_int_equal(n.waiting, 0);
    assert_int_equal(n.client_aborts, 2);
    assert_int_equal(door_count(d, DOOR_RELEASED), 0);
    door_stop(d, false);
}

/* A listener whose backlog is full never completes a handshake: the proxy stays connecting. */
static void test_leave_while_connecting(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.full_backlog = true;
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_post(fd, "", ASK);
    door_wait(d, DOOR_ACQUIRED, 1);
    leave(fd, false);
    door_wait(d, DOOR_RELEASED, 1);
    door_wait(d, DOOR_RECORDS, 1);
    assert_string_equal(door_record(d).outcome, "client_closed");
    door_stop(d, false);
}

static void test_connect_timeout(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.full_backlog = true;
    setup.opt.connect_timeout_ms = 40;
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_post(fd, "", ASK);
    struct answer a = client_answer(fd, false);
    assert_int_equal(a.status, 504);
    answer_release(&a);
    assert_int_equal(door_count(d, DOOR_BROKEN), 2); /* asked twice for a lease */
    close(fd);
    door_stop(d, false);
}

static void test_leave_during_prefill(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    for (unsigned i = 0; i < 2; i++) {
        int fd = client_connect(d);
        client_post(fd, "", ASK);
        int back = backend_accept(d);
        struct buf got = backend_request(back);
        buf_release(&got);
        leave(fd, i);
        (void)client_at_eof(back); /* the backend sees it, by FIN or RST */
        door_wait(d, DOOR_RELEASED, i + 1);
        door_wait(d, DOOR_RECORDS, i + 1);
        assert_string_equal(door_record(d).outcome, "client_closed");
        assert_int_equal(door_record(d).r.status, 0);
        close(back);
    }
    assert_int_equal(door_count(d, DOOR_BROKEN), 0); /* no fault of the backend's */
    door_stop(d, false);
}

/* Input behind the request does not hide the FIN behind it. */
static void test_leave_with_pipelined_input(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_post(fd, "", ASK);
    int back = backend_accept(d);
    struct buf got = backend_request(back);
    buf_release(&got);
    client_send(fd, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    close(fd);
    (void)client_at_eof(back);
    door_wait(d, DOOR_RELEASED, 1);
    close(back);
    door_stop(d, false);
}

static void test_leave_during_stream(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    for (unsigned i = 0; i < 4; i++) {
        bool sse = i < 2;
        int fd = client_connect(d);
        client_post(fd, "", ASK);
        int back = backend_accept(d);
        struct buf got = backend_request(back);
        buf_release(&got);
        client_send(back, sse ? STREAM_HEAD "9\r\ndata: 1\n\n\r\n"
                              : "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ndata: 1");
        client_read_until(fd, "data: 1");
        leave(fd, i & 1);
        (void)client_at_eof(back);
        door_wait(d, DOOR_RELEASED, i + 1);
        door_wait(d, DOOR_RECORDS, i + 1);
        assert_string_equal(door_record(d).outcome, "client_closed");
        close(back);
    }
    assert_int_equal(door_count(d, DOOR_BROKEN), 0);
    door_stop(d, false);
}

/* While the request is still going out, and the backend does not read. */
static void test_leave_while_sending(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    struct buf body = {0};
    assert_true(buf_puts(&body, "{\"model\":\"m\",\"x\":\""));
    while (body.n < 12u << 20)
        assert_true(buf_puts(&body, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"));
    assert_true(buf_puts(&body, "\"}"));
    int fd = client_connect(d);
    client_post(fd, "", body.data);
    int back = backend_accept(d);
    client_read_until(back, "\r\n\r\n");
    leave(fd, false);
    door_wait(d, DOOR_RELEASED, 1);
    door_wait(d, DOOR_RECORDS, 1);
    assert_string_equal(door_record(d).outcome, "client_closed");
    assert_int_equal(door_counters(d).body_bytes_in_flight, 0);
    buf_release(&body);
    close(back);
    door_stop(d, false);
}

static void test_half_close(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_post(fd, "", ASK);
    shutdown(fd, SHUT_WR);
    door_wait(d, DOOR_RECORDS, 1);
    assert_string_equal(door_record(d).outcome, "client_closed");
    close(fd);
    door_stop(d, false);
    setup.opt.half_close_keep = true;
    d = door_start(&setup);
    fd = client_connect(d);
    client_post(fd, "", ASK);
    shutdown(fd, SHUT_WR);
    int back = backend_accept(d);
    struct buf got = backend_request(back);
    buf_release(&got);
    backend_answer(back, OK_JSON);
    struct answer a = client_answer(fd, false);
    assert_string_equal(a.body.data, OK_JSON);
    answer_release(&a);
    assert_true(client_at_eof(fd));
    close(fd);
    /* A reset is noticed all the same. */
    fd = client_connect(d);
    client_post(fd, "", ASK);
    shutdown(fd, SHUT_WR);
    got = backend_request(back);
    buf_release(&got);
    client_reset(fd);
    (void)client_at_eof(back);
    door_wait(d, DOOR_RELEASED, 2);
    close(back);
    door_stop(d, false);
}

/* A client that takes nothing of a long answer is cut off. */
static void test_slow_reader(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.opt.write_timeout_ms = 50;
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_post(fd, "", ASK);
    int back = backend_accept(d);
    struct buf got = backend_request(back);
    buf_release(&got);
    client_send(back, "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
    static const char block[65536] = {'x'};
    while (send(back, block, sizeof block, MSG_NOSIGNAL) > 0)
        continue;
    door_wait(d, DOOR_RECORDS, 1);
    assert_string_equal(door_record(d).outcome, "timeout");
    struct answer a = client_answer(fd, false);
    assert_true(a.broken);
    answer_release(&a);
    close(fd);
    close(back);
    door_stop(d, false);
}

/* ---- the backend fails ---- */

enum how { FIN, RST };

static void cut(int back, enum how how)
{
    leave(back, how == RST);
}

/* Before the answer's head is complete the client gets a 502; behind it, a broken answer. Never a whole one.
 */
static void test_dies_at_byte(void **state)
{
    (void)state;
    static const struct {
        const char *sent;
        int status; /* 0 = 200 and broken */
        bool words; /* with an error event before that */
    } rows[] = {
        {"", 502},
        {"H", 502},
        {"HTTP/1.1 200 OK\r\nContent-Le", 502},
        {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", 0},
        {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123456789", 0},
        {STREAM_HEAD, 0, true},
        {STREAM_HEAD "9\r\nda", 0},
        {STREAM_HEAD "9\r\ndata: 1\n\n", 0, true},
        {STREAM_HEAD "9\r\ndata: 1\n\n\r\n", 0, true},
        {STREAM_HEAD "e\r\ndata: [DONE]\n\n\r\n", 0, true}, /* no last chunk */
        {STREAM_HEAD "e\r\ndata: [DONE]\n\n\r\n0\r\n", 0, true},
        {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n",
         0}, /* ends by FIN, without [DONE] */
    };
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    unsigned n = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (enum how how = FIN; how <= RST; how++) {
            int fd = client_connect(d);
            client_post(fd, "", ASK);
            int back = backend_accept(d);
            struct buf got = backend_request(back);
            buf_release(&got);
            client_send(back, rows[i].sent);
            if (!rows[i].status) /* the head is through before the end comes */
                client_read_until(fd, "\r\n\r\n");
            cut(back, how);
            if (rows[i].status) {
                struct answer a = client_answer(fd, false);
                assert_int_equal(a.status, rows[i].status);
                assert_non_null(strstr(a.body.data, "upstream_error"));
                answer_release(&a);
            } else {
                char rest[1024];
                size_t got_n = 0;
                ssize_t r;
                while ((r = recv(fd, rest + got_n, sizeof rest - got_n, 0)) > 0)
                    got_n += (size_t)r;
                assert_null(memmem(rest, got_n, "\r\n0\r\n\r\n", 7));
                assert_int_equal(!!memmem(rest, got_n, "\"upstream_error\"", 16), rows[i].words);
                assert_int_equal(r, rows[i].words ? 0 : -1); /* else aborted, not closed */
            }
            n++;
            door_wait(d, DOOR_RECORDS, n);
            door_wait(d, DOOR_BROKEN, n);
            assert_string_equal(door_record(d).outcome, rows[i].status ? "upstream_error" : "truncated");
            close(fd);
        }
    door_stop(d, false);
}

static void test_nonsense_answers(void **state)
{
    (void)state;
    static const struct {
        const char *sent;
        bool broken;
    } rows[] = {
        {"SSH-2.0-OpenSSH\r\n\r\n", false},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", false},
        {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", false},
        {STREAM_HEAD "zz\r\n", true},
        {STREAM_HEAD "3\r\nabcdef\r\n", true},
    };
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int fd = client_connect(d);
        client_post(fd, "", ASK);
        int back = backend_accept(d);
        struct buf got = backend_request(back);
        buf_release(&got);
        client_send(back, rows[i].sent);
        struct answer a = client_answer(fd, false);
        if (!(rows[i].broken ? a.broken || a.status == 502 : a.status == 502))
            fail_msg("%s: %d", rows[i].sent, a.status);
        answer_release(&a);
        close(fd);
        close(back);
    }
    /* A head without end */
    int fd = client_connect(d);
    client_post(fd, "", ASK);
    int back = backend_accept(d);
    struct buf got = backend_request(back), head = {0};
    buf_release(&got);
    assert_true(buf_puts(&head, "HTTP/1.1 200 OK\r\nX: "));
    while (head.n < 20000)
        assert_true(buf_puts(&head, "0123456789"));
    client_send_n(back, head.data, head.n);
    struct answer a = client_answer(fd, false);
    assert_int_equal(a.status, 502);
    answer_release(&a);
    buf_release(&head);
    close(fd);
    close(back);
    door_stop(d, false);
}

/* More bytes than the answer's length: they reach nobody, and the connection is not used again. */
static void test_answer_longer_than_promised(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_post(fd, "", ASK);
    int back = backend_accept(d);
    struct buf got = backend_request(back);
    buf_release(&got);
    client_send(
        back,
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    struct answer a = client_answer(fd, false);
    assert_string_equal(a.body.data, "ok");
    answer_release(&a);
    client_post(fd, "", ASK);
    int next = backend_accept(d);
    got = backend_request(next);
    buf_release(&got);
    backend_answer(next, OK_JSON);
    a = client_answer(fd, false);
    assert_string_equal(a.body.data, OK_JSON);
    answer_release(&a);
    close(fd);
    close(back);
    close(next);
    door_stop(d, false);
}

static void test_nobody_listens(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.dead_port = true;
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_post(fd, "", ASK);
    struct answer a = client_answer(fd, false);
    assert_int_equal(a.status, 502);
    assert_non_null(strstr(a.body.data, "cannot connect to the backend of model canon"));
    answer_release(&a);
    assert_int_equal(door_count(d, DOOR_ACQUIRED), 2); /* the route was asked again, once */
    assert_int_equal(door_count(d, DOOR_BROKEN), 2);
    struct http_counters n = door_counters(d);
    assert_int_equal(n.retried, 1);
    assert_int_equal(n.upstream_errors, 1);
    close(fd);
    door_stop(d, false);
}

/* That we are short of descriptors is no fault of the backend, which must not be called broken for it. */
static void test_out_of_descriptors(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_send(fd, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"); /* accepted for certain */
    struct answer a = client_answer(fd, false);
    answer_release(&a);
    struct rlimit before, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0; /* what is open stays open */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    client_post(fd, "", ASK);
    a = client_answer(fd, false);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(a.status, 503);
    assert_non_null(strstr(a.body.data, "limit of open files"));
    answer_release(&a);
    assert_int_equal(door_count(d, DOOR_RELEASED), 1);
    assert_int_equal(door_count(d, DOOR_BROKEN), 0);
    client_post(fd, "", ASK); /* and the next one goes through on the same connection */
    int back = backend_accept(d);
    close(fd);
    close(back);
    door_wait(d, DOOR_RELEASED, 2);
    door_stop(d, false);
}

/* Descriptors that others of the process held are free again: no connection of ours has to end first. */
static void test_deaf_for_a_moment(void **state)
{
    (void)state;
    if (getenv("VALGRIND_LACKS")) /* valgrind keeps the highest descriptors for itself */
        skip();
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = socket(AF_INET, SOCK_STREAM, 0); /* the client's, made while there are some */
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(door_port(d))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct rlimit before, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    client_send(fd, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    for (unsigned i = 0; i < 3; i++) /* turns of the loop, in which accepting fails */
        (void)door_counters(d);
    assert_int_equal(door_counters(d).connections_total, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    struct answer a = client_answer(fd, false);
    assert_int_equal(a.status, 200);
    answer_release(&a);
    close(fd);
    door_stop(d, false);
}

/* ---- kept-alive connections ---- */

static int warm_up(struct door *d, int fd)
{
    client_post(fd, "", ASK);
    int back = backend_accept(d);
    struct buf got = backend_request(back);
    buf_release(&got);
    backend_answer(back, OK_JSON);
    struct answer a = client_answer(fd, false);
    assert_int_equal(a.status, 200);
    answer_release(&a);
    return back;
}

/* The backend closed a kept connection before the next request: nobody notices. */
static void test_closed_while_idle(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    for (enum how how = FIN; how <= RST; how++) {
        cut(warm_up(d, fd), how);
        close(warm_up(d, fd));
    }
    close(fd);
    door_stop(d, false);
}

/* It reads the request and closes without a byte: sent again, once, on a new connection. */
static void test_dies_on_reuse(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    for (enum how how = FIN; how <= RST; how++) {
        int back = warm_up(d, fd);
        client_post(fd, "", ASK);
        struct buf got = backend_request(back);
        buf_release(&got);
        cut(back, how);
        back = backend_accept(d);
        got = backend_request(back);
        assert_non_null(strstr(got.data, "\r\n\r\n" ASK));
        buf_release(&got);
        backend_answer(back, OK_JSON);
        struct answer a = client_answer(fd, false);
        assert_string_equal(a.body.data, OK_JSON);
        answer_release(&a);
        cut(back, FIN);
    }
    assert_int_equal(door_counters(d).retried, 2);
    assert_int_equal(door_count(d, DOOR_BROKEN), 0);
    close(fd);
    door_stop(d, false);
}

/* One byte of an answer, or a connection that was new: never sent again. */
static void test_no_retry_after_a_byte(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    int back = warm_up(d, fd);
    client_post(fd, "", ASK);
    struct buf got = backend_request(back);
    buf_release(&got);
    client_send(back, "H");
    cut(back, FIN);
    struct answer a = client_answer(fd, false);
    assert_int_equal(a.status, 502);
    answer_release(&a);
    client_post(fd, "", ASK);
    back = backend_accept(d);
    got = backend_request(back);
    buf_release(&got);
    cut(back, FIN);
    a = client_answer(fd, false);
    assert_int_equal(a.status, 502);
    answer_release(&a);
    assert_true(backend_is_quiet(d));
    assert_int_equal(door_counters(d).retried, 0);
    close(fd);
    door_stop(d, false);
}

/* Bytes on an idle connection belong to nobody: it is dropped, whatever the race. */
static void test_unasked_bytes(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    int back = warm_up(d, fd);
    client_send(back, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    int next = warm_up(d, fd);
    close(fd);
    close(back);
    close(next);
    door_stop(d, false);
}

static void test_idle_limit(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.opt.upstream_idle_ms = 50;
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    int back = warm_up(d, fd);
    assert_true(client_at_eof(back)); /* the proxy closes first */
    close(back);
    close(warm_up(d, fd));
    close(fd);
    door_stop(d, false);
}

static void test_connection_close(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    struct door *d = door_start(&setup);
    int fd = client_connect(d);
    client_post(fd, "Connection: close\r\n", ASK);
    int back = backend_accept(d);
    struct buf got = backend_request(back);
    buf_release(&got);
    client_send(back, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    struct answer a = client_answer(fd, false);
    assert_true(answer_has(&a, "Connection: close"));
    assert_string_equal(a.body.data, "ok");
    assert_true(client_at_eof(fd));
    assert_true(client_at_eof(back));
    answer_release(&a);
    close(fd);
    close(back);
    door_stop(d, false);
}

static void test_abort_in_every_phase(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    for (int i = 0; i < 4; i++) {
        setup.route = i == 0 ? DOOR_WAIT : DOOR_GRANT;
        struct door *d = door_start(&setup);
        int fd = client_connect(d), back = -1;
        client_post(fd, "", ASK);
        door_wait(d, DOOR_ACQUIRED, 1);
        if (i >= 2) {
            back = backend_accept(d);
            struct buf got = backend_request(back);
            buf_release(&got);
        }
        if (i == 3) {
            client_send(back, STREAM_HEAD "9\r\ndata: 1\n\n\r\n");
            client_read_until(fd, "data: 1");
        }
        door_stop(d, true); /* leases are counted there */
        close(fd);
        if (back >= 0)
            close(back);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_leave_while_waiting),
        cmocka_unit_test(test_leave_while_connecting),
        cmocka_unit_test(test_connect_timeout),
        cmocka_unit_test(test_leave_during_prefill),
        cmocka_unit_test(test_leave_with_pipelined_input),
        cmocka_unit_test(test_leave_during_stream),
        cmocka_unit_test(test_leave_while_sending),
        cmocka_unit_test(test_half_close),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_dies_at_byte),
        cmocka_unit_test(test_nonsense_answers),
        cmocka_unit_test(test_answer_longer_than_promised),
        cmocka_unit_test(test_nobody_listens),
        cmocka_unit_test(test_out_of_descriptors),
        cmocka_unit_test(test_deaf_for_a_moment),
        cmocka_unit_test(test_closed_while_idle),
        cmocka_unit_test(test_dies_on_reuse),
        cmocka_unit_test(test_no_retry_after_a_byte),
        cmocka_unit_test(test_unasked_bytes),
        cmocka_unit_test(test_idle_limit),
        cmocka_unit_test(test_connection_close),
        cmocka_unit_test(test_abort_in_every_phase),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
