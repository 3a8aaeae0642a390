/* Memory pressure and the largest processes, from files of a made-up machine and of this one. */
#include "base/mem.h"
#include "os/file.h"
#include "os/pressure.h"
#include "os/procs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static void put(const char *root, const char *name, const char *text)
{
    char path[600];
    struct err err;
    snprintf(path, sizeof path, "%s/%s", root, name);
    *strrchr(path, '/') = '\0';
    assert_int_equal(file_mkdirs(path, 0700, &err), RC_OK);
    snprintf(path, sizeof path, "%s/%s", root, name);
    assert_int_equal(file_write_atomic(path, str_from(text), 0600, &err), RC_OK);
}

static int setup(void **state)
{
    char *root = mem_strdup("/tmp/arriero-pressure-XXXXXX");
    *state = mkdtemp(root);
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    auto_free char *command = mem_printf("rm -r '%s'", (char *)*state);
    int r = system(command); /* NOLINT(cert-env33-c): a path of our own */
    free(*state);
    return r;
}

static void test_stalls(void **state)
{
    (void)state;
    struct pressure_stall s;
    assert_true(pressure_parse(STR("some avg10=12.50 avg60=1.00 avg300=0.10 total=1914447\n"
                                   "full avg10=0.07 avg60=0.00 avg300=0.00 total=933681\n"),
                               &s));
    assert_true(s.some_pct > 12.49 && s.some_pct < 12.51 && s.full_pct > 0.069 && s.full_pct < 0.071);
    assert_int_equal(s.some_us, 1914447);
    assert_int_equal(s.full_us, 933681);
    assert_true(pressure_parse(STR("some avg10=100.00 avg60=0.00 avg300=0.00 total=0"), &s));
    assert_true(s.some_pct > 99.9 && s.full_pct < 0.1);
    static const char *const bad[] = {
        "",
        "\n",
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=0",
        "some",
        "some ",
        "some avg10= total=0",
        "some avg10=1.5.5 total=0",
        "some avg10=-1.00 total=0",
        "some avg10=999.00 total=0",
        "some avg10=1.234 total=0",
        "some avg10=nan total=0",
        "some avg10=1.00",
        "some avg10=1.00 total=99999999999999999999999",
        "some avg10=1.00 total=1\nfull avg10=x total=1",
        "so\0me",
    };
    struct pressure_stall kept = s;
    for (size_t i = 0; i < TABLE_COUNT(bad); i++)
        assert_false(pressure_parse(str_from(bad[i]), &s));
    assert_memory_equal(&kept, &s, sizeof s); /* untouched */
}

static void test_events(void **state)
{
    (void)state;
    struct pressure_events e;
    assert_true(
        pressure_events_parse(STR("low 0\nhigh 3\nmax 17\noom 1\noom_kill 2\noom_group_kill 0\n"), &e));
    assert_true(e.high == 3 && e.max == 17 && e.oom == 1 && e.oom_kill == 2);
    assert_true(pressure_events_parse(STR("max 5\n"), &e));
    assert_true(e.high == 0 && e.max == 5);
    assert_false(pressure_events_parse(STR(""), &e));
    assert_false(pressure_events_parse(STR("max\nhigh x\noom -1\n"), &e));
    assert_int_equal(e.max, 5);
}

static void test_places(void **state)
{
    const char *root = *state;
    char path[600], sys[600], proc[600];
    snprintf(proc, sizeof proc, "%s/proc", root);
    snprintf(sys, sizeof sys, "%s/sys", root);
    for (int place = 0; place < PRESSURE_PLACES; place++)
        assert_false(pressure_find(proc, sys, (enum pressure_place)place, path, sizeof path));
    put(root, "proc/pressure/memory", "some\n");
    assert_true(pressure_find(proc, sys, PRESSURE_MACHINE, path, sizeof path));
    assert_false(pressure_find(proc, sys, PRESSURE_MACHINE, path, 8)); /* too short for it */
    put(root, "proc/self/cgroup", "4:memory:/x\n0::/\n");
    put(root, "sys/fs/cgroup/memory.pressure", "some\n"); /* of the root: the machine's */
    assert_false(pressure_find(proc, sys, PRESSURE_GROUP, path, sizeof path));
    put(root, "proc/self/cgroup", "4:memory:/x\n0::/a.slice/b.service\n");
    assert_false(pressure_find(proc, sys, PRESSURE_GROUP, path, sizeof path));
    put(root, "sys/fs/cgroup/unified/a.slice/b.service/memory.pressure", "some\n");
    assert_true(pressure_find(proc, sys, PRESSURE_GROUP, path, sizeof path));
    put(root, "sys/fs/cgroup/a.slice/b.service/memory.events", "max 0\n");
    assert_true(pressure_find(proc, sys, PRESSURE_EVENTS, path, sizeof path));
    assert_non_null(strstr(path, "/cgroup/a.slice/b.service/memory.events"));
    put(root, "proc/self/cgroup", "0::/../../etc\n"); /* outside of the namespace */
    assert_false(pressure_find(proc, sys, PRESSURE_EVENTS, path, sizeof path));
}

