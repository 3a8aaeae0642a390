/* The set of models: see model_set.h. Layer daemon; pure but for the model's facts that the catalog has read.
 */
#include "daemon/model_set.h"

#include "os/file.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define WARNINGS_MAX 64
#define ARENA_MAX    (256 * MIB)

__attribute__((format(printf, 2, 3))) static void warn(struct model_set *s, const char *fmt, ...)
{
    char text[700];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (s->n_warnings >= WARNINGS_MAX)
        return;
    char *copy = arena_strndup(&s->arena, text, strlen(text));
    if (copy)
        s->warnings[s->n_warnings++] = copy;
}

void model_set_policy(const struct config_model *m, struct plan_policy *ret_policy)
{
    struct plan_policy p;
    plan_policy_default(&p);
    (void)plan_strategy_from(str_from(m->strategy), &p.strategy,
                             &p.vram_limit_bytes); /* checked when it was read */
    if (m->vram_limit != UINT64_MAX)
        p.vram_limit_bytes = m->vram_limit;
    p.ctx = m->ctx;
    p.ctx_min = m->ctx_min;
    p.parallel = m->parallel;
    p.batch = m->batch;
    p.ubatch = m->ubatch;
    const char *k = strcmp(m->kv_type_k, "auto") != 0 ? m->kv_type_k : m->kv_type;
    const char *v = strcmp(m->kv_type_v, "auto") != 0 ? m->kv_type_v : m->kv_type;
    uint32_t type_k = GGML_F16, type_v = GGML_F16;
    bool has_k = strcmp(k, "auto") != 0 && ggml_type_from(str_from(k), &type_k);
    bool has_v = strcmp(v, "auto") != 0 && ggml_type_from(str_from(v), &type_v);
    if (has_k || has_v) {
        p.kv_type_fixed = true;
        p.type_k = type_k;
        p.type_v = type_v;
    }
    (void)ggml_type_from(str_from(m->kv_floor), &p.kv_floor);
    if (m->gpu_layers != CONFIG_LAYERS_AUTO) {
        p.gpu_layers_fixed = true;
        p.gpu_layers = m->gpu_layers == CONFIG_LAYERS_ALL ? PLAN_ALL_LAYERS : m->gpu_layers;
    }
    p.allow_cpu = m->allow_cpu;
    p.embedding = m->embedding;
    p.max_gpus = m->max_gpus;
    p.device = m->device[0] ? m->device : NULL;
    p.margin_bytes = m->margin;
    p.least_bpw = m->bpw_floor;
    *ret_policy = p;
}

/* A model whose file says how its tokens are pooled was made for embeddings. */
static bool is_embedder(const struct model *m)
{
    uint64_t pooling;
    return m && model_arch_u64(m, "pooling_type", &pooling) && pooling > 0;
}

static uint64_t hash_text(const char *s, uint64_t h)
{
    /* The length takes part, so that two texts cannot be cut differently. */
    size_t n = s ? strlen(s) : 0;
    h = str_hash((struct str){(const char *)&n, sizeof n}, h);
    return str_hash(str_from(s), h);
}

static uint64_t hash_bytes(const void *p, size_t n, uint64_t h)
{
    return str_hash((struct str){p, n}, h);
}

static uint64_t hash_files(const struct pool_files *f, uint64_t h)
{
    h = hash_text(f->mmproj, h);
    h = hash_text(f->draft, h);
    h = hash_text(f->draft_device, h);
    for (uint32_t i = 0; i < f->n_adapters; i++) {
        h = hash_text(f->adapters[i], h);
        h = hash_bytes(&f->adapter_scale[i], sizeof f->adapter_scale[i], h);
    }
    const uint64_t numbers[] = {f->n_adapters, f->draft_tokens, f->draft_least,
                                (uint64_t)(int64_t)f->draft_gpu_layers};
    return hash_bytes(numbers, sizeof numbers, h);
}

/* What an instance is started with: the settings as config.def tells, and what they came to here. */
static uint64_t hash_settings(const struct model_set *s, const struct config_model *m,
                              const struct pool_model *p, const struct catalog_entry *e)
{
    uint64_t h = config_model_hash(s->config, m);
    h = hash_text(p->id, h);
    h = hash_text(p->path, h);
    h = hash_files(&p->files, h);
    h = hash_text(p->runtime_binary ? p->runtime_binary : s->config->llama_server, h);
    const uint64_t numbers[] = {p->embedding, e ? (uint64_t)e->mtime_ns : 0, e ? e->file_bytes : 0};
    return hash_bytes(numbers, sizeof numbers, h);
}

