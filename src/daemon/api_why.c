/* GET /why: what was decided about a model, or about all, and where it stands, in sentences (why.h). Layer
 * daemon; what is now is gathered on the loop, the history is read and the sentences are made on the work
 * pool. */
#include "daemon/daemon_priv.h"

#include "base/clock.h"
#include "daemon/why.h"

#include <stdio.h>
#include <string.h>

#define LEAST_ROWS 100 /* read for the summary, however few are asked for */
#define MOST_ROWS  10000

struct row { /* of struct why_now */
    char model[POOL_ID_MAX * 2], state[16], devices[200], cause[300], heat[160];
    struct why_now now; /* its texts are made to point here before it is used */
};

struct question {
    struct store *store;
    char model[256]; /* "" = all */
    bool known;
    struct err unknown;
    unsigned limit;
    size_t n;
    struct row rows[];
};

/* ---- gathering, on the loop ---- */

static const char *text_of(yyjson_mut_val *o, const char *key)
{
    const char *text = yyjson_mut_get_str(yyjson_mut_obj_get(o, key));
    return text ? text : "";
}

static uint64_t number_of(yyjson_mut_val *o, const char *key)
{
    return yyjson_mut_get_uint(yyjson_mut_obj_get(o, key));
}

static void fill_devices(yyjson_mut_val *instance, struct row *r)
{
    size_t i, n, at = 0;
    yyjson_mut_val *d;
    yyjson_mut_arr_foreach(yyjson_mut_obj_get(instance, "devices"), i, n, d)
    {
        char size[24];
        uint64_t bytes = number_of(yyjson_mut_obj_get(d, "measured"), "total_bytes");
        bytes = bytes ? bytes : number_of(d, "predicted_bytes");
        if (!bytes || at >= sizeof r->devices)
            continue;
        int wrote = snprintf(r->devices + at, sizeof r->devices - at, "%s%s (%s)", at ? ", " : "",
                             text_of(d, "name"), str_human_bytes(bytes, size, sizeof size));
        at += wrote > 0 ? (size_t)wrote : 0;
    }
}

static void fill_heat(yyjson_mut_val *heat, struct row *r)
{
    if (yyjson_mut_is_obj(heat))
        snprintf(r->heat, sizeof r->heat, "%s is at %llu °C, so it is sent at most %llu requests at a time",
                 text_of(heat, "device"), (unsigned long long)number_of(heat, "temperature_c"),
                 (unsigned long long)number_of(heat, "slots_at_once"));
}

/* The instance that stands for the model: the one in the model's state. */
static yyjson_mut_val *instance_of(yyjson_mut_val *instances, const char *model, const char *state)
{
    size_t i, n;
    yyjson_mut_val *v, *other = NULL;
    yyjson_mut_arr_foreach(instances, i, n, v)
    {
        if (strcmp(text_of(v, "model"), model) != 0)
            continue;
        if (strcmp(text_of(v, "state"), state) == 0)
            return v;
        other = v;
    }
    return other;
}

static void fill(yyjson_mut_val *model, yyjson_mut_val *instances, struct row *r)
{
    const char *id = text_of(model, "id"), *state = text_of(model, "state");
    yyjson_mut_val *i = instance_of(instances, id, state);
    snprintf(r->model, sizeof r->model, "%s", id);
    /* one that drains is no longer the model's own */
    bool drains = i && strcmp(text_of(i, "state"), "draining") == 0 && strcmp(state, "unloaded") == 0;
    snprintf(r->state, sizeof r->state, "%s", drains ? "draining" : state);
    snprintf(r->cause, sizeof r->cause, "%s", text_of(yyjson_mut_obj_get(model, "last_error"), "message"));
    r->now.waiting = number_of(model, "waiting");
    r->now.pinned = yyjson_mut_get_bool(yyjson_mut_obj_get(model, "pinned"));
    if (!i)
        return;
    fill_devices(i, r);
    fill_heat(yyjson_mut_obj_get(i, "heat"), r);
    r->now.since_ms = number_of(i, "since_ms");
    r->now.busy = number_of(i, "busy");
    r->now.slots = number_of(i, "slots");
    r->now.progress = yyjson_mut_get_real(yyjson_mut_obj_get(i, "progress"));
    r->now.load_seconds =
        yyjson_mut_get_real(yyjson_mut_obj_get(yyjson_mut_obj_get(i, "speed"), "load_seconds"));
}

