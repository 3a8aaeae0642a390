/* Look-ups in a model's metadata: the model_key_ and model_arch_ functions of model.h. Layer gguf; pure but
 * for model_read_text. */
#include "gguf/model_priv.h"

#include <endian.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

const struct gguf_kv *model_kv(const struct model *m, struct str key)
{
    uint32_t i;
    return name_index_find(&m->priv->keys, key, &i) ? &m->priv->kvs[i] : NULL;
}

/* The element's bytes as a little-endian number, zero-extended. */
static bool element_bits(const struct gguf_kv *kv, uint64_t i, uint64_t *ret_bits)
{
    unsigned width = gguf_kind_bytes(kv->kind);
    if (!kv->data || !width || i >= kv->n)
        return false;
    uint64_t bits = 0;
    memcpy(&bits, (const char *)kv->data + i * width, width);
    *ret_bits = le64toh(bits);
    return true;
}

bool gguf_kv_u64(const struct gguf_kv *kv, uint64_t i, uint64_t *ret_value)
{
    uint64_t bits;
    if (!element_bits(kv, i, &bits))
        return false;
    switch (kv->kind) {
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64:
        if (bits >> (gguf_kind_bytes(kv->kind) * 8 - 1))
            return false; /* negative */
        break;
    case GGUF_BOOL: bits = bits != 0; break;
    case GGUF_F32:
    case GGUF_F64: return false;
    default: break;
    }
    *ret_value = bits;
    return true;
}

bool gguf_kv_f64(const struct gguf_kv *kv, uint64_t i, double *ret_value)
{
    uint64_t bits;
    double value;
    if (!element_bits(kv, i, &bits))
        return false;
    switch (kv->kind) {
    case GGUF_F32: {
        uint32_t low = (uint32_t)bits;
        float f;
        memcpy(&f, &low, sizeof f);
        value = (double)f;
        break;
    }
    case GGUF_F64: memcpy(&value, &bits, sizeof value); break;
    case GGUF_I8: value = (int8_t)bits; break;
    case GGUF_I16: value = (int16_t)bits; break;
    case GGUF_I32: value = (int32_t)bits; break;
    case GGUF_I64: value = (double)(int64_t)bits; break;
    default: value = (double)bits; break;
    }
    if (!isfinite(value))
        return false;
    *ret_value = value;
    return true;
}

/* "{arch}.suffix" into out; false when it is too long for any key that matters. */
static bool arch_key(const struct model *m, const char *suffix, char *out, size_t cap, struct str *ret_key)
{
    int n = snprintf(out, cap, "%s.%s", m->architecture, suffix);
    if (n < 0 || (size_t)n >= cap)
        return false;
    *ret_key = (struct str){out, (size_t)n};
    return true;
}

static const struct gguf_kv *arch_kv(const struct model *m, const char *suffix)
{
    char text[256];
    struct str key;
    return arch_key(m, suffix, text, sizeof text, &key) ? model_kv(m, key) : NULL;
}

static bool string_of(const struct gguf_kv *kv, struct str *ret_value)
{
    if (!kv || kv->array || kv->kind != GGUF_STRING || !kv->data)
        return false;
    *ret_value = (struct str){kv->data, (size_t)kv->n};
    return true;
}

bool model_key_u64(const struct model *m, const char *key, uint64_t *ret_value)
{
    const struct gguf_kv *kv = model_kv(m, str_from(key));
    return kv && !kv->array && gguf_kv_u64(kv, 0, ret_value);
}

bool model_key_f64(const struct model *m, const char *key, double *ret_value)
{
    const struct gguf_kv *kv = model_kv(m, str_from(key));
    return kv && !kv->array && gguf_kv_f64(kv, 0, ret_value);
}

bool model_key_str(const struct model *m, const char *key, struct str *ret_value)
{
    return string_of(model_kv(m, str_from(key)), ret_value);
}

bool model_arch_u64(const struct model *m, const char *suffix, uint64_t *ret_value)
{
    const struct gguf_kv *kv = arch_kv(m, suffix);
    return kv && !kv->array && gguf_kv_u64(kv, 0, ret_value);
}

bool model_arch_f64(const struct model *m, const char *suffix, double *ret_value)
{
    const struct gguf_kv *kv = arch_kv(m, suffix);
    return kv && !kv->array && gguf_kv_f64(kv, 0, ret_value);
}

