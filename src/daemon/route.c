/* The proxy's abstract route over the pool. Layer daemon; loop thread.
 *
 * What a request asks for is a choice of models (choice.h), of this machine or of servers elsewhere. They are
 * asked one after the other, until one serves it or lets it wait; a wait that fails goes on with the next. A
 * granted lease keeps the pool's lease, or that on a server elsewhere, in `ref`, with what the client wishes
 * for the time after it, until it is given back. A waiting request is a struct waiting: it ends with the
 * callback or with cancel, whichever comes first; unloading cannot be cancelled, so there it ends with the
 * callback. */
#include "daemon/choice.h"
#include "daemon/daemon_priv.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

/* How long the instance is to stay after the answer; see pool_keep. */
struct keep {
    bool given;
    uint64_t ms;
};

/* Either of the two: a lease of the pool, or (remote ≠ NULL) one on a server elsewhere. */
struct grant {
    struct pool_lease lease;
    struct remote_lease *remote;
};

struct held { /* route_lease.ref */
    struct grant grant;
    struct keep keep;
};

struct waiting {
    struct daemon *d;
    struct pool_wait *wait; /* both NULL: for an unload */
    struct remote_wait *remote_wait;
    bool elsewhere; /* who was asked last */
    route_cb cb;
    void *arg;
    bool cancelled;
    struct keep keep;
    char asked[256];          /* the client's spelling, to tell whether it must be replaced */
    struct pool_request what; /* its texts are gone once the request waits */
    char path[104];           /* for messages */
    unsigned answered_by;     /* see route_request */
    uint64_t since_ms;
    uint32_t choice;    /* see route_lease */
    struct chain *next; /* who is asked if this one fails; NULL = nobody */
};

struct chain {
    size_t at, n;
    struct route_refusal first; /* what the one that was asked for said */
    char *names[CHOICE_MAX];
    uint32_t choices[CHOICE_MAX];
};

static void waiting_free(struct waiting *w)
{
    for (size_t i = 0; w->next && i < w->next->n; i++)
        free(w->next->names[i]);
    free(w->next);
    free(w);
}

static struct keep keep_of(const struct dialect_wish *wish)
{
    if (!wish || !wish->keep_given)
        return (struct keep){false, 0};
    return (struct keep){true, wish->keep_ms < 0 ? UINT64_MAX : (uint64_t)wish->keep_ms};
}

/* The runtime's own, unless the configuration says otherwise; OpenAI's all of them speak. */
static unsigned speaks(const struct config_list *configured, unsigned own)
{
    unsigned bits = DIALECT_BIT(OPENAI);
    for (size_t i = 0; i < configured->n; i++)
        bits |= 1u << dialect_find(str_from(configured->items[i]));
    return configured->n ? bits : own;
}

/* How the model's settings want its answers treated. One that left the set meanwhile has none. */
static void apply_settings(const struct daemon *d, struct route_lease *l)
{
    size_t i = model_set_index(d->set, str_from(l->model));
    if (i == SIZE_MAX)
        return;
    l->timeout_ms = d->set->settings[i]->timeout;
    l->dimensions = config_dimensions(d->config, str_from(l->model));
    l->drain = strcmp(d->set->settings[i]->on_disconnect, "drain") == 0;
}

static void fill_local(const struct daemon *d, const struct pool_lease *from, struct str asked,
                       struct route_lease *ret)
{
    *ret = (struct route_lease){.port = from->port,
                                .wake_member = from->wake_member,
                                .wake_event = from->wake_event,
                                .collect_members = from->collect_members,
                                .speaks = speaks(&d->config->dialects, from->speaks),
                                .queue_position = from->position,
                                .queue_expected_ms = from->expected_ms};
    snprintf(ret->host, sizeof ret->host, "%s", from->host);
    snprintf(ret->model, sizeof ret->model, "%s", from->model);
    snprintf(ret->instance, sizeof ret->instance, "%s", from->instance);
    apply_settings(d, ret);
    ret->replace_model = asked.n > 0 && !str_eq_c(asked, from->model);
}

