/* llama.cpp's llama-server: from a plan to a command line. Layer runtime; pure but for reading our
 * environment.
 *
 * Every value is set, so that the server decides nothing by itself: its defaults changed between builds, read
 * the environment (LLAMA_ARG_*), and its own fit would undo the plan (--fit off). A CPU decision is explicit;
 * GPUs are pinned by UUID, because NVML and CUDA number them differently. */
#include "runtime/llamacpp_priv.h"

#include <stdio.h>
#include <string.h>

#define MAX_ARGS   256
#define SLOT_SHARE 4096u /* tokens */
#define TRACE      "4"   /* the level that logs the size of every buffer; no text of requests appears at it */

struct args {
    struct arena *arena;
    const char **v;
    size_t n;
    bool failed; /* memory or room ran out */
};

static void add(struct args *a, const char *s)
{
    if (!s || a->n + 1 >= MAX_ARGS) {
        a->failed = true;
        return;
    }
    a->v[a->n++] = s;
}

static void add2(struct args *a, const char *option, const char *value)
{
    add(a, option);
    add(a, value);
}

static void add_number(struct args *a, const char *option, uint64_t value)
{
    add2(a, option, arena_printf(a->arena, "%llu", (unsigned long long)value));
}

static void add_if(struct args *a, bool wanted, const char *option)
{
    if (wanted)
        add(a, option);
}

static enum rc cache_types(struct args *a, const struct plan_params *p, struct err *err)
{
    const struct ggml_type_info *k = ggml_type_info(p->type_k), *v = ggml_type_info(p->type_v);
    if (!k || !v)
        return err_set(err, RC_INVALID, "KV cache type %u/%u is in no table", p->type_k, p->type_v);
    add2(a, "-ctk", k->word);
    add2(a, "-ctv", v->word);
    return RC_OK;
}

static void add_flash(struct args *a, uint64_t flags, bool on)
{
    if (flags & LLC_FLASH_VALUE)
        add2(a, "-fa", on ? "on" : "off");
    else
        add_if(a, on, "-fa"); /* older builds: a switch, off by default */
}

/* Every --override-tensor in one argument: a repeated option keeps only its last value. */
static void add_overrides(struct args *a, const struct plan_params *p)
{
    if (p->n_overrides == 0)
        return;
    const char *all = "";
    for (uint32_t i = 0; i < p->n_overrides && all; i++)
        all = arena_printf(a->arena, "%s%s%s=%s", all, i ? "," : "", p->overrides[i].pattern,
                           p->overrides[i].buffer);
    add2(a, "-ot", all);
}

static void add_split(struct args *a, const struct plan_params *p, uint32_t n_used)
{
    if (n_used < 2 || p->n_tensor_split < 2)
        return;
    const char *all = "";
    for (uint32_t i = 0; i < p->n_tensor_split && all; i++)
        all = arena_printf(a->arena, "%s%s%.7g", all, i ? "," : "", (double)p->tensor_split[i]);
    add2(a, "-ts", all);
}

static void add_workers(struct args *a, const struct runtime_job *job)
{
    const char *all = "";
    for (uint32_t i = 0; i < job->plan->n_used && all; i++) {
        const struct plan_device *d = &job->machine->devices[job->plan->used[i]];
        if (runtime_is_worker(d) && runtime_worker_is_first(job->machine, job->plan, i))
            all =
                arena_printf(a->arena, "%s%s%.*s", all, *all ? "," : "", STR_ARG(runtime_worker_endpoint(d)));
    }
    if (!all || *all)
        add2(a, "--rpc", all);
}

static void add_devices(struct args *a, uint64_t flags, const struct runtime_job *job)
{
    const struct plan_params *p = &job->plan->estimate.params;
    uint32_t n = job->plan->n_used;
    if (n == 0) {
        add2(a, "-ngl", "0");
        if (flags & LLC_DEVICE)
            add2(a, "--device", "none");
        return;
    }
    add_workers(a, job);
    if (p->gpu_layers >= 0)
        add_number(a, "-ngl", (uint64_t)p->gpu_layers);
    else
        add2(a, "-ngl", flags & LLC_GPU_LAYERS_ALL ? "all" : "999");
    if (flags & LLC_DEVICE) {
        const char *all = "";
        char name[24];
        for (uint32_t i = 0; i < n && all; i++)
            all = arena_printf(a->arena, "%s%s%s", all, i ? "," : "",
                               runtime_child_device(job->machine, job->plan, i, name, sizeof name));
        add2(a, "--device", all);
    }
    add_split(a, p, n);
}

