/* arriero bench model and bench proxy: a model through the daemon, and beside it. Layer cli; main thread.
 *
 * Prompts are token numbers, so that their length is exact, and differ between runs, so that no cache helps.
 * Times of the model are those that its server tells; times of the relay are taken here, the best and the
 * median of many. */
#include "cli/bench.h"
#include "cli/control.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define PROMPT      256u
#define TOKENS      64u
#define RUNS        3u
#define PROXY_RUNS  50u
#define PROXY_WARM  5u
#define MOST_RUNS   1000u
#define FIRST_TOKEN 100u /* past the special ones, below the end of every vocabulary */
#define TOKEN_RANGE 150u

/* ---- one request ---- */

struct asked {
    double prompt_ms, decode_ms;
    uint64_t prompt_n, decode_n;
    uint64_t took_us; /* as the client sees it */
};

static void put_request(struct buf *out, const char *model, uint32_t prompt, uint32_t tokens, uint32_t seed)
{
    buf_puts(out, "{\"model\":");
    buf_put_json(out, str_from(model));
    buf_puts(out, ",\"prompt\":[");
    for (uint32_t i = 0; i < prompt; i++)
        buf_printf(out, "%s%u", i ? "," : "", FIRST_TOKEN + (i * 7 + seed * 31) % TOKEN_RANGE);
    buf_printf(out,
               "],\"max_tokens\":%u,\"temperature\":0,\"ignore_eos\":true,\"cache_prompt\":false,"
               "\"stream\":false}",
               tokens);
}

static enum rc ask(const struct client_address *door, const char *model, uint32_t prompt, uint32_t tokens,
                   uint32_t seed, int cancel_fd, struct asked *ret, struct err *err)
{
    struct buf body = {0};
    yyjson_doc *doc;
    const char *key = getenv("ARRIERO_API_KEY");
    put_request(&body, model, prompt, tokens, seed);
    const struct client_request r = {.method = "POST",
                                     .path = "/v1/completions",
                                     .body = buf_str(&body),
                                     .bearer = key && key[0] ? key : NULL,
                                     .cancel_fd = cancel_fd};
    uint64_t start = clock_mono_us();
    enum rc rc = client_json(door, &r, &doc, err);
    uint64_t took = clock_mono_us() - start;
    buf_release(&body);
    if (rc != RC_OK)
        return rc;
    yyjson_val *t = yyjson_obj_get(yyjson_doc_get_root(doc), "timings");
    *ret = (struct asked){.prompt_ms = yyjson_get_num(yyjson_obj_get(t, "prompt_ms")),
                          .decode_ms = yyjson_get_num(yyjson_obj_get(t, "predicted_ms")),
                          .prompt_n = json_u64(t, "prompt_n", 0),
                          .decode_n = json_u64(t, "predicted_n", 0),
                          .took_us = took};
    yyjson_doc_free(doc);
    return RC_OK;
}

/* The instance that serves the model, as the daemon has it; the document is the caller's. */
static enum rc find_instance(const struct cli_call *call, const char *model, yyjson_doc **ret_doc,
                             yyjson_val **ret_instance, struct err *err)
{
    enum rc rc = control_get(call, "/instances", ret_doc, err);
    if (rc != RC_OK)
        return rc;
    yyjson_val *root = yyjson_doc_get_root(*ret_doc), *list = yyjson_obj_get(root, "instances");
    *ret_instance = control_instance(list ? list : root, str_from(model));
    if (*ret_instance)
        return RC_OK;
    yyjson_doc_free(*ret_doc);
    rc = err_set(err, RC_NOT_FOUND, "the daemon serves %s under another name", model);
    err_hint(err, "use the name that `arriero ps` shows");
    return rc;
}

/* ---- model ---- */

struct speeds {
    double prefill_tps, decode_tps;
    uint32_t runs;
};

