/* Keys that somebody chose: see keys.h. The keys themselves are forgotten at once; only digests are kept. */
#include "daemon/keys.h"

#include "os/file.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#define FILE_MAX (8 * MIB)

struct adding {
    struct key_set *set;
    size_t cap;
    const char *source;
};

static bool read_digest(struct str hex, unsigned char *out)
{
    bool fine = hex.n == 64;
    for (size_t i = 0; fine && i < 64; i++) {
        static const char digits[] = "0123456789abcdef";
        const char *at = strchr(digits, hex.p[i] | (hex.p[i] >= 'A' ? 0x20 : 0));
        fine = at && *at;
        unsigned value = fine ? (unsigned)(at - digits) : 0;
        out[i / 2] = (unsigned char)(i % 2 ? out[i / 2] | value : value << 4);
    }
    return fine;
}

static bool add(struct adding *a, struct str key)
{
    struct key_set *k = a->set;
    struct auth_spec s = {.name = "", .source = a->source, .models = "", .scopes = AUTH_INFER};
    bool fine = str_starts(key, "sha256:")
                    ? read_digest((struct str){key.p + 7, key.n - 7}, s.hash)
                    : key.n && key.n <= AUTH_SECRET_MAX && auth_digest(key, STR(""), s.hash);
    if (!fine)
        return false;
    for (size_t i = 0; i < AUTH_ID_CHARS; i++)
        s.id[i] = "0123456789abcdef"[s.hash[i / 2] >> (i % 2 ? 0 : 4) & 15];
    if (k->n == a->cap) {
        a->cap = a->cap ? a->cap * 2 : 16;
        struct auth_spec *more = arena_array(&k->arena, a->cap, sizeof *more);
        if (!more)
            return false;
        if (k->n)
            memcpy(more, k->specs, k->n * sizeof *more);
        k->specs = more;
    }
    k->specs[k->n++] = s;
    return true;
}

static enum rc read_file(const char *path, struct adding *a, struct err *err)
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
        if (a->set->n >= AUTH_KEYS_MAX)
            rc = err_set(err, RC_LIMIT, "%s has more than %u keys", path, AUTH_KEYS_MAX);
        else if (!add(a, key))
            rc = err_set(err, RC_INVALID, "%s:%u: not an API key", path, line);
    }
    if (rc == RC_OK && a->set->n == 0) /* an empty file must not open the door */
        rc = err_set(err, RC_INVALID, "%s has no key", path);
    if (text.data)
        OPENSSL_cleanse(text.data, text.n);
    buf_release(&text);
    return rc;
}

enum rc keys_load(const struct config *c, struct key_set *ret_keys, struct err *err)
{
    struct key_set k = {0};
    struct adding a = {.set = &k, .source = "api_keys_file"};
    enum rc rc = c->api_keys_file[0] ? read_file(c->api_keys_file, &a, err) : RC_OK;
    a.source = "environment";
    for (size_t i = 0; i < c->api_keys.n && rc == RC_OK; i++)
        if (!add(&a, str_from(c->api_keys.items[i])))
            rc = err_set(err, RC_INVALID, "key number %zu of ARRIERO_API_KEYS is not an API key", i + 1);
    if (rc != RC_OK) {
        key_set_release(&k);
        return rc;
    }
    k.found = k.n > 0;
    *ret_keys = k;
    return RC_OK;
}
