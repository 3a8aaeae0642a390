/* Scans: plain folders, and the layouts of every cache, made in a temporary home. */
#include "gguf/catalog.h"
#include "gguf/model_priv.h"
#include "writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static const char *const variables[] = {"LLAMA_CACHE",   "HF_HUB_CACHE",   "HUGGINGFACE_HUB_CACHE", "HF_HOME",
                                        "OLLAMA_MODELS", "XDG_CACHE_HOME", "XDG_DATA_HOME"};

static int setup(void **state)
{
    for (size_t i = 0; i < TABLE_COUNT(variables); i++)
        unsetenv(variables[i]);
    *state = test_dir();
    return 0;
}

static int teardown(void **state)
{
    for (size_t i = 0; i < TABLE_COUNT(variables); i++)
        unsetenv(variables[i]);
    model_cache_clear();
    test_remove(*state);
    free(*state);
    return 0;
}

struct file {
    const char *name;    /* below the home */
    const char *general; /* general.name, or NULL */
    const char *type;    /* general.type, or NULL */
    const char *architecture;
    uint32_t file_type;
    const char *tensor; /* NULL = blk.0.attn_q.weight */
    uint32_t rows;      /* of its one tensor; 0 = no tensor. Also makes files of different sizes */
};

static void save(const char *home, const struct file *f)
{
    auto_free char *path = test_path(home, f->name);
    struct writer w;
    writer_init(&w);
    writer_str(&w, "general.architecture", f->architecture ? f->architecture : "llama");
    writer_u32(&w, "general.file_type", f->file_type);
    if (f->general)
        writer_str(&w, "general.name", f->general);
    if (f->type)
        writer_str(&w, "general.type", f->type);
    writer_u32(&w, "llama.block_count", 1);
    writer_u32(&w, "llama.context_length", 2048);
    if (f->rows)
        writer_tensor(&w, f->tensor ? f->tensor : "blk.0.attn_q.weight", GGML_F32, 8, f->rows);
    writer_save(&w, path);
    writer_release(&w);
}

static void save_named(const char *home, const char *name)
{
    save(home, &(struct file){.name = name, .rows = 1, .file_type = 15});
}

static struct catalog *scan_home(const char *home)
{
    struct catalog_options opt = {.usual_caches = true, .home = home};
    struct catalog *c = NULL;
    assert_int_equal(catalog_scan(&opt, &c, NULL), RC_OK);
    return c;
}

static struct catalog *scan_dir(const char *dir)
{
    struct catalog_options opt = {.dirs = &dir, .n_dirs = 1, .home = "/nonexistent"};
    struct catalog *c = NULL;
    assert_int_equal(catalog_scan(&opt, &c, NULL), RC_OK);
    return c;
}

static const struct catalog_entry *entry(const struct catalog *c, const char *id)
{
    const struct catalog_entry *e = catalog_find(c, str_from(id));
    if (!e) {
        for (size_t i = 0; i < c->n; i++)
            print_message("  %s\n", c->entries[i].id);
        fail_msg("no entry %s", id);
    }
    return e;
}

static void test_folder(void **state)
{
    const char *home = *state;
    save_named(home, "b/Model-B-Q8_0.gguf");
    save_named(home, "Model-A.gguf");
    save_named(home, "a.GGUF");
    save_named(home, ".hidden.gguf");
    save_named(home, ".cache/c.gguf");
    save_named(home, "1/2/3/4/5/6/deep.gguf");
    save_named(home, "1/2/3/4/5/6/7/too-deep.gguf");
    auto_free char *text = test_path(home, "readme.txt");
    test_text(text, "GGUF");
    struct catalog *c = scan_dir(home);
    assert_int_equal(c->n, 4);
    assert_int_equal(c->n_notes, 0);
    assert_string_equal(c->entries[0].id, "a");
    assert_string_equal(c->entries[1].id, "deep");
    assert_string_equal(c->entries[2].id, "Model-A");
    assert_string_equal(c->entries[3].id, "Model-B-Q8_0");
    const struct catalog_entry *e = entry(c, "Model-B-Q8_0");
    auto_free char *path = test_path(home, "b/Model-B-Q8_0.gguf");
    assert_string_equal(e->path, path);
    assert_string_equal(e->source, "directory");
    assert_string_equal(e->model->quantization, "Q4_K_M");
    assert_int_equal(e->file_bytes, e->model->file_bytes);
    assert_null(e->mmproj);
    assert_null(catalog_find(c, STR("model-a")));
    catalog_free(c);
    catalog_free(NULL);
    c = scan_dir(path); /* a single file */
    assert_int_equal(c->n, 1);
    catalog_free(c);
}

