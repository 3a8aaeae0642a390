/* The search for one model's placement, shared by its steps. Layer plan, internal.
 *
 *   place.c    the order of steps, policy, the ladder
 *   try.c      one set of devices: what fits, the longest context, the most layers
 *   reasons.c  words */
#ifndef PLAN_PLACE_PRIV_H
#define PLAN_PLACE_PRIV_H

#include "plan/learn.h"
#include "plan/memory.h"
#include "plan/speed.h"

#define MAX_KV_CHOICES 4

struct kv_choice {
    uint32_t k, v;
};

struct search {
    const struct model *m;
    const struct plan_policy *policy;
    const struct plan_machine *machine;
    struct estimator est;
    /* resolved from the policy */
    uint32_t want_ctx;    /* the wish: given, or the trained length */
    uint32_t comfort_ctx; /* below this, more devices are preferred to a shorter context */
    uint32_t least_ctx;   /* the floor */
    bool ctx_given;
    struct kv_choice kv[MAX_KV_CHOICES];
    uint32_t n_kv;
    uint64_t margin;
    uint64_t vram_limit; /* over all devices; UINT64_MAX = none */
    struct plan_params base;
    uint32_t order[PLAN_MAX_DEVICES]; /* candidates, most suitable first */
    uint32_t n_order;
    uint32_t evaluations; /* estimates made */
    /* the least that was short in any attempt, for the message */
    char shortfall[224];
    struct plan *out;
};

/* A complete answer for one set of devices. */
struct attempt {
    struct plan_params params;
    uint32_t used[PLAN_MAX_DEVICES];
    uint32_t n_used;
    struct plan_estimate estimate;
    struct plan_speed speed;
};

/* ---- try.c ---- */
/* Estimates a->params on a->used; true if everything fits. Records what was short otherwise. */
bool try_fits(struct search *s, struct attempt *a);
/* All layers on the given devices: the best cache type and longest context ≥ least. False: not even that. */
bool try_full(struct search *s, const uint32_t *used, uint32_t n_used, uint32_t least, struct attempt *ret);
/* As many layers (experts) as fit on the devices, the rest on the host. */
bool try_partial(struct search *s, const uint32_t *used, uint32_t n_used, struct attempt *ret);
bool try_host(struct search *s, struct attempt *ret);
/* Exactly the number of layers that the policy fixes. */
bool try_fixed(struct search *s, const uint32_t *used, uint32_t n_used, struct attempt *ret);
void try_speed(struct search *s, struct attempt *a);
bool has_experts(const struct search *s);

/* ---- reasons.c ---- */
__attribute__((format(printf, 3, 4))) void reason_add(struct plan *p, const char *code, const char *fmt, ...);
/* Sentences for the chosen attempt. */
void reasons_of(struct search *s, const struct attempt *a);
const char *kv_word(uint32_t type);

#endif
