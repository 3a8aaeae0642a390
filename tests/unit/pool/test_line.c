/* The waiting line: order, fairness, starvation, and agreement with a model that searches lists. */
#include "pool/line.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static const struct line_bounds no_bounds;

static struct line_spot spots[64];

static size_t taken(struct line *l, uint64_t now_ms)
{
    struct line_spot *s = line_take(l, &no_bounds, now_ms);
    return s ? (size_t)(s - spots) : SIZE_MAX;
}

static void test_one_key_is_served_in_order(void **state)
{
    (void)state;
    struct line *l = line_new();
    for (size_t i = 0; i < 8; i++)
        line_add(l, &spots[i], 1, LINE_NORMAL, 1 + (uint32_t)i % 3, i);
    assert_int_equal(line_length(l), 8);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(line_ahead(l, &spots[i]), i);
    line_remove(l, &spots[3]);
    for (size_t i = 0; i < 8; i++)
        if (i != 3)
            assert_int_equal(taken(l, 100), i);
    assert_null(line_take(l, &no_bounds, 100));
    assert_int_equal(line_length(l), 0);
    line_free(l);
}

static void test_a_flood_delays_another_key_by_one(void **state)
{
    (void)state;
    struct line *l = line_new();
    for (size_t i = 0; i < 40; i++)
        line_add(l, &spots[i], 1, LINE_NORMAL, 1, 0);
    line_add(l, &spots[50], 2, LINE_NORMAL, 1, 5);
    line_add(l, &spots[51], 2, LINE_NORMAL, 1, 5);
    assert_int_equal(line_ahead(l, &spots[50]), 1);
    assert_int_equal(line_ahead(l, &spots[51]), 3);
    assert_int_equal(taken(l, 6), 0);
    assert_int_equal(taken(l, 6), 50);
    assert_int_equal(taken(l, 6), 1);
    assert_int_equal(taken(l, 6), 51);
    assert_int_equal(taken(l, 6), 2);
    line_free(l);
}

static void test_what_costs_more_comes_more_seldom(void **state)
{
    (void)state;
    struct line *l = line_new();
    for (size_t i = 0; i < 12; i++) {
        line_add(l, &spots[i], 1, LINE_NORMAL, 4, 0);
        line_add(l, &spots[20 + i], 2, LINE_NORMAL, 1, 0);
    }
    size_t dear = 0, cheap = 0;
    for (int i = 0; i < 10; i++)
        *(taken(l, 1) < 20 ? &dear : &cheap) += 1;
    assert_int_equal(dear, 2);
    assert_int_equal(cheap, 8);
    line_free(l);
}

/* A key that asks for one dear thing at a time does not shed its debt by leaving the line in between. */
static void test_debts_are_remembered(void **state)
{
    (void)state;
    struct line *l = line_new();
    for (size_t i = 0; i < 12; i++)
        line_add(l, &spots[i], 1, LINE_NORMAL, 1, 0);
    line_add(l, &spots[20], 2, LINE_NORMAL, 6, 0);
    assert_int_equal(taken(l, 1), 0);
    assert_int_equal(taken(l, 1), 20);
    line_add(l, &spots[20], 2, LINE_NORMAL, 6, 1);
    for (size_t i = 1; i <= 5; i++)
        assert_int_equal(taken(l, 1), i);
    assert_true(line_ahead(l, &spots[20]) <= 1);
    assert_int_equal(taken(l, 1), 20);
    line_free(l);
}

static void test_bands_go_first_but_not_for_ever(void **state)
{
    (void)state;
    struct line *l = line_new();
    const struct line_bounds grants = {.max_grants = 3}, ms = {.max_ms = 1000};
    line_add(l, &spots[60], 9, LINE_LOW, 1, 0);
    for (size_t i = 0; i < 20; i++)
        line_add(l, &spots[i], 1, LINE_HIGH, 1, 0);
    assert_int_equal(line_band_length(l, LINE_HIGH), 20);
    assert_int_equal(line_band_of(&spots[60]), LINE_LOW);
    assert_int_equal(line_ahead(l, &spots[60]), 20);
    for (size_t i = 0; i < 3; i++)
        assert_ptr_equal(line_take(l, &grants, 1), &spots[i]);
    assert_ptr_equal(line_take(l, &grants, 1), &spots[60]);
    line_add(l, &spots[60], 9, LINE_LOW, 1, 10);
    assert_ptr_equal(line_take(l, &ms, 1009), &spots[3]);
    assert_ptr_equal(line_take(l, &ms, 1010),
                     &spots[60]); /* who is first of the other key became that later */
    for (size_t i = 4; i < 20; i++)
        assert_ptr_equal(line_take(l, &ms, 1010), &spots[i]);
    line_free(l);
}

