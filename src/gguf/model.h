/* Immutable facts of one model, read from its GGUF file or its split files. Layer gguf; a struct model is
 * read-only after model_open and may be shared by threads; model_ref/model_unref count owners atomically.
 *
 * Nothing here interprets an architecture: keys are given as they stand in the file, the planner gives them
 * meaning (plan/architectures.def). */
#ifndef GGUF_MODEL_H
#define GGUF_MODEL_H

#include "base/buf.h"
#include "base/err.h"

#include <stdint.h>

#define MODEL_MAX_FILES 512

/* ggml's type ids (the format's own numbering). */
enum ggml_type {
#define GGML_TYPE(id, name, word, block, bytes) GGML_##name = id,
#include "gguf/types.def"
#undef GGML_TYPE
};

struct ggml_type_info {
    const char *word;     /* "q4_K" */
    uint32_t block;       /* elements a block, a power of two */
    uint32_t block_bytes; /* bytes a block */
};
/* NULL for an id that is not in the table. */
const struct ggml_type_info *ggml_type_info(uint32_t type);
/* "q8_0", "f16" … (case-insensitive; also 16, 8, 4, int8, int4 as aliases of f16, q8_0, q4_0). */
bool ggml_type_from(struct str word, uint32_t *ret_type);
/* Bytes of n elements of a type: n / block × block_bytes. False if unknown, not a multiple, or overflow. */
bool ggml_row_bytes(uint32_t type, uint64_t n, uint64_t *ret_bytes);

/* What a tensor is for, by its name. */
enum tensor_class {
    TENSOR_INPUT,     /* token_embd, position_embd, token_types, per-layer token embeddings */
    TENSOR_OUTPUT,    /* output, output_norm, cls, dense_2, dense_3 */
    TENSOR_NORM,      /* norms and biases of a layer */
    TENSOR_ATTENTION, /* q, k, v, qkv, output, MLA parts, sinks */
    TENSOR_FFN,       /* dense feed-forward, shared experts */
    TENSOR_EXPERT,    /* *_exps */
    TENSOR_RECURRENT, /* ssm_*, time_mix_*, shortconv_* … */
    TENSOR_OTHER,     /* rope_freqs, anything unknown */
    TENSOR_CLASSES
};
const char *tensor_class_word(enum tensor_class cls);

struct tensor {
    const char *name; /* NUL-terminated, owned by the model */
    uint64_t ne[4];   /* elements in each dimension; 1 where there is none */
    uint64_t bytes;   /* exact data size without padding */
    uint64_t offset;  /* from the start of its file's data section */
    uint32_t type;    /* enum ggml_type */
    int32_t layer;    /* N of "blk.N.", -1 for tensors outside the blocks */
    uint16_t file;    /* index of the split file */
    uint8_t n_dims;
    uint8_t cls; /* enum tensor_class */
};

/* Bytes of the tensors of one class in one layer. */
struct model_layer {
    uint64_t bytes[TENSOR_CLASSES];
    uint64_t total_bytes;
};

struct model {
    /* identity */
    const char *path;         /* absolute; of part 1 when the model is split */
    const char *architecture; /* general.architecture */
    const char *name;         /* general.name, else the file's stem */
    const char *size_label;   /* general.size_label or "" */
    const char *quantization; /* "Q4_K_M" from general.file_type, else the type that holds most bytes */
    const char *type;         /* general.type ("model", "adapter", "mmproj"), "" if absent */
    bool has_chat_template;
    int64_t mtime_ns;
    /* sizes */
    uint32_t n_files;
    uint64_t file_bytes;   /* over all split files, as on disk */
    uint64_t tensor_bytes; /* sum of tensors[i].bytes */
    uint64_t parameters;   /* elements over all tensors */
    /* the keys that nearly every architecture has; 0 where absent */
    uint32_t n_layer;       /* {arch}.block_count; required */
    uint32_t context_train; /* {arch}.context_length */
    uint32_t n_embd;        /* {arch}.embedding_length */
    uint32_t n_vocab;       /* length of tokenizer.ggml.tokens, else {arch}.vocab_size */
    uint32_t n_expert, n_expert_used;
    /* tensors in file order; layers[0 … n_layer-1] */
    const struct tensor *tensors;
    uint32_t n_tensors;
    const struct model_layer *layers;
    uint64_t class_bytes[TENSOR_CLASSES]; /* over the whole model */
    struct model_priv *priv;
};

