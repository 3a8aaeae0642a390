/* Traits of a kind of device. Layer plan, internal. */
#ifndef PLAN_BACKEND_H
#define PLAN_BACKEND_H

#include "plan/graph.h"
#include "plan/plan.h"

struct backend_traits {
    const char *stem;
    enum plan_kind kind;
    uint32_t alignment;
    uint64_t max_chunk, max_tensor;
    bool (*refuses)(const struct graph *g, const struct gtensor *t);
    uint32_t offload_batch;
    bool reorders, pads_rows, halves_caches, pinned_host;
    uint64_t overhead_mib;
    double bandwidth_gbps, tflops, link_gbps;
};
const struct backend_traits *backend_traits(enum plan_backend b);
/* As the graph's memory sees it. */
struct graph_backend backend_graph(enum plan_backend b);
/* The host's compute buffer beside a first device of kind `first`, or alone (no_device). */
struct graph_backend backend_graph_host(bool no_device, enum plan_backend first);
/* Bytes that a weight takes in a buffer of weights: on a device of kind b, or on the host. */
uint64_t backend_stored_bytes(enum plan_backend b, const struct tensor *t);
uint64_t backend_host_bytes(uint32_t alignment, const struct tensor *t);

#endif
