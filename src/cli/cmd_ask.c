/* arriero ask: one question to the data plane, the answer streamed to the terminal. Layer cli; main thread.
 *
 * SIGINT and SIGTERM are read from a descriptor, so that an interrupt closes the connection (the daemon then
 * stops the generation) and the command ends with 130. */
#include "cli/control.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#define PROMPT_MAX ((size_t)16 << 20)

struct preset;

struct options {
    struct control_door door;
    const char *model, *system;
    const struct preset *preset; /* NULL = none */
    uint32_t max_tokens;
    bool temperature_set, quiet;
    double temperature;
};

/* What --preset stands for, where nothing else is asked for. */
static const struct preset {
    const char *name;
    double temperature;
    uint32_t max_tokens;
} presets[] = {{"factual", 0.2, 500}, {"creative", 0.9, 1000}};

static enum rc parse_preset(struct str value, void *field, struct err *err)
{
    for (size_t i = 0; i < TABLE_COUNT(presets); i++)
        if (str_eq_c(value, presets[i].name)) {
            *(const struct preset **)field = &presets[i];
            return RC_OK;
        }
    enum rc rc = err_set(err, RC_INVALID, "\"%.*s\" is no preset", STR_ARG(value));
    err_hint(err, "factual (temperature 0.2, 500 tokens) or creative (0.9, 1000)");
    return rc;
}

static double temperature_of(const struct options *o)
{
    return o->temperature_set || !o->preset ? o->temperature : o->preset->temperature;
}

static uint32_t max_tokens_of(const struct options *o)
{
    return o->max_tokens || !o->preset ? o->max_tokens : o->preset->max_tokens;
}

static enum rc parse_temperature(struct str value, void *field, struct err *err)
{
    struct options *o = container_of((double *)field, struct options, temperature);
    if (!str_double(value, field) || o->temperature < 0 || o->temperature > 100) {
        enum rc rc = err_set(err, RC_INVALID, "\"%.*s\" is not a temperature", STR_ARG(value));
        err_hint(err, "0 always takes the likeliest token, 0.8 is a usual value");
        return rc;
    }
    o->temperature_set = true;
    return RC_OK;
}

static const struct cli_option options[] = {
    {"model", 'm', CLI_STR, offsetof(struct options, model), "MODEL",
     "who is asked (default: the first model)"},
    {"system", 's', CLI_STR, offsetof(struct options, system), "TEXT", "instructions before the question"},
    {"max-tokens", 'n', CLI_TOKENS, offsetof(struct options, max_tokens), "N",
     "end the answer after N tokens"},
    {"temperature", 't', CLI_CUSTOM, offsetof(struct options, temperature), "T",
     "0 = always the likeliest token; default: the model's own", parse_temperature},
    {"preset", 'p', CLI_CUSTOM, offsetof(struct options, preset), "NAME",
     "factual or creative: temperature and tokens where not given", parse_preset},
    CONTROL_DOOR_OPTIONS(options, door),
    {"quiet", 'q', CLI_FLAG, offsetof(struct options, quiet), NULL, "only the answer, no figures"},
    {.type = CLI_END},
};

/* The arguments joined by blanks; "-" stands for what stdin holds. */
static enum rc read_prompt(const struct cli_call *call, struct buf *out, struct err *err)
{
    bool stdin_only = call->n_args == 0;
    for (size_t i = 0; i < call->n_args || (stdin_only && i == 0); i++) {
        if (i)
            buf_puts(out, " ");
        if (!stdin_only && strcmp(call->args[i], "-") != 0) {
            buf_puts(out, call->args[i]);
            continue;
        }
        char bytes[4096];
        size_t n;
        while ((n = fread(bytes, 1, sizeof bytes, stdin)) > 0)
            buf_append(out, bytes, n);
        if (ferror(stdin))
            return err_sys(err, RC_IO, "cannot read the question from standard input");
    }
    if (out->failed)
        return err_set(err, RC_LIMIT, "the question is longer than %zu MiB", PROMPT_MAX >> 20);
    if (str_trim(buf_str(out)).n == 0) {
        enum rc rc = err_set(err, RC_INVALID, "the question is empty");
        err_hint(err, "usage: arriero ask [-m MODEL] PROMPT…");
        return rc;
    }
    return RC_OK;
}

