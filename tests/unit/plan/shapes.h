/* Sparse GGUF files with the shapes of known models: header and tensor table are real, the weights are a
 * hole. Tests only. Types follow the usual Q4_K_M mix, so sizes are those of the public files. */
#ifndef TESTS_PLAN_SHAPES_H
#define TESTS_PLAN_SHAPES_H

#include "gguf/model.h"

struct shape {
    const char *arch;
    uint32_t layers, embd, heads, heads_kv, head, ff, vocab, ctx;
    bool tied, bias, rope_freqs, qk_norm, post_norms;
    uint32_t experts, used, ff_exp;
    uint32_t window;
    uint32_t ssm_inner, ssm_state, ssm_conv, ssm_rank;
    uint32_t pooling; /* 0 = no key */
    bool no_heads;    /* head_count is 0 in the keys */
    bool no_layers;   /* leave block_count out: a file that must be refused */
};

extern const struct shape shape_llama_8b, shape_llama_1b, shape_llama_70b, shape_qwen3_30b, shape_gemma2_9b,
    shape_qwen2_half, shape_mamba_2b;

/* Writes the file under $TMPDIR and opens it; the file is removed again. Aborts the test on failure. */
struct model *shape_model(const struct shape *s);
enum rc shape_try(const struct shape *s, struct model **ret_model, struct err *err);

#endif
