/* The facts of a model: metadata of every kind, classes and layers, names, references, the cache. */
#include "gguf/model_priv.h"
#include "writer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static struct model *open_bytes(struct writer *w, const char *path)
{
    struct buf bytes = {0};
    struct gguf_source src;
    struct model *m = NULL;
    struct err err = {0};
    uint64_t total;
    writer_finish(w, &bytes, &total);
    while (bytes.n < total)
        writer_raw(&bytes, "", 1);
    gguf_source_memory(bytes.data, bytes.n, &src);
    if (model_from_source(&src, path, &m, &err))
        fail_msg("%s", err.message);
    buf_release(&bytes);
    writer_release(w);
    return m;
}

static void open_fails(struct writer *w, enum rc expected, const char *message)
{
    struct buf bytes = {0};
    struct gguf_source src;
    struct model *m = NULL;
    struct err err = {0};
    uint64_t total;
    writer_finish(w, &bytes, &total);
    gguf_source_memory(bytes.data, bytes.n, &src);
    assert_int_equal(model_from_source(&src, "x.gguf", &m, &err), expected);
    if (!strstr(err.message, message))
        fail_msg("\"%s\" is not in \"%s\"", message, err.message);
    buf_release(&bytes);
    writer_release(w);
}

static void test_identity(void **state)
{
    (void)state;
    struct writer w;
    writer_init(&w);
    writer_llama(&w, 3);
    writer_u32(&w, "llama.expert_count", 8);
    writer_u32(&w, "llama.expert_used_count", 2);
    writer_u32(&w, "llama.vocab_size", 77);
    writer_str(&w, "general.type", "model");
    writer_str(&w, "general.size_label", "8B");
    writer_u32(&w, "general.file_type", 15);
    writer_tensor(&w, "token_embd.weight", GGML_F16, 64, 10);
    struct model *m = open_bytes(&w, "/m/a.gguf");
    assert_string_equal(m->architecture, "llama");
    assert_string_equal(m->name, "Test Llama");
    assert_string_equal(m->type, "model");
    assert_string_equal(m->size_label, "8B");
    assert_string_equal(m->quantization, "Q4_K_M");
    assert_int_equal(m->n_layer, 3);
    assert_int_equal(m->context_train, 4096);
    assert_int_equal(m->n_embd, 64);
    assert_int_equal(m->n_expert, 8);
    assert_int_equal(m->n_expert_used, 2);
    assert_int_equal(m->n_vocab, 77);
    assert_int_equal(m->n_files, 1);
    assert_false(m->has_chat_template);
    assert_int_equal(m->parameters, 640);
    assert_int_equal(m->tensor_bytes, 1280);
    model_unref(m);
}

static void test_names_are_cleaned(void **state)
{
    (void)state;
    struct writer w;
    writer_init(&w);
    writer_str(&w, "general.architecture", "llama");
    writer_u32(&w, "llama.block_count", 1);
    writer_str(&w, "general.name",
               "a\033[2Jb\xff"
               "c\xc3\xa9\xc2\x9b\xed\xa0\x80");
    struct model *m = open_bytes(&w, "/m/a.gguf");
    assert_string_equal(m->name, "a?[2Jb?c\xc3\xa9?????");
    model_unref(m);

    writer_init(&w);
    writer_str(&w, "general.architecture", "llama");
    writer_u32(&w, "llama.block_count", 1);
    m = open_bytes(&w, "/m/Some-Model.gguf");
    assert_string_equal(m->name, "Some-Model");
    model_unref(m);
}

static void test_quantization_of_tensors(void **state)
{
    (void)state;
    static const struct {
        uint32_t file_type;
        const char *word;
    } rows[] = {{1024 + 7, "Q8_0"}, {38, "MXFP4_MOE"}, {4, "Q4_K"}, {999, "Q4_K"}, {5000, "Q4_K"}};
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        struct writer w;
        writer_init(&w);
        writer_llama(&w, 1);
        writer_u32(&w, "general.file_type", rows[i].file_type);
        writer_tensor(&w, "output.weight", GGML_Q6_K, 256, 1);
        writer_tensor(&w, "blk.0.ffn_up.weight", GGML_Q4_K, 256, 4);
        struct model *m = open_bytes(&w, "/m/a.gguf");
        assert_string_equal(m->quantization, rows[i].word);
        model_unref(m);
    }
    assert_null(model_file_type_word(6));
    assert_null(model_file_type_word(UINT64_MAX));
    assert_string_equal(model_file_type_word(0), "F32");
    assert_string_equal(model_file_type_word(1024), "F32");
}

