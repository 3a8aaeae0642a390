/* Compiling a tensor override. Layer plan, internal. */
#ifndef PLAN_PATTERN_H
#define PLAN_PATTERN_H

#include "base/err.h"

#include <regex.h>

/* RC_INVALID, with the reason: no regular expression, or one that would take no end of time or memory (a
 * reference to a group, more than 256 counted repetitions). Free with regfree after success only. */
enum rc pattern_compile(regex_t *re, const char *pattern, struct err *err);

#endif
