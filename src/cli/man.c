/* Man pages: see man.h. The page has every command, so that one search finds everything. */
#include "cli/man.h"

#include "cli/cli_priv.h"

#include <string.h>

static void put_escaped(struct buf *out, struct str s, bool at_line_start)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (at_line_start && (c == '.' || c == '\''))
            buf_puts(out, "\\&");
        at_line_start = c == '\n';
        if (c == '\\')
            buf_puts(out, "\\e");
        else if (c == '-')
            buf_puts(out, "\\-");
        else
            buf_append(out, &c, 1);
    }
}

void man_text(struct buf *out, const char *s)
{
    put_escaped(out, str_from(s), true);
}

void man_paragraphs(struct buf *out, const char *text)
{
    struct str rest = str_from(text);
    bool example = false, first = true;
    while (rest.n) {
        struct str line = str_cut(&rest, '\n');
        bool kept = str_starts(line, "  ");
        if (example && !kept)
            buf_puts(out, ".EE\n.RE\n");
        if (!example && kept)
            buf_puts(out, ".PP\n.RS 4\n.EX\n");
        example = kept;
        if (line.n == 0) {
            first = true;
            continue;
        }
        if (first && !kept)
            buf_puts(out, ".PP\n");
        first = false;
        put_escaped(out, kept ? (struct str){line.p + 2, line.n - 2} : line, true);
        buf_puts(out, "\n");
    }
    if (example)
        buf_puts(out, ".EE\n.RE\n");
}

static void put_option(struct buf *out, const struct cli_option *o)
{
    buf_puts(out, ".TP\n");
    if (o->short_name)
        buf_printf(out, "\\fB\\-%c\\fR, ", o->short_name);
    buf_puts(out, "\\fB\\-\\-");
    man_text(out, o->name);
    buf_puts(out, "\\fR");
    if (o->metavar) {
        buf_puts(out, " \\fI");
        put_escaped(out, str_from(o->metavar), false);
        buf_puts(out, "\\fR");
    }
    buf_puts(out, "\n");
    man_text(out, o->help ? o->help : "");
    if (o->type == CLI_LIST)
        buf_puts(out, " (may be repeated)");
    buf_puts(out, "\n");
}

static void put_command(struct buf *out, const struct cli_command *cmd)
{
    buf_puts(out, ".SS \"arriero ");
    put_escaped(out, str_from(cmd->name), false);
    if (cmd->synopsis && cmd->synopsis[0]) {
        buf_puts(out, " ");
        put_escaped(out, str_from(cmd->synopsis), false);
    }
    buf_puts(out, "\"\n");
    man_text(out, cmd->summary);
    buf_puts(out, ".\n");
    if (cmd->details)
        man_paragraphs(out, cmd->details);
    for (const struct cli_option *o = cmd->options; o && o->type != CLI_END; o++)
        put_option(out, o);
}

static const struct {
    const char *name, *text;
} variables[] = {
    {"ARRIERO_SOCKET", "the control socket of the daemon, when --socket is not given"},
    {"ARRIERO_CACERT",
     "the certificates that \"arriero ask --url https://…\" trusts, in place of the system's"},
    {"ARRIERO_API_KEY", "the key that \"arriero ask\" sends"},
    {"NO_COLOR", "not empty: no colours"},
    {"XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_STATE_HOME, XDG_CACHE_HOME, XDG_RUNTIME_DIR",
     "where configuration, models, history, cached facts and the control socket live"},
};

void man_program(struct buf *out)
{
    size_t n;
    const struct cli_command *const *commands = cli_commands(&n);
    buf_puts(
        out,
        ".\\\" made by \"arriero man\" from the tables of commands and options\n"
        ".TH ARRIERO 1 \"\" \"arriero " ARRIERO_VERSION "\" \"User Commands\"\n"
        ".SH NAME\narriero \\- serves the language models of this machine, each where it fits best\n"
        ".SH SYNOPSIS\n.B arriero\n.I COMMAND\n[\\fIOPTION\\fR…] [\\fIARGUMENT\\fR…]\n.SH DESCRIPTION\n");
    man_paragraphs(
        out, "arriero is a daemon and its command line. The daemon knows the machine's GPUs and every GGUF "
             "model file, predicts to the byte what a load will take, places models on GPUs and CPU, starts "
             "and supervises llama-server for each, loads and unloads them as requests come, and gives "
             "clients one OpenAI-compatible door to all of them.\n\n"
             "With no configuration it serves every model it finds:\n\n"
             "  arriero serve");
    buf_puts(out, ".SH COMMON OPTIONS\n");
    for (const struct cli_option *o = cli_global_options; o->type != CLI_END; o++)
        put_option(out, o);
    buf_puts(out, ".SH COMMANDS\n");
    for (size_t i = 0; i < n; i++)
        if (!commands[i]->hidden)
            put_command(out, commands[i]);
    buf_puts(out, ".SH ENVIRONMENT\n");
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        buf_puts(out, ".TP\n.B ");
        man_text(out, variables[i].name);
        buf_puts(out, "\n");
        man_text(out, variables[i].text);
        buf_puts(out, "\n");
    }
    buf_puts(
        out,
        ".SH EXIT STATUS\n"
        "0: done. 1: it failed, with the reason and a hint on standard error (with \\-\\-json on standard "
        "output). 2: the command line is wrong. 130: interrupted.\n"
        ".SH SEE ALSO\n.BR arriero.yaml (5),\n.BR llama\\-server (1)\n");
}
