/* The table of what was learned: see learn.h. Layer plan; pure. */
#include "plan/learn.h"

#include "base/mem.h"
#include "plan/speed.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const words[] = {[LEARN_DECODE] = "decode",
                                    [LEARN_PREFILL] = "prefill",
                                    [LEARN_LOAD] = "load",
                                    [LEARN_OVERHEAD] = "overhead"};

const char *learn_kind_word(enum learn_kind k)
{
    return (unsigned)k < LEARN_KINDS ? words[k] : "unknown";
}

bool learn_kind_from(struct str word, enum learn_kind *ret_kind)
{
    for (unsigned k = 0; k < LEARN_KINDS; k++)
        if (str_eq_c(word, words[k])) {
            *ret_kind = (enum learn_kind)k;
            return true;
        }
    return false;
}

/* ---- the table ---- */

/* How much of a key must agree, from all of it to the least that still says something. */
enum match { MATCH_ALL, MATCH_ANY_BUILD, MATCH_ANY_ARCHITECTURE, MATCHES };

static bool matches(const struct learn_row *r, enum learn_kind kind, const struct learn_key *k, enum match m)
{
    if (r->kind != kind || r->key.flash_attn != k->flash_attn || strcmp(r->key.device, k->device) != 0 ||
        strcmp(r->key.quantization, k->quantization) != 0)
        return false;
    if (m < MATCH_ANY_ARCHITECTURE && strcmp(r->key.architecture, k->architecture) != 0)
        return false;
    return m >= MATCH_ANY_BUILD || strcmp(r->key.runtime, k->runtime) == 0;
}

static bool is_sane(const struct learn_sample *s)
{
    if ((unsigned)s->kind >= LEARN_KINDS || !isfinite(s->value) || !isfinite(s->size) || s->size < 0)
        return false;
    if (s->kind == LEARN_OVERHEAD)
        return s->value >= 0 && s->value < 1e15;
    return s->value > 1 / LEARN_RATIO_MAX && s->value < LEARN_RATIO_MAX;
}

static struct learn_row *row_for(struct plan_learned *l, const struct learn_sample *s)
{
    struct learn_row *oldest = &l->rows[0];
    for (size_t i = 0; i < l->n_rows; i++) {
        if (matches(&l->rows[i], s->kind, &s->key, MATCH_ALL))
            return &l->rows[i];
        if (l->rows[i].last_used < oldest->last_used)
            oldest = &l->rows[i];
    }
    struct learn_row *r = l->n_rows < LEARN_ROWS ? &l->rows[l->n_rows++] : oldest;
    *r = (struct learn_row){.kind = s->kind, .key = s->key};
    return r;
}

bool learn_add(struct plan_learned *l, const struct learn_sample *s)
{
    if (!is_sane(s))
        return false;
    struct learn_row *r = row_for(l, s);
    size_t at = r->seen++ % LEARN_RING;
    r->value[at] = s->value;
    r->size[at] = s->size;
    r->n = r->n < LEARN_RING ? r->n + 1 : LEARN_RING;
    r->last_used = ++l->serial;
    return true;
}

/* ---- robust figures ---- */

struct point {
    double value, weight;
};

struct points {
    struct point p[2 * LEARN_RING];
    uint32_t n;
};

static int by_value(const void *a, const void *b)
{
    double x = ((const struct point *)a)->value, y = ((const struct point *)b)->value;
    return (x > y) - (x < y);
}

/* Models within a factor of two in size count fully, others the less the further away they are. */
static double nearness(double size, double other)
{
    if (size <= 0 || other <= 0)
        return 1;
    double octaves = log2(size / other);
    return 1 / (1 + octaves * octaves);
}

/* Samples of every row that matches at the tightest level that has any. A level that joins several rows takes
 * the latest of each, as far as there is room. */
static void collect(const struct plan_learned *l, enum learn_kind kind, const struct learn_key *key,
                    double size, struct points *ret)
{
    ret->n = 0;
    for (int m = 0; m < MATCHES && ret->n == 0; m++)
        for (size_t i = l->n_rows; i-- > 0;) {
            const struct learn_row *r = &l->rows[i];
            if (!matches(r, kind, key, (enum match)m))
                continue;
            for (uint32_t k = 0; k < r->n && ret->n < TABLE_COUNT(ret->p); k++)
                ret->p[ret->n++] = (struct point){r->value[k], nearness(size, r->size[k])};
        }
    qsort(ret->p, ret->n, sizeof ret->p[0], by_value);
}

