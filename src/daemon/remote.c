/* Leases on servers elsewhere: see remote.h. Layer daemon; loop thread.
 *
 * A lease comes with addresses, so that the proxy never resolves a name: a request that needs one waits in
 * the same line as those that wait for their turn. Invariant: whoever waits has either a question under way
 * or requests before it (remote_wait.c). */
#include "daemon/remote_priv.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

/* ---- whether it may be asked ---- */

/* What its API has nothing like is not sent: no answer of the server would say so as clearly. */
static enum rc check_dialect(const struct remote *r, const struct remote_request *q, struct err *err)
{
    if (r->speaks & q->answered_by)
        return RC_OK;
    int n = (int)(q->path.n < 100 ? q->path.n : 100);
    enum rc rc = q->answered_by
                     ? err_set(err, RC_UNSUPPORTED,
                               "upstream %s cannot answer %.*s: the API that it speaks, "
                               "%s, has nothing like it",
                               r->name, n, q->path.p, r->dialect)
                     : err_set(err, RC_UNSUPPORTED, "requests to %.*s are not passed on to upstream %s", n,
                               q->path.p, r->name);
    if (q->answered_by & DIALECT_BIT(OPENAI))
        err_hint(err,
                 "ask a model of this machine, or of an upstream whose dialect is openai; "
                 "/v1/chat/completions is answered by %s too",
                 r->name);
    else
        err_hint(err, "ask a model of this machine, or %s at /v1/chat/completions", r->name);
    return rc;
}

static enum rc check_rest(const struct remote *r, uint64_t now_ms, uint32_t *ret_s, struct err *err)
{
    const struct remote_state *s = r->state;
    if (now_ms >= s->rest_until_ms)
        return RC_OK;
    *ret_s = (uint32_t)((s->rest_until_ms - now_ms + 999) / 1000);
    enum rc rc =
        err_set(err, RC_TOO_MANY, "upstream %s takes no requests for another %u s, it says", r->name, *ret_s);
    err_hint(err, "ask again after the time in Retry-After, or give the model a fallback");
    return rc;
}

static enum rc check_breaker(const struct remote *r, uint64_t now_ms, uint32_t *ret_s, struct err *err)
{
    const struct remote_state *s = r->state;
    if (breaker_lets(&s->breaker, now_ms))
        return RC_OK;
    *ret_s = (uint32_t)(breaker_wait_ms(&s->breaker, now_ms) / 1000 + 1);
    enum rc rc = err_set(err, RC_BACKEND, "upstream %s answers with nothing but errors%s%.200s", r->name,
                         s->last_error.message[0] ? ", the last one: " : "", s->last_error.message);
    err_hint(err, "it is tried again in %u s", *ret_s);
    return rc;
}

static enum rc check_spending(const struct remote *r, uint32_t *ret_s, struct err *err)
{
    const char *what;
    double limit;
    int64_t reset_ms, now_ms = clock_wall_ms();
    char at[40];
    if (!spend_is_over(&r->state->spend, &r->limits, now_ms, &what, &limit, &reset_ms))
        return RC_OK;
    *ret_s = (uint32_t)((reset_ms - now_ms) / 1000 + 1);
    enum rc rc = err_set(err, RC_TOO_MANY, "the spending limit of upstream %s is reached: %g a %s, until %s",
                         r->name, limit, what, clock_rfc3339(reset_ms, at, sizeof at));
    err_hint(err, "raise upstreams.%s.spend_per_%s, or ask a local model", r->name, what);
    return rc;
}

static enum rc check(const struct remote *r, uint32_t *ret_s, struct err *err)
{
    uint64_t now_ms = clock_mono_ms();
    if (r->problem.message[0]) {
        *err = r->problem;
        return r->problem.code;
    }
    enum rc rc = check_rest(r, now_ms, ret_s, err);
    if (rc == RC_OK)
        rc = check_breaker(r, now_ms, ret_s, err);
    return rc == RC_OK ? check_spending(r, ret_s, err) : rc;
}

/* ---- addresses ---- */

static bool take_numeric(struct remote *r)
{
    unsigned char bytes[16];
    struct remote_state *s = r->state;
    if (inet_pton(AF_INET, r->url.host, bytes) != 1 && inet_pton(AF_INET6, r->url.host, bytes) != 1)
        return false;
    (void)snprintf(s->address[0], sizeof s->address[0], "%.45s", r->url.host);
    (void)snprintf(s->asked_host, sizeof s->asked_host, "%s", r->url.host);
    s->n_addresses = 1;
    s->known_ms = clock_mono_ms();
    return true;
}

