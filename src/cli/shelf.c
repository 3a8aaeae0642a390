/* The models that a command may name without a path: see cli_priv.h. Layer cli; main thread; blocking. */
#include "cli/cli_priv.h"

#include "daemon/config.h"
#include "gguf/catalog.h"

enum rc shelf_scan(bool usual_caches, struct catalog **ret_catalog, struct err *err)
{
    const struct config_request req = {0};
    struct catalog_options opt = {.usual_caches = usual_caches};
    struct config *c = NULL;
    /* A faulty one is the daemon's and arriero config's to tell of: models can be looked at without it. */
    if (config_load(&req, &c, NULL) == RC_OK) {
        opt.dirs = c->models_dirs.items;
        opt.n_dirs = c->models_dirs.n;
        opt.usual_caches = usual_caches && c->usual_caches;
    }
    enum rc rc = catalog_scan(&opt, ret_catalog, err);
    config_free(c);
    return rc;
}