/* The file of a draft: what the settings name, or of the model of that id. A model is served without a draft
 * that is not there: it answers the same, and more slowly. */
static const char *draft_path(struct model_set *s, const char *id, const char *draft)
{
    const char *near[1];
    if (!draft[0] || config_is_model_path(str_from(draft)))
        return draft[0] ? draft : NULL;
    const struct catalog_entry *e = catalog_find(s->catalog, str_from(draft));
    const struct config_model *named = config_model_for(s->config, str_from(draft));
    if (named->path && named->path[0])
        return named->path;
    if (e && e->model)
        return e->path;
    bool any = catalog_nearest(s->catalog, str_from(draft), near, 1) > 0;
    warn(s, "model %s is served without its draft: no model is called %s%s%s%s", id, draft,
         any ? "; did you mean " : "", any ? near[0] : "", any ? "?" : "");
    return NULL;
}

static void fill_files(struct model_set *s, const char *id, const struct config_model *m,
                       const struct catalog_entry *e, struct pool_files *f)
{
    bool projector = m->mmproj && m->mmproj[0];
    *f = (struct pool_files){.mmproj = projector ? m->mmproj
                                       : e       ? e->mmproj
                                                 : NULL,
                             .draft = draft_path(s, id, m->draft ? m->draft : ""),
                             .draft_tokens = m->draft_max,
                             .draft_least = m->draft_min,
                             .draft_gpu_layers =
                                 m->draft_gpu_layers < 0 ? PLAN_ALL_LAYERS : m->draft_gpu_layers,
                             .draft_device = m->draft_device[0] ? m->draft_device : NULL};
    for (size_t i = 0; i < m->adapters.n && f->n_adapters < PLAN_MAX_ADAPTERS; i++) {
        const char *item = m->adapters.items[i];
        size_t n = plan_adapter_path(item, &f->adapter_scale[f->n_adapters]);
        char *path = arena_strndup(&s->arena, item, n);
        if (path)
            f->adapters[f->n_adapters++] = path;
    }
}

static enum pool_kv kv_keep_of(const char *word)
{
    return strcmp(word, "off") == 0 ? POOL_KV_OFF : strcmp(word, "force") == 0 ? POOL_KV_FORCE : POOL_KV_AUTO;
}

static void fill(struct model_set *s, const char *id, const struct catalog_entry *e, struct pool_model *p)
{
    const struct config_model *m = config_model_for(s->config, str_from(id));
    *p = (struct pool_model){
        .id = id,
        .aliases = m->aliases.items,
        .n_aliases = m->aliases.n,
        .path = m->path && m->path[0] ? m->path
                : e                   ? e->path
                                      : "",
        .runtime_binary = m->runtime[0] ? m->runtime : NULL,
        .extra_args = m->extra_args.items,
        .n_extra_args = m->extra_args.n,
        .priority = m->priority,
        .pin = m->pin,
        .embedding = m->embedding,
        .kv_keep = kv_keep_of(m->kv_keep),
        .ttl_ms = m->ttl,
        .instances_min = m->instances_min,
        .instances_max = m->instances > m->instances_min ? m->instances : m->instances_min,
    };
    fill_files(s, id, m, e, &p->files);
    model_set_policy(m, &p->policy);
    if (e && is_embedder(e->model) && strcmp(p->path, e->path) == 0)
        p->embedding = p->policy.embedding = true;
    p->settings_hash = hash_settings(s, m, p, e);
}

static int by_id(const void *a, const void *b)
{
    return strcmp(((const struct pool_model *)a)->id, ((const struct pool_model *)b)->id);
}

static int compare_id(struct str id, const char *other)
{
    size_t n = strlen(other);
    int c = memcmp(id.p, other, id.n < n ? id.n : n);
    return c ? c : (id.n > n) - (id.n < n);
}

size_t model_set_index(const struct model_set *s, struct str id)
{
    size_t low = 0, high = s->n;
    while (id.n && low < high) {
        size_t mid = low + (high - low) / 2;
        int c = compare_id(id, s->models[mid].id);
        if (c == 0)
            return mid;
        if (c > 0)
            low = mid + 1;
        else
            high = mid;
    }
    return SIZE_MAX;
}

