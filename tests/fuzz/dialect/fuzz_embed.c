/* Fuzz target: a request for embeddings taken apart, up to a zero byte, and an answer to it behind that.
 * Whatever came in, what goes out is JSON, with as many inputs and vectors as there were. */
#include "base/mem.h"
#include "dialect/embed.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static yyjson_doc *parse(const char *text, size_t n)
{
    return n ? yyjson_read(text, n, YYJSON_READ_NOFLAG) : NULL;
}

static void expect(const struct buf *b, const char *member, size_t n)
{
    yyjson_doc *doc = parse(b->data, b->n);
    if (yyjson_arr_size(yyjson_obj_get(yyjson_doc_get_root(doc), member)) != n)
        __builtin_trap();
    yyjson_doc_free(doc);
}

static void put_together(const struct embed_ask *a, const char *text, size_t size)
{
    yyjson_doc *doc = parse(text, size);
    char **items = mem_calloc(a->n, sizeof *items);
    struct embed_sum sum = {.model = STR("m")};
    struct buf out = {0};
    if (embed_read(yyjson_doc_get_root(doc), a->n, items, &sum.dimensions)) {
        embed_put_answer(&sum, items, a->n, &out);
        expect(&out, "data", a->n);
    }
    for (size_t i = 0; i < a->n; i++)
        free(items[i]);
    free(items);
    buf_release(&out);
    yyjson_doc_free(doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data, *nul = size ? memchr(text, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - text) : size;
    yyjson_doc *doc = parse(text, n);
    yyjson_val *root = yyjson_doc_get_root(doc);
    struct embed_ask *a = embed_ask_new(yyjson_obj_get(root, "input"), root);
    yyjson_doc_free(doc);
    if (!a)
        return 0;
    struct buf out = {0};
    buf_puts(&out, "{");
    buf_put_str(&out, buf_str(&a->rest));
    buf_puts(&out, "\"input\":[");
    embed_put_inputs(a, 0, a->n, &out);
    buf_puts(&out, "]}");
    if (!out.failed)
        expect(&out, "input", a->n);
    if (nul)
        put_together(a, nul + 1, size - n - 1);
    buf_release(&out);
    embed_ask_free(a);
    return 0;
}
