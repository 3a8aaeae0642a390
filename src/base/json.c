/* Glue over yyjson: see json.h. */
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

enum rc json_parse(struct str text, const char *what, yyjson_doc **ret_doc, struct err *err)
{
    yyjson_read_err e;
    if (text.n == 0) {
        enum rc rc = err_set(err, RC_INVALID, "%s is empty", what);
        err_hint(err, "send a JSON object");
        return rc;
    }
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)text.p, text.n, YYJSON_READ_NOFLAG, NULL, &e);
    if (!doc)
        return err_set(err, RC_INVALID, "%s is not valid JSON: %s at byte %zu", what, e.msg, e.pos);
    *ret_doc = doc;
    return RC_OK;
}

struct str json_str(yyjson_val *obj, const char *key, struct str fallback)
{
    yyjson_val *v = yyjson_obj_get(obj, key);
    return yyjson_is_str(v) ? (struct str){yyjson_get_str(v), yyjson_get_len(v)} : fallback;
}

/* The member; a number that was read as text (YYJSON_READ_NUMBER_AS_RAW) is made one, in *room. */
static yyjson_val *number_of(yyjson_val *obj, const char *key, yyjson_val *room)
{
    yyjson_val *v = yyjson_obj_get(obj, key);
    if (!yyjson_is_raw(v))
        return v;
    *room = (yyjson_val){0};
    return yyjson_read_number(yyjson_get_raw(v), room, YYJSON_READ_NOFLAG, NULL, NULL) ? room : NULL;
}

uint64_t json_u64(yyjson_val *obj, const char *key, uint64_t fallback)
{
    yyjson_val room, *v = number_of(obj, key, &room);
    return yyjson_is_uint(v) ? yyjson_get_uint(v) : fallback;
}

double json_double(yyjson_val *obj, const char *key, double fallback)
{
    yyjson_val room, *v = number_of(obj, key, &room);
    return yyjson_is_num(v) ? yyjson_get_num(v) : fallback;
}

bool json_bool(yyjson_val *obj, const char *key, bool fallback)
{
    yyjson_val *v = yyjson_obj_get(obj, key);
    return yyjson_is_bool(v) ? yyjson_get_bool(v) : fallback;
}

/* Length of the valid UTF-8 sequence at p, or 0. */
static size_t utf8_sequence(const unsigned char *p, size_t n)
{
    size_t len = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : 0;
    if (p[0] >= 0xf0 && p[0] < 0xf5)
        len = 4;
    if (len == 0 || len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return len;
}

/* Appends s with U+FFFD in place of each byte that is no UTF-8 (file names may hold any bytes). */
static void append_utf8(struct buf *out, const char *s, size_t n)
{
    size_t from = 0, i = 0;
    while (i < n) {
        size_t len = utf8_sequence((const unsigned char *)s + i, n - i);
        if (len == 0) {
            buf_append(out, s + from, i - from);
            buf_append(out, "\xef\xbf\xbd", 3);
            from = i + 1;
        }
        i += len ? len : 1;
    }
    buf_append(out, s + from, n - from);
}

enum rc json_write(const yyjson_mut_doc *doc, bool pretty, struct buf *out, struct err *err)
{
    size_t n;
    yyjson_write_err e;
    yyjson_write_flag flags = pretty ? YYJSON_WRITE_PRETTY_TWO_SPACES : YYJSON_WRITE_NOFLAG;
    char *text = yyjson_mut_write_opts(doc, flags, NULL, &n, &e);
    if (text) {
        buf_append(out, text, n);
    } else if (e.code == YYJSON_WRITE_ERROR_INVALID_STRING) {
        text = yyjson_mut_write_opts(doc, flags | YYJSON_WRITE_ALLOW_INVALID_UNICODE, NULL, &n, &e);
        if (text)
            append_utf8(out, text, n);
    }
    if (!text)
        return err_set(err, RC_INTERNAL, "cannot write JSON: %s", e.msg);
    free(text);
    if (pretty)
        buf_append(out, "\n", 1);
    return out->failed ? err_set(err, RC_NOMEM, "JSON text of %zu bytes is over the limit", n) : RC_OK;
}

bool json_add_str(yyjson_mut_doc *doc, yyjson_mut_val *obj, const char *static_key, struct str value)
{
    return yyjson_mut_obj_add_strncpy(doc, obj, static_key, value.p ? value.p : "", value.n);
}

yyjson_mut_val *json_err(yyjson_mut_doc *doc, const struct err *err)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_obj_add_strcpy(doc, o, "message", err->message);
    if (err->hint[0])
        yyjson_mut_obj_add_strcpy(doc, o, "hint", err->hint);
    yyjson_mut_obj_add_str(doc, o, "code", rc_word(err->code));
    return o;
}
