/* The answer's way back: parsing it strictly, writing a head of our own, passing the body on as it comes.
 * Layer proxy; loop thread only.
 *
 * What one read returned goes out in one send. A chunked body is validated by llhttp; when a read starts and
 * ends between chunks and carried neither extensions nor trailers, its very bytes go out, else its payload is
 * framed again as one chunk, in place. While the client does not take what was sent, the backend is not read.
 * A body that ends before its framing says so becomes a broken stream for the client, never a whole one. */
#include "proxy/proxy_priv.h"

#include "base/clock.h"
#include "base/mem.h"
#include "proxy/put.h"

#include <errno.h>
#include <string.h>

/* An answer's head, and what came of the body if that is small. */
#define ANSWER_BLOCK (MSG_BYTES + 8192u)

/* ---- llhttp's callbacks ---- */

static int checked(enum head_problem p)
{
    return p == HEAD_FINE ? 0 : HPE_USER;
}

static int on_header_field(llhttp_t *p, const char *at, size_t n)
{
    struct up *u = p->data;
    if (u->head_done) { /* a trailer */
        u->raw_ok = false;
        return 0;
    }
    return checked(head_name(&u->in->head, u->in->data, at, n));
}

static int on_header_field_complete(llhttp_t *p)
{
    struct up *u = p->data;
    if (!u->head_done)
        head_name_end(&u->in->head);
    return 0;
}

static int on_header_value(llhttp_t *p, const char *at, size_t n)
{
    struct up *u = p->data;
    return u->head_done ? 0 : checked(head_value(&u->in->head, u->in->data, at, n));
}

static int on_headers_complete(llhttp_t *p)
{
    struct up *u = p->data;
    const struct conn *c = u->c;
    struct head *h = &u->in->head;
    int status = llhttp_get_status_code(p);
    if (status == 101 || status < 100 || p->http_major != 1)
        return -1;
    u->interim = status < 200;
    if (u->interim)
        return 0;
    head_close(h, u->in->data);
    u->head_done = true;
    bool coded = h->seen[HDR_TRANSFER_ENCODING] != 0, sized = h->seen[HDR_CONTENT_LENGTH] != 0;
    if (c->head_only || status == 204 || status == 304) {
        u->framing = FRAME_NONE;
        return 1;
    }
    if (h->seen[HDR_CONTENT_LENGTH] > 1 || (coded && sized))
        return -1;
    if (coded) {
        if (h->seen[HDR_TRANSFER_ENCODING] > 1 ||
            !str_ieq(head_get(h, u->in->data, HDR_TRANSFER_ENCODING), STR("chunked")))
            return -1;
        u->framing = FRAME_CHUNKED;
    } else {
        u->framing = sized ? FRAME_LENGTH : FRAME_EOF;
        u->length = sized ? p->content_length : 0;
    }
    return 0;
}

