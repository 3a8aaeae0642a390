/* Which layers of a model are built, and for which others each stands. Layer plan; pure; see build.h.
 *
 * A layer's births and deaths follow from its signature and its surroundings: what the scheduler lets spread
 * into it from its neighbours, and what of the next layer runs before its end. Layers that are equal in all
 * of that are built once. What lives longer than a layer (a mask, its copy on a device) must be born and die
 * in layers that stand for themselves alone; the later ways of choosing build those, too. Whether the choice
 * was right shows in the trace (walk.h).
 *
 * Which operations a device has no kernel for depends on their shapes, so on forms of layers, and each form
 * is built. Most models have no such operation: the first choice trusts in that, and is void if the scheduler
 * meets one (struct build.trusts). */
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
    /* the layers in question, in order; all that follows counts places among them */
    uint32_t n;
    uint16_t layer[FACTS_MAX_LAYERS];
    struct layer_sign sign[FACTS_MAX_LAYERS];
    uint16_t place[FACTS_MAX_LAYERS]; /* of the segments so far */
    uint64_t key[FACTS_MAX_LAYERS];
    bool stands[LAYOUT_MAX_BACKENDS]; /* the device for others that are used alike */
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
static uint64_t ahead(const struct chooser *c, uint32_t k)
{
    if (k + 1 >= c->n)
        return 1;
    const struct layer_sign *next = &c->sign[k + 1];
    if (c->reorders || !is_pure(c, k))
        return facts_mix(c->reorders || c->states ? next->own : next->edge, k + 2 == c->n);
    return c->states ? next->own : 0;
}

static uint64_t behind(const struct chooser *c, uint32_t k)
{
    if (k == 0)
        return 1;
    return c->reorders ? facts_mix(c->sign[k - 1].own, k == 1) : c->sign[k - 1].edge;
}

static bool occurs(const struct chooser *c, uint32_t k, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++)
        if (c->sign[i].own == c->sign[k].own)
            return true;
    return false;
}

/* The last or the first that reads something, itself or for the next layer. */
static bool is_last(const struct chooser *c, uint32_t k)
{
    return !occurs(c, k, k + 1, c->n) || (ahead(c, k) && k + 1 < c->n && !occurs(c, k + 1, k + 2, c->n));
}

static bool is_first(const struct chooser *c, uint32_t k)
{
    return !occurs(c, k, 0, k) || (ahead(c, k) && k + 1 < c->n && !occurs(c, k + 1, 0, k + 1));
}

static uint64_t key_of(const struct chooser *c, uint32_t k, enum build_choice choice)
{
    uint64_t h = facts_mix(facts_mix(behind(c, k), c->sign[k].own), ahead(c, k));
    bool last = choice >= BUILD_LAST && is_last(c, k), first = choice >= BUILD_ENDS && is_first(c, k);
    return facts_mix(h, (uint64_t)(k + 1 == c->n) << 2 | (uint64_t)last << 1 | first);
}

/* Types and bytes of weights always count: what is recorded of a layer holds for another only with them. */
static uint64_t sign_in_record(const struct chooser *c, uint32_t k)
{
    const struct layout *l = c->b->l;
    uint32_t il = c->layer[k];
    return facts_mix(facts_mix(c->sign[k].own, l->f->classes[l->f->layers[il].cls].id),
                     (uint64_t)(uint8_t)l->layer_device[il] << 1 | (il + 1 == l->f->n_layer_run));
}

static void emit(struct chooser *c, uint32_t k, uint64_t key)
{
    struct build *b = c->b;
    c->key[b->n_emit] = key;
    b->sign[b->n_emit] = sign_in_record(c, k);
    c->place[b->n_emit] = (uint16_t)k;
    int d = b->l->layer_device[c->layer[k]];
    /* a piece's first operations may run where the layer before them lies */
    bool inner = k > 0 && b->l->layer_device[c->layer[k - 1]] == d;
    b->confined[b->n_emit] = (int8_t)(c->stands[d] && inner ? d : -1);
    b->chosen[b->n_emit++] = c->layer[k];
}

/* Layers between the last one built and the next that give both the surroundings they have in the model.
 * Their own surroundings may be wrong: they stand for nothing. */
static void fill_gap(struct chooser *c, uint32_t k)
{
    struct build *b = c->b;
    if (!b->n_emit || c->place[b->n_emit - 1] + 1u == k)
        return;
    uint32_t last = c->place[b->n_emit - 1];
    bool looks_ahead = ahead(c, last) != 0;
    if ((!looks_ahead || c->sign[last + 1].own == c->sign[k].own) && behind(c, k) == behind(c, last + 1))
        return;
    if (looks_ahead)
        emit(c, last + 1, 0);
    if (!looks_ahead || c->sign[last + 1].own != c->sign[k - 1].own)
        emit(c, k - 1, 0);
}

/* ---- devices that are used alike ---- */

struct piece { /* of the row of layers: those on one device */
    uint32_t from, n;
};

