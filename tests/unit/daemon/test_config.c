/* Unit tests of the configuration: every refusal with its place, precedence, other names, and that what is
 * printed is read back as the same settings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "daemon/config_priv.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct config *parse_ok(const char *text)
{
    struct config *c = NULL;
    struct err err = {0};
    enum rc rc = config_parse(str_from(text), "c.yaml", &c, &err);
    if (rc != RC_OK)
        fail_msg("%s (%s)", err.message, err.hint);
    return c;
}

/* Expects a refusal whose message begins with place and contains part, and whose hint contains hint. */
static void refused(const char *text, const char *place, const char *part, const char *hint)
{
    struct config *c = NULL;
    struct err err = {0};
    enum rc rc = config_parse(str_from(text), "c.yaml", &c, &err);
    if (rc == RC_OK) {
        config_free(c);
        fail_msg("accepted: %s", text);
    }
    assert_null(c);
    if (strncmp(err.message, place, strlen(place)) != 0)
        fail_msg("for <%s>: \"%s\" does not begin with %s", text, err.message, place);
    if (!strstr(err.message, part))
        fail_msg("for <%s>: \"%s\" does not contain \"%s\"", text, err.message, part);
    if (!strstr(err.hint, hint))
        fail_msg("for <%s>: hint \"%s\" does not contain \"%s\"", text, err.hint, hint);
}

/* A check tells them all, the first as the error. */
static void every_mistake_is_found(void **state)
{
    (void)state;
    char path[] = "/tmp/test-config-XXXXXX";
    static const char text[] = "lisen: x\n"
                               "models:\n"
                               "  a: {ctx: lots, kv_type: q8_0, drat: x}\n"
                               "  b: {adapters: [1, 2, 3, 4, 5, 6, 7, 8, 9]}\n"
                               "limits: {max_body: 1}\n";
    static const char *const parts[] = {":1:1: unknown key lisen", ":3:12: ctx is not a number of tokens",
                                        "unknown key drat in models.a", "limits.max_body is not a size",
                                        ":4:1: b has 9 adapters: at most 8"};
    struct config_errors *all = mem_new(struct config_errors);
    struct config *c = NULL;
    struct err err;
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text, sizeof text - 1) == sizeof text - 1);
    close(fd);
    const struct config_request req = {.file = path, .errors = all};
    assert_int_equal(config_load(&req, &c, &err), RC_INVALID);
    assert_null(c);
    for (size_t i = 0; i < TABLE_COUNT(parts) && i < all->n; i++)
        if (!strstr(all->list[i].message, parts[i]))
            fail_msg("\"%s\" does not contain \"%s\"", all->list[i].message, parts[i]);
    assert_int_equal(all->n, TABLE_COUNT(parts));
    assert_string_equal(err.message, all->list[0].message);
    const struct config_request plain = {.file = path};
    struct err first;
    assert_int_equal(config_load(&plain, &c, &first), RC_INVALID);
    assert_string_equal(first.message, err.message);
    free(all);
    unlink(path);
}

static void an_empty_file_gives_the_defaults(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "# nothing\n", "---\n", "models:\nlimits:\n", "{}"};
    for (size_t i = 0; i < TABLE_COUNT(texts); i++) {
        struct config *c = parse_ok(texts[i]);
        assert_int_equal(c->listen.n, 1);
        assert_string_equal(c->listen.items[0], "127.0.0.1:11435");
        assert_true(c->usual_caches);
        assert_false(c->insecure);
        assert_true(c->max_body == 64 * MIB);
        assert_true(c->load_timeout == 300000);
        assert_true(c->reserve_host == UINT64_MAX);
        assert_true(c->warn_fill == 87.5);
        assert_string_equal(c->defaults.strategy, "balanced");
        assert_int_equal(c->defaults.gpu_layers, CONFIG_LAYERS_AUTO);
        assert_true(c->defaults.margin == 256 * MIB);
        assert_int_equal(c->n_models, 0);
        config_free(c);
    }
}

