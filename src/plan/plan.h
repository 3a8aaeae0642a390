/* The planner's values and entry points. Layer plan; pure: facts + machine + policy → plan, no I/O, no state,
 * any thread. The same code answers `arriero estimate`, `arriero plan`, the daemon and the tests.
 *
 *   memory.c  plan_estimate: exact bytes on every device for one set of parameters
 *   speed.c   plan_speed: tokens/s and load time for an estimate
 *   place.c   plan_place: the best parameters and devices for one model
 *   pack.c    plan_pack: the cheapest victims that make room
 *   room.c    plan_predict_memory and its inverse
 *   reasons.c texts */
#ifndef PLAN_PLAN_H
#define PLAN_PLAN_H

#include "base/err.h"
#include "base/json.h"
#include "gguf/model.h"

#define PLAN_MAX_DEVICES      16
#define PLAN_MAX_OVERRIDES    16
#define PLAN_MAX_REASONS      24
#define PLAN_MAX_REJECTED     8
#define PLAN_MAX_ALTERNATIVES 8 /* files of one model */
#define PLAN_MAX_RESIDENTS    64
#define PLAN_MAX_ADAPTERS     8
#define PLAN_MAX_DEVICE_BYTES (1ull << 50) /* a larger figure is a mistake */

enum plan_backend { PLAN_CUDA, PLAN_ROCM, PLAN_VULKAN, PLAN_SYCL, PLAN_METAL, PLAN_RPC };

/* What earlier loads and requests taught of a device (plan/learn.h); zeros = nothing. Factors multiply the
 * seconds that the speed model predicts for the device. */
struct plan_taught {
    double decode_factor, prefill_factor;     /* 0 = 1 */
    double load_factor;                       /* host only */
    uint32_t decode_samples, prefill_samples; /* requests they rest on */
    uint64_t overhead_spread_bytes;
    uint32_t overhead_loads; /* loads that overhead_bytes rests on; 0 = the backend's default */
};

struct plan_device {
    char name[24]; /* "CUDA0"; the backend follows from it (plan_device_named) */
    char uuid[96]; /* pinned by it in the child's environment; may be empty */
    enum plan_backend backend;
    uint64_t total_bytes, free_bytes;
    uint64_t overhead_bytes; /* what the runtime takes beside the three parts (context, workspace): learned or
                              * a default of the backend; 0 for RPC and Vulkan */
    double bandwidth_gbps;   /* 0 = unknown: a default of the backend */
    double tflops;           /* dense half precision; 0 = unknown */
    double link_gbps;        /* from the host's memory; 0 = a default of the backend */
    char model[96];          /* "NVIDIA GeForce RTX 4090"; what was learned is filed under it; may be empty */
    struct plan_taught taught;
    double power_w; /* its limit; 0 = unknown */
};

/* Sets name, backend, sizes and defaults from "NAME"; anything unknown counts as CUDA. */
void plan_device_named(struct plan_device *d, struct str name, uint64_t total_bytes, uint64_t free_bytes);
/* Is it called so, by its name or its UUID? */
bool plan_device_is(const struct plan_device *d, const char *wanted);

struct plan_host {
    uint64_t total_bytes, free_bytes; /* RAM that plans may use, after reserve and budget */
    unsigned cores;                   /* physical */
    double bandwidth_gbps;            /* of all cores together; 0 = default */
    double bandwidth_core_gbps;       /* that one core draws; 0 = default */
    double gflops_core;               /* single precision, one core; 0 = default */
    double gops_core;                 /* integer dot products, one core, 2 a product; 0 = default */
    double disk_gbps;                 /* 0 = default */
    double file_cached;               /* share of the model's file that is in the page cache, 0 … 1 */
    uint64_t overhead_bytes;          /* what a server process takes beside the three parts */
    char model[96];                   /* of the processor */
    struct plan_taught taught;
};

/* The machine as the planner sees it. */
struct plan_machine {
    struct plan_device devices[PLAN_MAX_DEVICES];
    size_t n_devices;
    struct plan_host host;
};

/* A machine out of hardware profiles ("rtx4090-laptop-16g,2x3090,desktop-64g"; src/hw/profiles), with what is
 * usually free. RC_INVALID names the profile that is wrong. */
enum rc plan_machine_profiles(struct str list, struct plan_machine *ret_machine, struct err *err);

enum plan_outputs { PLAN_OUTPUTS_SLOTS, PLAN_OUTPUTS_BATCH };
#define PLAN_ALL_LAYERS (-1)

