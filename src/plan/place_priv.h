/* The search for one model's placement, shared by its steps. Layer plan, internal; pure.
 *
 *   place.c    policy → search, the answer, alternatives
 *   search.c   the order of what is given up, and the best point of each step
 *   share.c    a share of the layers or experts on the host
 *   sets.c     sets of devices worth asking
 *   try.c      one set of devices: does it fit, the most of something that fits
 *   split.c    which device takes which layers
 *   ladder.c   steps down after failed loads
 *   reasons.c  words
 *
 * The space, and which of two points is better, is told in plan.h at plan_place;
 * tests/unit/plan/test_search.c enumerates it. */
#ifndef PLAN_PLACE_PRIV_H
#define PLAN_PLACE_PRIV_H

#include "plan/learn.h"
#include "plan/memory.h"
#include "plan/speed.h"

#define MAX_KV_CHOICES   4
#define CUT_SLIM         MAX_KV_CHOICES /* index into search.cuts */
#define PLACE_CTX_STEP   256
#define PLACE_UB_SMALL   128  /* the micro-batch when nothing else fits */
#define PLACE_UB_LEAST   64   /* … and no layer may leave its device */
#define PLACE_UB_LARGE   2048 /* the largest that max-performance tries */
#define PLACE_MAX_SETS   128  /* of one size */
#define PLACE_GRAPH_SURE 0.9  /* neighbours' graphs are never smaller than this share of each other */

struct kv_choice {
    uint32_t k, v;
};

/* Bytes of each offloaded layer, for the split: see split.c. */
struct layer_sizes {
    uint32_t n; /* 0 = nothing is known yet */
    bool timed; /* seconds are known, too */
    int32_t gpu_layers;
    uint32_t n_cpu_moe, ctx, ubatch, type_k, type_v; /* what they are of */
    enum plan_backend backend;
    uint64_t bytes[FACTS_MAX_LAYERS + 2]; /* sums: of the layers before this one */
    double seconds[FACTS_MAX_LAYERS + 2]; /* as bytes; of one token on the device measured with */
    double bandwidth;                     /* that device's */
};

/* What is known of a model and its files after many placements alike, as of a packing: facts, recorded
 * graphs. Zeroed before the first. */
struct placer {
    struct {
        const struct model *m;
        struct estimator *est;    /* owned */
        struct layer_sizes *cuts; /* owned: see struct search */
    } files[1 + PLAN_MAX_ALTERNATIVES];
    uint32_t n;
};
/* As plan_place; m and the policy's files live as long as the placer. */
enum rc placer_place(struct placer *k, const struct model *m, const struct plan_policy *policy,
                     const struct plan_machine *machine, struct plan *ret_plan, struct err *err);
void placer_release(struct placer *k);

/* What an answer gives up; lower is better: its place, plus PLACES for every file that was passed over. */
enum { ON_DEVICES, SHARED, ON_HOST, PLACES, NOWHERE = PLACES * (PLAN_MAX_ALTERNATIVES + 1) };
typedef uint32_t answer_class;
/* Sets the class that the answer of placer_place would have, or NOWHERE if that is worse than `worst` (or
 * nothing fits): the first point of a class is enough, so that this costs a part of a placement. Where it is
 * not ON_DEVICES, *ret_short_bytes is what the devices must have more, together, before it can be; else 0. */
enum rc placer_class(struct placer *k, const struct model *m, const struct plan_policy *policy,
                     const struct plan_machine *machine, answer_class worst, answer_class *ret_class,
                     uint64_t *ret_short_bytes, struct err *err);

struct search {
    const struct model *m;
    const struct plan_policy *policy;
    const struct plan_machine *machine;
    struct estimator *est;    /* the placer's, and … */
    struct layer_sizes *cuts; /* … so are these, which bounds are taken from: one for each cache, and one with
                               * the least of everything (slim) */
    /* resolved from the policy */
    uint32_t want_ctx;    /* the wish: given, or the trained length */
    uint32_t comfort_ctx; /* below this, more devices are preferred to a shorter context */
    uint32_t least_ctx;   /* the floor */
    bool ctx_given;
    struct kv_choice kv[MAX_KV_CHOICES]; /* plainest first */
    uint32_t n_kv;
    uint64_t margin;
    uint64_t vram_limit; /* over all devices; UINT64_MAX = none */
    struct plan_params base;
    uint32_t order[PLAN_MAX_DEVICES]; /* candidates, most suitable first */
    uint32_t rank[PLAN_MAX_DEVICES];  /* of a device in it */
    uint32_t n_order;
    uint64_t least_bytes;    /* that all layers and their cache take on devices; 0 = no bound known */
    struct plan_params slim; /* that these are of */
    bool keep_devices;       /* the ladder does not end on the host: a smaller file comes first */
    int32_t least_pace;      /* slower points do not fit; INT32_MIN = none */
    bool any;                /* the first point of a step is as good as the best */
    bool only_devices;       /* no step leaves anything to the host */
    uint32_t evaluations;    /* estimates made */
    /* what came nearest to fitting in this step, for the messages */
    char shortfall[224];
    uint64_t short_by;
    struct layer_sizes sizes;
    struct plan *out;
};

