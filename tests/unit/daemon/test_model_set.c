/* Unit tests of what the daemon serves: catalog and configuration joined, hashes that decide what a reload
 * touches, API keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "daemon/choice.h"
#include "daemon/model_set.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *gguf_path; /* a small valid file, from the command line */

/* A catalog of two readable models and a broken file. */
struct shelf {
    struct model *facts;
    struct catalog_entry entries[3];
    struct catalog catalog;
};

static void shelf_init(struct shelf *s)
{
    *s = (struct shelf){0};
    static const char *const ids[] = {"alpha", "broken", "org/beta:Q4"};
    static const char *const paths[] = {"/m/alpha.gguf", "/m/broken.gguf", "/m/beta.gguf"};
    for (size_t i = 0; i < 3; i++) {
        s->entries[i] = (struct catalog_entry){.id = (char *)(uintptr_t)ids[i],
                                               .path = (char *)(uintptr_t)paths[i],
                                               .source = "directory",
                                               .file_bytes = 100 + i,
                                               .mtime_ns = 5000000000};
        if (i == 1)
            (void)!err_set(&s->entries[i].problem, RC_TRUNCATED, "it ends too early");
    }
    struct err err;
    if (model_open(gguf_path, &s->facts, &err) != RC_OK)
        fail_msg("%s", err.message);
    s->entries[0].model = s->entries[2].model = s->facts;
    s->catalog = (struct catalog){.entries = s->entries, .n = 3};
}

static void shelf_release(struct shelf *s)
{
    model_unref(s->facts);
}

static struct config *parse(const char *text)
{
    struct config *c = NULL;
    struct err err;
    if (config_parse(str_from(text), "c.yaml", &c, &err) != RC_OK)
        fail_msg("%s", err.message);
    return c;
}

static struct model_set *build(const struct config *c, const struct shelf *s)
{
    struct model_set *set = NULL;
    assert_int_equal(model_set_build(c, &s->catalog, &set, NULL), RC_OK);
    return set;
}

static const struct pool_model *get(const struct model_set *set, const char *id)
{
    for (size_t i = 0; i < set->n; i++)
        if (strcmp(set->models[i].id, id) == 0)
            return &set->models[i];
    fail_msg("no model %s", id);
    return NULL;
}

static bool warned(const struct model_set *set, const char *part)
{
    for (size_t i = 0; i < set->n_warnings; i++)
        if (strstr(set->warnings[i], part))
            return true;
    return false;
}

static void everything_found_is_served(void **state)
{
    (void)state;
    struct shelf s;
    shelf_init(&s);
    struct config *c = parse("");
    struct model_set *set = build(c, &s);
    assert_int_equal(set->n, 2);
    assert_string_equal(set->models[0].id, "alpha");
    assert_string_equal(set->models[1].path, "/m/beta.gguf");
    assert_true(set->models[0].policy.allow_cpu);
    assert_true(warned(set, "model broken is not served: /m/broken.gguf: it ends too early"));
    struct err err;
    assert_false(model_set_why_not(set, STR("alpha"), &err));
    assert_false(model_set_why_not(set, STR("brok"), &err));
    assert_true(model_set_why_not(set, STR("broken"), &err));
    assert_int_equal(err.code, RC_NOT_FOUND);
    assert_string_equal(err.message,
                        "model \"broken\" was found but is not served: /m/broken.gguf: it ends too early");
    assert_true(err.hint[0]);
    /* a problem that names the file itself */
    (void)!err_set(&s.entries[1].problem, RC_TRUNCATED, "/m/broken.gguf: it ends");
    assert_true(model_set_why_not(set, STR("broken"), &err));
    assert_string_equal(err.message, "model \"broken\" was found but is not served: /m/broken.gguf: it ends");
    struct model_set *again = build(c, &s);
    assert_true(warned(again, "model broken is not served: /m/broken.gguf: it ends"));
    model_set_free(again);
    struct buf out = {0};
    model_set_list_json(set, NULL, &out);
    assert_non_null(strstr(out.data, "\"id\":\"org/beta:Q4\",\"object\":\"model\",\"created\":5"));
    buf_clear(&out);
    assert_true(model_set_one_json(set, STR("alpha"), &out));
    assert_false(model_set_one_json(set, STR("broken"), &out));
    buf_release(&out);
    model_set_free(set);
    config_free(c);
    shelf_release(&s);
}

