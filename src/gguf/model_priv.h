/* What the files of gguf/ share about a struct model. Private to the folder. */
#ifndef GGUF_MODEL_PRIV_H
#define GGUF_MODEL_PRIV_H

#include "gguf/index.h"
#include "gguf/model.h"
#include "gguf/reader.h"

#include <stdatomic.h>

#define GGML_TYPE_LIMIT  64u /* above every id of types.def */
#define MODEL_MAX_LAYERS 4096u
#define MODEL_MAX_MEMORY                                                                                     \
    (64ull * MIB) /* kept for one model over all its files; real ones take under 1 MiB                       \
                   */

struct model_file {
    const char *path;
    uint64_t size, dev, ino;
    int64_t mtime_ns;
};

struct model_priv {
    atomic_uint refs;
    struct arena arena;        /* everything but struct model itself and this */
    const struct gguf_kv *kvs; /* of part 1 */
    uint32_t n_kvs;
    struct name_index keys;         /* over kvs */
    struct name_index tensors;      /* over model.tensors */
    const struct model_file *files; /* model.n_files of them */
};

/* A model from one source, which must not be a part of a split model. path is only its name. */
enum rc model_from_source(const struct gguf_source *src, const char *path, struct model **ret_model,
                          struct err *err);

/* classify.c: layer ("blk.N.", "enc.blk.N.", "dec.blk.N."; -1 if outside the blocks or N >= n_layer) and
 * class. */
void tensor_classify(struct str name, uint32_t n_layer, int32_t *ret_layer, enum tensor_class *ret_class);

/* metadata.c: the kept key, or NULL. */
const struct gguf_kv *model_kv(const struct model *m, struct str key);
/* Element i of a kept number or array as an unsigned integer; false if it is none, or negative. */
bool gguf_kv_u64(const struct gguf_kv *kv, uint64_t i, uint64_t *ret_value);
bool gguf_kv_f64(const struct gguf_kv *kv, uint64_t i, double *ret_value);

/* split.c: cuts "NAME-00002-of-00005.gguf" into "NAME" (length of the prefix of path), 1 and 5. */
bool split_name_parse(const char *path, size_t *ret_prefix, uint32_t *ret_no, uint32_t *ret_count);

/* text.c: a copy for people and JSON: valid UTF-8 without control characters; malloc'd. */
char *text_clean(struct str raw);
bool text_is_clean(struct str raw);
/* Messages hold paths, and go into JSON. err may be NULL. */
void text_clean_err(struct err *err);

#endif
