/* Projector, adapters and draft model beside the main model. Layer plan; see extras.h. Sources: what
 * llama-server logs of its buffers (0.7.0, RPC and Vulkan devices): a projector lies whole on one device,
 * the first it may use; an adapter's matrices lie where the weights lie that they change; a draft has its own
 * layers and cache over the same devices with the same split, context and slots, and one row of logits a
 * slot. */
#include "plan/extras.h"

#include "plan/memory.h"

#include <stdio.h>
#include <string.h>

#define HOST_ALIGNMENT 32

struct extras {
    /* adapters */
    const struct model *adapters[PLAN_MAX_ADAPTERS];
    uint32_t n_adapters;
    struct adapter_pair *pairs; /* n_weights of each adapter in turn */
    /* projector */
    const struct model *projector;
    struct projector_facts projector_facts;
    struct projector_bytes projector_bytes;
    int projector_backend; /* of projector_bytes; -1 = host, -2 = not measured yet */
    /* draft */
    const struct model *draft;
    struct estimator draft_estimator;
    struct plan_estimate draft_estimate;
};

void extras_free(struct extras *x)
{
    if (!x)
        return;
    if (x->draft)
        estimator_release(&x->draft_estimator);
    free(x->pairs);
    free(x);
}

/* ---- adapters ---- */

static int32_t weight_index(const struct facts *f, const char *name, size_t n)
{
    for (uint32_t i = 0; i < f->n_weights; i++)
        if (!strncmp(f->weights[i].t->name, name, n) && f->weights[i].t->name[n] == '\0')
            return (int32_t)i;
    return -1;
}

/* a reads what the weight reads, b writes what it writes, and between them is the rank. For embeddings a is
 * the turned matrix: one column a token. */
static bool fits(const struct tensor *w, const struct tensor *a, const struct tensor *b)
{
    if (!strncmp(w->name, "token_embd", 10))
        return a->ne[1] == w->ne[1] ? false
                                    : a->ne[0] == w->ne[1] && b->ne[0] == w->ne[0] && a->ne[1] == b->ne[1];
    return a->ne[0] == w->ne[0] && b->ne[1] == w->ne[1] && a->ne[1] == b->ne[0];
}

static enum rc read_pair(const struct facts *f, const struct model *m, const struct tensor *t,
                         struct adapter_pair *pairs, struct err *err)
{
    size_t n = strlen(t->name), stem = n > 7 ? n - 7 : 0;
    bool is_a = stem && !strcmp(t->name + stem, ".lora_a"), is_b = stem && !strcmp(t->name + stem, ".lora_b");
    if (!is_a && !is_b) {
        if (n > 12 && !strcmp(t->name + n - 12, "_norm.weight"))
            return RC_OK; /* the runtime passes over them too */
        return err_set(err, RC_INVALID, "%s: the tensor %s is no part of an adapter", m->path, t->name);
    }
    int32_t w = weight_index(f, t->name, stem);
    if (w < 0) {
        enum rc rc =
            err_set(err, RC_INVALID, "%s: %s has no tensor %.*s", m->path, f->m->path, (int)stem, t->name);
        err_hint(err, "the adapter was made for another model");
        return rc;
    }
    const struct tensor **slot = is_a ? &pairs[w].a : &pairs[w].b;
    *slot = t;
    return RC_OK;
}

static enum rc check_pairs(const struct facts *f, const struct model *m, const struct adapter_pair *pairs,
                           struct err *err)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < f->n_weights; i++) {
        const struct adapter_pair *p = &pairs[i];
        if (!p->a && !p->b)
            continue;
        const struct tensor *w = f->weights[i].t;
        if (!p->a || !p->b)
            return err_set(err, RC_INVALID, "%s: %s has only one of its two matrices", m->path, w->name);
        if (!fits(w, p->a, p->b)) {
            enum rc rc = err_set(err, RC_INVALID, "%s: the matrices for %s do not fit those of %s", m->path,
                                 w->name, f->m->path);
            err_hint(err, "the adapter was made for another model");
            return rc;
        }
        n++;
    }
    return n ? RC_OK : err_set(err, RC_INVALID, "%s changes no tensor", m->path);
}

