/* Fuzz target of the roster's rows: what is read can be written, and then is read as the same. */
#include "base/mem.h"
#include "pool/roster.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct roster_row *r)
{
    const struct plan_estimate *e = &r->plan.estimate;
    if (e->n_parts == 0 || e->n_parts > TABLE_COUNT(e->parts) || r->machine.n_devices > PLAN_MAX_DEVICES ||
        r->reserve.n > TABLE_COUNT(r->reserve.rows) || r->plan.n_used > PLAN_MAX_DEVICES ||
        strchr(r->log, '/'))
        abort();
    for (uint32_t k = 0; k < r->plan.n_used; k++)
        if (r->plan.used[k] >= r->machine.n_devices)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct roster_row *r, *again;
    struct err err = {0};
    struct buf first = {0}, second = {0};
    if (roster_parse((struct str){(const char *)data, size}, &r, &err) != RC_OK) {
        if (!err.message[0])
            abort();
        return 0;
    }
    check(r);
    if (roster_format(r, &first, &err) != RC_OK || roster_parse(buf_str(&first), &again, &err) != RC_OK)
        abort();
    check(again);
    if (roster_format(again, &second, &err) != RC_OK || !str_eq(buf_str(&first), buf_str(&second)))
        abort();
    buf_release(&first);
    buf_release(&second);
    roster_row_free(r);
    roster_row_free(again);
    return 0;
}
