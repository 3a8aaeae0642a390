/* GET /health of a server, on the loop (see health.h), and a free port for the next one of ours (see
 * pool_priv.h). */
#include "pool/pool_priv.h"

#include <errno.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct health {
    uv_tcp_t tcp;
    uv_timer_t timer;
    uv_connect_t connect;
    uv_write_t write;
    unsigned handles;
    int late;     /* what the timer tells */
    health_cb cb; /* NULL once told or cancelled */
    void *arg;
    char request[320];
    char reply[64]; /* the status line is all that is looked at */
    size_t reply_n;
};

static void on_closed(uv_handle_t *h)
{
    struct health *q = h->data;
    if (--q->handles == 0)
        free(q);
}

static void finish(struct health *q, int status)
{
    if (uv_is_closing((uv_handle_t *)&q->timer))
        return;
    uv_close((uv_handle_t *)&q->tcp, on_closed);
    uv_close((uv_handle_t *)&q->timer, on_closed);
    health_cb cb = q->cb;
    q->cb = NULL;
    if (cb)
        cb(q->arg, status);
}

static void on_timeout(uv_timer_t *t)
{
    struct health *q = t->data;
    finish(q, q->late);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    struct health *q = h->data;
    (void)suggested;
    *buf = uv_buf_init(q->reply + q->reply_n, (unsigned)(sizeof q->reply - q->reply_n));
}

/* "HTTP/1.1 200" */
static int status_of(const struct health *q)
{
    struct str s = {q->reply, q->reply_n};
    uint64_t code;
    if (s.n < 12 || !str_starts(s, "HTTP/1.") || s.p[8] != ' ' || !str_u64((struct str){s.p + 9, 3}, &code))
        return -1;
    return (int)code;
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    struct health *q = s->data;
    (void)buf;
    if (n > 0)
        q->reply_n += (size_t)n;
    if (n < 0 || q->reply_n >= 12)
        finish(q, status_of(q));
}

static void on_written(uv_write_t *w, int status)
{
    if (status < 0)
        finish(w->data, -1);
}

static void on_connected(uv_connect_t *c, int status)
{
    struct health *q = c->data;
    if (status < 0) {
        finish(q, -1);
        return;
    }
    uv_buf_t b = uv_buf_init(q->request, (unsigned)strlen(q->request));
    q->write.data = q;
    if (uv_write(&q->write, c->handle, &b, 1, on_written) < 0 ||
        uv_read_start(c->handle, on_alloc, on_read) < 0)
        finish(q, -1);
}

struct health *health_get(uv_loop_t *loop, const char *address, uint16_t port, const char *path, health_cb cb,
                          void *arg)
{
    struct health *q = mem_new(struct health);
    q->cb = cb;
    q->arg = arg;
    bool v6 = strchr(address, ':') != NULL;
    snprintf(q->request, sizeof q->request,
             "GET %.200s HTTP/1.1\r\nHost: %s%s%s\r\nConnection: close\r\n\r\n", path, v6 ? "[" : "", address,
             v6 ? "]" : "");
    uv_tcp_init(loop, &q->tcp);
    uv_timer_init(loop, &q->timer);
    q->handles = 2;
    q->tcp.data = q->timer.data = q->connect.data = q;
    struct sockaddr_in to4;
    struct sockaddr_in6 to6;
    /* What fails at once is told by the timer: never a callback inside this call. */
    const struct sockaddr *to = v6 ? (const struct sockaddr *)&to6 : (const struct sockaddr *)&to4;
    int r = v6 ? uv_ip6_addr(address, port, &to6) : uv_ip4_addr(address, port, &to4);
    if (r == 0)
        r = uv_tcp_connect(&q->connect, &q->tcp, to, on_connected);
    bool ours = r == UV_EMFILE || r == UV_ENFILE || r == UV_ENOMEM || r == UV_ENOBUFS;
    q->late = ours ? HEALTH_UNASKED : -1;
    uv_timer_start(&q->timer, on_timeout, r < 0 ? 0 : HEALTH_LIMIT_MS, 0);
    return q;
}

void health_cancel(struct health *q)
{
    if (!q)
        return;
    q->cb = NULL;
    finish(q, -1);
}

enum rc port_choose(const char *host, uint16_t *ret_port, struct err *err)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(err, RC_IO, "cannot open a socket to find a free port");
    if (inet_pton(AF_INET, host, &a.sin_addr) != 1 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &n) < 0) {
        enum rc rc = err_sys(err, RC_IO, "cannot find a free port on %s", host);
        close(fd);
        return rc;
    }
    close(fd);
    *ret_port = ntohs(a.sin_port);
    return RC_OK;
}
