/* Keys at the door: who may enter, what each may ask for, and how much of it. */
#include "door.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ASK    "{\"model\":\"m\"}"
#define BEARER "Authorization: Bearer key\r\n"

static struct door *start(const struct auth_spec *key)
{
    struct door_setup setup = door_default();
    setup.opt.keys = key;
    setup.opt.n_keys = 1;
    return door_start(&setup);
}

static struct answer ask(struct door *d, const char *path, const char *fields, const char *body)
{
    char text[512];
    (void)snprintf(text, sizeof text, "POST %s HTTP/1.1\r\nHost: a\r\n%sContent-Length: %zu\r\n\r\n%s", path,
                   fields, strlen(body), body);
    return client_ask(d, text);
}

static void says(struct answer *a, int status, const char *text)
{
    if (a->status != status || !strstr(a->body.data, text))
        fail_msg("%d %s", a->status, a->body.data);
    answer_release(a);
}

static void test_reasons(void **state)
{
    (void)state;
    struct auth_spec key = door_key("key");
    key.expires_ms = 1000;
    struct door *d = start(&key);
    struct answer a = ask(d, "/v1/chat/completions", "", ASK);
    says(&a, 401, "needs an API key");
    a = ask(d, "/v1/chat/completions", "Authorization: Bearer nonsense\r\n", ASK);
    says(&a, 401, "wrong or was revoked");
    a = ask(d, "/v1/chat/completions", BEARER, ASK);
    says(&a, 401, "expired at 1970-01-01T00:00:01");
    a = ask(d, "/v1/messages", BEARER, ASK); /* in the words of the path's dialect */
    says(&a, 401, "{\"type\":\"error\",\"error\":{\"type\":\"authentication_error\"");
    assert_int_equal(door_count(d, DOOR_ACQUIRED), 0);
    door_stop(d, false);
}

/* A client that fills one place with a dummy still gets in with the other. */
static void test_two_places(void **state)
{
    (void)state;
    struct auth_spec key = door_key("key");
    struct door *d = start(&key);
    struct answer a = client_ask(d, "GET /error HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer dummy\r\n"
                                    "x-api-key: key\r\n\r\n");
    assert_int_not_equal(a.status, 401);
    answer_release(&a);
    door_stop(d, false);
}

/* Without a key in the list the door is shut where one is asked for. */
static void test_required(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.opt.keys_required = true;
    struct door *d = door_start(&setup);
    struct answer a = ask(d, "/v1/chat/completions", BEARER, ASK);
    says(&a, 401, "wrong or was revoked");
    door_stop(d, false);
}

static void test_models(void **state)
{
    (void)state;
    static const struct {
        const char *models, *body;
        int status;
    } rows[] = {
        {"other", ASK, 403},
        {"other", "{}", 403},
        {"other,CAN*", ASK, 502},                   /* what the name stands for */
        {"m", ASK, 502},                            /* the name itself */
        {"other*", "{\"model\":\"other/m\"}", 403}, /* a spelling that finds it */
        {"other", "{\"model\":\"unknown\"}", 403}   /* no word about what there is */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct auth_spec key = door_key("key");
        key.models = rows[i].models;
        struct door_setup setup = door_default();
        setup.opt.keys = &key;
        setup.opt.n_keys = 1;
        setup.dead_port = true; /* who is let through meets a backend that is gone */
        struct door *d = door_start(&setup);
        struct answer a = ask(d, "/v1/chat/completions", BEARER, rows[i].body);
        assert_int_equal(a.status, rows[i].status);
        if (a.status == 403) {
            assert_non_null(strstr(a.body.data, key.id));
            assert_int_equal(door_count(d, DOOR_ACQUIRED), 0);
        }
        answer_release(&a);
        door_stop(d, false);
    }
}

/* One request and its answer on connections that stay. */
static struct answer turn(int fd, int *back, struct door *d)
{
    client_post(fd, BEARER, ASK);
    if (*back < 0)
        *back = backend_accept(d);
    struct buf got = backend_request(*back);
    buf_release(&got);
    backend_answer(*back, OK_JSON); /* 7 + 3 tokens */
    return client_answer(fd, false);
}