static void settings_reach_the_policy(void **state)
{
    (void)state;
    struct shelf s;
    shelf_init(&s);
    struct config *c =
        parse("defaults: {ctx: 4096, margin: 1GiB}\n"
              "models:\n"
              "  alpha: {kv_type: q8_0, gpu_layers: all, strategy: 'fit-vram:1000', device: CUDA1, "
              "preload: true, aliases: [a, org/beta:Q4], max_gpus: 2, pin: true, ttl: 5s}\n"
              "  own: {path: /x/own.gguf, gpu_layers: 3, kv_type_v: q4_0, allow_cpu: false, "
              "preload: true, priority: 5}\n"
              "  alhpa: {ctx: 1}\n");
    struct model_set *set = build(c, &s);
    assert_int_equal(set->n, 3);
    const struct pool_model *p = get(set, "alpha");
    assert_int_equal(p->policy.ctx, 4096);
    assert_true(p->policy.margin_bytes == 1024 * MIB);
    assert_true(p->policy.kv_type_fixed && p->policy.type_k == GGML_Q8_0 && p->policy.type_v == GGML_Q8_0);
    assert_true(p->policy.gpu_layers_fixed && p->policy.gpu_layers == PLAN_ALL_LAYERS);
    assert_int_equal(p->policy.strategy, PLAN_FIT_VRAM);
    assert_true(p->policy.vram_limit_bytes == 1000 * MIB);
    assert_string_equal(p->policy.device, "CUDA1");
    assert_int_equal(p->policy.max_gpus, 2);
    assert_true(p->pin && p->ttl_ms == 5000);
    assert_int_equal(p->n_aliases, 1); /* the other one is a model's id */
    assert_true(warned(set, "the alias org/beta:Q4 of alpha"));
    assert_true(warned(set, "models.alhpa in line 5"));
    assert_true(warned(set, "alpha?"));
    p = get(set, "own");
    assert_string_equal(p->path, "/x/own.gguf");
    assert_int_equal(p->policy.gpu_layers, 3);
    assert_true(p->policy.type_k == GGML_F16 && p->policy.type_v == GGML_Q4_0);
    assert_false(p->policy.allow_cpu);
    assert_int_equal(set->n_preload, 2);
    assert_string_equal(set->preload[0], "own"); /* of higher priority */
    assert_string_equal(set->preload[1], "alpha");
    model_set_free(set);
    config_free(c);
    shelf_release(&s);
}

static void files_beside_a_model(void **state)
{
    (void)state;
    struct shelf s;
    shelf_init(&s);
    struct config *c = parse(
        "models:\n"
        "  alpha: {mmproj: /p, adapters: ['/l/a.gguf', '/l/b.gguf:0.25'], draft: org/beta:Q4, draft_max: 8, "
        "draft_min: 2, draft_gpu_layers: 3, draft_device: CUDA1, bpw_floor: 4.5, ctx: 8k}\n"
        "  own: {path: /x/own.gguf, draft: /d/tiny.gguf}\n"
        "  other: {path: /x/other.gguf, draft: own}\n"
        "  lost: {path: /x/lost.gguf, draft: alhpa}\n");
    struct model_set *set = build(c, &s);
    const struct pool_model *p = get(set, "alpha");
    const struct pool_files *f = &p->files;
    assert_string_equal(f->mmproj, "/p");
    assert_int_equal(f->n_adapters, 2);
    assert_string_equal(f->adapters[0], "/l/a.gguf");
    assert_string_equal(f->adapters[1], "/l/b.gguf");
    assert_true(f->adapter_scale[0] == 1.0f && f->adapter_scale[1] == 0.25f);
    assert_string_equal(f->draft, "/m/beta.gguf"); /* of the model of that id */
    assert_int_equal(f->draft_tokens, 8);
    assert_int_equal(f->draft_least, 2);
    assert_int_equal(f->draft_gpu_layers, 3);
    assert_string_equal(f->draft_device, "CUDA1");
    assert_true(p->policy.least_bpw == 4.5);
    assert_int_equal(p->policy.ctx, 8192);
    f = &get(set, "own")->files;
    assert_string_equal(f->draft, "/d/tiny.gguf");
    assert_int_equal(f->draft_tokens, 0);
    assert_int_equal(f->draft_gpu_layers, PLAN_ALL_LAYERS);
    assert_null(f->draft_device);
    assert_string_equal(get(set, "other")->files.draft, "/x/own.gguf");
    assert_null(get(set, "lost")->files.draft);
    assert_true(
        warned(set, "model lost is served without its draft: no model is called alhpa; did you mean alpha?"));
    assert_null(get(set, "org/beta:Q4")->files.draft);
    model_set_free(set);
    config_free(c);
    shelf_release(&s);
}

