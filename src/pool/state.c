/* The states of an instance: which may follow which. Layer pool; loop thread. See pool_priv.h.
 *
 * Every change is told with its reason (the hook `transition`): that of the latest decision about the
 * instance, or what instance_because says of changes that nobody decided. A reason serves for one change. */
#include "pool/pool_priv.h"

#include <stdarg.h>
#include <stdio.h>

/* from → to */
static const bool allowed[POOL_STATES][POOL_STATES] = {
    [POOL_PLANNED] = {[POOL_STARTING] = true, [POOL_STOPPED] = true, [POOL_FAILED] = true},
    [POOL_STARTING] = {[POOL_READY] = true, [POOL_DRAINING] = true, [POOL_FAILED] = true},
    [POOL_READY] = {[POOL_DRAINING] = true, [POOL_FAILED] = true},
    [POOL_DRAINING] = {[POOL_STOPPED] = true},
};

const char *pool_state_word(enum pool_state s)
{
    static const char *const words[POOL_STATES] = {
        [POOL_PLANNED] = "planned",   [POOL_STARTING] = "starting", [POOL_READY] = "ready",
        [POOL_DRAINING] = "draining", [POOL_STOPPED] = "stopped",   [POOL_FAILED] = "failed",
    };
    return (unsigned)s < POOL_STATES ? words[s] : "unknown";
}

bool state_may_follow(enum pool_state from, enum pool_state to)
{
    return (unsigned)from < POOL_STATES && (unsigned)to < POOL_STATES && allowed[from][to];
}

void instance_because(struct pool_instance *i, const char *code, const char *fmt, ...)
{
    va_list ap;
    i->why.code = code;
    va_start(ap, fmt);
    vsnprintf(i->why.text, sizeof i->why.text, fmt, ap);
    va_end(ap);
}

static void tell(struct pool_instance *i, enum pool_state from)
{
    const struct pool_hooks *hooks = &i->pool->opt.hooks;
    struct pool_transition t = {.wall_ms = i->pool->deps.wall_ms(),
                                .instance = i->id,
                                .model = i->model,
                                .from = from,
                                .to = i->state,
                                .why = i->why,
                                .pid = i->job ? i->pool->deps.launch->pid(i->job) : 0,
                                .port = i->port};
    i->why.code = NULL;
    if (!t.why.code) /* a bug, and none to die of: the walk over all changes in the tests looks for it */
        reason_set(&t.why, "untold", "no reason was given");
    if (hooks->transition)
        hooks->transition(hooks->arg, &t);
}

void instance_born(struct pool_instance *i)
{
    i->state = POOL_PLANNED;
    i->since_ms = i->pool->deps.now_ms();
    tell(i, POOL_STATES);
}

void instance_set_state(struct pool_instance *i, enum pool_state s)
{
    enum pool_state from = i->state;
    if (!state_may_follow(from, s))
        abort(); /* a bug: the table above is the whole life of an instance */
    i->state = s;
    i->pool->room_changed = true;
    i->since_ms = i->pool->deps.now_ms();
    tell(i, from);
}
