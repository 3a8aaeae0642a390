/* The commands that talk to a daemon, against a toy one: what they ask and what they print. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "toy_daemon.h"

#include "base/mem.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define API "/api/arriero/v1"

static const char instances[] =
    "{\"instances\":[{\"id\":\"smol-1\",\"model\":\"smol\",\"state\":\"ready\",\"pid\":4711,\"port\":40001,"
    "\"busy\":0,\"waiting\":0,\"idle_ms\":192000,\"pinned\":true,\"params\":{\"ctx\":8192},\"devices\":["
    "{\"name\":\"CUDA0\",\"predicted_bytes\":1000,\"measured\":{\"total_bytes\":4939212390}},"
    "{\"name\":\"Host\",\"predicted_bytes\":325058560,\"measured\":null}]},"
    "{\"id\":\"big-1\",\"model\":\"big\",\"state\":\"failed\",\"waiting\":2,\"last_error\":{\"message\":\"it "
    "\\u001b[2Jdied\","
    "\"hint\":\"look at its log\"}}]}";

struct run {
    struct toy_daemon d;
    struct buf out, err;
};

static void start(struct run *r, const struct toy_answer *answers)
{
    *r = (struct run){0};
    toy_daemon_start(&r->d, answers);
}

static void stop(struct run *r)
{
    toy_daemon_stop(&r->d);
    buf_release(&r->d.requests);
    buf_release(&r->out);
    buf_release(&r->err);
}

/* Every piece is in the text; a NULL ends them. */
static void assert_has(const struct buf *text, const char *const *pieces)
{
    for (; *pieces; pieces++)
        if (!strstr(text->data, *pieces))
            fail_msg("\"%s\" is missing in:\n%s", *pieces, text->data);
}
#define ASSERT_HAS(buf, ...) assert_has((buf), (const char *const[]){__VA_ARGS__, NULL})

static void test_ps(void **state)
{
    (void)state;
    static const struct toy_answer answers[] = {{"GET " API "/instances ", 200, instances}, {0}};
    struct run r;
    start(&r, answers);
    assert_int_equal(TOY_RUN(&r.out, &r.err, "ps", "--socket", r.d.path), 0);
    assert_string_equal(r.err.data, "");
    ASSERT_HAS(&r.out,
               "MODEL  STATE           PID   PORT  DEVICES                      CONTEXT    BUSY    IDLE\n"
               "smol   ready, pinned  4711  40001  CUDA0 4.6 GiB, Host 310 MiB     8192       0  3m 12s\n",
               "big ", "failed", "0 (+2)", "\nbig: it  [2Jdied\n  hint: look at its log\n");
    assert_null(strchr(r.out.data, '\033'));
    assert_int_equal(TOY_RUN(&r.out, &r.err, "ps", "--json", "--socket", r.d.path), 0);
    assert_int_equal(r.out.n, strlen(instances) + 1);
    stop(&r);
}

static void test_ps_of_upstreams(void **state)
{
    (void)state;
    static const struct toy_answer answers[] = {
        {"GET " API "/instances ", 200,
         "{\"instances\":[],\"upstreams\":[{\"name\":\"cloud\",\"url\":\"https://h/v1\",\"models\":["
         "\"cloud/fast\",\"cloud/slow\"],\"state\":\"ready\",\"breaker\":\"closed\",\"running\":2,"
         "\"max_concurrency\":4,\"waiting\":1,\"idle_ms\":null,\"last_error\":null},"
         "{\"name\":\"far\",\"url\":\"https://f\",\"models\":[\"far/m\"],\"state\":\"unusable\","
         "\"breaker\":\"open\",\"running\":0,\"max_concurrency\":null,\"waiting\":0,\"idle_ms\":2000,"
         "\"last_error\":{\"message\":\"no key\",\"hint\":\"set FAR_KEY\"}}]}"},
        {0}};
    struct run r;
    start(&r, answers);
    assert_int_equal(TOY_RUN(&r.out, &r.err, "ps", "--socket", r.d.path), 0);
    ASSERT_HAS(&r.out, "Nothing is loaded",
               "\n\nUPSTREAM  STATE     URL               BUSY   IDLE  MODELS\n"
               "cloud     ready     https://h/v1  2/4 (+1)      -  cloud/fast, cloud/slow\n"
               "far       unusable  https://f     0 errors  2.0 s  far/m\n",
               "\nfar: no key\n  hint: set FAR_KEY\n");
    stop(&r);
}

