/* Runtimes: programs that serve a model. Layer runtime; one file an adapter (runtime.def), each exporting one
 * const struct runtime_ops. Functions are pure or blocking as noted; none touches the loop. */
#ifndef RUNTIME_RUNTIME_H
#define RUNTIME_RUNTIME_H

#include "base/mem.h"
#include "dialect/dialect.h"
#include "plan/plan.h"

/* What one binary can do: probed once per (path, size, mtime). Value type. */
struct runtime_caps {
    char binary[512];
    char version[96]; /* "0.7.0 (build 11669)" */
    uint32_t build;   /* 0 unknown */
    uint64_t flags;   /* adapter's own bits */
    bool rpc;         /* it can use RPC workers */
    struct {
        char name[24];
        char description[96];
        uint64_t total_bytes, free_bytes;
    } devices[PLAN_MAX_DEVICES];
    size_t n_devices; /* as --list-devices tells; empty for a CPU build */
};

/* What the adapter turns into a command line. All borrowed. */
struct runtime_job {
    const struct model *model;
    const char *model_path, *mmproj_path; /* mmproj may be NULL */
    const char *served_name;              /* alias reported by the server */
    const struct plan *plan;
    const struct plan_machine *machine; /* devices that plan->used points into */
    const char *host;                   /* "127.0.0.1" */
    uint16_t port;
    const char *api_key_file;   /* NULL = none */
    const char *slot_save_path; /* NULL = none */
    bool embedding;
    const char *const *extra_args; /* from the configuration, appended last */
    size_t n_extra_args;
    const struct plan_extras *extras; /* adapters and draft model; NULL = none (its projector is not read) */
};

struct runtime_command {
    const char **argv; /* NULL-terminated, in the arena */
    const char **env;  /* complete environment, NULL-terminated, in the arena */
};

enum runtime_failure {
    RUNTIME_FAIL_NONE,
    RUNTIME_FAIL_EXIT,
    RUNTIME_FAIL_SIGNAL,
    RUNTIME_FAIL_MEMORY,
    RUNTIME_FAIL_PORT,
    RUNTIME_FAIL_MODEL,
    RUNTIME_FAIL_ARGUMENT,
    RUNTIME_FAIL_TIMEOUT,
    RUNTIME_FAIL_EXEC,
};
const char *runtime_failure_word(enum runtime_failure f);

/* The name that the i-th used device of a plan has inside the child and its log: CUDA devices are pinned by
 * UUID, so the child counts them from 0. out is at least 24 bytes; returns out. */
char *runtime_child_device(const struct plan_machine *machine, const struct plan *plan, uint32_t i, char *out,
                           size_t cap);

/* The name that it has in struct runtime_measured: the same, but a worker's device is called by its endpoint,
 * as in the log. out as above. */
char *runtime_log_device(const struct plan_machine *machine, const struct plan *plan, uint32_t i, char *out,
                         size_t cap);

/* "ENDPOINT/INDEX", cut at its beginning if it is longer than cap - 1; so runtime_log_device names a worker's
 * device. */
char *runtime_log_worker(struct str endpoint, struct str index, char *out, size_t cap);

/* RPC workers: their uuid is HOST:PORT, with /INDEX where one has several devices. A server is given only the
 * workers that its plan uses, each once, in the plan's order. */
bool runtime_is_worker(const struct plan_device *d);
struct str runtime_worker_endpoint(const struct plan_device *d); /* borrowed from d */
/* Is the i-th used device the first of its worker in the plan? */
bool runtime_worker_is_first(const struct plan_machine *machine, const struct plan *plan, uint32_t i);

struct runtime_measured { /* from the log after a load; zero parts = none seen */
    struct plan_part parts[PLAN_MAX_DEVICES + 1];
    uint64_t
        settled_bytes[PLAN_MAX_DEVICES + 1]; /* by part: graphs of contexts before the latest (a draft's) */
    size_t n_parts;
};

/* A place in which a server keeps one conversation. */
struct runtime_slot {
    uint32_t id;
    bool busy;
    uint64_t request; /* its latest; later ones have larger numbers; 0 = it had none */
    uint32_t tokens;  /* that it holds */
};

/* How a server is asked to write the state of a slot to a file in the folder that slot_save_path names, and
 * to read it again. Pure. */
struct runtime_slots {
    const char *list_path; /* GET tells all slots */
    bool (*read_list)(struct str answer, struct runtime_slot *out, size_t cap,
                      size_t *ret_n); /* false: not so */
    /* What is posted to do either; false when it does not fit. */
    bool (*ask)(bool save, uint32_t slot, const char *file, char *path, size_t path_cap, char *body,
                size_t body_cap);
    /* What the answer to it tells; false: that it was not done. */
    bool (*read_done)(struct str answer, uint32_t *ret_tokens, uint64_t *ret_bytes);
};

struct runtime_ops {
    const char *name;
    /* Blocking: runs the binary's own --version, --help, --list-devices with deadlines (5 s each). */
    enum rc (*probe)(const char *binary, struct runtime_caps *ret_caps, struct err *err);
    /* Pure: what a current build can do, for command lines where none is installed. */
    void (*assume)(const char *binary, struct runtime_caps *ret_caps);
    /* Pure. Everything is allocated in the arena. */
    enum rc (*command)(const struct runtime_caps *caps, const struct runtime_job *job, struct arena *arena,
                       struct runtime_command *ret_command, struct err *err);
    const char *health_path; /* GET; 200 ready, 503 loading */
    /* Static texts, or NULL: what makes it write while it reads a prompt, so that it notices a client that
     * left: put behind "stream":true in a body, and the mark of the events that it then sends. */
    const char *wake_member, *wake_event;
    /* The same for requests that do not stream; see route.h of the proxy. */
    const char *collect_members;
    unsigned speaks; /* DIALECT_BITs of the APIs that it answers itself; OPENAI is always among them */
    const struct runtime_slots *slots; /* NULL = it keeps no conversation in a file */
    /* Pure: one log line, with its newline cut off; updates *measured and returns a progress 0…1, or -1. */
    double (*log_line)(struct str line, struct runtime_measured *measured);
    /* Pure: why it died, from its wait status and the tail of its log; message for a person, and a hint
     * where there is one. */
    enum runtime_failure (*classify)(int wait_status, struct str log_tail, struct err *ret_cause);
};

/* By name; NULL when there is none. */
const struct runtime_ops *runtime_find(struct str name);
const struct runtime_ops *const *runtime_all(size_t *ret_n);

/* Whether children do not inherit the variable: its name says that it is a secret (it ends like _KEY or
 * _TOKEN), or it is a setting of our own (ARRIERO_…). */
bool runtime_is_secret(struct str name);

/* The environment of every child, probes too: ours without such variables, without entries that begin with
 * one of drop, and with those of add; lists end with NULL, strings are borrowed. False when cap pointers are
 * too few. */
bool runtime_child_env(const char *const *drop, const char *const *add, const char **out, size_t cap);

/* The i-th argument as people may see it: "***" for the value of an option that is a secret. A new string. */
char *runtime_shown_arg(const char *const *args, size_t i);

/* Finds the binary: explicit path, else $ARRIERO_LLAMA_SERVER, else PATH, else the bundle under the data
 * directory. RC_NOT_FOUND with a hint that says how to get one. ret_path is at least 512 bytes. */
enum rc runtime_find_llama_server(const char *explicit_path, char *ret_path, size_t cap, struct err *err);

#endif
