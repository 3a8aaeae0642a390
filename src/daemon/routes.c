/* The table of paths as the proxy wants it. Layer daemon. */
#include "daemon/daemon_priv.h"

static const struct http_route table[] = {
#define ROUTE_GET(path, fn, control, open)  {path, HTTP_M_GET, fn, NULL, control, open},
#define ROUTE_POST(path, fn, control, open) {path, HTTP_M_POST, fn, NULL, control, open},
#define ROUTE_ANY(path, fn)                                                                                  \
    {path, HTTP_M_GET | HTTP_M_POST | HTTP_M_PUT | HTTP_M_DELETE, fn, NULL, false, false},
#define ROUTE_RELAY(path) {path, HTTP_M_POST, NULL, NULL, false, false},
#include "daemon/routes.def"
};

const struct http_route *routes_make(struct daemon *d, size_t *ret_n)
{
    struct http_route *routes = mem_calloc(TABLE_COUNT(table), sizeof *routes);
    for (size_t i = 0; i < TABLE_COUNT(table); i++) {
        routes[i] = table[i];
        routes[i].arg = d;
    }
    *ret_n = TABLE_COUNT(table);
    return routes;
}