/* Where tokens cost money, streams are asked for their usage too: behind the answer, so no event is dropped.
 */
static void fill_remote(const struct daemon *d, const struct remote_lease *from, struct route_lease *ret)
{
    *ret = (struct route_lease){.remote = &from->out,
                                .speaks = from->speaks,
                                .timeout_ms = from->timeout_ms,
                                .queue_position = from->position,
                                .queue_expected_ms = from->expected_ms,
                                .replace_model = true};
    if (from->priced && from->speaks & DIALECT_BIT(OPENAI)) {
        ret->wake_member = ",\"stream_options\":{\"include_usage\":true}";
        ret->wake_event = "\n"; /* which no event has */
    }
    ret->dimensions = config_dimensions(d->config, str_from(from->model->id));
    snprintf(ret->model, sizeof ret->model, "%.191s", from->model->id);
    snprintf(ret->instance, sizeof ret->instance, "%.95s", from->name);
}

static void lease_from(const struct waiting *w, const struct grant *from, struct route_lease *ret)
{
    struct held *own = mem_new(struct held);
    *own = (struct held){.grant = *from, .keep = w->keep};
    if (from->remote)
        fill_remote(w->d, from->remote, ret);
    else
        fill_local(w->d, &from->lease, str_from(w->asked), ret);
    ret->ref = own;
    ret->choice = w->choice;
    ret->more = w->next && w->next->at < w->next->n;
}

/* ---- the choice ---- */

/* Of several equal ones whoever serves soonest is asked first; the configuration's order decides where all
 * do. */
static void rank(const struct daemon *d, struct choice *c, uint32_t *choices)
{
    uint64_t cost[CHOICE_MAX];
    for (size_t i = 0; i < c->n_members; i++) {
        uint64_t mine = pool_expected_ms(d->pool, c->names[i]);
        struct str name = c->names[i];
        uint32_t choice = choices[i];
        size_t at = i;
        for (; at > 0 && cost[at - 1] > mine; at--) {
            cost[at] = cost[at - 1];
            c->names[at] = c->names[at - 1];
            choices[at] = choices[at - 1];
        }
        cost[at] = mine;
        c->names[at] = name;
        choices[at] = choice;
    }
}

/* The model of a server elsewhere that is meant; NULL = it is for the pool. Names of this machine go first
 * where the server is not named. */
static const struct remote_model *elsewhere(const struct daemon *d, struct str name)
{
    if (!remote_set_models(d->remotes))
        return NULL;
    const struct remote_model *m = remote_find(d->remotes, name);
    return m || pool_resolve(d->pool, name) ? m : remote_find_name(d->remotes, name);
}

static const char *known_as(const struct daemon *d, struct str name)
{
    const struct remote_model *m = elsewhere(d, name);
    return m ? m->id : pool_resolve(d->pool, name);
}

/* The first name of the choice; the others are kept with w, for configurations come and go. */
static enum rc choose(struct daemon *d, struct waiting *w, uint32_t tried, struct str *model, struct err *err)
{
    struct choice c;
    uint32_t choices[CHOICE_MAX];
    w->choice = 1;
    if (!d->set->has_fallbacks && d->set->n_groups == 0 && model->n)
        return RC_OK;
    enum rc rc = choice_make(d->set, *model, known_as(d, *model), &c, err);
    if (rc != RC_OK)
        return rc;
    for (size_t i = 0; i < c.n; i++)
        choices[i] = 1u << i;
    if (c.n_members > 1)
        rank(d, &c, choices);
    size_t first = 0;
    while (first + 1 < c.n && choices[first] & tried)
        first++;
    *model = c.names[first];
    w->choice = choices[first];
    if (c.n == 1)
        return RC_OK;
    w->next = mem_new(struct chain);
    for (size_t i = first + 1; i < c.n; i++) {
        if (choices[i] & tried)
            continue;
        w->next->choices[w->next->n] = choices[i];
        w->next->names[w->next->n++] = mem_strndup(c.names[i].p, c.names[i].n);
    }
    return RC_OK;
}

