/* Servers elsewhere, shown: see remote.h. Layer daemon; loop thread. */
#include "daemon/remote_priv.h"

#include "base/clock.h"

static void add_error(yyjson_mut_doc *doc, yyjson_mut_val *o, const struct err *e)
{
    if (!e->message[0]) {
        yyjson_mut_obj_add_null(doc, o, "last_error");
        return;
    }
    yyjson_mut_val *v = yyjson_mut_obj_add_obj(doc, o, "last_error");
    json_add_str(doc, v, "message", str_from(e->message));
    json_add_str(doc, v, "hint", str_from(e->hint));
}

static void add_limit(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *name, double limit)
{
    if (limit > 0)
        yyjson_mut_obj_add_real(doc, o, name, limit);
    else
        yyjson_mut_obj_add_null(doc, o, name);
}

static void add_uint(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *name, bool known, uint64_t value)
{
    if (known)
        yyjson_mut_obj_add_uint(doc, o, name, value);
    else
        yyjson_mut_obj_add_null(doc, o, name);
}

static void add_prices(yyjson_mut_doc *doc, yyjson_mut_val *o, const struct remote *r)
{
    yyjson_mut_val *prices = yyjson_mut_obj_add_obj(doc, o, "prices");
    for (size_t i = 0; i < r->n_models; i++) {
        const struct remote_model *m = &r->models[i];
        yyjson_mut_val *p = yyjson_mut_obj(doc);
        if (m->price_input <= 0 && m->price_output <= 0)
            continue;
        yyjson_mut_obj_add_real(doc, p, "input", m->price_input);
        yyjson_mut_obj_add_real(doc, p, "output", m->price_output);
        yyjson_mut_obj_add(prices, yyjson_mut_strcpy(doc, m->id), p);
    }
}

static yyjson_mut_val *server_json(const struct remote *r, yyjson_mut_doc *doc)
{
    struct remote_state *s = r->state;
    struct spend sums = s->spend;
    uint64_t now_ms = clock_mono_ms();
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    spend_turn(&sums, clock_wall_ms());
    yyjson_mut_obj_add_strcpy(doc, o, "name", r->name);
    yyjson_mut_obj_add_strcpy(doc, o, "url", r->shown_url);
    yyjson_mut_obj_add_str(doc, o, "dialect", r->dialect);
    yyjson_mut_val *models = yyjson_mut_obj_add_arr(doc, o, "models");
    for (size_t i = 0; i < r->n_models; i++)
        yyjson_mut_arr_add_strcpy(doc, models, r->models[i].id);
    add_prices(doc, o, r);
    yyjson_mut_obj_add_str(doc, o, "state",
                           r->problem.message[0]       ? "unusable"
                           : now_ms < s->rest_until_ms ? "resting"
                                                       : "ready");
    yyjson_mut_obj_add_str(doc, o, "breaker", breaker_state_word(breaker_state(&s->breaker, now_ms)));
    yyjson_mut_obj_add_uint(doc, o, "running", s->running);
    add_uint(doc, o, "max_concurrency", r->max_running > 0, r->max_running);
    yyjson_mut_obj_add_uint(doc, o, "waiting", s->n_waiting);
    yyjson_mut_obj_add_uint(doc, o, "requests", s->requests);
    yyjson_mut_obj_add_uint(doc, o, "failures", s->failures);
    add_uint(doc, o, "idle_ms", s->used_ms > 0 && !s->running, now_ms - s->used_ms);
    yyjson_mut_obj_add_real(doc, o, "spent_day", sums.in_day);
    yyjson_mut_obj_add_real(doc, o, "spent_month", sums.in_month);
    add_limit(doc, o, "limit_day", r->limits.per_day);
    add_limit(doc, o, "limit_month", r->limits.per_month);
    add_error(doc, o, r->problem.message[0] ? &r->problem : &s->last_error);
    return o;
}

yyjson_mut_val *remote_set_json(const struct remote_set *s, yyjson_mut_doc *doc)
{
    yyjson_mut_val *all = yyjson_mut_arr(doc);
    for (size_t i = 0; i < s->n; i++)
        yyjson_mut_arr_append(all, server_json(s->servers[i], doc));
    return all;
}

yyjson_mut_val *remote_model_json(const struct remote_model *m, yyjson_mut_doc *doc)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_obj_add_strcpy(doc, o, "id", m->id);
    yyjson_mut_obj_add_str(doc, o, "object", "model");
    yyjson_mut_obj_add_int(doc, o, "created", 0);
    yyjson_mut_obj_add_strcpy(doc, o, "owned_by", m->of->name);
    yyjson_mut_val *aliases = yyjson_mut_obj_add_arr(doc, o, "aliases");
    yyjson_mut_arr_add_strcpy(doc, aliases, m->name);
    for (size_t i = 0; i < m->roles.n; i++)
        yyjson_mut_arr_add_strcpy(doc, aliases, m->roles.items[i]);
    return o;
}
