#include "gguf_write.h"

#include "gguf/model.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

/* Type ids of metadata values. */
enum { KEY_U32 = 4, KEY_I32 = 5, KEY_F32 = 6, KEY_BOOL = 7, KEY_STRING = 8, KEY_ARRAY = 9 };
#define ALIGNMENT 32u

void gguf_write_release(struct gguf_write *w)
{
    buf_release(&w->keys);
    buf_release(&w->infos);
}

static void put_u32(struct buf *b, uint32_t v)
{
    unsigned char raw[4];
    for (unsigned i = 0; i < sizeof raw; i++)
        raw[i] = (unsigned char)(v >> (8 * i));
    buf_append(b, raw, sizeof raw);
}

static void put_u64(struct buf *b, uint64_t v)
{
    put_u32(b, (uint32_t)v);
    put_u32(b, (uint32_t)(v >> 32));
}

static void put_f32(struct buf *b, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_u32(b, bits);
}

static void put_string(struct buf *b, const char *s)
{
    put_u64(b, strlen(s));
    buf_puts(b, s);
}

static void put_key(struct gguf_write *w, const char *key, uint32_t type)
{
    put_string(&w->keys, key);
    put_u32(&w->keys, type);
    w->n_keys++;
}

static void put_array(struct gguf_write *w, const char *key, uint32_t type, size_t n)
{
    put_key(w, key, KEY_ARRAY);
    put_u32(&w->keys, type);
    put_u64(&w->keys, n);
}

void gguf_write_u32(struct gguf_write *w, const char *key, uint32_t v)
{
    put_key(w, key, KEY_U32);
    put_u32(&w->keys, v);
}

void gguf_write_f32(struct gguf_write *w, const char *key, float v)
{
    put_key(w, key, KEY_F32);
    put_f32(&w->keys, v);
}

void gguf_write_bool(struct gguf_write *w, const char *key, bool v)
{
    put_key(w, key, KEY_BOOL);
    buf_append(&w->keys, v ? "\1" : "\0", 1);
}

void gguf_write_str(struct gguf_write *w, const char *key, const char *v)
{
    put_key(w, key, KEY_STRING);
    put_string(&w->keys, v);
}

/* Converters write lists of counts as signed numbers. */
void gguf_write_u32s(struct gguf_write *w, const char *key, const uint32_t *v, size_t n)
{
    put_array(w, key, KEY_I32, n);
    for (size_t i = 0; i < n; i++)
        put_u32(&w->keys, v[i]);
}

void gguf_write_f32s(struct gguf_write *w, const char *key, const float *v, size_t n)
{
    put_array(w, key, KEY_F32, n);
    for (size_t i = 0; i < n; i++)
        put_f32(&w->keys, v[i]);
}

void gguf_write_bools(struct gguf_write *w, const char *key, const bool *v, size_t n)
{
    put_array(w, key, KEY_BOOL, n);
    for (size_t i = 0; i < n; i++)
        buf_append(&w->keys, v[i] ? "\1" : "\0", 1);
}

void gguf_write_strs(struct gguf_write *w, const char *key, size_t n, void (*word)(size_t i, char *out))
{
    char out[32];
    put_array(w, key, KEY_STRING, n);
    for (size_t i = 0; i < n; i++) {
        word(i, out);
        put_string(&w->keys, out);
    }
}

void gguf_write_tensor(struct gguf_write *w, const char *name, uint32_t type, const uint64_t ne[4])
{
    uint32_t n_dims = 0;
    uint64_t n = 1, bytes = 0;
    while (n_dims < 4 && ne[n_dims])
        n *= ne[n_dims++];
    if (!n_dims || ne[0] % ggml_type_info(type)->block || !ggml_row_bytes(type, n, &bytes)) {
        fprintf(stderr, "oracle: %s cannot be stored as %s\n", name, ggml_type_info(type)->word);
        w->infos.failed = true;
        return;
    }
    put_string(&w->infos, name);
    put_u32(&w->infos, n_dims);
    for (uint32_t i = 0; i < n_dims; i++)
        put_u64(&w->infos, ne[i]);
    put_u32(&w->infos, type);
    put_u64(&w->infos, w->data_bytes);
    w->data_bytes += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    w->n_tensors++;
}

uint64_t gguf_write_hash(const struct gguf_write *w)
{
    return str_hash(buf_str(&w->infos), str_hash(buf_str(&w->keys), 0));
}

static bool write_all(int fd, struct str s)
{
    while (s.n) {
        ssize_t n = write(fd, s.p, s.n);
        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0) {
            s.p += n;
            s.n -= (size_t)n;
        }
    }
    return true;
}

static bool write_file(int fd, const struct gguf_write *w)
{
    struct buf head = {0};
    buf_puts(&head, "GGUF");
    put_u32(&head, 3);
    put_u64(&head, w->n_tensors);
    put_u64(&head, w->n_keys);
    size_t size = head.n + w->keys.n + w->infos.n;
    bool ok = write_all(fd, buf_str(&head)) && write_all(fd, buf_str(&w->keys)) &&
              write_all(fd, buf_str(&w->infos));
    buf_release(&head);
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return ok && !ftruncate(fd, (off_t)(size + w->data_bytes));
}

enum rc gguf_write_save(const struct gguf_write *w, const char *path, struct err *err)
{
    if (w->keys.failed || w->infos.failed)
        return err_set(err, RC_NOMEM, "%s could not be put together", path);
    auto_free char *tmp = mem_printf("%s.%d", path, (int)getpid());
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_sys(err, RC_IO, "%s cannot be created", tmp);
    bool ok = write_file(fd, w);
    if (close(fd) || !ok || rename(tmp, path)) {
        enum rc rc = err_sys(err, RC_IO, "%s cannot be written", path);
        unlink(tmp);
        return rc;
    }
    return RC_OK;
}
