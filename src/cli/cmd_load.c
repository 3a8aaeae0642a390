/* arriero load MODEL: loads a model now and says where it went. */
#include "cli/control.h"

static int report(struct cli_call *call, struct str model)
{
    yyjson_doc *doc;
    struct err err;
    if (control_get(call, "/instances", &doc, &err) != RC_OK)
        return cli_fail(call, &err);
    struct buf out = {0};
    yyjson_val *instances = yyjson_obj_get(yyjson_doc_get_root(doc), "instances");
    yyjson_val *v = control_instance(instances, model);
    text_put_safe(&out, model, false);
    buf_puts(&out, " is ready");
    if (v) {
        buf_puts(&out, " on ");
        control_devices(v, &out);
        buf_printf(&out, ", context %llu",
                   (unsigned long long)json_u64(yyjson_obj_get(v, "params"), "ctx", 0));
    }
    buf_puts(&out, "\n");
    output_buf(&out);
    yyjson_doc_free(doc);
    return 0;
}

static int run(struct cli_call *call)
{
    yyjson_doc *doc;
    yyjson_mut_val *root;
    struct err err;
    yyjson_mut_doc *body = control_body(call->args[0], &root);
    if (!call->json && output_is_terminal(stderr))
        fprintf(stderr, "loading …\n");
    if (control_post(call, "/load", body, CONTROL_NO_TIMEOUT, &doc, &err) != RC_OK)
        return cli_fail(call, &err);
    if (call->json)
        return control_print(doc);
    /* an alias was loaded under its canonical name */
    int status = report(call, json_str(yyjson_doc_get_root(doc), "model", str_from(call->args[0])));
    yyjson_doc_free(doc);
    return status;
}

const struct cli_command cmd_load = {
    .name = "load",
    .group = "Run",
    .synopsis = "MODEL",
    .summary = "load a model now and wait until it answers",
    .details = "Idle models make room if there is none, the least recently used first. Interrupting the "
               "command does "
               "not stop the load.",
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
