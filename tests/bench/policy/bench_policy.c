/* How many loads, and of how many bytes, a policy of eviction needs: this planner's (plan/pack.c), the least
 * recently and least often used, five minutes of keep-alive, the one that knows the future (farthest next
 * use), and a bound below all. Twelve models on two cards of 24 GB.
 *
 *     bench_policy OUT.json MODELS_DIR [TRACE.csv…]
 *
 * Prints a table a stream of requests; the JSON has the figures of the made-up weeks at its top. */
#include "shape.h"
#include "sim.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAYS    14
#define SEEDS   3
#define STRETCH 40 /* half an hour becomes twenty hours */

/* By mix_role, then by popularity. */
static const char *const names[MIX_MODELS] = {"nomic-embed-text-v1.5",
                                              "llama-3.2-1b",
                                              "qwen3-30b-a3b",
                                              "seed-oss-36b",
                                              "llama-3.1-8b",
                                              "gemma-3-12b",
                                              "gpt-oss-20b",
                                              "mistral-small-24b",
                                              "qwen2.5-7b",
                                              "gemma-3-27b",
                                              "phi-4",
                                              "deepseek-v2-lite"};

struct bench {
    struct model *models[MIX_MODELS];
    struct plan_machine machine;
    uint64_t least[MIX_MODELS], file[MIX_MODELS]; /* bytes on GPUs and of the file */
    FILE *json;
};

static void stop(const char *what)
{
    fprintf(stderr, "bench_policy: %s\n", what);
    exit(1);
}

static void open_models(struct bench *b, const char *dir)
{
    struct err err;
    if (plan_machine_profiles(str_from("2x3090"), &b->machine, &err))
        stop(err.message);
    struct plan *p = mem_new(struct plan);
    struct plan_policy policy;
    plan_policy_default(&policy);
    policy.allow_cpu = false;
    policy.ctx = 8192;
    for (size_t i = 0; i < MIX_MODELS; i++) {
        const struct shape *s = shape_find(names[i]);
        auto_free char *path = NULL;
        if (!s)
            stop(names[i]);
        if (shape_file(s, dir, &path, NULL, &err) || model_open(path, &b->models[i], &err) ||
            plan_place(b->models[i], &policy, &b->machine, p, &err))
            stop(err.message);
        b->file[i] = b->models[i]->tensor_bytes;
        for (size_t k = 0; k < p->n_used; k++)
            b->least[i] += p->estimate.parts[k].model_bytes;
        printf("  %-24s %6.1f GB on %u GPU%s, loads in %4.1f s\n", names[i], (double)b->file[i] / 1e9,
               p->n_used, p->n_used == 1 ? "" : "s", p->speed.load_seconds);
    }
    free(p);
}

static void add_up(struct sim_result *sum, const struct sim_result *r)
{
    sum->cold_starts += r->cold_starts;
    sum->bytes_loaded += r->bytes_loaded;
    sum->waited_s += r->waited_s;
    sum->waiting += r->waiting;
    sum->waited_p99 = r->waited_p99 > sum->waited_p99 ? r->waited_p99 : sum->waited_p99;
}

static void write_rows(struct bench *b, const char *name, size_t requests, const struct sim_result *r,
                       const struct sim_result *bound)
{
    printf("\n%s: %zu requests\n%-12s %8s %10s %12s %10s\n", name, requests, "", "loads", "TB loaded",
           "waited, s", "p99, s");
    for (size_t p = 0; p < SIM_POLICIES; p++)
        printf("%-12s %8u %10.2f %12.0f %10.1f\n", sim_policy_word((enum sim_policy)p), r[p].cold_starts,
               (double)r[p].bytes_loaded / 1e12, r[p].waited_s, r[p].waited_p99);
    printf("%-12s %8u %10.2f\n", "bound", bound->cold_starts, (double)bound->bytes_loaded / 1e12);
    fprintf(b->json, "\"cold_starts\":{");
    for (size_t p = 0; p < SIM_POLICIES; p++)
        fprintf(b->json, "\"%s\":%u,", sim_policy_word((enum sim_policy)p), r[p].cold_starts);
    fprintf(b->json, "\"bound\":%u},\"bytes_loaded\":{", bound->cold_starts);
    for (size_t p = 0; p < SIM_POLICIES; p++)
        fprintf(b->json, "\"%s\":%llu,", sim_policy_word((enum sim_policy)p),
                (unsigned long long)r[p].bytes_loaded);
    fprintf(b->json, "\"bound\":%llu},\"waited_s\":{", (unsigned long long)bound->bytes_loaded);
    for (size_t p = 0; p < SIM_POLICIES; p++)
        fprintf(b->json, "%s\"%s\":%.1f", p ? "," : "", sim_policy_word((enum sim_policy)p), r[p].waited_s);
    fprintf(b->json, "}");
}

static void run_stream(const struct bench *b, const struct stream *mix, struct sim_result *r,
                       struct sim_result *bound)
{
    uint64_t total = 0;
    for (size_t d = 0; d < b->machine.n_devices; d++)
        total += b->machine.devices[d].free_bytes;
    struct sim_result one;
    for (size_t p = 0; p < SIM_POLICIES; p++) {
        sim_run((enum sim_policy)p, b->models, &b->machine, mix, &one);
        add_up(&r[p], &one);
    }
    sim_bound(b->least, b->file, total, mix, &one);
    add_up(bound, &one);
}

static void weeks(struct bench *b)
{
    struct sim_result r[SIM_POLICIES] = {0}, bound = {0};
    size_t requests = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct stream mix;
        mix_household(seed, DAYS, &mix);
        requests += mix.n;
        run_stream(b, &mix, r, &bound);
        mix_release(&mix);
    }
    char name[80];
    snprintf(name, sizeof name, "%d households, %d days each", SEEDS, DAYS);
    write_rows(b, name, requests, r, &bound);
}

static void trace(struct bench *b, const char *path)
{
    struct sim_result r[SIM_POLICIES] = {0}, bound = {0};
    struct stream mix;
    struct err err;
    if (mix_trace(path, 1, STRETCH, &mix, &err))
        stop(err.message);
    run_stream(b, &mix, r, &bound);
    const char *slash = strrchr(path, '/');
    fprintf(b->json, ",\"%s\":{", slash ? slash + 1 : path);
    write_rows(b, slash ? slash + 1 : path, mix.n, r, &bound);
    fprintf(b->json, "}");
    mix_release(&mix);
}

int main(int argc, char **argv)
{
    static struct bench b;
    if (argc < 3)
        stop("usage: bench_policy OUT.json MODELS_DIR [TRACE.csv…]");
    b.json = fopen(argv[1], "w");
    if (!b.json)
        stop("OUT.json cannot be written");
    printf("two cards of 24 GB; models wholly on them, 8192 tokens\n");
    open_models(&b, argv[2]);
    fprintf(b.json, "{");
    weeks(&b);
    for (int i = 3; i < argc; i++)
        trace(&b, argv[i]);
    fprintf(b.json, "}\n");
    for (size_t i = 0; i < MIX_MODELS; i++)
        model_unref(b.models[i]);
    return fclose(b.json) != 0;
}