bool model_arch_str(const struct model *m, const char *suffix, struct str *ret_value)
{
    return string_of(arch_kv(m, suffix), ret_value);
}

bool model_arch_layer_u64(const struct model *m, const char *suffix, uint32_t layer, uint64_t *ret_value)
{
    const struct gguf_kv *kv = arch_kv(m, suffix);
    return kv && gguf_kv_u64(kv, kv->array ? layer : 0, ret_value);
}

bool model_key_array_n(const struct model *m, const char *key, uint64_t *ret_n)
{
    const struct gguf_kv *kv = model_kv(m, str_from(key));
    if (!kv || !kv->array)
        return false;
    *ret_n = kv->n;
    return true;
}

/* ---- all of it ---- */

static bool is_signed(unsigned kind)
{
    return kind == GGUF_I8 || kind == GGUF_I16 || kind == GGUF_I32 || kind == GGUF_I64;
}

static void number_of(const struct gguf_kv *kv, struct model_value *v)
{
    double real;
    if (kv->kind == GGUF_F32 || kv->kind == GGUF_F64) {
        v->kind = MODEL_REAL;
        v->real = gguf_kv_f64(kv, 0, &real) ? real : (double)NAN;
    } else if (gguf_kv_u64(kv, 0, &v->u)) {
        v->kind = kv->kind == GGUF_BOOL ? MODEL_BOOL : MODEL_UINT;
    } else {
        uint64_t bits = 0;
        v->kind = is_signed(kv->kind) ? MODEL_INT : MODEL_UINT;
        (void)element_bits(kv, 0, &bits);
        unsigned unused = 64 - gguf_kind_bytes(kv->kind) * 8;
        v->i = (int64_t)(bits << unused) >> unused;
    }
}

bool model_key_at(const struct model *m, uint32_t i, struct model_value *ret_value)
{
    if (i >= m->priv->n_kvs)
        return false;
    const struct gguf_kv *kv = &m->priv->kvs[i];
    struct model_value v = {.key = kv->key};
    if (kv->array) {
        v.kind = MODEL_ARRAY;
        v.n = kv->n;
    } else if (kv->kind != GGUF_STRING) {
        number_of(kv, &v);
    } else if (string_of(kv, &v.text)) {
        v.kind = MODEL_TEXT;
    } else {
        v.kind = MODEL_LONG_TEXT;
        v.n = kv->n;
    }
    *ret_value = v;
    return true;
}

static enum rc read_text(const struct gguf_source *src, const struct model_file *f, const struct gguf_kv *kv,
                         struct buf *out, struct err *err)
{
    if (src->size != f->size || src->mtime_ns != f->mtime_ns)
        return err_set(err, RC_TRUNCATED, "%s has changed since it was read", f->path);
    if (!buf_reserve(out, (size_t)kv->n))
        return err_set(err, RC_NOMEM, "no memory for the text %.200s", kv->key.p);
    ssize_t n = src->read_at(src, out->data + out->n, (size_t)kv->n, kv->at);
    if (n < 0)
        return err_sys(err, RC_IO, "cannot read %s", f->path);
    struct str text = {out->data + out->n, (size_t)n};
    if (text.n != kv->n)
        return err_set(err, RC_TRUNCATED, "%s has changed since it was read", f->path);
    out->n += text.n;
    out->data[out->n] = '\0';
    return RC_OK;
}

enum rc model_read_text(const struct model *m, const char *key, size_t max, struct buf *out, struct err *err)
{
    const struct gguf_kv *kv = model_kv(m, str_from(key));
    if (!kv || kv->array || kv->kind != GGUF_STRING)
        return err_set(err, RC_NOT_FOUND, "%s has no text %s", m->path, key);
    if (kv->n > max)
        return err_set(err, RC_LIMIT, "the text %s of %s has %llu bytes (%zu at most)", key, m->path,
                       (unsigned long long)kv->n, max);
    struct gguf_source src;
    enum rc rc = gguf_source_open(m->priv->files[0].path, &src, err);
    if (rc != RC_OK)
        return rc;
    rc = read_text(&src, &m->priv->files[0], kv, out, err);
    gguf_source_close(&src);
    return rc;
}
