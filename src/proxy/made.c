/* An answer that is made at the door of what the backend sends: a plain one that the backend would tell too
 * late, or one in a dialect that the backend does not speak. Layer proxy; loop thread only.
 *
 * Until the client has its head every fault gets an honest status; after it, the dialect's last words and a
 * connection that breaks off. What a request takes counts as the memory of bodies in flight. Invariant: made
 * ≠ NULL ⇒ no byte of the backend's answer was passed on as it was. */
#include "proxy/proxy_priv.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

struct made {
    const struct dialect_call *call;
    struct dialect_ask ask; /* of a request of our own; else as if zeroed: a plain answer from events */
    struct answer *answer;  /* NULL until the request is about to be sent */
    size_t counted;
    bool translated; /* the backend gets the ask's body, not the client's */
    bool until_eof, done, failed;
};

static void new_made(struct conn *c, const struct dialect_call *call)
{
    made_release(c);
    c->made = mem_new(struct made);
    c->made->call = call;
}

void made_free(struct http_server *s, struct made *m)
{
    if (!m)
        return;
    answer_free(m->answer);
    dialect_ask_release(m->call, &m->ask);
    s->count.body_bytes_in_flight -= m->counted;
    free(m);
}

void made_release(struct conn *c)
{
    made_free(c->s, take_ptr(c->made));
}

void made_take(struct conn *c, const struct dialect_call *call, struct dialect_ask *ask)
{
    new_made(c, call);
    c->made->translated = true;
    c->made->ask = *ask;
    c->wish = ask->wish;
    *ask = (struct dialect_ask){.reply = DIALECT_EVENTS};
}

void made_start(struct conn *c)
{
    struct made *m = c->made;
    if (!m)
        return;
    answer_free(m->answer);
    m->answer =
        answer_new(m->call, &m->ask, c->s->opt.max_body_bytes, c->wall_ms * 1000, (int64_t)c->t_wait_us);
}

/* ---- a plain answer: the client's own body, asking for a stream ---- */

/* Behind the brace that opens the body, if a member follows. */
static bool behind_brace(const struct conn *c, size_t *ret)
{
    const char *body = c->in->data + c->in->head_n, *end = body + c->in->body_n;
    const char *p = (const char *)memchr(body, '{', c->in->body_n) + 1;
    *ret = (size_t)(p - body);
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p < end && *p == '"';
}

bool made_splice(struct conn *c, struct edit *ret)
{
    static const char stream[] = "\"stream\":";
    const struct body_value *v = &c->scan.value[BODY_STREAM];
    const struct dialect_call *call = c->call;
    const char *body = c->in->data + c->in->head_n, *members = c->lease.collect_members;
    made_release(c);
    if (!members || !c->s->opt.collect_plain || !call || !call->plain || call->ask || c->scan.options ||
        c->scan.seen[BODY_STREAM] > 1)
        return false;
    struct edit e = {.text = str_from(members)};
    if (v->n) {
        if (v->n != 5 || memcmp(body + v->at, "false", 5) != 0)
            return false;
        e.at = v->at;
        e.n = v->n;
        e.text.p += sizeof stream - 1;
        e.text.n -= sizeof stream; /* the comma behind it, too */
    } else if (!behind_brace(c, &e.at)) {
        return false;
    }
    new_made(c, call);
    *ret = e;
    return true;
}

/* ---- the translated request ---- */

bool made_translated(const struct conn *c)
{
    return c->made && c->made->translated;
}

const struct dialect_ask *made_ask(const struct conn *c)
{
    return made_translated(c) ? &c->made->ask : NULL;
}

const struct dialect_backend *made_via(const struct conn *c)
{
    return made_translated(c) ? c->made->ask.via : NULL;
}

struct str made_target(const struct conn *c)
{
    return made_translated(c) ? str_from(c->made->ask.path) : c->target;
}

struct str made_body(const struct conn *c)
{
    return buf_str(&c->made->ask.body);
}

/* In place of the brace that opens it: what every request of its kind has. */
void made_body_edit(struct conn *c, struct put *text, struct edit *ret)
{
    const char *from = text->p, *members = c->lease.collect_members;
    put_lit(text, "{\"model\":");
    put_json_string(text, relay_model_there(c));
    put_lit(text, ",");
    if (c->made->ask.via)
        put_cstr(text, c->made->ask.via->members);
    else if (c->made->ask.reply == DIALECT_EVENTS)
        put_cstr(text, members ? members : "\"stream\":true,\"stream_options\":{\"include_usage\":true},");
    *ret = (struct edit){.at = 0, .n = 1, .text = {from, (size_t)(text->p - from)}};
}

