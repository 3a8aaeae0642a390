/* The table of launchers: see launch.h. Layer launch; pure. */
#include "launch/launch.h"

#define LAUNCHER(symbol) extern const struct launch_ops symbol;
#include "launch/launch.def"
#undef LAUNCHER

static const struct launch_ops *const all[] = {
#define LAUNCHER(symbol) &symbol,
#include "launch/launch.def"
#undef LAUNCHER
};

const struct launch_ops *launch_find(struct str name)
{
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (str_eq_c(name, all[i]->name))
            return all[i];
    return NULL;
}