/* The one that was asked for tells why; who else was asked is named behind it. */
static void tell_all_failed(const struct chain *c, struct route_refusal *r)
{
    struct buf text = {.max = sizeof r->err.message - 1};
    *r = c->first;
    (void)buf_puts(&text, r->err.message);
    for (size_t i = 0; i < c->at; i++)
        (void)buf_printf(&text, "%s%s", i ? ", " : "; nor could ", c->names[i]);
    if (!text.failed)
        snprintf(r->err.message, sizeof r->err.message, "%s", text.data);
    buf_release(&text);
}

/* After a refusal: whether there is another one to ask, in w->what. At the end *r is what the caller is told.
 */
static bool ask_next(struct waiting *w, struct route_refusal *r)
{
    struct chain *c = w->next;
    if (!c)
        return false;
    if (c->at == 0)
        c->first = *r;
    bool full = r->err.code == RC_TOO_MANY && !w->elsewhere && !w->d->config->fallback_when_full;
    if (c->at == c->n || full || !choice_goes_on(r->err.code)) {
        tell_all_failed(c, r);
        return false;
    }
    w->choice = c->choices[c->at];
    w->what.model = str_from(c->names[c->at++]);
    metrics_add(w->d->metrics, METRIC_FALLBACKS, NULL, 1);
    return true;
}

static void on_acquired(void *arg, enum rc rc, const struct pool_lease *lease, const struct err *err,
                        uint32_t retry_after_s);
static void on_remote(void *arg, struct remote_lease *lease, const struct err *err, uint32_t retry_after_s);

static enum pool_answer ask_one(struct waiting *w, struct grant *ret, struct route_refusal *r)
{
    const struct remote_model *m = elsewhere(w->d, w->what.model);
    w->wait = NULL;
    w->remote_wait = NULL;
    w->elsewhere = m != NULL;
    ret->remote = NULL;
    const struct remote_request elsewhere_asked = {w->answered_by, str_from(w->path), w->what.waited_ms};
    if (m)
        return remote_acquire(m, &elsewhere_asked, on_remote, w, &ret->remote, &w->remote_wait,
                              &r->retry_after_s, &r->err);
    return pool_acquire(w->d->pool, &w->what, on_acquired, w, &ret->lease, &w->wait, &r->retry_after_s,
                        &r->err);
}

static enum pool_answer ask(struct waiting *w, struct grant *ret, struct route_refusal *r)
{
    for (;;) {
        enum pool_answer answer = ask_one(w, ret, r);
        if (answer != POOL_REFUSED || !ask_next(w, r))
            return answer;
    }
}

/* ---- what the proxy calls, and what is called back ---- */

static void finish(struct waiting *w, const struct grant *grant, const struct route_refusal *refusal)
{
    struct route_lease out;
    if (grant)
        lease_from(w, grant, &out);
    w->cb(w->arg, grant ? &out : NULL, grant ? NULL : refusal);
    waiting_free(w);
}

/* A wait has failed: the next one is asked. */
static void go_on(struct waiting *w, const struct err *err, uint32_t retry_after_s)
{
    struct grant other;
    struct route_refusal refusal = {.err = *err, .retry_after_s = retry_after_s};
    uint64_t now = clock_mono_ms();
    w->what.waited_ms += (uint32_t)(now - w->since_ms);
    w->since_ms = now;
    enum pool_answer answer = ask_next(w, &refusal) ? ask(w, &other, &refusal) : POOL_REFUSED;
    if (answer != POOL_WAITING)
        finish(w, answer == POOL_GRANTED ? &other : NULL, &refusal);
}

static void on_acquired(void *arg, enum rc rc, const struct pool_lease *lease, const struct err *err,
                        uint32_t retry_after_s)
{
    struct waiting *w = arg;
    w->d->doing = "a lease for a waiting request";
    if (rc == RC_OK)
        finish(w, &(struct grant){.lease = *lease}, NULL);
    else
        go_on(w, err, retry_after_s);
}

