/* arriero version: this build and the libraries in it. */
#include "cli/cli_priv.h"

static int run(struct cli_call *call)
{
    if (!call->json) {
        printf("arriero %s\n", ARRIERO_VERSION);
        return 0;
    }
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "version", ARRIERO_VERSION);
    yyjson_mut_obj_add_str(doc, root, "compiler", __VERSION__);
    return cli_print_json(doc);
}

const struct cli_command cmd_version = {
    .name = "version",
    .group = "Help",
    .synopsis = "",
    .summary = "show the version",
    .run = run,
};
