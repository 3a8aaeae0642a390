/* The form field "model" of a multipart body. Layer proxy; pure.
 *
 * A part is read when the mark behind it is found, so its head and its value are complete then. */
#include "proxy/body_form.h"

#include <string.h>

#define PART_HEAD_MAX 4096u

static bool wrong(struct body_form *f, const char *problem)
{
    f->problem = problem;
    return false;
}

/* ---- parameters: ; name=value ; name="value" ---- */

enum param { PARAM_NONE, PARAM_ONE, PARAM_BROKEN };

static struct str quoted(struct str *rest)
{
    const char *end = memchr(rest->p + 1, '"', rest->n - 1);
    if (!end)
        return (struct str){NULL, 0};
    struct str value = {rest->p + 1, (size_t)(end - rest->p) - 1};
    *rest = str_trim((struct str){end + 1, rest->n - value.n - 2});
    return value;
}

static enum param next_param(struct str *rest, struct str *name, struct str *value)
{
    *rest = str_trim(*rest);
    if (!rest->n)
        return PARAM_NONE;
    if (rest->p[0] != ';')
        return PARAM_BROKEN;
    *rest = str_trim((struct str){rest->p + 1, rest->n - 1});
    size_t n = 0;
    while (n < rest->n && rest->p[n] != '=' && rest->p[n] != ';' && rest->p[n] != ' ')
        n++;
    if (!n || n == rest->n || rest->p[n] != '=')
        return PARAM_BROKEN;
    *name = (struct str){rest->p, n};
    *rest = (struct str){rest->p + n + 1, rest->n - n - 1};
    if (rest->n && rest->p[0] == '"') {
        *value = quoted(rest);
        return value->p ? PARAM_ONE : PARAM_BROKEN;
    }
    n = 0;
    while (n < rest->n && !strchr("; \t\"", rest->p[n]))
        n++;
    *value = (struct str){rest->p, n};
    *rest = (struct str){rest->p + n, rest->n - n};
    return PARAM_ONE;
}

static struct str before_params(struct str *text)
{
    const char *at = memchr(text->p, ';', text->n);
    struct str first = {text->p, at ? (size_t)(at - text->p) : text->n};
    *text = (struct str){text->p + first.n, text->n - first.n};
    return str_trim(first);
}

/* RFC 2046's characters of a boundary. */
static bool boundary_is_fine(struct str b)
{
    for (size_t i = 0; i < b.n; i++) {
        unsigned char c = (unsigned char)b.p[i];
        bool alnum = (c >= '0' && c <= '9') || (unsigned char)((c | 0x20) - 'a') < 26;
        if (!alnum && (!c || !strchr("'()+_,-./:=? ", c)))
            return false;
    }
    return b.n > 0 && b.n <= BODY_FORM_BOUNDARY && b.p[b.n - 1] != ' ';
}

bool body_form_init(struct body_form *f, struct str content_type)
{
    struct str name, value, boundary = {"", 0};
    enum param p;
    *f = (struct body_form){.mark = "\r\n--"};
    if (!str_ieq(before_params(&content_type), STR("multipart/form-data")))
        return wrong(f, "is of a multipart type other than form-data");
    while ((p = next_param(&content_type, &name, &value)) == PARAM_ONE) {
        if (!str_ieq(name, STR("boundary")))
            continue;
        if (boundary.n)
            return wrong(f, "has more than one boundary in its Content-Type");
        boundary = value;
    }
    if (p == PARAM_BROKEN || !boundary_is_fine(boundary))
        return wrong(f, "has no usable boundary in its Content-Type");
    memcpy(f->mark + 4, boundary.p, boundary.n);
    f->mark_n = 4 + boundary.n;
    return true;
}

/* ---- parts ---- */

struct part {
    struct str name;
    bool named, is_file;
};

static bool read_disposition(struct body_form *f, struct str text, struct part *ret)
{
    struct str name, value;
    enum param p;
    if (ret->named || !str_ieq(before_params(&text), STR("form-data")))
        return wrong(f, "has a part with a malformed Content-Disposition");
    while ((p = next_param(&text, &name, &value)) == PARAM_ONE) {
        if (str_ieq(name, STR("filename")) || str_ieq(name, STR("filename*"))) {
            ret->is_file = true;
        } else if (str_ieq(name, STR("name"))) {
            if (ret->named || memchr(value.p, '\\', value.n)) /* which readers undo differently */
                return wrong(f, "has a part with a malformed name");
            ret->named = true;
            ret->name = value;
        }
    }
    return p == PARAM_NONE || wrong(f, "has a part with a malformed Content-Disposition");
}

