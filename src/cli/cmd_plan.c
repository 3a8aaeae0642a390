/* arriero plan: the best way to run a model here, or on an imagined machine, with reasons. Layer cli; main
 * thread; needs no daemon and starts nothing but, for --verify, llama.cpp's own planner. */
#include "cli/known.h"
#include "cli/plan_args.h"
#include "cli/plan_verify.h"

#include "base/mem.h"
#include "hw/hw.h"
#include "runtime/runtime.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

struct plan_options {
    struct plan_args args; /* first: its parsers count from here */
    enum plan_strategy strategy;
    uint64_t vram_limit_bytes;
    uint32_t max_gpus;
    const char *on; /* --on DEVICE */
    bool allow_cpu, verify;
};

static enum rc parse_strategy(struct str value, void *field, struct err *err)
{
    struct plan_options *o = (struct plan_options *)field;
    if (plan_strategy_from(value, &o->strategy, &o->vram_limit_bytes))
        return RC_OK;
    enum rc rc = err_set(err, RC_INVALID, "\"%.*s\" is no strategy", STR_ARG(value));
    err_hint(err, "max-performance, fit-vram:MIB, balanced, power-efficient or max-context");
    return rc;
}

#define OPTION(name, type, member, metavar, help)                                                            \
    {                                                                                                        \
        name, 0, type, offsetof(struct plan_options, member), metavar, help, NULL                            \
    }

static const struct cli_option options[] = {
    PLAN_ARGS_COMMON,
    PLAN_ARG_PARSED("strategy", "S", "max-performance, fit-vram:MIB, balanced, power-efficient, max-context",
                    parse_strategy),
    PLAN_ARG_PARSED("margin", "MIB", "memory to leave free on each device (256)", plan_parse_margin),
    PLAN_ARG("min-ctx", CLI_U32, min_ctx, "N", "the shortest context worth having (4096)"),
    PLAN_ARG("host-ram", CLI_U64_MIB, host_bytes, "MIB", "RAM to use"),
    PLAN_ARG("embedding", CLI_FLAG, embedding, NULL, "a server for embeddings"),
    OPTION("max-gpus", CLI_U32, max_gpus, "N", "use no more GPUs than this"),
    OPTION("on", CLI_STR, on, "DEVICE", "only on this device (name or UUID)"),
    OPTION("no-cpu", CLI_NO_FLAG, allow_cpu, NULL, "all layers on GPUs, or not at all"),
    PLAN_ARG("no-mmproj", CLI_FLAG, no_mmproj, NULL, "leave out the projector beside the model"),
    OPTION("verify", CLI_FLAG, verify, NULL, "ask llama.cpp's own planner too and show both"),
    {.type = CLI_END},
};

static void defaults(void *field)
{
    struct plan_options *o = field;
    plan_args_defaults(&o->args);
    o->strategy = PLAN_BALANCED;
    o->allow_cpu = true;
}

/* ---- the machine ---- */

#define RESERVE_MAX (8192 * MIB) /* RAM for everyone else: an eighth, at most this */

static void add_gpus(const struct hw_inventory *inv, struct plan_machine *m)
{
    for (size_t i = 0; i < inv->n_devices && m->n_devices < PLAN_MAX_DEVICES; i++) {
        const struct hw_device *d = &inv->devices[i];
        if (!(d->valid & HW_MEMORY) || d->in_use)
            continue;
        struct plan_device *p = &m->devices[m->n_devices++];
        plan_device_named(p, str_from(d->name), d->total_bytes, d->free_bytes);
        if (d->valid & HW_UUID)
            snprintf(p->uuid, sizeof p->uuid, "%s", d->uuid);
        snprintf(p->model, sizeof p->model, "%s", d->model);
        if (d->valid & HW_BANDWIDTH)
            p->bandwidth_gbps = d->bandwidth_gbps;
    }
}

static enum rc live_machine(bool with_gpus, struct plan_machine *m, struct err *err)
{
    struct hw_inventory *inv = mem_calloc(1, sizeof *inv);
    enum rc rc = cli_inventory(inv, err);
    if (!rc) {
        uint64_t eighth = inv->host.usable_total_bytes / 8,
                 reserve = eighth < RESERVE_MAX ? eighth : RESERVE_MAX;
        uint64_t free_bytes = inv->host.usable_free_bytes;
        m->host.total_bytes = inv->host.usable_total_bytes;
        m->host.free_bytes = free_bytes > reserve ? free_bytes - reserve : 0;
        m->host.cores = inv->host.physical_cores;
        m->host.bandwidth_gbps = inv->host.bandwidth_gbps;
        snprintf(m->host.model, sizeof m->host.model, "%s", inv->host.model);
        if (with_gpus)
            add_gpus(inv, m);
    }
    free(inv);
    return rc;
}

