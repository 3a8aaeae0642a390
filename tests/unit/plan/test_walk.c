/* Layers that stand for others: graphs of many layers made by hand, replayed in whole and from a few of their
 * layers, take the same; what cannot be left out is not. */
#include "plan/graph.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WIDTH  64
#define TOKENS 16

static const struct graph_backend host = {.alignment = 32, .max_chunk = UINT64_MAX, .max_tensor = UINT64_MAX};

static int32_t matrix(struct graph *g, uint64_t n)
{
    const uint64_t ne[4] = {WIDTH, n, 1, 1};
    return graph_stored(g, GGML_F32, ne, 0, GF_WEIGHT);
}

/* A block as wide as its kind says; kinds from 8 on also read the mask. */
static int32_t layer(struct graph *g, int32_t state, int32_t mask, unsigned kind)
{
    int32_t wide = graph_mul_mat(g, matrix(g, WIDTH * (kind % 8 + 1)), graph_unary(g, OP_RMS_NORM, state));
    int32_t narrow = graph_new(g, OP_SUM_ROWS, GGML_F32, WIDTH, TOKENS, 1, 1);
    graph_src(g, narrow, wide);
    if (kind >= 8)
        graph_src(g, narrow, mask);
    return graph_binary(g, OP_ADD, narrow, state);
}

/* The graph of the layers in `kinds`, ends marked. */
static void build(struct graph *g, const unsigned *kinds, size_t n)
{
    graph_reset(g);
    int32_t mask = graph_input(g, GGML_F32, WIDTH, 256, 1, 1);
    int32_t state = graph_unary(g, OP_DUP, graph_input(g, GGML_F32, WIDTH, TOKENS, 1, 1));
    for (size_t i = 0; i < n; i++) {
        state = layer(g, state, mask, kinds[i]);
        g->t[state].flags |= GF_MARK;
    }
    int32_t out = graph_mul_mat(g, matrix(g, 4096), state);
    g->t[out].flags |= GF_OUTPUT;
    graph_expand(g, out);
    graph_schedule(g, &host, 1, 1);
}

static uint64_t whole(struct graph *g, const unsigned *kinds, size_t n)
{
    uint64_t bytes = 0;
    build(g, kinds, n);
    assert_int_equal(graph_measure(g, &host, 1, NULL, &bytes), WALK_DONE);
    return bytes;
}

/* Of the layers `segment` of each, out of the graph of `emitted`. */
static enum walk_result few(struct graph *g, const unsigned *emitted, size_t n_emitted,
                            const uint16_t *segment, size_t n, uint64_t *ret_bytes)
{
    const int8_t anywhere[] = {-1, -1, -1, -1, -1, -1, -1, -1};
    struct walk_layers l = {
        .segment = segment, .n = (uint32_t)n, .confined = anywhere, .n_segments = (uint32_t)n_emitted};
    build(g, emitted, n_emitted);
    return graph_measure(g, &host, 1, &l, ret_bytes);
}

static void test_equal_layers(void **state)
{
    (void)state;
    struct graph g = {0};
    unsigned kinds[40] = {0};
    uint16_t segment[40];
    uint64_t bytes;
    for (size_t i = 0; i < 40; i++)
        segment[i] = i == 0 ? 0 : i < 39 ? 1 : 2;
    assert_int_equal(few(&g, kinds, 3, segment, 40, &bytes), WALK_DONE);
    assert_int_equal(bytes, whole(&g, kinds, 40));
    assert_true(g.walk.n_states <= 4);
    graph_release(&g);
}

/* No period, and the widest kind comes last: its room is found all the same. */
static void test_any_order(void **state)
{
    (void)state;
    struct graph g = {0};
    const unsigned emitted[] = {0, 1, 0, 5, 0};
    const uint16_t segment[] = {0, 1, 2, 1, 1, 2, 2, 1, 2, 3, 2, 2, 3, 4};
    unsigned kinds[14];
    uint64_t bytes;
    for (size_t i = 0; i < 14; i++)
        kinds[i] = emitted[segment[i]];
    assert_int_equal(few(&g, emitted, 5, segment, 14, &bytes), WALK_DONE);
    assert_int_equal(bytes, whole(&g, kinds, 14));
    graph_release(&g);
}

/* The mask dies with its last reader: a reader that stands for several cannot be that one. */
static void test_lasting(void **state)
{
    (void)state;
    struct graph g = {0};
    const unsigned wrong[] = {0, 8, 0}, right[] = {0, 8, 8, 0};
    const uint16_t one[] = {0, 1, 1, 1, 2}, two[] = {0, 1, 1, 2, 3};
    const unsigned kinds[] = {0, 8, 8, 8, 0};
    uint64_t bytes;
    assert_int_equal(few(&g, wrong, 3, one, 5, &bytes), WALK_UNSETTLED);
    assert_int_equal(few(&g, right, 4, two, 5, &bytes), WALK_DONE);
    assert_int_equal(bytes, whole(&g, kinds, 5));
    graph_release(&g);
}

/* A segment that is said to stay in another buffer than it uses. */
static void test_confined(void **state)
{
    (void)state;
    struct graph g = {0};
    const unsigned kinds[3] = {0};
    const uint16_t segment[] = {0, 1, 1, 2};
    const int8_t elsewhere[] = {-1, 1, -1};
    struct walk_layers l = {.segment = segment, .n = 4, .confined = elsewhere, .n_segments = 3};
    uint64_t bytes;
    build(&g, kinds, 3);
    assert_int_equal(graph_measure(&g, &host, 1, &l, &bytes), WALK_UNSETTLED);
    l.n_segments = 2; /* … and a graph with other layers than are told */
    assert_int_equal(graph_measure(&g, &host, 1, &l, &bytes), WALK_UNSETTLED);
    graph_release(&g);
}

/* Random rows of kinds: the first of each kind and the last of each stand for all of it. */
static void test_random(void **state)
{
    (void)state;
    struct graph g = {0};
    size_t settled = 0;
    srand(11);
    for (int round = 0; round < 300; round++) {
        unsigned kinds[24], emitted[8];
        uint16_t segment[24];
        size_t n = 6 + (size_t)rand() % 18, n_emitted = 0;
        uint64_t bytes;
        for (size_t i = 0; i < n; i++) {
            kinds[i] = (unsigned)rand() % 3 + (rand() % 3 ? 0 : 8);
            bool ends = i == 0 || i == n - 1;
            size_t s = 0;
            while (s < n_emitted && (ends || s == 0 || emitted[s] != kinds[i]))
                s++;
            if (s == n_emitted)
                emitted[n_emitted++] = kinds[i];
            segment[i] = (uint16_t)s;
        }
        if (n_emitted > 8 || few(&g, emitted, n_emitted, segment, n, &bytes) != WALK_DONE)
            continue;
        settled++;
        assert_int_equal(bytes, whole(&g, kinds, n));
    }
    assert_true(settled > 50);
    graph_release(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_layers), cmocka_unit_test(test_any_order), cmocka_unit_test(test_lasting),
        cmocka_unit_test(test_confined),     cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