static bool read_part_head(struct body_form *f, struct str head, struct part *ret)
{
    while (head.n) {
        ptrdiff_t end = str_find(head, STR("\r\n"));
        struct str line = {head.p, end < 0 ? head.n : (size_t)end};
        head = end < 0 ? (struct str){"", 0} : (struct str){head.p + end + 2, head.n - (size_t)end - 2};
        if (!line.n || line.p[0] == ' ' || line.p[0] == '\t' || memchr(line.p, '\n', line.n) ||
            memchr(line.p, '\r', line.n))
            return wrong(f, "has a part with a malformed head");
        struct str field = str_cut(&line, ':');
        if (str_ieq(field, STR("content-disposition")) && !read_disposition(f, str_trim(line), ret))
            return false;
    }
    return ret->named || wrong(f, "has a part without a name");
}

/* The part from f->part_at to `end`. */
static bool read_part(struct body_form *f, const char *base, size_t end)
{
    struct part part = {.name = {"", 0}};
    if (end < f->part_at) /* two marks share a line break */
        return wrong(f, "has a part with a malformed head");
    struct str text = {base + f->part_at, end - f->part_at};
    ptrdiff_t n =
        str_find((struct str){text.p, text.n < PART_HEAD_MAX ? text.n : PART_HEAD_MAX}, STR("\r\n\r\n"));
    if (n < 0)
        return wrong(f, "has a part with a malformed head");
    if (!read_part_head(f, (struct str){text.p, (size_t)n}, &part))
        return false;
    if (!str_eq(part.name, STR("model")))
        return true;
    if (f->model_seen)
        return wrong(f, "has the field \"model\" more than once");
    if (part.is_file)
        return wrong(f, "has a file in the field \"model\"");
    f->model_seen = true;
    f->model_at = f->part_at + (size_t)n + 4;
    f->model_n = end - f->model_at;
    return true;
}

/* The mark at `at` (the first one lacks its line break), with the two bytes behind it at `behind`. */
static bool take_mark(struct body_form *f, const char *base, size_t at, size_t behind)
{
    bool last = !memcmp(base + behind, "--", 2);
    if (!last && memcmp(base + behind, "\r\n", 2) != 0)
        return wrong(f, "has a line that only begins like its boundary");
    if (f->in_part && !read_part(f, base, at))
        return false;
    if (!f->in_part)
        f->first_at = behind - f->mark_n + 2;
    if (++f->parts > BODY_FORM_PARTS)
        return wrong(f, "has too many parts");
    f->in_part = true;
    f->ended = last;
    f->part_at = behind + 2;
    f->pos = behind;
    return true;
}

bool body_form_scan(struct body_form *f, const char *base, size_t n)
{
    if (f->problem)
        return false;
    while (!f->ended) {
        bool first = !f->pos && !f->in_part;
        size_t skip = 0, at;
        if (first && n < f->mark_n)
            return true;
        if (first && !memcmp(base, f->mark + 2, f->mark_n - 2)) {
            skip = 2;
            at = 0;
        } else {
            const char *p = memmem(base + f->pos, n - f->pos, f->mark, f->mark_n);
            if (!p) {
                size_t keep = f->mark_n - 1;
                f->pos = n > f->pos + keep ? n - keep : f->pos;
                return true;
            }
            at = (size_t)(p - base);
        }
        size_t behind = at + f->mark_n - skip;
        if (n - behind < 2) {
            f->pos = at;
            return true;
        }
        if (!take_mark(f, base, at, behind))
            return false;
    }
    return true;
}

enum rc body_form_end(struct body_form *f, const char *base, size_t n, struct err *err)
{
    enum rc rc = RC_OK;
    if (!body_form_scan(f, base, n))
        rc = err_set(err, RC_INVALID, "the request's form %s", f->problem);
    else if (!f->ended)
        rc = err_set(err, RC_INVALID, "the request's form is cut off: it ends before its last boundary");
    if (rc != RC_OK)
        err_hint(err, "send multipart/form-data with the model's name in the field \"model\"");
    return rc;
}

bool body_form_text(const struct body_form *f, const char *base, char *out, size_t cap, size_t *ret_n)
{
    const char *p = base + f->model_at;
    if (!f->model_n || f->model_n >= cap)
        return false;
    for (size_t i = 0; i < f->model_n; i++)
        if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f)
            return false;
    memcpy(out, p, f->model_n);
    out[f->model_n] = '\0';
    *ret_n = f->model_n;
    return true;
}
