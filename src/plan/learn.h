/* What real loads and real requests have taught, as an input of the planner. Layer plan; pure: the table is a
 * plain value that its owner fills (from the history, from fresh samples) and lends; no I/O, no clock.
 *
 * Four things are learned, each under the key of what decides it, each as a ring of the latest samples from
 * which a robust figure is taken, so that one odd sample moves nothing:
 *
 *   LEARN_DECODE   seconds a token, measured / predicted, of the device that takes most of them
 *   LEARN_PREFILL  seconds a prompt's token, measured / predicted, likewise
 *   LEARN_LOAD     seconds of a load, measured / predicted
 *   LEARN_OVERHEAD bytes a process takes on a device beside weights, cache and compute buffers
 *
 * Speeds: the median, weighted by how near the sample's model is in size (a model that fits the processor's
 * cache reads faster than one that does not). Overheads: the 95th percentile, and never below the default
 * until LEARN_ENOUGH loads have been seen. A key that was never seen falls back to the nearest one that was:
 * another build of the runtime, then another architecture; never to another device. */
#ifndef PLAN_LEARN_H
#define PLAN_LEARN_H

#include "plan/plan.h"

#define LEARN_RING   32
#define LEARN_ROWS   96
#define LEARN_ENOUGH 5

enum learn_kind { LEARN_DECODE, LEARN_PREFILL, LEARN_LOAD, LEARN_OVERHEAD, LEARN_KINDS };
const char *learn_kind_word(enum learn_kind k); /* "decode", as in the history's table */
bool learn_kind_from(struct str word, enum learn_kind *ret_kind);

struct learn_key {
    char runtime[96];      /* version with its build, "0.7.0 (build 11669)" */
    char device[96];       /* the card's or processor's model, not its name in this machine */
    char architecture[32]; /* "llama" */
    char quantization[24]; /* "Q4_K_M"; "" for overheads */
    bool flash_attn;       /* of overheads; false for speeds */
};

struct learn_sample {
    enum learn_kind kind;
    struct learn_key key;
    double value; /* a ratio, or bytes */
    double size;  /* bytes of the model's tensors */
};

struct learn_row {
    enum learn_kind kind;
    struct learn_key key;
    uint64_t seen;      /* samples so far */
    uint64_t last_used; /* serial of the latest sample, to replace the row that is longest without one */
    uint32_t n;         /* in the ring */
    double value[LEARN_RING], size[LEARN_RING];
};

struct plan_learned {
    struct learn_row rows[LEARN_ROWS];
    size_t n_rows;
    uint64_t serial;
};

/* A sample that makes no sense (not finite, a ratio beyond LEARN_RATIO_MAX or its inverse, negative bytes) is
 * refused: false. Samples come in the order of time. */
#define LEARN_RATIO_MAX 100.0
bool learn_add(struct plan_learned *l, const struct learn_sample *s);

/* The figure for a key; n = 0: nothing was learned. */
struct learn_figure {
    double value;  /* ratio, or bytes */
    double spread; /* half the range of the middle 90 % of the samples */
    uint32_t n;    /* samples it rests on */
};
struct learn_figure learn_lookup(const struct plan_learned *l, enum learn_kind kind,
                                 const struct learn_key *key, double size);

/* Puts what was learned into the machine: factors of speed, and overheads with their spread and count, of
 * every device and the host, for this model under this runtime ("" = any build). l NULL = nothing. */
void plan_machine_learn(struct plan_machine *machine, const struct plan_learned *l, const char *runtime,
                        const struct model *m, bool flash_attn);

/* The learned overhead of a server process, into the host's part of an estimate. */
static inline void plan_host_overhead(const struct plan_host *h, struct plan_estimate *e)
{
    struct plan_part *p = &e->parts[e->n_parts - 1];
    /* a learned overhead was measured with the rows of logits in it */
    p->overhead_bytes = h->overhead_bytes > p->output_bytes ? h->overhead_bytes : p->output_bytes;
    p->overhead_spread_bytes = h->taught.overhead_spread_bytes;
    p->overhead_loads = h->taught.overhead_loads;
}

/* ---- samples ---- */

/* What the runtime told of one request that ran alone on its instance. */
struct plan_timing {
    uint64_t prompt_tokens; /* computed, without those from the cache */
    uint64_t cached_tokens;
    double prompt_seconds;
    uint64_t decode_tokens;
    double decode_seconds;
};
/* At most two samples (prefill, decode), fewer when a part is too short to tell (LEARN_MIN_…) or no device
 * takes at least half of the predicted time. The machine is the one that the plan was made for, with the
 * factors of then. */
#define LEARN_MIN_PROMPT 32
#define LEARN_MIN_DECODE 8
size_t learn_from_request(const struct model *m, const struct plan_estimate *e,
                          const struct plan_machine *machine, const char *runtime,
                          const struct plan_timing *t, struct learn_sample ret_samples[2]);
/* The ratio of a load's seconds to the prediction (with the host's factor of then). */
bool learn_from_loading(const struct model *m, const struct plan_host *host, const char *runtime,
                        double predicted_s, double measured_s, struct learn_sample *ret_sample);
/* The sample of what a device was seen to hold: driver_bytes by the driver (or the kernel, for the host),
 * against the prediction without overhead. False when the figure cannot be this load's alone. */
bool learn_from_load(const struct model *m, const struct plan_estimate *e, size_t part,
                     const struct plan_machine *machine, const char *runtime, uint64_t driver_bytes,
                     struct learn_sample *ret_sample);

#endif
