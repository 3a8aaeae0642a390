/* Tokens a second and load time of a layout. Layer plan; pure.
 *
 * Decode reads, for every token, each weight that takes part once and the cache up to the live depth once:
 *     seconds a token = Σ over devices max(bytes / (bandwidth × REACHED), operations / (rate × REACHED)) +
 * steps where routed experts count used/all of their bytes, the embeddings only a row, and a step is the
 * fixed time of starting one layer's kernels on a device or of handing the state to the next device.
 *
 * Prefill does 2 operations a weight and token, the output matrix for one row only, and attention's
 * 4·heads·width·depth a layer and token; weights are read once a micro-batch at least. Weights in the host's
 * memory of a machine with a device cross the link once a micro-batch (the device computes), or are computed
 * by the host's cores where the device does not take them over.
 *
 * Loading reads what is not in the page cache at the disk's speed, packs again what the host packs, and sends
 * the devices' share over the link.
 *
 * The rates of a machine come from its inventory or from `arriero bench`, the REACHED shares below from
 * llama-bench on warm machines (docs/benchmarks.md); factors learned from timed requests (learn.c) multiply
 * the part that grows with bytes and operations. */
#include "plan/speed.h"

#include <math.h>
#include <string.h>

#define REACHED_DEVICE   0.75 /* share of the nominal bandwidth that decode reaches */
#define REACHED_HOST     0.85 /* of the measured one */
#define REACHED_FLOPS    0.45
#define REACHED_PACKED   0.60 /* of the host's rate of products: weights packed again for its kernels */
#define REACHED_PLAIN    0.25
#define REACHED_FLOAT    0.50
#define REACHED_ATTN     0.15  /* of the host's rate of single precision */
#define LIVE_DEPTH       4096  /* tokens of context assumed in use */
#define STEP_DEVICE_S    12e-6 /* starting a layer's kernels */
#define STEP_HOST_S      25e-6
#define HOP_S            60e-6 /* state from one device to the next */
#define HOST_CORE_GBPS   9.0   /* memory bandwidth that one core draws, up to the sockets' limit */
#define HOST_MAX_GBPS    60.0
#define HOST_CORE_GFLOPS 50.0
#define HOST_CORE_GOPS   100.0
#define DISK_GBPS        1.5
#define CACHED_GBPS      6.0 /* page cache to where the weights go */
#define REPACK_GBPS      0.8
#define START_S          0.3

double speed_host_bandwidth(const struct plan_host *h)
{
    unsigned cores = h->cores ? h->cores : 4;
    double core = h->bandwidth_core_gbps > 0 ? h->bandwidth_core_gbps : HOST_CORE_GBPS;
    double most = h->bandwidth_gbps > 0 ? h->bandwidth_gbps : HOST_MAX_GBPS;
    if (h->bandwidth_gbps > 0 && h->bandwidth_core_gbps <= 0)
        return most;
    return cores * core < most ? cores * core : most;
}

static unsigned host_cores(const struct plan_host *h)
{
    return h->cores ? h->cores : 4;
}

/* Operations a second of all cores on weights of a type. */
static double host_rate(const struct plan_host *h, uint32_t type, bool repacked)
{
    const struct ggml_type_info *info = ggml_type_info(type);
    bool quantised = info && info->block > 1;
    double gflops = h->gflops_core > 0 ? h->gflops_core : HOST_CORE_GFLOPS;
    double gops = h->gops_core > 0 ? h->gops_core : HOST_CORE_GOPS;
    double reached = !quantised ? REACHED_FLOAT * gflops : (repacked ? REACHED_PACKED : REACHED_PLAIN) * gops;
    return 1e9 * host_cores(h) * reached;
}

struct load {                                         /* one device's share */
    double decode_bytes, stored_bytes, touched_bytes; /* touched: by a whole micro-batch */
    double decode_slow_s;                             /* host: beyond what its bytes take */
    double prefill_ops, output_ops;                   /* of one token; of one row of logits */
    double prefill_s;                                 /* host: seconds a token of prefill_ops */
    uint32_t layers;
};

