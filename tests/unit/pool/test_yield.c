/* Who yields how, compared with all lists of steps; and when. */
#include "pool/yield.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#define GIB (1024 * MIB)

/* ---- when ---- */

static void test_when(void **state)
{
    (void)state;
    const int64_t gib = (int64_t)GIB;
    static const struct {
        int64_t slack; /* in eighths of the margin */
        enum yield_level level;
        uint64_t short_ms;
        enum yield_when when;
    } rows[] = {
        {3, YIELD_CALM, 0, YIELD_REST},      {0, YIELD_CALM, 9000, YIELD_REST},
        {-1, YIELD_CALM, 9000, YIELD_REST},  {-2, YIELD_CALM, 0, YIELD_LATER},
        {-2, YIELD_CALM, 1999, YIELD_LATER}, {-2, YIELD_CALM, 2000, YIELD_NOW},
        {-4, YIELD_CALM, 0, YIELD_LATER},    {-5, YIELD_CALM, 0, YIELD_NOW},
        {-1, YIELD_WARN, 0, YIELD_NOW},      {0, YIELD_CRITICAL, 9000, YIELD_REST},
        {-9, YIELD_CRITICAL, 0, YIELD_NOW},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++)
        assert_int_equal(yield_when(rows[i].slack * gib / 8, GIB, rows[i].level, rows[i].short_ms, 2000),
                         rows[i].when);
    assert_int_equal(yield_when(INT64_MIN, GIB, YIELD_CALM, 0, 2000), YIELD_NOW);
    assert_int_equal(yield_when(-1, 0, YIELD_CALM, 0, 2000), YIELD_NOW); /* no margin, no band */
}

static void test_level(void **state)
{
    (void)state;
    assert_int_equal(yield_level_of(0, 8), YIELD_CALM);
    assert_int_equal(yield_level_of(-4, 8), YIELD_CALM);
    assert_int_equal(yield_level_of(-5, 8), YIELD_WARN);
    assert_int_equal(yield_level_of(-6, 8), YIELD_WARN);
    assert_int_equal(yield_level_of(-7, 8), YIELD_CRITICAL);
    assert_int_equal(yield_level_of(INT64_MIN, 8), YIELD_CRITICAL);
    assert_string_equal(yield_level_word(YIELD_CRITICAL), "critical");
    assert_string_equal(yield_kind_word(YIELD_SHRINK), "shrink");
    assert_string_equal(yield_level_word(YIELD_LEVELS), "unknown");
    assert_string_equal(yield_kind_word(YIELD_KINDS), "unknown");
}

/* ---- who ---- */

static struct yield_resident evictable(uint64_t mib, double cost)
{
    struct yield_resident r = {0};
    r.can[YIELD_EVICT] = true;
    r.frees[YIELD_EVICT][0] = mib * MIB;
    r.cost[YIELD_EVICT] = cost;
    return r;
}

static size_t choose(uint64_t mib, const struct yield_resident *r, size_t n, enum yield_level level,
                     struct yield_step *steps)
{
    const uint64_t need[] = {mib * MIB};
    return yield_choose(need, 1, r, n, level, steps);
}

