/* Is there room, and who would have to leave? See pool_priv.h.
 *
 * The machine that a load sees is the latest inventory, corrected twice. Downward by what own instances will
 * take or have taken and the sample does not show: loads younger than the sample, weights in the page cache
 * (which the kernel calls available), KV that is not yet touched. Upward by instances that ended after the
 * sample. Own reservations are also counted by themselves, against the device's size and the budget, so that
 * predictions never add up to more than there is.
 *
 * Several loads may make room at a time: who leaves for one is promised to it, so that a load whose victims
 * are still there takes only what they do not bring (claim_on).
 *
 * Who waits longer than the patience goes before all that would take of what it needs: they wait as well,
 * whoever comes first. So its wait ends when what is loading there is loaded and has had its term. */
#include "pool/pool_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define DEFAULT_RESERVE (8000ull * 1000 * 1000)

/* Software renderers call themselves GPUs; a plan for them would be slower than the CPU's. One that a model
 * is pinned to by name is used all the same. */
static const char *const no_gpu[] = {"llvmpipe", "softpipe", "SwiftShader", "lavapipe"};

uint64_t reserve_on(const struct reserve *r, const char *key)
{
    for (size_t i = 0; i < r->n; i++)
        if (strcmp(r->rows[i].key, key) == 0)
            return r->rows[i].bytes;
    return 0;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

const char *device_key(const struct plan_device *d)
{
    return d->uuid[0] ? d->uuid : d->name;
}

static uint64_t budget_of(const struct pool *p, const char *device)
{
    for (size_t i = 0; i < p->opt.n_budgets; i++)
        if (strcmp(p->opt.budgets[i].device, device) == 0)
            return p->opt.budgets[i].bytes;
    return UINT64_MAX;
}

bool admit_is_settled(const struct pool_instance *i, const struct hw_inventory *inv)
{
    return i->ready_ms > 0 && i->ready_ms < inv->begun_ms;
}

bool admit_is_shown_still(const struct gone *g, const struct hw_inventory *inv)
{
    return g->ended_ms > inv->ended_ms && g->ready_ms < inv->begun_ms;
}

/* ---- GPUs ---- */

/* The inventory's device behind the k-th device of the runtime: by name, else by what it is called. */
static const struct hw_device *find_device(const struct runtime_caps *caps, size_t k,
                                           const struct hw_inventory *inv)
{
    for (size_t i = 0; i < inv->n_devices; i++)
        if (strcmp(inv->devices[i].name, caps->devices[k].name) == 0)
            return &inv->devices[i];
    size_t twins = 0; /* of the same description before this one */
    for (size_t i = 0; i < k; i++)
        twins += strcmp(caps->devices[i].description, caps->devices[k].description) == 0;
    for (size_t i = 0; i < inv->n_devices; i++)
        if (inv->devices[i].model[0] && strstr(caps->devices[k].description, inv->devices[i].model) &&
            twins-- == 0)
            return &inv->devices[i];
    return NULL;
}

static bool is_software(const char *description)
{
    for (size_t i = 0; i < TABLE_COUNT(no_gpu); i++)
        if (strstr(description, no_gpu[i]))
            return true;
    return false;
}

/* What it takes beyond what those bring that leave for it; key NULL = of the host. */
static uint64_t claim_on(const struct pool_instance *i, const char *key)
{
    uint64_t bytes = key ? reserve_on(&i->reserve, key) : i->reserve.host_bytes;
    if (i->state != POOL_PLANNED)
        return bytes;
    for (const struct pool_instance *v = i->pool->instances; v; v = v->next)
        if (v->room_for == i && instance_holds_memory(v))
            bytes = minus(bytes, key ? reserve_on(&v->reserve, key) : v->reserve.host_bytes);
    return bytes;
}

static uint64_t device_free(struct pool *p, const struct plan_device *d, uint64_t live, bool sampled,
                            const struct hw_inventory *inv)
{
    const char *key = device_key(d);
    uint64_t own = 0, unseen = 0;
    for (const struct pool_instance *i = p->instances; i; i = i->next) {
        if (!instance_holds_memory(i))
            continue;
        uint64_t bytes = claim_on(i, key);
        own += bytes;
        if (!sampled || !admit_is_settled(i, inv))
            unseen += bytes;
    }
    for (size_t g = 0; sampled && g < TABLE_COUNT(p->gone); g++)
        if (admit_is_shown_still(&p->gone[g], inv))
            live += reserve_on(&p->gone[g].freed, key);
    uint64_t cap = budget_of(p, d->name);
    cap = minus(cap < d->total_bytes ? cap : d->total_bytes, own);
    live = minus(live, unseen);
    return live < cap ? live : cap;
}

static void add_device(struct pool *p, const struct runtime_caps *caps, size_t k, const char *wanted,
                       const struct hw_inventory *inv, struct plan_machine *m)
{
    const struct hw_device *hw = find_device(caps, k, inv);
    bool asked = wanted && strcmp(wanted, caps->devices[k].name) == 0;
    if ((is_software(caps->devices[k].description) && !asked) || (hw && hw->lost) ||
        m->n_devices == PLAN_MAX_DEVICES)
        return;
    bool sampled = hw && (hw->valid & HW_MEMORY);
    uint64_t total = sampled ? hw->total_bytes : caps->devices[k].total_bytes;
    uint64_t live = sampled ? hw->free_bytes : caps->devices[k].free_bytes;
    struct plan_device *d = &m->devices[m->n_devices++];
    plan_device_named(d, str_from(caps->devices[k].name), total, live);
    if (hw && (hw->valid & HW_UUID))
        snprintf(d->uuid, sizeof d->uuid, "%s", hw->uuid);
    if (hw)
        snprintf(d->model, sizeof d->model, "%s", hw->model);
    if (hw && (hw->valid & HW_BANDWIDTH))
        d->bandwidth_gbps = hw->bandwidth_gbps;
    d->free_bytes = device_free(p, d, live, sampled, inv);
}

/* ---- RPC workers ---- */

#define WORKER_LEAVE_MS 3000 /* a worker notices within this that its client has left */

/* Of any device of the worker. */
static bool reserves_worker(const struct reserve *r, struct str endpoint)
{
    for (size_t i = 0; i < r->n; i++) {
        struct str key = str_from(r->rows[i].key);
        if (str_eq(str_cut(&key, '/'), endpoint))
            return true;
    }
    return false;
}

/* A worker serves one client at a time: one that serves us or another has no room, however much is free. */
static bool is_taken(struct pool *p, struct str endpoint, const struct hw_device *hw,
                     const struct hw_inventory *inv)
{
    bool ours = false;
    for (const struct pool_instance *i = p->instances; i; i = i->next)
        if (instance_holds_memory(i) && reserves_worker(&i->reserve, endpoint))
            return true;
    for (size_t g = 0; g < TABLE_COUNT(p->gone); g++)
        ours |= p->gone[g].ended_ms && p->gone[g].ended_ms + WORKER_LEAVE_MS >= inv->begun_ms &&
                reserves_worker(&p->gone[g].freed, endpoint);
    return hw->in_use && !ours;
}

static void add_workers(struct pool *p, const struct hw_inventory *inv, struct plan_machine *m)
{
    for (size_t k = 0; k < inv->n_devices && m->n_devices < PLAN_MAX_DEVICES; k++) {
        const struct hw_device *hw = &inv->devices[k];
        struct plan_device *d = &m->devices[m->n_devices];
        if (hw->lost || !(hw->valid & HW_MEMORY) || !(hw->valid & HW_UUID))
            continue;
        plan_device_named(d, str_from(hw->name), hw->total_bytes, hw->free_bytes);
        snprintf(d->uuid, sizeof d->uuid, "%s", hw->uuid);
        if (!runtime_is_worker(d))
            continue;
        snprintf(d->model, sizeof d->model, "%s", hw->model); /* its address: what it teaches is its own */
        uint64_t budget = budget_of(p, d->name);
        d->free_bytes = is_taken(p, runtime_worker_endpoint(d), hw, inv) ? 0
                        : hw->free_bytes < budget                        ? hw->free_bytes
                                                                         : budget;
        m->n_devices++;
    }
}

/* ---- the host ---- */

static uint64_t host_unseen(const struct pool_instance *i, const struct hw_inventory *inv)
{
    uint64_t anon;
    const struct launch_job *job = i->job;
    if (!admit_is_settled(i, inv))
        return claim_on(i, NULL);
    pid_t pid = job ? i->pool->deps.launch->pid(job) : 0;
    if (pid > 0 && i->pool->deps.anon_bytes(pid, &anon))
        return minus(i->reserve.host_bytes, anon);
    return i->reserve.host_mapped_bytes;
}

uint64_t admit_host_reserve(const struct pool *p, const struct hw_inventory *inv)
{
    uint64_t eighth = inv->host.usable_total_bytes / 8;
    if (p->opt.host_reserve_bytes != UINT64_MAX)
        return p->opt.host_reserve_bytes;
    return eighth < DEFAULT_RESERVE ? eighth : DEFAULT_RESERVE;
}

static void host_view(struct pool *p, const struct hw_inventory *inv, struct plan_host *h)
{
    const struct hw_host *hw = &inv->host;
    uint64_t reserve = admit_host_reserve(p, inv);
    uint64_t own = 0, live = hw->usable_free_bytes, unseen = reserve;
    for (const struct pool_instance *i = p->instances; i; i = i->next)
        if (instance_holds_memory(i)) {
            own += claim_on(i, NULL);
            unseen += host_unseen(i, inv);
        }
    for (size_t g = 0; g < TABLE_COUNT(p->gone); g++)
        if (admit_is_shown_still(&p->gone[g], inv))
            live += p->gone[g].freed.host_bytes;
    uint64_t total = minus(hw->usable_total_bytes, reserve), budget = budget_of(p, "Host");
    total = total < budget ? total : budget;
    live = minus(live, unseen);
    h->total_bytes = total;
    h->free_bytes = live < minus(total, own) ? live : minus(total, own);
    h->cores = hw->physical_cores;
    h->bandwidth_gbps = hw->bandwidth_gbps;
    h->disk_gbps = 0;
    snprintf(h->model, sizeof h->model, "%s", hw->model);
}

void admit_machine(struct pool *p, const struct runtime_caps *caps, const char *wanted,
                   struct plan_machine *m)
{
    const struct hw_inventory *inv = p->opt.hooks.inventory(p->opt.hooks.arg);
    memset(m, 0, sizeof *m);
    if (caps && caps->rpc)
        add_workers(p, inv, m);
    for (size_t k = 0; caps && k < caps->n_devices; k++)
        add_device(p, caps, k, wanted, inv, m);
    host_view(p, inv, &m->host);
}

/* ---- what a plan takes ---- */

static void reserve_from(const struct plan *plan, const struct plan_machine *m, struct reserve *r)
{
    *r = (struct reserve){0};
    const struct plan_estimate *e = &plan->estimate;
    for (size_t k = 0; k < e->n_parts; k++) {
        const struct plan_part *part = &e->parts[k];
        if (part->kind == PLAN_HOST) {
            r->host_bytes += plan_part_total(part);
            if (e->params.mmap)
                r->host_mapped_bytes += minus(part->model_bytes, part->repack_bytes);
            continue;
        }
        for (size_t d = 0; d < m->n_devices && r->n < PLAN_MAX_DEVICES; d++) {
            if (strcmp(m->devices[d].name, part->name) != 0)
                continue;
            struct reserve_row *row = &r->rows[r->n++];
            snprintf(row->key, sizeof row->key, "%s", device_key(&m->devices[d]));
            snprintf(row->name, sizeof row->name, "%s", part->name);
            row->bytes = plan_part_total(part);
            /* the whole of a worker: its end frees all of it */
            if (runtime_is_worker(&m->devices[d]) && row->bytes < m->devices[d].free_bytes)
                row->bytes = m->devices[d].free_bytes;
        }
    }
    r->host_bytes += plan_host_later_bytes(e);
}

static uint64_t host_part_bytes(const struct plan *plan)
{
    for (size_t k = 0; k < plan->estimate.n_parts; k++)
        if (plan->estimate.parts[k].kind == PLAN_HOST)
            return plan_part_total(&plan->estimate.parts[k]);
    return 0;
}

/* ---- residents and victims ---- */

/* Who may leave: nobody; who is idle; who has had its term, if it is not pinned; … in the end. */
enum view { VIEW_NOBODY, VIEW_IDLE, VIEW_TURN, VIEW_ALL_BUT_PINNED, VIEW_ALL };

struct residents {
    struct plan_resident rows[PLAN_MAX_RESIDENTS];
    struct pool_instance *instance[PLAN_MAX_RESIDENTS];
    size_t n;
};

static bool is_pinned(const struct pool_instance *i)
{
    return i->entry && i->entry->lead->pinned;
}

/* Instances of one model never make room for each other. */
static bool is_evictable(const struct entry *e, const struct pool_instance *i, enum view view)
{
    if (i->entry && i->entry != e && i->entry->lead == e->lead)
        return false;
    if (i->state == POOL_DRAINING) /* it leaves anyway, but what it leaves may be promised for now */
        return i->room_for == NULL || view == VIEW_ALL || view == VIEW_ALL_BUT_PINNED;
    if (view == VIEW_ALL || is_pinned(i))
        return view == VIEW_ALL;
    bool ready = i->state == POOL_READY; /* a load is never broken off for another */
    switch (view) {
    case VIEW_IDLE: return ready && i->busy == 0 && !i->suspect && !residence_keeps_idle(i);
    case VIEW_TURN: return ready && (i->busy == 0 || residence_left_ms(i) == 0);
    default: return view == VIEW_ALL_BUT_PINNED;
    }
}

void admit_resident(const struct pool_instance *i, struct plan_resident *row)
{
    bool leaving = i->state == POOL_DRAINING;
    uint64_t idle_ms = i->busy ? 0 : i->pool->deps.now_ms() - i->last_used_ms;
    if (i->entry)
        row->wanted = reuse_chance(&i->entry->lead->reuse, (double)idle_ms / 1000);
    row->idle_ms = leaving ? UINT64_MAX / 2 : idle_ms;
    row->reload_seconds = leaving ? 0 : i->load_seconds > 0 ? i->load_seconds : i->plan.speed.load_seconds;
    row->priority = leaving ? -1000000 : i->entry ? i->entry->priority : 0;
}

static void residents_of(const struct entry *e, const struct plan_machine *m, enum view view,
                         struct residents *r)
{
    struct pool *p = e->pool;
    r->n = 0;
    for (struct pool_instance *i = p->instances; i && r->n < PLAN_MAX_RESIDENTS; i = i->next) {
        if (!instance_holds_memory(i) || view == VIEW_NOBODY)
            continue;
        struct plan_resident *row = &r->rows[r->n];
        *row = (struct plan_resident){.id = i->id, .evictable = is_evictable(e, i, view)};
        for (size_t d = 0; d < m->n_devices; d++)
            row->device_bytes[d] = claim_on(i, device_key(&m->devices[d]));
        row->host_bytes = claim_on(i, NULL);
        admit_resident(i, row);
        r->instance[r->n++] = i;
    }
}

struct question {
    struct entry *e;
    struct plan_policy policy;
    struct plan_params base; /* of the policy, where the model brings files along */
    struct plan_extras extras;
    struct plan_machine machine;
    struct residents residents;
    struct plan_victims victims;
};

static enum rc ask(struct question *q, enum view view, struct plan *ret_plan, struct err *err)
{
    residents_of(q->e, &q->machine, view, &q->residents);
    q->victims.n = 0;
    return q->e->pool->deps.pack(q->e->facts, &q->policy, &q->machine, q->residents.rows, q->residents.n,
                                 ret_plan, &q->victims, err);
}

static void take(struct question *q, struct admission *a, bool patience)
{
    uint64_t left = q->machine.host.free_bytes;
    a->n_victims = q->victims.n;
    a->patience = patience;
    for (uint32_t k = 0; k < q->victims.n; k++) {
        a->victims[k] = q->residents.instance[q->victims.index[k]];
        left += q->residents.rows[q->victims.index[k]].host_bytes;
    }
    left = minus(left, host_part_bytes(&a->plan));
    plan_host_bounds(&a->plan.estimate, left);
    reserve_from(&a->plan, &q->machine, &a->reserve);
}

/* Two loads need the same device, or both the host alone. */
static bool meet(const struct reserve *x, const struct reserve *y)
{
    for (size_t k = 0; k < x->n; k++)
        if (reserve_on(y, x->rows[k].key) > 0)
            return true;
    return x->n == 0 && y->n == 0;
}

/* Another load that waited too long and comes before this one; NULL = none. */
static const struct entry *turn_of_another(const struct entry *e, const struct reserve *r)
{
    for (const struct entry *o = e->pool->blocked_first; o && o != e; o = o->next_blocked)
        if (load_time_is_up(o) && meet(&o->wants, r))
            return o;
    return NULL;
}

static void name_instances(const struct pool *p, bool pinned, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = '\0';
    for (const struct pool_instance *i = p->instances; i; i = i->next) {
        if (!instance_holds_memory(i) || (pinned && !is_pinned(i)) || n + 1 >= cap)
            continue;
        int w = snprintf(out + n, cap - n, "%s%s", n ? ", " : "", i->model);
        n += w > 0 ? (size_t)w : 0;
    }
}

static enum admit wait_for_others(const struct entry *e, struct err *err)
{
    char who[200];
    name_instances(e->pool, false, who, sizeof who);
    (void)err_set(err, RC_BUSY, "%s waits for memory that models in use, loading or just loaded hold: %s",
                  e->id, who);
    return ADMIT_WAIT;
}

/* There is room, or will be: it is taken unless it is the turn of another, who waited longer than it should.
 */
static enum admit go(struct question *q, struct admission *a, bool patience, struct err *err)
{
    take(q, a, patience);
    const struct entry *other = turn_of_another(q->e, &a->reserve);
    if (!other)
        return ADMIT_GO;
    (void)err_set(err, seats_is_extra(q->e) ? RC_NO_FIT : RC_BUSY,
                  "%s waits: what it needs is for %s, which has waited longer", q->e->id, other->id);
    return seats_is_extra(q->e) ? ADMIT_REFUSE : ADMIT_WAIT;
}

/* Nothing that the pool can do makes room: why, for people. */
static enum admit refuse(struct question *q, struct err *err)
{
    struct plan *other = mem_new(struct plan);
    struct err why;
    char who[160];
    if (ask(q, VIEW_ALL, other, &why) == RC_OK) {
        name_instances(q->e->pool, true, who, sizeof who);
        err_prefix(err, "pinned models (%s) leave no room", who);
        err_hint(err, "unpin or unload one of them, or give this model less context");
    } else if (!err->hint[0]) {
        err_hint(err, "shorten the context, use a smaller quantisation, or raise the budget (arriero plan "
                      "tells what is "
                      "short)");
    }
    free(other);
    return ADMIT_REFUSE;
}

/* Takes the devices that other instances of the model use out of the question; false if there are none, or no
 * others. */
static bool leave_out_siblings(struct question *q)
{
    bool used = false, left = false;
    for (size_t d = 0; d < q->machine.n_devices; d++) {
        struct plan_device *device = &q->machine.devices[d];
        uint64_t bytes = 0;
        for (const struct entry *s = q->e->lead; s; s = s->twin)
            if (s != q->e && s->current)
                bytes += reserve_on(&s->current->reserve, device_key(device));
        used |= bytes > 0;
        left |= bytes == 0 && device->free_bytes > 0;
        if (bytes > 0)
            device->free_bytes = 0;
    }
    return used && left;
}

/* A further instance of a model goes to devices of its own, if they hold all of it. */
static bool goes_apart(struct question *q, struct admission *a)
{
    struct err err;
    uint64_t free_bytes[PLAN_MAX_DEVICES] = {0};
    for (size_t d = 0; d < q->machine.n_devices; d++)
        free_bytes[d] = q->machine.devices[d].free_bytes;
    bool apart = q->e->lead->twin && leave_out_siblings(q) && ask(q, VIEW_NOBODY, &a->plan, &err) == RC_OK &&
                 a->plan.smaller == PLAN_AS_ASKED && a->plan.n_used > 0 && a->plan.estimate.layers_cpu == 0;
    for (size_t d = 0; d < q->machine.n_devices; d++)
        q->machine.devices[d].free_bytes = free_bytes[d];
    return apart;
}

static enum admit answer_of(struct question *q, struct admission *a, struct err *err)
{
    struct entry *e = q->e;
    bool extra = seats_is_extra(e), alone = extra || e->modest; /* nobody leaves for it */
    enum view view = alone ? VIEW_NOBODY : VIEW_IDLE;
    if (goes_apart(q, a))
        return go(q, a, false, err);
    enum rc rc = ask(q, view, &a->plan, err);
    if (rc == RC_OK && a->plan.smaller == PLAN_AS_ASKED)
        return go(q, a, false, err);
    if (extra && rc == RC_OK)
        (void)err_set(err, RC_NO_FIT, "only a smaller file leaves room for one more instance of %s", e->id);
    if (alone || (rc != RC_OK && rc != RC_NO_FIT))
        return ADMIT_REFUSE;
    struct err later;
    struct plan *now = mem_new(struct plan);
    *now = a->plan;
    enum rc patient = ask(q, VIEW_ALL_BUT_PINNED, &a->plan, &later);
    int32_t smaller = a->plan.smaller;
    enum admit answer;
    if (rc == RC_OK && (patient != RC_OK || smaller >= now->smaller)) {
        /* a smaller file takes the place of one that patience would not bring either */
        rc = ask(q, view, &a->plan, err);
        answer = rc == RC_OK ? go(q, a, false, err) : ADMIT_REFUSE;
    } else if (patient != RC_OK) {
        a->plan = *now; /* with what was tried */
        answer = refuse(q, err);
    } else {
        take(q, a, true);
        *now = a->plan;
        if (load_time_is_up(e) && ask(q, VIEW_TURN, &a->plan, &later) == RC_OK &&
            a->plan.smaller <= smaller) {
            answer = go(q, a, true, err);
        } else {
            a->plan = *now;
            answer = wait_for_others(e, err);
        }
    }
    free(now);
    return answer;
}

enum admit admit_try(struct entry *e, const struct plan_policy *policy, struct admission *a, struct err *err)
{
    struct pool *p = e->pool;
    struct question *q = mem_new(struct question);
    q->e = e;
    q->policy = *policy;
    q->policy.embedding |= e->embedding;
    q->policy.smaller = (const struct model *const *)e->smaller.list;
    q->policy.n_smaller = e->smaller.n;
    if (beside_extras(e->files, &e->beside, &q->extras))
        beside_policy(&q->extras, &q->policy, &q->base);
    admit_machine(p, e->caps ? e->caps : p->default_caps, policy->device, &q->machine);
    lesson_teach(e, e->facts, policy, &q->machine);
    a->machine = q->machine;
    enum admit answer = answer_of(q, a, err);
    a->plan.estimate.params.extras = NULL; /* the question's own */
    free(q);
    return answer;
}

enum rc admit_place_alone(const struct pool_instance *i, struct plan_machine *machine, struct plan *ret_plan,
                          struct reserve *ret_reserve, struct err *err)
{
    const struct entry *e = i->entry;
    struct pool *p = i->pool;
    struct plan_policy policy = e->policy;
    struct plan_params base;
    struct plan_victims nobody = {0};
    policy.embedding |= e->embedding;
    policy.ladder = e->ladder;
    if (e->ctx_floor > policy.ctx_min)
        policy.ctx_min = e->ctx_floor;
    if (i->plan.estimate.params.extras)
        beside_policy(&i->extras, &policy, &base);
    lesson_teach(e, i->facts, &policy, machine);
    enum rc rc = p->deps.pack(i->facts, &policy, machine, NULL, 0, ret_plan, &nobody, err);
    if (rc != RC_OK)
        return rc;
    plan_host_bounds(&ret_plan->estimate, minus(machine->host.free_bytes, host_part_bytes(ret_plan)));
    reserve_from(ret_plan, machine, ret_reserve);
    ret_plan->estimate.params.extras = NULL; /* the question's own */
    return RC_OK;
}