static void test_bad_things(void **state)
{
    const char *home = *state;
    auto_free char *junk = test_path(home, "junk.gguf");
    auto_free char *junk_projector = test_path(home, "mmproj-junk.gguf");
    auto_free char *dangling = test_path(home, "dangling.gguf");
    auto_free char *missing = test_path(home, "no/such/folder");
    test_text(junk, "not a model");
    test_text(junk_projector, "not a projector");
    assert_int_equal(symlink("nowhere", dangling), 0);
    rmdir(missing);
    struct catalog *c = scan_dir(home);
    assert_int_equal(c->n, 1);
    const struct catalog_entry *e = entry(c, "junk");
    assert_null(e->model);
    assert_int_equal(e->problem.code, RC_INVALID);
    assert_non_null(strstr(e->problem.message, junk));
    assert_int_equal(e->file_bytes, 11);
    assert_int_equal(c->n_notes, 2);
    assert_non_null(strstr(c->notes[0].message, dangling));
    assert_non_null(strstr(c->notes[1].message, junk_projector));
    catalog_free(c);
    c = scan_dir(missing);
    assert_int_equal(c->n, 0);
    assert_int_equal(c->n_notes, 1);
    assert_int_equal(c->notes[0].code, RC_NOT_FOUND);
    catalog_free(c);
}

static void test_unreadable_folder(void **state)
{
    const char *home = *state;
    bool is_root = geteuid() == 0;
    auto_free char *closed = test_path(home, "closed/m.gguf");
    save_named(home, "open/m.gguf");
    *strrchr(closed, '/') = '\0';
    assert_int_equal(chmod(home, 0755), 0);
    assert_int_equal(chmod(closed, 0), 0);
    if (is_root && seteuid(65534)) /* root reads everything */
        skip();
    struct catalog *c = scan_dir(home);
    if (is_root)
        assert_int_equal(seteuid(0), 0);
    chmod(closed, 0755);
    assert_int_equal(c->n, 1);
    assert_int_equal(c->n_notes, 1);
    assert_int_equal(c->notes[0].code, RC_DENIED);
    catalog_free(c);
}

static void test_links(void **state)
{
    const char *home = *state;
    save_named(home, "real/m.gguf");
    auto_free char *loop = test_path(home, "real/loop");
    auto_free char *folder = test_path(home, "again");
    auto_free char *alias = test_path(home, "alias.gguf");
    auto_free char *hard = test_path(home, "real/z.gguf");
    auto_free char *target = test_path(home, "real/m.gguf");
    assert_int_equal(symlink("..", loop), 0);
    assert_int_equal(symlink("real", folder), 0);
    assert_int_equal(symlink("real/m.gguf", alias), 0);
    assert_int_equal(link(target, hard), 0);
    struct catalog *c = scan_dir(home);
    assert_int_equal(c->n, 1);
    catalog_free(c);
}

static void test_clashes(void **state)
{
    const char *home = *state;
    save_named(home, "a/m.gguf");
    save_named(home, "b/m.gguf");
    save_named(home, "x/b/m.gguf");
    struct catalog *c = scan_dir(home);
    assert_int_equal(c->n, 3);
    assert_non_null(strstr(entry(c, "m")->path, "/a/m.gguf"));
    assert_non_null(strstr(entry(c, "b/m")->path, "/b/m.gguf"));
    assert_non_null(strstr(entry(c, "b/m#2")->path, "/x/b/m.gguf"));
    catalog_free(c);
}

