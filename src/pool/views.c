/* JSON, counters, decisions: see pool.h. */
#include "pool/pool_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void reason_set(struct plan_reason *r, const char *code, const char *fmt, ...)
{
    va_list ap;
    r->code = code;
    va_start(ap, fmt);
    vsnprintf(r->text, sizeof r->text, fmt, ap);
    va_end(ap);
}

static void hand_out(struct pool *p, struct pool_decision *d)
{
    d->wall_ms = p->deps.wall_ms();
    if (p->opt.hooks.decision)
        p->opt.hooks.decision(p->opt.hooks.arg, d);
}

void decide(struct pool *p, const char *kind, const struct entry *e, struct pool_instance *i,
            const struct plan_reason *reasons, size_t n, const struct plan *plan, double seconds)
{
    if (i && n > 0)
        i->why = reasons[0];
    hand_out(p, &(struct pool_decision){.kind = kind,
                                        .model = i   ? i->model
                                                 : e ? e->id
                                                     : "",
                                        .instance = i ? i->id : "",
                                        .reasons = reasons,
                                        .n_reasons = n,
                                        .plan = plan,
                                        .seconds = seconds});
}

void decide_for(struct pool *p, const char *kind, struct pool_instance *i, const struct plan_reason *reason,
                const char *other)
{
    i->why = *reason;
    hand_out(p, &(struct pool_decision){.kind = kind,
                                        .model = i->model,
                                        .instance = i->id,
                                        .reasons = reason,
                                        .n_reasons = 1,
                                        .other = other});
}

/* ---- JSON ---- */

static void add_parts(yyjson_mut_doc *doc, yyjson_mut_val *list, const struct pool_instance *i)
{
    const struct plan_estimate *e = &i->plan.estimate;
    for (size_t k = 0; k < e->n_parts; k++) {
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, list);
        json_add_str(doc, o, "name", str_from(e->parts[k].name));
        yyjson_mut_obj_add_uint(doc, o, "predicted_bytes", plan_part_total(&e->parts[k]));
        yyjson_mut_obj_add_uint(doc, o, "model_bytes", e->parts[k].model_bytes);
        yyjson_mut_obj_add_uint(doc, o, "context_bytes", e->parts[k].context_bytes);
        yyjson_mut_obj_add_uint(doc, o, "compute_bytes", e->parts[k].compute_bytes);
        yyjson_mut_obj_add_uint(doc, o, "overhead_bytes", e->parts[k].overhead_bytes);
        yyjson_mut_obj_add_uint(doc, o, "overhead_spread_bytes", e->parts[k].overhead_spread_bytes);
        yyjson_mut_obj_add_uint(doc, o, "overhead_loads", e->parts[k].overhead_loads);
        if (k < i->plan.n_used && i->driver_bytes[k])
            yyjson_mut_obj_add_uint(doc, o, "driver_bytes", i->driver_bytes[k]);
        else
            yyjson_mut_obj_add_null(doc, o, "driver_bytes");
        const struct plan_part *m = NULL;
        for (size_t j = 0; j < i->measured.n_parts; j++)
            if (strcmp(i->measured.parts[j].name, e->parts[k].name) == 0)
                m = &i->measured.parts[j];
        if (!m || i->ready_ms == 0) {
            yyjson_mut_obj_add_null(doc, o, "measured");
            continue;
        }
        yyjson_mut_val *mo = yyjson_mut_obj_add_obj(doc, o, "measured");
        yyjson_mut_obj_add_uint(doc, mo, "total_bytes", plan_part_total(m));
        yyjson_mut_obj_add_uint(doc, mo, "model_bytes", m->model_bytes);
        yyjson_mut_obj_add_uint(doc, mo, "context_bytes", m->context_bytes);
        yyjson_mut_obj_add_uint(doc, mo, "compute_bytes", m->compute_bytes);
        yyjson_mut_obj_add_uint(doc, mo, "overhead_bytes", m->overhead_bytes);
    }
}

