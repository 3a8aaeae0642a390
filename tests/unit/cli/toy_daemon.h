/* A daemon for tests of commands: answers each request on its Unix socket and its TCP port with the row whose
 * request line begins the same way, and keeps what was asked. One thread, one connection at a time. */
#ifndef TESTS_CLI_TOY_DAEMON_H
#define TESTS_CLI_TOY_DAEMON_H

#include "base/buf.h"

#include <pthread.h>

struct toy_answer {
    const char *request; /* beginning of the request line: "GET /api/arriero/v1/instances" */
    int status;
    const char *body; /* "@HANG": a head, a part of a stream, then nothing until the client is gone */
};

struct toy_daemon {
    const struct toy_answer *answers; /* ends with request NULL */
    char dir[64], path[96];
    uint16_t port;
    int unix_fd, tcp_fd, stop_fd;
    int hang_fd;         /* an eventfd that is written when an answer hangs */
    struct buf requests; /* all of them, one after the other; read after stop */
    pthread_t thread;
};

void toy_daemon_start(struct toy_daemon *d, const struct toy_answer *answers);
void toy_daemon_stop(struct toy_daemon *d); /* requests stay until buf_release */

/* Runs cli_main with the words (ends with NULL); stdout and stderr are captured. Returns the exit status. */
int toy_run(struct buf *out, struct buf *err, const char *const *words);
#define TOY_RUN(out, err, ...) toy_run((out), (err), (const char *const[]){"arriero", __VA_ARGS__, NULL})

#endif
