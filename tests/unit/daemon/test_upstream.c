/* Servers elsewhere: their addresses, settings, spending, and whom a name means. */
#include "daemon/remote.h"
#include "daemon/spend.h"
#include "daemon/url.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

/* ---- addresses ---- */

static void test_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool tls;
        const char *host;
        uint16_t port;
        const char *path;
        bool loopback;
    } fine[] = {{"https://api.example.com", true, "api.example.com", 443, "", false},
                {"https://api.example.com:8443/a/v1/", true, "api.example.com", 8443, "/a/v1", false},
                {"http://localhost:1", false, "localhost", 1, "", true},
                {"http://127.0.0.9/v1", false, "127.0.0.9", 80, "/v1", true},
                {"http://[::1]:8080/x", false, "::1", 8080, "/x", true},
                {"https://[2001:db8::1]", true, "2001:db8::1", 443, "", false}};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        struct url u;
        struct err err;
        if (url_parse(str_from(fine[i].text), &u, &err) != RC_OK)
            fail_msg("%s: %s", fine[i].text, err.message);
        assert_int_equal(u.tls, fine[i].tls);
        assert_string_equal(u.host, fine[i].host);
        assert_int_equal(u.port, fine[i].port);
        assert_string_equal(u.path, fine[i].path);
        assert_int_equal(url_is_loopback(&u), fine[i].loopback);
    }
    static const char *const bad[] = {"",
                                      "https://",
                                      "api.example.com",
                                      "ftp://x",
                                      "https://x:0",
                                      "https://x:65536",
                                      "https://x:",
                                      "https://x:1x",
                                      "https://a b",
                                      "https://x/?key=1",
                                      "https://x/a\r\nb",
                                      "https://[::1",
                                      "https://[::1]x",
                                      "https://[x]",
                                      "https://-x",
                                      "https://x#y"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct url u;
        struct err err;
        assert_int_equal(url_parse(str_from(bad[i]), &u, &err), RC_INVALID);
    }
}

static void test_no_password_is_repeated(void **state)
{
    (void)state;
    struct url u;
    struct err err;
    assert_int_equal(url_parse(STR("https://me:hunter2@host"), &u, &err), RC_INVALID);
    assert_null(strstr(err.message, "hunter2"));
    assert_non_null(strstr(err.message, "names a user"));
}

/* ---- spending ---- */

#define AT(day) (((int64_t)(day)*24 + 12) * 3600000)

static void test_spending(void **state)
{
    (void)state;
    struct spend s = {0};
    const struct spend_limits day = {3, 0}, month = {0, 5}, none = {0, 0};
    const char *what;
    double limit;
    int64_t reset;
    assert_true(spend_cost(1000000, 500000, 2, 4) == 4);
    spend_add(&s, 2, AT(20400)); /* 2025-11-08 */
    assert_false(spend_is_over(&s, &day, AT(20400), &what, &limit, &reset));
    spend_add(&s, 1, AT(20400));
    assert_true(spend_is_over(&s, &day, AT(20400), &what, &limit, &reset));
    assert_string_equal(what, "day");
    assert_true(limit == 3);
    assert_int_equal(reset, 20401ll * 86400000);
    assert_false(spend_is_over(&s, &none, AT(20400), &what, &limit, &reset));
    assert_false(spend_is_over(&s, &day, AT(20401), &what, &limit, &reset)); /* a new day */
    spend_add(&s, 2, AT(20401));
    assert_true(spend_is_over(&s, &month, AT(20401), &what, &limit, &reset));
    assert_string_equal(what, "month");
    assert_int_equal(reset, 20423ll * 86400000);                               /* 2025-12-01 */
    assert_false(spend_is_over(&s, &month, AT(20423), &what, &limit, &reset)); /* a new month */
}

/* ---- the set ---- */

static const struct remote_request chat = {.answered_by = DIALECT_BIT(OPENAI) | DIALECT_BIT(ANTHROPIC),
                                           .path = {"/v1/chat/completions", 20}};

static const char *environment(const char *name)
{
    return !strcmp(name, "GOOD_KEY") ? " sk-good\n" : !strcmp(name, "ODD_KEY") ? "two words" : NULL;
}

