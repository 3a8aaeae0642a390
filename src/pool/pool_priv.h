/* Shared by the files of pool/. Layer pool; loop thread, but for the work of a preparation or a probe,
 * which touches only its own struct.
 *
 *   pool.c      public entry points: leases, commands, stopping
 *   models.c    the set of models, names, replacing the set
 *   load.c      from demand to a running instance: placement, failure, ladder, back-off
 *   prepare.c   what a load must know first: the runtime's path and capabilities, the model's facts
 *   probe.c     what runtimes can do, asked once
 *   beside.c    the files beside a model: copies of their names, what they hold, the planner's view
 *   admit.c     the machine as a load sees it, and the question whether there is room
 *   residence.c how long an instance keeps its place against those that wait
 *   disk.c      how many loads may go on at once
 *   backoff.c   how long a model is left alone after a failure
 *   state.c     the states of an instance, which may follow which
 *   instance.c  one instance: process, timers, end
 *   seats.c     the instances that one model may have
 *   lease.c     which instance serves a request, and who waits
 *   wait.c      callers that wait for a model
 *   heat.c      devices that are too hot: fewer requests at a time, slower, placed elsewhere
 *   line.c, breaker.c, prefix.c, death.c   fairness, broken backends, prompts, causes of death: pure
 *   roster.c    what is written down of instances that may outlive the daemon (roster.h)
 *   adopt.c     leaving them to the next daemon, taking them over from the last one
 *   keep.c      how long an instance stays, looks that do not count as use
 *   call.c      one HTTP request on the loop (call.h, health.h); port.c free ports
 *   views.c     JSON, counters, decisions
 *   dryrun.c    the question of a load without the load
 *   outlook.c   when it would be ready, and who leaves for it
 *   rebalance.c would loaded models be better placed elsewhere
 *   lesson.c    what loads and requests teach
 *   kv*.c       conversations that outlive the instance that read them: see kv_priv.h
 *   gauge.c     how full the devices are, and who fills them (gauge.h)
 *   tenant.c    yielding memory to others and taking it back (tenant.h), tenant_view.c in words
 *   yield.c     when, who and how: pure (yield.h)
 *   real.c      what is called in earnest
 *
 * Re-entry: callbacks of callers may call back into the pool, so nothing is kept across them but what is
 * checked again. Work that callers must not see inside their own call is put off to pool_turn (an idle
 * handle). */
#ifndef POOL_POOL_PRIV_H
#define POOL_POOL_PRIV_H

#include "base/mem.h"
#include "os/procs.h"
#include "plan/reuse.h"
#include "pool/breaker.h"
#include "pool/death.h"
#include "pool/heat.h"
#include "pool/health.h"
#include "pool/pool.h"
#include "pool/prefix.h"
#include "pool/reserve.h"
#include "pool/roster.h"

#define POOL_MAX_LADDER   16    /* every rung once, and again with a smaller file */
#define POOL_SAMPLE_MS    2000u /* a load waits so long for a sample of after it ran out of memory */
#define POOL_BACKOFF_MS   1000u
#define POOL_BACKOFF_MAX  (5u * 60 * 1000)
#define POOL_CRASH_MEMORY (5u * 60 * 1000) /* crashes further apart than this are not a series */
#define POOL_RECHECK_MS   250u             /* blocked loads and waiting deadlines are looked at so often */
#define POOL_PORT_TRIES   3
#define POOL_CHECK_TRIES  3
#define POOL_CHECK_MS     500u
#define POOL_VICTIM_MS                                                                                       \
    2000u /* a busy instance that leaves for a waiting load is asked for its health so often */
#define POOL_PROBE_MIN_MS  50u
#define POOL_PROBE_MAX_MS  250u
#define POOL_PROBE_SOON_MS 5u
#define POOL_PROBE_KEEP_MS 5000u /* a failed probe answers for so long; as long as one may take */
#define POOL_GONE          16
#define POOL_MAX_SEATS     16u
#define WAIT_COST_TOKENS   512u /* of a prompt: one unit of cost in line */

