/* Conversations that outlive their instance: what is kept of whom, and whether it was of use. See kv_priv.h.
 */
#include "pool/kv_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- the folder ---- */

static void on_begun(void *arg)
{
    ((struct pool *)arg)->n_work++;
}

static void on_ended(void *arg, const struct err *err)
{
    struct pool *p = arg;
    if (err)
        p->kv->problem = *err;
    else
        p->kv->problem.code = RC_OK;
    p->n_work--;
    pool_kick(p);
}

void kv_begin(struct pool *p)
{
    struct kv *kv = p->kv = mem_new(struct kv);
    const struct kv_store_events events = {on_begun, on_ended, p};
    kv->wanted = p->opt.kv_dir != NULL;
    if (kv->wanted)
        (void)kv_store_open(p->opt.kv_dir, p->seed, p->loop, &events, &kv->store, &kv->problem);
    if (kv->store) /* prompts have the same hashes as before the restart */
        p->seed = kv_index_seed(kv_store_index(kv->store));
}

void kv_end(struct pool *p)
{
    if (!p->kv)
        return;
    kv_store_close(p->kv->store);
    free(take_ptr(p->kv));
}

void kv_changed(struct pool *p)
{
    kv_store_changed(p->kv->store);
}

void kv_forget_file(struct pool *p, uint64_t file)
{
    if (kv_index_drop(kv_store_index(p->kv->store), file))
        kv_changed(p);
    kv_store_remove(p->kv->store, file);
}

static void on_gone(void *arg, uint64_t file)
{
    kv_store_remove(arg, file);
}

void kv_options(struct pool *p)
{
    struct kv_store *s = p->kv->store;
    if (!s)
        return;
    size_t before = kv_index_n(kv_store_index(s));
    kv_index_trim(kv_store_index(s), kv_store_quota(s, p->opt.kv_quota), on_gone, s);
    if (kv_index_n(kv_store_index(s)) != before)
        kv_changed(p);
}

void kv_add_row(struct pool *p, const struct kv_row *row)
{
    struct kv_store *s = p->kv->store;
    kv_index_add(kv_store_index(s), row, kv_store_quota(s, p->opt.kv_quota), on_gone, s);
    kv_changed(p);
}

/* ---- whose are kept ---- */

static uint64_t mix(uint64_t h, uint64_t v)
{
    return str_hash((struct str){(const char *)&v, sizeof v}, h);
}

static uint64_t mix_text(uint64_t h, const char *s)
{
    return mix(str_hash(str_from(s), h), s ? strlen(s) : 0);
}

/* The model, wherever its file lies, and the build. */
static uint64_t maker_of(const struct pool_instance *i)
{
    const struct model *m = i->facts;
    uint64_t h = mix_text(mix_text(7, m->architecture), m->name);
    h = mix_text(mix_text(h, m->quantization), i->version);
    h = mix(mix(h, (uint64_t)m->mtime_ns), m->file_bytes);
    return mix(mix(h, m->parameters), m->n_tensors);
}

/* All else that a state depends on. */
static uint64_t key_of(const struct pool_instance *i, uint64_t maker)
{
    const struct plan_params *p = &i->plan.estimate.params;
    const struct pool_files *f = i->entry->files;
    uint64_t h = mix(mix(maker, p->type_k), p->type_v);
    h = mix(h, p->kv_unified || p->parallel == 0 ? p->ctx : p->ctx / p->parallel);
    h = mix(mix(h, p->flash_attn), p->swa_full);
    for (uint32_t k = 0; k < f->n_adapters; k++) {
        const struct model *a =
            i->beside.adapters[k]; /* trained anew, it makes other states of the same text */
        h = str_hash((struct str){(const char *)&f->adapter_scale[k], sizeof f->adapter_scale[k]},
                     mix_text(h, f->adapters[k]));
        h = a ? mix(mix(h, (uint64_t)a->mtime_ns), a->file_bytes) : h;
    }
    for (size_t k = 0; k < i->entry->n_extra_args; k++)
        h = mix_text(h, i->entry->extra_args[k]);
    return h;
}

static bool has_own_path(const struct entry *e)
{
    for (size_t k = 0; k < e->n_extra_args; k++)
        if (str_starts(str_from(e->extra_args[k]), "--slot-save-path"))
            return true;
    return false;
}