static void test_the_cheapest_leaves(void **state)
{
    (void)state;
    struct yield_step s[4];
    const struct yield_resident r[] = {evictable(400, 9), evictable(400, 3), evictable(100, 1)};
    assert_int_equal(choose(0, r, 3, YIELD_CALM, s), 0);
    assert_int_equal(choose(100, r, 3, YIELD_CALM, s), 1);
    assert_int_equal(s[0].resident, 2);
    assert_int_equal(choose(101, r, 3, YIELD_CALM, s), 1);
    assert_int_equal(s[0].resident, 1);
    assert_int_equal(choose(450, r, 3, YIELD_CALM, s), 2); /* both cheap ones */
    assert_int_equal(s[0].resident, 1);
    assert_int_equal(s[1].resident, 2);
    assert_int_equal(choose(501, r, 3, YIELD_CALM, s), 2);
    assert_int_equal(choose(800, r, 3, YIELD_CALM, s), 2);
    assert_int_equal(choose(801, r, 3, YIELD_CALM, s), 2); /* an eighth is the least that is worth it */
    assert_int_equal(choose(800, r, 3, YIELD_CRITICAL, s), 2);
    assert_int_equal(choose(801, r, 3, YIELD_CRITICAL, s), 3);
    assert_int_equal(choose(100000, r, 3, YIELD_CALM, s), 0);
    assert_int_equal(choose(100000, r, 3, YIELD_CRITICAL, s), 3); /* as much as there is */
    assert_int_equal(choose(100, r, 0, YIELD_CALM, s), 0);
}

static void test_mild_ways_come_first(void **state)
{
    (void)state;
    struct yield_step s[4];
    struct yield_resident r[] = {evictable(800, 9), evictable(800, 10)};
    for (int k = YIELD_DROP; k < YIELD_EVICT; k++) {
        r[0].can[k] = true;
        r[0].frees[k][0] = (uint64_t)(k + 1) * 100 * MIB;
        r[0].cost[k] = k + 1;
    }
    for (int k = YIELD_DROP; k < YIELD_EVICT; k++) {
        assert_int_equal(choose((uint64_t)(k + 1) * 100, r, 2, YIELD_CALM, s), 1);
        assert_int_equal(s[0].resident, 0);
        assert_int_equal(s[0].kind, k);
    }
    assert_int_equal(choose(301, r, 2, YIELD_CALM, s), 1);
    assert_int_equal(s[0].kind, YIELD_EVICT);
}

static void test_who_is_spared(void **state)
{
    (void)state;
    struct yield_step s[4];
    struct yield_resident r[] = {evictable(400, 1), evictable(400, 1), evictable(400, 1000)};
    r[0].pinned = true;
    r[0].can[YIELD_DROP] = true;
    r[0].frees[YIELD_DROP][0] = 60 * MIB;
    r[0].cost[YIELD_DROP] = 0.5;
    r[1].busy = true;
    assert_int_equal(choose(440, r, 3, YIELD_WARN, s), 2);
    assert_int_equal(s[0].kind, YIELD_DROP);
    assert_int_equal(s[1].resident, 2);
    assert_int_equal(choose(400, r, 3, YIELD_CRITICAL, s),
                     1); /* the dearest idle one before a cheap busy one */
    assert_int_equal(s[0].resident, 2);
    assert_int_equal(choose(800, r, 3, YIELD_CRITICAL, s), 2); /* a busy one before a pinned one */
    assert_int_equal(s[0].resident, 1);
    assert_int_equal(choose(860, r, 3, YIELD_CRITICAL, s), 3);
    assert_int_equal(s[0].kind, YIELD_DROP);
    assert_int_equal(choose(861, r, 3, YIELD_CRITICAL, s), 3);
    assert_int_equal(s[0].kind, YIELD_EVICT);
}

static void test_several_devices(void **state)
{
    (void)state;
    struct yield_step s[4];
    struct yield_resident r[] = {evictable(400, 3), evictable(0, 3), evictable(400, 5)};
    r[1].frees[YIELD_EVICT][1] = 300 * MIB;
    r[2].frees[YIELD_EVICT][1] = 300 * MIB;
    const uint64_t both[] = {100 * MIB, 100 * MIB}, second[] = {0, 100 * MIB}, absurd[] = {MIB, UINT64_MAX};
    const uint64_t apart[] = {100 * MIB, 9000 * MIB};
    assert_int_equal(yield_choose(both, 2, r, 3, YIELD_CALM, s), 1);
    assert_int_equal(s[0].resident, 2);
    assert_int_equal(yield_choose(second, 2, r, 3, YIELD_CALM, s), 1);
    assert_int_equal(s[0].resident, 1);
    assert_int_equal(yield_choose(absurd, 2, r, 3, YIELD_CRITICAL, s), 2); /* and none for the first alone */
    assert_int_equal(yield_choose(apart, 2, r, 3, YIELD_CALM, s), 1);      /* nor for what cannot be helped */
    assert_int_equal(s[0].resident, 0);
}