/* What the pool calls; tests put their own here. */
struct pool_deps {
    const struct launch_ops *launch;
    const struct runtime_ops *runtime;
    enum rc (*facts)(const char *path, struct model **ret_model,
                     struct err *err); /* work pool; a reference */
    void (*facts_unref)(struct model *m);
    enum rc (*pack)(const struct model *m, const struct plan_policy *policy,
                    const struct plan_machine *machine, const struct plan_resident *residents,
                    size_t n_residents, struct plan *ret_plan, struct plan_victims *ret_victims,
                    struct err *err);
    void (*rebalance)(const struct plan_machine *machine, const struct plan_loaded *loaded, size_t n,
                      struct plan_delta *ret_delta);
    enum rc (*find_runtime)(const char *explicit_path, char *ret_path, size_t cap,
                            struct err *err);           /* work pool */
    bool (*anon_bytes)(pid_t pid, uint64_t *ret_bytes); /* private memory of a process; false if unknown */
    bool (*liveness)(pid_t pid, uint64_t *ret_stamp);   /* changes while a process loads; false if unknown */
    bool (*cpu_ticks)(pid_t pid,
                      uint64_t *ret_ticks);   /* changes while a process computes; false if unknown */
    void (*oom_count)(struct oom_count *ret); /* NULL = not known */
    bool (*oom_named)(pid_t pid);
    /* The largest processes but those of skip (work pool), and the name of one; see os/procs.h. */
    size_t (*largest)(const pid_t *skip, size_t n_skip, struct proc_use *ret, size_t cap);
    bool (*process_name)(pid_t pid, char ret_name[32]);
    uint64_t (*now_ms)(void); /* monotonic */
    int64_t (*wall_ms)(void);
};
extern const struct pool_deps pool_deps_real;
enum rc pool_new_with(const struct pool_options *opt, const struct pool_deps *deps, struct pool **ret_pool,
                      struct err *err);

struct probe_key {
    char binary[512];
    off_t size;
    struct timespec mtime;
    bool known; /* size and mtime are; else the answer is not kept for long */
};

/* Files of a model in smaller quantisations: those that can be read. References; owned by who holds it. */
struct smaller {
    struct model *list[PLAN_MAX_ALTERNATIVES];
    uint32_t n;
};

/* The files beside a model, as read. References; owned by who holds it. */
struct beside {
    bool known; /* all of them were read */
    struct model *projector, *draft, *adapters[PLAN_MAX_ADAPTERS];
    uint32_t n_adapters;
};

/* What a load must know first; read in steps on the work pool. Loop thread. */
struct prep {
    uv_work_t req;
    struct pool *pool;
    struct entry *entry;      /* NULL once nobody wants it, or for a look at the pool's own runtime */
    bool warm_up;             /* the latter */
    char *path, *binary;      /* own copies; path NULL = only the probe */
    struct pool_files *files; /* own copy; NULL when path is */
    char **smaller_paths;     /* own copies */
    size_t n_smaller_paths;
    struct probe_key key;
    struct model *facts;
    struct runtime_caps *caps; /* NULL until known; owned */
    struct beside beside;
    struct smaller smaller;
    double file_cached;
    enum rc rc;
    struct err err;
};

/* ---- reservations ---- */

struct gone { /* an instance that ended after the latest sample: its memory is free though the sample says not
               */
    uint64_t ready_ms, ended_ms; /* a sample between the two shows its memory in use; 0 = no row */
    struct reserve freed;
};

/* ---- waiting callers ---- */

struct pool_wait {
    struct line_spot spot;         /* in its model's line, or … */
    struct pool_wait *prev, *next; /* … beside it: it waits for the load and takes no slot */
    struct entry *entry;           /* the leading one */
    pool_acquire_cb acquire;       /* one of the two */
    pool_done_cb done;
    void *arg;
    uint64_t since_ms, round;
    uint32_t position, expected_ms; /* when it came */
    enum line_band band;
    struct prefix *prefix;      /* NULL = it has none, or nobody needs it */
    struct kv_restore *restore; /* it has its lease already, and is in no line: a state is read back for it */
};