static void test_left_out(void **state)
{
    const char *home = *state;
    static const struct file files[] = {
        {.name = "lora.gguf", .type = "adapter", .rows = 1},
        {.name = "vocab.gguf", .rows = 0},
        {.name = "imatrix.gguf", .type = "imatrix", .rows = 1},
        {.name = "control.gguf", .architecture = "controlvector", .rows = 1},
        {.name = "mmproj-x.gguf", .architecture = "clip", .rows = 1},
        {.name = "model.gguf", .type = "model", .rows = 1},
    };
    for (size_t i = 0; i < TABLE_COUNT(files); i++)
        save(home, &files[i]);
    struct catalog *c = scan_dir(home);
    assert_int_equal(c->n, 1);
    assert_string_equal(c->entries[0].id, "model");
    assert_non_null(c->entries[0].mmproj);
    assert_int_equal(c->n_notes, 0);
    catalog_free(c);
}

static void test_vision_inside(void **state)
{
    const char *home = *state;
    save(home,
         &(struct file){
             .name = "gemma.gguf", .architecture = "llama", .tensor = "v.blk.0.attn_k.bias", .rows = 1});
    struct catalog *c = scan_dir(home);
    assert_int_equal(c->n, 1);
    assert_null(c->entries[0].model);
    assert_int_equal(c->entries[0].problem.code, RC_UNSUPPORTED);
    catalog_free(c);
}

static void test_projectors(void **state)
{
    const char *home = *state;
    static const struct file files[] = {
        /* One model in two quantisations: any projector there is its own, F16 first. */
        {.name = "one/mmproj-BF16.gguf",
         .architecture = "clip",
         .type = "mmproj",
         .file_type = 32,
         .rows = 1},
        {.name = "one/mmproj-F16.gguf", .architecture = "clip", .type = "mmproj", .file_type = 1, .rows = 1},
        {.name = "one/gemma-Q4_K_M.gguf", .rows = 1},
        {.name = "one/gemma-Q8_0.gguf", .rows = 2},
        /* A mixed folder: by name or by general.name only. */
        {.name = "mix/mmproj-pixtral-f16.gguf", .architecture = "clip", .file_type = 1, .rows = 1},
        {.name = "mix/proj.gguf", .architecture = "clip", .general = "Seer", .type = "mmproj", .rows = 1},
        {.name = "mix/pixtral-Q4_0.gguf", .rows = 1},
        {.name = "mix/other-Q4_0.gguf", .general = "Seer", .rows = 1},
        {.name = "mix/text-Q4_0.gguf", .rows = 1},
    };
    for (size_t i = 0; i < TABLE_COUNT(files); i++)
        save(home, &files[i]);
    struct catalog *c = scan_dir(home);
    assert_int_equal(c->n, 5);
    assert_non_null(strstr(entry(c, "gemma-Q4_K_M")->mmproj, "one/mmproj-F16.gguf"));
    assert_non_null(strstr(entry(c, "gemma-Q8_0")->mmproj, "one/mmproj-F16.gguf"));
    assert_non_null(strstr(entry(c, "pixtral-Q4_0")->mmproj, "mix/mmproj-pixtral-f16.gguf"));
    assert_non_null(strstr(entry(c, "other-Q4_0")->mmproj, "mix/proj.gguf"));
    assert_null(entry(c, "text-Q4_0")->mmproj);
    catalog_free(c);
}

static void save_part(const char *home, const char *name, uint32_t no, uint32_t count)
{
    auto_free char *path = test_path(home, name);
    struct writer w;
    char tensor[32];
    writer_init(&w);
    if (no == 0)
        writer_llama(&w, 8);
    writer_number(&w, "split.no", GGUF_U16, (uint16_t[]){(uint16_t)no}, 2);
    writer_number(&w, "split.count", GGUF_U16, (uint16_t[]){(uint16_t)count}, 2);
    snprintf(tensor, sizeof tensor, "blk.%u.attn_q.weight", no);
    writer_tensor(&w, tensor, GGML_F32, 8, 1);
    writer_save(&w, path);
    writer_release(&w);
}

