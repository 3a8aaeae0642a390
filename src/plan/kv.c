/* Bytes of the caches: keys and values of attention layers, states of recurrent ones. Layer plan; see
 * layout.h. A layer keeps cells × streams rows; rows are n_head_kv × width values of the cache's type.
 * Recurrent layers keep two F32 states a slot, independent of the context. Everything lies where the layer
 * lies, or on the host. */
#include "plan/layout.h"

static uint64_t round_up(uint64_t n, uint32_t to) /* a power of two */
{
    return (n + to - 1) & ~((uint64_t)to - 1);
}

static bool add(uint64_t *sum, uint64_t rows, uint64_t row_bytes, uint32_t alignment)
{
    uint64_t n;
    if (__builtin_mul_overflow(rows, row_bytes, &n) || n > UINT64_MAX / 4)
        return false;
    return !__builtin_add_overflow(*sum, round_up(n, alignment), sum);
}

static bool attention_layer(struct layout *l, uint32_t il, uint64_t *sum, uint32_t alignment)
{
    const struct layer_facts *lf = &l->f->layers[il];
    uint64_t cells = lf->sliding ? l->cells_window : l->cells;
    /* without flash attention V lies transposed and every layer is as wide as the widest */
    uint64_t v_width = l->flash_attn ? (uint64_t)lf->n_head_kv * lf->d_v : l->f->v_width_max;
    uint64_t k_row, v_row;
    if (!ggml_row_bytes(l->p->type_k, (uint64_t)lf->n_head_kv * lf->d_k, &k_row) ||
        !ggml_row_bytes(l->p->type_v, v_width, &v_row))
        return false;
    uint64_t index_row = 0; /* keys of the indexer, in a cache of their own */
    if (lf->tensor[ROLE_INDEXER_K] >= 0 && l->f->indexer.heads &&
        (!ggml_row_bytes(l->p->type_k, l->f->indexer.width, &index_row) ||
         !add(sum, cells * l->n_streams, index_row, alignment)))
        return false;
    return add(sum, cells * l->n_streams, k_row, alignment) &&
           (l->f->latent.cached || add(sum, cells * l->n_streams, v_row, alignment));
}

static bool recurrent_layer(struct layout *l, uint64_t *sum, uint32_t alignment)
{
    return add(sum, l->n_seqs, l->f->state_r * 4, alignment) &&
           add(sum, l->n_seqs, l->f->state_s * 4, alignment);
}

/* A quantised cache whose heads are all of one width is written through a Hadamard product. */
static void rotate_cache(struct layout *l, int side)
{
    const struct ggml_type_info *k = ggml_type_info(l->p->type_k), *v = ggml_type_info(l->p->type_v);
    const struct layer_facts *first = NULL;
    if (k->block == 1 && v->block == 1)
        return;
    bool uniform = !l->f->latent.cached && !(l->f->arch->flags & IDLE_CACHE);
    for (uint32_t il = 0; il < l->f->n_layer_run; il++) {
        const struct layer_facts *lf = &l->f->layers[il];
        if (!lf->cached || lf->sliding != side)
            continue;
        first = first ? first : lf;
        uniform = uniform && lf->d_k == first->d_k && lf->d_v == first->d_v;
    }
    l->k_rotated[side] = first && uniform && k->block > 1 && first->d_k % 64 == 0;
    l->v_rotated[side] = first && uniform && v->block > 1 && first->d_v % 64 == 0;
}

static bool layer_bytes(struct layout *l, uint32_t il, uint32_t alignment, uint64_t *ret)
{
    const struct layer_facts *lf = &l->f->layers[il];
    *ret = 0;
    return (!lf->recurrent || recurrent_layer(l, ret, alignment)) &&
           (!lf->cached || attention_layer(l, il, ret, alignment));
}

/* Layers of one form in memory of one alignment take the same; a model has a few forms. */
struct known {
    uint64_t form, bytes;
    uint32_t alignment;
};

static enum rc one_layer(struct layout *l, uint32_t il, struct known *known, struct err *err)
{
    const struct layer_facts *lf = &l->f->layers[il];
    int dev = layout_cache_device(l, il);
    uint32_t alignment = dev == layout_host(l) ? 32 : backend_traits(l->devices[dev].backend)->alignment;
    struct known *k = &known[lf->form % 4];
    if (k->form != lf->form || k->alignment != alignment) {
        if (!layer_bytes(l, il, alignment, &k->bytes))
            return err_set(err, RC_INVALID, "%s: the cache of layer %u has no sensible size", l->f->m->path,
                           il);
        k->form = lf->form;
        k->alignment = alignment;
    }
    if (__builtin_add_overflow(l->context_bytes[dev], k->bytes, &l->context_bytes[dev]))
        return err_set(err, RC_INVALID, "the caches of %s have no sensible size", l->f->m->path);
    if (lf->recurrent || (lf->sliding && !l->p->swa_full)) /* what a snapshot of one slot holds */
        l->checkpoint_bytes += k->bytes / (lf->recurrent ? l->n_seqs : l->n_streams);
    return RC_OK;
}

enum rc layout_cache(struct layout *l, struct err *err)
{
    struct known known[4] = {0};
    for (uint32_t il = 0; il < l->f->n_layer_run; il++) {
        enum rc rc = one_layer(l, il, known, err);
        if (rc)
            return rc;
    }
    rotate_cache(l, 0);
    rotate_cache(l, 1);
    return RC_OK;
}
