/* Would it fit, where, evicting whom: the question of a load without the load. See pool.h. */
#include "os/pagecache.h"
#include "pool/pool_priv.h"

enum rc pool_plan(struct pool *p, struct str model, const struct plan_policy *policy, yyjson_mut_doc *doc,
                  yyjson_mut_val **ret_json, struct err *err)
{
    struct entry *e = entry_find(p, model);
    if (!e)
        return entry_unknown(p, model, err);
    if (!e->caps && !p->default_caps) {
        enum rc rc = err_set(err, RC_BUSY, "what llama-server can do is not known yet");
        err_hint(err, "ask again in a moment; if it stays so, load a model to see why");
        return rc;
    }
    bool had_facts = e->facts != NULL;
    if (!had_facts) { /* the catalogue has read the file already: this is a look into the cache */
        enum rc rc = p->deps.facts(e->path, &e->facts, err);
        if (rc != RC_OK)
            return rc;
    }
    bool had_beside = e->beside.known;
    if (!had_beside) {
        enum rc rc = beside_read(p, e->files, &e->beside, err);
        if (rc != RC_OK) {
            if (!had_facts)
                p->deps.facts_unref(take_ptr(e->facts));
            return rc;
        }
    }
    bool had_smaller = e->smaller.n > 0;
    if (!had_smaller)
        smaller_read(p, e->smaller_paths, e->n_smaller_paths, &e->smaller);
    (void)pagecache_share(e->path, &e->file_cached, NULL); /* as it is now */
    struct admission *a = mem_new(struct admission);
    struct plan_policy wanted = policy ? *policy : e->policy;
    struct err why = {0};
    enum admit answer = heat_admit(e, &wanted, a, &why);
    enum rc rc = RC_OK;
    if (answer != ADMIT_GO && a->plan.n_reasons == 0 && why.code != RC_NO_FIT && why.code != RC_BUSY) {
        *err = why;
        rc = why.code;
    } else {
        for (size_t k = 0; k < a->plan.estimate.n_parts; k++)
            if (a->plan.estimate.parts[k].kind == PLAN_HOST) {
                a->plan.estimate.parts[k].total_bytes = a->machine.host.total_bytes;
                a->plan.estimate.parts[k].free_bytes = a->machine.host.free_bytes;
            }
        const struct model *m = a->plan.smaller >= 0 ? e->smaller.list[a->plan.smaller] : e->facts;
        yyjson_mut_val *o = plan_json(doc, m, &a->plan), *victims = yyjson_mut_arr(doc);
        for (size_t k = 0; k < a->n_victims; k++)
            if (a->victims[k]->entry != e) /* it would take its own place */
                yyjson_mut_arr_add_strcpy(doc, victims, a->victims[k]->id);
        yyjson_mut_obj_remove_key(o, "victims");
        yyjson_mut_obj_add_val(doc, o, "victims", victims);
        yyjson_mut_obj_add_bool(doc, o, "waits", answer == ADMIT_WAIT);
        yyjson_mut_obj_add_val(doc, o, "live", outlook_json(e, a, answer, doc));
        if (why.code != RC_OK)
            yyjson_mut_obj_add_val(doc, o, "error", json_err(doc, &why));
        *ret_json = o;
    }
    if (!had_facts)
        p->deps.facts_unref(take_ptr(e->facts));
    if (!had_beside)
        beside_release(p, &e->beside);
    if (!had_smaller)
        smaller_release(p, &e->smaller);
    free(a);
    return rc;
}
