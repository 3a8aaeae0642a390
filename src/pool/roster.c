/* The roster: see roster.h. Each struct that a row holds has a table of its fields: it writes them and reads
 * them. A field that is missing is zero: another version wrote the row. What a hostile file could do with the
 * rest is bounded here, so that the pool can reckon with the figures. */
#include "pool/roster.h"

#include "base/json.h"
#include "base/mem.h"
#include "os/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FORM  1u
#define BYTES PLAN_MAX_DEVICE_BYTES
#define U32   UINT32_MAX

enum kind { KIND_U64, KIND_U32, KIND_U16, KIND_I32, KIND_BOOL, KIND_REAL, KIND_TEXT };

struct field {
    const char *name;
    enum kind kind;
    size_t offset, size;
    uint64_t most; /* of a number */
};

#define FIELD(type, member, kind, most)                                                                      \
    {                                                                                                        \
#member, kind, offsetof(type, member), sizeof(((type *)0)->member), most                             \
    }

static const struct field row_fields[] = {
    {"pid", KIND_I32, offsetof(struct roster_row, pid), sizeof(pid_t), INT32_MAX},
#define ROW(member, kind, most) FIELD(struct roster_row, member, kind, most)
    ROW(start_ticks, KIND_U64, UINT64_MAX),
    ROW(boot, KIND_TEXT, 0),
    ROW(command_hash, KIND_U64, UINT64_MAX),
    ROW(id, KIND_TEXT, 0),
    ROW(model, KIND_TEXT, 0),
    ROW(seat, KIND_U32, U32),
    ROW(settings_hash, KIND_U64, UINT64_MAX),
    ROW(path, KIND_TEXT, 0),
    ROW(log, KIND_TEXT, 0),
    ROW(version, KIND_TEXT, 0),
    ROW(port, KIND_U16, UINT16_MAX),
    ROW(ready, KIND_BOOL, 0),
    ROW(smaller, KIND_BOOL, 0),
    ROW(load_seconds, KIND_REAL, 0),
};

static const struct field plan_fields[] = {
#define PLAN(member, kind, most) FIELD(struct plan, member, kind, most)
    PLAN(strategy, KIND_U32, PLAN_STRATEGIES - 1),
    PLAN(threads, KIND_U32, U32),
    PLAN(threads_batch, KIND_U32, U32),
    PLAN(estimate.layers_gpu, KIND_U32, U32),
    PLAN(estimate.layers_cpu, KIND_U32, U32),
    PLAN(speed.prefill_tps, KIND_REAL, 0),
    PLAN(speed.decode_tps, KIND_REAL, 0),
    PLAN(speed.load_seconds, KIND_REAL, 0),
    PLAN(speed.decode_samples, KIND_U32, U32),
    PLAN(speed.prefill_samples, KIND_U32, U32),
};

static const struct field param_fields[] = {
#define PARAM(member, kind, most) FIELD(struct plan_params, member, kind, most)
    PARAM(ctx, KIND_U32, U32),
    PARAM(batch, KIND_U32, U32),
    PARAM(ubatch, KIND_U32, U32),
    PARAM(parallel, KIND_U32, 65536),
    PARAM(kv_unified, KIND_BOOL, 0),
    PARAM(flash_attn, KIND_BOOL, 0),
    PARAM(type_k, KIND_U32, U32),
    PARAM(type_v, KIND_U32, U32),
    PARAM(gpu_layers, KIND_I32, INT32_MAX),
    PARAM(n_cpu_moe, KIND_U32, U32),
    PARAM(kv_offload, KIND_BOOL, 0),
    PARAM(repack, KIND_BOOL, 0),
    PARAM(swa_full, KIND_BOOL, 0),
    PARAM(embedding, KIND_BOOL, 0),
    PARAM(mmap, KIND_BOOL, 0),
    PARAM(pool_last, KIND_BOOL, 0),
    PARAM(outputs, KIND_U32, PLAN_OUTPUTS_BATCH),
    PARAM(pins, KIND_BOOL, 0),
    PARAM(host_isa, KIND_U32, U32),
};

