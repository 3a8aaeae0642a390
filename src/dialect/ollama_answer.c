/* Answers in Ollama's form: objects on lines, the last one with done, why and the counters; or one object.
 * Layer dialect; pure.
 *
 * Times are in nanoseconds: total_duration is our clock from the request to now, load_duration the wait for
 * the model, the others are the runtime's own; where it tells none, all of the rest is the answer's. A tool's
 * call is told when it is whole, in an object of its own before the last. */
#include "base/clock.h"
#include "base/mem.h"
#include "dialect/ollama.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define NS_PER_US 1000

static uint64_t ns(int64_t us)
{
    return us > 0 && us < INT64_MAX / NS_PER_US ? (uint64_t)us * NS_PER_US : 0;
}

static void put_text(struct buf *out, const char *before, struct str text)
{
    (void)buf_puts(out, before);
    (void)buf_put_json(out, text);
}

/* As it was asked for; the backend's own name where the request had none. */
static struct str name_of(const struct ollama *o, const struct completion *sum)
{
    return *o->model ? str_from(o->model) : buf_str(&sum->model);
}

/* {"model":…,"created_at":… */
static void put_start(const struct ollama *o, const struct completion *sum, struct buf *out)
{
    char at[40];
    put_text(out, "{\"model\":", name_of(o, sum));
    (void)buf_printf(out, ",\"created_at\":\"%s\"", clock_rfc3339(sum->now_us / 1000, at, sizeof at));
}

static void put_counters(const struct completion *sum, struct buf *out)
{
    const struct completion_counts *n = &sum->counts;
    int64_t total = sum->now_us - sum->begun_us, spent = (int64_t)(n->prompt_us + n->decode_us);
    int64_t decode = spent > 0 ? (int64_t)n->decode_us : total - sum->waited_us;
    (void)buf_printf(out,
                     ",\"total_duration\":%" PRIu64 ",\"load_duration\":%" PRIu64
                     ",\"prompt_eval_count\":%" PRIu64 ",\"prompt_eval_duration\":%" PRIu64
                     ",\"eval_count\":%" PRIu64 ",\"eval_duration\":%" PRIu64,
                     ns(total), ns(sum->waited_us), n->prompt_tokens, ns((int64_t)n->prompt_us),
                     n->completion_tokens, ns(decode));
}

/* ---- tools ---- */

/* Arguments are an object to its clients; what is none becomes one with the text in it. */
static void put_arguments(struct buf *out, struct str text)
{
    yyjson_doc *doc = text.n ? yyjson_read(text.p, text.n, YYJSON_READ_NOFLAG) : NULL;
    if (yyjson_is_obj(yyjson_doc_get_root(doc))) {
        ollama_put_value(out, yyjson_doc_get_root(doc));
    } else if (!text.n) {
        (void)buf_puts(out, "{}");
    } else {
        put_text(out, "{\"text\":", text);
        (void)buf_puts(out, "}");
    }
    yyjson_doc_free(doc);
}

static void put_calls(const struct completion *sum, struct buf *out)
{
    const struct completion_choice *c = sum->n_choices ? &sum->choices[0] : NULL;
    for (uint32_t i = 0; c && i < c->n_calls; i++) {
        const struct completion_call *call = &c->calls[i];
        (void)buf_puts(out, i ? ",{" : ",\"tool_calls\":[{");
        if (call->id.n) {
            put_text(out, "\"id\":", buf_str(&call->id));
            (void)buf_puts(out, ",");
        }
        (void)buf_printf(out, "\"function\":{\"index\":%u,\"name\":", i);
        (void)buf_put_json(out, buf_str(&call->name));
        (void)buf_puts(out, ",\"arguments\":");
        put_arguments(out, buf_str(&call->arguments));
        (void)buf_puts(out, "}}");
    }
    if (c && c->n_calls)
        (void)buf_puts(out, "]");
}

