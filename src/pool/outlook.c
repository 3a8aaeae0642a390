/* When a load that is asked about would be ready, and who leaves for it: see pool_priv.h. Layer pool; loop
 * thread. Times are bounds where there is one: what is in use may be idle sooner. */
#include "pool/pool_priv.h"

#include <math.h>
#include <string.h>

struct outlook {
    const char *answer;
    uint32_t position;              /* among the loads that wait for memory; 1 is next; 0 = it need not */
    double wait_s, drain_s, load_s; /* one after the other; wait_s < 0: nobody can tell */
    double cost_s;                  /* to bring back who leaves */
};

/* Until the instance may be asked to leave though it is in use. */
static double turn_left_s(const struct pool_instance *i)
{
    if (i->state == POOL_READY)
        return (double)residence_left_ms(i) / 1000;
    if (i->state != POOL_PLANNED && i->state != POOL_STARTING)
        return 0;
    double whole = i->plan.speed.load_seconds,
           spent = i->start_ms ? (double)(i->pool->deps.now_ms() - i->start_ms) / 1000 : 0;
    return (whole > spent ? whole - spent : 0) + (double)residence_term_ms(i) / 1000;
}

static uint32_t loads_before(const struct entry *e)
{
    uint32_t n = 0;
    for (const struct entry *o = e->pool->blocked_first; o && o != e; o = o->next_blocked)
        n++;
    return n;
}

static double wait_s(const struct entry *e, const struct admission *a, uint32_t before)
{
    const struct pool *p = e->pool;
    uint64_t patience = p->opt.patience_ms,
             waited = e->demand == DEMAND_BLOCKED ? p->deps.now_ms() - e->blocked_ms : 0;
    if (!patience)
        return -1;
    double wait = waited < patience ? (double)(patience - waited) / 1000 : 0, term = 0;
    for (size_t k = 0; k < a->n_victims; k++) {
        double left = turn_left_s(a->victims[k]), own = (double)residence_term_ms(a->victims[k]) / 1000;
        wait = left > wait ? left : wait;
        term = own > term ? own : term;
    }
    return wait + before * (term + a->plan.speed.load_seconds);
}

static double reload_s(const struct pool_instance *i)
{
    return i->load_seconds > 0 ? i->load_seconds : i->plan.speed.load_seconds;
}

static void look(const struct entry *e, const struct admission *a, enum admit answer, struct outlook *o)
{
    static const char *const words[] = {[ADMIT_GO] = "now", [ADMIT_WAIT] = "later", [ADMIT_REFUSE] = "never"};
    *o = (struct outlook){.answer = words[answer], .load_s = a->plan.speed.load_seconds};
    if (e->lead->current) { /* on its way, or there */
        o->load_s = (double)lease_load_left_ms(e->lead) / 1000;
        o->answer = lease_is_ready(e) ? "ready" : "loading";
        return;
    }
    for (size_t k = 0; answer != ADMIT_REFUSE && k < a->n_victims; k++) {
        const struct pool_instance *v = a->victims[k];
        double drain = v->busy && v->entry ? (double)lease_service_ms(v->entry->lead) / 1000 : 0;
        o->drain_s = drain > o->drain_s ? drain : o->drain_s;
        o->cost_s += v->entry && v->entry != e ? reload_s(v) : 0;
    }
    if (answer != ADMIT_WAIT)
        return;
    uint32_t before = loads_before(e);
    o->position = before + 1;
    o->wait_s = wait_s(e, a, before);
}

static void add_evicted(yyjson_mut_doc *doc, yyjson_mut_val *list, const struct pool_instance *i)
{
    yyjson_mut_val *v = yyjson_mut_arr_add_obj(doc, list);
    uint64_t bytes = i->reserve.host_bytes;
    for (size_t d = 0; d < i->reserve.n; d++)
        bytes += i->reserve.rows[d].bytes;
    json_add_str(doc, v, "instance", str_from(i->id));
    json_add_str(doc, v, "model", str_from(i->model));
    yyjson_mut_obj_add_str(doc, v, "state", pool_state_word(i->state));
    yyjson_mut_obj_add_uint(doc, v, "bytes", bytes);
    yyjson_mut_obj_add_uint(doc, v, "busy", i->busy);
    yyjson_mut_obj_add_uint(doc, v, "idle_ms",
                            i->busy || i->state != POOL_READY ? 0 : i->pool->deps.now_ms() - i->last_used_ms);
    yyjson_mut_obj_add_real(doc, v, "reload_seconds", reload_s(i));
}

static void add_seconds(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key, double s)
{
    if (s < 0)
        yyjson_mut_obj_add_null(doc, o, key);
    else
        yyjson_mut_obj_add_real(doc, o, key, round(s * 1000) / 1000);
}

yyjson_mut_val *outlook_json(const struct entry *e, const struct admission *a, enum admit answer,
                             yyjson_mut_doc *doc)
{
    struct outlook look_out;
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    look(e, a, answer, &look_out);
    bool known = look_out.wait_s >= 0 && strcmp(look_out.answer, "never") != 0;
    yyjson_mut_obj_add_str(doc, o, "answer", look_out.answer);
    yyjson_mut_obj_add_str(doc, o, "state", entry_state(e->lead));
    yyjson_mut_obj_add_uint(doc, o, "waiting", wait_count(e));
    yyjson_mut_obj_add_uint(doc, o, "position", look_out.position);
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(doc, o, "evicts");
    for (size_t k = 0; !e->lead->current && answer != ADMIT_REFUSE && k < a->n_victims; k++)
        add_evicted(doc, list, a->victims[k]);
    add_seconds(doc, o, "cost_seconds", look_out.cost_s);
    add_seconds(doc, o, "wait_seconds", look_out.wait_s);
    add_seconds(doc, o, "drain_seconds", look_out.drain_s);
    add_seconds(doc, o, "load_seconds", look_out.load_s);
    add_seconds(doc, o, "ready_seconds", known ? look_out.wait_s + look_out.drain_s + look_out.load_s : -1);
    yyjson_mut_obj_add_real(doc, o, "file_cached", round(e->file_cached * 1000) / 1000);
    return o;
}
