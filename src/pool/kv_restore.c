/* Before a request is sent: the state that its prompt goes on from is read out of its file. See kv_priv.h.
 *
 * The file's sum is made on the work pool, the slots are looked at, one that nobody needs reads the file;
 * then the caller is told, as one that has waited. Every step may fail, or take as long as the prompt would:
 * the request goes on without. The server finds by itself the slot that holds most of a prompt, so requests
 * need not name it. */
#include "pool/kv_priv.h"

#include <stdio.h>
#include <string.h>

#define LIMIT_LEAST_MS 250u
#define LIMIT_MOST_MS  10000u

struct kv_restore {
    uv_work_t req;
    struct pool_instance *instance;
    struct pool_wait *wait; /* NULL once it was cancelled */
    struct pool_lease lease;
    struct kv_row row; /* a copy: the index may change */
    uint64_t begun_ms, limit_ms;
    struct call *call; /* NULL = on the work pool */
    uint32_t slot;
    uint64_t bytes, sum; /* as found */
    enum rc rc;
    struct err err;
};

static uint64_t spent_ms(const struct kv_restore *r)
{
    return uv_now(r->instance->pool->loop) - r->begun_ms;
}

static uint64_t left_ms(const struct kv_restore *r)
{
    uint64_t spent = spent_ms(r);
    return spent < r->limit_ms ? r->limit_ms - spent : 1;
}

/* The caller is told, whatever came of it. */
static void finish(struct kv_restore *r, bool restored)
{
    struct pool_instance *i = r->instance;
    struct pool *p = i->pool;
    struct pool_wait *w = r->wait;
    struct pool_lease lease = r->lease;
    i->kv->restoring--;
    if (!restored)
        lease.kv_tokens = 0; /* nothing to judge */
    free(r);
    if (w) {
        w->restore = NULL;
        wait_tell(w, RC_OK, &lease, NULL, 0);
    } else {
        pool_release(p, &lease, POOL_END_LEFT);
    }
    pool_kick(p);
}

static void go_without(struct kv_restore *r, const struct err *why)
{
    kv_tell_failed(r->instance, "a conversation could not be read back", why);
    finish(r, false);
}

/* ---- the slot ---- */

static void on_read(void *arg, int status)
{
    struct kv_restore *r = arg;
    struct pool_instance *i = r->instance;
    struct pool *p = i->pool;
    struct err why;
    uint32_t tokens = 0;
    uint64_t bytes = 0, ms = spent_ms(r);
    char size[24];
    bool ok = status == 200 && p->deps.runtime->slots->read_done(call_body(r->call), &tokens, &bytes);
    r->call = NULL;
    if (!ok) {
        if (status < 0)
            (void)err_set(&why, RC_TIMEOUT, "%s was not done with it within %llu ms", i->id,
                          (unsigned long long)ms);
        else
            (void)err_set(&why, RC_BACKEND, "%s answered with status %d", i->id, status);
        err_hint(&why, "its prompt is read anew; arriero logs %s", i->model);
        if (status >= 400) { /* it will not like it the next time either */
            kv_judge(i, false, "reading a conversation back failed");
            kv_forget_file(p, r->row.file);
        }
        go_without(r, &why);
        return;
    }
    kv_index_learn(kv_store_index(p->kv->store), false, bytes, ms);
    p->count.kv_restored++;
    p->kv->told_failed = false;
    i->kv->restored++;
    kv_tell(i, "kv_restored", "kv_restored", "a conversation of %u tokens was read back out of %s in %llu ms",
            tokens, str_human_bytes(bytes, size, sizeof size), (unsigned long long)ms);
    finish(r, true);
}

static bool is_filled(const struct kv_held *h, uint32_t slot)
{
    return slot < KV_SLOTS && (h->filled[slot / 32] >> slot % 32 & 1);
}

/* The less it holds that somebody may ask for, the better. */
static unsigned value_of(const struct kv_held *h, const struct runtime_slot *s)
{
    return s->request ? 2 : is_filled(h, s->id) ? 3 : 0;
}

/* NULL: none is free, or the others leave no room for it: of a cache that all share, nothing is cleared for a
 * state that is read. */
