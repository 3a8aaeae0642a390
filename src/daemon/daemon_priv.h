/* Shared by the files of the daemon. Everything here belongs to the loop thread.
 *
 *   daemon.c    start, signals, stop
 *   reload.c    configuration and catalog: read on the work pool, applied on the loop
 *   preload.c   models that are loaded at the start
 *   roles.c     whether those who play the roles can be asked
 *   route.c     the proxy's abstract route over the pool
 *   routes.c    the table of paths; data.c answers those of the data plane, api.c those of the control API
 *   api_keys.c  the control API's part for keys, api_requests.c that for the request log, api_why.c the
 * reasons in sentences that why.c makes events.c    decisions: to the log, the store, metrics and the
 * listeners of /events router.c    llama.cpp's router: models with their states, load, unload, looks at an
 * instance swap.c      llama-swap's endpoints: what runs, unloading, an instance under /upstream, logs
 *   ollama.c    Ollama's endpoints that are answered here, ollama_show.c the long one of them
 *   listeners.c clients that listen to decisions, to models' states or to logs
 *   background.c answers that the work pool makes
 *   telemetry.c metrics and the joined status
 *   power.c     limits on the power of GPUs, and the way back to the old ones
 *   levels.c    how hot and how full the devices are: events, and what the pool is told
 *   remote.c    servers elsewhere: leases on them; remote_set.c which there are, remote_health.c how they
 *               are, remote_views.c shows them
 *   watchdog.c  turns of the loop that take too long; the service manager's watchdog */
#ifndef DAEMON_DAEMON_PRIV_H
#define DAEMON_DAEMON_PRIV_H

#include "daemon/daemon.h"
#include "daemon/keys.h"
#include "daemon/knowledge.h"
#include "daemon/model_set.h"
#include "daemon/remote.h"
#include "daemon/sampler.h"
#include "pool/pool.h"
#include "pool/roster.h"
#include "proxy/http.h"
#include "store/store.h"
#include "watch/metrics.h"

#define DAEMON_API           "/api/arriero/v1"
#define DAEMON_LISTENERS_MAX 64 /* of events and logs at a time */
#define DAEMON_SLOW_TURN_US  20000

/* How those fare who play the roles. DEGRADED: some can be asked, some not. */
enum roles_state { ROLES_NONE, ROLES_HEALTHY, ROLES_DEGRADED, ROLES_DOWN };

struct reload; /* one under way */
struct preload;
struct key_change;
struct levels;
struct power;

struct daemon {
    const struct daemon_options *opt;
    uv_loop_t *loop;
    int64_t start_wall_ms;
    uint64_t start_mono_ms;
    char socket[512], state_dir[4096], history_path[4200], log_dir[4200], kv_dir[4200], roster_dir[4200];
    bool detaches;         /* instances outlive this process */
    struct roster *roster; /* what an earlier daemon left, until the pool has it */
    int lock_fd;           /* -1 = none */
    enum rc failure;       /* what ended the loop early */
    struct err failure_err;

    /* replaced as a whole by a reload */
    struct config *config;
    struct catalog *catalog;
    struct model_set *set;
    struct remote_set *remotes;
    struct key_set given, ring;     /* keys that somebody chose; those of the file that arriero key writes */
    struct tls_context *tls;        /* NULL = none */
    struct auth_spec *key_specs;    /* both in a row; they point into the two */
    uint64_t ring_serial;           /* counts changes of ring */
    struct key_change *key_changes; /* the one under way, and those behind it */
    struct buf models_json;         /* GET /v1/models */
    struct buf host_names;          /* separated by commas; see guard.h */

    struct sampler *sampler;
    struct pressure *pressure;
    struct store *store;
    struct knowledge *knowledge;
    struct metrics *metrics;
    struct levels *levels;
    struct power *power; /* NULL = nothing is to be set */
    struct pool *pool;
    struct http_server *server;
    const struct http_route *routes; /* owned; borrowed by the server */
    struct reload *reload;
    struct preload *preload; /* NULL until serving */
    bool reload_again;
    bool serving, stopping, hurried, pool_stopped, server_closed;
    bool store_was_writable;
    char runtime_path[512]; /* "" = none was found; why in runtime_err */
    struct err runtime_err;

