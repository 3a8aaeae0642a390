/* Devices that are too hot: see heat.h. */
#include "pool/heat.h"

#include "pool/pool_priv.h"

#include <stdio.h>
#include <string.h>

/* How far down each step goes. */
static const struct {
    uint32_t share;   /* one of so many slots is used; 0 = a single one of all */
    uint32_t gap_ms;  /* between two requests */
    double slowness;  /* for the planner */
    uint32_t ubatch;  /* of the next load, where the settings leave it open; 0 = as planned */
    uint32_t on_host; /* so many quarters of the layers, likewise */
} steps[HEAT_STEPS + 1] = {
    {1, 0, 1, 0, 0},
    {2, 0, 2, 0, 0},
    {4, 250, 4, 128, 0},
    {0, 1000, 8, 128, 1},
};

/* ---- pure ---- */

unsigned heat_next(const struct heat_row *row, uint64_t dwell_ms, uint64_t now_ms)
{
    bool rested = now_ms - row->moved_ms >= dwell_ms;
    switch (row->now.level) {
    case POOL_HEAT_HOT:
        return row->step < HEAT_STEPS && (row->step == 0 || rested) ? row->step + 1 : row->step;
    case POOL_HEAT_WARM: return row->step;
    case POOL_HEAT_NONE: break;
    }
    return row->step > 0 && rested ? row->step - 1 : row->step;
}

uint32_t heat_share(unsigned step, uint32_t slots)
{
    uint32_t share = steps[step].share;
    if (slots == 0 || share == 1)
        return slots;
    return share == 0 || slots < share ? 1 : slots / share;
}

uint32_t heat_gap_ms(unsigned step)
{
    return steps[step].gap_ms;
}

double heat_slowness(unsigned step)
{
    return steps[step].slowness;
}

/* ---- instances ---- */

static bool computes_on(const struct pool_instance *i, const char *device)
{
    if (strcmp(device, "Host") == 0)
        return i->plan.estimate.layers_cpu > 0 || i->plan.n_used == 0;
    for (size_t k = 0; k < i->reserve.n; k++)
        if (strcmp(i->reserve.rows[k].name, device) == 0)
            return true;
    return false;
}

const struct heat_row *heat_of(const struct pool_instance *i)
{
    const struct heat *h = &i->pool->heat;
    const struct heat_row *worst = NULL;
    for (size_t k = 0; k < h->n; k++)
        if (h->rows[k].step > (worst ? worst->step : 0) && computes_on(i, h->rows[k].now.device))
            worst = &h->rows[k];
    return worst;
}

uint32_t heat_slots(const struct pool_instance *i)
{
    const struct heat_row *row = heat_of(i);
    return heat_share(row ? row->step : 0, i->plan.estimate.params.parallel);
}

bool heat_pauses(const struct pool_instance *i, uint64_t now_ms)
{
    const struct heat_row *row = heat_of(i);
    return row && i->granted_ms && now_ms - i->granted_ms < steps[row->step].gap_ms;
}

bool heat_has_pauses(const struct pool *p)
{
    for (size_t k = 0; k < p->heat.n; k++)
        if (steps[p->heat.rows[k].step].gap_ms)
            return true;
    return false;
}

/* ---- the next load ---- */

static void slow_down(struct plan_taught *t, unsigned step)
{
    t->decode_factor = (t->decode_factor > 0 ? t->decode_factor : 1) * steps[step].slowness;
    t->prefill_factor = (t->prefill_factor > 0 ? t->prefill_factor : 1) * steps[step].slowness;
}

void heat_teach(const struct pool *p, struct plan_machine *m)
{
    for (size_t k = 0; k < p->heat.n; k++) {
        const struct heat_row *row = &p->heat.rows[k];
        if (row->step == 0)
            continue;
        if (strcmp(row->now.device, "Host") == 0)
            slow_down(&m->host.taught, row->step);
        for (size_t d = 0; d < m->n_devices; d++)
            if (strcmp(m->devices[d].name, row->now.device) == 0)
                slow_down(&m->devices[d].taught, row->step);
    }
}

/* heat.n when there is none. */
static size_t index_of(const struct pool *p, const char *device)
{
    size_t k = 0;
    while (k < p->heat.n && strcmp(p->heat.rows[k].now.device, device) != 0)
        k++;
    return k;
}

static const struct heat_row *row_of(const struct pool *p, const char *device)
{
    size_t k = index_of(p, device);
    return k < p->heat.n ? &p->heat.rows[k] : NULL;
}

unsigned pool_heat_step(const struct pool *p, const char *device)
{
    const struct heat_row *row = row_of(p, device);
    return row ? row->step : 0;
}

/* The hottest of the devices that a plan uses. */
static const struct heat_row *row_of_plan(const struct pool *p, const struct admission *a)
{
    const struct heat_row *worst = NULL;
    for (uint32_t k = 0; k < a->plan.n_used; k++) {
        const struct heat_row *row = row_of(p, a->machine.devices[a->plan.used[k]].name);
        if (row && row->step > (worst ? worst->step : 0))
            worst = row;
    }
    return worst;
}

