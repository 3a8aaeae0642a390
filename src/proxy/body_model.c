/* A resumable JSON scanner: see body_model.h. Layer proxy; any thread.
 *
 * One state per position in the grammar; containers are a bit stack. Strings, which are nearly all of a chat
 * request, are skipped sixteen bytes at a time. Invariant: pos never passes n, and every offset kept points
 * into what was scanned. */
#include "proxy/body_model.h"

#include "base/hex.h"
#include "base/mem.h"

#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum state {
    VALUE,        /* a value must start */
    VALUE_OR_END, /* after [ */
    KEY_OR_END,   /* after { */
    KEY,          /* after , in an object */
    COLON,
    AFTER, /* a value ended */
    STRING,
    ESCAPE,
    HEX,
    SURROGATE_BACKSLASH, /* after a high surrogate */
    SURROGATE_U,
    UTF8,
    MINUS,
    ZERO,
    DIGITS,
    POINT,
    FRACTION,
    EXPONENT,
    EXPONENT_SIGN,
    EXPONENT_DIGITS,
    LITERAL,
    BAD
};

static const char *const wanted[BODY_MEMBERS] = {[BODY_MODEL] = "model",
                                                 [BODY_STREAM] = "stream",
                                                 [BODY_MESSAGES] = "messages",
                                                 [BODY_PROMPT] = "prompt",
                                                 [BODY_LOADING_STATE] = "loading_state"};

static const struct {
    const char *name;
    uint8_t n;
    bool absent;
} options[BODY_OPTIONS] = {
#define OPTION(id, text, null_is_absent, why) [BODY_OPTION_##id] = {text, sizeof(text) - 1, null_is_absent},
#include "proxy/option.def"
#undef OPTION
};

void body_model_init(struct body_model *m)
{
    memset(m, 0, sizeof *m);
    m->state = VALUE;
    m->member = -1;
}

static bool bad(struct body_model *m, const char *why)
{
    m->state = BAD;
    m->problem = why;
    return false;
}

static bool in_object(const struct body_model *m)
{
    unsigned top = m->depth - 1u;
    return m->depth && m->is_object[top / 64] >> (top % 64) & 1;
}

static bool push(struct body_model *m, bool object)
{
    if (m->depth == BODY_MODEL_DEPTH)
        return bad(m, "is nested too deeply");
    if (!m->depth)
        m->object = object;
    uint64_t bit = UINT64_C(1) << (m->depth % 64);
    if (object)
        m->is_object[m->depth / 64] |= bit;
    else
        m->is_object[m->depth / 64] &= ~bit;
    m->depth++;
    m->state = object ? KEY_OR_END : VALUE_OR_END;
    return true;
}

/* A value ended just before `end`. */
static void value_done(struct body_model *m, size_t end, bool is_string)
{
    m->state = AFTER;
    if (m->member < 0 || m->depth != 1)
        return;
    m->value[m->member] =
        (struct body_value){m->value_at, end - m->value_at, is_string, is_string && m->escaped};
    m->member = -1;
}

static bool pop(struct body_model *m, bool object, size_t end)
{
    if (!m->depth || in_object(m) != object)
        return bad(m, "has a bracket that closes nothing");
    m->depth--;
    value_done(m, end, false);
    return true;
}

static bool key_is(const struct body_model *m, const char *base, size_t end, const char *name)
{
    size_t n = strlen(name);
    if (!m->key_escaped)
        return end - m->token == n + 2 && !memcmp(base + m->token + 1, name, n);
    char text[32];
    size_t got = 0;
    struct body_value v = {m->token, end - m->token, true, true};
    return body_model_text(&v, base, text, sizeof text, &got) && got == n && !memcmp(text, name, n);
}

static void find_option(struct body_model *m, const char *base, size_t end)
{
    size_t n = end - m->token - 2;
    for (unsigned i = 0; i < BODY_OPTIONS; i++)
        if ((n == options[i].n || m->key_escaped) && key_is(m, base, end, options[i].name))
            m->option = (uint8_t)(i + 1);
}