static double elements(const struct tensor *t)
{
    return (double)t->ne[0] * (double)t->ne[1] * (double)t->ne[2] * (double)t->ne[3];
}

/* What is the same for all weights of a question. */
struct weighing {
    const struct layout *l;
    const struct plan_host *host;
    double used, touched; /* of the routed experts: by one token, by all of a micro-batch */
};

static void add_weight(const struct weighing *w, struct load *d, bool on_host, bool repacked, bool output,
                       double used, double touched, const struct tensor *t)
{
    double bytes = used * (double)t->bytes, ops = 2 * used * elements(t);
    d->decode_bytes += bytes;
    d->stored_bytes += (double)t->bytes;
    d->touched_bytes += touched * (double)t->bytes;
    if (output)
        d->output_ops += ops;
    else
        d->prefill_ops += ops;
    if (!on_host)
        return;
    double rate = host_rate(w->host, t->type, repacked);
    double read = bytes / (1e9 * REACHED_HOST * speed_host_bandwidth(w->host));
    if (ops / rate > read)
        d->decode_slow_s += ops / rate - read;
    if (!output)
        d->prefill_s += ops / rate;
}

/* Adds weight i to on_device or on_host, wherever it lies. */
static void weigh(const struct weighing *w, uint32_t i, struct load *on_device, struct load *on_host)
{
    const struct facts *f = w->l->f;
    const struct weight_facts *wf = &f->weights[i];
    if (wf->layer == LAYER_UNLOADED)
        return;
    struct weight_place place = layout_weight(w->l, i);
    bool host = place.device == layout_host(w->l),
         routed = role_kind((enum role)wf->role) == KIND_EXPERTS && f->n_expert;
    struct load *d = host ? on_host : on_device;
    if (wf->layer == LAYER_INPUT)
        d->stored_bytes += (double)wf->t->bytes;
    else
        add_weight(w, d, host, place.repacked, wf->layer == (int32_t)f->n_layer, routed ? w->used : 1,
                   routed ? w->touched : 1, wf->t);
}

static void add_load(struct load *sum, const struct load *d)
{
    sum->decode_bytes += d->decode_bytes;
    sum->stored_bytes += d->stored_bytes;
    sum->touched_bytes += d->touched_bytes;
    sum->decode_slow_s += d->decode_slow_s;
    sum->prefill_ops += d->prefill_ops;
    sum->output_ops += d->output_ops;
    sum->prefill_s += d->prefill_s;
}

/* Layers of one class on devices of one kind load them alike, unless an option names single weights. */
struct class_load {
    uint16_t cls;
    int8_t backend; /* -1: the host */
    bool experts_moved;
    struct load on_device, on_host;
};
#define CLASS_LOADS 16 /* remembered; most models have two or three */

static void weigh_layers(const struct weighing *w, struct load *load)
{
    struct class_load seen[CLASS_LOADS];
    const struct layout *l = w->l;
    const struct facts *f = l->f;
    int h = layout_host(l);
    uint32_t n = 0;
    for (uint32_t il = 0; il < f->n_layer_run; il++) {
        uint32_t stored = il % f->n_stored; /* whose weights it reads */
        const struct layer_facts *lf = &f->layers[stored];
        int d = l->layer_device[stored];
        int8_t backend = d == h ? -1 : (int8_t)l->devices[d].backend;
        bool moved = stored < l->p->n_cpu_moe;
        uint32_t c = 0;
        while (c < n &&
               (seen[c].cls != lf->cls || seen[c].backend != backend || seen[c].experts_moved != moved))
            c++;
        if (c == n) {
            c = n < CLASS_LOADS ? n++ : CLASS_LOADS - 1;
            seen[c] = (struct class_load){.cls = lf->cls, .backend = backend, .experts_moved = moved};
            for (uint32_t k = 0; k < lf->n_own; k++)
                weigh(w, f->by_layer[lf->first_own + k], &seen[c].on_device, &seen[c].on_host);
        }
        add_load(&load[d], &seen[c].on_device);
        add_load(&load[h], &seen[c].on_host);
    }
}

