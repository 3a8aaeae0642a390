/* Who asks, what that key may do, and how much of it: the part of a request's way that knows keys. Layer
 * proxy; loop thread only.
 *
 * The key is held from the head of the request to its end (admit_end), whatever becomes of the list of keys
 * in between. Invariant: c->admitted ⇒ c->key is held and its limits count this request as running. */
#include "proxy/proxy_priv.h"

#include "base/clock.h"
#include "base/mem.h"
#include "proxy/put.h"

#include <string.h>

/* Bytes of text that make a token, where nobody told how many there were: rather too few tokens than too
 * many. In a stream most of what is sent is the frame around a token. */
#define PLAIN_BYTES_A_TOKEN  4u
#define STREAM_BYTES_A_TOKEN 256u

/* ---- refusals ---- */

static void say_missing(const struct conn *c, struct err *err)
{
    (void)err_set(err, RC_DENIED, "this needs an API key%s",
                  c->route->control ? " with the admin scope" : "");
    err_hint(err, "send it as \"Authorization: Bearer KEY\" or \"x-api-key: KEY\"");
}

static void say_wrong(const struct conn *c, struct err *err)
{
    (void)c;
    (void)err_set(err, RC_DENIED, "the API key is wrong or was revoked");
    err_hint(err, "arriero key list shows the keys there are; arriero key add makes one");
}

static void say_expired(const struct conn *c, struct err *err)
{
    char at[40];
    (void)err_set(err, RC_DENIED, "API key %s expired at %s", c->key->spec.id,
                  clock_rfc3339(c->key->spec.expires_ms, at, sizeof at));
    err_hint(err, "make a new one with arriero key add");
}

static void say_scope(const struct conn *c, struct err *err)
{
    bool admin = c->route->control;
    (void)err_set(err, RC_DENIED, "API key %s may not use %.*s: it lacks the scope \"%s\"", c->key->spec.id,
                  c->path.n < 100 ? (int)c->path.n : 100, c->path.p, admin ? "admin" : "infer");
    err_hint(err, "use a key made with arriero key add --scope %s", admin ? "admin" : "infer");
}

static void say_whole(const struct conn *c, struct err *err)
{
    (void)err_set(err, RC_DENIED, "API key %s may not use %.*s: it is for some models only", c->key->spec.id,
                  c->path.n < 100 ? (int)c->path.n : 100, c->path.p);
    err_hint(err, "use a key made without --model");
}

static void say_requests(const struct conn *c, struct err *err)
{
    (void)err_set(err, RC_TOO_MANY, "API key %s may ask %u times a minute", c->key->spec.id,
                  c->key->limits.requests.per_minute);
    err_hint(err, "ask again after the time in Retry-After");
}

static void say_tokens(const struct conn *c, struct err *err)
{
    (void)err_set(err, RC_TOO_MANY, "API key %s has used up its %u token%s a minute", c->key->spec.id,
                  c->key->limits.tokens.per_minute, c->key->limits.tokens.per_minute == 1 ? "" : "s");
    err_hint(err, "ask again after the time in Retry-After");
}

static void say_concurrency(const struct conn *c, struct err *err)
{
    uint32_t n = c->key->limits.concurrency;
    (void)err_set(err, RC_TOO_MANY, "API key %s may have %u request%s running at a time", c->key->spec.id, n,
                  n == 1 ? "" : "s");
    err_hint(err, "wait for an answer before asking again");
}

static const struct {
    int status;
    void (*say)(const struct conn *c, struct err *err);
} answers[] = {[AUTH_MISSING] = {401, say_missing},
               [AUTH_WRONG] = {401, say_wrong},
               [AUTH_EXPIRED] = {401, say_expired}};

static void (*const says[])(const struct conn *c, struct err *err) = {
    [LIMIT_REQUESTS] = say_requests, [LIMIT_TOKENS] = say_tokens, [LIMIT_CONCURRENCY] = say_concurrency};

/* Who is known may keep the connection: a small body that is on its way is read and dropped. */
static void refuse(struct conn *c, int status, void (*say)(const struct conn *c, struct err *err))
{
    bool small = c->content_length <= MSG_BYTES / 2 && !c->in->head.seen[HDR_EXPECT];
    c->refusal = (struct refusal){.status = status, .code = RC_DENIED, .say = say};
    c->refusal_waits = c->content_length == 0 || (c->key && small);
}

/* ---- the head ---- */

/* Both places where clients put keys are tried: some fill one of them with a dummy. */
static enum auth_answer find_key(struct conn *c)
{
    static const enum head_id fields[] = {HDR_AUTHORIZATION, HDR_X_API_KEY};
    enum auth_answer answer = AUTH_MISSING;
    struct auth_key *k = NULL;
    for (size_t i = 0; i < TABLE_COUNT(fields) && answer != AUTH_OK && answer != AUTH_EXPIRED; i++) {
        struct str value = head_get(&c->in->head, c->in->data, fields[i]);
        enum auth_answer now = auth_check(c->s->auth, i ? value : auth_bearer(value), c->wall_ms, &k);
        answer = now == AUTH_MISSING ? answer : now;
    }
    if (k)
        c->key = auth_hold(k);
    return answer;
}

static void check_limits(struct conn *c)
{
    uint64_t wait_us = 0;
    enum limit_kind kind = limits_begin(&c->key->limits, c->t_head, &wait_us);
    if (kind != LIMIT_NONE) {
        refuse(c, 429, says[kind]);
        c->refusal.retry_after_s = (uint32_t)(wait_us / 1000000 + 1);
        return;
    }
    c->admitted = true;
    c->key->requests++;
}