/* Files that run beside the model. All are borrowed and must live as long as estimates are asked for with
 * parameters that name them; results keep the pointer: whoever keeps a result keeps them, or sets it NULL. */
struct plan_extras {
    const struct model *projector; /* for images or sound; NULL = none */
    bool projector_on_host;        /* --no-mmproj-offload; else on the first device */
    const struct model *adapters[PLAN_MAX_ADAPTERS];
    float adapter_scale[PLAN_MAX_ADAPTERS]; /* changes no bytes */
    uint32_t n_adapters;
    const struct model *draft; /* guesses tokens ahead; NULL = none */
    uint32_t draft_tokens;     /* guessed at once, at most; each slot keeps so many more rows of logits */
    uint32_t draft_least;      /* shorter guesses are not checked; changes no bytes */
    uint32_t draft_type_k, draft_type_v;
    int32_t draft_gpu_layers;
    const char *draft_device; /* name or UUID of the device that the draft has to itself; NULL = shared out as
                               * the model is. A placement without that device is refused; borrowed */
};
/* No files; llama-server's defaults for a draft: 3 tokens, caches in f16, all layers. */
void plan_extras_default(struct plan_extras *x);
/* Bytes of "FILE" or "FILE:SCALE" that are the file, whose scale is 1 where none is given. */
size_t plan_adapter_path(const char *word, float *ret_scale);

/* Every parameter that changes memory. plan_params_default() gives llama-server's defaults. */
struct plan_params {
    uint32_t ctx; /* total over the slots, as -c; 0 = trained context */
    uint32_t batch, ubatch;
    uint32_t parallel;
    bool kv_unified;
    bool flash_attn;
    uint32_t type_k, type_v; /* enum ggml_type */
    int32_t gpu_layers;      /* PLAN_ALL_LAYERS or a number; counts the output first */
    float tensor_split[PLAN_MAX_DEVICES];
    uint32_t n_tensor_split; /* 0 = by free memory */
    uint32_t n_cpu_moe;
    struct {
        char pattern[128];
        char buffer[24];
    } overrides[PLAN_MAX_OVERRIDES];
    uint32_t n_overrides;
    bool kv_offload, repack, swa_full, embedding, mmap;
    bool pool_last; /* embeddings are those of the last token where the file names no way of pooling */
    enum plan_outputs outputs;
    bool pins; /* what the runtime assigns to a device itself stays there, as in llama-server;
                * llama-fit-params forgets it and lets the scheduler choose (docs/memory-model.md) */
    unsigned
        host_isa; /* enum plan_isa bits of the host's processor: decides which weights are packed again */
    const struct plan_extras *extras; /* NULL = the model alone */
};
/* llama-server's defaults; host_isa is that of the processor this runs on. */
void plan_params_default(struct plan_params *p);

enum plan_isa { PLAN_AVX2 = 1, PLAN_AVX512 = 2, PLAN_NEON_DOTPROD = 4, PLAN_NEON_I8MM = 8 };
unsigned plan_isa_here(void);

enum plan_kind { PLAN_GPU, PLAN_HOST, PLAN_REMOTE };

struct plan_part { /* one device's share; bytes */
    char name[24];
    enum plan_kind kind; /* JSON "gpu", "host", "rpc" */
    uint64_t total_bytes, free_bytes;
    uint64_t model_bytes;   /* weights, repacked copies included */
    uint64_t context_bytes; /* KV cache and recurrent state */
    uint64_t compute_bytes;
    uint64_t overhead_bytes;
    uint64_t overhead_spread_bytes; /* of the loads that the overhead was learned from */
    uint32_t overhead_loads;        /* 0 = a default */
    uint64_t repack_bytes;          /* host only: part of model_bytes */
    /* of the figures above, what belongs to files beside the model (plan_extras) */
    uint64_t projector_bytes, adapter_bytes, draft_bytes;
    bool has_projector; /* its weights are here */
    /* host only */
    uint64_t output_bytes;     /* rows of logits and embeddings: part of overhead_bytes */
    uint64_t pinned_bytes;     /* in memory that the driver locks: part of compute_bytes and output_bytes */
    uint64_t checkpoint_bytes; /* one snapshot of one slot (sliding or recurrent layers) */
    /* in no sum, used only as conversations come; see plan_host_bounds */
    uint32_t checkpoints;        /* snapshots a slot, at most */
    uint64_t prompt_cache_bytes; /* prompts of idle slots, at most */
};

