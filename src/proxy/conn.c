/* A client connection: reading, writing, deadlines, the step from one request to the next, closing. Layer
 * proxy; loop thread only.
 *
 * The client's socket is watched in every phase, so that a client that leaves is noticed at once. While a
 * request is being answered nothing is read: pipelined input stays in the kernel, and only a hang-up is
 * watched for. */
#include "proxy/proxy_priv.h"

#include "base/mem.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

#define LARGE_OUTPUT                                                                                         \
    ((size_t)4 << 20) /* more than a stream may have pending: its owner may outlive the server */

static void on_client(uv_poll_t *poll, int status, int events);
static void on_deadline(struct wheel_entry *e);
static void finish(struct conn *c);
static void close_socket(struct conn *c, bool abort);

void conn_watch(struct conn *c)
{
    int mask = 0;
    if (c->half_closed)
        mask = conn_pending(c) ? UV_WRITABLE : UV_PRIORITIZED; /* errors are always reported */
    else
        mask = UV_DISCONNECT | (c->input_paused ? 0 : UV_READABLE) | (conn_pending(c) ? UV_WRITABLE : 0);
    if (c->phase == PHASE_LINGER)
        mask = UV_READABLE;
    if (c->ghost)
        mask = 0;
    sock_want(&c->sock, mask, on_client);
}

void conn_deadline(struct conn *c, uint64_t after_ms)
{
    if (after_ms)
        wheel_set(&c->s->wheel, &c->timer, after_ms);
    else
        wheel_clear(&c->timer);
}

void conn_accept(struct listener *l, int fd)
{
    struct http_server *s = l->s;
    struct conn *c = mem_new(struct conn);
    if (sock_open(&c->sock, s->loop, fd) < 0) {
        free(c);
        return;
    }
    c->sock.poll.data = c;
    c->s = s;
    c->control = l->control;
    c->local_peer = l->is_unix;
    c->timer.fn = on_deadline;
    c->prev = s->conns.prev;
    c->next = &s->conns;
    c->prev->next = c;
    s->conns.prev = c;
    s->handles++;
    s->count.connections++;
    s->count.connections_total++;
    request_reset(c);
    if (l->tls && !(c->sock.tls = tls_accept(s->tls, fd))) {
        close_socket(c, true);
        return;
    }
    conn_deadline(c, l->tls ? s->opt.header_timeout_ms : s->opt.idle_timeout_ms); /* a handshake is short */
    conn_watch(c);
}

void conn_open_errand(struct conn *c, struct http_server *s)
{
    c->s = s;
    c->errand = c->half_closed = true;
    c->sock.fd = -1;
    c->timer.fn = on_deadline;
    c->prev = s->conns.prev;
    c->next = &s->conns;
    c->prev->next = c;
    s->conns.prev = c;
    request_reset(c);
}

/* ---- closing ---- */

static void on_closed(uv_handle_t *h)
{
    struct conn *c = h->data;
    struct http_server *s = c->s;
    c->closed = true;
    if (!c->owed)
        free(c);
    server_handle_closed(s);
}

struct late_free {
    uv_work_t work;
    struct http_server *s;
    void *p;
};

static void on_free(uv_work_t *w)
{
    free(((struct late_free *)w->data)->p);
}

static void on_freed(uv_work_t *w, int status)
{
    struct late_free *l = w->data;
    struct http_server *s = l->s;
    if (status < 0)
        free(l->p);
    free(l);
    server_handle_closed(s);
}

/* Giving a hundred megabytes back takes the kernel longer than a turn of the loop may be. */
static void free_output(struct conn *c)
{
    void *p = take_ptr(c->out);
    bool large = c->out_cap > LARGE_OUTPUT;
    c->out_n = c->out_at = c->out_cap = 0;
    struct late_free *l = large ? mem_new(struct late_free) : NULL;
    if (!l) {
        free(p);
        return;
    }
    *l = (struct late_free){.work.data = l, .s = c->s, .p = p};
    if (uv_queue_work(c->s->loop, &l->work, on_free, on_freed) == 0) {
        c->s->handles++;
    } else {
        free(p);
        free(l);
    }
}

static void release_parts(struct conn *c)
{
    admit_end(c);
    msg_put(c->s, c->in);
    c->in = NULL;
    free_output(c);
    free(c->tail);
    prefill_release(c);
    made_release(c);
    progress_release(c);
    c->tail = NULL;
    free(c->path_buf);
    c->path_buf = NULL;
    c->target = c->path = c->query = (struct str){"", 0};
}

/* The local function may still look at the request, and may do so after the server is gone. */
static void detach_input(struct conn *c)
{
    if (c->in && c->in->data != c->in->own)
        c->s->count.body_bytes_in_flight -= c->in->cap;
}

