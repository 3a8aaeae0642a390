/* llama-server's log: buffer sizes, progress, and why it died. Layer runtime; pure. The texts were taken from
 * logs of llama.cpp 0.7.0 (build 11669) and, for CUDA, from logs of builds since 2024; a text that changes
 * loses a figure or a hint, never a decision about life and death, which follow the wait status and /health.
 */
#include "runtime/llamacpp_priv.h"

#include <ctype.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

/* ---- sizes and progress ---- */

enum part_field { PART_MODEL, PART_CONTEXT, PART_COMPUTE, PART_OVERHEAD };

static const struct {
    const char *text;
    enum part_field field;
} buffers[] = {
    {" model buffer size", PART_MODEL},     {" KV buffer size", PART_CONTEXT},
    {" RS buffer size", PART_CONTEXT},      {" compute buffer size", PART_COMPUTE},
    {" output buffer size", PART_OVERHEAD}, {" LoRA buffer size", PART_MODEL},
};

static const struct {
    const char *text;
    double progress;
} steps[] = {
    {"load_tensors: loading model tensors", 0.05},
    {"constructing llama_context", 0.85},
    {"warming up the model", 0.9},
    {"server is listening on", 1.0},
    {"listening on http", 1.0},
    {"model loaded", 0.98},
    {"loading model", 0.02},
};

/* "RPC0[127.0.0.1:50052]": the number counts the devices of that worker. */
static bool worker_name(struct str raw, char *out, size_t cap)
{
    struct str endpoint = raw, number = str_cut(&endpoint, '[');
    if (!str_starts(raw, "RPC") || !str_ends(endpoint, "]"))
        return false;
    endpoint.n--;
    number.p += strlen("RPC");
    number.n -= strlen("RPC");
    runtime_log_worker(endpoint, number, out, cap);
    return true;
}

/* "CPU_Mapped", "CUDA_Host" and their like are RAM. */
static void device_name(struct str raw, char *out, size_t cap, bool *ret_host)
{
    *ret_host = false;
    if (worker_name(raw, out, cap))
        return;
    if (str_ends(raw, "_Split"))
        raw.n -= strlen("_Split");
    *ret_host = str_starts(raw, "CPU") || str_ends(raw, "_Host") || str_starts(raw, "AMX") ||
                str_eq_c(raw, "Host") || str_starts(raw, "BLAS");
    if (*ret_host)
        snprintf(out, cap, "Host");
    else
        snprintf(out, cap, "%.*s", STR_ARG(raw));
}

static struct plan_part *part_of(struct runtime_measured *m, const char *name, bool host)
{
    bool remote = strchr(name, ':') != NULL;
    for (size_t i = 0; i < m->n_parts; i++)
        if (strcmp(m->parts[i].name, name) == 0)
            return &m->parts[i];
    if (m->n_parts == TABLE_COUNT(m->parts))
        return NULL;
    struct plan_part *p = &m->parts[m->n_parts++];
    *p = (struct plan_part){.kind = host ? PLAN_HOST : remote ? PLAN_REMOTE : PLAN_GPU};
    snprintf(p->name, sizeof p->name, "%s", name);
    return p;
}

static void buffer_line(struct str line, ptrdiff_t at, enum part_field field,
                        struct runtime_measured *measured)
{
    struct str head = str_trim((struct str){line.p, (size_t)at}), tail = {line.p + at, line.n - (size_t)at};
    size_t start = head.n;
    while (start > 0 && !isspace((unsigned char)head.p[start - 1]))
        start--;
    struct str raw = {head.p + start, head.n - start};
    (void)str_cut(&tail, '=');
    tail = str_trim(tail);
    double mib;
    if (raw.n == 0 || !str_ends(tail, " MiB") ||
        !str_double(str_trim((struct str){tail.p, tail.n - 4}), &mib) || !(mib >= 0 && mib < 1e9))
        return;
    char name[24];
    bool host;
    device_name(raw, name, sizeof name, &host);
    struct plan_part *p = part_of(measured, name, host);
    if (!p)
        return;
    uint64_t bytes = (uint64_t)llround(mib * (double)MIB);
    uint64_t *fields[] = {&p->model_bytes, &p->context_bytes, &p->compute_bytes, &p->overhead_bytes};
    *fields[field] += bytes;
    if (field == PART_MODEL && host && str_find(raw, STR("REPACK")) >= 0)
        p->repack_bytes += bytes;
}

/* A line of dots is the loader's progress: one a percent. */
static double dots(struct str line)
{
    size_t n = 0;
    while (n < line.n && line.p[n] == '.')
        n++;
    if (n < 3 || n != line.n)
        return -1;
    return 0.05 + 0.75 * (n < 100 ? (double)n / 100 : 1);
}

