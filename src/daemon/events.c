/* What happens, told onward: a decision of the pool goes to the log, the store, the metrics and the listeners
 * of /events; a change of an instance's state to the store and those listeners; a finished request to the
 * store and the metrics. Layer daemon; loop thread. */
#include "daemon/daemon_priv.h"

#include "daemon/redact.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

/* ---- decisions ---- */

static enum log_level level_of(const char *kind)
{
    static const char *const bad[] = {"fail",         "crash",           "refuse",           "ladder",
                                      "llm_degraded", "thermal_warning", "thermal_critical", "heat",
                                      "attach"};
    for (size_t i = 0; i < TABLE_COUNT(bad); i++)
        if (strcmp(kind, bad[i]) == 0)
            return LOG_WARN;
    return LOG_INFO;
}

static void log_decision(const struct pool_decision *p)
{
    struct buf text = {.max = 1800};
    for (size_t i = 0; i < p->n_reasons && !text.failed; i++)
        buf_printf(&text, "%s%s", i ? "; " : ": ", p->reasons[i].text);
    char seconds[40] = "";
    if (p->seconds > 0)
        snprintf(seconds, sizeof seconds, " after %.2f s", p->seconds);
    log_write(level_of(p->kind), "%s%s%s%s%s", p->kind, p->model[0] ? " " : "", p->model, seconds,
              text.data ? text.data : "");
    buf_release(&text);
}

/* The same for those who follow it as text. */
static void tell_text(struct daemon *d, const struct pool_decision *p)
{
    char at[40];
    struct buf text = {0};
    if (!listeners_has(d, LISTEN_OWN_TEXT, p->model, p->instance))
        return;
    buf_printf(&text, "%s %s %s", clock_rfc3339(p->wall_ms, at, sizeof at), p->kind, p->model);
    for (size_t i = 0; i < p->n_reasons; i++)
        buf_printf(&text, "%s%s", i ? "; " : ": ", p->reasons[i].text);
    buf_puts(&text, "\n");
    listeners_tell(d, LISTEN_OWN_TEXT, p->model, p->instance, buf_str(&text));
    buf_release(&text);
}

static void put_reasons(const struct pool_decision *p, struct buf *out)
{
    buf_puts(out, "[");
    for (size_t i = 0; i < p->n_reasons; i++) {
        buf_puts(out, i ? ",{\"code\":" : "{\"code\":");
        buf_put_json(out, str_from(p->reasons[i].code));
        buf_puts(out, ",\"text\":");
        buf_put_json(out, str_from(p->reasons[i].text));
        if (i == 0 && p->other) {
            buf_puts(out, ",\"model\":");
            buf_put_json(out, str_from(p->other));
        }
        buf_puts(out, "}");
    }
    buf_puts(out, "]");
}

/* What the plan came to: enough to tell later what was placed where. */
static void put_plan(const struct plan *plan, struct buf *out)
{
    const struct plan_estimate *e = &plan->estimate;
    buf_printf(out, "{\"fits\":%s,\"strategy\":", plan->fits ? "true" : "false");
    buf_put_json(out, str_from(plan_strategy_word(plan->strategy)));
    buf_printf(out, ",\"ctx\":%u,\"parallel\":%u,\"layers_gpu\":%u,\"layers_cpu\":%u,\"devices\":[",
               e->params.ctx, e->params.parallel, e->layers_gpu, e->layers_cpu);
    for (size_t i = 0; i < e->n_parts; i++) {
        buf_puts(out, i ? ",{\"name\":" : "{\"name\":");
        buf_put_json(out, str_from(e->parts[i].name));
        buf_printf(out, ",\"bytes\":%llu}", (unsigned long long)plan_part_total(&e->parts[i]));
    }
    buf_puts(out, "]}");
}

