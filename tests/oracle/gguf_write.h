/* Writes sparse GGUF files: real metadata, a real tensor table, and a hole where the weights would be, so
 * that a 40 GB model costs a few MB of disk. Tests only; one thread.
 *
 * Format: version 3, little-endian, alignment 32; every tensor starts at the padded sum of those before it.
 * Failures (memory) are sticky and reported by gguf_write_save. */
#ifndef ORACLE_GGUF_WRITE_H
#define ORACLE_GGUF_WRITE_H

#include "base/buf.h"
#include "base/err.h"

struct gguf_write {
    struct buf keys, infos;
    uint64_t n_keys, n_tensors;
    uint64_t data_bytes; /* padded sum so far */
};

void gguf_write_release(struct gguf_write *w);

void gguf_write_u32(struct gguf_write *w, const char *key, uint32_t v);
void gguf_write_f32(struct gguf_write *w, const char *key, float v);
void gguf_write_bool(struct gguf_write *w, const char *key, bool v);
void gguf_write_str(struct gguf_write *w, const char *key, const char *v);
void gguf_write_u32s(struct gguf_write *w, const char *key, const uint32_t *v, size_t n);
void gguf_write_f32s(struct gguf_write *w, const char *key, const float *v, size_t n);
void gguf_write_bools(struct gguf_write *w, const char *key, const bool *v, size_t n);
/* An array of n strings: word(i, out, 32) writes the NUL-terminated i-th. */
void gguf_write_strs(struct gguf_write *w, const char *key, size_t n, void (*word)(size_t i, char *out));

/* Dimensions that are 0 are absent; type is an enum ggml_type whose block divides the first dimension. */
void gguf_write_tensor(struct gguf_write *w, const char *name, uint32_t type, const uint64_t ne[4]);

/* Hash of everything that would be written: changes when any key, name, dimension or type does. */
uint64_t gguf_write_hash(const struct gguf_write *w);
/* Writes a temporary beside path and renames it. Errors: RC_IO, RC_NOMEM. */
enum rc gguf_write_save(const struct gguf_write *w, const char *path, struct err *err);

#endif