/* Value below which the share q of the weight lies; between two points in the middle of both. */
static double quantile(const struct points *p, double q, bool weighted)
{
    double sum = 0, seen = 0;
    for (uint32_t i = 0; i < p->n; i++)
        sum += weighted ? p->p[i].weight : 1;
    for (uint32_t i = 0; i < p->n; i++) {
        seen += weighted ? p->p[i].weight : 1;
        if (i + 1 < p->n && fabs(seen - q * sum) < 1e-9 * sum)
            return (p->p[i].value + p->p[i + 1].value) / 2;
        if (seen >= q * sum)
            return p->p[i].value;
    }
    return p->n ? p->p[p->n - 1].value : 0;
}

struct learn_figure learn_lookup(const struct plan_learned *l, enum learn_kind kind,
                                 const struct learn_key *key, double size)
{
    struct points p;
    if (!l || !key->device[0])
        return (struct learn_figure){0};
    collect(l, kind, key, size, &p);
    if (p.n == 0)
        return (struct learn_figure){0};
    return (struct learn_figure){.value = kind == LEARN_OVERHEAD ? quantile(&p, 0.95, false)
                                                                 : quantile(&p, 0.5, true),
                                 .spread = (quantile(&p, 0.95, false) - quantile(&p, 0.05, false)) / 2,
                                 .n = p.n};
}

/* ---- into the machine ---- */

static struct learn_key key_of(const char *runtime, const char *device, const struct model *m)
{
    struct learn_key k = {0};
    snprintf(k.runtime, sizeof k.runtime, "%s", runtime);
    snprintf(k.device, sizeof k.device, "%s", device);
    snprintf(k.architecture, sizeof k.architecture, "%s", m->architecture);
    return k;
}

static struct learn_key speed_key(const char *runtime, const char *device, const struct model *m)
{
    struct learn_key k = key_of(runtime, device, m);
    snprintf(k.quantization, sizeof k.quantization, "%s", m->quantization);
    return k;
}

static void teach(struct plan_taught *t, const char *device, uint64_t *overhead_bytes, bool flash_attn,
                  const struct plan_learned *l, const char *runtime, const struct model *m)
{
    double size = (double)m->tensor_bytes;
    struct learn_key speeds = speed_key(runtime, device, m), sizes = key_of(runtime, device, m);
    sizes.flash_attn = flash_attn;
    struct learn_figure decode = learn_lookup(l, LEARN_DECODE, &speeds, size),
                        prefill = learn_lookup(l, LEARN_PREFILL, &speeds, size),
                        load = learn_lookup(l, LEARN_LOAD, &speeds, size),
                        over = learn_lookup(l, LEARN_OVERHEAD, &sizes, size);
    *t = (struct plan_taught){.decode_factor = decode.value,
                              .prefill_factor = prefill.value,
                              .load_factor = load.value,
                              .decode_samples = decode.n,
                              .prefill_samples = prefill.n};
    if (over.n == 0)
        return;
    uint64_t bytes = (uint64_t)ceil(over.value);
    t->overhead_loads = over.n;
    t->overhead_spread_bytes = (uint64_t)over.spread;
    if (over.n >= LEARN_ENOUGH || bytes > *overhead_bytes)
        *overhead_bytes = bytes;
}

void plan_machine_learn(struct plan_machine *machine, const struct plan_learned *l, const char *runtime,
                        const struct model *m, bool flash_attn)
{
    if (!l)
        return;
    for (size_t i = 0; i < machine->n_devices; i++) {
        struct plan_device *d = &machine->devices[i];
        teach(&d->taught, d->model, &d->overhead_bytes, flash_attn, l, runtime, m);
    }
    struct plan_host *h = &machine->host;
    teach(&h->taught, h->model, &h->overhead_bytes, flash_attn, l, runtime, m);
}

/* ---- samples ---- */

#define LEAST_SHARE 0.5  /* of the predicted time, for a device to be held responsible */
#define LEAST_RATIO 0.02 /* when the fixed parts alone explain the measured time */

static const char *model_of(const struct layout *l, const struct plan_machine *machine, int d)
{
    return d == layout_host(l) ? machine->host.model : l->devices[d].model;
}