static enum rc machine(const struct plan_args *a, struct plan_machine *m, struct err *err)
{
    *m = (struct plan_machine){0};
    enum rc rc = live_machine(a->devices.n == 0, m, err);
    if (!rc && a->devices.n)
        rc = plan_args_devices(a, m->devices, &m->n_devices, err);
    if (!rc && a->host_bytes)
        m->host.total_bytes = m->host.free_bytes = a->host_bytes;
    return rc;
}

static void policy_of(const struct plan_options *o, const struct plan_params *base, struct plan_policy *p)
{
    const struct plan_args *a = &o->args;
    plan_policy_default(p);
    p->strategy = o->strategy;
    p->vram_limit_bytes = o->vram_limit_bytes;
    p->ctx = a->ctx;
    p->ctx_min = a->min_ctx;
    p->parallel = a->parallel;
    p->batch = a->batch;
    p->ubatch = a->ubatch;
    p->kv_type_fixed = a->type_given;
    p->type_k = a->type_k;
    p->type_v = a->type_v;
    p->gpu_layers = a->gpu_layers;
    p->gpu_layers_fixed = a->gpu_layers_given;
    p->allow_cpu = o->allow_cpu;
    p->embedding = a->embedding;
    p->max_gpus = o->max_gpus;
    p->device = o->on;
    p->base = base;
    if (a->margin_given)
        p->margin_bytes = a->margin_bytes;
}

/* ---- the command line it stands for ---- */

struct command {
    struct arena arena;
    struct runtime_command cmd;
    char binary[512];
    bool known;
};

static void command_of(const struct model *m, const struct plan *plan, const struct plan_machine *machine,
                       bool embedding, struct command *c)
{
    const struct runtime_ops *ops = runtime_find(STR("llama-server"));
    struct runtime_caps *caps = mem_calloc(1, sizeof *caps);
    const char *slash = strrchr(m->path, '/');
    struct str file = str_from(slash ? slash + 1 : m->path);
    if (str_ends(file, ".gguf"))
        file.n -= 5;
    const struct plan_extras *x = plan->estimate.params.extras;
    const char *stem = arena_strndup(&c->arena, file.p, file.n);
    const struct runtime_job job = {.model = m,
                                    .model_path = m->path,
                                    .served_name = stem,
                                    .plan = plan,
                                    .machine = machine,
                                    .host = "127.0.0.1",
                                    .port = 8080,
                                    .threads = machine->host.cores,
                                    .embedding = embedding,
                                    .mmproj_path = x && x->projector ? x->projector->path : NULL,
                                    .extras = x};
    c->known = ops && !runtime_find_llama_server(NULL, c->binary, sizeof c->binary, NULL) &&
               !ops->probe(c->binary, caps, NULL) && !ops->command(caps, &job, &c->arena, &c->cmd, NULL);
    free(caps);
}

/* The child's environment as far as it differs from ours. */
static bool is_inherited(const char *entry)
{
    for (char **e = environ; *e; e++)
        if (!strcmp(*e, entry))
            return true;
    return false;
}

static void add_command(yyjson_mut_doc *doc, yyjson_mut_val *root, const struct command *c)
{
    yyjson_mut_val *argv = yyjson_mut_obj_add_arr(doc, root, "argv");
    for (size_t i = 0; c->known && c->cmd.argv[i]; i++)
        yyjson_mut_arr_add_strcpy(doc, argv, c->cmd.argv[i]);
    yyjson_mut_val *env = yyjson_mut_obj_add_obj(doc, root, "env");
    for (size_t i = 0; c->known && c->cmd.env && c->cmd.env[i]; i++) {
        struct str value = str_from(c->cmd.env[i]), name = str_cut(&value, '=');
        if (!is_inherited(c->cmd.env[i]))
            yyjson_mut_obj_add(env, yyjson_mut_strncpy(doc, name.p, name.n),
                               yyjson_mut_strncpy(doc, value.p, value.n));
    }
}

/* ---- output ---- */

static int print_json(const struct model *m, const struct plan *plan, const struct command *c,
                      const struct verified *v, const struct knowledge *known, const struct err *failed)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = plan_json(doc, m, plan);
    yyjson_mut_doc_set_root(doc, root);
    add_command(doc, root, c);
    known_json(doc, root, known);
    if (v->n)
        plan_verify_json(doc, root, v);
    if (failed)
        yyjson_mut_obj_add_val(doc, root, "error", json_err(doc, failed));
    int status = cli_print_json(doc);
    return failed ? 1 : status;
}

