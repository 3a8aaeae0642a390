/* One HTTP request on the loop: see call.h. */
#include "pool/call.h"

#include "base/buf.h"
#include "base/mem.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define STATUS_BYTES 12u    /* "HTTP/1.1 200" */
#define HEAD_MAX     16384u /* of an answer */
#define READ_BYTES   16384u

struct call {
    uv_tcp_t tcp;
    uv_timer_t timer;
    uv_connect_t connect;
    uv_write_t write;
    unsigned handles;
    int late;   /* what the timer tells */
    call_cb cb; /* NULL once told or cancelled */
    void *arg;
    size_t max_body;
    struct buf request, reply;
    struct str body; /* of the answer, once it is whole */
};

static void on_closed(uv_handle_t *h)
{
    struct call *c = h->data;
    if (--c->handles > 0)
        return;
    buf_release(&c->request);
    buf_release(&c->reply);
    free(c);
}

static void finish(struct call *c, int status)
{
    if (uv_is_closing((uv_handle_t *)&c->timer))
        return;
    uv_close((uv_handle_t *)&c->tcp, on_closed);
    uv_close((uv_handle_t *)&c->timer, on_closed);
    call_cb cb = c->cb;
    c->cb = NULL;
    if (cb)
        cb(c->arg, status);
}

static void on_timeout(uv_timer_t *t)
{
    struct call *c = t->data;
    finish(c, c->late);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    struct call *c = h->data;
    size_t room = c->max_body ? READ_BYTES : STATUS_BYTES;
    (void)suggested;
    bool ok = buf_reserve(&c->reply, room);
    *buf = uv_buf_init(ok ? c->reply.data + c->reply.n : NULL, ok ? (unsigned)room : 0);
}

static int status_of(struct str s)
{
    uint64_t code;
    if (s.n < STATUS_BYTES || !str_starts(s, "HTTP/1.") || s.p[8] != ' ' ||
        !str_u64((struct str){s.p + 9, 3}, &code))
        return -1;
    return (int)code;
}

/* Content-Length of a head; false if there is none that can be used. */
static bool length_of(struct str head, uint64_t *ret)
{
    static const char name[] = "content-length:";
    while (head.n) {
        struct str line = str_cut(&head, '\n');
        if (line.n >= sizeof name - 1 &&
            str_ieq((struct str){line.p, sizeof name - 1}, STR("content-length:")))
            return str_u64(str_trim((struct str){line.p + sizeof name - 1, line.n - (sizeof name - 1)}), ret);
    }
    return false;
}

enum progress { MORE, WHOLE, BROKEN };

/* Is the answer whole? Its end is told by its length, or by that of the connection. */
static enum progress look(struct call *c, bool ended)
{
    struct str all = buf_str(&c->reply);
    uint64_t length = 0;
    ptrdiff_t end = str_find(all, STR("\r\n\r\n"));
    if (end < 0)
        return ended || all.n > HEAD_MAX ? BROKEN : MORE;
    struct str head = {all.p, (size_t)end};
    c->body = (struct str){all.p + end + 4, all.n - (size_t)end - 4};
    bool told = length_of(head, &length);
    if ((told ? length : c->body.n) > c->max_body)
        return BROKEN;
    if (told && c->body.n >= length) {
        c->body.n = (size_t)length;
        return WHOLE;
    }
    return !ended ? MORE : told ? BROKEN : WHOLE;
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    struct call *c = s->data;
    (void)buf;
    if (n > 0)
        c->reply.n += (size_t)n;
    if (n == 0)
        return;
    if (c->max_body == 0) {
        if (n < 0 || c->reply.n >= STATUS_BYTES)
            finish(c, status_of(buf_str(&c->reply)));
        return;
    }
    enum progress p = n < 0 && n != UV_EOF ? BROKEN : look(c, n < 0);
    if (p != MORE)
        finish(c, p == WHOLE ? status_of(buf_str(&c->reply)) : -1);
}

static void on_written(uv_write_t *w, int status)
{
    if (status < 0)
        finish(w->data, -1);
}

static void on_connected(uv_connect_t *q, int status)
{
    struct call *c = q->data;
    if (status < 0) {
        finish(c, -1);
        return;
    }
    uv_buf_t b = uv_buf_init(c->request.data, (unsigned)c->request.n);
    c->write.data = c;
    if (uv_write(&c->write, q->handle, &b, 1, on_written) < 0 ||
        uv_read_start(q->handle, on_alloc, on_read) < 0)
        finish(c, -1);
}

static void put_request(struct call *c, const struct call_spec *s, bool v6)
{
    buf_printf(&c->request, "%s %s HTTP/1.1\r\nHost: %s%s%s\r\nConnection: close\r\n", s->method, s->path,
               v6 ? "[" : "", s->address, v6 ? "]" : "");
    if (s->body)
        buf_printf(&c->request, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(s->body));
    buf_printf(&c->request, "\r\n%s", s->body ? s->body : "");
}

struct call *call_start(uv_loop_t *loop, const struct call_spec *s, call_cb cb, void *arg)
{
    struct call *c = mem_new(struct call);
    bool v6 = strchr(s->address, ':') != NULL;
    c->cb = cb;
    c->arg = arg;
    c->max_body = s->max_body;
    c->reply.max = s->max_body + HEAD_MAX + READ_BYTES;
    put_request(c, s, v6);
    uv_tcp_init(loop, &c->tcp);
    uv_timer_init(loop, &c->timer);
    c->handles = 2;
    c->tcp.data = c->timer.data = c->connect.data = c;
    struct sockaddr_in to4;
    struct sockaddr_in6 to6;
    /* What fails at once is told by the timer: never a callback inside this call. */
    const struct sockaddr *to = v6 ? (const struct sockaddr *)&to6 : (const struct sockaddr *)&to4;
    int r = v6 ? uv_ip6_addr(s->address, s->port, &to6) : uv_ip4_addr(s->address, s->port, &to4);
    if (r == 0)
        r = uv_tcp_connect(&c->connect, &c->tcp, to, on_connected);
    bool ours = r == UV_EMFILE || r == UV_ENFILE || r == UV_ENOMEM || r == UV_ENOBUFS;
    c->late = ours ? CALL_UNASKED : -1;
    uv_timer_start(&c->timer, on_timeout, r < 0 ? 0 : s->limit_ms, 0);
    return c;
}

struct str call_body(const struct call *c)
{
    return c->body;
}

void call_cancel(struct call *c)
{
    if (!c)
        return;
    c->cb = NULL;
    finish(c, -1);
}
