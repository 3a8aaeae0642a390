/* See sim.h. */
#include "sim.h"

#include "base/mem.h"
#include "plan/reuse.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS       4
#define KEEPALIVE_S 300.0
#define NEVER       1e18

struct slot_model {
    struct model *m;
    bool loaded;
    double ready_at, busy_until[SLOTS], last_use;
    struct plan plan;
    uint64_t uses;
    struct reuse reuse;
    double waiting[4096]; /* arrivals of those that wait; the requests follow from first_waiting */
    size_t first_waiting, n_waiting;
    size_t *requests; /* indices into the mix of its own, in order */
    size_t n_requests, next;
};

struct sim {
    enum sim_policy policy;
    const struct plan_machine *machine;
    const struct stream *mix;
    struct plan_policy place;
    struct slot_model models[MIX_MODELS];
    double now;
    double *waits;
    struct sim_result *result;
};

const char *sim_policy_word(enum sim_policy p)
{
    static const char *const words[SIM_POLICIES] = {"ours", "lru", "lfu", "keepalive", "belady"};
    return words[p];
}

static double idle_from(const struct slot_model *s)
{
    double t = s->ready_at;
    for (size_t i = 0; i < SLOTS; i++)
        t = s->busy_until[i] > t ? s->busy_until[i] : t;
    return t;
}

/* ---- the choice of victims ---- */

static void take(struct plan_machine *machine, const struct plan *p, int64_t sign)
{
    for (size_t i = 0; i < p->n_used; i++) {
        struct plan_device *d = &machine->devices[p->used[i]];
        d->free_bytes += (uint64_t)sign * plan_part_total(&p->estimate.parts[i]);
    }
    machine->host.free_bytes += (uint64_t)sign * plan_part_total(plan_host_part(&p->estimate));
}

static void occupied(const struct sim *s, uint32_t without, struct plan_machine *ret)
{
    *ret = *s->machine;
    for (uint32_t i = 0; i < MIX_MODELS; i++)
        if (s->models[i].loaded && !(without >> i & 1))
            take(ret, &s->models[i].plan, -1);
}

static bool fits(struct sim *s, uint32_t model, uint32_t without, struct plan *ret)
{
    struct plan_machine machine;
    occupied(s, without, &machine);
    enum rc rc = plan_place(s->models[model].m, &s->place, &machine, ret, NULL);
    if (rc && rc != RC_NO_FIT)
        abort();
    return !rc;
}

static double next_use(const struct sim *s, uint32_t i)
{
    const struct slot_model *m = &s->models[i];
    return m->next < m->n_requests ? s->mix->list[m->requests[m->next]].at : NEVER;
}

/* Least first to leave. */
static double worth(const struct sim *s, uint32_t i)
{
    const struct slot_model *m = &s->models[i];
    switch (s->policy) {
    case SIM_LFU: return (double)m->uses;
    case SIM_BELADY: return -next_use(s, i);
    default: return m->last_use;
    }
}

/* One after the other in the policy's order until it fits; then those that need not leave stay, most worth
 * first. */
