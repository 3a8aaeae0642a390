/* The set of models and their names: see pool_priv.h. A model whose settings_hash is unchanged keeps its
 * instances when the set is replaced, and follows the settings that need no other ones; one that changed or
 * vanished loses its instances, which drain. */
#include "pool/tenant.h"

#include <stdio.h>
#include <string.h>

static char *copy(const char *s)
{
    return s ? mem_strdup(s) : NULL;
}

char **strings_copy(const char *const *list, size_t n)
{
    char **out = n ? mem_calloc(n + 1, sizeof *out) : NULL;
    for (size_t i = 0; i < n; i++)
        out[i] = mem_strdup(list[i]);
    return out;
}

void strings_free(char **list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(list[i]);
    free(list);
}

static void settings_release(struct entry *e)
{
    free(e->path);
    free(e->files);
    free(e->binary);
    strings_free(e->extra_args, e->n_extra_args);
}

static void live_release(struct entry *e)
{
    free(e->device);
    strings_free(e->aliases, e->n_aliases);
    strings_free(e->smaller_paths, e->n_smaller_paths);
}

/* An instance that nobody uses begins to count anew; what a client wished of it stands. */
static void ttl_take(struct entry *e, uint64_t ms)
{
    struct pool_instance *i = e->current;
    if (e->ttl_ms == ms)
        return;
    e->ttl_ms = ms;
    if (!i || i->kept)
        return;
    i->keep_ms = ms ? ms : UINT64_MAX;
    instance_idle(i);
}

/* Settings that an instance follows as it runs, and those that only the next load heeds. */
static void live_take(struct entry *e, const struct pool_model *m)
{
    live_release(e);
    e->device = copy(m->policy.device);
    e->policy = m->policy;
    e->policy.device = e->device;
    e->aliases = strings_copy(m->aliases, m->n_aliases);
    e->n_aliases = m->n_aliases;
    e->n_smaller_paths = m->n_smaller < PLAN_MAX_ALTERNATIVES ? m->n_smaller : PLAN_MAX_ALTERNATIVES;
    e->smaller_paths = strings_copy(m->smaller, e->n_smaller_paths);
    e->priority = m->priority;
    if (e->pin !=
        m->pin) /* else an operator's word holds: a reload that says nothing new does not take it back */
        e->pinned = m->pin;
    e->pin = m->pin;
    ttl_take(e, m->ttl_ms);
}

static void settings_take(struct entry *e, const struct pool_model *m)
{
    settings_release(e);
    e->path = mem_strdup(m->path);
    e->files = files_copy(&m->files);
    e->binary = copy(m->runtime_binary);
    e->extra_args = strings_copy(m->extra_args, m->n_extra_args);
    e->n_extra_args = m->n_extra_args;
    e->embedding = m->embedding;
    e->kv_keep = m->kv_keep;
    e->settings_hash = m->settings_hash;
    /* what was learned under the old settings no longer holds */
    e->ctx_floor = 0;
    e->ctx_denied.tokens = 0;
    backoff_clear(e);
}

void entry_free_seat(struct entry *e)
{
    if (e->prep)
        load_drop(e);
    tenants_forget(e);
    settings_release(e);
    live_release(e);
    if (e->facts)
        e->pool->deps.facts_unref(e->facts);
    beside_release(e->pool, &e->beside);
    smaller_release(e->pool, &e->smaller);
    free(e->caps);
    free(e->last_log);
    free(e->id);
    line_free(e->line);
    prefix_table_free(e->prefixes);
    free(e);
}

static void entry_free(struct entry *e)
{
    while (e) {
        struct entry *next = e->twin;
        entry_free_seat(e);
        e = next;
    }
}

static int by_id(const void *a, const void *b)
{
    return strcmp((*(struct entry *const *)a)->id, (*(struct entry *const *)b)->id);
}

static int compare_str(struct str a, struct str b)
{
    int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

static int by_text(const void *a, const void *b)
{
    return compare_str(((const struct name *)a)->text, ((const struct name *)b)->text);
}

static void names_build(struct pool *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_entries; i++)
        n += 1 + p->entries[i]->n_aliases;
    free(p->names);
    p->names = mem_calloc(n + 1, sizeof *p->names);
    p->n_names = 0;
    for (size_t i = 0; i < p->n_entries; i++) {
        struct entry *e = p->entries[i];
        p->names[p->n_names++] = (struct name){str_from(e->id), e};
        for (size_t k = 0; k < e->n_aliases; k++)
            p->names[p->n_names++] = (struct name){str_from(e->aliases[k]), e};
    }
    qsort(p->names, p->n_names, sizeof *p->names, by_text);
}

static bool contains_ignoring_case(struct str hay, struct str needle)
{
    for (size_t i = 0; needle.n > 0 && i + needle.n <= hay.n; i++)
        if (str_ieq((struct str){hay.p + i, needle.n}, needle))
            return true;
    return false;
}

