/* The machine as commands without a daemon see it: where its devices are looked for. Layer cli; main thread.
 */
#include "cli/cli_priv.h"

#include "daemon/config.h"
#include "hw/hw.h"

#include <stdlib.h>

enum rc cli_inventory(struct hw_inventory *ret_inventory, struct err *err)
{
    const struct config_request req = {0};
    struct config *c = NULL;
    struct hw *hw = NULL;
    /* A damaged configuration is no reason not to look at the machine: its workers are then unknown. */
    (void)!config_load(&req, &c, NULL);
    const struct hw_options options = {.nvml_path = getenv("ARRIERO_NVML"),
                                       .hwmon_path = getenv("ARRIERO_HWMON"),
                                       .visible_devices = getenv("CUDA_VISIBLE_DEVICES"),
                                       .rpc = c ? c->rpc.items : NULL,
                                       .n_rpc = c ? c->rpc.n : 0};
    enum rc rc = hw_open(&options, &hw, err);
    if (rc == RC_OK)
        rc = hw_sample(hw, ret_inventory, err);
    hw_close(hw);
    config_free(c);
    return rc;
}