/* ---- models ---- */

enum demand { DEMAND_NONE, DEMAND_PREPARING, DEMAND_BLOCKED, DEMAND_PLACED };

/* What a seat gave to others, and what it is to get back: see tenant.h. */
struct yielded {
    enum {
        YIELDED_NOT,
        YIELDED_RELOAD, /* it is loaded again, modestly, as soon as its process is gone: `then` holds then */
        YIELDED_AWAY,   /* a pinned one, loaded again when there is room */
        YIELDED_SMALL   /* it runs in less memory; loaded again when there is more and it was used */
    } what,
        then;
    uint64_t serial;      /* of the instance that left */
    uint64_t gone_ms;     /* its process was seen to be gone; 0 = not yet */
    struct reserve bytes; /* what it had; none: nothing is to be got back */
    uint64_t room_ms;     /* since when there has been room for that; 0 = there is none */
};

struct entry {
    struct pool *pool;
    struct entry *next_blocked;
    /* settings: own copies */
    char *id, *path, *binary, *device;
    struct pool_files *files;
    char **aliases, **extra_args, **smaller_paths;
    size_t n_aliases, n_extra_args, n_smaller_paths;
    struct plan_policy policy;
    int priority;
    bool pinned, pin; /* pinned (lead): what the settings said last, pin, or an operator since */
    bool embedding;
    enum pool_kv kv_keep;
    uint64_t ttl_ms, settings_hash;
    const struct pool_model *keep; /* while the set is replaced: its new settings; borrowed */
    uint32_t ctx_floor;            /* that clients asked for; 0 = none */
    struct { /* so many tokens did not fit when the pool had seen so many launches and ends */
        uint32_t tokens;
        uint64_t launches;
    } ctx_denied;
    /* seats: see seats.c */
    struct entry *lead; /* the first one, which has the names and the line; itself for that */
    struct entry *twin; /* the next seat of the model */
    uint32_t seat;      /* 0 for the first */
    uint32_t seats_min; /* lead */
    /* line (lead) */
    struct line *line;              /* NULL until a request waits */
    struct prefix_table *prefixes;  /* NULL = one seat */
    uint64_t service_us;            /* of a request, smoothed; 0 = none measured */
    struct reuse reuse;             /* when it was wanted */
    uint64_t used_ms;               /* the latest request came or ended; 0 = never */
    uint64_t left_for;              /* the instance that its latest one made room for; 0 = wanted since */
    uint64_t left_ms, left_term_ms; /* when, and its term then: see residence.c */
    bool came_back;                 /* it was wanted again too soon after that */
    uint32_t turned_away;           /* since the line was last shorter */
    bool told_full;                 /* the decision to refuse was handed out */
    /* demand */
    enum demand demand;
    bool modest; /* nobody waits for this load: it displaces and keeps waiting nobody */
    struct yielded yielded;
    struct prep *prep;                        /* its entry pointer is set to NULL by whoever lets go of it */
    struct pool_wait *wait_first, *wait_last; /* beside the line */
    uint32_t n_waiting;                       /* in line and beside it */
    uint64_t round;       /* of failing: who came later is not told of an earlier failure */
    uint64_t blocked_ms;  /* since when */
    struct reserve wants; /* what a blocked one would take if all that may leave had left */
    bool told_waiting;    /* the decision that it waits for memory was handed out */
    /* what preparation found */
    struct model *facts;
    struct runtime_caps *caps; /* own copy */
    struct beside beside;
    struct smaller smaller;
    double file_cached; /* share of the file in the page cache, when it was prepared */
    /* instances */
    struct pool_instance *current; /* planned, starting or ready */
    struct pool_instance *record;  /* the failed one that views show */
    uint32_t serial;
    uint64_t loads;
    char *last_log; /* tail of the last one that was unloaded */
    /* failure */
    struct err cause;
    unsigned failures, crashes; /* in a row; see backoff.c */
    uint64_t retry_at_ms, crashed_ms;
    int64_t failed_wall_ms; /* the latest failure */
    uint64_t looked_ms;     /* lead: at its file, while it was held back; 0 = not yet */
    bool looking;           /* lead */
    uint32_t ladder;
    struct { /* the latest load that ran out of memory, until it is looked at with a sample of after it */
        uint64_t at_ms;      /* 0 = none */
        struct reserve told; /* what was free on the devices it was to use */
        unsigned taken_back; /* steps that were not its fault, since the last success */
    } short_of;
};