static void values_of_every_type_are_read(void **state)
{
    (void)state;
    struct config *c =
        parse_ok("listen: ['127.0.0.1:1', '[::1]:2']\n"
                 "socket: /run/a.sock\n"
                 "models_dirs: /models\n"
                 "usual_caches: false\n"
                 "log_level: debug\n"
                 "reserve_host: 2GiB\n"
                 "runtime: {llama_server: llama-server}\n"
                 "budget: {host: 600MiB, CUDA0: 20GiB}\n"
                 "limits:\n  max_body: 1MiB\n  load_timeout: 5m\n  max_waiting: 7\n"
                 "thresholds: {warn_fill: 0.8, critical_fill: 90%}\n"
                 "defaults: {ctx: 4096, kv_type: q8_0, extra_args: [--foo, 'b c']}\n"
                 "models:\n"
                 "  org/repo:Q4_K_M:\n"
                 "    path: /m.gguf\n    aliases: [gpt-4, small]\n    gpu_layers: all\n    priority: -3\n"
                 "    ttl: 10m\n    pin: true\n    strategy: fit-vram:8000\n"
                 "  other: {ctx: auto, gpu_layers: 12}\n");
    assert_int_equal(c->listen.n, 2);
    assert_string_equal(c->listen.items[1], "[::1]:2");
    assert_string_equal(c->models_dirs.items[0], "/models");
    assert_string_equal(c->llama_server, "llama-server");
    assert_true(c->reserve_host == 2048 * MIB);
    assert_int_equal(c->n_budgets, 2);
    assert_string_equal(c->budgets[0].device, "Host");
    assert_true(c->budgets[0].bytes == 600 * MIB);
    assert_true(c->max_body == MIB && c->load_timeout == 300000 && c->max_waiting == 7);
    assert_true(c->warn_fill == 80 && c->critical_fill == 90);
    const struct config_model *m = config_model_for(c, STR("org/repo:Q4_K_M"));
    assert_string_equal(m->path, "/m.gguf");
    assert_int_equal(m->aliases.n, 2);
    assert_int_equal(m->gpu_layers, CONFIG_LAYERS_ALL);
    assert_int_equal(m->priority, -3);
    assert_true(m->ttl == 600000 && m->pin && !m->preload);
    assert_int_equal(m->ctx, 4096); /* inherited */
    assert_string_equal(m->kv_type, "q8_0");
    assert_int_equal(m->extra_args.n, 2);
    assert_string_equal(m->extra_args.items[1], "b c");
    m = config_model_for(c, STR("other"));
    assert_int_equal(m->ctx, 0);
    assert_int_equal(m->gpu_layers, 12);
    assert_ptr_equal(config_model_for(c, STR("unknown")), &c->defaults);
    config_free(c);
}

static void the_old_json_is_understood(void **state)
{
    (void)state;
    struct config *c =
        parse_ok("{\n\t\"backend\": \"llama.cpp\",\n\t\"server_pool\": {\"size\": 4, \"port_start\": 8080},\n"
                 "  \"models\": {\"llama-7b\": {\"path\": \"/models/llama-7b.gguf\", \"max_gpus\": 2}},\n"
                 "  \"gpu_util_threshold\": 50, \"gpu_mem_threshold\": 0.5,\n"
                 "  \"ctx_size\": 2048, \"cache_type_bits\": 16, \"gpu_layers\": -1\n}\n");
    assert_int_equal(c->n_models, 1);
    const struct config_model *m = config_model_for(c, STR("llama-7b"));
    assert_string_equal(m->path, "/models/llama-7b.gguf");
    assert_int_equal(m->max_gpus, 2);
    assert_int_equal(m->ctx, 2048);
    assert_string_equal(m->kv_type, "f16");
    assert_int_equal(m->gpu_layers, CONFIG_LAYERS_ALL);
    assert_true(c->admit_util == 50 && c->admit_fill == 50);
    assert_int_equal(c->n_notes, 3);
    assert_non_null(strstr(c->notes[0], "c.yaml:2:2: backend has no effect"));
    assert_non_null(strstr(c->notes[1], "server_pool.size"));
    config_free(c);
    c = parse_ok("cache_type_bits: 8\n");
    assert_string_equal(c->defaults.kv_type, "q8_0");
    config_free(c);
}