static struct entry *find_exact(const struct pool *p, struct str name)
{
    size_t low = 0, high = p->n_names;
    struct entry *found = NULL;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int c = compare_str(p->names[mid].text, name);
        if (c == 0) { /* an id wins over an alias of another model with the same text */
            found = p->names[mid].entry;
            for (size_t k = mid; k < p->n_names && str_eq(p->names[k].text, name); k++)
                if (str_eq_c(name, p->names[k].entry->id))
                    return p->names[k].entry;
            for (size_t k = mid; k-- > 0 && str_eq(p->names[k].text, name);)
                if (str_eq_c(name, p->names[k].entry->id))
                    return p->names[k].entry;
            return found;
        }
        if (c < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

/* "name" and "name:latest" are the same model to Ollama's clients, who add the tag or leave it out. */
static struct entry *find_tagged(const struct pool *p, struct str name)
{
    static const char latest[] = ":latest";
    size_t n = sizeof latest - 1;
    char tagged[256];
    if (str_ends(name, latest))
        return find_exact(p, (struct str){name.p, name.n - n});
    if (name.n + n > sizeof tagged || memchr(name.p, ':', name.n))
        return NULL;
    memcpy(tagged, name.p, name.n);
    memcpy(tagged + name.n, latest, n);
    return find_exact(p, (struct str){tagged, name.n + n});
}

bool pool_is_name(const struct pool *p, struct str text)
{
    return find_exact(p, text) || (text.n && find_tagged(p, text));
}

/* A name that is nobody's, letter by letter: the one model that it may mean. Of several quantisations, where
 * none is told, llama.cpp's own default. */
static struct entry *find_typed(const struct pool *p, struct str name)
{
    struct entry *found = NULL, *usual = NULL;
    size_t n_found = 0, n_usual = 0;
    for (size_t k = 0; k < p->n_names; k++) {
        struct entry *e = p->names[k].entry;
        enum catalog_meaning m = catalog_means(name, p->names[k].text);
        if (m == CATALOG_MEANS_NOT)
            continue;
        n_found += e != found;
        found = e;
        if (m == CATALOG_MEANS_MODEL && e != usual &&
            contains_ignoring_case(p->names[k].text, STR("Q4_K_M"))) {
            n_usual++;
            usual = e;
        }
    }
    return n_found == 1 ? found : n_usual == 1 ? usual : NULL;
}

struct entry *entry_find(const struct pool *p, struct str name)
{
    struct entry *e = find_exact(p, name);
    if (!e && name.n)
        e = find_tagged(p, name);
    return e || !name.n ? e : find_typed(p, name);
}

enum rc entry_unknown(const struct pool *p, struct str name, struct err *err)
{
    enum { NEAR = 3 };
    struct {
        unsigned distance;
        struct str text;
    } best[NEAR];
    size_t n = 0;
    if (p->opt.hooks.why_not && p->opt.hooks.why_not(p->opt.hooks.arg, name, err))
        return RC_NOT_FOUND;
    if (name.n > 120)
        name.n = 120;
    for (size_t i = 0; i < p->n_names; i++) {
        struct str text = p->names[i].text;
        unsigned d = str_distance(name, text);
        if (contains_ignoring_case(text, name) || contains_ignoring_case(name, text))
            d = d < 3 ? d : 3; /* "smollm2" is near "SmolLM2-135M-Instruct.Q4_1" */
        if (d > name.n / 2 + 2)
            continue;
        size_t at = n < NEAR ? n++ : NEAR;
        while (at > 0 && best[at - 1].distance > d) {
            if (at < NEAR)
                best[at] = best[at - 1];
            at--;
        }
        if (at < NEAR) {
            best[at].distance = d;
            best[at].text = text;
        }
    }
    enum rc rc = err_set(err, RC_NOT_FOUND, "there is no model \"%.*s\"", STR_ARG(name));
    if (n == 0 && p->n_entries == 0)
        err_hint(err, "no model was found: name a directory with GGUF files (--models DIR)");
    else if (n == 0)
        err_hint(err, "`arriero models` and GET /v1/models list the models");
    else if (n == 1)
        err_hint(err, "did you mean \"%.*s\"?", STR_ARG(best[0].text));
    else if (n == 2)
        err_hint(err, "did you mean \"%.*s\" or \"%.*s\"?", STR_ARG(best[0].text), STR_ARG(best[1].text));
    else
        err_hint(err, "did you mean \"%.*s\", \"%.*s\" or \"%.*s\"?", STR_ARG(best[0].text),
                 STR_ARG(best[1].text), STR_ARG(best[2].text));
    return rc;
}

void seat_uproot(struct entry *e, const char *code, const char *why)
{
    struct pool_instance *i = e->current, *record = e->record;
    load_drop(e);
    if (record)
        instance_detach(record);
    if (i) {
        struct plan_reason r;
        reason_set(&r, code, "%s", why);
        decide(e->pool, "unload", e, i, &r, 1, NULL, 0);
        instance_detach(i);
        instance_stop(i, STOP_DRAIN);
    }
}

static void entry_uproot(struct entry *e, const char *code, const char *why)
{
    for (struct entry *s = e; s; s = s->twin)
        seat_uproot(s, code, why);
}

static struct entry *find_by_id(struct entry *const *entries, size_t n, const char *id)
{
    struct entry key = {.id = (char *)(uintptr_t)id}, *k = &key;
    struct entry *const *found = n ? bsearch(&k, entries, n, sizeof(struct entry *), by_id) : NULL;
    return found ? *found : NULL;
}

static bool linear_find(struct entry *const *entries, size_t n, const char *id)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(entries[i]->id, id) == 0)
            return true;
    return false;
}

