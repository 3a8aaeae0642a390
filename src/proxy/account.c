/* Accounting from an answer's tail: see account.h. Layer proxy; any thread. */
#include "proxy/account.h"

#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

void account_tail_feed(struct account_tail *t, const char *p, size_t n)
{
    if (n > ACCOUNT_WINDOW) {
        t->total += n - ACCOUNT_WINDOW;
        p += n - ACCOUNT_WINDOW;
        n = ACCOUNT_WINDOW;
    }
    size_t at = t->total % ACCOUNT_WINDOW, first = ACCOUNT_WINDOW - at;
    if (first > n)
        first = n;
    memcpy(t->ring + at, p, first);
    memcpy(t->ring, p + first, n - first);
    t->total += n;
}

struct str account_tail_str(const struct account_tail *t, char *scratch)
{
    if (t->total <= ACCOUNT_WINDOW)
        return (struct str){t->ring, (size_t)t->total};
    size_t at = t->total % ACCOUNT_WINDOW;
    memcpy(scratch, t->ring + at, ACCOUNT_WINDOW - at);
    memcpy(scratch + ACCOUNT_WINDOW - at, t->ring, at);
    return (struct str){scratch, ACCOUNT_WINDOW};
}

static size_t skip_space(struct str s, size_t i)
{
    while (i < s.n && (s.p[i] == ' ' || s.p[i] == '\t' || s.p[i] == '\r' || s.p[i] == '\n'))
        i++;
    return i;
}

/* The object that follows the last occurrence of the quoted key: its bytes up to the closing brace, or up to
 * the end of the text. Empty if there is none. */
static struct str last_object(struct str s, struct str key)
{
    for (const char *p = s.p + s.n; (p = memrchr(s.p, key.p[1], (size_t)(p - s.p)));) {
        size_t at = (size_t)(p - s.p);
        if (!at || s.n - at + 1 < key.n || memcmp(p - 1, key.p, key.n) != 0)
            continue;
        size_t i = skip_space(s, at - 1 + key.n);
        if (i == s.n || s.p[i] != ':')
            continue;
        i = skip_space(s, i + 1);
        if (i == s.n || s.p[i] != '{')
            continue;
        size_t depth = 0, end = i;
        do {
            depth += s.p[end] == '{';
            depth -= s.p[end] == '}';
            end++;
        } while (depth && end < s.n);
        return (struct str){s.p + i, end - i};
    }
    return (struct str){"", 0};
}

/* A whole number after "key": anywhere in the object; false if there is none. */
static bool number_of(struct str object, struct str key, uint64_t *ret)
{
    ptrdiff_t at = str_find(object, key);
    if (at < 0)
        return false;
    size_t i = skip_space(object, (size_t)at + key.n);
    if (i == object.n || object.p[i] != ':')
        return false;
    i = skip_space(object, i + 1);
    size_t from = i;
    while (i < object.n && object.p[i] >= '0' && object.p[i] <= '9')
        i++;
    /* At the end of the text the number may be cut. */
    return i < object.n && str_u64((struct str){object.p + from, i - from}, ret);
}

static const struct {
    struct str object, prompt, completion, cached;
    bool prompt_excludes_cached; /* llama.cpp's prompt_n counts what was computed only */
} sources[] = {
    {{"\"usage\"", 7},
     {"\"prompt_tokens\"", 15},
     {"\"completion_tokens\"", 19},
     {"\"cached_tokens\"", 15},
     false},
    {{"\"usage\"", 7},
     {"\"input_tokens\"", 14},
     {"\"output_tokens\"", 15},
     {"\"cache_read_input_tokens\"", 25},
     false},
    {{"\"timings\"", 9}, {"\"prompt_n\"", 10}, {"\"predicted_n\"", 13}, {"\"cache_n\"", 9}, true},
};

static bool names_object(const char *p, size_t n)
{
    return (n >= 7 && !memcmp(p, "\"usage\"", 7)) || (n >= 9 && !memcmp(p, "\"timings\"", 9));
}

bool account_wants(struct str bytes)
{
    const char *p = bytes.p;
    size_t n = bytes.n, i = 0;
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), u = _mm_set1_epi8('u'), t = _mm_set1_epi8('t');
    for (; i + 17 <= n; i += 16) {
        __m128i here = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
        __m128i next = _mm_loadu_si128((const __m128i *)(const void *)(p + i + 1));
        __m128i hit = _mm_and_si128(_mm_cmpeq_epi8(here, quote),
                                    _mm_or_si128(_mm_cmpeq_epi8(next, u), _mm_cmpeq_epi8(next, t)));
        for (unsigned mask = (unsigned)_mm_movemask_epi8(hit); mask; mask &= mask - 1) {
            size_t at = i + (unsigned)__builtin_ctz(mask);
            if (names_object(p + at, n - at))
                return true;
        }
    }
#endif
    for (; i < n; i++)
        if (p[i] == '"' && names_object(p + i, n - i))
            return true;
    return false;
}

void account_read(struct str tail, struct account *ret)
{
    *ret = (struct account){0};
    if (!account_wants(tail))
        return;
    for (size_t i = 0; i < sizeof sources / sizeof *sources && !ret->known; i++) {
        struct str object = last_object(tail, sources[i].object);
        bool prompt = number_of(object, sources[i].prompt, &ret->prompt_tokens);
        bool completion = number_of(object, sources[i].completion, &ret->completion_tokens);
        (void)number_of(object, sources[i].cached, &ret->cached_tokens);
        if (sources[i].prompt_excludes_cached && prompt)
            ret->prompt_tokens += ret->cached_tokens;
        ret->known = prompt || completion;
    }
    if (ret->known && !ret->cached_tokens)
        (void)number_of(last_object(tail, sources[2].object), sources[2].cached, &ret->cached_tokens);
}

bool account_stream_done(struct str tail)
{
    while (tail.n && (tail.p[tail.n - 1] == '\n' || tail.p[tail.n - 1] == '\r' || tail.p[tail.n - 1] == ' '))
        tail.n--;
    return str_ends(tail, "data: [DONE]") || str_ends(tail, "data:[DONE]");
}
