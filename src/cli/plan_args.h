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
    bool kv_unified, no_kv_unified, flash_attn, kv_offload, repack, swa_full, embedding, batch_outputs,
        outputs_given;
    uint32_t type_k, type_v;
    bool type_given;
    int32_t gpu_layers;
    bool gpu_layers_given;
    float split[PLAN_MAX_DEVICES];
    uint32_t n_split;
    uint32_t n_cpu_moe;
    struct cli_list overrides, devices;
    const char *hw; /* profiles of an imagined machine; NULL = none given */
    /* files beside the model */
    const char *mmproj, *draft; /* NULL = none given */
    bool no_mmproj, mmproj_offload;
    struct cli_list loras, scaled_loras;
    uint32_t draft_tokens, draft_least; /* 0 = the default */
    const char *draft_device;           /* NULL = those of the model */
    uint32_t draft_type_k, draft_type_v;
    int32_t draft_gpu_layers;
    /* the search */
    bool fit;
    uint64_t margin_bytes, host_bytes;
    uint32_t min_ctx;
    bool margin_given;
};

void plan_args_defaults(struct plan_args *a);
enum rc plan_args_params(const struct plan_args *a, struct plan_params *ret_params, struct err *err);
/* The machine that --device or --hw imagine; with neither no devices and an empty host. RC_INVALID: both, or
 * one of them is wrong. --device does not touch the host. */
enum rc plan_args_machine(const struct plan_args *a, struct plan_machine *m, struct err *err);
/* MODEL is a file, or an id of the catalog. ret_model is a reference for the caller. */
enum rc plan_args_model(const struct cli_call *call, const char *word, struct model **ret_model,
                        struct err *err);
/* The files that the options name, opened. */
struct plan_files {
    struct model *projector, *draft; /* NULL = none; owned */
    struct model *adapters[PLAN_MAX_ADAPTERS];
    uint32_t n_adapters;
    struct plan_extras extras; /* borrows them */
};
/* paired: the projector to take when the options name none, or NULL. Sets params->extras, which points into
 * ret_files, if there is any file. Release ret_files after success. */
enum rc plan_files_open(const struct plan_args *a, const char *paired, struct plan_files *ret_files,
                        struct plan_params *params, struct err *err);
void plan_files_release(struct plan_files *f);
/* The projector that lies beside the model, as the catalog pairs them; malloc'd, NULL = none. */
char *plan_files_paired(const struct model *m);
/* Parsers for the option tables; field is the struct plan_args itself (offset 0). */
enum rc plan_parse_type_k(struct str value, void *field, struct err *err);
enum rc plan_parse_type_v(struct str value, void *field, struct err *err);
enum rc plan_parse_split(struct str value, void *field, struct err *err);
enum rc plan_parse_layers(struct str value, void *field, struct err *err);
enum rc plan_parse_draft_type_k(struct str value, void *field, struct err *err);
enum rc plan_parse_draft_type_v(struct str value, void *field, struct err *err);
enum rc plan_parse_draft_layers(struct str value, void *field, struct err *err);
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
    PLAN_ARG("ctx", CLI_TOKENS, ctx, "N", "context in tokens; without it the trained one"),                  \
        PLAN_ARG("batch", CLI_TOKENS, batch, "N", "tokens of a batch (2048)"),                               \
        PLAN_ARG("ubatch", CLI_TOKENS, ubatch, "N", "tokens computed at once (512)"),                        \
        PLAN_ARG("parallel", CLI_U32, parallel, "N",                                                         \
                 "slots; without it 4 over one unified cache, as llama-server"),                             \
        PLAN_ARG_PARSED("cache-type-k", "TYPE", "type of the K cache: f16, q8_0, q4_0 …",                    \
                        plan_parse_type_k),                                                                  \
        PLAN_ARG_PARSED("cache-type-v", "TYPE", "type of the V cache", plan_parse_type_v),                   \
        PLAN_ARG_PARSED("gpu-layers", "N|all", "layers on the GPUs, the output counted first",               \
                        plan_parse_layers),                                                                  \
        PLAN_ARG("mmproj", CLI_STR, mmproj, "FILE", "a projector for images or sound"),                      \
        PLAN_ARG("no-mmproj-offload", CLI_NO_FLAG, mmproj_offload, NULL, "keep the projector in RAM"),       \
        PLAN_ARG("lora", CLI_LIST, loras, "FILE", "an adapter; may be repeated"),                            \
        PLAN_ARG("lora-scaled", CLI_LIST, scaled_loras, "FILE:SCALE", "an adapter with a scale"),            \
        PLAN_ARG("model-draft", CLI_STR, draft, "FILE", "a draft model that guesses tokens ahead"),          \
        PLAN_ARG("draft-max", CLI_U32, draft_tokens, "N", "tokens the draft guesses at once (3)"),           \
        PLAN_ARG("draft-min", CLI_U32, draft_least, "N",                                                     \
                 "shorter guesses of the draft are not checked (0)"),                                        \
        PLAN_ARG("device-draft", CLI_STR, draft_device, "NAME",                                              \
                 "the device that the draft has to itself; without it as the model's"),                      \
        PLAN_ARG_PARSED("gpu-layers-draft", "N|all", "layers of the draft on the GPUs (all)",                \
                        plan_parse_draft_layers),                                                            \
        PLAN_ARG_PARSED("cache-type-k-draft", "TYPE", "type of the draft's K cache (f16)",                   \
                        plan_parse_draft_type_k),                                                            \
        PLAN_ARG_PARSED("cache-type-v-draft", "TYPE", "type of the draft's V cache (f16)",                   \
                        plan_parse_draft_type_v),                                                            \
        PLAN_ARG("hw", CLI_STR, hw, "PROFILE,…",                                                             \
                 "a machine of these profiles (2x3090,desktop-64g); all: arriero gpus --profiles"),          \
    {                                                                                                        \
        "device", 0, CLI_LIST, offsetof(struct plan_args, devices), "NAME:TOTAL_MIB[:FREE_MIB]",             \
            "a device of an imagined machine (CUDA0, ROCm0, Vulkan0, RPC0 …); may be repeated", NULL         \
    }

#endif
