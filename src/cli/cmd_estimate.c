/* arriero estimate: exact memory of one model for given parameters. Layer cli; main thread; needs no daemon.
 */
#include "cli/plan_args.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static const struct cli_option options[] = {
    PLAN_ARGS_COMMON,
    PLAN_ARG("kv-unified", CLI_FLAG, kv_unified, NULL, "one cache for all slots"),
    PLAN_ARG("no-kv-unified", CLI_FLAG, no_kv_unified, NULL, "a cache for each slot"),
    PLAN_ARG("flash-attn", CLI_ON_OFF, flash_attn, "on|off", "flash attention (on)"),
    PLAN_ARG_PARSED("tensor-split", "A,B", "shares of the layers for each device", plan_parse_split),
    PLAN_ARG("n-cpu-moe", CLI_U32, n_cpu_moe, "N", "keep the experts of the first N layers in RAM"),
    PLAN_ARG("override-tensor", CLI_LIST, overrides, "PATTERN=BUFFER",
             "tensors whose name matches go to a buffer"),
    PLAN_ARG("no-kv-offload", CLI_NO_FLAG, kv_offload, NULL, "keep the cache in RAM"),
    PLAN_ARG("no-repack", CLI_NO_FLAG, repack, NULL, "do not pack weights in RAM for the processor"),
    PLAN_ARG("swa-full", CLI_FLAG, swa_full, NULL, "sliding layers cache the whole context"),
    PLAN_ARG("embedding", CLI_FLAG, embedding, NULL, "a server for embeddings"),
    PLAN_ARG_PARSED("outputs", "batch|slots",
                    "as llama-fit-params counts, with rows of logits a token or a slot; without it as "
                    "llama-server reserves",
                    plan_parse_outputs),
    PLAN_ARG("fit", CLI_FLAG, fit, NULL, "choose context and layers that fit the devices"),
    PLAN_ARG_PARSED("margin", "MIB", "with --fit: memory to leave free on each device (256)",
                    plan_parse_margin),
    PLAN_ARG("min-ctx", CLI_TOKENS, min_ctx, "N", "with --fit: the shortest context worth having (4096)"),
    PLAN_ARG("host-mib", CLI_U64_MIB, host_bytes, "MIB", "with --fit: RAM to use (no bound)"),
    {.type = CLI_END},
};

static void defaults(void *field)
{
    plan_args_defaults(field);
}

/* The search of `plan` on the given devices only, with the parameters as they stand. */
static enum rc fit(const struct plan_args *a, const struct model *m, const struct plan_params *p,
                   const struct plan_machine *machine, struct plan_estimate *ret, struct err *err)
{
    struct plan_policy policy;
    plan_policy_default(&policy);
    policy.ctx = a->ctx;
    policy.ctx_min = a->min_ctx;
    policy.parallel = p->parallel;
    policy.batch = p->batch;
    policy.ubatch = p->ubatch;
    policy.kv_type_fixed = true;
    policy.type_k = p->type_k;
    policy.type_v = p->type_v;
    policy.base = p;
    if (a->margin_given)
        policy.margin_bytes = a->margin_bytes;
    struct plan *plan = mem_calloc(1, sizeof *plan);
    enum rc rc = plan_place(m, &policy, machine, plan, err);
    if (!rc)
        *ret = plan->estimate;
    free(plan);
    return rc;
}

static int print(const struct cli_call *call, const struct model *m, const struct plan_estimate *e,
                 bool chosen)
{
    if (!call->json) {
        printf("%s: %s %s, %u layers, context %u\n\n", m->name, m->architecture, m->quantization, m->n_layer,
               e->params.ctx);
        plan_print_parts(e);
        return 0;
    }
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = plan_estimate_json(doc, m, e);
    yyjson_mut_doc_set_root(doc, root);
    if (chosen) {
        yyjson_mut_obj_add_uint(doc, root, "ctx", e->params.ctx);
        yyjson_mut_obj_add_sint(doc, root, "gpu_layers", e->params.gpu_layers);
        yyjson_mut_val *split = yyjson_mut_obj_add_arr(doc, root, "tensor_split");
        for (uint32_t i = 0; i < e->params.n_tensor_split; i++)
            yyjson_mut_arr_add_real(doc, split, (double)e->params.tensor_split[i]);
    }
    return cli_print_json(doc);
}

/* RAM without a bound is all one could want. */
static enum rc imagine(const struct plan_args *a, struct plan_machine *m, struct err *err)
{
    *m = (struct plan_machine){0};
    enum rc rc = plan_args_machine(a, m, err);
    if (a->host_bytes || !m->host.free_bytes)
        m->host.total_bytes = m->host.free_bytes = a->host_bytes ? a->host_bytes : UINT64_MAX / 4;
    return rc;
}

static uint64_t left(const struct plan_machine *machine, const struct plan_estimate *e)
{
    uint64_t used = plan_part_total(plan_host_part(e)), all = machine->host.free_bytes;
    return all > used ? all - used : 0;
}

static int run(struct cli_call *call)
{
    const struct plan_args *a = call->options;
    struct plan_params p;
    struct plan_machine machine;
    struct plan_estimate estimate;
    struct model *m = NULL;
    struct plan_files files = {0};
    struct err err;
    if (plan_args_params(a, &p, &err) || imagine(a, &machine, &err))
        return cli_usage(call, &err);
    enum rc rc = plan_args_model(call, call->args[0], &m, &err);
    if (!rc)
        rc = plan_files_open(a, NULL, &files, &p, &err);
    if (!rc)
        rc = a->fit ? fit(a, m, &p, &machine, &estimate, &err)
                    : plan_estimate(m, &p, machine.devices, machine.n_devices, &estimate, &err);
    if (!rc)
        plan_host_bounds(&estimate, left(&machine, &estimate));
    int status = rc ? cli_fail(call, &err) : print(call, m, &estimate, a->fit);
    plan_files_release(&files);
    model_unref(m);
    return status;
}

const struct cli_command cmd_estimate = {
    .name = "estimate",
    .group = "Plan",
    .synopsis = "MODEL [--ctx N] [--device NAME:TOTAL_MIB[:FREE_MIB]]… [--hw PROFILE,…] [OPTION]…",
    .summary = "exact memory of a model on every device, without loading it",
    .details =
        "MODEL is a GGUF file or an id that `arriero models` lists. Without --device everything lies in RAM. "
        "A "
        "device's kind comes from its name as llama.cpp spells it: CUDA0, ROCm0, Vulkan0, SYCL0, RPC0.\n\n"
        "WEIGHTS and CACHE are exact; COMPUTE replays the graph that the runtime reserves; OVERHEAD is what "
        "the "
        "driver takes beside them. All is what llama-server reserves; on several devices llama-fit-params "
        "counts "
        "a little otherwise, which --outputs batch (its own rows of logits) and --outputs slots (the "
        "server's) repeat. An architecture without a model of its memory is refused, never guessed.",
    .options_size = sizeof(struct plan_args),
    .defaults = defaults,
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
