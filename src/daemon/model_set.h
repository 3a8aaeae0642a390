/* The models that may be asked for: what was found on disk, with the configuration's settings. Layer daemon;
 * built once, then immutable. */
#ifndef DAEMON_MODEL_SET_H
#define DAEMON_MODEL_SET_H

#include "daemon/config.h"
#include "daemon/remote.h"
#include "gguf/catalog.h"
#include "pool/pool.h"

struct model_group { /* a name for several models; borrowed from the configuration */
    const char *id;
    const struct config_list *aliases, *members, *fallback;
};

struct model_set {
    struct arena arena;
    const struct config *config;          /* borrowed: outlives the set */
    const struct catalog *catalog;        /* borrowed: outlives the set */
    struct pool_model *models;            /* sorted by id */
    const struct catalog_entry **entries; /* beside models; NULL for one that only the configuration names */
    const struct config_model **settings; /* beside models */
    size_t n;
    const char **preload; /* the highest priority first */
    size_t n_preload;
    struct model_group *groups;
    size_t n_groups;
    bool has_fallbacks; /* some model or group has one that stands in */
    char **warnings;    /* what a person should know: files that cannot be served, settings without a model */
    size_t n_warnings;
};

/* Fails only for lack of memory. */
enum rc model_set_build(const struct config *c, const struct catalog *catalog, struct model_set **ret_set,
                        struct err *err);
void model_set_free(struct model_set *s); /* NULL is fine */

/* The group of this id or alias; NULL if there is none. */
const struct model_group *model_set_group(const struct model_set *s, struct str name);

/* Whether id is that of a file that was found but cannot be served; *err then is RC_NOT_FOUND and says why.
 */
bool model_set_why_not(const struct model_set *s, struct str id, struct err *err);

/* Turns a model's settings into a policy of the planner. */
void model_set_policy(const struct config_model *m, struct plan_policy *ret_policy);
/* Where the model of that id is; SIZE_MAX if there is none. */
size_t model_set_index(const struct model_set *s, struct str id);
/* OpenAI's object of a model. Strings are borrowed from the set. */
yyjson_mut_val *model_set_json(const struct model_set *s, size_t i, yyjson_mut_doc *doc);
/* OpenAI's list of models as JSON text, with those of servers elsewhere (NULL = none); with an id, that one
 * object or false. */
void model_set_list_json(const struct model_set *s, const struct remote_set *remotes, struct buf *out);
bool model_set_one_json(const struct model_set *s, struct str id, struct buf *out);

#endif
