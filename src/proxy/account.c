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

enum object { USAGE, TIMINGS, OBJECTS };

/* Which object's quoted name starts here; OBJECTS = none. */
static enum object named(const char *p, size_t n)
{
    if (n >= 7 && !memcmp(p, "\"usage\"", 7))
        return USAGE;
    return n >= 9 && !memcmp(p, "\"timings\"", 9) ? TIMINGS : OBJECTS;
}

/* The first name at or behind i; s.n = none. */
static size_t find_name(struct str s, size_t i, enum object *ret)
{
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), u = _mm_set1_epi8('u'), t = _mm_set1_epi8('t');
    for (; i + 17 <= s.n; i += 16) {
        __m128i here = _mm_loadu_si128((const __m128i *)(const void *)(s.p + i));
        __m128i next = _mm_loadu_si128((const __m128i *)(const void *)(s.p + i + 1));
        __m128i hit = _mm_and_si128(_mm_cmpeq_epi8(here, quote),
                                    _mm_or_si128(_mm_cmpeq_epi8(next, u), _mm_cmpeq_epi8(next, t)));
        for (unsigned mask = (unsigned)_mm_movemask_epi8(hit); mask; mask &= mask - 1) {
            size_t at = i + (unsigned)__builtin_ctz(mask);
            if ((*ret = named(s.p + at, s.n - at)) != OBJECTS)
                return at;
        }
    }
#endif
    for (; i < s.n; i++)
        if (s.p[i] == '"' && (*ret = named(s.p + i, s.n - i)) != OBJECTS)
            return i;
    return s.n;
}

bool account_wants(struct str bytes)
{
    enum object which;
    return find_name(bytes, 0, &which) < bytes.n;
}

/* The object behind the name at `at`: up to its closing brace, or to the end of the text. Empty if there is
 * none. */
static struct str object_behind(struct str s, size_t at, enum object which)
{
    static const size_t name_n[OBJECTS] = {[USAGE] = 7, [TIMINGS] = 9};
    size_t i = skip_space(s, at + name_n[which]);
    if (i == s.n || s.p[i] != ':')
        return (struct str){"", 0};
    i = skip_space(s, i + 1);
    if (i == s.n || s.p[i] != '{')
        return (struct str){"", 0};
    size_t depth = 0, end = i;
    do {
        depth += s.p[end] == '{';
        depth -= s.p[end] == '}';
        end++;
    } while (depth && end < s.n);
    return (struct str){s.p + i, end - i};
}

/* CACHE_READ: cached ones that the prompt's do not include, as Anthropic counts. */
enum counted { PROMPT, COMPLETION, CACHED, CACHE_READ, DRAFTED, PROMPT_MS, COMPLETION_MS, COUNTED };

static const struct {
    struct str name; /* with its quotes */
    enum object object;
    enum counted what;
} members[] = {
    {{"\"prompt_tokens\"", 15}, USAGE, PROMPT},     {{"\"completion_tokens\"", 19}, USAGE, COMPLETION},
    {{"\"cached_tokens\"", 15}, USAGE, CACHED},     {{"\"input_tokens\"", 14}, USAGE, PROMPT},
    {{"\"output_tokens\"", 15}, USAGE, COMPLETION}, {{"\"cache_read_input_tokens\"", 25}, USAGE, CACHE_READ},
    {{"\"prompt_n\"", 10}, TIMINGS, PROMPT},        {{"\"predicted_n\"", 13}, TIMINGS, COMPLETION},
    {{"\"cache_n\"", 9}, TIMINGS, CACHED},          {{"\"draft_n\"", 9}, TIMINGS, DRAFTED},
    {{"\"prompt_ms\"", 11}, TIMINGS, PROMPT_MS},    {{"\"predicted_ms\"", 14}, TIMINGS, COMPLETION_MS},
};

struct counts {
    uint64_t n[COUNTED];
    bool told[COUNTED];
};

/* A whole number behind a member's name that ends at i. At the end of the text it may be cut: not taken. */
static void take_number(struct str o, size_t i, enum counted what, struct counts *ret)
{
    i = skip_space(o, i);
    if (i == o.n || o.p[i] != ':')
        return;
    i = skip_space(o, i + 1);
    size_t from = i;
    while (i < o.n && o.p[i] >= '0' && o.p[i] <= '9')
        i++;
    if (i < o.n && str_u64((struct str){o.p + from, i - from}, &ret->n[what]))
        ret->told[what] = true;
}

/* Milliseconds with a fraction, as microseconds. */
static void take_ms(struct str o, size_t i, enum counted what, struct counts *ret)
{
    i = skip_space(o, i);
    if (i == o.n || o.p[i] != ':')
        return;
    i = skip_space(o, i + 1);
    size_t from = i;
    while (i < o.n && (o.p[i] == '.' || (o.p[i] >= '0' && o.p[i] <= '9')))
        i++;
    double ms;
    if (i == o.n || !str_double((struct str){o.p + from, i - from}, &ms) || !(ms > 0 && ms < 1e12))
        return;
    ret->n[what] = (uint64_t)(ms * 1000 + 0.5);
    ret->told[what] = true;
}

static void read_object(struct str o, enum object which, struct counts *ret)
{
    const char *end = o.p + o.n;
    for (const char *p = o.p; (p = memchr(p, '"', (size_t)(end - p)));) {
        size_t left = (size_t)(end - p), skip = 1;
        for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
            if (members[i].object != which || left < members[i].name.n ||
                memcmp(p, members[i].name.p, members[i].name.n) != 0)
                continue;
            skip = members[i].name.n;
            (members[i].what >= PROMPT_MS ? take_ms : take_number)(o, (size_t)(p - o.p) + skip,
                                                                   members[i].what, ret);
            break;
        }
        p += skip;
    }
}

void account_read(struct str tail, struct account *ret)
{
    struct counts n[OBJECTS] = {0};
    enum object which = OBJECTS;
    *ret = (struct account){0};
    for (size_t at = find_name(tail, 0, &which); at < tail.n; at = find_name(tail, at + 1, &which)) {
        struct str object = object_behind(tail, at, which);
        read_object(object, which, &n[which]); /* a later one tells anew what it tells */
    }
    struct counts *t = &n[TIMINGS], *u = &n[USAGE];
    if (t->n[DRAFTED] == 0 && t->told[PROMPT_MS] && t->told[COMPLETION_MS]) {
        ret->timing.prompt_tokens = t->n[PROMPT];
        ret->timing.prompt_us = t->n[PROMPT_MS];
        ret->timing.decode_tokens = t->n[COMPLETION];
        ret->timing.decode_us = t->n[COMPLETION_MS];
    }
    t->n[PROMPT] +=
        t->told[PROMPT] ? t->n[CACHED] : 0; /* llama.cpp's prompt_n counts what was computed only */
    if (u->told[CACHE_READ]) {
        u->n[PROMPT] += u->n[CACHE_READ];
        u->n[CACHED] = u->n[CACHE_READ];
        u->told[CACHED] = true;
    }
    const struct counts *from = u->told[PROMPT] || u->told[COMPLETION] ? u : t;
    ret->known = from->told[PROMPT] || from->told[COMPLETION];
    if (!ret->known)
        return;
    ret->prompt_tokens = from->n[PROMPT];
    ret->completion_tokens = from->n[COMPLETION];
    ret->cached_tokens = from->told[CACHED] ? from->n[CACHED] : t->n[CACHED];
}
