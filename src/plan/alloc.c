/* How much memory a scheduled graph needs: a replay of the graph allocator's decisions without any memory.
 * Layer plan; see graph.h. Every tensor is born when its node is reached and dies after its last reader; an
 * operation that may work in place takes over a dying source of the same layout; blocks are handed out best
 * fit, the last free block only when no other fits; buffers grow in chunks no larger than the device's
 * largest allocation. */
#include "plan/graph.h"

#include <string.h>

#define MAX_CHUNKS 16
#define MAX_FREE   256

struct free_block {
    uint64_t offset, size;
};

struct galloc_chunk {
    uint64_t max_size;
    int n_free;
    struct free_block free[MAX_FREE];
};

struct galloc {
    struct graph *g;
    const struct graph_backend *backends;
    int n_chunks[GRAPH_MAX_BACKENDS];
};

static uint64_t align_up(uint64_t n, uint32_t alignment) /* a power of two */
{
    return (n + alignment - 1) & ~((uint64_t)alignment - 1);
}

static uint64_t alloc_size(const struct galloc *a, const struct gtensor *t, int buffer)
{
    uint64_t n = t->bytes, pad;
    if (a->backends[buffer].pads_rows && t->type != GGML_F32 && t->ne[0] % 512) {
        const struct ggml_type_info *info = ggml_type_info(t->type);
        if (info && info->block > 1 && ggml_row_bytes(t->type, 512 - t->ne[0] % 512, &pad))
            n += pad;
    }
    return align_up(n, a->backends[buffer].alignment);
}

static void block_remove(struct galloc_chunk *c, int i)
{
    c->n_free--;
    memmove(&c->free[i], &c->free[i + 1], (size_t)(c->n_free - i) * sizeof c->free[0]);
}

static struct galloc_chunk *chunk_new(struct galloc *a, int buffer, uint64_t least)
{
    int n = a->n_chunks[buffer];
    if (n == MAX_CHUNKS)
        return NULL;
    struct galloc_chunk **slot = &a->g->chunks[buffer][n];
    if (!*slot)
        *slot = mem_calloc(1, sizeof **slot);
    uint64_t limit = a->backends[buffer].max_chunk > INT64_MAX ? INT64_MAX : a->backends[buffer].max_chunk;
    (*slot)->max_size = 0;
    (*slot)->n_free = 1;
    (*slot)->free[0] = (struct free_block){.size = n == MAX_CHUNKS - 1 ? INT64_MAX
                                                   : least > limit     ? least
                                                                       : limit};
    a->n_chunks[buffer]++;
    return *slot;
}

/* The smallest block that fits, later ones winning ties; the last block of a chunk is the room to grow and
 * not asked. */
static bool best_block(const struct galloc *a, int buffer, uint64_t size, int *ret_chunk, int *ret_block)
{
    bool found = false;
    for (int c = 0; c < a->n_chunks[buffer]; c++) {
        const struct galloc_chunk *k = a->g->chunks[buffer][c];
        uint64_t best = UINT64_MAX;
        for (int i = 0; i < k->n_free - 1; i++) {
            if (k->free[i].size >= size && k->free[i].size <= best) {
                best = k->free[i].size;
                *ret_chunk = c;
                *ret_block = i;
                found = true;
            }
        }
    }
    return found;
}

/* Growing room: the chunk that grows least, or else wastes least. */
static bool last_block(const struct galloc *a, int buffer, uint64_t size, int *ret_chunk, int *ret_block)
{
    bool found = false;
    int64_t best = INT64_MIN;
    for (int c = 0; c < a->n_chunks[buffer]; c++) {
        const struct galloc_chunk *k = a->g->chunks[buffer][c];
        if (!k->n_free)
            continue;
        const struct free_block *b = &k->free[k->n_free - 1];
        int64_t reuse = (int64_t)(k->max_size - b->offset - size);
        bool better = (best < 0 && reuse > best) || (reuse >= 0 && reuse < best);
        if (b->size >= size && better) {
            best = reuse;
            *ret_chunk = c;
            *ret_block = k->n_free - 1;
            found = true;
        }
    }
    return found;
}

static void take(struct galloc *a, struct gtensor *t, int buffer)
{
    uint64_t size = alloc_size(a, t, buffer);
    int chunk = 0, block = 0;
    if (!best_block(a, buffer, size, &chunk, &block) && !last_block(a, buffer, size, &chunk, &block)) {
        chunk = a->n_chunks[buffer];
        block = 0;
        if (!chunk_new(a, buffer, size)) {
            a->g->failed = true;
            return;
        }
    }
    struct galloc_chunk *k = a->g->chunks[buffer][chunk];
    t->at_buffer = (int8_t)buffer;
    t->at_chunk = (uint8_t)chunk;
    t->at_offset = k->free[block].offset;
    k->free[block].offset += size;
    k->free[block].size -= size;
    if (!k->free[block].size)
        block_remove(k, block);
    if (t->at_offset + size > k->max_size)
        k->max_size = t->at_offset + size;
}