static void close_socket(struct conn *c, bool abort)
{
    struct http_server *s = c->s;
    c->phase = PHASE_CLOSED;
    batch_forget_conn(c);
    wheel_remove(&s->wheel, &c->timer);
    c->prev->next = c->next;
    c->next->prev = c->prev;
    c->next = c->prev = NULL;
    s->count.connections -= !c->errand;
    if (c->owed)
        detach_input(c);
    else
        release_parts(c);
    if (!c->errand)
        sock_close(&c->sock, abort, on_closed);
    server_resume_listeners(s);
    server_drain_step(s);
    if (c->errand)
        errand_closed(c);
}

/* The answer that is under way is read to its end for nobody: what is written from here on goes nowhere. */
static void become_ghost(struct conn *c)
{
    c->ghost = c->half_closed = true;
    c->keep_alive = false;
    c->s->count.client_aborts++;
    free_output(c);
    conn_deadline(c, 0);
    conn_watch(c);
    if (c->up)
        up_watch(c->up, true, c->up->n_iov > 0);
    batch_flush_conn(c);
}

static bool drains(const struct conn *c, const char *outcome)
{
    bool left = outcome && (!strcmp(outcome, "client_closed") || !strcmp(outcome, "timeout"));
    return left && c->leased && c->lease.drain && !c->ghost &&
           (c->phase == PHASE_PREFILL || c->phase == PHASE_RELAY);
}

void conn_lost(struct conn *c, const char *outcome, bool abort)
{
    enum phase was = c->phase;
    if (was == PHASE_CLOSED)
        return;
    if (outcome && !c->outcome)
        c->outcome = outcome;
    if (drains(c, outcome)) {
        become_ghost(c);
        return;
    }
    c->phase = PHASE_CLOSED; /* nothing called from here may come back */
    batch_forget_conn(c);
    if (was > PHASE_HEAD && was < PHASE_FLUSH && !c->ghost)
        c->s->count.client_aborts += c->outcome && !strcmp(c->outcome, "client_closed");
    if (was == PHASE_LOCAL || was == PHASE_STREAM) {
        /* Broken: the owner of a stream ends it yet; a reply that broke was the owner's last word. */
        c->owed = c->broken ? was == PHASE_STREAM : !c->abort_fn;
        if (c->abort_fn && !c->broken)
            c->abort_fn(c->abort_arg);
    } else if (was >= PHASE_TRANSLATE && was <= PHASE_RELAY) {
        relay_cancel(c, was);
    }
    if (conn_relays(c) && was >= PHASE_BODY && was <= PHASE_FLUSH)
        relay_record(c);
    close_socket(c, abort);
}

bool conn_settle(struct conn *c)
{
    if (!c->owed)
        return false;
    c->owed = false;
    if (c->in && c->in->data != c->in->own)
        free(c->in->data);
    free(c->in);
    c->in = NULL;
    release_parts(c);
    if (c->closed)
        free(c);
    return true;
}

/* ---- writing ---- */

static ssize_t send_now(struct conn *c, const struct iovec *iov, int n)
{
    ssize_t r = sock_send(&c->sock, iov, n);
    return r < 0 && errno == EAGAIN ? 0 : r;
}

static void queue(struct conn *c, const struct iovec *iov, int n, size_t skip, size_t left)
{
    if (c->out_cap - c->out_n < left) {
        if (c->out_at) {
            memmove(c->out, c->out + c->out_at, conn_pending(c));
            c->out_n -= c->out_at;
            c->out_at = 0;
        }
        size_t cap = c->out_n + left;
        if (cap > c->out_cap) {
            c->out = mem_realloc(c->out, cap, 1);
            c->out_cap = cap;
        }
    }
    for (int i = 0; i < n; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        memcpy(c->out + c->out_n, (const char *)iov[i].iov_base + skip, iov[i].iov_len - skip);
        c->out_n += iov[i].iov_len - skip;
        skip = 0;
    }
}

/* What is left of a body, all of whose head was sent, becomes the pending output as it lies there. */
static bool take(struct conn *c, struct buf *own, size_t left)
{
    if (!own || conn_pending(c) || left > own->n)
        return false;
    free(c->out);
    c->out = own->data;
    c->out_n = own->n;
    c->out_cap = own->cap;
    c->out_at = own->n - left;
    *own = (struct buf){0};
    return true;
}

bool conn_write(struct conn *c, const struct iovec *iov, int n)
{
    return conn_write_taking(c, iov, n, NULL);
}

