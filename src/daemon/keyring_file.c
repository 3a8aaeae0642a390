/* The file of keys on disk: see keyring.h. Layer daemon; blocking I/O; any thread. A change reads the file,
 * makes a new one and puts it in its place, all under a lock beside it. */
#include "daemon/keyring.h"

#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX     (64 * MIB)
#define SECRET_BYTES 32

void keyring_path(const struct config *c, char *out, size_t cap)
{
    char state[4096];
    if (c->keys_file[0]) {
        snprintf(out, cap, "%s", c->keys_file);
        return;
    }
    if (c->state_dir[0])
        snprintf(state, sizeof state, "%s", c->state_dir);
    else
        file_dir(FILE_DIR_STATE, state, sizeof state);
    snprintf(out, cap, "%s/keys.json", state);
}

enum rc keyring_read(const char *path, struct key_set *ret_keys, struct err *err)
{
    struct stat st;
    struct buf text = {0};
    if (stat(path, &st) != 0 && (errno == ENOENT || errno == ENOTDIR)) {
        *ret_keys = (struct key_set){0};
        return RC_OK;
    }
    enum rc rc = file_read(path, FILE_MAX, &text, err);
    if (rc == RC_OK && (st.st_mode & 077)) {
        rc = err_set(err, RC_DENIED, "%s can be read or written by others", path);
        err_hint(err, "chmod 600 %s", path);
    }
    if (rc == RC_OK)
        rc = keyring_parse(buf_str(&text), path, ret_keys, err);
    buf_release(&text);
    return rc;
}

/* Held until the descriptor is closed. */
static enum rc lock_file(const char *path, int *ret_fd, struct err *err)
{
    char lock[4300], dir[4300];
    snprintf(lock, sizeof lock, "%s.lock", path);
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash && slash != dir) {
        *slash = '\0';
        enum rc rc = file_mkdirs(dir, 0700, err);
        if (rc != RC_OK)
            return rc;
    }
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_sys(err, errno == EACCES ? RC_DENIED : RC_IO, "cannot open %s", lock);
    while (flock(fd, LOCK_EX) != 0) {
        if (errno == EINTR)
            continue;
        enum rc rc = err_sys(err, RC_IO, "cannot lock %s", lock);
        close(fd);
        return rc;
    }
    *ret_fd = fd;
    return RC_OK;
}

static enum rc write_file(const char *path, const struct key_set *k, struct err *err)
{
    struct buf text = {0};
    keyring_print(k, &text);
    enum rc rc = text.failed ? err_set(err, RC_NOMEM, "no memory for the keys")
                             : file_write_atomic(path, buf_str(&text), 0600, err);
    buf_release(&text);
    return rc;
}

static struct auth_spec *find_key(struct key_set *k, struct str which)
{
    for (size_t i = 0; i < k->n; i++)
        if (str_eq_c(which, k->specs[i].id) || (k->specs[i].name && str_eq_c(which, k->specs[i].name)))
            return &k->specs[i];
    return NULL;
}

static void put_base64url(const unsigned char *p, size_t n, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    unsigned bits = 0, have = 0;
    for (size_t i = 0; i < n; i++) {
        bits = bits << 8 | p[i];
        for (have += 8; have >= 6; have -= 6)
            *out++ = digits[bits >> (have - 6) & 63];
    }
    if (have)
        *out++ = digits[bits << (6 - have) & 63];
    *out = '\0';
}

