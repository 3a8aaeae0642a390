/* Options shared by `estimate` and `plan`: parameters of a run and devices of an imagined machine. Layer cli;
 * main thread. */
#ifndef CLI_PLAN_ARGS_H
#define CLI_PLAN_ARGS_H

#include "cli/cli_priv.h"

#include "gguf/catalog.h"
#include "plan/plan.h"

#include <stddef.h>

struct plan_args {
    uint32_t ctx, batch, ubatch, parallel; /* 0 = not given */
    bool kv_unified, no_kv_unified, flash_attn, kv_offload, repack, swa_full, embedding, batch_outputs;
    uint32_t type_k, type_v;
    bool type_given;
    int32_t gpu_layers;
    bool gpu_layers_given;
    float split[PLAN_MAX_DEVICES];
    uint32_t n_split;
    uint32_t n_cpu_moe;
    struct cli_list overrides, devices;
    /* the search */
    bool fit;
    uint64_t margin_bytes, host_bytes;
    uint32_t min_ctx;
    bool margin_given;
};

void plan_args_defaults(struct plan_args *a);
enum rc plan_args_params(const struct plan_args *a, struct plan_params *ret_params, struct err *err);
/* "NAME:TOTAL_MIB[:FREE_MIB]" for each --device. */
enum rc plan_args_devices(const struct plan_args *a, struct plan_device *ret_devices, size_t *ret_n,
                          struct err *err);
/* MODEL is a file, or an id of the catalog. ret_model is a reference for the caller. */
enum rc plan_args_model(const char *word, struct model **ret_model, struct err *err);
/* Parsers for the option tables; field is the struct plan_args itself (offset 0). */
enum rc plan_parse_type_k(struct str value, void *field, struct err *err);
enum rc plan_parse_type_v(struct str value, void *field, struct err *err);
enum rc plan_parse_split(struct str value, void *field, struct err *err);
enum rc plan_parse_layers(struct str value, void *field, struct err *err);
enum rc plan_parse_outputs(struct str value, void *field, struct err *err);
enum rc plan_parse_margin(struct str value, void *field, struct err *err);
/* The table of devices with their parts. */
void plan_print_parts(const struct plan_estimate *e);

/* The rows that both commands have; `base` is the offset of struct plan_args in the command's options. */
#define PLAN_ARG(name, type, member, metavar, help)                                                          \
    {                                                                                                        \
        name, 0, type, offsetof(struct plan_args, member), metavar, help, NULL                               \
    }
#define PLAN_ARG_PARSED(name, metavar, help, parser)                                                         \
    {                                                                                                        \
        name, 0, CLI_CUSTOM, 0, metavar, help, parser                                                        \
    }
#define PLAN_ARGS_COMMON                                                                                     \
    PLAN_ARG("ctx", CLI_U32, ctx, "N", "context in tokens; without it the trained one"),                     \
        PLAN_ARG("batch", CLI_U32, batch, "N", "tokens of a batch (2048)"),                                  \
        PLAN_ARG("ubatch", CLI_U32, ubatch, "N", "tokens computed at once (512)"),                           \
        PLAN_ARG("parallel", CLI_U32, parallel, "N",                                                         \
                 "slots; without it 4 over one unified cache, as llama-server"),                             \
        PLAN_ARG_PARSED("cache-type-k", "TYPE", "type of the K cache: f16, q8_0, q4_0 …",                    \
                        plan_parse_type_k),                                                                  \
        PLAN_ARG_PARSED("cache-type-v", "TYPE", "type of the V cache", plan_parse_type_v),                   \
        PLAN_ARG_PARSED("gpu-layers", "N|all", "layers on the GPUs, the output counted first",               \
                        plan_parse_layers),                                                                  \
    {                                                                                                        \
        "device", 0, CLI_LIST, offsetof(struct plan_args, devices), "NAME:TOTAL_MIB[:FREE_MIB]",             \
            "a device of an imagined machine (CUDA0, ROCm0, Vulkan0, RPC0 …); may be repeated", NULL         \
    }

#endif
