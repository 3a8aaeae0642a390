/* The compute graph as the memory model sees it: tensors with shapes, sources and views, in the order in
 * which the runtime will run them; then where the scheduler puts every node, and how much memory the graph
 * allocator needs. Layer plan, internal; pure; a struct graph belongs to one estimate at a time and keeps its
 * memory between estimates.
 *
 *   graph.c    making tensors, ordering them
 *   sched.c    backend of every node, splits, copies of inputs between backends
 *   reorder.c  the order a Vulkan device prefers within a split
 *   trace.c    which tensor lives how long
 *   pool.c     best-fit placement in one buffer
 *   walk.c     bytes of each buffer, over layers that stand for others
 *   record.c   the trace of one graph for the next one alike
 *
 * Sources: ggml's public behaviour (ggml.h, ggml-alloc.h, ggml-backend.h), checked against llama-fit-params.
 * A tensor is named by its index; -1 is "none". */
#ifndef PLAN_GRAPH_H
#define PLAN_GRAPH_H

#include "base/mem.h"
#include "gguf/model.h"
#include "plan/walk.h"

enum graph_op {
#define GRAPH_OP(name, inplace, view) OP_##name,
#include "plan/ops.def"
#undef GRAPH_OP
    OP_COUNT
};

enum graph_flag {
    GF_INPUT = 1,  /* filled from outside before each run */
    GF_OUTPUT = 2, /* read from outside after each run: never freed, never overwritten */
    GF_VISITED = 4,
    GF_WEIGHT = 8,  /* lies in a buffer of weights: operations go where their weights are */
    GF_HOST = 16,   /* lies in plain host memory, which devices may copy from */
    GF_MARK = 32,   /* ends a layer */
    GF_SHARED = 64, /* a weight of several layers */
    GF_EXACT = 128, /* a product whose second source must not be rounded to half precision */
};

#define GRAPH_MAX_MARKS    512
#define GRAPH_MAX_SRC      8
#define GRAPH_MAX_BACKENDS 17 /* the devices and the host */
#define GRAPH_MAX_COPIES   4

struct gtensor {
    uint64_t ne[4], nb[4]; /* elements, strides in bytes */
    uint64_t bytes;        /* from the first to the last byte */
    uint64_t view_offs;
    int32_t copy_of;   /* made by the scheduler, of this tensor */
    int32_t copy_head; /* copies of this tensor on other backends, chained by copy_next */
    int32_t copy_next;
    int32_t weight; /* of a model's weight its number + 1, else 0 */
    /* from here on what graph_alike compares */
    int32_t src[GRAPH_MAX_SRC]; /* ends with -1 when shorter */
    int32_t view_src;           /* root whose memory this is */
    uint8_t op, type, flags;
    int8_t buf;     /* backend in whose buffer it lies already; -1: the graph allocator places it */
    int8_t backend; /* where it is computed; -1 not known yet */
};

/* Questions about sizes that the scheduler and the trace depend on. All else follows from what reads what, so
 * a graph alike with the same answers has the same order and the same trace (record.h). */
enum graph_question {
    ASKED_LAYOUT, /* have tensors a and b one layout? */
    ASKED_KERNEL, /* has backend b a kernel for a? */
    ASKED_ROWS    /* has a as many rows as backend b takes over products from? */
};
struct graph_asked {
    int32_t a, b;
    uint8_t question;
    bool yes;
};

struct graph_node {
    int32_t tensor;
    int8_t backend;
};

struct graph;
/* One backend's buffer, as far as sizes depend on it. */
struct graph_backend {
    uint32_t alignment;
    uint64_t max_chunk;     /* largest single allocation; UINT64_MAX = no limit */
    uint32_t offload_batch; /* takes over products with host weights from so many rows on; 0 = never */
    bool reorders;          /* reorder.c */
    bool pads_rows;         /* quantised rows are padded to 512 elements (CUDA, ROCm) */
    bool halves_caches; /* flash attention copies caches of other types in half precision beside its result */
    uint64_t max_tensor; /* operations on larger tensors are refused */
    bool (*refuses)(const struct graph *g,
                    const struct gtensor *t); /* operations it has no kernel for; may be NULL */
};

