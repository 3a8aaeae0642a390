/* The speed model asked from a script: measured runs go in, predictions come out. It calls what the daemon
 * calls for each timed request (learn_from_request) and what `arriero plan` calls (plan_machine_learn,
 * plan_seconds). Commands on stdin, one a line, fields separated by a blank:
 *
 *   host CORES GBPS CORE_GBPS CORE_GFLOPS CORE_GOPS         the machine, as `arriero bench host` measured it;
 * 0 = unknown sample FILE DEPTH PROMPT PREFILL_S TOKENS DECODE_S      0 tokens: no such part predict FILE
 * DEPTH PROMPT TOKENS                        prints "PREFILL_S DECODE_S SAMPLES"
 *
 * Layer plan. */
#include "plan/learn.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUNTIME "bench"

struct session {
    struct plan_machine machine;
    struct plan_learned *learned;
};

static void fail(const char *line, const struct err *err)
{
    fprintf(stderr, "bench_speed: %s: %s\n", line, err ? err->message : "not understood");
    exit(1);
}

static struct model *open_model(const char *path, unsigned long depth, unsigned long prompt,
                                unsigned long tokens, struct plan_estimate *ret)
{
    struct model *m = NULL;
    struct err err = {0};
    struct plan_params p;
    plan_params_default(&p);
    p.parallel = 1;
    p.ctx = (uint32_t)(depth + prompt + tokens);
    if (model_open_cached(path, &m, &err) || plan_estimate(m, &p, NULL, 0, ret, &err))
        fail(path, &err);
    return m;
}

static void take(struct session *s, const char *line)
{
    char path[512];
    struct plan_timing t = {0};
    unsigned long depth, prompt, tokens;
    if (sscanf(line, "sample %511s %lu %lu %lf %lu %lf", path, &depth, &prompt, &t.prompt_seconds, &tokens,
               &t.decode_seconds) != 6)
        fail(line, NULL);
    struct plan_estimate e;
    struct model *m = open_model(path, depth, prompt, tokens, &e);
    struct learn_sample samples[2];
    t.cached_tokens = depth;
    t.prompt_tokens = prompt;
    t.decode_tokens = tokens;
    size_t n = learn_from_request(m, &e, &s->machine, RUNTIME, &t, samples);
    for (size_t i = 0; i < n; i++)
        if (!learn_add(s->learned, &samples[i]))
            fail(line, NULL);
    model_unref(m);
}

static void answer(struct session *s, const char *line)
{
    char path[512];
    unsigned long depth, prompt, tokens;
    double prefill, decode;
    if (sscanf(line, "predict %511s %lu %lu %lu", path, &depth, &prompt, &tokens) != 4)
        fail(line, NULL);
    struct plan_estimate e;
    struct model *m = open_model(path, depth, prompt, tokens, &e);
    struct plan_machine taught = s->machine;
    struct plan_speed speed;
    plan_machine_learn(&taught, s->learned, RUNTIME, m, true);
    plan_seconds(m, &e, &taught, (uint32_t)depth, (uint32_t)prompt, (uint32_t)tokens, &prefill, &decode);
    plan_speed(m, &e, &taught, &speed);
    printf("%.9g %.9g %u\n", prefill, decode, speed.decode_samples);
    fflush(stdout);
    model_unref(m);
}

int main(void)
{
    struct session s = {.learned = mem_new(struct plan_learned)};
    struct plan_host *h = &s.machine.host;
    char line[1024];
    h->total_bytes = h->free_bytes = UINT64_MAX / 2;
    snprintf(h->model, sizeof h->model, "this processor");
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        if (!strncmp(line, "host ", 5)) {
            if (sscanf(line, "host %u %lf %lf %lf %lf", &h->cores, &h->bandwidth_gbps,
                       &h->bandwidth_core_gbps, &h->gflops_core, &h->gops_core) != 5)
                fail(line, NULL);
        } else if (!strncmp(line, "sample ", 7)) {
            take(&s, line);
        } else if (!strncmp(line, "predict ", 8)) {
            answer(&s, line);
        } else {
            fail(line, NULL);
        }
    }
    free(s.learned);
    model_cache_clear();
    return 0;
}