/* The word as a shell reads it: quoted if it holds more than plain characters. */
static void print_shell_word(const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=,+@%";
    if (*word && !word[strspn(word, plain)]) {
        printf("%s", word);
        return;
    }
    putchar('\'');
    for (; *word; word++)
        if (*word == '\'')
            printf("'\\''");
        else
            putchar(*word);
    putchar('\'');
}

static void print_command(const struct command *c)
{
    if (!c->known)
        return;
    printf("\n");
    for (size_t i = 0; c->cmd.argv[i]; i++) {
        if (i)
            putchar(' ');
        print_shell_word(c->cmd.argv[i]);
    }
    printf("\n");
}

static void print_text(const struct model *m, const struct plan *plan, const struct command *c,
                       const struct verified *v, const struct knowledge *known)
{
    printf("%s: %s %s, %u layers, strategy %s\n\n", m->name, m->architecture, m->quantization, m->n_layer,
           plan_strategy_word(plan->strategy));
    if (plan->fits)
        plan_print_parts(&plan->estimate);
    printf("\n");
    for (uint32_t i = 0; i < plan->n_reasons; i++)
        printf("%s\n", plan->reasons[i].text);
    if (plan->n_alternatives)
        printf("\nOther strategies\n");
    for (uint32_t i = 0; i < plan->n_alternatives; i++)
        printf("  %s: %s\n", plan_strategy_word(plan->alternatives[i].strategy), plan->alternatives[i].text);
    if (v->n)
        plan_verify_print(v);
    known_print(known);
    print_command(c);
}

static int plan_model(struct cli_call *call, const struct model *m, const struct plan_policy *policy,
                      const struct plan_machine *mach, const struct knowledge *known,
                      const struct plan_options *o)
{
    struct plan *plan = mem_calloc(1, sizeof *plan);
    struct command c = {0};
    struct verified v = {0};
    struct err err, why;
    enum rc rc = plan_place(m, policy, mach, plan, &err);
    int status;
    if (!rc) {
        uint64_t used = plan_part_total(plan_host_part(&plan->estimate)), all = mach->host.free_bytes;
        plan_host_bounds(&plan->estimate, all > used ? all - used : 0);
        plan_alternatives(m, policy, mach, plan);
    }
    if (!rc)
        command_of(m, plan, mach, policy->embedding, &c);
    if (!rc && o->verify &&
        plan_verify(c.binary, c.cmd.env, m, plan, mach, o->args.devices.n > 0, &v, &why)) {
        status = cli_fail(call, &why);
    } else if (rc && rc != RC_NO_FIT) {
        status = cli_fail(call, &err);
    } else if (call->json) {
        status = print_json(m, plan, &c, &v, known, rc ? &err : NULL);
    } else {
        print_text(m, plan, &c, &v, known);
        status = rc ? cli_fail(call, &err) : 0;
    }
    arena_release(&c.arena);
    free(plan);
    return status;
}

static int run(struct cli_call *call)
{
    const struct plan_options *o = call->options;
    struct plan_params base;
    struct plan_policy policy;
    struct plan_machine mach;
    struct plan_files files = {0};
    struct model *m = NULL;
    struct err err;
    if (plan_args_params(&o->args, &base, &err))
        return cli_usage(call, &err);
    if (machine(&o->args, &mach, &err))
        return err.code == RC_INVALID ? cli_usage(call, &err) : cli_fail(call, &err);
    if (plan_args_model(call->args[0], &m, &err))
        return cli_fail(call, &err);
    auto_free char *paired = plan_files_paired(m);
    policy_of(o, &base, &policy);
    struct knowledge *known = known_apply(m, base.flash_attn, &mach);
    int status = plan_files_open(&o->args, paired, &files, &base, &err)
                     ? cli_fail(call, &err)
                     : plan_model(call, m, &policy, &mach, known, o);
    plan_files_release(&files);
    knowledge_free(known);
    model_unref(m);
    return status;
}

const struct cli_command cmd_plan = {
    .name = "plan",
    .group = "Plan",
    .synopsis = "MODEL [--ctx N] [--strategy S] [--device NAME:TOTAL_MIB[:FREE_MIB]]… [OPTION]…",
    .summary = "the best way to run a model here, and why",
    .details = "MODEL is a GGUF file or an id that `arriero models` lists. Without --device the plan is for "
               "this machine "
               "as it is now.\n\n"
               "One GPU is preferred to several, several to a share of the layers, a share to the CPU. "
               "Without --ctx the "
               "context is the trained one, shortened to what fits.",
    .options_size = sizeof(struct plan_options),
    .defaults = defaults,
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