static void test_status(void **state)
{
    (void)state;
    static const struct toy_answer answers[] = {
        {"GET " API "/status ", 200,
         "{\"status\":\"ok\",\"version\":\"9.9\",\"pid\":7,\"uptime_ms\":61000,\"models\":3,"
         "\"listen\":[\"127.0.0.1:1\",\"[::1]:1\"],\"instances\":[{\"model\":\"m\",\"state\":\"ready\","
         "\"busy\":2,"
         "\"waiting\":1,\"devices\":[]},{\"model\":\"f\",\"state\":\"failed\"}],"
         "\"machine\":{\"host\":{\"usable_total_bytes\":2147483648,\"usable_free_bytes\":1073741824},"
         "\"gpus\":[{"
         "\"device\":\"CUDA0\",\"memory_total_bytes\":25769803776,\"memory_free_bytes\":0}]},"
         "\"history\":{\"message\":\"the disk is full\"},\"warnings\":[\"it is hot\"]}"},
        {0},
    };
    struct run r;
    start(&r, answers);
    assert_int_equal(TOY_RUN(&r.out, &r.err, "status", "--socket", r.d.path), 0);
    assert_string_equal(r.out.data, "daemon    arriero 9.9, pid 7, up 1m 01s\n"
                                    "address   http://127.0.0.1:1/v1\n"
                                    "          http://[::1]:1/v1\n"
                                    "models    3 known; 1 ready, 1 failed\n"
                                    "loaded    m ready: -, 2 running, 1 waiting\n"
                                    "          f failed\n"
                                    "memory    CUDA0: 0 B of 24.0 GiB free\n"
                                    "          Host: 1.0 GiB of 2.0 GiB free\n"
                                    "history   the disk is full\n"
                                    "warning   it is hot\n");
    stop(&r);
}

static void test_ps_of_nothing(void **state)
{
    (void)state;
    static const struct toy_answer answers[] = {{"GET " API "/instances ", 200, "{\"instances\":[]}"}, {0}};
    struct run r;
    start(&r, answers);
    assert_int_equal(TOY_RUN(&r.out, &r.err, "ps", "--socket", r.d.path), 0);
    ASSERT_HAS(&r.out, "Nothing is loaded", "arriero load MODEL");
    stop(&r);
}

static void test_load_unload_pin(void **state)
{
    (void)state;
    static const struct toy_answer answers[] = {
        {"POST " API "/load ", 200, "{\"ok\":true}"},
        {"POST " API "/unload ", 200, "{\"ok\":true}"},
        {"POST " API "/pin ", 200, "{\"ok\":true}"},
        {"GET " API "/instances ", 200, instances},
        {0},
    };
    struct run r;
    start(&r, answers);
    assert_int_equal(TOY_RUN(&r.out, &r.err, "load", "smol", "--socket", r.d.path), 0);
    assert_string_equal(r.out.data, "smol is ready on CUDA0 4.6 GiB, Host 310 MiB, context 8192\n");
    assert_int_equal(TOY_RUN(&r.out, &r.err, "unload", "-f", "a\"b", "c", "--socket", r.d.path), 0);
    assert_string_equal(r.out.data, "a\"b is unloaded\nc is unloaded\n");
    assert_int_equal(TOY_RUN(&r.out, &r.err, "unload", "--all", "--socket", r.d.path), 0);
    assert_int_equal(TOY_RUN(&r.out, &r.err, "pin", "smol", "--socket", r.d.path), 0);
    assert_int_equal(TOY_RUN(&r.out, &r.err, "pin", "--off", "smol", "--json", "--socket", r.d.path), 0);
    assert_string_equal(r.out.data, "{\"ok\":true}\n");
    toy_daemon_stop(&r.d);
    ASSERT_HAS(&r.d.requests, "{\"model\":\"smol\"}", "{\"model\":\"a\\\"b\",\"force\":true}",
               "{\"model\":\"c\",\"force\":true}", "{\"model\":\"\",\"force\":false}",
               "{\"model\":\"smol\",\"on\":true}", "{\"model\":\"smol\",\"on\":false}");
    buf_release(&r.d.requests);
    buf_release(&r.out);
    buf_release(&r.err);
}