static bool has_calls(const struct completion *sum)
{
    return sum->n_choices && sum->choices[0].n_calls;
}

/* ---- pieces of text ---- */

/* The part of an object that holds text. */
static void put_piece(const struct ollama *o, struct str content, struct str thinking,
                      const struct completion *calls, struct buf *out)
{
    if (o->generate) {
        put_text(out, ",\"response\":", content);
    } else {
        put_text(out, ",\"message\":{\"role\":\"assistant\",\"content\":", content);
    }
    if (thinking.n)
        put_text(out, ",\"thinking\":", thinking);
    if (calls)
        put_calls(calls, out);
    if (!o->generate)
        (void)buf_puts(out, "}");
}

static const char *reason_of(const struct ollama *o, const struct completion *sum)
{
    if (o->unload)
        return "unload";
    if (o->load)
        return "load";
    return sum->n_choices && str_eq_c(buf_str(&sum->choices[0].finish), "length") ? "length" : "stop";
}

static void put_last(const struct ollama *o, const struct completion *sum, struct buf *out)
{
    (void)buf_printf(out, ",\"done\":true,\"done_reason\":\"%s\"", reason_of(o, sum));
    if (!o->load && !o->unload)
        put_counters(sum, out);
    (void)buf_puts(out, "}\n");
}

bool ollama_delta(void *state, const struct completion *sum, const struct chunk_choice *in, struct buf *out)
{
    const struct ollama *o = state;
    if (!in->content.n && !in->reasoning.n)
        return true;
    put_start(o, sum, out);
    put_piece(o, in->content, in->reasoning, NULL, out);
    (void)buf_puts(out, ",\"done\":false}\n");
    return true;
}

void ollama_end(void *state, const struct completion *sum, struct buf *out)
{
    const struct ollama *o = state;
    if (has_calls(sum)) {
        put_start(o, sum, out);
        put_piece(o, STR(""), STR(""), sum, out);
        (void)buf_puts(out, ",\"done\":false}\n");
    }
    put_start(o, sum, out);
    put_piece(o, STR(""), STR(""), NULL, out);
    put_last(o, sum, out);
}

void ollama_broken(void *state, const struct dialect_error *e, struct buf *out)
{
    (void)state;
    ollama_put_error(e, out);
}

void ollama_plain(void *state, const struct completion *sum, struct buf *out)
{
    const struct ollama *o = state;
    static const struct completion_choice none = {0};
    const struct completion_choice *c = sum->n_choices ? &sum->choices[0] : &none;
    put_start(o, sum, out);
    put_piece(o, buf_str(&c->content), buf_str(&c->reasoning), sum, out);
    put_last(o, sum, out);
}

/* ---- documents ---- */

enum dialect_step ollama_filled_in(void *state, const struct completion *sum, yyjson_val *root,
                                   struct dialect_ask *next, struct buf *out)
{
    const struct ollama *o = state;
    yyjson_val *content = yyjson_obj_get(root, "content"), *timings = yyjson_obj_get(root, "timings");
    struct completion told = *sum;
    (void)next;
    if (!yyjson_is_str(content))
        return DIALECT_BROKEN;
    told.counts = (struct completion_counts){.known = true,
                                             .prompt_tokens = json_u64(root, "tokens_evaluated", 0),
                                             .completion_tokens = json_u64(root, "tokens_predicted", 0)};
    double prompt_ms = json_double(timings, "prompt_ms", 0),
           decode_ms = json_double(timings, "predicted_ms", 0);
    if (prompt_ms > 0 && prompt_ms < 1e12 && decode_ms > 0 && decode_ms < 1e12) {
        told.counts.prompt_us = (uint64_t)(prompt_ms * 1e3);
        told.counts.decode_us = (uint64_t)(decode_ms * 1e3);
    }
    bool cut = str_eq_c(json_str(root, "stop_type", STR("")), "limit");
    put_start(o, sum, out);
    put_piece(o, (struct str){yyjson_get_str(content), yyjson_get_len(content)}, STR(""), NULL, out);
    (void)buf_printf(out, ",\"done\":true,\"done_reason\":\"%s\"", cut ? "length" : "stop");
    put_counters(&told, out);
    (void)buf_puts(out, "}\n");
    return DIALECT_DONE;
}

