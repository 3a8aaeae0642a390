/* Clients that listen: to decisions, to models' states, to logs (enum listen). Layer daemon; loop thread. One
 * that reads too slowly is ended. */
#include "daemon/daemon_priv.h"

#include <string.h>

struct listener {
    struct daemon *d;
    struct http_exchange *ex;
    struct listener *next;
    enum listen what;
    char *of; /* a model or an instance; NULL = all */
};

static const char *const content_types[LISTENS] = {
    [LISTEN_DECISIONS] = "text/event-stream",
    [LISTEN_STATES] = "text/event-stream",
    [LISTEN_LINES] = "text/event-stream",
    [LISTEN_TEXT] = "text/plain; charset=utf-8",
    [LISTEN_ALL_TEXT] = "text/plain; charset=utf-8",
    [LISTEN_OWN_TEXT] = "text/plain; charset=utf-8",
};

static void listener_free(struct listener *l)
{
    struct listener **at = &l->d->listeners;
    while (*at && *at != l)
        at = &(*at)->next;
    if (*at) {
        *at = l->next;
        l->d->n_listeners--;
    }
    free(l->of);
    free(l);
}

static void on_gone(void *arg)
{
    listener_free(arg);
}

bool listeners_add(struct daemon *d, struct http_exchange *ex, enum listen what, const char *of,
                   struct str first)
{
    struct err err;
    if (d->stopping || d->n_listeners >= DAEMON_LISTENERS_MAX) {
        err.code = d->stopping ? err_set(&err, RC_BUSY, "the daemon is stopping")
                               : err_set(&err, RC_BUSY, "%d listeners are the limit", DAEMON_LISTENERS_MAX);
        err_hint(&err, "ask again later");
        http_reply_err(ex, &err, 5);
        return false;
    }
    struct listener *l = mem_new(struct listener);
    *l = (struct listener){.d = d, .ex = ex, .what = what, .of = of ? mem_strdup(of) : NULL};
    http_stream_start(ex, 200, content_types[what]);
    http_on_abort(ex, on_gone, l);
    if (!http_stream_write(ex, first)) {
        listener_free(l);
        http_stream_end(ex);
        return false;
    }
    l->next = d->listeners;
    d->listeners = l;
    d->n_listeners++;
    return true;
}

static bool hears(const struct listener *l, enum listen what, const char *model, const char *instance)
{
    return l->what == what && (!l->of || strcmp(l->of, model) == 0 || strcmp(l->of, instance) == 0);
}

bool listeners_has(const struct daemon *d, enum listen what, const char *model, const char *instance)
{
    const struct listener *l = d->listeners;
    while (l && !hears(l, what, model, instance))
        l = l->next;
    return l != NULL;
}

void listeners_tell(struct daemon *d, enum listen what, const char *model, const char *instance,
                    struct str bytes)
{
    for (struct listener *l = d->listeners, *next; l; l = next) {
        next = l->next;
        if (hears(l, what, model, instance) && !http_stream_write(l->ex, bytes)) {
            struct http_exchange *ex = l->ex;
            listener_free(l);
            http_stream_end(ex);
        }
    }
}

void listeners_end(struct daemon *d)
{
    while (d->listeners) {
        struct http_exchange *ex = d->listeners->ex;
        listener_free(d->listeners);
        http_stream_end(ex);
    }
}

/* ---- logs ---- */

static void put_line_event(struct buf *out, const char *instance, struct str line)
{
    buf_puts(out, "event: line\ndata: {\"instance\":");
    buf_put_json(out, str_from(instance));
    buf_puts(out, ",\"line\":");
    buf_put_json(out, line);
    buf_puts(out, "}\n\n");
}

static void put_line(struct buf *out, const char *instance, struct str line)
{
    (void)instance;
    buf_printf(out, "%.*s\n", STR_ARG(line));
}

static void put_named_line(struct buf *out, const char *instance, struct str line)
{
    buf_printf(out, "[%s] %.*s\n", instance, STR_ARG(line));
}

void listeners_line(void *daemon, const char *model, const char *instance, struct str line)
{
    static const struct {
        enum listen what;
        void (*put)(struct buf *out, const char *instance, struct str line);
    } forms[] = {{LISTEN_LINES, put_line_event}, {LISTEN_TEXT, put_line}, {LISTEN_ALL_TEXT, put_named_line}};
    struct daemon *d = daemon;
    for (size_t i = 0; d->listeners && i < TABLE_COUNT(forms); i++) {
        if (!listeners_has(d, forms[i].what, model, instance))
            continue;
        struct buf out = {0};
        forms[i].put(&out, instance, line);
        listeners_tell(d, forms[i].what, model, instance, buf_str(&out));
        buf_release(&out);
    }
}

void listeners_follow(struct daemon *d, struct http_exchange *ex, enum listen what, struct str id,
                      bool history)
{
    struct str tail = STR("");
    struct err err;
    const char *model = pool_resolve(d->pool, id);
    if (pool_log(d->pool, id, &tail, &err) != RC_OK && !model) {
        http_reply_err(ex, &err, 0);
        return;
    }
    auto_free char *of = model ? mem_strdup(model) : mem_strndup(id.p, id.n);
    struct buf first = {0};
    if (history && what == LISTEN_LINES) {
        buf_puts(&first, "event: log\ndata: {\"log\":");
        buf_put_json(&first, tail);
        buf_puts(&first, "}\n\n");
    } else if (history) {
        buf_put_str(&first, tail);
    }
    (void)listeners_add(d, ex, what, of, buf_str(&first));
    buf_release(&first);
}
