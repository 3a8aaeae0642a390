/* What file names say, and the search for near names. */
#include "gguf/catalog_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void test_stems(void **state)
{
    (void)state;
    static const struct {
        const char *path, *stem, *quantization;
    } rows[] = {
        {"/a/Qwen3-8B-Q4_K_M.gguf", "Qwen3-8B-Q4_K_M", "Q4_K_M"},
        {"/a/Qwen3-8B-UD-Q4_K_XL.gguf", "Qwen3-8B-UD-Q4_K_XL", "UD-Q4_K_XL"},
        {"/a/SmolLM2.Q4_1.GGUF", "SmolLM2.Q4_1", "Q4_1"},
        {"/a/m-IQ2_XXS-00001-of-00004.gguf", "m-IQ2_XXS", "IQ2_XXS"},
        {"/a/gpt-oss-20b-mxfp4.gguf", "gpt-oss-20b-mxfp4", "mxfp4"},
        {"/a/llama-7b-f16.gguf", "llama-7b-f16", "f16"},
        {"/a/m-Q8_0-imat.gguf", "m-Q8_0-imat", "Q8_0"},
        {"/a/Qwen2.gguf", "Qwen2", ""},
        {"/a/b.gguf/plain", "plain", ""},
        {"x.gguf", "x", ""},
        {"/a/bitnet-TQ1_0.gguf", "bitnet-TQ1_0", "TQ1_0"},
        {"/a/UD-Q2_K.gguf", "UD-Q2_K", "UD-Q2_K"},
        {"/a/CLOUD-Q2_K.gguf", "CLOUD-Q2_K", "Q2_K"},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        struct str stem = name_stem(rows[i].path);
        struct str quant = name_quantization(stem);
        if (!str_eq_c(stem, rows[i].stem) || !str_eq_c(quant, rows[i].quantization))
            fail_msg("%s: %.*s, %.*s", rows[i].path, STR_ARG(stem), STR_ARG(quant));
    }
}

static void test_bases(void **state)
{
    (void)state;
    static const struct {
        const char *stem, *base;
    } rows[] = {
        {"Qwen2.5-VL-7B-Q4_K_M", "qwen25vl7b"},
        {"mmproj-Qwen2.5-VL-7B-f16", "qwen25vl7b"},
        {"gemma-3-4b.mmproj", "gemma34b"},
        {"mmproj-F16", ""},
        {"", ""},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        auto_free char *base = name_base(str_from(rows[i].stem));
        assert_string_equal(base, rows[i].base);
    }
    assert_true(name_has(STR("a-MMProj-b"), "mmproj"));
    assert_false(name_has(STR("mmpro"), "mmproj"));
}

static void test_names_as_people_type_them(void **state)
{
    (void)state;
    static const struct {
        const char *typed, *id;
        enum catalog_meaning meaning;
    } rows[] = {
        {"unsloth/Qwen3-8B-GGUF:Q4_K_M", "unsloth/Qwen3-8B-GGUF:Q4_K_M", CATALOG_MEANS_QUANT},
        {"unsloth/qwen3-8b-gguf:q4_k_m", "unsloth/Qwen3-8B-GGUF:Q4_K_M", CATALOG_MEANS_QUANT},
        {"unsloth/Qwen3-8B:Q4_K_M", "unsloth/Qwen3-8B-GGUF:Q4_K_M", CATALOG_MEANS_QUANT},
        {"qwen3-8b:q4_k_m", "unsloth/Qwen3-8B-GGUF:Q4_K_M", CATALOG_MEANS_QUANT},
        {"unsloth/Qwen3-8B-GGUF:Q4_K_M", "Qwen3-8B-Q4_K_M", CATALOG_MEANS_QUANT},
        {"Qwen3-8B-UD-Q4_K_XL", "qwen3-8b:ud-q4_k_xl", CATALOG_MEANS_QUANT},
        {"qwen3 8b", "Qwen3-8B-Q4_K_M", CATALOG_MEANS_MODEL},
        {"unsloth/Qwen3-8B-GGUF", "unsloth/Qwen3-8B-GGUF:Q8_0", CATALOG_MEANS_MODEL},
        {"bartowski/Qwen3-8B-GGUF:Q4_K_M", "unsloth/Qwen3-8B-GGUF:Q4_K_M", CATALOG_MEANS_NOT},
        {"Qwen3-8B:Q5_K_M", "Qwen3-8B-Q4_K_M", CATALOG_MEANS_NOT},
        {"Qwen3-8B-Instruct", "Qwen3-8B-Q4_K_M", CATALOG_MEANS_NOT},
        {"llama3.2:1b", "llama3.2:1b", CATALOG_MEANS_MODEL},
        {"llama3.2:3b", "llama3.2:1b", CATALOG_MEANS_NOT},
        {"", "Qwen3-8B", CATALOG_MEANS_NOT},
        {"/", "Qwen3-8B", CATALOG_MEANS_NOT},
        {":", "", CATALOG_MEANS_NOT},
        {"gguf", "gguf", CATALOG_MEANS_MODEL},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++)
        if (catalog_means(str_from(rows[i].typed), str_from(rows[i].id)) != rows[i].meaning)
            fail_msg("%s and %s", rows[i].typed, rows[i].id);
    char longest[3000];
    memset(longest, 'x', sizeof longest);
    struct str x = {longest, sizeof longest};
    assert_int_equal(catalog_means(x, x), CATALOG_MEANS_NOT);
}

