/* How much memory a scheduled graph needs: the births and deaths of its trace, replayed on the free blocks of
 * every buffer. Layer plan, internal; pure.
 *
 * Of a long model only some layers are built (repeat.h), and each stands for others like it. A layer's
 * segment begins in a state, which is all free blocks and the places of what the layer before handed on, and
 * it ends in one. The same segment in the same state ends in the same state and needs no room that was not
 * needed before: so every pair is replayed once, and the walk over all layers is a walk over known states.
 * Equality is that of the whole state, not of a hash. */
#ifndef PLAN_WALK_H
#define PLAN_WALK_H

#include "plan/trace.h"

struct walk_state {
    size_t words, n_words; /* its numbers: place in walk.words, how many */
};

struct walk { /* memory kept between estimates */
    struct pool pools[17];
    struct walk_state *states;
    size_t n_states, cap_states;
    uint64_t *words;
    size_t n_words, cap_words;
    int16_t *next; /* [state][segment]: where it leads, -1 = not replayed yet */
    size_t cap_next;
};
void walk_release(struct walk *w);

/* Which segments stand for which layers. */
struct walk_layers {
    const uint16_t *segment; /* [n]: of each layer in turn */
    uint32_t n;
    const int8_t *confined; /* [n_segments]: the only buffer that it may use, -1 = all */
    uint32_t n_segments;
};

enum walk_result {
    WALK_DONE,
    WALK_FAILED,   /* the planner's bounds are passed */
    WALK_UNSETTLED /* a segment cannot stand for all of its layers */
};
/* layers: NULL = the trace as it is. ret_bytes: of each of the n backends' buffers. */
enum walk_result walk_run(struct walk *w, struct trace *t, const struct graph_backend *backends, int n,
                          const struct walk_layers *layers, uint64_t *ret_bytes);

#endif
