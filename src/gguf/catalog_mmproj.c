/* Finds the projector (mmproj) that belongs to a model, among those in its folder. Layer gguf; pure. */
#include "gguf/catalog_priv.h"

#include <string.h>

static struct str folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return (struct str){path, slash ? (size_t)(slash - path) : 0};
}

/* Whether all models in the folder are quantisations of one: any projector there is then for it. */
static bool is_of_one_model(const struct catalog *c, struct str folder)
{
    auto_free char *first = NULL;
    for (size_t i = 0; i < c->n; i++) {
        if (!str_eq(folder_of(c->entries[i].path), folder))
            continue;
        auto_free char *base = name_base(name_stem(c->entries[i].path));
        if (first && strcmp(first, base))
            return false;
        if (!first)
            first = take_ptr(base);
    }
    return true;
}

/* In the model's folder; in a repository of the hub also above it, where large quantisations have folders of
 * their own beside the projector. */
static bool is_near(const struct projector *p, const struct catalog_entry *e)
{
    struct str theirs = folder_of(p->path), ours = folder_of(e->path);
    if (str_eq(theirs, ours))
        return true;
    return !strcmp(e->source, "huggingface") && theirs.n < ours.n && !memcmp(theirs.p, ours.p, theirs.n) &&
           ours.p[theirs.n] == '/' && str_find(theirs, STR("/snapshots/")) >= 0;
}

static bool same_key(const struct model *a, const struct model *b, const char *key)
{
    struct str left, right;
    return model_key_str(a, key, &left) && model_key_str(b, key, &right) && left.n && str_ieq(left, right);
}

static bool belongs(const struct projector *p, const struct catalog_entry *e)
{
    auto_free char *model = name_base(name_stem(e->path));
    auto_free char *projector = name_base(name_stem(p->path));
    return (*projector && !strcmp(model, projector)) || same_key(p->model, e->model, "general.name") ||
           (same_key(p->model, e->model, "general.basename") &&
            same_key(p->model, e->model, "general.size_label"));
}

/* F16 is what nearly all are made for; the smaller number is preferred. */
static unsigned rank(const struct projector *p)
{
    static const char *const order[] = {"F16", "BF16", "Q8_0", "F32"};
    unsigned i = 0;
    while (i < TABLE_COUNT(order) && strcmp(p->model->quantization, order[i]))
        i++;
    return i;
}

void attach_projectors(struct catalog *c, const struct projector *projectors, size_t n)
{
    for (size_t i = 0; n && i < c->n; i++) {
        struct catalog_entry *e = &c->entries[i];
        const struct projector *best = NULL;
        if (e->mmproj || !e->model)
            continue;
        bool any = is_of_one_model(c, folder_of(e->path));
        for (size_t k = 0; k < n; k++)
            if (is_near(&projectors[k], e) && (any || belongs(&projectors[k], e)) &&
                (!best || rank(&projectors[k]) < rank(best)))
                best = &projectors[k];
        if (best)
            e->mmproj = mem_strdup(best->path);
    }
}