static void test_nearest(void **state)
{
    (void)state;
    struct catalog_entry entries[] = {
        {.id = "gemma-3-4b-it-Q4_K_M"},
        {.id = "llama3.2:1b"},
        {.id = "unsloth/Qwen3-8B-GGUF:Q4_K_M"},
        {.id = "Zephyr"},
    };
    struct catalog c = {.entries = entries, .n = TABLE_COUNT(entries)};
    const char *out[4] = {NULL};
    assert_int_equal(catalog_nearest(&c, STR("llama3.2:1"), out, 4), 1);
    assert_string_equal(out[0], "llama3.2:1b");
    assert_true(catalog_nearest(&c, STR("qwen3"), out, 4) >= 1);
    assert_string_equal(out[0], "unsloth/Qwen3-8B-GGUF:Q4_K_M");
    assert_int_equal(catalog_nearest(&c, STR("zehpyr"), out, 4), 1);
    assert_string_equal(out[0], "Zephyr");
    assert_int_equal(catalog_nearest(&c, STR("something quite different"), out, 4), 0);
    assert_int_equal(catalog_nearest(&c, STR("q4_k_m"), out, 1), 1);
    assert_int_equal(catalog_nearest(&c, STR("q4_k_m"), out, 0), 0);
    assert_int_equal(catalog_nearest(&c, STR(""), out, 4), 0);
}

static void test_inode_set(void **state)
{
    (void)state;
    struct inode_set set = {0};
    for (uint64_t i = 0; i < 5000; i++)
        assert_true(inode_set_add(&set, i % 3, i));
    for (uint64_t i = 0; i < 5000; i++)
        assert_false(inode_set_add(&set, i % 3, i));
    assert_true(inode_set_add(&set, 7, 1));
    inode_set_release(&set);
}

/* Same architecture, layers, parameters and name but for the quantisation; largest first. */
static void test_smaller(void **state)
{
    (void)state;
    struct model m[] = {
        {.path = "/a/Qwen3-8B-Q8_0.gguf", .tensor_bytes = 80},
        {.path = "/b/qwen3-8b.IQ2_XXS.gguf", .tensor_bytes = 20},
        {.path = "/a/Qwen3-8B-UD-Q4_K_XL.gguf", .tensor_bytes = 45},
        {.path = "/a/Qwen3-8B-Base-Q4_0.gguf", .tensor_bytes = 40}, /* from here on: others */
        {.path = "/a/Qwen3-8B-BF16.gguf", .tensor_bytes = 160},
        {.path = "/c/Qwen3-8B-Q8_0.gguf", .tensor_bytes = 80},
        {.path = "/c/Qwen3-8B-Q3_K.gguf", .tensor_bytes = 30},
        {.path = "/c/Qwen3-8B-Q2_K.gguf", .tensor_bytes = 25},
        {.path = "/c/Qwen3-8B-Q2_K_S.gguf", .tensor_bytes = 24},
    };
    struct catalog_entry entries[TABLE_COUNT(m) + 1] = {0}; /* the last is a file that cannot be read */
    const struct model *out[4] = {0};
    for (size_t i = 0; i < TABLE_COUNT(m); i++) {
        m[i].architecture = i == 6 ? "llama" : "qwen3";
        m[i].n_layer = i == 7 ? 35 : 36;
        m[i].parameters = i == 8 ? 7 : 8;
        entries[i].model = &m[i];
    }
    const struct catalog c = {.entries = entries, .n = TABLE_COUNT(entries)};
    assert_int_equal(catalog_smaller(&c, &m[0], out, TABLE_COUNT(out)), 2);
    assert_ptr_equal(out[0], &m[2]);
    assert_ptr_equal(out[1], &m[1]);
    assert_int_equal(catalog_smaller(&c, &m[0], out, 1), 1); /* the larger of the two, in either order */
    assert_ptr_equal(out[0], &m[2]);
    assert_int_equal(catalog_smaller(&c, &m[1], out, TABLE_COUNT(out)), 0);
    assert_int_equal(catalog_smaller(&c, &m[4], out, TABLE_COUNT(out)), 4);
    assert_int_equal(catalog_smaller(&c, &m[0], out, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smaller), cmocka_unit_test(test_stems),
        cmocka_unit_test(test_bases),   cmocka_unit_test(test_names_as_people_type_them),
        cmocka_unit_test(test_nearest), cmocka_unit_test(test_inode_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