bool made_nothing(const struct conn *c)
{
    return made_translated(c) && c->made->ask.reply == DIALECT_NOTHING;
}

const struct embed_ask *made_embed(const struct conn *c)
{
    return made_translated(c) ? c->made->ask.embed : NULL;
}

bool made_document(struct made *m, const struct made_terms *terms, struct buf *doc, struct buf *out)
{
    if (!m->call->document) {
        *out = *doc;
        *doc = (struct buf){0};
        return true;
    }
    answer_free(m->answer);
    m->answer = answer_new(m->call, &m->ask, terms->max, terms->begun_us, terms->waited_us);
    (void)answer_head(m->answer, 200, STR("application/json"));
    bool fine = answer_feed(m->answer, buf_str(doc), terms->now_us, out) == ANSWER_MORE &&
                answer_end(m->answer, terms->now_us, out) == ANSWER_DONE;
    answer_free(take_ptr(m->answer)); /* it holds the document */
    return fine;
}

void made_answer_now(struct conn *c, struct buf *out)
{
    made_start(c);
    (void)answer_end(c->made->answer, clock_wall_ms() * 1000, out);
}

/* ---- the answer's head ---- */

void made_expect_error(struct up *u)
{
    struct conn *c = u->c;
    new_made(c, c->call);
    c->made->ask.stream = true;
    made_start(c);
}

bool made_begin(struct up *u)
{
    struct conn *c = u->c;
    struct made *m = c->made;
    struct str type = head_get(&u->in->head, u->in->data, HDR_CONTENT_TYPE);
    if (!answer_head(m->answer, llhttp_get_status_code(&u->parser), type)) {
        made_release(c);
        return false;
    }
    m->until_eof = u->framing == FRAME_EOF;
    u->cut = u->n_iov > 0;
    u->n_iov = 0; /* what the request's bytes were kept for */
    up_watch(u, true, false);
    /* The head of an error, and a request that may follow, are made of the client's. */
    if (m->ask.reply == DIALECT_EVENTS && !c->in->head.seen[HDR_ORIGIN])
        conn_release_input(c);
    return true;
}

bool made_until_eof(const struct conn *c)
{
    return c->made && c->made->until_eof;
}

bool made_is_done(const struct conn *c)
{
    return c->made && c->made->done;
}

bool made_has_begun(const struct conn *c)
{
    return answer_has_begun(c->made->answer);
}

bool made_streams(const struct conn *c)
{
    return c->made->ask.stream && !c->made->failed;
}

const char *made_type(const struct conn *c)
{
    const struct dialect_call *call = c->made->call;
    const char *type = made_streams(c) ? call->stream_type : call->plain_type;
    return type ? type : "application/json";
}

/* ---- faults ---- */

static struct dialect_error error_view(const struct conn *c, int status, const struct err *err)
{
    return (struct dialect_error){.status = status,
                                  .code = err->code,
                                  .message = str_from(err->message),
                                  .hint = str_from(err->hint),
                                  .request_id = str_from(c->id_text)};
}

static void last_words(struct conn *c, const char *outcome, const struct dialect_error *e)
{
    struct buf out = {0};
    const struct dialect_call *call = c->made ? c->made->call : c->call;
    (void)buf_append(&out, (const char[READ_HEADROOM]){0}, READ_HEADROOM);
    if (call->broken)
        call->broken(c->made ? c->made->ask.state : NULL, e, &out);
    response_break_off(c, outcome, &out);
    buf_release(&out);
}

void made_broken(struct conn *c, const char *outcome, const struct err *err)
{
    struct dialect_error e = error_view(c, rc_http_status(err->code), err);
    made_account(c);
    last_words(c, outcome, &e);
}

/* The answer cannot be given; the backend is left, which frees its slot. */
static enum made_step give_up(struct conn *c, int status, const char *outcome, const struct err *err)
{
    if (c->phase == PHASE_RELAY)
        made_broken(c, outcome, err);
    else
        relay_leave(c, status, outcome, err);
    return MADE_FAILED;
}

