/* The configuration: strict YAML, of which JSON is a subset. Layer daemon; blocking I/O in config_load only;
 * the result is immutable and may be shared by threads. The keys and their meaning: config.def.
 *
 * Precedence: flag > environment > file > default. Every error names file, line and column, and the nearest
 * right name. Anchors, tags, merge keys, duplicate keys, deep nesting and files over 1 MiB are refused. */
#ifndef DAEMON_CONFIG_H
#define DAEMON_CONFIG_H

#include "base/json.h"
#include "base/mem.h"

#include <stdbool.h>
#include <stdint.h>

#define CONFIG_LAYERS_AUTO (-2)
#define CONFIG_LAYERS_ALL  (-1)

enum config_switch { CONFIG_SWITCH_AUTO, CONFIG_SWITCH_OFF, CONFIG_SWITCH_ON };

struct config_list {
    const char *const *items;
    size_t n;
};

struct config_budget {
    const char *device; /* "Host", "CUDA0": as hw spells them */
    uint64_t bytes;
};

struct config_model {            /* effective: what the file leaves out comes from defaults */
    const char *path, *mmproj;   /* "" = none */
    struct config_list adapters; /* FILE or FILE:SCALE */
    const char *draft;           /* "" = none; a path (absolute), or an id */
    uint32_t draft_max;          /* 0 = auto */
    uint32_t draft_min;
    int32_t draft_gpu_layers; /* CONFIG_LAYERS_* or a number */
    const char *draft_device; /* "" = those of the model */
    struct config_list aliases, members, fallback;
    bool preload, pin;
    int32_t priority;
    uint64_t ttl;              /* ms; 0 = never */
    uint64_t timeout;          /* ms; 0 = total_time */
    const char *on_disconnect; /* "cancel", "drain" */
    const char *kv_keep;       /* "auto", "off", "force" */
    const char *strategy;
    uint32_t ctx, ctx_min, parallel; /* 0 = auto */
    uint32_t instances, instances_min;
    const char *kv_type, *kv_type_k, *kv_type_v, *kv_floor; /* "auto" or ggml's word */
    int32_t gpu_layers;                                     /* CONFIG_LAYERS_* or a number */
    const char *device;
    uint32_t max_gpus;
    uint64_t vram_limit; /* UINT64_MAX = auto */
    uint64_t margin;
    bool allow_cpu;
    bool allow_smaller;
    double bpw_floor; /* 0 = none */
    uint32_t batch, ubatch;
    bool embedding;
    struct config_list extra_args;
    const char *runtime;
    uint64_t set; /* bit i: key i of config_model_keys was given for this model */
};

struct config_entry {
    const char *id;
    unsigned line;
    const char *role; /* the first role for which it was made; NULL = it stands under models */
    struct config_model m;
};

/* A name for what a model does. Its settings are joined with those of the model when all is read. */
struct config_role {
    const char *name;
    unsigned line;
    const char *model;     /* id or path, as it was written; with host the name there */
    const char *host;      /* "" = none */
    uint32_t dimensions;   /* 0 = not told */
    struct config_model m; /* of it only what was given here */
    uint64_t set;          /* bit i: key i of config_role_keys was given */
    const char *id;        /* of its model's entry in models */
};

#define CONFIG_MAX_ROLES 16

struct config_remote {                /* a model of an upstream; see upstreams.def */
    const char *name;                 /* here */
    const char *remote;               /* there; "" = the same */
    double price_input, price_output; /* of a million tokens; the upstream's where it has none of its own */
    uint64_t set;                     /* bit i: key i of config_remote_keys was given */
};
struct config_remotes {
    struct config_remote *items;
    size_t n;
};

struct config_upstream { /* see upstreams.def */
    const char *name;
    unsigned line;
    const char *role; /* the role whose host it is; NULL = it stands under upstreams */
    const char *url, *dialect, *key_env, *key_file, *ca_file; /* "" = none */
    struct config_remotes models;
    uint64_t timeout;                      /* ms; 0 = none of its own */
    uint32_t max_concurrency;              /* 0 = no bound */
    double spend_per_day, spend_per_month; /* 0 = no limit */
    double price_input, price_output;      /* of a million tokens */
    uint64_t set;                          /* bit i: key i of config_upstream_keys was given */
};