    struct listener *listeners;
    size_t n_listeners;
    uint64_t event_serial;
    enum roles_state roles_told; /* what the last event of them said */
    bool roles_stale;            /* something has happened since they were looked at */

    uv_signal_t on_term, on_int, on_hup;
    uv_timer_t stop_timer, tick;
    uv_prepare_t prepare;
    uint64_t turn_start_us, idle_before_ns;
    const char *doing; /* static: what this turn has run, for the watchdog */
    uint64_t slow_turns;
    uint64_t notify_due_ms, notify_every_ms;
};

/* daemon.c */
void daemon_stop(struct daemon *d, bool hurry);
void daemon_pool_options(struct daemon *d, struct pool_options *ret);
void daemon_http_options(struct daemon *d, struct http_options *ret);
/* The certificate and key that the configuration names; none gives NULL. Blocking. */
enum rc daemon_load_tls(const struct config *c, struct tls_context **ret_context, struct err *err);
/* Gives the server the keys as they are now; takes ring over. */
void daemon_set_ring(struct daemon *d, struct key_set *ring);
/* After the first catalog: makes pool and server and begins to serve. */
enum rc daemon_begin_serving(struct daemon *d, struct err *err);

/* reload.c */
/* Reads the catalog (and, unless first, the configuration) on the work pool, then applies it. */
void reload_begin(struct daemon *d, bool first);
bool reload_busy(const struct daemon *d);

/* preload.c */
void preload_begin(struct daemon *d);
void preload_look(struct daemon *d); /* after a turn in which something happened, and once in a while */
void preload_decision(struct daemon *d, const struct pool_decision *decision);
void preload_free(struct preload *p);

/* roles.c */
/* Adds status, a member for each known role, and details by role. The words of status: healthy, degraded,
 * down. */
enum roles_state roles_health(struct daemon *d, yyjson_mut_doc *doc, yyjson_mut_val *o);
/* Tells of it if the roles fare otherwise than before. After a turn in which something happened, for a
 * decision is told before it is carried out; and once in a while, for breakers close silently. */
void roles_look(struct daemon *d);
/* Whether the limits of the roles' models leave room on each GPU: together 95 percent of it at most. */
enum rc roles_check_limits(const struct config *c, const struct hw_inventory *inv, struct err *err);
/* The machine as hw_json has it, each GPU with the names of the roles that are bound to it. */
yyjson_mut_val *roles_machine_json(const struct config *c, const struct hw_inventory *inv,
                                   yyjson_mut_doc *doc);

/* route.c */
void route_ops_init(struct daemon *d, struct route_ops *ret_ops);

/* routes.c; the array belongs to the daemon that it was made for. */
const struct http_route *routes_make(struct daemon *d, size_t *ret_n);

/* data.c and its like: see routes.def */
void reply_doc(struct http_exchange *ex, yyjson_mut_doc *doc); /* frees doc */
/* Takes out of a list of models (with "id", and "aliases") what the key of the request may not use. */
void leave_visible(struct http_exchange *ex, yyjson_mut_val *models);
yyjson_mut_doc *doc_new(yyjson_mut_val **ret_root);
void reply_unknown_model(struct daemon *d, struct http_exchange *ex, struct str id); /* 404, nearest names */
/* The body as JSON, {} where there is none; false: answered with an error. It is parsed on the loop, so what
 * is longer than any command is refused. */
bool body_read(struct http_exchange *ex, yyjson_doc **ret_doc);
/* A GET or HEAD that acts and that a page of another origin may have caused (guard_may_be_page): answered
 * with 403. */
bool refused_to_page(struct http_exchange *ex);
#define ROUTE_GET(path, fn, control, open)  void fn(void *daemon, struct http_exchange *ex);
#define ROUTE_POST(path, fn, control, open) void fn(void *daemon, struct http_exchange *ex);
#define ROUTE_OLLAMA(path, methods, fn)     void fn(void *daemon, struct http_exchange *ex);
#define ROUTE_ANY(path, fn)                 void fn(void *daemon, struct http_exchange *ex);
#include "daemon/routes.def" /* undefines them */

