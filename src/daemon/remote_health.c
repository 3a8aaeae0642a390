/* How servers elsewhere are: see remote_watch in remote.h. Layer daemon; loop thread.
 *
 * A server is asked when somebody watches it and the last question is REMOTE_CHECK_MS old, or a connection
 * has broken since. Addresses are tried in their order: one that answers is enough. Invariant: whoever frees
 * or moves a state ends its question first. */
#include "daemon/remote_priv.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

static void on_status(void *arg, int status);

static const char *path_of(const struct remote_state *s)
{
    return s->check_models ? s->check_path : "/health";
}

static void ask(struct remote_state *s)
{
    s->check = health_get(s->loop, s->address[s->check_at], s->check_port, path_of(s), on_status, s);
}

static void judge(struct remote_state *s, int status)
{
    s->fare = status < 0 || status >= 500 ? REMOTE_ILL : REMOTE_WELL;
    if (status < 0)
        (void)snprintf(s->ill, sizeof s->ill, "%.100s port %u does not answer", s->asked_host, s->check_port);
    else
        (void)snprintf(s->ill, sizeof s->ill, "it answers GET %.150s with status %d", path_of(s), status);
}

static void on_status(void *arg, int status)
{
    struct remote_state *s = arg;
    bool tells_nothing = status >= 300 && status < 500 && !s->check_models;
    s->check = NULL;
    if (status == HEALTH_UNASKED)
        return; /* that says nothing of it */
    if (tells_nothing) {
        s->check_models = true;
        ask(s);
    } else if (status < 0 && s->check_at + 1 < s->n_addresses) {
        s->check_at++;
        ask(s);
    } else {
        judge(s, status);
    }
}

static void begin(struct remote *r)
{
    struct remote_state *s = r->state;
    struct err err;
    uint64_t now_ms = clock_mono_ms();
    if (s->check || s->asking || now_ms < s->check_due_ms)
        return;
    s->check_due_ms = now_ms + REMOTE_CHECK_MS;
    if (!remote_address_known(r)) {
        if (remote_address_ask(r, &err) != RC_OK) {
            s->fare = REMOTE_ILL;
            (void)snprintf(s->ill, sizeof s->ill, "%.199s", err.message);
        }
        return;
    }
    s->check_at = 0;
    s->check_models = false;
    s->check_port = r->url.port;
    (void)snprintf(s->check_path, sizeof s->check_path, "%s/models", r->url.path[0] ? r->url.path : "/v1");
    ask(s);
}

enum remote_fare remote_watch(const struct remote_model *m, const char **ret_why)
{
    struct remote *r = m->of;
    struct remote_state *s = r->state;
    *ret_why = r->problem.message;
    if (r->problem.message[0])
        return REMOTE_ILL;
    if (!r->url.tls)
        begin(r);
    *ret_why = "it answers with errors only";
    if (breaker_state(&s->breaker, clock_mono_ms()) == BREAKER_OPEN)
        return REMOTE_ILL;
    *ret_why = s->ill;
    return r->url.tls ? REMOTE_WELL : s->fare;
}

const char *remote_url(const struct remote_model *m)
{
    return m->of->shown_url;
}

void remote_check_end(struct remote_state *s)
{
    call_cancel(take_ptr(s->check));
    s->check_due_ms = 0;
}

void remote_set_stop(struct remote_set *s)
{
    for (size_t i = 0; s && i < s->n; i++)
        remote_check_end(s->servers[i]->state);
}