/* Why nothing of the instance is kept; NULL = it is. */
static const char *why_not(const struct pool_instance *i, bool forced, uint64_t maker)
{
    const struct pool *p = i->pool;
    const struct plan_extras *x = i->plan.estimate.params.extras;
    const struct {
        bool holds;
        const char *why;
    } rows[] = {
        {!p->kv->store, p->kv->wanted ? "the folder for it cannot be used" : "it is switched off"},
        {i->entry->kv_keep == POOL_KV_OFF, "it is switched off for this model"},
        {!p->deps.runtime->slots, "the runtime cannot do it"},
        {i->entry->embedding, "embeddings have no conversation"},
        {has_own_path(i->entry), "extra_args names a folder of its own"},
        {!forced && plan_host_part(&i->plan.estimate)->checkpoint_bytes > 0,
         "it has sliding-window or recurrent layers, whose states do not help"},
        {!forced && i->entry->files->mmproj, "with a projector the runtime cannot do it"},
        {!forced && x && x->draft, "its draft model's state would be lost"},
        {!forced && p->kv->store && kv_index_is_off(kv_store_index(p->kv->store), maker),
         "states of this model that were read back did not help with this build"},
    };
    for (size_t k = 0; k < TABLE_COUNT(rows); k++)
        if (rows[k].holds)
            return rows[k].why;
    return NULL;
}

const char *kv_launching(struct pool_instance *i)
{
    bool forced = i->entry->kv_keep == POOL_KV_FORCE;
    uint64_t maker = maker_of(i), bytes = 0;
    const struct plan_estimate *e = &i->plan.estimate;
    kv_release(i);
    i->kv_why_not = why_not(i, forced, maker);
    if (i->kv_why_not)
        return NULL;
    for (size_t k = 0; k < e->n_parts; k++)
        bytes += e->parts[k].context_bytes;
    i->kv = mem_new(struct kv_held);
    i->kv->maker = maker;
    i->kv->key = key_of(i, maker);
    i->kv->forced = forced;
    i->kv->token_bytes = e->params.ctx ? bytes / e->params.ctx : 0;
    return kv_store_dir(i->pool->kv->store);
}

void kv_release(struct pool_instance *i)
{
    free(take_ptr(i->kv));
}

bool kv_is_busy(const struct pool_instance *i)
{
    return i->kv && (i->kv->restoring > 0 || i->kv->saving);
}

bool kv_is_kept(const struct entry *e)
{
    return e->pool->kv->store && e->lead->kv_keep != POOL_KV_OFF && !e->lead->embedding;
}

bool kv_in_use(const struct pool_instance *i)
{
    return i->kv && (i->kv->forced || !kv_index_is_off(kv_store_index(i->pool->kv->store), i->kv->maker));
}

/* ---- what it costs ---- */

static uint64_t ms_of(uint64_t bytes, uint64_t bps, uint64_t unmeasured)
{
    double ms = (double)bytes * 1000 / (double)(bps ? bps : unmeasured);
    return KV_CALL_MS + (uint64_t)(ms < 1e12 ? ms : 1e12);
}

uint64_t kv_read_ms(const struct pool *p, uint64_t bytes)
{
    return ms_of(bytes, kv_index_speeds(kv_store_index(p->kv->store)).read_bps, KV_READ_BPS);
}

uint64_t kv_write_ms(const struct pool *p, uint64_t bytes)
{
    return ms_of(bytes, kv_index_speeds(kv_store_index(p->kv->store)).write_bps, KV_WRITE_BPS);
}

uint64_t kv_prefill_ms(const struct pool_instance *i, uint32_t tokens)
{
    double tps = i->plan.speed.prefill_tps;
    return tps > 0.001 ? (uint64_t)(tokens * 1000.0 / tps) : UINT64_MAX;
}

bool kv_pays(const struct pool_instance *i, uint64_t bytes, uint32_t tokens)
{
    return i->kv->forced || kv_read_ms(i->pool, bytes) < kv_prefill_ms(i, tokens);
}

/* ---- asking ---- */

struct call *kv_ask_list(struct pool_instance *i, uint64_t limit_ms, call_cb cb, void *arg)
{
    const struct call_spec spec = {.address = "127.0.0.1",
                                   .port = i->port,
                                   .method = "GET",
                                   .path = i->pool->deps.runtime->slots->list_path,
                                   .limit_ms = limit_ms,
                                   .max_body = KV_ANSWER_MAX};
    return call_start(i->pool->loop, &spec, cb, arg);
}

struct call *kv_ask_slot(struct pool_instance *i, bool save, uint32_t slot, uint64_t file, uint64_t limit_ms,
                         call_cb cb, void *arg)
{
    char name[KV_FILE_NAME], path[128], body[128];
    if (!i->pool->deps.runtime->slots->ask(save, slot, kv_store_name(file, name), path, sizeof path, body,
                                           sizeof body))
        return NULL;
    const struct call_spec spec = {.address = "127.0.0.1",
                                   .port = i->port,
                                   .method = "POST",
                                   .path = path,
                                   .body = body,
                                   .limit_ms = limit_ms,
                                   .max_body = 65536};
    return call_start(i->pool->loop, &spec, cb, arg);
}

/* ---- telling ---- */

