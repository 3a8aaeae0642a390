/* Others on the devices, in words and as JSON: see tenant.h and pool.h. */
#include "pool/tenant.h"

#include <stdio.h>

static void list_of(const struct pool *p, const struct gauge *g, const struct tenant_list *host,
                    struct tenant_list *ret)
{
    if (g->host) {
        *ret = *host;
        return;
    }
    ret->n = g->n_others;
    for (size_t k = 0; k < g->n_others; k++) {
        ret->rows[k] = g->others[k];
        if (!p->deps.process_name(g->others[k].pid, ret->rows[k].name)) /* another's namespace, or gone */
            snprintf(ret->rows[k].name, sizeof ret->rows[k].name, "process");
    }
}

/* ": python (123) 1.5 GiB, …", whole ones only. */
static void name_them(const struct tenant_list *others, char *out, size_t cap)
{
    char size[24];
    size_t n = 0;
    out[0] = '\0';
    for (size_t k = 0; k < others->n; k++) {
        const struct proc_use *u = &others->rows[k];
        int w = snprintf(out + n, cap - n, "%s%s (%ld) %s", k ? ", " : ": ", u->name, (long)u->pid,
                         u->bytes ? str_human_bytes(u->bytes, size, sizeof size) : "some");
        if (w < 0 || (size_t)w >= cap - n) {
            out[n] = '\0';
            return;
        }
        n += (size_t)w;
    }
}

void tenant_reason(const struct pool *p, const struct gauge *g, const struct tenant_list *host,
                   struct plan_reason *ret)
{
    char a[24], b[24], c[24], who[120];
    struct tenant_list others;
    list_of(p, g, host, &others);
    name_them(&others, who, sizeof who);
    str_human_bytes(g->foreign_bytes, c, sizeof c);
    if (gauge_short(g) == 0)
        reason_set(ret, "memory_of_others", "%s: %s of %s are free; others have %s%s", g->name,
                   str_human_bytes(g->free_bytes, a, sizeof a), str_human_bytes(g->total_bytes, b, sizeof b),
                   c, who);
    else
        reason_set(ret, "memory_taken", "%s: %s short of the %s kept free; others have %s%s", g->name,
                   str_human_bytes(gauge_short(g), a, sizeof a),
                   str_human_bytes(g->margin_bytes, b, sizeof b), c, who);
}

yyjson_mut_val *tenant_json(const struct pool *p, const struct gauge *g, const struct tenant_list *host,
                            yyjson_mut_doc *doc)
{
    struct tenant_list others;
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    json_add_str(doc, o, "name", str_from(g->name));
    yyjson_mut_obj_add_uint(doc, o, "total_bytes", g->total_bytes);
    yyjson_mut_obj_add_uint(doc, o, "free_bytes", g->free_bytes);
    yyjson_mut_obj_add_uint(doc, o, "kept_free_bytes", g->margin_bytes);
    yyjson_mut_obj_add_uint(doc, o, "own_bytes", g->own_bytes);
    yyjson_mut_obj_add_uint(doc, o, "foreign_bytes", g->foreign_bytes);
    yyjson_mut_obj_add_uint(doc, o, "short_bytes", gauge_short(g));
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(doc, o, "others");
    list_of(p, g, host, &others);
    for (size_t k = 0; k < others.n; k++) {
        yyjson_mut_val *u = yyjson_mut_arr_add_obj(doc, list);
        yyjson_mut_obj_add_int(doc, u, "pid", others.rows[k].pid);
        json_add_str(doc, u, "name", str_from(others.rows[k].name));
        if (others.rows[k].bytes)
            yyjson_mut_obj_add_uint(doc, u, "bytes", others.rows[k].bytes);
        else
            yyjson_mut_obj_add_null(doc, u, "bytes");
    }
    return o;
}