static void test_reset(void **state)
{
    (void)state;
    static const struct toy_answer answers[] = {
        {"POST " API "/reset ", 200, "{\"success\":true,\"model\":\"smol\",\"reset\":1}"},
        {0},
    };
    struct run r;
    start(&r, answers);
    assert_int_equal(TOY_RUN(&r.out, &r.err, "reset", "smol", "--socket", r.d.path), 0);
    assert_string_equal(r.out.data, "smol is held back no longer: the next request tries it at once\n");
    assert_int_equal(TOY_RUN(&r.out, &r.err, "reset", "--socket", r.d.path), 0);
    assert_string_equal(r.out.data, "1 model had failed and may be tried again at once\n");
    toy_daemon_stop(&r.d);
    ASSERT_HAS(&r.d.requests, "{\"model\":\"smol\"}", "{\"model\":\"\"}");
    buf_release(&r.d.requests);
    buf_release(&r.out);
    buf_release(&r.err);
}

static void test_errors_of_the_daemon(void **state)
{
    (void)state;
    static const struct toy_answer answers[] = {
        {"POST " API "/load ", 404,
         "{\"error\":{\"message\":\"no model is called smal\",\"hint\":\"did you mean "
         "smol?\",\"code\":\"not_found\"}}"},
        {0},
    };
    struct run r;
    start(&r, answers);
    assert_int_equal(TOY_RUN(&r.out, &r.err, "load", "smal", "--socket", r.d.path), 1);
    assert_string_equal(r.out.data, "");
    assert_string_equal(r.err.data, "arriero: no model is called smal\n  hint: did you mean smol?\n");
    assert_int_equal(TOY_RUN(&r.out, &r.err, "load", "smal", "--json", "--socket", r.d.path), 1);
    ASSERT_HAS(&r.out, "{\"error\":{\"message\":\"no model is called smal\"", "\"code\":\"not_found\"");
    assert_string_equal(r.err.data, "");
    stop(&r);
}