/* Where everybody is overdue the line must not fall back to the order of arrival: the flood would win. */
static void test_overdue_keys_take_turns(void **state)
{
    (void)state;
    struct line *l = line_new();
    const struct line_bounds ms = {.max_ms = 10};
    for (size_t i = 0; i < 30; i++)
        line_add(l, &spots[i], 1, LINE_NORMAL, 1, 0);
    line_add(l, &spots[40], 2, LINE_NORMAL, 1, 1);
    line_add(l, &spots[41], 2, LINE_NORMAL, 1, 1);
    assert_ptr_equal(line_take(l, &ms, 1000), &spots[0]);
    assert_ptr_equal(line_take(l, &ms, 2000), &spots[40]);
    assert_ptr_equal(line_take(l, &ms, 3000), &spots[1]);
    assert_ptr_equal(line_take(l, &ms, 4000), &spots[41]);
    line_free(l);
}

/* ---- against a model: every list is searched from its start, rounds are plain numbers ---- */

#define M_SPOTS 300
#define M_KEYS  9

struct m_spot {
    struct line_spot spot;
    bool in;
    unsigned key, band, cost;
    uint64_t arrival;
};
struct m_flow {
    bool known;           /* waits, or is in debt */
    uint64_t due, queued; /* its round; when it was put there */
    uint64_t head_ms, head_grants, head_turn;
};
struct model {
    struct m_spot spots[M_SPOTS];
    struct m_flow flows[LINE_BANDS][M_KEYS];
    uint64_t round[LINE_BANDS], clock, grants;
};

static struct m_spot *first_of(struct model *m, unsigned band, unsigned key)
{
    struct m_spot *best = NULL;
    for (size_t i = 0; i < M_SPOTS; i++) {
        struct m_spot *s = &m->spots[i];
        if (s->in && s->band == band && s->key == key && (!best || s->arrival < best->arrival))
            best = s;
    }
    return best;
}

static size_t m_length(const struct model *m)
{
    size_t n = 0;
    for (size_t i = 0; i < M_SPOTS; i++)
        n += m->spots[i].in;
    return n;
}

static void m_became_first(struct model *m, struct m_flow *f, uint64_t now)
{
    f->head_ms = now;
    f->head_grants = m->grants;
    f->head_turn = ++m->clock;
}

static void m_add(struct model *m, struct m_spot *s, uint64_t now)
{
    struct m_flow *f = &m->flows[s->band][s->key];
    bool empty = !first_of(m, s->band, s->key);
    if (!f->known) {
        f->known = true;
        f->due = m->round[s->band];
        f->queued = ++m->clock;
    }
    s->in = true;
    s->arrival = ++m->clock;
    if (empty)
        m_became_first(m, f, now);
}

static void m_forget_if_empty(struct model *m)
{
    if (m_length(m) == 0)
        for (int b = 0; b < LINE_BANDS; b++)
            for (int k = 0; k < M_KEYS; k++)
                m->flows[b][k].known = false;
}

/* The flow with spots that has waited longest as first; NULL when it may go on waiting. */
static struct m_flow *m_overdue(struct model *m, const struct line_bounds *b, uint64_t now)
{
    struct m_flow *f = NULL;
    for (unsigned band = 0; band < LINE_BANDS; band++)
        for (unsigned k = 0; k < M_KEYS; k++)
            if (first_of(m, band, k) && (!f || m->flows[band][k].head_turn < f->head_turn))
                f = &m->flows[band][k];
    bool late = b->max_ms && now - f->head_ms >= b->max_ms;
    return late || (b->max_grants && m->grants - f->head_grants >= b->max_grants) ? f : NULL;
}

static struct m_flow *m_next_in(struct model *m, unsigned band)
{
    for (;; m->round[band]++) {
        for (;;) { /* those of this round, in the order in which they came into it */
            struct m_flow *f = NULL;
            for (unsigned k = 0; k < M_KEYS; k++) {
                struct m_flow *g = &m->flows[band][k];
                if (g->known && g->due == m->round[band] && (!f || g->queued < f->queued))
                    f = g;
            }
            if (!f)
                break;
            if (first_of(m, band, (unsigned)(f - m->flows[band])))
                return f;
            f->known = false; /* a debt that is paid */
        }
    }
}

static struct m_spot *m_take(struct model *m, const struct line_bounds *b, uint64_t now)
{
    if (m_length(m) == 0)
        return NULL;
    struct m_flow *f = m_overdue(m, b, now);
    for (unsigned band = 0; !f && band < LINE_BANDS; band++) {
        bool any = false;
        for (unsigned k = 0; k < M_KEYS; k++)
            any |= first_of(m, band, k) != NULL;
        if (any)
            f = m_next_in(m, band);
    }
    unsigned band = (unsigned)((f - m->flows[0]) / M_KEYS), key = (unsigned)((f - m->flows[0]) % M_KEYS);
    struct m_spot *s = first_of(m, band, key);
    uint64_t off = f->due - m->round[band] + s->cost;
    f->due = m->round[band] + (off < LINE_COST_MAX ? off : LINE_COST_MAX);
    f->queued = ++m->clock;
    s->in = false;
    m->grants++;
    if (first_of(m, band, key))
        m_became_first(m, f, now);
    m_forget_if_empty(m);
    return s;
}