static void test_rates(void **state)
{
    (void)state;
    struct auth_spec key = door_key("key");
    key.requests_per_minute = 2;
    key.tokens_per_minute = 1000;
    struct door *d = start(&key);
    int fd = client_connect(d), back = -1;
    struct answer a = turn(fd, &back, d);
    assert_int_equal(a.status, 200);
    assert_true(answer_has(&a, "X-RateLimit-Limit-Requests: 2"));
    assert_true(answer_has(&a, "X-RateLimit-Remaining-Requests: 1"));
    assert_true(answer_has(&a, "X-RateLimit-Limit-Tokens: 1000"));
    assert_true(answer_has(&a, "X-RateLimit-Remaining-Tokens: 1000"));
    answer_release(&a);
    a = turn(fd, &back, d);
    assert_int_equal(a.status, 200);
    assert_true(answer_has(&a, "X-RateLimit-Remaining-Requests: 0"));
    answer_release(&a);
    for (int i = 0; i < 2; i++) { /* refused on the connection that stays */
        client_post(fd, BEARER, ASK);
        a = client_answer(fd, false);
        assert_int_equal(a.status, 429);
        assert_non_null(strstr(a.body.data, "too_many_requests"));
        assert_non_null(strstr(a.body.data, key.id));
        assert_non_null(strstr(a.head, "\r\nRetry-After: "));
        answer_release(&a);
    }
    assert_int_equal(door_count(d, DOOR_ACQUIRED), 2);
    close(fd);
    close(back);
    door_stop(d, false);
}

static void test_tokens(void **state)
{
    (void)state;
    struct auth_spec key = door_key("key");
    key.tokens_per_minute = 6;
    struct door *d = start(&key);
    int fd = client_connect(d), back = -1;
    struct answer a =
        turn(fd, &back, d); /* ten tokens: four in debt, of which a tenth comes back in a second */
    assert_int_equal(a.status, 200);
    answer_release(&a);
    client_post(fd, BEARER, ASK);
    a = client_answer(fd, false);
    assert_true(answer_has(&a, "X-RateLimit-Remaining-Tokens: 0"));
    says(&a, 429, "has used up its 6 tokens a minute");
    close(fd);
    close(back);
    door_stop(d, false);
}

static void test_who_leaves_early_pays_for_the_prompt(void **state)
{
    (void)state;
    struct auth_spec key = door_key("key");
    key.tokens_per_minute = 1;
    struct door *d = start(&key);
    int one = client_connect(d), two = client_connect(d);
    client_post(one, BEARER, ASK);
    int back = backend_accept(d);
    struct buf got = backend_request(back);
    buf_release(&got);
    client_reset(one);
    door_wait(d, DOOR_RECORDS, 1);
    client_post(two, BEARER, ASK);
    struct answer a = client_answer(two, false);
    says(&a, 429, "has used up its 1 token a minute");
    close(back);
    close(two);
    door_stop(d, false);
}

/* What runs counts until it ends, whichever way it ends. */
static void test_concurrency(void **state)
{
    (void)state;
    struct auth_spec key = door_key("key");
    key.concurrency = 1;
    struct door *d = start(&key);
    int one = client_connect(d), two = client_connect(d);
    client_post(one, BEARER, ASK);
    int back = backend_accept(d);
    struct buf got = backend_request(back);
    buf_release(&got);
    client_post(two, BEARER, ASK);
    struct answer a = client_answer(two, false);
    says(&a, 429, "may have 1 request running at a time");
    client_reset(one);
    door_wait(d, DOOR_RECORDS, 2); /* the refused one, too */
    close(back);
    back = -1;
    a = turn(two, &back, d);
    assert_int_equal(a.status, 200);
    answer_release(&a);
    close(two);
    close(back);
    door_stop(d, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reasons),
        cmocka_unit_test(test_two_places),
        cmocka_unit_test(test_required),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_rates),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_who_leaves_early_pays_for_the_prompt),
        cmocka_unit_test(test_concurrency),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
