/* How hot and how full the devices are: each sample's readings against the configured thresholds, with
 * hysteresis (watch/level.h). Every change of level is an event; the pool is told of the heat with each
 * sample. Layer daemon; loop thread.
 *
 * A device keeps its row for the life of the daemon, so that one that is lost for a while goes on where it
 * was. */
#include "daemon/daemon_priv.h"

#include "base/clock.h"
#include "watch/level.h"

#include <stdio.h>
#include <string.h>

#define HOST "Host"

struct device_levels {
    char name[24];
    bool has_temperature, has_fill;
    unsigned celsius;
    double fill_pct;
    struct level_rule heat_rule;
    struct level_state heat, fill;
};

struct levels {
    struct device_levels rows[HEAT_MAX_DEVICES];
    size_t n;
};

struct levels *levels_new(void)
{
    return mem_new(struct levels);
}

void levels_free(struct levels *l)
{
    free(l);
}

static struct device_levels *row_of(struct levels *l, const char *name)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->rows[i].name, name) == 0)
            return &l->rows[i];
    return NULL;
}

bool levels_knows(const struct daemon *d, const char *device)
{
    return row_of(d->levels, device) != NULL;
}

static struct device_levels *row_made(struct levels *l, const char *name)
{
    struct device_levels *row = row_of(l, name);
    if (!row && l->n < TABLE_COUNT(l->rows)) {
        row = &l->rows[l->n++];
        *row = (struct device_levels){0};
        snprintf(row->name, sizeof row->name, "%s", name);
    }
    return row;
}

/* ---- events ---- */

static void tell(struct daemon *d, const struct device_levels *row, const char *kind, const char *text)
{
    struct plan_reason r = {.code = kind};
    snprintf(r.text, sizeof r.text, "%s", text);
    const struct pool_decision event = {.wall_ms = clock_wall_ms(),
                                        .kind = kind,
                                        .model = row->name,
                                        .instance = "",
                                        .reasons = &r,
                                        .n_reasons = 1};
    events_decision(d, &event);
}

/* "CUDA0 is at 91 °C, critical from 90" */
static void heat_text(const struct device_levels *row, const char *slowed_by, char *out, size_t cap)
{
    const struct level_rule *r = &row->heat_rule;
    int n = snprintf(out, cap, "%s is at %u °C", row->name, row->celsius);
    size_t at = n > 0 && (size_t)n < cap ? (size_t)n : cap - 1;
    if (row->heat.level != LEVEL_NORMAL)
        n = snprintf(out + at, cap - at, ", %s from %.0f",
                     row->heat.level == LEVEL_WARN ? "too warm" : "critical",
                     row->heat.level == LEVEL_WARN ? r->warn : r->critical);
    else
        n = snprintf(out + at, cap - at, ", more than %.0f below the warning at %.0f", r->back, r->warn);
    at += n > 0 && (size_t)n < cap - at ? (size_t)n : 0;
    if (slowed_by[0])
        snprintf(out + at, cap - at, "; it slows itself down (%s)", slowed_by);
}

static void fill_text(const struct config *c, const struct device_levels *row, char *out, size_t cap)
{
    snprintf(out, cap, "%.1f %% of the memory of %s is used%s", row->fill_pct, row->name,
             row->fill.level == LEVEL_CRITICAL ? ", critical from "
             : row->fill.level == LEVEL_WARN   ? ", a warning from "
                                               : "");
    size_t n = strlen(out);
    if (row->fill.level != LEVEL_NORMAL && n < cap)
        snprintf(out + n, cap - n, "%.1f",
                 row->fill.level == LEVEL_CRITICAL ? c->critical_fill : c->warn_fill);
}

/* ---- readings ---- */

struct temperatures { /* of one device */
    bool known;
    unsigned celsius, limit_c; /* 0 = it tells none */
    enum hw_heat heat;
    char slowed_by[96];
};

static struct temperatures of_device(const struct hw_device *g)
{
    struct temperatures t = {.known = (g->valid & HW_TEMPERATURE) != 0,
                             .celsius = g->temperature_c,
                             .limit_c = g->valid & HW_TEMP_SLOWDOWN ? g->temp_slowdown_c : 0,
                             .heat = hw_heat_of(g)};
    if (t.heat != HW_HEAT_NONE)
        (void)hw_throttle_words(g->throttle_reasons, t.slowed_by, sizeof t.slowed_by);
    return t;
}

static void look_at_heat(struct daemon *d, const char *name, const struct temperatures *t)
{
    static const char *const kinds[LEVELS] = {"thermal_normal", "thermal_warning", "thermal_critical"};
    static const enum level least[] = {[HW_HEAT_SOFT] = LEVEL_WARN, [HW_HEAT_HARD] = LEVEL_CRITICAL};
    const struct config *c = d->config;
    const struct level_rule configured = {c->warn_temperature, c->critical_temperature, c->heat_back,
                                          c->heat_dwell};
    const struct level_reading reading = {.known = t->known, .value = t->celsius, .least = least[t->heat]};
    struct device_levels *row = t->known ? row_made(d->levels, name) : row_of(d->levels, name);
    char text[200];
    if (!row)
        return;
    row->has_temperature = t->known;
    row->celsius = t->celsius;
    row->heat_rule = level_temperature(&configured, t->limit_c, strcmp(name, HOST) == 0);
    if (!level_step(&row->heat, &row->heat_rule, &reading, clock_mono_ms()))
        return;
    heat_text(row, t->slowed_by, text, sizeof text);
    tell(d, row, kinds[row->heat.level], text);
}

