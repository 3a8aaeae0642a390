/* Split models: any part opens the whole, and every way in which the parts do not fit together. */
#include "gguf/model_priv.h"
#include "writer.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

struct parts {
    char *dir;
    char *paths[3];
};

static void save_part(const char *path, uint32_t no, uint32_t count, uint32_t claimed, const char *tensor)
{
    struct writer w;
    writer_init(&w);
    if (no == 0)
        writer_llama(&w, 3);
    writer_number(&w, "split.no", GGUF_U16, (uint16_t[]){(uint16_t)no}, 2);
    writer_number(&w, "split.count", GGUF_U16, (uint16_t[]){(uint16_t)count}, 2);
    writer_number(&w, "split.tensors.count", GGUF_I32, (int32_t[]){(int32_t)claimed}, 4);
    writer_tensor(&w, tensor, GGML_F32, 8, no + 1);
    writer_save(&w, path);
    writer_release(&w);
}

static const char *const tensors[] = {"blk.0.attn_q.weight", "blk.1.attn_q.weight", "blk.2.attn_q.weight"};

static int setup(void **state)
{
    struct parts *p = mem_new(struct parts);
    p->dir = test_dir();
    for (uint32_t i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "model-%05u-of-00003.gguf", i + 1);
        p->paths[i] = test_path(p->dir, name);
        save_part(p->paths[i], i, 3, 3, tensors[i]);
    }
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct parts *p = *state;
    model_cache_clear();
    test_remove(p->dir);
    for (size_t i = 0; i < 3; i++)
        free(p->paths[i]);
    free(p->dir);
    free(p);
    return 0;
}

static void refused(const char *path, enum rc expected, const char *part_of_message)
{
    struct model *m = NULL;
    struct err err = {0};
    assert_int_equal(model_open(path, &m, &err), expected);
    assert_null(m);
    if (!strstr(err.message, part_of_message))
        fail_msg("\"%s\" is not in \"%s\"", part_of_message, err.message);
}

static void test_any_part(void **state)
{
    const struct parts *p = *state;
    for (size_t i = 0; i < 3; i++) {
        struct model *m = NULL;
        struct err err = {0};
        if (model_open(p->paths[i], &m, &err))
            fail_msg("%s", err.message);
        assert_string_equal(m->path, p->paths[0]);
        assert_int_equal(m->n_files, 3);
        assert_int_equal(m->n_tensors, 3);
        assert_int_equal(m->tensor_bytes, 32 + 64 + 96);
        assert_string_equal(m->architecture, "llama");
        for (uint16_t k = 0; k < 3; k++) {
            const struct tensor *t = model_tensor(m, tensors[k]);
            assert_non_null(t);
            assert_int_equal(t->file, k);
            assert_int_equal(t->offset, 0);
            assert_int_equal(m->layers[k].total_bytes, 32u * (k + 1u));
        }
        model_unref(m);
    }
}

static void test_missing_part(void **state)
{
    const struct parts *p = *state;
    unlink(p->paths[1]);
    struct model *m = NULL;
    struct err err = {0};
    assert_int_equal(model_open(p->paths[0], &m, &err), RC_IO);
    assert_int_equal(err.sys_errno, ENOENT);
    assert_non_null(strstr(err.message, p->paths[1]));
    assert_non_null(strstr(err.hint, "3 parts"));
    unlink(p->paths[0]);
    refused(p->paths[2], RC_IO, p->paths[0]);
}

static void test_wrong_number(void **state)
{
    const struct parts *p = *state;
    save_part(p->paths[1], 2, 3, 3, tensors[1]);
    refused(p->paths[0], RC_INVALID, "not part 2 of 3");
    save_part(p->paths[1], 1, 2, 3, tensors[1]);
    refused(p->paths[0], RC_INVALID, "not part 2 of 3");
    save_part(p->paths[1], 1, 3, 3, tensors[1]);
    save_part(p->paths[0], 1, 3, 3, tensors[1]); /* part 1 says it is part 2 */
    refused(p->paths[0], RC_INVALID, "part 2 of 3 where part 1 was expected");
    save_part(p->paths[0], 3, 3, 3, tensors[1]);
    refused(p->paths[0], RC_INVALID, "split.no");
}

static void test_wrong_sum(void **state)
{
    const struct parts *p = *state;
    save_part(p->paths[0], 0, 3, 4, tensors[0]);
    refused(p->paths[0], RC_INVALID, "split.tensors.count is 4");
}

static void test_duplicate_over_parts(void **state)
{
    const struct parts *p = *state;
    save_part(p->paths[2], 2, 3, 3, tensors[0]);
    refused(p->paths[0], RC_INVALID, "is there twice");
}

static void test_truncated_part(void **state)
{
    const struct parts *p = *state;
    assert_int_equal(truncate(p->paths[2], 100), 0);
    refused(p->paths[0], RC_TRUNCATED, "part 3 of 3");
}

static void test_renamed(void **state)
{
    const struct parts *p = *state;
    auto_free char *other = test_path(p->dir, "renamed.gguf");
    assert_int_equal(rename(p->paths[0], other), 0);
    refused(other, RC_INVALID, "does not say which");
}

static void test_cache_follows_every_part(void **state)
{
    const struct parts *p = *state;
    struct model *a = NULL, *b = NULL;
    assert_int_equal(model_open_cached(p->paths[0], &a, NULL), RC_OK);
    assert_int_equal(model_open_cached(p->paths[0], &b, NULL), RC_OK);
    assert_ptr_equal(a, b);
    model_unref(b);
    save_part(p->paths[2], 2, 3, 3, "blk.2.attn_k.weight");
    assert_int_equal(model_open_cached(p->paths[0], &b, NULL), RC_OK);
    assert_ptr_not_equal(a, b);
    assert_non_null(model_tensor(b, "blk.2.attn_k.weight"));
    model_unref(a);
    model_unref(b);
}

static void test_names(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        bool split;
        uint32_t no, count;
    } rows[] = {
        {"/a/m-00001-of-00003.gguf", true, 0, 3},
        {"m-00003-of-00003.gguf", true, 2, 3},
        {"m-00004-of-00003.gguf", false, 0, 0},
        {"m-00000-of-00003.gguf", false, 0, 0},
        {"-00001-of-00003.gguf", false, 0, 0},
        {"m-0001-of-00003.gguf", false, 0, 0},
        {"m-00001-of-0000x.gguf", false, 0, 0},
        {"m.gguf", false, 0, 0},
        {"m_00001-of-00003.gguf", false, 0, 0},
        {"m-00001_of_00003.gguf", false, 0, 0},
        {"", false, 0, 0},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        size_t prefix;
        uint32_t no = 0, count = 0;
        assert_int_equal(split_name_parse(rows[i].path, &prefix, &no, &count), rows[i].split);
        assert_int_equal(no, rows[i].no);
        assert_int_equal(count, rows[i].count);
    }
}

#define SPLIT_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SPLIT_TEST(test_any_part),
        SPLIT_TEST(test_missing_part),
        SPLIT_TEST(test_wrong_number),
        SPLIT_TEST(test_wrong_sum),
        SPLIT_TEST(test_duplicate_over_parts),
        SPLIT_TEST(test_truncated_part),
        SPLIT_TEST(test_renamed),
        SPLIT_TEST(test_cache_follows_every_part),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