void admit_head(struct conn *c)
{
    bool control = c->route && c->route->control; /* on TCP: any local user could reach it */
    if (c->local_peer || c->method == HTTP_OPTIONS || !c->route)
        return;
    if (!control && (c->route->open || !auth_needed(c->s->auth)))
        return;
    enum auth_answer answer = find_key(c);
    if (answer != AUTH_OK) {
        refuse(c, answers[answer].status, answers[answer].say);
        return;
    }
    c->priority = c->key->spec.priority;
    unsigned fits = control ? AUTH_ADMIN : AUTH_INFER | AUTH_ADMIN;
    if (!(c->key->spec.scopes & fits))
        refuse(c, 403, say_scope);
    else if (!c->route->local)
        check_limits(c);
    else if (*c->key->spec.models && !control && !c->route->scoped)
        refuse(c, 403, say_whole);
}

/* ---- the model ---- */

/* What a model is called counts. A spelling that only finds it does not: it may begin or end as the client
 * likes ("mine/theirs" finds "theirs"), so that it would match a pattern that the model does not. */
static bool may_use(const struct conn *c, struct str asked)
{
    const struct route_ops *ops = &c->s->opt.route;
    if (!c->key || !*c->key->spec.models)
        return true;
    bool is_name = false;
    const char *model = ops->resolve ? ops->resolve(ops->ctx, asked, &is_name) : NULL;
    if (model && auth_may_use(&c->key->spec, str_from(model)))
        return true;
    return (is_name || !model) && auth_may_use(&c->key->spec, asked);
}

bool admit_model(struct conn *c)
{
    struct err err;
    if (may_use(c, c->model)) {
        if (c->key && !c->admitted && !c->observe) /* a local function hands it on */
            check_limits(c);
        if (c->refusal.status)
            errors_refuse(c, &c->refusal);
        return !c->refusal.status;
    }
    if (c->model.n)
        (void)err_set(&err, RC_DENIED, "API key %s may not use the model \"%.*s\"", c->key->spec.id,
                      STR_ARG(c->model));
    else
        (void)err_set(&err, RC_DENIED, "API key %s may not use the model that is meant where none is named",
                      c->key->spec.id);
    err_hint(&err, "GET /v1/models lists those that it may use");
    c->outcome = "refused";
    errors_reply(c, 403, &err, 0);
    return false;
}

bool http_key_is_limited(const struct http_exchange *ex)
{
    const struct conn *c = conn_of(ex);
    return c->key && *c->key->spec.models;
}

bool http_is_keyed(const struct http_exchange *ex)
{
    return conn_of(ex)->key != NULL;
}

bool http_may_use(const struct http_exchange *ex, struct str model)
{
    return may_use(conn_of(ex), model);
}

/* ---- the end ---- */

/* A client that leaves before the end is told no usage, and pays for what was sent all the same: its own
 * prompt, too, once the backend had it. */
static uint64_t tokens_of(const struct conn *c)
{
    if (c->usage.known)
        return c->usage.prompt_tokens + c->usage.completion_tokens;
    bool left_early = c->status == 0 && c->t_sent;
    if (c->status != 200 && !left_early)
        return 0;
    return (c->request_bytes / PLAIN_BYTES_A_TOKEN) +
           c->response_bytes / (c->streamed ? STREAM_BYTES_A_TOKEN : PLAIN_BYTES_A_TOKEN);
}

void admit_end(struct conn *c)
{
    struct auth_key *k = c->key;
    if (!k)
        return;
    if (c->admitted) {
        uint64_t tokens = tokens_of(c);
        limits_end(&k->limits, tokens, c->t_head, clock_mono_us());
        k->tokens += tokens;
    }
    capture_end(c);
    c->admitted = false;
    c->key = NULL;
    auth_release(k);
}

/* ---- what an answer tells ---- */

/* As other doors write it: 120ms, 6s, 1m30s. */
static void put_time(struct put *w, uint64_t us)
{
    uint64_t ms = (us + 999) / 1000, s = (ms + 999) / 1000;
    if (ms < 1000) {
        put_u64(w, ms);
        put_lit(w, "ms");
        return;
    }
    if (s >= 60) {
        put_u64(w, s / 60);
        put_lit(w, "m");
    }
    put_u64(w, s % 60);
    put_lit(w, "s");
}

static void put_limit(struct put *w, const char *what, const struct limit_bucket *b, uint64_t now_us)
{
    if (!b->per_minute)
        return;
    put_lit(w, "X-RateLimit-Limit-");
    put_cstr(w, what);
    put_lit(w, ": ");
    put_u64(w, b->per_minute);
    put_lit(w, "\r\nX-RateLimit-Remaining-");
    put_cstr(w, what);
    put_lit(w, ": ");
    put_u64(w, limit_left(b, now_us));
    put_lit(w, "\r\nX-RateLimit-Reset-");
    put_cstr(w, what);
    put_lit(w, ": ");
    put_time(w, limit_reset_us(b, now_us));
    put_lit(w, "\r\n");
}

void admit_fields(const struct conn *c, struct put *w)
{
    if (!c->key)
        return;
    const struct limits *l = &c->key->limits;
    if (!l->requests.per_minute && !l->tokens.per_minute)
        return;
    uint64_t now = clock_mono_us();
    put_limit(w, "Requests", &l->requests, now);
    put_limit(w, "Tokens", &l->tokens, now);
}
