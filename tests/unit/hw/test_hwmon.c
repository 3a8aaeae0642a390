/* The processors' temperature from hwmon trees: which sensors count, limits, broken ones. */
#include "tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

static int setup(void **state)
{
    static struct tree t;
    tree_make(&t);
    tree_put_host(&t, 4096, 2048);
    *state = &t;
    return 0;
}

static int teardown(void **state)
{
    tree_remove(*state);
    return 0;
}

static struct hw_host host_of(struct tree *t)
{
    static struct hw_inventory inv;
    struct hw *hw = tree_open(t, NULL, &inv);
    hw_close(hw);
    return inv.host;
}

static void test_without_sensors(void **state)
{
    assert_int_equal(host_of(*state).valid, 0);
    tree_put(*state, "sys/class/hwmon/hwmon0/name", "nvme\n");
    tree_put(*state, "sys/class/hwmon/hwmon0/temp1_input", "71000\n");
    assert_int_equal(host_of(*state).valid, 0);
}

static void test_the_hottest_package_counts(void **state)
{
    struct tree *t = *state;
    tree_put(t, "sys/class/hwmon/hwmon1/name", "coretemp\n");
    tree_put(t, "sys/class/hwmon/hwmon1/temp1_input", "67500\n");
    tree_put(t, "sys/class/hwmon/hwmon1/temp1_crit", "100000\n");
    tree_put(t, "sys/class/hwmon/hwmon7/name", "coretemp\n");
    tree_put(t, "sys/class/hwmon/hwmon7/temp1_input", "83000\n");
    tree_put(t, "sys/class/hwmon/hwmon7/temp1_crit", "98000\n");
    struct hw_host h = host_of(t);
    assert_int_equal(h.valid, HW_TEMPERATURE | HW_TEMP_SLOWDOWN);
    assert_int_equal(h.temperature_c, 83);
    assert_int_equal(h.temp_slowdown_c, 98);
}

static void test_a_driver_without_a_limit(void **state)
{
    struct tree *t = *state;
    tree_put(t, "sys/class/hwmon/hwmon0/name", "k10temp\n");
    tree_put(t, "sys/class/hwmon/hwmon0/temp1_input", "54125\n");
    struct hw_host h = host_of(t);
    assert_int_equal(h.valid, HW_TEMPERATURE);
    assert_int_equal(h.temperature_c, 54);
}

static void test_nonsense_is_not_known(void **state)
{
    static const char *const bad[] = {"",         "-5000\n", "hot\n", "99999999999999999999\n",
                                      "201000\n", "5000 x\n"};
    struct tree *t = *state;
    tree_put(t, "sys/class/hwmon/hwmon0/name", "coretemp\n");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tree_put(t, "sys/class/hwmon/hwmon0/temp1_input", "%s", bad[i]);
        assert_int_equal(host_of(t).valid & HW_TEMPERATURE, 0);
    }
    tree_put(t, "sys/class/hwmon/hwmon0/temp1_input", "60000\n");
    tree_put(t, "sys/class/hwmon/hwmon0/temp1_crit", "4000000000\n");
    assert_int_equal(host_of(t).valid, HW_TEMPERATURE);
}

/* The files stay open: what a later sample shows is what they hold then. */
static void test_each_sample_reads_anew(void **state)
{
    struct tree *t = *state;
    struct hw_inventory inv;
    tree_put(t, "sys/class/hwmon/hwmon0/name", "coretemp\n");
    tree_put(t, "sys/class/hwmon/hwmon0/temp1_input", "40000\n");
    struct hw *hw = tree_open(t, NULL, &inv);
    assert_int_equal(inv.host.temperature_c, 40);
    tree_put(t, "sys/class/hwmon/hwmon0/temp1_input", "91000\n");
    assert_int_equal(hw_sample(hw, &inv, NULL), RC_OK);
    assert_int_equal(inv.host.temperature_c, 91);
    hw_close(hw);
}

static void test_another_directory(void **state)
{
    struct tree *t = *state;
    char path[200];
    struct hw *hw;
    struct hw_inventory inv;
    (void)snprintf(path, sizeof path, "%s/sensors", t->root);
    tree_put(t, "sensors/hwmon3/name", "cpu_thermal\n");
    tree_put(t, "sensors/hwmon3/temp1_input", "77000\n");
    const struct hw_options o = {.proc_root = t->proc, .sys_root = t->sys, .hwmon_path = path};
    assert_int_equal(hw_open(&o, &hw, NULL), RC_OK);
    assert_int_equal(hw_sample(hw, &inv, NULL), RC_OK);
    assert_int_equal(inv.host.temperature_c, 77);
    hw_close(hw);
}

/* Which of the driver's words are about heat. */
static void test_heat_of_a_device(void **state)
{
    (void)state;
    static const struct {
        uint64_t bits;
        enum hw_heat heat;
    } rows[] = {{0, HW_HEAT_NONE},    {0x1, HW_HEAT_NONE},  {0x4, HW_HEAT_NONE},
                {0x20, HW_HEAT_SOFT}, {0x40, HW_HEAT_HARD}, {0x64, HW_HEAT_HARD},
                {0x80, HW_HEAT_NONE}, {0x8, HW_HEAT_NONE},  {0x48, HW_HEAT_HARD}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct hw_device d = {.valid = HW_THROTTLE, .throttle_reasons = rows[i].bits};
        assert_int_equal(hw_heat_of(&d), rows[i].heat);
        d.valid = 0;
        assert_int_equal(hw_heat_of(&d), HW_HEAT_NONE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_without_sensors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_hottest_package_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_driver_without_a_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nonsense_is_not_known, setup, teardown),
        cmocka_unit_test_setup_teardown(test_each_sample_reads_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_directory, setup, teardown),
        cmocka_unit_test(test_heat_of_a_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
