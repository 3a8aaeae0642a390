/* See writer.h. */
#include "writer.h"

#include "base/mem.h"
#include "os/file.h"

#include <endian.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    abort();
}

void writer_init(struct writer *w)
{
    *w = (struct writer){.version = 3, .alignment = 32};
}

void writer_release(struct writer *w)
{
    buf_release(&w->kvs);
    buf_release(&w->infos);
}

void writer_raw(struct buf *b, const void *p, size_t n)
{
    buf_append(b, p, n);
}

void writer_put_u32(struct buf *b, uint32_t v)
{
    v = htole32(v);
    buf_append(b, &v, sizeof v);
}

void writer_put_u64(struct buf *b, uint64_t v)
{
    v = htole64(v);
    buf_append(b, &v, sizeof v);
}

void writer_put_str(struct buf *b, const char *s)
{
    writer_put_u64(b, strlen(s));
    buf_puts(b, s);
}

void writer_key(struct writer *w, const char *key, uint32_t kind)
{
    w->n_kvs++;
    writer_put_str(&w->kvs, key);
    writer_put_u32(&w->kvs, kind);
}

void writer_u32(struct writer *w, const char *key, uint32_t v)
{
    writer_key(w, key, GGUF_U32);
    writer_put_u32(&w->kvs, v);
}

void writer_number(struct writer *w, const char *key, uint32_t kind, const void *le, size_t n)
{
    writer_key(w, key, kind);
    writer_raw(&w->kvs, le, n);
}

void writer_str(struct writer *w, const char *key, const char *v)
{
    writer_key(w, key, GGUF_STRING);
    writer_put_str(&w->kvs, v);
}

void writer_array(struct writer *w, const char *key, uint32_t kind, uint64_t n, const void *le, size_t bytes)
{
    writer_key(w, key, GGUF_ARRAY);
    writer_put_u32(&w->kvs, kind);
    writer_put_u64(&w->kvs, n);
    writer_raw(&w->kvs, le, bytes);
}

void writer_tokens(struct writer *w, uint32_t n)
{
    writer_array(w, "tokenizer.ggml.tokens", GGUF_STRING, n, "", 0);
    for (uint32_t i = 0; i < n; i++) {
        char word[16];
        snprintf(word, sizeof word, "t%u", i);
        writer_put_str(&w->kvs, word);
    }
}

void writer_llama(struct writer *w, uint32_t layers)
{
    writer_str(w, "general.architecture", "llama");
    writer_str(w, "general.name", "Test Llama");
    writer_u32(w, "llama.block_count", layers);
    writer_u32(w, "llama.context_length", 4096);
    writer_u32(w, "llama.embedding_length", 64);
}

void writer_tensor_raw(struct writer *w, const char *name, uint32_t n_dims, const uint64_t *ne, uint32_t type,
                       uint64_t offset)
{
    w->n_tensors++;
    writer_put_str(&w->infos, name);
    writer_put_u32(&w->infos, n_dims);
    for (uint32_t d = 0; d < n_dims; d++)
        writer_put_u64(&w->infos, ne[d]);
    writer_put_u32(&w->infos, type);
    writer_put_u64(&w->infos, offset);
}

static uint64_t padded(uint64_t n, uint64_t alignment)
{
    return (n + alignment - 1) / alignment * alignment;
}

void writer_tensor(struct writer *w, const char *name, uint32_t type, uint64_t ne0, uint64_t ne1)
{
    uint64_t bytes = 0, ne[] = {ne0, ne1};
    must(ggml_row_bytes(type, ne0 * ne1, &bytes), name);
    writer_tensor_raw(w, name, 2, ne, type, w->offset);
    w->offset = padded(w->offset + bytes, w->alignment);
}

void writer_finish(const struct writer *w, struct buf *out, uint64_t *ret_total)
{
    buf_puts(out, "GGUF");
    writer_put_u32(out, w->version);
    writer_put_u64(out, w->n_tensors);
    writer_put_u64(out, w->n_kvs);
    writer_raw(out, w->kvs.data, w->kvs.n);
    writer_raw(out, w->infos.data, w->infos.n);
    while (out->n % w->alignment)
        writer_raw(out, "", 1);
    *ret_total = out->n + w->offset;
}

void writer_save(const struct writer *w, const char *path)
{
    struct buf out = {0};
    uint64_t total;
    writer_finish(w, &out, &total);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    must(fd >= 0, path);
    must(write(fd, out.data, out.n) == (ssize_t)out.n && ftruncate(fd, (off_t)total) == 0, path);
    close(fd);
    buf_release(&out);
}

char *test_dir(void)
{
    const char *base = getenv("TMPDIR");
    char *dir = mem_printf("%s/arriero-gguf-XXXXXX", base ? base : "/tmp");
    must(mkdtemp(dir) != NULL, dir);
    return dir;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

void test_remove(const char *dir)
{
    must(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0, dir);
}

char *test_path(const char *dir, const char *name)
{
    char *path = mem_printf("%s/%s", dir, name);
    auto_free char *folder = mem_strdup(path);
    *strrchr(folder, '/') = '\0';
    must(file_mkdirs(folder, 0755, NULL) == RC_OK, folder);
    return path;
}

void test_text(const char *path, const char *text)
{
    must(file_write_atomic(path, str_from(text), 0644, NULL) == RC_OK, path);
}
