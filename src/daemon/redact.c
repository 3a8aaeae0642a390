/* Leaving out what should not be kept: see redact.h. A word is a run of the characters that keys and base64
 * consist of. Invalid UTF-8 stays as it is: whoever writes JSON of it replaces it. */
#include "daemon/redact.h"

#include "base/mem.h"

#include <string.h>

#define WORD_MAX   256u
#define SECRET_MIN 16u /* a shorter word is no key, however it begins */
#define BEARER_MIN 8u

static const char *const prefixes[] = {"sk-", "pk-",  "arr_",   "ghp_",  "gho_",  "ghs_", "github_pat_",
                                       "hf_", "AKIA", "glpat-", "xoxb-", "xoxp-", "AIza", "eyJ"};

static bool in_word(char c)
{
    unsigned char u = (unsigned char)c;
    return (u >= '0' && u <= '9') || (unsigned char)((u | 0x20) - 'a') < 26 || (u && strchr("+/=_-.", c));
}

static bool is_secret(struct str word, struct str before)
{
    for (size_t i = 0; i < TABLE_COUNT(prefixes); i++)
        if (word.n >= SECRET_MIN && str_starts(word, prefixes[i]))
            return true;
    return word.n >= BEARER_MIN && before.n >= 7 &&
           str_ieq((struct str){before.p + before.n - 7, 7}, STR("bearer "));
}

void redact(struct str text, struct buf *out)
{
    for (size_t at = 0; at < text.n;) {
        size_t from = at;
        while (at < text.n && in_word(text.p[at]))
            at++;
        struct str word = {text.p + from, at - from};
        if (is_secret(word, (struct str){text.p, from}))
            (void)buf_puts(out, "[secret left out]");
        else if (word.n > WORD_MAX)
            (void)buf_printf(out, "[%zu characters left out]", word.n);
        else
            (void)buf_put_str(out, word);
        from = at;
        while (at < text.n && !in_word(text.p[at]))
            at++;
        (void)buf_append(out, text.p + from, at - from);
    }
}
