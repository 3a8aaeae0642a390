/* Cleans text that came from a file or from a file's name. Layer gguf; pure. */
#include "gguf/model_priv.h"

#include "base/buf.h"

#include <stdio.h>
#include <string.h>

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

/* Length of the next character, 0 when it is a control character or broken. */
static size_t clean_length(const char *p, size_t n)
{
    size_t length = utf8_length((const unsigned char *)p, n);
    bool c1 = length == 2 && (unsigned char)p[0] == 0xc2 && (unsigned char)p[1] < 0xa0;
    return c1 ? 0 : length;
}

bool text_is_clean(struct str raw)
{
    for (size_t i = 0; i < raw.n;) {
        size_t n = clean_length(raw.p + i, raw.n - i);
        if (!n)
            return false;
        i += n;
    }
    return true;
}

char *text_clean(struct str raw)
{
    struct buf out = {0};
    for (size_t i = 0; i < raw.n;) {
        size_t n = clean_length(raw.p + i, raw.n - i);
        if (n)
            buf_append(&out, raw.p + i, n);
        else
            buf_append(&out, "?", 1);
        i += n ? n : 1;
    }
    return buf_take(&out);
}

void text_clean_err(struct err *err)
{
    if (!err || text_is_clean(str_from(err->message)))
        return;
    auto_free char *clean = text_clean(str_from(err->message));
    snprintf(err->message, sizeof err->message, "%s", clean);
}