struct plan_estimate {
    struct plan_params params; /* resolved: contexts padded, splits filled, layers counted */
    struct plan_part parts[PLAN_MAX_DEVICES + 1]; /* the host is the last */
    size_t n_parts;
    uint32_t layers_gpu, layers_cpu; /* repeating layers plus the output as one */
};
static inline const struct plan_part *plan_host_part(const struct plan_estimate *e)
{
    return &e->parts[e->n_parts ? e->n_parts - 1 : 0];
}
static inline uint64_t plan_part_total(const struct plan_part *p)
{
    return p->model_bytes + p->context_bytes + p->compute_bytes + p->overhead_bytes;
}

/* llama-server keeps prompts of idle slots (--cache-ram) and snapshots of slots (--ctx-checkpoints) in RAM
 * that no estimate holds; by default up to 8 GiB and 32 snapshots a slot. Sets bounds on the host's part:
 * an eighth of left_bytes (RAM that the estimate leaves free) for at most 8 snapshots a slot, then an eighth
 * of the rest, up to 8 GiB, for prompts; nothing below 64 MiB. The launch passes these bounds. */
void plan_host_bounds(struct plan_estimate *e, uint64_t left_bytes);
/* RAM that may come to be used within those bounds. */
uint64_t plan_host_later_bytes(const struct plan_estimate *e);

/* Exact memory of `m` with `p` on `devices` (in llama.cpp's order; 0 = CPU only).
 * Errors: RC_UNSUPPORTED (unknown architecture), RC_INVALID (a combination llama.cpp refuses, a key missing).
 */
enum rc plan_estimate(const struct model *m, const struct plan_params *p, const struct plan_device *devices,
                      size_t n_devices, struct plan_estimate *ret_estimate, struct err *err);

/* Tokens a second of one conversation, decode at the depth that speed.c assumes in use. */
struct plan_speed {
    double prefill_tps, decode_tps, load_seconds;
    uint32_t decode_samples, prefill_samples; /* timed requests that they rest on; 0 = only the model */
};
void plan_speed(const struct model *m, const struct plan_estimate *e, const struct plan_machine *machine,
                struct plan_speed *ret_speed);
/* The share of the disk's bandwidth that a load of so many seconds takes, 0 to 1: the time of reading what is
 * not in the page cache, of all of it. */
double plan_disk_share(const struct model *m, const struct plan_host *host, double load_seconds);
/* Seconds of one request that runs alone: a prompt of `prompt` tokens behind `depth` cached ones, then
 * `tokens` written. Zeros when the estimate does not belong to the model. */
void plan_seconds(const struct model *m, const struct plan_estimate *e, const struct plan_machine *machine,
                  uint32_t depth, uint32_t prompt, uint32_t tokens, double *ret_prefill, double *ret_decode);

enum plan_strategy {
    PLAN_MAX_PERFORMANCE,
    PLAN_FIT_VRAM,
    PLAN_BALANCED,
    PLAN_POWER_EFFICIENT,
    PLAN_MAX_CONTEXT,
    PLAN_STRATEGIES
};
const char *plan_strategy_word(enum plan_strategy s);
/* "balanced", "fit-vram:8000" (sets *ret_limit_bytes) … */
bool plan_strategy_from(struct str word, enum plan_strategy *ret_strategy, uint64_t *ret_limit_bytes);

/* What is wanted. Zero fields mean "choose". */
struct plan_policy {
    enum plan_strategy strategy;
    uint64_t vram_limit_bytes; /* PLAN_FIT_VRAM, or a cap from the configuration; 0 = none */
    uint32_t ctx;              /* per conversation slot; 0 = choose (trained, shortened to what fits) */
    uint32_t ctx_min;          /* quality floor; 0 = 4096 or the trained context if that is less */
    uint32_t parallel;         /* 0 = 4 slots, unified */
    uint32_t batch, ubatch;    /* 0 = 2048, 512 */
    bool kv_type_fixed;        /* type_k/type_v are given; else f16, then q8_0, then q4_0 down to the floor */
    uint32_t type_k, type_v;
    uint32_t kv_floor;  /* lowest KV type allowed when choosing: GGML_Q4_0 by default */
    int32_t gpu_layers; /* used if gpu_layers_fixed */
    bool gpu_layers_fixed;
    bool allow_cpu; /* partial offload and CPU-only answers are allowed */
    bool embedding;
    uint32_t max_gpus;                  /* 0 = no limit */
    const char *device;                 /* name or UUID this model is pinned to; NULL = any */
    uint64_t margin_bytes;              /* kept free on every device; default 256 MiB */
    uint32_t ladder;                    /* steps down already taken after failed loads: 0, 1, 2 … */
    const struct model *const *smaller; /* files of the same model in smaller quantisations, largest first,
                                         * for when nothing else is left; borrowed */
    uint32_t n_smaller;
    double least_bpw; /* quality floor: none of them with fewer bits a weight; 0 = none */
    const struct plan_params
        *base; /* what the search keeps: flash attention, packing, window, embeddings, rows of
                * logits, unified cache; NULL = llama-server's defaults. Borrowed. */
};
void plan_policy_default(struct plan_policy *p);