static void unknown_keys_name_the_nearest(void **state)
{
    (void)state;
    refused("lisen: 127.0.0.1:1\n", "c.yaml:1:1: ", "unknown key lisen", "did you mean listen?");
    refused("a: 1\n", "c.yaml:1:1: ", "unknown key a", "arriero config keys");
    refused("limits:\n  max_boddy: 1\n", "c.yaml:2:3: ", "unknown key max_boddy in limits",
            "did you mean max_body?");
    refused("max_body: 1\n", "c.yaml:1:1: ", "unknown key max_body", "did you mean limits.max_body?");
    refused("priority: 1\n", "c.yaml:1:1: ", "unknown key priority", "did you mean defaults.priority?");
    refused("models:\n  m:\n    pth: /x\n", "c.yaml:3:5: ", "unknown key pth in models.m",
            "did you mean path?");
    refused("defaults: {strateg: balanced}\n", "c.yaml:1:12: ", "unknown key strateg in defaults",
            "did you mean strategy?");
    refused("limits.max_body: 1\n", "c.yaml:1:1: ", "unknown key", "");
    refused("<<: {a: 1}\n", "c.yaml:1:1: ", "unknown key <<", "");
    refused("'': 1\n", "c.yaml:1:1: ", "unknown key", "");
}

static void wrong_values_name_what_is_expected(void **state)
{
    (void)state;
    refused("usual_caches: maybe\n", "c.yaml:1:15: ", "usual_caches is not true or false: \"maybe\"", "");
    refused("usual_caches: 'true'\n", "c.yaml:1:15: ", "not a text in quotes", "without quotes");
    refused("usual_caches: [true]\n", "c.yaml:1:15: ", "must be true or false, not a list", "");
    refused("usual_caches:\n", "c.yaml:1:14: ", "has no value", "");
    refused("log_level: loud\n", "c.yaml:1:12: ", "log_level does not know \"loud\"",
            "error|warn|info|debug");
    refused("reserve_host: lots\n", "c.yaml:1:15: ", "not a size such as", "");
    refused("reserve_host: -1\n", "c.yaml:1:15: ", "not a size", "");
    refused("limits: {max_body: 1}\n", "c.yaml:1:20: ", "limits.max_body", "from 1024 to");
    refused("limits: {max_waiting: 0}\n", "c.yaml:1:23: ", "whole number", "from 1 to 1000000");
    refused("limits: {max_waiting: 1.5}\n", "c.yaml:1:23: ", "whole number", "");
    refused("limits: {load_timeout: soon}\n", "c.yaml:1:24: ", "a duration such as", "");
    refused("limits: 5\n", "c.yaml:1:9: ", "limits must be", "");
    refused("limits: [1]\n", "c.yaml:1:9: ", "limits must be", "");
    refused("thresholds: {warn_fill: 101%}\n", "c.yaml:1:25: ", "a share such as", "");
    refused("thresholds: {warn_fill: nan}\n", "c.yaml:1:25: ", "a share such as", "");
    refused("models: [a, b]\n", "c.yaml:1:9: ", "models must be a mapping of model ids", "");
    refused("models: {m: 5}\n", "c.yaml:1:13: ", "models.m must be a mapping", "");
    refused("models: {m: {ctx: lots}}\n", "c.yaml:1:19: ", "ctx is not a number of tokens", "or auto");
    refused("models: {m: {kv_type: q3_9}}\n", "c.yaml:1:23: ", "kv_type", "q8_0");
    refused("models: {m: {strategy: fastest}}\n", "c.yaml:1:24: ", "strategy is not a strategy",
            "max-performance");
    refused("models: {m: {gpu_layers: -7}}\n", "c.yaml:1:26: ", "a number of layers, all or auto", "");
    refused("models: {m: {aliases: [[a]]}}\n", "c.yaml:1:24: ", "must be a list of texts, not a list", "");
    refused("models: {m: {aliases: ['']}}\n", "c.yaml:1:24: ", "aliases", "");
    refused("models: {? [a] : {}}\n", "c.yaml:1:12: ", "a key must be a single word", "");
    refused("defaults: {path: /x}\n", "c.yaml:1:12: ", "path belongs to one model", "under models:");
    refused("budget: {Host: many}\n", "c.yaml:1:16: ", "budget of Host is not a size", "600MiB");
    refused("budget: {Host: 1GiB, host: 2GiB}\n", "c.yaml:1:22: ", "budget names Host twice", "");
    refused("budget:\n  host: 600MiB\n  hots: 3\n", "c.yaml:3:3: ", "unknown device \"hots\"",
            "did you mean Host?");
    refused("budget: {CUDA: 1GiB}\n", "c.yaml:1:10: ", "unknown device \"CUDA\"", "CUDA0");
    refused("budget: {Host: [1]}\n", "c.yaml:1:16: ", "budget must be", "");
    refused("budget: 5GiB\n", "c.yaml:1:9: ", "a mapping of devices to sizes, not a single value", "");
    refused("api_keys: [secret]\n", "c.yaml:1:11: ", "api_keys may not stand in a file", "ARRIERO_API_KEYS");
    refused("[1, 2]\n", "c.yaml:1:1: ", "must be a mapping", "");
    refused("hello\n", "c.yaml:1:1: ", "must be a mapping", "");
}

