/* Reads what precedes the tensor data of one GGUF file: metadata and tensor table, everything checked. Layer
 * gguf; blocking reads from a source; results live in the caller's arena. Knows the format, no architecture.
 *
 * Format: "GGUF", u32 version, u64 tensors, u64 keys; keys: string, u32 type, value; tensors: string, u32
 * dimensions, u64 each, u32 type, u64 offset; padding; data. A string is a u64 length and its bytes.
 *
 * Cost: 6.4 MB before the data (151,936 tokens, 151,387 merges, 579 tensors) take 2.2 ms from the page cache.
 */
#ifndef GGUF_READER_H
#define GGUF_READER_H

#include "gguf/model.h"
#include "gguf/source.h"
#include "base/mem.h"

#define GGUF_MAX_HEADER_BYTES                                                                                \
    (256ull * MIB) /* all that precedes the data; large vocabularies take 10 to 30 MB */
#define GGUF_MAX_KEYS        65536u
#define GGUF_MAX_TENSORS     262144u
#define GGUF_MAX_KEY_BYTES   65535u /* the format's own limit */
#define GGUF_MAX_KEPT_STRING 4096u  /* longer strings are known by their length only */
#define GGUF_MAX_KEPT_ARRAY  4096u  /* numbers; longer arrays are known by their length only */
#define GGUF_MAX_ALIGNMENT   (1u << 20)

/* The format's value types. */
enum gguf_kind {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_KINDS
};

struct gguf_kv {
    struct str key; /* NUL-terminated too */
    uint8_t kind;   /* enum gguf_kind: of the value, or of the elements */
    bool array;
    uint64_t n;       /* bytes of a string, elements of an array, 1 for a number */
    uint64_t at;      /* of a string: where its bytes begin in the file */
    const void *data; /* little-endian as in the file, strings NUL-terminated; NULL when it was not kept */
};

/* One file. */
struct gguf_part {
    struct gguf_kv *kvs;
    uint32_t n_kvs;
    struct tensor *tensors; /* without layer and class */
    uint32_t n_tensors;
    uint64_t alignment;
    uint64_t data_at; /* offset of the data section */
};

/* Bytes of a number of this kind; 0 for strings and arrays. */
unsigned gguf_kind_bytes(unsigned kind);
const char *gguf_kind_word(unsigned kind);

/* Errors as model_open's. Keys are not yet checked for duplicates (the index does that). */
enum rc gguf_read(const struct gguf_source *src, struct arena *arena, struct gguf_part *ret_part,
                  struct err *err);

#endif
