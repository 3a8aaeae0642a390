/* From a policy to a placement: what is wanted, the search, the answer. Layer plan; pure. The search itself
 * is in search.c, steps down after failed loads in ladder.c. */
#include "plan/place_priv.h"

#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const strategy_words[PLAN_STRATEGIES] = {"max-performance", "fit-vram", "balanced",
                                                            "power-efficient", "max-context"};

const char *plan_strategy_word(enum plan_strategy s)
{
    return s < PLAN_STRATEGIES ? strategy_words[s] : "unknown";
}

bool plan_strategy_from(struct str word, enum plan_strategy *ret_strategy, uint64_t *ret_limit_bytes)
{
    struct str rest = word, head = str_cut(&rest, ':');
    for (unsigned i = 0; i < PLAN_STRATEGIES; i++) {
        if (!str_eq_c(head, strategy_words[i]))
            continue;
        if (i == PLAN_FIT_VRAM) {
            uint64_t mib;
            if (!str_u64(rest, &mib) || mib == 0 || mib > UINT64_MAX / MIB)
                return false;
            *ret_limit_bytes = mib * MIB;
        } else if (head.n != word.n) {
            return false;
        }
        *ret_strategy = (enum plan_strategy)i;
        return true;
    }
    return false;
}

#define DEFAULT_MARGIN (256 * MIB)
#define DEFAULT_FLOOR  4096
#define COMFORT        16384
#define COMFORT_FAST   8192 /* speed first: room goes to larger micro-batches and plain caches */

