/* The header table: see head.h. Layer proxy; loop thread only. Invariant: every span lies within the buffer
 * that was given as base, and spans of one element are contiguous (llhttp splits them only where a read
 * ended). */
#include "proxy/head.h"

#include <stddef.h>
#include <string.h>

enum { PASS = 0, DROP = 1 };

static const struct {
    bool drop[2];
    char name[34];
} known[HDR_COUNT] = {
#define HDR(id, text, request, response) [HDR_##id] = {{request, response}, text},
#include "proxy/header.def"
#undef HDR
};

void head_reset(struct head *h)
{
    memset(h, 0, offsetof(struct head, first));
}

static enum head_problem extend(struct head_span *s, const char *base, const char *at, size_t n)
{
    if (!s->n)
        s->at = (uint32_t)(at - base);
    else if (base + s->at + s->n != at)
        return HEAD_BROKEN;
    s->n += (uint32_t)n;
    return HEAD_FINE;
}

enum head_problem head_target(struct head *h, const char *base, const char *at, size_t n)
{
    return extend(&h->target, base, at, n);
}

enum head_problem head_name(struct head *h, const char *base, const char *at, size_t n)
{
    if (!h->n || h->name_done) {
        if (h->n == HEAD_MAX_FIELDS)
            return HEAD_TOO_MANY;
        h->f[h->n++] = (struct head_field){{0, 0}, {0, 0}};
        h->name_done = false;
    }
    return extend(&h->f[h->n - 1].name, base, at, n);
}

void head_name_end(struct head *h)
{
    h->name_done = true;
}

enum head_problem head_value(struct head *h, const char *base, const char *at, size_t n)
{
    if (!h->n)
        return HEAD_BROKEN;
    return n ? extend(&h->f[h->n - 1].value, base, at, n) : HEAD_FINE;
}

static uint64_t folded(const char *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return x | UINT64_C(0x2020202020202020);
}

/* Of a name that llhttp let pass: among the bytes of a token, the bit that is set here folds capitals and
 * makes nothing else equal to a letter, a digit or a hyphen. `lower` has none but these. */
static bool same_name(const char *p, const char *lower, size_t n)
{
    const size_t word = sizeof(uint64_t);
    for (size_t i = 0; n < word && i < n; i++)
        if ((p[i] | 0x20) != lower[i])
            return false;
    if (n < word)
        return true;
    for (size_t i = 0; i + word < n; i += word)
        if (folded(p + i) != folded(lower + i))
            return false;
    return folded(p + n - word) == folded(lower + n - word);
}

/* The lengths apart: one cache line decides for most fields. */
static const uint8_t lengths[HDR_COUNT] = {
#define HDR(id, text, request, response) [HDR_##id] = sizeof(text) - 1,
#include "proxy/header.def"
#undef HDR
};

static enum head_id identify(struct str name)
{
    for (unsigned i = 1; i < HDR_COUNT && lengths[i] <= name.n; i++)
        if (lengths[i] == name.n && same_name(name.p, known[i].name, name.n))
            return (enum head_id)i;
    return HDR_OTHER;
}

static bool names_others(struct str list)
{
    while (list.n) {
        struct str token = str_trim(str_cut(&list, ','));
        if (token.n && !str_ieq(token, STR("keep-alive")) && !str_ieq(token, STR("close")))
            return true;
    }
    return false;
}

void head_close(struct head *h, const char *base)
{
    for (uint32_t i = 0; i < h->n; i++) {
        struct head_field *f = &h->f[i];
        while (f->value.n &&
               (base[f->value.at + f->value.n - 1] == ' ' || base[f->value.at + f->value.n - 1] == '\t'))
            f->value.n--;
        while (f->value.n && (base[f->value.at] == ' ' || base[f->value.at] == '\t')) {
            f->value.at++;
            f->value.n--;
        }
        enum head_id id = identify(head_str(base, f->name));
        h->id[i] = (uint8_t)id;
        if (id == HDR_OTHER)
            continue;
        if (!h->seen[id])
            h->first[id] = (uint8_t)i;
        if (h->seen[id] < 255)
            h->seen[id]++;
        if (id == HDR_CONNECTION && names_others(head_str(base, f->value)))
            h->named_hops = true;
    }
}

struct str head_find(const struct head *h, const char *base, const char *lower_name)
{
    size_t n = strlen(lower_name);
    for (uint32_t i = 0; i < h->n; i++)
        if (h->f[i].name.n == n && same_name(base + h->f[i].name.at, lower_name, n))
            return head_str(base, h->f[i].value);
    return (struct str){"", 0};
}

bool head_has_token(struct str list, const char *token)
{
    while (list.n)
        if (str_ieq(str_trim(str_cut(&list, ',')), str_from(token)))
            return true;
    return false;
}

static bool named_by_connection(const struct head *h, const char *base, struct str name)
{
    for (uint32_t i = 0; i < h->n; i++) {
        if (h->id[i] != HDR_CONNECTION)
            continue;
        struct str list = head_str(base, h->f[i].value);
        while (list.n)
            if (str_ieq(str_trim(str_cut(&list, ',')), name))
                return true;
    }
    return false;
}

/* Whether the field stands in the buffer just as we would write it: "Name: value\r\n". */
static bool is_plain(const char *base, const struct head_field *f)
{
    uint32_t colon = f->name.at + f->name.n, end = f->value.at + f->value.n;
    return f->value.n && f->value.at == colon + 2 && !memcmp(base + colon, ": ", 2) &&
           !memcmp(base + end, "\r\n", 2);
}

void head_copy(const struct head *h, const char *base, enum head_way way, const bool *drop, struct put *w)
{
    /* Neighbours that stand there as they should are copied in one go. */
    const char *run = NULL, *run_end = NULL;
    for (uint32_t i = 0; i < h->n; i++) {
        const struct head_field *f = &h->f[i];
        if (!head_passes(h, base, i, way) || (drop && drop[h->id[i]]))
            continue;
        const char *from = base + f->name.at;
        bool plain = is_plain(base, f);
        if (run && (!plain || from != run_end)) {
            put_bytes(w, run, (size_t)(run_end - run));
            run = NULL;
        }
        if (plain) {
            run = run ? run : from;
            run_end = base + f->value.at + f->value.n + 2;
            continue;
        }
        put_str(w, head_str(base, f->name));
        put_lit(w, ": ");
        put_str(w, head_str(base, f->value));
        put_lit(w, "\r\n");
    }
    if (run)
        put_bytes(w, run, (size_t)(run_end - run));
}

bool head_passes(const struct head *h, const char *base, uint32_t i, enum head_way way)
{
    if (known[h->id[i]].drop[way])
        return false;
    return !h->named_hops || !named_by_connection(h, base, head_str(base, h->f[i].name));
}
