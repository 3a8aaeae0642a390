/* See gauge.h. Where admission is pessimistic (a load that the sample shows in part counts in whole), this is
 * not: what a process is known to have already is not expected again, and what leaves is on its way. A false
 * shortage would stop an instance for nothing; a missed one is seen in the next sample. */
#include "pool/gauge.h"

#include <stdio.h>
#include <string.h>

static int64_t sum(int64_t a, uint64_t plus, uint64_t minus)
{
    const int64_t most = INT64_MAX / 4; /* sizes are bounded far below */
    int64_t p = plus < (uint64_t)most ? (int64_t)plus : most,
            m = minus < (uint64_t)most ? (int64_t)minus : most;
    return a + p - m;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static uint64_t at_most(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static pid_t pid_of(const struct pool_instance *i)
{
    return i->job ? i->pool->deps.launch->pid(i->job) : 0;
}

/* It gives its memory back without being asked again. */
static bool is_leaving(const struct pool_instance *i)
{
    return i->state == POOL_DRAINING || i->state == POOL_FAILED;
}

uint64_t gauge_of(const struct gauge *g, const struct reserve *r)
{
    return g->host ? r->host_bytes : reserve_on(r, g->key);
}

/* ---- devices ---- */

/* What the driver says that a process has of the device. */
static bool driver_bytes(const struct hw_device *g, pid_t pid, uint64_t *ret)
{
    for (size_t k = 0; pid > 0 && (g->valid & HW_PROCESSES) && k < g->n_processes; k++)
        if (g->processes[k].pid == pid && g->processes[k].bytes_valid) {
            *ret = g->processes[k].bytes;
            return true;
        }
    return false;
}

static bool is_ours(const struct pool *p, pid_t pid)
{
    for (const struct pool_instance *i = p->instances; i; i = i->next)
        if (pid_of(i) == pid)
            return true;
    return false;
}

static void list_others(const struct pool *p, const struct hw_device *g, struct gauge *ret)
{
    for (size_t k = 0; (g->valid & HW_PROCESSES) && k < g->n_processes; k++) {
        const struct hw_process *h = &g->processes[k];
        uint64_t bytes = h->bytes_valid ? h->bytes : 0;
        if (is_ours(p, h->pid) ||
            (ret->n_others == GAUGE_OTHERS && ret->others[GAUGE_OTHERS - 1].bytes >= bytes))
            continue;
        size_t at = ret->n_others < GAUGE_OTHERS ? ret->n_others++ : GAUGE_OTHERS - 1;
        for (; at > 0 && ret->others[at - 1].bytes < bytes; at--)
            ret->others[at] = ret->others[at - 1];
        ret->others[at] = (struct proc_use){.pid = h->pid, .bytes = bytes};
    }
}

static void device_gauge(struct pool *p, const struct hw_inventory *inv, const struct hw_device *g,
                         struct gauge *ret)
{
    *ret = (struct gauge){.total_bytes = g->total_bytes, .free_bytes = g->free_bytes};
    snprintf(ret->name, sizeof ret->name, "%s", g->name);
    snprintf(ret->key, sizeof ret->key, "%s", (g->valid & HW_UUID) ? g->uuid : g->name);
    int64_t slack = sum(0, g->free_bytes, 0);
    for (const struct pool_instance *i = p->instances; i; i = i->next) {
        uint64_t bytes = reserve_on(&i->reserve, ret->key), has;
        if (!instance_holds_memory(i) || bytes == 0)
            continue;
        bool settled = admit_is_settled(i, inv);
        if (!driver_bytes(g, pid_of(i), &has))
            has = i->state == POOL_PLANNED ? 0 : bytes;
        ret->own_bytes += settled ? has : at_most(has, bytes);
        if (is_leaving(i))
            slack = sum(slack, settled ? has : 0, 0);
        else
            slack = sum(slack, 0, settled ? 0 : minus(bytes, has));
        if (i->entry && i->entry->policy.margin_bytes > ret->margin_bytes)
            ret->margin_bytes = i->entry->policy.margin_bytes;
    }
    for (size_t k = 0; k < TABLE_COUNT(p->gone); k++)
        if (admit_is_shown_still(&p->gone[k], inv))
            slack = sum(slack, reserve_on(&p->gone[k].freed, ret->key), 0);
    ret->slack_bytes = sum(slack, 0, ret->margin_bytes);
    ret->foreign_bytes = minus(minus(g->total_bytes, g->free_bytes), ret->own_bytes + g->reserved_bytes);
    list_others(p, g, ret);
}

/* ---- the host ---- */

static uint64_t host_unseen(const struct pool_instance *i, const struct hw_inventory *inv, uint64_t *ret_has)
{
    uint64_t anon = 0, mapped = i->reserve.host_mapped_bytes;
    pid_t pid = pid_of(i);
    bool known = pid > 0 && i->pool->deps.anon_bytes(pid, &anon);
    bool settled = admit_is_settled(i, inv);
    if (!known)
        anon = settled ? minus(i->reserve.host_bytes, mapped) : 0;
    *ret_has = anon;
    /* A control group counts the pages of its files as used, the kernel calls them available. */
    if (settled && inv->host.usable_free_bytes < inv->host.ram_available_bytes)
        anon += mapped;
    return minus(i->reserve.host_bytes, anon);
}

static void host_gauge(struct pool *p, const struct hw_inventory *inv, struct gauge *ret)
{
    const struct hw_host *h = &inv->host;
    *ret = (struct gauge){.host = true,
                          .name = "Host",
                          .total_bytes = h->usable_total_bytes,
                          .free_bytes = h->usable_free_bytes,
                          .margin_bytes = admit_host_reserve(p, inv)};
    int64_t slack = sum(0, h->usable_free_bytes, 0);
    for (const struct pool_instance *i = p->instances; i; i = i->next) {
        uint64_t has;
        if (!instance_holds_memory(i))
            continue;
        uint64_t unseen = host_unseen(i, inv, &has);
        ret->own_bytes += has;
        slack = is_leaving(i) ? sum(slack, has, 0) : sum(slack, 0, unseen);
    }
    for (size_t k = 0; k < TABLE_COUNT(p->gone); k++)
        if (admit_is_shown_still(&p->gone[k], inv))
            slack = sum(slack, p->gone[k].freed.host_bytes, 0);
    ret->slack_bytes = sum(slack, 0, ret->margin_bytes);
    ret->foreign_bytes = minus(minus(h->usable_total_bytes, h->usable_free_bytes), ret->own_bytes);
}

void gauges_read(struct pool *p, struct gauges *ret)
{
    const struct hw_inventory *inv = p->opt.hooks.inventory(p->opt.hooks.arg);
    ret->n = 0;
    for (size_t k = 0; k < inv->n_devices && k < HW_MAX_DEVICES; k++) {
        const struct hw_device *g = &inv->devices[k];
        struct plan_device d = {0};
        plan_device_named(&d, str_from(g->name), g->total_bytes, g->free_bytes);
        snprintf(d.uuid, sizeof d.uuid, "%s", g->valid & HW_UUID ? g->uuid : "");
        if (!g->lost && (g->valid & HW_MEMORY) && !runtime_is_worker(&d))
            device_gauge(p, inv, g, &ret->rows[ret->n++]);
    }
    host_gauge(p, inv, &ret->rows[ret->n++]);
}
