/* Commands that listen until they are told to stop: see control.h. */
#include "cli/control.h"

#include "base/mem.h"

#include <stdio.h>
#include <sys/signalfd.h>
#include <unistd.h>

void control_interrupt_begin(struct control_interrupt *i)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, &i->old);
    i->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

void control_interrupt_end(struct control_interrupt *i)
{
    if (i->fd >= 0) {
        struct signalfd_siginfo drained; /* else it would end us once it is unblocked */
        while (read(i->fd, &drained, sizeof drained) > 0)
            ;
        close(i->fd);
    }
    sigprocmask(SIG_SETMASK, &i->old, NULL);
}

struct follower {
    struct sse sse;
    sse_event_fn fn;
    void *arg;
    enum rc rc;
    struct err err;
};

static bool on_piece(void *arg, struct str piece)
{
    struct follower *f = arg;
    f->rc = sse_feed(&f->sse, piece, f->fn, f->arg, &f->err);
    fflush(stdout);
    return f->rc == RC_OK && !ferror(stdout);
}

int control_follow(const struct cli_call *call, const char *path, sse_event_fn fn, void *arg)
{
    struct client_address address;
    struct control_interrupt interrupt;
    struct err err;
    if (client_address_control(call->socket, &address, &err) != RC_OK)
        return cli_fail(call, &err);
    struct follower f = {.fn = fn, .arg = arg};
    auto_free char *full = mem_printf(CONTROL_API "%s", path);
    control_interrupt_begin(&interrupt);
    struct client_request r = {.method = "GET", .path = full, .cancel_fd = interrupt.fd};
    enum rc rc = client_stream(&address, &r, on_piece, &f, &err);
    control_interrupt_end(&interrupt);
    sse_release(&f.sse);
    if (rc == RC_CANCELLED)
        return CONTROL_INTERRUPTED;
    if (rc == RC_OK && f.rc != RC_OK && f.rc != RC_CANCELLED)
        return cli_fail(call, &f.err);
    if (rc != RC_OK)
        return cli_fail(call, &err);
    fputs("arriero: the daemon has ended the connection\n", stderr);
    return 0;
}
