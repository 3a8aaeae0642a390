/* Who waits for a server elsewhere: for its address, or for a place among the requests under way there. Layer
 * daemon; loop thread only. First come first served.
 *
 * A wait ends by being told, by remote_cancel, or by itself after limits.queue_wait, which counts the waits
 * of earlier attempts too. Invariant: a wait is in the list of its server's state until one of the three. */
#include "daemon/remote_priv.h"

#include "base/clock.h"

#include <stdio.h>

#define GUESS_MS    1000u /* of a request, until one was seen */
#define RETRY_MAX_S 3600u

struct remote_wait {
    struct remote_wait *next;
    const struct remote_model *model; /* its server is held */
    remote_cb cb;
    void *arg;
    uint32_t position, expected_ms; /* when it came */
    bool timed;
    uv_timer_t timer; /* with timed */
};

/* ---- how long it takes ---- */

/* An answer's length is no reason to wait where any number may run: then only the address is missing. */
static uint64_t expected_ms(const struct remote *r, uint64_t before)
{
    uint64_t service_ms = r->state->service_us ? r->state->service_us / 1000 + 1 : GUESS_MS;
    return r->max_running ? before * service_ms / r->max_running : 0;
}

void remote_learn_service(struct remote_state *s, uint64_t ms)
{
    uint64_t us = ms * 1000 + 500;
    s->service_us = s->service_us ? (s->service_us * 7 + us) / 8 : us;
}

uint32_t remote_retry_after_s(const struct remote *r)
{
    uint64_t s = (expected_ms(r, 1) + 999) / 1000;
    return s < 1 ? 1 : s < RETRY_MAX_S ? (uint32_t)s : RETRY_MAX_S;
}

/* ---- the line ---- */

static void on_closed(uv_handle_t *h)
{
    free(h->data);
}

static void wait_free(struct remote_wait *w)
{
    if (w->timed)
        uv_close((uv_handle_t *)&w->timer, on_closed);
    else
        free(w);
}

static void unlink_wait(struct remote_wait *w)
{
    struct remote_state *s = w->model->of->state;
    struct remote_wait *before = NULL;
    for (struct remote_wait *at = s->first; at && at != w; at = at->next)
        before = at;
    if (before)
        before->next = w->next;
    else
        s->first = w->next;
    if (s->last == w)
        s->last = before;
    s->n_waiting--;
}

const struct remote_model *remote_wait_model(const struct remote_wait *w)
{
    return w->model;
}

void remote_wait_tell(struct remote_wait *w, struct remote_lease *lease, const struct err *err,
                      uint32_t retry_after_s)
{
    struct remote *r = w->model->of;
    unlink_wait(w);
    if (lease) {
        lease->position = w->position;
        lease->expected_ms = w->expected_ms;
    }
    w->cb(w->arg, lease, err, retry_after_s);
    wait_free(w);
    remote_drop(r);
}

void remote_cancel(struct remote_wait *w)
{
    struct remote *r = w->model->of;
    unlink_wait(w);
    wait_free(w);
    remote_drop(r);
}

/* ---- its bound ---- */

static void say_late(const struct remote *r, struct err *err)
{
    unsigned long long limit_s = r->queue_wait_ms / 1000;
    if (r->state->asking) {
        (void)err_set(err, RC_BUSY, "the address of upstream %s was not told within %llu s", r->name,
                      limit_s);
        err_hint(err, "check this machine's DNS; limits.queue_wait sets how long a request waits");
    } else {
        (void)err_set(err, RC_BUSY, "upstream %s had no place for the request within %llu s", r->name,
                      limit_s);
        err_hint(err,
                 "ask again later; limits.queue_wait sets how long a request waits, "
                 "upstreams.%s.max_concurrency how many run there at a time",
                 r->name);
    }
}

static void on_due(uv_timer_t *timer)
{
    struct remote_wait *w = timer->data;
    struct err err;
    say_late(w->model->of, &err);
    remote_wait_tell(w, NULL, &err, remote_retry_after_s(w->model->of));
}

static void begin_timer(struct remote_wait *w, uint32_t waited_ms)
{
    const struct remote *r = w->model->of;
    if (!r->queue_wait_ms || uv_timer_init(r->state->loop, &w->timer) != 0)
        return;
    w->timed = true;
    w->timer.data = w;
    (void)uv_timer_start(&w->timer, on_due, waited_ms < r->queue_wait_ms ? r->queue_wait_ms - waited_ms : 0,
                         0);
}

struct remote_wait *remote_wait_new(const struct remote_model *m, uint32_t waited_ms, remote_cb cb, void *arg)
{
    struct remote *r = remote_hold(m->of);
    struct remote_state *s = r->state;
    struct remote_wait *w = mem_new(struct remote_wait);
    *w = (struct remote_wait){.model = m, .cb = cb, .arg = arg};
    if (s->last)
        s->last->next = w;
    else
        s->first = w;
    s->last = w;
    s->n_waiting++;
    w->position = r->max_running ? s->n_waiting : 0;
    w->expected_ms = (uint32_t)expected_ms(r, w->position);
    begin_timer(w, waited_ms);
    return w;
}

void remote_look(const struct remote_wait *w, uint32_t *ret_position, uint64_t *ret_expected_ms)
{
    const struct remote *r = w->model->of;
    uint32_t position = 1;
    for (const struct remote_wait *at = r->state->first; at && at != w; at = at->next)
        position++;
    *ret_position = r->max_running ? position : 0;
    *ret_expected_ms = expected_ms(r, position);
}
