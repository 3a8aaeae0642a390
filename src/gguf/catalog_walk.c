/* Walks directories for GGUF files, and knows the layout of the Hugging Face hub's cache wherever it meets
 * it: models--ORG--REPO/snapshots/REVISION/FILE, each a link into ../../blobs, and refs/main naming a
 * revision. Layer gguf; blocking; one thread. */
#include "gguf/catalog_priv.h"

#include "os/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static uint64_t mix(uint64_t dev, uint64_t ino)
{
    uint64_t h = (ino ^ (dev << 32 | dev >> 32)) * 0x9e3779b97f4a7c15ull;
    return h ^ h >> 29;
}

bool inode_set_add(struct inode_set *set, uint64_t dev, uint64_t ino)
{
    if (set->n * 2 >= set->cap) {
        struct inode_set grown = {.cap = set->cap ? set->cap * 2 : 256};
        grown.slots = mem_calloc(grown.cap, sizeof *grown.slots);
        for (size_t i = 0; i < set->cap; i++)
            if (set->slots[i].used)
                inode_set_add(&grown, set->slots[i].dev, set->slots[i].ino);
        free(set->slots);
        *set = grown;
    }
    size_t at = mix(dev, ino) & (set->cap - 1);
    for (; set->slots[at].used; at = (at + 1) & (set->cap - 1))
        if (set->slots[at].dev == dev && set->slots[at].ino == ino)
            return false;
    set->slots[at] = (struct inode){dev, ino, true};
    set->n++;
    return true;
}

void inode_set_release(struct inode_set *set)
{
    free(set->slots);
    *set = (struct inode_set){0};
}

struct err *scan_note(struct scan *s)
{
    if (s->c->n_notes == s->cap_notes) {
        s->cap_notes = s->cap_notes ? s->cap_notes * 2 : 8;
        s->c->notes = mem_realloc(s->c->notes, s->cap_notes, sizeof *s->c->notes);
    }
    struct err *note = &s->c->notes[s->c->n_notes++];
    *note = (struct err){0};
    return note;
}

