/* What loads and requests teach: see pool_priv.h. The pool knows what was predicted, what the driver and the
 * kernel say, and what the runtime told of a request; the samples go to the hook `lesson`, whose owner keeps
 * them, and come back through the hook `teach` with the next plan. Layer pool; loop thread.
 *
 * A driver's figure is a process's own where the driver tells it, else the difference of the device's memory
 * since the launch, if no other instance started or ended in between. */
#include "pool/pool_priv.h"

#include "plan/learn.h"

#include <string.h>

#define TIMINGS_AT_ONCE 4    /* requests of an instance that are learned from without a pause */
#define TIMING_EVERY_MS 5000 /* then: placing the model again takes a tenth of a millisecond */

void lesson_teach(const struct entry *e, const struct model *facts, const struct plan_policy *policy,
                  struct plan_machine *machine)
{
    const struct pool_hooks *hooks = &e->pool->opt.hooks;
    const struct runtime_caps *caps = e->caps ? e->caps : e->pool->default_caps;
    machine->host.file_cached = e->file_cached;
    if (hooks->teach && facts)
        hooks->teach(hooks->arg, facts, caps ? caps->version : "",
                     policy->base ? policy->base->flash_attn : true, machine);
    heat_teach(e->pool, machine);
}

static void tell(struct pool_instance *i, const struct learn_sample *s)
{
    const struct pool_hooks *hooks = &i->pool->opt.hooks;
    if (hooks->lesson)
        hooks->lesson(hooks->arg, i->model, s);
}

/* ---- loads ---- */

static const struct hw_device *device_of(const struct hw_inventory *inv, const struct plan_device *d)
{
    for (size_t k = 0; k < inv->n_devices; k++)
        if (d->uuid[0] ? (inv->devices[k].valid & HW_UUID) && strcmp(inv->devices[k].uuid, d->uuid) == 0
                       : strcmp(inv->devices[k].name, d->name) == 0)
            return &inv->devices[k];
    return NULL;
}

static uint64_t used_by(const struct hw_device *hw, pid_t pid)
{
    uint64_t bytes = 0;
    for (size_t k = 0; (hw->valid & HW_PROCESSES) && k < hw->n_processes; k++)
        if (hw->processes[k].pid == pid && hw->processes[k].bytes_valid)
            bytes += hw->processes[k].bytes;
    return bytes;
}

void lesson_launched(struct pool_instance *i)
{
    struct pool *p = i->pool;
    const struct hw_inventory *inv = p->opt.hooks.inventory(p->opt.hooks.arg);
    i->launches = ++p->launches;
    for (uint32_t k = 0; k < i->plan.n_used; k++) {
        const struct hw_device *hw = device_of(inv, &i->machine.devices[i->plan.used[k]]);
        i->used_before[k] = hw && (hw->valid & HW_MEMORY) ? hw->used_bytes : UINT64_MAX;
    }
}

static void learn_device(struct pool_instance *i, uint32_t k, const struct hw_inventory *inv, pid_t pid)
{
    struct learn_sample s;
    const struct hw_device *hw = device_of(inv, &i->machine.devices[i->plan.used[k]]);
    uint64_t before = i->used_before[k], bytes = hw ? used_by(hw, pid) : 0;
    if (!hw || !(hw->valid & HW_MEMORY))
        return;
    if (bytes == 0 && i->launches == i->pool->launches && before != UINT64_MAX && hw->used_bytes > before)
        bytes = hw->used_bytes - before;
    i->driver_bytes[k] = bytes;
    if (learn_from_load(i->facts, &i->plan.estimate, k, &i->machine, i->version, bytes, &s))
        tell(i, &s);
}

void lesson_sampled(struct pool *p)
{
    const struct hw_inventory *inv = p->opt.hooks.inventory(p->opt.hooks.arg);
    for (struct pool_instance *i = p->instances; i; i = i->next) {
        pid_t pid = i->job ? p->deps.launch->pid(i->job) : 0;
        if (i->state != POOL_READY || i->weighed || pid <= 0 || inv->begun_ms <= i->ready_ms)
            continue;
        i->weighed = true;
        for (uint32_t k = 0; k < i->plan.n_used; k++)
            learn_device(i, k, inv, pid);
    }
}

void lesson_ready(struct pool_instance *i)
{
    struct learn_sample s;
    uint64_t anon;
    const struct plan_estimate *e = &i->plan.estimate;
    const struct plan_host *host = &i->machine.host;
    pid_t pid = i->job ? i->pool->deps.launch->pid(i->job) : 0;
    if (pid > 0 && i->pool->deps.anon_bytes(pid, &anon) &&
        learn_from_load(i->facts, e, e->n_parts - 1, &i->machine, i->version, anon, &s))
        tell(i, &s);
    if (learn_from_loading(i->facts, host, i->version, i->plan.speed.load_seconds, i->load_seconds, &s))
        tell(i, &s);
}

/* ---- requests ---- */

void pool_timing(struct pool *p, const char *instance, const struct plan_timing *t, uint64_t total_ms)
{
    struct learn_sample samples[2];
    struct pool_instance *i = p->instances;
    uint64_t now = p->deps.now_ms();
    while (i && strcmp(i->id, instance) != 0)
        i = i->next;
    /* Slots share the cores: a request that had company tells of both. Heat passes. */
    if (!i || heat_of(i) || !i->facts || i->ready_ms == 0 ||
        (i->crowded_ms && i->crowded_ms + total_ms >= now) ||
        (i->timings >= TIMINGS_AT_ONCE && now - i->timed_ms < TIMING_EVERY_MS))
        return;
    size_t n = learn_from_request(i->facts, &i->plan.estimate, &i->machine, i->version, t, samples);
    for (size_t k = 0; k < n; k++)
        tell(i, &samples[k]);
    if (n == 0)
        return;
    i->timings++;
    i->timed_ms = now;
}
