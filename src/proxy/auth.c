/* Keys: see auth.h. Layer proxy; loop thread only. OpenSSL's digest context is made once: fetching the
 * algorithm costs more than hashing a key.
 *
 * Two tables with open addresses lead to keys: by the digest of the whole key, and by id. Slots of the first
 * are chosen with a number drawn at the start, so that nobody can choose secrets that meet in one slot. Both
 * have at least two slots a key, so a search ends at a free one. */
#include "proxy/auth.h"

#include "base/mem.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/random.h>

struct table {
    struct auth_key **slot;
    size_t mask;
};

struct auth {
    EVP_MD *md;
    EVP_MD_CTX *ctx;
    uint64_t seed;
    bool required;
    struct auth_key **keys;
    size_t n;
    struct table by_digest, by_id;
};

enum rc auth_new(struct auth **ret_auth, struct err *err)
{
    struct auth *a = mem_new(struct auth);
    a->md = EVP_MD_fetch(NULL, "SHA256", NULL);
    a->ctx = EVP_MD_CTX_new();
    if (!a->md || !a->ctx) {
        auth_free(a);
        return err_set(err, RC_INTERNAL, "the crypto library has no SHA-256");
    }
    if (getrandom(&a->seed, sizeof a->seed, GRND_NONBLOCK) != (ssize_t)sizeof a->seed)
        a->seed = (uint64_t)(uintptr_t)a;
    auth_set(a, NULL, 0, false, 0);
    *ret_auth = a;
    return RC_OK;
}

/* ---- tables ---- */

static void table_clear(struct table *t, size_t keys)
{
    size_t n = 8;
    while (n < 2 * keys)
        n *= 2;
    free(t->slot);
    t->slot = mem_calloc(n, sizeof *t->slot);
    t->mask = n - 1;
}

static void table_put(struct table *t, uint64_t hash, struct auth_key *k)
{
    size_t i = hash & t->mask;
    while (t->slot[i])
        i = (i + 1) & t->mask;
    t->slot[i] = k;
}

static uint64_t digest_hash(const struct auth *a, const unsigned char *digest)
{
    return str_hash((struct str){(const char *)digest, AUTH_HASH_BYTES}, a->seed);
}

static struct auth_key *find_digest(const struct auth *a, const unsigned char *digest)
{
    const struct table *t = &a->by_digest;
    for (size_t i = digest_hash(a, digest) & t->mask; t->slot[i]; i = (i + 1) & t->mask)
        if (CRYPTO_memcmp(t->slot[i]->digest, digest, AUTH_HASH_BYTES) == 0)
            return t->slot[i];
    return NULL;
}

static struct auth_key *find_id(const struct auth *a, const struct table *t, struct str id)
{
    for (size_t i = str_hash(id, a->seed) & t->mask; t->slot[i]; i = (i + 1) & t->mask)
        if (str_eq_c(id, t->slot[i]->spec.id))
            return t->slot[i];
    return NULL;
}

/* ---- keys ---- */

static void key_free(struct auth_key *k)
{
    free((void *)(uintptr_t)k->spec.name);
    free((void *)(uintptr_t)k->spec.models);
    free(k);
}

static void key_forget(struct auth_key *k)
{
    k->listed = false;
    if (!k->holders)
        key_free(k);
}

struct auth_key *auth_hold(struct auth_key *k)
{
    k->holders++;
    return k;
}

void auth_release(struct auth_key *k)
{
    if (!--k->holders && !k->listed)
        key_free(k);
}

static bool same_secret(const struct auth_spec *a, const struct auth_spec *b)
{
    return a->salted == b->salted && memcmp(a->salt, b->salt, sizeof a->salt) == 0 &&
           memcmp(a->hash, b->hash, sizeof a->hash) == 0;
}

/* Takes over what the file says of the key, with copies of its texts. */
static void key_set(struct auth_key *k, const struct auth_spec *s, uint64_t now_us)
{
    char *name = mem_strdup(s->name ? s->name : ""), *models = mem_strdup(s->models ? s->models : "");
    k->known = k->known && same_secret(&k->spec, s);
    free((void *)(uintptr_t)k->spec.name);
    free((void *)(uintptr_t)k->spec.models);
    k->spec = *s;
    k->spec.name = name;
    k->spec.models = models;
    if (!s->salted) {
        memcpy(k->digest, s->hash, sizeof k->digest);
        k->known = true;
    }
    limits_set(&k->limits, s->requests_per_minute, s->tokens_per_minute, s->concurrency, now_us);
}

