/* arriero plan: the best way to run a model here, or on an imagined machine, with reasons. Layer cli; main
 * thread; needs no daemon and starts nothing but, for --verify, llama.cpp's own planner. */
#include "cli/control.h"
#include "cli/plan_live.h"
#include "cli/plan_rebalance.h"
#include "cli/plan_show.h"

#include "base/mem.h"
#include "hw/hw.h"

#include <stdlib.h>
#include <string.h>

struct plan_options {
    struct plan_args args; /* first: its parsers count from here */
    enum plan_strategy strategy;
    uint64_t vram_limit_bytes;
    uint32_t max_gpus;
    uint64_t vram_limit_given;
    const char *on; /* --on DEVICE */
    uint32_t kv_floor;
    double bpw_floor;
    bool kv_floor_given, bpw_floor_given, strategy_given, allow_cpu, verify, rebalance, live;
};

static enum rc parse_strategy(struct str value, void *field, struct err *err)
{
    struct plan_options *o = (struct plan_options *)field;
    o->strategy_given = true;
    if (plan_strategy_from(value, &o->strategy, &o->vram_limit_bytes))
        return RC_OK;
    enum rc rc = err_set(err, RC_INVALID, "\"%.*s\" is no strategy", STR_ARG(value));
    err_hint(err, "max-performance, fit-vram:MIB, balanced, power-efficient or max-context");
    return rc;
}

static enum rc parse_kv_floor(struct str value, void *field, struct err *err)
{
    struct plan_options *o = (struct plan_options *)field;
    static const uint32_t types[] = {GGML_F16, GGML_Q8_0, GGML_Q4_0};
    for (size_t i = 0; i < TABLE_COUNT(types); i++) {
        const struct ggml_type_info *info = ggml_type_info(types[i]);
        if (!info || !str_eq_c(value, info->word))
            continue;
        o->kv_floor = types[i];
        o->kv_floor_given = true;
        return RC_OK;
    }
    return err_set(err, RC_INVALID, "--kv-floor got \"%.*s\", expected f16, q8_0 or q4_0", STR_ARG(value));
}

static enum rc parse_bpw_floor(struct str value, void *field, struct err *err)
{
    struct plan_options *o = (struct plan_options *)field;
    o->bpw_floor_given = true;
    if (str_double(value, &o->bpw_floor) && o->bpw_floor >= 0 && o->bpw_floor <= 64)
        return RC_OK;
    return err_set(err, RC_INVALID, "\"%.*s\" is no number of bits a weight (0 to 64)", STR_ARG(value));
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
    PLAN_ARG("min-ctx", CLI_TOKENS, min_ctx, "N", "the shortest context worth having (4096)"),
    PLAN_ARG("host-ram", CLI_U64_MIB, host_bytes, "MIB", "RAM to use"),
    PLAN_ARG("embedding", CLI_FLAG, embedding, NULL, "a server for embeddings"),
    OPTION("vram-limit", CLI_U64_MIB, vram_limit_given, "MIB", "take no more device memory than this"),
    PLAN_ARG_PARSED("kv-floor", "TYPE", "the smallest cache type to choose (q4_0)", parse_kv_floor),
    PLAN_ARG_PARSED("bpw-floor", "BITS", "no smaller file with fewer bits a weight than this (0: any)",
                    parse_bpw_floor),
    OPTION("max-gpus", CLI_U32, max_gpus, "N", "use no more GPUs than this"),
    OPTION("on", CLI_STR, on, "DEVICE", "only on this device (name or UUID)"),
    OPTION("no-cpu", CLI_NO_FLAG, allow_cpu, NULL, "all layers on GPUs, or not at all"),
    PLAN_ARG("no-mmproj", CLI_FLAG, no_mmproj, NULL, "leave out the projector beside the model"),
    OPTION("verify", CLI_FLAG, verify, NULL, "ask llama.cpp's own planner too and show both"),
    OPTION("rebalance", CLI_FLAG, rebalance, NULL,
           "which loaded models would run faster elsewhere, at what cost (asks the daemon; moves nothing)"),
    OPTION("live", CLI_FLAG, live, NULL,
           "ask the daemon: would it be loaded now, who leaves for it, in how long (starts nothing)"),
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

static enum rc machine(const struct plan_options *o, struct plan_machine *m, struct err *err)
{
    const struct plan_args *a = &o->args;
    *m = (struct plan_machine){0};
    enum rc rc = a->hw ? RC_OK : live_machine(!a->devices.n, m, err);
    if (!rc && (a->hw || a->devices.n))
        rc = plan_args_machine(a, m, err);
    if (!rc && a->host_bytes)
        m->host.total_bytes = m->host.free_bytes = a->host_bytes;
    return rc;
}

static void policy_of(const struct plan_options *o, const struct plan_params *base, struct plan_policy *p)
{
    const struct plan_args *a = &o->args;
    plan_policy_default(p);
    p->strategy = o->strategy;
    p->vram_limit_bytes = o->vram_limit_bytes ? o->vram_limit_bytes : o->vram_limit_given;
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
    p->least_bpw = o->bpw_floor;
    if (a->margin_given)
        p->margin_bytes = a->margin_bytes;
    if (o->kv_floor_given)
        p->kv_floor = o->kv_floor;
}

/* Smaller files of the same model, largest first, for when the one asked for does not fit. */
struct siblings {
    struct catalog *catalog;
    const struct model *list[PLAN_MAX_ALTERNATIVES];
    uint32_t n;
};

static void find_siblings(const struct model *m, struct siblings *ret)
{
    char dir[512];
    const char *slash = strrchr(m->path, '/');
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - m->path) : 1, slash ? m->path : ".");
    const char *const dirs[] = {dir};
    const struct catalog_options opt = {.dirs = dirs, .n_dirs = 1, .usual_caches = true};
    *ret = (struct siblings){0};
    if (catalog_scan(&opt, &ret->catalog, NULL) != RC_OK)
        return;
    ret->n = (uint32_t)catalog_smaller(ret->catalog, m, ret->list, PLAN_MAX_ALTERNATIVES);
}

