/* The table of paths as the proxy wants it: the calls of every dialect, which go to instances, and what is
 * answered here. Layer daemon. */
#include "daemon/daemon_priv.h"

#define ANY_METHOD (HTTP_M_GET | HTTP_M_POST | HTTP_M_PUT | HTTP_M_DELETE)

static const struct http_route table[] = {
#define ROUTE_GET(p, fn, c, o)       {.path = p, .methods = HTTP_M_GET, .local = fn, .control = c, .open = o},
#define ROUTE_POST(p, fn, c, o)      {.path = p, .methods = HTTP_M_POST, .local = fn, .control = c, .open = o},
#define ROUTE_ANY(p, fn)             {.path = p, .methods = ANY_METHOD, .local = fn, .forwards = true},
#define ROUTE_OLLAMA(p, allowed, fn) {.path = p, .methods = allowed, .local = fn, .dialect = DIALECT_OLLAMA},
#include "daemon/routes.def"
};

/* Those that show or use no model that the key may not use. */
static const http_local_fn scoped[] = {
    data_models, data_model,  router_models, router_props, router_slots,   swap_upstream,
    ollama_tags, ollama_show, ollama_refuse, ollama_pull,  ollama_version, ollama_ps,
};

static bool is_scoped(http_local_fn fn)
{
    for (size_t i = 0; i < TABLE_COUNT(scoped); i++)
        if (scoped[i] == fn)
            return true;
    return false;
}

static size_t count_calls(void)
{
    size_t n = 0;
    for (unsigned id = 0; id < DIALECTS; id++)
        n += dialect_at((enum dialect_id)id)->n_calls;
    return n;
}

const struct http_route *routes_make(struct daemon *d, size_t *ret_n)
{
    struct http_route *routes = mem_calloc(count_calls() + TABLE_COUNT(table), sizeof *routes);
    size_t n = 0;
    for (unsigned id = 0; id < DIALECTS; id++) {
        const struct dialect *dialect = dialect_at((enum dialect_id)id);
        for (size_t i = 0; i < dialect->n_calls; i++)
            routes[n++] = (struct http_route){.path = dialect->calls[i].path,
                                              .methods = HTTP_M_POST,
                                              .dialect = (enum dialect_id)id,
                                              .call = &dialect->calls[i]};
    }
    for (size_t i = 0; i < TABLE_COUNT(table); i++) {
        routes[n] = table[i];
        routes[n].scoped = is_scoped(table[i].local);
        routes[n++].arg = d;
    }
    *ret_n = n;
    return routes;
}
