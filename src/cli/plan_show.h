/* What `arriero plan` prints. Layer cli; main thread. */
#ifndef CLI_PLAN_SHOW_H
#define CLI_PLAN_SHOW_H

#include "cli/known.h"
#include "cli/plan_args.h"
#include "cli/plan_verify.h"

#include "base/mem.h"
#include "runtime/runtime.h"

struct plan_command { /* the command line that a plan stands for */
    struct arena arena;
    struct runtime_command cmd;
    char binary[512];
    bool known; /* cmd is there */
    bool found; /* and made for the llama-server at binary; else for a current one */
};
/* The caller releases c->arena. */
void plan_command(const struct model *m, const struct plan *plan, const struct plan_machine *machine,
                  bool embedding, struct plan_command *c);

struct plan_view { /* all borrowed */
    const struct model *m;
    const struct plan *plan;
    const struct plan_machine *machine;
    const struct plan_command *command;
    const struct verified *verified; /* n is 0 unless asked for */
    const struct knowledge *known;   /* what was learned here */
    uint32_t room_tokens;            /* context that the devices would hold; 0 = unknown */
    bool imagined;                   /* the machine is not this one */
};
void plan_show_text(const struct plan_view *v);
/* failed: why it does not fit, or NULL. Returns the exit status. */
int plan_show_json(const struct plan_view *v, const struct err *failed);

/* The table of parts, of the host too, with what is free beside each. Appends. */
void plan_show_parts(struct buf *out, const struct plan_part *parts, size_t n, uint64_t host_free);
/* A sentence behind `lead`, wrapped at 80 columns under it. Appends. */
void plan_show_wrapped(struct buf *out, const char *lead, const char *text);

#endif
