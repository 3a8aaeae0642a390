/* Shared by the files of the configuration. A key is a row of config.def; a target is a key together with the
 * struct that its value goes to. */
#ifndef DAEMON_CONFIG_PRIV_H
#define DAEMON_CONFIG_PRIV_H

#include "daemon/config.h"

enum config_type {
    CONFIG_STRING,
    CONFIG_PATH,
    CONFIG_BOOL,
    CONFIG_SWITCH,
    CONFIG_U32,
    CONFIG_I32,
    CONFIG_TOKENS,
    CONFIG_NUMBER,
    CONFIG_LAYERS,
    CONFIG_KVTYPE,
    CONFIG_STRATEGY,
    CONFIG_BYTES,
    CONFIG_DURATION,
    CONFIG_PERCENT,
    CONFIG_ENUM,
    CONFIG_PROGRAM,
    CONFIG_MODEL,
    CONFIG_DEVICE,
    CONFIG_LIST,
    CONFIG_PATHS,
    CONFIG_REMOTES,
    CONFIG_BUDGETS,
    CONFIG_DEFAULTS,
    CONFIG_MODELS,
    CONFIG_ROLES,
    CONFIG_UPSTREAMS,
    CONFIG_TYPES
};

enum {
    CONFIG_AUTO = 1,
    CONFIG_RESTART = 2,
    CONFIG_ENV_ONLY = 4,
    CONFIG_ONLY_MODEL = 8,
    CONFIG_NAMED = 16,
    CONFIG_LIVE = 32
};

enum config_origin { CONFIG_FROM_DEFAULT, CONFIG_FROM_FILE, CONFIG_FROM_ENV, CONFIG_FROM_FLAG };

struct config_key {
    const char *path;
    enum config_type type;
    size_t offset; /* in struct config, or in struct config_model */
    const char *def;
    int64_t lo;
    uint64_t hi;
    const char *choices; /* "a|b|c" or NULL */
    unsigned flags;
    const char *help;
};

/* A key that collects items, of which a file may also write one alone. */
static inline bool config_key_is_list(const struct config_key *key)
{
    return key->type == CONFIG_LIST || key->type == CONFIG_PATHS || key->type == CONFIG_REMOTES;
}

struct config_alias {
    const char *name, *target; /* IGNORED: target is the reason */
};

extern const struct config_key config_keys[];
extern const size_t config_n_keys;
extern const struct config_key config_model_keys[];
extern const size_t config_n_model_keys;
extern const struct config_key config_role_keys[];
extern const size_t config_n_role_keys;
extern const struct config_alias config_aliases[], config_model_aliases[], config_ignored[];
extern const size_t config_n_aliases, config_n_model_aliases, config_n_ignored;

struct config_target {
    const struct config_key *key;
    void *base;    /* struct config * or struct config_model * */
    uint64_t *set; /* bitmap and bit for a model's key, else NULL */
    uint64_t bit;
    size_t origin; /* index into config.origin; SIZE_MAX for keys of an entry of models */
};

/* config_keys.c */
/* Finds a dotted path (aliases included) of the top level or below defaults. */
bool config_resolve(struct config *c, struct str path, struct config_target *ret_target);
/* A key inside a model's section (aliases included). */
bool config_resolve_model(struct config_model *m, struct str name, struct config_target *ret_target);
/* A key inside a role's section: its own, or one of a model's that a role may have. */
bool config_resolve_role(struct config_role *r, struct str name, struct config_target *ret_target);
/* Whether a role may have this key of a model's: it has a model, and is none. */
bool config_key_is_of_roles(const struct config_key *key);
/* True if keys lie below path ("limits"). */
bool config_is_section(struct str path);
const char *config_ignored_why(struct str path); /* NULL if it is not such a key */
enum config_names { CONFIG_NAMES_TOP, CONFIG_NAMES_MODEL, CONFIG_NAMES_ROLE };
/* The nearest right name for a wrong one: of the top level, there inside a section ("" = none), of a model's
 * or of a role's keys. NULL if none is near. */
const char *config_nearest(struct str section, struct str name, enum config_names names);
/* "ARRIERO_LIMITS_MAX_BODY" */
void config_env_name(const char *prefix, const char *path, char *out, size_t cap);
size_t config_n_origins(void);

/* config_upstream.c */
/* A new entry with the defaults of its keys. RC_INVALID: the name; RC_LIMIT. */
enum rc config_upstream_add(struct config *c, struct str name, unsigned line,
                            struct config_upstream **ret_upstream, struct err *err);
bool config_resolve_upstream(struct config_upstream *u, struct str name, struct config_target *ret_target);
const char *config_upstream_nearest(struct str name); /* NULL if none is near */
/* A model behind the others, with the defaults of its keys; valid until the next one. NULL: there is no room.
 */
struct config_remote *config_remote_add(struct config *c, struct config_remotes *list, struct str name);
bool config_resolve_remote(struct config_remote *m, struct str name, struct config_target *ret_target);
const char *config_remote_nearest(struct str name); /* NULL if none is near */
/* When all of it is read: its models get what they have not of their own. What must hold between its keys,
 * without file and line. */
enum rc config_upstream_end(struct config_upstream *u, struct err *err);
yyjson_mut_val *config_upstreams_json(const struct config *c, yyjson_mut_doc *doc);
extern const struct config_key config_upstream_keys[];
extern const size_t config_n_upstream_keys;
extern const struct config_key config_remote_keys[];
extern const size_t config_n_remote_keys;

/* config_value.c */
/* Sets a scalar key, or appends to a list key, from text. Errors say what is expected, without file and line.
 * base_dir: relative paths are taken from it; NULL = the current directory. */
enum rc config_set_text(struct config *c, const struct config_target *t, struct str text,
                        const char *base_dir, struct err *err);
void config_list_clear(const struct config_target *t);
/* Adds the value of a key as JSON. */
yyjson_mut_val *config_value_json(const struct config_key *key, const void *base, yyjson_mut_doc *doc);
bool config_value_equal(const struct config_key *key, const void *a, const void *b);
/* The same for equal values, in every run of the program; a text that is not set is the empty one. */
uint64_t config_value_hash(const struct config_key *key, const void *base);
void config_value_copy(const struct config_key *key, void *to, const void *from);
/* "a size such as 600MiB" */
const char *config_type_words(enum config_type type);
/* RC_INVALID: not a size; RC_NOT_FOUND, RC_EXISTS: the device. */
enum rc config_add_budget(struct config *c, struct str device, struct str text, struct err *err);

/* config_yaml.c */
/* all: NULL, or where errors go while reading goes on; the first is then returned at the end. */
enum rc config_read_yaml(struct config *c, struct str text, const char *name, const char *base_dir,
                         struct config_errors *all, struct err *err);
/* Keeps an error; false when there is no list, or it is full. */
bool config_keep_error(struct config_errors *all, const struct err *err);

/* config_roles.c */
/* The role of that name, made if there is none. RC_INVALID: no usable name; RC_LIMIT. */
enum rc config_role_add(struct config *c, struct str name, unsigned line, struct config_role **ret_role,
                        struct err *err);
/* What the environment says of roles. */
enum rc config_roles_environment(struct config *c, const char *(*get)(void *arg, const char *name), void *arg,
                                 struct err *err);
/* Joins the roles with the models; file is for messages. */
enum rc config_roles_join(struct config *c, const char *file, struct err *err);

/* config.c */
void config_note(struct config *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
