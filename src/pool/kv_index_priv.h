/* Shared by kv_index.c and kv_index_text.c. */
#ifndef POOL_KV_INDEX_PRIV_H
#define POOL_KV_INDEX_PRIV_H

#include "pool/kv_index.h"

#define KV_FILE_MAX    (1ull << 44) /* bytes of a file */
#define KV_SPEED_LEAST (1u << 20)   /* bytes of a file that tells how fast files are */

struct kv_maker {
    uint64_t hash;
    uint32_t strikes;
};

struct kv_index {
    uint64_t seed, next_file;
    struct kv_speeds speeds;
    struct kv_row *rows[KV_ROWS_MAX + 1];
    size_t n;
    struct kv_maker makers[KV_MAKERS_MAX];
    size_t n_makers;
};

#endif
