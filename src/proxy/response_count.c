/* What is kept of an answer that passes through, so that its tokens can be counted at its end. Layer proxy;
 * loop thread only. */
#include "proxy/proxy_priv.h"

#include "base/mem.h"

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
void response_count(struct up *u, bool first)
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

void response_count_end(struct conn *c)
{
    char window[ACCOUNT_WINDOW];
    if (c->tail)
        account_read(account_tail_str(c->tail, window), &c->usage);
}

bool response_saw_end(const struct conn *c)
{
    char window[ACCOUNT_WINDOW];
    return c->tail && account_stream_done(account_tail_str(c->tail, window));
}
