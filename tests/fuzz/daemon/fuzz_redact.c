/* Fuzz target of what is left out of texts that are kept: a second pass finds nothing more. */
#include "daemon/redact.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf once = {0}, twice = {0};
    redact((struct str){(const char *)data, size}, &once);
    redact(buf_str(&once), &twice);
    if (once.n != twice.n || (once.n && memcmp(once.data, twice.data, once.n) != 0))
        abort();
    buf_release(&once);
    buf_release(&twice);
    return 0;
}
