/* Times the planner: facts, one estimate, one placement, one packing, over shapes and machines.
 *
 *     bench_plan OUT.json MODEL.gguf [FAMILY.gguf…]
 *
 * The model (write_model.c) is that of the row with 8 GPUs: its medians are the figures of the whole. Each
 * further file is two more rows: on one GPU of 80 GB, and on one that holds half of it, with RAM for all. A
 * table goes to stdout. Medians over many runs; the first runs are not counted. Estimates are of another
 * context each. */
#include "../../unit/plan/shapes.h"

#include "base/clock.h"
#include "base/mem.h"
#include "plan/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RUNS     301
#define HOST_MIB 256000

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

struct question {
    const struct model *m;
    struct plan_machine machine;
    struct plan_policy policy;
    struct plan_params params;
    struct plan_resident residents[16];
    size_t n_residents;
    struct estimator est;
    uint32_t turn; /* every estimate is of another context */
    struct plan *plan;
};

static void do_facts(struct question *q)
{
    struct facts f;
    if (facts_init(&f, q->m, NULL))
        abort();
    facts_release(&f);
}

static void do_estimate(struct question *q)
{
    struct plan_estimate e;
    q->params.ctx = 16384 + 256 * (q->turn++ % 64);
    if (estimator_run(&q->est, &q->params, q->machine.devices, q->machine.n_devices, false, &e, NULL))
        abort();
}

static void do_place(struct question *q)
{
    enum rc rc = plan_place(q->m, &q->policy, &q->machine, q->plan, NULL);
    if (rc && rc != RC_NO_FIT)
        abort();
}

static void do_pack(struct question *q)
{
    struct plan_victims v;
    enum rc rc = plan_pack(q->m, &q->policy, &q->machine, q->residents, q->n_residents, q->plan, &v, NULL);
    if (rc && rc != RC_NO_FIT)
        abort();
}

static double median_us(struct question *q, void (*work)(struct question *), int runs)
{
    static double times[RUNS];
    for (int i = runs > 1 ? -3 : 0; i < runs; i++) {
        double start = now_us();
        work(q);
        if (i >= 0)
            times[i] = now_us() - start;
    }
    qsort(times, (size_t)runs, sizeof times[0], by_value);
    return times[runs / 2];
}

/* Takes the reference to the model. */
static void ask(struct question *q, const struct model *m, size_t gpus, const char *stem, uint64_t mib,
                uint64_t host_mib)
{
    memset(q, 0, sizeof *q);
    q->m = m;
    q->plan = mem_calloc(1, sizeof *q->plan);
    for (size_t i = 0; i < gpus; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s%zu", stem, i);
        plan_device_named(&q->machine.devices[i], str_from(name), mib * MIB, mib * MIB);
    }
    q->machine.n_devices = gpus;
    q->machine.host.total_bytes = q->machine.host.free_bytes = host_mib * MIB;
    q->machine.host.cores = 16;
    plan_policy_default(&q->policy);
    plan_params_default(&q->params);
    if (estimator_init(&q->est, q->m, NULL))
        abort();
}

/* ---- packing: 16 instances on 8 GPUs ---- */

#define MACHINES 40

static uint64_t rnd(uint64_t *state, uint64_t n)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state % n;
}

/* Fills a machine of GPUs with instances of all sizes, some over two cards, and leaves little free. */
static void occupy(struct question *q, uint64_t *state)
{
    struct plan_machine *m = &q->machine;
    q->policy.ctx = 4096;
    q->policy.allow_cpu = rnd(state, 3) != 0;
    q->n_residents = TABLE_COUNT(q->residents);
    for (size_t d = 0; d < m->n_devices; d++)
        m->devices[d].total_bytes = m->devices[d].free_bytes = rnd(state, 2000) * MIB;
    for (size_t i = 0; i < q->n_residents; i++) {
        uint64_t bytes = (1000 + rnd(state, 4500)) * MIB;
        struct plan_resident *r = &q->residents[i];
        *r = (struct plan_resident){.id = "r",
                                    .idle_ms = rnd(state, 4000000),
                                    .reload_seconds = 1 + (double)rnd(state, 40),
                                    .priority = (int)rnd(state, 3),
                                    .evictable = true};
        r->device_bytes[rnd(state, m->n_devices)] = bytes;
        if (rnd(state, 4) == 0)
            r->device_bytes[rnd(state, m->n_devices)] += bytes / 2;
        for (size_t d = 0; d < m->n_devices; d++)
            m->devices[d].total_bytes += r->device_bytes[d];
    }
}

static void done(struct question *q)
{
    estimator_release(&q->est);
    model_unref((struct model *)(uintptr_t)q->m);
    free(q->plan);
}

struct figures {
    double estimate_us, place_ms, worst_estimate_us, worst_place_ms, pack_ms, worst_pack_ms;
};

