/* What a name that a client asks for stands for: a model, the members of a group, and who stands in. Layer
 * daemon; pure. */
#ifndef DAEMON_CHOICE_H
#define DAEMON_CHOICE_H

#include "daemon/model_set.h"

#define CHOICE_MAX 16

struct choice {
    struct str names[CHOICE_MAX]; /* borrowed from the set, its configuration, or from what was asked */
    size_t n;
    size_t n_members; /* the first so many are equal: whoever is least busy; the others in their order */
};

/* What a request means that names this model, or none: itself, the default model, or the only one; empty if
 * there is no such. */
struct str choice_meant(const struct model_set *s, struct str asked);

/* asked may be empty: then the default model, or the only one. known: the id that the pool knows what was
 * asked for by, or NULL. RC_INVALID: no model is named and none is the default. */
enum rc choice_make(const struct model_set *s, struct str asked, const char *known, struct choice *ret,
                    struct err *err);

/* Whether the next of a choice is asked after this answer of the one before. */
bool choice_goes_on(enum rc rc);

#endif