/* Opens and checks a model. path may be any part of a split model (part 1 is found beside it). Blocking file
 * I/O: call on the work pool or in a command.
 * Errors: RC_IO (with errno), RC_INVALID (not GGUF, hostile counts, bad offsets, missing required key),
 * RC_TRUNCATED (file shorter than its tensors), RC_UNSUPPORTED (version 1, other endianness, unknown tensor
 * type), RC_LIMIT (over the reader's bounds), RC_NOMEM. */
enum rc model_open(const char *path, struct model **ret_model, struct err *err);
struct model *model_ref(struct model *m);
void model_unref(struct model *m); /* NULL is fine; the last one frees */

/* Through the process-wide cache keyed by path, size and mtime: returns a reference. Thread-safe. */
enum rc model_open_cached(const char *path, struct model **ret_model, struct err *err);
void model_cache_clear(void);

/* Metadata. key without a dot-prefix rule: model_u64(m, "general.file_type", …) takes the full key;
 * the _arch forms put "{arch}." before it. Any integer or bool width is accepted; a number of another kind,
 * a string, or an absent key gives false. The _f64 forms take any number that is finite. Strings over 4096
 * bytes and the chat template are not kept: they give false too. */
bool model_key_u64(const struct model *m, const char *key, uint64_t *ret_value);
bool model_key_f64(const struct model *m, const char *key, double *ret_value);
bool model_key_str(const struct model *m, const char *key, struct str *ret_value);
bool model_arch_u64(const struct model *m, const char *suffix, uint64_t *ret_value);
bool model_arch_f64(const struct model *m, const char *suffix, double *ret_value);
bool model_arch_str(const struct model *m, const char *suffix, struct str *ret_value);
/* A per-layer number: element `layer` of an array, or the scalar if the key holds one. False if absent, or if
 * the array is shorter. Arrays of numbers up to 4096 elements are kept; longer ones only by their length. */
bool model_arch_layer_u64(const struct model *m, const char *suffix, uint32_t layer, uint64_t *ret_value);
/* Length of an array key; false if absent or not an array. */
bool model_key_array_n(const struct model *m, const char *key, uint64_t *ret_n);

/* The i-th key of the file, in its order, with its value; false past the end. Arrays are told by their length
 * only, and so are strings that were not kept. Borrowed from the model. */
enum model_value_kind {
    MODEL_UINT,
    MODEL_INT,
    MODEL_REAL,
    MODEL_BOOL,
    MODEL_TEXT,
    MODEL_LONG_TEXT,
    MODEL_ARRAY
};
struct model_value {
    struct str key;
    enum model_value_kind kind;
    union {
        uint64_t u; /* MODEL_UINT, MODEL_BOOL */
        int64_t i;
        double real; /* finite or not, as in the file */
        struct str text;
        uint64_t n; /* bytes of a long text, elements of an array */
    };
};
bool model_key_at(const struct model *m, uint32_t i, struct model_value *ret_value);
/* Reads a text of any length out of the file again, a chat template for one. Blocking I/O. RC_NOT_FOUND if
 * there is no such text, RC_LIMIT if it has more than max bytes, RC_TRUNCATED if the file has changed since
 * it was opened, RC_IO. The bytes are those of the file: not checked for UTF-8. */
enum rc model_read_text(const struct model *m, const char *key, size_t max, struct buf *out, struct err *err);

/* Finds a tensor by its full name (hashed); NULL if there is none. */
const struct tensor *model_tensor(const struct model *m, const char *name);

/* "Q4_K_M" for a general.file_type number; NULL when unknown. */
const char *model_file_type_word(uint64_t file_type);

#endif
