/* Pressure on the loop: what is read where there are no triggers, and that everything is closed again. */
#include "daemon/pressure.h"

#include "base/mem.h"
#include "os/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct world {
    uv_loop_t loop;
    char root[64], proc[80], sys[80];
    struct pressure *pressure;
    enum yield_level level;
    unsigned told;
};

static void put(const struct world *w, const char *name, const char *text)
{
    char path[400];
    struct err err;
    snprintf(path, sizeof path, "%s/%s", w->root, name);
    *strrchr(path, '/') = '\0';
    assert_int_equal(file_mkdirs(path, 0700, &err), RC_OK);
    snprintf(path, sizeof path, "%s/%s", w->root, name);
    assert_int_equal(file_write_atomic(path, str_from(text), 0600, &err), RC_OK);
}

static int setup(void **state)
{
    struct world *w = mem_new(struct world);
    strcpy(w->root, "/tmp/arriero-pressure-XXXXXX");
    if (!mkdtemp(w->root))
        return -1;
    snprintf(w->proc, sizeof w->proc, "%s/proc", w->root);
    snprintf(w->sys, sizeof w->sys, "%s/sys", w->root);
    uv_loop_init(&w->loop);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    pressure_stop(w->pressure);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    auto_free char *command = mem_printf("rm -r '%s'", w->root);
    int r = system(command); /* NOLINT(cert-env33-c): a path of our own */
    free(w);
    return r;
}

static void on_told(void *arg, enum yield_level level)
{
    struct world *w = arg;
    w->level = level;
    w->told++;
}

static void start(struct world *w, double some_pct, double full_pct)
{
    const struct pressure_options opt = {.loop = &w->loop,
                                         .proc_root = w->proc,
                                         .sys_root = w->sys,
                                         .some_pct = some_pct,
                                         .full_pct = full_pct,
                                         .told = on_told,
                                         .arg = w};
    w->pressure = pressure_start(&opt);
    uv_run(&w->loop, UV_RUN_NOWAIT);
    uv_run(&w->loop, UV_RUN_NOWAIT);
}

static void test_nothing_is_told(void **state)
{
    struct world *w = *state;
    put(w, "proc/version", "x");
    start(w, 10, 10);
    assert_string_equal(pressure_way(w->pressure), "none");
    assert_int_equal(pressure_level(w->pressure), YIELD_CALM);
    assert_int_equal(w->told, 0);
}

static void test_read_without_triggers(void **state)
{
    static const struct {
        const char *text;
        double some, full;
        enum yield_level level;
    } rows[] = {
        {"some avg10=9.99 total=1\nfull avg10=9.99 total=1\n", 10, 10, YIELD_CALM},
        {"some avg10=10.00 total=1\nfull avg10=9.99 total=1\n", 10, 10, YIELD_WARN},
        {"some avg10=50.00 total=1\nfull avg10=10.00 total=1\n", 10, 10, YIELD_CRITICAL},
        {"some avg10=50.00 total=1\nfull avg10=10.00 total=1\n", 10, 0, YIELD_WARN},
        {"some avg10=50.00 total=1\nfull avg10=10.00 total=1\n", 0, 0, YIELD_CALM},
        {"nonsense\n", 10, 10, YIELD_CALM},
    };
    struct world *w = *state;
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        w->level = YIELD_CALM;
        put(w, "proc/pressure/memory", rows[i].text); /* a file that cannot be polled */
        start(w, rows[i].some, rows[i].full);
        assert_string_equal(pressure_way(w->pressure), "polled");
        assert_int_equal(w->level, rows[i].level);
        assert_int_equal(pressure_level(w->pressure), rows[i].level);
        pressure_stop(take_ptr(w->pressure));
        uv_run(&w->loop, UV_RUN_DEFAULT);
    }
}

static void test_the_group_counts_too(void **state)
{
    struct world *w = *state;
    put(w, "proc/pressure/memory", "some avg10=0.00 total=1\nfull avg10=0.00 total=1\n");
    put(w, "proc/self/cgroup", "0::/a\n");
    put(w, "sys/fs/cgroup/a/memory.pressure", "some avg10=20.00 total=1\nfull avg10=20.00 total=1\n");
    put(w, "sys/fs/cgroup/a/memory.events", "low 0\nhigh 0\nmax 4\noom 0\noom_kill 0\n");
    start(w, 10, 10);
    assert_int_equal(w->level, YIELD_CRITICAL);
    assert_int_equal(w->told, 1);
}

static void test_this_machine(void **state)
{
    struct world *w = *state;
    put(w, "proc/version", "x");
    strcpy(w->proc, "/proc");
    strcpy(w->sys, "/sys");
    start(w, 99, 99);
    const char *way = pressure_way(w->pressure);
    assert_true(strcmp(way, "triggers") == 0 || strcmp(way, "polled") == 0 || strcmp(way, "none") == 0);
    pressure_stop(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_without_triggers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_group_counts_too, setup, teardown),
        cmocka_unit_test_setup_teardown(test_this_machine, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
