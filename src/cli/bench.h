/* What the subcommands of `arriero bench` share. Layer cli; main thread. */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include "cli/cli_priv.h"

#include "daemon/knowledge.h"
#include "hw/bench.h"

struct bench_options {
    const char *file; /* host: whose disk is measured */
    bool no_save;
    uint32_t prompt, tokens, repeat; /* model, proxy; 0 = the subject's own default */
};

/* SIGINT and SIGTERM as a question, and a line of progress on a terminal's stderr. */
struct bench_watch {
    int signals; /* a signalfd; -1 = none */
    bool shown;  /* a line of progress stands */
    bool ended;  /* a signal has come */
    bool terminal;
};
void bench_watch_start(struct bench_watch *w);
void bench_watch_stop(struct bench_watch *w); /* wipes the line, gives the signals back */
struct hw_bench_control bench_control(struct bench_watch *w);
/* 130 after a signal, with nothing printed but a word on stderr; else cli_fail. */
int bench_fail(const struct cli_call *call, const struct bench_watch *w, const struct err *err);

/* Figures on their way into the history. */
struct bench_figure {
    const char *device, *name;
    double value;
};
/* False and *err when they could not be written. */
bool bench_save(const struct bench_figure *figures, size_t n, struct err *err);
void bench_warn(const struct err *err); /* on stderr; the command goes on */

int bench_host(struct cli_call *call);
int bench_gpu(struct cli_call *call);
int bench_model(struct cli_call *call);
int bench_proxy(struct cli_call *call);

#endif