void kv_tell(struct pool_instance *i, const char *kind, const char *code, const char *fmt, ...)
{
    struct plan_reason r;
    char text[sizeof r.text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    reason_set(&r, code, "%s", text);
    decide(i->pool, kind, NULL, i, &r, 1, NULL, 0);
}

void kv_tell_failed(struct pool_instance *i, const char *what, const struct err *why)
{
    i->pool->count.kv_failures++;
    if (i->pool->kv->told_failed)
        return;
    i->pool->kv->told_failed = true;
    kv_tell(i, "kv_failed", "kv_failed", "%s: %.200s%s%.100s", what, why->message, why->hint[0] ? "; " : "",
            why->hint);
}

/* ---- a request ---- */

static uint64_t wall_s(const struct pool *p)
{
    int64_t ms = p->deps.wall_ms();
    return ms > 0 ? (uint64_t)ms / 1000 : 0;
}

/* The file from which it goes on further than from what the instance has read already; NULL = none is worth
 * it. */
static const struct kv_row *row_for(const struct pool_instance *i, const struct prefix *prefix,
                                    uint32_t *ret_tokens)
{
    uint32_t blocks = 0;
    const struct kv_index *ix = kv_store_index(i->pool->kv->store);
    const struct kv_row *r = kv_index_find(ix, i->kv->key, prefix, &blocks);
    if (!r || kv_talks_common(&i->kv->talks, prefix) >= blocks)
        return NULL;
    uint64_t share = (uint64_t)r->tokens * prefix_bytes(blocks) / prefix_bytes(r->prefix.n);
    *ret_tokens = (uint32_t)share;
    bool pays = share >= i->pool->opt.kv_min_tokens && kv_pays(i, r->bytes, (uint32_t)share);
    return pays || (i->kv->forced && share > 0) ? r : NULL;
}

bool kv_starts(struct pool_instance *i, const struct prefix *prefix, struct pool_lease *lease)
{
    if (!kv_in_use(i) || prefix->n == 0)
        return false;
    uint32_t tokens = 0;
    const struct kv_row *r = row_for(i, prefix, &tokens);
    lease->talk = kv_talks_begin(&i->kv->talks, prefix);
    if (!r)
        return false;
    kv_index_touch(kv_store_index(i->pool->kv->store), r->file, wall_s(i->pool));
    lease->kv_file = r->file;
    lease->kv_tokens = tokens;
    return true;
}

void kv_judge(struct pool_instance *i, bool helped, const char *what)
{
    struct pool *p = i->pool;
    bool off = kv_index_judge(kv_store_index(p->kv->store), i->kv->maker, helped);
    if (!helped)
        kv_changed(p);
    if (off && !i->kv->forced)
        kv_tell(i, "kv_off", "kv_no_help",
                "%s, the %u. time in a row: conversations with this model are kept no longer with %.60s; "
                "kv_keep: force "
                "does it nevertheless",
                what, KV_STRIKES, i->version);
}

/* Was the state of use that was read back for it? */
static void judge(struct pool_instance *i, const struct pool_lease *l)
{
    char what[96];
    uint64_t hits = l->cached_tokens < l->kv_tokens ? l->cached_tokens : l->kv_tokens;
    i->kv->hit_tokens += hits;
    i->pool->count.kv_hit_tokens += hits;
    snprintf(what, sizeof what, "of %u tokens read back only %u were used", l->kv_tokens, l->cached_tokens);
    kv_judge(i, (uint64_t)l->cached_tokens * 2 >= l->kv_tokens, what);
}

void kv_ended(struct pool_instance *i, const struct pool_lease *l, enum pool_end end)
{
    if (!i->kv || !l->talk)
        return;
    bool known = end == POOL_END_FINE && l->prompt_tokens > 0;
    kv_talks_end(&i->kv->talks, l->talk, known ? l->prompt_tokens : 0, known ? l->answer_tokens : 0);
    if (known && l->kv_tokens)
        judge(i, l);
}

/* ---- views ---- */

const char *pool_kv_problem(const struct pool *p)
{
    return p->kv->problem.code == RC_OK ? NULL : p->kv->problem.message;
}

void kv_count(const struct pool *p, struct pool_counters *c)
{
    if (!p->kv->store)
        return;
    c->kv_files = kv_index_n(kv_store_index(p->kv->store));
    c->kv_bytes = kv_index_bytes(kv_store_index(p->kv->store));
}

yyjson_mut_val *kv_instance_json(const struct pool_instance *i, yyjson_mut_doc *doc)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    const char *why = i->kv && !kv_in_use(i) ? "states that were read back did not help" : i->kv_why_not;
    yyjson_mut_obj_add_bool(doc, o, "kept", kv_in_use(i));
    if (why)
        yyjson_mut_obj_add_str(doc, o, "why_not", why);
    else
        yyjson_mut_obj_add_null(doc, o, "why_not");
    yyjson_mut_obj_add_uint(doc, o, "saved", i->kv ? i->kv->saved : 0);
    yyjson_mut_obj_add_uint(doc, o, "restored", i->kv ? i->kv->restored : 0);
    yyjson_mut_obj_add_uint(doc, o, "hit_tokens", i->kv ? i->kv->hit_tokens : 0);
    return o;
}