/* Prints the row of a question and ends the question. */
static void measure_row(struct question *q, const char *name, FILE *json, struct figures *ret)
{
    double facts = median_us(q, do_facts, RUNS), e = median_us(q, do_estimate, RUNS);
    double p = median_us(q, do_place, 21) / 1e3;
    printf("%-26s %10.1f %12.1f %10.2f\n", name, facts, e, p);
    fprintf(json, "{\"name\":\"%s\",\"facts_us\":%.1f,\"estimate_us\":%.1f,\"place_ms\":%.3f},", name, facts,
            e, p);
    ret->estimate_us = e;
    ret->place_ms = p;
    if (e > ret->worst_estimate_us)
        ret->worst_estimate_us = e;
    if (p > ret->worst_place_ms)
        ret->worst_place_ms = p;
    done(q);
}

static const char *stem_of(char *path)
{
    char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
    if (dot && dot > slash)
        *dot = '\0';
    return slash ? slash + 1 : path;
}

static struct model *open_or_exit(const char *path)
{
    struct model *m;
    struct err err;
    if (model_open(path, &m, &err) == RC_OK)
        return m;
    fprintf(stderr, "bench_plan: %s\n", err.message);
    exit(1);
}

static void measure_families(char **paths, int n, FILE *json, struct figures *f)
{
    static struct question q;
    for (int i = 0; i < n; i++) {
        struct model *whole = open_or_exit(paths[i]), *half = open_or_exit(paths[i]);
        uint64_t mib = half->tensor_bytes / MIB;
        char name[64];
        const char *stem = stem_of(paths[i]);
        ask(&q, whole, 1, "CUDA", 80000, HOST_MIB);
        measure_row(&q, stem, json, f);
        snprintf(name, sizeof name, "%s, half", stem);
        ask(&q, half, 1, "CUDA", mib / 2, HOST_MIB + 2 * mib);
        measure_row(&q, name, json, f);
    }
}

/* Median and worst over random machines, the same in every run. */
static void measure_packs(const char *name, const struct shape *shape, FILE *json, struct figures *f)
{
    static struct question q;
    double times[MACHINES];
    uint64_t state = 88172645463325252ull;
    for (size_t i = 0; i < MACHINES; i++) {
        ask(&q, shape_model(shape), 8, "CUDA", 0, HOST_MIB);
        occupy(&q, &state);
        times[i] = median_us(&q, do_pack, 1) / 1e3;
        done(&q);
    }
    qsort(times, MACHINES, sizeof times[0], by_value);
    double median = times[MACHINES / 2], worst = times[MACHINES - 1];
    printf("%-26s %27.2f median, %.2f worst ms\n", name, median, worst);
    fprintf(json, "{\"name\":\"%s\",\"pack_ms\":%.3f,\"worst_pack_ms\":%.3f},", name, median, worst);
    f->pack_ms = median > f->pack_ms ? median : f->pack_ms;
    f->worst_pack_ms = worst > f->worst_pack_ms ? worst : f->worst_pack_ms;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        const struct shape *shape;
        const char *stem;
        size_t gpus;
        uint64_t mib;
    } rows[] = {{"1B, CPU", &shape_llama_1b, "CUDA", 0, 0},
                {"8B, one GPU", &shape_llama_8b, "CUDA", 1, 24000},
                {"8B, one Vulkan GPU", &shape_llama_8b, "Vulkan", 1, 24000},
                {"70B, 16 GB, partial", &shape_llama_70b, "CUDA", 1, 16384},
                {"70B, two GPUs", &shape_llama_70b, "CUDA", 2, 24000},
                {"30B experts, 12 GB", &shape_qwen3_30b, "CUDA", 1, 12288},
                {"80-layer experts, 8 GPUs", NULL, "CUDA", 8, 24000}};
    struct figures whole = {0};
    struct model *file = NULL;
    struct err err;
    FILE *json = argc >= 3 ? fopen(argv[1], "w") : NULL;
    if (!json || model_open(argv[2], &file, &err) != RC_OK) {
        fprintf(stderr, "bench_plan: %s\n",
                json ? err.message : "usage: bench_plan OUT.json MODEL.gguf [FAMILY.gguf…]");
        return 1;
    }
    printf("%-26s %10s %12s %10s\n", "model and machine", "facts us", "estimate us", "place ms");
    fprintf(json, "{\"rows\":[");
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        static struct question q;
        ask(&q, rows[i].shape ? shape_model(rows[i].shape) : file, rows[i].gpus, rows[i].stem, rows[i].mib,
            HOST_MIB);
        measure_row(&q, rows[i].name, json, &whole);
    }
    struct figures all = whole;
    measure_families(argv + 3, argc - 3, json, &all);
    puts("packing, 16 loaded on 8 GPUs, 40 random machines");
    measure_packs("pack an 8B", &shape_llama_8b, json, &all);
    measure_packs("pack a 70B", &shape_llama_70b, json, &all);
    fseek(json, -1, SEEK_CUR); /* the last comma */
    fprintf(json,
            "],\"estimate_us\":%.1f,\"place_ms\":%.3f,\"worst_estimate_us\":%.1f,\"worst_place_ms\":%.3f,"
            "\"pack_ms\":%.3f,\"worst_pack_ms\":%.3f}\n",
            whole.estimate_us, whole.place_ms, all.worst_estimate_us, all.worst_place_ms, all.pack_ms,
            all.worst_pack_ms);
    return fclose(json) != 0;
}
