/* The host from trees that stand for machines: topology, quotas, memory, control groups. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "hw/hw_priv.h"
#include "tree.h"

#define GIB (1024 * MIB)

static int setup(void **state)
{
    struct tree *t = mem_new(struct tree);
    tree_make(t);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    tree_remove(*state);
    free(*state);
    return 0;
}

/* cores of two threads: CPU i and i + cores, as Intel numbers them. */
static void put_smt(const struct tree *t, unsigned cores)
{
    char path[128];
    tree_put(t, "sys/devices/system/cpu/online", "0-%u\n", 2 * cores - 1);
    for (unsigned i = 0; i < 2 * cores; i++) {
        (void)snprintf(path, sizeof(path), "sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", i);
        tree_put(t, path, "%u,%u\n", i % cores, i % cores + cores);
    }
}

static struct hw_host sample(const struct tree *t)
{
    static struct hw_inventory inv;
    struct hw *hw = tree_open(t, "/nonexistent/libnvidia-ml.so", &inv);
    hw_close(hw);
    return inv.host;
}

static void plain_machine(void **state)
{
    struct tree *t = *state;
    tree_put(t, "proc/meminfo",
             "MemTotal:       65536000 kB\nMemFree:         100 kB\nMemAvailable:   32768000 kB\n"
             "SwapTotal:       8388608 kB\nSwapFree:        8000000 kB\n");
    tree_put(t, "proc/cpuinfo",
             "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD Ryzen 9 7950X\n");
    put_smt(t, 16);
    tree_put(t, "sys/devices/system/node/online", "0-1\n");
    tree_put(t, "sys/devices/system/node/node0/cpulist", "0-31\n");
    tree_put(t, "sys/devices/system/node/node1/cpulist", "\n"); /* memory only */
    struct hw_host h = sample(t);
    assert_string_equal(h.model, "AMD Ryzen 9 7950X");
    assert_int_equal(h.logical_cpus, 32);
    assert_int_equal(h.physical_cores, 16);
    assert_int_equal(h.numa_nodes, 1);
    assert_int_equal(h.ram_total_bytes, 65536000ull * 1024);
    assert_int_equal(h.ram_available_bytes, 32768000ull * 1024);
    assert_int_equal(h.swap_total_bytes, 8388608ull * 1024);
    assert_int_equal(h.swap_free_bytes, 8000000ull * 1024);
    assert_true(h.cgroup_limit_bytes == UINT64_MAX);
    assert_int_equal(h.usable_total_bytes, h.ram_total_bytes);
    assert_int_equal(h.usable_free_bytes, h.ram_available_bytes);
}

static void affinity(void **state)
{
    struct tree *t = *state;
    tree_put_host(t, 1000, 500);
    put_smt(t, 8);
    tree_put(t, "proc/self/status",
             "Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t0-1,8\nMems_allowed:\t1\n");
    tree_put(t, "sys/devices/system/node/online", "0-1\n");
    tree_put(t, "sys/devices/system/node/node0/cpulist", "0-3,8-11\n");
    tree_put(t, "sys/devices/system/node/node1/cpulist", "4-7,12-15\n");
    struct hw_host h = sample(t);
    assert_int_equal(h.logical_cpus, 3);
    assert_int_equal(h.physical_cores, 2); /* 0 and 8 share one */
    assert_int_equal(h.numa_nodes, 1);
}

static void hybrid_intel(void **state)
{
    struct tree *t = *state;
    char path[128];
    tree_put_host(t, 1000, 500);
    tree_put(t, "sys/devices/system/cpu/online", "0-15\n"); /* 4 fast with 2 threads, 8 slow */
    for (unsigned i = 0; i < 16; i++) {
        (void)snprintf(path, sizeof(path), "sys/devices/system/cpu/cpu%u/topology/core_cpus_list", i);
        if (i < 8)
            tree_put(t, path, "%u-%u\n", i / 2 * 2, i / 2 * 2 + 1);
        else
            tree_put(t, path, "%u\n", i);
    }
    tree_put(t, "sys/devices/cpu_core/cpus", "0-7\n");
    tree_put(t, "sys/devices/cpu_atom/cpus", "8-15\n");
    struct hw_host h = sample(t);
    assert_int_equal(h.logical_cpus, 16);
    assert_int_equal(h.physical_cores, 4);
    tree_put(t, "proc/self/status", "Name:\tx\nCpus_allowed_list:\t8-15\n"); /* only slow ones allowed */
    h = sample(t);
    assert_int_equal(h.physical_cores, 8);
}

