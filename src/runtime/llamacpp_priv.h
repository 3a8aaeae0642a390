/* Shared by the files of the llama.cpp adapter. Layer runtime. */
#ifndef RUNTIME_LLAMACPP_PRIV_H
#define RUNTIME_LLAMACPP_PRIV_H

#include "runtime/runtime.h"

/* What a build's --help offers: bit, the text looked for (as a whole word). Options changed between builds,
 * so nothing is passed that the binary does not name. */
#define LLAMACPP_OPTIONS(X)                                                                                  \
    X(FIT, "--fit")                                                                                          \
    X(DEVICE, "--device")                                                                                    \
    X(KV_UNIFIED, "--kv-unified")                                                                            \
    X(NO_KV_UNIFIED, "--no-kv-unified")                                                                      \
    X(FLASH_VALUE, "[on|off|auto]")                                                                          \
    X(GPU_LAYERS_ALL, "'all'")                                                                               \
    X(NO_WEBUI, "--no-webui")                                                                                \
    X(NO_UI, "--no-ui")                                                                                      \
    X(METRICS, "--metrics")                                                                                  \
    X(SLOTS, "--slots")                                                                                      \
    X(JINJA, "--jinja")                                                                                      \
    X(OFFLINE, "--offline")                                                                                  \
    X(CACHE_RAM, "--cache-ram")                                                                              \
    X(CHECKPOINTS, "--ctx-checkpoints")                                                                      \
    X(N_CPU_MOE, "--n-cpu-moe")                                                                              \
    X(OVERRIDE_TENSOR, "--override-tensor")                                                                  \
    X(NO_REPACK, "--no-repack")                                                                              \
    X(SWA_FULL, "--swa-full")                                                                                \
    X(LOAD_MODE, "--load-mode")                                                                              \
    X(NO_MMAP, "--no-mmap")                                                                                  \
    X(EMBEDDING, "--embedding")                                                                              \
    X(POOLING, "--pooling")                                                                                  \
    X(EMBEDDINGS, "--embeddings")                                                                            \
    X(VERBOSITY_TRACE, "- 4: trace")                                                                         \
    X(API_KEY_FILE, "--api-key-file")                                                                        \
    X(SLOT_SAVE, "--slot-save-path")                                                                         \
    X(NO_CACHE_IDLE_SLOTS, "--no-cache-idle-slots")                                                          \
    X(RPC, "--rpc")                                                                                          \
    X(MMPROJ_DEVICE, "--mmproj-device")                                                                      \
    X(NO_MMPROJ_OFFLOAD, "--no-mmproj-offload")                                                              \
    X(SPEC_TYPE, "--spec-type")                                                                              \
    X(SPEC_N_MAX, "--spec-draft-n-max")                                                                      \
    X(SPEC_N_MIN, "--spec-draft-n-min")                                                                      \
    X(DEVICE_DRAFT, "--device-draft")                                                                        \
    X(THREADS_BATCH, "--threads-batch")

enum llamacpp_bit {
#define X(name, text) LLC_BIT_##name,
    LLAMACPP_OPTIONS(X)
#undef X
};
enum llamacpp_flag {
#define X(name, text) LLC_##name = 1ull << LLC_BIT_##name,
    LLAMACPP_OPTIONS(X)
#undef X
};

#define LLAMACPP_ENV_MAX 4096
/* The environment of a llama-server, whether it is to serve or only asked what it can do. cuda:
 * "CUDA_VISIBLE_DEVICES=…", or NULL to hand ours down. False when there are more variables than cap. */
bool llamacpp_env(const char *cuda, const char **out, size_t cap);

enum rc llamacpp_probe(const char *binary, struct runtime_caps *ret_caps, struct err *err);
/* Pure parts of the probe, for tests. */
uint64_t llamacpp_flags(struct str help);
void llamacpp_version(struct str text, struct runtime_caps *caps);
void llamacpp_devices(struct str text, struct runtime_caps *caps);

double llamacpp_log_line(struct str line, struct runtime_measured *measured);
enum runtime_failure llamacpp_classify(int wait_status, struct str log_tail, struct err *ret_cause);

extern const struct runtime_slots llamacpp_slots;

#endif
