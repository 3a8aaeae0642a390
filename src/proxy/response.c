/* The answer's way back: reading it, beginning the client's, passing the body on as it comes. Layer proxy;
 * loop thread only. Parsing is in response_parse.c, the client's head and framing in response_head.c and
 * response_frame.c, what is counted in response_count.c.
 *
 * What one read returned goes out in one send. While the client does not take what was sent, the backend is
 * not read. A body that ends before its framing says so becomes a broken stream for the client, never a whole
 * one. */
#include "proxy/proxy_priv.h"

#include "base/clock.h"
#include "proxy/put.h"

#include <errno.h>
#include <string.h>

/* An answer's head, and what came of the body if that is small. */
#define ANSWER_BLOCK (MSG_BYTES + 8192u)

static bool has_events(const struct up *u)
{
    struct str type = head_get(&u->in->head, u->in->data, HDR_CONTENT_TYPE);
    return type.n >= 17 && str_ieq((struct str){type.p, 17}, STR("text/event-stream"));
}

/* Whether it can follow a head that the client has already. */
static bool is_stream(struct up *u)
{
    return llhttp_get_status_code(&u->parser) == 200 && has_events(u) && u->framing != FRAME_NONE &&
           !u->in->head.seen[HDR_CONTENT_ENCODING];
}

/* A server that is told to stop ends its streams as if they were whole, so far as their framing goes. */
static const char *end_mark(const struct up *u)
{
    const struct conn *c = u->c;
    bool open_ended = u->framing == FRAME_CHUNKED || u->framing == FRAME_EOF;
    if (c->made || !c->streamed || c->status != 200 || c->method != HTTP_POST || !open_ended ||
        u->in->head.seen[HDR_CONTENT_ENCODING])
        return NULL;
    return c->call && c->call->end_mark ? c->call->end_mark : u->framing == FRAME_EOF ? "[DONE]" : NULL;
}

static void begin_answer(struct up *u, int status, struct put *w)
{
    struct conn *c = u->c;
    c->status = status;
    c->streamed = c->made ? made_streams(c) : has_events(u);
    c->end_mark = end_mark(u);
    bool chunked = u->framing == FRAME_CHUNKED || u->framing == FRAME_EOF;
    if ((c->http10 && chunked) || c->s->draining)
        c->keep_alive = false;
    if (!c->told)
        response_put_head(u, w);
    u->cut = u->cut || u->n_iov > 0;
    u->n_iov = 0; /* what the request's bytes were kept for */
    c->phase = PHASE_RELAY;
    conn_release_input(c);
    if (c->streamed)
        sock_ack_seldom(&u->sock);
}

static void answer_complete(struct conn *c)
{
    response_count_end(c);
    relay_answer_done(c);
    conn_answered(c);
}

void response_send(struct conn *c, const struct iovec *iov, int n)
{
    struct up *u = c->up;
    if (!conn_write(c, iov, n))
        return;
    if (u->message_done)
        answer_complete(c);
    else if (conn_pending(c))
        up_watch(u, false, false);
}

/* Sends at the end of the turn if it can wait. bytes lie in the turn's block. */
static void send_soon(struct conn *c, struct str bytes)
{
    bool in_block = bytes.p >= c->s->arena && bytes.p < c->s->arena + ARENA_BYTES;
    if (in_block && batch_conn(c, bytes))
        batch_keep(c->s, bytes.p + bytes.n);
    else
        response_send(c, &(struct iovec){(void *)(uintptr_t)bytes.p, bytes.n}, 1);
}

/* What w holds of the block, and the body behind it. */
static void send_first(struct up *u, struct put *w, char *block, struct str body)
{
    if (w->over) {
        relay_upstream_died(u, EPROTO);
    } else if ((size_t)(w->end - w->p) >= body.n) { /* one block is cheaper than a list */
        put_str(w, body);
        send_soon(u->c, (struct str){block, (size_t)(w->p - block)});
    } else {
        struct iovec iov[2] = {{block, (size_t)(w->p - block)}, {(void *)(uintptr_t)body.p, body.n}};
        response_send(u->c, iov, 2);
    }
}

