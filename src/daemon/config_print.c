/* The configuration shown: effective values as JSON and YAML, the schema, the reference of all keys. Layer
 * daemon; pure; everything comes from config.def. */
#include "daemon/config_priv.h"

#include <stdio.h>
#include <string.h>

static const char *const origin_words[] = {"default", "file", "environment", "flag"};

/* The object that a dotted path's last part belongs into, made on the way. */
static yyjson_mut_val *section_of(yyjson_mut_doc *doc, yyjson_mut_val *root, const char *path,
                                  const char **ret_leaf)
{
    const char *dot = strchr(path, '.');
    if (!dot) {
        *ret_leaf = path;
        return root;
    }
    yyjson_mut_val *o = yyjson_mut_obj_getn(root, path, (size_t)(dot - path));
    if (!o) {
        o = yyjson_mut_obj(doc);
        yyjson_mut_obj_add(root, yyjson_mut_strncpy(doc, path, (size_t)(dot - path)), o);
    }
    *ret_leaf = dot + 1;
    return o;
}

static yyjson_mut_val *model_json(yyjson_mut_doc *doc, const struct config_model *m, bool defaults)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    for (size_t i = 0; i < config_n_model_keys; i++) {
        const struct config_key *key = &config_model_keys[i];
        bool shown = defaults ? !(key->flags & CONFIG_ONLY_MODEL) : (m->set & (1ull << i)) != 0;
        if (shown)
            yyjson_mut_obj_add(o, yyjson_mut_str(doc, key->path), config_value_json(key, m, doc));
    }
    return o;
}

static yyjson_mut_val *role_json(yyjson_mut_doc *doc, const struct config_role *r)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc), *key, *value;
    for (size_t i = 0; i < config_n_role_keys; i++)
        if (r->set & 1ull << i)
            yyjson_mut_obj_add(o, yyjson_mut_str(doc, config_role_keys[i].path),
                               config_value_json(&config_role_keys[i], r, doc));
    size_t i, n;
    yyjson_mut_obj_foreach(model_json(doc, &r->m, false), i, n, key, value)
    {
        yyjson_mut_obj_add(o, key, value);
    }
    return o;
}

static yyjson_mut_val *key_json(const struct config *c, const struct config_key *key, yyjson_mut_doc *doc)
{
    if (key->type < CONFIG_BUDGETS)
        return config_value_json(key, c, doc);
    if (key->type == CONFIG_DEFAULTS)
        return model_json(doc, &c->defaults, true);
    if (key->type == CONFIG_UPSTREAMS)
        return config_upstreams_json(c, doc);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    if (key->type == CONFIG_BUDGETS)
        for (size_t i = 0; i < c->n_budgets; i++)
            yyjson_mut_obj_add(o, yyjson_mut_strcpy(doc, c->budgets[i].device),
                               yyjson_mut_uint(doc, c->budgets[i].bytes));
    for (size_t i = 0; key->type == CONFIG_MODELS && i < c->n_written; i++)
        yyjson_mut_obj_add(o, yyjson_mut_strcpy(doc, c->written[i].id),
                           model_json(doc, &c->written[i].m, false));
    for (size_t i = 0; key->type == CONFIG_ROLES && i < c->n_roles; i++)
        yyjson_mut_obj_add(o, yyjson_mut_strcpy(doc, c->roles[i].name), role_json(doc, &c->roles[i]));
    return o;
}

yyjson_mut_val *config_json(const struct config *c, yyjson_mut_doc *doc, bool with_origin)
{
    yyjson_mut_val *root = yyjson_mut_obj(doc), *origins = yyjson_mut_obj(doc);
    for (size_t i = 0; i < config_n_keys; i++) {
        const struct config_key *key = &config_keys[i];
        yyjson_mut_obj_add_str(doc, origins, key->path, origin_words[c->origin[i]]);
        if (key->flags & CONFIG_ENV_ONLY)
            continue;
        const char *leaf;
        yyjson_mut_val *o = section_of(doc, root, key->path, &leaf);
        yyjson_mut_obj_add(o, yyjson_mut_str(doc, leaf), key_json(c, key, doc));
    }
    if (!with_origin)
        return root;
    yyjson_mut_val *both = yyjson_mut_obj(doc);
    yyjson_mut_obj_add_strcpy(doc, both, "file", c->file);
    yyjson_mut_obj_add_val(doc, both, "config", root);
    yyjson_mut_obj_add_val(doc, both, "origins", origins);
    yyjson_mut_val *notes = yyjson_mut_obj_add_arr(doc, both, "notes");
    for (size_t i = 0; i < c->n_notes; i++)
        yyjson_mut_arr_add_strcpy(doc, notes, c->notes[i]);
    return both;
}