double llamacpp_log_line(struct str line, struct runtime_measured *measured)
{
    if (str_find(line, STR(" buffer size")) >= 0) {
        for (size_t i = 0; i < TABLE_COUNT(buffers); i++) {
            ptrdiff_t at = str_find(line, str_from(buffers[i].text));
            if (at > 0)
                buffer_line(line, at, buffers[i].field, measured);
        }
        return -1;
    }
    /* A context reserves more than once: the latest sizes count, beside those of contexts made before it. */
    if (str_find(line, STR("constructing llama_context")) >= 0)
        for (size_t i = 0; i < measured->n_parts; i++)
            measured->settled_bytes[i] = measured->parts[i].compute_bytes;
    if (str_find(line, STR("sched_reserve: reserving")) >= 0)
        for (size_t i = 0; i < measured->n_parts; i++)
            measured->parts[i].compute_bytes = measured->settled_bytes[i];
    for (size_t i = 0; i < TABLE_COUNT(steps); i++)
        if (str_find(line, str_from(steps[i].text)) >= 0)
            return steps[i].progress;
    return dots(line);
}

/* ---- causes of death ---- */

#define HINT_MEMORY                                                                                          \
    "lower the context or the number of slots, allow a quantised KV cache, or unload other models"
#define HINT_FILE "check the file: it may be incomplete, damaged, or not readable by this user"
#define HINT_LIMIT                                                                                           \
    "memory is short, or a limit of the daemon is (ulimit -v, ulimit -u): raise it, or load less"
#define HINT_ARGS "look at extra_args of this model, or use a llama-server that knows the option"

/* In this order: a message of a failed allocation is followed by "failed to load model". The first line of
 * the log that holds the text of the first row that matches is the message. */
static const struct {
    const char *text;
    enum runtime_failure failure;
    const char *hint;
} causes[] = {
    {"failed to map segment", RUNTIME_FAIL_MEMORY, HINT_LIMIT},
    {"Resource temporarily unavailable", RUNTIME_FAIL_MEMORY, HINT_LIMIT}, /* no thread could be made */
    {"error while loading shared libraries", RUNTIME_FAIL_EXEC,
     "a library beside llama-server is missing: reinstall it"},
    {"couldn't bind HTTP server socket", RUNTIME_FAIL_PORT, "another program took the port"},
    {"ddress already in use", RUNTIME_FAIL_PORT, "another program took the port"},
    {"cudaMalloc failed", RUNTIME_FAIL_MEMORY, HINT_MEMORY},
    {"hipMalloc failed", RUNTIME_FAIL_MEMORY, HINT_MEMORY},
    {"CUBLAS_STATUS_ALLOC_FAILED", RUNTIME_FAIL_MEMORY, HINT_MEMORY},
    {"cudaErrorMemoryAllocation", RUNTIME_FAIL_MEMORY, HINT_MEMORY},
    {"hipErrorOutOfMemory", RUNTIME_FAIL_MEMORY, HINT_MEMORY},
    {"OutOfDeviceMemory", RUNTIME_FAIL_MEMORY, HINT_MEMORY}, /* Vulkan's words, with and without Error */
    {"OutOfHostMemory", RUNTIME_FAIL_MEMORY, HINT_MEMORY},
    {"OUT_OF_DEVICE_MEMORY", RUNTIME_FAIL_MEMORY, HINT_MEMORY}, /* SYCL's */
    {"OUT_OF_HOST_MEMORY", RUNTIME_FAIL_MEMORY, HINT_MEMORY},
    {"ut of memory", RUNTIME_FAIL_MEMORY, HINT_MEMORY},
    {"failed to allocate", RUNTIME_FAIL_MEMORY, HINT_MEMORY},
    {"unable to allocate", RUNTIME_FAIL_MEMORY, HINT_MEMORY},
    {"std::bad_alloc", RUNTIME_FAIL_MEMORY, HINT_MEMORY},
    {"Cannot allocate memory", RUNTIME_FAIL_MEMORY, HINT_MEMORY},
    {"Remote RPC server crashed", RUNTIME_FAIL_MEMORY,
     "the worker ended, most often because its memory ran out: look at its log and start it again"},
    {"invalid argument:", RUNTIME_FAIL_ARGUMENT, HINT_ARGS},
    {"unknown argument", RUNTIME_FAIL_ARGUMENT, HINT_ARGS},
    {"error while handling argument", RUNTIME_FAIL_ARGUMENT, HINT_ARGS},
    {"requires flash_attn", RUNTIME_FAIL_ARGUMENT, "a quantised V cache needs flash attention"},
    {"no kernel image is available", RUNTIME_FAIL_EXEC, "this llama-server was not built for this GPU"},
    {"unknown model architecture", RUNTIME_FAIL_MODEL, "a newer llama-server may know this architecture"},
    {"failed to open GGUF file", RUNTIME_FAIL_MODEL, HINT_FILE},
    {"gguf_init_from_", RUNTIME_FAIL_MODEL, HINT_FILE},
    {"error loading model", RUNTIME_FAIL_MODEL, HINT_FILE},
    {"failed to load model", RUNTIME_FAIL_MODEL, HINT_FILE},
    {"failed to create context", RUNTIME_FAIL_MODEL, ""},
};

