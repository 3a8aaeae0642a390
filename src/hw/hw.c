/* The inventory: the host and the adapters of hw.def under one handle. Layer hw; one thread at a time owns
 * it.
 *
 * Invariants: no vendor is named here; an adapter that does not open costs a note, never an error; the only
 * error of a sample is a host without a readable /proc/meminfo. */
#include "hw/hw_priv.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct hw_adapter *const adapters[] = {
#define HW_ADAPTER(id) &hw_adapter_##id,
#include "hw/hw.def"
#undef HW_ADAPTER
};

struct hw {
    char proc[HW_PATH], sys[HW_PATH];
    char *nvml, *visible, *hwmon;
    char **rpc;
    size_t n_rpc;
    struct hw_power_wish *power; /* copies; the names too */
    size_t n_power;
    struct hw_roots roots; /* points into the above */
    struct hw_cpu *cpu;
    struct hw_sensors *sensors;
    struct {
        void *state; /* NULL: did not open; then why holds the reason */
        bool open, absent;
        struct err why;
    } slots[TABLE_COUNT(adapters)];
};

const struct hw_adapter *const *hw_adapters(size_t *ret_n)
{
    *ret_n = TABLE_COUNT(adapters);
    return adapters;
}

void hw_note(struct hw_inventory *inv, const char *fmt, ...)
{
    char text[sizeof(inv->notes[0])];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    for (size_t i = 0; i < inv->n_notes; i++)
        if (strcmp(inv->notes[i], text) == 0)
            return;
    if (inv->n_notes < TABLE_COUNT(inv->notes))
        memcpy(inv->notes[inv->n_notes++], text, sizeof(text));
}

static enum rc copy_root(char out[HW_PATH], const char *given, const char *standard, struct err *err)
{
    const char *root = given ? given : standard;
    size_t n = strlen(root);
    while (n > 1 && root[n - 1] == '/')
        n--;
    /* Room for the longest name below it. */
    if (n >= HW_PATH / 2)
        return err_set(err, RC_LIMIT, "the path %.60s… is longer than %d bytes", root, HW_PATH / 2 - 1);
    memcpy(out, root, n);
    out[n] = '\0';
    return RC_OK;
}

static void copy_wishes(struct hw *hw, const struct hw_options *opt)
{
    size_t n = opt ? opt->n_power : 0;
    hw->power = mem_calloc(n + 1, sizeof *hw->power);
    for (; hw->n_power < n; hw->n_power++) {
        hw->power[hw->n_power] = opt->power[hw->n_power];
        hw->power[hw->n_power].device = mem_strdup(opt->power[hw->n_power].device);
    }
}

enum rc hw_open(const struct hw_options *opt, struct hw **ret_hw, struct err *err)
{
    struct hw *hw = mem_new(struct hw);
    enum rc rc = copy_root(hw->proc, opt ? opt->proc_root : NULL, "/proc", err);
    if (rc == RC_OK)
        rc = copy_root(hw->sys, opt ? opt->sys_root : NULL, "/sys", err);
    if (rc == RC_OK) {
        if (opt && opt->nvml_path && opt->nvml_path[0])
            hw->nvml = mem_strdup(opt->nvml_path);
        if (opt && opt->visible_devices)
            hw->visible = mem_strdup(opt->visible_devices);
        if (opt && opt->hwmon_path && opt->hwmon_path[0])
            hw->hwmon = mem_strdup(opt->hwmon_path);
        hw->rpc = mem_calloc(opt ? opt->n_rpc + 1 : 1, sizeof *hw->rpc);
        for (size_t i = 0; opt && i < opt->n_rpc; i++)
            hw->rpc[hw->n_rpc++] = mem_strdup(opt->rpc[i]);
        copy_wishes(hw, opt);
        hw->roots = (struct hw_roots){.proc = hw->proc,
                                      .sys = hw->sys,
                                      .hwmon = hw->hwmon,
                                      .nvml = hw->nvml,
                                      .visible = hw->visible,
                                      .pcie_rate = opt && opt->pcie_rate,
                                      .rpc = (const char *const *)hw->rpc,
                                      .n_rpc = hw->n_rpc,
                                      .power = hw->power,
                                      .n_power = hw->n_power};
        rc = hw_cpu_open(&hw->roots, &hw->cpu, err);
        hw->sensors = hw_sensors_open(&hw->roots);
    }
    if (rc != RC_OK) {
        hw_close(hw);
        return rc;
    }
    for (size_t i = 0; i < TABLE_COUNT(adapters); i++) {
        enum rc why = adapters[i]->open(&hw->roots, &hw->slots[i].state, &hw->slots[i].why);
        hw->slots[i].open = why == RC_OK;
        hw->slots[i].absent = why == RC_NOT_FOUND;
    }
    *ret_hw = hw;
    return RC_OK;
}

static void add_reasons(const struct hw *hw, struct hw_inventory *inv)
{
    for (size_t i = 0; i < TABLE_COUNT(adapters); i++) {
        const struct err *why = &hw->slots[i].why;
        if (hw->slots[i].open || (hw->slots[i].absent && inv->n_devices))
            continue;
        if (why->hint[0])
            hw_note(inv, "%s: %s (%s)", adapters[i]->name, why->message, why->hint);
        else
            hw_note(inv, "%s: %s", adapters[i]->name, why->message);
    }
}

enum rc hw_sample(struct hw *hw, struct hw_inventory *ret_inventory, struct err *err)
{
    struct hw_host host;
    uint64_t begun_ms = clock_mono_ms();
    enum rc rc = hw_cpu_sample(hw->cpu, &host, err);
    if (rc != RC_OK)
        return rc;
    memset(ret_inventory, 0, sizeof(*ret_inventory));
    ret_inventory->wall_ms = clock_wall_ms();
    ret_inventory->begun_ms = begun_ms;
    ret_inventory->host = host;
    hw_sensors_sample(hw->sensors, &ret_inventory->host);
    for (size_t i = 0; i < TABLE_COUNT(adapters); i++)
        if (hw->slots[i].open)
            adapters[i]->sample(hw->slots[i].state, ret_inventory);
    add_reasons(hw, ret_inventory);
    ret_inventory->ended_ms = clock_mono_ms();
    return RC_OK;
}

void hw_close(struct hw *hw)
{
    if (!hw)
        return;
    for (size_t i = 0; i < TABLE_COUNT(adapters); i++)
        if (hw->slots[i].open)
            adapters[i]->close(hw->slots[i].state);
    hw_cpu_close(hw->cpu);
    hw_sensors_close(hw->sensors);
    free(hw->nvml);
    free(hw->visible);
    free(hw->hwmon);
    for (size_t i = 0; i < hw->n_rpc; i++)
        free(hw->rpc[i]);
    free(hw->rpc);
    for (size_t i = 0; i < hw->n_power; i++)
        free((void *)(uintptr_t)hw->power[i].device);
    free(hw->power);
    free(hw);
}
