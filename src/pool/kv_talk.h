/* The conversations that one instance has read, and which of its slots holds which. Layer pool; pure; one
 * owner.
 *
 * A server does not tell in which slot it served a request; it tells how many tokens each slot holds and
 * which slots were used later. A conversation's tokens are known when its answer has ended, so the two can be
 * brought together when the slots are worth a look, without a word in any request. Where that is ambiguous
 * the later one counts; a wrong guess is noticed when the state is read back (kv_index_judge). */
#ifndef POOL_KV_TALK_H
#define POOL_KV_TALK_H

#include "pool/prefix.h"
#include "runtime/runtime.h"

#define KV_TALKS 64u

struct kv_talk {
    uint64_t serial;         /* 0 = free */
    uint64_t used;           /* the table's clock */
    uint32_t running;        /* requests */
    uint32_t prompt, answer; /* tokens, when its latest answer had ended; 0 = not known */
    struct prefix prefix;
};

struct kv_talks {
    uint64_t clock;
    struct kv_talk list[KV_TALKS];
};

/* A request begins; p->n > 0. What it continues is the same conversation, the one unused for longest gives
 * way to another. The serial is never 0. */
uint64_t kv_talks_begin(struct kv_talks *t, const struct prefix *p);
/* It has ended, with so many tokens of prompt and answer; 0 = they are not known. */
void kv_talks_end(struct kv_talks *t, uint64_t serial, uint32_t prompt, uint32_t answer);
/* How many blocks of it have been read here before. */
uint32_t kv_talks_common(const struct kv_talks *t, const struct prefix *p);

struct kv_pick {
    struct runtime_slot slot;
    const struct kv_talk *talk;
};
/* Which slot holds which conversation, the latest first; what cannot be told is left out. out has room for n.
 */
size_t kv_talks_match(const struct kv_talks *t, const struct runtime_slot *slots, size_t n,
                      struct kv_pick *out);

#endif
