/* What of conversations lies in files: which file holds the state behind which beginning of a prompt, made
 * with which model, build and settings. Layer pool; pure; one owner.
 *
 * A row is found by its key (a hash of all that a state depends on) and the longest beginning that it shares
 * with a prompt. Rows that another one covers, and those unused for longest where the quota is full, give
 * way. Makers (a hash of model and build) for which reading states back did not help are remembered with
 * their rows' failures. The whole is one JSON document, that a restart reads again: what is wrong in it is
 * refused as a whole. */
#ifndef POOL_KV_INDEX_H
#define POOL_KV_INDEX_H

#include "base/buf.h"
#include "base/err.h"
#include "pool/prefix.h"

#include <stdint.h>

#define KV_ROWS_MAX    512u
#define KV_MAKERS_MAX  64u
#define KV_STRIKES     2u         /* in a row: the maker is left alone */
#define KV_INDEX_BYTES (4u << 20) /* a longer document is none of ours */
#define KV_MODEL_MAX   192u

struct kv_row {
    uint64_t key, maker;
    uint64_t file;  /* its number; never 0, never used again */
    uint64_t bytes; /* of the file */
    uint64_t sum;   /* of its content, see kv_store.h */
    uint64_t used;  /* seconds of the wall clock */
    uint32_t tokens;
    char model[KV_MODEL_MAX]; /* for people */
    struct prefix prefix;     /* n > 0 */
};

struct kv_index;
struct kv_index *kv_index_new(uint64_t seed);
void kv_index_free(struct kv_index *ix); /* NULL is fine */
/* RC_INVALID: it is none, or not of this version; RC_LIMIT. */
enum rc kv_index_parse(struct str text, struct kv_index **ret_index, struct err *err);
enum rc kv_index_print(const struct kv_index *ix, struct buf *out, struct err *err);

uint64_t kv_index_seed(const struct kv_index *ix); /* of prompts' hashes */
uint64_t kv_index_next_file(struct kv_index *ix);  /* a number that no file had */

/* The row of that key whose file holds most of the prompt's beginning, and how many blocks of it; NULL =
 * none. Borrowed until the index changes. */
const struct kv_row *kv_index_find(const struct kv_index *ix, uint64_t key, const struct prefix *p,
                                   uint32_t *ret_blocks);
const struct kv_row *kv_index_at(const struct kv_index *ix, size_t i); /* the i-th; NULL past the end */
const struct kv_row *kv_index_of_file(const struct kv_index *ix, uint64_t file);
size_t kv_index_n(const struct kv_index *ix);
uint64_t kv_index_bytes(const struct kv_index *ix); /* of all files */

/* Takes a copy. Rows that give way are told by their file's number, each once; so is the new one itself where
 * it alone is larger than the quota. */
typedef void (*kv_gone_fn)(void *arg, uint64_t file);
void kv_index_add(struct kv_index *ix, const struct kv_row *row, uint64_t quota, kv_gone_fn gone, void *arg);
void kv_index_trim(struct kv_index *ix, uint64_t quota, kv_gone_fn gone, void *arg);
void kv_index_touch(struct kv_index *ix, uint64_t file, uint64_t used);
bool kv_index_drop(struct kv_index *ix, uint64_t file); /* false: there is none */

/* Whether the states of a maker were of use when they were read back. True: this was the strike that ends it.
 */
bool kv_index_judge(struct kv_index *ix, uint64_t maker, bool helped);
bool kv_index_is_off(const struct kv_index *ix, uint64_t maker);
void kv_index_pardon(struct kv_index *ix); /* forgets all strikes */

/* Bytes a second of writing and of reading back, servers' part included; 0 = never measured. */
struct kv_speeds {
    uint64_t write_bps, read_bps;
};
struct kv_speeds kv_index_speeds(const struct kv_index *ix);
void kv_index_learn(struct kv_index *ix, bool write, uint64_t bytes, uint64_t ms);

#endif
