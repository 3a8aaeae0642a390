/* arriero gpus: the machine's GPUs and its host as they are now. Works without a daemon. Layer cli; main
 * thread. */
#include "cli/cli_priv.h"

#include "base/mem.h"
#include "hw/hw.h"
#include "hw/profiles/profiles.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *bytes_cell(const struct hw_device *d, uint64_t bytes, char *out, size_t cap)
{
    return d->valid & HW_MEMORY ? str_human_bytes(bytes, out, cap) : "-";
}

static const char *number_cell(const struct hw_device *d, uint32_t bit, unsigned value, const char *unit,
                               char *out, size_t cap)
{
    if (!(d->valid & bit))
        return "-";
    (void)snprintf(out, cap, "%u%s", value, unit);
    return out;
}

static void add_processes(struct cli_table *t, const struct hw_device *d)
{
    if (d->valid & HW_PROCESSES)
        cli_table_cell(t, "%zu", d->n_processes);
    else
        cli_table_cell(t, "-");
}

static void add_power(struct cli_table *t, const struct hw_device *d)
{
    if (d->valid & HW_POWER && d->valid & HW_POWER_LIMIT)
        cli_table_cell(t, "%u/%u W", (d->power_mw + 500) / 1000, (d->power_limit_mw + 500) / 1000);
    else if (d->valid & HW_POWER)
        cli_table_cell(t, "%u W", (d->power_mw + 500) / 1000);
    else
        cli_table_cell(t, "-");
}

static void add_state(struct cli_table *t, const struct hw_device *d)
{
    char words[128];
    if (d->lost)
        cli_table_cell(t, "lost");
    else if (d->valid & HW_THROTTLE && *hw_throttle_words(d->throttle_reasons, words, sizeof(words)))
        cli_table_cell(t, "slowed by %s", words);
    else if (d->valid & HW_IN_USE && d->in_use)
        cli_table_cell(t, "serves a client");
    else if (d->unified_memory)
        cli_table_cell(t, "uses the host's memory");
    else
        cli_table_cell(t, "%s", "");
}

static void print_devices(const struct hw_inventory *inv)
{
    static const char *const headings[] = {"DEVICE", "MODEL", "TOTAL", "USED",  "FREE",
                                           "UTIL",   "TEMP",  "POWER", "PROCS", "STATE"};
    struct cli_table *t = cli_table_new(headings, TABLE_COUNT(headings));
    for (size_t i = 0; i < inv->n_devices; i++) {
        const struct hw_device *d = &inv->devices[i];
        char text[32];
        cli_table_cell(t, "%s", d->name);
        cli_table_cell(t, "%s", d->model);
        cli_table_cell(t, "%s", bytes_cell(d, d->total_bytes, text, sizeof(text)));
        cli_table_cell(t, "%s", bytes_cell(d, d->used_bytes, text, sizeof(text)));
        cli_table_cell(t, "%s", bytes_cell(d, d->free_bytes, text, sizeof(text)));
        cli_table_cell(t, "%s", number_cell(d, HW_UTIL, d->util_pct, "%", text, sizeof(text)));
        cli_table_cell(t, "%s", number_cell(d, HW_TEMPERATURE, d->temperature_c, " °C", text, sizeof(text)));
        add_power(t, d);
        add_processes(t, d);
        add_state(t, d);
    }
    cli_table_print(t);
}

static void put_host(struct buf *out, const struct hw_host *h)
{
    char total[32], free_[32], limit[32], used[32];
    buf_printf(out, "Host: %s, %u core%s, %u thread%s", h->model[0] ? h->model : "unknown CPU",
               h->physical_cores, h->physical_cores == 1 ? "" : "s", h->logical_cpus,
               h->logical_cpus == 1 ? "" : "s");
    if (h->numa_nodes > 1)
        buf_printf(out, ", %u NUMA nodes", h->numa_nodes);
    buf_printf(out, "; RAM %s, %s available", str_human_bytes(h->ram_total_bytes, total, sizeof(total)),
               str_human_bytes(h->ram_available_bytes, free_, sizeof(free_)));
    if (h->swap_total_bytes)
        buf_printf(out, "; swap %s, %s free", str_human_bytes(h->swap_total_bytes, total, sizeof(total)),
                   str_human_bytes(h->swap_free_bytes, free_, sizeof(free_)));
    buf_puts(out, "\n");
    if (h->cgroup_limit_bytes != UINT64_MAX)
        buf_printf(out, "      its control group may use %s and uses %s; %s are left for models\n",
                   str_human_bytes(h->cgroup_limit_bytes, limit, sizeof(limit)),
                   str_human_bytes(h->cgroup_used_bytes, used, sizeof(used)),
                   str_human_bytes(h->usable_free_bytes, free_, sizeof(free_)));
}

static void print_text(const struct hw_inventory *inv)
{
    struct buf text = {0}, safe = {0};
    struct buf *out = &text;
    if (inv->n_devices)
        print_devices(inv);
    else
        buf_puts(out, "no GPU found: models run on the CPU\n");
    put_host(out, &inv->host);
    if (inv->driver[0] && inv->cuda_version)
        buf_printf(out, "Driver: %s, CUDA %u.%u\n", inv->driver, inv->cuda_version / 1000,
                   inv->cuda_version % 1000 / 10);
    else if (inv->driver[0])
        buf_printf(out, "Driver: %s\n", inv->driver);
    for (size_t i = 0; i < inv->n_notes; i++)
        buf_printf(out, "Note: %s\n", inv->notes[i]);
    /* Names come from firmware: nothing of them may steer the terminal. */
    text_put_safe(&safe, buf_str(&text), true);
    buf_release(&text);
    output_buf(&safe);
}