/* ---- instances ---- */

enum timer_for { TIMER_NONE, TIMER_PROBE, TIMER_TTL, TIMER_DRAIN, TIMER_KILL, TIMER_CHECK };

struct pool_instance {
    struct pool *pool;
    struct entry *entry; /* NULL when its model has vanished or changed, or another instance took its place */
    struct pool_instance *next;
    char id[POOL_ID_MAX];
    char model[POOL_ID_MAX * 2];
    uint64_t serial; /* never used again */
    enum pool_state state;
    struct plan_reason why; /* of the next change of it; code NULL = none yet */
    uint64_t since_ms, start_ms, last_used_ms;
    uint64_t ready_ms; /* 0 = not yet */
    /* placement */
    struct model *facts; /* a reference; of a smaller file if plan.smaller says so */
    struct beside beside;
    struct plan_extras extras; /* of beside; the plan's parameters point to it when there are files */
    struct plan plan;
    struct plan_machine machine;
    struct reserve reserve;
    struct pool_instance *room_for; /* it leaves so that this one can start; NULL else */
    uint32_t victims_left;          /* a planned one starts when this is 0 … */
    bool told_waiting;              /* … and it waits for the disk: that was handed out */
    /* process */
    pid_t pid;              /* of the latest process, also when it is over; 0 = none yet */
    struct launch_job *job; /* NULL when its process is over or being forgotten */
    unsigned jobs_closing;  /* forgotten, not yet closed */
    unsigned jobs_dying;    /* of those: whose process may still run, so that its memory is not free yet */
    uint16_t port;
    unsigned port_tries;
    char **argv;
    char *log_path, *log_tail; /* tail: of one that has ended */
    bool term_sent, kill_sent;
    enum runtime_failure failure; /* how its process ended, if nobody here ended it */
    bool adopted;                 /* an earlier daemon started it */
    bool was_ready;               /* and had seen it ready */
    bool leaving;                 /* its end here is not its process's */
    pid_t written_pid;            /* it is on the roster under this number; 0 = it dies with us */
    struct call *health;
    uint64_t anon_bytes; /* as last read */
    /* load */
    double progress;
    uint64_t progress_ms, liveness;
    uint32_t probe_ms;
    struct runtime_measured measured;
    double load_seconds;
    /* use */
    uint32_t busy;       /* leases that are out */
    uint32_t slots;      /* of them, those that take a slot */
    uint64_t leases;     /* given out so far */
    uint64_t granted_ms; /* when one that takes a slot last was; 0 = never */
    uint64_t keep_ms; /* it stays so long without use: the model's ttl, or what a client asked for; UINT64_MAX
                       * = for ever */
    bool kept;        /* keep_ms is a client's wish */
    bool suspect;     /* its health is being checked: no new lease until it is known */
    bool rested, returned; /* it was idle once; it was used again after that */
    struct breaker breaker;
    unsigned check_failures;
    uint64_t check_ticks, check_ok_ms; /* at the latest check; the latest sign of life while it is checked */
    struct err cause;
    /* conversations */
    struct kv_held *kv;     /* NULL = none is kept … */
    const char *kv_why_not; /* … and why; static */
    /* lessons */
    char version[96];  /* of the runtime */
    bool weighed;      /* its devices' memory was looked at */
    uint64_t launches; /* the pool's count at its launch */
    uint64_t used_before[PLAN_MAX_DEVICES], driver_bytes[PLAN_MAX_DEVICES]; /* by plan.used */
    uint64_t crowded_ms; /* when two requests last ran at once */
    uint64_t timings, timed_ms;
    /* timer */
    uv_timer_t timer;
    enum timer_for timer_for;
    bool timer_open;
};

