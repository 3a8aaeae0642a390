/* Keyed hash index of names: see index.h. The hash is SipHash (Aumasson, Bernstein 2012) with 1 and 3 rounds.
 */
#include "gguf/index.h"

#include <endian.h>
#include <string.h>
#include <sys/random.h>

struct sip {
    uint64_t a, b, c, d;
};

static uint64_t rotate(uint64_t x, unsigned by)
{
    return x << by | x >> (64 - by);
}

static void sip_round(struct sip *s)
{
    s->a += s->b;
    s->c += s->d;
    s->b = rotate(s->b, 13) ^ s->a;
    s->d = rotate(s->d, 16) ^ s->c;
    s->a = rotate(s->a, 32);
    s->c += s->b;
    s->a += s->d;
    s->b = rotate(s->b, 17) ^ s->c;
    s->d = rotate(s->d, 21) ^ s->a;
    s->c = rotate(s->c, 32);
}

static uint64_t sip_hash(const uint64_t key[2], struct str text)
{
    struct sip s = {key[0] ^ 0x736f6d6570736575ull, key[1] ^ 0x646f72616e646f6dull,
                    key[0] ^ 0x6c7967656e657261ull, key[1] ^ 0x7465646279746573ull};
    size_t at = 0;
    uint64_t word;
    for (; at + 8 <= text.n; at += 8) {
        memcpy(&word, text.p + at, 8);
        word = le64toh(word);
        s.d ^= word;
        sip_round(&s);
        s.a ^= word;
    }
    word = (uint64_t)text.n << 56;
    for (unsigned shift = 0; at < text.n; at++, shift += 8)
        word |= (uint64_t)(unsigned char)text.p[at] << shift;
    s.d ^= word;
    sip_round(&s);
    s.a ^= word;
    s.c ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(&s);
    return s.a ^ s.b ^ s.c ^ s.d;
}

bool name_index_init(struct name_index *ix, struct arena *arena, uint32_t n,
                     struct str (*name_of)(const void *items, uint32_t i), const void *items)
{
    uint32_t cap = 16;
    while (cap < UINT32_MAX / 4 && cap < (uint64_t)n * 2)
        cap *= 2;
    ix->slots = arena_array(arena, cap, sizeof *ix->slots);
    ix->mask = cap - 1;
    ix->name_of = name_of;
    ix->items = items;
    /* Early in a boot there may be no entropy yet; a fixed key is then better than waiting. */
    if (getrandom(ix->key, sizeof ix->key, GRND_NONBLOCK) != sizeof ix->key)
        ix->key[0] = (uint64_t)(uintptr_t)ix, ix->key[1] = (uint64_t)(uintptr_t)ix->slots;
    return ix->slots != NULL;
}

/* The slot of the name, or the empty one where it would go. */
static uint32_t *slot_of(const struct name_index *ix, struct str name)
{
    uint32_t at = (uint32_t)sip_hash(ix->key, name) & ix->mask;
    while (ix->slots[at] && !str_eq(ix->name_of(ix->items, ix->slots[at] - 1), name))
        at = (at + 1) & ix->mask;
    return &ix->slots[at];
}

bool name_index_add(struct name_index *ix, uint32_t i)
{
    uint32_t *slot = slot_of(ix, ix->name_of(ix->items, i));
    if (*slot)
        return false;
    *slot = i + 1;
    return true;
}

bool name_index_find(const struct name_index *ix, struct str name, uint32_t *ret_i)
{
    if (!ix->slots)
        return false;
    uint32_t slot = *slot_of(ix, name);
    if (!slot)
        return false;
    *ret_i = slot - 1;
    return true;
}
