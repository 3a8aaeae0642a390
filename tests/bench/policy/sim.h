/* A machine under a policy of eviction: models come and go as a stream of requests wants them. Tests only.
 *
 * All policies share everything but the choice of victims: the planner says whether and where a model fits
 * (wholly on GPUs), how long loading and answering take. A model loads when a request for it waits and there
 * is room, or there would be if idle instances left; busy and loading ones never leave. Stopping takes no
 * time. An instance answers four requests at once. */
#ifndef BENCH_SIM_H
#define BENCH_SIM_H

#include "mix.h"
#include "plan/plan.h"

enum sim_policy { SIM_OURS, SIM_LRU, SIM_LFU, SIM_KEEPALIVE, SIM_BELADY, SIM_POLICIES };
const char *sim_policy_word(enum sim_policy p); /* as in the JSON */

struct sim_result {
    uint32_t cold_starts; /* loads */
    uint64_t bytes_loaded;
    double waited_s;   /* seconds that requests waited for models, in all */
    double waited_p99; /* of one request */
    uint32_t waiting;  /* requests that had to */
};

/* Exits on what cannot be (a model that does not fit the empty machine). */
void sim_run(enum sim_policy policy, struct model *const *models, const struct plan_machine *machine,
             const struct stream *mix, struct sim_result *ret);

/* No policy needs fewer loads, or loads fewer bytes: a relaxation. A request finds its model only if the
 * model stayed since the one before, which takes its bytes for that long; of all such stays those of the best
 * worth are taken whole or in part until the machine's bytes times the length of the stream are used up
 * (PFOO-L: Berger, Beckmann, Harchol-Balter, "Practical Bounds on Optimal Caching with Variable Object
 * Sizes", 2018). bytes: of each model on GPUs at least. */
void sim_bound(const uint64_t *bytes, const uint64_t *file_bytes, uint64_t machine_bytes,
               const struct stream *mix, struct sim_result *ret);

#endif