struct graph {
    struct gtensor *t;
    int32_t n_t, cap_t;
    int32_t *nodes; /* order of execution */
    int32_t n_nodes, cap_nodes;
    int32_t *leafs;
    int32_t n_leafs, cap_leafs;
    /* made by graph_schedule */
    struct graph_node *order;
    int32_t n_order, cap_order;
    struct graph_node *first; /* leafs in the order of their allocation */
    int32_t n_first, cap_first;
    int32_t n_splits;
    int32_t n_built; /* tensors before those that the scheduler added */
    struct graph_asked *asked;
    int32_t n_asked, cap_asked;
    struct trace trace;
    struct walk walk;
    int32_t *scratch; /* reorder.c's */
    int32_t cap_scratch;
    bool refused;      /* some device was asked for an operation that it has no kernel for */
    bool lacks_tensor; /* failed, because the model has no such tensor */
    bool failed;       /* memory ran out or a bound was passed: the result is void */
};

void graph_reset(struct graph *g); /* keeps the memory */
void graph_release(struct graph *g);

/* Every function that makes a tensor returns its index; on failure 0 and g->failed. */
int32_t graph_new(struct graph *g, enum graph_op op, uint32_t type, uint64_t ne0, uint64_t ne1, uint64_t ne2,
                  uint64_t ne3);
int32_t graph_input(struct graph *g, uint32_t type, uint64_t ne0, uint64_t ne1, uint64_t ne2, uint64_t ne3);
/* A tensor that lies in a buffer of `buf` already. */
int32_t graph_stored(struct graph *g, uint32_t type, const uint64_t ne[4], int buf, unsigned flags);
int32_t graph_unary(struct graph *g, enum graph_op op, int32_t a); /* shape of a */
int32_t graph_binary(struct graph *g, enum graph_op op, int32_t a, int32_t b);
int32_t graph_reshape(struct graph *g, int32_t a, uint64_t ne0, uint64_t ne1, uint64_t ne2, uint64_t ne3);
/* Strides of dimensions 1…3 in bytes. */
int32_t graph_view(struct graph *g, int32_t a, uint64_t ne0, uint64_t ne1, uint64_t ne2, uint64_t ne3,
                   uint64_t nb1, uint64_t nb2, uint64_t nb3, uint64_t offset);
int32_t graph_permute(struct graph *g, int32_t a, int a0, int a1, int a2, int a3);
int32_t graph_transpose(struct graph *g, int32_t a);
int32_t graph_mul_mat(struct graph *g, int32_t a, int32_t b);
int32_t graph_mul_mat_id(struct graph *g, int32_t a, int32_t b, int32_t ids);
int32_t graph_get_rows(struct graph *g, int32_t a, int32_t rows);
int32_t graph_set_rows(struct graph *g, int32_t dst, int32_t values, int32_t rows);
int32_t graph_cpy(struct graph *g, int32_t from, int32_t to);
void graph_src(struct graph *g, int32_t t, int32_t src); /* appends a source */
/* Appends t and what it needs to the order of execution, sources first, left to right. */
void graph_expand(struct graph *g, int32_t t);

/* Do both, as they were built, consist of the same operations on the same tensors but for their sizes? */
bool graph_alike(const struct graph *a, const struct graph *b);
/* Answers a question about sizes; graph_ask also notes it. */
bool graph_answer(const struct graph *g, const struct graph_backend *backends, enum graph_question question,
                  int32_t a, int32_t b);
bool graph_ask(struct graph *g, const struct graph_backend *backends, enum graph_question question, int32_t a,
               int32_t b);
/* Splits the graph over the backends (the last one is the host). */
void graph_schedule(struct graph *g, const struct graph_backend *backends, int n_backends, int n_copies);
/* The nodes [from, to) in the order a reordering device runs them, into g->scratch; returns how many (a few
 * are added). */
int32_t graph_reorder(struct graph *g, int32_t from, int32_t to);
/* Bytes of each backend's compute buffer. layers: NULL if the graph has no layers or all of them. */
enum walk_result graph_measure(struct graph *g, const struct graph_backend *backends, int n_backends,
                               const struct walk_layers *layers, uint64_t *ret_bytes);

bool graph_op_inplace(uint8_t op);
static inline bool graph_op_view(uint8_t op)
{
    return op >= OP_VIEW && op <= OP_TRANSPOSE;
}

#endif
