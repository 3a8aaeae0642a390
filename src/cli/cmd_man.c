/* arriero man [PAGE]: the man pages as roff; the build runs it, packagers may. Hidden. */
#include "cli/man.h"

#include "cli/cli_priv.h"
#include "daemon/config.h"

#include <string.h>

static void config_page(struct buf *out)
{
    config_reference(CONFIG_REFERENCE_MAN, out);
}

static const struct {
    const char *name;
    void (*write)(struct buf *out);
} pages[] = {
    {"arriero", man_program},
    {"arriero.yaml", config_page},
};

static int run(struct cli_call *call)
{
    const char *want = call->n_args ? call->args[0] : pages[0].name;
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
        if (strcmp(want, pages[i].name) == 0) {
            struct buf out = {0};
            pages[i].write(&out);
            output_buf(&out);
            return 0;
        }
    struct err err;
    enum rc rc = err_set(&err, RC_NOT_FOUND, "there is no page \"%s\"", want);
    if (rc != RC_OK)
        err_hint(&err, "pages: arriero, arriero.yaml");
    return cli_fail(call, &err);
}

const struct cli_command cmd_man = {
    .name = "man",
    .group = "Help",
    .synopsis = "[PAGE]",
    .summary = "print a man page as roff",
    .max_args = 1,
    .run = run,
    .hidden = true,
};
