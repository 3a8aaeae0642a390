/* The types of configuration values: text → field, field → JSON, equality. One row of `types` a type. Layer
 * daemon; pure but for $HOME and the current directory in paths. */
#include "daemon/config_priv.h"

#include "gguf/model.h"
#include "plan/plan.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct context {
    struct config *c;
    const struct config_key *key;
    const char *base_dir;
};

typedef bool (*from_text_fn)(const struct context *x, struct str text, void *field);
typedef yyjson_mut_val *(*to_json_fn)(const struct config_key *key, const void *field, yyjson_mut_doc *doc);

/* ---- text → field; false: not a value of the type, or out of range ---- */

static bool from_string(const struct context *x, struct str text, void *field)
{
    if (memchr(text.p ? text.p : "", '\0', text.n))
        return false;
    char *copy = arena_strndup(&x->c->arena, text.p ? text.p : "", text.n);
    if (!copy)
        return false;
    *(const char **)field = copy;
    return true;
}

static bool from_path(const struct context *x, struct str text, void *field)
{
    if (!text.p)
        text = STR("");
    if (memchr(text.p, '\0', text.n) || text.n > 4000)
        return false;
    char cwd[4096], *full;
    const char *home = getenv("HOME");
    if (text.n == 0 || text.p[0] == '/') {
        return from_string(x, text, field);
    } else if (home && text.p[0] == '~' && (text.n == 1 || text.p[1] == '/')) {
        full = arena_printf(&x->c->arena, "%s%.*s", home, (int)text.n - 1, text.p + 1);
    } else {
        const char *base = x->base_dir ? x->base_dir : getcwd(cwd, sizeof cwd);
        if (!base)
            return false;
        full = arena_printf(&x->c->arena, "%s/%.*s", base, STR_ARG(text));
    }
    if (!full)
        return false;
    *(const char **)field = full;
    return true;
}

static bool from_program(const struct context *x, struct str text, void *field)
{
    return str_find(text, STR("/")) < 0 ? from_string(x, text, field) : from_path(x, text, field);
}

bool config_is_model_path(struct str text)
{
    return str_ends(text, ".gguf") || str_starts(text, "/") || str_starts(text, "./") ||
           str_starts(text, "../") || str_starts(text, "~/");
}

/* An id may hold a slash, so a path must look like one. */
static bool from_model(const struct context *x, struct str text, void *field)
{
    return config_is_model_path(text) ? from_path(x, text, field) : from_string(x, text, field);
}

/* As llama.cpp spells it; other programs say cuda:0. */
static bool from_device(const struct context *x, struct str text, void *field)
{
    static const struct str cuda = {"cuda:", 5};
    uint64_t number;
    if (text.n <= cuda.n || !str_ieq((struct str){text.p, cuda.n}, cuda) ||
        !str_u64((struct str){text.p + cuda.n, text.n - cuda.n}, &number))
        return from_string(x, text, field);
    char *name = number > 999 ? NULL : arena_printf(&x->c->arena, "CUDA%u", (unsigned)number);
    if (name)
        *(const char **)field = name;
    return name != NULL;
}

static bool from_bool(const struct context *x, struct str text, void *field)
{
    (void)x;
    if (!str_eq_c(text, "true") && !str_eq_c(text, "false"))
        return false;
    *(bool *)field = text.n == 4;
    return true;
}

static bool from_switch(const struct context *x, struct str text, void *field)
{
    bool on;
    if (str_eq_c(text, "auto"))
        *(enum config_switch *)field = CONFIG_SWITCH_AUTO;
    else if (from_bool(x, text, &on))
        *(enum config_switch *)field = on ? CONFIG_SWITCH_ON : CONFIG_SWITCH_OFF;
    else
        return false;
    return true;
}

static bool in_range(const struct context *x, int64_t v)
{
    return v >= x->key->lo && (v < 0 || (uint64_t)v <= x->key->hi);
}

