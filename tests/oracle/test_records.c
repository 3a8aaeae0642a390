/* An estimator that remembers (record.h) against one that builds every layer anew: random questions, eight
 * with one structure in a row, over every third shape of the oracle; equal to the byte. One test a shape.
 *
 *     test_records DIR [FIRST_SEED SEEDS]   all shapes, 160 questions for each of SEEDS seeds */
#include "shape.h"

#include "base/mem.h"
#include "plan/memory.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define QUESTIONS    16
#define QUESTIONS_OF 160 /* a seed */
#define IN_A_ROW     8
#define DEVICES      4

struct one_test {
    const struct shape *shape;
    const char *dir;
    uint64_t seed;
    unsigned n;
    uint64_t *served; /* by records, of all tests */
};

static unsigned draw(uint64_t *seed, unsigned n)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return (unsigned)(*seed >> 33) % n;
}

struct question {
    struct plan_params p;
    struct plan_device d[DEVICES];
    size_t n;
};

static void draw_devices(uint64_t *seed, struct question *q)
{
    static const char *const stems[] = {"CUDA", "Vulkan", "RPC", "ROCm", "SYCL"};
    const char *stem = stems[draw(seed, TABLE_COUNT(stems))];
    q->n = draw(seed, DEVICES + 1);
    for (size_t i = 0; i < q->n; i++) {
        char name[32];
        uint64_t mib = 8000 + 4000 * draw(seed, 3);
        snprintf(name, sizeof name, "%s%zu", stem, i);
        plan_device_named(&q->d[i], str_from(name), mib * MIB, mib * MIB);
    }
}

/* Devices, and what changes where things lie. */
static void draw_structure(uint64_t *seed, struct question *q)
{
    static const uint32_t types[] = {GGML_F16, GGML_F16, GGML_Q8_0, GGML_Q4_0, GGML_BF16};
    struct plan_params *p = &q->p;
    plan_params_default(p);
    draw_devices(seed, q);
    p->parallel = 1 + 3 * draw(seed, 3);
    p->kv_unified = draw(seed, 4);
    p->flash_attn = draw(seed, 4);
    p->type_k = types[draw(seed, TABLE_COUNT(types))];
    p->type_v = p->flash_attn ? p->type_k : GGML_F16;
    p->kv_offload = draw(seed, 5);
    p->swa_full = draw(seed, 5) == 0;
    p->n_cpu_moe = draw(seed, 3) ? 0 : draw(seed, 20);
    p->repack = draw(seed, 4);
    p->pins = draw(seed, 4);
    p->embedding = draw(seed, 8) == 0;
    p->gpu_layers = draw(seed, 3) ? PLAN_ALL_LAYERS : (int32_t)draw(seed, 40);
}

/* … and how large they are. */
static void draw_sizes(uint64_t *seed, struct plan_params *p)
{
    static const uint32_t ctx[] = {512, 1024, 2048, 4096, 8192, 16384, 33024, 100000};
    static const uint32_t ubatch[] = {512, 512, 512, 256, 128, 64, 40, 33, 31, 16, 1, 2048};
    p->ctx = ctx[draw(seed, TABLE_COUNT(ctx))];
    p->ubatch = ubatch[draw(seed, TABLE_COUNT(ubatch))];
    if (draw(seed, 4) == 0 && p->gpu_layers >= 0)
        p->gpu_layers = (int32_t)draw(seed, 40);
    p->outputs = draw(seed, 6) ? PLAN_OUTPUTS_SLOTS : PLAN_OUTPUTS_BATCH;
}

static void compare_one(struct estimator *kept, struct estimator *whole, const struct question *q)
{
    struct plan_estimate a, b;
    struct err err;
    enum rc rc = estimator_run(kept, &q->p, q->d, q->n, false, &a, &err);
    assert_int_equal(rc, estimator_run(whole, &q->p, q->d, q->n, true, &b, &err));
    for (size_t i = 0; !rc && i < a.n_parts; i++)
        if (a.parts[i].compute_bytes != b.parts[i].compute_bytes)
            fail_msg("%s: %llu bytes instead of %llu (context %u, micro-batch %u, %d layers, %zu devices)",
                     a.parts[i].name, (unsigned long long)a.parts[i].compute_bytes,
                     (unsigned long long)b.parts[i].compute_bytes, q->p.ctx, q->p.ubatch, q->p.gpu_layers,
                     q->n);
}

static void test_shape(void **state)
{
    struct one_test *t = *state;
    auto_free char *path = NULL;
    struct model *m;
    struct err err;
    struct estimator kept, whole;
    struct question q;
    if (shape_file(t->shape, t->dir, &path, NULL, &err) || model_open(path, &m, &err))
        fail_msg("%s", err.message);
    assert_int_equal(estimator_init(&kept, m, &err), RC_OK);
    assert_int_equal(estimator_init(&whole, m, &err), RC_OK);
    for (unsigned i = 0; i < t->n; i++) {
        if (i % IN_A_ROW == 0)
            draw_structure(&t->seed, &q);
        draw_sizes(&t->seed, &q.p);
        compare_one(&kept, &whole, &q);
    }
    assert_int_equal(whole.records.served, 0);
    *t->served += kept.records.served;
    estimator_release(&kept);
    estimator_release(&whole);
    model_unref(m);
}

/* Records that never apply would differ nowhere. */
static void test_served(void **state)
{
    const struct one_test *t = *state;
    assert_true(*t->served > t->n);
}

int main(int argc, char **argv)
{
    uint64_t served = 0, first = argc == 4 ? strtoull(argv[2], NULL, 10) : 1;
    size_t n = 0, seeds = argc == 4 ? strtoul(argv[3], NULL, 10) : 1, step = argc == 4 ? 1 : 3;
    if ((argc != 2 && argc != 4) || (mkdir(argv[1], 0755) && errno != EEXIST))
        return fprintf(stderr, "usage: test_records DIR [FIRST_SEED SEEDS]\n"), 2;
    auto_free struct one_test *all = mem_calloc(n_shapes * seeds + 1, sizeof *all);
    auto_free struct CMUnitTest *tests = mem_calloc(n_shapes * seeds + 1, sizeof *tests);
    for (size_t s = 0; s < seeds; s++)
        for (size_t i = 0; i < n_shapes; i += step, n++) {
            all[n] = (struct one_test){.shape = &shapes[i],
                                       .dir = argv[1],
                                       .seed = (first + s) * 0x9e3779b97f4a7c15ull + i * 7919 + 1,
                                       .n = argc == 4 ? QUESTIONS_OF : QUESTIONS,
                                       .served = &served};
            tests[n] = (struct CMUnitTest){
                .name = shapes[i].name, .test_func = test_shape, .initial_state = &all[n]};
        }
    all[n] = (struct one_test){.n = (unsigned)n, .served = &served};
    tests[n] =
        (struct CMUnitTest){.name = "served by records", .test_func = test_served, .initial_state = &all[n]};
    return _cmocka_run_group_tests("records", tests, n + 1, NULL, NULL);
}
