/* arriero embed: texts to vectors, through the data plane. Layer cli; main thread. */
#include "cli/control.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stddef.h>
#include <string.h>

#define INPUT_MAX   ((size_t)48 << 20)
#define SHOWN_START 4 /* numbers of a vector on a terminal */

struct options {
    struct control_door door;
    const char *model;
};

static const struct cli_option options[] = {
    {"model", 'm', CLI_STR, offsetof(struct options, model), "MODEL",
     "who embeds (default: the role embedding)"},
    CONTROL_DOOR_OPTIONS(options, door),
    {.type = CLI_END},
};

static enum rc read_stdin(struct buf *out, struct err *err)
{
    char bytes[4096];
    size_t n;
    while ((n = fread(bytes, 1, sizeof bytes, stdin)) > 0)
        buf_append(out, bytes, n);
    if (ferror(stdin))
        return err_sys(err, RC_IO, "cannot read texts from standard input");
    return out->failed ? err_set(err, RC_LIMIT, "the texts are longer than %zu MiB", INPUT_MAX >> 20) : RC_OK;
}

static void add_lines(yyjson_mut_doc *doc, yyjson_mut_val *list, struct str text)
{
    while (text.n) {
        struct str line = str_trim(str_cut(&text, '\n'));
        if (line.n)
            yyjson_mut_arr_add_strncpy(doc, list, line.p, line.n);
    }
}

/* Each argument is a text; "-", or none at all, stands for the lines of standard input. */
static enum rc make_body(const struct cli_call *call, yyjson_mut_doc *doc, struct err *err)
{
    const struct options *o = call->options;
    struct buf lines = {.max = INPUT_MAX};
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "model", o->model ? o->model : "embedding");
    yyjson_mut_obj_add_str(doc, root, "encoding_format", "float");
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(doc, root, "input");
    bool from_stdin = call->n_args == 0;
    for (size_t i = 0; i < call->n_args; i++) {
        if (strcmp(call->args[i], "-") == 0)
            from_stdin = true;
        else
            yyjson_mut_arr_add_str(doc, list, call->args[i]);
    }
    enum rc rc = from_stdin ? read_stdin(&lines, err) : RC_OK;
    if (rc == RC_OK)
        add_lines(doc, list, buf_str(&lines));
    buf_release(&lines);
    if (rc == RC_OK && yyjson_mut_arr_size(list) == 0) {
        rc = err_set(err, RC_INVALID, "there is no text to embed");
        err_hint(err, "usage: arriero embed TEXT…, or - to read one a line from standard input");
    }
    return rc;
}

static int print_json(yyjson_val *root, double latency_ms)
{
    size_t i, n;
    yyjson_val *v, *data = yyjson_obj_get(root, "data");
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *out = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, out);
    json_add_str(doc, out, "model", json_str(root, "model", STR("")));
    uint64_t own = yyjson_arr_size(yyjson_obj_get(yyjson_arr_get_first(data), "embedding"));
    yyjson_mut_obj_add_uint(doc, out, "dimensions", json_u64(root, "dimensions", own));
    yyjson_mut_obj_add_uint(doc, out, "tokens_used",
                            json_u64(yyjson_obj_get(root, "usage"), "total_tokens", 0));
    yyjson_mut_obj_add_real(doc, out, "latency_ms", latency_ms);
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(doc, out, "embeddings");
    yyjson_arr_foreach(data, i, n, v)
    {
        yyjson_mut_arr_append(list, yyjson_val_mut_copy(doc, yyjson_obj_get(v, "embedding")));
    }
    return cli_print_json(doc);
}

/* A vector a line; on a terminal only how it begins. */
static void print_vectors(yyjson_val *data)
{
    size_t i, n, k, size;
    yyjson_val *v, *number;
    bool brief = output_is_terminal(stdout);
    yyjson_arr_foreach(data, i, n, v)
    {
        struct buf line = {0};
        yyjson_val *vector = yyjson_obj_get(v, "embedding");
        buf_puts(&line, "[");
        yyjson_arr_foreach(vector, k, size, number)
        {
            if (!brief || k < SHOWN_START)
                buf_printf(&line, "%s%.9g", k ? "," : "", yyjson_get_num(number));
        }
        if (brief && size > SHOWN_START)
            buf_printf(&line, ", … %zu in all", size);
        buf_puts(&line, "]\n");
        output_buf(&line);
        buf_release(&line);
    }
}

static enum rc ask(const struct cli_call *call, struct str body, yyjson_doc **ret_doc, struct err *err)
{
    const struct options *o = call->options;
    const char *key = getenv("ARRIERO_API_KEY");
    struct client_address door;
    enum rc rc = control_door(call, &o->door, &door, err);
    if (rc != RC_OK)
        return rc;
    const struct client_request r = {.method = "POST",
                                     .path = control_api_path(&door, "/v1/embeddings"),
                                     .body = body,
                                     .cancel_fd = -1,
                                     .bearer = key && key[0] ? key : NULL};
    return client_json(&door, &r, ret_doc, err);
}

static int run(struct cli_call *call)
{
    struct err err;
    struct buf body = {0};
    yyjson_doc *answer = NULL;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    enum rc rc = make_body(call, doc, &err);
    if (rc == RC_OK)
        rc = json_write(doc, false, &body, &err);
    if (rc == RC_INTERNAL) { /* the one thing that yyjson refuses to write */
        rc = err_set(&err, RC_INVALID, "a text is not UTF-8");
        err_hint(&err, "convert it with iconv");
    }
    yyjson_mut_doc_free(doc);
    uint64_t start_us = clock_mono_us();
    if (rc == RC_OK)
        rc = ask(call, buf_str(&body), &answer, &err);
    buf_release(&body);
    if (rc != RC_OK)
        return cli_fail(call, &err);
    int status = 0;
    yyjson_val *root = yyjson_doc_get_root(answer);
    if (call->json)
        status = print_json(root, (double)(clock_mono_us() - start_us) / 1000);
    else
        print_vectors(yyjson_obj_get(root, "data"));
    yyjson_doc_free(answer);
    return status;
}

const struct cli_command cmd_embed = {
    .name = "embed",
    .group = "Run",
    .synopsis = "[-m MODEL] TEXT…",
    .summary = "turn texts into vectors",
    .details =
        "Each TEXT gives one vector, in their order. A TEXT of - stands for the lines of standard input, "
        "and so does none. Without --json a vector is a line, shortened on a terminal. $ARRIERO_API_KEY is "
        "sent as the key if the daemon wants one.\n\n"
        "  arriero embed 'a llama' 'a mule'\n"
        "  arriero embed --json - < titles.txt",
    .options_size = sizeof(struct options),
    .options = options,
    .max_args = CLI_MAX_POSITIONAL,
    .run = run,
};
