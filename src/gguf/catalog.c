/* The catalog: reads the candidates that the walk found, leaves out what is no model, gives ids. Layer gguf;
 * blocking; any thread. */
#include "gguf/catalog_priv.h"

#include "os/file.h"

#include <string.h>
#include <strings.h>
#include <unistd.h>

struct judge {
    struct scan *s;
    struct projector *projectors;
    size_t n_projectors, cap_projectors;
};

static int compare_ids(struct str a, struct str b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n ? strncasecmp(a.p, b.p, n) : 0;
    if (!order)
        order = (a.n > b.n) - (a.n < b.n);
    return order || !n ? order : memcmp(a.p, b.p, n);
}

static int by_id(const void *a, const void *b)
{
    return compare_ids(str_from(((const struct catalog_entry *)a)->id),
                       str_from(((const struct catalog_entry *)b)->id));
}

static bool id_taken(const struct catalog *c, const char *id)
{
    for (size_t i = 0; i < c->n; i++)
        if (!strcmp(c->entries[i].id, id))
            return true;
    return false;
}

/* The first free one of: the name, folder/name, folder/name#2 … */
static char *unique_id(const struct catalog *c, const struct candidate *from, char *name)
{
    if (!id_taken(c, name))
        return name;
    struct str stem = name_stem(from->path);
    const char *end = stem.p > from->path ? stem.p - 1 : from->path; /* the slash */
    const char *start = end;
    while (start > from->path && start[-1] != '/')
        start--;
    auto_free char *raw = from->repo ? mem_printf("%s:%.*s", from->repo, STR_ARG(stem))
                          : from->id ? mem_strdup(from->id)
                                     : mem_printf("%.*s/%.*s", (int)(end - start), start, STR_ARG(stem));
    auto_free char *longer = text_clean(str_from(raw));
    free(name);
    if (!id_taken(c, longer))
        return take_ptr(longer);
    for (unsigned k = 2;; k++) {
        auto_free char *numbered = mem_printf("%s#%u", longer, k);
        if (!id_taken(c, numbered))
            return take_ptr(numbered);
    }
}

static char *id_of(const struct catalog *c, const struct candidate *from, const struct model *m)
{
    struct str stem = name_stem(from->path);
    auto_free char *raw = NULL;
    if (from->id) {
        raw = mem_strdup(from->id);
    } else if (from->repo) {
        struct str quant = name_quantization(stem);
        if (!quant.n)
            quant = m ? str_from(m->quantization) : stem;
        raw = mem_printf("%s:%.*s", from->repo, STR_ARG(quant));
    } else {
        raw = mem_printf("%.*s", STR_ARG(stem));
    }
    return unique_id(c, from, text_clean(str_from(raw)));
}

/* Parts of a split model after the first are listed through the first one; the lowest one present speaks for
 * the model when the first is missing. */
static bool is_further_part(const char *path)
{
    size_t prefix;
    uint32_t no, count;
    if (!split_name_parse(path, &prefix, &no, &count) || count > MODEL_MAX_FILES)
        return false;
    for (uint32_t i = 0; i < no; i++) {
        auto_free char *lower = mem_printf("%.*s-%05u-of-%05u.gguf", (int)prefix, path, i + 1, count);
        if (file_exists(lower))
            return true;
    }
    return false;
}

static bool is_projector(const struct model *m)
{
    return !strcmp(m->type, "mmproj") || !strcmp(m->architecture, "clip");
}

static bool is_language_model(const struct model *m)
{
    return m->n_tensors > 0 && m->n_layer > 0 && (!*m->type || !strcmp(m->type, "model"));
}

/* Ollama's own engine wants the vision tower inside the model's file; llama.cpp refuses such a file ("wrong
 * number of tensors"). */