static void add_memory(struct args *a, uint64_t flags, const struct runtime_job *job)
{
    const struct plan_params *p = &job->plan->estimate.params;
    const struct plan_part *host = plan_host_part(&job->plan->estimate);
    if (p->kv_unified)
        add_if(a, flags & LLC_KV_UNIFIED, "--kv-unified");
    else
        add_if(a, flags & LLC_NO_KV_UNIFIED, "--no-kv-unified");
    add_if(a, !p->kv_offload, "--no-kv-offload");
    add_if(a, !p->repack && (flags & LLC_NO_REPACK), "--no-repack");
    add_if(a, p->swa_full && (flags & LLC_SWA_FULL), "--swa-full");
    if (!p->mmap && (flags & LLC_LOAD_MODE))
        add2(a, "--load-mode", "none");
    else
        add_if(a, !p->mmap && (flags & LLC_NO_MMAP), "--no-mmap");
    if (p->n_cpu_moe > 0)
        add_number(a, "--n-cpu-moe", p->n_cpu_moe);
    add_overrides(a, p);
    if (flags & LLC_CACHE_RAM)
        add_number(a, "--cache-ram", host->prompt_cache_bytes / MIB);
    if (flags & LLC_CHECKPOINTS)
        add_number(a, "--ctx-checkpoints", host->checkpoints);
    if (flags & LLC_FIT)
        add2(a, "--fit", "off");
}

/* On the device where the plan counts it: the first, or none. */
static void add_projector(struct args *a, uint64_t flags, const struct runtime_job *job)
{
    char name[24];
    if (!job->mmproj_path)
        return;
    add2(a, "--mmproj", job->mmproj_path);
    if (job->plan->n_used == 0 || plan_host_part(&job->plan->estimate)->has_projector)
        add_if(a, flags & LLC_NO_MMPROJ_OFFLOAD, "--no-mmproj-offload");
    else if (flags & LLC_MMPROJ_DEVICE)
        add2(a, "--mmproj-device",
             arena_printf(a->arena, "%s",
                          runtime_child_device(job->machine, job->plan, 0, name, sizeof name)));
}

static void add_adapters(struct args *a, const struct plan_extras *x)
{
    const char *all = "";
    bool scaled = false;
    for (uint32_t i = 0; i < x->n_adapters; i++)
        scaled = scaled || x->adapter_scale[i] != 1.0f;
    for (uint32_t i = 0; i < x->n_adapters && all; i++)
        all = scaled ? arena_printf(a->arena, "%s%s%s:%.7g", all, i ? "," : "", x->adapters[i]->path,
                                    (double)x->adapter_scale[i])
                     : arena_printf(a->arena, "%s%s%s", all, i ? "," : "", x->adapters[i]->path);
    if (x->n_adapters)
        add2(a, scaled ? "--lora-scaled" : "--lora", all);
}

/* The device that it has to itself, as the child calls it. */
static void add_draft_device(struct args *a, const struct runtime_job *job)
{
    char name[24];
    for (uint32_t i = 0; i < job->plan->n_used && job->extras->draft_device; i++)
        if (plan_device_is(&job->machine->devices[job->plan->used[i]], job->extras->draft_device))
            add2(a, "--device-draft",
                 arena_printf(a->arena, "%s",
                              runtime_child_device(job->machine, job->plan, i, name, sizeof name)));
}

static void add_draft(struct args *a, uint64_t flags, const struct runtime_job *job)
{
    const struct plan_extras *x = job->extras;
    const struct ggml_type_info *k = ggml_type_info(x->draft_type_k), *v = ggml_type_info(x->draft_type_v);
    add2(a, "--model-draft", x->draft->path);
    if (flags & LLC_SPEC_TYPE)
        add2(a, "--spec-type", "draft-simple");
    add_number(a, flags & LLC_SPEC_N_MAX ? "--spec-draft-n-max" : "--draft-max", x->draft_tokens);
    if (x->draft_least)
        add_number(a, flags & LLC_SPEC_N_MIN ? "--spec-draft-n-min" : "--draft-min", x->draft_least);
    add_draft_device(a, job);
    if (x->draft_gpu_layers >= 0)
        add_number(a, "-ngld", (uint64_t)x->draft_gpu_layers);
    else
        add2(a, "-ngld", flags & LLC_GPU_LAYERS_ALL ? "all" : "999");
    add2(a, "-ctkd", k ? k->word : "f16");
    add2(a, "-ctvd", v ? v->word : "f16");
}

