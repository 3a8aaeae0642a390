/* The name of the model in a request: where it stands (a member of a JSON body, a field of a form, a key of
 * the query), and how another one takes its place. Layer proxy; loop thread only. The body is never
 * re-encoded: what is around the name passes untouched. */
#include "proxy/proxy_priv.h"

#include <string.h>

/* ---- finding ---- */

static enum rc unusable_name(struct conn *c, const char *where, struct err *err)
{
    c->model_text[0] = '\0';
    (void)err_set(err, RC_INVALID, "\"model\" in the request's %s is no usable name", where);
    err_hint(err, "GET /v1/models lists the names");
    return RC_INVALID;
}

static enum rc model_of_query(struct conn *c, size_t *ret_n, struct err *err)
{
    size_t times = dispatch_query_count(c, "model");
    if (times > 1)
        return err_set(err, RC_INVALID, "the request's query has \"model\" more than once");
    if (!times)
        return RC_OK;
    if (!http_query(exchange_of(c), "model", c->model_text, sizeof c->model_text))
        return unusable_name(c, "query", err);
    *ret_n = strlen(c->model_text);
    return RC_OK;
}

static enum rc model_of_json(struct conn *c, struct str body, size_t *ret_n, struct err *err)
{
    const struct body_value *v = &c->scan.value[BODY_MODEL];
    enum rc rc = body_model_end(&c->scan, body.p, body.n, err);
    if (rc != RC_OK)
        return rc;
    if (v->n && !body_model_text(v, body.p, c->model_text, sizeof c->model_text, ret_n))
        return unusable_name(c, "body", err);
    return RC_OK;
}

static enum rc model_of_form(struct conn *c, struct str body, size_t *ret_n, struct err *err)
{
    enum rc rc = body_form_end(&c->form, body.p, body.n, err);
    if (rc != RC_OK)
        return rc;
    if (!c->form.model_seen)
        return model_of_query(c, ret_n, err);
    if (!body_form_text(&c->form, body.p, c->model_text, sizeof c->model_text, ret_n))
        return unusable_name(c, "form", err);
    return RC_OK;
}

bool model_find(struct conn *c, struct err *err)
{
    struct str body = {c->in->data + c->in->head_n, c->in->body_n};
    size_t n = 0;
    enum rc rc = c->scan_json   ? model_of_json(c, body, &n, err)
                 : c->scan_form ? model_of_form(c, body, &n, err)
                                : model_of_query(c, &n, err);
    c->model = (struct str){c->model_text, n};
    return rc == RC_OK;
}

/* ---- replacing ---- */

/* The model's name in the place of the one that stands there, or as a member behind the opening brace. */
static struct edit member_edit(const struct conn *c, struct put *name)
{
    const struct body_value *v = &c->scan.value[BODY_MODEL];
    const char *body = c->in->data + c->in->head_n, *from = name->p;
    struct edit e = {.at = v->at, .n = v->n};
    if (v->n) {
        put_json_string(name, relay_model_there(c));
    } else {
        e.at = (size_t)((const char *)memchr(body, '{', c->in->body_n) - body) + 1;
        put_lit(name, "\"model\":");
        put_json_string(name, relay_model_there(c));
        size_t i = e.at;
        while (body[i] == ' ' || body[i] == '\n' || body[i] == '\r' || body[i] == '\t')
            i++;
        if (body[i] != '}')
            put_lit(name, ",");
    }
    e.text = (struct str){from, (size_t)(name->p - from)};
    return e;
}

/* The same in a form: the field's value, or a part in front of the others. */
static struct edit field_edit(const struct conn *c, struct put *text)
{
    const struct body_form *f = &c->form;
    const char *from = text->p;
    struct edit e = {.at = f->model_seen ? f->model_at : f->first_at, .n = f->model_n};
    if (!f->model_seen) {
        put_bytes(text, f->mark + 2, f->mark_n - 2);
        put_lit(text, "\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n");
    }
    for (const char *p = relay_model_there(c); *p;
         p++) /* ids come from file names, which may hold anything */
        put_bytes(text, (unsigned char)*p < 0x20 ? "?" : p, 1);
    if (!f->model_seen)
        put_lit(text, "\r\n");
    e.text = (struct str){from, (size_t)(text->p - from)};
    return e;
}

bool model_edit(const struct conn *c, struct put *text, struct edit *ret)
{
    if (!c->lease.replace_model || !(c->scan_json || c->scan_form))
        return false;
    *ret = c->scan_json ? member_edit(c, text) : field_edit(c, text);
    return true;
}