bool conn_write_taking(struct conn *c, const struct iovec *iov, int n, struct buf *own)
{
    size_t total = 0;
    for (int i = 0; i < n; i++)
        total += iov[i].iov_len;
    if (c->ghost)
        return c->phase != PHASE_CLOSED;
    if (c->broken || c->phase == PHASE_CLOSED)
        return false;
    if (c->errand) {
        errand_written(c, iov, n);
        return true;
    }
    if (__builtin_expect(c->capture != NULL, 0))
        capture_sent(c, iov, n);
    size_t sent = 0;
    if (!conn_pending(c)) {
        ssize_t r = send_now(c, iov, n);
        if (r < 0) {
            /* A stream's owner ends it when it is told; everything else ends here. */
            c->broken = true;
            if (c->phase == PHASE_STREAM)
                sock_want(&c->sock, 0, on_client);
            else
                conn_lost(c, "client_closed", true);
            return c->ghost;
        }
        sent = (size_t)r;
    }
    c->response_bytes += total;
    if (sent == total)
        return true;
    bool first = !conn_pending(c);
    if (!take(c, own, total - sent))
        queue(c, iov, n, sent, total - sent);
    if (first) {
        conn_deadline(c, c->s->opt.write_timeout_ms);
        conn_watch(c);
    }
    return true;
}

static void drained(struct conn *c)
{
    free_output(c);
    if (c->phase == PHASE_FLUSH) {
        finish(c);
        return;
    }
    if (c->phase >= PHASE_LOCAL && c->phase != PHASE_CONNECT && c->phase != PHASE_BACKOFF)
        conn_deadline(c, 0);
    conn_watch(c);
    if (c->phase >= PHASE_PREFILL && c->up)
        up_watch(c->up, true, false);
}

static void flush(struct conn *c)
{
    struct iovec iov = {c->out + c->out_at, conn_pending(c)};
    if (!iov.iov_len)
        return;
    ssize_t r = send_now(c, &iov, 1);
    if (r < 0) {
        conn_lost(c, "client_closed", true);
        return;
    }
    c->out_at += (size_t)r;
    if (!conn_pending(c))
        drained(c);
    else if (r > 0)
        conn_deadline(c, c->s->opt.write_timeout_ms);
}

/* ---- from one request to the next ---- */

void conn_release_input(struct conn *c)
{
    if (!c->in || c->in->n > c->in->parsed)
        return;
    msg_put(c->s, c->in);
    c->in = NULL;
    c->target = c->path = c->query = c->model = (struct str){"", 0};
}

static void next_request(struct conn *c)
{
    struct msg *m = c->in;
    if (m && m->n > m->parsed) {
        memmove(m->data, m->data + m->parsed, m->n - m->parsed);
        m->n -= m->parsed;
        m->parsed = m->head_n = m->body_n = 0;
        head_reset(&m->head);
    } else {
        msg_put(c->s, m);
        c->in = NULL;
    }
    free(c->path_buf);
    free(c->tail);
    prefill_release(c);
    made_release(c);
    progress_release(c);
    admit_end(c);
    request_reset(c);
    c->phase = PHASE_HEAD;
    c->input_paused = false;
    conn_deadline(c, c->in ? c->s->opt.header_timeout_ms : c->s->opt.idle_timeout_ms);
}

/* Unread input would turn the close into a reset that destroys the answer on its way: the client gets time to
 * read it first. */
static void linger(struct conn *c)
{
    sock_end(&c->sock);
    release_parts(c);
    c->phase = PHASE_LINGER;
    c->discarded = 0;
    conn_deadline(c, LINGER_MS);
    conn_watch(c);
}

static void finish(struct conn *c)
{
    if (conn_relays(c))
        relay_record(c);
    if (c->keep_alive && !c->s->draining && !c->half_closed) {
        next_request(c);
        conn_process(c);
        return;
    }
    if (!c->half_closed && (!c->complete || c->input_paused || (c->in && c->in->n > c->in->parsed)))
        linger(c);
    else
        close_socket(c, false);
}

void conn_answered(struct conn *c)
{
    if (c->phase == PHASE_CLOSED)
        return;
    if (!conn_pending(c)) {
        finish(c);
        return;
    }
    c->phase = PHASE_FLUSH;
    conn_watch(c);
}

void conn_process(struct conn *c)
{
    if (c->processing)
        return;
    c->processing = true;
    while (c->phase <= PHASE_BODY && c->in && c->in->parsed < c->in->n)
        request_parse(c);
    c->processing = false;
    if (c->phase != PHASE_CLOSED)
        conn_watch(c);
}

/* ---- events ---- */

/* Room for more of the body; false after a refusal. A declared length is not trusted at once: who has sent a
 * sixteenth of it gets room for all. Smaller steps would copy every byte more than once. */
