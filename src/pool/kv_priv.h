/* Shared by kv.c, kv_save.c and kv_restore.c: conversations that outlive the instance that read them. Layer
 * pool; loop thread.
 *
 *   kv.c          whether an instance's are kept, which it has, what their use was, how all fare
 *   kv_save.c     before an instance is asked to end: its slots' states into files
 *   kv_restore.c  before a request is sent: the state that it goes on from out of its file
 *   kv_store.c    the folder; kv_index.c, kv_index_text.c what is in it; kv_talk.c who is in which slot: pure
 *
 * A request never waits longer for a state than reading its prompt anew is expected to take, and whatever
 * fails, it goes on without. */
#ifndef POOL_KV_PRIV_H
#define POOL_KV_PRIV_H

#include "pool/kv_store.h"
#include "pool/kv_talk.h"
#include "pool/pool_priv.h"

#define KV_SLOTS      256u       /* of an instance that are looked at */
#define KV_ANSWER_MAX (4u << 20) /* bytes of a list of slots: each tells all its settings */
#define KV_READ_BPS   500000000u /* until it is measured */
#define KV_WRITE_BPS  300000000u
#define KV_CALL_MS    20u /* of asking, whatever the size */

struct kv { /* the pool's */
    bool wanted;
    struct kv_store *store; /* NULL = nothing is kept; if it is wanted, why in problem */
    struct err problem;     /* code RC_OK = none */
    bool told_failed;       /* since the last one that was kept */
};

struct kv_save;

struct kv_held { /* an instance's; NULL in it = nothing of it is kept */
    uint64_t key, maker;
    bool forced;
    uint64_t token_bytes;   /* of a conversation's state, as planned */
    unsigned restoring;     /* requests that wait for a state; the instance stays until there are none */
    struct kv_save *saving; /* NULL = not now */
    uint32_t
        filled[KV_SLOTS / 32]; /* slots that a state was read into: they tell nothing until they are used */
    uint32_t saved, restored;
    uint64_t hit_tokens;
    struct kv_talks talks;
};

/* Whether reading a state back is quicker than reading so many tokens anew. */
bool kv_pays(const struct pool_instance *i, uint64_t bytes, uint32_t tokens);
uint64_t kv_read_ms(const struct pool *p, uint64_t bytes);
uint64_t kv_write_ms(const struct pool *p, uint64_t bytes);
uint64_t kv_prefill_ms(const struct pool_instance *i, uint32_t tokens); /* UINT64_MAX = not known */
bool kv_in_use(const struct pool_instance *i); /* kept, and not switched off meanwhile */
/* Whether a state that was read back, or was to be, was of use; what happened if not. The model and build are
 * left alone when that was so KV_STRIKES times in a row. */
void kv_judge(struct pool_instance *i, bool helped, const char *what);
/* The index has changed. */
void kv_changed(struct pool *p);
void kv_add_row(struct pool *p, const struct kv_row *row);
/* Its file and its row are of no use. */
void kv_forget_file(struct pool *p, uint64_t file);
__attribute__((format(printf, 4, 5))) void kv_tell(struct pool_instance *i, const char *kind,
                                                   const char *code, const char *fmt, ...);
/* Something could not be kept or read back: told once until something could. */
void kv_tell_failed(struct pool_instance *i, const char *what, const struct err *why);
/* A request to the instance's server about its slots. */
struct call *kv_ask_list(struct pool_instance *i, uint64_t limit_ms, call_cb cb, void *arg);
struct call *kv_ask_slot(struct pool_instance *i, bool save, uint32_t slot, uint64_t file, uint64_t limit_ms,
                         call_cb cb, void *arg);

#endif