void plan_policy_default(struct plan_policy *p)
{
    *p = (struct plan_policy){
        .strategy = PLAN_BALANCED, .kv_floor = GGML_Q4_0, .allow_cpu = true, .margin_bytes = DEFAULT_MARGIN};
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Would the runtime take a cache of this type? Blocks must divide the heads; a quantised V cache needs flash
 * attention. */
static bool kv_possible(const struct search *s, uint32_t type)
{
    const struct facts *f = &s->est->facts;
    const struct ggml_type_info *info = ggml_type_info(type);
    if (!info || (info->block > 1 && (!s->base.flash_attn || f->flashless)))
        return false;
    for (uint32_t il = 0; il < f->n_layer; il++)
        if (f->layers[il].cached && (f->layers[il].d_k % info->block || f->layers[il].d_v % info->block))
            return false;
    return true;
}

/* Bytes of 256 values. */
static uint64_t kv_size(uint32_t type)
{
    uint64_t bytes = 0;
    return ggml_row_bytes(type, 256, &bytes) ? bytes : 0;
}

/* f16, q8_0, q4_0 down to the floor. */
static void resolve_kv(struct search *s)
{
    static const uint32_t types[] = {GGML_F16, GGML_Q8_0, GGML_Q4_0};
    const struct plan_policy *p = s->policy;
    if (p->kv_type_fixed) {
        s->kv[s->n_kv++] = (struct kv_choice){p->type_k, p->type_v};
        return;
    }
    for (size_t i = 0; i < TABLE_COUNT(types); i++)
        if (i == 0 ||
            (kv_possible(s, types[i]) && kv_size(types[i]) >= kv_size(p->kv_floor) && s->est->facts.caches))
            s->kv[s->n_kv++] = (struct kv_choice){types[i], types[i]};
}

static void resolve(struct search *s)
{
    const struct plan_policy *p = s->policy;
    uint32_t trained = s->m->context_train ? s->m->context_train : DEFAULT_FLOOR;
    s->ctx_given = p->ctx != 0;
    s->want_ctx = p->ctx ? p->ctx : trained;
    s->least_ctx = least(p->ctx_min ? p->ctx_min : DEFAULT_FLOOR, p->ctx ? p->ctx : trained);
    s->margin = p->margin_bytes;
    s->vram_limit = p->vram_limit_bytes ? p->vram_limit_bytes : UINT64_MAX;
    if (p->base)
        s->base = *p->base;
    else
        plan_params_default(&s->base);
    s->base.gpu_layers = p->gpu_layers_fixed ? p->gpu_layers : PLAN_ALL_LAYERS;
    s->base.n_tensor_split = 0;
    s->least_pace = INT32_MIN;
    s->base.parallel = p->parallel ? p->parallel : 4;
    s->base.batch = p->batch ? p->batch : 2048;
    s->base.ubatch = p->ubatch ? p->ubatch : 512;
    s->base.embedding = s->base.embedding || p->embedding;
    s->base.pool_last = s->base.embedding; /* as the runtime is told to (runtime/llamacpp.c) */
    resolve_kv(s);
    if (!s->ctx_given && p->strategy == PLAN_POWER_EFFICIENT)
        s->want_ctx = least(trained, 8192);
    if (p->strategy == PLAN_MAX_CONTEXT && !p->ubatch)
        s->base.ubatch = 256;
    uint32_t comfort = p->strategy == PLAN_MAX_PERFORMANCE ? COMFORT_FAST : COMFORT;
    if (s->ctx_given || p->strategy == PLAN_MAX_CONTEXT)
        comfort = s->want_ctx;
    s->comfort_ctx = least(s->want_ctx, comfort);
    if (s->comfort_ctx < s->least_ctx)
        s->comfort_ctx = s->least_ctx;
}

/* ---- the answer ---- */

/* One thread a physical core, since more share the cores' ports and caches; fewer where they have next to
 * nothing to do, or where power counts and memory is what they wait for. A prompt is products, not memory:
 * where the cores compute it, all of them do. */
static void set_threads(const struct search *s, const struct attempt *a, struct plan *out)
{
    const struct plan_host *h = &s->machine->host;
    uint32_t cores = h->cores ? h->cores : 4;
    bool idle = a->n_used > 0 && a->estimate.layers_cpu == 0 && a->params.n_cpu_moe == 0,
         frugal = s->policy->strategy == PLAN_POWER_EFFICIENT;
    out->threads = idle ? least(cores, frugal ? 2 : 8) : frugal ? least(cores, 8) : cores;
    out->threads_batch = idle ? out->threads : cores;
}

static void fill(struct search *s, const struct attempt *a)
{
    struct plan *out = s->out;
    out->fits = true;
    out->estimate = a->estimate;
    /* A server looks at its clients between two batches: only several GPUs, which work on the parts of one
     * batch at the same time, repay a longer one. It changes no byte. */
    struct plan_params *p = &out->estimate.params;
    if (!s->policy->batch && !p->embedding && a->n_used <= 1)
        p->batch = p->ubatch;
    set_threads(s, a, out);
    out->n_used = a->n_used;
    memcpy(out->used, a->used, a->n_used * sizeof *a->used);
    out->speed = a->speed;
    reasons_of(s, a);
}

static enum rc no_fit(struct search *s, struct err *err)
{
    enum rc rc = err_set(err, RC_NO_FIT, "%s does not fit: %s", s->m->name,
                         s->shortfall[0] ? s->shortfall : "no step could be tried");
    err_hint(err, "free memory, allow a shorter context, or use a smaller quantisation");
    return rc;
}

/* Every step that the reasons tell of the latest file, in one line. */
static enum rc no_step_left(struct search *s, uint32_t loads, struct err *err)
{
    struct buf tried = {0};
    for (uint32_t i = 0; i < s->out->n_reasons; i++) {
        struct str words = str_from(s->out->reasons[i].text);
        if (!strcmp(s->out->reasons[i].code, "smaller_quantization"))
            tried.n = 0;
        if (strcmp(s->out->reasons[i].code, "ladder"))
            continue;
        (void)str_cut(&words, ':');
        words = str_trim(words);
        words.n -= words.n > 0; /* the full stop */
        buf_printf(&tried, "%s%.*s", tried.n ? ", " : "", STR_ARG(words));
    }
    enum rc rc = err_set(err, RC_NO_FIT, "%s: no step is left after %u failed loads", s->m->name, loads);
    err_hint(err, "tried: %.*s; free memory, or use a smaller quantisation", STR_ARG(buf_str(&tried)));
    buf_release(&tried);
    return rc;
}

/* A device that only the draft is told to use must at least be here. */
static enum rc check_draft_device(const struct search *s, struct err *err)
{
    const char *wanted = s->base.extras ? s->base.extras->draft_device : NULL;
    bool here = !wanted || !s->base.extras->draft;
    for (size_t i = 0; i < s->machine->n_devices && !here; i++)
        here = plan_device_is(&s->machine->devices[i], wanted);
    if (here)
        return RC_OK;
    enum rc rc = err_set(err, RC_NOT_FOUND, "the draft of %s is to use device '%s', which is not here",
                         s->m->name, wanted);
    err_hint(err, "arriero gpus lists the devices");
    return rc;
}

/* What one device would hold: several never hold less. */
static uint64_t least_bytes(struct search *s)
{
    struct plan_estimate e;
    struct plan_params *p = &s->slim;
    *p = s->base;
    if (s->policy->gpu_layers_fixed || p->n_overrides || p->extras || s->n_order == 0)
        return 0;
    p->ctx = s->least_ctx;
    p->ubatch = least(p->ubatch, PLACE_UB_LEAST);
    p->type_k = s->kv[s->n_kv - 1].k;
    p->type_v = s->kv[s->n_kv - 1].v;
    if (estimator_sizes(s->est, p, &s->machine->devices[s->order[0]], 1, &e, NULL) != RC_OK)
        return 0;
    return e.parts[0].model_bytes + e.parts[0].context_bytes;
}

/* What every search begins with. */
static enum rc begin(struct search *s, struct err *err)
{
    resolve(s);
    enum rc rc = sets_candidates(s, err);
    if (!rc)
        rc = check_draft_device(s, err);
    if (rc)
        return rc;
    /* what the runtime refuses, no search can mend */
    struct plan_estimate probe;
    struct plan_params p = s->base;
    p.ctx = s->least_ctx;
    p.type_k = s->kv[0].k;
    p.type_v = s->kv[0].v;
    rc = estimator_run(s->est, &p, NULL, 0, false, &probe, err);
    if (!rc)
        s->least_bytes = least_bytes(s);
    return rc;
}

/* Takes *steps down; leaves in it what could not be taken. */
static enum rc run(struct search *s, uint32_t *steps, struct err *err)
{
    enum rc rc = begin(s, err);
    if (rc)
        return rc;
    struct attempt *a = mem_calloc(1, sizeof *a);
    if (!search_best(s, a)) {
        rc = no_fit(s, err);
    } else {
        *steps -= ladder_descend(s, a, *steps);
        if (*steps) {
            rc = no_step_left(s, s->policy->ladder, err);
        } else {
            try_speed(s, a);
            fill(s, a);
        }
    }
    free(a);
    return rc;
}

void placer_release(struct placer *k)
{
    for (uint32_t i = 0; i < k->n; i++) {
        estimator_release(k->files[i].est);
        free(k->files[i].est);
        free(k->files[i].cuts);
    }
    k->n = 0;
}

/* Gives the search what the placer knows of the file. */
static enum rc lend(struct placer *k, struct search *s, struct err *err)
{
    uint32_t i = 0;
    while (i < k->n && k->files[i].m != s->m)
        i++;
    if (i == TABLE_COUNT(k->files)) /* a policy names no more */
        return err_set(err, RC_LIMIT, "more than %d files of one model", PLAN_MAX_ALTERNATIVES);
    if (i == k->n) {
        struct estimator *e = mem_new(struct estimator);
        enum rc rc = estimator_init(e, s->m, err);
        if (rc) {
            free(e);
            return rc;
        }
        k->files[k->n].m = s->m;
        k->files[k->n].cuts = mem_calloc(MAX_KV_CHOICES + 1, sizeof *k->files[k->n].cuts);
        k->files[k->n++].est = e;
    }
    s->est = k->files[i].est;
    s->cuts = k->files[i].cuts;
    return RC_OK;
}

static enum rc place_file(struct placer *k, const struct model *m, const struct plan_policy *policy,
                          const struct plan_machine *machine, bool last, uint32_t *steps,
                          struct plan *ret_plan, struct err *err)
{
    struct search *s = mem_calloc(1, sizeof *s);
    *s =
        (struct search){.m = m, .policy = policy, .machine = machine, .keep_devices = !last, .out = ret_plan};
    enum rc rc = lend(k, s, err);
    if (!rc)
        rc = run(s, steps, err);
    free(s);
    return rc;
}

static double bits_per_weight(const struct model *m)
{
    return m->parameters ? 8 * (double)m->tensor_bytes / (double)m->parameters : 0;
}

/* Of the smaller files, largest first, those that the floor of quality allows. */
static uint32_t good_enough(const struct plan_policy *policy)
{
    uint32_t n = 0;
    while (n < policy->n_smaller && bits_per_weight(policy->smaller[n]) >= policy->least_bpw)
        n++;
    return n;
}

enum rc placer_place(struct placer *k, const struct model *m, const struct plan_policy *policy,
                     const struct plan_machine *machine, struct plan *ret_plan, struct err *err)
{
    uint32_t steps = policy->ladder, n_smaller = good_enough(policy);
    *ret_plan = (struct plan){.strategy = policy->strategy, .smaller = PLAN_AS_ASKED};
    enum rc rc = place_file(k, m, policy, machine, n_smaller == 0, &steps, ret_plan, err);
    for (uint32_t i = 0; i < n_smaller && rc == RC_NO_FIT; i++) {
        const struct model *next = policy->smaller[i];
        steps -= steps > 0; /* the change of files is a step */
        reason_add(ret_plan, "smaller_quantization", "%s in %s would not do, so %s takes its place.", m->name,
                   m->quantization, next->quantization);
        rc = place_file(k, next, policy, machine, i + 1 == n_smaller, &steps, ret_plan, err);
        ret_plan->smaller = rc ? PLAN_AS_ASKED : (int32_t)i;
    }
    if (rc == RC_NO_FIT && n_smaller < policy->n_smaller)
        reason_add(ret_plan, "quality_floor", "%s was not tried: %.1f bits a weight, and the floor is %.1f.",
                   policy->smaller[n_smaller]->quantization, bits_per_weight(policy->smaller[n_smaller]),
                   policy->least_bpw);
    return rc;
}

/* ---- the class of the answer ---- */

static answer_class class_of(const struct plan_machine *machine, const struct plan_estimate *e,
                             uint32_t n_used)
{
    if (machine->n_devices == 0)
        return ON_DEVICES;
    if (n_used == 0)
        return ON_HOST;
    return e->layers_cpu || e->params.n_cpu_moe ? SHARED : ON_DEVICES;
}

static enum rc class_in_file(struct placer *k, const struct model *m, const struct plan_policy *policy,
                             const struct plan_machine *machine, bool only_devices, answer_class *ret,
                             uint64_t *ret_short_bytes, struct err *err)
{
    struct plan unread = {.fits = false}; /* reasons */
    struct search s = {.m = m,
                       .policy = policy,
                       .machine = machine,
                       .any = true,
                       .only_devices = only_devices,
                       .out = &unread};
    struct attempt a;
    enum rc rc = lend(k, &s, err);
    if (!rc)
        rc = begin(&s, err);
    if (!rc)
        *ret = search_best(&s, &a) ? class_of(machine, &a.estimate, a.n_used) : NOWHERE;
    if (!rc)
        *ret_short_bytes = search_short_bytes(&s);
    return rc;
}

/* After failed loads the class is that of what the ladder leaves, so that it must be descended. */
static enum rc class_on_ladder(struct placer *k, const struct model *m, const struct plan_policy *policy,
                               const struct plan_machine *machine, answer_class *ret, struct err *err)
{
    struct plan *p = mem_calloc(1, sizeof *p);
    enum rc rc = placer_place(k, m, policy, machine, p, err);
    if (!rc || rc == RC_NO_FIT)
        *ret = rc ? NOWHERE
                  : (answer_class)(p->smaller - PLAN_AS_ASKED) * PLACES +
                        class_of(machine, &p->estimate, p->n_used);
    free(p);
    return rc == RC_NO_FIT ? RC_OK : rc;
}

enum rc placer_class(struct placer *k, const struct model *m, const struct plan_policy *policy,
                     const struct plan_machine *machine, answer_class worst, answer_class *ret_class,
                     uint64_t *ret_short_bytes, struct err *err)
{
    *ret_short_bytes = 0;
    if (policy->ladder)
        return class_on_ladder(k, m, policy, machine, ret_class, err);
    uint32_t n_files = 1 + good_enough(policy);
    answer_class got = NOWHERE, passed = 0;
    for (uint32_t i = 0; i < n_files && got == NOWHERE && passed <= worst; i++, passed += PLACES) {
        const struct model *file = i ? policy->smaller[i - 1] : m;
        uint64_t short_bytes;
        bool only_devices = machine->n_devices > 0 && passed + ON_DEVICES == worst;
        enum rc rc = class_in_file(k, file, policy, machine, only_devices, &got, &short_bytes, err);
        if (rc)
            return rc;
        if (i == 0)
            *ret_short_bytes = short_bytes;
        if (got != NOWHERE)
            got += passed;
    }
    *ret_class = got <= worst ? got : NOWHERE;
    return RC_OK;
}

enum rc plan_place(const struct model *m, const struct plan_policy *policy,
                   const struct plan_machine *machine, struct plan *ret_plan, struct err *err)
{
    struct placer k = {.n = 0};
    enum rc rc = placer_place(&k, m, policy, machine, ret_plan, err);
    placer_release(&k);
    return rc;
}

/* Half of the device memory, for what fit-vram would answer where nobody named a limit. */
static uint64_t half_of_free(const struct plan_machine *machine)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < machine->n_devices; i++)
        sum += machine->devices[i].free_bytes / 2;
    return sum;
}

