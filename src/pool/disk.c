/* How many loads may go on at once: see pool_priv.h. Layer pool; loop thread.
 *
 * Memory bounds loads by reservations (admit.c); this is the bound by the disk. A load takes a share of its
 * bandwidth: the time that reading takes alone, of the whole time the load takes. While the shares add up to
 * no more than AT_ONCE, nobody reads at less than half of what it would alone, and the disk is never idle
 * between two loads. One whose file lies in the page cache takes no share. With the option loads_at_once a
 * fixed number counts instead, of all loads. First come, first served; what reads nothing passes the line.
 * One that takes LATE times as long as was predicted holds nobody up any more: it may hang. */
#include "pool/pool_priv.h"

#define AT_ONCE 2.0
#define LATE    4 /* two at half the speed, and as much again */

static double share_of(const struct pool_instance *i)
{
    if (i->pool->opt.loads_at_once > 0)
        return AT_ONCE / i->pool->opt.loads_at_once;
    return i->facts ? plan_disk_share(i->facts, &i->machine.host, i->plan.speed.load_seconds) : 0;
}

static bool is_loading(const struct pool_instance *i)
{
    double spent = (double)(i->pool->deps.now_ms() - i->start_ms) / 1000;
    return i->state == POOL_STARTING &&
           (i->pool->opt.loads_at_once > 0 || spent < LATE * i->plan.speed.load_seconds);
}

bool disk_has_turn(const struct pool_instance *i)
{
    double share = share_of(i), taken = 0;
    bool earlier = true; /* the list is in the order of the loads */
    for (const struct pool_instance *o = i->pool->instances; o; o = o->next) {
        double other = share_of(o);
        earlier &= o != i;
        if (is_loading(o))
            taken += other;
        else if (earlier && o->state == POOL_PLANNED && o->victims_left == 0 && other > 0 && share > 0)
            return false; /* it waits for the same, and came before */
    }
    return share <= 0 || taken <= 0 || taken + share <= AT_ONCE * (1 + 1e-9);
}