static void test_required_keys(void **state)
{
    (void)state;
    struct writer w;
    writer_init(&w);
    writer_u32(&w, "llama.block_count", 1);
    open_fails(&w, RC_INVALID, "general.architecture");
    writer_init(&w);
    writer_u32(&w, "general.architecture", 1);
    open_fails(&w, RC_INVALID, "general.architecture");
    writer_init(&w);
    writer_str(&w, "general.architecture", "../llama");
    open_fails(&w, RC_INVALID, "general.architecture");
    writer_init(&w);
    writer_str(&w, "general.architecture", "llama");
    open_fails(&w, RC_INVALID, "llama.block_count is missing");
    writer_init(&w);
    writer_str(&w, "general.architecture", "llama");
    writer_str(&w, "llama.block_count", "32");
    open_fails(&w, RC_INVALID, "llama.block_count is no whole number");
    writer_init(&w);
    writer_llama(&w, MODEL_MAX_LAYERS + 1);
    open_fails(&w, RC_LIMIT, "llama.block_count");
    writer_init(&w);
    writer_llama(&w, UINT32_MAX);
    open_fails(&w, RC_LIMIT, "llama.block_count");
    /* Projectors and adapters have no blocks. */
    writer_init(&w);
    writer_str(&w, "general.architecture", "clip");
    model_unref(open_bytes(&w, "/m/mmproj.gguf"));
    writer_init(&w);
    writer_str(&w, "general.architecture", "llama");
    writer_str(&w, "general.type", "adapter");
    model_unref(open_bytes(&w, "/m/lora.gguf"));
}

static void test_split_in_memory(void **state)
{
    (void)state;
    struct writer w;
    writer_init(&w);
    writer_llama(&w, 1);
    writer_u32(&w, "split.count", 2);
    writer_u32(&w, "split.no", 0);
    open_fails(&w, RC_INVALID, "one of 2 parts");
    writer_init(&w);
    writer_llama(&w, 1);
    writer_u32(&w, "split.count", 60000);
    open_fails(&w, RC_LIMIT, "split.count");
}

static struct model *with_numbers(void)
{
    struct writer w;
    writer_init(&w);
    writer_llama(&w, 4);
    writer_number(&w, "n.u8", GGUF_U8, "\xff", 1);
    writer_number(&w, "n.i8", GGUF_I8, "\x7f", 1);
    writer_number(&w, "n.i8n", GGUF_I8, "\xff", 1);
    writer_number(&w, "n.u16", GGUF_U16, "\x01\x02", 2);
    writer_number(&w, "n.i16n", GGUF_I16, "\xfe\xff", 2);
    writer_number(&w, "n.u64", GGUF_U64, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    writer_number(&w, "n.i64n", GGUF_I64, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    writer_number(&w, "n.i32", GGUF_I32, "\x05\0\0\0", 4);
    writer_number(&w, "n.bool", GGUF_BOOL, "\x02", 1);
    float f = 1.5f, nan = __builtin_nanf("");
    double d = -2.25;
    writer_number(&w, "n.f32", GGUF_F32, &f, 4);
    writer_number(&w, "n.nan", GGUF_F32, &nan, 4);
    writer_number(&w, "n.f64", GGUF_F64, &d, 8);
    writer_str(&w, "n.str", "text");
    writer_str(&w, "llama.rope.scaling.type", "yarn");
    writer_u32(&w, "llama.attention.head_count", 32);
    static const int32_t kv[] = {8, 0, 8, -1};
    writer_array(&w, "llama.attention.head_count_kv", GGUF_I32, 4, kv, sizeof kv);
    writer_array(&w, "llama.pattern", GGUF_BOOL, 3, "\1\0\1", 3);
    writer_number(&w, "llama.rope.freq_base", GGUF_F32, &f, 4);
    auto_free char *zeros = mem_calloc(4097, 4);
    writer_array(&w, "long.kept", GGUF_U32, 4096, zeros, (size_t)4096 * 4);
    writer_array(&w, "long.dropped", GGUF_U32, 4097, zeros, (size_t)4097 * 4);
    auto_free char *text = mem_calloc(4098, 1);
    memset(text, 'x', 4097);
    writer_str(&w, "text.dropped", text);
    text[4096] = '\0';
    writer_str(&w, "text.kept", text);
    return open_bytes(&w, "/m/n.gguf");
}

static void test_integers(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        bool found;
        uint64_t value;
    } rows[] = {
        {"n.u8", true, 255},         {"n.i8", true, 127},  {"n.i8n", false, 0},
        {"n.u16", true, 0x201},      {"n.i16n", false, 0}, {"n.u64", true, UINT64_MAX},
        {"n.i64n", false, 0},        {"n.i32", true, 5},   {"n.bool", true, 1},
        {"n.f32", false, 0},         {"n.str", false, 0},  {"n.none", false, 0},
        {"llama.pattern", false, 0},
    };
    struct model *m = with_numbers();
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        uint64_t value = 4711;
        assert_int_equal(model_key_u64(m, rows[i].key, &value), rows[i].found);
        assert_int_equal(value, rows[i].found ? rows[i].value : 4711);
    }
    uint64_t value;
    assert_true(model_arch_u64(m, "attention.head_count", &value));
    assert_int_equal(value, 32);
    assert_false(model_arch_u64(m, "attention.head_count_kv", &value));
    model_unref(m);
}

