/* The questions: every shape combined with the rows of cases.def. Deterministic: the free values of a row are
 * drawn by a hash of the shape's and the row's names. Tests only. */
#ifndef ORACLE_CASE_H
#define ORACLE_CASE_H

#include "shape.h"

#include "plan/plan.h"

#define CASE_DEVICES 3

/* Which shapes a row is for. */
enum case_for {
    FOR_ALL,
    FOR_CAUSAL, /* has a cache or a state */
    FOR_EXPERTS,
    FOR_WINDOW,
    FOR_ENCODER,
    FOR_ONE, /* the row's `shape` only */
};

struct case_row {
    const char *name;
    enum case_for for_what;
    const char *shape;
    unsigned every;  /* one shape in so many; 0 and 1 = each */
    unsigned rpc;    /* number of RPC devices */
    unsigned vulkan; /* … or of Vulkan devices */
    uint32_t ctx;    /* 0 = drawn */
    uint32_t ubatch; /* 0 = drawn when vary_ubatch, else 512 */
    bool vary_ubatch;
    uint32_t batch; /* 0 = 2048 */
    bool flash_off, no_kv_offload, repack, swa_full, embedding, slots /* logits of one row a slot */, unified;
    bool pins;     /* operations stay where the runtime assigns them, as in llama-server; with slots */
    bool quant_kv; /* both cache types are drawn from the quantised ones */
    const char *type_k, *type_v;
    uint32_t parallel; /* 0 = 1 */
    int layers;        /* LAYERS_… or a number */
    float split[CASE_DEVICES];
    int cpu_moe; /* 0, EXPERTS_SOME, EXPERTS_ALL */
    const char *override;
    bool refused; /* llama.cpp refuses it by design */
};
enum { LAYERS_ALL = -1, LAYERS_SOME = -2 };
enum { EXPERTS_SOME = 1, EXPERTS_ALL = 2 };

struct oracle_case {
    char id[96];  /* shape.row */
    uint32_t key; /* of everything that is asked: changes with any argument */
    const struct shape *shape;
    const struct case_row *row;
    struct plan_params params;
    struct plan_device devices[CASE_DEVICES];
    size_t n_devices;
};

/* All cases in order; the array is the caller's (free). */
struct oracle_case *cases_make(size_t *ret_n);
/* The arguments after the model for `arriero estimate` and for llama-fit-params (RPC endpoints as {rpc0}…).
 * Each appends to out. */
void case_estimate_args(const struct oracle_case *c, struct buf *out);
void case_oracle_args(const struct oracle_case *c, struct buf *out);
/* What the hook is told (NAME=VALUE words): sizes of the devices, logits, unified cache, embeddings. */
void case_oracle_env(const struct oracle_case *c, struct buf *out);

#endif
