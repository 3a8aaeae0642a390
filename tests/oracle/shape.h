/* Shapes of public models: true dimensions, and the tensors their architecture has, so that llama.cpp loads
 * the file. Tests only.
 *
 * shapes.def has one row a model; a builder (shapes_*.c) writes what its family needs. `has` lists the
 * deviations of the plain transformer builder; other builders read the fields they know. */
#ifndef ORACLE_SHAPE_H
#define ORACLE_SHAPE_H

#include "gguf_write.h"

/* Quantisation mixes, with llama-quantize's rules for which tensor keeps more bits (quant.c). */
enum mix {
    MIX_F16,
    MIX_BF16,
    MIX_Q8_0,
    MIX_Q4_K_M,
    MIX_Q5_K_M,
    MIX_Q6_K,
    MIX_Q4_0,
    MIX_IQ4_XS,
    MIX_Q3_K_M,
    MIX_MXFP4
};
/* Kinds of tokenizer: only size and loader matter. */
enum tok { TOK_BPE, TOK_SPM, TOK_BERT, TOK_T5, TOK_RWKV };

enum shape_has {
    HAS_LAYER_NORM = 1 << 0,   /* layer_norm_epsilon in place of the RMS key */
    HAS_NORM_BIAS = 1 << 1,    /* norms have biases */
    HAS_QKV = 1 << 2,          /* one fused matrix */
    HAS_QKV_BIAS = 1 << 3,     /* … or the three, with biases */
    HAS_O_BIAS = 1 << 4,       /* attn_output.bias */
    HAS_FFN_BIAS = 1 << 5,     /* ffn_up.bias, ffn_down.bias */
    HAS_NO_GATE = 1 << 6,      /* up and down only */
    HAS_GATE_UP = 1 << 7,      /* ffn_up holds gate and up */
    HAS_QK_NORM = 1 << 8,      /* norms of one head's width */
    HAS_QK_NORM_WIDE = 1 << 9, /* norms over all heads */
    HAS_POST_NORMS = 1 << 10,  /* post_attention_norm, post_ffw_norm */
    HAS_NO_FFN_NORM = 1 << 11, /* attention and ffn in parallel, or normed by post_attention_norm */
    HAS_NO_ATTN_NORM = 1 << 12,
    HAS_POST_ATTN_NORM = 1 << 13, /* stands where ffn_norm would */
    HAS_POSITIONS = 1 << 14,      /* position_embd */
    HAS_EMBD_NORM = 1 << 15,      /* token_embd_norm */
    HAS_SINKS = 1 << 16,
    HAS_FREQS = 1 << 17, /* rope_freqs */
    HAS_OUT_BIAS = 1 << 18,
    HAS_PROBS_B = 1 << 19, /* exp_probs_b */
    HAS_SHARED_GATE = 1 << 20,
    HAS_EXPERT_BIAS = 1 << 21,
    HAS_ATTN_NORM_2 = 1 << 22,
    HAS_ATTN_OUT_NORM = 1 << 23,
    HAS_TIED = 1 << 24, /* no output.weight */
    HAS_NO_ROPE_KEYS = 1 << 25,
    HAS_FACTORS = 1 << 26,        /* rope_factors_long, rope_factors_short */
    HAS_RANK = 1 << 27,           /* a classifier that ranks: cls, cls.output */
    HAS_LAYER_OUT_NORM = 1 << 28, /* layer_output_norm */
    HAS_DENSE_TOO = 1 << 29,      /* a dense block beside the experts */
    HAS_ATTN_GATE = 1 << 30,      /* attn_gate, a value each */
};
#define HAS_GATE_HEADS      (1ull << 32) /* … a head each */
#define HAS_GATE_BIAS       (1ull << 33) /* ffn_gate.bias */
#define HAS_BARE_PROBS_B    (1ull << 35) /* exp_probs_b with no suffix */
#define HAS_BARE_POST_NORMS (1ull << 34) /* post_attention_norm, post_ffw_norm, with no suffix */

struct make;
struct shape {
    const char *name, *arch;
    void (*build)(struct make *);
    enum mix mix;
    enum tok tok;
    uint64_t has;
    uint32_t layers, embd, heads, kv, dim /* of a head; 0 = embd / heads */, ff, vocab, ctx;
    uint32_t rope;                                     /* rotated dimensions; 0 = no key */
    uint32_t window;                                   /* sliding_window */
    uint32_t experts, used, ff_exp, ff_shared, shared; /* ff_shared: width of all shared experts together */
    uint32_t lead;                                     /* leading dense layers */
    uint32_t q_lora, kv_lora, nope, dim_v;             /* latent attention */
    uint32_t conv, inner, state, dt, groups;           /* state-space layers; dt: rank or heads */
    uint32_t nextn;
    const char *pattern; /* one letter a layer, repeated: '*' attention, 'M' recurrent, '-' feed-forward */
    /* Further keys, "name=VALUE;…" without the architecture's prefix; VALUE begins with its type: u4096 f0.5
     * b1 sname */
    const char *keys;
};

/* A file being made. */
struct make {
    const struct shape *s;
    struct gguf_write w;
};

/* The table of shapes.def. */
extern const struct shape shapes[];
extern const size_t n_shapes;
const struct shape *shape_find(const char *name);

/* All keys and tensors. The caller releases ret->w. */
void shape_make(const struct shape *s, struct make *ret);
/* Writes DIR/NAME.gguf if there is none of this very content (its hash is kept beside it, NAME.hash).
 * *ret_path is the caller's; *ret_hash may be NULL. */
enum rc shape_file(const struct shape *s, const char *dir, char **ret_path, uint64_t *ret_hash,
                   struct err *err);

/* For builders. Layer -1: outside the blocks. Absent dimensions are 0. Keys get the architecture's prefix. */
void make_tensor(struct make *k, int layer, const char *name, uint64_t a, uint64_t b, uint64_t c);
void make_typed(struct make *k, int layer, const char *name, uint32_t type, uint64_t a, uint64_t b,
                uint64_t c, uint64_t d);
void make_u32(struct make *k, const char *key, uint32_t v);
void make_f32(struct make *k, const char *key, float v);
void make_bool(struct make *k, const char *key, bool v);
void make_u32s(struct make *k, const char *key, const uint32_t *v); /* one a layer */
void make_norm(struct make *k, int layer, const char *name,
               uint64_t n); /* NAME.weight, NAME.bias if HAS_NORM_BIAS */
void make_common_keys(struct make *k);
void make_head(struct make *k); /* embeddings, output norm, output */
void make_ffn(struct make *k, int layer, uint64_t ff);
void make_experts(struct make *k, int layer);
void make_attention(struct make *k, int layer);
void make_latent_attention(struct make *k, int layer);
uint32_t shape_dim(const struct shape *s);
char shape_kind(const struct shape *s, uint32_t layer); /* letter of the pattern, '*' without one */

/* The type llama-quantize would choose. */
uint32_t quant_type(const struct shape *s, int layer, const char *name, const uint64_t ne[4]);
uint32_t quant_file_type(enum mix mix);

#endif