static void on_remote(void *arg, struct remote_lease *lease, const struct err *err, uint32_t retry_after_s)
{
    struct waiting *w = arg;
    w->d->doing = "a lease on an upstream";
    if (lease)
        finish(w, &(struct grant){.remote = lease}, NULL);
    else
        go_on(w, err, retry_after_s);
}

static struct pool_request request_of(const struct route_request *req)
{
    static const enum line_band bands[] = {
        [ROUTE_HIGH] = LINE_HIGH, [ROUTE_NORMAL] = LINE_NORMAL, [ROUTE_LOW] = LINE_LOW};
    return (struct pool_request){.model = req->model,
                                 .key = str_hash(req->key_id, 0),
                                 .band = bands[req->priority],
                                 .prompt_bytes = req->body_bytes,
                                 .prompt = req->prompt,
                                 .waited_ms = req->waited_ms,
                                 .light = req->light};
}

/* A look takes what is ready, and gives nothing back. */
static enum route_answer observe(struct waiting *w, struct route_lease *ret_lease,
                                 struct route_refusal *ret_refusal)
{
    struct grant grant = {.remote = NULL};
    bool seen = pool_observe(w->d->pool, w->what.model, &grant.lease, &ret_refusal->err);
    ret_refusal->retry_after_s = 0;
    w->keep.given = false;
    if (seen)
        lease_from(w, &grant, ret_lease);
    waiting_free(w);
    return seen ? ROUTE_GRANTED : ROUTE_REFUSED;
}

static void on_left(void *arg, enum rc rc, const struct err *err)
{
    struct waiting *w = arg;
    w->d->doing = "a request that unloads its model";
    if (w->cancelled) {
        waiting_free(w);
    } else if (rc != RC_OK) {
        finish(w, NULL, &(struct route_refusal){.err = *err});
    } else {
        struct grant gone = {.lease.speaks = DIALECT_BIT(OPENAI)}; /* nothing will be asked of it */
        snprintf(gone.lease.model, sizeof gone.lease.model, "%.191s", w->asked);
        finish(w, &gone, NULL);
    }
}

/* The client wants no answer, but that the model leaves. */
static enum route_answer leave(struct waiting *w, struct str model, void **ret_wait,
                               struct route_refusal *ret_refusal)
{
    struct pool_lease unused;
    const char *known = pool_resolve(w->d->pool, model);
    if (!known) {
        (void)pool_observe(w->d->pool, model, &unused, &ret_refusal->err);
        ret_refusal->retry_after_s = 0;
        waiting_free(w);
        return ROUTE_REFUSED;
    }
    snprintf(w->asked, sizeof w->asked, "%s", known);
    w->keep.given = false;
    *ret_wait = w;
    pool_unload(w->d->pool, str_from(known), false, on_left, w);
    return ROUTE_WAITING;
}

static enum route_answer acquire(void *ctx, const struct route_request *req, route_cb cb, void *arg,
                                 struct route_lease *ret_lease, void **ret_wait,
                                 struct route_refusal *ret_refusal)
{
    struct daemon *d = ctx;
    struct grant grant;
    d->doing = "a request's route";
    struct waiting *w = mem_new(struct waiting);
    *w = (struct waiting){.d = d,
                          .cb = cb,
                          .arg = arg,
                          .keep = keep_of(req->wish),
                          .what = request_of(req),
                          .answered_by = req->answered_by};
    snprintf(w->asked, sizeof w->asked, "%.*s", STR_ARG(req->model));
    snprintf(w->path, sizeof w->path, "%.*s", (int)(req->path.n < 100 ? req->path.n : 100), req->path.p);
    struct route_refusal refusal = {.retry_after_s = 0};
    enum pool_answer answer = POOL_REFUSED;
    bool chosen = choose(d, w, req->tried, &w->what.model, &refusal.err) == RC_OK;
    if (chosen && req->observe)
        return observe(w, ret_lease, ret_refusal);
    if (chosen && req->wish && req->wish->leave)
        return leave(w, w->what.model, ret_wait, ret_refusal);
    if (chosen && req->wish && req->wish->context)
        pool_widen(d->pool, w->what.model, req->wish->context);
    if (chosen)
        answer = ask(w, &grant, &refusal);
    if (answer == POOL_WAITING) {
        w->since_ms = clock_mono_ms();
        w->what.model = w->what.prompt = (struct str){"", 0};
        *ret_wait = w;
        return ROUTE_WAITING;
    }
    if (answer == POOL_GRANTED)
        lease_from(w, &grant, ret_lease);
    else
        *ret_refusal = refusal;
    waiting_free(w);
    return answer == POOL_GRANTED ? ROUTE_GRANTED : ROUTE_REFUSED;
}

