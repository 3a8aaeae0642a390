/* What the names of model files say. Layer gguf; pure. */
#include "gguf/catalog_priv.h"

#include "base/buf.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

struct str name_stem(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    size_t prefix;
    uint32_t no, count;
    if (split_name_parse(base, &prefix, &no, &count))
        return (struct str){base, prefix};
    struct str stem = str_from(base);
    if (stem.n > 5 && !strcasecmp(base + stem.n - 5, ".gguf"))
        stem.n -= 5;
    return stem;
}

bool name_has(struct str name, const char *word)
{
    size_t n = strlen(word);
    for (size_t i = 0; i + n <= name.n; i++)
        if (!strncasecmp(name.p + i, word, n))
            return true;
    return false;
}

static bool is_quantization(struct str word)
{
    static const char *const whole[] = {"F16", "BF16", "F32", "FP16", "FP32"};
    static const char *const numbered[] = {"Q", "IQ", "TQ"};
    static const char *const prefixes[] = {"MXFP4", "NVFP4"};
    for (size_t i = 0; i < TABLE_COUNT(whole); i++)
        if (str_ieq(word, str_from(whole[i])))
            return true;
    for (size_t i = 0; i < TABLE_COUNT(numbered); i++) {
        size_t n = strlen(numbered[i]);
        if (word.n > n && !strncasecmp(word.p, numbered[i], n) && isdigit((unsigned char)word.p[n]))
            return true;
    }
    for (size_t i = 0; i < TABLE_COUNT(prefixes); i++)
        if (word.n >= strlen(prefixes[i]) && !strncasecmp(word.p, prefixes[i], strlen(prefixes[i])))
            return true;
    return false;
}

static bool is_separator(char c)
{
    return c == '-' || c == '.';
}

struct str name_quantization(struct str stem)
{
    for (size_t end = stem.n; end > 0;) {
        size_t start = end;
        while (start > 0 && !is_separator(stem.p[start - 1]))
            start--;
        if (is_quantization((struct str){stem.p + start, end - start})) {
            if (start >= 3 && !strncasecmp(stem.p + start - 3, "UD-", 3) &&
                (start == 3 || is_separator(stem.p[start - 4])))
                start -= 3;
            return (struct str){stem.p + start, end - start};
        }
        end = start ? start - 1 : 0;
    }
    return (struct str){stem.p, 0};
}

char *name_base(struct str stem)
{
    struct str quant = name_quantization(stem);
    struct buf out = {0};
    for (size_t i = 0; i < stem.n;) {
        if (quant.n && stem.p + i == quant.p) {
            i += quant.n;
        } else if (stem.n - i >= 6 && !strncasecmp(stem.p + i, "mmproj", 6)) {
            i += 6;
        } else {
            char c = (char)tolower((unsigned char)stem.p[i++]);
            if (isalnum((unsigned char)c))
                buf_append(&out, &c, 1);
        }
    }
    return buf_take(&out);
}
