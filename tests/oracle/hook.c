/* Preloaded into llama-fit-params: asks for what llama-server would ask for, gives devices the sizes of the
 * case, and writes the exact bytes behind the table that the tool prints in MiB. One line a buffer type:
 *
 *     NAME MODEL CONTEXT COMPUTE
 *
 * Told by the environment: ORACLE_OUT (file), ORACLE_SIZES (RPC0:24000,RPC1:8000 in MiB), ORACLE_OUTPUTS
 * (rows of logits), ORACLE_UNIFIED=1, ORACLE_EMBEDDING=1.
 *
 * Relies on the interface of llama.cpp 0.7.0 (llama.h) and on the layout of libstdc++'s std::map: its header
 * node follows the comparator, a node is colour, parent, left, right, then the pair. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* struct llama_context_params, as far as its fields are set here; the rest only has to have its size and
 * place. */
struct context_params {
    uint32_t n_ctx, n_batch, n_ubatch, n_seq_max, n_rs_seq, n_outputs_max, n_outputs_max_per_seq;
    int32_t n_threads, n_threads_batch;
    int32_t kinds[5]; /* context, rope scaling, pooling, attention, flash attention */
    float rope[6];
    uint32_t yarn_orig_ctx;
    float defrag_thold;
    void *cb_eval, *cb_eval_user;
    int32_t type_k, type_v;
    size_t moe_cache_size;
    void *abort_callback, *abort_callback_data;
    bool embeddings, offload_kqv, no_perf, op_offload, swa_full, kv_unified;
    void *samplers;
    size_t n_samplers;
    void *ctx_other;
};

struct node {
    int colour;
    struct node *parent, *left, *right;
    void *buffer_type;
    size_t model, context, compute;
};
struct map {
    char comparator[8];
    struct node header;
};

static void *next(const char *name)
{
    void *f = dlsym(RTLD_NEXT, name);
    if (!f) {
        fprintf(stderr, "oracle hook: %s is missing\n", name);
        abort();
    }
    return f;
}

void *llama_init_from_model(void *model, struct context_params p);
void *llama_init_from_model(void *model, struct context_params p)
{
    void *(*real)(void *, struct context_params);
    *(void **)&real = next("llama_init_from_model");
    const char *outputs = getenv("ORACLE_OUTPUTS");
    if (outputs)
        p.n_outputs_max = (uint32_t)strtoul(outputs, NULL, 10);
    if (getenv("ORACLE_UNIFIED"))
        p.kv_unified = true;
    if (getenv("ORACLE_EMBEDDING"))
        p.embeddings = true;
    return real(model, p);
}

void ggml_backend_dev_memory(void *device, size_t *ret_free, size_t *ret_total);
void ggml_backend_dev_memory(void *device, size_t *ret_free, size_t *ret_total)
{
    void (*real)(void *, size_t *, size_t *);
    const char *(*name_of)(void *);
    *(void **)&real = next("ggml_backend_dev_memory");
    *(void **)&name_of = next("ggml_backend_dev_name");
    real(device, ret_free, ret_total);
    const char *sizes = getenv("ORACLE_SIZES"), *name = name_of(device);
    for (size_t n = strlen(name); sizes; sizes = strchr(sizes, ',') ? strchr(sizes, ',') + 1 : NULL)
        if (!strncmp(sizes, name, n) && sizes[n] == ':')
            *ret_free = *ret_total = (size_t)strtoull(sizes + n + 1, NULL, 10) << 20;
}

static void dump(FILE *out, const struct node *n)
{
    const char *(*name_of)(void *);
    *(void **)&name_of = next("ggml_backend_buft_name");
    if (!n)
        return;
    dump(out, n->left);
    fprintf(out, "%s %zu %zu %zu\n", name_of(n->buffer_type), n->model, n->context, n->compute);
    dump(out, n->right);
}

/* Returns std::map<buffer type, {model, context, compute}> by value: the caller passes where to put it. */
void *oracle_breakdown(void *ret,
                       const void *context) __asm__("_Z26llama_get_memory_breakdownPK13llama_context");
void *oracle_breakdown(void *ret, const void *context)
{
    void *(*real)(void *, const void *);
    *(void **)&real = next("_Z26llama_get_memory_breakdownPK13llama_context");
    real(ret, context);
    const char *path = getenv("ORACLE_OUT");
    FILE *out = path ? fopen(path, "we") : NULL;
    if (out) {
        dump(out, ((const struct map *)ret)->header.parent);
        fclose(out);
    }
    return ret;
}
