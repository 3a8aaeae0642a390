/* Memory bandwidth and rates of products of the host: see bench.h. Layer hw.
 *
 * A crew of threads runs passes: all wait at a barrier, work, and note when they began and ended. A pass
 * counts from the first beginning to the last end; the best pass is the figure. The leader decides before
 * each pass whether there is another, so that breaking off never leaves a thread at the barrier. */
#include "hw/bench_priv.h"

#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BUFFER_MAX     (256 * MIB)
#define BUFFER_MIN     (64 * MIB)
#define PRODUCT_N      192u /* three matrices of it stay in a second-level cache */
#define SECONDS        0.4
#define PRODUCT_REPEAT 4u
#define LEAST_PASSES   3

double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

bool bench_cancelled(const struct hw_bench_control *c)
{
    return c && c->cancelled && c->cancelled(c->arg);
}

void bench_progress(const struct hw_bench_control *c, const char *what, double share)
{
    if (c && c->progress)
        c->progress(c->arg, what, share);
}

double bench_seconds(const struct hw_bench_control *c)
{
    return c && c->seconds > 0 ? c->seconds : SECONDS;
}

enum rc bench_cancel(struct err *err)
{
    return err_set(err, RC_CANCELLED, "the measurement was broken off");
}

/* ---- a crew ---- */

struct crew;
struct worker {
    struct crew *crew;
    unsigned index;
    pthread_t thread;
    double begin, end;
    uint64_t sum; /* keeps the compiler from leaving the work out */
    void *matrices;
};

struct crew {
    void (*work)(struct worker *w);
    unsigned n;
    pthread_mutex_t gate; /* held until all have started, or have not */
    bool broken;          /* behind the gate: not all did */
    pthread_barrier_t barrier;
    struct worker *workers;
    const uint64_t *buffer;
    size_t words;
    bool more; /* written by the leader between two barriers */
};

static void pass(struct worker *w)
{
    w->begin = bench_now();
    w->crew->work(w);
    w->end = bench_now();
}

static void *follow(void *arg)
{
    struct worker *w = arg;
    pthread_mutex_lock(&w->crew->gate);
    bool broken = w->crew->broken;
    pthread_mutex_unlock(&w->crew->gate);
    if (broken)
        return NULL;
    for (;;) {
        pthread_barrier_wait(&w->crew->barrier);
        if (!w->crew->more)
            return NULL;
        pass(w);
        pthread_barrier_wait(&w->crew->barrier);
    }
}

static double lead(struct crew *c, const struct hw_bench_control *control, bool *ret_cancelled)
{
    double start = bench_now(), best = 0;
    for (unsigned passes = 0;; passes++) {
        *ret_cancelled = bench_cancelled(control);
        c->more = !*ret_cancelled && (passes < LEAST_PASSES || bench_now() - start < bench_seconds(control));
        pthread_barrier_wait(&c->barrier);
        if (!c->more)
            return best;
        pass(&c->workers[0]);
        pthread_barrier_wait(&c->barrier);
        double begin = c->workers[0].begin, end = c->workers[0].end;
        for (unsigned i = 1; i < c->n; i++) {
            begin = c->workers[i].begin < begin ? c->workers[i].begin : begin;
            end = c->workers[i].end > end ? c->workers[i].end : end;
        }
        if (best <= 0 || end - begin < best)
            best = end - begin;
    }
}

static enum rc run_crew(void (*work)(struct worker *), unsigned n, const uint64_t *buffer, size_t words,
                        const struct hw_bench_control *control, double *ret_best, struct err *err)
{
    struct crew c = {.work = work, .n = n, .buffer = buffer, .words = words};
    pthread_attr_t attr;
    bool cancelled = false;
    c.workers = mem_calloc(n, sizeof *c.workers);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 256 * 1024);
    pthread_mutex_init(&c.gate, NULL);
    pthread_barrier_init(&c.barrier, NULL, n);
    unsigned started = 1;
    for (unsigned i = 0; i < n; i++) {
        c.workers[i] = (struct worker){.crew = &c, .index = i};
        c.workers[i].matrices = buffer ? NULL : mem_calloc(3 * PRODUCT_N * PRODUCT_N, sizeof(float));
    }
    pthread_mutex_lock(&c.gate);
    while (started < n && pthread_create(&c.workers[started].thread, &attr, follow, &c.workers[started]) == 0)
        started++;
    pthread_attr_destroy(&attr);
    c.broken = started < n;
    pthread_mutex_unlock(&c.gate);
    if (!c.broken)
        *ret_best = lead(&c, control, &cancelled);
    for (unsigned i = 1; i < started; i++)
        pthread_join(c.workers[i].thread, NULL);
    pthread_barrier_destroy(&c.barrier);
    pthread_mutex_destroy(&c.gate);
    for (unsigned i = 0; i < n; i++)
        free(c.workers[i].matrices);
    free(c.workers);
    if (started < n) {
        enum rc rc = err_set(err, RC_NOMEM, "only %u of %u threads could be started", started, n);
        err_hint(err, "raise the limit of processes (ulimit -u)");
        return rc;
    }
    return cancelled ? bench_cancel(err) : RC_OK;
}

/* ---- memory ---- */

typedef uint64_t words8 __attribute__((vector_size(64), aligned(8)));