void scan_add(struct scan *s, const struct candidate *c)
{
    if (s->n_candidates == s->cap_candidates) {
        s->cap_candidates = s->cap_candidates ? s->cap_candidates * 2 : 64;
        s->candidates = mem_realloc(s->candidates, s->cap_candidates, sizeof *s->candidates);
    }
    s->candidates[s->n_candidates++] = *c;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

char **scan_names(struct scan *s, const char *dir, size_t *ret_n, int *ret_errno)
{
    char **names = NULL;
    size_t n = 0, cap = 0;
    DIR *d = opendir(dir);
    *ret_errno = d ? 0 : errno;
    const struct dirent *entry;
    while (d && (errno = 0, entry = readdir(d))) {
        if (entry->d_name[0] == '.')
            continue;
        if (s->entries_left == 0)
            break;
        if (--s->entries_left == 0)
            (void)err_set(scan_note(s), RC_LIMIT, "the scan stopped in %s after %u directory entries", dir,
                          SCAN_MAX_ENTRIES);
        if (n == cap) {
            cap = cap ? cap * 2 : 32;
            names = mem_realloc(names, cap, sizeof *names);
        }
        names[n++] = mem_strdup(entry->d_name);
    }
    if (d && errno)
        *ret_errno = errno;
    if (d)
        closedir(d);
    if (n)
        qsort(names, n, sizeof *names, by_name);
    *ret_n = n;
    return names;
}

void scan_names_free(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

static bool has_name(char *const *names, size_t n, const char *name)
{
    return n && bsearch(&name, names, n, sizeof *names, by_name);
}

static bool is_gguf(const char *name)
{
    size_t n = strlen(name);
    return n > 5 && !strcasecmp(name + n - 5, ".gguf");
}

static void note_unreadable(struct scan *s, const char *dir, int number)
{
    struct err *note = scan_note(s);
    errno = number;
    (void)err_sys(note,
                  number == EACCES   ? RC_DENIED
                  : number == ENOENT ? RC_NOT_FOUND
                                     : RC_IO,
                  "cannot read %s", dir);
    if (number == ENOENT)
        err_hint(note, "check the path");
    if (number == EACCES)
        err_hint(note, "let this user read it; for Ollama's own folder, add the user to the group ollama");
}

/* True if this directory is walked for the first time; *ret_errno is why it could not be looked at, or 0. */
static bool enter(struct scan *s, const char *dir, int *ret_errno)
{
    struct stat st;
    *ret_errno = stat(dir, &st) ? errno : S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
    return *ret_errno == 0 && inode_set_add(&s->dirs, st.st_dev, st.st_ino);
}

struct walk {
    const char *source;
    const char *repo;   /* in a snapshot: "org/repo" */
    size_t root_length; /* in a snapshot: length of its path with the slash */
    size_t first;       /* in a snapshot: the first candidate of the repository */
};

/* Whether the repository has this file already, from a revision that was walked before. */
static bool is_older_revision(const struct scan *s, const struct walk *w, const char *path)
{
    for (size_t i = w->first; i < s->n_candidates; i++) {
        /* Revisions have names of one length, so the path inside the snapshot begins at the same place. */
        const char *other = s->candidates[i].path;
        if (strlen(other) > w->root_length && !strcmp(other + w->root_length, path + w->root_length))
            return true;
    }
    return false;
}

static void add_file(struct scan *s, const struct walk *w, const char *path)
{
    if (w->repo && is_older_revision(s, w, path))
        return;
    struct candidate c = {.path = mem_strdup(path), .source = w->source};
    if (w->repo)
        c.repo = mem_strdup(w->repo);
    scan_add(s, &c);
}

static void walk_dir(struct scan *s, const struct walk *w, const char *dir, unsigned depth, bool wanted);

/* Walks the revisions of a repository, refs/main first and then the others. */
static void walk_hub_repo(struct scan *s, const char *dir, const char *folder)
{
    auto_free char *repo = mem_strdup(folder + strlen("models--"));
    auto_free char *snapshots = mem_printf("%s/snapshots", dir);
    auto_free char *ref = mem_printf("%s/refs/main", dir);
    char *dash = strstr(repo, "--");
    struct buf head = {0};
    size_t n = 0;
    int number;
    if (dash) {
        *dash = '/';
        memmove(dash + 1, dash + 2, strlen(dash + 2) + 1);
    }
    char **names = scan_names(s, snapshots, &n, &number);
    if (number && number != ENOENT)
        note_unreadable(s, snapshots, number);
    if (file_read(ref, 256, &head, NULL))
        buf_clear(&head);
    struct str main_revision = str_trim(buf_str(&head));
    struct walk w = {.source = "huggingface", .repo = repo, .first = s->n_candidates};
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < n; i++) {
            if (str_eq_c(main_revision, names[i]) != (pass == 0))
                continue;
            auto_free char *path = mem_printf("%s/%s", snapshots, names[i]);
            w.root_length = strlen(path) + 1;
            walk_dir(s, &w, path, SCAN_DEPTH - 3, false);
        }
    buf_release(&head);
    scan_names_free(names, n);
}

static void walk_entry(struct scan *s, const struct walk *w, const char *dir, const char *name,
                       unsigned depth)
{
    struct stat st;
    int number;
    auto_free char *path = mem_printf("%s%s%s", dir, dir[strlen(dir) - 1] == '/' ? "" : "/", name);
    if (stat(path, &st)) {
        if (is_gguf(name))
            note_unreadable(s, path, errno);
        return;
    }
    if (S_ISREG(st.st_mode) && is_gguf(name))
        add_file(s, w, path);
    if (!S_ISDIR(st.st_mode))
        return;
    auto_free char *snapshots = mem_printf("%s/snapshots", path);
    if (!w->repo && !strncmp(name, "models--", 8) && file_exists(snapshots)) {
        if (enter(s, path, &number))
            walk_hub_repo(s, path, name);
    } else if (depth < SCAN_DEPTH) {
        walk_dir(s, w, path, depth + 1, false);
    }
}

static void walk_dir(struct scan *s, const struct walk *w, const char *dir, unsigned depth, bool wanted)
{
    size_t n = 0;
    int number;
    if (!enter(s, dir, &number)) {
        if (number && (wanted || (number != ENOENT && number != ENOTDIR)))
            note_unreadable(s, dir, number);
        return;
    }
    char **names = scan_names(s, dir, &n, &number);
    if (number)
        note_unreadable(s, dir, number);
    if (has_name(names, n, "blobs") &&
        (has_name(names, n, "manifests") || has_name(names, n, "manifests-v2")))
        scan_ollama(s, dir);
    else
        for (size_t i = 0; i < n; i++)
            walk_entry(s, w, dir, names[i], depth);
    scan_names_free(names, n);
}

void scan_walk(struct scan *s, const char *dir, const char *source, bool wanted)
{
    struct walk w = {.source = source};
    struct stat st;
    int number;
    auto_free char *snapshots = mem_printf("%s/snapshots", dir);
    const char *slash = strrchr(dir, '/');
    if (stat(dir, &st) == 0 && S_ISREG(st.st_mode))
        add_file(s, &w, dir);
    else if (slash && !strncmp(slash + 1, "models--", 8) && file_exists(snapshots)) {
        if (enter(s, dir, &number))
            walk_hub_repo(s, dir, slash + 1);
    } else {
        walk_dir(s, &w, dir, 0, wanted);
    }
}
