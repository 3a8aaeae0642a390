/* Which loaded models would be better placed elsewhere, as JSON: see pool.h. Layer pool; loop thread. The
 * question is plan_rebalance's; here the pool's instances are put into its terms, on the machine as a load
 * would see it now. Nothing is moved. */
#include "pool/pool_priv.h"

#include <string.h>

/* Why an instance stays where it is; NULL: it may move. */
static const char *fixed_by(const struct pool_instance *i)
{
    if (i->state != POOL_READY)
        return pool_state_word(i->state);
    if (!i->entry)
        return "replaced";
    if (i->entry->lead->pinned)
        return "pinned";
    if (i->entry->binary)
        return "runtime of its own";
    return i->busy > 0 || i->suspect ? "busy" : NULL;
}

struct row {
    struct pool_instance *instance;
    struct plan plan; /* its devices counted by the machine of today */
    struct plan_policy policy;
    struct plan_params base; /* of the policy, where the model brings files along */
};

struct rows {
    struct row *list[PLAN_MAX_RESIDENTS];
    struct plan_loaded loaded[PLAN_MAX_RESIDENTS];
    size_t n;
    struct plan_machine machine;
    struct plan_delta delta;
};

/* The same devices, where they stand in m. False: one of them is not there any more. */
static bool translate(const struct pool_instance *i, const struct plan_machine *m, struct plan *ret)
{
    *ret = i->plan;
    for (uint32_t k = 0; k < ret->n_used; k++) {
        size_t d = 0;
        const char *key = device_key(&i->machine.devices[i->plan.used[k]]);
        while (d < m->n_devices && strcmp(device_key(&m->devices[d]), key) != 0)
            d++;
        if (d == m->n_devices)
            return false;
        ret->used[k] = (uint32_t)d;
    }
    return true;
}

static void add_instance(struct rows *r, struct pool_instance *i)
{
    struct row *row = mem_new(struct row);
    if (r->n == TABLE_COUNT(r->list) || !i->facts || !translate(i, &r->machine, &row->plan)) {
        free(row);
        return;
    }
    row->instance = i;
    plan_policy_default(&row->policy);
    if (i->entry) {
        row->policy = i->entry->policy;
        row->policy.embedding |= i->entry->embedding;
        if (i->plan.estimate.params.extras)
            beside_policy(&i->extras, &row->policy, &row->base);
    }
    r->loaded[r->n] = (struct plan_loaded){.m = i->facts,
                                           .policy = &row->policy,
                                           .plan = &row->plan,
                                           .use = (double)i->leases,
                                           .movable = !fixed_by(i)};
    r->list[r->n++] = row;
}

/* Shares; without any request yet all models are alike. */
static void share_use(struct rows *r)
{
    double sum = 0;
    for (size_t i = 0; i < r->n; i++)
        sum += r->loaded[i].use;
    for (size_t i = 0; i < r->n; i++)
        r->loaded[i].use = sum > 0 ? r->loaded[i].use / sum : 1.0 / (double)r->n;
}

static void put_place(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *member,
                      const struct plan_machine *m, const uint32_t *used, uint32_t n, uint32_t layers_gpu,
                      uint32_t n_cpu_moe, double tps)
{
    yyjson_mut_val *place = yyjson_mut_obj_add_obj(doc, o, member);
    yyjson_mut_val *devices = yyjson_mut_obj_add_arr(doc, place, "devices");
    for (uint32_t k = 0; k < n; k++)
        yyjson_mut_arr_add_strcpy(doc, devices, m->devices[used[k]].name);
    yyjson_mut_obj_add_uint(doc, place, "layers_gpu", layers_gpu);
    yyjson_mut_obj_add_uint(doc, place, "n_cpu_moe", n_cpu_moe);
    yyjson_mut_obj_add_real(doc, place, "decode_tps", tps);
}

static void put_move(yyjson_mut_doc *doc, yyjson_mut_val *list, const struct rows *r,
                     const struct plan_move *move)
{
    const struct row *row = r->list[move->index];
    const struct plan *was = &row->plan;
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, list);
    json_add_str(doc, o, "model", str_from(row->instance->model));
    json_add_str(doc, o, "instance", str_from(row->instance->id));
    put_place(doc, o, "from", &r->machine, was->used, was->n_used, was->estimate.layers_gpu,
              was->estimate.params.n_cpu_moe, move->tps_before);
    put_place(doc, o, "to", &r->machine, move->used, move->n_used, move->layers_gpu, move->n_cpu_moe,
              move->tps_after);
    yyjson_mut_obj_add_uint(doc, o, "bytes", move->bytes);
    yyjson_mut_obj_add_real(doc, o, "reload_seconds", move->reload_seconds);
}

static yyjson_mut_val *rows_json(yyjson_mut_doc *doc, const struct rows *r)
{
    const struct plan_delta *d = &r->delta;
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_obj_add_uint(doc, o, "loaded", r->n);
    yyjson_mut_val *moves = yyjson_mut_obj_add_arr(doc, o, "moves");
    for (uint32_t i = 0; i < d->n_moves; i++)
        put_move(doc, moves, r, &d->moves[i]);
    yyjson_mut_val *cost = yyjson_mut_obj_add_obj(doc, o, "cost");
    yyjson_mut_obj_add_uint(doc, cost, "bytes", d->moved_bytes);
    yyjson_mut_obj_add_real(doc, cost, "seconds", d->cost_seconds);
    yyjson_mut_val *gain = yyjson_mut_obj_add_obj(doc, o, "gain");
    yyjson_mut_obj_add_real(doc, gain, "decode_tps", d->gain_tps);
    yyjson_mut_obj_add_int(doc, gain, "freed_bytes", d->freed_bytes);
    yyjson_mut_val *fixed = yyjson_mut_obj_add_arr(doc, o, "fixed");
    for (size_t i = 0; i < r->n; i++) {
        const char *why = fixed_by(r->list[i]->instance);
        if (!why)
            continue;
        yyjson_mut_val *f = yyjson_mut_arr_add_obj(doc, fixed);
        json_add_str(doc, f, "model", str_from(r->list[i]->instance->model));
        json_add_str(doc, f, "instance", str_from(r->list[i]->instance->id));
        json_add_str(doc, f, "why", str_from(why));
    }
    return o;
}

yyjson_mut_val *pool_rebalance(struct pool *p, yyjson_mut_doc *doc)
{
    struct rows *r = mem_new(struct rows);
    admit_machine(p, p->default_caps, NULL, &r->machine);
    for (struct pool_instance *i = p->instances; i; i = i->next)
        if (instance_holds_memory(i))
            add_instance(r, i);
    share_use(r);
    p->deps.rebalance(&r->machine, r->loaded, r->n, &r->delta);
    yyjson_mut_val *o = rows_json(doc, r);
    for (size_t i = 0; i < r->n; i++)
        free(r->list[i]);
    free(r);
    return o;
}
