/* Keys and their limits without sockets: the time is what the test says. */
#include "proxy/auth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#define SECOND UINT64_C(1000000)
#define NOW    INT64_C(1000)

static struct auth_spec chosen(const char *secret)
{
    struct auth_spec s = {.scopes = AUTH_INFER};
    assert_true(auth_digest(str_from(secret), STR(""), s.hash));
    for (size_t i = 0; i < AUTH_ID_CHARS / 2; i++)
        (void)snprintf(s.id + 2 * i, 3, "%02x", s.hash[i]);
    return s;
}

static struct auth_spec made(const char *id, const char *secret)
{
    struct auth_spec s = {.scopes = AUTH_INFER, .salted = true};
    memset(s.salt, id[0], sizeof s.salt);
    (void)snprintf(s.id, sizeof s.id, "%s", id);
    assert_true(auth_digest((struct str){(const char *)s.salt, sizeof s.salt}, str_from(secret), s.hash));
    return s;
}

static enum auth_answer check(struct auth *a, const char *secret, const char *id)
{
    struct auth_key *k = NULL;
    enum auth_answer answer = auth_check(a, str_from(secret), NOW, &k);
    if (answer == AUTH_OK || answer == AUTH_EXPIRED)
        assert_string_equal(k->spec.id, id);
    else
        assert_null(k);
    return answer;
}

static void test_check(void **state)
{
    (void)state;
    struct auth *a = NULL;
    assert_int_equal(auth_new(&a, NULL), RC_OK);
    assert_false(auth_needed(a));
    struct auth_spec specs[] = {chosen("key-one"), made("0badcafe", "arr_0badcafe_secret"), chosen("key-one"),
                                made("12345678", "arr_12345678_old")};
    specs[3].expires_ms = NOW;
    auth_set(a, specs, 4, false, 0);
    assert_true(auth_needed(a));
    assert_non_null(auth_key_at(a, 2));
    assert_null(auth_key_at(a, 3));           /* the same key twice is one */
    for (int round = 0; round < 2; round++) { /* the second time by what the first one learned */
        assert_int_equal(check(a, "key-one", "9b346041"), AUTH_OK);
        assert_int_equal(check(a, "arr_0badcafe_secret", "0badcafe"), AUTH_OK);
        assert_int_equal(check(a, "arr_12345678_old", "12345678"), AUTH_EXPIRED);
        static const char *const wrong[] = {"key-two",        "arr_0badcafe_secreu", "arr_0badcafe_",
                                            "arr_",           "arr_0badcafe",        "arr_0badcafeXsecret",
                                            "arr_ffffffff_x", "arr_9b346041_key-one"};
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
            assert_int_equal(check(a, wrong[i], ""), AUTH_WRONG);
        assert_int_equal(check(a, "", ""), AUTH_MISSING);
    }
    static char long_secret[AUTH_SECRET_MAX + 2];
    memset(long_secret, 'x', sizeof long_secret - 1);
    assert_int_equal(check(a, long_secret, ""), AUTH_WRONG);
    auth_set(a, NULL, 0, true, 0);
    assert_true(auth_needed(a));
    assert_int_equal(check(a, "key-one", ""), AUTH_WRONG);
    auth_free(a);
    auth_free(NULL);
}

/* Many keys, some of which change: each is found, none of those that went. */
static void test_many(void **state)
{
    (void)state;
    enum { N = 700 };
    static struct auth_spec specs[N];
    struct auth *a = NULL;
    char secret[64], id[24];
    assert_int_equal(auth_new(&a, NULL), RC_OK);
    for (size_t round = 0; round < 3; round++) {
        size_t from = round * 300;
        for (size_t i = 0; i < N; i++) {
            (void)snprintf(id, sizeof id, "%08zx", from + i);
            (void)snprintf(secret, sizeof secret, "arr_%s_%zu", id, from + i);
            specs[i] = (from + i) % 2 ? made(id, secret) : chosen(secret);
        }
        auth_set(a, specs, N, false, 0);
        for (size_t i = 0; i < from + N + 50; i++) {
            (void)snprintf(id, sizeof id, "%08zx", i);
            (void)snprintf(secret, sizeof secret, "arr_%s_%zu", id, i);
            bool there = i >= from && i < from + N;
            assert_int_equal(check(a, secret, there ? specs[i - from].id : ""), there ? AUTH_OK : AUTH_WRONG);
        }
    }
    auth_free(a);
}