static void test_why(void **state)
{
    (void)state;
    static const struct toy_answer answers[] = {
        {"GET " API "/why?limit=4&model=a%2Fb ", 200,
         "{\"summary\":\"a/b runs on Host.\\u001b[31m It is slow.\",\"decisions\":["
         "{\"at\":\"odd\",\"kind\":\"novel\",\"model\":\"a/b\"},"
         "{\"at\":\"2026-01-31T17:05:11.000Z\",\"kind\":\"refuse\",\"model\":\"a/"
         "b\",\"reasons\":[{\"text\":\"no\"}]},"
         "{\"at\":\"2026-01-31T17:05:10.000Z\",\"kind\":\"refuse\",\"model\":\"a/"
         "b\",\"reasons\":[{\"text\":\"no\"}]},"
         "{\"at\":\"2026-01-31T17:05:09.123Z\",\"kind\":\"ready\",\"model\":\"a/b\",\"seconds\":1.25,"
         "\"reasons\":[{\"code\":\"cpu_no_gpu\",\"text\":\"There is no GPU, so it runs on the CPU\"}]}]}"},
        {"GET " API "/why?limit=10 ", 200, "{\"summary\":\"Nothing is loaded.\",\"decisions\":[]}"},
        {"GET " API "/why?limit=10&model=smal ", 404,
         "{\"error\":{\"message\":\"no model is called smal\",\"hint\":\"did you mean "
         "smol?\",\"code\":\"not_found\"}}"},
        {0},
    };
    struct run r;
    setenv("TZ", "UTC", 1);
    start(&r, answers);
    assert_int_equal(TOY_RUN(&r.out, &r.err, "why", "a/b", "-n4", "--socket", r.d.path), 0);
    assert_string_equal(r.out.data, "a/b runs on Host. [31m It is slow.\n\n"
                                    "2026-01-31 17:05:09  a/b became ready after 1.2 s\n"
                                    "    There is no GPU, so it runs on the CPU\n\n"
                                    "2026-01-31 17:05:11  a/b was refused\n"
                                    "    no\n"
                                    "    (2 times in a row)\n\n"
                                    "odd  a/b novel\n");
    assert_int_equal(TOY_RUN(&r.out, &r.err, "why", "--socket", r.d.path), 0);
    assert_string_equal(r.out.data, "Nothing is loaded.\n");
    assert_int_equal(TOY_RUN(&r.out, &r.err, "why", "--json", "--socket", r.d.path), 0);
    ASSERT_HAS(&r.out, "\"summary\":\"Nothing is loaded.\"");
    assert_int_equal(TOY_RUN(&r.out, &r.err, "why", "smal", "--socket", r.d.path), 1);
    assert_string_equal(r.err.data, "arriero: no model is called smal\n  hint: did you mean smol?\n");
    stop(&r);
}

static void test_logs(void **state)
{
    (void)state;
    static const struct toy_answer answers[] = {
        {"GET " API "/logs?id=smol ", 200, "{\"log\":\"one\\ntwo\\u001b[31m\\nthree\\n\"}"},
        {0},
    };
    struct run r;
    start(&r, answers);
    assert_int_equal(TOY_RUN(&r.out, &r.err, "logs", "smol", "-n", "2", "--socket", r.d.path), 0);
    assert_string_equal(r.out.data, "two [31m\nthree\n");
    assert_int_equal(TOY_RUN(&r.out, &r.err, "logs", "smol", "-n", "0", "--socket", r.d.path), 0);
    assert_string_equal(r.out.data, "one\ntwo [31m\nthree\n");
    stop(&r);
}

static void test_logs_are_followed(void **state)
{
    (void)state;
    static const struct toy_answer answers[] = {
        {"GET " API "/logs?id=smol&follow=1 ", 200,
         "event: log\ndata: {\"log\":\"one\\ntwo\\n\"}\n\nevent: line\ndata: {\"instance\":\"smol#1\","
         "\"line\":\"th\\u001b[31mree\"}\n\nevent: unknown\ndata: {}\n\nevent: line\ndata: "
         "{\"line\":\"four\"}\n\n"},
        {0},
    };
    struct run r;
    start(&r, answers);
    assert_int_equal(TOY_RUN(&r.out, &r.err, "logs", "smol", "-f", "-n", "1", "--socket", r.d.path), 0);
    assert_string_equal(r.out.data, "two\nth [31mree\nfour\n");
    ASSERT_HAS(&r.err, "the daemon has ended the connection");
    assert_int_equal(TOY_RUN(&r.out, &r.err, "logs", "smol", "--follow", "--json", "--socket", r.d.path), 0);
    ASSERT_HAS(&r.out, "{\"log\":\"one\\ntwo\\n\"}\n", "{\"line\":\"four\"}\n");
    assert_int_equal(TOY_RUN(&r.out, &r.err, "logs", "other", "-f", "--socket", r.d.path), 1);
    stop(&r);
}

