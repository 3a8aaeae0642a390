/* The format: what is accepted, and every way in which a file can lie. All from memory. */
#include "gguf/model_priv.h"
#include "writer.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* Opens what the writer describes; cut bytes are missing at the end. */
static enum rc open_writer(struct writer *w, uint64_t cut, struct model **ret_model, struct err *err)
{
    struct buf bytes = {0};
    struct gguf_source src;
    uint64_t total;
    writer_finish(w, &bytes, &total);
    while (bytes.n < total)
        writer_raw(&bytes, "", 1);
    gguf_source_memory(bytes.data, bytes.n - (size_t)cut, &src);
    enum rc rc = model_from_source(&src, "/models/test.gguf", ret_model, err);
    buf_release(&bytes);
    return rc;
}

static void refused(struct writer *w, enum rc expected, const char *part_of_message)
{
    struct model *m = NULL;
    struct err err = {0};
    enum rc rc = open_writer(w, 0, &m, &err);
    assert_int_equal(rc, expected);
    assert_null(m);
    assert_int_equal(err.code, expected);
    if (!strstr(err.message, part_of_message))
        fail_msg("\"%s\" is not in \"%s\"", part_of_message, err.message);
    assert_non_null(strstr(err.message, "/models/test.gguf"));
    writer_release(w);
}

static void accepted(struct writer *w)
{
    struct model *m = NULL;
    struct err err = {0};
    if (open_writer(w, 0, &m, &err))
        fail_msg("%s", err.message);
    model_unref(m);
    writer_release(w);
}

static struct writer plain(void)
{
    struct writer w;
    writer_init(&w);
    writer_llama(&w, 2);
    return w;
}

static void test_versions(void **state)
{
    (void)state;
    static const struct {
        uint32_t version;
        enum rc rc;
        const char *message;
    } rows[] = {
        {1, RC_UNSUPPORTED, "version 1"},           {4, RC_UNSUPPORTED, "version 4"},
        {0, RC_UNSUPPORTED, "version 0"},           {0x03000000, RC_UNSUPPORTED, "byte order"},
        {0x02000000, RC_UNSUPPORTED, "byte order"},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        struct writer w = plain();
        w.version = rows[i].version;
        refused(&w, rows[i].rc, rows[i].message);
    }
    for (uint32_t version = 2; version <= 3; version++) {
        struct writer w = plain();
        w.version = version;
        accepted(&w);
    }
}

static void test_not_gguf(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "GG", "GGML....................",
                                        "version https://git-lfs.example/spec/v1\n"};
    for (size_t i = 0; i < TABLE_COUNT(texts); i++) {
        struct gguf_source src;
        struct model *m = NULL;
        struct err err = {0};
        gguf_source_memory(texts[i], strlen(texts[i]), &src);
        assert_int_equal(model_from_source(&src, "x", &m, &err), RC_INVALID);
        assert_non_null(strstr(err.message, "not a GGUF file"));
        assert_int_equal(strstr(err.hint, "LFS") != NULL, i == 3);
    }
}

static void test_absurd_counts(void **state)
{
    (void)state;
    struct writer w = plain();
    w.n_kvs = 1ull << 60;
    refused(&w, RC_INVALID, "metadata keys");
    w = plain();
    w.n_tensors = 1ull << 61;
    refused(&w, RC_INVALID, "tensors");
    w = plain();
    w.n_tensors = UINT64_MAX;
    refused(&w, RC_INVALID, "tensors");
    w = plain();
    w.n_kvs = UINT64_MAX;
    refused(&w, RC_INVALID, "metadata keys");
    /* Credible numbers in a file that is too short are a truncation. */
    w = plain();
    w.n_tensors = 300;
    refused(&w, RC_TRUNCATED, "300 tensors");
    w = plain();
    w.n_kvs += 1;
    refused(&w, RC_TRUNCATED, "");
}

static void test_bounds_on_counts(void **state)
{
    (void)state;
    struct writer w = plain();
    struct buf big = {0};
    /* Enough bytes for the claim, but more than the reader takes. */
    for (size_t i = 0; i < (size_t)GGUF_MAX_KEYS * 16; i++)
        writer_raw(&big, "", 1);
    writer_array(&w, "padding", GGUF_U8, big.n, big.data, big.n);
    w.n_kvs = GGUF_MAX_KEYS + 1;
    refused(&w, RC_LIMIT, "metadata keys");
    buf_release(&big);
}