/* What a key has spent outlives a reload; a key that is held outlives its revocation. */
static void test_replace(void **state)
{
    (void)state;
    struct auth *a = NULL;
    struct auth_key *k = NULL;
    uint64_t wait = 0;
    assert_int_equal(auth_new(&a, NULL), RC_OK);
    struct auth_spec s = made("aaaaaaaa", "arr_aaaaaaaa_x");
    s.requests_per_minute = 2;
    s.name = "first";
    auth_set(a, &s, 1, false, 0);
    assert_int_equal(auth_check(a, STR("arr_aaaaaaaa_x"), NOW, &k), AUTH_OK);
    assert_int_equal(limits_begin(&k->limits, 0, &wait), LIMIT_NONE);
    assert_int_equal(limits_begin(&k->limits, 0, &wait), LIMIT_NONE);
    auth_hold(k);
    s.name = "second";
    auth_set(a, &s, 1, false, 0);
    assert_string_equal(k->spec.name, "second");
    assert_int_equal(limits_begin(&k->limits, 0, &wait), LIMIT_REQUESTS);
    struct auth_spec other = made("aaaaaaaa", "arr_aaaaaaaa_y"); /* the same id, another secret */
    auth_set(a, &other, 1, false, 0);
    assert_int_equal(check(a, "arr_aaaaaaaa_x", ""), AUTH_WRONG);
    assert_int_equal(check(a, "arr_aaaaaaaa_y", "aaaaaaaa"), AUTH_OK);
    auth_set(a, NULL, 0, true, 0);
    assert_int_equal(check(a, "arr_aaaaaaaa_y", ""), AUTH_WRONG);
    assert_string_equal(k->spec.id, "aaaaaaaa"); /* still readable */
    auth_release(k);
    auth_free(a);
}

