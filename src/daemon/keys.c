/* API keys: see keys.h. The keys themselves are forgotten at once; only digests are kept. */
#include "daemon/keys.h"

#include "os/file.h"

#include <ctype.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>

#define KEYS_MAX   100000
#define FILE_MAX   (8 * MIB)
#define KEY_LENGTH 4096

static bool is_digest(struct str s)
{
    if (s.n != 64)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!isxdigit((unsigned char)s.p[i]))
            return false;
    return true;
}

static bool add(struct key_list *k, struct str key)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    char *hex = mem_calloc(65, 1);
    if (str_starts(key, "sha256:")) {
        key = (struct str){key.p + 7, key.n - 7};
        if (!is_digest(key)) {
            free(hex);
            return false;
        }
        for (size_t i = 0; i < 64; i++)
            hex[i] = (char)tolower((unsigned char)key.p[i]);
    } else {
        if (key.n > KEY_LENGTH || EVP_Digest(key.p, key.n, md, &n, EVP_sha256(), NULL) != 1 || n != 32) {
            free(hex);
            return false;
        }
        for (size_t i = 0; i < 32; i++) {
            hex[2 * i] = digits[md[i] >> 4];
            hex[2 * i + 1] = digits[md[i] & 15];
        }
    }
    k->hex = mem_realloc(k->hex, k->n + 1, sizeof *k->hex);
    k->hex[k->n++] = hex;
    return true;
}

static enum rc read_file(const char *path, struct key_list *k, struct err *err)
{
    struct buf text = {0};
    enum rc rc = file_read(path, FILE_MAX, &text, err);
    if (rc != RC_OK) {
        err_prefix(err, "api_keys_file");
        return rc;
    }
    struct str rest = buf_str(&text);
    for (unsigned line = 1; rest.n && rc == RC_OK; line++) {
        struct str key = str_trim(str_cut(&rest, '\n'));
        if (key.n == 0 || key.p[0] == '#')
            continue;
        if (k->n >= KEYS_MAX)
            rc = err_set(err, RC_LIMIT, "%s has more than %d keys", path, KEYS_MAX);
        else if (!add(k, key))
            rc = err_set(err, RC_INVALID, "%s:%u: not an API key", path, line);
    }
    if (rc == RC_OK && k->n == 0) /* an empty file must not open the door */
        rc = err_set(err, RC_INVALID, "%s has no key", path);
    if (text.data)
        OPENSSL_cleanse(text.data, text.n);
    buf_release(&text);
    return rc;
}

enum rc key_list_load(const struct config *c, struct key_list *ret_keys, struct err *err)
{
    struct key_list k = {0};
    enum rc rc = c->api_keys_file[0] ? read_file(c->api_keys_file, &k, err) : RC_OK;
    for (size_t i = 0; i < c->api_keys.n && rc == RC_OK; i++)
        if (!add(&k, str_from(c->api_keys.items[i])))
            rc = err_set(err, RC_INVALID, "key number %zu of ARRIERO_API_KEYS is not an API key", i + 1);
    if (rc != RC_OK) {
        key_list_release(&k);
        return rc;
    }
    *ret_keys = k;
    return RC_OK;
}

void key_list_release(struct key_list *k)
{
    for (size_t i = 0; i < k->n; i++)
        free(k->hex[i]);
    free(k->hex);
    *k = (struct key_list){0};
}