/* Most problems name their file themselves: it is said once. */
static bool names_path(const struct catalog_entry *e)
{
    return strstr(e->problem.message, e->path) != NULL;
}

bool model_set_why_not(const struct model_set *s, struct str id, struct err *err)
{
    const struct catalog_entry *e = catalog_find(s->catalog, id);
    if (!e || e->model)
        return false;
    enum rc rc = err_set(err, RC_NOT_FOUND, "model \"%s\" was found but is not served: %s%s%s", e->id,
                         names_path(e) ? "" : e->path, names_path(e) ? "" : ": ", e->problem.message);
    err_hint(err, "%s",
             e->problem.hint[0] ? e->problem.hint : "replace the file, then send the daemon SIGHUP");
    return rc == RC_NOT_FOUND;
}

static void add_found(struct model_set *s)
{
    for (size_t i = 0; i < s->catalog->n; i++) {
        const struct catalog_entry *e = &s->catalog->entries[i];
        if (!e->model)
            warn(s, "model %s is not served: %s%s%s", e->id, names_path(e) ? "" : e->path,
                 names_path(e) ? "" : ": ", e->problem.message);
        else
            fill(s, e->id, e, &s->models[s->n++]);
    }
}

static void add_group(struct model_set *s, const struct config_entry *c, bool is_file)
{
    if (is_file || c->m.path[0])
        warn(s, "models.%s in line %u is a model: its members are left out; give the group another name",
             c->id, c->line);
    else
        s->groups[s->n_groups++] = (struct model_group){
            .id = c->id, .aliases = &c->m.aliases, .members = &c->m.members, .fallback = &c->m.fallback};
}

static void warn_of_player(struct model_set *s, const struct config_entry *c)
{
    const char *near[1];
    bool any = catalog_nearest(s->catalog, str_from(c->id), near, 1) > 0;
    warn(s, "nobody plays the role %s: no model is called %s%s%s%s", c->role, c->id,
         any ? "; did you mean " : "", any ? near[0] : "", any ? "?" : "");
}

static void add_named(struct model_set *s)
{
    const char *near[1];
    for (size_t i = 0; i < s->config->n_models; i++) {
        const struct config_entry *c = &s->config->models[i];
        const struct catalog_entry *e = catalog_find(s->catalog, str_from(c->id));
        s->has_fallbacks |= c->m.fallback.n > 0;
        if (c->m.members.n > 0)
            add_group(s, c, e && e->model);
        if ((e && e->model) || (c->m.members.n > 0 && !c->m.path[0]) ||
            config_is_upstream_model(s->config, str_from(c->id)))
            continue;
        if (c->m.path[0])
            fill(s, c->id, NULL, &s->models[s->n++]);
        else if (c->role)
            warn_of_player(s, c);
        else if (catalog_nearest(s->catalog, str_from(c->id), near, 1))
            warn(s, "models.%s in line %u has no path and no such file was found; did you mean %s?", c->id,
                 c->line, near[0]);
        else
            warn(s, "models.%s in line %u has no path and no such file was found", c->id, c->line);
    }
}

/* For when nothing else is left: files of the same model in smaller quantisations. */
static void find_smaller(struct model_set *s, size_t i)
{
    const struct model *found[PLAN_MAX_ALTERNATIVES];
    struct pool_model *p = &s->models[i];
    if (!s->entries[i] || strcmp(p->path, s->entries[i]->path) != 0 || !s->settings[i]->allow_smaller)
        return;
    size_t n = catalog_smaller(s->catalog, s->entries[i]->model, found, TABLE_COUNT(found));
    const char **paths = n ? arena_array(&s->arena, n, sizeof *paths) : NULL;
    for (size_t k = 0; paths && k < n; k++)
        paths[k] = found[k]->path;
    p->smaller = paths;
    p->n_smaller = paths ? n : 0;
}

/* An alias that is also a model's id: the id wins, and the set must not hold a name twice. */
static void drop_clashing_aliases(struct model_set *s)
{
    for (size_t i = 0; i < s->n; i++) {
        struct pool_model *p = &s->models[i];
        const char **kept = arena_array(&s->arena, p->n_aliases ? p->n_aliases : 1, sizeof *kept);
        size_t n = 0;
        for (size_t k = 0; kept && k < p->n_aliases; k++) {
            if (model_set_index(s, str_from(p->aliases[k])) == SIZE_MAX)
                kept[n++] = p->aliases[k];
            else
                warn(s, "the alias %s of %s is the id of another model and is left out", p->aliases[k],
                     p->id);
        }
        p->aliases = kept;
        p->n_aliases = n;
    }
}