static bool choose_ordered(struct sim *s, uint32_t model, uint32_t idle, uint32_t *ret_victims,
                           struct plan *ret)
{
    uint32_t order[MIX_MODELS], n = 0, set = 0;
    for (uint32_t i = 0; i < MIX_MODELS; i++) {
        if (!(idle >> i & 1))
            continue;
        uint32_t at = n++;
        for (; at > 0 && worth(s, order[at - 1]) > worth(s, i); at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    bool ok = fits(s, model, 0, ret);
    for (uint32_t k = 0; k < n && !ok; k++) {
        set |= 1u << order[k];
        ok = fits(s, model, set, ret);
    }
    if (!ok)
        return false;
    for (uint32_t k = n; k-- > 0;)
        if (set >> order[k] & 1 && fits(s, model, set & ~(1u << order[k]), ret))
            set &= ~(1u << order[k]);
    *ret_victims = set;
    return fits(s, model, set, ret);
}

static bool choose_ours(struct sim *s, uint32_t model, uint32_t idle, uint32_t *ret_victims, struct plan *ret)
{
    struct plan_machine machine;
    occupied(s, 0, &machine);
    struct plan_resident residents[MIX_MODELS];
    uint32_t who[MIX_MODELS];
    size_t n = 0;
    for (uint32_t i = 0; i < MIX_MODELS; i++) {
        struct slot_model *m = &s->models[i];
        if (!m->loaded)
            continue;
        residents[n] = (struct plan_resident){.id = "",
                                              .idle_ms = (uint64_t)(fmax(s->now - m->last_use, 0) * 1000),
                                              .reload_seconds = m->plan.speed.load_seconds,
                                              .wanted = reuse_chance(&m->reuse, s->now - m->last_use),
                                              .evictable = idle >> i & 1};
        for (size_t k = 0; k < m->plan.n_used; k++)
            residents[n].device_bytes[m->plan.used[k]] = plan_part_total(&m->plan.estimate.parts[k]);
        residents[n].host_bytes = plan_part_total(plan_host_part(&m->plan.estimate));
        who[n++] = i;
    }
    struct plan_victims v;
    enum rc rc = plan_pack(s->models[model].m, &s->place, &machine, residents, n, ret, &v, NULL);
    if (rc && rc != RC_NO_FIT)
        abort();
    for (uint32_t i = 0; i < v.n && !rc; i++)
        *ret_victims |= 1u << who[v.index[i]];
    return !rc;
}

/* ---- requests ---- */

static void serve(struct sim *s, uint32_t model, const struct mix_request *r)
{
    struct slot_model *m = &s->models[model];
    size_t best = 0;
    for (size_t i = 1; i < SLOTS; i++)
        if (m->busy_until[i] < m->busy_until[best])
            best = i;
    double start = fmax(s->now, m->busy_until[best]);
    m->busy_until[best] =
        start + r->in / m->plan.speed.prefill_tps + r->out / fmax(m->plan.speed.decode_tps, 1);
    m->last_use = idle_from(m);
}

static void load(struct sim *s, uint32_t model, uint32_t victims)
{
    for (uint32_t i = 0; i < MIX_MODELS; i++)
        if (victims >> i & 1)
            s->models[i].loaded = false;
    struct slot_model *m = &s->models[model];
    m->loaded = true;
    m->ready_at = s->now + m->plan.speed.load_seconds;
    m->last_use = m->ready_at;
    memset(m->busy_until, 0, sizeof m->busy_until);
    s->result->cold_starts++;
    s->result->bytes_loaded += m->m->tensor_bytes;
}

static uint32_t idle_set(const struct sim *s)
{
    uint32_t set = 0;
    for (uint32_t i = 0; i < MIX_MODELS; i++)
        if (s->models[i].loaded && idle_from(&s->models[i]) <= s->now && !s->models[i].n_waiting)
            set |= 1u << i;
    return set;
}

/* Those that wait longest are looked at first. */
static void load_what_waits(struct sim *s)
{
    uint32_t tried = 0;
    for (;;) {
        uint32_t model = MIX_MODELS;
        for (uint32_t i = 0; i < MIX_MODELS; i++) {
            const struct slot_model *m = &s->models[i];
            if (!m->loaded && m->n_waiting && !(tried >> i & 1) &&
                (model == MIX_MODELS || m->waiting[0] < s->models[model].waiting[0]))
                model = i;
        }
        if (model == MIX_MODELS)
            return;
        tried |= 1u << model;
        uint32_t victims = 0;
        struct plan *p = &s->models[model].plan;
        if (s->policy == SIM_OURS ? choose_ours(s, model, idle_set(s), &victims, p)
                                  : choose_ordered(s, model, idle_set(s), &victims, p))
            load(s, model, victims);
    }
}

static void release_waiting(struct sim *s, uint32_t model)
{
    struct slot_model *m = &s->models[model];
    for (size_t k = 0; k < m->n_waiting; k++) {
        double waited = s->now - m->waiting[k];
        s->result->waited_s += waited;
        s->waits[s->result->waiting++] = waited;
        serve(s, model, &s->mix->list[m->requests[m->first_waiting + k]]);
    }
    m->n_waiting = 0;
}

static void arrive(struct sim *s, const struct mix_request *r)
{
    struct slot_model *m = &s->models[r->model];
    size_t index = m->next++;
    m->uses++;
    if (m->uses > 1)
        reuse_seen(&m->reuse, fmax(s->now - m->last_use, 0));
    if (m->loaded && m->ready_at <= s->now) {
        serve(s, r->model, r);
        return;
    }
    if (m->n_waiting == sizeof m->waiting / sizeof *m->waiting) {
        fprintf(stderr, "bench_policy: too many requests wait for one model\n");
        exit(1);
    }
    if (m->n_waiting == 0)
        m->first_waiting = index;
    m->waiting[m->n_waiting++] = s->now;
}

/* ---- time ---- */

static void earlier(double *best, double t, double now)
{
    if (t > now && t < *best)
        *best = t;
}

static double next_change(const struct sim *s)
{
    double t = NEVER;
    bool waits = false;
    for (uint32_t i = 0; i < MIX_MODELS; i++)
        waits = waits || (s->models[i].n_waiting && !s->models[i].loaded);
    for (uint32_t i = 0; i < MIX_MODELS; i++) {
        const struct slot_model *m = &s->models[i];
        if (!m->loaded)
            continue;
        earlier(&t, m->ready_at, s->now);
        if (waits)
            earlier(&t, idle_from(m), s->now);
        if (s->policy == SIM_KEEPALIVE)
            earlier(&t, idle_from(m) + KEEPALIVE_S, s->now);
    }
    return t;
}

static void settle(struct sim *s)
{
    for (uint32_t i = 0; i < MIX_MODELS; i++) {
        struct slot_model *m = &s->models[i];
        if (m->loaded && m->ready_at <= s->now && m->n_waiting)
            release_waiting(s, i);
        if (s->policy == SIM_KEEPALIVE && m->loaded && idle_from(m) + KEEPALIVE_S <= s->now)
            m->loaded = false;
    }
    load_what_waits(s);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void own_requests(struct sim *s)
{
    for (uint32_t i = 0; i < MIX_MODELS; i++)
        s->models[i].requests = mem_calloc(s->mix->n + 1, sizeof(size_t));
    for (size_t k = 0; k < s->mix->n; k++) {
        struct slot_model *m = &s->models[s->mix->list[k].model];
        m->requests[m->n_requests++] = k;
    }
}

void sim_run(enum sim_policy policy, struct model *const *models, const struct plan_machine *machine,
             const struct stream *mix, struct sim_result *ret)
{
    *ret = (struct sim_result){0};
    struct sim *s = mem_new(struct sim);
    *s = (struct sim){.policy = policy, .machine = machine, .mix = mix, .result = ret};
    plan_policy_default(&s->place);
    s->place.allow_cpu = false;
    s->place.ctx = 8192;
    s->waits = mem_calloc(mix->n + 1, sizeof(double));
    for (uint32_t i = 0; i < MIX_MODELS; i++)
        s->models[i].m = models[i];
    own_requests(s);
    for (size_t k = 0;;) {
        double change = next_change(s), arrival = k < mix->n ? mix->list[k].at : NEVER;
        if (fmin(change, arrival) >= NEVER)
            break;
        s->now = fmin(change, arrival);
        if (arrival <= change)
            arrive(s, &mix->list[k++]);
        settle(s);
    }
    for (uint32_t i = 0; i < MIX_MODELS; i++) {
        if (s->models[i].n_waiting) {
            fprintf(stderr, "bench_policy: a model never fits the machine\n");
            exit(1);
        }
        free(s->models[i].requests);
    }
    qsort(s->waits, ret->waiting, sizeof *s->waits, by_value);
    size_t most = mix->n / 100; /* so many may wait longer; those that did not wait at all are shorter */
    ret->waited_p99 = ret->waiting > most ? s->waits[ret->waiting - 1 - most] : 0;
    free(s->waits);
    free(s);
}

/* ---- the bound ---- */

struct stay {
    double area; /* bytes times seconds */
    double worth;
};

static int by_worth(const void *a, const void *b)
{
    const struct stay *x = a, *y = b;
    double u = x->worth * y->area, v = y->worth * x->area;
    return u > v ? -1 : u < v;
}

static double kept(struct stay *stays, size_t n, double room)
{
    qsort(stays, n, sizeof *stays, by_worth);
    double sum = 0;
    for (size_t i = 0; i < n && room > 0; i++) {
        double share = stays[i].area <= room ? 1 : room / stays[i].area;
        sum += share * stays[i].worth;
        room -= stays[i].area;
    }
    return sum;
}

void sim_bound(const uint64_t *bytes, const uint64_t *file_bytes, uint64_t machine_bytes,
               const struct stream *mix, struct sim_result *ret)
{
    struct stay *counts = mem_calloc(mix->n + 1, sizeof *counts),
                *loads = mem_calloc(mix->n + 1, sizeof *loads);
    double last[MIX_MODELS], all_bytes = 0;
    size_t n = 0;
    for (uint32_t i = 0; i < MIX_MODELS; i++)
        last[i] = -1;
    for (size_t k = 0; k < mix->n; k++) {
        const struct mix_request *r = &mix->list[k];
        all_bytes += (double)file_bytes[r->model];
        if (last[r->model] >= 0) {
            double area = (r->at - last[r->model]) * (double)bytes[r->model];
            counts[n] = (struct stay){.area = area, .worth = 1};
            loads[n++] = (struct stay){.area = area, .worth = (double)file_bytes[r->model]};
        }
        last[r->model] = r->at;
    }
    double room = (double)machine_bytes * mix->end;
    *ret = (struct sim_result){
        .cold_starts = (uint32_t)ceil((double)mix->n - kept(counts, n, room) - 1e-6),
        .bytes_loaded = (uint64_t)fmax(all_bytes - kept(loads, n, room), 0),
    };
    free(counts);
    free(loads);
}