static struct remote_set *set_of(const char *text)
{
    struct config *c = NULL;
    struct remote_set *s = NULL;
    struct err err;
    if (config_parse(str_from(text), "test", &c, &err) != RC_OK)
        fail_msg("%s", err.message);
    assert_int_equal(remote_set_build(c, environment, &s, &err), RC_OK);
    config_free(c);
    return s;
}

static void test_names(void **state)
{
    (void)state;
    struct remote_set *s =
        set_of("upstreams:\n"
               "  a: {url: 'http://localhost', models: {fast: big-1, slow: big-2}, key_env: GOOD_KEY}\n"
               "  b: {url: 'http://localhost', models: [slow, org/x]}\n");
    assert_int_equal(remote_set_models(s), 4);
    assert_string_equal(remote_find(s, STR("a/fast"))->remote, "big-1");
    assert_string_equal(remote_find(s, STR("b/org/x"))->remote, "org/x");
    assert_string_equal(remote_find_name(s, STR("slow"))->id, "a/slow");
    assert_null(remote_find(s, STR("a/big-1"))); /* only what is listed, by its name here */
    assert_null(remote_find(s, STR("fast")));
    assert_null(remote_find_name(s, STR("")));
    assert_null(remote_problem(s, 0));
    remote_set_free(s);
}

static void test_prices(void **state)
{
    (void)state;
    struct remote_set *s = set_of("upstreams:\n"
                                  "  a:\n"
                                  "    url: http://localhost\n"
                                  "    price_input: 3\n"
                                  "    models:\n"
                                  "      own: {name: big-1, price_input: 1, price_output: 2}\n"
                                  "      half: {price_output: 5}\n"
                                  "      none: {}\n"
                                  "      free: {price_input: 0}\n"
                                  "      short: big-2\n");
    static const struct {
        const char *id, *remote;
        double input, output;
    } rows[] = {{"a/own", "big-1", 1, 2},
                {"a/half", "half", 3, 5},
                {"a/none", "none", 3, 0},
                {"a/free", "free", 0, 0},
                {"a/short", "big-2", 3, 0}};
    assert_int_equal(remote_set_models(s), 5);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct remote_model *m = remote_find(s, str_from(rows[i].id));
        const char *name;
        struct spend sums;
        assert_non_null(m);
        assert_string_equal(m->remote, rows[i].remote);
        assert_true(remote_charge(m, 1000000, 1000000, AT(20400), &name, &sums) ==
                    rows[i].input + rows[i].output);
    }
    remote_set_free(s);
}

static void test_prices_are_printed_as_they_are_read(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "upstreams: {a: {url: 'http://h', models: {x: {name: y, price_input: 1}, z: w, v: {}}}}",
        "upstreams: {a: {url: 'http://h', models: {x: y, z: z}}}",
        "upstreams: {a: {url: 'http://h', models: [x]}}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct config *first = NULL, *second = NULL;
        struct buf once = {0}, twice = {0};
        struct err err;
        if (config_parse(str_from(texts[i]), "test", &first, &err) != RC_OK)
            fail_msg("%s", err.message);
        assert_int_equal(config_yaml(first, &once, &err), RC_OK);
        if (config_parse(buf_str(&once), "test", &second, &err) != RC_OK)
            fail_msg("%s in:\n%s", err.message, once.data);
        assert_int_equal(config_yaml(second, &twice, &err), RC_OK);
        assert_string_equal(once.data, twice.data);
        assert_int_equal(second->upstreams[0].models.n, first->upstreams[0].models.n);
        buf_release(&once);
        buf_release(&twice);
        config_free(first);
        config_free(second);
    }
}

static void test_keys_that_cannot_be_used(void **state)
{
    (void)state;
    struct remote_set *s = set_of("upstreams:\n"
                                  "  a: {url: 'http://localhost', models: [m], key_env: MISSING_KEY}\n"
                                  "  b: {url: 'http://localhost', models: [m], key_env: ODD_KEY}\n"
                                  "  c: {url: 'http://localhost', models: [m], key_file: /no/such/file}\n"
                                  "  d: {url: 'https://localhost', models: [m], ca_file: /no/such/file}\n");
    static const char *const says[] = {"MISSING_KEY", "not one word", "/no/such/file", "/no/such/file"};
    for (size_t i = 0; i < 4; i++) {
        struct remote_lease *lease = NULL;
        struct remote_wait *wait = NULL;
        struct err err;
        uint32_t retry_after_s;
        assert_non_null(strstr(remote_problem(s, i)->message, says[i]));
        assert_null(strstr(remote_problem(s, i)->message, "two words"));
        assert_int_equal(
            remote_acquire(remote_set_model(s, i), &chat, NULL, NULL, &lease, &wait, &retry_after_s, &err),
            POOL_REFUSED);
        assert_int_equal(err.code, RC_BACKEND);
    }
    remote_set_free(s);
}

