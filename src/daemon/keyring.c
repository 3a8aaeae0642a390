/* The text of the file of keys: see keyring.h. Layer daemon; pure. What a key may consist of is one table;
 * reading the file, reading a wish, writing and showing all walk over it. */
#include "daemon/keyring.h"

#include "base/clock.h"
#include "base/hex.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define VERSION    1
#define NAME_BYTES 64
#define MODELS_MAX 4096

enum kind { ID, HEX, TEXT, PATTERNS, SCOPES, U32, I32, BOOL, TIME, DURATION, DATE };
enum { IN_FILE = 1, IN_WISH = 2, IN_VIEW = 4, EVERYWHERE = 7 };

static const struct member {
    const char *name;
    enum kind kind;
    unsigned where;
    size_t offset, bytes; /* bytes of HEX */
} members[] = {
    {"id", ID, IN_FILE | IN_VIEW, offsetof(struct auth_spec, id), 0},
    {"name", TEXT, EVERYWHERE, offsetof(struct auth_spec, name), 0},
    {"salt", HEX, IN_FILE, offsetof(struct auth_spec, salt), AUTH_SALT_BYTES},
    {"hash", HEX, IN_FILE, offsetof(struct auth_spec, hash), AUTH_HASH_BYTES},
    {"scopes", SCOPES, EVERYWHERE, offsetof(struct auth_spec, scopes), 0},
    {"models", PATTERNS, EVERYWHERE, offsetof(struct auth_spec, models), 0},
    {"requests_per_minute", U32, EVERYWHERE, offsetof(struct auth_spec, requests_per_minute), 0},
    {"tokens_per_minute", U32, EVERYWHERE, offsetof(struct auth_spec, tokens_per_minute), 0},
    {"concurrency", U32, EVERYWHERE, offsetof(struct auth_spec, concurrency), 0},
    {"priority", I32, EVERYWHERE, offsetof(struct auth_spec, priority), 0},
    {"captures", BOOL, EVERYWHERE, offsetof(struct auth_spec, captures), 0},
    {"created_ms", TIME, IN_FILE, offsetof(struct auth_spec, created_ms), 0},
    {"expires_ms", TIME, IN_FILE, offsetof(struct auth_spec, expires_ms), 0},
    {"created_at", DATE, IN_VIEW, offsetof(struct auth_spec, created_ms), 0},
    {"expires_at", DATE, IN_WISH | IN_VIEW, offsetof(struct auth_spec, expires_ms), 0},
    {"expires_in", DURATION, IN_WISH, offsetof(struct auth_spec, expires_ms), 0},
};

static const struct {
    enum auth_scope scope;
    const char *word;
} scopes[] = {{AUTH_INFER, "infer"}, {AUTH_ADMIN, "admin"}};

void key_set_release(struct key_set *k)
{
    arena_release(&k->arena);
    *k = (struct key_set){0};
}

/* ---- reading members ---- */

struct reading {
    struct key_set *set; /* whose arena takes the texts */
    int64_t now_ms;
    struct err *err;
};

static enum rc wrong(const struct reading *r, const struct member *m, const char *want)
{
    return err_set(r->err, RC_INVALID, "\"%s\" is not %s", m->name, want);
}

/* Digests are written with small letters, and read only so. */
static int digest_digit(char c)
{
    return c >= 'A' && c <= 'F' ? -1 : hex_digit(c);
}

static bool read_hex(struct str s, unsigned char *out, size_t n)
{
    bool fine = s.n == 2 * n;
    for (size_t i = 0; fine && i < n; i++) {
        int hi = digest_digit(s.p[2 * i]), lo = digest_digit(s.p[2 * i + 1]);
        fine = hi >= 0 && lo >= 0;
        out[i] = (unsigned char)((unsigned)hi << 4 | ((unsigned)lo & 15));
    }
    return fine;
}

static bool is_plain(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
            return false;
    return true;
}

static enum rc read_text(const struct reading *r, const struct member *m, struct str s, const char **field)
{
    if (s.n > NAME_BYTES || !is_plain(s))
        return wrong(r, m, "a text of at most 64 bytes without control characters");
    *field = arena_strndup(&r->set->arena, s.p, s.n);
    return *field ? RC_OK : err_set(r->err, RC_NOMEM, "no memory for the keys");
}

