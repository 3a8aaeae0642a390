/* The control API's part for keys. Layer daemon; loop thread; the file is read and written on the work pool.
 *
 * A change counts as soon as it is answered: the file is written first, then the server gets the new keys. */
#include "daemon/daemon_priv.h"

#include "base/clock.h"
#include "base/log.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

/* ---- the list ---- */

static void add_use(yyjson_mut_doc *doc, yyjson_mut_val *o, const struct auth_key *k)
{
    uint64_t now = clock_mono_us();
    const struct limits *l = &k->limits;
    yyjson_mut_obj_add_bool(doc, o, "expired", k->spec.expires_ms && clock_wall_ms() >= k->spec.expires_ms);
    yyjson_mut_obj_add_uint(doc, o, "running", l->running);
    yyjson_mut_obj_add_uint(doc, o, "requests", k->requests);
    yyjson_mut_obj_add_uint(doc, o, "tokens", k->tokens);
    if (l->requests.per_minute)
        yyjson_mut_obj_add_uint(doc, o, "requests_left", limit_left(&l->requests, now));
    if (l->tokens.per_minute)
        yyjson_mut_obj_add_uint(doc, o, "tokens_left", limit_left(&l->tokens, now));
}

void api_keys(void *daemon, struct http_exchange *ex)
{
    struct daemon *d = daemon;
    char path[4300];
    yyjson_mut_val *root;
    yyjson_mut_doc *doc = doc_new(&root);
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(doc, root, "keys");
    d->doing = "GET keys";
    keyring_path(d->config, path, sizeof path);
    yyjson_mut_obj_add_strcpy(doc, root, "file", path);
    const struct auth_key *k;
    for (size_t i = 0; (k = http_server_key(d->server, i)); i++) {
        yyjson_mut_val *o = keyring_view(doc, &k->spec);
        add_use(doc, o, k);
        yyjson_mut_arr_append(list, o);
    }
    reply_doc(ex, doc);
}

/* ---- changes ---- */

struct key_change {
    struct daemon *d;
    struct key_change
        *next; /* that waits for this one: a revoked key must not come back with an older read */
    struct http_exchange *ex; /* NULL once the client is gone */
    uv_work_t work;
    bool revoke;
    char path[4300];
    yyjson_doc *body;
    struct key_set ring;
    struct buf out;
    enum rc rc;
    struct err err;
};

static void on_gone(void *arg)
{
    ((struct key_change *)arg)->ex = NULL;
}

static void on_work(uv_work_t *work)
{
    struct key_change *c = work->data;
    yyjson_val *root = yyjson_doc_get_root(c->body);
    c->rc = c->revoke ? keyring_revoke(c->path, json_str(root, "id", STR("")), &c->out, &c->err)
                      : keyring_add(c->path, root, clock_wall_ms(), &c->out, &c->err);
    if (c->rc == RC_OK)
        c->rc = keyring_read(c->path, &c->ring, &c->err);
}

static void change_free(struct key_change *c)
{
    if (c->out.data)
        OPENSSL_cleanse(c->out.data, c->out.n);
    buf_release(&c->out);
    key_set_release(&c->ring);
    yyjson_doc_free(c->body);
    free(c);
}

static void after_work(uv_work_t *work, int status);

static void start_first(struct daemon *d)
{
    if (d->key_changes)
        uv_queue_work(d->loop, &d->key_changes->work, on_work, after_work);
}

static void after_work(uv_work_t *work, int status)
{
    struct key_change *c = work->data;
    struct daemon *d = c->d;
    (void)status;
    d->doing = "a change of the keys";
    if (c->rc == RC_OK) {
        daemon_set_ring(d, &c->ring);
        log_info("%s; there are %zu keys", c->revoke ? "a key was revoked" : "a key was added",
                 d->given.n + d->ring.n);
    }
    if (c->ex && c->rc == RC_OK)
        http_reply(c->ex, 200, "application/json", buf_str(&c->out));
    else if (c->ex)
        http_reply_err(c->ex, &c->err, 0);
    d->key_changes = c->next;
    change_free(c);
    start_first(d);
}

static void change(struct daemon *d, struct http_exchange *ex, bool revoke)
{
    yyjson_doc *body = NULL;
    d->doing = "POST keys";
    if (!body_read(ex, &body))
        return;
    struct key_change *c = mem_new(struct key_change);
    *c = (struct key_change){.d = d, .ex = ex, .revoke = revoke, .body = body, .work.data = c};
    keyring_path(d->config, c->path, sizeof c->path);
    http_on_abort(ex, on_gone, c);
    struct key_change **end = &d->key_changes;
    while (*end)
        end = &(*end)->next;
    *end = c;
    if (d->key_changes == c)
        start_first(d);
}

void api_key_add(void *daemon, struct http_exchange *ex)
{
    change(daemon, ex, false);
}

void api_key_revoke(void *daemon, struct http_exchange *ex)
{
    change(daemon, ex, true);
}
