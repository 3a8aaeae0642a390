/* See mix.h. */
#include "mix.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOUR   3600.0
#define DAY    (24 * HOUR)
#define PEOPLE 12

/* ---- chance ---- */

struct dice {
    uint64_t state;
};

static double uniform(struct dice *d) /* in (0, 1) */
{
    uint64_t x = d->state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return ((double)((x ^ x >> 31) >> 11) + 0.5) / 9007199254740992.0;
}

static double exponential(struct dice *d, double mean)
{
    return -mean * log(uniform(d));
}

static double lognormal(struct dice *d, double median, double sigma)
{
    double normal = sqrt(-2 * log(uniform(d))) * cos(2 * 3.14159265358979 * uniform(d));
    return median * exp(sigma * normal);
}

static uint32_t tokens(struct dice *d, double median, double sigma)
{
    double t = lognormal(d, median, sigma);
    return t < 1 ? 1 : t > 8000 ? 8000 : (uint32_t)t;
}

static uint32_t geometric(struct dice *d, double mean) /* 1, 2, … */
{
    return 1 + (uint32_t)(log(uniform(d)) / log(1 - 1 / mean));
}

/* Rank 0 is the most popular: weight 1 / (rank + 1). */
static uint32_t by_rank(struct dice *d, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += 1.0 / (i + 1);
    double x = uniform(d) * sum;
    for (uint32_t i = 0; i < n; i++)
        if ((x -= 1.0 / (i + 1)) < 0)
            return i;
    return n - 1;
}

/* ---- lists ---- */

static void add(struct stream *m, double at, uint32_t model, uint32_t in, uint32_t out)
{
    if (m->n == m->cap) {
        m->cap = m->cap ? m->cap * 2 : 1024;
        m->list = mem_realloc(m->list, m->cap, sizeof *m->list);
    }
    m->list[m->n++] = (struct mix_request){.at = at, .model = model, .in = in, .out = out};
}

static int by_time(const void *a, const void *b)
{
    const struct mix_request *x = a, *y = b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return x->model < y->model ? -1 : x->model > y->model;
}

static void finish(struct stream *m)
{
    qsort(m->list, m->n, sizeof *m->list, by_time);
    m->end = m->n ? m->list[m->n - 1].at : 0;
}

void mix_release(struct stream *m)
{
    free(m->list);
    *m = (struct stream){0};
}

/* ---- people ---- */

/* Sessions an hour, by what kind of person it is: who works here by day, who comes in the evening. */
static double rate_at(double at, bool evening)
{
    int day = (int)(at / DAY) % 7, hour = (int)(at / HOUR) % 24;
    if (evening)
        return hour >= 18 && hour < 23 ? 0.6 : day >= 5 && hour >= 10 ? 0.4 : 0;
    return day < 5 && hour >= 9 && hour < 18 && hour != 12 ? 0.7 : 0.02;
}

static uint32_t other_chat(struct dice *d)
{
    return MIX_CHAT + by_rank(d, MIX_MODELS - MIX_CHAT);
}

/* One sitting: requests with time to read between them, half a minute in the median. A quarter of them look
 * things up first (an embedding each); one in five of those who write programs asks the large model at last.
 */
static void sitting(struct dice *d, struct stream *m, double at, uint32_t model)
{
    bool looks_up = uniform(d) < 0.25;
    uint32_t n = geometric(d, 7);
    double depth = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t in = tokens(d, model == MIX_CODE ? 1200 : 250, 1.0), out = tokens(d, 180, 0.8);
        if (looks_up)
            add(m, at - 0.2, MIX_EMBED, tokens(d, 60, 0.5), 0);
        add(m, at, model, in, out);
        depth += in + out;
        at += out / 40.0 + lognormal(d, 30, 1.0);
        if (depth > 8000)
            break;
    }
    if (model == MIX_CODE && uniform(d) < 0.2)
        add(m, at, MIX_LARGE, tokens(d, 3000, 0.5), tokens(d, 600, 0.5));
}

static void person(uint64_t seed, double days, uint32_t who, struct stream *m)
{
    struct dice d = {seed * 1000003 + who};
    bool evening = who % 3 == 2;
    uint32_t favourite = who % 4 == 1 ? MIX_CODE : other_chat(&d), second = other_chat(&d);
    for (double at = 0; at < days * DAY;) {
        double most = 0.7 / HOUR; /* thinning */
        at += exponential(&d, 1 / most);
        if (uniform(&d) * most > rate_at(at, evening) / HOUR)
            continue;
        double x = uniform(&d);
        sitting(&d, m, at, x < 0.7 ? favourite : x < 0.9 ? second : other_chat(&d));
    }
}

void mix_household(uint64_t seed, double days, struct stream *ret)
{
    *ret = (struct stream){0};
    for (uint32_t who = 0; who < PEOPLE; who++)
        person(seed, days, who, ret);
    struct dice d = {seed * 7919 + 17};
    for (double at = HOUR / 2; at < days * DAY; at += HOUR) /* a digest of the mail, every hour */
        for (uint32_t i = 0; i < 5; i++)
            add(ret, at + i * 3 + uniform(&d), MIX_SMALL, tokens(&d, 800, 0.5), tokens(&d, 80, 0.5));
    for (double at = 2 * HOUR; at < days * DAY; at += DAY) { /* at night: a folder is indexed and summed up */
        for (uint32_t i = 0; i < 300; i++)
            add(ret, at + i * 0.5, MIX_EMBED, tokens(&d, 400, 0.3), 0);
        for (uint32_t i = 0; i < 40; i++)
            add(ret, at + 160 + i * 20, MIX_LARGE, tokens(&d, 3000, 0.3), tokens(&d, 300, 0.3));
    }
    finish(ret);
}

/* ---- a recorded file ---- */

static bool row_read(const char *line, double *ret_day_s, uint32_t *ret_in, uint32_t *ret_out)
{
    int h, m;
    double s;
    if (sscanf(line, "%*d-%*d-%*d %d:%d:%lf,%u,%u", &h, &m, &s, ret_in, ret_out) != 5)
        return false;
    *ret_day_s = h * HOUR + m * 60 + s;
    return true;
}

/* The next request is for the same model as the one before with a chance of 0.98, else for one by rank. */
enum rc mix_trace(const char *path, uint64_t seed, double stretch, struct stream *ret, struct err *err)
{
    *ret = (struct stream){0};
    FILE *f = fopen(path, "r");
    if (!f)
        return err_set(err, RC_IO, "%s cannot be read", path);
    struct dice d = {seed};
    char line[256];
    double first = -1, at;
    uint32_t in, out, model = MIX_CHAT;
    for (unsigned n = 1; fgets(line, sizeof line, f); n++) {
        if (!row_read(line, &at, &in, &out)) {
            if (n == 1) /* the names of the columns */
                continue;
            fclose(f);
            mix_release(ret);
            return err_set(err, RC_INVALID, "%s, line %u: not TIMESTAMP,ContextTokens,GeneratedTokens", path,
                           n);
        }
        first = first < 0 ? at : first;
        if (uniform(&d) > 0.98)
            model = by_rank(&d, MIX_MODELS);
        add(ret, (at - first) * stretch, model, in, out);
    }
    fclose(f);
    finish(ret);
    return ret->n ? RC_OK : err_set(err, RC_INVALID, "%s has no requests", path);
}
