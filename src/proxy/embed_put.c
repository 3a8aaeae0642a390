/* The answer of a request for embeddings, put together of its vectors. Layer proxy; loop thread only, but for
 * put_together.
 *
 * Thousands of vectors make a document of some hundred megabytes, which is read once more for clients of
 * other dialects: a large one is put together in the work pool, from which its bytes go to the client without
 * being copied. What the work needs is taken from the client's connection, for the client may leave
 * meanwhile. Invariant: phase == PHASE_PUT ⇔ c->put ≠ NULL, whose c is this one. */
#include "proxy/proxy_priv.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define OFF_LOOP_BYTES ((size_t)128 * 1024)

struct embed_put {
    uv_work_t work;
    struct http_server *s;
    struct conn *c;    /* NULL: the client is gone */
    struct made *made; /* the client's translator; NULL = it was given back */
    struct embed_vectors v;
    char model[192];
    struct made_terms terms;
    struct buf body;
    enum rc rc;
    struct err err;
};

void embed_free_items(char **items, size_t n)
{
    for (size_t i = 0; items && i < n; i++)
        free(items[i]);
    free((void *)items);
}

/* Any thread. The vectors go as soon as they are written: both at once are twice the memory. */
static void put_together(struct embed_put *p)
{
    struct buf doc = {.max = p->terms.max};
    embed_put_answer(&p->v.sum, p->v.items, p->v.n, &doc);
    embed_free_items(take_ptr(p->v.items), p->v.n);
    if (doc.failed) {
        p->rc = err_set(&p->err, RC_LIMIT, "the embeddings are larger than the limit of bodies");
        err_hint(&p->err, "ask for fewer texts at once, or raise limits.max_body");
    } else if (!made_document(p->made, &p->terms, &doc, &p->body)) {
        p->rc =
            err_set(&p->err, RC_BACKEND, "the backend of model %s sent embeddings of another kind", p->model);
    }
    buf_release(&doc);
}

/* ---- its end ---- */

static void put_free(struct embed_put *p)
{
    p->s->count.body_bytes_in_flight -= p->v.counted;
    embed_free_items(p->v.items, p->v.n);
    made_free(p->s, p->made);
    buf_release(&p->body);
    free(p);
}

static void reply(struct conn *c, struct embed_put *p)
{
    char fields[768];
    struct put w = {fields, fields + sizeof fields - 1, false};
    c->usage.prompt_tokens = p->v.sum.tokens;
    c->usage.known = true;
    response_put_lease(c, &w);
    put_lit(&w, "X-Arriero-Batches: ");
    put_u64(&w, p->v.batches);
    put_lit(&w, "\r\n");
    *w.p = '\0';
    c->made = take_ptr(p->made);
    const char *type = made_type(c);
    c->phase = PHASE_LOCAL;
    local_reply_taking(c, 200, type, fields, &p->body);
}

static void finish(struct embed_put *p)
{
    struct conn *c = p->c;
    if (c) {
        c->put = NULL;
        if (p->rc == RC_OK)
            reply(c, p);
        else
            relay_fail(c, rc_http_status(p->rc), "upstream_error", &p->err);
    }
    put_free(p);
}

static void on_work(uv_work_t *w)
{
    put_together(w->data);
}

static void on_put(uv_work_t *w, int status)
{
    struct embed_put *p = w->data;
    struct http_server *s = p->s;
    if (status < 0 && p->rc == RC_OK)
        p->rc = err_set(&p->err, RC_INTERNAL, "the embeddings could not be put together");
    finish(p);
    server_handle_closed(s);
}

void embed_put_cancel(struct conn *c)
{
    struct embed_put *p = take_ptr(c->put);
    p->c = NULL;
    (void)uv_cancel((uv_req_t *)&p->work); /* one that has begun goes on */
}

/* ---- its beginning ---- */

void embed_put_start(struct conn *c, const struct embed_vectors *v)
{
    struct http_server *s = c->s;
    struct embed_put *p = mem_new(struct embed_put);
    *p = (struct embed_put){.s = s, .c = c, .made = take_ptr(c->made), .v = *v};
    (void)snprintf(p->model, sizeof p->model, "%s", c->lease.model);
    p->v.sum.model = str_from(p->model);
    p->terms = (struct made_terms){.max = s->opt.max_body_bytes,
                                   .begun_us = c->wall_ms * 1000,
                                   .waited_us = (int64_t)c->t_wait_us,
                                   .now_us = clock_wall_ms() * 1000};
    p->work.data = p;
    c->put = p;
    c->phase = PHASE_PUT;
    if (v->counted > OFF_LOOP_BYTES && uv_queue_work(s->loop, &p->work, on_work, on_put) == 0) {
        s->handles++;
        return;
    }
    put_together(p);
    finish(p);
}
