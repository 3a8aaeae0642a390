/* The sampler: see sampler.h. A snapshot goes through one slot behind the lock; the loop keeps the one it
 * lent and the newest.
 *
 * The thread's half is memory of its own: a driver may hang in a call for ever, and then nothing that the
 * thread could still touch is taken away from it. Whoever of the two halves is the last to leave frees it. */
#include "daemon/sampler.h"

#include "base/log.h"
#include "base/mem.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#define MIN_GAP_MS   50   /* between samples on demand */
#define STOP_WAIT_MS 2000 /* for a sample under way, at the end */

struct worker { /* the thread's half */
    struct sampler_source source;
    pthread_mutex_t lock;
    pthread_cond_t wake, over;
    /* behind the lock */
    uv_async_t *async;         /* NULL once the loop's half has left */
    struct hw_inventory *slot; /* newest, not yet taken by the loop */
    uint64_t interval_ms;
    bool wanted, stopping, ended, abandoned;
};

struct sampler { /* the loop's half */
    uv_async_t async;
    void (*fresh)(void *arg);
    void *arg;
    struct worker *worker;
    pthread_t thread;
    uint64_t stop_wait_ms;
    struct hw_inventory *current, *lent;
};

static void worker_free(struct worker *w)
{
    w->source.close(w->source.arg);
    free(w->slot);
    pthread_cond_destroy(&w->wake);
    pthread_cond_destroy(&w->over);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

static struct timespec in_ms(uint64_t ms)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    uint64_t ns = (uint64_t)at.tv_nsec + ms % 1000 * 1000000;
    at.tv_sec += (time_t)(ms / 1000 + ns / 1000000000);
    at.tv_nsec = (long)(ns % 1000000000);
    return at;
}

static void wait_ms(struct worker *w, uint64_t ms, bool until_wanted)
{
    struct timespec until = in_ms(ms);
    while (!w->stopping && !(until_wanted && w->wanted))
        if (pthread_cond_timedwait(&w->wake, &w->lock, &until) != 0)
            return;
}

/* With the lock held; the sample itself is taken without. */
static void sample(struct worker *w)
{
    w->wanted = false;
    pthread_mutex_unlock(&w->lock);
    struct hw_inventory *inv = mem_new(struct hw_inventory);
    bool ok = w->source.sample(w->source.arg, inv, NULL) == RC_OK;
    pthread_mutex_lock(&w->lock);
    if (!ok || !w->async) { /* the last good one stays */
        free(inv);
        return;
    }
    free(w->slot);
    w->slot = inv;
    uv_async_send(w->async);
}

static void *run(void *arg)
{
    struct worker *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->stopping) {
        uint64_t rest = w->interval_ms > MIN_GAP_MS ? w->interval_ms - MIN_GAP_MS : 1;
        wait_ms(w, MIN_GAP_MS, false);
        wait_ms(w, rest, true);
        if (!w->stopping)
            sample(w);
    }
    w->ended = true;
    bool abandoned = w->abandoned;
    pthread_cond_signal(&w->over);
    pthread_mutex_unlock(&w->lock);
    if (abandoned)
        worker_free(w);
    return NULL;
}

/* Moves the slot's snapshot to the loop's side. What is lent out stays until the next sampler_latest. */
static void take(struct sampler *s)
{
    pthread_mutex_lock(&s->worker->lock);
    struct hw_inventory *inv = s->worker->slot;
    s->worker->slot = NULL;
    pthread_mutex_unlock(&s->worker->lock);
    if (!inv)
        return;
    if (s->current != s->lent)
        free(s->current);
    s->current = inv;
}

static void on_async(uv_async_t *h)
{
    struct sampler *s = h->data;
    if (uv_is_closing((uv_handle_t *)h))
        return;
    take(s);
    s->fresh(s->arg);
}

const struct hw_inventory *sampler_latest(struct sampler *s)
{
    take(s);
    if (s->lent != s->current) {
        free(s->lent);
        s->lent = s->current;
    }
    return s->lent;
}

static struct worker *worker_new(const struct sampler_source *source, uint64_t interval_ms)
{
    struct worker *w = mem_new(struct worker);
    pthread_condattr_t attr;
    w->source = *source;
    w->interval_ms = interval_ms;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &attr);
    pthread_cond_init(&w->over, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&w->lock, NULL);
    return w;
}

enum rc sampler_start_with(uv_loop_t *loop, const struct sampler_source *source, uint64_t interval_ms,
                           void (*fresh)(void *arg), void *arg, struct sampler **ret_sampler, struct err *err)
{
    struct sampler *s = mem_new(struct sampler);
    s->fresh = fresh;
    s->arg = arg;
    s->stop_wait_ms = source->stop_wait_ms ? source->stop_wait_ms : STOP_WAIT_MS;
    s->current = mem_new(struct hw_inventory);
    enum rc rc = source->sample(source->arg, s->current, err);
    if (rc != RC_OK) {
        source->close(source->arg);
        free(s->current);
        free(s);
        return rc;
    }
    s->worker = worker_new(source, interval_ms);
    s->worker->async = &s->async;
    s->async.data = s;
    if (uv_async_init(loop, &s->async, on_async) != 0 ||
        pthread_create(&s->thread, NULL, run, s->worker) != 0)
        abort(); /* no descriptor or thread left at start: nothing can run here */
    *ret_sampler = s;
    return RC_OK;
}

static enum rc sample_hw(void *hw, struct hw_inventory *ret_inventory, struct err *err)
{
    return hw_sample(hw, ret_inventory, err);
}

static void close_hw(void *hw)
{
    hw_close(hw);
}

enum rc sampler_start(uv_loop_t *loop, const struct hw_options *options, uint64_t interval_ms,
                      void (*fresh)(void *arg), void *arg, struct sampler **ret_sampler, struct err *err)
{
    struct hw *hw;
    enum rc rc = hw_open(options, &hw, err);
    if (rc != RC_OK)
        return rc;
    const struct sampler_source source = {.arg = hw, .sample = sample_hw, .close = close_hw};
    return sampler_start_with(loop, &source, interval_ms, fresh, arg, ret_sampler, err);
}

void sampler_set_interval(struct sampler *s, uint64_t interval_ms)
{
    pthread_mutex_lock(&s->worker->lock);
    s->worker->interval_ms = interval_ms;
    pthread_mutex_unlock(&s->worker->lock);
}

void sampler_want(struct sampler *s)
{
    pthread_mutex_lock(&s->worker->lock);
    s->worker->wanted = true;
    pthread_cond_signal(&s->worker->wake);
    pthread_mutex_unlock(&s->worker->lock);
}

static void on_closed(uv_handle_t *h)
{
    struct sampler *s = h->data;
    if (s->lent != s->current)
        free(s->lent);
    free(s->current);
    free(s);
}

bool sampler_stop(struct sampler *s)
{
    if (!s)
        return true;
    struct worker *w = s->worker;
    struct timespec until = in_ms(s->stop_wait_ms);
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    w->async = NULL;
    pthread_cond_signal(&w->wake);
    while (!w->ended && pthread_cond_timedwait(&w->over, &w->lock, &until) == 0)
        ;
    bool ended = w->ended;
    w->abandoned = !ended;
    pthread_mutex_unlock(&w->lock);
    if (ended) {
        pthread_join(s->thread, NULL);
        worker_free(w);
    } else {
        log_warn("a reading of the machine hangs in a driver's library: its thread is left behind");
        pthread_detach(s->thread);
    }
    uv_close((uv_handle_t *)&s->async, on_closed);
    return ended;
}
