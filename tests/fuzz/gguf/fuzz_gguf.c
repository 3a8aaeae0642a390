/* Opens the input as a GGUF file. What is accepted must then keep every promise of model.h. */
#include "gguf/model_priv.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void check_tensors(const struct model *m, uint64_t size)
{
    uint64_t total = 0, by_class = 0, by_layer = 0, inside = 0;
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const struct tensor *t = &m->tensors[i];
        must(model_tensor(m, t->name) == t);
        must(strlen(t->name) < 64 && t->n_dims <= 4 && t->file == 0 && t->cls < TENSOR_CLASSES);
        must(t->layer >= -1 && (t->layer < 0 || (uint32_t)t->layer < m->n_layer));
        must(ggml_type_info(t->type) != NULL);
        must(t->offset <= size && t->bytes <= size - t->offset);
        for (unsigned d = 0; d < 4; d++)
            must(t->ne[d] > 0);
        total += t->bytes;
        inside += t->layer >= 0 ? t->bytes : 0;
    }
    for (unsigned c = 0; c < TENSOR_CLASSES; c++)
        by_class += m->class_bytes[c];
    for (uint32_t i = 0; i < m->n_layer; i++)
        by_layer += m->layers[i].total_bytes;
    must(total == m->tensor_bytes && by_class == total && by_layer == inside && total <= size);
}

static void check_keys(const struct model *m)
{
    for (uint32_t i = 0; i < m->priv->n_kvs; i++) {
        const struct gguf_kv *kv = &m->priv->kvs[i];
        uint64_t u, n;
        double f;
        struct str s;
        must(model_kv(m, kv->key) == kv);
        must(strlen(kv->key.p) == kv->key.n);
        if (model_key_u64(m, kv->key.p, &u))
            must(!kv->array && kv->kind != GGUF_STRING);
        if (model_key_f64(m, kv->key.p, &f))
            must(!kv->array && f == f);
        if (model_key_str(m, kv->key.p, &s))
            must(kv->kind == GGUF_STRING && s.n <= GGUF_MAX_KEPT_STRING && s.p[s.n] == '\0');
        must(model_key_array_n(m, kv->key.p, &n) == kv->array);
        if (kv->array && kv->n)
            gguf_kv_u64(kv, kv->n - 1, &u);
        must(!gguf_kv_u64(kv, kv->n, &u) || kv->kind == GGUF_STRING);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf_source src;
    struct model *m = NULL;
    struct err err = {0};
    gguf_source_memory(data, size, &src);
    enum rc rc = model_from_source(&src, "fuzz.gguf", &m, &err);
    must((rc == RC_OK) == (m != NULL));
    if (rc) {
        must(rc == err.code && err.message[0]);
        must(rc == RC_INVALID || rc == RC_TRUNCATED || rc == RC_UNSUPPORTED || rc == RC_LIMIT);
        return 0;
    }
    must(*m->architecture && m->quantization && m->name && m->n_files == 1 && m->file_bytes == size);
    must(m->priv->arena.used_bytes <= MODEL_MAX_MEMORY);
    check_tensors(m, size);
    check_keys(m);
    model_unref(m);
    return 0;
}