static enum rc time_model(const struct client_address *door, const char *model, const struct bench_options *o,
                          struct bench_watch *w, struct speeds *ret, struct err *err)
{
    const struct hw_bench_control control = bench_control(w);
    uint32_t prompt = o->prompt ? o->prompt : PROMPT, tokens = o->tokens ? o->tokens : TOKENS,
             runs = o->repeat ? o->repeat : RUNS;
    for (uint32_t i = 0; i < runs && i < MOST_RUNS; i++) {
        struct asked a;
        control.progress(control.arg, model, (double)i / runs);
        enum rc rc = ask(door, model, prompt, tokens, i, w->signals, &a, err);
        if (rc != RC_OK)
            return rc;
        if (!(a.prompt_ms > 0) || !(a.decode_ms > 0))
            return err_set(err, RC_UNSUPPORTED, "the server of %s tells no timings", model);
        double prefill = 1e3 * (double)a.prompt_n / a.prompt_ms,
               decode = 1e3 * (double)a.decode_n / a.decode_ms;
        ret->prefill_tps = prefill > ret->prefill_tps ? prefill : ret->prefill_tps;
        ret->decode_tps = decode > ret->decode_tps ? decode : ret->decode_tps;
        ret->runs++;
    }
    return RC_OK;
}

static void add_pair(yyjson_mut_doc *doc, yyjson_mut_val *root, const char *name, double measured,
                     double predicted)
{
    yyjson_mut_val *o = yyjson_mut_obj_add_obj(doc, root, name);
    yyjson_mut_obj_add_real(doc, o, "measured_tps", measured);
    yyjson_mut_obj_add_real(doc, o, "predicted_tps", predicted);
}

static void print_pair(struct cli_table *t, const char *what, double measured, double predicted,
                       uint64_t samples)
{
    cli_table_cell(t, "%s", what);
    cli_table_cell(t, "%.1f", measured);
    cli_table_cell(t, "%.1f", predicted);
    cli_table_cell(t, "%+.0f %%", measured > 0 ? 100 * (predicted / measured - 1) : 0.0);
    if (samples)
        cli_table_cell(t, "from %llu requests", (unsigned long long)samples);
    else
        cli_table_cell(t, "uncorrected");
}

static int show_model(const struct cli_call *call, const char *model, const struct speeds *s,
                      yyjson_val *instance)
{
    static const char *const headings[] = {"TOKENS/S", "MEASURED", "PREDICTED", "OFF", "PREDICTION"};
    yyjson_val *speed = yyjson_obj_get(instance, "speed");
    double prefill = yyjson_get_num(yyjson_obj_get(speed, "prefill_tps")),
           decode = yyjson_get_num(yyjson_obj_get(speed, "decode_tps"));
    if (call->json) {
        yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
        yyjson_mut_val *root = yyjson_mut_obj(doc);
        yyjson_mut_doc_set_root(doc, root);
        json_add_str(doc, root, "model", str_from(model));
        yyjson_mut_obj_add_uint(doc, root, "runs", s->runs);
        add_pair(doc, root, "prefill", s->prefill_tps, prefill);
        add_pair(doc, root, "decode", s->decode_tps, decode);
        return cli_print_json(doc);
    }
    struct cli_table *t = cli_table_new(headings, TABLE_COUNT(headings));
    print_pair(t, "prefill", s->prefill_tps, prefill, json_u64(speed, "prefill_samples", 0));
    print_pair(t, "decode", s->decode_tps, decode, json_u64(speed, "decode_samples", 0));
    cli_table_print(t);
    printf("\nThe prediction was made at the load, for a cache filled up to 4096 tokens (or the context).\n");
    return 0;
}

int bench_model(struct cli_call *call)
{
    const char *model = call->args[1];
    struct client_address door;
    struct bench_watch watch;
    struct speeds s = {0};
    struct err err;
    yyjson_doc *doc = NULL;
    yyjson_val *instance = NULL;
    bench_watch_start(&watch);
    enum rc rc = control_door(call, NULL, &door, &err);
    if (rc == RC_OK)
        rc = time_model(&door, model, call->options, &watch, &s, &err);
    if (rc == RC_OK)
        rc = find_instance(call, model, &doc, &instance, &err);
    watch.ended |= rc == RC_CANCELLED;
    bench_watch_stop(&watch);
    if (rc != RC_OK)
        return bench_fail(call, &watch, &err);
    int status = show_model(call, model, &s, instance);
    yyjson_doc_free(doc);
    return status;
}

