/* From a client's request to one that the backend understands. Layer proxy; loop thread only.
 *
 * A call that the backend speaks itself is not touched. Large bodies are translated in the work pool: the job
 * then borrows the request's bytes, and takes them over if the client leaves meanwhile. Invariant: phase ==
 * PHASE_TRANSLATE ⇔ c->job ≠ NULL, whose c is this one. */
#include "proxy/proxy_priv.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define OFF_LOOP_BYTES ((size_t)256 * 1024)
#define DOC_FACTOR     4u /* what a parsed body takes, in bytes of its text */

struct translation {
    uv_work_t work;
    struct http_server *s;
    struct conn *c; /* NULL: nobody waits for it any more */
    struct msg *in; /* taken over from a client that left */
    size_t counted;
    void (*go_on)(struct conn *c);
    const struct dialect_call *call;
    struct str body;
    struct dialect_terms terms;
    char model[256], request_id[40];
    struct dialect_ask ask;
    enum rc rc;
    struct err err;
};

static void init(struct translation *t, struct conn *c)
{
    const struct msg *m = c->in;
    *t = (struct translation){.s = c->s, .c = c, .call = c->call->ask ? c->call : c->call->remade};
    t->body = (struct str){m->data + m->head_n, m->body_n};
    memcpy(t->model, c->model_text, c->model.n);
    (void)snprintf(t->request_id, sizeof t->request_id, "%s", c->id_text);
    t->terms = (struct dialect_terms){.speaks = c->leased ? c->lease.speaks : 0,
                                      .model = {t->model, c->model.n},
                                      .request_id = str_from(t->request_id),
                                      .now_us = clock_wall_ms() * 1000};
}

static void translate(struct translation *t)
{
    yyjson_doc *doc = NULL;
    t->rc = json_parse(t->body, "the request body", &doc, &t->err);
    if (t->rc != RC_OK)
        return;
    yyjson_val *root = yyjson_doc_get_root(doc);
    if (yyjson_is_obj(root))
        t->rc = t->call->ask(&t->terms, root, &t->ask, &t->err);
    else
        t->rc = err_set(&t->err, RC_INVALID, "the request body is no JSON object");
    if (t->rc == RC_OK)
        t->rc = dialect_ask_as(&t->ask, t->terms.speaks, &t->err);
    if (t->rc == RC_OK && t->ask.body.failed)
        t->rc = err_set(&t->err, RC_NOMEM, "there is no memory for the request's translation");
    yyjson_doc_free(doc);
}

/* ---- off the loop ---- */

static void on_work(uv_work_t *w)
{
    translate(w->data);
}

static void take(struct conn *c, struct translation *t)
{
    if (t->ask.as_is)
        dialect_ask_release(t->call, &t->ask);
    else
        made_take(c, t->call, &t->ask);
}

static void give_up(struct translation *t)
{
    dialect_ask_release(t->call, &t->ask);
    msg_put(t->s, t->in);
}

static void on_translated(uv_work_t *w, int status)
{
    struct translation *t = w->data;
    struct http_server *s = t->s;
    struct conn *c = t->c;
    s->count.body_bytes_in_flight -= t->counted;
    if (status < 0 && t->rc == RC_OK)
        t->rc = err_set(&t->err, RC_INTERNAL, "the request could not be translated");
    if (!c) {
        give_up(t);
    } else if (t->rc != RC_OK) {
        c->job = NULL;
        give_up(t);
        relay_fail(c, rc_http_status(t->rc), "refused", &t->err);
    } else {
        c->job = NULL;
        take(c, t);
        t->go_on(c);
    }
    free(t);
    server_handle_closed(s);
}

void translate_cancel(struct conn *c)
{
    struct translation *t = c->job;
    c->job = NULL;
    t->c = NULL;
    t->in = c->in;
    c->in = NULL;
    (void)uv_cancel((uv_req_t *)&t->work); /* one that has begun goes on */
}

static bool start_job(struct conn *c, void (*go_on)(struct conn *c), struct err *err)
{
    struct http_server *s = c->s;
    size_t more = c->in->body_n * DOC_FACTOR;
    struct translation *t = mem_new(struct translation);
    init(t, c);
    t->go_on = go_on;
    t->work.data = t;
    if (s->count.body_bytes_in_flight + more > s->opt.body_budget_bytes ||
        uv_queue_work(s->loop, &t->work, on_work, on_translated) != 0) {
        free(t);
        (void)err_set(err, RC_BUSY, "too many large request bodies are in flight");
        err_hint(err, "ask again, or raise limits.body_budget");
        return false;
    }
    t->counted = more;
    s->count.body_bytes_in_flight += more;
    s->handles++;
    c->job = t;
    c->phase = PHASE_TRANSLATE;
    return true;
}

/* ---- what needs it ---- */

/* A backend of which nothing is known gets what the client sent. */
static bool is_native(const struct conn *c)
{
    return !c->lease.speaks || c->lease.speaks & 1u << c->route->dialect;
}

static enum translate_step refuse(const struct conn *c, struct err *err)
{
    (void)err_set(err, RC_UNSUPPORTED, "the backend of model %s does not answer at %s", c->lease.model,
                  c->call->path);
    err_hint(err, "ask at /v1/chat/completions, or run the model with a runtime that speaks %s",
             dialect_at(c->route->dialect)->name);
    return TRANSLATE_REFUSED;
}

enum translate_step translate_request(struct conn *c, bool early, void (*go_on)(struct conn *c),
                                      struct err *err)
{
    const struct dialect_call *call = c->call;
    if (!call || c->forwarded || (early && !call->early)) /* what is forwarded is for the instance as it is */
        return TRANSLATE_READY;
    if (!early && is_native(c)) {
        made_release(c);
        return TRANSLATE_READY;
    }
    if (!call->ask && !call->remade)
        return refuse(c, err);
    if (!early && call->early && made_translated(c) && made_via(c) == dialect_backend(c->lease.speaks))
        return TRANSLATE_READY;
    if (c->in->body_n > OFF_LOOP_BYTES)
        return start_job(c, go_on, err) ? TRANSLATE_LATER : TRANSLATE_REFUSED;
    struct translation t;
    init(&t, c);
    translate(&t);
    if (t.rc == RC_OK) {
        take(c, &t);
        return TRANSLATE_READY;
    }
    dialect_ask_release(t.call, &t.ask);
    *err = t.err;
    return TRANSLATE_REFUSED;
}