static void test_models(void **state)
{
    (void)state;
    static const struct {
        const char *models, *model;
        bool yes;
    } rows[] = {
        {"", "anything", true},
        {NULL, "anything", true},
        {"a", "a", true},
        {"a", "b", false},
        {"a", "", false},
        {"a,b", "b", true},
        {" a , b ", "b", true},
        {"qwen*", "Qwen3-8B", true},
        {"qwen*", "my-qwen", false},
        {"*qwen*", "my-qwen", true},
        {"*", "", true},
        {"q*8b", "qwen3-8b", true},
        {"q*8b", "qwen3-8bx", false},
        {"*a*b*c", "xaxbxbxc", true},
        {"*a*b*c", "xaxcxb", false},
        {"**", "x", true},
        {",", "", false},
        {"a*", "a", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct auth_spec s = {.models = rows[i].models};
        if (auth_may_use(&s, str_from(rows[i].model)) != rows[i].yes)
            fail_msg("%s for %s", rows[i].models, rows[i].model);
    }
}

static void test_bearer(void **state)
{
    (void)state;
    assert_true(str_eq_c(auth_bearer(STR("bEaReR  x ")), "x"));
    assert_int_equal(auth_bearer(STR("Basic x")).n, 0);
    assert_int_equal(auth_bearer(STR("Bearer")).n, 0);
}

/* ---- limits ---- */

static void test_requests(void **state)
{
    (void)state;
    struct limits l = {0};
    uint64_t wait = 0;
    limits_set(&l, 60, 0, 0, 0);
    for (int i = 0; i < 60; i++)
        assert_int_equal(limits_begin(&l, 0, &wait), LIMIT_NONE);
    assert_int_equal(limits_begin(&l, 0, &wait), LIMIT_REQUESTS);
    assert_int_equal(wait, SECOND);
    assert_int_equal(limit_left(&l.requests, 0), 0);
    assert_int_equal(limit_reset_us(&l.requests, 0), 60 * SECOND);
    assert_int_equal(limits_begin(&l, SECOND - 1, &wait), LIMIT_REQUESTS);
    assert_int_equal(wait, 1);
    assert_int_equal(limits_begin(&l, SECOND, &wait), LIMIT_NONE);
    assert_int_equal(limits_begin(&l, SECOND, &wait), LIMIT_REQUESTS);
    assert_int_equal(limit_left(&l.requests, 61 * SECOND), 60);
    assert_int_equal(limit_left(&l.requests, 100000 * SECOND), 60); /* no more than a minute's */
    assert_int_equal(limit_reset_us(&l.requests, 100000 * SECOND), 0);
    assert_int_equal(l.running, 61);
}

static void test_tokens(void **state)
{
    (void)state;
    struct limits l = {0};
    uint64_t wait = 0;
    limits_set(&l, 0, 600, 0, 0);
    assert_int_equal(limits_begin(&l, 0, &wait), LIMIT_NONE);
    limits_end(&l, 599, 0, 0);
    assert_int_equal(limit_left(&l.tokens, 0), 1);
    assert_int_equal(limits_begin(&l, 0, &wait), LIMIT_NONE);
    limits_end(&l, 100, 0, 0); /* 99 in debt */
    assert_int_equal(limits_begin(&l, 0, &wait), LIMIT_TOKENS);
    assert_int_equal(wait, 10 * SECOND); /* ten a second: the debt, and one to spend */
    assert_int_equal(limits_begin(&l, 10 * SECOND, &wait), LIMIT_NONE);
    limits_end(&l, UINT64_MAX, 0, 10 * SECOND); /* however much: a minute */
    assert_int_equal(limits_begin(&l, 10 * SECOND, &wait), LIMIT_TOKENS);
    assert_true(wait > 60 * SECOND && wait <= 61 * SECOND);
    limits_set(&l, 0, LIMIT_MAX_PER_MINUTE, 0, 10 * SECOND); /* more allowed: what was spent stays spent */
    assert_int_equal(limit_left(&l.tokens, 10 * SECOND), LIMIT_MAX_PER_MINUTE - 1200);
    limits_set(&l, 0, 1, 0, 10 * SECOND);
    assert_int_equal(limits_begin(&l, 10 * SECOND, &wait), LIMIT_TOKENS);
    assert_true(wait <= 120 * SECOND);
    limits_set(&l, 0, 0, 0, 10 * SECOND);
    assert_int_equal(limits_begin(&l, 10 * SECOND, &wait), LIMIT_NONE);
}

static void test_concurrency(void **state)
{
    (void)state;
    struct limits l = {0};
    uint64_t wait = 7;
    limits_set(&l, 0, 0, 2, 0);
    assert_int_equal(limits_begin(&l, 0, &wait), LIMIT_NONE);
    assert_int_equal(limits_begin(&l, 0, &wait), LIMIT_NONE);
    assert_int_equal(limits_begin(&l, 0, &wait), LIMIT_CONCURRENCY);
    assert_int_equal(wait, 0); /* nothing is known yet */
    limits_end(&l, 0, 0, 8 * SECOND);
    assert_int_equal(limits_begin(&l, 8 * SECOND, &wait), LIMIT_NONE);
    assert_int_equal(limits_begin(&l, 8 * SECOND, &wait), LIMIT_CONCURRENCY);
    assert_int_equal(wait, 4 * SECOND);
}

/* The largest amounts and the longest times overflow nothing (the build's sanitizer watches). */
static void test_extremes(void **state)
{
    (void)state;
    struct limits l = {0};
    uint64_t wait = 0;
    limits_set(&l, UINT32_MAX, UINT32_MAX, UINT32_MAX, 0);
    assert_int_equal(l.requests.per_minute, LIMIT_MAX_PER_MINUTE);
    assert_int_equal(limits_begin(&l, UINT64_MAX, &wait), LIMIT_NONE);
    limits_end(&l, UINT64_MAX, 0, UINT64_MAX);
    assert_int_equal(limits_begin(&l, 0, &wait), LIMIT_TOKENS); /* a clock that goes back gives nothing */
    assert_true(limit_reset_us(&l.tokens, 0) <= 121 * SECOND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check),  cmocka_unit_test(test_many),        cmocka_unit_test(test_replace),
        cmocka_unit_test(test_models), cmocka_unit_test(test_bearer),      cmocka_unit_test(test_requests),
        cmocka_unit_test(test_tokens), cmocka_unit_test(test_concurrency), cmocka_unit_test(test_extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