struct unload_op {
    struct unload_op *next;
    pool_done_cb done;
    void *arg;
    uint64_t *serials;
    size_t n;
};

struct probe_cache;

struct pool {
    struct pool_deps deps;
    struct pool_options opt;
    char *runtime_binary, *log_dir, *roster_dir;
    uv_loop_t *loop;
    uv_idle_t idle;
    uv_timer_t timer;
    bool idle_on, timer_on;
    unsigned handles;       /* open handles of the pool itself */
    struct entry **entries; /* sorted by id */
    size_t n_entries;
    struct name *names; /* ids and aliases, sorted */
    size_t n_names;
    struct pool_instance *instances;
    uint64_t next_serial;
    uint64_t launches;           /* and ends: what changes a device's memory */
    uint32_t n_waiting;          /* of all models */
    uint64_t seed;               /* of prompts' hashes */
    struct entry *blocked_first; /* first come, first looked at */
    bool room_changed;           /* since blocked loads were looked at: who has room, or who could leave */
    uint64_t looked_ms;          /* the sample they were looked at with */
    uint64_t looked_at_ms;       /* and when that was */
    struct gone gone[POOL_GONE];
    struct heat heat;
    struct unload_op *unloads;
    unsigned n_work; /* preparations on the work pool */
    struct probe_cache *probes;
    struct kv *kv;
    struct tenants *tenants;
    struct runtime_caps *default_caps; /* of the pool's own binary, once known */
    struct pool_counters count;        /* gauges are filled by pool_counters */
    struct oom_count oom;              /* at the latest sample */
    bool stopping, hurry, told_stopped;
    bool keep_none; /* nothing outlives this pool */
    void (*stopped)(void *arg);
    void *stopped_arg;
};

struct name {
    struct str text;
    struct entry *entry;
};

/* models.c */
struct entry *entry_find(const struct pool *p, struct str name);
enum rc entry_unknown(const struct pool *p, struct str name,
                      struct err *err);                              /* RC_NOT_FOUND with near names */
bool entry_is_known(const struct pool *p, const struct entry *lead); /* it was not taken away */
struct entry *entry_new_seat(struct entry *lead, uint32_t seat);
/* Takes the instance and the demand away from a seat; the callers that wait are left to the caller. */
void seat_uproot(struct entry *s, const char *code, const char *why);
void entry_free_seat(struct entry *s);
void models_release(struct pool *p);

/* seats.c; any seat stands for its model */
void seats_set(struct entry *lead,
               const struct pool_model *m);     /* as many as m wants; lead's settings are m's */
bool seats_are_wanted(const struct entry *e);   /* one is loading or loaded */
bool seats_may_load(const struct entry *e);     /* one could be loaded now */
bool seats_other_serves(const struct entry *e); /* another seat of the model is loading or loaded */
bool seats_is_extra(const struct entry *e);     /* it is one more than must be: nobody leaves for it */
void seats_load(struct entry *e);               /* somebody waits: begins what loads that takes */

/* lease.c */
/* Who serves the next request now; NULL = nobody has a free slot. prefix may be NULL. */
struct pool_instance *lease_pick(const struct entry *e, const struct prefix *prefix, bool light);
bool lease_is_ready(const struct entry *e);
void lease_describe(const struct pool_instance *i, struct pool_lease *ret_lease);
void lease_fill(struct pool_instance *i, bool light, struct pool_lease *ret_lease); /* counts it */
/* Its instances are gone and somebody waits still: loads it again, or tells them why not. */
void lease_resume(struct entry *lead);
uint64_t lease_service_ms(const struct entry *lead);   /* of one request in its slot */
uint64_t lease_load_left_ms(const struct entry *lead); /* until the first instance is ready; 0 = one is */
uint32_t lease_expected_ms(const struct entry *e, size_t ahead); /* until a request is served */
uint32_t
lease_retry_after_s(const struct entry *e); /* until one that finds the line full would find a place */