static void add_extras(struct args *a, uint64_t flags, const struct runtime_job *job)
{
    add_projector(a, flags, job);
    if (job->extras)
        add_adapters(a, job->extras);
    if (job->extras && job->extras->draft)
        add_draft(a, flags, job);
}

/* In a cache that all slots share, idle ones are moved to RAM when another one gets a request; from there no
 * file can be written. They stay where that leaves each a fair share. */
static void add_slot_files(struct args *a, uint64_t flags, const struct runtime_job *job)
{
    const struct plan_params *p = &job->plan->estimate.params;
    add2(a, "--slot-save-path", job->slot_save_path);
    if (p->kv_unified && p->parallel && p->ctx / p->parallel >= SLOT_SHARE)
        add_if(a, flags & LLC_NO_CACHE_IDLE_SLOTS, "--no-cache-idle-slots");
}

static void add_service(struct args *a, uint64_t flags, const struct runtime_job *job)
{
    add_if(a, flags & LLC_METRICS, "--metrics");
    add_if(a, flags & LLC_SLOTS, "--slots");
    if (flags & LLC_NO_WEBUI)
        add(a, "--no-webui");
    else
        add_if(a, flags & LLC_NO_UI, "--no-ui");
    add_if(a, flags & LLC_JINJA, "--jinja");
    add_if(a, flags & LLC_OFFLINE, "--offline");
    if (job->embedding || job->plan->estimate.params.embedding) {
        uint64_t pooling;
        add(a, flags & LLC_EMBEDDINGS ? "--embeddings" : "--embedding");
        /* Without pooling there is no vector for a text. A causal model's last token has seen all of it. */
        if ((flags & LLC_POOLING) && !(model_arch_u64(job->model, "pooling_type", &pooling) && pooling > 0))
            add2(a, "--pooling", "last");
    }
    add_extras(a, flags, job);
    if (job->api_key_file && (flags & LLC_API_KEY_FILE))
        add2(a, "--api-key-file", job->api_key_file);
    if (job->slot_save_path && (flags & LLC_SLOT_SAVE))
        add_slot_files(a, flags, job);
    if (flags & LLC_VERBOSITY_TRACE)
        add2(a, "-lv", TRACE);
}

/* Options that a plan depends on and this build lacks. */
static enum rc check(const struct runtime_caps *caps, const struct runtime_job *job, struct err *err)
{
    const struct plan_params *p = &job->plan->estimate.params;
    const struct plan_extras *x = job->extras;
    const struct {
        bool wanted;
        uint64_t flag;
        const char *option;
    } needs[] = {
        {p->n_cpu_moe > 0, LLC_N_CPU_MOE, "--n-cpu-moe"},
        {p->n_overrides > 0, LLC_OVERRIDE_TENSOR, "--override-tensor"},
        {!p->repack, LLC_NO_REPACK, "--no-repack"},
        {p->swa_full, LLC_SWA_FULL, "--swa-full"},
        {x && x->draft && x->draft_device, LLC_DEVICE_DRAFT, "--device-draft"},
    };
    for (size_t i = 0; i < TABLE_COUNT(needs); i++) {
        if (!needs[i].wanted || (caps->flags & needs[i].flag))
            continue;
        enum rc rc = err_set(err, RC_UNSUPPORTED, "%s (%s) has no %s, which the plan needs", caps->binary,
                             caps->version[0] ? caps->version : "unknown version", needs[i].option);
        err_hint(err, "use a newer llama-server");
        return rc;
    }
    return RC_OK;
}

/* ---- environment ---- */

/* Options of llama-server that would undo ours, and choices of devices. */
bool llamacpp_env(const char *cuda, const char **out, size_t cap)
{
    const char *drop[] = {
        "LLAMA_", "CUDA_DEVICE_ORDER=", "MTMD_BACKEND_DEVICE=", cuda ? "CUDA_VISIBLE_DEVICES=" : NULL, NULL};
    const char *add[] = {"CUDA_DEVICE_ORDER=PCI_BUS_ID", cuda, NULL};
    return runtime_child_env(drop, add, out, cap);
}

/* "CUDA_VISIBLE_DEVICES=GPU-…,GPU-…"; NULL (ret_ours false) when a CUDA device has no UUID and is only named.
 */
