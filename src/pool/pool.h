/* The pool: instances of models, their states, admission and eviction. Layer pool; loop thread only.
 *
 * states: planned → starting → ready → draining → stopped; failed (with cause and back-off). Every transition
 * is an event with its reasons, handed to hooks. One load serves all that wait for it; a busy or loading
 * instance is never a victim. */
#ifndef POOL_POOL_H
#define POOL_POOL_H

#include "gguf/catalog.h"
#include "hw/hw.h"
#include "launch/launch.h"
#include "plan/learn.h"
#include "pool/heat.h"
#include "pool/line.h"
#include "pool/yield.h"
#include "runtime/runtime.h"

#include <uv.h>

#define POOL_ID_MAX 96

enum pool_state {
    POOL_PLANNED,
    POOL_STARTING,
    POOL_READY,
    POOL_DRAINING,
    POOL_STOPPED,
    POOL_FAILED,
    POOL_STATES
};
const char *pool_state_word(enum pool_state s);

/* Files that run beside a model, and how; strings are borrowed. */
struct pool_files {
    const char *mmproj; /* NULL = none */
    const char *adapters[PLAN_MAX_ADAPTERS];
    float adapter_scale[PLAN_MAX_ADAPTERS];
    uint32_t n_adapters;
    const char *draft;                  /* NULL = none */
    uint32_t draft_tokens, draft_least; /* 0 = the runtime's default */
    int32_t draft_gpu_layers;
    const char *draft_device; /* NULL = those of the model */
};

/* Whether its conversations are kept in files when an instance ends. */
enum pool_kv {
    POOL_KV_AUTO, /* where that helps */
    POOL_KV_OFF,
    POOL_KV_FORCE /* even where it is not known to help */
};

/* One model that may be asked for. Owned by the caller of pool_set_models until replaced; strings copied. */
struct pool_model {
    const char *id; /* canonical */
    const char *const *aliases;
    size_t n_aliases;
    const char *path;
    struct pool_files files;
    const char *const *smaller; /* files of the same model in smaller quantisations, largest first, for when
                                 * nothing else is left; at most PLAN_MAX_ALTERNATIVES; not in the hash */
    size_t n_smaller;
    struct plan_policy policy;
    const char *runtime_binary; /* NULL = the pool's */
    const char *const *extra_args;
    size_t n_extra_args;
    int priority;
    bool pin; /* never a victim */
    bool embedding;
    enum pool_kv kv_keep;
    uint64_t ttl_ms;                       /* idle unload; 0 = never */
    uint32_t instances_min, instances_max; /* of it at a time; 0 = 1. More than the first run where there is
                                            * room and as many requests wait as run */
    uint64_t settings_hash; /* over what instances are started with: only a change of it ends them; all else
                             * is taken over as it is */
};

struct pool_decision { /* handed to hooks; valid during the call */
    int64_t wall_ms;
    const char *kind;             /* "load", "ready", "evict", "unload", "fail", "ladder", "refuse",
                                   * "crash", "wait" (for memory that others hold), "breaker" (it answers
                                   * with errors only), "reset" (a failure is forgotten), "kv_saved", "kv_restored"
                                   * (a conversation), "kv_failed", "kv_off" (it does not help), "adopt"
                                   * (taken over from an earlier daemon), "detach" (left to the next one), "attach"
                                   * (it cannot be), "heat" and "cool" (a step
                                   * down for a device that is too hot, and back),
                                   * "shrink" and "grow" (loaded again in less memory, or in more), "pressure"
                                   * (of no model: the host's memory is pressed) */
    const char *model, *instance; /* either may be "" */
    const struct plan_reason *reasons;
    size_t n_reasons;
    const struct plan *plan; /* NULL if none */
    double seconds;          /* load time for "ready", else 0 */
    const char *other;       /* the model that it was for: of "evict"; NULL else */
};