static yyjson_mut_val *find_instance(yyjson_mut_val *instances, const char *id)
{
    size_t i, n;
    yyjson_mut_val *v;
    yyjson_mut_arr_foreach(instances, i, n, v)
    {
        const char *other = yyjson_mut_get_str(yyjson_mut_obj_get(v, "id"));
        if (other && strcmp(other, id) == 0)
            return v;
    }
    return NULL;
}

static const char *path_of(const struct daemon *d, const char *model)
{
    size_t i = d->set ? model_set_index(d->set, str_from(model)) : SIZE_MAX;
    return i == SIZE_MAX ? "" : d->set->models[i].path;
}

static void post_measures(struct daemon *d, const struct pool_decision *p)
{
    size_t i, n;
    yyjson_mut_val *v;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *instance = find_instance(pool_json(d->pool, doc), p->instance);
    yyjson_mut_arr_foreach(yyjson_mut_obj_get(instance, "devices"), i, n, v)
    {
        yyjson_mut_val *measured = yyjson_mut_obj_get(yyjson_mut_obj_get(v, "measured"), "total_bytes");
        if (!measured)
            continue;
        struct store_measure m = {
            .wall_ms = p->wall_ms,
            .model = p->model,
            .model_path = path_of(d, p->model),
            .runtime = "llamacpp",
            .device = yyjson_mut_get_str(yyjson_mut_obj_get(v, "name")),
            .predicted_bytes = yyjson_mut_get_uint(yyjson_mut_obj_get(v, "predicted_bytes")),
            .measured_bytes = yyjson_mut_get_uint(measured),
        };
        store_post_measure(d->store, &m);
    }
    yyjson_mut_doc_free(doc);
}

static void put_event(struct daemon *d, const struct pool_decision *p, struct str reasons, struct str plan,
                      struct buf *out)
{
    char at[40];
    buf_printf(out, "id: %llu\nevent: decision\ndata: {\"at\":\"%s\",\"kind\":",
               (unsigned long long)++d->event_serial, clock_rfc3339(p->wall_ms, at, sizeof at));
    buf_put_json(out, str_from(p->kind));
    buf_puts(out, ",\"model\":");
    buf_put_json(out, str_from(p->model));
    buf_puts(out, ",\"instance\":");
    buf_put_json(out, str_from(p->instance));
    buf_puts(out, ",\"reasons\":");
    buf_put_str(out, reasons);
    buf_puts(out, ",\"plan\":");
    buf_put_str(out, plan.n ? plan : STR("null"));
    buf_printf(out, ",\"seconds\":%.6g}\n\n", p->seconds);
}

void events_decision(void *daemon, const struct pool_decision *p)
{
    struct daemon *d = daemon;
    struct buf reasons = {0}, plan = {0}, event = {0};
    d->doing = "a decision";
    put_reasons(p, &reasons);
    if (p->plan)
        put_plan(p->plan, &plan);
    log_decision(p);
    metrics_add(d->metrics, METRIC_DECISIONS, (const char *[]){p->kind}, 1);
    if (strcmp(p->kind, "ready") == 0)
        metrics_observe(d->metrics, METRIC_LOAD_SECONDS, (const char *[]){p->model}, p->seconds);
    struct store_decision row = {.wall_ms = p->wall_ms,
                                 .kind = p->kind,
                                 .model = p->model,
                                 .instance = p->instance,
                                 .reasons_json = reasons.data,
                                 .plan_json = plan.data,
                                 .seconds = p->seconds};
    store_post_decision(d->store, &row);
    if (strcmp(p->kind, "ready") == 0)
        post_measures(d, p);
    if (listeners_has(d, LISTEN_DECISIONS, p->model, p->instance)) {
        put_event(d, p, buf_str(&reasons), buf_str(&plan), &event);
        listeners_tell(d, LISTEN_DECISIONS, p->model, p->instance, buf_str(&event));
    }
    tell_text(d, p);
    router_decision(d, p);
    preload_decision(d, p);
    d->roles_stale = true;
    buf_release(&reasons);
    buf_release(&plan);
    buf_release(&event);
}