static void make_view(const struct plan_policy *policy, struct plan_view *v, struct plan *plan,
                      struct plan_command *c)
{
    if (!plan->fits)
        return;
    uint64_t used = plan_part_total(plan_host_part(&plan->estimate)), all = v->machine->host.free_bytes;
    plan_host_bounds(&plan->estimate, all > used ? all - used : 0);
    plan_alternatives(v->m, policy, v->machine, plan);
    plan_rejected(v->m, policy, v->machine, plan);
    if (plan_room_tokens(v->m, plan, v->machine, policy->margin_bytes, &v->room_tokens, NULL) != RC_OK)
        v->room_tokens = 0;
    plan_command(v->m, plan, v->machine, policy->embedding, c);
}

static int plan_model(struct cli_call *call, const struct model *m, const struct plan_policy *policy,
                      const struct plan_machine *mach, const struct knowledge *known, bool imagined)
{
    const struct plan_options *o = call->options;
    struct plan *plan = mem_calloc(1, sizeof *plan);
    struct plan_command c = {0};
    struct verified verified = {0};
    struct siblings siblings = {0};
    struct plan_policy wanted = *policy;
    struct err err, why;
    struct plan_view v = {.m = m,
                          .plan = plan,
                          .machine = mach,
                          .command = &c,
                          .verified = &verified,
                          .known = known,
                          .imagined = imagined};
    enum rc rc = plan_place(m, &wanted, mach, plan, &err);
    if (rc == RC_NO_FIT) { /* is a smaller file of it here? */
        find_siblings(m, &siblings);
        wanted.smaller = siblings.list;
        wanted.n_smaller = siblings.n;
        if (siblings.n)
            rc = plan_place(m, &wanted, mach, plan, &err);
        if (!rc && plan->smaller >= 0)
            v.m = siblings.list[plan->smaller];
    }
    make_view(policy, &v, plan, &c);
    int status;
    if (!rc && o->verify &&
        plan_verify(c.found ? c.binary : "", c.cmd.env, v.m, plan, mach, imagined, &verified, &why)) {
        status = cli_fail(call, &why);
    } else if (rc && rc != RC_NO_FIT) {
        status = cli_fail(call, &err);
    } else if (call->json) {
        status = plan_show_json(&v, rc ? &err : NULL);
    } else {
        plan_show_text(&v);
        status = rc ? cli_fail(call, &err) : 0;
    }
    arena_release(&c.arena);
    catalog_free(siblings.catalog);
    free(plan);
    return status;
}

/* ---- --live: the options that are settings of a model, as the daemon's API has them ---- */

static void add_type(yyjson_mut_doc *doc, yyjson_mut_val *root, const char *key, uint32_t type)
{
    const struct ggml_type_info *info = ggml_type_info(type);
    if (info)
        yyjson_mut_obj_add_str(doc, root, key, info->word);
}

static void add_settings(const struct plan_options *o, yyjson_mut_doc *doc, yyjson_mut_val *root)
{
    const struct plan_args *a = &o->args;
    const struct {
        const char *key;
        bool given;
        uint64_t value;
    } numbers[] = {
        {"ctx", a->ctx > 0, a->ctx},
        {"ctx_min", a->min_ctx > 0, a->min_ctx},
        {"parallel", a->parallel > 0, a->parallel},
        {"batch", a->batch > 0, a->batch},
        {"ubatch", a->ubatch > 0, a->ubatch},
        {"max_gpus", o->max_gpus > 0, o->max_gpus},
        {"vram_limit", o->vram_limit_given > 0, o->vram_limit_given},
        {"margin", a->margin_given, a->margin_bytes},
    };
    for (size_t i = 0; i < TABLE_COUNT(numbers); i++)
        if (numbers[i].given)
            yyjson_mut_obj_add_uint(doc, root, numbers[i].key, numbers[i].value);
    if (a->gpu_layers_given)
        yyjson_mut_obj_add_int(doc, root, "gpu_layers", a->gpu_layers);
    if (a->type_given) {
        add_type(doc, root, "kv_type_k", a->type_k);
        add_type(doc, root, "kv_type_v", a->type_v);
    }
    if (o->kv_floor_given)
        add_type(doc, root, "kv_floor", o->kv_floor);
    if (o->bpw_floor_given)
        yyjson_mut_obj_add_real(doc, root, "bpw_floor", o->bpw_floor);
    if (o->on)
        yyjson_mut_obj_add_strcpy(doc, root, "device", o->on);
    if (!o->allow_cpu)
        yyjson_mut_obj_add_bool(doc, root, "allow_cpu", false);
    if (a->embedding)
        yyjson_mut_obj_add_bool(doc, root, "embedding", true);
    if (!o->strategy_given)
        return;
    const char *word = plan_strategy_word(o->strategy);
    auto_free char *limited =
        o->vram_limit_bytes ? mem_printf("%s:%llu", word, (unsigned long long)(o->vram_limit_bytes / MIB))
                            : NULL;
    yyjson_mut_obj_add_strcpy(doc, root, "strategy", limited ? limited : word);
}