static void test_floats_and_strings(void **state)
{
    (void)state;
    struct model *m = with_numbers();
    double d = 0;
    struct str s;
    assert_true(model_key_f64(m, "n.f32", &d));
    assert_float_equal(d, 1.5, 0);
    assert_true(model_key_f64(m, "n.f64", &d));
    assert_float_equal(d, -2.25, 0);
    assert_true(model_key_f64(m, "n.i8n", &d));
    assert_float_equal(d, -1, 0);
    assert_true(model_key_f64(m, "n.i64n", &d));
    assert_float_equal(d, -1, 0);
    assert_false(model_key_f64(m, "n.nan", &d));
    assert_false(model_key_f64(m, "n.str", &d));
    assert_true(model_arch_f64(m, "rope.freq_base", &d));
    assert_true(model_key_str(m, "n.str", &s));
    assert_true(str_eq_c(s, "text"));
    assert_true(model_arch_str(m, "rope.scaling.type", &s));
    assert_true(str_eq_c(s, "yarn"));
    assert_false(model_key_str(m, "n.u8", &s));
    assert_false(model_key_str(m, "text.dropped", &s));
    assert_true(model_key_str(m, "text.kept", &s));
    assert_int_equal(s.n, 4096);
    model_unref(m);
}

static void test_arrays(void **state)
{
    (void)state;
    struct model *m = with_numbers();
    uint64_t v = 0, n = 0;
    assert_true(model_arch_layer_u64(m, "attention.head_count_kv", 0, &v));
    assert_int_equal(v, 8);
    assert_true(model_arch_layer_u64(m, "attention.head_count_kv", 1, &v));
    assert_int_equal(v, 0);
    assert_false(model_arch_layer_u64(m, "attention.head_count_kv", 3, &v)); /* -1 */
    assert_false(model_arch_layer_u64(m, "attention.head_count_kv", 4, &v));
    assert_true(model_arch_layer_u64(m, "attention.head_count", 99, &v));
    assert_int_equal(v, 32);
    assert_true(model_arch_layer_u64(m, "pattern", 2, &v));
    assert_int_equal(v, 1);
    assert_false(model_arch_layer_u64(m, "absent", 0, &v));
    assert_true(model_key_array_n(m, "long.kept", &n));
    assert_int_equal(n, 4096);
    assert_true(model_key_array_n(m, "long.dropped", &n));
    assert_int_equal(n, 4097);
    assert_false(model_key_array_n(m, "n.u8", &n));
    const struct gguf_kv *kept = model_kv(m, STR("long.kept")), *dropped = model_kv(m, STR("long.dropped"));
    assert_true(gguf_kv_u64(kept, 4095, &v));
    assert_false(gguf_kv_u64(kept, 4096, &v));
    assert_false(gguf_kv_u64(dropped, 0, &v));
    model_unref(m);
}

