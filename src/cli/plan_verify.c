/* Asks llama.cpp's own planner, llama-fit-params, what the values of a plan take, and sets both answers side
 * by side. Layer cli; main thread; see plan_verify.h. The tool computes without allocating. It answers for
 * one sequence and for logits of a whole batch, and counts no packed weights: so do we for this question. */
#include "cli/plan_verify.h"

#include "base/mem.h"
#include "cli/cli_priv.h"
#include "os/run.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOOL       "llama-fit-params"
#define DEADLINE   60000 /* ms; the largest models take six seconds */
#define MAX_OUTPUT (1 << 20)

__attribute__((format(printf, 2, 3))) static void note(struct verified *v, const char *fmt, ...)
{
    va_list ap;
    if (v->n_notes == VERIFY_MAX_NOTES)
        return;
    va_start(ap, fmt);
    vsnprintf(v->notes[v->n_notes].text, sizeof v->notes[0].text, fmt, ap);
    va_end(ap);
    v->n_notes++;
}

static bool is_tool(const char *dir, size_t n, char *ret_path, size_t cap)
{
    char path[600];
    int len = snprintf(path, sizeof path, "%.*s%s" TOOL, (int)n, dir, n && dir[n - 1] != '/' ? "/" : "");
    if (len <= 0 || (size_t)len >= sizeof path || (size_t)len >= cap || access(path, X_OK))
        return false;
    memcpy(ret_path, path, (size_t)len + 1);
    return true;
}

static enum rc find_tool(const char *server, char *ret_path, size_t cap, struct err *err)
{
    const char *slash = strrchr(server, '/'), *path = getenv("PATH");
    if (slash && is_tool(server, (size_t)(slash - server), ret_path, cap))
        return RC_OK;
    struct str rest = str_from(path ? path : "");
    while (rest.n) {
        struct str dir = str_cut(&rest, ':');
        if (dir.n && is_tool(dir.p, dir.n, ret_path, cap))
            return RC_OK;
    }
    enum rc rc = server[0] ? err_set(err, RC_NOT_FOUND, "there is no " TOOL " beside %s or on PATH", server)
                           : err_set(err, RC_NOT_FOUND, "there is no " TOOL " on PATH, and no llama-server");
    err_hint(err, "llama.cpp's tools bring it");
    return rc;
}

/* ---- the question ---- */

struct question {
    struct arena arena;
    const char *argv[96];
    size_t n;
};

static void put(struct question *q, const char *option, const char *value)
{
    if (q->n + 3 < TABLE_COUNT(q->argv)) {
        q->argv[q->n++] = option;
        if (value)
            q->argv[q->n++] = value;
    }
}

static void put_number(struct question *q, const char *option, int64_t value)
{
    put(q, option, arena_printf(&q->arena, "%" PRId64, value));
}

static void put_devices(struct question *q, const struct plan *plan, const struct plan_machine *machine)
{
    const struct plan_params *p = &plan->estimate.params;
    const char *names = "", *split = "", *workers = "";
    char name[24];
    for (uint32_t i = 0; i < plan->n_used; i++)
        names = arena_printf(&q->arena, "%s%s%s", names, i ? "," : "",
                             runtime_child_device(machine, plan, i, name, sizeof name));
    for (uint32_t i = 0; i < p->n_tensor_split; i++)
        split = arena_printf(&q->arena, "%s%s%.7g", split, i ? "," : "", (double)p->tensor_split[i]);
    for (uint32_t i = 0; i < plan->n_used; i++) {
        const struct plan_device *d = &machine->devices[plan->used[i]];
        if (runtime_is_worker(d) && runtime_worker_is_first(machine, plan, i))
            workers = arena_printf(&q->arena, "%s%s%.*s", workers, *workers ? "," : "",
                                   STR_ARG(runtime_worker_endpoint(d)));
    }
    if (*workers) /* before the devices that they bring */
        put(q, "--rpc", workers);
    put(q, "--device", names);
    put_number(q, "-ngl", p->gpu_layers);
    if (p->n_tensor_split > 1)
        put(q, "-ts", split);
    if (p->n_cpu_moe)
        put_number(q, "--n-cpu-moe", p->n_cpu_moe);
    for (uint32_t i = 0; i < p->n_overrides; i++)
        put(q, "-ot", arena_printf(&q->arena, "%s=%s", p->overrides[i].pattern, p->overrides[i].buffer));
    if (!p->kv_offload)
        put(q, "--no-kv-offload", NULL);
}

