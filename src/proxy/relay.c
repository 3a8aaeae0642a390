/* One relayed request: its connection to a backend, and every way in which it can end. Layer proxy; loop
 * thread only. What comes before is in relay_lease.c, the sending in relay_send.c, the answer in response.c.
 *
 * The request's bytes are kept until the answer's first byte, so that it can be sent again when that is safe:
 * when no connection could be made, or when a connection that had served before died without a single byte of
 * an answer (the backend closed it while our request was under way), or its head says that it was not begun:
 * see retry.h. Nothing else is ever repeated. */
#include "proxy/proxy_priv.h"

#include "base/clock.h"

#include <errno.h>
#include <stdio.h>

/* ---- the end of things ---- */

void relay_say_error(struct conn *c, int status, const struct err *err, uint32_t retry_after_s)
{
    if (c->told) {
        c->phase = PHASE_RELAY;
        made_broken(c, c->outcome, err);
    } else {
        c->phase = PHASE_LOCAL;
        errors_reply(c, status, err, retry_after_s);
    }
}

void relay_fail(struct conn *c, int status, const char *outcome, const struct err *err)
{
    relay_give_back(c, ROUTE_END_LEFT); /* if it is not broken, the backend has no part in this */
    c->s->count.upstream_errors += status >= 502;
    c->outcome = outcome;
    conn_deadline(c, 0);
    relay_say_error(c, status, err, 0);
}

static void drop_upstream(struct conn *c)
{
    struct up *u = c->up;
    if (!u)
        return;
    c->up = NULL;
    u->c = NULL;
    up_close(u);
}

void relay_leave(struct conn *c, int status, const char *outcome, const struct err *err)
{
    drop_upstream(c);
    relay_fail(c, status, outcome, err);
}

void relay_break_off(struct conn *c)
{
    drop_upstream(c);
    relay_give_back(c, ROUTE_END_LEFT);
}

void relay_cancel(struct conn *c, enum phase was)
{
    if (was == PHASE_TRANSLATE)
        translate_cancel(c);
    if (was == PHASE_PARTS)
        embed_cancel(c);
    if (was == PHASE_PUT)
        embed_put_cancel(c);
    if (was == PHASE_LEASE)
        relay_stop_waiting(c);
    drop_upstream(c);
    relay_give_back(c, ROUTE_END_LEFT);
}

void relay_answer_done(struct conn *c)
{
    struct up *u = c->up;
    c->up = NULL;
    u->c = NULL;
    if (u->keep_alive)
        upstream_park(u);
    else
        up_close(u);
    relay_give_back(c, c->status >= 500 && c->status != 501 ? ROUTE_END_FAILED : ROUTE_END_FINE);
}

void relay_again(struct up *u)
{
    struct conn *c = u->c;
    c->up = NULL;
    u->c = NULL;
    msg_put(u->s, u->in);
    u->in = NULL;
    if (u->keep_alive)
        upstream_park(u);
    else
        up_close(u);
    relay_connect(c, false);
}

/* ---- connecting ---- */

static void connect_failed(struct conn *c, int sys_errno, const char *why);

void relay_connect(struct conn *c, bool fresh)
{
    const struct route_remote *r = c->lease.remote;
    struct up_target to = {.host = c->lease.host, .port = c->lease.port};
    if (r)
        to = (struct up_target){r->address[c->address], r->port, r->tls, r->name};
    struct up *u = upstream_get(c->s, &to, fresh);
    if (!u) {
        connect_failed(c, errno, "");
        return;
    }
    c->up = u;
    u->c = c;
    if (u->state <= UP_HANDSHAKE) {
        c->phase = PHASE_CONNECT;
        conn_deadline(c, c->s->opt.connect_timeout_ms);
    } else {
        relay_send(c);
    }
}

void relay_connected(struct up *u)
{
    conn_deadline(u->c, 0);
    relay_send(u->c);
}

/* What we lack ourselves is no failure of the backend, whose other requests go on. */
static bool is_our_own_want(int sys_errno)
{
    return sys_errno == EMFILE || sys_errno == ENFILE || sys_errno == ENOMEM || sys_errno == ENOBUFS;
}