static enum rc read_patterns(const struct reading *r, const struct member *m, yyjson_val *v,
                             const char **field)
{
    size_t i, n;
    yyjson_val *one;
    struct buf all = {.max = MODELS_MAX};
    bool fine = yyjson_is_arr(v);
    yyjson_arr_foreach(v, i, n, one)
    {
        struct str s = {yyjson_get_str(one), yyjson_get_len(one)};
        fine = fine && yyjson_is_str(one) && s.n && is_plain(s) && !memchr(s.p, ',', s.n);
        if (fine && all.n)
            buf_puts(&all, ",");
        if (fine)
            buf_put_str(&all, s);
    }
    fine = fine && !all.failed;
    if (fine)
        *field = arena_strndup(&r->set->arena, all.n ? all.data : "", all.n);
    buf_release(&all);
    if (!fine)
        return wrong(r, m, "a list of names or patterns such as \"qwen*\", of 4 KiB at most");
    return *field ? RC_OK : err_set(r->err, RC_NOMEM, "no memory for the keys");
}

static enum rc read_scopes(const struct reading *r, const struct member *m, yyjson_val *v, unsigned *field)
{
    size_t i, n;
    yyjson_val *one;
    unsigned all = 0;
    bool fine = yyjson_is_arr(v);
    yyjson_arr_foreach(v, i, n, one)
    {
        unsigned bit = 0;
        for (size_t k = 0; k < TABLE_COUNT(scopes); k++)
            if (yyjson_equals_str(one, scopes[k].word))
                bit = scopes[k].scope;
        fine = fine && bit;
        all |= bit;
    }
    if (!fine || !all)
        return wrong(r, m, "a list of infer, admin");
    *field = all;
    return RC_OK;
}

/* 2027-01-31 or 2027-01-31T12:00:00Z, in UTC. */
static bool read_date(struct str s, int64_t *ret_ms)
{
    char text[40];
    struct tm tm = {0};
    snprintf(text, sizeof text, "%.*s", s.n < sizeof text ? (int)s.n : 0, s.n ? s.p : "");
    const char *end = strptime(text, "%Y-%m-%d", &tm);
    if (end && *end == 'T') {
        end = strptime(end, "T%H:%M:%S", &tm);
        if (end && *end == '.')
            end += 1 + strspn(end + 1, "0123456789");
        end = end && *end == 'Z' ? end + 1 : NULL;
    }
    time_t t = end && !*end ? timegm(&tm) : -1;
    if (t <= 0)
        return false;
    *ret_ms = (int64_t)t * 1000;
    return true;
}

static enum rc read_value(const struct reading *r, const struct member *m, yyjson_val *v, void *field)
{
    struct str s = {yyjson_is_str(v) ? yyjson_get_str(v) : "", yyjson_is_str(v) ? yyjson_get_len(v) : 0};
    unsigned char id[AUTH_ID_CHARS / 2];
    uint64_t ms = 0;
    switch (m->kind) {
    case ID:
        if (!read_hex(s, id, sizeof id))
            return wrong(r, m, "eight hexadecimal digits");
        memcpy(field, s.p, s.n);
        return RC_OK;
    case HEX: return read_hex(s, field, m->bytes) ? RC_OK : wrong(r, m, "hexadecimal digits of its length");
    case TEXT: return yyjson_is_str(v) ? read_text(r, m, s, field) : wrong(r, m, "a text");
    case PATTERNS: return read_patterns(r, m, v, field);
    case SCOPES: return read_scopes(r, m, v, field);
    case U32:
        if (!yyjson_is_uint(v) || yyjson_get_uint(v) > LIMIT_MAX_PER_MINUTE)
            return wrong(r, m, "a whole number up to 1000000000");
        *(uint32_t *)field = (uint32_t)yyjson_get_uint(v);
        return RC_OK;
    case I32:
        if (!yyjson_is_int(v) || yyjson_get_sint(v) < -1000 || yyjson_get_sint(v) > 1000)
            return wrong(r, m, "a whole number from -1000 to 1000");
        *(int32_t *)field = (int32_t)yyjson_get_sint(v);
        return RC_OK;
    case BOOL:
        if (!yyjson_is_bool(v))
            return wrong(r, m, "true or false");
        *(bool *)field = yyjson_get_bool(v);
        return RC_OK;
    case TIME:
        if (!yyjson_is_uint(v) || yyjson_get_uint(v) > INT64_MAX)
            return wrong(r, m, "a time in milliseconds");
        *(int64_t *)field = (int64_t)yyjson_get_uint(v);
        return RC_OK;
    case DURATION:
        if (!str_duration_ms(s, &ms) || !ms)
            return wrong(r, m, "a duration such as 30d or 12h");
        *(int64_t *)field = r->now_ms + (int64_t)ms;
        return RC_OK;
    case DATE:
        if (!read_date(s, field) || *(int64_t *)field <= r->now_ms)
            return wrong(r, m, "a date to come, such as 2027-01-31");
        return RC_OK;
    }
    return err_set(r->err, RC_INTERNAL, "\"%s\" has no kind", m->name);
}

