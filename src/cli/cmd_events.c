/* arriero events [MODEL]: decisions of the daemon as they happen. Layer cli; main thread. */
#include "cli/control.h"

#include "base/mem.h"

#include <stdio.h>

struct listening {
    const struct cli_call *call;
    size_t width;
};

static bool is_wanted(const struct cli_call *call, yyjson_val *decision)
{
    return call->n_args == 0 || str_eq_c(json_str(decision, "model", STR("")), call->args[0]) ||
           str_eq_c(json_str(decision, "instance", STR("")), call->args[0]);
}

static bool on_event(void *arg, struct str event, struct str data)
{
    struct listening *l = arg;
    struct buf out = {0};
    yyjson_doc *doc;
    if (!str_eq_c(event, "decision") || json_parse(data, "an event", &doc, NULL) != RC_OK)
        return true; /* of a newer daemon */
    yyjson_val *decision = yyjson_doc_get_root(doc);
    if (is_wanted(l->call, decision)) {
        if (l->call->json) {
            buf_put_str(&out, data);
            buf_puts(&out, "\n");
        } else {
            control_decision(&out, decision, l->width);
        }
        output_buf(&out);
    }
    yyjson_doc_free(doc);
    return true;
}

static int run(struct cli_call *call)
{
    struct listening l = {.call = call, .width = control_width()};
    return control_follow(call, "/events", on_event, &l);
}

const struct cli_command cmd_events = {
    .name = "events",
    .group = "Look",
    .synopsis = "[MODEL]",
    .summary = "follow decisions as they happen, until Ctrl-C",
    .details =
        "What arriero why tells afterwards, at the moment it is decided; MODEL, its id or the id of an "
        "instance, leaves the others out. With --json each decision is an object on a line of its own.",
    .max_args = 1,
    .run = run,
};
