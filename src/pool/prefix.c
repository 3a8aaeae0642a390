/* Prompts' beginnings: see prefix.h. Layer pool; pure. */
#include "pool/prefix.h"

#include "base/mem.h"

#include <string.h>

#define SETS 1024u /* a power of two */
#define WAYS 4u

struct place {
    uint64_t hash; /* 0 = empty */
    uint64_t holder;
    uint32_t used; /* the table's clock */
};

struct prefix_table {
    struct place sets[SETS][WAYS];
    uint32_t clock;
};

static uint64_t load64(const char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Multiplies to twice the width and folds: every bit of both takes part in every bit of the result. */
static uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 m = (unsigned __int128)a * b;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

uint64_t prefix_chain(const char *p, size_t n, uint64_t h)
{
    static const uint64_t odd1 = 0xd6e8feb86659fd93u, odd2 = 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < n; i += 16)
        h = fold(load64(p + i) ^ h ^ odd1, load64(p + i + 8) + (h << 32 | h >> 32) + odd2) + h * odd2;
    h = fold(h ^ n, odd1);
    return h ? h : 1;
}

static size_t block_size(uint32_t i)
{
    return i < PREFIX_SHORT_COUNT ? PREFIX_SHORT : PREFIX_LONG;
}

void prefix_of(struct str prompt, uint64_t seed, struct prefix *ret)
{
    uint64_t h = seed;
    size_t at = 0;
    ret->n = 0;
    while (ret->n < PREFIX_MAX) {
        size_t size = block_size(ret->n);
        if (prompt.n - at < size)
            return;
        h = prefix_chain(prompt.p + at, size, h);
        ret->hash[ret->n++] = h;
        at += size;
    }
}

/* A block's hash includes all before it: where two are equal, so is what is before. */
uint32_t prefix_common(const struct prefix *a, const struct prefix *b)
{
    uint32_t low = 0, high = a->n < b->n ? a->n : b->n;
    if (high == 0 || a->hash[0] != b->hash[0]) /* most have nothing in common */
        return 0;
    while (low < high) {
        uint32_t mid = low + (high - low + 1) / 2;
        if (a->hash[mid - 1] == b->hash[mid - 1])
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

size_t prefix_bytes(uint32_t n)
{
    uint32_t small = n < PREFIX_SHORT_COUNT ? n : PREFIX_SHORT_COUNT;
    return (size_t)small * PREFIX_SHORT + (size_t)(n - small) * PREFIX_LONG;
}

struct prefix_table *prefix_table_new(void)
{
    return mem_new(struct prefix_table);
}

void prefix_table_free(struct prefix_table *t)
{
    free(t);
}

/* Its place, or the one that gives way. */
static struct place *place_for(struct prefix_table *t, uint64_t hash)
{
    struct place *set = t->sets[hash >> 32 & (SETS - 1)], *worst = set;
    for (unsigned i = 0; i < WAYS; i++) {
        if (set[i].hash == hash)
            return &set[i];
        if (worst->hash && (!set[i].hash || t->clock - set[i].used > t->clock - worst->used))
            worst = &set[i];
    }
    return worst;
}

void prefix_put(struct prefix_table *t, const struct prefix *p, uint64_t holder)
{
    t->clock++;
    for (uint32_t i = 0; i < p->n; i++)
        *place_for(t, p->hash[i]) = (struct place){.hash = p->hash[i], .holder = holder, .used = t->clock};
}

uint64_t prefix_find(const struct prefix_table *t, const struct prefix *p, uint32_t *ret_blocks)
{
    for (uint32_t n = p->n; n > 0; n--) {
        const struct place *set = t->sets[p->hash[n - 1] >> 32 & (SETS - 1)];
        for (unsigned i = 0; i < WAYS; i++) {
            if (set[i].hash != p->hash[n - 1])
                continue;
            if (ret_blocks)
                *ret_blocks = n;
            return set[i].holder;
        }
    }
    return 0;
}
