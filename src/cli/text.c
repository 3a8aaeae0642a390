/* Text for a terminal: what names, logs and models say is not trusted to be harmless. See cli_priv.h.
 *
 * Widths follow the East Asian Width and general category properties of Unicode 15: combining marks and
 * joiners take no column, wide and full-width forms and emoji take two. The ranges are summed up; a rare
 * character may be off by one, which costs alignment, never safety. */
#include "cli/cli_priv.h"

#include "base/mem.h"

struct range {
    uint32_t first, last;
};

static const struct range zero_width[] = {
    {0x0300, 0x036f}, {0x0483, 0x0489},   {0x0591, 0x05bd}, {0x0610, 0x061a}, {0x064b, 0x065f},
    {0x06d6, 0x06dc}, {0x0900, 0x0902},   {0x093c, 0x093c}, {0x0941, 0x0948}, {0x094d, 0x094d},
    {0x0e31, 0x0e31}, {0x0e34, 0x0e3a},   {0x0e47, 0x0e4e}, {0x1ab0, 0x1aff}, {0x1dc0, 0x1dff},
    {0x200b, 0x200d}, {0x20d0, 0x20ff},   {0x2060, 0x2060}, {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f},
    {0xfeff, 0xfeff}, {0xe0100, 0xe01ef},
};
static const struct range two_columns[] = {
    {0x1100, 0x115f},   {0x231a, 0x231b},   {0x23e9, 0x23ec},   {0x2614, 0x2615},   {0x2648, 0x2653},
    {0x26a1, 0x26a1},   {0x2705, 0x2705},   {0x2728, 0x2728},   {0x274c, 0x274c},   {0x2753, 0x2755},
    {0x2795, 0x2797},   {0x2b1b, 0x2b1c},   {0x2b50, 0x2b50},   {0x2e80, 0x303e},   {0x3041, 0x33ff},
    {0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xa000, 0xa4cf},   {0xa960, 0xa97c},   {0xac00, 0xd7a3},
    {0xf900, 0xfaff},   {0xfe30, 0xfe6f},   {0xff01, 0xff60},   {0xffe0, 0xffe6},   {0x1f004, 0x1f004},
    {0x1f18e, 0x1f19a}, {0x1f200, 0x1f64f}, {0x1f680, 0x1f6ff}, {0x1f7e0, 0x1f7eb}, {0x1f900, 0x1f9ff},
    {0x1fa70, 0x1faff}, {0x20000, 0x3fffd},
};

static bool in_ranges(uint32_t c, const struct range *r, size_t n)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (c > r[mid].last)
            low = mid + 1;
        else
            high = mid;
    }
    return low < n && c >= r[low].first;
}

/* Decodes one character; *ret_n is how many bytes it took (1 for a broken byte, with U+FFFD as the result).
 */
static uint32_t decode(struct str s, size_t *ret_n)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)s.p;
    size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : 0;
    if (p[0] >= 0xf0 && p[0] < 0xf5)
        n = 4;
    *ret_n = 1;
    if (n == 1)
        return p[0];
    if (n == 0 || n > s.n)
        return 0xfffd;
    uint32_t c = p[0] & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0xfffd;
        c = c << 6 | (p[i] & 0x3fu);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return 0xfffd;
    *ret_n = n;
    return c;
}

/* Characters that steer a terminal or reorder what is around them. */
static bool is_control(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x202a && c <= 0x202e) ||
           (c >= 0x2066 && c <= 0x2069);
}

void text_put_safe(struct buf *out, struct str s, bool keep_newlines)
{
    while (s.n) {
        size_t n;
        uint32_t c = decode(s, &n);
        if (c == 0xfffd && n == 1)
            buf_puts(out, "\xef\xbf\xbd");
        else if (is_control(c) && !(keep_newlines && (c == '\n' || c == '\t')))
            buf_puts(out, " ");
        else
            buf_append(out, s.p, n);
        s.p += n;
        s.n -= n;
    }
}

static size_t columns(uint32_t c)
{
    if (c < 0x300)
        return 1;
    if (in_ranges(c, zero_width, TABLE_COUNT(zero_width)))
        return 0;
    return in_ranges(c, two_columns, TABLE_COUNT(two_columns)) ? 2 : 1;
}

size_t text_width(struct str s)
{
    size_t width = 0;
    while (s.n) {
        size_t n;
        width += columns(decode(s, &n));
        s.p += n;
        s.n -= n;
    }
    return width;
}

size_t text_fit(struct str s, size_t width)
{
    size_t at = 0;
    while (at < s.n) {
        size_t n, w = columns(decode((struct str){s.p + at, s.n - at}, &n));
        if (w > width)
            break;
        width -= w;
        at += n;
    }
    return at;
}
