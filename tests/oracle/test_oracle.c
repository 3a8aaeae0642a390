/* 200 of the recorded answers in the unit tests: spread over every shape whose architecture the planner
 * supports. Each is one test: weights and context equal, no device under by more than 1 MiB; the error of
 * compute is judged over all of them. An architecture without an estimate is no test: it is named at the end.
 */
#include "compare.h"

#include "base/mem.h"
#include "plan/facts.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define SUBSET 200

struct suite {
    struct goldens goldens;
    const char *dir;
    const struct shape *open; /* the shape of model */
    struct model *model;
    double pct[SUBSET * (CASE_DEVICES + 1)]; /* |error| of compute on each device */
    size_t n_pct;
};

struct one_test {
    struct suite *suite;
    struct oracle_case c;
    uint64_t order; /* within its shape */
};

static void open_model(struct suite *s, const struct shape *shape)
{
    if (s->open == shape)
        return;
    struct err err;
    auto_free char *path = NULL;
    uint64_t hash = 0;
    if (s->model)
        model_unref(s->model);
    s->model = NULL;
    s->open = NULL;
    if (shape_file(shape, s->dir, &path, &hash, &err) || model_open(path, &s->model, &err))
        fail_msg("%s", err.message);
    if (!goldens_know(&s->goldens, shape->name, hash))
        fail_msg("%s has changed since its answers were recorded: make oracle RECORD=1", shape->name);
    s->open = shape;
}

static void test_case(void **state)
{
    const struct one_test *t = *state;
    struct suite *s = t->suite;
    struct comparison r;
    open_model(s, t->c.shape);
    compare(&t->c, s->model, goldens_find(&s->goldens, t->c.id, t->c.key), s->goldens.isa, &r);
    if (r.outcome == NO_ESTIMATE)
        skip();
    if (r.outcome == ONLY_WE_REFUSE || r.outcome == ONLY_IT_REFUSES)
        fail_msg("%s", r.why);
    for (size_t i = 0; i < r.n_devices; i++) {
        const struct device_error *d = &r.devices[i];
        if (2 * llabs(d->error[PART_MODEL]) >= (long long)MIB)
            fail_msg("%s: weights differ by %lld bytes", d->name, (long long)d->error[PART_MODEL]);
        if (2 * llabs(d->error[PART_CONTEXT]) >= (long long)MIB)
            fail_msg("%s: context differs by %lld bytes", d->name, (long long)d->error[PART_CONTEXT]);
        if (d->want[PART_COMPUTE] >= MIB)
            s->pct[s->n_pct++] = 100.0 * fabs((double)d->error[PART_COMPUTE]) / (double)d->want[PART_COMPUTE];
    }
    assert_true(comparison_under(&r) <= MIB);
}

static int by_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void test_compute_error(void **state)
{
    struct suite *s = *state;
    assert_true(s->n_pct > 0);
    qsort(s->pct, s->n_pct, sizeof *s->pct, by_double);
    double median = s->pct[s->n_pct / 2], p99 = s->pct[(s->n_pct - 1) * 99 / 100];
    printf("compute: median error %.2f %%, p99 %.2f %% over %zu devices\n", median, p99, s->n_pct);
    assert_true(median <= 1.0);
    assert_true(p99 <= 3.0);
}

/* ---- choosing ---- */

static int by_shape_and_order(const void *a, const void *b)
{
    const struct one_test *x = a, *y = b;
    if (x->c.shape != y->c.shape)
        return x->c.shape < y->c.shape ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

/* Place of each test within its shape; tests are sorted by shape. */
static size_t rank_of(const struct one_test *t, size_t i)
{
    size_t rank = 0;
    while (rank < i && t[i - rank - 1].c.shape == t[i].c.shape)
        rank++;
    return rank;
}

static size_t count_below(const struct one_test *t, size_t n, size_t quota)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        kept += rank_of(t, i) < quota;
    return kept;
}

/* Keeps SUBSET tests: the first `quota` of each shape, and one more of evenly spread shapes. */
static size_t thin_out(struct one_test *t, size_t n)
{
    size_t quota = 0, out = 0, seen = 0;
    if (n <= SUBSET)
        return n;
    while (count_below(t, n, quota + 1) <= SUBSET)
        quota++;
    size_t more = SUBSET - count_below(t, n, quota), offered = count_below(t, n, quota + 1) - (SUBSET - more);
    auto_free bool *keep = mem_calloc(n, sizeof *keep);
    for (size_t i = 0; i < n; i++) {
        size_t rank = rank_of(t, i);
        keep[i] = rank < quota || (rank == quota && (seen + 1) * more / offered > seen * more / offered);
        seen += rank == quota;
    }
    for (size_t i = 0; i < n; i++)
        if (keep[i])
            t[out++] = t[i];
    return out;
}

static struct one_test *choose(struct suite *s, size_t *ret_n)
{
    size_t n_cases, n = 0;
    auto_free struct oracle_case *cases = cases_make(&n_cases);
    struct one_test *t = mem_calloc(n_cases + 1, sizeof *t);
    for (size_t i = 0; i < n_cases; i++)
        if (arch_find(cases[i].shape->arch) && goldens_find(&s->goldens, cases[i].id, cases[i].key))
            t[n++] = (struct one_test){s, cases[i], str_hash(str_from(cases[i].id), 0)};
    qsort(t, n, sizeof *t, by_shape_and_order);
    *ret_n = thin_out(t, n);
    return t;
}

static void print_refused(void)
{
    size_t n = 0;
    for (size_t i = 0; i < n_shapes; i++) {
        bool new = !arch_find(shapes[i].arch);
        for (size_t j = 0; j < i; j++)
            new = new &&strcmp(shapes[i].arch, shapes[j].arch) != 0;
        if (new)
            printf("%s%s", n++ ? ", " : "refused (no estimate): ", shapes[i].arch);
    }
    printf("%s%zu architectures refused\n", n ? "\n" : "", n);
}

int main(int argc, char **argv)
{
    struct suite suite = {0};
    struct err err;
    size_t n = 0;
    if (argc != 3)
        return fprintf(stderr, "usage: test_oracle GOLDENS FOLDER\n"), 2;
    suite.dir = argv[2];
    if (goldens_read(argv[1], &suite.goldens, &err) || (mkdir(argv[2], 0755) && errno != EEXIST))
        return fprintf(stderr, "test_oracle: %s\n", err.message), 2;
    struct one_test *chosen = choose(&suite, &n);
    struct CMUnitTest *tests = mem_calloc(n + 1, sizeof *tests);
    for (size_t i = 0; i < n; i++)
        tests[i] = (struct CMUnitTest){chosen[i].c.id, test_case, NULL, NULL, &chosen[i]};
    tests[n] = (struct CMUnitTest){"compute error over all", test_compute_error, NULL, NULL, &suite};
    int failed = _cmocka_run_group_tests("oracle", tests, n + 1, NULL, NULL);
    print_refused();
    if (suite.model)
        model_unref(suite.model);
    free(tests);
    free(chosen);
    goldens_release(&suite.goldens);
    return failed;
}