static void ask(struct question *q, const char *tool, const struct model *m, const struct plan *plan,
                const struct plan_machine *machine, bool on_devices)
{
    const struct plan_params *p = &plan->estimate.params;
    const struct ggml_type_info *k = ggml_type_info(p->type_k), *v = ggml_type_info(p->type_v);
    put(q, tool, NULL);
    put(q, "-m", m->path);
    put_number(q, "-c", p->ctx);
    put_number(q, "-b", p->batch);
    put_number(q, "-ub", p->ubatch);
    put(q, "-np", "1");
    put(q, "-fa", p->flash_attn ? "on" : "off");
    put(q, "-ctk", k ? k->word : "f16");
    put(q, "-ctv", v ? v->word : "f16");
    put(q, "--no-repack", NULL);
    if (p->swa_full)
        put(q, "--swa-full", NULL);
    if (on_devices) {
        put_devices(q, plan, machine);
    } else {
        put(q, "--device", "none");
        put(q, "-ngl", "0");
    }
    put(q, "--fit-print", "on");
    q->argv[q->n] = NULL;
}

/* Our answer to the same; pins: scheduled as llama-server does. */
static enum rc ours(const struct model *m, const struct plan *plan, const struct plan_machine *machine,
                    bool on_devices, bool pins, struct plan_estimate *ret, struct err *err)
{
    struct plan_params p = plan->estimate.params;
    struct plan_device devices[PLAN_MAX_DEVICES];
    p.parallel = 1;
    p.kv_unified = p.repack = p.embedding = false;
    p.outputs = PLAN_OUTPUTS_BATCH;
    p.pins = pins;
    p.extras = NULL;
    for (uint32_t i = 0; i < plan->n_used; i++)
        devices[i] = machine->devices[plan->used[i]];
    if (!on_devices) {
        p.gpu_layers = 0;
        p.n_tensor_split = p.n_cpu_moe = p.n_overrides = 0;
        p.kv_offload = true;
    }
    return plan_estimate(m, &p, devices, on_devices ? plan->n_used : 0, ret, err);
}

/* ---- the answer ---- */

static void set_ours(struct verified *v, size_t row, const struct plan_part *p)
{
    v->rows[row].ours[VERIFY_MODEL] = p->model_bytes / MIB;
    v->rows[row].ours[VERIFY_CONTEXT] = p->context_bytes / MIB;
    v->rows[row].ours[VERIFY_COMPUTE] = p->compute_bytes / MIB;
}

/* "RPC0 4403 16384 410" among the tool's other lines. */
static void read_row(struct str line, const struct plan_estimate *e, const struct plan *plan,
                     const struct plan_machine *machine, struct verified *v)
{
    struct str rest = str_trim(line), name = str_cut(&rest, ' ');
    uint64_t mib[VERIFY_PARTS];
    char child[24];
    for (int i = 0; i < VERIFY_PARTS; i++)
        if (!str_u64(str_cut(&rest, ' '), &mib[i]))
            return;
    if (rest.n || !name.n || v->n > PLAN_MAX_DEVICES)
        return;
    size_t row = v->n++;
    snprintf(v->rows[row].name, sizeof v->rows[0].name, "%.*s", STR_ARG(name));
    memcpy(v->rows[row].theirs, mib, sizeof mib);
    if (!strcmp(v->rows[row].name, "Host"))
        set_ours(v, row, plan_host_part(e));
    for (uint32_t i = 0; i < plan->n_used && v->on_devices; i++)
        if (!strcmp(v->rows[row].name, runtime_child_device(machine, plan, i, child, sizeof child))) {
            set_ours(v, row, &e->parts[i]);
            snprintf(v->rows[row].name, sizeof v->rows[0].name, "%s", e->parts[i].name);
        }
}

