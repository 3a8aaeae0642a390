/* Fuzz target: a streamed completion made into a plain answer. The first byte chooses form and step; the
 * limit is low, so that it is met. What comes out must be JSON, whatever came in. */
#include "base/mem.h"
#include "proxy/collect.h"

#include <stddef.h>
#include <stdint.h>
#include <yyjson.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct buf *b)
{
    yyjson_doc *doc = yyjson_read(b->data, b->n, YYJSON_READ_NOFLAG);
    if (!yyjson_is_obj(yyjson_doc_get_root(doc)))
        __builtin_trap();
    yyjson_doc_free(doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    size_t step = data[0] >> 1 ? data[0] >> 1 : size;
    struct collect *c = collect_new(data[0] & 1 ? COLLECT_CHAT : COLLECT_TEXT, 4096);
    enum collect_state state = COLLECT_MORE, was = COLLECT_MORE;
    for (size_t at = 1; at < size; at += step) {
        size_t n = size - at < step ? size - at : step;
        char *piece = mem_calloc(n, 1); /* of its own, so that a read past it is seen */
        for (size_t i = 0; i < n; i++)
            piece[i] = (char)data[at + i];
        state = collect_feed(c, (struct str){piece, n});
        free(piece);
        if (was != COLLECT_MORE && state != was)
            __builtin_trap();
        was = state;
    }
    struct buf out = {0};
    if (collect_answer(c, &out)) {
        if (state != COLLECT_DONE)
            __builtin_trap();
        check(&out);
    }
    buf_clear(&out);
    int status = collect_error(c, &out);
    if (status < 400 || status > 599)
        __builtin_trap();
    check(&out);
    buf_release(&out);
    collect_free(c);
    return 0;
}
