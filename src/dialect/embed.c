/* Embeddings taken apart and put together: see embed.h. */
#include "dialect/embed.h"

#include "base/mem.h"

#include <string.h>

#define INPUTS_MAX ((size_t)1 << 20)

static struct str text_of(yyjson_val *v)
{
    return (struct str){yyjson_get_str(v), yyjson_get_len(v)};
}

static bool put_value(struct buf *out, yyjson_val *v)
{
    size_t n = 0;
    char *text = yyjson_val_write(v, YYJSON_WRITE_NOFLAG, &n);
    bool ok = text && buf_append(out, text, n);
    free(text);
    return ok;
}

/* ---- the request ---- */

/* A list of tokens is one input. */
static bool is_list_of_inputs(yyjson_val *input)
{
    size_t i, n;
    yyjson_val *v;
    if (!yyjson_is_arr(input))
        return false;
    yyjson_arr_foreach(input, i, n, v)
    {
        if (yyjson_is_num(v))
            return false;
    }
    return true;
}

static bool add_input(struct embed_ask *a, yyjson_val *v)
{
    size_t at = a->text.n;
    if (!put_value(&a->text, v))
        return false;
    a->inputs[a->n++] = (struct embed_span){at, a->text.n - at};
    return true;
}

static bool take_inputs(struct embed_ask *a, yyjson_val *input)
{
    size_t i, n;
    yyjson_val *v;
    bool list = is_list_of_inputs(input);
    size_t count = list ? yyjson_arr_size(input) : 1;
    if (!count || count > INPUTS_MAX || !(a->inputs = mem_try_array(count, sizeof *a->inputs)))
        return false;
    if (!list)
        return add_input(a, input);
    yyjson_arr_foreach(input, i, n, v)
    {
        if (!add_input(a, v))
            return false;
    }
    return true;
}

static bool take_rest(struct embed_ask *a, yyjson_val *body)
{
    size_t i, n;
    yyjson_val *key, *v;
    yyjson_obj_foreach(body, i, n, key, v)
    {
        struct str name = text_of(key);
        if (str_eq(name, STR("model")) || str_eq(name, STR("input")) || str_eq(name, STR("stream")))
            continue;
        if (str_eq(name, STR("dimensions")))
            a->dimensions = yyjson_is_uint(v) ? yyjson_get_uint(v) : 0;
        if (!buf_put_json(&a->rest, name) || !buf_puts(&a->rest, ":") || !put_value(&a->rest, v) ||
            !buf_puts(&a->rest, ","))
            return false;
    }
    return true;
}

struct embed_ask *embed_ask_new(yyjson_val *input, yyjson_val *body)
{
    if (!yyjson_is_str(input) && !yyjson_is_arr(input))
        return NULL;
    struct embed_ask *a = mem_new(struct embed_ask);
    if (take_inputs(a, input) && take_rest(a, body))
        return a;
    embed_ask_free(a);
    return NULL;
}

void embed_ask_free(struct embed_ask *a)
{
    if (!a)
        return;
    buf_release(&a->text);
    buf_release(&a->rest);
    free(a->inputs);
    free(a);
}

void embed_put_inputs(const struct embed_ask *a, size_t from, size_t n, struct buf *out)
{
    for (size_t i = from; i < from + n; i++) {
        if (i > from)
            (void)buf_puts(out, ",");
        (void)buf_append(out, a->text.data + a->inputs[i].at, a->inputs[i].n);
    }
}

/* ---- the answer ---- */

/* How many numbers a vector has: a list of them, or single floats in base64; 0 = it is none. */
static size_t size_of_vector(yyjson_val *v)
{
    if (yyjson_is_arr(v))
        return yyjson_arr_size(v);
    struct str s = text_of(v);
    if (!yyjson_is_str(v) || s.n % 4)
        return 0;
    size_t padding = str_ends(s, "==") ? 2 : str_ends(s, "=");
    size_t bytes = s.n / 4 * 3;
    return bytes > padding && (bytes - padding) % sizeof(float) == 0 ? (bytes - padding) / sizeof(float) : 0;
}

bool embed_read(yyjson_val *root, size_t n, char **ret_items, size_t *ret_dimensions)
{
    yyjson_val *data = yyjson_obj_get(root, "data"), *v;
    size_t i, count, dimensions = 0;
    bool ok = yyjson_is_arr(data) && yyjson_arr_size(data) == n;
    memset(ret_items, 0, n * sizeof *ret_items);
    yyjson_arr_foreach(data, i, count, v)
    {
        yyjson_val *vector = yyjson_obj_get(v, "embedding");
        uint64_t index = json_u64(v, "index", i);
        size_t size = size_of_vector(vector);
        ok = ok && size && (!dimensions || size == dimensions) && index < n && !ret_items[index];
        if (!ok)
            break;
        dimensions = size;
        ret_items[index] = yyjson_val_write(vector, YYJSON_WRITE_NOFLAG, NULL);
        ok = ret_items[index] != NULL;
    }
    for (i = 0; !ok && i < n; i++) {
        free(ret_items[i]);
        ret_items[i] = NULL;
    }
    if (ok)
        *ret_dimensions = dimensions;
    return ok;
}

void embed_put_answer(const struct embed_sum *sum, char *const *items, size_t n, struct buf *out)
{
    (void)buf_puts(out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < n; i++) {
        (void)buf_printf(out, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":", i ? "," : "", i);
        (void)buf_puts(out, items[i]);
        (void)buf_puts(out, "}");
    }
    (void)buf_puts(out, "],\"model\":");
    (void)buf_put_json(out, sum->model);
    (void)buf_printf(out, ",\"dimensions\":%zu,\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}}",
                     sum->dimensions, (unsigned long long)sum->tokens, (unsigned long long)sum->tokens);
}