/* Of a document, whose numbers are texts. */
static bool number_in(yyjson_val *v, double *ret)
{
    yyjson_val number = {0};
    if (!yyjson_is_raw(v) || !yyjson_read_number(yyjson_get_raw(v), &number, YYJSON_READ_NOFLAG, NULL, NULL))
        return false;
    *ret = yyjson_get_num(&number);
    return true;
}

/* The first n numbers, of length 1 together. False if there is one that is none. */
static bool put_shortened(yyjson_val *vector, uint64_t n, struct buf *out)
{
    double sum = 0, x = 0;
    size_t i, max;
    yyjson_val *v;
    yyjson_arr_foreach(vector, i, max, v)
    {
        if (!number_in(v, &x))
            return false;
        if (i < n)
            sum += x * x;
    }
    double norm = sum > 0 ? sqrt(sum) : 1;
    (void)buf_puts(out, "[");
    yyjson_arr_foreach(vector, i, max, v)
    {
        if (i < n && number_in(v, &x))
            (void)buf_printf(out, "%s%.9g", i ? "," : "", x / norm);
    }
    (void)buf_puts(out, "]");
    return true;
}

static bool put_vector(const struct ollama *o, yyjson_val *vector, struct buf *out)
{
    if (!yyjson_is_arr(vector) || yyjson_arr_size(vector) == 0)
        return false;
    if (o->dimensions > 0 && o->dimensions < yyjson_arr_size(vector))
        return put_shortened(vector, o->dimensions, out);
    ollama_put_value(out, vector);
    return true;
}

/* The vectors in the order of their indexes, which is that of the data. */
static bool put_vectors(const struct ollama *o, yyjson_val *data, struct buf *out)
{
    size_t i, n;
    yyjson_val *v;
    if (!yyjson_is_arr(data) || yyjson_arr_size(data) == 0 || (o->one && yyjson_arr_size(data) != 1))
        return false;
    yyjson_arr_foreach(data, i, n, v)
    {
        (void)buf_puts(out, i ? "," : "");
        if (json_u64(v, "index", i) != i || !put_vector(o, yyjson_obj_get(v, "embedding"), out))
            return false;
    }
    return true;
}

enum dialect_step ollama_embedded(void *state, const struct completion *sum, yyjson_val *root,
                                  struct dialect_ask *next, struct buf *out)
{
    const struct ollama *o = state;
    (void)next;
    if (o->one) {
        (void)buf_puts(out, "{\"embedding\":");
    } else {
        put_text(out, "{\"model\":", name_of(o, sum));
        (void)buf_puts(out, ",\"embeddings\":[");
    }
    if (!put_vectors(o, yyjson_obj_get(root, "data"), out))
        return DIALECT_BROKEN;
    if (!o->one)
        (void)buf_printf(out,
                         "],\"total_duration\":%" PRIu64 ",\"load_duration\":%" PRIu64
                         ",\"prompt_eval_count\":%" PRIu64,
                         ns(sum->now_us - sum->begun_us), ns(sum->waited_us), sum->counts.prompt_tokens);
    (void)buf_puts(out, "}\n");
    return DIALECT_DONE;
}

void ollama_plain_embedding(void *state, const struct completion *sum, struct buf *out)
{
    const struct ollama *o = state;
    (void)sum;
    if (o->one) {
        (void)buf_puts(out, "{\"embedding\":[]}\n");
        return;
    }
    put_text(out, "{\"model\":", name_of(o, sum));
    (void)buf_puts(out, ",\"embeddings\":[]}\n");
}
