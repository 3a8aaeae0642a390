/* What the planner refuses: parameters and devices that make no sense, each with a named error and with the
 * outputs untouched. */
#include "plan_test.h"

#include "plan/pattern.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct row {
    const char *word; /* of the message */
    void (*spoil)(struct plan_params *p, struct plan_device *d, size_t *n);
};

#define SPOIL(name, ...)                                                                                     \
    static void name(struct plan_params *p, struct plan_device *d, size_t *n)                                \
    {                                                                                                        \
        (void)p;                                                                                             \
        (void)d;                                                                                             \
        (void)n;                                                                                             \
        __VA_ARGS__;                                                                                         \
    }

SPOIL(empty_device, d[0].total_bytes = d[0].free_bytes = 0; *n = 1)
SPOIL(absurd_device, d[0].total_bytes = d[0].free_bytes = UINT64_MAX)
SPOIL(free_of_nothing, d[1].total_bytes = 0)
SPOIL(absurd_overhead, d[0].overhead_bytes = UINT64_MAX)
SPOIL(nothing_free, d[0].free_bytes = d[1].free_bytes = 0)
SPOIL(too_many_devices, *n = PLAN_MAX_DEVICES + 1)
SPOIL(split_too_long, p->n_tensor_split = 3)
SPOIL(split_too_short, p->n_tensor_split = 1)
SPOIL(split_without_devices, *n = 0; p->n_tensor_split = 2)
SPOIL(split_of_nan, p->n_tensor_split = 2; p->tensor_split[1] = NAN)
SPOIL(split_of_infinity, p->n_tensor_split = 2; p->tensor_split[0] = INFINITY)
SPOIL(split_below_zero, p->n_tensor_split = 2; p->tensor_split[0] = -1)
SPOIL(no_slots, p->parallel = 0)
SPOIL(many_slots, p->parallel = 257)
SPOIL(no_batch, p->batch = 0)
SPOIL(no_ubatch, p->ubatch = 0)
SPOIL(huge_ctx, p->ctx = UINT32_MAX)
SPOIL(odd_layers, p->gpu_layers = -2)
SPOIL(odd_cache, p->type_k = GGML_Q4_K)
SPOIL(unknown_cache, p->type_v = 1000)
SPOIL(quantised_v, p->type_v = GGML_Q8_0; p->flash_attn = false)

static void override(struct plan_params *p, const char *pattern, const char *buffer)
{
    snprintf(p->overrides[0].pattern, sizeof p->overrides[0].pattern, "%s", pattern);
    snprintf(p->overrides[0].buffer, sizeof p->overrides[0].buffer, "%s", buffer);
    p->n_overrides = 1;
}
SPOIL(open_group, override(p, "blk.(", "CPU"))
SPOIL(back_reference, override(p, "(a)\\1", "CPU"))
SPOIL(exploding_repeat, override(p, "((a{200}){200}){200}", "CPU"))
SPOIL(unknown_buffer, override(p, "exps", "CUDA7"))

static const struct row rows[] = {
    {"no device has free memory", empty_device},
    {"no device has", absurd_device},
    {"the device CUDA1 has 0 bytes", free_of_nothing},
    {"overhead", absurd_overhead},
    {"no device has free memory", nothing_free},
    {"17 devices", too_many_devices},
    {"a tensor split of 3 parts does not match 2 devices", split_too_long},
    {"a tensor split of 1 parts does not match 2 devices", split_too_short},
    {"a tensor split of 2 parts does not match 0 devices", split_without_devices},
    {"part 2 of the tensor split", split_of_nan},
    {"part 1 of the tensor split", split_of_infinity},
    {"part 1 of the tensor split", split_below_zero},
    {"0 slots", no_slots},
    {"257 slots", many_slots},
    {"a batch of 0", no_batch},
    {"in parts of 0", no_ubatch},
    {"a context of", huge_ctx},
    {"-2 layers", odd_layers},
    {"q4_K", odd_cache},
    {"unknown", unknown_cache},
    {"needs flash attention", quantised_v},
    {"is no regular expression", open_group},
    {"refers back to a group", back_reference},
    {"repeats too often", exploding_repeat},
    {"no device named 'CUDA7'", unknown_buffer},
};

static void test_every_row_is_refused(void **state)
{
    (void)state;
    struct model *m = shape_model(&shape_llama_1b);
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        struct plan_params p = tool_params(8192);
        struct plan_device d[PLAN_MAX_DEVICES + 1] = {device("CUDA0", 8000), device("CUDA1", 8000)};
        size_t n = 2;
        struct plan_estimate e, before;
        struct err err = {0};
        memset(&e, 0x5a, sizeof e);
        before = e;
        rows[i].spoil(&p, d, &n);
        enum rc rc = plan_estimate(m, &p, d, n, &e, &err);
        if (rc != RC_INVALID || !strstr(err.message, rows[i].word))
            fail_msg("row %zu: code %d, \"%s\" does not say \"%s\"", i, rc, err.message, rows[i].word);
        assert_memory_equal(&e, &before, sizeof e);
    }
    model_unref(m);
}

static void test_patterns(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *match; /* NULL = refused */
    } of[] = {
        {"ffn_(up|down)_exps", "blk.1.ffn_up_exps.weight"},
        {"blk\\.(?:1|2)\\.", "blk.2.attn_q.weight"},
        {"blk\\.\\d+\\.attn", "blk.12.attn_q.weight"},
        {"[]x]{2}", "x]"},
        {"[{(]a{3,4}", "{aaa"},
        {"a{256}", ""},
        {"a{257}", NULL},
        {"a{20}b{20}", NULL},
        {"(((((((((((((((((a)))))))))))))))))", NULL},
        {"*", NULL},
        {"a{2", NULL},
        {"(x)\\9", NULL},
        {"\\\\1", ""},
    };
    for (size_t i = 0; i < TABLE_COUNT(of); i++) {
        regex_t re;
        struct err err = {0};
        enum rc rc = pattern_compile(&re, of[i].pattern, &err);
        if ((rc == RC_OK) != (of[i].match != NULL))
            fail_msg("%s: code %d %s", of[i].pattern, rc, err.message);
        if (rc) {
            assert_int_equal(rc, RC_INVALID);
            assert_non_null(strstr(err.message, of[i].pattern));
            continue;
        }
        if (of[i].match[0])
            assert_int_equal(regexec(&re, of[i].match, 0, NULL, 0), 0);
        regfree(&re);
    }
}

static void test_a_zero_in_the_keys(void **state)
{
    (void)state;
    struct shape shapes[] = {shape_llama_1b, shape_llama_1b, shape_llama_1b, shape_llama_1b};
    shapes[0].no_heads = true;
    shapes[1].embd = 0;
    shapes[2].vocab = 0;
    shapes[3].no_layers = true;
    for (size_t i = 0; i < TABLE_COUNT(shapes); i++) {
        struct model *m = NULL;
        struct plan_estimate e;
        struct err err = {0};
        struct plan_params p = tool_params(4096);
        enum rc rc = shape_try(&shapes[i], &m, &err);
        if (!rc)
            rc = plan_estimate(m, &p, NULL, 0, &e, &err);
        assert_int_equal(rc, RC_INVALID);
        assert_true(err.message[0] != '\0');
        model_unref(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row_is_refused),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_a_zero_in_the_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