static bool is_served(const struct model_set *s, const char *name)
{
    for (size_t i = 0; i < s->n; i++) {
        if (strcmp(s->models[i].id, name) == 0)
            return true;
        for (size_t k = 0; k < s->models[i].n_aliases; k++)
            if (strcmp(s->models[i].aliases[k], name) == 0)
                return true;
    }
    return false;
}

static void check_names(struct model_set *s, const char *of, const char *key, const struct config_list *names)
{
    for (size_t i = 0; i < names->n; i++)
        if (!is_served(s, names->items[i]) && !model_set_group(s, str_from(names->items[i])) &&
            !config_is_upstream_model(s->config, str_from(names->items[i])))
            warn(s, "models.%s.%s names %s, which is no model here", of, key, names->items[i]);
}

static void check_stand_ins(struct model_set *s)
{
    for (size_t i = 0; i < s->config->n_models; i++) {
        const struct config_entry *c = &s->config->models[i];
        check_names(s, c->id, "members", &c->m.members);
        check_names(s, c->id, "fallback", &c->m.fallback);
    }
    const char *name = s->config->default_model;
    if (name[0] && !is_served(s, name) && !model_set_group(s, str_from(name)) &&
        !config_is_upstream_model(s->config, str_from(name)))
        warn(s, "default_model names %s, which is no model here", name);
}

const struct model_group *model_set_group(const struct model_set *s, struct str name)
{
    for (size_t i = 0; i < s->n_groups; i++) {
        if (str_eq_c(name, s->groups[i].id))
            return &s->groups[i];
        for (size_t k = 0; k < s->groups[i].aliases->n; k++)
            if (str_eq_c(name, s->groups[i].aliases->items[k]))
                return &s->groups[i];
    }
    return NULL;
}

static int priority_of(const struct model_set *s, const char *id)
{
    return s->models[model_set_index(s, str_from(id))].priority;
}

/* Of the same priority in the order of the ids. */
static void collect_preload(struct model_set *s)
{
    for (size_t i = 0; i < s->n; i++) {
        if (!s->settings[i]->preload)
            continue;
        size_t at = s->n_preload++;
        for (; at > 0 && priority_of(s, s->preload[at - 1]) < s->models[i].priority; at--)
            s->preload[at] = s->preload[at - 1];
        s->preload[at] = s->models[i].id;
    }
}

enum rc model_set_build(const struct config *c, const struct catalog *catalog, struct model_set **ret_set,
                        struct err *err)
{
    struct model_set *s = mem_new(struct model_set);
    s->arena.cap_bytes = ARENA_MAX;
    s->config = c;
    s->catalog = catalog;
    size_t most = catalog->n + c->n_models;
    s->models = arena_array(&s->arena, most ? most : 1, sizeof *s->models);
    s->entries = arena_array(&s->arena, most ? most : 1, sizeof(*s->entries));
    s->settings = arena_array(&s->arena, most ? most : 1, sizeof(*s->settings));
    s->preload = arena_array(&s->arena, most ? most : 1, sizeof *s->preload);
    s->warnings = arena_array(&s->arena, WARNINGS_MAX, sizeof *s->warnings);
    s->groups = arena_array(&s->arena, c->n_models ? c->n_models : 1, sizeof *s->groups);
    if (!s->groups || !s->models || !s->entries || !s->settings || !s->preload || !s->warnings) {
        model_set_free(s);
        return err_set(err, RC_NOMEM, "memory is short for a list of %zu models", most);
    }
    add_found(s);
    add_named(s);
    qsort(s->models, s->n, sizeof *s->models, by_id);
    for (size_t i = 0; i < s->n; i++) {
        const struct catalog_entry *e = catalog_find(catalog, str_from(s->models[i].id));
        s->entries[i] = e && e->model ? e : NULL;
        s->settings[i] = config_model_for(c, str_from(s->models[i].id));
        find_smaller(s, i);
    }
    drop_clashing_aliases(s);
    check_stand_ins(s);
    collect_preload(s);
    for (size_t i = 0; i < catalog->n_notes; i++)
        warn(s, "%s", catalog->notes[i].message);
    *ret_set = s;
    return RC_OK;
}