static const struct field part_fields[] = {
#define PART(member, kind, most) FIELD(struct plan_part, member, kind, most)
    PART(name, KIND_TEXT, 0),
    PART(kind, KIND_U32, PLAN_REMOTE),
    PART(total_bytes, KIND_U64, BYTES),
    PART(free_bytes, KIND_U64, BYTES),
    PART(model_bytes, KIND_U64, BYTES),
    PART(context_bytes, KIND_U64, BYTES),
    PART(compute_bytes, KIND_U64, BYTES),
    PART(overhead_bytes, KIND_U64, BYTES),
    PART(overhead_spread_bytes, KIND_U64, BYTES),
    PART(overhead_loads, KIND_U32, U32),
    PART(repack_bytes, KIND_U64, BYTES),
    PART(projector_bytes, KIND_U64, BYTES),
    PART(adapter_bytes, KIND_U64, BYTES),
    PART(draft_bytes, KIND_U64, BYTES),
    PART(has_projector, KIND_BOOL, 0),
    PART(output_bytes, KIND_U64, BYTES),
    PART(pinned_bytes, KIND_U64, BYTES),
    PART(checkpoint_bytes, KIND_U64, BYTES),
    PART(checkpoints, KIND_U32, U32),
    PART(prompt_cache_bytes, KIND_U64, BYTES),
};

static const struct field device_fields[] = {
#define DEVICE(member, kind, most) FIELD(struct plan_device, member, kind, most)
    DEVICE(name, KIND_TEXT, 0),
    DEVICE(uuid, KIND_TEXT, 0),
    DEVICE(model, KIND_TEXT, 0),
    DEVICE(backend, KIND_U32, PLAN_RPC),
    DEVICE(total_bytes, KIND_U64, BYTES),
    DEVICE(free_bytes, KIND_U64, BYTES),
    DEVICE(overhead_bytes, KIND_U64, BYTES),
    DEVICE(bandwidth_gbps, KIND_REAL, 0),
    DEVICE(tflops, KIND_REAL, 0),
    DEVICE(link_gbps, KIND_REAL, 0),
    DEVICE(power_w, KIND_REAL, 0),
    DEVICE(taught.decode_factor, KIND_REAL, 0),
    DEVICE(taught.prefill_factor, KIND_REAL, 0),
    DEVICE(taught.load_factor, KIND_REAL, 0),
};

static const struct field host_fields[] = {
#define HOST(member, kind, most) FIELD(struct plan_host, member, kind, most)
    HOST(total_bytes, KIND_U64, BYTES),
    HOST(free_bytes, KIND_U64, BYTES),
    HOST(cores, KIND_U32, 65536),
    HOST(bandwidth_gbps, KIND_REAL, 0),
    HOST(bandwidth_core_gbps, KIND_REAL, 0),
    HOST(gflops_core, KIND_REAL, 0),
    HOST(gops_core, KIND_REAL, 0),
    HOST(disk_gbps, KIND_REAL, 0),
    HOST(file_cached, KIND_REAL, 0),
    HOST(overhead_bytes, KIND_U64, BYTES),
    HOST(model, KIND_TEXT, 0),
    HOST(taught.decode_factor, KIND_REAL, 0),
    HOST(taught.prefill_factor, KIND_REAL, 0),
    HOST(taught.load_factor, KIND_REAL, 0),
};

static const struct field reserve_fields[] = {
    FIELD(struct reserve, host_bytes, KIND_U64, BYTES),
    FIELD(struct reserve, host_mapped_bytes, KIND_U64, BYTES),
};

static const struct field reserve_row_fields[] = {
    FIELD(struct reserve_row, key, KIND_TEXT, 0),
    FIELD(struct reserve_row, name, KIND_TEXT, 0),
    FIELD(struct reserve_row, bytes, KIND_U64, BYTES),
};