static enum rc first_model(const struct client_address *a, struct client_request r, char **ret_model,
                           struct err *err)
{
    yyjson_doc *doc;
    r.method = "GET";
    r.path = control_api_path(a, "/v1/models");
    r.body = STR("");
    r.timeout_ms = CLIENT_TIMEOUT_MS;
    enum rc rc = client_json(a, &r, &doc, err);
    if (rc != RC_OK)
        return rc;
    yyjson_val *first = yyjson_arr_get_first(yyjson_obj_get(yyjson_doc_get_root(doc), "data"));
    struct str id = json_str(first, "id", STR(""));
    if (id.n) {
        *ret_model = mem_strndup(id.p, id.n);
    } else {
        rc = err_set(err, RC_NOT_FOUND, "the daemon has no model");
        err_hint(err, "start it with --models DIR, where DIR has GGUF files");
    }
    yyjson_doc_free(doc);
    return rc;
}

static void add_message(yyjson_mut_doc *doc, yyjson_mut_val *list, const char *role, struct str text)
{
    yyjson_mut_val *m = yyjson_mut_arr_add_obj(doc, list);
    yyjson_mut_obj_add_str(doc, m, "role", role);
    json_add_str(doc, m, "content", text);
}

static enum rc make_body(const struct options *o, const char *model, struct str prompt, struct buf *out,
                         struct err *err)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "model", model);
    yyjson_mut_val *messages = yyjson_mut_obj_add_arr(doc, root, "messages");
    if (o->system)
        add_message(doc, messages, "system", str_from(o->system));
    add_message(doc, messages, "user", prompt);
    if (max_tokens_of(o))
        yyjson_mut_obj_add_uint(doc, root, "max_tokens", max_tokens_of(o));
    if (o->temperature_set || o->preset)
        yyjson_mut_obj_add_real(doc, root, "temperature", temperature_of(o));
    yyjson_mut_obj_add_bool(doc, root, "stream", true);
    yyjson_mut_val *stream_options = yyjson_mut_obj_add_obj(doc, root, "stream_options");
    yyjson_mut_obj_add_bool(doc, stream_options, "include_usage", true);
    enum rc rc = json_write(doc, false, out, err);
    yyjson_mut_doc_free(doc);
    if (rc == RC_INTERNAL) { /* the one thing that yyjson refuses to write */
        rc = err_set(err, RC_INVALID, "the question is not UTF-8 text");
        err_hint(err, "convert it with iconv");
    }
    return rc;
}

struct answer {
    const struct cli_call *call;
    struct sse sse;
    struct buf text, reasoning, finish, model;
    bool terminal, color, in_reasoning, done;
    bool notice; /* a line on the terminal says that we wait, and must go before anything else is written */
    uint64_t start_us, first_us, last_us;
    uint64_t prompt_tokens, completion_tokens, pieces;
    double server_tps; /* 0 = the server did not say */
    enum rc rc;
    struct err err;
};

/* A load takes seconds to minutes: the terminal says what is waited for. */
static void notice_on(struct answer *a, const char *model)
{
    const struct options *o = a->call->options;
    struct buf text = {0};
    if (a->call->json || o->quiet || !a->terminal || !output_wants_color(stderr))
        return;
    text_put_safe(&text, str_from(model), false);
    fprintf(stderr, "\033[2mwaiting for %s …\033[0m", text.data ? text.data : "");
    buf_release(&text);
    a->notice = true;
}

static void notice_off(struct answer *a)
{
    if (a->notice)
        fputs("\r\033[K", stderr);
    a->notice = false;
}

/* Reasoning is shown dimmed, on a terminal only: in a pipe the answer counts. */
static void show(struct answer *a, struct str text, bool reasoning)
{
    struct buf out = {0};
    if (a->call->json || !text.n || (reasoning && !a->terminal))
        return;
    notice_off(a);
    if (reasoning != a->in_reasoning) {
        if (!reasoning)
            buf_puts(&out, a->color ? "\033[0m\n\n" : "\n\n");
        else if (a->color)
            buf_puts(&out, "\033[2m");
        a->in_reasoning = reasoning;
    }
    if (a->terminal)
        text_put_safe(&out, text, true);
    else
        buf_put_str(&out, text);
    output_buf(&out);
    fflush(stdout);
}