struct got {
    struct remote_lease *lease;
    struct err err;
    unsigned calls;
    uint32_t retry_after_s;
};

static void on_lease(void *arg, struct remote_lease *lease, const struct err *err, uint32_t retry_after_s)
{
    struct got *g = arg;
    g->retry_after_s = retry_after_s;
    g->calls++;
    g->lease = lease;
    if (err)
        g->err = *err;
}

static enum pool_answer ask(const struct remote_set *s, struct got *g, struct remote_wait **ret_wait)
{
    uint32_t retry_after_s;
    *g = (struct got){.calls = 0};
    return remote_acquire(remote_set_model(s, 0), &chat, on_lease, g, &g->lease, ret_wait, &retry_after_s,
                          &g->err);
}

static void test_turns(void **state)
{
    (void)state;
    struct remote_set *s = set_of(
                          "upstreams:\n  a: {url: 'http://127.0.0.1:9', models: [m], max_concurrency: 1}\n"
                          "limits: {max_waiting: 2}\n"),
                      *later;
    struct remote_wait *w[3];
    struct got g[4];
    remote_set_start(s, NULL, NULL);
    assert_int_equal(ask(s, &g[0], &w[0]), POOL_GRANTED);
    assert_string_equal(g[0].lease->out.address[0], "127.0.0.1");
    assert_string_equal(g[0].lease->out.host_field, "127.0.0.1:9");
    assert_int_equal(ask(s, &g[1], &w[1]), POOL_WAITING);
    assert_int_equal(ask(s, &g[2], &w[2]), POOL_WAITING);
    assert_int_equal(ask(s, &g[3], &w[0]), POOL_REFUSED);
    assert_int_equal(g[3].err.code, RC_TOO_MANY);
    remote_cancel(w[1]);
    later = set_of("upstreams:\n  a: {url: 'http://127.0.0.1:9', models: [m], max_concurrency: 1}\n");
    remote_set_start(later, NULL, s); /* a reload: what goes on goes on */
    remote_set_free(s);
    remote_release(g[0].lease, ROUTE_END_FINE, 0);
    assert_int_equal(g[1].calls, 0);
    assert_int_equal(g[2].calls, 1);
    assert_non_null(g[2].lease);
    remote_release(g[2].lease, ROUTE_END_FINE, 60); /* it asked for a rest */
    assert_int_equal(ask(later, &g[3], &w[0]), POOL_REFUSED);
    assert_non_null(strstr(g[3].err.message, "takes no requests for another"));
    remote_set_free(later);
}

static void test_a_breaker_opens(void **state)
{
    (void)state;
    struct remote_set *s = set_of("upstreams:\n  a: {url: 'http://127.0.0.1:9', models: [m]}\n");
    struct remote_wait *w;
    struct got g;
    remote_set_start(s, NULL, NULL);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(ask(s, &g, &w), POOL_GRANTED);
        remote_release(g.lease, ROUTE_END_BROKEN, 0);
    }
    assert_int_equal(ask(s, &g, &w), POOL_REFUSED);
    assert_int_equal(g.err.code, RC_BACKEND);
    assert_non_null(strstr(g.err.message, "nothing but errors"));
    remote_set_free(s);
}