static bool same_piece(const struct chooser *c, struct piece a, struct piece b)
{
    const struct layout *l = c->b->l;
    const struct layer_facts *lf = l->f->layers;
    if (a.n != b.n ||
        l->devices[l->layer_device[a.from]].backend != l->devices[l->layer_device[b.from]].backend)
        return false;
    for (uint32_t i = 0; i < a.n; i++)
        if (lf[a.from + i].form != lf[b.from + i].form || lf[a.from + i].cache_layer != a.from + i)
            return false;
    return true;
}

/* Everything that the layers do stays on their device: what lies elsewhere does not notice how many such
 * devices there are. Where states are read early, the next device's layers show. */
static bool closed_piece(const struct chooser *c, struct piece a)
{
    if (c->states || a.n < 2)
        return false;
    for (uint32_t i = 0; i < a.n; i++)
        if (!is_pure(c, a.from + i))
            return false;
    return true;
}

/* Between two other devices, behind a layer of which nothing runs elsewhere: the first operations of a piece
 * else follow the host. The first device is none of them: it may compute for the host. */
static bool in_the_middle(const struct chooser *c, struct piece a)
{
    const int8_t *device = c->b->l->layer_device;
    return device[a.from] > 0 && a.from > 0 && a.from + a.n < c->n &&
           device[a.from] != layout_host(c->b->l) && is_pure(c, a.from - 1);
}

/* Of several devices in the middle of the row with equal pieces, the first one stands for all: the layers of
 * the others are not in question. Places are layers here. */
static void fold_devices(struct chooser *c)
{
    struct build *b = c->b;
    const int8_t *device = b->l->layer_device;
    struct piece kept[LAYOUT_MAX_BACKENDS];
    uint32_t n_kept = 0, n = c->n, at = 0;
    for (int d = 0; d < LAYOUT_MAX_BACKENDS; d++) {
        b->like_device[d] = (int8_t)d;
        c->stands[d] = false;
    }
    for (struct piece p = {0}; p.from < n; p.from += p.n) {
        int d = device[p.from], like = d;
        for (p.n = 1; p.from + p.n < n && device[p.from + p.n] == d;)
            p.n++;
        bool middle = in_the_middle(c, p) && closed_piece(c, p);
        for (uint32_t i = 0; i < n_kept && middle && like == d; i++)
            like = same_piece(c, kept[i], p) ? device[kept[i].from] : d;
        b->like_device[d] = (int8_t)like;
        c->stands[like] = c->stands[like] || like != d;
        for (uint32_t i = 0; i < p.n && like == d; i++, at++) {
            c->layer[at] = (uint16_t)(p.from + i);
            c->sign[at] = c->sign[p.from + i];
        }
        if (middle && like == d)
            kept[n_kept++] = p;
    }
    c->n = at;
}

static void know_devices(struct chooser *c)
{
    const struct layout *l = c->b->l; /* cppcheck-suppress ctuuninitvar ; b is set before all else */
    c->copies = c->refuses = c->reorders = false;
    c->states = c->b->f->state_r || c->b->f->state_s;
    for (int d = 0; d < l->n_devices; d++) {
        const struct backend_traits *t = backend_traits(l->devices[d].backend);
        c->copies = c->copies || t->offload_batch;
        bool limited = t->max_tensor != UINT64_MAX; /* depends on bytes, which a form does not tell */
        c->refuses = c->refuses || limited || (t->refuses && c->b->expects_refusals);
        c->b->trusts = c->b->trusts || (t->refuses && !limited && !c->b->expects_refusals);
        c->reorders = c->reorders || t->reorders;
    }
}

static void choose_all(struct chooser *c)
{
    struct build *b = c->b;
    b->trusts = false;
    for (int d = 0; d < LAYOUT_MAX_BACKENDS; d++) {
        b->like_device[d] = (int8_t)d;
        c->stands[d] = false;
    }
    for (uint32_t il = 0; il < c->n; il++) {
        b->segment[il] = c->layer[il] = (uint16_t)il;
        emit(c, il, 0);
    }
}

void build_choose(struct build *b, const struct layout *l, enum build_choice choice, bool refusals)
{
    struct chooser c;
    *b = (struct build){.l = l,
                        .f = l->f,
                        .n_tokens = l->n_tokens,
                        .n_seqs = l->n_seqs,
                        .expects_refusals = refusals,
                        .n_walk = l->f->n_layer_run};
    b->emit = b->chosen;
    c.b = b;
    c.n = b->f->n_layer_run;
    know_devices(&c);
    for (uint32_t il = 0; il < c.n; il++)
        c.sign[il] = sign_of(&c, il);
    if (choice == BUILD_ALL) {
        choose_all(&c);
        return;
    }
    fold_devices(&c);
    b->n_walk = c.n;
    for (uint32_t k = 0; k < c.n; k++) {
        uint64_t key = key_of(&c, k, choice);
        uint32_t s = 0;
        while (s < b->n_emit && c.key[s] != key)
            s++;
        if (s == b->n_emit) {
            fill_gap(&c, k);
            s = b->n_emit;
            emit(&c, k, key);
        }
        b->segment[k] = (uint16_t)s;
    }
}
