/* The table of runtimes, their failure words, and where llama-server is found: see runtime.h. Layer runtime.
 */
#include "os/file.h"
#include "runtime/runtime.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#define RUNTIME(symbol) extern const struct runtime_ops symbol;
#include "runtime/runtime.def"
#undef RUNTIME

static const struct runtime_ops *const all[] = {
#define RUNTIME(symbol) &symbol,
#include "runtime/runtime.def"
#undef RUNTIME
};

const struct runtime_ops *runtime_find(struct str name)
{
    for (size_t i = 0; i < TABLE_COUNT(all); i++)
        if (str_eq_c(name, all[i]->name))
            return all[i];
    return NULL;
}

const struct runtime_ops *const *runtime_all(size_t *ret_n)
{
    *ret_n = TABLE_COUNT(all);
    return all;
}

const char *runtime_failure_word(enum runtime_failure f)
{
    static const char *const words[] = {
        [RUNTIME_FAIL_NONE] = "none",       [RUNTIME_FAIL_EXIT] = "exit",
        [RUNTIME_FAIL_SIGNAL] = "signal",   [RUNTIME_FAIL_MEMORY] = "memory",
        [RUNTIME_FAIL_PORT] = "port",       [RUNTIME_FAIL_MODEL] = "model",
        [RUNTIME_FAIL_EXEC] = "exec",       [RUNTIME_FAIL_ARGUMENT] = "argument",
        [RUNTIME_FAIL_TIMEOUT] = "timeout",
    };
    return (size_t)f < TABLE_COUNT(words) && words[f] ? words[f] : "unknown";
}

/* ---- RPC workers ---- */

bool runtime_is_worker(const struct plan_device *d)
{
    return d->backend == PLAN_RPC && d->uuid[0];
}

struct str runtime_worker_endpoint(const struct plan_device *d)
{
    struct str id = str_from(d->uuid);
    return str_cut(&id, '/');
}

bool runtime_worker_is_first(const struct plan_machine *machine, const struct plan *plan, uint32_t i)
{
    struct str endpoint = runtime_worker_endpoint(&machine->devices[plan->used[i]]);
    for (uint32_t k = 0; k < i; k++) {
        const struct plan_device *d = &machine->devices[plan->used[k]];
        if (runtime_is_worker(d) && str_eq(runtime_worker_endpoint(d), endpoint))
            return false;
    }
    return true;
}

/* A server counts every device of every worker that it is given, in that order. */
static unsigned worker_number(const struct plan_machine *machine, const struct plan *plan,
                              const struct plan_device *wanted)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < plan->n_used; i++) {
        const struct plan_device *u = &machine->devices[plan->used[i]];
        if (!runtime_is_worker(u) || !runtime_worker_is_first(machine, plan, i))
            continue;
        for (size_t k = 0; k < machine->n_devices; k++) {
            const struct plan_device *d = &machine->devices[k];
            if (!runtime_is_worker(d) || !str_eq(runtime_worker_endpoint(d), runtime_worker_endpoint(u)))
                continue;
            if (d == wanted)
                return n;
            n++;
        }
    }
    return n;
}

char *runtime_child_device(const struct plan_machine *machine, const struct plan *plan, uint32_t i, char *out,
                           size_t cap)
{
    const struct plan_device *d = &machine->devices[plan->used[i]];
    if (runtime_is_worker(d)) {
        snprintf(out, cap, "RPC%u", worker_number(machine, plan, d));
        return out;
    }
    if (d->backend != PLAN_CUDA || d->uuid[0] == '\0') {
        snprintf(out, cap, "%s", d->name);
        return out;
    }
    unsigned before = 0;
    for (uint32_t k = 0; k < i; k++)
        before += machine->devices[plan->used[k]].backend == PLAN_CUDA;
    snprintf(out, cap, "CUDA%u", before);
    return out;
}

char *runtime_log_worker(struct str endpoint, struct str index, char *out, size_t cap)
{
    size_t room = cap > index.n + 2 ? cap - index.n - 2 : 0;
    if (endpoint.n > room) { /* its end tells more than its beginning */
        endpoint.p += endpoint.n - room;
        endpoint.n = room;
    }
    snprintf(out, cap, "%.*s/%.*s", STR_ARG(endpoint), STR_ARG(index));
    return out;
}

char *runtime_log_device(const struct plan_machine *machine, const struct plan *plan, uint32_t i, char *out,
                         size_t cap)
{
    const struct plan_device *d = &machine->devices[plan->used[i]];
    if (!runtime_is_worker(d))
        return runtime_child_device(machine, plan, i, out, cap);
    struct str index = str_from(d->uuid), endpoint = str_cut(&index, '/');
    return runtime_log_worker(endpoint, index.n ? index : STR("0"), out, cap);
}

/* The newest DATA/llama.cpp/VERSION/llama-server. */
static bool find_bundle(char *ret_path, size_t cap)
{
    char data[512], dir[600], best[256] = "";
    file_dir(FILE_DIR_DATA, data, sizeof data);
    snprintf(dir, sizeof dir, "%s/llama.cpp", data);
    DIR *d = opendir(dir);
    if (!d)
        return false;
    for (struct dirent *e; (e = readdir(d));) {
        char path[1024];
        if (e->d_name[0] == '.' || strlen(e->d_name) >= sizeof best)
            continue;
        snprintf(path, sizeof path, "%s/%s/llama-server", dir, e->d_name);
        if (file_is_executable(path) && (best[0] == '\0' || strverscmp(e->d_name, best) > 0))
            memcpy(best, e->d_name, strlen(e->d_name) + 1);
    }
    closedir(d);
    if (best[0] == '\0')
        return false;
    int n = snprintf(ret_path, cap, "%s/%s/llama-server", dir, best);
    return n > 0 && (size_t)n < cap;
}

static enum rc find_given(const char *given, const char *what, char *ret_path, size_t cap, struct err *err)
{
    if (file_find_program(given, ret_path, cap))
        return RC_OK;
    enum rc rc = err_set(err, RC_NOT_FOUND, "%s \"%s\" is no program that can be run", what, given);
    err_hint(err,
             "give the path of an executable llama-server, or take the setting away to have one looked for");
    return rc;
}

enum rc runtime_find_llama_server(const char *explicit_path, char *ret_path, size_t cap, struct err *err)
{
    if (explicit_path && explicit_path[0])
        return find_given(explicit_path, "the configured llama-server", ret_path, cap, err);
    const char *env = getenv("ARRIERO_LLAMA_SERVER");
    if (env && env[0])
        return find_given(env, "$ARRIERO_LLAMA_SERVER", ret_path, cap, err);
    if (file_find_program("llama-server", ret_path, cap) || find_bundle(ret_path, cap))
        return RC_OK;
    char data[512];
    file_dir(FILE_DIR_DATA, data, sizeof data);
    enum rc rc = err_set(err, RC_NOT_FOUND, "no llama-server on PATH, nor in %s/llama.cpp", data);
    err_hint(
        err,
        "install llama.cpp (your distribution, Homebrew, or its releases) and put llama-server on PATH, run "
        "scripts/llama-bundle.sh, or set ARRIERO_LLAMA_SERVER=/path/to/llama-server");
    return rc;
}