/* ---- YAML ---- */

static bool is_plain(struct str s)
{
    static const char *const words[] = {"true", "false", "null", "yes", "no", "on", "off", "~", "y", "n"};
    if (s.n == 0 || s.n > 64)
        return false;
    for (size_t i = 0; i < TABLE_COUNT(words); i++)
        if (str_ieq(s, str_from(words[i])))
            return false;
    bool letter = false;
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.p[i];
        bool alpha = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '_' || ch == '/';
        letter |= alpha;
        if (!alpha && !(ch >= '0' && ch <= '9') && !(i > 0 && strchr(".-%", ch)))
            return false;
    }
    return letter || s.p[s.n - 1] == '%';
}

/* One character of UTF-8 at *p; bytes that are not UTF-8 stand for themselves. */
static uint32_t next_char(const unsigned char **p, const unsigned char *end)
{
    uint32_t c = *(*p)++;
    unsigned more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc2 ? 1 : 0;
    if (more == 0 || (size_t)(end - *p) < more)
        return c;
    uint32_t v = c & (0x3fu >> more);
    for (unsigned i = 0; i < more; i++) {
        if (((*p)[i] & 0xc0) != 0x80)
            return c;
        v = v << 6 | ((*p)[i] & 0x3fu);
    }
    *p += more;
    return v;
}

/* A double-quoted scalar. What YAML does not count as printable is escaped. */
static void put_quoted(struct buf *out, struct str s)
{
    const unsigned char *p = (const unsigned char *)s.p, *end = p + s.n;
    buf_puts(out, "\"");
    while (p < end) {
        const unsigned char *start = p;
        uint32_t c = next_char(&p, end);
        if (c == '"' || c == '\\')
            buf_printf(out, "\\%c", (char)c);
        else if ((c >= 0x20 && c < 0x7f) ||
                 (c > 0xa0 && c < 0xd800 && c != 0x2028 && c != 0x2029 && p - start > 1))
            buf_append(out, start, (size_t)(p - start));
        else
            buf_printf(out, c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    }
    buf_puts(out, "\"");
}

static void put_text(struct buf *out, struct str s)
{
    if (is_plain(s))
        buf_put_str(out, s);
    else
        put_quoted(out, s);
}

static void put_yaml(struct buf *out, yyjson_mut_val *v, unsigned indent);

static void put_pairs(struct buf *out, yyjson_mut_val *o, unsigned indent)
{
    size_t i, n;
    yyjson_mut_val *k, *v;
    yyjson_mut_obj_foreach(o, i, n, k, v)
    {
        buf_printf(out, "%*s", (int)indent, "");
        put_text(out, (struct str){yyjson_mut_get_str(k), yyjson_mut_get_len(k)});
        buf_puts(out, ":");
        put_yaml(out, v, indent);
    }
}

/* After a key and its colon. */
static void put_yaml(struct buf *out, yyjson_mut_val *v, unsigned indent)
{
    if (yyjson_mut_is_obj(v)) {
        buf_puts(out, yyjson_mut_obj_size(v) ? "\n" : " {}\n");
        put_pairs(out, v, indent + 2);
        return;
    }
    if (yyjson_mut_is_arr(v)) {
        size_t i, n;
        yyjson_mut_val *item;
        buf_puts(out, " [");
        yyjson_mut_arr_foreach(v, i, n, item)
        {
            buf_puts(out, i ? ", " : "");
            put_quoted(out, (struct str){yyjson_mut_get_str(item), yyjson_mut_get_len(item)});
        }
        buf_puts(out, "]\n");
        return;
    }
    buf_puts(out, " ");
    if (yyjson_mut_is_str(v))
        put_text(out, (struct str){yyjson_mut_get_str(v), yyjson_mut_get_len(v)});
    else if (yyjson_mut_is_bool(v))
        buf_puts(out, yyjson_mut_get_bool(v) ? "true" : "false");
    else if (yyjson_mut_is_real(v))
        buf_printf(out, "%.17g", yyjson_mut_get_real(v));
    else if (yyjson_mut_is_uint(v))
        buf_printf(out, "%llu", (unsigned long long)yyjson_mut_get_uint(v));
    else
        buf_printf(out, "%lld", (long long)yyjson_mut_get_sint(v));
    buf_puts(out, "\n");
}

enum rc config_yaml(const struct config *c, struct buf *out, struct err *err)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    put_pairs(out, config_json(c, doc, false), 0);
    yyjson_mut_doc_free(doc);
    return out->failed ? err_set(err, RC_NOMEM, "the configuration's text is over the limit") : RC_OK;
}

