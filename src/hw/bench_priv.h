/* Shared by the measurements. Layer hw, internal. */
#ifndef HW_BENCH_PRIV_H
#define HW_BENCH_PRIV_H

#include "hw/bench.h"

double bench_now(void); /* seconds, monotonic */
bool bench_cancelled(const struct hw_bench_control *c);
void bench_progress(const struct hw_bench_control *c, const char *what, double share);
double bench_seconds(const struct hw_bench_control *c);
enum rc bench_cancel(struct err *err); /* RC_CANCELLED with its text */

/* Forms of a product, fastest first, as far as this processor has them (bench_product.c). */
struct bench_form {
    const char *name;
    void (*fp32)(const float *a, const float *b, float *c, size_t n); /* or */
    void (*int8)(const uint8_t *a, const int8_t *b, int32_t *c, size_t n);
};
const struct bench_form *bench_form_fp32(void);
const struct bench_form *bench_form_int8(void);

#endif
