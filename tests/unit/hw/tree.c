/* See tree.h. */
#include "tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

void tree_make(struct tree *t)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(t->root, sizeof(t->root), "%s/hw-test-XXXXXX", tmp && strlen(tmp) < 90 ? tmp : "/tmp");
    assert_non_null(mkdtemp(t->root));
    (void)snprintf(t->proc, sizeof(t->proc), "%s/proc", t->root);
    (void)snprintf(t->sys, sizeof(t->sys), "%s/sys", t->root);
}

static void path_of(const struct tree *t, const char *path, char out[512])
{
    int n = snprintf(out, 512, "%s/%s", t->root, path);
    assert_true(n > 0 && n < 512);
    for (char *p = out + strlen(t->root) + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        (void)mkdir(out, 0700);
        *p = '/';
    }
}

void tree_put(const struct tree *t, const char *path, const char *fmt, ...)
{
    char full[512];
    va_list ap;
    path_of(t, path, full);
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    va_start(ap, fmt);
    assert_true(vfprintf(f, fmt, ap) >= 0);
    va_end(ap);
    assert_int_equal(fclose(f), 0);
}

void tree_link(const struct tree *t, const char *path, const char *target)
{
    char full[512];
    path_of(t, path, full);
    assert_int_equal(symlink(target, full), 0);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)type;
    (void)where;
    return remove(path);
}

void tree_drop(const struct tree *t, const char *path)
{
    char full[512];
    path_of(t, path, full);
    assert_int_equal(nftw(full, remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
}

void tree_remove(struct tree *t)
{
    assert_int_equal(nftw(t->root, remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
}

void tree_put_host(const struct tree *t, unsigned long total_mib, unsigned long available_mib)
{
    tree_put(t, "proc/meminfo", "MemTotal:       %lu kB\nMemFree:        1024 kB\nMemAvailable:   %lu kB\n",
             total_mib * 1024, available_mib * 1024);
    tree_put(t, "proc/cpuinfo", "processor\t: 0\nmodel name\t: Test CPU\n");
}

struct hw *tree_open(const struct tree *t, const char *nvml, struct hw_inventory *ret_inventory)
{
    const struct hw_options opt = {.proc_root = t->proc, .sys_root = t->sys, .nvml_path = nvml};
    struct hw *hw = NULL;
    struct err err = {0};
    if (hw_open(&opt, &hw, &err) != RC_OK)
        fail_msg("hw_open: %s", err.message);
    if (hw_sample(hw, ret_inventory, &err) != RC_OK)
        fail_msg("hw_sample: %s", err.message);
    return hw;
}
