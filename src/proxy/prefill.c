/* A client that leaves while its prompt is read. Layer proxy; loop thread only.
 *
 * We close the backend's connection at once, but a backend that has nothing to write may look at it seldom (a
 * llama.cpp server: once a second). So it is asked to report its progress on streamed requests that do not
 * ask for it themselves, and then notices within one batch of the prompt. The client did not ask for these
 * reports: whole events that hold the mark of the lease are dropped until the first one without it, then the
 * stream passes as it comes. Invariant: awake ⇒ held, whose bytes were sent by the time that the next read
 * comes. */
#include "proxy/proxy_priv.h"

#include "base/mem.h"

#include <string.h>

#define HELD_MAX 65536u /* of an event that has no end: it is none of ours */

bool prefill_edit(struct conn *c, struct edit *ret)
{
    const struct body_value *v = &c->scan.value[BODY_STREAM];
    const char *body = c->in->data + c->in->head_n;
    const char *member = c->lease.wake_member;
    if (!member || v->n != 4 || memcmp(body + v->at, "true", 4) != 0 || c->scan.seen[BODY_STREAM] != 1)
        return false;
    struct str name = {member + 1, 0}; /* behind the comma, with its quotes */
    name.n = (size_t)(strchr(name.p, ':') - name.p);
    if (memmem(body, c->in->body_n, name.p, name.n)) /* the client's own business */
        return false;
    if (!c->held)
        c->held = mem_new(struct buf);
    *ret = (struct edit){.at = v->at + v->n, .text = str_from(member)};
    return true;
}

void prefill_release(struct conn *c)
{
    if (!c->held)
        return;
    buf_release(c->held);
    free(c->held);
    c->held = NULL;
    c->awake = false;
}

/* Where the answer's own events start in what is held, or the length up to which all of it is dropped. */
static size_t own_events(const struct conn *c, const struct buf *b, bool *ret_found)
{
    size_t at = READ_HEADROOM;
    struct str mark = str_from(c->lease.wake_event);
    *ret_found = false;
    for (;;) {
        struct str rest = {b->data + at, b->n - at};
        ptrdiff_t end = str_find(rest, STR("\n\n"));
        if (end < 0)
            return at;
        if (str_find((struct str){rest.p, (size_t)end}, mark) < 0) {
            *ret_found = true;
            return at;
        }
        at += (size_t)end + 2;
    }
}

void prefill_filter(struct up *u)
{
    struct conn *c = u->c;
    struct http_server *s = u->s;
    struct buf *b = c->held;
    bool plain = u->framing != FRAME_CHUNKED || llhttp_get_status_code(&u->parser) != 200;
    if (plain || b->failed) {
        prefill_release(c);
        return;
    }
    u->raw_ok = false; /* what goes out is not what came in */
    if (!b->n)
        buf_append(b, (const char[READ_HEADROOM]){0}, READ_HEADROOM);
    for (uint32_t i = 0; i < s->n_segments; i++)
        buf_append(b, s->segments[i].p, s->segments[i].n);
    bool found;
    size_t at = own_events(c, b, &found);
    s->n_segments = 0;
    if (b->failed || found || u->message_done || b->n - at > HELD_MAX) {
        c->awake = true;
        buf_reserve(b, READ_TAILROOM);
        if (b->n > at)
            s->segments[s->n_segments++] = (struct segment){b->data + at, b->n - at};
        return;
    }
    memmove(b->data + READ_HEADROOM, b->data + at, b->n - at);
    b->n -= at - READ_HEADROOM;
}