static void take_choice(struct answer *a, yyjson_val *choice)
{
    yyjson_val *delta = yyjson_obj_get(choice, "delta");
    struct str content = json_str(delta, "content", STR(""));
    struct str reasoning = json_str(delta, "reasoning_content", STR(""));
    struct str finish = json_str(choice, "finish_reason", STR(""));
    if (content.n || reasoning.n) {
        a->last_us = clock_mono_us();
        if (!a->first_us)
            a->first_us = a->last_us;
        a->pieces++;
    }
    show(a, reasoning, true);
    show(a, content, false);
    buf_put_str(&a->reasoning, reasoning);
    buf_put_str(&a->text, content);
    if (finish.n) {
        buf_clear(&a->finish);
        buf_put_str(&a->finish, finish);
    }
}

static bool on_event(void *arg, struct str event, struct str data)
{
    struct answer *a = arg;
    yyjson_doc *doc;
    (void)event;
    if (str_eq_c(data, "[DONE]")) {
        a->done = true;
        return true;
    }
    a->rc = json_parse(data, "an event of the answer", &doc, &a->err);
    if (a->rc != RC_OK)
        return false;
    yyjson_val *root = yyjson_doc_get_root(doc), *error = yyjson_obj_get(root, "error");
    yyjson_val *usage = yyjson_obj_get(root, "usage"), *timings = yyjson_obj_get(root, "timings");
    if (error) {
        struct str text = json_str(error, "message", STR("the answer ended with an error"));
        struct str hint = json_str(error, "hint", STR(""));
        a->rc = err_set(&a->err, RC_BACKEND, "%.*s", STR_ARG(text));
        err_hint(&a->err, "%.*s", STR_ARG(hint));
    } else {
        struct str model = json_str(root, "model", STR(""));
        if (model.n && !a->model.n)
            buf_put_str(&a->model, model);
        take_choice(a, yyjson_arr_get_first(yyjson_obj_get(root, "choices")));
        a->prompt_tokens = json_u64(usage, "prompt_tokens", a->prompt_tokens);
        a->completion_tokens = json_u64(usage, "completion_tokens", a->completion_tokens);
        a->server_tps = json_double(timings, "predicted_per_second", a->server_tps);
    }
    yyjson_doc_free(doc);
    return a->rc == RC_OK;
}

static bool on_piece(void *arg, struct str piece)
{
    struct answer *a = arg;
    struct err err;
    enum rc rc = sse_feed(&a->sse, piece, on_event, a, &err);
    if (rc != RC_OK && a->rc == RC_OK) {
        a->rc = rc;
        a->err = err;
    }
    return rc == RC_OK;
}

/* The server's own figure, else tokens after the first by the time they took. */
static double tokens_per_second(const struct answer *a)
{
    uint64_t tokens = a->completion_tokens ? a->completion_tokens : a->pieces;
    if (a->server_tps > 0)
        return a->server_tps;
    if (tokens < 2 || a->last_us <= a->first_us)
        return 0;
    return (double)(tokens - 1) * 1e6 / (double)(a->last_us - a->first_us);
}

static void print_figures(const struct answer *a)
{
    char ttft[24];
    double tps = tokens_per_second(a);
    bool color = output_wants_color(stderr);
    if (!a->first_us)
        return;
    fflush(stdout);
    fprintf(stderr, "%s[%llu tokens", color ? "\033[2m" : "",
            (unsigned long long)(a->completion_tokens ? a->completion_tokens : a->pieces));
    if (tps > 0)
        fprintf(stderr, ", %.1f tokens/s", tps);
    fprintf(stderr, ", first after %s",
            control_duration((a->first_us - a->start_us) / 1000, ttft, sizeof ttft));
    if (str_eq_c(buf_str(&a->finish), "length"))
        fprintf(stderr, ", cut at the limit of tokens");
    fprintf(stderr, "]%s\n", color ? "\033[0m" : "");
}

static int print_json(const struct answer *a)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    json_add_str(doc, root, "model", buf_str(&a->model));
    json_add_str(doc, root, "text", buf_str(&a->text));
    if (a->reasoning.n)
        json_add_str(doc, root, "reasoning", buf_str(&a->reasoning));
    json_add_str(doc, root, "finish_reason", buf_str(&a->finish));
    if (a->completion_tokens) {
        yyjson_mut_obj_add_uint(doc, root, "prompt_tokens", a->prompt_tokens);
        yyjson_mut_obj_add_uint(doc, root, "completion_tokens", a->completion_tokens);
    }
    if (a->first_us)
        yyjson_mut_obj_add_uint(doc, root, "ttft_ms", (a->first_us - a->start_us) / 1000);
    yyjson_mut_obj_add_uint(doc, root, "total_ms", (clock_mono_us() - a->start_us) / 1000);
    if (tokens_per_second(a) > 0)
        yyjson_mut_obj_add_real(doc, root, "tokens_per_second", tokens_per_second(a));
    return cli_print_json(doc);
}

