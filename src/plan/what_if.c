/* A machine that is not here, out of profiles. Layer plan; pure; see plan.h. */
#include "plan/plan.h"

#include "base/mem.h"
#include "hw/profiles/profiles.h"

#include <stdio.h>
#include <string.h>

#define LINK_REACHED 0.8 /* share of the link's nominal rate that copies reach */

struct building {
    struct plan_machine *m;
    const struct hw_profile *host; /* as named */
    bool laptop, server, unified;
};

static enum rc add_cards(struct building *b, const struct hw_profile *p, uint32_t count, struct err *err)
{
    for (uint32_t i = 0; i < count; i++) {
        char name[24];
        if (b->m->n_devices == PLAN_MAX_DEVICES)
            return err_set(err, RC_INVALID, "more than %d GPUs", PLAN_MAX_DEVICES);
        uint32_t same = 0;
        for (size_t k = 0; k < b->m->n_devices; k++)
            same += !strncmp(b->m->devices[k].name, p->backend, strlen(p->backend));
        snprintf(name, sizeof name, "%s%u", p->backend, same);
        struct plan_device *d = &b->m->devices[b->m->n_devices++];
        uint64_t mib = p->kind == HW_PROFILE_UNIFIED ? p->free_mib : p->mib;
        plan_device_named(d, str_from(name), mib * MIB, (uint64_t)p->free_mib * MIB);
        d->bandwidth_gbps = p->gbps;
        d->tflops = p->tflops;
        d->power_w = p->watts;
        d->link_gbps = LINK_REACHED * p->link_gbps;
        snprintf(d->model, sizeof d->model, "%s", p->title);
    }
    b->laptop = b->laptop || (p->kind == HW_PROFILE_CARD && p->class == HW_CLASS_LAPTOP);
    b->server = b->server || (p->kind == HW_PROFILE_CARD && p->class == HW_CLASS_SERVER);
    return RC_OK;
}

static enum rc set_host(struct building *b, const struct hw_profile *p, struct err *err)
{
    if (b->host && b->host != p)
        return err_set(err, RC_INVALID, "%s and %s: one machine has one host", b->host->name, p->name);
    b->host = p;
    return RC_OK;
}

static enum rc add_list(struct building *b, struct str list, bool inside, struct err *err)
{
    while (list.n) {
        const struct hw_profile *p;
        uint32_t count;
        enum rc rc = hw_profile_parse(str_cut(&list, ','), &p, &count, err);
        if (!rc && p->kind == HW_PROFILE_MACHINE)
            rc = inside ? err_set(err, RC_INVALID, "%s inside another machine", p->name)
                        : add_list(b, str_from(p->parts), true, err);
        else if (!rc && p->kind == HW_PROFILE_HOST)
            rc = set_host(b, p, err);
        else if (!rc)
            rc = add_cards(b, p, count, err);
        if (!rc && p->kind == HW_PROFILE_UNIFIED)
            rc = set_host(b, p, err);
        if (rc)
            return rc;
    }
    return RC_OK;
}

static void fill_host(const struct building *b)
{
    const struct hw_profile *p = b->host;
    if (!p)
        p = hw_profile_find(b->laptop   ? STR("laptop-64g")
                            : b->server ? STR("server-512g")
                                        : STR("desktop-64g"));
    struct plan_host *h = &b->m->host;
    uint64_t mib = p->kind == HW_PROFILE_UNIFIED ? p->mib - p->free_mib : p->mib;
    uint64_t taken = mib / 8 < 8192 ? mib / 8 : 8192; /* for everyone else */
    h->total_bytes = mib * MIB;
    h->free_bytes = (mib - taken) * MIB;
    h->cores = p->cores;
    h->bandwidth_gbps = p->gbps;
    snprintf(h->model, sizeof h->model, "%s", p->title);
}

enum rc plan_machine_profiles(struct str list, struct plan_machine *ret_machine, struct err *err)
{
    struct plan_machine m = {.n_devices = 0};
    struct building b = {.m = &m};
    if (!list.n)
        return err_set(err, RC_INVALID, "no hardware profile is named");
    enum rc rc = add_list(&b, list, false, err);
    if (rc)
        return rc;
    fill_host(&b);
    *ret_machine = m;
    return RC_OK;
}
