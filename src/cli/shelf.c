/* The models that a command may name without a path: see cli_priv.h. Layer cli; main thread; blocking. */
#include "cli/control.h"

#include "daemon/config.h"
#include "gguf/catalog.h"

#include <string.h>

#define QUESTION_MS 2000u /* for a daemon that may not be there */
#define DIRS_MAX    256

struct dirs {
    const char *list[DIRS_MAX];
    size_t n;
};

static void add(struct dirs *d, const char *dir)
{
    for (size_t i = 0; i < d->n; i++)
        if (strcmp(d->list[i], dir) == 0)
            return;
    if (dir[0] && d->n < DIRS_MAX)
        d->list[d->n++] = dir;
}

/* Folders that the daemon was started with (serve --models) stand in no file: it is asked. NULL: no answer.
 */
static yyjson_doc *ask_daemon(const struct cli_call *call)
{
    struct client_address address;
    yyjson_doc *doc = NULL;
    struct client_request r = {
        .method = "GET", .path = CONTROL_API "/config", .timeout_ms = QUESTION_MS, .cancel_fd = -1};
    if (client_address_control(call->socket, &address, NULL) != RC_OK ||
        client_json(&address, &r, &doc, NULL) != RC_OK)
        return NULL;
    return doc;
}

enum rc shelf_scan(const struct cli_call *call, bool usual_caches, struct catalog **ret_catalog,
                   struct err *err)
{
    const struct config_request req = {0};
    struct dirs dirs = {.n = 0};
    bool usual = usual_caches;
    struct config *c = NULL;
    /* A faulty one is the daemon's and arriero config's to tell of: models can be looked at without it. */
    if (config_load(&req, &c, NULL) == RC_OK) {
        for (size_t i = 0; i < c->models_dirs.n; i++)
            add(&dirs, c->models_dirs.items[i]);
        usual = usual && c->usual_caches;
    }
    yyjson_doc *doc = ask_daemon(call);
    yyjson_val *told = yyjson_obj_get(yyjson_obj_get(yyjson_doc_get_root(doc), "config"), "models_dirs"), *v;
    size_t i, n;
    yyjson_arr_foreach(told, i, n, v) add(&dirs, yyjson_is_str(v) ? yyjson_get_str(v) : "");
    const struct catalog_options opt = {.dirs = dirs.list, .n_dirs = dirs.n, .usual_caches = usual};
    enum rc rc = catalog_scan(&opt, ret_catalog, err);
    yyjson_doc_free(doc);
    config_free(c);
    return rc;
}
