/* arriero reset [MODEL]: forgets failures, so that the next request tries again at once. */
#include "cli/control.h"

static int run(struct cli_call *call)
{
    const char *model = call->n_args ? call->args[0] : "";
    yyjson_doc *doc;
    yyjson_mut_val *root;
    struct err err;
    yyjson_mut_doc *body = control_body(model, &root);
    if (control_post(call, "/reset", body, CLIENT_TIMEOUT_MS, &doc, &err) != RC_OK)
        return cli_fail(call, &err);
    if (call->json)
        return control_print(doc);
    unsigned long long n = json_u64(yyjson_doc_get_root(doc), "reset", 0);
    yyjson_doc_free(doc);
    struct buf out = {0};
    if (model[0]) {
        text_put_safe(&out, str_from(model), false);
        buf_puts(&out, n ? " is held back no longer: the next request tries it at once\n"
                         : " was not held back: no failure of it is remembered\n");
    } else {
        buf_printf(&out, "%llu model%s had failed and may be tried again at once\n", n, n == 1 ? "" : "s");
    }
    output_buf(&out);
    return 0;
}

const struct cli_command cmd_reset = {
    .name = "reset",
    .group = "Run",
    .synopsis = "[MODEL]",
    .summary = "let a model that failed be tried again at once",
    .details =
        "After a failure a model is left alone for 1 s, and for twice as long after each further one, up to "
        "5 minutes; requests are refused meanwhile, with the cause. This forgets the failures of MODEL, or "
        "of "
        "all models, and what is thought of instances that answer with errors. Nothing is loaded by it: "
        "arriero load MODEL does both. A changed file or other settings have the same effect.",
    .max_args = 1,
    .run = run,
};
