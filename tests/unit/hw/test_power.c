/* Limits on the power of cards: set within the range, refused, noted, and set back at the closing. */
#include "tree.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define CARD                                                                                                 \
    "gpu\nname NVIDIA GeForce RTX 4090\nuuid GPU-aaaa\npci 0:1:0\nmemory 24000 0 100\npower 90000 450000 "   \
    "450000\n"

struct world {
    struct tree t;
    struct hw_inventory inv;
    char calls[200];
};

static int setup(void **state)
{
    static struct world w;
    char path[200];
    memset(&w, 0, sizeof w);
    tree_make(&w.t);
    tree_put_host(&w.t, 4096, 2048);
    (void)snprintf(path, sizeof path, "%s/scenario", w.t.root);
    (void)snprintf(w.calls, sizeof w.calls, "%s/calls", w.t.root);
    (void)setenv("ARRIERO_TOY_NVML", path, 1);
    (void)setenv("ARRIERO_TOY_NVML_CALLS", w.calls, 1);
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    (void)unsetenv("ARRIERO_TOY_NVML_CALLS");
    tree_remove(&w->t);
    return 0;
}

static const char *calls_of(const struct world *w)
{
    static char text[512];
    FILE *f = fopen(w->calls, "re");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    text[n] = '\0';
    if (f)
        (void)fclose(f);
    return text;
}

static struct hw *open_with(struct world *w, const struct hw_power_wish *wishes, size_t n)
{
    struct hw *hw;
    const struct hw_options o = {.proc_root = w->t.proc,
                                 .sys_root = w->t.sys,
                                 .nvml_path = getenv("TOY_NVML"),
                                 .power = wishes,
                                 .n_power = n};
    assert_int_equal(hw_open(&o, &hw, NULL), RC_OK);
    assert_int_equal(hw_sample(hw, &w->inv, NULL), RC_OK);
    return hw;
}

static void test_set_and_set_back(void **state)
{
    struct world *w = *state;
    const struct hw_power_wish wish = {"CUDA0", 250000, 0};
    tree_put(&w->t, "scenario", "%spower_range 100000 450000\n", CARD);
    struct hw *hw = open_with(w, &wish, 1);
    assert_int_equal(w->inv.devices[0].power_limit_mw, 250000);
    assert_int_equal(w->inv.devices[0].power_restore_mw, 450000);
    assert_string_equal(w->inv.devices[0].power_note, "");
    assert_string_equal(calls_of(w), "set 0 250000\n");
    hw_close(hw);
    assert_string_equal(calls_of(w), "set 0 250000\nset 0 450000\n");
}

static void test_nothing_without_a_wish(void **state)
{
    struct world *w = *state;
    const struct hw_power_wish other = {"CUDA1", 250000, 0};
    tree_put(&w->t, "scenario", "%spower_range 100000 450000\n", CARD);
    hw_close(open_with(w, NULL, 0));
    hw_close(open_with(w, &other, 1));
    assert_string_equal(calls_of(w), "");
    assert_string_equal(w->inv.devices[0].power_note, "");
}

/* A daemon that was killed left the card at 250 W: what it was before then is what comes back. */
static void test_what_a_killed_one_left(void **state)
{
    struct world *w = *state;
    const struct hw_power_wish wishes[] = {{"CUDA0", 200000, 0}, {"GPU-aaaa", 450000, 450000}};
    tree_put(&w->t, "scenario", "%spower 90000 250000 450000\npower_range 100000 450000\n", CARD);
    hw_close(open_with(w, wishes, 2));
    assert_string_equal(calls_of(w), "set 0 200000\nset 0 450000\n");
}

static void test_refusals_are_notes(void **state)
{
    static const struct {
        const char *more;
        unsigned mw;
        const char *part;
    } rows[] = {
        {"power_range 100000 450000\nfail nvmlDeviceSetPowerManagementLimit 4\n", 250000, "only root may"},
        {"power_range 100000 450000\nfail nvmlDeviceSetPowerManagementLimit 4\n", 250000, "nvidia-smi -pl"},
        {"power_range 100000 450000\n", 99000, "limits from 100 to 450 W, not 99: correct power.limit_w"},
        {"power_range 100000 450000\n", 451000, "limits from 100 to 450 W, not 451"},
        {"", 250000, "cannot be limited to 250 W: not supported"},
        {"power_range 100000 450000\nfail nvmlDeviceGetPowerManagementLimit 999\n", 250000, "error 999"},
        {"fail nvmlDeviceGetPowerManagementLimitConstraints 15\nfail nvmlDeviceGetPowerManagementLimit 15\n",
         250000, "fallen off the bus"},
    };
    struct world *w = *state;
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        const struct hw_power_wish wish = {"GPU-aaaa", rows[i].mw, 0};
        tree_put(&w->t, "scenario", "%s%s", CARD, rows[i].more);
        hw_close(open_with(w, &wish, 1));
        assert_non_null(strstr(w->inv.devices[0].power_note, rows[i].part));
        assert_int_equal(w->inv.devices[0].power_restore_mw, 0);
        assert_string_equal(calls_of(w), "");
    }
}

#define PCI(file) "sys/bus/pci/devices/0000:03:00.0/" file

static void test_amd(void **state)
{
    struct world *w = *state;
    char path[200], text[64];
    const struct hw_power_wish wish = {"ROCm0", 180000, 0};
    tree_put(&w->t, "scenario", "init 9\n");
    tree_put(&w->t, PCI("vendor"), "0x1002\n");
    tree_put(&w->t, PCI("class"), "0x030000\n");
    tree_put(&w->t, PCI("device"), "0x744c\n");
    tree_put(&w->t, PCI("mem_info_vram_total"), "25753026560\n");
    tree_put(&w->t, PCI("mem_info_vram_used"), "1000\n");
    tree_put(&w->t, PCI("hwmon/hwmon4/power1_cap"), "303000000\n");
    tree_put(&w->t, PCI("hwmon/hwmon4/power1_cap_min"), "100000000\n");
    tree_put(&w->t, PCI("hwmon/hwmon4/power1_cap_max"), "350000000\n");
    struct hw *hw = open_with(w, &wish, 1);
    assert_int_equal(w->inv.n_devices, 1);
    assert_int_equal(w->inv.devices[0].power_restore_mw, 303000);
    (void)snprintf(path, sizeof path, "%s/" PCI("hwmon/hwmon4/power1_cap"), w->t.root);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    assert_non_null(fgets(text, sizeof text, f));
    (void)fclose(f);
    assert_int_equal(strncmp(text, "180000000", 9), 0);
    hw_close(hw);
    f = fopen(path, "re");
    assert_non_null(fgets(text, sizeof text, f));
    (void)fclose(f);
    assert_int_equal(strncmp(text, "303000000", 9), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_set_and_set_back),
        T(test_nothing_without_a_wish),
        T(test_what_a_killed_one_left),
        T(test_refusals_are_notes),
        T(test_amd),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
