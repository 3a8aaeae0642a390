/* The GGUF reader: see reader.h. No count from the file is used before it was compared with the bytes that
 * are left and with a fixed bound; every product and sum is overflow-checked. */
#include "gguf/reader.h"

#include "gguf/cursor.h"
#include "gguf/model_priv.h"

#include <endian.h>
#include <string.h>

#define KV_MIN_BYTES     (8u + 1u + 4u + 1u)
#define TENSOR_MIN_BYTES (8u + 1u + 4u + 4u + 8u)
#define TENSOR_MAX_NAME  64u /* with the NUL, as in llama.cpp */

static const struct {
    const char *word;
    unsigned bytes;
} kinds[GGUF_KINDS] = {
    [GGUF_U8] = {"u8", 1},       [GGUF_I8] = {"i8", 1},     [GGUF_U16] = {"u16", 2},
    [GGUF_I16] = {"i16", 2},     [GGUF_U32] = {"u32", 4},   [GGUF_I32] = {"i32", 4},
    [GGUF_F32] = {"f32", 4},     [GGUF_BOOL] = {"bool", 1}, [GGUF_STRING] = {"string", 0},
    [GGUF_ARRAY] = {"array", 0}, [GGUF_U64] = {"u64", 8},   [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

unsigned gguf_kind_bytes(unsigned kind)
{
    return kind < GGUF_KINDS ? kinds[kind].bytes : 0;
}

const char *gguf_kind_word(unsigned kind)
{
    return kind < GGUF_KINDS ? kinds[kind].word : "unknown";
}

struct reader {
    struct cursor cur;
    struct arena *arena;
    struct gguf_part part;
    struct err *err;
};

static enum rc no_room(struct reader *r)
{
    enum rc rc = r->arena->cap_bytes && r->arena->used_bytes > r->arena->cap_bytes / 2
                     ? err_set(r->err, RC_LIMIT, "the metadata needs more than %zu MiB of memory",
                               (size_t)(r->arena->cap_bytes / MIB))
                     : err_set(r->err, RC_NOMEM, "no memory for the metadata");
    return rc;
}

/* A name (of a key or a tensor): not empty, UTF-8 without control characters, NUL-terminated copy in the
 * arena. */
static enum rc read_name(struct reader *r, const char *what, size_t max, struct str *ret_name)
{
    uint64_t n;
    const unsigned char *p;
    enum rc rc = cursor_u64(&r->cur, &n);
    if (rc)
        return rc;
    if (n == 0 || n > max)
        return err_set(r->err, RC_INVALID, "the name of %s has %llu bytes (1 to %zu are allowed)", what,
                       (unsigned long long)n, max);
    rc = cursor_peek(&r->cur, (size_t)n, &p);
    if (rc)
        return rc;
    if (!text_is_clean((struct str){(const char *)p, (size_t)n}))
        return err_set(r->err, RC_INVALID,
                       "the name of %s has a NUL, a control character or broken UTF-8 in it", what);
    char *copy = arena_strndup(r->arena, (const char *)p, (size_t)n);
    if (!copy)
        return no_room(r);
    *ret_name = (struct str){copy, (size_t)n};
    return cursor_skip(&r->cur, n);
}

static enum rc read_string_value(struct reader *r, struct gguf_kv *kv)
{
    enum rc rc = cursor_u64(&r->cur, &kv->n);
    if (rc)
        return rc;
    kv->at = r->cur.at;
    /* Templates are long and seldom asked for: where they are is enough (model_read_text). */
    if (kv->n > GGUF_MAX_KEPT_STRING || str_starts(kv->key, "tokenizer.chat_template"))
        return cursor_skip(&r->cur, kv->n);
    const unsigned char *p;
    rc = cursor_peek(&r->cur, (size_t)kv->n, &p);
    if (rc)
        return rc;
    kv->data = arena_strndup(r->arena, (const char *)p, (size_t)kv->n);
    return kv->data ? cursor_skip(&r->cur, kv->n) : no_room(r);
}

static enum rc read_numbers(struct reader *r, struct gguf_kv *kv, uint64_t keep_max)
{
    uint64_t bytes;
    if (__builtin_mul_overflow(kv->n, gguf_kind_bytes(kv->kind), &bytes))
        return err_set(r->err, RC_INVALID, "key %s claims %llu elements", kv->key.p,
                       (unsigned long long)kv->n);
    if (bytes > cursor_left(&r->cur) || kv->n > keep_max)
        return cursor_skip(&r->cur, bytes);
    void *data = arena_alloc(r->arena, (size_t)bytes);
    if (!data)
        return no_room(r);
    kv->data = data;
    return cursor_copy(&r->cur, data, (size_t)bytes);
}

static enum rc read_array(struct reader *r, struct gguf_kv *kv)
{
    uint32_t kind;
    enum rc rc = cursor_u32(&r->cur, &kind);
    if (!rc)
        rc = cursor_u64(&r->cur, &kv->n);
    if (rc)
        return rc;
    kv->array = true;
    kv->kind = (uint8_t)kind;
    if (kind == GGUF_ARRAY)
        return err_set(r->err, RC_INVALID, "key %s holds an array of arrays, which is not supported",
                       kv->key.p);
    if (kind >= GGUF_KINDS)
        return err_set(r->err, RC_INVALID, "key %s has elements of the unknown type %u", kv->key.p, kind);
    if (kind == GGUF_STRING)
        return cursor_skip_strings(&r->cur, kv->n);
    return read_numbers(r, kv, GGUF_MAX_KEPT_ARRAY);
}

static enum rc read_kv(struct reader *r, struct gguf_kv *kv)
{
    uint32_t kind;
    enum rc rc = read_name(r, "a metadata key", GGUF_MAX_KEY_BYTES, &kv->key);
    if (!rc)
        rc = cursor_u32(&r->cur, &kind);
    if (rc)
        return rc;
    if (kind >= GGUF_KINDS)
        return err_set(r->err, RC_INVALID, "key %.200s has the unknown type %u", kv->key.p, kind);
    if (kind == GGUF_ARRAY)
        return read_array(r, kv);
    kv->kind = (uint8_t)kind;
    if (kind == GGUF_STRING)
        return read_string_value(r, kv);
    kv->n = 1;
    return read_numbers(r, kv, 1);
}

/* Sizes and dimensions of a tensor whose ne and type are set. */
static enum rc size_tensor(struct reader *r, struct tensor *t)
{
    const struct ggml_type_info *info = ggml_type_info(t->type);
    if (!info) {
        enum rc rc =
            err_set(r->err, RC_UNSUPPORTED, "tensor %s has type %u, which is not known", t->name, t->type);
        err_hint(r->err, "the file was made for a newer or a modified llama.cpp, or with a format that was "
                         "dropped since: get another quantisation of the model");
        return rc;
    }
    uint64_t elements = 1;
    for (unsigned d = 0; d < 4; d++) {
        if (t->ne[d] == 0)
            return err_set(r->err, RC_INVALID, "dimension %u of tensor %s is zero", d, t->name);
        if (__builtin_mul_overflow(elements, t->ne[d], &elements) || elements > INT64_MAX)
            return err_set(r->err, RC_INVALID, "tensor %s has more elements than 63 bits can count", t->name);
    }
    if (t->ne[0] % info->block)
        return err_set(r->err, RC_INVALID,
                       "rows of tensor %s have %llu elements, no multiple of %s's block of %u", t->name,
                       (unsigned long long)t->ne[0], info->word, info->block);
    if (!ggml_row_bytes(t->type, elements, &t->bytes) || t->bytes > INT64_MAX)
        return err_set(r->err, RC_INVALID, "tensor %s has more bytes than 63 bits can count", t->name);
    return RC_OK;
}

static enum rc read_tensor(struct reader *r, struct tensor *t)
{
    struct str name;
    uint32_t n_dims = 0;
    enum rc rc = read_name(r, "a tensor", TENSOR_MAX_NAME - 1, &name);
    if (!rc)
        rc = cursor_u32(&r->cur, &n_dims);
    if (rc)
        return rc;
    t->name = name.p;
    if (n_dims > 4)
        return err_set(r->err, RC_INVALID, "tensor %s has %u dimensions (4 at most)", t->name, n_dims);
    t->n_dims = (uint8_t)n_dims;
    for (unsigned d = 0; d < 4; d++) {
        t->ne[d] = 1;
        if (d < n_dims && (rc = cursor_u64(&r->cur, &t->ne[d])))
            return rc;
    }
    if ((rc = cursor_u32(&r->cur, &t->type)) || (rc = cursor_u64(&r->cur, &t->offset)))
        return rc;
    return size_tensor(r, t);
}

/* Offsets must follow each other without gap or overlap, as llama.cpp demands, and end inside the file. */
static enum rc check_layout(struct reader *r)
{
    struct gguf_part *p = &r->part;
    uint64_t mask = p->alignment - 1, running = 0, size = r->cur.src->size;
    p->data_at = (r->cur.at + mask) & ~mask;
    for (uint32_t i = 0; i < p->n_tensors; i++) {
        const struct tensor *t = &p->tensors[i];
        uint64_t end;
        if (t->offset != running)
            return err_set(r->err, RC_INVALID,
                           "tensor %s is at offset %llu, but the one before it ends at %llu", t->name,
                           (unsigned long long)t->offset, (unsigned long long)running);
        if (__builtin_add_overflow(running, t->bytes, &end) || end > INT64_MAX - mask - p->data_at)
            return err_set(r->err, RC_INVALID, "the tensors up to %s take more bytes than 63 bits can count",
                           t->name);
        if (p->data_at + end > size) {
            enum rc rc =
                err_set(r->err, RC_TRUNCATED, "tensor %s needs the file to have %llu bytes, but it has %llu",
                        t->name, (unsigned long long)(p->data_at + end), (unsigned long long)size);
            err_hint(r->err, "the download is incomplete: fetch the file again");
            return rc;
        }
        running = (end + mask) & ~mask;
    }
    return RC_OK;
}

static enum rc read_head(struct reader *r, uint64_t *ret_tensors, uint64_t *ret_keys)
{
    const unsigned char *magic;
    uint32_t version;
    if (cursor_left(&r->cur) < 4)
        return err_set(r->err, RC_INVALID, "not a GGUF file: it has %llu bytes",
                       (unsigned long long)r->cur.src->size);
    enum rc rc = cursor_peek(&r->cur, 4, &magic);
    if (rc)
        return rc;
    if (memcmp(magic, "GGUF", 4)) {
        rc = err_set(r->err, RC_INVALID, "not a GGUF file: it does not begin with \"GGUF\"");
        err_hint(r->err, memcmp(magic, "vers", 4) ? "only GGUF models can be used"
                                                  : "this looks like a Git LFS pointer: run `git lfs pull`");
        return rc;
    }
    if ((rc = cursor_skip(&r->cur, 4)) || (rc = cursor_u32(&r->cur, &version)))
        return rc;
    if (version && !(version & 0xffff)) {
        rc = err_set(r->err, RC_UNSUPPORTED, "a GGUF file of the other byte order");
        err_hint(r->err, "convert it with gguf-py's gguf_convert_endian");
        return rc;
    }
    if (version < 2 || version > 3) {
        rc = err_set(r->err, RC_UNSUPPORTED, "GGUF version %u (2 and 3 are supported)", version);
        err_hint(r->err, version < 2 ? "convert the model again with a current llama.cpp" : "update arriero");
        return rc;
    }
    if ((rc = cursor_u64(&r->cur, ret_tensors)) || (rc = cursor_u64(&r->cur, ret_keys)))
        return rc;
    return RC_OK;
}

/* A count is refused before anything is allocated for it. */
static enum rc check_count(struct reader *r, const char *what, uint64_t n, unsigned min_bytes, uint32_t bound)
{
    uint64_t left = cursor_left(&r->cur);
    if (n > left / min_bytes) {
        enum rc rc = err_set(r->err, n > bound ? RC_INVALID : RC_TRUNCATED,
                             "the file claims %llu %s, but only %llu bytes are left in it",
                             (unsigned long long)n, what, (unsigned long long)left);
        err_hint(r->err, "the download is incomplete or the file is damaged: fetch it again");
        return rc;
    }
    if (n > bound)
        return err_set(r->err, RC_LIMIT, "the file has %llu %s (%u at most)", (unsigned long long)n, what,
                       bound);
    return RC_OK;
}

static enum rc read_alignment(struct reader *r, const struct gguf_kv *kv)
{
    uint32_t value;
    if (kv->array || kv->kind != GGUF_U32)
        return err_set(r->err, RC_INVALID, "general.alignment is a %s and not a u32",
                       kv->array ? "array" : gguf_kind_word(kv->kind));
    memcpy(&value, kv->data, sizeof value);
    value = le32toh(value);
    if (value == 0 || (value & (value - 1)) || value > GGUF_MAX_ALIGNMENT)
        return err_set(r->err, RC_INVALID, "general.alignment is %u: a power of two up to %u is needed",
                       value, GGUF_MAX_ALIGNMENT);
    r->part.alignment = value;
    return RC_OK;
}

static enum rc read_all(struct reader *r)
{
    uint64_t n_tensors, n_kvs;
    struct gguf_part *p = &r->part;
    enum rc rc = read_head(r, &n_tensors, &n_kvs);
    if (rc || (rc = check_count(r, "metadata keys", n_kvs, KV_MIN_BYTES, GGUF_MAX_KEYS)) ||
        (rc = check_count(r, "tensors", n_tensors, TENSOR_MIN_BYTES, GGUF_MAX_TENSORS)))
        return rc;
    p->kvs = arena_array(r->arena, (size_t)n_kvs, sizeof *p->kvs);
    if (!p->kvs)
        return no_room(r);
    for (; p->n_kvs < n_kvs; p->n_kvs++) {
        struct gguf_kv *kv = &p->kvs[p->n_kvs];
        rc = read_kv(r, kv);
        if (!rc && str_eq_c(kv->key, "general.alignment"))
            rc = read_alignment(r, kv);
        if (rc)
            return rc;
    }
    rc = check_count(r, "tensors", n_tensors, TENSOR_MIN_BYTES, GGUF_MAX_TENSORS);
    if (rc)
        return rc;
    p->tensors = arena_array(r->arena, (size_t)n_tensors, sizeof *p->tensors);
    if (!p->tensors)
        return no_room(r);
    for (; p->n_tensors < n_tensors; p->n_tensors++)
        if ((rc = read_tensor(r, &p->tensors[p->n_tensors])))
            return rc;
    return check_layout(r);
}

enum rc gguf_read(const struct gguf_source *src, struct arena *arena, struct gguf_part *ret_part,
                  struct err *err)
{
    struct reader r = {.arena = arena, .err = err, .part = {.alignment = 32}};
    enum rc rc = cursor_init(&r.cur, src, GGUF_MAX_HEADER_BYTES, err);
    if (!rc)
        rc = read_all(&r);
    cursor_release(&r.cur);
    if (!rc)
        *ret_part = r.part;
    return rc;
}