static void add_params(yyjson_mut_doc *doc, yyjson_mut_val *o, const struct plan_params *p)
{
    const struct ggml_type_info *k = ggml_type_info(p->type_k), *v = ggml_type_info(p->type_v);
    yyjson_mut_obj_add_uint(doc, o, "ctx", p->ctx);
    yyjson_mut_obj_add_uint(doc, o, "parallel", p->parallel);
    yyjson_mut_obj_add_bool(doc, o, "kv_unified", p->kv_unified);
    yyjson_mut_obj_add_uint(doc, o, "batch", p->batch);
    yyjson_mut_obj_add_uint(doc, o, "ubatch", p->ubatch);
    yyjson_mut_obj_add_bool(doc, o, "flash_attn", p->flash_attn);
    yyjson_mut_obj_add_str(doc, o, "cache_type_k", k ? k->word : "unknown");
    yyjson_mut_obj_add_str(doc, o, "cache_type_v", v ? v->word : "unknown");
    yyjson_mut_obj_add_int(doc, o, "gpu_layers", p->gpu_layers);
    yyjson_mut_obj_add_uint(doc, o, "n_cpu_moe", p->n_cpu_moe);
    yyjson_mut_obj_add_bool(doc, o, "kv_offload", p->kv_offload);
}

static void add_speed(yyjson_mut_doc *doc, yyjson_mut_val *o, const struct plan_speed *s)
{
    yyjson_mut_obj_add_real(doc, o, "prefill_tps", s->prefill_tps);
    yyjson_mut_obj_add_real(doc, o, "decode_tps", s->decode_tps);
    yyjson_mut_obj_add_real(doc, o, "load_seconds", s->load_seconds);
    yyjson_mut_obj_add_uint(doc, o, "decode_samples", s->decode_samples);
    yyjson_mut_obj_add_uint(doc, o, "prefill_samples", s->prefill_samples);
}

/* retry_in_ms: null = it may be tried at once */
static void add_back_off(yyjson_mut_doc *doc, yyjson_mut_val *o, const struct entry *e)
{
    uint64_t left = e ? backoff_left_ms(e) : 0;
    yyjson_mut_obj_add_uint(doc, o, "failures", e ? e->failures : 0);
    if (left)
        yyjson_mut_obj_add_uint(doc, o, "retry_in_ms", left);
    else
        yyjson_mut_obj_add_null(doc, o, "retry_in_ms");
}

static void add_error(yyjson_mut_doc *doc, yyjson_mut_val *o, const struct err *err)
{
    if (err->code == RC_OK)
        yyjson_mut_obj_add_null(doc, o, "last_error");
    else
        yyjson_mut_obj_add_val(doc, o, "last_error", json_err(doc, err));
}

static void add_heat(yyjson_mut_doc *doc, yyjson_mut_val *o, const struct pool_instance *i)
{
    const struct heat_row *row = heat_of(i);
    if (!row) {
        yyjson_mut_obj_add_null(doc, o, "heat");
        return;
    }
    yyjson_mut_val *heat = yyjson_mut_obj_add_obj(doc, o, "heat");
    yyjson_mut_obj_add_strcpy(doc, heat, "device", row->now.device);
    yyjson_mut_obj_add_uint(doc, heat, "temperature_c", row->now.celsius);
    yyjson_mut_obj_add_uint(doc, heat, "step", row->step);
    yyjson_mut_obj_add_uint(doc, heat, "steps", HEAT_STEPS);
    yyjson_mut_obj_add_uint(doc, heat, "slots_at_once", heat_slots(i));
    yyjson_mut_obj_add_uint(doc, heat, "gap_ms", heat_gap_ms(row->step));
}

/* Use puts it off: while there is any, the whole time is left. */
static uint64_t expires_ms(const struct pool_instance *i, uint64_t now)
{
    uint64_t idle = i->busy || i->state != POOL_READY ? 0 : now - i->last_used_ms;
    return i->keep_ms > idle ? i->keep_ms - idle : 0;
}

