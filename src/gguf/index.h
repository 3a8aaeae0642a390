/* Hash index over an array of named things: finds duplicates while it is built, and items by name afterwards.
 * Layer gguf; read-only once built. Names come from untrusted files, so the hash is keyed (SipHash-1-3 with a
 * random key): nobody can prepare names that all collide. */
#ifndef GGUF_INDEX_H
#define GGUF_INDEX_H

#include "base/mem.h"
#include "base/str.h"

struct name_index {
    uint32_t *slots; /* item + 1; 0 = empty; lives in the arena */
    uint32_t mask;
    uint64_t key[2];
    struct str (*name_of)(const void *items, uint32_t i);
    const void *items; /* borrowed */
};

/* Room for n items; false when memory is short or the arena's cap is reached. */
bool name_index_init(struct name_index *ix, struct arena *arena, uint32_t n,
                     struct str (*name_of)(const void *items, uint32_t i), const void *items);
/* Adds item i; false if one with the same name is there. */
bool name_index_add(struct name_index *ix, uint32_t i);
bool name_index_find(const struct name_index *ix, struct str name, uint32_t *ret_i);

#endif
