/* See yield.h.
 *
 * Steps are of three classes: those of idle instances, of busy ones, of pinned ones. No number of steps of
 * one class is worth one of the next, so the cheapest steps of the dearest class are chosen first, as few as
 * suffice if everybody took the hardest steps of the classes before it; then those of the class before, and
 * so on.
 *
 * Within a class it is a branch-and-bound search over the residents: the first bound is that of a greedy
 * list, and a branch ends where what is left cannot cover the shortage, or not for less than the best. */
#include "pool/yield.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define MOST_NODES (1u << 18) /* some 10 ms */
#define BAND       8          /* a shortage of less than margin / BAND is let be */
#define DEEP       2          /* one of more than margin / DEEP does not wait */
#define CRUMB      8          /* a step that frees less than shortage / CRUMB is not worth it */
#define DEEPEST    4          /* with less than margin / DEEPEST left the host is in danger */

const char *yield_level_word(enum yield_level l)
{
    static const char *const words[YIELD_LEVELS] = {"calm", "warn", "critical"};
    return (unsigned)l < YIELD_LEVELS ? words[l] : "unknown";
}

const char *yield_kind_word(enum yield_kind k)
{
    static const char *const words[YIELD_KINDS] = {"drop", "shrink", "sleep", "evict"};
    return (unsigned)k < YIELD_KINDS ? words[k] : "unknown";
}

/* ---- when ---- */

static uint64_t short_by(int64_t slack)
{
    return slack < 0 ? -(uint64_t)slack : 0;
}

enum yield_when yield_when(int64_t slack, uint64_t margin, enum yield_level level, uint64_t short_ms,
                           uint64_t after_ms)
{
    uint64_t by = short_by(slack);
    if (by == 0 || (level == YIELD_CALM && by <= margin / BAND))
        return YIELD_REST;
    if (level > YIELD_CALM || by > margin / DEEP || short_ms >= after_ms)
        return YIELD_NOW;
    return YIELD_LATER;
}

enum yield_level yield_level_of(int64_t slack, uint64_t margin)
{
    uint64_t by = short_by(slack);
    if (by > margin - margin / DEEPEST)
        return YIELD_CRITICAL;
    return by > margin / DEEP ? YIELD_WARN : YIELD_CALM;
}

/* ---- who ---- */

enum class { CLASS_IDLE, CLASS_BUSY, CLASS_PINNED, CLASSES };
#define NEVER YIELD_LEVELS
#define NONE  (-1) /* no step */

/* What a way is of, and from which level on it is open: [pinned][busy]. */
static const struct {
    enum class class;
    enum yield_level from;
} ways[YIELD_KINDS][2][2] = {
    [YIELD_DROP] = {{{CLASS_IDLE, YIELD_CALM}, {CLASS_BUSY, NEVER}},
                    {{CLASS_IDLE, YIELD_CALM}, {CLASS_BUSY, NEVER}}},
    [YIELD_SHRINK] = {{{CLASS_IDLE, YIELD_CALM}, {CLASS_BUSY, NEVER}},
                      {{CLASS_PINNED, YIELD_CRITICAL}, {CLASS_PINNED, NEVER}}},
    [YIELD_SLEEP] = {{{CLASS_IDLE, YIELD_CALM}, {CLASS_BUSY, NEVER}},
                     {{CLASS_PINNED, YIELD_CRITICAL}, {CLASS_PINNED, NEVER}}},
    [YIELD_EVICT] = {{{CLASS_IDLE, YIELD_CALM}, {CLASS_BUSY, YIELD_CRITICAL}},
                     {{CLASS_PINNED, YIELD_CRITICAL}, {CLASS_PINNED, YIELD_CRITICAL}}},
};

struct choice {
    const struct yield_resident *residents;
    size_t n, n_devices;
    const uint64_t *short_bytes;
    enum yield_level level;
    int taken[PLAN_MAX_RESIDENTS]; /* by classes that are through, or NONE */
    /* of the class in hand: */
    bool open[PLAN_MAX_RESIDENTS][YIELD_KINDS];
    uint64_t gain[PLAN_MAX_RESIDENTS][YIELD_KINDS][YIELD_DEVICES]; /* over what the classes before it give */
    /* of residents from i on: the most that they free; and the least cost of a byte of a device */
    uint64_t most[PLAN_MAX_RESIDENTS + 1][YIELD_DEVICES];
    double least[PLAN_MAX_RESIDENTS + 1][YIELD_DEVICES];
    unsigned nodes;
    double best;
    int now[PLAN_MAX_RESIDENTS], kept[PLAN_MAX_RESIDENTS]; /* under way, and the best */
};