static void test_split_parts(void **state)
{
    const char *home = *state;
    save_part(home, "big-Q4_0-00001-of-00002.gguf", 0, 2);
    save_part(home, "big-Q4_0-00002-of-00002.gguf", 1, 2);
    save_part(home, "lost-00002-of-00003.gguf", 1, 3);
    save_part(home, "lost-00003-of-00003.gguf", 2, 3);
    struct catalog *c = scan_dir(home);
    assert_int_equal(c->n, 2);
    const struct catalog_entry *e = entry(c, "big-Q4_0");
    assert_int_equal(e->model->n_files, 2);
    assert_int_equal(e->file_bytes, e->model->file_bytes);
    e = entry(c, "lost");
    assert_null(e->model);
    assert_non_null(strstr(e->problem.message, "lost-00001-of-00003.gguf"));
    catalog_free(c);
}

/* As the hub's client writes it: blobs, a snapshot of links, refs/main. */
static void hub_file(const char *home, const char *hub, const char *revision, const char *name,
                     const char *blob, uint32_t rows)
{
    auto_free char *blob_name = mem_printf("%s/blobs/%s", hub, blob);
    const char *architecture = strstr(name, "mmproj") ? "clip" : "llama";
    save(home, &(struct file){.name = blob_name, .rows = rows, .file_type = 7, .architecture = architecture});
    auto_free char *relative = mem_printf("%s/snapshots/%s/%s", hub, revision, name);
    auto_free char *link_path = test_path(home, relative);
    auto_free char *target = mem_printf("%s/%s", home, blob_name);
    assert_int_equal(symlink(target, link_path), 0);
}

static void test_huggingface(void **state)
{
    const char *home = *state;
    static const char hub[] = ".cache/huggingface/hub/models--org--Some-Repo-GGUF";
    static const char main_revision[] = "bbbbbbbb", old_revision[] = "aaaaaaaa";
    hub_file(home, hub, main_revision, "Some-Q4_K_M.gguf", "b1", 1);
    hub_file(home, hub, main_revision, "UD/Some-UD-Q2_K_XL.gguf", "b2", 2);
    hub_file(home, hub, main_revision, "plain.gguf", "b3", 3);
    hub_file(home, hub, main_revision, "mmproj-F16.gguf", "b7", 7);
    hub_file(home, hub, old_revision, "Some-Q4_K_M.gguf", "b4", 4);
    hub_file(home, hub, old_revision, "Some-Q6_K.gguf", "b5", 5);
    hub_file(home, ".cache/huggingface/hub/models--solo", "cccccccc", "solo.Q4_0.gguf", "b6", 6);
    auto_free char *ref = test_path(home, ".cache/huggingface/hub/models--org--Some-Repo-GGUF/refs/main");
    test_text(ref, "bbbbbbbb\n");
    struct catalog *c = scan_home(home);
    assert_int_equal(c->n, 5);
    assert_int_equal(c->n_notes, 0);
    const struct catalog_entry *e = entry(c, "org/Some-Repo-GGUF:Q4_K_M");
    assert_string_equal(e->source, "huggingface");
    assert_non_null(strstr(e->path, "snapshots/bbbbbbbb/Some-Q4_K_M.gguf"));
    e = entry(c, "org/Some-Repo-GGUF:UD-Q2_K_XL");
    assert_non_null(strstr(e->mmproj, "snapshots/bbbbbbbb/mmproj-F16.gguf"));
    entry(c, "org/Some-Repo-GGUF:Q8_0"); /* plain.gguf, by its file type */
    assert_non_null(strstr(entry(c, "org/Some-Repo-GGUF:Q6_K")->path, old_revision));
    entry(c, "solo:Q4_0");
    catalog_free(c);
    /* The same through the variables, and when the folder is named. */
    auto_free char *named = test_path(home, ".cache/huggingface/hub");
    setenv("HF_HUB_CACHE", named, 1);
    c = scan_home("/nonexistent");
    assert_int_equal(c->n, 5);
    catalog_free(c);
    unsetenv("HF_HUB_CACHE");
    auto_free char *hf_home = test_path(home, ".cache/huggingface");
    setenv("HF_HOME", hf_home, 1);
    c = scan_home("/nonexistent");
    assert_int_equal(c->n, 5);
    catalog_free(c);
    c = scan_dir(named);
    assert_int_equal(c->n, 5);
    assert_string_equal(c->entries[0].source, "huggingface");
    catalog_free(c);
}

