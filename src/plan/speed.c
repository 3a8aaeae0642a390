/* Tokens a second and load time of a layout. Layer plan; pure.
 *
 * Decode reads, for every token, each weight that takes part once and the cache up to the live depth once, so
 *     seconds a token = Σ over devices (weights that take part + cache read) / (bandwidth × REACHED) + steps
 * where routed experts count used/all of their bytes, the embeddings only a row, and a step is the fixed time
 * of starting one layer on a device or of handing the state to the next device. Prefill does 2 FLOPs a weight
 * and token, plus attention's 4·width·depth a layer, for a micro-batch at a time; weights in host memory of a
 * machine with a device cross the link once a micro-batch (the device computes), or are computed by the
 * host's cores where the device cannot take them. Loading reads the file at the disk's speed and sends the
 * devices' share over the link. The constants are for a warm machine and are meant to be replaced by
 * calibration. */
#include "plan/memory.h"
#include "plan/speed.h"

#include <string.h>

#define REACHED_DEVICE   0.75 /* share of the nominal bandwidth that decode reaches */
#define REACHED_HOST     0.65
#define REACHED_FLOPS    0.45
#define LIVE_DEPTH       4096  /* tokens of context assumed in use */
#define STEP_DEVICE_S    12e-6 /* starting a layer's kernels */
#define STEP_HOST_S      20e-6
#define HOP_S            60e-6 /* state from one device to the next */
#define HOST_CORE_GBPS   9.0   /* memory bandwidth that one core draws, up to the sockets' limit */
#define HOST_MAX_GBPS    60.0
#define HOST_CORE_GFLOPS 35.0
#define DISK_GBPS        1.5

double speed_host_bandwidth(const struct plan_host *h)
{
    if (h->bandwidth_gbps > 0)
        return h->bandwidth_gbps;
    double guess = (h->cores ? h->cores : 4) * HOST_CORE_GBPS;
    return guess > HOST_MAX_GBPS ? HOST_MAX_GBPS : guess;
}

struct load { /* one device's share */
    double decode_bytes, prefill_params, stored_bytes;
    uint32_t layers;
};

static double share_used(const struct layout *l, const struct weight_facts *w)
{
    if (w->layer == LAYER_INPUT)
        return 0;
    if (role_kind((enum role)w->role) == KIND_EXPERTS && l->f->n_expert)
        return (double)l->f->n_expert_used / l->f->n_expert;
    return 1;
}

static double elements(const struct tensor *t)
{
    return (double)t->ne[0] * (double)t->ne[1] * (double)t->ne[2] * (double)t->ne[3];
}

static void weigh_devices(const struct layout *l, struct load *load)
{
    const struct facts *f = l->f;
    for (uint32_t i = 0; i < f->n_weights; i++) {
        const struct weight_facts *w = &f->weights[i];
        struct load *d = &load[l->weight_device[i]];
        double used = share_used(l, w);
        d->decode_bytes += used * (double)w->t->bytes;
        d->prefill_params += used * elements(w->t);
        d->stored_bytes += (double)w->t->bytes;
    }
    if (f->tied) {
        const struct tensor *t = f->weights[f->global[ROLE_TOKEN_EMBD]].t;
        load[l->output_device].decode_bytes += (double)t->bytes;
        load[l->output_device].stored_bytes += (double)t->bytes;
    }
    for (uint32_t il = 0; il < f->n_layer; il++) {
        const struct layer_facts *lf = &f->layers[il];
        load[l->layer_device[il]].layers++;
        double depth = l->n_ctx_seq < LIVE_DEPTH ? l->n_ctx_seq : LIVE_DEPTH;
        if (lf->sliding && l->cells_window < depth)
            depth = l->cells_window;
        uint64_t k = 0, v = 0;
        if (lf->recurrent)
            k = 4ull * f->ssm_state * f->ssm_inner * 2;
        else if (!ggml_row_bytes(l->p->type_k, (uint64_t)lf->n_head_kv * lf->d_k, &k) ||
                 !ggml_row_bytes(l->p->type_v, (uint64_t)lf->n_head_kv * lf->d_v, &v))
            continue;
        load[layout_cache_device(l, il)].decode_bytes += lf->recurrent ? (double)k : depth * (double)(k + v);
    }
}

