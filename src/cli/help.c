/* Help texts out of the tables of commands and options. Layer cli; main thread; writes into buffers only. */
#include "cli/cli_priv.h"

#include <string.h>

enum { WIDTH = 80, OPTION_COLUMN = 28 };

static void put_paragraph(struct buf *out, struct str p, size_t indent, size_t width)
{
    size_t column = 0;
    p = str_trim(p);
    while (p.n) {
        size_t n = 0;
        while (n < p.n && p.p[n] != ' ' && p.p[n] != '\n')
            n++;
        struct str word = {p.p, n};
        size_t w = text_width(word);
        if (column && column + 1 + w > width) {
            buf_puts(out, "\n");
            column = 0;
        }
        if (column)
            buf_puts(out, " ");
        else
            buf_printf(out, "%*s", (int)indent, "");
        column += (column ? 1 : indent) + w;
        buf_put_str(out, word);
        p = str_trim((struct str){p.p + n, p.n - n});
    }
    buf_puts(out, "\n");
}

void help_fill(struct buf *out, const char *text, size_t indent, size_t width)
{
    struct str rest = str_from(text);
    struct buf paragraph = {0};
    while (rest.n) {
        struct str line = str_cut(&rest, '\n');
        bool kept = str_starts(line, "  ");
        if ((line.n == 0 || kept) && paragraph.n) {
            put_paragraph(out, buf_str(&paragraph), indent, width);
            buf_clear(&paragraph);
        }
        if (line.n == 0 || kept) {
            buf_printf(out, "%*s%.*s\n", line.n ? (int)indent : 0, "", STR_ARG(line));
        } else {
            buf_put_str(&paragraph, line);
            buf_puts(&paragraph, " ");
        }
    }
    if (paragraph.n)
        put_paragraph(out, buf_str(&paragraph), indent, width);
    buf_release(&paragraph);
}

static void put_option(struct buf *out, const struct cli_option *o)
{
    struct buf left = {0}, right = {0};
    if (o->short_name)
        buf_printf(&left, "  -%c, --%s", o->short_name, o->name);
    else
        buf_printf(&left, "      --%s", o->name);
    if (o->metavar)
        buf_printf(&left, " %s", o->metavar);
    size_t w = text_width(buf_str(&left));
    buf_put_str(out, buf_str(&left));
    if (w + 2 > OPTION_COLUMN) {
        buf_puts(out, "\n");
        w = 0;
    }
    help_fill(&right, o->help ? o->help : "", OPTION_COLUMN, WIDTH);
    /* the first line continues the one with the name */
    buf_printf(out, "%*s%s", (int)(OPTION_COLUMN - w), "",
               right.n > OPTION_COLUMN ? right.data + OPTION_COLUMN : "\n");
    buf_release(&left);
    buf_release(&right);
}

void help_command(const struct cli_command *cmd, struct buf *out)
{
    bool synopsis = cmd->synopsis && cmd->synopsis[0];
    buf_printf(out, "arriero %s%s%s\n\n", cmd->name, synopsis ? " " : "", synopsis ? cmd->synopsis : "");
    help_fill(out, cmd->summary, 2, WIDTH);
    if (cmd->details) {
        buf_puts(out, "\n");
        help_fill(out, cmd->details, 2, WIDTH);
    }
    buf_puts(out, "\nOptions:\n");
    for (const struct cli_option *o = cmd->options; o && o->type != CLI_END; o++)
        put_option(out, o);
    for (const struct cli_option *g = cli_global_options; g->type != CLI_END; g++) {
        bool hidden_by_own = strcmp(g->name, "version") == 0;
        for (const struct cli_option *o = cmd->options; o && o->type != CLI_END; o++)
            hidden_by_own |= strcmp(o->name, g->name) == 0;
        if (!hidden_by_own)
            put_option(out, g);
    }
}

void help_overview(struct buf *out)
{
    size_t n;
    const struct cli_command *const *commands = cli_commands(&n);
    buf_puts(out, "arriero: serves the language models of this machine, each where it fits best.\n\n"
                  "Usage: arriero COMMAND [OPTION…] [ARGUMENT…]\n");
    for (size_t i = 0; i < n; i++) {
        if (commands[i]->hidden)
            continue;
        /* groups in the order of their first command */
        bool seen = false;
        for (size_t k = 0; k < i; k++)
            seen |= !commands[k]->hidden && strcmp(commands[k]->group, commands[i]->group) == 0;
        if (seen)
            continue;
        buf_printf(out, "\n%s:\n", commands[i]->group);
        for (size_t k = i; k < n; k++)
            if (!commands[k]->hidden && strcmp(commands[k]->group, commands[i]->group) == 0)
                buf_printf(out, "  %-12s %s\n", commands[k]->name, commands[k]->summary);
    }
    buf_puts(out, "\nEvery command takes --json and --help. More: arriero help COMMAND\n");
}
