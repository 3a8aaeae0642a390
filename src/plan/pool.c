/* Free blocks of one buffer. Layer plan; pure; see pool.h. */
#include "plan/pool.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

void pool_reset(struct pool *p, uint64_t limit)
{
    p->limit = limit;
    p->n_chunks = 0;
}

void pool_drop(struct pool *p)
{
    for (size_t c = 0; c < POOL_CHUNKS; c++)
        free(p->chunks[c]);
    *p = (struct pool){0};
}

uint64_t pool_bytes(const struct pool *p)
{
    uint64_t sum = 0;
    for (int c = 0; c < p->n_chunks; c++)
        sum += p->chunks[c]->max_size;
    return sum;
}

static struct pool_chunk *chunk_at(struct pool *p, int c)
{
    if (!p->chunks[c])
        p->chunks[c] = mem_calloc(1, sizeof *p->chunks[c]);
    return p->chunks[c];
}

static bool chunk_add(struct pool *p, uint64_t least)
{
    if (p->n_chunks == POOL_CHUNKS)
        return false;
    uint64_t limit = p->limit > INT64_MAX ? INT64_MAX : p->limit;
    struct pool_chunk *k = chunk_at(p, p->n_chunks++);
    k->max_size = 0;
    k->n_free = 1;
    k->free[0] = (struct pool_block){.size = p->n_chunks == POOL_CHUNKS ? INT64_MAX
                                             : least > limit            ? least
                                                                        : limit};
    return true;
}

static void block_remove(struct pool_chunk *k, int i)
{
    k->n_free--;
    for (; i < k->n_free; i++)
        k->free[i] = k->free[i + 1];
}

/* The smallest block that fits, later ones winning ties; the last block of a chunk is the room to grow and
 * not asked. */
static bool best_block(const struct pool *p, uint64_t size, int *ret_chunk, int *ret_block)
{
    bool found = false;
    for (int c = 0; c < p->n_chunks; c++) {
        const struct pool_chunk *k = p->chunks[c];
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
static bool last_block(const struct pool *p, uint64_t size, int *ret_chunk, int *ret_block)
{
    bool found = false;
    int64_t best = INT64_MIN;
    for (int c = 0; c < p->n_chunks; c++) {
        const struct pool_chunk *k = p->chunks[c];
        if (!k->n_free)
            continue;
        const struct pool_block *b = &k->free[k->n_free - 1];
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

bool pool_take(struct pool *p, uint64_t size, struct pool_place *ret)
{
    int chunk = 0, block = 0;
    if (!best_block(p, size, &chunk, &block) && !last_block(p, size, &chunk, &block)) {
        chunk = p->n_chunks;
        block = 0;
        if (!chunk_add(p, size))
            return false;
    }
    struct pool_chunk *k = p->chunks[chunk];
    struct pool_block *b = &k->free[block];
    *ret = (struct pool_place){.offset = b->offset, .chunk = chunk};
    b->offset += size;
    b->size -= size;
    if (ret->offset + size > k->max_size)
        k->max_size = ret->offset + size;
    if (!b->size)
        block_remove(k, block);
    return true;
}

bool pool_give(struct pool *p, struct pool_place at, uint64_t size)
{
    struct pool_chunk *k = p->chunks[at.chunk];
    for (int i = 0; i < k->n_free; i++) {
        struct pool_block *b = &k->free[i];
        if (b->offset + b->size == at.offset) {
            b->size += size;
            if (i < k->n_free - 1 && b->offset + b->size == b[1].offset) {
                b->size += b[1].size;
                block_remove(k, i + 1);
            }
            return true;
        }
        if (at.offset + size == b->offset) {
            b->offset = at.offset;
            b->size += size;
            if (i > 0 && b[-1].offset + b[-1].size == b->offset) {
                b[-1].size += b->size;
                block_remove(k, i);
            }
            return true;
        }
    }
    if (k->n_free == POOL_FREE)
        return false;
    /* from the front, as blocks of no bytes may stand out of order */
    int to = 0;
    while (to < k->n_free && k->free[to].offset < at.offset)
        to++;
    for (int i = k->n_free++; i > to; i--)
        k->free[i] = k->free[i - 1];
    k->free[to] = (struct pool_block){.offset = at.offset, .size = size};
    return true;
}

/* ---- state ---- */

static bool limited(const struct pool *p)
{
    return p->limit != UINT64_MAX;
}

size_t pool_words(const struct pool *p)
{
    size_t n = 1;
    for (int c = 0; c < p->n_chunks; c++)
        n += 2 + 2 * (size_t)p->chunks[c]->n_free;
    return n;
}

uint64_t *pool_save(const struct pool *p, uint64_t *out)
{
    *out++ = (uint64_t)p->n_chunks;
    for (int c = 0; c < p->n_chunks; c++) {
        const struct pool_chunk *k = p->chunks[c];
        *out++ = limited(p) ? k->max_size : 0;
        *out++ = (uint64_t)k->n_free;
        for (int i = 0; i < k->n_free; i++) {
            *out++ = k->free[i].offset;
            *out++ = k->free[i].size;
        }
    }
    return out;
}

const uint64_t *pool_restore(struct pool *p, const uint64_t *in)
{
    p->n_chunks = (int)*in++;
    for (int c = 0; c < p->n_chunks; c++) {
        struct pool_chunk *k = chunk_at(p, c);
        uint64_t max_size = *in++;
        if (limited(p))
            k->max_size = max_size;
        k->n_free = (int)*in++;
        for (int i = 0; i < k->n_free; i++) {
            k->free[i].offset = *in++;
            k->free[i].size = *in++;
        }
    }
    return in;
}