struct pool_transition { /* a change of an instance's state; handed to hooks, valid during the call */
    int64_t wall_ms;
    const char *instance, *model;
    enum pool_state from, to; /* from: POOL_STATES = it is new */
    struct plan_reason why;
    pid_t pid; /* 0 = none */
    uint16_t port;
};

struct pool_hooks {
    void *arg;
    void (*decision)(void *arg, const struct pool_decision *d);
    void (*transition)(void *arg, const struct pool_transition *t); /* may be NULL */
    /* Latest inventory: a snapshot that stays valid until the next call. Never NULL. */
    const struct hw_inventory *(*inventory)(void *arg);
    /* Puts what was learned into a machine that `m` is to be planned for. May be NULL. */
    void (*teach)(void *arg, const struct model *m, const char *runtime, bool flash_attn,
                  struct plan_machine *machine);
    /* Something that a load or a request of the model taught. May be NULL. */
    void (*lesson)(void *arg, const char *model, const struct learn_sample *s);
    /* Asks for a fresh sample soon (after a stop, before an admission); may be NULL. */
    void (*want_sample)(void *arg);
    /* Each line that an instance's server writes; may be NULL. */
    void (*line)(void *arg, const char *model, const char *instance, struct str line);
    /* Why a name that no model has cannot be served, where the caller knows more: true with *err as
     * RC_NOT_FOUND. May be NULL. */
    bool (*why_not)(void *arg, struct str name, struct err *err);
};

struct pool_options {
    uv_loop_t *loop;
    struct pool_hooks hooks;
    const char *runtime_binary;  /* llama-server's path, or NULL: looked for at the first load */
    const char *log_dir;         /* where instances' logs go; NULL = none */
    const char *roster_dir;      /* where instances are written down, which then outlive the pool; NULL = none
                                  * does. It needs log_dir */
    uint64_t host_reserve_bytes; /* RAM kept free; UINT64_MAX = the default of DESIGN (8 GB, scaled down) */
    struct {
        char device[24];
        uint64_t bytes;
    } budgets[PLAN_MAX_DEVICES + 1]; /* caps on our own use: "Host", "CUDA0" */
    size_t n_budgets;
    uint64_t load_timeout_ms;  /* no progress for so long: failed; default 300 s */
    uint64_t drain_timeout_ms; /* default 30 s */
    uint64_t stop_timeout_ms;  /* SIGTERM to SIGKILL; default 10 s */
    uint32_t max_waiting;      /* waiting requests per model; default 512 */
    uint32_t surplus;          /* requests that an instance is sent beyond its slots; default 0 */
    uint32_t max_overtaken;    /* bounds of starvation, see line.h; default 64 grants … */
    uint64_t starvation_ms;    /* … or 30 s; 0 = no such bound */
    uint32_t queue_wait_ms;    /* default 0 = unlimited while the load goes on */
    uint64_t
        patience_ms; /* a waiting load that only busy instances keep out gets its turn after so long: they
                      * take no new requests, finish theirs and make room; default 15 s; 0 = never */
    uint64_t min_residence_ms; /* an instance keeps its place so long from when it is ready, see residence.c;
                                * default UINT64_MAX: as long as it took to load, at least 10 s */
    uint32_t loads_at_once;    /* default 0 = as many as the disk serves at half their speed alone */
    const char *kv_dir;        /* where conversations are kept; NULL = nowhere; only pool_new looks at it */
    uint64_t kv_quota;         /* bytes; UINT64_MAX = what suits the disk */
    uint64_t kv_save_ms;    /* an instance that ends may take so long for it; default 2 s; 0 = none is kept */
    uint32_t kv_min_tokens; /* shorter ones are not kept; default 256 */
    bool yields;            /* memory that others take is yielded to them; default true */
    uint64_t yield_after_ms; /* a shortage that is not deep may last so long before; default 2 s */
    int oom_score_adj;       /* of instances: the kernel takes them before the daemon; default 500 */
    uint64_t heat_dwell_ms;  /* between two steps for a device that is too hot; default 10 s */
};
void pool_options_default(struct pool_options *o);

