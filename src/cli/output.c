/* What a command says: errors, JSON, the terminal's properties. See cli.h. Layer cli; main thread. */
#include "cli/cli_priv.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

bool output_is_terminal(FILE *f)
{
    return isatty(fileno(f)) == 1;
}

bool output_wants_color(FILE *f)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    return output_is_terminal(f) && !(no_color && no_color[0]) && term && strcmp(term, "dumb") != 0;
}

size_t output_width(void)
{
    struct winsize ws;
    uint64_t columns = 0;
    const char *told = getenv("COLUMNS");
    if (!output_is_terminal(stdout))
        return told && str_u64(str_from(told), &columns) && columns >= 20 ? columns : 0;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col ? ws.ws_col : 80;
}

void output_buf(struct buf *b)
{
    if (b->n)
        fwrite(b->data, 1, b->n, stdout);
    buf_release(b);
}

static int fail(const struct cli_call *call, const struct err *err, int status)
{
    fflush(stdout);
    if (call && call->json) {
        yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
        yyjson_mut_val *root = yyjson_mut_obj(doc);
        yyjson_mut_doc_set_root(doc, root);
        yyjson_mut_obj_add_val(doc, root, "error", json_err(doc, err));
        cli_print_json(doc);
        return status;
    }
    bool color = output_wants_color(stderr);
    struct buf text = {0};
    text_put_safe(&text, str_from(err->message), false);
    fprintf(stderr, "%sarriero:%s %s\n", color ? "\033[1;31m" : "", color ? "\033[0m" : "",
            text.data ? text.data : "");
    if (err->hint[0]) {
        buf_clear(&text);
        text_put_safe(&text, str_from(err->hint), false);
        fprintf(stderr, "  hint: %s\n", text.data);
    }
    buf_release(&text);
    return status;
}

int cli_fail(const struct cli_call *call, const struct err *err)
{
    return fail(call, err, 1);
}

int cli_usage(const struct cli_call *call, const struct err *err)
{
    return fail(call, err, 2);
}

int cli_print_json(yyjson_mut_doc *doc)
{
    struct buf text = {0};
    struct err err;
    bool pretty = output_is_terminal(stdout);
    enum rc rc = json_write(doc, pretty, &text, &err);
    yyjson_mut_doc_free(doc);
    if (rc != RC_OK) {
        buf_release(&text);
        return fail(NULL, &err, 1);
    }
    if (!pretty)
        buf_puts(&text, "\n");
    output_buf(&text);
    return 0;
}
