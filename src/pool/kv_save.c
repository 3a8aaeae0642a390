/* Before an instance is asked to end: what its slots hold goes into files. See kv_priv.h.
 *
 * kv_leave asks which slots hold how much, finds out whose conversations these are, and has them written one
 * after the other, the latest first, as long as the time for it lasts; then, or when anything goes wrong,
 * instance_saved is called. What was written is summed up and entered on the work pool, when the instance may
 * be over already. */
#include "pool/kv_priv.h"

#include <stdio.h>
#include <string.h>

struct kv_save {
    struct pool_instance *instance;
    struct call *call;
    uint64_t begun_ms; /* of the loop's clock */
    uint64_t quota;
    size_t n, at;
    uint64_t file, asked_ms;        /* of the one under way */
    struct kv_pick picks[KV_SLOTS]; /* of talks that stay: nothing is asked of the instance any more */
};

static uint64_t left_ms(const struct kv_save *s)
{
    uint64_t spent = uv_now(s->instance->pool->loop) - s->begun_ms, all = s->instance->pool->opt.kv_save_ms;
    return spent < all ? all - spent : 0;
}

/* Its instance ends now. */
static void finish(struct kv_save *s)
{
    struct pool_instance *i = s->instance;
    i->kv->saving = NULL;
    free(s);
    instance_saved(i);
}

void kv_stop(struct pool_instance *i)
{
    struct kv_save *s = i->kv ? take_ptr(i->kv->saving) : NULL;
    if (!s)
        return;
    call_cancel(s->call);
    if (s->file)
        kv_store_remove(i->pool->kv->store, s->file);
    free(s);
}

/* ---- a file that is there ---- */

struct entering {
    uv_work_t req;
    struct pool *pool;
    struct kv_row row;
    enum rc rc;
    struct err err;
};

static void sum_work(uv_work_t *req)
{
    struct entering *e = req->data;
    e->rc = kv_store_sum(e->pool->kv->store, e->row.file, &e->row.bytes, &e->row.sum, &e->err);
}

static void summed(uv_work_t *req, int status)
{
    struct entering *e = req->data;
    struct pool *p = e->pool;
    (void)status;
    p->n_work--;
    if (e->rc == RC_OK) {
        p->count.kv_saved++;
        kv_add_row(p, &e->row);
    } else {
        p->count.kv_failures++;
        kv_store_remove(p->kv->store, e->row.file);
    }
    free(e);
    pool_kick(p);
}

static void enter(const struct kv_save *s, uint32_t tokens)
{
    struct pool_instance *i = s->instance;
    struct pool *p = i->pool;
    struct entering *e = mem_new(struct entering);
    int64_t wall_ms = p->deps.wall_ms();
    e->pool = p;
    e->req.data = e;
    e->row = (struct kv_row){.key = i->kv->key,
                             .maker = i->kv->maker,
                             .file = s->file,
                             .used = wall_ms > 0 ? (uint64_t)wall_ms / 1000 : 0,
                             .tokens = tokens,
                             .prefix = s->picks[s->at].talk->prefix};
    snprintf(e->row.model, sizeof e->row.model, "%s", i->model);
    p->n_work++;
    if (uv_queue_work(p->loop, &e->req, sum_work, summed) != 0)
        abort(); /* it fails for a missing function only */
}

/* ---- one after the other ---- */

static void next(struct kv_save *s);

static void failed(struct kv_save *s, int status)
{
    struct err why;
    struct pool_instance *i = s->instance;
    uint64_t file = s->file;
    s->file = 0;
    if (status < 0)
        (void)err_set(&why, RC_TIMEOUT, "%s was not done with it in time", i->id);
    else
        (void)err_set(&why, RC_IO, "%s answered with status %d", i->id, status);
    err_hint(&why, "is there room in %s? arriero logs %s", kv_store_dir(i->pool->kv->store), i->model);
    kv_tell_failed(i, "a conversation could not be kept", &why);
    kv_store_remove(i->pool->kv->store, file);
    if (status < 0) /* the others would have to wait, too */
        finish(s);
    else {
        s->at++;
        next(s);
    }
}

