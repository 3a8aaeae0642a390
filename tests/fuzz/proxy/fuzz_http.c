/* The server's parsing glue, through its own sockets. The first byte chooses the side: 'Q', the rest is what
 * a client sends; 'A', the rest is what a backend answers. The second byte is the size of the pieces in which
 * it arrives (0 = at once).
 *
 * Of a client's bytes: whatever they are, the answers parse as strict HTTP. Of a backend's: what reaches the
 * client parses, and if it is whole, its payload is the backend's. */
#include "proxy/proxy_priv.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uv_loop_t loop;
static struct http_server *server;
static struct listener pair; /* what conn_accept wants to know */
static int backend;
static uint16_t backend_port;
static int leases;

static void on_echo(void *arg, struct http_exchange *ex)
{
    (void)arg;
    char value[64];
    (void)http_query(ex, "q", value, sizeof value);
    (void)http_header(ex, "x-a");
    http_reply(ex, 200, "text/plain", http_body(ex));
}

static enum route_answer acquire(void *ctx, const struct route_request *req, route_cb cb, void *arg,
                                 struct route_lease *ret_lease, void **ret_wait,
                                 struct route_refusal *ret_refusal)
{
    (void)ctx, (void)cb, (void)arg, (void)ret_wait;
    if (!str_eq_c(req->model, "answer")) {
        (void)err_set(&ret_refusal->err, RC_NOT_FOUND, "no such model");
        return ROUTE_REFUSED;
    }
    *ret_lease =
        (struct route_lease){.host = "127.0.0.1", .port = backend_port, .model = "m", .replace_model = true};
    leases++;
    return ROUTE_GRANTED;
}

static void cancel(void *ctx, void *wait)
{
    (void)ctx, (void)wait;
    abort();
}

static void release(void *ctx, struct route_lease *lease, enum route_end end)
{
    (void)ctx, (void)lease, (void)end;
    leases--;
}

static const struct http_route routes[] = {
    {.path = "/echo", .methods = HTTP_M_POST | HTTP_M_GET, .local = on_echo},
    {.path = "/item/*", .methods = HTTP_M_GET, .local = on_echo},
    {.path = "/v1/chat/completions", .methods = HTTP_M_POST},
};

static void start(void)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    backend = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (backend < 0 || bind(backend, (struct sockaddr *)&sa, sizeof sa) || listen(backend, 8) ||
        getsockname(backend, (struct sockaddr *)&sa, &len))
        abort();
    backend_port = ntohs(sa.sin_port);
    struct http_options opt;
    http_options_default(&opt);
    opt.allowed_hosts = "*";
    opt.retry_max = 0; /* nobody waits */
    if (uv_loop_init(&loop))
        abort();
    opt.loop = &loop;
    opt.routes = routes;
    opt.n_routes = 3;
    opt.route = (struct route_ops){.acquire = acquire, .cancel = cancel, .release = release};
    opt.max_body_bytes = 4096;
    if (http_server_new(&opt, &server, NULL) != RC_OK)
        abort();
    pair.s = server;
}

static void turn(void)
{
    for (int i = 0; i < 3; i++)
        (void)uv_run(&loop, UV_RUN_NOWAIT);
}

/* ---- a strict client ---- */

struct reader {
    llhttp_t parser;
    unsigned answers, whole;
    char payload[65536];
    size_t n;
};

static int on_payload(llhttp_t *p, const char *at, size_t n)
{
    struct reader *r = p->data;
    if (r->n + n > sizeof r->payload)
        return -1;
    memcpy(r->payload + r->n, at, n);
    r->n += n;
    return 0;
}

static int on_begin(llhttp_t *p)
{
    struct reader *r = p->data;
    r->answers++;
    return 0;
}

static int on_whole(llhttp_t *p)
{
    struct reader *r = p->data;
    r->whole++;
    return 0;
}

static const llhttp_settings_t reading = {
    .on_message_begin = on_begin, .on_body = on_payload, .on_message_complete = on_whole};

static void reader_init(struct reader *r)
{
    memset(r, 0, offsetof(struct reader, payload));
    r->n = 0;
    llhttp_init(&r->parser, HTTP_RESPONSE, &reading);
    r->parser.data = r;
}

/* Reads what there is; false at the end of the stream. */
static bool drain(int fd, struct reader *r)
{
    char block[65536];
    ssize_t n;
    while ((n = recv(fd, block, sizeof block, MSG_DONTWAIT)) > 0)
        if (r) {
            llhttp_errno_t e = llhttp_execute(&r->parser, block, (size_t)n);
            assert(e == HPE_OK);
        }
    return n < 0 && errno == EAGAIN;
}

/* HEAD and 1xx answers confuse a reader that does not know the requests. */
static bool readable_by_any(const uint8_t *p, size_t n)
{
    return !memmem(p, n, "HEAD", 4) && !memmem(p, n, "xpect", 5) && !memmem(p, n, "XPECT", 5);
}

static void send_pieces(int fd, const uint8_t *p, size_t n, size_t step, struct reader *r, int reader_fd)
{
    for (size_t at = 0; at < n; at += step) {
        size_t piece = n - at < step ? n - at : step;
        if (send(fd, p + at, piece, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            break;
        turn();
        (void)drain(reader_fd, r);
    }
}

static void client_side(const uint8_t *p, size_t n, size_t step)
{
    int fd[2];
    static struct reader r;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd))
        abort();
    reader_init(&r);
    conn_accept(&pair, fd[1]);
    send_pieces(fd[0], p, n, step, readable_by_any(p, n) ? &r : NULL, fd[0]);
    close(fd[0]);
    while (server->count.connections)
        turn();
}

static bool backend_payload(const uint8_t *p, size_t n, struct reader *r)
{
    reader_init(r);
    llhttp_errno_t e = llhttp_execute(&r->parser, (const char *)p, n);
    if (e == HPE_OK)
        e = llhttp_finish(&r->parser);
    return r->whole > 0;
}

static void backend_side(const uint8_t *p, size_t n, size_t step)
{
    static const char ask[] =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 18\r\n\r\n"
        "{\"model\":\"answer\"}";
    static struct reader r, sent;
    int fd[2], up = -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd))
        abort();
    reader_init(&r);
    conn_accept(&pair, fd[1]);
    (void)send(fd[0], ask, sizeof ask - 1, MSG_NOSIGNAL);
    while (up < 0) {
        turn();
        up = accept4(backend, NULL, NULL, SOCK_NONBLOCK);
    }
    turn();
    send_pieces(up, p, n, step, &r, fd[0]);
    (void)shutdown(up, SHUT_WR);
    while (drain(fd[0], &r))
        turn();
    close(up);
    close(fd[0]);
    while (server->count.connections)
        turn();
    assert(!leases);
    if (r.whole && llhttp_get_status_code(&r.parser) != 502 && backend_payload(p, n, &sent) &&
        sent.whole == 1)
        assert(sent.n == r.n && !memcmp(sent.payload, r.payload, r.n));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 32768)
        return 0;
    if (!server)
        start();
    size_t n = size - 2, step = data[1] ? data[1] : n + 1;
    if (data[0] == 'A')
        backend_side(data + 2, n, step);
    else if (data[0] == 'Q')
        client_side(data + 2, n, step);
    return 0;
}