/* The device that takes most of the time answers for the difference: the others are taken at their word. */
static bool sample_of(const struct layout *l, const struct plan_machine *machine,
                      const struct speed_seconds *s, double measured, enum learn_kind kind,
                      const char *runtime, struct learn_sample *ret)
{
    int most = 0;
    double sum = 0, others = 0, top = 0;
    for (int d = 0; d < s->n; d++) {
        const struct plan_taught *t = speed_taught(l, machine, d);
        double f = kind == LEARN_DECODE ? t->decode_factor : t->prefill_factor;
        double own = s->fixed[d] + s->variable[d] * (f > 0 ? f : 1);
        sum += own;
        if (own > top) {
            top = own;
            most = d;
        }
    }
    others = sum - top + s->fixed[most];
    const char *device = model_of(l, machine, most);
    if (!(s->variable[most] > 0) || !device[0] || top < LEAST_SHARE * sum || !(measured > 0))
        return false;
    double ratio = (measured - others) / s->variable[most];
    *ret = (struct learn_sample){.kind = kind,
                                 .key = speed_key(runtime, device, l->f->m),
                                 .value = ratio > LEAST_RATIO ? ratio : LEAST_RATIO,
                                 .size = (double)l->f->m->tensor_bytes};
    return true;
}

size_t learn_from_request(const struct model *m, const struct plan_estimate *e,
                          const struct plan_machine *machine, const char *runtime,
                          const struct plan_timing *t, struct learn_sample ret_samples[2])
{
    struct plan_device devices[PLAN_MAX_DEVICES];
    struct estimator est;
    struct speed_seconds s;
    size_t n = 0;
    bool prefill = t->prompt_tokens >= LEARN_MIN_PROMPT, decode = t->decode_tokens >= LEARN_MIN_DECODE;
    if ((!prefill && !decode) || t->prompt_tokens > UINT32_MAX || t->cached_tokens > UINT32_MAX ||
        t->decode_tokens > UINT32_MAX || speed_layout(&est, m, e, machine, devices, NULL))
        return 0;
    double cached = (double)t->cached_tokens;
    uint32_t prompt = (uint32_t)t->prompt_tokens;
    if (prefill) {
        speed_prefill(&est.layout, machine, cached, prompt, &s);
        n += sample_of(&est.layout, machine, &s, t->prompt_seconds, LEARN_PREFILL, runtime, &ret_samples[n]);
    }
    if (decode) {
        double tokens = (double)t->decode_tokens;
        speed_decode(&est.layout, machine, cached + prompt + tokens / 2, &s);
        n += sample_of(&est.layout, machine, &s, t->decode_seconds / tokens, LEARN_DECODE, runtime,
                       &ret_samples[n]);
    }
    estimator_release(&est);
    return n;
}

bool learn_from_load(const struct model *m, const struct plan_estimate *e, size_t part,
                     const struct plan_machine *machine, const char *runtime, uint64_t driver_bytes,
                     struct learn_sample *ret_sample)
{
    if (part >= e->n_parts || driver_bytes == 0)
        return false;
    const struct plan_part *p = &e->parts[part];
    const char *device = machine->host.model;
    uint64_t predicted = p->model_bytes + p->context_bytes + p->compute_bytes;
    for (size_t i = 0; p->kind != PLAN_HOST && i < machine->n_devices; i++)
        if (!strcmp(machine->devices[i].name, p->name))
            device = machine->devices[i].model;
    if (p->kind == PLAN_HOST && e->params.mmap) /* the kernel counts mapped weights apart */
        predicted -= p->model_bytes - p->repack_bytes;
    if (!device[0] || (p->kind != PLAN_HOST && device == machine->host.model))
        return false;
    *ret_sample = (struct learn_sample){
        .kind = LEARN_OVERHEAD, .key = key_of(runtime, device, m), .size = (double)m->tensor_bytes};
    ret_sample->key.flash_attn = e->params.flash_attn;
    ret_sample->value = driver_bytes > predicted ? (double)(driver_bytes - predicted) : 0;
    return true;
}

bool learn_from_loading(const struct model *m, const struct plan_host *host, const char *runtime,
                        double predicted_s, double measured_s, struct learn_sample *ret_sample)
{
    double factor = host->taught.load_factor > 0 ? host->taught.load_factor : 1;
    if (!host->model[0] || !(predicted_s > 0) || !(measured_s > 0))
        return false;
    *ret_sample = (struct learn_sample){.kind = LEARN_LOAD,
                                        .key = speed_key(runtime, host->model, m),
                                        .value = measured_s / (predicted_s / factor),
                                        .size = (double)m->tensor_bytes};
    return true;
}
