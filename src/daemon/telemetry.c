/* What the daemon tells about itself: metrics, the joined status, the short health. Layer daemon; loop
 * thread. The names in health and status that end in _gb, and servers[], gpu_pool_status, are those that
 * clients of the predecessor know. */
#include "daemon/daemon_priv.h"
#include "daemon/pressure.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define GB(bytes) ((double)(bytes) / (1024.0 * 1024 * 1024))

/* ---- metrics ---- */

static void collect_pool(struct daemon *d)
{
    struct metrics *m = d->metrics;
    struct pool_counters c;
    pool_counters(d->pool, &c);
    const struct {
        enum metric id;
        double value;
    } rows[] = {
        {METRIC_LOADS, (double)c.loads},
        {METRIC_LOAD_FAILURES, (double)c.load_failures},
        {METRIC_ADOPTIONS, (double)c.adoptions},
        {METRIC_EVICTIONS, (double)c.evictions},
        {METRIC_CRASHES, (double)c.crashes},
        {METRIC_REFUSALS, (double)c.refused},
        {METRIC_WAITS, (double)c.waits},
        {METRIC_LEASES, (double)c.leases},
        {METRIC_QUEUE_WAITING, (double)c.waiting},
        {METRIC_LADDER_STEPS, (double)c.ladder_steps},
        {METRIC_BREAKER_TRIPS, (double)c.trips},
        {METRIC_PREFIX_HITS, (double)c.prefix_hits},
        {METRIC_KV_SAVED, (double)c.kv_saved},
        {METRIC_KV_RESTORED, (double)c.kv_restored},
        {METRIC_KV_FAILURES, (double)c.kv_failures},
        {METRIC_KV_HIT_TOKENS, (double)c.kv_hit_tokens},
        {METRIC_KV_FILES, (double)c.kv_files},
        {METRIC_KV_BYTES, (double)c.kv_bytes},
        {METRIC_HEAT_STEPS, (double)c.heat_steps},
    };
    for (size_t i = 0; i < TABLE_COUNT(rows); i++)
        metrics_set(m, rows[i].id, NULL, rows[i].value);
    for (int b = 0; b < LINE_BANDS; b++) {
        const char *band[] = {line_band_word((enum line_band)b)};
        metrics_set(m, METRIC_QUEUE_LENGTH, band, c.waiting_in[b]);
        metrics_set(m, METRIC_QUEUE_GRANTS, band, (double)c.line_grants[b]);
    }
    for (int k = 0; k < YIELD_KINDS; k++)
        metrics_set(m, METRIC_YIELDS, (const char *[]){yield_kind_word((enum yield_kind)k)},
                    (double)c.yields[k]);
    for (int s = 0; s < POOL_STATES; s++)
        metrics_set(m, METRIC_INSTANCES, (const char *[]){pool_state_word((enum pool_state)s)},
                    (double)c.instances[s]);
}

static void collect_instance(void *arg, const struct pool_view *v)
{
    struct daemon *d = arg;
    const struct plan_estimate *e = &v->plan->estimate;
    if (v->state == POOL_STOPPED || v->state == POOL_FAILED)
        return;
    metrics_set(d->metrics, METRIC_INSTANCE_BUSY, (const char *[]){v->model, v->instance}, v->busy);
    metrics_set(d->metrics, METRIC_INSTANCE_SLOTS, (const char *[]){v->model, v->instance}, v->slots);
    metrics_set(d->metrics, METRIC_INSTANCE_AT_ONCE, (const char *[]){v->model, v->instance}, v->at_once);
    metrics_set(d->metrics, METRIC_INSTANCE_BREAKER, (const char *[]){v->model, v->instance, v->breaker}, 1);
    for (size_t i = 0; i < e->n_parts; i++)
        metrics_set(d->metrics, METRIC_INSTANCE_BYTES,
                    (const char *[]){v->model, v->instance, e->parts[i].name},
                    (double)plan_part_total(&e->parts[i]));
}

