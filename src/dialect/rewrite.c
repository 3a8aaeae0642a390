/* Rewriting requests: see rewrite.h. */
#include "dialect/rewrite.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum rc rewrite_init(struct rewrite *w, const struct dialect_terms *terms, yyjson_val *body,
                     struct dialect_ask *ask, struct err *err)
{
    *w = (struct rewrite){.terms = terms, .body = body, .ask = ask, .err = err};
    w->doc = yyjson_mut_doc_new(NULL);
    w->root = yyjson_mut_obj(w->doc);
    yyjson_mut_doc_set_root(w->doc, w->root);
    if (w->root)
        return RC_OK;
    yyjson_mut_doc_free(w->doc);
    return err_set(err, RC_NOMEM, "there is no memory for the request's translation");
}

bool rewrite_bad(struct rewrite *w, const char *fmt, ...)
{
    char text[384];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    (void)err_set(w->err, RC_INVALID, "%s: %s", w->place, text);
    return false;
}

void rewrite_at(struct rewrite *w, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(w->place, sizeof w->place, fmt, ap);
    va_end(ap);
}

/* ---- members ---- */

static bool is_known(const struct rewrite_member *table, size_t n, struct str name)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq_c(name, table[i].name))
            return true;
    return false;
}

static void copy_rest(struct rewrite *w, const struct rewrite_member *table, size_t n)
{
    size_t i, count;
    yyjson_val *key, *v;
    yyjson_obj_foreach(w->body, i, count, key, v)
    {
        if (!is_known(table, n, rewrite_str(key)))
            yyjson_mut_obj_add(w->root, yyjson_mut_strn(w->doc, yyjson_get_str(key), yyjson_get_len(key)),
                               yyjson_val_mut_copy(w->doc, v));
    }
}

bool rewrite_known(struct rewrite *w, const struct rewrite_member *table, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        yyjson_val *v = yyjson_obj_get(w->body, table[i].name);
        rewrite_at(w, "%.*s", STR_ARG(str_from(table[i].name)));
        if (!v || yyjson_is_null(v)) {
            if (table[i].required)
                return rewrite_bad(w, "this member is required");
        } else if (table[i].put && !table[i].put(w, table[i].name, v)) {
            return false;
        }
    }
    return true;
}

bool rewrite_members(struct rewrite *w, const struct rewrite_member *table, size_t n)
{
    if (!rewrite_known(w, table, n))
        return false;
    copy_rest(w, table, n);
    return true;
}

enum rc rewrite_end(struct rewrite *w, bool ok)
{
    enum rc rc = RC_OK;
    if (ok)
        rc = json_write(w->doc, false, &w->ask->body, w->err);
    else
        rc = w->err ? w->err->code : RC_INVALID;
    yyjson_mut_doc_free(w->doc);
    w->doc = NULL;
    return rc;
}

bool rewrite_number(struct rewrite *w, const char *name, yyjson_val *v)
{
    if (!yyjson_is_num(v))
        return rewrite_bad(w, "a number is expected");
    rewrite_put(w, w->root, name, v);
    return true;
}

bool rewrite_boolean(struct rewrite *w, const char *name, yyjson_val *v)
{
    if (!yyjson_is_bool(v))
        return rewrite_bad(w, "true or false is expected");
    rewrite_put(w, w->root, name, v);
    return true;
}

bool rewrite_stream(struct rewrite *w, const char *name, yyjson_val *v)
{
    (void)name;
    if (!yyjson_is_bool(v))
        return rewrite_bad(w, "true or false is expected");
    w->ask->stream = yyjson_get_bool(v);
    return true;
}

/* ---- values ---- */

struct str rewrite_str(yyjson_val *v)
{
    return yyjson_is_str(v) ? (struct str){yyjson_get_str(v), yyjson_get_len(v)} : (struct str){"", 0};
}

void rewrite_put(struct rewrite *w, yyjson_mut_val *object, const char *static_name, yyjson_val *v)
{
    yyjson_mut_obj_add_val(w->doc, object, static_name, yyjson_val_mut_copy(w->doc, v));
}

void rewrite_put_str(struct rewrite *w, yyjson_mut_val *object, const char *static_name, struct str text)
{
    yyjson_mut_obj_add_strncpy(w->doc, object, static_name, text.n ? text.p : "", text.n);
}

yyjson_mut_val *rewrite_message(struct rewrite *w, const char *static_role)
{
    yyjson_mut_val *m = yyjson_mut_arr_add_obj(w->doc, w->messages);
    yyjson_mut_obj_add_str(w->doc, m, "role", static_role);
    return m;
}

void rewrite_text_part(struct rewrite *w, yyjson_mut_val *parts, struct str text)
{
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(w->doc, parts);
    yyjson_mut_obj_add_str(w->doc, o, "type", "text");
    rewrite_put_str(w, o, "text", text);
}

void rewrite_image_part(struct rewrite *w, yyjson_mut_val *parts, struct str url)
{
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(w->doc, parts);
    yyjson_mut_obj_add_str(w->doc, o, "type", "image_url");
    yyjson_mut_val *image = yyjson_mut_obj_add_obj(w->doc, o, "image_url");
    rewrite_put_str(w, image, "url", url);
}

void rewrite_tool(struct rewrite *w, yyjson_mut_val *tools, struct str name, yyjson_val *description,
                  yyjson_val *parameters)
{
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(w->doc, tools);
    yyjson_mut_obj_add_str(w->doc, o, "type", "function");
    yyjson_mut_val *f = yyjson_mut_obj_add_obj(w->doc, o, "function");
    rewrite_put_str(w, f, "name", name);
    if (yyjson_is_str(description))
        rewrite_put(w, f, "description", description);
    if (yyjson_is_obj(parameters))
        rewrite_put(w, f, "parameters", parameters);
}

void rewrite_tool_call(struct rewrite *w, yyjson_mut_val *calls, struct str id, struct str name,
                       struct str arguments)
{
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(w->doc, calls);
    rewrite_put_str(w, o, "id", id);
    yyjson_mut_obj_add_str(w->doc, o, "type", "function");
    yyjson_mut_val *f = yyjson_mut_obj_add_obj(w->doc, o, "function");
    rewrite_put_str(w, f, "name", name);
    rewrite_put_str(w, f, "arguments", arguments);
}