/* ---- schema ---- */

static void add_choices(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *name, const char *choices)
{
    yyjson_mut_val *a = yyjson_mut_obj_add_arr(doc, o, name);
    struct str rest = str_from(choices);
    while (rest.n) {
        struct str word = str_cut(&rest, '|');
        yyjson_mut_arr_add_strncpy(doc, a, word.p, word.n);
    }
}

/* In the type that the key has. */
static void add_default(yyjson_mut_doc *doc, yyjson_mut_val *o, const struct config_key *key)
{
    bool number = key->type == CONFIG_U32 || key->type == CONFIG_I32 || key->type == CONFIG_LAYERS ||
                  key->type == CONFIG_TOKENS || key->type == CONFIG_NUMBER;
    struct str text = str_from(key->def);
    int64_t whole;
    double real;
    if (key->type == CONFIG_BOOL)
        yyjson_mut_obj_add_bool(doc, o, "default", str_eq_c(text, "true"));
    else if (number && str_i64(text, &whole))
        yyjson_mut_obj_add_int(doc, o, "default", whole);
    else if (number && str_double(text, &real))
        yyjson_mut_obj_add_real(doc, o, "default", real);
    else if (text.n)
        yyjson_mut_obj_add_str(doc, o, "default", key->def);
}

static void add_type(yyjson_mut_doc *doc, yyjson_mut_val *o, const struct config_key *key)
{
    static const struct {
        const char *type, * or ;
    } words[CONFIG_TYPES] = {
        [CONFIG_STRING] = {"string", "number"},   [CONFIG_PATH] = {"string", NULL},
        [CONFIG_BOOL] = {"boolean", NULL},        [CONFIG_SWITCH] = {"boolean", "string"},
        [CONFIG_U32] = {"integer", NULL},         [CONFIG_I32] = {"integer", NULL},
        [CONFIG_LAYERS] = {"integer", "string"},  [CONFIG_KVTYPE] = {"string", "integer"},
        [CONFIG_STRATEGY] = {"string", NULL},     [CONFIG_BYTES] = {"string", "number"},
        [CONFIG_DURATION] = {"string", "number"}, [CONFIG_PERCENT] = {"string", "number"},
        [CONFIG_ENUM] = {"string", NULL},         [CONFIG_PROGRAM] = {"string", NULL},
        [CONFIG_LIST] = {"array", "string"},      [CONFIG_TOKENS] = {"integer", "string"},
        [CONFIG_NUMBER] = {"number", NULL},       [CONFIG_MODEL] = {"string", "number"},
        [CONFIG_DEVICE] = {"string", NULL},       [CONFIG_PATHS] = {"array", "string"},
        [CONFIG_REMOTES] = {"array", "string"},
    };
    const char *first = words[key->type].type, *other = words[key->type].or ;
    if (key->type == CONFIG_U32 && (key->flags & CONFIG_AUTO))
        other = "string";
    if (!other) {
        yyjson_mut_obj_add_str(doc, o, "type", first);
    } else {
        yyjson_mut_val *a = yyjson_mut_obj_add_arr(doc, o, "type");
        yyjson_mut_arr_add_str(doc, a, first);
        yyjson_mut_arr_add_str(doc, a, other);
    }
    yyjson_mut_val *chosen = o; /* what a choice is made for */
    if (strcmp(first, "array") == 0) {
        chosen = yyjson_mut_obj_add_obj(doc, o, "items");
        yyjson_mut_obj_add_str(doc, chosen, "type", "string");
    }
    if (key->type == CONFIG_U32 || key->type == CONFIG_I32 || key->type == CONFIG_NUMBER) {
        yyjson_mut_obj_add_int(doc, o, "minimum", key->lo);
        yyjson_mut_obj_add_uint(doc, o, "maximum", key->hi);
    }
    bool only = key->type == CONFIG_ENUM || key->type == CONFIG_LIST; /* others take more than is listed */
    if (key->choices)
        add_choices(doc, chosen, only ? "enum" : "examples", key->choices);
}