/* A complete answer for one set of devices. */
struct attempt {
    struct plan_params params;
    uint32_t used[PLAN_MAX_DEVICES]; /* in the machine's order */
    uint32_t n_used;
    uint32_t kv; /* index into search.kv */
    struct plan_estimate estimate;
    struct plan_speed speed;
    int64_t slack; /* room left over all used devices (or the host's, or under the limit, if less) */
};

struct device_set {
    uint32_t used[PLAN_MAX_DEVICES];
    uint32_t n;
};

/* ---- sets.c ---- */
/* Orders the devices that the policy allows; RC_NOT_FOUND when it pins one that is not here. */
enum rc sets_candidates(struct search *s, struct err *err);
uint32_t sets_limit(const struct search *s); /* most devices of a set */
/* All candidates in the machine's order, which is that of the layers; returns how many. */
uint32_t sets_all(const struct search *s, uint32_t ret[PLAN_MAX_DEVICES]);
/* The sets of n devices of which no other has more of everything in every place; returns how many. */
uint32_t sets_of(const struct search *s, uint32_t n, struct device_set ret[PLACE_MAX_SETS]);
/* GB/s, given or the backend's, as far as requests have shown that it is reached. */
double sets_bandwidth(const struct plan_device *d);
/* What a set costs to run: watts where every device's are known, else the size of its cards. */
double sets_watts(const struct search *s, const uint32_t *used, uint32_t n);

/* ---- try.c ---- */
uint64_t try_room(const struct search *s, uint32_t device);
void try_start(const struct search *s, const struct device_set *set, uint32_t kv, struct attempt *ret);
/* Estimates a->params on a->used; true if everything fits. Sets a->slack; notes what was short otherwise. */
bool try_fits(struct search *s, struct attempt *a);
bool try_estimate(struct search *s, struct attempt *a);
bool try_judge(struct search *s, struct attempt *a);
/* Room left over all used devices, RAM and the limit, whichever is least. */
int64_t try_slack(const struct search *s, const struct attempt *a);
int64_t try_device_slack(const struct search *s, const struct attempt *a); /* … without RAM */
int64_t try_host_slack(const struct search *s, const struct attempt *a);
/* As try_estimate without the graphs: compute_bytes are 0. */
bool try_sizes(struct search *s, struct attempt *a);
/* *a as try_sizes left it: false if no graph is so small that it fits; notes what was short. */
bool try_may_fit(struct search *s, const struct attempt *a);
/* Where the line through two ends of a range meets zero, strictly between them; the middle if that is asked
 * or they say nothing. */
uint32_t try_cross(uint32_t lo, uint32_t hi, int64_t at_lo, int64_t at_hi, bool middle);
/* The first context from lo on, short of hi, that fits *a; false if that is not lo or one next to it. */
bool try_least(struct search *s, struct attempt *a, uint32_t lo, uint32_t hi);
/* The longest context in [lo, hi] that fits *a as it stands otherwise; false if lo does not. */
bool try_reach(struct search *s, struct attempt *a, uint32_t lo, uint32_t hi);
void try_speed(struct search *s, struct attempt *a);
/* Sets only what points are compared by, a->speed.decode_tps. */
void try_decode(struct search *s, struct attempt *a);
/* A bound: as if every device were as fast as the fastest, so that the split does not matter. */
void try_best_decode(struct search *s, struct attempt *a);
/* Tokens a second in steps of some 4 %: less is no difference. */
int32_t try_pace(const struct attempt *a);
bool has_experts(const struct search *s);

/* ---- split.c ---- */
/* Finds the split of the layers that fits and reads fastest; *a has been estimated with shares by free
 * memory. False: none is known to fit, and *a is void. */
bool split_best(struct search *s, struct attempt *a);
/* Could another split fit, going by the sums? */
bool split_may_help(const struct attempt *a);
/* Makes *t the bytes of each layer with these parameters on devices like that one, and, if asked, the
 * seconds; false if they are refused. */
bool split_measure(struct search *s, const struct plan_params *params, uint32_t device, bool timed,
                   struct layer_sizes *t);
/* Could these devices, of one backend, hold the layers in order, each its overhead and none a graph? Some may
 * stay empty.
 */
bool split_could_fit(const struct search *s, const struct layer_sizes *t, const uint32_t *devices,
                     uint32_t n);
/* Do the devices differ so much that the split decides the speed? */
bool split_matters(const struct search *s, const struct attempt *a);

/* ---- search.c ---- */
/* The best point; false when there is none. Reasons for steps that came to nothing go to s->out. */
bool search_best(struct search *s, struct attempt *ret);
/* What all candidates together lack for the least that all layers take; 0 where that is not known to be so.
 */
uint64_t search_short_bytes(const struct search *s);

/* ---- share.c ---- */
/* The best point with layers or experts on the host. */
bool share_best(struct search *s, struct attempt *ret);

/* ---- ladder.c ---- */
/* Takes steps down from *a; returns how many there were. */
uint32_t ladder_descend(struct search *s, struct attempt *a, uint32_t steps);

/* ---- reasons.c ---- */
__attribute__((format(printf, 3, 4))) void reason_add(struct plan *p, const char *code, const char *fmt, ...);
/* Sentences for the chosen attempt. */
void reasons_of(struct search *s, const struct attempt *a);
const char *kv_word(uint32_t type);

static inline uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

#endif