static int hex_digit(char ch)
{
    if (ch >= '0' && ch <= '9')
        return ch - '0';
    ch = (char)(ch | 0x20);
    return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

static void compact(struct http_server *s)
{
    char *to = s->segments[0].p;
    size_t n = 0;
    for (uint32_t i = 0; i < s->n_segments; i++) {
        if (to + n != s->segments[i].p)
            memmove(to + n, s->segments[i].p, s->segments[i].n);
        n += s->segments[i].n;
    }
    s->segments[0].n = n;
    s->n_segments = 1;
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
    struct up *u = p->data;
    struct http_server *s = u->s;
    if (s->n_segments == SEGMENTS) {
        u->raw_ok = false;
        compact(s);
    }
    s->segments[s->n_segments++] = (struct segment){(char *)(uintptr_t)at, n};
    s->payload_end = at + n;
    return 0;
}

static int on_chunk_header(llhttp_t *p)
{
    struct up *u = p->data;
    u->in_chunk = true;
    return 0;
}

static int on_chunk_complete(llhttp_t *p)
{
    struct up *u = p->data;
    u->in_chunk = false;
    return 0;
}

static int on_extension(llhttp_t *p, const char *at, size_t n)
{
    (void)at;
    (void)n;
    struct up *u = p->data;
    u->raw_ok = false;
    return 0;
}

static int on_message_complete(llhttp_t *p)
{
    struct up *u = p->data;
    if (u->interim) {
        u->interim = false;
        head_reset(&u->in->head);
        return 0;
    }
    u->message_done = true;
    u->keep_alive = llhttp_should_keep_alive(p) && u->framing != FRAME_EOF && !u->cut;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_header_field = on_header_field,
    .on_header_field_complete = on_header_field_complete,
    .on_header_value = on_header_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_chunk_header = on_chunk_header,
    .on_chunk_complete = on_chunk_complete,
    .on_chunk_extension_name = on_extension,
    .on_message_complete = on_message_complete,
};

void response_start(struct up *u)
{
    llhttp_init(&u->parser, HTTP_RESPONSE, &settings);
    u->parser.data = u;
    u->framing = FRAME_NONE;
    u->got_bytes = u->head_done = u->message_done = u->interim = u->keep_alive = u->cut = false;
    u->raw_ok = u->in_chunk = u->clean = false;
}

/* ---- our head ---- */

/* What describes the backend's body and is not true of one that is made here. */
static const bool of_body[HDR_COUNT] = {[HDR_CONTENT_TYPE] = true, [HDR_CONTENT_ENCODING] = true};

/* Its place when it came to wait, and the seconds that it was to wait. */
static void put_queue(const struct conn *c, struct put *w)
{
    put_lit(w, "X-Arriero-Queue: ");
    put_u64(w, c->lease.queue_position);
    put_lit(w, "; expected=");
    put_u64(w, c->lease.queue_expected_ms / 1000);
    put_lit(w, ".");
    put_u64(w, c->lease.queue_expected_ms % 1000 / 100);
    put_lit(w, "\r\n");
}

static void put_head(struct up *u, struct put *w)
{
    struct conn *c = u->c;
    const struct msg *m = u->in;
    const struct head *h = &m->head;
    put_lit(w, "HTTP/1.1 ");
    put_u64(w, (uint64_t)c->status);
    put_lit(w, " ");
    put_cstr(w, errors_reason(c->status));
    put_lit(w, "\r\n");
    head_copy(h, m->data, HEAD_TO_CLIENT, c->made ? of_body : NULL, w);
    if (c->made) {
        put_lit(w, "Content-Type: ");
        put_cstr(w, made_type(c));
        put_lit(w, "\r\n");
    }
    if (u->framing == FRAME_LENGTH ||
        (u->framing == FRAME_NONE && h->seen[HDR_CONTENT_LENGTH] && c->head_only)) {
        put_lit(w, "Content-Length: ");
        if (u->framing == FRAME_LENGTH)
            put_u64(w, u->length);
        else
            put_str(w, head_get(h, m->data, HDR_CONTENT_LENGTH));
        put_lit(w, "\r\n");
    } else if (u->framing != FRAME_NONE && !c->http10) {
        put_lit(w, "Transfer-Encoding: chunked\r\n");
    }
    if (!c->keep_alive)
        put_lit(w, "Connection: close\r\n");
    else if (c->http10)
        put_lit(w, "Connection: keep-alive\r\n");
    if (c->streamed)
        put_lit(w, "X-Accel-Buffering: no\r\n");
    put_lit(w, "X-Request-Id: ");
    put_cstr(w, c->id_text);
    put_lit(w, "\r\nX-Arriero-Instance: ");
    for (const char *p = c->lease.instance; *p; p++) /* ids come from file names, which may hold anything */
        put_bytes(w, *p > 0x20 && *p < 0x7f ? p : "?", 1);
    put_lit(w, "\r\nX-Arriero-Queue-Ms: ");
    put_u64(w, c->t_wait_us / 1000);
    put_lit(w, "\r\n");
    admit_fields(c, w);
    if (c->lease.queue_position)
        put_queue(c, w);
    if (c->in && c->in->head.seen[HDR_ORIGIN])
        w->p += local_cors(c, w->p, (size_t)(w->end - w->p));
    put_lit(w, "\r\n");
}

static void begin_answer(struct up *u, int status, struct put *w)
{
    struct conn *c = u->c;
    struct str type = head_get(&u->in->head, u->in->data, HDR_CONTENT_TYPE);
    c->status = status;
    c->streamed = c->made ? made_streams(c)
                          : type.n >= 17 && str_ieq((struct str){type.p, 17}, STR("text/event-stream"));
    bool chunked = u->framing == FRAME_CHUNKED || u->framing == FRAME_EOF;
    if ((c->http10 && chunked) || c->s->draining)
        c->keep_alive = false;
    put_head(u, w);
    u->cut = u->cut || u->n_iov > 0;
    u->n_iov = 0; /* what the request's bytes were kept for */
    c->phase = PHASE_RELAY;
    conn_release_input(c);
}

/* ---- the body ---- */

static void keep_tail(struct conn *c, struct str bytes)
{
    if (!c->tail) {
        c->tail = mem_realloc(NULL, 1, sizeof *c->tail);
        c->tail->total = 0;
    }
    account_tail_feed(c->tail, bytes.p, bytes.n);
}

/* Keeps what the accounting may need: of a stream, the events that name usage or timings, and those that a
 * read cut in two; of anything else, the tail. A body that came in one read is looked at in place. */
static void account(struct up *u, bool first)
{
    struct conn *c = u->c;
    struct http_server *s = u->s;
    if (c->status != 200 || c->method != HTTP_POST)
        return;
    if (first && u->message_done && s->n_segments == 1) {
        struct segment g = s->segments[0];
        size_t n = g.n < ACCOUNT_WINDOW ? g.n : ACCOUNT_WINDOW;
        account_read((struct str){g.p + g.n - n, n}, &c->usage);
        return;
    }
    for (uint32_t i = 0; i < s->n_segments; i++) {
        struct str bytes = {s->segments[i].p, s->segments[i].n};
        bool whole = c->streamed && u->framing == FRAME_CHUNKED && str_ends(bytes, "\n\n");
        if (!whole || c->cut_event || account_wants(bytes))
            keep_tail(c, bytes);
        c->cut_event = !whole;
    }
}

static void account_end(struct conn *c)
{
    char window[ACCOUNT_WINDOW];
    if (c->tail)
        account_read(account_tail_str(c->tail, window), &c->usage);
}

/* Whether the read ended just behind a chunk (or behind the last one). What llhttp was given since the last
 * payload is compared with what must stand there, so the start of a size line does not pass for a boundary.
 */
static bool ends_clean(const struct up *u, struct str raw, bool first)
{
    static const struct str after[2] = {{"\r\n", 2}, {"\r\n0\r\n\r\n", 7}};
    if (u->in_chunk)
        return false;
    if (!u->s->n_segments && first)
        return !u->message_done && str_ends(raw, "\r\n\r\n"); /* the head, and nothing else */
    if (!u->s->n_segments)
        return u->raw_ok && (u->message_done ? str_eq_c(raw, "0\r\n\r\n") : !raw.n);
    struct str rest = {u->s->payload_end, (size_t)(raw.p + raw.n - u->s->payload_end)};
    return str_eq(rest, after[u->message_done]);
}

/* The payload as one chunk, in place, and behind it the last one. In front of a payload there is room: the
 * headroom, or the head that was parsed and is written anew. Behind it there is the tailroom. */
static struct str frame_chunk(struct str payload, bool last)
{
    char *p = (char *)(uintptr_t)payload.p, size[24];
    struct put w = {size, size + sizeof size, false};
    struct put tail = {p + payload.n, p + payload.n + READ_TAILROOM, false};
    if (payload.n) {
        put_hex(&w, payload.n);
        put_lit(&w, "\r\n");
        put_lit(&tail, "\r\n");
        p -= w.p - size;
        memmove(p, size, (size_t)(w.p - size));
    }
    if (last)
        put_lit(&tail, "0\r\n\r\n");
    return (struct str){p, (size_t)(tail.p - p)};
}

/* The bytes that go out for the segments of one read, contiguous, framed for the client. raw covers the read.
 */
static struct str frame_body(struct up *u, struct str raw, bool first)
{
    struct http_server *s = u->s;
    bool chunked = (u->framing == FRAME_CHUNKED || u->framing == FRAME_EOF) && !u->c->http10;
    if (u->framing == FRAME_CHUNKED) {
        u->clean = ends_clean(u, raw, first);
        if (u->raw_ok && u->clean && chunked)
            return raw;
    }
    if (s->n_segments > 1)
        compact(s);
    struct str out = {raw.p + raw.n, 0}; /* where there is room for the last chunk */
    if (s->n_segments)
        out = (struct str){s->segments[0].p, s->segments[0].n};
    return chunked ? frame_chunk(out, u->message_done) : out;
}

static void answer_complete(struct conn *c)
{
    account_end(c);
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

/* The head of the answer, with what came of the body. */
static void pass_on_first(struct up *u, struct str raw)
{
    struct http_server *s = u->s;
    struct msg *m = u->in;
    char *block = batch_room(s, ANSWER_BLOCK);
    struct put w = {block, block + ANSWER_BLOCK, false};
    begin_answer(u, llhttp_get_status_code(&u->parser), &w);
    account(u, true);
    struct str body = frame_body(u, raw, true);
    u->in = NULL; /* the connection may be gone when the body was sent */
    if (u->cut)
        up_watch(u, true, false);
    send_first(u, &w, block, body);
    msg_put(s, m);
}

/* ---- answers made here ---- */

/* A buffer whose content begins behind the headroom. */
static struct buf with_headroom(void)
{
    struct buf b = {0};
    (void)buf_append(&b, (const char[READ_HEADROOM]){0}, READ_HEADROOM);
    return b;
}

static struct str made_payload(struct conn *c, struct buf *out, bool last)
{
    (void)buf_reserve(out, READ_TAILROOM);
    struct str payload = {out->data + READ_HEADROOM, out->n - READ_HEADROOM};
    return c->streamed && !c->http10 ? frame_chunk(payload, last) : payload;
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
    send_first(u, &w, block, made_payload(c, out, u->message_done));
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
    struct str words = made_payload(c, last_words, false);
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
    account(u, false);
    struct str out = frame_body(u, raw, false);
    if (out.n)
        send_soon(u->c, out);
    else if (u->message_done)
        answer_complete(u->c);
}

static bool stream_is_done(const struct conn *c)
{
    char window[ACCOUNT_WINDOW];
    return c->tail && account_stream_done(account_tail_str(c->tail, window));
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
    if (!u->head_done || u->framing != FRAME_EOF ||
        (c->streamed && c->method == HTTP_POST && !stream_is_done(c))) {
        relay_upstream_died(u, 0);
        return;
    }
    u->message_done = true;
    u->s->n_segments = 0;
    note_time(u);
    pass_on(u, (struct str){batch_room(u->s, READ_HEADROOM + READ_TAILROOM) + READ_HEADROOM, 0});
}

/* Whole chunks and nothing else, checked byte by byte: true, and their payloads are the segments. */
static bool take_whole_chunks(struct up *u, char *p, size_t n)
{
    struct http_server *s = u->s;
    for (size_t at = 0; at < n;) {
        size_t size = 0, digits = 0;
        for (int d; at < n && digits < 8 && (d = hex_digit(p[at])) >= 0; at++, digits++)
            size = size << 4 | (size_t)d;
        if (!digits || !size || n - at < size + 4 || memcmp(p + at, "\r\n", 2) != 0 ||
            memcmp(p + at + 2 + size, "\r\n", 2) != 0 || s->n_segments == SEGMENTS)
            return false;
        s->segments[s->n_segments++] = (struct segment){p + at + 2, size};
        at += size + 4;
    }
    return true;
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
    if (u->raw_ok && !u->c->http10 && !u->c->held && take_whole_chunks(u, p, n)) {
        if (!u->c->t_body)
            note_time(u);
        account(u, false);
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
    if (u->c->made && u->head_done && (!first || made_begin(u))) {
        make(u);
        return;
    }
    if (u->c->held && u->head_done)
        prefill_filter(u);
    if (u->message_done || (s->n_segments && !u->c->t_body))
        note_time(u);
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
    if (u->sock.fd < 0 || conn_pending(u->c))
        return;
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