bool remote_address_known(struct remote *r)
{
    const struct remote_state *s = r->state;
    bool fresh = s->n_addresses && clock_mono_ms() - s->known_ms < REMOTE_ADDRESS_MS &&
                 strcmp(s->asked_host, r->url.host) == 0;
    return fresh || take_numeric(r);
}

static void take_addresses(struct remote_state *s, const struct addrinfo *list)
{
    s->n_addresses = 0;
    for (const struct addrinfo *a = list; a && s->n_addresses < ROUTE_ADDRESSES; a = a->ai_next)
        if (getnameinfo(a->ai_addr, a->ai_addrlen, s->address[s->n_addresses], sizeof s->address[0], NULL, 0,
                        NI_NUMERICHOST) == 0 &&
            !strchr(s->address[s->n_addresses], '%'))
            s->n_addresses++;
    s->known_ms = clock_mono_ms();
}

static void pump(struct remote_state *s);

/* All that wait for the name are told; none of them was sent anywhere. */
static void refuse_all(struct remote_state *s, const struct err *err)
{
    s->failures++;
    s->last_error = *err;
    s->fare = REMOTE_ILL;
    (void)snprintf(s->ill, sizeof s->ill, "%.199s", err->message);
    for (uint32_t n = s->n_waiting; n > 0 && s->first; n--)
        remote_wait_tell(s->first, NULL, err, 0);
}

static void on_addresses(uv_getaddrinfo_t *question, int status, struct addrinfo *list)
{
    struct remote_state *s = question->data;
    struct err err;
    s->asking = false;
    if (status == 0)
        take_addresses(s, list);
    uv_freeaddrinfo(list);
    if (status == 0 && s->n_addresses) {
        s->check_due_ms = 0;
        pump(s);
    } else {
        s->n_addresses = 0;
        (void)err_set(&err, RC_BACKEND, "upstream %s: the name %s has no address: %s", s->name, s->asked_host,
                      status ? uv_strerror(status) : "none was told");
        err_hint(&err, "check its url, and this machine's DNS");
        refuse_all(s, &err);
    }
    remote_state_drop(s);
}

enum rc remote_address_ask(struct remote *r, struct err *err)
{
    struct remote_state *s = r->state;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    if (s->asking)
        return RC_OK;
    (void)snprintf(s->asked_host, sizeof s->asked_host, "%s", r->url.host);
    s->n_addresses = 0;
    s->question.data = s;
    int e = uv_getaddrinfo(s->loop, &s->question, on_addresses, s->asked_host, NULL, &hints);
    if (e == 0) {
        s->asking = true;
        s->refs++;
        return RC_OK;
    }
    return err_set(err, RC_BACKEND, "upstream %s: cannot ask for the address of %s: %s", r->name, r->url.host,
                   uv_strerror(e));
}

/* ---- leases ---- */

static bool has_room(const struct remote *r)
{
    return !r->max_running || r->state->running < r->max_running;
}

/* A default port is not told in Host. */
static void fill_host(const struct url *u, struct route_remote *out)
{
    bool v6 = strchr(u->host, ':') != NULL;
    int n = snprintf(out->host_field, sizeof out->host_field, v6 ? "[%s]" : "%s", u->host);
    if (u->port != (u->tls ? 443 : 80))
        (void)snprintf(out->host_field + n, sizeof out->host_field - (size_t)n, ":%u", u->port);
}

static struct remote_lease *lease_new(const struct remote_model *m)
{
    struct remote *r = remote_hold(m->of);
    struct remote_state *s = r->state;
    struct remote_lease *l = mem_new(struct remote_lease);
    *l = (struct remote_lease){.model = m,
                               .name = r->name,
                               .priced = m->price_input > 0 || m->price_output > 0,
                               .speaks = r->speaks,
                               .timeout_ms = r->timeout_ms};
    l->out = (struct route_remote){.tls = r->tls,
                                   .name = r->url.host,
                                   .port = r->url.port,
                                   .path = r->url.path[0] ? r->url.path : "/v1",
                                   .auth = r->auth,
                                   .model = m->remote,
                                   .version = r->speaks & DIALECT_BIT(ANTHROPIC) ? "2023-06-01" : NULL,
                                   .n_addresses = s->n_addresses};
    fill_host(&r->url, &l->out);
    memcpy(l->out.address, s->address, sizeof l->out.address);
    l->since_ms = s->used_ms = clock_mono_ms();
    s->running++;
    s->requests++;
    breaker_sent(&s->breaker, l->since_ms);
    return l;
}