static bool from_count(const struct context *x, struct str text, bool (*number)(struct str, uint64_t *),
                       void *field)
{
    uint64_t v = 0;
    bool is_auto = (x->key->flags & CONFIG_AUTO) && str_eq_c(text, "auto");
    if (!is_auto && (!number(text, &v) || v > UINT32_MAX || !in_range(x, (int64_t)v)))
        return false;
    *(uint32_t *)field = (uint32_t)v;
    return true;
}

static bool from_u32(const struct context *x, struct str text, void *field)
{
    return from_count(x, text, str_u64, field);
}

static bool from_tokens(const struct context *x, struct str text, void *field)
{
    return from_count(x, text, str_tokens, field);
}

static bool from_i32(const struct context *x, struct str text, void *field)
{
    int64_t v;
    if (!str_i64(text, &v) || v < INT32_MIN || v > INT32_MAX || !in_range(x, v))
        return false;
    *(int32_t *)field = (int32_t)v;
    return true;
}

static bool from_number(const struct context *x, struct str text, void *field)
{
    double v;
    if (!str_double(text, &v) || !(v >= (double)x->key->lo && v <= (double)x->key->hi))
        return false;
    *(double *)field = v;
    return true;
}

static bool from_layers(const struct context *x, struct str text, void *field)
{
    if (str_eq_c(text, "auto"))
        *(int32_t *)field = CONFIG_LAYERS_AUTO;
    else if (str_eq_c(text, "all"))
        *(int32_t *)field = CONFIG_LAYERS_ALL;
    else
        return from_i32(x, text, field);
    return true;
}

static bool is_choice(const char *choices, struct str text)
{
    struct str rest = str_from(choices);
    while (rest.n)
        if (str_eq(str_cut(&rest, '|'), text))
            return true;
    return false;
}

static bool from_enum(const struct context *x, struct str text, void *field)
{
    return is_choice(x->key->choices, text) && from_string(x, text, field);
}

static bool from_kv_type(const struct context *x, struct str text, void *field)
{
    uint32_t type;
    if (is_choice(x->key->choices, text))
        return from_string(x, text, field);
    /* 16, 8, 4 and their like, as other configurations have them */
    if (!ggml_type_from(text, &type))
        return false;
    struct str word = str_from(ggml_type_info(type)->word);
    return is_choice(x->key->choices, word) && from_string(x, word, field);
}

static bool from_strategy(const struct context *x, struct str text, void *field)
{
    enum plan_strategy strategy;
    uint64_t limit;
    return plan_strategy_from(text, &strategy, &limit) && from_string(x, text, field);
}

static bool from_bytes(const struct context *x, struct str text, void *field)
{
    uint64_t v = UINT64_MAX;
    bool is_auto = (x->key->flags & CONFIG_AUTO) && str_eq_c(text, "auto");
    if (!is_auto && (!str_bytes(text, &v) || v > INT64_MAX || !in_range(x, (int64_t)v)))
        return false;
    *(uint64_t *)field = v;
    return true;
}

static bool from_duration(const struct context *x, struct str text, void *field)
{
    uint64_t v = UINT64_MAX;
    bool is_auto = (x->key->flags & CONFIG_AUTO) && str_eq_c(text, "auto");
    if (!is_auto && (!str_duration_ms(text, &v) || v > INT64_MAX || !in_range(x, (int64_t)v)))
        return false;
    *(uint64_t *)field = v;
    return true;
}

static bool from_percent(const struct context *x, struct str text, void *field)
{
    double v;
    bool sign = str_ends(text, "%");
    if (sign)
        text = str_trim((struct str){text.p, text.n - 1});
    if (!str_double(text, &v) || !(v >= 0 && v <= (double)x->key->hi))
        return false;
    *(double *)field = !sign && v <= 1 ? v * 100 : v; /* 0.5 is a half */
    return true;
}

