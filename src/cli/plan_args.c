/* Options shared by `estimate` and `plan`. Layer cli; main thread; see plan_args.h. */
#include "cli/plan_args.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void plan_args_defaults(struct plan_args *a)
{
    a->flash_attn = a->kv_offload = a->repack = true;
    a->type_k = a->type_v = GGML_F16;
    a->gpu_layers = a->draft_gpu_layers = PLAN_ALL_LAYERS;
    a->mmproj_offload = true;
    a->draft_type_k = a->draft_type_v = GGML_F16;
}

static enum rc parse_type(struct str value, uint32_t *field, struct err *err)
{
    if (ggml_type_from(value, field))
        return RC_OK;
    enum rc rc = err_set(err, RC_INVALID, "\"%.*s\" is no type of a cache", STR_ARG(value));
    err_hint(err, "f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0 or iq4_nl");
    return rc;
}

enum rc plan_parse_type_k(struct str value, void *field, struct err *err)
{
    struct plan_args *a = field;
    a->type_given = true;
    return parse_type(value, &a->type_k, err);
}

enum rc plan_parse_type_v(struct str value, void *field, struct err *err)
{
    struct plan_args *a = field;
    a->type_given = true;
    return parse_type(value, &a->type_v, err);
}

enum rc plan_parse_split(struct str value, void *field, struct err *err)
{
    struct plan_args *a = field;
    struct str rest = value;
    a->n_split = 0;
    while (rest.n) {
        struct str part = str_trim(str_cut(&rest, ','));
        double v;
        if (a->n_split == PLAN_MAX_DEVICES)
            return err_set(err, RC_INVALID, "more than %d parts", PLAN_MAX_DEVICES);
        if (!str_double(part, &v) || !(v >= 0) || v > 1e6)
            return err_set(err, RC_INVALID, "\"%.*s\" is no share of the layers", STR_ARG(part));
        a->split[a->n_split++] = (float)v;
    }
    return a->n_split ? RC_OK : err_set(err, RC_INVALID, "no shares given");
}

static enum rc parse_layers(struct str value, int32_t *field, struct err *err)
{
    int64_t n = PLAN_ALL_LAYERS;
    if (!str_eq_c(value, "all") && (!str_i64(value, &n) || n < 0 || n > 100000))
        return err_set(err, RC_INVALID, "\"%.*s\" is no number of layers (or \"all\")", STR_ARG(value));
    *field = (int32_t)n;
    return RC_OK;
}

enum rc plan_parse_layers(struct str value, void *field, struct err *err)
{
    struct plan_args *a = field;
    a->gpu_layers_given = true;
    return parse_layers(value, &a->gpu_layers, err);
}

enum rc plan_parse_draft_layers(struct str value, void *field, struct err *err)
{
    struct plan_args *a = field;
    return parse_layers(value, &a->draft_gpu_layers, err);
}

enum rc plan_parse_draft_type_k(struct str value, void *field, struct err *err)
{
    struct plan_args *a = field;
    return parse_type(value, &a->draft_type_k, err);
}

enum rc plan_parse_draft_type_v(struct str value, void *field, struct err *err)
{
    struct plan_args *a = field;
    return parse_type(value, &a->draft_type_v, err);
}

enum rc plan_parse_outputs(struct str value, void *field, struct err *err)
{
    struct plan_args *a = field;
    a->outputs_given = true;
    a->batch_outputs = str_eq_c(value, "batch");
    if (a->batch_outputs || str_eq_c(value, "slots"))
        return RC_OK;
    return err_set(err, RC_INVALID, "\"%.*s\" is neither batch nor slots", STR_ARG(value));
}

enum rc plan_parse_margin(struct str value, void *field, struct err *err)
{
    struct plan_args *a = field;
    uint64_t mib;
    a->margin_given = true;
    if (str_u64(value, &mib) && mib < UINT64_MAX / MIB) {
        a->margin_bytes = mib * MIB;
        return RC_OK;
    }
    if (str_bytes(value, &a->margin_bytes))
        return RC_OK;
    return err_set(err, RC_INVALID, "\"%.*s\" is no size in MiB", STR_ARG(value));
}

