/* Fuzz target of the index of kept conversations: no input may crash its reader, leak, or name no reason;
 * what is accepted is printed in a form that is read back to the same print. */
#include "pool/kv_index.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kv_index *first = NULL, *second = NULL;
    struct err err = {0};
    if (kv_index_parse((struct str){(const char *)data, size}, &first, &err) != RC_OK) {
        if (first || !err.message[0])
            abort();
        return 0;
    }
    struct buf a = {0}, b = {0};
    if (kv_index_n(first) > KV_ROWS_MAX || kv_index_print(first, &a, &err) != RC_OK ||
        kv_index_parse(buf_str(&a), &second, &err) != RC_OK || kv_index_print(second, &b, &err) != RC_OK)
        abort();
    if (a.n != b.n || memcmp(a.data, b.data, a.n) != 0)
        abort();
    buf_release(&a);
    buf_release(&b);
    kv_index_free(first);
    kv_index_free(second);
    return 0;
}
