/* Fuzz target: a streamed completion made into a plain answer of OpenAI's. The first byte chooses form and
 * step; the limit is low, so that it is met. What comes out must be JSON, whatever came in. */
#include "base/mem.h"
#include "dialect/answer.h"

#include <stddef.h>
#include <stdint.h>

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
    const struct dialect *openai = dialect_at(DIALECT_OPENAI);
    struct dialect_ask ask = {.reply = DIALECT_EVENTS};
    struct answer *a = answer_new(&openai->calls[!(data[0] & 1)], &ask, 4096, 0, 0);
    enum answer_state state = ANSWER_MORE, was = ANSWER_MORE;
    struct buf out = {0};
    if (!answer_head(a, 200, STR("text/event-stream")))
        __builtin_trap();
    for (size_t at = 1; at < size; at += step) {
        size_t n = size - at < step ? size - at : step;
        char *piece = mem_calloc(n, 1); /* of its own, so that a read past it is seen */
        for (size_t i = 0; i < n; i++)
            piece[i] = (char)data[at + i];
        state = answer_feed(a, (struct str){piece, n}, 0, &out);
        free(piece);
        if ((was != ANSWER_MORE && state != was) || out.n)
            __builtin_trap();
        was = state;
    }
    enum answer_state end = answer_end(a, 0, &out);
    if (end == ANSWER_MORE || (state != ANSWER_MORE && end != state) || (out.n > 0) != (end == ANSWER_DONE))
        __builtin_trap();
    if (out.n)
        check(&out);
    struct dialect_error e;
    answer_error(a, &e);
    buf_clear(&out);
    openai->put_error(&e, &out);
    check(&out);
    buf_release(&out);
    answer_free(a);
    return 0;
}