static bool make_room(struct conn *c)
{
    struct msg *m = c->in;
    if (m->n < m->cap)
        return true;
    bool declared = c->content_length != UINT64_MAX;
    size_t want = m->cap * (declared ? 16 : 2);
    if (declared && want > m->head_n + c->content_length)
        want = m->head_n + (size_t)c->content_length;
    if (want <= m->cap)
        want = m->cap + MSG_BYTES;
    uint64_t used = c->s->count.body_bytes_in_flight - (m->data == m->own ? 0 : m->cap);
    if (used + want <= c->s->opt.body_budget_bytes && msg_grow(c->s, m, want))
        return true;
    errors_refuse(c, &(struct refusal){.status = 503,
                                       .code = RC_BUSY,
                                       .text = "too many large request bodies are in flight"});
    return false;
}

/* The client's TLS is broken: nothing more can be read. It gets time to read the alert. */
static void end_broken_tls(struct conn *c)
{
    if (c->phase == PHASE_BODY) {
        c->s->count.client_aborts++;
        if (!c->outcome)
            c->outcome = "client_closed";
        if (conn_relays(c))
            relay_record(c);
    }
    sock_drop_tls(&c->sock);
    linger(c);
}

static void read_input(struct conn *c)
{
    struct http_server *s = c->s;
    bool fresh = !c->in;
    if (fresh)
        c->in = msg_get(s);
    if (!make_room(c))
        return;
    size_t room = c->in->cap - c->in->n;
    ssize_t r = sock_recv(&c->sock, c->in->data + c->in->n, room < BODY_READ_BYTES ? room : BODY_READ_BYTES);
    if (r <= 0) {
        if (r < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (fresh)
                conn_release_input(c);
            if (!c->greeted && c->sock.tls && tls_established(c->sock.tls)) {
                c->greeted = true; /* from now on it is idle, whatever records come that bring nothing */
                conn_deadline(c, s->opt.idle_timeout_ms);
            }
            return;
        }
        if (r < 0 && errno == EPROTO && c->sock.tls) {
            end_broken_tls(c);
            return;
        }
        conn_lost(c, "client_closed", r < 0);
        return;
    }
    c->greeted = true;
    if (fresh || c->phase == PHASE_BODY)
        conn_deadline(c, s->opt.header_timeout_ms);
    c->in->n += (size_t)r;
    conn_process(c);
}

static void discard_input(struct conn *c)
{
    ssize_t r = sock_recv(&c->sock, c->s->scratch, sizeof c->s->scratch);
    if (r < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (r > 0)
        c->discarded += (size_t)r;
    if (r <= 0 || c->discarded > LINGER_BYTES)
        close_socket(c, false);
}

static void client_event(struct conn *c, int events)
{
    if (events & UV_WRITABLE)
        flush(c);
    if (c->phase == PHASE_CLOSED || !(events & (UV_READABLE | UV_DISCONNECT)))
        return;
    if (c->phase <= PHASE_BODY) {
        read_input(c);
    } else if (c->phase == PHASE_LINGER) {
        discard_input(c);
    } else if (!(events & UV_DISCONNECT)) {
        c->input_paused = true;
        conn_watch(c);
    } else if (c->s->opt.half_close_keep || c->phase == PHASE_FLUSH) {
        c->half_closed = true;
        conn_watch(c);
    } else {
        conn_lost(c, "client_closed", false);
    }
}

static void on_client(uv_poll_t *poll, int status, int events)
{
    struct conn *c = poll->data;
    batch_begin(c->s);
    if (status < 0) {
        sock_stopped(&c->sock);
        conn_lost(c, "client_closed", true);
        return;
    }
    client_event(c, sock_events(&c->sock, events));
    sock_settle(&c->sock, on_client);
}

static void on_deadline(struct wheel_entry *e)
{
    struct conn *c = container_of(e, struct conn, timer);
    switch (c->phase) {
    case PHASE_HEAD:
        if (!c->in || !c->in->n) {
            conn_lost(c, NULL, false);
            break;
        }
        errors_refuse(c, &(struct refusal){.status = 408,
                                           .code = RC_TIMEOUT,
                                           .text = "the request's head did not arrive in time"});
        break;
    case PHASE_BODY:
        errors_refuse(c, &(struct refusal){.status = 408,
                                           .code = RC_TIMEOUT,
                                           .text = "the request's body did not arrive in time"});
        break;
    case PHASE_LINGER: close_socket(c, false); break;
    case PHASE_BACKOFF: retry_now(c); break;
    case PHASE_CONNECT: relay_timeout(c); break;
    default: conn_lost(c, "timeout", true); break;
    }
}