/* wait.c */
struct pool_wait *wait_add(struct entry *e, pool_acquire_cb acquire, pool_done_cb done, void *arg);
struct pool_wait *wait_in_line(struct entry *e, const struct pool_request *r, pool_acquire_cb acquire,
                               void *arg);
/* Not counted and in no list: it has a lease, and is told of it later (wait_tell), or never (wait_drop). */
struct pool_wait *wait_aside(struct entry *e, pool_acquire_cb acquire, void *arg);
void wait_tell(struct pool_wait *w, enum rc rc, const struct pool_lease *lease, const struct err *err,
               uint32_t retry_after_s); /* frees it */
void wait_drop(struct pool_wait *w);    /* frees it */
void wait_remove(struct pool_wait *w);  /* frees it */
uint32_t wait_count(const struct entry *e);
void wait_serve(struct entry *e); /* somebody is ready or has a free slot: as many as there is room for */
void wait_fail_all(struct entry *e, enum rc rc, const struct err *err, uint32_t retry_after_s);
void wait_expire(struct entry *e);

char **strings_copy(const char *const *list, size_t n);
void strings_free(char **list, size_t n);

/* beside.c */
struct pool_files *files_copy(const struct pool_files *f); /* one block: free() */
/* Any thread. RC_OK also when there are none; *ret_beside is empty after an error. */
enum rc beside_read(const struct pool *p, const struct pool_files *f, struct beside *ret_beside,
                    struct err *err);
void beside_release(const struct pool *p, struct beside *b);
/* The planner's view of files as read, as long as both live; false when there are none. */
bool beside_extras(const struct pool_files *f, const struct beside *b, struct plan_extras *ret_extras);
/* Counts extras in the policy; base is the policy's to point to. */
void beside_policy(const struct plan_extras *extras, struct plan_policy *policy, struct plan_params *base);

/* prepare.c */
void smaller_read(const struct pool *p, char *const *paths, size_t n, struct smaller *ret); /* any thread */
void smaller_release(const struct pool *p, struct smaller *s);
struct prep *prep_start(struct pool *p, struct entry *e); /* e NULL: only the pool's own runtime */

/* load.c */
void load_begin(struct entry *e); /* DEMAND_NONE → PREPARING */
void load_unprepared(struct entry *e, enum rc rc, const struct err *err);
/* Facts and capabilities are there: PREPARING or BLOCKED → PLACED, BLOCKED, or failed. */
void load_try_room(struct entry *e);
bool load_time_is_up(const struct entry *e);     /* it was blocked for as long as the patience lasts */
bool load_sample_is_late(const struct entry *e); /* it waits no longer for a sample of after its failure */
/* A planned one whose room is made and whose turn at the disk it is; else it is looked at with every turn. */
bool load_may_start(struct pool_instance *i);
void load_room_made(struct pool_instance *i);
void load_ready(struct pool_instance *i);
void load_failed(struct pool_instance *i, enum runtime_failure failure, const struct err *cause);
void load_crashed(struct pool_instance *i, const struct err *cause);
void load_drop(struct entry *e); /* takes demand back; the waiting callers are told by the caller of this */
uint32_t load_retry_after_s(const struct entry *e);
void blocked_remove(struct entry *e);
void load_warm_up(struct pool *p); /* probes the pool's own binary in the background */

/* probe.c */
/* caps is NULL unless rc is RC_OK; all borrowed during the call. */
typedef void (*probe_cb)(void *arg, enum rc rc, const struct runtime_caps *caps, const struct err *err);
struct probe_cache *probe_cache_new(struct pool *p);
/* Calls cb once: inside this call when the answer is known, else when the probe is over. */
void probe_ask(struct probe_cache *c, const struct probe_key *key, probe_cb cb, void *arg);
void probe_cache_close(struct probe_cache *c); /* probes that have not begun fail at once */
void probe_cache_free(struct probe_cache *c);