static void test_classes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int32_t layer;
        enum tensor_class cls;
    } rows[] = {
        {"token_embd.weight", -1, TENSOR_INPUT},
        {"token_embd_norm.weight", -1, TENSOR_INPUT},
        {"per_layer_token_embd.weight", -1, TENSOR_INPUT},
        {"position_embd.weight", -1, TENSOR_INPUT},
        {"token_types.weight", -1, TENSOR_INPUT},
        {"output.weight", -1, TENSOR_OUTPUT},
        {"output_norm.weight", -1, TENSOR_OUTPUT},
        {"cls.output.weight", -1, TENSOR_OUTPUT},
        {"dense_2.weight", -1, TENSOR_OUTPUT},
        {"rope_freqs.weight", -1, TENSOR_OTHER},
        {"blk.0.attn_norm.weight", 0, TENSOR_NORM},
        {"blk.1.attn_q.bias", 1, TENSOR_NORM},
        {"blk.1.post_ffw_norm.weight", 1, TENSOR_NORM},
        {"blk.9.attn_qkv.weight", 9, TENSOR_ATTENTION},
        {"blk.9.attn_sinks.weight", 9, TENSOR_ATTENTION},
        {"blk.9.attn_kv_a_mqa.weight", 9, TENSOR_ATTENTION},
        {"blk.0.indexer.attn_k.weight", 0, TENSOR_ATTENTION},
        {"blk.0.ffn_up.weight", 0, TENSOR_FFN},
        {"blk.0.ffn_gate_inp.weight", 0, TENSOR_FFN},
        {"blk.0.ffn_down_shexp.weight", 0, TENSOR_FFN},
        {"blk.0.ffn_down_exps.weight", 0, TENSOR_EXPERT},
        {"blk.0.ffn_gate_up_exps.weight", 0, TENSOR_EXPERT},
        {"blk.0.ffn_up_chexps.weight", 0, TENSOR_EXPERT},
        {"blk.0.ffn_up_exps.bias", 0, TENSOR_EXPERT},
        {"blk.0.ffn_up.3.weight", 0, TENSOR_EXPERT},
        {"blk.0.ffn_norm_exps.weight", 0, TENSOR_NORM},
        {"blk.0.ssm_conv1d.bias", 0, TENSOR_RECURRENT},
        {"blk.0.ssm_dt_norm.weight", 0, TENSOR_RECURRENT},
        {"blk.0.time_mix_key.weight", 0, TENSOR_RECURRENT},
        {"blk.0.shortconv.in_proj.weight", 0, TENSOR_RECURRENT},
        {"blk.0.laurel_l.weight", 0, TENSOR_OTHER},
        {"enc.blk.3.attn_q.weight", 3, TENSOR_ATTENTION},
        {"dec.blk.3.cross_attn_o.weight", 3, TENSOR_ATTENTION},
        {"dec.output_norm.weight", -1, TENSOR_OUTPUT},
        {"blk.10.attn_q.weight", -1, TENSOR_OTHER},
        {"blk.99999999999999999999.attn_q.weight", -1, TENSOR_OTHER},
        {"blk.-1.attn_q.weight", -1, TENSOR_OTHER},
        {"blk..attn_q.weight", -1, TENSOR_OTHER},
        {"blk.", -1, TENSOR_OTHER},
        {"v.blk.0.attn_q.weight", -1, TENSOR_OTHER},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        int32_t layer;
        enum tensor_class cls;
        tensor_classify(str_from(rows[i].name), 10, &layer, &cls);
        if (layer != rows[i].layer || cls != rows[i].cls)
            fail_msg("%s: layer %d, class %s", rows[i].name, layer, tensor_class_word(cls));
    }
    assert_string_equal(tensor_class_word(TENSOR_EXPERT), "expert");
}

static void test_sums_and_lookup(void **state)
{
    (void)state;
    struct writer w;
    writer_init(&w);
    writer_llama(&w, 2);
    writer_tensor(&w, "token_embd.weight", GGML_Q8_0, 64, 100); /* 100 rows of 68 */
    writer_tensor(&w, "blk.0.attn_q.weight", GGML_Q4_0, 64, 64);
    writer_tensor(&w, "blk.0.ffn_up_exps.weight", GGML_F16, 64, 10);
    writer_tensor(&w, "blk.1.attn_norm.weight", GGML_F32, 64, 1);
    writer_tensor(&w, "blk.7.attn_norm.weight", GGML_F32, 64, 1);
    struct model *m = open_bytes(&w, "/m/a.gguf");
    assert_int_equal(m->class_bytes[TENSOR_INPUT], 6800);
    assert_int_equal(m->layers[0].bytes[TENSOR_ATTENTION], 2304);
    assert_int_equal(m->layers[0].bytes[TENSOR_EXPERT], 1280);
    assert_int_equal(m->layers[0].total_bytes, 3584);
    assert_int_equal(m->layers[1].total_bytes, 256);
    assert_int_equal(m->class_bytes[TENSOR_OTHER], 256);
    assert_int_equal(m->tensor_bytes, 6800 + 3584 + 512);
    const struct tensor *t = model_tensor(m, "blk.0.ffn_up_exps.weight");
    assert_ptr_equal(t, &m->tensors[2]);
    assert_int_equal(t->ne[0], 64);
    assert_int_equal(t->ne[1], 10);
    assert_int_equal(t->ne[2], 1);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->offset, 6816 + 2304);
    assert_null(model_tensor(m, "blk.0.ffn_up_exps"));
    assert_null(model_tensor(m, ""));
    model_unref(m);
}