static void key_done(struct body_model *m, const char *base, size_t end)
{
    m->state = COLON;
    m->in_key = false;
    if (m->depth != 1)
        return;
    find_option(m, base, end);
    for (unsigned i = 0; i < BODY_MEMBERS; i++) {
        if (!key_is(m, base, end, wanted[i]))
            continue;
        m->member = (int8_t)i;
        if (m->seen[i] < 2)
            m->seen[i]++;
    }
}

/* Skips string bytes that need no look: returns the index of the first that is a quote, a backslash, a
 * control character or not ASCII; at most n. */
static size_t skip_plain(const char *p, size_t i, size_t n)
{
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\'), space = _mm_set1_epi8(0x20);
    for (; i + 16 <= n; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
        /* A signed comparison takes bytes from 0x80 up as negative: they stop the skip as control bytes do.
         */
        __m128i stop = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash)),
                                    _mm_cmplt_epi8(v, space));
        unsigned mask = (unsigned)_mm_movemask_epi8(stop);
        if (mask)
            return i + (unsigned)__builtin_ctz(mask);
    }
#endif
    while (i < n && (signed char)p[i] >= 0x20 && p[i] != '"' && p[i] != '\\')
        i++;
    return i;
}

/* First byte of a multi-byte character: how many follow and within what bounds the first of them lies
 * (Unicode 15, table 3-7). */
static bool utf8_start(struct body_model *m, unsigned char c)
{
    m->low = 0x80;
    m->high = 0xbf;
    if (c >= 0xc2 && c <= 0xdf) {
        m->more = 1;
    } else if (c >= 0xe0 && c <= 0xef) {
        m->more = 2;
        m->low = c == 0xe0 ? 0xa0 : 0x80;
        m->high = c == 0xed ? 0x9f : 0xbf;
    } else if (c >= 0xf0 && c <= 0xf4) {
        m->more = 3;
        m->low = c == 0xf0 ? 0x90 : 0x80;
        m->high = c == 0xf4 ? 0x8f : 0xbf;
    } else {
        return bad(m, "is not valid UTF-8");
    }
    m->state = UTF8;
    return true;
}

static bool utf8_more(struct body_model *m, unsigned char c)
{
    if (c < m->low || c > m->high)
        return bad(m, "is not valid UTF-8");
    m->low = 0x80;
    m->high = 0xbf;
    if (!--m->more)
        m->state = STRING;
    return true;
}

static bool hex_more(struct body_model *m, unsigned char c)
{
    int d = hex_digit((char)c);
    if (d < 0)
        return bad(m, "has a \\u escape without four hexadecimal digits");
    m->hex = (uint16_t)(m->hex << 4 | d);
    if (--m->hex_left)
        return true;
    bool high = m->hex >= 0xd800 && m->hex <= 0xdbff, low = m->hex >= 0xdc00 && m->hex <= 0xdfff;
    if (low != m->low_surrogate)
        return bad(m, "has half of a surrogate pair");
    m->low_surrogate = high;
    m->state = high ? SURROGATE_BACKSLASH : STRING;
    return true;
}

static bool escape(struct body_model *m, unsigned char c)
{
    if (c == 'u') {
        m->hex = 0;
        m->hex_left = 4;
        m->state = HEX;
        return true;
    }
    if (!c || !strchr("\"\\/bfnrt", c))
        return bad(m, "has an unknown escape");
    m->state = STRING;
    return true;
}