static void hybrid_arm(void **state)
{
    struct tree *t = *state;
    char path[128];
    tree_put_host(t, 1000, 500);
    tree_put(t, "proc/cpuinfo", "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd85\n");
    tree_put(t, "sys/devices/system/cpu/online", "0-19\n");
    for (unsigned i = 0; i < 20; i++) {
        (void)snprintf(path, sizeof(path), "sys/devices/system/cpu/cpu%u/topology/core_cpus_list", i);
        tree_put(t, path, "%u\n", i);
        (void)snprintf(path, sizeof(path), "sys/devices/system/cpu/cpu%u/cpu_capacity", i);
        tree_put(t, path, "%u\n", i % 10 < 5 ? 718 : i < 10 ? 997 : 1024);
    }
    struct hw_host h = sample(t);
    assert_string_equal(h.model, "Cortex-X925");
    assert_int_equal(h.logical_cpus, 20);
    assert_int_equal(h.physical_cores, 10);
}

static void cpuinfo_only(void **state)
{
    struct tree *t = *state;
    tree_put_host(t, 1000, 500);
    tree_put(
        t, "proc/cpuinfo",
        "processor\t: 0\nmodel name\t: A\nphysical id\t: 0\ncore id\t: 0\n\n"
        "processor\t: 1\nmodel name\t: B\nphysical id\t: 0\ncore id\t: 0\n\n"
        "processor\t: 2\nphysical id\t: 1\ncore id\t: 0\n\nprocessor\t: 3\nphysical id\t: 1\ncore id\t: 0\n");
    struct hw_host h = sample(t);
    assert_string_equal(h.model, "A");
    assert_int_equal(h.logical_cpus, 4);
    assert_int_equal(h.physical_cores, 2);
    assert_int_equal(h.numa_nodes, 1);
}