/* ---- proxy ---- */

struct sides {
    double daemon_us[MOST_RUNS], direct_us[MOST_RUNS];
    uint32_t n;
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static enum rc time_sides(const struct client_address *door, const struct client_address *direct,
                          const char *model, uint32_t runs, struct bench_watch *w, struct sides *s,
                          struct err *err)
{
    const struct hw_bench_control control = bench_control(w);
    for (uint32_t i = 0; i < runs + PROXY_WARM; i++) {
        struct asked a, b;
        control.progress(control.arg, "the relay", (double)i / (runs + PROXY_WARM));
        enum rc rc = ask(door, model, 1, 1, i, w->signals, &a, err);
        if (rc == RC_OK)
            rc = ask(direct, model, 1, 1, i, w->signals, &b, err);
        if (rc != RC_OK)
            return rc;
        if (i < PROXY_WARM)
            continue;
        /* What the model itself took is not the relay's. */
        s->daemon_us[s->n] = (double)a.took_us - 1e3 * (a.prompt_ms + a.decode_ms);
        s->direct_us[s->n++] = (double)b.took_us - 1e3 * (b.prompt_ms + b.decode_ms);
    }
    qsort(s->daemon_us, s->n, sizeof s->daemon_us[0], by_value);
    qsort(s->direct_us, s->n, sizeof s->direct_us[0], by_value);
    return RC_OK;
}

static int show_sides(const struct cli_call *call, const char *model, const struct sides *s)
{
    double daemon = s->daemon_us[s->n / 2], direct = s->direct_us[s->n / 2];
    if (call->json) {
        yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
        yyjson_mut_val *o = yyjson_mut_obj(doc);
        yyjson_mut_doc_set_root(doc, o);
        json_add_str(doc, o, "model", str_from(model));
        yyjson_mut_obj_add_uint(doc, o, "requests", s->n);
        yyjson_mut_obj_add_real(doc, o, "daemon_p50_us", daemon);
        yyjson_mut_obj_add_real(doc, o, "direct_p50_us", direct);
        yyjson_mut_obj_add_real(doc, o, "added_p50_us", daemon - direct);
        yyjson_mut_obj_add_real(doc, o, "added_least_us", s->daemon_us[0] - s->direct_us[0]);
        return cli_print_json(doc);
    }
    printf("%u requests each way, in turns; without the model's own time\n", s->n);
    printf("  through the daemon   median %.0f µs, least %.0f µs\n", daemon, s->daemon_us[0]);
    printf("  straight             median %.0f µs, least %.0f µs\n", direct, s->direct_us[0]);
    printf("  added                median %.0f µs, least %.0f µs\n", daemon - direct,
           s->daemon_us[0] - s->direct_us[0]);
    return 0;
}

int bench_proxy(struct cli_call *call)
{
    const struct bench_options *o = call->options;
    const char *model = call->args[1];
    struct client_address door, direct;
    struct bench_watch watch;
    struct asked first;
    struct err err;
    yyjson_doc *doc = NULL;
    yyjson_val *instance = NULL;
    struct sides *s = mem_new(struct sides);
    uint32_t runs = o->repeat ? o->repeat : PROXY_RUNS;
    bench_watch_start(&watch);
    enum rc rc = control_door(call, NULL, &door, &err);
    if (rc == RC_OK) /* loads it */
        rc = ask(&door, model, 1, 1, 0, watch.signals, &first, &err);
    if (rc == RC_OK)
        rc = find_instance(call, model, &doc, &instance, &err);
    if (rc == RC_OK) {
        char url[64];
        snprintf(url, sizeof url, "http://127.0.0.1:%llu", (unsigned long long)json_u64(instance, "port", 0));
        rc = client_address_url(url, &direct, &err);
    }
    if (rc == RC_OK)
        rc = time_sides(&door, &direct, model, runs < MOST_RUNS ? runs : MOST_RUNS, &watch, s, &err);
    watch.ended |= rc == RC_CANCELLED;
    bench_watch_stop(&watch);
    yyjson_doc_free(doc);
    int status = rc == RC_OK ? show_sides(call, model, s) : bench_fail(call, &watch, &err);
    free(s);
    return status;
}