static enum made_step not_whole(struct conn *c, const char *what)
{
    struct err err;
    (void)err_set(&err, RC_BACKEND, "the backend of model %s %s", c->lease.model, what);
    err_hint(&err, "see the instance's log: arriero logs %s", c->lease.model);
    c->lease_broken = true;
    return give_up(c, 502, "truncated", &err);
}

static enum made_step too_large(struct conn *c)
{
    struct err err;
    char limit[32];
    (void)err_set(&err, RC_BACKEND, "the answer is larger than the limit of %s",
                  str_human_bytes(c->s->opt.max_body_bytes, limit, sizeof limit));
    err_hint(&err, "raise limits.max_body, or ask with \"stream\":true");
    return give_up(c, 502, "upstream_error", &err);
}

static enum made_step no_room(struct conn *c)
{
    struct err err;
    (void)err_set(&err, RC_BUSY, "too many large bodies are in flight");
    err_hint(&err, "ask again, or raise limits.body_budget");
    return give_up(c, 503, "refused", &err);
}

/* The client has a head that promises a stream: an error behind it breaks that off. */
static enum made_step error_behind_head(struct conn *c, const struct dialect_error *e)
{
    relay_give_back(c, e->status >= 500 && e->status != 501 ? ROUTE_END_FAILED : ROUTE_END_FINE);
    c->phase = PHASE_RELAY;
    last_words(c, "upstream_error", e);
    return MADE_FAILED;
}

/* What the backend says of itself is the answer. It ended as it should, for an error. */
static enum made_step backend_error(struct up *u, struct buf *out, int *ret_status)
{
    struct conn *c = u->c;
    struct made *m = c->made;
    struct dialect_error e;
    answer_error(m->answer, &e);
    e.request_id = str_from(c->id_text);
    *ret_status = e.status;
    if (c->told && c->phase != PHASE_RELAY)
        return error_behind_head(c, &e);
    u->keep_alive = u->keep_alive && u->message_done;
    u->message_done = true;
    if (c->phase == PHASE_RELAY) {
        c->outcome = "upstream_error";
        if (m->call->broken)
            m->call->broken(m->ask.state, &e, out);
        return MADE_WHOLE;
    }
    m->failed = true;
    dialect_at(c->route->dialect)->put_error(&e, out);
    return MADE_WHOLE;
}

/* ---- the answer's body ---- */

/* False when there is no room for it beside all others. */
static bool count_memory(struct conn *c)
{
    struct http_counters *n = &c->s->count;
    size_t now = answer_bytes(c->made->answer);
    n->body_bytes_in_flight += now - c->made->counted;
    c->made->counted = now;
    return n->body_bytes_in_flight <= c->s->opt.body_budget_bytes;
}

enum made_step made_feed(struct up *u, struct buf *out, int *ret_status)
{
    struct conn *c = u->c;
    struct http_server *s = u->s;
    struct made *m = c->made;
    int64_t now_us = server_wall_ms(s, clock_mono_us()) * 1000;
    enum answer_state state = answer_feed(m->answer, (struct str){"", 0}, now_us, out);
    for (uint32_t i = 0; i < s->n_segments && state == ANSWER_MORE; i++)
        state = answer_feed(m->answer, (struct str){s->segments[i].p, s->segments[i].n}, now_us, out);
    s->n_segments = 0;
    m->done = state == ANSWER_DONE;
    if (u->message_done && (state == ANSWER_MORE || state == ANSWER_DONE))
        state = answer_end(m->answer, now_us, out);
    if (!count_memory(c))
        return no_room(c);
    *ret_status = 200;
    switch (state) {
    case ANSWER_LARGE: return too_large(c);
    case ANSWER_BROKEN: return not_whole(c, answer_why(m->answer));
    case ANSWER_ERROR: return backend_error(u, out, ret_status);
    case ANSWER_AGAIN: return MADE_AGAIN;
    default: return u->message_done ? MADE_WHOLE : MADE_MORE;
    }
}

void made_account(struct conn *c)
{
    struct buf text = {0};
    if (!c->made || !c->made->answer)
        return;
    answer_put_usage(c->made->answer, &text);
    account_read(buf_str(&text), &c->usage);
    buf_release(&text);
}