static yyjson_mut_val *instance_json(const struct pool_instance *i, yyjson_mut_doc *doc)
{
    const struct pool *p = i->pool;
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    uint64_t now = p->deps.now_ms();
    pid_t pid = i->job ? p->deps.launch->pid(i->job) : 0;
    json_add_str(doc, o, "id", str_from(i->id));
    json_add_str(doc, o, "model", str_from(i->model));
    json_add_str(doc, o, "path", str_from(i->facts && i->facts->path ? i->facts->path : ""));
    yyjson_mut_obj_add_bool(doc, o, "smaller", i->plan.smaller >= 0);
    yyjson_mut_obj_add_str(doc, o, "state", pool_state_word(i->state));
    yyjson_mut_obj_add_uint(doc, o, "pid", (uint64_t)pid);
    yyjson_mut_obj_add_uint(doc, o, "port", i->port);
    yyjson_mut_obj_add_uint(doc, o, "busy", i->busy);
    yyjson_mut_obj_add_uint(doc, o, "slots", i->plan.estimate.params.parallel);
    yyjson_mut_obj_add_uint(doc, o, "slots_in_use", i->slots);
    add_heat(doc, o, i);
    yyjson_mut_obj_add_uint(doc, o, "waiting", i->entry ? wait_count(i->entry) : 0);
    yyjson_mut_obj_add_str(doc, o, "breaker", breaker_state_word(breaker_state(&i->breaker, now)));
    yyjson_mut_obj_add_uint(doc, o, "since_ms", now - i->since_ms);
    yyjson_mut_obj_add_uint(doc, o, "idle_ms", i->busy || i->state != POOL_READY ? 0 : now - i->last_used_ms);
    if (i->keep_ms == UINT64_MAX)
        yyjson_mut_obj_add_null(doc, o, "expires_ms");
    else
        yyjson_mut_obj_add_uint(doc, o, "expires_ms", expires_ms(i, now));
    yyjson_mut_obj_add_bool(doc, o, "pinned", i->entry && i->entry->lead->pinned);
    yyjson_mut_obj_add_bool(doc, o, "adopted", i->adopted);
    yyjson_mut_obj_add_bool(doc, o, "detached", i->written_pid > 0);
    yyjson_mut_obj_add_real(doc, o, "progress", i->progress);
    yyjson_mut_obj_add_real(doc, o, "load_seconds", i->load_seconds);
    yyjson_mut_obj_add_uint(doc, o, "cache_ram_bytes", plan_host_part(&i->plan.estimate)->prompt_cache_bytes);
    yyjson_mut_obj_add_val(doc, o, "kv", kv_instance_json(i, doc));
    add_parts(doc, yyjson_mut_obj_add_arr(doc, o, "devices"), i);
    add_params(doc, yyjson_mut_obj_add_obj(doc, o, "params"), &i->plan.estimate.params);
    yyjson_mut_val *argv = yyjson_mut_obj_add_arr(doc, o, "argv");
    for (size_t k = 0; i->argv && i->argv[k]; k++)
        yyjson_mut_arr_add_strcpy(doc, argv, i->argv[k]);
    add_speed(doc, yyjson_mut_obj_add_obj(doc, o, "speed"), &i->plan.speed);
    yyjson_mut_val *reasons = yyjson_mut_obj_add_arr(doc, o, "reasons");
    for (uint32_t k = 0; k < i->plan.n_reasons; k++) {
        yyjson_mut_val *r = yyjson_mut_arr_add_obj(doc, reasons);
        yyjson_mut_obj_add_strcpy(doc, r, "code", i->plan.reasons[k].code);
        json_add_str(doc, r, "text", str_from(i->plan.reasons[k].text));
    }
    add_error(doc, o, &i->cause);
    add_back_off(doc, o, i->entry);
    if (i->failure == RUNTIME_FAIL_NONE)
        yyjson_mut_obj_add_null(doc, o, "failure");
    else
        yyjson_mut_obj_add_str(doc, o, "failure", runtime_failure_word(i->failure));
    yyjson_mut_obj_add_uint(doc, o, "loads", i->entry ? i->entry->loads : 0);
    if (i->log_path)
        json_add_str(doc, o, "log_path", str_from(i->log_path));
    else
        yyjson_mut_obj_add_null(doc, o, "log_path");
    return o;
}

static int by_instance_id(const void *a, const void *b)
{
    return strcmp((*(const struct pool_instance *const *)a)->id,
                  (*(const struct pool_instance *const *)b)->id);
}

/* Those that views show: not what has stopped and only waits for its handles, nor an attempt that another
 * follows. Free the result. */
static const struct pool_instance **shown(const struct pool *p, size_t *ret_n)
{
    size_t n = 0, k = 0;
    for (const struct pool_instance *i = p->instances; i; i = i->next)
        n++;
    const struct pool_instance **list = mem_calloc(n + 1, sizeof *list);
    for (const struct pool_instance *i = p->instances; i; i = i->next)
        if (i->state != POOL_STOPPED && (i->state != POOL_FAILED || i->entry))
            list[k++] = i;
    qsort(list, k, sizeof *list, by_instance_id);
    *ret_n = k;
    return list;
}

yyjson_mut_val *pool_json(struct pool *p, yyjson_mut_doc *doc)
{
    size_t n;
    const struct pool_instance **list = shown(p, &n);
    yyjson_mut_val *out = yyjson_mut_arr(doc);
    for (size_t k = 0; k < n; k++)
        yyjson_mut_arr_append(out, instance_json(list[k], doc));
    free(list);
    return out;
}