static void test_a_wait_ends(void **state)
{
    (void)state;
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct remote_set *s =
        set_of("upstreams:\n  a: {url: 'http://127.0.0.1:9', models: [m], max_concurrency: 1}\n"
               "limits: {queue_wait: 5ms}\n");
    struct remote_wait *first, *second;
    struct got g[3];
    uint32_t position;
    uint64_t expected_ms;
    remote_set_start(s, &loop, NULL);
    assert_int_equal(ask(s, &g[0], &first), POOL_GRANTED);
    assert_int_equal(g[0].lease->position, 0);
    assert_int_equal(ask(s, &g[1], &first), POOL_WAITING);
    assert_int_equal(ask(s, &g[2], &second), POOL_WAITING);
    remote_look(second, &position, &expected_ms);
    assert_int_equal(position, 2);
    assert_int_equal(expected_ms, 2000); /* a guess, until one was seen */
    remote_cancel(second);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(g[1].calls, 1);
    assert_null(g[1].lease);
    assert_int_equal(g[1].err.code, RC_BUSY);
    assert_int_equal(g[1].retry_after_s, 1);
    assert_non_null(strstr(g[1].err.message, "upstream a had no place for the request within"));
    assert_non_null(strstr(g[1].err.hint, "upstreams.a.max_concurrency"));
    assert_int_equal(g[2].calls, 0);
    assert_int_equal(ask(s, &g[1], &first), POOL_WAITING);
    remote_release(g[0].lease, ROUTE_END_FINE, 0); /* its turn comes before its end */
    assert_int_equal(g[1].calls, 1);
    assert_int_equal(g[1].lease->position, 1);
    remote_release(g[1].lease, ROUTE_END_FINE, 0);
    remote_set_free(s);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void test_what_its_api_cannot_answer(void **state)
{
    (void)state;
    struct remote_set *s =
        set_of("upstreams:\n  a: {url: 'http://127.0.0.1:9', models: [m], dialect: anthropic}\n");
    static const struct {
        struct remote_request q;
        const char *says, *hint;
    } rows[] = {{{.answered_by = DIALECT_BIT(OPENAI), .path = {"/v1/embeddings", 14}},
                 "upstream a cannot answer /v1/embeddings: the API that it speaks, anthropic",
                 "an upstream whose dialect is openai"},
                {{.answered_by = 0, .path = {"/slots", 6}},
                 "requests to /slots are not passed on to upstream a",
                 "a model of this machine"}};
    struct remote_wait *w;
    struct got g = {.calls = 0};
    remote_set_start(s, NULL, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(remote_acquire(remote_set_model(s, 0), &rows[i].q, on_lease, &g, &g.lease, &w,
                                        &g.retry_after_s, &g.err),
                         POOL_REFUSED);
        assert_int_equal(g.err.code, RC_UNSUPPORTED);
        assert_non_null(strstr(g.err.message, rows[i].says));
        assert_non_null(strstr(g.err.hint, rows[i].hint));
    }
    assert_int_equal(ask(s, &g, &w), POOL_GRANTED);
    remote_release(g.lease, ROUTE_END_FINE, 0);
    remote_set_free(s);
}

/* ---- how one is ---- */

/* A server on the loop that answers with the status of the path that it is asked for. */
struct toy {
    uv_loop_t loop;
    uv_tcp_t listener;
    uint16_t port;
    int health, models;
};

struct visitor {
    uv_tcp_t tcp;
    uv_write_t write;
    char in[512], out[64];
    size_t n;
};

static void on_gone(uv_handle_t *h)
{
    free(h->data);
}

static void on_sent(uv_write_t *w, int status)
{
    (void)status;
    uv_close((uv_handle_t *)w->handle, on_gone);
}

static void on_room(uv_handle_t *h, size_t n, uv_buf_t *b)
{
    struct visitor *v = h->data;
    (void)n;
    *b = uv_buf_init(v->in + v->n, (unsigned)(sizeof v->in - 1 - v->n));
}

static void on_words(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    struct visitor *v = s->data;
    const struct toy *t = s->loop->data;
    (void)b;
    if (n < 0) {
        uv_close((uv_handle_t *)s, on_gone);
        return;
    }
    v->n += (size_t)n;
    if (!strstr(v->in, "\r\n\r\n"))
        return;
    int status = strncmp(v->in, "GET /health ", 12) == 0      ? t->health
                 : strncmp(v->in, "GET /v1/models ", 15) == 0 ? t->models
                                                              : 500;
    (void)snprintf(v->out, sizeof v->out, "HTTP/1.1 %d -\r\nContent-Length: 0\r\n\r\n", status);
    uv_buf_t out = uv_buf_init(v->out, (unsigned)strlen(v->out));
    uv_read_stop(s);
    uv_write(&v->write, s, &out, 1, on_sent);
}

static void on_visitor(uv_stream_t *listener, int status)
{
    struct visitor *v = mem_new(struct visitor);
    assert_int_equal(status, 0);
    uv_tcp_init(listener->loop, &v->tcp);
    v->tcp.data = v;
    assert_int_equal(uv_accept(listener, (uv_stream_t *)&v->tcp), 0);
    uv_read_start((uv_stream_t *)&v->tcp, on_room, on_words);
}

static void toy_start(struct toy *t)
{
    struct sockaddr_in at;
    int n = sizeof at;
    uv_loop_init(&t->loop);
    t->loop.data = t;
    uv_tcp_init(&t->loop, &t->listener);
    uv_ip4_addr("127.0.0.1", 0, &at);
    assert_int_equal(uv_tcp_bind(&t->listener, (struct sockaddr *)&at, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&t->listener, 8, on_visitor), 0);
    assert_int_equal(uv_tcp_getsockname(&t->listener, (struct sockaddr *)&at, &n), 0);
    t->port = ntohs(at.sin_port);
}

static struct remote_set *toy_set(struct toy *t, const char *host)
{
    char text[160];
    (void)snprintf(text, sizeof text, "roles: {reasoning: {model: m, host: '%s:%u'}}", host, t->port);
    struct remote_set *s = set_of(text);
    remote_set_start(s, &t->loop, NULL);
    return s;
}

/* The set is new, so what it says is what the server has just said. */
static void expect_fare(struct toy *t, const char *host, enum remote_fare fare, const char *says)
{
    struct remote_set *s = toy_set(t, host);
    const struct remote_model *m = remote_find(s, STR("reasoning"));
    const char *why = "";
    enum remote_fare now;
    assert_non_null(m);
    while ((now = remote_watch(m, &why)) == REMOTE_UNKNOWN)
        uv_run(&t->loop, UV_RUN_ONCE);
    if (now != fare || !strstr(why, says))
        fail_msg("%d %d at %s: %d (%s)", t->health, t->models, host, now, why);
    remote_set_free(s);
}

static void test_how_one_is(void **state)
{
    (void)state;
    static const struct {
        int health, models;
        enum remote_fare fare;
        const char *says;
    } rows[] = {{200, 500, REMOTE_WELL, ""},
                {204, 500, REMOTE_WELL, ""},
                {503, 200, REMOTE_ILL, "it answers GET /health with status 503"},
                {404, 200, REMOTE_WELL, ""},
                {401, 401, REMOTE_WELL, ""}, /* it is there, and wants a key */
                {404, 502, REMOTE_ILL, "it answers GET /v1/models with status 502"}};
    struct toy t = {.port = 0};
    toy_start(&t);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        t.health = rows[i].health;
        t.models = rows[i].models;
        expect_fare(&t, "127.0.0.1", rows[i].fare, rows[i].says);
        expect_fare(&t, "http://localhost", rows[i].fare, rows[i].says); /* whichever address it has */
    }
    struct remote_set *s = toy_set(&t, "127.0.0.1");
    const char *why;
    assert_int_equal(remote_watch(remote_set_model(s, 0), &why), REMOTE_UNKNOWN);
    remote_set_free(s); /* while it is being asked */
    uv_close((uv_handle_t *)&t.listener, NULL);
    uv_run(&t.loop, UV_RUN_DEFAULT);
    expect_fare(&t, "127.0.0.1", REMOTE_ILL, "does not answer");
    uv_run(&t.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&t.loop), 0);
}

static void test_a_role_is_a_name_of_it(void **state)
{
    (void)state;
    struct remote_set *s =
        set_of("upstreams: {cloud: {url: 'http://localhost', models: [m]}}\n"
               "roles: {a: {model: cloud/m}, b: {model: cloud/m}, c: {model: x, host: 'h:1'}}\n");
    assert_string_equal(remote_find(s, STR("a"))->id, "cloud/m");
    assert_string_equal(remote_find(s, STR("b"))->id, "cloud/m");
    assert_string_equal(remote_find(s, STR("c"))->remote, "x");
    assert_string_equal(remote_url(remote_find(s, STR("c"))), "http://h:1");
    assert_null(remote_find(s, STR("d")));
    remote_set_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_no_password_is_repeated),
        cmocka_unit_test(test_spending),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_prices),
        cmocka_unit_test(test_prices_are_printed_as_they_are_read),
        cmocka_unit_test(test_keys_that_cannot_be_used),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_a_breaker_opens),
        cmocka_unit_test(test_a_wait_ends),
        cmocka_unit_test(test_what_its_api_cannot_answer),
        cmocka_unit_test(test_how_one_is),
        cmocka_unit_test(test_a_role_is_a_name_of_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
