/* What the planner's tests share. */
#ifndef TESTS_PLAN_TEST_H
#define TESTS_PLAN_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "plan/plan.h"
#include "shapes.h"

static inline struct plan_device device(const char *name, uint64_t mib)
{
    struct plan_device d;
    plan_device_named(&d, str_from(name), mib * MIB, mib * MIB);
    return d;
}

/* llama-fit-params' way of asking: one slot of its own, logits of a whole batch. */
static inline struct plan_params tool_params(uint32_t ctx)
{
    struct plan_params p;
    plan_params_default(&p);
    p.ctx = ctx;
    p.parallel = 1;
    p.kv_unified = false;
    p.repack = false;
    p.outputs = PLAN_OUTPUTS_BATCH;
    p.pins = false;
    p.host_isa = PLAN_AVX2 | PLAN_AVX512;
    return p;
}

#endif
