/* Which layers of a model are built, and for which others each stands. Layer plan; pure; see build.h.
 *
 * A layer's births and deaths follow from its signature and its surroundings: what the scheduler lets spread
 * into it from its neighbours, and what of the next layer runs before its end. Layers that are equal in all
 * of that are built once. What lives longer than a layer (a mask, its copy on a device) must be born and die
 * in layers that stand for themselves alone; the later ways of choosing build those, too. Whether the choice
 * was right shows in the trace (walk.h). */
#include "plan/build.h"
#include "plan/extras.h"

/* Of where a layer's weights lie, one by one, where that does not follow from the layer's device. */
static uint64_t mix_places(const struct layout *l, uint32_t il, uint64_t h)
{
    const struct layer_facts *lf = &l->f->layers[il];
    for (uint32_t k = 0; k < lf->n_own; k++) {
        uint32_t i = l->f->by_layer[lf->first_own + k];
        struct weight_place p = layout_weight(l, i);
        h = facts_mix(h, (uint64_t)(uint8_t)p.device << 1 | p.repacked);
        for (uint32_t a = 0; a < l->n_adapters; a++) {
            const struct adapter_pair *pair = &l->adapters[(size_t)a * l->f->n_weights + i];
            h = facts_mix(h, pair->a ? pair->a->ne[1] : 0);
        }
    }
    return h;
}

struct layer_sign {
    uint64_t own;  /* layers with equal ones need equal memory in equal order */
    uint64_t edge; /* as far as it spreads into a neighbour */
};

struct chooser {
    struct build *b;
    bool copies;  /* some device copies weights of the host */
    bool refuses; /* some device refuses operations */
    bool reorders;
    bool states; /* a layer's states are read before the layer before it has ended */
    struct layer_sign sign[FACTS_MAX_LAYERS];
    uint64_t key[FACTS_MAX_LAYERS]; /* of the segments so far */
};

/* Types and bytes of weights count only where they may be copied to a device, which is for those in plain
 * host memory. */
static struct layer_sign sign_of(const struct chooser *c, uint32_t il)
{
    const struct layout *l = c->b->l;
    const struct layer_facts *lf = &l->f->layers[il];
    int dev = l->layer_device[il];
    bool on_host = dev == layout_host(l), experts_moved = il < l->p->n_cpu_moe,
         refused = !on_host && l->f->classes[lf->cls].in[l->devices[dev].backend].some_refused;
    uint64_t h =
        facts_mix(lf->form, (uint64_t)(uint8_t)dev << 16 |
                                (uint64_t)(uint8_t)l->layer_device[lf->cache_layer] << 8 | experts_moved);
    if (c->copies && (on_host || experts_moved || refused || l->p->n_overrides))
        h = facts_mix(h, l->f->classes[lf->cls].id);
    if (l->p->n_overrides || l->n_adapters || refused)
        h = mix_places(l, il, h);
    bool pure = l->n_devices == 0 || (!on_host && !experts_moved && !refused && !c->refuses &&
                                      !l->p->n_overrides && l->p->kv_offload);
    return (struct layer_sign){.own = h, .edge = pure ? (uint64_t)dev : h};
}

static bool is_pure(const struct chooser *c, uint32_t il)
{
    return c->sign[il].edge != c->sign[il].own;
}

/* What of the layer behind it shows in this one: what the scheduler moves to the start of a split, or lets
 * spread; what a device reorders; states that are read early. */
static uint64_t ahead(const struct chooser *c, uint32_t il)
{
    uint32_t n = c->b->f->n_layer_run;
    if (il + 1 >= n)
        return 1;
    const struct layer_sign *next = &c->sign[il + 1];
    if (c->reorders || !is_pure(c, il))
        return facts_mix(c->reorders || c->states ? next->own : next->edge, il + 2 == n);
    return c->states ? next->own : 0;
}

