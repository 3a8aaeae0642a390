/* Fuzz target: a request in Ollama's words and the answer to it. The first byte chooses call and step; up to
 * a NUL it is the client's body, behind it what the backend sends. Whatever comes in: a request that is taken
 * becomes JSON, and what the client gets are JSON objects on lines. */
#include "base/mem.h"
#include "dialect/answer.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_object(struct str text)
{
    yyjson_doc *doc = yyjson_read(text.p, text.n, YYJSON_READ_NOFLAG);
    if (!yyjson_is_obj(yyjson_doc_get_root(doc)))
        __builtin_trap();
    yyjson_doc_free(doc);
}

static void check_lines(const struct buf *out)
{
    struct str rest = buf_str(out);
    if (rest.n && rest.p[rest.n - 1] != '\n')
        __builtin_trap();
    while (rest.n)
        check_object(str_cut(&rest, '\n'));
}

static void answer(const struct dialect_call *call, struct dialect_ask *ask, const uint8_t *data, size_t size,
                   size_t step)
{
    struct answer *a = answer_new(call, ask, 4096, 0, 0);
    struct buf out = {0};
    struct str type = ask->reply == DIALECT_EVENTS ? STR("text/event-stream") : STR("application/json");
    if (ask->reply != DIALECT_NOTHING && !answer_head(a, 200, type))
        __builtin_trap();
    for (size_t at = 0; at < size; at += step) {
        size_t n = size - at < step ? size - at : step;
        char *piece = mem_calloc(n, 1); /* of its own, so that a read past it is seen */
        memcpy(piece, data + at, n);
        if (ask->reply != DIALECT_NOTHING)
            (void)answer_feed(a, (struct str){piece, n}, 0, &out);
        free(piece);
    }
    size_t before = out.n;
    enum answer_state state = answer_end(a, 0, &out);
    if (state == ANSWER_MORE || state == ANSWER_AGAIN || (before && !ask->stream))
        __builtin_trap();
    if (state == ANSWER_DONE || ask->stream)
        check_lines(&out);
    struct dialect_error e;
    answer_error(a, &e);
    buf_clear(&out);
    dialect_at(DIALECT_OLLAMA)->put_error(&e, &out);
    check_lines(&out);
    buf_release(&out);
    answer_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct dialect *ollama = dialect_at(DIALECT_OLLAMA);
    const struct dialect_terms terms = {.model = STR("m")};
    struct dialect_ask ask = {.reply = DIALECT_EVENTS};
    struct err err = {0};
    if (!size)
        return 0;
    const uint8_t *nul = memchr(data + 1, 0, size - 1);
    size_t n = nul ? (size_t)(nul - data) - 1 : size - 1, rest = nul ? size - n - 2 : 0;
    size_t step = data[0] >> 2 ? data[0] >> 2 : rest + 1;
    const struct dialect_call *call = &ollama->calls[(data[0] & 3) % ollama->n_calls];
    yyjson_doc *doc = n ? yyjson_read((const char *)data + 1, n, YYJSON_READ_NOFLAG) : NULL;
    if (yyjson_is_obj(yyjson_doc_get_root(doc))) {
        enum rc rc = call->ask(&terms, yyjson_doc_get_root(doc), &ask, &err);
        if (rc != RC_OK && !err.message[0])
            __builtin_trap();
        if (rc == RC_OK && ask.reply != DIALECT_NOTHING)
            check_object(buf_str(&ask.body));
        if (rc == RC_OK)
            answer(call, &ask, nul ? nul + 1 : data + size, rest, step);
        dialect_ask_release(call, &ask);
    }
    yyjson_doc_free(doc);
    return 0;
}
