/* Births and deaths of memory in the order of execution, cut into segments at the layers' ends. Which tensor
 * lives how long, and which takes over whose memory, follows from the graph alone; only where it lies does
 * not. So a layer's segment can be replayed again and again (walk.c). Layer plan, internal; pure. */
#ifndef PLAN_TRACE_H
#define PLAN_TRACE_H

#include "plan/pool.h"

struct graph;
struct graph_backend;

#define TRACE_NEVER INT32_MAX

/* The memory of a tensor and of those that take it over. */
struct trace_cell {
    uint64_t bytes;
    struct pool_place at; /* walk.c's */
    int32_t born, died;   /* segments; TRACE_NEVER */
    int32_t buffer;
    int32_t tensor;  /* that it was made for */
    int32_t read;    /* segment that read it last */
    int32_t first;   /* … of a copy: first */
    int32_t copy_of; /* cell of what it is a copy of; -1 = none, or it has none */
    bool copied;
    bool lasting; /* an input, or a copy of something that all layers share: of no layer alone */
};

struct trace_read {
    int32_t cell, segment;
};

struct trace_use { /* of a tensor */
    int32_t children, views;
    int32_t cell; /* -1 = none (any more) */
};

struct trace {
    struct trace_use *uses;
    int32_t cap_uses;
    struct trace_cell *cells; /* by birth */
    int32_t n_cells, cap_cells;
    int32_t *events; /* cell i: it is born; ~i: it dies */
    int32_t n_events, cap_events;
    struct trace_read *reads; /* by segments other than the cell's first, each once */
    int32_t n_reads, cap_reads;
    int32_t *ends; /* of each segment, in events; the last one is what comes after the last layer */
    int32_t n_segments, cap_ends;
};

/* Does it belong to more than its layer and the next one? */
static inline bool trace_lasts(const struct trace *t, const struct trace_cell *c)
{
    for (;; c = &t->cells[c->copy_of]) {
        if (c->lasting || (c->died != c->born && c->died != c->born + 1))
            return true;
        if (c->copy_of < 0)
            return false;
    }
}

/* Of a scheduled graph; notes its questions there. Cannot fail. */
void trace_make(struct trace *t, struct graph *g, const struct graph_backend *backends);
/* Bytes of a cell for tensor `id`, or for a copy of it, in the backend's buffer. */
uint64_t trace_bytes(const struct graph *g, const struct graph_backend *b, int32_t id, bool copy);
void trace_release(struct trace *t);

#endif