/* ollama.c: shared with ollama_show.c */
yyjson_mut_val *ollama_details(yyjson_mut_doc *doc, const struct model *m); /* m may be NULL */

/* router.c */
/* A GET that names a model in its query is one for the model's instance, if it is loaded: true if it was. */
bool router_look(struct daemon *d, struct http_exchange *ex);
void router_decision(struct daemon *d, const struct pool_decision *p); /* tells those that listen to states */

/* events.c */
void events_decision(void *daemon, const struct pool_decision *decision);
void events_transition(void *daemon, const struct pool_transition *t);
void events_request(void *daemon, const struct http_record *r);

/* background.c: arg is freed with free() behind make's end; fn runs on the work pool and appends a JSON
 * document, or fails. */
typedef enum rc (*background_fn)(void *arg, struct buf *out, struct err *err);
void background_answer(struct daemon *d, struct http_exchange *ex, background_fn fn, void *arg);

/* listeners.c: what clients listen to */
enum listen {
    LISTEN_DECISIONS, /* events of the control API */
    LISTEN_STATES,    /* llama.cpp's events of models' states */
    LISTEN_LINES,     /* of a model's or an instance's log, as events */
    LISTEN_TEXT,      /* the same as text */
    LISTEN_ALL_TEXT,  /* of all logs, each line with its instance */
    LISTEN_OWN_TEXT,  /* the daemon's decisions as text */
    LISTENS
};
/* of: a model or an instance, NULL = all. Begins the answer with first; false: it was answered with an error,
 * or the client is gone. */
bool listeners_add(struct daemon *d, struct http_exchange *ex, enum listen what, const char *of,
                   struct str first);
bool listeners_has(const struct daemon *d, enum listen what, const char *model, const char *instance);
void listeners_tell(struct daemon *d, enum listen what, const char *model, const char *instance,
                    struct str bytes);
void listeners_end(struct daemon *d); /* ends all of them */
void listeners_line(void *daemon, const char *model, const char *instance, struct str line);
/* Of one log, LISTEN_LINES or LISTEN_TEXT, with what it has so far. */
void listeners_follow(struct daemon *d, struct http_exchange *ex, enum listen what, struct str id,
                      bool history);

/* telemetry.c */
void telemetry_text(struct daemon *d, struct buf *out);
yyjson_mut_val *telemetry_status(struct daemon *d, yyjson_mut_doc *doc);
yyjson_mut_val *telemetry_health(struct daemon *d, yyjson_mut_doc *doc);
void telemetry_warnings(struct daemon *d, yyjson_mut_doc *doc, yyjson_mut_val *list);

/* power.c */
/* What the handle of the devices is to be opened with; *ret is owned by the daemon until power_ended. */
void power_wishes(struct daemon *d, struct hw_options *ret);
void power_begun(
    struct daemon *d); /* behind the first sample: tells what was set, and remembers what was before */
void power_warnings(struct daemon *d, yyjson_mut_doc *doc, yyjson_mut_val *list);
void power_ended(struct daemon *d,
                 bool restored); /* behind the closing of the handle; restored: it was closed */

/* levels.c */
struct levels *levels_new(void);
void levels_free(struct levels *l); /* NULL is fine */
/* A newer sample is there: changes of level become events, the pool learns of the heat. */
void levels_look(struct daemon *d);
/* Of the machine as hw_json has it: each device gets "thermal" {level, warn_c, critical_c, step} (null where
 * it tells no temperature), and each GPU the level of its memory's fill. */
void levels_put(struct daemon *d, yyjson_mut_doc *doc, yyjson_mut_val *machine);
void levels_warnings(struct daemon *d, yyjson_mut_doc *doc, yyjson_mut_val *list);
void levels_metrics(struct daemon *d);
bool levels_knows(const struct daemon *d, const char *device); /* it was read once, at least */

/* watchdog.c */
void watchdog_start(struct daemon *d);
void watchdog_stop(struct daemon *d);

#endif