static void settings_that_contradict_are_refused(void **state)
{
    (void)state;
    refused("listen: a:1\nusual_caches: true\nlisten: b:2\n", "c.yaml:3:1: ", "listen stands twice", "");
    refused("ctx_size: 1\ndefaults: {ctx: 2}\n", "c.yaml:2:12: ", "defaults.ctx stands twice", "");
    refused("defaults: {ctx: 2}\nctx_size: 1\n", "c.yaml:2:1: ", "stands twice", "");
    refused("models: {m: {ctx: 1, ctx_size: 2}}\n", "c.yaml:1:22: ", "models.m.ctx stands twice", "");
    refused("models:\n  a: {}\n  b: {}\n  a: {}\n",
            "c.yaml:4:3: ", "the key a stands twice (first in line 2)", "");
    refused("models:\n  a: {aliases: [x]}\n  b: {aliases: [x]}\n", "c.yaml:3:1: ", "x belongs to two models",
            "unique");
    refused("models:\n  a: {aliases: [b]}\n  b: {}\n", "c.yaml:3:1: ", "b belongs to two models", "");
    refused("limits: {body_budget: 1MiB}\n", "limits.body_budget", "less than limits.max_body", "");
    refused("listen: []\n", "listen names no address", "", "");
    refused("listen: 127.0.0.1:70000\n", "listen address", "no valid port", "ADDRESS:PORT");
    refused("control_listen: nowhere\n", "listen address", "", "ADDRESS:PORT");
    refused("rpc: [worker]\n", "rpc: \"worker\" is no HOST:PORT", "", "192.168.1.20:50052");
    refused("tls: {cert: /c.pem}\n", "tls.cert is set, and tls.key is not", "", "both");
    refused("tls: {key: /k.pem}\n", "tls.key is set, and tls.cert is not", "", "both");
    refused("runtime: {dialects: [openai, klingon]}\n", "c.yaml:1:30: ", "does not know \"klingon\"",
            "anthropic");
    refused("\tlisten: x\n", "c.yaml:1:1: ", "", "tabs do not");
    refused("thresholds: {warn_temperature: 95}\n", "a warning threshold", "", "");
}

