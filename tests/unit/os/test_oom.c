/* The kernel's counters of kills: v1, v2, a namespace, none; hostile files; the words of its log. */
#include "base/mem.h"
#include "os/file.h"
#include "os/oom.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static char root[64];

static void put(const char *path, const char *text)
{
    struct err err;
    auto_free char *full = mem_printf("%s/%s", root, path), *dir = mem_strdup(full);
    *strrchr(dir, '/') = '\0';
    assert_int_equal(file_mkdirs(dir, 0700, &err), RC_OK);
    assert_int_equal(file_write_atomic(full, str_from(text), 0600, &err), RC_OK);
}

static struct oom_count read_root(void)
{
    struct oom_paths paths;
    struct oom_count c;
    auto_free char *proc = mem_printf("%s/proc", root), *sys = mem_printf("%s/sys", root);
    oom_find(proc, sys, &paths);
    oom_read(&paths, &c);
    return c;
}

static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/arr-oom-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    auto_free char *command = mem_printf("rm -r %s", root);
    return system(command);
}

static void test_nothing_there(void **state)
{
    (void)state;
    struct oom_count c = read_root();
    assert_false(c.machine_known || c.group_known);
    assert_int_equal(oom_judge(&c, &c, false), OOM_UNKNOWN);
    assert_int_equal(oom_judge(&c, &c, true), OOM_UNKNOWN); /* a number of long ago */
}

static void test_v2(void **state)
{
    (void)state;
    put("proc/vmstat", "nr_free_pages 12\noom_kill 5\nfoo 1\n");
    put("proc/self/cgroup", "0::/user.slice/a b.service\n");
    put("sys/fs/cgroup/user.slice/a b.service/memory.events", "low 0\noom 1\noom_kill 2\noom_group_kill 9\n");
    struct oom_count a = read_root();
    assert_true(a.machine_known && a.machine == 5 && a.group_known && a.group == 2);
    struct oom_count b = a;
    assert_int_equal(oom_judge(&a, &b, true), OOM_NONE);
    b.machine = 6;
    assert_int_equal(oom_judge(&a, &b, false), OOM_SOMEONE);
    b.group = 3;
    assert_int_equal(oom_judge(&a, &b, false), OOM_GROUP);
    assert_int_equal(oom_judge(&a, &b, true), OOM_NAMED);
    put("proc/self/cgroup", "0::/../elsewhere\n"); /* seen from a namespace: its root is the mount */
    put("sys/fs/cgroup/memory.events", "oom_kill 7\n");
    a = read_root();
    assert_true(a.group_known && a.group == 7);
}

static void test_v1(void **state)
{
    (void)state;
    put("proc/vmstat", "oom_killer 5\noom_kill x\n");
    put("proc/self/cgroup", "9:cpu:/\n4:memory:/q\n0::/\n");
    put("sys/fs/cgroup/memory/q/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n");
    struct oom_count c = read_root();
    assert_true(!c.machine_known && c.group_known && c.group == 3);
}

static void test_log(void **state)
{
    (void)state;
    const struct str log =
        STR("<3>[1.0] Memory cgroup out of memory: Killed process 1234 (llama-server) total-vm:1kB\n"
            "<3>[2.0] Out of memory: Killed process 99 (x)\n");
    assert_true(oom_log_names(log, 1234) && oom_log_names(log, 99));
    assert_false(oom_log_names(log, 123) || oom_log_names(log, 9) || oom_log_names(log, 0));
    assert_false(oom_log_names(STR(""), 1));
    (void)oom_is_named(1); /* whatever this machine lets us read: no crash */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_v2, setup, teardown),
        cmocka_unit_test_setup_teardown(test_v1, setup, teardown),
        cmocka_unit_test(test_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
