/* Borrowed slices and text helpers: see str.h. */
#include "base/str.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct str str_from(const char *cstr)
{
    return (struct str){cstr, cstr ? strlen(cstr) : 0};
}

bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool str_eq_c(struct str a, const char *b)
{
    return str_eq(a, str_from(b));
}

bool str_ieq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || strncasecmp(a.p, b.p, a.n) == 0);
}

bool str_starts(struct str s, const char *prefix)
{
    size_t n = strlen(prefix);
    return s.n >= n && memcmp(s.p, prefix, n) == 0;
}

bool str_ends(struct str s, const char *suffix)
{
    size_t n = strlen(suffix);
    return s.n >= n && memcmp(s.p + s.n - n, suffix, n) == 0;
}

struct str str_trim(struct str s)
{
    while (s.n && isspace((unsigned char)s.p[0]))
        s.p++, s.n--;
    while (s.n && isspace((unsigned char)s.p[s.n - 1]))
        s.n--;
    return s;
}

struct str str_cut(struct str *s, char c)
{
    const char *at = s->n ? memchr(s->p, c, s->n) : NULL;
    struct str head = *s;
    if (at) {
        head.n = (size_t)(at - s->p);
        s->p = at + 1;
        s->n -= head.n + 1;
    } else {
        s->p += s->n;
        s->n = 0;
    }
    return head;
}

ptrdiff_t str_find(struct str s, struct str needle)
{
    if (needle.n == 0)
        return 0;
    if (s.n < needle.n)
        return -1;
    const char *at = memmem(s.p, s.n, needle.p, needle.n);
    return at ? at - s.p : -1;
}

bool str_u64(struct str s, uint64_t *ret_value)
{
    uint64_t v = 0;
    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v))
            return false;
    }
    *ret_value = v;
    return true;
}

bool str_tokens(struct str s, uint64_t *ret_tokens)
{
    uint64_t v, factor = 1;
    if (s.n && (s.p[s.n - 1] | 0x20) == 'k')
        factor = 1024;
    else if (s.n && (s.p[s.n - 1] | 0x20) == 'm')
        factor = 1024 * 1024;
    s.n -= factor > 1;
    if (!str_u64(s, &v) || __builtin_mul_overflow(v, factor, &v))
        return false;
    *ret_tokens = v;
    return true;
}

bool str_i64(struct str s, int64_t *ret_value)
{
    bool neg = s.n && s.p[0] == '-';
    uint64_t v;
    if (neg)
        s.p++, s.n--;
    if (!str_u64(s, &v) || v > (uint64_t)INT64_MAX + (neg ? 1 : 0))
        return false;
    *ret_value = neg ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

bool str_double(struct str s, double *ret_value)
{
    char tmp[64];
    if (s.n == 0 || s.n >= sizeof tmp || isspace((unsigned char)s.p[0]))
        return false;
    memcpy(tmp, s.p, s.n);
    tmp[s.n] = '\0';
    char *end;
    errno = 0;
    double v = strtod(tmp, &end);
    if (*end || errno || v != v)
        return false;
    *ret_value = v;
    return true;
}

/* Splits "12.5 GiB" into the number and its unit. */
static bool number_and_unit(struct str s, double *ret_number, struct str *ret_unit)
{
    s = str_trim(s);
    size_t i = 0;
    while (i < s.n && (isdigit((unsigned char)s.p[i]) || s.p[i] == '.'))
        i++;
    if (!str_double((struct str){s.p, i}, ret_number))
        return false;
    *ret_unit = str_trim((struct str){s.p + i, s.n - i});
    return true;
}

bool str_bytes(struct str s, uint64_t *ret_bytes)
{
    static const struct {
        const char *unit;
        double factor;
    } units[] = {{"", 1},
                 {"b", 1},
                 {"k", 1024.0},
                 {"m", 1048576.0},
                 {"g", 1073741824.0},
                 {"t", 1099511627776.0},
                 {"kib", 1024.0},
                 {"mib", 1048576.0},
                 {"gib", 1073741824.0},
                 {"tib", 1099511627776.0},
                 {"kb", 1e3},
                 {"mb", 1e6},
                 {"gb", 1e9},
                 {"tb", 1e12}};
    double v;
    struct str unit;
    if (!number_and_unit(s, &v, &unit))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (str_ieq(unit, str_from(units[i].unit))) {
            v *= units[i].factor;
            if (v < 0 || v > 9e18)
                return false;
            *ret_bytes = (uint64_t)v;
            return true;
        }
    return false;
}

bool str_duration_ms(struct str s, uint64_t *ret_ms)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"", 1e3}, {"ms", 1}, {"s", 1e3}, {"m", 6e4}, {"min", 6e4}, {"h", 3.6e6}, {"d", 8.64e7}};
    double v;
    struct str unit;
    if (!number_and_unit(s, &v, &unit))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (str_ieq(unit, str_from(units[i].unit))) {
            v *= units[i].ms;
            if (v < 0 || v > 9e15)
                return false;
            *ret_ms = (uint64_t)v;
            return true;
        }
    return false;
}

unsigned str_distance(struct str a, struct str b)
{
    enum { MAX = 128 };
    unsigned rows[3][MAX + 1];
    if (a.n > MAX)
        a.n = MAX;
    if (b.n > MAX)
        b.n = MAX;
    unsigned *before = rows[0], *prev = rows[1], *cur = rows[2];
    for (size_t j = 0; j <= b.n; j++)
        prev[j] = (unsigned)j;
    for (size_t i = 1; i <= a.n; i++) {
        cur[0] = (unsigned)i;
        for (size_t j = 1; j <= b.n; j++) {
            int ca = tolower((unsigned char)a.p[i - 1]), cb = tolower((unsigned char)b.p[j - 1]);
            unsigned best = prev[j - 1] + (ca != cb);
            if (prev[j] + 1 < best)
                best = prev[j] + 1;
            if (cur[j - 1] + 1 < best)
                best = cur[j - 1] + 1;
            if (i > 1 && j > 1 && ca == tolower((unsigned char)b.p[j - 2]) &&
                cb == tolower((unsigned char)a.p[i - 2]) && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            cur[j] = best;
        }
        unsigned *t = before;
        before = prev, prev = cur, cur = t;
    }
    return prev[b.n];
}

char *str_human_bytes(uint64_t bytes, char *out, size_t cap)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double v = (double)bytes;
    size_t u = 0;
    while (v >= 1024 && u + 1 < sizeof units / sizeof *units)
        v /= 1024, u++;
    snprintf(out, cap, u == 0 || v >= 100 ? "%.0f %s" : "%.1f %s", v, units[u]);
    return out;
}

uint64_t str_hash(struct str s, uint64_t seed)
{
    uint64_t h = 0xcbf29ce484222325u ^ seed;
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (unsigned char)s.p[i]) * 0x100000001b3u;
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdu;
    return h ^ (h >> 33);
}
