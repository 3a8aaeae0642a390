/* Unit tests of roles: what a configuration and the environment make of them, what contradicts, how limits go
 * together on a GPU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "daemon/config.h"
#include "daemon/daemon_priv.h"

#include <stdio.h>
#include <string.h>

static struct config *parse(const char *text)
{
    struct config *c = NULL;
    struct err err = {0};
    if (config_parse(str_from(text), "c.yaml", &c, &err) != RC_OK)
        fail_msg("%s (%s)", err.message, err.hint);
    return c;
}

static void refused(const char *text, const char *message, const char *hint)
{
    struct config *c = NULL;
    struct err err = {0};
    assert_int_equal(config_parse(str_from(text), "c.yaml", &c, &err), RC_INVALID);
    if (!strstr(err.message, message) || !strstr(err.hint, hint))
        fail_msg("<%s>: \"%s\" (%s)", text, err.message, err.hint);
}

static bool has_alias(const struct config_model *m, const char *name)
{
    for (size_t i = 0; i < m->aliases.n; i++)
        if (strcmp(m->aliases.items[i], name) == 0)
            return true;
    return false;
}

static void a_role_names_a_model_and_sets_it(void **state)
{
    (void)state;
    struct config *c =
        parse("defaults: {ctx: 4096}\n"
              "models: {big: {aliases: [large], priority: 3}}\n"
              "roles:\n"
              "  reasoning: {model: large, device: 'cuda:1', vram_limit: 20GiB, fallback: [small]}\n"
              "  embedding: {model: bge-m3, dimensions: 1024}\n"
              "  titles: {model: ./tiny.gguf, preload: false, max_concurrency: 3}\n");
    const struct config_model *big = config_model_for(c, STR("big")),
                              *bge = config_model_for(c, STR("bge-m3")),
                              *titles = config_model_for(c, STR("titles"));
    assert_int_equal(c->n_models, 3);
    assert_int_equal(c->n_written, 1);
    assert_string_equal(config_role(c, STR("reasoning"))->id, "big");
    assert_true(has_alias(big, "reasoning") && has_alias(big, "large"));
    assert_string_equal(big->device, "CUDA1");
    assert_true(big->vram_limit == 20ull << 30);
    assert_int_equal(big->priority, 3);
    assert_int_equal(big->parallel, 1); /* single requests, for latency */
    assert_string_equal(big->fallback.items[0], "small");
    assert_true(has_alias(bge, "embedding") && bge->embedding && bge->preload && big->preload);
    assert_int_equal(config_role(c, STR("embedding"))->dimensions, 1024);
    assert_int_equal(bge->ctx, 4096);
    assert_true(strstr(titles->path, "/tiny.gguf") && !titles->preload && titles->parallel == 3);
    assert_null(config_role(c, STR("nobody")));
    config_free(c);
}

static void a_model_keeps_what_it_says_of_itself(void **state)
{
    (void)state;
    struct config *c = parse("models: {a: {parallel: 5, preload: false}}\n"
                             "roles_preset: single-gpu\n"
                             "roles: {reasoning: {model: a}, embedding: {model: b, vram_limit: 6GiB}}\n");
    const struct config_model *a = config_model_for(c, STR("a")), *b = config_model_for(c, STR("b"));
    assert_int_equal(a->parallel, 5);
    assert_false(a->preload);
    assert_string_equal(a->device, "CUDA0");
    assert_true(a->vram_limit == 16ull << 30 && b->vram_limit == 6ull << 30);
    assert_string_equal(b->device, "CUDA0");
    config_free(c);
}

static void contradictions_are_refused(void **state)
{
    (void)state;
    refused("roles: {reasoning: {device: CUDA0}}", "nobody plays the role reasoning",
            "roles.reasoning.model");
    refused("roles: {a: {model: m, ctx: 2k}, b: {model: m, ctx: 4k}}", "want another ctx of it",
            "model of its own");
    refused("models: {x: {aliases: [reasoning]}}\nroles: {reasoning: {model: y}}",
            "the name reasoning belongs to two", "unique");
    refused("roles: {a: {model: m, dimension: 4}}", "unknown key dimension in roles.a",
            "did you mean dimensions?");
    refused("roles: {a: {model: m, path: x.gguf}}", "unknown key path in roles.a", "");
    refused("roles: {a: {model: m, dimensions: many}}", "dimensions is not a whole number",
            "from 0 to 65536");
    refused("roles: {a: {model: m, parallel: 2, max_concurrency: 3}}", "roles.a.parallel stands twice", "");
    refused("roles: [a]", "roles must be a mapping of roles to settings", "");
    refused("roles: {'': {model: m}}", "1 to 64 characters", "");
}