void auth_set(struct auth *a, const struct auth_spec *specs, size_t n, bool required, uint64_t now_us)
{
    struct auth_key **keys = mem_calloc(n + 1, sizeof *keys);
    struct table by_id = {0};
    size_t n_keys = 0;
    for (size_t i = 0; i < a->n; i++)
        a->keys[i]->listed = false;
    table_clear(&by_id, n);
    for (size_t i = 0; i < n; i++) {
        struct str id = str_from(specs[i].id);
        if (find_id(a, &by_id, id)) /* the same key twice */
            continue;
        struct auth_key *k = a->by_id.slot ? find_id(a, &a->by_id, id) : NULL;
        if (!k)
            k = mem_new(struct auth_key);
        key_set(k, &specs[i], now_us);
        k->listed = true;
        keys[n_keys++] = k;
        table_put(&by_id, str_hash(id, a->seed), k);
    }
    for (size_t i = 0; i < a->n; i++)
        if (!a->keys[i]->listed)
            key_forget(a->keys[i]);
    free(a->keys);
    free(a->by_id.slot);
    a->keys = keys;
    a->n = n_keys;
    a->by_id = by_id;
    a->required = required;
    table_clear(&a->by_digest, n_keys);
    for (size_t i = 0; i < n_keys; i++)
        if (keys[i]->known)
            table_put(&a->by_digest, digest_hash(a, keys[i]->digest), keys[i]);
}

void auth_free(struct auth *a)
{
    if (!a)
        return;
    for (size_t i = 0; i < a->n; i++)
        key_forget(a->keys[i]);
    free(a->keys);
    free(a->by_digest.slot);
    free(a->by_id.slot);
    EVP_MD_CTX_free(a->ctx);
    EVP_MD_free(a->md);
    free(a);
}

bool auth_needed(const struct auth *a)
{
    return a->required || a->n > 0;
}

struct auth_key *auth_key_at(const struct auth *a, size_t i)
{
    return i < a->n ? a->keys[i] : NULL;
}

/* ---- checking ---- */

static bool digest(EVP_MD_CTX *ctx, const EVP_MD *md, struct str a, struct str b, unsigned char *ret_hash)
{
    return EVP_DigestInit_ex2(ctx, md, NULL) == 1 && (!a.n || EVP_DigestUpdate(ctx, a.p, a.n) == 1) &&
           (!b.n || EVP_DigestUpdate(ctx, b.p, b.n) == 1) && EVP_DigestFinal_ex(ctx, ret_hash, NULL) == 1;
}

bool auth_digest(struct str a, struct str b, unsigned char *ret_hash)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && digest(ctx, EVP_sha256(), a, b, ret_hash);
    EVP_MD_CTX_free(ctx);
    return ok;
}

/* A key of ours that comes for the first time: by the id in it. */
static struct auth_key *first_use(struct auth *a, struct str secret, const unsigned char *whole)
{
    unsigned char hash[AUTH_HASH_BYTES] = {0};
    if (!str_starts(secret, "arr_") || secret.n < 5 + AUTH_ID_CHARS || secret.p[4 + AUTH_ID_CHARS] != '_')
        return NULL;
    struct auth_key *k = find_id(a, &a->by_id, (struct str){secret.p + 4, AUTH_ID_CHARS});
    if (!k || !k->spec.salted || k->known)
        return NULL;
    struct str salt = {(const char *)k->spec.salt, AUTH_SALT_BYTES};
    if (!digest(a->ctx, a->md, salt, secret, hash) || CRYPTO_memcmp(hash, k->spec.hash, sizeof hash) != 0)
        return NULL;
    memcpy(k->digest, whole, AUTH_HASH_BYTES);
    k->known = true;
    table_put(&a->by_digest, digest_hash(a, whole), k);
    return k;
}

enum auth_answer auth_check(struct auth *a, struct str secret, int64_t wall_ms, struct auth_key **ret_key)
{
    unsigned char whole[AUTH_HASH_BYTES] = {0};
    if (!secret.n)
        return AUTH_MISSING;
    if (secret.n > AUTH_SECRET_MAX || !digest(a->ctx, a->md, secret, (struct str){"", 0}, whole))
        return AUTH_WRONG;
    struct auth_key *k = find_digest(a, whole);
    if (!k)
        k = first_use(a, secret, whole);
    if (!k)
        return AUTH_WRONG;
    *ret_key = k;
    return k->spec.expires_ms && wall_ms >= k->spec.expires_ms ? AUTH_EXPIRED : AUTH_OK;
}

/* ---- what it may ---- */

/* * stands for any number of characters; letters match whatever their case. */
static bool matches(struct str pattern, struct str text)
{
    size_t p = 0, t = 0, star = SIZE_MAX, again = 0;
    while (t < text.n) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = p++;
            again = t;
        } else if (p < pattern.n && str_ieq((struct str){pattern.p + p, 1}, (struct str){text.p + t, 1})) {
            p++;
            t++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            t = ++again;
        } else {
            return false;
        }
    }
    while (p < pattern.n && pattern.p[p] == '*')
        p++;
    return p == pattern.n;
}

bool auth_may_use(const struct auth_spec *k, struct str model)
{
    struct str rest = str_from(k->models);
    if (!rest.n)
        return true;
    while (rest.n) {
        struct str one = str_trim(str_cut(&rest, ','));
        if (one.n && matches(one, model))
            return true;
    }
    return false;
}

struct str auth_bearer(struct str authorization)
{
    if (authorization.n < 7 || !str_ieq((struct str){authorization.p, 7}, STR("bearer ")))
        return (struct str){"", 0};
    return str_trim((struct str){authorization.p + 7, authorization.n - 7});
}