static int finish(struct answer *a, enum rc rc, struct err *err)
{
    const struct options *o = a->call->options;
    notice_off(a);
    if (a->in_reasoning && a->color)
        fputs("\033[0m", stdout);
    if (!a->call->json && (a->text.n || a->in_reasoning) && !str_ends(buf_str(&a->text), "\n"))
        fputs("\n", stdout);
    if (rc == RC_CANCELLED)
        return CONTROL_INTERRUPTED;
    if (rc == RC_OK && a->rc != RC_OK) {
        rc = a->rc;
        *err = a->err;
    }
    if (rc == RC_OK && !a->done) {
        rc = err_set(err, RC_BACKEND, "the answer broke off before its end");
        err_hint(err, "arriero why and arriero logs MODEL tell what happened to the model's server");
    }
    if (rc != RC_OK)
        return cli_fail(a->call, err);
    if (a->call->json)
        return print_json(a);
    if (!o->quiet)
        print_figures(a);
    return 0;
}

static int ask(struct cli_call *call, struct str prompt, int cancel_fd)
{
    const struct options *o = call->options;
    struct err err;
    struct client_address door;
    struct buf body = {0};
    auto_free char *model = o->model ? mem_strdup(o->model) : NULL;
    const char *key = getenv("ARRIERO_API_KEY");
    struct client_request r = {
        .method = "POST", .cancel_fd = cancel_fd, .bearer = key && key[0] ? key : NULL};
    enum rc rc = control_door(call, &o->door, &door, &err);
    if (rc == RC_OK && !model)
        rc = first_model(&door, r, &model, &err);
    if (rc == RC_OK)
        rc = make_body(o, model, prompt, &body, &err);
    if (rc != RC_OK) {
        buf_release(&body);
        return rc == RC_CANCELLED ? CONTROL_INTERRUPTED : cli_fail(call, &err);
    }
    struct answer a = {.call = call,
                       .terminal = output_is_terminal(stdout),
                       .color = call->color,
                       .start_us = clock_mono_us()};
    r.path = control_api_path(&door, "/v1/chat/completions");
    r.body = buf_str(&body);
    notice_on(&a, model);
    rc = client_stream(&door, &r, on_piece, &a, &err);
    int status = finish(&a, rc, &err);
    sse_release(&a.sse);
    buf_release(&a.text);
    buf_release(&a.reasoning);
    buf_release(&a.finish);
    buf_release(&a.model);
    buf_release(&body);
    return status;
}

static int run(struct cli_call *call)
{
    struct err err;
    struct buf prompt = {.max = PROMPT_MAX};
    struct control_interrupt interrupt;
    if (call->n_args == 0 && output_is_terminal(stdin)) {
        enum rc rc = err_set(&err, RC_INVALID, "what is the question?");
        if (rc != RC_OK)
            err_hint(&err, "usage: arriero ask [-m MODEL] PROMPT…, or - to read it from standard input");
        return cli_usage(call, &err);
    }
    if (read_prompt(call, &prompt, &err) != RC_OK) {
        buf_release(&prompt);
        return cli_fail(call, &err);
    }
    control_interrupt_begin(&interrupt);
    int status = ask(call, buf_str(&prompt), interrupt.fd);
    control_interrupt_end(&interrupt);
    buf_release(&prompt);
    return status;
}

const struct cli_command cmd_ask = {
    .name = "ask",
    .group = "Run",
    .synopsis = "[-m MODEL] PROMPT…",
    .summary = "ask a model a question and stream its answer",
    .details =
        "A PROMPT of - is read from standard input, and so is one that is not there. The model is loaded if "
        "it "
        "is not. Figures go to standard error, so that the answer can be piped. $ARRIERO_API_KEY is sent as "
        "the key if the daemon wants one. Ctrl-C stops the answer.\n\n"
        "  arriero ask 'Why is the sky blue?'\n"
        "  arriero ask 'Summarise this:' - < notes.txt",
    .options_size = sizeof(struct options),
    .options = options,
    .max_args = CLI_MAX_POSITIONAL,
    .run = run,
};
