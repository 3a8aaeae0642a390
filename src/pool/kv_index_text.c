/* The index as a JSON document: see kv_index.h. Layer pool; pure. Numbers of 64 bits are written as 16
 * hexadecimal digits: readers that take JSON's numbers for doubles keep them whole. */
#include "pool/kv_index_priv.h"

#include "base/hex.h"
#include "base/json.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define VERSION 1u
#define DIGITS  16u

/* ---- writing ---- */

static void put_hex(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *name, uint64_t v)
{
    char text[DIGITS + 1];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)v);
    yyjson_mut_obj_add_strcpy(doc, o, name, text);
}

static void put_row(yyjson_mut_doc *doc, yyjson_mut_val *list, const struct kv_row *r)
{
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, list);
    char blocks[PREFIX_MAX * DIGITS + 1] = "";
    put_hex(doc, o, "key", r->key);
    put_hex(doc, o, "maker", r->maker);
    put_hex(doc, o, "file", r->file);
    put_hex(doc, o, "sum", r->sum);
    json_add_str(doc, o, "model", str_from(r->model));
    yyjson_mut_obj_add_uint(doc, o, "bytes", r->bytes);
    yyjson_mut_obj_add_uint(doc, o, "tokens", r->tokens);
    yyjson_mut_obj_add_uint(doc, o, "used", r->used);
    for (uint32_t i = 0; i < r->prefix.n; i++)
        snprintf(blocks + i * DIGITS, DIGITS + 1, "%016llx", (unsigned long long)r->prefix.hash[i]);
    yyjson_mut_obj_add_strcpy(doc, o, "blocks", blocks);
}

enum rc kv_index_print(const struct kv_index *ix, struct buf *out, struct err *err)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_uint(doc, root, "version", VERSION);
    put_hex(doc, root, "seed", ix->seed);
    put_hex(doc, root, "next_file", ix->next_file);
    yyjson_mut_obj_add_uint(doc, root, "write_bps", ix->speeds.write_bps);
    yyjson_mut_obj_add_uint(doc, root, "read_bps", ix->speeds.read_bps);
    yyjson_mut_val *makers = yyjson_mut_obj_add_arr(doc, root, "makers");
    for (size_t i = 0; i < ix->n_makers; i++) {
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, makers);
        put_hex(doc, o, "maker", ix->makers[i].hash);
        yyjson_mut_obj_add_uint(doc, o, "strikes", ix->makers[i].strikes);
    }
    yyjson_mut_val *rows = yyjson_mut_obj_add_arr(doc, root, "rows");
    for (size_t i = 0; i < ix->n; i++)
        put_row(doc, rows, ix->rows[i]);
    enum rc rc = json_write(doc, false, out, err);
    yyjson_mut_doc_free(doc);
    return rc;
}

/* ---- reading ---- */

static bool hex_at(const char *p, uint64_t *ret)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < DIGITS; i++) {
        int d = hex_digit(p[i]);
        if (d < 0)
            return false;
        v = v << 4 | (unsigned)d;
    }
    *ret = v;
    return true;
}

static bool take_hex(yyjson_val *o, const char *name, uint64_t *ret)
{
    struct str s = json_str(o, name, STR(""));
    return s.n == DIGITS && hex_at(s.p, ret);
}

static bool take_blocks(yyjson_val *o, struct prefix *ret)
{
    struct str s = json_str(o, "blocks", STR(""));
    if (s.n == 0 || s.n % DIGITS != 0 || s.n / DIGITS > PREFIX_MAX)
        return false;
    ret->n = (uint32_t)(s.n / DIGITS);
    for (uint32_t i = 0; i < ret->n; i++)
        if (!hex_at(s.p + i * DIGITS, &ret->hash[i]))
            return false;
    return true;
}

static bool take_row(const struct kv_index *ix, yyjson_val *o, struct kv_row *r)
{
    uint64_t tokens = json_u64(o, "tokens", 0);
    struct str model = json_str(o, "model", STR(""));
    r->bytes = json_u64(o, "bytes", UINT64_MAX);
    r->used = json_u64(o, "used", 0);
    r->tokens = (uint32_t)tokens;
    snprintf(r->model, sizeof r->model, "%.*s", STR_ARG(model));
    return take_hex(o, "key", &r->key) && take_hex(o, "maker", &r->maker) && take_hex(o, "file", &r->file) &&
           take_hex(o, "sum", &r->sum) && take_blocks(o, &r->prefix) && r->file > 0 &&
           r->file < ix->next_file && tokens > 0 && tokens <= UINT32_MAX && r->bytes <= KV_FILE_MAX &&
           !kv_index_of_file(ix, r->file);
}

static bool take_rows(struct kv_index *ix, yyjson_val *list)
{
    size_t i, n;
    yyjson_val *o;
    if (!yyjson_is_arr(list) || yyjson_arr_size(list) > KV_ROWS_MAX)
        return false;
    yyjson_arr_foreach(list, i, n, o)
    {
        struct kv_row *r = mem_new(struct kv_row);
        if (!take_row(ix, o, r)) {
            free(r);
            return false;
        }
        ix->rows[ix->n++] = r;
    }
    return true;
}

static bool take_makers(struct kv_index *ix, yyjson_val *list)
{
    size_t i, n;
    yyjson_val *o;
    if (!yyjson_is_arr(list) || yyjson_arr_size(list) > KV_MAKERS_MAX)
        return false;
    yyjson_arr_foreach(list, i, n, o)
    {
        struct kv_maker *m = &ix->makers[ix->n_makers];
        uint64_t strikes = json_u64(o, "strikes", 0);
        if (!take_hex(o, "maker", &m->hash) || strikes == 0 || strikes > KV_STRIKES)
            return false;
        m->strikes = (uint32_t)strikes;
        ix->n_makers++;
    }
    return true;
}

static bool take_all(struct kv_index *ix, yyjson_val *root)
{
    ix->speeds = (struct kv_speeds){json_u64(root, "write_bps", 0), json_u64(root, "read_bps", 0)};
    return json_u64(root, "version", 0) == VERSION && take_hex(root, "seed", &ix->seed) &&
           take_hex(root, "next_file", &ix->next_file) && ix->next_file > 0 &&
           ix->next_file < UINT64_MAX / 2 && ix->speeds.write_bps < KV_FILE_MAX &&
           ix->speeds.read_bps < KV_FILE_MAX && take_makers(ix, yyjson_obj_get(root, "makers")) &&
           take_rows(ix, yyjson_obj_get(root, "rows"));
}

enum rc kv_index_parse(struct str text, struct kv_index **ret_index, struct err *err)
{
    yyjson_doc *doc = NULL;
    if (text.n > KV_INDEX_BYTES)
        return err_set(err, RC_LIMIT, "the index of kept conversations has more than %u bytes",
                       KV_INDEX_BYTES);
    enum rc rc = json_parse(text, "index of kept conversations", &doc, err);
    if (rc != RC_OK)
        return rc;
    struct kv_index *ix = kv_index_new(0);
    bool ok = take_all(ix, yyjson_doc_get_root(doc));
    yyjson_doc_free(doc);
    if (!ok) {
        kv_index_free(ix);
        return err_set(err, RC_INVALID, "the index of kept conversations is damaged, or of another version");
    }
    *ret_index = ix;
    return RC_OK;
}
