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

uint64_t json_u64(yyjson_val *obj, const char *key, uint64_t fallback)
{
    yyjson_val *v = yyjson_obj_get(obj, key);
    return yyjson_is_uint(v) ? yyjson_get_uint(v) : fallback;
}

double json_double(yyjson_val *obj, const char *key, double fallback)
{
    yyjson_val *v = yyjson_obj_get(obj, key);
    return yyjson_is_num(v) ? yyjson_get_num(v) : fallback;
}

bool json_bool(yyjson_val *obj, const char *key, bool fallback)
{
    yyjson_val *v = yyjson_obj_get(obj, key);
    return yyjson_is_bool(v) ? yyjson_get_bool(v) : fallback;
}

enum rc json_write(const yyjson_mut_doc *doc, bool pretty, struct buf *out, struct err *err)
{
    size_t n;
    yyjson_write_err e;
    char *text = yyjson_mut_write_opts(doc, pretty ? YYJSON_WRITE_PRETTY_TWO_SPACES : YYJSON_WRITE_NOFLAG,
                                       NULL, &n, &e);
    if (!text)
        return err_set(err, RC_INTERNAL, "cannot write JSON: %s", e.msg);
    buf_append(out, text, n);
    if (pretty)
        buf_append(out, "\n", 1);
    free(text);
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