static uint32_t dice(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return (uint32_t)(*seed >> 32);
}

static void compare(uint64_t seed, const struct line_bounds *bounds, int operations, unsigned keep)
{
    struct model *m = mem_new(struct model);
    struct line *l = line_new();
    uint64_t now = 0;
    for (int op = 0; op < operations; op++) {
        struct m_spot *s = &m->spots[dice(&seed) % M_SPOTS];
        now += dice(&seed) % 3;
        unsigned what = dice(&seed) % 16;
        if (!s->in && what < keep) {
            s->key = dice(&seed) % 3 ? dice(&seed) % M_KEYS : 0; /* one key floods */
            s->band = dice(&seed) % LINE_BANDS;
            s->cost = dice(&seed) % 4 ? 1 + dice(&seed) % 3 : 1 + dice(&seed) % LINE_COST_MAX;
            m_add(m, s, now);
            line_add(l, &s->spot, s->key, (enum line_band)s->band, s->cost, now);
        } else if (s->in && what == 15) {
            s->in = false;
            m_forget_if_empty(m);
            line_remove(l, &s->spot);
        } else {
            struct m_spot *want = m_take(m, bounds, now);
            struct line_spot *got = line_take(l, bounds, now);
            assert_ptr_equal(got, want ? &want->spot : NULL);
        }
        assert_int_equal(line_length(l), m_length(m));
    }
    uint64_t before = 0;
    for (const struct line_spot *s = line_oldest(l); s; s = s->newer) {
        const struct m_spot *k = (const struct m_spot *)(const void *)s;
        assert_true(k->in && k->arrival > before);
        before = k->arrival;
    }
    line_free(l);
    free(m);
}

static void test_random_operations_agree_with_the_model(void **state)
{
    (void)state;
    const struct line_bounds grants = {.max_grants = 20}, both = {.max_ms = 40, .max_grants = 50};
    compare(0x1234567, &no_bounds, 30000, 9);
    compare(0x89abcde, &grants, 30000, 9);
    compare(0xfeedbeef, &both, 30000, 10);
    compare(0xabad1dea, &both, 10000, 7); /* the line is empty now and then */
}

/* Whatever comes: who is first of its key waits for at most so many grants. */
static void test_starvation_is_bounded(void **state)
{
    (void)state;
    const struct line_bounds bounds = {.max_grants = 16};
    struct line_spot *flood = mem_calloc(4000, sizeof *flood), meek;
    struct line *l = line_new();
    uint64_t seed = 99;
    size_t at = 0, waited = 0;
    line_add(l, &meek, 1000, LINE_LOW, 1, 0);
    for (int i = 0; i < 1000; i++) {
        for (int k = 0; k < 3; k++, at++)
            line_add(l, &flood[at], dice(&seed) % 5, LINE_HIGH, 1 + dice(&seed) % 4, (uint64_t)i);
        struct line_spot *s = line_take(l, &bounds, (uint64_t)i);
        waited++;
        if (s != &meek)
            continue;
        assert_true(waited <= 16 + 6);
        waited = 0;
        line_add(l, &meek, 1000, LINE_LOW, LINE_COST_MAX, (uint64_t)i);
    }
    assert_true(waited <= 16 + 6);
    line_free(l);
    free(flood);
}

static void test_many_keys(void **state)
{
    (void)state;
    enum { N = 5000 };
    struct line_spot *many = mem_calloc(N, sizeof *many);
    struct line *l = line_new();
    for (size_t i = 0; i < N; i++)
        line_add(l, &many[i], i * 0x10001, LINE_NORMAL, 1, 0);
    for (size_t i = 0; i < N; i++)
        assert_ptr_equal(line_take(l, &no_bounds, 1), &many[i]);
    line_free(l);
    free(many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_key_is_served_in_order),
        cmocka_unit_test(test_a_flood_delays_another_key_by_one),
        cmocka_unit_test(test_what_costs_more_comes_more_seldom),
        cmocka_unit_test(test_debts_are_remembered),
        cmocka_unit_test(test_bands_go_first_but_not_for_ever),
        cmocka_unit_test(test_overdue_keys_take_turns),
        cmocka_unit_test(test_random_operations_agree_with_the_model),
        cmocka_unit_test(test_starvation_is_bounded),
        cmocka_unit_test(test_many_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
