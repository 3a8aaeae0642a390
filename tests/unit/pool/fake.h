/* A world for the pool's tests: a planner of one line, a runtime that writes a word, a launcher whose
 * children are listeners of the test's own loop (the health check and the ports are real), and a clock that
 * stands still. */
#ifndef TEST_POOL_FAKE_H
#define TEST_POOL_FAKE_H

#include "pool/pool_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define FAKE_MAX 64

/* What the next child of a model does. */
enum behaviour { CHILD_READY, CHILD_HANG, CHILD_DIES, CHILD_DIES_MEMORY, CHILD_DIES_PORT, CHILD_STUBBORN };

struct fake_model {
    const char *id, *path;
    uint64_t bytes; /* what it needs, halved by every step of the ladder */
    uint64_t least; /* it makes do with so much, too, and takes what there is; 0 = it does not */
    struct model facts;
    int references;
    enum behaviour script[POOL_MAX_LADDER + 2];
    size_t n_script, at; /* then CHILD_READY */
    unsigned started;
    uint16_t ports[16];
};

struct answer { /* one acquire */
    struct fake *fake;
    enum pool_answer first;
    struct pool_wait *wait;
    bool told;
    enum rc rc;
    struct pool_lease lease;
    struct err err;
    uint32_t retry_after_s;
    int order;
};

struct fake {
    uv_loop_t loop;
    struct pool *pool;
    struct pool_options opt;
    struct hw_inventory inventory;
    struct fake_model models[8];
    size_t n_models;
    struct pool_model settings[8];
    struct launch_job *jobs; /* alive */
    unsigned n_jobs, n_alive, max_alive, samples_wanted, probes, n_left, n_adopted;
    struct { /* what an earlier pool left: the model and port of the job that is taken over next */
        const char *model;
        uint16_t port;
        enum behaviour behaviour;
        bool gone;
    } left;
    struct runtime_caps caps;
    bool no_runtime, bad_facts, bad_probe, bad_command;
    bool seen[POOL_STATES + 1][POOL_STATES]; /* changes of state; POOL_STATES is before the first */
    struct oom_count oom;                    /* as the kernel counts */
    bool oom_named;
    uv_sem_t *probe_gate; /* a probe waits for it, when there is one */
    int64_t wall_shift;   /* of the wall clock against the other */
    size_t n_parts;       /* of a plan and of what is measured, all of one name; 0 = 1 */
    uint32_t slots;       /* of an instance; 0 = no bound */
    bool computes;        /* children use processor time */
    bool slow;            /* children load until fake_wake */
    uint64_t ticks;
    struct buf decisions;                           /* "kind model\n" */
    struct buf reasons;                             /* "kind model code\n" */
    struct buf changes;                             /* "model state code\n" */
    char launched[32];                              /* the file that the latest child was started with */
    char planned_beside[160], launched_beside[160]; /* the files beside it, as planner and runtime saw them */
    unsigned rungs;                                 /* of a file, when there are smaller ones */
    unsigned ladders_asked[16], n_asked;            /* policy.ladder of every question to the planner */
    bool fresh;                                     /* a sample that is wanted is there at once */
    void (*on_rebalance)(const struct plan_machine *machine, const struct plan_loaded *loaded, size_t n,
                         struct plan_delta *ret_delta);
    struct proc_use others[4]; /* other processes of the machine */
    size_t n_others;
    /* what children answer beside GET /health, as a whole; nothing = they keep silent; false: they know no
     * such thing */
    bool (*serve)(struct fake *f, struct str request, struct buf *answer);
    void *serve_arg;
    uint64_t checkpoint_bytes; /* of a plan's host part */
    char kv_dir[64];           /* "" = conversations are not kept */
    bool stopped, ended;       /* ended: the callers' frames are gone */
    int order;
    uv_timer_t guard; /* so that the loop never sleeps for long while a test waits */
};

/* Host of 1000 MiB, all free; models a, b, c of 400 MiB each. */
int fake_setup(void **state);
int fake_setup_kv(void **state);   /* the same, with a folder for conversations */
void fake_restart(struct fake *f); /* another pool takes the place of the one there is */
int fake_teardown(void **state);   /* stops the pool; checks that nothing is left */
struct fake_model *fake_model(struct fake *f, const char *id);
void fake_script(struct fake *f, const char *id, const enum behaviour *script, size_t n);
void fake_stop(struct fake *f);                 /* stops the pool, as the daemon does at its end */
void fake_new_pool(struct fake *f);             /* another one, with f->opt; the models are set */
void fake_set_models(struct fake *f, size_t n); /* the first n, with their settings */
void fake_options(struct fake *f);              /* f->opt to the pool */
void fake_run_until(struct fake *f, bool (*condition)(struct fake *f, void *arg), void *arg);
void fake_settle(struct fake *f); /* until nothing moves: no turn pending, no work under way */
void fake_advance_ms(uint64_t ms);
void fake_sample(struct fake *f);                          /* the inventory is of now */
void fake_kill(struct fake *f, const char *id, int signo); /* the child dies by itself */
void fake_wake(struct fake *f, const char *id);            /* one that loads has loaded */
void fake_mute(struct fake *f, const char *id);            /* it answers no health check any more */

void ask(struct fake *f, const char *id, struct answer *a); /* pool_acquire */
void ask_as(struct fake *f, const struct pool_request *r, struct answer *a);
void until_told(struct answer *a);
void must_get(struct answer *a); /* granted at once or after a while */
void give_back(struct answer *a, bool broken);
void end(struct answer *a, enum pool_end how);
struct pool_instance *instance_of(struct fake *f, const char *id); /* the live one, or NULL */
bool decided(const struct fake *f, const char *line);              /* "evict a" */
bool reasoned(const struct fake *f, const char *line);             /* "evict a evicted_for" */
unsigned times_decided(const struct fake *f, const char *line);

#endif