static void cgroup_v2(void **state)
{
    struct tree *t = *state;
    tree_put_host(t, 64 * 1024, 60 * 1024);
    put_smt(t, 8);
    tree_put(t, "proc/self/cgroup", "0::/user.slice/app.slice/x.service\n");
    tree_put(t, "sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    tree_put(t, "sys/fs/cgroup/user.slice/memory.max", "max\n");
    tree_put(t, "sys/fs/cgroup/user.slice/cpu.max", "max 100000\n");
    /* The middle group is larger but fuller: it decides what is free, the leaf what can be had at most. */
    tree_put(t, "sys/fs/cgroup/user.slice/app.slice/memory.max", "%llu\n", 16 * GIB);
    tree_put(t, "sys/fs/cgroup/user.slice/app.slice/memory.current", "%llu\n", 15 * GIB);
    tree_put(t, "sys/fs/cgroup/user.slice/app.slice/memory.stat",
             "anon 1\ninactive_file %llu\nactive_file 7\n", GIB);
    tree_put(t, "sys/fs/cgroup/user.slice/app.slice/cpu.max", "350000 100000\n");
    tree_put(t, "sys/fs/cgroup/user.slice/app.slice/x.service/memory.max", "%llu\n", 8 * GIB);
    tree_put(t, "sys/fs/cgroup/user.slice/app.slice/x.service/memory.current", "%llu\n", GIB);
    tree_put(t, "sys/fs/cgroup/user.slice/app.slice/x.service/memory.stat", "inactive_file 0\n");
    struct hw_host h = sample(t);
    assert_int_equal(h.cgroup_limit_bytes, 16 * GIB);
    assert_int_equal(h.cgroup_used_bytes, 14 * GIB);
    assert_int_equal(h.usable_total_bytes, 8 * GIB);
    assert_int_equal(h.usable_free_bytes, 2 * GIB);
    assert_int_equal(h.logical_cpus, 4); /* 3.5 rounded up */
    assert_int_equal(h.physical_cores, 4);
    /* memory.high throttles before memory.max kills. */
    tree_put(t, "sys/fs/cgroup/user.slice/app.slice/x.service/memory.high", "%llu\n", 2 * GIB);
    h = sample(t);
    assert_int_equal(h.usable_total_bytes, 2 * GIB);
    assert_int_equal(h.usable_free_bytes, GIB);
}

static void cgroup_v1(void **state)
{
    struct tree *t = *state;
    tree_put_host(t, 64 * 1024, 60 * 1024);
    put_smt(t, 8);
    tree_put(t, "proc/self/cgroup", "9:name=systemd:/\n4:cpu,cpuacct:/a\n3:memory:/a/b\n0::/\n");
    tree_put(t, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    tree_put(t, "sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
    tree_put(t, "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "%llu\n", 4 * GIB);
    tree_put(t, "sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", "%llu\n", 3 * GIB);
    tree_put(t, "sys/fs/cgroup/memory/a/b/memory.stat", "inactive_file 1\ntotal_inactive_file %llu\n",
             2 * GIB);
    tree_put(t, "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "200000\n");
    tree_put(t, "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
    tree_put(t, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    tree_put(t, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    struct hw_host h = sample(t);
    assert_int_equal(h.cgroup_limit_bytes, 4 * GIB);
    assert_int_equal(h.cgroup_used_bytes, GIB);
    assert_int_equal(h.usable_free_bytes, 3 * GIB);
    assert_int_equal(h.logical_cpus, 2);
}

/* Without a cgroup namespace a container sees its host's path, but its own group is what is mounted. */
static void cgroup_in_container(void **state)
{
    struct tree *t = *state;
    tree_put_host(t, 64 * 1024, 60 * 1024);
    tree_put(t, "proc/self/cgroup", "3:memory:/docker/0123abc\n");
    tree_put(t, "sys/fs/cgroup/memory/memory.limit_in_bytes", "%llu\n", GIB);
    tree_put(t, "sys/fs/cgroup/memory/memory.usage_in_bytes", "%llu\n", GIB + 5); /* over it: shrinking */
    struct hw_host h = sample(t);
    assert_int_equal(h.usable_total_bytes, GIB);
    assert_int_equal(h.usable_free_bytes, 0);
    tree_put(t, "proc/self/cgroup", "3:memory:/../../other\n"); /* outside the namespace's root */
    h = sample(t);
    assert_int_equal(h.usable_total_bytes, GIB);
}

static void limits_are_live(void **state)
{
    struct tree *t = *state;
    struct hw_inventory *inv = mem_new(struct hw_inventory);
    struct err err;
    tree_put_host(t, 64 * 1024, 60 * 1024);
    tree_put(t, "proc/self/cgroup", "0::/x\n");
    tree_put(t, "sys/fs/cgroup/cgroup.controllers", "memory\n");
    tree_put(t, "sys/fs/cgroup/x/memory.max", "max\n");
    tree_put(t, "sys/fs/cgroup/x/memory.current", "4096\n");
    struct hw *hw = tree_open(t, "/nonexistent/libnvidia-ml.so", inv);
    assert_int_equal(inv->host.usable_free_bytes, 60 * GIB);
    tree_put(t, "sys/fs/cgroup/x/memory.max", "%llu\n", GIB);
    tree_put_host(t, 64 * 1024, 30 * 1024);
    assert_int_equal(hw_sample(hw, inv, &err), RC_OK);
    assert_int_equal(inv->host.usable_free_bytes, GIB - 4096);
    assert_int_equal(inv->host.ram_available_bytes, 30 * GIB);
    tree_put(t, "proc/meminfo", "nothing\n"); /* an error leaves the last inventory as it was */
    assert_int_equal(hw_sample(hw, inv, &err), RC_IO);
    assert_non_null(strstr(err.message, "MemTotal"));
    assert_int_equal(inv->host.usable_free_bytes, GIB - 4096);
    hw_close(hw);
    free(inv);
}

static void hostile_files(void **state)
{
    struct tree *t = *state;
    char big[5000];
    memset(big, 'A', sizeof(big));
    big[sizeof(big) - 1] = '\0';
    tree_put(
        t, "proc/meminfo",
        "MemTotal: 1000 kB\nMemAvailable: 99999999999999999999 kB\nSwapTotal: 18446744073709551615 kB\n");
    tree_put(t, "proc/cpuinfo", "processor : 99999999999\nmodel name : %s\nprocessor : -1\ncore id : 70000\n",
             big);
    tree_put(t, "proc/self/status", "Name:\tx\nCpus_allowed_list:\t%s\n", big);
    tree_put(t, "proc/self/cgroup", "0:::::\n::::\n\n4:memory\n3:memory:%s\n0::/a", big);
    tree_put(t, "sys/fs/cgroup/cgroup.controllers", "memory\n");
    tree_put(t, "sys/fs/cgroup/a/memory.max", "12junk\n");
    tree_put(t, "sys/fs/cgroup/a/cpu.max", "0 0\n");
    tree_put(t, "sys/devices/system/cpu/online", "%s\n", big);
    tree_put(t, "sys/devices/system/node/online", "0-4294967295\n");
    struct hw_host h = sample(t);
    assert_int_equal(strlen(h.model), sizeof(h.model) - 1);
    assert_int_equal(h.logical_cpus, 1);
    assert_int_equal(h.physical_cores, 1);
    assert_int_equal(h.ram_total_bytes, 1000 * 1024);
    assert_true(h.ram_available_bytes <= h.ram_total_bytes);
    assert_int_equal(h.swap_total_bytes, 0);
    assert_true(h.cgroup_limit_bytes == UINT64_MAX);
}

static void many_levels(void **state)
{
    struct tree *t = *state;
    char path[400] = "", file[512];
    tree_put_host(t, 64 * 1024, 60 * 1024);
    tree_put(t, "sys/fs/cgroup/cgroup.controllers", "memory\n");
    for (int i = 0; i < 40; i++) {
        strcat(path, "/d");
        (void)snprintf(file, sizeof(file), "sys/fs/cgroup%s/memory.max", path);
        tree_put(t, file, "%llu\n", (unsigned long long)(100 - i) * MIB);
    }
    tree_put(t, "proc/self/cgroup", "0::%s\n", path);
    struct hw_host h = sample(t);
    assert_int_equal(h.usable_total_bytes, 61 * MIB); /* the nearest groups are the ones kept */
}

static void errors(void **state)
{
    struct tree *t = *state;
    struct hw *hw = NULL;
    struct err err = {0};
    struct hw_options opt = {.proc_root = t->proc, .sys_root = t->sys};
    assert_int_equal(hw_open(&opt, &hw, &err), RC_IO);
    assert_null(hw);
    assert_non_null(strstr(err.message, "/proc/meminfo"));
    assert_true(err.hint[0]);
    char deep[600];
    memset(deep, '/', sizeof(deep));
    memset(deep + 1, 'x', sizeof(deep) - 2);
    deep[sizeof(deep) - 1] = '\0';
    opt.proc_root = deep;
    assert_int_equal(hw_open(&opt, &hw, &err), RC_LIMIT);
    hw_close(NULL);
    hw_cpu_close(NULL);
    hw_cgroup_close(NULL);
}

/* The machine that runs the test, by a second way of asking it. */
static void this_machine(void **state)
{
    (void)state;
    struct hw *hw;
    struct err err;
    struct hw_inventory *inv = mem_new(struct hw_inventory);
    const struct hw_options opt = {.nvml_path = "/nonexistent/libnvidia-ml.so"};
    assert_int_equal(hw_open(&opt, &hw, &err), RC_OK);
    assert_int_equal(hw_sample(hw, inv, &err), RC_OK);
    assert_int_equal(inv->host.ram_total_bytes / MIB,
                     (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / MIB);
    assert_in_range(inv->host.logical_cpus, 1, (uintmax_t)sysconf(_SC_NPROCESSORS_ONLN));
    assert_in_range(inv->host.physical_cores, 1, inv->host.logical_cpus);
    assert_true(inv->host.usable_free_bytes <= inv->host.usable_total_bytes);
    hw_close(hw);
    free(inv);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(plain_machine), T(affinity),  T(hybrid_intel),        T(hybrid_arm),      T(cpuinfo_only),
        T(cgroup_v2),     T(cgroup_v1), T(cgroup_in_container), T(limits_are_live), T(hostile_files),
        T(many_levels),   T(errors),    T(this_machine),
    };
    return cmocka_run_group_tests_name("hw_cpu", tests, NULL, NULL);
}