struct config {
    struct arena arena;
    const char *file; /* "" = none */
    struct config_list listen, control_listen;
    bool insecure;
    const char *socket, *state_dir;
    enum config_switch detach;
    struct config_list models_dirs;
    bool usual_caches;
    const char *log_level;
    const char *api_keys_file, *keys_file, *tls_cert, *tls_key; /* "" = none */
    struct config_list api_keys;
    const char *cors_origin; /* "none", or "loopback", "*" and origins, separated by commas */
    struct config_list allowed_hosts;
    const char *half_close;
    bool collect_plain;
    const char *llama_server;
    struct config_list dialects; /* names of src/dialect's; empty = the runtime's own */
    struct config_list rpc;      /* HOST:PORT */
    uint64_t reserve_host;       /* UINT64_MAX = auto */
    bool memory_yield;
    uint64_t yield_after; /* ms */
    double pressure_some, pressure_full;
    int32_t oom_score;
    struct config_budget *budgets;
    size_t n_budgets;
    uint64_t max_body, body_budget;
    uint64_t header_timeout, idle_timeout, connect_timeout, load_timeout, drain_timeout,
        stop_timeout;                           /* ms */
    uint64_t write_timeout, patience;           /* ms */
    uint64_t min_residence;                     /* ms; UINT64_MAX = auto */
    uint32_t loads_at_once;                     /* 0 = auto */
    uint64_t first_byte, event_gap, total_time; /* ms; 0 = none */
    uint32_t max_connections;
    const char *kv_dir;    /* "" = the usual one */
    uint64_t kv_quota;     /* UINT64_MAX = auto */
    uint64_t kv_save_time; /* ms */
    uint32_t kv_min_tokens;
    uint32_t embed_batch;
    uint64_t embed_join; /* ms */
    uint32_t max_waiting, slot_surplus, max_overtaken;
    uint64_t starvation;                   /* ms; 0 = no such bound */
    uint64_t queue_wait;                   /* ms; 0 = unlimited */
    uint64_t sample_interval;              /* ms */
    uint64_t history_max_age, capture_age; /* ms */
    uint32_t history_max_requests;
    double admit_util, admit_fill, warn_fill, critical_fill;    /* percent */
    uint32_t warn_temperature, critical_temperature, heat_back; /* °C */
    bool heat_react, power_allow;
    struct config_list power_limit_w; /* DEVICE=WATTS */
    uint64_t heat_dwell;              /* ms */
    uint32_t retry_max;
    uint64_t retry_base, retry_longest; /* ms */
    bool fallback_when_full;
    struct config_upstream *upstreams; /* in the order of the file */
    size_t n_upstreams;
    const char *default_model; /* "" = none */
    struct config_model plain; /* what holds where neither the file nor the environment says anything */
    struct config_model defaults;
    struct config_entry *models; /* in the order of the file; behind them those made for roles */
    size_t n_models;
    const struct config_entry *written; /* the same without what the roles brought */
    size_t n_written;
    const char *roles_preset;
    struct config_role *roles; /* in the order of the file */
    size_t n_roles;
    char **notes; /* keys accepted without effect, and the like; in the arena */
    size_t n_notes;
    uint8_t *origin; /* enum config_origin by key; see config_priv.h */
};

struct config_flag { /* a flag of the command line: config.def's path and a text */
    const char *path, *value;
};

/* Errors beyond the first, for a check: what can be told of the rest of a file that has one. */
#define CONFIG_MAX_ERRORS 32
struct config_errors {
    struct err list[CONFIG_MAX_ERRORS];
    size_t n;
};

struct config_request {
    const char
        *file;    /* NULL: $ARRIERO_CONFIG, else config.yaml in the configuration directory if there is one */
    bool no_file; /* defaults, environment and flags only */
    const struct config_flag *flags; /* of list keys, one for each item */
    size_t n_flags;
    struct config_errors *errors; /* NULL: the first one is enough; else all that were found, that one too */
    const char *(*getenv)(void *arg, const char *name); /* NULL = getenv(3) */
    void *arg;
};

/* Errors: RC_IO, RC_LIMIT (file too large), RC_INVALID with "file:line:column: …". */
enum rc config_load(const struct config_request *req, struct config **ret_config, struct err *err);
/* The same for a text in memory: name stands for the file in messages. No environment, no flags. */
enum rc config_parse(struct str text, const char *name, struct config **ret_config, struct err *err);
void config_free(struct config *c); /* NULL is fine */

/* Is it a path of a model's file, not an id? */
bool config_is_model_path(struct str text);
/* An item of power_limit_w. RC_INVALID. */
enum rc config_power(const char *item, struct str *ret_device, unsigned *ret_watts, struct err *err);
/* Whether it is UPSTREAM/MODEL, a model that one of the upstreams lists, or a role that such a one plays. */
bool config_is_upstream_model(const struct config *c, struct str id);
/* Settings of a model: its own entry's, or the defaults. Borrowed from c. */
const struct config_model *config_model_for(const struct config *c, struct str id);
/* Over the settings of a model that its instances are started with (all that are not LIVE in config.def), the
 * same in every run. What is as in c->plain takes no part: a key that a newer version brings changes nothing.
 */
uint64_t config_model_hash(const struct config *c, const struct config_model *m);
/* How many numbers the embeddings of a model must have, by its roles; 0 = not told. */
uint32_t config_dimensions(const struct config *c, struct str id);
/* The role of that name; NULL if there is none. */
const struct config_role *config_role(const struct config *c, struct str name);
/* Fills what was not set in m (see `set`) from base. Texts stay borrowed from where they were. */
void config_model_inherit(struct config_model *m, const struct config_model *base);
/* Paths of the keys that differ and that a reload does not apply, into out; how many. Static strings. */
size_t config_restart_keys(const struct config *a, const struct config *b, const char **out, size_t max);

/* The effective configuration. Secrets are left out. with_origin adds "origins": {key:
 * default|file|environment|flag}. */
yyjson_mut_val *config_json(const struct config *c, yyjson_mut_doc *doc, bool with_origin);
/* As YAML that config_parse reads back to the same settings. */
enum rc config_yaml(const struct config *c, struct buf *out, struct err *err);
/* JSON Schema (2020-12) of a configuration file. */
yyjson_mut_val *config_schema(yyjson_mut_doc *doc);
enum config_reference { CONFIG_REFERENCE_TEXT, CONFIG_REFERENCE_MAN, CONFIG_REFERENCE_MARKDOWN };
/* Every key with type, default and meaning: plain text, a manual page, or Markdown. */
void config_reference(enum config_reference form, struct buf *out);

#endif
