/* Files beside the model: projector, adapters, draft. Layer cli; main thread; see plan_args.h. */
#include "cli/plan_args.h"

#include "base/mem.h"
#include "gguf/catalog.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

void plan_files_release(struct plan_files *f)
{
    model_unref(f->projector);
    model_unref(f->draft);
    for (uint32_t i = 0; i < f->n_adapters; i++)
        model_unref(f->adapters[i]);
    *f = (struct plan_files){0};
}

/* Only a folder with something called mmproj is worth a scan. */
static bool has_projector(const char *folder)
{
    DIR *d = opendir(folder);
    bool found = false;
    for (struct dirent *e; d && !found && (e = readdir(d));)
        found = str_find(str_from(e->d_name), STR("mmproj")) >= 0;
    if (d)
        closedir(d);
    return found;
}

char *plan_files_paired(const struct model *m)
{
    const char *slash = strrchr(m->path, '/');
    auto_free char *folder =
        mem_printf("%.*s", slash ? (int)(slash - m->path) + !(slash - m->path) : 1, slash ? m->path : ".");
    struct catalog *c = NULL;
    char *paired = NULL;
    if (!has_projector(folder))
        return NULL;
    const char *const dirs[] = {folder};
    const struct catalog_options opt = {.dirs = dirs, .n_dirs = 1};
    if (catalog_scan(&opt, &c, NULL) != RC_OK)
        return NULL;
    for (size_t i = 0; i < c->n && !paired; i++)
        if (!strcmp(c->entries[i].path, m->path) && c->entries[i].mmproj)
            paired = mem_strdup(c->entries[i].mmproj);
    catalog_free(c);
    return paired;
}

/* "FILE" or, scaled, "FILE:SCALE". */
static enum rc open_adapter(struct plan_files *f, const char *word, bool scaled, struct err *err)
{
    float scale = 1;
    size_t n = scaled ? plan_adapter_path(word, &scale) : strlen(word);
    if (f->n_adapters == PLAN_MAX_ADAPTERS)
        return err_set(err, RC_INVALID, "more than %d adapters", PLAN_MAX_ADAPTERS);
    if (scaled && !word[n])
        return err_set(err, RC_INVALID, "--lora-scaled got \"%s\", expected FILE:SCALE", word);
    auto_free char *file = mem_printf("%.*s", (int)n, word);
    enum rc rc = model_open(file, &f->adapters[f->n_adapters], err);
    if (rc)
        return rc;
    f->extras.adapters[f->n_adapters] = f->adapters[f->n_adapters];
    f->extras.adapter_scale[f->n_adapters++] = scale;
    f->extras.n_adapters = f->n_adapters;
    return RC_OK;
}

static enum rc open_all(const struct plan_args *a, const char *projector, struct plan_files *f,
                        struct err *err)
{
    enum rc rc = RC_OK;
    if (projector)
        rc = model_open(projector, &f->projector, err);
    if (!rc && a->draft)
        rc = model_open(a->draft, &f->draft, err);
    for (size_t i = 0; i < a->loras.n && !rc; i++)
        rc = open_adapter(f, a->loras.items[i], false, err);
    for (size_t i = 0; i < a->scaled_loras.n && !rc; i++)
        rc = open_adapter(f, a->scaled_loras.items[i], true, err);
    return rc;
}

enum rc plan_files_open(const struct plan_args *a, const char *paired, struct plan_files *ret_files,
                        struct plan_params *params, struct err *err)
{
    struct plan_files f = {0};
    const char *projector = a->no_mmproj ? NULL : a->mmproj ? a->mmproj : paired;
    plan_extras_default(&f.extras);
    enum rc rc = open_all(a, projector, &f, err);
    if (rc) {
        plan_files_release(&f);
        return rc;
    }
    f.extras.projector = f.projector;
    f.extras.projector_on_host = !a->mmproj_offload;
    f.extras.draft = f.draft;
    if (a->draft_tokens)
        f.extras.draft_tokens = a->draft_tokens;
    f.extras.draft_least = a->draft_least;
    f.extras.draft_device = a->draft_device;
    f.extras.draft_type_k = a->draft_type_k;
    f.extras.draft_type_v = a->draft_type_v;
    f.extras.draft_gpu_layers = a->draft_gpu_layers;
    *ret_files = f;
    if (f.projector || f.draft || f.n_adapters)
        params->extras = &ret_files->extras;
    return RC_OK;
}