static void test_events(void **state)
{
    (void)state;
    static const struct toy_answer answers[] = {
        {"GET " API "/events ", 200,
         "retry: 2000\n\nid: 1\nevent: decision\ndata: "
         "{\"at\":\"2026-01-02T03:04:05.000Z\",\"kind\":\"load\","
         "\"model\":\"smol\",\"instance\":\"smol#1\",\"reasons\":[{\"code\":\"x\",\"text\":\"it "
         "fits\"}]}\n\nevent: decision\ndata: {\"kind\":\"wait\",\"model\":\"big\"}\n\nevent: "
         "decision\ndata: broken\n\nevent: other\ndata: {}\n\n"},
        {0},
    };
    struct run r;
    start(&r, answers);
    assert_int_equal(TOY_RUN(&r.out, &r.err, "events", "--socket", r.d.path), 0);
    ASSERT_HAS(&r.out, "smol was placed\n    it fits\n", "big waits for memory\n");
    assert_int_equal(TOY_RUN(&r.out, &r.err, "events", "big", "--json", "--socket", r.d.path), 0);
    assert_string_equal(r.out.data, "{\"kind\":\"wait\",\"model\":\"big\"}\n");
    assert_int_equal(TOY_RUN(&r.out, &r.err, "events", "smol#1", "--socket", r.d.path), 0);
    ASSERT_HAS(&r.out, "smol was placed");
    assert_null(strstr(r.out.data, "big"));
    stop(&r);
}

static const char stream[] =
    "data: {\"model\":\"smol\",\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n"
    "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n"
    "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n"
    "data: {\"choices\":[{\"delta\":{\"content\":\"lo\"},\"finish_reason\":\"stop\"}]}\n\n"
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3},"
    "\"timings\":{\"predicted_per_second\":12.34}}\n\n"
    "data: [DONE]\n\n";

static void test_ask(void **state)
{
    (void)state;
    static const struct toy_answer answers[] = {
        {"GET /v1/models ", 200, "{\"data\":[{\"id\":\"first\"},{\"id\":\"second\"}]}"},
        {"POST /v1/chat/completions ", 200, stream},
        {0},
    };
    struct run r;
    char url[64];
    start(&r, answers);
    snprintf(url, sizeof url, "http://127.0.0.1:%u/v1", r.d.port); /* as clients of the OpenAI API have it */
    assert_int_equal(TOY_RUN(&r.out, &r.err, "ask", "--url", url, "what", "is \"it\"?"), 0);
    assert_string_equal(r.out.data, "Hello\n");
    ASSERT_HAS(&r.err, "[3 tokens, 12.3 tokens/s, first after ");
    assert_int_equal(TOY_RUN(&r.out, &r.err, "ask", "-u", url, "-q", "-m", "smol", "-s", "be brief", "-n",
                             "7", "-t", "0.5", "hi"),
                     0);
    assert_string_equal(r.err.data, "");
    assert_int_equal(TOY_RUN(&r.out, &r.err, "ask", "-u", url, "-m", "smol", "--json", "hi"), 0);
    ASSERT_HAS(&r.out,
               "\"model\":\"smol\",\"text\":\"Hello\",\"reasoning\":\"hm\",\"finish_reason\":\"stop\"",
               "\"completion_tokens\":3", "\"tokens_per_second\":12.34");
    toy_daemon_stop(&r.d);
    ASSERT_HAS(&r.d.requests,
               "{\"model\":\"first\",\"messages\":[{\"role\":\"user\",\"content\":\"what is \\\"it\\\"?\"}]",
               "{\"role\":\"system\",\"content\":\"be brief\"}",
               "\"max_tokens\":7,\"temperature\":0.5,\"stream\":true",
               "\"stream_options\":{\"include_usage\":true}");
    buf_release(&r.d.requests);
    buf_release(&r.out);
    buf_release(&r.err);
}

static void test_ask_finds_the_door(void **state)
{
    (void)state;
    char status[96];
    struct toy_answer answers[] = {
        {"GET " API "/status ", 200, status},
        {"POST /v1/chat/completions ", 200, stream},
        {0},
    };
    struct run r;
    start(&r, answers);
    snprintf(status, sizeof status, "{\"listen\":[\"0.0.0.0:%u\"]}", r.d.port);
    assert_int_equal(TOY_RUN(&r.out, &r.err, "ask", "-m", "smol", "hi", "--socket", r.d.path), 0);
    assert_string_equal(r.out.data, "Hello\n");
    stop(&r);
}

