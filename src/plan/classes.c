/* What equal layers of a model have in common, found once with the facts: a file of eighty layers has two or
 * three kinds of them, and an estimate adds up kinds. Layer plan; pure; see facts.h. */
#include "plan/backend.h"
#include "plan/facts.h"

#include "base/mem.h"

#include <string.h>

_Static_assert(PLAN_RPC + 1 == FACTS_HOST_32, "a store for each kind of device, then the host's");

/* ---- which weights are whose ---- */

/* Indices of the weights by layer, those outside the layers last; order within a layer is the file's. */
static bool sort_by_layer(struct facts *f)
{
    uint32_t at = 0;
    f->by_layer = mem_try_array(f->n_weights ? f->n_weights : 1, sizeof *f->by_layer);
    if (!f->by_layer)
        return false;
    for (uint32_t i = 0; i < f->n_weights; i++)
        if (facts_in_layer(f, i))
            f->layers[f->weights[i].t->layer].n_own++;
    for (uint32_t il = 0; il < f->n_layer; il++) {
        f->layers[il].first_own = at;
        at += f->layers[il].n_own;
        f->layers[il].n_own = 0;
    }
    f->first_outside = at;
    for (uint32_t i = 0; i < f->n_weights; i++) {
        if (facts_in_layer(f, i)) {
            struct layer_facts *l = &f->layers[f->weights[i].t->layer];
            f->by_layer[l->first_own + l->n_own++] = i;
        } else {
            f->by_layer[at++] = i;
        }
    }
    return true;
}

/* ---- what a device can hold ---- */

/* Would the device run the scan that reads this weight? Asked with the model's own shapes. */
static bool takes_scan(const struct facts *f, const struct backend_traits *b, const struct tensor *w)
{
    uint64_t heads = w->ne[1] ? w->ne[1] : 1;
    struct gtensor t[] = {
        {.op = OP_SSM_SCAN, .src = {1, 1, 1, 2, -1}},
        {.ne = {w->ne[0] == 1 ? f->ssm_state : w->ne[0], f->ssm_inner / heads, heads, 1}},
        {.ne = {w->ne[0], heads, 1, 1}},
    };
    struct graph g = {.t = t, .n_t = TABLE_COUNT(t)};
    return !b->refuses || !b->refuses(&g, &t[0]);
}

bool facts_device_takes(const struct facts *f, const struct weight_facts *w, const struct backend_traits *b)
{
    bool scanned = w->role == ROLE_SSM_A && w->layer >= 0 && w->layer < (int32_t)f->n_layer &&
                   f->layers[w->layer].mixer != MIXER_DELTA && f->layers[w->layer].mixer != MIXER_KDA;
    return w->t->bytes <= b->max_tensor && (!scanned || takes_scan(f, b, w->t));
}

/* ---- classes ---- */

uint64_t facts_mix(uint64_t h, uint64_t v)
{
    h ^= v + 0x9e3779b97f4a7c15ull + (h << 6) + (h >> 2);
    return h * 0xff51afd7ed558ccdull;
}

/* Layers of one form make the same operations in the same order, with results of the same sizes. Types of
 * weights do not matter for that, nor do their bytes. */
static uint64_t form_of(const struct facts *f, uint32_t il)
{
    const struct layer_facts *l = &f->layers[il];
    uint64_t h = facts_mix((uint64_t)l->n_head << 32 | l->n_head_kv, (uint64_t)l->d_k << 32 | l->d_v);
    h = facts_mix(h, (uint64_t)l->mixer << 8 | (uint64_t)l->plain_rope << 6 | (uint64_t)l->sparse << 5 |
                         (uint64_t)l->cached << 4 | (uint64_t)l->rotated << 3 | (uint64_t)l->sliding << 2 |
                         (uint64_t)l->recurrent << 1 | (il < f->deepstack));
    h = facts_mix(h, l->cache_layer == il ? FACTS_MAX_LAYERS : l->cache_layer);
    h = facts_mix(h, f->rescale_every && (il + 1) % f->rescale_every == 0);
    for (uint32_t k = 0; k < l->n_own; k++) {
        const struct weight_facts *w = &f->weights[f->by_layer[l->first_own + k]];
        h = facts_mix(h, (uint64_t)w->role << 48 | w->t->ne[0]);
        h = facts_mix(facts_mix(h, w->t->ne[1]), w->t->ne[2] << 32 ^ w->t->ne[3]);
    }
    return h;
}

/* Layers of one class take the same bytes, too. */
static uint64_t class_of(const struct facts *f, uint32_t il)
{
    const struct layer_facts *l = &f->layers[il];
    uint64_t h = l->form;
    for (uint32_t k = 0; k < l->n_own; k++) {
        const struct weight_facts *w = &f->weights[f->by_layer[l->first_own + k]];
        h = facts_mix(h, (uint64_t)w->t->type << 8 | w->offloadable_experts);
        h = facts_mix(h, w->t->bytes);
    }
    return h;
}

static void sum_class(const struct facts *f, struct layer_class *c)
{
    const struct layer_facts *l = &f->layers[c->layer];
    for (uint32_t k = 0; k < l->n_own; k++) {
        const struct weight_facts *w = &f->weights[f->by_layer[l->first_own + k]];
        for (unsigned s = 0; s < FACTS_STORES; s++) {
            struct class_bytes *sum = &c->in[s];
            bool host = s >= FACTS_HOST_32;
            uint64_t n = host ? backend_host_bytes(s == FACTS_HOST_32 ? 32 : 64, w->t)
                              : backend_stored_bytes((enum plan_backend)s, w->t);
            *(w->offloadable_experts ? &sum->experts : &sum->plain) += n;
            if (!host && !facts_device_takes(f, w, backend_traits((enum plan_backend)s)))
                sum->some_refused = true;
        }
    }
}

enum rc facts_classes(struct facts *f, struct err *err)
{
    f->classes = mem_try_array(f->n_layer, sizeof *f->classes);
    if (!f->classes || !sort_by_layer(f))
        return err_set(err, RC_NOMEM, "no memory for the facts of %s", f->m->path);
    for (uint32_t il = 0; il < f->n_layer; il++) {
        struct layer_facts *l = &f->layers[il];
        l->form = form_of(f, il);
        uint64_t id = class_of(f, il);
        uint32_t c = f->n_classes;
        while (c > 0 && f->classes[c - 1].id != id)
            c--;
        if (c > 0) {
            l->cls = (uint16_t)(c - 1);
            continue;
        }
        l->cls = (uint16_t)f->n_classes;
        f->classes[f->n_classes] = (struct layer_class){.id = id, .layer = il};
        sum_class(f, &f->classes[f->n_classes++]);
    }
    return RC_OK;
}