static void test_llama_cpp(void **state)
{
    const char *home = *state;
    save_named(home, ".cache/llama.cpp/org_repo_m-Q4_0.gguf");
    save_named(home, ".cache/llama.cpp/org_repo_n-Q4_0.gguf.downloadInProgress");
    save_named(home, "other/p.gguf");
    save_named(home, ".local/share/arriero/models/own.gguf");
    struct catalog *c = scan_home(home);
    assert_int_equal(c->n, 2);
    assert_string_equal(entry(c, "org_repo_m-Q4_0")->source, "llama.cpp");
    assert_string_equal(entry(c, "own")->source, "directory");
    catalog_free(c);
    auto_free char *other = test_path(home, "other");
    setenv("LLAMA_CACHE", other, 1);
    c = scan_home(home);
    assert_int_equal(c->n, 3);
    assert_string_equal(entry(c, "p")->source, "llama.cpp");
    catalog_free(c);
}

static void test_lmstudio(void **state)
{
    const char *home = *state;
    save_named(home, ".lmstudio/models/pub/repo/a-Q4_0.gguf");
    save_named(home, ".cache/lm-studio/models/pub/repo/b-Q4_0.gguf");
    save_named(home, "disk/pub/repo/c-Q4_0.gguf");
    save_named(home, "lms/models/pub/repo/d-Q4_0.gguf");
    auto_free char *settings = test_path(home, ".lmstudio/settings.json");
    auto_free char *json = mem_printf("{\"downloadsFolder\":\"%s/disk\",\"other\":[1]}", home);
    test_text(settings, json);
    auto_free char *pointer = test_path(home, ".lmstudio-home-pointer");
    auto_free char *elsewhere = mem_printf("%s/lms\n", home);
    test_text(pointer, elsewhere);
    struct catalog *c = scan_home(home);
    assert_int_equal(c->n, 4);
    for (size_t i = 0; i < c->n; i++)
        assert_string_equal(c->entries[i].source, "lmstudio");
    catalog_free(c);
    test_text(settings, "{broken");
    c = scan_home(home);
    assert_int_equal(c->n, 3);
    catalog_free(c);
}

#define HEX_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HEX_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define HEX_C "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
#define HEX_D "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"

static void manifest(const char *home, const char *name, const char *model_hex, const char *more)
{
    auto_free char *relative = mem_printf(".ollama/models/%s", name);
    auto_free char *path = test_path(home, relative);
    auto_free char *text =
        mem_printf("{\"schemaVersion\":2,\"layers\":[{\"mediaType\":\"application/vnd.ollama.image.model\","
                   "\"digest\":\"sha256:%s\",\"size\":1}%s]}",
                   model_hex, more);
    test_text(path, text);
}

static void ollama_blob(const char *home, const char *hex, const char *architecture, uint32_t rows)
{
    auto_free char *name = mem_printf(".ollama/models/blobs/sha256-%s", hex);
    save(home, &(struct file){.name = name, .rows = rows, .file_type = 15, .architecture = architecture});
}