/* admit.c */
enum admit { ADMIT_GO, ADMIT_WAIT, ADMIT_REFUSE };
struct admission {
    struct plan plan;
    struct plan_machine machine;
    struct reserve reserve;
    struct pool_instance *victims[PLAN_MAX_RESIDENTS];
    size_t n_victims;
    bool patience; /* the victims are busy ones, whose time is up */
};
/* ADMIT_WAIT too fills plan, reserve and victims: what it takes, and who leaves for it, when its turn comes.
 */
/* wanted: the device that the model is pinned to, or NULL. */
void admit_machine(struct pool *p, const struct runtime_caps *caps, const char *wanted,
                   struct plan_machine *ret_machine);
enum admit admit_try(struct entry *e, const struct plan_policy *policy, struct admission *ret_admission,
                     struct err *err);

/* The question of a load for an instance that is loaded: on a machine of the caller's, where nobody leaves.
 */
enum rc admit_place_alone(const struct pool_instance *i, struct plan_machine *machine, struct plan *ret_plan,
                          struct reserve *ret_reserve, struct err *err);
void admit_resident(const struct pool_instance *i, struct plan_resident *ret); /* what it costs to stop it */
uint64_t admit_host_reserve(const struct pool *p, const struct hw_inventory *inv);
/* Whether the sample was taken with everything that the instance takes in place. */
bool admit_is_settled(const struct pool_instance *i, const struct hw_inventory *inv);
/* Whether the sample shows memory in use that has been freed since. */
bool admit_is_shown_still(const struct gone *g, const struct hw_inventory *inv);
/* heat.c: admit_try, and once more with less where the answer is a device that is too hot. */
enum admit heat_admit(struct entry *e, const struct plan_policy *policy, struct admission *ret_admission,
                      struct err *err);

const char *device_key(const struct plan_device *d); /* UUID, else the name */

/* residence.c */
uint64_t residence_term_ms(const struct pool_instance *i);
uint64_t residence_left_ms(const struct pool_instance *i); /* of its term; 0 unless it is ready */
bool residence_keeps_idle(const struct pool_instance *i);  /* though idle, it does not leave for others now */
bool residence_ended_since(const struct pool *p, uint64_t since_ms); /* somebody's term */
void residence_left_for(struct pool_instance *i,
                        const struct pool_instance *other); /* before it is told to */
void residence_wanted(struct entry *lead);                  /* a request came */

/* disk.c */
bool disk_has_turn(const struct pool_instance *i); /* a planned one whose room is made may start */

/* lesson.c */
void lesson_teach(const struct entry *e, const struct model *facts, const struct plan_policy *policy,
                  struct plan_machine *machine);
void lesson_launched(struct pool_instance *i);
void lesson_ready(struct pool_instance *i); /* before anybody is served */
void lesson_sampled(struct pool *p);        /* a newer inventory is there */

/* backoff.c */
void backoff_failed(struct entry *e);  /* one more failed load */
void backoff_crashed(struct entry *e); /* what was loaded has died: the second time in a while counts */
void backoff_clear(struct entry *e);   /* as if nothing had failed */
uint64_t backoff_left_ms(const struct entry *e);                       /* 0 = it may be tried */
size_t backoff_reason(const struct entry *e, struct plan_reason *ret); /* 1, or 0 if it is not held back */
void backoff_look(struct entry *lead); /* has its file changed? then the time ends soon after this call */

/* state.c */
bool state_may_follow(enum pool_state from, enum pool_state to);
/* The reason of the next change, where no decision is one. */
__attribute__((format(printf, 3, 4))) void instance_because(struct pool_instance *i, const char *code,
                                                            const char *fmt, ...);
void instance_born(struct pool_instance *i); /* it is planned */
void instance_set_state(struct pool_instance *i, enum pool_state s);

/* adopt.c */
/* Whether instances that start now outlive the pool. */
bool adopt_detaches(const struct pool *p);
enum rc adopt_write(void *instance, pid_t pid, struct err *err); /* launch_spec.known */
void adopt_rewrite(struct pool_instance *i);                     /* once it is ready: what a load has told */
void adopt_forget(struct pool_instance *i);                      /* its process is over: off the roster */
bool adopt_may_leave(const struct pool_instance *i);
/* A server that was left answers with that status: true if another question is worth it. */
bool adopt_is_patient(struct pool_instance *i, int status);
void adopt_failed(struct pool_instance *i);