static void read_slice(struct worker *w)
{
    const struct crew *c = w->crew;
    size_t each = c->words / 64 / c->n * 64;
    const words8 *p = (const words8 *)(const void *)(c->buffer + w->index * each);
    words8 sum[4] = {{0}};
    for (size_t i = 0; i + 4 <= each / 8; i += 4)
        for (size_t k = 0; k < 4; k++)
            sum[k] += p[i + k];
    sum[0] += sum[1] + sum[2] + sum[3];
    for (size_t k = 0; k < 8; k++)
        w->sum += sum[0][k];
}

static enum rc measure_memory(unsigned most, uint64_t bytes, const struct hw_bench_control *control,
                              struct hw_bench_host *ret, struct err *err)
{
    uint64_t *buffer = aligned_alloc(2 * MIB, bytes);
    enum rc rc = RC_OK;
    if (!buffer)
        return err_set(err, RC_NOMEM, "no memory for a buffer of %llu MiB",
                       (unsigned long long)(bytes / MIB));
    memset(buffer, 1, bytes); /* every page is there before the clock starts */
    ret->buffer_bytes = bytes;
    for (unsigned n = 1; rc == RC_OK && ret->n_steps < HW_BENCH_STEPS; n = 2 * n < most ? 2 * n : most) {
        double best = 0;
        bench_progress(control, "memory", (double)(n - 1) / most);
        rc = run_crew(read_slice, n, buffer, bytes / sizeof *buffer, control, &best, err);
        if (rc != RC_OK)
            break;
        size_t slice = bytes / 64 / n * 64; /* whole lines of cache */
        double gbps = best > 0 ? (double)slice * n / best * 1e-9 : 0;
        ret->steps[ret->n_steps].threads = n;
        ret->steps[ret->n_steps++].read_gbps = gbps;
        if (n == 1)
            ret->read_core_gbps = gbps;
        if (gbps > ret->read_gbps) {
            ret->read_gbps = gbps;
            ret->read_threads = n;
        }
        if (n == most)
            break;
    }
    free(buffer);
    return rc;
}

/* ---- products ---- */

static void fill(struct worker *w, bool integers)
{
    size_t n = (size_t)PRODUCT_N * PRODUCT_N;
    float *f = w->matrices;
    uint8_t *u = w->matrices;
    for (size_t i = 0; i < 2 * n; i++)
        if (integers)
            u[i] = (uint8_t)((i * 7 + w->index) & 63);
        else
            f[i] = (float)((i * 7 + w->index) & 63) / 64;
}

static void multiply_fp32(struct worker *w)
{
    size_t n = (size_t)PRODUCT_N * PRODUCT_N;
    float *m = w->matrices;
    if (!w->sum++)
        fill(w, false);
    for (unsigned i = 0; i < PRODUCT_REPEAT; i++)
        hw_bench_fp32_product(m, m + n, m + 2 * n, PRODUCT_N);
}

static void multiply_int8(struct worker *w)
{
    size_t n = (size_t)PRODUCT_N * PRODUCT_N;
    uint8_t *m = w->matrices;
    if (!w->sum++)
        fill(w, true);
    for (unsigned i = 0; i < PRODUCT_REPEAT; i++)
        hw_bench_int8_product(m, (const int8_t *)(m + n), (int32_t *)(void *)(m + 4 * n), PRODUCT_N);
}

static enum rc measure_products(unsigned most, const struct hw_bench_control *control,
                                struct hw_bench_host *ret, struct err *err)
{
    const struct {
        const char *what;
        void (*work)(struct worker *);
        unsigned n;
        double *figure;
    } rows[] = {{"products, fp32, one thread", multiply_fp32, 1, &ret->fp32_core_gflops},
                {"products, int8, one thread", multiply_int8, 1, &ret->int8_core_gops},
                {"products, fp32, all threads", multiply_fp32, most, &ret->fp32_gflops},
                {"products, int8, all threads", multiply_int8, most, &ret->int8_gops}};
    double ops = 2.0 * PRODUCT_REPEAT * PRODUCT_N * PRODUCT_N * PRODUCT_N;
    ret->fp32_form = bench_form_fp32()->name;
    ret->int8_form = bench_form_int8()->name;
    ret->threads = most;
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        double best = 0;
        const size_t count = TABLE_COUNT(rows);
        bench_progress(control, rows[i].what, (double)i / (double)count);
        enum rc rc = run_crew(rows[i].work, rows[i].n, NULL, 0, control, &best, err);
        if (rc != RC_OK)
            return rc;
        *rows[i].figure = best > 0 ? ops * rows[i].n / best * 1e-9 : 0;
    }
    return RC_OK;
}

enum rc hw_bench_host(unsigned max_threads, uint64_t free_bytes, const struct hw_bench_control *control,
                      struct hw_bench_host *ret_host, struct err *err)
{
    struct hw_bench_host out = {0};
    unsigned most = max_threads ? max_threads : 1;
    uint64_t bytes = free_bytes / 8 / (2 * MIB) * (2 * MIB);
    bytes = bytes > BUFFER_MAX ? BUFFER_MAX : bytes;
    if (bytes < BUFFER_MIN) {
        enum rc rc = err_set(err, RC_NOMEM, "%llu MiB of free memory are too few to measure its bandwidth",
                             (unsigned long long)(free_bytes / MIB));
        err_hint(err, "unload a model first (arriero unload --all)");
        return rc;
    }
    enum rc rc = measure_memory(most, bytes, control, &out, err);
    if (rc == RC_OK)
        rc = measure_products(most, control, &out, err);
    if (rc == RC_OK)
        *ret_host = out;
    return rc;
}