/* A stream whose framing ends before its events do: then it is not over. */
static bool is_cut_short(struct up *u)
{
    bool cut = u->message_done && u->c->end_mark && !u->c->saw_end;
    u->message_done &= !cut;
    return cut;
}

static void end_cut_short(struct conn *c)
{
    batch_flush_conn(c); /* what came goes first; the client may be gone by it */
    if (c->phase == PHASE_RELAY && c->up)
        relay_upstream_died(c->up, 0);
}

/* The head of the answer, with what came of the body. */
static void pass_on_first(struct up *u, struct str raw)
{
    struct http_server *s = u->s;
    struct conn *c = u->c;
    struct msg *m = u->in;
    char *block = batch_room(s, ANSWER_BLOCK);
    struct put w = {block, block + ANSWER_BLOCK, false};
    begin_answer(u, llhttp_get_status_code(&u->parser), &w);
    response_count(u, true);
    bool broken = is_cut_short(u);
    struct str body = response_frame(u, raw, true);
    u->in = NULL; /* the connection may be gone when the body was sent */
    if (u->cut)
        up_watch(u, true, false);
    send_first(u, &w, block, body);
    msg_put(s, m);
    if (broken)
        end_cut_short(c);
}

/* ---- answers made here ---- */

/* A buffer whose content begins behind the headroom. */
static struct buf with_headroom(void)
{
    struct buf b = {0};
    (void)buf_append(&b, (const char[READ_HEADROOM]){0}, READ_HEADROOM);
    return b;
}

struct str response_stream_piece(const struct conn *c, struct buf *out, bool last)
{
    (void)buf_reserve(out, READ_TAILROOM);
    struct str payload = {out->data + READ_HEADROOM, out->n - READ_HEADROOM};
    return c->streamed && !c->http10 ? response_frame_chunk(payload, last) : payload;
}

/* A piece of an answer that is made here, or all of it; before the first one its head. */
static void send_made(struct up *u, int status, struct buf *out)
{
    struct conn *c = u->c;
    struct http_server *s = u->s;
    struct msg *head = NULL;
    char *block = batch_room(s, ANSWER_BLOCK);
    struct put w = {block, block + ANSWER_BLOCK, false};
    if (c->phase != PHASE_RELAY) {
        head = u->in;
        u->framing = made_streams(c) ? FRAME_CHUNKED : FRAME_LENGTH;
        u->length = out->n - READ_HEADROOM;
        c->t_body = clock_mono_us();
        begin_answer(u, status, &w);
        u->in = NULL; /* the connection may be gone when the bytes were sent */
    }
    if (u->message_done)
        made_account(c);
    send_first(u, &w, block, response_stream_piece(c, out, u->message_done));
    msg_put(s, head);
}

static void make(struct up *u)
{
    struct conn *c = u->c;
    struct buf out = with_headroom();
    int status = 0;
    if (u->message_done)
        c->t_upstream_end = clock_mono_us();
    switch (made_feed(u, &out, &status)) {
    case MADE_MORE:
        if (u->limited && made_has_begun(c))
            limit_heard(u);
        if (out.n > READ_HEADROOM && made_streams(c))
            send_made(u, status, &out);
        break;
    case MADE_WHOLE: send_made(u, status, &out); break;
    case MADE_AGAIN: relay_again(u); break;
    case MADE_FAILED: break;
    }
    buf_release(&out);
}

void response_end_made(struct up *u)
{
    u->keep_alive = false;
    u->message_done = true;
    u->s->n_segments = 0;
    make(u);
}

void response_break_off(struct conn *c, const char *outcome, struct buf *last_words)
{
    batch_flush_conn(c);
    if (c->phase == PHASE_CLOSED)
        return;
    relay_break_off(c);
    c->keep_alive = false;
    c->outcome = outcome;
    struct str words = response_stream_piece(c, last_words, false);
    struct iovec iov = {(void *)(uintptr_t)words.p, words.n};
    if (words.n && !conn_write(c, &iov, 1))
        return;
    if (c->http10) /* whose end would look like any other */
        conn_lost(c, outcome, true);
    else
        conn_answered(c);
}

/* ---- answers passed on ---- */