/* instance.c */
struct pool_instance *instance_blank(struct pool *p, const char *id, const char *model);
/* In place of instance_launch: PLANNED → STARTING with a process that runs. It is asked for its health by
 * instance_probe. */
enum rc instance_take_over(struct pool_instance *i, const struct launch_found *found, struct err *err);
void instance_probe(struct pool_instance *i);
struct pool_instance *instance_new(struct entry *e, const struct admission *a);
enum rc instance_launch(struct pool_instance *i,
                        struct err *err); /* PLANNED or STARTING: (re)starts the process */
enum stop_mode { STOP_DRAIN, STOP_TERM, STOP_KILL };
void instance_stop(struct pool_instance *i, enum stop_mode mode);
void instance_detach(struct pool_instance *i); /* its entry forgets it */
void instance_fail(struct pool_instance *i, const struct err *cause);
void instance_idle(struct pool_instance *i);  /* after the last lease: ttl, or the end of a drain */
void instance_check(struct pool_instance *i); /* GET /health now; suspect until answered */
void instance_saved(
    struct pool_instance *i);        /* its conversations are kept, as far as they can be: it may end */
void instance_sweep(struct pool *p); /* frees those that are over */
bool instance_holds_memory(const struct pool_instance *i);

/* pool.c */
void pool_kick(struct pool *p); /* pool_turn soon */
enum rc pool_refuse_stopping(struct err *err);
void pool_retime(struct pool *p);                        /* timer on or off */
void pool_gone(struct pool *p, struct pool_instance *i); /* its process is over */

/* kv.c, kv_save.c, kv_restore.c */
void kv_begin(struct pool *p); /* blocking: at start */
void kv_options(struct pool *p);
void kv_end(struct pool *p);
const char *kv_launching(struct pool_instance *i); /* the folder that its server is to use; NULL = none */
void kv_release(struct pool_instance *i);
bool kv_is_busy(const struct pool_instance *i); /* it cannot be freed yet */
bool kv_is_kept(const struct entry *e);         /* of an instance that it has or may have */
/* A request begins, with its lease; true: kv_restore is to be asked before it is granted. */
bool kv_starts(struct pool_instance *i, const struct prefix *prefix, struct pool_lease *lease);
/* The caller is told when the state is there, or cannot be had. Returns w. */
struct pool_wait *kv_restore(struct pool_instance *i, const struct pool_lease *lease, struct pool_wait *w);
void kv_restore_cancel(struct pool_wait *w); /* frees w, gives the lease back */
void kv_ended(struct pool_instance *i, const struct pool_lease *l, enum pool_end end);
/* It is to end and nobody uses it. True: instance_saved follows. */
bool kv_leave(struct pool_instance *i);
void kv_stop(struct pool_instance *i); /* its server is told to end, or has: nothing follows */
void kv_count(const struct pool *p, struct pool_counters *c);
yyjson_mut_val *kv_instance_json(const struct pool_instance *i, yyjson_mut_doc *doc);

/* port.c */
enum rc port_choose(const char *host, uint16_t *ret_port, struct err *err);

/* outlook.c */
/* What a load that was asked about would bring, and when: see docs/control-api.md, POST /plan, "live". */
yyjson_mut_val *outlook_json(const struct entry *e, const struct admission *a, enum admit answer,
                             yyjson_mut_doc *doc);

/* views.c */
const char *entry_state(const struct entry *lead); /* of the seat that has come furthest, or "unloaded" */
__attribute__((format(printf, 3, 4))) void reason_set(struct plan_reason *r, const char *code,
                                                      const char *fmt, ...);
void decide(struct pool *p, const char *kind, const struct entry *e, struct pool_instance *i,
            const struct plan_reason *reasons, size_t n, const struct plan *plan, double seconds);
/* Of an instance, for another model. */
void decide_for(struct pool *p, const char *kind, struct pool_instance *i, const struct plan_reason *reason,
                const char *other);

#endif
