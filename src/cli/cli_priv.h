/* What the files of cli/ share beside cli.h: parsing, help texts, names, terminal text. Layer cli; main
 * thread; no state. */
#ifndef CLI_CLI_PRIV_H
#define CLI_CLI_PRIV_H

#include "cli/cli.h"

#include <stdio.h>

/* ---- options.c ---- */
/* The options that every command understands; ends with CLI_END. Offsets are into struct cli_globals. */
struct cli_globals {
    bool json, help, version;
    const char *socket;
};
extern const struct cli_option cli_global_options[];

/* Parses what follows the command's name into call->options (allocated and given its defaults by the caller),
 * call->args and *globals. A command's own option hides a global one of the same name. RC_INVALID with a
 * message for people; *call may then hold a part of the values. */
enum rc options_parse(const struct cli_command *cmd, int argc, char **argv, struct cli_call *call,
                      struct cli_globals *globals, struct err *err);
/* Parses the global options before the command's name; *ret_used is how many arguments they took. */
enum rc options_parse_globals(int argc, char **argv, struct cli_globals *globals, int *ret_used,
                              struct err *err);
/* The name of `names` that word most likely means, or NULL when none is near. */
const char *options_nearest(struct str word, const char *const *names, size_t n);
bool option_takes_value(const struct cli_option *o);

/* ---- help.c ---- */
void help_overview(struct buf *out);
void help_command(const struct cli_command *cmd, struct buf *out);
/* One paragraph or several (separated by an empty line), filled to `width` columns, each line behind `indent`
 * spaces; lines that start with two spaces are kept as they are. */
void help_fill(struct buf *out, const char *text, size_t indent, size_t width);

/* ---- output.c ---- */
bool output_is_terminal(FILE *f);
bool output_wants_color(FILE *f); /* a terminal, NO_COLOR unset or empty, TERM not "dumb" */
size_t output_width(void);        /* columns of the terminal on stdout; of a pipe what COLUMNS says, else 0 */
/* Writes the buffer's content to stdout and releases it. */
void output_buf(struct buf *b);

/* ---- text.c ---- */
/* Appends s as safe terminal text: control characters become spaces (a newline too unless keep_newlines),
 * broken UTF-8 becomes U+FFFD. */
void text_put_safe(struct buf *out, struct str s, bool keep_newlines);
/* Columns that safe text takes. */
size_t text_width(struct str s);
/* How many bytes of safe text fit into `width` columns. */
size_t text_fit(struct str s, size_t width);

/* ---- shelf.c ---- */
/* The models that are found without being given a path: in the directories that the configuration names, in
 * those that a running daemon was told besides, and, if the configuration allows them, in the usual places.
 * Errors: catalog_scan's. */
struct catalog;
enum rc shelf_scan(const struct cli_call *call, bool usual_caches, struct catalog **ret_catalog,
                   struct err *err);

/* ---- machine.c ---- */
/* The machine as it is now, with the workers that the configuration names. May block for seconds. */
struct hw_inventory;
enum rc cli_inventory(struct hw_inventory *ret_inventory, struct err *err);

/* ---- table.c ---- */
/* Renders without freeing; max_width 0 = as wide as it needs. */
void cli_table_render(const struct cli_table *t, size_t max_width, bool color, struct buf *out);
void cli_table_free(struct cli_table *t); /* NULL is fine */

#endif
