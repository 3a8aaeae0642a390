/* Answers made of what a backend sends: see answer.h. */
#include "dialect/answer.h"

#include "base/mem.h"
#include "base/sse.h"
#include "dialect/backend.h"

#define ERROR_BYTES  65536u /* of an error's body that are looked at */
#define ERROR_SHOWN  300u   /* of one that is no JSON */
#define ERROR_STATUS 500

enum reading { READ_EVENTS, READ_DOCUMENT, READ_ERROR };

struct answer {
    const struct dialect_call *call;
    struct dialect_ask *ask;
    enum answer_state state;
    enum reading reading;
    int status; /* of the error */
    bool begun;
    const char *why;
    struct sse sse;
    struct completion sum;
    struct buf document, error, message;
    void *via;         /* the reading of ask->via; NULL = the events are OpenAI's */
    struct buf events; /* of one event of a backend with words of its own */
    struct buf *out;   /* during a feed */
};

struct answer *answer_new(const struct dialect_call *call, struct dialect_ask *ask, size_t max,
                          int64_t begun_us, int64_t waited_us)
{
    struct answer *a = mem_new(struct answer);
    a->call = call;
    a->ask = ask;
    a->why = "ended its answer before it was whole";
    completion_init(&a->sum, !ask->stream || call->keep_text, max);
    a->sum.begun_us = begun_us;
    a->sum.waited_us = waited_us;
    a->document.max = max;
    a->via = ask->via ? ask->via->open() : NULL;
    return a;
}

/* ---- ends ---- */

static void broken(struct answer *a, const char *why)
{
    a->why = why;
    a->state = ANSWER_BROKEN;
}

static void whole(struct answer *a)
{
    a->state = ANSWER_DONE;
    if (a->ask->stream)
        a->call->end(a->ask->state, &a->sum, a->out);
}

static void keep_error(struct answer *a, yyjson_val *error)
{
    char *text = yyjson_val_write(error, YYJSON_WRITE_NOFLAG, NULL);
    (void)buf_puts(&a->error, text ? text : "null");
    free(text);
    struct str message = yyjson_is_str(error) ? (struct str){yyjson_get_str(error), yyjson_get_len(error)}
                                              : json_str(error, "message", (struct str){"", 0});
    (void)buf_put_str(&a->message, message);
}

/* ---- events ---- */

static void take_delta(struct answer *a, const struct chunk *in)
{
    if (!completion_take(&a->sum, in)) {
        broken(a, "sent an event that is none of an answer");
        return;
    }
    a->begun = a->begun || !in->progress;
    if (a->sum.large)
        a->state = ANSWER_LARGE;
    if (a->sum.large || !a->ask->stream)
        return;
    size_t i, n;
    yyjson_val *v;
    yyjson_arr_foreach(in->choices, i, n, v)
    {
        struct chunk_choice choice;
        bool taken = chunk_choice_read(v, &choice) && choice.index == 0 &&
                     a->call->delta(a->ask->state, &a->sum, &choice, a->out);
        if (!taken)
            broken(a, "sent an event that is none of an answer");
    }
}

static bool take_chunk(struct answer *a, struct str data)
{
    struct chunk in;
    chunk_read(data, &in);
    switch (in.kind) {
    case CHUNK_DONE:
        if (completion_whole(&a->sum))
            whole(a);
        else
            a->state = ANSWER_BROKEN;
        break;
    case CHUNK_ERROR: {
        uint64_t status = yyjson_is_obj(in.error) ? json_u64(in.error, "code", ERROR_STATUS) : ERROR_STATUS;
        a->status = status >= 400 && status < 600 ? (int)status : ERROR_STATUS;
        keep_error(a, in.error);
        a->state = ANSWER_ERROR;
        break;
    }
    case CHUNK_DELTA: take_delta(a, &in); break;
    case CHUNK_BAD: broken(a, "sent an event that is none of an answer"); break;
    }
    chunk_release(&in);
    return a->state == ANSWER_MORE;
}

static bool take_event(void *arg, struct str name, struct str data)
{
    (void)name;
    struct answer *a = arg;
    if (!a->via)
        return take_chunk(a, data);
    buf_clear(&a->events);
    if (!a->ask->via->event(a->via, data, &a->events))
        broken(a, "sent an event that is none of an answer");
    struct str rest = buf_str(&a->events);
    while (rest.n && a->state == ANSWER_MORE)
        (void)take_chunk(a, str_cut(&rest, '\n'));
    if (a->events.failed)
        a->state = ANSWER_LARGE;
    return a->state == ANSWER_MORE;
}

/* ---- documents ---- */

/* An error that is no JSON may be anything: a page, a line of a proxy, bytes. */
static void show_text(struct buf *out, struct str text)
{
    for (size_t i = 0; i < text.n && i < ERROR_SHOWN; i++)
        (void)buf_append(out, text.p[i] >= 0x20 && text.p[i] < 0x7f ? &text.p[i] : " ", 1);
}

static void end_error(struct answer *a)
{
    struct str text = buf_str(&a->document);
    yyjson_doc *doc = text.n ? yyjson_read(text.p, text.n, YYJSON_READ_NOFLAG) : NULL;
    yyjson_val *root = yyjson_doc_get_root(doc), *error = yyjson_obj_get(root, "error");
    if (yyjson_is_obj(root))
        keep_error(a, error ? error : root);
    else
        show_text(&a->message, text);
    yyjson_doc_free(doc);
    a->state = ANSWER_ERROR;
}

