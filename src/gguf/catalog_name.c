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

/* ---- names as people type them: "Owner/Some-Model-GGUF:q4_k_m", "some-model.Q4_K_M", "some-model" ---- */

#define WORD_MAX 160

struct typed {
    struct str owner, quant; /* empty = not told */
    char word[WORD_MAX];     /* letters and digits of the name, lower case */
    size_t n;
};

static void put_word(struct typed *t, struct str s)
{
    for (size_t i = 0; i < s.n && t->n < WORD_MAX; i++)
        if (isalnum((unsigned char)s.p[i]))
            t->word[t->n++] = (char)tolower((unsigned char)s.p[i]);
}

static bool take_apart(struct str name, struct typed *t)
{
    *t = (struct typed){.owner = {"", 0}, .quant = {"", 0}};
    for (size_t i = name.n; i-- > 0;)
        if (name.p[i] == '/') {
            t->owner = (struct str){name.p, i};
            name = (struct str){name.p + i + 1, name.n - i - 1};
            break;
        }
    for (size_t i = name.n; i-- > 0;)
        if (name.p[i] == ':') {
            struct str tag = {name.p + i + 1, name.n - i - 1};
            if (name_quantization(tag).n == tag.n && tag.n > 0) {
                t->quant = tag;
                name.n = i;
            }
            break;
        }
    struct str inner = t->quant.n ? (struct str){name.p, 0} : name_quantization(name);
    if (inner.n) {
        t->quant = inner;
        put_word(t, (struct str){name.p, (size_t)(inner.p - name.p)});
        put_word(t, (struct str){inner.p + inner.n, (size_t)(name.p + name.n - inner.p) - inner.n});
    } else {
        put_word(t, name);
    }
    if (t->n > 4 && !memcmp(t->word + t->n - 4, "gguf", 4))
        t->n -= 4;
    return t->n > 0 && t->n < WORD_MAX;
}

enum catalog_meaning catalog_means(struct str typed, struct str id)
{
    struct typed a, b;
    if (!take_apart(typed, &a) || !take_apart(id, &b) || a.n != b.n || memcmp(a.word, b.word, a.n) != 0)
        return CATALOG_MEANS_NOT;
    if (a.owner.n && b.owner.n && !str_ieq(a.owner, b.owner))
        return CATALOG_MEANS_NOT;
    if (!a.quant.n)
        return CATALOG_MEANS_MODEL;
    return str_ieq(a.quant, b.quant) ? CATALOG_MEANS_QUANT : CATALOG_MEANS_NOT;
}