static uint64_t behind(const struct chooser *c, uint32_t il)
{
    if (il == 0)
        return 1;
    return c->reorders ? facts_mix(c->sign[il - 1].own, il == 1) : c->sign[il - 1].edge;
}

static bool occurs(const struct chooser *c, uint32_t il, uint32_t from, uint32_t to)
{
    for (uint32_t k = from; k < to; k++)
        if (c->sign[k].own == c->sign[il].own)
            return true;
    return false;
}

/* The last or the first that reads something, itself or for the next layer. */
static bool is_last(const struct chooser *c, uint32_t il)
{
    uint32_t n = c->b->f->n_layer_run;
    return !occurs(c, il, il + 1, n) || (ahead(c, il) && il + 1 < n && !occurs(c, il + 1, il + 2, n));
}

static bool is_first(const struct chooser *c, uint32_t il)
{
    uint32_t n = c->b->f->n_layer_run;
    return !occurs(c, il, 0, il) || (ahead(c, il) && il + 1 < n && !occurs(c, il + 1, 0, il + 1));
}

static uint64_t key_of(const struct chooser *c, uint32_t il, enum build_choice choice)
{
    uint32_t n = c->b->f->n_layer_run;
    uint64_t h = facts_mix(facts_mix(behind(c, il), c->sign[il].own), ahead(c, il));
    bool last = choice >= BUILD_LAST && is_last(c, il), first = choice >= BUILD_ENDS && is_first(c, il);
    return facts_mix(h, (uint64_t)(il + 1 == n) << 2 | (uint64_t)last << 1 | first);
}

static void emit(struct chooser *c, uint32_t il, uint64_t key)
{
    c->key[c->b->n_emit] = key;
    c->b->emit[c->b->n_emit++] = (uint16_t)il;
}

/* Layers between the last one built and il that give both the surroundings they have in the model. Their own
 * surroundings may be wrong: they stand for nothing. */
static void fill_gap(struct chooser *c, uint32_t il)
{
    struct build *b = c->b;
    if (!b->n_emit || b->emit[b->n_emit - 1] + 1u == il)
        return;
    uint32_t last = b->emit[b->n_emit - 1];
    bool looks_ahead = ahead(c, last) != 0;
    if ((!looks_ahead || c->sign[last + 1].own == c->sign[il].own) && behind(c, il) == behind(c, last + 1))
        return;
    if (looks_ahead)
        emit(c, last + 1, 0);
    if (!looks_ahead || c->sign[last + 1].own != c->sign[il - 1].own)
        emit(c, il - 1, 0);
}

void build_choose(struct build *b, enum build_choice choice)
{
    struct chooser c;
    uint32_t n = b->f->n_layer_run;
    c.b = b;
    c.copies = c.refuses = c.reorders = false;
    c.states = b->f->state_r || b->f->state_s;
    for (int d = 0; d < b->l->n_devices; d++) {
        const struct backend_traits *t = backend_traits(b->l->devices[d].backend);
        c.copies = c.copies || t->offload_batch;
        c.refuses = c.refuses || t->refuses || t->max_tensor != UINT64_MAX;
        c.reorders = c.reorders || t->reorders;
    }
    b->n_emit = 0;
    for (uint32_t il = 0; il < n && choice == BUILD_ALL; il++)
        b->segment[il] = b->emit[b->n_emit++] = (uint16_t)il;
    if (choice == BUILD_ALL)
        return;
    for (uint32_t il = 0; il < n; il++)
        c.sign[il] = sign_of(&c, il);
    for (uint32_t il = 0; il < n; il++) {
        uint64_t key = key_of(&c, il, choice);
        uint32_t s = 0;
        while (s < b->n_emit && c.key[s] != key)
            s++;
        if (s == b->n_emit) {
            fill_gap(&c, il);
            s = b->n_emit;
            emit(&c, il, key);
        }
        b->segment[il] = (uint16_t)s;
    }
}