static uint64_t hash_of(const char *config, const struct shelf *s, const char *id)
{
    struct config *c = parse(config);
    struct model_set *set = build(c, s);
    uint64_t h = get(set, id)->settings_hash;
    model_set_free(set);
    config_free(c);
    return h;
}

static void only_what_changed_has_another_hash(void **state)
{
    (void)state;
    struct shelf s;
    shelf_init(&s);
    uint64_t plain = hash_of("", &s, "alpha");
    assert_true(plain == hash_of("models: {org/beta:Q4: {ctx: 5}}", &s, "alpha"));
    assert_true(plain == hash_of("models: {alpha: {ctx: auto}}", &s, "alpha"));
    assert_true(plain == hash_of("listen: '127.0.0.1:1'", &s, "alpha"));
    static const char *const changes[] = {
        "ctx: 512",      "kv_type: q4_0", "extra_args: [-x]", "extra_args: [a, b]", "extra_args: [ab]",
        "device: CUDA0", "mmproj: /p",    "runtime: /bin/x",  "gpu_layers: 0",      "embedding: true",
        "margin: 0",     "path: /other",  "adapters: [/a]",   "adapters: ['/a:2']", "draft: /d.gguf",
        "draft_max: 9",  "draft_min: 1",  "draft_device: X"};
    /* an instance follows these as it runs, or they are the door's alone */
    static const char *const live[] = {"aliases: [z]",
                                       "members: [org/beta:Q4]",
                                       "fallback: [org/beta:Q4]",
                                       "preload: true",
                                       "pin: true",
                                       "priority: 3",
                                       "ttl: 5s",
                                       "timeout: 5s",
                                       "instances: 3",
                                       "instances_min: 1",
                                       "bpw_floor: 4.5",
                                       "on_disconnect: drain",
                                       "allow_smaller: false"};
    for (size_t i = 0; i < TABLE_COUNT(live); i++) {
        char text[128];
        snprintf(text, sizeof text, "models: {alpha: {%s}}", live[i]);
        if (plain != hash_of(text, &s, "alpha"))
            fail_msg("%s changes the hash", live[i]);
    }
    /* the runtime of all models is one of its settings too */
    assert_true(plain != hash_of("llama_server: /bin/other", &s, "alpha"));
    uint64_t seen[TABLE_COUNT(changes)];
    for (size_t i = 0; i < TABLE_COUNT(changes); i++) {
        char text[128];
        snprintf(text, sizeof text, "models: {alpha: {%s}}", changes[i]);
        seen[i] = hash_of(text, &s, "alpha");
        assert_true(seen[i] != plain);
        for (size_t k = 0; k < i; k++)
            assert_true(seen[k] != seen[i]);
    }
    s.entries[0].mtime_ns++; /* the file was replaced */
    assert_true(plain != hash_of("", &s, "alpha"));
    shelf_release(&s);
}

static void choose(const struct model_set *set, const char *asked, const char *known, const char *expected,
                   size_t n_members)
{
    struct choice c;
    struct buf out = {0};
    assert_int_equal(choice_make(set, str_from(asked), known, &c, NULL), RC_OK);
    for (size_t i = 0; i < c.n; i++)
        buf_printf(&out, "%s%.*s", i ? " " : "", STR_ARG(c.names[i]));
    assert_string_equal(out.data, expected);
    assert_int_equal(c.n_members, n_members);
    buf_release(&out);
}

