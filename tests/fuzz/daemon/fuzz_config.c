/* Fuzz target of the configuration's reader: no input may crash it, leak, or name no reason; what is accepted
 * must be printed in a form that is read back to the same print. */
#include "daemon/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void print(const struct config *c, struct buf *out)
{
    if (config_yaml(c, out, NULL) != RC_OK)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *first = NULL, *second = NULL;
    struct err err = {0};
    if (config_parse((struct str){(const char *)data, size}, "fuzz", &first, &err) != RC_OK) {
        if (first || !err.message[0])
            abort();
        return 0;
    }
    struct buf a = {0}, b = {0};
    print(first, &a);
    if (config_parse(buf_str(&a), "printed", &second, &err) != RC_OK)
        abort();
    print(second, &b);
    if (a.n != b.n || memcmp(a.data, b.data, a.n) != 0)
        abort();
    buf_release(&a);
    buf_release(&b);
    config_free(first);
    config_free(second);
    return 0;
}