static void test_truncated_everywhere(void **state)
{
    (void)state;
    struct writer w = plain();
    struct buf bytes = {0};
    uint64_t total;
    float scores[4] = {1, 2, 3, 4};
    writer_tokens(&w, 20);
    writer_array(&w, "scores", GGUF_F32, 4, scores, sizeof scores);
    writer_tensor(&w, "blk.0.attn_q.weight", GGML_F32, 8, 2);
    writer_tensor(&w, "blk.1.attn_q.weight", GGML_F32, 8, 2);
    writer_finish(&w, &bytes, &total);
    while (bytes.n < total)
        writer_raw(&bytes, "", 1);
    for (size_t n = 0; n < bytes.n; n++) {
        struct gguf_source src;
        struct model *m = NULL;
        struct err err = {0};
        /* A copy of the exact size, so that a read behind the end is seen by the sanitizer. */
        auto_free char *copy = mem_strndup(bytes.data, n);
        gguf_source_memory(copy, n, &src);
        enum rc rc = model_from_source(&src, "x", &m, &err);
        if (rc != RC_TRUNCATED && !(rc == RC_INVALID && n < 4))
            fail_msg("%zu of %zu bytes: %s", n, bytes.n, rc_word(rc));
    }
    struct model *m = NULL;
    struct err err = {0};
    assert_int_equal(open_writer(&w, 0, &m, &err), RC_OK);
    model_unref(m);
    buf_release(&bytes);
    writer_release(&w);
}

/* The last tensor's padding may be missing. */
static void test_final_padding(void **state)
{
    (void)state;
    struct writer w = plain();
    struct model *m = NULL;
    struct err err = {0};
    writer_tensor(&w, "blk.0.attn_q.weight", GGML_F32, 9, 1); /* 36 bytes, padded to 64 */
    assert_int_equal(open_writer(&w, 28, &m, &err), RC_OK);
    assert_int_equal(m->tensor_bytes, 36);
    model_unref(m);
    m = NULL;
    assert_int_equal(open_writer(&w, 29, &m, &err), RC_TRUNCATED);
    assert_non_null(strstr(err.message, "blk.0.attn_q.weight"));
    writer_release(&w);
}

static void test_bad_strings(void **state)
{
    (void)state;
    struct writer w = plain();
    /* A string of 2^63 bytes. */
    writer_key(&w, "a.b", GGUF_STRING);
    writer_put_u64(&w.kvs, 1ull << 63);
    refused(&w, RC_TRUNCATED, "more bytes expected");
    w = plain();
    writer_key(&w, "a.b", GGUF_STRING);
    writer_put_u64(&w.kvs, UINT64_MAX);
    refused(&w, RC_TRUNCATED, "");
    /* A key with NUL, an empty key, a key of 65536 bytes. */
    w = plain();
    w.n_kvs++;
    writer_put_u64(&w.kvs, 3);
    writer_raw(&w.kvs, "a\0b", 3);
    writer_put_u32(&w.kvs, GGUF_U8);
    writer_raw(&w.kvs, "", 1);
    refused(&w, RC_INVALID, "control character");
    w = plain();
    writer_u32(&w, "k\xc3(", 1);
    refused(&w, RC_INVALID, "broken UTF-8");
    w = plain();
    writer_u32(&w, "", 1);
    refused(&w, RC_INVALID, "0 bytes");
    w = plain();
    auto_free char *longest = mem_calloc(65537, 1);
    memset(longest, 'k', 65536);
    writer_u32(&w, longest, 1);
    refused(&w, RC_INVALID, "65536 bytes");
    w = plain();
    longest[65535] = '\0';
    writer_u32(&w, longest, 1);
    accepted(&w);
}

static void test_bad_kinds(void **state)
{
    (void)state;
    struct writer w = plain();
    writer_key(&w, "x.y", 13);
    writer_put_u64(&w.kvs, 0);
    refused(&w, RC_INVALID, "unknown type 13");
    w = plain();
    writer_array(&w, "x.y", 99, 1, "\0\0\0\0", 4);
    refused(&w, RC_INVALID, "unknown type 99");
    w = plain();
    writer_array(&w, "x.y", GGUF_ARRAY, 1, "\0\0\0\0\0\0\0\0\0\0\0\0", 12);
    refused(&w, RC_INVALID, "array of arrays");
}

static void test_bad_arrays(void **state)
{
    (void)state;
    static const uint64_t counts[] = {UINT64_MAX, 1ull << 61, 1ull << 62, 1ull << 32, 1000};
    static const uint32_t kinds[] = {GGUF_U8, GGUF_U32, GGUF_F64, GGUF_STRING, GGUF_BOOL};
    for (size_t i = 0; i < TABLE_COUNT(counts); i++) {
        for (size_t k = 0; k < TABLE_COUNT(kinds); k++) {
            struct writer w = plain();
            struct model *m = NULL;
            struct err err = {0};
            writer_array(&w, "x.y", kinds[k], counts[i], "", 0);
            enum rc rc = open_writer(&w, 0, &m, &err);
            assert_true(rc == RC_TRUNCATED || rc == RC_INVALID);
            writer_release(&w);
        }
    }
}

