/* Texts of the kernel about memory pressure: shares stay shares, outputs untouched on failure. */
#include "os/pressure.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct str text = {(const char *)data, size};
    struct pressure_stall s, s_before;
    struct pressure_events e, e_before;
    memset(&s, 0x5a, sizeof s);
    memset(&e, 0x5a, sizeof e);
    s_before = s;
    e_before = e;
    if (pressure_parse(text, &s)) {
        if (!(s.some_pct >= 0 && s.some_pct < 101 && s.full_pct >= 0 && s.full_pct < 101))
            abort();
    } else if (memcmp(&s, &s_before, sizeof s) != 0) {
        abort();
    }
    if (!pressure_events_parse(text, &e) && memcmp(&e, &e_before, sizeof e) != 0)
        abort();
    return 0;
}
