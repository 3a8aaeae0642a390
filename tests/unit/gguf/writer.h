/* Writes GGUF files for the tests: correct by default, wrong where a test asks for it. */
#ifndef TEST_GGUF_WRITER_H
#define TEST_GGUF_WRITER_H

#include "base/buf.h"
#include "gguf/reader.h"

#include <stdint.h>

struct writer {
    uint32_t version;
    uint32_t alignment;        /* of the layout; the key is written by writer_u32 */
    uint64_t n_kvs, n_tensors; /* what the header claims */
    struct buf kvs, infos;
    uint64_t offset; /* of the next tensor */
};

void writer_init(struct writer *w);
void writer_release(struct writer *w);
/* general.architecture, block_count, context_length, embedding_length and a name. */
void writer_llama(struct writer *w, uint32_t layers);

void writer_raw(struct buf *b, const void *p, size_t n);
void writer_put_u32(struct buf *b, uint32_t v);
void writer_put_u64(struct buf *b, uint64_t v);
void writer_put_str(struct buf *b, const char *s);
/* The key and the type of a value that the caller appends to w->kvs. */
void writer_key(struct writer *w, const char *key, uint32_t kind);
void writer_u32(struct writer *w, const char *key, uint32_t v);
void writer_number(struct writer *w, const char *key, uint32_t kind, const void *le, size_t n);
void writer_str(struct writer *w, const char *key, const char *v);
void writer_array(struct writer *w, const char *key, uint32_t kind, uint64_t n, const void *le, size_t bytes);
void writer_tokens(struct writer *w, uint32_t n);
/* At the next offset. */
void writer_tensor(struct writer *w, const char *name, uint32_t type, uint64_t ne0, uint64_t ne1);
/* With nothing computed but the place in the table. */
void writer_tensor_raw(struct writer *w, const char *name, uint32_t n_dims, const uint64_t *ne, uint32_t type,
                       uint64_t offset);

/* Header and padding; *ret_total is the size with the tensors' data. The writer can be used further. */
void writer_finish(const struct writer *w, struct buf *out, uint64_t *ret_total);
/* Writes the file; the data is a hole. */
void writer_save(const struct writer *w, const char *path);

/* A fresh directory under the system's temporary one; to be freed. test_remove deletes it with all in it. */
char *test_dir(void);
void test_remove(const char *dir);
/* dir/name, to be freed; folders in between are made. */
char *test_path(const char *dir, const char *name);
void test_text(const char *path, const char *text);

#endif