/* Passes on what one read brought; it lies in the turn's block. */
static void pass_on(struct up *u, struct str raw)
{
    struct conn *c = u->c;
    response_count(u, false);
    bool broken = is_cut_short(u);
    struct str out = response_frame(u, raw, false);
    if (out.n)
        send_soon(c, out);
    else if (u->message_done)
        answer_complete(c);
    if (broken)
        end_cut_short(c);
}

static void note_time(struct up *u)
{
    struct conn *c = u->c;
    uint64_t now = clock_mono_us();
    if (u->s->n_segments && !c->t_body)
        c->t_body = now;
    if (u->message_done)
        c->t_upstream_end = now;
}

static void on_eof(struct up *u)
{
    struct conn *c = u->c;
    if (u->head_done && made_until_eof(c)) {
        response_end_made(u);
        return;
    }
    if (!u->head_done || u->framing != FRAME_EOF || (c->end_mark && !c->saw_end)) {
        relay_upstream_died(u, 0);
        return;
    }
    u->message_done = true;
    u->s->n_segments = 0;
    note_time(u);
    pass_on(u, (struct str){batch_room(u->s, READ_HEADROOM + READ_TAILROOM) + READ_HEADROOM, 0});
}

static void feed(struct up *u, char *p, size_t n)
{
    struct http_server *s = u->s;
    bool first = !u->head_done;
    if (u->c->awake)
        prefill_release(u->c);
    u->raw_ok = !first && u->clean;
    s->n_segments = 0;
    /* The common read of a stream leaves llhttp where it stands: between two chunks. */
    if (u->raw_ok && !u->c->http10 && !u->c->held && response_take_chunks(u, p, n)) {
        if (!u->c->t_body)
            note_time(u);
        if (u->limited)
            limit_heard(u);
        response_count(u, false);
        send_soon(u->c, (struct str){p, n});
        return;
    }
    s->n_segments = 0;
    llhttp_errno_t e = llhttp_execute(&u->parser, p, n);
    if (e != HPE_OK && !(e == HPE_PAUSED && u->message_done)) {
        u->got_bytes = true;
        relay_upstream_died(u, EPROTO);
        return;
    }
    if (u->message_done) {
        size_t used = (size_t)(llhttp_get_error_pos(&u->parser) - p);
        if (used < n) /* bytes that belong to no answer: the connection cannot be trusted any more */
            u->keep_alive = false;
        n = used;
    }
    if (first && u->head_done && retry_unserved(u))
        return;
    if (first && u->head_done && u->c->told && !u->c->made && !is_stream(u))
        made_expect_error(u);
    if (u->c->made && u->head_done && (!first || made_begin(u))) {
        make(u);
        return;
    }
    if (u->c->held && u->head_done)
        prefill_filter(u);
    if (u->message_done || (s->n_segments && !u->c->t_body))
        note_time(u);
    if (u->limited && s->n_segments)
        limit_heard(u);
    if (u->head_done && first)
        pass_on_first(u, (struct str){p, n});
    else if (u->head_done)
        pass_on(u, (struct str){p, n});
    else if (u->in->n + READ_TAILROOM >= u->in->cap)
        relay_upstream_died(u, EMSGSIZE);
}

void response_readable(struct up *u)
{
    struct http_server *s = u->s;
    if (u->c) /* what an earlier read brought goes first */
        batch_flush_conn(u->c);
    if (!u->c) {
        up_close(u);
        return;
    }
    if (u->sock.fd < 0)
        return;
    if (conn_pending(u->c)) { /* the client takes its time */
        up_watch(u, false, u->n_iov > 0);
        return;
    }
    char *p = NULL;
    size_t room = READ_BYTES;
    if (u->head_done) {
        p = batch_room(s, READ_HEADROOM + READ_BYTES + READ_TAILROOM) + READ_HEADROOM;
    } else {
        if (!u->in)
            u->in = msg_get(s);
        p = u->in->data + u->in->n;
        room = u->in->cap - u->in->n - READ_TAILROOM;
    }
    ssize_t r = sock_recv(&u->sock, p, room);
    if (r < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (r < 0) {
        relay_upstream_died(u, errno);
        return;
    }
    if (r == 0) {
        on_eof(u);
        return;
    }
    u->got_bytes = true;
    if (!u->head_done)
        u->in->n += (size_t)r;
    feed(u, p, (size_t)r);
}
