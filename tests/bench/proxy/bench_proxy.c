/* The proxy alone with a fixed route, for the benchmark: everything that the daemon puts around it (pool,
 * store) is left out. Prints its port; with a record hook as in the daemon.
 * Usage: bench_proxy BACKEND_PORT [COLLECT_MEMBERS]
 */
#include "proxy/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int main(int argc, char **argv)
{
    const struct dialect_call *call = dialect_at(DIALECT_OPENAI)->calls; /* chat */
    const struct http_route routes[] = {{.path = call->path, .methods = HTTP_M_POST, .call = call}};
    if (argc != 2 && argc != 3)
        return 2;
    members = argc == 3 ? argv[2] : NULL;
    backend = (uint16_t)atoi(argv[1]);
    struct http_options opt;
    struct http_server *s = NULL;
    struct err err;
    http_options_default(&opt);
    opt.loop = uv_default_loop();
    opt.routes = routes;
    opt.n_routes = 1;
    opt.route = (struct route_ops){.acquire = acquire, .cancel = cancel, .release = release};
    opt.record = record;
    if (http_server_new(&opt, &s, &err) != RC_OK || http_listen_tcp(s, "127.0.0.1:0", false, &err) != RC_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    printf("%s\n", strrchr(http_server_address(s, 0), ':') + 1);
    fflush(stdout);
    return uv_run(opt.loop, UV_RUN_DEFAULT);
}
