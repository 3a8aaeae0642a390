/* Which instance has read the beginning of a prompt already. Layer pool; pure; one owner.
 *
 * A prompt (the raw text of "messages" or "prompt" in a request's body) is cut into blocks, 64 of 256 bytes
 * and then 64 of 4 KiB; each block's hash includes all before it, so that equal hashes mean equal beginnings.
 * The table remembers who was last sent each of them: a set of four places a hash, of which the one that was
 * not used for longest gives way. */
#ifndef POOL_PREFIX_H
#define POOL_PREFIX_H

#include "base/str.h"

#define PREFIX_SHORT       256u
#define PREFIX_LONG        4096u
#define PREFIX_SHORT_COUNT 64u
#define PREFIX_MAX         128u

struct prefix {
    uint32_t n; /* whole blocks */
    uint64_t hash[PREFIX_MAX];
};

/* seed: secret, so that nobody can make prompts that collide. What is behind the last whole block does not
 * count. */
void prefix_of(struct str prompt, uint64_t seed, struct prefix *ret);

/* How many blocks both begin with. */
uint32_t prefix_common(const struct prefix *a, const struct prefix *b);
/* Bytes of the first n blocks. */
size_t prefix_bytes(uint32_t n);
/* One step of the chain that the hashes are made of: n bytes, a multiple of 16, behind those that gave h. */
uint64_t prefix_chain(const char *p, size_t n, uint64_t h);

struct prefix_table;
struct prefix_table *prefix_table_new(void);    /* 96 KiB */
void prefix_table_free(struct prefix_table *t); /* NULL is fine */
/* holder (not 0) is sent this prompt. */
void prefix_put(struct prefix_table *t, const struct prefix *p, uint64_t holder);
/* Who was sent the longest beginning; 0 = nobody. ret_blocks may be NULL. */
uint64_t prefix_find(const struct prefix_table *t, const struct prefix *p, uint32_t *ret_blocks);

#endif