static enum rc check_no_tower(const struct model *m, struct err *err)
{
    static const char *const towers[] = {"v.", "mm.", "a."};
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        for (size_t k = 0; k < TABLE_COUNT(towers); k++) {
            if (!str_starts(str_from(m->tensors[i].name), towers[k]))
                continue;
            enum rc rc =
                err_set(err, RC_UNSUPPORTED, "%s has its vision or audio part in the same file", m->path);
            err_hint(
                err,
                "llama.cpp wants that part in a file of its own (mmproj): get the model from another source, "
                "or run it with Ollama");
            text_clean_err(err);
            return rc;
        }
    }
    return RC_OK;
}

static void add_projector(struct judge *j, const char *path, struct model *m)
{
    if (j->n_projectors == j->cap_projectors) {
        j->cap_projectors = j->cap_projectors ? j->cap_projectors * 2 : 8;
        j->projectors = mem_realloc(j->projectors, j->cap_projectors, sizeof *j->projectors);
    }
    j->projectors[j->n_projectors++] = (struct projector){mem_strdup(path), m};
}

static struct catalog_entry *new_entry(struct scan *s)
{
    if (s->c->n == s->cap_entries) {
        s->cap_entries = s->cap_entries ? s->cap_entries * 2 : 32;
        s->c->entries = mem_realloc(s->c->entries, s->cap_entries, sizeof *s->c->entries);
    }
    return &s->c->entries[s->c->n];
}

static void judge(struct judge *j, struct candidate *from)
{
    struct scan *s = j->s;
    struct stat st;
    struct err problem = {0};
    struct model *m = NULL;
    if (is_further_part(from->path))
        return;
    if (stat(from->path, &st)) {
        (void)err_sys(scan_note(s), RC_IO, "cannot look at %s", from->path);
        return;
    }
    if (!inode_set_add(&s->files, st.st_dev, st.st_ino))
        return;
    enum rc rc = model_open_cached(from->path, &m, &problem);
    if (!rc && is_projector(m)) {
        add_projector(j, from->path, m);
        return;
    }
    if (!rc && !is_language_model(m)) {
        model_unref(m);
        return;
    }
    if (!rc && check_no_tower(m, &problem)) {
        model_unref(m);
        m = NULL;
    }
    if (rc && name_has(name_stem(from->path), "mmproj")) {
        *scan_note(s) = problem;
        return;
    }
    char *mmproj = take_ptr(from->mmproj);
    struct catalog_entry *e = new_entry(s);
    *e = (struct catalog_entry){
        .id = id_of(s->c, from, m),
        .path = mem_strdup(m ? m->path : from->path),
        .mmproj = mmproj,
        .source = from->source,
        .file_bytes = m ? m->file_bytes : (uint64_t)st.st_size,
        .mtime_ns = m ? m->mtime_ns : (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec,
        .model = m,
        .problem = problem,
    };
    s->c->n++;
}

static void judge_all(struct scan *s)
{
    struct judge j = {.s = s};
    for (size_t i = 0; i < s->n_candidates; i++) {
        struct candidate *from = &s->candidates[i];
        judge(&j, from);
        free(from->path);
        free(from->repo);
        free(from->id);
        free(from->mmproj);
    }
    attach_projectors(s->c, j.projectors, j.n_projectors);
    for (size_t i = 0; i < j.n_projectors; i++) {
        free(j.projectors[i].path);
        model_unref(j.projectors[i].model);
    }
    free(j.projectors);
}

static char *absolute_dir(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    if (path[0] == '/')
        return mem_strndup(path, n);
    auto_free char *cwd = getcwd(NULL, 0);
    if (!strcmp(path, ".") || !n)
        return mem_strdup(cwd ? cwd : ".");
    if (!strncmp(path, "./", 2) && n > 2)
        return mem_printf("%s/%.*s", cwd ? cwd : ".", (int)n - 2, path + 2);
    return mem_printf("%s/%.*s", cwd ? cwd : ".", (int)n, path);
}

enum rc catalog_scan(const struct catalog_options *opt, struct catalog **ret_catalog, struct err *err)
{
    (void)err;
    const char *home = opt->home ? opt->home : getenv("HOME");
    struct scan s = {.c = mem_new(struct catalog), .entries_left = SCAN_MAX_ENTRIES, .home = home};
    for (size_t i = 0; i < opt->n_dirs; i++) {
        auto_free char *dir = absolute_dir(opt->dirs[i]);
        scan_walk(&s, dir, "directory", true);
    }
    if (opt->usual_caches && home && *home)
        scan_usual_caches(&s);
    judge_all(&s);
    if (s.c->n)
        qsort(s.c->entries, s.c->n, sizeof *s.c->entries, by_id);
    for (size_t i = 0; i < s.c->n_notes; i++)
        text_clean_err(&s.c->notes[i]);
    free(s.candidates);
    inode_set_release(&s.dirs);
    inode_set_release(&s.files);
    *ret_catalog = s.c;
    return RC_OK;
}

void catalog_free(struct catalog *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n; i++) {
        free(c->entries[i].id);
        free(c->entries[i].path);
        free(c->entries[i].mmproj);
        model_unref(c->entries[i].model);
    }
    free(c->entries);
    free(c->notes);
    free(c);
}

