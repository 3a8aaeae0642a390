/* Conversations of an instance: see kv_talk.h. Layer pool; pure. */
#include "pool/kv_talk.h"

#include <string.h>

#define SLACK 2u /* tokens: the last one that was written may not be in the slot yet, or the end mark is */

/* Does p go on where the talk was? Its last block may hold the end of its text, which a longer one does not.
 */
static bool continues(const struct kv_talk *k, const struct prefix *p)
{
    uint32_t whole = k->prefix.n > 1 ? k->prefix.n - 1 : 1;
    return k->serial && prefix_common(&k->prefix, p) >= whole;
}

/* Its place, or the one that gives way. */
static struct kv_talk *place_for(struct kv_talks *t, const struct prefix *p)
{
    struct kv_talk *best = NULL, *oldest = NULL;
    for (size_t i = 0; i < KV_TALKS; i++) {
        struct kv_talk *k = &t->list[i];
        if (!k->running && continues(k, p) && (!best || k->prefix.n > best->prefix.n))
            best = k;
        if (!k->running && (!oldest || k->used < oldest->used))
            oldest = k;
    }
    return best ? best : oldest;
}

uint64_t kv_talks_begin(struct kv_talks *t, const struct prefix *p)
{
    struct kv_talk *k = place_for(t, p);
    uint64_t serial = ++t->clock;
    if (!k) /* more run than can be noted */
        return serial;
    *k = (struct kv_talk){.serial = serial, .used = serial, .running = 1, .prefix = *p};
    return serial;
}

static struct kv_talk *find(struct kv_talks *t, uint64_t serial)
{
    for (size_t i = 0; i < KV_TALKS; i++)
        if (t->list[i].serial == serial)
            return &t->list[i];
    return NULL;
}

void kv_talks_end(struct kv_talks *t, uint64_t serial, uint32_t prompt, uint32_t answer)
{
    struct kv_talk *k = serial ? find(t, serial) : NULL;
    if (!k)
        return;
    k->running = 0;
    k->prompt = prompt;
    k->answer = answer;
    k->used = ++t->clock;
}

uint32_t kv_talks_common(const struct kv_talks *t, const struct prefix *p)
{
    uint32_t most = 0;
    for (size_t i = 0; i < KV_TALKS; i++) {
        uint32_t n = t->list[i].serial ? prefix_common(&t->list[i].prefix, p) : 0;
        most = n > most ? n : most;
    }
    return most;
}

/* Builds tell either what the latest request asked with, or that and what was answered. */
static bool fits(const struct kv_talk *k, uint32_t tokens)
{
    uint64_t all = (uint64_t)k->prompt + k->answer;
    if (!k->prompt || k->running)
        return false;
    return tokens == k->prompt || (tokens + SLACK >= all && tokens <= all + SLACK);
}

static bool is_taken(const struct kv_pick *out, size_t n, const struct kv_talk *k)
{
    for (size_t i = 0; i < n; i++)
        if (out[i].talk == k)
            return true;
    return false;
}

/* The latest of those that hold so many tokens and are in no slot yet. */
static const struct kv_talk *talk_of(const struct kv_talks *t, uint32_t tokens, const struct kv_pick *out,
                                     size_t n)
{
    const struct kv_talk *best = NULL;
    for (size_t i = 0; i < KV_TALKS; i++) {
        const struct kv_talk *k = &t->list[i];
        if (fits(k, tokens) && (!best || k->used > best->used) && !is_taken(out, n, k))
            best = k;
    }
    return best;
}

size_t kv_talks_match(const struct kv_talks *t, const struct runtime_slot *slots, size_t n,
                      struct kv_pick *out)
{
    size_t found = 0;
    uint64_t before = UINT64_MAX;
    for (size_t round = 0; round < n; round++) { /* from the latest request down */
        const struct runtime_slot *s = NULL;
        for (size_t i = 0; i < n; i++)
            if (slots[i].request < before && slots[i].request > 0 && (!s || slots[i].request > s->request))
                s = &slots[i];
        if (!s)
            break;
        before = s->request;
        const struct kv_talk *k = s->busy ? NULL : talk_of(t, s->tokens, out, found);
        if (k)
            out[found++] = (struct kv_pick){*s, k};
    }
    return found;
}