static yyjson_mut_val *schema_object(yyjson_mut_doc *doc, yyjson_mut_val **ret_properties)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_obj_add_str(doc, o, "type", "object");
    *ret_properties = yyjson_mut_obj_add_obj(doc, o, "properties");
    yyjson_mut_obj_add_bool(doc, o, "additionalProperties", false);
    return o;
}

static yyjson_mut_val *schema_key(yyjson_mut_doc *doc, const struct config_key *key)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    add_type(doc, o, key);
    yyjson_mut_val *type = yyjson_mut_obj_get(o, "type");
    if (key->flags & CONFIG_NAMED && yyjson_mut_is_arr(type))
        yyjson_mut_arr_add_str(doc, type, "object");
    yyjson_mut_obj_add_str(doc, o, "description", key->help);
    add_default(doc, o, key);
    return o;
}

static yyjson_mut_val *schema_model(yyjson_mut_doc *doc, bool defaults)
{
    yyjson_mut_val *properties, *o = schema_object(doc, &properties);
    for (size_t i = 0; i < config_n_model_keys; i++)
        if (!defaults || !(config_model_keys[i].flags & CONFIG_ONLY_MODEL))
            yyjson_mut_obj_add(properties, yyjson_mut_str(doc, config_model_keys[i].path),
                               schema_key(doc, &config_model_keys[i]));
    for (size_t i = 0; i < config_n_model_aliases; i++)
        for (size_t k = 0; k < config_n_model_keys; k++)
            if (strcmp(config_model_aliases[i].target, config_model_keys[k].path) == 0)
                yyjson_mut_obj_add(properties, yyjson_mut_str(doc, config_model_aliases[i].name),
                                   schema_key(doc, &config_model_keys[k]));
    return o;
}

static yyjson_mut_val *schema_role(yyjson_mut_doc *doc)
{
    yyjson_mut_val *o = schema_model(doc, false), *properties = yyjson_mut_obj_get(o, "properties");
    for (size_t i = 0; i < config_n_role_keys; i++)
        yyjson_mut_obj_add(properties, yyjson_mut_str(doc, config_role_keys[i].path),
                           schema_key(doc, &config_role_keys[i]));
    for (size_t i = 0; i < config_n_model_keys; i++)
        if (!config_key_is_of_roles(&config_model_keys[i]))
            yyjson_mut_obj_remove_key(properties, config_model_keys[i].path);
    return o;
}

/* Beside a list of names: a mapping of names to names, or to settings. */
static void schema_remotes(yyjson_mut_doc *doc, yyjson_mut_val *v)
{
    yyjson_mut_val *properties, *each = schema_object(doc, &properties);
    for (size_t i = 0; i < config_n_remote_keys; i++)
        yyjson_mut_obj_add(properties, yyjson_mut_str(doc, config_remote_keys[i].path),
                           schema_key(doc, &config_remote_keys[i]));
    yyjson_mut_obj_remove_key(each, "type");
    yyjson_mut_val *types = yyjson_mut_obj_add_arr(doc, each, "type");
    yyjson_mut_arr_add_str(doc, types, "object");
    yyjson_mut_arr_add_str(doc, types, "string");
    yyjson_mut_arr_add_str(doc, yyjson_mut_obj_get(v, "type"), "object");
    yyjson_mut_obj_add_val(doc, v, "additionalProperties", each);
}

static yyjson_mut_val *schema_upstream(yyjson_mut_doc *doc)
{
    yyjson_mut_val *properties, *o = schema_object(doc, &properties);
    for (size_t i = 0; i < config_n_upstream_keys; i++) {
        const struct config_key *key = &config_upstream_keys[i];
        yyjson_mut_val *v = schema_key(doc, key);
        if (key->type == CONFIG_REMOTES)
            schema_remotes(doc, v);
        yyjson_mut_obj_add(properties, yyjson_mut_str(doc, key->path), v);
    }
    return o;
}