static void test_type_table(void **state)
{
    (void)state;
    uint32_t type;
    uint64_t bytes;
    assert_true(ggml_type_from(STR("Q8_0"), &type));
    assert_int_equal(type, GGML_Q8_0);
    assert_true(ggml_type_from(STR("int4"), &type));
    assert_int_equal(type, GGML_Q4_0);
    assert_true(ggml_type_from(STR("16"), &type));
    assert_int_equal(type, GGML_F16);
    assert_true(ggml_type_from(STR("iq4_nl"), &type));
    assert_false(ggml_type_from(STR("q8"), &type));
    assert_false(ggml_type_from(STR(""), &type));
    assert_true(ggml_row_bytes(GGML_Q4_K, 512, &bytes));
    assert_int_equal(bytes, 288);
    assert_false(ggml_row_bytes(GGML_Q4_K, 500, &bytes));
    assert_false(ggml_row_bytes(GGML_F64, UINT64_MAX, &bytes));
    assert_false(ggml_row_bytes(4, 32, &bytes));
    assert_null(ggml_type_info(5));
    assert_null(ggml_type_info(1000));
}

static void test_open_errors(void **state)
{
    (void)state;
    auto_free char *dir = test_dir();
    auto_free char *missing = test_path(dir, "no.gguf");
    auto_free char *pipe = test_path(dir, "pipe.gguf");
    struct model *m = NULL;
    struct err err = {0};
    assert_int_equal(model_open(missing, &m, &err), RC_IO);
    assert_int_equal(err.sys_errno, ENOENT);
    assert_non_null(strstr(err.message, missing));
    assert_int_equal(model_open(dir, &m, &err), RC_INVALID);
    assert_int_equal(mkfifo(pipe, 0644), 0);
    assert_int_equal(model_open(pipe, &m, &err), RC_INVALID);
    assert_non_null(strstr(err.message, "not a regular file"));
    assert_null(m);
    assert_int_equal(model_open(missing, &m, NULL), RC_IO); /* err may be NULL */
    test_remove(dir);
}

static void save_model(const char *path, uint32_t layers)
{
    struct writer w;
    writer_init(&w);
    writer_llama(&w, layers);
    writer_tensor(&w, "blk.0.attn_q.weight", GGML_F32, 8, layers);
    writer_save(&w, path);
    writer_release(&w);
}

