/* The host's memory beside weights, cache and graph: rows of logits, and what llama-server keeps of earlier
 * prompts. Layer plan; pure. Sources: llama.cpp's server options (--cache-ram, --ctx-checkpoints) and the
 * buffer sizes it logs. */
#include "plan/layout.h"

#define MAX_CACHE_BYTES (8192 * MIB) /* the server's own default */
#define MIN_CACHE_BYTES (64 * MIB)   /* less holds no conversation worth keeping */
#define MAX_CHECKPOINTS 8u           /* a slot; the server's default of 32 can be tens of gigabytes */

void host_parts(const struct layout *l, struct plan_part *host)
{
    uint64_t row = (uint64_t)l->f->n_vocab + (l->p->embedding ? l->f->n_embd : 0);
    host->output_bytes = row * sizeof(float) * l->n_outputs;
    host->overhead_bytes += host->output_bytes;
    host->checkpoint_bytes = l->checkpoint_bytes;
    if (l->n_devices && backend_traits(l->devices[0].backend)->pinned_host)
        host->pinned_bytes = host->compute_bytes + host->output_bytes;
}

void plan_host_bounds(struct plan_estimate *e, uint64_t left_bytes)
{
    struct plan_part *host = &e->parts[e->n_parts - 1];
    uint64_t each = host->checkpoint_bytes * (e->params.parallel ? e->params.parallel : 1);
    uint64_t share = left_bytes / 8, n = each ? share / each : 0;
    host->checkpoints = n < MAX_CHECKPOINTS ? (uint32_t)n : MAX_CHECKPOINTS;
    uint64_t cache = (left_bytes - host->checkpoints * each) / 8 / MIB * MIB;
    host->prompt_cache_bytes = e->params.embedding || cache < MIN_CACHE_BYTES ? 0
                               : cache < MAX_CACHE_BYTES                      ? cache
                                                                              : MAX_CACHE_BYTES;
}

uint64_t plan_host_later_bytes(const struct plan_estimate *e)
{
    const struct plan_part *host = &e->parts[e->n_parts - 1];
    return host->prompt_cache_bytes + host->checkpoint_bytes * host->checkpoints * e->params.parallel;
}
