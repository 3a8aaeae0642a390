/* Look-ups in a model's metadata: the model_key_ and model_arch_ functions of model.h. Layer gguf; pure. */
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
