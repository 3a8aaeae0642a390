/* The sampler: see sampler.h. A snapshot goes through one slot behind the lock; the loop keeps the one it
 * lent and the newest. */
#include "daemon/sampler.h"

#include "base/mem.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#define MIN_GAP_MS 50 /* between samples on demand */

struct sampler {
    uv_async_t async;
    void (*fresh)(void *arg);
    void *arg;
    struct hw *hw; /* the thread's own after the start */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    /* behind the lock */
    struct hw_inventory *slot; /* newest, not yet taken by the loop */
    uint64_t interval_ms;
    bool wanted, stopping;
    /* the loop's own */
    struct hw_inventory *current, *lent;
};

static void wait_ms(struct sampler *s, uint64_t ms, bool until_wanted)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + ms % 1000 * 1000000;
    until.tv_sec += (time_t)(ms / 1000 + ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    while (!s->stopping && !(until_wanted && s->wanted))
        if (pthread_cond_timedwait(&s->wake, &s->lock, &until) != 0)
            return;
}

static void *run(void *arg)
{
    struct sampler *s = arg;
    pthread_mutex_lock(&s->lock);
    while (!s->stopping) {
        uint64_t rest = s->interval_ms > MIN_GAP_MS ? s->interval_ms - MIN_GAP_MS : 1;
        wait_ms(s, MIN_GAP_MS, false);
        wait_ms(s, rest, true);
        if (s->stopping)
            break;
        s->wanted = false;
        pthread_mutex_unlock(&s->lock);
        struct hw_inventory *inv = mem_new(struct hw_inventory);
        bool ok = hw_sample(s->hw, inv, NULL) == RC_OK;
        pthread_mutex_lock(&s->lock);
        if (!ok) { /* the last good one stays */
            free(inv);
            continue;
        }
        free(s->slot);
        s->slot = inv;
        uv_async_send(&s->async);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* Moves the slot's snapshot to the loop's side. What is lent out stays until the next sampler_latest. */
static void take(struct sampler *s)
{
    pthread_mutex_lock(&s->lock);
    struct hw_inventory *inv = s->slot;
    s->slot = NULL;
    pthread_mutex_unlock(&s->lock);
    if (!inv)
        return;
    if (s->current != s->lent)
        free(s->current);
    s->current = inv;
}

static void on_async(uv_async_t *h)
{
    struct sampler *s = h->data;
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

enum rc sampler_start(uv_loop_t *loop, const struct hw_options *options, uint64_t interval_ms,
                      void (*fresh)(void *arg), void *arg, struct sampler **ret_sampler, struct err *err)
{
    struct sampler *s = mem_new(struct sampler);
    s->fresh = fresh;
    s->arg = arg;
    s->interval_ms = interval_ms;
    s->current = mem_new(struct hw_inventory);
    enum rc rc = hw_open(options, &s->hw, err);
    if (rc == RC_OK)
        rc = hw_sample(s->hw, s->current, err);
    if (rc != RC_OK) {
        hw_close(s->hw);
        free(s->current);
        free(s);
        return rc;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wake, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&s->lock, NULL);
    s->async.data = s;
    if (uv_async_init(loop, &s->async, on_async) != 0 || pthread_create(&s->thread, NULL, run, s) != 0)
        abort(); /* no descriptor or thread left at start: nothing can run here */
    *ret_sampler = s;
    return RC_OK;
}

void sampler_set_interval(struct sampler *s, uint64_t interval_ms)
{
    pthread_mutex_lock(&s->lock);
    s->interval_ms = interval_ms;
    pthread_mutex_unlock(&s->lock);
}

void sampler_want(struct sampler *s)
{
    pthread_mutex_lock(&s->lock);
    s->wanted = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

static void on_closed(uv_handle_t *h)
{
    struct sampler *s = h->data;
    free(s->slot);
    if (s->lent != s->current)
        free(s->lent);
    free(s->current);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

void sampler_stop(struct sampler *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    hw_close(s->hw);
    uv_close((uv_handle_t *)&s->async, on_closed);
}