static void test_duplicates(void **state)
{
    (void)state;
    struct writer w = plain();
    writer_u32(&w, "llama.block_count", 2);
    refused(&w, RC_INVALID, "llama.block_count is there twice");
    w = plain();
    writer_tensor(&w, "blk.0.attn_q.weight", GGML_F32, 8, 1);
    writer_tensor(&w, "blk.0.attn_q.weight", GGML_F32, 8, 1);
    refused(&w, RC_INVALID, "blk.0.attn_q.weight is there twice");
}

static void test_alignment(void **state)
{
    (void)state;
    static const uint32_t bad[] = {0, 3, 48, 1u << 21, 1u << 31, UINT32_MAX};
    for (size_t i = 0; i < TABLE_COUNT(bad); i++) {
        struct writer w = plain();
        writer_u32(&w, "general.alignment", bad[i]);
        refused(&w, RC_INVALID, "general.alignment");
    }
    struct writer w = plain();
    writer_str(&w, "general.alignment", "32");
    refused(&w, RC_INVALID, "general.alignment");
    static const uint32_t good[] = {1, 8, 64, 4096};
    for (size_t i = 0; i < TABLE_COUNT(good); i++) {
        w = plain();
        w.alignment = good[i];
        writer_u32(&w, "general.alignment", good[i]);
        writer_tensor(&w, "blk.0.attn_q.weight", GGML_F32, 9, 1);
        writer_tensor(&w, "blk.1.attn_q.weight", GGML_F32, 9, 1);
        accepted(&w);
    }
}

static void test_bad_tensors(void **state)
{
    (void)state;
    static const struct {
        uint32_t n_dims;
        uint64_t ne[5];
        uint32_t type;
        uint64_t offset;
        enum rc rc;
        const char *message;
    } rows[] = {
        {5, {8, 1, 1, 1, 1}, GGML_F32, 0, RC_INVALID, "5 dimensions"},
        {1, {0}, GGML_F32, 0, RC_INVALID, "dimension 0 of tensor t is zero"},
        {2, {8, 0}, GGML_F32, 0, RC_INVALID, "dimension 1 of tensor t is zero"},
        {2, {1ull << 32, 1ull << 31}, GGML_F32, 0, RC_INVALID, "63 bits"},
        {4, {1ull << 32, 1ull << 32, 1ull << 32, 1ull << 32}, GGML_F32, 0, RC_INVALID, "63 bits"},
        {2, {1ull << 31, 1ull << 31}, GGML_F64, 0, RC_INVALID, "63 bits"},
        {1, {UINT64_MAX}, GGML_F32, 0, RC_INVALID, "63 bits"},
        {1, {100}, GGML_Q4_0, 0, RC_INVALID, "block of 32"},
        {1, {8}, 4, 0, RC_UNSUPPORTED, "type 4"},
        {1, {8}, 43, 0, RC_UNSUPPORTED, "type 43"},
        {1, {8}, UINT32_MAX, 0, RC_UNSUPPORTED, "type 4294967295"},
        {1, {8}, GGML_F32, 32, RC_INVALID, "offset 32"},
        {1, {8}, GGML_F32, UINT64_MAX - 31, RC_INVALID, "offset 18446744073709551584"},
        {1, {1ull << 50}, GGML_F32, 0, RC_TRUNCATED, "needs the file to have"},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        struct writer w = plain();
        writer_tensor_raw(&w, "t", rows[i].n_dims, rows[i].ne, rows[i].type, rows[i].offset);
        refused(&w, rows[i].rc, rows[i].message);
    }
}

static void test_sum_of_sizes_overflows(void **state)
{
    (void)state;
    struct writer w = plain();
    uint64_t ne = 1ull << 60, offset = 0;
    for (unsigned i = 0; i < 5; i++) {
        char name[8];
        snprintf(name, sizeof name, "t%u", i);
        writer_tensor_raw(&w, name, 1, &ne, GGML_F32, offset);
        offset += ne * 4;
    }
    /* The first one is already past the file's end; the check must not wrap before it says so. */
    struct model *m = NULL;
    struct err err = {0};
    enum rc rc = open_writer(&w, 0, &m, &err);
    assert_true(rc == RC_TRUNCATED || rc == RC_INVALID);
    writer_release(&w);
}

