/* A plain request whose answer is collected from a stream. Layer proxy; loop thread only.
 *
 * For the same end as prefill.c: a backend that writes nothing until its answer is whole looks seldom whether
 * the client is still there. So it is asked to stream, and what it would have answered is put together here.
 * Until then nothing goes to the client, so every fault still gets an honest status. What the answer takes
 * counts as the memory of bodies in flight. Invariant: collect ≠ NULL ⇒ no byte of an answer was sent. */
#include "proxy/proxy_priv.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *path;
    enum collect_form form;
} paths[] = {
    {"/v1/chat/completions", COLLECT_CHAT},
    {"/chat/completions", COLLECT_CHAT},
    {"/v1/completions", COLLECT_TEXT},
};

static enum collect_form form_of(const struct conn *c)
{
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (str_eq_c(c->path, paths[i].path))
            return paths[i].form;
    return COLLECT_NONE;
}

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

bool plain_edit(struct conn *c, struct edit *ret)
{
    static const char stream[] = "\"stream\":";
    const struct body_value *v = &c->scan.value[BODY_STREAM];
    const char *body = c->in->data + c->in->head_n, *members = c->lease.collect_members;
    enum collect_form form = members && c->s->opt.collect_plain ? form_of(c) : COLLECT_NONE;
    plain_release(c);
    if (form == COLLECT_NONE || c->scan.options || c->scan.seen[BODY_STREAM] > 1)
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
    c->collect = collect_new(form, c->s->opt.max_body_bytes);
    *ret = e;
    return true;
}

void plain_release(struct conn *c)
{
    collect_free(c->collect);
    c->collect = NULL;
    c->s->count.body_bytes_in_flight -= c->collect_counted;
    c->collect_counted = 0;
}

bool plain_begin(struct up *u)
{
    struct conn *c = u->c;
    struct str type = head_get(&u->in->head, u->in->data, HDR_CONTENT_TYPE);
    if (llhttp_get_status_code(&u->parser) == 200 && type.n >= 17 &&
        str_ieq((struct str){type.p, 17}, STR("text/event-stream"))) {
        u->cut = u->n_iov > 0;
        u->n_iov = 0; /* what the request's bytes were kept for */
        up_watch(u, true, false);
        if (!c->in->head.seen[HDR_ORIGIN]) /* which an error's head needs */
            conn_release_input(c);
        return true;
    }
    plain_release(c);
    return false;
}

/* False when there is no room for it beside all others. */
static bool count_memory(struct conn *c)
{
    struct http_counters *n = &c->s->count;
    size_t now = collect_bytes(c->collect);
    n->body_bytes_in_flight += now - c->collect_counted;
    c->collect_counted = now;
    return n->body_bytes_in_flight <= c->s->opt.body_budget_bytes;
}

/* The answer cannot be given; the backend is left, which frees its slot. */
static enum plain_step give_up(struct conn *c, int status, const char *outcome, const struct err *err)
{
    struct up *u = c->up;
    c->up = NULL;
    u->c = NULL;
    up_close(u);
    relay_fail(c, status, outcome, err);
    return PLAIN_FAILED;
}

static enum plain_step not_whole(struct conn *c, const char *what)
{
    struct err err;
    (void)err_set(&err, RC_BACKEND, "the backend of model %s %s", c->lease.model, what);
    err_hint(&err, "see the instance's log: arriero logs %s", c->lease.model);
    c->lease_broken = true;
    return give_up(c, 502, "truncated", &err);
}

static enum plain_step too_large(struct conn *c)
{
    struct err err;
    char limit[32];
    (void)err_set(&err, RC_BACKEND, "the answer is larger than the limit of %s",
                  str_human_bytes(c->s->opt.max_body_bytes, limit, sizeof limit));
    err_hint(&err, "raise limits.max_body, or ask with \"stream\":true");
    return give_up(c, 502, "upstream_error", &err);
}

static enum plain_step no_room(struct conn *c)
{
    struct err err;
    (void)err_set(&err, RC_BUSY, "too many large bodies are in flight");
    err_hint(&err, "ask again, or raise limits.body_budget");
    return give_up(c, 503, "refused", &err);
}

static enum plain_step answer(struct up *u, struct buf *body, int *ret_status)
{
    struct conn *c = u->c;
    *ret_status = 200;
    if (!collect_answer(c->collect, body))
        return not_whole(c, "ended its answer before it was whole");
    return PLAIN_ANSWER;
}

enum plain_step plain_feed(struct up *u, struct buf *body, int *ret_status)
{
    struct conn *c = u->c;
    struct http_server *s = u->s;
    enum collect_state state = collect_feed(c->collect, (struct str){"", 0});
    for (uint32_t i = 0; i < s->n_segments && state == COLLECT_MORE; i++)
        state = collect_feed(c->collect, (struct str){s->segments[i].p, s->segments[i].n});
    s->n_segments = 0;
    if (!count_memory(c))
        return no_room(c);
    switch (state) {
    case COLLECT_LARGE: return too_large(c);
    case COLLECT_BROKEN: return not_whole(c, "sent an event that is none of an answer");
    case COLLECT_ERROR:
        *ret_status = collect_error(c->collect, body);
        u->keep_alive = u->keep_alive && u->message_done;
        u->message_done = true;
        return PLAIN_ANSWER;
    default: return u->message_done ? answer(u, body, ret_status) : PLAIN_MORE;
    }
}
