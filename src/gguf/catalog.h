/* The models on disk: a scan of directories and of the usual caches. Layer gguf; blocking I/O, any thread;
 * the result is owned by the caller and immutable. */
#ifndef GGUF_CATALOG_H
#define GGUF_CATALOG_H

#include "gguf/model.h"

struct catalog_entry {
    char *id;     /* what clients ask for; unique in the catalog. A plain file: its stem ("Qwen3-8B-Q4_K_M");
                   * Hugging Face hub: "org/repo:QUANT"; Ollama: "name:tag". Clashes get the parent folder. */
    char *path;   /* absolute path of the file, or of part 1 */
    char *mmproj; /* projector found beside it, or NULL */
    const char *source;  /* "directory", "llama.cpp", "huggingface", "lmstudio", "ollama" (static) */
    uint64_t file_bytes; /* over all parts */
    int64_t mtime_ns;
    /* facts; model is NULL when the file could not be read, and problem says why */
    struct model *model; /* owned reference */
    struct err problem;
};

struct catalog {
    struct catalog_entry *entries; /* sorted by id */
    size_t n;
    struct err *notes; /* unreadable directories and the like: reported, never fatal */
    size_t n_notes;
};

struct catalog_options {
    const char *const *dirs; /* scanned recursively (depth 6, symlink loops cut); a single file is
                              * fine; a hub's cache or an Ollama store in it is recognised */
    size_t n_dirs;
    bool usual_caches; /* also arriero's own folder ($XDG_DATA_HOME/arriero/models, source "directory"),
                        * llama.cpp's cache, the Hugging Face hub, LM Studio, Ollama */
    const char *home;  /* NULL = $HOME; caches are found from it and from their environment variables */
};

/* Never fails for a bad file or directory (see problem and notes); fails only for lack of memory. mmproj,
 * adapter and vocab-only files are left out of the entries. */
enum rc catalog_scan(const struct catalog_options *opt, struct catalog **ret_catalog, struct err *err);
void catalog_free(struct catalog *c);
const struct catalog_entry *catalog_find(const struct catalog *c, struct str id);
/* Ids nearest to a wrong one (edit distance and containment), best first; returns how many. Borrowed. */
size_t catalog_nearest(const struct catalog *c, struct str id, const char **out, size_t max);
/* Whether a name as people type it may mean the id. The same: letters and digits agree, whatever their case
 * and what stands between them, without a "-GGUF" at the end of a repository's name; where both name an owner
 * or a quantisation, these agree too. CATALOG_MEANS_QUANT: the name tells the quantisation as well. */
enum catalog_meaning { CATALOG_MEANS_NOT, CATALOG_MEANS_MODEL, CATALOG_MEANS_QUANT };
enum catalog_meaning catalog_means(struct str typed, struct str id);
/* Files of the same model with fewer bytes, largest first, at most max; returns how many. Borrowed. The same:
 * architecture, layers, parameters and the file's name but for the quantisation agree. */
size_t catalog_smaller(const struct catalog *c, const struct model *m, const struct model **out, size_t max);

#endif