struct plan_reason {
    const char *code; /* static: "single_gpu", "kv_q8_0", "ctx_shortened", "cpu_no_gpu" … */
    char text[224];   /* a sentence with its numbers */
};

#define PLAN_AS_ASKED (-1)
struct plan_alternative {
    enum plan_strategy strategy;
    bool fits;
    char text[200]; /* one line */
};

struct plan {
    bool fits;
    enum plan_strategy strategy;
    struct plan_estimate estimate;   /* params hold the arguments */
    uint32_t used[PLAN_MAX_DEVICES]; /* indices into machine.devices, in the estimate's order */
    uint32_t n_used;
    int32_t smaller; /* index into policy.smaller of the file to load; PLAN_AS_ASKED: the model itself */
    uint32_t threads, threads_batch; /* for the runtime: while writing, and while reading a prompt */
    struct plan_speed speed;
    struct plan_reason reasons[PLAN_MAX_REASONS];
    uint32_t n_reasons;
    struct plan_reason rejected[PLAN_MAX_REJECTED]; /* plan_rejected's */
    uint32_t n_rejected;
    struct plan_alternative alternatives[PLAN_STRATEGIES];
    uint32_t n_alternatives;
};

/* The best placement on what is free, over every set of devices (limits heeded), share of the layers, of the
 * experts (--n-cpu-moe), split, cache type down to the floor, context from ctx_min to the wish in steps of
 * 256, and micro-batch. A point fits if every device keeps its margin, RAM suffices and the limit is kept.
 *
 * Steps, the first that has a point: all layers on devices; the same with micro-batches of 128; a share of
 * the layers or experts on the host, or all on the host, at the wished (else a comfortable) context, at half
 * of it, … Within the first two, points with a comfortable context (given: the wish) come first, and are
 * compared by balanced, fit-vram  fewest devices, plainest cache, longest context, speed in steps of 4 %
 *   power-efficient     fewest devices, least watts (or smallest cards), then as above, up to 8192 tokens
 *   max-performance     plainest cache, speed, fewest devices, micro-batch up to 2048, longest context
 * and where none has, or for max-context, by longest context, plainest cache, fewest devices. Shares are
 * compared by tokens a second, where each smaller cache type must bring a tenth and each further device a
 * twentieth.
 *
 * RC_NO_FIT when nothing fits: ret_plan is then filled all the same, with fits = false and a reason for every
 * step that was tried; the message names the shortfall. */
enum rc plan_place(const struct model *m, const struct plan_policy *policy,
                   const struct plan_machine *machine, struct plan *ret_plan, struct err *err);
/* Fills plan->alternatives with every other strategy's answer. */
void plan_alternatives(const struct model *m, const struct plan_policy *policy,
                       const struct plan_machine *machine, struct plan *plan);

/* Fills plan->rejected: what else was possible and why it was not chosen, each estimated in its place. */
void plan_rejected(const struct model *m, const struct plan_policy *policy,
                   const struct plan_machine *machine, struct plan *plan);

/* ---- tokens and bytes (room.c); errors as plan_estimate's ---- */

struct plan_need { /* sums over all devices */
    uint32_t ctx;  /* as padded */
    uint64_t model_bytes, context_bytes, compute_bytes, overhead_bytes;
    uint64_t device_bytes, host_bytes; /* all four parts */
};
/* What a context of `tokens` takes, everything else as in params. */
enum rc plan_predict_memory(const struct model *m, const struct plan_params *params,
                            const struct plan_device *devices, size_t n_devices, uint32_t tokens,
                            struct plan_need *ret_need, struct err *err);
/* The longest context, in steps of 256 up to the trained one, that takes no more than available_bytes of all
 * devices together (of RAM when there are none); 0 when not even one step does. The inverse of the above. */
enum rc plan_suggest_context(const struct model *m, const struct plan_params *params,
                             const struct plan_device *devices, size_t n_devices, uint64_t available_bytes,
                             uint32_t *ret_ctx, struct err *err);