static const char *cuda_devices(const struct runtime_job *job, struct arena *arena, bool *ret_ours)
{
    const char *all = "CUDA_VISIBLE_DEVICES=";
    bool first = true;
    *ret_ours = true;
    for (uint32_t i = 0; i < job->plan->n_used && all; i++) {
        const struct plan_device *d = &job->machine->devices[job->plan->used[i]];
        if (d->backend != PLAN_CUDA)
            continue;
        if (d->uuid[0] == '\0') {
            *ret_ours = false;
            return NULL;
        }
        all = arena_printf(arena, "%s%s%s", all, first ? "" : ",", d->uuid);
        first = false;
    }
    return all;
}

static const char **environment(const struct runtime_job *job, struct arena *arena)
{
    const char **env = arena_array(arena, LLAMACPP_ENV_MAX, sizeof *env);
    bool own_cuda;
    const char *cuda = cuda_devices(job, arena, &own_cuda);
    if (!env || (own_cuda && !cuda) || !llamacpp_env(cuda, env, LLAMACPP_ENV_MAX))
        return NULL;
    return env;
}

/* Without its own number a prompt takes as many as the writing: so does an option of the user's, later. */
static void add_threads(struct args *a, uint64_t flags, const struct plan *p)
{
    if (p->threads)
        add_number(a, "-t", p->threads);
    if (p->threads && p->threads_batch && p->threads_batch != p->threads && (flags & LLC_THREADS_BATCH))
        add_number(a, "--threads-batch", p->threads_batch);
}

static enum rc llamacpp_command(const struct runtime_caps *caps, const struct runtime_job *job,
                                struct arena *arena, struct runtime_command *ret_command, struct err *err)
{
    const struct plan_params *p = &job->plan->estimate.params;
    enum rc rc = check(caps, job, err);
    if (rc != RC_OK)
        return rc;
    struct args a = {.arena = arena, .v = arena_array(arena, MAX_ARGS, sizeof *a.v)};
    const char **env = environment(job, arena);
    if (!a.v || !env)
        return err_set(err, RC_NOMEM, "no memory or room for the command line of %s", job->model_path);
    add(&a, arena_strndup(arena, caps->binary, strlen(caps->binary)));
    add2(&a, "-m", job->model_path);
    add2(&a, "--alias", job->served_name);
    add2(&a, "--host", job->host);
    add_number(&a, "--port", job->port);
    add_number(&a, "-c", p->ctx);
    add_number(&a, "-np", p->parallel);
    add_number(&a, "-b", p->batch);
    add_number(&a, "-ub", p->ubatch);
    rc = cache_types(&a, p, err);
    if (rc != RC_OK)
        return rc;
    add_flash(&a, caps->flags, p->flash_attn);
    add_threads(&a, caps->flags, job->plan);
    add_devices(&a, caps->flags, job);
    add_memory(&a, caps->flags, job);
    add_service(&a, caps->flags, job);
    for (size_t i = 0; i < job->n_extra_args; i++)
        add(&a, job->extra_args[i]);
    if (a.failed)
        return err_set(err, RC_LIMIT, "the command line of %s has more than %d arguments", job->model_path,
                       MAX_ARGS);
    a.v[a.n] = NULL;
    *ret_command = (struct runtime_command){.argv = a.v, .env = env};
    return RC_OK;
}

/* The options of llama.cpp 0.7.0, but for those that have taken another's place. */
static void llamacpp_assume(const char *binary, struct runtime_caps *ret_caps)
{
#define X(name, text) | LLC_##name
    *ret_caps =
        (struct runtime_caps){.flags = (0ull LLAMACPP_OPTIONS(X)) & ~(uint64_t)(LLC_LOAD_MODE | LLC_NO_UI)};
#undef X
    snprintf(ret_caps->binary, sizeof ret_caps->binary, "%s", binary);
}

extern const struct runtime_ops runtime_llamacpp;
const struct runtime_ops runtime_llamacpp = {
    .name = "llama-server",
    .probe = llamacpp_probe,
    .assume = llamacpp_assume,
    .command = llamacpp_command,
    .health_path = "/health",
    .wake_member = ",\"return_progress\":true",
    .wake_event = "\"prompt_progress\":",
    .collect_members =
        "\"stream\":true,\"return_progress\":true,\"stream_options\":{\"include_usage\":true},",
    /* Not RESPONSES: its first event (0.7.0) lacks members without which the official client stops. */
    .speaks = DIALECT_BIT(OPENAI) | DIALECT_BIT(ANTHROPIC) | DIALECT_BIT(LLAMACPP),
    .slots = &llamacpp_slots,
    .log_line = llamacpp_log_line,
    .classify = llamacpp_classify,
};