struct pool;
enum rc pool_new(const struct pool_options *opt, struct pool **ret_pool, struct err *err);
/* Replaces the set of models. Instances of models that vanished or changed drain; others are untouched. */
void pool_set_models(struct pool *p, const struct pool_model *models, size_t n);
/* Replaces limits and budgets of a running pool (loop, hooks ignored). */
void pool_set_options(struct pool *p, const struct pool_options *opt);

/* Call it when the hook `inventory` has something newer: loads that wait for memory look again, and memory
 * that others took is yielded. */
void pool_inventory_changed(struct pool *p);
/* How hard the kernel says that the host's memory is pressed; YIELD_CALM where it tells nothing. */
void pool_pressure(struct pool *p, enum yield_level level);
/* How hot the devices are; with each reading, for steps follow each other in time. See heat.h. */
void pool_heat(struct pool *p, const struct pool_device_heat *list, size_t n);
unsigned pool_heat_step(const struct pool *p, const char *device); /* 0 = none, to HEAT_STEPS */

/* Takes over what an earlier pool left running, as far as it is well and its model has the same settings;
 * what cannot be is stopped, and a decision tells why. Behind the first pool_set_models; takes roster. */
struct roster;
void pool_adopt(struct pool *p, struct roster *roster);

/* ---- leases: what the proxy asks through its abstract route ---- */
struct pool_lease {
    char instance[POOL_ID_MAX];
    char model[POOL_ID_MAX * 2]; /* canonical id, also what the upstream calls itself */
    char host[46];
    uint16_t port;
    uint32_t position,
        expected_ms;           /* in line, when it came, and how long it was to wait; 0 = served at once */
    uint64_t serial, since_ms; /* internal; serial 0 = given back */
    bool light;                /* internal */
    uint64_t talk, kv_file;    /* internal; 0 = none */
    uint32_t kv_tokens;        /* internal: that were read back for it */
    /* Set before it is given back: what the runtime told of the request; 0 = nothing, or none. */
    uint32_t prompt_tokens, answer_tokens, cached_tokens;
    const char *wake_member, *wake_event,
        *collect_members; /* of the runtime, see runtime.h; static or NULL */
    unsigned speaks;      /* of the runtime */
};
struct pool_wait; /* a waiting acquire */
enum pool_answer { POOL_GRANTED, POOL_WAITING, POOL_REFUSED };
/* result: RC_OK with a lease, or an error. Called on the loop thread, never inside pool_acquire. */
typedef void (*pool_acquire_cb)(void *arg, enum rc rc, const struct pool_lease *lease, const struct err *err,
                                uint32_t retry_after_s);
struct pool_request {
    struct str model;
    uint64_t key;          /* who asks: the same number for the same key; see line.h */
    enum line_band band;   /* LINE_HIGH is first */
    uint64_t prompt_bytes; /* what it costs its key in line */
    struct str
        prompt; /* how it begins, for its instance to be found; may be empty; borrowed during the call */
    uint32_t waited_ms; /* in earlier attempts: the bound on waiting holds for all of them */
    bool light;         /* takes no slot: it counts tokens, fills a template */
};
/* GRANTED fills *ret_lease; WAITING sets *ret_wait (cancel with pool_cancel, until the callback); REFUSED
 * fills *err: RC_NOT_FOUND (hint: nearest names), RC_NO_FIT, RC_TOO_MANY, RC_BUSY and RC_BACKEND (with
 * *ret_retry_after_s set). */
enum pool_answer pool_acquire(struct pool *p, const struct pool_request *r, pool_acquire_cb cb, void *arg,
                              struct pool_lease *ret_lease, struct pool_wait **ret_wait,
                              uint32_t *ret_retry_after_s, struct err *err);
