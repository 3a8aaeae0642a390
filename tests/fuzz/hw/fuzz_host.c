/* Fuzz target of the kernel's texts about the host: files under /proc and /sys of a tree of its own, filled
 * with the parts of the input between zero bytes, in the order below. */
#include "base/mem.h"
#include "hw/hw_priv.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const dirs[] = {"",
                                   "/self",
                                   "/devices",
                                   "/devices/system",
                                   "/devices/system/cpu",
                                   "/devices/system/cpu/cpu0",
                                   "/devices/system/cpu/cpu0/topology",
                                   "/devices/system/node",
                                   "/devices/system/node/node0",
                                   "/fs",
                                   "/fs/cgroup",
                                   "/fs/cgroup/a"};
static const char *const files[] = {"/meminfo",
                                    "/cpuinfo",
                                    "/self/status",
                                    "/self/cgroup",
                                    "/devices/system/cpu/online",
                                    "/devices/system/cpu/cpu0/topology/thread_siblings_list",
                                    "/devices/system/node/online",
                                    "/devices/system/node/node0/cpulist",
                                    "/fs/cgroup/cgroup.controllers",
                                    "/fs/cgroup/a/memory.max",
                                    "/fs/cgroup/a/memory.current",
                                    "/fs/cgroup/a/memory.stat",
                                    "/fs/cgroup/a/cpu.max"};

static char root[64]; /* /proc and /sys in one: their paths do not meet */

static void path_of(const char *name, char out[256])
{
    (void)snprintf(out, 256, "%s%s", root, name);
}

static void remove_tree(void)
{
    char path[256];
    for (size_t i = 0; i < TABLE_COUNT(files); i++) {
        path_of(files[i], path);
        (void)unlink(path);
    }
    for (size_t i = TABLE_COUNT(dirs); i-- > 0;) {
        path_of(dirs[i], path);
        (void)rmdir(path);
    }
}

static void make_tree(void)
{
    char path[256];
    (void)snprintf(root, sizeof root, "/tmp/arriero-fuzz-XXXXXX");
    if (!mkdtemp(root) || atexit(remove_tree) != 0)
        abort();
    for (size_t i = 1; i < TABLE_COUNT(dirs); i++) {
        path_of(dirs[i], path);
        if (mkdir(path, 0700) != 0)
            abort();
    }
}

static void fill(struct str text)
{
    char path[256];
    for (size_t i = 0; i < TABLE_COUNT(files); i++) {
        struct str part = str_cut(&text, '\0');
        path_of(files[i], path);
        FILE *f = fopen(path, "we");
        if (!f || (part.n && fwrite(part.p, 1, part.n, f) != part.n) || fclose(f) != 0)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hw_cpu *cpu = NULL;
    struct hw_host host = {0};
    struct err err = {0};
    if (size > 65536)
        return 0;
    if (!root[0])
        make_tree();
    fill((struct str){(const char *)data, size});
    const struct hw_roots roots = {.proc = root, .sys = root};
    if (hw_cpu_open(&roots, &cpu, &err) != RC_OK) {
        if (!err.message[0])
            abort();
        return 0;
    }
    if (hw_cpu_sample(cpu, &host, &err) != RC_OK) {
        if (!err.message[0])
            abort();
    } else if (host.usable_free_bytes > host.usable_total_bytes ||
               !memchr(host.model, '\0', sizeof host.model)) {
        abort();
    }
    hw_cpu_close(cpu);
    return 0;
}
