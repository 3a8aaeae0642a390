/* The proxy alone with a fixed route, for the benchmark: everything that the daemon puts around it (pool,
 * store) is left out. Prints its port; with a record hook as in the daemon. Ended by SIGTERM it prints, if
 * asked for, the CPU time of the loop's longest turn in microseconds: what one stream waits for another at
 * most. Usage: bench_proxy BACKEND_PORT [turns|COLLECT_MEMBERS]
 */
#include "proxy/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint16_t backend;
static const char *members; /* with them plain answers are collected, see route.h */
static uint64_t tokens;

static enum route_answer acquire(void *ctx, const struct route_request *req, route_cb cb, void *arg,
                                 struct route_lease *ret_lease, void **ret_wait,
                                 struct route_refusal *ret_refusal)
{
    (void)ctx, (void)cb, (void)arg, (void)ret_wait, (void)ret_refusal;
    memcpy(ret_lease->host, "127.0.0.1", 10);
    ret_lease->port = backend;
    ret_lease->speaks = DIALECT_BIT(OPENAI);
    ret_lease->replace_model = true;
    (void)snprintf(ret_lease->model, sizeof ret_lease->model, "%.*s", STR_ARG(req->model));
    memcpy(ret_lease->instance, "bench-1", 8);
    ret_lease->collect_members = members;
    return ROUTE_GRANTED;
}

static void cancel(void *ctx, void *wait)
{
    (void)ctx, (void)wait;
}

static void release(void *ctx, struct route_lease *lease, enum route_end end)
{
    (void)ctx, (void)lease, (void)end;
}

static void record(void *arg, const struct http_record *r)
{
    (void)arg;
    tokens += r->completion_tokens;
}

/* ---- turns of the loop ---- */

static uint64_t woke_us, longest_us;

static uint64_t cpu_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

/* Sleeping costs no CPU time, so a turn goes from one of these to the next. */
static void on_prepare(uv_prepare_t *prepare)
{
    (void)prepare;
    uint64_t now = cpu_now_us();
    if (woke_us && now - woke_us > longest_us)
        longest_us = now - woke_us;
    woke_us = now;
}

static void on_term(uv_signal_t *signal, int number)
{
    (void)number;
    printf("%llu\n", (unsigned long long)longest_us);
    fflush(stdout);
    uv_stop(signal->loop);
}

static void count_turns(uv_loop_t *loop)
{
    static uv_prepare_t prepare;
    static uv_signal_t term;
    uv_prepare_init(loop, &prepare);
    uv_prepare_start(&prepare, on_prepare);
    uv_signal_init(loop, &term);
    uv_signal_start(&term, on_term, SIGTERM);
}

/* Every call of every dialect. */
static size_t all_routes(struct http_route *out, size_t room)
{
    size_t n = 0;
    for (unsigned id = 0; id < DIALECTS; id++) {
        const struct dialect *d = dialect_at((enum dialect_id)id);
        for (size_t i = 0; i < d->n_calls && n < room; i++)
            out[n++] = (struct http_route){.path = d->calls[i].path,
                                           .methods = HTTP_M_POST,
                                           .dialect = (enum dialect_id)id,
                                           .call = &d->calls[i]};
    }
    return n;
}

int main(int argc, char **argv)
{
    static struct http_route routes[64];
    if (argc != 2 && argc != 3)
        return 2;
    bool turns = argc == 3 && !strcmp(argv[2], "turns");
    members = argc == 3 && !turns ? argv[2] : NULL;
    backend = (uint16_t)atoi(argv[1]);
    struct http_options opt;
    struct http_server *s = NULL;
    struct err err;
    http_options_default(&opt);
    opt.loop = uv_default_loop();
    opt.routes = routes;
    opt.n_routes = all_routes(routes, sizeof routes / sizeof *routes);
    if (turns) { /* documents may be as large as they like */
        opt.max_body_bytes = 1ull << 30;
        opt.body_budget_bytes = 1ull << 32;
    }
    opt.route = (struct route_ops){.acquire = acquire, .cancel = cancel, .release = release};
    opt.record = record;
    if (http_server_new(&opt, &s, &err) != RC_OK || http_listen_tcp(s, "127.0.0.1:0", false, &err) != RC_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    printf("%s\n", strrchr(http_server_address(s, 0), ':') + 1);
    fflush(stdout);
    if (turns)
        count_turns(opt.loop);
    return uv_run(opt.loop, UV_RUN_DEFAULT);
}
