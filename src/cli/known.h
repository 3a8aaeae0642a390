/* What was measured and learned, for commands that plan without the daemon. Layer cli; main thread. */
#ifndef CLI_KNOWN_H
#define CLI_KNOWN_H

#include "cli/cli_priv.h"

#include "daemon/knowledge.h"

/* The history's knowledge, applied to the machine for this model. Never fails: see k->note. A reference for
 * the caller (knowledge_free). */
struct knowledge *known_apply(const struct model *m, bool flash_attn, struct plan_machine *machine);
/* Where the figures come from, and how old they are: a line or two, an object "figures". */
void known_print(const struct knowledge *k);
void known_json(yyjson_mut_doc *doc, yyjson_mut_val *root, const struct knowledge *k);

#endif
