/* Levels of a reading that must not be too high: normal, warn, critical. Layer watch; pure: no clock, no I/O.
 *
 * Up at once, for what is too hot or too full must be acted on; down only when the reading has stayed below
 * the level's threshold, less `back`, for `dwell_ms`. A reading that swings about a threshold changes nothing
 * twice. A reading that is missing changes no level; the time below begins anew behind it. */
#ifndef WATCH_LEVEL_H
#define WATCH_LEVEL_H

#include <stdbool.h>
#include <stdint.h>

enum level { LEVEL_NORMAL, LEVEL_WARN, LEVEL_CRITICAL, LEVELS };
const char *level_word(enum level l); /* "normal", "warn", "critical" */

struct level_rule {
    double warn, critical; /* a level begins at these; critical is not below warn */
    double back;           /* and ends below them by so much */
    uint64_t dwell_ms;     /* for so long */
};

struct level_state { /* zeros to begin with */
    enum level level;
    bool below;        /* the latest readings would be of a lower level … */
    enum level lower;  /* … the highest of those they were of … */
    uint64_t below_ms; /* … since then */
};

struct level_reading {
    bool known;
    double value;
    enum level least; /* whatever the value: what the device itself says of it; LEVEL_NORMAL = nothing */
};

/* Takes a reading; true when the level has changed. now_ms: monotonic. */
bool level_step(struct level_state *s, const struct level_rule *rule, const struct level_reading *reading,
                uint64_t now_ms);

/* The rule for the temperature of a device that tells its own limit (limit_c; 0, or nothing that could be
 * one: none): where it slows itself down. A GPU is critical there at the latest, and warns as far below as
 * the configured thresholds are apart. A processor's limit lies where others are damaged, and it is made to
 * run near it: critical is 5 below, warn 15 below, wherever the thresholds are. */
struct level_rule level_temperature(const struct level_rule *configured, unsigned limit_c, bool processor);

#endif