static void collect_http(struct daemon *d)
{
    struct http_counters c;
    http_server_counters(d->server, &c);
    metrics_set(d->metrics, METRIC_HTTP_CONNECTIONS, NULL, c.connections);
    metrics_set(d->metrics, METRIC_HTTP_CONNECTIONS_TOTAL, NULL, (double)c.connections_total);
    metrics_set(d->metrics, METRIC_HTTP_REQUESTS_TOTAL, NULL, (double)c.requests_total);
    metrics_set(d->metrics, METRIC_HTTP_CLIENT_ABORTS, NULL, (double)c.client_aborts);
    metrics_set(d->metrics, METRIC_HTTP_UPSTREAM_ERRORS, NULL, (double)c.upstream_errors);
    metrics_set(d->metrics, METRIC_HTTP_RETRIED, NULL, (double)c.retried);
    metrics_set(d->metrics, METRIC_HTTP_BODY_BYTES, NULL, (double)c.body_bytes_in_flight);
}

static void collect_gpu(struct metrics *m, const struct hw_device *g)
{
    const char *uuid[] = {g->valid & HW_UUID && g->uuid[0] ? g->uuid : g->name};
    const struct {
        enum metric id;
        uint32_t bit;
        double value;
    } rows[] = {
        {METRIC_GPU_MEMORY_TOTAL, HW_MEMORY, (double)g->total_bytes},
        {METRIC_GPU_MEMORY_USED, HW_MEMORY, (double)g->used_bytes},
        {METRIC_GPU_MEMORY_FREE, HW_MEMORY, (double)g->free_bytes},
        {METRIC_GPU_UTIL, HW_UTIL, g->util_pct / 100.0},
        {METRIC_GPU_MEM_BUSY, HW_MEM_BUSY, g->mem_busy_pct / 100.0},
        {METRIC_GPU_TEMPERATURE, HW_TEMPERATURE, g->temperature_c},
        {METRIC_GPU_POWER, HW_POWER, g->power_mw / 1000.0},
        {METRIC_GPU_POWER_LIMIT, HW_POWER_LIMIT, g->power_limit_mw / 1000.0},
        {METRIC_GPU_CLOCK, HW_CLOCKS, g->clock_sm_mhz * 1e6},
        {METRIC_GPU_THROTTLE, HW_THROTTLE, (double)g->throttle_reasons},
    };
    metrics_set(m, METRIC_GPU_INFO, (const char *[]){uuid[0], g->name, g->model}, 1);
    for (size_t i = 0; i < TABLE_COUNT(rows); i++)
        if (g->valid & rows[i].bit)
            metrics_set(m, rows[i].id, uuid, rows[i].value);
}

static void collect_gauge(void *arg, const struct pool_gauge *g)
{
    struct metrics *m = arg;
    const char *device[] = {g->device};
    metrics_set(m, METRIC_FOREIGN_BYTES, device, (double)g->foreign_bytes);
    metrics_set(m, METRIC_SHORT_BYTES, device, (double)g->short_bytes);
}

static void collect_machine(struct daemon *d)
{
    const struct hw_inventory *inv = sampler_latest(d->sampler);
    for (int id = METRIC_GPU_INFO; id <= METRIC_GPU_THROTTLE;
         id++) /* a GPU may have gone, a value be unknown now */
        metrics_clear(d->metrics, (enum metric)id);
    for (size_t i = 0; i < inv->n_devices; i++)
        collect_gpu(d->metrics, &inv->devices[i]);
    metrics_set(d->metrics, METRIC_HOST_MEMORY_TOTAL, NULL, (double)inv->host.ram_total_bytes);
    metrics_set(d->metrics, METRIC_HOST_MEMORY_AVAILABLE, NULL, (double)inv->host.ram_available_bytes);
    metrics_set(d->metrics, METRIC_HOST_MEMORY_USABLE, NULL, (double)inv->host.usable_free_bytes);
    metrics_set(d->metrics, METRIC_HOST_SWAP_FREE, NULL, (double)inv->host.swap_free_bytes);
    metrics_clear(d->metrics, METRIC_FOREIGN_BYTES);
    metrics_clear(d->metrics, METRIC_SHORT_BYTES);
    metrics_set(d->metrics, METRIC_PRESSURE, NULL, (double)pool_memory(d->pool, collect_gauge, d->metrics));
    levels_metrics(d);
}

