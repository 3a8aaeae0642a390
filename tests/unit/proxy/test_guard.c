/* Who may ask without a key: hosts, origins, and what a refusal looks like. */
#include "door.h"
#include "proxy/guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void test_hosts(void **state)
{
    (void)state;
    static const struct {
        const char *host, *names;
        bool fine;
    } cases[] = {
        {"127.0.0.1", "", true},
        {"127.0.0.1:11435", "", true},
        {"192.0.2.7:80", "", true},
        {"[::1]:11435", "", true},
        {"[2001:db8::1]", "", true},
        {"localhost", "", true},
        {"LocalHost:11435", "", true},
        {"app.localhost:1", "", true},
        {"localhost.:1", "", true},
        {"evil.example", "", false},
        {"evil.example:11435", "", false},
        {"localhost.evil.example", "", false},
        {"notlocalhost", "", false},
        {"127.0.0.1.evil.example", "", false},
        {"127.0.0.1:80:80", "", false},
        {"127.1", "", false},
        {"2130706433", "", false},
        {"::1", "", false},
        {"[::1", "", false},
        {"[::1].evil.example", "", false},
        {"", "", false},
        {".", "", false},
        {":", "", false},
        {":80", ",", false},
        {"box", "box", true},
        {"BOX.:80", "other, box", true},
        {"box.example", "box", false},
        {"bo", "box", false},
        {"anything.example:1", "*", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (guard_host(str_from(cases[i].host), str_from(cases[i].names)) != cases[i].fine)
            fail_msg("host %s with %s", cases[i].host, cases[i].names);
}

static void test_origins(void **state)
{
    (void)state;
    static const struct {
        const char *origin, *allowed;
        bool fine;
    } cases[] = {
        {"http://localhost:3000", "loopback", true},
        {"https://127.0.0.1", "loopback", true},
        {"http://[::1]:8080", "loopback", true},
        {"http://localhost.evil.example", "loopback", false},
        {"http://evil.example", "loopback", false},
        {"file://localhost", "loopback", false},
        {"null", "loopback", false},
        {"loopback", "loopback", false},
        {"null", "*", true},
        {"http://localhost", "", false},
        {"https://chat.example", "loopback, https://chat.example", true},
        {"https://CHAT.example", "https://chat.example", true},
        {"https://chat.example:444", "https://chat.example", false},
        {"", "*", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (guard_origin(str_from(cases[i].origin), str_from(cases[i].allowed)) != cases[i].fine)
            fail_msg("origin %s with %s", cases[i].origin, cases[i].allowed);
    assert_true(guard_same_host(STR("http://a:1"), STR("A:1")));
    assert_false(guard_same_host(STR("http://a:1"), STR("a:2")));
    assert_false(guard_same_host(STR("null"), STR("")));
    assert_false(guard_same_host(STR("http://"), STR("")));
}

static void test_pages(void **state)
{
    (void)state;
    static const char firefox[] = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    static const struct {
        const char *site, *agent;
        bool page;
    } cases[] = {
        {"cross-site", firefox, true},
        {"same-site", firefox, true}, /* another port of this machine may be anybody's */
        {"same-origin", firefox, false},
        {"none", firefox, false},
        {"", firefox, true}, /* over plain HTTP, beyond loopback */
        {"", "curl/8.5.0", false},
        {"", "", false},
        {"None", firefox, true},
        {"cross-site", "curl/8.5.0", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (guard_may_be_page(str_from(cases[i].site), str_from(cases[i].agent)) != cases[i].page)
            fail_msg("site \"%s\" of %s", cases[i].site, cases[i].agent);
}

static void expect(struct door *d, const char *fields, int status)
{
    static const char *const paths[] = {"/item/x", "/v1/chat/completions"};
    for (size_t i = 0; i < 2; i++) {
        struct buf b = {0};
        assert_true(buf_printf(&b, "%s %s HTTP/1.1\r\n%s\r\n", i ? "POST" : "GET", paths[i], fields));
        struct answer a = client_ask(d, b.data);
        /* an empty body is refused where it is looked at: behind the door */
        assert_int_equal(a.status, i && status == 200 ? 400 : status);
        if (status == 403) {
            assert_non_null(strstr(a.body.data, "\"permission_error\""));
            assert_non_null(strstr(a.body.data, "\"hint\""));
            assert_null(strstr(a.head, "Access-Control"));
        }
        answer_release(&a);
        buf_release(&b);
    }
}

static void test_without_keys(void **state)
{
    (void)state;
    struct door_setup setup = door_default();
    setup.opt.cors_origin = "https://chat.example";
    struct door *d = door_start(&setup);
    expect(d, "Host: 127.0.0.1:11435\r\n", 200);
    expect(d, "Host: a\r\n", 200);
    expect(d, "Host: rebound.example\r\n", 403);
    expect(d, "Host: a\r\nOrigin: https://chat.example\r\n", 200);
    expect(d, "Host: a\r\nOrigin: http://evil.example\r\n", 403);
    expect(d, "Host: a\r\nOrigin: null\r\n", 403);
    expect(d, "Host: a:80\r\nOrigin: http://a:80\r\n", 200);
    expect(d, "Host: rebound.example\r\nOrigin: http://rebound.example\r\n", 403);
    assert_int_equal(door_count(d, DOOR_ACQUIRED), 0);
    door_stop(d, false);
}

/* A key says more than a name: pages of others cannot know it. */
static void test_with_keys(void **state)
{
    (void)state;
    const struct auth_spec key = door_key("key");
    struct door_setup setup = door_default();
    setup.opt.keys = &key;
    setup.opt.n_keys = 1;
    struct door *d = door_start(&setup);
    expect(d, "Host: proxy.example\r\nAuthorization: Bearer key\r\n", 200);
    expect(d, "Host: proxy.example\r\nOrigin: http://evil.example\r\n", 401);
    door_stop(d, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hosts),        cmocka_unit_test(test_origins),   cmocka_unit_test(test_pages),
        cmocka_unit_test(test_without_keys), cmocka_unit_test(test_with_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
