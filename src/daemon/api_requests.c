/* The control API's part for the request log: rows, one request with its texts, sums. Layer daemon; loop
 * thread; the history is read on the work pool. */
#include "daemon/daemon_priv.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

struct query {
    struct store *store;
    struct store_filter filter; /* its texts are those below */
    char model[256], key[128], outcome[32], id[64];
    bool by_key, by_model;
};

static enum rc invalid(struct err *err, const char *name, const char *want)
{
    return err_set(err, RC_INVALID, "%s is not %s", name, want);
}

/* A key is known by its id or its name. */
static void resolve_key(const struct daemon *d, struct query *q)
{
    const struct auth_key *k;
    for (size_t i = 0; (k = http_server_key(d->server, i)); i++)
        if (q->key[0] && strcmp(k->spec.name, q->key) == 0) {
            snprintf(q->key, sizeof q->key, "%s", k->spec.id);
            return;
        }
}

static enum rc read_query(struct daemon *d, struct http_exchange *ex, struct query *q, struct err *err)
{
    char text[32];
    uint64_t limit = 100, since_ms = 0;
    *q = (struct query){.store = d->store, .by_key = true};
    if (http_query(ex, "model", q->model, sizeof q->model)) {
        const char *known = pool_resolve(d->pool, str_from(q->model));
        if (known)
            snprintf(q->model, sizeof q->model, "%s", known);
    }
    (void)http_query(ex, "key", q->key, sizeof q->key);
    (void)http_query(ex, "outcome", q->outcome, sizeof q->outcome);
    resolve_key(d, q);
    q->filter.failed = http_query(ex, "failed", text, sizeof text) && strcmp(text, "1") == 0;
    if (http_query(ex, "limit", text, sizeof text) && (!str_u64(str_from(text), &limit) || limit > 10000))
        return invalid(err, "limit", "a number up to 10000");
    if (http_query(ex, "since", text, sizeof text)) {
        if (!str_duration_ms(str_from(text), &since_ms))
            return invalid(err, "since", "a duration such as 24h or 30m");
        q->filter.since_ms = clock_wall_ms() - (int64_t)since_ms;
    }
    if (http_query(ex, "by", text, sizeof text)) {
        q->by_key = strcmp(text, "key") == 0 || strcmp(text, "both") == 0;
        q->by_model = strcmp(text, "model") == 0 || strcmp(text, "both") == 0;
        if (!q->by_key && !q->by_model)
            return invalid(err, "by", "key, model or both");
    }
    q->filter.limit = (unsigned)limit;
    return RC_OK;
}

static void point(struct query *q)
{
    q->filter.model = str_from(q->model);
    q->filter.key = str_from(q->key);
    q->filter.outcome = str_from(q->outcome);
    q->filter.request_id = str_from(q->id);
}

static void ask(struct daemon *d, struct http_exchange *ex, background_fn fn, struct str id)
{
    struct query *q = mem_new(struct query);
    struct err err;
    d->doing = "GET requests";
    if (read_query(d, ex, q, &err) != RC_OK) {
        http_reply_err(ex, &err, 0);
        free(q);
        return;
    }
    snprintf(q->id, sizeof q->id, "%.*s", id.n < sizeof q->id ? (int)id.n : 0, id.n ? id.p : "");
    background_answer(d, ex, fn, q);
}

static enum rc list(void *arg, struct buf *out, struct err *err)
{
    struct query *q = arg;
    point(q);
    buf_puts(out, "{\"requests\":");
    enum rc rc = store_find_requests(q->store, &q->filter, out, err);
    buf_puts(out, "}");
    return rc;
}

static enum rc show(void *arg, struct buf *out, struct err *err)
{
    struct query *q = arg;
    struct buf row = {0};
    point(q);
    q->filter.limit = 1;
    enum rc rc = store_find_requests(q->store, &q->filter, &row, err);
    if (rc == RC_OK && row.n <= 2) {
        rc = err_set(err, RC_NOT_FOUND, "no request is called \"%s\"", q->id);
        err_hint(err, "arriero requests lists them; an answer tells its own in X-Request-Id");
    }
    if (rc == RC_OK) {
        buf_puts(out, "{\"request\":");
        buf_append(out, row.data + 1, row.n - 2);
        buf_puts(out, ",\"captures\":");
        rc = store_find_captures(q->store, &q->filter, out, err);
        buf_puts(out, "}");
    }
    buf_release(&row);
    return rc;
}

static enum rc usage(void *arg, struct buf *out, struct err *err)
{
    struct query *q = arg;
    buf_puts(out, "{\"usage\":");
    enum rc rc = store_usage_json(q->store, q->by_key, q->by_model, q->filter.since_ms, out, err);
    buf_puts(out, "}");
    return rc;
}

void api_requests(void *daemon, struct http_exchange *ex)
{
    ask(daemon, ex, list, STR(""));
}

void api_request(void *daemon, struct http_exchange *ex)
{
    struct str id = http_path(ex);
    size_t n = strlen(DAEMON_API "/requests/");
    ask(daemon, ex, show, (struct str){id.p + n, id.n - n});
}

void api_usage(void *daemon, struct http_exchange *ex)
{
    ask(daemon, ex, usage, STR(""));
}