#define TABLE(t) (t), TABLE_COUNT(t)

/* ---- a list in a struct: so many elements of a table's struct ---- */

struct list {
    const char *name;
    const struct field *fields;
    size_t n_fields, offset, stride, max;
    size_t count; /* offset of the number of elements, a size_t */
};

#define LIST(name, table, list_member, count_member)                                                         \
    {                                                                                                        \
        name, TABLE(table), offsetof(struct roster_row, list_member),                                        \
            sizeof(((struct roster_row *)0)->list_member[0]),                                                \
            TABLE_COUNT(((struct roster_row *)0)->list_member), offsetof(struct roster_row, count_member)    \
    }

static const struct list lists[] = {
    LIST("parts", part_fields, plan.estimate.parts, plan.estimate.n_parts),
    LIST("devices", device_fields, machine.devices, machine.n_devices),
    LIST("reserve_rows", reserve_row_fields, reserve.rows, reserve.n),
    LIST("measured", part_fields, measured.parts, measured.n_parts),
};

static const struct {
    const char *name;
    const struct field *fields;
    size_t n_fields, offset;
} objects[] = {
    {"plan", TABLE(plan_fields), offsetof(struct roster_row, plan)},
    {"params", TABLE(param_fields), offsetof(struct roster_row, plan.estimate.params)},
    {"host", TABLE(host_fields), offsetof(struct roster_row, machine.host)},
    {"reserve", TABLE(reserve_fields), offsetof(struct roster_row, reserve)},
};

/* ---- writing ---- */

static void put_fields(yyjson_mut_doc *doc, yyjson_mut_val *o, const struct field *f, size_t n,
                       const void *base)
{
    for (size_t i = 0; i < n; i++) {
        const void *at = (const char *)base + f[i].offset;
        switch (f[i].kind) {
        case KIND_U64: yyjson_mut_obj_add_uint(doc, o, f[i].name, *(const uint64_t *)at); break;
        case KIND_U32: yyjson_mut_obj_add_uint(doc, o, f[i].name, *(const uint32_t *)at); break;
        case KIND_U16: yyjson_mut_obj_add_uint(doc, o, f[i].name, *(const uint16_t *)at); break;
        case KIND_I32: yyjson_mut_obj_add_int(doc, o, f[i].name, *(const int32_t *)at); break;
        case KIND_BOOL: yyjson_mut_obj_add_bool(doc, o, f[i].name, *(const bool *)at); break;
        case KIND_REAL: yyjson_mut_obj_add_real(doc, o, f[i].name, *(const double *)at); break;
        case KIND_TEXT: json_add_str(doc, o, f[i].name, str_from(at)); break;
        }
    }
}

static void put_numbers(yyjson_mut_doc *doc, yyjson_mut_val *root, const struct roster_row *r)
{
    yyjson_mut_val *used = yyjson_mut_obj_add_arr(doc, root, "used");
    for (uint32_t i = 0; i < r->plan.n_used; i++)
        yyjson_mut_arr_add_uint(doc, used, r->plan.used[i]);
    yyjson_mut_val *split = yyjson_mut_obj_add_arr(doc, root, "tensor_split");
    for (uint32_t i = 0; i < r->plan.estimate.params.n_tensor_split; i++)
        yyjson_mut_arr_add_real(doc, split, (double)r->plan.estimate.params.tensor_split[i]);
}