void telemetry_text(struct daemon *d, struct buf *out)
{
    struct store_health h;
    store_health(d->store, &h);
    metrics_set(d->metrics, METRIC_BUILD_INFO, (const char *[]){ARRIERO_VERSION}, 1);
    metrics_set(d->metrics, METRIC_START_TIME, NULL, (double)d->start_wall_ms / 1000);
    collect_pool(d);
    for (int id = METRIC_INSTANCE_SLOTS; id <= METRIC_INSTANCE_BYTES; id++)
        metrics_clear(d->metrics, (enum metric)id);
    pool_each(d->pool, collect_instance, d);
    collect_http(d);
    collect_machine(d);
    metrics_set(d->metrics, METRIC_STORE_WRITABLE, NULL, h.writable);
    metrics_set(d->metrics, METRIC_STORE_QUEUED, NULL, (double)h.queued);
    metrics_set(d->metrics, METRIC_STORE_WRITTEN, NULL, (double)h.written);
    metrics_set(d->metrics, METRIC_STORE_DROPPED, NULL, (double)h.dropped);
    metrics_set(d->metrics, METRIC_LOOP_SLOW_TURNS, NULL, (double)d->slow_turns);
    metrics_text(d->metrics, out);
}

/* ---- health and status ---- */

static yyjson_mut_val *state_counts(struct daemon *d, yyjson_mut_doc *doc)
{
    struct pool_counters c;
    pool_counters(d->pool, &c);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    for (int s = 0; s < POOL_STATES; s++)
        yyjson_mut_obj_add_uint(doc, o, pool_state_word((enum pool_state)s), c.instances[s]);
    return o;
}

static yyjson_mut_val *store_json(struct daemon *d, yyjson_mut_doc *doc)
{
    struct store_health h;
    store_health(d->store, &h);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_obj_add_bool(doc, o, "writable", h.writable);
    yyjson_mut_obj_add_bool(doc, o, "replaced", h.replaced);
    json_add_str(doc, o, "message", str_from(h.message));
    yyjson_mut_obj_add_uint(doc, o, "queued", h.queued);
    yyjson_mut_obj_add_uint(doc, o, "written", h.written);
    yyjson_mut_obj_add_uint(doc, o, "dropped", h.dropped);
    return o;
}

/* Free in the sense of thresholds.admit_*: neither busy nor full. */
static bool is_available(const struct config *c, const struct hw_device *g)
{
    if (!(g->valid & HW_MEMORY) || g->total_bytes == 0)
        return false;
    double fill = 100.0 * (double)g->used_bytes / (double)g->total_bytes;
    return fill < c->admit_fill && (!(g->valid & HW_UTIL) || g->util_pct < c->admit_util);
}

static yyjson_mut_val *gpu_pool_status(struct daemon *d, yyjson_mut_doc *doc)
{
    const struct hw_inventory *inv = sampler_latest(d->sampler);
    uint64_t total = 0, used = 0, free_bytes = 0, util = 0;
    size_t available = 0, with_util = 0;
    for (size_t i = 0; i < inv->n_devices; i++) {
        const struct hw_device *g = &inv->devices[i];
        if (g->valid & HW_MEMORY) {
            total += g->total_bytes;
            used += g->used_bytes;
            free_bytes += g->free_bytes;
        }
        if (g->valid & HW_UTIL) {
            util += g->util_pct;
            with_util++;
        }
        available += is_available(d->config, g);
    }
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_obj_add_uint(doc, o, "total_gpus", inv->n_devices);
    yyjson_mut_obj_add_uint(doc, o, "available_gpus", available);
    yyjson_mut_obj_add_real(doc, o, "total_memory", GB(total));
    yyjson_mut_obj_add_real(doc, o, "used_memory", GB(used));
    yyjson_mut_obj_add_real(doc, o, "free_memory", GB(free_bytes));
    yyjson_mut_obj_add_uint(doc, o, "total_memory_mib", total / MIB);
    yyjson_mut_obj_add_uint(doc, o, "free_memory_mib", free_bytes / MIB);
    yyjson_mut_obj_add_real(doc, o, "utilization_average", with_util ? (double)util / (double)with_util : 0);
    return o;
}

static const char *server_status(enum pool_state s)
{
    return s == POOL_READY || s == POOL_DRAINING ? "running" : s == POOL_FAILED ? "error" : "stopped";
}

struct servers {
    yyjson_mut_doc *doc;
    yyjson_mut_val *list;
};