/* Its numbers stay the text that they are: vectors have hundreds of thousands of them, and few are ever
 * looked at (json_u64 and json_double understand both). */
static void end_document(struct answer *a)
{
    struct str text = buf_str(&a->document);
    yyjson_doc *doc = text.n ? yyjson_read(text.p, text.n, YYJSON_READ_NUMBER_AS_RAW) : NULL;
    yyjson_val *root = yyjson_doc_get_root(doc);
    struct dialect_ask next = {.state = a->ask->state};
    enum dialect_step step = DIALECT_BROKEN;
    if (yyjson_is_obj(root)) {
        completion_take_usage(&a->sum, yyjson_obj_get(root, "usage"), NULL);
        step = a->call->document(a->ask->state, &a->sum, root, &next, a->out);
    }
    switch (step) {
    case DIALECT_DONE: a->state = ANSWER_DONE; break;
    case DIALECT_BROKEN: broken(a, "sent a document that is none of the kind asked for"); break;
    case DIALECT_AGAIN:
        a->state = ANSWER_MORE;
        a->ask->path = next.path;
        buf_release(&a->ask->body);
        a->ask->body = next.body;
        next.body = (struct buf){0};
        break;
    }
    buf_release(&next.body);
    buf_clear(&a->document);
    yyjson_doc_free(doc);
}

/* ---- the walk ---- */

static bool is_events(struct str content_type)
{
    return content_type.n >= 17 && str_ieq((struct str){content_type.p, 17}, STR("text/event-stream"));
}

bool answer_head(struct answer *a, int status, struct str content_type)
{
    bool events = status == 200 && is_events(content_type);
    a->status = status;
    if (!a->call->ask && !events && !a->ask->stream)
        return false;
    if (status != 200 && status < 400) {
        broken(a, "answered with a status that is neither success nor error");
    } else if (status != 200) {
        a->reading = READ_ERROR;
        a->document.max = 0;
    } else if (a->ask->reply == DIALECT_EVENTS && !events) {
        broken(a, "answered with something else than a stream of events");
    } else {
        a->reading = events ? READ_EVENTS : READ_DOCUMENT;
    }
    return true;
}

enum answer_state answer_feed(struct answer *a, struct str bytes, int64_t now_us, struct buf *out)
{
    struct err err;
    if (a->state != ANSWER_MORE)
        return a->state;
    a->out = out;
    a->sum.now_us = now_us;
    switch (a->reading) {
    case READ_EVENTS:
        if (sse_feed(&a->sse, bytes, take_event, a, &err) == RC_LIMIT)
            a->state = ANSWER_LARGE;
        break;
    case READ_DOCUMENT:
        if (!buf_append(&a->document, bytes.p, bytes.n))
            a->state = ANSWER_LARGE;
        break;
    case READ_ERROR: {
        size_t room = ERROR_BYTES - a->document.n;
        (void)buf_append(&a->document, bytes.p, bytes.n < room ? bytes.n : room);
        break;
    }
    }
    if (out->failed)
        a->state = ANSWER_LARGE;
    return a->state;
}

enum answer_state answer_end(struct answer *a, int64_t now_us, struct buf *out)
{
    a->out = out;
    a->sum.now_us = now_us;
    bool again = false;
    if (a->state == ANSWER_MORE && a->ask->reply == DIALECT_NOTHING) {
        whole(a);
    } else if (a->state == ANSWER_MORE) {
        switch (a->reading) {
        case READ_EVENTS: a->state = ANSWER_BROKEN; break;
        case READ_DOCUMENT:
            end_document(a);
            again = a->state == ANSWER_MORE;
            break;
        case READ_ERROR: end_error(a); break;
        }
    }
    if (a->state == ANSWER_DONE && !a->ask->stream && a->call->plain && a->ask->reply != DIALECT_DOCUMENT)
        a->call->plain(a->ask->state, &a->sum, out);
    if (out->failed)
        a->state = ANSWER_LARGE;
    return again ? ANSWER_AGAIN : a->state;
}

bool answer_has_begun(const struct answer *a)
{
    return a->begun || a->document.n > 0;
}

const char *answer_why(const struct answer *a)
{
    return a->why;
}

void answer_error(const struct answer *a, struct dialect_error *ret)
{
    *ret = (struct dialect_error){.status = a->status,
                                  .code = RC_BACKEND,
                                  .message = buf_str(&a->message),
                                  .given = buf_str(&a->error)};
    if (!ret->message.n)
        ret->message = STR("the backend reported an error and gave no reason");
}

void answer_put_usage(const struct answer *a, struct buf *out)
{
    (void)buf_puts(out, "{\"usage\":");
    (void)buf_put_str(out, a->sum.usage.n ? buf_str(&a->sum.usage) : STR("null"));
    (void)buf_puts(out, ",\"timings\":");
    (void)buf_put_str(out, a->sum.timings.n ? buf_str(&a->sum.timings) : STR("null"));
    (void)buf_puts(out, "}");
}

size_t answer_bytes(const struct answer *a)
{
    return sizeof *a + completion_bytes(&a->sum) + a->sse.line.cap + a->sse.data.cap + a->document.cap +
           a->error.cap + a->message.cap + a->events.cap + a->ask->body.cap;
}

void answer_free(struct answer *a)
{
    if (!a)
        return;
    completion_release(&a->sum);
    sse_release(&a->sse);
    buf_release(&a->document);
    buf_release(&a->error);
    buf_release(&a->message);
    buf_release(&a->events);
    if (a->via)
        a->ask->via->close(a->via);
    free(a);
}