static void pump(struct remote_state *s)
{
    while (s->first) {
        struct remote_wait *w = s->first;
        const struct remote_model *m = remote_wait_model(w);
        struct remote *r = m->of;
        struct err err;
        uint32_t retry_after_s = 0;
        if (!has_room(r))
            return;
        if (!remote_address_known(r)) {
            if (remote_address_ask(r, &err) != RC_OK)
                refuse_all(s, &err);
            return;
        }
        bool may = check(r, &retry_after_s, &err) == RC_OK;
        remote_wait_tell(w, may ? lease_new(m) : NULL, may ? NULL : &err, retry_after_s);
    }
}

enum pool_answer remote_acquire(const struct remote_model *m, const struct remote_request *q, remote_cb cb,
                                void *arg, struct remote_lease **ret_lease, struct remote_wait **ret_wait,
                                uint32_t *ret_retry_after_s, struct err *err)
{
    struct remote *r = m->of;
    struct remote_state *s = r->state;
    *ret_retry_after_s = 0;
    if (check_dialect(r, q, err) != RC_OK || check(r, ret_retry_after_s, err) != RC_OK)
        return POOL_REFUSED;
    if (!s->first && has_room(r) && remote_address_known(r)) {
        *ret_lease = lease_new(m);
        return POOL_GRANTED;
    }
    if (s->n_waiting >= r->max_waiting) {
        *ret_retry_after_s = remote_retry_after_s(r);
        (void)err_set(err, RC_TOO_MANY, "%u requests wait for upstream %s, and %u are under way there",
                      s->n_waiting, r->name, s->running);
        err_hint(err, "ask again later, or raise upstreams.%s.max_concurrency", r->name);
        return POOL_REFUSED;
    }
    if (has_room(r) && remote_address_ask(r, err) != RC_OK)
        return POOL_REFUSED;
    *ret_wait = remote_wait_new(m, q->waited_ms, cb, arg);
    return POOL_WAITING;
}

void remote_release(struct remote_lease *l, enum route_end end, uint32_t rest_s)
{
    static const enum breaker_end ends[] = {[ROUTE_END_FINE] = BREAKER_SUCCESS,
                                            [ROUTE_END_LEFT] = BREAKER_NOTHING,
                                            [ROUTE_END_FAILED] = BREAKER_FAILURE,
                                            [ROUTE_END_BROKEN] = BREAKER_FAILURE};
    struct remote *r = l->model->of;
    struct remote_state *s = r->state;
    uint64_t now_ms = clock_mono_ms();
    s->running--;
    s->used_ms = now_ms;
    if (end == ROUTE_END_FINE) {
        remote_learn_service(s, now_ms - l->since_ms);
        s->last_error.message[0] = '\0';
    }
    s->failures += ends[end] == BREAKER_FAILURE;
    (void)breaker_ended(&s->breaker, rest_s ? BREAKER_NOTHING : ends[end], now_ms, s->requests);
    if (rest_s && now_ms + rest_s * 1000ull > s->rest_until_ms)
        s->rest_until_ms = now_ms + rest_s * 1000ull;
    if (end == ROUTE_END_BROKEN) {
        s->n_addresses = 0; /* it may have moved */
        s->check_due_ms = 0;
    }
    free(l);
    s->refs++;
    pump(s);
    remote_state_drop(s);
    remote_drop(r);
}

/* ---- spending ---- */

double remote_charge(const struct remote_model *m, uint64_t prompt_tokens, uint64_t completion_tokens,
                     int64_t wall_ms, const char **ret_name, struct spend *ret_sums)
{
    struct remote *r = m->of;
    double cost = spend_cost(prompt_tokens, completion_tokens, m->price_input, m->price_output);
    if (cost > 0)
        spend_add(&r->state->spend, cost, wall_ms);
    *ret_name = r->name;
    *ret_sums = r->state->spend;
    return cost;
}

void remote_restore(struct remote_set *s, const char *name, const struct spend *sums)
{
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->servers[i]->name, name) == 0)
            s->servers[i]->state->spend = *sums;
}