static void add_server(void *arg, const struct pool_view *i)
{
    struct servers *v = arg;
    const struct plan *plan = i->plan;
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(v->doc, v->list);
    yyjson_mut_obj_add_strcpy(v->doc, o, "id", i->instance);
    yyjson_mut_obj_add_strcpy(v->doc, o, "model_id", i->model);
    yyjson_mut_obj_add_str(v->doc, o, "status", server_status(i->state));
    yyjson_mut_obj_add_str(v->doc, o, "state", pool_state_word(i->state));
    yyjson_mut_obj_add_uint(v->doc, o, "busy", i->busy);
    yyjson_mut_obj_add_uint(v->doc, o, "slots", i->slots);
    if (plan->n_used == 0) {
        yyjson_mut_obj_add_null(v->doc, o, "gpu_assignment");
        return;
    }
    yyjson_mut_val *a = yyjson_mut_obj_add_obj(v->doc, o, "gpu_assignment");
    yyjson_mut_val *ids = yyjson_mut_obj_add_arr(v->doc, a, "gpu_ids");
    yyjson_mut_val *splits = yyjson_mut_obj_add_arr(v->doc, a, "tensor_splits");
    const struct plan_params *p = &plan->estimate.params;
    uint64_t bytes = 0;
    double sum = 0;
    for (uint32_t k = 0; k < p->n_tensor_split; k++)
        sum += (double)p->tensor_split[k];
    for (uint32_t k = 0; k < plan->n_used && k < plan->estimate.n_parts; k++) {
        yyjson_mut_arr_add_uint(v->doc, ids, plan->used[k]);
        yyjson_mut_arr_add_real(v->doc, splits,
                                k < p->n_tensor_split && sum > 0 ? (double)p->tensor_split[k] / sum
                                                                 : 1.0 / plan->n_used);
        bytes += plan_part_total(&plan->estimate.parts[k]);
    }
    yyjson_mut_obj_add_real(v->doc, a, "estimated_vram_required", GB(bytes));
    yyjson_mut_obj_add_int(v->doc, a, "n_gpu_layers", p->gpu_layers);
}

yyjson_mut_val *telemetry_health(struct daemon *d, yyjson_mut_doc *doc)
{
    const struct hw_inventory *inv = sampler_latest(d->sampler);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    if (d->stopping || !d->config->n_roles)
        yyjson_mut_obj_add_str(doc, o, "status", d->stopping ? "stopping" : "ok");
    else
        (void)roles_health(d, doc, o);
    yyjson_mut_obj_add_str(doc, o, "version", ARRIERO_VERSION);
    yyjson_mut_obj_add_uint(doc, o, "gpu_count", inv->n_devices);
    yyjson_mut_obj_add_bool(doc, o, "gpu_available", inv->n_devices > 0);
    yyjson_mut_obj_add_bool(doc, o, "gpu_monitoring_enabled", inv->n_devices > 0);
    yyjson_mut_obj_add_uint(doc, o, "models", d->set->n);
    yyjson_mut_obj_add_val(doc, o, "instances", state_counts(d, doc));
    struct servers v = {doc, yyjson_mut_obj_add_arr(doc, o, "servers")};
    pool_each(d->pool, add_server, &v);
    yyjson_mut_obj_add_val(doc, o, "gpu_pool_status", gpu_pool_status(d, doc));
    yyjson_mut_obj_add_str(doc, o, "allocation_strategy", d->config->defaults.strategy);
    struct store_health h;
    store_health(d->store, &h);
    yyjson_mut_val *s = yyjson_mut_obj_add_obj(doc, o, "store");
    yyjson_mut_obj_add_bool(doc, s, "writable", h.writable);
    json_add_str(doc, s, "message", str_from(h.message));
    return o;
}

void telemetry_warnings(struct daemon *d, yyjson_mut_doc *doc, yyjson_mut_val *list)
{
    const struct config *c = d->config;
    if (!d->runtime_path[0]) {
        auto_free char *text = mem_printf("%s; %s", d->runtime_err.message, d->runtime_err.hint);
        yyjson_mut_arr_add_strcpy(doc, list, text);
    }
    if (pool_kv_problem(d->pool)) {
        auto_free char *text =
            mem_printf("conversations are not kept over swaps: %s", pool_kv_problem(d->pool));
        yyjson_mut_arr_add_strcpy(doc, list, text);
    }
    levels_warnings(d, doc, list);
    power_warnings(d, doc, list);
    for (size_t i = 0; i < d->set->n_warnings; i++)
        yyjson_mut_arr_add_strcpy(doc, list, d->set->warnings[i]);
    for (size_t i = 0; i < remote_set_n(d->remotes); i++)
        if (remote_problem(d->remotes, i))
            yyjson_mut_arr_add_strcpy(doc, list, remote_problem(d->remotes, i)->message);
    for (size_t i = 0; i < c->n_notes; i++)
        yyjson_mut_arr_add_strcpy(doc, list, c->notes[i]);
}