static uint64_t plus(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static bool helps_on(const struct choice *c, size_t i, int k, size_t d)
{
    if (c->level == YIELD_CRITICAL)
        return true;
    return c->short_bytes[d] && c->residents[i].frees[k][d] >= c->short_bytes[d] / CRUMB;
}

static bool is_worth_it(const struct choice *c, size_t i, int k)
{
    bool any = false;
    for (size_t d = 0; d < c->n_devices; d++)
        any |= helps_on(c, i, k, d);
    return any;
}

static bool is_open(const struct choice *c, size_t i, int k)
{
    const struct yield_resident *r = &c->residents[i];
    return r->can[k] && ways[k][r->pinned][r->busy].from <= c->level && is_worth_it(c, i, k);
}

/* The hardest open way of a class below `end`, or NONE. */
static int hardest(const struct choice *c, size_t i, int end)
{
    const struct yield_resident *r = &c->residents[i];
    for (int k = YIELD_KINDS - 1; k >= 0; k--)
        if (is_open(c, i, k) && (int)ways[k][r->pinned][r->busy].class < end)
            return k;
    return NONE;
}

static uint64_t freed(const struct choice *c, size_t i, int kind, size_t d)
{
    return kind == NONE ? 0 : c->residents[i].frees[kind][d];
}

/* What may still be chosen in this class, and what is left to free if all classes before it give everything.
 */
static void begin_class(struct choice *c, int class, const uint64_t *goal, uint64_t *ret_left)
{
    memcpy(ret_left, goal, c->n_devices * sizeof *goal);
    for (size_t i = 0; i < c->n; i++) {
        const struct yield_resident *r = &c->residents[i];
        int base = c->taken[i] == NONE ? hardest(c, i, class) : c->taken[i];
        for (int k = 0; k < YIELD_KINDS; k++) {
            c->open[i][k] =
                c->taken[i] == NONE && is_open(c, i, k) && (int)ways[k][r->pinned][r->busy].class == class;
            for (size_t d = 0; d < c->n_devices; d++)
                c->gain[i][k][d] = minus(freed(c, i, k, d), freed(c, i, base, d));
        }
        for (size_t d = 0; d < c->n_devices; d++)
            ret_left[d] = minus(ret_left[d], freed(c, i, base, d));
    }
}

static void sum_up(struct choice *c)
{
    for (size_t d = 0; d < c->n_devices; d++) {
        c->most[c->n][d] = 0;
        c->least[c->n][d] = 1e300;
    }
    for (size_t i = c->n; i-- > 0;)
        for (size_t d = 0; d < c->n_devices; d++) {
            uint64_t most = 0;
            c->least[i][d] = c->least[i + 1][d];
            for (int k = 0; k < YIELD_KINDS; k++) {
                uint64_t gain = c->open[i][k] ? c->gain[i][k][d] : 0;
                double a_byte = gain ? c->residents[i].cost[k] / (double)gain : 1e300;
                most = gain > most ? gain : most;
                c->least[i][d] = a_byte < c->least[i][d] ? a_byte : c->least[i][d];
            }
            c->most[i][d] = plus(c->most[i + 1][d], most);
        }
}

static double cost_of(const struct choice *c, size_t i, int kind)
{
    return kind == NONE ? 0 : c->residents[i].cost[kind];
}

static bool covers(const struct choice *c, const int *kinds, const uint64_t *left)
{
    for (size_t d = 0; d < c->n_devices; d++) {
        uint64_t sum = 0;
        for (size_t i = 0; i < c->n; i++)
            sum = plus(sum, kinds[i] == NONE ? 0 : c->gain[i][kinds[i]][d]);
        if (sum < left[d])
            return false;
    }
    return true;
}

static size_t dearest_of(const struct choice *c, const bool *done)
{
    size_t at = c->n;
    for (size_t i = 0; i < c->n; i++)
        if (!done[i] && c->kept[i] != NONE &&
            (at == c->n || cost_of(c, i, c->kept[i]) > cost_of(c, at, c->kept[at])))
            at = i;
    return at;
}

/* Everybody's hardest way, made milder or taken back as far as that still covers, dearest first. */
static void start_greedy(struct choice *c, const uint64_t *left)
{
    bool done[PLAN_MAX_RESIDENTS] = {false};
    for (size_t i = 0; i < c->n; i++) {
        c->kept[i] = NONE;
        for (int k = 0; k < YIELD_KINDS; k++)
            c->kept[i] = c->open[i][k] ? k : c->kept[i];
    }
    for (size_t i; (i = dearest_of(c, done)) < c->n;) {
        int was = c->kept[i], k = NONE;
        done[i] = true;
        for (; k < was; k++) {
            c->kept[i] = k;
            if ((k == NONE || c->open[i][k]) && covers(c, c->kept, left))
                break;
        }
        c->kept[i] = k;
    }
    c->best = 0;
    for (size_t i = 0; i < c->n; i++)
        c->best += cost_of(c, i, c->kept[i]);
}

/* Whether residents from i on could cover what is left for less than the best list costs. */
static bool may_win(const struct choice *c, size_t i, double cost, const uint64_t *left)
{
    double more = 0;
    for (size_t d = 0; d < c->n_devices; d++) {
        if (left[d] > c->most[i][d])
            return false;
        double least = left[d] ? c->least[i][d] * (double)left[d] : 0;
        more = least > more ? least : more;
    }
    return cost + more * (1 - 1e-9) <
           c->best; /* a product of rounded numbers must not cut off what is less */
}

static void search(struct choice *c, size_t i, double cost, const uint64_t *left)
{
    if (c->nodes++ > MOST_NODES || !may_win(c, i, cost, left))
        return;
    if (i == c->n) { /* nothing is left to free, or it could not win */
        c->best = cost;
        memcpy(c->kept, c->now, sizeof c->kept);
        return;
    }
    for (int k = NONE; k < YIELD_KINDS; k++) {
        uint64_t rest[YIELD_DEVICES];
        if (k != NONE && !c->open[i][k])
            continue;
        c->now[i] = k;
        for (size_t d = 0; d < c->n_devices; d++)
            rest[d] = minus(left[d], k == NONE ? 0 : c->gain[i][k][d]);
        search(c, i + 1, cost + cost_of(c, i, k), rest);
    }
}

/* No more can be asked for than all give that can help there. */
static void bound(const struct choice *c, const uint64_t *short_bytes, uint64_t *ret_goal)
{
    for (size_t d = 0; d < c->n_devices; d++) {
        uint64_t all = 0;
        for (size_t i = 0; i < c->n; i++) {
            int k = hardest(c, i, CLASSES);
            all = plus(all, k != NONE && helps_on(c, i, k, d) ? freed(c, i, k, d) : 0);
        }
        ret_goal[d] = short_bytes[d] < all ? short_bytes[d] : all;
    }
}

size_t yield_choose(const uint64_t *short_bytes, size_t n_devices, const struct yield_resident *residents,
                    size_t n, enum yield_level level, struct yield_step *ret_steps)
{
    struct choice *c = mem_new(struct choice);
    uint64_t goal[YIELD_DEVICES], left[YIELD_DEVICES];
    size_t n_steps = 0;
    c->residents = residents;
    c->n = n < PLAN_MAX_RESIDENTS ? n : PLAN_MAX_RESIDENTS;
    c->n_devices = n_devices < YIELD_DEVICES ? n_devices : YIELD_DEVICES;
    c->short_bytes = short_bytes;
    c->level = level;
    for (size_t i = 0; i < c->n; i++)
        c->taken[i] = NONE;
    bound(c, short_bytes, goal);
    for (int class = CLASSES - 1; class >= 0; class --) {
        begin_class(c, class, goal, left);
        sum_up(c);
        start_greedy(c, left);
        c->nodes = 0;
        search(c, 0, 0, left);
        for (size_t i = 0; i < c->n; i++)
            if (c->kept[i] != NONE)
                c->taken[i] = c->kept[i];
    }
    for (size_t i = 0; i < c->n; i++)
        if (c->taken[i] != NONE)
            ret_steps[n_steps++] = (struct yield_step){(uint32_t)i, (enum yield_kind)c->taken[i]};
    free(c);
    return n_steps;
}