static const struct member *find_member(struct str name, unsigned where)
{
    for (size_t i = 0; i < TABLE_COUNT(members); i++)
        if (members[i].where & where && str_eq_c(name, members[i].name))
            return &members[i];
    return NULL;
}

/* Every member of the object, each once. ret_seen: bit i for members[i]. */
static enum rc read_key(const struct reading *r, yyjson_val *obj, unsigned where, struct auth_spec *ret_spec,
                        unsigned *ret_seen)
{
    size_t i, n;
    yyjson_val *key, *v;
    unsigned seen = 0;
    if (!yyjson_is_obj(obj))
        return err_set(r->err, RC_INVALID, "a key is not an object");
    yyjson_obj_foreach(obj, i, n, key, v)
    {
        struct str name = {yyjson_get_str(key), yyjson_get_len(key)};
        const struct member *m = find_member(name, where);
        unsigned bit = m ? 1u << (m - members) : 0;
        if (!m || seen & bit)
            return err_set(r->err, RC_INVALID, "\"%.*s\" is %s", name.n < 64 ? (int)name.n : 64, name.p,
                           m ? "given twice" : "not part of a key");
        enum rc rc = read_value(r, m, v, (char *)ret_spec + m->offset);
        if (rc != RC_OK)
            return rc;
        seen |= bit;
    }
    *ret_seen = seen;
    return RC_OK;
}

enum rc keyring_wish(yyjson_val *wish, int64_t now_ms, struct key_set *k, struct auth_spec *ret_spec,
                     struct err *err)
{
    struct auth_spec s = {.scopes = AUTH_INFER, .models = "", .created_ms = now_ms};
    const struct reading r = {.set = k, .now_ms = now_ms, .err = err};
    unsigned seen = 0;
    enum rc rc = read_key(&r, wish, IN_WISH, &s, &seen);
    if (rc != RC_OK)
        return rc;
    if (!s.name || !*s.name) {
        rc = err_set(err, RC_INVALID, "the key has no name");
        err_hint(err, "name it after who will use it: arriero key add NAME");
        return rc;
    }
    *ret_spec = s;
    return RC_OK;
}

/* ---- the file ---- */

static enum rc read_keys(const struct reading *r, yyjson_val *list)
{
    struct key_set *k = r->set;
    size_t i, n;
    yyjson_val *one;
    k->specs = arena_array(&k->arena, yyjson_arr_size(list) + 1, sizeof *k->specs);
    if (!k->specs)
        return err_set(r->err, RC_NOMEM, "no memory for the keys");
    yyjson_arr_foreach(list, i, n, one)
    {
        unsigned seen = 0, need = 0;
        struct auth_spec *s = &k->specs[i];
        enum rc rc = read_key(r, one, IN_FILE, s, &seen);
        for (size_t m = 0; m < TABLE_COUNT(members); m++)
            if (members[m].kind == ID || members[m].kind == HEX || members[m].kind == SCOPES)
                need |= 1u << m;
        if (rc == RC_OK && (seen & need) != need)
            rc = err_set(r->err, RC_INVALID, "id, salt, hash or scopes are missing");
        if (rc != RC_OK) {
            err_prefix(r->err, "key number %zu", i + 1);
            return rc;
        }
        s->salted = true;
        s->source = KEYRING_SOURCE;
        k->n = i + 1;
    }
    return RC_OK;
}