static bool string_byte(struct body_model *m, const char *base, size_t i, unsigned char c)
{
    switch (m->state) {
    case STRING:
        if (c == '"') {
            if (m->in_key)
                key_done(m, base, i + 1);
            else
                value_done(m, i + 1, true);
            return true;
        }
        if (c == '\\') {
            if (m->in_key)
                m->key_escaped = true;
            else
                m->escaped = true;
            m->state = ESCAPE;
            return true;
        }
        return c < 0x20 ? bad(m, "has a control character in a string") : utf8_start(m, c);
    case ESCAPE: return escape(m, c);
    case HEX: return hex_more(m, c);
    case UTF8: return utf8_more(m, c);
    case SURROGATE_BACKSLASH:
        m->state = SURROGATE_U;
        return c == '\\' || bad(m, "has half of a surrogate pair");
    default:
        if (c != 'u')
            return bad(m, "has half of a surrogate pair");
        return escape(m, c);
    }
}

static void start_string(struct body_model *m, size_t i, bool key)
{
    m->token = i;
    m->in_key = key;
    m->state = STRING;
    if (key)
        m->key_escaped = false;
    else
        m->escaped = false;
}

static bool start_value(struct body_model *m, size_t i, unsigned char c)
{
    if (m->option) {
        unsigned which = m->option - 1u;
        if (!options[which].absent || (c != 'n' && c != 'f'))
            m->options |= (uint8_t)(1u << which);
        m->option = 0;
    }
    if (m->depth == 1)
        m->value_at = i;
    switch (c) {
    case '"': start_string(m, i, false); return true;
    case '{': return push(m, true);
    case '[': return push(m, false);
    case '-': m->state = MINUS; return true;
    case '0': m->state = ZERO; return true;
    case 't': m->literal = "rue"; break;
    case 'f': m->literal = "alse"; break;
    case 'n': m->literal = "ull"; break;
    default:
        if (c < '1' || c > '9')
            return bad(m, "has something that is no JSON value");
        m->state = DIGITS;
        return true;
    }
    m->state = LITERAL;
    return true;
}

static bool is_digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

/* The next state of a number; AFTER when c is no longer part of it; BAD. */
static enum state number_next(enum state s, unsigned char c)
{
    switch (s) {
    case MINUS: return c == '0' ? ZERO : is_digit(c) ? DIGITS : BAD;
    case ZERO: return c == '.' ? POINT : (c | 0x20) == 'e' ? EXPONENT : is_digit(c) ? BAD : AFTER;
    case DIGITS: return is_digit(c) ? DIGITS : c == '.' ? POINT : (c | 0x20) == 'e' ? EXPONENT : AFTER;
    case POINT: return is_digit(c) ? FRACTION : BAD;
    case FRACTION: return is_digit(c) ? FRACTION : (c | 0x20) == 'e' ? EXPONENT : AFTER;
    case EXPONENT: return c == '+' || c == '-' ? EXPONENT_SIGN : is_digit(c) ? EXPONENT_DIGITS : BAD;
    case EXPONENT_SIGN: return is_digit(c) ? EXPONENT_DIGITS : BAD;
    default: return is_digit(c) ? EXPONENT_DIGITS : AFTER;
    }
}

/* Between tokens. */
static bool structure_byte(struct body_model *m, size_t i, unsigned char c)
{
    switch (m->state) {
    case VALUE_OR_END:
        if (c == ']')
            return pop(m, false, i + 1);
        return start_value(m, i, c);
    case VALUE: return start_value(m, i, c);
    case KEY_OR_END:
        if (c == '}')
            return pop(m, true, i + 1);
        [[fallthrough]];
    case KEY:
        if (c != '"')
            return bad(m, "has an object member without a quoted name");
        start_string(m, i, true);
        return true;
    case COLON: m->state = VALUE; return c == ':' || bad(m, "has a member name without a colon");
    default:
        if (!m->depth)
            return bad(m, "has text after its end");
        if (c == ',') {
            m->state = in_object(m) ? KEY : VALUE;
            return true;
        }
        if (c == '}' || c == ']')
            return pop(m, c == '}', i + 1);
        return bad(m, "lacks a comma between values");
    }
}