static enum rc read_adapter(const struct facts *f, const struct model *m, struct adapter_pair *pairs,
                            struct err *err)
{
    struct str kind = STR("");
    if (strcmp(m->type, "adapter")) {
        enum rc rc = err_set(err, RC_INVALID, "%s is no adapter: its general.type is '%s'", m->path, m->type);
        err_hint(err, "llama.cpp's convert_lora_to_gguf.py makes one");
        return rc;
    }
    if (!model_key_str(m, "adapter.type", &kind) || !str_eq_c(kind, "lora"))
        return err_set(err, RC_UNSUPPORTED, "%s: an adapter of kind '%.*s', only lora is known", m->path,
                       STR_ARG(kind));
    if (strcmp(m->architecture, f->m->architecture))
        return err_set(err, RC_INVALID, "%s is for the architecture '%s', the model has '%s'", m->path,
                       m->architecture, f->m->architecture);
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        enum rc rc = read_pair(f, m, &m->tensors[i], pairs, err);
        if (rc)
            return rc;
    }
    return check_pairs(f, m, pairs, err);
}

static enum rc read_adapters(struct extras *x, const struct facts *f, const struct plan_extras *want,
                             struct err *err)
{
    if (x->n_adapters == want->n_adapters &&
        !memcmp(x->adapters, want->adapters, want->n_adapters * sizeof *want->adapters))
        return RC_OK;
    if (want->n_adapters > PLAN_MAX_ADAPTERS)
        return err_set(err, RC_INVALID, "%u adapters: at most %d", want->n_adapters, PLAN_MAX_ADAPTERS);
    free(x->pairs);
    x->n_adapters = 0;
    x->pairs = mem_try_array((size_t)f->n_weights * want->n_adapters + 1, sizeof *x->pairs);
    if (!x->pairs)
        return err_set(err, RC_NOMEM, "no memory for the adapters of %s", f->m->path);
    for (uint32_t i = 0; i < want->n_adapters; i++) {
        enum rc rc = read_adapter(f, want->adapters[i], x->pairs + (size_t)i * f->n_weights, err);
        if (rc)
            return rc;
    }
    memcpy(x->adapters, want->adapters, want->n_adapters * sizeof *want->adapters);
    x->n_adapters = want->n_adapters;
    return RC_OK;
}

/* On the device of the weight, never among packed ones. */
static void add_adapters(const struct extras *x, const struct layout *l, struct plan_estimate *e)
{
    for (uint32_t k = 0; k < x->n_adapters; k++) {
        for (uint32_t i = 0; i < l->f->n_weights; i++) {
            const struct adapter_pair *p = &x->pairs[(size_t)k * l->f->n_weights + i];
            if (!p->a)
                continue;
            int dev = layout_weight(l, i).device;
            uint64_t n = dev == layout_host(l) ? backend_host_bytes(HOST_ALIGNMENT, p->a) +
                                                     backend_host_bytes(HOST_ALIGNMENT, p->b)
                                               : backend_stored_bytes(l->devices[dev].backend, p->a) +
                                                     backend_stored_bytes(l->devices[dev].backend, p->b);
            e->parts[dev].model_bytes += n;
            e->parts[dev].adapter_bytes += n;
        }
    }
}

/* ---- projector ---- */

static enum rc add_projector(struct extras *x, const struct layout *l, struct graph *g,
                             struct plan_estimate *e, struct err *err)
{
    const struct plan_extras *want = l->p->extras;
    int dev = want->projector_on_host || l->n_devices == 0 ? layout_host(l) : 0;
    bool host = dev == layout_host(l);
    int backend = host ? -1 : (int)l->devices[0].backend;
    enum rc rc = RC_OK;
    if (x->projector != want->projector) {
        x->projector = NULL;
        rc = projector_read(&x->projector_facts, want->projector, err);
        if (rc)
            return rc;
        x->projector = want->projector;
        x->projector_backend = -2;
    }
    if (x->projector_backend != backend) {
        rc = projector_measure(&x->projector_facts, host, host ? PLAN_CUDA : (enum plan_backend)backend, g,
                               &x->projector_bytes, err);
        if (rc)
            return rc;
        x->projector_backend = backend;
    }
    const struct projector_bytes *b = &x->projector_bytes;
    struct plan_part *part = &e->parts[dev], *rest = &e->parts[layout_host(l)];
    part->model_bytes += b->model;
    part->compute_bytes += b->compute;
    part->projector_bytes += b->model + b->compute;
    part->has_projector = true;
    rest->compute_bytes += b->host;
    rest->projector_bytes += b->host;
    return RC_OK;
}