/* ---- changes of states ---- */

/* What was ready and has failed is a crash to people, and was one in the history from the beginning. */
static const char *state_word(const struct pool_transition *t)
{
    return t->from == POOL_READY && t->to == POOL_FAILED ? "crashed" : pool_state_word(t->to);
}

static void put_transition(struct daemon *d, const struct pool_transition *t, struct buf *out)
{
    char at[40];
    buf_printf(out, "id: %llu\nevent: state\ndata: {\"at\":\"%s\",\"model\":",
               (unsigned long long)++d->event_serial, clock_rfc3339(t->wall_ms, at, sizeof at));
    buf_put_json(out, str_from(t->model));
    buf_puts(out, ",\"instance\":");
    buf_put_json(out, str_from(t->instance));
    buf_puts(out, ",\"from\":");
    if (t->from < POOL_STATES)
        buf_put_json(out, str_from(pool_state_word(t->from)));
    else
        buf_puts(out, "null");
    buf_puts(out, ",\"to\":");
    buf_put_json(out, str_from(pool_state_word(t->to)));
    buf_puts(out, ",\"reason\":{\"code\":");
    buf_put_json(out, str_from(t->why.code));
    buf_puts(out, ",\"text\":");
    buf_put_json(out, str_from(t->why.text));
    buf_puts(out, "}}\n\n");
}

void events_transition(void *daemon, const struct pool_transition *t)
{
    struct daemon *d = daemon;
    const struct store_instance row = {.wall_ms = t->wall_ms,
                                       .instance = t->instance,
                                       .model = t->model,
                                       .model_path = path_of(d, t->model),
                                       .state = state_word(t),
                                       .pid = t->pid,
                                       .port = t->port,
                                       .cause = t->why.text};
    d->doing = "a change of state";
    log_debug("%s: %s: %s", t->instance, row.state, t->why.text);
    store_post_instance(d->store, &row);
    if (!listeners_has(d, LISTEN_DECISIONS, t->model, t->instance))
        return;
    struct buf event = {0};
    put_transition(d, t, &event);
    listeners_tell(d, LISTEN_DECISIONS, t->model, t->instance, buf_str(&event));
    buf_release(&event);
}

void api_events(void *daemon, struct http_exchange *ex)
{
    (void)listeners_add(daemon, ex, LISTEN_DECISIONS, NULL, STR("retry: 2000\n\n"));
}

/* ---- requests ---- */

static double rate(uint64_t tokens, uint64_t us)
{
    return us ? (double)tokens * 1e6 / (double)us : 0;
}

/* By the runtime's own clock; where it told none, by ours: from the first byte of a stream to its end. */
static double decode_rate(const struct http_record *r)
{
    if (r->timing_decode_us)
        return rate(r->timing_decode_tokens, r->timing_decode_us);
    if (!r->streamed || !r->tokens_known || r->completion_tokens < 2 || r->ttfb_us >= r->total_us)
        return 0;
    return rate(r->completion_tokens - 1, r->total_us - r->ttfb_us);
}

static void post_capture(struct daemon *d, const struct http_record *r, const char *key)
{
    struct buf request = {0}, response = {0};
    redact(r->request_text, &request);
    redact(r->response_text, &response);
    const struct store_capture c = {.wall_ms = r->wall_ms,
                                    .request_id = r->request_id,
                                    .key = key,
                                    .model = r->model,
                                    .path = r->path,
                                    .request = request.n ? request.data : "",
                                    .response = response.n ? response.data : ""};
    store_post_capture(d->store, &c);
    buf_release(&request);
    buf_release(&response);
}

/* Bytes of text that make a token where nobody told how many there were: rather too many tokens than too few.
 */
#define BYTES_A_TOKEN 3u