static const enum rc failure_codes[] = {
    [RUNTIME_FAIL_NONE] = RC_OK,          [RUNTIME_FAIL_EXIT] = RC_BACKEND,
    [RUNTIME_FAIL_SIGNAL] = RC_BACKEND,   [RUNTIME_FAIL_MEMORY] = RC_NOMEM,
    [RUNTIME_FAIL_PORT] = RC_CONFLICT,    [RUNTIME_FAIL_MODEL] = RC_INVALID,
    [RUNTIME_FAIL_ARGUMENT] = RC_INVALID, [RUNTIME_FAIL_TIMEOUT] = RC_TIMEOUT,
    [RUNTIME_FAIL_EXEC] = RC_BACKEND,
};

/* Without the log's time stamp and level: "0.00.102.526 E text" → "text". */
static struct str bare(struct str line)
{
    line = str_trim(line);
    size_t i = 0;
    while (i < line.n && (isdigit((unsigned char)line.p[i]) || line.p[i] == '.'))
        i++;
    if (i < 5 || i + 3 > line.n || line.p[i] != ' ' || line.p[i + 2] != ' ')
        return line;
    return str_trim((struct str){line.p + i + 3, line.n - i - 3});
}

static bool first_line_with(struct str log, const char *text, struct str *ret_line)
{
    while (log.n > 0) {
        struct str line = str_cut(&log, '\n');
        if (str_find(line, str_from(text)) < 0)
            continue;
        *ret_line = bare(line);
        return true;
    }
    return false;
}

static struct str last_line(struct str log)
{
    struct str last = {0};
    while (log.n > 0) {
        struct str line = bare(str_cut(&log, '\n'));
        if (line.n > 0)
            last = line;
    }
    return last;
}

static enum runtime_failure cause(struct err *err, enum runtime_failure f, const char *hint, const char *how,
                                  struct str line)
{
    if (line.n > 300)
        line.n = 300;
    if (line.n > 0)
        (void)err_set(err, failure_codes[f], "llama-server %s: %.*s", how, STR_ARG(line));
    else
        (void)err_set(err, failure_codes[f], "llama-server %s", how);
    err_hint(err, "%s", hint);
    return f;
}

enum runtime_failure llamacpp_classify(int wait_status, struct str log_tail, struct err *ret_cause)
{
    char how[64];
    bool killed = WIFSIGNALED(wait_status);
    if (killed)
        snprintf(how, sizeof how, "was ended by %s",
                 sigabbrev_np(WTERMSIG(wait_status)) ? sigabbrev_np(WTERMSIG(wait_status)) : "a signal");
    else if (WIFEXITED(wait_status))
        snprintf(how, sizeof how, "ended with status %d", WEXITSTATUS(wait_status));
    else /* of one that is not our child */
        snprintf(how, sizeof how, "ended, and its status is not ours to see");
    struct str line = {0};
    if (!killed || WTERMSIG(wait_status) != SIGKILL)
        for (size_t i = 0; i < TABLE_COUNT(causes); i++)
            if (first_line_with(log_tail, causes[i].text, &line))
                return cause(ret_cause, causes[i].failure, causes[i].hint, how, line);
    if (killed && WTERMSIG(wait_status) == SIGKILL)
        return cause(ret_cause, RUNTIME_FAIL_MEMORY,
                     "the kernel does that when memory runs out (see dmesg); otherwise somebody killed it",
                     "was killed (SIGKILL)", line);
    if (killed && WTERMSIG(wait_status) == SIGILL)
        return cause(ret_cause, RUNTIME_FAIL_EXEC, "this llama-server was built for another processor", how,
                     line);
    if (killed)
        return cause(ret_cause, RUNTIME_FAIL_SIGNAL, "a newer build may have the fault corrected", how,
                     last_line(log_tail));
    return cause(ret_cause, WEXITSTATUS(wait_status) == 127 ? RUNTIME_FAIL_EXEC : RUNTIME_FAIL_EXIT, "", how,
                 last_line(log_tail));
}