/* The longest context that the devices of a plan hold, placed as it is. */
enum rc plan_room_tokens(const struct model *m, const struct plan *plan, const struct plan_machine *machine,
                         uint64_t margin_bytes, uint32_t *ret_ctx, struct err *err);

enum plan_prune_kind {
    PLAN_PRUNE_NONE,
    PLAN_PRUNE_IDLE_SLOTS, /* erase what idle slots keep */
    PLAN_PRUNE_SHIFT,      /* drop the older half of the conversation */
    PLAN_PRUNE_KV_TYPE,    /* load again with a smaller cache type */
    PLAN_PRUNE_CONTEXT,    /* load again with a shorter context */
    PLAN_PRUNE_IMPOSSIBLE,
};
struct plan_kv_use {
    uint32_t tokens_used, idle_tokens; /* cells in use; of them by slots that do nothing */
    double threshold;                  /* share of the context from which room is made; 0 = 0.9 */
    uint64_t short_bytes;              /* memory that must be freed; 0 = none */
};
struct plan_prune {
    enum plan_prune_kind what;
    uint32_t ctx, kv_type; /* after it */
    uint64_t frees_bytes;
    uint32_t frees_tokens;
    bool restart; /* servers allocate their cache once: the model is loaded again */
    char text[200];
};
/* The mildest way to get the tokens or bytes that are short. */
enum rc plan_recommend_prune(const struct model *m, const struct plan_params *params,
                             const struct plan_device *devices, size_t n_devices,
                             const struct plan_kv_use *use, struct plan_prune *ret_prune, struct err *err);

/* An instance that could be evicted. */
struct plan_resident {
    const char *id;                          /* borrowed */
    uint64_t device_bytes[PLAN_MAX_DEVICES]; /* freed on each device of the machine */
    uint64_t host_bytes;
    uint64_t idle_ms;      /* since its last use */
    double wanted;         /* reuse_chance (plan/reuse.h); 0 = not known: told from idle_ms */
    double reload_seconds; /* what it costs to bring it back */
    int priority;          /* higher is dearer */
    bool evictable;        /* false: busy, loading, pinned */
};

struct plan_victims {
    uint32_t index[PLAN_MAX_RESIDENTS]; /* into residents, in the order to stop them */
    uint32_t n;
};

/* What stopping it costs: (10 s + the time to bring it back) × how soon it is wanted again × 4 for every step
 * of its priority. The 10 s stand for what a new start loses beside time: conversations are read again. */
double plan_resident_cost(const struct plan_resident *r);

/* Places the model, evicting the cheapest set of residents if it must. Without need, no victims. RC_NO_FIT if
 * even all evictable residents would not make room (the message says what blocks). */
enum rc plan_pack(const struct model *m, const struct plan_policy *policy, const struct plan_machine *machine,
                  const struct plan_resident *residents, size_t n_residents, struct plan *ret_plan,
                  struct plan_victims *ret_victims, struct err *err);

/* ---- rebalancing ---- */

struct plan_loaded { /* all borrowed */
    const struct model *m;
    const struct plan_policy *policy; /* without a ladder */
    const struct plan *plan;          /* as it runs; used points into the machine's devices */
    double use;                       /* weight of its tokens a second: the share of requests that are its */
    bool movable;                     /* idle, and not pinned */
};
struct plan_move {
    uint32_t index; /* into loaded */
    uint32_t used[PLAN_MAX_DEVICES], n_used, layers_gpu, n_cpu_moe;
    uint64_t bytes; /* on devices, after it */
    double reload_seconds, tps_before, tps_after;
};
struct plan_delta {
    struct plan_move moves[PLAN_MAX_RESIDENTS];
    uint32_t n_moves;              /* 0: nothing would be better enough */
    double cost_seconds, gain_tps; /* gain weighed by use */
    uint64_t moved_bytes;
    int64_t freed_bytes; /* device memory; negative: more is taken */
};
/* Which loaded models should be loaded again elsewhere, with what it costs and gains. machine: as it is, with
 * all of them loaded. */
void plan_rebalance(const struct plan_machine *machine, const struct plan_loaded *loaded, size_t n,
                    struct plan_delta *ret_delta);

/* JSON of the contract in docs (estimate --json and plan --json). machine_devices may be NULL. */
yyjson_mut_val *plan_estimate_json(yyjson_mut_doc *doc, const struct model *m, const struct plan_estimate *e);
yyjson_mut_val *plan_json(yyjson_mut_doc *doc, const struct model *m, const struct plan *p);

#endif