/* Can the tool see every device of the plan? */
static bool sees(const struct runtime_caps *caps, const struct plan *plan, const struct plan_machine *machine,
                 char *missing)
{
    for (uint32_t i = 0; i < plan->n_used; i++) {
        const struct plan_device *d = &machine->devices[plan->used[i]];
        bool found = runtime_is_worker(d);
        for (size_t k = 0; k < caps->n_devices; k++)
            found = found || !strcmp(caps->devices[k].name, d->name);
        if (!found) {
            snprintf(missing, sizeof d->name, "%s", d->name);
            return false;
        }
    }
    return plan->n_used > 0;
}

/* Where llama-server schedules otherwise than the tool. */
static void note_schedule(struct verified *v, const struct plan_estimate *server,
                          const struct plan_estimate *tool)
{
    for (size_t i = 0; i < server->n_parts; i++) {
        int64_t more = (int64_t)(server->parts[i].compute_bytes - tool->parts[i].compute_bytes);
        if (more >= (int64_t)MIB / 2 || -more >= (int64_t)MIB / 2)
            note(v, "the schedule: llama-server computes norms where their layers lie, on %s %.1f MiB %s",
                 server->parts[i].name, fabs((double)more) / (double)MIB, more > 0 ? "more" : "less");
    }
}

static void notes(struct verified *v, const struct plan *plan, bool what_if, const char *missing)
{
    const struct plan_params *p = &plan->estimate.params;
    if (plan->n_used && !v->on_devices && what_if)
        note(v, "the placement: the devices are imagined, so both answer for everything in RAM");
    else if (plan->n_used && !v->on_devices)
        note(v, "the placement: " TOOL " does not see %s, so both answer for everything in RAM", missing);
    if (p->parallel > 1)
        note(v, "%u slots: " TOOL " is asked for one", p->parallel);
    if (p->embedding)
        note(v, "embeddings: " TOOL " is asked for logits");
    if (plan_host_part(&plan->estimate)->repack_bytes)
        note(v, "packed weights: " TOOL " leaves them out");
    if (p->extras && p->extras->projector)
        note(v, "the projector");
    if (p->extras && p->extras->n_adapters)
        note(v, "the adapters");
    if (p->extras && p->extras->draft)
        note(v, "the draft model");
}

static enum rc run_tool(const struct question *q, const char *const *env, struct buf *out, struct err *err)
{
    int status;
    enum rc rc = run_capture(q->argv, env, DEADLINE, MAX_OUTPUT, out, &status, err);
    if (rc || status == 0)
        return rc;
    struct str text = buf_str(out), last = text;
    while (text.n) {
        struct str line = str_trim(str_cut(&text, '\n'));
        if (line.n)
            last = line;
    }
    return err_set(err, RC_BACKEND, TOOL " failed: %.*s", last.n > 200 ? 200 : (int)last.n, last.p);
}

