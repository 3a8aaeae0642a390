/* llama.cpp's own answer to a plan's question. Layer cli; main thread; starts one short-lived program. */
#ifndef CLI_PLAN_VERIFY_H
#define CLI_PLAN_VERIFY_H

#include "plan/plan.h"
#include "runtime/runtime.h"

enum verify_part { VERIFY_MODEL, VERIFY_CONTEXT, VERIFY_COMPUTE, VERIFY_PARTS };
#define VERIFY_MAX_NOTES 12

struct verified {
    bool on_devices; /* the plan's own devices were asked; else everything in RAM */
    char tool[600];
    struct {
        char name[24];
        uint64_t ours[VERIFY_PARTS], theirs[VERIFY_PARTS]; /* MiB */
    } rows[PLAN_MAX_DEVICES + 1];
    size_t n;
    struct {
        char text[160];
    } notes[VERIFY_MAX_NOTES]; /* what the tool cannot be asked */
    size_t n_notes;
};

/* server: the llama-server found, or "" (the tool is looked for beside it, then on PATH). what_if: the
 * machine's devices are imagined. env: as the server would get it; NULL = ours. Errors: RC_NOT_FOUND (no such
 * tool), RC_BACKEND (it failed), and plan_estimate's. */
enum rc plan_verify(const char *server, const char *const *env, const struct model *m,
                    const struct plan *plan, const struct plan_machine *machine, bool what_if,
                    struct verified *ret_verified, struct err *err);
void plan_verify_print(const struct verified *v);
void plan_verify_json(yyjson_mut_doc *doc, yyjson_mut_val *root, const struct verified *v);

#endif
