/* Why a process ended: see death.h.
 *
 * SIGKILL leaves no word in a log: the kernel sends it when memory runs out, people send it too. The kernel
 * counts what it kills for want of memory, so a count that has not moved clears it of that. */
#include "pool/death.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#define ROOM "lower its context or the number of slots, allow a quantised KV cache, or unload other models"

enum end { END_KILLED, END_ASKED, END_OTHER };

/* The first row that fits counts. */
static const struct {
    enum end end;
    enum oom_verdict oom;
    enum runtime_failure failure;
    enum rc code;
    const char *said, *hint;
} rows[] = {
    {END_KILLED, OOM_NAMED, RUNTIME_FAIL_MEMORY, RC_NOMEM,
     "the kernel did it, for memory had run out (its log names the process)", ROOM},
    {END_KILLED, OOM_GROUP, RUNTIME_FAIL_MEMORY, RC_NOMEM,
     "the kernel did it: the memory of this control group had run out", ROOM},
    {END_KILLED, OOM_SOMEONE, RUNTIME_FAIL_MEMORY, RC_NOMEM,
     "most likely by the kernel: the machine's memory ran out at that moment", ROOM},
    {END_KILLED, OOM_NONE, RUNTIME_FAIL_SIGNAL, RC_BACKEND, "not by the kernel, for memory had not run out",
     "arriero did not send that signal: look for people, scripts or services that kill processes"},
    {END_ASKED, OOM_UNKNOWN, RUNTIME_FAIL_EXIT, RC_BACKEND,
     "as if somebody had asked it to (SIGTERM or SIGINT), and arriero did not",
     "look for people, scripts or services that stop processes"},
};

static enum end end_of(const struct death *d)
{
    if (WIFSIGNALED(d->wait_status)) {
        int signo = WTERMSIG(d->wait_status);
        return signo == SIGKILL ? END_KILLED : signo == SIGTERM || signo == SIGINT ? END_ASKED : END_OTHER;
    }
    return WIFEXITED(d->wait_status) && WEXITSTATUS(d->wait_status) == 0 ? END_ASKED : END_OTHER;
}

enum runtime_failure death_explain(const struct death *d, struct err *cause)
{
    enum end end = end_of(d);
    if (d->told != RUNTIME_FAIL_EXIT && d->told != RUNTIME_FAIL_SIGNAL && end != END_KILLED)
        return d->told; /* its log has told */
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        if (rows[i].end != end || (end == END_KILLED && rows[i].oom != d->oom))
            continue;
        char what[sizeof cause->message];
        snprintf(what, sizeof what, "%s", cause->message);
        (void)err_set(cause, rows[i].code, "%.300s: %s", what, rows[i].said);
        err_hint(cause, "%s", rows[i].hint);
        return rows[i].failure;
    }
    return d->told;
}