static void test_a_trigger(void **state)
{
    (void)state;
    assert_int_equal(pressure_arm("/nowhere/memory", false, 200, 2000), -1);
    assert_int_equal(pressure_arm("/proc/version", false, 200, 2000), -1); /* cannot be written */
    char path[100];
    if (!pressure_find("/proc", "/sys", PRESSURE_MACHINE, path, sizeof path))
        return;                                                  /* a kernel without */
    assert_int_equal(pressure_arm(path, false, 5000, 2000), -1); /* longer than its window */
    int fd = pressure_arm(path, true, 2000, 2000);
    if (fd >= 0)
        close(fd);
}

/* ---- processes ---- */

static void put_process(const char *root, int pid, const char *name, const char *statm)
{
    char path[64];
    snprintf(path, sizeof path, "proc/%d/comm", pid);
    put(root, path, name);
    snprintf(path, sizeof path, "proc/%d/statm", pid);
    put(root, path, statm);
}

static void test_largest(void **state)
{
    const char *root = *state;
    char proc[600], name[32];
    struct proc_use u[3];
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    const pid_t skip[] = {7, 11};
    snprintf(proc, sizeof proc, "%s/proc", root);
    assert_int_equal(procs_largest(proc, skip, 2, u, 3), 0);
    put_process(root, 5, "small\n", "900 10 5 1 0 0 0\n");
    put_process(root, 6, "python\n", "900 500 100 1 0 0 0\n");
    put_process(root, 7, "ours\n", "900 800 100 1 0 0 0\n");
    put_process(root, 8, "a\tb c\n", "900 300 100 1 0 0 0\n");
    put_process(root, 9, "mapped\n", "900 800 800 1 0 0 0\n");
    put_process(root, 10, "odd\n", "900 5 900 1 0 0 0\n");
    put_process(root, 11, "", "");
    put_process(root, 12, "broken\n", "900 x\n");
    put_process(root, 13, "mid\n", "900 200 100 1 0 0 0\n");
    put_process(root, 99999, "huge\n", "1 99999999999999999999 0\n");
    put(root, "proc/self", "no process\n");
    put(root, "proc/meminfo", "no process\n");
    assert_int_equal(procs_largest(proc, skip, 2, u, 3), 3);
    assert_string_equal(u[0].name, "python");
    assert_int_equal(u[0].pid, 6);
    assert_int_equal(u[0].bytes, 400 * page);
    assert_string_equal(u[1].name, "a?b c");
    assert_string_equal(u[2].name, "mid");
    assert_int_equal(procs_largest(proc, skip, 2, u, 0), 0);
    assert_int_equal(procs_largest(proc, NULL, 0, u, 1), 1);
    assert_int_equal(u[0].pid, 7);
    assert_true(procs_name(proc, 13, name));
    assert_string_equal(name, "mid");
    assert_false(procs_name(proc, 4, name));
}

/* One of this machine that takes 64 MiB is seen with them, once it has said that it has them. */
static void test_a_real_one(void **state)
{
    (void)state;
    int ready[2], end[2];
    char byte = 0;
    assert_int_equal(pipe(ready) | pipe(end), 0);
    pid_t child = fork();
    if (child == 0) {
        size_t n = 64 * MIB;
        char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        close(end[1]);
        memset(p, 1, n);
        _exit(write(ready[1], &byte, 1) != 1 || read(end[0], &byte, 1) != 0);
    }
    assert_true(child > 0);
    close(end[0]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    static struct proc_use u[4096];
    size_t n = procs_largest("/proc", NULL, 0, u, TABLE_COUNT(u)), at = 0;
    while (at < n && u[at].pid != child)
        at++;
    assert_true(at < n);
    assert_true(u[at].bytes >= 64 * MIB);
    for (size_t i = 1; i < n; i++)
        assert_true(u[i - 1].bytes >= u[i].bytes);
    close(end[1]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(ready[0]);
    close(ready[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stalls),
        cmocka_unit_test(test_events),
        cmocka_unit_test_setup_teardown(test_places, setup, teardown),
        cmocka_unit_test(test_a_trigger),
        cmocka_unit_test_setup_teardown(test_largest, setup, teardown),
        cmocka_unit_test(test_a_real_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