static void weigh_one(const struct weighing *w, uint32_t i, struct load *load)
{
    const struct facts *f = w->l->f;
    uint32_t turns = facts_in_layer(f, i) ? f->n_layer / f->n_stored : 1;
    for (uint32_t turn = 0; turn < turns; turn++)
        weigh(w, i, &load[layout_weight(w->l, i).device], &load[layout_host(w->l)]);
}

static void weigh_devices(const struct layout *l, const struct plan_host *host, uint32_t batch,
                          struct load *load)
{
    const struct facts *f = l->f;
    int h = layout_host(l);
    struct weighing w = {.l = l, .host = host, .used = 1, .touched = 1};
    if (f->n_expert) {
        w.used = (double)f->n_expert_used / f->n_expert;
        w.touched = 1 - pow(1 - w.used, batch);
    }
    if (!l->p->n_overrides)
        weigh_layers(&w, load);
    for (uint32_t k = l->p->n_overrides ? 0 : f->first_outside; k < f->n_weights; k++)
        weigh_one(&w, f->by_layer[k], load);
    if (f->tied)
        add_weight(&w, &load[l->output_device], l->output_device == h, l->output_repacked, true, 1, 1,
                   f->weights[f->global[ROLE_TOKEN_EMBD]].t);
    for (uint32_t il = 0; il < f->n_layer; il++)
        load[l->layer_device[il]].layers++;
}

/* Tokens of the cache that a layer looks at. */
static double depth_of(const struct layout *l, const struct layer_facts *lf, double depth)
{
    double most = lf->sliding && l->cells_window ? l->cells_window : l->n_ctx_seq;
    return depth < most ? depth : most;
}

/* Bytes of cache that layer il reads for one token. */
static double cache_bytes(const struct layout *l, uint32_t il, double depth)
{
    const struct facts *f = l->f;
    const struct layer_facts *lf = &f->layers[il];
    uint64_t k = 0, v = 0;
    double states = lf->recurrent ? 8.0 * (double)(f->state_r + f->state_s) : 0; /* read and written */
    if (!lf->cached || !ggml_row_bytes(l->p->type_k, (uint64_t)lf->n_head_kv * lf->d_k, &k) ||
        !ggml_row_bytes(l->p->type_v, (uint64_t)lf->n_head_kv * lf->d_v, &v))
        return states;
    return states + depth_of(l, lf, depth) * (double)(k + v);
}

/* Operations of attention in layer il for one token. */
static double attention_ops(const struct layout *l, uint32_t il, double depth)
{
    const struct layer_facts *lf = &l->f->layers[il];
    return !lf->cached ? 0 : 2.0 * lf->n_head * (lf->d_k + lf->d_v) * depth_of(l, lf, depth);
}