static bool append(const struct context *x, const char *item, struct config_list *list)
{
    const char **items = (const char **)(uintptr_t)list->items;
    if ((list->n & (list->n - 1)) == 0) { /* full at each power of two */
        const char **more = arena_array(&x->c->arena, list->n ? 2 * list->n : 1, sizeof *more);
        if (!more)
            return false;
        if (list->n)
            memcpy(more, items, list->n * sizeof *more);
        items = more;
    }
    items[list->n++] = item;
    list->items = items;
    return true;
}

static bool from_item(const struct context *x, struct str text, void *field)
{
    const char *item;
    if (x->key->choices && !is_choice(x->key->choices, text))
        return false;
    return text.n > 0 && from_string(x, text, &item) && append(x, item, field);
}

static bool from_path_item(const struct context *x, struct str text, void *field)
{
    const char *item;
    return text.n > 0 && from_path(x, text, &item) && append(x, item, field);
}

/* NAME, or NAME=REMOTE. */
static bool from_remote(const struct context *x, struct str text, void *field)
{
    struct str name = str_cut(&text, '=');
    struct config_remote *m = name.n ? config_remote_add(x->c, field, name) : NULL;
    return m && (!text.n || from_string(x, text, &m->remote));
}

/* ---- field → JSON ---- */

static yyjson_mut_val *json_string(const struct config_key *key, const void *field, yyjson_mut_doc *doc)
{
    (void)key;
    return yyjson_mut_strcpy(doc, *(const char *const *)field);
}

static yyjson_mut_val *json_of_bool(const struct config_key *key, const void *field, yyjson_mut_doc *doc)
{
    (void)key;
    return yyjson_mut_bool(doc, *(const bool *)field);
}

static yyjson_mut_val *json_switch(const struct config_key *key, const void *field, yyjson_mut_doc *doc)
{
    enum config_switch v = *(const enum config_switch *)field;
    (void)key;
    return v == CONFIG_SWITCH_AUTO ? yyjson_mut_str(doc, "auto")
                                   : yyjson_mut_bool(doc, v == CONFIG_SWITCH_ON);
}

static yyjson_mut_val *json_u32(const struct config_key *key, const void *field, yyjson_mut_doc *doc)
{
    uint32_t v = *(const uint32_t *)field;
    return v == 0 && (key->flags & CONFIG_AUTO) ? yyjson_mut_str(doc, "auto") : yyjson_mut_uint(doc, v);
}

static yyjson_mut_val *json_i32(const struct config_key *key, const void *field, yyjson_mut_doc *doc)
{
    (void)key;
    return yyjson_mut_sint(doc, *(const int32_t *)field);
}

static yyjson_mut_val *json_number(const struct config_key *key, const void *field, yyjson_mut_doc *doc)
{
    (void)key;
    return yyjson_mut_real(doc, *(const double *)field);
}

static yyjson_mut_val *json_layers(const struct config_key *key, const void *field, yyjson_mut_doc *doc)
{
    (void)key;
    int32_t v = *(const int32_t *)field;
    if (v == CONFIG_LAYERS_AUTO || v == CONFIG_LAYERS_ALL)
        return yyjson_mut_str(doc, v == CONFIG_LAYERS_AUTO ? "auto" : "all");
    return yyjson_mut_sint(doc, v);
}

struct unit {
    const char *word;
    uint64_t factor;
};

static yyjson_mut_val *json_in_units(yyjson_mut_doc *doc, uint64_t v, const struct unit *units, size_t n)
{
    char text[40];
    for (size_t i = 0; i < n; i++)
        if (v >= units[i].factor && v % units[i].factor == 0) {
            snprintf(text, sizeof text, "%llu%s", (unsigned long long)(v / units[i].factor), units[i].word);
            return yyjson_mut_strcpy(doc, text);
        }
    return yyjson_mut_uint(doc, v);
}

static yyjson_mut_val *json_bytes(const struct config_key *key, const void *field, yyjson_mut_doc *doc)
{
    static const struct unit units[] = {{"GiB", 1024 * MIB}, {"MiB", MIB}, {"KiB", 1024}};
    uint64_t v = *(const uint64_t *)field;
    if (v == UINT64_MAX && (key->flags & CONFIG_AUTO))
        return yyjson_mut_str(doc, "auto");
    return json_in_units(doc, v, units, TABLE_COUNT(units));
}