/* ---- profiles ---- */

static void print_profiles(void)
{
    static const char *const headings[] = {"PROFILE", "WHAT", "MIB", "FREE", "GB/S", "TFLOPS", "WATTS"};
    size_t n;
    const struct hw_profile *list = hw_profiles(&n);
    struct cli_table *t = cli_table_new(headings, TABLE_COUNT(headings));
    for (size_t i = 0; i < n; i++) {
        const struct hw_profile *p = &list[i];
        bool gpu = p->backend != NULL, parts = p->kind == HW_PROFILE_MACHINE;
        cli_table_cell(t, "%s", p->name);
        cli_table_cell(t, parts ? "%s: %s" : "%s", p->title, p->parts);
        cli_table_cell(t, parts ? "-" : "%u", p->mib);
        cli_table_cell(t, gpu ? "%u" : "-", p->free_mib);
        cli_table_cell(t, parts ? "-" : "%.0f", p->gbps);
        cli_table_cell(t, gpu ? "%.0f" : "-", p->tflops);
        cli_table_cell(t, gpu ? "%.0f" : "-", p->watts);
    }
    cli_table_print(t);
}

static int print_profiles_json(void)
{
    static const char *const kinds[] = {[HW_PROFILE_CARD] = "card",
                                        [HW_PROFILE_UNIFIED] = "unified",
                                        [HW_PROFILE_HOST] = "host",
                                        [HW_PROFILE_MACHINE] = "machine"};
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc), *all = yyjson_mut_obj_add_arr(doc, root, "profiles");
    size_t n;
    const struct hw_profile *list = hw_profiles(&n);
    for (size_t i = 0; i < n; i++) {
        const struct hw_profile *p = &list[i];
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, all);
        yyjson_mut_obj_add_str(doc, o, "name", p->name);
        yyjson_mut_obj_add_str(doc, o, "kind", kinds[p->kind]);
        yyjson_mut_obj_add_str(doc, o, "title", p->title);
        if (p->parts)
            yyjson_mut_obj_add_str(doc, o, "parts", p->parts);
        else
            yyjson_mut_obj_add_uint(doc, o, "memory_bytes", (uint64_t)p->mib * MIB);
        if (p->kind == HW_PROFILE_MACHINE)
            continue;
        yyjson_mut_obj_add_real(doc, o, "bandwidth_gbps", p->gbps);
        if (p->backend) {
            yyjson_mut_obj_add_str(doc, o, "backend", p->backend);
            yyjson_mut_obj_add_uint(doc, o, "free_bytes", (uint64_t)p->free_mib * MIB);
            yyjson_mut_obj_add_real(doc, o, "tflops", p->tflops);
            yyjson_mut_obj_add_real(doc, o, "watts", p->watts);
            yyjson_mut_obj_add_real(doc, o, "link_gbps", p->link_gbps);
        }
        if (p->cores)
            yyjson_mut_obj_add_uint(doc, o, "cores", p->cores);
    }
    yyjson_mut_doc_set_root(doc, root);
    return cli_print_json(doc);
}

struct gpus_options {
    bool profiles;
};

static const struct cli_option options[] = {
    {"profiles", 0, CLI_FLAG, offsetof(struct gpus_options, profiles), NULL,
     "list the cards and machines that plan --hw knows", NULL},
    {.type = CLI_END},
};

static int run(struct cli_call *call)
{
    const struct gpus_options *o = call->options;
    if (o->profiles && call->json)
        return print_profiles_json();
    if (o->profiles) {
        print_profiles();
        return 0;
    }
    struct hw_inventory *inv = mem_new(struct hw_inventory);
    struct err err = {0};
    int status = 0;
    enum rc rc = cli_inventory(inv, &err);
    if (rc != RC_OK) {
        status = cli_fail(call, &err);
    } else if (call->json) {
        yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
        yyjson_mut_doc_set_root(doc, hw_json(doc, inv));
        status = cli_print_json(doc);
    } else {
        print_text(inv);
    }
    free(inv);
    return status;
}

const struct cli_command cmd_gpus = {
    .name = "gpus",
    .group = "Look",
    .synopsis = "[--profiles]",
    .summary = "show the GPUs, their memory and load, and the host",
    .details =
        "Lists every GPU as the runtimes number it (NVIDIA by PCI address, AMD under ROCm), with its "
        "memory, the share of time it worked, temperature, power against its limit, and how many processes "
        "use it. Workers of llama.cpp's RPC backend that the configuration names (rpc) come first. A value "
        "that the driver does not tell is shown as - and is null in the JSON form.\n\n"
        "UTIL is the share of time in which any kernel ran, not how well the GPU was used. STATE says when "
        "the driver slows the GPU down, and why, or when the GPU is lost.\n\n"
        "GPUs hidden by CUDA_VISIBLE_DEVICES are left out. ARRIERO_NVML names another NVIDIA management "
        "library than the installed one. Needs no daemon.",
    .options_size = sizeof(struct gpus_options),
    .options = options,
    .run = run,
};