static void a_host_is_an_upstream_of_the_role(void **state)
{
    (void)state;
    struct config *c = parse(
        "upstreams: {cloud: {url: 'https://h', models: [big]}}\n"
        "roles:\n"
        "  reasoning: {host: '127.0.0.1:8000', model: org/coder-33b, max_concurrency: 2, fallback: [small]}\n"
        "  embedding: {host: 'http://10.0.0.7:8001/v1', model: /data/bge-m3, timeout: 5s, device: CUDA0}\n"
        "  titles: {model: cloud/big}\n");
    const struct config_upstream *u = c->upstreams;
    assert_int_equal(c->n_upstreams, 3);
    assert_string_equal(u[1].name, "reasoning");
    assert_string_equal(u[1].url, "http://127.0.0.1:8000");
    assert_string_equal(u[1].models.items[0].name, "org/coder-33b");
    assert_int_equal(u[1].max_concurrency, 2);
    assert_int_equal(u[1].timeout, 300000);
    assert_string_equal(u[2].url, "http://10.0.0.7:8001/v1");
    assert_int_equal(u[2].timeout, 5000);
    assert_int_equal(u[2].max_concurrency, 0);
    assert_string_equal(config_role(c, STR("reasoning"))->id, "reasoning/org/coder-33b");
    assert_string_equal(config_role(c, STR("embedding"))->id, "embedding//data/bge-m3");
    assert_string_equal(config_model_for(c, STR("reasoning/org/coder-33b"))->fallback.items[0], "small");
    assert_true(config_is_upstream_model(c, STR("reasoning")));
    assert_true(config_is_upstream_model(c, STR("titles")));
    assert_int_equal(c->n_notes, 1);
    assert_non_null(
        strstr(c->notes[0], "roles.embedding: no effect of device, for http://10.0.0.7:8001/v1 serves it"));
    config_free(c);
    refused("roles: {reasoning: {host: 'h:1'}}", "nobody plays the role reasoning", "the name that h:1 has");
    refused("roles: {reasoning: {host: 'ftp://h', model: m}}", "roles.reasoning.host: ", "");
    refused("roles: {reasoning: {host: 'h:0', model: m}}", "roles.reasoning.host: ", "");
    refused("roles: {'a b': {host: 'h:1', model: m}}", "roles.a b.host: an upstream's name has", "");
    refused("upstreams: {a: {url: 'https://h', models: [m]}}\nroles: {a: {host: 'h:1', model: m}}",
            "roles.a.host: an upstream is called a too", "roles.a.model: a/MODEL");
}

static const char *test_env(void *arg, const char *name)
{
    for (const char *const *p = arg; *p; p += 2)
        if (strcmp(p[0], name) == 0)
            return p[1];
    return NULL;
}

static void the_environment_has_names_of_its_own(void **state)
{
    (void)state;
    static const char *const env[] = {"NEURALCURSOR_REASONING_LLM_MODEL",
                                      "deepseek-coder-33b",
                                      "ARRIERO_EMBEDDING_LLM_MODEL",
                                      "bge-m3",
                                      "NEURALCURSOR_EMBEDDING_LLM_MODEL",
                                      "other",
                                      "NEURALCURSOR_EMBEDDING_DIMENSIONS",
                                      "1024",
                                      "ARRIERO_GPU_REASONING_DEVICE",
                                      "cuda:0",
                                      "NEURALCURSOR_GPU_EMBEDDING_DEVICE",
                                      "cuda:1",
                                      "NEURALCURSOR_VRAM_LIMIT_REASONING_GB",
                                      "20",
                                      "NEURALCURSOR_EMBEDDING_LLM_HOST",
                                      "http://localhost:8001",
                                      "ARRIERO_VRAM_LIMIT_EMBEDDING_GB",
                                      "4",
                                      NULL};
    static const char *const bad[] = {"ARRIERO_EMBEDDING_DIMENSIONS", "wide", NULL};
    struct config *c = NULL;
    struct err err;
    struct config_request req = {.no_file = true, .getenv = test_env, .arg = (void *)(uintptr_t)env};
    assert_int_equal(config_load(&req, &c, &err), RC_OK);
    const struct config_model *r = config_model_for(c, STR("deepseek-coder-33b")),
                              *e = config_model_for(c, STR("embedding/bge-m3"));
    assert_int_equal(c->n_upstreams, 1);
    assert_string_equal(c->upstreams[0].url, "http://localhost:8001");
    assert_string_equal(r->device, "CUDA0");
    assert_string_equal(e->device, "CUDA1");
    assert_true(r->vram_limit == 20ull << 30 && e->vram_limit == 4ull << 30);
    assert_int_equal(config_role(c, STR("embedding"))->dimensions, 1024);
    config_free(c);
    req.arg = (void *)(uintptr_t)bad;
    assert_int_equal(config_load(&req, &c, &err), RC_INVALID);
    assert_non_null(strstr(err.message, "environment variable ARRIERO_EMBEDDING_DIMENSIONS"));
}

