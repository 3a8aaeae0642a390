/* Seats: the places in which instances of one model run. See pool_priv.h.
 *
 * A model has one seat, or as many as its setting `instances` allows. Each is an entry of its own, with its
 * demand, facts, failures and back-off; the first leads: it has the names, the line and what is known of
 * prompts. All from `instances_min` on are loaded when as many requests wait as all slots there are could
 * take at once, where there is room without anybody leaving. */
#include "pool/pool_priv.h"

#include <string.h>

static bool may_load(const struct entry *s)
{
    return s->demand == DEMAND_NONE && !backoff_left_ms(s);
}

static uint32_t n_wanted(const struct entry *lead)
{
    uint32_t n = 0;
    for (const struct entry *s = lead; s; s = s->twin)
        n += s->demand != DEMAND_NONE;
    return n;
}

bool seats_are_wanted(const struct entry *e)
{
    return n_wanted(e->lead) > 0;
}

bool seats_may_load(const struct entry *e)
{
    for (const struct entry *s = e->lead; s; s = s->twin)
        if (may_load(s))
            return true;
    return false;
}

bool seats_other_serves(const struct entry *e)
{
    for (const struct entry *s = e->lead; s; s = s->twin)
        if (s != e && s->demand != DEMAND_NONE)
            return true;
    return false;
}

bool seats_is_extra(const struct entry *e)
{
    uint32_t others = n_wanted(e->lead) - (e->demand != DEMAND_NONE);
    return others >= e->lead->seats_min;
}

/* A whole round of requests waits, and every instance that is wanted is there. */
static bool is_pressed(const struct entry *lead)
{
    uint64_t slots = 0;
    for (const struct entry *s = lead; s; s = s->twin) {
        if (s->demand == DEMAND_NONE)
            continue;
        if (!s->current || s->current->state != POOL_READY)
            return false;
        slots += s->current->plan.estimate.params.parallel;
    }
    return line_length(lead->line) >= slots;
}

void seats_load(struct entry *e)
{
    struct entry *lead = e->lead;
    uint32_t n = n_wanted(lead), target = lead->seats_min;
    if (n >= target && lead->twin && is_pressed(lead))
        target = n + 1;
    for (struct entry *s = lead; s && n < target; s = s->twin)
        if (may_load(s)) {
            load_begin(s);
            n++;
        }
}

void seats_set(struct entry *lead, const struct pool_model *m)
{
    uint32_t most = m->instances_max > 1 ? m->instances_max : 1, n = 1;
    if (most > POOL_MAX_SEATS)
        most = POOL_MAX_SEATS;
    lead->seats_min = m->instances_min < 1 ? 1 : m->instances_min < most ? m->instances_min : most;
    struct entry **at = &lead->twin;
    for (; *at && n < most; n++)
        at = &(*at)->twin;
    for (; n < most; n++) {
        *at = entry_new_seat(lead, n);
        at = &(*at)->twin;
    }
    struct entry *spare = *at;
    *at = NULL;
    while (spare) {
        struct entry *next = spare->twin;
        spare->twin = NULL;
        seat_uproot(spare, "settings_changed", "fewer instances of it are wanted");
        entry_free_seat(spare);
        spare = next;
    }
    if (most > 1 && !lead->prefixes) {
        lead->prefixes = prefix_table_new();
    } else if (most == 1) {
        prefix_table_free(lead->prefixes);
        lead->prefixes = NULL;
    }
}