static enum rc add_override(const char *text, struct plan_params *p, struct err *err)
{
    const char *eq = strrchr(text, '=');
    if (!eq || eq == text || !eq[1])
        return err_set(err, RC_INVALID, "--override-tensor got \"%s\", expected PATTERN=BUFFER", text);
    if (p->n_overrides == PLAN_MAX_OVERRIDES)
        return err_set(err, RC_INVALID, "more than %d tensor overrides", PLAN_MAX_OVERRIDES);
    size_t n = (size_t)(eq - text);
    if (n >= sizeof p->overrides[0].pattern || strlen(eq + 1) >= sizeof p->overrides[0].buffer)
        return err_set(err, RC_INVALID, "the tensor override \"%s\" is too long", text);
    memcpy(p->overrides[p->n_overrides].pattern, text, n);
    p->overrides[p->n_overrides].pattern[n] = '\0';
    snprintf(p->overrides[p->n_overrides].buffer, sizeof p->overrides[0].buffer, "%s", eq + 1);
    p->n_overrides++;
    return RC_OK;
}

enum rc plan_args_params(const struct plan_args *a, struct plan_params *ret_params, struct err *err)
{
    struct plan_params p;
    plan_params_default(&p);
    p.ctx = a->ctx;
    p.batch = a->batch ? a->batch : p.batch;
    p.ubatch = a->ubatch ? a->ubatch : p.ubatch;
    /* llama-server unifies the cache when it chooses the slots itself */
    p.kv_unified = a->kv_unified || (!a->parallel && !a->no_kv_unified);
    p.parallel = a->parallel ? a->parallel : p.parallel;
    p.flash_attn = a->flash_attn;
    p.type_k = a->type_k;
    p.type_v = a->type_v;
    p.gpu_layers = a->gpu_layers;
    memcpy(p.tensor_split, a->split, sizeof p.tensor_split);
    p.n_tensor_split = a->n_split;
    p.n_cpu_moe = a->n_cpu_moe;
    p.kv_offload = a->kv_offload;
    p.repack = a->repack;
    p.swa_full = a->swa_full;
    p.embedding = a->embedding;
    /* given, the question is llama-fit-params' own, which knows both answers but no assigned devices */
    p.outputs = a->batch_outputs ? PLAN_OUTPUTS_BATCH : PLAN_OUTPUTS_SLOTS;
    p.pins = !a->outputs_given;
    enum rc rc = RC_OK;
    for (size_t i = 0; i < a->overrides.n && !rc; i++)
        rc = add_override(a->overrides.items[i], &p, err);
    if (!rc)
        *ret_params = p;
    return rc;
}

/* "NAME:TOTAL_MIB[:FREE_MIB]" for each --device. */
static enum rc named_devices(const struct plan_args *a, struct plan_device *ret_devices, size_t *ret_n,
                             struct err *err)
{
    size_t n = 0;
    for (size_t i = 0; i < a->devices.n; i++) {
        struct str rest = str_from(a->devices.items[i]), name = str_cut(&rest, ':'),
                   total = str_cut(&rest, ':');
        uint64_t total_mib, free_mib;
        if (n == PLAN_MAX_DEVICES)
            return err_set(err, RC_INVALID, "more than %d devices", PLAN_MAX_DEVICES);
        bool ok = name.n > 0 && name.n < sizeof ret_devices[0].name && str_u64(total, &total_mib) &&
                  total_mib > 0 && total_mib <= PLAN_MAX_DEVICE_BYTES / MIB;
        free_mib = ok ? total_mib : 0;
        ok = ok && (rest.n == 0 || (str_u64(rest, &free_mib) && free_mib <= total_mib));
        if (!ok) {
            enum rc rc = err_set(err, RC_INVALID, "--device got \"%s\", expected NAME:TOTAL_MIB[:FREE_MIB]",
                                 a->devices.items[i]);
            err_hint(err, "as in --device CUDA0:24564 or --device CUDA0:24564:21000");
            return rc;
        }
        plan_device_named(&ret_devices[n++], name, total_mib * MIB, free_mib * MIB);
    }
    *ret_n = n;
    return RC_OK;
}