static void describe(const struct plan *p, uint64_t limit_bytes, char *out, size_t cap)
{
    const struct plan_params *q = &p->estimate.params;
    char limit[64] = "", experts[48] = "", size[32];
    if (limit_bytes)
        snprintf(limit, sizeof limit, "in %s: ", str_human_bytes(limit_bytes, size, sizeof size));
    if (q->n_cpu_moe)
        snprintf(experts, sizeof experts, " (experts of %u in RAM)", q->n_cpu_moe);
    if (p->n_used == 0)
        snprintf(out, cap, "%sCPU alone, %u tokens, cache %s, %.1f tokens/s", limit, q->ctx,
                 kv_word(q->type_k), p->speed.decode_tps);
    else
        snprintf(out, cap, "%s%u GPU%s, %u of %u layers%s, %u tokens, cache %s, %.1f tokens/s", limit,
                 p->n_used, p->n_used == 1 ? "" : "s", p->estimate.layers_gpu,
                 p->estimate.layers_gpu + p->estimate.layers_cpu, experts, q->ctx, kv_word(q->type_k),
                 p->speed.decode_tps);
}

void plan_alternatives(const struct model *m, const struct plan_policy *policy,
                       const struct plan_machine *machine, struct plan *plan)
{
    plan->n_alternatives = 0;
    struct plan *other = mem_calloc(1, sizeof *other);
    struct placer k = {.n = 0};
    for (unsigned i = 0; i < PLAN_STRATEGIES; i++) {
        struct plan_policy p = *policy;
        struct err err;
        p.strategy = (enum plan_strategy)i;
        if (p.strategy == policy->strategy)
            continue;
        if (p.strategy == PLAN_FIT_VRAM && !p.vram_limit_bytes)
            p.vram_limit_bytes = half_of_free(machine);
        if (p.strategy == PLAN_FIT_VRAM && !p.vram_limit_bytes)
            continue; /* no device memory to limit */
        struct plan_alternative *alt = &plan->alternatives[plan->n_alternatives++];
        alt->strategy = p.strategy;
        alt->fits = placer_place(&k, m, &p, machine, other, &err) == RC_OK;
        if (alt->fits)
            describe(other, p.strategy == PLAN_FIT_VRAM ? p.vram_limit_bytes : 0, alt->text,
                     sizeof alt->text);
        else
            snprintf(alt->text, sizeof alt->text, "%.190s", err.message);
    }
    placer_release(&k);
    free(other);
}
