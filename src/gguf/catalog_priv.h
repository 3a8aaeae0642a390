/* What the files of the catalog share. Private to gguf/. A scan has two steps: walking (catalog_walk.c and
 * catalog_caches.c) collects candidates in the order of preference, then catalog.c reads and judges them. */
#ifndef GGUF_CATALOG_PRIV_H
#define GGUF_CATALOG_PRIV_H

#include "gguf/catalog.h"
#include "gguf/model_priv.h"

#include <sys/stat.h>

#define SCAN_DEPTH       6u
#define SCAN_MAX_ENTRIES 1000000u /* directory entries looked at in one scan */

/* A set of files or directories by (device, inode). */
struct inode_set {
    struct inode {
        uint64_t dev, ino;
        bool used;
    } * slots;
    size_t n, cap;
};
/* False when it is there already. */
bool inode_set_add(struct inode_set *set, uint64_t dev, uint64_t ino);
void inode_set_release(struct inode_set *set);

struct candidate {
    char *path;         /* owned */
    char *repo;         /* Hugging Face "org/repo", owned; NULL elsewhere */
    char *id;           /* Ollama's name, owned; NULL elsewhere */
    char *mmproj;       /* Ollama's projector blob, owned; NULL elsewhere */
    const char *source; /* static */
};

struct scan {
    struct catalog *c;
    size_t cap_entries, cap_notes;
    struct candidate *candidates;
    size_t n_candidates, cap_candidates;
    struct inode_set dirs, files; /* already walked, already listed */
    size_t entries_left;
    const char *home;
};

/* A new, zeroed note: fill it with err_set. */
struct err *scan_note(struct scan *s);
/* Takes the strings in *c. */
void scan_add(struct scan *s, const struct candidate *c);

/* catalog_walk.c. A missing directory is a note only when wanted is true. dir may also be a file. */
void scan_walk(struct scan *s, const char *dir, const char *source, bool wanted);
/* The sorted names in a directory, without hidden ones; to be freed with scan_names_free. *ret_errno is 0, or
 * why it could not be read. */
char **scan_names(struct scan *s, const char *dir, size_t *ret_n, int *ret_errno);
void scan_names_free(char **names, size_t n);
/* catalog_ollama.c: a folder with "blobs" and "manifests" or "manifests-v2" in it. */
void scan_ollama(struct scan *s, const char *dir);
/* catalog_caches.c: the folders where other programs keep models. */
void scan_usual_caches(struct scan *s);

/* catalog_name.c. The file's name without folder, ".gguf" and part number; borrowed from path. */
struct str name_stem(const char *path);
/* The quantisation in a stem ("UD-Q4_K_XL"); empty if there is none. Borrowed. */
struct str name_quantization(struct str stem);
/* The stem without quantisation and "mmproj", lower case, for comparing a projector with a model; malloc'd.
 */
char *name_base(struct str stem);
bool name_has(struct str name, const char *word); /* ASCII case-insensitive containment */

/* catalog_mmproj.c */
struct projector {
    char *path;          /* owned */
    struct model *model; /* owned reference */
};
void attach_projectors(struct catalog *c, const struct projector *projectors, size_t n);

#endif