enum rc keyring_parse(struct str text, const char *name, struct key_set *ret_keys, struct err *err)
{
    struct key_set k = {.found = true};
    struct reading r = {.set = &k, .err = err};
    yyjson_doc *doc = NULL;
    enum rc rc = json_parse(text, name, &doc, err);
    if (rc != RC_OK)
        return rc;
    yyjson_val *root = yyjson_doc_get_root(doc), *list = yyjson_obj_get(root, "keys");
    uint64_t version = json_u64(root, "version", 0);
    if (version > VERSION)
        rc = err_set(err, RC_UNSUPPORTED, "it was written by a newer version");
    else if (version != VERSION || !yyjson_is_arr(list) || yyjson_obj_size(root) != 2)
        rc = err_set(err, RC_INVALID, "it is not a file of keys");
    else if (yyjson_arr_size(list) > AUTH_KEYS_MAX)
        rc = err_set(err, RC_LIMIT, "it has more than %u keys", AUTH_KEYS_MAX);
    else
        rc = read_keys(&r, list);
    yyjson_doc_free(doc);
    if (rc != RC_OK) {
        key_set_release(&k);
        err_prefix(err, "%s", name);
        err_hint(err, "arriero key writes this file; restore it from a copy, or remove it and make new keys");
        return rc;
    }
    *ret_keys = k;
    return RC_OK;
}

/* ---- writing ---- */

static yyjson_mut_val *hex_value(yyjson_mut_doc *doc, const unsigned char *p, size_t n)
{
    char text[2 * AUTH_HASH_BYTES];
    for (size_t i = 0; i < n; i++) {
        text[2 * i] = "0123456789abcdef"[p[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[p[i] & 15];
    }
    return yyjson_mut_strncpy(doc, text, 2 * n);
}

static yyjson_mut_val *member_value(yyjson_mut_doc *doc, const struct member *m, const void *field)
{
    char at[40];
    yyjson_mut_val *list = NULL;
    switch (m->kind) {
    case ID: return yyjson_mut_strcpy(doc, field);
    case HEX: return hex_value(doc, field, m->bytes);
    case TEXT: return yyjson_mut_strcpy(doc, *(const char *const *)field ? *(const char *const *)field : "");
    case PATTERNS:
        list = yyjson_mut_arr(doc);
        for (struct str rest = str_from(*(const char *const *)field); rest.n;) {
            struct str one = str_cut(&rest, ',');
            yyjson_mut_arr_add_strncpy(doc, list, one.p, one.n);
        }
        return list;
    case SCOPES:
        list = yyjson_mut_arr(doc);
        for (size_t i = 0; i < TABLE_COUNT(scopes); i++)
            if (*(const unsigned *)field & scopes[i].scope)
                yyjson_mut_arr_add_str(doc, list, scopes[i].word);
        return list;
    case U32: return yyjson_mut_uint(doc, *(const uint32_t *)field);
    case I32: return yyjson_mut_sint(doc, *(const int32_t *)field);
    case BOOL: return yyjson_mut_bool(doc, *(const bool *)field);
    case TIME: return yyjson_mut_uint(doc, (uint64_t) * (const int64_t *)field);
    case DATE:
        if (*(const int64_t *)field == 0)
            return yyjson_mut_null(doc);
        return yyjson_mut_strcpy(doc, clock_rfc3339(*(const int64_t *)field, at, sizeof at));
    case DURATION: break;
    }
    return yyjson_mut_null(doc);
}

static yyjson_mut_val *key_object(yyjson_mut_doc *doc, const struct auth_spec *k, unsigned where)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    for (size_t i = 0; i < TABLE_COUNT(members); i++)
        if (members[i].where & where)
            yyjson_mut_obj_add_val(doc, o, members[i].name,
                                   member_value(doc, &members[i], (const char *)k + members[i].offset));
    return o;
}

yyjson_mut_val *keyring_view(yyjson_mut_doc *doc, const struct auth_spec *k)
{
    yyjson_mut_val *o = key_object(doc, k, IN_VIEW);
    yyjson_mut_obj_add_str(doc, o, "source", k->source ? k->source : "");
    return o;
}

void keyring_print(const struct key_set *k, struct buf *out)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc), *list = yyjson_mut_arr(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_uint(doc, root, "version", VERSION);
    yyjson_mut_obj_add_val(doc, root, "keys", list);
    for (size_t i = 0; i < k->n; i++)
        yyjson_mut_arr_append(list, key_object(doc, &k->specs[i], IN_FILE));
    if (json_write(doc, true, out, NULL) != RC_OK)
        out->failed = true;
    yyjson_mut_doc_free(doc);
}
