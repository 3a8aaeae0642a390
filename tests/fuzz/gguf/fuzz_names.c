/* Fuzz target of models' names: a typed name and an id, parted by the first line end. */
#include "gguf/catalog.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 4096)
        return 0;
    struct str id = {(const char *)data, size}, typed = str_cut(&id, '\n');
    enum catalog_meaning m = catalog_means(typed, id);
    if (m != CATALOG_MEANS_NOT && m != CATALOG_MEANS_MODEL && m != CATALOG_MEANS_QUANT)
        abort();
    if (str_distance(typed, id) != str_distance(id, typed) || str_distance(id, id) != 0)
        abort();
    return 0;
}
