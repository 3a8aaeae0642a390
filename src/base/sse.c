/* Server-sent events: see sse.h. */
#include "base/sse.h"

#include <string.h>

void sse_release(struct sse *s)
{
    buf_release(&s->line);
    buf_release(&s->data);
    buf_release(&s->event);
    *s = (struct sse){0};
}

static enum rc too_long(struct err *err)
{
    return err_set(err, RC_LIMIT, "an event of the stream is longer than %zu MiB", SSE_EVENT_MAX >> 20);
}

static enum rc end_event(struct sse *s, sse_event_fn fn, void *arg, struct err *err)
{
    bool go_on = true;
    if (s->has_data)
        go_on = fn(arg, s->event.n ? buf_str(&s->event) : STR("message"), buf_str(&s->data));
    buf_clear(&s->data);
    buf_clear(&s->event);
    s->has_data = false;
    return go_on ? RC_OK : err_set(err, RC_CANCELLED, "the reader has enough");
}

static enum rc end_line(struct sse *s, sse_event_fn fn, void *arg, struct err *err)
{
    struct str line = buf_str(&s->line);
    if (!s->begun && str_starts(line, "\xef\xbb\xbf")) /* a byte order mark */
        line.p += 3, line.n -= 3;
    s->begun = true;
    if (line.n == 0)
        return end_event(s, fn, arg, err);
    struct str value = line, name = str_cut(&value, ':');
    if (str_starts(value, " "))
        value.p++, value.n--;
    if (str_eq_c(name, "data")) {
        if (s->has_data)
            buf_puts(&s->data, "\n");
        buf_put_str(&s->data, value);
        s->has_data = true;
    } else if (str_eq_c(name, "event")) {
        buf_clear(&s->event);
        buf_put_str(&s->event, value);
    } /* comments, id, retry and unknown fields say nothing to this reader */
    return s->data.failed || s->event.failed ? too_long(err) : RC_OK;
}

enum rc sse_feed(struct sse *s, struct str piece, sse_event_fn fn, void *arg, struct err *err)
{
    s->line.max = s->data.max = s->event.max = SSE_EVENT_MAX;
    while (piece.n) {
        if (s->after_cr && piece.p[0] == '\n') /* the second half of CRLF */
            piece.p++, piece.n--;
        s->after_cr = false;
        size_t n = 0;
        while (n < piece.n && piece.p[n] != '\n' && piece.p[n] != '\r')
            n++;
        if (!buf_append(&s->line, piece.p, n))
            return too_long(err);
        if (n == piece.n)
            return RC_OK;
        s->after_cr = piece.p[n] == '\r';
        piece.p += n + 1;
        piece.n -= n + 1;
        enum rc rc = end_line(s, fn, arg, err);
        buf_clear(&s->line);
        if (rc != RC_OK)
            return rc;
    }
    return RC_OK;
}
