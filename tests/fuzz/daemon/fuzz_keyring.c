/* Fuzz target of the file of keys: no input may crash its reader, leak, or name no reason; what is accepted
 * is printed in a form that is read back to the same print. */
#include "daemon/keyring.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct key_set first = {0}, second = {0};
    struct err err = {0};
    if (keyring_parse((struct str){(const char *)data, size}, "fuzz", &first, &err) != RC_OK) {
        if (first.specs || !err.message[0])
            abort();
        return 0;
    }
    struct buf a = {0}, b = {0};
    keyring_print(&first, &a);
    if (keyring_parse(buf_str(&a), "printed", &second, &err) != RC_OK)
        abort();
    keyring_print(&second, &b);
    if (a.n != b.n || memcmp(a.data, b.data, a.n) != 0)
        abort();
    buf_release(&a);
    buf_release(&b);
    key_set_release(&first);
    key_set_release(&second);
    return 0;
}
