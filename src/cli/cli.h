/* The command line: a table of commands, each with a table of options; help, completion and errors come from
 * the tables. Layer cli; main thread. Exit status: 0 ok, 1 failed, 2 usage. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"

enum cli_type {
    CLI_END,
    CLI_FLAG,    /* bool: --json; */
    CLI_NO_FLAG, /* bool set to false: --no-repack */
    CLI_STR,     /* const char * (borrowed from argv) */
    CLI_U32,     /* uint32_t, decimal */
    CLI_TOKENS,  /* uint32_t; "4k" is 4096 */
    CLI_I32_ALL, /* int32_t; "all" gives -1 */
    CLI_U64_MIB, /* uint64_t bytes, given in MiB or with a unit ("24GiB") */
    CLI_ON_OFF,  /* bool: on|off */
    CLI_LIST,    /* struct cli_list: may be repeated */
    CLI_CUSTOM,  /* parse() */
};

#define CLI_LIST_MAX 64
struct cli_list {
    const char *items[CLI_LIST_MAX];
    size_t n;
};

struct cli_option {
    const char *name; /* without dashes */
    char short_name;  /* 0 = none */
    enum cli_type type;
    size_t offset;       /* into the command's options */
    const char *metavar; /* "N", "DIR"; NULL for flags */
    const char *help;
    enum rc (*parse)(struct str value, void *field, struct err *err); /* CLI_CUSTOM */
};

#define CLI_MAX_POSITIONAL 64
struct cli_call {
    const struct cli_command *command;
    void *options; /* of command->options_size bytes, zeroed, then defaults() */
    const char *args[CLI_MAX_POSITIONAL];
    size_t n_args;
    bool json;          /* --json is understood by every command */
    const char *socket; /* --socket, else $ARRIERO_SOCKET, else NULL */
    bool color;         /* stdout is a terminal and NO_COLOR is not set */
};

struct cli_command {
    const char *name;
    const char *group;    /* heading in the help: "Look", "Run", "Plan", "Daemon" */
    const char *synopsis; /* "MODEL [--ctx N] …" */
    const char *summary;  /* one line */
    const char *details;  /* paragraphs for `arriero help NAME` and the man page; may be NULL */
    size_t options_size;
    void (*defaults)(void *options);  /* may be NULL */
    const struct cli_option *options; /* ends with CLI_END; may be NULL */
    size_t min_args, max_args;
    int (*run)(struct cli_call *call); /* exit status */
    bool hidden;                       /* works, but no list names it */
};

/* All commands in the order of the help (commands.def). */
const struct cli_command *const *cli_commands(size_t *ret_n);
const struct cli_command *cli_find(const char *name);
/* Parses argv and runs; the whole of main(). */
int cli_main(int argc, char **argv);

/* ---- for commands ---- */
/* "arriero: message" and "  hint: …" on stderr; with --json an object {"error":{…}} on stdout. Returns 1 (or
 * 2 for a usage error when rc is RC_INVALID and usage is true). */
int cli_fail(const struct cli_call *call, const struct err *err);
int cli_usage(const struct cli_call *call, const struct err *err);
/* Writes and frees the document (pretty when stdout is a terminal). Returns the exit status. */
int cli_print_json(yyjson_mut_doc *doc);
/* A text table. Cells are added row by row, from left to right; a column (except the first) whose cells all
 * start with a digit is aligned right, "" and "-" apart. Cells may hold anything: control characters and
 * broken UTF-8 never reach the terminal. On a terminal the widest columns are cut so that a row fits. */
struct cli_table;
struct cli_table *cli_table_new(const char *const *headings, size_t n_columns);
__attribute__((format(printf, 2, 3))) void cli_table_cell(struct cli_table *t, const char *fmt, ...);
void cli_table_print(struct cli_table *t); /* prints to stdout and frees */

#endif
