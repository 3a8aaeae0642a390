/* arriero plan MODEL --live: see plan_live.c. Layer cli; main thread. */
#ifndef CLI_PLAN_LIVE_H
#define CLI_PLAN_LIVE_H

#include "cli/cli_priv.h"

/* Asks the daemon (question: the body of POST /plan, freed) and prints its answer; returns the exit status,
 * which is 1 for a model that never fits. */
int plan_live_run(struct cli_call *call, yyjson_mut_doc *question);

#endif