void pool_cancel(struct pool *p, struct pool_wait *w);
enum pool_end {
    POOL_END_FINE,
    POOL_END_LEFT,   /* the client went away */
    POOL_END_FAILED, /* it answered with a server's error */
    POOL_END_BROKEN  /* the connection failed or died: the pool checks the instance's health itself */
};
void pool_release(struct pool *p, struct pool_lease *lease, enum pool_end end);
/* A waiting request: what it waits for, its place in line, and how long it may take until it is served. */
enum pool_stage {
    POOL_QUEUED,      /* an instance is ready: for a slot */
    POOL_PLANNING,    /* also: a load that failed is tried again after a pause */
    POOL_BLOCKED,     /* others hold the memory */
    POOL_MAKING_ROOM, /* others leave */
    POOL_LOADING
};
struct pool_look {
    enum pool_stage stage;
    uint32_t position; /* 1 is next; 0 = it stands in no line */
    uint32_t expected_ms;
    double progress; /* of POOL_LOADING, 0…1 */
};
void pool_look(const struct pool_wait *w, struct pool_look *ret);

/* What a client wishes of the instance that its lease is of, in place of the model's ttl: to stay so long
 * without use, 0 = until it is idle, UINT64_MAX = for ever. One that is pinned does not leave sooner for it.
 */
void pool_keep(struct pool *p, const struct pool_lease *lease, uint64_t ms);
/* A client needs so many tokens of context. If the model's settings leave that to the planner, nobody uses or
 * waits for the model, and a load with that context fits without evicting others, then an instance with less
 * leaves, and loads keep that context as their floor. Else nothing changes: it never fails. */
void pool_widen(struct pool *p, struct str model, uint64_t tokens);
/* A lease on a model that is ready, without waiting; it need not be given back, and the instance may end any
 * time: for looks that must not count as use. RC_NOT_FOUND, RC_INVALID. */
bool pool_observe(struct pool *p, struct str model, struct pool_lease *ret_lease, struct err *err);

/* What the runtime told of a request that an instance has answered: a lesson, if it ran alone. */
void pool_timing(struct pool *p, const char *instance, const struct plan_timing *t, uint64_t total_ms);

/* ---- operator's commands; callbacks once, on the loop thread, possibly inside the call ---- */
typedef void (*pool_done_cb)(void *arg, enum rc rc, const struct err *err);
void pool_load(struct pool *p, struct str model, pool_done_cb cb, void *arg);
/* Drains and stops; force stops at once even if busy. "" = all. */
void pool_unload(struct pool *p, struct str model, bool force, pool_done_cb cb, void *arg);
enum rc pool_pin(struct pool *p, struct str model, bool on, struct err *err);
/* Forgets the failures of a model that is held back, so that the next request tries it at once; nothing is
 * loaded. "" = of all; *ret_n: how many had any. RC_NOT_FOUND. */
enum rc pool_forgive(struct pool *p, struct str model, uint32_t *ret_n, struct err *err);
/* Dry run on live occupancy; the plan and victims' ids as JSON. */
enum rc pool_plan(struct pool *p, struct str model, const struct plan_policy *policy_or_null,
                  yyjson_mut_doc *doc, yyjson_mut_val **ret_json, struct err *err);

/* Which loaded models would run faster elsewhere, with cost and gain; nothing is moved: {loaded, moves
 * [{model, instance, from, to, bytes, reload_seconds}], cost {bytes, seconds}, gain {decode_tps,
 * freed_bytes}, fixed
 * [{model, instance, why}]}. Gains are weighed by each instance's share of the requests. */
yyjson_mut_val *pool_rebalance(struct pool *p, yyjson_mut_doc *doc);

/* ---- views ---- */
/* Array of instances: id, model, state, pid, port, busy, waiting, since_ms, idle_ms, pinned, devices
 * (predicted and measured bytes), expires_ms (until it leaves unused; null = never), params, argv, speed,
 * last_error {message, hint, code}, failures (in a row), retry_in_ms (null: it may be tried), failure
 * (how its process ended by itself: runtime_failure_word; null: it did not), loads, log_path. */