static void test_ask_errors(void **state)
{
    (void)state;
    struct toy_answer answers[] = {{"POST /v1/chat/completions ", 200, ""}, {0}};
    static const struct {
        int status;
        const char *body, *message;
    } cases[] = {
        {200, "data: {\"choices\":[{\"delta\":{\"content\":\"par\"}}]}\n\n", "broke off before its end"},
        {200, "data: {\"error\":{\"message\":\"the model died\",\"hint\":\"look\"}}\n\n",
         "the model died\n  hint: look"},
        {200, "data: {nonsense\n\n", "is not valid JSON"},
        {200, "data: {\"choices\":[{\"delta\":{}}]}\n\ndata: [DONE]\n\n", NULL},
        {404, "{\"error\":{\"message\":\"no model x\"}}", "arriero: no model x"},
        {503, "{\"error\":{\"message\":\"full\",\"code\":\"busy\"}}", "arriero: full"},
    };
    struct run r;
    char url[64];
    start(&r, answers);
    snprintf(url, sizeof url, "127.0.0.1:%u", r.d.port);
    for (size_t i = 0; i < TABLE_COUNT(cases); i++) {
        answers[0].status = cases[i].status;
        answers[0].body = cases[i].body;
        int status = TOY_RUN(&r.out, &r.err, "ask", "-u", url, "-m", "x", "hi");
        assert_int_equal(status, cases[i].message ? 1 : 0);
        if (cases[i].message)
            ASSERT_HAS(&r.err, cases[i].message);
    }
    stop(&r);
}

static void *interrupt(void *arg)
{
    struct toy_daemon *d = arg;
    struct pollfd p = {.fd = d->hang_fd, .events = POLLIN};
    poll(&p, 1, -1);
    kill(getpid(), SIGINT);
    return NULL;
}

static void test_ask_interrupted(void **state)
{
    (void)state;
    static const struct toy_answer answers[] = {{"POST /v1/chat/completions ", 200, "@HANG"}, {0}};
    struct run r;
    char url[64];
    pthread_t thread;
    sigset_t set, old;
    /* only the thread that reads the answer may get the signal */
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, &old);
    start(&r, answers);
    snprintf(url, sizeof url, "127.0.0.1:%u", r.d.port);
    assert_int_equal(pthread_create(&thread, NULL, interrupt, &r.d), 0);
    assert_int_equal(TOY_RUN(&r.out, &r.err, "ask", "-u", url, "-m", "x", "hi"), 130);
    assert_string_equal(r.err.data, ""); /* who interrupts knows why it ended */
    pthread_join(thread, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    toy_daemon_stop(&r.d);
    ASSERT_HAS(&r.d.requests, "GONE\n"); /* the connection was closed, so a daemon stops the generation */
    buf_release(&r.d.requests);
    buf_release(&r.out);
    buf_release(&r.err);
}

static void test_completion_of_models(void **state)
{
    (void)state;
    static const struct toy_answer answers[] = {
        {"GET " API "/models ", 200, "{\"models\":[{\"id\":\"a\"},{\"id\":\"b\\u001bc\"},{}]}"},
        {0},
    };
    struct run r;
    start(&r, answers);
    assert_int_equal(TOY_RUN(&r.out, &r.err, "completion", "models", "--socket", r.d.path), 0);
    assert_string_equal(r.out.data, "a\nb c\n");
    stop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ps),
        cmocka_unit_test(test_ps_of_nothing),
        cmocka_unit_test(test_ps_of_upstreams),
        cmocka_unit_test(test_status),
        cmocka_unit_test(test_load_unload_pin),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_errors_of_the_daemon),
        cmocka_unit_test(test_why),
        cmocka_unit_test(test_logs),
        cmocka_unit_test(test_logs_are_followed),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_ask),
        cmocka_unit_test(test_ask_finds_the_door),
        cmocka_unit_test(test_ask_errors),
        cmocka_unit_test(test_ask_interrupted),
        cmocka_unit_test(test_completion_of_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
