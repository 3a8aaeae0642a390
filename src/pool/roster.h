/* The roster: what is written down of each instance that may outlive the daemon, for the next one to find it.
 * Layer pool; the rows are values; files are read and written by whoever calls, which blocks for less than a
 * disk does (nothing is waited for: a row need not outlive the machine).
 *
 * One file an instance, DIR/PID.json, replaced as a whole. The one place that knows its form; the fields are
 * tables in roster.c. */
#ifndef POOL_ROSTER_H
#define POOL_ROSTER_H

#include "os/process.h"
#include "plan/plan.h"
#include "pool/pool.h"
#include "pool/reserve.h"
#include "runtime/runtime.h"

#define ROSTER_MAX_ARGS 256u
#define ROSTER_MAX_FILE (256u * 1024)

struct roster_row {
    /* the process */
    pid_t pid;
    uint64_t start_ticks;
    char boot[PROCESS_BOOT_CHARS];
    uint64_t command_hash; /* of its command line, once it was ready; 0 = not yet known */
    /* what it serves */
    char id[POOL_ID_MAX], model[POOL_ID_MAX * 2];
    uint32_t seat;
    uint64_t settings_hash;
    char path[4096];  /* of the model's file that it has loaded */
    char log[256];    /* file name of its log; "" = none */
    char version[96]; /* of the runtime */
    uint16_t port;
    bool ready, smaller; /* smaller: path is not the file that the settings name */
    double load_seconds;
    char *argv[ROSTER_MAX_ARGS]; /* as people may see it; owned */
    size_t n_argv;
    /* what it takes */
    struct plan plan;
    struct plan_machine machine;
    struct reserve reserve;
    struct runtime_measured measured;
};

void roster_row_free(struct roster_row *r); /* NULL is fine */
/* Pure. RC_INVALID: not such a row, or figures that cannot be. */
enum rc roster_parse(struct str text, struct roster_row **ret_row, struct err *err);
enum rc roster_format(const struct roster_row *r, struct buf *out, struct err *err);

/* Writes DIR/PID.json. */
enum rc roster_save(const char *dir, const struct roster_row *r, struct err *err);
void roster_drop(const char *dir, pid_t pid);

/* The rows of DIR whose processes live and are those that were written down; all others are taken away, and
 * their processes, if there are any of that number, are not touched. Only for who holds the directory's lock.
 * Free with roster_free. */
struct roster {
    struct roster_row **rows;
    size_t n;
    char *notes[16]; /* what a person should know; owned */
    size_t n_notes;
};
struct roster *roster_scan(const char *dir);
void roster_free(struct roster *r); /* NULL is fine */

#endif