static void groups_and_stand_ins(void **state)
{
    (void)state;
    struct shelf s;
    struct buf out = {0};
    shelf_init(&s);
    struct config *c = parse("models:\n"
                             "  both: {members: [alpha, 'org/beta:Q4'], aliases: [any], fallback: [third]}\n"
                             "  third: {path: /m/third.gguf, fallback: [both, alpha, nobody]}\n"
                             "  alpha: {fallback: ['org/beta:Q4']}\n"
                             "  'org/beta:Q4': {members: [alpha]}\n");
    struct model_set *set = build(c, &s);
    assert_int_equal(set->n, 3);
    assert_int_equal(set->n_groups, 1);
    assert_true(set->has_fallbacks);
    assert_true(warned(set, "models.org/beta:Q4 in line 5 is a model: its members are left out"));
    assert_true(warned(set, "models.third.fallback names nobody, which is no model here"));
    assert_false(warned(set, "both"));
    assert_ptr_equal(model_set_group(set, STR("any")), model_set_group(set, STR("both")));
    assert_null(model_set_group(set, STR("alpha")));
    choose(set, "both", NULL, "alpha org/beta:Q4 third", 2);
    choose(set, "any", NULL, "alpha org/beta:Q4 third", 2);
    choose(set, "third", "third", "third alpha org/beta:Q4 nobody", 1);
    choose(set, "Alpha", "alpha", "Alpha org/beta:Q4", 1); /* as it was typed */
    choose(set, "unknown", NULL, "unknown", 1);
    model_set_list_json(set, NULL, &out);
    assert_non_null(strstr(out.data, "{\"id\":\"both\",\"object\":\"model\",\"created\":0,"));
    buf_clear(&out);
    assert_true(model_set_one_json(set, STR("any"), &out));
    assert_non_null(strstr(out.data, "\"members\":[\"alpha\",\"org/beta:Q4\"]"));
    buf_release(&out);
    model_set_free(set);
    config_free(c);
    shelf_release(&s);
}

static void a_request_without_a_model(void **state)
{
    (void)state;
    struct shelf s;
    struct choice x;
    struct err err;
    shelf_init(&s);
    struct config *c = parse(""), *d = parse("default_model: alpha\n"), *e = parse("default_model: gone\n");
    struct model_set *of_two = build(c, &s), *with_default = build(d, &s), *wrong = build(e, &s);
    assert_int_equal(choice_make(of_two, STR(""), NULL, &x, &err), RC_INVALID);
    assert_non_null(strstr(err.hint, "default_model"));
    choose(with_default, "", NULL, "alpha", 1);
    assert_true(warned(wrong, "default_model names gone"));
    s.catalog.n = 1;
    struct model_set *of_one = build(c, &s);
    choose(of_one, "", NULL, "alpha", 1);
    model_set_free(of_one);
    model_set_free(wrong);
    model_set_free(with_default);
    model_set_free(of_two);
    config_free(e);
    config_free(d);
    config_free(c);
    shelf_release(&s);
}

static void smaller_files_are_found(void **state)
{
    (void)state;
    struct shelf s;
    shelf_init(&s);
    struct model large = *s.facts, small = *s.facts; /* looks only */
    large.path = s.entries[0].path = (char *)(uintptr_t) "/m/alpha-Q8_0.gguf";
    small.path = s.entries[2].path = (char *)(uintptr_t) "/n/Alpha.Q4_K_M.gguf";
    large.tensor_bytes++;
    s.entries[0].model = &large;
    s.entries[2].model = &small;
    struct config *c = parse(""), *not = parse("defaults: {allow_smaller: false}");
    struct model_set *set = build(c, &s), *without = build(not, &s);
    const struct pool_model *p = get(set, "alpha");
    assert_int_equal(p->n_smaller, 1);
    assert_string_equal(p->smaller[0], small.path);
    assert_int_equal(get(set, "org/beta:Q4")->n_smaller, 0);
    assert_int_equal(get(without, "alpha")->n_smaller, 0);
    assert_true(get(without, "alpha")->settings_hash == p->settings_hash); /* nothing that runs is touched */
    model_set_free(set);
    model_set_free(without);
    config_free(c);
    config_free(not );
    shelf_release(&s);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    gguf_path = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_found_is_served), cmocka_unit_test(files_beside_a_model),
        cmocka_unit_test(settings_reach_the_policy),  cmocka_unit_test(only_what_changed_has_another_hash),
        cmocka_unit_test(smaller_files_are_found),    cmocka_unit_test(groups_and_stand_ins),
        cmocka_unit_test(a_request_without_a_model),
    };
    return cmocka_run_group_tests_name("daemon_model_set", tests, NULL, NULL);
}