/* ---- draft ---- */

#define ALL_DEVICES (-1)

/* The one device that the draft has to itself, or ALL_DEVICES. */
static enum rc draft_device(const struct layout *l, int *ret_only, struct err *err)
{
    const char *wanted = l->p->extras->draft_device;
    *ret_only = ALL_DEVICES;
    if (!wanted || l->n_devices == 0)
        return RC_OK;
    for (int d = 0; d < l->n_devices; d++)
        if (plan_device_is(&l->devices[d], wanted))
            *ret_only = d;
    return *ret_only != ALL_DEVICES
               ? RC_OK
               : err_set(err, RC_INVALID, "its device '%s' is none of those that the model uses", wanted);
}

static enum rc draft_runs(struct extras *x, const struct layout *l, int only, bool with_graph,
                          struct err *err)
{
    const struct plan_extras *want = l->p->extras;
    const struct plan_device *devices = only == ALL_DEVICES ? l->devices : &l->devices[only];
    size_t n = only == ALL_DEVICES ? (size_t)l->n_devices : 1;
    struct plan_params p = *l->p;
    p.extras = NULL;
    p.ctx = l->n_ctx;
    if (only != ALL_DEVICES)
        p.n_tensor_split = 0;
    else if (!p.n_tensor_split) /* the launch passes the main model's */
        layout_shares(l, &p);
    p.type_k = want->draft_type_k;
    p.type_v = want->draft_type_v;
    p.gpu_layers = want->draft_gpu_layers;
    p.n_cpu_moe = p.n_overrides = 0;
    p.outputs = PLAN_OUTPUTS_SLOTS;
    p.embedding = false;
    if (x->draft != want->draft) {
        if (x->draft)
            estimator_release(&x->draft_estimator);
        x->draft = NULL;
        enum rc rc = estimator_init(&x->draft_estimator, want->draft, err);
        if (rc)
            return rc;
        x->draft = want->draft;
    }
    return with_graph ? estimator_run(&x->draft_estimator, &p, devices, n, false, &x->draft_estimate, err)
                      : estimator_sizes(&x->draft_estimator, &p, devices, n, &x->draft_estimate, err);
}

static enum rc add_draft(struct extras *x, const struct layout *l, bool with_graph, struct plan_estimate *e,
                         struct err *err)
{
    int only;
    enum rc rc = draft_device(l, &only, err);
    if (!rc)
        rc = draft_runs(x, l, only, with_graph, err);
    if (rc) {
        err_prefix(err, "the draft model");
        return rc;
    }
    size_t n = x->draft_estimate.n_parts;
    for (size_t i = 0; i < n; i++) {
        const struct plan_part *d = &x->draft_estimate.parts[i];
        struct plan_part *p = &e->parts[i + 1 == n ? e->n_parts - 1 : only == ALL_DEVICES ? i : (size_t)only];
        p->model_bytes += d->model_bytes;
        p->context_bytes += d->context_bytes;
        p->compute_bytes += d->compute_bytes;
        p->repack_bytes += d->repack_bytes;
        p->output_bytes += d->output_bytes;
        p->overhead_bytes += d->output_bytes;
        p->draft_bytes += d->model_bytes + d->context_bytes + d->compute_bytes + d->output_bytes;
    }
    return RC_OK;
}

/* ---- all ---- */

enum rc extras_prepare(struct extras **x, const struct facts *f, const struct plan_params *p,
                       struct layout *l, struct err *err)
{
    l->adapters = NULL;
    l->n_adapters = 0;
    if (!p->extras)
        return RC_OK;
    if (!*x)
        *x = mem_new(struct extras);
    enum rc rc = read_adapters(*x, f, p->extras, err);
    if (rc)
        return rc;
    l->adapters = (*x)->pairs;
    l->n_adapters = (*x)->n_adapters;
    return RC_OK;
}

enum rc extras_add(struct extras *x, const struct layout *l, bool with_graph, struct graph *g,
                   struct plan_estimate *e, struct err *err)
{
    const struct plan_extras *want = l->p->extras;
    if (!want)
        return RC_OK;
    enum rc rc = RC_OK;
    add_adapters(x, l, e);
    if (want->draft)
        rc = add_draft(x, l, with_graph, e, err);
    if (!rc && want->projector)
        rc = add_projector(x, l, g, e, err);
    return rc;
}
