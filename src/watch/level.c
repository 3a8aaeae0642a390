/* Levels with hysteresis: see level.h. */
#include "watch/level.h"

#define PROCESSOR_CRITICAL 5  /* degrees below its own limit */
#define PROCESSOR_WARN     15 /* likewise */
#define LIMIT_LEAST        50 /* what a sensor tells beyond these is no limit of silicon */
#define LIMIT_MOST         150

const char *level_word(enum level l)
{
    static const char *const words[LEVELS] = {"normal", "warn", "critical"};
    return (unsigned)l < LEVELS ? words[l] : "unknown";
}

static enum level level_at(const struct level_rule *r, double value)
{
    return value >= r->critical ? LEVEL_CRITICAL : value >= r->warn ? LEVEL_WARN : LEVEL_NORMAL;
}

bool level_step(struct level_state *s, const struct level_rule *r, const struct level_reading *reading,
                uint64_t now_ms)
{
    if (!reading->known) {
        s->below = false;
        return false;
    }
    enum level up = level_at(r, reading->value), down = level_at(r, reading->value + r->back);
    up = reading->least > up ? reading->least : up;
    down = reading->least > down ? reading->least : down;
    if (up > s->level) {
        *s = (struct level_state){.level = up};
        return true;
    }
    if (down >= s->level) {
        s->below = false;
        return false;
    }
    if (!s->below) {
        s->below = true;
        s->below_ms = now_ms;
        s->lower = down;
    }
    s->lower = down > s->lower ? down : s->lower;
    if (now_ms - s->below_ms < r->dwell_ms)
        return false;
    *s = (struct level_state){.level = s->lower};
    return true;
}

struct level_rule level_temperature(const struct level_rule *configured, unsigned limit_c, bool processor)
{
    struct level_rule r = *configured;
    if (limit_c < LIMIT_LEAST || limit_c > LIMIT_MOST)
        return r;
    if (processor) {
        r.critical = (double)limit_c - PROCESSOR_CRITICAL;
        r.warn = (double)limit_c - PROCESSOR_WARN;
    } else if (limit_c < r.critical) {
        r.warn = limit_c - (r.critical - r.warn);
        r.critical = limit_c;
    }
    return r;
}