/* ---- against all lists ---- */

static uint32_t seed;

static uint32_t draw(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

#define MOST 5

struct sum { /* what a list costs by class, dearest last; and frees */
    double cost[3];
    uint64_t frees[3];
};

static bool is_cheaper(const struct sum *a, const struct sum *b)
{
    for (int i = 2; i >= 0; i--)
        if (a->cost[i] < b->cost[i] - 1e-9 || a->cost[i] > b->cost[i] + 1e-9)
            return a->cost[i] < b->cost[i];
    return false;
}

/* By the header's words, not by the code's tables. */
static bool allowed(const struct yield_resident *r, int kind, enum yield_level level,
                    const uint64_t *short_bytes)
{
    bool crumb = level != YIELD_CRITICAL;
    for (size_t d = 0; d < 3; d++)
        crumb &= short_bytes[d] == 0 || r->frees[kind][d] < short_bytes[d] / 8;
    if (!r->can[kind] || crumb)
        return false;
    if (r->busy)
        return kind == YIELD_EVICT && level == YIELD_CRITICAL;
    return !r->pinned || kind == YIELD_DROP || level == YIELD_CRITICAL;
}

static struct sum sum_of(const struct yield_resident *r, size_t n, const int *kinds)
{
    struct sum s = {0};
    for (size_t i = 0; i < n; i++) {
        if (kinds[i] < 0)
            continue;
        int class = kinds[i] == YIELD_DROP ? 0 : r[i].pinned ? 2 : r[i].busy;
        s.cost[class] += r[i].cost[kinds[i]];
        for (size_t d = 0; d < 3; d++)
            s.frees[d] += r[i].frees[kinds[i]][d];
    }
    return s;
}

static bool covers(const struct sum *s, const uint64_t *need)
{
    return s->frees[0] >= need[0] && s->frees[1] >= need[1] && s->frees[2] >= need[2];
}

static void best_of_all(const struct yield_resident *r, size_t n, enum yield_level level,
                        const uint64_t *short_bytes, struct sum *ret)
{
    uint64_t need[3] = {0};
    int kinds[MOST];
    size_t total = 1;
    for (size_t i = 0; i < n; i++) {
        uint64_t most[3] = {0};
        total *= YIELD_KINDS + 1;
        for (int k = 0; k < YIELD_KINDS; k++)
            for (size_t d = 0; d < 3; d++)
                if (allowed(&r[i], k, level, short_bytes) && r[i].frees[k][d] > most[d] &&
                    (level == YIELD_CRITICAL || (short_bytes[d] && r[i].frees[k][d] >= short_bytes[d] / 8)))
                    most[d] = r[i].frees[k][d];
        for (size_t d = 0; d < 3; d++)
            need[d] += most[d];
    }
    for (size_t d = 0; d < 3; d++)
        need[d] = short_bytes[d] < need[d] ? short_bytes[d] : need[d];
    bool found = false;
    for (size_t code = 0; code < total; code++) {
        size_t rest = code;
        bool ok = true;
        for (size_t i = 0; i < n; i++, rest /= YIELD_KINDS + 1) {
            kinds[i] = (int)(rest % (YIELD_KINDS + 1)) - 1;
            ok &= kinds[i] < 0 || allowed(&r[i], kinds[i], level, short_bytes);
        }
        struct sum s = ok ? sum_of(r, n, kinds) : (struct sum){0};
        if (ok && covers(&s, need) && (!found || is_cheaper(&s, ret))) {
            *ret = s;
            found = true;
        }
    }
    assert_true(found);
}

static void draw_resident(struct yield_resident *r)
{
    uint64_t frees[3] = {0};
    *r = (struct yield_resident){.busy = draw(4) == 0, .pinned = draw(4) == 0};
    for (int k = 0; k < YIELD_KINDS; k++) {
        r->can[k] = k == YIELD_EVICT ? draw(8) > 0 : draw(3) == 0;
        r->cost[k] = (1 + draw(1000)) / 7.0;
        for (size_t d = 0; d < 3; d++) {
            frees[d] += draw(3) ? draw(500) * MIB : 0; /* a harder way frees no less */
            r->frees[k][d] = frees[d];
        }
    }
}

static void test_against_all_lists(void **state)
{
    (void)state;
    seed = 7;
    for (int round = 0; round < 1500; round++) {
        struct yield_resident r[MOST];
        struct yield_step steps[MOST];
        struct sum best = {0};
        size_t n = 1 + draw(MOST);
        enum yield_level level = (enum yield_level)draw(YIELD_LEVELS);
        for (size_t i = 0; i < n; i++)
            draw_resident(&r[i]);
        const uint64_t need[] = {draw(1500) * MIB, draw(2) ? 0 : draw(1500) * MIB,
                                 draw(2) ? 0 : draw(1500) * MIB};
        int kinds[MOST] = {-1, -1, -1, -1, -1};
        size_t n_steps = yield_choose(need, 3, r, n, level, steps);
        for (size_t k = 0; k < n_steps; k++) {
            assert_true(steps[k].resident < n && kinds[steps[k].resident] < 0);
            assert_true(allowed(&r[steps[k].resident], (int)steps[k].kind, level, need));
            kinds[steps[k].resident] = (int)steps[k].kind;
        }
        best_of_all(r, n, level, need, &best);
        struct sum got = sum_of(r, n, kinds);
        if (is_cheaper(&best, &got) || is_cheaper(&got, &best))
            fail_msg("round %d: (%g %g %g) instead of (%g %g %g)", round, got.cost[0], got.cost[1],
                     got.cost[2], best.cost[0], best.cost[1], best.cost[2]);
    }
}

/* Many: within its bound, and what it says covers. */
static void test_many(void **state)
{
    (void)state;
    static struct yield_resident r[PLAN_MAX_RESIDENTS];
    struct yield_step steps[PLAN_MAX_RESIDENTS];
    seed = 11;
    for (int round = 0; round < 20; round++) {
        const uint64_t need[] = {draw(9000) * MIB, draw(9000) * MIB, 0};
        int kinds[PLAN_MAX_RESIDENTS];
        for (size_t i = 0; i < PLAN_MAX_RESIDENTS; i++) {
            draw_resident(&r[i]);
            kinds[i] = -1;
        }
        size_t n = yield_choose(need, 3, r, PLAN_MAX_RESIDENTS, YIELD_CALM, steps);
        assert_true(n > 0 && n <= PLAN_MAX_RESIDENTS);
        for (size_t k = 0; k < n; k++)
            kinds[steps[k].resident] = (int)steps[k].kind;
        struct sum s = sum_of(r, PLAN_MAX_RESIDENTS, kinds);
        assert_true(s.cost[1] == 0 && s.cost[2] == 0);
        for (size_t k = 0; k < n; k++) { /* no step is one too many */
            kinds[steps[k].resident] = -1;
            struct sum less = sum_of(r, PLAN_MAX_RESIDENTS, kinds);
            assert_false(covers(&s, need) && covers(&less, need));
            kinds[steps[k].resident] = (int)steps[k].kind;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_when),
        cmocka_unit_test(test_level),
        cmocka_unit_test(test_the_cheapest_leaves),
        cmocka_unit_test(test_mild_ways_come_first),
        cmocka_unit_test(test_who_is_spared),
        cmocka_unit_test(test_several_devices),
        cmocka_unit_test(test_against_all_lists),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
