/* A request of our own that is relayed like a client's. Layer proxy; loop thread only.
 *
 * It is a conn without a socket, so that lease, connection, retries, limits and their ends are those of every
 * other request. What would be written to the client is kept if it is an error; an answer goes to the
 * document function of its call. Invariant: `ends` is called once, after the conn has left every list, or
 * never if it was cancelled. The memory goes away when the handle is closed, in a later turn. */
#include "proxy/proxy_priv.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define ERROR_BYTES ((size_t)64 * 1024)

struct errand {
    struct conn c;
    uv_timer_t handle; /* never started: closing it takes a turn */
    void (*ends)(void *arg, const struct errand_end *end);
    void *arg;
    struct buf written; /* head and body of an error */
    bool cancelled, ended;
};

static struct errand *errand_of(struct conn *c)
{
    return container_of(c, struct errand, c);
}

/* Whose turn it is, what may be used and what is wished for is as with the client. */
static void take_after(struct conn *c, const struct conn *client)
{
    static const int32_t priorities[] = {[ROUTE_HIGH] = 1, [ROUTE_NORMAL] = 0, [ROUTE_LOW] = -1};
    c->complete = c->recorded = true;
    c->method = client->method;
    c->route = client->route;
    c->priority = priorities[relay_priority(client)];
    c->key = client->key ? auth_hold(client->key) : NULL;
    c->t_head = clock_mono_us();
    c->wall_ms = server_wall_ms(c->s, c->t_head);
    (void)snprintf(c->id_text, sizeof c->id_text, "%s", client->id_text);
}

struct errand *errand_start(struct conn *client, struct str model, const struct dialect_call *call,
                            struct dialect_ask *ask, void (*ends)(void *arg, const struct errand_end *end),
                            void *arg)
{
    struct http_server *s = client->s;
    struct errand *e = mem_new(struct errand);
    e->ends = ends;
    e->arg = arg;
    e->written.max = ERROR_BYTES;
    (void)uv_timer_init(s->loop, &e->handle);
    s->handles++;
    conn_open_errand(&e->c, s);
    take_after(&e->c, client);
    e->c.in = msg_get(s);
    e->c.in->body_n = ask->body.n;
    (void)snprintf(e->c.model_text, sizeof e->c.model_text, "%.*s", STR_ARG(model));
    e->c.model = str_from(e->c.model_text);
    made_take(&e->c, call, ask);
    relay_acquire(&e->c);
    return e->ended ? NULL : e; /* its memory is there until the next turn */
}

void errand_cancel(struct errand *e)
{
    e->cancelled = true;
    conn_lost(&e->c, NULL, true);
}

void errand_written(struct conn *c, const struct iovec *iov, int n)
{
    for (int i = 0; i < n && c->status != 200; i++)
        (void)buf_append(&errand_of(c)->written, iov[i].iov_base, iov[i].iov_len);
}

/* ---- the end ---- */

static void on_closed(uv_handle_t *h)
{
    struct errand *e = h->data;
    struct http_server *s = e->c.s;
    buf_release(&e->written);
    free(e);
    server_handle_closed(s);
}

static void tell(struct errand *e)
{
    static const char field[] = "Retry-After: ";
    struct errand_end end = {.status = e->c.status, .c = &e->c};
    struct str all = buf_str(&e->written);
    ptrdiff_t body = str_find(all, STR("\r\n\r\n"));
    if (body >= 0) {
        uint64_t seconds = 0;
        struct str head = {all.p, (size_t)body};
        ptrdiff_t at = str_find(head, str_from(field));
        struct str rest =
            at < 0 ? STR("")
                   : (struct str){head.p + at + sizeof field - 1, head.n - (size_t)at - (sizeof field - 1)};
        if (str_u64(str_cut(&rest, '\r'), &seconds) && seconds < UINT32_MAX)
            end.retry_after_s = (uint32_t)seconds;
        end.error = (struct str){all.p + body + 4, all.n - (size_t)body - 4};
    }
    e->ends(e->arg, &end);
}

void errand_closed(struct conn *c)
{
    struct errand *e = errand_of(c);
    e->ended = true;
    e->handle.data = e;
    uv_close((uv_handle_t *)&e->handle, on_closed);
    if (!e->cancelled)
        tell(e);
}
