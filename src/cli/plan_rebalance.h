/* arriero plan --rebalance: see plan_rebalance.c. Layer cli; main thread. */
#ifndef CLI_PLAN_REBALANCE_H
#define CLI_PLAN_REBALANCE_H

#include "cli/cli_priv.h"

/* Asks the daemon and prints its answer; returns the exit status. */
int plan_rebalance_run(struct cli_call *call);

#endif
