/* Keys of the door: who a secret belongs to, and what that key may do. Layer proxy; loop thread only.
 *
 * A key that arriero made is "arr_" ID "_" SECRET: eight hexadecimal digits that name it, and 256 random bits
 * of which only a salted SHA-256 is kept; the name leads to its salt. A key that somebody chose is found by
 * the SHA-256 of the whole. Either way a key that was seen once is found by the digest of what was sent: one
 * SHA-256 and one look into a table a request, no allocation. Comparisons take the same time wherever they
 * differ. Why no slow hash: docs/adr/0008-keys.md. */
#ifndef PROXY_AUTH_H
#define PROXY_AUTH_H

#include "base/err.h"
#include "base/str.h"
#include "proxy/limit.h"

#define AUTH_ID_CHARS   8u /* hexadecimal; of a key that somebody chose: its digest's first */
#define AUTH_SALT_BYTES 16u
#define AUTH_HASH_BYTES 32u
#define AUTH_KEYS_MAX   100000u
#define AUTH_SECRET_MAX 4096u /* longer ones are wrong */

enum auth_scope {
    AUTH_INFER = 1, /* the data plane */
    AUTH_ADMIN = 2  /* and the control API, where it is served on TCP */
};

struct auth_spec { /* what a key is; texts are borrowed, NULL is "" */
    char id[AUTH_ID_CHARS + 1];
    bool salted; /* hash = SHA-256(salt, the whole key); else SHA-256(the whole key) */
    unsigned char salt[AUTH_SALT_BYTES], hash[AUTH_HASH_BYTES];
    const char *name;
    const char *source; /* static: where it was read */
    const char *models; /* patterns separated by commas, * stands for anything; "" = every model */
    unsigned scopes;    /* enum auth_scope */
    uint32_t requests_per_minute, tokens_per_minute, concurrency; /* 0 = no limit */
    int64_t created_ms, expires_ms;                               /* Unix time; 0 = unknown, never */
    int32_t priority;                                             /* higher goes first; 0 is usual */
    bool captures;                                                /* its texts may be kept */
};

/* A key in use: its spec with texts of its own, and what it has spent. It lives as long as it is listed or
 * held. */
struct auth_key {
    struct auth_spec spec;
    struct limits limits;
    uint64_t requests, tokens; /* since it was read first */
    uint32_t holders;
    bool listed, known; /* known: digest is set */
    unsigned char digest[AUTH_HASH_BYTES];
};

struct auth;
/* RC_INTERNAL when the crypto library has no SHA-256. Without keys, and not required: everyone may enter. */
enum rc auth_new(struct auth **ret_auth, struct err *err);
void auth_free(struct auth *a); /* keys that are held stay until they are let go; NULL is fine */
/* The keys from now on. One with an id that was there before keeps what it spent; of two with the same id the
 * first counts. required: a key is asked for even if there is none. */
void auth_set(struct auth *a, const struct auth_spec *specs, size_t n, bool required, uint64_t now_us);
bool auth_needed(const struct auth *a);

enum auth_answer { AUTH_OK, AUTH_MISSING, AUTH_WRONG, AUTH_EXPIRED };
/* AUTH_OK and AUTH_EXPIRED set *ret_key, which is borrowed until the loop goes on; hold it to keep it. */
enum auth_answer auth_check(struct auth *a, struct str secret, int64_t wall_ms, struct auth_key **ret_key);
struct auth_key *auth_hold(struct auth_key *k);
void auth_release(struct auth_key *k);
/* The i-th key, in no special order; NULL past the end. */
struct auth_key *auth_key_at(const struct auth *a, size_t i);

/* Whether the key may use a model of this name. */
bool auth_may_use(const struct auth_spec *k, struct str model);
/* The token of "Bearer TOKEN"; empty if the scheme is another. */
struct str auth_bearer(struct str authorization);
/* SHA-256 of two pieces in a row; false when the crypto library fails. */
bool auth_digest(struct str a, struct str b, unsigned char *ret_hash);

#endif
