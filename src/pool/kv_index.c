/* Conversations in files: see kv_index.h. Layer pool; pure. Its text is in kv_index_text.c. */
#include "pool/kv_index_priv.h"

#include "base/mem.h"

#include <string.h>

struct kv_index *kv_index_new(uint64_t seed)
{
    struct kv_index *ix = mem_new(struct kv_index);
    ix->seed = seed;
    ix->next_file = 1;
    return ix;
}

void kv_index_free(struct kv_index *ix)
{
    if (!ix)
        return;
    for (size_t i = 0; i < ix->n; i++)
        free(ix->rows[i]);
    free(ix);
}

uint64_t kv_index_seed(const struct kv_index *ix)
{
    return ix->seed;
}

uint64_t kv_index_next_file(struct kv_index *ix)
{
    return ix->next_file++;
}

/* ---- finding ---- */

const struct kv_row *kv_index_find(const struct kv_index *ix, uint64_t key, const struct prefix *p,
                                   uint32_t *ret_blocks)
{
    const struct kv_row *best = NULL;
    uint32_t most = 0;
    for (size_t i = 0; i < ix->n; i++) {
        const struct kv_row *r = ix->rows[i];
        uint32_t blocks = r->key == key ? prefix_common(&r->prefix, p) : 0;
        /* of equal beginnings that with less behind it: the rest is of no use */
        if (blocks > most || (best && blocks == most && blocks > 0 && r->tokens < best->tokens)) {
            best = r;
            most = blocks;
        }
    }
    if (best)
        *ret_blocks = most;
    return best;
}

const struct kv_row *kv_index_at(const struct kv_index *ix, size_t i)
{
    return i < ix->n ? ix->rows[i] : NULL;
}

static size_t place_of(const struct kv_index *ix, uint64_t file)
{
    size_t i = 0;
    while (i < ix->n && ix->rows[i]->file != file)
        i++;
    return i;
}

const struct kv_row *kv_index_of_file(const struct kv_index *ix, uint64_t file)
{
    return kv_index_at(ix, place_of(ix, file));
}

size_t kv_index_n(const struct kv_index *ix)
{
    return ix->n;
}

uint64_t kv_index_bytes(const struct kv_index *ix)
{
    uint64_t bytes = 0; /* cannot overflow: no file has more than KV_FILE_MAX */
    for (size_t i = 0; i < ix->n; i++)
        bytes += ix->rows[i]->bytes;
    return bytes;
}

/* ---- changing ---- */

static void remove_at(struct kv_index *ix, size_t i)
{
    free(ix->rows[i]);
    ix->rows[i] = ix->rows[--ix->n];
}

bool kv_index_drop(struct kv_index *ix, uint64_t file)
{
    size_t i = place_of(ix, file);
    if (i == ix->n)
        return false;
    remove_at(ix, i);
    return true;
}

static void give_up(struct kv_index *ix, size_t i, kv_gone_fn gone, void *arg)
{
    uint64_t file = ix->rows[i]->file;
    remove_at(ix, i);
    gone(arg, file);
}

void kv_index_trim(struct kv_index *ix, uint64_t quota, kv_gone_fn gone, void *arg)
{
    while (ix->n > 0 && (ix->n > KV_ROWS_MAX || kv_index_bytes(ix) > quota)) {
        size_t oldest = 0;
        for (size_t i = 1; i < ix->n; i++)
            if (ix->rows[i]->used < ix->rows[oldest]->used ||
                (ix->rows[i]->used == ix->rows[oldest]->used && ix->rows[i]->file < ix->rows[oldest]->file))
                oldest = i;
        give_up(ix, oldest, gone, arg);
    }
}

/* Is all that the old one is good for in the new one, too? The last block may hold the end of its prompt,
 * which a longer prompt does not have. */
static bool covers(const struct kv_row *new, const struct kv_row *old)
{
    uint32_t whole = old->prefix.n > 1 ? old->prefix.n - 1 : 1;
    return old->key == new->key &&
           old->tokens <= new->tokens &&prefix_common(&new->prefix, &old->prefix) >= whole;
}

void kv_index_add(struct kv_index *ix, const struct kv_row *row, uint64_t quota, kv_gone_fn gone, void *arg)
{
    for (size_t i = ix->n; i-- > 0;)
        if (covers(row, ix->rows[i]))
            give_up(ix, i, gone, arg);
    if (row->bytes > quota) { /* all others would leave for nothing */
        gone(arg, row->file);
        return;
    }
    struct kv_row *copy = mem_new(struct kv_row);
    *copy = *row;
    ix->rows[ix->n++] = copy; /* there is room for one more than may stay */
    if (row->file >= ix->next_file)
        ix->next_file = row->file + 1;
    kv_index_trim(ix, quota, gone, arg);
}

void kv_index_touch(struct kv_index *ix, uint64_t file, uint64_t used)
{
    size_t i = place_of(ix, file);
    if (i < ix->n && used > ix->rows[i]->used)
        ix->rows[i]->used = used;
}

/* ---- makers ---- */

static struct kv_maker *maker_of(struct kv_index *ix, uint64_t hash)
{
    for (size_t i = 0; i < ix->n_makers; i++)
        if (ix->makers[i].hash == hash)
            return &ix->makers[i];
    return NULL;
}

bool kv_index_judge(struct kv_index *ix, uint64_t maker, bool helped)
{
    struct kv_maker *m = maker_of(ix, maker);
    if (helped) {
        if (m)
            *m = ix->makers[--ix->n_makers];
        return false;
    }
    if (!m) {
        if (ix->n_makers == KV_MAKERS_MAX) { /* the oldest is tried again some day */
            memmove(ix->makers, ix->makers + 1, (KV_MAKERS_MAX - 1) * sizeof *ix->makers);
            ix->n_makers--;
        }
        m = &ix->makers[ix->n_makers++];
        *m = (struct kv_maker){.hash = maker};
    }
    if (m->strikes >= KV_STRIKES)
        return false;
    return ++m->strikes == KV_STRIKES;
}

bool kv_index_is_off(const struct kv_index *ix, uint64_t maker)
{
    for (size_t i = 0; i < ix->n_makers; i++)
        if (ix->makers[i].hash == maker)
            return ix->makers[i].strikes >= KV_STRIKES;
    return false;
}

void kv_index_pardon(struct kv_index *ix)
{
    ix->n_makers = 0;
}

/* ---- speeds ---- */

struct kv_speeds kv_index_speeds(const struct kv_index *ix)
{
    return ix->speeds;
}

void kv_index_learn(struct kv_index *ix, bool write, uint64_t bytes, uint64_t ms)
{
    uint64_t *known = write ? &ix->speeds.write_bps : &ix->speeds.read_bps;
    if (bytes < KV_SPEED_LEAST ||
        bytes > KV_FILE_MAX) /* of small files the rest of the work would be measured */
        return;
    uint64_t bps = bytes * 1000 / (ms ? ms : 1);
    *known = *known ? (*known * 3 + bps) / 4 : bps;
}