static void what_only_a_hostile_file_needs_is_refused(void **state)
{
    (void)state;
    refused("models: &a {}\n", "c.yaml:1:9: ", "anchors", "");
    refused("a: &x [lol]\nb: [*x, *x]\n", "c.yaml:1:4: ", "anchors", "");
    refused("listen: *x\n", "c.yaml:1:9: ", "aliases", "");
    refused("listen: !!binary aGk=\n", "c.yaml:1:9: ", "tags", "");
    refused("a: 1\n---\nb: 2\n", "c.yaml:2:1: ", "only one document", "");
    refused("a: [1\n", "c.yaml:", "", "");
    refused("a: b: c\n", "c.yaml:1:5: ", "", "");
    refused("\tlisten: x\n", "c.yaml:1:1: ", "", "");
    refused("a: \"\\q\"\n", "c.yaml:1:", "", "");
    refused("a: \xff\xfe\n", "c.yaml:", "", "");
    struct buf deep = {0};
    for (int i = 0; i < 5000; i++)
        buf_puts(&deep, "[");
    refused(deep.data, "c.yaml:1:17: ", "nested too deeply", "");
    buf_clear(&deep);
    for (int i = 0; i < 5000; i++)
        buf_printf(&deep, "k%d: 1\n", i);
    refused(deep.data, "c.yaml:1:1: ", "more than 4096 keys", "");
    buf_clear(&deep);
    buf_puts(&deep, "listen: [");
    for (int i = 0; i < 200000; i++)
        buf_puts(&deep, "a,");
    refused(deep.data, "c.yaml:1:", "too many values", "");
    buf_clear(&deep);
    for (int i = 0; i < 1100; i++)
        buf_printf(&deep, "#%01023d\n", i);
    refused(deep.data, "c.yaml is larger than 1 MiB", "", "");
    buf_release(&deep);
}

static const char *test_env(void *arg, const char *name)
{
    const char *const *pairs = arg;
    for (; pairs[0]; pairs += 2)
        if (strcmp(pairs[0], name) == 0)
            return pairs[1];
    return NULL;
}

static void flags_win_over_environment_over_file_over_default(void **state)
{
    (void)state;
    char path[] = "/tmp/test-config-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    static const char text[] = "listen: 1.1.1.1:1\nsocket: /file.sock\nlog_level: warn\nmodels_dirs: [sub]\n"
                               "limits: {max_waiting: 3}\n";
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    static const char *const env[] = {"ARRIERO_SOCKET",
                                      "/env.sock",
                                      "ARRIERO_LOG_LEVEL",
                                      "error",
                                      "ARRIERO_LIMITS_MAX_WAITING",
                                      "4",
                                      "ARRIERO_LLAMA_SERVER",
                                      "/bin/ls",
                                      "ARRIERO_API_KEYS",
                                      "one, two",
                                      "ARRIERO_DEFAULTS_CTX",
                                      "512",
                                      "ARRIERO_DEFAULTS_KV_TYPE_K",
                                      "q8_0",
                                      "ARRIERO_BUDGET",
                                      "Host=1GiB,CUDA1=2GiB",
                                      NULL};
    static const struct config_flag flags[] = {
        {"log_level", "debug"}, {"models_dirs", "/a"}, {"models_dirs", "/b"}};
    struct config_request req = {
        .file = path, .flags = flags, .n_flags = 3, .getenv = test_env, .arg = (void *)(uintptr_t)env};
    struct config *c = NULL;
    struct err err;
    if (config_load(&req, &c, &err) != RC_OK)
        fail_msg("%s", err.message);
    assert_string_equal(c->listen.items[0], "1.1.1.1:1");
    assert_string_equal(c->socket, "/env.sock");
    assert_string_equal(c->log_level, "debug");
    assert_int_equal(c->max_waiting, 4);
    assert_string_equal(c->llama_server, "/bin/ls");
    assert_int_equal(c->api_keys.n, 2);
    assert_string_equal(c->api_keys.items[1], "two");
    assert_int_equal(c->models_dirs.n, 2);
    assert_string_equal(c->models_dirs.items[1], "/b");
    assert_int_equal(c->defaults.ctx, 512);
    assert_string_equal(c->defaults.kv_type_k, "q8_0");
    assert_int_equal(c->n_budgets, 2);
    assert_true(c->idle_timeout == 75000);
    /* keys are shown nowhere; origins are */
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_doc_set_root(doc, config_json(c, doc, true));
    struct buf out = {0};
    assert_int_equal(json_write(doc, false, &out, &err), RC_OK);
    assert_null(strstr(out.data, "\"two\""));
    assert_non_null(strstr(out.data, "\"socket\":\"environment\""));
    assert_non_null(strstr(out.data, "\"listen\":\"file\""));
    assert_non_null(strstr(out.data, "\"log_level\":\"flag\""));
    assert_non_null(strstr(out.data, "\"limits.idle_timeout\":\"default\""));
    buf_release(&out);
    yyjson_mut_doc_free(doc);
    config_free(c);
    /* relative paths of a file start at the file */
    req.n_flags = 0;
    assert_int_equal(config_load(&req, &c, &err), RC_OK);
    assert_string_equal(c->models_dirs.items[0], "/tmp/sub");
    config_free(c);
    static const char *const bad[] = {"ARRIERO_LIMITS_MAX_WAITING", "none", NULL};
    req.arg = (void *)(uintptr_t)bad;
    c = NULL;
    assert_int_equal(config_load(&req, &c, &err), RC_INVALID);
    assert_null(c);
    assert_non_null(strstr(err.message, "ARRIERO_LIMITS_MAX_WAITING"));
    unlink(path);
    assert_int_equal(config_load(&req, &c, &err), RC_NOT_FOUND);
    assert_non_null(strstr(err.message, path));
}