static int plan_live(struct cli_call *call)
{
    const struct plan_options *o = call->options;
    const struct plan_args *a = &o->args;
    const struct {
        const char *name;
        bool given;
    } others[] = {
        {"--hw", a->hw != NULL},
        {"--device", a->devices.n > 0},
        {"--host-ram", a->host_bytes > 0},
        {"--verify", o->verify},
        {"--mmproj", a->mmproj != NULL},
        {"--no-mmproj", a->no_mmproj},
        {"--model-draft", a->draft != NULL},
        {"--lora", a->loras.n + a->scaled_loras.n > 0},
    };
    yyjson_mut_val *root;
    for (size_t i = 0; i < TABLE_COUNT(others); i++) {
        struct err err;
        if (!others[i].given)
            continue;
        (void)err_set(&err, RC_INVALID,
                      "--live asks about the daemon's own machine and models: it takes no %s",
                      others[i].name);
        err_hint(&err, "leave out --live to plan without the daemon; files beside a model are set in the "
                       "configuration");
        return cli_usage(call, &err);
    }
    yyjson_mut_doc *doc = control_body(call->args[0], &root);
    add_settings(o, doc, root);
    return plan_live_run(call, doc);
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
    if (o->rebalance != (call->n_args == 0) || (o->rebalance && (o->args.hw || o->args.devices.n))) {
        (void)err_set(&err, RC_INVALID,
                      o->rebalance ? "--rebalance is about what is loaded here: it takes no %s"
                                   : "no %s is named",
                      o->rebalance && call->n_args == 0 ? "--hw or --device" : "MODEL");
        err_hint(&err, "arriero plan MODEL, or arriero plan --rebalance");
        return cli_usage(call, &err);
    }
    if (o->rebalance)
        return plan_rebalance_run(call);
    if (o->live)
        return plan_live(call);
    if (plan_args_params(&o->args, &base, &err))
        return cli_usage(call, &err);
    if (machine(o, &mach, &err))
        return err.code == RC_INVALID ? cli_usage(call, &err) : cli_fail(call, &err);
    if (plan_args_model(call, call->args[0], &m, &err))
        return cli_fail(call, &err);
    auto_free char *paired = plan_files_paired(m);
    policy_of(o, &base, &policy);
    struct knowledge *known = known_apply(m, base.flash_attn, &mach);
    int status = plan_files_open(&o->args, paired, &files, &base, &err)
                     ? cli_fail(call, &err)
                     : plan_model(call, m, &policy, &mach, known, o->args.hw || o->args.devices.n);
    plan_files_release(&files);
    knowledge_free(known);
    model_unref(m);
    return status;
}

const struct cli_command cmd_plan = {
    .name = "plan",
    .group = "Plan",
    .synopsis =
        "MODEL [--live]|--rebalance [--ctx N] [--strategy S] [--device NAME:TOTAL_MIB[:FREE_MIB]]… [OPTION]…",
    .summary = "the best way to run a model here, and why",
    .details =
        "MODEL is a GGUF file or an id that `arriero models` lists. Without --device the plan is for "
        "this machine "
        "as it is now.\n\n"
        "One GPU is preferred to several, several to a share of the layers, a share to the CPU. "
        "Without --ctx the "
        "context is the trained one, shortened to what fits.\n\n"
        "--hw asks for a machine that is not here: --hw rtx4090-laptop-16g, --hw 2x3090,desktop-128g, "
        "--hw dgx-h100. The bar shows how much of the free memory is taken. If nothing fits, a smaller "
        "quantisation of the same model is looked for on disk.\n\n"
        "--rebalance, without MODEL, asks the running daemon which of the loaded models would run faster "
        "elsewhere now, what loading them again would cost and what it would bring.\n\n"
        "--live asks the daemon what would happen if MODEL were asked for now: whether it is loaded at once, "
        "which models leave for it, or how long it waits for its turn, and when it would be ready.",
    .options_size = sizeof(struct plan_options),
    .defaults = defaults,
    .options = options,
    .min_args = 0,
    .max_args = 1,
    .run = run,
};
