/* Cleans text that came from a file or from a file's name. Layer gguf; pure. */
#include "gguf/model_priv.h"

#include "base/buf.h"

/* Length of the valid UTF-8 sequence at p (RFC 3629: shortest form, no surrogates, up to U+10FFFF); 0 if
 * none. */
static size_t utf8_length(const unsigned char *p, size_t n)
{
    static const struct {
        unsigned char lead_min, lead_max, next_min, next_max, length;
    } forms[] = {
        {0x20, 0x7e, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    for (size_t i = 0; i < TABLE_COUNT(forms); i++) {
        if (p[0] < forms[i].lead_min || p[0] > forms[i].lead_max)
            continue;
        if (n < forms[i].length)
            return 0;
        if (forms[i].length > 1 && (p[1] < forms[i].next_min || p[1] > forms[i].next_max))
            return 0;
        for (size_t k = 2; k < forms[i].length; k++)
            if ((p[k] & 0xc0) != 0x80)
                return 0;
        return forms[i].length;
    }
    return 0;
}

char *text_clean(struct str raw)
{
    struct buf out = {0};
    for (size_t i = 0; i < raw.n;) {
        size_t n = utf8_length((const unsigned char *)raw.p + i, raw.n - i);
        bool c1 = n == 2 && (unsigned char)raw.p[i] == 0xc2 && (unsigned char)raw.p[i + 1] < 0xa0;
        if (n && !c1)
            buf_append(&out, raw.p + i, n);
        else
            buf_append(&out, "?", 1);
        i += n ? n : 1;
    }
    return buf_take(&out);
}
