/* What is kept of an answer that passes through: for its tokens to be counted, and its end known. Layer
 * proxy; loop thread only. */
#include "proxy/proxy_priv.h"

#include "base/mem.h"

#include <string.h>

#define LAST_EVENT 128u /* an event that ends a stream is not longer */

static void keep_tail(struct conn *c, struct str bytes)
{
    if (!c->tail) {
        c->tail = mem_realloc(NULL, 1, sizeof *c->tail);
        c->tail->total = 0;
    }
    account_tail_feed(c->tail, bytes.p, bytes.n);
}

static bool holds_mark(struct str bytes, const char *mark)
{
    size_t n = bytes.n < LAST_EVENT ? bytes.n : LAST_EVENT;
    return memmem(bytes.p + bytes.n - n, n, mark, strlen(mark));
}

static void look_for_end(struct conn *c, struct str bytes, bool continued)
{
    char window[ACCOUNT_WINDOW];
    const char *mark = c->end_mark;
    if (mark)
        c->saw_end = holds_mark(bytes, mark) ||
                     (continued && c->tail && holds_mark(account_tail_str(c->tail, window), mark));
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
        look_for_end(c, (struct str){g.p, g.n}, false);
        c->cut_event = !str_ends((struct str){g.p, g.n}, "\n\n");
        return;
    }
    for (uint32_t i = 0; i < s->n_segments; i++) {
        struct str bytes = {s->segments[i].p, s->segments[i].n};
        bool whole = c->streamed && u->framing == FRAME_CHUNKED && str_ends(bytes, "\n\n");
        if (!whole || c->cut_event || account_wants(bytes))
            keep_tail(c, bytes);
        look_for_end(c, bytes, c->cut_event);
        c->cut_event = !whole;
    }
}

void response_count_end(struct conn *c)
{
    char window[ACCOUNT_WINDOW];
    if (c->tail)
        account_read(account_tail_str(c->tail, window), &c->usage);
}