enum rc roster_format(const struct roster_row *r, struct buf *out, struct err *err)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_uint(doc, root, "form", FORM);
    put_fields(doc, root, TABLE(row_fields), r);
    yyjson_mut_val *argv = yyjson_mut_obj_add_arr(doc, root, "argv");
    for (size_t i = 0; i < r->n_argv; i++)
        yyjson_mut_arr_add_str(doc, argv, r->argv[i]);
    for (size_t i = 0; i < TABLE_COUNT(objects); i++)
        put_fields(doc, yyjson_mut_obj_add_obj(doc, root, objects[i].name), objects[i].fields,
                   objects[i].n_fields, (const char *)r + objects[i].offset);
    for (size_t i = 0; i < TABLE_COUNT(lists); i++) {
        const struct list *l = &lists[i];
        size_t n = *(const size_t *)((const char *)r + l->count);
        yyjson_mut_val *a = yyjson_mut_obj_add_arr(doc, root, l->name);
        for (size_t k = 0; k < n; k++)
            put_fields(doc, yyjson_mut_arr_add_obj(doc, a), l->fields, l->n_fields,
                       (const char *)r + l->offset + k * l->stride);
    }
    put_numbers(doc, root, r);
    enum rc rc = json_write(doc, true, out, err);
    yyjson_mut_doc_free(doc);
    return rc;
}

/* ---- reading ---- */

static bool get_real(yyjson_val *v, double *ret)
{
    double d = yyjson_get_num(v);
    if (!yyjson_is_num(v) || !(d >= 0 && d < 1e18))
        return false;
    *ret = d;
    return true;
}

static bool get_text(yyjson_val *v, char *ret, size_t cap)
{
    size_t n = yyjson_get_len(v);
    if (!yyjson_is_str(v) || n >= cap || memchr(yyjson_get_str(v), '\0', n))
        return false;
    memcpy(ret, yyjson_get_str(v), n);
    ret[n] = '\0';
    return true;
}

static bool get_field(yyjson_val *v, const struct field *f, void *at)
{
    if (f->kind == KIND_TEXT)
        return get_text(v, at, f->size);
    if (f->kind == KIND_REAL)
        return get_real(v, at);
    if (f->kind == KIND_BOOL) {
        *(bool *)at = yyjson_get_bool(v);
        return yyjson_is_bool(v);
    }
    if (f->kind == KIND_I32) {
        int64_t s = yyjson_get_sint(v);
        if (!yyjson_is_int(v) || (yyjson_is_uint(v) && yyjson_get_uint(v) > f->most) || s < -1)
            return false;
        *(int32_t *)at = (int32_t)s;
        return true;
    }
    uint64_t u = yyjson_get_uint(v);
    if (!yyjson_is_uint(v) || u > f->most)
        return false;
    if (f->kind == KIND_U64)
        *(uint64_t *)at = u;
    else if (f->kind == KIND_U32)
        *(uint32_t *)at = (uint32_t)u;
    else
        *(uint16_t *)at = (uint16_t)u;
    return true;
}

static enum rc get_fields(yyjson_val *o, const char *of, const struct field *f, size_t n, void *base,
                          struct err *err)
{
    if (o && !yyjson_is_obj(o))
        return err_set(err, RC_INVALID, "%s is no object", of);
    for (size_t i = 0; i < n; i++) {
        yyjson_val *v = yyjson_obj_get(o, f[i].name);
        if (v && !get_field(v, &f[i], (char *)base + f[i].offset))
            return err_set(err, RC_INVALID, "%s.%s cannot be", of, f[i].name);
    }
    return RC_OK;
}

static enum rc get_list(yyjson_val *root, const struct list *l, struct roster_row *r, struct err *err)
{
    size_t i, n;
    yyjson_val *a = yyjson_obj_get(root, l->name), *v;
    size_t *count = (size_t *)(void *)((char *)r + l->count);
    if (a && (!yyjson_is_arr(a) || yyjson_arr_size(a) > l->max))
        return err_set(err, RC_INVALID, "%s is no list of at most %zu", l->name, l->max);
    yyjson_arr_foreach(a, i, n, v)
    {
        enum rc rc =
            get_fields(v, l->name, l->fields, l->n_fields, (char *)r + l->offset + i * l->stride, err);
        if (rc != RC_OK)
            return rc;
        ++*count;
    }
    return RC_OK;
}