static struct question *question_new(struct daemon *d, const char *model, unsigned limit)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *models = pool_models_json(d->pool, doc), *instances = pool_json(d->pool, doc), *m;
    size_t i, n;
    struct question *q = mem_calloc(1, sizeof *q + yyjson_mut_arr_size(models) * sizeof q->rows[0]);
    const char *known = model[0] ? pool_resolve(d->pool, str_from(model)) : NULL;
    q->store = d->store;
    q->limit = limit;
    q->known = known || !model[0] || levels_knows(d, model);
    snprintf(q->model, sizeof q->model, "%s", known ? known : model);
    yyjson_mut_arr_foreach(models, i, n, m) if (!model[0] || strcmp(text_of(m, "id"), q->model) == 0)
        fill(m, instances, &q->rows[q->n++]);
    yyjson_mut_doc_free(doc);
    return q;
}

/* ---- composing, on the work pool ---- */

static const struct why_now *now_of(struct row *r)
{
    r->now.model = r->model;
    r->now.state = r->state;
    r->now.devices = r->devices;
    r->now.cause = r->cause;
    r->now.heat = r->heat;
    return &r->now;
}

static void summarise(struct question *q, yyjson_val *decisions, struct buf *out)
{
    struct row none = {0};
    if (q->model[0]) {
        struct why_now now = *now_of(q->n ? &q->rows[0] : &none);
        now.model = q->model;
        why_summary(&now, decisions, clock_wall_ms(), out);
        return;
    }
    struct why_now *list = mem_calloc(q->n + 1, sizeof *list);
    for (size_t i = 0; i < q->n; i++)
        list[i] = *now_of(&q->rows[i]);
    why_summary_all(list, q->n, out);
    free(list);
}

static void put_answer(struct question *q, yyjson_val *decisions, yyjson_mut_doc *doc)
{
    size_t i, n;
    yyjson_val *v;
    struct buf text = {0};
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    summarise(q, decisions, &text);
    json_add_str(doc, root, "model", str_from(q->model));
    json_add_str(doc, root, "state", str_from(q->model[0] && q->n ? q->rows[0].state : ""));
    json_add_str(doc, root, "summary", buf_str(&text));
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(doc, root, "decisions");
    yyjson_arr_foreach(decisions, i, n, v)
    {
        if (i == q->limit)
            break;
        yyjson_mut_val *o = yyjson_val_mut_copy(doc, v);
        buf_clear(&text);
        why_sentence(v, &text);
        json_add_str(doc, o, "text", buf_str(&text));
        yyjson_mut_arr_append(list, o);
    }
    buf_release(&text);
}

static enum rc compose(void *arg, struct buf *out, struct err *err)
{
    struct question *q = arg;
    struct buf rows = {0};
    yyjson_doc *read = NULL;
    unsigned wanted = q->limit > LEAST_ROWS ? q->limit : LEAST_ROWS;
    enum rc rc = store_decisions_json(q->store, str_from(q->model), wanted, &rows, err);
    if (rc == RC_OK)
        rc = json_parse(buf_str(&rows), "the history", &read, err);
    buf_release(&rows);
    if (rc != RC_OK)
        return rc;
    yyjson_val *decisions = yyjson_doc_get_root(read);
    if (!q->known && yyjson_arr_size(decisions) == 0) {
        *err = q->unknown;
        rc = q->unknown.code;
    } else {
        yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
        put_answer(q, decisions, doc);
        rc = json_write(doc, false, out, err);
        yyjson_mut_doc_free(doc);
    }
    yyjson_doc_free(read);
    return rc;
}

void api_why(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    char limit[16], model[256] = "";
    uint64_t n = 10;
    d->doing = "GET why";
    (void)http_query(ex, "model", model, sizeof model);
    if (http_query(ex, "limit", limit, sizeof limit) && (!str_u64(str_from(limit), &n) || n > MOST_ROWS)) {
        struct err err;
        err.code = err_set(&err, RC_INVALID, "limit is not a number up to %d", MOST_ROWS);
        err_hint(&err, "?limit=10");
        http_reply_err(ex, &err, 0);
        return;
    }
    struct question *q = question_new(d, model, (unsigned)n);
    struct pool_lease lease;
    if (!q->known) /* told only if the history knows nothing of it either */
        (void)pool_observe(d->pool, str_from(model), &lease, &q->unknown);
    background_answer(d, ex, compose, q);
}