struct entry *entry_new_seat(struct entry *lead, uint32_t seat)
{
    struct entry *e = mem_new(struct entry);
    e->pool = lead->pool;
    e->id = mem_strdup(lead->id);
    e->lead = lead;
    e->seat = seat;
    return e;
}

static struct entry *entry_new(struct pool *p, const struct pool_model *m)
{
    struct entry *e = mem_new(struct entry);
    e->pool = p;
    e->id = mem_strdup(m->id);
    e->lead = e;
    return e;
}

/* What was read of its files under the old settings. */
static void facts_forget(struct entry *e)
{
    struct pool *p = e->pool;
    if (e->facts)
        p->deps.facts_unref(take_ptr(e->facts));
    beside_release(p, &e->beside);
    smaller_release(p, &e->smaller);
    free(take_ptr(e->caps));
}

/* New settings, for every seat that they ask for; of a model that keeps its own only for seats that are new.
 */
static void entry_settle(struct entry *lead, const struct pool_model *m, bool all)
{
    seats_set(lead, m);
    for (struct entry *s = lead; s; s = s->twin) {
        if (!all && s->path)
            continue;
        facts_forget(s);
        settings_take(s, m);
    }
}

bool entry_is_known(const struct pool *p, const struct entry *lead)
{
    for (size_t i = 0; i < p->n_entries; i++)
        if (p->entries[i] == lead)
            return true;
    return false;
}

void pool_set_models(struct pool *p, const struct pool_model *models, size_t n)
{
    struct entry **old = p->entries, **entries = mem_calloc(n + 1, sizeof *entries);
    size_t n_old = p->n_entries, n_new = 0;
    struct entry **changed = mem_calloc(n + 1, sizeof *changed),
                 **vanished = mem_calloc(n_old + 1, sizeof *vanished);
    size_t n_changed = 0, n_vanished = 0;
    for (size_t i = 0; i < n; i++) {
        struct entry *e = find_by_id(old, n_old, models[i].id);
        if (e && e->keep) /* the same id twice: the first counts */
            continue;
        if (!e && linear_find(entries, n_new, models[i].id))
            continue;
        if (!e) {
            e = entry_new(p, &models[i]);
            entry_settle(e, &models[i], true);
        } else if (e->settings_hash != models[i].settings_hash) {
            entry_uproot(e, "settings_changed", "its settings changed");
            entry_settle(e, &models[i], true);
            changed[n_changed++] = e;
        } else {
            entry_settle(e, &models[i], false);
        }
        e->keep = &models[i];
        entries[n_new++] = e;
    }
    for (size_t i = 0; i < n_old; i++)
        if (!old[i]->keep)
            vanished[n_vanished++] = old[i];
    for (size_t i = 0; i < n_new; i++) { /* together with the names: nobody looks a name up in between */
        for (struct entry *s = entries[i]; s; s = s->twin)
            live_take(s, entries[i]->keep);
        entries[i]->keep = NULL;
    }
    qsort(entries, n_new, sizeof *entries, by_id);
    free(old);
    p->entries = entries;
    p->n_entries = n_new;
    names_build(p);
    for (size_t i = 0; i < n_changed; i++) /* those who wait get the model with its new settings */
        if (wait_count(changed[i]) && !p->stopping)
            seats_load(changed[i]);
    for (size_t i = 0; i < n_vanished; i++) {
        struct err err;
        entry_uproot(vanished[i], "model_removed", "the model is no longer configured");
        enum rc rc =
            err_set(&err, RC_NOT_FOUND, "model %s was taken away while it was asked for", vanished[i]->id);
        err_hint(&err, "`arriero models` and GET /v1/models list the models");
        wait_fail_all(vanished[i], rc, &err, 0);
        entry_free(vanished[i]);
    }
    free(changed);
    free(vanished);
    load_warm_up(p);
    p->room_changed = true;
    pool_kick(p);
}

void models_release(struct pool *p)
{
    for (size_t i = 0; i < p->n_entries; i++)
        entry_free(p->entries[i]);
    free(p->entries);
    free(p->names);
    p->entries = NULL;
    p->names = NULL;
    p->n_entries = p->n_names = 0;
}