static void test_ollama(void **state)
{
    const char *home = *state;
    ollama_blob(home, HEX_A, "llama", 1);
    ollama_blob(home, HEX_B, "clip", 2);
    ollama_blob(home, HEX_C, "llama", 3);
    ollama_blob(home, HEX_D, "llama", 4);
    manifest(home, "manifests/registry.ollama.ai/library/llava/7b", HEX_A,
             ",{\"mediaType\":\"application/vnd.ollama.image.projector\",\"digest\":\"sha256:" HEX_B "\"}");
    manifest(home, "manifests/registry.ollama.ai/library/llava/latest", HEX_A, ""); /* the same blob */
    manifest(home, "manifests/hf.co/org/repo/Q4_K_M", HEX_C, "");
    manifest(home, "manifests-v2/ollama.com/someone/thing/latest", HEX_D, "");
    manifest(home, "manifests/registry.ollama.ai/library/evil/1", "../../../../etc/passwd", "");
    auto_free char *cloud = test_path(home, ".ollama/models/manifests/registry.ollama.ai/library/cloud/1");
    test_text(cloud, "{\"layers\":[]}");
    auto_free char *broken = test_path(home, ".ollama/models/manifests/registry.ollama.ai/library/broken/1");
    test_text(broken, "{");
    struct catalog *c = scan_home(home);
    assert_int_equal(c->n, 3);
    const struct catalog_entry *e = entry(c, "llava:7b");
    assert_string_equal(e->source, "ollama");
    assert_non_null(strstr(e->path, "/blobs/sha256-" HEX_A));
    assert_non_null(strstr(e->mmproj, "/blobs/sha256-" HEX_B));
    entry(c, "hf.co/org/repo:Q4_K_M");
    entry(c, "someone/thing:latest");
    assert_int_equal(c->n_notes, 1);
    assert_non_null(strstr(c->notes[0].message, broken));
    catalog_free(c);
    /* A missing blob is a note; a store that is named is recognised. */
    auto_free char *blob = test_path(home, ".ollama/models/blobs/sha256-" HEX_C);
    auto_free char *store = test_path(home, ".ollama/models");
    unlink(blob);
    c = scan_dir(store);
    assert_int_equal(c->n, 2);
    assert_int_equal(c->n_notes, 2);
    catalog_free(c);
    setenv("OLLAMA_MODELS", store, 1);
    c = scan_home("/nonexistent");
    assert_int_equal(c->n, 2);
    catalog_free(c);
}

static void test_odd_names(void **state)
{
    const char *home = *state;
    save_named(home, "bad\xff\033[31mname.gguf");
    save_named(home, "ünï-Q4_0.gguf");
    struct catalog *c = scan_dir(home);
    assert_int_equal(c->n, 2);
    entry(c, "bad??[31mname");
    auto_free char *broken = test_path(home, "broken\xff.gguf");
    test_text(broken, "no model");
    catalog_free(c);
    c = scan_dir(home);
    assert_non_null(strstr(entry(c, "broken?")->problem.message, "broken?.gguf: not a GGUF file"));
    entry(c, "ünï-Q4_0");
    catalog_free(c);
}

static void test_relative_folder(void **state)
{
    const char *home = *state;
    save_named(home, "sub/m.gguf");
    char before[4096];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(home), 0);
    static const char *const dirs[] = {"sub", "./sub/", "sub//"};
    for (size_t i = 0; i < TABLE_COUNT(dirs); i++) {
        struct catalog *c = scan_dir(dirs[i]);
        auto_free char *path = test_path(home, "sub/m.gguf");
        assert_int_equal(c->n, 1);
        assert_string_equal(c->entries[0].path, path);
        catalog_free(c);
    }
    assert_int_equal(chdir(before), 0);
}

#define CATALOG_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CATALOG_TEST(test_folder),        CATALOG_TEST(test_bad_things), CATALOG_TEST(test_unreadable_folder),
        CATALOG_TEST(test_links),         CATALOG_TEST(test_clashes),    CATALOG_TEST(test_left_out),
        CATALOG_TEST(test_vision_inside), CATALOG_TEST(test_projectors), CATALOG_TEST(test_split_parts),
        CATALOG_TEST(test_huggingface),   CATALOG_TEST(test_llama_cpp),  CATALOG_TEST(test_lmstudio),
        CATALOG_TEST(test_ollama),        CATALOG_TEST(test_odd_names),  CATALOG_TEST(test_relative_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