enum rc plan_args_machine(const struct plan_args *a, struct plan_machine *m, struct err *err)
{
    if (a->hw && a->devices.n)
        return err_set(err, RC_INVALID, "--hw and --device both describe the machine: give one of them");
    return a->hw ? plan_machine_profiles(str_from(a->hw), m, err)
                 : named_devices(a, m->devices, &m->n_devices, err);
}

static enum rc from_catalog(const struct cli_call *call, const char *word, struct model **ret_model,
                            struct err *err)
{
    struct catalog *c;
    enum rc rc = shelf_scan(call, true, &c, err);
    if (rc)
        return rc;
    const struct catalog_entry *e = catalog_find(c, str_from(word));
    const char *near = NULL;
    if (e && e->model) {
        *ret_model = model_ref(e->model);
    } else if (e) {
        rc = e->problem.code;
        if (err)
            *err = e->problem;
    } else {
        rc = err_set(err, RC_NOT_FOUND, "there is no file and no model called \"%s\"", word);
        if (catalog_nearest(c, str_from(word), &near, 1))
            err_hint(err, "did you mean %s? All models: arriero models", near);
        else
            err_hint(err, "give a GGUF file, or an id that arriero models lists");
    }
    catalog_free(c);
    return rc;
}

enum rc plan_args_model(const struct cli_call *call, const char *word, struct model **ret_model,
                        struct err *err)
{
    bool is_path = strchr(word, '/') || str_ends(str_from(word), ".gguf");
    if (is_path || access(word, F_OK) == 0)
        return model_open(word, ret_model, err);
    return from_catalog(call, word, ret_model, err);
}

static void size_cell(struct cli_table *t, uint64_t bytes)
{
    if (bytes)
        cli_table_cell(t, "%.1f", (double)bytes / (double)MIB);
    else
        cli_table_cell(t, "0");
}

static double mib(uint64_t bytes)
{
    return (double)bytes / (double)MIB;
}

/* What of a device's memory belongs to files beside the model. */
static void print_extras(const struct plan_part *p)
{
    const struct {
        const char *word;
        uint64_t bytes;
    } of[] = {
        {"projector", p->projector_bytes}, {"adapters", p->adapter_bytes}, {"draft model", p->draft_bytes}};
    bool any = false;
    for (size_t i = 0; i < TABLE_COUNT(of); i++) {
        if (!of[i].bytes)
            continue;
        printf("%s%s %.1f MiB %s", any ? "," : p->name, any ? "" : ": of this", mib(of[i].bytes), of[i].word);
        any = true;
    }
    if (any)
        printf("\n");
}

/* What the server may come to keep in RAM beside the figures above. */
static void print_later(const struct plan_estimate *e)
{
    const struct plan_part *h = plan_host_part(e);
    if (h->prompt_cache_bytes)
        printf("Host: up to %.0f MiB more for prompts of idle slots (--cache-ram)\n",
               mib(h->prompt_cache_bytes));
    if (h->checkpoint_bytes)
        printf("Host: up to %u snapshots a slot of %.1f MiB (--ctx-checkpoints)\n", h->checkpoints,
               mib(h->checkpoint_bytes));
}

void plan_print_parts(const struct plan_estimate *e)
{
    static const char *const headings[] = {"DEVICE",   "WEIGHTS", "CACHE",  "COMPUTE",
                                           "OVERHEAD", "MIB",     "OF FREE"};
    struct cli_table *t = cli_table_new(headings, TABLE_COUNT(headings));
    for (size_t i = 0; i < e->n_parts; i++) {
        const struct plan_part *p = &e->parts[i];
        cli_table_cell(t, "%s", p->name);
        size_cell(t, p->model_bytes);
        size_cell(t, p->context_bytes);
        size_cell(t, p->compute_bytes);
        size_cell(t, p->overhead_bytes);
        size_cell(t, plan_part_total(p));
        if (p->free_bytes)
            cli_table_cell(t, "%.0f %%", 100.0 * (double)plan_part_total(p) / (double)p->free_bytes);
        else
            cli_table_cell(t, "-");
    }
    cli_table_print(t);
    for (size_t i = 0; i < e->n_parts; i++)
        print_extras(&e->parts[i]);
    print_later(e);
}
