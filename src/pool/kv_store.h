/* The folder of kept conversations: one file each, an index that is written as a whole, and a lock. Layer
 * pool; loop thread, but for the work named so. No fsync of the conversations' files: one that a crash has
 * damaged is told by its sum, and is only a cache. Files that the index does not name are removed when the
 * folder is opened. */
#ifndef POOL_KV_STORE_H
#define POOL_KV_STORE_H

#include "base/err.h"
#include "pool/kv_index.h"

#include <uv.h>

#define KV_FILE_NAME 20u /* of a file, with its NUL */

/* Called around each piece of work on the work pool. */
struct kv_store_events {
    void (*begun)(void *arg);
    void (*ended)(void *arg, const struct err *err); /* NULL = it went well; may close the store */
    void *arg;
};

struct kv_store;
/* Blocking: at start. seed: of a new index. RC_BUSY: another process has it; RC_DENIED: others may read it;
 * RC_IO, RC_INVALID. An index that cannot be read is begun anew. */
enum rc kv_store_open(const char *dir, uint64_t seed, uv_loop_t *loop, const struct kv_store_events *events,
                      struct kv_store **ret_store, struct err *err);
void kv_store_close(struct kv_store *s); /* nothing may be under way; NULL is fine */

const char *kv_store_dir(const struct kv_store *s);
/* The index; changes are made known by kv_store_changed. */
struct kv_index *kv_store_index(struct kv_store *s);
void kv_store_changed(struct kv_store *s); /* it is written on the work pool, soon */
/* Bytes that may be kept: quota, or where it is UINT64_MAX 4 GiB or a twentieth of what is free and ours,
 * whichever is less. */
uint64_t kv_store_quota(const struct kv_store *s, uint64_t quota);

/* "000000000000002a.kv" */
char *kv_store_name(uint64_t file, char out[KV_FILE_NAME]);
void kv_store_remove(struct kv_store *s, uint64_t file); /* the file alone, on the work pool, soon */

/* Blocking, any thread: size and sum of a file's content, which has a multiple of 16 bytes put behind it of
 * zeros. */
enum rc kv_store_sum(const struct kv_store *s, uint64_t file, uint64_t *ret_bytes, uint64_t *ret_sum,
                     struct err *err);

#endif