static enum rc get_numbers(yyjson_val *root, struct roster_row *r, struct err *err)
{
    size_t i, n;
    yyjson_val *used = yyjson_obj_get(root, "used"), *split = yyjson_obj_get(root, "tensor_split"), *v;
    struct plan_params *p = &r->plan.estimate.params;
    if (yyjson_arr_size(used) > TABLE_COUNT(r->plan.used) ||
        yyjson_arr_size(split) > TABLE_COUNT(p->tensor_split))
        return err_set(err, RC_INVALID, "more devices than there can be");
    yyjson_arr_foreach(used, i, n, v)
    {
        if (!yyjson_is_uint(v) || yyjson_get_uint(v) >= r->machine.n_devices)
            return err_set(err, RC_INVALID, "a device is used that is not listed");
        r->plan.used[r->plan.n_used++] = (uint32_t)yyjson_get_uint(v);
    }
    yyjson_arr_foreach(split, i, n, v)
    {
        double share;
        if (!get_real(v, &share))
            return err_set(err, RC_INVALID, "tensor_split cannot be");
        p->tensor_split[p->n_tensor_split++] = (float)share;
    }
    return RC_OK;
}

static enum rc get_argv(yyjson_val *root, struct roster_row *r, struct err *err)
{
    size_t i, n;
    yyjson_val *a = yyjson_obj_get(root, "argv"), *v;
    if (yyjson_arr_size(a) > TABLE_COUNT(r->argv))
        return err_set(err, RC_INVALID, "more arguments than there can be");
    yyjson_arr_foreach(a, i, n, v)
    {
        if (!yyjson_is_str(v))
            return err_set(err, RC_INVALID, "an argument is no text");
        r->argv[r->n_argv++] = mem_strndup(yyjson_get_str(v), yyjson_get_len(v));
    }
    return RC_OK;
}

/* What holds of every row that was written. */
static enum rc check(const struct roster_row *r, struct err *err)
{
    const struct plan_estimate *e = &r->plan.estimate;
    if (r->pid <= 1 || r->port == 0 || r->start_ticks == 0 || !r->id[0] || !r->model[0] || !r->path[0])
        return err_set(err, RC_INVALID, "it does not say which process serves what");
    if (strchr(r->log, '/') || r->log[0] == '.')
        return err_set(err, RC_INVALID, "its log is not a file name");
    if (e->n_parts == 0 || e->parts[e->n_parts - 1].kind != PLAN_HOST)
        return err_set(err, RC_INVALID, "its memory on the host is missing");
    if (!ggml_type_info(e->params.type_k) || !ggml_type_info(e->params.type_v))
        return err_set(err, RC_INVALID, "its cache is of no known type");
    return RC_OK;
}

static enum rc read_row(yyjson_val *root, struct roster_row *r, struct err *err)
{
    if (json_u64(root, "form", 0) != FORM)
        return err_set(err, RC_INVALID, "another version wrote it");
    enum rc rc = get_fields(root, "row", TABLE(row_fields), r, err);
    for (size_t i = 0; i < TABLE_COUNT(objects) && rc == RC_OK; i++)
        rc = get_fields(yyjson_obj_get(root, objects[i].name), objects[i].name, objects[i].fields,
                        objects[i].n_fields, (char *)r + objects[i].offset, err);
    for (size_t i = 0; i < TABLE_COUNT(lists) && rc == RC_OK; i++)
        rc = get_list(root, &lists[i], r, err);
    if (rc == RC_OK)
        rc = get_numbers(root, r, err);
    if (rc == RC_OK)
        rc = get_argv(root, r, err);
    r->plan.fits = true;
    r->plan.smaller = r->smaller ? 0 : PLAN_AS_ASKED;
    return rc == RC_OK ? check(r, err) : rc;
}

void roster_row_free(struct roster_row *r)
{
    for (size_t i = 0; r && i < r->n_argv; i++)
        free(r->argv[i]);
    free(r);
}

