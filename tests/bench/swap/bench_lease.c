/* What the pool costs a request for a model that is loaded: a lease taken and given back, with the fake
 * runtime of the unit tests, so that nothing else is measured. Prints {"lease_us": …}, the median of ROUNDS.
 */
#include "fake.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>

#define ROUNDS 21
#define LEASES 200000

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double round_us(struct fake *f)
{
    struct pool_lease lease;
    struct pool_wait *wait;
    struct err err;
    uint32_t after;
    const struct pool_request r = {.model = STR("a"), .band = LINE_NORMAL};
    uint64_t begin = clock_mono_us();
    for (int i = 0; i < LEASES; i++) {
        if (pool_acquire(f->pool, &r, NULL, NULL, &lease, &wait, &after, &err) != POOL_GRANTED)
            abort();
        pool_release(f->pool, &lease, POOL_END_FINE);
    }
    return (double)(clock_mono_us() - begin) / LEASES;
}

int main(void)
{
    void *state = NULL;
    struct answer a;
    double us[ROUNDS];
    (void)fake_setup(&state);
    struct fake *f = state;
    ask(f, "a", &a);
    must_get(&a);
    give_back(&a, false);
    fake_settle(f);
    for (int i = 0; i < ROUNDS; i++)
        us[i] = round_us(f);
    qsort(us, ROUNDS, sizeof *us, by_value);
    printf("{\"lease_us\": %.3f}\n", us[ROUNDS / 2]);
    return fake_teardown(&state);
}