/* Draws id, salt and secret; the secret has room for 64 bytes. */
static enum rc draw(struct key_set *k, struct auth_spec *s, char *ret_secret, struct err *err)
{
    unsigned char random[SECRET_BYTES], id[AUTH_ID_CHARS / 2];
    do {
        if (getrandom(id, sizeof id, 0) != (ssize_t)sizeof id ||
            getrandom(s->salt, sizeof s->salt, 0) != (ssize_t)sizeof s->salt ||
            getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
            return err_sys(err, RC_IO, "the system gave no random bytes");
        for (size_t i = 0; i < sizeof id; i++)
            snprintf(s->id + 2 * i, 3, "%02x", id[i]);
    } while (find_key(k, str_from(s->id)));
    int n = snprintf(ret_secret, 64, "arr_%s_", s->id);
    put_base64url(random, sizeof random, ret_secret + n);
    OPENSSL_cleanse(random, sizeof random);
    s->salted = true;
    s->source = KEYRING_SOURCE;
    if (!auth_digest((struct str){(const char *)s->salt, sizeof s->salt}, str_from(ret_secret), s->hash))
        return err_set(err, RC_INTERNAL, "the crypto library has no SHA-256");
    return RC_OK;
}

static enum rc make_key(struct key_set *k, yyjson_val *wish, int64_t now_ms, struct auth_spec *ret_spec,
                        char *ret_secret, struct err *err)
{
    struct auth_spec s;
    enum rc rc = keyring_wish(wish, now_ms, k, &s, err);
    if (rc != RC_OK)
        return rc;
    if (find_key(k, str_from(s.name))) {
        rc = err_set(err, RC_EXISTS, "there is a key named %s", s.name);
        err_hint(err, "choose another name, or revoke that one first: arriero key revoke %s", s.name);
        return rc;
    }
    if (k->n >= AUTH_KEYS_MAX)
        return err_set(err, RC_LIMIT, "there are %u keys, which is the limit", AUTH_KEYS_MAX);
    *ret_spec = s;
    return draw(k, ret_spec, ret_secret, err);
}

static void put_view(const struct auth_spec *s, const char *secret, struct buf *out)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = keyring_view(doc, s);
    yyjson_mut_doc_set_root(doc, o);
    if (secret)
        yyjson_mut_obj_add_str(doc, o, "key", secret);
    if (json_write(doc, false, out, NULL) != RC_OK)
        out->failed = true;
    yyjson_mut_doc_free(doc);
}

enum rc keyring_add(const char *path, yyjson_val *wish, int64_t now_ms, struct buf *out, struct err *err)
{
    struct key_set k = {0};
    struct auth_spec made = {0};
    char secret[64] = "";
    int lock = -1;
    enum rc rc = lock_file(path, &lock, err);
    if (rc != RC_OK)
        return rc;
    rc = keyring_read(path, &k, err);
    if (rc == RC_OK)
        rc = make_key(&k, wish, now_ms, &made, secret, err);
    if (rc == RC_OK) {
        struct auth_spec *all = arena_array(&k.arena, k.n + 1, sizeof *all);
        if (all) {
            if (k.n)
                memcpy(all, k.specs, k.n * sizeof *all);
            all[k.n++] = made;
            k.specs = all;
            rc = write_file(path, &k, err);
        } else {
            rc = err_set(err, RC_NOMEM, "no memory for the keys");
        }
    }
    if (rc == RC_OK)
        put_view(&made, secret, out);
    OPENSSL_cleanse(secret, sizeof secret);
    key_set_release(&k);
    close(lock);
    return rc;
}

/* A file that somebody edited may have the id more than once. */
static void drop(struct key_set *k, const struct auth_spec *which)
{
    size_t n = 0;
    for (size_t i = 0; i < k->n; i++)
        if (strcmp(k->specs[i].id, which->id) != 0)
            k->specs[n++] = k->specs[i];
    k->n = n;
}

enum rc keyring_revoke(const char *path, struct str which, struct buf *out, struct err *err)
{
    struct key_set k = {0};
    int lock = -1;
    enum rc rc = lock_file(path, &lock, err);
    if (rc != RC_OK)
        return rc;
    rc = keyring_read(path, &k, err);
    struct auth_spec *gone = rc == RC_OK ? find_key(&k, which) : NULL;
    if (rc == RC_OK && !gone) {
        rc = err_set(err, RC_NOT_FOUND, "there is no key \"%.*s\" in %s", which.n < 80 ? (int)which.n : 80,
                     which.p, path);
        err_hint(err, "arriero key list shows ids and names; a key of api_keys_file goes with its line");
    }
    if (gone) {
        struct auth_spec was = *gone;
        drop(&k, &was);
        rc = write_file(path, &k, err);
        if (rc == RC_OK)
            put_view(&was, NULL, out);
    }
    key_set_release(&k);
    close(lock);
    return rc;
}