static yyjson_mut_val *schema_mapping(yyjson_mut_doc *doc, const struct config_key *key)
{
    yyjson_mut_val *o;
    if (key->type == CONFIG_DEFAULTS) {
        o = schema_model(doc, true);
    } else {
        o = yyjson_mut_obj(doc);
        yyjson_mut_obj_add_str(doc, o, "type", "object");
        yyjson_mut_val *each =
            key->type == CONFIG_MODELS  ? schema_model(doc, false)
            : key->type == CONFIG_ROLES ? schema_role(doc)
            : key->type == CONFIG_UPSTREAMS
                ? schema_upstream(doc)
                : schema_key(doc, &(struct config_key){.type = CONFIG_BYTES, .def = "", .help = "a size"});
        yyjson_mut_obj_add_val(doc, o, "additionalProperties", each);
    }
    yyjson_mut_obj_add_str(doc, o, "description", key->help);
    return o;
}

/* The place of a dotted path in the schema: sections are objects of their own. */
static void schema_put(yyjson_mut_doc *doc, yyjson_mut_val *properties, const char *path,
                       yyjson_mut_val *value)
{
    const char *dot = strchr(path, '.');
    if (!dot) {
        yyjson_mut_obj_add(properties, yyjson_mut_str(doc, path), value);
        return;
    }
    yyjson_mut_val *section = yyjson_mut_obj_getn(properties, path, (size_t)(dot - path)), *inner;
    if (section) {
        inner = yyjson_mut_obj_get(section, "properties");
    } else {
        section = schema_object(doc, &inner);
        yyjson_mut_obj_add(properties, yyjson_mut_strncpy(doc, path, (size_t)(dot - path)), section);
    }
    schema_put(doc, inner, dot + 1, value);
}

yyjson_mut_val *config_schema(yyjson_mut_doc *doc)
{
    yyjson_mut_val *properties, *root = schema_object(doc, &properties);
    yyjson_mut_obj_add_str(doc, root, "$schema", "https://json-schema.org/draft/2020-12/schema");
    yyjson_mut_obj_add_str(doc, root, "title", "Configuration of arriero");
    for (size_t i = 0; i < config_n_keys; i++) {
        const struct config_key *key = &config_keys[i];
        if (!(key->flags & CONFIG_ENV_ONLY))
            schema_put(doc, properties, key->path,
                       key->type >= CONFIG_BUDGETS ? schema_mapping(doc, key) : schema_key(doc, key));
    }
    for (size_t i = 0; i < config_n_aliases; i++) {
        yyjson_mut_val *o = yyjson_mut_obj(doc);
        auto_free char *text = mem_printf("The same as %s.", config_aliases[i].target);
        yyjson_mut_obj_add_strcpy(doc, o, "description", text);
        schema_put(doc, properties, config_aliases[i].name, o);
    }
    for (size_t i = 0; i < config_n_ignored; i++) {
        yyjson_mut_val *o = yyjson_mut_obj(doc);
        auto_free char *text = mem_printf("Without effect: %s.", config_ignored[i].target);
        yyjson_mut_obj_add_strcpy(doc, o, "description", text);
        schema_put(doc, properties, config_ignored[i].name, o);
    }
    return root;
}

/* ---- reference ---- */

struct form {
    const char *head, *group, *key, *text, *tail;
    bool man;
};

static const struct form forms[] = {
    [CONFIG_REFERENCE_TEXT] = {"", "\n%s\n", "  %s\n", "      %s\n", "", false},
    [CONFIG_REFERENCE_MAN] =
        {".TH ARRIERO.YAML 5\n.SH NAME\narriero.yaml \\- configuration of arriero\n"
         ".SH DESCRIPTION\nStrict YAML, of which JSON is a subset. Without a file every model "
         "that is found is served.\nA flag of the command line wins over the environment, the "
         "environment over the file, the file over the default.\n",
         ".SH %s\n", ".TP\n.B %s\n", "%s\n.br\n", "", true},
    [CONFIG_REFERENCE_MARKDOWN] = {"# Configuration\n\nEvery key, generated from `src/daemon/config.def`.\n",
                                   "\n## %s\n\n", "- **`%s`**  \n", "  %s  \n", "", false},
};