/* Asks for less of a device that is hot and was chosen all the same. False: there is nothing to ask for. */
static bool ask_less(const struct pool *p, const struct heat_row *row, const struct plan *plan,
                     struct plan_policy *policy)
{
    bool less = false;
    if (steps[row->step].ubatch && policy->ubatch == 0 &&
        plan->estimate.params.ubatch > steps[row->step].ubatch) {
        policy->ubatch = steps[row->step].ubatch;
        less = true;
    }
    if (steps[row->step].on_host && !policy->gpu_layers_fixed && policy->allow_cpu &&
        plan->estimate.layers_gpu > 1 && pool_heat_step(p, "Host") == 0) {
        uint32_t all = plan->estimate.layers_gpu + plan->estimate.layers_cpu, rest = all - all / 4;
        if (plan->estimate.layers_gpu > rest) {
            policy->gpu_layers = (int32_t)rest;
            policy->gpu_layers_fixed = true;
            less = true;
        }
    }
    return less;
}

static void say_less(const struct heat_row *row, const struct plan_policy *asked,
                     const struct plan_policy *less, struct plan *plan)
{
    if (plan->n_reasons >= PLAN_MAX_REASONS)
        return;
    char layers[64] = "";
    if (less->gpu_layers_fixed && !asked->gpu_layers_fixed)
        snprintf(layers, sizeof layers, "%u of %u layers on the CPU", plan->estimate.layers_cpu,
                 plan->estimate.layers_gpu + plan->estimate.layers_cpu);
    bool batch = less->ubatch != asked->ubatch;
    char batches[64] = "";
    if (batch)
        snprintf(batches, sizeof batches, "micro-batches of %u tokens", less->ubatch);
    reason_set(&plan->reasons[plan->n_reasons++], "heat_less", "%s is at %u °C (critical from %u): %s%s%s",
               row->now.device, row->now.celsius, row->now.critical_c, batches,
               batch && layers[0] ? ", " : "", layers);
}

enum admit heat_admit(struct entry *e, const struct plan_policy *policy, struct admission *a, struct err *err)
{
    enum admit answer = admit_try(e, policy, a, err);
    const struct heat_row *row = answer == ADMIT_GO ? row_of_plan(e->pool, a) : NULL;
    struct plan_policy less = *policy;
    if (!row || !ask_less(e->pool, row, &a->plan, &less))
        return answer;
    struct admission *b = mem_new(struct admission);
    struct err ignored;
    if (admit_try(e, &less, b, &ignored) == ADMIT_GO && b->n_victims <= a->n_victims &&
        b->plan.smaller == a->plan.smaller) {
        *a = *b;
        say_less(row, policy, &less, &a->plan);
    }
    free(b);
    return answer;
}

/* ---- steps ---- */

static void tell(struct pool_instance *i, const struct heat_row *row, bool down)
{
    struct plan_reason r;
    uint32_t slots = i->plan.estimate.params.parallel, at_once = heat_slots(i);
    const struct heat_row *worst = heat_of(i);
    char where[80], gap[64] = "";
    if (down)
        snprintf(where, sizeof where, "%s is at %u °C, critical from %u", row->now.device, row->now.celsius,
                 row->now.critical_c);
    else
        snprintf(where, sizeof where, "%s has cooled to %u °C", row->now.device, row->now.celsius);
    if (worst && steps[worst->step].gap_ms)
        snprintf(gap, sizeof gap, ", each at least %u ms after the one before", steps[worst->step].gap_ms);
    if (!worst)
        reason_set(&r, "heat_over", "%s: it takes all its %u requests at a time again", where, slots);
    else
        reason_set(&r, "heat_step", "%s: step %u of %d, at most %u of its %u requests at a time%s", where,
                   row->step, HEAT_STEPS, at_once, slots, gap);
    struct plan_reason why = i->why; /* that it is in its state has nothing to do with this */
    decide(i->pool, down ? "heat" : "cool", NULL, i, &r, 1, NULL, 0);
    i->why = why;
}

static struct heat_row *take(struct pool *p, const struct pool_device_heat *now)
{
    size_t k = index_of(p, now->device);
    if (k == HEAT_MAX_DEVICES)
        return NULL;
    p->heat.n += k == p->heat.n;
    p->heat.rows[k].now = *now;
    return &p->heat.rows[k];
}

void pool_heat(struct pool *p, const struct pool_device_heat *list, size_t n)
{
    uint64_t now = p->deps.now_ms();
    for (size_t k = 0; k < n; k++) {
        struct heat_row *row = take(p, &list[k]);
        unsigned next = row ? heat_next(row, p->opt.heat_dwell_ms, now) : 0;
        if (!row || next == row->step)
            continue;
        bool down = next > row->step;
        row->step = next;
        row->moved_ms = now;
        p->count.heat_steps += down;
        for (struct pool_instance *i = p->instances; i; i = i->next)
            if ((i->state == POOL_READY || i->state == POOL_STARTING) && computes_on(i, row->now.device))
                tell(i, row, down);
        pool_kick(p); /* who waits may have a turn, or must be looked at from now on */
    }
}