static void test_tensor_names(void **state)
{
    (void)state;
    char name[80];
    memset(name, 'n', sizeof name);
    name[64] = '\0';
    struct writer w = plain();
    writer_tensor(&w, name, GGML_F32, 8, 1);
    refused(&w, RC_INVALID, "64 bytes");
    name[63] = '\0';
    w = plain();
    writer_tensor(&w, name, GGML_F32, 8, 1);
    accepted(&w);
    w = plain();
    writer_tensor(&w, "", GGML_F32, 8, 1);
    refused(&w, RC_INVALID, "name of a tensor");
    w = plain();
    writer_tensor(&w, "a\033[31m", GGML_F32, 8, 1);
    refused(&w, RC_INVALID, "control character");
}

static void test_overlap(void **state)
{
    (void)state;
    struct writer w = plain();
    uint64_t ne = 8;
    writer_tensor_raw(&w, "a", 1, &ne, GGML_F32, 0);
    writer_tensor_raw(&w, "b", 1, &ne, GGML_F32, 0);
    w.offset = 64;
    refused(&w, RC_INVALID, "tensor b is at offset 0");
}

/* Keys that together would take more memory than the bound: many arrays just short enough to be kept. */
static void test_memory_bomb(void **state)
{
    (void)state;
    struct writer w = plain();
    auto_free char *zeros = mem_calloc(GGUF_MAX_KEPT_ARRAY, 8);
    for (unsigned i = 0; i < 2100; i++) {
        char key[16];
        snprintf(key, sizeof key, "bomb.%u", i);
        writer_array(&w, key, GGUF_U64, GGUF_MAX_KEPT_ARRAY, zeros, (size_t)GGUF_MAX_KEPT_ARRAY * 8);
    }
    refused(&w, RC_LIMIT, "MiB of memory");
}

static void test_vocabulary_takes_no_memory(void **state)
{
    (void)state;
    struct writer w = plain();
    struct model *m = NULL;
    struct err err = {0};
    auto_free char *template = mem_calloc(100001, 1);
    memset(template, '{', 100000);
    writer_tokens(&w, 150000);
    writer_str(&w, "tokenizer.chat_template", template);
    assert_int_equal(open_writer(&w, 0, &m, &err), RC_OK);
    assert_int_equal(m->n_vocab, 150000);
    assert_true(m->has_chat_template);
    assert_true(m->priv->arena.used_bytes < 8192);
    model_unref(m);
    writer_release(&w);
}

/* A source that is shorter than it was when it was opened, at every length. */
struct shrunk {
    struct gguf_source base;
    size_t real;
    int fail_errno;
};

static ssize_t read_shrunk(const struct gguf_source *src, void *out, size_t n, uint64_t offset)
{
    const struct shrunk *s = container_of(src, struct shrunk, base);
    if (s->fail_errno) {
        errno = s->fail_errno;
        return -1;
    }
    if (offset >= s->real)
        return 0;
    n = n < s->real - offset ? n : (size_t)(s->real - offset);
    memcpy(out, (const char *)s->base.memory + offset, n);
    return (ssize_t)n;
}

static void test_shrinking_file(void **state)
{
    (void)state;
    struct writer w = plain();
    struct buf bytes = {0};
    uint64_t total;
    writer_tokens(&w, 50);
    writer_tensor(&w, "blk.0.attn_q.weight", GGML_F32, 8, 1);
    writer_finish(&w, &bytes, &total);
    size_t table_end = 24 + w.kvs.n + w.infos.n;
    struct shrunk s = {.base = {.read_at = read_shrunk, .size = total, .memory = bytes.data, .fd = -1}};
    for (s.real = 0; s.real < table_end; s.real++) {
        struct model *m = NULL;
        struct err err = {0};
        assert_int_equal(model_from_source(&s.base, "x", &m, &err), RC_TRUNCATED);
        assert_null(m);
    }
    struct model *m = NULL;
    struct err err = {0};
    s.real = 0;
    s.fail_errno = EIO;
    assert_int_equal(model_from_source(&s.base, "x", &m, &err), RC_IO);
    assert_int_equal(err.sys_errno, EIO);
    buf_release(&bytes);
    writer_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_not_gguf),
        cmocka_unit_test(test_absurd_counts),
        cmocka_unit_test(test_bounds_on_counts),
        cmocka_unit_test(test_truncated_everywhere),
        cmocka_unit_test(test_final_padding),
        cmocka_unit_test(test_bad_strings),
        cmocka_unit_test(test_bad_kinds),
        cmocka_unit_test(test_bad_arrays),
        cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_bad_tensors),
        cmocka_unit_test(test_sum_of_sizes_overflows),
        cmocka_unit_test(test_tensor_names),
        cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_memory_bomb),
        cmocka_unit_test(test_vocabulary_takes_no_memory),
        cmocka_unit_test(test_shrinking_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