const struct catalog_entry *catalog_find(const struct catalog *c, struct str id)
{
    size_t low = 0, high = c->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_ids(id, str_from(c->entries[middle].id));
        if (order == 0)
            return &c->entries[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* Small is near; UINT_MAX is not worth naming. An id that contains the word is nearer than any misspelling.
 */
static unsigned farness(struct str wanted, const char *id)
{
    auto_free char *word = mem_strndup(wanted.p, wanted.n);
    struct str full = str_from(id);
    const char *slash = strrchr(id, '/');
    unsigned far = str_distance(wanted, full);
    if (slash) {
        unsigned tail = str_distance(wanted, str_from(slash + 1));
        far = tail < far ? tail : far;
    }
    if (wanted.n >= 2 && name_has(full, word))
        return far < 1000 ? far : 1000;
    unsigned most = wanted.n < 9 ? 3 : (unsigned)(wanted.n > 128 ? 128 : wanted.n) / 3;
    return far <= most ? 1000 + far : UINT32_MAX;
}

size_t catalog_nearest(const struct catalog *c, struct str id, const char **out, size_t max)
{
    size_t n = 0;
    unsigned *scores = max ? mem_calloc(max, sizeof *scores) : NULL;
    for (size_t i = 0; max && i < c->n; i++) {
        unsigned score = farness(id, c->entries[i].id);
        if (score == UINT32_MAX || (n == max && score >= scores[n - 1]))
            continue;
        size_t at = n < max ? n++ : n - 1;
        for (; at > 0 && scores[at - 1] > score; at--) {
            scores[at] = scores[at - 1];
            out[at] = out[at - 1];
        }
        scores[at] = score;
        out[at] = c->entries[i].id;
    }
    free(scores);
    return n;
}

static bool is_smaller(const struct model *m, const char *base, const struct model *other)
{
    if (!other || other->tensor_bytes >= m->tensor_bytes || other->parameters != m->parameters ||
        other->n_layer != m->n_layer || strcmp(other->architecture, m->architecture) != 0)
        return false;
    auto_free char *name = name_base(name_stem(other->path));
    return strcmp(name, base) == 0;
}

size_t catalog_smaller(const struct catalog *c, const struct model *m, const struct model **out, size_t max)
{
    auto_free char *base = name_base(name_stem(m->path));
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++) {
        const struct model *other = c->entries[i].model;
        if (!is_smaller(m, base, other))
            continue;
        size_t at = n < max ? n++ : max;
        for (; at > 0 && out[at - 1]->tensor_bytes < other->tensor_bytes; at--)
            if (at < max)
                out[at] = out[at - 1];
        if (at < max)
            out[at] = other;
    }
    return n;
}