static yyjson_mut_val *json_duration(const struct config_key *key, const void *field, yyjson_mut_doc *doc)
{
    static const struct unit units[] = {{"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
    uint64_t v = *(const uint64_t *)field;
    if (v == UINT64_MAX && (key->flags & CONFIG_AUTO))
        return yyjson_mut_str(doc, "auto");
    return json_in_units(doc, v, units, TABLE_COUNT(units));
}

static yyjson_mut_val *json_percent(const struct config_key *key, const void *field, yyjson_mut_doc *doc)
{
    (void)key;
    char text[40];
    snprintf(text, sizeof text, "%.17g%%", *(const double *)field);
    return yyjson_mut_strcpy(doc, text);
}

static yyjson_mut_val *json_list(const struct config_key *key, const void *field, yyjson_mut_doc *doc)
{
    (void)key;
    const struct config_list *list = field;
    yyjson_mut_val *a = yyjson_mut_arr(doc);
    for (size_t i = 0; i < list->n; i++)
        yyjson_mut_arr_add_strcpy(doc, a, list->items[i]);
    return a;
}

static yyjson_mut_val *remote_json(const struct config_remote *m, yyjson_mut_doc *doc)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    for (size_t i = 0; i < config_n_remote_keys; i++)
        if (m->set & 1ull << i || (config_remote_keys[i].type == CONFIG_STRING && m->remote[0]))
            yyjson_mut_obj_add(o, yyjson_mut_str(doc, config_remote_keys[i].path),
                               config_value_json(&config_remote_keys[i], m, doc));
    return o;
}

/* A mapping where one of them has settings, else the list that is easier to read. */
static yyjson_mut_val *json_remotes(const struct config_key *key, const void *field, yyjson_mut_doc *doc)
{
    const struct config_remotes *list = field;
    uint64_t set = 0;
    (void)key;
    for (size_t i = 0; i < list->n; i++)
        set |= list->items[i].set;
    yyjson_mut_val *all = set ? yyjson_mut_obj(doc) : yyjson_mut_arr(doc);
    for (size_t i = 0; i < list->n; i++) {
        const struct config_remote *m = &list->items[i];
        auto_free char *text = mem_printf(m->remote[0] ? "%s=%s" : "%s", m->name, m->remote);
        if (set)
            yyjson_mut_obj_add(all, yyjson_mut_strcpy(doc, m->name), remote_json(m, doc));
        else
            yyjson_mut_arr_add_strcpy(doc, all, text);
    }
    return all;
}

/* ---- the table ---- */

static const struct {
    from_text_fn from;
    to_json_fn json;
    size_t size;
    const char *words;
} types[CONFIG_TYPES] = {
    [CONFIG_STRING] = {from_string, json_string, sizeof(char *), "a text"},
    [CONFIG_PATH] = {from_path, json_string, sizeof(char *), "a path"},
    [CONFIG_PROGRAM] = {from_program, json_string, sizeof(char *), "a program's name or path"},
    [CONFIG_MODEL] = {from_model, json_string, sizeof(char *), "a model's id, or the path of its file"},
    [CONFIG_DEVICE] = {from_device, json_string, sizeof(char *), "a GPU's name or UUID"},
    [CONFIG_BOOL] = {from_bool, json_of_bool, sizeof(bool), "true or false"},
    [CONFIG_SWITCH] = {from_switch, json_switch, sizeof(enum config_switch), "true, false or auto"},
    [CONFIG_U32] = {from_u32, json_u32, sizeof(uint32_t), "a whole number"},
    [CONFIG_I32] = {from_i32, json_i32, sizeof(int32_t), "a whole number"},
    [CONFIG_TOKENS] = {from_tokens, json_u32, sizeof(uint32_t), "a number of tokens such as 4096 or 4k"},
    [CONFIG_NUMBER] = {from_number, json_number, sizeof(double), "a number"},
    [CONFIG_LAYERS] = {from_layers, json_layers, sizeof(int32_t), "a number of layers, all or auto"},
    [CONFIG_KVTYPE] = {from_kv_type, json_string, sizeof(char *), "a KV cache type"},
    [CONFIG_STRATEGY] = {from_strategy, json_string, sizeof(char *), "a strategy"},
    [CONFIG_BYTES] = {from_bytes, json_bytes, sizeof(uint64_t), "a size such as 600MiB or 24GiB"},
    [CONFIG_DURATION] = {from_duration, json_duration, sizeof(uint64_t),
                         "a duration such as 30s, 500ms or 5m"},
    [CONFIG_PERCENT] = {from_percent, json_percent, sizeof(double), "a share such as 87.5% or 0.875"},
    [CONFIG_ENUM] = {from_enum, json_string, sizeof(char *), "a word"},
    [CONFIG_LIST] = {from_item, json_list, sizeof(struct config_list), "a list of texts"},
    [CONFIG_PATHS] = {from_path_item, json_list, sizeof(struct config_list), "a list of paths"},
    [CONFIG_REMOTES] = {from_remote, json_remotes, sizeof(struct config_remotes),
                        "a list of models, or a mapping of names to them"},
    [CONFIG_BUDGETS] = {.words = "a mapping of devices to sizes"},
    [CONFIG_DEFAULTS] = {.words = "a mapping of settings"},
    [CONFIG_MODELS] = {.words = "a mapping of model ids to settings"},
    [CONFIG_ROLES] = {.words = "a mapping of roles to settings"},
    [CONFIG_UPSTREAMS] = {.words = "a mapping of names to settings"},
};

const char *config_type_words(enum config_type type)
{
    return types[type].words;
}

static enum rc expected(const struct config_key *key, struct str text, struct err *err)
{
    bool words = key->choices && (key->type == CONFIG_ENUM || key->type == CONFIG_LIST);
    struct str shown = {text.p ? text.p : "", text.n < 60 ? text.n : 60};
    enum rc rc = words ? err_set(err, RC_INVALID, "%s does not know \"%.*s\"", key->path, STR_ARG(shown))
                       : err_set(err, RC_INVALID, "%s is not %s: \"%.*s\"", key->path, types[key->type].words,
                                 STR_ARG(shown));
    const char *also = key->flags & CONFIG_AUTO ? ", or auto" : "";
    if (key->choices)
        err_hint(err, "one of %s", key->choices);
    else if (key->type == CONFIG_U32 || key->type == CONFIG_I32 || key->type == CONFIG_TOKENS ||
             key->type == CONFIG_NUMBER)
        err_hint(err, "from %lld to %llu%s", (long long)key->lo, (unsigned long long)key->hi, also);
    else if (key->type == CONFIG_DURATION)
        err_hint(err, "from %lld ms to %llu ms%s", (long long)key->lo, (unsigned long long)key->hi, also);
    else if (key->type == CONFIG_BYTES)
        err_hint(err, "from %lld to %llu bytes%s", (long long)key->lo, (unsigned long long)key->hi, also);
    return rc;
}

enum rc config_set_text(struct config *c, const struct config_target *t, struct str text,
                        const char *base_dir, struct err *err)
{
    const struct context x = {c, t->key, base_dir};
    if (!types[t->key->type].from || !types[t->key->type].from(&x, text, (char *)t->base + t->key->offset))
        return expected(t->key, text, err);
    if (t->set)
        *t->set |= t->bit;
    return RC_OK;
}

void config_list_clear(const struct config_target *t)
{
    memset((char *)t->base + t->key->offset, 0, types[t->key->type].size);
    if (t->set)
        *t->set |= t->bit;
}

yyjson_mut_val *config_value_json(const struct config_key *key, const void *base, yyjson_mut_doc *doc)
{
    return types[key->type].json(key, (const char *)base + key->offset, doc);
}

bool config_value_equal(const struct config_key *key, const void *a, const void *b)
{
    const void *fa = (const char *)a + key->offset, *fb = (const char *)b + key->offset;
    if (types[key->type].json == json_string)
        return strcmp(*(const char *const *)fa, *(const char *const *)fb) == 0;
    if (types[key->type].json != json_list)
        return memcmp(fa, fb, types[key->type].size) == 0;
    const struct config_list *la = fa, *lb = fb;
    if (la->n != lb->n)
        return false;
    for (size_t i = 0; i < la->n; i++)
        if (strcmp(la->items[i], lb->items[i]) != 0)
            return false;
    return true;
}

uint64_t config_value_hash(const struct config_key *key, const void *base)
{
    const void *field = (const char *)base + key->offset;
    if (types[key->type].json == json_string)
        return str_hash(str_from(*(const char *const *)field), 1);
    if (types[key->type].json != json_list)
        return str_hash((struct str){field, types[key->type].size}, 1);
    const struct config_list *list = field;
    uint64_t h = 1;
    for (size_t i = 0; i < list->n; i++)
        h = str_hash(str_from(list->items[i]), h); /* mixed at each end: [a, b] is not [ab] */
    return h;
}

void config_value_copy(const struct config_key *key, void *to, const void *from)
{
    memcpy((char *)to + key->offset, (const char *)from + key->offset, types[key->type].size);
}

/* "Host", or a device as the planner spells it: a backend's name and a number. Canonical spelling into out.
 */
static bool device_name(struct str text, char *out, size_t cap)
{
    static const char *const backends[] = {"CUDA", "ROCm", "Vulkan", "SYCL", "Metal", "RPC"};
    uint64_t number;
    if (str_ieq(text, STR("host"))) {
        snprintf(out, cap, "Host");
        return true;
    }
    for (size_t i = 0; i < TABLE_COUNT(backends); i++) {
        size_t n = strlen(backends[i]);
        if (text.n <= n || !str_ieq((struct str){text.p, n}, str_from(backends[i])))
            continue;
        if (!str_u64((struct str){text.p + n, text.n - n}, &number) || number > 999)
            return false;
        snprintf(out, cap, "%s%llu", backends[i], (unsigned long long)number);
        return true;
    }
    return false;
}

enum rc config_add_budget(struct config *c, struct str device, struct str text, struct err *err)
{
    uint64_t bytes;
    char name[24];
    if (!device_name(device, name, sizeof name)) {
        enum rc rc = err_set(err, RC_NOT_FOUND, "budget has an unknown device \"%.*s\"",
                             (int)(device.n < 60 ? device.n : 60), device.p);
        err_hint(err, str_distance(device, STR("host")) <= 1
                          ? "did you mean Host?"
                          : "Host, CUDA0, ROCm0, Vulkan0, SYCL0, Metal0 or RPC0");
        return rc;
    }
    if (!str_bytes(text, &bytes)) {
        enum rc rc = err_set(err, RC_INVALID, "budget of %s is not a size: \"%.*s\"", name,
                             (int)(text.n < 60 ? text.n : 60), text.p);
        err_hint(err, "a size such as 600MiB or 24GiB");
        return rc;
    }
    if (c->n_budgets >= PLAN_MAX_DEVICES + 1)
        return err_set(err, RC_LIMIT, "budget has more than %d devices", PLAN_MAX_DEVICES + 1);
    for (size_t i = 0; i < c->n_budgets; i++)
        if (strcmp(c->budgets[i].device, name) == 0)
            return err_set(err, RC_EXISTS, "budget names %s twice", name);
    if (!c->budgets)
        c->budgets = arena_array(&c->arena, PLAN_MAX_DEVICES + 1, sizeof *c->budgets);
    char *copy = arena_strndup(&c->arena, name, strlen(name));
    if (!c->budgets || !copy)
        return err_set(err, RC_LIMIT, "the configuration is too large");
    c->budgets[c->n_budgets++] = (struct config_budget){copy, bytes};
    return RC_OK;
}
