/* What is known of this machine: see knowledge.h. Layer daemon. */
#include "daemon/knowledge.h"

#include "base/mem.h"
#include "daemon/config.h"
#include "os/file.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

static const struct {
    const char *name;
    size_t offset;
} host_figures[] = {{"read_gbps", offsetof(struct knowledge_host, read_gbps)},
                    {"read_core_gbps", offsetof(struct knowledge_host, read_core_gbps)},
                    {"fp32_core_gflops", offsetof(struct knowledge_host, fp32_core_gflops)},
                    {"int8_core_gops", offsetof(struct knowledge_host, int8_core_gops)},
                    {"disk_gbps", offsetof(struct knowledge_host, disk_gbps)}},
  gpu_figures[] = {{"copy_gbps", offsetof(struct knowledge_gpu, copy_gbps)},
                   {"to_device_gbps", offsetof(struct knowledge_gpu, to_device_gbps)},
                   {"from_device_gbps", offsetof(struct knowledge_gpu, from_device_gbps)},
                   {"fp16_tflops", offsetof(struct knowledge_gpu, fp16_tflops)}};

static struct knowledge_gpu *gpu_for(struct knowledge *k, const char *uuid)
{
    for (size_t i = 0; i < k->n_gpus; i++)
        if (!strcmp(k->gpus[i].uuid, uuid))
            return &k->gpus[i];
    if (k->n_gpus == KNOWLEDGE_DEVICES || !uuid[0])
        return NULL;
    struct knowledge_gpu *g = &k->gpus[k->n_gpus++];
    snprintf(g->uuid, sizeof g->uuid, "%s", uuid);
    return g;
}

bool knowledge_figure(struct knowledge *k, const char *device, const char *name, double value,
                      int64_t wall_ms)
{
    if (!isfinite(value) || value <= 0)
        return false;
    if (!strcmp(device, "host")) {
        for (size_t i = 0; i < TABLE_COUNT(host_figures); i++)
            if (!strcmp(host_figures[i].name, name)) {
                *(double *)(void *)((char *)&k->host + host_figures[i].offset) = value;
                k->host.wall_ms = wall_ms > k->host.wall_ms ? wall_ms : k->host.wall_ms;
                return true;
            }
        return false;
    }
    for (size_t i = 0; i < TABLE_COUNT(gpu_figures); i++) {
        struct knowledge_gpu *g = strcmp(gpu_figures[i].name, name) ? NULL : gpu_for(k, device);
        if (!g)
            continue;
        *(double *)(void *)((char *)g + gpu_figures[i].offset) = value;
        g->wall_ms = wall_ms > g->wall_ms ? wall_ms : g->wall_ms;
        return true;
    }
    return false;
}

/* ---- reading ---- */

static void on_figure(void *arg, const struct store_figure *f)
{
    (void)knowledge_figure(arg, f->device, f->name, f->value, f->wall_ms);
}

static void on_lesson(void *arg, const struct store_lesson *l)
{
    struct knowledge *k = arg;
    struct learn_sample s = {.value = l->value, .size = l->size};
    if (!learn_kind_from(str_from(l->kind), &s.kind))
        return;
    snprintf(s.key.runtime, sizeof s.key.runtime, "%s", l->runtime);
    snprintf(s.key.device, sizeof s.key.device, "%s", l->device);
    snprintf(s.key.architecture, sizeof s.key.architecture, "%s", l->architecture);
    snprintf(s.key.quantization, sizeof s.key.quantization, "%s", l->quantization);
    s.key.flash_attn = l->flash_attn;
    (void)learn_add(&k->learned, &s);
}

void knowledge_machine_name(char *ret_name, size_t cap)
{
    struct utsname u;
    snprintf(ret_name, cap, "%s", uname(&u) == 0 ? u.nodename : "here");
}

void knowledge_path(char *ret_path, size_t cap)
{
    const struct config_request req = {0};
    struct config *c = NULL;
    char dir[4096];
    if (config_load(&req, &c, NULL) == RC_OK && c->state_dir[0])
        snprintf(dir, sizeof dir, "%s", c->state_dir);
    else
        file_dir(FILE_DIR_STATE, dir, sizeof dir);
    config_free(c);
    snprintf(ret_path, cap, "%s/history.db", dir);
}

struct knowledge *knowledge_load(const char *history_path)
{
    struct knowledge *k = mem_new(struct knowledge);
    struct err err;
    char machine[65];
    knowledge_machine_name(machine, sizeof machine);
    enum rc rc = store_read_lessons(history_path, on_lesson, k, &err);
    if (rc == RC_OK)
        rc = store_read_figures(history_path, machine, on_figure, k, &err);
    if (rc != RC_OK && rc != RC_NOT_FOUND)
        snprintf(k->note, sizeof k->note, "nothing learned is used: %.280s", err.message);
    return k;
}

void knowledge_free(struct knowledge *k)
{
    free(k);
}

/* ---- using ---- */

static void apply_host(const struct knowledge_host *k, struct plan_host *h)
{
    if (k->read_gbps > 0)
        h->bandwidth_gbps = k->read_gbps;
    if (k->read_core_gbps > 0)
        h->bandwidth_core_gbps = k->read_core_gbps;
    if (k->fp32_core_gflops > 0)
        h->gflops_core = k->fp32_core_gflops;
    if (k->int8_core_gops > 0)
        h->gops_core = k->int8_core_gops;
    if (k->disk_gbps > 0)
        h->disk_gbps = k->disk_gbps;
}

static void apply_gpu(const struct knowledge_gpu *k, struct plan_device *d)
{
    if (k->copy_gbps > 0)
        d->bandwidth_gbps = k->copy_gbps;
    if (k->fp16_tflops > 0)
        d->tflops = k->fp16_tflops;
    if (k->to_device_gbps > 0)
        d->link_gbps = k->to_device_gbps;
}

void knowledge_apply(const struct knowledge *k, const struct model *m, const char *runtime, bool flash_attn,
                     struct plan_machine *machine)
{
    if (!k)
        return;
    apply_host(&k->host, &machine->host);
    for (size_t i = 0; i < machine->n_devices; i++)
        for (size_t g = 0; g < k->n_gpus && machine->devices[i].uuid[0]; g++)
            if (!strcmp(k->gpus[g].uuid, machine->devices[i].uuid))
                apply_gpu(&k->gpus[g], &machine->devices[i]);
    plan_machine_learn(machine, &k->learned, runtime, m, flash_attn);
}

bool knowledge_lesson(struct knowledge *k, struct store *store, const char *model, int64_t wall_ms,
                      const struct learn_sample *s)
{
    if (!learn_add(&k->learned, s))
        return false;
    if (store)
        store_post_lesson(store, &(struct store_lesson){.wall_ms = wall_ms,
                                                        .kind = learn_kind_word(s->kind),
                                                        .model = model,
                                                        .runtime = s->key.runtime,
                                                        .device = s->key.device,
                                                        .architecture = s->key.architecture,
                                                        .quantization = s->key.quantization,
                                                        .flash_attn = s->key.flash_attn,
                                                        .value = s->value,
                                                        .size = s->size});
    return true;
}
