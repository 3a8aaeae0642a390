#include "report.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Figures of one architecture, or of all. */
struct tally {
    const char *arch;
    size_t compared, refused_estimate, refused_well, refused_wrong;
    size_t equal, model_exact, context_exact, under;
    uint64_t worst_under;
    double *pct; /* |error| of compute, one a device that has at least 1 MiB of it */
    size_t n_pct;
};

struct run {
    struct comparison *all;
    size_t n;
    size_t missing; /* cases without a recorded answer */
};

static int by_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const struct tally *t, double q)
{
    return t->n_pct ? t->pct[(size_t)lround(q * (double)(t->n_pct - 1))] : 0;
}

static void add(struct tally *t, const struct comparison *c)
{
    switch (c->outcome) {
    case NO_ESTIMATE: t->refused_estimate++; return;
    case BOTH_REFUSED: t->refused_well++; return;
    case ONLY_WE_REFUSE:
    case ONLY_IT_REFUSES: t->refused_wrong++; return;
    case COMPARED: break;
    }
    uint64_t under = comparison_under(c);
    t->compared++;
    t->equal += comparison_equal(c);
    t->model_exact += comparison_exact(c, PART_MODEL);
    t->context_exact += comparison_exact(c, PART_CONTEXT);
    t->under += under > MIB;
    if (under > t->worst_under)
        t->worst_under = under;
    t->pct = mem_realloc(t->pct, t->n_pct + c->n_devices + 1, sizeof *t->pct);
    for (size_t i = 0; i < c->n_devices; i++) {
        const struct device_error *d = &c->devices[i];
        if (d->want[PART_COMPUTE] >= MIB)
            t->pct[t->n_pct++] = 100.0 * fabs((double)d->error[PART_COMPUTE]) / (double)d->want[PART_COMPUTE];
    }
}

static double share(size_t part, size_t n)
{
    return n ? 100.0 * (double)part / (double)n : 100.0;
}

static bool goals_met(const struct tally *t)
{
    return t->model_exact == t->compared && t->context_exact == t->compared && quantile(t, 0.5) <= 1 &&
           quantile(t, 0.99) <= 3 && !t->under && !t->refused_wrong;
}

static void print_tally(const struct tally *t)
{
    printf("%-18s %5zu", t->arch, t->compared);
    if (t->compared)
        printf(" %7.1f %7.1f %8.1f %8.2f %8.2f %8.1f %6zu %9.1f", share(t->equal, t->compared),
               share(t->model_exact, t->compared), share(t->context_exact, t->compared), quantile(t, 0.5),
               quantile(t, 0.99), quantile(t, 1), t->under, (double)t->worst_under / (double)MIB);
    else
        printf(" %7s %7s %8s %8s %8s %8s %6s %9s", "-", "-", "-", "-", "-", "-", "-", "-");
    printf(" %8zu %5zu %5zu  %s\n", t->refused_estimate, t->refused_well, t->refused_wrong,
           !t->compared && !t->refused_wrong ? "no estimate"
           : goals_met(t)                    ? "met"
                                             : "short");
}

/* Lists the cases' architectures in the order they first appear, then ALL. */
static struct tally *tally_all(const struct run *r, size_t *ret_n)
{
    struct tally *t = mem_calloc(r->n + 1, sizeof *t);
    size_t n = 0;
    struct tally every = {.arch = "ALL"};
    for (size_t i = 0; i < r->n; i++) {
        size_t j = 0;
        while (j < n && strcmp(t[j].arch, r->all[i].c->shape->arch))
            j++;
        if (j == n)
            t[n++].arch = r->all[i].c->shape->arch;
        add(&t[j], &r->all[i]);
        add(&every, &r->all[i]);
    }
    t[n++] = every;
    for (size_t j = 0; j < n; j++)
        if (t[j].n_pct)
            qsort(t[j].pct, t[j].n_pct, sizeof *t[j].pct, by_double);
    *ret_n = n;
    return t;
}

/* ---- worst cases ---- */

static int64_t worst_error(const struct comparison *c)
{
    int64_t worst = 0;
    if (c->outcome == ONLY_WE_REFUSE || c->outcome == ONLY_IT_REFUSES)
        return INT64_MAX;
    for (size_t i = 0; i < c->n_devices; i++)
        for (int p = 0; p < PARTS; p++)
            if (llabs(c->devices[i].error[p]) > worst)
                worst = llabs(c->devices[i].error[p]);
    return worst;
}

static int by_worst(const void *a, const void *b)
{
    int64_t x = worst_error(*(const struct comparison *const *)a),
            y = worst_error(*(const struct comparison *const *)b);
    return (x < y) - (x > y);
}

static void print_device(const struct device_error *d)
{
    printf("    %-6s model %+.2f of %.2f  context %+.2f of %.2f  compute %+.2f of %.2f MiB\n", d->name,
           (double)d->error[PART_MODEL] / (double)MIB, (double)d->want[PART_MODEL] / (double)MIB,
           (double)d->error[PART_CONTEXT] / (double)MIB, (double)d->want[PART_CONTEXT] / (double)MIB,
           (double)d->error[PART_COMPUTE] / (double)MIB, (double)d->want[PART_COMPUTE] / (double)MIB);
}

static void print_case(const struct comparison *c, const char *dir)
{
    struct buf ours = {0}, env = {0}, theirs = {0};
    case_estimate_args(c->c, &ours);
    case_oracle_env(c->c, &env);
    case_oracle_args(c->c, &theirs);
    printf("%s%s%s\n", c->c->id, c->why[0] ? ": " : "", c->why);
    for (size_t i = 0; i < c->n_devices; i++)
        print_device(&c->devices[i]);
    printf("    arriero estimate %s/%s.gguf %.*s\n", dir, c->c->shape->name, STR_ARG(buf_str(&ours)));
    printf("    %.*s LD_PRELOAD=oracle_hook.so llama-fit-params -m %s/%s.gguf %.*s\n", STR_ARG(buf_str(&env)),
           dir, c->c->shape->name, STR_ARG(buf_str(&theirs)));
    buf_release(&ours);
    buf_release(&env);
    buf_release(&theirs);
}

