/* One buffer of the runtime's graph allocator: which parts of it are free. Layer plan, internal; no memory is
 * handed out, only places. Blocks are handed out best fit, the last free block of a chunk only when no other
 * fits; the buffer grows in chunks no larger than the device's largest allocation.
 *
 * Source: ggml's public behaviour (ggml-alloc.h), checked against llama-fit-params. */
#ifndef PLAN_POOL_H
#define PLAN_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POOL_CHUNKS 16
#define POOL_FREE   256 /* free blocks of a chunk; a graph that leaves more is refused */

struct pool_block {
    uint64_t offset, size;
};
struct pool_chunk {
    uint64_t max_size; /* the highest end that was ever in use */
    int n_free;
    struct pool_block free[POOL_FREE]; /* by offset; the last one is the room to grow */
};
struct pool {
    uint64_t limit; /* largest chunk; UINT64_MAX = none */
    int n_chunks;
    struct pool_chunk *chunks[POOL_CHUNKS]; /* made when first needed, kept until released */
};
struct pool_place {
    uint64_t offset;
    int chunk;
};

void pool_reset(struct pool *p, uint64_t limit); /* empty; keeps the memory */
void pool_drop(struct pool *p);
/* False: the planner's bounds are passed. */
bool pool_take(struct pool *p, uint64_t size, struct pool_place *ret);
bool pool_give(struct pool *p, struct pool_place at, uint64_t size);
uint64_t pool_bytes(const struct pool *p);

/* Everything that later places depend on, as numbers: equal numbers, equal future. The highest end is among
 * them only where chunks are limited: elsewhere it decides nothing, and the largest is kept over a load. */
size_t pool_words(const struct pool *p); /* how many pool_save writes */
uint64_t *pool_save(const struct pool *p, uint64_t *out);
const uint64_t *pool_restore(struct pool *p, const uint64_t *in); /* what pool_save wrote of this pool */

#endif