bool body_model_scan(struct body_model *m, const char *base, size_t n)
{
    size_t i = m->pos;
    bool fine = m->state != BAD;
    while (fine && i < n) {
        unsigned char c = (unsigned char)base[i];
        if (m->state == STRING) {
            i = skip_plain(base, i, n);
            if (i == n)
                break;
            c = (unsigned char)base[i];
        }
        if (m->state >= STRING && m->state <= UTF8) {
            fine = string_byte(m, base, i, c);
        } else if (m->state == LITERAL) {
            if (c != (unsigned char)*m->literal)
                fine = bad(m, "has something that is no JSON value");
            else if (!*++m->literal)
                value_done(m, i + 1, false);
        } else if (m->state >= MINUS && m->state <= EXPONENT_DIGITS) {
            m->state = (uint8_t)number_next((enum state)m->state, c);
            if (m->state == BAD)
                fine = bad(m, "has a malformed number");
            if (m->state == AFTER) {
                value_done(m, i, false);
                continue; /* c is looked at again */
            }
        } else if (c != ' ' && c != '\n' && c != '\r' && c != '\t') {
            fine = structure_byte(m, i, c);
        }
        i += fine;
    }
    m->pos = i;
    return fine;
}

enum rc body_model_end(struct body_model *m, const char *base, size_t n, struct err *err)
{
    if (!body_model_scan(m, base, n)) {
        enum rc rc = err_set(err, RC_INVALID, "the request body %s (byte %zu)", m->problem, m->pos);
        err_hint(err, "send valid JSON in UTF-8");
        return rc;
    }
    if (!m->depth &&
        (m->state == ZERO || m->state == DIGITS || m->state == FRACTION || m->state == EXPONENT_DIGITS))
        m->state = AFTER;
    if (m->state != AFTER || m->depth) {
        enum rc rc = err_set(err, RC_INVALID,
                             n ? "the request body is cut off: it ends inside a JSON value"
                               : "the request has no body");
        err_hint(err, "send a JSON object such as {\"model\":\"…\"}");
        return rc;
    }
    if (!m->object) {
        enum rc rc = err_set(err, RC_INVALID, "the request body is valid JSON but not an object");
        err_hint(err, "send a JSON object such as {\"model\":\"…\"}");
        return rc;
    }
    if (m->seen[BODY_MODEL] > 1)
        return err_set(err, RC_INVALID, "the request body has the member \"model\" more than once");
    if (m->value[BODY_MODEL].n && !m->value[BODY_MODEL].is_string)
        return err_set(err, RC_INVALID, "\"model\" in the request body is not a string");
    return RC_OK;
}

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

static uint32_t hex4(const char *p)
{
    uint32_t v = 0;
    for (int i = 0; i < 4; i++)
        v = v << 4 | (uint32_t)hex_digit(p[i]);
    return v;
}

/* One escape at p (after the backslash); the text was validated. Returns the bytes read. */
static size_t unescape(const char *p, uint32_t *ret_char)
{
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    const char *at = strchr(from, *p);
    if (*p != 'u') {
        *ret_char = at ? (unsigned char)to[at - from] : (unsigned char)*p;
        return 1;
    }
    *ret_char = hex4(p + 1);
    if (*ret_char < 0xd800 || *ret_char > 0xdbff)
        return 5;
    *ret_char = 0x10000 + ((*ret_char - 0xd800) << 10) + (hex4(p + 7) - 0xdc00);
    return 11;
}

bool body_model_text(const struct body_value *v, const char *base, char *out, size_t cap, size_t *ret_n)
{
    if (!v->n || !v->is_string)
        return false;
    const char *p = base + v->at + 1, *end = base + v->at + v->n - 1;
    size_t n = 0;
    while (p < end) {
        uint32_t c = (unsigned char)*p;
        if (n + 5 > cap)
            return false;
        if (c != '\\') {
            out[n++] = *p++;
            continue;
        }
        p += 1 + unescape(p + 1, &c);
        if (!c)
            return false;
        n += put_utf8(out + n, c);
    }
    out[n] = '\0';
    *ret_n = n;
    return true;
}
