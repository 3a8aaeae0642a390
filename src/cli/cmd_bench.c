/* arriero bench: what this machine can do, measured. Layer cli; main thread.
 *
 * A signal is read from a descriptor between two short passes, so that breaking off leaves no thread, no file
 * and no half-written line behind. */
#include "cli/bench.h"

#include "base/clock.h"
#include "base/mem.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const struct cli_option options[] = {
    {"file", 'f', CLI_STR, offsetof(struct bench_options, file), "FILE",
     "host: a large file whose disk is measured (default: the largest model)", NULL},
    {"no-save", 0, CLI_FLAG, offsetof(struct bench_options, no_save), NULL,
     "do not keep the figures for the planner", NULL},
    {"prompt", 'p', CLI_TOKENS, offsetof(struct bench_options, prompt), "N",
     "model: tokens of the prompt (default 256)", NULL},
    {"tokens", 'n', CLI_TOKENS, offsetof(struct bench_options, tokens), "N",
     "model: tokens to write (default 64)", NULL},
    {"repeat", 'r', CLI_U32, offsetof(struct bench_options, repeat), "N",
     "model: runs (default 3); proxy: requests each way (default 50)", NULL},
    {.type = CLI_END},
};

/* ---- signals and progress ---- */

static void set_of_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
}

void bench_watch_start(struct bench_watch *w)
{
    sigset_t set;
    set_of_signals(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
    *w = (struct bench_watch){.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
                              .terminal = output_is_terminal(stderr)};
}

static bool was_signalled(void *arg)
{
    struct bench_watch *w = arg;
    struct signalfd_siginfo info;
    if (w->signals >= 0 && read(w->signals, &info, sizeof info) == (ssize_t)sizeof info)
        w->ended = true;
    return w->ended;
}

static void show(void *arg, const char *what, double share)
{
    struct bench_watch *w = arg;
    if (!w->terminal)
        return;
    fprintf(stderr, "\r\033[Kmeasuring %s … %.0f %%", what, share * 100);
    fflush(stderr);
    w->shown = true;
}

static void wipe(struct bench_watch *w)
{
    if (w->shown)
        fputs("\r\033[K", stderr);
    w->shown = false;
}

void bench_watch_stop(struct bench_watch *w)
{
    sigset_t set;
    set_of_signals(&set);
    (void)was_signalled(w); /* else it would end us once it is unblocked */
    if (w->signals >= 0)
        close(w->signals);
    w->signals = -1;
    wipe(w);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

struct hw_bench_control bench_control(struct bench_watch *w)
{
    return (struct hw_bench_control){.cancelled = was_signalled, .progress = show, .arg = w};
}

int bench_fail(const struct cli_call *call, const struct bench_watch *w, const struct err *err)
{
    if (!w->ended)
        return cli_fail(call, err);
    fputs("arriero: broken off; nothing was kept\n", stderr);
    return 130;
}

/* ---- keeping ---- */

bool bench_save(const struct bench_figure *figures, size_t n, struct err *err)
{
    char path[4200], machine[65];
    struct store_options opt;
    struct store *store;
    knowledge_path(path, sizeof path);
    knowledge_machine_name(machine, sizeof machine);
    store_options_default(&opt);
    if (store_open_with(path, &opt, &store, err) != RC_OK)
        return false;
    int64_t now = clock_wall_ms();
    for (size_t i = 0; i < n; i++)
        if (figures[i].value > 0)
            store_post_figure(store, &(struct store_figure){.wall_ms = now,
                                                            .machine = machine,
                                                            .device = figures[i].device,
                                                            .name = figures[i].name,
                                                            .value = figures[i].value});
    bool written = store_flush(store, 5000);
    struct store_health health;
    store_health(store, &health);
    store_close(store);
    if (written)
        return true;
    enum rc rc = err_set(err, RC_IO, "the figures were not kept: %s", health.message);
    err_hint(err, "they are printed here all the same; the planner will not know them");
    return rc == RC_OK;
}

void bench_warn(const struct err *err)
{
    fprintf(stderr, "arriero: %s\n", err->message);
    if (err->hint[0])
        fprintf(stderr, "  hint: %s\n", err->hint);
}

/* ---- the command ---- */

static const struct {
    const char *name;
    int (*run)(struct cli_call *call);
    size_t args; /* beside its name */
} subjects[] = {
    {"host", bench_host, 0}, {"gpu", bench_gpu, 0}, {"model", bench_model, 1}, {"proxy", bench_proxy, 1}};

static int run(struct cli_call *call)
{
    struct err err;
    for (size_t i = 0; i < TABLE_COUNT(subjects); i++) {
        if (strcmp(call->args[0], subjects[i].name) != 0)
            continue;
        if (call->n_args == 1 + subjects[i].args)
            return subjects[i].run(call);
        (void)err_set(&err, RC_INVALID, "bench %s takes %s", subjects[i].name,
                      subjects[i].args ? "a model" : "no argument");
        err_hint(&err, "usage: arriero bench %s%s", subjects[i].name, subjects[i].args ? " MODEL" : "");
        return cli_usage(call, &err);
    }
    (void)err_set(&err, RC_INVALID, "\"%s\" is nothing to measure", call->args[0]);
    err_hint(&err, "host, gpu, model MODEL or proxy MODEL");
    return cli_usage(call, &err);
}

const struct cli_command cmd_bench = {
    .name = "bench",
    .group = "Plan",
    .synopsis = "host | gpu | model MODEL | proxy MODEL [OPTION]…",
    .summary = "measure this machine, a model, or the relay",
    .details =
        "host: how fast the memory is read by one thread and by several, what the cores compute in single "
        "precision and in the 8-bit integers of quantised models, and how fast a model file comes from its "
        "disk past the page cache.\n\n"
        "gpu: of every NVIDIA GPU the bandwidth of its memory, the transfer to it and from it, and a 4096³ "
        "product in half precision. Uses the driver's and cuBLAS's own libraries; at most 512 MiB of device "
        "memory, and only where they are free.\n\n"
        "model MODEL: asks the running daemon for a prompt of random tokens and for tokens written after it, "
        "and "
        "shows the best speeds beside those that the daemon predicts. The daemon learns from it as from "
        "every "
        "request.\n\n"
        "proxy MODEL: the time that the daemon adds to a request: the same short request through the daemon "
        "and "
        "straight to the model's own server, in turns. Send no other requests meanwhile.\n\n"
        "The figures of host and gpu are kept in the history and used by arriero plan and the daemon (from "
        "its next start "
        "on). "
        "Nothing is written elsewhere. Ctrl-C breaks off and keeps nothing.",
    .options_size = sizeof(struct bench_options),
    .options = options,
    .min_args = 1,
    .max_args = 2,
    .run = run,
};
