/* The speed model over a layout. Layer plan, internal. */
#ifndef PLAN_SPEED_H
#define PLAN_SPEED_H

#include "plan/layout.h"

void speed_of(const struct layout *l, const struct plan_machine *machine, struct plan_speed *ret_speed);
/* GB/s of the host's memory, as given or a guess from its cores. */
double speed_host_bandwidth(const struct plan_host *h);

#endif
