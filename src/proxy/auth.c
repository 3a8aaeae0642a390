/* Key check: see auth.h. Layer proxy; loop thread only. OpenSSL's digest context is made once: fetching the
 * algorithm costs more than hashing a key. */
#include "proxy/auth.h"

#include "base/mem.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>

struct auth {
    EVP_MD *md;
    EVP_MD_CTX *ctx;
    size_t n;
    unsigned char keys[][32];
};

static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_digest(const char *hex, unsigned char *out)
{
    for (size_t i = 0; i < 32; i++) {
        int hi = nibble(hex[2 * i]), lo = hi < 0 ? -1 : nibble(hex[2 * i + 1]);
        if (lo < 0)
            return false;
        out[i] = (unsigned char)(hi << 4 | lo);
    }
    return !hex[64];
}

enum rc auth_new(const char *const *sha256_hex, size_t n, struct auth **ret_auth, struct err *err)
{
    if (n > 100000)
        return err_set(err, RC_LIMIT, "%zu API keys are more than the limit of 100000", n);
    struct auth *a = mem_calloc(1, sizeof *a + n * 32);
    for (size_t i = 0; i < n; i++) {
        if (parse_digest(sha256_hex[i], a->keys[i]))
            continue;
        auth_free(a);
        enum rc rc = err_set(err, RC_INVALID, "API key number %zu is not a SHA-256 digest", i + 1);
        err_hint(err, "give 64 hexadecimal digits: printf %%s KEY | sha256sum");
        return rc;
    }
    a->n = n;
    a->md = n ? EVP_MD_fetch(NULL, "SHA256", NULL) : NULL;
    a->ctx = n ? EVP_MD_CTX_new() : NULL;
    if (n && (!a->md || !a->ctx)) {
        auth_free(a);
        return err_set(err, RC_INTERNAL, "the crypto library has no SHA-256");
    }
    *ret_auth = a;
    return RC_OK;
}

void auth_free(struct auth *a)
{
    if (!a)
        return;
    EVP_MD_CTX_free(a->ctx);
    EVP_MD_free(a->md);
    free(a);
}

bool auth_needed(const struct auth *a)
{
    return a->n > 0;
}

bool auth_check(struct auth *a, struct str secret, char *ret_id)
{
    unsigned char digest[32] = {0};
    if (!secret.n || EVP_DigestInit_ex2(a->ctx, a->md, NULL) != 1 ||
        EVP_DigestUpdate(a->ctx, secret.p, secret.n) != 1 || EVP_DigestFinal_ex(a->ctx, digest, NULL) != 1)
        return false;
    bool found = false;
    for (size_t i = 0; i < a->n; i++)
        found |= CRYPTO_memcmp(digest, a->keys[i], sizeof digest) == 0;
    for (size_t i = 0; found && i < AUTH_ID_CHARS; i++)
        ret_id[i] = "0123456789abcdef"[digest[i / 2] >> (i % 2 ? 0 : 4) & 15];
    if (found)
        ret_id[AUTH_ID_CHARS] = '\0';
    return found;
}

struct str auth_bearer(struct str authorization)
{
    if (authorization.n < 7 || !str_ieq((struct str){authorization.p, 7}, STR("bearer ")))
        return (struct str){"", 0};
    return str_trim((struct str){authorization.p + 7, authorization.n - 7});
}