static void add_counters(struct daemon *d, yyjson_mut_doc *doc, yyjson_mut_val *o)
{
    struct pool_counters p;
    struct http_counters h;
    pool_counters(d->pool, &p);
    http_server_counters(d->server, &h);
    yyjson_mut_obj_add_uint(doc, o, "loads", p.loads);
    yyjson_mut_obj_add_uint(doc, o, "load_failures", p.load_failures);
    yyjson_mut_obj_add_uint(doc, o, "adoptions", p.adoptions);
    yyjson_mut_obj_add_uint(doc, o, "evictions", p.evictions);
    yyjson_mut_obj_add_uint(doc, o, "crashes", p.crashes);
    yyjson_mut_obj_add_uint(doc, o, "refused", p.refused);
    yyjson_mut_obj_add_uint(doc, o, "waits", p.waits);
    yyjson_mut_obj_add_uint(doc, o, "waiting", p.waiting);
    yyjson_mut_obj_add_uint(doc, o, "leases", p.leases);
    yyjson_mut_obj_add_uint(doc, o, "connections", h.connections);
    yyjson_mut_obj_add_uint(doc, o, "requests", h.requests_total);
    yyjson_mut_obj_add_uint(doc, o, "relayed", h.relayed_total);
    yyjson_mut_obj_add_uint(doc, o, "client_aborts", h.client_aborts);
    yyjson_mut_obj_add_uint(doc, o, "upstream_errors", h.upstream_errors);
    yyjson_mut_obj_add_uint(doc, o, "listeners", d->n_listeners);
    yyjson_mut_obj_add_uint(doc, o, "slow_turns", d->slow_turns);
}

yyjson_mut_val *telemetry_status(struct daemon *d, yyjson_mut_doc *doc)
{
    char at[40];
    yyjson_mut_val *o = telemetry_health(d, doc);
    yyjson_mut_obj_add_int(doc, o, "pid", getpid());
    yyjson_mut_obj_add_strcpy(doc, o, "started_at", clock_rfc3339(d->start_wall_ms, at, sizeof at));
    yyjson_mut_obj_add_uint(doc, o, "uptime_ms", clock_mono_ms() - d->start_mono_ms);
    yyjson_mut_val *listen = yyjson_mut_obj_add_arr(doc, o, "listen");
    for (size_t i = 0; http_server_address(d->server, i)[0]; i++)
        if (http_server_scheme(d->server, i)[0]) {
            auto_free char *url = mem_printf("https://%s", http_server_address(d->server, i));
            bool tls = strcmp(http_server_scheme(d->server, i), "https") == 0;
            yyjson_mut_arr_add_strcpy(doc, listen, tls ? url : http_server_address(d->server, i));
        }
    yyjson_mut_obj_add_strcpy(doc, o, "socket", d->socket);
    yyjson_mut_obj_add_strcpy(doc, o, "config_file", d->config->file);
    yyjson_mut_obj_add_strcpy(doc, o, "state_dir", d->state_dir);
    yyjson_mut_val *runtime = yyjson_mut_obj_add_obj(doc, o, "runtime");
    yyjson_mut_obj_add_strcpy(doc, runtime, "llama_server", d->runtime_path);
    yyjson_mut_val *machine = roles_machine_json(d->config, sampler_latest(d->sampler), doc);
    levels_put(d, doc, machine);
    yyjson_mut_obj_add_val(doc, o, "machine", machine);
    yyjson_mut_val *memory = pool_memory_json(d->pool, doc);
    yyjson_mut_obj_add_str(doc, memory, "pressure_source", pressure_way(d->pressure));
    yyjson_mut_obj_add_val(doc, o, "memory", memory);
    yyjson_mut_obj_remove_key(o, "instances");
    yyjson_mut_obj_add_val(doc, o, "instance_states", state_counts(d, doc));
    yyjson_mut_obj_add_val(doc, o, "instances", pool_json(d->pool, doc));
    yyjson_mut_obj_add_val(doc, o, "upstreams", remote_set_json(d->remotes, doc));
    add_counters(d, doc, yyjson_mut_obj_add_obj(doc, o, "counters"));
    yyjson_mut_val *history = store_json(d, doc);
    yyjson_mut_obj_add_strcpy(doc, history, "path", d->history_path);
    yyjson_mut_obj_add_val(doc, o, "history", history);
    telemetry_warnings(d, doc, yyjson_mut_obj_add_arr(doc, o, "warnings"));
    return o;
}
