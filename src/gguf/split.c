/* Names of split models: PREFIX-%05d-of-%05d.gguf, parts counted from 1. Layer gguf; pure. */
#include "gguf/model_priv.h"

#include <string.h>

#define TAIL_LENGTH (sizeof "-00001-of-00002.gguf" - 1)

static bool five_digits(const char *p, uint32_t *ret_value)
{
    uint32_t value = 0;
    for (int i = 0; i < 5; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        value = value * 10 + (uint32_t)(p[i] - '0');
    }
    *ret_value = value;
    return true;
}

bool split_name_parse(const char *path, size_t *ret_prefix, uint32_t *ret_no, uint32_t *ret_count)
{
    size_t n = strlen(path);
    uint32_t no, count;
    if (n <= TAIL_LENGTH)
        return false;
    const char *tail = path + n - TAIL_LENGTH;
    if (tail[0] != '-' || !five_digits(tail + 1, &no) || memcmp(tail + 6, "-of-", 4) ||
        !five_digits(tail + 10, &count) || strcmp(tail + 15, ".gguf") || no == 0 || no > count)
        return false;
    *ret_prefix = n - TAIL_LENGTH;
    *ret_no = no - 1;
    *ret_count = count;
    return true;
}