static double attention_rate(const struct plan_host *h)
{
    return 1e9 * host_cores(h) * REACHED_ATTN * (h->gflops_core > 0 ? h->gflops_core : HOST_CORE_GFLOPS);
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

static double link_rate(const struct plan_device *d)
{
    return 1e9 * (d->link_gbps > 0 ? d->link_gbps : backend_traits(d->backend)->link_gbps);
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

void speed_decode(const struct layout *l, const struct plan_machine *machine, double depth,
                  struct speed_seconds *ret)
{
    const struct plan_host *host = &machine->host;
    struct load load[LAYOUT_MAX_BACKENDS] = {0};
    int h = layout_host(l);
    *ret = (struct speed_seconds){.n = h + 1};
    weigh_devices(l, host, 1, load);
    double host_bw = 1e9 * REACHED_HOST * speed_host_bandwidth(host);
    for (uint32_t il = 0; il < l->f->n_layer; il++) {
        int d = layout_cache_device(l, il);
        double bytes = cache_bytes(l, il, depth);
        if (d == h)
            ret->variable[h] += larger(bytes / host_bw, attention_ops(l, il, depth) / attention_rate(host));
        else
            load[d].decode_bytes += bytes;
    }
    for (int d = 0; d < h; d++) {
        ret->variable[d] = load[d].decode_bytes / device_bandwidth(&l->devices[d]);
        ret->fixed[d] = load[d].layers * STEP_DEVICE_S + (load[d].decode_bytes > 0 ? HOP_S : 0);
    }
    ret->variable[h] += load[h].decode_bytes / host_bw + load[h].decode_slow_s;
    ret->fixed[h] = load[h].layers * STEP_HOST_S + (load[h].layers && h ? HOP_S : 0);
}

/* One micro-batch of n tokens, `depth` before it. */
static void add_batch(const struct layout *l, const struct plan_host *host, double depth, uint32_t n,
                      struct speed_seconds *ret)
{
    struct load load[LAYOUT_MAX_BACKENDS] = {0};
    int h = layout_host(l);
    weigh_devices(l, host, n, load);
    const struct backend_traits *first = h ? backend_traits(l->devices[0].backend) : NULL;
    bool staged = first && first->offload_batch && n >= first->offload_batch;
    double seen = depth + n / 2.0;
    double attention_host = 0;
    for (uint32_t il = 0; il < l->f->n_layer; il++) {
        int d = layout_cache_device(l, il);
        if (d == h)
            attention_host += n * attention_ops(l, il, seen) / attention_rate(host);
        else
            load[d].prefill_ops += attention_ops(l, il, seen);
    }
    for (int d = 0; d < h; d++) {
        double ops = load[d].prefill_ops * n + load[d].output_ops;
        ret->variable[d] += larger(ops / device_flops(&l->devices[d]),
                                   load[d].touched_bytes / device_bandwidth(&l->devices[d]));
        ret->fixed[d] += load[d].layers * STEP_DEVICE_S + (load[d].touched_bytes > 0 ? HOP_S : 0);
    }
    if (staged && load[h].layers) {
        ret->variable[0] += load[h].touched_bytes / link_rate(&l->devices[0]) +
                            load[h].prefill_ops * n / device_flops(&l->devices[0]);
        ret->variable[h] += attention_host;
    } else {
        double read = load[h].touched_bytes / (1e9 * REACHED_HOST * speed_host_bandwidth(host));
        ret->variable[h] += larger(load[h].prefill_s * n, read) + attention_host;
    }
    ret->fixed[h] += load[h].layers * STEP_HOST_S;
}

void speed_prefill(const struct layout *l, const struct plan_machine *machine, double depth, uint32_t tokens,
                   struct speed_seconds *ret)
{
    *ret = (struct speed_seconds){.n = layout_host(l) + 1};
    uint32_t most = l->n_ubatch ? l->n_ubatch : 512;
    for (uint32_t done = 0; done < tokens;) {
        uint32_t n = tokens - done < most ? tokens - done : most;
        add_batch(l, &machine->host, depth + done, n, ret);
        done += n;
    }
}

const struct plan_taught *speed_taught(const struct layout *l, const struct plan_machine *machine, int d)
{
    return d == layout_host(l) ? &machine->host.taught : &l->devices[d].taught;
}

static double factor(double learned)
{
    return learned > 0 ? learned : 1;
}

/* Sum over the devices with their factors; the samples are those of the device that takes the longest. */
static double total(const struct layout *l, const struct plan_machine *machine, const struct speed_seconds *s,
                    bool decode, uint32_t *ret_samples)
{
    double sum = 0, longest = 0;
    *ret_samples = 0;
    for (int d = 0; d < s->n; d++) {
        const struct plan_taught *t = speed_taught(l, machine, d);
        double own = s->fixed[d] + s->variable[d] * factor(decode ? t->decode_factor : t->prefill_factor);
        sum += own;
        if (own <= longest)
            continue;
        longest = own;
        *ret_samples = decode ? t->decode_samples : t->prefill_samples;
    }
    return sum;
}

static double cached_share(const struct plan_host *host)
{
    return host->file_cached > 0 ? (host->file_cached < 1 ? host->file_cached : 1) : 0;
}

static double disk_seconds(const struct model *m, const struct plan_host *host)
{
    double disk = 1e9 * (host->disk_gbps > 0 ? host->disk_gbps : DISK_GBPS);
    return (double)m->tensor_bytes * (1 - cached_share(host)) / disk;
}

double plan_disk_share(const struct model *m, const struct plan_host *host, double load_seconds)
{
    double reading = disk_seconds(m, host);
    return load_seconds > reading ? reading / load_seconds : reading > 0;
}

static double load_seconds(const struct layout *l, const struct plan_machine *machine)
{
    const struct plan_host *host = &machine->host;
    struct load load[LAYOUT_MAX_BACKENDS] = {0};
    weigh_devices(l, host, 1, load);
    double bytes = (double)l->f->m->tensor_bytes;
    double s = START_S + disk_seconds(l->f->m, host) + bytes * cached_share(host) / (1e9 * CACHED_GBPS) +
               (double)l->repack_bytes / (1e9 * REPACK_GBPS);
    for (int d = 0; d < l->n_devices; d++)
        s += load[d].stored_bytes / link_rate(&l->devices[d]);
    return s * factor(host->taught.load_factor);
}

double speed_depth(const struct layout *l)
{
    return l->n_ctx_seq < LIVE_DEPTH ? l->n_ctx_seq : LIVE_DEPTH;
}

double speed_decode_tps(const struct layout *l, const struct plan_machine *machine)
{
    struct speed_seconds decode;
    uint32_t samples;
    speed_decode(l, machine, speed_depth(l), &decode);
    return 1 / total(l, machine, &decode, true, &samples);
}

void speed_of(const struct layout *l, const struct plan_machine *machine, struct plan_speed *ret_speed)
{
    struct speed_seconds decode, prefill;
    struct plan_speed s = {.load_seconds = load_seconds(l, machine)};
    speed_decode(l, machine, speed_depth(l), &decode);
    speed_prefill(l, machine, 0, l->n_tokens, &prefill);
    s.decode_tps = 1 / total(l, machine, &decode, true, &s.decode_samples);
    s.prefill_tps = l->n_tokens / total(l, machine, &prefill, false, &s.prefill_samples);
    *ret_speed = s;
}

enum rc speed_layout(struct estimator *est, const struct model *m, const struct plan_estimate *e,
                     const struct plan_machine *machine, struct plan_device *devices, struct err *err)
{
    size_t n = e->n_parts ? e->n_parts - 1 : 0;
    for (size_t i = 0; i < n && i < PLAN_MAX_DEVICES; i++) {
        plan_device_named(&devices[i], str_from(e->parts[i].name), e->parts[i].total_bytes,
                          e->parts[i].free_bytes);
        for (size_t k = 0; k < machine->n_devices; k++)
            if (!strcmp(machine->devices[k].name, e->parts[i].name))
                devices[i] = machine->devices[k];
    }
    enum rc rc = estimator_init(est, m, err);
    if (rc)
        return rc;
    rc = layout_init(&est->layout, &est->facts, &e->params, devices, n, err);
    if (rc)
        estimator_release(est);
    return rc;
}

void plan_speed(const struct model *m, const struct plan_estimate *e, const struct plan_machine *machine,
                struct plan_speed *ret_speed)
{
    struct plan_device devices[PLAN_MAX_DEVICES];
    struct estimator est;
    *ret_speed = (struct plan_speed){0};
    if (speed_layout(&est, m, e, machine, devices, NULL))
        return;
    speed_of(&est.layout, machine, ret_speed);
    estimator_release(&est);
}

void plan_seconds(const struct model *m, const struct plan_estimate *e, const struct plan_machine *machine,
                  uint32_t depth, uint32_t prompt, uint32_t tokens, double *ret_prefill, double *ret_decode)
{
    struct plan_device devices[PLAN_MAX_DEVICES];
    struct estimator est;
    struct speed_seconds s;
    uint32_t samples;
    *ret_prefill = *ret_decode = 0;
    if (speed_layout(&est, m, e, machine, devices, NULL))
        return;
    speed_prefill(&est.layout, machine, depth, prompt, &s);
    *ret_prefill = total(&est.layout, machine, &s, false, &samples);
    speed_decode(&est.layout, machine, depth + prompt + tokens / 2.0, &s);
    *ret_decode = tokens * total(&est.layout, machine, &s, true, &samples);
    estimator_release(&est);
}