static void test_cache(void **state)
{
    (void)state;
    auto_free char *dir = test_dir();
    auto_free char *path = test_path(dir, "a.gguf");
    struct model *a = NULL, *b = NULL, *c = NULL;
    save_model(path, 1);
    assert_int_equal(model_open_cached(path, &a, NULL), RC_OK);
    assert_int_equal(model_open_cached(path, &b, NULL), RC_OK);
    assert_ptr_equal(a, b);
    assert_string_equal(a->path, path);
    assert_true(a->mtime_ns > 0);
    save_model(path, 2); /* another size */
    assert_int_equal(model_open_cached(path, &c, NULL), RC_OK);
    assert_ptr_not_equal(a, c);
    assert_int_equal(a->n_layer, 1); /* still usable */
    assert_int_equal(c->n_layer, 2);
    model_unref(b);
    /* Same size, another time. */
    const struct timespec times[2] = {{1000, 0}, {1000, 5}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_int_equal(model_open_cached(path, &b, NULL), RC_OK);
    assert_ptr_not_equal(b, c);
    assert_int_equal(b->mtime_ns, 1000000000005);
    unlink(path);
    struct model *d = NULL;
    assert_int_equal(model_open_cached(path, &d, NULL), RC_IO);
    assert_null(d);
    model_cache_clear();
    assert_int_equal(b->n_layer, 2);
    model_unref(a);
    model_unref(b);
    model_unref(c);
    model_unref(NULL);
    test_remove(dir);
}

struct worker {
    const char *const *paths;
    size_t n;
};

static void *hammer(void *arg)
{
    const struct worker *w = arg;
    size_t wrong = 0;
    for (unsigned round = 0; round < 60; round++) {
        struct model *m = NULL;
        if (round % 20 == 19)
            model_cache_clear();
        if (model_open_cached(w->paths[round % w->n], &m, NULL) || m->n_layer != round % w->n + 1)
            wrong++;
        struct model *again = m ? model_ref(m) : NULL;
        model_unref(m);
        model_unref(again);
    }
    return (void *)(uintptr_t)wrong;
}

static void test_threads(void **state)
{
    (void)state;
    auto_free char *dir = test_dir();
    auto_free char *a = test_path(dir, "a.gguf");
    auto_free char *b = test_path(dir, "b.gguf");
    const char *paths[] = {a, b};
    struct worker w = {paths, 2};
    pthread_t threads[4];
    save_model(a, 1);
    save_model(b, 2);
    for (size_t i = 0; i < TABLE_COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, &w), 0);
    for (size_t i = 0; i < TABLE_COUNT(threads); i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    model_cache_clear();
    test_remove(dir);
}

static void test_every_key(void **state)
{
    (void)state;
    struct writer w;
    struct model_value v;
    int16_t minus = -3;
    float real = 2.5f;
    const char yes = 1;
    auto_free char *dir = test_dir();
    auto_free char *path = test_path(dir, "a.gguf");
    struct buf text = {0}, long_text = {0};
    struct err err;
    struct model *m;
    while (long_text.n < GGUF_MAX_KEPT_STRING + 1)
        buf_puts(&long_text, "0123456789");
    writer_init(&w);
    writer_llama(&w, 1);
    uint32_t first = (uint32_t)w.n_kvs;
    writer_number(&w, "x.minus", GGUF_I16, &minus, 2);
    writer_number(&w, "x.real", GGUF_F32, &real, 4);
    writer_number(&w, "x.yes", GGUF_BOOL, &yes, 1);
    writer_array(&w, "x.list", GGUF_I16, 1, &minus, 2);
    writer_str(&w, "x.long", long_text.data);
    writer_str(&w, "tokenizer.chat_template", "{{ tools }}");
    writer_save(&w, path);
    writer_release(&w);
    assert_int_equal(model_open(path, &m, &err), RC_OK);
    assert_true(model_key_at(m, 0, &v));
    assert_int_equal(v.kind, MODEL_TEXT);
    assert_true(str_eq_c(v.key, "general.architecture") && str_eq_c(v.text, "llama"));
    assert_true(model_key_at(m, first, &v) && v.kind == MODEL_INT && v.i == -3);
    assert_true(model_key_at(m, first + 1, &v) && v.kind == MODEL_REAL && v.real > 2.4 && v.real < 2.6);
    assert_true(model_key_at(m, first + 2, &v) && v.kind == MODEL_BOOL && v.u == 1);
    assert_true(model_key_at(m, first + 3, &v) && v.kind == MODEL_ARRAY && v.n == 1);
    assert_true(model_key_at(m, first + 4, &v) && v.kind == MODEL_LONG_TEXT && v.n == long_text.n);
    assert_false(model_key_at(m, first + 6, &v));

    assert_int_equal(model_read_text(m, "x.long", 8192, &text, &err), RC_OK);
    assert_string_equal(text.data, long_text.data);
    assert_int_equal(model_read_text(m, "tokenizer.chat_template", 8192, &text, &err), RC_OK);
    assert_int_equal(text.n, long_text.n + strlen("{{ tools }}"));
    assert_int_equal(model_read_text(m, "x.long", 100, &text, &err), RC_LIMIT);
    assert_int_equal(model_read_text(m, "x.list", 100, &text, &err), RC_NOT_FOUND);
    assert_int_equal(model_read_text(m, "x.none", 100, &text, &err), RC_NOT_FOUND);
    test_text(path, "another file");
    assert_int_equal(model_read_text(m, "x.long", 8192, &text, &err), RC_TRUNCATED);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(model_read_text(m, "x.long", 8192, &text, &err), RC_IO);
    model_unref(m);
    buf_release(&text);
    buf_release(&long_text);
    test_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_names_are_cleaned),
        cmocka_unit_test(test_quantization_of_tensors),
        cmocka_unit_test(test_required_keys),
        cmocka_unit_test(test_split_in_memory),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_floats_and_strings),
        cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_every_key),
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_sums_and_lookup),
        cmocka_unit_test(test_type_table),
        cmocka_unit_test(test_open_errors),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
