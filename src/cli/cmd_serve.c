/* arriero serve: the daemon in the foreground. Layer cli; main thread. */
#include "cli/cli_priv.h"

#include "base/mem.h"
#include "daemon/daemon.h"

#include <stddef.h>
#include <string.h>

struct serve_options {
    const char *config, *runtime, *state_dir, *log_level;
    struct cli_list listen, models;
    bool no_config, no_caches, insecure;
};

static const struct cli_option options[] = {
    {"config", 'c', CLI_STR, offsetof(struct serve_options, config), "FILE",
     "configuration (default: config.yaml in the configuration directory, if there is one)", NULL},
    {"no-config", 0, CLI_FLAG, offsetof(struct serve_options, no_config), NULL, "read no configuration file",
     NULL},
    {"listen", 'l', CLI_LIST, offsetof(struct serve_options, listen), "ADDR:PORT",
     "address of the API (default 127.0.0.1:11435; may be repeated; port 0 picks one)", NULL},
    {"insecure", 0, CLI_FLAG, offsetof(struct serve_options, insecure), NULL,
     "listen beyond loopback even without API keys", NULL},
    {"allow-open", 0, CLI_FLAG, offsetof(struct serve_options, insecure), NULL, "the same as --insecure",
     NULL},
    {"models", 'm', CLI_LIST, offsetof(struct serve_options, models), "DIR",
     "also serve the GGUF files below DIR (may be repeated)", NULL},
    {"no-caches", 0, CLI_FLAG, offsetof(struct serve_options, no_caches), NULL,
     "do not look where other programs keep models", NULL},
    {"runtime", 'r', CLI_STR, offsetof(struct serve_options, runtime), "PATH",
     "llama-server to run models with", NULL},
    {"state-dir", 0, CLI_STR, offsetof(struct serve_options, state_dir), "DIR",
     "where history and logs are kept", NULL},
    {"log-level", 0, CLI_STR, offsetof(struct serve_options, log_level), "LEVEL",
     "error, warn, info or debug", NULL},
    {.type = CLI_END},
};

static void add(struct config_flag *flags, size_t *n, const char *path, const char *value)
{
    if (value)
        flags[(*n)++] = (struct config_flag){path, value};
}

static void print_summary(void *arg, struct str summary)
{
    (void)arg;
    fwrite(summary.p, 1, summary.n, stdout);
    fflush(stdout);
}

static int run(struct cli_call *call)
{
    const struct serve_options *o = call->options;
    struct config_flag flags[2 * CLI_LIST_MAX + 8];
    size_t n = 0;
    struct err err;
    for (size_t i = 0; i < o->listen.n; i++)
        add(flags, &n, "listen", o->listen.items[i]);
    for (size_t i = 0; i < o->models.n; i++)
        add(flags, &n, "models_dirs", o->models.items[i]);
    add(flags, &n, "usual_caches", o->no_caches ? "false" : NULL);
    add(flags, &n, "insecure", o->insecure ? "true" : NULL);
    add(flags, &n, "runtime.llama_server", o->runtime);
    add(flags, &n, "state_dir", o->state_dir);
    add(flags, &n, "log_level", o->log_level);
    add(flags, &n, "socket", call->socket);
    const struct daemon_options options_of_daemon = {
        .config = {.file = o->config, .no_file = o->no_config, .flags = flags, .n_flags = n},
        .ready = print_summary};
    return daemon_run(&options_of_daemon, &err) == RC_OK ? 0 : cli_fail(call, &err);
}

const struct cli_command cmd_serve = {
    .name = "serve",
    .group = "Daemon",
    .synopsis = "[--config FILE] [--listen ADDR:PORT] [--models DIR]… [--runtime PATH]",
    .summary = "run the daemon: one OpenAI-compatible door to every model found",
    .details =
        "Without a configuration it serves every GGUF file that it finds in the given folders and where "
        "llama.cpp, the Hugging Face hub, LM Studio and Ollama keep theirs, on 127.0.0.1:11435. A model is "
        "loaded when it is first asked for, and makes room for others when memory is short.\n\n"
        "SIGTERM and SIGINT let running requests end, stop every model and leave no process behind; a second "
        "signal hurries. With detach: true in the configuration SIGTERM leaves the models running, and the "
        "next "
        "daemon on the same state directory takes them over; SIGINT (Ctrl-C) stops them all the same. SIGHUP "
        "reads the configuration again and looks for new models; models whose "
        "settings "
        "did not change stay loaded.\n\n"
        "Every option has a key in the configuration and a variable in the environment: see arriero config "
        "keys. A flag wins over the environment, the environment over the file.",
    .options_size = sizeof(struct serve_options),
    .options = options,
    .run = run,
};