const char *entry_state(const struct entry *lead)
{
    const struct entry *e = lead;
    for (const struct entry *s = lead; s; s = s->twin)
        if (s->current && (!e->current || s->current->state > e->current->state))
            e = s;
    if (e->current)
        return pool_state_word(e->current->state);
    if (e->demand == DEMAND_PREPARING || e->demand == DEMAND_BLOCKED)
        return pool_state_word(POOL_PLANNED);
    return e->record || e->cause.code != RC_OK ? pool_state_word(POOL_FAILED) : "unloaded";
}

static yyjson_mut_val *bands_json(const struct entry *e, yyjson_mut_doc *doc)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    for (int b = 0; b < LINE_BANDS; b++)
        yyjson_mut_obj_add_uint(doc, o, line_band_word((enum line_band)b),
                                line_band_length(e->line, (enum line_band)b));
    return o;
}

yyjson_mut_val *pool_models_json(struct pool *p, yyjson_mut_doc *doc)
{
    yyjson_mut_val *out = yyjson_mut_arr(doc);
    for (size_t k = 0; k < p->n_entries; k++) {
        const struct entry *e = p->entries[k];
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, out);
        json_add_str(doc, o, "id", str_from(e->id));
        yyjson_mut_val *aliases = yyjson_mut_obj_add_arr(doc, o, "aliases");
        for (size_t a = 0; a < e->n_aliases; a++)
            yyjson_mut_arr_add_strcpy(doc, aliases, e->aliases[a]);
        json_add_str(doc, o, "path", str_from(e->path));
        yyjson_mut_obj_add_str(doc, o, "state", entry_state(e));
        yyjson_mut_obj_add_bool(doc, o, "pinned", e->pinned);
        uint64_t loads = 0;
        for (const struct entry *s = e; s; s = s->twin)
            loads += s->loads;
        yyjson_mut_obj_add_uint(doc, o, "waiting", wait_count(e));
        yyjson_mut_obj_add_val(doc, o, "waiting_by_band", bands_json(e, doc));
        yyjson_mut_obj_add_uint(doc, o, "service_ms", e->service_us / 1000);
        yyjson_mut_obj_add_uint(doc, o, "loads", loads);
        add_error(doc, o, &e->cause);
        add_back_off(doc, o, e);
    }
    return out;
}

/* ---- figures ---- */

void pool_counters(const struct pool *p, struct pool_counters *ret)
{
    *ret = p->count;
    for (const struct pool_instance *i = p->instances; i; i = i->next) {
        ret->instances[i->state]++;
        ret->leases += i->busy;
    }
    ret->waiting = p->n_waiting;
    kv_count(p, ret);
    for (size_t k = 0; p->n_waiting > 0 && k < p->n_entries; k++)
        for (int b = 0; b < LINE_BANDS; b++)
            ret->waiting_in[b] += (uint32_t)line_band_length(p->entries[k]->line, (enum line_band)b);
}

void pool_each(const struct pool *p, void (*fn)(void *arg, const struct pool_view *v), void *arg)
{
    size_t n;
    const struct pool_instance **list = shown(p, &n);
    uint64_t now = p->deps.now_ms();
    for (size_t k = 0; k < n; k++) {
        const struct pool_view v = {.instance = list[k]->id,
                                    .model = list[k]->model,
                                    .state = list[k]->state,
                                    .busy = list[k]->busy,
                                    .slots = list[k]->plan.estimate.params.parallel,
                                    .at_once = heat_slots(list[k]),
                                    .breaker = breaker_state_word(breaker_state(&list[k]->breaker, now)),
                                    .plan = &list[k]->plan};
        fn(arg, &v);
    }
    free(list);
}

enum rc pool_log(struct pool *p, struct str name, struct str *ret_tail, struct err *err)
{
    struct entry *e = entry_find(p, name);
    const struct pool_instance *newest = NULL;
    for (const struct pool_instance *i = p->instances; i; i = i->next)
        if (e ? strcmp(i->model, e->id) == 0 : str_eq_c(name, i->id))
            newest = i;
    if (newest && newest->job) {
        *ret_tail = p->deps.launch->log_tail(newest->job);
        return RC_OK;
    }
    if (newest && newest->log_tail) {
        *ret_tail = str_from(newest->log_tail);
        return RC_OK;
    }
    if (e && e->last_log) {
        *ret_tail = str_from(e->last_log);
        return RC_OK;
    }
    if (!e && !newest)
        return entry_unknown(p, name, err);
    enum rc rc = err_set(err, RC_NOT_FOUND, "%.*s has no log yet", STR_ARG(name));
    err_hint(err, "it has one from its first load on");
    return rc;
}

const char *pool_resolve(const struct pool *p, struct str model)
{
    const struct entry *e = entry_find(p, model);
    return e ? e->id : NULL;
}