static const struct runtime_slot *slot_for(const struct kv_restore *r, const struct runtime_slot *slots,
                                           size_t n)
{
    const struct runtime_slot *best = NULL;
    const struct kv_held *h = r->instance->kv;
    const struct plan_params *params = &r->instance->plan.estimate.params;
    uint64_t held = r->row.tokens;
    for (size_t k = 0; k < n; k++) {
        held += slots[k].tokens;
        const struct runtime_slot *s = &slots[k];
        if (s->busy || s->id >= KV_SLOTS)
            continue;
        if (!best || value_of(h, s) < value_of(h, best) ||
            (value_of(h, s) == value_of(h, best) && s->request < best->request))
            best = s;
    }
    if (best && params->kv_unified && held - best->tokens > params->ctx)
        return NULL;
    return best;
}

static void on_list(void *arg, int status)
{
    struct kv_restore *r = arg;
    struct pool_instance *i = r->instance;
    struct runtime_slot slots[KV_SLOTS];
    size_t n = 0;
    bool ok =
        status == 200 && i->pool->deps.runtime->slots->read_list(call_body(r->call), slots, KV_SLOTS, &n);
    const struct runtime_slot *s = ok ? slot_for(r, slots, n) : NULL;
    r->call = NULL;
    if (!s || !r->wait) { /* none is free: the request waits for one anyway */
        finish(r, false);
        return;
    }
    i->kv->filled[s->id / 32] |= 1u << s->id % 32;
    r->slot = s->id;
    r->call = kv_ask_slot(i, false, s->id, r->row.file, left_ms(r), on_read, r);
    if (!r->call)
        finish(r, false);
}

/* ---- the file ---- */

static void sum_work(uv_work_t *req)
{
    struct kv_restore *r = req->data;
    r->rc = kv_store_sum(r->instance->pool->kv->store, r->row.file, &r->bytes, &r->sum, &r->err);
}

static void summed(uv_work_t *req, int status)
{
    struct kv_restore *r = req->data;
    struct pool_instance *i = r->instance;
    struct pool *p = i->pool;
    (void)status;
    p->n_work--;
    if (r->rc == RC_OK && (r->bytes != r->row.bytes || r->sum != r->row.sum)) {
        r->rc = err_set(&r->err, RC_INVALID, "its file in %s is damaged", kv_store_dir(p->kv->store));
        err_hint(&r->err, "it was removed; the prompt is read anew");
    }
    if (r->rc != RC_OK) {
        kv_forget_file(p, r->row.file);
        go_without(r, &r->err);
    } else if (!r->wait || i->state != POOL_READY || spent_ms(r) >= r->limit_ms) {
        finish(r, false);
    } else {
        r->call = kv_ask_list(i, left_ms(r), on_list, r);
    }
}

/* ---- begin and end ---- */

struct pool_wait *kv_restore(struct pool_instance *i, const struct pool_lease *lease, struct pool_wait *w)
{
    struct pool *p = i->pool;
    struct kv_restore *r = mem_new(struct kv_restore);
    uint64_t prefill = kv_prefill_ms(i, lease->kv_tokens);
    r->instance = i;
    r->wait = w;
    r->lease = *lease;
    r->row = *kv_index_of_file(kv_store_index(p->kv->store), lease->kv_file);
    r->limit_ms = prefill < LIMIT_LEAST_MS  ? LIMIT_LEAST_MS
                  : prefill < LIMIT_MOST_MS ? prefill
                                            : LIMIT_MOST_MS;
    uv_update_time(p->loop);
    r->begun_ms = uv_now(p->loop);
    r->req.data = r;
    w->restore = r;
    i->kv->restoring++;
    p->n_work++;
    if (uv_queue_work(p->loop, &r->req, sum_work, summed) != 0)
        abort(); /* it fails for a missing function only */
    return w;
}

void kv_restore_cancel(struct pool_wait *w)
{
    struct kv_restore *r = w->restore;
    wait_drop(w);
    r->wait = NULL;
    if (!r->call)
        return; /* the work pool cannot be called back: it ends there */
    call_cancel(take_ptr(r->call));
    finish(r, false);
}
