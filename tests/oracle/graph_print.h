/* The planner's graph of one case as text, to be compared with the real one (hook_graph.c). Tests only. */
#ifndef ORACLE_GRAPH_PRINT_H
#define ORACLE_GRAPH_PRINT_H

#include "case.h"

#include <stdio.h>

/* One node a line, in the order in which they run: number, operation, type, shape, sources, strides of a
 * view; behind '#' the index of the backend. Errors as plan_estimate's. */
enum rc graph_print(const struct oracle_case *c, const struct model *m, FILE *out, struct err *err);

#endif