static void what_is_printed_is_read_back(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "listen: ['127.0.0.1:1', '[::1]:2']\nlimits: {load_timeout: 1500ms, max_body: 1500000}\n"
        "thresholds: {warn_fill: 0.333333333333, critical_fill: 99.9}\nreserve_host: 7777\n"
        "budget: {Host: 600MiB, CUDA0: 1}\n"
        "defaults: {ctx: 100, kv_type: q4_0, gpu_layers: 3, vram_limit: 1GiB, extra_args: ['--a b', "
        "\"\\t\\x7f\\u2028\"]}\n"
        "models:\n  'true': {aliases: ['no', '12', ' x ', \"q\\\"uo\\\\te\", '\xc3\xa9\xf0\x9f\x99\x82'], "
        "pin: true}\n"
        "  \"org/a:b #c\": {path: '~x', priority: -1, ctx: auto, strategy: 'fit-vram:123'}\n",
    };
    for (size_t i = 0; i < TABLE_COUNT(texts); i++) {
        struct config *a = parse_ok(texts[i]);
        struct buf first = {0}, second = {0};
        assert_int_equal(config_yaml(a, &first, NULL), RC_OK);
        struct config *b = parse_ok(first.data);
        for (size_t k = 0; k < config_n_keys; k++)
            if (config_keys[k].type < CONFIG_BUDGETS && !config_value_equal(&config_keys[k], a, b))
                fail_msg("%s differs after a round trip", config_keys[k].path);
        assert_int_equal(a->n_models, b->n_models);
        for (size_t m = 0; m < a->n_models; m++)
            for (size_t k = 0; k < config_n_model_keys; k++)
                if (!config_value_equal(&config_model_keys[k], &a->models[m].m, &b->models[m].m))
                    fail_msg("%s differs after a round trip", config_model_keys[k].path);
        assert_int_equal(config_yaml(b, &second, NULL), RC_OK);
        assert_string_equal(first.data, second.data);
        buf_release(&first);
        buf_release(&second);
        config_free(a);
        config_free(b);
    }
}