enum rc roster_parse(struct str text, struct roster_row **ret_row, struct err *err)
{
    yyjson_doc *doc;
    enum rc rc = json_parse(text, "row", &doc, err);
    if (rc != RC_OK)
        return rc;
    struct roster_row *r = mem_new(struct roster_row);
    rc = read_row(yyjson_doc_get_root(doc), r, err);
    yyjson_doc_free(doc);
    if (rc == RC_OK)
        *ret_row = r;
    else
        roster_row_free(r);
    return rc;
}

/* ---- files ---- */

enum rc roster_save(const char *dir, const struct roster_row *r, struct err *err)
{
    struct buf text = {.max = ROSTER_MAX_FILE};
    auto_free char *path = mem_printf("%s/%ld.json", dir, (long)r->pid);
    enum rc rc = roster_format(r, &text, err);
    if (rc == RC_OK)
        rc = file_replace(path, buf_str(&text), 0600, err);
    buf_release(&text);
    return rc;
}

void roster_drop(const char *dir, pid_t pid)
{
    auto_free char *path = mem_printf("%s/%ld.json", dir, (long)pid);
    if (unlink(path) != 0)
        errno = 0; /* the next scan takes it away */
}

__attribute__((format(printf, 2, 3))) static void note(struct roster *s, const char *fmt, ...)
{
    char text[700];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (s->n_notes < TABLE_COUNT(s->notes))
        s->notes[s->n_notes++] = mem_strdup(text);
}

/* Whether the process of a row is still the one that was written down; why not is for a person. */
static bool is_there(const struct roster_row *r, const char *boot, struct roster *s)
{
    uint64_t ticks, hash;
    if (strcmp(r->boot, boot) != 0 || !process_start_ticks(r->pid, &ticks))
        return false; /* it ended, with the machine or before */
    if (ticks != r->start_ticks || !process_is_ours(r->pid)) {
        note(s, "%s had process %ld, which is another one by now and is left alone", r->id, (long)r->pid);
        return false;
    }
    if (r->command_hash && process_command_hash(r->pid, &hash) && hash != r->command_hash) {
        note(s, "process %ld of %s runs another command by now and is left alone", (long)r->pid, r->id);
        return false;
    }
    return true;
}

static void look_at(const char *path, const char *boot, struct roster *s)
{
    struct err err;
    struct buf text = {0};
    struct roster_row *r = NULL;
    enum rc rc = file_read(path, ROSTER_MAX_FILE, &text, &err);
    if (rc == RC_OK)
        rc = roster_parse(buf_str(&text), &r, &err);
    buf_release(&text);
    if (rc != RC_OK)
        note(s, "%s is no row of an instance and is taken away: %s", path, err.message);
    if (rc == RC_OK && is_there(r, boot, s)) {
        s->rows = mem_realloc(s->rows, s->n + 1, sizeof(*s->rows));
        s->rows[s->n++] = r;
        return;
    }
    (void)!unlink(path);
    roster_row_free(r);
}

struct roster *roster_scan(const char *dir)
{
    char boot[PROCESS_BOOT_CHARS];
    struct roster *s = mem_new(struct roster);
    DIR *d = opendir(dir);
    const struct dirent *e;
    process_boot_id(boot, sizeof boot);
    while (d && (e = readdir(d))) {
        auto_free char *path = mem_printf("%s/%s", dir, e->d_name);
        if (str_ends(str_from(e->d_name), ".json"))
            look_at(path, boot, s);
        else if (strstr(e->d_name, ".json.")) /* a write that was broken off */
            (void)!unlink(path);
    }
    if (d)
        closedir(d);
    return s;
}

void roster_free(struct roster *s)
{
    for (size_t i = 0; s && i < s->n; i++)
        roster_row_free(s->rows[i]);
    for (size_t i = 0; s && i < s->n_notes; i++)
        free(s->notes[i]);
    if (s)
        free(s->rows);
    free(s);
}
