/* Fuzz target: a client's request through every translator, and a backend's answer back. The first byte
 * chooses the call, the second what the backend speaks and the step; a NUL parts the request from the answer.
 * With BACKEND the backend speaks that dialect only, and OpenAI's own chat is translated, too.
 * What comes out must be JSON where it is a document, and on every line of NDJSON, and must not depend on how
 * the answer was cut into pieces. */
#include "base/mem.h"
#include "dialect/answer.h"
#include "dialect/backend.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifdef BACKEND
static const unsigned backend = 1u << BACKEND;
#else
static const unsigned backend;
#endif

static const struct dialect_call *pick(unsigned n)
{
    const struct dialect_call *with[32];
    unsigned count = 0;
    for (unsigned id = 0; id < DIALECTS; id++) {
        const struct dialect *d = dialect_at((enum dialect_id)id);
        for (size_t i = 0; i < d->n_calls && count < 32; i++)
            if (d->calls[i].ask)
                with[count++] = &d->calls[i];
            else if (backend && d->calls[i].remade)
                with[count++] = d->calls[i].remade;
    }
    return with[n % count];
}

static void check_object(struct str text)
{
    yyjson_doc *doc = yyjson_read(text.p ? text.p : "", text.n, YYJSON_READ_NOFLAG);
    if (!yyjson_is_obj(yyjson_doc_get_root(doc)))
        __builtin_trap();
    yyjson_doc_free(doc);
}

static void check_lines(struct str text)
{
    if (text.n && text.p[text.n - 1] != '\n')
        __builtin_trap();
    while (text.n)
        check_object(str_cut(&text, '\n'));
}

static bool ask(const struct dialect_call *call, struct str body, unsigned speaks, struct dialect_ask *ret)
{
    struct err err = {.message = ""};
    yyjson_doc *doc = body.n ? yyjson_read(body.p, body.n, YYJSON_READ_NOFLAG) : NULL;
    yyjson_val *root = yyjson_doc_get_root(doc);
    const struct dialect_terms terms = {.speaks = speaks, .model = STR("m"), .request_id = STR("r")};
    *ret = (struct dialect_ask){.reply = DIALECT_EVENTS};
    bool ok = yyjson_is_obj(root) && call->ask(&terms, root, ret, &err) == RC_OK &&
              dialect_ask_as(ret, speaks, &err) == RC_OK;
    if (yyjson_is_obj(root) && !ok && !err.message[0])
        __builtin_trap(); /* a refusal says why */
    yyjson_doc_free(doc);
    if (ok && ret->embed) { /* as one request */
        buf_printf(&ret->body, "{%.*s\"input\":[", (int)ret->embed->rest.n,
                   ret->embed->rest.n ? ret->embed->rest.data : "");
        embed_put_inputs(ret->embed, 0, ret->embed->n, &ret->body);
        buf_puts(&ret->body, "]}");
    }
    if (ok && ret->reply != DIALECT_NOTHING && !ret->as_is)
        check_object(buf_str(&ret->body));
    return ok;
}

static enum answer_state answer(const struct dialect_call *call, struct dialect_ask *a, struct str in,
                                size_t step, struct buf *out)
{
    struct answer *w = answer_new(call, a, 65536, 0, 0);
    if (a->reply != DIALECT_NOTHING)
        (void)answer_head(w, 200,
                          a->reply == DIALECT_EVENTS ? STR("text/event-stream") : STR("application/json"));
    for (size_t at = 0; at < in.n; at += step) {
        size_t n = in.n - at < step ? in.n - at : step;
        char *piece = mem_calloc(n, 1); /* of its own, so that a read past it is seen */
        memcpy(piece, in.p + at, n);
        (void)answer_feed(w, (struct str){piece, n}, 0, out);
        free(piece);
    }
    enum answer_state state = answer_end(w, 0, out);
    if (state == ANSWER_ERROR && a->stream && call->broken) {
        struct dialect_error e;
        answer_error(w, &e);
        call->broken(a->state, &e, out);
    }
    answer_free(w);
    return state;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const struct dialect_call *call = pick(data[0]);
    unsigned speaks = backend ? backend : DIALECT_BIT(OPENAI) | (data[1] & 1 ? DIALECT_BIT(LLAMACPP) : 0);
    size_t steps[2] = {data[1] >> 1 ? data[1] >> 1 : 1, size};
    const char *text = (const char *)data + 2, *nul = memchr(text, 0, size - 2);
    size_t body_n = nul ? (size_t)(nul - text) : size - 2;
    struct str in = nul ? (struct str){nul + 1, size - 3 - body_n} : (struct str){"", 0};
    struct buf out[2] = {{0}, {0}};
    enum answer_state states[2] = {ANSWER_MORE, ANSWER_MORE};
    for (int i = 0; i < 2; i++) {
        struct dialect_ask a;
        if (ask(call, (struct str){text, body_n}, speaks, &a)) {
            states[i] = answer(call, &a, in, steps[i], &out[i]);
            if (states[i] == ANSWER_DONE && !a.stream)
                check_object(buf_str(&out[i]));
            if (a.stream && strstr(call->stream_type, "ndjson"))
                check_lines(buf_str(&out[i]));
        }
        dialect_ask_release(call, &a);
    }
    if (states[0] != states[1] || !str_eq(buf_str(&out[0]), buf_str(&out[1])))
        __builtin_trap();
    buf_release(&out[0]);
    buf_release(&out[1]);
    return 0;
}