static void what_is_printed_is_read_back(void **state)
{
    (void)state;
    struct config *c =
        parse("roles: {embedding: {model: m, dimensions: 8, device: CUDA1}, chat: {model: /m/x.gguf},\n"
              "        far: {model: big, host: 'h:1'}}\n"
              "models: {m: {ttl: 5m}}\n");
    struct buf text = {0}, again = {0};
    assert_int_equal(config_yaml(c, &text, NULL), RC_OK);
    struct config *d = parse(text.data);
    assert_int_equal(config_yaml(d, &again, NULL), RC_OK);
    assert_string_equal(text.data, again.data);
    assert_int_equal(d->n_models, 3);
    assert_int_equal(d->n_written, 1);
    assert_int_equal(d->n_upstreams, 1);
    assert_int_equal(config_role(d, STR("embedding"))->dimensions, 8);
    buf_release(&text);
    buf_release(&again);
    config_free(c);
    config_free(d);
}

/* One GPU of 24 GiB, as the sampler tells it. */
static enum rc check_limits(const char *text, struct err *err)
{
    struct hw_inventory *inv = mem_new(struct hw_inventory);
    struct config *c = parse(text);
    inv->n_devices = 1;
    inv->devices[0] = (struct hw_device){
        .name = "CUDA0", .uuid = "GPU-77", .valid = HW_MEMORY | HW_UUID, .total_bytes = 24ull << 30};
    enum rc rc = roles_check_limits(c, inv, err);
    config_free(c);
    free(inv);
    return rc;
}

static void limits_must_leave_room_on_a_gpu(void **state)
{
    (void)state;
    struct err err;
    assert_int_equal(
        check_limits("roles_preset: single-gpu\nroles: {reasoning: {model: a}, embedding: {model: b}}", &err),
        RC_OK);
    assert_int_equal(check_limits("roles: {a: {model: a, device: CUDA0, vram_limit: 19GiB},"
                                  " b: {model: b, device: GPU-77, vram_limit: 4GiB}}",
                                  &err),
                     RC_INVALID);
    assert_non_null(strstr(err.message, "the roles a and b may take"));
    assert_non_null(strstr(err.hint, "95 percent"));
    assert_int_equal(check_limits("roles: {a: {model: a, device: CUDA0, vram_limit: 19GiB},"
                                  " b: {model: b, device: CUDA1, vram_limit: 19GiB}}",
                                  &err),
                     RC_OK);
    assert_int_equal(
        check_limits("roles: {a: {model: m, device: CUDA0, vram_limit: 19GiB}, b: {model: m}}", &err), RC_OK);
    assert_int_equal(check_limits("roles: {a: {model: a, device: CUDA0, vram_limit: 19GiB},"
                                  " b: {model: b, host: 'h:1', device: CUDA0, vram_limit: 19GiB}}",
                                  &err),
                     RC_OK); /* what others serve takes nothing of it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_role_names_a_model_and_sets_it),
        cmocka_unit_test(a_model_keeps_what_it_says_of_itself),
        cmocka_unit_test(contradictions_are_refused),
        cmocka_unit_test(a_host_is_an_upstream_of_the_role),
        cmocka_unit_test(the_environment_has_names_of_its_own),
        cmocka_unit_test(what_is_printed_is_read_back),
        cmocka_unit_test(limits_must_leave_room_on_a_gpu),
    };
    return cmocka_run_group_tests_name("daemon_roles", tests, NULL, NULL);
}