static void give(struct galloc *a, int buffer, int chunk, uint64_t offset, uint64_t size)
{
    struct galloc_chunk *k = a->g->chunks[buffer][chunk];
    for (int i = 0; i < k->n_free; i++) {
        struct free_block *b = &k->free[i];
        if (b->offset + b->size == offset) {
            b->size += size;
            if (i < k->n_free - 1 && b->offset + b->size == b[1].offset) {
                b->size += b[1].size;
                block_remove(k, i + 1);
            }
            return;
        }
        if (offset + size == b->offset) {
            b->offset = offset;
            b->size += size;
            if (i > 0 && b[-1].offset + b[-1].size == b->offset) {
                b[-1].size += b->size;
                block_remove(k, i);
            }
            return;
        }
    }
    if (k->n_free == MAX_FREE) {
        a->g->failed = true;
        return;
    }
    int at = 0;
    while (at < k->n_free && k->free[at].offset < offset)
        at++;
    memmove(&k->free[at + 1], &k->free[at], (size_t)(k->n_free - at) * sizeof k->free[0]);
    k->free[at] = (struct free_block){.offset = offset, .size = size};
    k->n_free++;
}

static bool same_layout(const struct gtensor *a, const struct gtensor *b)
{
    return a->type == b->type && !memcmp(a->ne, b->ne, sizeof a->ne) && !memcmp(a->nb, b->nb, sizeof a->nb);
}

/* An operation takes over a source that dies with it. Views own nothing, so nothing is taken over through
 * them. */
static bool reuse_source(struct galloc *a, struct gtensor *t)
{
    for (int i = 0; i < GRAPH_MAX_SRC && t->src[i] >= 0; i++) {
        struct gtensor *p = &a->g->t[t->src[i]];
        if (!p->allocated || (p->flags & GF_OUTPUT) || !same_layout(t, p) || p->n_children != 1 ||
            p->n_views != 0)
            continue;
        t->at_buffer = p->at_buffer;
        t->at_chunk = p->at_chunk;
        t->at_offset = p->at_offset;
        p->allocated = false;
        uint64_t had = alloc_size(a, p, p->at_buffer), needs = alloc_size(a, t, p->at_buffer);
        if (had > needs)
            give(a, p->at_buffer, p->at_chunk, p->at_offset + needs, had - needs);
        return true;
    }
    return false;
}

static void place(struct galloc *a, int32_t id, int buffer)
{
    struct gtensor *t = &a->g->t[id];
    if (t->allocated || t->buf >= 0 || t->view_src >= 0)
        return;
    t->allocated = true;
    if (graph_op_inplace(t->op) && reuse_source(a, t))
        return;
    take(a, t, buffer);
}

static void release(struct galloc *a, struct gtensor *t)
{
    if (t->flags & GF_OUTPUT)
        return;
    give(a, t->at_buffer, t->at_chunk, t->at_offset, alloc_size(a, t, t->at_buffer));
    t->allocated = false;
}

static void count_uses(struct galloc *a)
{
    struct graph *g = a->g;
    for (int32_t i = 0; i < g->n_order; i++) {
        struct gtensor *t = &g->t[g->order[i].tensor];
        if (t->view_src >= 0 && t->op != OP_NONE)
            g->t[t->view_src].n_views++;
        if (t->flags & GF_INPUT)
            place(a, g->order[i].tensor, g->order[i].backend);
        for (int j = 0; j < GRAPH_MAX_SRC && t->src[j] >= 0; j++) {
            g->t[t->src[j]].n_children++;
            if (g->t[t->src[j]].flags & GF_INPUT)
                place(a, t->src[j], g->order[i].backend);
        }
    }
}

static void drop_source(struct galloc *a, struct gtensor *p)
{
    if (--p->n_children != 0 || p->n_views != 0)
        return;
    if (p->view_src >= 0) {
        struct gtensor *root = &a->g->t[p->view_src];
        root->n_views--;
        if (root->n_views == 0 && root->n_children == 0 && root->allocated)
            release(a, root);
    } else if (p->allocated) {
        release(a, p);
    }
}

/* All free blocks and sizes of all buffers. */
static uint64_t state_hash(const struct galloc *a, int n_backends)
{
    uint64_t h = 0xcbf29ce484222325ull;
    for (int b = 0; b < n_backends; b++) {
        for (int c = 0; c < a->n_chunks[b]; c++) {
            const struct galloc_chunk *k = a->g->chunks[b][c];
            h = (h ^ k->max_size) * 0x100000001b3ull;
            for (int i = 0; i < k->n_free; i++)
                h = (h ^ (k->free[i].offset * 31 + k->free[i].size)) * 0x100000001b3ull;
        }
        h = (h ^ (uint64_t)b) * 0x100000001b3ull;
    }
    return h;
}

bool graph_measure(struct graph *g, const struct graph_backend *backends, int n_backends, uint64_t *ret_bytes)
{
    struct galloc a = {.g = g, .backends = backends};
    for (int32_t i = 0; i < g->n_first && !g->failed; i++)
        place(&a, g->first[i].tensor, g->first[i].backend);
    count_uses(&a);
    for (int32_t i = 0; i < g->n_order && !g->failed; i++) {
        int32_t id = g->order[i].tensor;
        for (int j = 0; j < GRAPH_MAX_SRC && g->t[id].src[j] >= 0; j++)
            place(&a, g->t[id].src[j], g->order[i].backend);
        place(&a, id, g->order[i].backend);
        for (int j = 0; j < GRAPH_MAX_SRC && g->t[id].src[j] >= 0; j++)
            drop_source(&a, &g->t[g->t[id].src[j]]);
        if ((g->t[id].flags & GF_MARK) && g->n_marks < GRAPH_MAX_MARKS)
            g->marks[g->n_marks++] = state_hash(&a, n_backends);
    }
    for (int b = 0; b < n_backends; b++) {
        ret_bytes[b] = 0;
        for (int c = 0; c < a.n_chunks[b]; c++)
            ret_bytes[b] += g->chunks[b][c]->max_size;
    }
    return !g->failed;
}