static void print_worst(const struct run *r, const struct report_options *o, const char *dir)
{
    auto_free const struct comparison **order = mem_calloc(r->n + 1, sizeof *order);
    for (size_t i = 0; i < r->n; i++)
        order[i] = &r->all[i];
    qsort(order, r->n, sizeof *order, by_worst);
    for (size_t i = 0; i < r->n && i < o->worst && worst_error(order[i]); i++)
        print_case(order[i], dir);
}

static void print_each(const struct run *r)
{
    for (size_t i = 0; i < r->n; i++) {
        printf("%s%s%s\n", r->all[i].c->id, r->all[i].why[0] ? ": " : "", r->all[i].why);
        for (size_t j = 0; j < r->all[i].n_devices; j++)
            print_device(&r->all[i].devices[j]);
    }
}

/* ---- the run ---- */

static bool wanted(const struct oracle_case *c, const struct report_options *o)
{
    return (!o->arch || !strcmp(o->arch, c->shape->arch)) &&
           (!o->shape || !strcmp(o->shape, c->shape->name)) && (!o->only || strstr(c->id, o->only));
}

static enum rc open_shape(const struct shape *s, const struct goldens *g, const char *dir, struct model **ret,
                          struct err *err)
{
    auto_free char *path = NULL;
    uint64_t hash = 0;
    enum rc rc = shape_file(s, dir, &path, &hash, err);
    if (!rc && !goldens_know(g, s->name, hash)) {
        rc = err_set(err, RC_CONFLICT, "the shape %s has changed since its answers were recorded", s->name);
        err_hint(err, "make oracle RECORD=1");
    }
    if (!rc)
        rc = model_open(path, ret, err);
    return rc;
}

static enum rc run_all(const struct goldens *g, const char *dir, const struct report_options *o,
                       const struct oracle_case *cases, size_t n, struct run *ret, struct err *err)
{
    struct model *m = NULL;
    const struct shape *open = NULL;
    enum rc rc = RC_OK;
    for (size_t i = 0; i < n && !rc; i++) {
        const struct golden *want = goldens_find(g, cases[i].id, cases[i].key);
        if (!wanted(&cases[i], o))
            continue;
        if (!want) {
            ret->missing++;
            continue;
        }
        if (cases[i].shape != open) {
            struct model *next = NULL;
            rc = open_shape(cases[i].shape, g, dir, &next, err);
            if (rc)
                break;
            if (m)
                model_unref(m);
            m = next;
            open = cases[i].shape;
        }
        compare(&cases[i], m, want, g->isa, &ret->all[ret->n++]);
    }
    if (m)
        model_unref(m);
    return rc;
}

/* Architectures with at least one estimate. */
static size_t count_known(const struct tally *t, size_t n_archs)
{
    size_t known = 0;
    for (size_t i = 0; i < n_archs; i++)
        known += t[i].compared > 0;
    return known;
}

static void write_json(const char *path, const struct tally *all, size_t n_archs, size_t known)
{
    FILE *f = fopen(path, "we");
    if (!f)
        return;
    fprintf(f,
            "{\"cases\": %zu, \"refused\": %zu, \"architectures\": %zu, \"architectures_refused\": %zu, "
            "\"equal_pct\": %.2f, \"model_exact_pct\": %.2f, \"context_exact_pct\": %.2f, "
            "\"compute_median_pct\": %.3f, \"compute_p99_pct\": %.3f, \"worst_under_mib\": %.2f}\n",
            all->compared, all->refused_estimate, n_archs, n_archs - known, share(all->equal, all->compared),
            share(all->model_exact, all->compared), share(all->context_exact, all->compared),
            quantile(all, 0.5), quantile(all, 0.99), (double)all->worst_under / (double)MIB);
    fclose(f);
}

enum rc report(const char *goldens, const char *dir, const struct report_options *o, bool *ret_met,
               struct err *err)
{
    struct goldens g;
    size_t n, n_tallies;
    enum rc rc = goldens_read(goldens, &g, err);
    if (rc)
        return rc;
    auto_free struct oracle_case *cases = cases_make(&n);
    struct run r = {.all = mem_calloc(n + 1, sizeof *r.all)};
    rc = run_all(&g, dir, o, cases, n, &r, err);
    if (!rc) {
        struct tally *t = tally_all(&r, &n_tallies);
        if (o->each)
            print_each(&r);
        print_worst(&r, o, dir);
        printf("%-18s %5s %7s %7s %8s %8s %8s %8s %6s %9s %8s %5s %5s\n", "architecture", "n", "bytes%",
               "model%", "context%", "median%", "p99%", "max%", "under", "worst MiB", "no est.", "ref.",
               "wrong");
        for (size_t i = 0; i < n_tallies; i++)
            print_tally(&t[i]);
        if (r.missing)
            printf("%zu cases have no recorded answer\n", r.missing);
        size_t archs = n_tallies - 1, known = count_known(t, archs);
        printf("%zu of %zu architectures have an estimate\n", known, archs);
        if (o->json)
            write_json(o->json, &t[archs], archs, known);
        *ret_met = goals_met(&t[n_tallies - 1]);
        for (size_t i = 0; i < n_tallies; i++)
            free(t[i].pct);
        free(t);
    }
    free(r.all);
    goldens_release(&g);
    return rc;
}