/* Values in the schema have the types of their keys, and lists of words name the words. */
static void the_schema_tells_choices_and_defaults(void **state)
{
    (void)state;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_doc_set_root(doc, config_schema(doc));
    struct {
        const char *pointer;
        bool (*is)(yyjson_mut_val *);
    } rows[] = {
        {"/properties/usual_caches/default", yyjson_mut_is_bool},
        {"/properties/limits/properties/max_waiting/default", yyjson_mut_is_int},
        {"/properties/log_level/default", yyjson_mut_is_str},
        {"/properties/log_level/enum/0", yyjson_mut_is_str},
        {"/properties/runtime/properties/dialects/items/enum/0", yyjson_mut_is_str},
        {"/properties/defaults/properties/kv_type/examples/0", yyjson_mut_is_str},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++)
        if (!rows[i].is(yyjson_mut_doc_ptr_get(doc, rows[i].pointer)))
            fail_msg("%s is not of its type", rows[i].pointer);
    yyjson_mut_doc_free(doc);
}

static void the_schema_and_reference_name_every_key(void **state)
{
    (void)state;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *schema = config_schema(doc);
    yyjson_mut_val *properties = yyjson_mut_obj_get(schema, "properties");
    struct buf text = {0}, man = {0};
    config_reference(CONFIG_REFERENCE_TEXT, &text);
    config_reference(CONFIG_REFERENCE_MAN, &man);
    for (size_t i = 0; i < config_n_keys; i++) {
        char pointer[128];
        assert_non_null(strstr(text.data, config_keys[i].path));
        assert_true(strlen(config_keys[i].help) > 8);
        if (config_keys[i].flags & CONFIG_ENV_ONLY)
            continue;
        const char *dot = strchr(config_keys[i].path, '.');
        snprintf(pointer, sizeof pointer, dot ? "/%.*s/properties/%s" : "/%.*s",
                 dot ? (int)(dot - config_keys[i].path) : 100, config_keys[i].path, dot ? dot + 1 : "");
        if (!yyjson_mut_ptr_get(properties, pointer))
            fail_msg("the schema lacks %s", pointer);
    }
    yyjson_mut_val *model = yyjson_mut_ptr_get(properties, "/models/additionalProperties/properties");
    yyjson_mut_val *defaults = yyjson_mut_ptr_get(properties, "/defaults/properties");
    assert_non_null(yyjson_mut_obj_get(model, "path"));
    assert_non_null(yyjson_mut_obj_get(model, "ctx_size"));
    assert_null(yyjson_mut_obj_get(defaults, "path"));
    assert_non_null(yyjson_mut_obj_get(defaults, "kv_type"));
    assert_non_null(strstr(man.data, ".TH ARRIERO.YAML 5"));
    assert_non_null(strstr(man.data, "ARRIERO_LIMITS_MAX_BODY"));
    buf_release(&text);
    buf_release(&man);
    yyjson_mut_doc_free(doc);
}

static void keys_that_need_a_restart_are_told(void **state)
{
    (void)state;
    struct config *a = parse_ok("listen: 127.0.0.1:1\nlog_level: warn\n"),
                  *b = parse_ok("usual_caches: false\n");
    const char *keys[8];
    assert_int_equal(config_restart_keys(a, b, keys, 8), 2);
    assert_string_equal(keys[0], "listen");
    assert_string_equal(keys[1], "log_level");
    assert_int_equal(config_restart_keys(a, a, keys, 8), 0);
    config_free(a);
    config_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_mistake_is_found),
        cmocka_unit_test(an_empty_file_gives_the_defaults),
        cmocka_unit_test(values_of_every_type_are_read),
        cmocka_unit_test(the_old_json_is_understood),
        cmocka_unit_test(unknown_keys_name_the_nearest),
        cmocka_unit_test(wrong_values_name_what_is_expected),
        cmocka_unit_test(settings_that_contradict_are_refused),
        cmocka_unit_test(what_only_a_hostile_file_needs_is_refused),
        cmocka_unit_test(flags_win_over_environment_over_file_over_default),
        cmocka_unit_test(what_is_printed_is_read_back),
        cmocka_unit_test(the_schema_tells_choices_and_defaults),
        cmocka_unit_test(the_schema_and_reference_name_every_key),
        cmocka_unit_test(keys_that_need_a_restart_are_told),
    };
    return cmocka_run_group_tests_name("daemon_config", tests, NULL, NULL);
}