void model_set_free(struct model_set *s)
{
    if (!s)
        return;
    arena_release(&s->arena);
    free(s);
}

/* ---- OpenAI's objects ---- */

yyjson_mut_val *model_set_json(const struct model_set *s, size_t i, yyjson_mut_doc *doc)
{
    const struct pool_model *p = &s->models[i];
    const struct catalog_entry *e = s->entries[i];
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_obj_add_str(doc, o, "id", p->id);
    yyjson_mut_obj_add_str(doc, o, "object", "model");
    yyjson_mut_obj_add_int(doc, o, "created", e ? e->mtime_ns / 1000000000 : 0);
    yyjson_mut_obj_add_str(doc, o, "owned_by", e ? e->source : "configuration");
    yyjson_mut_val *aliases = yyjson_mut_obj_add_arr(doc, o, "aliases");
    for (size_t k = 0; k < p->n_aliases; k++)
        yyjson_mut_arr_add_str(doc, aliases, p->aliases[k]);
    if (!e)
        return o;
    yyjson_mut_val *meta = yyjson_mut_obj_add_obj(doc, o, "meta");
    yyjson_mut_obj_add_str(doc, meta, "architecture", e->model->architecture);
    yyjson_mut_obj_add_str(doc, meta, "quantization", e->model->quantization);
    yyjson_mut_obj_add_uint(doc, meta, "n_params", e->model->parameters);
    yyjson_mut_obj_add_uint(doc, meta, "n_ctx_train", e->model->context_train);
    yyjson_mut_obj_add_uint(doc, meta, "n_embd", e->model->n_embd);
    yyjson_mut_obj_add_uint(doc, meta, "n_vocab", e->model->n_vocab);
    yyjson_mut_obj_add_uint(doc, meta, "size", e->file_bytes);
    yyjson_mut_obj_add_bool(doc, meta, "embedding", p->embedding);
    yyjson_mut_obj_add_bool(doc, meta, "multimodal", p->files.mmproj != NULL);
    return o;
}

static yyjson_mut_val *group_json(yyjson_mut_doc *doc, const struct model_group *g)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_obj_add_str(doc, o, "id", g->id);
    yyjson_mut_obj_add_str(doc, o, "object", "model");
    yyjson_mut_obj_add_int(doc, o, "created", 0);
    yyjson_mut_obj_add_str(doc, o, "owned_by", "configuration");
    yyjson_mut_val *aliases = yyjson_mut_obj_add_arr(doc, o, "aliases");
    for (size_t i = 0; i < g->aliases->n; i++)
        yyjson_mut_arr_add_str(doc, aliases, g->aliases->items[i]);
    yyjson_mut_val *members = yyjson_mut_obj_add_arr(doc, o, "members");
    for (size_t i = 0; i < g->members->n; i++)
        yyjson_mut_arr_add_str(doc, members, g->members->items[i]);
    return o;
}

void model_set_list_json(const struct model_set *s, const struct remote_set *remotes, struct buf *out)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "object", "list");
    yyjson_mut_val *data = yyjson_mut_obj_add_arr(doc, root, "data");
    for (size_t i = 0; i < s->n; i++)
        yyjson_mut_arr_append(data, model_set_json(s, i, doc));
    for (size_t i = 0; i < s->n_groups; i++)
        yyjson_mut_arr_append(data, group_json(doc, &s->groups[i]));
    for (size_t i = 0; remotes && i < remote_set_models(remotes); i++)
        yyjson_mut_arr_append(data, remote_model_json(remote_set_model(remotes, i), doc));
    (void)json_write(doc, false, out, NULL); /* fails only with out->failed */
    yyjson_mut_doc_free(doc);
}

bool model_set_one_json(const struct model_set *s, struct str id, struct buf *out)
{
    size_t i = model_set_index(s, id);
    const struct model_group *g = i == SIZE_MAX ? model_set_group(s, id) : NULL;
    if (i == SIZE_MAX && !g)
        return false;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_doc_set_root(doc, g ? group_json(doc, g) : model_set_json(s, i, doc));
    (void)json_write(doc, false, out, NULL);
    yyjson_mut_doc_free(doc);
    return true;
}