enum rc plan_verify(const char *server, const char *const *env, const struct model *m,
                    const struct plan *plan, const struct plan_machine *machine, bool what_if,
                    struct verified *ret_verified, struct err *err)
{
    struct verified v = {0};
    struct plan_estimate *e = mem_calloc(1, sizeof *e), *server_way = mem_calloc(1, sizeof *e);
    struct runtime_caps *caps = mem_calloc(1, sizeof *caps);
    struct question q = {0};
    struct buf out = {0};
    char missing[24] = "";
    enum rc rc = find_tool(server, v.tool, sizeof v.tool, err);
    if (!rc && plan->n_used && !what_if)
        rc = runtime_find(STR("llama-server"))->probe(v.tool, caps, err);
    v.on_devices = !rc && !what_if && sees(caps, plan, machine, missing);
    if (!rc)
        rc = ours(m, plan, machine, v.on_devices, false, e, err);
    if (!rc)
        rc = ours(m, plan, machine, v.on_devices, true, server_way, err);
    if (!rc) {
        ask(&q, v.tool, m, plan, machine, v.on_devices);
        rc = run_tool(&q, env, &out, err);
    }
    struct str rest = buf_str(&out);
    while (!rc && rest.n)
        read_row(str_cut(&rest, '\n'), e, plan, machine, &v);
    if (!rc && !v.n)
        rc = err_set(err, RC_BACKEND, TOOL " printed no figures for %s", m->path);
    if (!rc) {
        notes(&v, plan, what_if, missing);
        note_schedule(&v, server_way, e);
        *ret_verified = v;
    }
    buf_release(&out);
    arena_release(&q.arena);
    free(caps);
    free(server_way);
    free(e);
    return rc;
}

/* ---- output ---- */

static const struct {
    const char *heading, *ours, *theirs, *difference;
} parts[VERIFY_PARTS] = {
    [VERIFY_MODEL] = {"weights", "model_mib", "llama_model_mib", "model_difference_mib"},
    [VERIFY_CONTEXT] = {"cache", "context_mib", "llama_context_mib", "context_difference_mib"},
    [VERIFY_COMPUTE] = {"compute", "compute_mib", "llama_compute_mib", "compute_difference_mib"},
};

void plan_verify_print(const struct verified *v)
{
    static const char *const headings[] = {"DEVICE", "PART", "ARRIERO", "LLAMA.CPP", "DIFFERENCE"};
    printf("\nSide by side with " TOOL ", in MiB (one slot, logits of a whole batch, nothing packed)\n");
    struct cli_table *t = cli_table_new(headings, TABLE_COUNT(headings));
    for (size_t i = 0; i < v->n; i++) {
        for (int k = 0; k < VERIFY_PARTS; k++) {
            int64_t difference = (int64_t)(v->rows[i].ours[k] - v->rows[i].theirs[k]);
            cli_table_cell(t, "%s", v->rows[i].name);
            cli_table_cell(t, "%s", parts[k].heading);
            cli_table_cell(t, "%" PRIu64, v->rows[i].ours[k]);
            cli_table_cell(t, "%" PRIu64, v->rows[i].theirs[k]);
            if (difference)
                cli_table_cell(t, "%+" PRId64, difference);
            else
                cli_table_cell(t, "none");
        }
    }
    cli_table_print(t);
    for (size_t i = 0; i < v->n_notes; i++)
        printf("%s%s\n", i ? "              " : "Not verified: ", v->notes[i].text);
}

void plan_verify_json(yyjson_mut_doc *doc, yyjson_mut_val *root, const struct verified *v)
{
    yyjson_mut_val *rows = yyjson_mut_obj_add_arr(doc, root, "verified");
    for (size_t i = 0; i < v->n; i++) {
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, rows);
        yyjson_mut_obj_add_strcpy(doc, o, "name", v->rows[i].name);
        for (int k = 0; k < VERIFY_PARTS; k++) {
            yyjson_mut_obj_add_uint(doc, o, parts[k].ours, v->rows[i].ours[k]);
            yyjson_mut_obj_add_uint(doc, o, parts[k].theirs, v->rows[i].theirs[k]);
            yyjson_mut_obj_add_sint(doc, o, parts[k].difference,
                                    (int64_t)(v->rows[i].ours[k] - v->rows[i].theirs[k]));
        }
    }
    yyjson_mut_obj_add_str(doc, root, "verified_by", v->on_devices ? "devices" : "host");
    yyjson_mut_val *not_verified = yyjson_mut_obj_add_arr(doc, root, "not_verified");
    for (size_t i = 0; i < v->n_notes; i++)
        yyjson_mut_arr_add_strcpy(doc, not_verified, v->notes[i].text);
}