/* why: what TLS found wrong; empty where it has no part. */
static void say_unreachable(const struct conn *c, int sys_errno, const char *why, struct err *err)
{
    enum rc code = sys_errno == ETIMEDOUT ? RC_TIMEOUT : RC_BACKEND;
    const struct route_remote *r = c->lease.remote;
    errno = sys_errno;
    if (!r) {
        (void)err_sys(err, code, "cannot connect to the backend of model %s", c->lease.model);
        err_hint(err, "see the instance's log: arriero logs %s", c->lease.model);
    } else if (why[0]) {
        (void)err_set(err, code, "upstream %s at %s is not trusted: %s", c->lease.instance, r->host_field,
                      why);
        err_hint(err, "check the host in its url, ca_file, which names who vouches for it, and this "
                      "machine's clock");
    } else {
        (void)err_sys(err, code, "cannot connect to upstream %s at %s", c->lease.instance, r->host_field);
        err_hint(err, "check its url and this machine's network; a fallback stands in where there is one");
    }
}

/* Nothing was sent, so any request may try again; the route may then know of another instance. */
static void connect_failed(struct conn *c, int sys_errno, const char *why)
{
    struct err err;
    conn_deadline(c, 0);
    if (is_our_own_want(sys_errno)) {
        errno = sys_errno;
        (void)err_sys(&err, RC_BUSY, "no connection to the backend can be made now");
        err_hint(&err, "raise the daemon's limit of open files, or lower max_connections to half of it");
        relay_fail(c, 503, "refused", &err);
        return;
    }
    if (c->lease.remote && c->address + 1u < c->lease.remote->n_addresses) {
        c->address++;
        relay_connect(c, true);
        return;
    }
    say_unreachable(c, sys_errno, why, &err);
    if (retry_unsent(c, why[0] != '\0'))
        return;
    c->lease_broken = true;
    relay_fail(c, sys_errno == ETIMEDOUT ? 504 : 502, "upstream_error", &err);
}

void relay_timeout(struct conn *c)
{
    drop_upstream(c);
    connect_failed(c, ETIMEDOUT, "");
}

/* Behind a whole event of a stream that passes through, the client reads one more: the dialect's error. */
static bool reads_last_words(const struct conn *c)
{
    return c->up && c->up->framing == FRAME_CHUNKED && c->streamed && c->status == 200 &&
           c->method == HTTP_POST && !c->cut_event && c->call && c->call->broken;
}

/* The client has a part of the answer: an honest end of it. */
static void break_off(struct conn *c, const char *outcome, const struct err *err)
{
    c->s->count.upstream_errors++;
    if (c->made || (c->told && !c->t_body) || reads_last_words(c)) {
        made_broken(c, outcome, err);
        return;
    }
    drop_upstream(c);
    conn_lost(c, outcome, true);
}

static void broke_off(struct conn *c)
{
    struct err err;
    c->lease_broken = true;
    (void)err_set(&err, RC_BACKEND, "the backend of model %s broke its answer off", c->lease.model);
    err_hint(&err, "see the instance's log: arriero logs %s", c->lease.model);
    break_off(c, "truncated", &err);
}

void relay_too_late(struct up *u, enum route_end end, const struct err *err)
{
    struct conn *c = u->c;
    c->t_upstream_end = clock_mono_us();
    relay_give_back(c, end);
    if (c->phase == PHASE_RELAY)
        break_off(c, "timeout", err);
    else
        relay_leave(c, rc_http_status(err->code), "timeout", err);
}

void relay_upstream_died(struct up *u, int sys_errno)
{
    struct conn *c = u->c;
    if (u->head_done && made_is_done(c)) {
        response_end_made(u);
        return;
    }
    char why[96] = "";
    bool connecting = u->state <= UP_HANDSHAKE, begun = c->made && u->head_done;
    bool unanswered = u->reused && !u->got_bytes;
    c->t_upstream_end = clock_mono_us();
    if (c->phase == PHASE_RELAY) {
        broke_off(c);
        return;
    }
    if (u->sock.tls)
        (void)snprintf(why, sizeof why, "%s", tls_why(u->sock.tls));
    drop_upstream(c);
    if (connecting) {
        connect_failed(c, sys_errno, why);
        return;
    }
    if (retry_closed(c, unanswered))
        return;
    struct err err;
    (void)err_set(&err, RC_BACKEND, "the backend of model %s %s before %s", c->lease.model,
                  sys_errno ? "broke the connection" : "closed the connection",
                  begun ? "its answer was whole" : "it answered");
    err_hint(&err, "see the instance's log: arriero logs %s", c->lease.model);
    c->lease_broken = true;
    relay_fail(c, 502, begun ? "truncated" : "upstream_error", &err);
}