/* What the answer cost, and keeps the sums. */
static double charge(struct daemon *d, const struct remote_model *m, const struct http_record *r)
{
    struct spend sums;
    const char *name;
    bool told = r->tokens_known, served = r->status == 200 || r->status == 0;
    if (!m || !served)
        return 0;
    uint64_t prompt = told ? r->prompt_tokens : r->request_bytes / BYTES_A_TOKEN;
    uint64_t answer = told ? r->completion_tokens : r->response_bytes / BYTES_A_TOKEN;
    double cost = remote_charge(m, prompt, answer, clock_wall_ms(), &name, &sums);
    const struct store_spending row = {.wall_ms = r->wall_ms,
                                       .upstream = name,
                                       .day = sums.day,
                                       .month = sums.month,
                                       .in_day = sums.in_day,
                                       .in_month = sums.in_month};
    if (cost > 0)
        store_post_spending(d->store, &row);
    return cost;
}

void events_request(void *daemon, const struct http_record *r)
{
    struct daemon *d = daemon;
    /* A name that no model has must not become a label. */
    const struct remote_model *elsewhere = remote_find(d->remotes, str_from(r->model));
    const char *known = elsewhere ? elsewhere->id : pool_resolve(d->pool, str_from(r->model));
    const char *model[] = {known ? known : "unknown", r->outcome};
    metrics_add(d->metrics, METRIC_REQUESTS, model, 1);
    metrics_observe(d->metrics, METRIC_REQUEST_SECONDS, model, (double)r->total_us * 1e-6);
    if (r->instance[0]) {
        metrics_observe(d->metrics, METRIC_OVERHEAD, NULL, (double)r->overhead_us * 1e-6);
        if (r->response_bytes)
            metrics_observe(d->metrics, METRIC_TTFT, model, (double)r->ttfb_us * 1e-6);
    }
    if (r->tokens_known) {
        metrics_add(d->metrics, METRIC_PROMPT_TOKENS, model, (double)r->prompt_tokens);
        metrics_add(d->metrics, METRIC_CACHED_TOKENS, model, (double)r->cached_tokens);
        metrics_add(d->metrics, METRIC_COMPLETION_TOKENS, model, (double)r->completion_tokens);
    }
    char key[AUTH_ID_CHARS + 1];
    snprintf(key, sizeof key, "%.*s", STR_ARG(r->key_id));
    struct store_request row = {.wall_ms = r->wall_ms,
                                .model = r->model,
                                .instance = r->instance,
                                .path = r->path,
                                .outcome = r->outcome,
                                .status = r->status,
                                .streamed = r->streamed,
                                .prompt_tokens = r->prompt_tokens,
                                .completion_tokens = r->completion_tokens,
                                .cached_tokens = r->cached_tokens,
                                .tokens_known = r->tokens_known,
                                .request_bytes = r->request_bytes,
                                .response_bytes = r->response_bytes,
                                .wait_us = r->wait_us,
                                .ttfb_us = r->ttfb_us,
                                .total_us = r->total_us,
                                .overhead_us = r->overhead_us,
                                .key = key,
                                .request_id = r->request_id,
                                .prefill_tps = rate(r->timing_prompt_tokens, r->timing_prompt_us),
                                .decode_tps = decode_rate(r),
                                .asked = r->asked,
                                .cost = charge(d, r->instance[0] ? elsewhere : NULL, r)};
    store_post_request(d->store, &row);
    if (r->request_text.n || r->response_text.n)
        post_capture(d, r, key);
    if (r->timing_decode_tokens || r->timing_prompt_tokens) {
        const struct plan_timing t = {.prompt_tokens = r->timing_prompt_tokens,
                                      .cached_tokens = r->cached_tokens,
                                      .prompt_seconds = (double)r->timing_prompt_us * 1e-6,
                                      .decode_tokens = r->timing_decode_tokens,
                                      .decode_seconds = (double)r->timing_decode_us * 1e-6};
        pool_timing(d->pool, r->instance, &t, r->total_us / 1000);
    }
}
