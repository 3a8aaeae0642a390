/* Fuzz target of the tail of an answer: the window must not depend on the pieces in which it came, and what
 * is read of it is bounded. The first byte is the size of the pieces. */
#include "proxy/account.h"
#include "proxy/guard.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct account_tail whole, parts;
    static char a[ACCOUNT_WINDOW], b[ACCOUNT_WINDOW];
    struct account got;
    if (!size)
        return 0;
    const char *p = (const char *)data + 1;
    size_t n = size - 1, step = data[0] + 1u;
    whole.total = parts.total = 0;
    account_tail_feed(&whole, p, n);
    for (size_t at = 0; at < n; at += step)
        account_tail_feed(&parts, p + at, n - at < step ? n - at : step);
    struct str one = account_tail_str(&whole, a), other = account_tail_str(&parts, b);
    if (!str_eq(one, other) || one.n > ACCOUNT_WINDOW || memcmp(one.p, p + n - one.n, one.n) != 0)
        abort();
    account_read(one, &got);
    if (got.known && !account_wants(one))
        abort();
    /* the same bytes as an origin and a host */
    struct str text = {p, n};
    if (guard_origin(text, STR("loopback")) && !str_starts(text, "http://") && !str_starts(text, "https://"))
        abort();
    (void)guard_host(text, text);
    (void)guard_same_host(text, text);
    return 0;
}