static void cancel(void *ctx, void *wait)
{
    struct daemon *d = ctx;
    struct waiting *w = wait;
    w->cancelled = true;
    if (!w->wait && !w->remote_wait)
        return;
    if (w->wait)
        pool_cancel(d->pool, w->wait);
    else
        remote_cancel(w->remote_wait);
    waiting_free(w);
}

static void look(void *ctx, void *wait, struct route_view *ret)
{
    static const enum route_stage stages[] = {[POOL_QUEUED] = ROUTE_QUEUED,
                                              [POOL_PLANNING] = ROUTE_PLANNING,
                                              [POOL_BLOCKED] = ROUTE_BLOCKED,
                                              [POOL_MAKING_ROOM] = ROUTE_MAKING_ROOM,
                                              [POOL_LOADING] = ROUTE_LOADING};
    const struct waiting *w = wait;
    struct pool_look now;
    (void)ctx;
    if (w->remote_wait) {
        ret->expected_known = true;
        remote_look(w->remote_wait, &ret->position, &ret->expected_ms);
    }
    if (!w->wait)
        return;
    pool_look(w->wait, &now);
    *ret = (struct route_view){.stage = stages[now.stage],
                               .position = now.position,
                               .expected_ms = now.expected_ms,
                               .expected_known = true,
                               .percent = (unsigned)(now.progress * 100)};
}

static void release(void *ctx, struct route_lease *lease, enum route_end end)
{
    static const enum pool_end ends[] = {[ROUTE_END_FINE] = POOL_END_FINE,
                                         [ROUTE_END_LEFT] = POOL_END_LEFT,
                                         [ROUTE_END_FAILED] = POOL_END_FAILED,
                                         [ROUTE_END_BROKEN] = POOL_END_BROKEN};
    struct daemon *d = ctx;
    struct held *own = lease->ref;
    lease->ref = NULL;
    if (own->grant.remote) {
        remote_release(own->grant.remote, end, lease->rest_s);
        free(own);
        return;
    }
    if (own->keep.given)
        pool_keep(d->pool, &own->grant.lease, own->keep.ms);
    own->grant.lease.prompt_tokens = lease->prompt_tokens;
    own->grant.lease.answer_tokens = lease->answer_tokens;
    own->grant.lease.cached_tokens = lease->cached_tokens;
    pool_release(d->pool, &own->grant.lease, ends[end]);
    free(own);
}

static const char *resolve(void *ctx, struct str model, bool *ret_is_name)
{
    struct daemon *d = ctx;
    struct str meant = choice_meant(d->set, model);
    const struct model_group *g = model_set_group(d->set, meant);
    const struct remote_model *m = g ? NULL : elsewhere(d, meant);
    *ret_is_name = g || m || pool_is_name(d->pool, model);
    return g ? g->id : m ? m->id : pool_resolve(d->pool, meant);
}

void route_ops_init(struct daemon *d, struct route_ops *ret_ops)
{
    *ret_ops = (struct route_ops){
        .ctx = d, .acquire = acquire, .cancel = cancel, .look = look, .resolve = resolve, .release = release};
}