static void look_at_fill(struct daemon *d, const struct hw_device *g)
{
    static const char *const kinds[LEVELS] = {"vram_normal", "vram_pressure", "vram_critical"};
    const struct config *c = d->config;
    const struct level_rule rule = {c->warn_fill, c->critical_fill, 2, c->heat_dwell};
    bool known = (g->valid & HW_MEMORY) && g->total_bytes;
    struct device_levels *row = known ? row_made(d->levels, g->name) : row_of(d->levels, g->name);
    char text[200];
    if (!row)
        return;
    row->has_fill = known;
    row->fill_pct = known ? 100.0 * (double)g->used_bytes / (double)g->total_bytes : 0;
    const struct level_reading reading = {.known = known, .value = row->fill_pct};
    if (!level_step(&row->fill, &rule, &reading, clock_mono_ms()))
        return;
    fill_text(c, row, text, sizeof text);
    tell(d, row, kinds[row->fill.level], text);
}

static void tell_pool(struct daemon *d)
{
    static const enum pool_heat_level words[LEVELS] = {POOL_HEAT_NONE, POOL_HEAT_WARM, POOL_HEAT_HOT};
    struct pool_device_heat list[HEAT_MAX_DEVICES];
    size_t n = 0;
    for (size_t i = 0; i < d->levels->n; i++) {
        const struct device_levels *row = &d->levels->rows[i];
        struct pool_device_heat *h = &list[n++];
        bool known = d->config->heat_react && row->has_temperature; /* else what was done is undone */
        *h = (struct pool_device_heat){.level = known ? words[row->heat.level] : POOL_HEAT_NONE,
                                       .celsius = row->celsius,
                                       .critical_c = (unsigned)row->heat_rule.critical};
        snprintf(h->device, sizeof h->device, "%s", row->name);
    }
    pool_heat(d->pool, list, n);
}

void levels_look(struct daemon *d)
{
    const struct hw_inventory *inv = sampler_latest(d->sampler);
    if (!d->pool || d->pool_stopped)
        return;
    for (size_t i = 0; i < inv->n_devices; i++) {
        const struct temperatures t = of_device(&inv->devices[i]);
        look_at_heat(d, inv->devices[i].name, &t);
        look_at_fill(d, &inv->devices[i]);
    }
    const struct temperatures host = {.known = (inv->host.valid & HW_TEMPERATURE) != 0,
                                      .celsius = inv->host.temperature_c,
                                      .limit_c =
                                          inv->host.valid & HW_TEMP_SLOWDOWN ? inv->host.temp_slowdown_c : 0};
    look_at_heat(d, HOST, &host);
    tell_pool(d);
}

/* ---- views ---- */

static void put_device(struct daemon *d, const char *name, yyjson_mut_doc *doc, yyjson_mut_val *o)
{
    const struct device_levels *row = name ? row_of(d->levels, name) : NULL;
    if (row && row->has_temperature) {
        yyjson_mut_val *t = yyjson_mut_obj_add_obj(doc, o, "thermal");
        yyjson_mut_obj_add_str(doc, t, "level", level_word(row->heat.level));
        yyjson_mut_obj_add_real(doc, t, "warn_c", row->heat_rule.warn);
        yyjson_mut_obj_add_real(doc, t, "critical_c", row->heat_rule.critical);
        yyjson_mut_obj_add_uint(doc, t, "step", pool_heat_step(d->pool, name));
    } else {
        yyjson_mut_obj_add_null(doc, o, "thermal");
    }
    if (row && row->has_fill)
        yyjson_mut_obj_add_str(doc, o, "fill_level", level_word(row->fill.level));
}

void levels_put(struct daemon *d, yyjson_mut_doc *doc, yyjson_mut_val *machine)
{
    size_t i, n;
    yyjson_mut_val *g;
    yyjson_mut_arr_foreach(yyjson_mut_obj_get(machine, "gpus"), i, n, g)
        put_device(d, yyjson_mut_get_str(yyjson_mut_obj_get(g, "device")), doc, g);
    put_device(d, HOST, doc, yyjson_mut_obj_get(machine, "host"));
}

void levels_warnings(struct daemon *d, yyjson_mut_doc *doc, yyjson_mut_val *list)
{
    char text[240];
    for (size_t i = 0; i < d->levels->n; i++) {
        const struct device_levels *row = &d->levels->rows[i];
        unsigned step = pool_heat_step(d->pool, row->name);
        if (row->heat.level != LEVEL_NORMAL || step) {
            heat_text(row, "", text, sizeof text);
            size_t n = strlen(text);
            if (step)
                snprintf(text + n, sizeof text - n, "; step %u of %d: fewer requests at a time", step,
                         HEAT_STEPS);
            yyjson_mut_arr_add_strcpy(doc, list, text);
        }
        if (row->has_fill && row->fill.level != LEVEL_NORMAL) {
            fill_text(d->config, row, text, sizeof text);
            yyjson_mut_arr_add_strcpy(doc, list, text);
        }
    }
}

void levels_metrics(struct daemon *d)
{
    const struct hw_inventory *inv = sampler_latest(d->sampler);
    metrics_clear(d->metrics, METRIC_THERMAL_LEVEL);
    metrics_clear(d->metrics, METRIC_HEAT_STEP);
    metrics_clear(d->metrics, METRIC_HOST_TEMPERATURE);
    for (size_t i = 0; i < d->levels->n; i++) {
        const struct device_levels *row = &d->levels->rows[i];
        if (!row->has_temperature)
            continue;
        metrics_set(d->metrics, METRIC_THERMAL_LEVEL, (const char *[]){row->name}, row->heat.level);
        metrics_set(d->metrics, METRIC_HEAT_STEP, (const char *[]){row->name},
                    pool_heat_step(d->pool, row->name));
    }
    if (inv->host.valid & HW_TEMPERATURE)
        metrics_set(d->metrics, METRIC_HOST_TEMPERATURE, NULL, inv->host.temperature_c);
}