/* fmt is one of the table above: a single %s. */
static void put_form(struct buf *out, const struct form *f, const char *fmt, const char *text)
{
    const char *at = strstr(fmt, "%s");
    buf_append(out, fmt, (size_t)(at - fmt));
    for (const char *p = text; *p; p++) {
        if (f->man && (*p == '\\' || *p == '-' || (*p == '.' && p == text)))
            buf_puts(out, *p == '\\' ? "\\" : *p == '-' ? "\\" : "\\&");
        buf_append(out, p, 1);
    }
    buf_puts(out, at + 2);
}

/* env_prefix: NULL = the environment does not set it under its own name. loads: of a model, and its instances
 * are started with it. */
static void put_key(struct buf *out, const struct form *f, const struct config_key *key,
                    const char *env_prefix, bool loads)
{
    char line[512], env[160];
    put_form(out, f, f->key, key->path);
    put_form(out, f, f->text, key->help);
    const char *change = key->flags & CONFIG_RESTART ? "; needs a restart"
                         : loads                     ? "; a change loads it anew"
                                                     : "";
    snprintf(line, sizeof line, "%s%s%s%s%s%s%s", config_type_words(key->type), key->choices ? ": " : "",
             key->choices ? key->choices : "", key->flags & CONFIG_AUTO ? ", or auto" : "",
             key->def[0] ? "; default " : "", key->def, change);
    put_form(out, f, f->text, line);
    if (env_prefix && key->type < CONFIG_DEFAULTS && !(key->flags & CONFIG_ONLY_MODEL)) {
        config_env_name(env_prefix, key->path, env, sizeof env);
        put_form(out, f, f->text, env);
    }
}

static void put_aliases(struct buf *out, const struct form *f, const struct config_alias *a, size_t n,
                        const char *before)
{
    for (size_t i = 0; i < n; i++) {
        char line[256];
        snprintf(line, sizeof line, "%s%s", before, a[i].target);
        put_form(out, f, f->key, a[i].name);
        put_form(out, f, f->text, line);
    }
}

/* The environment of roles has names of its own. */
static void put_variables(struct buf *out, const struct form *f)
{
    static const struct {
        const char *name, *means;
    } rows[] = {
#define ROLE_ENV(name, role, key, unit) {"ARRIERO_" name, "or NEURALCURSOR_" name ": roles." role "." key},
#include "daemon/roles.def"
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        put_form(out, f, f->key, rows[i].name);
        put_form(out, f, f->text, rows[i].means);
    }
}

void config_reference(enum config_reference form, struct buf *out)
{
    const struct form *f = &forms[form];
    buf_puts(out, f->head);
    put_form(out, f, f->group, "KEYS");
    for (size_t i = 0; i < config_n_keys; i++)
        put_key(out, f, &config_keys[i], "", false);
    put_form(out, f, f->group, "KEYS OF A MODEL");
    for (size_t i = 0; i < config_n_model_keys; i++)
        put_key(out, f, &config_model_keys[i], "defaults_", !(config_model_keys[i].flags & CONFIG_LIVE));
    put_form(out, f, f->group, "KEYS OF A ROLE, BESIDE THOSE OF A MODEL");
    for (size_t i = 0; i < config_n_role_keys; i++)
        put_key(out, f, &config_role_keys[i], NULL, false);
    put_variables(out, f);
    put_form(out, f, f->group, "KEYS OF AN UPSTREAM");
    for (size_t i = 0; i < config_n_upstream_keys; i++)
        put_key(out, f, &config_upstream_keys[i], NULL, false);
    put_form(out, f, f->group, "KEYS OF AN UPSTREAM'S MODEL");
    for (size_t i = 0; i < config_n_remote_keys; i++)
        put_key(out, f, &config_remote_keys[i], NULL, false);
    put_form(out, f, f->group, "OTHER NAMES");
    put_aliases(out, f, config_aliases, config_n_aliases, "the same as ");
    put_form(out, f, f->group, "OTHER NAMES OF A MODEL'S KEYS");
    put_aliases(out, f, config_model_aliases, config_n_model_aliases, "the same as ");
    put_form(out, f, f->group, "WITHOUT EFFECT");
    put_aliases(out, f, config_ignored, config_n_ignored, "accepted: ");
    buf_puts(out, f->tail);
}