static void on_written(void *arg, int status)
{
    struct kv_save *s = arg;
    struct pool_instance *i = s->instance;
    uint32_t tokens = 0;
    uint64_t bytes = 0;
    uint64_t ms = uv_now(i->pool->loop) - s->asked_ms;
    struct str answer = status == 200 ? call_body(s->call) : STR("");
    bool ok = status == 200 && i->pool->deps.runtime->slots->read_done(answer, &tokens, &bytes);
    s->call = NULL;
    if (!ok) {
        failed(s, status);
        return;
    }
    char size[24];
    kv_index_learn(kv_store_index(i->pool->kv->store), true, bytes, ms);
    i->kv->saved++;
    i->pool->kv->told_failed = false;
    kv_tell(i, "kv_saved", "kv_saved",
            "a conversation of %u tokens is kept in a file of %s, written in %llu ms", tokens,
            str_human_bytes(bytes, size, sizeof size), (unsigned long long)ms);
    enter(s, tokens);
    s->file = 0;
    s->at++;
    next(s);
}

/* The same, as it is in a file already? */
static bool is_kept(const struct kv_save *s, const struct kv_pick *k)
{
    uint32_t blocks = 0;
    const struct pool_instance *i = s->instance;
    const struct kv_row *r =
        kv_index_find(kv_store_index(i->pool->kv->store), i->kv->key, &k->talk->prefix, &blocks);
    return r && blocks == k->talk->prefix.n && r->prefix.n == blocks && r->tokens == k->slot.tokens;
}

static bool is_worth_it(const struct kv_save *s, const struct kv_pick *k)
{
    const struct pool_instance *i = s->instance;
    uint64_t bytes = i->kv->token_bytes * k->slot.tokens;
    return bytes <= s->quota && k->slot.tokens >= i->pool->opt.kv_min_tokens &&
           kv_pays(i, bytes, k->slot.tokens) && !is_kept(s, k) && kv_write_ms(i->pool, bytes) <= left_ms(s);
}

static void next(struct kv_save *s)
{
    struct pool_instance *i = s->instance;
    while (s->at < s->n && !is_worth_it(s, &s->picks[s->at]))
        s->at++;
    if (s->at == s->n || left_ms(s) == 0) {
        finish(s);
        return;
    }
    s->file = kv_index_next_file(kv_store_index(i->pool->kv->store));
    s->asked_ms = uv_now(i->pool->loop);
    s->call = kv_ask_slot(i, true, s->picks[s->at].slot.id, s->file, left_ms(s), on_written, s);
    if (!s->call)
        finish(s);
}

static void on_list(void *arg, int status)
{
    struct kv_save *s = arg;
    struct pool_instance *i = s->instance;
    struct runtime_slot slots[KV_SLOTS];
    size_t n = 0;
    bool ok =
        status == 200 && i->pool->deps.runtime->slots->read_list(call_body(s->call), slots, KV_SLOTS, &n);
    s->call = NULL;
    s->n = ok ? kv_talks_match(&i->kv->talks, slots, n, s->picks) : 0;
    next(s);
}

static bool has_worthy(const struct pool_instance *i)
{
    for (size_t k = 0; k < KV_TALKS; k++) {
        const struct kv_talk *t = &i->kv->talks.list[k];
        if (t->serial && t->prompt && t->prompt + t->answer >= i->pool->opt.kv_min_tokens)
            return true;
    }
    return false;
}

bool kv_leave(struct pool_instance *i)
{
    if (!i->kv || i->pool->hurry)
        return false;
    if (i->kv->saving)
        return true;
    if (!i->ready_ms || i->suspect || !i->job || !i->pool->opt.kv_save_ms || !kv_in_use(i) || !has_worthy(i))
        return false;
    uint64_t quota = kv_store_quota(i->pool->kv->store, i->pool->opt.kv_quota);
    if (quota == 0)
        return false;
    struct kv_save *s = mem_new(struct kv_save);
    s->instance = i;
    s->quota = quota;
    uv_update_time(i->pool->loop);
    s->begun_ms = uv_now(i->pool->loop);
    s->call = kv_ask_list(i, i->pool->opt.kv_save_ms, on_list, s);
    i->kv->saving = s;
    return true;
}