static double device_bandwidth(const struct plan_device *d)
{
    return 1e9 * REACHED_DEVICE *
           (d->bandwidth_gbps > 0 ? d->bandwidth_gbps : backend_traits(d->backend)->bandwidth_gbps);
}

static double device_flops(const struct plan_device *d)
{
    return 1e12 * REACHED_FLOPS * (d->tflops > 0 ? d->tflops : backend_traits(d->backend)->tflops);
}

static double decode_seconds(const struct layout *l, const struct load *load, const struct plan_host *host)
{
    double s = 0;
    int busy = 0;
    for (int d = 0; d < l->n_devices; d++) {
        s += load[d].decode_bytes / device_bandwidth(&l->devices[d]) + load[d].layers * STEP_DEVICE_S;
        busy += load[d].layers > 0;
    }
    const struct load *h = &load[layout_host(l)];
    s += h->decode_bytes / (1e9 * REACHED_HOST * speed_host_bandwidth(host)) + h->layers * STEP_HOST_S;
    return s + (busy + (h->layers > 0)) * HOP_S;
}

/* Seconds for one full micro-batch. */
static double prefill_seconds(const struct layout *l, const struct load *load, const struct plan_host *host)
{
    double n = l->n_tokens, s = 0;
    for (int d = 0; d < l->n_devices; d++)
        s += 2 * load[d].prefill_params * n / device_flops(&l->devices[d]) + load[d].layers * STEP_DEVICE_S;
    const struct load *h = &load[layout_host(l)];
    double flops = 1e9 * HOST_CORE_GFLOPS * (host->cores ? host->cores : 4);
    if (l->n_devices && backend_traits(l->devices[0].backend)->offload_batch && n >= 32) {
        double link = 1e9 * backend_traits(l->devices[0].backend)->link_gbps;
        s += h->stored_bytes / link + 2 * h->prefill_params * n / device_flops(&l->devices[0]);
    } else {
        s += 2 * h->prefill_params * n / flops;
    }
    return s + HOP_S;
}

void speed_of(const struct layout *l, const struct plan_machine *machine, struct plan_speed *ret_speed)
{
    struct load load[LAYOUT_MAX_BACKENDS];
    memset(load, 0, sizeof load);
    weigh_devices(l, load);
    double disk = 1e9 * (machine->host.disk_gbps > 0 ? machine->host.disk_gbps : DISK_GBPS);
    double seconds = (double)l->f->m->tensor_bytes / disk;
    for (int d = 0; d < l->n_devices; d++)
        seconds += load[d].stored_bytes / (1e9 * backend_traits(l->devices[d].backend)->link_gbps);
    *ret_speed = (struct plan_speed){.prefill_tps = l->n_tokens / prefill_seconds(l, load, &machine->host),
                                     .decode_tps = 1 / decode_seconds(l, load, &machine->host),
                                     .load_seconds = seconds + 0.3};
}

/* The machine's device of that name (the estimate keeps names only). */
static const struct plan_device *device_of(const struct plan_machine *machine, const char *name)
{
    for (size_t i = 0; i < machine->n_devices; i++)
        if (!strcmp(machine->devices[i].name, name))
            return &machine->devices[i];
    return NULL;
}

void plan_speed(const struct model *m, const struct plan_estimate *e, const struct plan_machine *machine,
                struct plan_speed *ret_speed)
{
    *ret_speed = (struct plan_speed){0};
    struct plan_device devices[PLAN_MAX_DEVICES];
    size_t n = e->n_parts ? e->n_parts - 1 : 0;
    for (size_t i = 0; i < n; i++) {
        const struct plan_device *known = device_of(machine, e->parts[i].name);
        plan_device_named(&devices[i], str_from(e->parts[i].name), e->parts[i].total_bytes,
                          e->parts[i].free_bytes);
        if (known)
            devices[i] = *known;
    }
    struct estimator est;
    if (estimator_init(&est, m, NULL))
        return;
    if (!layout_init(&est.layout, &est.facts, &e->params, devices, n, NULL))
        speed_of(&est.layout, machine, ret_speed);
    estimator_release(&est);
}