yyjson_mut_val *pool_json(struct pool *p, yyjson_mut_doc *doc);
/* Array of models: id, aliases, path, state (of its instance or "unloaded"). */
yyjson_mut_val *pool_models_json(struct pool *p, yyjson_mut_doc *doc);
/* How full the devices are: {pressure, devices [{name, total_bytes, free_bytes, kept_free_bytes, own_bytes,
 * foreign_bytes, short_bytes, others [{pid, name, bytes}]}]}. The host's others are those of the latest
 * shortage. */
yyjson_mut_val *pool_memory_json(struct pool *p, yyjson_mut_doc *doc);
struct pool_gauge {
    const char *device;
    uint64_t foreign_bytes, short_bytes;
};
/* Calls fn for each device, the host last; returns how hard the host's memory is pressed. For metrics. */
enum yield_level pool_memory(struct pool *p, void (*fn)(void *arg, const struct pool_gauge *g), void *arg);
struct pool_counters {
    uint64_t loads, load_failures, evictions, crashes, refused, ladder_steps;
    uint64_t waits; /* acquires that were not granted at once but could wait for a load or a slot */
    uint64_t line_grants[LINE_BANDS];
    uint64_t trips;       /* breakers that opened */
    uint64_t heat_steps;  /* down */
    uint64_t adoptions;   /* instances of an earlier pool that were taken over */
    uint64_t prefix_hits; /* requests sent where the beginning of their prompt was sent before */
    uint64_t kv_saved, kv_restored, kv_failures,
        kv_hit_tokens;            /* conversations; tokens that were not read anew */
    uint64_t kv_files, kv_bytes;  /* now */
    uint64_t yields[YIELD_KINDS]; /* steps that gave memory to others */
    uint32_t instances[POOL_STATES];
    uint32_t waiting, leases;
    uint32_t waiting_in[LINE_BANDS];
};
void pool_counters(const struct pool *p, struct pool_counters *ret);
/* Why conversations are not kept although they should be; NULL = they are. Borrowed until the next turn. */
const char *pool_kv_problem(const struct pool *p);
/* Calls fn for each instance in the order of the ids; borrowed strings. For metrics. */
struct pool_view {
    const char *instance, *model;
    enum pool_state state;
    uint32_t busy, slots; /* slots 0 = not known */
    uint32_t at_once;     /* of them, what it is sent at a time: fewer where a device is too hot */
    const char *breaker;  /* "closed", "open", "half_open" */
    const struct plan *plan;
};
void pool_each(const struct pool *p, void (*fn)(void *arg, const struct pool_view *v), void *arg);
/* Tail of an instance's (or its model's newest instance's) log; RC_NOT_FOUND. Borrowed until the next turn.
 */
enum rc pool_log(struct pool *p, struct str model_or_instance, struct str *ret_tail, struct err *err);
/* How long a request for it would take to be served, in ms; more for what is not loaded, UINT64_MAX for what
 * cannot be served now. To choose between models. */
uint64_t pool_expected_ms(const struct pool *p, struct str model);
/* Resolves id or alias to the canonical id; NULL if unknown. Borrowed. */
const char *pool_resolve(const struct pool *p, struct str model);
/* Whether this is a model's id or alias, letter by letter, or that with Ollama's tag or without it. */
bool pool_is_name(const struct pool *p, struct str text);

/* Refuses new work, drains, stops every instance (or leaves it running, where it may outlive the pool), then
 * calls stopped(arg). A second call with hurry = true kills, or leaves, at once. */
void pool_stop(struct pool *p, bool hurry, void (*stopped)(void *arg), void *arg);
/* Before that: nothing is left running. */
void pool_keep_none(struct pool *p);
void pool_free(struct pool *p); /* after stopped; NULL is fine */

#endif
